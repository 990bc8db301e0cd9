"""i-PI's end of the sockets, guarded: what a client may send, and how long it may take.

i-PI marks a request done before anything above sees the result, and some broken replies end its
polling thread.  While :func:`checked_drivers` is active, its driver classes pass every reply
through :func:`check_reply`; a bad one counts as a disconnect, so that i-PI hands the work to
another client.  Clients that hang are logged by process id for the supervisor, which finds them
with :func:`hung_processes`.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate

import numpy as np

from ..errors import RunError
from .clock import LambdaClock
from .ipi_types import Driver, Interface, Reply, Request

log = logging.getLogger(__name__)

SILENCE = 10.0  # s that a client may take to answer a question about its status
_HUNG = "client process %d hung: no answer within %g s, its work is handed on"
_HUNG_LINE = re.compile(rb"client process (\d+) hung")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def check_reply(result: Reply, lam: float, natoms: int, needs_gradient: bool) -> str | None:
    """What is wrong with a client's [energy, forces, virial, extras]; None if nothing.

    i-PI marks a request done, NaN included, before anything above sees it; this is the gate.
    """
    energy, forces, virial, extras = result
    if len(forces) != 3 * natoms:
        return f"forces for {len(forces) // 3} atoms, expected {natoms}"
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(virial).all()):
        return "energy, forces or virial are not finite"
    if not needs_gradient:
        return None
    for key in ("lambda", "dHdlambda"):
        if not isinstance(extras.get(key), (int, float)) or not np.isfinite(extras[key]):
            return f"extras without a finite '{key}': is this an alchemdriver client?"
    if extras["lambda"] != lam:  # λ travels as repr(float) both ways: the echo is exact
        return f"answered for lambda = {extras['lambda']!r}, asked for {lam!r}"
    return None


def peer_pid(driver: Driver) -> int:
    """Process at the other end of a unix socket; 0 where the kernel does not say (TCP)."""
    if driver.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return 0
    try:
        sent = driver.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:  # closed meanwhile
        return 0
    return int(_CREDENTIALS.unpack(sent)[0])


def hung_processes(lines: bytes) -> set[int]:
    """The process ids of clients that hang, by what a server has logged."""
    return {int(pid) for pid in _HUNG_LINE.findall(lines)}


# --- replacing parts of i-PI --------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """*replacement* in the place of attribute *name* of *owner*, a class or module of i-PI."""

    owner: Any
    name: str
    replacement: Any


def around(owner: type, name: str, method: Callable[Concatenate[Any, ...], Any]) -> Patch:
    """*method*(stock, self, \\*args) in the place of *owner*'s method *name*, which is *stock*."""
    stock = vars(owner)[name]

    def replacement(self: Any, *args: Any) -> Any:
        return method(stock, self, *args)

    return Patch(owner, name, replacement)


@contextmanager
def applied(patches: list[Patch]) -> Iterator[None]:
    """While active, *patches* are in place; afterwards all is as it was."""
    stock = [vars(patch.owner)[patch.name] for patch in patches]
    try:
        for patch in patches:
            setattr(patch.owner, patch.name, patch.replacement)
        yield
    finally:
        for patch, original in zip(patches, stock, strict=True):
            setattr(patch.owner, patch.name, original)


@contextmanager
def checked_drivers(clock: LambdaClock) -> Iterator[None]:
    """While active, i-PI's driver sockets announce *clock* and refuse bad replies.

    A reply that fails :func:`check_reply` is treated as a disconnect: i-PI drops the client and
    hands the work to another one.  No client is served before *clock* is attached to a simulation.
    """
    from ipi.interfaces import sockets

    guard = Guard(clock)
    table = [
        Patch(sockets, "SELECTTIMEOUT", min(sockets.SELECTTIMEOUT, SILENCE)),
        around(sockets.Driver, "initialize", guard.initialize),
        around(sockets.Driver, "get_status", guard.get_status),
        around(sockets.InterfaceSocket, "_requeue_disconnected", guard.requeue),
        around(sockets.SHMDriver, "__init__", own_segments),
        around(sockets.SHMDriver, "_free_shm", free_segments),
    ]
    for driver in (sockets.Driver, sockets.SHMDriver):
        table += [
            around(driver, "_recv_force_data", guard.receive),
            around(driver, "_recv_forces_bulk", guard.receive),
            around(driver, "_recv_forces_bulk_batch", guard.receive_batch),
            around(driver, "dispatch_send_batch", send_one_lambda),
        ]
    with applied(table):
        yield


class Guard:
    """What takes the place of i-PI's methods: each has the stock one and its object in front."""

    def __init__(self, clock: LambdaClock):
        self.clock = clock

    def serves(self, driver: Driver) -> bool:
        """Whether *driver* serves the alchemical forcefield; others are none of our business."""
        return driver in self.clock.forcefield.socket.clients

    def initialize(
        self, stock: Callable[..., None], driver: Driver, request: int, parameters: str
    ) -> None:
        """Tell the client that λ follows i-PI's step; stock i-pi cannot say this, so an input with
        a schedule is refused there."""
        if self.serves(driver):
            parameters = parameters.rstrip(" ,") + " , clock : alchemdriver"
        stock(driver, request, parameters)

    def get_status(self, stock: Callable[..., int], driver: Driver) -> int:
        """A client is Ready or NeedsInit when asked, or it is none: i-PI would keep one that talks
        nonsense, ask it again without a pause, and fill the disk with warnings."""
        from ipi.interfaces.sockets import Status

        if not hasattr(driver, "process"):
            driver.process = peer_pid(driver)  # a closed socket does not tell any more
        idle = Status.Ready | Status.NeedsInit
        if not self.clock.forcefield.socket.consolidate_messages:
            status, sensible = stock(driver), idle | Status.HasData
        else:
            # A client is only asked when it has nothing to compute; i-PI would wait for a silent
            # one forever, and serve nobody else meanwhile.
            status, sensible = Status.Busy, idle
            deadline = time.monotonic() + SILENCE
            while status & Status.Busy and time.monotonic() < deadline:
                status = driver._getstatus()
        if status & Status.Busy:
            log.error(_HUNG, driver.process, SILENCE)
            status = Status.Disconnected
        elif status & Status.Up and not status & sensible:
            log.error("client dropped: it was asked for its status and said something else")
            status = Status.Disconnected
        driver.status = status
        return status

    def receive(self, stock: Callable[..., Reply], driver: Driver, *args: Any) -> Reply:
        """One reply, or i-PI's Disconnected."""
        return self._checked(driver, lambda: [stock(driver, *args)])[0]

    def receive_batch(
        self, stock: Callable[..., list[Reply]], driver: Driver, *args: Any
    ) -> list[Reply]:
        """The replies to a batch, or i-PI's Disconnected."""
        return self._checked(driver, lambda: stock(driver, *args))

    def _checked(self, driver: Driver, read: Callable[[], list[Reply]]) -> list[Reply]:
        from ipi.interfaces.sockets import Disconnected

        replies: list[Reply] = []
        try:
            replies = read()
            wrong = self._wrong_with(driver, replies)
        except Disconnected:
            raise
        except Exception as err:
            # Whatever a client's bytes lead to (extras that are a JSON list, say, or broken UTF-8)
            # i-PI would let end its polling thread, and wait forever.
            wrong = f"broken reply ({' '.join(str(err).split()) or type(err).__name__})"
        if wrong:
            log.error("client dropped: %s", wrong)
            raise Disconnected() from None
        return replies

    def _wrong_with(self, driver: Driver, replies: list[Reply]) -> str | None:
        if not self.serves(driver):
            return None
        run, lam = self.clock.run, self.clock.lam
        found = (
            check_reply(reply, lam, len(run.structure), run.schedule is not None)
            for reply in replies
        )
        return next(filter(None, found), None)

    def requeue(
        self,
        stock: Callable[..., None],
        interface: Interface,
        requests: Request | list[Request],
        driver: Driver,
    ) -> None:
        """Name the client whose time is over before its work goes to another one."""
        started = (requests[0] if isinstance(requests, list) else requests)["start"]
        if 0 < interface.timeout < time.time() - started < time.time():
            log.error(_HUNG, driver.process, interface.timeout)
        stock(interface, requests, driver)


def send_one_lambda(stock: Callable[..., bool], driver: Driver, requests: list[Request]) -> bool:
    """RunError for a batch with several λ: only the first request's parameters travel with it."""
    if len({request["pars"] for request in requests}) > 1:
        raise RunError("structures of one batch ask for different parameters: no batch")
    return stock(driver, requests)


def own_segments(stock: Callable[..., None], driver: Driver, sock: socket.socket) -> None:
    """Names of shared memory that no other client gets.

    i-PI names segments by a file descriptor that the next client may get again while the first one
    still opens its own: it would read another one's positions.
    """
    stock(driver, sock)
    driver._shm_prefix += f"{secrets.token_hex(4)}_"


def free_segments(stock: Callable[..., None], driver: Driver) -> None:
    driver._view.clear()  # or they cannot be closed, and i-PI leaves them behind
    stock(driver)
