"""The analytic crystal: its Hessian by hand, conformance, derivatives, and its file."""

import json

import numpy as np
import pytest
from helpers import exact_crystal as exact
from helpers import real_runs as rr

from alchemdriver.analysis.files.readers import read_properties
from alchemdriver.errors import InputError, ModelError, RunError
from alchemdriver.potential.backends.harmonic_crystal import CrystalSpring, HarmonicCrystalBackend
from alchemdriver.potential.open import open_model
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure
from alchemdriver.testing import assert_conforms, measure

PBC = (True, True, True)
CELL = np.array([[19.0, 0.0, 0.0], [1.7, 18.9, 0.0], [-1.2, 0.9, 19.3]])
# the last one on the other side of the cell
SITES = np.array([[0.1, 0.2, 0.3], [2.2, 2.0, 2.1], [3.6, 1.0, 0.5], [18.6, 0.4, 0.1]])


def all_pairs(elements=("H", "Li", "He")) -> list[CrystalSpring]:
    """A spring for every pair of sites and every pair of elements, all different."""
    springs, k = [], 1.0
    fractional = SITES @ np.linalg.inv(CELL)
    for i in range(4):
        for j in range(i):
            d = fractional[j] - fractional[i]
            length = float(np.linalg.norm((d - np.round(d)) @ CELL))
            for a, first in enumerate(elements):
                for second in elements[a:]:
                    k += 0.1
                    springs.append(CrystalSpring((first, second), length, k, 0.3 * k))
    return springs


@pytest.fixture
def backend():
    return HarmonicCrystalBackend(SITES, CELL, all_pairs(), energy=-3.0)


@pytest.fixture
def moved():
    return SITES + np.random.default_rng(3).normal(0, 0.1, SITES.shape)


def plain(path, structure, positions):
    potential = open_model(str(path)).potential(AlchemicalSites.plain(structure.symbols))
    return potential.evaluate(positions, structure.cell, PBC, np.zeros(0))


@pytest.mark.parametrize("repeat", [2, 3])
def test_energy_and_forces_are_those_of_the_hessian(tmp_path, repeat):
    """In a cell of two lattice constants, where several images of one atom are neighbours."""
    crystal = exact.crystal(repeat=repeat)
    path = exact.write_model(tmp_path / "c.json", crystal)
    x = np.random.default_rng(1).normal(0, 0.1, crystal.positions.shape)
    found = plain(path, crystal, crystal.positions + x)
    phi = exact.hessian(crystal)
    u0 = exact.ENERGY_PER_CELL * len(crystal) / 2
    assert found.energy == pytest.approx(u0 + 0.5 * x.ravel() @ phi @ x.ravel(), rel=1e-12)
    np.testing.assert_allclose(found.forces.ravel(), -phi @ x.ravel(), atol=1e-11)
    assert np.abs(phi - np.diag(np.diag(phi))).max() > 1.0  # not diagonal


def test_reference_is_at_rest_and_compression_costs_energy(tmp_path):
    crystal = exact.crystal()
    path = exact.write_model(tmp_path / "c.json", crystal)
    rest = plain(path, crystal, crystal.positions)
    assert rest.energy == pytest.approx(exact.ENERGY_PER_CELL * 8)
    assert np.abs(rest.forces).max() < 1e-12
    assert np.abs(rest.virial).max() < 1e-12
    smaller = Structure(crystal.symbols, crystal.positions * 0.98, crystal.cell * 0.98)
    squeezed = plain(path, smaller, smaller.positions)
    assert squeezed.energy > rest.energy + 0.1
    assert np.trace(squeezed.virial) > 0.1  # pressure


def test_no_shear_is_soft(tmp_path):
    crystal = exact.crystal()
    path = exact.write_model(tmp_path / "c.json", crystal)
    stiffness = []
    for a, b in ((0, 0), (0, 1), (1, 2), (0, 2)):
        strain = np.eye(3)
        strain[a, b] += 0.01
        strain[b, a] = strain[a, b]
        bent = Structure(crystal.symbols, crystal.positions @ strain, crystal.cell @ strain)
        stiffness.append(plain(path, bent, bent.positions).energy + 72.0)
    assert min(stiffness) > 0.2 * max(stiffness) > 0


def test_conformance_but_for_renumbering(backend, moved):
    """Sites belong to numbered atoms; all else holds, translation and net force included."""
    structure = Structure(("H", "Li", "He", "H"), moved, CELL)
    states = [{0: "H", 1: "Li"}, {0: "He"}, {2: "Li"}]
    assert_conforms(backend, structure, states, skip=("permutation",))
    sites = AlchemicalSites.from_states(structure.symbols, states)
    assert measure(backend, structure, sites)["permutation"] > 1e-3


def test_removed_atom_has_no_energy_and_may_be_anywhere(backend, moved):
    potential = backend.potential(AlchemicalSites.plain(["H", None, "He", "H"]))
    a = potential.evaluate(moved, CELL, PBC, np.zeros(0))
    far = moved.copy()
    far[1] += 3.3
    b = potential.evaluate(far, CELL, PBC, np.zeros(0))
    assert a.energy == b.energy
    assert not b.forces[1].any()


def test_neighbours_that_left_each_other_are_refused(backend):
    x = SITES.copy()
    x[2] += CELL.sum(axis=0) / 2
    with pytest.raises(RunError, match="it left its site"):
        backend.potential(AlchemicalSites.plain(["H"] * 4)).evaluate(x, CELL, PBC, np.zeros(0))
    with pytest.raises(InputError, match="independent vectors"):
        backend.potential(AlchemicalSites.plain(["H"] * 4)).evaluate(
            x, np.zeros((3, 3)), (False,) * 3, np.zeros(0)
        )


def test_sites_must_fit(backend):
    with pytest.raises(InputError, match="positions for 4 atoms, the structure has 2"):
        backend.potential(AlchemicalSites.plain(["H", "H"]))
    with pytest.raises(ModelError, match="Fe"):
        backend.potential(AlchemicalSites.plain(["H", "H", "H", "Fe"]))


def test_runs_under_constant_pressure_through_sockets(tmp_path):
    """prepare, server and client, Al -> Ni; the virial keeps the volume."""
    crystal = exact.crystal()
    model = exact.write_model(tmp_path / "c.json", crystal)
    content = json.loads(model.read_text())
    for elements, distance in ((["Ni", "Ni"], exact.FIRST), (["Al", "Ni"], exact.SECOND)):
        spring = {"elements": elements, "distance": distance, "parallel": 2.0, "isotropic": 0.3}
        content["springs"].append(spring)
    model.write_text(json.dumps(content))
    keys = {"model": str(model), "alchemy": "Al->Ni", "cycles": "1"}
    keys |= {"equilibrate": "20", "switch": "30"}
    settings = Settings(temperature=50.0, pressure=1.0, timestep=2.0, seed=1)
    prepare("switch-npt", crystal, tmp_path / "a", keys, settings)
    done = rr.command("run", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    volume = read_properties(tmp_path / "a" / "run.out").column("volume")
    assert np.abs(volume / np.linalg.det(crystal.cell) - 1.0).max() < 0.02
    assert np.ptp(volume) > 0


# --- the file -------------------------------------------------------------------------------


def good(tmp_path) -> dict:
    return json.loads(exact.write_model(tmp_path / "good.json", exact.crystal()).read_text())


SPRING = {"elements": ["Al", "Ni"], "distance": 2.511, "parallel": 1.0, "isotropic": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": "low"}, "must be numbers"),
        ({"energy": float("inf")}, "Infinity is not a number"),
        ({"positions": [[0, 0]]}, "finite positions"),
        ({"cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "independent vectors"),
        ({"springs": []}, "at least one spring"),
        ({"springs": 3}, "list of springs"),
        ({"springs": [3]}, "an object for each"),
        ({"springs": [SPRING | {"elements": ["Al"]}]}, "two elements and three numbers"),
        ({"springs": [SPRING | {"elements": ["Al", "Xx"]}]}, "'Xx' is not an element"),
        ({"springs": [SPRING | {"distance": 2.0}]}, "no two positions are 2 Å apart"),
        ({"springs": [SPRING | {"distance": -1.0}]}, "positive distance"),
        ({"springs": [SPRING | {"isotropic": -0.1}]}, "isotropic not negative"),
        ({"springs": [SPRING | {"parallel": -0.2}]}, "positive stiffness along the bond"),
        ({"springs": [SPRING, SPRING | {"elements": ["Ni", "Al"]}]}, "given twice"),
        ({"springs": [SPRING | {"paralel": 1.0}]}, "did you mean 'parallel'"),
        ({"anchors": []}, "unknown key 'anchors'"),
    ],
)
def test_bad_files_give_one_line(tmp_path, change, message):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({**good(tmp_path), **change}))
    with pytest.raises(ModelError, match=message) as caught:
        open_model(str(path))
    assert "\n" not in str(caught.value)


def test_missing_keys_and_files_are_named(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"backend": "harmonic-crystal"}')
    with pytest.raises(ModelError, match="'energy' is missing"):
        HarmonicCrystalBackend.from_file(path)
    with pytest.raises(ModelError, match="cannot be read"):
        HarmonicCrystalBackend.from_file(tmp_path / "no.json")
    path.write_text("[1, 2]")
    with pytest.raises(ModelError, match="JSON object"):
        HarmonicCrystalBackend.from_file(path)


def test_a_crystal_that_only_turns_costs_nothing_and_a_sheared_one_has_its_virial(backend, moved):
    """−∂E/∂ε by differences of energies, in a cell far from the reference, turned and sheared."""
    from scipy.spatial.transform import Rotation

    potential = backend.potential(AlchemicalSites.plain(["H", "Li", "He", "H"]))
    turn = Rotation.from_rotvec([0.3, -0.2, 0.4]).as_matrix()
    rest = potential.evaluate(moved, CELL, PBC, np.zeros(0))
    turned = potential.evaluate(moved @ turn, CELL @ turn, PBC, np.zeros(0))
    assert turned.energy == pytest.approx(rest.energy, abs=1e-10)
    np.testing.assert_allclose(turned.forces, rest.forces @ turn, atol=1e-10)
    np.testing.assert_allclose(turned.virial, turn.T @ rest.virial @ turn, atol=1e-9)
    shear = np.eye(3) + np.array([[0.03, 0.06, -0.04], [0.0, -0.05, 0.07], [0.0, 0.0, 0.02]])
    x, cell = moved @ shear @ turn, CELL @ shear @ turn
    found, h = potential.evaluate(x, cell, PBC, np.zeros(0)), 1e-5
    for a in range(3):
        for b in range(3):  # not symmetric: h of i-PI's flexible cell is triangular
            strain = np.zeros((3, 3))
            strain[a, b] = h
            up, down = (
                potential.evaluate(x @ (np.eye(3) + s), cell @ (np.eye(3) + s), PBC, np.zeros(0))
                for s in (strain, -strain)
            )
            assert -(up.energy - down.energy) / (2 * h) == pytest.approx(
                found.virial[a, b], abs=1e-6
            )
