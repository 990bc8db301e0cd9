"""Estimators on Gaussian works with known ΔF and dissipation.

With W_F ~ N(ΔF + D, σ²) and W_R ~ N(−ΔF + D, σ²), D = σ²/2kT, Crooks' theorem holds exactly.
"""

import logging
import subprocess
import sys

import numpy as np
import pytest
from helpers.coverage import gamma, gaussian

from alchemdriver.analysis.estimators import switching as e
from alchemdriver.analysis.estimators.exploded import exploded
from alchemdriver.errors import AnalysisError
from alchemdriver.units import kT

T = 300.0
KT = kT(T)
DF = 0.37  # eV


def works(rng, n, dissipation_kT, delta_f=DF):
    """(n,) forward and backward works in eV."""
    loss = dissipation_kT * KT
    sd = np.sqrt(2.0 * KT * loss)
    return rng.normal(delta_f + loss, sd, n), rng.normal(-delta_f + loss, sd, n)


def test_all_estimators_find_the_known_difference():
    forward, backward = works(np.random.default_rng(1), 1000, 0.5)
    a = e.analyze_works(forward, backward, T)
    assert a.eq11.value == pytest.approx(DF, abs=4 * a.eq11.se)
    assert a.bar.value == pytest.approx(DF, abs=4 * a.bar.se)
    assert a.dissipation.mean_kT == pytest.approx(0.5, abs=0.1)
    assert a.dissipation.forward == pytest.approx(0.5 * KT, rel=0.25)
    assert a.dissipation.backward == pytest.approx(0.5 * KT, rel=0.25)
    assert a.dissipation.hysteresis == pytest.approx(2 * a.dissipation.mean.value)
    d = a.diagnostics
    for value in (d.jarzynski_forward, d.jarzynski_backward):
        assert value == pytest.approx(DF, abs=0.15 * KT)
    for value in (d.cumulant_forward, d.cumulant_backward):
        assert value == pytest.approx(DF, abs=0.15 * KT)
    assert a.warnings == ()


def test_eq11_by_hand_and_its_errors():
    found = e.analyze_works([1.0, 1.1, 1.2], [0.0, 0.1, 0.2], T, chains=[1, 1, 1]).eq11
    values = [0.5, 0.5, 0.5]
    assert found.value == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.kind == found.se_kind
    assert found.sd_kind == "standard deviation of 3 pairs"
    # their hysteresis asks for more than their scatter: linear response
    assert found.kind.startswith("linear response")
    loss = np.mean([0.5, 0.6, 0.7])
    low = loss - np.sqrt(KT * loss / 3)
    assert found.sigma == pytest.approx(np.sqrt(KT * low / 3))
    values = [1.0, 1.5, 3.25]
    found = e.mean_estimate(np.array(values), "x")
    sigma = np.std(values, ddof=1) / np.sqrt(3)
    assert found.sigma == pytest.approx(sigma)
    assert found.se == pytest.approx(1.3213 * sigma, rel=1e-4)  # Student t, 68.27 %
    half = 4.302653 * sigma  # Student t, 95 %, 2 degrees of freedom
    assert found.ci95 == pytest.approx((found.value - half, found.value + half), rel=1e-6)


def test_dissipation_has_the_sign_of_eq_10():
    """Both directions cost work: a forward/backward swap or a sign slip would make it vanish."""
    a = e.analyze_works([1.1, 1.1], [-0.9, -0.9], T)
    assert a.eq11.value == pytest.approx(1.0)
    assert a.dissipation.mean.value == pytest.approx(0.1)
    swapped = e.analyze_works([-0.9, -0.9], [1.1, 1.1], T)
    assert swapped.eq11.value == pytest.approx(-1.0)
    flipped = e.analyze_works([1.1, 1.1], [0.9, 0.9], T)
    assert flipped.eq11.value == pytest.approx(0.1)


def test_bias_of_eq11_outside_linear_response_is_warned_of():
    """Unequal variances that still obey Crooks: eq. 11 is off, BAR is not, the warnings say it.

    Two-state works: forward W = a or b.  Backward follows from Crooks' theorem.
    """
    rng = np.random.default_rng(4)
    n = 400
    w = np.array([0.5, 8.0]) * KT
    p = np.array([0.3, 0.7])
    delta = -KT * np.log(np.sum(p * np.exp(-w / KT)))
    q = p * np.exp(-(w - delta) / KT)
    forward, backward = rng.choice(w, n, p=p), -rng.choice(w, n, p=q)
    a = e.analyze_works(forward, backward, T)
    assert a.bar.value == pytest.approx(delta, abs=4 * a.bar.se)
    assert abs(a.eq11.value - delta) > 5 * a.eq11.se
    text = " ".join(a.warnings)
    assert "eq. 11 and BAR differ" in text
    assert "scatter differently" in text


def test_large_dissipation_and_poor_overlap_are_warned_of():
    a = e.analyze_works(*works(np.random.default_rng(5), 40, 30.0), T)
    text = " ".join(a.warnings)
    assert "above 2 kT" in text
    assert "hardly overlap" in text


def test_negative_dissipation_is_warned_of():
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 1e-3, (2, 12))
    a = e.analyze_works(0.1 + noise[0], -0.2 + noise[1], T)
    assert any("second law" in w for w in a.warnings)


def test_few_pairs_are_exploratory():
    a = e.analyze_works(*works(np.random.default_rng(6), 9, 0.1), T)
    assert any(w.startswith("exploratory: 9 pairs") for w in a.warnings)
    b = e.analyze_works(*works(np.random.default_rng(6), 10, 0.1), T)
    assert not any("exploratory" in w for w in b.warnings)


def test_one_pair_has_no_error_instead_of_zero_or_nan():
    a = e.analyze_works([0.5], [-0.4], T)
    assert a.eq11.value == pytest.approx(0.45)
    assert a.bar.value == pytest.approx(0.45)
    for found in (a.eq11, a.bar, a.dissipation.mean):
        assert found.se is None
        assert found.sd is None
        assert found.ci95 is None
        assert "not estimated" in found.se_kind
    d = a.diagnostics
    assert (d.cumulant_forward, d.sd_forward, d.variance_p, d.lag1, d.correlated) == (None,) * 5


def test_the_switch_that_exploded_is_named_and_the_rest_is_estimated():
    """The work stays in the data; BAR hardly notices it, and says what it would be without."""
    rng = np.random.default_rng(1)
    forward, backward = rng.normal(1.0, 0.05, 20), rng.normal(-0.95, 0.05, 20)
    clean = e.analyze_works(forward, backward, T, chains=[5] * 4)
    assert not any("broke down" in w for w in clean.warnings)
    forward[12] = 1e5
    names = ["run-a", "run-b", "run-c", "run-d"]
    a = e.analyze_works(forward, backward, T, chains=[5] * 4, replicas=names)
    (named,) = [w for w in a.warnings if "broke down" in w]
    assert named.startswith("the work of run-c, cycle 3, forward, is 1e+05 eV")
    kept = np.arange(20) != 12
    without = e.analyze_works(forward[kept], backward[kept], T, chains=[5, 5, 4, 5]).bar
    (what,) = [w for w in a.warnings if "before corrections" in w]
    assert f"without {1e3 * without.value:.2f} ± {1e3 * without.se:.2f} meV" in what
    assert a.bar.value == pytest.approx(without.value, abs=without.se)
    assert a.bar.se == pytest.approx(clean.bar.se, rel=0.5)
    alone = e.analyze_works(forward, backward, T, chains=[12, 1, 7])  # nothing is left of one
    assert any("replica 2, cycle 1" in w for w in alone.warnings)


def test_gaussian_and_skewed_works_do_not_count_as_exploded():
    rng = np.random.default_rng(2)
    for make in (gaussian, gamma):
        forward, backward = make(rng, (200, 20), 4.0)
        found = [exploded(KT * f, KT * b, T, [20]) for f, b in zip(forward, backward, strict=True)]
        assert sum(map(bool, found)) <= 2


def test_hysteresis_beyond_the_scatter_is_warned_of_and_sets_the_error():
    """108 Cu atoms at 50 K: 5.9 meV dissipated, a scatter that fits 1.2; σ² = 2 kT W says 2.0."""
    t50 = 50.0
    sd = np.sqrt(2 * kT(t50) * 0.4e-3)
    forward = 5.9e-3 + sd * np.array([-1.0, 0.3, 1.1, -0.4])
    backward = 5.9e-3 + sd * np.array([0.5, -1.2, 0.4, 0.3])
    a = e.analyze_works(forward, backward, t50)
    assert any("scatter and hysteresis disagree" in w for w in a.warnings)
    for found in (a.eq11, a.bar):
        assert found.kind.startswith("linear response")
        assert found.se > 1.5e-3
        assert found.se > 1.5 * np.std(0.5 * (forward - backward), ddof=1) / 2


def test_scatter_over_replicas_is_the_error_of_four_and_blocks_that_of_one():
    rng = np.random.default_rng(3)
    forward, backward = rng.normal(0.3, 0.02, 16), rng.normal(-0.28, 0.02, 16)
    pairs = 0.5 * (forward - backward)
    four = e.analyze_works(forward, backward, T, chains=[4] * 4).eq11
    means = pairs.reshape(4, 4).mean(1)
    assert four.kind == "standard error over 4 replicas"
    assert (four.dof, four.sigma) == pytest.approx((3.0, means.std(ddof=1) / 2))
    one = e.analyze_works(forward, backward, T).eq11
    assert "cannot be told from 16 pairs" in one.kind
    # blocks of at most 16 // 5: 3, 3, 3, 3, 2, 2
    assert one.dof == pytest.approx(16**2 / 44 - 1)
    with pytest.raises(AnalysisError, match="chains"):
        e.analyze_works(forward, backward, T, chains=[4] * 3)


def test_bar_agrees_with_pymbars_own_search():
    from pymbar.other_estimators import bar

    rng = np.random.default_rng(7)
    for dissipation in (0.1, 2.0, 9.0):
        forward, backward = works(rng, 30, dissipation)
        theirs = bar(forward / KT, backward / KT, relative_tolerance=1e-13)
        assert e.bar(forward, backward, T) == pytest.approx(theirs["Delta_f"] * KT, abs=1e-9)


def test_many_independent_pairs_have_pymbars_asymptotic_error():
    from pymbar.other_estimators import bar

    forward, backward = works(np.random.default_rng(7), 4000, 1.0)
    theirs = bar(forward / KT, backward / KT)["dDelta_f"] * KT
    found = e.analyze_works(forward, backward, T, chains=[1] * 4000).bar
    assert found.se == pytest.approx(theirs, rel=0.05)  # of 4000 pairs, 1/√8000 each


def test_works_without_scatter_or_without_overlap_have_no_bar_error():
    same = e.analyze_works([0.1] * 5, [-0.1 + 1e-9] * 5, T)
    assert same.bar.value == pytest.approx(0.1)
    for found in (same.bar, same.eq11):
        assert (found.se, found.ci95) == (None, None)
        assert "without scatter" in found.kind
    far = e.analyze_works(np.linspace(60, 61, 12), np.linspace(40, 41, 12), T)
    assert 10.0 - 1.0 < far.bar.value < 10.0 + 1.0
    assert far.bar.se is None or far.bar.se > 1e-3
    assert any("hardly overlap" in w for w in far.warnings)


def test_overlap_runs_from_one_half_to_zero():
    assert e.bar_overlap([DF] * 3, [-DF] * 3, DF, T) == pytest.approx(0.5)
    assert e.bar_overlap([DF + 1] * 3, [-DF + 1] * 3, DF, T) < 1e-10


def test_correlated_cycles_are_found_and_independent_ones_are_not():
    rng = np.random.default_rng(8)
    n = 60
    drift = np.zeros(n)
    for k in range(1, n):
        drift[k] = 0.8 * drift[k - 1] + rng.normal(0, 0.01)
    slow = e.analyze_works(DF + drift, -DF - drift, T)
    assert slow.diagnostics.correlated
    assert any("correlated" in w for w in slow.warnings)
    flags = [e.analyze_works(*works(rng, n, 0.2), T).diagnostics.correlated for _ in range(20)]
    assert sum(flags) <= 3


def test_neighbours_in_different_replicas_are_not_neighbours():
    steps = [np.full(4, float(k)) for k in range(6)]
    assert e.lag1(steps) == pytest.approx(1.0)
    alone = [np.array([float(k)]) for k in range(20)]
    assert e.lag1(alone) is None


def test_errors_are_reproducible_and_blind_to_a_shift():
    forward, backward = works(np.random.default_rng(9), 12, 0.5)
    a, b = (e.analyze_works(forward, backward, T) for _ in range(2))
    assert a == b
    c = e.analyze_works(forward + 100.0, backward - 100.0, T)
    assert c.bar.value - 100.0 == pytest.approx(a.bar.value, abs=1e-9)
    assert c.bar.se == pytest.approx(a.bar.se, rel=1e-6)


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [
        ([], [], "at least one"),
        ([1.0, 2.0], [1.0], "2 forward and 1 backward"),
        ([float("nan")], [1.0], "not finite"),
    ],
)
def test_works_that_cannot_be_used_are_refused(forward, backward, message):
    with pytest.raises(AnalysisError, match=message):
        e.analyze_works(forward, backward, T)


def test_pymbar_stays_quiet_and_loggers_stay_as_they_were():
    code = (
        "import logging; before = list(logging.getLogger().handlers)\n"
        "from alchemdriver.analysis import analyze_works\n"
        "analyze_works([.1, .2, .15], [-.1, -.12, -.13], 300.)\n"
        "from alchemdriver.analysis.estimators.fixed_lambda import equilibrium_mean\n"
        "import numpy; equilibrium_mean(numpy.random.default_rng(0).normal(size=100))\n"
        "assert logging.getLogger().handlers == before\n"
        "assert logging.getLogger('pymbar').level == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert logging.getLogger("pymbar").level == 0
