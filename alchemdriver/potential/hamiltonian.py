"""From a model to H(x, λ): its potentials as terms, composed by a path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..paths import INTERPOLATIONS, Ends, between
from ..paths.geometry import PERIODIC
from ..paths.terms import Hamiltonian, Term
from ..records import Evaluation, PotentialEvaluation, Structure, Transformation
from .backends.base import Backend, Potential
from .sites import AlchemicalSites

__all__ = ["AlchemicalPotential", "ModelTerms", "PlainPotential", "build"]


class AlchemicalPotential:
    """An alchemical potential with weights (1 − λ, λ): dH/dλ = ∂E/∂λ_1 − ∂E/∂λ_0."""

    def __init__(self, potential: Potential, pbc: Sequence[bool] = PERIODIC):
        self.potential = potential
        self.pbc = tuple(pbc)

    def __repr__(self) -> str:
        return "alchemical potential"

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        weights = np.array([1.0 - lam, lam])
        return _along(self.potential.evaluate(positions, cell, self.pbc, weights))

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        weights = np.array([1.0 - lam, lam])
        found = self.potential.evaluate_batch(positions, cells, self.pbc, weights)
        return [_along(e) for e in found]


def _along(found: PotentialEvaluation) -> Evaluation:
    initial, final = found.weight_gradient
    return Evaluation(found.energy, found.forces, found.virial, float(final - initial))


class PlainPotential:
    """A potential without λ: every one of its ``n_weights`` weights is 1 and dH/dλ = 0."""

    def __init__(self, potential: Potential, n_weights: int, pbc: Sequence[bool] = PERIODIC):
        self.potential = potential
        self.weights = np.ones(n_weights)
        self.pbc = tuple(pbc)

    def __repr__(self) -> str:
        return "plain potential"

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        found = self.potential.evaluate(positions, cell, self.pbc, self.weights)
        return Evaluation(found.energy, found.forces, found.virial, 0.0)

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        found = self.potential.evaluate_batch(positions, cells, self.pbc, self.weights)
        return [Evaluation(e.energy, e.forces, e.virial, 0.0) for e in found]


class ModelTerms:
    """The potentials of *backend* for the atoms of *structure*, as a path asks for them.

    other: the model at λ = 1, of a path between two.
    """

    def __init__(self, backend: Backend, structure: Structure, other: Backend | None = None):
        self.backend = backend
        self.pbc = structure.pbc
        self._other = other

    def plain(self, symbols: Sequence[str | None]) -> Term:
        return self._plain(self.backend, symbols)

    def other(self, symbols: Sequence[str | None]) -> Term:
        assert self._other is not None  # the path checks its ends
        return self._plain(self._other, symbols)

    def _plain(self, backend: Backend, symbols: Sequence[str | None]) -> Term:
        sites = AlchemicalSites.plain(symbols)
        return PlainPotential(backend.potential(sites), sites.n_weights, self.pbc)

    def alchemical(self, transformation: Transformation) -> Term:
        sites = AlchemicalSites.from_transformation(transformation)
        return AlchemicalPotential(self.backend.potential(sites), self.pbc)


def build(
    transformation: Transformation,
    backend: Backend,
    structure: Structure,
    *,
    interpolation: str = "alchemical",
    springs: tuple[np.ndarray, np.ndarray] | None = None,
    tether: float | None = None,
    scale: float | None = None,
    pressure: float | None = None,
) -> Hamiltonian:
    """The Hamiltonian of *transformation* for *structure* (its positions anchor the tethers).

    springs: anchors (N, 3) Å in the structure's cell, and constants (N,) eV/Å², for
    ``einstein->model`` only.  tether: eV/Å², for atoms that become void only.  interpolation
    'linear' mixes two ordinary evaluations instead of weighting the graph; for the Einstein path
    both are the same.  scale: s at λ = 1, for ``model->scaled`` only; with *pressure* (bar; None at
    constant volume) P V is scaled along, which no other path needs: i-PI's own P V has no λ.  A
    transformation that changes nothing gives the plain model.

    Raises InputError for a missing, superfluous or unphysical argument, ModelError (from the
    backend) for an element that the model does not know.
    """
    if transformation.initial != structure.symbols:
        raise InputError(
            f"the transformation is for {len(transformation.initial)} atoms and other elements "
            f"than the structure's {len(structure)}"
        )
    if interpolation not in INTERPOLATIONS:
        known = " or ".join(INTERPOLATIONS)
        raise InputError(f"interpolation: expected {known}, got '{interpolation}'")
    path = between(transformation, interpolation)
    ends = Ends(transformation, structure, springs, tether, scale, pressure)
    path.check_ends(ends)
    return Hamiltonian(path.terms(ends, ModelTerms(backend, structure)), n_atoms=len(structure))
