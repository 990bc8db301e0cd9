"""What alchemdriver asks of a model: a Backend makes a Potential, a Potential evaluates.

A new backend is one file beside this one and one line in a test that calls
:func:`alchemdriver.testing.assert_conforms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from ...errors import InputError, ModelError
from ...records import PotentialEvaluation
from ..sites import AlchemicalSites

__all__ = ["Backend", "Potential", "check_arguments", "require_elements", "require_finite"]


class Potential(Protocol):
    """E(x, cell, λ) of one set of alchemical sites.  Backends inherit from it."""

    sites: AlchemicalSites

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
        ...

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


class Backend(Protocol):
    """A loaded model."""

    name: str  # what messages call it
    elements: frozenset[str]  # symbols of the elements that it knows
    cutoff: float  # Å, reach of one message or pair
    dtype: str  # 'float64' or 'float32': what its limits can be expected to hold to

    def potential(self, sites: AlchemicalSites) -> Potential:
        """The potential of *sites*.  Raises ModelError for an element the model does not know."""
        ...


def require_elements(name: str, known: Iterable[str], sites: AlchemicalSites) -> None:
    """Raise ModelError if *sites* contain an element that model *name* does not know."""
    known = sorted(known)
    missing = sorted(set(sites.elements) - set(known))
    if missing:
        raise ModelError(
            f"model '{name}' does not know {', '.join(missing)}; it knows {', '.join(known)}"
        )


def check_arguments(
    name: str, sites: AlchemicalSites, positions, cell, weights
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arguments of :meth:`Potential.evaluate` as float64 arrays.

    Raises InputError for wrong shapes, ModelError for numbers that are not finite.
    """
    checked = []
    for what, values, shape in (
        ("positions", positions, (sites.n_atoms, 3)),
        ("cell", cell, (3, 3)),
        ("weights", weights, (sites.n_weights,)),
    ):
        array = np.asarray(values, dtype=np.float64)
        if array.shape != shape:
            raise InputError(f"expected {what} of shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ModelError(f"model '{name}': {what} are not finite")
        checked.append(array)
    return tuple(checked)


def require_finite(name: str, found: PotentialEvaluation) -> None:
    """Raise ModelError if anything in *found* is not finite."""
    for what in ("energy", "forces", "virial", "weight_gradient"):
        if not np.isfinite(getattr(found, what)).all():
            raise ModelError(
                f"model '{name}': {what} not finite: two atoms overlap? "
                "Check the structure, the time step and the tether"
            )
