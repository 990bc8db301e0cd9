"""Stages on disk: what is planned, what feeds what, what is run again, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from helpers import real_runs as rr

from alchemdriver.contract import manifest, springs
from alchemdriver.contract.parameters import split_parameters
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.text import parse_potentials, parse_sites
from alchemdriver.contract.xyz import read_xyz, write_xyz
from alchemdriver.errors import InputError, RunError
from alchemdriver.paths import ALONE
from alchemdriver.records import Structure
from alchemdriver.workflow import plan, runner

LENGTHS = ("--steps", 600, "--equilibrate", 100, "--switch", 400, "--cycles", 1, "--replicas", 2)
IRON = ("--supercell", "2x2x2", "--model", "demo-fe", "--pressure", 1, "--timestep", 4)


@pytest.fixture
def iron(tmp_path):
    path = tmp_path / "fe.xyz"
    ase.io.write(path, bulk("Fe", "bcc", a=2.83, cubic=True), format="extxyz")
    return path


@pytest.fixture
def perovskite(tmp_path):
    path = tmp_path / "alpha.xyz"
    atoms = ase.Atoms(
        "CsPbI3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[6.2894] * 3,
        pbc=True,
    )
    ase.io.write(path, atoms, format="extxyz")
    return path


def prepared(kind, structure, folder, *more):
    done = rr.command("prepare", kind, structure, folder, *more)
    assert done.returncode == 0, done.stderr
    return manifest.read(folder), done.stdout


def refused(*args) -> str:
    done = rr.command(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


# --- plans --------------------------------------------------------------------------------------


def test_a_vacancy_has_both_routes_from_one_crystal(iron, tmp_path):
    workflow, text = prepared(
        "vacancy", iron, tmp_path / "w", *IRON, *LENGTHS, "--temperature", "100 300", "--site", 5
    )
    assert "N_WS = 16 (by spglib)" in text
    names = [s.name for s in workflow.stages]
    assert names[:2] == ["01-relax", "05-relax-defect"]
    assert [n for n in names if n.startswith("300K")] == [
        f"300K/{n}"
        for n in (
            "02-npt", "03-nvt", "04-frenkel-ladd", "06-npt-defect", "07-frenkel-ladd-defect",
            "08-alchemical",
        )
    ]  # fmt: skip
    path = workflow.stage("300K/08-alchemical")
    assert path.takes["tether"] == "300K/03-nvt/einstein.extxyz"
    assert path.removed == (5,)
    text = path.inputs(workflow.root)[0].read_text()
    assert "alchemy: Fe[5]-&gt;void" in text
    assert len(read_xyz(workflow.root / "defect.xyz")) == 15
    assert workflow.settings.configurations == 16


def test_no_two_runs_share_a_seed(iron, tmp_path):
    workflow, _ = prepared(
        "vacancy", iron, tmp_path / "w", *IRON, *LENGTHS, "--temperature", "100 300", "--site", 0
    )
    seeds = []
    for stage in workflow.stages:
        if stage.does != "relax":
            for path in stage.inputs(workflow.root):
                start = path.read_text().index("<seed>") + len("<seed>")
                seeds.append(int(path.read_text()[start:].split("<")[0]))
    assert len(seeds) == 2 * (2 + 1 + 3 * 2)
    assert len(set(seeds)) == len(seeds)


def test_a_transmutation_of_two_phases(perovskite, tmp_path):
    other = tmp_path / "beta.xyz"
    atoms = ase.io.read(perovskite)
    atoms.set_cell([6.0, 6.0, 6.6], scale_atoms=True)
    ase.io.write(other, atoms, format="extxyz")
    workflow, _ = prepared(
        "transmute", perovskite, tmp_path / "w", "--second-phase", other, "--supercell", "2x2x2",
        "--second-supercell", "2x2x1", "--alchemy", "Pb->Sn Cs->Pb", "--model", "demo",
        "--temperature", 500, "--pressure", 10000, "--timestep", 8, *LENGTHS,
    )  # fmt: skip
    final = read_xyz(tmp_path / "w" / "alpha" / "final.xyz")
    assert sorted(set(final.symbols)) == ["I", "Pb", "Sn"]
    quantities = [(c.quantity, c.route, c.phase) for c in workflow.calculations]
    for phase in ("alpha", "beta"):
        assert ("ΔG", "alchemical", phase) in quantities
        assert ("ΔG", "Frenkel–Ladd", phase) in quantities
    # one free cell parameter in the cubic phase, two in the tetragonal one
    assert "isotropic" in (tmp_path / "w" / "alpha" / "500K" / "02-npt" / "input.xml").read_text()
    assert "flexible" in (tmp_path / "w" / "beta" / "500K" / "02-npt" / "input.xml").read_text()


def test_path_integrals_where_they_count(iron, tmp_path):
    workflow, text = prepared(
        "vacancy", iron, tmp_path / "w", *IRON, *LENGTHS, "--temperature", 100, "--site", 0,
        "--beads", 8, "--steps", 1200,
    )  # fmt: skip
    assert "path integrals with 8 beads" in text
    beads = {
        s.name: s.inputs(workflow.root)[0].read_text().split('nbeads="')[1].split('"')[0]
        for s in workflow.stages
        if s.does != "relax"
    }
    assert beads == {
        "100K/02-npt": "8",
        "100K/03-nvt": "1",  # any spring constants will do
        "100K/04-frenkel-ladd": "8",
        "100K/06-npt-defect": "8",
        "100K/07-frenkel-ladd-defect": "8",
        "100K/08-alchemical": "8",
    }


def test_partial_substitution_keeps_the_labelled_crystals_translations(perovskite, tmp_path):
    """As for a vacancy: N_WS is the perfect crystal's, the choice of sites is reported apart."""
    workflow, _ = prepared(
        "transmute", perovskite, tmp_path / "w", "--supercell", "2x2x2", "--alchemy", "Pb[1]->Sn",
        "--model", "demo", "--temperature", 500, "--pressure", 0, "--timestep", 8, *LENGTHS,
    )  # fmt: skip
    assert workflow.settings.crystals["alpha"].n_ws == 8
    assert workflow.settings.configurations == {"alpha": 8}
    stage = workflow.stage("alpha/500K/08-frenkel-ladd")
    einstein = SimpleNamespace(lambda_path=ALONE["einstein->model"])
    assert manifest.einstein_terms(workflow, stage, einstein) == {"n_ws": 8, "pressure": 0.0}


# --- refusals -----------------------------------------------------------------------------------

COMMON = ("--model", "demo-fe", "--temperature", 300, "--pressure", 1, "--timestep", 4)


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("crystall", COMMON, "unknown protocol 'crystall' (did you mean 'crystal'?)"),
        ("crystal", COMMON[:-2], "crystal needs a timestep"),
        ("crystal", COMMON[:4] + COMMON[6:], "crystal needs a pressure"),
        ("crystal", (*COMMON, "--alchemy", "Fe->Ni"), "--alchemy belongs to transmute"),
        ("crystal", (*COMMON, "--site", 0), "--site belongs to vacancy"),
        (
            "crystal",
            (*COMMON, "--replicas", 0),
            "replicas: expected a whole number from 1 to 9999, got 0",
        ),
        ("crystal", (*COMMON, "--beads", 0), "beads: expected a whole number of at least 1, got 0"),
        ("transmute", (*COMMON, "--alchemy", "Fe->Ni", "--beads", 4), "needs a mass leg"),
        ("vacancy", COMMON, "vacancy needs the atoms to remove, e.g. --site 0"),
        ("vacancy", (*COMMON, "--site", "2"), "site 2 is out of range"),
        ("vacancy", (*COMMON, "--site", "zero"), "expected indices such as '0;5'"),
        ("vacancy", (*COMMON, "--site", "0 1"), "all atoms would be removed"),
        ("vacancy", (*COMMON, "--site", 0, "--route", "alchemial"), "did you mean 'alchemical'?"),
        (
            "vacancy",
            (*COMMON, "--site", 0, "--chemical-potential", "Fe=-8"),
            "its own reference",
        ),
        ("crystal", (*COMMON, "--tether", 3), "--tether belongs to vacancy"),
        ("crystal", (*COMMON, "--route", "both"), "--route belongs to vacancy and transmute"),
        ("crystal", (*COMMON, "--second-supercell", "2x2x2"), "belongs to transmute"),
        (
            "transmute",
            (*COMMON, "--alchemy", "Fe->Ni", "--second-supercell", "2x2x2"),
            "--second-phase, which is not given",
        ),
        ("crystal", (*COMMON, "--schedule", "poly8"), "did you mean 'poly9'?"),
        ("crystal", (*COMMON, "--formula-units", 3), "3 do not divide"),
        ("crystal", ("--model", "demo-fee", *COMMON[2:]), "did you mean 'demo-fe'?"),
        ("crystal", (*COMMON, "--temperature", "300 300.00000001"), "two are called alike"),
        ("transmute", COMMON, "transmute needs an alchemy"),
        ("transmute", (*COMMON, "--alchemy", "Fe[0]->void"), "expected a change of elements"),
        ("transmute", (*COMMON, "--alchemy", "Fe->Ni"), "does not know Ni"),
        (
            "switch-nvt",
            (*COMMON[:4], "--alchemy", "Fe->Ni", "--site", 0),
            "--site belongs to vacancy",
        ),
        ("nvt", (*COMMON[:4], "--alchemy", "Fe->Ni"), "plain dynamics of the model"),
    ],
)
def test_prepare_refuses(iron, tmp_path, kind, more, says):
    assert says in refused("prepare", kind, iron, tmp_path / "new", *more)
    assert not (tmp_path / "new").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["fe.xyz"]


def test_a_compound_needs_the_chemical_potential_of_what_leaves(perovskite, tmp_path):
    common = ("--model", "demo", "--temperature", 500, "--pressure", 1, "--timestep", 8)
    line = refused("prepare", "vacancy", perovskite, tmp_path / "w", *common, "--site", 2)
    assert "the chemical potential of I" in line
    assert "alchemdriver prepare crystal" in line  # which computes one
    more = (*common, "--site", 2, "--chemical-potential", "Cs=-1")
    assert "of Cs is given, but none is removed" in refused(
        "prepare", "vacancy", perovskite, tmp_path / "w", *more
    )


def test_a_folder_with_anything_in_it_is_left_alone(iron, tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "notes.txt").write_text("mine")
    assert "not empty" in refused("prepare", "crystal", iron, tmp_path / "w", *COMMON)
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["notes.txt"]


def test_lists_on_the_command_line():
    assert parse_sites("0;5, 7 9") == [0, 5, 7, 9]
    assert parse_potentials("I=-1.5 Cs=2") == {"I": -1.5, "Cs": 2.0}
    for text in ("I", "I=", "I=one", "I=nan", "=3"):
        with pytest.raises(InputError, match="expected ELEMENT=eV"):
            parse_potentials(text)


# --- feeding and running again ------------------------------------------------------------------


@pytest.fixture
def vacancy(iron, tmp_path):
    workflow, _ = prepared(
        "vacancy", iron, tmp_path / "w", *IRON, *LENGTHS, "--temperature", 300, "--site", 5
    )
    return workflow


def pretend(workflow, name, **files):
    """A stage done as far as bookkeeping goes, with *files* as what it gave."""
    stage = workflow.stage(name)
    for file, write in files.items():
        write(workflow.root / name / file.replace("_", "."))
    manifest.mark_done(workflow, stage, 1, {})


@pytest.fixture
def half_done(vacancy):
    """The crystal's springs are there, for atoms with k = 1, 2, 3, …"""
    crystal = read_xyz(vacancy.root / "crystal.xyz")
    constants = [1.0 + i for i in range(len(crystal))]
    pretend(vacancy, "01-relax", relaxed_xyz=lambda p: write_xyz(p, crystal))
    pretend(vacancy, "300K/02-npt", mean_xyz=lambda p: write_xyz(p, crystal))
    pretend(
        vacancy,
        "300K/03-nvt",
        mean_xyz=lambda p: write_xyz(p, crystal),
        einstein_extxyz=lambda p: springs.write_springs(p, crystal, constants),
    )
    return vacancy


def test_stages_take_what_earlier_ones_gave(half_done):
    root = half_done.root
    stage = half_done.stage("300K/08-alchemical")
    runner.feed(half_done, stage)
    for path in stage.inputs(root):
        assert read_input(path).parameters.tether == 6.0  # of atom 5
        assert read_xyz(path.parent / "start.xyz").symbols == ("Fe",) * 16
    defect = read_xyz(root / "defect.xyz")
    pretend(half_done, "300K/06-npt-defect", mean_xyz=lambda p: write_xyz(p, defect))
    stage = half_done.stage("300K/07-frenkel-ladd-defect")
    runner.feed(half_done, stage)
    springs = ase.io.read(stage.inputs(root)[1].parent / "einstein.extxyz")
    assert springs.arrays["spring_constant"].tolist() == [
        1.0 + i for i in range(16) if i != 5
    ]  # the removed atom's own spring is left out, the others keep theirs
    assert abs(springs.positions - defect.positions).max() < 1e-7


def test_a_tether_that_the_user_wrote_stays(half_done):
    stage = half_done.stage("300K/08-alchemical")
    for path in stage.inputs(half_done.root):
        path.write_text(
            path.read_text().replace("masses: interpolate", "tether: 2.5, masses: fixed")
        )
    runner.feed(half_done, stage)
    assert {read_input(p).parameters.tether for p in stage.inputs(half_done.root)} == {2.5}


def test_other_conditions_than_the_workflows_are_refused(half_done):
    stage = half_done.stage("300K/08-alchemical")
    path = stage.inputs(half_done.root)[1]
    good = path.read_text()
    path.write_text(good.replace(">300.0</temperature>", ">310.0</temperature>"))
    with pytest.raises(InputError, match=r"temperature is 310\.0, but the workflow is for 300"):
        runner.feed(half_done, stage)
    path.write_text(good.replace('units="bar">1.0<', 'units="bar">5000.0<'))
    with pytest.raises(InputError, match=r"pressure is 5000\.0, but the workflow is for 1"):
        runner.feed(half_done, stage)


def test_what_would_be_missed_after_the_run_is_refused_before_it(half_done):
    """No frame of a hold, too few frames of an average, no positions at all."""
    stage = half_done.stage("300K/08-alchemical")
    path = stage.inputs(half_done.root)[1]
    good = path.read_text()
    path.write_text(
        good.replace("equilibrate: 100", "equilibrate: 50").replace(">1000</total", ">900</total")
    )
    with pytest.raises(InputError, match="holds of 50 steps, but positions only every 50"):
        runner.feed(half_done, stage)
    path.write_text(good.replace('format="xyz"', 'format="ase"'))
    with pytest.raises(InputError, match="prints no positions"):
        runner.feed(half_done, stage)
    path.write_text(good.replace(">1000</total", ">900</total"))
    with pytest.raises(InputError, match=f"{path}: <total_steps> is 900"):
        runner.feed(half_done, stage)
    path.write_text(good)
    runner.feed(half_done, stage)
    stage = half_done.stage("300K/02-npt")
    path = stage.inputs(half_done.root)[0]
    path.write_text(path.read_text().replace(">600</total", ">200</total"))
    with pytest.raises(InputError, match="21 frames of positions, at least 20 after"):
        runner.feed(half_done, stage)


def test_two_phases_must_change_alike(perovskite, tmp_path):
    common = ("--model", "demo", "--temperature", 500, "--pressure", 1, "--timestep", 8)
    other = tmp_path / "beta.xyz"
    other.write_text(perovskite.read_text())
    more = ("--second-phase", other, "--supercell", "2x2x2", "--alchemy", "Pb[1]->Sn")
    line = refused("prepare", "transmute", perovskite, tmp_path / "w", *common, *more)
    assert "changes another share of their atoms" in line
    more = ("--second-phase", other, "--alchemy", "Pb->Sn", "--n-ws", 1)
    line = refused("prepare", "transmute", perovskite, tmp_path / "w", *common, *more)
    assert "--n-ws and --formula-units are for one crystal" in line


def test_a_file_that_the_user_changed_is_not_overwritten(half_done):
    stage = half_done.stage("300K/04-frenkel-ladd")
    runner.feed(half_done, stage)
    start = stage.inputs(half_done.root)[0].parent / "start.xyz"
    start.write_text(start.read_text().replace("Fe", "Ni", 1))
    mine = start.read_text()
    with pytest.raises(InputError, match="delete it to take that"):
        runner.feed(half_done, stage)
    assert start.read_text() == mine
    assert not list(start.parent.glob(".*.new"))


def test_an_edited_stage_is_noticed(half_done):
    stage = half_done.stage("300K/03-nvt")
    (path,) = stage.inputs(half_done.root)
    assert manifest.done(half_done, stage) is not None
    path.write_text(path.read_text().replace("<seed>", "<seed>1"))
    with pytest.raises(InputError, match="--from 300K/03-nvt"):
        manifest.done(half_done, stage)


def test_from_puts_the_stage_and_all_that_follow_aside(half_done):
    root = half_done.root
    stage = half_done.stage("300K/08-alchemical")
    runner.feed(half_done, stage)
    after = [s.name for s in half_done.after(half_done.stage("300K/02-npt"))]
    assert after == [
        "300K/02-npt", "300K/03-nvt", "300K/04-frenkel-ladd", "300K/07-frenkel-ladd-defect",
        "300K/08-alchemical",
    ]  # fmt: skip
    for s in half_done.after(half_done.stage("300K/02-npt")):
        runner.put_aside(half_done, s)
    assert manifest.done(half_done, half_done.stage("01-relax")) is not None
    assert manifest.done(half_done, half_done.stage("300K/02-npt")) is None
    assert (root / "300K/03-nvt/old/1/einstein.extxyz").is_file()
    assert not (root / "300K/03-nvt/einstein.extxyz").exists()
    text = stage.inputs(root)[0].read_text()
    start = text.index("{", text.index("<parameters"))
    keys = split_parameters(text[start : text.index("}", start) + 1])
    assert "tether" not in keys  # fed anew from the springs to come


def test_a_start_with_atoms_off_their_sites_does_not_decide_n_ws(tmp_path):
    """A shaken crystal has no translations but the box's, and relaxes to one that has 16."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(2)
    perfect = Structure(("Fe",) * 16, atoms.positions.copy(), np.array(atoms.cell))
    atoms.rattle(0.2, seed=1)
    shaken = replace(perfect, positions=atoms.positions)
    common = plan.Common("demo-fe", temperatures_K=(300.0,), pressure_bar=1.0, timestep_fs=2.0)
    workflow = plan.prepare_crystal(shaken, tmp_path / "w", common)
    stage = workflow.stage("01-relax")
    write_xyz(workflow.root / "01-relax/relaxed.xyz", perfect)
    with pytest.raises(RunError, match="16 lattice translations, but N_WS = 1"):
        runner.finish(workflow, stage, 1)
    given = plan.prepare_crystal(shaken, tmp_path / "given", replace(common, n_ws=16))
    write_xyz(given.root / "01-relax/relaxed.xyz", perfect)
    assert "cell 5.6600" in runner.finish(given, stage, 1)


def test_a_manifest_that_does_not_fit_together_is_refused(vacancy):
    path = vacancy.root / manifest.FILE
    good = path.read_text()
    for old, new, says in (
        ("relaxed.xyz", "relaxd.xyz", "which none gives"),
        ('"does": "springs"', '"does": "spring"', "did you mean 'springs'?"),
        (manifest.WORKFLOW.schema, "other/7", "expected schema"),
        ('"stages"', '"stags"', "unknown key .did you mean 'stages'"),
        ('"replicas": 2', '"replicas": "x"', "replicas: expected a whole number"),
        ('"crystals"', '"crystal"', "did you mean 'crystals'"),
    ):
        path.write_text(good.replace(old, new))
        with pytest.raises(InputError, match=says):
            manifest.read(vacancy.root)
    path.write_text(good)
    with pytest.raises(InputError, match="did you mean '01-relax'"):
        vacancy.stage("01-relx")


# --- real runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """bcc iron, 16 atoms, 300 K: the whole vacancy workflow, interrupted once."""
    folder = tmp_path_factory.mktemp("vacancy")
    ase.io.write(folder / "fe.xyz", bulk("Fe", "bcc", a=2.83, cubic=True), format="extxyz")
    prepared(
        "vacancy", folder / "fe.xyz", folder / "w", *IRON, *LENGTHS, "--temperature", 300,
        "--site", 15, "--schedule", "linear", "--replicas", 3,
    )  # fmt: skip
    log = folder / "first.log"
    first = rr.start("run", folder / "w", "--threads", 1, log=log)
    rr.wait_for_step(folder / "w/300K/03-nvt/run.out", 50, first, limit=600)
    first.terminate()
    assert first.wait(rr.LIMIT) == 130, log.read_text()
    done = rr.command("run", folder / "w", "--threads", 1, limit=600)
    assert done.returncode == 0, done.stderr
    return folder / "w", done


def test_the_interrupted_workflow_went_on_where_it_was(finished):
    root, done = finished
    assert "stages are done" in done.stderr
    assert "[1/8]" not in done.stderr  # the relaxation is not run again
    again = rr.command("run", root)
    assert again.returncode == 0
    assert "8 of 8 stages are done" in again.stderr


def test_both_routes_give_the_same_vacancy(finished):
    root, _ = finished
    data = json.loads((root / "result.json").read_text())
    (agreement,) = data["agreements"]
    assert agreement["quantity"] == "G_v"
    assert agreement["se"] < 0.040
    assert agreement["sigmas"] < 3.5
    rows = {(r["quantity"], r["route"]): r for r in data["rows"]}
    assert 0.5 < rows["G_v", "alchemical"]["value"] < 2.0
    assert rows["G_v", "alchemical"]["evaluations"] > rows["G", "Frenkel–Ladd"]["evaluations"]
    assert not data["missing"]


def test_a_stage_analysed_by_itself_keeps_the_workflows_terms(finished):
    """N_WS of the perfect crystal and P V, which its own folder does not tell."""
    root, _ = finished
    path = root / "300K/07-frenkel-ladd-defect/result.json"
    before = json.loads(path.read_text())["terms"]
    assert any("N_WS = 16" in t["source"] for t in before)
    assert rr.command("analyze", path.parent).returncode == 0
    assert json.loads(path.read_text())["terms"] == before


def test_the_page_is_whole_and_gather_makes_tables(finished, tmp_path):
    root, _ = finished
    page = (root / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 9
    assert "http" not in page  # nothing is loaded from elsewhere
    assert "eq. 19" in page
    done = rr.command("gather", root, "--out", tmp_path / "g")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "g" / "gathered.json").read_text())["rows"]
    assert {r["quantity"] for r in rows} == {"G", "G_v"}
    assert (tmp_path / "g" / "gathered.csv").read_text().count("\n") == len(rows) + 1
    assert (tmp_path / "g" / "g_v.png").stat().st_size > 5000


def test_a_broken_gather_is_one_line(finished, tmp_path):
    root, _ = finished
    assert "is given twice" in refused("gather", root, root, "--out", tmp_path / "g")
    assert "cannot be read" in refused("gather", tmp_path, "--out", tmp_path / "g")
