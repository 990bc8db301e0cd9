"""Are the starts of the switches equilibrated and independent?  What the holds between them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .quiet import quiet_pymbar

SHORT_HOLD = 5.0  # correlation times
FEW_ROWS = 20  # below which nothing can be said about a series
DRIFT = 3.0  # standard errors between the two halves of a hold


@dataclass(frozen=True)
class Hold:
    """One hold, at λ = 0 or 1, before the switch that starts at its end."""

    kind: str  # 'hold0' or 'hold1'
    cycle: int  # from 0
    duration: float  # ps
    correlation_time: float | None  # ps, of ∂H/∂λ in all holds of this kind; None: not known
    volume_drift: float | None  # Å^3, second minus first half; None: volume constant, not printed
    volume_drift_se: float | None  # Å^3, from both halves and their correlation
    rows: int  # of ∂H/∂λ
    gradient_drift: float | None  # eV, ∂H/∂λ in the last quarter minus the one before; None: few
    gradient_drift_se: float | None  # eV

    @property
    def unchecked(self) -> bool:
        """Whether the hold has too few rows to be judged."""
        return self.rows < FEW_ROWS

    @property
    def short(self) -> bool:
        """Shorter than a few correlation times: the switches at its two ends are related."""
        if self.correlation_time is None:
            return False
        return self.duration < SHORT_HOLD * self.correlation_time

    @property
    def drifts(self) -> bool:
        """Whether the volume still moves."""
        return drifts(self.volume_drift, self.volume_drift_se)


def drifts(difference: float | None, se: float | None) -> bool:
    """Whether a difference between halves is beyond its error; False where it is not known."""
    return difference is not None and se is not None and abs(difference) > DRIFT * se


def inefficiency(series: Sequence[np.ndarray]) -> float | None:
    """Statistical inefficiency g = 1 + 2τ in rows, of several series of one quantity together.

    Their common mean is used, so that series shorter than the correlation time show it by
    scattering among each other.  None for less than 20 rows each, or for constants.
    """
    if min(len(s) for s in series) < FEW_ROWS or np.ptp(np.concatenate(series)) == 0.0:
        return None
    with quiet_pymbar():
        from pymbar import timeseries

        return float(max(1.0, timeseries.statistical_inefficiency_multiple(list(series))))


def examine(
    kind: str,
    gradients: Sequence[np.ndarray],
    dt: float,
    volumes: Sequence[np.ndarray | None] = (),
) -> list[Hold]:
    """The holds of one kind, cycle by cycle.

    gradients: ∂H/∂λ (n,) eV of each; dt: ps between rows; volumes: (m,) Å³ of each, None where the
    volume is constant or not printed.
    """
    g = inefficiency(gradients) if gradients else None
    time = None if g is None else 0.5 * (g - 1.0) * dt
    volumes = volumes or [None] * len(gradients)
    ends = [np.array_split(gradient, 4)[2:] for gradient in gradients]  # [cycle, quarter]
    # of all cycles together, not of whole holds: what relaxes at the start would hide the end
    gs = [inefficiency(list(quarter)) for quarter in zip(*ends, strict=True)]
    return [
        Hold(
            kind,
            cycle,
            (len(gradient) - 1) * dt,
            time,
            *volume_drift(volume),
            len(gradient),
            *_gradient_drift(ends[cycle], gs),
        )
        for cycle, (gradient, volume) in enumerate(zip(gradients, volumes, strict=True))
    ]


def _gradient_drift(
    quarters: Sequence[np.ndarray], gs: Sequence[float | None]
) -> tuple[float | None, float | None]:
    """Last quarter of a hold minus the one before, and its SE, eV; gs: inefficiency of each."""
    if None in gs:
        return None, None
    variance = sum(q.var(ddof=1) * g / len(q) for q, g in zip(quarters, gs, strict=True))
    return float(quarters[1].mean() - quarters[0].mean()), float(np.sqrt(variance))


def relaxation(holds: Sequence[Hold]) -> tuple[float, float] | None:
    """Mean drift of ∂H/∂λ at the end of *holds* of one kind, and its SE, eV; None: not known.

    One number for all cycles: what still relaxes does so in every one of them.
    """
    known = [h for h in holds if h.gradient_drift is not None]
    if not known:
        return None
    mean = float(np.mean([h.gradient_drift for h in known]))
    errors = [h.gradient_drift_se for h in known if h.gradient_drift_se is not None]
    return mean, float(np.sqrt(np.sum([se**2 for se in errors])) / len(known))


def volume_drift(volume: np.ndarray | None) -> tuple[float | None, float | None]:
    """Second minus first half, and its standard error, Å³."""
    if volume is None or len(volume) < 40:
        return None, None
    halves = np.array_split(volume, 2)
    # g of each half alone: a step between the halves must not inflate the error
    gs = [inefficiency([half]) for half in halves]
    if None in gs:
        return None, None
    variance = sum(h.var(ddof=1) * g / len(h) for h, g in zip(halves, gs, strict=True))
    return float(halves[1].mean() - halves[0].mean()), float(np.sqrt(variance))
