"""How much a path resists: the friction ζ(λ), and the schedule that dissipates least.

Near equilibrium a switch dissipates W = ∫ ζ(λ) λ̇² dt (Sivak and Crooks, Phys. Rev. Lett. 108,
190602 (2012)), the same forward and backward, so that half the work of both between two λ is
∫ ζ λ̇ dλ.  At a fixed λ, ζ is the fluctuation of ∂H/∂λ times how long it lasts.

| symbol | here                                                                            |
|--------|---------------------------------------------------------------------------------|
| ζ(λ)   | ``Friction.at``, eV ps; ln ζ is a polynomial in λ                                |
| D_j    | ½ (W_F + W_R) between λ_j and λ_j+1, eV, one of each pair; W of eq. 9            |
| ζ(0,1) | g Δt Var(∂H/∂λ)/(2 kT) of the holds, g the statistical inefficiency of its rows |
| L      | ``length`` ∫ √ζ dλ; no switch of length t dissipates less than L²/t             |

The least is had with λ̇ ∝ 1/√ζ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import AnalysisError
from ...units import kT
from .series import correlation

BINS = 10  # of λ, in which pairs dissipate
DEGREE = 4  # of ln ζ
STIFF = 0.5  # how large a coefficient beyond the first may be without data, over its degree
FEWEST = 3  # pairs
GRID = 2001


@dataclass(frozen=True)
class Friction:
    """ln ζ = Σ a_m T_m(2λ − 1), Chebyshev's polynomials, ζ in eV ps."""

    coefficients: np.ndarray  # (m,) a
    covariance: np.ndarray  # (m, m) of a

    def at(self, lam: np.ndarray) -> np.ndarray:
        """ζ (n,) eV ps at *lam* (n,)."""
        found: np.ndarray = np.exp(_basis(lam, len(self.coefficients)) @ self.coefficients)
        return found

    def error(self, lam: np.ndarray) -> np.ndarray:
        """Standard error of ln ζ (n,)."""
        t = _basis(lam, len(self.coefficients))
        found: np.ndarray = np.sqrt(np.einsum("nm,mk,nk->n", t, self.covariance, t))
        return found

    @property
    def length(self) -> float:
        """L, (eV ps)^½."""
        return float(_progress(self)[1][-1])

    def dissipation(self, shape: Callable[[float], float], duration: float) -> float:
        """∫ ζ λ̇² dt (eV) of a switch of *shape* λ(τ) in *duration* ps."""
        lam = np.array([shape(x) for x in np.linspace(0.0, 1.0, GRID)])
        step = duration / (GRID - 1)
        return float(np.sum(self.at(0.5 * (lam[1:] + lam[:-1])) * np.diff(lam) ** 2) / step)

    def table(self, rows: int = 201) -> np.ndarray:
        """(τ, λ) with λ̇ ∝ 1/√ζ, (rows, 2), as the key 'schedule' takes it."""
        lam, done = _progress(self)
        tau = np.linspace(0.0, 1.0, rows)
        found = np.stack([tau, np.interp(tau * done[-1], done, lam)], axis=1)
        found[0], found[-1] = (0.0, 0.0), (1.0, 1.0)
        return found


def _basis(lam: np.ndarray, count: int) -> np.ndarray:
    return np.polynomial.chebyshev.chebvander(2.0 * np.asarray(lam) - 1.0, count - 1)


def _progress(friction: Friction) -> tuple[np.ndarray, np.ndarray]:
    """λ, and ∫ √ζ dλ until there."""
    lam = np.linspace(0.0, 1.0, GRID)
    root = np.sqrt(friction.at(lam))
    steps = 0.5 * (root[1:] + root[:-1]) * np.diff(lam)
    return lam, np.concatenate([[0.0], np.cumsum(steps)])


# --- from a pilot -------------------------------------------------------------------------------


def of_holds(
    holds: Sequence[np.ndarray], timestep: float, temperature: float
) -> tuple[float, float] | None:
    """ζ (eV ps) at the λ of *holds*, series of ∂H/∂λ (n,) eV with *timestep* ps between rows, and
    the error of its logarithm; None where they are too short to tell."""
    found = correlation(holds)
    if found is None or not found.told:
        return None
    level = np.mean(np.concatenate(holds))
    variance = float(np.mean(np.concatenate([(x - level) ** 2 for x in holds])))
    rows = sum(len(x) for x in holds)
    # a variance of n/g independent rows, and g itself from its degrees of freedom
    relative = np.sqrt(2.0 * found.inefficiency / rows + 2.0 / max(found.dof, 1.0))
    return found.inefficiency * timestep * variance / (2.0 * kT(temperature)), float(relative)


def dissipated_in_bins(
    lam: np.ndarray, forward: np.ndarray, backward: np.ndarray, edges: np.ndarray
) -> np.ndarray:
    """D of every pair and bin, (pairs, bins) eV.

    lam (n,) of a forward switch; ∂H/∂λ (pairs, n) eV at these λ both ways, the way back reversed.
    """
    rows = 0.5 * (forward - backward)
    steps = 0.5 * (rows[:, 1:] + rows[:, :-1]) * np.diff(lam)
    where = np.clip(np.searchsorted(edges, 0.5 * (lam[1:] + lam[:-1])) - 1, 0, len(edges) - 2)
    found = np.zeros((len(rows), len(edges) - 1))
    for j in range(len(edges) - 1):
        found[:, j] = steps[:, where == j].sum(axis=1)
    return found


def friction(
    lam: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    timestep: float,
    ends: Sequence[tuple[float, float] | None] = (None, None),
) -> Friction:
    """ζ from pairs of switches and, where they tell it, from the holds at both *ends* (see
    :func:`of_holds`).  timestep: ps.  Arguments as of :func:`dissipated_in_bins`.

    Raises AnalysisError for fewer than three pairs, and where these show no dissipation.
    """
    from scipy.optimize import least_squares

    pairs = len(forward)
    if pairs < FEWEST:
        raise AnalysisError(
            f"friction needs {FEWEST} pairs of switches or more, got {pairs}: run a longer pilot"
        )
    edges = np.linspace(0.0, 1.0, BINS + 1)
    found = dissipated_in_bins(lam, forward, backward, edges)
    mean, se = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(pairs)
    if mean.sum() <= 0.0:
        raise AnalysisError("the pilot's pairs show no dissipation: run more, or faster ones")
    se = np.maximum(se, 1e-6 * mean.sum())
    middle, squares = 0.5 * (lam[1:] + lam[:-1]), np.diff(lam) ** 2 / timestep
    where = np.clip(np.searchsorted(edges, middle) - 1, 0, BINS - 1)
    basis = _basis(middle, DEGREE + 1)
    at_ends = [(k, *end) for k, end in enumerate(ends) if end is not None]
    priors = STIFF / np.arange(1, DEGREE + 1) * np.array([6.0] + [3.0] * (DEGREE - 1))

    def rest(a: np.ndarray) -> np.ndarray:
        zeta = np.exp(np.clip(basis @ a, -200.0, 200.0))
        model = np.bincount(where, zeta * squares, minlength=BINS)
        parts = [(model - mean) / se, a[1:] / priors]
        for k, value, relative in at_ends:
            (t,) = _basis(np.array([float(k)]), DEGREE + 1)
            parts.append(np.array([(t @ a - np.log(value)) / relative]))
        return np.concatenate(parts)

    start = np.zeros(DEGREE + 1)
    start[0] = np.log(mean.sum() / squares.sum())
    fit = least_squares(rest, start)
    return Friction(fit.x, np.linalg.inv(fit.jac.T @ fit.jac))
