"""Rendered inputs: loaded by i-PI itself, readable, and complete."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from helpers import real_runs as rr

from alchemdriver.contract.digest import digest
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.contract.xyz import read_xyz
from alchemdriver.errors import InputError
from alchemdriver.prepare.protocols import PROTOCOLS, find
from alchemdriver.prepare.render import Settings, sign
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.structure import read_structure
from alchemdriver.prepare.tree import write_xml

RUNS = [p.name for p in PROTOCOLS if not p.in_stages]
LENGTHS = {"equilibrate": 5, "switch": 10, "cycles": 2}


def prepared(folder, protocol, **kwargs):
    known = find(protocol)
    if not known.has("alchemy"):
        kwargs["alchemy"] = None
    if known.has("scale") and not known.has("alchemy"):
        kwargs["scale"] = 0.5
    if known.switches:
        return rr.oscillator_run(folder, protocol, **LENGTHS, **kwargs)
    if known.has("lambda") or known.at_several_lambdas:
        kwargs["lambda_"] = 0.25
    return rr.oscillator_run(folder, protocol, steps=20, **kwargs)


@pytest.mark.parametrize("protocol", RUNS)
def test_ipi_itself_reads_what_is_rendered(tmp_path, monkeypatch, protocol):
    io_xml = pytest.importorskip("ipi.utils.io.inputs.io_xml")
    from ipi.inputs.simulation import InputSimulation

    path = prepared(tmp_path / "a", protocol)
    monkeypatch.chdir(path.parent)
    with open(path) as f:
        tree = io_xml.xml_parse_file(f)
    simulation = InputSimulation()
    simulation.parse(tree.fields[0][1])
    run = read_input(path)
    assert simulation.total_steps.fetch() == run.total_steps
    assert "{:24.16e}" in repr(simulation.floatformat.fetch()) or run.floatformat == "%24.16e"


@pytest.mark.parametrize("protocol", RUNS)
def test_comments_survive_word_for_word(tmp_path, protocol):
    def comments(text):
        return re.findall(r"<!--(.*?)-->", text, re.S)

    path = prepared(tmp_path / "a", protocol)
    assert comments(find(protocol).template.read_text()) == comments(path.read_text())


@pytest.mark.parametrize("protocol", RUNS)
def test_an_input_that_is_written_again_is_the_same(tmp_path, protocol):
    path = prepared(tmp_path / "a", protocol)
    write_xml(tmp_path / "again.xml", parse_xml(path.read_text()))
    assert (tmp_path / "again.xml").read_text() == path.read_text()


def test_settings_stand_in_the_input(tmp_path):
    structure = rr.oscillators(tmp_path)
    values = {"model": str(tmp_path / "osc.json"), "alchemy": "Cu->Au", "cycles": "3"}
    given = Settings(temperature=77.0, pressure=5.0, timestep=0.5, seed=9)
    prepare("switch-npt", structure, tmp_path / "a", values, given)
    run = read_input(tmp_path / "a")
    assert (run.temperature, run.pressure, run.timestep, run.seed) == (77.0, 5.0, 0.5, 9)
    assert run.total_steps == run.schedule.total_steps == 12000
    assert 'units="kelvin" mode="thermal">77.0</velocities>' in run.path.read_text()


def test_beads(tmp_path):
    assert read_input(prepared(tmp_path / "a", "pimd-fixed", beads=8)).beads == 8


def test_replicas_differ_in_their_seeds_only(tmp_path):
    structure = rr.oscillators(tmp_path)
    values = {"model": str(tmp_path / "osc.json"), "alchemy": "Cu->Au"}
    folders = prepare("switch-nvt", structure, tmp_path / "a", values, Settings(seed=7), 3)
    assert [f.name for f in folders] == ["replica-1", "replica-2", "replica-3"]
    assert [read_input(f).seed for f in folders] == [7, 8, 9]
    texts = {re.sub(r"<seed>\d+</seed>", "", (f / "input.xml").read_text()) for f in folders}
    assert len(texts) == 1
    assert all((f / "osc.json").is_file() and (f / "start.xyz").is_file() for f in folders)


def test_masses_of_a_fixed_lambda_are_written(tmp_path):
    path = rr.oscillator_run(tmp_path / "a", "nvt-fixed", lambda_=0.25, masses="interpolate")
    text = path.read_text()
    listed = json.loads(re.search(r"<masses [^>]*>(.*?)</masses>", text)[1])
    assert listed == pytest.approx(0.75 * np.array([63.546] * 4) + 0.25 * 196.96657)
    # i-PI draws velocities with the masses set so far
    assert text.index("<masses") < text.index("<velocities")


def test_no_masses_are_written_where_they_are_the_elements_own(tmp_path):
    assert "<masses" not in rr.oscillator_run(tmp_path / "a", "nvt-fixed", lambda_=0.0).read_text()
    fixed = rr.oscillator_run(tmp_path / "b", "nvt-fixed", lambda_=0.5, masses="fixed")
    assert "<masses" not in fixed.read_text()


@pytest.mark.parametrize("protocol", ["nvt-fixed", "switch-nvt"])
def test_the_digest_is_valid_and_sign_leaves_it(tmp_path, protocol):
    path = prepared(tmp_path / "a", protocol)
    run = read_input(path)
    assert run.parameters.digest == digest(run)
    before = path.read_bytes()
    assert sign(path) == run.parameters.digest
    assert path.read_bytes() == before


def test_sign_adds_a_missing_digest_and_nothing_else(tmp_path):
    path = prepared(tmp_path / "a", "switch-nvt")
    whole = path.read_text()
    path.write_text(re.sub(r", digest: [\w-]+", "", whole))
    sign(path)
    assert path.read_text() == whole


def test_sign_refuses_a_changed_model(tmp_path):
    path = prepared(tmp_path / "a", "switch-nvt")
    model = path.parent / "osc.json"
    model.write_text(model.read_text().replace("6.0", "6.5"))
    with pytest.raises(InputError, match="does not match"):
        sign(path)


def test_files_that_are_named_travel_along(tmp_path):
    (tmp_path / "ramp.dat").write_text("0 0\n0.3 0.5\n1 1\n")
    (tmp_path / "m.json").write_text(json.dumps({"initial": [63] * 4, "final": [197] * 4}))
    path = rr.oscillator_run(
        tmp_path / "a",
        schedule=tmp_path / "ramp.dat",
        masses_file=tmp_path / "m.json",
        **LENGTHS,
    )
    for name in ("ramp.dat", "m.json", "osc.json"):
        assert (path.parent / name).read_bytes() == (tmp_path / name).read_bytes()
    p = read_input(path).parameters
    assert (p.schedule, p.masses_file, p.model) == ("ramp.dat", "m.json", "osc.json")


def test_a_folder_that_already_holds_the_model_is_welcome(tmp_path, monkeypatch):
    structure = rr.oscillators(tmp_path)
    monkeypatch.chdir(tmp_path)
    values = {"model": "osc.json", "alchemy": "Cu->Au", "lambda": "0.5"}
    assert prepare("nvt-fixed", structure, tmp_path, values) == [tmp_path]
    assert read_input(tmp_path).parameters.model == "osc.json"


def test_two_files_of_one_name_are_refused(tmp_path):
    structure = rr.oscillators(tmp_path)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "osc.json").write_text("{}")
    values = {
        "model": str(tmp_path / "osc.json"),
        "masses_file": str(tmp_path / "b" / "osc.json"),
        "alchemy": "Cu->Au",
    }
    with pytest.raises(InputError, match=r"two files would be called osc\.json"):
        prepare("switch-nvt", structure, tmp_path / "a", values)
    assert not (tmp_path / "a").exists()


def test_a_structure_is_turned_and_repeated(tmp_path):
    """Any orientation comes out with a along x; every distance stays."""
    cell = np.array([[0.0, 3.0, 0.2], [0.1, 0.0, 4.0], [5.0, 0.3, 0.0]])
    atoms = Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.4, 0.5, 0.6]], cell=cell, pbc=True)
    write(tmp_path / "turned.extxyz", atoms)
    s = read_structure(tmp_path / "turned.extxyz", (2, 1, 3))
    assert len(s) == 12
    assert np.triu(s.cell, 1).tolist() == np.zeros((3, 3)).tolist()
    repeated = atoms.repeat((2, 1, 3))
    here = Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True)
    for mic in (False, True):
        expected = repeated.get_all_distances(mic=mic)
        assert np.allclose(here.get_all_distances(mic=mic), expected, atol=1e-7)


def test_the_start_of_another_run_is_a_structure(tmp_path):
    path = prepared(tmp_path / "a", "switch-nvt").parent / "start.xyz"
    assert np.array_equal(read_structure(path).cell, read_xyz(path).cell)
    assert np.array_equal(read_structure(path).positions, read_xyz(path).positions)


def test_what_was_prepared_is_what_starts(tmp_path):
    structure = rr.oscillators(tmp_path)
    path = prepared(tmp_path / "a", "switch-nvt")
    assert np.array_equal(read_xyz(path.parent / "start.xyz").positions, structure.positions)


def test_no_declaration_and_valid_entities(tmp_path):
    text = prepared(tmp_path / "a", "switch-nvt").read_text()
    assert text.startswith("<simulation")
    assert io.StringIO(text).read().endswith("</simulation>\n")


def test_einstein_starts_have_the_mass_centre_of_their_anchors(tmp_path):
    """Shifted as a whole, counted in the nearest image; eq. 19 holds only then."""
    from alchemdriver.contract.springs import read_springs, write_springs
    from alchemdriver.paths.geometry import mass_centre_offset
    from alchemdriver.records import Structure

    structure = rr.oscillators(tmp_path)
    mixed = Structure(("Cu", "Cu", "Au", "Cu"), structure.positions, structure.cell)
    write_springs(tmp_path / "k.extxyz", mixed, np.full(4, 3.0))
    away = np.array([[0.3, 0, 0], [0, 0.1, 0], [-0.2, 0, 0.1], [8.0, 0, -8.1]])
    moved = mixed.positions + away
    start = Structure(mixed.symbols, moved, mixed.cell)
    values = {
        "model": str(tmp_path / "osc.json"),
        "alchemy": "einstein->model",
        "springs": str(tmp_path / "k.extxyz"),
        **{key: str(value) for key, value in LENGTHS.items()},
    }
    prepare("switch-nvt", start, tmp_path / "a", values, Settings(temperature=300.0))
    run = read_input(tmp_path / "a")
    anchors, _ = read_springs(run.folder / "k.extxyz", run.structure)
    offset = mass_centre_offset(run.structure, anchors, run.initial_masses)
    assert np.linalg.norm(offset) < 1e-12
    shift = run.structure.positions - moved
    assert np.abs(shift - shift[0]).max() < 1e-12
    assert np.linalg.norm(shift[0]) > 0.01
