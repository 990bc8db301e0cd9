"""Equilibrium windows through real i-PI, integrated and reweighted, against exact values."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import real_runs as rr

from alchemdriver import analysis
from alchemdriver.analysis.estimators.fixed_lambda import fixed_window
from alchemdriver.analysis.estimators.mbar import mbar
from alchemdriver.analysis.estimators.reduced import STORE, NotEvaluated, samples, states, wanted
from alchemdriver.analysis.files.frames import read_frames
from alchemdriver.analysis.files.readers import read_gradients
from alchemdriver.contract.layout import find_runs
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.errors import InputError, RunError
from alchemdriver.execute.reevaluate import reevaluate
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.windows import nodes, prepare_windows
from alchemdriver.units import kT

SEED = 500  # fixed before the first run
LIMIT_Z = 3.0
EXACT = 6.0 * kT(300.0) * np.log(3.0)  # twelve degrees of freedom, k 2 → 6 eV/Å^2


def prepared(folder, lambdas, steps, protocol="windows-nvt", edit=None, **parameters):
    """Windows of four oscillators that are free to move as a whole, as the exact value wants."""
    structure = rr.oscillators(folder.parent)
    keys = {"model": str(folder.parent / "osc.json"), "alchemy": "Cu->Au"} | parameters
    settings = Settings(
        temperature=300.0,
        pressure=1.0 if "npt" in protocol else None,
        timestep=8.0,
        seed=SEED,
        total_steps=steps,
    )
    paths = []
    for target in prepare_windows(protocol, structure, folder, keys, lambdas, settings):
        path = target / "input.xml"
        text = path.read_text().replace("<fixcom>True<", "<fixcom>False<")
        # close to critical damping, so that a few steps decorrelate
        text = re.sub(r"(<tau [^>]*>)200(</tau>)", r"\g<1>25\g<2>", text)
        path.write_text(edit(text) if edit else text)
        paths.append(path)
    return paths


def _fixed_centre(text: str) -> str:
    return text.replace("<fixcom>False<", "<fixcom>True<")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Five Gauss–Legendre windows, run and analysed by the command line."""
    folder = tmp_path_factory.mktemp("windows") / "w"
    prepared(folder, nodes(5, None), 1000)
    done = rr.command("run", folder)
    assert done.returncode == 0, done.stderr
    return folder


def result_of(folder):
    return analysis.analyze(find_runs(folder), write=False)


def test_ti_and_mbar_agree_with_the_exact_free_energy(finished):
    result = result_of(finished)
    assert result.quadrature.rule == "Gauss–Legendre, 5 nodes"
    for estimate in (result.integral, result.mbar.estimate):
        assert abs(estimate.value - EXACT) <= LIMIT_Z * estimate.se, estimate
        assert estimate.se < 0.04 * EXACT  # else the comparison says nothing
    assert [t.method for t in result.totals] == ["TI", "MBAR"]
    mass_term = result.terms[0].value
    assert result.total("MBAR").value == pytest.approx(result.mbar.estimate.value + mass_term)


def test_mbar_follows_the_free_energy_along_the_path(finished):
    m = result_of(finished).mbar
    exact = 6.0 * kT(300.0) * np.log(1.0 + 2.0 * m.lambdas)
    assert np.all(np.abs(m.free_energies - exact)[1:] <= LIMIT_Z * m.errors[1:])
    np.testing.assert_allclose(m.overlap.sum(axis=1), 1.0, atol=1e-6)
    assert m.neighbours.min() > 0.03
    assert m.samples[0] == m.samples[-1] == 0  # both ends are reached by reweighting alone
    assert m.effective_samples.min() > 20


def test_windows_have_provenance_and_seeds_of_their_own(finished):
    document = json.loads((finished / "result.json").read_text())
    assert [s["seed"] for s in document["sources"]] == [SEED + k for k in range(5)]
    assert len({s["input_sha256"] for s in document["sources"]}) == 5
    assert {s["digest"] for s in document["sources"]} == {
        read_input(finished / "window-1").parameters.digest
    }
    assert document["mbar"]["source"] == "configurations evaluated at every λ"
    assert document["quadrature"]["weights"] == pytest.approx(
        (0.5 * np.polynomial.legendre.leggauss(5)[1]).tolist()
    )


def test_evaluated_energies_are_those_of_the_linear_formula(finished):
    """For oscillators the graph is linear in λ too, so both ways must give the same numbers."""
    runs = [read_input(p) for p in find_runs(finished)]
    lams = states([r.parameters.lam for r in runs])
    for run in runs:
        window = fixed_window(run)
        linear = replace(run, parameters=replace(run.parameters, interpolation="linear"))
        a, b = samples(run, window, lams), samples(linear, window, lams)
        same, at_a, at_b = np.intersect1d(a.time, b.time, return_indices=True)
        assert len(same) == len(a.time) > 30
        u, v = a.energies[at_a], b.energies[at_b]
        np.testing.assert_allclose(u - u[:, :1], v - v[:, :1], atol=1e-6)


def test_what_is_evaluated_once_is_not_evaluated_again(finished, tmp_path):
    assert reevaluate(find_runs(finished)) is None
    copy = tmp_path / "w"
    shutil.copytree(finished, copy)
    (copy / "window-2" / STORE).unlink()
    with pytest.raises(NotEvaluated, match="window-2"):
        mbar(*both(copy))
    counted = []
    worst = reevaluate(find_runs(copy), report=lambda name, done, total: counted.append(total))
    assert 0.0 < worst < 1e-6  # eV; eight decimals of the positions
    run = read_input(copy / "window-2")
    assert len(counted) == counted[0] == len(wanted(run, fixed_window(run)).keys)
    assert mbar(*both(copy)).estimate == mbar(*both(finished)).estimate
    # an interrupted or damaged store costs its own evaluations and nothing else
    (copy / "window-2" / STORE).write_bytes(b"PK\x03\x04 torn")
    assert reevaluate(find_runs(copy)) == worst


def both(folder):
    runs = [read_input(p) for p in find_runs(folder)]
    return runs, [fixed_window(run) for run in runs]


def test_energies_of_another_trajectory_or_model_are_not_used(finished, tmp_path):
    copy = tmp_path / "w"
    shutil.copytree(finished, copy)
    trajectory = copy / "window-3" / "run.pos_0.extxyz"
    text = trajectory.read_text()
    trajectory.write_text(re.sub(r"(Cu +)(-?\d+\.\d+)", r"\g<1>0.12345678", text))
    with pytest.raises(NotEvaluated):
        mbar(*both(copy))
    with pytest.raises(RunError, match="another ∂H/∂λ"):
        reevaluate(find_runs(copy))
    trajectory.write_text(text)
    model = copy / "window-1" / "osc.json"
    model.write_text(model.read_text().replace("6.0", "5.0"))
    with pytest.raises(InputError, match="does not match"):
        reevaluate(find_runs(copy))


def test_an_interrupted_window_continues_exactly(tmp_path):
    """Rows, frames and so the samples of MBAR are those of an uninterrupted run."""
    from server.test_serve import kill_children, run_to_end

    def frequent(text):
        text = re.sub('stride="200" (filename="checkpoint")', r'stride="7" \1', text)
        return re.sub('stride="10"', 'stride="5"', text)

    prepared(tmp_path / "whole", [0.5, 1.0], 300, edit=frequent)
    whole, broken = tmp_path / "whole" / "window-1", tmp_path / "broken"
    shutil.copytree(whole, broken)
    run_to_end(whole)
    supervisor = rr.start("run", broken, log=tmp_path / "run.log")
    rr.wait_for_step(broken / "run.out", 120, supervisor)
    assert supervisor.poll() is None, (tmp_path / "run.log").read_text()
    kill_children(supervisor)
    run_to_end(broken)
    a, b = (read_frames(read_input(folder)) for folder in (whole, broken))
    assert a.keys == b.keys
    assert a.steps[-1] == 300
    a, b = (read_gradients(read_input(folder)).mean for folder in (whole, broken))
    np.testing.assert_array_equal(a, b)


def test_windows_of_a_vacancy_and_of_an_einstein_crystal_run(tmp_path):
    """A tether under the graph is re-evaluated with it; Einstein windows need no evaluation."""
    import ase.io

    structure = rr.oscillators(tmp_path)
    atoms = ase.Atoms(
        structure.symbols, positions=structure.positions, cell=structure.cell, pbc=True
    )
    atoms.new_array("spring_constant", np.full(4, 3.0))
    ase.io.write(tmp_path / "einstein.extxyz", atoms)
    prepared(tmp_path / "void", [0.0, 1.0], 60, alchemy="Cu[2]->void", tether="4.2")
    springs = {"alchemy": "einstein->model", "springs": str(tmp_path / "einstein.extxyz")}
    prepared(tmp_path / "einstein", [0.0, 1.0], 60, edit=_fixed_centre, **springs)
    done = rr.command("run", tmp_path / "void", tmp_path / "einstein")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "void" / f"window-{k}" / STORE).is_file() for k in (1, 2))
    assert not any((tmp_path / "einstein").glob(f"*/{STORE}"))
    for name in ("void", "einstein"):
        document = json.loads((tmp_path / name / "result.json").read_text())
        assert len(document["mbar"]["overlap"]) == 2
        assert {t["method"] for t in document["totals"]} == {"TI", "MBAR"}


# --- preparing ----------------------------------------------------------------------------------


def test_nodes():
    assert nodes(2, None) == pytest.approx([0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2])
    assert nodes(None, "1 0 0.5") == [0.0, 0.5, 1.0]
    assert nodes(None, "0, 1") == [0.0, 1.0]


@pytest.mark.parametrize(
    ("windows", "lambdas", "words"),
    [
        (None, None, "either"),
        (5, "0 1", "either"),
        (1, None, "2 to 100"),
        (None, "0 zero", "numbers"),
        (None, "0 0", "different"),
        (None, "0 1.5", r"\[0, 1\]"),
    ],
)
def test_bad_windows_are_refused(windows, lambdas, words):
    with pytest.raises(InputError, match=words):
        nodes(windows, lambdas)


def test_replicas_of_windows_have_distinct_seeds(tmp_path):
    structure = rr.oscillators(tmp_path)
    keys = {"model": str(tmp_path / "osc.json"), "alchemy": "Cu->Au"}
    settings = Settings(temperature=300.0, seed=7)
    args = ("windows-nvt", structure, tmp_path / "w", keys, [0.0, 1.0], settings)
    prepare_windows(*args, replicas=2)
    runs = [read_input(p) for p in find_runs(tmp_path / "w")]
    assert [r.folder.name for r in runs] == [
        f"window-{i}-replica-{r}" for i in (1, 2) for r in (1, 2)
    ]
    assert sorted(r.seed for r in runs) == [7, 8, 9, 10]
    with pytest.raises(InputError, match="already holds"):
        prepare_windows(*args)


@pytest.mark.parametrize("protocol", ["switch-npt", "switch-npt-flexible", "pimd-fixed-npt"])
def test_constant_pressure_is_no_place_for_an_einstein_crystal(tmp_path, protocol):
    """It has no pressure of its own; the options say so first, and whoever edits an input hears it
    when the input is read."""
    structure = rr.oscillators(tmp_path)
    write_springs(tmp_path / "k.extxyz", structure, np.full(len(structure), 3.0))
    own = {"alchemy": "einstein->model", "springs": str(tmp_path / "k.extxyz")}
    with pytest.raises(InputError, match="springs belongs to"):
        prepared(tmp_path / "w", [0, 1], 5, "windows-npt", **own)
    lengths = {"lambda_": 0.5} if "fixed" in protocol else {"equilibrate": 5, "switch": 10}
    with pytest.raises(InputError, match="springs belongs to"):
        rr.oscillator_run(tmp_path / "a" / "x", protocol, **lengths, **own)
    path = rr.oscillator_run(tmp_path / "b" / "x", "switch-nvt", equilibrate=5, switch=10, **own)
    barostat = '<dynamics mode="npt"><barostat mode="isotropic"></barostat>'
    path.write_text(path.read_text().replace('<dynamics mode="nvt">', barostat))
    with pytest.raises(InputError, match="belongs to constant volume"):
        read_input(path)


def test_many_windows_are_found_in_their_order(tmp_path):
    for k in (1, 2, 10, 11):
        (tmp_path / f"window-{k}").mkdir()
        (tmp_path / f"window-{k}" / "input.xml").touch()
    assert [p.parent.name for p in find_runs(tmp_path)] == [f"window-{k}" for k in (1, 2, 10, 11)]
