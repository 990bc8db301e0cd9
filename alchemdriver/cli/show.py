"""What the command line shows: live progress, results, tables.  Computes nothing itself."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ..contract.layout import find_runs
from ..contract.manifest import is_workflow
from ..contract.run_input import read_input
from ..errors import AlchemdriverError, AnalysisError, InputError, OutOfTime
from ..execute.progress import Progress
from ..execute.supervisor import Resources, execute

log = logging.getLogger(__name__)

SEGMENTS = {
    "hold0": "hold λ=0",
    "forward": "λ 0→1",
    "hold1": "hold λ=1",
    "backward": "λ 1→0",
    "done": "done",
    "fixed": "fixed λ",
}
PLAIN_EVERY = 10.0  # s between lines when the output is not a terminal


class Display:
    """Progress of all replicas: bars on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console):
        self.console = console
        self.live = console.is_terminal
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%  {task.fields[state]}"),
            console=console,
            disable=not self.live,
        )
        self.tasks: dict[str, TaskID] = {}
        self.first: dict[str, tuple[float, int]] = {}  # time and step of the first row seen
        self.next_line: dict[str, float] = {}

    def say(self, line: str) -> None:
        """A line above the bars."""
        self.bars.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def report(self, name: str, progress: Progress, resumed: bool) -> None:
        now = time.monotonic()
        t0, step0 = self.first.setdefault(name, (now, progress.step))
        rate = (progress.step - step0) / (now - t0) if now > t0 + 0.5 else 0.0
        state = describe(progress, rate)
        if self.live:
            if name not in self.tasks:
                self.tasks[name] = self.bars.add_task(name, total=progress.total, state="")
            self.bars.update(self.tasks[name], completed=progress.step, state=state)
        elif now > self.next_line.get(name, 0.0):
            done = progress.step >= progress.total
            self.next_line[name] = float("inf") if done else now + PLAIN_EVERY
            self.console.print(
                f"{name}: step {progress.step}/{progress.total}  {state}", soft_wrap=True
            )


def describe(progress: Progress, rate: float) -> str:
    """λ, segment, temperature, steps/s and time left, in one short line."""
    parts = [f"λ={progress.lam:.3f}", SEGMENTS[progress.segment]]
    if progress.temperature is not None:
        parts.append(f"{progress.temperature:4.0f} K")
    if rate > 0:
        left = int((progress.total - progress.step) / rate)
        parts += [
            f"{rate:.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s",
            f"{left // 60}:{left % 60:02d} left",
        ]
    return "  ".join(parts)


@contextmanager
def terminate_like_ctrl_c() -> Iterator[None]:
    """SIGTERM (a batch queue's limit) stops as cleanly as Ctrl-C."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
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
    console = Console(stderr=True)
    display = Display(console)
    staged = [target for target in targets if is_workflow(target)]
    runs = [path for target in targets if target not in staged for path in find_runs(target)]
    if start_from is not None and len(staged) != 1:
        raise InputError("--from names a stage: give one workflow folder with it")
    again = "alchemdriver run " + shlex.join(str(t) for t in targets)
    with terminate_like_ctrl_c():
        try:
            with display.bars:
                if runs:
                    execute(runs, options, display.report)
                if staged:
                    from ..workflow.runner import run_workflow  # scipy
                for target in staged:
                    run_workflow(target, options, display.report, display.say, start_from)
        except KeyboardInterrupt:
            console.print(
                f"stopped, restart files written; continue with: {again}",
                style="bold",
                soft_wrap=True,
            )
            raise
        except OutOfTime as err:
            console.print(f"{err}; continue with: {again}", style="bold", soft_wrap=True)
            return False
        except AlchemdriverError as err:
            begun = staged or any((path.parent / "RESTART").exists() for path in runs)
            if begun and not isinstance(err, InputError):
                raise type(err)(f"{err}; continue with: {again}") from None
            raise
    for target in targets:  # replicas of one folder together, different targets apart
        if target.is_dir() and any(target.glob("point-*/input.xml")):
            print_mass_leg(target)
        elif target not in staged and all(
            read_input(p).lambda_path.constant for p in find_runs(target)
        ):
            print(f"{target}: plain dynamics, done; there is no free energy to analyse")
        else:
            analyze_and_print([target], None, None, device=options.device)
    return True


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
    device: str = "cpu",
) -> None:
    """Analyse finished folders together, write result.json and plots, print the summary.

    Windows are first evaluated at each other's λ, on *device*, as far as that is still missing.
    """
    from .. import analysis

    staged = [folder for folder in folders if is_workflow(folder)]
    if staged:
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
        evaluate_windows(inputs, device)
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
    print(analysis.summary(result))
    print(f"\nwritten: {result.folder / 'result.json'}, {', '.join(p.name for p in plots)}")


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


def evaluate_windows(inputs: list[Path], device: str) -> None:
    """What MBAR needs of windows at other λ; where it cannot be had, the analysis says so."""
    from ..analysis.estimators.reduced import linear_in_lambda
    from ..execute.reevaluate import reevaluate

    runs = [read_input(path) for path in inputs]
    if any(run.schedule is not None or linear_in_lambda(run) for run in runs):
        return
    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total} configurations"),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        task = bars.add_task("energies at the other λ", total=None)
        try:
            reevaluate(
                inputs,
                device,
                lambda name, done, total: bars.update(
                    task, completed=done, total=total, description=f"{name} at the other λ"
                ),
            )
        except AnalysisError as err:
            log.warning("no MBAR: %s", err)


def gather_and_print(targets: list[str], out: Path) -> None:
    """Tables and plots of many calculations, and what a fit in 1/N says."""
    from ..analysis.compare import gather as g
    from ..analysis.report.plain import drawn, printable
    from ..analysis.report.text import with_error

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
    from ..contract import shelf

    table = Table("name", "elements", "licence", "size", "source", "good for")
    for card in shelf.catalogue():
        elements = " ".join(card.elements) if len(card.elements) <= 12 else f"{len(card.elements)}"
        size = "download" if card.size is None else f"{card.size / 1e6:.1f} MB"
        table.add_row(card.name, elements, card.licence, size, card.source, card.good_for)
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)
