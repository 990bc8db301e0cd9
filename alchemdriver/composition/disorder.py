"""Crystals whose file puts shares of elements on its sites: mixtures as they stand.

A site of 0.6 Pb + 0.4 Sn becomes a mixed site of two states with these weights; a site of 0.9 I one
of two states, of which the second, *void*, has no atom.  Sites that one crystallographic site makes
are one sublattice.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from ase import Atoms

from ..contract.occupancy import occupancies, require_apart, written
from ..errors import InputError
from ..prepare.structure import read_atoms, require_whole, structure_of
from ..records import Structure
from .mixture import VOID, Mixture

__all__ = ["read_crystal", "read_mixture"]

Sublattice = tuple[tuple[dict[int, str], ...], tuple[str, ...], tuple[float, ...]]


def read_mixture(
    path: Path,
    alchemy: Collection[str],
    supercell: tuple[int, int, int] = (1, 1, 1),
    index: int | None = None,
    head: str | None = None,
) -> tuple[Mixture, np.ndarray | None, tuple[str, ...]]:
    """The crystal in *path*, turned and repeated, with its sublattices; its weights (k,) if the
    file says them; and what is to be told of the file.

    Its sublattices are those of *alchemy* (grammar of ``Mixture``), or a disordered file's own.
    head: of the model, where the user says one.  Raises InputError for neither or both, for split
    positions, of which no two can be taken at a time, and for a file that names a head unasked.
    """
    crystal, shares, kinds = read_crystal(path, supercell, index, head)
    atoms = Atoms(crystal.symbols, crystal.positions, cell=crystal.cell, pbc=True)
    if not shares:
        return Mixture.from_text(atoms, list(alchemy)), None, crystal.remarks
    if alchemy:
        raise InputError(
            f"structure {path} has mixed sites of its own ({written(next(iter(shares.values())))}, "
            "…), which would be mixed with --alchemy: drop it, or give a file of whole atoms"
        )
    made = [_sublattice(sites, shares) for sites in _by_site(shares, kinds)]
    mixture = Mixture(atoms, tuple(s for s, _, _ in made), tuple(labels for _, labels, _ in made))
    weights = np.concatenate([w for _, _, w in made])
    return (
        mixture,
        weights,
        (*crystal.remarks, f"mixed sites of the file: {mixture.describe(weights)}"),
    )


def read_crystal(
    path: Path, supercell: tuple[int, int, int], index: int | None, head: str | None = None
) -> tuple[Structure, dict[int, dict[str, float]], np.ndarray]:
    """The crystal with a whole atom on every site; the shares of those that are not whole; and the
    crystallographic site (N,) of every atom."""
    atoms = read_atoms(path, index)
    shares = occupancies(atoms, path)
    alike = [(z, *shares.get(i, {}).items()) for i, z in enumerate(atoms.numbers.tolist())]
    kinds = atoms.arrays.get("spacegroup_kinds", np.array([alike.index(k) for k in alike]))
    if shares:
        require_apart(atoms, shares, path)
        atoms.info.pop("occupancy", None)
        for column in ("occupancy", "occupancies"):
            atoms.arrays.pop(column, None)
    crystal = structure_of(atoms, path, supercell, () if head is None else ("head",))
    require_whole(crystal, path)
    if crystal.head is not None:
        raise InputError(
            f"structure {path} names a model's head '{crystal.head}', which mixtures and cells do "
            f"not keep: say --head {crystal.head} where a model is opened, else remove it from the "
            "file"
        )
    n = len(atoms)
    copies = len(crystal) // n
    everywhere = {i + n * copy: site for copy in range(copies) for i, site in shares.items()}
    return crystal, everywhere, np.tile(kinds, copies)


def _by_site(shares: dict[int, dict[str, float]], kinds: np.ndarray) -> list[list[int]]:
    """The atoms of each disordered crystallographic site."""
    found: dict[int, list[int]] = {}
    for i in sorted(shares):
        found.setdefault(int(kinds[i]), []).append(i)
    return list(found.values())


def _sublattice(sites: list[int], shares: dict[int, dict[str, float]]) -> Sublattice:
    """States, labels and weights of sites that have the same shares; *void* is the last."""
    of_site = shares[sites[0]]
    states = [dict.fromkeys(sites, element) for element in of_site]
    weights = list(of_site.values())
    labels = list(of_site)
    empty = 1.0 - sum(weights)
    if empty > 1e-9:
        states.append({})
        weights.append(empty)
        labels.append(VOID)
    return tuple(states), tuple(labels), tuple(weights)
