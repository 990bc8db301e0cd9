"""Report, plots and the alchemlyb table."""

import numpy as np
import pytest
from helpers.analysis_files import run_with_works, switching_input, write_input, write_outputs

from alchemdriver import analysis
from alchemdriver.analysis.report.text import with_error
from alchemdriver.errors import AnalysisError
from alchemdriver.units import kT


@pytest.fixture
def switching(tmp_path):
    rng = np.random.default_rng(1)
    path = switching_input(tmp_path / "r", 2, 5, 12)
    run_with_works(path, rng.normal(0.25, 0.02, 12), rng.normal(-0.2, 0.02, 12))
    return analysis.analyze(path)


def windows(tmp_path, lams=(0.0, 0.5, 1.0), n=400, temperature=300.0):
    """An oscillator k 1→3: ∂H/∂λ = ½ (k_f − k_i) x², x² Gaussian at each λ, three dimensions."""
    rng = np.random.default_rng(2)
    folders = []
    for lam in lams:
        path = write_input(
            tmp_path / f"l{lam}", f"lambda: {lam}", n - 1, symbols=("Cu",), temperature=temperature
        )
        x = rng.normal(0, np.sqrt(kT(temperature) / (1.0 + 2.0 * lam)), (n, 3))
        write_outputs(path, np.sum(x**2, axis=1))
        folders.append(path)
    return folders


def test_summary_says_what_was_found(switching):
    text = analysis.summary(switching)
    total = switching.total()
    for piece in (
        "forward, λ 0→1",
        "backward, λ 1→0",
        "whether they are independent cannot be told from 12 pairs",
        "hysteresis",
        "mass term",
        f"{total.value:.3f}",
        "first law",
    ):
        assert piece in text
    assert max(len(line) for line in text.splitlines()) <= 110
    assert all(f"! {w}"[:60] in text for w in switching.warnings)


def test_errors_are_printed_with_two_digits():
    assert with_error(1.23456, 0.0123) == "1.235 ± 0.012 eV"
    assert with_error(-12.3, 1.7) == "-12.3 ± 1.7 eV"
    assert with_error(1.0, None) == "1.000000 eV (error not estimated)"
    assert with_error(None, None) == "not known"


def test_plots_are_written_without_pyplot(switching, tmp_path):
    import sys

    before = "matplotlib.pyplot" in sys.modules
    paths = analysis.save_plots(switching, tmp_path / "plots")
    assert [p.name for p in paths] == ["dhdl.png", "work.png", "works.png"]
    assert all(p.stat().st_size > 5000 for p in paths)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_plot_functions_return_the_axis(switching):
    from matplotlib.figure import Figure

    from alchemdriver.analysis.report import plots

    for draw, what in (
        (plots.dhdl_vs_lambda, switching.runs),
        (plots.cumulative_work, switching.runs),
        (plots.work_histogram, switching),
    ):
        ax = Figure().subplots()
        assert draw(ax, what) is ax
        assert "eV" in ax.get_xlabel() + ax.get_ylabel()
        assert len(ax.get_legend().get_texts()) >= 2


def test_work_of_an_einstein_crystal_is_drawn_less_its_free_energy(tmp_path):
    """−70 eV and 10 meV of dissipation: each direction ends off the chord by what it dissipates."""
    from matplotlib.figure import Figure

    from alchemdriver.analysis.report import plots

    path = switching_input(tmp_path / "r", 2, 5, 2)
    run_with_works(path, [-69.99, -69.98], [70.01, 70.02])
    ax = plots.cumulative_work(Figure().subplots(), analysis.analyze(path, write=False).runs)
    ends = [line.get_ydata()[list(line.get_xdata()).index(1.0)] for line in ax.get_lines()]
    assert "(meV)" in ax.get_ylabel()
    assert ends == pytest.approx([10.0, -10.0, 20.0, -20.0], abs=1e-6)


def test_fixed_lambda_result_integrates_and_plots(tmp_path):
    result = analysis.analyze(windows(tmp_path, np.linspace(0, 1, 9)), write=False)
    assert result.integral.value == pytest.approx(
        1.5 * kT(300.0) * np.log(3), abs=4 * result.integral.se + 1e-4
    )
    assert result.total("TI").value == pytest.approx(result.integral.value + result.terms[0].value)
    paths = analysis.save_plots(result, tmp_path)
    assert [p.name for p in paths] == ["dhdl.png", "mean_dhdl.png"]
    assert "TI:" in analysis.summary(result)


def test_alchemlyb_finds_the_oscillators_free_energy(tmp_path):
    """ΔF = (3/2) kT ln 3, through alchemlyb's own TI."""
    from alchemlyb.estimators import TI

    uneven = np.linspace(0, 1, 11) ** 1.2  # so that ours is the trapezoidal rule too
    result = analysis.analyze(windows(tmp_path, uneven, n=2000), write=False)
    table = analysis.dhdl_frame(result.windows)
    assert list(table.index.names) == ["time", "lambda"]
    assert table.attrs == {"temperature": 300.0, "energy_unit": "kT"}
    found = TI().fit(table)
    delta, error = found.delta_f_.loc[0.0, 1.0], found.d_delta_f_.loc[0.0, 1.0]
    rule = 0.004  # trapezoid over eleven points of 3/(1 + 2λ)
    assert delta == pytest.approx(1.5 * np.log(3), abs=4 * error + rule)
    assert delta * kT(300.0) == pytest.approx(result.integral.value, rel=1e-9)


def test_decorrelated_table_has_fewer_rows(tmp_path):
    rng = np.random.default_rng(3)
    noise = np.convolve(rng.normal(size=3000), np.ones(20), mode="valid")
    path = write_input(tmp_path / "r", "lambda: 0.5", len(noise) - 1)
    write_outputs(path, noise)
    result = analysis.analyze(path, write=False)
    whole = analysis.dhdl_frame(result.windows)
    thin = analysis.dhdl_frame(result.windows, decorrelate=True)
    step = int(np.ceil(result.windows[0].inefficiency))
    assert step > 5
    assert len(thin) == -(-len(whole) // step)


def test_windows_of_different_temperature_are_refused(tmp_path):
    a = analysis.analyze(windows(tmp_path / "a", [0.0]), write=False).windows
    b = analysis.analyze(windows(tmp_path / "b", [1.0], temperature=400.0), write=False).windows
    with pytest.raises(AnalysisError, match="one temperature"):
        analysis.dhdl_frame(a + b)
