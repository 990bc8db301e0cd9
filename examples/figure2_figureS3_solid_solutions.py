"""Figures 2 and S3: lattice parameters of Ce(1-x)M(x)O2 (M = Zr, Sn) and BiSX(1-x)Y(x).

    python examples/figure2_figureS3_solid_solutions.py --out runs/solid-solutions
    … --model mace-mp-0-medium          # the paper's figure 2; the default model is figure S3

Relaxed at fixed weights in the primitive cells, symmetry kept; finished points are kept in --out.
"""

from __future__ import annotations

import json

import numpy as np
from common import arguments, open_model
from structures import bismuth_sulfobromide, ceria

from alchemdriver.composition import plots
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.relaxation import Settings
from alchemdriver.composition.scan import compositions_along, scan, table

# Tighter than the default: the chains of BiSX hold to each other weakly.
SETTINGS = Settings(force=1e-4, stress=1e-6, optimiser="bfgs")


def oxides(backend, digest, out, points):
    """x -> a (Å) of the conventional cell, one scan per M."""
    found = {}
    for m in ("Zr", "Sn"):
        mixture = Mixture.from_text(ceria(), [f"Ce->{m}"])
        weights = compositions_along(points)
        done = scan(mixture, weights, backend, SETTINGS, out / f"Ce-{m}.jsonl", model_digest=digest)
        print(f"Ce(1-x){m}(x)O2, primitive cell\n{table(done)}\n")
        found[m] = np.sqrt(2.0) * done.column("a")
    return found


def halides(backend, digest, out, points):
    """x -> a, b, c (Å) for every pair of halogens."""
    found = {}
    for x, y in (("Cl", "I"), ("Cl", "Br"), ("Br", "I")):
        parent = bismuth_sulfobromide()
        parent.symbols[[i for i, s in enumerate(parent.symbols) if s == "Br"]] = x
        mixture = Mixture.from_text(parent, [f"{x}->{y}"])
        weights = compositions_along(points)
        done = scan(
            mixture, weights, backend, SETTINGS, out / f"BiS-{x}-{y}.jsonl", model_digest=digest
        )
        print(f"BiS{x}(1-x){y}(x)\n{table(done)}\n")
        found[f"{x}-{y}"] = np.stack([done.column(name) for name in "abc"])
    return found


def main() -> None:
    chosen = arguments(__doc__, points=(11, "compositions per scan"))
    backend, digest = open_model(chosen.model)
    ce = oxides(backend, digest, chosen.out, chosen.points)
    bi = halides(backend, digest, chosen.out, chosen.points)
    x = np.linspace(0.0, 1.0, chosen.points)
    content = {
        "model": chosen.model,
        "x": x.tolist(),
        "Ce(1-x)M(x)O2, a in Å": {m: a.tolist() for m, a in ce.items()},
        "BiSX(1-x)Y(x), a, b, c in Å": {pair: abc.tolist() for pair, abc in bi.items()},
    }
    (chosen.out / "lattice.json").write_text(json.dumps(content, indent=1) + "\n")
    panels = [(ce, "a of Ce(1−x)M(x)O2 (Å)")]
    for row, name in enumerate("abc"):
        panels.append(
            ({pair: abc[row] for pair, abc in bi.items()}, f"{name} of BiSX(1−x)Y(x) (Å)")
        )
    plots.save_row(
        *(chosen.out / "lattice.png", (10.5, 2.9)),
        [lambda ax, p=panel: plots.against_vegard(ax, x, *p) for panel in panels],
    )


if __name__ == "__main__":
    main()
