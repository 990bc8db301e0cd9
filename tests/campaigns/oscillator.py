"""The driven oscillator through real i-PI and real sockets, against exact values: one command.

    python -m campaigns.oscillator FOLDER [--jobs 2] [--output benchmarks/oscillator.json]

Runs every set of ``SETS`` (seeds fixed in advance) below FOLDER, resuming what is there, and writes
every work, all settings, versions, seeds and the table of verdicts.  ``--table FILE`` prints the
table again, computed afresh from the works in FILE.

Four atoms on springs, k 2 → 6 eV/Å^2, Cu → Au with interpolated masses, 300 K, 4 fs.  Every set is
compared with two kinds of exact value: ΔF = ½ kT ln(k_f/k_i) per degree of freedom, and the mean
works of i-PI's own discrete dynamics (``driven_oscillator.py``), bias of eq. 11 included.
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

import numpy as np
from helpers import real_runs as rr
from helpers.driven_oscillator import DrivenOscillator, Works

from alchemdriver import units
from alchemdriver.analysis import analyze, analyze_works, switching_work
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.schedule import SHAPES, Schedule
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare

RESULT = Path(__file__).parents[2] / "benchmarks" / "oscillator.json"
ATOMS, TEMPERATURE, TIMESTEP = 4, 300.0, 4.0  # –, K, fs
SPRINGS, MASSES = (2.0, 6.0), (63.546, 196.966569)  # eV/Å^2; u, Cu and Au
KT = units.KB_EV * TEMPERATURE  # eV
LIMIT_Z = 3.0  # standard errors
LIMIT_SE = 0.01  # kT per degree of freedom, of BAR
LIMIT_DRIFT = 1e-4  # kT per atom and ps

# What the server does without p → p √(m'/m): masses change and momenta stay.
CONTROL = (
    "import sys; from pathlib import Path; from alchemdriver.server import masses, serve; "
    "masses.rescale_momenta = lambda p, m, m_new, fixcom: p; "
    "serve.serve(Path(sys.argv[1]), sockets_prefix=sys.argv[2])"
)


@dataclass(frozen=True)
class Set:
    """Runs that differ in their seed alone; lengths in steps."""

    seeds: int  # 0 … seeds − 1
    cycles: int
    equilibrate: int
    switch: int
    tau: float  # fs, Langevin
    schedule: str = "poly9"
    fixcom: bool = False
    rescale: bool = True

    @property
    def dof(self) -> int:
        """Driven degrees of freedom; a fixed centre of mass of equal atoms stays at its anchor."""
        return 3 * (ATOMS - 1 if self.fixcom else ATOMS)

    @property
    def oscillator(self) -> DrivenOscillator:
        """One of them, as the server is meant to drive it: momenta rescaled."""
        schedule = Schedule(SHAPES[self.schedule], self.equilibrate, self.switch, self.cycles)
        return DrivenOscillator(schedule, TIMESTEP, self.tau, SPRINGS, MASSES, TEMPERATURE)


SETS = {
    # dissipation below 1 kT, where one-sided Jarzynski averages can be trusted
    "slow": Set(seeds=100, cycles=1, equilibrate=200, switch=125, tau=100.0, schedule="linear"),
    # 3 kT of dissipation: eq. 11 is off by many standard errors, BAR is not
    "fast": Set(seeds=8, cycles=12, equilibrate=125, switch=40, tau=50.0),
    # the demo's own lengths and friction, twice: a bounded fluctuation gives 16 ps a slope of 5e-5
    "demo lengths": Set(seeds=2, cycles=2, equilibrate=500, switch=1500, tau=200.0),
    # i-PI's default: one atom's worth of freedom less
    "fixed centre of mass": Set(
        seeds=4, cycles=5, equilibrate=200, switch=125, tau=100.0, schedule="linear", fixcom=True
    ),
    # the negative control, otherwise as "slow": this one must fail
    "without rescaling": Set(
        seeds=8, cycles=8, equilibrate=200, switch=125, tau=100.0, schedule="linear", rescale=False
    ),
}


# --- running ------------------------------------------------------------------------------------


def write_inputs(folder: Path, s: Set) -> list[Path]:
    """The folders of a set, prepared where they are not there yet."""
    structure = rr.oscillators(folder, *SPRINGS)
    values = {
        "model": str(folder / "osc.json"),
        "alchemy": "Cu->Au",
        "schedule": s.schedule,
        "equilibrate": str(s.equilibrate),
        "switch": str(s.switch),
        "cycles": str(s.cycles),
    }
    for seed in range(s.seeds):
        target = folder / f"replica-{seed}"
        if (target / "input.xml").is_file():
            continue
        settings = Settings(temperature=TEMPERATURE, timestep=TIMESTEP, seed=seed)
        prepare("switch-nvt", structure, target, values, settings)
        text = (target / "input.xml").read_text()
        text = replace_once(text, "<fixcom>True<", f"<fixcom>{s.fixcom}<")
        text = replace_once(
            text, '<tau units="femtosecond">200<', f'<tau units="femtosecond">{s.tau:g}<'
        )
        (target / "input.xml").write_text(text)
    return [folder / f"replica-{seed}" for seed in range(s.seeds)]


def replace_once(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"the template has changed: {old} stands {text.count(old)} times"
    return text.replace(old, new)


def finished(folder: Path) -> bool:
    run = read_input(folder)
    out = run.output("out")
    return out.exists() and max(rr.rows(out), default=-1) >= run.total_steps


def run_control(folder: Path) -> None:
    """One run with momenta left alone: a patched server, a normal client."""
    for old in folder.glob("run.*"):
        old.unlink()
    prefix = f"/tmp/alchemdriver-control-{time.time_ns()}-"
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", CONTROL, folder / "input.xml", prefix],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=rr.ENV,
        )
        try:
            client = rr.command("client", folder / "input.xml", "--socket-prefix", prefix)
            server.wait(rr.LIMIT)
        finally:
            server.kill()
            server.wait()
    assert client.returncode == 0, client.stderr


def run_set(folder: Path, s: Set, jobs: int) -> list[Path]:
    folders = write_inputs(folder, s)
    if s.rescale:
        missing = [f for f in folders if not finished(f)]
        if missing:
            command = [sys.executable, "-m", "alchemdriver", "run", f"--jobs={jobs}", *missing]
            subprocess.run(command, check=True, env=rr.ENV, stdout=subprocess.DEVNULL)
    else:
        for target in folders:
            if not finished(target):
                run_control(target)
    return folders


def collect(folders: list[Path], s: Set) -> dict:
    """Every work of a set, with what it takes to check it."""
    runs = []
    for seed, folder in enumerate(folders):
        run = read_input(folder)
        assert run.seed == seed
        found = switching_work(run)
        assert found.complete
        assert found.pairs == s.cycles
        runs.append(
            {
                "seed": seed,
                "forward": found.forward.tolist(),
                "backward": found.backward.tolist(),
                "drift": found.first_law.drift,
                "max_deviation": found.first_law.max_deviation,
            }
        )
    result = analyze(folders, write=False)
    return {
        "settings": asdict(s),
        "terms": {t.name: t.value for t in result.terms},
        "warnings": list(result.warnings),
        "runs": runs,
    }


# --- judging ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One comparison, in kT of all degrees of freedom together."""

    quantity: str
    value: float
    exact: float
    se: float

    @property
    def z(self) -> float:
        return (self.value - self.exact) / self.se

    @property
    def passed(self) -> bool:
        return abs(self.z) <= LIMIT_Z


def works(data: dict) -> tuple[np.ndarray, np.ndarray]:
    """Forward and backward works of a set, (pairs,) eV, run after run."""
    return tuple(np.concatenate([r[key] for r in data["runs"]]) for key in ("forward", "backward"))


def compare(s: Set, forward: np.ndarray, backward: np.ndarray, exact: Works) -> list[Row]:
    """Works (pairs,) eV of a set against exact values.

    Mean works have exact standard errors; BAR and Jarzynski those of the sample.
    """
    kT, n, runs = exact.kT, s.dof, len(forward) // s.cycles
    found = analyze_works(forward, backward, TEMPERATURE, [s.cycles] * runs)
    delta_f = n * exact.delta_f / kT

    def mean(name, a, b, value):
        measured = (a * forward.mean() + b * backward.mean()) / kT
        return Row(name, float(measured), n * value / kT, exact.se(a, b, runs, n) / kT)

    def one_sided(name, w, sign):
        boltzmann = np.exp(-(w - w.mean()) / kT)
        value = w.mean() / kT - np.log(boltzmann.mean())
        se = boltzmann.std(ddof=1) / boltzmann.mean() / np.sqrt(len(w))
        return Row(name, float(sign * value), delta_f, float(se))

    return [
        Row("BAR", found.bar.value / kT, delta_f, found.bar.se / kT),
        mean("eq. 11 against moment equations", 0.5, -0.5, exact.eq11),
        mean("eq. 11 against ΔF: its bias", 0.5, -0.5, exact.delta_f),
        mean("forward work", 1.0, 0.0, exact.forward),
        mean("backward work", 0.0, 1.0, exact.backward),
        mean("dissipation, eq. 10", 0.5, 0.5, exact.dissipation),
        one_sided("Jarzynski forward", forward, 1.0),
        one_sided("Jarzynski backward", backward, -1.0),
    ]


def first_law(data: dict) -> tuple[float, float]:
    """Largest drift (kT per atom and ps) and largest deviation (kT per atom) of a set's runs."""
    return tuple(max(abs(r[key]) for r in data["runs"]) / KT for key in ("drift", "max_deviation"))


def table(sets: dict) -> str:
    """The verdicts of all sets, computed from their works."""
    lines = []
    for name, data in sets.items():
        s = Set(**data["settings"])
        forward, backward = works(data)
        exact = s.oscillator.works()
        lines.append(f"{name}: {s.seeds} seeds x {s.cycles} pairs, {s.dof} degrees of freedom; kT")
        for row in compare(s, forward, backward, exact):
            lines.append(
                f"  {row.quantity:32s} {row.value:9.4f}  exact {row.exact:9.4f}  SE {row.se:7.4f}"
                f"  {row.z:+7.2f} SE"
            )
        slope, deviation = first_law(data)
        lines.append(
            f"  first law: drift at most {slope:.1e} kT per atom and ps, deviation at most "
            f"{deviation:.1e} kT per atom"
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
        s, start = SETS[name], time.monotonic()
        folders = run_set(args.folder.resolve() / name.replace(" ", "-"), s, args.jobs)
        sets[name] = collect(folders, s)
        print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)
    versions = analyze(folders[:1], write=False).versions
    content = {
        "command": "python -m campaigns.oscillator FOLDER",
        "units": "works and terms eV, drift eV per atom and ps, max_deviation eV per atom",
        "system": {
            "atoms": ATOMS,
            "temperature_K": TEMPERATURE,
            "timestep_fs": TIMESTEP,
            "springs_eV_per_A2": SPRINGS,
            "masses_u": MASSES,
        },
        "versions": versions | {"python": platform.python_version()},
        "sets": sets,
    }
    args.output.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(table(sets))


if __name__ == "__main__":
    main()
