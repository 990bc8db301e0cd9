"""The committed iron campaign (``campaigns/iron.py``), judged afresh from its works and means."""

import json

import numpy as np
import pytest
from campaigns import iron as campaign

from alchemdriver.paths import formulas as c

ATOMS = 2 * campaign.REPEAT**3


@pytest.fixture(scope="module")
def committed() -> dict:
    if not campaign.RESULT.is_file():
        pytest.skip("no runs committed yet: python -m campaigns.iron FOLDER")
    return json.loads(campaign.RESULT.read_text())


@pytest.fixture
def hot(committed) -> dict:
    if not committed["energies"]:
        pytest.skip("no runs at 300 K committed yet: python -m campaigns.iron FOLDER")
    return committed


@pytest.fixture(scope="module")
def harmonic():
    return campaign.harmonic_iron()


def test_committed_lattice_dynamics_is_that_of_today(committed, harmonic):
    """Once more, from the embedded model."""
    for t, value in committed["lattice dynamics"]["classical"].items():
        assert harmonic.free_energy(float(t)) == pytest.approx(value, abs=1e-6)
    assert harmonic.n_ws == committed["lattice dynamics"]["N_WS"] == ATOMS == 54


def test_committed_seeds_and_terms(committed, harmonic):
    k = np.full(ATOMS, committed["system"]["spring_constant_eV_per_A2"])
    # those of the runs came from differences of two points, which are off by so much
    assert harmonic.einstein_constants() == pytest.approx(k, rel=1e-3)
    for s in (campaign.COLD, campaign.HOT):
        t = s.temperature
        if f"{t:g}" not in committed["switching"]:
            continue
        stored = committed["switching"][f"{t:g}"]
        assert [r["seed"] for r in stored["runs"]] == list(s.seeds)
        assert all(len(r["forward"]) == s.cycles for r in stored["runs"])
        mass = harmonic.masses
        expected = [
            c.einstein_crystal(t, k, mass),
            c.centre_of_mass(t, harmonic.volume, mass, k, ATOMS),
        ]
        assert list(stored["terms"].values()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("method", ["eq. 11", "BAR"])
def test_frenkel_ladd_equals_lattice_dynamics_in_the_cold(committed, method):
    """10 K, within 0.05 meV per atom; at 50 K this crystal is not harmonic to that accuracy."""
    value, se = campaign.frenkel_ladd(committed, 10.0)[method]
    off = 1e3 * (value - committed["lattice dynamics"]["classical"]["10"]) / ATOMS
    assert abs(off) <= campaign.LIMIT_LATTICE
    assert 1e3 * se / ATOMS < campaign.LIMIT_LATTICE
    rest = 1e3 * committed["perturbation"]["50"]["value"] / ATOMS
    assert rest > campaign.LIMIT_LATTICE


def test_means_by_equipartition_are_those_of_the_energy(hot):
    """u from ⟨U − ½ x·∂U/∂x⟩ and from ⟨U⟩, whose error is that of a harmonic crystal."""
    assert {float(t): e["seed"] for t, e in hot["energies"].items()} == campaign.ENERGIES
    for stored in hot["energies"].values():
        a, b = stored["equipartition"], stored["potential"]
        assert abs(a["value"] - b["value"]) < 3.5 * np.hypot(a["se"], b["se"])
        assert a["se"] < b["se"]


@pytest.mark.parametrize("terms", [2, 3])
def test_frenkel_ladd_equals_gibbs_helmholtz_at_300_kelvin(hot, terms):
    found = campaign.routes(hot, terms=terms)
    hot, hot_se = found["Frenkel-Ladd"]
    for name, (value, se) in found.items():
        if name.startswith("Gibbs"):
            sigma = np.hypot(se, hot_se)
            assert abs(value - hot) <= 2 * sigma, name
            if "50 K" in name:  # from 0 K the integral leans on an extrapolation
                assert sigma <= campaign.LIMIT_SIGMA, name
    harmonic, _ = found["lattice dynamics alone"]
    assert abs(harmonic - hot) > 10 * campaign.LIMIT_SIGMA  # what anharmonicity is at 300 K


def test_three_terms_describe_the_means(hot):
    """χ² per degree of freedom, of three degrees: beyond 2.6 once in twenty."""
    assert campaign.polynomial(hot, "equipartition")[2] < 2.6
