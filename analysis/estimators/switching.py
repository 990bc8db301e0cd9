"""Free-energy differences from forward and backward switching work.

Everything here is in eV; a pair is the forward and the backward switch of one cycle.

| symbol          | paper  | here                                     |
|-----------------|--------|------------------------------------------|
| W_{i→f}         | eq. 9  | ``forward`` (n,), λ from 0 to 1          |
| W_{f→i}         | eq. 9  | ``backward`` (n,), λ from 1 to 0         |
| Ē^diss          | eq. 10 | ``dissipation``                          |
| ΔF              | eq. 11 | ``eq11``                                 |

Standard deviation (SD) is the scatter of single values; standard error (SE) that of the mean.  An
error that cannot be estimated is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from ...contract.stored import Count, Index, Kelvin, NotNegative
from ...errors import AnalysisError
from ...units import kT
from .quiet import quiet_pymbar

RESAMPLES = 1000
FEW_PAIRS = 10
LARGE_DISSIPATION = 2.0  # kT
POOR_OVERLAP = 0.03  # of at most 0.5; Klimovich, Shirts, Mobley 2015
VARIANCE_TEST = 0.01  # p below which forward and backward variances are called different


@dataclass(frozen=True)
class Estimate:
    """A free-energy difference, or another mean, with its errors; eV."""

    method: str
    value: float  # eV
    se: NotNegative | None  # eV, standard error; None: not estimated
    se_kind: str  # how the standard error was made
    sd: NotNegative | None  # eV, standard deviation of single values; None: not estimated
    sd_kind: str
    ci95: tuple[float, float] | None  # eV
    ci95_kind: str
    n: Index  # values behind it


@dataclass(frozen=True)
class Dissipation:
    """Eq. 10.  The two directions are measured from BAR's ΔF: they differ outside linear response
    (from eq. 11's ΔF they would be equal by construction)."""

    mean: Estimate  # ½ (W̄_F + W̄_R)
    forward: float  # eV, W̄_F − ΔF_BAR
    backward: float  # eV, W̄_R + ΔF_BAR
    mean_kT: float  # mean in kT
    hysteresis: float  # eV, W̄_F + W̄_R = 2 × mean: the gap between the two directions


@dataclass(frozen=True)
class Diagnostics:
    """One-sided and shape numbers: to look at, never to quote."""

    jarzynski_forward: float  # eV
    jarzynski_backward: float  # eV
    cumulant_forward: float | None  # eV, W̄ − σ²/2kT; None: one work only
    cumulant_backward: float | None  # eV
    sd_forward: float | None  # eV, standard deviation of the forward works
    sd_backward: float | None  # eV
    variance_p: float | None  # F-test of equal variances, two-sided p
    overlap: float  # 0 … 0.5, element of the BAR overlap matrix
    lag1: float | None  # lag-1 autocorrelation of chained pairs; None: too few to tell
    correlated: bool | None  # lag1 beyond 2/√n; None: too few to tell


@dataclass(frozen=True)
class WorkAnalysis:
    """Everything that follows from one set of forward and backward works."""

    temperature: Kelvin
    n: Count  # pairs
    eq11: Estimate
    bar: Estimate
    bar_bootstrap: float | None  # eV, SE of BAR over resampled pairs
    dissipation: Dissipation
    diagnostics: Diagnostics
    warnings: tuple[str, ...]


# --- means --------------------------------------------------------------------------------------


def mean_estimate(values: np.ndarray, method: str, over: str = "pairs") -> Estimate:
    """Mean of independent *values* (n,) eV with SE = SD/√n and a Student-t interval."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        none = "not estimated: one value only"
        return Estimate(method, float(values.mean()), None, none, None, none, None, none, n)
    sd = float(values.std(ddof=1))
    se = sd / np.sqrt(n)
    half = float(stats.t.ppf(0.975, n - 1)) * se
    value = float(values.mean())
    return Estimate(
        method,
        value,
        float(se),
        f"standard error over {n} {over}",
        sd,
        f"standard deviation of {n} {over}",
        (value - half, value + half),
        f"Student t, {n - 1} degrees of freedom",
        n,
    )


def pair_estimates(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """ΔF of every pair, ½ (W_{i→f} − W_{f→i}), (n,) eV; eq. 11 before the average."""
    pairs: np.ndarray = 0.5 * (np.asarray(forward, dtype=float) - np.asarray(backward, dtype=float))
    return pairs


def eq11(forward: np.ndarray, backward: np.ndarray) -> Estimate:
    """ΔF = ½ (W̄_{i→f} − W̄_{f→i}); eq. 11.

    Smallest variance of all, but biased outside linear response, and the bias does not average
    out: its standard error does not contain it.
    """
    return mean_estimate(pair_estimates(forward, backward), "eq. 11")


def dissipated(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Dissipated energy of every pair, ½ (W_{i→f} + W_{f→i}), (n,) eV; eq. 10."""
    pairs: np.ndarray = 0.5 * (np.asarray(forward, dtype=float) + np.asarray(backward, dtype=float))
    return pairs


# --- BAR ----------------------------------------------------------------------------------------


def solve_bar(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """ΔF of Bennett's equation for many resamples at once; reduced units, (…, n) → (…).

    Σ f(W_F − ΔF) = Σ f(W_R + ΔF), f(x) = 1/(1 + eˣ), as many works forward as backward.  The
    difference of the two sides rises with ΔF: Newton's method inside a shrinking bracket.
    """
    low = np.minimum(forward.min(-1), (-backward).min(-1)) - 1.0
    high = np.maximum(forward.max(-1), (-backward).max(-1)) + 1.0
    x: np.ndarray = 0.5 * (forward.mean(-1) - backward.mean(-1))
    for _ in range(100):
        p = special.expit(x[..., None] - forward)
        q = special.expit(-x[..., None] - backward)
        balance = p.sum(-1) - q.sum(-1)
        slope = (p * (1.0 - p)).sum(-1) + (q * (1.0 - q)).sum(-1)
        low, high = np.where(balance < 0, x, low), np.where(balance < 0, high, x)
        newton = x - balance / np.maximum(slope, 1e-300)
        inside = (newton >= low) & (newton <= high)
        step = np.where(inside, newton, 0.5 * (low + high)) - x
        x = x + step
        if np.all(np.abs(step) < 1e-10):
            break
    return x


def bar(
    forward: np.ndarray, backward: np.ndarray, temperature: float, seed: int = 0
) -> tuple[Estimate, np.ndarray | None]:
    """BAR (Bennett 1976; Crooks 2000) by pymbar, with its asymptotic SE; interval by bootstrap.

    The bootstrap resamples pairs, so that what the two switches of a cycle share stays together.
    Returns the estimate and the bootstrap values (resamples,) eV, None for a single pair.
    """
    t = kT(temperature)
    w_f, w_r = np.asarray(forward, dtype=float) / t, np.asarray(backward, dtype=float) / t
    n = len(w_f)
    with quiet_pymbar(), np.errstate(invalid="ignore"):  # a variance below zero is caught below
        from pymbar.other_estimators import bar as pymbar_bar

        # Started at the solution: pymbar's own search fails on works without scatter, and answers
        # 0 ± 0 where its bracket overflows.
        found = pymbar_bar(w_f, w_r, DeltaF=float(solve_bar(w_f, w_r)), iterated_solution=False)
    value, error = float(found["Delta_f"]) * t, float(found["dDelta_f"]) * t
    if not np.isfinite(value):
        raise AnalysisError(f"BAR did not converge on {n} pairs: look at the works")
    spread = f"not defined for BAR: see the bootstrap over {n} pairs"
    if n < 2:
        none = "not estimated: one value only"
        return Estimate("BAR", value, None, none, None, none, None, none, n), None
    index = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    samples = solve_bar(w_f[index], w_r[index]) * t
    low, high = np.quantile(samples, [0.025, 0.975])
    return (
        Estimate(
            "BAR",
            value,
            error if error > 0 else None,
            f"asymptotic standard error of BAR, {n} + {n} works"
            if error > 0
            else "not estimated: works identical or without overlap",
            None,
            spread,
            (float(low), float(high)),
            f"bootstrap percentiles, {RESAMPLES} resamples of {n} pairs",
            n,
        ),
        samples,
    )


def bar_overlap(
    forward: np.ndarray, backward: np.ndarray, delta_f: float, temperature: float
) -> float:
    """Off-diagonal element of the two-state overlap matrix: 0.5 identical, 0 no overlap."""
    t = kT(temperature)
    p = special.expit(
        np.concatenate([(delta_f - np.asarray(forward)) / t, (delta_f + np.asarray(backward)) / t])
    )
    return float(np.sum(p * (1.0 - p)) / len(np.asarray(forward)))


# --- diagnostics --------------------------------------------------------------------------------


def jarzynski(works: np.ndarray, temperature: float) -> float:
    """−kT ln⟨exp(−W/kT)⟩ in eV, along the direction of the works; a diagnostic only."""
    t = kT(temperature)
    works = np.asarray(works, dtype=float)
    return float(-t * (special.logsumexp(-works / t) - np.log(len(works))))


def cumulant(works: np.ndarray, temperature: float) -> float | None:
    """W̄ − σ²/2kT in eV; a diagnostic only.  None for one work."""
    if len(works) < 2:
        return None
    return float(np.mean(works) - np.var(works, ddof=1) / (2.0 * kT(temperature)))


def variance_p(forward: np.ndarray, backward: np.ndarray) -> float | None:
    """Two-sided p of the F-test that both variances are equal; None below three works each."""
    n, m = len(forward), len(backward)
    if min(n, m) < 3:
        return None
    a, b = np.var(forward, ddof=1), np.var(backward, ddof=1)
    if a == 0.0 or b == 0.0:
        return 1.0 if a == b else 0.0
    one_sided = stats.f.cdf(a / b, n - 1, m - 1)
    return float(2.0 * min(one_sided, 1.0 - one_sided))


def lag1(chains: Sequence[np.ndarray]) -> float | None:
    """Lag-1 autocorrelation of the pairs within each replica's chain of cycles.

    chains: the values of each replica, in order of time.  Deviations are from the mean over all of
    them; neighbours in different replicas do not count.  None below five neighbours.
    """
    values = np.concatenate([np.asarray(c, dtype=float) for c in chains])
    neighbours = sum(len(c) - 1 for c in chains)
    variance = float(np.var(values))
    if neighbours < 5 or variance == 0.0:
        return None
    mean = values.mean()
    products = [np.dot(np.asarray(c)[1:] - mean, np.asarray(c)[:-1] - mean) for c in chains]
    return float(np.sum(products) / neighbours / variance)


# --- all together -------------------------------------------------------------------------------


def _check_works(forward: np.ndarray, backward: np.ndarray) -> None:
    if len(forward) != len(backward) or len(forward) == 0:
        raise AnalysisError(
            f"expected at least one forward/backward pair, got {len(forward)} forward and "
            f"{len(backward)} backward works"
        )
    if not (np.isfinite(forward).all() and np.isfinite(backward).all()):
        raise AnalysisError("a work is not finite")


def analyze_works(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    chains: Sequence[int] | None = None,
) -> WorkAnalysis:
    """All estimates from paired works (n,) eV at *temperature* K.

    chains: how many pairs each replica contributed, in order; by default one chain.  Raises
    AnalysisError for works that are not paired or not finite.
    """
    forward, backward = np.asarray(forward, dtype=float), np.asarray(backward, dtype=float)
    _check_works(forward, backward)
    n, t = len(forward), kT(temperature)
    simple = eq11(forward, backward)
    bennett, samples = bar(forward, backward, temperature)
    bootstrap = None if samples is None else float(samples.std(ddof=1))
    loss = mean_estimate(dissipated(forward, backward), "eq. 10")
    dissipation = Dissipation(
        mean=loss,
        forward=float(forward.mean() - bennett.value),
        backward=float(backward.mean() + bennett.value),
        mean_kT=loss.value / t,
        hysteresis=float(forward.mean() + backward.mean()),
    )
    lengths = [n] if chains is None else list(chains)
    pairs = np.split(pair_estimates(forward, backward), np.cumsum(lengths)[:-1])
    r, opposite = lag1(pairs), cumulant(backward, temperature)
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
        bootstrap,
        dissipation,
        diagnostics,
        tuple(_warnings(n, simple, bennett, dissipation, diagnostics)),
    )


def _warnings(
    n: int, simple: Estimate, bennett: Estimate, loss: Dissipation, d: Diagnostics
) -> Iterator[str]:
    if n < FEW_PAIRS:
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        yield f"exploratory: {pairs}, and below {FEW_PAIRS} every error is itself uncertain"
    if loss.mean_kT > LARGE_DISSIPATION:
        yield (
            f"mean dissipation is {loss.mean_kT:.1f} kT, above {LARGE_DISSIPATION:g} kT: eq. 11 is "
            "biased by more than its error shows; switch more slowly"
        )
    if loss.mean.value < 0 and (loss.mean.se is None or loss.mean.value < -2 * loss.mean.se):
        yield (
            f"mean dissipation is negative ({1e3 * loss.mean.value:.2f} meV), which the second law "
            "forbids: too few pairs, or the holds did not reach equilibrium"
        )
    gap = abs(simple.value - bennett.value)
    if simple.se is not None and gap > simple.se:
        yield (
            f"eq. 11 and BAR differ by {1e3 * gap:.2f} meV, more than the standard error of eq. 11 "
            f"({1e3 * simple.se:.2f} meV)"
        )
    if d.variance_p is not None and d.variance_p < VARIANCE_TEST:
        sds = f"{1e3 * (d.sd_forward or 0.0):.2f} and {1e3 * (d.sd_backward or 0.0):.2f} meV"
        yield (
            f"forward and backward works scatter differently (SD {sds}, F-test p = "
            f"{d.variance_p:.1g}): not in linear response"
        )
    if d.overlap < POOR_OVERLAP:
        yield (
            f"forward and backward works hardly overlap ({d.overlap:.1g} of at most 0.5): BAR and "
            "its error cannot be trusted"
        )
    if d.correlated:
        yield (
            f"chained cycles are correlated (lag-1 autocorrelation {d.lag1:.2f}): standard errors "
            "over pairs and BAR's are too small; hold longer between switches"
        )
