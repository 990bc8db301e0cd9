"""What goes wrong must say so in one line, with exit status 2, and leave every file as it was.

Most cases go through ``alchemdriver.cli.main`` in this process; those that start i-PI, torch or
sockets, and one of each kind of exit, through the real command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from helpers import real_runs as rr

from alchemdriver.cli import main
from alchemdriver.prepare.protocols import PROTOCOLS, find

LOCK = ".alchemdriver.lock"
POSCAR = "start.vasp"
LENGTHS = ("--equilibrate", 5, "--switch", 10, "--cycles", 1)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One folder that all cases share: a structure, models, a switch and a fixed-λ run."""
    home = tmp_path_factory.mktemp("house")
    s = rr.oscillators(home)
    atoms = Atoms(s.symbols, positions=s.positions, cell=s.cell, pbc=True)
    write(home / POSCAR, atoms, format="vasp")
    lengths = {"equilibrate": 5, "switch": 10, "cycles": 1}
    rr.oscillator_run(home / "switch", **lengths)
    rr.oscillator_run(home / "fixed", "nvt-fixed", lambda_=0.5, steps=20)
    rr.oscillator_run(home / "beads", "pimd-fixed", lambda_=0.5, steps=20)
    return home


@pytest.fixture
def folder(house, tmp_path, monkeypatch):
    """A fresh copy of the house, as the working directory."""
    copy = tmp_path / "h"
    shutil.copytree(house, copy)
    monkeypatch.chdir(copy)
    return copy


def tree(folder: Path) -> dict[str, str]:
    """Every file with the hash of its content, but what a server leaves beside its input."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else "folder"
        for p in sorted(folder.rglob("*"))
        if p.name != LOCK and not p.name.endswith(".origin.json")
    }


def is_one_line(status: int, stderr: str, *expected: str) -> None:
    stderr = re.sub(r"\Aloading the model .*\n", "", stderr)  # a client says that first
    assert stderr.startswith("error: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert status == 2
    for words in expected:
        assert words in stderr, stderr


@pytest.fixture
def refused(folder, monkeypatch, capsys):
    """refused(args…, says=words): the command is refused, in this process; nothing changes."""

    def run(*args, says):
        before = tree(folder)
        monkeypatch.setattr(sys, "argv", ["alchemdriver", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main.main()
        out, err = capsys.readouterr()
        is_one_line(stop.value.code, err, *([says] if isinstance(says, str) else says))
        assert out == ""
        assert tree(folder) == before

    return run


@pytest.fixture
def refused_outside(folder):
    """The same through a process of its own."""

    def run(*args, says):
        before = tree(folder)
        done = rr.command(*args, cwd=folder)
        is_one_line(done.returncode, done.stderr, *([says] if isinstance(says, str) else says))
        assert tree(folder) == before

    return run


# --- prepare ------------------------------------------------------------------------------------


def prepare(
    *more, protocol="switch-nvt", structure=POSCAR, alchemy="Cu->Au", model="osc.json", t=300
):
    given = ["prepare", protocol, structure, "new", "--alchemy", alchemy, "--model", model]
    lengths = LENGTHS if protocol.startswith("switch") else ()
    return [*given, "--temperature", t, *lengths, *more]


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


# --- an edited input ----------------------------------------------------------------------------


def edit(folder: Path, *pairs: tuple[str, str], name="switch") -> Path:
    path = folder / name / "input.xml"
    text = path.read_text()
    for old, new in pairs:
        assert re.search(old, text), old
        text = re.sub(old, new, text, count=1)
    path.write_text(text)
    return path


PARAMETERS = r"<parameters>\{.*?\}</parameters>"
BOTH = r"(?s)<ffsocket.*</ffsocket>"
EDITS = {
    "misspelt key": (("equilibrate:", "equilibarte:"), "did you mean 'equilibrate'?"),
    "key twice": (("switch: 10", "switch: 10, switch: 11"), "'switch' stands twice"),
    "no value": (("switch: 10", "switch:"), "expected 'key: value'"),
    "comma in a value": (("alchemy: Cu-&gt;Au", "alchemy: Cu[0,1]->Au"), "expected 'key: value'"),
    "non-ASCII value": (("model: osc.json", "model: öl.json"), "ASCII"),
    "not a dictionary": ((PARAMETERS, "<parameters>model=demo</parameters>"), "<parameters>"),
    "model missing": (("model: osc.json,", ""), "'model' is missing"),
    "lambda not a number": ((r"schedule: poly9", "lambda: half, schedule: poly9"), "half"),
    "lengths missing": ((r"switch: 10,", ""), "'switch' is missing"),
    "length not whole": ((r"switch: 10,", "switch: 1e1,"), "whole number"),
    "total steps": (("<total_steps>30<", "<total_steps>31<"), "cycles * 2"),
    "short float format": (("%24.16e", "%16.8e"), "%24.16e"),
    "no gradient printed": ((r'(?s)<trajectory[^>]*dHdlambda".*?</trajectory>', ""), "dHdlambda"),
    "gradient now and then": ((r'stride="1"( filename="dHdlambda")', r'stride="2"\1'), "stride"),
    "unit": (("(<temperature units=.)kelvin", r"\1celsius"), "expected one of kelvin"),
    "negative temperature": ((r"(<temperature[^>]*>)300", r"\g<1>-300"), "temperature"),
    "temperature a word": ((r"(<temperature[^>]*>)300", r"\g<1>warm"), "expected a number"),
    "time step": ((r"(<timestep[^>]*>)2", r"\g<1>0"), "timestep"),
    "beads": (('nbeads="1"', 'nbeads="0"'), "nbeads"),
    "masses with beads": (
        ('nbeads="1"', 'nbeads="4"'),
        ("masses: interpolate", "ring-polymer"),
    ),
    "two ffsockets": ((BOTH, lambda m: 2 * m[0]), "found 2"),
    "no ffsocket": ((BOTH, ""), "found 0"),
    "malformed XML": (("</simulation>", "</simulatoin>"), "well-formed"),
    "wrong root": ((r"(?s)^(.*)$", r"<root>\1</root>"), "<root>"),
    "entities": ((r"^", '<!DOCTYPE x [<!ENTITY a "b">]>'), "XML"),
    "two outputs": ((r"(?s)<output.*</output>", lambda m: 2 * m[0]), "output"),
    "structure missing": ((">start.xyz<", ">strat.xyz<"), "strat.xyz cannot be read"),
    "element": (("alchemy: Cu-", "alchemy: Ag-"), "has no Ag"),
}


@pytest.mark.parametrize("case", EDITS)
def test_an_edited_input_is_refused(case, folder, refused):
    pair, says = EDITS[case]
    refused("run", edit(folder, pair), says=says)


STRUCTURES = {
    "unknown species": (lambda t: t.replace("Cu ", "Xx "), "'Xx' is not an element"),
    "atom missing": (lambda t: t.rsplit("\n", 2)[0] + "\n", "expected 4 atoms, found 3"),
    "no cell": (lambda t: t.replace("CELL(H)", "KELL(H)"), "no CELL"),
    "cell cut": (
        lambda t: re.sub(r"(CELL\(H\): \S+ \S+).*", r"\1 cell{angstrom} positions{angstrom}", t),
        "numbers",
    ),
    "cell not numbers": (lambda t: re.sub(r"(CELL\(H\): )\S+", r"\g<1>8e", t), "cell"),
    "cell flat": (lambda t: re.sub(r"(CELL\(H\): )\S+", r"\g<1>0.0", t), "volume"),
    "cell not standard": (
        lambda t: re.sub(r"(CELL\(H\): \S+ \S+ \S+) \S+", r"\1 1.0", t),
        "a along x",
    ),
    "position cut": (lambda t: re.sub(r"(?m)^(Cu +\S+ \S+) \S+$", r"\1", t), "xyz file"),
    "position nan": (lambda t: re.sub(r"(?m)^(Cu +\S+ \S+) \S+$", r"\1 nan", t), "not finite"),
    "bohr": (lambda t: t.replace("positions{angstrom}", "positions{atomic_unit}"), "angstrom"),
    "empty": (lambda t: "", "xyz file"),
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_a_spoilt_start_is_refused(case, folder, refused):
    change, says = STRUCTURES[case]
    path = folder / "switch" / "start.xyz"
    path.write_text(change(path.read_text()))
    refused("run", "switch", says=says)


def test_changed_model(folder, refused):
    path = folder / "switch" / "osc.json"
    path.write_text(path.read_text().replace("2.0", "2.5"))
    refused("run", "switch", says="does not match")


def test_options_of_run(refused):
    refused("run", "switch", "--clients", -1, says="clients")
    refused("run", "switch", "--jobs", -1, says="jobs")
    refused("run", "switch", "--threads", -1, says="threads")
    refused("run", "switch", "--clients", 0, says="inet")
    refused("run", "nowhere", says="expected an input file")
    refused("run", says="targets")
    refused("rum", says="rum")


def test_server_without_digest_under_a_schedule(folder, refused):
    refused("server", edit(folder, (r", digest: [\w-]+", "")), says="needs a digest")


# --- models -------------------------------------------------------------------------------------


def test_models_that_are_none(folder, refused):
    pytest.importorskip("torch")
    import torch

    fixed = folder / "fixed"
    (fixed / "cut.model").write_bytes(b"PK\3\4" + b"\0" * 100)
    (fixed / "text.model").write_text("not a model")
    with open(fixed / "dict.model", "wb") as f:
        torch.save({"weights": [1.0]}, f)
    with open(fixed / "foreign.model", "wb") as f:
        pickle.dump([1, 2, 3], f)
    (fixed / "cut.json").write_text('{"backend": "harm')
    edit(folder, (r", digest: [\w-]+", ""), name="fixed")
    for name, says in {
        "cut.model": "damaged",
        "text.model": "damaged",
        "foreign.model": "foreign.model",
        "dict.model": "not a whole model",
        "cut.json": "is not JSON",
    }.items():
        path = edit(folder, (r"model: [\w.]+", f"model: {name}"), name="fixed")
        refused("client", path, says=says)
    count = torch.cuda.device_count()
    edit(folder, (r"model: [\w.]+", "model: cut.model"), name="fixed")
    refused("client", path, "--device", f"cuda:{count}", says="use device cpu")
    refused("client", path, "--device", "gpu", says="expected cpu, cuda")
    refused("client", path, "--dtype", "float16", says="float64 or float32")


def test_elements_that_the_model_does_not_know(folder, refused):
    path = edit(folder, ("alchemy: Cu-&gt;Au", "alchemy: Cu->Ag"), (r", digest: [\w-]+", ""))
    refused("client", path, says="Ag")


def test_springs_of_another_length(folder, refused):
    atoms = Atoms("Cu3", positions=np.eye(3), cell=[8] * 3, pbc=True)
    atoms.arrays["spring_constant"] = np.ones(3)
    write(folder / "fixed" / "springs.extxyz", atoms)
    path = edit(
        folder,
        ("alchemy: Cu-&gt;Au", "alchemy: einstein->model, springs: springs.extxyz"),
        (r", digest: [\w-]+", ""),
        name="fixed",
    )
    refused("client", path, says=("springs", "4"))


# --- sockets ------------------------------------------------------------------------------------


def test_client_without_server(refused):
    refused(
        "client", "switch/input.xml", "--unix", "nobody", "--patience", 1, says="no i-PI server"
    )


def test_client_addresses(refused):
    refused("client", "switch/input.xml", "--unix", "x" * 200, says="at most 107 bytes")
    refused("client", "switch/input.xml", "--port", 70000, says="1 to 65535")
    refused("client", "switch/input.xml", "--port", "http", says="--port")
    refused("client", "switch/input.xml", "--address", "no such host.invalid", says="not known")
    refused("client", "switch/input.xml", "--patience", "nan", says="patience")


def over_tcp(folder, port, name="fixed") -> Path:
    return edit(
        folder,
        ('mode="unix"', 'mode="inet"'),
        ("<address>alchemdriver</address>", f"<address>localhost</address><port>{port}</port>"),
        name=name,
    )


def test_port_in_use(folder, refused_outside):
    with socket.create_server(("localhost", 0)) as taken:
        path = over_tcp(folder, taken.getsockname()[1])
        refused_outside("server", path, says=str(taken.getsockname()[1]))


def test_unix_path_too_long_for_the_server(folder, refused_outside):
    refused_outside(
        "server",
        folder / "fixed" / "input.xml",
        "--socket-prefix",
        "/tmp/" + "x" * 120,
        says="at most 107",
    )


def test_what_ipi_refuses_is_one_line(folder, refused_outside):
    friction = (r"(<thermostat mode=.\w+.>\s*<tau[^>]*>)[^<]*", r"\g<1>-5")
    refused_outside("server", edit(folder, friction, name="fixed"), says="friction")


def test_restart_of_another_run(folder, refused_outside):
    other = folder / "beads" / "input.xml"
    refused_outside("server", "fixed/input.xml", "--restart", "fixed/input.xml", says="checkpoint")
    refused_outside("server", "fixed/input.xml", "--restart", other, says="checkpoint")
    refused_outside("server", "fixed/input.xml", "--restart", "no", says="no")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("switch: 10", "switch: 11", "'switch' is 11 there and 10 in input.xml"),
        ("alchemy: Cu", "alchemy: Cu[0]", "'alchemy' is Cu[0]->Au there"),
        ("digest: sha256-", "digest: sha256-0", "'digest'"),
    ],
)
def test_a_checkpoint_of_other_parameters_is_not_overrun(folder, refused, old, new, says):
    """Neither continued, nor set aside by starting anew."""
    text = (folder / "switch" / "input.xml").read_text()
    (folder / "switch" / "RESTART").write_text(
        text.replace("<total_steps>", "<step>5</step><total_steps>").replace(old, new)
    )
    refused("run", "switch", says=says)
    refused("server", "switch/input.xml", "--restart", "switch/RESTART", says=says)


@contextlib.contextmanager
def waiting_server(path: Path):
    """A server that listens; ended by SIGKILL."""
    log = path.parent.parent.parent / "server.log"  # outside of what must not change
    prefix = f"/tmp/alchemdriver-bad-{os.getpid()}-"
    process = rr.start("server", path, "--socket-prefix", prefix, log=log)
    socket_file = Path(prefix + "alchemdriver")
    deadline = time.monotonic() + rr.LIMIT
    try:
        ready = (socket_file, path.parent / "run.pos_0.xyz")  # the last of its outputs
        while not all(p.exists() for p in ready) and time.monotonic() < deadline:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process, prefix
    finally:
        process.kill()
        process.wait()
        socket_file.unlink(missing_ok=True)


def test_client_of_another_structure_and_two_servers(folder, refused, refused_outside):
    """No digest at fixed λ: a client of another size still notices; a second server keeps out."""
    path = edit(folder, (r", digest: [\w-]+", ""), name="fixed")
    larger = folder / "larger" / "input.xml"
    rr.oscillator_run(folder / "larger", "nvt-fixed", lambda_=0.5, steps=20)
    lines = (folder / "larger" / "start.xyz").read_text().splitlines()
    lines[0] = "3"
    (folder / "larger" / "start.xyz").write_text("\n".join(lines[:-1]) + "\n")
    model = json.loads((folder / "osc.json").read_text())
    model["anchors"].pop()
    (folder / "larger" / "osc.json").write_text(json.dumps(model))
    with waiting_server(path) as (server, prefix):
        refused("client", larger, "--socket-prefix", prefix, says="3")
        refused("run", "fixed", says=f"another server (pid {server.pid}) runs in this folder")
        refused_outside("server", path, says=f"another server (pid {server.pid})")
    # what a killed server leaves behind is in nobody's way
    done = rr.command("run", "fixed", cwd=folder)
    assert done.returncode in (0, 2), done.stderr
    assert "another server" not in done.stderr


def test_client_of_another_species(folder, refused):
    other = folder / "other" / "input.xml"
    shutil.copytree(folder / "fixed", folder / "other")
    edit(folder, (r", digest: [\w-]+", ""), name="other")
    start = folder / "other" / "start.xyz"
    start.write_text(start.read_text().replace("Cu", "Au", 1))
    with waiting_server(folder / "fixed" / "input.xml") as (_, prefix):
        refused("client", other, "--socket-prefix", prefix, says="digest mismatch")


# --- analysis -----------------------------------------------------------------------------------


def test_analyse_nothing(folder, refused):
    (folder / "empty").mkdir()
    refused("analyze", "empty", says="expected an input file")
    refused("analyze", "switch", says="cannot be read")
    refused("analyze", "nowhere", says="nowhere")


def test_analyse_into_a_file(folder, refused):
    (folder / "file").write_text("in the way")
    data = Path(__file__).parents[1] / "data" / "analysis" / "switch"
    shutil.copytree(data, folder / "done")
    refused("analyze", "done", "--out", "file", says="file")


def test_no_finished_pair(folder, refused):
    data = Path(__file__).parents[1] / "data" / "analysis" / "switch"
    shutil.copytree(data, folder / "done")
    import gzip

    for path in (folder / "done").glob("*.gz"):
        text = gzip.decompress(path.read_bytes()).decode()
        path.unlink()
        path.with_suffix("").write_text(text[: len(text) // 40].rsplit("\n", 1)[0] + "\n")
    refused("analyze", "done", says="pair")


# --- through the real command line --------------------------------------------------------------

OUTSIDE = {
    "usage": (["rum"], "rum"),
    "input": (["run", "nowhere"], "nowhere"),
    "model": (["client", "nowhere.xml"], "nowhere.xml"),
    "prepare": (prepare(model="no.model"), "no.model"),
    "analysis": (["analyze", "switch"], "cannot be read"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_the_command_itself(case, refused_outside):
    args, says = OUTSIDE[case]
    refused_outside(*args, says=says)


def test_latin_terminals_survive(folder):
    done = subprocess.run(
        [sys.executable, "-m", "alchemdriver", "run", "--help"],
        env=dict(rr.ENV, PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
