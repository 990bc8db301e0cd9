"""What ``alchemdriver campaign`` prints."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..analysis.report.plain import printable
from ..errors import InputError
from . import planning
from .planning import Draft
from .record import Campaign, is_campaign
from .status import Status, survey

_MOST_ROWS = 60  # of a table
_MOST_LINES = 20
_EVERY = 10.0  # s between tables


def print_draft(path: Path, device: str) -> None:
    """The cases of a plan with evaluations and hours, from one timed evaluation per system."""
    from .timing import seconds_per_evaluation

    made = planning.draft(path)
    timed = seconds_per_evaluation(made, device)
    table = Table("case", "runs", "steps of each", "evaluations", "hours")
    hours = []
    for case in made.campaign.cases:
        n = len(case.seeds)
        if case.steps is None or case.evaluations is None:
            row = ["in stages", "–", "–"]
        else:
            hours.append(n * case.evaluations * timed[case.name] / 3600)
            row = [str(case.steps), str(n * case.evaluations), f"{hours[-1]:.3g}"]
        table.add_row(case.name, str(n), *row)
    print_table(table)
    print(f"{_counts(made.campaign)}; nothing is written")
    if hours:
        print(
            f"{sum(hours):.3g} hours one after the other, from one evaluation timed per system on "
            f"{device} of this machine; an estimate without i-PI's own share"
        )


def plan_and_print(path: Path, root: Path) -> None:
    made = planning.draft(path)
    planning.save(made, root)
    print(f"{_counts(made.campaign)} in {root}")
    print(f"start with: alchemdriver campaign run {shlex.quote(str(root))}")


def add_and_print(root: Path, path: Path) -> None:
    if not is_campaign(root):
        raise InputError(f"{root}: no campaign to add to: alchemdriver campaign {path} {root}")
    made: Draft = planning.draft(path)
    cases, runs = planning.extend(root, made)
    print(f"{cases} cases and {runs} runs added to {root}")


def run_and_print(root: Path, choice: str) -> None:
    from .driver import drive

    console = Console(stderr=True, markup=False, emoji=False)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    again = f"alchemdriver campaign run {shlex.quote(str(root))} --executor {shlex.quote(choice)}"
    try:
        drive(root, choice, say)
    except KeyboardInterrupt:
        say(f"stopped; go on with: {again}")
        raise
    print(f"all done; alchemdriver campaign status {shlex.quote(str(root))}")


def print_status(root: Path, watch: bool) -> None:
    """The table of the cases, what failed, and what is left; again and again if *watch*."""
    while True:
        status = survey(root)
        if watch and sys.stdout.isatty():
            print("\x1b[2J\x1b[H", end="")  # a clean screen
        _print_status(status)
        if not watch or status.over:
            return
        time.sleep(_EVERY)


def _print_status(status: Status) -> None:
    shown = status.cases
    if len(shown) > _MOST_ROWS:  # then those that something is going on with
        shown = [c for c in shown if c.runs.get("running") or c.runs.get("failed")][:_MOST_ROWS]
    table = Table(
        "case", "done", "running", "queued", "failed", "value (eV)", "±", "asked", "h left"
    )
    for case in shown:
        total = sum(case.runs.values()) - case.runs.get("not needed", 0)
        table.add_row(
            case.name,
            f"{case.runs.get('done', 0)}/{total}",
            *(str(case.runs.get(state, 0)) for state in ("running", "waiting", "failed")),
            *(
                "–" if x is None else f"{x:.5f}" if n == 0 else f"{x:.2g}"
                for n, x in enumerate((case.value, case.error, case.asked, case.hours_left))
            ),
        )
    if shown:
        print_table(table)
    if len(shown) < len(status.cases):
        print(f"shown: {len(shown)} of {len(status.cases)} cases, those that run or have failed")
    lines = [f"failed: {name}: {why}" for name, why in status.failures]
    lines += [f"no value: {case.name}: {case.note}" for case in status.cases if case.note]
    for line in lines[:_MOST_LINES]:
        print(printable(line))
    if len(lines) > _MOST_LINES:
        print(f"and {len(lines) - _MOST_LINES} more")
    runs = status.runs
    total = sum(runs.values())
    words = [f"{n} {'queued' if state == 'waiting' else state}" for state, n in runs.items()]
    left = status.hours_left
    print(
        f"{total} runs: {', '.join(words)}; {status.worker_hours:.3g} worker hours spent"
        + ("" if left is None else f", about {left:.2g} h left with {status.workers} at a time")
    )
    if status.driver is not None:
        print(f"driven from {status.driver.host} (pid {status.driver.pid})")
    elif not status.over:
        print("no driver runs: alchemdriver campaign run DIR")


def _counts(campaign: Campaign) -> str:
    runs = sum(len(case.seeds) for case in campaign.cases)
    return f"{len(campaign.cases)} cases, {runs} runs of {campaign.protocol}"


def print_table(table: Table) -> None:
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, emoji=False).print(table)
