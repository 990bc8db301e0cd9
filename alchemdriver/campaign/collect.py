"""Every case of a campaign as a row with what it rests on: CSV, JSON, and Parquet if pandas can."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..analysis.compare.gather import row_of
from ..analysis.report.plain import cell
from ..analysis.result import FILE, Result, read_result
from ..contract.files import json_text, write_files, written_aside
from ..errors import AlchemdriverError
from . import record
from .record import RUNS, Campaign, Case
from .status import CaseStatus, survey

__all__ = ["folders", "rows", "write"]

SCHEMA = "alchemdriver-collected/1"


def folders(root: Path) -> list[str]:
    """PHASE=FOLDER of every case with a result, for :func:`alchemdriver.analysis.gather`; the phase
    is the structure, with its composition."""
    found = []
    for case in record.read(root).cases:
        folder = root / RUNS / case.name
        if (folder / FILE).is_file() or case.steps is None:
            phase = " ".join(
                str(case.axes[axis]) for axis in ("structure", "composition") if axis in case.axes
            )
            found.append(f"{phase}={folder}")
    return found


def rows(root: Path) -> Iterator[dict[str, Any]]:
    """One row a case, finished or not; energies in eV per unit, None where there is none yet."""
    campaign = record.read(root)
    states = {case.name: case for case in survey(root).cases}
    for case in campaign.cases:
        yield {
            **_of_plan(campaign, case, states[case.name]),
            **_of_result(root / RUNS / case.name / FILE, states[case.name]),
        }


def _of_plan(campaign: Campaign, case: Case, status: CaseStatus) -> dict[str, Any]:
    system = campaign.systems[case.system]
    return {
        "case": case.name,
        **case.axes,
        **{f"option_{k}": v for k, v in case.options.items() if k not in case.axes},
        "protocol": campaign.protocol,
        "structure_file": system.source,
        "structure_sha256": system.sha256,
        "runs": sum(status.runs.values()),
        "runs_done": status.runs.get("done", 0),
        "runs_failed": status.runs.get("failed", 0),
        "seeds": " ".join(map(str, case.seeds)),
    }


def _of_result(path: Path, status: CaseStatus) -> dict[str, Any]:
    """From ``result.json``; of stages, which have none in one piece, what the journal says."""
    found: dict[str, Any] = {
        "quantity": None, "value_eV": status.value, "se_eV": status.error,
        "unit": status.unit or None, "natoms": None, "formula": None, "dissipation_kT": None,
        "evaluations": None, "model_sha256": None, "inputs_sha256": None, "versions": None,
        "note": status.note or None,
    }  # fmt: skip
    if not path.is_file():
        return found
    try:
        result = read_result(path)
        row = row_of(result)
    except AlchemdriverError as err:
        return {**found, "note": str(err)}
    sources = _sources(result)
    return {
        **found,
        "quantity": row.quantity,
        "value_eV": row.per_unit,
        "se_eV": row.per_unit_se,
        "unit": row.unit,
        "natoms": row.natoms,
        "formula": result.conditions.formula,
        "dissipation_kT": row.dissipation_kT,
        "evaluations": row.evaluations,
        "model_sha256": sources[0].model_sha256 if sources else None,
        "inputs_sha256": " ".join(s.input_sha256 for s in sources),
        "versions": " ".join(f"{k} {v}" for k, v in result.versions.items()),
    }


def _sources(result: Result) -> list[Any]:
    return [*(r.provenance for r in result.replicas), *result.sources]


def write(root: Path, out: Path) -> list[Path]:
    """``campaign.csv``, ``campaign.json`` and, with pandas and pyarrow, ``campaign.parquet``."""
    table = list(rows(root))
    columns = list(dict.fromkeys(name for row in table for name in row))
    table = [{name: row.get(name) for name in columns} for row in table]
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row.values()] for row in table)
    document = {"schema": SCHEMA, "campaign": str(root.resolve()), "rows": table}
    csv_path, json_path = out / "campaign.csv", out / "campaign.json"
    write_files({csv_path: text.getvalue(), json_path: json_text(document)})
    return [csv_path, json_path, *_parquet(table, out / "campaign.parquet")]


def _parquet(table: list[dict[str, Any]], path: Path) -> list[Path]:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError:
        return []
    with written_aside(path) as aside:
        pandas.DataFrame(table).to_parquet(aside)
    return [path]
