"""i-PI's end of a connection, which never waits for the other one.

i-PI's own classes build the messages and take replies apart.  Underneath, these subclasses put what
is sent into an outbox, and hand over what was received when a reply is whole: no read or write
blocks, and no silence changes i-PI's time-outs.  A request goes out in one piece::

    [INIT] [STATUS]  POSDATA GETFORCE STATUS

and in comes READY (after INIT), the reply with its MAC (where there is a secret) and the next
status.  That is what i-PI asks as well, without its pauses.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ipi.interfaces.sockets import HDRLEN, MESSAGE, Disconnected, Driver, SHMDriver, Status

from ..contract.secret import MAC
from ..errors import RunError
from .clock import LambdaClock
from .greeting import NONSENSE, Complaints, Greeted
from .ipi_types import Reply, Request
from .replies import Dropped, check_reply, frame, most_extras

log = logging.getLogger(__name__)

SILENCE = 10.0  # s that a client may take to answer a question about its status
PACE = 1e5  # bytes/s that a message has to have beyond that
_CHUNK = 1 << 18  # bytes per read
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def patience(size: int) -> float:
    """Seconds that a message of *size* bytes may take from its first byte to its last."""
    return SILENCE + size / PACE


def peer_pid(sock: socket.socket) -> int:
    """Process at the other end of a unix socket; 0 where the kernel does not say (TCP)."""
    if sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return 0
    try:
        sent = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:  # closed meanwhile
        return 0
    return int(_CREDENTIALS.unpack(sent)[0])


@dataclass(frozen=True)
class Common:
    """What all connections of one forcefield have in common."""

    complaints: Complaints
    keys: int  # extras that the input prints or interpolates
    batch_size: int
    clock: LambdaClock | None  # None: not the alchemical forcefield


class _NonBlocking:
    """Goes in front of i-PI's driver classes.  Everything here runs in i-PI's polling thread."""

    shared = False  # numbers in shared memory

    def __init__(self, greeted: Greeted, common: Common):
        super().__init__(greeted.sock)  # type: ignore[call-arg]
        self.common = common
        self.batch_size = common.batch_size
        self.session = greeted.session
        self.process = peer_pid(greeted.sock)
        self.status: int = Status.Up | (Status.NeedsInit if greeted.needs_init else Status.Ready)
        self.inbox, self.outbox = bytearray(), bytearray()
        self.n_atoms = 0  # of the request that is out
        self._away = False  # a request is out
        self._asked = False  # READY is due
        self._length: int | None = None  # of the reply, when it is whole and proved
        self._due = 0  # bytes of the reply that are known to come
        self._sent_at = 0.0  # when the request began to go out, s
        self._out = 0  # its bytes
        self._answer_at: float | None = None  # when the reply began to come, s

    # -- what i-PI's classes send and receive by ---------------------------------------------------

    def sendall(self, data: bytes, flags: int = 0) -> None:
        if self.session is not None:
            self.session.said(data)
        self.outbox += data

    def send_msg(self, msg: str) -> None:
        self.sendall(MESSAGE[msg])
        self.flush()

    def recv(self, size: int, flags: int = 0) -> bytes:
        data = bytes(self.inbox[:size])
        del self.inbox[:size]
        return data

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        data = self.recv(size)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    # -- bytes -------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what the kernel takes.  OSError if the client is gone."""
        while self.outbox:
            try:
                sent = socket.socket.send(self, self.outbox)  # type: ignore[arg-type]
            except BlockingIOError:
                return
            del self.outbox[:sent]

    def take_in(self) -> None:
        """Receive what is there.  Dropped if it is not what is due."""
        try:
            data = socket.socket.recv(self, _CHUNK)  # type: ignore[arg-type]
        except BlockingIOError:
            return
        if not data:
            raise Dropped("")  # it left, which is no offence
        if not self._away:
            raise Dropped("it spoke without being asked")
        self.inbox += data
        if self._asked and len(self.inbox) >= HDRLEN:
            if self.recv(HDRLEN) != MESSAGE["ready"]:
                raise Dropped(NONSENSE)
            self._asked = False
        if not self._asked and self.inbox:
            self._follow_reply()

    def _follow_reply(self) -> None:
        if self._answer_at is None:
            self._answer_at = time.monotonic()
        if self._length is not None:
            return
        most = most_extras(self.n_atoms, self.common.keys)
        self._due, whole = frame(self.inbox, self.n_atoms, self.batch_size, self.shared, most)
        if self.session is None:
            self._length = self._due if whole else None
        elif whole and len(self.inbox) >= self._due + MAC:
            end = self._due + MAC
            mac = self.session.mac(bytes(self.inbox[: self._due]))
            if not hmac.compare_digest(mac, self.inbox[self._due : end]):
                raise Dropped("a reply without the right MAC: forged, replayed or damaged")
            del self.inbox[self._due : end]
            self.session.said(MESSAGE["status"])
            self._length = self._due

    @property
    def answered(self) -> bool:
        """Whether the reply and the status after it are there."""
        return self._length is not None and len(self.inbox) >= self._length + HDRLEN

    def overdue(self, now: float) -> str | None:
        """What took too long at *now* (time.monotonic), if anything; evaluating is not counted."""
        if self.outbox and now > self._sent_at + patience(self._out):
            return "it did not read what it was sent"
        if self._answer_at is not None and now > self._answer_at + patience(self._due):
            return "its reply came too slowly"
        return None

    def hangs(self, now: float) -> bool:
        """Whether a question about its status is open for too long."""
        return self._asked and not self.outbox and now > self._sent_at + patience(self._out)

    # -- requests, by i-PI's own methods -----------------------------------------------------------

    def initialize(self, request: int, parameters: str) -> None:
        """Also tells the client that λ follows i-PI's step; stock i-pi cannot say this, so an input
        with a schedule is refused there."""
        if self.common.clock is not None:
            parameters = parameters.rstrip(" ,") + " , clock : alchemdriver"
        super().initialize(request, parameters)  # type: ignore[misc]
        self.sendall(MESSAGE["status"])
        self._asked = True
        self.status = Status.Up | Status.Ready  # or it is dropped

    def get_status(self) -> int:
        """What it last said of itself, the word after its reply included."""
        if self.inbox:
            word = self.recv(HDRLEN)
            self.status = {
                MESSAGE["ready"]: Status.Up | Status.Ready,
                MESSAGE["needinit"]: Status.Up | Status.NeedsInit,
            }.get(word, Status.Disconnected)
            if not self.status or self.inbox:
                self.status = Status.Disconnected
                self.common.complaints.add(NONSENSE)
        return self.status

    def dispatch_send(self, request: Request) -> bool:
        return self._send_off([request], super().dispatch_send, request)  # type: ignore[misc]

    def dispatch_send_batch(self, requests: list[Request]) -> bool:
        """RunError for a batch with several λ: only the first one's parameters travel with it."""
        if len({request["pars"] for request in requests}) > 1:
            raise RunError("structures of one batch ask for different parameters: no batch")
        return self._send_off(requests, super().dispatch_send_batch, requests)  # type: ignore[misc]

    def _send_off(self, requests: list[Request], stock: Callable[..., bool], *args: Any) -> bool:
        self.n_atoms = len(requests[0]["active"]) // 3
        if not stock(*args):
            return False
        self.outbox += MESSAGE["status"]  # the session hears it after the reply: so does the client
        self._away, self._length, self._answer_at, self._due = True, None, None, 0
        self._sent_at, self._out = time.monotonic(), len(self.outbox)
        with suppress(OSError):  # a client that is gone is noticed when it is read
            self.flush()
        return True

    def _recv_forces_bulk(self, natoms: int) -> Reply:
        stock = super()._recv_forces_bulk  # type: ignore[misc]
        return self._checked(lambda: [stock(natoms)])[0]

    def _recv_forces_bulk_batch(self, natoms: int, real: int) -> list[Reply]:
        stock = super()._recv_forces_bulk_batch  # type: ignore[misc]
        return self._checked(lambda: stock(natoms, real))

    def _checked(self, read: Callable[[], list[Reply]]) -> list[Reply]:
        """What *read* returns, or i-PI's Disconnected, which hands the work to another client."""
        self._away = False
        try:
            replies = read()
            wrong = self._wrong_with(replies)
        except Disconnected:
            raise
        except Exception as err:
            # Whatever a client's bytes lead to (extras that are a JSON list, say, or broken UTF-8)
            # i-PI would let end its polling thread, and wait forever.
            kind = "broken reply"
            wrong = f"{kind} ({' '.join(str(err).split())[:200] or type(err).__name__})"
        if wrong:
            self.common.complaints.add("a reply that cannot be", wrong)
            raise Disconnected() from None
        return replies

    def _wrong_with(self, replies: list[Reply]) -> str | None:
        clock = self.common.clock
        if clock is None:
            return None
        # Only clients of this package know the secret, and they always say λ.
        says_lambda = clock.run.schedule is not None or self.session is not None
        found = (
            check_reply(reply, clock.lam, len(clock.run.structure), says_lambda)
            for reply in replies
        )
        return next(filter(None, found), None)


class NonBlockingDriver(_NonBlocking, Driver):  # type: ignore[misc]
    """One client, by its socket."""


class NonBlockingSHMDriver(_NonBlocking, SHMDriver):  # type: ignore[misc]
    """One client, numbers in shared memory."""

    shared = True

    def __init__(self, greeted: Greeted, common: Common):
        super().__init__(greeted, common)
        # i-PI names segments by a file descriptor that the next client may get again while the
        # first one still opens its own: it would read another one's positions.
        self._shm_prefix += f"{secrets.token_hex(4)}_"

    def _free_shm(self) -> None:
        self._view.clear()  # or they cannot be closed, and i-PI leaves them behind
        super()._free_shm()
