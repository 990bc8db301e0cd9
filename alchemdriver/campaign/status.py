"""How a campaign stands, from its rows and its journal alone: no run folder is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from . import journal, lease, record
from .journal import CaseProgress, Known
from .lease import Holder
from .record import Case, Value

__all__ = ["CaseStatus", "Status", "survey"]


@dataclass(frozen=True)
class CaseStatus:
    """One case.  value, error: eV per *unit*; None where there is none yet."""

    name: str
    axes: dict[str, Value]
    runs: dict[str, int]  # by state: waiting, running, done, failed, not needed
    value: float | None
    error: float | None
    asked: float | None  # eV per unit, the error that was asked for
    unit: str
    hours_left: float | None  # of a worker; None: nothing is known yet
    note: str  # why there is no value


@dataclass(frozen=True)
class Status:
    cases: list[CaseStatus]
    failures: list[tuple[str, str]]  # run, its last line
    driver: Holder | None  # None: nobody drives the campaign
    workers: int | None  # of the last driver
    worker_hours: float  # spent so far

    @property
    def runs(self) -> dict[str, int]:
        """Runs by state."""
        return dict(sum((Counter(case.runs) for case in self.cases), Counter()))

    @property
    def hours_left(self) -> float | None:
        """Wall time with as many workers as the last driver had; None if that is not known."""
        known = [case.hours_left for case in self.cases]
        left = [hours for hours in known if hours is not None]
        if len(left) < len(known) or not self.workers:
            return None
        return sum(left) / self.workers

    @property
    def over(self) -> bool:
        """Whether nothing is left that a driver would do."""
        return not any(self.runs.get(state) for state in ("waiting", "running"))


def survey(root: Path) -> Status:
    """Raises InputError where there is no campaign, RunError for a journal that cannot be read."""
    campaign = record.read(root)
    known = journal.replay(root, campaign)
    driver = lease.holder(root)
    pace = _seconds_per_evaluation(campaign.cases, known)
    cases = [_case(case, known, pace, driver is not None) for case in campaign.cases]
    failures = [(name, run.why) for name, run in known.runs.items() if run.state == "failed"]
    spent = sum(run.seconds for run in known.runs.values())
    return Status(cases, failures, driver, known.workers, spent / 3600)


def _case(case: Case, known: Known, pace: dict[str, float], driven: bool) -> CaseStatus:
    progress = known.cases.get(case.name, CaseProgress())
    enough = progress.has(case.error)
    states: Counter[str] = Counter()
    left = 0.0
    for run in case.runs():
        at = known.runs[run.name]
        state: str = at.state if driven or at.state != "running" else "waiting"
        state = "not needed" if state == "waiting" and enough else state
        states[state] += 1
        if state in ("waiting", "running") and case.steps:
            left += 1 - at.step / case.steps
    per = pace.get(case.system, pace.get("")) if case.evaluations else None
    hours = None if per is None else left * (case.evaluations or 0) * per / 3600
    return CaseStatus(
        case.name,
        case.axes,
        dict(states),
        progress.value,
        progress.error,
        None if case.error is None else 1e-3 * case.error,
        progress.unit,
        0.0 if not left and case.steps else hours,
        progress.why,
    )


def _seconds_per_evaluation(cases: tuple[Case, ...], known: Known) -> dict[str, float]:
    """Measured, by system; under '' that of all."""
    spent: dict[str, list[float]] = {}
    for case in cases:
        for run in case.runs():
            at = known.runs[run.name]
            if at.step and at.seconds and case.steps and case.evaluations:
                done = at.step / case.steps * case.evaluations
                for key in (case.system, ""):
                    total = spent.setdefault(key, [0.0, 0.0])
                    total[0] += at.seconds
                    total[1] += done
    return {key: seconds / n for key, (seconds, n) in spent.items()}
