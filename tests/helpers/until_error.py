"""Calculations that stop by their own error, over and over: how often is what they state true?

Works are sampled beforehand for more cycles than anybody takes; every look sees a prefix of them,
through the analysis' estimates and the decisions of ``run --error``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alchemdriver.analysis.estimators.estimate import ONE_SIGMA, student
from alchemdriver.analysis.estimators.stopping import (
    Source,
    Wanted,
    met,
    next_lengths,
    no_less,
    stated_error,
)
from alchemdriver.analysis.estimators.switching import bar, estimates, pair_error


@dataclass(frozen=True)
class Works:
    """Of many repetitions of one source, eV."""

    forward: np.ndarray  # (repetitions, replicas, cycles)
    backward: np.ndarray
    temperature: float
    start: int  # cycles that the input asks for
    cost: int  # evaluations of a cycle
    # (replicas, cycles) → more of them, for the few that go on for very long; holds forget, so it
    # does not matter that they begin anew
    more: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
    longer: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """σ of a single pair, from all of them: the true error of BAR is this over √n, eV."""
        f, b = self.forward.ravel(), self.backward.ravel()
        return pair_error(f, b, bar(f, b, self.temperature), self.temperature) * np.sqrt(len(f))

    def of(self, repetition: int, cycles: int) -> tuple[np.ndarray, np.ndarray]:
        """Works of one repetition, (replicas, at least *cycles*)."""
        found = self.longer.get(repetition, (self.forward[repetition], self.backward[repetition]))
        there = found[0].shape[1]
        if there < cycles:
            new = self.more(len(found[0]), max(cycles - there, there))
            found = tuple(np.hstack(pair) for pair in zip(found, new, strict=True))
            self.longer[repetition] = found
        return found

    def source(self, name: str, repetition: int, lengths: Sequence[int]) -> tuple[Source, float]:
        """What a look finds, and the value."""
        f, b = (
            np.concatenate([w[r, :n] for r, n in enumerate(lengths)])
            for w in self.of(repetition, max(lengths))
        )
        _, found, _ = estimates(f, b, self.temperature, lengths)
        pair = pair_error(f, b, found.value, self.temperature)
        source = Source(name, tuple(lengths), self.cost, found.sigma, found.dof, pair)
        return source, found.value


@dataclass(frozen=True)
class End:
    """Of one repetition."""

    value: float
    se: float
    half95: float
    cost: float  # evaluations
    looks: int


def until(works: Mapping[str, Works], wanted: Wanted, repetition: int) -> End:
    """One calculation from its start to its end."""
    lengths = {name: (w.start,) * w.forward.shape[1] for name, w in works.items()}
    looks = 0
    while True:
        looks += 1
        found = {n: w.source(n, repetition, lengths[n]) for n, w in works.items()}
        sources = {name: s for name, (s, _) in found.items()}
        if met([wanted], sources):
            break
        lengths |= next_lengths([wanted], sources)
    sigma, dof = stated_error(wanted, sources)
    se, half = student(ONE_SIGMA, dof) * sigma, student(0.95, dof) * sigma
    if looks > 1:
        se, half = no_less(se, half, wanted, sources)
    value = sum(c * found[name][1] for name, c in wanted.coefficients.items())
    return End(value, se, half, sum(s.pairs * s.cost for s in sources.values()), looks)


@dataclass(frozen=True)
class Coverage:
    one_sigma: float
    ninety_five: float
    cost: float  # over a clairvoyant's
    looks: float
    error: float  # stated over asked for, mean


def clairvoyant(works: Mapping[str, Works], wanted: Wanted) -> float:
    """Evaluations of who knows the true scatter: Σ c² σ²/n = ε² at the least Σ n × cost
    (Neyman 1934): (Σ |c| σ √cost)²/ε², and no source with fewer pairs than it starts with."""
    parts = [
        abs(c) * works[name].deviation * np.sqrt(works[name].cost)
        for name, c in wanted.coefficients.items()
    ]
    return float(sum(parts) ** 2 / wanted.error**2)


def coverage(works: Mapping[str, Works], wanted: Wanted, truth: float) -> Coverage:
    count = min(len(w.forward) for w in works.values())
    ends = [until(works, wanted, k) for k in range(count)]
    off = np.array([abs(e.value - truth) for e in ends])
    return Coverage(
        float(np.mean(off <= [e.se for e in ends])),
        float(np.mean(off <= [e.half95 for e in ends])),
        float(np.mean([e.cost for e in ends])) / clairvoyant(works, wanted),
        float(np.mean([e.looks for e in ends])),
        float(np.mean([e.se for e in ends])) / wanted.error,
    )
