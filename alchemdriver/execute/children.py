"""Processes that a run starts, with their logs and the folder of their sockets."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .lifeline import reading_end

FAREWELL = 10.0  # s that a process may take to end by itself

_PREFIX = "alchemdriver-"  # of folders of sockets
_OWNER = "owner"  # in such a folder: locked by the process that it belongs to
_held: dict[str, int] = {}  # folder → descriptor of that lock


@dataclass
class Child:
    """``alchemdriver COMMAND`` as a process of its own, output to a log."""

    process: subprocess.Popen[bytes]
    log: Path
    log_start: int  # bytes of earlier starts in the log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def last_words(self) -> str:
        """Its last error, or its last line, and where there is more."""
        content = self.log.read_bytes()[self.log_start :]
        lines = content.decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        errors = [w for w in words if w.startswith("error:")]
        last = (errors or words or ["no output"])[-1]
        return f"{last.removeprefix('error:').strip()} (see {self.log})"

    def end_by(self, deadline: float) -> None:
        """Wait until *deadline* (time.monotonic), then kill it."""
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(command: list[str], log: Path, threads: int) -> Child:
    """Start a command in the log's folder; it does not outlive this process."""
    env = dict(os.environ, PYTHONUNBUFFERED="1")
    for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env[key] = str(threads)
    written = log.stat().st_size if log.exists() else 0
    tie = reading_end()
    with open(log, "ab") as out:
        # A session of its own: Ctrl-C reaches the supervisor alone, which stops them in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "alchemdriver", "--lifeline", str(tie), *command],
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            start_new_session=True,
            pass_fds=(tie,),
        )
    return Child(process, log, written)


# --- folders of sockets -------------------------------------------------------------------------


def socket_folder() -> str:
    """A new folder for the sockets of one start, with a slash; those of dead runs are removed.

    A stale socket file of a killed run is never in the way, and nobody else may connect.  It is not
    in the run folder: a socket's path has at most 107 bytes.
    """
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
    for folder in Path(place).glob(f"{_PREFIX}*"):
        _remove_if_dead(folder)
    made = tempfile.mkdtemp(prefix=_PREFIX, dir=place)
    aside = Path(made, f".{_OWNER}")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    aside.rename(Path(made, _OWNER))  # locked from the moment that it can be seen
    _held[made + "/"] = descriptor
    return made + "/"


def remove_sockets(folder: str) -> None:
    """Remove a folder of :func:`socket_folder`."""
    if folder in _held:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(_held.pop(folder))


def _remove_if_dead(folder: Path) -> None:
    try:
        descriptor = os.open(folder / _OWNER, os.O_RDWR)
    except OSError:  # somebody else's, or of something else
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # its owner lives
        pass
    finally:
        os.close(descriptor)
