"""A relaxation as a process that is watched like a run."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ..contract.relaxation import read_settings
from ..errors import RunError
from . import children
from .children import Child
from .progress import Progress

_ROW = re.compile(rb"^FIRE:\s+(\d+)\s+\S+\s+\S+\s+(\S+)\s*\n", re.M)
_TAIL = 1024  # bytes; longer than any row


@dataclass
class Relaxing:
    """The relaxation that *path*, a ``relax.json``, asks for."""

    path: Path
    device: str
    threads: int
    name: str
    process: Child | None = None
    resumed: bool = False

    @property
    def finished(self) -> bool:
        return False  # whoever plans the stages knows which are done

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def start(self) -> None:
        command = ["relax-stage", str(self.path.parent), "--device", self.device]
        log = self.path.parent / "relax-process.log"
        self.process = children.start(command, log, self.threads)

    def watch(self) -> Progress | None:
        """RunError if it ended without a relaxed structure."""
        assert self.process is not None
        if self.process.returncode:
            raise RunError(self.process.last_words())
        return read_relaxation(self.path)

    def waits_for(self) -> str:
        return "the first energy (the model is being loaded)"

    def stop(self) -> None:
        if self.process is not None:
            self.process.process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        if self.process is not None:
            self.process.end_by(min(deadline, time.monotonic() + children.FAREWELL))


def read_relaxation(path: Path) -> Progress | None:
    """How far the relaxation of *path* is, from the last row of FIRE's log."""
    log = path.parent / "relax.log"
    try:
        with open(log, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - _TAIL))
            rows = _ROW.findall(f.read())
    except OSError:
        return None
    if not rows:
        return None
    try:
        step, gradient = int(rows[-1][0]), float(rows[-1][1])
    except ValueError:
        return None
    most = read_settings(path).most_steps
    return Progress(step, most, None, "relaxation", None, gradient)
