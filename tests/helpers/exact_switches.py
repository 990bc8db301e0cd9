"""Works of a harmonic crystal whose dynamics is sampled by its exact propagator.

Einstein crystal → :mod:`exact_crystal`, centre of mass held.  i-PI's OBABO steps are linear in
mass-weighted displacements q and momenta π, so a switch is a chain of matrix products with Gaussian
noise, and a hold of any length is one of them.  No integrator error but the time step's own, which
is known: in the slow limit works are ½ kT ln det D(1 − h²D/4)^−1.

| symbol   | here                                                                |
|----------|---------------------------------------------------------------------|
| D(λ)     | M^−½ [(1 − λ) K + λ Φ] M^−½ without the centre of mass, (n, n) fs^−2 |
| h, c     | time step, e^(−h/2τ)                                                |
| g        | ∂H/∂λ = ½ qᵀ (D₁ − D₀) q                                            |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alchemdriver import units
from alchemdriver.contract.schedule import SHAPES, Schedule

from . import exact_crystal as ec

MASS_UNIT = units.DALTON_ANGSTROM2_PER_FS2_EV  # eV fs²/Å² in one u


@dataclass(frozen=True)
class ExactSwitches:
    """A calculation; one cycle is hold, switch, hold, switch back."""

    schedule: Schedule
    repeat: int = 2  # of the crystal's cell of two atoms
    temperature: float = 300.0  # K
    timestep: float = 4.0  # fs
    tau: float = 100.0  # fs, of the thermostat
    softness: float = 1.0  # by which the Einstein crystal's springs are multiplied

    @property
    def kT(self) -> float:
        return units.KB_EV * self.temperature

    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """D at λ = 0 and 1, (n, n) fs^−2."""
        crystal = ec.crystal(repeat=self.repeat)
        mass = np.repeat(ec.masses(crystal), 3) * MASS_UNIT
        springs = self.softness * np.repeat(ec.einstein_constants(crystal), 3)
        n = len(crystal)
        centre = np.kron(np.sqrt(ec.masses(crystal))[:, None], np.eye(3))
        basis = np.linalg.svd(centre.T)[2][3:].T if n > 1 else np.eye(3)
        root = np.sqrt(np.outer(mass, mass))
        found = [basis.T @ (k / root) @ basis for k in (np.diag(springs), ec.hessian(crystal))]
        return found[0], found[1]

    @property
    def delta_f(self) -> float:
        """ΔF of slow works of the discrete dynamics, eV; energies from rest."""
        h, logs = self.timestep, []
        for d in self.ends():
            logs.append(np.linalg.slogdet(d)[1])
            logs[-1] -= np.linalg.slogdet(np.eye(len(d)) - 0.25 * h * h * d)[1]
        return float(0.5 * self.kT * (logs[1] - logs[0]))

    def works(self, rng: np.random.Generator, chains: int, cycles: int):
        """Forward and backward works of *chains* independent runs, (chains, cycles) eV each."""
        d0, d1 = self.ends()
        n, h = len(d0), self.timestep
        s, c = self.schedule, np.exp(-0.5 * h / self.tau)
        holds = [_hold(d, h, c, self.kT, s.equilibrate) for d in (d0, d1)]
        q = np.linalg.cholesky(np.linalg.inv(d0 - 0.25 * h * h * d0 @ d0) * self.kT)
        state = np.vstack([q @ rng.normal(size=(n, chains)),
                           np.sqrt(self.kT) * rng.normal(size=(n, chains))])  # fmt: skip
        found = np.empty((2, cycles, chains))
        ramp = np.array([s.ramp(k) for k in range(s.switch + 1)])
        for cycle in range(cycles):
            for way, lam in ((0, ramp), (1, ramp[::-1])):
                a, noise = holds[way]
                state = a @ state + noise @ rng.normal(size=state.shape)
                state, found[way, cycle] = self._switch(state, lam, d0, d1 - d0, c, rng)
        return found[0].T, found[1].T

    def _switch(self, state, lam, d0, change, c, rng):
        n, h = len(d0), self.timestep
        q, p = state[:n], state[n:]
        spread = np.sqrt(self.kT * (1.0 - c * c))
        both = np.sqrt(self.kT * (1.0 - c**4))  # two half steps of the thermostat in one
        base, slope = d0 @ q, change @ q
        g = 0.5 * np.einsum("ik,ik->k", q, slope)
        work = np.zeros(q.shape[1])
        p = c * p + spread * rng.normal(size=p.shape)
        for k in range(len(lam) - 1):
            p = p - 0.5 * h * (base + lam[k] * slope)
            q = q + h * p
            base, slope, before = d0 @ q, change @ q, g
            g = 0.5 * np.einsum("ik,ik->k", q, slope)
            work += 0.5 * (before + g) * (lam[k + 1] - lam[k])
            p = p - 0.5 * h * (base + lam[k + 1] * slope)
            last = k == len(lam) - 2
            p = (c if last else c * c) * p
            p += (spread if last else both) * rng.standard_normal(p.shape, dtype=np.float32)
        return np.vstack([q, p]), work


def _hold(d, h, c, kT, steps):
    """(A, L) of so many steps at one λ: state → A state + L noise."""
    n = len(d)
    one, zero = np.eye(n), np.zeros((n, n))
    o = np.block([[one, zero], [zero, c * one]])
    kick = np.block([[one, zero], [-0.5 * h * d, one]])
    verlet = kick @ np.block([[one, h * one], [zero, one]]) @ kick
    a = o @ verlet @ o
    heat = np.diag(np.r_[np.zeros(n), np.full(n, kT * (1.0 - c * c))])
    noise = o @ verlet @ heat @ verlet.T @ o.T + heat
    # by doubling: what s steps do, and s more
    power, total = np.eye(2 * n), np.zeros((2 * n, 2 * n))
    for bit in bin(steps)[2:] if steps else "":
        total = total + power @ total @ power.T
        power = power @ power
        if bit == "1":
            total = a @ total @ a.T + noise
            power = a @ power
    values, vectors = np.linalg.eigh(0.5 * (total + total.T))
    return power, vectors * np.sqrt(values.clip(0.0))


def example(switch: int = 20, repeat: int = 2, softness: float = 1.0) -> ExactSwitches:
    """About one kT of dissipation in quick switches, whose holds forget."""
    schedule = Schedule(SHAPES["linear"], 100, switch, 1)
    return ExactSwitches(schedule, repeat, timestep=8.0, softness=softness)
