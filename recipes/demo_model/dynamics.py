"""NPT dynamics of many small crystals at once.

A small model spends most of a call on overhead, so eight crystals in one graph cost little more
than two.  Langevin thermostat (BAOAB splitting) and Berendsen barostat that scales the three edges
of orthogonal cells separately: right averages, damped volume fluctuations.
Å, fs, eV, K, u inside.
"""

import numpy as np
import torch
from ase import Atoms, units
from matscipy.neighbours import neighbour_list

FS = units.fs


class Batch:
    """Energies (eV), forces (eV/Å) and stresses (eV/Å³) of a list of crystals, in one call."""

    def __init__(self, model: torch.nn.Module, crystals: list[Atoms]):
        self.model = model
        self.cutoff = float(model.r_max)
        self.dtype = model.r_max.dtype
        sizes = [len(atoms) for atoms in crystals]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        known = model.atomic_numbers.tolist()
        species = [known.index(z) for atoms in crystals for z in atoms.numbers]
        self.fixed = {
            "node_attrs": torch.eye(len(known), dtype=self.dtype)[species],
            "batch": torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)),
            "ptr": torch.from_numpy(self.starts),
            "head": torch.zeros(len(sizes), dtype=torch.int64),
        }

    def __call__(self, crystals: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
        """Forces of all atoms, and stresses (crystal, 3, 3)."""
        edges, shifts = [], []
        for atoms, start in zip(crystals, self.starts[:-1], strict=True):
            i, j, shift = neighbour_list("ijS", atoms, self.cutoff)
            edges.append(np.stack([i, j]) + start)
            shifts.append((shift, shift @ atoms.cell[:]))
        data = self.fixed | {
            "positions": self._tensor([a.positions for a in crystals]),
            "cell": self._tensor([a.cell[:] for a in crystals]),
            "edge_index": torch.from_numpy(np.concatenate(edges, axis=1)),
            "unit_shifts": self._tensor([s[0] for s in shifts]),
            "shifts": self._tensor([s[1] for s in shifts]),
        }
        out = self.model(data, compute_stress=True)
        return out["forces"].detach().double().numpy(), out["stress"].detach().double().numpy()

    def _tensor(self, parts: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.dtype)


def npt(
    model: torch.nn.Module,
    crystals: list[Atoms],
    temperatures: list[float],
    steps: int,
    step_fs: float,
    record,
    seed: int = 0,
    friction: float = 0.01,
    barostat_fs: float = 1000.0,
    compressibility: float = 0.1,
    pressures: list[float] | None = None,
) -> None:
    """Dynamics at given pressures (GPa, default 0); changes ``crystals`` in place.

    Calls ``record(step, crystals)`` after every step.  friction in 1/fs; compressibility
    in 1/GPa, which only sets how fast the cell follows.
    Raises FloatingPointError when forces are no longer finite.
    """
    random = np.random.default_rng(seed)
    batch = Batch(model, crystals)
    pressures = pressures or [0.0] * len(crystals)
    bounds = list(zip(batch.starts[:-1], batch.starts[1:], strict=True))
    masses = np.concatenate([a.get_masses() for a in crystals])[:, None]
    kT = units.kB * np.repeat(temperatures, [len(a) for a in crystals])[:, None]
    velocities = random.normal(size=(len(masses), 3)) * np.sqrt(kT / masses)
    dt = step_fs * FS
    keep = np.exp(-friction * step_fs)
    forces, stresses = batch(crystals)
    for number in range(1, steps + 1):
        velocities += 0.5 * dt * forces / masses
        drift = 0.5 * dt * velocities
        noise = random.normal(size=velocities.shape) * np.sqrt((1 - keep**2) * kT / masses)
        velocities = keep * velocities + noise
        drift += 0.5 * dt * velocities
        for atoms, stress, target, (start, end) in zip(
            crystals, stresses, pressures, bounds, strict=True
        ):
            moved = velocities[start:end]
            moved -= (masses[start:end] * moved).sum(axis=0) / masses[start:end].sum()
            atoms.positions += drift[start:end]
            kinetic = (masses[start:end] * moved**2).sum(axis=0) / atoms.get_volume()
            pressure = (kinetic - np.diag(stress)) / units.GPa  # along each edge
            growth = 1 + step_fs / barostat_fs * compressibility * (pressure - target) / 3
            atoms.set_cell(atoms.cell[:] * growth[:, None], scale_atoms=True)
        forces, stresses = batch(crystals)
        if not np.isfinite(forces).all():
            raise FloatingPointError(f"forces are not finite after {number} steps")
        velocities += 0.5 * dt * forces / masses
        record(number, crystals)
