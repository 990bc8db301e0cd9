"""Eq. 9 and the first law, on handmade files and on the exactly solved driven oscillator."""

import numpy as np
import pytest
from helpers.analysis_files import lambdas, run_with_works, switching_input, write_outputs
from helpers.moments import Oscillator, switch

from alchemdriver.analysis.estimators import work
from alchemdriver.analysis.estimators.switching import pair_estimates
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError

# design.md, section 5: meV per degree of freedom
EXACT = {"poly9": (0.86871, 0.77994, 0.04438), "linear": (0.50752, 0.47650, 0.01551)}


@pytest.mark.parametrize("shape", list(EXACT))
def test_driven_oscillator_dissipation_through_files(tmp_path, shape):
    """Files in, works out: forward and backward dissipation and eq. 11's bias, all known."""
    oscillator, hold, n = Oscillator(), 2, 2000
    path = switching_input(tmp_path, hold, n, 1, schedule=shape)
    _, out = switch(oscillator, shape, 2000.0, n)
    _, back = switch(oscillator, shape, 2000.0, n, backward=True)
    # the holds are in equilibrium; the way back starts from there
    gradient = np.concatenate([np.full(hold, out[0]), out, np.full(hold - 1, back[0]), back])
    assert len(gradient) == 2 * (hold + n) + 1
    write_outputs(path, gradient)
    run = work.switching_work(read_input(path))
    w_f, w_r = run.forward[0], run.backward[0]
    expected = EXACT[shape]
    assert 1e3 * (w_f - oscillator.delta_f) == pytest.approx(expected[0], abs=2e-5)
    assert 1e3 * (w_r + oscillator.delta_f) == pytest.approx(expected[1], abs=2e-5)
    bias = pair_estimates(run.forward, run.backward).mean() - oscillator.delta_f
    assert 1e3 * bias == pytest.approx(expected[2], abs=2e-5)


def test_slow_switch_approaches_the_reversible_work():
    oscillator = Oscillator()
    losses = [
        work.cumulative_work(*switch(oscillator, "poly9", t, 4000))[-1] - oscillator.delta_f
        for t in (2000.0, 8000.0, 32000.0)
    ]
    assert losses[0] > losses[1] > losses[2] > 0
    assert losses[2] < losses[0] / 10


def test_work_is_the_trapezoid_of_eq_9():
    lam = np.array([0.0, 0.1, 0.4, 1.0])
    gradient = np.array([1.0, 3.0, 5.0, 7.0])
    expected = [0.0, 0.2, 0.2 + 1.2, 0.2 + 1.2 + 3.6]
    np.testing.assert_allclose(work.cumulative_work(lam, gradient), expected)
    # the way back over the same states takes the opposite work
    np.testing.assert_allclose(work.cumulative_work(lam[::-1], gradient[::-1])[-1], -5.0)


def test_forward_and_backward_are_not_swapped(tmp_path):
    path = switching_input(tmp_path, 2, 5, 3)
    forward, backward = [1.0, 2.0, 3.0], [-0.9, -1.8, -2.7]
    run_with_works(path, forward, backward)
    run = work.switching_work(read_input(path))
    np.testing.assert_allclose(run.forward, forward)
    np.testing.assert_allclose(run.backward, backward)
    assert [s.direction for s in run.switches] == ["forward", "backward"] * 3
    assert all(s.lam[0] == 0.0 and s.lam[-1] == 1.0 for s in run.of("forward"))
    assert all(s.lam[0] == 1.0 and s.lam[-1] == 0.0 for s in run.of("backward"))
    assert run.complete
    assert run.pairs == 3


def test_unfinished_run_keeps_complete_pairs_only(tmp_path):
    path = switching_input(tmp_path, 2, 5, 2)
    lam = lambdas(path)
    write_outputs(path, np.ones(len(lam))[:25])  # in the way back of the second cycle
    run = work.switching_work(read_input(path))
    assert not run.complete
    assert (len(run.of("forward")), len(run.of("backward")), run.pairs) == (2, 1, 1)
    assert len(run.forward) == len(run.backward) == 1  # works of half a pair are not averaged over
    write_outputs(path, np.ones(len(lam))[:-1])  # but for its very last step
    run = work.switching_work(read_input(path))
    assert not run.complete
    assert run.pairs == 1


def test_first_law_is_flat_when_conserved_follows_the_work(tmp_path):
    path = switching_input(tmp_path, 5, 200, 2)
    lam = lambdas(path)
    gradient = 1.0 + np.sin(np.arange(len(lam)))
    accumulated = work.cumulative_work(lam, gradient)
    write_outputs(path, gradient, conserved=-7.0 + accumulated)
    law = work.switching_work(read_input(path)).first_law
    assert abs(law.drift) < 1e-12
    assert law.max_deviation < 1e-12
    # 4 meV per ps of drift in four atoms
    ps = np.arange(len(lam)) * 1e-3
    write_outputs(path, gradient, conserved=accumulated + 4e-3 * ps)
    law = work.switching_work(read_input(path)).first_law
    assert law.drift == pytest.approx(1e-3, rel=1e-9)
    assert law.max_deviation == pytest.approx(1e-3 * ps[-1], rel=1e-9)
    # a gradient with the wrong sign shows
    write_outputs(path, gradient, conserved=-accumulated)
    assert work.switching_work(read_input(path)).first_law.max_deviation > 0.1


def test_drift_is_per_time_not_per_step(tmp_path):
    """3 meV per ps in three atoms at 2.5 fs a step."""
    path = switching_input(tmp_path, 5, 200, 1, timestep=2.5, symbols=["Cu"] * 3)
    lam = lambdas(path)
    ps = 2.5e-3 * np.arange(len(lam))
    work_done = work.cumulative_work(lam, np.ones(len(lam)))
    write_outputs(path, np.ones(len(lam)), conserved=work_done + 3e-3 * ps)
    run = work.switching_work(read_input(path))
    assert run.first_law.duration == pytest.approx(ps[-1])
    assert run.first_law.drift == pytest.approx(1e-3, rel=1e-9)
    assert [h.duration for h in run.holds] == pytest.approx([5 * 2.5e-3] * 2)


def test_mixed_temperatures_are_refused(tmp_path):
    runs = []
    for t in (300.0, 400.0):
        path = switching_input(tmp_path / str(t), 1, 2, 1, temperature=t)
        write_outputs(path, np.ones(7))
        runs.append(work.switching_work(read_input(path)))
    with pytest.raises(AnalysisError, match=r"300 K.*400 K"):
        work.common_temperature(runs)
