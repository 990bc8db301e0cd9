"""Paths between end states: what λ does, one object and one file each.

| path               | H(x, λ)                                             | file            |
|--------------------|-----------------------------------------------------|-----------------|
| alchemical         | U_alch(x; weights 1−λ, λ), eqs. 4–7                 | ``alchemical``  |
| linear (reference) | (1−λ) U_initial + λ U_final                         | ``alchemical``  |
| vacancy, eq. 21    | either of them + λ Σ_void ½ k abs(r_i − r_i0)²      | ``void``        |
| Einstein → model   | (1−λ) Σ ½ k_i abs(r_i − r_i0)² + λ U, Frenkel–Ladd  | ``einstein``    |
| reversible scaling | s(λ) U + (s(λ) − 1) P V, s = 1 + λ (scale − 1)      | ``scaled``      |
| model → model      | (1−λ) U_model + λ U_other                           | ``other``       |
| none               | U                                                   | ``plain``       |

A new path is a new file and an entry in :data:`ALONE`, or in :data:`INTERPOLATIONS` where elements
change.
"""

from __future__ import annotations

from ..records import Transformation
from .alchemical import Alchemical, Linear
from .base import Absolute, Ends, Given, Path, Potentials
from .einstein import Einstein
from .other import OtherModel
from .plain import Plain
from .scaled import ReversibleScaling
from .void import Void

__all__ = ["ALONE", "INTERPOLATIONS", "Absolute", "Ends", "Given", "Path", "Potentials", "between"]

# What a word that stands alone in ``alchemy`` means.
ALONE: dict[str, Path] = {
    path.word: path for path in (Einstein(), ReversibleScaling(), OtherModel(), Plain())
}
# How elements change into others, by the key ``interpolation``.
INTERPOLATIONS: dict[str, Path] = {"alchemical": Alchemical(), "linear": Linear()}


def between(transformation: Transformation, interpolation: str = "alchemical") -> Path:
    """The path of *transformation*."""
    if transformation.word:
        return ALONE[transformation.word]
    if not transformation.changed:
        return ALONE[Plain.word]
    elements = INTERPOLATIONS[interpolation]
    return Void(elements) if transformation.voids else elements
