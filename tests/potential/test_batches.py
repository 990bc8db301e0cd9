"""Several structures per request, and numbers through shared memory: no number changes."""

from __future__ import annotations

import os
import re
import shutil
from multiprocessing import resource_tracker, shared_memory

import numpy as np
import pytest
from helpers import real_runs as rr
from server.test_serve import kill_children

from alchemdriver.client import wire
from alchemdriver.client.shared_memory import Segments
from alchemdriver.client.wire import Decoder, GetForce, SharedPosData
from alchemdriver.errors import WireError
from alchemdriver.paths.terms import Hamiltonian, Scaled, Springs, fading, growing

BEADS, N = 4, 3


def outputs(folder):
    """All numbers of a run of BEADS beads by step, as text."""
    files = [f"run.{key}_{b}" for key in ("dHdlambda", "lambda") for b in range(BEADS)]
    return [rr.rows(folder / "run.out"), *(rr.frames(folder / name) for name in files)]


def as_batches(text: str, size: int) -> str:
    return text.replace("</latency>", f"</latency><batch_size>{size}</batch_size>")


def through_memory(text: str) -> str:
    return text.replace('mode="unix"', 'mode="shm"')


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A switching run of four beads, one structure per request, one client."""
    folder = tmp_path_factory.mktemp("plain") / "a"
    rr.oscillator_run(folder, "switch-pimd", equilibrate=10, switch=30, cycles=1, beads=BEADS)
    pristine = folder.parent / "pristine"
    shutil.copytree(folder, pristine)
    assert rr.command("run", folder).returncode == 0
    return pristine, outputs(folder)


@pytest.mark.parametrize(
    ("edit", "clients"),
    [
        (lambda text: as_batches(text, BEADS), 2),
        (lambda text: as_batches(text, 3), 1),  # the second one is filled up
        (through_memory, 2),
        (lambda text: as_batches(through_memory(text), 2), 2),
    ],
    ids=["batch P", "batch 3", "shm", "shm batch 2"],
)
def test_no_number_changes(plain, tmp_path, edit, clients):
    pristine, expected = plain
    shutil.copytree(pristine, tmp_path / "a")
    path = tmp_path / "a" / "input.xml"
    path.write_text(edit(path.read_text()))
    done = rr.command("run", "--clients", clients, tmp_path / "a")
    assert done.returncode == 0, done.stderr + (tmp_path / "a" / "server.log").read_text()[-2000:]
    assert outputs(tmp_path / "a") == expected
    if clients == 2 and "batch" not in path.read_text():
        logs = [(tmp_path / "a" / f"client-{i}.log").read_text() for i in (1, 2)]
        assert all(int(re.search(r"served (\d+)", log)[1]) > 5 for log in logs)


def test_memory_is_given_back(plain, tmp_path):
    """Also after kill −9 of both sides: nothing of ours stays in /dev/shm."""
    pristine, expected = plain
    shutil.copytree(pristine, tmp_path / "a")
    path = tmp_path / "a" / "input.xml"
    path.write_text(through_memory(path.read_text()))
    before = set(os.listdir("/dev/shm"))
    supervisor = rr.start("run", tmp_path / "a", log=tmp_path / "run.log")
    rr.wait_for_step(tmp_path / "a" / "run.out", 20, supervisor)
    kill_children(supervisor)
    assert rr.command("run", tmp_path / "a").returncode == 0
    assert outputs(tmp_path / "a") == expected
    left = {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("ipi_shm")}
    assert not left
    log = (tmp_path / "a" / "client-1.log").read_text()
    assert "resource_tracker" not in log


# --- the wire -----------------------------------------------------------------------------------


def header(name):
    return name.ljust(12).encode()


def init(batch=1):
    text = f" lambda : 0.3 , batch_size:{batch}".encode()
    return header("INIT") + np.int32([0, len(text)]).tobytes() + text


def shared_posdata(names=(), n=N):
    parts = [header("POSDATA"), np.int32(n).tobytes()]
    for name in names:
        parts += [np.int32(len(name)).tobytes(), name.encode()]
    return b"".join(parts)


NAMES = tuple(f"ipi_shm_1_{kind}" for kind in ("pos", "h", "ih", "pot", "force", "vir"))


def test_names_come_once_and_stay():
    decoder = Decoder(N, shared_memory=True)
    stream = init(2) + shared_posdata(NAMES) + header("GETFORCE")
    stream += init(2) + shared_posdata() + header("GETFORCE")
    found = []
    for k in range(len(stream)):
        decoder.feed(stream[k : k + 1])
        while (event := decoder.next_event()) is not None:
            found.append(event)
    assert found[1] == found[4] == SharedPosData(NAMES, 2)
    assert found[2] == found[5] == GetForce()


@pytest.mark.parametrize(
    "names", [("../etc/passwd",), ("",), ("a" * 251,), ("a b",), ("ü",)], ids=repr
)
def test_only_names_are_opened(names):
    decoder = Decoder(N, shared_memory=True)
    decoder.feed(init() + shared_posdata(names))
    decoder.next_event()
    with pytest.raises(WireError, match="name"):
        decoder.next_event()


def test_another_number_of_atoms_is_refused():
    decoder = Decoder(N, shared_memory=True)
    decoder.feed(init() + shared_posdata(NAMES, n=2**31 - 1))
    decoder.next_event()
    with pytest.raises(WireError, match=f"expected {N} atoms"):
        decoder.next_event()


def test_segments_that_are_missing_or_too_small():
    with pytest.raises(WireError, match="one machine"):
        Segments([f"{name}_nobody" for name in NAMES], 1, N)
    small = [
        shared_memory.SharedMemory(create=True, size=8, name=f"{name}_{os.getpid()}")
        for name in NAMES
    ]
    try:
        with pytest.raises(WireError, match=r"expected 72 bytes .* got 8"):
            Segments([s.name for s in small], 1, N)
    finally:
        # attaching took it from the list of what this process must remove
        resource_tracker.register(small[0]._name, "shared_memory")
        for s in small:
            s.close()
            s.unlink()


def test_replies_without_numbers():
    replies = [wire.Reply(1.0, np.zeros((N, 3)), np.zeros((3, 3)), b"{}")] * 2
    assert wire.encode_shared(replies) == header("FORCEREADY") + 2 * (b"\2\0\0\0" + b"{}")


# --- the Hamiltonian ----------------------------------------------------------------------------


def test_a_batch_is_its_structures():
    rng = np.random.default_rng(5)
    anchors, cell = rng.random((N, 3)) * 5, np.eye(3) * 9.0
    terms = [
        Scaled(Springs(anchors, np.full(N, 2.0), cell), fading),
        Scaled(Springs(anchors + 0.1, np.full(N, 3.0), cell), growing),
    ]
    h = Hamiltonian(terms, n_atoms=N)
    x = anchors + rng.normal(scale=0.1, size=(5, N, 3))
    cells = np.stack([cell * (1 + 0.01 * b) for b in range(5)])
    for b, found in enumerate(h.evaluate_batch(x, cells, 0.3)):
        alone = h.evaluate(x[b], cells[b], 0.3)
        assert found.energy == alone.energy
        assert found.dHdlambda == alone.dHdlambda
        assert np.array_equal(found.forces, alone.forces)
        assert np.array_equal(found.virial, alone.virial)
