"""One driver per campaign, wherever it runs.

On one machine the lock of the folder decides, which ends with the process that holds it.  Login
nodes often share a file system without sharing its locks, so a driver also says in a file, again
and again, that it lives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..contract.stored import Format
from ..errors import Busy
from ..server.lock import only_server

__all__ = ["EVERY", "FILE", "Lease", "holder", "only_driver"]

FILE = "driver.json"
EVERY = 20.0  # s between signs of life
DEAD = 120.0  # s without one


@dataclass(frozen=True)
class Holder:
    host: str
    pid: int
    alive: float  # s since 1970, the last sign of life


HOLDER = Format("alchemdriver-driver/1", Holder, remedy="remove it if no driver runs")


def holder(root: Path) -> Holder | None:
    """Who says to drive the campaign, and was alive not long ago."""
    path = root / FILE
    if not path.is_file():
        return None
    found = HOLDER.read(path)
    return found if time.time() - found.alive < DEAD else None


@dataclass
class Lease:
    root: Path
    next: float = 0.0

    def renew(self) -> None:
        """Say that this driver lives, if it is time to."""
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + EVERY
        HOLDER.write(self.root / FILE, Holder(socket.gethostname(), os.getpid(), time.time()))


@contextmanager
def only_driver(root: Path) -> Iterator[Lease]:
    """Raises Busy, one line, while another driver runs this campaign."""
    try:
        lock = only_server(root)
        with lock:
            other = holder(root)
            if other is not None and other.host != socket.gethostname():
                raise Busy(
                    f"{root}: a driver runs on {other.host} (pid {other.pid}), alive "
                    f"{max(0.0, time.time() - other.alive):.0f} s ago: stop it there, or wait "
                    f"{DEAD:.0f} s if that machine is lost"
                )
            lease = Lease(root)
            lease.renew()
            try:
                yield lease
            finally:
                with contextlib.suppress(OSError):
                    (root / FILE).unlink(missing_ok=True)
    except Busy as err:
        raise Busy(str(err).replace("another server", "another driver")) from None
