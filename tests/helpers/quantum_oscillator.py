"""Oscillators with quantum nuclei through real i-PI: inputs, and what they must give exactly.

Four atoms H → He on springs k → 3/2 k with masses 1.008 → 4.0026 u at 300 K, P beads; k is such
that βħω = ``x`` in the initial state.  U is switched at the mass of H, then the masses change.

    F_P = 3 kT Σ ln(2 sinh(P asinh(βħω/2P)))       what P beads sample, without time-step error
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alchemdriver import units
from alchemdriver.contract.run_input import read_input
from alchemdriver.paths.formulas import einstein_crystal
from alchemdriver.prepare.mass_leg import leg_folder, write_points
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure

ATOMS, TEMPERATURE, CELL = 4, 300.0, 12.0  # –, K, Å
KT = units.KB_EV * TEMPERATURE  # eV
MASSES = (1.008, 4.002602)  # u, H and He
STIFFER = 1.5  # k_f / k_i
OMEGA_DT = 0.08  # of the final spring on the initial mass: the time step's own error is < 0.2 %


@dataclass(frozen=True)
class Oscillators:
    """One state point; lengths in steps."""

    x: float  # βħω of the initial state
    beads: int
    equilibrate: int
    switch: int
    cycles: int
    points: int  # of the mass leg
    steps: int  # of each point

    @property
    def springs(self) -> tuple[float, float]:
        """k_i and k_f, eV/Å^2."""
        omega = self.x * KT / units.HBAR_EV_FS  # rad/fs
        k = MASSES[0] * units.DALTON_ANGSTROM2_PER_FS2_EV * omega**2
        return k, STIFFER * k

    @property
    def omega(self) -> float:
        """The fastest one, rad/fs."""
        return self.x * KT / units.HBAR_EV_FS * STIFFER**0.5

    def free_energy(self, k: float, m: float, beads: int | None) -> float:
        """Of all atoms, eV; beads None: the quantum limit, 1: classical."""
        return einstein_crystal(TEMPERATURE, np.full(ATOMS, k), np.full(ATOMS, m), beads)

    def legs(self, beads: int | None) -> tuple[float, float]:
        """ΔF of the force constants (at the mass of H) and of the masses (on the final springs)."""
        (k, k_new), (m, m_new) = self.springs, MASSES
        middle = self.free_energy(k_new, m, beads)
        return middle - self.free_energy(k, m, beads), self.free_energy(
            k_new, m_new, beads
        ) - middle

    @property
    def discretisation(self) -> float:
        """abs(F_P − F_∞) as a fraction of the quantum part F_∞ − F_classical, initial state."""
        of = {p: self.free_energy(self.springs[0], MASSES[0], p) for p in (1, None, self.beads)}
        return abs(of[self.beads] - of[None]) / (of[None] - of[1])

    def write(self, folder: Path, seed: int, beads: int | None = None) -> Path:
        """The switching run (and, with several beads, its mass leg) in *folder*."""
        beads = self.beads if beads is None else beads
        structure = model(folder.parent, *self.springs)
        values = {
            "model": str(folder.parent / "springs.json"),
            "alchemy": "H->He",
            "schedule": "poly9",
            "equilibrate": str(self.equilibrate),
            "switch": str(self.switch),
            "cycles": str(self.cycles),
            "masses": "fixed",
        }
        settings = Settings(TEMPERATURE, timestep=OMEGA_DT / self.omega, beads=beads, seed=seed)
        prepare("switch-pimd", structure, folder, values, settings)
        path = folder / "input.xml"
        path.write_text(sampled_well(path.read_text(), self.omega, beads))
        if beads > 1:
            write_points(read_input(path), leg_folder(folder), self.points, self.steps)
        return folder


def model(folder: Path, k_initial: float, k_final: float) -> Structure:
    """Writes springs.json into *folder*; atoms on their anchors."""
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    structure = Structure(("H",) * ATOMS, fractions * CELL, np.eye(3) * CELL)
    content = {
        "backend": "harmonic",
        "spring_constants": {"H": k_initial, "He": k_final},
        "anchors": structure.positions.tolist(),
        "cell": structure.cell.tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "springs.json").write_text(json.dumps(content))
    return structure


def sampled_well(text: str, omega: float, beads: int) -> str:
    """All degrees of freedom free (the anchors are not a crystal that could drift), friction near
    critical damping, all beads in one request."""
    for flushed in ("properties", "trajectory"):
        text = text.replace(f"<{flushed} ", f'<{flushed} flush="100" ')
    echo = re.search(r"\n *<trajectory [^>]*filename=\"lambda\".*?</trajectory>", text)[0]
    for old, new in (
        (echo, ""),  # many files are what limits the speed here
        ("<fixcom>True<", "<fixcom>False<"),
        ('<tau units="femtosecond">200<', f'<tau units="femtosecond">{0.6 / omega:.6g}<'),
        ('<checkpoint stride="200"', '<checkpoint stride="2000"'),
        ("</latency>", f"</latency><batch_size>{beads}</batch_size>"),
    ):
        assert text.count(old) == 1, f"the template has changed: {old}"
        text = text.replace(old, new)
    return text
