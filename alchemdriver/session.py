"""What the command line shows: live progress, results, tables.  Computes nothing itself."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table

from .errors import AlchemdriverError, InputError
from .progress import Progress
from .run import Options, execute, find_runs

log = logging.getLogger(__name__)

PHASES = {
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
        self.tasks: dict[str, int] = {}
        self.first: dict[str, tuple[float, int]] = {}  # time and step of the first row seen
        self.next_line: dict[str, float] = {}

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
    """λ, phase, temperature, steps/s and time left, in one short line."""
    parts = [f"λ={progress.lam:.3f}", PHASES[progress.phase]]
    if progress.temperature is not None:
        parts.append(f"{progress.temperature:4.0f} K")
    if rate > 0:
        left = int((progress.total - progress.step) / rate)
        parts += [f"{rate:.0f} steps/s", f"{left // 60}:{left % 60:02d} left"]
    return "  ".join(parts)


@contextmanager
def terminate_like_ctrl_c():
    """SIGTERM (a batch queue's limit) stops as cleanly as Ctrl-C."""

    def interrupt(signum, frame):
        raise KeyboardInterrupt

    signals = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(signum, interrupt) for signum in signals]
    try:
        yield
    finally:
        for signum, handler in zip(signals, before, strict=True):
            signal.signal(signum, handler)


def run_and_analyze(targets: list[Path], options: Options) -> None:
    """Run all that is not finished, then analyse; on Ctrl-C say how to continue."""
    console = Console(stderr=True)
    display = Display(console)
    runs = [path for target in targets for path in find_runs(target)]
    again = "alchemdriver run " + shlex.join(str(t) for t in targets)
    with terminate_like_ctrl_c():
        try:
            with display.bars:
                execute(runs, options, display.report)
        except KeyboardInterrupt:
            console.print(
                f"stopped, restart files written; continue with: {again}",
                style="bold",
                soft_wrap=True,
            )
            raise
        except AlchemdriverError as err:
            if any((path.parent / "RESTART").exists() for path in runs):
                raise type(err)(f"{err}; once mended, continue with: {again}") from None
            raise
    for target in targets:  # replicas of one folder together, different targets apart
        analyze_and_print([target], None, None)


def analyze_and_print(
    folders: list[Path],
    out: Path | None,
    formula_units: int | None,
    partial: bool = False,
    n_ws: int | None = None,
) -> None:
    """Analyse finished folders together, write result.json and plots, print the summary."""
    from . import analysis

    inputs = [path for folder in folders for path in find_runs(folder)]
    if out is None and len(folders) > 1 and any(f.parent.name[:8] != "replica-" for f in inputs):
        raise InputError("several runs have no common folder: say with --out where results go")
    result = analysis.analyze(
        inputs, out=out, formula_units=formula_units, partial=partial, n_ws=n_ws
    )
    plots = analysis.save_plots(result, result.folder)
    print(analysis.summary(result))
    print(f"\nwritten: {result.folder / 'result.json'}, {', '.join(p.name for p in plots)}")


def print_models() -> None:
    """The shelf as a table."""
    from . import shelf

    table = Table("name", "elements", "licence", "size", "source", "good for")
    for card in shelf.catalogue():
        elements = " ".join(card.elements) if len(card.elements) <= 12 else f"{len(card.elements)}"
        size = "download" if card.size is None else f"{card.size / 1e6:.1f} MB"
        table.add_row(card.name, elements, card.licence, size, card.source, card.good_for)
    width = None if sys.stdout.isatty() else 160
    Console(width=width).print(table)
