"""Holds: correlation time against a known process, volume that has not settled."""

import numpy as np
import pytest
from helpers.analysis_files import HEADER, lambdas, property_row, switching_input, write_outputs
from scipy.signal import lfilter

from alchemdriver import analysis
from alchemdriver.analysis.estimators.holds import drifts, examine, relaxation
from alchemdriver.analysis.run import UNVERIFIED


def autoregressive(rng, n, rho):
    x = np.zeros(n)
    for k in range(1, n):
        x[k] = rho * x[k - 1] + rng.normal()
    return x


def test_correlation_time_of_a_known_process():
    """g = (1 + ρ)/(1 − ρ), so τ = ρ/(1 − ρ) rows."""
    rho, dt = 0.95, 1e-3
    holds = [
        examine("hold0", [autoregressive(np.random.default_rng(seed), 4001, rho)], dt)[0]
        for seed in range(8)
    ]
    assert holds[0].duration == pytest.approx(4.0)
    # each is uncertain by 25 %
    times = [hold.correlation_time for hold in holds]
    assert np.mean(times) == pytest.approx(rho / (1 - rho) * dt, rel=0.35)
    assert not any(hold.short or hold.untold for hold in holds)


def test_several_holds_shorter_than_the_correlation_time_are_called_short():
    """One such hold cannot tell; cut from a long series, together they can."""
    series = autoregressive(np.random.default_rng(2), 6000, 0.98)  # τ = 49 rows
    holds = examine("hold1", np.split(series, 60), 1e-3)
    assert [h.cycle for h in holds] == list(range(60))
    assert all(h.short for h in holds)
    assert not any(h.short for h in examine("hold1", np.split(series, 6), 1e-3))


def test_volume_that_settles_and_volume_that_drifts():
    rng = np.random.default_rng(3)
    gradient = rng.normal(size=2000)
    volume = 500 + autoregressive(rng, 2000, 0.8)
    (still,) = examine("hold1", [gradient], 1e-3, [volume])
    assert not still.drifts
    (moving,) = examine("hold1", [gradient], 1e-3, [volume + np.linspace(0, 8, 2000)])
    assert moving.drifts
    assert moving.volume_drift == pytest.approx(4.0, abs=4 * moving.volume_drift_se)


def test_volume_comes_from_the_property_file(tmp_path):
    path = switching_input(tmp_path / "r", 200, 5, 1, ensemble="npt")
    lam = lambdas(path)
    rng = np.random.default_rng(4)
    write_outputs(path, 1.0 + 0.01 * rng.normal(size=len(lam)))
    volume = 500 + rng.normal(size=len(lam)) + np.arange(len(lam)) * 0.1
    header = HEADER + "# column   4     --> volume{angstrom3} : The volume of the cell box.\n"
    rows = [property_row(k, k, 0.0, v) for k, v in enumerate(volume)]
    (path.parent / "run.out").write_text(header + "".join(rows))
    result = analysis.analyze(path, write=False)
    assert [h.kind for h in result.replicas[0].holds] == ["hold0", "hold1"]
    assert all(h.drifts for h in result.replicas[0].holds)
    assert any("volume still drifts in 2 of 2 holds" in w for w in result.warnings)


def test_each_hold_is_judged_by_its_own_volumes(tmp_path):
    """One end is larger than the other, by far: no hold that has settled is blamed for that."""
    path = switching_input(tmp_path / "r", 200, 5, 2, ensemble="npt")
    lam = lambdas(path)
    rng = np.random.default_rng(4)
    write_outputs(path, 1.0 + 0.01 * rng.normal(size=len(lam)))
    volume = 500 + 40.0 * lam + rng.normal(size=len(lam))
    header = HEADER + "# column   4     --> volume{angstrom3} : The volume of the cell box.\n"
    rows = [property_row(k, k, 0.0, v) for k, v in enumerate(volume)]
    (path.parent / "run.out").write_text(header + "".join(rows))
    holds = analysis.analyze(path, write=False).replicas[0].holds
    assert [(h.kind, h.cycle) for h in holds] == [
        ("hold0", 0), ("hold0", 1), ("hold1", 0), ("hold1", 1),
    ]  # fmt: skip
    assert not any(h.drifts for h in holds)
    assert all(abs(h.volume_drift) < 1.0 for h in holds)


def test_switches_without_holds_are_warned_of(tmp_path):
    path = switching_input(tmp_path / "r", 0, 5, 1)
    write_outputs(path, np.ones(11))
    result = analysis.analyze(path, write=False)
    assert any("without a hold" in w for w in result.warnings)


def test_constant_gradient_has_no_correlation_time(tmp_path):
    path = switching_input(tmp_path / "r", 40, 5, 1)
    write_outputs(path, np.ones(91))
    holds = analysis.analyze(path, write=False).replicas[0].holds
    assert all(h.correlation_time is None and not h.short for h in holds)


def test_holds_of_a_few_rows_are_called_unchecked(tmp_path):
    """BAR from switches whose starts nobody looked at carries a label that says so."""
    rng = np.random.default_rng(5)
    for rows, unchecked in ((18, True), (100, False)):
        path = switching_input(tmp_path / f"{rows}", rows, 5, 2)
        write_outputs(path, 1.0 + 0.01 * rng.normal(size=4 * (rows + 5) + 1))
        result = analysis.analyze(path, write=False)
        assert any("fewer than 20 rows" in w for w in result.warnings) == unchecked
        assert (UNVERIFIED in result.labels) == unchecked
        assert (UNVERIFIED in analysis.summary(result)) == unchecked


def test_holds_that_still_relax_are_told_from_those_that_have_relaxed(tmp_path):
    """The beginning of a hold may relax, its end may not; one number for all cycles."""
    rng = np.random.default_rng(6)
    time = np.arange(401)
    for length, relaxing in ((30.0, False), (250.0, True)):
        holds = examine(
            "hold1",
            [np.exp(-time / length) + 0.1 * rng.normal(size=401) for _ in range(4)],
            1e-3,
        )
        drift, se = relaxation(holds)
        assert drifts(drift, se) == relaxing
        exact = np.exp(-time[301:] / length).mean() - np.exp(-time[201:301] / length).mean()
        assert drift == pytest.approx(exact, abs=4 * se)
    assert relaxation(examine("hold0", [np.ones(30)], 1e-3)) is None


@pytest.mark.parametrize(("cycles", "rho", "q"), [(1, 0.0, 30), (9, 0.0, 30), (4, 0.8, 300)])
def test_error_of_the_relaxation_is_its_scatter(cycles, rho, q):
    """Two means of q rows differ by σ √(2 g/q), g = (1 + ρ)/(1 − ρ); their mean over cycles by √n
    less.

    Too small an error calls settled holds relaxing, too large a one hides what relaxes.
    """
    sd, times = 0.3, 100
    noise = sd * np.random.default_rng(8).normal(size=(times, cycles, 4 * q + 200))
    series = lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise)[..., 200:]
    found = [relaxation(examine("hold1", list(holds), 1e-3)) for holds in series]
    drift, se = np.array(found).T
    exact = sd * np.sqrt(2.0 * (1 + rho) / (1 - rho) / q / cycles)
    assert drift.std() == pytest.approx(exact, rel=4.0 / np.sqrt(2 * times))
    # g of white noise, from a finite series, is 1 or a little more
    assert np.median(se) == pytest.approx(exact, rel=0.2)
    assert abs(drift.mean()) < 4.0 * exact / np.sqrt(times)


def test_error_of_the_volumes_drift_is_its_scatter():
    """The same for the two halves of one hold, whose volumes are correlated."""
    rho, n, times = 0.8, 600, 120
    noise = np.random.default_rng(9).normal(size=(times, 2 * n + 200))
    volumes = 500.0 + lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise)[:, 200:]
    holds = [examine("hold0", [np.ones(2 * n)], 1e-3, [volume])[0] for volume in volumes]
    exact = np.sqrt(2.0 * (1 + rho) / (1 - rho) / n)
    assert np.std([h.volume_drift for h in holds]) == pytest.approx(
        exact, rel=4.0 / np.sqrt(2 * times)
    )
    assert np.median([h.volume_drift_se for h in holds]) == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(
    ("levels", "drift"), [((3.0, 2.0, 1.0, 1.0), 0.0), ((1.0, 1.0, 1.0, 1.2), 0.2)]
)
def test_the_end_of_a_hold_decides(levels, drift):
    """The switch starts from the last quarter: what happened before the third is forgotten."""
    gradient = np.repeat(levels, 100) + 0.01 * np.random.default_rng(10).normal(size=400)
    found, se = relaxation(examine("hold1", [gradient], 1e-3))
    assert found == pytest.approx(drift, abs=4.0 * se)
    assert se < 0.01
    assert drifts(found, se) == (drift > 0.0)


def test_relaxing_holds_are_warned_of(tmp_path):
    path = switching_input(tmp_path / "r", 400, 5, 2)
    rng = np.random.default_rng(7)
    gradient = 0.02 * rng.normal(size=1621)
    for start in (405, 1215):  # holds at λ = 1
        gradient[start : start + 401] += np.exp(-np.arange(401) / 250.0)
    write_outputs(path, gradient)
    result = analysis.analyze(path, write=False)
    assert any("still relaxes at the end of the holds at λ = 1" in w for w in result.warnings)
    assert not any("holds at λ = 0" in w for w in result.warnings)
    assert UNVERIFIED in result.labels
