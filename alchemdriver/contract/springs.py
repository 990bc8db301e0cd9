"""Einstein crystals on disk: anchors and spring constants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..paths.terms import check_constants
from ..records import Structure
from .files import written_aside

if TYPE_CHECKING:
    from ase import Atoms


def read_springs(
    path: str | Path, structure: Structure | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Anchors (N, 3) Å and spring constants (N,) eV/Å² from an extxyz file.

    The constants stand in the per-atom array ``spring_constant``.  With *structure*, elements and
    cell must agree with it: anchors of a differently oriented or compressed crystal are wrong
    without looking wrong.  Raises InputError.
    """
    import ase.io

    path = Path(path)
    try:
        atoms = ase.io.read(path, index=-1, format="extxyz")
    except OSError as err:
        raise InputError(f"springs file {path} cannot be read: {err.strerror or err}") from None
    except Exception as err:  # ASE's parser raises many kinds for a malformed file
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise InputError(f"springs file {path} is not an extxyz file: {reason}") from None
    if "spring_constant" not in atoms.arrays:
        raise InputError(
            f"springs file {path}: expected a per-atom array spring_constant (eV/Å^2), "
            f"found {', '.join(sorted(atoms.arrays))}"
        )
    constants = np.asarray(atoms.arrays["spring_constant"])
    if constants.ndim != 1 or constants.dtype.kind not in "fiu":
        raise InputError(f"springs file {path}: spring_constant must be one number per atom")
    constants = constants.astype(float)
    check_constants(constants, f"springs file {path}")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"springs file {path} contains positions that are not finite")
    if structure is not None:
        _check_same_crystal(path, atoms, structure)
    return atoms.positions.copy(), constants


def _check_same_crystal(path: Path, atoms: Atoms, structure: Structure) -> None:
    symbols = tuple(atoms.get_chemical_symbols())
    if len(symbols) != len(structure):
        raise InputError(
            f"springs file {path}: expected {len(structure)} atoms, found {len(symbols)}"
        )
    for i, (found, expected) in enumerate(zip(symbols, structure.symbols, strict=True)):
        if found != expected:
            raise InputError(f"springs file {path}: atom {i} is {found}, expected {expected}")
    difference = np.abs(atoms.cell.array - structure.cell).max()
    if not difference < 1e-4:
        raise InputError(
            f"springs file {path}: its cell differs from the structure's by {difference:.2g} Å; "
            "give the anchors in the cell and orientation of the structure"
        )


def write_springs(path: Path, anchors: Structure, constants: np.ndarray) -> None:
    """The Einstein crystal as ``einstein.extxyz``: anchors (Å) and spring_constant (eV/Å²)."""
    import ase
    import ase.io

    atoms = ase.Atoms(anchors.symbols, anchors.positions, cell=anchors.cell, pbc=anchors.pbc)
    atoms.set_array("spring_constant", np.asarray(constants, dtype=float))
    columns = ["symbols", "positions", "spring_constant"]
    with written_aside(path) as aside:
        ase.io.write(aside, atoms, format="extxyz", columns=columns)
