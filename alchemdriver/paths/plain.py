"""No path at all: ordinary dynamics of the model (``alchemy: none``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .base import Ends, Path, Potentials
from .terms import Term

if TYPE_CHECKING:
    from ..contract.run_input import RunInput

NONE = "none"


class Plain(Path):
    """H = U, whatever λ is."""

    word = NONE
    constant = True

    def check(self, run: RunInput) -> None:
        if run.schedule is not None:
            raise InputError("'alchemy: none' changes nothing: remove 'schedule', or say what does")

    def digest(self, run: RunInput) -> dict[str, Any]:
        return {}

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        return [potentials.plain(ends.transformation.initial)]
