"""What one evaluation costs, before anything is run."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from ..client.assembly import hamiltonian_of
from ..contract.run_input import read_input
from .folders import write_run
from .planning import Draft, put
from .record import Case

__all__ = ["seconds_per_evaluation"]


def seconds_per_evaluation(made: Draft, device: str) -> dict[str, float]:
    """Seconds by name of case; measured once for each system, model and alchemy.

    A first evaluation, which compiles, is not counted.  Cases in stages are left out.
    """
    measured: dict[str, float] = {}
    found = {}
    with tempfile.TemporaryDirectory(prefix="alchemdriver-") as scratch:
        root = Path(scratch)
        put(root, made.files)
        for case in made.campaign.cases:
            if case.steps is None:
                continue
            key = _what_counts(case)
            if key not in measured:
                folder = root / f"timed-{len(measured)}"
                write_run(root, made.campaign, next(case.runs()), folder)
                measured[key] = _timed(folder / "input.xml", device)
            found[case.name] = measured[key]
    return found


def _what_counts(case: Case) -> str:
    names = ("supercell", "model", "alchemy", "dtype", "other", "interpolation")
    return json.dumps([case.system, {n: case.options.get(n) for n in names}])


def _timed(path: Path, device: str) -> float:
    run = read_input(path)
    hamiltonian = hamiltonian_of(run, device)
    at = run.structure.positions, run.structure.cell, 0.5
    hamiltonian.evaluate(*at)
    start, n = time.perf_counter(), 0
    while n < 3 or (time.perf_counter() - start < 0.2 and n < 100):
        hamiltonian.evaluate(*at)
        n += 1
    return (time.perf_counter() - start) / n
