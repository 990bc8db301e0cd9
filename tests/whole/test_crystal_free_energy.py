"""Absolute free energies of a coupled harmonic crystal: real i-PI runs against closed forms.

Short runs here; the full set is ``python -m campaigns.crystal``, whose committed works
(``benchmarks/crystal.json``) are judged here afresh.  Seeds and limits were fixed before the runs.
Each formula that could be wrong unnoticed is then made wrong, and a named test above must fail.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from campaigns import crystal as campaign
from helpers import exact_crystal as exact

from alchemdriver import units
from alchemdriver.analysis import analyze, switching_work
from alchemdriver.analysis import run as analysis_run
from alchemdriver.analysis.estimators.work import SwitchingRun
from alchemdriver.contract.run_input import read_input
from alchemdriver.paths import einstein
from alchemdriver.paths import formulas as c

T = campaign.TEMPERATURE
KT = exact.KB * T / exact.EV  # eV
# Short runs with the first seed, whose works are the first ones of the full set.
CLASSICAL = replace(campaign.SETS["16 atoms"], seeds=(0,), cycles=4)
QUANTUM = replace(campaign.SETS["16 atoms, 4 beads"], seeds=(0,), cycles=3)
# Standard deviation of one pair's eq. 11, meV per atom: from the full set, and with beads from the
# same dynamics written in numpy.  A few pairs cannot tell their own error.
SD_PAIR = {1: 0.09, 4: 0.25}
LIMIT_Z = 3.5


@pytest.fixture(scope="module")
def classical(tmp_path_factory):
    return campaign.run_set(tmp_path_factory.mktemp("classical"), CLASSICAL, jobs=1)


@pytest.fixture(scope="module")
def quantum(tmp_path_factory):
    return campaign.run_set(tmp_path_factory.mktemp("quantum"), QUANTUM, jobs=1)


def errors(folders, s):
    """Total minus exact value by method, meV per atom, and what it may be."""
    totals = analyze(folders, write=False).totals
    found = campaign.rows(s, {t.method: (t.value, t.se) for t in totals})
    limit = LIMIT_Z * SD_PAIR[s.beads] / np.sqrt(len(s.seeds) * s.cycles)
    return {row.method: row.off for row in found}, limit


# --- short runs ---------------------------------------------------------------------------------


def test_total_is_the_exact_absolute_free_energy(classical):
    """Eqs. 18 + ΔF + 19 as ``analyze`` adds them up, against SI formulas."""
    off, limit = errors(classical, CLASSICAL)
    assert max(map(abs, off.values())) <= limit, off


def test_total_with_beads_is_the_exact_value_of_as_many_beads(quantum):
    crystal = QUANTUM.structure
    off, limit = errors(quantum, QUANTUM)
    beads = exact.free_energy(crystal, T, QUANTUM.beads)
    per_atom = 1e3 / len(crystal)
    for other in (1, 2, None):  # what it must not be mistaken for
        assert abs(exact.free_energy(crystal, T, other) - beads) * per_atom > 4 * limit
    assert max(map(abs, off.values())) <= limit, off


def test_works_exceed_the_free_energy_by_the_dissipation(classical):
    """W ≥ ΔF forward and W ≥ −ΔF backward, on average; ΔF is that at fixed centre of mass."""
    crystal = CLASSICAL.structure
    delta_f = exact.switching_delta_f(crystal, T, exact.einstein_constants(crystal))
    run = switching_work(read_input(classical[0]))
    for works, free in ((run.forward, delta_f), (run.backward, -delta_f)):
        dissipated = (works - free) / KT
        se = dissipated.std(ddof=1) / np.sqrt(len(works))
        assert -LIMIT_Z * se < dissipated.mean() < 2.0


def test_springs_are_far_from_those_of_the_crystal():
    for repeat in (2, 3):
        crystal = exact.crystal(repeat=repeat)
        mass = exact.masses(crystal)
        matched = 3.0 / np.diag(np.linalg.pinv(exact.hessian(crystal))).reshape(-1, 3).sum(axis=1)
        assert len(set(mass)) == 2
        assert (np.abs(exact.einstein_constants(crystal) / matched - 1.0) >= 0.3).all()
        delta_f = exact.switching_delta_f(crystal, T, exact.einstein_constants(crystal))
        u0 = exact.ENERGY_PER_CELL * len(crystal) / 2
        assert abs(delta_f - u0) > 2 * KT


# --- centre of mass, eq. 19 ---------------------------------------------------------------------


def frenkel_ladd(elements, repeat, constants=None, with_centre_of_mass=True) -> float:
    """What an infinitely long Frenkel–Ladd calculation gives, with our corrections; eV."""
    crystal = exact.crystal(elements, repeat)
    mass = exact.masses(crystal)
    k = exact.einstein_constants(crystal) if constants is None else constants
    total = c.einstein_crystal(T, k, mass) + exact.switching_delta_f(crystal, T, k)
    if with_centre_of_mass:
        volume = float(np.linalg.det(crystal.cell))
        total += c.centre_of_mass(T, volume, mass, k, len(crystal) // 2)
    return total


def infinite(elements, with_centre_of_mass=True) -> float:
    """F per atom (meV) extrapolated from 16 and 54 atoms, minus that of the infinite crystal.

    F_N = N f − ½ kT ln N + const: the missing modes at q → 0, whose frequencies fall as N^(−1/3),
    give + kT ln N and the free centre of mass with M ∝ N gives −3/2 kT ln N.
    """
    n = np.array([16, 54])
    f = np.array([frenkel_ladd(elements, repeat, None, with_centre_of_mass) for repeat in (2, 3)])
    slope = np.diff(f + 0.5 * KT * np.log(n))[0] / np.diff(n)[0]
    return 1e3 * (slope - exact.infinite_crystal(elements, T))


def test_centre_of_mass_makes_two_sizes_and_two_masses_agree():
    """Eq. 19 at 16 and 54 atoms, Al-Ni and Al-Au: one limit, that of the infinite crystal."""
    for elements in (("Al", "Ni"), ("Al", "Au")):
        for repeat in (2, 3):
            crystal = exact.crystal(elements, repeat)
            off = frenkel_ladd(elements, repeat) - exact.free_energy(crystal, T)
            assert abs(off) < 1e-5  # eV; other CODATA releases, i-PI's masses
        assert abs(infinite(elements)) < 0.02


def test_without_it_they_do_not_agree():
    off = [infinite(elements, False) for elements in (("Al", "Ni"), ("Al", "Au"))]
    assert min(off) > 0.15
    # The crystal's configurations know no masses, so F minus momenta must not either.
    for with_term, low, high in ((True, 0.0, 1e-6), (False, 1e-4, 1.0)):
        a, b = (
            frenkel_ladd(e, 2, None, with_term) + kinetic(e) for e in (("Al", "Ni"), ("Al", "Au"))
        )
        assert low <= abs(a - b) < high  # eV


def kinetic(elements) -> float:
    """(3/2) kT Σ ln m, eV: what the masses alone do to F, with the opposite sign."""
    return 1.5 * KT * float(np.log(exact.masses(exact.crystal(elements))).sum())


def test_centre_of_mass_makes_any_springs_agree():
    k = exact.einstein_constants(exact.crystal())
    values = [frenkel_ladd(("Al", "Ni"), 2, f * k) for f in (1.0, 0.5)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)  # CODATA's k against i-PI's
    without = [frenkel_ladd(("Al", "Ni"), 2, f * k, False) for f in (1.0, 0.5)]
    assert abs(without[0] - without[1]) == pytest.approx(1.5 * KT * np.log(2), rel=1e-4)


# --- formulas made wrong ------------------------------------------------------------------------


def wrong_sign(patch):
    right = analysis_run._total
    patch.setattr(analysis_run, "_total", lambda e, *rest: right(replace(e, value=-e.value), *rest))


def missing_n_ws(patch):
    right = c.centre_of_mass
    for where in (c, einstein):
        patch.setattr(where, "centre_of_mass", lambda t, v, m, k, n_ws: right(t, v, m, k, 1))


def missing_centre_of_mass(patch):
    for where in (c, einstein):
        patch.setattr(where, "centre_of_mass", lambda *args: 0.0)


def swapped_directions(patch):
    forward, backward = SwitchingRun.forward, SwitchingRun.backward
    patch.setattr(SwitchingRun, "forward", backward)
    patch.setattr(SwitchingRun, "backward", forward)


def h_for_h_bar(patch):
    patch.setattr(units, "HBAR_EV_FS", units.HBAR_EV_FS * 2 * np.pi)


def h_bar_in_ase_time(patch):
    """ħ in eV Å √(u/eV), ASE's unit of time, with ω in 1/fs: 10.18 fs to the unit."""
    patch.setattr(units, "HBAR_EV_FS", units.HBAR_EV_FS / 10.18051)


def h_bar_in_si(patch):
    patch.setattr(units, "HBAR_EV_FS", exact.HBAR)


MUTANTS = [
    (wrong_sign, test_total_is_the_exact_absolute_free_energy),
    (missing_n_ws, test_total_is_the_exact_absolute_free_energy),
    (missing_n_ws, test_centre_of_mass_makes_two_sizes_and_two_masses_agree),
    (missing_centre_of_mass, test_total_is_the_exact_absolute_free_energy),
    (missing_centre_of_mass, test_centre_of_mass_makes_two_sizes_and_two_masses_agree),
    (missing_centre_of_mass, test_centre_of_mass_makes_any_springs_agree),
    (swapped_directions, test_works_exceed_the_free_energy_by_the_dissipation),
    (swapped_directions, test_total_is_the_exact_absolute_free_energy),
    (h_for_h_bar, test_total_is_the_exact_absolute_free_energy),
    (h_bar_in_ase_time, test_total_is_the_exact_absolute_free_energy),
    (h_bar_in_si, test_total_is_the_exact_absolute_free_energy),
]
QUANTUM_MUTANTS = [wrong_sign, missing_centre_of_mass, h_for_h_bar, h_bar_in_ase_time]


@pytest.mark.parametrize(
    ("mutate", "check"), MUTANTS, ids=[f"{m.__name__}-{t.__name__}" for m, t in MUTANTS]
)
def test_a_wrong_formula_fails(mutate, check, classical, monkeypatch):
    arguments = {"classical": classical} if "classical" in check.__code__.co_varnames else {}
    check(**arguments)
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        check(**arguments)


@pytest.mark.parametrize("mutate", QUANTUM_MUTANTS)
def test_a_wrong_formula_fails_with_beads(mutate, quantum, monkeypatch):
    mutate(monkeypatch)
    with pytest.raises(AssertionError):
        test_total_with_beads_is_the_exact_value_of_as_many_beads(quantum)


# --- the committed full set ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(campaign.RESULT.read_text())["sets"]


@pytest.mark.parametrize("name", campaign.SETS)
def test_committed_set_is_exact(committed, name):
    """Within 3 SE and 0.1 meV per atom."""
    if name not in committed:
        pytest.skip(f"'{name}' is not committed yet: python -m campaigns.crystal FOLDER")
    s, data = campaign.SETS[name], committed[name]
    assert campaign.settings(data) == s
    assert [r["seed"] for r in data["runs"]] == list(s.seeds)
    assert all(len(r[k]) == s.cycles for r in data["runs"] for k in ("forward", "backward"))
    for row in campaign.rows(s, campaign.stored_totals(data)):
        assert row.passed, row


def test_committed_terms_are_those_of_today(committed):
    for data in committed.values():
        s = campaign.settings(data)
        crystal, mass = s.structure, exact.masses(s.structure)
        k = exact.einstein_constants(crystal)
        volume = float(np.linalg.det(crystal.cell))
        assert list(data["terms"].values()) == pytest.approx(
            [
                c.einstein_crystal(T, k, mass, s.beads),
                c.centre_of_mass(T, volume, mass, k, len(crystal) // 2),
            ],
            rel=1e-6,
        )


def test_committed_runs_of_two_sizes_and_masses_have_one_limit(committed):
    """Per atom and with the momenta taken out, F of real runs follows the law of ``infinite``."""
    for masses in ("", ", other masses"):
        names = [f"{n} atoms{masses}" for n in (16, 54)]
        totals = [campaign.stored_totals(committed[name])["BAR"] for name in names]
        n, f, se = np.array([16, 54]), *(np.array(x) for x in zip(*totals, strict=True))
        slope = 1e3 * np.diff(f + 0.5 * KT * np.log(n))[0] / np.diff(n)[0]
        error = 1e3 * np.linalg.norm(se) / np.diff(n)[0]
        elements = campaign.SETS[names[0]].elements
        off = slope - 1e3 * exact.infinite_crystal(elements, T)
        assert abs(off) < campaign.LIMIT_Z * error + 0.02
        cm = [committed[name]["terms"]["fixed centre of mass ΔF_CM"] for name in names]
        without = off - 1e3 * np.diff(cm)[0] / np.diff(n)[0]
        assert abs(without) > 0.15
