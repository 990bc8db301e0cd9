"""Are the starts of the switches equilibrated and independent?  What the holds between them say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .quiet import quiet_pymbar

SHORT_HOLD = 5.0  # correlation times
DRIFT = 3.0  # standard errors between the two halves of a hold


@dataclass(frozen=True)
class Hold:
    """One hold, at λ = 0 or 1, before the switch that starts at its end."""

    kind: str  # 'hold0' or 'hold1'
    cycle: int  # from 0
    duration: float  # ps
    correlation_time: float | None  # ps, of ∂H/∂λ; None: too short or constant
    volume_drift: float | None  # Å^3, second minus first half; None: volume constant, not printed
    volume_drift_se: float | None  # Å^3, from both halves and their correlation

    @property
    def short(self) -> bool:
        """Shorter than a few correlation times: the switches at its two ends are related."""
        if self.correlation_time is None:
            return False
        return self.duration < SHORT_HOLD * self.correlation_time

    @property
    def drifts(self) -> bool:
        """Whether the volume still moves."""
        if self.volume_drift is None or self.volume_drift_se is None:
            return False
        return abs(self.volume_drift) > DRIFT * self.volume_drift_se


def inefficiency(values: np.ndarray) -> float | None:
    """Statistical inefficiency g = 1 + 2τ in rows; None below 20 rows or for a constant."""
    if len(values) < 20 or np.ptp(values) == 0.0:
        return None
    with quiet_pymbar():
        from pymbar import timeseries

        return float(max(1.0, timeseries.statistical_inefficiency(values)))


def examine(
    kind: str, cycle: int, gradient: np.ndarray, dt: float, volume: np.ndarray | None
) -> Hold:
    """A hold from its ∂H/∂λ (n,) eV, *dt* ps between rows, and volume (m,) Å³ if it can change."""
    g = inefficiency(gradient)
    drift = error = None
    if volume is not None and len(volume) >= 40:
        halves = np.array_split(volume, 2)
        # correlation within a half: the step between halves must not inflate it
        gs = [inefficiency(h) for h in halves]
        if None not in gs:
            drift = float(halves[1].mean() - halves[0].mean())
            parts = [h.var(ddof=1) * g_ / len(h) for h, g_ in zip(halves, gs, strict=True)]
            error = float(np.sqrt(sum(parts)))
    return Hold(
        kind,
        cycle,
        (len(gradient) - 1) * dt,
        None if g is None else 0.5 * (g - 1.0) * dt,
        drift,
        error,
    )
