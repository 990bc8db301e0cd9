"""Did the run do what its input says?  First law, temperature, pressure, and where the atoms are.

An estimate is about the ensemble that the input names.  None of its errors shows that a run left
it: a time step too long, forces that do not belong to ∂H/∂λ, a crystal that melted.  What i-PI
prints does.  Each check has one threshold, in kT, in units of an error, or of a distance:

| check        | compares                                   | says so beyond                       |
|--------------|--------------------------------------------|--------------------------------------|
| first law    | Δ(conserved) of each switch with its work  | ``SHARE_OF_…`` the stated error      |
| drift        | conserved − work, kT per atom and ps       | ``DRIFT`` and ``DRIFTED``            |
| temperature  | kinetic, mean of the switches, and of each | ``WARMER`` and its error; ``FAR``    |
| pressure     | mean with the barostat's                   | ``SHIFTED`` and its error            |
| displacement | atoms from their places at the start       | ``MELTED``, ``FLEW``                 |

The works of a pair count half each, with opposite signs (eq. 11), so the part of a mismatch that
both directions share (an integrator's drift) leaves ΔF alone: only the rest is held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy import stats

from ...contract.run_input import RunInput
from ...contract.stored import Count, Index, NotNegative
from ...units import BAR_EV_PER_ANGSTROM3, kT
from ..files.readers import PropertySeries, read_conserved
from ..files.sampled import sampled_frames
from .fixed_lambda import Window
from .work import FirstLaw, SwitchingRun, SwitchingWork, first_law

# The stated error of ΔF is what a reader takes for the whole of it: a mismatch of all switches
# together may not be larger.  One run or switch alone may make half of it: a single bad work among
# n makes the scatter from which the error comes, and so never looks larger than the error itself.
SHARE_OF_ALL = 1.0
SHARE_OF_ONE = 0.5
KT_OF_ONE = 0.5  # kT; below, a switch's work still weighs in BAR as it should within a factor e^½
KT_OF_ALL = 0.25  # kT; more than this is wrong however little a few pairs can tell
NEGLIGIBLE = 1e-3  # kT; a mismatch of ΔF that no error concerns itself with
# The scatter of conserved − work at fixed λ is the integrator's own; a mismatch must exceed it.
NOISE = 5.0
FEW_ROWS = 20  # of a hold, to take that scatter from
# GROMACS lets its neighbour lists make 0.002 kT per atom and ps at 300 K (the default of
# verlet-buffer-tolerance); five times that is a time step too long.  A thermostat of time τ takes
# it up at a kinetic temperature higher by q τ/3k: 0.3 % at 1 ps.
DRIFT = 0.01  # kT per atom and ps
DRIFTED = 3.0  # kT of the whole cell over the run; below, a slope says nothing yet
# Einstein crystals and entropies go with ln T: five per cent is 0.07 kT for each coordinate.
WARMER = 0.05  # of the target
RARE = 1e-4  # two-sided p of the t-test of a mean over BLOCKS
BLOCKS = 8
# One configuration of the canonical ensemble is further off once in 10⁶; the mean over a switch is
# further off more rarely still, however correlated its rows are.
FAR = 1e-6
# A pressure off by ΔP shifts the mean volume by ΔP σ_V²/kT: half of its own scatter is a lot.
SHIFTED = 0.5  # σ_V
# Crystals melt when atoms move 0.1 to 0.15 of the distance between neighbours about their places
# (Lindemann).  About where they started, soft ones may move 0.3 to 0.45: hot perovskites tilt,
# shear, let halides change places, and stay crystals.  A liquid (1e-5 cm²/s) passes 0.7 in 10 ps.
MELTED = 0.7  # root mean square over the atoms
FLEW = 2.5  # one atom, of its own distance: beyond any second neighbour, more than one hop
_UNITS = {"bar": 1.0, "megapascal": 10.0, "gigapascal": 1e4}


@dataclass(frozen=True)
class SwitchCheck:
    """One complete switch."""

    direction: str  # 'forward' or 'backward'
    cycle: Index  # from 0
    mismatch: float | None  # eV, Δ(conserved) − work; None: not printed
    temperature: float | None  # K, mean kinetic temperature; None: not printed

    @property
    def name(self) -> str:
        return f"the {self.direction} switch of cycle {self.cycle + 1}"


@dataclass(frozen=True)
class Mean:
    """A mean over the rows of a run, beside what it should be."""

    value: float
    se: NotNegative | None  # over BLOCKS blocks; None: too few rows
    target: float

    def off(self) -> bool:
        """Whether the difference is beyond its error."""
        if self.se is None:
            return False
        limit = float(stats.t.isf(RARE / 2, BLOCKS - 1)) * self.se
        return abs(self.value - self.target) > limit


@dataclass(frozen=True)
class Displacement:
    """Atoms against their places at the start, in distances to their nearest neighbours there."""

    rms: NotNegative  # largest over the frames looked at, root mean square over the atoms
    farthest: NotNegative  # of any atom in any of them
    atom: Index  # which, from 0
    frames: Count


@dataclass(frozen=True)
class RunCheck:
    """What one run printed, against what its input asks for."""

    folder: str
    switches: tuple[SwitchCheck, ...]  # complete ones; none at fixed λ
    noise: NotNegative | None  # eV, SD of a switch's mismatch as the holds show it; None: too few
    drift: float | None  # kT per atom and ps, of conserved − work
    drifted: float | None  # kT, of the whole cell over the whole run, by that slope
    temperature: Mean | None  # K; None: not printed, or no thermostat
    pressure: Mean | None  # bar; None: not printed, or constant volume
    volume_shift: NotNegative | None  # σ_V, by how much the pressure that is off moves the volume
    displacement: Displacement | None  # None: no positions printed
    degrees_of_freedom: Count  # of the kinetic temperature

    @property
    def largest_mismatch(self) -> float | None:
        """eV, of any switch; None: not printed."""
        found = [abs(s.mismatch) for s in self.switches if s.mismatch is not None]
        return max(found, default=None)

    @property
    def name(self) -> str:
        return self.folder.replace("\\", "/").rsplit("/", 1)[-1]


# --- measuring ----------------------------------------------------------------------------------


def check_switching(run: RunInput, switching: SwitchingRun) -> RunCheck:
    """Every complete switch of a run.  Raises AnalysisError for files that cannot be read."""
    series = read_conserved(run)
    switches = tuple(_switch(series, s) for s in switching.switches)
    first = switching.first_law
    drift = None if first is None else first.drift / kT(switching.temperature)
    start = run.schedule.equilibrate if run.schedule is not None else 0
    return RunCheck(
        folder=str(run.folder),
        switches=switches,
        noise=_noise(run, series, switching.last_step),
        drift=drift,
        drifted=None if first is None or drift is None else drift * first.duration * first.natoms,
        **_state(run, series, start),
    )


def check_window(run: RunInput, window: Window) -> RunCheck:
    """A run at fixed λ, after the rows that were left out as equilibration."""
    series = read_conserved(run)
    start = int(window.steps[window.equilibration])
    law = _fixed_first_law(run, series, start)
    drift = None if law is None else law.drift / kT(window.temperature)
    return RunCheck(
        folder=str(run.folder),
        switches=(),
        noise=None,
        drift=drift,
        drifted=None if law is None or drift is None else drift * law.duration * law.natoms,
        **_state(run, series, start),
    )


def _state(run: RunInput, series: PropertySeries | None, start: int) -> dict[str, Any]:
    """Temperature, pressure and displacement; rows from step *start* on."""
    found: dict[str, Any] = {"temperature": None, "pressure": None, "volume_shift": None}
    if series is not None:
        rows = series.steps >= start
        temperature = _kelvin(series)
        if temperature is not None and run.thermostatted and rows.any():
            found["temperature"] = _mean(temperature[rows], run.kelvin)
        found |= _pressure(run, series, rows)
    free = run.beads * (3 * len(run.structure) - len(run.held)) - 3 * run.fixes_centre_of_mass
    return {**found, "displacement": displacement(run), "degrees_of_freedom": max(1, free)}


def _switch(series: PropertySeries | None, s: SwitchingWork) -> SwitchCheck:
    mismatch = mean = None
    if series is not None:
        first, last = int(s.steps[0]), int(s.steps[-1])
        inside = _inside(series, first, last)
        if inside.stop - inside.start > 1:
            ends = np.array([inside.start, inside.stop - 1])
            conserved = series.energy("conserved")[ends]
            work = s.cumulative[series.steps[ends] - first]  # ∂H/∂λ is printed at every step
            mismatch = float(np.diff(conserved)[0] - np.diff(work)[0])
        temperature = _kelvin(series)
        if temperature is not None and inside.stop > inside.start:
            mean = float(temperature[inside].mean())
    return SwitchCheck(s.direction, s.cycle, mismatch, mean)


def _inside(series: PropertySeries, first: int, last: int) -> slice:
    """Rows of the steps from *first* to *last*, both included."""
    start, stop = np.searchsorted(series.steps, [first, last + 1])
    return slice(int(start), int(stop))


def _kelvin(series: PropertySeries) -> np.ndarray | None:
    return (
        series.columns.get("temperature") if series.units.get("temperature") == "kelvin" else None
    )


def _noise(run: RunInput, series: PropertySeries | None, last: int) -> float | None:
    """√2 SD of conserved within holds, where λ does no work, eV: of a difference of two rows."""
    if series is None or run.schedule is None:
        return None
    conserved, scatter = series.energy("conserved"), []
    for segment in run.schedule.segments():
        if segment.kind.startswith("hold") and segment.stop <= last:
            rows = conserved[_inside(series, segment.start, segment.stop)]
            if len(rows) >= FEW_ROWS:
                scatter.append(rows.var(ddof=1))
    return float(np.sqrt(2.0 * np.mean(scatter))) if scatter else None


def _fixed_first_law(run: RunInput, series: PropertySeries | None, start: int) -> FirstLaw | None:
    """Of a run at fixed λ, where no work is done; from step *start* on."""
    if series is None or run.timestep is None:
        return None
    rows = series.steps >= start
    conserved, time = series.energy("conserved")[rows], series.steps[rows] * run.timestep * 1e-3
    return first_law(conserved, np.zeros(len(time)), time, len(run.structure))


def _mean(values: np.ndarray, target: float) -> Mean:
    se = None
    if len(values) >= 5 * BLOCKS:
        blocks = np.array([block.mean() for block in np.array_split(values, BLOCKS)])
        se = float(blocks.std(ddof=1) / np.sqrt(BLOCKS))
    return Mean(float(values.mean()), se, target)


def _pressure(run: RunInput, series: PropertySeries, rows: np.ndarray) -> dict[str, Any]:
    """Of the barostat's own kind: classical, or centroid virial for several beads."""
    name = "pressure_md" if run.beads == 1 else "pressure_cv"
    unit, target = _UNITS.get(series.units.get(name, "")), run.pressure
    if unit is None or target is None or not run.constant_pressure or not rows.any():
        return {}
    mean = _mean(unit * series.columns[name][rows], target)
    volume = series.columns.get("volume")
    if volume is None or series.units.get("volume") != "angstrom3":
        return {"pressure": mean}
    off = abs(mean.value - target) * BAR_EV_PER_ANGSTROM3
    return {"pressure": mean, "volume_shift": float(off * volume[rows].std() / kT(run.kelvin))}


def displacement(run: RunInput) -> Displacement | None:
    """How far atoms are from where they started; None where no positions are printed.

    Fractional coordinates, so that a cell that breathes moves nothing; the shift of the mass centre
    is taken out.  Atoms that go to void are left out: they are nobody's neighbours in the end.
    """
    frames = sampled_frames(run)
    kept = [i for i in range(len(run.structure)) if i not in run.transformation.voids]
    if frames is None or len(kept) < 2:
        return None
    positions, cells = frames
    start, cell = run.structure.positions, run.structure.cell
    u = np.linalg.solve(cells.transpose(0, 2, 1), positions.transpose(0, 2, 1)).transpose(0, 2, 1)
    u = u - np.linalg.solve(cell.T, start.T).T
    u -= np.round(u[:1])  # a start that was wrapped; i-PI does not wrap what follows
    mu = run.initial_masses / run.initial_masses.sum()
    u = u - np.einsum("i,tia->ta", mu, u)[:, None, :]
    moved = np.linalg.norm(np.einsum("tia,tab->tib", u, cells), axis=2)[:, kept]  # [frame, atom] Å
    relative = moved / _nearest(run)[kept]
    frame, atom = np.unravel_index(np.argmax(relative), relative.shape)
    return Displacement(
        rms=float(np.sqrt((relative**2).mean(axis=1)).max()),
        farthest=float(relative[frame, atom]),
        atom=kept[int(atom)],
        frames=len(cells),
    )


def _nearest(run: RunInput) -> np.ndarray:
    """Distance (N,) Å of each atom to its nearest neighbour at the start."""
    s = run.structure
    atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=True)
    n, volume = len(s), abs(float(np.linalg.det(s.cell)))
    cutoff = 1.5 * (volume / n) ** (1 / 3)
    while True:
        i, d = neighbor_list("id", atoms, cutoff)
        found = np.full(n, np.inf)
        np.minimum.at(found, i, d)
        if np.isfinite(found).all():
            return found
        cutoff *= 1.5


# --- judging ------------------------------------------------------------------------------------


def check_warnings(
    checks: Sequence[RunCheck], temperature: float, pairs: int = 0, se: float | None = None
) -> Iterator[str]:
    """What is wrong with the runs, each line naming its run.

    pairs: all that were pooled; se: the stated error of their ΔF, eV, None if there is none.
    """
    for lines in zip(
        _unclosed(checks, kT(temperature), pairs, se),
        *([f(c) for c in checks] for f in (_drifts, _hot, _pressed, _moved)),
        strict=True,
    ):
        yield from (line for line in lines if line is not None)


def _sign(s: SwitchCheck) -> float:
    return 1.0 if s.direction == "forward" else -1.0


def _unclosed(
    checks: Sequence[RunCheck], t: float, pairs: int, se: float | None
) -> list[str | None]:
    """One line, or None, for each run; t: kT in eV."""
    known = [
        [
            s
            for s in c.switches
            # of whole pairs: what both directions share drops out only there
            if s.mismatch is not None and sum(o.cycle == s.cycle for o in c.switches) == 2
        ]
        for c in checks
    ]
    scale = 1.0 / max(1, 2 * pairs)  # of one work in ΔF, eq. 11
    of_run = [scale * sum(_sign(s) * (s.mismatch or 0.0) for s in found) for found in known]
    noise = [scale * (c.noise or 0.0) for c in checks]  # eV in ΔF, of one switch
    own = [n * np.sqrt(len(found)) for n, found in zip(noise, known, strict=True)]
    allowed = min(KT_OF_ALL * t, np.inf if se is None else se)
    total = abs(sum(of_run))
    together = total > max(
        SHARE_OF_ALL * allowed, NOISE * float(np.linalg.norm(own)), NEGLIGIBLE * t
    )
    lines: list[str | None] = []
    for c, found, off, scatter, single in zip(checks, known, of_run, own, noise, strict=True):
        limit = max(SHARE_OF_ONE * allowed, NEGLIGIBLE * t)
        bad = [
            s
            for s in found
            if abs(s.mismatch or 0.0) > max(KT_OF_ONE * t, limit / scale, NOISE * single / scale)
        ]
        mine = abs(off) > max(NOISE * scatter, NEGLIGIBLE * t) and (together or abs(off) > limit)
        if not (bad or mine):
            lines.append(None)
            continue
        worst = max(found, key=lambda s: abs(s.mismatch or 0.0))
        gap = worst.mismatch or 0.0
        stated = "not known" if se is None else f"{1e3 * se:.2g} meV"
        lines.append(
            f"{c.name}: the first law does not close: in {worst.name} the conserved quantity "
            f"changes by {1e3 * gap:+.3g} meV ({gap / t:+.2g} kT) besides the work; this run alone "
            f"moves ΔF by {1e3 * off:+.3g} meV, the stated error is {stated}: ∂H/∂λ does not "
            "belong to the forces, or the time step is too long"
        )
    return lines


def _drifts(c: RunCheck) -> str | None:
    if c.drift is None or c.drifted is None:
        return None
    if abs(c.drift) <= DRIFT or abs(c.drifted) <= DRIFTED:
        return None
    return (
        f"{c.name}: the conserved quantity drifts from the work by {c.drift:+.2g} kT per atom and "
        f"ps, above {DRIFT:g}, {c.drifted:+.3g} kT in all: energy is made or lost on the way, "
        "shorten the time step"
    )


def _hot(c: RunCheck) -> str | None:
    mean = c.temperature
    if mean is None:
        return None
    dof, target = c.degrees_of_freedom, mean.target
    low, high = (target * q / dof for q in stats.chi2.interval(1.0 - FAR, dof))
    far = [s for s in c.switches if s.temperature is not None and not low < s.temperature < high]
    if far:
        worst = max(far, key=lambda s: abs((s.temperature or 0.0) - target))
        return (
            f"{c.name}: {worst.temperature:.4g} K in {worst.name}, the thermostat's is {target:g} K"
            f" (canonical: {low:.3g} to {high:.3g} K): the run left its ensemble, and its works "
            "are no result"
        )
    beyond = mean.off() and abs(mean.value - target) > WARMER * target
    if beyond or (not c.switches and not low < mean.value < high):
        error = "" if mean.se is None else f" ± {mean.se:.2g}"
        return (
            f"{c.name}: mean temperature {mean.value:.4g}{error} K, the thermostat's is {target:g} "
            "K: the time step is too long, the thermostat too weak, or the run too short"
        )
    return None


def _pressed(c: RunCheck) -> str | None:
    p, shift = c.pressure, c.volume_shift
    if p is None or shift is None or not (p.off() and shift > SHIFTED):
        return None
    return (
        f"{c.name}: mean pressure {p.value:.4g} ± {p.se:.2g} bar, the barostat's is {p.target:g} "
        f"bar: the mean volume is off by {shift:.2g} of its scatter; run longer, or with a faster "
        "barostat"
    )


def _moved(c: RunCheck) -> str | None:
    d = c.displacement
    if d is None:
        return None
    if d.rms > MELTED:
        return (
            f"{c.name}: atoms are {d.rms:.2g} times the distance to their neighbours from where "
            "they started (root mean square): the crystal melted, became another, or flew apart"
        )
    if d.farthest > FLEW:
        return (
            f"{c.name}: atom {d.atom} is {d.farthest:.2g} times the distance to its nearest "
            "neighbour from where it started: it left its site and diffuses, or flew away"
        )
    return None
