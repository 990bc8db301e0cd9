"""Figures: each function takes an axis and a result or runs, draws, and returns the axis.

Nothing is computed here; matplotlib is imported only to make new figures.  Colours are Okabe and
Ito's, which stay apart for colour-blind readers; smooth lines also differ in their dashes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...contract.files import written_aside
from ..corrections.scaling import Curve
from ..estimators.fixed_lambda import Window
from ..estimators.mbar import Mbar
from ..estimators.stopping import Outlook
from ..estimators.work import SwitchingRun, SwitchingWork
from ..result import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"forward": "#0072B2", "backward": "#D55E00"}
DASHES = {"forward": "-", "backward": (0, (5, 1.6))}
LABELS = {"forward": r"forward, $\lambda$ 0 → 1", "backward": r"backward, $\lambda$ 1 → 0"}
REFERENCE = "#009E73"
_HIDDEN = 20.0  # how many times ΔF exceeds what lines differ by before they look like one
STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}


def _switches(runs: Sequence[SwitchingRun]) -> list[SwitchingWork]:
    return [s for run in runs for s in run.switches]


def envelope(y: np.ndarray, most: int = 4000) -> np.ndarray:
    """Rows of *y* (n,) that draw the same line as all of them: the extremes of even stretches."""
    n = len(y)
    if n <= most:
        return np.arange(n)
    size = -(-n // (most // 2))
    starts = np.arange(n // size)[:, None] * size
    stretches = y[: len(starts) * size].reshape(-1, size)
    ends = np.stack([stretches.argmin(axis=1), stretches.argmax(axis=1)], axis=1)
    return np.unique([0, *(starts + ends).ravel(), *range(len(starts) * size, n)])


def _faint(n: float) -> float:
    """Opacity of one of *n* lines that lie over each other."""
    return max(0.15, min(1.0, 1.6 / sqrt(n)))


def _legend(ax: Axes, **where: Any) -> None:
    """A legend with each direction once, at full strength."""
    handles, labels = ax.get_legend_handles_labels()
    legend = ax.legend(handles, labels, **where)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(alpha=1.0, linewidth=1.6)


def dhdl_vs_lambda(ax: Axes, runs: Sequence[SwitchingRun]) -> Axes:
    """∂H/∂λ (eV) against λ for every switch of every pair."""
    switches = _switches(runs)
    named = set()
    for s in switches:
        label = None if s.direction in named else LABELS[s.direction]
        named.add(s.direction)
        rows = envelope(s.gradient)
        ax.plot(
            s.lam[rows],
            s.gradient[rows],
            color=COLOURS[s.direction],
            alpha=_faint(len(switches) / 2),
            lw=0.6,
            label=label,
            rasterized=True,
        )
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"$\lambda$")
    ax.set_ylabel(r"$\partial H/\partial\lambda$ (eV)")
    _legend(ax, loc="best")
    return ax


def cumulative_work(ax: Axes, runs: Sequence[SwitchingRun]) -> Axes:
    """Work done so far (eV) against λ; the way back is drawn as −W from where it began.

    A backward line starts at λ = 1 from minus its whole work, so that without dissipation it would
    lie on the forward line; the gap at λ = 1 is the hysteresis of the pair.  Where ΔF is so large
    that all lines would look like one (Einstein crystals), λ ΔF is taken out, in meV.
    """
    switches = _switches(runs)
    starts = [0.0 if s.direction == "forward" else -s.work for s in switches]
    ends = [s.work if s.direction == "forward" else -s.work for s in switches]
    chord = sum(ends) / len(ends)
    lines = [a + s.cumulative - chord * s.lam for a, s in zip(starts, switches, strict=True)]
    hidden = abs(chord) > _HIDDEN * max(float(abs(line).max()) for line in lines)
    named = set()
    for s, line in zip(switches, lines, strict=True):
        label = None if s.direction in named else LABELS[s.direction]
        named.add(s.direction)
        rows = envelope(line)
        x, y = s.lam[rows], line[rows]
        ax.plot(
            x,
            1e3 * y if hidden else y + chord * x,
            color=COLOURS[s.direction],
            ls=DASHES[s.direction],
            alpha=_faint(len(switches) / 2),
            label=label,
            rasterized=True,
        )
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"$\lambda$")
    ax.set_ylabel(
        r"work from $\lambda = 0$, less $\lambda\,\Delta F$ (meV)"
        if hidden
        else r"work from $\lambda = 0$ (eV)"
    )
    _legend(ax, loc="best")
    return ax


def work_histogram(ax: Axes, result: Result) -> Axes:
    """Works W and −W of the way back (meV from ΔF of eq. 11), with ΔF by eq. 11 and BAR."""
    from matplotlib.ticker import MaxNLocator
    from numpy import concatenate, histogram_bin_edges

    pooled = result.pooled
    assert pooled is not None  # of switches
    zero = pooled.eq11.value
    works = {
        "forward": concatenate([1e3 * (r.forward - zero) for r in result.replicas]),
        "backward": concatenate([1e3 * (-r.backward - zero) for r in result.replicas]),
    }
    edges = histogram_bin_edges(concatenate(list(works.values())), bins=max(6, min(30, pooled.n)))
    bins: list[float] = edges.tolist()
    names = {"forward": r"$W$ forward", "backward": r"$-W$ backward"}
    for direction, values in works.items():
        ax.hist(
            values,
            bins,
            histtype="stepfilled",
            facecolor=COLOURS[direction] + "40",
            edgecolor=COLOURS[direction],
            linestyle=DASHES[direction],
            label=names[direction],
        )
    ax.axvline(0.0, color="0.15", lw=1.0, label=r"$\Delta F$ eq. 11")
    ax.axvline(
        1e3 * (pooled.bar.value - zero), color=REFERENCE, ls=":", lw=1.6, label=r"$\Delta F$ BAR"
    )
    ax.set_xlabel(r"work $-\ \Delta F$ (meV)")
    ax.set_ylabel("switches")
    locator = ax.yaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):
        locator.set_params(integer=True)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, columnspacing=1.2)
    return ax


def gradient_series(ax: Axes, windows: Sequence[Window]) -> Axes:
    """∂H/∂λ (eV) of fixed-λ runs against time (ps), equilibration in grey, mean as a line."""
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    for k, w in enumerate(windows):
        colour = colours[k % len(colours)]
        first = envelope(w.gradient[: w.equilibration + 1])
        rest = w.equilibration + envelope(w.equilibrated)
        ax.plot(w.time[first], w.gradient[first], color="0.75", lw=0.5)
        ax.plot(
            w.time[rest],
            w.gradient[rest],
            color=colour,
            lw=0.5,
            alpha=0.45,
            rasterized=True,
        )
        ax.plot(
            [w.time[w.equilibration], w.time[-1]],
            [w.mean.value] * 2,
            color=colour,
            lw=1.8,
            label=rf"$\lambda$ = {w.lam:.3g}",
        )
    ax.set_xlabel("time (ps)")
    ax.set_ylabel(r"$\partial H/\partial\lambda$ (eV)")
    ax.margins(x=0)
    columns = min(4, len(windows))
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.2)
    return ax


def gradient_means(ax: Axes, windows: Sequence[Window]) -> Axes:
    """⟨∂H/∂λ⟩ (eV) with its standard error against λ."""
    ordered = sorted(windows, key=lambda w: w.lam)
    ax.errorbar(
        [w.lam for w in ordered],
        [w.mean.value for w in ordered],
        yerr=[float("nan") if w.mean.se is None else w.mean.se for w in ordered],
        color=COLOURS["forward"],
        marker="o",
        ms=4,
        capsize=3,
        label="mean ± SE",
    )
    ax.set_xlabel(r"$\lambda$")
    ax.set_ylabel(r"$\langle\partial H/\partial\lambda\rangle$ (eV)")
    ax.legend(loc="best")
    return ax


def overlap_matrix(ax: Axes, mbar: Mbar) -> Axes:
    """MBAR's overlap matrix, windows numbered by λ; neighbours below the limit are red."""
    from ..estimators.work_warnings import POOR_OVERLAP

    n = len(mbar.sampled)
    ax.imshow(mbar.overlap, cmap="Blues", vmin=0.0, vmax=max(0.5, float(mbar.overlap.max())))
    if n <= 12:
        for i in range(n):
            for j in range(n):
                o = mbar.overlap[i, j]
                poor = abs(i - j) == 1 and o < POOR_OVERLAP
                if o >= 0.005 or poor:
                    colour = COLOURS["backward"] if poor else ("white" if o > 0.6 else "0.15")
                    ax.text(j, i, f"{o:.2f}", ha="center", va="center", color=colour, fontsize=7)
    labels = [f"{lam:.3g}" for lam in mbar.sampled]
    every = max(1, n // 12)
    ax.set_xticks(range(0, n, every), labels[::every], rotation=90 if n > 7 else 0)
    ax.set_yticks(range(0, n, every), labels[::every])
    ax.set_xlabel(r"$\lambda$ it might have come from")
    ax.set_ylabel(r"$\lambda$ of a configuration")
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    return ax


def free_energy_of_temperature(ax: Axes, curve: Curve) -> Axes:
    """G(T) (eV, whole cell) of reversible scaling with its standard error, and the check point."""
    t = curve.temperatures
    ax.plot(t, curve.values, color=COLOURS["forward"], label="reversible scaling")
    if curve.se is not None:
        low, high = curve.values - curve.se, curve.values + curve.se
        ax.fill_between(t, low, high, color=COLOURS["forward"], alpha=0.25, lw=0, label="± SE")
    if curve.check is not None:
        point = curve.check.against
        ax.errorbar(
            point.temperature,
            point.value,
            yerr=point.se or 0.0,
            color=COLOURS["backward"],
            marker="o",
            ms=5,
            mfc="none",
            capsize=3,
            ls="",
            label="independent value",
        )
    ax.set_xlabel("temperature (K)")
    name = r"$G(T)$" if curve.reference is not None else r"$G(T) - (T/T_0)\,G(T_0)$"
    ax.set_ylabel(f"{name} (eV, whole cell)")
    ax.legend(loc="best")
    return ax


def error_against_cost(ax: Axes, outlook: Outlook) -> Axes:
    """Stated error (meV) at every look against evaluations, with 1/√n through the last one."""
    cost, error = (np.array(x, dtype=float) for x in zip(*outlook.history, strict=True))
    target = 1e3 * outlook.asked.error
    ax.plot(cost, 1e3 * error, color=COLOURS["forward"], marker="o", ms=4, label="stated error")
    end = cost[-1] * max(1.0, (1e3 * error[-1] / target) ** 2)
    line = np.geomspace(cost[0], min(end, 1e3 * cost[-1]), 50)
    ax.plot(line, 1e3 * error[-1] * np.sqrt(cost[-1] / line), color="0.5", ls="--",
            label=r"$1/\sqrt{n}$")  # fmt: skip
    ax.axhline(target, color=REFERENCE, lw=0.9, ls=":", label="asked for")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    ax.set_xlabel("evaluations of the model")
    ax.set_ylabel(f"error (meV per {outlook.asked.per.replace('-', ' ')})")
    ax.legend(loc="best")
    return ax


def save_plots(result: Result, folder: Path) -> list[Path]:
    """Draw what belongs to *result* as PNG files in *folder*; returns their paths."""
    drawings: dict[str, Callable[[Axes], Axes]] = {}
    if result.pooled is not None:
        drawings["dhdl.png"] = partial(dhdl_vs_lambda, runs=result.runs)
        drawings["work.png"] = partial(cumulative_work, runs=result.runs)
        if result.pooled.n >= 3:
            drawings["works.png"] = partial(work_histogram, result=result)
    else:
        drawings["dhdl.png"] = partial(gradient_series, windows=result.windows)
        if len({w.lam for w in result.windows}) > 1:
            drawings["mean_dhdl.png"] = partial(gradient_means, windows=result.windows)
        if result.mbar is not None:
            drawings["overlap.png"] = partial(overlap_matrix, mbar=result.mbar)
    if result.scaling is not None:
        drawings["free_energy.png"] = partial(free_energy_of_temperature, curve=result.scaling)
    if result.outlook is not None and len(result.outlook.history) > 1:
        drawings["error.png"] = partial(error_against_cost, outlook=result.outlook)
    return [save_figure(Path(folder) / name, draw) for name, draw in drawings.items()]


def save_figure(path: Path, draw: Callable[[Axes], object]) -> Path:
    """A figure of one axis, on which *draw* draws."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):  # no pyplot: nobody's backend or open figures are touched
        figure = Figure(figsize=(4.6, 3.2))
        canvas = FigureCanvasAgg(figure)
        draw(figure.subplots())
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            canvas.print_figure(aside)
    return path
