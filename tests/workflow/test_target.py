"""``run --error`` through a real i-PI: killed, resumed, asked for something else on the way."""

from __future__ import annotations

import json
import signal

import pytest
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import InputError
from alchemdriver.workflow.tune import tune

SWITCHES = {"schedule": "linear", "equilibrate": 10, "switch": 20, "seed": 5}
CYCLE = 60  # steps


def asked(folder, *words):
    return rr.command("run", folder, "--error", *words)


def test_a_chain_that_went_on_is_the_one_asked_for_at_once(tmp_path):
    """Ten pairs; killed on the way to fifteen; then another error and no budget.
    Nothing is done twice, and no bit differs from a run of that length from the start."""
    folder = tmp_path / "grown"
    path = rr.oscillator_run(folder, cycles=10, **SWITCHES)
    first = asked(folder, "1meV", "--budget", f"{11 * CYCLE}evaluations")
    assert first.returncode == 75, first.stderr  # the budget
    assert "1 meV per cell after about" in first.stdout
    assert "the budget is over" in first.stderr
    assert read_input(path).schedule.cycles == 10

    log = tmp_path / "log"
    process = rr.start("run", folder, "--error", "1meV", "--budget", "901evaluations", log=log)
    rr.wait_for_step(folder / "run.out", 13 * CYCLE, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read_input(path).schedule.cycles == 15  # half as many more
    done = asked(folder, "50meV")
    assert done.returncode == 0, done.stderr
    assert "50 meV per cell is reached" in done.stdout
    assert read_input(path).schedule.cycles == 15  # what was begun was finished, and no more
    assert list(rr.rows(folder / "run.out")) == list(range(15 * CYCLE + 1))

    last = json.loads((folder / "target.json").read_text())
    assert [x["cycles"]["grown"] for x in last["looks"]] == [[10], [15]]
    assert [x["met"] for x in last["looks"]] == [False, True]
    assert [x["cycles"] for x in last["lengthened"]] == [{"input.xml": 15}]

    whole = tmp_path / "whole"
    rr.oscillator_run(whole, cycles=15, **SWITCHES)
    assert rr.command("run", whole).returncode == 0
    assert rr.rows(whole / "run.out") == rr.rows(folder / "run.out")
    for name in ("run.dHdlambda_0", "run.lambda_0"):
        assert rr.frames(whole / name) == rr.frames(folder / name)
    _tuned(folder, tmp_path / "tuned")


def _tuned(pilot, folder):
    """The same chain as a pilot: the inputs of another run, each choice with its reason."""
    done = tune(pilot, folder, keep=("equilibrate",))
    assert (folder / "tuning.txt").read_text() == "\n".join(done.lines()) + "\n"
    was, now = (read_input(f / "input.xml") for f in (pilot, folder))
    assert {c.key for c in done.choices} == {"schedule", "switch"}
    assert now.schedule.equilibrate == was.schedule.equilibrate == 10
    assert 0.0 < done.dissipation[1] <= 1.01
    assert now.schedule.switch >= 100  # two correlation times of 0.1 ps: half the thermostat's
    assert [now.schedule.ramp(k) for k in (0, now.schedule.switch)] == [0.0, 1.0]
    assert now.seed != was.seed
    assert now.parameters.digest == was.parameters.digest
    with pytest.raises(InputError, match="keep: expected schedule, switch, equilibrate"):
        tune(pilot, folder / "other", keep=("holds",))


def test_a_budget_that_is_less_than_what_stands_in_the_input(tmp_path):
    folder = tmp_path / "run"
    rr.oscillator_run(folder, cycles=9, **SWITCHES)
    done = asked(folder, "2meV", "--budget", "100evaluations")
    assert done.returncode == 2
    assert "take 541 evaluations, more than 100" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(folder.glob("run.*"))
