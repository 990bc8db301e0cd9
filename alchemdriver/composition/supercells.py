"""Supercells with whole atoms: random substitution, quasirandom structures, distinct orderings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import spglib
from ase import Atoms

from ..errors import InputError, ModelError
from .mixture import Mixture, Weights

__all__ = ["Ordering", "atom_counts", "distinct_orderings", "primitive", "random_cells", "sqs"]

_MOST_COLOURINGS = 200_000  # a 2×2×2 perovskite has 70


def atom_counts(mixture: Mixture, weights: Weights) -> list[list[int]]:
    """Atoms of each state per kind of site of each sublattice, [sublattice][state].

    Raises InputError if the composition does not give whole numbers of sites.
    """
    counts = []
    for states, share in zip(mixture.sublattices, mixture.compositions(weights), strict=True):
        n = len(states[0])
        exact = np.asarray(share) * n
        whole = np.round(exact).astype(int)
        if np.abs(exact - whole).max() > 1e-6 or whole.sum() != n:
            near = ", ".join(f"{w}/{n}" for w in whole)
            raise InputError(
                f"composition {np.round(share, 6).tolist()} of {n} sites is not a whole number of "
                f"atoms; nearest: {near}; choose a larger cell or another composition"
            )
        counts.append(whole.tolist())
    return counts


def random_cells(
    mixture: Mixture, weights: Sequence[float], samples: int, seed: int
) -> list[Atoms]:
    """*samples* crystals in which the sites of each sublattice are filled at random.

    Every colouring with the exact composition is equally likely.
    """
    rng = np.random.default_rng(seed)
    counts = atom_counts(mixture, weights)
    cells = []
    for _ in range(samples):
        atoms = mixture.atoms.copy()
        for states, numbers in zip(mixture.sublattices, counts, strict=True):
            sites = rng.permutation(sorted(states[0]))
            colours = np.repeat(np.arange(len(states)), numbers)
            for i, a in zip(sites.tolist(), colours.tolist(), strict=True):
                atoms.symbols[i] = states[a][i]
        cells.append(atoms)
    return cells


def sqs(mixture: Mixture, weights: Sequence[float], seed: int, iterations: int = 100_000) -> Atoms:
    """A special quasirandom structure of the mixture's own cell, by the sqsgenerator package.

    Its Warren–Cowley parameters of the first shells are as near to zero as *iterations* random
    colourings get.  Equal arguments give equal cells.  Raises ModelError without the package,
    InputError for several sublattices.
    """
    try:
        import sqsgenerator
    except ImportError:
        raise ModelError(
            "quasirandom structures need the optional package sqsgenerator: "
            "pip install 'alchemdriver[sqs]'"
        ) from None
    if len(mixture.sublattices) != 1:
        raise InputError("quasirandom structures are made for one mixed sublattice")
    states = mixture.sublattices[0]
    sites = sorted(states[0])
    elements = [sorted({s[i] for i in sites}) for s in states]
    if any(len(e) != 1 for e in elements):
        raise InputError("quasirandom structures need one element per state")
    (numbers,) = atom_counts(mixture, weights)
    atoms = mixture.pure([0])
    present = {e[0]: n for e, n in zip(elements, numbers, strict=True) if n}
    if len(present) == 1:
        atoms.symbols[sites] = next(iter(present))
        return atoms
    config = sqsgenerator.parse_config(
        {
            "iterations": iterations,
            "sublattice_mode": "split",
            "seed": [seed],
            "thread_config": 1,  # several threads would make the seed meaningless
            "max_results_per_objective": iterations,  # all of the best, to choose from below
            "structure": {
                "lattice": atoms.cell.array.tolist(),
                "coords": atoms.get_scaled_positions().tolist(),
                "species": atoms.get_chemical_symbols(),
            },
            "composition": [{"sites": sites, **present}],
        }
    )
    _, equally_good = sqsgenerator.optimize(config)[0]
    # their order, and with it the package's own best(), changes from call to call
    atoms.numbers[:] = min(list(result.species) for result in equally_good)
    return atoms


@dataclass(frozen=True)
class Ordering:
    """One symmetry-distinct arrangement."""

    atoms: Atoms  # of the whole supercell
    degeneracy: int  # arrangements that symmetry makes equal to it
    spacegroup: str  # international symbol, before relaxation


def distinct_orderings(
    mixture: Mixture, weights: Sequence[float], symprec: float = 1e-3
) -> list[Ordering]:
    """Every arrangement of two states on one sublattice, one per orbit of the space group.

    The group is that of the mixture's cell with all mixed sites equal, its translations included.
    Sorted by degeneracy.  Raises InputError for more than two states or too many arrangements.
    """
    if len(mixture.sublattices) != 1 or mixture.n_states != (2,):
        raise InputError("orderings are enumerated for one sublattice with two states")
    states = mixture.sublattices[0]
    sites = sorted(states[0])
    ((_, n_second),) = atom_counts(mixture, weights)
    if comb(len(sites), n_second) > _MOST_COLOURINGS:
        raise InputError(
            f"{comb(len(sites), n_second)} arrangements of {n_second} among {len(sites)} sites are "
            "too many: choose a smaller cell"
        )
    permutations = _site_permutations(mixture, sites, symprec)
    seen: set[tuple[int, ...]] = set()
    found = []
    for chosen in itertools.combinations(range(len(sites)), n_second):
        if chosen in seen:
            continue
        images = {tuple(sorted(p[list(chosen)].tolist())) for p in permutations}
        seen |= images
        atoms = mixture.pure([0])
        for n in chosen:
            atoms.symbols[sites[n]] = states[1][sites[n]]
        symbol = spglib.get_symmetry_dataset(_spglib_cell(atoms), symprec).international
        found.append(Ordering(atoms, len(images), symbol))
    return sorted(found, key=lambda ordering: (ordering.degeneracy, ordering.spacegroup))


def primitive(atoms: Atoms, symprec: float = 1e-3) -> Atoms:
    """The primitive cell of a crystal, for a cheaper relaxation with the same result."""
    cell, fractional, numbers = spglib.standardize_cell(
        _spglib_cell(atoms), to_primitive=True, no_idealize=True, symprec=symprec
    )
    return Atoms(numbers, scaled_positions=fractional, cell=cell, pbc=True)


def _spglib_cell(atoms: Atoms):
    return atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers


def _site_permutations(mixture: Mixture, sites: list[int], symprec: float) -> np.ndarray:
    """(n_ops, n_sites): where each operation takes each of the sublattice's sites."""
    labelled = mixture.labelled()
    operations = spglib.get_symmetry(_spglib_cell(labelled), symprec)
    fractional = labelled.get_scaled_positions()[sites]
    images = np.einsum("oij,nj->oni", operations["rotations"], fractional)
    images += operations["translations"][:, None]
    away = images[:, :, None] - fractional[None, None]  # [operation, from, to, 3]
    away -= np.round(away)
    distance = np.linalg.norm(away @ labelled.cell.array, axis=-1)
    return distance.argmin(axis=-1)
