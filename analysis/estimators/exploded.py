"""Switches whose work is far from all others: an integrator that blew up, a crystal that broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...units import kT

FAR = 10.0  # scatters from the median


@dataclass(frozen=True)
class Exploded:
    """One switch, counted from 0."""

    direction: str  # 'forward' or 'backward'
    pair: int  # among all pairs
    replica: int
    cycle: int  # within its replica
    work: float  # eV
    median: float  # eV, of the direction

    def named(self, replicas: Sequence[str] | None) -> str:
        """The switch as the caller knows it; replicas and cycles counted from 1."""
        replica = f"replica {self.replica + 1}" if replicas is None else replicas[self.replica]
        return f"{replica}, cycle {self.cycle + 1}, {self.direction}"


def exploded(
    forward: np.ndarray, backward: np.ndarray, temperature: float, lengths: Sequence[int]
) -> list[Exploded]:
    """Works (n,) eV of chained *lengths* beyond any scatter that the others, or their hysteresis
    in linear response, allow.  None below three pairs, where no work is the odd one."""
    if len(forward) < 3:
        return []
    t = kT(temperature)
    starts = np.cumsum([0, *lengths])
    hysteresis = float(np.median(forward) + np.median(backward))
    found = []
    for direction, works in (("forward", forward), ("backward", backward)):
        median = float(np.median(works))
        own = 1.4826 * float(np.median(np.abs(works - median)))
        scatter = max(t, own, float(np.sqrt(max(hysteresis, 0.0) * t)))
        for pair in np.flatnonzero(np.abs(works - median) > FAR * scatter).tolist():
            replica = int(np.searchsorted(starts, pair, side="right")) - 1
            cycle = pair - int(starts[replica])
            found.append(Exploded(direction, pair, replica, cycle, float(works[pair]), median))
    return found
