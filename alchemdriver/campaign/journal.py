"""``journal.jsonl``: a line for everything that happened, and why; what is done follows from it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from ..contract.files import append_line, parse_json, read_text, write_text
from ..contract.stored import Format, IfKnown, Index, dump
from ..errors import InputError, RunError
from .record import Campaign

__all__ = ["FILE", "Event", "Progress", "State", "append", "events", "replay"]

FILE = "journal.jsonl"

What = Literal[
    "driver",  # one was started
    "sent",  # a slice of a run, to a worker
    "again",  # a slice ended with the run unfinished, as it should
    "busy",  # somebody else runs in that folder
    "done",  # a run
    "failed",  # a slice died; it is tried again
    "given up",  # failed too often, or refused
    "analysed",  # a case
    "more",  # a case needs further replicas for its error
    "enough",  # a case has the error that was asked for
]
_WORDS = frozenset(get_args(What))
State = Literal["waiting", "running", "done", "failed", "not needed"]


@dataclass(frozen=True)
class Event:
    time: float  # s since 1970
    what: What
    of: str = ""  # a run or a case
    step: Annotated[Index | None, IfKnown()] = None  # that the run has reached
    seconds: Annotated[float | None, IfKnown()] = None  # that a worker spent
    host: Annotated[str | None, IfKnown()] = None
    why: Annotated[str | None, IfKnown()] = None
    value: Annotated[float | None, IfKnown()] = None  # eV per unit, of a case
    error: Annotated[float | None, IfKnown()] = None  # its SE
    unit: Annotated[str | None, IfKnown()] = None
    replicas: Annotated[Index | None, IfKnown()] = None  # that a case has, or is to have
    workers: Annotated[Index | None, IfKnown()] = None  # runs at a time, of a driver


EVENT = Format("alchemdriver-campaign-journal/1", Event, "remove that line", error=RunError)


def append(root: Path, event: Event) -> None:
    append_line(root / FILE, json.dumps(dump(event), ensure_ascii=False))


def now() -> float:
    return round(time.time(), 3)


def events(root: Path) -> Iterator[Event]:
    """All that happened, in order; a last line that a kill cut short is passed over.

    Raises RunError for a line that is no event.
    """
    path = root / FILE
    if not path.is_file():
        return
    for n, line in enumerate(read_text(path).split("\n")[:-1], 1):
        try:
            data = parse_json(line, f"{path}: line {n}")
        except InputError as err:
            raise RunError(f"{err}: remove that line") from None
        if _as_written(data):
            yield Event(**data)
        else:
            yield EVENT.load(path, Event, data, f"line {n}")


_KINDS = {
    **dict.fromkeys(("what", "of", "host", "why", "unit"), (str,)),
    **dict.fromkeys(("time", "seconds", "value", "error"), (float,)),
    **dict.fromkeys(("step", "replicas", "workers"), (int,)),
}


def _as_written(data: Any) -> bool:
    """Whether *data* is as :func:`append` writes it: most lines are, and there are many."""
    return (
        type(data) is dict
        and data.get("what") in _WORDS
        and "time" in data
        and all(type(value) in _KINDS.get(name, ()) for name, value in data.items())
    )


def mend(root: Path) -> None:
    """Drop a last line without its end, so that the next one begins on its own."""
    path = root / FILE
    if path.is_file() and not (text := read_text(path)).endswith("\n") and text:
        write_text(path, text[: text.rfind("\n") + 1])


@dataclass
class Progress:
    """How far one run is."""

    state: State = "waiting"
    step: int = 0
    seconds: float = 0.0  # of workers, slices that died included where that is known
    failures: int = 0  # in a row, without a step forward
    why: str = ""  # of the last failure
    since: float = 0.0  # when the slice that runs was sent


@dataclass
class CaseProgress:
    """What is known of one case."""

    value: float | None = None  # eV per unit
    error: float | None = None
    unit: str = ""
    why: str = ""  # there is no value
    analysed: int = 0  # replicas in the last analysis
    released: int | None = None  # replicas that are to be run; None: all
    enough: float | None = None  # meV, the error that was asked for when there was enough

    @property
    def lost(self) -> bool:
        """Whether the analysis failed by what the machine did."""
        return bool(self.why) and self.analysed == 0

    def has(self, error: float | None) -> bool:
        """Whether the *error* (meV) that is asked for was found to be there."""
        return self.enough is not None and error is not None and self.enough <= error


@dataclass
class Known:
    """Everything that the journal says."""

    runs: dict[str, Progress]
    cases: dict[str, CaseProgress] = field(default_factory=dict)
    workers: int | None = None  # of the last driver

    def take(self, event: Event) -> None:
        if event.what == "driver":
            self.workers = event.workers
            for run in self.runs.values():  # of drivers before
                if run.state in ("running", "failed"):
                    run.state, run.failures = "waiting", 0
        elif event.what in ("analysed", "more", "enough"):
            self._case(self.cases.setdefault(event.of, CaseProgress()), event)
        elif event.of in self.runs:
            self._run(self.runs[event.of], event)

    def _run(self, run: Progress, event: Event) -> None:
        if event.what == "sent":
            run.state, run.since = "running", event.time
            return
        moved = event.step is not None and event.step > run.step
        run.step = max(run.step, event.step or 0)
        run.seconds += event.seconds or 0.0
        run.state = "waiting"
        if event.what == "done":
            run.state = "done"
        elif event.what == "failed":
            run.failures = 1 if moved else run.failures + 1
            run.why = event.why or ""
        elif event.what == "given up":
            run.state, run.why = "failed", event.why or ""
        elif event.what == "again":
            run.failures = 0 if moved else run.failures

    def _case(self, case: CaseProgress, event: Event) -> None:
        if event.what == "analysed":
            case.value, case.error, case.unit = event.value, event.error, event.unit or ""
            case.why, case.analysed = event.why or "", event.replicas or 0
        elif event.what == "more":
            case.released = event.replicas
        else:
            case.enough, case.released = event.error, event.replicas


def replay(root: Path, campaign: Campaign) -> Known:
    """Raises RunError for a journal that cannot be read."""
    known = Known({run.name: Progress() for run in campaign.runs})
    for event in events(root):
        known.take(event)
    return known
