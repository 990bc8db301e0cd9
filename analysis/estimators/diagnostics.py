"""What the works of switches look like: to judge them by, never to quote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ...units import kT
from .estimate import Estimate


@dataclass(frozen=True)
class Dissipation:
    """Eq. 10.  The two directions are measured from BAR's ΔF: they differ outside linear response
    (from eq. 11's ΔF they would be equal by construction)."""

    mean: Estimate  # ½ (W̄_F + W̄_R)
    forward: float  # eV, W̄_F − ΔF_BAR
    backward: float  # eV, W̄_R + ΔF_BAR
    mean_kT: float  # mean in kT
    hysteresis: float  # eV, W̄_F + W̄_R = 2 × mean: the gap between the two directions


@dataclass(frozen=True)
class Diagnostics:
    """One-sided and shape numbers: to look at, never to quote."""

    jarzynski_forward: float  # eV
    jarzynski_backward: float  # eV
    cumulant_forward: float | None  # eV, W̄ − σ²/2kT; None: one work only
    cumulant_backward: float | None  # eV
    sd_forward: float | None  # eV, standard deviation of the forward works
    sd_backward: float | None  # eV
    variance_p: float | None  # F-test of equal variances, two-sided p
    overlap: float  # 0 … 0.5, element of the BAR overlap matrix
    lag1: float | None  # lag-1 autocorrelation of chained pairs; None: too few to tell
    correlated: bool | None  # lag1 beyond 2/√n; None: too few to tell


def dissipated(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Dissipated energy of every pair, ½ (W_{i→f} + W_{f→i}), (n,) eV; eq. 10."""
    pairs: np.ndarray = 0.5 * (np.asarray(forward, dtype=float) + np.asarray(backward, dtype=float))
    return pairs


def jarzynski(works: np.ndarray, temperature: float) -> float:
    """−kT ln⟨exp(−W/kT)⟩ in eV, along the direction of the works; a diagnostic only."""
    t = kT(temperature)
    works = np.asarray(works, dtype=float)
    return float(-t * (special.logsumexp(-works / t) - np.log(len(works))))


def cumulant(works: np.ndarray, temperature: float) -> float | None:
    """W̄ − σ²/2kT in eV; a diagnostic only.  None for one work."""
    if len(works) < 2:
        return None
    return float(np.mean(works) - np.var(works, ddof=1) / (2.0 * kT(temperature)))


def variance_p(forward: np.ndarray, backward: np.ndarray) -> float | None:
    """Two-sided p of the F-test that both variances are equal; None below three works each."""
    n, m = len(forward), len(backward)
    if min(n, m) < 3:
        return None
    a, b = np.var(forward, ddof=1), np.var(backward, ddof=1)
    if a == 0.0 or b == 0.0:
        return 1.0 if a == b else 0.0
    one_sided = special.fdtr(n - 1, m - 1, a / b)
    return float(2.0 * min(one_sided, 1.0 - one_sided))


def lag1(chains: Sequence[np.ndarray]) -> float | None:
    """Lag-1 autocorrelation of the pairs within each replica's chain of cycles.

    chains: the values of each replica, in order of time.  Deviations are from the mean over all of
    them; neighbours in different replicas do not count.  None below four neighbours.
    """
    values = np.concatenate([np.asarray(c, dtype=float) for c in chains])
    neighbours = sum(len(c) - 1 for c in chains)
    variance = float(np.var(values))
    if neighbours < 4 or variance == 0.0:
        return None
    mean = values.mean()
    products = [np.dot(np.asarray(c)[1:] - mean, np.asarray(c)[:-1] - mean) for c in chains]
    return float(np.sum(products) / neighbours / variance)


def linear_response_p(
    forward: np.ndarray, backward: np.ndarray, temperature: float
) -> tuple[float, float] | None:
    """p that the works scatter as little, and as much, as σ² = 2 kT W_diss allows (F-tests).

    The scatter has 2 (n − 1) degrees of freedom; the mean dissipation W, whose variance is kT W/n,
    has 2 n W/kT.  None for a single pair, or a dissipation that is not positive.
    """
    t, n = kT(temperature), len(forward)
    loss = float(dissipated(forward, backward).mean())
    if n < 2 or loss <= 0.0:
        return None
    scatter = 0.5 * (np.var(forward, ddof=1) + np.var(backward, ddof=1))
    ratio, dof = scatter / (2.0 * t * loss), (2 * (n - 1), 2.0 * n * loss / t)
    return float(special.fdtr(*dof, ratio)), float(special.fdtrc(*dof, ratio))
