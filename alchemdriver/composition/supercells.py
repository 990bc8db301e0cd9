"""Supercells with whole atoms: random substitution, quasirandom structures, distinct orderings.

The one maker of such cells.  Each has in ``atoms.info`` how it was made: ``method``, ``seed`` and
``sample`` where chance took part, and ``composition``, the one that it has.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import spglib
from ase import Atoms

from ..errors import InputError, ModelError, did_you_mean
from .mixture import Mixture, Weights

__all__ = [
    "METHODS",
    "Ordering",
    "atom_counts",
    "cells",
    "distinct_orderings",
    "nearest",
    "primitive",
    "random_cells",
    "sqs",
]

METHODS = ("random", "sqs", "orderings")

_MOST_COLOURINGS = 200_000  # a 2×2×2 perovskite has 70


def atom_counts(mixture: Mixture, weights: Weights) -> list[list[int]]:
    """Atoms of each state per kind of site of each sublattice, [sublattice][state].

    Raises InputError if the composition does not give whole numbers of sites.
    """
    counts = []
    for states, share in zip(mixture.sublattices, mixture.compositions(weights), strict=True):
        n = len(states[0])
        whole = _nearest_counts(share, n)
        if np.abs(np.asarray(share) * n - whole).max() > 1e-6:
            near = ", ".join(f"{w}/{n}" for w in whole)
            raise InputError(
                f"composition {np.round(share, 6).tolist()} of {n} sites is not a whole number of "
                f"atoms; nearest: {near}; choose a larger cell or another composition"
            )
        counts.append(whole)
    return counts


def nearest(mixture: Mixture, weights: Weights) -> np.ndarray:
    """The weights (k,) nearest to *weights* that give whole numbers of atoms in this cell."""
    shares = [
        np.array(_nearest_counts(share, len(states[0]))) / len(states[0])
        for states, share in zip(mixture.sublattices, mixture.compositions(weights), strict=True)
    ]
    return np.concatenate(shares)


def _nearest_counts(share: np.ndarray, n: int) -> list[int]:
    """Whole numbers with the sum *n* nearest to *n* times *share*, by largest remainders."""
    exact = np.asarray(share) * n
    whole = np.floor(exact + 1e-6).astype(int)
    rest = np.argsort(whole - exact, kind="stable")[: n - whole.sum()]
    whole[rest] += 1
    found: list[int] = whole.tolist()
    return found


def cells(
    mixture: Mixture, weights: Sequence[float], method: str, samples: int, seed: int
) -> list[Atoms]:
    """Cells of the exact composition by one of METHODS; orderings are all that there are.

    *samples* of sqs are the best of as many seeds, counted up.  Raises InputError.
    """
    if method == "random":
        return random_cells(mixture, weights, samples, seed)
    if method == "sqs":
        return [sqs(mixture, weights, seed + m) for m in range(samples)]
    if method == "orderings":
        return [o.atoms for o in distinct_orderings(mixture, weights)]
    raise InputError(
        f"method: expected {', '.join(METHODS)}, got '{method}'{did_you_mean(method, METHODS)}"
    )


def _made(atoms: Atoms, mixture: Mixture, counts: list[list[int]], **how: object) -> Atoms:
    """*atoms* with how they were made, for whoever reads them from a file."""
    parts = []
    for names, numbers in zip(mixture.labels, counts, strict=True):
        n = sum(numbers)
        parts.append(" ".join(f"{s} {c}/{n}" for s, c in zip(names, numbers, strict=True)))
    atoms.info = {**how, "composition": "; ".join(parts)}
    return atoms


def random_cells(
    mixture: Mixture, weights: Sequence[float], samples: int, seed: int
) -> list[Atoms]:
    """*samples* crystals in which the sites of each sublattice are filled, or empty, at random.

    Every colouring with the exact composition is equally likely.
    """
    rng = np.random.default_rng(seed)
    counts = atom_counts(mixture, weights)
    made = []
    for m in range(samples):
        elements: dict[int, str | None] = {}
        for states, numbers in zip(mixture.sublattices, counts, strict=True):
            sites = rng.permutation(sorted(states[0]))
            colours = np.repeat(np.arange(len(states)), numbers)
            for i, a in zip(sites.tolist(), colours.tolist(), strict=True):
                elements[i] = states[a].get(i)
        atoms = mixture.filled(elements)
        made.append(_made(atoms, mixture, counts, method="random", seed=seed, sample=m))
    return made


def sqs(mixture: Mixture, weights: Sequence[float], seed: int, iterations: int = 100_000) -> Atoms:
    """A special quasirandom structure of the mixture's own cell, by the sqsgenerator package.

    Its Warren–Cowley parameters of the first shells are as near to zero as *iterations* random
    colourings get.  Equal arguments give equal cells.  Raises ModelError without the package,
    InputError for several sublattices and for vacancies.
    """
    _require_atoms(mixture, "quasirandom structures")
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
    counts = atom_counts(mixture, weights)
    atoms = mixture.pure([0])
    how = {"method": "sqs", "seed": seed, "iterations": iterations}
    (numbers,) = counts
    present = {e[0]: n for e, n in zip(elements, numbers, strict=True) if n}
    if len(present) == 1:
        atoms.symbols[sites] = next(iter(present))
        return _made(atoms, mixture, counts, **how)
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
    return _made(atoms, mixture, counts, **how)


def _require_atoms(mixture: Mixture, what: str) -> None:
    if mixture.has_vacancies:
        raise InputError(f"{what} are not made of sites that may be empty: take random cells")


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
    _require_atoms(mixture, "orderings")
    states = mixture.sublattices[0]
    sites = sorted(states[0])
    counts = atom_counts(mixture, weights)
    ((_, n_second),) = counts
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
        how = {"method": "ordering", "degeneracy": len(images), "spacegroup": symbol}
        atoms = _made(atoms, mixture, counts, **how)
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
