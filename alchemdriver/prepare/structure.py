"""Structures as users give them."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

import numpy as np
from ase import Atoms

from ..contract.occupancy import rounding
from ..contract.transformation import element
from ..contract.xyz import read_xyz, standard_orientation
from ..errors import InputError
from ..records import Structure
from . import contents

_MOST_ATOMS = 1_000_000  # far more than one GPU holds; keeps a typing error out of memory


def read_structure(
    path: Path | str,
    supercell: tuple[int, int, int] = (1, 1, 1),
    index: int | None = None,
    given: Collection[str] = (),
) -> Structure:
    """Anything ASE reads, repeated and turned to i-PI's orientation.

    index: which frame of a file with several, from 0, or from the end if negative.  given: what of
    ``head``, ``charge`` and ``spin`` the user says, so that the file need not be asked.

    Masses that are not the elements' own, atoms that the file holds, head, charge and spin come
    along; ``remarks`` say so, and what is not used.  Raises InputError if it cannot be read, has
    several frames and no *index* says which, no three-dimensional cell, unknown species, sites that
    are not whole atoms, constraints that i-PI does not know, or a spin that a supercell leaves
    open.
    """
    path = Path(path)
    atoms = read_atoms(path, index)
    contents.reject_disorder(atoms, path)
    return structure_of(atoms, path, supercell, given)


def read_atoms(path: Path, index: int | None = None) -> Atoms:
    """The frame *index* of a file, as ASE reads it.  Raises InputError."""
    import ase.io

    if not path.exists():
        raise InputError(f"structure {path} does not exist")
    try:
        frames = ase.io.iread(path, index=":", do_not_split_by_at_sign=True)
        atoms = next(frames, None)
        n = 1 if atoms is not None else 0
        if index is None:
            n += sum(1 for _ in frames)
        elif index != 0:
            kept = [atoms, *frames] if atoms is not None else []
            n = len(kept)
            atoms = kept[index] if -n <= index < n else None
    except Exception as err:  # ASE's readers raise many kinds
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise InputError(f"structure {path} cannot be read by ASE: {reason}") from None
    if n == 0:
        raise InputError(f"structure {path} has no atoms")
    if atoms is None:
        raise InputError(
            f"structure {path} has {n} frames: --index {index} is not among 0 to {n - 1}"
        )
    if index is None and n > 1:
        raise InputError(
            f"structure {path} has {n} frames: say which with --index, from 0 to {n - 1}, or "
            "-1 for the last"
        )
    if (
        atoms.cell.rank != 3
        and path.suffix == ".xyz"
        and "CELL" in path.read_text(encoding="utf-8", errors="replace")
    ):
        if n > 1 or index:
            raise InputError(
                f"structure {path} is a trajectory of i-PI, of which only the first frame is read: "
                "write the frame you mean into a file of its own"
            )
        ours = read_xyz(path)  # i-PI's own format, of which ASE reads all but the cell
        atoms = ase.Atoms(ours.symbols, ours.positions, cell=ours.cell, pbc=True)
    return atoms


def structure_of(
    atoms: Atoms,
    path: Path,
    supercell: tuple[int, int, int] = (1, 1, 1),
    given: Collection[str] = (),
) -> Structure:
    """As :func:`read_structure`, from what ASE read; sites are taken as whole atoms."""
    if min(supercell) < 1:
        raise InputError(f"supercell: expected three positive numbers, got {supercell}")
    if atoms.cell.rank != 3:
        raise InputError(f"structure {path} has no three-dimensional cell: i-PI needs one")
    for symbol in set(atoms.get_chemical_symbols()):
        element(symbol, f"structure {path}")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"structure {path} has positions that are not finite")
    copies = math.prod(supercell)
    total = len(atoms) * copies
    if not 0 < total <= _MOST_ATOMS:
        raise InputError(f"expected 1 to {_MOST_ATOMS} atoms, got {total}: check the supercell")
    if not atoms.pbc.all():
        raise InputError(
            f"structure {path} is not periodic along all three axes, but i-PI's cell is: put "
            "vacuum into the cell and set pbc to T T T"
        )
    held, n = contents.held(atoms, path), len(atoms)
    named = contents.charge_and_head(atoms, path, copies, given)
    masses = contents.own_masses(atoms, path)
    remarks = [
        _used(masses, copies * len({k // 3 for k in held}), named),
        contents.unused(atoms),
        rounding(atoms, path),
    ]
    atoms = atoms.copy()
    atoms.set_constraint()  # not all of them can be repeated by ASE
    atoms = atoms.repeat(supercell)
    cell = np.array(atoms.cell)
    if np.linalg.det(cell) < 0:
        cell = cell[[1, 0, 2]]
        remarks.append("the cell is left-handed: its vectors a and b were swapped")
    structure = Structure(
        tuple(atoms.get_chemical_symbols()),
        atoms.positions.copy(),
        cell,
        masses=None if masses is None else masses * copies,
        held=tuple(k + 3 * n * copy for copy in range(copies) for k in held),
        remarks=tuple(filter(None, remarks)),
        **named,
    )
    return standard_orientation(structure)[0]


def _used(masses: tuple[float, ...] | None, held: int, named: dict[str, object]) -> str | None:
    """One line with everything of a file that is used beyond elements and places."""
    found = []
    if masses is not None:
        found.append("masses, where elements do not change")
    if held:
        found.append(f"{held} atoms that are held (<fixatoms>)")
    for name, value in named.items():
        found.append(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}")
    return f"used of the structure file: {', '.join(found)}" if found else None


def whole_crystal(
    path: Path | str,
    supercell: tuple[int, int, int] = (1, 1, 1),
    index: int | None = None,
    given: Collection[str] = (),
) -> Structure:
    """As :func:`read_structure`, and as :func:`require_whole` wants it."""
    structure = read_structure(path, supercell, index, given)
    require_whole(structure, path)
    return structure


def require_whole(structure: Structure, path: Path | str) -> None:
    """For calculations in which all atoms move and have the elements' own masses, of a neutral
    cell: InputError for a file that says otherwise."""
    if structure.held:
        raise InputError(
            f"structure {path} holds atoms, but here all atoms move: remove its constraints "
            "(selective dynamics)"
        )
    if structure.masses is not None:
        raise InputError(
            f"structure {path} has masses of its own (isotopes), which are used by single runs "
            "only: remove them, or prepare a single run"
        )
    if structure.charge is not None or structure.spin is not None:
        raise InputError(
            f"structure {path} has a charge or spin of its own, which are used by single runs "
            "only: remove them, or prepare a single run"
        )
