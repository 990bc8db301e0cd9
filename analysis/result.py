"""The result of an analysis, and its file.  Schema: docs/result_schema.md."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..paths.formulas import Correction
from .corrections.mass_leg import MassLeg
from .corrections.scaling import Curve
from .estimators.fixed_lambda import Window
from .estimators.holds import Hold
from .estimators.mbar import Mbar
from .estimators.quadrature import Quadrature
from .estimators.switching import Estimate, WorkAnalysis
from .estimators.work import FirstLaw, SwitchingRun

SCHEMA = "alchemdriver-result/1"


@dataclass(frozen=True)
class Provenance:
    """What was run and with what."""

    folder: str
    input: str  # file name
    input_sha256: str
    seed: int
    model: str  # as in the input
    model_sha256: str | None  # shelf.model_digest; None: the model is not on this disk
    digest: str | None  # the input's own; see alchemdriver.contract.digest


@dataclass(frozen=True)
class Conditions:
    """What all replicas share."""

    alchemy: str
    formula: str  # of the initial state
    natoms: int
    ensemble: str
    temperature: float  # K
    pressure: float | None  # bar; None: constant volume
    beads: int
    timestep: float | None  # fs
    masses: str  # 'interpolate' or 'fixed', as run
    schedule: str | None  # None: fixed λ
    equilibrate: int | None  # steps
    switch: int | None  # steps
    cycles: int | None


@dataclass(frozen=True)
class Replica:
    """One folder by itself.  Works in eV, one per complete pair."""

    provenance: Provenance
    complete: bool
    forward: np.ndarray  # (pairs,) eV
    backward: np.ndarray  # (pairs,) eV
    analysis: WorkAnalysis
    first_law: FirstLaw | None
    holds: tuple[Hold, ...]


@dataclass(frozen=True)
class Total:
    """Work estimate plus all terms: the number to quote, with the SE of the work estimate."""

    method: str  # 'eq. 11', 'BAR', 'TI' or 'MBAR'
    value: float | None  # eV, whole cell; None: a term is missing
    se: float | None  # eV
    se_kind: str
    per_formula_unit: float | None  # eV
    per_formula_unit_se: float | None  # eV
    per_atom: float | None  # eV
    per_atom_se: float | None  # eV


@dataclass(frozen=True)
class Result:
    """Everything that ``analyze`` found.  Energies in eV unless a field says otherwise."""

    kind: str  # 'switching' or 'fixed_lambda'
    labels: tuple[str, ...]  # 'exploratory', 'partial'
    quantity: str  # what the totals are
    conditions: Conditions
    versions: dict[str, str | None]  # installed where the analysis ran
    formula_units: int
    replicas: tuple[Replica, ...]
    pooled: WorkAnalysis | None  # all pairs of all replicas together
    over_replicas: Estimate | None  # mean of the replicas' eq. 11; None: one replica
    windows: tuple[Window, ...]
    integral: Estimate | None  # eq. 8 over windows, by quadrature
    terms: tuple[Correction, ...]
    totals: tuple[Total, ...]
    warnings: tuple[str, ...]
    folder: Path  # where result.json and the plots belong
    runs: tuple[SwitchingRun, ...]  # time series, for plots; not in the file
    quadrature: Quadrature | None = None  # the rule behind integral
    mbar: Mbar | None = None  # over windows
    scaling: Curve | None = None  # G(T) of model->scaled
    sources: tuple[Provenance, ...] = ()  # of each window; replicas carry their own
    mass_leg: MassLeg | None = None  # of path-integral runs; its value is among the terms

    def total(self, method: str = "eq. 11") -> Total:
        return next(t for t in self.totals if t.method == method)


_NOT_IN_FILE = {"runs", "steps", "time", "gradient"}
UNITS = {
    "energies": "eV",
    "temperature": "K",
    "pressure": "bar",
    "timestep": "fs",
    "first_law.drift": "eV per atom and ps",
    "first_law.max_deviation": "eV per atom",
    "first_law.duration": "ps",
    "mean_kT": "kT",
    "holds.duration": "ps",
    "holds.correlation_time": "ps",
    "holds.volume_drift": "Å^3",
    "holds.volume_drift_se": "Å^3",
    "scaling.temperatures": "K",
    "scaling.reference_temperature": "K",
    "windows.volume_drift": "Å^3",
    "windows.volume_drift_se": "Å^3",
}


def to_json(value: Any) -> Any:
    """Records, arrays and paths as plain JSON values."""
    if is_dataclass(value):
        return {
            f.name: to_json(getattr(value, f.name))
            for f in fields(value)
            if f.name not in _NOT_IN_FILE
        }
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def write_result(result: Result) -> Path:
    """Write ``result.json`` into its folder, aside and renamed; a NaN is an error, not a value."""
    document = {"schema": SCHEMA, "units": UNITS, **to_json(result)}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = result.folder / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return path
