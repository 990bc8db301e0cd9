"""Harmonic free energies against an analytic crystal in SI units; the embedded model."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from helpers import exact_crystal as exact

from alchemdriver import AlchemicalCalculator
from alchemdriver.errors import AnalysisError, InputError, ModelError
from alchemdriver.paths import formulas as c
from alchemdriver.paths import terms
from alchemdriver.potential import hamiltonian
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Structure, Transformation
from alchemdriver.workflow.lattice_dynamics import (
    force_constants,
    forces_of,
    forces_of_term,
    lattice_dynamics,
)

T = 100.0


@pytest.fixture
def crystal():
    return exact.crystal()


@pytest.fixture
def model(tmp_path, crystal):
    return open_model(str(exact.write_model(tmp_path / "c.json", crystal)))


@pytest.fixture
def forces(model, crystal):
    plain = model.potential(AlchemicalSites.plain(crystal.symbols))
    return forces_of_term(hamiltonian.PlainPotential(plain, 0), crystal.cell, 1.0)


@pytest.mark.parametrize("beads", [1, 4, 32, None])
def test_free_energy_is_exact(forces, crystal, beads):
    found = lattice_dynamics(forces, crystal, exact.masses(crystal))
    expected = exact.free_energy(crystal, T, beads)
    assert found.free_energy(T, beads) == pytest.approx(expected, abs=1e-6)  # eV
    assert found.n_ws == 8
    assert found.energy == pytest.approx(exact.ENERGY_PER_CELL * 8)
    np.testing.assert_allclose(found.hessian, exact.hessian(crystal), atol=1e-9)
    assert found.sum_rule < 1e-10


def test_it_equals_frenkel_ladd_with_any_springs(forces, crystal):
    """F = F_E + exact ΔF at fixed centre of mass + eq. 19."""
    mass = exact.masses(crystal)
    harmonic = lattice_dynamics(forces, crystal, mass)
    volume = float(np.linalg.det(crystal.cell))
    for k in (exact.einstein_constants(crystal), harmonic.einstein_constants()):
        total = (
            c.einstein_crystal(T, k, mass)
            + exact.switching_delta_f(crystal, T, k)
            + c.centre_of_mass(T, volume, mass, k, 8)
        )
        assert total == pytest.approx(harmonic.free_energy(T), abs=1e-6)


def test_einstein_constants_are_those_of_the_mean_square_displacement(forces, crystal):
    """3kT/⟨Δr²⟩ by sampling the exact Gaussian at fixed centre of mass."""
    mass = exact.masses(crystal)
    harmonic = lattice_dynamics(forces, crystal, mass)
    rng = np.random.default_rng(5)
    root = np.repeat(np.sqrt(mass), 3)
    values, vectors = np.linalg.eigh(exact.hessian(crystal) / np.outer(root, root))
    modes = vectors[:, 3:] * rng.normal(size=(20_000, 1, 45)) / np.sqrt(values[3:])
    x = modes.sum(axis=2) / root  # kT = 1
    np.testing.assert_allclose(mass @ x.reshape(-1, 16, 3), 0.0, atol=1e-9)
    sampled = 3.0 / (x**2).mean(axis=0).reshape(16, 3).sum(axis=1)
    np.testing.assert_allclose(harmonic.einstein_constants(), sampled, rtol=0.03)


def test_symmetry_gives_the_same_with_fewer_evaluations(forces, crystal):
    calls = []

    def counting(positions):
        calls.append(1)
        return forces(positions)

    all_atoms = force_constants(forces, crystal)
    reduced = force_constants(counting, crystal, symprec=1e-4)
    np.testing.assert_allclose(reduced, all_atoms, atol=1e-10)
    assert len(calls) == 2 * 12 + 2  # two orbits of 16 atoms, and the check


def test_a_potential_without_the_symmetry_of_the_structure_is_noticed(model, crystal):
    """One springy atom among equal ones: symbols cannot tell."""
    plain = hamiltonian.PlainPotential(model.potential(AlchemicalSites.plain(crystal.symbols)), 0)
    spring = terms.Springs(crystal.positions[-1:], [5.0], crystal.cell, atoms=[15])
    term = terms.Hamiltonian([plain, spring])
    forces = forces_of_term(term, crystal.cell, 1.0)
    with pytest.raises(ModelError, match="lacks the symmetry"):
        force_constants(forces, crystal, symprec=1e-4)


def test_springs_to_fixed_points_break_the_sum_rule(model, crystal):
    k = exact.einstein_constants(crystal)
    path = Transformation(crystal.symbols, crystal.symbols, "einstein->model")
    h = hamiltonian.build(path, model, crystal, springs=(crystal.positions, k))
    with pytest.raises(ModelError, match="acoustic sum rule"):
        lattice_dynamics(forces_of_term(h, crystal.cell, 0.5), crystal, exact.masses(crystal))
    whole = lattice_dynamics(forces_of_term(h, crystal.cell, 1.0), crystal, exact.masses(crystal))
    assert whole.free_energy(T) == pytest.approx(exact.free_energy(crystal, T), abs=1e-6)


def quadratic(crystal, phi):
    def forces(positions):
        x = (positions - crystal.positions).ravel()
        return 0.5 * x @ phi @ x, (-phi @ x).reshape(-1, 3)

    return forces


def test_an_imaginary_mode_is_named(crystal):
    """An optical mode of atom 3 against atom 4 made unstable."""
    phi = exact.hessian(crystal)
    v = np.zeros((16, 3))
    v[3], v[4] = (1, 0, 0), (-0.4, 0, 0)
    v[5, 0] = -0.6
    v = v.ravel()
    phi -= 40.0 * np.outer(v, v)
    with pytest.raises(
        ModelError, match=r"1 of 45 modes are unstable.*\di meV, moving atom 3 \(Ni"
    ):
        lattice_dynamics(quadratic(crystal, phi), crystal, exact.masses(crystal))


def test_a_mode_without_restoring_force_is_refused(crystal):
    values, vectors = np.linalg.eigh(exact.hessian(crystal))
    values[3] = 0.0
    phi = (vectors * values) @ vectors.T
    with pytest.raises(ModelError, match="1 of 45 modes are unstable"):
        lattice_dynamics(quadratic(crystal, phi), crystal, exact.masses(crystal))


def test_what_is_not_relaxed_is_refused(forces, crystal):
    moved = crystal.positions.copy()
    moved[2, 0] += 0.01
    with pytest.raises(ModelError, match=r"not relaxed: atom 2 \(Al\).*relax the positions first"):
        lattice_dynamics(forces, replace(crystal, positions=moved), exact.masses(crystal))


def test_bad_arguments_give_one_line(forces, crystal):
    mass = exact.masses(crystal)
    for call, message in (
        (lambda: lattice_dynamics(forces, crystal, mass[:-1]), "masses: expected 16"),
        (lambda: lattice_dynamics(forces, crystal, -mass), "masses: expected 16"),
        (lambda: lattice_dynamics(forces, crystal, mass, n_ws=0), "n_ws: expected at least 1"),
        (lambda: force_constants(forces, crystal, displacement=0.0), "displacement: expected"),
        (lambda: lattice_dynamics(forces, crystal, mass).free_energy(0.0), "temperature"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(AnalysisError, match="frequencies must be positive"):
        c.oscillators(T, [0.1, -0.1])

    def broken(positions):
        return np.nan, np.zeros_like(positions)

    with pytest.raises(ModelError, match="not finite"):
        lattice_dynamics(broken, crystal, mass)


def test_alchemical_calculator_and_model_of_the_shelf():
    """bcc iron, 16 atoms: a finer displacement and no symmetry give the same F."""
    atoms = bulk("Fe", "bcc", a=2.8277, cubic=True).repeat(2)
    calculator = AlchemicalCalculator(atoms, states=[], weights=[], model="demo-fe")
    structure = Structure(
        tuple(atoms.get_chemical_symbols()), atoms.positions.copy(), np.array(atoms.cell)
    )
    forces, mass = forces_of(calculator, atoms), atoms.get_masses()
    found = lattice_dynamics(forces, structure, mass, symprec=1e-4)
    other = lattice_dynamics(forces, structure, mass, displacement=0.005)
    assert found.n_ws == 16
    assert found.sum_rule < 1e-9
    assert found.free_energy(50.0) == pytest.approx(other.free_energy(50.0), abs=16e-5)


def test_force_constants_of_an_anharmonic_crystal_converge_as_the_fourth_power():
    """Au in EMT, 32 atoms at 300 K: displacements of 0.01 Å, ±h alone, are 0.28 meV off."""
    atoms = bulk("Au", cubic=True, a=4.06).repeat(2)
    structure = Structure(
        tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell)
    )
    found, finer = (
        lattice_dynamics(
            forces_of(EMT(), atoms), structure, atoms.get_masses(), symprec=1e-4, displacement=h
        )
        for h in (0.01, 0.0025)
    )
    off = found.free_energy(300.0) - finer.free_energy(300.0)
    two_points = found.free_energy_error(300.0)
    assert two_points > 1e-4  # eV: what the former stencil was off
    assert abs(off) < 0.02 * two_points
    assert f"below {two_points:.1e} eV" in found.summary(300.0)
