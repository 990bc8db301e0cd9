"""Friction along a path, and the schedule that dissipates least, of oscillators in closed form."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import real_runs as rr
from helpers.coverage import energies
from helpers.moments import COPPER, Oscillator

from alchemdriver import units
from alchemdriver.analysis.estimators.friction import friction, of_holds
from alchemdriver.analysis.estimators.holds import Hold
from alchemdriver.contract.schedule import linear, poly9
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.workflow import tune

SOFT_TO_STIFF = Oscillator(k_initial=1.0, k_final=20.0)
DT = 2.0**-10  # ps
MASS = COPPER * units.DALTON_ANGSTROM2_PER_FS2_EV


def exact_friction(o: Oscillator, lam: np.ndarray) -> np.ndarray:
    """ζ = (Δk² kT/4k²)(1/γ + γm/k), eV ps: ∂H/∂λ = ½ Δk x², ⟨x² x²(t)⟩ − ⟨x²⟩² = 2 (kT/k)² φ²,
    ∫ φ² dt = ½ (1/γ + γm/k) of a damped oscillator's correlation φ."""
    change = o.k_final - o.k_initial
    k = o.k_initial + change * lam
    time = 1.0 / o.friction + o.friction * MASS / k
    return 1e-3 * change**2 * o.kT / (4.0 * k**2) * time


def switched(o: Oscillator, shape, duration: float, steps: int):
    """λ, and the exact mean ∂H/∂λ on the ways out and back, the latter reversed."""
    times = np.linspace(0.0, duration, steps + 1)
    out = o.gradient(times, lambda t: shape(min(1.0, max(0.0, t / duration))))
    back = o.gradient(times, lambda t: shape(min(1.0, max(0.0, 1.0 - t / duration))))
    return np.array([shape(t / duration) for t in times]), out, back[::-1]


def dissipated(o: Oscillator, shape, duration: float, steps: int = 1000) -> float:
    lam, out, back = switched(o, shape, duration, steps)
    rows = 0.5 * (out - back)
    return float(np.sum(0.5 * (rows[1:] + rows[:-1]) * np.diff(lam)))


def test_the_tuned_schedule_dissipates_hardly_more_than_the_least_there_is():
    """k 1 → 20 eV/Å², a friction that falls by 600; a pilot of 6 ps whose pairs scatter by 5 %."""
    o, duration, steps = SOFT_TO_STIFF, 6000.0, 1500
    lam, out, back = switched(o, linear, duration, steps)
    scatter = np.array([-0.05, 0.0, 0.05])[:, None]
    found = friction(lam, out + scatter * (out - back), np.tile(back, (3, 1)), 1e-3 * 4.0)
    grid = np.linspace(0.0, 1.0, 4001)
    zeta = exact_friction(o, grid)
    assert zeta.max() / zeta.min() > 30.0
    root = np.sqrt(zeta)
    length = np.sum(0.5 * (root[1:] + root[:-1]) * np.diff(grid))
    table, long = found.table(), 10000.0  # fs; relaxation takes 166 at most
    tuned = dissipated(o, lambda x: float(np.interp(x, *table.T)), long)
    assert tuned <= 1.15 * length**2 / (1e-3 * long)
    usual = dissipated(o, poly9, long)
    assert usual >= 1.6 * tuned
    inside = (grid > 0.05) & (grid < 0.95)
    assert np.abs(np.log(found.at(grid) / zeta))[inside].max() < 0.35
    assert found.dissipation(poly9, 1e-3 * long) == pytest.approx(usual, rel=0.05)


def test_holds_show_the_friction_of_their_end():
    """½ Σ x² of eight oscillators of 160 fs, τ 200 fs: ζ = 8 · ½ ∫ φ² dt/kT in their units."""
    tau, period, step = 200.0, 160.0, 4.0
    series = energies(np.random.default_rng(3), 30, 2500, [period] * 8, tau, step)
    expected = 8 * 0.5 * 0.5 * (tau + 1.0 / (tau * (2.0 * np.pi / period) ** 2))  # fs
    kt = units.KB_EV * 300.0
    ratios = []
    for x in series:
        value, error = of_holds(np.split(x, 5), 1e-3 * step, 300.0)
        ratios.append(np.log(value * kt / (1e-3 * expected)) / error)
    assert abs(np.mean(ratios)) < 0.6  # a bias is less than the error that is stated
    assert 0.5 < np.std(ratios) < 1.4


def test_the_error_of_friction_covers_it():
    """Pairs with noise of their own: ln ζ is off by its stated error."""
    o, rng = SOFT_TO_STIFF, np.random.default_rng(5)
    lam = np.linspace(0.0, 1.0, 801)
    middle = np.array([0.2, 0.5, 0.8])
    zeta = exact_friction(o, lam)
    offs = []
    for _ in range(40):
        # a switch of 8 ps: g_F − g_R = 2 ζ λ̇, and noise that is the same at all λ
        noise = rng.normal(size=(12, 801)) * 0.4 * np.sqrt(zeta)
        found = friction(lam, zeta / 8.0 + noise, -zeta / 8.0 - noise, 0.01)
        offs.append(np.log(found.at(middle) / exact_friction(o, middle)) / found.error(middle))
    assert 0.4 < np.sqrt(np.mean(np.square(offs))) < 1.6


def test_a_pilot_without_dissipation_or_pairs_is_refused():
    lam, ones = np.linspace(0.0, 1.0, 50), np.ones((5, 50))
    with pytest.raises(AnalysisError, match="no dissipation"):
        friction(lam, ones, ones, 1e-3)
    with pytest.raises(AnalysisError, match="3 pairs of switches or more, got 2"):
        friction(lam, ones[:2], -ones[:2], 1e-3)


def test_holds_that_do_not_show_how_long_they_remember_are_not_shortened():
    known = Hold("hold0", 0, 5.0, 0.125, None, None, 500, None, None, blocks=50.0)
    untold, none = replace(known, blocks=2.0), replace(known, correlation_time=None)
    assert tune._hold(900, [known], 0.125, DT)[0] == 768
    steps, reason = tune._hold(900, [known, untold], 0.125, DT)
    assert (steps, "not shortened" in reason) == (900, True)
    steps, reason = tune._hold(300, [untold], 0.125, DT)
    assert (steps, "not shortened" in reason) == (768, False)
    steps, reason = tune._hold(900, [none], 0.125, DT)
    assert (steps, "kept" in reason) == (900, True)


@pytest.mark.parametrize(("held", "why"), [("500", False), ("900", True)])
def test_why_a_tuned_run_costs_more(held, why):
    lam, ones = np.linspace(0.0, 1.0, 50), np.ones((5, 50))
    found = friction(lam, ones, -ones, 1e-3)
    choices = (tune.Choice("equilibrate", "500", held, ""),)
    last = tune.Tuning(found, choices, (1.0, 1.0), 0.5).lines()[-1]
    assert "2 times more" in last
    assert ("holds were too short" in last) == why


def test_a_pilot_that_names_files_elsewhere_is_refused(tmp_path):
    path = rr.oscillator_run(tmp_path / "a", schedule="linear", equilibrate=5, switch=9, cycles=3)
    for name in ("../start.xyz", str(tmp_path / "start.xyz")):
        shutil.copy(tmp_path / "a" / "start.xyz", tmp_path / "start.xyz")
        path.write_text(re.sub(r"(<file[^>]*>)[^<]*", rf"\1 {name} ", path.read_text()))
        with pytest.raises(InputError, match="outside its folder: copy it there first"):
            tune.tune(tmp_path / "a", tmp_path / "out")
        assert not (tmp_path / "out").exists()
