"""What the command line shows: live progress, results, tables.  Computes nothing itself."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ..contract import shelf
from ..contract.layout import find_runs, home_of
from ..contract.manifest import is_workflow
from ..contract.run_input import read_input
from ..errors import AlchemdriverError, AnalysisError, Busy, InputError, OutOfTime
from ..execute.progress import Progress
from ..execute.supervisor import Resources, execute
from ..prepare.lengthen import finish

log = logging.getLogger(__name__)

# Consoles here have neither markup nor emoji: in names, [red] and :fire: are letters.
SEGMENTS = {
    "hold0": "hold λ=0",
    "forward": "λ 0→1",
    "hold1": "hold λ=1",
    "backward": "λ 1→0",
    "done": "done",
    "fixed": "fixed λ",
    "relaxation": "FIRE",
}
PLAIN_EVERY = 10.0  # s between lines when the output is not a terminal


class Terminal(Console):
    """stderr; rich would end the program when nobody reads it any more."""

    def __init__(self) -> None:
        super().__init__(stderr=True, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Display:
    """Progress of all replicas: bars on a terminal, a line now and then elsewhere.

    A terminal that goes away (``| head``, a closed window) ends the display, not the run.
    """

    def __init__(self, console: Console):
        self.console = console
        self.live = console.is_terminal
        self.broken = False
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%  {task.fields[state]}", markup=False),
            console=console,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}
        self.first: dict[str, tuple[float, int, bool]] = {}  # time, step, whether it moved since
        self.next_line: dict[tuple[str, int], float] = {}

    def __enter__(self) -> Display:
        with self._unbroken():
            self.bars.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        with self._unbroken():
            self.bars.__exit__(*exception)

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.broken = True

    def say(self, line: str) -> None:
        """A line above the bars."""
        if not self.broken:
            with self._unbroken():
                self.bars.console.print(
                    line, soft_wrap=True, markup=False, emoji=False, highlight=False
                )

    def report(self, name: str, progress: Progress, resumed: bool) -> None:
        if self.broken:
            return
        now = time.monotonic()
        state = describe(progress, self._rate(name, progress.step, now))
        if self.live:
            with self._unbroken():
                if name not in self.tasks:
                    self.tasks[name] = self.bars.add_task(name, total=progress.total, state="")
                self.bars.update(
                    self.tasks[name], completed=progress.step, total=progress.total, state=state
                )
        elif now > self.next_line.get((name, progress.total), 0.0):  # it may be lengthened
            done = progress.step >= progress.total
            self.next_line[name, progress.total] = float("inf") if done else now + PLAIN_EVERY
            self.say(f"{name}: step {progress.step}/{progress.total}  {state}")

    def _rate(self, name: str, step: int, now: float) -> float:
        """Steps per second since the first step that was seen to be done; 0 if not known yet.

        What was there before, and the time until the first step, in which models are loaded, say
        nothing about it.
        """
        t0, step0, moved = self.first.setdefault(name, (now, step, False))
        if not moved and step != step0:
            self.first[name] = now, step, True
            return 0.0
        return (step - step0) / (now - t0) if moved and now > t0 + 0.5 else 0.0


def describe(progress: Progress, rate: float) -> str:
    """λ, segment, temperature, steps/s and time left, in one short line."""
    parts = [] if progress.lam is None else [f"λ={progress.lam:.3f}"]
    parts.append(SEGMENTS[progress.segment])
    if progress.temperature is not None:
        parts.append(f"{progress.temperature:4.0f} K")
    if progress.gradient is not None:  # how many steps it takes nobody knows
        return "  ".join([*parts, f"largest gradient {progress.gradient:.2g} eV/Å"])
    if rate > 0:
        left = int((progress.total - progress.step) / rate)
        parts += [
            f"{rate:.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s",
            f"{left // 60}:{left % 60:02d} left",
        ]
    return "  ".join(parts)


@contextmanager
def terminate_like_ctrl_c() -> Iterator[None]:
    """SIGTERM (a batch queue's limit) stops as cleanly as Ctrl-C.

    So does SIGINT where a shell started us in its background, which ignores it.  SIGHUP that is
    ignored stays so: that is what nohup is for.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    before = [signal.signal(signum, interrupt) for signum in signals]
    try:
        yield
    finally:
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)


def run_and_analyze(targets: list[Path], options: Resources, start_from: str | None = None) -> bool:
    """Run all that is not finished, then analyse; on Ctrl-C say how to continue.

    start_from: a stage of a workflow, to be run again with all that follow.  False if the wall
    time was over before all was done.
    """
    display = Display(Terminal())
    staged = [target for target in targets if is_workflow(target)]
    runs = [path for target in targets if target not in staged for path in find_runs(target)]
    if start_from is not None and len(staged) != 1:
        raise InputError("--from names a stage: give one workflow folder with it")

    def act() -> bool:
        for target in targets:
            finish(target if target in staged else home_of(find_runs(target)))
        with display:
            if runs:
                execute(runs, options, display.report, display.say)
            if staged:
                from ..workflow.runner import run_workflow  # scipy
            for target in staged:
                run_workflow(target, options, display.report, display.say, start_from)
        analyze_all(targets, options)
        return True

    begun = staged or any((path.parent / "RESTART").exists() for path in runs)
    again = f"alchemdriver run {shlex.join([*options.as_typed(), *map(str, targets)])}"
    return until_stopped(act, display, again, bool(begun))


def until_stopped(act: Callable[[], bool], display: Display, again: str, begun: bool) -> bool:
    """What *act* returns; however it is stopped, *again* is said, the command that goes on from
    there.  False if the wall time was over."""
    with terminate_like_ctrl_c():
        try:
            return act()
        except KeyboardInterrupt:
            display.say(f"stopped, restart files written; continue with: {again}")
            raise
        except OutOfTime as err:
            display.say(f"{err}; continue with: {again}")
            return False
        except AlchemdriverError as err:
            if begun and not isinstance(err, (InputError, AnalysisError, Busy)):
                raise type(err)(f"{err}; continue with: {again}") from None
            raise


def analyze_all(targets: list[Path], options: Resources) -> None:
    """What *targets*, all finished, give: replicas of one folder together, targets apart."""
    for target in targets:
        if is_workflow(target):
            analyze_and_print([target], None, None)
        elif target.is_dir() and any(target.glob("point-*/input.xml")):
            print_mass_leg(target)
        elif all(read_input(p).lambda_path.constant for p in find_runs(target)):
            print(f"{target}: plain dynamics, done; there is no free energy to analyse")
        else:
            analyze_and_print(
                [target], None, None, device=options.device, check_time=options.check_time
            )


def print_mass_leg(folder: Path) -> None:
    """The points of a mass leg and their integral; the whole is analysed with the run itself."""
    from .. import analysis

    print(analysis.leg_summary(analysis.mass_leg_in(folder)))
    print(f"now: alchemdriver analyze {shlex.quote(str(folder.resolve().parent))}")


def analyze_and_print(
    folders: list[Path],
    out: Path | None,
    formula_units: int | None,
    partial: bool = False,
    n_ws: int | None = None,
    *,
    reference: str | None = None,
    check: Path | None = None,
    also_with: str | None = None,
    device: str = "cpu",
    check_time: Callable[[], None] = lambda: None,
) -> None:
    """Analyse finished folders together, write result.json and plots, print the summary.

    Windows are first evaluated at each other's λ, on *device*, as far as that is still missing;
    check_time may raise OutOfTime meanwhile.  also_with: NAME or NAME@HEAD of another model, at
    which frames of both ends are evaluated.
    """
    from .. import analysis

    staged = [folder for folder in folders if is_workflow(folder)]
    if staged:
        if also_with is not None:
            raise InputError(f"{staged[0]}: --also-with is asked of one of its stages, or of a run")
        if len(folders) > 1:
            raise InputError("analyse workflows one by one, or compare them: alchemdriver gather")
        found = analysis.analyze_workflow(staged[0])
        print(analysis.workflow_summary(found))
        print(f"\nwritten: {', '.join(str(p) for p in analysis.write_workflow(found, out))}")
        return
    inputs = [path for folder in folders for path in find_runs(folder)]
    if out is None and len(folders) > 1 and any(f.parent.name[:8] != "replica-" for f in inputs):
        raise InputError("several runs have no common folder: say with --out where results go")
    if len(inputs) > 1:
        evaluate_windows(inputs, device, check_time)
    result = analysis.analyze(
        inputs,
        out=out,
        formula_units=formula_units,
        partial=partial,
        n_ws=n_ws,
        reference=reference,
        check=check,
    )
    plots = analysis.save_plots(result, result.folder)
    given = {"formula-units": formula_units, "n-ws": n_ws, "reference": reference, "check": check}
    options = [w for k, v in given.items() if v is not None for w in (f"--{k}", str(v))]
    page = analysis.write_page(
        result, plots, options=[*options, *(["--partial"] if partial else [])]
    )
    print(analysis.summary(result))
    others = ", ".join(p.name for p in [page, *plots])
    print(f"\nwritten: {result.folder / 'result.json'}, {others}")
    if also_with is not None:
        _show_other_model(inputs, also_with, device, result.folder)


def _show_other_model(inputs: list[Path], asked: str, device: str, out: Path) -> None:
    """What another model makes of the frames, and the free energy that it would give."""
    from ..analysis.report.text import with_error
    from ..execute.other_model import OTHER_MODEL, file_of, other_model

    name, _, head = asked.partition("@")
    if shelf.is_file(name):  # from where the user is, not from the run's folder
        name = str(Path(name).expanduser().resolve())
    with _configurations(f"at both ends, with {name}") as report:
        found = other_model(inputs, name, head or None, device, report)
    for end in found.ends:
        e = end.estimate
        print(
            f"λ = {end.lam:g}: F({name}) − F({found.model}) = {with_error(e.value, e.se)}, "
            f"{end.effective:.0f} of {end.frames} frames count, SD {end.scatter_kT:.2f} kT"
        )
    change = found.change
    print(
        f"with {name} instead of {found.model} the free energy changes by "
        f"{with_error(change.value, change.se)} per cell ({change.se_kind})"
    )
    file = out / file_of(name, head or None)
    OTHER_MODEL.write(file, found, {"units": "eV"})
    print(f"written: {file}")


def compare_beads(folders: list[Path], classical: Path | None, out: Path) -> None:
    """Totals at different numbers of beads, their limit, and quantum minus classical."""
    from .. import analysis

    results = [analysis.analyze(find_runs(folder), write=False) for folder in folders]
    reference = None
    if classical is not None:
        reference = analysis.analyze(find_runs(classical), write=False)
    found = analysis.compare_beads(results, reference)
    written = [analysis.write_quantum(found, out), analysis.save_quantum_plot(found, out)]
    print(analysis.quantum_summary(found))
    print(f"written: {', '.join(map(str, written))}")


def evaluate_windows(
    inputs: list[Path], device: str, check_time: Callable[[], None] = lambda: None
) -> None:
    """What MBAR needs of windows at other λ; where it cannot be had, the analysis says so."""
    from ..analysis.estimators.reduced import linear_in_lambda
    from ..execute.reevaluate import reevaluate

    runs = [read_input(path) for path in inputs]
    if any(run.schedule is not None or linear_in_lambda(run) for run in runs):
        return
    with _configurations("at the other λ, for MBAR") as shown:

        def report(name: str, done: int, total: int) -> None:
            check_time()
            shown(done, total)

        try:
            reevaluate(inputs, device, report)
        except AnalysisError as err:
            log.warning("no MBAR: %s", err)


@contextmanager
def _configurations(what: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of evaluations: report(done, total)."""
    console = Console(stderr=True, markup=False, emoji=False)
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} configurations", markup=False),
        console=console,
        disable=not console.is_terminal,
    )
    next_line = time.monotonic() + PLAIN_EVERY

    def report(done: int, total: int) -> None:
        nonlocal next_line
        bars.update(task, completed=done, total=total)
        if not console.is_terminal and time.monotonic() > next_line:
            next_line = time.monotonic() + PLAIN_EVERY
            line = f"energies {what}: {done}/{total} configurations"
            console.print(line, soft_wrap=True, markup=False, highlight=False)

    with bars:
        task = bars.add_task(f"energies {what}", total=None)
        yield report


def compare_phases(targets: list[str], out: Path) -> None:
    """What is known of each phase, and where which one is stable."""
    from ..analysis.compare import phases as p
    from ..analysis.report.plain import drawn, printable
    from ..analysis.report.text import with_error

    found = p.compare_phases(targets, lambda line: log.warning("%s", printable(line)))
    table = Table("phase", "P (bar)", "N", "from (K)", "G per formula unit", "to (K)", "G", "by")
    for x in found.phases:
        ends = [(f"{x.temperatures[k]:g}", with_error(x.values[k], x.se[k])) for k in (0, -1)]
        sizes = ", ".join(map(str, x.natoms))
        table.add_row(x.name, f"{x.pressure:g}", sizes, *ends[0], *ends[1], x.source)
    width = Console().width if sys.stdout.isatty() else 160
    print(drawn(lambda console: console.print(table), width))
    several = len({x.pressure for x in found.pairs}) > 1
    for pair in found.pairs:
        print(printable(f"{pair.pressure:g} bar: {pair.says}" if several else pair.says))
    for line in found.warnings:
        log.warning("%s", printable(line))
    written = p.write_phases(found, out)
    print(f"{out}: {', '.join(x.name for x in written)}")


def gather_and_print(targets: list[str], out: Path) -> None:
    """Tables and plots of many calculations, and what a fit in 1/N says."""
    from ..analysis.compare import gather as g
    from ..analysis.report.plain import drawn, printable
    from ..analysis.report.text import with_error
    from ..campaign import collect
    from ..campaign.record import is_campaign

    campaigns = [Path(target) for target in targets if is_campaign(Path(target))]
    if len(campaigns) > 1:
        raise InputError("gather campaigns one by one: each has a table of its own")
    for root in campaigns:
        written = collect.write(root, out)
        print(f"every case with its provenance: {', '.join(str(p) for p in written)}")
        at = [Path(target) for target in targets].index(root)
        targets = [*targets[:at], *collect.folders(root), *targets[at + 1 :]]
    rows = g.gather(targets, lambda line: log.warning("%s", printable(line)))
    table = Table("folder", "", "phase", "T (K)", "N", "route", "value", "SD (meV)")
    for x in rows:
        r = x.row
        table.add_row(
            x.folder,
            r.quantity,
            x.phase or "–",
            f"{r.temperature:g}",
            str(r.natoms),
            r.route,
            with_error(r.per_unit, r.per_unit_se) + f" per {r.unit}",
            "–" if r.sd is None else f"{1e3 * r.sd / r.per:.2f}",
        )
    width = Console().width if sys.stdout.isatty() else 160
    print(drawn(lambda console: console.print(table), width))
    for e in g.extrapolations(rows):
        sizes = ", ".join(str(n) for n in e.sizes)
        print(
            printable(f"{e.quantity} {e.phase} {e.route}, {e.temperature:g} K, N → ∞ from {sizes} ")
            + f"atoms: {with_error(e.value, e.se)}"
        )
        if e.chi2 is not None and e.chi2 > g.OFF_THE_LINE:
            log.warning(
                "these do not lie on a line in 1/N (chi2 per degree of freedom %.1f): other "
                "phases? Name them: alchemdriver gather NAME=FOLDER ...",
                e.chi2,
            )
    written = g.write_tables(rows, out) + g.write_plots(rows, out)
    print(f"written: {', '.join(str(p) for p in written)}")


def print_models() -> None:
    """The shelf as a table."""

    table = Table("name", "elements", "licence", "size", "source", "good for")
    for card in shelf.catalogue():
        elements = " ".join(card.elements) if len(card.elements) <= 12 else f"{len(card.elements)}"
        size = "download" if card.size is None else f"{card.size / 1e6:.1f} MB"
        table.add_row(card.name, elements, card.licence, size, card.source, card.good_for)
    width = None if sys.stdout.isatty() else 160
    Console(width=width, markup=False, emoji=False).print(table)
