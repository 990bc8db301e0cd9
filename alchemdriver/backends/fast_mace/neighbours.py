"""Pairs within the cutoff, and the padded rows of neighbours that each receiver sums over.

A *pair* is found once, whatever its two directions carry: directed edge e < P runs along pair e,
edge P + e against it.  Its radial weights are those of row e of a table, its harmonics follow from
Y_l(−r) = (−1)^l Y_l(r).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import vesin

from ..geometry import periodic_box

__all__ = ["Neighbours", "Pairs", "find_pairs", "pad"]


@dataclass(frozen=True)
class Pairs:
    """Every unordered pair closer than the cutoff, images included, structure by structure."""

    first: np.ndarray  # [P] atom
    second: np.ndarray  # [P] atom; may be an image of the first
    vectors: np.ndarray  # [P, 3] Å, from first to second
    bounds: np.ndarray  # [B+1] range of each structure


class Block(NamedTuple):
    """Flat slots [n·D] of some rows of :class:`Neighbours`."""

    shape: tuple[int, int]  # n, D
    radial: torch.Tensor
    harmonic: torch.Tensor
    sender: torch.Tensor


@dataclass(frozen=True)
class Neighbours:
    """Rows of directed edges, one row per receiver, longest first, padded at their ends.

    Slot arrays are [receivers, D] tensors; a padded slot has the radial row R, which is zero.
    """

    receivers: torch.Tensor  # [r] in the order of the rows
    radial: torch.Tensor  # row of the radial table
    harmonic: torch.Tensor  # directed edge
    sender: torch.Tensor
    counts: np.ndarray  # [r] used slots, descending

    def block(self, start: int, stop: int, slots: int) -> Block:
        parts = (self.radial, self.harmonic, self.sender)
        flat = (part[start:stop, :slots].reshape(-1) for part in parts)
        return Block((stop - start, slots), *flat)

    def blocks(self, budget: float, bytes_per_slot: int) -> Iterator[tuple[int, int, int]]:
        """(first row, end, slots) of blocks of about *budget* bytes; none of rows without slots."""
        start = 0
        while start < len(self.counts) and self.counts[start] > 0:
            slots = int(self.counts[start])
            rows = max(1, int(budget / (slots * bytes_per_slot)))
            stop = min(len(self.counts), start + rows)
            yield start, stop, slots
            start = stop


def find_pairs(
    positions: np.ndarray, cells: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> Pairs:
    """Pairs of B structures: positions (B, M, 3) Å, cells (B, 3, 3) Å; atoms count through."""
    search = vesin.NeighborList(cutoff=cutoff, full_list=False, n_threads=1)
    parts, bounds = [], [0]
    for b, (x, cell) in enumerate(zip(positions, cells, strict=True)):
        cell, box, periodic = periodic_box(x, cell, pbc, cutoff)
        i, j, shifts = search.compute(x, box, periodic, "ijS")
        i, j = i.astype(np.int64), j.astype(np.int64)
        vectors = x[j] - x[i] + shifts @ cell
        parts.append((i + b * len(x), j + b * len(x), vectors))
        bounds.append(bounds[-1] + len(i))
    first, second, vectors = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Pairs(first, second, vectors, np.array(bounds))


def pad(
    receiver: np.ndarray,
    n_receivers: int,
    radial: np.ndarray,
    padding: int,
    harmonic: np.ndarray,
    sender: np.ndarray,
    device: torch.device,
) -> Neighbours:
    """Neighbours of *n_receivers* rows from directed edges (E,), kept in their order in each row.

    padding: the radial row that is zero.
    """
    counts = np.bincount(receiver, minlength=n_receivers)
    rows = np.argsort(-counts, kind="stable")  # longest first
    place = np.empty_like(rows)
    place[rows] = np.arange(n_receivers)
    order = np.argsort(receiver, kind="stable")
    receiver = receiver[order]
    slot = np.arange(len(order)) - (np.cumsum(counts) - counts)[receiver]
    shape = (n_receivers, int(counts.max(initial=0)))
    filled = []
    for values, empty in ((radial, padding), (harmonic, 0), (sender, 0)):
        table = np.full(shape, empty)
        table[place[receiver], slot] = values[order]
        filled.append(torch.from_numpy(table).to(device))
    return Neighbours(torch.from_numpy(rows).to(device), *filled, counts[rows])
