"""From the stages of a workflow to its free energies, by every route, and how well they agree.

| quantity | from                                                             | paper        |
|----------|------------------------------------------------------------------|--------------|
| G        | Frenkel–Ladd                                                     | eqs. 17–20   |
| G_v      | G_defect − G_perfect + Σ μ_removed, by two Frenkel–Ladd          | eq. 12       |
| G_v      | the path atom → void gives G_defect − G_perfect; + Σ μ_removed   | eqs. 12, 21  |
| ΔG       | G_final − G_initial, by two Frenkel–Ladd                         | eq. 13       |
| ΔG       | the path initial → final                                         | eq. 22       |
| ΔΔG      | ΔG of the second phase minus ΔG of the first                     | eq. 13       |

μ of an element's own crystal is G_perfect/N: (N − 1)/N G_perfect of eq. 12 is the same thing.

Frenkel–Ladd is at constant volume, the path at constant pressure: the finite-cell term between
both stands in their rows, and is added to Frenkel–Ladd where they are compared.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from ...contract import files, manifest, target
from ...contract.manifest import Calculation, Stage, Workflow
from ...contract.settings import TransmuteSettings, VacancySettings, WorkflowSettings
from ...contract.stored import dump
from ...errors import AlchemdriverError, AnalysisError
from ...paths.formulas import Correction
from ..corrections.formulas import configurational
from ..estimators.estimate import ONE_SIGMA, add, student
from ..estimators.stopping import Outlook, Source, no_less
from ..result import FILE, read_result
from . import finite_cell as cell
from .target import source_of
from .target_of_stages import Floor, with_target

SCHEMA = "alchemdriver-workflow-result/1"
METHOD = "BAR"
NO_ERROR = 1e-12  # eV; below, a standard error is none


@dataclass(frozen=True)
class StageResult:
    """What a finished 'free energy' stage gave, read from its result.json."""

    name: str
    value: float  # eV, whole cell, all terms
    se: float  # eV, stated error of the total
    dof: float | None  # degrees of freedom that it rests on; None: normal
    sd: float | None  # eV, standard deviation of the replicas' eq. 11: the paper's error bar
    replicas: int
    dissipation_kT: float
    natoms: int
    pairs: int
    terms: tuple[Correction, ...]
    work: float  # eV, BAR before the terms
    switch_ps: float  # length of a switch, as run
    warnings: tuple[str, ...]
    source: Source | None = None  # what more cycles would do to it


@dataclass(frozen=True)
class Row:
    """One free energy by one route."""

    quantity: str  # 'G', 'G_v', 'ΔG', 'ΔΔG'
    route: str
    phase: str  # '' where there is one crystal
    temperature: float  # K
    pressure: float | None  # bar; None: constant volume
    value: float  # eV: of the cell, of the vacancy; ΔΔG per formula unit
    se: float  # eV, stated error
    half95: float  # eV, half of the 95 % interval
    sd: float | None  # eV, over replicas; None where fewer than two
    replicas: int  # of the stage that decides the error
    per: int  # atoms (G), formula units (ΔG) in the cell; 1 otherwise
    unit: str  # 'atom', 'formula unit', 'vacancy'
    evaluations: int  # of the model, all stages that it rests on, equilibration included
    dissipation_kT: float
    natoms: int
    switch_ps: float  # of the stage that decides the error
    system: str  # model, composition and what is done to it: only equals are compared by size
    coefficients: dict[str, float]  # of each stage's total in value: errors that rows share
    # of value at constant pressure minus value at constant volume; None: there is one route alone
    finite_cell: Correction | None = None
    space_group: str = ""  # of the crystal; '' where it is not known, and for ΔΔG

    @property
    def per_unit(self) -> float:
        return self.value / self.per

    @property
    def per_unit_se(self) -> float:
        return self.se / self.per

    @property
    def per_unit_half95(self) -> float:
        return self.half95 / self.per


@dataclass(frozen=True)
class Agreement:
    """One quantity by two routes: for ΔΔG, the closure of the cycle."""

    quantity: str
    phase: str
    temperature: float  # K
    difference: float  # eV per unit, Frenkel–Ladd + finite cell − alchemical
    se: float  # eV per unit, stated error of the difference
    half95: float  # eV per unit, half of its 95 % interval
    finite_cell: Correction | None  # eV per unit, in difference unless its value is None
    efficiency: float  # (σ² × evaluations) of Frenkel–Ladd over that of the alchemical path
    unit: str
    # from the F distribution: variances of few pairs are themselves uncertain
    efficiency_ci95: tuple[float, float] | None = None

    @property
    def efficiency_text(self) -> str:
        """Two digits, with the interval."""
        if self.efficiency_ci95 is None:
            return f"{self.efficiency:.2g}"
        low, high = self.efficiency_ci95
        return f"{self.efficiency:.2g} ({low:.2g} to {high:.2g})"

    @property
    def sigmas(self) -> float:
        return abs(self.difference) / self.se if self.se > 0 else np.inf


@dataclass(frozen=True)
class WorkflowResult:
    """Everything that ``analyze`` finds in a workflow.  Energies in eV."""

    root: Path
    kind: str
    settings: WorkflowSettings
    rows: tuple[Row, ...]
    agreements: tuple[Agreement, ...]
    stages: dict[str, StageResult]
    evaluations: dict[str, int]  # of every finished stage
    configurational: dict[str, float]  # kT ln n by temperature and phase, eV; lowers G
    missing: tuple[str, ...]  # stages that are not done
    warnings: tuple[str, ...]
    outlook: Outlook | None = None  # on the error that was asked for; None: none was


def analyze_workflow(root: Path | str) -> WorkflowResult:
    """All free energies whose stages are done.  Raises AnalysisError if there is none.

    A stage that was edited after it was run counts as missing, as do all that rest on it.
    """
    workflow = manifest.read(Path(root))
    evaluations: dict[str, int] = {}
    stages: dict[str, StageResult] = {}
    missing: list[str] = []
    problems: list[str] = []
    for s in workflow.stages:
        try:
            record = manifest.done(workflow, s)
            if record is None or any(x.name in missing for x in workflow.sources(s)):
                missing.append(s.name)
                continue
            if s.does == "free energy":
                stages[s.name] = read_stage(workflow, s)
        except AlchemdriverError as err:
            missing.append(s.name)
            problems.append(str(err))
            continue
        evaluations[s.name] = record.evaluations
    cells = cell.FiniteCells(workflow)
    rows = [
        _row(workflow, c, stages, evaluations, cells.term(c))
        for c in workflow.calculations
        if all(name in stages for name in c.stages.values())
    ]
    if not rows:
        raise AnalysisError(
            f"{workflow.root}: no free energy is complete, {len(missing)} of "
            f"{len(workflow.stages)} stages are missing"
            + (
                f" ({problems[0]})"
                if problems
                else f": alchemdriver run {shlex.quote(str(workflow.root))}"
            )
        )
    rows += _differences_of_phases(workflow, rows, stages)
    asked = target.read(workflow.root)
    seen, floor = None, None
    if asked is not None:
        rows, seen, floor = with_target(workflow, rows, stages, asked)
    agreements = tuple(compare_routes(rows, stages, floor))
    return WorkflowResult(
        workflow.root,
        workflow.kind,
        workflow.settings,
        tuple(rows),
        agreements,
        stages,
        evaluations,
        _configurational(workflow),
        tuple(missing),
        (*problems, *_warnings(stages, agreements)),
        seen,
    )


def read_stage(workflow: Workflow, stage: Stage) -> StageResult:
    """Raises AnalysisError for a result without a total or without an error."""
    path = workflow.root / stage.name / FILE
    result = read_result(path)
    total = next((t for t in result.totals if t.method == METHOD), None)
    pooled, conditions, over = result.pooled, result.conditions, result.over_replicas
    if not (result.replicas and pooled and conditions.switch and conditions.timestep):
        raise AnalysisError(f"{path}: expected the result of switches, got one of {result.kind}")
    if total is None or total.value is None or total.se is None or total.se < NO_ERROR:
        why = total.se_kind if total is not None else "; ".join(result.warnings)
        raise AnalysisError(f"{path}: no {METHOD} total with an error: {why or 'too short'}")
    return StageResult(
        stage.name,
        total.value,
        total.se,
        total.dof,
        over.sd if over else None,
        len(result.replicas),
        pooled.dissipation.mean_kT,
        conditions.natoms,
        pooled.n,
        result.terms,
        pooled.bar.value,
        conditions.switch * conditions.timestep * 1e-3,
        result.warnings,
        source_of(
            result, stage.name, any(stage in workflow.sources(other) for other in workflow.stages)
        ),
    )


# --- rows ---------------------------------------------------------------------------------------


def _upstream(workflow: Workflow, names: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    todo = [workflow.stage(name) for name in names]
    while todo:
        stage = todo.pop()
        found.add(stage.name)
        todo += [s for s in workflow.sources(stage) if s.name not in found]
    return found


def _row(
    workflow: Workflow,
    c: Calculation,
    stages: dict[str, StageResult],
    evaluations: dict[str, int],
    finite_cell: Correction | None,
) -> Row:
    found = {role: stages[name] for role, name in c.stages.items()}
    settings = workflow.settings
    crystal = workflow.crystal(c.phase)
    n = crystal.atoms
    decisive = found.get("path") or found.get("defect") or found.get("final") or found["crystal"]
    per, unit = crystal.formula_units, "formula unit"
    counted = tuple(c.stages.values())
    constant = 0.0
    if isinstance(settings, TransmuteSettings) and c.phase in settings.substituted:
        per, unit = settings.substituted[c.phase], "substituted atom"
    if c.quantity == "G":
        coefficients = {decisive.name: 1.0}
        per, unit = n, "atom"
    elif isinstance(settings, VacancySettings):  # G_v
        count = sum(settings.removed.values())
        per, unit = 1, "vacancy" if count == 1 else f"defect of {count} vacancies"
        constant, slope = _chemical_potentials(settings, n)
        if "defect" in found:
            coefficients = {found["defect"].name: 1.0, found["crystal"].name: slope - 1.0}
        else:
            coefficients = {found["path"].name: 1.0, found["crystal"].name: slope}
    elif "path" in found:
        coefficients = {decisive.name: 1.0}
    else:
        coefficients = {found["final"].name: 1.0, found["initial"].name: -1.0}
    return Row(
        c.quantity,
        c.route,
        f"{c.phase}, {c.state}" if c.state else c.phase,
        c.temperature,
        settings.pressure_bar,
        constant + sum(x * stages[name].value for name, x in coefficients.items()),
        *combined(coefficients, stages),
        _combined_sd(coefficients, stages),
        decisive.replicas,
        per,
        unit,
        sum(evaluations[s] for s in _upstream(workflow, counted)),
        max(s.dissipation_kT for s in found.values()),
        n,
        decisive.switch_ps,
        _system(workflow, c),
        coefficients,
        finite_cell,
        crystal.space_group,
    )


def combined(coefficients: dict[str, float], stages: dict[str, StageResult]) -> tuple[float, float]:
    """Stated error, and half of the 95 % interval, of a sum of independent totals, eV."""
    sigma, dof = spread(coefficients, stages)
    return student(ONE_SIGMA, dof) * sigma, student(0.95, dof) * sigma


def spread(
    coefficients: dict[str, float], stages: dict[str, StageResult]
) -> tuple[float, float | None]:
    """Square root of the variance (eV) of a sum of independent totals, and its degrees of
    freedom."""
    found = [(x, stages[name]) for name, x in coefficients.items() if x != 0.0]
    sigmas = [x * s.se / student(ONE_SIGMA, s.dof) for x, s in found]
    return add(np.square(sigmas).tolist(), [s.dof for _, s in found])


def _combined_sd(coefficients: dict[str, float], stages: dict[str, StageResult]) -> float | None:
    found = {name: sd for name in coefficients if (sd := stages[name].sd) is not None}
    if len(found) < len(coefficients):
        return None
    return float(np.linalg.norm([x * found[name] for name, x in coefficients.items()]))


def _system(workflow: Workflow, c: Calculation) -> str:
    settings = workflow.settings
    parts = [settings.model, workflow.crystal(c.phase).formula, c.phase, c.state]
    if isinstance(settings, VacancySettings) and c.quantity != "G":
        parts += [f"-{count}{symbol}" for symbol, count in settings.removed.items()]
    if isinstance(settings, TransmuteSettings):
        parts.append(settings.alchemy)
    return " ".join(p for p in parts if p)


def _chemical_potentials(settings: VacancySettings, n: int) -> tuple[float, float]:
    """Σ μ over the removed atoms: a constant (eV), and a share of G_perfect."""
    given, removed = settings.chemical_potentials_eV, settings.removed
    if given:
        return sum(count * given[s] for s, count in removed.items()), 0.0
    return 0.0, sum(removed.values()) / n


def _differences_of_phases(
    workflow: Workflow, rows: list[Row], stages: dict[str, StageResult]
) -> list[Row]:
    """ΔΔG per formula unit, second minus first phase; eq. 13."""
    settings = workflow.settings
    if not isinstance(settings, TransmuteSettings) or len(settings.phases) != 2:
        return []
    phases = settings.phases
    found = []
    for first in [r for r in rows if r.quantity == "ΔG" and r.phase == phases[0]]:
        for second in rows:
            same = (second.route, second.temperature) == (first.route, first.temperature)
            if second.quantity != "ΔG" or second.phase != phases[1] or not same:
                continue
            sd = None
            if first.sd is not None and second.sd is not None:
                sd = float(np.hypot(first.sd / first.per, second.sd / second.per))
            coefficients = {k: -x / first.per for k, x in first.coefficients.items()}
            coefficients |= {k: x / second.per for k, x in second.coefficients.items()}
            se, half95 = combined(coefficients, stages)
            found.append(
                replace(
                    first,
                    quantity="ΔΔG",
                    phase=f"{phases[1]} − {phases[0]}",
                    value=second.per_unit - first.per_unit,
                    se=se,
                    half95=half95,
                    sd=sd,
                    per=1,
                    evaluations=first.evaluations + second.evaluations,
                    dissipation_kT=max(first.dissipation_kT, second.dissipation_kT),
                    system=f"{first.system} / {second.system}",
                    coefficients=coefficients,
                    finite_cell=cell.minus(cell.per_unit(second), cell.per_unit(first)),
                    space_group="",
                )
            )
    return found


def compare_routes(
    rows: list[Row], stages: dict[str, StageResult], floor: Floor | None = None
) -> Iterator[Agreement]:
    """What both routes to one quantity differ by; floor: of stages whose errors decided their
    lengths."""
    for fl in rows:
        for path in rows:
            same = (fl.quantity, fl.phase, fl.temperature) == (
                path.quantity,
                path.phase,
                path.temperature,
            )
            if same and fl.route == "Frenkel–Ladd" and path.route == "alchemical":
                # what both rest on (the perfect crystal) is one number, not two independent ones
                # in a fixed order: the last digit of their sum depends on it
                names = dict.fromkeys((*fl.coefficients, *path.coefficients))
                difference = {
                    k: fl.coefficients.get(k, 0.0) - path.coefficients.get(k, 0.0) for k in names
                }
                above, below = (spread(row.coefficients, stages) for row in (fl, path))
                ratio = above[0] ** 2 * fl.evaluations / (below[0] ** 2 * path.evaluations)
                term = cell.per_unit(fl)
                added, its_se = (term.value or 0.0, term.se or 0.0) if term else (0.0, 0.0)
                sigma, dof = spread(difference, stages)
                sigma, dof = add([(sigma / fl.per) ** 2, its_se**2], [dof, None])
                se, half95 = student(ONE_SIGMA, dof) * sigma, student(0.95, dof) * sigma
                if floor is not None:
                    shares = {k: x / fl.per for k, x in difference.items()}
                    wanted = floor.of(shares, its_se**2)
                    se, half95 = no_less(se, half95, wanted, floor.sources)
                yield Agreement(
                    fl.quantity,
                    fl.phase,
                    fl.temperature,
                    fl.per_unit + added - path.per_unit,
                    se,
                    half95,
                    term,
                    ratio,
                    fl.unit,
                    ratio_interval(ratio, above[1], below[1]),
                )


def ratio_interval(ratio: float, above: float | None, below: float | None) -> tuple[float, float]:
    """95 % interval of a ratio of two variances with so many degrees of freedom each (None:
    known); F test."""
    known = 1e9  # infinitely many, which scipy's distribution cannot take
    low, high = stats.f.ppf([0.025, 0.975], above or known, below or known)
    return float(ratio / high), float(ratio / low)


def _configurational(workflow: Workflow) -> dict[str, float]:
    """kT ln n, final over initial, never inside a free energy of labelled sites; it lowers ΔG."""
    settings = workflow.settings
    if isinstance(settings, VacancySettings):
        by_phase = {"": settings.configurations}
    elif isinstance(settings, TransmuteSettings):
        by_phase = settings.configurations
    else:
        return {}
    back = settings.configurations_initial if isinstance(settings, TransmuteSettings) else {}
    return {
        f"{phase}{' ' if phase else ''}{t:g} K": configurational(t, count, back.get(phase, 1))
        for phase, count in by_phase.items()
        for t in settings.temperatures_K
        if count != back.get(phase, 1)
    }


def _warnings(stages: dict[str, StageResult], agreements: tuple[Agreement, ...]) -> Iterator[str]:
    for name, stage in stages.items():
        yield from (f"{name}: {w}" for w in stage.warnings)
    for a in agreements:
        if a.finite_cell is not None and a.finite_cell.value is None:
            yield (
                f"{a.quantity} {a.phase} at {a.temperature:g} K: constant volume and constant "
                f"pressure are compared without the finite-cell term ({a.finite_cell.source})"
            )
        if abs(a.difference) > a.half95:
            yield (
                f"{a.quantity} {a.phase} at {a.temperature:g} K: the routes differ by "
                f"{1e3 * a.difference:+.2f} ± {1e3 * a.se:.2f} meV per {a.unit}, beyond the "
                f"95 % interval of ± {1e3 * a.half95:.2f} meV: run longer, or look for a "
                "phase that changed on one path"
            )


# --- output -------------------------------------------------------------------------------------


def to_document(result: WorkflowResult) -> dict[str, Any]:
    """The content of ``workflow_result.json``."""
    return {
        "schema": SCHEMA,
        "units": {"energies": "eV", "temperature": "K", "pressure": "bar"},
        "kind": result.kind,
        "settings": dump(result.settings),
        "rows": [
            {
                **dump(r),
                "per_unit": r.per_unit,
                "per_unit_se": r.per_unit_se,
                "conventions": cell.conventions(r),
                "per_unit_half95": r.per_unit_half95,
            }
            for r in result.rows
        ],
        "agreements": [{**dump(a), "sigmas": a.sigmas} for a in result.agreements],
        "stages": dump(result.stages),
        "evaluations": result.evaluations,
        "configurational": result.configurational,
        "missing": list(result.missing),
        **({} if result.outlook is None else {"outlook": dump(result.outlook)}),
        "warnings": list(result.warnings),
    }


def write_workflow(result: WorkflowResult, out: Path | None = None) -> list[Path]:
    """``result.json`` and ``report.html`` into *out*, by default the workflow's folder."""
    from .page import write_page

    folder = Path(out) if out is not None else result.root
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    files.write_json(path, to_document(result))
    return [path, write_page(result, folder / "report.html")]
