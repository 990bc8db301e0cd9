"""Path integrals through real i-PI against exact values: U, masses, einstein->model, contraction.

A short set runs here every time; the full one is ``python -m campaigns.quantum``, whose
committed numbers (``benchmarks/quantum_oscillator.json``) are judged here afresh.  Seeds and limits
were fixed before the runs, so nothing here is left to chance.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import ase
import ase.io
import numpy as np
import pytest
from campaigns import quantum as campaign
from helpers import quantum_oscillator as qo
from helpers import real_runs as rr

from alchemdriver import units
from alchemdriver.analysis import analyze, compare_beads, read_gradients, switching_work
from alchemdriver.analysis.corrections.mass_leg import leg_of, mass_leg_in
from alchemdriver.analysis.estimators.estimate import ONE_SIGMA, student
from alchemdriver.analysis.files.kinetic import read_kinetic
from alchemdriver.contract.nodes import gauss_legendre
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import AnalysisError, InputError
from alchemdriver.prepare.mass_leg import write_points
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.units import kT

LIMIT_Z = 3.0  # standard errors
SHORT = qo.Oscillators(x=5.0, beads=8, equilibrate=40, switch=80, cycles=5, points=2, steps=600)


# --- the exact values ---------------------------------------------------------------------------


@pytest.mark.parametrize("x", [1.0, 5.0, 15.0])
def test_few_masses_are_enough_for_an_oscillator(x):
    """∫ of the exact centroid-virial K by three Gauss points, against the exact ΔF."""
    o = qo.Oscillators(x, 40, 1, 1, 1, 3, 1)
    (m, m_new), k = qo.MASSES, o.springs[1]

    def slope(s):  # dF/ds by differences of the exact F
        f = [o.free_energy(k, m ** (1 - t) * m_new**t, 40) for t in (s - 1e-4, s + 1e-4)]
        return (f[1] - f[0]) / 2e-4

    s, w = gauss_legendre(3)
    exact = o.legs(40)[1]
    assert w @ [slope(t) for t in s] == pytest.approx(exact, rel=2e-5)


@pytest.mark.parametrize(("x", "beads"), [(1.0, 12), (5.0, 20), (15.0, 40)])
def test_the_beads_of_the_campaign_are_enough(x, beads):
    assert qo.Oscillators(x, beads, **campaign.LENGTHS).discretisation <= campaign.LIMIT_P


# --- the committed campaign ---------------------------------------------------------------------


def committed():
    if not campaign.RESULT.exists():
        pytest.skip("benchmarks/quantum_oscillator.json is not there")
    content = json.loads(campaign.RESULT.read_text())
    return content["states"] + content["convergence"]


def test_every_leg_of_the_campaign_is_exact_within_its_error():
    found = committed()
    assert {(d["settings"]["x"], d["settings"]["beads"]) for d in found} >= {
        (1.0, 12),
        (5.0, 20),
        (15.0, 40),
    }
    for data in found:
        for name, value, exact, se in campaign.rows(data):
            z = (value - exact) / se
            assert abs(z) <= LIMIT_Z, f"{data['settings']}: {name} is off by {z:.2f} SE"


def test_the_errors_of_the_campaign_mean_something():
    """Neither hidden behind large errors nor far too small: z scatter with a variance near 1.

    The limit is of BAR's asymptotic error; the scatter of blocks of few cycles, and Student's
    factor, make 1.7 of it.
    """
    rows = [row for data in committed() for row in campaign.rows(data)[:2]]
    assert all(se < 1.7 * (0.02 * abs(exact) + 1e-3) for _, _, exact, se in rows)
    z = np.array([(value - exact) / se for _, value, exact, se in rows])
    assert 0.2 < np.mean(z**2) < 3.0


# --- a short run of the whole chain -------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The run of ``SHORT``, seed 1, with its mass leg, finished; and one bead."""
    folder = tmp_path_factory.mktemp("quantum")
    SHORT.write(folder / "run", seed=1)
    SHORT.write(folder / "classical", seed=1, beads=1)
    for target in (folder / "run" / "mass-leg", folder / "run", folder / "classical"):
        done = rr.command("run", target)
        assert done.returncode == 0, done.stderr
    return folder


def test_u_and_masses_add_up_to_the_exact_difference(short):
    result = analyze(short / "run", write=False)
    u, masses = SHORT.legs(SHORT.beads)
    bar = result.pooled.bar
    assert abs(bar.value - u) <= LIMIT_Z * bar.se
    leg = result.mass_leg
    assert abs(leg.value - masses) <= LIMIT_Z * leg.se
    term = next(t for t in result.terms if t.name == "mass term")
    assert (term.value, term.se) == (leg.value, leg.se)
    total = result.total("BAR")
    assert total.value == pytest.approx(bar.value + leg.value)
    parts = [bar.sigma**2, (leg.se / student(ONE_SIGMA, leg.dof)) ** 2]  # Welch, Satterthwaite
    dof = sum(parts) ** 2 / (parts[0] ** 2 / bar.dof + parts[1] ** 2 / leg.dof)
    assert total.se == pytest.approx(student(ONE_SIGMA, dof) * np.sqrt(sum(parts)))
    # the classical mass term would be wrong by many of these errors
    assert abs(leg.classical - masses) > 10 * leg.se


def test_quantum_minus_classical(short):
    found = compare_beads(
        [analyze(short / "run", write=False)], analyze(short / "classical", write=False)
    )
    exact = sum(SHORT.legs(SHORT.beads)) - sum(SHORT.legs(1))
    assert abs(found.correction - exact) <= LIMIT_Z * found.correction_se
    assert found.limit is None  # one P is no convergence


def test_bead_fit_recovers_a_known_limit(short):
    base = analyze(short / "run", write=False)
    results = []
    for beads in (4, 8, 16, 32):
        totals = tuple(replace(t, value=2.0 + 3.0 / beads**2, se=0.01) for t in base.totals)
        results.append(
            replace(base, conditions=replace(base.conditions, beads=beads), totals=totals)
        )
    found = compare_beads(results)
    assert found.limit == pytest.approx(2.0)
    assert found.slope == pytest.approx(3.0)
    with pytest.raises(AnalysisError, match="two results have 4 beads"):
        compare_beads([results[0], results[0]])
    hot = replace(base, conditions=replace(base.conditions, temperature=400.0, beads=64))
    with pytest.raises(AnalysisError, match="differ in temperature"):
        compare_beads([results[0], hot])


def test_the_command_line_does_all_of_it(short, tmp_path):
    done = rr.command(
        "quantum", short / "run", "--classical", short / "classical", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "quantum minus classical" in done.stdout
    assert json.loads((tmp_path / "quantum.json").read_text())["points"][0]["beads"] == 8
    assert (tmp_path / "quantum.png").is_file()
    assert "dF/ds" in rr.command("analyze", short / "run").stdout


def test_without_its_leg_there_is_no_total(short, tmp_path):
    shutil.copytree(short / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "mass-leg" / "point-1")
    with pytest.raises(AnalysisError, match="a point is missing"):
        analyze(tmp_path / "run", write=False)
    shutil.rmtree(tmp_path / "run" / "mass-leg")
    result = analyze(tmp_path / "run", write=False)
    assert result.total("BAR").value is None
    assert "alchemdriver mass-leg run" in result.total("BAR").se_kind + str(result.warnings)


def test_points_alone_and_points_of_others(short, tmp_path):
    point = short / "run" / "mass-leg" / "point-1"
    with pytest.raises(AnalysisError, match="point of a mass leg"):
        analyze(point, write=False)
    run = read_input(short / "run")
    with pytest.raises(AnalysisError, match="another calculation"):
        leg_of(short / "run", replace(run, temperature=400.0))
    with pytest.raises(InputError, match="already holds points"):
        write_points(read_input(short / "run"), short / "run" / "mass-leg", 2, 10)
    with pytest.raises(InputError, match="one bead"):
        write_points(read_input(short / "classical"), tmp_path / "leg", 2, 10)


def test_torn_and_repeated_frames_of_the_kinetic_energy(short, tmp_path):
    shutil.copytree(short / "run" / "mass-leg", tmp_path / "mass-leg")
    path = tmp_path / "mass-leg" / "point-1"
    file = path / "run.kinetic_cv.xyz"
    run = read_input(path)
    steps, values = read_kinetic(run)
    whole = mass_leg_in(tmp_path / "mass-leg").value
    (path / "input.origin.json").unlink()  # it knows the rows of the finished run
    lines = file.read_text().splitlines(keepends=True)
    frame = 2 + qo.ATOMS
    # a kill within frame 40, resumed from the checkpoint at frame 38: torn row glued to the count
    torn = [*lines[: 40 * frame + 4], "      H 1.2", *lines[38 * frame :]]
    file.write_text("".join(torn))
    again, same = read_kinetic(run)
    assert np.array_equal(again, steps)
    assert np.array_equal(same, values)
    assert mass_leg_in(tmp_path / "mass-leg").value == whole
    file.write_text("".join(lines[: 40 * frame]))
    with pytest.raises(AnalysisError, match="resume it"):
        mass_leg_in(tmp_path / "mass-leg")


def test_the_start_of_a_point_is_left_out(short, tmp_path):
    """All beads start in one place: a short transient, but it would bias the mean."""
    shutil.copytree(short / "run" / "mass-leg", tmp_path / "mass-leg")
    whole = mass_leg_in(tmp_path / "mass-leg").value
    file = tmp_path / "mass-leg" / "point-1" / "run.kinetic_cv.xyz"
    file.with_name("input.origin.json").unlink()  # it knows the rows of the finished run
    lines, frame = file.read_text().splitlines(keepends=True), 2 + qo.ATOMS
    tenth = frame * (len(lines) // frame // 10)
    for k in range(0, tenth, frame):
        lines[k + 2] = "He 9.0 9.0 9.0\n"
    file.write_text("".join(lines))
    assert read_kinetic(read_input(file.parent))[1][0].max() == 27.0
    assert mass_leg_in(tmp_path / "mass-leg").value == whole


# --- quantum Frenkel–Ladd -----------------------------------------------------------------------


def test_ring_polymers_to_a_quantum_einstein_crystal(tmp_path):
    """einstein->model with 8 beads on springs of other constants, centroid of all atoms fixed.

    Of the oscillators of this model, which is anchored in space, that takes one away whose ring has
    moved about its centroid all the same: ½ kT ln k for each direction.
    """
    o = SHORT
    k_model, k_einstein = o.springs[0], 1.6 * o.springs[0]
    structure = qo.model(tmp_path, k_model, k_model)
    atoms = ase.Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
    atoms.set_array("spring_constant", np.full(qo.ATOMS, k_einstein))
    ase.io.write(tmp_path / "einstein.extxyz", atoms)
    values = {
        "model": str(tmp_path / "springs.json"),
        "alchemy": "einstein->model",
        "springs": str(tmp_path / "einstein.extxyz"),
        "equilibrate": "40",
        "switch": "80",
        "cycles": "5",
    }
    settings = Settings(qo.TEMPERATURE, timestep=qo.OMEGA_DT / o.omega, beads=o.beads, seed=2)
    prepare("switch-pimd", structure, tmp_path / "run", values, settings)
    path = tmp_path / "run" / "input.xml"
    text = qo.sampled_well(path.read_text(), o.omega, o.beads)
    path.write_text(text.replace("<fixcom>False<", "<fixcom>True<"))
    assert rr.command("run", tmp_path / "run").returncode == 0
    result = analyze(tmp_path / "run", write=False)

    def difference(beads: int) -> float:
        whole = [o.free_energy(k, qo.MASSES[0], beads) for k in (k_model, k_einstein)]
        return whole[0] - whole[1] - 1.5 * kT(qo.TEMPERATURE) * np.log(k_model / k_einstein)

    work, crystal = result.pooled.bar, result.terms[0]
    assert abs(work.value - difference(o.beads)) <= LIMIT_Z * work.se
    # classical nuclei would be off by far more
    assert abs(difference(1) - difference(o.beads)) > 4 * work.se
    assert crystal.value == pytest.approx(o.free_energy(k_einstein, qo.MASSES[0], o.beads))


# --- several time steps, fewer beads for a force -------------------------------------------------


def test_contraction_keeps_lambda_and_its_slope(tmp_path):
    """Forces on 2 of 4 beads: U = g k/(k_1 − k_0) holds for the mean over the beads that i-PI
    prints, their λ is the schedule's, and the work of that mean is what the system gains."""
    rr.oscillator_run(
        tmp_path / "a",
        "switch-pimd",
        equilibrate=10,
        switch=30,
        cycles=1,
        edit=lambda text: text.replace(
            '<force forcefield="alchemy">', '<force forcefield="alchemy" nbeads="2">'
        ),
    )
    done = rr.command("run", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    run = read_input(tmp_path / "a")
    series = read_gradients(run)  # checks λ of every bead against the schedule
    energy = rr.rows(tmp_path / "a" / "run.out")
    for step in range(1, run.total_steps + 1):
        u = float(energy[step].split()[4])
        k = 2.0 + 4.0 * series.lam[step]
        assert u == pytest.approx(series.mean[step] * k / 4.0, rel=1e-9)
    work = switching_work(run)
    assert abs(work.forward[0]) > 20 * work.first_law.max_deviation
    served = (tmp_path / "a" / "client-1.log").read_text()
    assert f"served {2 * (run.total_steps + 1)} requests" in served


INNER = (
    """<ffdirect name="fast"><pes>harmonic</pes><parameters>{k1: 0.02}</parameters></ffdirect>"""
)


def with_inner_steps(weights: str, inner: int = 4):
    """A spring without λ about the origin in *inner* inner steps; our force as *weights* say."""

    def edit(text: str) -> str:
        text = text.replace("<system>", INNER + "<system>", 1)
        text = text.replace(
            '<force forcefield="alchemy">',
            '<force forcefield="fast"><mts_weights>[0, 1]</mts_weights></force>'
            f'<force forcefield="alchemy"><mts_weights>{weights}</mts_weights>',
        )
        return text.replace("</timestep>", f"</timestep><nmts>[1, {inner}]</nmts>", 1)

    return edit


def test_multiple_time_steps_do_the_same_work(tmp_path):
    """λ moves in the outermost step alone: the first law closes as without inner steps."""
    lengths = {"equilibrate": 20, "switch": 100, "cycles": 1}
    off = {}
    for name, inner in (("one", 1), ("several", 4)):
        edit = with_inner_steps("[1, 0]", inner)
        rr.oscillator_run(tmp_path / name, edit=edit, **lengths)
        done = rr.command("run", tmp_path / name)
        assert done.returncode == 0, done.stderr
        found = switching_work(read_input(tmp_path / name))
        off[name] = found.first_law.max_deviation
        assert abs(found.forward[0]) > 20 * found.first_law.max_deviation
    assert off["several"] < 2.0 * off["one"] + 1e-5


@pytest.mark.parametrize("weights", ["[0, 1]", "[0.5, 0.5]"])
def test_lambda_in_an_inner_step_is_refused(tmp_path, weights):
    lengths = {"equilibrate": 20, "switch": 100, "cycles": 1}
    path = rr.oscillator_run(tmp_path / "a", edit=with_inner_steps(weights), **lengths)
    with pytest.raises(InputError, match="outermost"):
        read_input(path)


def test_units_of_the_kinetic_energy(short):
    """Classical limit: K_cv of one bead would be 3/2 kT; quantum nuclei have more."""
    _, kinetic = read_kinetic(read_input(short / "run" / "mass-leg" / "point-1"))
    assert kinetic.mean() > 1.5 * units.KB_EV * qo.TEMPERATURE
