"""Every pair of atoms within a cutoff, images included: linked cells, compiled.

The list and its order depend on the arguments alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray

from ..geometry import periodic_box
from .numba_options import compiled

__all__ = ["pairs_within"]


def pairs_within(
    positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """first (P,), second (P,), shift (P, 3) and vector (P, 3) Å of pairs up to *cutoff* Å apart.

    Each pair once: first < second, or an atom with an image of itself, of two opposite shifts the
    one whose first component that is not 0 is positive.  vector = positions[second] −
    positions[first] + shift @ cell.  Rows of *cell* along axes that are not periodic are ignored.
    Raises InputError for a cell whose periodic vectors are not independent.
    """
    positions = np.ascontiguousarray(positions, np.float64)
    cell, box, periodic = periodic_box(positions, cell, pbc, cutoff)
    cell, box = np.ascontiguousarray(cell), np.ascontiguousarray(box)
    if not len(positions):
        none = np.zeros(0, np.int64)
        return none, none, np.zeros((0, 3), np.int64), np.zeros((0, 3))
    inverse = np.ascontiguousarray(np.linalg.inv(box))
    heights = 1.0 / np.sqrt((inverse**2).sum(axis=0))  # Å between opposite faces
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] = _search(
        positions, cell, inverse, heights, periodic, cutoff
    )
    return found


@compiled
def _search(
    positions: ndarray,
    cell: ndarray,
    inverse: ndarray,
    heights: ndarray,
    periodic: ndarray,
    cutoff: float,
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    n = len(positions)
    whole = np.zeros((n, 3), np.int64)  # lattice vectors that bring an atom into the box
    at = np.empty((n, 3))  # fractional
    for i in range(n):
        for k in range(3):
            at[i, k] = 0.0
            for c in range(3):
                at[i, k] += positions[i, c] * inverse[c, k]
            if periodic[k]:
                whole[i, k] = int(np.floor(at[i, k]))
                at[i, k] -= whole[i, k]
    low, width = np.zeros(3), np.ones(3)
    for k in range(3):
        if not periodic[k]:
            low[k] = at[:, k].min()
            width[k] = at[:, k].max() - low[k]
    # bins of about half the cutoff, and not many more than atoms
    bins, reach = np.ones(3, np.int64), np.zeros(3, np.int64)
    most = int(np.ceil(n ** (1.0 / 3.0))) + 1
    for k in range(3):
        extent = width[k] * heights[k]
        bins[k] = max(1, min(most, int(2.0 * extent / cutoff)))
        if extent > 0.0:
            reach[k] = int(np.ceil(cutoff * bins[k] / extent * (1.0 + 1e-12)))
    place = np.empty((n, 3), np.int64)
    head = np.full((bins[0], bins[1], bins[2]), -1)
    following = np.full(n, -1)
    for i in range(n):
        for k in range(3):
            u = (at[i, k] - low[k]) / width[k] if width[k] > 0.0 else 0.0
            place[i, k] = min(max(int(u * bins[k]), 0), bins[k] - 1)
        following[i] = head[place[i, 0], place[i, 1], place[i, 2]]
        head[place[i, 0], place[i, 1], place[i, 2]] = i

    wrapped = np.empty((n, 3))
    for i in range(n):
        for c in range(3):
            moved = whole[i, 0] * cell[0, c] + whole[i, 1] * cell[1, c] + whole[i, 2] * cell[2, c]
            wrapped[i, c] = positions[i, c] - moved
    arrays = (positions, cell, wrapped, whole, place, head, following, periodic, reach)
    none = np.empty(0, np.int64)
    count = _visit(*arrays, cutoff, none, none, np.empty((0, 3), np.int64), np.empty((0, 3)))
    first, second = np.empty(count, np.int64), np.empty(count, np.int64)
    shift, vector = np.empty((count, 3), np.int64), np.empty((count, 3))
    _visit(*arrays, cutoff, first, second, shift, vector)
    return first, second, shift, vector


@compiled
def _visit(
    positions: ndarray,
    cell: ndarray,
    wrapped: ndarray,
    whole: ndarray,
    place: ndarray,
    head: ndarray,
    following: ndarray,
    periodic: ndarray,
    reach: ndarray,
    cutoff: float,
    first: ndarray,
    second: ndarray,
    shift: ndarray,
    vector: ndarray,
) -> int:
    """The number of pairs; where the arrays have room for them, the pairs."""
    count = 0
    for i in range(len(positions)):
        x, y, z = wrapped[i]
        for a in range(place[i, 0] - reach[0], place[i, 0] + reach[0] + 1):
            image_a = a // head.shape[0]
            if image_a != 0 and not periodic[0]:
                continue
            for b in range(place[i, 1] - reach[1], place[i, 1] + reach[1] + 1):
                image_b = b // head.shape[1]
                if image_b != 0 and not periodic[1]:
                    continue
                for c in range(place[i, 2] - reach[2], place[i, 2] + reach[2] + 1):
                    image_c = c // head.shape[2]
                    if image_c != 0 and not periodic[2]:
                        continue
                    dx = image_a * cell[0, 0] + image_b * cell[1, 0] + image_c * cell[2, 0] - x
                    dy = image_a * cell[0, 1] + image_b * cell[1, 1] + image_c * cell[2, 1] - y
                    dz = image_a * cell[0, 2] + image_b * cell[1, 2] + image_c * cell[2, 2] - z
                    j = head[
                        a - image_a * head.shape[0],
                        b - image_b * head.shape[1],
                        c - image_c * head.shape[2],
                    ]
                    while j >= i:  # atoms of a bin are in descending order
                        u, v, w = wrapped[j, 0] + dx, wrapped[j, 1] + dy, wrapped[j, 2] + dz
                        if u * u + v * v + w * w <= cutoff * cutoff:
                            sa = image_a + whole[i, 0] - whole[j, 0]
                            sb = image_b + whole[i, 1] - whole[j, 1]
                            sc = image_c + whole[i, 2] - whole[j, 2]
                            if i < j or sa > 0 or (sa == 0 and (sb > 0 or (sb == 0 and sc > 0))):
                                if count < len(first):
                                    first[count], second[count] = i, j
                                    shift[count, 0] = sa
                                    shift[count, 1] = sb
                                    shift[count, 2] = sc
                                    for k in range(3):
                                        vector[count, k] = (positions[j, k] - positions[i, k]) + (
                                            sa * cell[0, k] + sb * cell[1, k] + sc * cell[2, k]
                                        )
                                count += 1
                        j = following[j]
    return count
