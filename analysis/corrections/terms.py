"""The corrections of one run, as its input asks for them, and what work and corrections add up to.

Each is a function of :mod:`.formulas`; here it is decided which belong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ...contract.run_input import RunInput
from ...contract.springs import mass_centre_offset
from ...contract.xmltree import child, many, parse_xml, text_of
from ...errors import AnalysisError
from . import formulas as c
from . import scaling
from .formulas import Term
from .mass_leg import MASS_TERM
from .scaling import Absolute


def terms_of(
    run: RunInput,
    n_ws: int | None,
    pressure: float | None,
    extra: Sequence[Term],
    given: Absolute | None,
) -> tuple[tuple[Term, ...], str, float]:
    """All corrections of a run, what the sum of work and corrections is, and how often work counts.

    The work counts once, but T/T0 times under reversible scaling.
    """
    constant_pressure = run.constant_pressure
    if constant_pressure and pressure is not None:
        raise AnalysisError(
            "the run is at constant pressure, so the work already gives a Gibbs energy: "
            "do not add P V"
        )
    letter = "G" if constant_pressure or pressure is not None else "F"
    if run.transformation.einstein:
        found, quantity = _einstein_terms(run, n_ws), f"{letter} of the model crystal (eq. 20)"
    else:
        found, quantity = _alchemical_terms(run), f"Δ{letter}, final minus initial state"
        if run.transformation.voids:
            quantity = f"{letter}_defect − {letter}_perfect (eq. 21)"
        if constant_pressure:
            quantity += "; at constant pressure, so P V is in the work already"
    if pressure is not None:
        if not run.transformation.einstein:
            raise AnalysisError("P V belongs to einstein->model at constant volume (eq. 20)")
        volume = _volume(run)
        value = c.pressure_volume(pressure, volume)
        found.append(Term("P V", value, "eV", f"eq. 20, {pressure:g} bar, {volume:.3f} Å^3"))
    for term in extra:
        if term.unit != "eV":
            raise AnalysisError(f"term '{term.name}': expected eV, got {term.unit}")
    replaced, factor = {t.name for t in extra}, 1.0
    if run.transformation.scaled:
        factor, found, quantity = scaling.kinetic_and_reference(run, given)
    return tuple([t for t in found if t.name not in replaced] + list(extra)), quantity, factor


def _volume(run: RunInput) -> float:
    return float(abs(np.linalg.det(run.structure.cell)))


def _alchemical_terms(run: RunInput) -> list[Term]:
    t, temperature = run.transformation, run.temperature
    found = []
    if not np.array_equal(run.initial_masses, run.final_masses):
        if run.beads == 1:
            value = c.mass_term(temperature, run.initial_masses, run.final_masses)
            source = f"eq. 22, 3/2 kT Σ ln(m_i/m_f) over {len(run.structure)} atoms, classical"
        else:
            value = None
            replica = run.folder.name.startswith("replica-")
            name = run.folder.parent.name if replica else run.folder.name
            source = (
                f"{run.beads} beads: needs thermodynamic integration over the masses: "
                f"'alchemdriver mass-leg {name}' prepares it"
            )
        found.append(Term(MASS_TERM, value, "eV", source))
    if t.voids:
        voids = list(t.voids)
        held = sorted(_held_atoms(run) & set(voids))
        if held:
            raise AnalysisError(
                f"{run.path}: <fixatoms> holds atom {held[0]}, which goes to void: F_spring "
                "(eq. 21) is that of an atom free to move on its tether"
            )
        masses = run.initial_masses[voids]
        spring = c.einstein_crystal(
            temperature, np.full(len(voids), run.parameters.tether), masses, run.beads
        )
        how = "classical" if run.beads == 1 else f"{run.beads} beads"
        found.append(
            Term(
                "minus tether F_spring",
                -spring,
                "eV",
                f"eqs. 18, 21, k = {run.parameters.tether:g} eV/Å^2, {len(voids)} atoms, {how}",
            )
        )
        if fixes_centre_of_mass(run):
            at_end = run.final_masses if run.interpolates_masses else run.initial_masses
            value = c.removed_atoms_centre_of_mass(temperature, at_end.sum(), at_end[voids].sum())
            found.append(
                Term(
                    "minus centre of mass of removed atoms",
                    -value,
                    "eV",
                    "3 kT ln(M/(M−m)), from eq. 21 with fixed total centre of mass",
                )
            )
    return found


def _einstein_terms(run: RunInput, n_ws: int | None) -> list[Term]:
    from ...contract.springs import read_springs

    if any(fixed_atoms(run)):
        raise AnalysisError(
            f"{run.path}: <fixatoms> holds atoms, but eqs. 18 and 19 are for a crystal of which "
            "every atom moves: run einstein->model without it"
        )
    anchors, constants = read_springs(run.folder / run.parameters.springs, run.structure)
    masses, temperature = run.initial_masses, run.temperature
    how = "classical" if run.beads == 1 else f"{run.beads} beads"
    found = [
        Term(
            "Einstein crystal F_E",
            c.einstein_crystal(temperature, constants, masses, run.beads),
            "eV",
            f"eq. 18, {len(masses)} oscillators, {how}",
        )
    ]
    if not fixes_centre_of_mass(run):
        return found
    off = anchor_offset(run, anchors)
    if off > 1e-6:
        raise AnalysisError(
            f"{run.path}: the start's centre of mass is {off:.2g} Å from the anchors', and eq. 19 "
            "holds only where they coincide (1e-6 Å): translate all atoms of the start so that "
            "they do, and run again"
        )
    given = "given" if n_ws is not None else "by spglib"
    if n_ws is None:
        n_ws = c.lattice_translations(run.structure.cell, anchors, run.structure.symbols)
    volume = _volume(run)
    found.append(
        Term(
            "fixed centre of mass ΔF_CM",
            c.centre_of_mass(temperature, volume, masses, constants, n_ws),
            "eV",
            f"eq. 19, N_WS = {n_ws} ({given}), V = {volume:.3f} Å^3",
        )
    )
    return found


def anchor_offset(run: RunInput, anchors: np.ndarray) -> float:
    """Distance (Å) of the start's centre of mass from the anchors', images undone."""
    return float(np.linalg.norm(mass_centre_offset(run.structure, anchors, run.initial_masses)))


# --- what the input holds -----------------------------------------------------------------------


def fixes_centre_of_mass(run: RunInput) -> bool:
    """i-PI's <fixcom>, true by default; i-PI makes it false if <fixatoms> holds any atom."""
    return text_of(child(_motion(run), "fixcom"), "true").lower() != "false" and not any(
        fixed_atoms(run)
    )


def _motion(run: RunInput):
    root = parse_xml(run.path.read_text(), str(run.path))
    motions = many(child(root, "system", "motion"))
    return motions[0] if motions else None


def fixed_atoms(run: RunInput) -> tuple[str, str]:
    """What <fixatoms> and <fixatoms_dof> list, as text; '' for nothing."""
    motion = _motion(run)
    lists = [text_of(child(motion, tag)).strip("[] \t\n") for tag in ("fixatoms", "fixatoms_dof")]
    atoms, dof = (" ".join(text.replace(",", " ").split()) for text in lists)
    return atoms, dof


def _held_atoms(run: RunInput) -> set[int]:
    """Atoms of which at least one coordinate is held."""
    atoms, dof = fixed_atoms(run)
    if not re.fullmatch(r"[\d ]*", atoms + dof):
        raise AnalysisError(f"{run.path}: <fixatoms>: expected a list of numbers such as [0, 1]")
    return {int(k) for k in atoms.split()} | {int(k) // 3 for k in dof.split()}
