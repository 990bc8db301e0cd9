"""Free-energy differences from forward and backward switching work.

Everything here is in eV; a pair is the forward and the backward switch of one cycle.

| symbol          | paper  | here                                     |
|-----------------|--------|------------------------------------------|
| W_{i→f}         | eq. 9  | ``forward`` (n,), λ from 0 to 1          |
| W_{f→i}         | eq. 9  | ``backward`` (n,), λ from 1 to 0         |
| Ē^diss          | eq. 10 | ``dissipation``                          |
| ΔF              | eq. 11 | ``eq11``                                 |

Standard deviation (SD) is the scatter of single values; standard error (SE) that of the mean, from
independent ``parts`` of the data, stated as ``estimate`` says.  An error that cannot be estimated
is None, never 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from ...contract.stored import Count, Kelvin
from ...errors import AnalysisError
from ...units import kT
from .diagnostics import Diagnostics, Dissipation, cumulant, dissipated, jarzynski, lag1, variance_p
from .estimate import Estimate, stated, without_error
from .exploded import exploded
from .parts import by_replica, cut, jackknife
from .work_warnings import odd_switches, work_warnings

ENOUGH = 5.0  # pairs that decide an estimate, from which their scatter alone is believed
IDENTICAL = 1e-6  # kT, of works that do not scatter
NO_OVERLAP = 1e-12  # slope of BAR's balance


@dataclass(frozen=True)
class WorkAnalysis:
    """Everything that follows from one set of forward and backward works."""

    temperature: Kelvin
    n: Count  # pairs
    eq11: Estimate
    bar: Estimate
    dissipation: Dissipation
    diagnostics: Diagnostics
    warnings: tuple[str, ...]
    bar_bootstrap: float | None = None  # eV, of earlier results: it is no longer made


# --- estimators ---------------------------------------------------------------------------------


def mean_estimate(values: np.ndarray, method: str, over: str = "pairs") -> Estimate:
    """Mean of independent *values* (n,) eV with Student's error."""
    values = np.asarray(values, dtype=float)
    n, value = len(values), float(np.mean(values))
    if n < 2:
        return without_error(method, value, "one value only", n)
    sd = float(values.std(ddof=1))
    return stated(
        method, value, sd / np.sqrt(n), n - 1, f"standard error over {n} {over}", n,
        sd, f"standard deviation of {n} {over}",
    )  # fmt: skip


def pair_estimates(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """ΔF of every pair, ½ (W_{i→f} − W_{f→i}), (n,) eV; eq. 11 before the average.

    Smallest variance of all, but biased outside linear response, and the bias does not average
    out: the error of the mean does not contain it.
    """
    pairs: np.ndarray = 0.5 * (np.asarray(forward, dtype=float) - np.asarray(backward, dtype=float))
    return pairs


def bar(forward: np.ndarray, backward: np.ndarray, temperature: float) -> float:
    """ΔF by BAR from pairs of works (n,), eV."""
    works = np.asarray(forward, dtype=float), np.asarray(backward, dtype=float)
    return float(bar_weighted(*works, np.ones((1, len(works[0]))), temperature)[0])


def bar_weighted(
    forward: np.ndarray, backward: np.ndarray, weights: np.ndarray, temperature: float
) -> np.ndarray:
    """BAR (Bennett 1976; Crooks 2000) for several *weights* (g, n) of the same pairs, (g,) eV.

    The root x of Σ w f(W_F − x) = Σ w f(W_R + x), f(W) = 1/(1 + exp(W/kT)), as many works forward
    as backward.  The difference of the two sides rises with x: Newton's method inside a shrinking
    bracket.  Works without any overlap leave it at eq. 11, where it starts.
    """
    t = kT(temperature)
    w_f, w_r = forward / t, backward / t
    ends = np.concatenate([w_f, -w_r])
    low, high = np.full((2, len(weights)), [[ends.min() - 1.0], [ends.max() + 1.0]])
    x: np.ndarray = 0.5 * (weights @ (w_f - w_r)) / weights.sum(1)
    for _ in range(200):
        p_f = special.expit(x[:, None] - w_f)  # [g, n]
        p_r = special.expit(-x[:, None] - w_r)
        balance = np.sum(weights * (p_f - p_r), axis=1)
        slope = np.sum(weights * (p_f * (1.0 - p_f) + p_r * (1.0 - p_r)), axis=1)
        low, high = np.where(balance < 0, x, low), np.where(balance < 0, high, x)
        newton = x - balance / np.maximum(slope, 1e-300)
        inside = (newton >= low) & (newton <= high)
        step = np.where(inside, newton, 0.5 * (low + high)) - x
        x = x + step
        if np.all(np.abs(step) < 1e-12 * (1.0 + np.abs(x))):
            break
    return x * t


def pair_error(
    forward: np.ndarray, backward: np.ndarray, delta_f: float, temperature: float
) -> float:
    """σ (eV) of BAR's *delta_f*, as if all pairs (n,) eV were independent of each other.

    Of the root x of Σ ψ_i(x) = 0, ψ_i = f(W_F,i − x) − f(W_R,i + x): kT sd(ψ)/(√n ⟨−dψ/dx⟩), to
    first order in 1/n (Huber 1964); what the two switches of a pair share is in ψ.  Works without
    any overlap leave BAR at eq. 11, and this at its scatter.
    """
    t = kT(temperature)
    p_f = special.expit((delta_f - np.asarray(forward)) / t)
    p_r = special.expit(-(delta_f + np.asarray(backward)) / t)
    slope = float(np.mean(p_f * (1.0 - p_f) + p_r * (1.0 - p_r)))
    scatter = float((p_f - p_r).std(ddof=1) / np.sqrt(len(p_f)))
    if slope < NO_OVERLAP:
        return float(pair_estimates(forward, backward).std(ddof=1) / np.sqrt(len(p_f)))
    return t * scatter / slope


def bar_overlap(
    forward: np.ndarray, backward: np.ndarray, delta_f: float, temperature: float
) -> float:
    """Off-diagonal element of the two-state overlap matrix: 0.5 identical, 0 no overlap."""
    t = kT(temperature)
    p = special.expit(
        np.concatenate([(delta_f - np.asarray(forward)) / t, (delta_f + np.asarray(backward)) / t])
    )
    return float(np.sum(p * (1.0 - p)) / len(np.asarray(forward)))


# --- all together -------------------------------------------------------------------------------


def linear_response(loss: float, n: int, temperature: float) -> tuple[float, float]:
    """σ of ΔF (eV) that the hysteresis of *n* pairs implies, and its degrees of freedom.

    Works that scatter by σ² = 2 kT W have ΔF of a pair scatter by kT W.  W = *loss* (eV) is taken
    one of its own errors √(kT W/n) lower, so that it decides only where the scatter is too small
    for the hysteresis.
    """
    t, loss = kT(temperature), max(loss, 0.0)
    low = max(loss - np.sqrt(t * loss / n), 0.0)
    return float(np.sqrt(t * low / n)), 2.0 * n * loss / t


def estimates(
    forward: np.ndarray, backward: np.ndarray, temperature: float, lengths: Sequence[int]
) -> tuple[Estimate, Estimate, Estimate]:
    """ΔF by eq. 11 and by BAR, and the dissipation (eq. 10), of works (n,) eV of chained *lengths*,
    all with the error of the same parts."""
    n, t = len(forward), kT(temperature)
    pairs, losses = pair_estimates(forward, backward), dissipated(forward, backward)
    division = cut(pairs, lengths)
    why = None
    if n < 2:
        why = "one value only"
    elif max(np.ptp(forward), np.ptp(backward)) < IDENTICAL * t:
        why = f"{n} works without scatter: their switches are the same, or nothing moves"

    def estimate(
        method: str,
        values: Callable[[np.ndarray], np.ndarray],
        deciding: Callable[[float], float],
        *sd: Any,
    ) -> Estimate:
        """values: the estimates (g,) for weights (g, n) of the pairs; deciding: how many pairs
        decide it, from its value."""
        value, sigma = map(float, jackknife(values, division))
        if why is not None:
            return without_error(method, value, why, n)
        found = stated(method, value, sigma, division.dof, division.kind, n, *sd)
        if deciding(value) >= ENOUGH:
            return found
        usual = np.ones(n, dtype=bool)
        usual[[x.pair for x in exploded(forward, backward, temperature, lengths)]] = False
        least, least_dof = linear_response(float(losses[usual].mean()), n, temperature)
        if least == 0.0:
            return found
        kind = f"linear response, from the dissipation of {n} pairs, whose scatter gives less"
        other = stated(method, value, least, least_dof, kind, n, *sd)
        return max(found, other, key=lambda e: e.se or 0.0)

    def mean(method: str, values: np.ndarray) -> Estimate:
        sd = None if n < 2 else float(values.std(ddof=1))
        return estimate(
            method,
            lambda w: w @ values / w.sum(1),
            lambda _: n,
            sd,
            f"standard deviation of {n} pairs",
        )

    simple, loss = mean("eq. 11", pairs), mean("eq. 10", losses)
    bennett = estimate(
        "BAR",
        lambda w: bar_weighted(forward, backward, w, temperature),
        lambda value: 2.0 * n * bar_overlap(forward, backward, value, temperature),
        None,
        "not defined for BAR",
    )
    return simple, bennett, loss


def analyze_works(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    chains: Sequence[int] | None = None,
    replicas: Sequence[str] | None = None,
) -> WorkAnalysis:
    """All estimates from paired works (n,) eV at *temperature* K.

    chains: how many pairs each replica contributed, in order; by default one chain.  replicas:
    their names, for warnings.  Raises AnalysisError for works that are not paired or not finite.
    """
    forward, backward = np.asarray(forward, dtype=float), np.asarray(backward, dtype=float)
    n, t = len(forward), kT(temperature)
    lengths = [n] if chains is None else list(chains)
    _check_works(forward, backward, lengths)
    simple, bennett, loss = estimates(forward, backward, temperature, lengths)
    dissipation = Dissipation(
        mean=loss,
        forward=float(forward.mean() - bennett.value),
        backward=float(backward.mean() + bennett.value),
        mean_kT=loss.value / t,
        hysteresis=float(forward.mean() + backward.mean()),
    )

    def without(kept: np.ndarray) -> Estimate:
        left = np.bincount(by_replica(lengths)[kept], minlength=len(lengths)).tolist()
        return analyze_works(forward[kept], backward[kept], temperature, left).bar

    r = lag1(np.split(pair_estimates(forward, backward), np.cumsum(lengths)[:-1]))
    opposite = cumulant(backward, temperature)
    diagnostics = Diagnostics(
        jarzynski_forward=jarzynski(forward, temperature),
        jarzynski_backward=-jarzynski(backward, temperature),
        cumulant_forward=cumulant(forward, temperature),
        cumulant_backward=None if opposite is None else -opposite,
        sd_forward=None if n < 2 else float(forward.std(ddof=1)),
        sd_backward=None if n < 2 else float(backward.std(ddof=1)),
        variance_p=variance_p(forward, backward),
        overlap=bar_overlap(forward, backward, bennett.value, temperature),
        lag1=r,
        correlated=None if r is None else r > 2.0 / np.sqrt(n),
    )
    return WorkAnalysis(
        temperature,
        n,
        simple,
        bennett,
        dissipation,
        diagnostics,
        (
            *odd_switches(forward, backward, temperature, lengths, replicas, bennett, without),
            *work_warnings(
                forward, backward, temperature, lengths, bennett, dissipation, diagnostics
            ),
        ),
    )


def _check_works(forward: np.ndarray, backward: np.ndarray, lengths: Sequence[int]) -> None:
    if len(forward) != len(backward) or len(forward) == 0:
        raise AnalysisError(
            f"expected at least one forward/backward pair, got {len(forward)} forward and "
            f"{len(backward)} backward works"
        )
    if not (np.isfinite(forward).all() and np.isfinite(backward).all()):
        raise AnalysisError("a work is not finite")
    if sum(lengths) != len(forward) or min(lengths) < 0:
        raise AnalysisError(f"chains: expected lengths that sum to {len(forward)}, got {lengths}")
