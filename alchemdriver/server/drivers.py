"""i-PI's end of the sockets, guarded: what a client may send, and how long it may take.

i-PI marks a request done before anything above sees the result, and some broken replies end its
polling thread.  While :func:`checked_drivers` is active, its driver classes pass every reply
through :func:`check_reply`; a bad one counts as a disconnect, so that i-PI hands the work to
another client.  Clients that hang are logged by process id for the supervisor (``run.py``).
"""

from __future__ import annotations

import logging
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..errors import RunError

log = logging.getLogger(__name__)

SILENCE = 10.0  # s that a client may take to answer a question about its status
# What the supervisor looks for, to replace a local client that is alive and does nothing.
HUNG = "client process %d hung: no answer within %g s, its work is handed on"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def check_reply(result: list, lam: float, natoms: int, needs_gradient: bool) -> str | None:
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


def peer_pid(driver) -> int:
    """Process at the other end of a unix socket; 0 where the kernel does not say (TCP)."""
    if driver.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return 0
    try:
        return _CREDENTIALS.unpack(
            driver.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )[0]
    except OSError:  # closed meanwhile
        return 0


@contextmanager
def checked_drivers(clock: list) -> Iterator[None]:
    """While active, i-PI's driver sockets announce the clock and refuse bad replies.

    *clock* is a list that will hold the LambdaClock once i-PI has created the simulation.  A reply
    that fails :func:`check_reply` is treated as a disconnect: i-PI drops the client and hands the
    work to another one.
    """
    from ipi.interfaces import sockets

    def ours(driver) -> bool:
        """Whether *driver* serves the alchemical forcefield; others are none of our business."""
        return driver in clock[0].forcefield.socket.clients

    def wrong_with(driver, results: list) -> str | None:
        if not ours(driver):
            return None
        run = clock[0].run
        found = (
            check_reply(result, clock[0].lam, len(run.structure), run.schedule is not None)
            for result in results
        )
        return next(filter(None, found), None)

    def wrap(stock, *, batched: bool):
        def receive(driver, *args):
            try:
                reply = stock(driver, *args)
                wrong = wrong_with(driver, reply if batched else [reply])
            except sockets.Disconnected:
                raise
            except Exception as err:
                # Whatever a client's bytes lead to (extras that are a JSON list, say, or broken
                # UTF-8) i-PI would let end its polling thread, and wait forever.
                wrong = f"broken reply ({' '.join(str(err).split()) or type(err).__name__})"
            if wrong:
                log.error("client dropped: %s", wrong)
                raise sockets.Disconnected() from None
            return reply

        return receive

    def initialize(driver, rid, pars):
        # Tells the client that λ follows i-PI's step; stock i-pi cannot say this, so an input with
        # a schedule is refused there.
        if ours(driver):
            pars = pars.rstrip(" ,") + " , clock : alchemdriver"
        stock_initialize(driver, rid, pars)

    def get_status(driver):
        """A client is Ready or NeedsInit when asked, or it is none: i-PI would keep one that talks
        nonsense, ask it again without a pause, and fill the disk with warnings."""
        if not hasattr(driver, "process"):
            driver.process = peer_pid(driver)  # a closed socket does not tell any more
        if not clock[0].forcefield.socket.consolidate_messages:
            status, sensible = stock_get_status(driver), idle | sockets.Status.HasData
        else:
            # A client is only asked when it has nothing to compute; i-PI would wait for a silent
            # one forever, and serve nobody else meanwhile.
            status, sensible = sockets.Status.Busy, idle
            deadline = time.monotonic() + SILENCE
            while status & sockets.Status.Busy and time.monotonic() < deadline:
                status = driver._getstatus()
        if status & sockets.Status.Busy:
            log.error(HUNG, driver.process, SILENCE)
            status = sockets.Status.Disconnected
        elif status & sockets.Status.Up and not status & sensible:
            log.error("client dropped: it was asked for its status and said something else")
            status = sockets.Status.Disconnected
        driver.status = status
        return status

    def requeue(interface, requests, driver):
        started = (requests[0] if isinstance(requests, list) else requests)["start"]
        if 0 < interface.timeout < time.time() - started < time.time():
            log.error(HUNG, driver.process, interface.timeout)
        stock_requeue(interface, requests, driver)

    def one_lambda(stock):
        def send(driver, reqs):
            # Only the first request's parameters travel with a batch.
            if len({r["pars"] for r in reqs}) > 1:
                raise RunError("structures of one batch ask for different parameters: no batch")
            return stock(driver, reqs)

        return send

    def own_segments(driver, sock):
        # i-PI names them by a file descriptor that the next client may get again while the first
        # one still opens its own: it would read another one's positions.
        stock_shared(driver, sock)
        driver._shm_prefix += f"{secrets.token_hex(4)}_"

    def free_segments(driver):
        driver._view.clear()  # or they cannot be closed, and i-PI leaves them behind
        stock_free(driver)

    idle = sockets.Status.Ready | sockets.Status.NeedsInit
    stock_initialize = sockets.Driver.initialize
    stock_requeue = sockets.InterfaceSocket._requeue_disconnected
    stock_shared = sockets.SHMDriver.__init__
    stock_free = sockets.SHMDriver._free_shm
    stock_get_status = sockets.Driver.get_status
    replaced = [
        (sockets.Driver, "initialize", stock_initialize),
        (sockets.Driver, "get_status", stock_get_status),
        (sockets.InterfaceSocket, "_requeue_disconnected", stock_requeue),
        (sockets.SHMDriver, "__init__", stock_shared),
        (sockets.SHMDriver, "_free_shm", stock_free),
        (sockets, "SELECTTIMEOUT", sockets.SELECTTIMEOUT),
    ]
    sockets.Driver.initialize = initialize
    sockets.Driver.get_status = get_status
    sockets.InterfaceSocket._requeue_disconnected = requeue
    sockets.SHMDriver.__init__ = own_segments
    sockets.SHMDriver._free_shm = free_segments
    sockets.SELECTTIMEOUT = min(sockets.SELECTTIMEOUT, SILENCE)
    for driver_class in (sockets.Driver, sockets.SHMDriver):
        for name in ("_recv_force_data", "_recv_forces_bulk", "_recv_forces_bulk_batch"):
            stock = driver_class.__dict__[name]
            replaced.append((driver_class, name, stock))
            setattr(driver_class, name, wrap(stock, batched=name.endswith("batch")))
        stock = driver_class.__dict__["dispatch_send_batch"]
        replaced.append((driver_class, "dispatch_send_batch", stock))
        driver_class.dispatch_send_batch = one_lambda(stock)
    try:
        yield
    finally:
        for owner, name, stock in replaced:
            setattr(owner, name, stock)
