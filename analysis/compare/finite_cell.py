"""The finite-cell term of a workflow: from the constant-pressure stages of both ends of a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ...contract.manifest import Calculation, Stage, Workflow
from ...contract.run_input import read_input
from ...errors import AlchemdriverError, AnalysisError
from ...paths.formulas import Correction
from ..corrections.finite_cell import NAME, fluctuations_of, term_between
from ..estimators.cell import CellFluctuations

if TYPE_CHECKING:
    from .workflow import Row

MEANING = (
    "finite cell: ΔG at constant pressure (alchemical) minus Δ(F + P V) at the mean cell "
    "(Frenkel–Ladd); with it each route has both, eV"
)
# What a path leads from and to, by the roles of the Frenkel–Ladd calculation of the same quantity.
_ENDS = {"ΔG": ("initial", "final"), "G_v": ("crystal", "defect")}


@dataclass
class FiniteCells:
    """Terms of one workflow; the fluctuations of a stage are read once."""

    workflow: Workflow
    _known: dict[str, CellFluctuations] = field(default_factory=dict)

    def term(self, c: Calculation) -> Correction | None:
        """ΔG at constant pressure minus that at constant volume, eV of the cell.

        Its value is None, and its source says why, where it cannot be had.  None where *c* is not
        compared with another route: then nothing has both conventions.
        """
        if c.quantity not in _ENDS:
            return None
        routes = [
            other
            for other in self.workflow.calculations
            if (other.quantity, other.phase, other.temperature)
            == (c.quantity, c.phase, c.temperature)
        ]
        path = next((r for r in routes if "path" in r.stages), None)
        ends = next((r for r in routes if "path" not in r.stages), None)
        if path is None or ends is None:
            return None
        try:
            barostat = self._barostat(self.workflow.stage(path.stages["path"]))
            initial, final = (
                self._fluctuations(ends.stages[role], barostat) for role in _ENDS[c.quantity]
            )
            return term_between(c.temperature, initial, final)
        except AlchemdriverError as err:
            return Correction(NAME, None, "eV", str(err))

    def _barostat(self, stage: Stage) -> str:
        return read_input(stage.inputs(self.workflow.root)[0]).barostat

    def _fluctuations(self, name: str, barostat: str) -> CellFluctuations:
        """Of the crystal that the Frenkel–Ladd stage *name* is about, in a cell that moves as the
        path's does."""
        stage = self.workflow.stage(name)
        while stage.does != "mean structure":
            start = stage.takes["start.xyz"].rpartition("/")[0]
            stage = self.workflow.stage(start)  # relaxations are before every mean structure
        if stage.name not in self._known:
            run = read_input(stage.inputs(self.workflow.root)[0])
            if run.barostat != barostat:
                raise AnalysisError(
                    f"{stage.name} has another barostat ({run.barostat}) than the alchemical path "
                    f"({barostat})"
                )
            self._known[stage.name] = fluctuations_of(run)
        return self._known[stage.name]


def per_unit(row: Row) -> Correction | None:
    """Its term per unit, eV."""
    term = row.finite_cell
    if term is None or term.value is None:
        return term
    return replace(term, value=term.value / row.per, se=(term.se or 0.0) / row.per)


def minus(second: Correction | None, first: Correction | None) -> Correction | None:
    """The term of a difference; without a value where one of both has none."""
    if second is None or second.value is None:
        return second
    if first is None or first.value is None:
        return first
    se = float(np.hypot(second.se or 0.0, first.se or 0.0))
    return replace(second, value=second.value - first.value, se=se)


def as_text(term: Correction | None) -> str:
    """In meV, with its error."""
    if term is None or term.value is None:
        return "not known"
    return f"{1e3 * term.value:+.2f} ± {1e3 * (term.se or 0.0):.2f}"


def conventions(row: Row) -> tuple[float, float] | None:
    """A row's free energy per unit at constant volume and at constant pressure, eV; None if only
    its own is known."""
    term, own = per_unit(row), row.per_unit
    if term is None or term.value is None:
        return None
    return (own - term.value, own) if row.route == "alchemical" else (own, own + term.value)


def conventions_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what has both conventions."""
    columns = ["", "phase", "T (K)", "route", "constant volume", "constant pressure"]
    return columns, [
        [r.quantity, r.phase or "–", f"{r.temperature:g}", r.route, *(f"{x:.5f}" for x in both)]
        for r in rows
        if (both := conventions(r)) is not None
    ]
