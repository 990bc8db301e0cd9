"""Shared memory of servers that were killed: nobody else removes it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

_NAME = re.compile(r"ipi_shm_(\d+)_\d+_[0-9a-f]{8}_\w+")  # made by drivers.NonBlockingSHMDriver
_YOUNG = 60.0  # s; a client opens its segments within moments, and a container may hide its server


def remove_dead_segments(place: Path = Path("/dev/shm")) -> list[str]:
    """Remove this user's segments of servers that are gone; their names."""
    removed = []
    for path in place.glob("ipi_shm_*"):
        found = _NAME.fullmatch(path.name)
        try:
            state = path.stat()
            old = time.time() - max(state.st_mtime, state.st_ctime) > _YOUNG
            if found and old and state.st_uid == os.getuid() and not _lives(int(found[1])):
                path.unlink()
                removed.append(path.name)
        except OSError:  # somebody was quicker
            continue
    return removed


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
