"""Runs at fixed λ: what is left out as equilibration is left out everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.analysis_files import HEADER, extras_block, property_row, write_input
from scipy import stats
from scipy.signal import lfilter

from alchemdriver import units
from alchemdriver.analysis.estimators.fixed_lambda import equilibrium_mean, fixed_window
from alchemdriver.contract.run_input import read_input


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_error_is_that_of_the_rows_that_count(rho):
    """σ = SD √(g/n), n and g of the equilibrated half; se and ci95 are Student's for σ."""
    exact = 0.2 * np.sqrt((1 + rho) / (1 - rho))
    found = []
    for seed in range(12):
        noise = np.random.default_rng(seed).normal(size=8200)
        series = lfilter([np.sqrt(1 - rho**2)], [1.0, -rho], noise)[200:]
        series[:4000] += np.linspace(40.0, 0.0, 4000)
        start, g, mean = equilibrium_mean(7.0 + 0.2 * series)
        assert 3700 <= start <= 4800
        assert mean.value == pytest.approx(7.0, abs=5.0 * exact / np.sqrt(8000 - start))
        found.append((g, mean.sigma * np.sqrt(8000 - start)))
    # 100 bins know a variance to 25 %, twelve of them its mean to 7 %, and overrate it by 15 %
    assert np.mean(found, axis=0)[0] == pytest.approx((1 + rho) / (1 - rho), rel=0.35)
    assert np.mean(found, axis=0)[1] == pytest.approx(exact, rel=0.2)
    assert mean.n == pytest.approx((8000 - start) / g, abs=1)
    assert mean.se / mean.sigma == pytest.approx(stats.t.ppf(0.8413447, mean.dof), rel=1e-6)
    half = stats.t.ppf(0.975, mean.dof) * mean.sigma
    assert np.subtract(mean.ci95, mean.value) == pytest.approx([-half, half])


@pytest.mark.parametrize("late", [False, True])
def test_the_volume_is_looked_at_after_equilibration(tmp_path, late):
    """Rows every fifth step: the volume expands while the gradient relaxes, or after that."""
    path = write_input(
        tmp_path / "w", "lambda: 0.5", 4999, ensemble="npt",
        pressure="<pressure units='bar'>1</pressure>",
    )  # fmt: skip
    text = path.read_text(encoding="utf-8").replace("stride='1'", "stride='5'")
    path.write_text(text, encoding="utf-8")
    rng = np.random.default_rng(2)
    gradient, volume = rng.normal(size=(2, 1000))
    gradient[:400] += np.linspace(40.0, 0.0, 400)
    growing = slice(600, 900) if late else slice(0, 350)
    volume[growing] -= np.linspace(20.0, 0.0, growing.stop - growing.start)
    volume[: growing.start] -= 20.0
    extras = [extras_block(5 * k, g * units.ELECTRONVOLT) for k, g in enumerate(gradient)]
    (path.parent / "run.dHdlambda_0").write_text("".join(extras), encoding="utf-8")
    header = HEADER + "# column   4     --> volume{angstrom3} : The volume of the cell box.\n"
    rows = [property_row(5 * k, 5 * k, 0.0, 500.0 + v) for k, v in enumerate(volume)]
    (path.parent / "run.out").write_text(header + "".join(rows), encoding="utf-8")
    window = fixed_window(read_input(path))
    assert 370 <= window.equilibration <= 480
    assert window.time[-1] == pytest.approx(4.995)  # ps
    assert window.drifts == late
    assert window.volume_drift == pytest.approx(13.0 if late else 0.0, abs=4.0 if late else 0.4)
