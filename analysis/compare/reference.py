"""Absolute free energies from elsewhere: a number, or the result of another calculation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...contract import files
from ...contract.run_input import RunInput
from ...errors import AnalysisError
from ...paths import Absolute
from ..corrections.formulas import formula
from ..result import FILE, Provenance, Result, read_result
from .workflow import SCHEMA as STAGES

_PREFERRED = ("BAR", "MBAR", "TI", "eq. 11")
SAME_VOLUME = 1e-5  # relative; starts are written with nine digits and more


def absolute(
    given: float | str | Path, run: RunInput, own: Provenance, at: float | None = None
) -> Absolute:
    """A number (eV, whole cell, at T0), or the total of a result.json or of its folder.

    own: of *run*, for its model.  at: the temperature that the value must have, K; None: any.  The
    result may be that of a whole folder of stages: the stage that fits is taken.  Raises
    AnalysisError for another crystal, model, temperature, pressure or volume, or for a difference
    instead of an absolute free energy.
    """
    try:
        value = float(given)  # type: ignore[arg-type]  # a Path is none
    except (TypeError, ValueError):
        path = Path(str(given))
    else:
        if not np.isfinite(value):
            raise AnalysisError(f"reference: expected a finite number of eV, got {given}")
        return Absolute(run.kelvin, value, None, "given, eV per cell, without error")
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise AnalysisError(f"'{given}' is neither a number of eV nor a result.json")
    stages = _stages(path)
    if stages is None:
        return _taken(path, run, own, at)
    found: list[Absolute] = []
    refused: list[str] = []
    for stage in stages:
        try:
            found.append(_taken(stage, run, own, at))
        except AnalysisError as err:
            refused.append(str(err))
    if len(found) != 1:
        why = f"; {refused[0]}" if refused and not found else ""
        raise AnalysisError(
            f"{path}: expected one free energy that fits this run among those of its stages, found "
            f"{len(found)}{why}: give the result.json of the stage"
        )
    return found[0]


def _stages(path: Path) -> list[Path] | None:
    """The results that the absolute free energies of a stages folder come from; None: no such."""
    document: dict[str, Any] = files.read_json(path)
    if not isinstance(document, dict) or document.get("schema") != STAGES:
        return None
    rows = document.get("rows")
    names = [
        name
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and row.get("quantity") == "G"
        for name in (row.get("coefficients") or {})
    ]
    return [path.parent / name / FILE for name in dict.fromkeys(names)]


def _taken(path: Path, run: RunInput, own: Provenance, at: float | None) -> Absolute:
    """The total of one result, if it is of the same crystal under the same conditions."""
    result = read_result(path)
    conditions = result.conditions
    temperature = conditions.temperature
    g = "G" if run.constant_pressure else "F"
    if not result.quantity.startswith(f"{g} of ") or result.scaling is not None:
        raise AnalysisError(
            f"{path} holds '{result.quantity}': expected an absolute {g} of the model crystal, "
            "from einstein->model" + (" with P V (eq. 20)" if g == "G" else " at constant volume")
        )
    if at is not None and abs(temperature - at) > 1e-6 * at:
        raise AnalysisError(f"{path} is at {temperature:g} K, expected {at:g} K")
    ours = formula(run.structure.symbols)
    if conditions.formula != ours:
        raise AnalysisError(
            f"{path} is for {conditions.formula}, this run for {ours}: use the same cell"
        )
    if conditions.beads != run.beads:
        raise AnalysisError(f"{path} has {conditions.beads} beads, this run {run.beads}")
    _same_model(path, result, own)
    _same_pressure(path, result, run)
    note = "" if run.constant_pressure else _same_volume(path, result, run)
    totals = {t.method: t for t in result.totals}
    for method in _PREFERRED:
        total = totals.get(method)
        if total is not None and total.value is not None:
            source = f"{method} of {path}{note}"
            return Absolute(temperature, total.value, total.se, source, total.dof)
    raise AnalysisError(f"{path} has no total: a term is missing there")


def provenances(result: Result) -> list[Provenance]:
    """Of every run behind *result*."""
    return [*result.sources, *(r.provenance for r in result.replicas)]


def _same_model(path: Path, result: Result, own: Provenance) -> None:
    """By the sha256 of the model where both know it, by its name elsewhere."""
    for other in provenances(result):
        known = other.model_sha256 is not None and own.model_sha256 is not None
        a = other.model_sha256 if known else Path(other.model).name
        b = own.model_sha256 if known else Path(own.model).name
        if a != b:
            what = f" (sha256 {str(a)[:12]}… and {str(b)[:12]}…)" if known else ""
            raise AnalysisError(
                f"{path} is of model {other.model}, this run of {own.model}{what}: compute the "
                "reference with the same model"
            )


def _same_pressure(path: Path, result: Result, run: RunInput) -> None:
    pressure = result.conditions.pressure
    own = run.pressure if run.constant_pressure else None
    if pressure is not None and own is None:
        raise AnalysisError(f"{path} is at {pressure:g} bar, this run at constant volume")
    if pressure is not None and own is not None and abs(pressure - own) > 1e-6:
        raise AnalysisError(f"{path} is at {pressure:g} bar, this run at {own:g} bar")
    here = "constant volume" if own is None else f"{own:g} bar"
    for term in result.terms:
        if term.name == "P V" and (own is None or f" {own:g} bar," not in f" {term.source}"):
            raise AnalysisError(
                f"{path}: P V is for another pressure ({term.source}), this run is at {here}"
            )


def _same_volume(path: Path, result: Result, run: RunInput) -> str:
    """F depends on the cell.  What to add to the source where the volume is not recorded."""
    there, here = result.conditions.volume, run.volume
    if there is None:
        return ", whose volume is not recorded"
    if abs(there - here) > SAME_VOLUME * here:
        raise AnalysisError(
            f"{path} is for a cell of {there:.6g} Å^3, this run for {here:.6g} Å^3, at constant "
            "volume: use the same cell"
        )
    return ""


def same_runs(results: list[Result]) -> None:
    """Raises AnalysisError unless *results* differ in nothing but beads, starts and lengths."""
    first = results[0]
    names = ("alchemy", "formula", "natoms", "ensemble", "temperature", "pressure")
    for other in results[1:]:
        for name in names:
            a, b = getattr(first.conditions, name), getattr(other.conditions, name)
            if a != b:
                raise AnalysisError(f"the runs differ in {name} ({a} and {b}), not only in beads")
        a, b = first.conditions.volume, other.conditions.volume
        if a is not None and b is not None and abs(a - b) > SAME_VOLUME * a:
            raise AnalysisError(
                f"the runs differ in volume ({a:.6g} and {b:.6g} Å^3), not only in beads"
            )
        for one in provenances(first)[:1]:
            _same_model(other.folder, other, one)
            for two in provenances(other):
                known = one.digest is not None and two.digest is not None
                if known and one.digest != two.digest:
                    raise AnalysisError(
                        f"{two.folder} has another digest than {one.folder}: their Hamiltonians "
                        "differ (masses, interpolation, springs), not only their beads"
                    )
