"""Cells as neighbour searches want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsInt

import numpy as np
from ase.geometry import complete_cell

from ..errors import InputError, RunError

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
    cell = np.where(periodic[:, None], cell, 0.0)
    if np.linalg.matrix_rank(cell, tol=1e-6) != periodic.sum():
        raise InputError("cell: its periodic vectors must be independent and not zero")
    box = complete_cell(cell)  # free rows: unit vectors normal to the others
    # wide enough that no atom lies outside along the free axes
    box[~periodic] *= 2.0 * np.abs(positions).max(initial=0.0) + 2.0 * cutoff
    return cell, box, periodic


_PERIODIC = (True, True, True)


# --- geometry -------------------------------------------------------------------------------


def minimum_image(
    vectors: np.ndarray,
    cell: np.ndarray,
    pbc: Sequence[bool] = _PERIODIC,
    atoms: Sequence[SupportsInt] | np.ndarray | None = None,
) -> np.ndarray:
    """The shortest periodic image of each of *vectors* (n, 3) Å, for any triclinic cell.

    Rounding fractional coordinates is exact up to half the shortest periodic cell height H: a
    vector v with abs(v) < H/2 has fractional coordinates below 1/2, because the a-th is v·n_a
    divided by the a-th height.  So rounding finds it, and any other image is longer, because
    every lattice vector is at least H long.  Beyond H/2 the anchor that an atom belongs to is no
    longer certain: RunError, naming the atom (*atoms* gives the indices to print).
    """
    inverse = np.linalg.inv(cell)
    shifts = np.round(vectors @ inverse)
    shifts[:, ~np.asarray(pbc, dtype=bool)] = 0.0
    nearest: np.ndarray = vectors - shifts @ cell
    heights = 1.0 / np.linalg.norm(inverse, axis=0)  # columns of h⁻¹ are the face normals
    if any(pbc):
        limit = 0.5 * heights[np.asarray(pbc, dtype=bool)].min()
        lengths = np.linalg.norm(nearest, axis=1)
        if (lengths >= limit).any():
            worst = int(np.argmax(lengths))
            index = worst if atoms is None else int(atoms[worst])
            raise RunError(
                f"atom {index} is {lengths[worst]:.2f} Å from its anchor, more than half the "
                f"shortest cell height ({limit:.2f} Å): it left its site, or the box is too small"
            )
    return nearest
