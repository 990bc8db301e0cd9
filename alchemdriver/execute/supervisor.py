"""``alchemdriver run``: one server and its local clients per input, until all are done.

The supervisor starts processes, watches them, restarts clients that die, and stops everything
cleanly on Ctrl-C.  It computes nothing: i-PI's files are the state, so a second ``run`` resumes
from the furthest checkpoint.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ..contract import origin
from ..contract.manifest import is_workflow
from ..contract.run_input import RunInput, read_input
from ..errors import InputError, OutOfTime, RunError
from ..prepare.render import sign
from ..server.lock import only_server
from ..server.replies import hung_processes
from ..server.serve import warn_if_open
from . import children
from .children import FAREWELL, Child
from .progress import Progress, read_progress
from .relaxing import Relaxing
from .rows import last_printed, resume_point

log = logging.getLogger(__name__)

POLL = 0.2  # s between looks at the processes
SILENCE = 5.0  # s without anything to show before it is said what is waited for
GRACE = 60.0  # s a server may take to write its RESTART
REMINDER = 60.0  # s between such lines
HANDOVER = 5.0  # s that the server of a run that died may take to end
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

    def as_typed(self) -> list[str]:
        """The options of ``run`` that say this, but for the wall time."""
        given: list[tuple[str, object, object]] = [
            ("--clients", self.clients, 1),
            ("--jobs", self.jobs, None),
            ("--threads", self.threads, None),
            ("--device", self.device, "cpu"),
            ("--dtype", self.dtype, None),
            ("--evaluator", self.evaluator, "auto"),
        ]
        return [word for flag, x, usual in given if x != usual for word in (flag, str(x))]

    def check_time(self) -> None:
        """Raises OutOfTime once the wall time is over."""
        if self.stop_at is not None and time.monotonic() > self.stop_at:
            raise OutOfTime("wall time over, what is done so far is kept")

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
    say: Callable[[str], None]
    server: Child | None = None
    clients: list[Child] = field(default_factory=list)
    dismissed: dict[int, float] = field(default_factory=dict)  # client → when it was sent away
    log_seen: int = 0  # bytes of server.log that were searched
    deaths: int = 0  # of clients since the last step forward
    last_step: int = -1
    resumed: bool = False
    prefix: str = ""  # of unix sockets

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def finished(self) -> bool:
        checkpoint = resume_point(self.run)
        over = checkpoint is not None and checkpoint.step >= self.run.total_steps
        if over:
            origin.seal(self.run)  # a supervisor that was killed may have left this undone
        return over

    @property
    def running(self) -> bool:
        return self.server is not None and self.server.returncode is None

    def start(self) -> None:
        """Start the server (from the furthest checkpoint) and the clients."""
        with only_server(self.run.folder, HANDOVER):  # the server itself takes the lock again
            sign(self.run.path)
            checkpoint = resume_point(self.run)
            (self.run.folder / "EXIT").unlink(missing_ok=True)  # left over from a stop
        self.prefix = children.socket_folder()
        command = ["server", str(self.run.path), "--socket-prefix", self.prefix]
        warn_if_open(self.run)  # the server says it, too, but in its log
        if checkpoint is not None:
            self.resumed = True
            command += ["--restart", str(checkpoint.path)]
            self.say(f"{self.name}: resuming from step {checkpoint.step}")
        elif (printed := last_printed(self.run)) > 0:
            self.say(
                f"{self.name}: steps up to {printed} are printed, but there is no checkpoint: "
                "beginning again, what is there is set aside"
            )
        self.server = children.start(command, self.run.folder / "server.log", threads=1)
        self.clients = [self._start_client(i) for i in range(self.resources.clients)]

    def _start_client(self, i: int) -> Child:
        # its log says what computed the run
        command = ["--verbose", "client", str(self.run.path), "--socket-prefix", self.prefix]
        command += ["--device", self.resources.device]
        if self.resources.dtype:
            command += ["--dtype", self.resources.dtype]
        if self.resources.evaluator != "auto":
            command += ["--evaluator", self.resources.evaluator]
        return children.start(command, self.run.folder / f"client-{i + 1}.log", self.threads)

    def waits_for(self) -> str:
        """What there is to wait for while no step is done."""
        if self.resources.clients:
            return "a first step (the client is loading its model)"
        socket = self.run.socket
        return (
            f"a client on {socket.address}:{socket.port}: alchemdriver client "
            f"{shlex.quote(str(self.run.path))} --address {socket.address} --port {socket.port}"
        )

    def watch(self) -> Progress | None:
        """Restart dead clients; raise RunError if server or clients cannot go on."""
        progress = read_progress(self.run)
        if progress is not None and progress.step != self.last_step:
            self.last_step, self.deaths = progress.step, 0
        assert self.server is not None
        if self.server.returncode is not None:
            if self.server.returncode != 0 or not self.finished:
                if (self.run.folder / "EXIT").exists():
                    raise RunError(f"{self.name}: stopped by an EXIT file")
                raise RunError(f"{self.name}: {self.server.last_words()}")
            return progress
        self._kill_hung(self.server)
        for i, client in enumerate(self.clients):
            if client.returncode is not None:
                self._replace(i, client)
        return progress

    def _replace(self, i: int, client: Child) -> None:
        """Another one for a *client* that ended, unless that is as it should be."""
        if client.returncode == 0 and not self._dismissed_long_ago(i):
            return  # i-PI said EXIT: it is ending, or has dropped a client it thinks hung
        self.deaths += 1
        words = client.last_words()
        if client.returncode == 2:  # it refused on purpose, and so would another one
            raise RunError(f"{self.name}: client: {words}")
        if self.deaths > MAX_DEATHS:
            raise RunError(f"{self.name}: clients keep dying: {words}")
        log.warning("%s: client %d died (%s), starting another", self.name, i + 1, words)
        self.clients[i] = self._start_client(i)

    def _kill_hung(self, server: Child) -> None:
        """SIGKILL for local clients that the server has given up: nothing else ends them."""
        with open(server.log, "rb") as f:
            f.seek(max(self.log_seen, server.log_start))
            lines = f.read()
        lines = lines[: lines.rfind(b"\n") + 1]  # the rest is still being written
        self.log_seen = max(self.log_seen, server.log_start) + len(lines)
        named = hung_processes(lines)
        for client in self.clients:
            if client.pid in named and client.returncode is None:
                log.warning("%s: client process %d hangs, killed", self.name, client.pid)
                client.process.kill()
                client.process.wait()

    def _dismissed_long_ago(self, i: int) -> bool:
        """Whether client *i* was sent away and the server still runs some time later."""
        since = self.dismissed.setdefault(i, time.monotonic())
        if time.monotonic() - since < FAREWELL:
            return False
        del self.dismissed[i]
        return True

    def stop(self) -> None:
        """Ask the server to write its RESTART and end; clients follow its EXIT message."""
        if self.server is not None:
            self.server.process.send_signal(signal.SIGTERM)

    def wait(self, deadline: float) -> None:
        """Wait for all processes until *deadline* (time.monotonic), then kill what is left."""
        if self.server is not None:
            self.server.end_by(deadline)
        for client in self.clients:  # what the server said to them is on its way
            client.end_by(min(deadline, time.monotonic() + FAREWELL))
        children.remove_sockets(self.prefix)


Job = Processes | Relaxing


def stop_all(started: list[Job]) -> None:
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
    say: Callable[[str], None],
    *,
    more: Callable[[Path], list[Path]] | None = None,
) -> None:
    """Run every input that is not finished: of i-PI, or the ``relax.json`` of a relaxation.

    report(name, progress, resumed) is called as runs move on, say(line) for what happens once.
    more(input) is called when one is finished, or was from the start, and returns inputs that can
    run now.  Raises RunError or InputError with everything stopped; KeyboardInterrupt, or OutOfTime
    at ``resources.stop_at``, after a clean stop with RESTART files.
    """
    paths = list(dict.fromkeys(path.resolve() for path in inputs))
    jobs = resources.jobs or cores()
    if more is None:
        jobs = min(len(paths), jobs)
    threads = resources.threads_per_client(jobs)

    def following(ended: Job) -> list[Job]:
        return [] if more is None else _not_started(more(ended.path), resources, threads, say)

    waiting = _not_started(paths, resources, threads, say)
    active: list[Job] = []
    silence = _Silence(say)
    try:
        while waiting or active:
            resources.check_time()
            while waiting and len(active) < jobs:
                job = waiting.pop(0)
                if job.finished:
                    waiting += following(job)
                else:
                    active.append(job)
                    job.start()
            if not active:
                continue
            time.sleep(POLL)
            for job in list(active):
                progress = job.watch()
                if progress is not None:
                    report(job.name, progress, job.resumed)
                silence.note(job, progress)
                if not job.running:
                    job.wait(time.monotonic() + GRACE)
                    active.remove(job)
                    waiting += following(job)
    finally:
        stop_all(active)


class _Silence:
    """Says what a run waits for that has not done a step since it was started."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.at: dict[Path, int | None] = {}  # the step where a run was found
        self.next_line: dict[Path, float] = {}

    def note(self, job: Job, progress: Progress | None) -> None:
        now, step = time.monotonic(), None if progress is None else progress.step
        if self.at.setdefault(job.path, step) != step:
            self.next_line[job.path] = math.inf
        elif now > self.next_line.setdefault(job.path, now + SILENCE):
            self.next_line[job.path] = now + REMINDER
            self.say(f"{job.name}: waiting for {job.waits_for()}")


def _not_started(
    inputs: list[Path], resources: Resources, threads: int, say: Callable[[str], None]
) -> list[Job]:
    found: list[Job] = []
    for path in inputs:
        name = _name(path.parent)
        if path.suffix == ".json":
            found.append(Relaxing(path, resources.device, threads, name))
            continue
        run = read_input(path)
        if resources.clients == 0 and run.socket.mode != "inet":
            raise InputError("without local clients, <ffsocket> needs mode='inet' for remote ones")
        found.append(Processes(run, resources, threads, name, say))
    return found
