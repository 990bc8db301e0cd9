"""What a finite time step adds to the work, taken off where the forces were printed.

Velocity Verlet samples a harmonic mode with ⟨x²⟩ = kT/[mω²(1 − ω²Δt²/4)], momenta exactly (i-PI's
default splitting of the thermostat, OBABO), so that the work of a switch is larger by

    (kT/8) Δt² (Σω_f² − Σω_i²)        to leading order, masses fixed

Σω² = Tr M⁻¹K is ⟨Σ f²/m⟩/kT at equilibrium, by parts for any potential; that of the Einstein
crystal with a fixed centre of mass is 3 Σ k_i (1/m_i − 1/M).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...contract.run_input import RunInput
from ...paths.formulas import Correction, time_step
from ...units import DALTON_ANGSTROM2_PER_FS2_EV, EV_PER_ANGSTROM, kT
from ..files.readers import bead_paths, last_branch
from ..files.xyz import whole_frames

__all__ = ["NAME", "time_step_terms", "traces"]

NAME = "minus time step"
FEWEST = 8  # holds, over which the error is taken
_COMMENT = re.compile(r"^#.*Step:\s+(\d+).*\bforces\{(ev/ang|atomic_unit)\}")
_IN_EV_PER_ANGSTROM = {"ev/ang": 1.0, "atomic_unit": 1.0 / EV_PER_ANGSTROM}


@dataclass(frozen=True)
class Trace:
    """Σω² (1/fs²) of one end, and its SE."""

    value: float
    se: float


def time_step_terms(inputs: Sequence[RunInput]) -> list[Correction]:
    """The term of a switch whose replicas print forces; none where it cannot be known: no forces,
    several beads, masses that follow λ, a path over temperatures (whose work counts T/T0 times),
    another integrator than i-PI's default with one time step, fewer than eight holds at an end."""
    first = inputs[0]
    moves = first.interpolates_masses and not np.array_equal(
        first.initial_masses, first.final_masses
    )
    if first.beads > 1 or moves or first.timestep is None or first.temperature is None:
        return []
    if first.lambda_path.sweeps_temperature or not first.plain_verlet:
        return []
    ends = [
        _einstein(first) if first.lambda_path.absolute and end == 0 else traces(inputs, end)
        for end in (0, 1)
    ]
    if ends[0] is None or ends[1] is None:
        return []
    value, se = (
        time_step(first.kelvin, first.timestep, x)
        for x in (ends[1].value - ends[0].value, float(np.hypot(ends[0].se, ends[1].se)))
    )
    source = (
        f"−(kT/8) Δt² (Σω_f² − Σω_i²), Δt = {first.timestep:g} fs, Σω² = {ends[0].value:.4g} and "
        f"{ends[1].value:.4g} fs^-2 from the forces in the holds"
    )
    return [Correction(NAME, -value, "eV", source, se)]


def traces(inputs: Sequence[RunInput], end: int) -> Trace | None:
    """From the forces printed in the second half of every hold at λ = *end*, one value a hold."""
    holds: list[float] = []
    for run in inputs:
        file = next(
            (f for f in run.trajectories if (f.format, f.quantity) == ("xyz", "forces")), None
        )
        if file is None or run.schedule is None:
            return None
        (path,) = bead_paths(run.output(file.filename), 1)
        steps, values = [], []
        for frame in whole_frames(path.with_name(path.name + ".xyz"), len(run.structure), _COMMENT):
            forces = np.array([[float(x) for x in row[1:4]] for row in frame.words])
            forces *= _IN_EV_PER_ANGSTROM[frame.comment[2]]
            steps.append(int(frame.comment[1]))
            values.append(_mean_square(forces, run.held_masses, run.fixes_centre_of_mass))
        kept = last_branch(np.array(steps, dtype=np.int64))
        at, squares = np.array(steps)[kept], np.array(values)[kept]
        half = run.schedule.equilibrate / 2
        for hold in run.schedule.segments():
            inside = (at >= hold.start + half) & (at < hold.stop)
            if hold.kind == f"hold{end}" and inside.any():
                holds.append(float(squares[inside].mean()))
    if len(holds) < FEWEST:
        return None
    found = np.array(holds) / kT(inputs[0].kelvin)
    return Trace(float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))))


def _mean_square(forces: np.ndarray, masses: np.ndarray, fixed: bool) -> float:
    """Σ f²/m of what moves, eV/fs²."""
    squares = (forces**2 / masses[:, None]).sum()
    if fixed:
        squares -= (forces.sum(axis=0) ** 2).sum() / masses.sum()
    return float(squares / DALTON_ANGSTROM2_PER_FS2_EV)


def _einstein(run: RunInput) -> Trace:
    _, k = run.springs()
    m = run.initial_masses
    value = 3.0 * float(np.sum(k / m) - k.sum() / m.sum()) / DALTON_ANGSTROM2_PER_FS2_EV
    return Trace(value, 0.0)
