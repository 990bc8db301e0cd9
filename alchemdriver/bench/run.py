"""Which parts of the benchmark run, in which order, and where their results go."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import mace
import torch

from ..contract.files import write_json
from ..errors import InputError, did_you_mean
from . import drift, memory, profile, size, step, table, threads
from .cases import MODELS, SYSTEMS
from .timing import Row

__all__ = ["FULL", "PARTS", "QUICK", "Plan", "run_bench"]

PARTS = {  # name: models, dtypes, systems, rounds, device -> yields rows
    "table": table.rows,
    "size": size.rows,
    "memory": memory.rows,
    "step": step.rows,
    "drift": drift.rows,
    "profile": profile.rows,
    "threads": threads.rows,
}
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often.

    parts: keys of ``PARTS``; models: keys of ``cases.MODELS``, or names that the shelf knows;
    systems: keys of ``cases.SYSTEMS``, for the table and the profile.
    """

    parts: Sequence[str]
    models: Sequence[str]
    systems: Sequence[str]
    dtypes: Sequence[str]
    rounds: int


FULL = Plan(
    ("table", "size", "memory", "step", "drift", "profile"),
    ("demo", *MODELS),
    (
        "perovskite-40",
        "perovskite-135",
        "perovskite-320",
        "metal-108",
        "metal-108-five",
        "alloy-32",
        "alloy-32-two",
        "vacancy-250",
    ),
    DTYPES,
    5,
)
QUICK = Plan(("table",), ("demo",), ("perovskite-40",), ("float64",), 3)


def run_bench(plan: Plan, device: str, out: Path | None) -> None:
    """Measure, print a line for each row, and write JSON to *out* after each.

    Parts that *out* holds already and that are not asked for stay in it.  Raises InputError for an
    unknown name.
    """
    for given, known in ((plan.parts, PARTS), (plan.systems, SYSTEMS), (plan.dtypes, DTYPES)):
        for name in given:
            if name not in known:
                raise InputError(f"unknown name '{name}'{did_you_mean(name, known)}")
    result: dict[str, Any] = {}
    if out is not None and out.exists():
        result = json.loads(out.read_text(encoding="utf-8"))
    what = (plan.models, plan.dtypes, plan.systems, plan.rounds, device)
    for part in plan.parts:
        result[part] = {"environment": environment(device), "rounds": plan.rounds, "rows": []}
        for row in PARTS[part](*what):
            print(f"{part}: {_line(row)}", flush=True)
            result[part]["rows"].append(row)
            if out is not None:
                write_json(out, result)
    print(f"ratios: median (quartiles) of {plan.rounds} rounds, process time on a CPU")


def environment(device: str) -> dict[str, object]:
    """Date, hardware and versions."""
    if device.startswith("cuda"):
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = _cpu()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "load average at the start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mace-torch": mace.__version__,
    }


def _line(row: Row) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in row.items())


def _text(value: object) -> str:
    if isinstance(value, dict) and "median" in value:
        return f"{value['median']:.2f} ({value['low']:.2f}-{value['high']:.2f})"
    if isinstance(value, dict):
        return "{" + _line(value) + "}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
