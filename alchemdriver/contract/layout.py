"""Names of folders and files of a run."""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import InputError
from .files import UNFINISHED


def find_runs(target: Path) -> list[Path]:
    """The inputs of *target*: an XML, a folder with input.xml, of replicas, of windows, or of the
    points of a mass leg."""
    target = Path(target)
    if target.is_file():
        return [target]
    left = next(target.glob(f"{UNFINISHED}*"), None)
    if left is not None:
        raise InputError(
            f"{target}: 'prepare' was stopped while it wrote this folder: remove it and prepare "
            f"again (or wait, if it still runs; its files are in {left.name})"
        )
    if (target / "input.xml").is_file():
        return [target / "input.xml"]
    for pattern in ("replica-*/input.xml", "window-*/input.xml", "point-*/input.xml"):
        found = sorted(target.glob(pattern), key=_in_order)
        if found:
            return found
    raise InputError(
        f"{target}: expected an input file, or a folder with input.xml, replica-*, window-* or "
        "point-*"
    )


def home_of(inputs: list[Path]) -> Path:
    """Where what belongs to all of *inputs* lies: their folder, or that of the replicas."""
    folder = inputs[0].resolve().parent
    return folder if len(inputs) == 1 else folder.parent


def _in_order(path: Path) -> list[tuple[int, str]]:
    """Sorts window-2 before window-10."""
    parts = path.parent.name.split("-")[1:]
    return [(int(p), "") if p.isdigit() else (sys.maxsize, p) for p in parts]


FOLDER = "mass-leg"  # beside the input, or beside the replicas
KINETIC = "kinetic_cv"  # output file, and i-PI's name of the quantity
