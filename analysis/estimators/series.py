"""The mean of a correlated series, its error, and whether the series is long enough to tell.

The variance of a mean of n rows is σ² g/n, with g = 1 + 2 Σ_k ρ_k over the autocorrelation ρ_k.
∂H/∂λ of a crystal oscillates: ρ falls as e^(−t/τ) cos² ωt and touches zero long before it has
decayed, so that a sum which stops at the first zero misses most of g, and a slow mode of little
variance hides behind a fast one.  Both are seen in means over bins as long as the oscillations:
the sum over bins takes pairs of neighbouring bins, as long as these are positive, and no pair
counts more than the one before it (initial monotone sequence; Geyer, Stat. Sci. 7, 473 (1992)).

| symbol | here                                                                             |
|--------|----------------------------------------------------------------------------------|
| g      | ``inefficiency``, rows per independent sample, >= 1                              |
| ν      | ``dof``: bins over those that the sum spans; σ² g is uncertain by √(2/ν)          |
| τ      | ``relaxation``, rows: the slowest that the data show, or that the caller knows of |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .estimate import Estimate, stated, without_error

BINS = 100
FEW_ROWS = 20  # below which nothing is said about a series
STANDS_OUT = 3.0  # standard errors of what is left out as equilibration from the rest
RESOLVED = 1.5  # inefficiency of bins from which it is no noise
BLOCK = 4.0  # relaxation times
BLOCKS = 8  # blocks below which a series cannot tell its own relaxation time


@dataclass(frozen=True)
class Correlation:
    """Of one quantity, in rows."""

    inefficiency: float
    dof: float
    relaxation: float
    rows: int  # of all series together

    @property
    def blocks(self) -> float:
        """Blocks of four relaxation times in all series; of two rows at least."""
        return self.rows / (BLOCK * max(self.relaxation, 0.5))

    @property
    def told(self) -> bool:
        """Whether the rows are enough to know g."""
        return self.blocks >= BLOCKS

    def why(self, per_row: float = 1.0, unit: str = "rows") -> str:
        """Why it is not told; per_row: *unit* between rows."""
        return (
            f"{self.rows * per_row:.3g} {unit} hold {self.blocks:.1f} blocks of {BLOCK:g} "
            f"relaxation times ({self.relaxation * per_row:.2g} {unit}), {BLOCKS} are needed"
        )


def correlation(series: Sequence[np.ndarray], slowest: float = 0.0) -> Correlation | None:
    """Correlation of several *series* (n,) of one quantity together, about their common mean.

    Series shorter than the correlation time show it by scattering among each other.  slowest: rows
    of a relaxation time that is known from elsewhere.  None for fewer than 20 rows, or constants.
    """
    rows = sum(len(s) for s in series)
    if rows < FEW_ROWS or np.ptp(np.concatenate(series)) == 0.0:
        return None
    length = min(max(1, rows // BINS), min(len(s) for s in series))
    binned = [_binned(s, length) for s in series]
    total = sum(len(b) for b in binned)
    mean = np.concatenate(binned).mean()
    own, summed, span = _initial_sequence([b - mean for b in binned])
    if own == 0.0:
        return None
    dof = max(total / span, 1.5)
    # the sample's own mean takes 1/dof of the variance away, and an early end of the sum as much
    summed = max(summed, 1e-3 * own) * (dof + 1.0) / (dof - 1.0)
    variance = float(np.mean(np.concatenate([s - mean for s in series]) ** 2))
    g = max(1.0, length * summed / variance)
    relaxation = max(0.5 * (g - 1.0), slowest)
    if summed > RESOLVED * own:  # in bins a slow mode is not hidden behind fast ones
        relaxation = max(relaxation, 0.5 * length * (summed / own - 1.0))
    return Correlation(g, dof, relaxation, rows)


def _binned(series: np.ndarray, length: int) -> np.ndarray:
    """Means of bins of *length* rows; what does not fill a bin is left out at the start."""
    count = len(series) // length
    means: np.ndarray = series[len(series) - count * length :].reshape(count, length).mean(axis=1)
    return means


def _initial_sequence(series: Sequence[np.ndarray]) -> tuple[float, float, int]:
    """Variance of bins, Σ_k of their autocovariance over all k, and how many k the sum spans."""
    longest = max(len(s) for s in series)
    products, pairs = np.zeros(longest), np.zeros(longest)
    for s in series:
        spectrum = np.fft.rfft(s, 2 * longest)
        products += np.fft.irfft(np.abs(spectrum) ** 2)[:longest]
        pairs += np.maximum(len(s) - np.arange(longest), 0)
    gamma = products / np.maximum(pairs, 1)
    half = max(2, longest // 2 - longest // 2 % 2)
    gamma = np.append(gamma, 0.0)[:half]
    two = gamma[::2] + gamma[1::2]
    end = int(np.argmax(two <= 0.0)) if np.any(two <= 0.0) else len(two)
    two = np.minimum.accumulate(two[: max(end, 1)])
    return float(gamma[0]), float(2.0 * two.sum() - gamma[0]), 2 * len(two) - 1


def equilibration(series: np.ndarray) -> int:
    """Rows to leave out at the start, at most half of them (n,).

    The cut after which the mean would be the most certain if bins were independent (marginal
    standard error rule; White, Simulation 69, 323 (1997)), where what it leaves out is further
    from the rest than correlated rows are: a cut after mere fluctuations makes errors too small.
    """
    n = len(series)
    if n < FEW_ROWS or np.ptp(series) == 0.0:
        return 0
    length = max(1, n // BINS)
    bins = _binned(series, length)[::-1]
    count = np.arange(1, len(bins) + 1)
    shifted = bins - bins.mean()
    squares = np.cumsum(shifted**2) - np.cumsum(shifted) ** 2 / count
    error = (squares / count**2)[::-1]  # by the number of bins left out
    left = int(np.argmin(error[: len(bins) // 2 + 1]))
    if left == 0:
        return 0
    start = n - (len(bins) - left) * length
    found = correlation([series[start:]])
    rest = series[start:]
    g = 1.0 if found is None else found.inefficiency
    se = np.sqrt(rest.var() * g * (1.0 / start + 1.0 / len(rest)))
    return start if abs(series[:start].mean() - rest.mean()) > STANDS_OUT * se else 0


def mean_of(
    series: np.ndarray, slowest: float = 0.0, per_row: float = 1.0, unit: str = "rows"
) -> tuple[Correlation | None, Estimate]:
    """Mean of an equilibrated *series* (n,) eV with Student's error, and its correlation.

    slowest: rows of a relaxation time known from elsewhere; per_row: *unit* between rows.
    """
    n, value = len(series), float(np.mean(series))
    if np.ptp(series) == 0.0:
        return None, without_error("mean", value, f"{n} rows without scatter", min(n, 1))
    found = correlation([series], slowest)
    if found is None:
        return None, without_error("mean", value, f"{n} rows, {FEW_ROWS} are needed", 1)
    samples = int(n / found.inefficiency)
    if not found.told:
        return found, without_error("mean", value, found.why(per_row, unit), samples)
    sd = float(series.std(ddof=1))
    return found, stated(
        "mean",
        value,
        sd * np.sqrt(found.inefficiency / n),
        found.dof,
        f"standard error over {n} rows, {samples} of them independent if none relaxes more slowly",
        samples,
        sd,
        f"standard deviation of {n} rows",
    )


def drift(earlier: Sequence[np.ndarray], later: Sequence[np.ndarray]) -> tuple[float, float] | None:
    """Mean of *later* minus mean of *earlier* series, and its SE; None: not known.

    g is that of each side by itself, without its slope: what moves must not inflate the error.
    """
    sides = (earlier, later)
    found = [correlation([_level(s) for s in side]) for side in sides]
    if None in found:
        return None
    variance = sum(
        np.concatenate([_level(s) for s in side]).var(ddof=1) * c.inefficiency / c.rows
        for side, c in zip(sides, found, strict=True)
        if c is not None
    )
    means = [float(np.concatenate(side).mean()) for side in sides]
    return means[1] - means[0], float(np.sqrt(variance))


def _level(series: np.ndarray) -> np.ndarray:
    """*series* (n,) without its linear slope."""
    t = np.arange(len(series)) - 0.5 * (len(series) - 1)
    level: np.ndarray = series - t * (t @ series) / max(t @ t, 1.0)
    return level
