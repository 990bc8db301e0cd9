"""What of a workflow's rows decides which stage goes on, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

from ...contract.manifest import Workflow
from ...contract.settings import TransmuteSettings, VacancySettings
from ...contract.target import Asked, Target
from ...errors import InputError
from ..estimators.stopping import Outlook, Source, Wanted, met, no_less, outlook

if TYPE_CHECKING:
    from .workflow import Row, StageResult

MADE_FOR = {"crystal": "G", "vacancy": "G_v", "transmute": "ΔG"}


@dataclass(frozen=True)
class Floor:
    """What the errors of sums of stages are no smaller than, whose lengths an error decided."""

    sources: Mapping[str, Source]
    reached: bool  # then by luck too

    def of(self, coefficients: Mapping[str, float], fixed: float = 0.0) -> Wanted:
        """As :func:`no_less` takes it; fixed: eV², variance of what no stage decides."""
        return Wanted("", coefficients, inf if self.reached else 0.0, fixed)


def with_target(
    workflow: Workflow, rows: list[Row], stages: dict[str, StageResult], asked: Target
) -> tuple[list[Row], Outlook | None, Floor | None]:
    """*rows* with the errors that may be stated of them; where they stand, None while none of the
    totals is there; and what else of the same stages may be stated, None where the error decided
    nothing.  The error is not reached while a total is missing."""
    totals, sources = wanted_of_rows(workflow, rows, asked.asked), sources_of(rows, stages)
    if not totals:
        return rows, None, None
    floor = Floor(sources, met(list(totals.values()), sources)) if asked.lengthened else None
    if floor is not None:
        for n, row in enumerate(rows):
            wanted = totals.get(row_name(row)) or floor.of(row.coefficients)
            se, half95 = no_less(row.se, row.half95, wanted, sources)
            rows[n] = replace(row, se=se, half95=half95)
    errors: dict[str, float | None] = {row_name(row): row.se for row in rows}
    seen = outlook(asked, list(totals.values()), sources, errors)
    kind = MADE_FOR[workflow.kind]
    there, all_ = (sum(x.quantity == kind for x in xs) for xs in (rows, workflow.calculations))
    return rows, seen if there == all_ else replace(seen, met=False), floor


def row_name(row: Row) -> str:
    """What a row is called among totals."""
    parts = (row.quantity, row.phase, f"{row.temperature:g} K", row.route)
    return ", ".join(part for part in parts if part)


def wanted_of_rows(workflow: Workflow, rows: Sequence[Row], asked: Asked) -> dict[str, Wanted]:
    """The totals that a workflow is made for, by name: G of a crystal, G_v of a vacancy, ΔG of a
    transmutation, at every temperature by every route; ΔΔG too where it is asked for per formula
    unit, which it is per.  Raises InputError for an error per what they have not."""
    kinds = [MADE_FOR[workflow.kind]]
    if asked.per == "formula-unit":
        kinds.append("ΔΔG")
    found = {}
    for row in rows:
        if row.quantity in kinds:
            shares = _shares(workflow, row)
            if shares.get(asked.per) is None:
                raise InputError(
                    f"per {asked.per}: {row.quantity} of {workflow.root.name} has no sites that "
                    "change; ask per cell, atom or formula-unit"
                )
            name = row_name(row)
            found[name] = Wanted(name, row.coefficients, asked.error * shares[asked.per])
    return found


def _shares(workflow: Workflow, row: Row) -> dict[str, int]:
    """How many of each there are in what a row's value is of."""
    if row.quantity == "ΔΔG":
        return {"formula-unit": 1}
    settings, crystal = workflow.settings, workflow.crystal(row.phase)
    found = {"cell": 1, "atom": crystal.atoms, "formula-unit": crystal.formula_units}
    if isinstance(settings, VacancySettings):
        found["site"] = sum(settings.removed.values())
    if isinstance(settings, TransmuteSettings) and row.phase in settings.substituted:
        found["site"] = settings.substituted[row.phase]
    if "site" in found:
        found["formula-unit"] = 1  # of a defect, as for a single run of one
    return found


def sources_of(rows: Sequence[Row], stages: dict[str, StageResult]) -> dict[str, Source]:
    """What the rows are summed from, by stage."""
    names = dict.fromkeys(name for row in rows for name in row.coefficients)
    found = {name: stages[name].source for name in names}
    return {name: source for name, source in found.items() if source is not None}
