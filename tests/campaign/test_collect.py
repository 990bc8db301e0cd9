"""What is gathered of a campaign is what its results say, with where it comes from."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from helpers.analysis_files import lambdas, write_outputs
from helpers.plans import write_plan

from alchemdriver.campaign import collect, journal, planning, record, slices
from alchemdriver.campaign.folders import ensure_folder
from alchemdriver.campaign.journal import Event
from alchemdriver.cli.main import app
from alchemdriver.contract.files import sha256
from alchemdriver.contract.run_input import read_input
from alchemdriver.errors import InputError
from alchemdriver.units import kT


def works(path, forward: float, backward: float) -> None:
    """Outputs as of a run with these works (eV)."""
    run = read_input(path)
    gradient = np.zeros(run.total_steps + 1)
    for s in run.schedule.segments():
        if s.kind in ("forward", "backward"):
            gradient[s.start : s.stop + 1] = forward if s.kind == "forward" else -backward
    write_outputs(path, gradient, lam=lambdas(path))


@pytest.fixture
def campaign(tmp_path):
    """One case of two replicas with works of 1.0 eV and −0.9 eV ± 0.01, one that waits."""
    root = tmp_path / "c"
    planning.save(planning.draft(write_plan(tmp_path)), root)
    campaign = record.read(root)
    first, _ = campaign.cases
    for n, run in enumerate(first.runs()):
        folder = ensure_folder(root, campaign, run)
        shift = 0.01 * (2 * n - 1)
        works(folder / "input.xml", 1.0 + shift, -0.9 + shift)
        journal.append(root, Event(1.0, "done", run.name, 100, 2.0, "n1"))
    found = slices.analyse(str(root), first, list(first.runs()), "cpu")
    assert found.why == ""
    journal.append(
        root,
        Event(2.0, "analysed", first.name, value=found.value, error=found.error, unit=found.unit),
    )
    return root


def test_every_case_is_a_row_with_its_provenance(campaign, tmp_path):
    out = tmp_path / "out"
    written = collect.write(campaign, out)
    rows = json.loads((out / "campaign.json").read_text())["rows"]
    result = json.loads((campaign / "runs" / rows[0]["case"] / "result.json").read_text())
    (bar,) = [t for t in result["totals"] if t["method"] == "BAR"]
    assert rows[0]["value_eV"] == bar["per_formula_unit"]
    assert rows[0]["se_eV"] == bar["per_formula_unit_se"]
    masses = 4 * 1.5 * kT(300.0) * np.log(63.546 / 196.967)  # eq. 22, four atoms of Cu to Au
    assert rows[0]["value_eV"] * 4 == pytest.approx(0.95 + masses, abs=1e-4)
    assert rows[0]["seeds"] == "7 8"
    inputs = [campaign / "runs" / rows[0]["case"] / f"replica-{r}" / "input.xml" for r in (1, 2)]
    assert rows[0]["inputs_sha256"] == " ".join(map(sha256, inputs))
    assert rows[0]["structure_sha256"] == sha256(tmp_path / "cu.xyz")
    assert (rows[1]["runs_done"], rows[1]["value_eV"]) == (0, None)
    with (out / "campaign.csv").open(encoding="utf-8") as f:
        table = list(csv.DictReader(f))
    assert [float(r["temperature"]) for r in table] == [300.0, 400.0]
    assert float(table[0]["value_eV"]) == rows[0]["value_eV"]
    if len(written) == 3:
        import pandas

        frame = pandas.read_parquet(out / "campaign.parquet")
        assert frame["value_eV"][0] == rows[0]["value_eV"]
        assert np.isnan(frame["value_eV"][1])


def test_the_commands_say_it(campaign, tmp_path, capsys):
    def said(*words) -> str:
        app([str(word) for word in words], standalone_mode=False)
        return capsys.readouterr().out

    assert "campaign.csv" in said("gather", campaign, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "gathered.csv").read_text().count("\n") == 2
    table = said("campaign", "status", campaign)
    assert "4 runs: 2 done, 2 queued" in table
    assert "no driver runs" in table
    dry = said("campaign", "--dry-run", tmp_path / "plan.toml")
    assert "2 cases, 4 runs of switch-nvt; nothing is written" in dry
    assert f"{2 * 101}" in dry, "evaluations: one a step, and one for the start"
    assert not (tmp_path / "plan").exists()
    assert "0 cases and 0 runs added" in said("campaign", "add", campaign, tmp_path / "plan.toml")
    with pytest.raises(InputError, match="no campaign"):
        said("campaign", "status", tmp_path)
