"""Convergence of both legs with the number of beads, from the committed campaign.

python benchmarks/beads.py          # draws docs/images/beads.png from quantum_oscillator.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from campaigns.quantum import RESULT, averaged, switched  # noqa: E402
from helpers.quantum_oscillator import Oscillators  # noqa: E402

from alchemdriver.analysis.compare.beads import (  # noqa: E402
    BeadPoint,
    QuantumResult,
    bead_convergence,
    extrapolate,
)
from alchemdriver.analysis.report.plots import STYLE  # noqa: E402

X = 5.0  # βħω of the initial state


def point(data: dict) -> BeadPoint:
    (u, u_se), (m, m_se) = switched(data["runs"]), averaged(data["runs"])
    beads = data["settings"]["beads"]
    return BeadPoint(beads, u, u_se, m, m_se, u + m, (u_se**2 + m_se**2) ** 0.5)


def main() -> None:
    content = json.loads(RESULT.read_text())
    chosen = [d for d in content["states"] + content["convergence"] if d["settings"]["x"] == X]
    points = tuple(sorted(map(point, chosen), key=lambda p: p.beads))
    longest = max(chosen, key=lambda d: len(d["classical"][0]["forward"]))
    u, u_se = switched(longest["classical"])
    oscillators = Oscillators(**longest["settings"])
    masses = oscillators.legs(1)[1]  # eq. 22
    classical = BeadPoint(1, u, u_se, masses, None, u + masses, u_se)
    found = QuantumResult(
        "BAR", points, classical, *extrapolate(points), points[-1].value - classical.value, None
    )
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.2))
        canvas = FigureCanvasAgg(figure)
        ax = figure.subplots()
        grid = [3.9 + 0.25 * k for k in range(400)]  # to 100 beads
        exact = [oscillators.legs(p) for p in grid]
        x = [p**-2.0 for p in grid]
        for k, colour in ((0, "#0072B2"), (1, "#D55E00"), (None, "#000000")):
            y = [
                1e3 * ((sum(e) - u - masses) if k is None else e[k] - (u, masses)[k]) for e in exact
            ]
            ax.plot(x, y, color=colour, lw=0.8, ls=":", label="exact" if k is None else None)
        bead_convergence(ax, found)
        ax.set_xlim(-0.001, grid[0] ** -2.0)
        ax.legend(loc="center", bbox_to_anchor=(0.7, 0.62))
        canvas.print_figure(ROOT / "docs" / "images" / "beads.png")


if __name__ == "__main__":
    main()
