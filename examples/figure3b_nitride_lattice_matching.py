"""Figure 3b: the composition of wurtzite Al(1-x)Sc(x)N (or Y) whose a is that of GaN, five ways.

    python examples/figure3b_nitride_lattice_matching.py --out runs/nitride
    … --metal Y

1. scan: relaxed cells against x;  2. descent of abs(σ_xx + σ_yy) at GaN's a, with c and positions
relaxed at every composition (implicit differentiation);  3. the paper's joint descent of c and
composition;  4. descent of abs(a − a_GaN) of the free cell;  5. supercells with whole atoms, random
and quasirandom, at compositions on both sides of a of GaN.  What is finished stays in --out: a
second call with more --samples adds to it.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from common import arguments, open_model
from structures import aluminium_nitride, gallium_nitride

from alchemdriver import AlchemicalCalculator
from alchemdriver.composition import plots
from alchemdriver.composition.journal import Journal
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.objectives import AtRelaxedCell, biaxial_stress, cell_length
from alchemdriver.composition.optimize import joint_descent, optimize
from alchemdriver.composition.relaxation import Settings, relax, relax_atoms
from alchemdriver.composition.scan import scan, table
from alchemdriver.composition.supercells import random_cells, sqs
from alchemdriver.contract.text import parse_supercell

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


class Supercells:
    """a (Å) of repeated cells with whole atoms; every relaxation is kept in *journal*.

    Of each cell two numbers: fully relaxed, and with its atoms held on the sites of the mixed
    crystal, the cell alone relaxed.  The second against the mixed crystal is what its energy misses
    of an average over whole atoms; the first against the second, what atoms do by leaving sites.
    """

    def __init__(self, backend, mixture: Mixture, journal: Journal, metal, cell, samples, seed):
        self.backend, self.mixture, self.journal = backend, mixture, journal
        self.metal, self.samples, self.seed = metal, samples, seed
        self.repeat = parse_supercell(cell)
        self.sites = 2 * int(np.prod(self.repeat))

    def at(self, n: int) -> dict:
        """{"x", "mixed": a, "random": (samples, 2), "sqs": (2,)} with n of the sites replaced."""
        w = [1.0 - n / self.sites, n / self.sites]
        crystal = relax(self.mixture, w, self.backend, FREE).atoms
        large = Mixture.from_text(crystal.repeat(self.repeat), [f"Al->{self.metal}"])
        cells = random_cells(large, w, self.samples, self.seed + n)
        return {
            "x": w[1],
            "mixed": float(crystal.cell.lengths()[0]),
            "sqs": self._edges(f"{n}/{self.sites} sqs", sqs(large, w, self.seed)),
            "random": [self._edges(f"{n}/{self.sites} {m}", c) for m, c in enumerate(cells)],
        }

    def across(self, x: float, target: float) -> list[dict]:
        """Compositions about *x*, 1/12 apart, the mean relaxed a on both sides of *target*.

        Closer ones would be told apart by the scatter of a few cells rather than by x.
        """
        step = max(1, self.sites // 12)
        n = int(x * self.sites)
        found = {n: self.at(n)}
        while mean_and_error(found[min(found)], RELAXED)[0] >= target:
            found[min(found) - step] = self.at(min(found) - step)
        while mean_and_error(found[max(found)], RELAXED)[0] < target:
            found[max(found) + step] = self.at(max(found) + step)
        return [found[n] for n in sorted(found)]

    def _edges(self, key: str, atoms: Atoms) -> list[float]:
        kept = self.journal.get(key)
        if kept is None:
            found = relax_atoms(atoms, self.backend, SUPERCELL), self._cell_alone(atoms)
            kept = self.journal.add(key, {"a": [self._edge(f) for f in found]})
            print(key, kept["a"], flush=True)
        return kept["a"]

    def _cell_alone(self, atoms: Atoms) -> Atoms:
        atoms = atoms.copy()
        atoms.set_constraint(FixAtoms(range(len(atoms))))
        atoms.calc = AlchemicalCalculator(atoms, [], [], model=self.backend)
        for _ in BFGS(FrechetCellFilter(atoms), logfile=None).irun(fmax=0.0, steps=200):
            if np.abs(atoms.get_stress()).max() < SUPERCELL.stress:
                return atoms
        raise SystemExit(f"{atoms.symbols}: the cell did not relax")

    def _edge(self, atoms: Atoms) -> float:
        """From the area of the base, which shear does not change."""
        area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))
        return float(np.sqrt(area / (self.repeat[0] * self.repeat[1]) / np.sin(np.pi / 3)))


RELAXED, ON_SITES = 0, 1  # of the two numbers of a cell


def mean_and_error(at: dict, which: int) -> tuple[float, float]:
    """Mean a of the random cells and its standard error, Å."""
    a = np.array(at["random"])[:, which]
    return float(a.mean()), float(a.std(ddof=1) / np.sqrt(len(a)))


def matched(cells: list[dict], which: int, target: float) -> dict[str, float]:
    """x at which the straight line between neighbouring compositions reaches *target*, with its
    standard error to first order in those of both means."""
    means, errors = zip(*(mean_and_error(at, which) for at in cells), strict=True)
    n = next((n for n in range(len(cells) - 2) if means[n + 1] >= target), len(cells) - 2)
    width = cells[n + 1]["x"] - cells[n]["x"]
    share = (target - means[n]) / (means[n + 1] - means[n])
    error = np.hypot((1 - share) * errors[n], share * errors[n + 1]) / (means[n + 1] - means[n])
    return {"x": float(cells[n]["x"] + share * width), "standard error": float(error * width)}


def kept(journal: Journal, key: str, compute) -> dict:
    """The record of *key*, computed unless the journal has it."""
    return journal.get(key) or journal.add(key, compute())


def descent(objective, tolerance: float) -> dict:
    found = optimize(objective, [[0.95, 0.05]], tolerance)
    steps = [[float(step.compositions[0][1]), step.value] for step in found.history]
    return {"x": float(found.best.compositions[0][1]), "met": found.met, "x, value": steps}


def main() -> None:
    chosen = arguments(
        __doc__,
        metal=("Sc", "Sc or Y"),
        cell=("3x3x2", "repeats of the four-atom cell for whole atoms; the paper: 4x4x4"),
        samples=(6, "random supercells per composition"),
        seed=(1, "of the supercells"),
    )
    if chosen.samples < 2:
        raise SystemExit("--samples: expected at least 2, for a standard error")
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
    x = crossing(np.array(X), a, target)
    print(f"scan: x = {x:.4f}")

    # a and b held at GaN's: c starts from the scanned cell, as the paper's from that of GaN
    strained = mixture.atoms.copy()
    near = relax(mixture, [0.9, 0.1], backend, FREE).atoms.cell.array
    scale = target / np.linalg.norm(near[0])
    strained.set_cell(np.array([near[0] * scale, near[1] * scale, near[2]]), scale_atoms=True)
    held = Mixture(strained, mixture.sublattices, mixture.labels)

    def joint() -> dict:
        steps = joint_descent(held, backend, biaxial_stress, [0.95, 0.05], rate_weights=0.03)
        last = steps[-1]
        return {
            "x": float(last.weights[1]),
            "left: abs(σ_xx + σ_yy), σ_zz, eV/Å³": [last.value, last.stress_zz],
            "x, c, value": [[float(s.weights[1]), float(s.cell[2, 2]), s.value] for s in steps],
        }

    header = {"model": chosen.model, "digest": digest, "metal": metal}
    journal = Journal(out / f"descents-{metal}.jsonl", header, dict[str, Any])
    stress = AtRelaxedCell(held, backend, biaxial_stress, HELD)
    edge = AtRelaxedCell(mixture, backend, cell_length("a", target), FREE)
    descents = {
        "stress, implicit": kept(journal, "stress", lambda: descent(stress, 1e-5)),
        "stress, joint": kept(journal, "joint", joint),
        "edge, implicit": kept(journal, "edge", lambda: descent(edge, 2e-5)),
    }
    for name, found in descents.items():
        print(f"descent of {name}: x = {found['x']:.4f}")

    header |= {"cell": chosen.cell, "seed": chosen.seed}
    journal = Journal(out / f"supercells-{metal}-{chosen.cell}.jsonl", header, dict[str, Any])
    cells = Supercells(
        *(backend, mixture, journal, metal, chosen.cell, chosen.samples, chosen.seed)
    ).across(x, target)
    whole = {
        "relaxed": matched(cells, RELAXED, target),
        "atoms on the mixed crystal's sites": matched(cells, ON_SITES, target),
    }
    for name, found in whole.items():
        print(f"supercells, {name}: x = {found['x']:.4f} ± {found['standard error']:.4f}")
    for at in cells:
        (a0, e0), (a1, e1) = mean_and_error(at, ON_SITES), mean_and_error(at, RELAXED)
        print(
            f"x = {at['x']:.4f}: a of the mixed crystal {at['mixed']:.4f} Å; of random cells with "
            f"atoms on its sites {a0:.4f} ± {e0:.4f} Å, relaxed {a1:.4f} ± {e1:.4f} Å; of the SQS "
            f"{at['sqs'][ON_SITES]:.4f} and {at['sqs'][RELAXED]:.4f} Å"
        )
    content = {
        "model": chosen.model,
        "a of GaN, Å": target,
        "scan": {"x": X, "a, Å": a.tolist(), "c, Å": scanned.column("c").tolist(), "matched": x},
        "descents": descents,
        "supercell": chosen.cell,
        "supercells: a relaxed, a on the mixed crystal's sites, Å": cells,
        "supercells, matched": whole,
    }
    (out / f"nitride-{metal}.json").write_text(json.dumps(content, indent=1) + "\n")
    plots.save(
        out / f"nitride-{metal}.png",
        *((3.6, 3.2), plots.lattice_matching, np.array(X), a, target),
        optimised={name: found["x"] for name, found in descents.items()},
        supercells={at["x"]: mean_and_error(at, RELAXED) for at in cells},
        on_sites={at["x"]: mean_and_error(at, ON_SITES) for at in cells},
        quasirandom={at["x"]: at["sqs"][RELAXED] for at in cells},
        label=f"x in Al(1−x){metal}(x)N",
    )


if __name__ == "__main__":
    main()
