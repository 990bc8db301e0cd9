"""Transition temperatures against harmonic polymorphs, whose G cross at a known T."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from helpers.analysis_files import lambdas, switching_input, write_outputs
from helpers.stored_results import finish, switching_result

from alchemdriver import analysis
from alchemdriver.analysis.compare import phases as p
from alchemdriver.analysis.compare.gather import Gathered
from alchemdriver.analysis.compare.workflow import Row
from alchemdriver.analysis.estimators.estimate import degrees_of_freedom, student
from alchemdriver.analysis.result import write_result
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.records import Structure
from alchemdriver.units import kT
from alchemdriver.workflow import plan

PER_KELVIN = kT(1.0)
ENTROPY = (
    3 * 5 * PER_KELVIN * np.log(1.1)
)  # per formula unit: the second phase is softer by a tenth
ENERGY = 450.0 * ENTROPY  # it lies higher by that: they cross at 450 K, exactly


def harmonic(kelvin, second: bool):
    """G per formula unit of five atoms: E + 3 kT Σ ln(ħω/kT) with ħω = 0.02 eV, or a tenth less."""
    t = np.asarray(kelvin, dtype=float)
    omega = 0.02 / (1.1 if second else 1.0)
    return -20.0 + ENERGY * second + 15 * PER_KELVIN * t * np.log(omega / (PER_KELVIN * t))


def rows(second: bool, temperatures, se, units=4, noise=None, model="demo"):
    """Four formula units a cell; what a cell of N atoms lacks is taken off, as in a real one."""
    found = []
    for k, t in enumerate(temperatures):
        value = units * harmonic(t, second) - 0.5 * kT(t) * np.log(5 * units)
        value += 0.0 if noise is None else units * noise[k]
        found.append(
            Gathered(
                "f",
                Row(
                    "G", "Frenkel–Ladd", "", t, 1.0, value, units * se,
                    units * se * student(0.95, None), None, 4, 5 * units, "atom", 1, 1.0,
                    5 * units, 1.0, f"{model} CsPbI3", {},
                ),
            )
        )  # fmt: skip
    return found


def both(se, at=(300.0, 400.0, 500.0, 600.0), noise=(None, None), units=(4, 4)):
    return [
        p.points_of(name, rows(k == 1, at, se, units[k], noise[k]))[0]
        for k, name in enumerate(("stiff", "soft"))
    ]


@pytest.mark.parametrize("units", [(4, 4), (4, 9)])
def test_harmonic_polymorphs_cross_where_they_must(units):
    """Also cells of unequal size; ΔS and the latent heat are those of the closed form."""
    found = p.pair(*both(1e-4, units=units))
    (crossing,) = found.crossings
    assert crossing.temperature == pytest.approx(450.0, abs=1e-3)
    assert crossing.entropy == pytest.approx(ENTROPY, rel=1e-4)
    assert crossing.latent_heat == pytest.approx(ENERGY, rel=1e-4)
    assert "stiff below, soft above 450.0" in found.says


def test_errors_of_the_crossing_are_those_of_repetitions():
    rng, se = np.random.default_rng(4), 2e-3
    found, errors = [], []
    for _ in range(400):
        noise = rng.normal(0.0, se, (2, 4))
        pair = p.pair(*both(se, noise=noise))
        if len(pair.crossings) == 1:
            found.append(pair.crossings[0].temperature)
            errors.append(pair.crossings[0].se)
    assert len(found) > 390
    assert np.std(found) == pytest.approx(np.median(errors), rel=0.12)
    z = (np.array(found) - 450.0) / np.array(errors)
    assert np.mean(np.abs(z) < 1.0) == pytest.approx(0.683, abs=0.07)


def test_what_errors_hide_is_said():
    """Far apart: no crossing.  Within the errors everywhere: not distinguishable, and no T_c."""
    cold = p.pair(*both(1e-4, at=(100.0, 200.0, 300.0)))
    assert not cold.crossings
    assert "do not cross from 100 to 300 K: stiff is lower, by" in cold.says
    hidden = p.pair(*both(0.1))
    assert not hidden.crossings
    assert "not distinguishable from 300 to 600 K" in hidden.says


def test_few_replicas_make_a_wide_interval():
    assert degrees_of_freedom(student(0.6826894921370859, 3.0), student(0.95, 3.0)) == (
        pytest.approx(3.0, rel=1e-9)
    )
    assert degrees_of_freedom(1.0, student(0.95, None)) is None


def test_points_off_a_curve_are_doubted():
    noise = np.array([0.0, 5e-3, -5e-3, 0.0])
    _, doubts = p.points_of("x", rows(False, (300.0, 400.0, 500.0, 600.0), 1e-4, noise=noise))
    assert "lie off one smooth curve" in doubts[0]


SCALE = 0.5  # 300 to 600 K


def scaling_folder(folder, second: bool, rng, pressure=1.0):
    """Reversible scaling of four formula units of oscillators; works scatter, pair by pair."""
    n, t0 = 20, 300.0
    path = switching_input(
        folder, 0, 100, 6, schedule="linear", alchemy=f"model->scaled, scale: {SCALE}",
        temperature=t0, symbols=("Cs", "Pb", "I", "I", "I") * 4, ensemble="npt",
        pressure=f"<pressure units='bar'>{pressure}</pressure>",
    )  # fmt: skip
    s = 1.0 + lambdas(path) * (SCALE - 1.0)
    energy = 4 * (-20.0 + ENERGY * second)
    slope = (SCALE - 1.0) * (energy + 1.5 * n * kT(t0) / s)
    segment = np.arange(len(s)) // 100
    write_outputs(path, slope + 0.005 * rng.normal(size=segment[-1] + 1)[segment])
    reference = 4 * harmonic(t0, second) - 0.5 * kT(t0) * np.log(n)
    good = switching_result(
        folder / "ref", float(reference), 1e-3, pressure=pressure, ensemble="npt",
        quantity="G of the model crystal (eq. 20)", formula="Cs4Pb4I12", natoms=n,
    )  # fmt: skip
    (folder / "ref").mkdir()
    write_result(good)
    analysis.analyze(path, reference=folder / "ref")
    return folder


def test_curves_of_reversible_scaling_through_the_command(tmp_path, capsys):
    from alchemdriver.cli import main

    rng = np.random.default_rng(1)
    folders = [scaling_folder(tmp_path / n, n == "soft", rng) for n in ("stiff", "soft")]
    words = [f"{f.name}={f}" for f in folders]
    main.app(["phases", *words, "--out", str(tmp_path / "out")], standalone_mode=False)
    said = capsys.readouterr().out
    assert "stiff below, soft above" in said
    stored = p.PHASES.read(tmp_path / "out" / "phases.json")
    (crossing,) = stored.pairs[0].crossings
    assert abs(crossing.temperature - 450.0) < 3 * crossing.se
    assert 0.0 < crossing.se < 10.0
    lines = (tmp_path / "out" / "phases.csv").read_text().splitlines()
    assert len(lines) > 100
    assert (tmp_path / "out" / "phases.png").stat().st_size > 1000
    with pytest.raises(InputError, match="has no name"):
        p.compare_phases([str(folders[0])])
    with pytest.raises(InputError, match="two phases or more, got 1"):
        p.compare_phases(words[:1])
    other = scaling_folder(tmp_path / "pressed", True, rng, pressure=500.0)
    with pytest.raises(AnalysisError, match="no two phases at one pressure"):
        p.compare_phases([words[0], f"pressed={other}"])


def test_stages_at_several_temperatures_are_phases(tmp_path):
    """16 and 32 atoms, 20 meV − T · 0.05 meV/K apart: they cross at 400 K."""
    temperatures = (200.0, 400.0, 600.0)
    crystals = {"bcc": bulk("Fe", "bcc", a=2.83, cubic=True).repeat(2)}
    crystals["fcc"] = bulk("Fe", "fcc", a=3.6, cubic=True).repeat(2)
    for name, atoms in crystals.items():
        crystal = Structure(tuple(atoms.symbols), atoms.positions, np.array(atoms.cell))
        common = plan.Common(
            model="demo-fe",
            temperatures_K=temperatures,
            pressure_bar=1.0,
            timestep_fs=2.0,
            replicas=2,
        )
        workflow = plan.prepare_crystal(crystal, tmp_path / name, common)
        n, totals = len(atoms), {}
        for t in temperatures:
            per_atom = -8.0 - 2e-4 * t + (name == "fcc") * (20e-3 - 5e-5 * t)
            value = n * per_atom - 0.5 * kT(t) * np.log(n)
            totals[f"{t:g}K/04-frenkel-ladd"] = (value, 1e-4 * n)
        finish(workflow, totals)
    found = p.compare_phases([f"{name}={tmp_path / name}" for name in crystals])
    (crossing,) = found.pairs[0].crossings
    assert crossing.temperature == pytest.approx(400.0, abs=1e-6)
    assert crossing.entropy == pytest.approx(5e-5, rel=1e-9)
    assert found.phases[1].natoms == (32,)


def test_one_name_is_one_material():
    mixed = [*rows(False, (300.0,), 1e-3), *rows(False, (400.0,), 1e-3, model="other")]
    with pytest.raises(AnalysisError, match=r"expected one model and formula, got demo .*, other"):
        p.points_of("x", mixed)


def test_other_models_and_materials_are_refused():
    a, b = both(1e-4)
    with pytest.raises(AnalysisError, match=r"expected one model, got demo \(stiff\), other"):
        p._same_material([a, replace(b, model="other")])
    with pytest.raises(AnalysisError, match="expected one model sha256"):
        p._same_material([replace(a, model_sha256="1" * 64), replace(b, model_sha256="2" * 64)])
    with pytest.raises(AnalysisError, match="no temperature in common"):
        p.pair(a, both(1e-4, at=(700.0, 800.0))[1])
