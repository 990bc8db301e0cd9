"""The ASE calculator: derivatives, caching, and ASE's own drivers on top of it."""

import pickle

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import Trajectory, read, write
from ase.md import nose_hoover_chain
from ase.optimize import FIRE
from ase.outputs import Properties
from ase.stress import voigt_6_to_full_3x3_stress

from alchemdriver import AlchemicalCalculator
from alchemdriver.errors import AlchemdriverError, InputError, ModelError
from alchemdriver.potential.backends.harmonic import HarmonicBackend

CELL = np.array([[4.0, 0.0, 0.0], [1.7, 3.9, 0.0], [-1.2, 0.9, 4.3]])
ANCHORS = np.array([[0.1, 0.2, 0.3], [2.0, 2.0, 2.0], [3.0, 1.0, 0.5]])
BACKEND = HarmonicBackend({"Pb": 2.0, "Sn": 3.0, "Cs": 0.5}, ANCHORS, CELL)
STATES = [{0: "Pb", 1: "Pb"}, {0: "Sn", 1: "Sn"}]


@pytest.fixture
def atoms():
    rng = np.random.default_rng(5)
    atoms = Atoms("Pb2Cs", ANCHORS + rng.normal(0, 0.2, (3, 3)), cell=CELL, pbc=True)
    atoms.calc = AlchemicalCalculator(atoms, STATES, [0.7, 0.4], model=BACKEND)
    return atoms


def test_forces_stress_and_weight_gradient_are_derivatives(atoms):
    forces, stress = atoms.get_forces(), atoms.get_stress()
    gradient = atoms.calc.get_property("weight_gradient", atoms)
    step = 1e-4

    def energy(change):
        copy = atoms.copy()
        copy.calc = AlchemicalCalculator(atoms, STATES, [0.7, 0.4], model=BACKEND)
        change(copy)
        return copy.get_potential_energy()

    for index in np.ndindex(3, 3):
        shift = np.zeros((3, 3))
        shift[index] = step
        up, down = (
            energy(lambda a, s=s: a.set_positions(a.positions + s)) for s in (shift, -shift)
        )
        assert forces[index] == pytest.approx(-(up - down) / (2 * step), abs=1e-8)
        up, down = (
            energy(lambda a, s=s: a.set_cell(a.cell.array @ (np.eye(3) + s), scale_atoms=True))
            for s in (shift, -shift)
        )
        numerical = (up - down) / (2 * step) / atoms.get_volume()
        full = voigt_6_to_full_3x3_stress(stress)
        assert full[index] == pytest.approx(numerical, abs=1e-9)
    for a in range(2):
        weights = np.array([[0.7, 0.4], [0.7, 0.4]])
        weights[:, a] += [step, -step]
        up, down = (energy(lambda c, w=w: c.calc.set_weights(w)) for w in weights)
        assert gradient[a] == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_new_weights_invalidate_cached_results(atoms):
    before = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc.set_weights([0.1, 0.9])
    assert atoms.get_potential_energy() != before[0]
    assert not np.allclose(atoms.get_forces(), before[1])
    atoms.calc.set_weights([0.7, 0.4])
    assert atoms.get_potential_energy() == before[0]
    atoms.calc.weights[:] = 5.0  # a copy: no way to change weights behind the cache
    atoms.calc.reset()
    assert atoms.get_potential_energy() == before[0]


def test_results_do_not_alias_the_atoms(atoms):
    positions = atoms.positions.copy()
    atoms.get_forces()
    np.testing.assert_array_equal(atoms.positions, positions)


def test_fire_with_a_cell_filter_and_a_trajectory(atoms, tmp_path):
    """Relaxes to the anchors of the (now different) cell; the trajectory file is readable."""
    path = str(tmp_path / "relax.traj")
    with FIRE(FrechetCellFilter(atoms), logfile=None, trajectory=path) as run:
        assert run.run(fmax=1e-4, steps=500)
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=1e-6)
    relaxed = ANCHORS @ np.linalg.inv(CELL) @ atoms.cell.array
    np.testing.assert_allclose(atoms.positions, relaxed, atol=1e-3)
    last = Trajectory(path)[-1]
    assert last.get_potential_energy() == pytest.approx(atoms.get_potential_energy())


@pytest.mark.skipif(not hasattr(nose_hoover_chain, "MTKNPT"), reason="ASE before 3.25")
def test_npt_conserves_its_invariant(atoms):
    """MTK NPT reads energy, forces and stress; a wrong stress makes its invariant drift."""
    atoms.set_positions(ANCHORS)
    momenta = np.random.default_rng(1).normal(0, 0.5, (3, 3))
    atoms.set_momenta(momenta - momenta.mean(axis=0))
    dynamics = nose_hoover_chain.MTKNPT(
        atoms,
        timestep=1.0 * units.fs,
        temperature_K=20,
        pressure_au=0.0,
        tdamp=50 * units.fs,
        pdamp=500 * units.fs,
    )
    invariant = []
    dynamics.attach(lambda: invariant.append(dynamics.get_conserved_energy()))
    dynamics.run(100)
    assert atoms.get_volume() != pytest.approx(np.linalg.det(CELL), rel=1e-9)
    assert np.ptp(invariant) < 5e-7


def test_one_weight_1_is_the_plain_crystal(atoms):
    atoms.calc.set_weights([0.0, 1.0])
    d = atoms.positions - ANCHORS
    expected = 0.5 * np.sum(np.array([3.0, 3.0, 0.5])[:, None] * d**2)
    assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0], "ab", None, [[0.5, 0.5]]]
)
def test_bad_weights_are_refused(atoms, weights):
    with pytest.raises(InputError, match="weights") as caught:
        atoms.calc.set_weights(weights)
    assert "\n" not in str(caught.value)
    assert atoms.calc.weights.tolist() == [0.7, 0.4]


def test_other_atoms_are_refused(atoms):
    fewer = atoms[:2]
    fewer.calc = atoms.calc
    with pytest.raises(InputError, match="2 atoms"):
        fewer.get_potential_energy()
    atoms.get_potential_energy()
    atoms.symbols[2] = "Pb"
    with pytest.raises(InputError, match="make a new calculator"):
        atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ({"states": [{7: "Pb"}, {7: "Sn"}]}, InputError),
        ({"states": [{0: "Pb"}, {0: "Zz"}]}, InputError),
        ({"states": [{0: "Pb"}, {0: "Ge"}]}, ModelError),
        ({"groups": [0]}, InputError),
        ({"model": "dem0"}, ModelError),
    ],
)
def test_bad_arguments_give_one_line(atoms, keywords, kind):
    arguments = {"states": STATES, "weights": [0.5, 0.5], "model": BACKEND, **keywords}
    with pytest.raises(kind) as caught:
        AlchemicalCalculator(atoms, **arguments)
    assert isinstance(caught.value, AlchemdriverError)
    assert "\n" not in str(caught.value)


def test_free_energy_is_the_energy_whose_derivatives_the_forces_are(atoms):
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(
        calculate_numerical_stress(atoms, eps=1e-4), atoms.get_stress(), atol=1e-8
    )


def test_results_go_where_ase_keeps_results(atoms, tmp_path):
    energy = atoms.get_potential_energy()
    kept = SinglePointCalculator(atoms, **atoms.calc.results)
    assert kept.get_property("free_energy") == kept.get_potential_energy() == energy
    np.testing.assert_array_equal(kept.get_stress(), atoms.get_stress())
    assert {*Properties(atoms.calc.results)} >= {"energy", "free_energy", "forces", "stress"}
    gradient = atoms.calc.get_property("weight_gradient", atoms)
    np.testing.assert_array_equal(atoms.calc.results["weight_gradient"], gradient)
    for name in ("x.extxyz", "x.traj", "x.json"):
        write(tmp_path / name, atoms)
        assert read(tmp_path / name).get_potential_energy() == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("evaluator", ["auto", "fast", "cueq", "stock"])
def test_pickled_and_back_it_is_the_same(evaluator):
    if evaluator == "cueq":
        pytest.importorskip("cuequivariance_torch")
    # float32: the layers of cuEquivariance are not those of this model to 1e-9
    atoms = bulk("Fe", cubic=True)
    atoms.rattle(0.1, seed=3)
    atoms.calc = AlchemicalCalculator(
        atoms, [{0: "Fe"}, {}], [0.7, 0.3], model="demo-fe", dtype="float32", evaluator=evaluator
    )
    before = atoms.get_forces()
    again = atoms.copy()
    again.calc = pickle.loads(pickle.dumps(atoms.calc))
    again.calc.reset()
    np.testing.assert_array_equal(again.get_forces(), before)
    again.calc.set_weights([0.2, 0.8])
    assert again.get_potential_energy() != atoms.get_potential_energy()


def test_of_analytic_springs_too(atoms):
    again = atoms.copy()
    again.calc = pickle.loads(pickle.dumps(atoms.calc))
    again.calc.reset()
    np.testing.assert_array_equal(again.get_forces(), atoms.get_forces())


def test_fire_relaxes_atoms_and_cell_with_mace():
    """A half-mixed MACE crystal: the energy falls, and the atoms keep their elements."""
    from helpers import mace_zoo as zoo

    from alchemdriver.potential.backends.mace import MaceBackend

    structure = zoo.salt()
    atoms = Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
    backend = MaceBackend(zoo.make_model("Residual", "Residual"), "zoo")
    atoms.calc = AlchemicalCalculator(
        atoms, [{0: "Na", 1: "Na"}, {0: "K", 1: "Rb"}], [0.5, 0.5], model=backend
    )
    before = atoms.get_potential_energy()
    volume = atoms.get_volume()
    FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-6, steps=5)
    assert atoms.get_potential_energy() < before - 1e-4
    assert atoms.get_volume() != volume
    assert tuple(atoms.symbols) == structure.symbols


def test_shares_of_a_site_are_weights_or_refused(atoms):
    """What ASE reads from a CIF of mixed sites: whole atoms, and their shares aside."""
    atoms.info["occupancy"] = {"0": {"Pb": 0.7, "Sn": 0.3}, "1": {"Sn": 0.3, "Pb": 0.7}}
    atoms.info["occupancy"]["2"] = {"Cs": 1.0}
    atoms.set_array("spacegroup_kinds", np.array([0, 0, 2]))
    AlchemicalCalculator(atoms, STATES, [0.7, 0.3], model=BACKEND)
    with pytest.raises(
        InputError, match=r"site 0 is 0\.7 Pb \+ 0\.3 Sn by atoms\.info.*Pb would be"
    ):
        AlchemicalCalculator(atoms, [{2: "Cs"}, {}], [1.0, 0.0], model=BACKEND)
