"""From one model of a system to another: what a free energy owes to its potential.

H = (1 − λ) U_model + λ U_other.  ΔF is F of the other model minus F of the first, by two ordinary
evaluations a step; atoms, masses and structure stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .base import Ends, Given, Path, Potentials, in_the_work, letter
from .terms import Scaled, Term, fading, growing

if TYPE_CHECKING:
    from ..contract.run_input import RunInput

OTHER = "model->other"


class OtherModel(Path):
    """H = (1 − λ) U_model + λ U_other."""

    word = OTHER
    takes = "other"

    def check_ends(self, ends: Ends) -> None:
        super().check_ends(ends)
        if ends.other is None:
            raise InputError("other (a model) and alchemy 'model->other' go together")

    def digest(self, run: RunInput) -> dict[str, Any]:
        return {}  # both models are in it already

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        symbols = ends.transformation.initial
        return [
            Scaled(potentials.plain(symbols), fading),
            Scaled(potentials.other(symbols), growing),
        ]

    def quantity(self, run: RunInput, given: Given) -> str:
        models = f"{run.parameters.other} minus {run.parameters.model}"
        return f"Δ{letter(run, given)}, {models}{in_the_work(run)}"
