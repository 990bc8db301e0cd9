"""Archives of runs, unpacked."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from frozen.machine import fingerprint

HERE = Path(__file__).parent


@pytest.fixture
def unpacked(tmp_path):
    """A function: name → (folder with prepared/, finished/ and half/, whether bits must agree)."""

    def unpack(name: str) -> tuple[Path, bool]:
        with tarfile.open(HERE / f"{name}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        made_on = json.loads((tmp_path / "machine.json").read_text())
        return tmp_path, made_on == fingerprint()

    return unpack
