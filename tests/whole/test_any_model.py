"""ASE calculators, and paths between models, through the real server and client."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from helpers import real_runs as rr

from alchemdriver.analysis.files.frames import read_frames
from alchemdriver.analysis.files.readers import read_gradients
from alchemdriver.contract.digest import digest
from alchemdriver.contract.relaxation import Relaxation
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import InputError, ModelError
from alchemdriver.prepare.structure import read_structure
from alchemdriver.workflow.relax import relax

CALC = """
from ase.calculators.emt import EMT


class Model(EMT):
    implemented_properties = {properties}


def calculator(device, dtype):
    return Model()
"""
WITHOUT_STRESS = ["energy", "forces"]
SWITCH = ("--equilibrate", 4, "--switch", 10, "--cycles", 1, "--timestep", 2, "--temperature", 300)


@pytest.fixture
def copper(tmp_path):
    write(tmp_path / "cu.vasp", bulk("Cu", cubic=True) * (2, 2, 2))
    return tmp_path / "cu.vasp"


def calc(folder: Path, properties=tuple(EMT.implemented_properties)) -> Path:
    file = folder / "calc.py"
    file.write_text(CALC.format(properties=list(properties)))
    return file


def prepare(protocol, structure, *options):
    return rr.command("prepare", protocol, structure, structure.parent / "run", *options)


def test_alchemy_needs_a_graph_that_calculators_do_not_have(copper):
    found = prepare("switch-nvt", copper, "--alchemy", "Cu[0]->Au", "--model", "emt", *SWITCH)
    assert found.returncode == 2
    assert "whole atoms only" in found.stderr
    assert "--interpolation linear" in found.stderr
    assert len(found.stderr.splitlines()) == 1


def test_without_stress_the_cell_stays(copper):
    """Said when the input is made, and by a stage that relaxes the cell."""
    file = calc(copper.parent, WITHOUT_STRESS)
    change = ("--alchemy", "model->other", "--other", "emt", "--model", file)
    found = prepare("switch-npt", copper, *change, "--pressure", 1, *SWITCH)
    assert found.returncode == 2
    assert "gives no stress, so the cell cannot move" in found.stderr
    assert not (copper.parent / "run").exists()


def test_linear_mixture_of_elements(copper):
    """∂H/∂λ of the run is the difference of two evaluations with ASE; one atom vanishes."""
    change = ("--alchemy", "Cu[0]->Au Cu[5]->void", "--tether", 3, "--interpolation", "linear")
    found = prepare(
        "windows-nvt", copper, *change, "--lambdas", "0.3 0.5", "--steps", 20, "--timestep", 2,
        "--temperature", 300, "--model", calc(copper.parent),
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    path = min(copper.parent.glob("run/*/input.xml"))
    done = rr.command("run", path.parent)
    assert done.returncode == 0, done.stderr
    run = read_input(path)
    frames, gradient = read_frames(run), read_gradients(run)
    assert len(frames.steps) >= 2
    for step, positions in zip(frames.steps, frames.positions[:, 0], strict=True):
        atoms = read(copper)
        atoms.set_positions(positions)
        atoms.calc = EMT()
        before = atoms.get_potential_energy()
        away = atoms.positions[5] - run.structure.positions[5]
        atoms.symbols[0] = "Au"
        del atoms[5]
        expected = atoms.get_potential_energy() - before + 0.5 * 3.0 * away @ away
        (row,) = np.flatnonzero(gradient.steps == step)
        assert gradient.mean[row] == pytest.approx(expected, abs=1e-6)


def test_from_one_oscillator_to_another_is_the_same_as_between_elements(tmp_path):
    """Springs of 2 and 6 eV/Å², as two elements of one model or as one element of two models."""
    elements = rr.oscillator_run(
        tmp_path / "a" / "run", masses="fixed", equilibrate=50, switch=100, cycles=2
    )
    rr.oscillators(tmp_path / "b" / "stiff", k_initial=6.0)
    stiff = (tmp_path / "b" / "stiff" / "osc.json").rename(tmp_path / "b" / "stiff.json")
    models = rr.oscillator_run(
        tmp_path / "b" / "run",
        alchemy="model->other",
        other=stiff,
        masses="fixed",
        equilibrate=50,
        switch=100,
        cycles=2,
    )
    works = []
    for path in (elements, models):
        done = rr.command("run", path.parent)
        assert done.returncode == 0, done.stderr
        (replica,) = json.loads((path.parent / "result.json").read_text())["replicas"]
        works.append(replica["forward"] + replica["backward"])
    assert min(np.abs(works[0])) > 1e-3
    np.testing.assert_allclose(works[1], works[0], rtol=1e-9)
    result = json.loads((models.parent / "result.json").read_text())
    assert result["conditions"]["other"] == "stiff.json"


def test_between_models_no_mass_changes(tmp_path):
    """Eq. 22 would be missing without a word."""
    (tmp_path / "m.json").write_text(json.dumps({"initial": [60.0] * 4, "final": [120.0] * 4}))
    rr.oscillators(tmp_path / "stiff", k_initial=6.0)
    stiff = (tmp_path / "stiff" / "osc.json").rename(tmp_path / "stiff.json")
    keys = {"alchemy": "model->other", "other": stiff, "equilibrate": 5, "switch": 5, "cycles": 1}
    with pytest.raises(InputError, match="changes no element"):
        rr.oscillator_run(tmp_path / "run", masses_file=tmp_path / "m.json", **keys)


def test_both_models_are_in_the_digest(tmp_path):
    rr.oscillators(tmp_path / "stiff", k_initial=6.0)
    stiff = (tmp_path / "stiff" / "osc.json").rename(tmp_path / "stiff.json")
    keys = {"alchemy": "model->other", "other": stiff, "equilibrate": 5, "switch": 5, "cycles": 1}
    run = read_input(rr.oscillator_run(tmp_path / "run", **keys))
    before = digest(run)
    copied = run.folder / "stiff.json"
    copied.write_text(copied.read_text().replace("6.0", "6.5"))
    assert digest(run) != before


def test_a_relaxation_of_the_cell_needs_a_stress(copper):
    calc(copper.parent, WITHOUT_STRESS)
    write_xyz(copper.parent / "start.xyz", read_structure(copper))
    Relaxation("calc.py", pressure_bar=1.0).write(copper.parent / "relax.json")
    with pytest.raises(ModelError, match="gives no stress"):
        relax(copper.parent)
