"""bcc iron, 54 atoms, embedded model: Frenkel–Ladd against lattice dynamics and Gibbs–Helmholtz.

    python -m campaigns.iron FOLDER  # runs what is missing, writes benchmarks/iron.json
    python -m campaigns.iron FOLDER --parts cold  # without what needs 300 K
    python -m campaigns.iron --table # prints the verdict of the committed numbers again

Routes to F at the volume of zero pressure at 0 K, classical nuclei, centre of mass in V/N_WS:

* Frenkel–Ladd at 10 and 300 K through real i-PI;
* lattice dynamics of the same supercell, without simulation; exact but for anharmonicity;
* that plus the anharmonic rest by perturbation from samples of the harmonic crystal,
  −kT ln⟨exp(−(U − U_harm)/kT)⟩, exact while the overlap is good: 10 and 50 K;
* Gibbs–Helmholtz, −d(F/T)/dT = ⟨H⟩/T², from 50 to 300 K, over NVT runs at six temperatures.

The harmonic crystal is taken out of ⟨H⟩ first: A = F − F_harm and u = ⟨U⟩ − U0 − (3N−3) kT/2 obey
−d(A/T)/dT = u/T², with u = a T² + b T³ + … for a classical crystal.  By equipartition
⟨x·∂U/∂x⟩ = (3N−3) kT for displacements x from the sites, so u = ⟨U − U0 − ½ x·∂U/∂x⟩: the same
mean as ⟨U⟩ gives, without the fluctuations of a harmonic crystal.  Both are recorded.

Seeds were fixed before the first run; lengths follow from what an evaluation costs.  The time step
shifts the harmonic part of a Frenkel–Ladd result by kT Σ (ω² − ω_E²) Δt²/8 per atom, 0.05 meV at
300 K and 0.002 at 10 K; Gibbs–Helmholtz, as done here, knows no such shift.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import bulk
from scipy.optimize import brentq

from alchemdriver import AlchemicalCalculator, units
from alchemdriver.analysis import analyze, analyze_works
from alchemdriver.analysis.estimators.fixed_lambda import equilibrium_mean
from alchemdriver.analysis.files.readers import read_properties
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.paths.geometry import minimum_image
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.tree import write_xml
from alchemdriver.records import Structure
from alchemdriver.workflow.lattice_dynamics import LatticeDynamics, forces_of, lattice_dynamics

RESULT = Path(__file__).parents[2] / "benchmarks" / "iron.json"
MODEL, REPEAT, TIMESTEP = "demo-fe", 3, 4.0  # –, conventional cells, fs


@dataclass(frozen=True)
class Switches:
    """Frenkel–Ladd runs at one temperature, K; lengths in steps."""

    temperature: float
    seeds: tuple[int, ...]
    cycles: int
    equilibrate: int
    switch: int


COLD = Switches(10.0, seeds=(0, 1), cycles=2, equilibrate=60, switch=300)
# Seeds 14 to 17 were added because σ of the first four, 0.26 meV per atom, missed LIMIT_SIGMA.
HOT = Switches(300.0, seeds=tuple(range(10, 18)), cycles=2, equilibrate=100, switch=1200)
ENERGIES = {50.0: 20, 100.0: 21, 150.0: 22, 200.0: 23, 250.0: 24, 300.0: 25}  # K: seed
STEPS, STRIDE, LEAVE_OUT = 1500, 5, 100  # of the energy runs, which start from harmonic samples
PERTURBATION = {10.0: 30, 50.0: 31}  # K: seed
SAMPLES = 150
LIMIT_LATTICE, LIMIT_SIGMA = 0.05, 0.2  # meV per atom
TERMS = 3  # of u/T²; the two that were planned do not describe the means (χ² 3.0)


def relaxed_iron() -> ase.Atoms:
    """At the lattice constant where the static stress vanishes."""
    atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(REPEAT)
    atoms.calc = AlchemicalCalculator(atoms, states=[], weights=[], model=MODEL)

    def stress(a: float) -> float:
        atoms.set_cell(np.eye(3) * REPEAT * a, scale_atoms=True)
        return atoms.get_stress()[0]

    a = brentq(stress, 2.81, 2.85, xtol=1e-10)
    atoms.set_cell(np.eye(3) * REPEAT * a, scale_atoms=True)
    return atoms


def harmonic_iron() -> LatticeDynamics:
    """At that volume."""
    atoms = relaxed_iron()
    structure = Structure(
        tuple(atoms.get_chemical_symbols()), atoms.positions.copy(), np.array(atoms.cell)
    )
    forces = forces_of(atoms.calc, atoms)
    return lattice_dynamics(forces, structure, atoms.get_masses(), symprec=1e-4)


def harmonic_sample(
    crystal: LatticeDynamics, temperature: float, rng: np.random.Generator
) -> np.ndarray:
    """Displacements (N, 3) Å from the classical harmonic crystal, centre of mass in place."""
    root = np.repeat(np.sqrt(crystal.masses), 3)
    values, vectors = np.linalg.eigh(crystal.hessian / np.outer(root, root))
    q = rng.normal(size=len(values) - 3) * np.sqrt(units.KB_EV * temperature / values[3:])
    return (vectors[:, 3:] @ q / root).reshape(-1, 3)


def perturbation(crystal: LatticeDynamics, temperature: float) -> dict:
    """F − F_harm and its SE, eV of the whole crystal."""
    rng = np.random.default_rng(PERTURBATION[temperature])
    atoms = relaxed_iron()
    forces = forces_of(atoms.calc, atoms)
    rest = []
    for _ in range(SAMPLES):
        x = harmonic_sample(crystal, temperature, rng)
        harmonic = 0.5 * x.ravel() @ crystal.hessian @ x.ravel()
        rest.append(forces(crystal.structure.positions + x)[0] - crystal.energy - harmonic)
    t = units.KB_EV * temperature
    boltzmann = np.exp(-(np.array(rest) - np.mean(rest)) / t)
    value = np.mean(rest) - t * np.log(boltzmann.mean())
    se = t * boltzmann.std(ddof=1) / boltzmann.mean() / np.sqrt(SAMPLES)
    return {"seed": PERTURBATION[temperature], "value": float(value), "se": float(se)}


# --- running ------------------------------------------------------------------------------------


def write_inputs(folder: Path, crystal: LatticeDynamics, parts: list[str]) -> dict[str, list[Path]]:
    """Folders by the name of what they are for, prepared where they are not there yet."""
    structure = crystal.structure
    folder.mkdir(parents=True, exist_ok=True)
    springs = folder / "einstein.extxyz"
    if not springs.exists():
        atoms = ase.Atoms(structure.symbols, structure.positions, cell=structure.cell, pbc=True)
        atoms.set_array("spring_constant", crystal.einstein_constants())
        ase.io.write(springs, atoms, format="extxyz")
    common = {
        "model": MODEL,
        "alchemy": "einstein->model",
        "springs": str(springs),
        "masses": "fixed",
    }
    runs: dict[str, list[Path]] = {}
    for part, s in (("cold", COLD), ("hot", HOT)):
        if part not in parts:
            continue
        keys = common | {
            "schedule": "linear",
            "equilibrate": str(s.equilibrate),
            "switch": str(s.switch),
            "cycles": str(s.cycles),
        }
        targets = [folder / f"switch-{s.temperature:g}-{seed}" for seed in s.seeds]
        runs[f"switch {s.temperature:g}"] = targets
        for seed, target in zip(s.seeds, targets, strict=True):
            if not target.exists():
                settings = Settings(temperature=s.temperature, timestep=TIMESTEP, seed=seed)
                prepare("switch-nvt", structure, target, keys, settings)
    for t, seed in ENERGIES.items() if "hot" in parts else ():
        target = folder / f"energy-{t:g}"
        runs[f"energy {t:g}"] = [target]
        if not target.exists():
            settings = Settings(temperature=t, timestep=TIMESTEP, seed=seed, total_steps=STEPS)
            x = harmonic_sample(crystal, t, np.random.default_rng(seed))
            start = replace(structure, positions=structure.positions + x)
            prepare("nvt-fixed", start, target, common | {"lambda": "1.0"}, settings)
            print_forces(target / "input.xml")
    return runs


def print_forces(path: Path) -> None:
    """Positions and forces every STRIDE steps."""
    root = parse_xml(path.read_text(), str(path))
    trajectories = root["output"]["trajectory"]
    positions = next(t for t in trajectories if t["@filename"] == "pos")
    positions["@stride"] = str(STRIDE)
    trajectories.append(positions | {"@filename": "for", "#text": "forces{ev/ang}"})
    write_xml(path, root)


def run(folder: Path) -> None:
    command = [sys.executable, "-m", "alchemdriver", "run", "--jobs=1", "--threads=1", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# --- reading ------------------------------------------------------------------------------------


def switching(folders: list[Path]) -> dict:
    result = analyze(folders, write=False)
    return {
        "runs": [
            {
                "seed": r.provenance.seed,
                "forward": r.forward.tolist(),
                "backward": r.backward.tolist(),
                "drift": r.first_law.drift,
            }
            for r in result.replicas
        ],
        "terms": {t.name: t.value for t in result.terms},
        "dissipation_kT": result.pooled.dissipation.mean_kT,
        "warnings": list(result.warnings),
    }


def anharmonic_energy(folder: Path, crystal: LatticeDynamics, temperature: float) -> dict:
    """u by equipartition and from ⟨U⟩ alone, each with its SE; eV of the whole crystal."""
    run = read_input(folder)
    assert run.seed == ENERGIES[temperature]
    assert run.temperature == temperature
    potential = read_properties(run.output("out")).energy("potential")
    sites, cell = crystal.structure.positions, crystal.structure.cell
    frames = (ase.io.iread(run.output(f"{name}_0.xyz"), format="xyz") for name in ("pos", "for"))
    virial = []
    for positions, forces in zip(*frames, strict=True):
        away = minimum_image(positions.positions - sites, cell)
        virial.append(-np.sum(away * forces.positions))  # x·∂U/∂x
    at = slice(LEAVE_OUT // STRIDE, None)
    u = (potential[::STRIDE] - crystal.energy - 0.5 * np.array(virial))[at]
    thermal = 0.5 * len(crystal.frequencies) * units.KB_EV * temperature
    found = {"seed": run.seed, "steps": len(potential) - 1}
    for name, values in (
        ("equipartition", u),
        ("potential", potential[LEAVE_OUT:] - crystal.energy - thermal),
    ):
        mean = equilibrium_mean(values)[2]
        found[name] = {"value": mean.value, "se": mean.se, "independent": mean.n}
    return found


def measure(folder: Path, parts: list[str]) -> dict:
    crystal = harmonic_iron()
    runs = write_inputs(folder.resolve(), crystal, parts)
    for targets in runs.values():
        for target in targets:
            run(target)
    return {
        "command": "python -m campaigns.iron FOLDER",
        "units": "eV of the whole crystal, drift eV per atom and ps",
        "system": {
            "model": MODEL,
            "atoms": len(crystal.structure),
            "lattice_constant_A": crystal.structure.cell[0, 0] / REPEAT,
            "timestep_fs": TIMESTEP,
            "switches": {f"{s.temperature:g}": asdict(s) for s in (COLD, HOT)},
            "spring_constant_eV_per_A2": float(crystal.einstein_constants()[0]),
        },
        "lattice dynamics": {
            "U0": crystal.energy,
            "N_WS": crystal.n_ws,
            "sum_rule": crystal.sum_rule,
            "residual_force_eV_per_A": crystal.residual_force,
            "modes_meV": (1e3 * units.HBAR_EV_FS * crystal.frequencies[[0, -1]]).tolist(),
            "classical": {f"{t:g}": crystal.free_energy(t) for t in (10.0, 50.0, 300.0)},
            "quantum": {f"{t:g}": crystal.free_energy(t, beads=None) for t in (10.0, 50.0, 300.0)},
        },
        "perturbation": {f"{t:g}": perturbation(crystal, t) for t in PERTURBATION},
        "switching": {
            name.split()[1]: switching(targets)
            for name, targets in runs.items()
            if name.startswith("switch")
        },
        "energies": {
            f"{t:g}": anharmonic_energy(runs[f"energy {t:g}"][0], crystal, t)
            for t in ENERGIES
            if f"energy {t:g}" in runs
        },
        "versions": analyze(next(iter(runs.values())), write=False).versions,
    }


# --- judging ------------------------------------------------------------------------------------


def frenkel_ladd(data: dict, temperature: float) -> dict[str, tuple[float, float]]:
    """{method: (F, SE)} in eV, from the stored works and terms."""
    stored = data["switching"][f"{temperature:g}"]
    forward, backward = ([w for r in stored["runs"] for w in r[k]] for k in ("forward", "backward"))
    chains = [len(r["forward"]) for r in stored["runs"]]
    found = analyze_works(forward, backward, temperature, chains)
    terms = sum(stored["terms"].values())
    return {e.method: (e.value + terms, e.se) for e in (found.eq11, found.bar)}


def polynomial(
    data: dict, estimator: str, terms: int = TERMS
) -> tuple[np.ndarray, np.ndarray, float]:
    """u/T² = a + b T + …: coefficients, their covariance, and χ² per degree of freedom."""
    t = np.array([float(k) for k in data["energies"]])
    u, se = (
        np.array([e[estimator][key] for e in data["energies"].values()]) for key in ("value", "se")
    )
    y, weight = u / t**2, (t**2 / se) ** 2
    design = t[:, None] ** np.arange(terms)
    covariance = np.linalg.inv(design.T @ (weight[:, None] * design))
    fit = covariance @ (design.T @ (weight * y))
    chi2 = float(np.sum(weight * (y - design @ fit) ** 2) / (len(t) - terms))
    return fit, covariance, chi2


def gibbs_helmholtz(
    data: dict, estimator: str, start: float, stop: float, terms: int = TERMS
) -> tuple[float, float]:
    """A(stop)/stop − A(start)/start = −∫ u/T² dT and its SE, eV/K."""
    fit, covariance, _ = polynomial(data, estimator, terms)
    k = np.arange(1, terms + 1)
    integral = (stop**k - start**k) / k
    return float(-integral @ fit), float(np.sqrt(integral @ covariance @ integral))


def routes(
    data: dict, estimator: str = "equipartition", terms: int = TERMS
) -> dict[str, tuple[float, float]]:
    """F at 300 K and SE, meV per atom, by each route that ends there."""
    n = data["system"]["atoms"]
    harmonic = {float(t): f for t, f in data["lattice dynamics"]["classical"].items()}
    rest = data["perturbation"]["50"]
    from_50, se_50 = gibbs_helmholtz(data, estimator, 50.0, 300.0, terms)
    from_0, se_0 = gibbs_helmholtz(data, estimator, 0.0, 300.0, terms)
    found = {
        "Frenkel-Ladd": frenkel_ladd(data, 300.0)["BAR"],
        "Gibbs-Helmholtz from 50 K, there lattice dynamics and perturbation": (
            harmonic[300.0] + 300.0 * (rest["value"] / 50.0 + from_50),
            300.0 * np.hypot(rest["se"] / 50.0, se_50),
        ),
        "Gibbs-Helmholtz from lattice dynamics at 0 K": (
            harmonic[300.0] + 300.0 * from_0,
            300.0 * se_0,
        ),
        "lattice dynamics alone": (harmonic[300.0], 0.0),
    }
    return {name: (1e3 * value / n, 1e3 * float(se) / n) for name, (value, se) in found.items()}


def verdict(data: dict) -> list[str]:
    n = data["system"]["atoms"]
    lines = []
    for key, rest in data["perturbation"].items():
        harmonic = data["lattice dynamics"]["classical"][key]
        lines.append(
            f"{key} K: anharmonic rest by perturbation {1e3 * rest['value'] / n:+.4f} +- "
            f"{1e3 * rest['se'] / n:.4f} meV/atom"
        )
        if key not in data["switching"]:
            continue
        for method, (value, se) in frenkel_ladd(data, float(key)).items():
            off, whole = value - harmonic, np.hypot(se, rest["se"])
            lines.append(
                f"  Frenkel-Ladd ({method}) minus lattice dynamics {1e3 * off / n:+.4f} +- "
                f"{1e3 * se / n:.4f}, and minus the rest {1e3 * (off - rest['value']) / n:+.4f} "
                f"+- {1e3 * whole / n:.4f} meV/atom"
            )
    fits = [("equipartition", 3), ("equipartition", 2), ("potential", 3)]
    for estimator, terms in fits if data["energies"] else ():
        found = routes(data, estimator, terms)
        hot, hot_se = found.pop("Frenkel-Ladd")
        chi2 = polynomial(data, estimator, terms)[2]
        lines.append(
            f"300 K, <H> by {estimator}, {terms} terms, chi^2 {chi2:.2f}: Frenkel-Ladd {hot:.3f} "
            f"+- {hot_se:.3f}"
        )
        for name, (value, se) in found.items():
            sigma = np.hypot(se, hot_se)
            lines.append(
                f"  {name}: {value:.3f} +- {se:.3f}, difference {value - hot:+.3f} +- {sigma:.3f} "
                f"meV/atom ({(value - hot) / sigma:+.1f} sigma)"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=["cold", "hot"], default=["cold", "hot"])
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.table:
        print("\n".join(verdict(json.loads(RESULT.read_text()))))
        return
    if args.folder is None:
        parser.error("a folder for the runs is missing")
    data = measure(args.folder, args.parts)
    args.output.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(verdict(data)))


if __name__ == "__main__":
    main()
