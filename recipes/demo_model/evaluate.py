"""Measure a demonstration model: held-out errors, speed, stability; write them down.

    python evaluate.py demo --stem ../../alchemdriver/models/demo --data DIR       errors and timing
    python evaluate.py demo --stem … --stability                                   20 ps NPT runs

Results are merged into ``results.json`` beside this file, and the errors into the model's own JSON;
``results.md`` is the same as tables.
"""

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import read
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from mace.calculators import MACECalculator
from structures import CELLS, PHASES, halide, iron
from tilts import tilt_amplitudes

from alchemdriver.modelfile import load_model

HERE = Path(__file__).parent
METALS = ("Pb", "Sn")
ALPHA_SCAN_K = (400, 500, 600, 700)


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


def npt(job: dict) -> dict:
    """One NPT run at zero pressure and full cell freedom; what happened to the crystal."""
    atoms = halide_cell(job["phase"], job["metal"]) if "phase" in job else iron(3, job["vacancy"])
    atoms.calc = calculator(Path(job["stem"]))
    step = (4.0 if "phase" in job else 3.0) * units.fs
    nearest = _nearest(atoms)
    reference = atoms.get_scaled_positions(wrap=False)
    random = np.random.default_rng(job["seed"])
    MaxwellBoltzmannDistribution(atoms, temperature_K=job["temperature"], rng=random)
    Stationary(atoms)
    dynamics = MTKNPT(
        atoms,
        step,
        temperature_K=job["temperature"],
        pressure_au=0.0,
        tdamp=25 * step,
        pdamp=250 * step,
    )
    cells, volumes, closest, scaled, tilts = [], [], [], [], []

    def record():
        cells.append(atoms.cell.lengths())
        volumes.append(atoms.get_volume())
        closest.append(_nearest(atoms))
        scaled.append(atoms.get_scaled_positions(wrap=False))
        if job.get("phase") == "alpha":
            tilts.append(tilt_amplitudes(atoms, reference))

    dynamics.attach(record, interval=10)
    finite = True
    try:
        dynamics.run(round(job["picoseconds"] * 1000 * units.fs / step))
    except (ValueError, RuntimeError, np.linalg.LinAlgError):
        finite = False
    finite = finite and bool(np.isfinite(atoms.positions).all())
    # The first tenth is equilibration; compare the averages of what follows.
    tenth = len(volumes) // 10
    early, late = slice(tenth, 4 * tenth), slice(-3 * tenth, None)
    shift = np.mean(scaled[late], axis=0) - reference
    shift = (shift - shift.mean(axis=0)) @ np.diag(np.mean(cells[late], axis=0))
    result = {
        "finite": finite,
        "nearest_over_start": round(min(closest) / nearest, 3),
        "volume_late_over_early": round(float(np.mean(volumes[late]) / np.mean(volumes[early])), 3),
        "volume_A3_per_atom": round(float(np.mean(volumes[late])) / len(atoms), 3),
        "cell_A_early": np.mean(cells[early], axis=0).round(3).tolist(),
        "cell_A_late": np.mean(cells[late], axis=0).round(3).tolist(),
        "average_structure_moved_A": round(float(np.sqrt((shift**2).sum(axis=1).mean())), 3),
    }
    result["passed"] = (
        finite
        and result["nearest_over_start"] >= 0.75
        and abs(result["volume_late_over_early"] - 1) < 0.10
    )
    if tilts:
        result |= _cubic_evidence(np.array(cells)[tenth:], np.array(tilts)[tenth:])
    return {k: job[k] for k in ("phase", "metal", "vacancy", "temperature") if k in job} | result


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


def stability_jobs(name: str, stem: Path, picoseconds: float, scan: bool) -> list[dict]:
    if name == "demo-fe":
        jobs = [
            {"vacancy": vacancy, "temperature": temperature}
            for vacancy in (False, True)
            for temperature in (300, 800)
        ]
    elif scan:
        jobs = [
            {"phase": phase, "metal": metal, "temperature": temperature}
            for temperature in ALPHA_SCAN_K
            for phase in ("alpha", "delta")
            for metal in METALS
        ]
    else:
        jobs = [
            {"phase": phase, "metal": metal, "temperature": 400}
            for phase in PHASES
            for metal in METALS
        ]
    common = {"stem": str(stem), "picoseconds": picoseconds}
    return [job | common | {"seed": 100 + number} for number, job in enumerate(jobs)]


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
    parser.add_argument("--processes", type=int, default=2)
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
            jobs = stability_jobs(
                arguments.name, arguments.stem, arguments.picoseconds, key == "scan"
            )
            with get_context("spawn").Pool(arguments.processes) as pool:
                rows = []
                for row in pool.imap(npt, jobs):
                    rows.append(row)
                    print(json.dumps(row, ensure_ascii=False), flush=True)
                    merge(arguments.name, **{key: rows})


if __name__ == "__main__":
    main()
