"""Names in a manifest stay in its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest

from alchemdriver.contract import manifest
from alchemdriver.contract.manifest import Calculation, Stage, Workflow
from alchemdriver.contract.settings import Crystal, CrystalSettings
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import InputError
from alchemdriver.records import Structure


@pytest.fixture
def root(tmp_path):
    """Three stages; beside the folder stands one that no name may reach."""
    folder = tmp_path / "w"
    crystal = Structure(("Fe",), np.zeros((1, 3)), 2.8 * np.eye(3))
    for name in ("w/01-relax", "w/300K/02-nvt", "w/300K/03-fl", "victim"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("w/crystal.xyz", "victim/relaxed.xyz"):
        write_xyz(tmp_path / name, crystal)
    settings = CrystalSettings(
        model="demo-fe",
        temperatures_K=(300.0,),
        pressure_bar=0.0,
        timestep_fs=1.0,
        crystals={"crystal": Crystal(1, "Fe", 1, "Im-3m", 1)},
    )
    springs = {
        "start.xyz": "300K/02-nvt/mean.xyz",
        "einstein.extxyz": "300K/02-nvt/einstein.extxyz",
    }
    stages = (
        Stage("01-relax", "relax", {"start.xyz": "crystal.xyz"}),
        Stage("300K/02-nvt", "springs", {"start.xyz": "01-relax/relaxed.xyz"}, temperature=300.0),
        Stage("300K/03-fl", "free energy", springs, replicas=2, temperature=300.0),
    )
    sums = (Calculation("G", "Frenkel–Ladd", 300.0, {"crystal": "300K/03-fl"}),)
    manifest.write(Workflow(folder, "crystal", settings, stages, sums))
    return folder


def edit(root, change):
    document = json.loads((root / manifest.FILE).read_text(encoding="utf-8"))
    change(document)
    (root / manifest.FILE).write_text(json.dumps(document), encoding="utf-8")


def test_what_is_written_is_read_back(root):
    workflow = manifest.read(root)
    before = (root / manifest.FILE).read_bytes()
    manifest.write(workflow)
    assert (root / manifest.FILE).read_bytes() == before
    assert workflow.stages[2].takes["einstein.extxyz"] == "300K/02-nvt/einstein.extxyz"


@pytest.mark.parametrize(
    "name",
    [
        "../victim", "/etc", "300K/../../victim", "", ".", "..", "./01", "a//b", "a/", "~/../..",
        "a\nb", "a\0b", "x" * 300, "300K/" * 250 + "x",
    ],
)  # fmt: skip
def test_names_that_lead_out_are_refused(root, name):
    def stage(document):
        document["stages"][1]["name"] = name

    def takes(document):
        document["stages"][1]["takes"]["start.xyz"] = name

    good = (root / manifest.FILE).read_text(encoding="utf-8")
    for change, key in ((stage, r"stages\[1\].name"), (takes, r"stages\[1\].takes.start.xyz")):
        edit(root, change)
        with pytest.raises(InputError, match=f"{key}: expected (text|a path below)") as caught:
            manifest.read(root)
        assert str(caught.value).isprintable()
        (root / manifest.FILE).write_text(good, encoding="utf-8")


@pytest.mark.parametrize(
    "link",
    [
        "300K/02-nvt",
        "300K",
        "300K/03-fl/replica-2",
        "01-relax/relaxed.xyz",
        "300K/03-fl/result.json",
    ],
)
def test_links_that_lead_out_are_refused(root, link):
    """A stage's folder, one above, a replica's, what it gives, what the next one takes."""
    place = root / link
    if place.is_dir():
        place.rename(root / "aside")
    place.parent.mkdir(exist_ok=True)
    victim = root.parent / "victim"
    place.symlink_to(victim if "." not in place.name else victim / "relaxed.xyz")
    with pytest.raises(InputError, match="leads out of the workflow's folder"):
        manifest.read(root)


def test_links_that_stay_inside_are_followed(root):
    (root / "300K").rename(root / "at-300K")
    (root / "300K").symlink_to("at-300K")
    assert len(manifest.read(root).stages) == 3


def test_a_workflow_in_a_linked_folder_is_whole(root, tmp_path):
    (tmp_path / "shortcut").symlink_to(root)
    assert len(manifest.read(tmp_path / "shortcut").stages) == 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d["stages"][2].update(name="300K/02-nvt"), "is that of stage '300K/02-nvt'"),
        (lambda d: d["stages"][2].update(name="300K/02-nvt/in"), "or in it"),
        (lambda d: d["stages"][0].update(takes={"start.xyz": "300K/02-nvt/mean.xyz"}), "none"),
        (lambda d: d["stages"][0].update(takes={}), "expected a 'start.xyz'"),
        (lambda d: d["stages"][0].update(takes={"start": "x"}), "did you mean 'start.xyz'"),
        (lambda d: d["stages"][1].update(temperature=None), "every other stage has one"),
        (lambda d: d["stages"][1].update(does="spring"), "did you mean 'springs'"),
        (lambda d: d["stages"][2].update(replicas=10**6), "from 1 to 9999"),
        (lambda d: d["calculations"][0].update(quantity="G_v"), "G_v is made of"),
        (lambda d: d["calculations"][0].update(stages={"crystal": "01-relax"}), "no free energy"),
        (lambda d: d["calculations"][0].update(stages={"crystal": "03-fl"}), "no stage"),
        (lambda d: d["settings"].update(crystals={}), "no crystal"),
        (lambda d: d["settings"].update(temperature_K=[300]), "did you mean 'temperatures_K'"),
        (lambda d: d.update(schema="alchemdriver-workflow/2"), "expected schema .*workflow/1"),
        (lambda d: d.pop("schema"), "got none"),
    ],
)  # fmt: skip
def test_manifests_that_do_not_fit_together_are_one_line(root, change, says):
    edit(root, change)
    with pytest.raises(InputError, match=says) as caught:
        manifest.read(root)
    assert "\n" not in str(caught.value)
    assert str(root / manifest.FILE) in str(caught.value) or "no stage" in says
