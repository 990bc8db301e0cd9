"""The mass leg of path-integral runs, and what the quantum nuclei change.

| symbol                    | here                                                     |
|---------------------------|----------------------------------------------------------|
| s, w                      | ``MassPoint.s``, Gauss–Legendre points and weights       |
| K_cv,i                    | centroid-virial kinetic energy of atom i, printed by i-PI |
| dF/ds                     | ``MassPoint.mean``, −Σ_i ln(m_i^(f)/m_i^(i)) ⟨K_cv,i⟩     |
| F(m^(f)) − F(m^(i))       | ``MassLeg.value``                                        |

K_cv,i = 3/2 kT + ½ ⟨Σ_b (r_ib − r̄_i) · ∂U_b/∂r_i⟩ / P holds for every atom whether or not the
centre of mass is fixed: relative positions in a crystal do not know where the crystal is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from ...contract import origin
from ...contract.layout import FOLDER
from ...contract.nodes import gauss_legendre
from ...contract.run_input import RunInput, read_input
from ...contract.stored import InMemory, NotNegative, no_rows
from ...errors import AnalysisError
from ...paths.formulas import MASS_TERM, Correction
from ...units import kT
from ..estimators.estimate import ONE_SIGMA, Estimate, add, student
from ..estimators.fixed_lambda import equilibrium_mean
from ..files.kinetic import read_kinetic

# Part of a run left out at least.  It starts with all beads of an atom in one place, where K_cv is
# the classical 3/2 kT: a short transient, but of one sign, which a test for equilibration can miss.
SETTLING = 0.1
FEW_SAMPLES = 50  # independent ones; below, an error is itself uncertain
COARSE = 10.0  # errors by which a point left out may move the integral; its own noise moves it by 2


@dataclass(frozen=True)
class MassPoint:
    """One equilibrium run on the leg."""

    folder: Path
    s: float  # 0: initial masses, 1: final masses
    time: Annotated[np.ndarray, InMemory(no_rows)]  # (n,) ps
    # (n,) eV, −Σ_i ln(m_i^(f)/m_i^(i)) K_cv,i
    gradient: Annotated[np.ndarray, InMemory(no_rows)]
    equilibration: int  # rows left out at the start
    inefficiency: float  # rows per independent sample
    mean: Estimate  # dF/ds in eV


@dataclass(frozen=True)
class MassLeg:
    """F(final masses) − F(initial masses) in the final state, quantum nuclei, eV."""

    points: tuple[MassPoint, ...]
    value: float  # eV
    se: float | None  # eV, stated error, propagated from the points; None: a point has no error
    rule: float | None  # eV, by how much the integral moves with the worst point left out
    classical: float  # eV, what the same masses give classically (eq. 22)
    dof: NotNegative | None = None  # degrees of freedom of the error; None: normal, or no error

    def term(self) -> Correction:
        """The leg as it is added to the work."""
        n = len(self.points)
        return Correction(
            MASS_TERM,
            self.value,
            "eV",
            f"TI over {n} masses with the centroid-virial kinetic energy; classically (eq. 22) "
            f"{self.classical:+.6f}",
            self.se,
            self.dof,
        )


def mass_point(run: RunInput) -> MassPoint:
    """Read and average one point.  Raises AnalysisError if the run is not one, or not finished."""
    s = run.parameters.mass_point
    if s is None:
        raise AnalysisError(f"{run.path} is no point of a mass leg: it has no 'mass_point'")
    steps, kinetic = read_kinetic(run)
    if len(steps) < 2 or steps[-1] + steps[1] <= run.total_steps:
        raise AnalysisError(f"{run.folder} is at step {steps[-1]} of {run.total_steps}: resume it")
    gradient = -kinetic @ np.log(run.final_masses / run.initial_masses)
    start = int(SETTLING * len(gradient))
    time = steps * ((run.timestep or 0.0) * 1e-3)
    more, g, mean = equilibrium_mean(gradient[start:], 0.0, float(time[1] - time[0]), "ps")
    return MassPoint(run.folder, s, time, gradient, start + more, g, mean)


def mass_leg(runs: Sequence[RunInput]) -> MassLeg:
    """∫₀¹ ds dF/ds over the points of one leg; AnalysisError if they are not a Gauss rule."""
    points = sorted((mass_point(run) for run in runs), key=lambda p: p.s)
    s, _ = gauss_legendre(len(points))
    found = np.array([p.s for p in points])
    if np.abs(found - s).max() > 1e-12:
        raise AnalysisError(
            f"{points[0].folder.parent}: expected the {len(s)} Gauss points {s.round(4).tolist()} "
            f"of the mass leg, found {found.round(4).tolist()}: a point is missing or twice there"
        )
    first = runs[0]
    ratio = np.log(first.final_masses / first.initial_masses).sum()
    return integrated(points, -1.5 * kT(first.kelvin) * ratio)


def integrated(points: Sequence[MassPoint], classical: float) -> MassLeg:
    """The leg over *points* at the nodes of a Gauss rule; classical: eq. 22, eV."""
    s, weights = gauss_legendre(len(points))
    means = np.array([p.mean.value for p in points])
    se = dof = None
    if all(p.mean.se is not None for p in points):
        sigmas = weights * np.array([p.mean.sigma for p in points])
        sigma, dof = add(np.square(sigmas).tolist(), [p.mean.dof for p in points])
        se = student(ONE_SIGMA, dof) * sigma
    value = float(weights @ means)
    return MassLeg(tuple(points), value, se, _rule_error(s, means, value), classical, dof)


def _rule_error(s: np.ndarray, means: np.ndarray, value: float) -> float | None:
    """Largest change of the integral when one point is left out; contains the points' noise."""
    if len(s) < 2:
        return None
    moved = []
    for k in range(len(s)):
        rest = np.delete(np.arange(len(s)), k)
        polynomial = np.polynomial.Polynomial.fit(s[rest], means[rest], len(rest) - 1, [0.0, 1.0])
        whole = polynomial.integ()
        moved.append(abs(float(whole(1.0) - whole(0.0)) - value))
    return max(moved)


def _points(folder: Path) -> list[RunInput]:
    found = [read_input(path) for path in sorted(folder.glob("point-*/input.xml"))]
    for run in found:
        origin.check(run)
        origin.check_outputs(run)
    return found


def mass_leg_in(folder: Path) -> MassLeg:
    """The leg whose points lie in *folder*, by itself."""
    inputs = _points(folder)
    if not inputs:
        raise AnalysisError(f"{folder} holds no point-* of a mass leg")
    return mass_leg(inputs)


def leg_of(home: Path, run: RunInput) -> MassLeg | None:
    """The leg beside *run* in ``home/mass-leg``, or None if there is none.

    Raises AnalysisError if it belongs to another calculation or is not finished.
    """
    inputs = _points(home / FOLDER)
    if not inputs or run.beads == 1:
        return None
    for point in inputs:
        for name, a, b in (
            ("temperature (K)", run.temperature, point.temperature),
            ("pressure (bar)", run.pressure, point.pressure),
            ("ensemble", run.ensemble, point.ensemble),
            ("alchemy", run.transformation, point.transformation),
            ("digest", run.parameters.digest, point.parameters.digest),
            ("beads", run.beads, point.beads),
            ("lambda", 1.0, point.parameters.lam),
        ):
            if a != b:
                shown = "" if name == "alchemy" else f" ({a} and {b})"
                raise AnalysisError(
                    f"{point.folder} differs from {run.folder.name} in {name}{shown}: it is the "
                    "mass leg of another calculation"
                )
    return mass_leg(inputs)


def leg_warnings(leg: MassLeg) -> list[str]:
    """What to look at before the leg is believed."""
    found = [
        f"mass leg, {p.folder.name}: only {p.mean.n} independent samples of the kinetic energy: "
        "its error is itself uncertain"
        for p in leg.points
        if p.mean.se is not None and p.mean.n < FEW_SAMPLES
    ]
    found += [
        f"mass leg, {p.folder.name}: error of dF/ds {p.mean.se_kind}: the total has no error"
        for p in leg.points
        if p.mean.se is None
    ]
    if leg.rule is not None and leg.se is not None and leg.rule > COARSE * leg.se:
        found.append(
            f"mass leg: one of {len(leg.points)} points left out moves the integral by "
            f"{1e3 * leg.rule:.2f} meV, {leg.rule / leg.se:.0f} of its errors: use more points"
        )
    return found
