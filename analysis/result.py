"""The result of an analysis, and its file ``result.json``.  Schema: docs/result_schema.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ..contract.stored import (
    Count,
    Format,
    Index,
    InMemory,
    Kelvin,
    NotNegative,
    Positive,
    Shape,
)
from ..errors import AnalysisError
from ..paths.formulas import Correction
from .corrections.mass_leg import MassLeg
from .corrections.scaling import Curve
from .estimators.fixed_lambda import Window
from .estimators.holds import Hold
from .estimators.mbar import Mbar
from .estimators.quadrature import Quadrature
from .estimators.switching import Estimate, WorkAnalysis
from .estimators.work import FirstLaw, SwitchingRun

FILE = "result.json"


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
    natoms: Count
    ensemble: str
    temperature: Kelvin
    pressure: float | None  # bar; None: constant volume
    beads: Count
    timestep: Positive | None  # fs
    masses: str  # 'interpolate' or 'fixed', as run
    schedule: str | None  # None: fixed λ
    equilibrate: Index | None  # steps
    switch: Count | None  # steps
    cycles: Count | None


@dataclass(frozen=True)
class Replica:
    """One folder by itself.  Works in eV, one per complete pair."""

    provenance: Provenance
    complete: bool
    forward: Annotated[np.ndarray, Shape("pairs")]  # eV
    backward: Annotated[np.ndarray, Shape("pairs")]  # eV
    analysis: WorkAnalysis
    first_law: FirstLaw | None
    holds: tuple[Hold, ...]


@dataclass(frozen=True)
class Total:
    """Work estimate plus all terms: the number to quote, with the SE of both."""

    method: str  # 'eq. 11', 'BAR', 'TI' or 'MBAR'
    value: float | None  # eV, whole cell; None: a term is missing
    se: NotNegative | None  # eV
    se_kind: str
    per_formula_unit: float | None  # eV
    per_formula_unit_se: NotNegative | None  # eV
    per_atom: float | None  # eV
    per_atom_se: NotNegative | None  # eV


@dataclass(frozen=True)
class Result:
    """Everything that ``analyze`` found.  Energies in eV unless a field says otherwise."""

    kind: Literal["switching", "fixed_lambda"]
    labels: tuple[str, ...]  # 'exploratory', 'partial', 'holds not verified'
    quantity: str  # what the totals are
    conditions: Conditions
    versions: dict[str, str | None]  # installed where the analysis ran
    formula_units: Count
    replicas: tuple[Replica, ...]
    pooled: WorkAnalysis | None  # all pairs of all replicas together
    over_replicas: Estimate | None  # mean of the replicas' eq. 11; None: one replica
    windows: tuple[Window, ...]
    integral: Estimate | None  # eq. 8 over windows, by quadrature
    terms: tuple[Correction, ...]
    totals: tuple[Total, ...]
    warnings: tuple[str, ...]
    folder: Path  # where result.json and the plots belong
    runs: Annotated[tuple[SwitchingRun, ...], InMemory(tuple)]  # time series, for plots
    quadrature: Quadrature | None = None  # the rule behind integral
    mbar: Mbar | None = None  # over windows
    scaling: Curve | None = None  # G(T) of model->scaled
    sources: tuple[Provenance, ...] = ()  # of each window; replicas carry their own
    mass_leg: MassLeg | None = None  # of path-integral runs; its value is among the terms
    substituted: Count | None = None  # atoms that change, where the ends share no formula unit

    def total(self, method: str = "eq. 11") -> Total:
        return next(t for t in self.totals if t.method == method)


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


RESULT: Format[Result] = Format(
    "alchemdriver-result/1",
    Result,
    remedy="analyse the run again",
    error=AnalysisError,
)


def write_result(result: Result) -> Path:
    """Write ``result.json`` into its folder; a NaN is an error, not a value."""
    path = result.folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write(path, result, {"units": UNITS})
    return path


def read_result(path: Path) -> Result:
    """The result in *path*, without its time series.

    Raises AnalysisError, one line, for a file that is not one.
    """
    return RESULT.read(path)
