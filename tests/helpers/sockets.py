"""Both ends of i-PI's socket: an analytic potential, a real i-PI, and a peer that may be rude."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import numpy as np

from alchemdriver import units
from alchemdriver.contract.address import Address
from alchemdriver.records import Evaluation

N = 4
ANCHORS = np.array([[0.1, 0.1, 0.1], [0.6, 0.1, 0.2], [0.1, 0.6, 0.3], [0.5, 0.5, 0.5]])
LAMBDA = 0.3
IPI = Path(sys.executable).with_name("i-pi")
LIMIT = 30.0  # s, for anything that waits


def springs(x, h, lam):
    """H = ½ k(λ) Σ d² + a(λ) V with d = x − s·h: anchors s ride with the cell.  eV, Å."""
    k, a = 1.0 + lam, 0.002 * (1.0 - lam)
    volume = np.linalg.det(h)
    d = x - ANCHORS @ h
    return Evaluation(
        energy=0.5 * k * (d**2).sum() + a * volume,
        forces=-k * d,
        virial=-k * d.T @ d - a * volume * np.eye(3),
        dHdlambda=0.5 * (d**2).sum() - 0.002 * volume,
    )


def lambda_of(parameters):
    return float(parameters["lambda"])


OPTIONS = {"n_atoms": N, "evaluate": springs, "lambda_of": lambda_of, "patience": 20.0}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A real i-PI run in a directory of its own; NVT, triclinic cell, everything printed."""

    def __init__(
        self, where, mode="unix", beads=1, steps=20, settings="", consolidate=True, name=None
    ):
        if mode == "unix":
            name = name or f"ad_{uuid.uuid4().hex[:10]}"
            self.address = Address.unix(name)
            place = f"<address>{name}</address>"
        else:
            self.address = Address.tcp("127.0.0.1", free_port())
            place = f"<address>127.0.0.1</address><port>{self.address.port}</port>"
        self.where, self.beads, self.steps = where, beads, steps
        cell = "10 11 12 80 95 70"
        rows = np.array(CELL)
        with open(where / "init.xyz", "w") as f:
            f.write(f"{N}\n# CELL(abcABC): {cell} cell{{angstrom}} positions{{angstrom}}\n")
            for x in ANCHORS @ rows + 0.05:
                f.write("Cu {:.10f} {:.10f} {:.10f}\n".format(*x))
        trajectories = "".join(
            f"<trajectory stride='1' filename='{name}' {more}> {kind} </trajectory>"
            for name, kind, more in (
                ("pos", "positions", ""),
                ("for", "forces", ""),
                ("dhdl", "extras", "extra_type='dHdlambda'"),
                ("lam", "extras", "extra_type='lambda'"),
            )
        )
        (where / "input.xml").write_text(f"""
<simulation verbosity='medium' floatformat='%24.16e'>
  <output prefix='o'>
    <properties stride='1' filename='out'> [step, potential, volume, virial_cv,
      atom_f(atom=1;bead=0)] </properties>
    {trajectories}
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 7 </seed></prng>
  <ffsocket name='alchemy' mode='{mode}' pbc='false'>
    {place} <latency> 1e-4 </latency>
    <consolidate_messages> {consolidate} </consolidate_messages> {settings}
    <parameters> {{ lambda: {LAMBDA}, alchemy: Cu[0-1]->Ag }} </parameters>
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='xyz'> init.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='alchemy'>
      <interpolate_extras> [ dHdlambda ] </interpolate_extras>
    </force></forces>
    <motion mode='dynamics'><dynamics mode='nvt'>
      <timestep units='femtosecond'> 2 </timestep>
      <thermostat mode='pile_g'><tau units='femtosecond'> 50 </tau></thermostat>
    </dynamics></motion>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
  </system>
</simulation>""")

    def __enter__(self):
        self.log = open(self.where / "log", "w")
        self.process = subprocess.Popen(
            [IPI, "input.xml"], cwd=self.where, stdout=self.log, stderr=subprocess.STDOUT
        )
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT)
        self.log.close()
        if self.address.path:
            Path(self.address.path).unlink(missing_ok=True)

    def wait(self):
        assert self.process.wait(LIMIT) == 0, (self.where / "log").read_text()[-2000:]

    def rows(self):
        """Properties: one row per step."""
        return np.atleast_2d(np.loadtxt(self.where / "o.out"))

    def xyz(self, name):
        """(bead, step, N, 3) in atomic units."""
        frames = []
        for b in range(self.beads):
            lines = (self.where / f"o.{name}_{b}.xyz").read_text().splitlines()
            rows = [line.split()[1:] for i, line in enumerate(lines) if i % (N + 2) > 1]
            frames.append(np.array(rows, dtype=float).reshape(-1, N, 3))
        return np.array(frames)

    def extras(self, name):
        """(bead, step)"""
        files = [self.where / f"o.{name}_{b}" for b in range(self.beads)]
        return np.array([np.loadtxt(f, comments="#").ravel() for f in files])


def triclinic(a, b, c, alpha, beta, gamma):
    ca, cb, cg = np.cos(np.radians([alpha, beta, gamma]))
    sg = np.sqrt(1 - cg**2)
    cx, cy = c * cb, c * (ca - cb * cg) / sg
    return [[a, 0, 0], [b * cg, b * sg, 0], [cx, cy, np.sqrt(c**2 - cx**2 - cy**2)]]


CELL = triclinic(10, 11, 12, 80, 95, 70)


def in_thread(function, *args, **kwargs):
    """Start it; the returned function waits for its result or raises its error."""
    box = {}

    def target():
        try:
            box["result"] = function(*args, **kwargs)
        except Exception as error:
            box["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()

    def result():
        thread.join(LIMIT)
        assert not thread.is_alive(), "the client hangs"
        if "error" in box:
            raise box["error"]
        return box["result"]

    return result


class Recorder:
    """A potential that remembers at which positions it was asked, because i-PI's xyz files round to
    six digits."""

    def __init__(self, potential=springs):
        self.potential = potential
        self.x, self.h = [], []

    def __call__(self, x, h, lam):
        assert lam == LAMBDA
        self.x.append(x)
        self.h.append(h)
        return self.potential(x, h, lam)

    def exact(self, rounded):
        """The remembered positions (Å) nearest to each frame of ``rounded`` (..., N, 3) bohr."""
        known = np.array(self.x)
        exact = np.empty(rounded.shape)
        for i in np.ndindex(rounded.shape[:-2]):
            distance = np.abs(known - rounded[i] / units.ANGSTROM).max(axis=(1, 2))
            assert distance.min() < 1e-4
            exact[i] = known[distance.argmin()]
        return exact


class Peer:
    """The other end of a conversation, message by message."""

    def __init__(self, path, backlog=5):
        self.address = Address.unix(str(path))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(backlog)
        self.listener.settimeout(LIMIT)
        self.sock = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.listener.close()
        if self.sock is not None:
            self.sock.close()

    def accept(self):
        if self.sock is not None:
            self.sock.close()
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(LIMIT)

    def send(self, *messages):
        self.sock.sendall(b"".join(messages))

    def receive(self, n):
        data = b""
        while len(data) < n and (part := self.sock.recv(n - len(data))):
            data += part
        return data


def header(name):
    return name.ljust(12).encode()


def request(x=None, lam="0.3"):
    text = f" lambda : {lam} , ".encode()
    x = ANCHORS @ np.array(CELL) * units.ANGSTROM if x is None else x
    h = np.array(CELL).T * units.ANGSTROM
    numbers = [np.int32([0, len(text)]).tobytes() + text]
    numbers += [h.tobytes(), h.tobytes(), np.int32(len(x)).tobytes(), x.tobytes()]
    return b"".join(
        [header("INIT"), numbers[0], header("POSDATA"), *numbers[1:], header("GETFORCE")]
    )


REPLY = 12 + 8 + 4 + 24 * N + 72 + 4


def read_reply(peer):
    raw = peer.receive(REPLY)
    assert raw[:12] == header("FORCEREADY")
    return raw, json.loads(peer.receive(int(np.frombuffer(raw[-4:], np.int32)[0])))
