"""What tests and the soak need to disturb a run: quick clients, victims, a tunnel that breaks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from alchemdriver.client import assembly
from alchemdriver.client.serve import serve
from alchemdriver.contract.address import Address
from alchemdriver.contract.digest import digest
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.secret import find_secret
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.server import checkpoints
from helpers import real_runs as rr

_FORK = multiprocessing.get_context("fork")  # everything is imported: a client within milliseconds


def numbers(folder: Path) -> list:
    """All that a finished run has printed, by step, and the state it ended in, as text: equality
    here is equality bit for bit.

    The state is all that a further step would start from: positions and momenta of every bead,
    cell, barostat, heat of the thermostats, random generator.  Positions along the way are
    printed with six digits.  What a kill tore off may be glued to the front of a resumed row, and
    is left out as the analysis does.
    """
    run = read_input(folder)
    table = {step: row.split() for step, row in rr.rows(folder / "run.out").items()}
    columns = min(map(len, table.values()))
    width = len(str(run.beads)) if run.beads > 1 else 1
    found = [{step: row[-columns:] for step, row in table.items()}]
    for key in ("dHdlambda", "lambda"):
        found += [rr.frames(folder / f"run.{key}_{b:0{width}d}") for b in range(run.beads)]
    found += [structures(folder / f"run.pos_{b:0{width}d}.xyz") for b in range(run.beads)]
    end = checkpoints.latest(run)
    assert end.step == run.total_steps
    state = parse_xml(end.path.read_text(), str(end.path))
    return [*found, state["system"], state["prng"]["state"]]  # not its seed: done with


def structures(path: Path) -> dict[int, list[str]]:
    """Step → rows of atoms of an xyz file, the later ones where a step appears twice."""
    lines = path.read_text().splitlines()
    atoms = int(lines[0])
    return {
        int(line.split("Step:")[1].split()[0]): lines[k + 1 : k + 1 + atoms]
        for k, line in enumerate(lines)
        if line.startswith("#")
    }


def quick_client(path: Path, address: Address, slow: float = 0.0, shift: float = 0.0):
    """A client process of its own, started by forking; *slow* seconds more per evaluation, λ wrong
    by *shift*."""
    run = read_input(path)
    hamiltonian = assembly.hamiltonian_of(run, "cpu")
    lambda_of = assembly.lambda_reader(run, digest(run))

    def evaluate(x, h, lam):
        time.sleep(slow)
        return hamiltonian.evaluate(x, h, lam)

    def work():
        os.setsid()
        serve(
            address,
            n_atoms=len(run.structure),
            evaluate=evaluate,
            lambda_of=lambda parameters: lambda_of(parameters) + shift,
            secret_of=lambda: find_secret(run.folder),
            patience=float(rr.LIMIT),
        )
        os._exit(0)

    process = _FORK.Process(target=work, daemon=True)
    process.start()
    return process


def children(supervisor: subprocess.Popen, kind: str) -> list[int]:
    """Process ids of the supervisor's servers or clients ('server', 'client')."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # gone meanwhile
            continue
        if parent == supervisor.pid and kind.encode() in words:
            found.append(int(entry.name))
    return found


def wait_for_child(supervisor: subprocess.Popen, kind: str) -> int:
    deadline = time.monotonic() + rr.LIMIT
    while time.monotonic() < deadline and supervisor.poll() is None:
        if found := children(supervisor, kind):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no {kind} appeared")


def kill(pid: int, how=signal.SIGKILL) -> None:
    """Send a signal to one process, which may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


class Tunnel:
    """Forwards TCP from *near* (host, port) to *far*, as ``ssh -L`` does; ``cut`` breaks it."""

    def __init__(self, far: tuple[str, int], near: tuple[str, int] = ("127.0.0.1", 0)):
        self.far = far
        self.listener = socket.create_server(near)
        self.port = self.listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.far, timeout=5)
                far.settimeout(None)
            except OSError:  # like ssh: the near end is accepted, then closed
                near.close()
                continue
            self.pairs.append((near, far))
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    @staticmethod
    def _pump(source, sink):
        try:
            while data := source.recv(1 << 16):
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Break every connection; new ones are accepted."""
        for pair in self.pairs:
            for s in pair:
                with contextlib.suppress(OSError):  # ended by itself
                    s.shutdown(socket.SHUT_RDWR)
        self.pairs.clear()

    def close(self):
        self.listener.close()
        self.cut()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
