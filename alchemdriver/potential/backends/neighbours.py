"""Neighbours within a cutoff, as directed edges or as bonds, whatever the boundary conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matscipy.neighbours import neighbour_list

from ..geometry import periodic_box

__all__ = ["Bonds", "bonds_within", "directed_edges", "sum_rows"]


def directed_edges(
    positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed edges shorter than *cutoff* Å: senders (E,), receivers (E,), vectors (E, 3) Å.

    Vectors point from sender to receiver.  The same list as ``mace.data.get_neighborhood`` makes.
    """
    cell, box, periodic = periodic_box(positions, cell, pbc, cutoff)
    senders, receivers, shifts = neighbour_list(
        "ijS", pbc=periodic, cell=box, positions=positions, cutoff=cutoff
    )
    vectors = positions[receivers] - positions[senders] + shifts @ cell
    return senders, receivers, vectors


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
    """Bonds shorter than *cutoff* Å; first < second, or the first image in order of *shift*.

    Rows of *cell* along axes that are not periodic are ignored.  Raises InputError for a cell
    whose periodic vectors are not independent.
    """
    cell, box, periodic = periodic_box(positions, cell, pbc, cutoff)
    first, second, shift = neighbour_list(
        "ijS", pbc=periodic, cell=box, positions=positions, cutoff=cutoff
    )
    x, y, z = shift.T
    later = (x > 0) | ((x == 0) & ((y > 0) | ((y == 0) & (z > 0))))
    once = (first < second) | ((first == second) & later)
    first, second, shift = first[once], second[once], shift[once]
    return Bonds(first, second, shift, positions[second] - positions[first] + shift @ cell)


def sum_rows(values: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    """Rows of values (E, 3) summed by index (E,) into (n, 3), always in the same order."""
    return np.stack([np.bincount(index, values[:, c], minlength=n) for c in range(3)], axis=1)
