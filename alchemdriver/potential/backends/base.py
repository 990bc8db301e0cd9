"""What alchemdriver asks of a model: a Backend makes a Potential, a Potential evaluates.

All that is used of a model anywhere is declared here; both classes are to be inherited from.  A new
backend is one file beside this one with a function that opens it, one entry in
:data:`alchemdriver.contract.families.BUILT_IN` (or, in a package of its own, one entry point), and
one line in a test that calls :func:`alchemdriver.testing.assert_conforms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...contract import shelf
from ...errors import InputError, ModelError
from ...records import PotentialEvaluation
from ..sites import AlchemicalSites

__all__ = [
    "Arguments",
    "Backend",
    "Potential",
    "check_arguments",
    "require_elements",
    "require_finite",
]

# Of Potential.evaluate: positions (N, 3) Å, cell (3, 3) Å, pbc, weights (k,).
Arguments = tuple[np.ndarray, np.ndarray, Sequence[bool], np.ndarray]


class Potential(ABC):
    """E(x, cell, λ) of one set of alchemical sites."""

    sites: AlchemicalSites

    @abstractmethod
    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """Energy and its derivatives; one forward and one backward pass.

        positions: (N, 3) Å, N = ``sites.n_atoms``, wrapped into the cell or not.
        cell: (3, 3) Å, rows are the lattice vectors; rows of axes that are not periodic are
            ignored and may be zero.
        pbc: three flags.
        weights: (k,) λ, k = ``sites.n_weights``; they need not sum to 1.

        The result is in float64 whatever the model computes in, has N rows of forces (zero for
        atoms without a node) and depends on nothing but the arguments: on a CPU, equal arguments on
        an equal number of threads give equal bits.  Raises ModelError if anything in it is not
        finite.
        """

    def evaluate_batch(
        self,
        positions: np.ndarray,
        cells: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> list[PotentialEvaluation]:
        """One evaluation for each of B structures of the same system, such as the beads of a path.

        positions: (B, N, 3) Å; cells: (B, 3, 3) Å; pbc and weights (k,) are common to all.

        One by one, unless a backend knows better.  A structure's numbers may then differ in the
        last digits from those of :meth:`evaluate`, but equal batches give equal bits.
        """
        return [
            self.evaluate(x, cell, pbc, weights) for x, cell in zip(positions, cells, strict=True)
        ]


class Backend(ABC):
    """A loaded model.

    The attributes without a value and :meth:`potential` are all that a model needs.  The rest is
    for one that has several evaluators of the same function: the model's own code ('stock'), and
    others that are to be compared with it before a run.
    """

    name: str  # what messages call it
    elements: frozenset[str]  # symbols of the elements that it knows
    cutoff: float  # Å, reach of one message or pair
    dtype: str  # 'float64' or 'float32': what its limits can be expected to hold to
    device_type: str = "cpu"  # 'cpu', 'cuda' or 'mps': where it computes
    evaluator: str = "stock"  # what computes its potentials
    gives_stress: bool = True  # without it virials are zero, and constant pressure is refused

    @abstractmethod
    def potential(self, sites: AlchemicalSites) -> Potential:
        """The potential of *sites*.  Raises ModelError for an element the model does not know."""

    def of_charge(self, charge: float | None, spin: float | None) -> Backend:
        """This model for a cell of total *charge* (e) and multiplicity *spin* (2S + 1).

        None: as the model assumes.  Raises ModelError where it cannot tell such a cell from a
        neutral singlet.
        """
        shelf.require_neutral(self.name, charge, spin)
        return self

    def reference(self, sites: AlchemicalSites) -> Potential:
        """The potential of *sites* on the model's own code, whatever the evaluator."""
        return self.potential(sites)

    def choose_evaluator(self, sites: AlchemicalSites, arguments: Arguments) -> None:  # noqa: B027
        """Settle on one evaluator for a system like this one; called once, before a run."""

    def fall_back(self, reason: str) -> None:
        """Use the model's own code from now on, because of *reason*.

        Raises ModelError where the evaluator is not ours to change.
        """
        raise ModelError(f"model '{self.name}': the {self.evaluator} evaluator is off: {reason}")


def require_elements(name: str, known: Iterable[str], sites: AlchemicalSites) -> None:
    """Raise ModelError if *sites* contain an element that model *name* does not know."""
    known = sorted(known)
    missing = sorted(set(sites.elements) - set(known))
    if missing:
        raise ModelError(
            f"model '{name}' does not know {', '.join(missing)}; it knows {', '.join(known)}"
        )


def check_arguments(
    name: str,
    sites: AlchemicalSites,
    positions: ArrayLike,
    cell: ArrayLike,
    weights: ArrayLike,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of :meth:`Potential.evaluate` as float64 arrays.

    Raises InputError for wrong shapes, ModelError for numbers that are not finite.
    """

    def checked(what: str, values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != shape:
            raise InputError(f"expected {what} of shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ModelError(f"model '{name}': {what} are not finite")
        return array

    return (
        checked("positions", positions, (sites.n_atoms, 3)),
        checked("cell", cell, (3, 3)),
        checked("weights", weights, (sites.n_weights,)),
    )


def require_finite(name: str, found: PotentialEvaluation) -> None:
    """Raise ModelError if anything in *found* is not finite."""
    for what in ("energy", "forces", "virial", "weight_gradient"):
        if not np.isfinite(getattr(found, what)).all():
            raise ModelError(
                f"model '{name}': {what} not finite: two atoms overlap? "
                "Check the structure, the time step and the tether"
            )
