"""The driver: hands out slices of runs until all are done, and writes down what happens and why.

It computes nothing.  The journal and the run folders are the state, so a driver that was killed is
followed by another one that goes on.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import RunError
from . import journal, record
from .executors import Pool, start
from .journal import Event, Known, now
from .lease import Lease, only_driver
from .plan import RunSettings, read_plan
from .record import Campaign, Case, Run
from .slices import Analysed, Ended, analyse, compute

__all__ = ["drive"]

LOOK = 1.0  # s between looks at what nobody tells
PAUSE = 5.0  # s before a run is tried again that could not go on
FIRST = 2  # replicas without which there is no error


def drive(root: Path, choice: str, say: Callable[[str], None]) -> None:
    """Run the campaign in *root* to its end on the workers of *choice*.

    Raises Busy if another driver runs it, InputError for settings that cannot be, RunError if no
    worker can be started, or if runs failed for good; the others are done then.
    """
    record.read(root)  # says first of all that this is a campaign
    with only_driver(root) as lease:
        journal.mend(root)
        plan = read_plan(root / record.PLAN_FILE)
        pool = start(choice, plan, root)
        try:
            driver = Driver(root, plan.run, pool, lease, say)
            driver.to_the_end()
        finally:
            pool.close()
    driver.complain()


@dataclass
class Driver:
    root: Path
    settings: RunSettings
    pool: Pool
    lease: Lease
    say: Callable[[str], None]
    active: dict[Future[Any], Run | Case] = field(default_factory=dict)
    paused: dict[str, float] = field(default_factory=dict)  # run → time.monotonic() to go on at
    ready: list[Run] = field(default_factory=list)  # in the reverse of their order
    lost: Counter[str] = field(default_factory=Counter)  # workers that died analysing a case
    campaign: Campaign = field(init=False)
    known: Known = field(init=False)
    _read: int = 0  # when campaign.json was written that was read
    _tell: float = 0.0

    def __post_init__(self) -> None:
        # what drivers before had sent out and nobody heard of waits again from here on
        journal.append(self.root, Event(now(), "driver", workers=self.pool.slots))
        self._reread()

    def to_the_end(self) -> None:
        """Until nothing is left that can be done."""
        self._settle_all()
        while True:
            self.lease.renew()
            self._reread()
            self._fill()
            if not self.active and not self.paused:
                return
            done, _ = wait(self.active, timeout=LOOK, return_when=FIRST_COMPLETED)
            if not self.active:
                time.sleep(LOOK)
            for future in done:
                self._ended(future, self.active.pop(future))
            if (trouble := self.pool.trouble()) is not None:
                raise RunError(f"no workers: {trouble}; see {self.root / 'parsl'}")
            self._tell_how_far()

    def complain(self) -> None:
        """Raises RunError if runs, or analyses, failed."""
        failed = [(n, r) for n, r in self.known.runs.items() if r.state == "failed"]
        if failed:
            name, first = failed[0]
            others = f" (and {len(failed) - 1} more)" if failed[1:] else ""
            raise RunError(
                f"{name} failed: {first.why}{others}; the rest is done, and what failed is tried "
                "again by the next 'alchemdriver campaign run'"
            )
        without = [(n, c.why) for n, c in self.known.cases.items() if c.why and c.lost]
        if without:
            name, why = without[0]
            others = f" (and {len(without) - 1} more)" if without[1:] else ""
            raise RunError(
                f"{name} is not analysed: {why}{others}; the next 'alchemdriver campaign run' "
                "tries again"
            )

    def note(self, event: Event) -> None:
        journal.append(self.root, event)
        self.known.take(event)

    # --- what there is to do

    def _reread(self) -> None:
        """Take up what 'campaign add' has added meanwhile."""
        written = (self.root / record.FILE).stat().st_mtime_ns
        if written == self._read:
            return
        again, self._read = self._read != 0, written
        self.campaign = record.read(self.root)
        self.known = journal.replay(self.root, self.campaign)
        if again:
            self._settle_all()
            self.say("campaign.json was extended")
        self._queue()

    def _queue(self) -> None:
        """Put all that waits in order: what has begun before what has not, first replicas of every
        case before second ones, and beyond these the case that is furthest from its error."""
        busy = {run.name for run in self.active.values() if isinstance(run, Run)} | set(self.paused)
        self.ready = [
            run
            for run in self.campaign.runs
            if self.known.runs[run.name].state == "waiting" and run.name not in busy
        ]
        self.ready.sort(key=self._place)
        self.ready.reverse()

    def _place(self, run: Run) -> tuple[float, ...]:
        """Of *run* in the queue: smaller ones come first."""
        waits = float(self.known.runs[run.name].step == 0)
        progress = self.known.cases.get(run.case.name)
        if run.case.error is None or run.replica < FIRST:
            return waits, run.replica
        error = None if progress is None else progress.error
        excess = math.inf if error is None else 1e3 * error / run.case.error
        return waits, FIRST, -excess, run.replica

    def _fill(self) -> None:
        for name in [n for n, at in self.paused.items() if at < time.monotonic()]:
            del self.paused[name]
            self.ready.append(self.campaign.by_name[name])
        later = []
        while self.ready and len(self.active) < self.pool.slots:
            run = self.ready.pop()
            if self._released(run):
                self._send(run)
            elif not self._settled(run.case):
                later.append(run)
        self.ready += reversed(later)

    def _released(self, run: Run) -> bool:
        """Whether *run* is to be run as far as is known now."""
        if run.case.error is None or run.case.steps is None:
            return True
        progress = self.known.cases.get(run.case.name)
        released = FIRST if progress is None or progress.released is None else progress.released
        return run.replica < released

    def _settled(self, case: Case) -> bool:
        """Whether a case with an error asked for has it."""
        progress = self.known.cases.get(case.name)
        return progress is not None and progress.has(case.error)

    def _send(self, run: Run) -> None:
        part = Campaign(
            self.campaign.protocol, {run.case.system: self.campaign.systems[run.case.system]}, ()
        )
        future = self.pool.submit(
            compute, str(self.root.resolve()), part, run, self.settings, self.pool.device
        )
        self.active[future] = run
        self.note(Event(now(), "sent", run.name))

    # --- what has happened

    def _now(self, what: Run | Case) -> Run | Case:
        """*what* as 'campaign add' has left it meanwhile."""
        if isinstance(what, Run):
            return self.campaign.by_name[what.name]
        return next(case for case in self.campaign.cases if case.name == what.name)

    def _ended(self, future: Future[Any], what: Run | Case) -> None:
        what, error = self._now(what), future.exception()
        if isinstance(what, Case):
            if error is None:
                self._analysed(what, future.result())
                return
            self.lost[what.name] += 1
            if self.lost[what.name] <= self.settings.retries:
                self._settle(what)
            else:  # of no replica, so that the next driver tries again
                self._analysed(what, Analysed(0, why=_in_words(error), lost=True))
        elif error is None:
            self._slice(what, future.result())
        else:
            self._slice(what, Ended("failed", None, 0.0, "", _in_words(error)))

    def _slice(self, run: Run, ended: Ended) -> None:
        why = ended.why or None
        event = Event(
            now(), "failed", run.name, ended.step, round(ended.seconds, 3), ended.host or None, why
        )
        if ended.what == "refused":
            self._give_up(run, event)
            return
        self.note(replace(event, what=ended.what))
        if ended.what == "done":
            self._settle(run.case)
        elif ended.what == "again" and ended.step:
            self.ready.append(run)
        elif ended.what == "failed":
            failures = self.known.runs[run.name].failures
            self.say(f"{run.name}: {ended.why}")
            if failures > self.settings.retries:
                self._give_up(run, event)
            else:
                self.paused[run.name] = time.monotonic() + PAUSE * failures
        else:
            self.paused[run.name] = time.monotonic() + PAUSE

    def _give_up(self, run: Run, event: Event) -> None:
        self.note(Event(now(), "given up", run.name, why=event.why))
        self.say(f"{run.name}: given up: {event.why}")
        self._settle(run.case)

    def _settle_all(self) -> None:
        for case in self.campaign.cases:
            self._settle(case)

    def _settle(self, case: Case) -> None:
        """Analyse *case* once all replicas that are to be run are done, and that is new."""
        whole = self._whole_replicas(case)
        progress = self.known.cases.get(case.name)
        before = 0 if progress is None else progress.analysed
        left = [
            run
            for run in case.runs()
            if self._released(run) and self.known.runs[run.name].state in ("waiting", "running")
        ]
        under_way = any(
            isinstance(what, Case) and what.name == case.name for what in self.active.values()
        )
        if left or under_way or not whole:
            return
        if len(whole) > before:
            runs = [run for run in case.runs() if run.replica in whole]
            future = self.pool.submit(
                analyse, str(self.root.resolve()), case, runs, self.pool.device
            )
            self.active[future] = case
        elif progress is not None and not self._settled(case):
            self._decide(case, progress.analysed, progress.error)

    def _whole_replicas(self, case: Case) -> set[int]:
        """The replicas of which every run is done."""
        states: dict[int, list[str]] = {}
        for run in case.runs():
            states.setdefault(run.replica, []).append(self.known.runs[run.name].state)
        return {r for r, all_of in states.items() if set(all_of) == {"done"}}

    def _analysed(self, case: Case, found: Analysed) -> None:
        self.note(
            Event(
                now(),
                "analysed",
                case.name,
                why=found.why or None,
                value=found.value,
                error=found.error,
                unit=found.unit or None,
                replicas=0 if found.lost else found.replicas,
            )
        )
        if found.why:
            self.say(f"{case.name}: not analysed: {found.why}")
        self._decide(case, found.replicas, found.error)
        if found.replicas and len(self._whole_replicas(case)) > found.replicas:
            self._settle(case)  # some were added meanwhile

    def _decide(self, case: Case, n: int, error: float | None) -> None:
        """With an error asked for: whether there is enough, or how many replicas more.

        The error of n equal replicas falls as 1/√n; the estimate is made anew after each analysis.
        """
        if case.error is None or case.steps is None:
            return
        if error is not None and 1e3 * error <= case.error:
            why = f"error {1e3 * error:.3g} meV of {case.error:g} asked after {n} replicas"
            self.note(Event(now(), "enough", case.name, error=case.error, replicas=n, why=why))
            return
        progress = self.known.cases.get(case.name)
        released = (progress.released if progress is not None else None) or FIRST
        if released >= case.replicas:
            return
        need = n + 1 if not error else math.ceil(n * (1e3 * error / case.error) ** 2)
        more = min(case.replicas, max(released + 1, need))
        got = "no error yet" if error is None else f"error {1e3 * error:.3g} meV"
        why = f"{got} of {case.error:g} asked after {n} replicas: as far as replica {more}"
        self.note(Event(now(), "more", case.name, replicas=more, why=why))
        self._queue()

    def _tell_how_far(self) -> None:
        if time.monotonic() < self._tell:
            return
        self._tell = time.monotonic() + 60.0
        states = [run.state for run in self.known.runs.values()]
        self.say(", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states)))


def _in_words(error: BaseException) -> str:
    """Of what Parsl raises when a worker is lost, the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
