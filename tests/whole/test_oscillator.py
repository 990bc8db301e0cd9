"""The driven oscillator through real i-PI and real sockets, against exact values.

A few seeds run here every time; the full set is ``python -m campaigns.oscillator``, whose
committed works (``benchmarks/oscillator.json``) are judged here afresh.  Seeds and limits were
fixed before the runs, so nothing here is left to chance.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from campaigns import oscillator as campaign
from helpers import real_runs as rr
from helpers.driven_oscillator import DrivenOscillator

from alchemdriver.analysis import analyze, read_gradients, switching_work
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.schedule import SHAPES, Schedule
from alchemdriver.prepare import demo

LIMIT_Z = 3.5  # of the runs made here; the committed set has campaign.LIMIT_Z
CI_SEEDS = 2
DESIGN = {"poly9": (0.86871, 0.77994, 0.04438), "linear": (0.50752, 0.47650, 0.01551)}  # meV


# --- the exact values themselves ----------------------------------------------------------------


@pytest.mark.parametrize("shape", list(DESIGN))
def test_discrete_moments_approach_the_moment_equations(shape):
    """Cu mass, γ = 0.01/fs, 2 ps; Δt² extrapolated to zero."""
    found = []
    for h in (1.0, 2.0):
        schedule = Schedule(SHAPES[shape], round(1600 / h), round(2000 / h), 1)
        works = DrivenOscillator(schedule, h, 100.0, (2.0, 6.0), (63.546, 63.546)).works()
        found.append(
            [works.forward - works.delta_f, works.backward + works.delta_f, works.eq11_bias]
        )
    extrapolated = (4.0 * np.array(found[0]) - np.array(found[1])) / 3.0
    np.testing.assert_allclose(1e3 * extrapolated, DESIGN[shape], atol=2e-5)


def test_exact_moments_equal_sampled_ones():
    """The same steps with random numbers: means, covariances and Jarzynski's average."""
    schedule = Schedule(SHAPES["poly9"], 40, 30, 2)
    oscillator = DrivenOscillator(schedule, 4.0, 50.0, (2.0, 6.0), (60.0, 200.0), rescale=False)
    exact, n = oscillator.works(), 40_000
    rng = np.random.default_rng(1)
    state = np.zeros((2, n))
    state[1] = np.sqrt(oscillator.kT) * rng.normal(size=n)
    x = [state[0]]
    for a, q in oscillator.steps():
        noise = np.linalg.cholesky(q + 1e-18 * np.eye(2)) @ rng.normal(size=(2, n))
        state = a @ state + noise
        x.append(state[0])
    x = np.array(x)
    works = np.array([a @ x[at] ** 2 for at, a in oscillator.weights()])
    error = np.sqrt(np.diag(exact.covariance) / n)
    assert np.all(np.abs(works.mean(axis=1) - exact.mean) < 4.0 * error)
    np.testing.assert_allclose(np.var(works, axis=1), np.diag(exact.covariance), rtol=0.05)
    boltzmann = np.exp(-works[0] / oscillator.kT)
    value = -oscillator.kT * np.log(boltzmann.mean())
    se = oscillator.kT * boltzmann.std() / boltzmann.mean() / np.sqrt(n)
    assert abs(value - exact.jarzynski[0]) < 4.0 * se


def test_time_step_hardly_moves_jarzynski():
    """At 4 fs exp(−W) averages to ΔF within 1e-3 kT per degree of freedom."""
    works = campaign.SETS["slow"].oscillator.works()
    np.testing.assert_allclose(works.jarzynski[0], works.delta_f, atol=1e-3 * works.kT)
    np.testing.assert_allclose(-works.jarzynski[1], works.delta_f, atol=1e-3 * works.kT)


# --- runs made here -----------------------------------------------------------------------------


def constant_energy(folder, *, rescale: bool) -> tuple[np.ndarray, DrivenOscillator]:
    """∂H/∂λ of every step of a run without thermostat, over its first nonzero value.

    Atoms start on their anchors, so that x_j = φ_j p_0 for every atom and direction alike: the
    ratio is φ_j²/φ_1², known without knowing p_0.
    """
    path = rr.oscillator_run(
        folder,
        timestep=campaign.TIMESTEP,
        equilibrate=20,
        switch=70,
        cycles=2,
        edit=lambda text: text.replace('mode="nvt"', 'mode="nve"').replace(">True<", ">False<"),
    )
    run = read_input(path)
    assert run.ensemble == "nve"
    if rescale:
        done = rr.command("run", folder)
        assert done.returncode == 0, done.stderr
    else:
        campaign.run_control(folder)
    gradient = read_gradients(run).mean
    masses = (run.initial_masses[0], run.final_masses[0])
    oscillator = DrivenOscillator(
        run.schedule, run.timestep, None, campaign.SPRINGS, masses, rescale=rescale
    )
    return gradient / gradient[1], oscillator


def expected_ratio(oscillator: DrivenOscillator) -> np.ndarray:
    response = oscillator.response()
    return response**2 / response[1] ** 2


def test_ipi_takes_exactly_the_steps_of_the_reference(tmp_path):
    """λ(k+1), m(k+1) and rescaled momenta at every step, with no statistics in between."""
    found, oscillator = constant_energy(tmp_path / "a", rescale=True)
    expected = expected_ratio(oscillator)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * expected.max())


def test_momenta_not_rescaled_are_another_trajectory(tmp_path):
    found, control = constant_energy(tmp_path / "a", rescale=False)
    right = expected_ratio(replace(control, rescale=True))
    assert np.abs(found - right).max() > 0.2 * right.max()
    wrong = expected_ratio(control)  # and it is the one that momenta left alone should give
    np.testing.assert_allclose(found, wrong, rtol=0, atol=1e-11 * wrong.max())


def test_a_few_seeds_agree_with_exact_works(tmp_path):
    """3 kT of dissipation: means, bias of eq. 11 and BAR, 24 pairs."""
    s = replace(campaign.SETS["fast"], seeds=CI_SEEDS)
    data = campaign.collect(campaign.run_set(tmp_path, s, jobs=2), s)
    rows = campaign.compare(s, *campaign.works(data), s.oscillator.works())
    checked = [r for r in rows if not r.quantity.startswith(("Jarzynski", "eq. 11 against ΔF"))]
    assert len(checked) == 5
    for row in checked:
        assert abs(row.z) <= LIMIT_Z, row


def test_first_law_holds_at_the_time_step_of_the_demo(tmp_path, monkeypatch):
    """The demo's time step, two cycles: drift at most 1e-4 kT per atom and ps.

    The deviation is bounded by Δt²Ω²/8 k x², which at 8 fs is four times that of the campaign.
    """
    monkeypatch.setattr(campaign, "TIMESTEP", demo.TIMESTEP)
    s = replace(campaign.SETS["demo lengths"], seeds=1)
    (folder,) = campaign.run_set(tmp_path, s, jobs=1)
    law = switching_work(read_input(folder)).first_law
    assert law.duration == pytest.approx(8000 * demo.TIMESTEP * 1e-3)
    assert abs(law.drift) <= campaign.LIMIT_DRIFT * campaign.KT
    assert law.max_deviation <= 0.08 * campaign.KT
    (term,) = analyze(folder, write=False).terms
    assert term.value == pytest.approx(mass_term(), rel=1e-6)


def mass_term() -> float:
    """3/2 kT Σ ln(m_i/m_f), eq. 22, in eV."""
    m_i, m_f = campaign.MASSES
    return 1.5 * campaign.KT * campaign.ATOMS * np.log(m_i / m_f)


# --- the committed full set ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads(campaign.RESULT.read_text())["sets"]


def judged(data: dict) -> dict[str, campaign.Row]:
    """Rows by quantity, from the stored works alone."""
    s = campaign.Set(**data["settings"])
    return {r.quantity: r for r in campaign.compare(s, *campaign.works(data), s.oscillator.works())}


@pytest.mark.parametrize("name", campaign.SETS)
def test_committed_set_is_complete(committed, name):
    s, data = campaign.SETS[name], committed[name]
    assert campaign.Set(**data["settings"]) == s
    assert [r["seed"] for r in data["runs"]] == list(range(s.seeds))
    assert all(len(r[k]) == s.cycles for r in data["runs"] for k in ("forward", "backward"))
    assert data["terms"] == {"mass term": pytest.approx(mass_term(), rel=1e-6)}


def test_bar_of_a_hundred_seeds_is_exact(committed):
    s, rows = campaign.SETS["slow"], judged(committed["slow"])
    assert s.seeds * s.cycles >= 100
    assert rows["BAR"].passed, rows["BAR"]
    assert rows["BAR"].se <= campaign.LIMIT_SE * s.dof


@pytest.mark.parametrize("name", [n for n, s in campaign.SETS.items() if s.rescale])
def test_mean_works_agree_with_moment_equations(committed, name):
    rows = judged(committed[name])
    for quantity in ("eq. 11 against moment equations", "forward work", "backward work"):
        assert rows[quantity].passed, rows[quantity]
    assert rows["BAR"].passed, rows["BAR"]


def test_bias_of_eq11_is_seen_where_dissipation_is_large(committed):
    rows = judged(committed["fast"])
    assert rows["eq. 11 against ΔF: its bias"].z > 3.0
    assert rows["eq. 11 against moment equations"].passed
    assert rows["BAR"].passed


def test_jarzynski_holds_below_one_kT(committed):
    s, rows = campaign.SETS["slow"], judged(committed["slow"])
    exact = s.oscillator.works()
    for lost in (exact.forward - exact.delta_f, exact.backward + exact.delta_f):
        assert 0.5 * exact.kT < s.dof * lost <= exact.kT
    for quantity in ("Jarzynski forward", "Jarzynski backward"):
        assert rows[quantity].passed, rows[quantity]


def test_without_rescaling_the_comparison_fails(committed):
    """Eq. 11 and BAR alone would not tell: the two directions err by nearly the same amount."""
    rows = judged(committed["without rescaling"])
    failed = [r for r in rows.values() if not r.passed]
    assert "dissipation, eq. 10" in {r.quantity for r in failed}
    _, wrong = campaign.first_law(committed["without rescaling"])
    _, right = campaign.first_law(committed["slow"])
    assert wrong > 0.5  # kT per atom
    assert right < 0.02


def test_committed_first_law(committed):
    drift, _ = campaign.first_law(committed["demo lengths"])
    assert drift <= campaign.LIMIT_DRIFT


def test_what_remains_of_the_first_law_is_the_time_step(committed):
    """Slopes over 2.6 ps are those of a bounded error, Δt²Ω²/8 k x², which starts from x = 0."""
    s, data = campaign.SETS["slow"], committed["slow"]
    expected = 3.0 * s.oscillator.first_law()  # eV per atom
    time = 1e-3 * campaign.TIMESTEP * np.arange(len(expected))
    slope = np.polyfit(time, expected, 1)[0]
    found = np.array([r["drift"] for r in data["runs"]])
    error = found.std(ddof=1) / np.sqrt(len(found))
    assert abs(found.mean() - slope) < campaign.LIMIT_Z * error
    assert abs(slope) > 5.0 * error  # so the comparison means something
