"""Structures as users give them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..contract.transformation import element
from ..contract.xyz import read_xyz, standard_orientation
from ..errors import InputError
from ..records import Structure

_MOST_ATOMS = 1_000_000  # far more than one GPU holds; keeps a typing error out of memory


def read_structure(path: Path | str, supercell: tuple[int, int, int] = (1, 1, 1)) -> Structure:
    """Anything ASE reads, repeated and turned to i-PI's orientation.

    Raises InputError if it cannot be read, has no three-dimensional cell, or unknown species.
    """
    import ase.io

    path = Path(path)
    if not path.exists():
        raise InputError(f"structure {path} does not exist")
    try:
        atoms = ase.io.read(path)
    except Exception as err:  # ASE's readers raise many kinds
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise InputError(f"structure {path} cannot be read by ASE: {reason}") from None
    if (
        atoms.cell.rank != 3
        and path.suffix == ".xyz"
        and "CELL" in path.read_text(encoding="utf-8", errors="replace")
    ):
        ours = read_xyz(path)  # i-PI's own format, of which ASE reads all but the cell
        atoms = ase.Atoms(ours.symbols, ours.positions, cell=ours.cell, pbc=True)
    if min(supercell) < 1:
        raise InputError(f"supercell: expected three positive numbers, got {supercell}")
    if atoms.cell.rank != 3:
        raise InputError(f"structure {path} has no three-dimensional cell: i-PI needs one")
    for symbol in set(atoms.get_chemical_symbols()):
        element(symbol, f"structure {path}")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"structure {path} has positions that are not finite")
    total = len(atoms) * math.prod(supercell)
    if not 0 < total <= _MOST_ATOMS:
        raise InputError(f"expected 1 to {_MOST_ATOMS} atoms, got {total}: check the supercell")
    if not atoms.pbc.all():
        raise InputError(
            f"structure {path} is not periodic along all three axes, but i-PI's cell is: put "
            "vacuum into the cell and set pbc to T T T"
        )
    atoms = atoms.repeat(supercell)
    structure = Structure(
        tuple(atoms.get_chemical_symbols()), atoms.positions.copy(), np.array(atoms.cell)
    )
    return standard_orientation(structure)[0]
