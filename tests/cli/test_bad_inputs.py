"""What goes wrong must say so in one line, with exit status 2, and leave every file as it was.

Most cases go through ``alchemdriver.cli.main`` in this process; those that start i-PI, torch or
sockets, and one of each kind of exit, through the real command line.
"""

from __future__ import annotations

import contextlib
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
from helpers.refusals import prepare

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
