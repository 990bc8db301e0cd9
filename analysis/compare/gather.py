"""Many workflows side by side: one table, free energies against temperature, sizes and times."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contract.files import json_text, write_files, written_aside
from ...contract.stored import dump
from ...errors import AnalysisError, InputError
from ...units import kT
from ..corrections.formulas import infinite_size
from ..report.plain import cell
from ..report.plots import REFERENCE, STYLE
from .workflow import Row, analyze_workflow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger(__name__)

SCHEMA = "alchemdriver-gathered/1"
_COLUMNS = (
    "folder", "system", "quantity", "route", "phase", "temperature_K", "pressure_bar", "natoms",
    "unit", "value_eV", "se_eV", "sd_eV", "replicas", "switch_ps", "dissipation_kT", "evaluations",
)  # fmt: skip
_MARKS = {"Frenkel–Ladd": ("s", "#D55E00", "--"), "alchemical": ("o", "#0072B2", "-")}
_PHASES = ("full", "none")  # marker fill of the first and the second phase


@dataclass(frozen=True)
class Gathered:
    """A row with the folder that it comes from; values per unit (atom, vacancy, …)."""

    folder: str
    row: Row


@dataclass(frozen=True)
class Extrapolation:
    """A value per unit in the limit of an infinite cell, from a fit in 1/N."""

    quantity: str
    route: str
    phase: str
    temperature: float  # K
    sizes: tuple[int, ...]
    value: float  # eV
    se: float  # eV


def gather(folders: Sequence[Path]) -> list[Gathered]:
    """The rows of all workflows.  Raises InputError for the same folder twice, or none."""
    if not folders:
        raise InputError("gather: expected workflow folders, got none")
    resolved = [Path(f).resolve() for f in folders]
    twice = next((f for f in resolved if resolved.count(f) > 1), None)
    if twice is not None:
        raise InputError(f"gather: {twice} is given twice")
    names = _names(resolved)
    found = []
    for name, folder in zip(names, resolved, strict=True):
        result = analyze_workflow(folder)
        if result.missing:
            log.warning("%s: not done: %s", name, ", ".join(result.missing))
        found += [Gathered(name, row) for row in result.rows]
    return found


def _names(folders: list[Path]) -> list[str]:
    import os

    if len(folders) == 1:
        return [folders[0].name]
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def extrapolations(rows: Sequence[Gathered]) -> list[Extrapolation]:
    """Fits in 1/N wherever one quantity was computed at several sizes.

    The whole G of a crystal of N atoms is N g − ½ kT ln N + const: of the 3N − 3 modes none is
    near zero wave vector, which leaves + kT ln N, and the mass centre gives − 3/2 kT ln N
    (eqs. 18–20 at large N).  That term is known, so it is taken out of G before the fit.
    """
    groups: dict[tuple[Any, ...], list[Gathered]] = {}
    for g in rows:
        r = g.row
        if r.quantity != "ΔΔG":  # of two phases, each of its own size
            key = (r.quantity, r.route, r.phase, r.temperature, r.pressure, r.system)
            groups.setdefault(key, []).append(g)
    found = []
    for (quantity, route, phase, temperature, *_), members in groups.items():
        sizes = [g.row.natoms for g in members]
        if len(set(sizes)) < 2:
            continue
        try:
            values = [g.row.per_unit + _logarithm(g.row) for g in members]
            value, se = infinite_size(sizes, values, [g.row.per_unit_se for g in members])
        except AnalysisError:
            continue  # an error that is not known
        found.append(
            Extrapolation(quantity, route, phase, temperature, tuple(sorted(set(sizes))), value, se)
        )
    return found


def _logarithm(row: Row) -> float:
    """½ kT ln N per atom of an absolute G, eV; 0 for differences."""
    if row.quantity != "G":
        return 0.0
    return 0.5 * kT(row.temperature) * float(np.log(row.natoms)) / row.natoms


def write_tables(rows: Sequence[Gathered], out: Path) -> list[Path]:
    """``gathered.csv`` and ``gathered.json``; energies per unit in eV."""
    out.mkdir(parents=True, exist_ok=True)
    table = [
        [
            g.folder, g.row.system, g.row.quantity, g.row.route, g.row.phase, g.row.temperature,
            g.row.pressure, g.row.natoms, g.row.unit, g.row.per_unit, g.row.per_unit_se,
            None if g.row.sd is None else g.row.sd / g.row.per, g.row.replicas, g.row.switch_ps,
            g.row.dissipation_kT, g.row.evaluations,
        ]
        for g in rows
    ]  # fmt: skip
    csv_path, json_path = out / "gathered.csv", out / "gathered.json"
    lines = StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(_COLUMNS)
    writer.writerows([cell(x) for x in row] for row in table)
    document = {
        "schema": SCHEMA,
        "rows": [dict(zip(_COLUMNS, row, strict=True)) for row in table],
        "infinite_size": [dump(e) for e in extrapolations(rows)],
    }
    write_files({csv_path: lines.getvalue(), json_path: json_text(document)})
    return [csv_path, json_path]


# --- plots --------------------------------------------------------------------------------------


def write_plots(rows: Sequence[Gathered], out: Path) -> list[Path]:
    """G(T), G_v(T), ΔG(T) with ΔΔG(T), and convergence against switching time, where there is
    more than one point to draw."""
    written = []
    quantities = {g.row.quantity for g in rows}
    for quantity, name in (("G", "g.png"), ("G_v", "g_v.png")):
        if quantity in quantities:
            chosen = [g for g in rows if g.row.quantity == quantity]
            written.append(_save(out / name, 1, partial(_one_panel, rows=chosen)))
    if "ΔG" in quantities:
        two = "ΔΔG" in quantities
        written.append(_save(out / "ddg.png", 1 + two, lambda axes: _differences(axes, rows)))
    timed = [g for g in rows if _times(rows, g) > 1 and g.row.quantity != "ΔΔG"]
    if timed:
        written.append(_save(out / "convergence.png", 2, lambda axes: convergence(axes, timed)))
    return written


def _times(rows: Sequence[Gathered], g: Gathered) -> int:
    return len({other.row.switch_ps for other in rows if _series(other) == _series(g)})


def _series(g: Gathered) -> tuple[Any, ...]:
    r = g.row
    return r.quantity, r.route, r.phase, r.temperature, r.natoms, r.pressure, r.system


def against_temperature(ax: Axes, rows: Sequence[Gathered]) -> Axes:
    """Values per unit (eV, or meV where the spread is small) with SE; one line per route and
    phase and size.  Absolute G is drawn as it is: its slope is minus the entropy."""
    phases = list(dict.fromkeys(g.row.phase for g in rows))
    sizes = sorted({g.row.natoms for g in rows})
    groups: dict[tuple[Any, ...], list[Gathered]] = {}
    for g in rows:
        key = (g.row.route, g.row.phase, g.row.natoms, g.row.pressure, g.row.system)
        groups.setdefault(key, []).append(g)
    systems = {g.row.system for g in rows}
    for (route, phase, size, _, system), members in groups.items():
        members = sorted(members, key=lambda g: g.row.temperature)
        marker, colour, line = _MARKS[route]
        label = route + (f", {phase}" if phase else "") + (f", N = {size}" if sizes[1:] else "")
        if len(systems) > len(phases):
            label += f", {system}"
        ax.errorbar(
            [g.row.temperature for g in members],
            [g.row.per_unit for g in members],
            [g.row.per_unit_se for g in members],
            color=colour,
            marker=marker,
            ls=line,
            ms=5,
            capsize=3,
            fillstyle=_PHASES[phases.index(phase) % 2],
            alpha=1.0 if size == sizes[-1] else 0.55,
            label=label,
        )
    first = rows[0].row
    ax.set_xlabel("temperature (K)")
    ax.set_ylabel(f"{first.quantity} (eV per {first.unit})".replace("G_v", "$G_v$"))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.legend(loc="best")
    return ax


def _one_panel(axes: Sequence[Axes], rows: Sequence[Gathered]) -> None:
    against_temperature(axes[0], rows)


def _differences(axes: Sequence[Axes], rows: Sequence[Gathered]) -> None:
    """The paper's Fig. 5b: ΔG of both phases above, ΔΔG below."""
    against_temperature(axes[0], [g for g in rows if g.row.quantity == "ΔG"])
    if len(axes) > 1:
        against_temperature(axes[1], [g for g in rows if g.row.quantity == "ΔΔG"])


def convergence(axes: Sequence[Axes], rows: Sequence[Gathered]) -> None:
    """The paper's Fig. 4d: deviation from the longest switch above, dissipation below."""
    from matplotlib.ticker import LogLocator

    groups: dict[tuple[Any, ...], list[Gathered]] = {}
    for g in rows:
        groups.setdefault(_series(g), []).append(g)
    for (quantity, route, phase, temperature, *_), members in groups.items():
        members = sorted(members, key=lambda g: g.row.switch_ps)
        marker, colour, line = _MARKS[route]
        times = [g.row.switch_ps for g in members]
        reference = members[-1].row.per_unit
        style: dict[str, Any] = {"color": colour, "marker": marker, "ls": line, "ms": 5}
        name = quantity.replace("G_v", "$G_v$")
        label = f"{name}, {route}, {f'{phase}, ' if phase else ''}{temperature:g} K"
        axes[0].errorbar(
            times,
            [1e3 * (g.row.per_unit - reference) for g in members],
            [1e3 * g.row.per_unit_se for g in members],
            capsize=3,
            label=label,
            **style,
        )
        axes[1].plot(times, [g.row.dissipation_kT for g in members], label=label, **style)
    axes[0].axhline(0.0, color="0.6", lw=0.8)
    axes[0].set_ylabel("deviation (meV per unit)")
    axes[1].axhline(2.0, color=REFERENCE, lw=0.8, ls=":")
    axes[1].set_ylabel("dissipation (kT)")
    axes[1].set_xlabel("switching time (ps)")
    ticks = sorted({g.row.switch_ps for g in rows})
    for ax in axes:
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
        ax.set_xticks([], minor=True)
    dissipated = [g.row.dissipation_kT for g in rows]
    if min(dissipated) > 0.0:  # an estimate near zero may be negative
        axes[1].set_yscale("log")
        axes[1].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes[1].yaxis.set_major_formatter("{x:g}")
        axes[1].yaxis.set_minor_formatter("")
    axes[0].legend(loc="best")


def _save(path: Path, panels: int, draw: Callable[[Sequence[Axes]], object]) -> Path:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(4.8, 1.0 + 2.5 * panels))
        canvas = FigureCanvasAgg(figure)
        draw(figure.subplots(panels, 1, squeeze=False)[:, 0].tolist())
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            canvas.print_figure(aside)
    return path
