"""Switching work and the first law.

| symbol     | paper                  | here                          |
|------------|------------------------|-------------------------------|
| W_{i→f}    | eq. 9, λ from 0 to 1   | ``SwitchingWork`` 'forward'   |
| W_{f→i}    | eq. 9, λ from 1 to 0   | ``SwitchingWork`` 'backward'  |
| ∂H/∂λ      | eq. 9                  | ``gradient``, mean over beads |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...contract.run_input import RunInput
from ...contract.schedule import Segment
from ...errors import AnalysisError
from ..files.readers import GradientSeries, PropertySeries, read_conserved, read_gradients
from .holds import Hold, examine


@dataclass(frozen=True)
class SwitchingWork:
    """One switch, from ``steps[0]`` to ``steps[-1]``, both included."""

    direction: str  # 'forward' (λ 0→1) or 'backward' (λ 1→0)
    cycle: int  # from 0
    steps: np.ndarray  # (n,) MD steps
    lam: np.ndarray  # (n,) dimensionless
    gradient: np.ndarray  # (n,) eV, ∂H/∂λ, mean over beads
    cumulative: np.ndarray  # (n,) eV, work done up to each step; starts at 0

    @property
    def work(self) -> float:
        """W in eV; eq. 9."""
        return float(self.cumulative[-1])


@dataclass(frozen=True)
class FirstLaw:
    """i-PI's conserved quantity minus the accumulated work: flat if nothing is missed."""

    drift: float  # eV per atom and ps, slope of a linear fit
    max_deviation: float  # eV per atom, largest departure from the first row
    duration: float  # ps
    natoms: int


@dataclass(frozen=True)
class SwitchingRun:
    """The works of one run (one folder).  A pair is the forward and backward switch of a cycle."""

    folder: Path
    temperature: float  # K
    natoms: int
    beads: int
    timestep: float  # fs
    cycles: int  # as the input asks for
    switches: tuple[SwitchingWork, ...]  # complete ones, in order of time
    last_step: int
    total_steps: int
    first_law: FirstLaw | None  # None: the input prints no conserved quantity
    holds: tuple[Hold, ...]  # complete ones

    @property
    def complete(self) -> bool:
        return self.last_step >= self.total_steps

    @property
    def pairs(self) -> int:
        """Cycles of which both switches are complete."""
        return min(len(self.of("forward")), len(self.of("backward")))

    def of(self, direction: str) -> tuple[SwitchingWork, ...]:
        return tuple(s for s in self.switches if s.direction == direction)

    @property
    def forward(self) -> np.ndarray:
        """W of the forward switches of complete pairs, (pairs,) eV."""
        return np.array([s.work for s in self.of("forward")[: self.pairs]])

    @property
    def backward(self) -> np.ndarray:
        """W of the backward switches of complete pairs, (pairs,) eV."""
        return np.array([s.work for s in self.of("backward")[: self.pairs]])


def cumulative_work(lam: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Σ_k ½ (g_k + g_{k+1}) (λ_{k+1} − λ_k) up to each row, (n,) eV; eq. 9.

    lam (n,) dimensionless and gradient (n,) eV of the same time points.  Exact for a discrete
    trajectory to second order in the time step; ends at exactly the work of the whole switch.
    """
    steps = 0.5 * (gradient[1:] + gradient[:-1]) * np.diff(lam)
    return np.concatenate([[0.0], np.cumsum(steps)])


def first_law(
    conserved: np.ndarray, work: np.ndarray, time: np.ndarray, natoms: int
) -> FirstLaw | None:
    """Compare conserved (n,) eV with work (n,) eV accumulated at the same times (n,) ps.

    The rescaling of momenta with the masses leaves p²/2m unchanged, so no kinetic work enters.
    None for fewer than three rows.
    """
    if len(time) < 3:
        return None
    rest = (conserved - work) / natoms
    t = time - time.mean()
    slope = float(np.dot(t, rest - rest.mean()) / np.dot(t, t))
    return FirstLaw(slope, float(np.abs(rest - rest[0]).max()), float(time[-1] - time[0]), natoms)


def _check_first_law(
    run: RunInput, gradients: GradientSeries, conserved: PropertySeries
) -> FirstLaw | None:
    work = cumulative_work(gradients.lam, gradients.mean)
    common, rows, at = np.intersect1d(
        gradients.steps, conserved.steps, assume_unique=True, return_indices=True
    )
    values = conserved.energy("conserved")[at]
    return first_law(values, work[rows], common * run.timestep * 1e-3, len(run.structure))


def _volume(properties: PropertySeries | None, segment: Segment) -> np.ndarray | None:
    """Volumes printed during *segment*, Å³; None if constant or not printed."""
    if properties is None or properties.units.get("volume") != "angstrom3":
        return None
    inside = (properties.steps >= segment.start) & (properties.steps <= segment.stop)
    volume = properties.columns["volume"][inside]
    return volume if len(volume) and np.ptp(volume) > 0.0 else None


def switching_work(run: RunInput) -> SwitchingRun:
    """Read a switching run's outputs and integrate every complete switch.

    Raises AnalysisError if the input has no schedule or temperature, or the files do not fit.
    """
    if run.schedule is None:
        raise AnalysisError(f"{run.path} has no schedule: it is a fixed-λ run, not a switch")
    if run.temperature is None:
        raise AnalysisError(f"{run.path}: <ensemble> names no <temperature>")
    if run.timestep is None:
        raise AnalysisError(f"{run.path}: <dynamics> names no <timestep>")
    gradients = read_gradients(run)
    mean, last = gradients.mean, int(gradients.steps[-1])
    properties = read_conserved(run)
    switches: list[SwitchingWork] = []
    holds: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {"hold0": [], "hold1": []}
    for segment in run.schedule.segments():
        if segment.stop > last:
            break
        rows = slice(segment.start, segment.stop + 1)  # stride is 1: row k is step k
        if segment.kind in holds:
            holds[segment.kind].append((mean[rows], _volume(properties, segment)))
            continue
        lam, g = gradients.lam[rows], mean[rows]
        switches.append(
            SwitchingWork(
                segment.kind, segment.cycle, gradients.steps[rows], lam, g, cumulative_work(lam, g)
            )
        )
    return SwitchingRun(
        folder=run.folder,
        temperature=run.temperature,
        natoms=len(run.structure),
        beads=run.beads,
        timestep=run.timestep,
        cycles=run.schedule.cycles,
        switches=tuple(switches),
        last_step=last,
        total_steps=run.schedule.total_steps,
        first_law=None if properties is None else _check_first_law(run, gradients, properties),
        holds=tuple(
            hold
            for kind, found in holds.items()
            for hold in examine(
                kind,
                [g for g, _ in found],
                run.timestep * 1e-3,
                [v for _, v in found],
                run.relaxation_fs * 1e-3,
            )
        ),
    )


def common_temperature(runs: Sequence[SwitchingRun]) -> float:
    """The one temperature of *runs* in K; AnalysisError if they differ."""
    temperatures = {r.temperature for r in runs}
    if len(temperatures) != 1:
        listed = ", ".join(f"{r.folder.name}: {r.temperature:g} K" for r in runs)
        raise AnalysisError(f"works at different temperatures cannot be mixed ({listed})")
    return temperatures.pop()
