"""The one error of paired works: the scatter of independent parts of the data.

Parts are replicas where there are at least ``REPLICAS`` of them, and blocks of successive cycles
otherwise.  What the two switches of a cycle share, and what the cycles of a part share, is inside
a part, so the error is right whatever they share.  Any estimator of works has its error from
leaving out one part after the other (delete-m_j jackknife; Busing, Meijer, van der Leeden, Stat.
Comput. 9, 3 (1999)); for a mean over equal parts that is the scatter of their means.

| symbol            | here                                                      |
|-------------------|-----------------------------------------------------------|
| n, m_j, g         | pairs, pairs of part j, number of parts                   |
| θ, θ_(−j)         | the estimate, and without part j                          |
| h_j = n/m_j       | θ̃_j = h_j θ − (h_j − 1) θ_(−j), pseudo-value of part j    |
| σ²                | (1/g) Σ_j (θ̃_j − θ̄)²/(h_j − 1), θ̄ = Σ_j θ̃_j/h_j            |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

REPLICAS = 4  # as many are parts themselves
BLOCKS = 5  # of a chain of cycles, at least
LONGEST = 10  # cycles of a block, at most
TELLING = 75  # chained cycles from which a lag-1 correlation of 0.3 is seen in 9 cases of 10
DIFFER = 0.1  # p of the F-test below which two or three replicas are called different


@dataclass(frozen=True)
class Parts:
    """Which pairs belong together."""

    of: np.ndarray  # (n,) number of the part of each pair
    kind: str  # 'standard error over …'

    @property
    def sizes(self) -> np.ndarray:
        """Pairs of each part, (g,)."""
        return np.bincount(self.of)

    @property
    def count(self) -> int:
        return int(self.of[-1]) + 1

    @property
    def dof(self) -> float:
        """g − 1 for equal parts; less where some are larger."""
        weights = self.sizes / len(self.of)
        return float(1.0 / np.sum(weights**2) - 1.0)


def by_replica(lengths: Sequence[int]) -> np.ndarray:
    """Number of the replica of each pair, (n,)."""
    return np.repeat(np.arange(len(lengths)), lengths)


def by_block(lengths: Sequence[int]) -> np.ndarray:
    """Number of the block of each pair, (n,): every chain in blocks of about equal length."""
    n, lengths = sum(lengths), [n for n in lengths if n > 0]
    length = min(LONGEST, max(1, n // BLOCKS))
    found: list[np.ndarray] = []
    for cycles in lengths:
        first = 0 if not found else found[-1][-1] + 1
        blocks = np.array_split(np.arange(cycles), -(-cycles // length))
        found.append(np.repeat(np.arange(first, first + len(blocks)), [len(b) for b in blocks]))
    return np.concatenate(found)


def cut(values: np.ndarray, lengths: Sequence[int]) -> Parts:
    """The parts of chained *lengths*; values: ΔF of every pair (n,), which two or three replicas
    are compared by."""
    lengths = [n for n in lengths if n > 0]
    n, replicas = sum(lengths), len(lengths)
    if replicas == n:
        return Parts(np.arange(n), f"standard error over {n} pairs")
    if replicas >= REPLICAS:
        return Parts(by_replica(lengths), f"standard error over {replicas} replicas")
    blocks = by_block(lengths)
    if replicas > 1 and replicas_differ(values, lengths, blocks) < DIFFER:
        return Parts(
            by_replica(lengths),
            f"standard error over {replicas} replicas, which differ by more than their cycles do",
        )
    count = int(blocks[-1]) + 1
    what = f"{count} pairs" if count == n else f"{count} blocks of cycles"
    return Parts(blocks, f"standard error over {what}{_of(n, replicas)}")


def _of(n: int, replicas: int) -> str:
    """Of what the blocks are, and what so few chains and pairs cannot tell."""
    which = " of one chain" if replicas == 1 else f" of {replicas} replicas"
    if n >= TELLING:
        return which
    return f"{which}; whether they are independent cannot be told from {n} pairs"


def replicas_differ(values: np.ndarray, lengths: Sequence[int], blocks: np.ndarray) -> float:
    """p of the F-test that the replicas have one mean, from the scatter of *blocks* within them."""
    lengths = [n for n in lengths if n > 0]
    sizes = np.bincount(blocks).astype(float)
    means = np.bincount(blocks, values) / sizes
    of = by_replica(lengths)[np.unique(blocks, return_index=True)[1]]  # replica of each block
    weight = np.bincount(of, sizes)
    centre = np.bincount(of, sizes * means) / weight
    inside, between = len(sizes) - len(weight), len(weight) - 1
    if inside < 1 or between < 1:
        return 1.0
    within = np.sum(sizes * (means - centre[of]) ** 2) / inside
    among = np.sum(weight * (centre - values.mean()) ** 2) / between
    if within == 0.0:
        return 1.0 if among == 0.0 else 0.0
    return float(special.fdtrc(between, inside, among / within))


def jackknife(
    estimator: Callable[[np.ndarray], np.ndarray], parts: Parts
) -> tuple[np.ndarray, np.ndarray]:
    """θ and σ (…) of *estimator*, which gives values (k, …) for weights (k, n) of the pairs.

    σ is NaN for a single part.
    """
    n, g = len(parts.of), parts.count
    weights = np.ones((g + 1, n))
    weights[1:] = parts.of != np.arange(g)[:, None]
    if g < 2:
        (value,) = estimator(weights[:1])
        return value, np.full_like(value, np.nan)
    values = estimator(weights)
    h = (n / parts.sizes).reshape(-1, *[1] * (values.ndim - 1))
    pseudo = h * values[0] - (h - 1.0) * values[1:]
    centre = np.sum(pseudo / h, axis=0)
    return values[0], np.sqrt(np.mean((pseudo - centre) ** 2 / (h - 1.0), axis=0))
