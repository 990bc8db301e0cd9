"""A plan becomes rows, and a row the folder that ``prepare`` writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from helpers.plans import write_plan

from alchemdriver.campaign import planning, record
from alchemdriver.campaign.folders import ensure_folder
from alchemdriver.campaign.grid import points
from alchemdriver.campaign.plan import read_plan
from alchemdriver.campaign.status import survey
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.supercells import cells
from alchemdriver.contract import manifest
from alchemdriver.errors import InputError
from alchemdriver.prepare.command import prepare_runs
from alchemdriver.prepare.protocols import find


def test_lists_multiply_and_single_cases_are_left_out_or_changed(tmp_path):
    rest = """
[[exclude]]
temperature = 400
switch = [50]
[[override]]
where = {temperature = 300, switch = 50}
set = {timestep = 0.5}
"""
    plan = write_plan(tmp_path, rest=rest, temperatures="[300, 400, 500]", switch="[30, 50]")
    found = planning.draft(plan).campaign
    grid = {(c.options["temperature"], c.options["switch"]): c for c in found.cases}
    assert set(grid) == {(t, s) for t in (300, 400, 500) for s in (30, 50)} - {(400, 50)}
    assert grid[300, 50].options["timestep"] == 0.5
    assert grid[500, 50].options["timestep"] == 2
    assert grid[300, 50].steps == 2 * (20 + 50)
    seeds = [seed for case in found.cases for seed in case.seeds]
    assert seeds == list(range(7, 7 + 10))
    assert len({c.name for c in found.cases}) == 5


def test_a_row_becomes_the_folder_that_prepare_writes(tmp_path):
    planning.save(planning.draft(write_plan(tmp_path)), tmp_path / "c")
    assert not (tmp_path / "c" / "runs").exists()
    campaign = record.read(tmp_path / "c")
    run = campaign.runs[3]
    folder = ensure_folder(tmp_path / "c", campaign, run)
    given = {
        "temperature": "400", "model": str(tmp_path / "osc.json"), "alchemy": "Cu->Au",
        "supercell": "1x1x1", "timestep": 2.0, "equilibrate": 20, "switch": 30, "cycles": 1,
        "seed": 10,
    }  # fmt: skip
    prepare_runs(find("switch-nvt"), tmp_path / "cu.xyz", tmp_path / "by-hand", given)
    for file in ("input.xml", "start.xyz", "osc.json"):
        assert (folder / file).read_bytes() == (tmp_path / "by-hand" / file).read_bytes()
    assert (folder / "osc.json").samefile(tmp_path / "c" / "files" / "osc.json"), "one copy"


def test_windows_are_runs_of_their_own(tmp_path):
    plan = write_plan(tmp_path, protocol='"windows-nvt"')
    text = plan.read_text().replace("equilibrate = 20\nswitch = 30\ncycles = 1", "steps = 100")
    plan.write_text(text + 'lambdas = "0 0.5 1"\n')
    planning.save(planning.draft(plan), tmp_path / "c")
    campaign = record.read(tmp_path / "c")
    assert len(campaign.runs) == 2 * 2 * 3
    run = campaign.runs[4]
    assert (run.lam, run.replica) == (0.5, 1)
    text = (ensure_folder(tmp_path / "c", campaign, run) / "input.xml").read_text()
    assert "lambda:0.5" in text.replace(" ", "")
    assert f"<seed>{run.seed}</seed>" in text.replace(" ", "")


def test_stages_are_one_run_a_case(tmp_path):
    top, rest = "pressures = [1.0]", "steps = 2000"
    plan = write_plan(tmp_path, top, rest, protocol='"crystal"', alchemies="[]", equilibrate="60")
    ase.io.write(tmp_path / "cu.xyz", bulk("Cu", cubic=True), format="extxyz")
    planning.save(planning.draft(plan), tmp_path / "c")
    campaign = record.read(tmp_path / "c")
    assert [len(case.seeds) for case in campaign.cases] == [1, 1]
    folder = ensure_folder(tmp_path / "c", campaign, campaign.runs[1])
    workflow = manifest.read(folder)
    assert folder == tmp_path / "c" / "runs" / campaign.cases[1].name
    assert workflow.settings.temperatures_K == (400.0,)
    assert workflow.settings.seed == campaign.runs[1].seed == 7 + 10_000


def test_compositions_are_the_cells_of_the_one_maker_of_cells(tmp_path):
    rest = """
[compositions]
sublattices = ["Cu->Au"]
shares = [[0.75, 0.25], [0.5, 0.5]]
samples = 2
seed = 3
"""
    plan = write_plan(
        tmp_path, rest=rest, alchemies='["Cu->Ag"]', models='["other.json"]', supercells='["2x2x2"]'
    )
    plan.write_text(plan.read_text().replace("replicas", 'supercells = ["2x1x1"]\nreplicas'))
    springs = {"Cu": 2.0, "Au": 6.0, "Ag": 3.0}
    parent = bulk("Cu", cubic=True)
    ase.io.write(tmp_path / "cu.xyz", parent, format="extxyz")
    crystal = parent.repeat((2, 1, 1))
    model = {
        "backend": "harmonic", "spring_constants": springs,
        "anchors": crystal.positions.tolist(), "cell": crystal.cell.tolist(),
    }  # fmt: skip
    (tmp_path / "other.json").write_text(json.dumps(model))
    planning.save(planning.draft(plan), tmp_path / "c")
    campaign = record.read(tmp_path / "c")
    assert len(campaign.systems) == 4
    mixture = Mixture.from_text(crystal, ["Cu->Au"])
    for share, name in (([0.75, 0.25], "Cu0.75-Au0.25"), ([0.5, 0.5], "Cu0.5-Au0.5")):
        for n, expected in enumerate(cells(mixture, share, "random", 2, 3)):
            system = campaign.systems[f"cu_2x1x1_{name}-cell{n + 1}"]
            atoms = ase.io.read(tmp_path / "c" / system.file)
            assert atoms.get_chemical_symbols() == expected.get_chemical_symbols()
            np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-7)
            assert system.made["seed"] == 3
            assert system.made["composition"] == expected.info["composition"]


@pytest.mark.parametrize(
    ("changed", "top", "rest", "words"),
    [
        ({"temperatures": "[]"}, "", "", "temperatures: expected a list with at least one"),
        ({"temperatures": "[-3]"}, "", "", "temperatures[0]: expected a positive number of K"),
        ({"temperatures": "[300, 300]"}, "", "", "300.0 twice"),
        ({}, "temperature = 300", "", "temperature: unknown key (did you mean 'temperatures'?)"),
        ({}, "", "timestap = 1", "options.timestap: unknown key (did you mean 'timestep'?)"),
        ({"cycles": "1.5"}, "", "", "options.cycles: expected a whole number, got 1.5"),
        ({}, "", "temperature = 3", "options.temperature: expected 'temperatures' at the top"),
        ({}, "pressures = [1]", "", "switch-nvt runs at constant volume"),
        ({"alchemies": "[]"}, "", "", "switch-nvt needs an alchemy"),
        ({"alchemies": '["Cu->Xx"]'}, "", "", "Xx"),
        ({"protocol": '"switch-nvd"'}, "", "", "did you mean 'switch-nvt'?"),
        ({"structures": '["gone.xyz"]'}, "", "", "gone.xyz does not exist"),
        ({"models": '["gone.json"]'}, "", "", "gone.json does not exist"),
        ({}, "", "[[exclude]]\ntemperature = 350", "350 is not among 300.0, 400.0"),
        ({}, "", "[[exclude]]\ntemprature = 300", "(did you mean 'temperature'?)"),
        ({}, "", "[run]\nslice = 'long'", "run.slice: expected a time such as 4:00:00"),
        ({}, "", "[slurm]\nwalltime = '1:00:00'\ngpu = 1", "slurm.gpu: unknown key"),
        ({}, "", "[compositions]\nsublattices=['Cu->Au']\nshares=[[1.0]]\nseed=1", "2 shares"),
        ({}, "when = 2026-01-01", "", "when: expected text, a number or a list, got a date"),
        ({}, "oops", "", "is not TOML"),
        (
            {"structures": "{{'γ-Cu' = 'cu.xyz', 'δ-Cu' = 'cu.xyz'}}"},
            "",
            "",
            "'γ-Cu' and 'δ-Cu' are one name for a folder, 'Cu'",
        ),
        (
            {},
            "",
            "[[override]]\nwhere = {temperature = 300}\nset = {temperature = 350}",
            "override[0].set.temperature: it is in the names of cases",
        ),
        (
            {},
            "",
            "[[override]]\nwhere = {temperature = 300}\nset = {replicas = 8}",
            "override[0].set.replicas: it is in the names of cases",
        ),
        ({}, "", "[run]\ndevice = 'gpu'", "run.device: expected auto, cpu, cuda, cuda:1 or mps"),
        ({}, "", "[run]\nevaluator = 'stok'", "run.evaluator"),
    ],
)
def test_a_bad_plan_gives_one_line(tmp_path, changed, top, rest, words):
    plan = write_plan(tmp_path, top, rest, **changed)
    with pytest.raises(InputError) as caught:
        planning.draft(plan)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(plan))
    assert "\n" not in str(caught.value)


def test_a_longer_plan_adds_and_changes_nothing_that_is_there(tmp_path):
    root = tmp_path / "c"
    planning.save(planning.draft(write_plan(tmp_path)), root)
    before = record.read(root).cases
    more = write_plan(tmp_path, "error = 2.0", temperatures="[300, 350, 400]", replicas="3")
    assert planning.extend(root, planning.draft(more)) == (1, 5)
    after = {case.name: case for case in record.read(root).cases}
    for case in before:
        assert after[case.name].seeds[:2] == case.seeds
        assert after[case.name].error == 2.0
    seeds = [seed for case in after.values() for seed in case.seeds]
    assert len(seeds) == len(set(seeds)) == 9
    assert planning.extend(root, planning.draft(more)) == (0, 0)
    with pytest.raises(InputError, match="is there with cycles = 1, the plan says 2"):
        planning.extend(root, planning.draft(write_plan(tmp_path, cycles="2")))
    with pytest.raises(InputError, match="holds a campaign"):
        planning.save(planning.draft(more), root)
    with pytest.raises(InputError, match=r"case .* is there as .*, and would be computed again"):
        planning.extend(root, planning.draft(write_plan(tmp_path, cycles="[1, 2]")))
    text = (root / "plan.toml").read_text()
    (root / "plan.toml").write_text(text + "\n[run]\nslice = '2:00:00'\n")  # by hand, meanwhile
    with pytest.raises(InputError, match=r"\[run\] is not that of"):
        planning.extend(root, planning.draft(more))


def test_an_error_is_asked_only_of_what_has_one(tmp_path):
    plan = write_plan(tmp_path, "error = 2.0", protocol='"nvt-fixed"')
    text = plan.read_text()
    for line in ("equilibrate = 20", "switch = 30", "cycles = 1"):
        text = text.replace(line, "")
    plan.write_text(text + "lambda = 0.5\nsteps = 100\n")
    with pytest.raises(InputError, match="gives no single free energy"):
        planning.draft(plan)


def test_a_structure_that_changed_since_is_not_run(tmp_path):
    root = tmp_path / "c"
    planning.save(planning.draft(write_plan(tmp_path)), root)
    campaign = record.read(root)
    file = root / next(iter(campaign.systems.values())).file
    file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(InputError, match="is not the file that was planned with"):
        ensure_folder(root, campaign, campaign.runs[0])


def test_many_runs_are_rows_and_no_folders(tmp_path):
    plan = write_plan(tmp_path, temperatures=str(list(range(100, 1100))), replicas="10")
    planning.save(planning.draft(plan), tmp_path / "c")
    assert {f.name for f in (tmp_path / "c").iterdir()} == {
        "campaign.json", "plan.toml", "systems", "files"
    }  # fmt: skip
    assert survey(tmp_path / "c").runs == {"waiting": 10_000}


def test_the_plan_in_the_docs_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "campaigns.md").read_text()
    (tmp_path / "plan.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.S)[0])
    plan = read_plan(tmp_path / "plan.toml")
    # structures x compositions with cells x temperatures x switch, without one structure at two T
    assert len(points(plan)) == 2 * 4 * 3 * 2 - 1 * 4 * 2 * 2
    assert plan.slurm.gpus_per_node == 4
    assert plan.error == 2.0
