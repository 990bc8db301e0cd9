"""Do stated errors cover?  Data with known answers, and how often the answer lies inside.

Works are in kT, ΔF = 0.  Gaussian works of dissipation W have σ² = 2W; gamma works obey Crooks'
theorem with skewed tails.  Series are stationary Gaussian processes drawn exactly from their
autocorrelation (circulant embedding; Dietrich and Newsam 1997), so that no integrator blurs g.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from alchemdriver.analysis import analyze_works
from alchemdriver.analysis.compare.workflow import combined
from alchemdriver.analysis.corrections.mass_leg import MassLeg, MassPoint, integrated
from alchemdriver.analysis.estimators.estimate import ONE_SIGMA, Estimate, student
from alchemdriver.analysis.estimators.fixed_lambda import Window, equilibrium_mean
from alchemdriver.analysis.estimators.holds import examine, halves_drift
from alchemdriver.analysis.estimators.mbar import mbar
from alchemdriver.analysis.estimators.quadrature import integrate
from alchemdriver.analysis.estimators.switching import estimates
from alchemdriver.contract.nodes import gauss_legendre
from alchemdriver.units import kT

T = 300.0
KT = kT(T)
Works = tuple[np.ndarray, np.ndarray]  # forward, backward, (repetitions, n), kT


# --- works --------------------------------------------------------------------------------------


def gaussian(rng: np.random.Generator, shape: tuple[int, int], loss: float, rho=0.0) -> Works:
    """rho: correlation of the two works of a pair."""
    first, second = rng.normal(size=(2, *shape))
    second = rho * first + np.sqrt(1.0 - rho**2) * second
    return loss + np.sqrt(2.0 * loss) * first, loss + np.sqrt(2.0 * loss) * second


def gamma(rng: np.random.Generator, shape: tuple[int, int], loss: float, k=4.0) -> Works:
    """W_F = Γ(k, θ) − d and W_R = d − Γ(k, θ/(1 + θ)), d = k ln(1 + θ): the second density is the
    first times e^−W.  Mean dissipation ½ k θ²/(1 + θ)."""
    a = 2.0 * loss / k
    theta = 0.5 * (a + np.sqrt(a * a + 4.0 * a))
    d = k * np.log1p(theta)
    return rng.gamma(k, theta, shape) - d, d - rng.gamma(k, theta / (1.0 + theta), shape)


def autoregressive(rng, repetitions: int, chains: Sequence[int], loss: float, rho: float) -> Works:
    """Gaussian works, each direction AR(1) along every chain."""
    found = []
    for _ in range(2):
        x = rng.normal(size=(repetitions, sum(chains)))
        start = 0
        for length in chains:
            for k in range(start + 1, start + length):
                x[:, k] = rho * x[:, k - 1] + np.sqrt(1.0 - rho**2) * x[:, k]
            start += length
        found.append(loss + np.sqrt(2.0 * loss) * x)
    return found[0], found[1]


def offset(rng, repetitions: int, chains: Sequence[int], loss: float, memory=1.0) -> Works:
    """Every replica has its own ΔF, as scattered as its pairs; memory < 1: it starts there and
    forgets, cycle by cycle."""
    forward, backward = gaussian(rng, (repetitions, sum(chains)), loss)
    own = np.repeat(rng.normal(size=(repetitions, len(chains))), chains, axis=1)
    age = np.concatenate([np.arange(c) for c in chains])
    own = own * np.sqrt(loss) * memory**age
    return forward + own, backward - own


@dataclass(frozen=True)
class Found:
    """Of one estimator in one case, fractions of the repetitions."""

    told: float  # an error is stated
    one_sigma: float  # of those: |value − truth| ≤ se
    ninety_five: float  # of those: inside ci95
    wrong: float  # of all: stated, outside ci95, and no warning


def judge(found: Sequence[Estimate], truth: float, warned: Sequence[bool] | None = None) -> Found:
    """Of estimates of one *truth*."""
    stated = [(e, k) for k, e in enumerate(found) if e.se is not None]
    one = [abs(e.value - truth) <= e.se for e, _ in stated]
    inside = [e.ci95[0] <= truth <= e.ci95[1] for e, _ in stated]
    wrong = [
        not ok and not (warned is not None and warned[k])
        for (_, k), ok in zip(stated, inside, strict=True)
    ]
    n, m = len(found), max(len(stated), 1)
    return Found(len(stated) / n, sum(one) / m, sum(inside) / m, sum(wrong) / n)


def works_case(works: Works, chains: Sequence[int], looks: int) -> dict[str, object]:
    """Coverage of eq. 11 and BAR over all repetitions, warnings over the first *looks*."""
    forward, backward = works[0] * KT, works[1] * KT
    found = [estimates(f, b, T, chains) for f, b in zip(forward, backward, strict=True)]
    warned = []
    for f, b in zip(forward[:looks], backward[:looks], strict=True):
        said = analyze_works(f, b, T, chains=chains).warnings
        warned.append(any(not w.startswith("exploratory") for w in said))
    return {
        "eq. 11": judge([x[0] for x in found], 0.0),
        "BAR": judge([x[1] for x in found], 0.0),
        "warned": float(np.mean(warned)) if warned else None,
        "says": found[0][1].kind,
    }


def stages_case(rng, repetitions: int, chains: Sequence[int], loss: float) -> dict[str, object]:
    """G_final − G_initial of two stages: their totals' errors added as the workflow does."""
    both = [
        [estimates(f * KT, b * KT, T, chains)[1] for f, b in zip(*w, strict=True)]
        for w in (gaussian(rng, (repetitions, sum(chains)), loss) for _ in range(2))
    ]
    out = []
    for final, initial in zip(*both, strict=True):
        se, half = combined({"f": 1.0, "i": -1.0}, {"f": final, "i": initial})
        value = final.value - initial.value
        out.append(SimpleNamespace(value=value, se=se, ci95=(value - half, value + half)))
    return {"total": judge(out, 0.0)}


# --- series -------------------------------------------------------------------------------------


def stationary(rng, repetitions: int, rows: int, rho: np.ndarray) -> np.ndarray:
    """(repetitions, rows) with autocorrelation rho (2 rows + 1,), mean 0, variance rho[0]."""
    spectrum = np.fft.rfft(np.concatenate([rho, rho[-2:0:-1]])).real.clip(0.0)
    size = 2 * len(rho) - 2
    found = np.empty((repetitions, rows))
    for start in range(0, repetitions, 100):  # of bounded memory
        block = found[start : start + 100]
        white = np.fft.rfft(rng.normal(size=(len(block), size)))
        block[:] = np.fft.irfft(white * np.sqrt(spectrum), n=size)[:, :rows]
    return found


def oscillator_rho(rows: int, period: float, tau: float, step: float) -> np.ndarray:
    """Autocorrelation of x of a Langevin oscillator of friction 1/τ, (2 rows + 1,); times in fs."""
    t = np.arange(2 * rows + 1) * step
    omega = np.sqrt((2.0 * np.pi / period) ** 2 - 0.25 / tau**2)
    return np.exp(-0.5 * t / tau) * (np.cos(omega * t) + 0.5 / tau / omega * np.sin(omega * t))


def energies(rng, repetitions: int, rows: int, periods, tau: float, step: float) -> np.ndarray:
    """½ Σ x² of Langevin oscillators of *periods*, mean 0: correlated as e^(−t/τ) cos² ωt."""
    total = np.zeros((repetitions, rows))
    for period in periods:
        x = stationary(rng, repetitions, rows, oscillator_rho(rows, period, tau, step))
        total += 0.5 * (x * x - 1.0)
    return total


def series_case(
    data: np.ndarray, slowest: float = 0.0, truth: float = 0.0, looks: int | None = None
) -> dict[str, object]:
    """The mean of every row of *data* as a window of it would be: (repetitions, rows)."""
    found, warned = [], []
    for x in data:
        start, _, mean = equilibrium_mean(x, slowest)
        window = _window(0.0, x, start, mean)
        found.append(mean)
        warned.append(window.relaxes)
    return {"mean": judge(found, truth, warned), "warned": float(np.mean(warned))}


def holds_case(data: np.ndarray, cycles: int) -> dict[str, object]:
    """Fractions of runs of *cycles* holds that pass, are called short, or cannot be told."""
    passed = short = untold = 0
    for x in data:
        holds = examine("hold0", np.split(x, cycles), 1e-3)
        one, two = any(h.short for h in holds), any(h.untold for h in holds)
        passed, short, untold = passed + (not one and not two), short + one, untold + two
    n = len(data)
    return {"passed": passed / n, "short": short / n, "cannot be told": untold / n}


def _window(lam: float, x: np.ndarray, start: int, mean: Estimate, g: float = 1.0) -> Window:
    drift, se = halves_drift(x[start:])
    rows = np.arange(len(x))
    return Window(
        Path("w"), lam, T, rows, rows * 1e-3, x, start, g, mean, None, None,
        len(x), len(x), drift, se,
    )  # fmt: skip


def windows_case(rng, repetitions: int, rows: int, rho: float, multistate: bool = True):
    """TI, MBAR and a mass leg over windows of an oscillator, k 1 → 3 with λ, AR(1) in x.

    H is linear in λ, ∂H/∂λ = (k_f − k_i) x²/2; ΔF = ½ kT ln 3 for each of three such oscillators.
    The mass leg's dF/ds is the same series at the nodes of its rule, with a known mean.
    """
    nodes, weights = gauss_legendre(4)
    decay = rho ** np.arange(2 * rows + 1)
    truth = 1.5 * KT * np.log(3.0)
    run = SimpleNamespace(
        path=Path("w"), folder=Path("w"), beads=1, interpolates_masses=False,
        lambda_path=SimpleNamespace(linear=True), constant_pressure=False,
    )  # fmt: skip
    found: dict[str, list[Estimate]] = {"TI": [], "MBAR": [], "mass leg": []}
    exact = 0.0
    for lam, weight in zip(nodes, weights, strict=True):
        exact += weight * 3.0 * KT / (1.0 + 2.0 * lam)
    for _ in range(repetitions):
        windows = []
        for lam in nodes:
            x = stationary(rng, 3, rows, decay)
            gradient = KT / (1.0 + 2.0 * lam) * np.sum(x * x, axis=0)
            start, g, mean = equilibrium_mean(gradient)
            windows.append(_window(float(lam), gradient, start, mean, g))
        found["TI"].append(integrate(windows)[0])
        points = [MassPoint(w.folder, w.lam, w.time, w.gradient, 0, 1.0, w.mean) for w in windows]
        leg = integrated(points, 0.0)
        half = stated_half(leg)
        found["mass leg"].append(
            SimpleNamespace(value=leg.value, se=leg.se, ci95=(leg.value - half, leg.value + half))
        )
        if multistate:
            found["MBAR"].append(mbar([run] * 4, windows).estimate)
    return {
        "TI": judge(found["TI"], exact),
        "mass leg": judge(found["mass leg"], exact),
        **({"MBAR": judge(found["MBAR"], truth)} if multistate else {}),
    }


def stated_half(leg: MassLeg) -> float:
    """Half of the 95 % interval of a leg's stated error, eV; NaN where it has none."""
    if leg.se is None:
        return np.nan
    return leg.se / student(ONE_SIGMA, leg.dof) * student(0.95, leg.dof)


# --- cases --------------------------------------------------------------------------------------

PAIRS, LOSSES = (2, 4, 10, 20, 40), (0.5, 1.0, 2.0, 4.0, 9.0)
Case = tuple[str, str, Callable[[np.random.Generator, int, int], dict[str, object]]]


def _works(make: Callable[[np.random.Generator, int], Works], chains: Sequence[int]):
    return lambda rng, repetitions, looks: works_case(make(rng, repetitions), chains, looks)


def cases() -> list[Case]:
    """(group, name, function of generator, repetitions, looks at warnings)."""
    out: list[Case] = []
    for name, make in (("gaussian", gaussian), ("gamma", gamma)):
        for n in PAIRS:
            for w in LOSSES:
                out.append((name, f"{n} pairs, {w:g} kT", _works(
                    lambda rng, r, make=make, n=n, w=w: make(rng, (r, n), w), [n])))  # fmt: skip
    for chains in ([1] * 10, [2] * 4, [4] * 4, [10] * 4):
        for w in (0.5, 4.0):
            out.append(("replicas", f"{_design(chains)}, clean, {w:g} kT", _works(
                lambda rng, r, c=chains, w=w: gaussian(rng, (r, sum(c)), w), chains)))  # fmt: skip
    for rho in (0.3, 0.6):
        for chains in ([10], [20], [40], [2] * 4, [5] * 4, [10] * 4):
            out.append(("chains", f"{_design(chains)}, AR(1) {rho:g}, 1 kT", _works(
                lambda rng, r, c=chains, rho=rho: autoregressive(rng, r, c, 1.0, rho),
                chains)))  # fmt: skip
    for memory, what in ((1.0, "replica offsets"), (0.5, "starts out of equilibrium")):
        for chains in ([2] * 4, [4] * 4, [10] * 4, [7] * 3, [10] * 2):
            out.append(("replicas", f"{_design(chains)}, {what}, 1 kT", _works(
                lambda rng, r, c=chains, m=memory: offset(rng, r, c, 1.0, m), chains)))  # fmt: skip
    for chains in ([4], [10], [40], [4] * 4):
        out.append(("replicas", f"{_design(chains)}, pairs anticorrelated −0.7, 1 kT", _works(
            lambda rng, r, c=chains: gaussian(rng, (r, sum(c)), 1.0, -0.7), chains)))  # fmt: skip
    for chains in ([4], [1] * 10, [4] * 4):
        out.append(("stages", f"difference of two stages, {_design(chains)}, 1 kT",
            lambda rng, r, looks, c=chains: stages_case(rng, r, c, 1.0)))  # fmt: skip
    return [*out, *_series_cases()]


def _design(chains: Sequence[int]) -> str:
    return f"{len(chains)} × {chains[0]}" if len(chains) > 1 else f"1 × {chains[0]}"


def _series_cases() -> list[Case]:
    def case(draw, **more):
        return lambda rng, r, looks: series_case(draw(rng, r), **more)

    rows, step = 2500, 4.0  # 10 ps
    spectrum = np.linspace(120.0, 400.0, 8)
    t = np.arange(2 * rows + 1)

    def slow(share: float, n_tau: float) -> np.ndarray:
        fast = np.exp(-t * step / 100.0) * np.cos(2.0 * np.pi * t * step / 160.0)
        return share * np.exp(-t * n_tau / rows) + (1.0 - share) * fast

    def relaxing(amplitude: float):
        return lambda rng, r: (
            stationary(rng, r, 2000, 0.9 ** np.arange(4001))
            + (amplitude * np.exp(-np.arange(2000) / 600.0))
        )

    out: list[Case] = []
    for name, periods, tau in (
        ("one frequency (160 fs), τ 200 fs", [160.0] * 8, 200.0),
        ("one frequency (160 fs), τ 1000 fs", [160.0] * 8, 1000.0),
        ("spectrum 120–400 fs, τ 200 fs", spectrum, 200.0),
    ):
        draw = lambda rng, r, p=periods, tau=tau: energies(rng, r, rows, p, tau, step)  # noqa: E731
        out.append(("series", f"{name}, 10 ps", case(draw)))
        if tau > 500.0:
            out.append(("series", f"{name}, 10 ps, τ known", case(draw, slowest=0.5 * tau / step)))
    for name, rho in (
        ("white", np.eye(1, 2 * rows + 1)[0]),
        ("exponential, n/τ 100", np.exp(-t * 100.0 / rows)),
        ("exponential, n/τ 50", np.exp(-t * 50.0 / rows)),
        ("exponential, n/τ 25", np.exp(-t * 25.0 / rows)),
        ("exponential, n/τ 10", np.exp(-t * 10.0 / rows)),
        ("fast oscillation, 9 % slow, n/τ 100", slow(0.09, 100.0)),
        ("fast oscillation, 9 % slow, n/τ 50", slow(0.09, 50.0)),
    ):
        out.append(("series", name, case(lambda rng, r, c=rho: stationary(rng, r, rows, c))))
    for amplitude in (1.0, 2.0, 4.0):
        out.append(("series", f"relaxing by {amplitude:g} SD, 600 of 2000 rows, g 19",
            case(relaxing(amplitude))))  # fmt: skip
    out.append(("series", "5 rows", case(lambda rng, r: rng.normal(size=(r, 5)))))
    for length, cycles in ((1.0, 1), (2.5, 1), (1.0, 4), (2.5, 4), (10.0, 1), (10.0, 4), (60.0, 1)):
        tau = 50.0
        n = int(length * tau)
        c = np.exp(-np.arange(2 * n + 1) / tau)
        out.append(("holds", f"{cycles} × {length:g} correlation times",
            lambda rng, r, looks, n=n, c=c, k=cycles: holds_case(
                np.concatenate(
                    [stationary(rng, r, n, c) for _ in range(k)], axis=1), k
            )))  # fmt: skip
    what = "4 Gauss windows of 1000 rows, AR(1) in x 0.9"
    out.append(
        ("windows", what, lambda rng, r, looks: windows_case(rng, r, 1000, 0.9, multistate=False))
    )
    # MBAR takes a tenth of a second each: a quarter of the repetitions
    out.append(("mbar", what, lambda rng, r, looks: windows_case(rng, r // 4, 1000, 0.9)))
    return out
