"""What quantum nuclei change: convergence with the number of beads, and quantum minus classical.

Trotter's error falls as 1/P², so totals at several P are fitted with F_P = F_∞ + a/P²; the
classical result is P = 1 with eq. 22 for the masses.  All values in eV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...contract.stored import Count, Format, NotNegative
from ...errors import AnalysisError
from ..report.plain import drawn
from ..report.plots import save_figure
from ..report.text import _table, meV, with_error
from ..result import Result
from .reference import same_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.console import Console


@dataclass(frozen=True)
class BeadPoint:
    """The free-energy difference that P beads give."""

    beads: Count
    potential: float  # eV, U switched at fixed masses
    potential_se: NotNegative | None  # eV
    masses: float  # eV, mass leg; eq. 22 for one bead
    masses_se: NotNegative | None  # eV; None: exact
    value: float  # eV, the total, other terms included
    se: NotNegative | None  # eV


@dataclass(frozen=True)
class QuantumResult:
    """Totals by number of beads, their limit, and the quantum correction."""

    method: str  # 'eq. 11', 'BAR' or 'TI'
    points: tuple[BeadPoint, ...]  # P > 1, in order of P
    classical: BeadPoint | None
    limit: float | None  # eV, F_∞ of the fit; None: fewer than three P
    limit_se: NotNegative | None  # eV, √χ² times that of the fit where χ² is above 1
    slope: float | None  # eV, a of F_∞ + a/P²
    chi2: float | None  # per degree of freedom of the fit
    correction: float | None  # eV, largest P minus classical
    correction_se: NotNegative | None  # eV


QUANTUM = Format(
    "alchemdriver-quantum/1",
    QuantumResult,
    remedy="compare the runs again",
    error=AnalysisError,
)


def compare_beads(
    results: Sequence[Result], classical: Result | None = None, method: str | None = None
) -> QuantumResult:
    """Put results of one transformation at different P side by side.

    method: of the totals; by default BAR for switching, TI for windows.  Raises AnalysisError if
    the runs differ in more than beads, or a total is missing.
    """
    if not results:
        raise AnalysisError("expected at least one path-integral result")
    together = [*results, *([classical] if classical else [])]
    same_runs(together)
    if classical is not None and classical.conditions.beads != 1:
        raise AnalysisError(f"{classical.folder}: expected one bead for the classical result")
    alone = next((r for r in results if r.conditions.beads == 1), None)
    if alone is not None:
        raise AnalysisError(f"{alone.folder} has one bead: give it as the classical result")
    points = tuple(sorted((_point(r, method) for r in results), key=lambda p: p.beads))
    for a, b in pairwise(points):
        if a.beads == b.beads:
            raise AnalysisError(f"two results have {a.beads} beads: analyse their runs together")
    reference = None if classical is None else _point(classical, method)
    correction = correction_se = None
    if reference is not None:
        correction = points[-1].value - reference.value
        correction_se = _both(points[-1].se, reference.se)
    limit, limit_se, slope, chi2 = extrapolate(points)
    return QuantumResult(
        _method(results[0], method),
        points,
        reference,
        limit,
        limit_se,
        slope,
        chi2,
        correction,
        correction_se,
    )


def _method(result: Result, method: str | None) -> str:
    return method or ("BAR" if result.kind == "switching" else "TI")


def _point(result: Result, method: str | None) -> BeadPoint:
    name = _method(result, method)
    total = next((t for t in result.totals if t.method == name), None)
    if total is None or total.value is None:
        missing = "; ".join(t.source for t in result.terms if t.value is None) or f"no {name}"
        raise AnalysisError(f"{result.folder}: no total ({missing})")
    if result.pooled is not None:
        work = result.pooled.bar if name == "BAR" else result.pooled.eq11
    elif result.integral is not None:
        work = result.integral
    else:
        raise AnalysisError(f"{result.folder}: no integral over λ")
    mass = next((t for t in result.terms if t.name == "mass term"), None)
    return BeadPoint(
        beads=result.conditions.beads,
        potential=work.value,
        potential_se=work.se,
        masses=0.0 if mass is None or mass.value is None else mass.value,
        masses_se=None if mass is None else mass.se,
        value=total.value,
        se=total.se,
    )


def _both(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else float(np.hypot(a, b))


def extrapolate(
    points: Sequence[BeadPoint],
) -> tuple[float | None, float | None, float | None, float | None]:
    """F_∞, its SE, a, and χ² per degree of freedom, of a weighted fit in 1/P²; all None for fewer
    than three P.

    χ² above 1 says that the points scatter more about 1/P² than their errors allow, because those
    are too small or P is too small for the law: the SE is then √χ² times that of the fit.
    """
    errors = [p.se for p in points if p.se]
    if len(points) < 3 or len(errors) < len(points):
        return None, None, None, None
    design = np.stack([np.ones(len(points)), [p.beads**-2.0 for p in points]], axis=1)  # [k, 2]
    y, weights = np.array([p.value for p in points]), np.array(errors) ** -2.0
    covariance = np.linalg.inv(design.T @ (weights[:, None] * design))
    fit = covariance @ (design.T @ (weights * y))
    chi2 = float(np.sum(weights * (y - design @ fit) ** 2) / (len(points) - 2))
    se = float(np.sqrt(covariance[0, 0] * max(1.0, chi2)))
    return float(fit[0]), se, float(fit[1]), chi2


def write_quantum(result: QuantumResult, folder: Path) -> Path:
    """``quantum.json`` in *folder*, energies in eV."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "quantum.json"
    QUANTUM.write(path, result, {"units": "eV"})
    return path


def bead_convergence(ax: Axes, result: QuantumResult) -> Axes:
    """Potential part, mass leg and total (meV) against 1/P², each from its classical value if that
    is known; the fit as a line."""
    zero = result.classical
    kinds = (
        ("potential", "U at fixed masses", "#0072B2", "o"),
        ("masses", "masses", "#D55E00", "s"),
        ("value", "total", "#000000", "D"),
    )
    x = [p.beads**-2.0 for p in result.points]
    for name, label, colour, marker in kinds:
        error = {"value": "se"}.get(name, f"{name}_se")
        shift = getattr(zero, name) if zero else 0.0
        y = [1e3 * (getattr(p, name) - shift) for p in result.points]
        bars = [1e3 * (getattr(p, error) or 0.0) for p in result.points]
        ax.errorbar(x, y, bars, color=colour, marker=marker, ms=4, ls="", capsize=3, label=label)
        if name == "value" and result.limit is not None:
            ends = [0.0, max(x)]
            line = [1e3 * (result.limit + (result.slope or 0.0) * e - shift) for e in ends]
            ax.plot(ends, line, color=colour, lw=0.9, label=r"$F_\infty + a/P^2$")
    ax.set_xlim(left=-0.02 * max(x))
    ax.set_xlabel(r"$1/P^2$")
    ax.set_ylabel(r"$\Delta F_P - \Delta F_1$ (meV)" if zero else r"$\Delta F_P$ (meV)")
    ax.legend(loc="best")
    return ax


def save_quantum_plot(result: QuantumResult, folder: Path) -> Path:
    """``quantum.png`` in *folder*."""
    return save_figure(Path(folder) / "quantum.png", lambda ax: bead_convergence(ax, result))


def _bead_row(p: BeadPoint) -> list[str]:
    values = (p.potential, p.potential_se, p.masses, p.masses_se, p.value, p.se)
    return [str(p.beads), *map(meV, values)]


def quantum_summary(result: QuantumResult, width: int = 110) -> str:
    """Totals by number of beads as plain text."""
    return drawn(lambda console: _print_quantum(console, result), width)


def _print_quantum(console: Console, result: QuantumResult) -> None:
    head = ["beads", "U (meV)", "SE", "masses (meV)", "SE", "total (meV)", "SE"]
    points = [*([result.classical] if result.classical else []), *result.points]
    title = f"Path integrals, {result.method}, whole cell"
    console.print(_table(title, head, [_bead_row(p) for p in points]))
    if result.limit is not None:
        console.print(
            f"limit of many beads {with_error(result.limit, result.limit_se)} from a fit in 1/P², "
            f"χ² per degree of freedom {result.chi2:.1f}"
            + (", by whose root the error is enlarged" if (result.chi2 or 0.0) > 1.0 else "")
        )
    if result.correction is not None:
        console.print(
            f"quantum minus classical {with_error(result.correction, result.correction_se)} "
            f"({result.points[-1].beads} beads and 1)"
        )
