"""One server per run folder: two would write the same output files and checkpoints.

The lock is the kernel's (flock), so it ends with the process that holds it, however that ends; the
file that stays behind is in nobody's way.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError

__all__ = ["NAME", "only_server"]

log = logging.getLogger(__name__)

NAME = ".alchemdriver.lock"


@contextmanager
def only_server(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; RunError if another process does."""
    # Not inheritable (Python's default), so children of a server never keep the lock.
    fd = os.open(Path(folder) / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            raise RunError(f"another server (pid {pid}) runs in this folder: {folder}") from None
        except OSError as err:  # some network file systems have no locks
            log.warning("no lock on %s (%s): start only one server there", folder, err.strerror)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
