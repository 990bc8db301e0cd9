"""Relaxation of cell and positions with ASE, as one stage."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np

from .. import units
from ..contract.files import sha256
from ..contract.relaxation import read_settings
from ..contract.stored import Format, Index, Positive, Shape
from ..contract.xyz import read_xyz, standard_orientation, write_xyz
from ..errors import RunError
from ..records import Structure
from .symmetry import SYMPREC

__all__ = ["evaluations", "relax"]

log = logging.getLogger(__name__)

STATE = "relaxing.json"  # of a relaxation that is not over, or how it ended


@dataclass(frozen=True)
class _State:
    """All that FIRE's next step depends on."""

    start_sha256: str
    settings: str  # all but how long it may take
    steps: Index
    positions: Annotated[np.ndarray, Shape("n 3")]  # Å
    cell: Annotated[np.ndarray, Shape("3 3")]  # Å
    velocity: Annotated[np.ndarray, Shape("m")]  # of positions and cell, in FIRE's units
    timestep: Positive
    mixing: Positive  # FIRE's a
    downhill: Index  # steps since the last uphill one


_FORMAT = Format("alchemdriver-relaxing/1", _State, remedy="delete it to relax from the start")


def relax(folder: Path, device: str = "cpu") -> None:
    """Relax ``start.xyz`` of a stage to ``relaxed.xyz``, or go on where that was interrupted.

    FIRE on positions and cell together (Frechet filter) at the settings' pressure, the space group
    of the start kept if asked for.  Raises RunError if it does not converge: an unrelaxed
    structure is never passed on.
    """
    import ase
    from ase.constraints import FixSymmetry
    from ase.filters import FrechetCellFilter
    from ase.optimize import FIRE

    from ..potential.calculator import AlchemicalCalculator
    from ..potential.checks import check_stress
    from ..potential.open import open_model

    settings = read_settings(folder / "relax.json")
    start = read_xyz(folder / "start.xyz")
    state = _read(folder)
    atoms = ase.Atoms(start.symbols, start.positions, cell=start.cell, pbc=start.pbc)
    backend = open_model(settings.model, folder, device, settings.dtype, head=settings.head)
    check_stress(backend, constant_pressure=True)
    atoms.calc = AlchemicalCalculator(atoms, states=[], weights=[], model=backend)
    constraint = FixSymmetry(atoms, symprec=SYMPREC, verbose=False)
    pressure = settings.pressure_bar * units.BAR_EV_PER_ANGSTROM3
    filtered = FrechetCellFilter(atoms, scalar_pressure=pressure)  # strains count from the start
    if state is not None:
        log.warning("resuming from step %d", state.steps)
        atoms.set_cell(state.cell)
        atoms.set_positions(state.positions)
    if settings.keep_symmetry:
        atoms.set_constraint(constraint)
    with (
        warnings.catch_warnings(),
        open(folder / "relax.log", "w" if state is None else "a", encoding="utf-8") as text,
        FIRE(filtered, logfile=text) as optimizer,
    ):
        # the Frechet filter takes the logarithm of a strain near zero, and scipy comments on it
        warnings.filterwarnings("ignore", message="logm result may be inaccurate")
        if state is not None:
            optimizer.nsteps, optimizer.vel = state.steps, state.velocity.copy()
            optimizer.dt, optimizer.a = state.timestep, state.mixing
            optimizer.Nsteps = state.downhill
        optimizer.attach(lambda: _write(folder, atoms, optimizer, text))
        left = settings.most_steps - optimizer.nsteps
        converged = optimizer.run(fmax=settings.force_eV_per_A, steps=left)
        steps = optimizer.nsteps
    if not converged:
        raise RunError(
            f"{folder}: not relaxed after {steps} steps (largest gradient "
            f"{np.abs(filtered.get_forces()).max():.2g} eV/Å, limit {settings.force_eV_per_A:g}): "
            "see relax.log; raise most_steps in relax.json, or start from a better structure"
        )
    relaxed = Structure(start.symbols, atoms.get_positions(), atoms.cell.array, start.pbc)
    write_xyz(folder / "relaxed.xyz", standard_orientation(relaxed)[0])


def evaluations(folder: Path) -> int:
    """How often the model was asked by the relaxation in *folder*: at the start and every step."""
    return 1 + (_FORMAT.read(folder / STATE).steps if (folder / STATE).exists() else 0)


def _read(folder: Path) -> _State | None:
    """Where to go on; None for a relaxation that begins, or begins again from what was edited."""
    if not (folder / STATE).exists():
        return None
    state = _FORMAT.read(folder / STATE)
    return state if (state.start_sha256, state.settings) == _origin(folder) else None


def _origin(folder: Path) -> tuple[str, str]:
    settings = replace(read_settings(folder / "relax.json"), most_steps=1)
    return sha256(folder / "start.xyz"), repr(settings)


def _write(folder: Path, atoms: Any, optimizer: Any, text: IO[str]) -> None:
    text.flush()  # whoever watches reads it
    if optimizer.vel is None:
        return  # no step is done
    state = _State(
        *_origin(folder),
        optimizer.nsteps,
        atoms.get_positions(),
        atoms.cell.array,
        optimizer.vel,
        float(optimizer.dt),
        float(optimizer.a),
        optimizer.Nsteps,
    )
    _FORMAT.write(folder / STATE, state)
