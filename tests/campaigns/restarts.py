"""Calculations that are interrupted five times end like the undisturbed ones, bit for bit.

    python -m campaigns.restarts FOLDER [--kinds vacancy …] [--output benchmarks/restarts.json]

Each kind is prepared as ``frozen.freeze`` does it, run once undisturbed and once with interruptions
spread over all its stages, a different one each time:

    terminated          SIGTERM to `run`, as from a batch queue
    supervisor killed   SIGKILL to `run`; server and clients are left to notice it
    all killed          SIGKILL to everybody, as when a node dies
    interrupted         SIGINT, as from Ctrl-C
    server killed       SIGKILL to the servers; `run` ends with an error

Compared as text are all rows, frames of positions, ∂H/∂λ and λ, the states that runs end in, the
structures and springs between stages, and the totals of every result.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from frozen import freeze
from helpers import faults
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xmltree import parse_xml
from alchemdriver.server import checkpoints

KINDS = ("switch-nvt", "windows-nvt", "scaling-nvt", "switch-pimd", "vacancy")
INTERRUPTIONS = ("terminated", "supervisor killed", "all killed", "interrupted", "server killed")
LIMIT = 1800  # s, of one run
# A vacancy in a crystal of springs, which is quick; its defect cannot be relaxed, so by one route.
VACANCY = (
    freeze.coupled_crystal,
    ("vacancy", "alni.xyz", "run", "--model", "crystal.json", "--site", 0, "--temperature", 100,
     "--chemical-potential", "Al=-4.5", "--route", "alchemical", "--pressure", 1, "--timestep", 4,
     "--seed", 10, *freeze.STAGES),
)  # fmt: skip


def prepared(kind: str, folder: Path) -> list[Path]:
    """What is to be run in turn."""
    write, words = VACANCY if kind == "vacancy" else freeze.RUNS[kind][:2]
    folder.mkdir(parents=True)
    write(folder)
    freeze.command(folder, "prepare", *words)
    if kind != "switch-pimd":
        return [folder / "run"]
    freeze.command(folder, "mass-leg", "run", "--points", 2, "--steps", 400)
    return [folder / "run" / "mass-leg", folder / "run"]


def done(folder: Path) -> int:
    """Steps of all runs below *folder* and of all relaxations."""
    steps = 0
    for path in folder.rglob("run.out"):
        with open(path, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - 4096))
            words = [line.split() for line in f.read().split(b"\n")[:-1]]
        last = next((w[0] for w in reversed(words) if w and not w[0].startswith(b"#")), b"0")
        steps += int(float(last))
    for path in folder.rglob("relax.log"):
        steps += len(re.findall("^FIRE:", path.read_text(), re.M))
    return steps


def start(targets: list[Path], log: Path) -> subprocess.Popen:
    """``run`` of one target after the other."""
    once = f"{sys.executable} -m alchemdriver run --jobs 2 --threads 1"
    script = " && ".join(f"{once} {target}" for target in targets) + "; exit $?"
    with open(log, "a") as out:
        return subprocess.Popen(
            ["bash", "-c", script], stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=rr.ENV,
            start_new_session=True,
        )  # fmt: skip


def supervisor_of(shell: subprocess.Popen) -> int | None:
    return next(iter(faults.children(shell, "run")), None)


def children_of(pid: int) -> dict[str, list[int]]:
    parent = argparse.Namespace(pid=pid)
    return {kind: faults.children(parent, kind) for kind in ("server", "client", "relax-stage")}


def interrupt(shell: subprocess.Popen, how: str) -> bool:
    """Do it; False if there was nobody to do it to."""
    pid = supervisor_of(shell)
    if pid is None:
        return False
    family = children_of(pid)
    if how == "server killed":
        victims = family["server"] or family["relax-stage"]
        for victim in victims:
            faults.kill(victim)
        if not victims:
            return False
    elif how == "all killed":
        faults.kill(pid, signal.SIGSTOP)
        for victim in (v for victims in family.values() for v in victims):
            faults.kill(victim)
        faults.kill(pid)
    else:
        signals = {"terminated": signal.SIGTERM, "interrupted": signal.SIGINT}
        faults.kill(pid, signals.get(how, signal.SIGKILL))
    shell.wait(rr.LIMIT)
    return True


def disturbed(targets: list[Path], home: Path, whole: int, how: tuple[str, ...], seed: int) -> int:
    """Run *targets* with interruptions at random moments of equal parts of *whole* steps; how many
    fell."""
    rng = random.Random(seed)
    left = [(k + rng.random()) / len(how) * 0.95 * whole for k in range(len(how))]
    kinds, fallen, deadline = list(how), 0, time.monotonic() + LIMIT
    while True:
        shell = start(targets, home / "log")
        while shell.poll() is None:
            assert time.monotonic() < deadline, (home / "log").read_text()[-2000:]
            time.sleep(0.03)
            if left and done(home) >= left[0] and interrupt(shell, kinds[0]):
                left.pop(0)
                kinds.pop(0)
                fallen += 1
        if shell.returncode == 0:
            return fallen
        assert fallen, (home / "log").read_text()[-2000:]


def everything(home: Path) -> dict[str, Any]:
    """All numbers below *home*, by file."""
    found: dict[str, Any] = {}
    for path in sorted(home.rglob("input.xml")):
        folder, run = path.parent, read_input(path)
        name = str(folder.relative_to(home))
        rows = {k: row.split() for k, row in rr.rows(folder / "run.out").items()}
        width = min(map(len, rows.values()))  # what a kill tore off may be glued to the front
        found[f"{name}/run.out"] = {step: row[-width:] for step, row in rows.items()}
        for extras in sorted([*folder.glob("run.dHdlambda_*"), *folder.glob("run.lambda_*")]):
            found[f"{name}/{extras.name}"] = rr.frames(extras)
        for frames in sorted(folder.glob("run.pos_*.xyz")):
            if any(t.format == "xyz" for t in run.trajectories):
                found[f"{name}/{frames.name}"] = faults.structures(frames)
        end = checkpoints.latest(run)
        assert end.step == run.total_steps, folder
        state = parse_xml(end.path.read_text(), str(end.path))
        found[f"{name}/state"] = [state["system"], state["prng"]["state"]]
    for name in ("relaxed.xyz", "mean.xyz", "einstein.extxyz", "start.xyz"):
        for path in sorted(home.rglob(name)):
            found[str(path.relative_to(home))] = path.read_text()
    for path in sorted(home.rglob("result.json")):
        content = json.loads(path.read_text())
        found[str(path.relative_to(home))] = [content.get("totals"), content.get("terms")]
    return found


def campaign(kind: str, folder: Path, how: tuple[str, ...] = INTERRUPTIONS, seed: int = 1) -> dict:
    """One kind, undisturbed and disturbed; AssertionError if a number differs."""
    whole, broken = folder / f"{kind}-whole", folder / f"{kind}-broken"
    targets = prepared(kind, whole)
    shutil.copytree(whole, broken)
    shell = start(targets, whole / "log")
    assert shell.wait(LIMIT) == 0, (whole / "log").read_text()[-2000:]
    steps = done(whole)
    assert steps > 0
    again = [broken / target.relative_to(whole) for target in targets]
    fallen = disturbed(again, broken, steps, how, seed)
    assert fallen == len(how), f"{kind} was over after {fallen} interruptions"
    a, b = everything(whole), everything(broken)
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    wrong = [name for name in a if a[name] != b[name]]
    assert not wrong, wrong
    assert "Traceback" not in (broken / "log").read_text()
    return {
        "steps": steps, "interruptions": list(how[:fallen]), "files compared": len(a),
        "files that differ": len(wrong),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=sorted(freeze.RUNS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    found = {"seed": args.seed}
    for kind in args.kinds:
        found[kind] = campaign(kind, args.folder.resolve(), seed=args.seed)
        print(json.dumps({kind: found[kind]}), flush=True)
        if args.output:
            args.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
