"""Means of correlated series: g of known processes, errors that cover, and what is not told."""

import numpy as np
import pytest
from helpers.coverage import energies, oscillator_rho, series_case, stationary

from alchemdriver.analysis.estimators.holds import examine
from alchemdriver.analysis.estimators.series import (
    BLOCKS,
    correlation,
    drift,
    equilibration,
    mean_of,
)

ROWS, STEP = 2500, 4.0  # 10 ps


def test_oscillations_do_not_hide_what_correlates():
    """½ Σ x² of Langevin oscillators: ρ = (ρ_x)² touches zero every half period; g is its sum."""
    rho = oscillator_rho(ROWS, 160.0, 200.0, STEP) ** 2
    exact = 1.0 + 2.0 * rho[1:].sum()
    assert exact == pytest.approx(50.0, rel=0.05)  # τ in rows: half of the 2 τ of an exponential
    data = energies(np.random.default_rng(1), 40, ROWS, [160.0] * 6, 200.0, STEP)
    found = [correlation([x]) for x in data]
    assert np.mean([c.inefficiency for c in found]) == pytest.approx(exact, rel=0.3)
    case = series_case(data)["mean"]
    assert case.told > 0.85
    assert case.one_sigma > 0.5  # a sum to the first zero: 0.34; 40 repetitions: ± 0.07
    assert case.ninety_five > 0.8  # and 0.65


def test_a_slow_mode_of_little_variance_is_seen():
    """91 % of the variance oscillates and is gone in 100 fs, 9 % relaxes over 50 rows."""
    t = np.arange(2 * ROWS + 1)
    fast = np.exp(-t * STEP / 100.0) * np.cos(2.0 * np.pi * t * STEP / 160.0)
    rho = 0.91 * fast + 0.09 * np.exp(-t / 50.0)
    exact = 1.0 + 2.0 * rho[1:ROWS].sum()
    data = stationary(np.random.default_rng(2), 40, ROWS, rho)
    found = np.mean([correlation([x]).inefficiency for x in data])
    assert found == pytest.approx(exact, rel=0.3)
    # the oscillating part alone has 2.9: a sum that stops at the first zero has 4
    assert exact > 7.0


@pytest.mark.parametrize("n_tau", [2.0, 8.0])
def test_a_series_of_few_relaxation_times_has_no_error_and_says_why(n_tau):
    rho = np.exp(-np.arange(2 * ROWS + 1) * n_tau / ROWS)
    data = stationary(np.random.default_rng(3), 40, ROWS, rho)
    means = [mean_of(x)[1] for x in data]
    untold = [m for m in means if m.se is None]
    assert len(untold) >= 34
    assert all("relaxation times" in m.kind for m in untold)


def test_a_relaxation_time_that_the_input_tells_counts():
    x = np.random.default_rng(4).normal(size=1000)
    assert mean_of(x)[1].se is not None
    found, mean = mean_of(x, slowest=1000 / (4.0 * BLOCKS) + 1.0, per_row=2e-3, unit="ps")
    assert not found.told
    assert mean.se is None
    assert "2 ps hold" in mean.kind


@pytest.mark.parametrize(
    ("series", "why"),
    [(np.arange(5.0), "20 are needed"), (np.ones(50), "without scatter")],
)
def test_few_rows_and_constants_have_no_error(series, why):
    mean = mean_of(series)[1]
    assert (mean.se, mean.ci95, mean.dof) == (None, None, None)
    assert why in mean.kind


def test_only_what_stands_out_is_left_out():
    rng = np.random.default_rng(5)
    rho = 0.9 ** np.arange(4001)
    still = stationary(rng, 60, 2000, rho)
    assert np.mean([equilibration(x) > 0 for x in still]) < 0.1
    moving = still + 5.0 * np.exp(-np.arange(2000) / 100.0)
    cuts = [equilibration(x) for x in moving]
    assert np.mean([100 <= c <= 600 for c in cuts]) > 0.9


def test_the_error_of_a_drift_is_its_scatter():
    rho = 0.9 ** np.arange(4001)
    data = stationary(np.random.default_rng(6), 120, 2000, rho)
    found = np.array([drift([x[:1000]], [x[1000:]]) for x in data])
    exact = np.sqrt(2.0 * 19.0 / 1000.0)
    assert found[:, 0].std() == pytest.approx(exact, rel=0.25)
    assert np.sqrt(np.mean(found[:, 1] ** 2)) == pytest.approx(exact, rel=0.25)


@pytest.mark.parametrize(("length", "cycles"), [(1.0, 1), (2.5, 1), (1.0, 4), (2.5, 4)])
def test_holds_of_a_few_correlation_times_seldom_pass(length, cycles):
    """Called too short, or such that it cannot be told: not long enough."""
    tau = 50.0
    n = int(length * tau)
    rng, rho = np.random.default_rng(7), np.exp(-np.arange(2 * n + 1) / tau)
    passed = 0
    for _ in range(60):
        holds = examine("hold0", list(stationary(rng, cycles, n, rho)), 1e-3)
        passed += not any(h.short or h.untold for h in holds)
    assert passed <= 6  # of 60; a sum to the first zero passes 48
