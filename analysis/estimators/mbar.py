"""MBAR (Shirts and Chodera 2008) over equilibrium windows, by alchemlyb and pymbar.

| symbol      | here                                                                   |
|-------------|------------------------------------------------------------------------|
| u_k(x_n)    | (H(x_n, λ_k) + P V_n)/kT, ``u_nk_frame``                               |
| f_k         | F(λ_k)/kT, ``Mbar.free_energies`` in eV                                |
| O_ij        | overlap matrix: chance that a configuration of λ_i was sampled at λ_j  |
| 1/Σ_n W_nk² | effective number of samples that describe λ_k (Kish)                   |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from scipy.special import logsumexp

from ...contract.run_input import RunInput
from ...contract.stored import Shape
from ...errors import AnalysisError
from ...units import kT
from .estimate import ONE_SIGMA, Estimate, add, stated, student, without_error
from .fixed_lambda import Window
from .quiet import quiet_pymbar
from .reduced import Samples, linear_in_lambda, samples, states
from .work_warnings import POOR_OVERLAP

if TYPE_CHECKING:
    import pandas as pd

FEW_SAMPLES = 50
ITERATIONS = 100
RESIDUAL = 1e-4  # of the weights' normalisation, which a solution fulfils to 1e-7


@dataclass(frozen=True)
class Mbar:
    """MBAR over all windows; energies in eV."""

    estimate: Estimate  # F(λ=1) − F(λ=0)
    source: str  # where energies at other λ come from
    lambdas: Annotated[np.ndarray, Shape("K")]  # states, ascending; 0 and 1 are among them
    free_energies: Annotated[np.ndarray, Shape("K")]  # eV, F(λ_k) − F(0)
    errors: Annotated[np.ndarray, Shape("K")] | None  # eV, stated errors; None: not estimated
    samples: Annotated[np.ndarray, Shape("K")]  # independent samples taken there; 0: not run
    effective_samples: Annotated[np.ndarray, Shape("K")]  # that describe the state
    sampled: Annotated[np.ndarray, Shape("S")]  # λ of the rows and columns of overlap
    overlap: Annotated[np.ndarray, Shape("S S")]  # rows sum to 1
    # smaller of the two elements of overlap between neighbours, S − 1 of them
    neighbours: Annotated[np.ndarray, Shape("between")]
    warnings: tuple[str, ...]


def u_nk_frame(parts: Sequence[Samples], lams: Sequence[float], temperature: float) -> pd.DataFrame:
    """Reduced potentials as alchemlyb wants them, in kT: index (time, lambda), one column per λ."""
    import pandas as pd

    beta = 1.0 / kT(temperature)
    frames = []
    for part in sorted(parts, key=lambda p: p.lam):
        index = pd.MultiIndex.from_arrays(
            [part.time, np.full(len(part.time), part.lam)], names=["time", "lambda"]
        )
        u = beta * (part.energies + part.pressure_volume[:, None])
        frames.append(pd.DataFrame(u, columns=list(lams), index=index))
    table = pd.concat(frames)
    table.attrs = {"temperature": temperature, "energy_unit": "kT"}
    return table


def mbar(runs: Sequence[RunInput], windows: Sequence[Window]) -> Mbar:
    """MBAR over *windows* (several at one λ are pooled).

    Raises NotEvaluated or AnalysisError, one line, where it cannot be had.
    """
    lams = states([w.lam for w in windows])
    parts = [samples(run, w, lams) for run, w in zip(runs, windows, strict=True)]
    sampled = np.array(sorted({p.lam for p in parts}))
    if len(sampled) < 2:
        raise AnalysisError("MBAR needs windows at two λ or more")
    temperature = windows[0].temperature
    table = u_nk_frame(parts, lams, temperature)
    # a constant of each sample is free, and keeps total energies from eating digits
    table = table.sub(table.min(axis=1), axis=0)
    table.attrs = {"temperature": temperature, "energy_unit": "kT"}
    counts = np.array([sum(len(p.time) for p in parts if p.lam == lam) for lam in lams])
    with quiet_pymbar(), np.errstate(all="ignore"):
        from alchemlyb.estimators import MBAR

        # Newton's method needs some ten steps from here; without overlap no number is enough
        found = MBAR(maximum_iterations=ITERATIONS, initial_f_k=_guess(windows, lams)).fit(table)
        overlap = np.asarray(found.overlap_matrix)
    t = kT(temperature)
    f = found.delta_f_.to_numpy()[0]
    error = found.d_delta_f_.to_numpy()[0]
    if not (np.isfinite(f).all() and np.isfinite(overlap).all()):
        raise AnalysisError("MBAR did not converge: the windows hardly overlap, run more of them")
    run = counts > 0
    between = overlap[np.ix_(run, run)]
    neighbours = np.minimum(np.diag(between, 1), np.diag(between, -1))
    n, sigma = int(counts.sum()), float(error[-1] * t)
    value = float(f[-1] * t)
    without = [w for w in windows if w.mean.se is None]
    dof = None
    if without:
        why = f"{without[0].folder.name} has no error ({without[0].mean.se_kind})"
        estimate = without_error("MBAR", value, why, n)
    elif not np.isfinite(error).all() or sigma <= 0.0:
        estimate = without_error("MBAR", value, "samples identical or without overlap", n)
    else:
        # as uncertain as the correlation times by which the samples were taken
        _, dof = add([(w.mean.sigma or 0.0) ** 2 for w in windows], [w.mean.dof for w in windows])
        kind = f"asymptotic standard error of MBAR, {n} independent samples"
        estimate = stated("MBAR", value, sigma, dof, kind, n, sd_kind="not defined for MBAR")
    weights = log_weights(table.to_numpy(), f, counts)
    residual = float(np.abs(np.exp(logsumexp(weights[:, run], axis=0)) - 1.0).max())
    effective = np.exp(-logsumexp(2.0 * weights, axis=0))
    warnings = list(_warnings(sampled, neighbours, np.array(lams), counts, effective))
    if residual > RESIDUAL:
        warnings.append(f"MBAR did not converge (residual {residual:.1g}): do not use it")
    linear = all(linear_in_lambda(r) for r in runs)
    return Mbar(
        estimate=estimate,
        source="∂H/∂λ: H is linear in λ" if linear else "configurations evaluated at every λ",
        lambdas=np.array(lams),
        free_energies=f * t,
        errors=None if estimate.se is None else error * t * student(ONE_SIGMA, dof),
        samples=counts,
        effective_samples=effective,
        sampled=sampled,
        overlap=between,
        neighbours=neighbours,
        warnings=tuple(warnings),
    )


def _guess(windows: Sequence[Window], lams: Sequence[float]) -> np.ndarray:
    """F(λ)/kT by the trapezoid over the means of ∂H/∂λ, to start from."""
    at = np.array(sorted({w.lam for w in windows}))
    slope = np.array([np.mean([w.mean.value for w in windows if w.lam == lam]) for lam in at])
    slope = np.interp(lams, at, slope) / kT(windows[0].temperature)
    return np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]) * np.diff(lams))])


def log_weights(u: np.ndarray, f: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """ln W_nk (n, K) for u (n, K) and f (K,) in kT, counts (K,) samples of each state."""
    seen = counts > 0
    mixture = logsumexp(f[seen] - u[:, seen], b=counts[seen], axis=1)  # (n,)
    logarithms: np.ndarray = f - u - mixture[:, None]
    return logarithms


def _warnings(
    sampled: np.ndarray,
    neighbours: np.ndarray,
    lams: np.ndarray,
    counts: np.ndarray,
    effective: np.ndarray,
) -> Iterator[str]:
    for a, b, o in zip(sampled[:-1], sampled[1:], neighbours, strict=True):
        if o < POOR_OVERLAP:
            yield (
                f"windows λ = {a:g} and {b:g} hardly overlap ({o:.1g}, should be above "
                f"{POOR_OVERLAP:g}): MBAR and its error cannot be trusted; add a window between"
            )
    for lam, n, e in zip(lams, counts, effective, strict=True):
        if n == 0 and e < FEW_SAMPLES:
            yield (
                f"MBAR extrapolates to λ = {lam:g}, which was not run, from {e:.1f} effective "
                "samples: its error there is itself uncertain"
            )
