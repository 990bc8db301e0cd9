"""Relaxation of cell and positions with ASE, as one stage."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from .. import units
from ..contract.relaxation import read_settings
from ..contract.xyz import read_xyz, standard_orientation, write_xyz
from ..errors import RunError
from ..records import Structure
from .symmetry import SYMPREC


def relax(folder: Path, device: str = "cpu") -> int:
    """Relax ``start.xyz`` of a stage to ``relaxed.xyz``; returns the number of evaluations.

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
    atoms = ase.Atoms(start.symbols, start.positions, cell=start.cell, pbc=start.pbc)
    backend = open_model(settings.model, folder, device, settings.dtype, head=settings.head)
    check_stress(backend, constant_pressure=True)
    atoms.calc = AlchemicalCalculator(atoms, states=[], weights=[], model=backend)
    if settings.keep_symmetry:
        atoms.set_constraint(FixSymmetry(atoms, symprec=SYMPREC, verbose=False))
    pressure = settings.pressure_bar * units.BAR_EV_PER_ANGSTROM3
    filtered = FrechetCellFilter(atoms, scalar_pressure=pressure)
    with (
        warnings.catch_warnings(),
        FIRE(filtered, logfile=str(folder / "relax.log")) as optimizer,
    ):
        # the Frechet filter takes the logarithm of a strain near zero, and scipy comments on it
        warnings.filterwarnings("ignore", message="logm result may be inaccurate")
        converged = optimizer.run(fmax=settings.force_eV_per_A, steps=settings.most_steps)
        steps = optimizer.nsteps
    if not converged:
        raise RunError(
            f"{folder}: not relaxed after {steps} steps (largest gradient "
            f"{np.abs(filtered.get_forces()).max():.2g} eV/Å, limit {settings.force_eV_per_A:g}): "
            "see relax.log; raise most_steps in relax.json, or start from a better structure"
        )
    relaxed = Structure(start.symbols, atoms.get_positions(), atoms.cell.array, start.pbc)
    write_xyz(folder / "relaxed.xyz", standard_orientation(relaxed)[0])
    return int(steps) + 1
