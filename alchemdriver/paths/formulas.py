"""Closed forms that turn switching work into free energies: small functions, one per equation.

Energies in eV, masses in u, spring constants in eV/Å², volumes in Å³, temperatures in K; ħ is in
eV fs and ω in 1/fs, all with i-PI's constants (``alchemdriver.units``).

| symbol     | paper                    | here                             |
|------------|--------------------------|----------------------------------|
| m^(i), m^(f) | eq. 22                 | ``initial``, ``final`` (N,) u    |
| ω_i        | eq. 18, (k_i/m_i)^½      | ``frequency``                    |
| F_E        | eq. 18                   | ``einstein_crystal``             |
| F_spring   | eq. 21, eq. 18 with N=1  | ``einstein_crystal``, one atom   |
| ΔF_CM      | eq. 19                   | ``centre_of_mass``               |
| μ_i        | eq. 19, mass fractions   | ``masses / masses.sum()``        |
| h, ε       | (none)                   | ``cell``, strain about its mean  |
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import units
from ..errors import AnalysisError
from ..units import kT

TOLERANCES = (1e-3, 1e-2, 1e-1)  # Å, at which lattice translations must be the same
MASS_TERM = "mass term"  # eq. 22, or the mass leg that takes its place


@dataclass(frozen=True)
class Correction:
    """One summand of a free energy, as it is added."""

    name: str
    value: float | None  # in *unit*; None: needed but not known, so there is no total
    unit: str
    source: str  # equation and what went in
    se: float | None = None  # stated error in *unit*; None: exact, or not known
    dof: float | None = None  # degrees of freedom of that error; None: normal, or no error


def positive(name: str, values: object) -> np.ndarray:
    values = np.atleast_1d(np.asarray(values, dtype=float))
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise AnalysisError(f"{name} must be positive and finite, got {values.tolist()[:5]}")
    return values


def mass_term(
    temperature: float, initial: np.ndarray, final: np.ndarray, free: np.ndarray | int = 3
) -> float:
    """½ kT Σ_i f_i ln(m_i^(i) / m_i^(f)), eV; eq. 22, where every atom has f = 3.

    free: coordinates f_i (N,) of each atom that move; one that is held has no momentum.

    F_kin = −(3/2) kT Σ ln(2π m kT/h²) of the final minus the initial state: heavier final atoms
    lower it.  With momenta rescaled during the switch this is exactly the kinetic work, which is
    not in the sum over ∂H/∂λ; with fixed masses the leg m^(i) → m^(f) is this term alone.  Either
    way it is added once.  Classical nuclei only.
    """
    initial, final = positive("masses", initial), positive("masses", final)
    return float(1.5 * kT(temperature) * np.sum(np.divide(free, 3) * np.log(initial / final)))


def frequency(constants: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """ω_i = (k_i/m_i)^½ in rad/fs, from eV/Å² and u."""
    found: np.ndarray = np.sqrt(
        positive("spring constants", constants)
        / positive("masses", masses)
        / units.DALTON_ANGSTROM2_PER_FS2_EV
    )
    return found


def oscillators(temperature: float, frequencies: np.ndarray, beads: int | None = 1) -> float:
    """Free energy of independent one-dimensional oscillators (momenta included), eV.

    frequencies: ω (n,) in rad/fs.

    beads=1     kT Σ ln(ħω/kT), classical
    beads=P     kT Σ ln(2 sinh(P asinh(ħω/2PkT))), what P beads sample: consistent with works
                from runs of P beads
    beads=None  kT Σ ln(2 sinh(ħω/2kT)), quantum, the limit of many beads
    """
    x = units.HBAR_EV_FS * positive("frequencies", frequencies) / (2.0 * kT(temperature))
    if beads == 1:
        return float(kT(temperature) * np.sum(np.log(2.0 * x)))
    y = x if beads is None else beads * np.arcsinh(x / beads)
    # ln(2 sinh y) without overflow for stiff or cold oscillators
    return float(kT(temperature) * np.sum(y + np.log(-np.expm1(-2.0 * y))))


def einstein_crystal(
    temperature: float, constants: np.ndarray, masses: np.ndarray, beads: int | None = 1
) -> float:
    """F_E = 3 kT Σ_i ln(ħω_i/kT), eV, eq. 18; quantum and finite *beads* as in ``oscillators``."""
    return 3.0 * oscillators(temperature, frequency(constants, masses), beads)


def centre_of_mass(
    temperature: float, volume: float, masses: np.ndarray, constants: np.ndarray, n_ws: int
) -> float:
    """ΔF_CM = kT [ln(N_WS/V) + (3/2) ln(2π kT Σ μ_i²/k_i)], eV; eq. 19.

    Added on the way einstein→model when the centre of mass is fixed.  *volume* (Å³) is the whole
    box, *n_ws* the number of primitive lattice translations in it; for a crystal with a labelled
    vacancy, those of the perfect crystal.
    """
    masses, constants = positive("masses", masses), positive("spring constants", constants)
    (volume,), (n_ws,) = positive("the volume", volume), positive("N_WS", n_ws)
    mu = masses / masses.sum()
    t = kT(temperature)
    spread = 2.0 * np.pi * t * np.sum(mu**2 / constants)  # Å²
    return float(t * (np.log(n_ws / volume) + 1.5 * np.log(spread)))


def removed_atoms_centre_of_mass(temperature: float, total: float, removed: float) -> float:
    """−3 kT ln(M/(M − m)), eV: what a fixed total centre of mass adds to the right side of eq. 21.

    total: mass M of all atoms, removed: mass m of the tethered ones.  With the rest of the crystal
    free to move against the tethered atoms, the fixed centre of mass is that of both together.
    """
    (total,), (removed,) = positive("the total mass", total), positive("removed mass", removed)
    if removed >= total:
        raise AnalysisError(f"removed mass {removed:g} u is not less than the total {total:g} u")
    return float(-3.0 * kT(temperature) * np.log(total / (total - removed)))


def pressure_volume(pressure: float, volume: float) -> float:
    """P V in eV from bar and Å³; the last term of eq. 20."""
    return float(pressure * volume * units.BAR_EV_PER_ANGSTROM3)


def finite_cell(
    temperature: float, log_det: float, log_det_se: float, cell: np.ndarray, flexible: bool
) -> tuple[float, float]:
    """−½ kT ln det Cov(ε) [− kT ln(h_yy h_zz²), flexible], eV, and its SE; not in the paper.

    log_det: ln det of the covariance of the strain about the mean *cell* (3, 3) Å, rows the
    lattice vectors, a along x and b in the xy plane.  What i-PI's constant pressure with a fixed
    centre of mass has beyond F(h̄) + P V̄, but for what is the same in every state: derived in
    docs/absolute_free_energies.md.
    """
    t = kT(temperature)
    measure = float(np.log(cell[1, 1] * cell[2, 2] ** 2)) if flexible else 0.0
    return -0.5 * t * log_det - t * measure, 0.5 * t * log_det_se


def time_step(temperature: float, timestep: float, change: float) -> float:
    """(kT/8) Δt² (Σω_f² − Σω_i²), eV: what velocity Verlet adds to the work of a switch.

    timestep in fs; change: Σω_f² − Σω_i² in 1/fs², over the modes that move, masses as run.  From
    ⟨x²⟩ = kT/[mω² (1 − ω²Δt²/4)]; with masses that follow λ it is ∫Tr[M(λ)⁻¹ dK/dλ] dλ instead.
    The next order is (kT/64) Δt⁴ Σω⁴.
    """
    return kT(temperature) / 8.0 * timestep**2 * change


def temperature_term(
    temperature: float | np.ndarray, reference: float, coordinates: int
) -> float | np.ndarray:
    """−½ f k T ln(T/T0), eV: the momenta's share of G(T) − (T/T0) G(T0).

    For f coordinates that move, 3N of N classical atoms, the motion of the whole included.  See
    ``paths/scaled.py``.
    """
    return -0.5 * coordinates * kT(1.0) * temperature * np.log(np.divide(temperature, reference))


def lattice_translations(
    cell: np.ndarray,
    positions: np.ndarray,
    symbols: Sequence[str],
    tolerances: Sequence[float] = TOLERANCES,
) -> int:
    """N_WS of eq. 19: primitive lattice translations in the box, by spglib.

    cell (3, 3) and positions (N, 3) in Å, of the ideal crystal.  Raises AnalysisError if spglib
    finds no symmetry, and where the count depends on the tolerance (Å): atoms a little off their
    sites would silently make N_WS 1.
    """
    found = {tol: _translations(cell, positions, symbols, tol) for tol in tolerances}
    if len(set(found.values())) > 1:
        counts = ", ".join(f"{n} at {tol:g} Å" for tol, n in found.items())
        raise AnalysisError(
            f"N_WS of eq. 19 is not certain: lattice translations {counts}: atoms are a little off "
            "a lattice: give a structure on its sites, or N_WS (--n-ws)"
        )
    return found[tolerances[0]]


def _translations(
    cell: np.ndarray, positions: np.ndarray, symbols: Sequence[str], symprec: float
) -> int:
    import spglib

    kinds = {s: k for k, s in enumerate(dict.fromkeys(symbols))}
    fractional = np.linalg.solve(np.asarray(cell).T, np.asarray(positions).T).T
    crystal = (cell, fractional, [kinds[s] for s in symbols])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib's own
        found = spglib.get_symmetry(crystal, symprec=symprec)
    if found is None:
        raise AnalysisError("spglib finds no symmetry in the anchors: give N_WS of eq. 19 (--n-ws)")
    identity = (found["rotations"] == np.eye(3, dtype=int)).all(axis=(1, 2))
    return int(identity.sum())
