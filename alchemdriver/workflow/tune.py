"""``alchemdriver tune``: from a pilot's switches and holds to a schedule that costs less.

| choice        | rule                                                                           |
|---------------|--------------------------------------------------------------------------------|
| `schedule`    | λ̇ ∝ 1/√ζ, ζ(λ) from the pilot (analysis/estimators/friction.py), as a table    |
| `equilibrate` | six correlation times of ∂H/∂λ, the longer one of both ends; not shorter where  |
|               | the pilot's holds are too short to show them                                    |
| `switch`      | as long as a hold, but for 1 kT of dissipation at most and ½ kT at least; and   |
|               | two correlation times, below which friction is not what resists; never shorter  |
|               | where that costs more                                                           |

A pair's ΔF scatters by kT W, W the dissipation, which falls as 1/t: what a given error costs is
proportional to W × (steps of a cycle).  A run that has begun keeps its schedule, so the choices are
written as inputs of a new one; nothing of the pilot is touched.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from ..analysis.estimators.friction import Friction, friction, of_holds
from ..analysis.estimators.holds import Hold
from ..analysis.estimators.work import SwitchingRun, switching_work
from ..analysis.files.readers import read_gradients
from ..contract import shelf
from ..contract.files import whole_folder, write_files
from ..contract.layout import find_runs
from ..contract.origin import files_of
from ..contract.run_input import RunInput, read_input
from ..contract.schedule import table
from ..errors import InputError
from ..prepare.tree import edit_parameters, with_cycles
from ..units import kT

TABLE, REPORT = "tuned-schedule.txt", "tuning.txt"
CHOICES = ("schedule", "switch", "equilibrate")
HOLD = 6.0  # correlation times; fewer than five are warned of
FOLLOWS = 2.0  # correlation times, of a switch that is near equilibrium
MOST, LEAST = 1.0, 0.5  # kT, that a switch is to dissipate
SEEDS = 7919  # between a pilot's seed and that of the run that it tunes


@dataclass(frozen=True)
class Choice:
    """One key: what it was, what it is to be, and why."""

    key: str
    before: str
    now: str
    reason: str


@dataclass(frozen=True)
class Tuning:
    """What a pilot says."""

    friction: Friction
    choices: tuple[Choice, ...]
    dissipation: tuple[float, float]  # kT, of a switch as it was and as it is to be
    gain: float  # how many times fewer evaluations the same error takes

    def lines(self) -> list[str]:
        """For people."""
        lam = np.linspace(0.0, 1.0, 6)
        zeta, error = 1e3 * self.friction.at(lam), self.friction.error(lam)
        rows = [f"{c.key}: {c.before} -> {c.now}: {c.reason}" for c in self.choices]
        return [
            "friction in meV ps (error of a factor): "
            + ", ".join(
                f"{z:.3g} ({np.exp(e):.2f}) at {x:.1f}"
                for x, z, e in zip(lam, zeta, error, strict=True)
            ),
            *rows,
            f"expected dissipation of a switch: {self.dissipation[0]:.2f} kT -> "
            f"{self.dissipation[1]:.2f} kT",
            f"evaluations for the same error: {self._gain()}",
        ]

    def _gain(self) -> str:
        if self.gain >= 1.0:
            return f"{self.gain:.2g} times fewer"
        grew = any(c.key == "equilibrate" and int(c.now) > int(c.before) for c in self.choices)
        why = "; the holds were too short for starts that are independent" if grew else ""
        return f"{1.0 / self.gain:.2g} times more{why}"


def tune(place: Path, out: Path, keep: tuple[str, ...] = ()) -> Tuning:
    """Write the inputs of a tuned run into *out*, with its schedule and the reasons.

    place: a pilot, or its replicas, with complete pairs.  keep: keys that stay as they are.
    Raises InputError or AnalysisError, with nothing written.
    """
    wrong = next((k for k in keep if k not in CHOICES), None)
    if wrong is not None:
        raise InputError(f"keep: expected {', '.join(CHOICES)}, got '{wrong}'")
    inputs = find_runs(place)
    runs = [read_input(path.resolve()) for path in inputs]
    for run in runs:
        if run.schedule is None:
            raise InputError(f"{run.path} has no schedule: there is none to tune")
        for name, _ in files_of(run):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise InputError(
                    f"{run.path} names {name}, outside its folder: copy it there first"
                )
    tuning = choose(runs, keep)
    with whole_folder(out) as folder:
        for run in runs:
            place_ = folder if len(runs) == 1 else folder / run.folder.name
            place_.mkdir(exist_ok=True)
            _copy(run, place_, Path(out) / place_.relative_to(folder), tuning)
        write_files({folder / REPORT: "\n".join(tuning.lines()) + "\n"})
    return tuning


def choose(runs: list[RunInput], keep: tuple[str, ...]) -> Tuning:
    """The choices for *runs*, replicas of each other that have run."""
    first = runs[0]
    schedule, dt = first.schedule, (first.timestep or 0.0) * 1e-3
    assert schedule is not None
    done = [switching_work(run) for run in runs]
    t = kT(first.kelvin)
    found = friction(*_pairs(done), dt, _ends(runs, dt))
    hold, switch = schedule.equilibrate, schedule.switch
    shape: Callable[[float], float] = schedule.shape
    choices = []
    if "schedule" not in keep:
        rows = found.table()
        shape = lambda x: float(np.interp(x, rows[:, 0], rows[:, 1]))  # noqa: E731
        ratio = found.dissipation(schedule.shape, 1.0) / found.dissipation(shape, 1.0)
        choices.append(
            Choice(
                "schedule", first.parameters.schedule or "", TABLE,
                f"slow where friction is high, dissipates {ratio:.2f} times less in the same time",
            )
        )  # fmt: skip
    holds = [h for run in done for h in run.holds]
    slowest = max([1e-3 * first.relaxation_fs, *(h.correlation_time or 0.0 for h in holds)])
    if "equilibrate" not in keep:
        hold, reason = _hold(schedule.equilibrate, holds, slowest, dt)
        choices.append(Choice("equilibrate", str(schedule.equilibrate), str(hold), reason))
    before = found.dissipation(schedule.shape, schedule.switch * dt) / t

    def expected(switch: int) -> tuple[float, float]:
        """Dissipation (kT) of so many steps, and how many times fewer evaluations they take."""
        after = found.dissipation(shape, switch * dt) / t
        cost = before * (schedule.equilibrate + schedule.switch)
        return after, cost / (after * (hold + switch))

    if "switch" not in keep:
        unit = found.dissipation(shape, 1.0) / t / dt  # steps for 1 kT
        wanted = min(max(unit / MOST, float(hold)), unit / LEAST)
        switch = ceil(max(wanted, FOLLOWS * slowest / dt, 1.0))
        reason = f"dissipates {unit / switch:.2f} kT; {hold} steps of hold come with it"
        if switch > ceil(wanted):
            reason += f"; {FOLLOWS:g} correlation times at least, or friction says nothing of it"
        if switch < schedule.switch and (gain := expected(switch)[1]) < 1.0:
            reason = f"kept: {switch} would take {1.0 / gain:.2g} times more evaluations"
            switch = schedule.switch
        choices.append(Choice("switch", str(schedule.switch), str(switch), reason))
    after, gain = expected(switch)
    return Tuning(found, tuple(choices), (before, after), gain)


def _hold(before: int, holds: list[Hold], slowest: float, dt: float) -> tuple[int, str]:
    """Steps of a hold that was *before* steps long, and why; slowest, dt: ps."""
    if not any(h.correlation_time for h in holds):
        return before, "kept: the pilot's holds do not show how long they remember"
    steps = ceil(HOLD * slowest / dt)
    reason = f"{HOLD:g} correlation times of {slowest:.2g} ps, the longest of both ends"
    if any(h.untold for h in holds):
        reason += "; the pilot's holds are too short to know it"
        if steps < before:
            return before, f"{reason}: not shortened"
    return steps, reason


def _pairs(done: list[SwitchingRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """λ of a forward switch, and ∂H/∂λ (eV) there on the ways out and back, (pairs, n)."""
    forward, backward = [], []
    for run in done:
        forward += [s.gradient for s in run.of("forward")[: run.pairs]]
        backward += [s.gradient[::-1] for s in run.of("backward")[: run.pairs]]
    lam = next((s.lam for run in done for s in run.of("forward")), np.zeros(0))
    return lam, np.array(forward), np.array(backward)


def _ends(
    runs: list[RunInput], dt: float
) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """Friction at λ = 0 and 1 from the second halves of the holds."""
    series: dict[str, list[np.ndarray]] = {"hold0": [], "hold1": []}
    for run in runs:
        gradients = read_gradients(run)
        mean, last = gradients.mean, int(gradients.steps[-1])
        assert run.schedule is not None
        for s in run.schedule.segments():
            if s.kind in series and s.stop <= last and s.stop > s.start:
                series[s.kind].append(mean[(s.start + s.stop) // 2 : s.stop + 1])
    zero, one = (
        of_holds(series[kind], dt, runs[0].kelvin) if series[kind] else None
        for kind in ("hold0", "hold1")
    )
    return zero, one


def _copy(run: RunInput, folder: Path, final: Path, tuning: Tuning) -> None:
    """The input of *run* and the files that it names into *folder*, which will be *final*."""
    for name, _ in files_of(run):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.folder / name, folder / name)
    path = folder / run.path.name
    text = run.path.read_text(encoding="utf-8")
    seed = rf"\g<1>{run.seed + SEEDS}\g<2>"
    path.write_text(re.sub(r"(<seed>\s*)[0-9]+(\s*</seed>)", seed, text, count=1), encoding="utf-8")
    if any(c.key == "schedule" for c in tuning.choices):
        rows = "".join(f"{tau:.6f} {lam:.12f}\n" for tau, lam in tuning.friction.table())
        write_files({folder / TABLE: "# tau lambda: least dissipation by the pilot\n" + rows})
        table(folder / TABLE)  # InputError if it is none
    changes: dict[str, str | None] = {c.key: c.now for c in tuning.choices}
    for key in ("model", "other"):
        value = getattr(run.parameters, key)
        if value is not None and shelf.is_file(value):
            changes[key] = os.path.relpath(run.folder / value, final.resolve())
    edit_parameters(path, changes)
    assert run.schedule is not None
    write_files({path: with_cycles(path, run.schedule.cycles)})
