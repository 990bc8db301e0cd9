"""The table of keys: every key is changed once, and everybody does what the table says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alchemdriver.analysis.run import _check_same, _conditions
from alchemdriver.contract.digest import fingerprint
from alchemdriver.contract.parameters import (
    CONDITIONS,
    KEYS,
    Parameters,
    check_parameters,
    markdown_table,
)
from alchemdriver.contract.run_input import RunInput, read_input
from alchemdriver.contract.springs import write_springs
from alchemdriver.contract.xyz import write_xyz
from alchemdriver.errors import AnalysisError, RunError
from alchemdriver.records import Structure
from alchemdriver.server import checkpoints

ROOT = Path(__file__).parents[2]
TEMPLATE = """<simulation floatformat='%24.16e'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step ] </properties>
    <trajectory stride='1' filename='dHdlambda' extra_type='dHdlambda'> extras </trajectory>
  </output>
  <total_steps>{steps}</total_steps>
  <ffsocket name='alchemy' mode='unix' pbc='false'>
    <timeout>600</timeout>
    <address>x</address>
    <parameters>{{{parameters}}}</parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'><file mode='xyz' units='angstrom'>start.xyz</file></initialize>
    <forces><force forcefield='alchemy'>
      <interpolate_extras>[dHdlambda]</interpolate_extras>
    </force></forces>
    <ensemble>
      <temperature units='kelvin'>{temperature}</temperature>
      <pressure units='bar'>{pressure}</pressure>
    </ensemble>
    <motion mode='dynamics'>
      <fixcom>{fixcom}</fixcom>
      <fixatoms>{fixatoms}</fixatoms>
      <fixatoms_dof>{fixatoms_dof}</fixatoms_dof>
      <dynamics mode='{ensemble}'><timestep units='femtosecond'>{timestep}</timestep>
        <thermostat mode='langevin'><tau>4000</tau></thermostat>
        <barostat mode='{barostat}'><tau>9000</tau></barostat>
      </dynamics>
    </motion>
  </system>
</simulation>
"""
CONDITIONS_OF_THE_BASE = {
    "ensemble": "npt",
    "temperature": 300,
    "pressure": 1,
    "timestep": 2,
    "beads": 1,
    "fixcom": "True",
    "fixatoms": "[]",
    "fixatoms_dof": "[]",
    "barostat": "isotropic",
}
PLAIN = {"model": "demo", "alchemy": "Cu->Au", "lambda": "0.5"}
SWITCH = {"model": "demo", "alchemy": "Cu->Au", "schedule": "poly9", "equilibrate": "5"}
SWITCH |= {"switch": "10", "cycles": "2"}
POINT = PLAIN | {"mass_point": "0.1"}

# key: (parameters, the same with that key changed)
CHANGES = {
    "model": (PLAIN, PLAIN | {"model": "demo-fe"}),
    "head": tuple(PLAIN | {"head": head} for head in ("pbe", "r2scan")),
    "charge": (PLAIN, PLAIN | {"charge": "-1"}),
    "spin": (PLAIN, PLAIN | {"spin": "2"}),
    "alchemy": (PLAIN, PLAIN | {"alchemy": "Cu[0]->Au"}),
    "other": tuple(
        PLAIN | {"alchemy": "model->other", "other": name} for name in ("demo-fe", "emt")
    ),
    "springs": tuple(
        {"model": "demo", "alchemy": "einstein->model", "lambda": "0.5", "springs": name}
        for name in ("soft.extxyz", "stiff.extxyz")
    ),
    "tether": tuple(PLAIN | {"alchemy": "Cu[0]->void", "tether": k} for k in ("4.0", "5.0")),
    "scale": tuple(PLAIN | {"alchemy": "model->scaled", "scale": s} for s in ("0.5", "0.25")),
    "lambda": (PLAIN, PLAIN | {"lambda": "0.25"}),
    "schedule": (SWITCH, SWITCH | {"schedule": "linear"}),
    "equilibrate": (SWITCH, SWITCH | {"equilibrate": "6"}),
    "switch": (SWITCH, SWITCH | {"switch": "11"}),
    "cycles": (SWITCH, SWITCH | {"cycles": "3"}),
    "masses": (PLAIN | {"masses": "interpolate"}, PLAIN | {"masses": "fixed"}),
    "interpolation": (PLAIN, PLAIN | {"interpolation": "linear"}),
    "dtype": (PLAIN, PLAIN | {"dtype": "float32"}),
    "masses_file": tuple(PLAIN | {"masses_file": name} for name in ("light.json", "heavy.json")),
    "clients": (PLAIN, PLAIN | {"clients": "any"}),
    "mass_point": (POINT, POINT | {"mass_point": "0.2"}),
    "digest": (PLAIN | {"digest": "sha256-a"}, PLAIN | {"digest": "sha256-b"}),
}
OTHER_CONDITIONS = {
    "ensemble": "nvt",
    "temperature": 301,
    "pressure": 2,
    "timestep": 1,
    "beads": 2,
    "fixcom": "False",
    "fixatoms": "[0]",
    "barostat": "flexible",
}


@pytest.fixture
def written(tmp_path):
    """A function: name, parameters, conditions → the input, in a folder of its own."""
    cell = 8.0 * np.eye(3)
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    structure = Structure(("Cu",) * 4, fractions @ cell, cell)

    def write(name: str, parameters: dict, **changed) -> RunInput:
        if "springs" in parameters:  # of constant volume
            changed = {"ensemble": "nvt"} | changed
        folder = tmp_path / name
        folder.mkdir()
        write_xyz(folder / "start.xyz", structure)
        for file, k in (("soft.extxyz", 1.0), ("stiff.extxyz", 2.0)):
            write_springs(folder / file, structure, np.full(4, k))
        for file, m in (("light.json", 60.0), ("heavy.json", 70.0)):
            masses = {"initial": [m] * 4, "final": [200.0] * 4}
            (folder / file).write_text(json.dumps(masses))
        lengths = [int(parameters.get(k, 0)) for k in ("cycles", "equilibrate", "switch")]
        text = TEMPLATE.format(
            parameters=", ".join(f"{k}: {v}" for k, v in parameters.items()).replace(">", "&gt;"),
            steps=2 * lengths[0] * sum(lengths[1:]) or 100,
            **(CONDITIONS_OF_THE_BASE | changed),
        )
        (folder / "input.xml").write_text(text)
        return read_input(folder)

    return write


def checkpoint_of(run: RunInput) -> Path:
    """What i-PI would have left of *run* after five steps, as far as anybody reads it."""
    path = run.folder / "RESTART"
    text = run.path.read_text().replace("<total_steps>", "<step>5</step><total_steps>")
    path.write_text(text)
    return path


def refuses(error: type[Exception], function, *args) -> bool:
    try:
        function(*args)
    except error:
        return True
    return False


def assert_as_the_table_says(key, before: RunInput, after: RunInput) -> None:
    assert key.of(before) != key.of(after)
    digests = [fingerprint(run, run.parameters.model) for run in (before, after)]
    assert (digests[0] != digests[1]) == (key.digest is not None)
    old = checkpoint_of(before)
    assert refuses(RunError, checkpoints.load, old, after) == key.resume
    assert refuses(AnalysisError, _check_same, [before, after]) == key.replicas
    reported = [_conditions(run) for run in (before, after)]
    assert (reported[0] != reported[1]) == bool(key.result)
    if key.result:
        assert getattr(reported[0], key.result) != getattr(reported[1], key.result)


def test_every_key_and_condition_has_a_case():
    assert CHANGES.keys() == KEYS.keys()
    assert OTHER_CONDITIONS.keys() == {c.name for c in CONDITIONS}
    assert {key.attribute for key in KEYS.values()} == Parameters.__annotations__.keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_key_is_treated_as_the_table_says(name, written):
    before, after = CHANGES[name]
    assert_as_the_table_says(KEYS[name], written("a", before), written("b", after))


@pytest.mark.parametrize("name", OTHER_CONDITIONS)
def test_a_changed_condition_is_treated_as_the_table_says(name, written):
    condition = next(c for c in CONDITIONS if c.name == name)
    parameters = PLAIN | {"masses": "fixed"}  # whose default depends on the beads
    changed = {name: OTHER_CONDITIONS[name]}
    assert_as_the_table_says(
        condition, written("a", parameters), written("b", parameters, **changed)
    )


@pytest.mark.parametrize("name", [k.name for k in KEYS.values() if k.default is not None])
def test_a_key_at_its_default_leaves_the_digest_as_it_is(name, written):
    base = {k: v for k, v in PLAIN.items() if k != name} if name != "lambda" else PLAIN
    value = "0.5" if name == "lambda" else str(KEYS[name].default)
    digests = {
        fingerprint(written(folder, parameters), "model")
        for folder, parameters in (("a", base), ("b", base | {name: value}))
    }
    assert len(digests) == 1


def test_a_digest_of_the_first_version_is_still_that(written):
    """Every checkpoint and client out there carries one: computed by version 0.1.0."""
    expected = {
        "plain": (PLAIN, "sha256-3fd4b6c3642a494309c0d9deca8212b1"),
        "springs": (CHANGES["springs"][0], "sha256-e91a67c40393346388dfec9b85ce402a"),
        "tether": (CHANGES["tether"][0], "sha256-75a0dc4d3c6c3ba62318ba287fcff553"),
        "scale": (CHANGES["scale"][0], "sha256-8093efdc5b7146e8d714a69e2a67f136"),
    }
    for name, (parameters, digest) in expected.items():
        assert fingerprint(written(name, parameters), "model") == digest, name


def test_the_docs_show_the_table():
    assert markdown_table() in (ROOT / "docs" / "server-and-clients.md").read_text(encoding="utf-8")


def test_only_what_has_a_default_may_be_left_out():
    found = check_parameters({"model": "demo", "alchemy": "Cu->Au", "lambda": "0"})
    for key in KEYS.values():
        if key.name not in ("model", "alchemy", "lambda"):
            assert getattr(found, key.attribute) == key.default
