"""From run folders to a result: read, pair, estimate, correct, write."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from ..contract import manifest, origin, target
from ..contract.digest import model_here
from ..contract.layout import FOLDER, find_runs
from ..contract.parameters import CONDITIONS, KEYS
from ..contract.run_input import RunInput, read_input
from ..errors import AnalysisError, InputError
from ..paths import Given
from ..paths.formulas import MASS_TERM, Correction
from .compare.reference import absolute
from .compare.target import changing, with_target
from .corrections import formulas as c
from .corrections import scaling
from .corrections.mass_leg import leg_of, leg_warnings
from .corrections.terms import Sum, terms_of
from .corrections.time_step import time_step_terms
from .estimators.estimate import ONE_SIGMA, Estimate, add, stated, student
from .estimators.fixed_lambda import Window, fixed_window
from .estimators.holds import SHORT_HOLD, drifts, relaxation
from .estimators.judge import check_switching, check_warnings, check_window
from .estimators.mbar import mbar
from .estimators.quadrature import integrate, quadrature
from .estimators.series import BLOCKS, FEW_ROWS
from .estimators.switching import WorkAnalysis, analyze_works, mean_estimate
from .estimators.window_checks import mbar_warnings, window_warnings
from .estimators.work import SwitchingRun, common_temperature, switching_work
from .estimators.work_warnings import FEW_PAIRS
from .result import Conditions, Provenance, Replica, Result, Total, write_result

_PACKAGES = {
    "alchemdriver": "alchemdriver",
    "ipi": "ipi",
    "mace": "mace-torch",
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pymbar": "pymbar",
}


def analyze(
    targets: Sequence[Path | str] | Path | str,
    *,
    out: Path | str | None = None,
    partial: bool = False,
    formula_units: int | None = None,
    n_ws: int | None = None,
    pressure: float | None = None,
    terms: Sequence[Correction] = (),
    reference: float | str | Path | None = None,
    check: str | Path | None = None,
    write: bool = True,
) -> Result:
    """Analyse one run, or several independent replicas or windows of one calculation together.

    targets        what ``alchemdriver analyze`` takes: inputs, their folders, or folders of
                   replicas or windows, each with i-PI's outputs; the workflows that it also takes
                   have :func:`analyze_workflow`
    out            where result.json goes; default: the folder, or the first one's parent
    partial        analyse the complete pairs of unfinished runs; the result is labelled 'partial'
    formula_units  in the cell; default: greatest common divisor of the initial composition, but 1
                   where atoms are removed
    n_ws           N_WS of eq. 19 for einstein->model; default: by spglib from the anchors.  Give
                   the perfect crystal's for a crystal with a vacancy
    pressure       bar; adds P V at constant volume (eq. 20), so that the total is a Gibbs energy
                   (of n_ws and pressure, the manifest of a stage gives what is not given)
    terms          further terms; one named like a term of ours replaces it (e.g. the mass leg of a
                   path-integral run)
    reference      of model->scaled: absolute free energy at T0, eV per cell, or a result.json
    check          of model->scaled: result.json of an independent value on the path

    Raises InputError or AnalysisError, one line each.
    """
    if isinstance(targets, (str, Path)):
        targets = [targets]
    if not targets:
        raise AnalysisError("expected at least one run folder")
    staged = next((t for t in targets if manifest.is_workflow(Path(t))), None)
    if staged is not None:
        raise AnalysisError(f"{staged} is a folder of stages: use analyze_workflow('{staged}')")
    inputs = [read_input(path.resolve()) for t in targets for path in find_runs(Path(t))]
    if write and out is None and any(r.folder.parent != inputs[0].folder.parent for r in inputs):
        raise InputError("the runs have no common folder: say with 'out' where results go")
    for run in inputs:
        origin.check(run, with_model=True)
        origin.check_outputs(run)
    _check_same(inputs)
    first = inputs[0]
    stage = manifest.stage_of(first.folder)
    if stage is not None:
        terms_of_stage = manifest.einstein_terms(*stage, first)
        n_ws = terms_of_stage.get("n_ws") if n_ws is None else n_ws
        pressure = terms_of_stage.get("pressure") if pressure is None else pressure
    path = first.lambda_path
    if formula_units is None:
        # one vacancy in a large cell: sharing its free energy among formula units means nothing
        alone = path.is_defect or c.substituted(first.transformation) is not None
        formula_units = 1 if alone else c.formula_units(first.structure.symbols)
    leg = leg_of(_home(inputs), first)
    if leg is not None and MASS_TERM not in {t.name for t in terms}:
        terms = [*terms, leg.term()]
    if formula_units < 1:
        raise AnalysisError(f"formula_units must be at least 1, got {formula_units}")
    if path.constant:
        raise AnalysisError(
            f"{first.path} is plain dynamics of the model ('alchemy: none'): nothing depends on "
            "lambda, so there is no free energy to analyse"
        )
    known = None
    if not path.sweeps_temperature:
        if reference is not None or check is not None:
            raise AnalysisError("--reference and --check belong to model->scaled")
    elif reference is not None:
        known = absolute(reference, first, _provenance(first), first.temperature)
    given = Given(n_ws, pressure, known)
    if first.schedule is None:
        result = _fixed_lambda(inputs, formula_units, given, terms)
    else:
        result = _switching(inputs, partial, formula_units, given, terms)
    if path.sweeps_temperature:
        result = _with_check(result, first, check)
    if leg is not None:
        warnings = (*result.warnings, *leg_warnings(leg))
        totals = result.totals
        if leg.se is None and MASS_TERM in {t.name for t in result.terms if t.se is None}:
            why = "not estimated: a point of the mass leg has no error"
            totals = tuple(
                replace(t, se=None, se_kind=why, per_formula_unit_se=None, per_atom_se=None,
                        ci95=None, dof=None)
                for t in totals
            )  # fmt: skip
        result = replace(result, mass_leg=leg, warnings=warnings, totals=totals)
    asked = target.read(_home(inputs))
    if asked is not None and result.pooled is not None:
        result = with_target(result, asked, changing(first))
    if out is not None:
        result = replace(result, folder=Path(out).resolve())
    if write:
        write_result(result)
    return result


def _home(inputs: list[RunInput]) -> Path:
    folder = inputs[0].folder
    return folder if len(inputs) == 1 else folder.parent


# --- the two kinds of run -----------------------------------------------------------------------


def _switching(
    inputs: list[RunInput],
    partial: bool,
    formula_units: int,
    given: Given,
    extra: Sequence[Correction],
) -> Result:
    runs, checks = [], []
    for one in inputs:
        runs.append(switching_work(one))
        _check_length(runs[-1])
        _check_finished(runs[-1], partial)
        checks.append(check_switching(one, runs[-1]))
    temperature = common_temperature(runs)
    _check_independent(runs)
    replicas = tuple(_replica(i, r) for i, r in zip(inputs, runs, strict=True))
    forward = np.concatenate([r.forward for r in runs])
    backward = np.concatenate([r.backward for r in runs])
    pooled = analyze_works(
        forward,
        backward,
        temperature,
        chains=[r.pairs for r in runs],
        replicas=[r.folder.name for r in runs],
    )
    over = None
    if len(runs) > 1:
        over = mean_estimate(
            np.array([r.analysis.eq11.value for r in replicas]), "eq. 11", "replicas"
        )
    total = terms_of(inputs[0], given, [*extra, *time_step_terms(inputs)])
    labels = []
    if pooled.n < FEW_PAIRS:
        labels.append("exploratory")
    if not all(r.complete for r in runs):
        labels.append("partial")
    if any(any(_hold_warnings(run)) for run in runs):
        labels.append(UNVERIFIED)
    return Result(
        kind="switching",
        labels=tuple(labels),
        quantity=total.quantity,
        conditions=_conditions(inputs[0]),
        versions=_versions(),
        formula_units=formula_units,
        substituted=c.substituted(inputs[0].transformation),
        replicas=replicas,
        pooled=pooled,
        over_replicas=over,
        windows=(),
        integral=None,
        terms=total.terms,
        totals=tuple(
            _total(e, total, formula_units, len(inputs[0].structure))
            for e in (pooled.eq11, pooled.bar)
        ),
        warnings=(
            *_warnings(inputs, runs, pooled, total.terms),
            *check_warnings(checks, temperature, pooled.n, _stated(pooled)),
        ),
        folder=_home(inputs),
        runs=tuple(runs),
        checks=tuple(checks),
        scaling=scaling.switching_curve(inputs[0], runs, given.reference)
        if inputs[0].lambda_path.sweeps_temperature
        else None,
    )


def _fixed_lambda(
    inputs: list[RunInput],
    formula_units: int,
    given: Given,
    extra: Sequence[Correction],
) -> Result:
    windows, checks = [], []
    for one in inputs:  # one after the other: what was read of each is looked at twice
        windows.append(fixed_window(one))
        _check_length(windows[-1])
        checks.append(check_window(one, windows[-1]))
    integral, rule = None, None
    if quadrature({w.lam for w in windows}) is not None:
        integral, rule = integrate(windows)
    multistate, why = None, None
    coloured = next((run.noncanonical for run in inputs if run.noncanonical), None)
    if coloured is not None:
        why = f"{coloured}, so exp(-H/kT) is no weight of what it samples"
    elif len({w.lam for w in windows}) > 1:
        try:
            multistate = mbar(inputs, windows)
        except AnalysisError as err:
            why = str(err)
    warnings = list(window_warnings(inputs, windows, integral, rule))
    if why is not None:
        warnings.append(f"no MBAR: {why}")
    if multistate is not None:
        warnings += mbar_warnings(multistate, integral)
    estimates = [e for e in (integral, multistate.estimate if multistate else None) if e]
    total = terms_of(inputs[0], given, extra) if estimates else Sum(1.0, (), "⟨∂H/∂λ⟩")
    warnings += [t for t in (_missing(total.terms),) if t]
    warnings += check_warnings(checks, windows[0].temperature)
    return Result(
        kind="fixed_lambda",
        labels=() if all(w.complete for w in windows) else ("partial",),
        quantity=total.quantity,
        conditions=_conditions(inputs[0]),
        versions=_versions(),
        formula_units=formula_units,
        substituted=c.substituted(inputs[0].transformation),
        replicas=(),
        pooled=None,
        over_replicas=None,
        windows=tuple(windows),
        integral=integral,
        terms=total.terms,
        totals=tuple(_total(e, total, formula_units, len(inputs[0].structure)) for e in estimates),
        warnings=tuple(warnings),
        folder=_home(inputs),
        runs=(),
        quadrature=rule,
        mbar=multistate,
        scaling=scaling.windows_curve(inputs[0], multistate, given.reference)
        if inputs[0].lambda_path.sweeps_temperature and multistate is not None
        else None,
        sources=tuple(_provenance(run) for run in inputs),
        checks=tuple(checks),
    )


def _with_check(result: Result, run: RunInput, check: str | Path | None) -> Result:
    """The curve G(T) against an independent value, thinned for the file, and what it warns of."""
    if result.scaling is None:
        return result
    curve = result.scaling
    if check is not None:
        if curve.reference is None:
            raise AnalysisError("--check needs an absolute curve: give --reference too")
        curve = scaling.compared(
            curve, absolute(check, run, _provenance(run)), result.formula_units
        )
    return replace(
        result,
        scaling=scaling.thinned(curve),
        warnings=(*result.warnings, *scaling.curve_warnings(curve)),
    )


# --- checks -------------------------------------------------------------------------------------


def _check_same(inputs: list[RunInput]) -> None:
    """Replicas may differ in seed and start, fixed-λ runs also in λ, and in nothing else."""
    first = inputs[0]
    point = next((run for run in inputs if run.parameters.mass_point is not None), None)
    if point is not None:
        raise AnalysisError(
            f"{point.folder} is a point of a mass leg: analyse the run that its '{FOLDER}' folder "
            "lies in"
        )
    for run in inputs[1:]:
        for key in (*KEYS.values(), *CONDITIONS):
            a, b = key.seen_by_replicas(first), key.seen_by_replicas(run)
            if key.replicas and a != b:
                unit = f" ({key.unit})" if key in CONDITIONS and key.unit else ""
                shown = "" if key.name == "alchemy" else f" ({a} and {b})"
                raise AnalysisError(
                    f"{first.folder.name} and {run.folder.name} differ in {key.name}{unit}{shown}: "
                    "analyse them separately"
                )
        if run.constant_pressure:
            continue  # the start's cell is only where the barostat begins
        off = float(np.abs(first.structure.cell - run.structure.cell).max())
        if off > _SAME_CELL:
            raise AnalysisError(
                f"{first.folder.name} and {run.folder.name} differ in cell (by {off:.2g} Å) at "
                "constant volume: analyse them separately"
            )
    folders = Counter(run.path for run in inputs)
    twice = next((p for p, n in folders.items() if n > 1), None)
    if twice is not None:
        raise AnalysisError(f"{twice.parent} is given twice: replicas must be independent")


def _check_length(run: SwitchingRun | Window) -> None:
    if run.last_step > run.total_steps:
        raise AnalysisError(
            f"{run.folder} has rows up to step {run.last_step}, but its input is for "
            f"{run.total_steps} steps: restore <total_steps> and 'cycles'"
        )


def _check_finished(run: SwitchingRun, partial: bool) -> None:
    if run.complete:
        return
    progress = f"{run.folder} is at step {run.last_step} of {run.total_steps}"
    if run.pairs == 0:
        raise AnalysisError(f"{progress} and has no complete forward/backward pair yet: resume it")
    if not partial:
        raise AnalysisError(
            f"{progress}: resume it, or analyse its {run.pairs} of {run.cycles} pairs as partial "
            "(--partial)"
        )


def _check_independent(runs: list[SwitchingRun]) -> None:
    seen: dict[tuple[float, float], SwitchingRun] = {}
    for run in runs:
        key = (run.forward[0], run.backward[0])
        if key in seen:
            raise AnalysisError(
                f"{seen[key].folder.name} and {run.folder.name} have identical works: the same "
                "seed twice is one replica"
            )
        seen[key] = run


# --- parts of the result ------------------------------------------------------------------------


def _stated(pooled: WorkAnalysis) -> float | None:
    """The smaller of the errors of ΔF, eV: what a mismatch is held against."""
    return min((e.se for e in (pooled.eq11, pooled.bar) if e.se is not None), default=None)


def _replica(run: RunInput, switching: SwitchingRun) -> Replica:
    return Replica(
        provenance=_provenance(run),
        complete=switching.complete,
        forward=switching.forward,
        backward=switching.backward,
        analysis=analyze_works(switching.forward, switching.backward, switching.temperature),
        first_law=switching.first_law,
        holds=switching.holds,
    )


def _provenance(run: RunInput) -> Provenance:
    began = origin.read(run)
    return Provenance(
        folder=str(run.folder),
        input=run.path.name,
        input_sha256=hashlib.sha256(run.path.read_bytes()).hexdigest(),
        seed=run.seed,
        model=run.parameters.model,
        model_sha256=model_here(run, run.parameters.model)
        or (began.model_sha256 if began else None),
        digest=run.parameters.digest,
    )


def _conditions(run: RunInput) -> Conditions:
    named = {
        key.result: key.seen_in_results(run) for key in (*KEYS.values(), *CONDITIONS) if key.result
    }
    return Conditions(
        formula=c.formula(run.structure.symbols),
        natoms=len(run.structure),
        volume=None if run.constant_pressure else run.volume,
        **named,
    )


UNVERIFIED = "holds not verified"  # label of a switching result
_SAME_CELL = 1e-4  # Å, what the rounding of a printed cell may make


def _versions() -> dict[str, str | None]:
    """Installed versions, read from their metadata: nothing is imported."""
    found: dict[str, str | None] = {}
    for name, package in _PACKAGES.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _total(
    estimate: Estimate,
    added: Sum,
    formula_units: int,
    natoms: int,
) -> Total:
    """The estimate, as often as work counts, plus all terms."""
    estimate, terms = scaling.times(estimate, added.factor), added.terms
    values = [t.value for t in terms if t.value is not None]
    if len(values) < len(terms):
        why = "no total: a term is missing"
        return Total(estimate.method, None, None, why, None, None, None, None)
    shift = sum(values)
    given = [(t.se / student(ONE_SIGMA, t.dof), t.dof) for t in terms if t.se is not None]
    se, kind, ci95, dof = estimate.se, estimate.se_kind, estimate.ci95, estimate.dof
    if estimate.sigma is not None and given:
        sigma, dof = add(
            [estimate.sigma**2, *(s * s for s, _ in given)],
            [estimate.dof, *(nu for _, nu in given)],
        )
        kind += ", and of the terms in quadrature"
        both = stated(estimate.method, estimate.value, sigma, dof, kind, estimate.n)
        se, ci95 = both.se, both.ci95
    value = estimate.value + shift
    return Total(
        estimate.method,
        value,
        se,
        kind,
        value / formula_units,
        None if se is None else se / formula_units,
        value / natoms,
        None if se is None else se / natoms,
        None if ci95 is None else (ci95[0] + shift, ci95[1] + shift),
        dof,
    )


def _missing(terms: Sequence[Correction]) -> str | None:
    names = [f"{t.name} ({t.source})" for t in terms if t.value is None]
    return f"no total: missing {'; '.join(names)}" if names else None


def _warnings(
    inputs: list[RunInput],
    runs: list[SwitchingRun],
    pooled: WorkAnalysis,
    terms: Sequence[Correction],
) -> Iterator[str]:
    for run in runs:
        if not run.complete:
            yield (
                f"partial: {run.folder.name} stopped at step {run.last_step} of {run.total_steps}, "
                f"{run.pairs} of {run.cycles} pairs analysed"
            )
    if not inputs[0].thermostatted:
        yield (
            f"switches without a thermostat ({inputs[0].ensemble}): eq. 11 and BAR hold for "
            "canonical starts, so each switch must begin from a thermostatted hold"
        )
    yield from pooled.warnings
    missing = _missing(terms)
    if missing:
        yield missing
    seeds = [i.seed for i in inputs]
    if len(set(seeds)) < len(seeds):
        yield f"replicas share a seed ({seeds}): independent only if their starts differ"
    for run in runs:
        if run.first_law is None:
            yield f"{run.folder.name}: no conserved quantity printed, the first law is unchecked"
        yield from _hold_warnings(run)


def _hold_warnings(run: SwitchingRun) -> Iterator[str]:
    """Why the starts of the switches may not be equilibrated or independent; none if they are."""
    few = [h for h in run.holds if h.unchecked and h.duration > 0.0]
    if few:
        yield (
            f"{run.folder.name}: {len(few)} of {len(run.holds)} holds have fewer than {FEW_ROWS} "
            "rows of ∂H/∂λ: their equilibration and independence, which BAR needs, are not checked"
        )
    for kind in ("hold0", "hold1"):
        found = relaxation([h for h in run.holds if h.kind == kind])
        if found is not None and drifts(*found):
            yield (
                f"{run.folder.name}: ∂H/∂λ still relaxes at the end of the holds at "
                f"λ = {kind[-1]} ({1e3 * found[0]:+.2f} ± {1e3 * found[1]:.2f} meV between the "
                "last quarters): the switches start out of equilibrium, hold longer"
            )
    if any(h.duration == 0.0 for h in run.holds):
        yield f"{run.folder.name}: switches follow each other without a hold: set 'equilibrate'"
    untold = [h for h in run.holds if h.untold and not h.short]
    if untold:
        worst = min(untold, key=lambda h: h.blocks or 0.0)
        yield (
            f"{run.folder.name}: whether {len(untold)} of {len(run.holds)} holds are long enough "
            f"cannot be told: all of their kind hold {worst.blocks:.1f} blocks of four correlation "
            f"times, {BLOCKS} are needed to know that time: hold longer"
        )
    short = [h for h in run.holds if h.short]
    if short:
        worst = max(short, key=lambda h: (h.correlation_time or 0.0) / h.duration)
        yield (
            f"{run.folder.name}: {len(short)} of {len(run.holds)} holds are shorter than "
            f"{SHORT_HOLD:g} correlation times of ∂H/∂λ (worst: {worst.duration:.3g} ps, "
            f"correlation time {worst.correlation_time:.2g} ps): the switches start out of "
            "equilibrium or related"
        )
    moving = [h for h in run.holds if h.drifts]
    if moving:
        worst = max(moving, key=lambda h: abs(h.volume_drift or 0.0))
        yield (
            f"{run.folder.name}: the volume still drifts in {len(moving)} of {len(run.holds)} "
            f"holds ({worst.volume_drift:+.3g} ± {worst.volume_drift_se:.2g} Å^3 between the "
            "halves of the worst): hold longer"
        )
