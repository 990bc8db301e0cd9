"""One HTML page per workflow: every number with where it comes from, and the plots, in one file."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...contract.files import write_text
from ...errors import AnalysisError
from ..report.plots import COLOURS, STYLE
from ..result import FILE, read_result
from .finite_cell import MEANING, as_text, conventions_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .workflow import StageResult, WorkflowResult

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
       color: #1a1a1a }
table { border-collapse: collapse; margin: .6em 0 1.4em }
th, td { padding: .18em .8em; text-align: left; border-bottom: 1px solid #ddd }
td.n { text-align: right; font-variant-numeric: tabular-nums }
figure { display: inline-block; margin: 0 1em 1em 0 } img { width: 27em; max-width: 100% }
figcaption { font-size: 13px; color: #444 } .warn { color: #9a3b00 } h2 { margin-top: 1.6em }
"""


def write_page(result: WorkflowResult, path: Path) -> Path:
    """Write the page of a :class:`~alchemdriver.analysis.compare.workflow.WorkflowResult`."""
    body = [
        f"<h1>{escape(result.kind)}: {escape(result.root.resolve().name)}</h1>",
        _settings(result),
        "<h2>Free energies</h2>",
        _rows(result),
        _agreements(result),
        _notes(result),
    ]
    for stage in result.stages.values():
        body.append(_stage(result, stage))
    text = (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{escape(result.root.resolve().name)}</title><style>{_STYLE}</style>"
        f"<body>{''.join(body)}</body></html>\n"
    )
    write_text(path, text)
    return path


def _table(head: list[str], rows: list[list[str]], numeric: set[int]) -> str:
    cells = "".join(f"<th>{escape(h)}</th>" for h in head)
    lines = [
        "".join(
            f"<td{' class=n' if k in numeric else ''}>{escape(x)}</td>" for k, x in enumerate(row)
        )
        for row in rows
    ]
    return f"<table><tr>{cells}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _settings(result: WorkflowResult) -> str:
    s = result.settings
    crystals = "; ".join(
        f"{label}: {c.atoms} atoms, {c.formula_units} formula units, {c.space_group}, "
        f"N_WS = {c.n_ws}"
        for label, c in s.crystals.items()
    )
    return (
        f"<p>Model {escape(s.model)}, {s.pressure_bar:g} bar, {s.timestep_fs:g} fs; "
        f"prepared for {s.replicas} replicas × {s.cycles} pairs, holds of {s.equilibrate} "
        f"and switches of {s.switch} steps ({s.switch * s.timestep_fs * 1e-3:g} ps), "
        f"{escape(s.schedule)}; seeds from {s.seed}. {escape(crystals)}.</p>"
    )


def _rows(result: WorkflowResult) -> str:
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
    return _table(head, rows, {2, 4, 5, 6, 8, 9}) + (
        "<p>SE: standard error, the larger of BAR's and that over replicas. SD: standard deviation "
        "over replicas, the error bar of the paper. Evaluations of the model include relaxation "
        "and equilibration, and stages that several rows share.</p>"
    )


def _agreements(result: WorkflowResult) -> str:
    if not result.agreements:
        return ""
    rows = [
        [
            a.quantity,
            a.phase,
            f"{a.temperature:g}",
            as_text(a.finite_cell),
            f"{1e3 * a.difference:+.3f}",
            f"{1e3 * a.se:.3f}",
            f"{a.sigmas:.1f}",
            f"{a.efficiency:.1f}",
        ]
        for a in result.agreements
    ]
    head = [
        "", "phase", "T (K)", "finite cell (meV)", "difference (meV)", "SE (meV)", "in SE",
        "efficiency",
    ]  # fmt: skip
    title = "<h2>Frenkel–Ladd + finite cell − alchemical</h2>"
    both = f"<p>{MEANING}:</p>" + _table(*conventions_table(result.rows), {2, 4, 5})
    return title + _table(head, rows, {2, 3, 4, 5, 6, 7}) + both


def _notes(result: WorkflowResult) -> str:
    lines = [
        f"<li>configurational kT ln n at {escape(label)}: {1e3 * v:+.2f} meV; "
        f"{'lowers' if v > 0 else 'raises'} the free energy, not in the values above</li>"
        for label, v in result.configurational.items()
    ]
    lines += [f"<li>not done: {escape(name)}</li>" for name in result.missing]
    lines += [f"<li class=warn>{escape(w)}</li>" for w in result.warnings]
    return f"<ul>{''.join(lines)}</ul>" if lines else ""


def _stage(result: WorkflowResult, stage: StageResult) -> str:
    rows = [["work, BAR", f"{stage.work:+.6f}", "eq. 9"]]
    rows += [
        [t.name, "missing" if t.value is None else f"{t.value:+.6f}", t.source] for t in stage.terms
    ]
    rows.append(["total", f"{stage.value:+.6f}", f"± {stage.se:.6f}"])
    figures = [_figure(_convergence(result, stage), "estimate against switching time spent")]
    for name, caption in (
        ("works.png", "works of all switches"),
        ("work.png", "work along λ"),
        ("dhdl.png", "∂H/∂λ along λ"),
    ):
        file = result.root / stage.name / name
        if file.is_file():
            figures.append(_figure(file.read_bytes(), caption))
    return (
        f"<h2>{escape(stage.name)}</h2><p>{stage.replicas} replicas, {stage.pairs} pairs of "
        f"{stage.switch_ps:g} ps each way, "
        f"dissipation {stage.dissipation_kT:.2f} kT, {stage.natoms} atoms</p>"
        + _table(["term", "eV", "from"], rows, {1})
        + "".join(figures)
    )


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return (
        f"<figure><img alt='{escape(caption)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
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
        figure = Figure(figsize=size, dpi=160)
        canvas = FigureCanvasAgg(figure)
        draw(figure.subplots())
        buffer = BytesIO()
        canvas.print_png(buffer)
    return buffer.getvalue()
