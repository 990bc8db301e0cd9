"""Are the starts of the switches equilibrated and independent?  What the holds between them say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .series import BLOCKS, FEW_ROWS, correlation, drift

SHORT_HOLD = 5.0  # correlation times
DRIFT = 2.5  # standard errors between the two halves of a hold, or of a window


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
    # blocks of four correlation times in all holds of this kind; None: not known
    blocks: float | None = None

    @property
    def unchecked(self) -> bool:
        """Whether the hold has too few rows to be judged."""
        return self.rows < FEW_ROWS

    @property
    def untold(self) -> bool:
        """Whether all holds of this kind together are too short to show how long they remember."""
        return self.blocks is not None and self.blocks < BLOCKS

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


def examine(
    kind: str,
    gradients: Sequence[np.ndarray],
    dt: float,
    volumes: Sequence[np.ndarray | None] = (),
    slowest: float = 0.0,
) -> list[Hold]:
    """The holds of one kind, cycle by cycle.

    gradients: ∂H/∂λ (n,) eV of each; dt: ps between rows; volumes: (m,) Å³ of each, None where the
    volume is constant or not printed; slowest: ps, a relaxation time that the input tells.
    """
    enough = gradients and min(len(g) for g in gradients) >= FEW_ROWS
    found = correlation(gradients, slowest / dt) if enough else None
    volumes = volumes or [None] * len(gradients)
    quarters = [np.array_split(gradient, 4)[2:] for gradient in gradients]  # [cycle, quarter]
    # of all cycles together, not of whole holds: what relaxes at the start would hide the end
    moved = drift(*zip(*quarters, strict=True)) if enough else None
    # of one cycle: the mean over cycles is uncertain by √cycles less
    se = None if moved is None else moved[1] * float(np.sqrt(len(gradients)))
    return [
        Hold(
            kind,
            cycle,
            (len(gradient) - 1) * dt,
            None if found is None else found.relaxation * dt,
            *halves_drift(volume),
            len(gradient),
            None if moved is None else float(last.mean() - before.mean()),
            se,
            None if found is None else found.blocks,
        )
        for cycle, (gradient, volume, (before, last)) in enumerate(
            zip(gradients, volumes, quarters, strict=True)
        )
    ]


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


def halves_drift(series: np.ndarray | None) -> tuple[float | None, float | None]:
    """Second minus first half of *series* (n,), and its standard error, in its unit."""
    if series is None or len(series) < 2 * FEW_ROWS:
        return None, None
    first, second = np.array_split(series, 2)
    return drift([first], [second]) or (None, None)
