"""Runs at fixed λ: ⟨∂H/∂λ⟩ with its equilibration and correlation, and TI over several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import AnalysisError
from ..inputs import RunInput
from .estimators import Estimate
from .quiet import quiet_pymbar
from .readers import read_gradients


@dataclass(frozen=True)
class Window:
    """One equilibrium run at fixed λ."""

    folder: Path
    lam: float
    temperature: float  # K
    time: np.ndarray  # (n,) ps
    gradient: np.ndarray  # (n,) eV, ∂H/∂λ, mean over beads
    equilibration: int  # rows left out at the start
    inefficiency: float  # rows per independent sample, >= 1
    mean: Estimate  # of the rows after equilibration

    @property
    def equilibrated(self) -> np.ndarray:
        """Rows after equilibration, (m,) eV."""
        return self.gradient[self.equilibration :]


def equilibrium_mean(gradient: np.ndarray) -> tuple[int, float, Estimate]:
    """Rows to leave out, statistical inefficiency g, and mean with SE = SD √(g/n).

    Equilibration is where the number of independent samples is largest (Chodera 2016); g is the
    integrated correlation of what remains; both by pymbar.
    """
    gradient = np.asarray(gradient, dtype=float)
    n = len(gradient)
    start, g = 0, 1.0
    if n >= 10 and np.ptp(gradient) > 0.0:
        with quiet_pymbar():
            from pymbar import timeseries

            start, _, _ = timeseries.detect_equilibration(gradient, nskip=max(1, n // 50))
            start = int(start) if n - start >= 10 else 0
            if np.ptp(gradient[start:]) > 0.0:
                g = float(max(1.0, timeseries.statistical_inefficiency(gradient[start:])))
    rest = gradient[start:]
    samples = int(len(rest) / g)
    value = float(rest.mean())
    if samples < 2:
        none = f"not estimated: {len(rest)} rows hold {samples} independent sample"
        return start, g, Estimate("mean", value, None, none, None, none, None, none, samples)
    sd = float(rest.std(ddof=1))
    se = float(sd * np.sqrt(g / len(rest)))
    return (
        start,
        g,
        Estimate(
            "mean",
            value,
            se,
            f"standard error over {len(rest)} rows, {samples} of them independent",
            sd,
            f"standard deviation of {len(rest)} rows",
            (value - 1.96 * se, value + 1.96 * se),
            "normal",
            samples,
        ),
    )


def fixed_window(run: RunInput) -> Window:
    """Read and average a fixed-λ run.  Raises AnalysisError if the input has a schedule."""
    if run.schedule is not None:
        raise AnalysisError(f"{run.path} has a schedule: it is a switching run")
    if run.temperature is None:
        raise AnalysisError(f"{run.path}: <ensemble> names no <temperature>")
    series = read_gradients(run)
    start, g, mean = equilibrium_mean(series.mean)
    return Window(
        folder=run.folder,
        lam=run.parameters.lam,
        temperature=run.temperature,
        time=series.steps * ((run.timestep or 0.0) * 1e-3),
        gradient=series.mean,
        equilibration=start,
        inefficiency=g,
        mean=mean,
    )


def integrate(windows: Sequence[Window]) -> Estimate:
    """ΔF = ∫₀¹ dλ ⟨∂H/∂λ⟩_λ by the trapezoidal rule, eV; eq. 8.

    Several windows at one λ are averaged.  The SE does not contain the error of the rule.  Raises
    AnalysisError unless λ = 0 and 1 are both there.
    """
    lams = sorted({w.lam for w in windows})
    if len(lams) < 2 or lams[0] != 0.0 or lams[-1] != 1.0:
        raise AnalysisError(f"thermodynamic integration needs λ = 0 and 1, got {lams}")
    groups = [[w.mean for w in windows if w.lam == lam] for lam in lams]
    means = np.array([np.mean([m.value for m in group]) for group in groups])
    d = np.diff(lams)
    weights = 0.5 * (np.concatenate([[0.0], d]) + np.concatenate([d, [0.0]]))
    value = float(weights @ means)
    kind = f"propagated over {len(lams)} values of λ; without the error of the trapezoidal rule"
    if any(m.se is None for group in groups for m in group):
        none = "not estimated: a window has no error"
        return Estimate("TI", value, None, none, None, none, None, none, len(lams))
    errors = [np.sqrt(np.sum([m.se**2 for m in group])) / len(group) for group in groups]
    se = float(np.sqrt(np.sum((weights * errors) ** 2)))
    return Estimate(
        "TI", value, se, kind, None, "not defined for TI", (value - 1.96 * se, value + 1.96 * se),
        "normal", len(lams),
    )  # fmt: skip
