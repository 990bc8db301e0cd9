"""Elements change: through the weighted graph, or as a linear mixture of both end states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .base import Ends, Given, Path, Potentials
from .formulas import MASS_TERM, Correction, mass_term
from .terms import Scaled, Term, fading, growing

if TYPE_CHECKING:
    from ..contract.run_input import RunInput


class Linear(Path):
    """H = (1 − λ) U_initial + λ U_final: two ordinary evaluations, the reference for eqs. 4–7."""

    def check(self, run: RunInput) -> None:
        """A mass leg counts the momenta of every atom."""
        changing = np.flatnonzero(run.initial_masses != run.final_masses).tolist()
        held = sorted(run.held_atoms & {*changing})
        if held and run.beads > 1:
            raise InputError(
                f"{run.path}: <fixatoms> holds atom {held[0]}, whose mass changes, with "
                f"{run.beads} beads: the mass leg would count momenta that it has not: let it move"
            )

    def digest(self, run: RunInput) -> dict[str, Any]:
        return {}  # elements, masses and interpolation are in every digest

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        return [
            Scaled(potentials.plain(ends.transformation.initial), fading),
            Scaled(potentials.plain(ends.transformation.final), growing),
        ]

    def corrections(self, run: RunInput, given: Given) -> list[Correction]:
        """The masses, eq. 22: analytic for one bead, a leg of its own for several."""
        if np.array_equal(run.initial_masses, run.final_masses):
            return []
        if run.beads == 1:
            free = run.free_coordinates
            value = mass_term(run.kelvin, run.initial_masses, run.final_masses, free)
            source = f"eq. 22, 3/2 kT Σ ln(m_i/m_f) over {len(run.structure)} atoms, classical"
            if free.min() < 3:
                source = (
                    f"eq. 22, 1/2 kT Σ ln(m_i/m_f) over the {free.sum()} coordinates that move, "
                    "classical"
                )
            return [Correction(MASS_TERM, value, "eV", source)]
        replica = run.folder.name.startswith("replica-")
        name = run.folder.parent.name if replica else run.folder.name
        source = (
            f"{run.beads} beads: needs thermodynamic integration over the masses: "
            f"'alchemdriver mass-leg {name}' prepares it"
        )
        return [Correction(MASS_TERM, None, "eV", source)]


class Alchemical(Linear):
    """H = U_alch(x; weights 1 − λ, λ), eqs. 4–7."""

    @property
    def linear(self) -> bool:
        return False

    @property
    def weighs_graph(self) -> bool:
        return True

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        return [potentials.alchemical(ends.transformation)]
