"""The socket loop against the real i-PI, with an analytic potential; and against rude servers."""

import itertools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alchemdriver import units
from alchemdriver.client import protocol
from alchemdriver.client import serve as loop
from alchemdriver.client.serve import Served, connect, serve
from alchemdriver.contract.address import Address
from alchemdriver.errors import InputError, ModelError, ProtocolError, RunError
from alchemdriver.records import Evaluation

pytest.importorskip("ipi")

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


@pytest.fixture
def where():
    """A short directory: unix socket paths have at most 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="ad_", dir="/tmp"))
    yield path
    shutil.rmtree(path)


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


# Against i-PI


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


@pytest.mark.parametrize(
    ("mode", "beads", "consolidate"),
    [("unix", 1, True), ("unix", 4, False), ("inet", 1, False), ("inet", 4, True)],
)
def test_ipi_prints_the_analytic_values(where, mode, beads, consolidate):
    recorder = Recorder()
    seen = []

    def remember(parameters):
        seen.append(parameters)
        return lambda_of(parameters)

    with Server(where, mode, beads, steps=20, consolidate=consolidate) as server:
        options = OPTIONS | {"evaluate": recorder, "lambda_of": remember}
        served = serve(server.address, **options)
        server.wait()
    assert served == Served(requests=21 * beads, reason="EXIT")
    # every request brings its own
    assert seen == [{"lambda": "0.3", "alchemy": "Cu[0-1]->Ag"}] * (21 * beads)

    h = np.array(CELL)
    np.testing.assert_allclose(recorder.h, np.tile(h, (21 * beads, 1, 1)), rtol=1e-9, atol=1e-9)
    x = recorder.exact(server.xyz("pos"))
    truth = [[springs(x[b, t], h, LAMBDA) for t in range(21)] for b in range(beads)]

    def expected(quantity, unit):
        return np.array([[getattr(e, quantity) for e in row] for row in truth]) * unit

    def close(actual, desired):
        np.testing.assert_allclose(actual, desired, rtol=1e-8, atol=1e-11)

    rows = server.rows()
    volume = np.linalg.det(h) * units.ANGSTROM**3
    close(rows[:, 2], volume)
    close(rows[:, 1], expected("energy", units.ELECTRONVOLT).mean(axis=0))
    close(server.extras("dhdl"), expected("dHdlambda", units.ELECTRONVOLT))
    assert np.all(server.extras("lam") == LAMBDA)
    forces = expected("forces", units.EV_PER_ANGSTROM)
    close(rows[:, 9:12], forces[0, :, 1])  # atom 1 of bead 0, all digits
    np.testing.assert_allclose(server.xyz("for"), forces, rtol=1e-5, atol=1e-9)
    virial = expected("virial", units.ELECTRONVOLT).mean(axis=0) / volume
    xx_yy_zz_xy_xz_yz = virial[:, [0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    close(rows[:, 3:9], xx_yy_zz_xy_xz_yz)
    assert np.abs(xx_yy_zz_xy_xz_yz).min() > 0  # off-diagonal elements take part


STIFFNESS = np.array([[1.0, 0.4, 0.0], [0.4, 2.0, -0.5], [0.0, -0.5, 3.0]])  # eV/Å²


def directed_springs(x, h, lam):
    """H = ½ Σ d·K d: turning the crystal costs energy, so −∂H/∂ε is not symmetric.  eV, Å."""
    d = x - ANCHORS @ h
    return Evaluation(
        energy=0.5 * np.sum(d * (d @ STIFFNESS)),
        forces=-d @ STIFFNESS,
        virial=-d.T @ (d @ STIFFNESS),
        dHdlambda=0.0,
    )


def test_an_asymmetric_virial_reaches_ipi_the_right_way_round(where):
    """i-PI strains columns, and only so that its cell stays upper triangular: r -> (1 + ε) r with
    ε_xy, ε_xz and ε_yz.  Of the virial it keeps these components, and drops the other three."""
    recorder = Recorder(directed_springs)
    with Server(where, steps=5) as server:
        serve(server.address, **(OPTIONS | {"evaluate": recorder}))
        server.wait()
    h, step = np.array(CELL), 1e-5
    expected, transposed = [], []
    for x in recorder.exact(server.xyz("pos"))[0]:
        slope = np.zeros((3, 3))
        for index in np.ndindex(3, 3):
            energies = []
            for sign in (1.0, -1.0):
                f = np.eye(3)
                f[index] += sign * step
                energies.append(directed_springs(x @ f.T, h @ f.T, LAMBDA).energy)
            slope[index] = (energies[1] - energies[0]) / (2.0 * step)
        expected.append(slope[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]])
        transposed.append(slope[[0, 1, 2, 1, 2, 2], [0, 1, 2, 0, 0, 1]])
    volume = np.linalg.det(h) * units.ANGSTROM**3
    printed = server.rows()[:, 3:9] * volume / units.ELECTRONVOLT  # xx yy zz xy xz yz
    np.testing.assert_allclose(printed, expected, rtol=1e-6, atol=1e-8)
    assert np.abs(np.subtract(expected, transposed)).max() > 1e-3


def test_virial_is_minus_the_strain_derivative_of_the_energy():
    # The test's own potential: otherwise its signs would prove nothing about i-PI's.
    rng = np.random.default_rng(3)
    x, h = rng.random((N, 3)) * 5, np.array(CELL)
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = 1e-5
            up, down = (
                springs(x @ (np.eye(3) + s * strain), h @ (np.eye(3) + s * strain), 0.3).energy
                for s in (1, -1)
            )
            assert springs(x, h, 0.3).virial[a, b] == pytest.approx((down - up) / 2e-5, abs=1e-6)


def test_numbers_agree_with_the_ase_driver_of_ipi(where):
    # the same atoms through i-PI's own python driver and through ours
    from ase.build import bulk
    from ase.calculators.lj import LennardJones
    from ipi.pes._ase import ASEDriver

    atoms = bulk("Ar", "fcc", 5.3).repeat((2, 2, 2))
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.write(where / "ar.xyz")

    class LJ(ASEDriver):
        def check_parameters(self):
            super().check_parameters()
            self.ase_calculator = LennardJones(epsilon=0.0103, sigma=3.4, rc=8.0)

    pos, cell = atoms.positions * units.ANGSTROM, atoms.cell.array.T * units.ANGSTROM
    energy, forces, virial, _ = LJ(str(where / "ar.xyz")).compute_structure(cell, pos)

    atoms.calc = LennardJones(epsilon=0.0103, sigma=3.4, rc=8.0)
    stress = atoms.get_stress(voigt=False)
    ours = Evaluation(
        atoms.get_potential_energy(), atoms.get_forces(), -stress * atoms.get_volume(), 0.0
    )
    worker = loop._Worker(len(atoms), None, None, None, None, None)
    reply = worker._convert(ours, 0.0)
    assert reply.energy == pytest.approx(float(energy), rel=1e-9)
    # i-PI rounds its "ev/ang" to eight digits; ours is the quotient, so that energy is conserved
    np.testing.assert_allclose(reply.forces, forces, rtol=3e-7, atol=1e-12)
    np.testing.assert_allclose(reply.virial, virial.reshape(3, 3), rtol=1e-7, atol=1e-9)


def test_batched_requests(where):
    recorder = Recorder()
    settings = "<batch_size> 3 </batch_size>"
    with Server(where, beads=4, steps=5, settings=settings) as server:
        served = serve(server.address, **(OPTIONS | {"evaluate": recorder}))
        server.wait()
    assert served.requests == 6 * 6  # 4 beads in batches of 3: the second is padded ...
    assert len(recorder.x) == 5 * 4 + 2  # ... at no cost; at the start all beads coincide
    x = recorder.exact(server.xyz("pos"))
    truth = [[springs(f, np.array(CELL), LAMBDA) for f in bead] for bead in x]
    for printed, quantity in (("for", "forces"), ("dhdl", "dHdlambda")):
        actual = server.xyz(printed) if printed == "for" else server.extras(printed)
        unit = units.EV_PER_ANGSTROM if printed == "for" else units.ELECTRONVOLT
        desired = np.array([[getattr(e, quantity) for e in bead] for bead in truth]) * unit
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-9)


def test_two_clients_share_the_beads(where):
    with Server(where, beads=4, steps=30) as server:
        slow = OPTIONS | {"evaluate": lambda *a: time.sleep(0.003) or springs(*a)}
        clients = [in_thread(serve, server.address, **slow) for _ in range(2)]
        served = [c().requests for c in clients]
        server.wait()
    assert sum(served) == 4 * 31
    assert min(served) > 5


CLIENT_THAT_DIES = """
import os, sys, logging
sys.path.insert(0, {tests!r})
import test_serve as t
def die(count, lam, evaluation):
    if count == 7:
        os._exit(3)
t.serve(t.Address.unix({path!r}), **t.OPTIONS, on_reply=die)
"""


def test_second_client_takes_over_when_the_first_dies(where):
    with Server(where, beads=2, steps=20) as server:
        script = CLIENT_THAT_DIES.format(tests=str(Path(__file__).parent), path=server.address.path)
        first = subprocess.run([sys.executable, "-c", script], timeout=LIMIT, check=False)
        assert first.returncode == 3
        second = serve(server.address, **OPTIONS)
        server.wait()
    assert second.requests >= 2 * 21 - 7
    assert len(server.rows()) == 21


def test_client_that_dies_in_mid_evaluation_loses_nothing(where):
    count = itertools.count()

    def fail(x, h, lam):
        if next(count) == 5:
            raise ModelError("out of memory")
        return springs(x, h, lam)

    with Server(where, steps=20) as server:
        with pytest.raises(ModelError, match="out of memory"):
            serve(server.address, **(OPTIONS | {"evaluate": fail}))
        second = serve(server.address, **OPTIONS)
        server.wait()
    assert second.requests == 21 - 5
    potential = server.rows()[:, 1]
    assert np.isfinite(potential).all()
    assert len(potential) == 21


def test_server_restarted_under_a_living_client(where):
    (where / "a").mkdir()
    (where / "b").mkdir()
    half = threading.Event()

    def on_reply(count, lam, evaluation):
        if count == 30:
            half.set()

    with Server(where / "a", steps=100000) as first:
        result = in_thread(serve, first.address, **OPTIONS, on_reply=on_reply)
        assert half.wait(LIMIT)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(LIMIT)
        os.unlink(first.address.path)  # a killed i-PI leaves its socket file
    name = first.address.path.removeprefix("/tmp/ipi_")
    with Server(where / "b", steps=10, name=name) as second:
        served = result()
        second.wait()
    assert served.reason == "EXIT"
    assert served.requests >= 30 + 11
    assert len(second.rows()) == 11


def test_server_gone(where):
    half = threading.Event()
    with Server(where, steps=100000) as server:
        connect(server.address, LIMIT).close()  # it listens, and puts up with this
        result = in_thread(
            serve,
            server.address,
            **(OPTIONS | {"patience": 0.5}),
            on_reply=lambda count, *_: half.set(),
        )
        assert half.wait(LIMIT)
        server.process.kill()
        with pytest.raises(RunError, match=r"server gone: .* for 0.5 s after \d+ requests"):
            result()


def test_stopping_ipi_with_a_signal_is_a_clean_end(where):
    half = threading.Event()
    with Server(where, steps=100000) as server:
        result = in_thread(serve, server.address, **OPTIONS, on_reply=lambda count, *_: half.set())
        assert half.wait(LIMIT)
        server.process.terminate()
        assert result().reason.startswith("EXIT")


# Against a server of our own, for what i-PI does rarely


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


def test_wrong_atom_count(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **(OPTIONS | {"n_atoms": 5}))
        peer.accept()
        peer.send(request())
        with pytest.raises(ProtocolError, match="expected 5 atoms, i-PI announces 4"):
            result()
        assert peer.receive(1) == b""


def test_refused_parameters(where):
    def refuse(parameters):
        raise InputError("a schedule needs the alchemdriver server")

    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **(OPTIONS | {"lambda_of": refuse}))
        peer.accept()
        peer.send(request())
        with pytest.raises(InputError, match="schedule"):
            result()
        assert peer.receive(1) == b""


REPLY = 12 + 8 + 4 + 24 * N + 72 + 4


def read_reply(peer):
    raw = peer.receive(REPLY)
    assert raw[:12] == header("FORCEREADY")
    return raw, json.loads(peer.receive(int(np.frombuffer(raw[-4:], np.int32)[0])))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["energy", "forces", "virial", "dHdlambda"])
def test_nothing_that_is_not_finite_is_ever_sent(where, field, value):
    def broken(x, h, lam):
        good = springs(x, h, lam)
        array = np.array(getattr(good, field), dtype=float)
        array[(0,) * array.ndim] = value
        return replace(good, **{field: array if array.ndim else float(array)})

    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **(OPTIONS | {"evaluate": broken}))
        peer.accept()
        peer.send(request())
        with pytest.raises(RunError, match=rf"{field} is not finite at request 1 \(replica 0, λ"):
            result()
        assert peer.receive(1) == b""  # closed without a byte


def test_nan_positions_are_named_as_such(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        peer.send(request(np.full((N, 3), np.nan)))
        with pytest.raises(RunError, match="i-PI sent positions or a cell that are not finite"):
            result()


def test_wrong_shape_is_not_sent(where):
    with Peer(where / "s") as peer:
        flat = OPTIONS | {"evaluate": lambda x, h, lam: Evaluation(0.0, x[:2], h, 0.0)}
        result = in_thread(serve, peer.address, **flat)
        peer.accept()
        peer.send(request())
        with pytest.raises(RunError, match=r"forces of shape \(4, 3\), got \(2, 3\)"):
            result()


def test_lambda_changes_from_request_to_request(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        for lam in (0.0, 1.0, 0.1 + 0.2, 1e-17):
            peer.send(header("STATUS"))
            assert peer.receive(12) == header("NEEDINIT")
            peer.send(request(lam=repr(lam)))
            assert read_reply(peer)[1]["lambda"] == lam
        peer.send(header("EXIT"))
        assert result() == Served(4, "EXIT")


def test_extras_can_be_extended(where):
    with Peer(where / "s") as peer:
        more = OPTIONS | {"extras_of": lambda lam, e: {"spring": [lam, 2.0]}}
        result = in_thread(serve, peer.address, **more)
        peer.accept()
        peer.send(request())
        assert read_reply(peer)[1] == {
            "lambda": 0.3,
            "dHdlambda": pytest.approx(-0.002 * np.linalg.det(CELL) * units.ELECTRONVOLT),
            "spring": [0.3, 2.0],
        }
        peer.send(header("EXIT"))
        result()


@pytest.mark.parametrize(
    ("key", "error"), [("raw", ProtocolError), ("lambda", RunError), ("dHdlambda", RunError)]
)
def test_reserved_extras(where, key, error):
    with Peer(where / "s") as peer:
        result = in_thread(
            serve, peer.address, **(OPTIONS | {"extras_of": lambda lam, e: {key: 1.0}})
        )
        peer.accept()
        peer.send(request())
        with pytest.raises(error, match=key):
            result()


def test_exit_while_computing(where):
    with Peer(where / "s") as peer:
        gate = threading.Event()
        late = OPTIONS | {"evaluate": lambda *a: gate.wait(LIMIT) and springs(*a)}
        result = in_thread(serve, peer.address, **late)
        peer.accept()
        peer.send(request(), header("EXIT"))
        peer.sock.shutdown(socket.SHUT_RDWR)
        peer.sock.close()
        gate.set()
        assert result() == Served(0, "EXIT during a request")


def test_lost_connection_is_taken_up_again_in_mid_message(where, monkeypatch):
    monkeypatch.setattr("alchemdriver.client.serve._LONGEST_PAUSE", 0.2)
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        peer.send(request()[:100])
        peer.sock.close()
        peer.accept()
        peer.send(request())
        read_reply(peer)
        peer.send(header("EXIT"))
        assert result() == Served(1, "EXIT")


def test_server_that_hangs_up_at_once_does_not_keep_us(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **(OPTIONS | {"patience": 0.5}))
        begin, cpu = time.monotonic(), time.process_time()

        def hang_up():
            peer.listener.settimeout(3)
            while True:
                peer.accept()
                peer.sock.close()

        in_thread(hang_up)
        with pytest.raises(RunError, match="server gone"):
            result()
        assert time.monotonic() - begin < 5
        assert time.process_time() - cpu < 0.5


def test_a_listener_that_says_nothing_is_no_ipi(where, monkeypatch):
    monkeypatch.setattr("alchemdriver.client.serve._FIRST_WORD", 0.2)
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        with pytest.raises(RunError, match=r"said nothing for 0\.2 s: is it i-PI"):
            result()


def test_waiting_for_work_has_no_limit(where, monkeypatch):
    monkeypatch.setattr("alchemdriver.client.serve._FIRST_WORD", 0.2)
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        peer.send(header("STATUS"))
        peer.receive(12)
        time.sleep(0.5)
        peer.send(request(), header("EXIT"))
        assert result().requests == 1


def test_waiting_costs_no_cpu(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **OPTIONS)
        peer.accept()
        peer.send(request()[:150])  # the rest comes late
        cpu = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - cpu < 0.1
        peer.send(request()[150:], header("EXIT"))
        assert result().requests == 1


# Connecting


def test_no_server(where):
    begin, cpu = time.monotonic(), time.process_time()
    with pytest.raises(RunError, match=r"no i-PI server at .*/nobody after 0.6 s \(no such file"):
        connect(Address.unix(f"{where}/nobody"), patience=0.6)
    assert 0.5 < time.monotonic() - begin < 3
    assert time.process_time() - cpu < 0.3


def test_stale_socket_file(where):
    with Peer(where / "s") as peer:
        pass
    assert (where / "s").exists()
    with pytest.raises(RunError, match=r"connection refused.*remove a socket file"):
        connect(peer.address, patience=0.2)


def test_no_tcp_server():
    with pytest.raises(RunError, match="connection refused"):
        connect(Address.tcp("127.0.0.1", free_port()), patience=0.2)


def test_server_that_comes_late(where, caplog):
    caplog.set_level(logging.INFO, logger="alchemdriver.client.serve")
    result = in_thread(connect, Address.unix(str(where / "s")), patience=LIMIT)
    time.sleep(0.3)
    with Peer(where / "s") as peer:
        sock = result()
        peer.accept()
        sock.close()
    assert "waiting up to" in caplog.text


def test_address_that_cannot_work_fails_at_once(where):
    (where / "file").write_text("")
    begin = time.monotonic()
    with pytest.raises(InputError, match="not known"):
        connect(Address.tcp("no-such-host.invalid", 31415), patience=LIMIT)
    with pytest.raises(RunError, match="cannot connect"):
        connect(Address.unix(f"{where}/file/s"), patience=LIMIT)
    assert time.monotonic() - begin < 15


def test_tcp_options():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with connect(Address.tcp("127.0.0.1", listener.getsockname()[1]), patience=5) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.gettimeout() is None


def test_addresses():
    assert str(Address.unix("run")) == "/tmp/ipi_run"
    assert str(Address.unix("run", prefix="/scratch/ipi_")) == "/scratch/ipi_run"
    assert str(Address.unix("/run/x")) == "/run/x"
    assert str(Address.tcp("localhost", 31415)) == "localhost:31415"
    for bad in (lambda: Address.unix(""), lambda: Address.unix("x" * 200)):
        with pytest.raises(InputError):
            bad()
    for host, port in (("", 1), ("h", 0), ("h", 65536)):
        with pytest.raises(InputError):
            Address.tcp(host, port)


def test_public_names():
    assert set(loop.__all__) == {"Served", "connect", "serve"}
    assert protocol.Decoder(1).state is protocol.State.NEEDINIT
