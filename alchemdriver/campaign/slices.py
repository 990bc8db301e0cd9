"""What a worker does: a time slice of one run, or the analysis of a case.

These functions are called in processes of Parsl, on whatever node; all they need is handed over,
and the campaign's folder, which all nodes see.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..contract.manifest import is_workflow
from ..contract.run_input import read_input
from ..contract.text import parse_wall_time
from ..errors import AlchemdriverError, AnalysisError, Busy, InputError, ModelError, OutOfTime
from ..execute.progress import Progress, read_progress
from ..execute.supervisor import Resources, execute
from .folders import ensure_folder
from .plan import RunSettings
from .record import RUNS, Campaign, Case, Run

__all__ = ["BLOCK_ENDS", "Analysed", "Ended", "analyse", "compute", "margin"]

BLOCK_ENDS = "ALCHEMDRIVER_BLOCK_ENDS"  # environment: s since 1970 at which slices stop
LONG = 600.0  # s in which a run makes a step at least
LEAST = 10.0  # s that a slice should have: less is not worth loading a model


@dataclass(frozen=True)
class Ended:
    """How a slice ended."""

    what: Literal["done", "again", "busy", "failed", "refused"]
    step: int | None  # that was reached
    seconds: float
    host: str
    why: str = ""


@dataclass(frozen=True)
class Analysed:
    """The free energy of a case; no value where there is none, and why."""

    replicas: int
    value: float | None = None  # eV per unit
    error: float | None = None
    unit: str = ""
    why: str = ""
    lost: bool = False  # by what the machine did: worth another try


def margin(walltime: float) -> float:
    """Seconds before the end of a batch job at which its slices stop, to write what they resume
    from."""
    return min(120.0, 0.25 * walltime)


def compute(root: str, campaign: Campaign, run: Run, settings: RunSettings, device: str) -> Ended:
    """Run *run* for a slice of time, from where it is.

    campaign: with the system and the case of *run* at least.  Never raises what is a user's to
    know: it is in what is returned.
    """
    began = time.monotonic()
    first: int | None = None
    last: int | None = None

    def ended(what: Literal["done", "again", "busy", "failed", "refused"], why: str = "") -> Ended:
        return Ended(what, last, time.monotonic() - began, socket.gethostname(), why)

    seconds = parse_wall_time(settings.slice)
    if BLOCK_ENDS in os.environ:
        left = float(os.environ[BLOCK_ENDS]) - time.time()
        if left < LEAST:
            return ended("again", "the batch job has no time left")
        seconds = min(seconds, left)
    resources = Resources(
        settings.clients,
        1,
        device,
        None,
        settings.threads,
        settings.evaluator,
        stop_at=began + seconds,
    )

    def report(name: str, progress: Progress, resumed: bool) -> None:
        nonlocal last
        last = progress.step

    try:
        folder = ensure_folder(Path(root), campaign, run)
        if is_workflow(folder):
            from ..workflow.runner import run_workflow

            run_workflow(folder, resources, report, _nothing)
        else:
            before = read_progress(read_input(folder / "input.xml"))
            first = 0 if before is None else before.step
            execute([folder / "input.xml"], resources, report, _nothing)
            last = read_input(folder / "input.xml").total_steps
    except OutOfTime:
        # else a slice that is shorter than what a start takes would come again for ever
        stuck = first is not None and (last is None or last == first)
        if stuck and seconds >= min(parse_wall_time(settings.slice), LONG):
            return ended("failed", f"not a step further in a slice of {seconds:.0f} s")
        return ended("again")
    except Busy as err:
        return ended("busy", str(err))
    except (InputError, ModelError) as err:
        return ended("refused", str(err))
    except (AlchemdriverError, OSError) as err:
        return ended("failed", f"{err}" or type(err).__name__)
    return ended("done")


def _nothing(line: str) -> None:
    pass


def analyse(root: str, case: Case, runs: list[Run], device: str) -> Analysed:
    """Analyse *runs* of *case*, all done, into ``result.json`` in the case's folder."""
    from .. import analysis
    from ..analysis.compare.gather import row_of

    home = Path(root) / RUNS / case.name
    replicas = len({run.replica for run in runs})
    try:
        if case.steps is None:
            found = analysis.analyze_workflow(home)
            analysis.write_workflow(found, None)
            if not found.rows:
                return Analysed(replicas, why="; ".join(found.missing))
            row = found.rows[-1]
        else:
            inputs = [Path(root) / RUNS / run.name / "input.xml" for run in runs]
            if read_input(inputs[0]).lambda_path.constant:
                return Analysed(replicas, why="plain dynamics: there is no free energy")
            _evaluate_windows(inputs, device)
            row = row_of(analysis.analyze(inputs, out=home))
    except AlchemdriverError as err:
        return Analysed(replicas, why=f"{err}")
    except OSError as err:
        return Analysed(replicas, why=f"{err}", lost=True)
    return Analysed(replicas, row.per_unit, row.per_unit_se, row.unit)


def _evaluate_windows(inputs: list[Path], device: str) -> None:
    """What MBAR needs of windows at other λ; without it there is TI alone."""
    from ..analysis.estimators.reduced import linear_in_lambda
    from ..execute.reevaluate import reevaluate

    runs = [read_input(path) for path in inputs]
    if len(runs) < 2 or any(run.schedule is not None or linear_in_lambda(run) for run in runs):
        return
    try:
        reevaluate(inputs, device, lambda name, done, total: None)
    except AnalysisError:
        return
