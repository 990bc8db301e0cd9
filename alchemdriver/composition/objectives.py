"""What a composition can be optimised for: a function of weights that torch can differentiate.

An objective maps the list of compositions, one tensor (k_g,) per sublattice, to a number ≥ 0 that
is 0 where the target is met.  :class:`AtFixedCell` and :class:`AtRelaxedCell` make one from a plain
torch function of energy, stress, cell and weights; the functions below are the usual ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..errors import InputError
from .differentiable import Crystal, RelaxedCell
from .mixture import Mixture
from .relaxation import Settings

__all__ = [
    "AtFixedCell",
    "AtRelaxedCell",
    "State",
    "biaxial_stress",
    "cell_length",
    "energy_difference",
    "hydrostatic_stress",
]


class State(NamedTuple):
    """What a user's function sees; all are float64 tensors."""

    energy: torch.Tensor  # () eV per cell
    stress: torch.Tensor  # (3, 3) eV/Å³
    cell: torch.Tensor  # (3, 3) Å, rows are the lattice vectors
    fractional: torch.Tensor  # (N, 3)
    weights: torch.Tensor  # (k,) all sublattices, in order


Function = Callable[[State], torch.Tensor]


class AtFixedCell:
    """*function* of the mixture at its own cell and positions, nothing relaxed."""

    def __init__(self, mixture: Mixture, backend, function: Function):
        self.crystal = Crystal(mixture.potential(backend))
        self.cell = torch.tensor(mixture.atoms.cell.array)
        self.fractional = torch.tensor(mixture.atoms.get_scaled_positions(wrap=False))
        self.function = function

    def __call__(self, compositions: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = torch.cat(list(compositions))
        energy, stress = self.crystal(weights, self.cell, self.fractional)
        return self.function(State(energy, stress, self.cell, self.fractional, weights))


class AtRelaxedCell:
    """*function* of the relaxed mixture; its gradient contains the response of the relaxation.

    With ``Settings(cell='c-only')`` a and b keep the values of the mixture's own structure: the
    stress that is left in them is what an epitaxial film would have.  After a call,
    ``relaxation.last`` holds the relaxed structure.
    """

    def __init__(
        self, mixture: Mixture, backend, function: Function, settings: Settings | None = None
    ):
        self.relaxation = RelaxedCell(mixture, backend, settings)
        self.function = function

    def __call__(self, compositions: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = torch.cat(list(compositions))
        cell, fractional = self.relaxation(weights)
        energy, stress = self.relaxation.crystal(weights, cell, fractional)
        return self.function(State(energy, stress, cell, fractional, weights))


def biaxial_stress(state: State) -> torch.Tensor:
    """abs(σ_xx + σ_yy), eV/Å³: zero where a film's a and b fit the held ones (section IV.B)."""
    return (state.stress[0, 0] + state.stress[1, 1]).abs()


def hydrostatic_stress(state: State) -> torch.Tensor:
    """abs(tr σ)/3, eV/Å³: zero where the held cell is the equilibrium one (section II.B)."""
    return state.stress.trace().abs() / 3.0


def cell_length(axis: str, target: float, scale: float = 1.0) -> Function:
    """abs(scale · length − target), Å, of axis 'a', 'b' or 'c' of the given cell.

    scale: √2 for the edge of a cubic cell given by its primitive face-centred one.
    """
    if axis not in ("a", "b", "c"):
        raise InputError(f"axis: expected a, b or c, got '{axis}'")
    row = "abc".index(axis)
    return lambda state: (scale * torch.linalg.vector_norm(state.cell[row]) - target).abs()


def energy_difference(first, second, target: float = 0.0):
    """abs(E_first − E_second − target), eV, of two mixtures with the same sublattices.

    first, second: objectives made with ``function=lambda state: state.energy``, such as two
    polymorphs, so that the elements' own energies cancel.
    """
    return lambda compositions: (first(compositions) - second(compositions) - target).abs()
