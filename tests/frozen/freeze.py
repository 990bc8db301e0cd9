"""Run folders of every kind, made once and kept: what later code must analyse and resume alike.

    cd tests && python -m frozen.freeze NAME …           # makes NAME.tar.xz anew; none: all
    cd tests && python -m frozen.freeze --results NAME … # keeps the runs, analyses them anew

Everything goes through the command line, so nothing here follows the code's inner moves.  Each
archive holds ``finished/`` (an undisturbed run with its result) and, where a run takes steps,
``half/`` (the same, stopped on the way by SIGTERM).  ``machine.json`` says what computed them: bits
are compared on the same processor and libraries, digits elsewhere.

Made again only when a change of numbers is declared in CHANGELOG.md, and then by name.  Where that
is one of the analysis, the runs stay those of the earlier code.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.build import bulk

from frozen.machine import fingerprint

HERE = Path(__file__).parent
LIMIT = 1200  # s, of any command
SHORT = ("--equilibrate", 40, "--switch", 80, "--cycles", 2)


def command(folder: Path, *words: object) -> str:
    """``alchemdriver WORDS`` in *folder*, to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "alchemdriver", *map(str, words)],
        cwd=folder,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


def run_and_stop(folder: Path, name: str, output: str, step: int) -> None:
    """Run *name* until *output* (a property file) has reached *step*, then SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "alchemdriver", "run", name, "--jobs", "1"],
        cwd=folder,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        path = folder / output
        rows = path.read_text().splitlines() if path.exists() else []
        if rows and not rows[-1].startswith("#") and int(float(rows[-1].split()[0])) >= step:
            break
        time.sleep(0.01)
    else:
        raise SystemExit(f"{name} ended before step {step} of {output}")
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT)


# --- structures and models ----------------------------------------------------------------------


def oscillators(folder: Path) -> None:
    """Four atoms on springs of their own, Cu 2 and Au 6 eV/Å²."""
    atoms = ase.Atoms(
        "Cu4",
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        cell=[8.0] * 3,
        pbc=True,
    )
    ase.io.write(folder / "cu.xyz", atoms, format="extxyz")
    content = {
        "backend": "harmonic",
        "spring_constants": {"Cu": 2.0, "Au": 6.0},
        "anchors": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }
    (folder / "osc.json").write_text(json.dumps(content))


def coupled_crystal(folder: Path) -> None:
    """CsCl, 16 atoms, springs between first and second neighbours."""
    a = 2.9
    cell = ase.Atoms("AlNi", positions=[[0, 0, 0], [a / 2] * 3], cell=[a] * 3, pbc=True)
    atoms = cell.repeat(2)
    ase.io.write(folder / "alni.xyz", atoms, format="extxyz")
    first, second = a * np.sqrt(0.75), a
    springs = (("Al", "Ni", first, 2.5, 0.4), ("Al", "Al", second, 0.8, 0.15))
    springs += (("Ni", "Ni", second, 1.4, 0.25),)
    content = {
        "backend": "harmonic-crystal",
        "energy": -72.0,
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
        "springs": [
            {"elements": [x, y], "distance": d, "parallel": p, "isotropic": i}
            for x, y, d, p, i in springs
        ],
    }
    (folder / "crystal.json").write_text(json.dumps(content))


def iron(folder: Path) -> None:
    ase.io.write(folder / "fe.xyz", bulk("Fe", "bcc", a=2.83, cubic=True), format="extxyz")


def perovskites(folder: Path) -> None:
    atoms = ase.Atoms(
        "CsPbI3",
        scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        cell=[6.2894] * 3,
        pbc=True,
    )
    ase.io.write(folder / "alpha.xyz", atoms, format="extxyz")
    atoms.set_cell([6.2, 6.2, 6.4], scale_atoms=True)
    ase.io.write(folder / "beta.xyz", atoms, format="extxyz")


# --- the runs -----------------------------------------------------------------------------------

OSCILLATORS = ("cu.xyz", "run", "--model", "osc.json", "--temperature", 300, "--seed", 7)
IRON = ("fe.xyz", "run", "--model", "demo-fe", "--supercell", "2x2x2", "--temperature", 200)
IRON += ("--timestep", 4, "--seed", 8)
LEAD = ("alpha.xyz", "run", "--model", "demo", "--supercell", "2x1x1", "--temperature", 500)
LEAD += ("--timestep", 8, "--seed", 9)
STAGES = ("--steps", 600, "--equilibrate", 60, "--switch", 120, "--cycles", 1, "--replicas", 2)

# name: (what writes structures and models, arguments of prepare, where to stop, how far)
RUNS: dict[str, tuple[Callable[[Path], None], tuple, str, int]] = {
    "switch-nvt": (
        oscillators,
        ("switch-nvt", *OSCILLATORS, "--alchemy", "Cu->Au", "--timestep", 2, *SHORT,
         "--replicas", 2),
        "run/replica-1/run.out", 210,
    ),
    "switch-nvt-linear": (
        oscillators,
        ("switch-nvt", *OSCILLATORS, "--alchemy", "Cu[1;3]->Au", "--timestep", 2, *SHORT,
         "--interpolation", "linear", "--masses", "fixed", "--schedule", "linear"),
        "run/run.out", 210,
    ),
    "switch-npt": (
        perovskites,
        ("switch-npt", *LEAD, "--alchemy", "Pb->Sn", "--pressure", 10000, "--equilibrate", 20,
         "--switch", 40, "--cycles", 2),
        "run/run.out", 110,
    ),
    "switch-npt-flexible": (
        iron,
        ("switch-npt-flexible", *IRON, "--alchemy", "Fe[3]->void", "--tether", 4.2, "--pressure",
         1, *SHORT),
        "run/run.out", 210,
    ),
    "windows-nvt": (
        oscillators,
        ("windows-nvt", *OSCILLATORS, "--alchemy", "Cu->Au", "--timestep", 8, "--windows", 3,
         "--steps", 600),
        "run/window-2/run.out", 300,
    ),
    "windows-npt": (
        perovskites,
        ("windows-npt", *LEAD, "--alchemy", "Pb->Sn", "--pressure", 10000, "--lambdas", "0 0.4 1",
         "--steps", 200),
        "run/window-2/run.out", 100,
    ),
    "scaling-nvt": (
        iron,
        ("scaling-nvt", *IRON, "--scale", 0.5, *SHORT),
        "run/run.out", 210,
    ),
    "scaling-npt": (
        iron,
        ("scaling-npt", *IRON, "--scale", 0.5, "--pressure", 100, *SHORT, "--replicas", 2),
        "run/replica-1/run.out", 210,
    ),
    "switch-pimd": (
        oscillators,
        ("switch-pimd", *OSCILLATORS, "--alchemy", "Cu->Au", "--timestep", 2, "--beads", 4, *SHORT),
        "run/run.out", 210,
    ),
    "nvt-fixed": (
        oscillators,
        ("nvt-fixed", *OSCILLATORS, "--alchemy", "Cu->Au", "--timestep", 2, "--lambda", 0.3,
         "--steps", 400),
        "run/run.out", 210,
    ),
    "npt": (
        iron,
        ("npt", *IRON, "--pressure", 1, "--steps", 400),
        "run/run.out", 210,
    ),
    "crystal": (
        coupled_crystal,
        ("crystal", "alni.xyz", "run", "--model", "crystal.json", "--temperature", "100 300",
         "--pressure", 1, "--timestep", 4, "--seed", 10, *STAGES),
        "run/300K/04-frenkel-ladd/replica-1/run.out", 100,
    ),
    "vacancy": (
        iron,
        ("vacancy", *IRON, "--site", 5, "--pressure", 1, *STAGES),
        "run/200K/08-alchemical/replica-1/run.out", 100,
    ),
    "transmute": (
        perovskites,
        ("transmute", "alpha.xyz", "run", "--model", "demo", "--supercell", "2x1x1",
         "--temperature", 20, "--timestep", 8, "--seed", 9, "--second-phase", "beta.xyz",
         "--second-supercell", "2x1x1", "--alchemy", "Pb->Sn", "--pressure", 10000, "--route",
         "alchemical", "--steps", 600, "--equilibrate", 60, "--switch", 80, "--cycles", 2,
         "--replicas", 2),
        "run/beta/20K/09-alchemical/replica-1/run.out", 100,
    ),
}  # fmt: skip


def make(name: str, scratch: Path) -> None:
    write, prepare, stop_in, stop_at = RUNS[name]
    finished, half = scratch / "finished", scratch / "half"
    finished.mkdir()
    write(finished)
    command(finished, "prepare", *prepare)
    shutil.copytree(finished, scratch / "prepared")
    if name == "switch-pimd":
        command(finished, "mass-leg", "run", "--points", 2, "--steps", 400)
        shutil.copytree(finished, half)
        command(finished, "run", "run/mass-leg")
        run_and_stop(half, "run/mass-leg", "run/mass-leg/point-2/run.out", 200)
    else:
        shutil.copytree(finished, half)
    command(finished, "run", "run", "--jobs", "1")
    run_and_stop(half, "run", stop_in, stop_at)
    (scratch / "machine.json").write_text(json.dumps(fingerprint(), indent=1) + "\n")
    pack(name, scratch)


def pack(name: str, scratch: Path) -> None:
    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as archive:
        for part in ("machine.json", "prepared", "finished", "half"):
            archive.add(scratch / part, part, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """No owners, no times, no locks, no pictures: what is kept is what is compared."""
    if Path(member.name).suffix in (".png", ".html") or member.name.endswith(".lock"):
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def analyze_anew(name: str, scratch: Path) -> None:
    """The results of the runs that are there, and nothing else."""
    with tarfile.open(HERE / f"{name}.tar.xz") as archive:
        archive.extractall(scratch, filter="data")
    run = scratch / "finished" / "run"
    for path in sorted(run.rglob("result.json"), key=lambda p: -len(p.parts)):  # stages first
        command(scratch, "analyze", path.parent)
    pack(name, scratch)


def main() -> None:
    words = sys.argv[1:]
    act = analyze_anew if words[:1] == ["--results"] else make
    for name in words[act is analyze_anew :] or RUNS:
        with tempfile.TemporaryDirectory() as scratch:
            started = time.monotonic()
            act(name, Path(scratch))
            size = (HERE / f"{name}.tar.xz").stat().st_size
            print(f"{name}: {size / 1024:.0f} KiB, {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
