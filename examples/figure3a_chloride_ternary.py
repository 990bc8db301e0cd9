"""Figure 3a: lattice constants of (Li, Na, K)Cl, hydrostatic stress at NaCl's cell, and descents.

    python examples/figure3a_chloride_ternary.py --out runs/ternary

Left: relaxed edge of the rock salt at every composition.  Right: abs(tr σ)/3 with the cell held at
the model's own NaCl, its gradient along the simplex as arrows, and descents from several starts.
Both show the curve on which the edge is that of NaCl.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from common import arguments, open_model
from structures import sodium_chloride

from alchemdriver.composition import plots
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.objectives import AtFixedCell, hydrostatic_stress
from alchemdriver.composition.optimize import optimize
from alchemdriver.composition.relaxation import Settings
from alchemdriver.composition.scan import scan, simplex_grid

SETTINGS = Settings(force=1e-4, stress=1e-6, optimiser="bfgs")
EDGE = np.sqrt(2.0)  # of the cubic cell, in units of the primitive vectors
# Li, Na, K; inside the simplex, on both sides of the curve
STARTS = ([0.8, 0.15, 0.05], [0.6, 0.05, 0.35], [0.1, 0.1, 0.8])
TOLERANCE = 1e-5  # eV/Å³, about 2e-4 Å of the edge


def main() -> None:
    chosen = arguments(__doc__, divisions=(10, "steps of the composition along an edge"))
    backend, digest = open_model(chosen.model)
    mixture = Mixture.from_text(sodium_chloride(), ["Na->Li->K"])
    grid = [[na, li, k] for li, na, k in simplex_grid(3, chosen.divisions)]
    relaxed = scan(mixture, grid, backend, SETTINGS, chosen.out / "scan.jsonl", model_digest=digest)
    pure = next(p for p in relaxed.points if p.weights[0] == 1.0)

    held = Mixture(pure.atoms, mixture.sublattices, mixture.labels)
    stress = AtFixedCell(held, backend, hydrostatic_stress)
    values, gradients = [], []
    for w in grid:
        point = torch.tensor(w, dtype=torch.float64, requires_grad=True)
        value = stress([point])
        value.backward()
        values.append(value.item())
        gradients.append(point.grad.tolist())

    paths = {}
    for method in ("projected", "exponentiated"):
        for li, na, k in STARTS:
            found = optimize(stress, [[na, li, k]], TOLERANCE, method=method)
            end = found.best.compositions[0]
            edge = EDGE * scan(mixture, [end.tolist()], backend, SETTINGS).column("a")[0]
            key = f"{method} from Li {li} Na {na} K {k}"
            paths[key] = {
                "met": found.met,
                "compositions Na Li K": [s.compositions[0].tolist() for s in found.history],
                "objective eV/Å³": [s.value for s in found.history],
                "evaluations": found.evaluations,
                "relaxed edge at the end, Å": edge,
                "edge of NaCl, Å": EDGE * pure.lengths[0],
            }
            print(f"{key}: {found.message}; edge {edge:.5f} Å, NaCl {EDGE * pure.lengths[0]:.5f} Å")
    content = {
        "model": chosen.model,
        "composition Na Li K": grid,
        "edge Å": (EDGE * relaxed.column("a")).tolist(),
        "stress eV/Å³": values,
        "gradient eV/Å³": gradients,
        "descents": paths,
    }
    (chosen.out / "ternary.json").write_text(json.dumps(content, indent=1) + "\n")
    corners = ("NaCl", "LiCl", "KCl")
    points, edges, level = np.array(grid), np.array(content["edge Å"]), EDGE * pure.lengths[0]
    lines = [np.array(p["compositions Na Li K"]) for n, p in paths.items() if "projected" in n]
    stress_map = (1e3 * np.array(values), np.array(gradients), edges, level, lines, corners)
    plots.save_row(
        *(chosen.out / "ternary.png", (7.2, 3.2)),
        [
            lambda ax: plots.ternary_map(ax, points, edges, corners, "a (Å)", level),
            lambda ax: plots.descents(ax, points, *stress_map, "|tr σ|/3 (meV/Å³)"),
        ],
    )


if __name__ == "__main__":
    main()
