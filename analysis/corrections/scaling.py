"""Reversible scaling: G(T) along a whole path of temperatures from one pair of switches.

de Koning, Antonelli and Yip, Phys. Rev. Lett. 83, 3973 (1999); at constant pressure the enthalpy is
scaled (de Koning et al., J. Chem. Phys. 115, 11025 (2001)).  A classical system with energies
s (U + P V) at T0 has the configurations of the real one at T = T0/s, hence, momenta included,

    G(T)/T = G(T0)/T0 + W(λ)/T0 − (3/2) N k ln(T/T0)

| symbol   | here                                                                     |
|----------|--------------------------------------------------------------------------|
| s(λ)     | ``1 + λ (scale − 1)``, T = T0/s                                          |
| W(λ)     | work from 0 to λ, ½ (W_F(0→λ) − W_B(λ→0)) over pairs, eV                 |
| G        | Helmholtz F at constant volume; eV, whole cell                           |

The half difference cancels dissipation to first order at every λ, as eq. 11 does at the end.  The
fixed centre of mass needs no term: V/N_WS does not depend on T at constant volume, and changes G by
kT ln(V(T)/V(T0)) in all at constant pressure, which is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from ...contract.run_input import RunInput
from ...contract.stored import Shape
from ...errors import AnalysisError
from ...paths import Absolute
from ...paths.formulas import temperature_term
from ..estimators.estimate import ONE_SIGMA, Estimate, stated_sums, student
from ..estimators.mbar import Mbar
from ..estimators.parts import cut, jackknife
from ..estimators.work import SwitchingRun

POINTS = 101  # of the curve in result.json


@dataclass(frozen=True)
class Check:
    """An independent value against the curve."""

    against: Absolute
    curve: float  # eV, at the same temperature
    curve_se: float | None  # eV
    difference: float  # eV, curve minus independent value
    sigma: float | None  # eV, both errors in quadrature
    per_formula_unit: float  # eV, the difference


@dataclass(frozen=True)
class Curve:
    """G(T), or G(T) − (T/T0) G(T0) where no reference is given."""

    reference_temperature: float  # K, T0
    scale: float  # s at λ = 1
    temperatures: Annotated[np.ndarray, Shape("m")]  # K, in the order of λ
    lam: Annotated[np.ndarray, Shape("m")]
    values: Annotated[np.ndarray, Shape("m")]  # eV, whole cell
    se: Annotated[np.ndarray, Shape("m")] | None  # eV; None: not estimated
    se_kind: str
    # eV, over replicas; None: one replica, or windows
    se_replicas: Annotated[np.ndarray, Shape("m")] | None
    # eV, ½ (W_F + W_B) up to λ, of the scaled system at T0
    dissipation: Annotated[np.ndarray, Shape("m")] | None
    reference: Absolute | None
    check: Check | None = None
    # eV, half of the 95 % interval; None: not estimated, or a file of an earlier version
    half95: Annotated[np.ndarray, Shape("m")] | None = None


def times(estimate: Estimate, factor: float) -> Estimate:
    """*estimate* of W as that of (T/T0) W."""
    low, high = estimate.ci95 or (0.0, 0.0)
    return replace(
        estimate,
        value=estimate.value * factor,
        se=None if estimate.se is None else estimate.se * factor,
        sd=None if estimate.sd is None else estimate.sd * factor,
        ci95=None if estimate.ci95 is None else (low * factor, high * factor),
    )


def path_works(runs: Sequence[SwitchingRun]) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """λ (n,), ½ (W_F(0→λ) − W_B(λ→0)) of each replica (pairs, n), mean ½ (W_F + W_B) (n,), eV."""
    differences, sums = [], []
    for run in runs:
        rows = []
        for out, back in zip(run.of("forward"), run.of("backward"), strict=False):
            # the way back passes the same λ in reverse; what remains from λ_k on is W_B(λ_k → 0)
            rest = (back.work - back.cumulative)[::-1]
            rows.append(0.5 * (out.cumulative - rest))
            sums.append(0.5 * (out.cumulative + rest))
        differences.append(np.array(rows))
    lam = runs[0].of("forward")[0].lam
    return lam, differences, np.mean(sums, axis=0)


def switching_curve(
    run: RunInput, runs: Sequence[SwitchingRun], reference: Absolute | None
) -> Curve:
    """The curve of every λ that the switches passed, with the one error of works, and the one over
    replicas."""
    lam, replicas, dissipation = path_works(runs)
    pairs = np.concatenate(replicas)
    division = cut(pairs[:, -1], [len(r) for r in replicas])
    sigma = spread = None
    kind = "not estimated: one pair only"
    if division.count > 1:
        _, sigma = jackknife(lambda w: w @ pairs / w.sum(1, keepdims=True), division)
        kind = division.kind
    if len(replicas) > 1:
        means = np.array([r.mean(axis=0) for r in replicas])
        spread = means.std(axis=0, ddof=1) / np.sqrt(len(means))
    errors = (sigma, division.dof if sigma is not None else None, spread, len(replicas) - 1)
    return _curve(run, lam, pairs.mean(axis=0), errors, kind, dissipation, reference)


def windows_curve(run: RunInput, found: Mbar, reference: Absolute | None) -> Curve:
    """The curve at the λ of equilibrium windows, by MBAR."""
    dof = found.estimate.dof
    sigma = None if found.errors is None else found.errors / student(ONE_SIGMA, dof)
    kind = found.estimate.se_kind
    errors = (sigma, dof, None, None)
    return _curve(run, found.lambdas, found.free_energies, errors, kind, None, reference)


def _curve(
    run: RunInput,
    lam: np.ndarray,
    work: np.ndarray,
    errors: tuple[np.ndarray | None, float | None, np.ndarray | None, float | None],
    kind: str,
    dissipation: np.ndarray | None,
    reference: Absolute | None,
) -> Curve:
    """errors: σ of *work* (n,) eV and its degrees of freedom, and the same over replicas."""
    t0, scale = run.kelvin, run.parameters.scale
    if scale is None:
        raise AnalysisError(f"{run.path}: no 'scale' is given")
    t = t0 / (1.0 + lam * (scale - 1.0))
    factor = t / t0
    values = factor * work + temperature_term(t, t0, int(run.free_coordinates.sum()))
    own, own_dof = np.zeros(len(t)), None
    if reference is not None:
        values = values + factor * reference.value
        if reference.se is not None:
            kind += ", and of the reference in quadrature"
            own_dof = reference.dof
            own = factor * reference.se / student(ONE_SIGMA, own_dof)
    sigma, dof, spread, spread_dof = errors
    se = half95 = se_replicas = None
    if sigma is not None:
        se, half95 = stated_sums(factor * sigma, dof, own, own_dof)
    if spread is not None:
        se_replicas, _ = stated_sums(factor * spread, spread_dof, own, own_dof)
    return Curve(
        reference_temperature=t0,
        scale=scale,
        temperatures=t,
        lam=np.asarray(lam),
        values=values,
        se=se,
        se_kind=kind,
        se_replicas=se_replicas,
        dissipation=dissipation,
        reference=reference,
        half95=half95,
    )


def thinned(curve: Curve) -> Curve:
    """About POINTS of the curve, evenly spaced in temperature, both ends included."""
    t = curve.temperatures
    if len(t) <= POINTS:
        return curve
    wanted = np.linspace(t[0], t[-1], POINTS)
    order = np.argsort(t)
    nearest = np.searchsorted(t[order], wanted).clip(0, len(t) - 1)
    rows = np.unique(np.concatenate([[0, len(t) - 1], order[nearest]]))

    def cut(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return replace(
        curve,
        temperatures=t[rows],
        lam=curve.lam[rows],
        values=curve.values[rows],
        se=cut(curve.se),
        se_replicas=cut(curve.se_replicas),
        dissipation=cut(curve.dissipation),
        half95=cut(curve.half95),
    )


def compared(curve: Curve, against: Absolute, formula_units: int) -> Curve:
    """The curve with *against* as its check.  AnalysisError if T is not on the path."""
    t = curve.temperatures
    low, high = t.min(), t.max()
    if not low * (1 - 1e-6) <= against.temperature <= high * (1 + 1e-6):
        raise AnalysisError(
            f"{against.source} is at {against.temperature:g} K, the path goes from {low:g} to "
            f"{high:g} K"
        )
    order = np.argsort(t)

    def at(values: np.ndarray) -> float:
        return float(np.interp(against.temperature, t[order], values[order]))

    value, se = at(curve.values), None if curve.se is None else at(curve.se)
    sigma = None
    if se is not None and against.se is not None:
        sigma = float(np.hypot(se, against.se))
    difference = value - against.value
    return replace(
        curve,
        check=Check(against, value, se, difference, sigma, difference / formula_units),
    )


def curve_warnings(curve: Curve) -> Iterator[str]:
    if curve.reference is None:
        yield (
            "no absolute free energy at T0 was given (--reference): only G(T) − (T/T0) G(T0) is "
            "known, which is no free-energy difference between two temperatures"
        )
    check = curve.check
    if check is not None and check.sigma is not None and abs(check.difference) > 2.0 * check.sigma:
        yield (
            f"the curve is {1e3 * check.difference:+.2f} ± {1e3 * check.sigma:.2f} meV from the "
            f"independent value at {check.against.temperature:g} K, more than 2 σ: switch more "
            "slowly, or the phase changed on the way"
        )
