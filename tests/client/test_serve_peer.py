"""The socket loop against a server of our own, for what i-PI does rarely, and against rude ones."""

import socket
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from helpers.sockets import (
    CELL,
    LIMIT,
    OPTIONS,
    N,
    Peer,
    header,
    in_thread,
    read_reply,
    request,
    springs,
)

from alchemdriver import units
from alchemdriver.client.serve import Served, serve
from alchemdriver.errors import InputError, RunError, WireError
from alchemdriver.records import Evaluation


def test_wrong_atom_count(where):
    with Peer(where / "s") as peer:
        result = in_thread(serve, peer.address, **(OPTIONS | {"n_atoms": 5}))
        peer.accept()
        peer.send(request())
        with pytest.raises(WireError, match="expected 5 atoms, i-PI announces 4"):
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
    ("key", "error"), [("raw", WireError), ("lambda", RunError), ("dHdlambda", RunError)]
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
