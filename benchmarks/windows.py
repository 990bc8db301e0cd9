"""ΔG of the demo by equilibrium windows, against the switches of interpolation.json.

    python benchmarks/windows.py FOLDER    # runs what is missing, writes windows.json

The same crystal, conditions and end states; five Gauss–Legendre windows instead of sixteen pairs of
switches.  Seeds and lengths were fixed before the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from alchemdriver.analysis import analyze
from alchemdriver.contract.layout import find_runs
from alchemdriver.prepare.demo import PRESSURE, TEMPERATURE, TIMESTEP, alpha_cspbi3
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.windows import nodes, prepare_windows

SEED, WINDOWS, STEPS = 30501, 5, 3000


def main(folder: Path) -> None:
    if not folder.exists():
        settings = Settings(TEMPERATURE, PRESSURE, TIMESTEP, total_steps=STEPS, seed=SEED)
        keys = {"model": "demo", "alchemy": "Pb->Sn"}
        prepare_windows("windows-npt", alpha_cspbi3(), folder, keys, nodes(WINDOWS, None), settings)
    command = [
        sys.executable,
        "-m",
        "alchemdriver",
        "run",
        str(folder),
        "--jobs",
        "1",
        "--threads",
        "1",
    ]
    subprocess.run(command, check=True)
    result = analyze(find_runs(folder), write=False)
    switching = json.loads(Path(__file__).with_name("interpolation.json").read_text())["runs"]
    reference = switching["alchemical, all seeds"]
    m = result.mbar
    content = {
        "windows": [
            {
                "lambda": w.lam,
                "mean meV": round(1e3 * w.mean.value, 3),
                "SE": None if w.mean.se is None else round(1e3 * w.mean.se, 3),
                "independent": w.mean.n,
            }
            for w in result.windows
        ],
        "overlap of neighbours": [round(x, 4) for x in m.neighbours.tolist()],
        "effective samples": dict(
            zip(map(repr, m.lambdas.tolist()), m.effective_samples.round(1).tolist(), strict=True)
        ),
        "steps": WINDOWS * STEPS,
        "warnings": list(result.warnings),
    }
    for method in ("TI", "MBAR"):
        total = result.total(method)
        value, se = 1e3 * total.per_formula_unit, 1e3 * total.per_formula_unit_se
        delta = value - reference["BAR meV/f.u."]
        sigma = (se**2 + reference["BAR SE"] ** 2) ** 0.5
        content[method] = {
            "meV/f.u.": round(value, 3),
            "SE": round(se, 3),
            "minus BAR of the switches": round(delta, 3),
            "in sigma": round(delta / sigma, 2),
        }
    Path(__file__).with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/windows.py FOLDER")
    main(Path(sys.argv[1]))
