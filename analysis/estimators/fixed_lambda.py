"""Runs at fixed λ: ⟨∂H/∂λ⟩ with its equilibration and correlation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from ...contract.run_input import RunInput
from ...contract.stored import InMemory, no_rows
from ...errors import AnalysisError
from ..files.readers import read_gradients, volumes
from .holds import drifts, volume_drift
from .quiet import quiet_pymbar
from .switching import Estimate


@dataclass(frozen=True)
class Window:
    """One equilibrium run at fixed λ."""

    folder: Path
    lam: float
    temperature: float  # K
    steps: Annotated[np.ndarray, InMemory(no_rows)]  # (n,) MD steps of the rows
    time: Annotated[np.ndarray, InMemory(no_rows)]  # (n,) ps
    gradient: Annotated[np.ndarray, InMemory(no_rows)]  # (n,) eV, ∂H/∂λ, mean over beads
    equilibration: int  # rows left out at the start
    inefficiency: float  # rows per independent sample, >= 1
    mean: Estimate  # of the rows after equilibration
    volume_drift: float | None  # Å^3, second minus first half after equilibration; None: constant
    volume_drift_se: float | None  # Å^3
    last_step: int
    total_steps: int

    @property
    def equilibrated(self) -> np.ndarray:
        """Rows after equilibration, (m,) eV."""
        return self.gradient[self.equilibration :]

    @property
    def drifts(self) -> bool:
        """Whether the volume still moves after what is left out as equilibration."""
        return drifts(self.volume_drift, self.volume_drift_se)

    @property
    def complete(self) -> bool:
        return self.last_step >= self.total_steps


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
    volume = volumes(run)
    if volume is not None:
        steps, values = volume
        volume = values[steps >= series.steps[start]]
    drift, drift_se = volume_drift(volume)
    return Window(
        folder=run.folder,
        lam=run.parameters.lam,
        temperature=run.temperature,
        steps=series.steps,
        time=series.steps * ((run.timestep or 0.0) * 1e-3),
        gradient=series.mean,
        equilibration=start,
        inefficiency=g,
        mean=mean,
        volume_drift=drift,
        volume_drift_se=drift_se,
        last_step=int(series.steps[-1]),
        total_steps=run.total_steps,
    )
