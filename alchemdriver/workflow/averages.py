"""From molecular dynamics to what the next stage starts from: mean structure, spring constants.

| symbol   | paper                                     | here                        |
|----------|-------------------------------------------|-----------------------------|
| k_i      | 3 kT/⟨Δr_i²⟩, Methods C                   | ``spring_constants``        |
| ⟨Δr_i²⟩  | mean over symmetry-equivalent atoms       | ``mean_square_displacement``|

A crystal that changed its phase on the way is an error: its averages describe nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..analysis.estimators.fixed_lambda import equilibrium_mean
from ..analysis.files.trajectory import Trajectory, read_trajectory
from ..contract.run_input import RunInput
from ..errors import RunError
from ..records import Structure
from ..units import kT
from .limits import FEWEST_FRAMES
from .symmetry import SpaceGroup

# Of the nearest-neighbour distance: how far a quarter of a run may have its mean site of an atom
# from the crystal's.  A hop into a vacancy is 1; the soft octahedra of a perovskite wander by
# a fifth.
OFF_SITE = 0.25
STRAIN = 0.10  # of the cell, from the start to the mean


@dataclass(frozen=True)
class Averages:
    """What an equilibrium run gives."""

    structure: Structure  # mean cell and mean positions, with the symmetry of the crystal
    mean_square_displacement: np.ndarray  # (N,) Å², over symmetry-equivalent atoms
    equilibration: float  # ps left out at the start
    frames: int  # that went in
    off_site: float  # Å, the largest departure of a quarter's mean site from the crystal's
    strain: float  # largest component, mean cell against the start


def average(run: RunInput, group: SpaceGroup) -> Averages:
    """Averages of a finished run at fixed λ, whose start has the symmetry of *group*.

    Raises RunError if the run is too short to be averaged over, or if atoms left their sites or
    the cell its shape: then it is not the crystal that was asked for.
    """
    trajectory = read_trajectory(run)
    start = run.structure
    sites = start.positions @ np.linalg.inv(start.cell)
    u = trajectory.displacements(sites, run.initial_masses)
    first = _equilibrated(trajectory, u, run)
    u, cells = u[first:], trajectory.cells[first:]
    cell = group.mean_cell(cells.mean(axis=0))
    mean = group.mean_displacements(u.mean(axis=0))
    away = np.linalg.norm((u - u.mean(axis=0)) @ cell, axis=2)  # [frame, atom]
    strain = np.abs(np.linalg.solve(start.cell, cell) - np.eye(3)).max()
    quarters = np.array([q.mean(axis=0) for q in np.array_split(u, 4)])
    # the last row: the crystal itself against what it started from, transformed at once or late
    departures = np.linalg.norm(np.concatenate([quarters - mean, mean[None]]) @ cell, axis=2)
    _check_phase(run, departures, cell, sites + mean, strain, "quarter")
    dt = (run.timestep or 0.0) * 1e-3
    return Averages(
        Structure(start.symbols, (sites + mean) @ cell, cell, start.pbc),
        group.over_equivalent((away**2).mean(axis=0)),
        float(trajectory.steps[first] * dt),
        len(u),
        float(departures[:-1].max()),
        float(strain),
    )


def spring_constants(temperature: float, mean_square_displacement: np.ndarray) -> np.ndarray:
    """k_i = 3 kT/⟨Δr_i²⟩, (N,) eV/Å²; paper, Methods C.  Averaged over equivalents before."""
    return 3.0 * kT(temperature) / np.asarray(mean_square_displacement)


def _equilibrated(trajectory: Trajectory, u: np.ndarray, run: RunInput) -> int:
    """Frames to leave out: until the volume, or at constant volume the mean-square displacement
    from the start, is stationary."""
    volumes = np.linalg.det(trajectory.cells)
    series = volumes if np.ptp(volumes) > 1e-6 * volumes[0] else (u**2).sum(axis=(1, 2))
    # The start is a perfect crystal at rest: at least a tenth is not equilibrium, whatever it looks
    first = max(equilibrium_mean(series)[0], len(trajectory) // 10)
    if len(trajectory) - first < FEWEST_FRAMES:
        raise RunError(
            f"{run.folder}: {len(trajectory) - first} frames after equilibration, at least "
            f"{FEWEST_FRAMES} are needed for averages: raise <total_steps> in {run.path}, which is "
            f"{run.total_steps}, by {_more(trajectory, first)} or more, and run it again"
        )
    return first


def _more(trajectory: Trajectory, first: int) -> int:
    """Steps that are missing after *first* frames."""
    stride = int(trajectory.steps[1] - trajectory.steps[0]) if len(trajectory) > 1 else 1
    return (FEWEST_FRAMES + first - len(trajectory)) * stride


def check_holds(run: RunInput) -> float:
    """Largest departure (Å) of an atom's mean position in a hold from the site that it starts on.

    Atoms that go to void only ride on their tethers and are left out.  Raises RunError if an atom
    left its site in any hold: works of such a run connect other states than were asked for.
    """
    trajectory = read_trajectory(run)
    start = run.structure
    sites = start.positions @ np.linalg.inv(start.cell)
    u = trajectory.displacements(sites, run.initial_masses)
    u[:, list(run.transformation.voids)] = 0.0
    if run.schedule is None:
        raise RunError(f"{run.path} has no schedule, so it has no holds")
    labels = [run.schedule.label(int(k)) for k in trajectory.steps]
    cycle = trajectory.steps // (run.total_steps // run.schedule.cycles)
    frames: dict[tuple[str, int], list[int]] = {}
    for n, key in enumerate(zip(labels, cycle.tolist(), strict=True)):
        frames.setdefault(key, []).append(n)
    means, strain = [], 0.0
    for (label, _), chosen in frames.items():
        if label.startswith("hold") and len(chosen) > 1:
            cell = trajectory.cells[chosen].mean(axis=0)
            means.append(np.linalg.norm(u[chosen].mean(axis=0) @ cell, axis=1))
            strain = max(strain, np.abs(np.linalg.solve(start.cell, cell) - np.eye(3)).max())
    if not means:
        raise RunError(f"{run.folder}: no hold has two frames of positions: hold longer")
    departures = np.array(means)
    _check_phase(run, departures, start.cell, sites, strain, "hold")
    return float(departures.max())


def nearest_neighbour(cell: np.ndarray, fractional: np.ndarray) -> float:
    """Shortest distance (Å) between two atoms, images included."""
    import ase
    from ase.neighborlist import neighbor_list

    atoms = ase.Atoms(
        positions=fractional @ cell, cell=cell, pbc=True, numbers=[1] * len(fractional)
    )
    reach = 1.2 * (abs(np.linalg.det(cell)) / len(fractional)) ** (1 / 3)
    for _ in range(8):
        distances = neighbor_list("d", atoms, reach)
        if len(distances):
            return float(distances.min())
        reach *= 1.5
    raise RunError("the structure has no two atoms near each other")


def _check_phase(
    run: RunInput,
    departures: np.ndarray,  # [part, atom] Å
    cell: np.ndarray,
    fractional: np.ndarray,
    strain: float,
    part: str,
) -> None:
    limit = OFF_SITE * nearest_neighbour(cell, fractional)
    if departures.max() > limit:
        which, atom = np.unravel_index(np.argmax(departures), departures.shape)
        whole = part == "quarter" and which == 4
        where = "in the mean" if whole else f"in {part} {which + 1}"
        raise RunError(
            f"{run.folder}: the crystal did not keep its structure: {where} of the "
            f"run, atom {atom} ({run.structure.symbols[atom]}) is on average "
            f"{departures.max():.2f} Å from its site (limit {limit:.2f} Å); it transformed, "
            "diffused or melted, and no free energy of it is computed: change temperature, "
            "pressure or structure"
        )
    if strain > STRAIN:
        raise RunError(
            f"{run.folder}: the cell strained by {100 * strain:.0f} % (limit "
            f"{100 * STRAIN:.0f} %): the crystal transformed or the pressure is wrong"
        )
