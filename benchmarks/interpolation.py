"""ΔG of the demo: its spread over seeds, and alchemical against linear interpolation.

    python benchmarks/interpolation.py FOLDER    # runs what is missing, writes interpolation.json

The end states are the same whatever lies between, so both paths must give one ΔG.  Seeds and
lengths were fixed before the first run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from alchemdriver.analysis import analyze
from alchemdriver.contract.layout import find_runs
from alchemdriver.prepare.demo import prepare_demo

SEEDS = (20404, 20414, 20424, 20434)  # of the first replica; the second has the next number
LINEAR = {"interpolation": "linear", "cycles": "4"}
LINEAR_SEED = 20444


def run(folder: Path, seed: int, **parameters: str) -> None:
    """The demo in *folder*, resumed if it is there."""
    if not folder.exists():
        prepare_demo(folder, seed, **parameters)
    subprocess.run([sys.executable, "-m", "alchemdriver", "run", str(folder)], check=True)


def numbers(result) -> dict[str, float]:
    """ΔG per formula unit and its standard error (meV) by both estimators, and what else counts."""
    out = {"pairs": result.pooled.n, "dissipation_kT": round(result.pooled.dissipation.mean_kT, 3)}
    for method in ("eq. 11", "BAR"):
        total = result.total(method)
        out[f"{method} meV/f.u."] = round(1e3 * total.per_formula_unit, 3)
        out[f"{method} SE"] = round(1e3 * total.per_formula_unit_se, 3)
    drifts = [replica.first_law for replica in result.replicas]
    out["first-law drift eV/atom/ps"] = max((d.drift for d in drifts), key=abs)
    out["first-law deviation eV/atom"] = max(d.max_deviation for d in drifts)
    return out


def main(folder: Path) -> None:
    demos = [folder / f"demo-{seed}" for seed in SEEDS]
    for path, seed in zip(demos, SEEDS, strict=True):
        run(path, seed)
    run(folder / "linear", LINEAR_SEED, **LINEAR)

    table = {path.name: numbers(analyze(find_runs(path), write=False)) for path in demos}
    replicas = [replica for path in demos for replica in find_runs(path)]
    table["alchemical, all seeds"] = numbers(analyze(replicas, write=False))
    table["linear"] = numbers(analyze(find_runs(folder / "linear"), write=False))
    spread = {}
    for method in ("eq. 11", "BAR"):
        values = [table[path.name][f"{method} meV/f.u."] for path in demos]
        a, b = table["alchemical, all seeds"], table["linear"]
        delta = a[f"{method} meV/f.u."] - b[f"{method} meV/f.u."]
        sigma = (a[f"{method} SE"] ** 2 + b[f"{method} SE"] ** 2) ** 0.5
        spread[method] = {
            "SD over 4 demos meV/f.u.": round(statistics.stdev(values), 3),
            "alchemical - linear meV/f.u.": round(delta, 3),
            "sigma meV/f.u.": round(sigma, 3),
            "in sigma": round(delta / sigma, 2),
        }
    content = {"runs": table, "comparison": spread}
    Path(__file__).with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/interpolation.py FOLDER")
    main(Path(sys.argv[1]))
