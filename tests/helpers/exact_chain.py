"""A harmonic crystal that can be solved: masses coupled by springs in a periodic box.

One direction stands for all three.  Lengths in Å, masses in u, spring constants in eV/Å².
"""

from __future__ import annotations

import numpy as np

from alchemdriver import units
from alchemdriver.units import kT


def chain_hessian(n: int, rng: np.random.Generator) -> np.ndarray:
    """A translation-invariant positive stiffness matrix of n coordinates, eV/Å²."""
    phi = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            k = rng.uniform(0.5, 2.0)
            phi[i, i] += k
            phi[j, j] += k
            phi[i, j] -= k
            phi[j, i] -= k
    return phi


def ln_fixed_centre(phi: np.ndarray, masses: np.ndarray, t: float) -> float:
    """ln ∫ dx δ(Σ μ_i x_i) exp(−½ x φ x/kT) for one direction; x in Å."""
    mu = masses / masses.sum()
    # δ(μ·x): integrate over the plane orthogonal to μ and divide by its norm
    basis = np.linalg.svd(mu[None, :])[2][1:]
    _, logdet = np.linalg.slogdet(basis @ phi @ basis.T / (2 * np.pi * kT(t)))
    return -0.5 * logdet - np.log(np.linalg.norm(mu))


def lattice_dynamics(
    phi: np.ndarray, masses: np.ndarray, t: float, volume: float, n_ws: int
) -> float:
    """design.md: kT Σ_{3N−3} ln(ħω/kT) − kT ln[(V/N_WS)(2πMkT/h²)^{3/2}], eV; the mass centre is
    free to move in its Wigner–Seitz cell."""
    root = np.sqrt(np.outer(masses, masses))
    values = np.sort(np.linalg.eigvalsh(phi / root / units.DALTON_ANGSTROM2_PER_FS2_EV))[1:]
    modes = 3 * kT(t) * np.sum(np.log(units.HBAR_EV_FS * np.sqrt(values) / kT(t)))
    h = 2 * np.pi * units.HBAR_EV_FS
    thermal = 2 * np.pi * masses.sum() * units.DALTON_ANGSTROM2_PER_FS2_EV * kT(t) / h**2  # 1/Å²
    return modes - kT(t) * (np.log(volume / n_ws) + 1.5 * np.log(thermal))


def oscillators(constants: np.ndarray, masses: np.ndarray, t: float, beads: int = 1) -> float:
    """F of independent atoms on springs to fixed points, eV: Z of a ring polymer mode by mode.

    ln Z = −Σ_j ln(β_P ħ (ω_j² + ω²)^½), ω_j = 2 sin(jπ/P)/(β_P ħ), β_P = 1/(P kT), per direction.
    """
    omega = np.sqrt(np.divide(constants, masses) / units.DALTON_ANGSTROM2_PER_FS2_EV)
    beta_p_hbar = units.HBAR_EV_FS / (kT(t) * beads)
    chain = 2.0 * np.sin(np.arange(beads) * np.pi / beads) / beta_p_hbar
    ln_z = -np.sum(np.log(beta_p_hbar * np.hypot.outer(omega, chain)))
    return float(-3.0 * kT(t) * ln_z)
