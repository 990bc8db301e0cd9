"""The demonstration's input: cubic CsPbI3 to CsSnI3 and back at constant pressure."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np

from ..records import Structure
from .render import Settings
from .run_folder import prepare

# Cubic perovskite, space group 221, a at 634 K: Trots and Myagkota, J. Phys. Chem. Solids 69, 2520
# (2008).  The embedded model has about the same at the conditions below.
LATTICE_CONSTANT = 6.2894  # Å
# Here the perovskite holds at both ends on the embedded model, its octahedra tilted.  Without
# pressure its CsSnI3, like CHGNet's, swells and melts above 300 K (recipes/demo_model/results.md).
TEMPERATURE = 500.0  # K
PRESSURE = 10000.0  # bar
TIMESTEP = 8.0  # fs; the stiffest mode of these heavy ions takes 200 fs
REPLICAS, CYCLES = 2, 2
EQUILIBRATE, SWITCH = 400, 1400  # steps


def alpha_cspbi3(repeat: int | tuple[int, int, int] = 2) -> Structure:
    """repeat³ cells of cubic CsPbI3, or so many along each axis; 5 atoms each."""
    cell = ase.Atoms(
        "CsPbI3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[LATTICE_CONSTANT] * 3,
        pbc=True,
    )
    atoms = cell.repeat(repeat)
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def prepare_demo(folder: Path, seed: int, **parameters: str) -> None:
    """Write the demo's replicas into *folder*; *parameters* replace keys of its contract."""
    keys = {
        "model": "demo",
        "alchemy": "Pb->Sn",
        "equilibrate": str(EQUILIBRATE),
        "switch": str(SWITCH),
        "cycles": str(CYCLES),
    }
    settings = Settings(temperature=TEMPERATURE, pressure=PRESSURE, timestep=TIMESTEP, seed=seed)
    prepare("switch-npt", alpha_cspbi3(), folder, keys | parameters, settings, REPLICAS)
