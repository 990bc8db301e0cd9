"""A binary harmonic crystal with every free energy in closed form, in SI units with CODATA's
constants: nothing here uses alchemdriver's units, neighbour lists or formulas.

CsCl structure, springs between first and second neighbours of each kind.  Elements stand for their
masses alone; the springs are the same for every pair of elements.
"""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.data import atomic_masses, atomic_numbers

from alchemdriver.records import Structure

KB, H, EV, U = 1.380649e-23, 6.62607015e-34, 1.602176634e-19, 1.66053906660e-27  # SI, 2018
HBAR = H / (2 * np.pi)
PER_ANGSTROM2 = EV / 1e-20  # J/m² in eV/Å²

LATTICE_CONSTANT = 2.9  # Å
ENERGY_PER_CELL = -9.0  # eV, U0 of one formula unit
FIRST, SECOND = LATTICE_CONSTANT * np.sqrt(0.75), LATTICE_CONSTANT  # Å
# (sublattices, distance, parallel, isotropic)
SPRINGS = (
    ((0, 1), FIRST, 2.5, 0.4),
    ((0, 0), SECOND, 0.8, 0.15),
    ((1, 1), SECOND, 1.4, 0.25),
)
# Reference springs (eV/Å²) by sublattice, at least 30 % off those of the crystal, 3kT/⟨Δr²⟩
EINSTEIN = (7.0, 20.0)


def crystal(elements=("Al", "Ni"), repeat: int = 2) -> Structure:
    """repeat³ cells of two atoms."""
    a = LATTICE_CONSTANT
    cell = ase.Atoms("HHe", positions=[[0, 0, 0], [a / 2] * 3], cell=[a] * 3, pbc=True)
    atoms = cell.repeat(repeat)
    symbols = tuple(elements[z - 1] for z in atoms.numbers)
    return Structure(symbols, atoms.positions.copy(), np.array(atoms.cell))


def sublattices(n: int) -> np.ndarray:
    """0 or 1 of each of n atoms, in the order of ``crystal``."""
    return np.arange(n) % 2


def masses(structure: Structure) -> np.ndarray:
    """u."""
    return atomic_masses[[atomic_numbers[s] for s in structure.symbols]]


def einstein_constants(structure: Structure) -> np.ndarray:
    return np.array(EINSTEIN)[sublattices(len(structure))]


def write_model(path: Path, structure: Structure) -> Path:
    """The JSON of the analytic backend."""
    elements = structure.symbols[:2]
    content = {
        "backend": "harmonic-crystal",
        "energy": ENERGY_PER_CELL * len(structure) / 2,
        "positions": structure.positions.tolist(),
        "cell": structure.cell.tolist(),
        "springs": [
            {
                "elements": [elements[a], elements[b]],
                "distance": distance,
                "parallel": parallel,
                "isotropic": isotropic,
            }
            for (a, b), distance, parallel, isotropic in SPRINGS
        ],
    }
    path.write_text(json.dumps(content))
    return path


def write_springs(path: Path, structure: Structure, constants: np.ndarray) -> Path:
    """The Einstein reference, anchored at the ideal sites."""
    atoms = ase.Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
    atoms.set_array("spring_constant", constants)
    ase.io.write(path, atoms, format="extxyz")
    return path


# --- exact values -------------------------------------------------------------------------------


def couplings(positions: np.ndarray, cell: np.ndarray):
    """(i, j, d, K): every directed pair and image with its spring matrix, eV/Å²."""
    kinds = sublattices(len(positions))
    constants = {(pair, round(d, 6)): (par, iso) for pair, d, par, iso in SPRINGS}
    shifts = [np.array(s) @ cell for s in itertools.product((-1, 0, 1), repeat=3)]
    for i, j in itertools.product(range(len(positions)), repeat=2):
        pair = tuple(sorted((int(kinds[i]), int(kinds[j]))))
        for shift in shifts:
            d = positions[j] + shift - positions[i]
            length = float(np.linalg.norm(d))
            if (pair, round(length, 6)) in constants:
                parallel, isotropic = constants[pair, round(length, 6)]
                n = d / length
                yield i, j, d, parallel * np.outer(n, n) + isotropic * np.eye(3)


def hessian(structure: Structure) -> np.ndarray:
    """(3N, 3N) eV/Å², by hand."""
    n = len(structure)
    phi = np.zeros((n, 3, n, 3))
    for i, j, _, k in couplings(structure.positions, structure.cell):
        phi[i, :, i, :] += k
        phi[i, :, j, :] -= k
    return phi.reshape(3 * n, 3 * n)


def angular_frequencies(phi: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """rad/s of the 3N − 3 modes, from eV/Å² and u."""
    root = np.repeat(np.sqrt(mass * U), 3)
    values = np.linalg.eigvalsh(phi * PER_ANGSTROM2 / np.outer(root, root))
    assert abs(values[2]) < 1e-9 * values[-1] < values[3]
    return np.sqrt(values[3:])


def modes_free_energy(omega: np.ndarray, temperature: float, beads: int | None) -> float:
    """Joule; classical for 1 bead, the exact product over ring-polymer modes for P, else quantum.

    P beads: Z = Π_j [β_P ħ (4 sin²(jπ/P)/(β_P ħ)² + ω²)^½]^−1, term by term.
    """
    kt = KB * temperature
    if beads is None:
        return float(np.sum(HBAR * omega / 2 + kt * np.log1p(-np.exp(-HBAR * omega / kt))))
    step = HBAR / (beads * kt)
    total = 0.0
    for j in range(beads):
        chain = (2 * np.sin(j * np.pi / beads)) ** 2
        total += 0.5 * kt * np.sum(np.log(chain + (step * omega) ** 2))
    return float(total)


def centre_of_mass(structure: Structure, temperature: float, translations: int) -> float:
    """−kT ln[(V/N_WS) (2π M kT/h²)^{3/2}], Joule."""
    kt = KB * temperature
    volume = abs(np.linalg.det(structure.cell)) * 1e-30
    mass = masses(structure).sum() * U
    return float(-kt * (np.log(volume / translations) + 1.5 * np.log(2 * np.pi * mass * kt / H**2)))


def free_energy(structure: Structure, temperature: float, beads: int | None = 1) -> float:
    """F in eV, design: U0 + 3N − 3 modes + the centre of mass in one primitive cell."""
    n = len(structure)
    omega = angular_frequencies(hessian(structure), masses(structure))
    joule = modes_free_energy(omega, temperature, beads)
    joule += centre_of_mass(structure, temperature, n // 2)
    return ENERGY_PER_CELL * n / 2 + joule / EV


def switching_delta_f(structure: Structure, temperature: float, constants: np.ndarray) -> float:
    """Classical F(crystal) − F(Einstein), both with the centre of mass held at the anchors', eV.

    ½ kT ln(det Bᵀ Φ B / det Bᵀ K B) + U0, B a basis of the displacements with Σ m_i x_i = 0.
    """
    mass = masses(structure)
    held = np.kron(mass[None, :], np.eye(3))
    basis = np.linalg.svd(held)[2][3:].T
    logs = [
        np.linalg.slogdet(basis.T @ k @ basis)[1]
        for k in (hessian(structure), np.diag(np.repeat(constants, 3)))
    ]
    u0 = ENERGY_PER_CELL * len(structure) / 2
    return u0 + float(0.5 * KB * temperature / EV * (logs[0] - logs[1]))


@cache
def infinite_crystal(elements, temperature: float, mesh: int = 16) -> float:
    """Classical F per atom in eV of the infinite crystal: mean over a shifted mesh of q."""
    one = crystal(elements, 1)
    mass = masses(one) * U
    axis = (np.arange(mesh) + 0.5) / mesh * 2 * np.pi / LATTICE_CONSTANT
    q = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    d_q = np.zeros((len(q), 2, 3, 2, 3), dtype=complex)
    for i, j, d, k in couplings(one.positions, one.cell):
        k = k * PER_ANGSTROM2
        d_q[:, i, :, i, :] += k / mass[i]
        phase = np.exp(1j * q @ d)
        d_q[:, i, :, j, :] -= phase[:, None, None] * k / np.sqrt(mass[i] * mass[j])
    omega2 = np.linalg.eigvalsh(d_q.reshape(-1, 6, 6))
    kt = KB * temperature
    modes = kt * np.sum(np.log(HBAR * np.sqrt(omega2) / kt)) / len(q)
    return ENERGY_PER_CELL / 2 + modes / 2 / EV
