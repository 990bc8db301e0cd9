"""What i-PI's own discrete dynamics of the driven oscillator gives on average, exactly.

The steps of the server and of i-PI's OBABO integrator are linear in (x, π), so averages need no
sampling: the covariance is propagated through the very same steps, time-step error included.  One
degree of freedom on a spring k(λ) of mass m(λ); step j → j+1 after λ(j+1), m(j+1) have been set:

    p → p √(m_{j+1}/m_j)                           server.rescale_momenta: π is untouched
    O   π → c π + √(kT (1 − c²)) ξ                 c = exp(−Δt/2τ)
    B   π → π − ½ Δt k_j x / √m_{j+1}              the cached force still belongs to λ(j)
    A   x → x + Δt π / √m_{j+1}
    B   π → π − ½ Δt k_{j+1} x / √m_{j+1}
    O   as above

| symbol          | paper         | here                                              |
|-----------------|---------------|---------------------------------------------------|
| π = p/√m        |               | second component of the state, eV^½               |
| W = Σ a_j x_j²  | eq. 9         | ``weights`` a_j, ½ (k_f − k_i) ½ (λ_{j+1} − λ_{j−1}) |
| ⟨ΔF⟩ − ΔF       | eq. 11's bias | ``Works.eq11_bias``                               |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alchemdriver import units
from alchemdriver.contract.schedule import Schedule

MASS_UNIT = units.DALTON_ANGSTROM2_PER_FS2_EV  # eV fs²/Å² in one u


@dataclass(frozen=True)
class DrivenOscillator:
    """One degree of freedom; tau None means constant energy (no O)."""

    schedule: Schedule
    timestep: float  # fs
    tau: float | None  # fs, friction 1/τ
    k: tuple[float, float]  # eV/Å^2, at λ = 0 and 1
    m: tuple[float, float]  # u
    temperature: float = 300.0  # K
    rescale: bool = True  # p → p √(m'/m); False: momenta left alone, the negative control

    @property
    def kT(self) -> float:
        return units.KB_EV * self.temperature

    @property
    def delta_f(self) -> float:
        """Configurational ΔF = ½ kT ln(k_f/k_i), eV."""
        return 0.5 * self.kT * float(np.log(self.k[1] / self.k[0]))

    @property
    def lam(self) -> np.ndarray:
        """λ of every step of the run, (steps+1,)."""
        return np.array([self.schedule.at(j) for j in range(self.schedule.total_steps + 1)])

    @property
    def springs(self) -> np.ndarray:
        """k(λ) of every step, (steps+1,) eV/Å^2."""
        return self.k[0] + (self.k[1] - self.k[0]) * self.lam

    def parts(self):
        """(masses, O, BAB) of every step, 2×2 matrices; and the variance that O adds to π."""
        lam, h, k = self.lam, self.timestep, self.springs
        root = np.sqrt(((1.0 - lam) * self.m[0] + lam * self.m[1]) * MASS_UNIT)
        c = 1.0 if self.tau is None else np.exp(-0.5 * h / self.tau)
        o = np.diag([1.0, c])
        for j in range(len(lam) - 1):
            r = root[j + 1]
            masses = np.diag([1.0, 1.0 if self.rescale else root[j] / r])
            opening = np.array([[1.0, 0.0], [-0.5 * h * k[j] / r, 1.0]])
            drift = np.array([[1.0, h / r], [0.0, 1.0]])
            closing = np.array([[1.0, 0.0], [-0.5 * h * k[j + 1] / r, 1.0]])
            yield masses, o, closing @ drift @ opening, self.kT * (1.0 - c * c)

    def steps(self):
        """(A, Q) of every step: (x, π) → A (x, π) + noise of covariance Q."""
        for masses, o, verlet, variance in self.parts():
            noise, after = np.diag([0.0, variance]), o @ verlet
            yield after @ o @ masses, after @ noise @ after.T + noise

    def response(self) -> np.ndarray:
        """x_j / π_0 without noise, from x_0 = 0, (steps+1,) Å eV^-½."""
        state, out = np.array([0.0, 1.0]), [0.0]
        for a, _ in self.steps():
            state = a @ state
            out.append(state[0])
        return np.array(out)

    def moments(self) -> np.ndarray:
        """⟨(x, π)(x, π)ᵀ⟩ at every step, (steps+1, 2, 2), from x = 0 and thermal momenta."""
        cov, out = np.diag([0.0, self.kT]), [np.diag([0.0, self.kT])]
        for a, q in self.steps():
            cov = a @ cov @ a.T + q
            out.append(cov)
        return np.array(out)

    def first_law(self) -> np.ndarray:
        """⟨conserved − work⟩ at every step, (steps+1,) eV: zero but for the time step's error.

        What O and, without rescaling, nothing else exchanges is heat; BAB and the change of mass
        change the energy, of which i-PI's conserved quantity keeps account.
        """
        k, dk, out = self.springs, np.diff(self.springs), [0.0]
        moments = self.moments()
        for j, (masses, o, verlet, variance) in enumerate(self.parts()):
            begin = masses @ moments[j] @ masses.T
            before = o @ begin @ o.T + np.diag([0.0, variance])
            after = verlet @ before @ verlet.T
            energy = 0.5 * (begin[1, 1] - moments[j][1, 1])  # of the change of mass
            energy += 0.5 * (after[1, 1] + k[j + 1] * after[0, 0])
            energy -= 0.5 * (before[1, 1] + k[j] * before[0, 0])
            work = 0.25 * (moments[j][0, 0] + after[0, 0]) * dk[j]
            out.append(out[-1] + energy - work)
        return np.array(out)

    def weights(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(steps, a) of each switch, forward and backward in turn: W = Σ a x², eq. 9."""
        lam, out = self.lam, []
        for segment in self.schedule.segments():
            if segment.kind in ("forward", "backward"):
                at = np.arange(segment.start, segment.stop + 1)
                d = np.diff(lam[at])
                a = 0.5 * (np.append(d, 0.0) + np.append(0.0, d))
                out.append((at, 0.5 * (self.k[1] - self.k[0]) * a))
        return out

    def works(self) -> Works:
        """Exact moments of all works of the run."""
        switches = self.weights()
        where = np.concatenate([at for at, _ in switches])  # times at which x does work
        n = len(where)
        cov_x = np.empty((n, n))  # ⟨x_i x_j⟩ of these times
        seen = np.zeros((2, n))  # ⟨(x, π)_now x_i⟩ of times passed
        moments = self.moments()
        rows: dict[int, list[int]] = {}
        for row, at in enumerate(where):
            rows.setdefault(int(at), []).append(row)
        passed = 0
        steps = [None, *self.steps()]
        for j, moment in enumerate(moments):
            if j:
                seen[:, :passed] = steps[j][0] @ seen[:, :passed]
            for row in rows.get(j, ()):
                seen[:, row] = moment[:, 0]
                passed = row + 1
                cov_x[row, :passed] = cov_x[:passed, row] = seen[0, :passed]
        spread = np.zeros((len(switches), n))  # [switch, time]
        start = 0
        for s, (at, a) in enumerate(switches):
            spread[s, start : start + len(at)] = a
            start += len(at)
        log_z = [
            np.linalg.slogdet(np.eye(len(at)) + 2.0 / self.kT * a[:, None] * block)[1]
            for (at, a), block in zip(switches, _blocks(cov_x, switches), strict=True)
        ]
        return Works(
            delta_f=self.delta_f,
            kT=self.kT,
            mean=spread @ np.diag(cov_x),
            covariance=2.0 * spread @ cov_x**2 @ spread.T,
            jarzynski=0.5 * self.kT * np.array(log_z),
        )


def _blocks(cov: np.ndarray, switches) -> list[np.ndarray]:
    ends = np.cumsum([len(at) for at, _ in switches])
    return [
        cov[e - len(at) : e, e - len(at) : e] for e, (at, _) in zip(ends, switches, strict=True)
    ]


@dataclass(frozen=True)
class Works:
    """Exact averages of the works of one run, per degree of freedom; forward, backward, …, in eV.

    Independent degrees of freedom add: means, covariances and ``jarzynski`` alike.
    """

    delta_f: float
    kT: float
    mean: np.ndarray  # (2 cycles,)
    covariance: np.ndarray  # (2 cycles, 2 cycles) eV²
    jarzynski: np.ndarray  # (2 cycles,) −kT ln⟨exp(−W/kT)⟩ of infinitely many works

    @property
    def forward(self) -> float:
        """Mean of all forward works."""
        return float(self.mean[0::2].mean())

    @property
    def backward(self) -> float:
        return float(self.mean[1::2].mean())

    @property
    def eq11(self) -> float:
        """Mean of eq. 11."""
        return 0.5 * (self.forward - self.backward)

    @property
    def eq11_bias(self) -> float:
        return self.eq11 - self.delta_f

    @property
    def dissipation(self) -> float:
        """Mean of eq. 10."""
        return 0.5 * (self.forward + self.backward)

    def se(self, forward: float, backward: float, runs: int, dof: int) -> float:
        """Standard error of Σ_dof (forward W̄_F + backward W̄_R) over *runs* runs, eV."""
        cycles = len(self.mean) // 2
        weights = np.tile([forward, backward], cycles) / cycles
        return float(np.sqrt(dof * weights @ self.covariance @ weights / runs))
