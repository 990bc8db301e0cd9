"""One server per run folder: two would write the same output files and checkpoints.

The lock is the kernel's (flock), so it ends with the process that holds it, however that ends; the
file that stays behind is in nobody's way.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import Busy

__all__ = ["NAME", "only_server"]

log = logging.getLogger(__name__)

NAME = ".alchemdriver.lock"


@contextmanager
def only_server(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the folder's lock; Busy if another process does for *patience* seconds more."""
    # Not inheritable (Python's default), so children of a server never keep the lock.
    fd = os.open(Path(folder) / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(fd, Path(folder), time.monotonic() + patience)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, folder: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Busy(
                f"another server (pid {pid}) runs in this folder: {folder}; wait for it, or stop "
                f"it with: kill {pid}"
            ) from None
        except OSError as err:  # some network file systems have no locks
            log.warning("no lock on %s (%s): start only one server there", folder, err.strerror)
            return
