"""One HTML page per analysis, in one file: number and error first, then all that it came from."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...contract.files import write_text
from ...contract.run_input import read_input
from ...errors import AlchemdriverError
from ...records import Structure
from ..markup import Markup, joined, table, tag, text
from ..result import Provenance, Result, Total
from .checks import HEAD, check_rows, heading
from .grouped import grouped
from .plots import STYLE
from .text import NAMES, meV, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = "report.html"
CAPTIONS = {
    "work.png": "work along λ, forward and backward",
    "works.png": "works of all switches",
    "dhdl.png": "∂H/∂λ",
    "mean_dhdl.png": "mean ∂H/∂λ of the windows",
    "overlap.png": "overlap of the windows",
    "free_energy.png": "free energy against temperature",
}
CSS = """
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
       color: light-dark(#1a1a1a, #ddd); background: light-dark(#fff, #16181b) }
.scroll { overflow-x: auto } table { border-collapse: collapse; margin: .6em 0 1.4em }
th, td { padding: .18em .8em; text-align: left; vertical-align: top;
         border-bottom: 1px solid light-dark(#ddd, #444) }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { display: inline-block; margin: 0 1em 1em 0; vertical-align: top }
img { width: 27em; max-width: 100%; background: #fff } h2 { margin-top: 1.6em }
figcaption { font-size: 13px } .warn { color: light-dark(#9a3b00, #ffb27d) }
.number { font-size: 24px; margin: .3em 0 } code, pre { font-size: 13px; overflow-x: auto }
"""


def document(title: str, *body: Markup) -> str:
    """A whole page, with nothing outside of the file."""
    head = joined(
        [
            Markup("<meta charset='utf-8'>"),
            Markup("<meta name='viewport' content='width=device-width, initial-scale=1'>"),
            tag("title", title),
            tag("style", Markup(CSS)),
        ]
    )
    return f"<!doctype html>{tag('html', tag('head', head), tag('body', *body), lang='en')}\n"


def figure(png: bytes, caption: str) -> Markup:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = Markup(f'<img alt="{text(caption)}" src="{text(source)}">')
    return tag("figure", image, tag("figcaption", caption))


def write_page(
    result: Result, plots: Sequence[Path], folder: Path | None = None, options: Sequence[str] = ()
) -> Path:
    """Write ``report.html`` of *result* into *folder*, its own by default, *plots* (PNG) inside.

    options: of ``alchemdriver analyze`` that gave it, for the commands that do it again.
    """
    path = (folder or result.folder) / PAGE
    body = [
        tag("h1", result.quantity),
        _system(result),
        _number(result),
        _warnings(result),
        *_tables(result),
        tag("h2", "Plots"),
        *(figure(p.read_bytes(), CAPTIONS.get(p.name, p.stem)) for p in plots),
        *_structure(result),
        tag("h2", "Where it comes from"),
        _provenance(result),
        tag("h2", "How to do it again"),
        _again(result, options),
    ]
    write_text(path, document(f"{result.quantity}: {result.folder.resolve().name}", *body))
    return path


def _system(result: Result) -> Markup:
    c = result.conditions
    parts = [
        c.alchemy,
        f"{c.formula}, {c.natoms} atoms",
        f"{result.formula_units} formula units" if result.formula_units > 1 else "",
        c.ensemble,
        f"{c.temperature:g} K",
        "" if c.pressure is None else f"{c.pressure:g} bar",
        f"{c.beads} bead{'' if c.beads == 1 else 's'}",
        "" if c.timestep is None else f"{c.timestep:g} fs",
    ]
    if c.switch is not None:
        parts.append(f"{c.cycles} × (hold {c.equilibrate}, switch {c.switch} steps, {c.schedule})")
    return tag("p", "; ".join(p for p in parts if p))


def _best(totals: Sequence[Total]) -> Total | None:
    """The one to read first: without bias where there is a choice."""
    order = {"BAR": 0, "MBAR": 0, "TI": 1, "eq. 11": 2}
    known = [t for t in totals if t.value is not None]
    return min(known, key=lambda t: order.get(t.method, 3), default=None)


def _number(result: Result) -> Markup:
    best = _best(result.totals)
    if best is None:
        return tag("p", "no total: a term is missing, see below", class_="number warn")
    what = NAMES.get(best.method, best.method)
    half = "" if best.ci95 is None else f", 95 % ± {0.5 * (best.ci95[1] - best.ci95[0]):.4f} eV"
    found = [tag("p", with_error(best.value, best.se) + half, class_="number")]
    about = f"whole cell, {what}; the error is: {best.se_kind}"
    if best.per_formula_unit is not None and result.formula_units > 1:
        share = with_error(best.per_formula_unit, best.per_formula_unit_se)
        about = f"{share} per formula unit; {about}"
    elif result.substituted and best.value is not None:
        n = result.substituted
        share = with_error(best.value / n, None if best.se is None else best.se / n)
        about = f"{share} per substituted atom; {about}"
    return joined([*found, tag("p", about)])


def _warnings(result: Result) -> Markup:
    lines = [tag("li", line, class_="warn") for line in grouped(result.warnings)]
    labels = tag("p", tag("b", ", ".join(result.labels)), class_="warn") if result.labels else ""
    return joined([labels, tag("ul", *lines) if lines else tag("p", "No warnings.")])


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *n: int) -> Markup:
    inner = tag("div", table(head, rows, set(n)), class_="scroll")
    return joined([tag("h2", title), inner]) if rows else Markup()


def _tables(result: Result) -> list[Markup]:
    totals = [
        [NAMES.get(t.method, t.method), with_error(t.value, t.se), t.se_kind] for t in result.totals
    ]
    terms = [
        [t.name, "missing" if t.value is None else f"{t.value:+.6f} {t.unit}", t.source]
        for t in result.terms
    ]
    estimates = [e for e in (result.integral, result.over_replicas) if e is not None]
    if result.pooled is not None:
        estimates = [result.pooled.eq11, result.pooled.bar, *estimates]
    if result.mbar is not None:
        estimates.append(result.mbar.estimate)
    found = [
        _section("Totals", ["", "whole cell", "error is"], totals, 1),
        _section(
            "Estimates, before the terms",
            ["", "meV", "SE (meV)", "error is"],
            [
                [NAMES.get(e.method, e.method), meV(e.value), meV(e.se), e.se_kind]
                for e in estimates
            ],
            1,
            2,
        ),
        _section("Terms, as added", ["term", "value", "from"], terms, 1),
    ]
    if result.pooled is not None:
        loss = result.pooled.dissipation
        words = (
            f"{result.pooled.n} pairs; dissipation {meV(loss.mean.value)} meV = {loss.mean_kT:.2f} "
            f"kT (eq. 10), hysteresis {meV(loss.hysteresis)} meV, overlap "
            f"{result.pooled.diagnostics.overlap:.2f} of 0.5"
        )
        found += [tag("h2", "Works"), tag("p", words)]
        holds = [
            [
                Path(r.provenance.folder).name,
                h.kind,
                f"{h.cycle}",
                f"{h.duration:.3g}",
                "–" if h.correlation_time is None else f"{h.correlation_time:.2g}",
                "–" if h.volume_drift is None else f"{h.volume_drift:.3g}",
            ]
            for r in result.replicas
            for h in r.holds
        ]
        head = ["replica", "hold", "cycle", "ps", "correlation time (ps)", "volume drift (Å³)"]
        found.append(_section("Holds", head, holds, 2, 3, 4, 5))
    windows = [
        [f"{w.lam:g}", meV(w.mean.value), meV(w.mean.se), f"{w.inefficiency:.1f}", w.mean.se_kind]
        for w in result.windows
    ]
    head = ["λ", "⟨∂H/∂λ⟩ (meV)", "SE (meV)", "g", "error is"]
    found.append(_section("Windows", head, windows, 0, 1, 2, 3))
    if result.checks:
        title, _, rest = heading(result.checks).partition("; ")
        found.append(_section(title, HEAD, check_rows(result.checks), 1, 2, 3, 4, 5))
        found.append(tag("p", rest))
    return found


def _of(result: Result) -> list[Provenance]:
    return [r.provenance for r in result.replicas] + list(result.sources)


def _structure(result: Result) -> list[Markup]:
    """The first run's start; nothing if its files are elsewhere by now."""
    for p in _of(result)[:1]:
        try:
            structure = read_input(Path(p.folder) / p.input).structure
        except (AlchemdriverError, OSError):
            return []
        buffer = BytesIO()
        _print(partial(draw_structure, structure=structure), buffer)
        return [
            figure(
                buffer.getvalue(), "start of the first run, seen along c, which leans to the right"
            )
        ]
    return []


def draw_structure(ax: Axes, structure: Structure) -> Axes:
    """Atoms as discs of their covalent radii, in the colours of Jmol, in an oblique projection
    (c leans to the right and back), with the edges of the cell."""
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.colors import jmol_colors
    from matplotlib.patches import Circle

    lean = np.array([[1.0, 0.0], [0.0, 1.0], [0.3, 0.2]])  # xyz → picture
    for axis in range(3):
        others = [structure.cell[k] for k in range(3) if k != axis]
        for start in (np.zeros(3), *others, others[0] + others[1]):
            ends = np.array([start, start + structure.cell[axis]]) @ lean
            ax.plot(*ends.T, color="0.5", lw=0.7, zorder=0)
    depth = structure.positions[:, 2]
    places = structure.positions @ lean
    for rank, k in enumerate(np.argsort(-depth)):  # far ones first
        z = atomic_numbers[structure.symbols[k]]
        radius = 0.45 * covalent_radii[z]
        ax.add_patch(Circle(places[k], radius, fc=jmol_colors[z], ec="k", lw=0.5, zorder=1 + rank))
    kinds = tuple(dict.fromkeys(structure.symbols))
    handles = [Circle((0, 0), 1, fc=jmol_colors[atomic_numbers[s]], ec="k") for s in kinds]
    ax.legend(handles, kinds, loc="upper left", bbox_to_anchor=(1, 1))
    ax.autoscale_view()
    ax.set_aspect("equal")
    ax.set_axis_off()
    return ax


def _print(draw: partial[Axes], buffer: BytesIO) -> None:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        drawn = Figure(figsize=(4.6, 3.2), dpi=160)
        canvas = FigureCanvasAgg(drawn)
        draw(drawn.subplots())
        canvas.print_png(buffer)


def _provenance(result: Result) -> Markup:
    rows = [
        [Path(p.folder).name, p.input, p.input_sha256[:16], f"{p.seed}", p.model,
         (p.model_sha256 or "not on this disk")[:16]]
        for p in _of(result)
    ]  # fmt: skip
    head = ["run", "input", "its sha256", "seed", "model", "its sha256"]
    versions = ", ".join(f"{name} {v}" for name, v in result.versions.items() if v is not None)
    inner = tag("div", table(head, rows, {3}), class_="scroll")
    return joined([inner, tag("p", f"Analysed with {versions}.")])


def _again(result: Result, options: Sequence[str]) -> Markup:
    runs = [Path(p.folder).resolve() for p in _of(result)]
    home = result.folder.resolve()
    inside = bool(runs) and all(r == home or home in r.parents for r in runs)
    targets = [home.name] if inside else [os.path.relpath(r, home.parent) for r in runs]
    packages = [f"{n}=={v}" for n, v in result.versions.items() if v and n != "python"]
    lines = [
        f"pip install {shlex.join(packages)}",
        f"alchemdriver run {shlex.join(targets)}",
        f"alchemdriver analyze {shlex.join([*targets, *options])}"
        + ("" if inside else " --out again"),
    ]
    about = (
        f"In the folder above that of this page ({home.name}), with inputs and models of these "
        "sha256: the same numbers, bit for bit on the same kind of CPU. Delete what the runs "
        "printed to compute them anew."
    )
    return joined([tag("pre", "\n".join(lines)), tag("p", about)])
