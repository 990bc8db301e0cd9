"""Files that somebody edited: every one-value mutation is used as it is, or is one line.

The files are made from code; no dynamics takes part.
"""

from __future__ import annotations

import copy
import json
import warnings
from functools import partial
from itertools import islice

import numpy as np
import pytest
from ase.build import bulk
from helpers.stored_results import finish

from alchemdriver.analysis import analyze_workflow, workflow_summary
from alchemdriver.analysis.compare import gather
from alchemdriver.analysis.compare.workflow import to_document
from alchemdriver.analysis.result import read_result
from alchemdriver.composition.optimize import OPTIMUM, OptimumFile, Point
from alchemdriver.contract import manifest
from alchemdriver.contract.files import json_text
from alchemdriver.contract.springs import write_springs
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import AlchemdriverError
from alchemdriver.records import Structure
from alchemdriver.workflow import plan, runner

VALUES = {
    "null": None,
    "text": "x",
    "empty": "",
    "number as text": "1",
    "true": True,
    "negative": -1,
    "fraction": 0.5,
    "huge": 10**400,
    "large": 1e300,
    "NaN": float("nan"),
    "list": [1, "x"],
    "object": {"a": 1},
    "up": "../victim",
    "half a character": "\ud800",
}
MISSING = object()


def mutations(value, path=()):
    """(path, new value or MISSING, or a new key) of every place in a JSON document."""
    if path:
        yield from ((path, name, v) for name, v in VALUES.items() if v != value)
        yield path, "missing", MISSING
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = {0: value[0], len(value) - 1: value[-1]}.items() if value else ()
    for key, inner in items:
        yield from mutations(inner, (*path, key))
    if isinstance(value, dict):
        yield (*path, "unknown"), "extra", 1


def mutated(document, path, value):
    document = copy.deepcopy(document)
    at = document
    for key in path[:-1]:
        at = at[key]
    if value is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return document


def survives(file, read, use, share=1):
    """Mutates *file* and reads it; what is readable is used.  {(path, name): the error, or None}.

    share: only every so-manieth mutation, so that it takes seconds.
    """
    good = file.read_text(encoding="utf-8")
    document = json.loads(good)
    outcomes = {}
    use()  # as it is
    try:
        for path, name, value in islice(mutations(document), 0, None, share):
            text = json.dumps(mutated(document, path, value))
            file.write_text(text, encoding="utf-8")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    read()
                    use()
                outcomes[path, name] = None
            except AlchemdriverError as err:
                outcomes[path, name] = str(err)
            except Exception as err:
                err.add_note(f"{path} {name}")
                raise
    finally:
        file.write_text(good, encoding="utf-8")
    for key, line in outcomes.items():
        assert line is None or "\n" not in line, (key, line)
        assert line is None or line.isprintable(), (key, line)
    return outcomes


def iron(repeat=2) -> Structure:
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(repeat)
    return Structure(tuple(atoms.get_chemical_symbols()), atoms.positions, np.array(atoms.cell))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A vacancy by both routes, every stage done."""
    common = plan.Common(
        model="demo-fe", temperatures_K=(300.0,), pressure_bar=1.0, timestep_fs=2.0, replicas=2
    )
    crystal = iron()
    folder = tmp_path_factory.mktemp("edited") / "w"
    workflow = plan.prepare_vacancy(crystal, [15], folder, common)
    totals = {
        "300K/04-frenkel-ladd": (-130.0, 0.006),
        "300K/07-frenkel-ladd-defect": (-112.0, 0.008),
        "300K/08-alchemical": (18.0, 0.003),
    }
    finish(workflow, totals)
    defect = Structure(crystal.symbols[:15], crystal.positions[:15], crystal.cell)
    for stage in workflow.stages:
        for file in stage.gives(folder):
            if file.suffix == ".xyz":
                write_xyz(file, defect if "defect" in stage.name else crystal)
            if file.suffix == ".extxyz":
                write_springs(file, crystal, np.full(16, 5.0))
        manifest.mark_done(workflow, stage, 10, {})
    for stage in workflow.stages:  # as when they were run
        runner.feed(workflow, stage)
        manifest.mark_done(workflow, stage, 10, {})
    return folder


def use(root):
    """What 'run' does before it runs, and all of 'analyze' and 'gather' but the figures."""
    workflow = manifest.read(root)
    for stage in workflow.stages:
        runner.feed(workflow, stage)
    return analyse(root)


def analyse(root):
    found = analyze_workflow(root)
    json_text(to_document(found))
    workflow_summary(found)
    gather.extrapolations(gather.gather([root]))
    return found


def test_workflow_json(root):
    outcomes = survives(root / manifest.FILE, lambda: manifest.read(root), lambda: use(root), 5)
    assert len(outcomes) > 200
    for (path, name), line in outcomes.items():
        if name in ("list", "huge", "NaN", "half a character"):
            assert line is not None, (path, name)
        if name == "up" and path[-1] in ("name", "start.xyz", "einstein.extxyz", "tether"):
            assert "a path below the workflow's folder" in line, (path, line)
        if line is not None and name == "extra" and path[0] != "settings":
            assert "unknown" in line, (path, line)


def test_done_json(root):
    stage = root / "300K/04-frenkel-ladd"
    workflow = manifest.read(root)
    read = partial(manifest.done, workflow, workflow.stage("300K/04-frenkel-ladd"))
    outcomes = survives(stage / manifest.DONE, read, lambda: analyse(root))
    document = json.loads((stage / manifest.DONE).read_text())
    unsigned = {k: v for k, v in document.items() if k != "schema"}
    (stage / manifest.DONE).write_text(json.dumps(unsigned))  # as before there were schemas
    try:
        assert "300K/04-frenkel-ladd" in use(root).stages
    finally:
        (stage / manifest.DONE).write_text(json.dumps(document))
    assert outcomes[("schema",), "missing"] is None
    assert len(outcomes) > 60


def test_relax_json(root):
    workflow = manifest.read(root)
    read = partial(runner.feed, workflow, workflow.stage("01-relax"))
    outcomes = survives(root / "01-relax/relax.json", read, lambda: None)
    assert outcomes[("schema",), "missing"] is None
    assert outcomes[("unknown",), "extra"].startswith(f"{root / '01-relax/relax.json'}: unknown")
    assert "expected true or false" in outcomes[("keep_symmetry",), "text"]
    assert "relax.json: model: expected text" in outcomes[("model",), "null"]


def test_result_json(root, tmp_path):
    path = root / "300K/08-alchemical/result.json"
    outcomes = survives(path, lambda: read_result(path), lambda: analyse(root), 23)
    assert len(outcomes) > 200
    document = json.loads(path.read_text())
    copied = tmp_path / "result.json"
    for of_a_later_version in (document, document["replicas"][0], document["pooled"]["bar"]):
        of_a_later_version["unknown"] = 1
        copied.write_text(json.dumps(document))
        assert read_result(copied).total("BAR").value == 18.0


def test_optimum_json(tmp_path):
    half = (np.array([0.5, 0.5]),)
    content = OptimumFile(
        "a=6.1", 1e-4, "Å", "demo", "0" * 64, True, (("Pb", "Sn"),), half, 1e-5, (Point(half, 0.1),)
    )
    path = tmp_path / "optimum.json"
    OPTIMUM.write(path, content)
    read = OPTIMUM.read(path)
    assert read.best[0].tolist() == [0.5, 0.5]
    assert read.history[0].value == 0.1
    outcomes = survives(path, lambda: OPTIMUM.read(path), lambda: None)
    assert sum(line is not None for line in outcomes.values()) > 150
