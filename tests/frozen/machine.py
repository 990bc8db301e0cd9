"""What decides the last bit of a computation: processor, array libraries, operating system."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("numpy", "scipy", "torch", "numba", "ipi", "mace-torch", "ase", "vesin", "pymbar")


def fingerprint() -> dict[str, str]:
    """Equal fingerprints give equal bits from equal code."""
    found = {name: metadata.version(name) for name in PACKAGES}
    found["processor"] = _processor()
    found["system"] = f"{platform.system()} {platform.machine()} {platform.python_version()}"
    found["blas"] = os.environ.get("OPENBLAS_CORETYPE", "")
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
