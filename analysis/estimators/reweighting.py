"""One-sided free-energy difference between two Hamiltonians, from frames of one of them.

| symbol | here                                                                     |
|--------|--------------------------------------------------------------------------|
| D      | H_B − H_A of one stored frame, eV; the mean over beads                   |
| ΔF     | −kT ln ⟨exp(−D/kT)⟩_A  (Zwanzig, J. Chem. Phys. 22, 1420 (1954))          |
| n_eff  | (Σ w)²/Σ w², w = exp(−D/kT): as many frames decide (Kish)                |

Frames come in groups (a hold, a frame of its own of a window), which are what is independent.
An average that few frames decide is not only uncertain but wrong, in one direction, so it is
refused: fewer than ``FEWEST`` effective frames, or less than ``SHARE`` of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import AnalysisError
from .estimate import Estimate, stated, without_error
from .parts import cut, jackknife

FEWEST, SHARE = 10.0, 0.05


@dataclass(frozen=True)
class Reweighted:
    """F_B − F_A at one end of the path."""

    lam: float
    frames: int
    effective: float  # n_eff
    scatter_kT: float  # standard deviation of D, kT
    estimate: Estimate  # eV


def reweighted(lam: float, groups: Sequence[Sequence[np.ndarray]], kt: float) -> Reweighted:
    """F_B − F_A from *groups*: of every replica, of every group, D (frames,) in eV; kt in eV.

    Raises AnalysisError where too few frames count.
    """
    units = [np.asarray(d, dtype=float) for replica in groups for d in replica]
    values = np.concatenate(units) if units else np.zeros(0)
    if not len(values):
        raise AnalysisError(f"no frames at λ = {lam:g}")
    if not np.isfinite(values).all():
        raise AnalysisError(f"an energy at λ = {lam:g} is not finite")
    low = values.min()
    weights = np.exp(-(values - low) / kt)
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    scatter = float(values.std() / kt)
    if effective < FEWEST or effective < SHARE * len(values):
        raise AnalysisError(
            f"λ = {lam:g}: of {len(values)} frames only {effective:.1f} count (the energies differ "
            f"by {scatter:.1f} kT SD): the models sample different configurations; switch between "
            "them instead ('prepare switch-nvt --alchemy model->other')"
        )
    sums = np.array([np.exp(-(d - low) / kt).sum() for d in units])
    counts = np.array([float(len(d)) for d in units])

    def difference(chosen: np.ndarray) -> np.ndarray:
        return np.asarray(low - kt * np.log(chosen @ sums / (chosen @ counts)))

    means = np.array([d.mean() for d in units])
    division = cut(means, [len(replica) for replica in groups])
    value, sigma = jackknife(difference, division)
    n = len(values)
    if division.count < 2 or not sigma > 0.0:
        why = "frames of one hold" if division.count < 2 else "energies differ by a constant"
        return Reweighted(
            lam, n, effective, scatter, without_error("one-sided", float(value), why, n)
        )
    kind = division.kind.replace("blocks of cycles", "blocks").replace("pairs", "groups of frames")
    return Reweighted(
        lam,
        n,
        effective,
        scatter,
        stated("one-sided", float(value), float(sigma), division.dof, kind, n),
    )
