"""Crystals whose sites are mixtures: which sites, which elements, and their text form.

A *sublattice* is a set of sites that share one composition, a point of a simplex.  Its states are
named by the elements in the order of the text:

    Ce->Zr              every Ce site is Ce with weight λ_1 and Zr with weight λ_2
    Na->Li->K           three states
    Al[0-3]->Sc         those sites only
    Pb->Sn Cs->Rb       two kinds of sites under one composition

Each text is one sublattice; several sublattices have independent compositions.  Indices count from
0, within the structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ..contract.text import parse_numbers
from ..contract.transformation import element, parse_set
from ..errors import InputError
from ..potential.sites import AlchemicalSites

if TYPE_CHECKING:
    from ..potential.backends.base import Potential

__all__ = ["VOID", "Mixture", "check_composition", "parse_composition"]

VOID = "void"  # label of the state that leaves a site empty

Weights = Sequence[float] | np.ndarray  # (k,) of all states of all sublattices
_SITE = re.compile(r"^(?P<a>[A-Za-z]+)(?:\[(?P<set>[^\]]*)\])?$")
# A composition read from text or rounded may miss 1 by its last digits, never by more.
_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Mixture:
    """A crystal and the states of its mixed sites."""

    atoms: Atoms  # the parent structure; its elements at mixed sites do not matter
    # [sublattice][state] site -> element; a first state has all sites, a void one none
    sublattices: tuple[tuple[dict[int, str], ...], ...]
    labels: tuple[tuple[str, ...], ...]  # [sublattice][state] short name

    @classmethod
    def from_text(cls, atoms: Atoms, texts: Sequence[str]) -> Mixture:
        """One sublattice per text, in the grammar of the module docstring.  Raises InputError."""
        if not atoms.pbc.all() or atoms.cell.rank != 3:
            raise InputError("a mixture needs a crystal: three-dimensional cell, pbc T T T")
        if not texts:
            raise InputError("name at least one mixed sublattice, e.g. Ce->Zr")
        parsed = [_parse_sublattice(text, atoms.get_chemical_symbols()) for text in texts]
        taken: dict[int, str] = {}
        for text, (states, _) in zip(texts, parsed, strict=True):
            for i in states[0]:
                if i in taken:
                    raise InputError(f"site {i} is in two sublattices: '{taken[i]}' and '{text}'")
                taken[i] = text
        return cls(atoms.copy(), tuple(s for s, _ in parsed), tuple(n for _, n in parsed))

    @property
    def n_states(self) -> tuple[int, ...]:
        """Number of states of each sublattice."""
        return tuple(len(states) for states in self.sublattices)

    @property
    def sites(self) -> AlchemicalSites:
        """All states in order, each sublattice its own group."""
        states = [state for sublattice in self.sublattices for state in sublattice]
        groups = [g for g, sublattice in enumerate(self.sublattices) for _ in sublattice]
        return AlchemicalSites.from_states(self.atoms.get_chemical_symbols(), states, groups)

    def potential(self, backend) -> Potential:
        """The potential of the mixture; its weights are those of :meth:`weights`."""
        return backend.potential(self.sites)

    def weights(self, compositions: Sequence[Sequence[float]]) -> np.ndarray:
        """Weights (k,) from one composition per sublattice.  Raises InputError off the simplex."""
        if len(compositions) != len(self.sublattices):
            raise InputError(
                f"expected {len(self.sublattices)} composition(s), one per sublattice, "
                f"got {len(compositions)}"
            )
        checked = [
            check_composition(c, names) for c, names in zip(compositions, self.labels, strict=True)
        ]
        return np.concatenate(checked)

    def compositions(self, weights: Weights) -> list[np.ndarray]:
        """The inverse of :meth:`weights`."""
        return np.split(np.asarray(weights, dtype=float), np.cumsum(self.n_states)[:-1])

    def labelled(self) -> Atoms:
        """The parent structure with one dummy element per kind of site, for symmetry analysis.

        Sites whose states are the same, in the same sublattice, are of one kind.
        """
        kinds: dict[tuple, int] = {}
        atoms = self.atoms.copy()
        in_states = {i: g for g, s in enumerate(self.sublattices) for i in s[0]}
        for i, symbol in enumerate(self.atoms.get_chemical_symbols()):
            g = in_states.get(i)
            kind = (symbol,) if g is None else (g, *(s.get(i) for s in self.sublattices[g]))
            atoms.numbers[i] = 1 + kinds.setdefault(kind, len(kinds))
        return atoms

    @property
    def has_vacancies(self) -> bool:
        """Whether sites may be empty."""
        return any(not state for states in self.sublattices for state in states)

    def pure(self, chosen: Sequence[int]) -> Atoms:
        """The ordinary crystal with state ``chosen[g]`` of every sublattice g."""
        every = (
            (i, sublattice[a].get(i))
            for sublattice, a in zip(self.sublattices, chosen, strict=True)
            for i in sublattice[0]
        )
        return self.filled(dict(every))

    def filled(self, elements: Mapping[int, str | None]) -> Atoms:
        """The ordinary crystal with *elements* on mixed sites; None leaves a site empty."""
        atoms = self.atoms.copy()
        for i, symbol in elements.items():
            if symbol is not None:
                atoms.symbols[i] = symbol
        del atoms[[i for i, symbol in elements.items() if symbol is None]]
        return atoms

    def describe(self, weights: Weights) -> str:
        """``Ce 0.7 Zr 0.3``, sublattices separated by ``;``."""
        parts = []
        for names, values in zip(self.labels, self.compositions(weights), strict=True):
            parts.append(" ".join(f"{n} {v:.4g}" for n, v in zip(names, values, strict=True)))
        return "; ".join(parts)


def check_composition(values: Sequence[float], names: Sequence[str]) -> np.ndarray:
    """*values* as an array on the simplex; InputError unless they lie there within rounding."""
    array = np.asarray(values, dtype=float)
    what = f"composition of {', '.join(names)}"
    if array.shape != (len(names),):
        raise InputError(f"{what}: expected {len(names)} numbers, got {array.size}")
    if not np.isfinite(array).all() or array.min() < -_SUM_TOLERANCE:
        raise InputError(f"{what}: expected numbers from 0 to 1, got {array.tolist()}")
    if abs(array.sum() - 1.0) > _SUM_TOLERANCE:
        raise InputError(f"{what}: expected numbers that sum to 1, got sum {array.sum():.10g}")
    return np.clip(array, 0.0, 1.0)


def parse_composition(text: str, names: Sequence[str]) -> np.ndarray:
    """``0.7,0.3`` as a checked composition.  Raises InputError."""
    return check_composition(parse_numbers(text, "composition", such_as="0.7,0.3"), names)


def _parse_sublattice(text: str, symbols: list[str]):
    """States and labels of one text."""
    terms = re.sub(r"\s*->\s*", "->", text.strip()).split()
    if not terms:
        raise InputError("a sublattice is empty: expected e.g. Ce->Zr")
    chains = [_parse_chain(term, symbols) for term in terms]
    k = len(chains[0][1])
    states: list[dict[int, str]] = [{} for _ in range(k)]
    for term, (sites, elements) in zip(terms, chains, strict=True):
        if len(elements) != k:
            raise InputError(
                f"'{text}': all terms of a sublattice have the same number of states; "
                f"'{term}' has {len(elements)}, the first has {k}"
            )
        for i in sites:
            if i in states[0]:
                raise InputError(f"'{text}': site {i} is named twice")
            for state, symbol in zip(states, elements, strict=True):
                state[i] = symbol
    labels = ("+".join(elements[a] for _, elements in chains) for a in range(k))
    return tuple(states), tuple(labels)


def _parse_chain(term: str, symbols: list[str]) -> tuple[list[int], list[str]]:
    where = f"sublattice term '{term}'"
    head, *rest = term.split("->")
    match = _SITE.match(head)
    if not match or not rest:
        raise InputError(f"{where}: expected ELEMENT->ELEMENT, e.g. Ce->Zr or Na->Li->K")
    a = element(match["a"], where)
    elements = [a, *(element(b, where) for b in rest)]
    if len(set(elements)) != len(elements):
        raise InputError(f"{where}: the same element twice")
    if match["set"] is None:
        sites = [i for i, s in enumerate(symbols) if s == a]
        if not sites:
            known = ", ".join(sorted(set(symbols)))
            raise InputError(f"{where}: the structure has no {a}, only {known}")
        return sites, elements
    sites = parse_set(match["set"], len(symbols), where)
    for i in sites:
        if symbols[i] != a:
            raise InputError(f"{where}: atom {i} is {symbols[i]}, not {a}")
    return sites, elements
