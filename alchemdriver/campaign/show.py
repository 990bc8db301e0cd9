"""What ``alchemdriver campaign`` prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..errors import InputError
from . import planning
from .planning import Draft
from .record import Campaign, is_campaign

_MOST_ROWS = 60  # of a table


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

    drive(root, choice, say)
    print(f"all done; alchemdriver campaign status {shlex.quote(str(root))}")


def _counts(campaign: Campaign) -> str:
    runs = sum(len(case.seeds) for case in campaign.cases)
    return f"{len(campaign.cases)} cases, {runs} runs of {campaign.protocol}"


def print_table(table: Table, rows: Sequence[object] = ()) -> None:
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, emoji=False).print(table)
