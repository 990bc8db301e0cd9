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
from . import markup
from .corrections.mass_leg import MassLeg
from .corrections.scaling import Curve
from .estimators.estimate import Estimate
from .estimators.fixed_lambda import Window
from .estimators.holds import Hold
from .estimators.judge import RunCheck
from .estimators.mbar import Mbar
from .estimators.quadrature import Quadrature
from .estimators.stopping import Outlook
from .estimators.switching import WorkAnalysis
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
    other: str | None = None  # the model at λ = 1 of 'model->other'
    head: str | None = None  # of a multi-head model
    charge: float | None = None  # e, of the cell
    spin: float | None = None  # 2S + 1
    # Å^3, of the cell; None: constant pressure, or a file from before it was recorded
    volume: Positive | None = None


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
    """Work estimate plus all terms: the number to quote, with the stated error of both."""

    method: str  # 'eq. 11', 'BAR', 'TI' or 'MBAR'
    value: float | None  # eV, whole cell; None: a term is missing
    se: NotNegative | None  # eV
    se_kind: str
    per_formula_unit: float | None  # eV
    per_formula_unit_se: NotNegative | None  # eV
    per_atom: float | None  # eV
    per_atom_se: NotNegative | None  # eV
    ci95: tuple[float, float] | None = None  # eV, whole cell
    dof: NotNegative | None = None  # degrees of freedom of the error; None: normal, or no error


@dataclass(frozen=True, repr=False)
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
    checks: tuple[RunCheck, ...] = ()  # of each run: what it printed against what was asked for
    substituted: Count | None = None  # atoms that change, where the ends share no formula unit
    outlook: Outlook | None = None  # on the error that was asked for; None: none was

    def total(self, method: str = "eq. 11") -> Total:
        """The total by *method*, upper or lower case; AnalysisError if there is none."""
        for t in self.totals:
            if t.method.lower() == method.lower():
                return t
        known = ", ".join(t.method for t in self.totals)
        reasons = "; ".join(w for w in self.warnings if w.startswith("no "))
        raise AnalysisError(
            f"no total by {method}: this result has {known or 'none'}"
            + (f" ({reasons})" if reasons else "")
        )

    def __repr__(self) -> str:
        """One line: what, of what, the totals, and how many warnings."""
        c = self.conditions
        found = [
            f"{t.method} {t.value:.6g} ± {'?' if t.se is None else f'{t.se:.2g}'} eV"
            for t in self.totals
            if t.value is not None
        ]
        parts = [self.kind, c.alchemy, c.formula, f"{c.temperature:g} K", *found]
        return f"<Result {', '.join([*parts, *self.labels])}; {len(self.warnings)} warnings>"

    def _repr_html_(self) -> str:
        """For notebooks: totals, terms and warnings; text from files stays text."""

        def number(value: float | None) -> str:
            return "–" if value is None else f"{value:.6f}"

        c = self.conditions
        where = f"{c.temperature:g} K" + ("" if c.pressure is None else f", {c.pressure:g} bar")
        totals = [
            [t.method, number(t.value), number(t.se), number(t.per_formula_unit), t.se_kind]
            for t in self.totals
        ]
        terms = [[t.name, number(t.value), t.unit, t.source] for t in self.terms]
        head = ["method", "whole cell (eV)", "SE (eV)", "per formula unit (eV)", "error is"]
        return markup.tag(
            "div",
            markup.tag("p", markup.tag("b", self.quantity), f" {', '.join(self.labels)}"),
            markup.tag("p", f"{c.alchemy}, {c.formula}, {c.ensemble}, {where}"),
            markup.table(head, totals, {1, 2, 3}),
            markup.table(["term", "value", "unit", "source"], terms, {1}),
            markup.tag("ul", *(markup.tag("li", w) for w in self.warnings)),
        )


UNITS = {
    "energies": "eV",
    "temperature": "K",
    "pressure": "bar",
    "timestep": "fs",
    "conditions.volume": "Å^3",
    "checks.drift": "kT per atom and ps",
    "checks.drifted": "kT",
    "checks.volume_shift": "standard deviations of the volume",
    "checks.displacement": "distances to the nearest neighbour",
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
