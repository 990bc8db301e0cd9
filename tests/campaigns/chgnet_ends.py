"""Ends of figure S3 against stock CHGNet relaxed by ASE alone.

    python -m campaigns.chgnet_ends FOLDER

FOLDER is that of examples/figure2_figureS3_solid_solutions.py.  Prints and writes
benchmarks/chgnet_ends.json: lattice parameters of every pure compound, by the alchemical cell at
its end weights and by stock CHGNet in float64 from the same start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from helpers import stock_chgnet

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))


def main(folder: Path) -> None:
    from structures import bismuth_sulfobromide, ceria

    starts = {f"Ce-{m}": (ceria(), "Ce", ("Ce", m)) for m in ("Zr", "Sn")}
    for x, y in (("Cl", "I"), ("Cl", "Br"), ("Br", "I")):
        starts[f"BiS-{x}-{y}"] = (bismuth_sulfobromide(), "Br", (x, y))
    table = {}
    for name, (parent, mixed, elements) in starts.items():
        lines = (folder / f"{name}.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines[1:]]
        for end, element in enumerate(elements):
            entry = next(e for e in entries if e["weights"][end] == 1.0)
            atoms = parent.copy()
            atoms.symbols[[i for i, s in enumerate(atoms.symbols) if s == mixed]] = element
            formula = atoms.get_chemical_formula()
            ours = np.linalg.norm(entry["atoms"]["cell"], axis=1)
            if formula not in table:
                found = stock_chgnet.relaxed(atoms, 1e-4, 1e-6).cell.lengths()
                table[formula] = {"stock, Å": found.tolist(), "alchemical, Å": {}}
            row = table[formula]
            row["alchemical, Å"][name] = ours.tolist()
            row["largest difference, Å"] = max(
                float(np.abs(np.array(v) - row["stock, Å"]).max())
                for v in row["alchemical, Å"].values()
            )
            print(formula, name, row["largest difference, Å"], flush=True)
    path = ROOT / "benchmarks" / "chgnet_ends.json"
    path.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m campaigns.chgnet_ends FOLDER")
    main(Path(sys.argv[1]))
