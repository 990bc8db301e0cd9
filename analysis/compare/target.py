"""What of a result decides how long it goes on: sources, totals, and where they stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...contract.run_input import RunInput
from ...contract.target import Asked, Target
from ...errors import AnalysisError, InputError
from ..corrections.time_step import NAME as TIME_STEP
from ..estimators.estimate import ONE_SIGMA, add, student
from ..estimators.stopping import Source, Wanted, no_less, outlook, stated_error
from ..estimators.switching import pair_error
from ..result import Result, Total

METHOD = "BAR"  # whose total it is about


def source_of(result: Result, name: str, frozen: bool = False) -> Source:
    """The works of *result*.  Raises AnalysisError where they are not of switches."""
    pooled, c = result.pooled, result.conditions
    if pooled is None or c.switch is None or c.equilibrate is None or result.scaling is not None:
        raise AnalysisError(
            f"{result.folder}: an error to be reached is for switches between two states: not for "
            "windows, nor for a curve G(T)"
        )
    lengths = tuple(len(r.forward) for r in result.replicas)
    cost = 2 * (c.equilibrate + c.switch) * c.beads
    sigma, pair = pooled.bar.sigma, None
    if sigma is not None:
        # the forces that it is from are printed in the holds: more of them come with every cycle
        step = next((t.se for t in result.terms if t.name == TIME_STEP and t.se is not None), 0.0)
        forward = np.concatenate([r.forward for r in result.replicas])
        backward = np.concatenate([r.backward for r in result.replicas])
        pair = pair_error(forward, backward, pooled.bar.value, c.temperature)
        sigma, pair = float(np.hypot(sigma, step)), float(np.hypot(pair, step))
    return Source(name, lengths, cost, sigma, pooled.bar.dof, pair, frozen)


def changing(run: RunInput) -> int:
    """Atoms that λ makes other ones, or nothing."""
    t = run.transformation
    return sum(a != b for a, b in zip(t.initial, t.final, strict=True))


def wanted_of(result: Result, asked: Asked, sites: int) -> Wanted:
    """The total of *result*; sites: atoms that λ changes, of which an error per site is."""
    shares = {
        "cell": 1,
        "atom": result.conditions.natoms,
        "formula-unit": result.formula_units,
        "site": sites,
    }
    if shares[asked.per] < 1:
        raise InputError("per site: no atom of this run changes; ask per cell or per atom")
    fixed = [t for t in result.terms if t.se is not None and t.name != TIME_STEP]
    sigma, dof = add(
        [(t.se / student(ONE_SIGMA, t.dof)) ** 2 for t in fixed if t.se is not None],
        [t.dof for t in fixed],
    )
    error = asked.error * shares[asked.per]
    return Wanted(result.quantity, {result.folder.name: 1.0}, error, sigma**2, dof)


def with_target(result: Result, found: Target, sites: int) -> Result:
    """*result* with where it stands, and with the error that may be stated of it."""
    name = result.folder.name
    total, sources = wanted_of(result, found.asked, sites), {name: source_of(result, name)}
    sigma, dof = stated_error(total, sources)
    totals = result.totals
    if found.lengthened:
        totals = tuple(
            _no_less(t, total, sources, result) if t.method == METHOD else t for t in totals
        )
    se = None if np.isnan(sigma) else student(ONE_SIGMA, dof) * sigma
    if result.total(METHOD).se is None:
        se = None  # a term without an error
    if se is not None and found.lengthened:
        se = no_less(se, 0.0, total, sources)[0]
    return replace(
        result,
        totals=totals,
        outlook=outlook(found, [total], sources, {total.name: se}),
    )


def _no_less(t: Total, wanted: Wanted, sources: Mapping[str, Source], result: Result) -> Total:
    if t.value is None or t.se is None or t.ci95 is None:
        return t
    half = 0.5 * (t.ci95[1] - t.ci95[0])
    se, wide = no_less(t.se, half, wanted, sources)
    if se == t.se and wide == half:
        return t
    return replace(
        t,
        se=se,
        se_kind=f"{t.se_kind}; no less than single pairs say, for it decided the length",
        ci95=(t.value - wide, t.value + wide),
        per_formula_unit_se=se / result.formula_units,
        per_atom_se=se / result.conditions.natoms,
    )
