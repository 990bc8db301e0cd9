"""``run --error``: on until a total has the error that was asked for.

Run what is unfinished, look, decide, lengthen; again.  Every decision rests on what is printed and
on counts of evaluations, so that it comes out the same however often it was stopped in between:
a look at the same rows takes the place of the one before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

from .. import analysis
from ..analysis.compare.target import METHOD, changing, source_of, wanted_of
from ..analysis.compare.target_of_stages import row_name, sources_of, wanted_of_rows
from ..analysis.estimators.stopping import (
    FEWEST,
    Source,
    Wanted,
    deciding,
    met,
    next_lengths,
    out_of_reach,
    outlook,
)
from ..analysis.files.trajectory import trajectory_file
from ..contract import manifest, target
from ..contract.layout import find_runs, home_of
from ..contract.manifest import is_workflow
from ..contract.run_input import RunInput, conditions, read_input
from ..contract.settings import CrystalSettings, VacancySettings
from ..contract.target import Asked, Look, Seen, Target
from ..contract.xmltree import many, parse_xml, whole
from ..errors import InputError, RunError
from ..execute.progress import Progress
from ..execute.rows import check_goes_on, resume_point
from ..execute.supervisor import Resources, execute
from ..prepare.lengthen import finish, lengthen
from ..server.lock import only_server
from . import averages, relax
from .limits import too_short
from .runner import run_workflow

Report = Callable[[str, Progress, bool], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How much may be spent; None: as much as it takes."""

    evaluations: int | None = None  # of the model, from the very first one on
    until: float | None = None  # time.monotonic()

    def left(self, spent: int, speed: float | None) -> float | None:
        """Evaluations that may still be done, *spent* are; speed: s for one of them."""
        found = [] if self.evaluations is None else [float(self.evaluations - spent)]
        if self.until is not None and speed:
            found.append((self.until - time.monotonic()) / speed)
        return max(0.0, min(found)) if found else None


@dataclass(frozen=True)
class State:
    """What a look finds."""

    totals: list[Wanted]
    sources: dict[str, Source]
    values: dict[str, float]  # of each total, eV
    errors: dict[str, float | None]  # stated, eV


def pursue(
    place: Path, asked: Asked, budget: Budget, options: Resources, report: Report, say: Say
) -> bool:
    """Go on with the run, the replicas or the workflow in *place* until it has the error *asked*
    for; False if the budget was over before.

    options: ``stop_at`` ends a run in its middle (OutOfTime); a budget ends between two looks.
    Raises InputError for what cannot be lengthened, RunError, OutOfTime; what is done stays done.
    """
    calculation: Runs | Stages = Stages(place) if is_workflow(place) else Runs(place)
    home = calculation.home
    calculation.check(asked)
    with _locked([home, *calculation.folders]):
        finish(home)
        planned, spent = calculation.planned(), calculation.evaluations()
        if budget.evaluations is not None and spent < planned and planned > budget.evaluations:
            raise InputError(
                f"budget: the lengths that stand in the inputs take {planned} evaluations, more "
                f"than {budget.evaluations}: raise it"
            )
        found = replace(target.read(home) or Target(asked), asked=asked)
        target.write(home, found)
    while True:
        began, spent = time.monotonic(), calculation.evaluations()
        calculation.run(options, report, say)
        took, fresh = time.monotonic() - began, calculation.evaluations() - spent
        state = calculation.state(asked)
        found = _look(found, state, spent + fresh, took / fresh if fresh > 0 else None)
        target.write(home, found)
        say(outlook(found, state.totals, state.sources, state.errors).line)
        if met(state.totals, state.sources):
            return True
        for name, source in state.sources.items():
            if source.sigma is None and source.pairs >= FEWEST:
                raise RunError(
                    f"{name}: {source.pairs} pairs of switches give no error: their works do not "
                    "scatter, so nothing moves, or all switches are the same"
                )
        rest = out_of_reach(state.totals)
        if rest is not None:
            raise InputError(
                f"{rest[0].name}: {1e3 * rest[0].error:.3g} meV cannot be reached by more cycles: "
                f"its terms alone have an error of {1e3 * rest[1]:.3g} meV per cell"
            )
        left = budget.left(spent + fresh, found.speed)
        lengths = next_lengths(state.totals, state.sources, left)
        if not lengths:
            say("the budget is over")
            return False
        with _locked([home, *calculation.folders]):
            cycles = calculation.cycles(lengths)
            for path, n in cycles.items():
                run = read_input(path)
                if run.schedule is not None and n > run.schedule.cycles:
                    check_goes_on(run)
            found = lengthen(home, found, cycles)


def _look(found: Target, state: State, evaluations: int, speed: float | None) -> Target:
    """*found* with what is seen now; the same rows are seen once for each error asked for."""
    seen = []
    for t in state.totals:
        share, error = found.asked.error / t.error, state.errors[t.name]
        decides = deciding(t, state.sources)
        seen.append(
            Seen(
                t.name,
                state.values[t.name] * share,
                None if error is None else error * share,
                decides * share if isfinite(decides) else None,
            )
        )
    cycles = {name: s.lengths for name, s in state.sources.items()}
    looks = found.looks
    if looks and looks[-1].cycles == cycles:
        looks, speed = looks[:-1], speed or looks[-1].seconds_per_evaluation
    look = Look(
        found.asked, evaluations, tuple(seen), cycles, met(state.totals, state.sources), speed
    )
    return replace(found, looks=(*looks, look))


def _locked(folders: list[Path]) -> ExitStack:
    """Nobody else runs in *folders*, or Busy."""
    stack = ExitStack()
    try:
        for folder in dict.fromkeys(f.resolve() for f in folders):
            stack.enter_context(only_server(folder))
    except BaseException:
        stack.close()
        raise
    return stack


def _evaluations(runs: Iterable[RunInput]) -> int:
    """Of the model for what is done: one a step and bead, and one to begin."""
    points = [(resume_point(run), run.beads) for run in runs]
    return sum((point.step + 1) * beads for point, beads in points if point is not None)


def _planned(runs: Iterable[RunInput]) -> int:
    """The same for all that stands in the inputs."""
    return sum((run.total_steps + 1) * run.beads for run in runs)


# --- one run, or replicas -----------------------------------------------------------------------


class Runs:
    """One run, or several replicas of it."""

    def __init__(self, place: Path):
        self.inputs = find_runs(place)
        self.home = home_of(self.inputs)
        self.folders = [path.parent for path in self.inputs]
        if manifest.stage_of(self.home) is not None:
            raise InputError(
                f"{place} belongs to a workflow, whose total decides how long its stages are: give "
                "the workflow's folder"
            )
        for run in self._runs():
            if run.schedule is None or run.lambda_path.sweeps_temperature:
                raise InputError(
                    f"{run.path}: an error can be reached by switches between two states, whose "
                    "cycles can go on: not at fixed lambda, nor of a curve G(T)"
                )

    def check(self, asked: Asked) -> None:
        """InputError for an error per what there is none of."""
        if asked.per == "site" and changing(self._runs()[0]) == 0:
            raise InputError("per site: no atom of this run changes; ask per cell or per atom")

    def _runs(self) -> list[RunInput]:
        return [read_input(path) for path in self.inputs]

    def planned(self) -> int:
        return _planned(self._runs())

    def evaluations(self) -> int:
        return _evaluations(self._runs())

    def run(self, options: Resources, report: Report, say: Say) -> None:
        execute(self.inputs, options, report, say)
        for run in self._runs():
            printed, hold = trajectory_file(run), run.parameters.equilibrate or 0
            if printed and not too_short("free energy", printed[1], run.total_steps, hold):
                averages.check_holds(run)  # works of a phase that was left are of something else

    def state(self, asked: Asked) -> State:
        result = analysis.analyze(self.inputs)
        name, total = result.folder.name, result.total(METHOD)
        if total.value is None:
            raise RunError(f"{result.folder}: no total: {'; '.join(result.warnings)}")
        wanted = wanted_of(result, asked, changing(self._runs()[0]))
        source = source_of(result, name)
        if total.se is None and source.sigma is not None:  # a term has none: cycles give it none
            raise RunError(f"{result.folder}: {total.se_kind}")
        return State(
            [wanted],
            {name: source},
            {wanted.name: total.value},
            {wanted.name: total.se},
        )

    def cycles(self, lengths: Mapping[str, tuple[int, ...]]) -> dict[Path, int]:
        (wanted,) = lengths.values()
        return dict(zip(self.inputs, wanted, strict=True))


# --- a workflow ---------------------------------------------------------------------------------


class Stages:
    """All stages of a workflow; those that give free energies can be lengthened."""

    def __init__(self, place: Path):
        self.home = Path(place).resolve()
        self.workflow = manifest.read(self.home)
        inputs = [path for s in self.workflow.stages for path in s.inputs(self.home)]
        self.inputs = [path for path in inputs if path.name == "input.xml"]
        self.folders: list[Path] = []  # whoever runs stages holds the lock of the whole

    def check(self, asked: Asked) -> None:
        """InputError for an error per what there is none of."""
        s = self.workflow.settings
        if asked.per != "site" or isinstance(s, VacancySettings):
            return
        if isinstance(s, CrystalSettings):
            raise InputError("per site: no atom of a crystal changes; ask per cell or per atom")
        entire = [phase for phase in s.phases if phase not in s.substituted]
        if entire:
            raise InputError(
                f"per site: {entire[0]} changes as a whole, not on some of its sites; ask per "
                "cell, atom or formula-unit"
            )

    def _runs(self) -> list[RunInput]:
        """Those that have been fed."""
        fed = [path for path in self.inputs if (path.parent / "start.xyz").is_file()]
        return [read_input(path) for path in fed]

    def planned(self) -> int:
        """With the stages that are not fed yet, whose inputs cannot be read as a whole; of
        relaxations, those that are done."""
        found = self._relaxing()
        for path in self.inputs:
            if not path.is_file():
                raise InputError(f"{path} is missing: put it back, or prepare the workflow again")
            root = parse_xml(path.read_text(encoding="utf-8"), str(path))
            steps = whole(root.get("total_steps"), "<total_steps>", 1000, least=1)
            found += (steps + 1) * sum(conditions(s).beads for s in many(root.get("system")))
        return found

    def evaluations(self) -> int:
        return _evaluations(self._runs()) + self._relaxing()

    def _relaxing(self) -> int:
        done = [s for s in self.workflow.stages if s.does == "relax"]
        folders = [self.home / s.name for s in done if s.gives(self.home)[0].is_file()]
        return sum(relax.evaluations(folder) for folder in folders)

    def run(self, options: Resources, report: Report, say: Say) -> None:
        run_workflow(self.home, options, report, say)

    def state(self, asked: Asked) -> State:
        result = analysis.analyze_workflow(self.home)
        if result.missing:  # all stages are done, so one gives no number that can be used
            none = f"{self.home / result.missing[0]}: it gives no total with an error"
            raise RunError(next(iter(result.warnings), none))
        rows = {row_name(row): row for row in result.rows}
        totals = wanted_of_rows(self.workflow, list(result.rows), asked)
        return State(
            list(totals.values()),
            sources_of([rows[name] for name in totals], result.stages),
            {name: rows[name].value for name in totals},
            {name: rows[name].se for name in totals},
        )

    def cycles(self, lengths: Mapping[str, tuple[int, ...]]) -> dict[Path, int]:
        found: dict[Path, int] = {}
        for name, wanted in lengths.items():
            inputs = self.workflow.stage(name).inputs(self.home)
            found |= dict(zip(inputs, wanted, strict=True))
        return found
