"""One HTML page per workflow: every number with where it comes from, and the plots, in one file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...contract.files import write_text
from ...errors import AnalysisError
from ..markup import Markup, joined, table, tag
from ..report.grouped import grouped
from ..report.page import document, figure
from ..report.plots import COLOURS, STYLE, error_against_cost
from ..result import FILE, read_result
from .finite_cell import MEANING, as_text, conventions_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .workflow import StageResult, WorkflowResult


def write_page(result: WorkflowResult, path: Path) -> Path:
    """Write the page of a :class:`~alchemdriver.analysis.compare.workflow.WorkflowResult`."""
    name = result.root.resolve().name
    body = [
        tag("h1", f"{result.kind}: {name}"),
        _settings(result),
        tag("h2", "Free energies"),
        _rows(result),
        _outlook(result),
        _agreements(result),
        _notes(result),
        *(_stage(result, stage) for stage in result.stages.values()),
    ]
    write_text(path, document(name, *body))
    return path


def _settings(result: WorkflowResult) -> Markup:
    s = result.settings
    crystals = "; ".join(
        f"{label}: {c.atoms} atoms, {c.formula_units} formula units, {c.space_group}, "
        f"N_WS = {c.n_ws}"
        for label, c in s.crystals.items()
    )
    return tag(
        "p",
        f"Model {s.model}, {s.pressure_bar:g} bar, {s.timestep_fs:g} fs; "
        f"prepared for {s.replicas} replicas × {s.cycles} pairs, holds of {s.equilibrate} "
        f"and switches of {s.switch} steps ({s.switch * s.timestep_fs * 1e-3:g} ps), "
        f"{s.schedule}; seeds from {s.seed}. {crystals}.",
    )


def _rows(result: WorkflowResult) -> Markup:
    rows = [
        [
            r.quantity,
            r.phase,
            f"{r.temperature:g}",
            r.route,
            f"{r.per_unit:.6f}",
            f"{1e3 * r.per_unit_se:.3f}",
            "" if r.sd is None else f"{1e3 * r.sd / r.per:.3f}",
            f"per {r.unit}",
            f"{r.dissipation_kT:.2f}",
            f"{r.evaluations}",
        ]
        for r in result.rows
    ]
    head = [
        "", "phase", "T (K)", "route", "eV", "SE (meV)", "SD (meV)", "", "dissipation (kT)",
        "evaluations",
    ]  # fmt: skip
    about = tag(
        "p",
        "SE: stated error, which covers 68 % (docs/errors.md). SD: standard deviation "
        "over replicas, the error bar of the paper. Evaluations of the model include relaxation "
        "and equilibration, and stages that several rows share.",
    )
    return joined([table(head, rows, {2, 4, 5, 6, 8, 9}), about])


def _outlook(result: WorkflowResult) -> Markup:
    """How far the error is from what was asked for."""
    if result.outlook is None:
        return Markup()
    parts = [tag("p", f"{result.outlook.total}: {result.outlook.line}")]
    if len(result.outlook.history) > 1:
        drawn = png(partial(error_against_cost, outlook=result.outlook))
        parts.append(figure(drawn, "error against cost"))
    return joined(parts)


def _agreements(result: WorkflowResult) -> Markup:
    if not result.agreements:
        return Markup()
    rows = [
        [
            a.quantity,
            a.phase,
            f"{a.temperature:g}",
            as_text(a.finite_cell),
            f"{1e3 * a.difference:+.3f}",
            f"{1e3 * a.se:.3f}",
            f"{a.sigmas:.1f}",
            a.efficiency_text,
        ]
        for a in result.agreements
    ]
    head = [
        "", "phase", "T (K)", "finite cell (meV)", "difference (meV)", "SE (meV)", "in SE",
        "efficiency (95 %)",
    ]  # fmt: skip
    return joined(
        [
            tag("h2", "Frenkel–Ladd + finite cell − alchemical"),
            table(head, rows, {2, 3, 4, 5, 6, 7}),
            tag("p", f"{MEANING}:"),
            table(*conventions_table(result.rows), {2, 4, 5}),
        ]
    )


def _notes(result: WorkflowResult) -> Markup:
    lines = [
        tag(
            "li",
            f"configurational kT ln n at {label}: {1e3 * v:+.2f} meV; "
            f"{'lowers' if v > 0 else 'raises'} the free energy, not in the values above",
        )
        for label, v in result.configurational.items()
    ]
    lines += [tag("li", f"not done: {name}") for name in result.missing]
    lines += [tag("li", w, class_="warn") for w in grouped(result.warnings)]
    return tag("ul", *lines) if lines else Markup()


def _stage(result: WorkflowResult, stage: StageResult) -> Markup:
    rows = [["work, BAR", f"{stage.work:+.6f}", "eq. 9"]]
    rows += [
        [t.name, "missing" if t.value is None else f"{t.value:+.6f}", t.source] for t in stage.terms
    ]
    rows.append(["total", f"{stage.value:+.6f}", f"± {stage.se:.6f}"])
    figures = [figure(_convergence(result, stage), "estimate against switching time spent")]
    for name, caption in (
        ("works.png", "works of all switches"),
        ("work.png", "work along λ"),
        ("dhdl.png", "∂H/∂λ along λ"),
    ):
        file = result.root / stage.name / name
        if file.is_file():
            figures.append(figure(file.read_bytes(), caption))
    about = (
        f"{stage.replicas} replicas, {stage.pairs} pairs of {stage.switch_ps:g} ps each way, "
        f"dissipation {stage.dissipation_kT:.2f} kT, {stage.natoms} atoms"
    )
    return joined(
        [
            tag("h2", stage.name),
            tag("p", about),
            table(["term", "eV", "from"], rows, {1}),
            *figures,
        ]
    )


def _convergence(result: WorkflowResult, stage: StageResult) -> bytes:
    """Running BAR and eq. 11 (meV from the final BAR) against the time spent switching."""
    from ..estimators.switching import analyze_works

    found = read_result(result.root / stage.name / FILE)
    temperature = found.conditions.temperature
    time: list[float] = []
    bar: list[float] = []
    eq11: list[float] = []
    se: list[float] = []
    # pair by pair, replica by replica, in the order in which replicas would have been added
    f = np.concatenate([r.forward for r in found.replicas])
    b = np.concatenate([r.backward for r in found.replicas])
    for n in range(1, len(f) + 1):
        try:
            pairs = analyze_works(f[:n], b[:n], temperature)
        except AnalysisError:
            continue
        time.append(2.0 * n * stage.switch_ps)
        bar.append(1e3 * (pairs.bar.value - stage.work))
        se.append(1e3 * (pairs.bar.se or 0.0))
        eq11.append(1e3 * (pairs.eq11.value - stage.work))

    def draw(ax: Axes) -> None:
        ax.axhline(0.0, color="0.6", lw=0.8)
        ax.errorbar(time, bar, se, color=COLOURS["forward"], marker="o", ms=3, capsize=2)
        ax.plot(time, eq11, color=COLOURS["backward"], marker="s", ms=3, ls="--")
        ax.set_xlabel("time spent switching, both directions (ps)")
        ax.set_ylabel("ΔF − final (meV)")
        ax.legend(["final", "eq. 11", "BAR"], loc="best")

    return png(draw)


def png(draw: Callable[[Axes], object], size: tuple[float, float] = (4.6, 3.0)) -> bytes:
    """What *draw* makes of one axis, as PNG bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        drawn = Figure(figsize=size, dpi=160)
        canvas = FigureCanvasAgg(drawn)
        draw(drawn.subplots())
        buffer = BytesIO()
        canvas.print_png(buffer)
    return buffer.getvalue()
