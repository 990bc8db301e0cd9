"""What a stage cannot give is said when it is prepared, and what is advised there works."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from helpers import real_runs as rr

from alchemdriver.contract.settings import Common
from alchemdriver.errors import InputError
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.workflow import plan, runner
from alchemdriver.workflow.limits import FEWEST_FRAMES, fewest_steps, too_short


@pytest.fixture
def common(tmp_path):
    rr.oscillators(tmp_path)
    return Common(str(tmp_path / "osc.json"), (300.0,), 1.0, 2.0, md_steps=1000, equilibrate=100)


@pytest.mark.parametrize(
    ("field", "option", "value"),
    [("md_steps", "--steps", 199), ("equilibrate", "--equilibrate", 50)],
)
def test_too_few_frames_are_refused_and_the_advice_is_enough(
    common, tmp_path, field, option, value
):
    crystal, folder = rr.oscillators(tmp_path), tmp_path / "w"
    with pytest.raises(InputError, match=option) as caught:
        plan.prepare_crystal(crystal, folder, replace(common, **{field: value}))
    assert not folder.exists()
    advised = int(re.search(r"(\d+) steps or more", str(caught.value))[1])
    workflow = plan.prepare_crystal(crystal, folder, replace(common, **{field: advised}))
    for stage in workflow.stages:
        for path in stage.inputs(workflow.root):
            if stage.does != "relax":
                (path.parent / "start.xyz").write_bytes((folder / "crystal.xyz").read_bytes())
                if "einstein.extxyz" in stage.takes:
                    continue
                runner.check_frames(stage, runner.read_input(path))
    with pytest.raises(InputError):
        plan.prepare_crystal(
            crystal, tmp_path / "v", replace(common, **{field: advised - (10 if value > 99 else 1)})
        )


def test_the_fewest_steps_are_the_fewest():
    steps = fewest_steps(10)
    frames = steps // 10 + 1
    assert frames - frames // 10 == FEWEST_FRAMES
    assert too_short("springs", 10, steps, 0) is None
    assert too_short("springs", 10, steps - 1, 0) is not None


def test_one_pair_of_switches_is_refused_when_it_is_prepared(common, tmp_path):
    few = replace(common, replicas=1, cycles=1)
    with pytest.raises(InputError, match="--replicas 2 or --cycles 2"):
        plan.prepare_crystal(rr.oscillators(tmp_path), tmp_path / "w", few)
    for enough in (replace(few, replicas=2), replace(few, cycles=2)):
        folder = tmp_path / f"w{enough.cycles}"
        assert plan.prepare_crystal(rr.oscillators(tmp_path), folder, enough).stages


def test_steps_that_would_be_in_no_row_are_refused(tmp_path):
    structure = rr.oscillators(tmp_path)
    keys = {"model": str(tmp_path / "osc.json"), "alchemy": "Cu->Au", "lambda": "0.5"}
    settings = Settings(temperature=300.0, timestep=2.0, total_steps=105, seed=1)
    with pytest.raises(InputError, match=r"105 is no multiple of 10, .* give 110"):
        prepare("windows-nvt", structure, tmp_path / "a", keys, settings)
    assert not (tmp_path / "a").exists()
    prepare("windows-nvt", structure, tmp_path / "a", keys, replace(settings, total_steps=110))
