"""What every sample of a window would cost at the other λ: the input of MBAR.

Where H is linear in λ, H(x, λ') − H(x, λ) = (λ' − λ) ∂H/∂λ needs no evaluation.  Elsewhere
``execute.reevaluate`` computes H(x, λ') and leaves it in ``reevaluated.npz`` beside the
trajectory; this module says which configurations are wanted and reads what is there.  A stored
energy is found by the digest of the Hamiltonian and the text of its configuration, so that it can
never be that of another model, another λ or another run.
"""

from __future__ import annotations

import hashlib
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ... import units
from ...contract.files import written_aside
from ...contract.run_input import RunInput
from ...errors import AnalysisError
from ..files.frames import Frames, read_frames
from ..files.readers import volumes
from .fixed_lambda import Window

STORE = "reevaluated.npz"


@dataclass(frozen=True)
class Samples:
    """Independent configurations of one window at every λ of interest."""

    lam: float  # where they were sampled
    time: np.ndarray  # (n,) ps
    energies: np.ndarray  # (n, K) eV, H(x, λ_k) up to a constant of each configuration
    pressure_volume: np.ndarray  # (n,) eV, zero at constant volume


class NotEvaluated(AnalysisError):
    """Energies at other λ are wanted and not there."""


def linear_in_lambda(run: RunInput) -> bool:
    """Whether H(x, λ') follows from H(x, λ) and ∂H/∂λ exactly.

    Einstein crystal, reversible scaling, the linear mixture, and tethers are; the alchemical graph
    is not.
    """
    return run.lambda_path.linear


def states(lams: Sequence[float]) -> tuple[float, ...]:
    """The λ at which every sample is wanted: all that were run, and both ends."""
    return tuple(sorted({0.0, 1.0, *lams}))


def independent(rows: np.ndarray, window: Window) -> np.ndarray:
    """Of *rows* (sorted row numbers of the window), those after equilibration and g apart."""
    chosen, last = [], -np.inf
    for row in rows:
        if row >= window.equilibration and row - last >= window.inefficiency:
            chosen.append(row)
            last = row
    return np.array(chosen, dtype=int)


@dataclass(frozen=True)
class Wanted:
    """The configurations of one window that MBAR needs at other λ."""

    rows: np.ndarray  # (n,) rows of the window
    frames: np.ndarray  # (n,) rows of *all*
    all: Frames
    keys: tuple[str, ...]  # (n,) under which their energies are stored


def wanted(run: RunInput, window: Window) -> Wanted:
    """Raises AnalysisError if there is no usable trajectory, or no digest to store under."""
    if run.parameters.digest is None:
        raise AnalysisError(f"{run.path} has no digest: 'alchemdriver run' writes it")
    frames = read_frames(run)
    _, rows, at = np.intersect1d(window.steps, frames.steps, return_indices=True)
    if len(rows) == 0:
        raise AnalysisError(f"{run.path}: no configuration is printed at a step of ∂H/∂λ")
    chosen = independent(rows, window)
    at = at[np.searchsorted(rows, chosen)]
    keys = tuple(
        hashlib.sha256(f"{run.parameters.digest} {frames.keys[k]}".encode()).hexdigest()[:32]
        for k in at
    )
    return Wanted(chosen, at, frames, keys)


def read_store(path: Path) -> dict[tuple[str, float], float]:
    """(key, λ) → H in eV (mean over beads); empty if there is no file, or not one of ours."""
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as data:
            columns = (data["key"].tolist(), data["lam"].tolist(), data["energy"].tolist())
    except (OSError, ValueError, KeyError, BadZipFile, EOFError, zlib.error):
        return {}
    return {(k, lam): e for k, lam, e in zip(*columns, strict=True)}


def write_store(path: Path, energies: dict[tuple[str, float], float]) -> None:
    """Whole or absent."""
    with written_aside(path) as aside, open(aside, "wb") as f:
        np.savez_compressed(
            f,
            key=np.array([k for k, _ in energies], dtype="U32"),
            lam=np.array([lam for _, lam in energies], dtype=float),
            energy=np.array(list(energies.values()), dtype=float),
        )


def samples(run: RunInput, window: Window, lams: Sequence[float]) -> Samples:
    """The independent samples of *window* at every λ of *lams*.

    Raises NotEvaluated if energies are missing, AnalysisError if they cannot be had.
    """
    if run.beads > 1 and run.interpolates_masses:
        raise AnalysisError(
            f"{run.path}: with interpolated masses the ring-polymer springs depend on λ: use "
            "'masses: fixed'"
        )
    if linear_in_lambda(run):
        rows = independent(np.arange(len(window.gradient)), window)
        energies = (np.array(lams) - window.lam) * window.gradient[rows, None]
    else:
        found = wanted(run, window)
        rows, store = found.rows, read_store(run.folder / STORE)
        missing = sum(any((k, lam) not in store for lam in lams) for k in found.keys)
        if missing:
            raise NotEvaluated(
                f"{missing} of {len(found.keys)} configurations of {run.folder.name} are not "
                "evaluated at the other λ: 'alchemdriver analyze "
                f"{shlex.quote(str(run.folder.parent))}' does it"
            )
        energies = np.array([[store[k, lam] for lam in lams] for k in found.keys])
    return Samples(
        window.lam, window.time[rows], energies, _pressure_volume(run, window.steps[rows])
    )


def _pressure_volume(run: RunInput, steps: np.ndarray) -> np.ndarray:
    """P V of each step, eV; it is the same at every λ and falls out of every difference."""
    found = volumes(run) if run.constant_pressure else None
    if found is None:
        return np.zeros(len(steps))
    at = np.searchsorted(found[0], steps)
    if at.max(initial=0) >= len(found[0]) or (found[0][at] != steps).any():
        raise AnalysisError(f"{run.path}: the volume is not printed at every step of ∂H/∂λ")
    return found[1][at] * run.pressure * units.BAR_EV_PER_ANGSTROM3
