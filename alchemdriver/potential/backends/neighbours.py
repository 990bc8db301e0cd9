"""Neighbours within a cutoff, as directed edges or as bonds, whatever the boundary conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .pairs import pairs_within

__all__ = ["Bonds", "bonds_within", "directed_edges", "sum_rows"]


def directed_edges(
    positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges up to *cutoff* Å: senders (E,), receivers (E,), vectors (E, 3) Å.

    Vectors point from sender to receiver; edges are sorted by sender.  The same edges as
    ``mace.data.get_neighborhood`` finds.
    """
    first, second, _, vector = pairs_within(positions, cell, pbc, cutoff)
    sender, receiver = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.argsort(sender, kind="stable")
    return sender[order], receiver[order], np.concatenate([vector, -vector])[order]


@dataclass(frozen=True)
class Bonds:
    """Pairs closer than a cutoff, each once; an atom may be bonded to its own image."""

    first: np.ndarray  # (B,) atom
    second: np.ndarray  # (B,) atom
    shift: np.ndarray  # (B, 3) whole lattice vectors that the second atom is moved by
    vector: np.ndarray  # (B, 3) Å, from first to second


def bonds_within(
    positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> Bonds:
    """Bonds up to *cutoff* Å; first < second, or the first image in order of *shift*.

    Rows of *cell* along axes that are not periodic are ignored.  Raises InputError for a cell
    whose periodic vectors are not independent.
    """
    return Bonds(*pairs_within(positions, cell, pbc, cutoff))


def sum_rows(values: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """Rows of values (E, 3) summed by index (E,) into (n, 3), always in the same order."""
    return np.stack([np.bincount(index, values[:, c], minlength=n) for c in range(3)], axis=1)
