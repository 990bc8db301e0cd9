"""Structures as users give them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.data import atomic_masses

from ..contract.transformation import element
from ..contract.xyz import read_xyz, standard_orientation
from ..errors import InputError
from ..records import Structure

_MOST_ATOMS = 1_000_000  # far more than one GPU holds; keeps a typing error out of memory


def read_structure(path: Path | str, supercell: tuple[int, int, int] = (1, 1, 1)) -> Structure:
    """Anything ASE reads, repeated and turned to i-PI's orientation.

    Masses that are not the elements' own, and atoms that the file holds, come along.  Raises
    InputError if it cannot be read, has no three-dimensional cell, unknown species, sites that are
    not whole atoms, or constraints that i-PI does not know.
    """
    import ase.io

    path = Path(path)
    if not path.exists():
        raise InputError(f"structure {path} does not exist")
    try:
        atoms = ase.io.read(path, do_not_split_by_at_sign=True)
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
    _reject_disorder(atoms, path)
    held, n = _held(atoms, path), len(atoms)
    atoms.set_constraint()  # not all of them can be repeated by ASE
    atoms = atoms.repeat(supercell)
    structure = Structure(
        tuple(atoms.get_chemical_symbols()),
        atoms.positions.copy(),
        np.array(atoms.cell),
        masses=_own_masses(atoms, path),
        held=tuple(k + 3 * n * copy for copy in range(len(atoms) // n) for k in held),
    )
    return standard_orientation(structure)[0]


def whole_crystal(path: Path | str, supercell: tuple[int, int, int] = (1, 1, 1)) -> Structure:
    """As :func:`read_structure`, for calculations in which all atoms move and have the elements'
    own masses; InputError for a file that says otherwise."""
    structure = read_structure(path, supercell)
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
    return structure


def notes(structure: Structure) -> list[str]:
    """What of a file is used beyond elements and places, for the user to see."""
    found = []
    if structure.masses is not None:
        found.append("masses are those of the structure file, where elements do not change")
    if structure.held:
        atoms = len({k // 3 for k in structure.held})
        found.append(f"{atoms} atoms are held as in the structure file (<fixatoms>)")
    return found


def _reject_disorder(atoms: Atoms, path: Path) -> None:
    """Raises InputError for sites of several elements, or partly empty ones: ASE puts a whole atom
    of the first element there."""
    occupancy = atoms.info.get("occupancy")
    if not isinstance(occupancy, dict):
        return
    mixed = {
        site: shares
        for site, shares in occupancy.items()
        if isinstance(shares, dict)
        and (len(shares) > 1 or any(abs(float(x) - 1.0) > 1e-3 for x in shares.values()))
    }
    if mixed:
        site, shares = next(iter(mixed.items()))
        shown = " + ".join(f"{share:g} {element}" for element, share in shares.items())
        raise InputError(
            f"structure {path} is disordered: {len(mixed)} of {len(occupancy)} sites are not whole "
            f"atoms (site {site}: {shown}), and dynamics needs one configuration: write a cell of "
            "whole atoms, or relax the mixture ('alchemdriver relax --weights')"
        )


def _own_masses(atoms: Atoms, path: Path) -> tuple[float, ...] | None:
    """Masses (u) that the file gives, such as deuterium's; None where they are the elements'."""
    masses = atoms.get_masses()
    standard = atomic_masses[atoms.numbers]
    if np.allclose(masses, standard, rtol=1e-6, atol=0.0):
        return None
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        raise InputError(f"structure {path}: expected positive masses (u), got {masses.min():g}")
    return tuple(float(m) for m in masses)


def _held(atoms: Atoms, path: Path) -> tuple[int, ...]:
    """Coordinates 3 i + axis that the file holds."""
    found: set[int] = set()
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            found |= {3 * int(i) + axis for i in constraint.index for axis in range(3)}
        elif isinstance(constraint, FixCartesian):
            # its mask is true where a coordinate is held
            for i in constraint.index:
                found |= {3 * int(i) + axis for axis in range(3) if constraint.mask[axis]}
        elif isinstance(constraint, FixScaled) and np.abs(np.triu(atoms.cell, 1)).max() < 1e-6:
            if np.abs(np.tril(atoms.cell, -1)).max() > 1e-6 and not all(constraint.mask):
                raise InputError(
                    f"structure {path} holds atoms along cell vectors that are not x, y and z, "
                    "which i-PI cannot: hold whole atoms, or remove the constraint"
                )
            for i in constraint.index:
                found |= {3 * int(i) + axis for axis in range(3) if constraint.mask[axis]}
        else:
            raise InputError(
                f"structure {path} has a constraint that i-PI does not know "
                f"({type(constraint).__name__}): remove it"
            )
    return tuple(sorted(found))
