"""Many calculations side by side: one table, free energies against temperature, sizes and times.

Values are only compared within a phase.  Its name is given (``NAME=FOLDER``), or that of a workflow
with several phases, or else the space group, with the folder above where calculations lie in
several: polymorphs of one formula are different materials.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.formula import Formula

from ...contract.files import json_text, write_files, written_aside
from ...contract.manifest import is_workflow
from ...contract.stored import dump
from ...errors import AlchemdriverError, AnalysisError, InputError
from ...units import kT
from ..corrections.formulas import infinite_size
from ..report.plain import cell
from ..report.plots import REFERENCE, STYLE
from ..result import FILE, Result, read_result
from .workflow import Row, analyze_workflow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCHEMA = "alchemdriver-gathered/1"
_COLUMNS = (
    "folder", "system", "quantity", "route", "phase", "temperature_K", "pressure_bar", "natoms",
    "unit", "value_eV", "se_eV", "sd_eV", "replicas", "switch_ps", "dissipation_kT", "evaluations",
)  # fmt: skip
_MARKS = {"Frenkel–Ladd": ("s", "#D55E00", "--"), "alchemical": ("o", "#0072B2", "-")}
_MARKS |= {"switching": ("D", "#009E73", "-."), "windows": ("v", "#CC79A7", ":")}
OFF_THE_LINE = 4.0  # χ² per degree of freedom of a fit in 1/N, beyond which it is doubtful
_PHASES = ("full", "none")  # marker fill of the first and the second phase


@dataclass(frozen=True)
class Gathered:
    """A row with the folder that it comes from; values per unit (atom, vacancy, …)."""

    folder: str
    row: Row
    name: str = ""  # of the phase, where one was given or made from folders

    @property
    def phase(self) -> str:
        """What the crystal is called; '' where nothing is known."""
        own = self.row.phase or self.row.space_group
        return ", ".join(dict.fromkeys(x for x in (self.name, self.row.phase) if x)) or own


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
    chi2: float | None = None  # per degree of freedom of the fit; None: two points


def gather(
    targets: Sequence[Path | str], say: Callable[[str], object] = lambda line: None
) -> list[Gathered]:
    """The rows of workflows, switches and windows.

    targets: folders, or NAME=FOLDER to name the phase.  Those with nothing to show yet are passed
    over, each with a line to *say*.  Raises InputError for the same folder twice or none,
    AnalysisError if nothing is left.
    """
    if not targets:
        raise InputError("gather: expected folders, got none")
    given = [named(str(t)) for t in targets]
    folders = [folder for _, folder in given]
    twice = next((f for f in folders if folders.count(f) > 1), None)
    if twice is not None:
        raise InputError(f"gather: {twice} is given twice")
    several = len({f.parent for f in folders}) > 1
    found: list[Gathered] = []
    left_out: list[str] = []
    for label, (name, folder) in zip(_names(folders), given, strict=True):
        try:
            rows, missing = _rows_of(folder)
        except AlchemdriverError as err:
            left_out.append(f"{label}: left out: {err}")
            continue
        if missing:
            say(f"{label}: not done: {', '.join(missing)}")
        for row in rows:
            made = f"{row.space_group}, {folder.parent.name}" if several else ""
            unnamed = not row.phase and row.space_group
            found.append(Gathered(label, row, name or (made if unnamed else "")))
    if not found:
        raise AnalysisError(f"gather: none of the folders has a free energy yet: {left_out[0]}")
    for line in left_out:
        say(line)
    return found


def named(target: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder, which may have '=' in its own name."""
    name, equals, folder = target.partition("=")
    if equals and name and not Path(target).exists():
        return name, Path(folder).resolve()
    return "", Path(target).resolve()


def _rows_of(folder: Path) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of *folder*, and what it has not done yet."""
    if is_workflow(folder):
        found = analyze_workflow(folder)
        return list(found.rows), tuple(found.missing)
    path = folder / FILE  # what 'run' or 'analyze' left there
    if not path.is_file():
        raise AnalysisError(
            f"{folder}: neither workflow.json nor {FILE}, which cannot be read before "
            "'alchemdriver run' or 'analyze' has written it"
        )
    return [row_of(read_result(path))], ()


def row_of(result: Result) -> Row:
    """The total of switches (BAR) or windows (MBAR, else TI), per formula unit.

    Raises AnalysisError where there is none with an error, and for a curve G(T).
    """
    if result.scaling is not None:
        raise AnalysisError(
            f"{result.folder}: a curve G(T), not one free energy: read 'scaling' of its {FILE}"
        )
    total = next((t for m in ("BAR", "MBAR", "TI") for t in result.totals if t.method == m), None)
    if total is None or total.value is None or total.se is None or total.ci95 is None:
        raise AnalysisError(f"{result.folder}: no total with an error")
    c, over = result.conditions, result.over_replicas
    steps = sum(w.last_step + 1 for w in result.windows)
    switch_ps = 0.0
    if c.cycles and c.switch is not None and c.timestep is not None:
        # replicas may differ in cycles
        pairs = sum(len(r.forward) for r in result.replicas)
        steps = 2 * pairs * ((c.equilibrate or 0) + c.switch) + len(result.replicas)
        switch_ps = c.switch * c.timestep * 1e-3
    energy = "F" if c.pressure is None and "P V" not in {t.name for t in result.terms} else "G"
    absolute = result.quantity.startswith(("F of", "G of"))
    provenance = next(iter((*result.sources, *(r.provenance for r in result.replicas))), None)
    model = "" if provenance is None else provenance.model
    return Row(
        quantity=energy if absolute else f"Δ{energy}",
        route=result.kind.replace("fixed_lambda", "windows"),
        phase="",
        temperature=c.temperature,
        pressure=c.pressure,
        value=total.value,
        se=total.se,
        half95=0.5 * (total.ci95[1] - total.ci95[0]),
        sd=None if over is None else over.sd,
        replicas=max(1, len(result.replicas)),
        per=c.natoms if absolute else result.formula_units,
        unit="atom" if absolute else "formula unit",
        evaluations=steps * c.beads,
        dissipation_kT=0.0 if result.pooled is None else result.pooled.dissipation.mean_kT,
        natoms=c.natoms,
        switch_ps=switch_ps,
        system=f"{model} {reduced(c.formula)} {c.alchemy}",
        coefficients={},
    )


def reduced(formula: str) -> str:
    """A formula without what its counts share: one for all sizes of a crystal."""
    return str(Formula(formula).reduce()[0])


def _names(folders: list[Path]) -> list[str]:
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
            key = (r.quantity, r.route, g.phase, r.temperature, r.pressure, r.system)
            groups.setdefault(key, []).append(g)
    found = []
    for (quantity, route, phase, temperature, *_), members in groups.items():
        sizes = [g.row.natoms for g in members]
        if len(set(sizes)) < 2:
            continue
        try:
            values = [g.row.per_unit + _logarithm(g.row) for g in members]
            errors = [g.row.per_unit_se for g in members]
            value, se = infinite_size(sizes, values, errors)
            chi2 = _chi2(sizes, values, errors)
        except AnalysisError:
            continue  # an error that is not known
        found.append(
            Extrapolation(
                quantity, route, phase, temperature, tuple(sorted(set(sizes))), value, se, chi2
            )
        )
    return found


def _chi2(sizes: Sequence[int], values: Sequence[float], errors: Sequence[float]) -> float | None:
    """χ² per degree of freedom of the weighted fit in 1/N; None for two points."""
    if len(sizes) < 3:
        return None
    x, w = 1.0 / np.asarray(sizes, dtype=float), 1.0 / np.asarray(errors)
    rest = values - np.polyval(np.polyfit(x, values, 1, w=w), x)
    return float(np.sum((w * rest) ** 2) / (len(sizes) - 2))


def _logarithm(row: Row) -> float:
    """½ kT ln N per atom of an absolute G or F, eV; 0 for differences."""
    if row.quantity not in ("G", "F"):
        return 0.0
    return 0.5 * kT(row.temperature) * float(np.log(row.natoms)) / row.natoms


def write_tables(rows: Sequence[Gathered], out: Path) -> list[Path]:
    """``gathered.csv`` and ``gathered.json``; energies per unit in eV."""
    out.mkdir(parents=True, exist_ok=True)
    table = [
        [
            g.folder, g.row.system, g.row.quantity, g.row.route, g.phase, g.row.temperature,
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
    names = {"G": "g.png", "G_v": "g_v.png", "F": "f.png", "ΔF": "df.png"}
    for quantity, name in names.items():
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
    return r.quantity, r.route, g.phase, r.temperature, r.natoms, r.pressure, r.system


def against_temperature(ax: Axes, rows: Sequence[Gathered]) -> Axes:
    """Values per unit (eV, or meV where the spread is small) with SE; one line per route and
    phase and size.  Absolute G is drawn as it is: its slope is minus the entropy."""
    phases = list(dict.fromkeys(g.phase for g in rows))
    sizes = sorted({g.row.natoms for g in rows})
    groups: dict[tuple[Any, ...], list[Gathered]] = {}
    for g in rows:
        key = (g.row.route, g.phase, g.row.natoms, g.row.pressure, g.row.system)
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
