"""Figure 3b: the composition of wurtzite Al(1-x)Sc(x)N (or Y) whose a is that of GaN, four ways.

    python examples/figure3b_nitride_lattice_matching.py --out runs/nitride
    … --metal Y

1. scan: relaxed cells against x;  2. descent of abs(σ_xx + σ_yy) at GaN's a, with c and positions
relaxed at every composition (implicit differentiation);  3. the paper's joint descent of c and
composition;  4. descent of abs(a − a_GaN) of the free cell;  5. supercells with whole atoms, random
and quasirandom, at the compositions n/16.
"""

from __future__ import annotations

import json

import numpy as np
from ase import Atoms
from common import arguments, open_model
from structures import aluminium_nitride, gallium_nitride

from alchemdriver.composition import plots
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.objectives import AtRelaxedCell, biaxial_stress, cell_length
from alchemdriver.composition.optimize import joint_descent, optimize
from alchemdriver.composition.relaxation import Settings, relax, relax_atoms
from alchemdriver.composition.scan import scan, table
from alchemdriver.composition.supercells import random_cells, sqs

FREE = Settings(force=1e-4, stress=1e-6, optimiser="bfgs")
HELD = Settings(cell="c-only", force=1e-4, stress=1e-6, optimiser="bfgs")
SUPERCELL = Settings(symmetry=False, force=5e-3, stress=2e-5, optimiser="bfgs")
X = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]


def crossing(x: np.ndarray, a: np.ndarray, target: float) -> float:
    """First x at which the piecewise straight line through (x, a) reaches *target*."""
    for n in range(len(x) - 1):
        if (a[n] - target) * (a[n + 1] - target) <= 0:
            return float(x[n] + (target - a[n]) / (a[n + 1] - a[n]) * (x[n + 1] - x[n]))
    raise SystemExit(f"the scan does not reach a = {target:.4f} Å")


def supercells(backend, mixture, out, metal, samples, seed, counts):
    """{x: [a of each random cell], …} and {x: a of the quasirandom cell}, from 2×2×2 cells."""
    from alchemdriver.composition.records import Journal

    large = Mixture.from_text(mixture.atoms.repeat(2), [f"Al->{metal}"])
    header = {"model": backend.name, "metal": metal, "seed": seed}
    journal = Journal(out / f"supercells-{metal}.jsonl", header)
    found = {}
    for n in counts:
        w = [1.0 - n / 16, n / 16]
        cells = dict(enumerate(random_cells(large, w, samples, seed + n)))
        cells |= {"sqs": sqs(large, w, seed)}
        for name, atoms in cells.items():
            key = f"{n}/16 {name}"
            kept = journal.get(key)
            if kept is None:
                kept = journal.add(key, {"a": in_plane(relax_atoms(atoms, backend, SUPERCELL))})
                print(key, kept["a"], flush=True)
            found[key] = kept["a"]
    return found


def in_plane(atoms: Atoms) -> float:
    """a (Å) of a 2×2×2 cell: from the area of its base, which shear does not change."""
    area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])) / 4
    return float(np.sqrt(area / np.sin(np.pi / 3)))


def main() -> None:
    chosen = arguments(
        __doc__,
        metal=("Sc", "Sc or Y"),
        samples=(4, "random supercells per composition"),
        seed=(1, "of the supercells"),
    )
    backend, digest = open_model(chosen.model)
    metal, out = chosen.metal, chosen.out
    gan = gallium_nitride()
    target = float(relax_atoms(gan, backend, FREE).cell.lengths()[0])
    print(f"GaN with {chosen.model}: a = {target:.4f} Å")

    mixture = Mixture.from_text(aluminium_nitride(), [f"Al->{metal}"])
    weights = [[1.0 - x, x] for x in X]
    scanned = scan(
        mixture, weights, backend, FREE, out / f"scan-{metal}.jsonl", model_digest=digest
    )
    print(table(scanned))
    a = scanned.column("a")
    results = {"scan": crossing(np.array(X), a, target)}
    print(f"scan: x = {results['scan']:.4f}")

    # a and b held at GaN's: c starts from the scanned cell, as the paper's from that of GaN
    strained = mixture.atoms.copy()
    near = relax(mixture, [0.9, 0.1], backend, FREE).atoms.cell.array
    scale = target / np.linalg.norm(near[0])
    strained.set_cell(np.array([near[0] * scale, near[1] * scale, near[2]]), scale_atoms=True)
    held = Mixture(strained, mixture.sublattices, mixture.labels)
    implicit = optimize(AtRelaxedCell(held, backend, biaxial_stress, HELD), [[0.95, 0.05]], 1e-5)
    results["stress, implicit"] = float(implicit.best.compositions[0][1])
    print(f"abs(σ_xx + σ_yy): {implicit.message} ({implicit.evaluations} evaluations)")

    joint = joint_descent(held, backend, biaxial_stress, [0.95, 0.05], rate_weights=0.03)
    results["stress, joint descent"] = float(joint[-1].weights[1])
    print(f"joint descent: x = {joint[-1].weights[1]:.4f}, {len(joint)} steps, {joint[-1]}")

    free = optimize(
        AtRelaxedCell(mixture, backend, cell_length("a", target), FREE), [[0.95, 0.05]], 2e-5
    )
    results["edge, implicit"] = float(free.best.compositions[0][1])
    print(f"abs(a - a_GaN): {free.message} ({free.evaluations} evaluations)")

    n0 = int(np.floor(16 * results["scan"]))
    cells = supercells(backend, mixture, out, metal, chosen.samples, chosen.seed, (n0, n0 + 1))
    mean, error = {}, {}
    for n in (n0, n0 + 1):
        values = [v for k, v in cells.items() if k.startswith(f"{n}/16 ") and "sqs" not in k]
        mean[n] = float(np.mean(values))
        error[n] = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    share = (target - mean[n0]) / (mean[n0 + 1] - mean[n0])
    slope = 16 * (mean[n0 + 1] - mean[n0])
    results["supercells"] = (n0 + share) / 16
    spread = np.hypot((1 - share) * error[n0], share * error[n0 + 1]) / abs(slope)
    print(f"supercells: x = {results['supercells']:.4f} ± {spread:.4f} (standard error)")
    content = {
        "model": chosen.model,
        "a of GaN, Å": target,
        "x": X,
        "a, Å": a.tolist(),
        "c, Å": scanned.column("c").tolist(),
        "matched x": results,
        "standard error of supercells' x": float(spread),
        "supercells": cells,
        "joint descent": [[float(s.weights[1]), float(s.cell[2, 2]), s.value] for s in joint],
        "implicit descent": [[float(s.compositions[0][1]), s.value] for s in implicit.history],
    }
    (out / f"nitride-{metal}.json").write_text(json.dumps(content, indent=1) + "\n")
    plots.save(
        out / f"nitride-{metal}.png",
        *((3.6, 3.2), plots.lattice_matching, np.array(X), a, target),
        optimised={k: v for k, v in results.items() if k not in ("scan", "supercells")},
        supercells={n / 16: (mean[n], error[n]) for n in mean},
        quasirandom={n / 16: cells[f"{n}/16 sqs"] for n in mean},
        label=f"x in Al(1−x){metal}(x)N",
    )


if __name__ == "__main__":
    main()
