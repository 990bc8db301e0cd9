"""Drift of the total energy in NVE, ours against mace's own calculator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from ..potential.calculator import AlchemicalCalculator
from .cases import perovskite
from .timing import Row, open_backend, stock_calculator

__all__ = ["rows"]

PICOSECONDS, TIMESTEP, TEMPERATURE, SEED = 20.0, 4.0, 300.0, 7  # ps, fs, K
STRIDE = 10  # steps between energies


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """The embedded model, CsPbI3 with 40 atoms, 20 ps: stock, ours, and ours half way to Sn."""
    s = perovskite(2).structure
    lead = [i for i, symbol in enumerate(s.symbols) if symbol == "Pb"]
    halves = [dict.fromkeys(lead, "Pb"), dict.fromkeys(lead, "Sn")]
    for dtype in dtypes:
        backend = open_backend("demo", device, dtype)
        atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=True)
        calculators = {
            "stock": stock_calculator(backend),
            "ours": AlchemicalCalculator(atoms, [], [], backend),
            "ours, λ = 0.5": AlchemicalCalculator(atoms, halves, [0.5, 0.5], backend),
        }
        for name, calculator in calculators.items():
            yield {"dtype": dtype, "evaluation": name} | _dynamics(atoms, calculator)


def _dynamics(start: Atoms, calculator: Calculator) -> dict[str, float]:
    """Slope and scatter of the total energy per atom, after a tenth of the run."""
    atoms = start.copy()
    atoms.calc = calculator
    rng = np.random.default_rng(SEED)
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    Stationary(atoms)
    time: list[float] = []
    energy: list[float] = []

    dynamics = VelocityVerlet(atoms, TIMESTEP * units.fs)

    def note() -> None:
        time.append(dynamics.get_time() / (1000.0 * units.fs))
        energy.append(atoms.get_total_energy() / len(atoms))

    dynamics.attach(note, interval=STRIDE)
    dynamics.run(round(1000.0 * PICOSECONDS / TIMESTEP))
    t, e = (np.array(values)[len(time) // 10 :] for values in (time, energy))
    slope, offset = np.polyfit(t, e, 1)
    return {
        "drift, meV per atom and ps": float(f"{1e3 * slope:.2e}"),
        "scatter, meV per atom": float(f"{1e3 * np.std(e - slope * t - offset):.2e}"),
    }
