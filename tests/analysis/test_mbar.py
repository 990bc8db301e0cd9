"""MBAR on windows whose answer is known, and what it says when it cannot be trusted."""

import numpy as np
import pytest
from helpers.analysis_files import write_input, write_outputs

from alchemdriver import analysis
from alchemdriver.analysis.estimators.fixed_lambda import fixed_window
from alchemdriver.analysis.estimators.mbar import log_weights, u_nk_frame
from alchemdriver.analysis.estimators.reduced import Samples, independent, states
from alchemdriver.analysis.files.frames import read_frames
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError
from alchemdriver.units import kT

LINEAR = "interpolation: linear"


def windows(folder, lams, dof, ratio=3.0, n=400, seed=1, keys=LINEAR, **options):
    """*dof* oscillators, k 1 → *ratio*: F(λ) = dof/2 kT ln(1 + (ratio−1) λ)."""
    rng = np.random.default_rng(seed)
    paths = []
    for i, lam in enumerate(lams):
        path = write_input(folder / f"l{i}", f"lambda: {lam!r}, {keys}", n - 1, seed=i, **options)
        x = rng.normal(0, np.sqrt(kT(300.0) / (1.0 + (ratio - 1.0) * lam)), (n, dof))
        write_outputs(path, 0.5 * (ratio - 1.0) * np.sum(x**2, axis=1))
        paths.append(path)
    return paths


@pytest.mark.parametrize("lams", [(0.0, 1.0), (0.0, 0.3, 1.0), (0.2, 0.5, 0.8)])
def test_oscillators_are_exact_whatever_the_windows(tmp_path, lams):
    """MBAR needs no rule: two windows, uneven ones, ends that were not run."""
    m = analysis.analyze(windows(tmp_path, lams, 6), write=False).mbar
    exact = 3.0 * kT(300.0) * np.log(1.0 + 2.0 * m.lambdas)
    assert np.all(np.abs(m.free_energies - exact)[1:] < 3.0 * m.errors[1:])
    assert m.estimate.se < 0.1 * exact[-1]
    assert tuple(m.lambdas) == states(lams)
    assert not m.warnings


def test_poor_overlap_is_warned_of(tmp_path):
    """Sixty degrees of freedom whose springs stiffen twelvefold: no configuration fits both."""
    result = analysis.analyze(windows(tmp_path, (0.0, 1.0), 60, 12.0, n=150), write=False)
    assert result.mbar.neighbours[0] < 0.03
    assert any("hardly overlap" in w and "between" in w for w in result.warnings)
    several = np.linspace(0, 1, 9) ** 2
    result = analysis.analyze(windows(tmp_path / "s", several.tolist(), 60, 12.0), write=False)
    assert result.mbar.neighbours.min() > 0.03
    assert not any("hardly overlap" in w for w in result.warnings)


def test_far_extrapolation_to_an_end_is_warned_of(tmp_path):
    result = analysis.analyze(windows(tmp_path, (0.6, 0.8), 30, 12.0), write=False)
    assert any("extrapolates to λ = 0" in w for w in result.warnings)
    assert any(w.startswith("no TI") for w in result.warnings)
    assert [t.method for t in result.totals] == ["MBAR"]


def test_weights_are_those_of_pymbar():
    rng = np.random.default_rng(3)
    k, counts = np.array([1.0, 2.0, 4.0]), np.array([300, 0, 200])
    x = np.concatenate([rng.normal(0, k[i] ** -0.5, counts[i]) for i in range(3)])
    u = 0.5 * k[None, :] * x[:, None] ** 2
    from pymbar import MBAR

    found = MBAR(u.T, counts)
    f = found.f_k
    weights = np.exp(log_weights(u, f, counts))
    np.testing.assert_allclose(weights, found.W_nk, rtol=1e-8)


def test_pressure_times_volume_falls_out(tmp_path):
    """It stands in the reduced potentials, and any constant of a configuration changes nothing."""
    from alchemlyb.estimators import MBAR

    rng = np.random.default_rng(4)
    lams, parts, squeezed = (0.0, 1.0), [], []
    for lam in lams:
        g = kT(300.0) * rng.normal(0.5 - lam, 1.0, 300)
        energies = np.outer(g, np.array(lams) - lam)
        time = np.arange(300.0)
        parts.append(Samples(lam, time, energies, np.zeros(300)))
        squeezed.append(Samples(lam, time, energies, rng.normal(30.0, 0.3, 300)))
    tables = [u_nk_frame(p, lams, 300.0) for p in (parts, squeezed)]
    assert (tables[1] - tables[0]).to_numpy().mean() == pytest.approx(30.0 / kT(300.0), rel=0.01)
    a, b = (MBAR().fit(t).delta_f_.loc[0.0, 1.0] for t in tables)
    assert a == pytest.approx(b, abs=1e-6)


def test_samples_are_after_equilibration_and_g_apart(tmp_path):
    rng = np.random.default_rng(5)
    noise = np.convolve(rng.normal(size=4000), np.ones(12), mode="valid")
    path = write_input(tmp_path / "r", f"lambda: 0.5, {LINEAR}", len(noise) - 1)
    write_outputs(path, noise + 60.0 * np.exp(-np.arange(len(noise)) / 60.0))
    window = fixed_window(read_input(path))
    assert window.equilibration > 0
    rows = independent(np.arange(len(noise)), window)
    assert rows[0] >= window.equilibration
    assert np.diff(rows).min() >= window.inefficiency > 5
    every_seventh = independent(np.arange(0, len(noise), 7), window)
    assert set(every_seventh % 7) == {0}
    assert np.diff(every_seventh).min() >= window.inefficiency


def test_without_energies_at_other_lambda_there_is_ti_and_a_reason(tmp_path):
    result = analysis.analyze(windows(tmp_path, (0.0, 0.5, 1.0), 3, keys="dtype: float64"))
    assert result.mbar is None
    assert [t.method for t in result.totals] == ["TI"]
    assert any(w.startswith("no MBAR:") and "digest" in w for w in result.warnings)


def test_windows_that_share_a_seed_or_are_unfinished_are_told(tmp_path):
    paths = windows(tmp_path, (0.0, 1.0), 3)
    paths[1].write_text(paths[1].read_text().replace("<seed>1<", "<seed>0<"))
    text = paths[0].read_text()
    paths[0].write_text(text.replace("<total_steps>399<", "<total_steps>500<"))
    result = analysis.analyze(paths, write=False)
    assert any("share the seed 0" in w for w in result.warnings)
    assert any("stopped at step 399 of 500" in w for w in result.warnings)
    assert result.labels == ("partial",)


# --- frames -------------------------------------------------------------------------------------


def frame(step, z, n=4):
    rows = "".join(f"Cu  {0.1 * i:16.8f} {0:16.8f} {z:16.8f}\n" for i in range(n))
    return (
        f'{n}\nLattice="6.0 0.0 0.0 0.0 6.0 0.0 0.0 0.0 6.0" Properties=species:S:1:pos:R:3 '
        f'ipi_comment="Step: {step:11d}  Bead:       0 positions{{ase}}  cell{{ase}}" pbc="T T T"\n'
        + rows
    )


@pytest.fixture
def run(tmp_path):
    path = write_input(tmp_path / "r", "lambda: 0.5", 30)
    text = path.read_text().replace(
        "</output>",
        "<trajectory stride='10' filename='pos' format='ase'> positions </trajectory></output>",
    )
    path.write_text(text)
    return path


def test_torn_and_repeated_frames_are_those_of_the_later_branch(run):
    """A kill tears step 20 in the middle of a number; the resumed run begins again from step 10."""
    torn = frame(20, 2.0)[:-6]
    text = frame(0, 0.0) + frame(10, 1.0) + torn + frame(10, 1.0) + frame(20, 2.5) + frame(30, 3.0)
    trajectory = run.parent / "run.pos_0.extxyz"
    trajectory.write_text(text)
    found = read_frames(read_input(run))
    np.testing.assert_array_equal(found.steps, [0, 10, 20, 30])
    np.testing.assert_allclose(found.positions[:, 0, 0, 2], [0.0, 1.0, 2.5, 3.0], atol=1e-7)
    assert len(set(found.keys)) == 4
    trajectory.write_text(text[:-6])  # the last frame is torn and never came again
    np.testing.assert_array_equal(read_frames(read_input(run)).steps, [0, 10, 20])
    # the same configuration has the same key wherever it stands
    assert read_frames(read_input(run)).keys == found.keys[:3]


def test_frames_of_other_atoms_and_gaps_are_refused(run):
    trajectory = run.parent / "run.pos_0.extxyz"
    trajectory.write_text(frame(0, 0.0).replace("Cu", "Ag"))
    with pytest.raises(AnalysisError, match="other atoms"):
        read_frames(read_input(run))
    trajectory.write_text(frame(0, 0.0) + frame(20, 0.0))
    with pytest.raises(AnalysisError, match="a gap"):
        read_frames(read_input(run))


def test_plain_xyz_has_too_few_digits(run):
    run.write_text(run.read_text().replace("format='ase'", "format='xyz'"))
    with pytest.raises(AnalysisError, match="enough digits"):
        read_frames(read_input(run))
