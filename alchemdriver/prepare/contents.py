"""What a structure file says beyond elements and places: used, said to be unused, or refused."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.data import atomic_masses

from ..contract.occupancy import occupancies, require_apart, written
from ..errors import InputError

__all__ = ["charge_and_head", "held", "own_masses", "reject_disorder", "unused"]

# Arrays and entries of atoms.info that are used, or say nothing about the crystal.
_TAKEN = {"numbers", "positions", "masses", "charge", "spin", "head", "occupancy", "occupancies"}
_MEANT = {
    "spacegroup",
    "unit_cell",
    "spacegroup_kinds",
    "comment",
    "structure_name",
    "castep_labels",
}
# How composition.supercells made a cell of whole atoms.
_OF_CELLS = {"method", "seed", "sample", "iterations", "composition", "degeneracy"}
_CALLED = {
    "momenta": "velocities (new ones are drawn)",
    "initial_magmoms": "magnetic moments",
    "initial_charges": "atomic charges",
}


def reject_disorder(atoms: Atoms, path: Path) -> None:
    """Raises InputError for sites of several elements, or partly empty ones."""
    mixed = occupancies(atoms, path)
    if mixed:
        site, shares = next(iter(mixed.items()))
        require_apart(atoms, mixed, path)
        raise InputError(
            f"structure {path} is disordered: {len(mixed)} of {len(atoms)} sites are not whole "
            f"atoms (site {site}: {written(shares)}), and dynamics needs one configuration: write "
            "random or quasirandom cells of whole atoms ('alchemdriver supercells'), or relax the "
            "mixture ('alchemdriver relax')"
        )


def own_masses(atoms: Atoms, path: Path) -> tuple[float, ...] | None:
    """Masses (u) that the file gives, such as deuterium's; None where they are the elements'."""
    masses = atoms.get_masses()
    standard = atomic_masses[atoms.numbers]
    if np.allclose(masses, standard, rtol=1e-6, atol=0.0):
        return None
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        raise InputError(f"structure {path}: expected positive masses (u), got {masses.min():g}")
    return tuple(float(m) for m in masses)


def held(atoms: Atoms, path: Path) -> tuple[int, ...]:
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


def charge_and_head(
    atoms: Atoms, path: Path, copies: int, given: Collection[str]
) -> dict[str, Any]:
    """``charge`` (e) and ``spin`` (2S + 1) of *copies* of the cell, and ``head``; only what a file
    says and the user has not *given*, and no neutral singlet, which every model assumes.

    Raises InputError for what is no number, for atomic charges that make a charge which nobody
    names, and for a spin that several copies would share in an unknown way.
    """
    found: dict[str, Any] = {}
    for name in ("charge", "spin"):
        if name in given or name not in atoms.info:
            continue
        value = atoms.info[name]
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            raise InputError(
                f"structure {path}: {name}: expected a number, got {value!r}"
            ) from None
    total = float(atoms.arrays.get("initial_charges", np.zeros(1)).sum())
    if "charge" not in found and "charge" not in given and abs(total) > 1e-3:
        raise InputError(
            f"structure {path}: its atomic charges sum to {total:g}: say the charge of the cell "
            f"with --charge {total * copies:g}, or --charge 0, or remove them from the file"
        )
    if found.get("charge") == 0.0:
        del found["charge"]
    if found.get("spin") in (0.0, 1.0):  # 0: the S of a singlet, in other conventions
        del found["spin"]
    if "charge" in found:
        found["charge"] *= copies
    if "spin" in found and copies > 1:
        raise InputError(
            f"structure {path} has a spin multiplicity of {found['spin']:g}, and how its {copies} "
            "copies couple it does not say: give that of the supercell with --spin"
        )
    head = str(atoms.info.get("head", "Default"))  # mace's name of an only head
    if head != "Default" and "head" not in given:
        found["head"] = head
    return found


def unused(atoms: Atoms) -> str | None:
    """One line with everything in the file that nothing is made of; None if there is nothing."""
    names = [n for n, values in atoms.arrays.items() if np.size(values) and _says(values)]
    names += [str(n) for n in atoms.info]
    left = [_CALLED.get(n, n) for n in names if n not in _TAKEN | _MEANT | _OF_CELLS]
    return f"not used of the structure file: {', '.join(left)}" if left else None


def _says(values: np.ndarray) -> bool:
    """Zeros say nothing: tags, moments and charges of files that have such a column for all."""
    return values.dtype.kind not in "iuf" or bool(np.any(values))
