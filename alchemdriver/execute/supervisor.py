"""``alchemdriver run``: one server and its local clients per input, until all are done.

The supervisor starts processes, watches them, restarts clients that die, and stops everything
cleanly on Ctrl-C.  It computes nothing: i-PI's files are the state, so a second ``run`` resumes
from the furthest checkpoint.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..contract.manifest import is_workflow
from ..contract.run_input import RunInput, read_input
from ..errors import InputError, OutOfTime, RunError
from ..prepare.render import sign
from ..server import checkpoints
from ..server.lock import only_server
from ..server.replies import hung_processes
from ..server.serve import warn_if_open
from .progress import Progress, read_progress

log = logging.getLogger(__name__)

POLL = 0.2  # s between looks at the processes
GRACE = 60.0  # s a server may take to write its RESTART
FAREWELL = 10.0  # s between a client's EXIT message and the end of its server
MAX_DEATHS = 5  # of clients in a row, without a step done in between


@dataclass(frozen=True)
class Resources:
    """What runs may use, and how their clients compute; nothing here changes physics.

    Raises InputError for numbers of processes that cannot be.
    """

    clients: int = 1  # per run
    jobs: int | None = None  # runs at a time; default: as many as there are cores
    device: str = "cpu"
    dtype: str | None = None
    threads: int | None = None  # per client; default: cores shared among all clients
    evaluator: str = "auto"  # of MACE models
    stop_at: float | None = None  # time.monotonic() at which all is stopped, RESTART written

    def __post_init__(self) -> None:
        if self.clients < 0:
            raise InputError(f"clients: expected 0 or more, got {self.clients}")
        for name, value in (("jobs", self.jobs), ("threads", self.threads)):
            if value is not None and value < 1:
                raise InputError(f"{name}: expected 1 or more, got {value}")

    def threads_per_client(self, jobs: int) -> int:
        """CPU threads when *jobs* runs go at a time."""
        return self.threads or max(1, cores() // (jobs * max(1, self.clients)))


def _name(folder: Path) -> str:
    """A folder's own name; of a stage, its path below the workflow."""
    root = next((up for up in folder.parents if is_workflow(up)), folder.parent)
    return str(folder.relative_to(root))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class Processes:
    """The processes of one run: a server with its clients."""

    run: RunInput
    resources: Resources
    threads: int
    name: str  # what the display calls it
    server: subprocess.Popen[bytes] | None = None
    clients: list[subprocess.Popen[bytes]] = field(default_factory=list)
    dismissed: dict[int, float] = field(default_factory=dict)  # client → when it was sent away
    log_starts: dict[str, int] = field(default_factory=dict)  # bytes of earlier starts in a log
    log_seen: int = 0  # bytes of server.log that were searched
    deaths: int = 0  # of clients since the last step forward
    last_step: int = -1
    resumed_from: int = 0
    prefix: str = ""  # of unix sockets

    @property
    def finished(self) -> bool:
        checkpoint = checkpoints.latest(self.run)
        return checkpoint is not None and checkpoint.step >= self.run.total_steps

    @property
    def running(self) -> bool:
        return self.server is not None and self.server.poll() is None

    def start(self) -> None:
        """Start the server (from the furthest checkpoint) and the clients."""
        with only_server(self.run.folder):  # the server itself takes the lock again
            sign(self.run.path)
            checkpoint = checkpoints.latest(self.run)
            (self.run.folder / "EXIT").unlink(missing_ok=True)  # left over from a stop
        # A folder of its own per start: a stale socket file of a killed run is never in the way,
        # nobody else may connect.  Not the run folder: a socket's path has at most 107 bytes.
        place = tempfile.gettempdir() if len(tempfile.gettempdir()) < 60 else "/tmp"
        self.prefix = tempfile.mkdtemp(prefix="alchemdriver-", dir=place) + "/"
        command = ["server", str(self.run.path), "--socket-prefix", self.prefix]
        warn_if_open(self.run)  # the server says it, too, but in its log
        if checkpoint is not None:
            self.resumed_from = checkpoint.step
            command += ["--restart", str(checkpoint.path)]
            log.info("%s: resuming from step %d", self.name, checkpoint.step)
        self.server = self._spawn(command, "server.log", threads=1)
        self.clients = [self._start_client(i) for i in range(self.resources.clients)]

    def _start_client(self, i: int) -> subprocess.Popen[bytes]:
        # its log says what computed the run
        command = ["--verbose", "client", str(self.run.path), "--socket-prefix", self.prefix]
        command += ["--device", self.resources.device]
        if self.resources.dtype:
            command += ["--dtype", self.resources.dtype]
        if self.resources.evaluator != "auto":
            command += ["--evaluator", self.resources.evaluator]
        return self._spawn(command, f"client-{i + 1}.log", self.threads)

    def _spawn(self, command: list[str], logfile: str, threads: int) -> subprocess.Popen[bytes]:
        env = dict(os.environ, PYTHONUNBUFFERED="1")
        for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            env[key] = str(threads)
        path = self.run.folder / logfile
        self.log_starts[logfile] = path.stat().st_size if path.exists() else 0
        with open(path, "ab") as out:
            # A session of its own: Ctrl-C reaches the supervisor alone, which stops them in order.
            return subprocess.Popen(
                [sys.executable, "-m", "alchemdriver", *command],
                cwd=self.run.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                start_new_session=True,
            )

    def watch(self) -> Progress | None:
        """Restart dead clients; raise RunError if server or clients cannot go on."""
        progress = read_progress(self.run)
        if progress is not None and progress.step != self.last_step:
            self.last_step, self.deaths = progress.step, 0
        if self.server is not None and self.server.poll() is not None:
            if self.server.returncode != 0 or not self.finished:
                if (self.run.folder / "EXIT").exists():
                    raise RunError(f"{self.name}: stopped by an EXIT file")
                raise RunError(f"{self.name}: {self._last_words('server.log')}")
            return progress
        self._kill_hung()
        for i, client in enumerate(self.clients):
            if client.poll() is not None:
                self._replace(i, client.returncode)
        return progress

    def _replace(self, i: int, returncode: int) -> None:
        """Another client for one that ended, unless that is as it should be."""
        if returncode == 0 and not self._dismissed_long_ago(i):
            return  # i-PI said EXIT: it is ending, or has dropped a client it thinks hung
        self.deaths += 1
        words = self._last_words(f"client-{i + 1}.log")
        if returncode == 2:  # it refused on purpose, and so would another one
            raise RunError(f"{self.name}: client: {words}")
        if self.deaths > MAX_DEATHS:
            raise RunError(f"{self.name}: clients keep dying: {words}")
        log.warning("%s: client %d died (%s), starting another", self.name, i + 1, words)
        self.clients[i] = self._start_client(i)

    def _kill_hung(self) -> None:
        """SIGKILL for local clients that the server has given up: nothing else ends them."""
        with open(self.run.folder / "server.log", "rb") as f:
            f.seek(max(self.log_seen, self.log_starts["server.log"]))
            lines = f.read()
        lines = lines[: lines.rfind(b"\n") + 1]  # the rest is still being written
        self.log_seen = max(self.log_seen, self.log_starts["server.log"]) + len(lines)
        named = hung_processes(lines)
        for client in self.clients:
            if client.pid in named and client.poll() is None:
                log.warning("%s: client process %d hangs, killed", self.name, client.pid)
                client.kill()
                client.wait()

    def _dismissed_long_ago(self, i: int) -> bool:
        """Whether client *i* was sent away and the server still runs some time later."""
        since = self.dismissed.setdefault(i, time.monotonic())
        if time.monotonic() - since < FAREWELL:
            return False
        del self.dismissed[i]
        return True

    def _last_words(self, logfile: str) -> str:
        content = (self.run.folder / logfile).read_bytes()[self.log_starts[logfile] :]
        lines = content.decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        errors = [w for w in words if w.startswith("error:")]
        last = (errors or words or ["no output"])[-1]
        return f"{last.removeprefix('error:').strip()} (see {self.run.folder / logfile})"

    def stop(self) -> None:
        """Ask the server to write its RESTART and end; clients follow its EXIT message."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for all processes until *deadline* (time.monotonic), then kill what is left."""
        for process in [self.server, *self.clients]:
            if process is None:
                continue
            if process is not self.server:  # which is gone: what it said to clients is on its way
                deadline = min(deadline, time.monotonic() + FAREWELL)
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.prefix, ignore_errors=True)


def stop_all(started: list[Processes]) -> None:
    """End what still runs.  An impatient second Ctrl-C cannot leave servers behind: until all have
    written their RESTART or been killed, signals wait."""
    if not started:
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(signum, signal.SIG_IGN) for signum in signals]
    for processes in started:
        processes.stop()
    for processes in started:
        processes.wait(time.monotonic() + GRACE)
    for signum, handler in zip(signals, before, strict=True):
        signal.signal(signum, handler)


def execute(
    inputs: list[Path],
    resources: Resources,
    report: Callable[[str, Progress, bool], None],
    *,
    more: Callable[[Path], list[Path]] | None = None,
) -> None:
    """Run every input that is not finished.

    report(name, progress, resumed) is called as runs move on.  more(input) is called when one is
    finished, or was from the start, and returns inputs that can run now.  Raises RunError or
    InputError with everything stopped; KeyboardInterrupt, or OutOfTime at ``resources.stop_at``,
    after a clean stop with RESTART files.
    """
    paths = list(dict.fromkeys(path.resolve() for path in inputs))
    jobs = resources.jobs or cores()
    if more is None:
        jobs = min(len(paths), jobs)
    threads = resources.threads_per_client(jobs)

    def following(ended: Processes) -> list[Processes]:
        return [] if more is None else _not_started(more(ended.run.path), resources, threads)

    waiting = _not_started(paths, resources, threads)
    active: list[Processes] = []
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                processes = waiting.pop(0)
                if processes.finished:
                    waiting += following(processes)
                else:
                    active.append(processes)
                    processes.start()
            if not active:
                continue
            time.sleep(POLL)
            if resources.stop_at is not None and time.monotonic() > resources.stop_at:
                raise OutOfTime("wall time over, restart files written")
            for processes in list(active):
                progress = processes.watch()
                if progress is not None:
                    report(processes.name, progress, processes.resumed_from > 0)
                if not processes.running:
                    processes.wait(time.monotonic() + GRACE)
                    active.remove(processes)
                    waiting += following(processes)
    finally:
        stop_all(active)


def _not_started(inputs: list[Path], resources: Resources, threads: int) -> list[Processes]:
    runs = [read_input(path) for path in inputs]
    if resources.clients == 0 and any(run.socket.mode != "inet" for run in runs):
        raise InputError("without local clients, <ffsocket> needs mode='inet' for remote ones")
    return [Processes(run, resources, threads, _name(run.folder)) for run in runs]
