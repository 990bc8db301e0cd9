"""More cycles for inputs that ran: written down before it is done; nothing else passes for it."""

from __future__ import annotations

import json

import pytest
from helpers import real_runs as rr

from alchemdriver.contract import manifest, target
from alchemdriver.contract.files import sha256
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.target import Asked, Target
from alchemdriver.contract.text import parse_budget, parse_energy
from alchemdriver.errors import InputError
from alchemdriver.prepare import lengthen as l

ASKED = Asked(0.002, "cell")


@pytest.fixture
def home(tmp_path):
    for r in (1, 2):
        rr.oscillator_run(
            tmp_path / "h" / f"replica-{r}", seed=r, schedule="linear", equilibrate=5, switch=10,
            cycles=2,
        )  # fmt: skip
    return tmp_path / "h"


def inputs(home):
    return [home / f"replica-{r}" / "input.xml" for r in (1, 2)]


def test_only_cycles_and_steps_grow_and_each_replica_as_it_should(home):
    first, second = inputs(home)
    first.write_text(first.read_text().replace("<simulation", "<!-- mine -->\n<simulation", 1))
    before = first.read_text().splitlines()
    l.lengthen(home, Target(ASKED), {first: 7, second: 6})
    after = first.read_text().splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == 2  # the parameters, and <total_steps>
    assert [read_input(p).schedule.cycles for p in (first, second)] == [7, 6]
    assert [read_input(p).total_steps for p in (first, second)] == [210, 180]


def test_whoever_was_stopped_in_the_middle_is_finished(home, monkeypatch):
    first, second = inputs(home)
    originals = {p: p.read_text() for p in (first, second)}

    def killed(contents):
        path, text = next(iter(contents.items()))
        path.write_text(text)
        raise KeyboardInterrupt

    monkeypatch.setattr(l, "write_files", killed)
    with pytest.raises(KeyboardInterrupt):
        l.lengthen(home, Target(ASKED), {first: 5, second: 5})
    monkeypatch.undo()
    assert second.read_text() == originals[second]
    l.finish(home)
    assert [read_input(p).schedule.cycles for p in (first, second)] == [5, 5]
    l.finish(home)  # and only once
    again = json.loads((home / target.FILE).read_text())
    assert len(again["lengthened"]) == 1
    # an edit that somebody made since stays
    second.write_text(originals[second] + "\n")
    l.finish(home)
    assert second.read_text() == originals[second] + "\n"


def test_an_edited_input_is_not_taken_for_a_lengthened_one(home):
    first, second = inputs(home)
    was = {target.relative(home, p): sha256(p) for p in (first, second)}
    found = l.lengthen(home, Target(ASKED), {first: 5, second: 4})
    found = l.lengthen(home, found, {first: 9})

    def changed():
        now = {target.relative(home, p): sha256(p) for p in (first, second)}
        return {name: (was[name], now[name]) for name in was if was[name] != now[name]}

    assert target.only_lengthened(home, changed())
    first.write_text(first.read_text().replace("cycles: 9", "cycles: 10"))
    assert not target.only_lengthened(home, changed())


def test_an_input_that_cannot_be_edited_changes_nothing(home):
    first, second = inputs(home)
    first.write_text(
        first.read_text().replace(
            "<total_steps>", "<!-- <total_steps>1</total_steps> -->\n<total_steps>"
        )
    )
    before = [p.read_text() for p in (first, second)]
    with pytest.raises(InputError, match="write by hand: cycles: 5, <total_steps>150"):
        l.lengthen(home, Target(ASKED), {second: 5, first: 5})
    assert [p.read_text() for p in (first, second)] == before
    assert target.read(home) is None


def test_a_stage_that_was_lengthened_is_neither_edited_nor_undone(tmp_path):
    workflow, stage = _staged(tmp_path)
    (path,) = stage.inputs(workflow.root)
    manifest.mark_done(workflow, stage, 10, {})
    l.lengthen(workflow.root, Target(ASKED), {path: 6})
    assert manifest.lengthened(workflow, stage)
    assert manifest.done(workflow, stage).evaluations == 10  # what it gave stands until then
    manifest.mark_done(workflow, stage, 30, {})
    assert not manifest.lengthened(workflow, stage)
    path.write_text(path.read_text().replace("switch: 10", "switch: 11"))
    with pytest.raises(InputError, match="changed after stage"):
        manifest.done(workflow, stage)


def _staged(tmp_path):
    """A workflow of one stage, whose free energy is there."""
    folder = tmp_path / "w" / "01-fl"
    rr.oscillator_run(folder, seed=1, schedule="linear", equilibrate=5, switch=10, cycles=2)
    (folder / "result.json").write_text("{}")
    stage = manifest.Stage("01-fl", "free energy", {"start.xyz": "start.xyz"}, temperature=300.0)
    return manifest.Workflow(tmp_path / "w", "crystal", None, (stage,)), stage


@pytest.mark.parametrize(
    ("text", "eV"), [("2meV", 2e-3), ("0.5 eV", 0.5), ("1e-1 kJ/mol", 1.0364e-3)]
)
def test_energies(text, eV):
    assert parse_energy(text, "error") == pytest.approx(eV, rel=1e-4)


@pytest.mark.parametrize("text", ["2", "meV", "-2meV", "0meV", "nanmeV", "2 K", "2.2.2meV", ""])
def test_no_energies(text):
    with pytest.raises(InputError, match="expected an energy such as 2meV"):
        parse_energy(text, "error")


def test_budgets():
    assert parse_budget("12h") == (43200.0, None)
    assert parse_budget("90 min") == (5400.0, None)
    assert parse_budget("50000evaluations") == (None, 50000)
    for text in ("12", "h", "0h", "1.5evaluations", "-1h", "1 fortnight"):
        with pytest.raises(InputError, match="budget: expected a time such as 12h"):
            parse_budget(text)
