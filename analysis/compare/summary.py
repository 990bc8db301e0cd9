"""The free energies of a workflow as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..report.grouped import grouped
from ..report.plain import drawn
from ..report.text import _table, with_error
from . import finite_cell as cell
from .workflow import WorkflowResult

if TYPE_CHECKING:
    from rich.console import Console


def workflow_summary(result: WorkflowResult, width: int = 110) -> str:
    """The result for a terminal."""
    return drawn(lambda console: _print_workflow(console, result), width)


def _print_workflow(console: Console, result: WorkflowResult) -> None:
    rows = [
        [
            r.quantity,
            r.phase or "–",
            f"{r.temperature:g}",
            r.route,
            with_error(r.per_unit, r.per_unit_se),
            f"{1e3 * r.per_unit_half95:.2f}",
            "–" if r.sd is None else f"{1e3 * r.sd / r.per:.2f}",
            f"{r.dissipation_kT:.2f}",
            str(r.evaluations),
        ]
        for r in result.rows
    ]
    kinds = dict.fromkeys((r.quantity, r.unit) for r in result.rows)
    units = ", ".join(f"{quantity} per {unit}" for quantity, unit in kinds)
    columns = ["", "phase", "T (K)", "route", "value"]
    columns += ["95 % (± meV)", "SD (meV)", "diss. (kT)", "evaluations"]
    title = f"Free energies: {units}; stated error after ±, SD over replicas"
    console.print(_table(title, columns, rows))
    if result.agreements:
        columns = ["", "phase", "T (K)", "finite cell", "Δ (meV)", "SE", "in SE", "efficiency"]
        rows = [
            [
                a.quantity,
                a.phase or "–",
                f"{a.temperature:g}",
                cell.as_text(a.finite_cell),
                f"{1e3 * a.difference:+.2f}",
                f"{1e3 * a.se:.2f}",
                f"{a.sigmas:.1f}",
                a.efficiency_text,
            ]
            for a in result.agreements
        ]
        title = (
            "Frenkel–Ladd + finite cell − alchemical; efficiency: how many times fewer evaluations "
            "the alchemical path needs for the same error, with its 95 % interval"
        )
        console.print(_table(title, columns, rows))
        console.print(_table(cell.MEANING, *cell.conventions_table(result.rows)))
    for label, value in result.configurational.items():
        console.print(
            f"configurational kT ln n at {label}: {1e3 * value:+.2f} meV, not in the values above "
            f"(it {'lowers' if value > 0 else 'raises'} them)"
        )
    if result.outlook is not None:
        console.print(f"{result.outlook.total}: {result.outlook.line}", soft_wrap=True)
    for name in result.missing:
        console.print(f"not done: {name}")
    for w in grouped(result.warnings):
        console.print(f"warning: {w}", soft_wrap=True)
