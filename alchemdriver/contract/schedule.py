"""λ as a function of the MD step: pure functions, no state.

A switching run repeats *cycles* of four segments: hold at λ=0, switch 0→1, hold at λ=1, switch
1→0.  Step k is the k-th point in time; forces at x(t_k) belong to λ(t_k).  After the last cycle λ
stays at 0.

| symbol | paper              | here            |
|--------|--------------------|-----------------|
| τ      | eq. 17, t/t_switch | ``tau``         |
| λ(τ)   | eq. 17             | ``SHAPES[name]``|
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import InputError, did_you_mean


def poly9(tau: float) -> float:
    """λ(τ) = τ⁵(70τ⁴ − 315τ³ + 540τ² − 420τ + 126); eq. 17.  Slope 0 at both ends."""
    return tau**5 * (((70.0 * tau - 315.0) * tau + 540.0) * tau * tau - 420.0 * tau + 126.0)


def linear(tau: float) -> float:
    """λ(τ) = τ."""
    return tau


SHAPES: dict[str, Callable[[float], float]] = {"poly9": poly9, "linear": linear}


def table(path: Path) -> Callable[[float], float]:
    """λ(τ) interpolated linearly in a two-column text file (τ, λ).

    Raises InputError unless τ rises strictly and both columns run from 0 to 1 inside [0, 1].
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an empty file is refused below
            rows = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as err:
        raise InputError(f"schedule table {path} cannot be read: {err}") from None
    if rows.shape[1] != 2 or len(rows) < 2:
        raise InputError(f"schedule table {path}: expected two columns (tau, lambda), 2+ rows")
    tau, lam = rows.T
    if not (np.all(np.diff(tau) > 0) and tau[0] == lam[0] == 0.0 and tau[-1] == lam[-1] == 1.0):
        raise InputError(f"schedule table {path}: tau must rise from 0 to 1, lambda go from 0 to 1")
    if not (lam.min() >= 0.0 and lam.max() <= 1.0):  # nor NaN
        raise InputError(f"schedule table {path}: lambda leaves [0, 1]")
    return lambda x: float(np.interp(x, tau, lam))


def shape(name: str, folder: Path = Path(".")) -> Callable[[float], float]:
    """The shape called *name*, or a table file of that name in *folder*."""
    if name in SHAPES:
        return SHAPES[name]
    if (folder / name).is_file():
        return table(folder / name)
    raise InputError(
        f"schedule '{name}' is neither one of {', '.join(SHAPES)} nor a file in {folder}"
        f"{did_you_mean(name, SHAPES)}"
    )


@dataclass(frozen=True)
class Segment:
    """Steps ``start`` … ``stop`` (both included) of one hold or switch.

    kind: 'hold0', 'forward' (λ 0→1), 'hold1' or 'backward' (λ 1→0); cycle counts from 0.
    """

    kind: str
    cycle: int
    start: int
    stop: int


@dataclass(frozen=True)
class Schedule:
    """λ(step) of a switching run; lengths in steps, λ dimensionless."""

    shape: Callable[[float], float]
    equilibrate: int
    switch: int
    cycles: int

    def __post_init__(self) -> None:
        if self.switch < 1 or self.equilibrate < 0 or self.cycles < 1:
            raise InputError(
                "a schedule needs switch >= 1, equilibrate >= 0 and cycles >= 1, got "
                f"switch={self.switch}, equilibrate={self.equilibrate}, cycles={self.cycles}"
            )

    @property
    def period(self) -> int:
        """Steps of one cycle."""
        return 2 * (self.equilibrate + self.switch)

    @property
    def total_steps(self) -> int:
        return self.period * self.cycles

    def at(self, step: int) -> float:
        """λ at *step*; exactly 0 and 1 during holds."""
        cycle, k = divmod(step, self.period)
        if cycle >= self.cycles or step <= 0:
            return 0.0
        half = self.equilibrate + self.switch
        if k > half:  # the way back is the time-reversed way out, as Crooks and BAR require
            return self.ramp(self.switch - (k - half - self.equilibrate))
        return self.ramp(k - self.equilibrate)

    def ramp(self, k: int) -> float:
        """λ after k steps of a forward switch, clamped to its two ends."""
        if k <= 0:
            return 0.0
        if k >= self.switch:
            return 1.0
        return min(1.0, max(0.0, self.shape(k / self.switch)))

    def along(self, steps: np.ndarray) -> np.ndarray:
        """λ at each of *steps* (n,), the same numbers as :meth:`at`."""
        ramp = _ramp(self)
        cycle, k = np.divmod(np.asarray(steps, dtype=np.int64), self.period)
        half = self.equilibrate + self.switch
        out = k - self.equilibrate
        back = self.switch - (k - half - self.equilibrate)
        lam: np.ndarray = ramp[np.clip(np.where(k > half, back, out), 0, self.switch)]
        lam[(cycle >= self.cycles) | (np.asarray(steps) <= 0)] = 0.0
        return lam

    def segments(self) -> Iterator[Segment]:
        """Every hold and switch in order."""
        lengths = (self.equilibrate, self.switch, self.equilibrate, self.switch)
        start = 0
        for cycle in range(self.cycles):
            for kind, n in zip(("hold0", "forward", "hold1", "backward"), lengths, strict=True):
                yield Segment(kind, cycle, start, start + n)
                start += n

    def label(self, step: int) -> str:
        """The kind of the segment that *step* lies in, for progress displays."""
        if not 0 <= step < self.total_steps:
            return "done"
        back, k = divmod(step % self.period, self.equilibrate + self.switch)
        if k < self.equilibrate:
            return "hold1" if back else "hold0"
        return "backward" if back else "forward"


@lru_cache(maxsize=4)
def _ramp(schedule: Schedule) -> np.ndarray:
    """λ after 0 … *switch* steps of a forward switch."""
    return np.array([schedule.ramp(k) for k in range(schedule.switch + 1)])
