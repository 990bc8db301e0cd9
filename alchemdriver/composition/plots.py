"""Figures of composition: each function takes an axis and numbers, draws, and returns the axis.

Nothing is computed here but straight lines.  Colours are Okabe and Ito's, markers differ too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..analysis.report.plots import STYLE
from ..contract.files import written_aside

__all__ = [
    "against_vegard",
    "by_switching_time",
    "descents",
    "lattice_matching",
    "ordering_energies",
    "roc",
    "save",
    "save_row",
    "schemes",
    "ternary_map",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def save(path: Path, size: tuple[float, float], draw: Callable, *args, **keywords) -> Path:
    """A new figure of *size* inches with one axis on which ``draw(axis, …)`` draws."""
    return save_row(path, size, [lambda axis: draw(axis, *args, **keywords)])


def save_row(path: Path, size: tuple[float, float], draws: Sequence[Callable]) -> Path:
    """A new figure of *size* inches; each of *draws* gets an axis, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(draws), figsize=size, squeeze=False)
        for axis, draw in zip(axes[0], draws, strict=True):
            draw(axis)
        with written_aside(path) as aside:
            figure.savefig(aside)
        plt.close(figure)
    return path


def against_vegard(ax, x: np.ndarray, curves: Mapping[str, np.ndarray], label: str):
    """Values against x, each with the straight line between its ends dashed."""
    for n, (name, y) in enumerate(curves.items()):
        colour = COLOURS[n % len(COLOURS)]
        ax.plot(x, y, MARKERS[n % len(MARKERS)] + "-", ms=4, color=colour, label=name)
        ax.plot([x[0], x[-1]], [y[0], y[-1]], "--", lw=0.8, color=colour)
    ax.set_xlim(x[0], x[-1])
    ax.set_xlabel("x")
    ax.set_ylabel(label)
    ax.legend()
    return ax


def lattice_matching(ax, x, a, target, *, optimised, supercells, on_sites, quasirandom, label):
    """a (Å) against x: the scan, the target, where descents ended, supercells with errors.

    supercells: relaxed; on_sites: atoms held on the sites of the mixed crystal; {x: (a, error)}.
    """
    ax.plot(x, a, "o-", ms=4, color=COLOURS[0], label="scan")
    ax.axhline(target, ls="--", lw=0.8, color="0.4")
    ax.annotate("GaN", (x[-1], target), ha="right", va="bottom", fontsize=8, color="0.3")
    for n, (name, found) in enumerate(optimised.items()):
        ax.plot(found, target, "*x+"[n % 3], ms=9, color=COLOURS[1 + n], label=name, zorder=5)
    for name, cells, marker, colour in (
        ("random cells, relaxed", supercells, "s", COLOURS[4]),
        ("random cells, on sites", on_sites, "v", COLOURS[5]),
    ):
        values, errors = np.array(list(cells.values())).T
        style = {"fmt": marker, "ms": 4, "capsize": 2, "color": colour, "label": name}
        ax.errorbar(list(cells), values, errors, **style)
    ax.plot(list(quasirandom), list(quasirandom.values()), "D", ms=4, color="k", label="SQS")
    ax.set_xlabel(label)
    ax.set_ylabel("a (Å)")
    ax.legend()
    return ax


def roc(ax, rankings):
    """True against false positive rate of each ranking, positive: ordered."""
    for n, (name, ranking) in enumerate(rankings.items()):
        label = f"{name}, AUC {ranking.auc:.2f}"
        ax.plot(*ranking.roc.T, MARKERS[n] + "-", ms=3, color=COLOURS[n], label=label)
    ax.plot([0, 1], [0, 1], ":", color="0.5", lw=0.8)
    ax.set_xlabel("disordered called ordered")
    ax.set_ylabel("ordered called ordered")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")
    return ax


def ordering_energies(ax, ranking):
    """ΔE of each composition, sorted; colour by label."""
    by_energy = np.argsort(ranking.energies)
    energies = 1e3 * ranking.energies[by_energy]
    names = [_subscripts(ranking.names[n]) for n in by_energy]
    colours = {"ordered": COLOURS[0], "disordered": COLOURS[1]}
    for label, colour in colours.items():
        here = np.array([ranking.labels[n] == label for n in by_energy])
        ax.barh(np.flatnonzero(here), energies[here], color=colour, label=label, height=0.7)
    ax.set_yticks(range(len(names)), names)
    ax.axvline(0.0, color="0.3", lw=0.8)
    ax.set_xlabel("E(mixed) − min E(ordered) (meV per formula unit)")
    ax.legend(loc="lower right")
    return ax


def _subscripts(formula: str) -> str:
    return "".join(f"$_{c}$" if c.isdigit() else c for c in formula)


def schemes(ax, comparison, atoms: int):
    """Deviation from linear mixing, meV per atom, of every other scheme."""
    for n, scheme in enumerate(s for s in comparison.energies if s != "linear"):
        deviation = 1e3 * comparison.deviation(scheme) / atoms
        ax.plot(comparison.lam, deviation, MARKERS[n] + "-", ms=3, color=COLOURS[n], label=scheme)
    ax.axhline(0.0, ls=":", color="0.5", lw=0.8)
    ax.set_xlim(0, 1)
    ax.set_xlabel(r"$\lambda$")
    ax.set_ylabel("E − linear (meV per atom)")
    ax.legend()
    return ax


# --- ternary maps ---------------------------------------------------------------------------

_CORNERS = np.array([[0.5, np.sqrt(0.75)], [0.0, 0.0], [1.0, 0.0]])  # top, left, right


def ternary_map(ax, compositions, values, corners, label, level=None):
    """Colours of *values* (n,) over *compositions* (n, 3), contour at *level* dotted."""
    xy = np.asarray(compositions) @ _CORNERS
    triangles = ax.tricontourf(*xy.T, values, levels=24, cmap="viridis")
    ax.figure.colorbar(triangles, ax=ax, label=label, shrink=0.75)
    if level is not None:
        ax.tricontour(*xy.T, values, levels=[level], colors="w", linestyles=":", linewidths=1.8)
    for name, (px, py), where in zip(corners, _CORNERS, ("bottom", "top", "top"), strict=True):
        ax.annotate(name, (px, py), ha="center", va=where, fontsize=9)
    ax.set_aspect("equal")
    ax.axis("off")
    return ax


def descents(ax, compositions, values, gradients, edges, level, paths, corners, label):
    """Map of *values*, downhill arrows along the simplex, contour of *edges*, and descents."""
    ternary_map(ax, compositions, values, corners, label)
    xy = compositions @ _CORNERS
    ax.tricontour(*xy.T, edges, levels=[level], colors="w", linestyles=":", linewidths=1.8)
    downhill = -(gradients - gradients.mean(axis=1, keepdims=True)) @ _CORNERS
    downhill /= np.maximum(np.linalg.norm(downhill, axis=1, keepdims=True), 1e-12)
    ax.quiver(*xy.T, *downhill.T, color="k", width=0.004, scale=28, alpha=0.6)
    for path in paths:
        line = path @ _CORNERS
        ax.plot(*line.T, "-", lw=1.2, color=COLOURS[1])
        ax.plot(*line[0], "o", ms=4, color=COLOURS[1])
        ax.plot(*line[-1], "*", ms=9, color=COLOURS[1], mec="w", mew=0.5)
    return ax


# --- free energies --------------------------------------------------------------------------


def by_switching_time(ax, found, value: str, error: str | None, label: str, *, time_step: float):
    """*value* and *error* against the length of a switch (ps), of {interpolation: {steps: {…}}}."""
    for n, (name, results) in enumerate(found.items()):
        steps = sorted(results)
        # the error of a single pair is None, and becomes NaN: no bar
        bars = np.array([results[s][error] for s in steps], dtype=float) if error else None
        ax.errorbar(
            [1e-3 * time_step * s for s in steps],
            [results[s][value] for s in steps],
            bars,
            fmt=MARKERS[n] + "-",
            ms=4,
            capsize=2,
            color=COLOURS[n],
            label=name,
        )
    ax.set_xscale("log")
    ax.set_xlabel("switching time (ps)")
    ax.set_ylabel(label)
    ax.legend()
    return ax
