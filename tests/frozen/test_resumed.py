"""Runs that earlier code left half done end like the undisturbed ones, bit for bit.

Where this machine is not the one that made them, to six digits of what is printed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import real_runs as rr

from frozen import freeze


def printed(run: Path) -> dict[str, dict[int, list[str]]]:
    """Output file → step → what was printed, of one run folder; later branches win."""
    found = {"run.out": {k: row.split() for k, row in rr.rows(run / "run.out").items()}}
    for path in sorted([*run.glob("run.dHdlambda_*"), *run.glob("run.lambda_*")]):
        found[path.name] = {step: [value] for step, value in rr.frames(path).items()}
    return found


# Of what is printed, on another machine: rounding grows along a trajectory of some hundred steps.
# Stages start from means of positions that were printed with six digits.
DIGITS, DIGITS_OF_STAGES = 1e-6, 1e-3


def same_numbers(
    a: dict[int, list[str]], b: dict[int, list[str]], exact: bool, digits: float
) -> bool:
    if exact or a.keys() != b.keys():
        return a == b
    x, y = (np.array([rows[k] for k in sorted(rows)], dtype=float) for rows in (a, b))
    scale = np.abs(x).max(axis=0)
    return bool((np.abs(x - y) <= digits * scale + 1e-9).all())


@pytest.mark.parametrize("name", sorted(freeze.RUNS))
def test_a_half_done_run_ends_like_the_undisturbed_one(name, unpacked):
    folder, exact = unpacked(name)
    half, whole = folder / "half" / "run", folder / "finished" / "run"
    digits = DIGITS_OF_STAGES if name in ("crystal", "vacancy", "transmute") else DIGITS
    first = half / "mass-leg" if name == "switch-pimd" else half
    for target in dict.fromkeys((first, half)):
        done = rr.command("run", target, "--jobs", 1, limit=10 * rr.LIMIT)
        assert done.returncode == 0, done.stderr
    inputs = sorted(whole.rglob("input.xml"))
    assert inputs
    for path in inputs:
        resumed, undisturbed = (
            printed(root / path.parent.relative_to(whole)) for root in (half, whole)
        )
        assert resumed.keys() == undisturbed.keys()
        for file, rows in undisturbed.items():
            assert same_numbers(rows, resumed[file], exact, digits), f"{path.parent.name}/{file}"
