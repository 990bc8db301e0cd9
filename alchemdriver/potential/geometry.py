"""Cells as neighbour searches want them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.geometry import complete_cell

from ..errors import InputError

__all__ = ["periodic_box"]


def periodic_box(
    positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cell with zero rows along free axes, a full box to search in, and the flags.

    ``mace.data.get_neighborhood`` replaces the rows of the cell that are not periodic by multiples
    of x, y and z, which is singular for a slab turned out of the xy plane.

    Raises InputError unless the periodic vectors are independent.
    """
    periodic = np.array(pbc, dtype=bool)
    if periodic.shape != (3,):
        raise InputError(f"pbc: expected three flags, got {pbc!r}")
    if periodic.all() and abs(np.linalg.det(cell)) > 1e-6 * (cell * cell).sum():
        return cell, cell, periodic  # its smallest singular value is above 1e-6
    cell = np.where(periodic[:, None], cell, 0.0)
    if np.linalg.matrix_rank(cell, tol=1e-6) != periodic.sum():
        raise InputError("cell: its periodic vectors must be independent and not zero")
    box = complete_cell(cell)  # free rows: unit vectors normal to the others
    # wide enough that no atom lies outside along the free axes
    box[~periodic] *= 2.0 * np.abs(positions).max(initial=0.0) + 2.0 * cutoff
    return cell, box, periodic
