"""Pairs within the cutoff, and the directed edges over which messages are summed.

A *pair* is found once, whatever its two directions carry: directed edge e < P runs along pair e,
edge P + e against it.  Its radial weights are those of row e of a table, its harmonics follow from
Y_l(−r) = (−1)^l Y_l(r).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..pairs import pairs_within

__all__ = ["Neighbours", "Pairs", "find_pairs"]


@dataclass(frozen=True)
class Pairs:
    """Every unordered pair closer than the cutoff, images included, structure by structure."""

    first: np.ndarray  # [P] atom
    second: np.ndarray  # [P] atom; may be an image of the first
    vectors: np.ndarray  # [P, 3] Å, from first to second
    bounds: np.ndarray  # [B+1] range of each structure


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Which radial weights, harmonics and senders meet at which receiver: E directed edges."""

    n_receivers: int
    n_radial: int  # rows of the radial table
    n_harmonic: int  # rows of the harmonics
    receiver: np.ndarray  # [E]
    radial: np.ndarray  # [E] row of the radial table
    harmonic: np.ndarray  # [E] row of the harmonics
    sender: np.ndarray  # [E]


def find_pairs(
    positions: np.ndarray, cells: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> Pairs:
    """Pairs of B structures: positions (B, M, 3) Å, cells (B, 3, 3) Å; atoms count through."""
    parts, bounds = [], [0]
    for b, (x, cell) in enumerate(zip(positions, cells, strict=True)):
        i, j, _, vectors = pairs_within(x, cell, pbc, cutoff)
        parts.append((i + b * len(x), j + b * len(x), vectors))
        bounds.append(bounds[-1] + len(i))
    if len(parts) == 1:
        return Pairs(*parts[0], np.array(bounds))
    first, second, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(first, second, vectors, np.array(bounds))
