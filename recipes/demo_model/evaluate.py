"""Measure a demonstration model: held-out errors, speed, stability; write them down.

    python evaluate.py demo --stem ../../alchemdriver/models/demo --data DIR       errors and timing
    python evaluate.py demo --stem … --stability                                   20 ps NPT runs

Results are merged into ``results.json`` beside this file, and the errors into the model's own JSON;
``results.md`` is the same as tables.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from dynamics import npt
from mace.calculators import MACECalculator
from structures import CELLS, PHASES, halide, iron
from tilts import tilt_amplitudes

from alchemdriver.potential.modelfile import load_model

HERE = Path(__file__).parent
METALS = ("Pb", "Sn")
# K and GPa.
SCAN = ((300, 0), (500, 0), (600, 0), (500, 0.5), (600, 0.5), (500, 1.0), (600, 1.0))
JOB_KEYS = ("phase", "metal", "vacancy", "temperature", "pressure_GPa")


def calculator(stem: Path) -> MACECalculator:
    torch.set_num_threads(1)
    model, _ = load_model(stem.with_suffix(".json"))
    return MACECalculator(models=[model], device="cpu", default_dtype="float64")


# ---------------------------------------------------------------- held-out errors


def errors(stem: Path, test: Path) -> dict[str, dict]:
    """Root-mean-square errors per group: energy meV/atom, forces meV/Å, stress GPa."""
    calc = calculator(stem)
    groups: dict[str, list] = {}
    for frame in read(test, ":"):
        atoms = Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True)
        atoms.calc = calc
        energy = 1e3 * (atoms.get_potential_energy() - frame.info["REF_energy"]) / len(atoms)
        forces = 1e3 * (atoms.get_forces() - frame.arrays["REF_forces"]).ravel()
        stress = (atoms.get_stress() - frame.info["REF_stress"]) / units.GPa
        for group in _groups(frame.info):
            groups.setdefault(group, []).append((energy, forces, stress))
    return {
        group: {
            "frames": len(rows),
            "energy_meV_per_atom": _rms([r[0] for r in rows]),
            "energy_bias_meV_per_atom": round(float(np.mean([r[0] for r in rows])), 3),
            "forces_meV_per_A": _rms(np.concatenate([r[1] for r in rows])),
            "stress_GPa": _rms([r[2] for r in rows]),
        }
        for group, rows in groups.items()
    }


def _groups(info: dict) -> list[str]:
    temperature = f"{info['temperature']} K"
    if "phase" not in info:
        crystal = "vacancy" if info["vacancy"] else "perfect"
        return ["all", crystal, f"{crystal} {temperature}"]
    phase, metal = info["phase"], info["metal"]
    return ["all", phase, metal, f"{phase} {metal}", temperature]


def _rms(values) -> float:
    return round(float(np.sqrt(np.mean(np.square(values)))), 3)


# ---------------------------------------------------------------- speed


def timing(stem: Path, atoms: Atoms, repeats: int = 40) -> dict[str, float]:
    """Energy, forces and virial in float64 on one thread, neighbour list included (ms)."""
    atoms = atoms.copy()
    atoms.calc = calculator(stem)
    random = np.random.default_rng(0)
    wall, cpu = [], []
    for _ in range(repeats + 5):
        atoms.positions += random.normal(scale=1e-3, size=atoms.positions.shape)
        start, start_cpu = time.perf_counter(), time.process_time()
        atoms.get_forces()
        atoms.get_stress()
        wall.append(1e3 * (time.perf_counter() - start))
        cpu.append(1e3 * (time.process_time() - start_cpu))
    return {
        "atoms": len(atoms),
        "wall_ms_best": round(min(wall[5:]), 2),
        "wall_ms_median": round(float(np.median(wall[5:])), 2),
        "cpu_ms_median": round(float(np.median(cpu[5:])), 2),
    }


# ---------------------------------------------------------------- molecular dynamics


def stability(stem: Path, jobs: list[dict], picoseconds: float) -> list[dict]:
    """NPT runs, all at once; what happened to each crystal."""
    torch.set_num_threads(1)
    # Single precision halves the time and changes no question asked here.
    model, _ = load_model(stem.with_suffix(".json"), dtype=torch.float32)
    crystals = [crystal(job) for job in jobs]
    references = [atoms.get_scaled_positions(wrap=False) for atoms in crystals]
    starts = [_nearest(atoms) for atoms in crystals]
    seen: list[list[tuple]] = [[] for _ in jobs]

    def record(number, crystals):
        if number % 10:
            return
        for atoms, rows in zip(crystals, seen, strict=True):
            rows.append(
                (atoms.cell.lengths(), _nearest(atoms), atoms.get_scaled_positions(wrap=False))
            )

    halides = "phase" in jobs[0]
    step = 4.0 if halides else 3.0
    temperatures = [job["temperature"] for job in jobs]
    settings = {} if halides else {"compressibility": 0.006}
    settings["pressures"] = [job.get("pressure_GPa", 0.0) for job in jobs]
    steps = round(1000 * picoseconds / step)
    npt(model, crystals, temperatures, steps, step, record, seed=11, **settings)
    return [
        {k: job[k] for k in JOB_KEYS if k in job}
        | {"picoseconds": picoseconds}
        | _summary(job, atoms, reference, nearest, rows)
        for job, atoms, reference, nearest, rows in zip(
            jobs, crystals, references, starts, seen, strict=True
        )
    ]


def crystal(job: dict) -> Atoms:
    return halide_cell(job["phase"], job["metal"]) if "phase" in job else iron(3, job["vacancy"])


def _summary(job, atoms, reference, nearest, rows) -> dict:
    cells = np.array([row[0] for row in rows])
    closest = min(row[1] for row in rows)
    scaled = np.array([row[2] for row in rows])
    volumes = cells.prod(axis=1)
    # The first fifth is equilibration; compare the averages of what follows.
    fifth = len(rows) // 5
    early, late = slice(fifth, 2 * fifth), slice(-2 * fifth, None)
    shift = scaled[late].mean(axis=0) - reference
    shift = (shift - shift.mean(axis=0)) * cells[late].mean(axis=0)
    result = {
        "nearest_over_start": round(closest / nearest, 3),
        "volume_late_over_early": round(float(volumes[late].mean() / volumes[early].mean()), 3),
        "volume_A3_per_atom": round(float(volumes[late].mean()) / len(atoms), 3),
        "cell_A_early": cells[early].mean(axis=0).round(3).tolist(),
        "cell_A_late": cells[late].mean(axis=0).round(3).tolist(),
        "average_structure_moved_A": round(float(np.sqrt((shift**2).sum(axis=1).mean())), 3),
    }
    result["passed"] = bool(
        result["nearest_over_start"] >= 0.75 and abs(result["volume_late_over_early"] - 1) < 0.10
    )
    if job.get("phase") == "alpha":
        frames = zip(scaled[fifth:], cells[fifth:], strict=True)
        symbols = atoms.symbols
        tilts = [
            tilt_amplitudes(Atoms(symbols, scaled_positions=s, cell=c, pbc=True), reference, s)
            for s, c in frames
        ]
        result |= _cubic_evidence(cells[fifth:], np.array(tilts))
    return result


def halide_cell(phase: str, metal: str) -> Atoms:
    """The 40-atom cell of a phase."""
    return halide(phase, metal).repeat(CELLS[phase][-1])


def _nearest(atoms: Atoms) -> float:
    distances = atoms.get_all_distances(mic=True)
    return float(distances[np.triu_indices(len(atoms), 1)].min())


def _cubic_evidence(cells: np.ndarray, tilts: np.ndarray) -> dict:
    """Cell edges with block errors, and the six tilt amplitudes of the 2x2x2 cell (degrees).

    A crystal that is cubic on average has equal edges within the errors, and tilts that swing
    through zero: |mean| well below the root mean square.
    """
    blocks = np.array([block.mean(axis=0) for block in np.array_split(cells, 5)])
    return {
        "cell_A_mean": cells.mean(axis=0).round(3).tolist(),
        "cell_A_error": (blocks.std(axis=0, ddof=1) / np.sqrt(5)).round(3).tolist(),
        "tilt_deg_mean": tilts.mean(axis=0).round(1).tolist(),
        "tilt_deg_rms": np.sqrt((tilts**2).mean(axis=0)).round(1).tolist(),
        "tilt_sign_changes": (np.diff(np.sign(tilts), axis=0) != 0).sum(axis=0).tolist(),
    }


def stability_jobs(name: str, scan: bool) -> list[dict]:
    if name == "demo-fe":
        return [{"vacancy": v, "temperature": t} for v in (False, True) for t in (300, 800)]
    if scan:
        choices = [(phase, t, p) for t, p in SCAN for phase in ("alpha", "delta")]
    else:
        choices = [(phase, 400, 0.0) for phase in PHASES]
    return [
        {"phase": phase, "metal": metal, "temperature": temperature, "pressure_GPa": pressure}
        for phase, temperature, pressure in choices
        for metal in METALS
    ]


# ---------------------------------------------------------------- reports


def table(rows: list[dict]) -> str:
    """A markdown table with the keys of the first row as its head."""
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    lines += ["| " + " | ".join(str(row.get(key, "")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def report(results: dict) -> str:
    parts = ["# Measured on the demonstration models\n", "Written by `evaluate.py`."]
    for name, content in results.items():
        if "errors" in content:
            parts.append(f"\n## {name}: held-out CHGNet frames\n")
            parts.append(table([{"group": g} | row for g, row in content["errors"].items()]))
        if "timing" in content:
            parts.append(f"\n## {name}: time per energy, forces and virial\n")
            parts.append(table([content["timing"]]))
        for key in ("npt", "scan"):
            if key in content:
                parts.append(f"\n## {name}: {key}\n")
                parts.append(table(content[key]))
    return "\n".join(parts) + "\n"


def merge(name: str, **content) -> None:
    path = HERE / "results.json"
    results = json.loads(path.read_text("utf-8")) if path.exists() else {}
    results[name] = results.get(name, {}) | content
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    (HERE / "results.md").write_text(report(results), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("demo", "demo-fe"))
    parser.add_argument("--stem", type=Path, required=True, help="model file without suffix")
    parser.add_argument("--data", type=Path, help="folder with test.extxyz: errors and timing")
    parser.add_argument("--stability", action="store_true", help="NPT runs")
    parser.add_argument("--scan", action="store_true", help="α and δ over temperatures")
    parser.add_argument("--picoseconds", type=float, default=20.0)
    arguments = parser.parse_args()

    if arguments.data:
        found = errors(arguments.stem, arguments.data / "test.extxyz")
        atoms = halide_cell("alpha", "Pb") if arguments.name == "demo" else iron(3, False)
        merge(arguments.name, errors=found, timing=timing(arguments.stem, atoms))
        path = arguments.stem.with_suffix(".json")
        content = json.loads(path.read_text("utf-8"))
        content["metadata"]["accuracy"] = {
            "what": "root-mean-square errors against CHGNet 0.3.0 on zero-pressure molecular "
            "dynamics that no training frame comes from",
            **found,
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
        print(table([{"group": g} | row for g, row in found.items()]))
    for key, wanted in (("npt", arguments.stability), ("scan", arguments.scan)):
        if wanted:
            jobs = stability_jobs(arguments.name, key == "scan")
            rows = stability(arguments.stem, jobs, arguments.picoseconds)
            merge(arguments.name, **{key: rows})
            print(table(rows))


if __name__ == "__main__":
    main()
