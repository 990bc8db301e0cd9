"""Records that travel between layers.  Frozen; units in the field comments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Structure:
    """Atoms at one instant, as the potential sees them."""

    symbols: tuple[str, ...]  # element of each atom at λ = 0, N of them
    positions: np.ndarray  # (N, 3) Å
    cell: np.ndarray  # (3, 3) Å, rows are the lattice vectors
    pbc: tuple[bool, bool, bool] = (True, True, True)
    masses: tuple[float, ...] | None = None  # u, N of them, where they are not the elements' own
    held: tuple[int, ...] = ()  # 3 i + axis of every coordinate that must not move
    head: str | None = None  # of a multi-head model, where the file names one
    charge: float | None = None  # e, of the cell, where the file says so
    spin: float | None = None  # 2S + 1, of the cell, where the file says so
    remarks: tuple[str, ...] = ()  # what of a file was used, changed or left, for the user to see

    def __len__(self) -> int:
        return len(self.symbols)


@dataclass(frozen=True)
class Transformation:
    """What λ does: the element of every atom at both ends.

    ``None`` in ``final`` means that the atom is removed (void).  Where no element changes, *word*
    names the path, as the ``alchemy`` key spells it (``einstein->model``, …).
    """

    initial: tuple[str, ...]
    final: tuple[str | None, ...]
    word: str = ""

    @property
    def changed(self) -> tuple[int, ...]:
        """Indices of the atoms whose element differs between the ends."""
        pairs = zip(self.initial, self.final, strict=True)
        return tuple(i for i, (a, b) in enumerate(pairs) if a != b)

    @property
    def voids(self) -> tuple[int, ...]:
        """Indices of the atoms that are removed."""
        return tuple(i for i, b in enumerate(self.final) if b is None)


@dataclass(frozen=True)
class PotentialEvaluation:
    """One evaluation of an alchemical potential E(x, weights)."""

    energy: float  # eV
    forces: np.ndarray  # (N, 3) eV/Å
    virial: np.ndarray  # (3, 3) eV, −∂E/∂ε for the strain x → x(1 + ε), symmetric
    weight_gradient: np.ndarray  # (k,) eV, ∂E/∂weights
    # (n,) eV, E_(i,α) of every node of the sites: E = Σ λ_α E_(i,α); None: the model has none
    node_energies: np.ndarray | None = None


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a Hamiltonian H(x, λ)."""

    energy: float  # eV
    forces: np.ndarray  # (N, 3) eV/Å
    virial: np.ndarray  # (3, 3) eV, −∂H/∂ε, symmetric
    dHdlambda: float  # eV
