"""How far a free energy depends on the model: stored frames of both ends at another one.

ΔG of model B = ΔG of model A + [F_B − F_A] at λ = 1 − [F_B − F_A] at λ = 0, both differences from
frames that A sampled: holds of a switch after half their length, windows at λ = 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..analysis.estimators.estimate import Estimate, add, stated
from ..analysis.estimators.fixed_lambda import fixed_window
from ..analysis.estimators.reweighting import Reweighted, reweighted
from ..analysis.files import frames
from ..analysis.files.trajectory import read_trajectory
from ..client import assembly
from ..contract import shelf
from ..contract.run_input import RunInput, read_input
from ..contract.stored import Format
from ..errors import AnalysisError, InputError
from ..paths.terms import Hamiltonian
from ..prepare.render import sign
from ..units import kT

MOST = 400  # frames of an end, at most: two evaluations each, times beads


@dataclass(frozen=True)
class OtherModel:
    """The change of ΔG from the run's model to another."""

    model: str
    other: str
    other_sha256: str | None
    ends: tuple[Reweighted, ...]  # λ = 0 (not where that end has no model) and λ = 1
    change: Estimate  # eV, whole cell: ΔG of the other model minus that of the run's


OTHER_MODEL = Format(
    "alchemdriver-also-with/1", OtherModel, remedy="analyse again", error=AnalysisError
)


def other_model(
    inputs: Sequence[Path],
    name: str,
    head: str | None = None,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> OtherModel:
    """Evaluate the frames of *inputs* with the model *name* and its *head* at both ends.

    report(frames done, total).  Raises InputError for a path on which the question has no meaning,
    AnalysisError where no frames are stored or too few of them count, and what a client would.
    """
    runs = [read_input(path) for path in inputs]
    first = runs[0]
    if first.lambda_path.sweeps_temperature or first.parameters.other is not None:
        raise InputError(
            f"{first.parameters.alchemy}: only a free energy between two states of one model can "
            "be asked of another model"
        )
    for run in runs:
        sign(run.path)  # the model file is still that of the run
    if len({run.parameters.digest for run in runs}) > 1 and first.schedule is not None:
        raise InputError("the runs are not of one transformation")
    absolute = first.lambda_path.absolute
    lams = (1.0,) if absolute else (0.0, 1.0)
    stored = [_stored(run) for run in runs]
    most = MOST if first.schedule is None else max(1, MOST // len(runs))
    chosen = {
        lam: [_groups(run, s.steps, lam, most) for run, s in zip(runs, stored, strict=True)]
        for lam in lams
    }
    total = sum(len(x) for found in chosen.values() for groups in found for x in groups)
    asked = replace(first, parameters=replace(first.parameters, model=name, head=head))
    own = assembly.hamiltonian_of(first, device)
    others = assembly.hamiltonian_of(asked, device)
    ends, done = [], 0
    for lam, found in chosen.items():
        replicas = []
        for each, groups in zip(stored, found, strict=True):
            if not groups:
                continue
            rows = []
            for group in groups:
                rows.append(np.array([_difference(own, others, each, i, lam) for i in group]))
                done += len(group)
                report(done, total)
            replicas.append(rows)
        ends.append(reweighted(lam, replicas, kT(first.kelvin)))
    return OtherModel(
        first.parameters.model,
        name,
        shelf.model_digest(name, first.folder),
        tuple(ends),
        _change(ends),
    )


@dataclass(frozen=True)
class _Stored:
    steps: np.ndarray  # (n,)
    positions: np.ndarray  # (n, beads, N, 3) Å
    cells: np.ndarray  # (n, 3, 3) Å


def _stored(run: RunInput) -> _Stored:
    """Every frame that the run printed.  Six digits do: both models see the same ones."""
    if frames.trajectory_file(run) is not None:
        found = frames.read_frames(run)
        return _Stored(found.steps, found.positions, found.cells)
    beads = [read_trajectory(run, bead) for bead in range(run.beads)]
    steps = beads[0].steps
    for bead in beads[1:]:
        steps = np.intersect1d(steps, bead.steps)
    rows = [np.searchsorted(bead.steps, steps) for bead in beads]
    return _Stored(
        steps,
        np.stack([b.positions[k] for b, k in zip(beads, rows, strict=True)], axis=1),
        beads[0].cells[rows[0]],
    )


def file_of(model: str, head: str | None) -> str:
    """What the numbers of another model are kept in, beside ``result.json``."""
    words = Path(model).stem + (f"@{head}" if head else "")
    return f"also_with-{re.sub(r'[^A-Za-z0-9.@+-]', '-', words)}.json"


def _difference(
    own: Hamiltonian, others: Hamiltonian, stored: _Stored, i: int, lam: float
) -> float:
    """H_B − H_A of frame *i*, the mean over beads, eV."""
    cell = stored.cells[i]
    return float(
        np.mean(
            [
                others.evaluate(x, cell, lam).energy - own.evaluate(x, cell, lam).energy
                for x in stored.positions[i]
            ]
        )
    )


def _groups(run: RunInput, steps: np.ndarray, lam: float, most: int) -> list[np.ndarray]:
    """Of the frames at *steps* those at the end *lam*, in groups, evenly thinned."""
    if run.schedule is None and run.parameters.lam != lam:
        return []
    if run.schedule is None:
        window = fixed_window(run)
        first = window.steps[window.equilibration]
        apart = window.inefficiency * float(np.diff(window.steps[:2]).sum())
        kept, last = [], -np.inf
        for i in np.flatnonzero(steps >= first):
            if steps[i] - last >= apart:
                kept.append(i)
                last = steps[i]
        return [np.array([i]) for i in _thinned(np.array(kept, dtype=int), most)]
    half = run.schedule.equilibrate / 2
    inside = [
        np.flatnonzero((steps >= hold.start + half) & (steps < hold.stop))
        for hold in run.schedule.segments()
        if hold.kind == f"hold{lam:g}"
    ]
    inside = [rows for rows in inside if len(rows)]
    return [_thinned(rows, max(1, most // len(inside))) for rows in inside]


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    thinned: np.ndarray = rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]
    return thinned


def _change(ends: Sequence[Reweighted]) -> Estimate:
    """Final minus initial difference, with the errors of both."""
    value = sum(
        e.estimate.value * sign for e, sign in zip(reversed(ends), (1.0, -1.0), strict=False)
    )
    sigmas = [e.estimate.sigma for e in ends]
    lacking = next((e.estimate for e in ends if e.estimate.sigma is None), None)
    if lacking is not None:
        return replace(lacking, value=value)
    sigma, dof = add([s * s for s in sigmas if s is not None], [e.estimate.dof for e in ends])
    n = sum(e.frames for e in ends)
    return stated("one-sided", value, sigma, dof, ends[-1].estimate.se_kind, n)
