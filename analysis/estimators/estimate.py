"""One estimate with its stated error, and how errors of estimates add.

A *stated error* is Student's: ``se`` covers the value in 68.27 % of repetitions and ``ci95`` in
95 %, with the factor for the degrees of freedom that the error rests on.  ``sigma`` is the error
before that factor: variances add, stated errors do not.

| symbol          | here                                                                  |
|-----------------|-----------------------------------------------------------------------|
| σ               | ``sigma``, estimated standard deviation of the value                  |
| ν               | ``dof``, degrees of freedom of σ²; None: so many that it does not show |
| t(p, ν)         | ``student``, so that se = t(68.27 %, ν) σ                             |

Sums of estimates have σ² = Σ c² σ_k² with (Welch–Satterthwaite) ν = σ⁴ / Σ (c² σ_k²)²/ν_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special
from scipy.optimize import brentq

from ...contract.stored import Index, NotNegative

ONE_SIGMA = 0.6826894921370859
MANY = 1e6  # degrees of freedom beyond which Student's factor is the normal one


@dataclass(frozen=True)
class Estimate:
    """A free-energy difference, or another mean, with its errors; eV."""

    method: str
    value: float  # eV
    se: NotNegative | None  # eV, stated error: covers 68.27 %; None: not estimated
    se_kind: str  # what the error rests on, or why there is none
    sd: NotNegative | None  # eV, standard deviation of single values; None: not estimated
    sd_kind: str
    ci95: tuple[float, float] | None  # eV
    ci95_kind: str
    n: Index  # values behind it
    dof: NotNegative | None = None  # degrees of freedom of the error; None: normal, or no error

    @property
    def kind(self) -> str:
        """What the error rests on, or why there is none."""
        return self.se_kind

    @property
    def sigma(self) -> float | None:
        """The error before Student's factor, eV."""
        return None if self.se is None else self.se / student(ONE_SIGMA, self.dof)


@lru_cache(maxsize=4096)
def student(probability: float, dof: float | None) -> float:
    """Half width, in σ, of the interval that holds *probability*; normal where *dof* is None."""
    if dof is None or dof > MANY:
        return float(special.ndtri(0.5 + 0.5 * probability))
    return float(special.stdtrit(dof, 0.5 + 0.5 * probability))


def degrees_of_freedom(se: float, half95: float) -> float | None:
    """ν of a stated error whose 95 % interval is *half95* to either side; None: normal."""
    return _of_ratio(float(half95 / se)) if se > 0.0 else None


@lru_cache(maxsize=4096)
def _of_ratio(ratio: float) -> float | None:
    if ratio <= student(0.95, None) * (1.0 + 1e-6):
        return None

    def off(log_dof: float) -> float:
        nu = float(np.exp(log_dof))
        return student(0.95, nu) / student(ONE_SIGMA, nu) - ratio

    low, high = np.log(0.1), np.log(MANY)
    return float(np.exp(brentq(off, low, high))) if off(low) > 0.0 > off(high) else None


def stated(
    method: str,
    value: float,
    sigma: float,
    dof: float | None,
    kind: str,
    n: int,
    sd: float | None = None,
    sd_kind: str = "not defined",
) -> Estimate:
    """*value* with Student's errors."""
    se, half = student(ONE_SIGMA, dof) * sigma, student(0.95, dof) * sigma
    width = "normal" if dof is None else f"Student t, {dof:.3g} degrees of freedom"
    return Estimate(
        method, value, se, kind, sd, sd_kind, (value - half, value + half), width, n, dof
    )


def without_error(method: str, value: float, why: str, n: int) -> Estimate:
    """*value*, and the reason why its error is not known."""
    none = f"not estimated: {why}"
    return Estimate(method, value, None, none, None, none, None, none, n)


def add(variances: Sequence[float], dofs: Sequence[float | None]) -> tuple[float, float | None]:
    """σ and ν of a sum of independent values with *variances* (eV²) of *dofs*."""
    v = np.asarray(variances, dtype=float)
    uncertain = sum(x * x / nu for x, nu in zip(v, dofs, strict=True) if nu is not None)
    sigma = float(np.sqrt(v.sum()))
    return sigma, float(v.sum() ** 2 / uncertain) if uncertain > 0.0 else None


def stated_sums(
    sigma: np.ndarray, dof: float | None, other: np.ndarray, other_dof: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Stated errors and half widths of the 95 % interval, (n,) each, of values with *sigma* (n,) of
    *dof*, each with an independent one of σ *other* (n,) of *other_dof* added."""
    sums = [add([a * a, b * b], [dof, other_dof]) for a, b in zip(sigma, other, strict=True)]
    se, half95 = (
        np.array([student(p, nu) * s for s, nu in sums], dtype=float) for p in (ONE_SIGMA, 0.95)
    )
    return se, half95
