"""Reversible scaling: one Hamiltonian at many temperatures.

de Koning, Antonelli and Yip, Phys. Rev. Lett. 83, 3973 (1999); at constant pressure the enthalpy is
scaled (de Koning et al., J. Chem. Phys. 115, 11025 (2001)).  A classical system with energies
s (U + P V) at T0 has the configurations of the real one at T = T0/s, hence, momenta included,

    G(T)/T = G(T0)/T0 + W/T0 − (3/2) N k ln(T/T0)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .base import Ends, Given, Path, Potentials
from .formulas import Correction, temperature_term
from .terms import PressureVolume, Scaled, Term, scaling

if TYPE_CHECKING:
    from ..contract.run_input import RunInput

SCALED = "model->scaled"


class ReversibleScaling(Path):
    """H = s(λ) U + (s(λ) − 1) P V, s = 1 + λ (scale − 1); i-PI's own P V has no λ."""

    word = SCALED
    takes = "scale"
    sweeps_temperature = True

    def check(self, run: RunInput) -> None:
        """s needs a thermostat, one bead, and a hydrostatic pressure."""
        if run.beads > 1:
            raise InputError(
                f"model->scaled is for classical nuclei, got {run.beads} beads: at another "
                "temperature the ring-polymer springs differ too"
            )
        if run.ensemble not in ("nvt", "npt") or run.temperature is None:
            raise InputError(
                "model->scaled needs <dynamics mode='nvt'> or 'npt' and a <temperature>, got "
                f"'{run.ensemble}': a stress tensor cannot be scaled by a volume term"
            )
        if run.constant_pressure and run.pressure is None:
            raise InputError(
                "model->scaled at constant pressure needs a <pressure> to scale P V with"
            )

    def check_ends(self, ends: Ends) -> None:
        super().check_ends(ends)
        if ends.scale is None:
            raise InputError("scale and alchemy 'model->scaled' go together")

    def digest(self, run: RunInput) -> dict[str, Any]:
        """The pressure that is scaled along."""
        return {"scaled_pressure": repr(run.pressure)} if run.constant_pressure else {}

    def terms(self, ends: Ends, potentials: Potentials) -> list[Term]:
        assert ends.scale is not None  # checked
        found: list[Term] = [
            Scaled(potentials.plain(ends.transformation.initial), scaling(ends.scale))
        ]
        if ends.pressure is not None:
            excess = scaling(ends.scale, excess=True)
            found.append(Scaled(PressureVolume(ends.pressure), excess))
        return found

    def work_factor(self, run: RunInput) -> float:
        """T/T0."""
        return far_temperature(run) / run.kelvin

    def corrections(self, run: RunInput, given: Given) -> list[Correction]:
        """The momenta's share, and (T/T0) G(T0) where G(T0) is given."""
        t0, t, n = run.kelvin, far_temperature(run), len(run.structure)
        free = int(run.free_coordinates.sum())
        value = float(temperature_term(t, t0, free))
        what = "3/2 N k T ln(T/T0)", f"{n} atoms"
        if free < 3 * n:
            what = "1/2 f k T ln(T/T0)", f"{free} coordinates"
        source = f"−{what[0]}, {what[1]}, T0 = {t0:g} K, T = {t:g} K"
        found = [Correction("kinetic energy", value, "eV", source)]
        known = given.reference
        if known is not None:
            se = None if known.se is None else known.se * t / t0
            name = f"(T/T0) {'G' if run.constant_pressure else 'F'}(T0)"
            value = known.value * t / t0
            found.append(Correction(name, value, "eV", known.source, se, known.dof))
        return found

    def quantity(self, run: RunInput, given: Given) -> str:
        t0, t = run.kelvin, far_temperature(run)
        g = "G" if run.constant_pressure else "F"
        how = f"by reversible scaling from {t0:g} K; the work counts T/T0 = {t / t0:g} times"
        if given.reference is None:
            return f"{g}({t:g} K) − (T/T0) {g}({t0:g} K), {how}"
        return f"{g} at {t:g} K, {how}"


def far_temperature(run: RunInput) -> float:
    """T (K) at λ = 1."""
    assert run.parameters.scale is not None  # the input was read
    return run.kelvin / run.parameters.scale
