"""Bad company on the socket, edited inputs, kills at bad moments: go on, or say why not."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import time

import pytest
from helpers import real_runs as rr
from server.test_serve import kill_children, outputs

from alchemdriver.server import checkpoints

LENGTHS = {"equilibrate": 10, "switch": 30, "cycles": 1}


@pytest.fixture
def served(tmp_path):
    """A server waiting for clients: (run folder, socket prefix)."""
    rr.oscillator_run(tmp_path / "a", **LENGTHS)
    prefix = f"/tmp/alchemdriver-fault-{os.getpid()}-{time.monotonic_ns()}-"
    server = rr.start(
        "server", tmp_path / "a" / "input.xml", "--socket-prefix", prefix, log=tmp_path / "s.log"
    )
    yield tmp_path / "a", prefix
    server.kill()
    server.wait()


def connect(prefix: str) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(prefix + "alchemdriver")
        except OSError:
            s.close()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            s.settimeout(30)
            return s


def finishes(folder, prefix) -> bool:
    """Whether a proper client now brings the run to its end."""
    client = rr.command("client", folder / "input.xml", "--socket-prefix", prefix)
    return client.returncode == 0 and max(rr.rows(folder / "run.out")) == 80


def test_a_client_that_breaks_off_with_unread_data_is_survived(served):
    folder, prefix = served
    s = connect(prefix)
    assert s.recv(12).strip() == b"STATUS"
    s.sendall(b"READY".ljust(12))
    assert s.recv(12).strip() == b"POSDATA"
    s.close()  # the rest of the message unread: a connection reset on the server's side
    assert finishes(folder, prefix)


def test_a_silent_connection_is_dropped(served):
    folder, prefix = served
    s = connect(prefix)
    assert s.recv(12).strip() == b"STATUS"
    assert finishes(folder, prefix)
    s.close()


def reply(extras: bytes, length: int | None = None) -> bytes:
    """Zeros for four atoms, and *extras*, said to be *length* bytes."""
    length = struct.pack("=i", len(extras) if length is None else length)
    return b"FORCEREADY".ljust(12) + bytes(8) + struct.pack("=i", 4) + bytes(168) + length + extras


def test_garbage_for_a_reply_is_discarded(served):
    """Each of these makes i-PI raise something else, or is caught by our own check."""
    folder, prefix = served
    garbage = [
        b"FORCEREADY".ljust(12) + b"\xff" * 400,
        reply(b"[1, 2]"),
        reply(b'"text"'),
        reply(b"\xff\xfe"),
        reply(b"[" * 20000),
        reply(b'{"lambda": 1' + b"0" * 400 + b', "dHdlambda": 1}'),
        reply(b'{"lambda": NaN, "dHdlambda": 1}'),
    ]
    for data in garbage:
        with connect(prefix) as s:
            assert s.recv(12).strip() == b"STATUS"
            s.sendall(b"READY".ljust(12))
            s.recv(1 << 16)
            s.sendall(data)
            assert s.recv(4).strip() == b"EXIT"
    assert finishes(folder, prefix)
    log = (folder.parent / "s.log").read_text()
    assert log.count("client dropped") == len(garbage)
    assert "Traceback" not in log


def test_a_client_with_a_nonsensical_status_is_dropped(served):
    """i-PI would ask it again without a pause and write a warning each time: megabytes a second."""
    folder, prefix = served
    with connect(prefix) as nonsense, connect(prefix) as early:
        assert nonsense.recv(12).strip() == b"STATUS"
        nonsense.sendall(b"FORCEREADY".ljust(12))
        assert early.recv(12).strip() == b"STATUS"
        early.sendall(b"HAVEDATA".ljust(12))  # of a request that it was never sent
        assert finishes(folder, prefix)
    log = (folder.parent / "s.log").read_text()
    assert log.count("client dropped: it was asked for its status") == 2
    assert len(log) < 20000


def test_no_checkpoint_is_ahead_of_the_rows(tmp_path):
    """Checkpoints first in the list and rows flushed late: a kill must still leave no gap."""

    def edit(text):
        checkpoint = re.search(r"<checkpoint.*?(?:/>|</checkpoint>)", text)[0]
        text = text.replace(checkpoint, "")
        early = checkpoint.replace('stride="200"', 'stride="5"')
        text = re.sub(r"(<output [^>]*>)", rf"\1{early}", text)
        return re.sub(
            r'(<(?:properties|trajectory) )stride="1"', r'\1flush="1000" stride="1"', text
        )

    lengths = {"equilibrate": 20, "switch": 150, "cycles": 1}
    rr.oscillator_run(tmp_path / "whole", edit=edit, **lengths)
    rr.oscillator_run(tmp_path / "broken", edit=edit, **lengths)
    assert rr.command("run", tmp_path / "whole").returncode == 0
    supervisor = rr.start("run", tmp_path / "broken", log=tmp_path / "run.log")
    for _ in range(3):
        rr.wait_for_step(tmp_path / "broken" / "run.out", 30, supervisor)
        kill_children(supervisor)
        supervisor = rr.start("run", tmp_path / "broken", log=tmp_path / "run.log")
    assert supervisor.wait(rr.LIMIT) == 0, (tmp_path / "run.log").read_text()
    assert outputs(tmp_path / "broken") == outputs(tmp_path / "whole")


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [(">300.0<", ">900.0<", "temperature"), (">2.0</timestep>", ">5.0</timestep>", "timestep")],
)
def test_an_edited_condition_is_refused_on_resume(tmp_path, old, new, word):
    path = rr.oscillator_run(tmp_path / "a", **LENGTHS)
    assert rr.command("run", tmp_path / "a").returncode == 0
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    done = rr.command("run", tmp_path / "a")
    assert done.returncode == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def masses_in(folder) -> list[float]:
    """Masses (u) of the atoms in the RESTART."""
    text = (folder / "RESTART").read_text()
    numbers = re.search(r"<m [^>]*>\s*\[(.*?)\]", text, re.S)[1].split(",")
    return [float(x) / 1822.8885 for x in numbers]


@pytest.mark.parametrize(
    ("protocol", "parameters", "expected"),
    [
        ("pimd-fixed", {"lambda_": 0.5, "beads": 2}, 63.546),  # fixed: several beads
        ("nvt-fixed", {"lambda_": 0.5, "masses": "interpolate"}, 0.5 * (63.546 + 196.966569)),
        ("nvt-fixed", {"lambda_": 0.5, "masses": "fixed"}, 63.546),
    ],
)
def test_masses_that_move_are_those_the_input_means(tmp_path, protocol, parameters, expected):
    rr.oscillator_run(tmp_path / "a", protocol, steps=3, **parameters)
    assert rr.command("run", tmp_path / "a").returncode == 0
    assert masses_in(tmp_path / "a") == pytest.approx([expected] * 4, rel=1e-6)


def test_isotopes_are_used_and_a_contradiction_is_refused(tmp_path):
    content = {"initial": [62.93] * 4, "final": [197.0] * 4}
    (tmp_path / "masses.json").write_text(json.dumps(content))
    given = {"lambda_": 0.0, "masses": "fixed", "masses_file": tmp_path / "masses.json"}
    path = rr.oscillator_run(tmp_path / "a", "nvt-fixed", steps=3, **given)
    assert rr.command("run", tmp_path / "a").returncode == 0
    assert masses_in(tmp_path / "a") == pytest.approx([62.93] * 4, rel=1e-6)
    (tmp_path / "a" / "RESTART").unlink()
    path.write_text(re.sub(r"<masses.*?</masses>", "", path.read_text(), flags=re.S))
    done = rr.command("run", tmp_path / "a")
    assert done.returncode == 2
    assert "62.93 u" in done.stderr


def test_a_hangup_stops_cleanly(tmp_path):
    """A closed terminal must not leave servers behind."""
    rr.oscillator_run(tmp_path / "a", equilibrate=500, switch=500, cycles=1)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup have it ignored
    try:
        supervisor = rr.start("run", tmp_path / "a", log=tmp_path / "run.log")
    finally:
        signal.signal(signal.SIGHUP, before)
    rr.wait_for_step(tmp_path / "a" / "run.out", 20, supervisor)
    supervisor.send_signal(signal.SIGHUP)
    assert supervisor.wait(rr.LIMIT) == 130
    assert (tmp_path / "a" / "RESTART").exists()


def test_rows_are_synced_when_their_file_is_closed(tmp_path, monkeypatch):
    """i-PI writes its last RESTART after that."""
    from ipi.engine.outputs import PropertyOutput

    synced = []
    monkeypatch.setattr(checkpoints.os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
    output = PropertyOutput(str(tmp_path / "rows"))
    output.out = open(output.filename, "w")  # noqa: SIM115
    checkpoints.sync_at_checkpoints(output)
    output.out.write("a row\n")
    output.force_flush()
    assert synced == []
    output.out.write("another\n")
    output.close_stream()
    assert synced == [len("a row\nanother\n")]
