"""The driven Langevin oscillator, solved exactly: mean work from its moment equations.

dx = p/m dt,  dp = −k(λ(t)) x dt − γ p dt + (2 m γ kT)^½ dW,  k(λ) = k_i + λ (k_f − k_i).

| symbol  | here           |
|---------|----------------|
| ⟨x²⟩    | ``y[0]`` Å²    |
| ⟨xp⟩    | ``y[1]``       |
| ⟨p²⟩    | ``y[2]``       |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.integrate import solve_ivp

from alchemdriver import units
from alchemdriver.contract.schedule import linear, poly9

COPPER = 63.546  # u


@dataclass(frozen=True)
class Oscillator:
    """One degree of freedom."""

    k_initial: float = 2.0  # eV/Å^2
    k_final: float = 6.0  # eV/Å^2
    mass: float = COPPER  # u
    temperature: float = 300.0  # K
    friction: float = 0.01  # 1/fs

    @property
    def kT(self) -> float:
        return units.KB_EV * self.temperature

    @property
    def delta_f(self) -> float:
        """½ kT ln(k_f/k_i), eV."""
        return 0.5 * self.kT * np.log(self.k_final / self.k_initial)

    def gradient(self, times: np.ndarray, lam: Callable[[float], float]) -> np.ndarray:
        """⟨∂H/∂λ⟩ = ½ (k_f − k_i) ⟨x²⟩ in eV at *times* (fs), from equilibrium at λ(times[0])."""
        m = self.mass * units.DALTON_ANGSTROM2_PER_FS2_EV  # eV fs²/Å²
        kt, gamma = self.kT, self.friction

        def k(t: float) -> float:
            return self.k_initial + (self.k_final - self.k_initial) * lam(t)

        def rates(t, y):
            xx, xp, pp = y
            return [
                2.0 * xp / m,
                pp / m - k(t) * xx - gamma * xp,
                -2.0 * k(t) * xp - 2.0 * gamma * pp + 2.0 * m * gamma * kt,
            ]

        start = [kt / k(times[0]), 0.0, m * kt]
        solution = solve_ivp(
            rates,
            (times[0], times[-1]),
            start,
            t_eval=times,
            method="DOP853",
            rtol=1e-9,
            atol=[1e-13, 1e-12, 1e-12],
            max_step=20.0,
        )
        assert solution.success
        return 0.5 * (self.k_final - self.k_initial) * solution.y[0]


SHAPES = {"poly9": poly9, "linear": linear}


def switch(oscillator: Oscillator, shape: str, duration: float, steps: int, *, backward=False):
    """λ (steps+1,) and ⟨∂H/∂λ⟩ (steps+1,) eV along one switch of *duration* fs."""
    times = np.linspace(0.0, duration, steps + 1)
    ramp = SHAPES[shape]

    def lam(t: float) -> float:
        tau = min(1.0, max(0.0, t / duration))
        return ramp(1.0 - tau) if backward else ramp(tau)

    return np.array([lam(t) for t in times]), oscillator.gradient(times, lam)
