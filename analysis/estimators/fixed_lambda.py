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
from .estimate import Estimate
from .holds import drifts, halves_drift
from .series import equilibration, mean_of

LEFT_OUT = 0.2  # of the rows as equilibration; the rest may still relax


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
    gradient_drift: float | None = None  # eV, ∂H/∂λ, as the volume; None: too few rows
    gradient_drift_se: float | None = None  # eV

    @property
    def equilibrated(self) -> np.ndarray:
        """Rows after equilibration, (m,) eV."""
        return self.gradient[self.equilibration :]

    @property
    def drifts(self) -> bool:
        """Whether the volume still moves after what is left out as equilibration."""
        return drifts(self.volume_drift, self.volume_drift_se)

    @property
    def relaxes(self) -> bool:
        """Whether ∂H/∂λ still moves after what is left out, or much had to be left out.

        A relaxation that takes a third of the run biases the mean by 1.5 times the number of errors
        by which the halves differ, so this is not a proof that there is none.
        """
        left_out = self.equilibration / max(len(self.gradient), 1)
        return left_out > LEFT_OUT or drifts(self.gradient_drift, self.gradient_drift_se)

    @property
    def complete(self) -> bool:
        return self.last_step >= self.total_steps


def equilibrium_mean(
    gradient: np.ndarray, slowest: float = 0.0, per_row: float = 1.0, unit: str = "rows"
) -> tuple[int, float, Estimate]:
    """Rows to leave out, statistical inefficiency g, and the mean of what remains with its error.

    slowest: rows of a relaxation time known from elsewhere; per_row: *unit* between rows.
    """
    gradient = np.asarray(gradient, dtype=float)
    start = equilibration(gradient)
    found, mean = mean_of(gradient[start:], slowest, per_row, unit)
    return start, 1.0 if found is None else found.inefficiency, mean


def fixed_window(run: RunInput) -> Window:
    """Read and average a fixed-λ run.  Raises AnalysisError if the input has a schedule."""
    if run.schedule is not None:
        raise AnalysisError(f"{run.path} has a schedule: it is a switching run")
    if run.temperature is None:
        raise AnalysisError(f"{run.path}: <ensemble> names no <temperature>")
    series = read_gradients(run)
    per_row = (run.timestep or 0.0) * 1e-3 * float(np.diff(series.steps[:2]).sum())  # ps
    slowest = run.relaxation_fs * 1e-3 / per_row if per_row > 0.0 else 0.0
    start, g, mean = equilibrium_mean(series.mean, slowest, per_row, "ps")
    volume = volumes(run)
    if volume is not None:
        steps, values = volume
        volume = values[steps >= series.steps[start]]
    expansion, expansion_se = halves_drift(volume)
    relaxing, relaxing_se = halves_drift(series.mean[start:])
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
        volume_drift=expansion,
        volume_drift_se=expansion_se,
        last_step=int(series.steps[-1]),
        total_steps=run.total_steps,
        gradient_drift=relaxing,
        gradient_drift_se=relaxing_se,
    )
