"""Harmonic free energy of a crystal: the independent route to what Frenkel–Ladd measures.

Force constants of the given supercell from the forces at ±h and ±2h, mass-weighted Hessian,
its 3N − 3 modes, and the centre of mass with the convention of eqs. 18–20::

    F = U0 + Σ_{3N−3} f(ω) − kT ln[(V/N_WS) (2π M kT/h²)^{3/2}]      f = kT ln(ħω/kT), classical

| symbol | here                              | meaning                                            |
|--------|-----------------------------------|----------------------------------------------------|
| U0     | ``energy``                        | energy of the given positions, eV                  |
| Φ      | ``hessian`` (3N, 3N)              | ∂²U/∂x∂x, eV/Å²; row 3i + a is atom i, direction a |
| ω      | ``frequencies`` (3N − 3,)         | rad/fs, from M^(−1/2) Φ M^(−1/2)                   |
| V      | ``volume``                        | Å³, of the whole supercell                         |
| M      | ``masses.sum()``                  | u                                                  |
| N_WS   | ``n_ws``                          | primitive lattice translations in the supercell    |

Nothing is relaxed and nothing is folded to other wave vectors: these are the modes that a
simulation of the same supercell has.  Anharmonicity is left out and grows as T², so compare at low
temperature.  Needs neither torch nor i-PI::

    calculator = AlchemicalCalculator(atoms, states=[], weights=[], model="demo-fe")
    crystal = lattice_dynamics(forces_of(calculator, atoms), structure, masses)
    crystal.free_energy(50.0)              # eV, classical
    print(crystal.summary(50.0))           # with what the differences leave uncertain
    crystal.free_energy(50.0, beads=None)  # eV, quantum
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import units
from ..errors import InputError, ModelError
from ..paths import formulas
from ..records import Structure
from ..units import kT

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from ..paths.terms import Term

__all__ = ["LatticeDynamics", "force_constants", "forces_of", "forces_of_term", "lattice_dynamics"]

# (N, 3) Å -> energy eV, forces (N, 3) eV/Å
Forces = Callable[[np.ndarray], tuple[float, np.ndarray]]

DISPLACEMENT = 0.01  # Å: terms up to the fifth order cancel, rounding is 1e-12 eV/Å²
LIMIT_FORCE = 1e-3  # eV/Å, of the given positions
LIMIT_SUM_RULE = 1e-3  # of the largest force constant; models at 1e-9, an external field at 1
LIMIT_SYMMETRY = 5e-3  # of the largest force; anharmonicity left 3e-4 in an iron model
_UNBOUND = 1e-6  # of the largest eigenvalue of ω²: what rounding leaves of a mode without force


@dataclass(frozen=True)
class LatticeDynamics:
    """A harmonic crystal: ``lattice_dynamics`` makes it, with every check done."""

    structure: Structure
    masses: np.ndarray  # (N,) u
    energy: float  # eV, U0
    hessian: np.ndarray  # (3N, 3N) eV/Å², symmetric
    frequencies: np.ndarray  # (3N − 3,) rad/fs, ascending, all positive
    n_ws: int
    residual_force: float  # eV/Å, largest of the given positions
    sum_rule: float  # largest |Σ_j Φ_ij| over the largest force constant
    # of force constants from ±h alone, whose error is of the order h²; those used have h⁴
    coarse_frequencies: np.ndarray  # (3N − 3,) rad/fs

    @property
    def volume(self) -> float:
        """Of the supercell, Å³."""
        return float(abs(np.linalg.det(self.structure.cell)))

    def centre_of_mass(self, temperature: float) -> float:
        """−kT ln[(V/N_WS) (2π M kT/h²)^{3/2}], eV: a free particle of mass M in V/N_WS."""
        t = kT(temperature)
        mass = self.masses.sum() * units.DALTON_ANGSTROM2_PER_FS2_EV  # eV fs²/Å²
        h = 2.0 * np.pi * units.HBAR_EV_FS
        per_area = 2.0 * np.pi * mass * t / h**2  # 1/Å²
        return float(-t * (np.log(self.volume / self.n_ws) + 1.5 * np.log(per_area)))

    def free_energy(self, temperature: float, beads: int | None = 1) -> float:
        """F in eV: classical for beads=1, what P beads sample for beads=P, quantum for None.

        The centre of mass is classical in every case, which for a free particle is exact.
        """
        if not (np.isfinite(temperature) and temperature > 0):
            raise InputError(f"temperature: expected a positive number of K, got {temperature}")
        modes = formulas.oscillators(temperature, self.frequencies, beads)
        return self.energy + modes + self.centre_of_mass(temperature)

    def free_energy_error(self, temperature: float, beads: int | None = 1) -> float:
        """What differences of forces leave uncertain of F, eV: its change from ±h alone to ±h and
        ±2h, which is the error of the former and a bound for the latter."""
        fine, coarse = (
            formulas.oscillators(temperature, f, beads)
            for f in (self.frequencies, self.coarse_frequencies)
        )
        return abs(fine - coarse)

    def summary(self, temperature: float, beads: int | None = 1) -> str:
        """One line: F and its error."""
        error = self.free_energy_error(temperature, beads)
        return (
            f"F = {self.free_energy(temperature, beads):.6f} eV at {temperature:g} K, error of the "
            f"force constants below {error:.1e} eV"
        )

    def einstein_constants(self) -> np.ndarray:
        """3kT/⟨Δr_i²⟩ of this crystal, classical and with fixed centre of mass, (N,) eV/Å².

        The temperature cancels.  Springs for Frenkel–Ladd without an equilibrium run.
        """
        root = np.repeat(np.sqrt(self.masses), 3)
        basis = _relative_motions(self.masses)
        weighted = basis.T @ (self.hessian / np.outer(root, root)) @ basis
        covariance = basis @ np.linalg.solve(weighted, basis.T) / np.outer(root, root)  # of x/kT
        constants: np.ndarray = 3.0 / np.diag(covariance).reshape(-1, 3).sum(axis=1)
        return constants


def lattice_dynamics(
    forces: Forces,
    structure: Structure,
    masses: np.ndarray,
    *,
    n_ws: int | None = None,
    displacement: float = DISPLACEMENT,
    symprec: float | None = None,
) -> LatticeDynamics:
    """The harmonic crystal of *structure* at its positions as they are.

    forces        positions (N, 3) Å → energy eV, forces (N, 3) eV/Å; see ``forces_of``
    masses        (N,) u
    n_ws          N_WS; default: by spglib from *structure*.  For a crystal with a vacancy give that
                  of the perfect crystal
    displacement  of central differences, Å
    symprec       Å; see ``force_constants``

    Raises InputError for arguments that do not fit, ModelError where the harmonic free energy has
    no meaning: residual forces above 1e-3 eV/Å, force constants that break the acoustic sum rule
    (an external field, or single precision), or an unstable mode, which is named.
    """
    masses = np.array(masses, dtype=float)
    if masses.shape != (len(structure),) or not (np.isfinite(masses) & (masses > 0)).all():
        raise InputError(f"masses: expected {len(structure)} positive numbers in u")
    energy, residual = _evaluate(forces, structure.positions)
    largest = float(np.abs(residual).max())
    if largest > LIMIT_FORCE:
        i = int(np.abs(residual).max(axis=1).argmax())
        raise ModelError(
            f"the crystal is not relaxed: atom {i} ({structure.symbols[i]}) feels {largest:.2g} "
            f"eV/Å, expected at most {LIMIT_FORCE:g}: relax the positions first"
        )
    if n_ws is None:
        n_ws = formulas.lattice_translations(structure.cell, structure.positions, structure.symbols)
    if n_ws < 1:
        raise InputError(f"n_ws: expected at least 1, got {n_ws}")
    hessian, coarse = _force_constants(forces, structure, displacement, symprec)
    sums = np.abs(hessian.reshape(-1, len(structure), 3).sum(axis=1)).max()
    sum_rule = float(sums / np.abs(hessian).max())
    if sum_rule > LIMIT_SUM_RULE:
        raise ModelError(
            f"force constants break the acoustic sum rule by {sum_rule:.1e} of the largest, "
            f"expected at most {LIMIT_SUM_RULE:g}: the potential must not change when all atoms "
            "move together (no springs to fixed points), and be in float64"
        )
    return LatticeDynamics(
        structure=structure,
        masses=masses,
        energy=energy,
        hessian=hessian,
        frequencies=_frequencies(hessian, masses, structure),
        n_ws=n_ws,
        residual_force=largest,
        sum_rule=sum_rule,
        coarse_frequencies=_frequencies(coarse, masses, structure),
    )


# --- forces from what the project has ---------------------------------------------------------


def forces_of(calculator: Calculator, atoms: Atoms) -> Forces:
    """Of any ASE calculator (an AlchemicalCalculator at its present weights) for *atoms*."""
    copy = atoms.copy()
    copy.calc = calculator

    def forces(positions: np.ndarray) -> tuple[float, np.ndarray]:
        copy.set_positions(positions, apply_constraint=False)
        return copy.get_potential_energy(), copy.get_forces(apply_constraint=False)

    return forces


def forces_of_term(term: Term, cell: np.ndarray, lam: float) -> Forces:
    """Of a Hamiltonian, or one term of it, at fixed *lam* in *cell* (3, 3) Å."""

    def forces(positions: np.ndarray) -> tuple[float, np.ndarray]:
        found = term.evaluate(positions, cell, lam)
        return found.energy, found.forces

    return forces


# --- force constants --------------------------------------------------------------------------


def force_constants(
    forces: Forces,
    structure: Structure,
    *,
    displacement: float = DISPLACEMENT,
    symprec: float | None = None,
) -> np.ndarray:
    """Φ (3N, 3N) in eV/Å²: column j is −(8 [F(h) − F(−h)] − [F(2h) − F(−2h)])/12h along e_j.

    Symmetrised, (Φ + Φᵀ)/2.  With symprec=None every atom is displaced: 12N evaluations.  With a
    *symprec* (Å), one atom of each set that spglib finds equivalent, and the others follow by
    Φ_(gi)(gj) = R Φ_ij Rᵀ for a symmetry operation g with rotation R; a random displacement of all
    atoms then checks that the potential has the symmetry of the structure (alchemical sites and
    individual springs may not).  Raises ModelError if it has not, or if a force is not finite.
    """
    return _force_constants(forces, structure, displacement, symprec)[0]


def _force_constants(
    forces: Forces, structure: Structure, h: float, symprec: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Φ, and what ±h alone gives."""
    if not (np.isfinite(h) and h > 0):
        raise InputError(f"displacement: expected a positive length in Å, got {h}")
    n = len(structure)
    if symprec is None:
        both = np.concatenate([_rows(forces, structure, i, h) for i in range(n)], axis=1)
    else:
        both = _rows_by_symmetry(forces, structure, h, symprec)
    fine, coarse = 0.5 * (both + both.transpose(0, 2, 1))
    return fine, coarse


def _evaluate(forces: Forces, positions: np.ndarray) -> tuple[float, np.ndarray]:
    energy, found = forces(positions.copy())
    found = np.array(found, dtype=float)
    if not (np.isfinite(energy) and np.isfinite(found).all()):
        raise ModelError("lattice dynamics: energy or forces are not finite: atoms may overlap")
    return float(energy), found


def _rows(forces: Forces, structure: Structure, atom: int, h: float) -> np.ndarray:
    """Φ_(atom a)(j b) as (2, 3, 3N): from ±h and ±2h, and from ±h alone."""
    out = np.empty((2, 3, structure.positions.size))
    for a in range(3):
        slopes = []
        for step in (h, 2.0 * h):
            found = []
            for sign in (1.0, -1.0):
                moved = structure.positions.copy()
                moved[atom, a] += sign * step
                found.append(_evaluate(forces, moved)[1].ravel())
            slopes.append(-(found[0] - found[1]) / (2.0 * step))
        out[:, a] = (4.0 * slopes[0] - slopes[1]) / 3.0, slopes[0]
    return out


def _rows_by_symmetry(forces: Forces, structure: Structure, h: float, symprec: float) -> np.ndarray:
    n = len(structure)
    rotations, images = _operations(structure, symprec)
    rows = np.full((2, n, 3, n, 3), np.nan)
    for i in range(n):
        if np.isfinite(rows[:, i]).all():
            continue
        block = _rows(forces, structure, i, h).reshape(2, 3, n, 3)
        for rotation, image in zip(rotations, images, strict=True):
            rows[:, image[i]][:, :, image] = np.einsum(
                "ab,kbjc,dc->kajd", rotation, block, rotation
            )
        rows[:, i] = block
    both = rows.reshape(2, 3 * n, 3 * n)
    phi = both[0]
    u = np.random.default_rng(0).uniform(-0.2 * h, 0.2 * h, (n, 3))  # no symmetry left
    up, down = (_evaluate(forces, structure.positions + s * u)[1].ravel() for s in (1.0, -1.0))
    expected = -phi @ u.ravel()
    error = float(np.abs(0.5 * (up - down) - expected).max() / np.abs(expected).max())
    if error > LIMIT_SYMMETRY:
        raise ModelError(
            f"the potential lacks the symmetry of the structure: forces of a random displacement "
            f"are off by {error:.1e} of the largest, expected at most {LIMIT_SYMMETRY:g}: use "
            "symprec=None"
        )
    return both


def _operations(structure: Structure, symprec: float) -> tuple[np.ndarray, np.ndarray]:
    """Cartesian rotations (g, 3, 3), x → R x, and where each takes every atom, (g, N)."""
    import spglib

    cell = structure.cell
    kinds = {s: k for k, s in enumerate(dict.fromkeys(structure.symbols))}
    fractional = structure.positions @ np.linalg.inv(cell)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib's own
        found = spglib.get_symmetry(
            (cell, fractional, [kinds[s] for s in structure.symbols]), symprec=symprec
        )
    if found is None:
        raise InputError("spglib finds no symmetry in the structure: use symprec=None")
    columns = cell.T
    rotations, images = [], []
    for w, t in zip(found["rotations"], found["translations"], strict=True):
        away = (fractional @ w.T + t)[:, None, :] - fractional[None, :, :]
        distance = np.linalg.norm((away - np.round(away)) @ cell, axis=2)  # [i, j] Å
        rotations.append(columns @ w @ np.linalg.inv(columns))
        images.append(distance.argmin(axis=1))
    return np.array(rotations), np.array(images)


# --- modes ------------------------------------------------------------------------------------


def _relative_motions(masses: np.ndarray) -> np.ndarray:
    """Orthonormal basis (3N, 3N − 3), mass-weighted, of what leaves the centre of mass in place.

    The three translations are √m.  Projecting them out is exact; dropping the three smallest
    eigenvalues instead could drop a soft mode.
    """
    translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))  # [3N, 3]
    return np.linalg.svd(translations, full_matrices=True)[0][:, 3:]


def _frequencies(hessian: np.ndarray, masses: np.ndarray, structure: Structure) -> np.ndarray:
    """ω (3N − 3,) in rad/fs.  Raises ModelError, naming the mode, if one is not stable."""
    n = len(masses)
    if n < 2:
        raise InputError("lattice dynamics needs at least two atoms in the cell")
    root = np.repeat(np.sqrt(masses), 3)
    basis = _relative_motions(masses)
    values, vectors = np.linalg.eigh(basis.T @ (hessian / np.outer(root, root)) @ basis)
    bad = values <= _UNBOUND * values[-1]
    if bad.any():
        omega = np.sqrt(abs(values[0]) / units.DALTON_ANGSTROM2_PER_FS2_EV)  # rad/fs
        moved = np.linalg.norm((basis @ vectors[:, 0]).reshape(n, 3), axis=1)
        i = int(moved.argmax())
        imaginary = "i" if values[0] < 0 else ""
        raise ModelError(
            f"{bad.sum()} of {3 * n - 3} modes are unstable; the worst is mode 1 with "
            f"{1e3 * units.HBAR_EV_FS * omega:.3g}{imaginary} meV, moving atom {i} "
            f"({structure.symbols[i]}) most: the crystal is not at a minimum and has no harmonic "
            "free energy; relax it without symmetry, or choose another phase"
        )
    return np.sqrt(values / units.DALTON_ANGSTROM2_PER_FS2_EV)
