"""The result as text for a terminal."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from ...paths.formulas import Correction
from ..corrections.mass_leg import MassLeg
from ..corrections.scaling import Curve
from ..estimators.estimate import Estimate
from ..estimators.fixed_lambda import Window
from ..estimators.mbar import Mbar
from ..estimators.switching import WorkAnalysis
from ..result import Result, Total
from .checks import HEAD, check_rows, heading
from .grouped import grouped
from .plain import drawn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


# Methods as they are called in result.json, and what each of them is.
NAMES = {
    "eq. 11": "least variance (eq. 11)",
    "BAR": "no bias (BAR)",
    "TI": "quadrature (TI, eq. 8)",
    "MBAR": "all windows (MBAR)",
}


def meV(value: float | None, digits: int = 3) -> str:
    """eV as meV text; a dash for what was not estimated."""
    return "–" if value is None else f"{1e3 * value:.{digits}f}"


def with_error(value: float | None, se: float | None, unit: str = "eV") -> str:
    """``1.2345 ± 0.0012 eV`` with two digits of error; says so where there is none."""
    if value is None:
        return "not known"
    if se is None:
        return f"{value:.6f} {unit} (error not estimated)"
    digits = 6 if se == 0 else min(10, max(0, 1 - floor(log10(se))))
    return f"{value:.{digits}f} ± {se:.{digits}f} {unit}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, name in enumerate(columns):
        numeric = k > 0 and all(r[k][:1] in "-–+0123456789" for r in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _total_rows(t: Total, result: Result) -> list[str]:
    n = result.substituted or 1
    if result.formula_units > 1:
        share = with_error(t.per_formula_unit, t.per_formula_unit_se)
    elif n > 1 and t.value is not None:
        share = with_error(t.value / n, None if t.se is None else t.se / n)
    else:
        share = "(one)" if result.substituted else "(one formula unit)"
    half95 = "–" if t.ci95 is None else f"{0.5 * (t.ci95[1] - t.ci95[0]):.4f}"
    return [NAMES.get(t.method, t.method), with_error(t.value, t.se), half95, share, t.se_kind]


def _estimate_row(e: Estimate) -> list[str]:
    return [e.method, meV(e.value), meV(e.se), meV(e.sd), e.se_kind]


def _term_row(t: Correction) -> list[str]:
    value = "missing" if t.value is None else f"{t.value:+.6f}"
    return [t.name, value, t.unit, t.source]


def _window_row(w: Window) -> list[str]:
    m = w.mean
    return [
        f"{w.lam:g}",
        meV(m.value),
        meV(m.se),
        meV(m.sd),
        f"{w.inefficiency:.1f}",
        f"{w.equilibration} rows",
        m.se_kind,
    ]


def _works(a: WorkAnalysis, result: Result) -> list[list[str]]:
    d, loss = a.diagnostics, a.dissipation
    rows = []
    for name, sign, sd, lost in (
        ("forward, λ 0→1", 1, d.sd_forward, loss.forward),
        ("backward, λ 1→0", -1, d.sd_backward, loss.backward),
    ):
        works = [
            w for r in result.replicas for w in (r.forward if sign > 0 else r.backward).tolist()
        ]
        rows.append([name, meV(sum(works) / len(works)), meV(sd), meV(lost)])
    return rows


def summary(result: Result, width: int = 110) -> str:
    """The whole result as plain text: works, estimates, dissipation, terms, totals, warnings."""
    return drawn(lambda console: _print_result(console, result), width)


def _print_result(console: Console, result: Result) -> None:
    c = result.conditions
    where = f"{c.temperature:g} K"
    if c.pressure is not None:
        where += f", {c.pressure:g} bar"
    labels = f"  [{', '.join(result.labels)}]" if result.labels else ""
    console.print(f"{result.quantity}{labels}")
    size = f"{_count(c.natoms, 'atom')}, {_count(result.formula_units, 'formula unit')}"
    console.print(
        f"{c.alchemy}, {c.formula} ({size}), {c.ensemble}, {where}, {_count(c.beads, 'bead')}"
    )
    console.print()
    if result.totals:
        by_atom = result.substituted is not None and result.formula_units == 1
        share = "per substituted atom" if by_atom else "per formula unit"
        head = ["method", "whole cell", "95 % (± eV)", share, "error is"]
        rows = [_total_rows(t, result) for t in result.totals]
        console.print(
            _table("Total: free energy from work or integral, plus every term", head, rows)
        )
    if result.pooled is not None:
        _print_switching(console, result, result.pooled)
    if result.windows:
        head = ["λ", "mean (meV)", "SE (meV)", "SD (meV)", "g", "equilibration", "error is"]
        rows = [_window_row(w) for w in result.windows]
        console.print(_table("⟨∂H/∂λ⟩", head, rows))
    if result.integral is not None and result.quadrature is not None:
        i, rule = result.integral, result.quadrature
        console.print(f"TI: {with_error(i.value, i.se)}, {i.se_kind}")
        if rule.difference is not None:
            console.print(
                f"{rule.rule} minus {rule.embedded_rule}: "
                f"{with_error(rule.difference, rule.difference_se)}, the error of the lower rule"
            )
        console.print()
    if result.mbar is not None:
        _print_mbar(console, result.mbar)
    if result.scaling is not None:
        _print_scaling(console, result.scaling)
    if result.mass_leg is not None:
        _print_leg(console, result.mass_leg)
    if result.terms:
        rows = [_term_row(t) for t in result.terms]
        console.print(_table("Terms, as added", ["term", "value", "unit", "source"], rows))
    if result.checks:
        console.print(_table(heading(result.checks), HEAD, check_rows(result.checks)))
    if result.outlook is not None:
        console.print(result.outlook.line)
    for warning in grouped(result.warnings):
        console.print(f"! {warning}")


def _print_mbar(console: Console, m: Mbar) -> None:
    rows = []
    for k, lam in enumerate(m.lambdas):
        overlap = "–"
        at = [i for i, x in enumerate(m.sampled) if x == lam]
        if at and at[0] < len(m.neighbours):
            overlap = f"{m.neighbours[at[0]]:.3f}"
        se = "–" if m.errors is None else meV(m.errors[k])
        rows.append(
            [
                f"{lam:g}",
                meV(m.free_energies[k]),
                se,
                str(m.samples[k]),
                f"{m.effective_samples[k]:.1f}",
                overlap,
            ]
        )
    head = ["λ", "F − F(0) (meV)", "SE (meV)", "samples", "effective", "overlap with next"]
    console.print(_table(f"MBAR, {m.source}", head, rows))


def _print_scaling(console: Console, curve: Curve) -> None:
    m = len(curve.temperatures)
    shown = sorted({round(k * (m - 1) / 8) for k in range(9)})
    rows = [
        [
            f"{curve.temperatures[k]:.1f}",
            with_error(curve.values[k], None if curve.se is None else curve.se[k]),
            "–" if curve.dissipation is None else meV(curve.dissipation[k]),
        ]
        for k in shown
    ]
    name = "G" if curve.reference is not None else "G − (T/T0) G(T0)"
    console.print(
        _table(
            f"Along the path, whole cell; error is {curve.se_kind}",
            ["T (K)", name, "dissipated (meV, at T0)"],
            rows,
        )
    )
    check = curve.check
    if check is not None:
        console.print(
            f"check at {check.against.temperature:g} K: curve minus independent value "
            f"{with_error(check.difference, check.sigma)} ({check.against.source})\n"
        )


def leg_summary(leg: MassLeg, width: int = 110) -> str:
    """A mass leg by itself as plain text."""
    return drawn(lambda console: _print_leg(console, leg), width)


def _print_leg(console: Console, leg: MassLeg) -> None:
    head = ["s", "dF/ds (meV)", "SE (meV)", "g", "equilibration", "error is"]
    rows = [
        [
            f"{p.s:.4f}",
            meV(p.mean.value),
            meV(p.mean.se),
            f"{p.inefficiency:.1f}",
            f"{p.equilibration} rows",
            p.mean.se_kind,
        ]
        for p in leg.points
    ]
    console.print(_table("Mass leg, s = 0: initial, 1: final masses", head, rows))
    console.print(
        f"mass leg {with_error(leg.value, leg.se)}; the same masses classically "
        f"{leg.classical:+.6f} eV (eq. 22)\n"
    )


def _print_switching(console: Console, result: Result, a: WorkAnalysis) -> None:
    head = ["direction", "mean (meV)", "SD (meV)", "dissipated (meV, from BAR)"]
    console.print(_table(f"Work, {_count(a.n, 'pair')}", head, _works(a, result)))
    rows = [_estimate_row(a.eq11), _estimate_row(a.bar)]
    if result.over_replicas is not None:
        rows.append(_estimate_row(result.over_replicas))
    head = ["ΔF from work", "value (meV)", "SE (meV)", "SD (meV)", "error is"]
    console.print(_table("Estimates", head, rows))
    loss = a.dissipation
    spread = "" if loss.mean.se is None else f" ± {meV(loss.mean.se)}"
    console.print(
        f"dissipation {meV(loss.mean.value)}{spread} meV = {loss.mean_kT:.2f} kT (eq. 10), "
        f"hysteresis {meV(loss.hysteresis)} meV"
    )
    console.print(f"overlap of forward and backward works {a.diagnostics.overlap:.2f} of 0.5")
    lag = a.diagnostics.lag1
    chained = "too few to tell" if lag is None else f"lag-1 autocorrelation {lag:.2f}"
    console.print(f"independence of chained cycles: {chained}")
    console.print()
