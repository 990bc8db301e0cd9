"""Atoms that are removed: another path, and a tether that holds them at λ = 1 (eq. 21).

A vanishing atom feels no force and would drift into others, where the energy is not finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .base import Ends, Given, Path, Potentials, in_the_work, letter, rule
from .formulas import Correction, einstein_crystal, removed_atoms_centre_of_mass
from .terms import Scaled, Springs, Term, growing

if TYPE_CHECKING:
    from ..contract.run_input import RunInput


@dataclass(frozen=True)
class Void(Path):
    """*others*, which takes the atoms out of the potential, plus λ Σ_void ½ k abs(r_i − r_i0)²."""

    others: Path

    takes = "tether"

    @property
    def weighs_graph(self) -> bool:
        return self.others.weighs_graph

    @property
    def linear(self) -> bool:
        return self.others.linear

    @property
    def is_defect(self) -> bool:
        return True

    def check(self, run: RunInput) -> None:
        self.others.check(run)
        held = sorted(run.held_atoms & set(run.transformation.voids))
        if held:
            raise InputError(
                f"{run.path}: <fixatoms> holds atom {held[0]}, which goes to void: F_spring "
                "(eq. 21) is that of an atom free to move on its tether"
            )

    def check_ends(self, ends: Ends) -> None:
        super().check_ends(ends)
        if ends.tether is None:
            raise InputError(
                "alchemy '->void' needs tether, a spring constant in eV/Å^2: "
                "a vanishing atom feels no force and would drift"
            )
        if not (np.isfinite(ends.tether) and ends.tether > 0):
            raise InputError(
                f"tether: expected a positive spring constant in eV/Å^2, got {ends.tether}"
            )

    def digest(self, run: RunInput) -> dict[str, Any]:
        """The anchors of the tethers, and the cell that they refer to."""
        anchors = run.structure.positions[list(run.transformation.voids)]
        return {
            **self.others.digest(run),
            "cell": [repr(float(x)) for x in run.structure.cell.ravel()],
            "anchors": [repr(float(x)) for x in anchors.ravel()],
        }

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        voids, s = list(ends.transformation.voids), ends.structure
        constants = np.full(len(voids), ends.tether)
        tethers = Springs(s.positions[voids], constants, s.cell, s.pbc, voids)
        return [*self.others.terms(ends, potentials), Scaled(tethers, growing)]

    def corrections(self, run: RunInput, given: Given) -> list[Correction]:
        """F_spring of eq. 21 taken off, and what the fixed centre of mass adds to it."""
        found = self.others.corrections(run, given)
        voids = list(run.transformation.voids)
        k, t = run.parameters.tether, run.kelvin
        assert k is not None  # the input was read
        spring = einstein_crystal(t, np.full(len(voids), k), run.initial_masses[voids], run.beads)
        source = f"eqs. 18, 21, k = {k:g} eV/Å^2, {len(voids)} atoms, {rule(run.beads)}"
        found.append(Correction("minus tether F_spring", -spring, "eV", source))
        if run.fixes_centre_of_mass:
            at_end = run.final_masses if run.interpolates_masses else run.initial_masses
            value = removed_atoms_centre_of_mass(t, at_end.sum(), at_end[voids].sum())
            source = "3 kT ln(M/(M−m)), from eq. 21 with fixed total centre of mass"
            name = "minus centre of mass of removed atoms"
            found.append(Correction(name, -value, "eV", source))
        return found

    def quantity(self, run: RunInput, given: Given) -> str:
        g = letter(run, given)
        return f"{g}_defect − {g}_perfect (eq. 21){in_the_work(run)}"
