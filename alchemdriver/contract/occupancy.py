"""Sites of a structure file that are not whole atoms.

ASE puts a whole atom of the most frequent element on every such site, and keeps the shares in
``info['occupancy']`` of a CIF, by kind of site, or in a column of other files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from ..errors import InputError

__all__ = ["occupancies", "require_apart", "rounding", "written"]

# Of the sum of covalent radii.  Bonds are longer than 0.8 of it, hydrogen's and ions' included.
_NO_BOND = 0.7
# What is written as a share in a file has three digits or more.
_WHOLE = 1e-3


def occupancies(atoms: Atoms, path: Path | str) -> dict[int, dict[str, float]]:
    """{atom: {element: share}} of the sites that are not whole atoms of one element.

    Shares that sum to 1 within their digits are divided by their sum; a smaller sum means that the
    site is empty otherwise.  Raises InputError for shares that are no such numbers, and for a site
    whose shares ASE cannot tell from one another.
    """
    shares = _by_kind(atoms, path) or _by_column(atoms)
    found = {}
    for i, site in shares.items():
        total = sum(site.values())
        if not (min(site.values()) >= 0 and total <= 1 + 3 * _WHOLE):
            raise InputError(
                f"structure {path}: atom {i} is occupied by {written(site)}: expected shares from "
                "0 to 1 that sum to 1 at most"
            )
        if abs(total - 1) <= 3 * _WHOLE:
            site = {element: share / total for element, share in site.items()}
        present = {element: share for element, share in site.items() if share > 0}
        if len(present) != 1 or abs(total - 1) > _WHOLE:
            found[i] = present
    return found


def require_apart(atoms: Atoms, shares: dict[int, dict[str, float]], path: Path | str) -> None:
    """Raises InputError for sites, one of them partly filled, nearer than atoms ever are."""
    first, second, distance = neighbor_list("ijd", atoms, natural_cutoffs(atoms, mult=_NO_BOND))
    for i, j, d in zip(first.tolist(), second.tolist(), distance.tolist(), strict=True):
        if i in shares or j in shares:
            told = [f"{k} ({written(shares.get(k, {atoms.symbols[k]: 1.0}))})" for k in (i, j)]
            raise InputError(
                f"structure {path} is disordered and has split positions: sites "
                f"{' and '.join(told)} are {d:.3f} Å apart, so that not both can be filled: keep "
                "one of them, with the sum of their shares"
            )


def rounding(atoms: Atoms, path: Path | str) -> str | None:
    """One line about shares that are 1 within their digits; None if all are 1."""
    shares = _by_kind(atoms, path) or _by_column(atoms)
    least = min((x for site in shares.values() for x in site.values()), default=1.0)
    return None if least == 1.0 else f"occupancies from {least:g} to 1 were taken as 1"


def written(site: dict[str, float]) -> str:
    """``0.6 Pb + 0.4 Sn``."""
    return " + ".join(f"{share:g} {element}" for element, share in site.items())


def _by_kind(atoms: Atoms, path: Path | str) -> dict[int, dict[str, float]]:
    table = atoms.info.get("occupancy")
    if not isinstance(table, dict):
        return {}
    kinds = atoms.arrays.get("spacegroup_kinds", np.arange(len(atoms)))
    if not {str(kind) for kind in kinds.tolist()} <= {str(kind) for kind in table}:
        raise InputError(
            f"structure {path} has shares of sites ('occupancy') that do not say to which atoms "
            "they belong: give the CIF, or remove them if all atoms are whole"
        )
    known = {str(kind): {k: float(v) for k, v in site.items()} for kind, site in table.items()}
    # Elements on one place are entries of the file, of which ASE keeps the first: as many are
    # without an atom as there are further elements in its shares.
    without = len(known.keys() - {str(kind) for kind in kinds.tolist()})
    further = sum(len(known[str(kind)]) - 1 for kind in set(kinds.tolist()))
    if without != further and any(
        abs(x - 1) > _WHOLE for site in known.values() for x in site.values()
    ):
        raise InputError(
            f"structure {path}: some of its {len(known)} sites fall on one place by symmetry, or "
            "two of them have the same element, and ASE then drops shares: give elements that "
            "share a site the same coordinates, and each element once"
        )
    return {i: known[str(kind)] for i, kind in enumerate(kinds.tolist())}


def _by_column(atoms: Atoms) -> dict[int, dict[str, float]]:
    names = [n for n in ("occupancy", "occupancies") if n in atoms.arrays]
    column = atoms.arrays[names[0]] if names else None
    if column is None or not np.any(column):  # zeros: a PDB file of a program that gives none
        return {}
    symbols = atoms.get_chemical_symbols()
    return {i: {s: float(x)} for i, (s, x) in enumerate(zip(symbols, column, strict=True))}
