"""Connecting: nobody there, somebody late, addresses that cannot work."""

import logging
import socket
import time

import pytest
from helpers.sockets import LIMIT, Peer, free_port, in_thread

from alchemdriver.client.serve import connect
from alchemdriver.contract.address import Address
from alchemdriver.errors import InputError, RunError


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
