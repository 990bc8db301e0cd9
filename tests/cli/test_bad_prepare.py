"""What ``prepare`` refuses: one line, exit status 2, every file as it was."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from helpers.refusals import POSCAR, prepare

from alchemdriver.prepare.protocols import PROTOCOLS, find

PREPARE = {
    "unknown protocol": (prepare(protocol="switch-nptt"), "did you mean 'switch-npt'?"),
    "not an element": (prepare(alchemy="Cu->Aux"), ("'Aux' is not an element", "did you mean")),
    "element that is not there": (prepare(alchemy="Ag->Au"), "has no Ag, only Cu"),
    "index out of range": (prepare(alchemy="Cu[0-4]->Au"), "atoms 0 to 3"),
    "index of 5000 digits": (prepare(alchemy=f"Cu[{'9' * 5000}]->Au"), "atoms 0 to 3"),
    "other element at index": (prepare(alchemy="Ag[2]->Au"), "atom 2 is Cu, not Ag"),
    "atom changed twice": (prepare(alchemy="Cu->Au Cu[1]->Ag"), "atom 1 is changed by two terms"),
    "atom named twice": (prepare(alchemy="Cu[1;0-2]->Au"), "named twice"),
    "empty alchemy": (prepare(alchemy=""), "alchemy"),
    "blank alchemy": (prepare(alchemy="  "), "alchemy"),
    "nothing changed": (prepare(alchemy="Cu->Cu"), "the same"),
    "malformed alchemy": (prepare(alchemy="Cu=>Au"), "expected INITIAL->FINAL"),
    "void without tether": (prepare(alchemy="Cu[0]->void"), "tether"),
    "void of all": (prepare("--tether", 4, alchemy="Cu->void"), "name the atoms"),
    "tether without void": (prepare("--tether", 4), "no atom goes to void"),
    "negative tether": (prepare("--tether", -4, alchemy="Cu[0]->void"), "positive"),
    "einstein without springs": (prepare(alchemy="einstein->model"), "springs"),
    "springs without einstein": (prepare("--springs", POSCAR), "einstein"),
    "springs file missing": (
        prepare("--springs", "no.extxyz", alchemy="einstein->model"),
        "no.extxyz does not exist",
    ),
    "masses file missing": (prepare("--masses-file", "no.json"), "no.json does not exist"),
    "structure missing": (prepare(structure="no.vasp"), "no.vasp does not exist"),
    "structure is a folder": (prepare(structure="switch"), "switch"),
    "bad supercell": (prepare("--supercell", "2x2"), "such as 2x2x2"),
    "zero supercell": (prepare("--supercell", "2x0x2"), "such as 2x2x2"),
    "superscript supercell": (prepare("--supercell", "2x2x²"), "such as 2x2x2"),
    "gigantic supercell": (prepare("--supercell", "999x999x999"), "atoms"),
    "negative temperature": (prepare(t=-300), "positive number of K"),
    "temperature nan": (prepare(t="nan"), "positive number of K"),
    "temperature zero": (prepare(t=0), "positive number of K"),
    "infinite pressure": (prepare("--pressure", "inf", protocol="switch-npt"), "pressure"),
    "pressure in nvt": (prepare("--pressure", "1"), "constant volume"),
    "negative time step": (prepare("--timestep", -1), "timestep"),
    "zero beads": (prepare("--beads", 0), "beads"),
    "negative seed": (prepare("--seed", -3), "seed"),
    "no replicas": (prepare("--replicas", 0), "at least 1"),
    "negative steps": (
        prepare("--steps", -5, "--lambda", 0.5, protocol="nvt-fixed"),
        "steps",
    ),
    "steps under a schedule": (prepare("--steps", 500), "equilibrate"),
    "no switching steps": (prepare("--switch", 0), "switch"),
    "negative hold": (prepare("--equilibrate", -1), "equilibrate"),
    "schedule at fixed lambda": (
        prepare("--schedule", "poly9", protocol="nvt-fixed"),
        "drives no lambda: --schedule belongs to switch-nvt, ",
    ),
    "lambda with schedule": (prepare("--lambda", 0.3), "--lambda belongs to nvt-fixed, "),
    "lambda above 1": (prepare("--lambda", 1.5, protocol="nvt-fixed"), "[0, 1]"),
    "lambda nan": (prepare("--lambda", "nan", protocol="nvt-fixed"), "lambda"),
    "lambda not a number": (prepare("--lambda", "half", protocol="nvt-fixed"), "--lambda"),
    "unknown schedule": (prepare("--schedule", "poly8"), "did you mean 'poly9'?"),
    "masses with beads": (prepare("--beads", 4, "--masses", "interpolate"), "'masses: fixed'"),
    "masses misspelt": (prepare("--masses", "fixd"), "did you mean 'fixed'?"),
    "dtype unknown": (prepare("--dtype", "float16"), "float64 or float32"),
    "model misspelt": (prepare(model="mace-mp-0-smal"), "did you mean 'mace-mp-0-small'?"),
    "model file missing": (prepare(model="no.model"), "does not exist"),
    "comma in a value": (prepare(alchemy="Cu[0,1]->Au"), "commas"),
    "non-ASCII value": (prepare(alchemy="Cu→Au"), "Cu→Au"),
    "unknown option": (prepare("--supercel", "2x2x2"), "did you mean '--supercell'?"),
    "option of no protocol": (prepare("--colour", "red"), "switch-nvt has no option --colour"),
    "option of stages": (prepare("--site", 0), "--site belongs to vacancy"),
    "protocol not first": (
        ["prepare", "--model", "osc.json", "nvt", POSCAR, "new"],
        "--model comes after the protocol",
    ),
    "no folder": (["prepare", "nvt", POSCAR], "folder"),
}


@pytest.mark.parametrize("case", PREPARE)
def test_prepare_refuses(case, refused):
    args, says = PREPARE[case]
    refused(*args, says=says)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_prepare_names_what_is_missing_with_an_example(protocol, refused):
    """Every mandatory option in turn; the example is of the right type."""
    for missing in protocol.needs:
        words = [w for o in protocol.needs if o is not missing for w in (o.flag, o.example)]
        line = f"{protocol.name} needs {missing.wanted}, e.g. {missing.flag} {missing.example}"
        refused("prepare", protocol.name, POSCAR, "new", *words, says=line)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
def test_an_option_of_another_protocol_says_whose_it_is(protocol, refused):
    """No protocol takes what it does not list, and the line names one that does."""
    others = {o.flag: (o, p) for p in PROTOCOLS for o in p.options if not protocol.has(o.name)}
    assert others
    words = [w for o in protocol.needs for w in (o.flag, o.example)]
    for flag, (option, _) in others.items():
        refused(
            "prepare", protocol.name, POSCAR, "new", *words, flag, option.example,
            says=f"{flag} belongs to ",
        )  # fmt: skip
        (listed,) = re.findall(f"{flag} belongs to (.*)", str(protocol.foreign(option.name)))
        for name in re.split(", | and ", listed):
            assert find(name).has(option.name)


@pytest.mark.parametrize("content", ["not a structure", "\0\1\2", ""])
def test_corrupt_structure(folder, refused, content):
    (folder / "bad.vasp").write_text(content)
    refused(*prepare(structure="bad.vasp"), says="cannot be read by ASE")


def test_structure_without_cell(folder, refused):
    write(folder / "molecule.xyz", Atoms("CuO", [[0, 0, 0], [0, 0, 2]]))
    refused(*prepare(structure="molecule.xyz"), says="no three-dimensional cell")


def test_atoms_without_element(folder, refused):
    write(folder / "dummy.extxyz", Atoms("CuX", [[0, 0, 0], [0, 0, 2]], cell=[4] * 3, pbc=True))
    refused(*prepare(structure="dummy.extxyz"), says="'X'")


def test_positions_that_are_not_numbers(folder, refused):
    atoms = Atoms("Cu", [[0, 0, np.nan]], cell=[4] * 3, pbc=True)
    write(folder / "nan.extxyz", atoms)
    refused(*prepare(structure="nan.extxyz"), says="not finite")


def test_element_that_a_named_model_does_not_know(refused):
    args = prepare(model="mace-off23-small")
    refused(*args, says=("mace-off23-small", "Au"))


def test_schedule_tables(folder, refused):
    bad = {
        "0 0\n0.6 1\n0.5 1\n1 1\n": "tau must rise",
        "0 0\n0.5 1.2\n1 1\n": "leaves [0, 1]",
        "0 0\n0.5 nan\n1 1\n": "lambda",
        "0 0\n1\n": "cannot be read",
        "": "two columns",
    }
    for text, says in bad.items():
        (folder / "table.dat").write_text(text)
        refused(*prepare("--schedule", "table.dat"), says=says)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"initial": [1, 2, 3], "final": [1, 2, 3]}', '{"initial": 4}']
)
def test_masses_file(folder, refused, content):
    (folder / "masses.json").write_text(content)
    refused(*prepare("--masses-file", "masses.json"), says="masses_file")


def test_prepare_never_overwrites(folder, refused):
    args = prepare()
    args[3] = "switch"
    refused(*args, says="already holds an input")
    (folder / "new").mkdir()
    (folder / "new" / "start.xyz").write_text("mine")
    refused(*prepare(), says="start.xyz")


def test_output_folder_that_is_a_file(folder, refused):
    (folder / "new").write_text("in the way")
    refused(*prepare(), says="new")
    args = prepare()
    args[3] = "new/sub"
    refused(*args, says="new")


def test_a_replica_that_exists(folder, refused):
    shutil.copytree(folder / "switch", folder / "new" / "replica-2")
    refused(*prepare("--replicas", 3), says="already holds an input")
