"""How long to go on until a total has a stated error: pure decisions, by counts of evaluations.

A total is a sum of what several *sources* give (one set of replicas, or the stages of a workflow),
each with its coefficient.  More cycles make the error of a source smaller; everything else in the
error of a total stays as it is.

| symbol  | here                                                                         |
|---------|------------------------------------------------------------------------------|
| ε       | ``Wanted.error``, the stated error asked for                                 |
| SE      | stated error of a total from the parts of its sources, Student's factor in it |
| SE_p    | the same from the scatter of single pairs, as if all were independent        |
| d       | ``deciding``: max(SE, SE_p/1.2)                                              |

**When to stop.**  At d ≤ ε, with at least ten pairs in every source.  An error from few parts is
small by luck in some looks, and whoever stops at the first such look stops too early; SE_p has a
degree of freedom for each pair, so it sees that look for what it is.  It is only a second opinion:
it knows nothing of what the pairs of a chain share, and never makes SE smaller.  What remains of
the luck is taken out of what is stated: the error of a total that ended so is no less than 1.2
SE_p, up to ε (:func:`no_less`).  Looks come after half as many pairs more at most, a tenth more at
least.

**Where to go on.**  Σ c² σ² falls by c² σ²/(n × cost of a pair) per evaluation of a source with n
pairs: the next evaluation goes where that is largest, until the prediction meets ε (Neyman 1934).
benchmarks/stopping.py shows how often the stated errors cover under this rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, isfinite, sqrt

import numpy as np

from ...contract.stored import Count, Index, NotNegative
from ...contract.target import Asked, Target
from .estimate import ONE_SIGMA, add, student
from .parts import BLOCKS, LONGEST, REPLICAS

FEWEST = 10  # pairs of every source before anything is decided
SECOND_OPINION = 1.2  # times ε that SE_p may be
LONGER, LEAST = 1.5, 1.1  # times as many pairs at the next look, at most and at least
FINEST = 0.01  # of the pairs of a source, a step of the prediction
NEVER = 1e7  # pairs beyond which nobody waits


@dataclass(frozen=True)
class Source:
    """What more cycles make better: a run with its replicas, or a stage.  Errors in eV, of the
    whole cell."""

    name: str
    lengths: tuple[Index, ...]  # complete cycles of each replica
    cost: Count  # evaluations of the model that a cycle takes
    sigma: NotNegative | None  # before Student's factor; None: it cannot be known yet
    dof: NotNegative | None  # degrees of freedom of sigma; None: normal
    pair_sigma: NotNegative | None  # from the scatter of single pairs
    frozen: bool = False  # others rest on its files: it stays as long as it is

    @property
    def pairs(self) -> int:
        return sum(self.lengths)

    def lengthened(self, pairs: int) -> Source:
        """What is to be expected of *pairs* pairs: σ² falls as 1/n, ν follows the parts."""
        lengths = levelled(self.lengths, pairs)
        ratio = sqrt(self.pairs / pairs)
        dof = self.dof
        if dof is not None and abs(dof - expected_dof(self.lengths)) < 1e-6 * max(1.0, dof):
            dof = expected_dof(lengths)
        sigma, other = (None if s is None else s * ratio for s in (self.sigma, self.pair_sigma))
        return replace(self, lengths=lengths, dof=dof, sigma=sigma, pair_sigma=other)


@dataclass(frozen=True)
class Wanted:
    """A total, and the error that it is to have."""

    name: str
    coefficients: Mapping[str, float]  # of each source, by name
    error: float  # eV, stated, in the units of the total
    fixed: float = 0.0  # eV², variance of what more cycles do not touch (terms, mass leg)
    fixed_dof: float | None = None


def levelled(lengths: Sequence[int], pairs: int) -> tuple[int, ...]:
    """*lengths* made longer, the shortest first, until they sum to *pairs*: equal parts."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    found = list(lengths)
    for k in range(len(order), 0, -1):  # the k shortest come to one level
        level, over = divmod(pairs - sum(lengths[i] for i in order[k:]), k)
        if level >= lengths[order[k - 1]]:
            for rank, i in enumerate(order[:k]):
                found[i] = level + (rank < over)
            break
    return tuple(found)


def expected_dof(lengths: Sequence[int]) -> float:
    """Degrees of freedom of chains of *lengths* that show no reason to differ; as ``parts.cut``,
    without arrays that are as long as the chains."""
    lengths = [n for n in lengths if n > 0]
    n = sum(lengths)
    if len(lengths) >= REPLICAS or len(lengths) == n:
        squares = sum(m * m for m in lengths)
    else:
        longest, squares = min(LONGEST, max(1, n // BLOCKS)), 0
        for cycles in lengths:
            blocks = -(-cycles // longest)
            size, longer = divmod(cycles, blocks)
            squares += longer * (size + 1) ** 2 + (blocks - longer) * size**2
    return n * n / squares - 1.0


# --- the error of a total -----------------------------------------------------------------------


def stated_error(total: Wanted, sources: Mapping[str, Source]) -> tuple[float, float | None]:
    """σ and ν of *total* from the parts of its sources; NaN where one has no error yet."""
    used = [(c, sources[name]) for name, c in total.coefficients.items() if c != 0.0]
    if any(s.sigma is None for _, s in used):
        return float("nan"), None
    return add(
        [*((c * (s.sigma or 0.0)) ** 2 for c, s in used), total.fixed],
        [*(s.dof for _, s in used), total.fixed_dof],
    )


def second_opinion(total: Wanted, sources: Mapping[str, Source]) -> tuple[float, float | None]:
    """σ and ν of *total* from single pairs; NaN as above."""
    used = [(c, sources[name]) for name, c in total.coefficients.items() if c != 0.0]
    if any(s.pair_sigma is None for _, s in used):
        return float("nan"), None
    return add(
        [*((c * (s.pair_sigma or 0.0)) ** 2 for c, s in used), total.fixed],
        [*(max(1.0, s.pairs - 1.0) for _, s in used), total.fixed_dof],
    )


def deciding(total: Wanted, sources: Mapping[str, Source]) -> float:
    """d of the table above, eV; NaN where a source has no error yet."""
    (sigma, dof), (other, other_dof) = stated_error(total, sources), second_opinion(total, sources)
    se, opinion = student(ONE_SIGMA, dof) * sigma, student(ONE_SIGMA, other_dof) * other
    return float(np.maximum(se, opinion / SECOND_OPINION))


def no_less(
    se: float, half95: float, total: Wanted, sources: Mapping[str, Source]
) -> tuple[float, float]:
    """Stated error and half of the 95 % interval of a *total* whose length its error decided:
    no less than what single pairs say; once ε is reached, than 1.2 times that, up to ε."""
    sigma, dof = second_opinion(total, sources)
    if not np.isfinite(sigma):
        return se, half95
    least, wide = student(ONE_SIGMA, dof) * sigma, student(0.95, dof) * sigma
    if deciding(total, sources) <= total.error:
        least = min(SECOND_OPINION * least, total.error)
        wide = min(SECOND_OPINION * wide, student(0.95, None) * total.error)
    return max(se, least), max(half95, wide)


# --- going on -----------------------------------------------------------------------------------


def met(totals: Sequence[Wanted], sources: Mapping[str, Source]) -> bool:
    """Whether every total has its error, from pairs enough to say so."""
    return not _too_few(totals, sources) and all(deciding(t, sources) <= t.error for t in totals)


def _too_few(totals: Sequence[Wanted], sources: Mapping[str, Source]) -> list[str]:
    names = dict.fromkeys(n for t in totals for n, c in t.coefficients.items() if c != 0.0)
    return [n for n in names if sources[n].pairs < FEWEST or sources[n].sigma is None]


def out_of_reach(totals: Sequence[Wanted]) -> tuple[Wanted, float] | None:
    """A total that no number of cycles gives its error, for what else is in it, and that error."""
    for total in totals:
        rest = student(ONE_SIGMA, total.fixed_dof) * sqrt(total.fixed)
        if rest >= total.error:
            return total, rest
    return None


def plan(totals: Sequence[Wanted], sources: Mapping[str, Source]) -> dict[str, int]:
    """Pairs of every source with which all totals are expected to have their errors, at the least
    cost; those that need no more keep what they have.

    Sources without an error yet are to have ``FEWEST`` pairs first.
    """
    few = _too_few(totals, sources)
    if few:
        return {n: max(FEWEST, s.pairs + 1) if n in few else s.pairs for n, s in sources.items()}
    now = dict(sources)
    while True:
        open_ = [t for t in totals if deciding(t, now) > t.error]
        gains = {name: _gain(s, open_) for name, s in now.items()}
        best = max(gains, key=lambda name: gains[name], default=None)
        if best is None or gains[best] <= 0.0 or now[best].pairs > NEVER:
            return {name: s.pairs for name, s in now.items()}
        n = now[best].pairs
        now[best] = sources[best].lengthened(n + max(1, ceil(FINEST * n)))


def _gain(source: Source, totals: Sequence[Wanted]) -> float:
    """Fall of the variances (in ε²) of *totals* per evaluation of *source*."""
    if source.frozen:
        return 0.0
    variance = max(source.sigma or 0.0, (source.pair_sigma or 0.0) / SECOND_OPINION) ** 2
    share = sum((t.coefficients.get(source.name, 0.0) / t.error) ** 2 for t in totals)
    return share * variance / (source.pairs * source.cost)


def next_lengths(
    totals: Sequence[Wanted], sources: Mapping[str, Source], most: float | None = None
) -> dict[str, tuple[int, ...]]:
    """Cycles of every replica of the sources that go on, up to the next look; none where all is
    met, or where *most* evaluations are not enough for another cycle."""
    if met(totals, sources):
        return {}
    wanted = plan(totals, sources)
    more: dict[str, int] = {}
    for name, s in sources.items():
        if wanted[name] > s.pairs:
            far = max(ceil(LEAST * s.pairs), min(wanted[name], ceil(LONGER * s.pairs)))
            more[name] = max(far, FEWEST) - s.pairs
    if not more:  # what is predicted meets ε, what is there does not: by a rounding
        name = max(sources, key=lambda name: _gain(sources[name], totals))
        more[name] = max(1, ceil((LEAST - 1.0) * sources[name].pairs))
    cost = sum(n * sources[name].cost for name, n in more.items())
    if most is not None and cost > most:
        more = {name: int(n * most / cost) for name, n in more.items()}
    return {
        name: levelled(sources[name].lengths, sources[name].pairs + n)
        for name, n in more.items()
        if n > 0
    }


def still_to_do(totals: Sequence[Wanted], sources: Mapping[str, Source]) -> dict[str, int]:
    """Evaluations that each source is expected to need still; only those that do."""
    if met(totals, sources):
        return {}
    wanted = plan(totals, sources)
    left = {n: (wanted[n] - s.pairs) * s.cost for n, s in sources.items() if wanted[n] > s.pairs}
    if left:
        return left
    return {
        name: (sum(lengths) - sources[name].pairs) * sources[name].cost
        for name, lengths in next_lengths(totals, sources).items()
    }


# --- where it stands ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Outlook:
    """How far a calculation is from the error that it is to have.  Errors in eV per what was asked
    for."""

    asked: Asked
    met: bool
    total: str  # the one that is farthest from it
    error: NotNegative | None  # of that, stated; None: not known yet
    evaluations: dict[str, Index]  # of the model, still to be done; by stage or run
    seconds_per_evaluation: NotNegative | None  # as it was lately; None: not known
    history: tuple[tuple[Index, float], ...] = ()  # evaluations and error at every look

    @property
    def line(self) -> str:
        """For people: the error now, and what it takes."""
        wanted = str(self.asked)
        if self.error is None:
            why = "too few pairs" if self.evaluations else "one of its terms has none"
            return f"no error yet, {why}; asked for: {wanted}"
        now = f"{1e3 * self.error:.2g} meV"
        if self.met:
            return f"{now}: {wanted} is reached"
        left = sum(self.evaluations.values())
        if left == 0:
            return f"{now} for what is there; {wanted} is asked for all, and totals are missing"
        parts = [f"{self._cost(n)} in {name}" for name, n in self.evaluations.items()]
        where = f" ({', '.join(parts)})" if len(parts) > 1 else ""
        return f"now {now}; {wanted} after about {self._cost(left)} more{where}"

    def _cost(self, evaluations: int) -> str:
        if self.seconds_per_evaluation is None:
            return f"{evaluations} evaluations"
        seconds = evaluations * self.seconds_per_evaluation
        for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
            if seconds >= 1.5 * size:
                return f"{seconds / size:.2g} {unit}"
        return f"{seconds:.2g} s"


def outlook(
    found: Target,
    totals: Sequence[Wanted],
    sources: Mapping[str, Source],
    errors: Mapping[str, float | None],
) -> Outlook:
    """Where *totals* stand; errors: the stated ones of each (eV, of the whole cell)."""
    # what decides may be more than what is stated: until the end, that is how far it is
    now = {t.name: _larger(errors[t.name], deciding(t, sources)) for t in totals}
    worst = max(totals, key=lambda t: now[t.name] / t.error)
    share = found.asked.error / worst.error
    history = [
        (look.evaluations, max(max(e.error or 0.0, e.deciding or 0.0) for e in look.totals))
        for look in found.looks
        if look.asked.per == found.asked.per and all(e.error is not None for e in look.totals)
    ]
    return Outlook(
        found.asked,
        met(totals, sources) and all(errors[t.name] is not None for t in totals),
        worst.name,
        now[worst.name] * share if isfinite(now[worst.name]) else None,
        still_to_do(totals, sources),
        found.speed,
        tuple(history),
    )


def _larger(stated: float | None, decides: float) -> float:
    """Infinite where there is no error yet."""
    return inf if stated is None or not isfinite(decides) else max(stated, decides)
