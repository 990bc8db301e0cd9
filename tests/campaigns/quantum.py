"""Oscillators with quantum nuclei through real i-PI and sockets, against exact values: one command.

    python -m campaigns.quantum FOLDER [--output benchmarks/quantum_oscillator.json]

Runs every state of ``STATES`` and ``CONVERGENCE`` (seeds fixed in advance) that the output does not
hold yet below FOLDER, resuming what is there: U by switching work at the mass of H, the masses by
the mass leg, and one bead for the classical value.  Writes works, means, settings, versions and
verdicts.  ``--table FILE`` judges the numbers in FILE again.  ``quantum_oscillator.py`` says what
they must be.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from helpers import real_runs as rr
from helpers.quantum_oscillator import KT, TEMPERATURE, Oscillators

from alchemdriver.analysis import analyze, analyze_works

RESULT = Path(__file__).parents[2] / "benchmarks" / "quantum_oscillator.json"
LIMIT_Z = 3.0  # standard errors
LIMIT_P = 0.01  # abs(F_P − F_∞) of the quantum part
LENGTHS = {"equilibrate": 60, "switch": 120, "cycles": 20, "points": 3, "steps": 2500}
FEWER = LENGTHS | {"cycles": 5}  # many beads take long
SEEDS = {1.0: (1, 2), 5.0: (1, 2), 15.0: (1,)}
# βħω of the initial state, beads: enough for LIMIT_P, and below that for the convergence
STATES = [
    Oscillators(1.0, 12, **LENGTHS),
    Oscillators(5.0, 20, **LENGTHS),
    Oscillators(15.0, 40, **FEWER),
]
CONVERGENCE = [Oscillators(5.0, beads, **LENGTHS) for beads in (8, 4)]


def measure(folder: Path, o: Oscillators, seed: int, beads: int) -> dict:
    """Works and mass leg of one seed; runs what is missing."""
    if not (folder / "input.xml").exists():
        o.write(folder, seed, beads)
    targets = [folder] if beads == 1 else [folder / "mass-leg", folder]
    for target in targets:
        done = rr.command("run", "--jobs", 1, target, limit=None)
        assert done.returncode == 0, done.stderr
    result = analyze(folder, write=False)
    replica = result.replicas[0]
    found = {
        "beads": beads,
        "seed": seed,
        "forward": replica.forward.tolist(),
        "backward": replica.backward.tolist(),
        "first_law_drift": replica.first_law.drift,
        "warnings": list(result.warnings),
    }
    if result.mass_leg is not None:
        leg = result.mass_leg
        found["mass_leg"] = {"value": leg.value, "se": leg.se}
        found["points"] = [
            {"s": p.s, "mean": p.mean.value, "se": p.mean.se, "independent": p.mean.n}
            for p in leg.points
        ]
    return found


def collect(folder: Path, o: Oscillators, seeds: tuple[int, ...]) -> dict:
    runs = [measure(folder / f"seed-{s}", o, s, o.beads) for s in seeds]
    classical = [measure(folder / f"classical-{s}", o, s, 1) for s in seeds]
    versions = analyze(folder / f"classical-{seeds[0]}", write=False).versions
    return {
        "settings": asdict(o),
        "versions": versions | {"python": platform.python_version()},
        "runs": runs,
        "classical": classical,
    }


def switched(runs: list[dict]) -> tuple[float, float]:
    """BAR's ΔF of all works together, and its SE, eV."""
    forward, backward = (np.concatenate([r[key] for r in runs]) for key in ("forward", "backward"))
    chains = [len(r["forward"]) for r in runs]
    found = analyze_works(forward, backward, TEMPERATURE, chains).bar
    return found.value, found.se


def averaged(runs: list[dict]) -> tuple[float, float]:
    """The mass leg over seeds, and its SE, eV."""
    legs = [r["mass_leg"] for r in runs]
    value = np.mean([leg["value"] for leg in legs])
    return float(value), float(np.linalg.norm([leg["se"] for leg in legs]) / len(legs))


def rows(data: dict) -> list[tuple[str, float, float, float]]:
    """(quantity, value, exact, SE) of one state, eV."""
    o = Oscillators(**data["settings"])
    (u, u_se), (mass, mass_se) = switched(data["runs"]), averaged(data["runs"])
    classical, classical_se = switched(data["classical"])
    exact_u, exact_mass = o.legs(o.beads)
    exact_classical, exact_classical_mass = o.legs(1)
    correction = u + mass - classical - exact_classical_mass  # eq. 22 is exact
    return [
        ("U, force constants", u, exact_u, u_se),
        ("masses", mass, exact_mass, mass_se),
        ("total", u + mass, exact_u + exact_mass, float(np.hypot(u_se, mass_se))),
        ("classical U", classical, exact_classical, classical_se),
        (
            "quantum − classical",
            correction,
            exact_u + exact_mass - exact_classical - exact_classical_mass,
            float(np.sqrt(u_se**2 + mass_se**2 + classical_se**2)),
        ),
    ]


def table(states: list[dict]) -> list[str]:
    lines = []
    for data in states:
        o = Oscillators(**data["settings"])
        lines.append(
            f"βħω = {o.x:g}, {o.beads} beads, {len(data['runs'])} seeds; abs(F_P − F_∞) is "
            f"{100 * o.discretisation:.2f} % of the quantum part; meV of {4} atoms"
        )
        for name, value, exact, se in rows(data):
            lines.append(
                f"  {name:22s} {1e3 * value:9.2f}  exact {1e3 * exact:9.2f}  SE {1e3 * se:6.2f}"
                f"  {(value - exact) / se:+6.2f} SE  ({value / KT:.2f} kT)"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        content = json.loads(args.table.read_text())
        print("\n".join(table(content["states"] + content["convergence"])))
        return
    if args.folder is None:
        parser.error("a folder for the runs is missing")
    before = json.loads(args.output.read_text()) if args.output.exists() else {}
    found = {"states": [], "convergence": []}
    folder = args.folder.resolve()
    for key, states in (("states", STATES), ("convergence", CONVERGENCE)):
        for o in states:
            there = [d for d in before.get(key, []) if d["settings"] == asdict(o)]
            if there:
                found[key] += there
                continue
            began = time.monotonic()
            found[key].append(collect(folder / f"x{o.x:g}-p{o.beads}", o, SEEDS[o.x]))
            print(f"{o.x:g}, {o.beads} beads: {time.monotonic() - began:.0f} s", flush=True)
    content = {
        "command": "python -m campaigns.quantum FOLDER",
        "units": "works and means eV, drift eV per atom and ps",
        **found,
    }
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(table(found["states"] + found["convergence"])))


if __name__ == "__main__":
    main()
