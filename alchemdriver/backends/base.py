"""What alchemdriver asks of a model: a Backend makes a Potential, a Potential evaluates.

A new backend is one file beside this one and one line in a test that calls
:func:`alchemdriver.testing.assert_conforms`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from ..alchemy import AlchemicalSites
from ..errors import ModelError
from ..records import PotentialEvaluation

__all__ = ["Backend", "Potential", "require_elements"]


class Potential(Protocol):
    """E(x, cell, λ) of one set of alchemical sites."""

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
        atoms without a node) and depends on nothing but the arguments: on a CPU, equal arguments
        give equal bits.  Raises ModelError if anything in it is not finite.
        """
        ...


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
