"""Corrections against analytic oscillators and exact Gaussian integrals."""

import numpy as np
import pytest
from helpers.exact_chain import chain_hessian, lattice_dynamics, ln_fixed_centre

from alchemdriver import units
from alchemdriver.analysis.corrections import formulas as general
from alchemdriver.errors import AnalysisError
from alchemdriver.paths import formulas as c
from alchemdriver.units import kT

# CODATA 2018, SI: an independent way to the same numbers
KB, H, U, EV = 1.380649e-23, 6.62607015e-34, 1.66053906660e-27, 1.602176634e-19


def test_classical_oscillator_in_si_units():
    """Eq. 18 with N = 1: k = 4.2 eV/Å², iron, 100 K; SI from start to end."""
    k, m, t = 4.2, 55.845, 100.0
    omega = np.sqrt(k * EV / 1e-20 / (m * U))
    expected = 3 * KB * t * np.log(H / (2 * np.pi) * omega / (KB * t)) / EV
    assert c.einstein_crystal(t, [k], [m]) == pytest.approx(expected, abs=1e-8)
    assert c.frequency([k], [m])[0] == pytest.approx(omega * 1e-15, rel=1e-6)


def test_quantum_oscillator_limits():
    k, m = [4.2], [55.845]
    zero_point = 1.5 * units.HBAR_EV_FS * c.frequency(k, m)[0]
    assert c.einstein_crystal(1.0, k, m, beads=None) == pytest.approx(zero_point, rel=1e-9)
    # Wigner: the first quantum correction is kT (ħω/kT)²/24 per mode
    hot = 20000.0
    first = 3 * kT(hot) * (units.HBAR_EV_FS * c.frequency(k, m)[0] / kT(hot)) ** 2 / 24
    difference = c.einstein_crystal(hot, k, m, beads=None) - c.einstein_crystal(hot, k, m)
    assert difference == pytest.approx(first, rel=1e-4)
    # heavy and stiff: no overflow
    assert np.isfinite(c.einstein_crystal(0.1, [1e4], [1.0], beads=None))


def test_beads_lead_from_classical_to_quantum():
    k, m, t = [4.2, 1.0], [12.0, 6.9], 50.0
    values = [c.einstein_crystal(t, k, m, beads=p) for p in (1, 2, 8, 64, 4096)]
    quantum = c.einstein_crystal(t, k, m, beads=None)
    assert np.all(np.diff(values) > 0)
    assert values[-1] == pytest.approx(quantum, rel=1e-5)


def test_finite_beads_are_the_determinant_of_the_ring_polymer():
    """Z_P = Π_j 1/(β_P ħ (ω_j² + ω²)^½), ω_j = 2 sin(jπ/P)/(β_P ħ)."""
    k, m, t, p = 3.0, 10.0, 100.0, 6
    omega = c.frequency([k], [m])[0]
    beta_p_hbar = units.HBAR_EV_FS / (kT(t) * p)
    chain = 2.0 * np.sin(np.arange(p) * np.pi / p) / beta_p_hbar
    ln_z = -np.sum(np.log(beta_p_hbar * np.sqrt(chain**2 + omega**2)))
    assert c.einstein_crystal(t, [k], [m], beads=p) == pytest.approx(-3 * kT(t) * ln_z, rel=1e-12)


def test_mass_term_is_the_free_energy_of_the_momenta_final_minus_initial():
    """F_kin = −(3/2) kT Σ ln(2π m kT/h²): heavier final atoms lower the free energy."""
    t = 400.0
    initial, final = np.array([207.2, 207.2, 126.9]), np.array([118.71, 118.71, 126.9])

    def kinetic(masses):
        thermal = 2 * np.pi * masses * U * KB * t / H**2  # 1/m²
        return -1.5 * KB * t * np.sum(np.log(thermal)) / EV

    expected = kinetic(final) - kinetic(initial)
    assert c.mass_term(t, initial, final) == pytest.approx(expected, abs=1e-7)
    assert c.mass_term(t, initial, final) > 0  # Pb → Sn gets lighter
    assert c.mass_term(t, final, initial) == pytest.approx(-expected, abs=1e-7)
    assert c.mass_term(t, initial, initial) == 0.0


def test_mass_term_plus_configurational_part_is_the_oscillators_own_difference():
    """Oscillator k 1→3, m 1→4: eq. 18's difference = ½·3 kT ln(k ratio) + eq. 22's term."""
    t = 300.0
    whole = c.einstein_crystal(t, [3.0], [4.0]) - c.einstein_crystal(t, [1.0], [1.0])
    configurational = 1.5 * kT(t) * np.log(3.0)
    assert whole == pytest.approx(configurational + c.mass_term(t, [1.0], [4.0]), rel=1e-12)


# --- a crystal that can be solved ---------------------------------------------------------------


def test_frenkel_ladd_terms_add_up_to_lattice_dynamics():
    """Eqs. 18 + exact ΔF + 19 = lattice dynamics, with unequal masses and spring constants."""
    rng = np.random.default_rng(1)
    t, volume, n_ws = 120.0, 321.0, 3
    masses, constants = rng.uniform(5, 200, 6), rng.uniform(1, 8, 6)
    phi = chain_hessian(6, rng)
    delta_f = (
        -3
        * kT(t)
        * (ln_fixed_centre(phi, masses, t) - ln_fixed_centre(np.diag(constants), masses, t))
    )
    total = (
        c.einstein_crystal(t, constants, masses)
        + delta_f
        + c.centre_of_mass(t, volume, masses, constants, n_ws)
    )
    assert total == pytest.approx(lattice_dynamics(phi, masses, t, volume, n_ws), abs=1e-9)


def test_removed_atom_with_fixed_total_centre_of_mass():
    """Eq. 21 plus −3 kT ln(M/(M−m)) is what a switch at fixed total centre of mass measures."""
    rng = np.random.default_rng(2)
    t, volume, n_ws, tether = 120.0, 321.0, 3, 4.2
    masses = rng.uniform(20, 200, 6)
    perfect = chain_hessian(6, rng)
    rest = chain_hessian(5, rng)
    final = np.zeros((6, 6))
    final[0, 0] = tether
    final[1:, 1:] = rest
    measured = (
        -3 * kT(t) * (ln_fixed_centre(final, masses, t) - ln_fixed_centre(perfect, masses, t))
    )
    expected = (
        lattice_dynamics(rest, masses[1:], t, volume, n_ws)
        + c.einstein_crystal(t, [tether], masses[:1])
        - lattice_dynamics(perfect, masses, t, volume, n_ws)
        + c.removed_atoms_centre_of_mass(t, masses.sum(), masses[0])
    )
    assert measured == pytest.approx(expected, abs=1e-9)


def test_pressure_volume():
    # i-PI's bar is 3e-5 off CODATA's; works at constant pressure contain i-PI's
    assert c.pressure_volume(1.0, 160.21766208e4) == pytest.approx(1.0, rel=5e-5)


def test_configurations_lower_the_free_energy_by_the_logarithm_of_their_number():
    assert general.configurational(300.0, 250) == pytest.approx(kT(300.0) * np.log(250))


def test_extrapolation_in_one_over_n():
    sizes = [54, 128, 250]
    values = [-4.0 + 1.7 / n for n in sizes]
    limit, se = general.infinite_size(sizes, values, [1e-3, 1e-3, 1e-3])
    assert limit == pytest.approx(-4.0, abs=1e-12)
    rng = np.random.default_rng(1)
    noisy = np.array(values) + rng.normal(0, 1e-3, (500, 3))
    fits = [general.infinite_size(sizes, y, [1e-3] * 3)[0] for y in noisy]
    assert np.std(fits) == pytest.approx(se, rel=0.1)
    with pytest.raises(AnalysisError, match="needs two sizes"):
        general.infinite_size([54, 54], [1.0, 1.0], [0.1, 0.1])


@pytest.mark.parametrize(
    ("counts", "units_"), [({"Cs": 8, "Pb": 8, "I": 24}, 8), ({"Fe": 250}, 250), ({"A": 3}, 3)]
)
def test_formula_units_are_the_common_divisor(counts, units_):
    assert general.formula_units([s for s, n in counts.items() for _ in range(n)]) == units_


def test_lattice_translations_of_supercells():
    bcc = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    shifts = np.array([[i, j, k] for i in range(3) for j in range(3) for k in range(2)])
    fractional = (bcc[None] + shifts[:, None]).reshape(-1, 3) / [3, 3, 2]
    cell = np.diag([9.0, 9.0, 6.0])
    n = len(fractional)
    assert c.lattice_translations(cell, fractional @ cell, ["Fe"] * n) == n == 36
    # CsCl order leaves one translation in two; a vacancy leaves none but the box's
    assert c.lattice_translations(cell, fractional @ cell, ["Cs", "Cl"] * (n // 2)) == 18
    assert c.lattice_translations(cell, (fractional @ cell)[1:], ["Fe"] * (n - 1)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: c.einstein_crystal(300.0, [0.0], [1.0]),
        lambda: c.mass_term(300.0, [1.0], [float("nan")]),
        lambda: c.centre_of_mass(300.0, -1.0, [1.0], [1.0], 1),
        lambda: c.removed_atoms_centre_of_mass(300.0, 1.0, 1.0),
    ],
)
def test_impossible_inputs_raise(call):
    with pytest.raises(AnalysisError):
        call()
