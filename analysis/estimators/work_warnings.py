"""What to warn of after switches: works that do not belong together, or not to their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import special

from ...units import kT
from .diagnostics import Diagnostics, Dissipation, linear_response_p
from .estimate import Estimate
from .exploded import exploded
from .parts import REPLICAS, by_block, replicas_differ

FEW_PAIRS = 10
LARGE_DISSIPATION = 2.0  # kT
TOO_LARGE_DISSIPATION = 4.0  # kT, beyond which BAR's error is too small as well
POOR_OVERLAP = 0.03  # of at most 0.5; Klimovich, Shirts, Mobley 2015
VARIANCE_TEST = 0.01  # p below which forward and backward variances are called different
BIAS_TEST = 0.02  # p below which eq. 11 is called biased
LESS_SCATTER = 0.02  # p below which works scatter too little for their hysteresis
MORE_SCATTER = 0.01  # and too much
REPLICA_TEST = 0.01  # p below which replicas are called different


def odd_switches(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    lengths: Sequence[int],
    replicas: Sequence[str] | None,
    bennett: Estimate,
    without: Callable[[np.ndarray], Estimate],
) -> Iterator[str]:
    """Works that are far from all others, and what BAR is without them.

    without: BAR of the pairs (n,) that are kept.
    """
    odd = exploded(forward, backward, temperature, lengths)
    if not odd:
        return
    kept = np.ones(len(forward), dtype=bool)
    kept[[x.pair for x in odd]] = False
    rest = without(kept)
    for x in odd[:3]:
        yield (
            f"the work of {x.named(replicas)}, is {x.work:.4g} eV where the others are about "
            f"{x.median:.4g} eV: that switch broke down, or found another state; look at it"
        )
    se = "" if rest.se is None else f" ± {1e3 * rest.se:.2f}"
    yield (
        f"with {'its pair' if len(odd) == 1 else f'the pairs of these {len(odd)} switches'}, as "
        f"stated, BAR is {1e3 * bennett.value:.2f} meV, without {1e3 * rest.value:.2f}{se} meV, "
        f"before corrections; eq. 11 cannot be used with {'it' if len(odd) == 1 else 'them'}"
    )


def work_warnings(
    forward: np.ndarray,
    backward: np.ndarray,
    temperature: float,
    lengths: Sequence[int],
    bennett: Estimate,
    loss: Dissipation,
    d: Diagnostics,
) -> Iterator[str]:
    """Of works (n,) eV of chained *lengths*, and of eq. 11 and BAR from them."""
    n = len(forward)
    if n < FEW_PAIRS:
        pairs = "1 pair" if n == 1 else f"{n} pairs"
        yield f"exploratory: {pairs}, and below {FEW_PAIRS} every error is itself uncertain"
    if loss.mean_kT > LARGE_DISSIPATION:
        yield (
            f"mean dissipation is {loss.mean_kT:.1f} kT, above {LARGE_DISSIPATION:g} kT: eq. 11 is "
            "biased by more than its error shows; switch more slowly"
        )
    if loss.mean_kT > TOO_LARGE_DISSIPATION:
        yield (
            f"mean dissipation above {TOO_LARGE_DISSIPATION:g} kT: BAR rests on few of its works, "
            "and its error is too small as well"
        )
    if loss.mean.ci95 is not None and loss.mean.ci95[1] < 0.0:
        yield (
            f"mean dissipation is negative ({1e3 * loss.mean.value:.2f} meV), which the second law "
            "forbids: too few pairs, or the holds did not reach equilibrium"
        )
    gap, p = biased(forward, backward, bennett.value, temperature)
    if p < BIAS_TEST:
        yield (
            f"eq. 11 and BAR differ by {1e3 * gap:+.2f} meV (p = {p:.1g}): eq. 11 is biased, which "
            "its error does not contain"
        )
    if d.variance_p is not None and d.variance_p < VARIANCE_TEST:
        sds = f"{1e3 * (d.sd_forward or 0.0):.2f} and {1e3 * (d.sd_backward or 0.0):.2f} meV"
        yield (
            f"forward and backward works scatter differently (SD {sds}, F-test p = "
            f"{d.variance_p:.1g}): not in linear response"
        )
    yield from _scatter_and_hysteresis(forward, backward, temperature, loss)
    if d.overlap < POOR_OVERLAP:
        yield (
            f"forward and backward works hardly overlap ({d.overlap:.1g} of at most 0.5): BAR and "
            "its error cannot be trusted"
        )
    chained = len(lengths) < REPLICAS
    if d.correlated:
        yield (
            f"chained cycles are correlated (lag-1 autocorrelation {d.lag1:.2f}): hold longer "
            "between switches; "
            + ("the stated errors may be too small" if chained else "the error over replicas holds")
        )
    different = replicas_differ(0.5 * (forward - backward), lengths, by_block(lengths))
    if different < REPLICA_TEST:
        yield (
            f"replicas differ by more than their cycles allow (F-test p = {different:.1g}): the "
            "error over replicas is stated; their starts may not be equilibrated"
        )


def biased(
    forward: np.ndarray, backward: np.ndarray, delta_f: float, temperature: float
) -> tuple[float, float]:
    """Eq. 11 minus BAR (eV), and its p (t-test): by how much every pair moves BAR's *delta_f*
    (eV), from Bennett's equation, against its own value in eq. 11."""
    t, n = kT(temperature), len(forward)
    gap = float(0.5 * (forward - backward).mean() - delta_f)
    p = special.expit((delta_f - forward) / t)
    q = special.expit((-delta_f - backward) / t)
    slope = float(np.sum(p * (1.0 - p)) + np.sum(q * (1.0 - q)))
    if n < 3 or slope == 0.0:
        return gap, 1.0
    moves = 0.5 * (forward - backward) - n * t * (q - p) / slope
    se = float(moves.std(ddof=1) / np.sqrt(n))
    return gap, 1.0 if se == 0.0 else float(2.0 * special.stdtr(n - 1, -abs(gap) / se))


def _scatter_and_hysteresis(
    forward: np.ndarray, backward: np.ndarray, temperature: float, loss: Dissipation
) -> Iterator[str]:
    found = linear_response_p(forward, backward, temperature)
    if found is None or min(found[0] / LESS_SCATTER, found[1] / MORE_SCATTER) >= 1.0:
        return
    scatter = 0.25 * (np.var(forward, ddof=1) + np.var(backward, ddof=1)) / kT(temperature)
    why = "replicas or cycles differ, or the switches are not in linear response"
    if found[0] < LESS_SCATTER:
        why = "the starts are not equilibrated, or there are too few pairs"
    yield (
        "scatter and hysteresis disagree: "
        f"the works dissipate {1e3 * loss.mean.value:.2f} meV and "
        f"scatter as if they dissipated {1e3 * scatter:.2f} meV (σ² = 2 kT W): {why}"
    )
