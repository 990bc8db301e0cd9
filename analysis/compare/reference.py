"""Absolute free energies from elsewhere: a number, or the result of another calculation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...contract.run_input import RunInput
from ...errors import AnalysisError
from ...paths import Absolute
from ..corrections.formulas import formula
from ..result import FILE, read_result

_PREFERRED = ("BAR", "MBAR", "TI", "eq. 11")


def absolute(given: float | str | Path, run: RunInput, at: float | None = None) -> Absolute:
    """A number (eV, whole cell, at T0), or the total of a result.json or of its folder.

    at: the temperature that the value must have, K; None: any.  Raises AnalysisError for another
    crystal, temperature, pressure, or for a difference instead of an absolute free energy.
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
    result = read_result(path)
    conditions = result.conditions
    temperature, pressure = conditions.temperature, conditions.pressure
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
    own = run.pressure if run.constant_pressure else None
    if pressure is not None and own is not None and abs(pressure - own) > 1e-6:
        raise AnalysisError(f"{path} is at {pressure:g} bar, this run at {own:g} bar")
    here = "constant volume" if own is None else f"{own:g} bar"
    for term in result.terms:
        if term.name == "P V" and here not in term.source:
            raise AnalysisError(
                f"{path}: P V is for another pressure ({term.source}), this run is at {here}"
            )
    totals = {t.method: t for t in result.totals}
    for method in _PREFERRED:
        total = totals.get(method)
        if total is not None and total.value is not None:
            return Absolute(temperature, total.value, total.se, f"{method} of {path}")
    raise AnalysisError(f"{path} has no total: a term is missing there")
