"""Strangers on the port: i-PI's own forcefield and polling thread behind our port, real sockets,
an honest client in a thread of its own.  Every result is compared exactly."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import strangers
from helpers.sockets import CELL, LIMIT, OPTIONS, N, free_port, header, in_thread, springs
from ipi.engine.atoms import Atoms
from ipi.engine.cell import GenericCell
from ipi.engine.forcefields import FFSocket
from ipi.interfaces import sockets
from ipi.interfaces.sockets import InterfaceSocket

from alchemdriver import units
from alchemdriver.client import shared_memory
from alchemdriver.client.serve import serve
from alchemdriver.contract.address import Address
from alchemdriver.errors import InputError, RunError
from alchemdriver.records import Evaluation
from alchemdriver.server import drivers, greeting
from alchemdriver.server.greeting import Complaints, Greeted
from alchemdriver.server.port import Port
from alchemdriver.server.replies import Dropped, frame

SECRET = b"0123456789abcdef0123456789abcdef"
H = np.array(CELL).T * units.ANGSTROM


class Office:
    """A forcefield that is asked by hand."""

    def __init__(self, secret=SECRET, atoms=N, path=None, **options):
        self.port, self.atoms, self.asked = free_port(), atoms, 0
        options = {"mode": "inet"} | options
        interface = InterfaceSocket(path or "127.0.0.1", self.port, sockets_prefix="", **options)
        pars = {"lambda": 0.3}
        self.forcefield = FFSocket(pars=pars, dopbc=False, interface=interface)
        secret_of = None if secret is None else lambda: secret
        self.forcefield.socket = Port(interface, 4, None, secret_of)
        self.address = Address.tcp("127.0.0.1", self.port)
        if path is not None:
            self.address = Address.unix(path, shared_memory=interface.mode == "shm")

    def __enter__(self):
        self.forcefield.start()
        return self

    def __exit__(self, *error):
        self.forcefield.stop()

    def client(self, secret=SECRET, address=None, **options):
        more = {"secret_of": lambda: secret} if secret else {}
        return in_thread(serve, address or self.address, **(OPTIONS | more | options))

    def queue(self):
        """A request of its own for the energy and forces of some structure."""
        self.asked += 1
        atoms = Atoms(self.atoms)
        atoms.q[:] = np.sin(np.arange(3 * self.atoms) + self.asked) * 5 + 5
        return self.forcefield.queue(atoms, GenericCell(H))

    def answer(self, request):
        """Its forces (hartree/bohr)."""
        assert request._event_done.wait(LIMIT), "held up"
        self.forcefield.release(request)
        return request["result"][1]

    def ask(self, times=1):
        """Ask one after the other; every answer is the one and only right one."""
        for _ in range(times):
            request = self.queue()
            assert np.array_equal(self.answer(request), right(request))


def right(request):
    x = request["pos"].reshape(-1, 3) / units.ANGSTROM
    forces = springs(x, H.T / units.ANGSTROM, 0.3).forces
    return (forces * units.EV_PER_ANGSTROM).ravel()


@pytest.fixture
def hurried(monkeypatch):
    """Limits that tests can wait for."""
    monkeypatch.setattr(drivers, "SILENCE", 2.0)  # the honest client must keep to it
    monkeypatch.setattr(greeting, "GREETING", 0.4)


# --- attacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, None], ids=["secret", "open"])
@pytest.mark.parametrize("attack", strangers.attacks(N))
def test_nobody_holds_a_run_up(attack, secret, hurried):
    """Strangers come first, so that without a secret they get work; the run goes on, and none of
    their numbers enters.  Who sends a legal reply in time is beyond this: see the docs."""
    with Office(secret, timeout=1.0) as office:
        stranger = multiprocessing.get_context("fork").Process(
            target=strangers.attacks(N)[attack], args=(office.port,), daemon=True
        )
        stranger.start()
        try:
            first = office.queue()
            time.sleep(0.3)
            served = office.client(secret)
            assert np.array_equal(office.answer(first), right(first))
            office.ask(20)
            assert stranger.is_alive()
        finally:
            stranger.kill()
            stranger.join()
    assert served().reason.startswith("EXIT")


def test_who_does_not_read_changes_no_time_out(hurried, monkeypatch, caplog):
    """7 MB to a peer that reads nothing; i-PI would double its time-out for all others."""
    monkeypatch.setattr(drivers, "PACE", 1e8)
    before = sockets.TIMEOUT
    many = 300_000  # more than the kernel buffers

    def zeros(x, h, lam):
        return Evaluation(0.0, np.zeros((many, 3)), np.zeros((3, 3)), 0.0)

    with Office(None, atoms=many, timeout=LIMIT) as office, socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        deaf.connect(("127.0.0.1", office.port))
        deaf.sendall(header("READY"))
        request = office.queue()
        time.sleep(0.3)
        office.client(None, n_atoms=many, evaluate=zeros)
        assert not office.answer(request).any()
    assert before == sockets.TIMEOUT


def test_a_client_that_left_or_stands_still_is_replaced(hurried, caplog):
    """INIT and the question after it are answered at once, or its work goes to another one."""
    with Office(None, timeout=LIMIT) as office, socket.socket() as still:
        still.connect(("127.0.0.1", office.port))
        still.sendall(header("NEEDINIT"))
        request = office.queue()
        assert b"POSDATA" in still.recv(1 << 16) + still.recv(1 << 16)
        office.client(None)
        assert np.array_equal(office.answer(request), right(request))
    assert "client process 0 hung" in caplog.text


# --- the secret ---------------------------------------------------------------------------------


def test_a_client_with_another_secret_or_none_says_so():
    with Office() as office:
        with pytest.raises(InputError, match="has another secret"):
            office.client(SECRET[::-1])()
        with pytest.raises(InputError, match="asks for its run's secret"):
            office.client(None)()
        office.client()
        office.ask(3)


def in_forces(data):
    """A bit of the first force, where a reply begins."""
    at = data.find(header("FORCEREADY"))
    return data if at < 0 else flipped(data, at + 26)


def in_positions(data):
    at = data.find(header("POSDATA"))
    return data if at < 0 else flipped(data, at + 12 + 144 + 4 + 6)


def in_lambda(data):
    return data.replace(b"lambda : 0.3", b"lambda : 0.4")


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("secret", [SECRET, None], ids=["secret", "open"])
@pytest.mark.parametrize(
    ("way", "change"),
    [("to_server", in_forces), ("to_client", in_positions), ("to_client", in_lambda)],
)
def test_what_is_changed_on_the_way_never_enters(way, change, secret, caplog):
    """Once, in a conversation that is going on.  Without a secret the wrong numbers are taken."""
    with Office(secret, timeout=LIMIT) as office:
        between = strangers.Middleman(office.port)
        office.client(secret, Address.tcp("127.0.0.1", between.port))
        office.ask(3)
        changed = threading.Event()

        def once(data):
            if changed.is_set() or change(data) == data:
                return data
            changed.set()
            return change(data)

        setattr(between, way, once)
        request = office.queue()
        taken = office.answer(request)
        assert changed.is_set()
        assert np.array_equal(taken, right(request)) == (secret is not None)
        assert ("without the right MAC" in caplog.text) == (secret is not None)
        between.close()


@pytest.mark.parametrize("secret", [SECRET, None], ids=["secret", "open"])
def test_a_replayed_reply_never_enters(secret, caplog):
    """The whole answer to an earlier request, MAC included, instead of that to the next one."""
    with Office(secret, timeout=LIMIT) as office:
        between = strangers.Middleman(office.port)
        office.client(secret, Address.tcp("127.0.0.1", between.port))
        office.ask(3)
        recorded = []

        def replay(data):
            begin = data.find(header("FORCEREADY"))
            if begin < 0:
                return data
            end = data.rfind(header("NEEDINIT")) if data.endswith(header("NEEDINIT")) else None
            recorded.append(data[begin:end])
            new = recorded[0] if len(recorded) == 2 else recorded[-1]
            return data[:begin] + new + (data[end:] if end else b"")

        between.to_server = replay
        office.ask()
        request = office.queue()
        taken = office.answer(request)
        assert len(recorded) >= 2
        assert np.array_equal(taken, right(request)) == (secret is not None)
        assert ("without the right MAC" in caplog.text) == (secret is not None)
        between.close()


def test_a_recorded_conversation_opens_no_door(hurried, caplog):
    """All that a client once said, said again: the nonce is another one."""
    said = []
    with Office() as office:
        between = strangers.Middleman(office.port)
        between.to_server = lambda data: said.append(data) or data
        served = office.client(address=Address.tcp("127.0.0.1", between.port))
        office.ask(2)
        between.close()
        with socket.create_connection(("127.0.0.1", office.port), timeout=LIMIT) as thief:
            thief.recv(44)
            thief.sendall(b"".join(said))
            assert thief.recv(12) == header("REFUSED")
        office.ask(2)
    assert served().reason == "EXIT"
    assert "does not know the run's secret" in caplog.text


# --- ways to connect ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("mode", ["inet", "unix", "shm"])
def test_every_way_gives_the_same_numbers(mode, batch, monkeypatch):
    """Batches are filled up by i-PI, and have one MAC."""
    # both ends of the shared memory are in one process here, which keeps one list of segments
    one_list = SimpleNamespace(unregister=lambda *segment: None)
    monkeypatch.setattr(shared_memory, "resource_tracker", one_list)
    path = f"/tmp/alchemdriver-port-{os.getpid()}-{mode}"
    options = {} if mode == "inet" else {"path": path, "mode": mode}
    secret = SECRET if mode == "inet" else None
    with Office(secret, batch_size=batch, timeout=LIMIT, **options) as office:
        if secret is None:
            assert Path(options["path"]).stat().st_mode & 0o777 == 0o600
        office.client(secret)
        for _ in range(3):
            requests = [office.queue() for _ in range(4)]
            for request in requests:
                assert np.array_equal(office.answer(request), right(request))


# --- stock clients ------------------------------------------------------------------------------


def test_a_stock_client_serves_where_any_may():
    """ASE's, which knows nothing of us, and takes one message after the other as they stand in the
    stream."""
    from ase import Atoms as AseAtoms
    from ase.calculators.emt import EMT
    from ase.calculators.socketio import SocketClient

    symbols = "Cu4"
    with Office(None, timeout=LIMIT) as office:

        def work():
            there = AseAtoms(symbols, positions=np.eye(4, 3), cell=CELL, pbc=True, calculator=EMT())
            client = SocketClient(host="127.0.0.1", port=office.port)
            client.run(there, use_stress=True)

        done = in_thread(work)
        for _ in range(3):
            request = office.queue()
            found = office.answer(request)
            x = request["pos"].reshape(-1, 3) / units.ANGSTROM
            here = AseAtoms(symbols, positions=x, cell=CELL, pbc=True, calculator=EMT())
            expected = here.get_forces() * units.EV_PER_ANGSTROM
            assert found == pytest.approx(expected.ravel(), rel=1e-6, abs=1e-9)
    done()


# --- details ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_reply_is_whole_with_its_last_byte_and_not_before(batch, shared):
    from alchemdriver.client.wire import Reply, encode_forces, encode_shared

    sent = [Reply(1.0, np.ones((N, 3)), np.eye(3), b"x" * k) for k in range(batch)]
    data = (encode_shared if shared else encode_forces)(sent)
    for length in range(len(data)):
        due, whole = frame(data[:length], N, batch, shared, 100)
        assert length < due <= len(data)
        assert not whole
    assert frame(data + b"more", N, batch, shared, 100) == (len(data), True)


@pytest.mark.parametrize("extras", [-1, 101, 2**31 - 1])
def test_extras_are_refused_by_their_length(extras):
    with pytest.raises(Dropped, match=f"announced {extras} bytes of extras, expected at most 100"):
        frame(strangers.reply_head(N, extras), N, 1, False, 100)


def test_another_number_of_atoms_is_refused_by_it():
    with pytest.raises(Dropped, match="forces for 5 atoms, expected 4"):
        frame(strangers.reply_head(5, 0)[:24], N, 1, False, 100)


def test_complaints_do_not_fill_the_disk(caplog):
    complaints = Complaints()
    for k in range(10_000):
        complaints.add("nonsense", f"nonsense number {k}")
    assert len(caplog.messages) < 40
    assert "nonsense number 8191 (8192 times so far)" in caplog.text


def test_segments_of_two_clients_have_different_names():
    """i-PI names them by a file descriptor that a second client may get again."""
    names = set()
    for _ in range(2):
        near, far = socket.socketpair()
        with near, far:
            common = drivers.Common(Complaints(), 4, 1, None)
            driver = drivers.NonBlockingSHMDriver(Greeted(near, True, None), common)
            names.add(driver._shm_prefix)
            driver.close()
    assert len(names) == 2


def test_a_batch_with_two_lambdas_is_refused():
    near, far = socket.socketpair()
    with near, far:
        common = drivers.Common(Complaints(), 4, 2, None)
        driver = drivers.NonBlockingDriver(Greeted(near, True, None), common)
        with driver, pytest.raises(RunError, match="different parameters"):
            driver.dispatch_send_batch([{"pars": "lambda : 0.1"}, {"pars": "lambda : 0.2"}])
