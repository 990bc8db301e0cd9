"""Children that do not outlive their parent, however it ends.

The parent holds the writing end of a pipe into which nothing is ever written, its children the
reading end: when the kernel closes the one, the others read the end of a file.  That holds for
SIGKILL, too, and goes by the process; Linux' PR_SET_PDEATHSIG goes by the thread that started the
child.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache

__all__ = ["follow", "reading_end"]

LAST = 60.0  # s that a process may take to end in good order


@cache
def _pipe() -> tuple[int, int]:
    return os.pipe()


def reading_end() -> int:
    """The file descriptor to hand to a child of this process (``pass_fds``)."""
    return _pipe()[0]


def follow(descriptor: int, patience: float) -> None:
    """End this process, by SIGTERM, *patience* seconds after its parent; by force if that does not
    help."""
    os.set_inheritable(descriptor, False)

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        time.sleep(patience)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()
