"""``run --error``: until a total has the error that was asked for, or the budget is over."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path

from ..contract.manifest import is_workflow
from ..contract.target import Asked
from ..contract.text import parse_budget
from ..errors import AnalysisError, InputError, OutOfTime
from ..execute.supervisor import Resources
from .show import Display, Terminal, analyze_and_print, until_stopped


def run_to_error(
    targets: list[Path],
    error: str,
    per: str,
    budget: str | None,
    options: Resources,
    start_from: str | None = None,
) -> bool:
    """Run until the error is reached, then analyse; False if budget or wall time were over before.

    error, per, budget: as typed.
    """
    asked = Asked.of(error, per)
    seconds, evaluations = (None, None) if budget is None else parse_budget(budget)
    if len(targets) != 1 or start_from is not None:
        raise InputError("--error: give one run, one folder of replicas or one workflow with it")
    from ..workflow.target import Budget, pursue  # scipy

    (place,) = targets
    over = None if seconds is None else time.monotonic() + seconds
    ends = [t for t in (over, options.stop_at) if t is not None]
    limited = replace(options, stop_at=min(ends, default=None))
    display = Display(Terminal())

    def act() -> bool:
        reached = False
        with display:
            try:
                spend = Budget(evaluations, over)
                reached = pursue(place, asked, spend, limited, display.report, display.say)
            except OutOfTime:
                if over is None or time.monotonic() < over:
                    raise  # of the wall time
                display.say("the budget is over")
        try:
            analyze_and_print([place], None, None, partial=not is_workflow(place))
        except AnalysisError as err:
            if reached:
                raise
            display.say(str(err))
        if not reached:
            anew = "the budget counts from the first evaluation on: raise it to go on"
            display.say(f"continue with: {again}" if evaluations is None else anew)
        return reached

    typed = ["--error", error, "--per", per, *([] if budget is None else ["--budget", budget])]
    again = f"alchemdriver run {shlex.join([*options.as_typed(), *typed, str(place)])}"
    return until_stopped(act, display, again, begun=True)
