"""The analytic backend: closed forms, derivatives, and its file."""

import json

import numpy as np
import pytest

from alchemdriver.errors import InputError, ModelError, RunError
from alchemdriver.potential.backends.harmonic import HarmonicBackend
from alchemdriver.potential.checks import check_limits
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Structure
from alchemdriver.testing import TOLERANCES, measure

CELL = np.array([[4.0, 0.0, 0.0], [1.7, 3.9, 0.0], [-1.2, 0.9, 4.3]])
ANCHORS = np.array([[0.1, 0.2, 0.3], [2.0, 2.0, 2.0], [3.0, 1.0, 0.5]])
K = {"H": 2.0, "Li": 3.0, "He": 0.5}
PBC = (True, True, True)


@pytest.fixture
def backend():
    return HarmonicBackend(K, ANCHORS, CELL)


@pytest.fixture
def displacements():
    return np.random.default_rng(3).normal(0, 0.2, (3, 3))


def test_energy_is_the_weighted_sum_of_site_energies(backend, displacements):
    """Atom 1 is H with weight 0.3, Li with 0.5 and absent with 0.2: K = 0.3·2 + 0.5·3."""
    sites = AlchemicalSites.from_states(["H", "H", "He"], [{1: "H"}, {1: "Li"}, {}])
    weights = np.array([0.3, 0.5, 0.2])
    e = backend.potential(sites).evaluate(ANCHORS + displacements, CELL, PBC, weights)
    half = 0.5 * np.sum(displacements**2, axis=1)
    expected = 2.0 * half[0] + (0.3 * 2.0 + 0.5 * 3.0) * half[1] + 0.5 * half[2]
    assert e.energy == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(e.weight_gradient, [2.0 * half[1], 3.0 * half[1], 0.0], atol=1e-14)
    stiffness = np.array([2.0, 2.1, 0.5])
    np.testing.assert_allclose(e.forces, -stiffness[:, None] * displacements, atol=1e-13)


def test_virial_is_the_strain_derivative(backend, displacements):
    sites = AlchemicalSites.from_states(["H", "H", "He"], [{1: "H"}, {1: "Li"}])
    potential = backend.potential(sites)
    x, w, step = ANCHORS + displacements, np.array([0.7, 0.6]), 1e-4
    numerical = np.zeros((3, 3))
    for index in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[index] = step
        up, down = (
            potential.evaluate(x @ m, CELL @ m, PBC, w).energy
            for m in (np.eye(3) + strain, np.eye(3) - strain)
        )
        numerical[index] = -(up - down) / (2 * step)
    virial = potential.evaluate(x, CELL, PBC, w).virial
    assert np.abs(virial).min() > 1e-4
    np.testing.assert_allclose(virial, numerical, atol=1e-9)


def test_removed_atom_has_no_energy_and_may_be_anywhere(backend, displacements):
    sites = AlchemicalSites.plain(["H", None, "He"])
    x = ANCHORS + displacements
    x[1] += 1.7
    e = backend.potential(sites).evaluate(x, CELL, PBC, np.zeros(0))
    half = 0.5 * np.sum(displacements**2, axis=1)
    assert e.energy == pytest.approx(2.0 * half[0] + 0.5 * half[2], rel=1e-13)
    assert not e.forces[1].any()
    assert e.weight_gradient.shape == (0,)


def test_an_atom_that_left_its_site_is_refused(backend):
    x = ANCHORS.copy()
    x[2] += CELL.sum(axis=0) / 2
    with pytest.raises(RunError, match="atom 2 is"):
        backend.potential(AlchemicalSites.plain(["H", "H", "H"])).evaluate(
            x, CELL, PBC, np.zeros(0)
        )


def test_a_cell_without_volume_is_refused(backend):
    potential = backend.potential(AlchemicalSites.plain(["H", "H", "H"]))
    with pytest.raises(InputError, match="independent vectors"):
        potential.evaluate(ANCHORS, np.zeros((3, 3)), (False,) * 3, np.zeros(0))


def test_sites_must_fit_the_anchors(backend):
    with pytest.raises(InputError, match="anchors for 3 atoms, the structure has 2"):
        backend.potential(AlchemicalSites.plain(["H", "H"]))
    with pytest.raises(ModelError, match="Fe"):
        backend.potential(AlchemicalSites.plain(["H", "H", "Fe"]))


def test_conformance_but_for_what_an_external_potential_cannot_have(displacements):
    """Anchors belong to numbered atoms and to places: no symmetry under translation of all atoms,
    no vanishing net force, no symmetry under renumbering.  All else holds."""
    cell = 3 * CELL  # room for the random translation and renumbering of the suite
    backend = HarmonicBackend(K, ANCHORS, cell)
    structure = Structure(("H", "Li", "He"), ANCHORS + displacements, cell)
    sites = AlchemicalSites.from_states(structure.symbols, [{0: "H", 1: "Li"}, {0: "He"}])
    errors = measure(backend, structure, sites)
    for check in ("translation", "net force", "permutation"):
        assert errors.pop(check) > 1e-3
    for check, error in errors.items():
        limit = TOLERANCES["float64"].slopes if "slope" in check else TOLERANCES["float64"].exact
        assert error <= limit, check
    assert check_limits(backend, sites, structure) < 1e-12


# --- the file -------------------------------------------------------------------------------

GOOD = {
    "backend": "harmonic",
    "spring_constants": K,
    "anchors": ANCHORS.tolist(),
    "cell": CELL.tolist(),
}


def test_file_gives_the_same_model(backend, displacements, tmp_path):
    (tmp_path / "h.json").write_text(json.dumps(GOOD))
    read = HarmonicBackend.from_file(tmp_path / "h.json")
    assert read.elements == {"H", "Li", "He"}
    sites = AlchemicalSites.plain(["H", "Li", "He"])
    a, b = (
        m.potential(sites).evaluate(ANCHORS + displacements, CELL, PBC, np.zeros(0))
        for m in (read, backend)
    )
    assert a.energy == b.energy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spring_constants": {"H": -1.0}}, "positive spring constant for H"),
        ({"spring_constants": {"H": "soft"}}, "must be numbers"),
        ({"spring_constants": {"Xx": 1.0}}, "not an element"),
        ({"spring_constants": 3}, "must be numbers"),
        ({"anchors": [[0, 0]]}, "finite anchors"),
        ({"anchors": [[0, 0, 0], [0, 0]]}, "must be numbers"),
        ({"cell": [[1, 0, 0], [0, 1, 0], [1, 1, 0]]}, "independent vectors"),
        ({"cell": None}, "independent vectors"),
        ({"anchor": []}, "did you mean 'anchors'"),
    ],
)
def test_bad_files_give_one_line(tmp_path, change, message):
    (tmp_path / "h.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ModelError, match=message) as caught:
        HarmonicBackend.from_file(tmp_path / "h.json")
    assert "\n" not in str(caught.value)


def test_missing_keys_and_files_are_named(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        HarmonicBackend.from_file(tmp_path / "h.json")
    (tmp_path / "h.json").write_text('{"backend": "harmonic"}')
    with pytest.raises(ModelError, match="'spring_constants' is missing"):
        HarmonicBackend.from_file(tmp_path / "h.json")
    for text in ("[1, 2]", "{"):
        (tmp_path / "h.json").write_text(text)
        with pytest.raises(ModelError, match="JSON"):
            HarmonicBackend.from_file(tmp_path / "h.json")
