"""Strangers on a run's TCP port, each of whom goes on for ever, and a man in the middle."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from helpers.sockets import header

HOST = "127.0.0.1"


def reply_head(atoms: int, extras: int) -> bytes:
    """A reply of zeros up to the length of its extras."""
    count, length = struct.pack("=i", atoms), struct.pack("=i", extras)
    return header("FORCEREADY") + bytes(8) + count + bytes(24 * atoms + 72) + length


def drips_extras(s: socket.socket, atoms: int) -> None:
    """Says that 2 GB will come, and sends a byte now and then."""
    s.sendall(header("READY") + reply_head(atoms, 2**31 - 1))
    while True:
        s.sendall(b" ")
        time.sleep(0.05)


def drips_reply(s: socket.socket, atoms: int) -> None:
    """Takes work like anybody and answers it byte by byte."""
    s.sendall(header("READY"))
    while b"GETFORCE" not in s.recv(1 << 16):
        pass
    for byte in reply_head(atoms, 1000) + bytes(1000):
        s.sendall(bytes([byte]))
        time.sleep(0.05)


def sends_a_gigabyte(s: socket.socket, atoms: int) -> None:
    s.sendall(header("READY") + reply_head(atoms, 1_200_000_000))
    for _ in range(1200):
        s.sendall(b" " * 1_000_000)


def reads_nothing(s: socket.socket, atoms: int) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    s.sendall(header("READY"))
    time.sleep(3600)


def sends_garbage(s: socket.socket, atoms: int) -> None:
    s.sendall(secrets.token_bytes(4096))
    time.sleep(0.05)


def forges(s: socket.socket, atoms: int) -> None:
    """A guessed proof, and results that nobody computed."""
    s.sendall(header("PROOF") + secrets.token_bytes(64) + header("READY"))
    s.sendall(reply_head(atoms, 0) + secrets.token_bytes(32) + header("READY"))
    s.recv(4096)
    time.sleep(0.05)


def stays_silent(port: int, pause: float = 2.0) -> None:
    """A connection every two seconds that says nothing."""
    held = []
    while True:
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((HOST, port), timeout=60))
        time.sleep(pause)


def greets_slowly(port: int) -> None:
    """A hundred connections that say a letter a second."""
    held: list[tuple[socket.socket, Iterator[int]]] = []
    while True:
        while len(held) < 100:
            held.append((socket.create_connection((HOST, port), timeout=60), iter(b"NEEDINIT    ")))
        for pair in held[:]:
            try:
                pair[0].sendall(bytes([next(pair[1])]))
            except (OSError, StopIteration):
                held.remove(pair)
        time.sleep(1)


def floods(port: int) -> None:
    """Connections as fast as they are taken."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            pass


def one_by_one(attack: Callable[[socket.socket, int], None], atoms: int) -> Callable[[int], None]:
    """*attack* on one connection after the other: a server that hangs up is no end."""

    def go_on(port: int) -> None:
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), 60) as s:
                attack(s, atoms)
            time.sleep(0.05)

    return go_on


def attacks(atoms: int) -> dict[str, Callable[[int], None]]:
    """name → what goes on for ever against a port, for a run of so many atoms."""
    return {
        "announces 2^31-1 bytes of extras, a byte per 50 ms": one_by_one(drips_extras, atoms),
        "a proper reply, a byte per 50 ms": one_by_one(drips_reply, atoms),
        "1.2 GB of extras": one_by_one(sends_a_gigabyte, atoms),
        "a silent connection every 2 s": stays_silent,
        "does not read": one_by_one(reads_nothing, atoms),
        "garbage": one_by_one(sends_garbage, atoms),
        "guessed proofs, forged replies": one_by_one(forges, atoms),
        "100 connections, a letter of the greeting per s": greets_slowly,
        "connections as fast as they are taken": floods,
    }


class Middleman:
    """Forwards one connection after the other to *port* of this machine; ``to_client`` and
    ``to_server`` may change what passes: bytes → bytes, called with whatever one read gave."""

    def __init__(self, port: int):
        self.far = port
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.to_client: Callable[[bytes], bytes] = bytes
        self.to_server: Callable[[bytes], bytes] = bytes
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection((HOST, self.far), timeout=30)
            except OSError:
                return
            for source, sink, name in ((far, near, "to_client"), (near, far, "to_server")):
                source.settimeout(None)
                threading.Thread(target=self._pump, args=(source, sink, name), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(getattr(self, name)(data))
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.close()
