"""Images of atoms: which is nearest, and how far a crystal stands from its anchors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import RunError
from ..records import Structure

PERIODIC = (True, True, True)


def minimum_image(
    vectors: np.ndarray,
    cell: np.ndarray,
    pbc: Sequence[bool] = PERIODIC,
    atoms: Sequence[int] | np.ndarray | None = None,
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


def mass_centre_offset(structure: Structure, anchors: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Mass centre of *structure* minus that of *anchors* (N, 3) Å, (3,) Å; masses (N,) u.

    Atoms are counted in the images nearest to their anchors.
    """
    away = (structure.positions - anchors) @ np.linalg.inv(structure.cell)
    away = (away - np.round(away)) @ structure.cell
    offset: np.ndarray = masses @ away / masses.sum()
    return offset
