"""The demonstration: cubic CsPbI3 → CsSnI3 and back in the NPT ensemble, on the embedded model."""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np

from .prepare import Settings, prepare
from .records import Structure
from .run import Options, cores
from .session import run_and_analyze

# Cubic perovskite, space group 221; a of CsPbI3 at 634 K, Trots and Myagkota, J. Phys. Chem.
# Solids 69, 2520 (2008).
LATTICE_CONSTANT = 6.2894  # Å
TEMPERATURE = 500.0  # K; the cubic phase holds on the embedded model for both ends
PRESSURE = 1.01325  # bar
TIMESTEP = 4.0  # fs
REPLICAS, CYCLES = 2, 3
EQUILIBRATE, SWITCH = 250, 750  # steps


def alpha_cspbi3(repeat: int = 2) -> Structure:
    """repeat³ cells of cubic CsPbI3, 5 atoms each."""
    cell = ase.Atoms(
        "CsPbI3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[LATTICE_CONSTANT] * 3,
        pbc=True,
    )
    atoms = cell.repeat(repeat)
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


def run_demo(folder: Path, seed: int) -> None:
    """Prepare, run and analyse; a folder that already holds the demo is resumed."""
    if not any(folder.glob("replica-*/input.xml")):
        parameters = {
            "model": "demo",
            "alchemy": "Pb->Sn",
            "equilibrate": str(EQUILIBRATE),
            "switch": str(SWITCH),
            "cycles": str(CYCLES),
        }
        settings = Settings(
            temperature=TEMPERATURE, pressure=PRESSURE, timestep=TIMESTEP, seed=seed
        )
        prepare("switch-npt", alpha_cspbi3(), folder, parameters, settings, REPLICAS)
    print(
        f"α-CsPbI3 → α-CsSnI3, 8 formula units, NPT at {TEMPERATURE:g} K and {PRESSURE:g} bar, "
        f"{REPLICAS} replicas × {CYCLES} forward/backward pairs"
    )
    run_and_analyze([folder], Options(clients=1, jobs=min(REPLICAS, cores()), threads=1))
