"""Connections are taken and greeted in a thread of their own.

A connection comes further only when it has proved the run's secret, where there is one, and has
answered i-PI's question about its status.  Until then it costs a file descriptor and at most
88 bytes, and no one waits for it.
"""

from __future__ import annotations

import hmac
import logging
import queue
import secrets
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from ..contract.secret import CHALLENGE, MAC, NONCE, PROOF, REFUSED, Session
from .replies import HEADER

log = logging.getLogger(__name__)

GREETING = 10.0  # s that all of it may take
PENDING = 64  # connections that are greeted at a time, or wait for i-PI to take them in
BACKLOG = 128  # connections that the kernel keeps until they are taken
_BREATH = 0.002  # s between connections: whoever knocks must not have the processor to himself
_GLANCE = 0.1  # s between looks at the clock
_SPOKEN = 20  # lines of one kind that are logged one by one
_PROOF_SIZE = HEADER + NONCE + MAC

STATUS, READY, NEEDINIT = (name.ljust(HEADER) for name in (b"STATUS", b"READY", b"NEEDINIT"))
NONSENSE = "it was asked for its status and said something else"
UNPROVED = "it left when asked for the run's secret (for stock i-PI clients: 'clients: any')"


class Complaints:
    """The log of dropped clients, which must not fill the disk: of each kind the first few, then
    the 32nd, the 64th, and so on."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, kind: str, detail: str = "") -> None:
        with self._lock:
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= _SPOKEN:
            log.error("client dropped: %s", detail or kind)
        elif count & (count - 1) == 0:
            log.error("client dropped: %s (%d times so far)", detail or kind, count)


@dataclass(frozen=True)
class Greeted:
    """A connection that speaks the protocol."""

    sock: socket.socket  # non-blocking
    needs_init: bool  # or is ready as it is
    session: Session | None  # None: it was asked for no secret


@dataclass(eq=False)
class _Pending:
    sock: socket.socket
    nonce: bytes  # what it was challenged with; empty: not at all
    deadline: float
    session: Session | None = None
    heard: bytearray = field(default_factory=bytearray)

    def say(self, words: bytes) -> None:
        """A few bytes into an empty buffer: OSError where even they do not fit."""
        if self.sock.send(words) != len(words):
            raise BlockingIOError
        if self.session is not None:
            self.session.said(words)


class Greeter(threading.Thread):
    """Greets whoever connects to *listener*; :attr:`greeted` has those that may come in."""

    def __init__(self, listener: socket.socket, secret: bytes | None, complaints: Complaints):
        super().__init__(name="greeter", daemon=True)
        self.greeted: queue.SimpleQueue[Greeted] = queue.SimpleQueue()
        self._listener, self._secret, self._complaints = listener, secret, complaints
        self._selector = selectors.DefaultSelector()
        self._pending: list[_Pending] = []  # the one that waits longest first
        self._closing = threading.Event()

    def close(self) -> None:
        """Greet no more; the listener itself stays open."""
        self._closing.set()
        self.join()

    def run(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while not self._closing.is_set():
            try:
                self._look()
            except Exception:  # a bug of ours must not end the thread
                log.exception("the socket server failed to greet")
                time.sleep(_GLANCE)
        for pending in list(self._pending):
            self._dismiss(pending)
        self._selector.close()

    def _look(self) -> None:
        for key, _ in self._selector.select(_GLANCE):
            if key.data is None:
                self._accept()
            elif key.data in self._pending:
                self._listen(key.data)
        now = time.monotonic()
        while self._pending and self._pending[0].deadline < now:
            self._dismiss(self._pending[0], f"it did not answer within {GREETING:g} s")

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # out of file descriptors, say
            if self._pending:
                self._dismiss(secrets.choice(self._pending), "too many connections")
            time.sleep(_GLANCE)
            return
        sock.setblocking(False)
        nonce = secrets.token_bytes(NONCE) if self._secret is not None else b""
        pending = _Pending(sock, nonce, time.monotonic() + GREETING)
        self._pending.append(pending)
        self._selector.register(sock, selectors.EVENT_READ, pending)
        try:
            pending.say(CHALLENGE + nonce if nonce else STATUS)
        except OSError:
            self._dismiss(pending)
        if len(self._pending) > PENDING:  # by lot: the oldest may be the one that is far away
            self._dismiss(secrets.choice(self._pending), "too many connections")
        time.sleep(_BREATH)

    def _listen(self, pending: _Pending) -> None:
        proving = bool(pending.nonce) and pending.session is None
        try:
            data = pending.sock.recv((_PROOF_SIZE if proving else HEADER) - len(pending.heard))
            if not data:
                self._dismiss(pending, UNPROVED if proving else None)
                return
            pending.heard += data
            if proving and len(pending.heard) == _PROOF_SIZE:
                self._judge(pending)
            elif not proving and len(pending.heard) == HEADER:
                self._admit(pending)
        except BlockingIOError:
            return
        except OSError:  # it is gone
            self._dismiss(pending)

    def _judge(self, pending: _Pending) -> None:
        assert self._secret is not None
        words, pending.heard = bytes(pending.heard), bytearray()
        session = Session(self._secret, pending.nonce, words[HEADER : HEADER + NONCE])
        right = hmac.compare_digest(session.proof, words[HEADER + NONCE :])
        if not right or not words.startswith(PROOF):
            pending.say(REFUSED)
            self._dismiss(pending, "it does not know the run's secret")
            return
        pending.session = session
        pending.say(STATUS)

    def _admit(self, pending: _Pending) -> None:
        if pending.heard not in (READY, NEEDINIT):
            self._dismiss(pending, NONSENSE)
            return
        if self.greeted.qsize() >= PENDING:  # i-PI takes them when it has work
            self._dismiss(pending, "too many connections")
            return
        self._forget(pending)
        self.greeted.put(Greeted(pending.sock, pending.heard == NEEDINIT, pending.session))

    def _dismiss(self, pending: _Pending, why: str | None = None) -> None:
        """Hang up; *why* is logged, a connection that just left is not."""
        if pending not in self._pending:
            return
        self._forget(pending)
        pending.sock.close()
        if why is not None:
            self._complaints.add(why)

    def _forget(self, pending: _Pending) -> None:
        self._pending.remove(pending)
        self._selector.unregister(pending.sock)
