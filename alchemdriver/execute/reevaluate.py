"""H(x, λ') of a window's configurations at the other λ, for MBAR.

It runs at the end of ``run``, on the same device, and from ``analyze`` for what is missing; the
analysis package itself never evaluates anything.  One process, one Hamiltonian: the λ are told
apart by the argument of ``evaluate`` alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..client import assembly
from ..contract.run_input import RunInput, read_input
from ..errors import OutOfTime, RunError
from ..prepare.render import sign

log = logging.getLogger(__name__)

SAVE_EVERY = 50  # configurations, between writes: what an interruption may cost
TOLERANCE = 0.01  # kT, between the printed ∂H/∂λ and that of the stored configuration


def reevaluate(
    inputs: Sequence[Path],
    device: str = "cpu",
    report: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> float | None:
    """Evaluate what MBAR over *inputs* needs and is not there; store it beside the trajectories.

    report(name of the window, configurations done, total over all windows).  Returns the largest
    difference (eV) between a printed ∂H/∂λ and that of its stored configuration, None if nothing
    had to be done.  Raises RunError where they disagree (another model file, another dtype),
    AnalysisError for outputs that cannot be read, ModelError and InputError as a client would.
    """
    from ..analysis.estimators.fixed_lambda import fixed_window
    from ..analysis.estimators.reduced import (
        STORE,
        linear_in_lambda,
        read_store,
        states,
        wanted,
        write_store,
    )
    from ..units import kT

    runs = [read_input(path) for path in inputs]
    if all(linear_in_lambda(run) or run.schedule is not None for run in runs):
        return None
    for run in runs:
        sign(run.path)  # the model file is still that of the digest under which energies are kept
    runs = [read_input(run.path) for run in runs]
    if len({run.parameters.digest for run in runs}) > 1:
        raise RunError("windows with different digests are not of one transformation")
    windows = [fixed_window(run) for run in runs]
    lams = states([w.lam for w in windows])
    jobs = []
    for run, window in zip(runs, windows, strict=True):
        found, store = wanted(run, window), read_store(run.folder / STORE)
        missing = [
            i for i, k in enumerate(found.keys) if any((k, lam) not in store for lam in lams)
        ]
        jobs.append((run, window, found, store, missing))
    total = sum(len(missing) for *_, missing in jobs)
    if total == 0:
        return None

    worst, done = 0.0, 0
    hamiltonian = None
    for run, window, found, store, missing in jobs:
        if not missing:
            continue
        # One for all windows: the digest says that they are the same but for λ.
        hamiltonian = hamiltonian or assembly.hamiltonian_of(run, device)
        try:
            for i in missing:
                x, cell = found.all.positions[found.frames[i]], found.all.cells[found.frames[i]]
                key = found.keys[i]
                for lam in lams:
                    if (key, lam) in store and lam != window.lam:
                        continue
                    beads = [hamiltonian.evaluate(bead, cell, lam) for bead in x]
                    store[key, lam] = float(np.mean([e.energy for e in beads]))
                    if lam == window.lam:
                        slope = float(np.mean([e.dHdlambda for e in beads]))
                        off = abs(slope - window.gradient[found.rows[i]])
                        _check(run, int(window.steps[found.rows[i]]), off, kT(window.temperature))
                        worst = max(worst, off)
                done += 1
                if done % SAVE_EVERY == 0:
                    write_store(run.folder / STORE, store)
                report(run.folder.name, done, total)
        except (OutOfTime, KeyboardInterrupt):
            write_store(run.folder / STORE, store)
            raise
        write_store(run.folder / STORE, store)
    log.info("printed and re-evaluated ∂H/∂λ differ by at most %.1e eV", worst)
    return worst


def _check(run: RunInput, step: int, off: float, thermal: float) -> None:
    if not off < TOLERANCE * thermal:
        raise RunError(
            f"{run.folder.name}: the configuration of step {step} has another ∂H/∂λ than the run "
            f"printed there (by {off:.2g} eV, {TOLERANCE:g} kT allowed): the model, its dtype or "
            "the files changed since the run"
        )
