"""Collect finished workflows into ``free_energies.json``: settings, works, terms, results.

    python benchmarks/free_energies.py NAME=FOLDER …      # adds or replaces the entry NAME
    python benchmarks/free_energies.py --again            # errors of all stored works anew

Numbers are those of ``alchemdriver analyze FOLDER``, plus every work with the seed of its run.
``tests/whole/test_free_energies.py`` judges them afresh.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

from alchemdriver.analysis import analyze_workflow, analyze_works
from alchemdriver.analysis.compare.workflow import (
    Row,
    StageResult,
    WorkflowResult,
    combined,
    compare_routes,
    to_document,
)
from alchemdriver.analysis.result import read_result
from alchemdriver.contract import manifest
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.stored import dump
from alchemdriver.contract.xmltree import child, parse_xml, text_of

RESULT = Path(__file__).parent / "free_energies.json"
OF_A_STAGE = (
    "value",
    "se",
    "dof",
    "sd",
    "replicas",
    "pairs",
    "dissipation_kT",
    "work",
    "terms",
    "warnings",
)


def entry(folder: Path) -> dict:
    """What the file holds of one workflow; energies in eV."""
    found = analyze_workflow(folder)
    if found.missing:
        raise SystemExit(f"{folder}: {', '.join(found.missing)} not done")
    document = to_document(found)
    return {
        **{key: document[key] for key in ("settings", "rows", "agreements", "configurational")},
        "as_run": {name: as_run(found, name) for name in found.stages},
        "stages": {
            name: {key: stage[key] for key in OF_A_STAGE}
            for name, stage in document["stages"].items()
        },
        "works_eV": {name: works(folder / name / "result.json") for name in found.stages},
    }


def as_run(found: WorkflowResult, name: str) -> dict:
    """What an input may say otherwise than the settings, because it was edited."""
    workflow = manifest.read(found.root)
    run = read_input(workflow.stage(name).inputs(found.root)[0])
    root = parse_xml(run.path.read_text(), str(run.path))
    tau = child(root, "system", "motion", "dynamics", "thermostat", "tau")
    return {
        "equilibrate": run.parameters.equilibrate,
        "switch": run.parameters.switch,
        "schedule": run.parameters.schedule,
        "thermostat_tau": f"{text_of(tau)} {tau['@units']}",
    }


def works(path: Path) -> list[dict]:
    return [
        {
            "seed": r.provenance.seed,
            "forward": r.forward.tolist(),
            "backward": r.backward.tolist(),
        }
        for r in read_result(path).replicas
    ]


def again(stored: dict) -> None:
    """The errors of an entry's works by today's policy, and what they make of its sums."""
    (kelvin,) = stored["settings"]["temperatures_K"]
    stages = {}
    for name, stage in stored["stages"].items():
        runs = stored["works_eV"][name]
        forward, backward = ([w for r in runs for w in r[k]] for k in ("forward", "backward"))
        bar = analyze_works(forward, backward, kelvin, [len(r["forward"]) for r in runs]).bar
        value = bar.value + sum(t["value"] for t in stage["terms"])
        stage |= {"value": value, "se": bar.se, "dof": bar.dof, "work": bar.value}
        known = {k: stage[k] for k in ("value", "se", "dof", "sd", "replicas", "dissipation_kT")}
        stages[name] = StageResult(
            name=name, natoms=0, pairs=stage["pairs"], terms=(), work=bar.value, switch_ps=0.0,
            warnings=(), **known,
        )  # fmt: skip
    names = {f.name for f in fields(Row)}
    rows = []
    for old in stored["rows"]:
        se, half95 = combined(old["coefficients"], stages)
        value = sum(x * stages[k].value for k, x in old["coefficients"].items())
        old |= {"value": value, "se": se, "half95": half95}
        row = Row(**{k: v for k, v in old.items() if k in names})
        old |= {"per_unit": row.per_unit, "per_unit_se": row.per_unit_se}
        old["per_unit_half95"] = row.per_unit_half95
        rows.append(row)
    stored["agreements"] = [{**dump(a), "sigmas": a.sigmas} for a in compare_routes(rows, stages)]


def main() -> None:
    if sys.argv[1:] == ["--again"]:
        content = json.loads(RESULT.read_text())
        for stored in content["workflows"].values():
            again(stored)
        RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return
    if len(sys.argv) < 2 or not all("=" in word for word in sys.argv[1:]):
        raise SystemExit("expected NAME=FOLDER, one or more")
    content = json.loads(RESULT.read_text())
    for word in sys.argv[1:]:
        name, _, folder = word.partition("=")
        content["workflows"][name] = entry(Path(folder))
    RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
