"""Frenkel–Ladd: from an Einstein crystal, whose free energy is known, to the model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AnalysisError, InputError
from ..records import Structure
from .base import Ends, Given, Path, Potentials, letter, rule
from .formulas import (
    Correction,
    centre_of_mass,
    einstein_crystal,
    lattice_translations,
    pressure_volume,
)
from .geometry import mass_centre_offset
from .terms import Scaled, Springs, Term, fading, growing

if TYPE_CHECKING:
    from ..contract.run_input import RunInput

EINSTEIN = "einstein->model"
OFF_CENTRE = 1e-6  # Å that the start's mass centre may be off the anchors'


class Einstein(Path):
    """H = (1 − λ) Σ ½ k_i abs(r_i − r_i0)² + λ U."""

    word = EINSTEIN
    takes = "springs"
    absolute = True

    def check(self, run: RunInput) -> None:
        """Constant volume, and every atom moves."""
        if run.constant_pressure:
            raise InputError(
                "einstein->model belongs to constant volume (the Einstein crystal has no pressure "
                "of its own): use an NVT protocol at the mean cell, and P V of eq. 20"
            )
        if run.held_atoms:
            raise InputError(
                f"{run.path}: <fixatoms> holds atoms, but eqs. 18 and 19 are for a crystal of "
                "which every atom moves: run einstein->model without it"
            )
        if not run.fixes_centre_of_mass:
            raise InputError(
                f"{run.path}: einstein->model with <fixcom> False: eq. 19 is for a fixed centre of "
                "mass, and no run samples one that is free at λ = 1: write <fixcom>True</fixcom>"
            )

    def check_ends(self, ends: Ends) -> None:
        super().check_ends(ends)
        if ends.springs is None:
            raise InputError(
                "alchemy 'einstein->model' needs springs: an extxyz file with the anchor positions "
                "and a per-atom array spring_constant (eV/Å^2)"
            )
        n = len(ends.springs[0])
        if n != len(ends.structure):
            raise InputError(f"springs: expected {len(ends.structure)} anchors, got {n}")

    def start(self, run: RunInput) -> Structure:
        """The start moved as a whole so that its mass centre is the anchors'.

        Eq. 19 assumes it, and the fixed centre of mass stays there for the whole run.  Atoms are
        counted in the images nearest to their anchors.
        """
        anchors, _ = run.springs()
        shift = mass_centre_offset(run.structure, anchors, run.initial_masses)
        return replace(run.structure, positions=run.structure.positions - shift)

    def digest(self, run: RunInput) -> dict[str, Any]:
        """The cell that the anchors refer to; the springs' file is in every digest."""
        return {"cell": [repr(float(x)) for x in run.structure.cell.ravel()]}

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        assert ends.springs is not None  # checked
        anchors, constants = ends.springs
        crystal = Springs(anchors, constants, ends.structure.cell, ends.structure.pbc)
        model = potentials.plain(ends.transformation.final)
        return [Scaled(crystal, fading), Scaled(model, growing)]

    def corrections(self, run: RunInput, given: Given) -> list[Correction]:
        """F_E (eq. 18), the fixed centre of mass (eq. 19), P V if a pressure is given (eq. 20)."""
        anchors, constants = run.springs()
        masses, t = run.initial_masses, run.kelvin
        volume = float(abs(np.linalg.det(run.structure.cell)))
        value = einstein_crystal(t, constants, masses, run.beads)
        source = f"eq. 18, {len(masses)} oscillators, {rule(run.beads)}"
        found = [Correction("Einstein crystal F_E", value, "eV", source)]
        off = float(np.linalg.norm(mass_centre_offset(run.structure, anchors, masses)))
        if off > OFF_CENTRE:
            raise AnalysisError(
                f"{run.path}: the start's centre of mass is {off:.2g} Å from the anchors', and "
                f"eq. 19 holds only where they coincide ({OFF_CENTRE:g} Å): translate all "
                "atoms of the start so that they do, and run again"
            )
        origin = "given" if given.n_ws is not None else "by spglib"
        n_ws = given.n_ws
        if n_ws is None:
            n_ws = lattice_translations(run.structure.cell, anchors, run.structure.symbols)
        value = centre_of_mass(t, volume, masses, constants, n_ws)
        source = f"eq. 19, N_WS = {n_ws} ({origin}), V = {volume:.3f} Å^3"
        found.append(Correction("fixed centre of mass ΔF_CM", value, "eV", source))
        if given.pressure is not None:
            value = pressure_volume(given.pressure, volume)
            source = f"eq. 20, {given.pressure:g} bar, {volume:.3f} Å^3"
            found.append(Correction("P V", value, "eV", source))
        return found

    def quantity(self, run: RunInput, given: Given) -> str:
        return f"{letter(run, given)} of the model crystal (eq. 20)"
