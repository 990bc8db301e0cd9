"""Reference data for the demonstration models: CHGNet molecular dynamics, strain, rattling, mixing.

    python generate.py halide --out DIR     Cs-Pb-Sn-I: train.extxyz and test.extxyz
    python generate.py expanded --out DIR   more of it, hot: appended to train.extxyz
    python generate.py iron --out DIR       bcc Fe with and without a vacancy: train and test

Every trajectory is a job with its own seed, so the data do not depend on the number of processes.
Training trajectories hold a randomly strained cell (Langevin thermostat); test trajectories run at
zero pressure (Berendsen barostat) from other seeds, so no test frame has a training neighbour.
``expanded`` adds halide training trajectories at zero pressure, at other temperatures than the
test's, because the hot crystals expand beyond the strains of the others.
"""

import argparse
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nptberendsen import Inhomogeneous_NPTBerendsen
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import LBFGS
from reference import Reference, label
from structures import CELLS, PHASES, halide, iron

METALS = ("Pb", "Sn")
HALIDE_TRAIN_K = (100, 250, 400, 500, 600, 700, 800)
HALIDE_TEST_K = (300, 600)
IRON_TRAIN_K = (100, 300, 500, 700, 900)
IRON_TEST_K = (300, 800)
# Zero-pressure training trajectories: where thermal expansion takes the cell.
HALIDE_NPT_K = (500, 700)
TOO_STEEP = 6.0  # eV/Å; frames with a larger force component would dominate the loss
TOO_CLOSE = {"halide": 1.9, "iron": 1.6}  # Å; closer rattled frames are not worth learning

_calculator = None


def reference() -> Reference:
    """One CHGNet per process."""
    global _calculator
    if _calculator is None:
        torch.set_num_threads(1)
        _calculator = Reference()
    return _calculator


# ---------------------------------------------------------------- crystals


def relaxed(atoms: Atoms, cell: bool = True) -> Atoms:
    """``atoms`` at the reference potential's minimum (symmetry is kept by the start)."""
    atoms = atoms.copy()
    atoms.calc = reference()
    target = FrechetCellFilter(atoms) if cell else atoms
    LBFGS(target, logfile=None).run(fmax=0.01, steps=150)
    atoms.calc = None
    return atoms


def relax_all(family: str, path: Path) -> None:
    """Write the relaxed crystals that all jobs start from."""
    if family == "halide":
        frames = []
        for phase in PHASES:
            for metal in METALS:
                atoms = relaxed(halide(phase, metal))
                atoms.info = {"phase": phase, "metal": metal}
                frames.append(atoms)
    else:
        frames = [relaxed(iron(1, vacancy=False))]
    write(path, frames, format="extxyz")


def start(job: dict, random: np.random.Generator) -> Atoms:
    """The relaxed supercell of a job, its B sites occupied as the job says."""
    crystals = read(job["crystals"], ":")
    if job["family"] == "iron":
        atoms = crystals[0].repeat(job["repeat"])
        if job["vacancy"]:
            del atoms[0]
        return atoms
    fraction = {"Pb": 0.0, "Sn": 1.0}.get(job["metal"])
    pb, sn = (
        next(a for a in crystals if a.info["phase"] == job["phase"] and a.info["metal"] == m)
        for m in METALS
    )
    repeats = CELLS[job["phase"]]
    repeat = repeats[job["seed"] % len(repeats)]
    atoms = pb.repeat(repeat)
    sites = np.flatnonzero(atoms.symbols == "Pb")
    if fraction is None:
        count = int(random.integers(1, len(sites)))
        fraction = count / len(sites)
    else:
        count = round(fraction * len(sites))
    # Vegard's law for the cell; positions follow it.
    cell = (1 - fraction) * pb.repeat(repeat).cell[:] + fraction * sn.repeat(repeat).cell[:]
    atoms.set_cell(cell, scale_atoms=True)
    symbols = np.array(atoms.get_chemical_symbols())
    symbols[random.permutation(sites)[:count]] = "Sn"
    atoms.set_chemical_symbols(symbols.tolist())
    atoms.info = {}
    return atoms


def strained(atoms: Atoms, random: np.random.Generator, low: float, high: float) -> Atoms:
    """Linear strain uniform in [low, high], plus 1.2 % of random anisotropy and shear."""
    noise = random.normal(scale=0.012, size=(3, 3))
    strain = np.eye(3) * (1 + random.uniform(low, high)) + 0.5 * (noise + noise.T)
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
    return atoms


def swapped(atoms: Atoms, random: np.random.Generator) -> Atoms:
    """The same positions with the B sites reoccupied at random: what an alchemical swap meets."""
    atoms = atoms.copy()
    sites = np.flatnonzero((atoms.symbols == "Pb") | (atoms.symbols == "Sn"))
    count = random.integers(0, len(sites) + 1)
    symbols = np.array(atoms.get_chemical_symbols())
    symbols[sites] = "Pb"
    symbols[random.permutation(sites)[:count]] = "Sn"
    atoms.set_chemical_symbols(symbols.tolist())
    return atoms


# ---------------------------------------------------------------- jobs


def run_job(job: dict) -> list[Atoms]:
    """All labelled frames of one trajectory or of one rattled series."""
    random = np.random.default_rng(job["seed"])
    atoms = start(job, random)
    info = {k: job[k] for k in ("kind", "phase", "metal", "temperature", "vacancy") if k in job}
    if job["kind"] == "rattled":
        return _rattled(job, atoms, info, random)
    if job["kind"] == "hop":
        return _hops(job, atoms, info, random)
    return _trajectory(job, atoms, info, random)


def _trajectory(job, atoms, info, random) -> list[Atoms]:
    test = job["kind"] == "test"
    barostat = job["kind"] in ("test", "npt")
    if not barostat:
        low, high = (-0.03, 0.04) if job["family"] == "halide" else (-0.03, 0.035)
        atoms = strained(atoms, random, low, high)
    temperature = job["temperature"]
    # Half the thermal energy goes into the start positions, so equilibration is short.
    width = {"halide": 0.10, "iron": 0.06}[job["family"]] * np.sqrt(temperature / 300)
    atoms.positions += random.normal(scale=width, size=atoms.positions.shape)
    atoms.calc = reference()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=random)
    step = {"halide": 5.0, "iron": 4.0}[job["family"]] * units.fs
    if barostat:
        # 0.1 / GPa only sets how fast the volume follows.
        dynamics = Inhomogeneous_NPTBerendsen(
            atoms,
            step,
            temperature_K=temperature,
            pressure_au=0.0,
            taut=100 * units.fs,
            taup=500 * units.fs,
            compressibility_au=(0.1 if job["family"] == "halide" else 0.006) / units.GPa,
        )
    else:
        dynamics = Langevin(
            atoms, step, temperature_K=temperature, friction=0.02 / units.fs, rng=random
        )
    dynamics.run(job["equilibrate"])
    frames = []
    for _ in range(job["frames"]):
        dynamics.run(job["stride"])
        frames.append(label(atoms, reference(), **info))
        if job["family"] == "halide" and not test and random.random() < 0.3:
            frames.append(label(swapped(atoms, random), reference(), **{**info, "kind": "swapped"}))
    return frames


def _rattled(job, atoms, info, random) -> list[Atoms]:
    """Independent Gaussian displacements, as in an Einstein crystal."""
    frames = []
    while len(frames) < job["frames"]:
        trial = strained(atoms, random, -0.04, 0.04)
        width = random.uniform(*job["widths"])
        trial.positions += random.normal(scale=width, size=trial.positions.shape)
        if job["family"] == "halide" and random.random() < 0.5:
            trial = swapped(trial, random)
        distances = trial.get_all_distances(mic=True)[np.triu_indices(len(trial), 1)]
        if distances.min() > TOO_CLOSE[job["family"]]:
            frames.append(label(trial, reference(), **info))
    return frames


def _hops(job, atoms, info, random) -> list[Atoms]:
    """An atom on its way from a neighbouring site into the vacancy."""
    edge = atoms.cell[0, 0] / job["repeat"]
    step = np.full(3, edge / 2)
    neighbour = int(np.argmin(np.linalg.norm(atoms.positions - step, axis=1)))
    frames = []
    for _ in range(job["frames"]):
        trial = atoms.copy()
        trial.positions[neighbour] -= random.uniform(0.1, 0.9) * step
        trial = strained(trial, random, -0.02, 0.03)
        trial.positions += random.normal(scale=random.uniform(0.02, 0.12), size=(len(trial), 3))
        frames.append(label(trial, reference(), **info))
    return frames


def halide_jobs() -> list[dict]:
    jobs = []
    for phase in PHASES:
        for metal in (*METALS, "mixed", "mixed"):
            base = {"family": "halide", "phase": phase, "metal": metal}
            for temperature in HALIDE_TRAIN_K:
                jobs.append(base | {"kind": "md", "temperature": temperature, "frames": 6})
                jobs[-1] |= {"equilibrate": 50, "stride": 25}
            jobs.append(base | {"kind": "rattled", "frames": 14, "widths": (0.03, 0.30)})
        for metal in (*METALS, "mixed"):
            for temperature in HALIDE_TEST_K:
                jobs.append({"family": "halide", "phase": phase, "metal": metal, "kind": "test"})
                jobs[-1] |= {"temperature": temperature, "frames": 6}
                jobs[-1] |= {"equilibrate": 120, "stride": 25}
    return jobs


def expanded_jobs() -> list[dict]:
    jobs = []
    for phase in PHASES:
        for metal in (*METALS, "mixed"):
            for temperature in HALIDE_NPT_K:
                jobs.append({"family": "halide", "phase": phase, "metal": metal, "kind": "npt"})
                jobs[-1] |= {"temperature": temperature, "frames": 6}
                jobs[-1] |= {"equilibrate": 50, "stride": 30}
    return jobs


def iron_jobs() -> list[dict]:
    # CHGNet spends ten times longer on an iron atom than on a halide atom, so cells are small.
    jobs = []
    for vacancy in (False, True):
        small, large = (
            {"family": "iron", "repeat": repeat, "vacancy": vacancy} for repeat in (2, 3)
        )
        jobs.append(small | {"kind": "rattled", "frames": 40, "widths": (0.02, 0.22)})
        jobs.append(large | {"kind": "rattled", "frames": 12, "widths": (0.02, 0.22)})
        for temperature in IRON_TRAIN_K:
            jobs.append(small | {"kind": "md", "temperature": temperature, "frames": 7})
            jobs[-1] |= {"equilibrate": 20, "stride": 8}
        for temperature in IRON_TEST_K:
            jobs.append((large if vacancy else small) | {"kind": "test", "frames": 5})
            jobs[-1] |= {"temperature": temperature, "equilibrate": 20, "stride": 8}
        if vacancy:
            jobs.append(large | {"kind": "hop", "frames": 20})
            for temperature in (300, 600, 900):
                jobs.append(large | {"kind": "md", "temperature": temperature, "frames": 4})
                jobs[-1] |= {"equilibrate": 15, "stride": 8}
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=("halide", "expanded", "iron"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    crystals = arguments.out / "crystals.extxyz"
    if not crystals.exists():  # `expanded` uses those of `halide`
        relax_all(arguments.family, crystals)
    make = {"halide": halide_jobs, "expanded": expanded_jobs, "iron": iron_jobs}
    jobs = make[arguments.family]()
    offset = {"halide": 1000, "expanded": 3000, "iron": 5000}[arguments.family]
    for number, job in enumerate(jobs):
        job |= {"seed": offset + number, "crystals": str(crystals)}

    frames = []
    with get_context("spawn").Pool(arguments.processes) as pool:
        for done, result in enumerate(pool.imap(run_job, jobs), start=1):
            frames += result
            print(f"{done}/{len(jobs)} jobs, {len(frames)} frames", flush=True)
    test = [frame for frame in frames if frame.info["kind"] == "test"]
    train = [frame for frame in frames if frame.info["kind"] != "test"]
    train = [frame for frame in train if abs(frame.arrays["REF_forces"]).max() < TOO_STEEP]
    write(arguments.out / "train.extxyz", train, append=arguments.family == "expanded")
    if test:
        write(arguments.out / "test.extxyz", test)
    print(f"{len(train)} training and {len(test)} test frames")


if __name__ == "__main__":
    main()
