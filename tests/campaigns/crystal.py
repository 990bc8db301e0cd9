"""Frenkel–Ladd through real i-PI and real sockets against closed forms: one command.

    python -m campaigns.crystal FOLDER [--jobs 2] [--output benchmarks/crystal.json]

Runs every set of ``SETS`` (seeds fixed in advance) below FOLDER, resuming what is there, and writes
every work, all settings, versions, seeds and the table of verdicts.  ``--table FILE`` prints the
table again from FILE.

A binary crystal of coupled springs (``exact_crystal.py``), Einstein springs at least 30 % off, the
centre of mass fixed.  What ``alchemdriver.analysis.analyze`` calls the total is compared with the
exact absolute free energy, zero-point part included where there are beads.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from helpers import exact_crystal as exact
from helpers import real_runs as rr

from alchemdriver.analysis import analyze, analyze_works, switching_work
from alchemdriver.contract.run_input import read_input
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from campaigns.oscillator import finished, replace_once

RESULT = Path(__file__).parents[2] / "benchmarks" / "crystal.json"
TEMPERATURE = 50.0  # K
LIMIT_Z = 3.0  # standard errors
LIMIT = 0.1  # meV per atom


@dataclass(frozen=True)
class Set:
    """Runs that differ in their seed alone; lengths in steps."""

    elements: tuple[str, str] = ("Al", "Ni")
    repeat: int = 2  # cells of two atoms along each axis
    beads: int = 1
    seeds: tuple[int, ...] = (0, 1)
    cycles: int = 6
    equilibrate: int = 80
    switch: int = 400
    timestep: float = 3.0  # fs
    tau: float = 50.0  # fs, Langevin

    @property
    def structure(self):
        return exact.crystal(self.elements, self.repeat)


# By quadrature over the integrator's own variances, its time step shifts these totals by at most
# 0.012 meV per atom.
SETS = {
    "16 atoms": Set(),
    "54 atoms": Set(repeat=3, cycles=3),
    "16 atoms, other masses": Set(elements=("Al", "Au")),
    "54 atoms, other masses": Set(elements=("Al", "Au"), repeat=3, cycles=3),
    # ħω up to 11.8 kT: 20 meV per atom above the classical value
    "16 atoms, 4 beads": Set(
        beads=4, timestep=2.0, switch=500, equilibrate=100, seeds=(0, 1, 2, 3), cycles=12
    ),
}


# --- running ------------------------------------------------------------------------------------


def write_inputs(folder: Path, s: Set) -> list[Path]:
    """The folders of a set, prepared where they are not there yet."""
    structure = s.structure
    folder.mkdir(parents=True, exist_ok=True)
    constants = exact.einstein_constants(structure)
    values = {
        "model": str(exact.write_model(folder / "crystal.json", structure)),
        "alchemy": "einstein->model",
        "masses": "fixed",
        "springs": str(exact.write_springs(folder / "einstein.extxyz", structure, constants)),
        "schedule": "linear",
        "equilibrate": str(s.equilibrate),
        "switch": str(s.switch),
        "cycles": str(s.cycles),
    }
    folders = [folder / f"replica-{seed}" for seed in s.seeds]
    for seed, target in zip(s.seeds, folders, strict=True):
        if (target / "input.xml").is_file():
            continue
        settings = Settings(temperature=TEMPERATURE, timestep=s.timestep, seed=seed, beads=s.beads)
        prepare("switch-nvt", structure, target, values, settings)
        text = (target / "input.xml").read_text()
        text = replace_once(
            text, '<tau units="femtosecond">200<', f'<tau units="femtosecond">{s.tau:g}<'
        )
        (target / "input.xml").write_text(text)
    return folders


def run_set(folder: Path, s: Set, jobs: int) -> list[Path]:
    folders = write_inputs(folder, s)
    missing = [f for f in folders if not finished(f)]
    if missing:
        command = [
            sys.executable,
            "-m",
            "alchemdriver",
            "run",
            f"--jobs={jobs}",
            "--threads=1",
            *missing,
        ]
        subprocess.run(command, check=True, env=rr.ENV, stdout=subprocess.DEVNULL)
    return folders


def collect(folders: list[Path], s: Set) -> dict:
    """Every work of a set, its terms, and the exact value."""
    runs = []
    for seed, folder in zip(s.seeds, folders, strict=True):
        run = read_input(folder)
        assert run.seed == seed
        found = switching_work(run)
        assert found.complete
        runs.append(
            {
                "seed": seed,
                "forward": found.forward.tolist(),
                "backward": found.backward.tolist(),
                "drift": found.first_law.drift,
            }
        )
    result = analyze(folders, write=False)
    return {
        "settings": asdict(s),
        "terms": {t.name: t.value for t in result.terms},
        "exact": exact.free_energy(s.structure, TEMPERATURE, s.beads),
        "exact classical": exact.free_energy(s.structure, TEMPERATURE),
        "totals": {t.method: {"value": t.value, "se": t.se} for t in result.totals},
        "dissipation_kT": result.pooled.dissipation.mean_kT,
        "warnings": list(result.warnings),
        "runs": runs,
    }


# --- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A total against the exact free energy, meV per atom."""

    method: str
    off: float
    se: float

    @property
    def passed(self) -> bool:
        return abs(self.off) <= min(LIMIT_Z * self.se, LIMIT)


def rows(s: Set, totals: dict[str, tuple[float, float]]) -> list[Row]:
    """From {method: (value, SE) in eV of the whole crystal}; exact values computed afresh."""
    n = len(s.structure)
    expected = exact.free_energy(s.structure, TEMPERATURE, s.beads)
    return [Row(m, 1e3 * (v - expected) / n, 1e3 * se / n) for m, (v, se) in totals.items()]


def stored_totals(data: dict) -> dict[str, tuple[float, float]]:
    """Of a committed set, from its works and terms."""
    forward, backward = (
        [w for r in data["runs"] for w in r[key]] for key in ("forward", "backward")
    )
    chains = [len(r["forward"]) for r in data["runs"]]
    found = analyze_works(forward, backward, TEMPERATURE, chains)
    terms = sum(data["terms"].values())
    return {e.method: (e.value + terms, e.se) for e in (found.eq11, found.bar)}


def settings(data: dict) -> Set:
    """The Set that a committed entry was made with."""
    lists = {key: tuple(data["settings"][key]) for key in ("elements", "seeds")}
    return Set(**(data["settings"] | lists))


def table(sets: dict) -> str:
    lines = []
    for name, data in sets.items():
        s = settings(data)
        n = len(s.structure)
        lines.append(
            f"{name}: {''.join(s.elements)}, P = {s.beads}, {len(s.seeds)} x {s.cycles} pairs, "
            f"exact F {1e3 * data['exact'] / n:.3f} meV/atom, quantum part "
            f"{1e3 * (data['exact'] - data['exact classical']) / n:.3f}, "
            f"dissipation {data['dissipation_kT']:.2f} kT"
        )
        for row in rows(s, stored_totals(data)):
            verdict = "" if row.passed else "  FAILED"
            lines.append(
                f"  {row.method:8s} off by {row.off:+.4f} +- {row.se:.4f} meV/atom, "
                f"{row.off / row.se:+.2f} SE{verdict}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(args.table.read_text())["sets"]))
        return
    if args.folder is None:
        parser.error("a folder for the runs is missing")
    sets = {}
    for name in args.sets:
        start = time.monotonic()
        folder = args.folder.resolve() / name.replace(",", "").replace(" ", "-")
        folders = run_set(folder, SETS[name], args.jobs)
        sets[name] = collect(folders, SETS[name])
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    versions = analyze(folders[:1], write=False).versions
    content = {
        "command": "python -m campaigns.crystal FOLDER",
        "units": "works, terms, totals and exact eV of the whole crystal, drift eV per atom and ps",
        "temperature_K": TEMPERATURE,
        "einstein_eV_per_A2": exact.EINSTEIN,
        "versions": versions | {"python": platform.python_version()},
        "sets": sets,
    }
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(table(sets))


if __name__ == "__main__":
    main()
