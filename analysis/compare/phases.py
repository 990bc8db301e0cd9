"""Where phases cross: G(T) of named phases, and the temperatures at which two of them are equal.

| symbol | here                                                                                  |
|--------|---------------------------------------------------------------------------------------|
| G(T)   | per formula unit, eV, with + ½ kT ln N per cell: what N atoms lack of the infinite      |
|        | crystal, so that cells of different size may be compared                                |
| ΔG     | of the second phase minus that of the first                                            |
| T_c    | ΔG(T_c) = 0; σ(T_c) = σ(ΔG(T_c)) / abs ΔS, ΔS = −dΔG/dT                                |
| L      | T_c ΔS, latent heat                                                                   |

An error δ of ΔG moves T_c by δ/ΔS, so that its error at T_c decides; how errors at different T
belong together does not.

A phase is a curve of reversible scaling with its reference, or two or more free energies at
several T.  Points (T_i, G_i) are joined by G = c₀ + c₁ T + c₂ T ln T (constant heat capacity; two
points: without c₂), by least squares weighted with their errors; its value at T is Σ L_i(T) G_i,
which has the variance Σ L_i² σ_i².
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from ase.formula import Formula

from ...contract.files import write_files
from ...contract.manifest import is_workflow
from ...contract.stored import Format, Positive, Shape
from ...errors import AnalysisError, InputError
from ...units import kT
from ..estimators.estimate import ONE_SIGMA, add, degrees_of_freedom, stated_sums, student
from ..report.plain import cell
from ..report.plots import save_figure
from ..result import FILE, Result, read_result
from .gather import Gathered, gather, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 101  # of each phase, evenly spaced in T
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_DASHES = ("-", "--", "-.", ":")
OFF_THE_FIT = 4.0  # χ² per degree of freedom of points, beyond which their curve is doubtful


@dataclass(frozen=True)
class Phase:
    """G(T) of one phase at one pressure."""

    name: str
    pressure: float  # bar
    formula: str  # reduced
    model: str
    model_sha256: str | None  # of its file; None: of stages, whose manifests name the model
    natoms: tuple[int, ...]  # of the cells behind it
    temperatures: Annotated[np.ndarray, Shape("m")]  # K, rising
    values: Annotated[np.ndarray, Shape("m")]  # eV per formula unit
    se: Annotated[np.ndarray, Shape("m")]  # eV, stated errors
    half95: Annotated[np.ndarray, Shape("m")]  # eV, half of the 95 % interval
    source: str

    def at(self, kelvin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """G, se and half95 at *kelvin* within the phase's range, eV."""
        value, se, half = (
            np.interp(kelvin, self.temperatures, y) for y in (self.values, self.se, self.half95)
        )
        return value, se, half


@dataclass(frozen=True)
class Crossing:
    """A temperature at which two phases are equal."""

    temperature: Positive  # K
    se: Positive  # K, stated error
    half95: Positive  # K, half of the 95 % interval
    entropy: float  # eV/K per formula unit, second minus first phase
    latent_heat: float  # eV per formula unit, of the second from the first phase


@dataclass(frozen=True)
class Pair:
    """Two phases at one pressure, where both were computed."""

    first: str
    second: str
    pressure: float  # bar
    temperatures: Annotated[np.ndarray, Shape("m")]  # K
    difference: Annotated[np.ndarray, Shape("m")]  # eV per formula unit, second minus first
    se: Annotated[np.ndarray, Shape("m")]  # eV
    half95: Annotated[np.ndarray, Shape("m")]  # eV
    crossings: tuple[Crossing, ...]
    says: str  # in one line


@dataclass(frozen=True)
class Phases:
    phases: tuple[Phase, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


PHASES = Format(
    "alchemdriver-phases/1", Phases, remedy="compare the phases again", error=AnalysisError
)


def compare_phases(
    targets: Sequence[str], say: Callable[[str], object] = lambda line: None
) -> Phases:
    """Phases NAME=FOLDER, several folders to a name, against each other at each pressure.

    A folder holds stages, or reversible scaling with its reference.  What is not done is left out
    with a line to *say*.  Raises InputError for a folder without a name or fewer
    than two phases, AnalysisError for what cannot be compared.
    """
    folders: dict[str, list[Path]] = {}
    for target in targets:
        name, folder = named(target)
        if not name:
            raise InputError(
                f"phases: {target} has no name: give NAME=FOLDER, polymorphs of one formula are "
                "told apart by it"
            )
        folders.setdefault(name, []).append(folder)
    if len(folders) < 2:
        raise InputError(f"phases: expected two phases or more, got {len(folders)}")
    found, warnings = [], []
    for name, members in folders.items():
        for phase, doubts in _read(name, members, say):
            found.append(phase)
            warnings += doubts
    _same_material(found)
    together = [(a, b) for a, b in combinations(found, 2) if a.pressure == b.pressure]
    pairs = [pair(a, b) for a, b in together]
    if not pairs:
        where = "; ".join(f"{p.name} at {p.pressure:g} bar" for p in found)
        raise AnalysisError(f"phases: no two phases at one pressure: {where}")
    for p in pairs:
        if len(p.crossings) > 1:
            warnings.append(f"{p.first}, {p.second}: more than one crossing: compute G more finely")
    return Phases(tuple(found), tuple(pairs), tuple(warnings))


# --- reading ------------------------------------------------------------------------------------


def _read(
    name: str, folders: Sequence[Path], say: Callable[[str], object]
) -> Iterator[tuple[Phase, list[str]]]:
    """The phase at each of its pressures, with what is doubtful about it."""
    curves, rest = [], []
    for folder in folders:
        file = folder / FILE
        result = read_result(file) if file.is_file() and not is_workflow(folder) else None
        if result is not None and result.scaling is not None:
            curves.append(result)
        else:
            rest.append(folder)
    if curves and (rest or len(curves) > 1):
        raise AnalysisError(
            f"{name}: {curves[0].folder} is a whole curve G(T): expected it alone, or folders of "
            "single temperatures"
        )
    if curves:
        result = curves[0]
        yield curve_of(name, result), [f"{name}: {x}" for x in (*result.labels, *result.warnings)]
        return
    rows = [g for g in gather([f"{name}={f}" for f in rest], say) if g.row.quantity == "G"]
    if not rows:
        raise AnalysisError(f"{name}: no absolute G at constant pressure among its folders")
    for pressure in sorted({_pressure(g) for g in rows}):
        yield points_of(name, [g for g in rows if _pressure(g) == pressure])


def _pressure(g: Gathered) -> float:
    if g.row.pressure is None:
        raise AnalysisError(
            f"{g.folder}: G by P V at constant volume, whose pressure no table has: give a folder "
            "of stages (prepare crystal)"
        )
    return g.row.pressure


def curve_of(name: str, result: Result) -> Phase:
    """The curve of reversible scaling at constant pressure.  Raises AnalysisError without one that
    is absolute and has an error."""
    curve, c = result.scaling, result.conditions
    assert curve is not None
    if c.pressure is None:
        raise AnalysisError(
            f"{result.folder}: F at constant volume: phases cross in G, use scaling-npt"
        )
    if curve.reference is None or curve.se is None or curve.half95 is None:
        lacks = "reference (analyze --reference)" if curve.reference is None else "error"
        raise AnalysisError(f"{result.folder}: its G(T) has no {lacks}: analyse it again")
    formula = Formula(c.formula)
    units = formula.reduce()[1]
    order = np.argsort(curve.temperatures)
    t = curve.temperatures[order]
    provenance = next(iter((*result.sources, *(r.provenance for r in result.replicas))))
    return Phase(
        name,
        c.pressure,
        f"{formula.reduce()[0]:hill}",
        provenance.model,
        provenance.model_sha256,
        (c.natoms,),
        t,
        (curve.values[order] + _size(t, c.natoms)) / units,
        curve.se[order] / units,
        curve.half95[order] / units,
        f"reversible scaling from {curve.reference_temperature:g} K, {result.folder}",
    )


def points_of(name: str, rows: Sequence[Gathered]) -> tuple[Phase, list[str]]:
    """Free energies at several temperatures as one curve, and what is doubtful about it."""
    t = np.array([g.row.temperature for g in rows])
    systems = sorted({g.row.system for g in rows})
    if len(systems) > 1:
        raise AnalysisError(
            f"{name}: expected one model and formula, got {', '.join(systems)}: give them names of "
            "their own"
        )
    model, formula = systems[0].rsplit(maxsplit=1)  # of stages: a model and a formula
    atoms = len(Formula(formula))
    size = np.array([g.row.natoms for g in rows])
    values = np.array([g.row.value for g in rows]) + _size(t, size)
    values *= atoms / size
    dofs = [degrees_of_freedom(g.row.se, g.row.half95) for g in rows]
    if len(np.unique(t)) < 2:
        raise AnalysisError(f"{name}: one temperature, {t[0]:g} K: two are needed for a crossing")
    sigma = np.array(
        [g.row.se / student(ONE_SIGMA, nu) for g, nu in zip(rows, dofs, strict=True)]
    ) * (atoms / size)
    if not (sigma > 0.0).all():
        raise AnalysisError(f"{name}: a free energy without an error")
    grid = np.linspace(t.min(), t.max(), POINTS)
    basis = _basis(min(3, len(np.unique(t))))
    scale = 1.0 / sigma[:, None]
    weights = basis(grid) @ np.linalg.pinv(basis(t) * scale) * scale.T  # L, [T, point]
    rest = (values - basis(t) @ np.linalg.pinv(basis(t) * scale) @ (values / sigma)) / sigma
    free = len(t) - basis(t).shape[1]
    doubts = []
    if free > 0 and (chi2 := float(rest @ rest) / free) > OFF_THE_FIT:
        doubts.append(
            f"{name}: its free energies lie off one smooth curve (chi2 per degree of freedom "
            f"{chi2:.1f}): errors too small, or not one phase"
        )
    sums = [add(list((w * sigma) ** 2), dofs) for w in weights]
    se, half95 = (np.array([student(p, nu) * s for s, nu in sums]) for p in (ONE_SIGMA, 0.95))
    phase = Phase(
        name,
        _pressure(rows[0]),
        f"{Formula(formula):hill}",
        model,
        None,
        tuple(sorted(set(size.tolist()))),
        grid,
        weights @ values,
        se,
        half95,
        f"{len(t)} free energies from {t.min():g} to {t.max():g} K",
    )
    return phase, doubts


def _size(kelvin: np.ndarray, natoms: int | np.ndarray) -> np.ndarray:
    """+ ½ kT ln N of a cell, eV: see ``gather.extrapolations``."""
    return np.asarray(0.5 * np.vectorize(kT)(kelvin) * np.log(natoms))


def _basis(n: int) -> Callable[[np.ndarray], np.ndarray]:
    """The first *n* of 1, T, T ln T, T in units of 300 K: (m,) -> (m, n)."""

    def of(kelvin: np.ndarray) -> np.ndarray:
        x = np.asarray(kelvin, dtype=float) / 300.0
        return np.stack([np.ones_like(x), x, x * np.log(x)][:n], axis=1)

    return of


def _same_material(phases: Sequence[Phase]) -> None:
    for what in ("formula", "model", "model_sha256"):
        seen = {x: p.name for p in phases if (x := getattr(p, what)) is not None}
        if len(seen) > 1:
            listed = ", ".join(f"{value[:12]} ({name})" for value, name in seen.items())
            raise AnalysisError(f"phases: expected one {what.replace('_', ' ')}, got {listed}")


# --- comparing ----------------------------------------------------------------------------------


def pair(a: Phase, b: Phase) -> Pair:
    """ΔG = G_b − G_a where both are known.  AnalysisError if that is nowhere."""
    low = max(a.temperatures[0], b.temperatures[0])
    high = min(a.temperatures[-1], b.temperatures[-1])
    if low >= high:
        raise AnalysisError(
            f"{a.name} is known from {a.temperatures[0]:g} to {a.temperatures[-1]:g} K, {b.name} "
            f"from {b.temperatures[0]:g} to {b.temperatures[-1]:g} K: no temperature in common"
        )
    t = np.linspace(low, high, POINTS)
    (ga, sa, ha), (gb, sb, hb) = a.at(t), b.at(t)
    difference = gb - ga
    se, half = np.zeros(len(t)), np.zeros(len(t))
    for k, (s1, h1, s2, h2) in enumerate(zip(sa, ha, sb, hb, strict=True)):
        nu1, nu2 = degrees_of_freedom(s1, h1), degrees_of_freedom(s2, h2)
        one, other = s1 / student(ONE_SIGMA, nu1), s2 / student(ONE_SIGMA, nu2)
        both, half_both = stated_sums(np.array([one]), nu1, np.array([other]), nu2)
        se[k], half[k] = both[0], half_both[0]
    found = tuple(_crossings(t, difference, se, half))
    return Pair(
        a.name, b.name, a.pressure, t, difference, se, half, found,
        _says(a.name, b.name, t, difference, half, found),
    )  # fmt: skip


def _crossings(
    t: np.ndarray, difference: np.ndarray, se: np.ndarray, half95: np.ndarray
) -> Iterator[Crossing]:
    """Where the difference changes its sign, if its errors leave one at either end."""
    if not (np.abs(difference) > half95).any():
        return
    for k in np.flatnonzero(np.diff(difference >= 0.0)):
        x = difference[k] / (difference[k] - difference[k + 1])
        at = float(t[k] + x * (t[k + 1] - t[k]))
        near = slice(max(0, k - 4), k + 6)  # a slope over a tenth of the range
        slope = float(np.polyfit(t[near], difference[near], 1)[0])
        yield Crossing(
            at,
            float(np.interp(at, t, se)) / abs(slope),
            float(np.interp(at, t, half95)) / abs(slope),
            -slope,
            -slope * at,
        )


def _says(
    first: str,
    second: str,
    t: np.ndarray,
    difference: np.ndarray,
    half95: np.ndarray,
    found: Sequence[Crossing],
) -> str:
    where = f"from {t[0]:g} to {t[-1]:g} K"
    if not (np.abs(difference) > half95).any():
        return (
            f"{first} and {second} are not distinguishable {where}: their difference is below its "
            f"95 % interval, {1e3 * half95.max():.2f} meV per formula unit at most"
        )
    if not found:
        lower = second if difference[np.argmax(np.abs(difference) / half95)] < 0.0 else first
        smallest = int(np.argmin(np.abs(difference)))
        return (
            f"{first} and {second} do not cross {where}: {lower} is lower, by "
            f"{1e3 * abs(difference[smallest]):.2f} ± {1e3 * half95[smallest]:.2f} meV per formula "
            f"unit (95 %) where they are closest, {t[smallest]:g} K"
        )
    parts = []
    for c in found:
        below, above = (first, second) if c.entropy > 0.0 else (second, first)
        beyond = c.temperature - c.half95 < t[0] or c.temperature + c.half95 > t[-1]
        parts.append(
            f"{below} below, {above} above {c.temperature:.1f} ± {c.se:.1f} K (95 %: ± "
            f"{c.half95:.1f} K{', beyond the range computed' if beyond else ''}), latent heat "
            f"{1e3 * abs(c.latent_heat):.2f} meV per formula unit"
        )
    return "; ".join(parts)


# --- what is written ----------------------------------------------------------------------------


def write_phases(found: Phases, out: Path) -> list[Path]:
    """``phases.json``, ``phases.csv`` (every G(T)) and ``phases.png``."""
    out.mkdir(parents=True, exist_ok=True)
    lines = StringIO(newline="")
    writer = csv.writer(lines)
    writer.writerow(["phase", "pressure_bar", "temperature_K", "G_eV", "se_eV", "half95_eV"])
    for p in found.phases:
        for row in zip(p.temperatures, p.values, p.se, p.half95, strict=True):
            writer.writerow([cell(p.name), p.pressure, *map(float, row)])
    json_path, csv_path = out / "phases.json", out / "phases.csv"
    PHASES.write(json_path, found, {"units": "K, bar, eV per formula unit"})
    write_files({csv_path: lines.getvalue()})
    return [json_path, csv_path, save_figure(out / "phases.png", lambda ax: draw(ax, found))]


def draw(ax: Axes, found: Phases) -> Axes:
    """ΔG of every pair (meV per formula unit) with its 95 % band, crossings marked."""
    for k, p in enumerate(found.pairs):
        colour, dashes = _COLOURS[k % len(_COLOURS)], _DASHES[k // len(_COLOURS) % len(_DASHES)]
        y, half = 1e3 * p.difference, 1e3 * p.half95
        pressure = f", {p.pressure:g} bar" if len({q.pressure for q in found.pairs}) > 1 else ""
        label = f"G({p.second}) − G({p.first}){pressure}"
        ax.plot(p.temperatures, y, color=colour, ls=dashes, label=label)
        ax.fill_between(p.temperatures, y - half, y + half, color=colour, alpha=0.2, lw=0)
        for c in p.crossings:
            ax.errorbar(c.temperature, 0.0, xerr=c.half95, color=colour, marker="o", capsize=3)
    ax.axhline(0.0, color="0.4", lw=0.8)
    ax.set_xlabel("temperature (K)")
    ax.set_ylabel("difference (meV per formula unit)")
    ax.legend(loc="best", title="bands and bars: 95 %")
    return ax
