"""Runs under random kills, stops and hangs, until the time is over; the numbers must not notice.

    python -m campaigns.soak FOLDER [--minutes 20] [--seed 1] [--output benchmarks/soak.json]

One round is one run (NVT, NPT, four beads, four beads at constant pressure in turn) under
``alchemdriver run``, disturbed every few seconds until it is done; then everything it printed is
compared, as text, with an undisturbed run of the same input.  Faults fall on real processes:

    client killed     SIGKILL; the supervisor starts another
    client stopped    SIGSTOP: alive and silent, as with a hung GPU; dropped, killed and replaced
    server killed     SIGKILL; `run` ends with an error and is started again
    all killed        SIGKILL for supervisor, server and clients, as when a node dies
    interrupted       SIGTERM, as from a batch queue; `run` is started again
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from helpers import faults
from helpers import real_runs as rr

from alchemdriver.contract.run_input import read_input

PROTOCOLS = ("switch-nvt", "switch-npt", "switch-pimd", "switch-pimd-npt")
LENGTHS = {"equilibrate": 100, "switch": 200, "cycles": 1}
PAUSE = (1.0, 8.0)  # s between a step forward, or a fault, and the next fault
AT_ONCE = 0.2  # of the faults do not wait for a step forward: they hit processes that are starting
FAULTS = {
    "client killed": 4,
    "client stopped": 1,
    "server killed": 3,
    "all killed": 2,
    "interrupted": 1,
}  # and how often, relatively
TIMEOUT = 3  # s after which the server gives a client up


def often(text: str) -> str:
    """Checkpoints every 10 steps, hangs noticed soon, steps slow enough to be hit."""
    for old, new in (
        ('stride="200" filename="checkpoint"', 'stride="10" filename="checkpoint"'),
        ("<timeout>600</timeout>", f"<timeout>{TIMEOUT}</timeout>"),
        ("<latency>1e-4<", "<latency>2e-2<"),
    ):
        assert old in text, f"the template has changed: {old}"
        text = text.replace(old, new)
    return text


def reference(folder: Path, protocol: str) -> Path:
    """An undisturbed, finished run, and beside it the same before its first step."""
    whole, pristine = folder / f"{protocol}-whole", folder / f"{protocol}-pristine"
    if not pristine.exists():
        rr.oscillator_run(whole, protocol, edit=often, **LENGTHS)
        shutil.copytree(whole, pristine)
        assert rr.command("run", whole, limit=None).returncode == 0
    return pristine


def disturb(supervisor: subprocess.Popen, fault: str, log: Path) -> bool:
    """Do it; False if there was nobody to do it to."""
    clients = faults.children(supervisor, "client")
    servers = faults.children(supervisor, "server")
    if fault in ("client killed", "client stopped"):
        how = signal.SIGKILL if fault == "client killed" else signal.SIGSTOP
        for pid in clients[:1]:
            faults.kill(pid, how)
        return bool(clients)
    if not servers:
        return False
    if fault == "server killed":
        faults.kill(servers[0])
    elif fault == "all killed":
        supervisor.send_signal(signal.SIGSTOP)  # it must not start new ones meanwhile
        for pid in [*servers, *faults.children(supervisor, "client")]:
            faults.kill(pid)
        supervisor.kill()
    else:
        supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(rr.LIMIT)
    return True


def one_round(
    folder: Path, pristine: Path, rng: random.Random, deadline: float, count: Counter
) -> None:
    """A run from its beginning to its end, disturbed until *deadline*, compared at the end."""
    shutil.copytree(pristine, folder)
    log = folder.parent / f"{folder.name}.log"
    total = read_input(folder).total_steps
    calm = 0
    while True:
        supervisor = rr.start("run", folder, log=log)
        while supervisor.poll() is None:
            if time.monotonic() > deadline:
                supervisor.wait(10 * rr.LIMIT)
                break
            if rng.random() > AT_ONCE:
                here = max(rr.rows(folder / "run.out"), default=-1) if started(folder) else -1
                rr.wait_for_step(folder / "run.out", min(here + 1, total), supervisor)
            try:
                supervisor.wait(rng.uniform(*PAUSE))
            except subprocess.TimeoutExpired:
                (fault,) = rng.choices(list(FAULTS), list(FAULTS.values()))
                if disturb(supervisor, fault, log):
                    count[fault] += 1
        if supervisor.returncode == 0:
            break
        # a killed server ends `run` with an error that says so; anything else is a failure
        calm = calm + 1 if time.monotonic() > deadline else 0
        assert calm < 5, log.read_text()
    assert max(rr.rows(folder / "run.out")) == total
    whole = pristine.with_name(pristine.name.replace("pristine", "whole"))
    assert faults.numbers(folder) == faults.numbers(whole), f"{folder} differs from {whole}"


def started(folder: Path) -> bool:
    return (folder / "run.out").exists()


def soak(folder: Path, minutes: float, seed: int) -> dict:
    """Rounds until *minutes* are over; what was done.  AssertionError if a number differs."""
    rng, count = random.Random(seed), Counter()
    folder.mkdir(parents=True, exist_ok=True)
    protocols = PROTOCOLS if minutes > 5 else PROTOCOLS[2:3]
    rounds, left, disturbed = Counter(), 60.0 * minutes, 0.0
    while left > 0:
        protocol = protocols[sum(rounds.values()) % len(protocols)]
        name = f"round-{sum(rounds.values()) + 1}"
        pristine = reference(folder, protocol)
        began = time.monotonic()
        one_round(folder / name, pristine, rng, began + left, count)
        left -= time.monotonic() - began
        disturbed += time.monotonic() - began
        rounds[protocol] += 1
        print(f"{name}, {protocol}: same numbers; so far {dict(count)}", flush=True)
    return {
        "minutes": round(disturbed / 60.0, 1),  # without the undisturbed runs
        "seed": seed,
        "rounds": dict(rounds),
        "steps per round": 2 * (LENGTHS["equilibrate"] + LENGTHS["switch"]),
        "faults": dict(count),
        "numbers that differ": 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    done = soak(args.folder.resolve(), args.minutes, args.seed)
    print(json.dumps(done, indent=1))
    if args.output:
        args.output.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
