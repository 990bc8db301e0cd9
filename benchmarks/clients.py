"""Steps per second with one and two clients, batches of 1 and P, sockets and shared memory.

    python benchmarks/clients.py FOLDER [--rounds 2] [--steps 30] [--device cpu]

Four beads of the embedded model (40 atoms), fixed λ.  The cases take turns, so that a busy machine
slows all of them; what counts are ratios to the first within a round.  Writes clients.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from alchemdriver.prepare.protocols import find
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.structure import read_structure

BEADS = 4
CASES = {  # name: (clients, mode, batch_size)
    "1 client, 1 structure per request": (1, "unix", 1),
    "1 client, 4 per request": (1, "unix", 4),
    "2 clients, 1 per request": (2, "unix", 1),
    "2 clients, 2 per request": (2, "unix", 2),
    "1 client, 1 per request, shared memory": (1, "shm", 1),
    "1 client, 4 per request, shared memory": (1, "shm", 4),
}
WARM_UP = 5  # steps


def rate(folder: Path, case: tuple[int, str, int], steps: int, device: str) -> float:
    """Steps per second after the warm-up."""
    clients, mode, batch = case
    structure = read_structure(find("pimd-fixed").template.parent / "start.xyz")
    values = {"model": "demo", "alchemy": "Pb->Sn", "lambda": "0.5"}
    settings = Settings(temperature=500.0, total_steps=WARM_UP + steps, beads=BEADS, seed=1)
    prepare("pimd-fixed", structure, folder, values, settings)
    path = folder / "input.xml"
    text = path.read_text().replace('mode="unix"', f'mode="{mode}"')
    path.write_text(text.replace("</latency>", f"</latency><batch_size>{batch}</batch_size>"))
    command = [sys.executable, "-m", "alchemdriver", "run", str(folder), f"--clients={clients}"]
    run = subprocess.Popen(
        [*command, "--threads=1", f"--device={device}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    times: dict[int, float] = {}
    while run.poll() is None:
        step = last_step(folder / "run.dHdlambda_0")
        if step >= 0:
            times.setdefault(step, time.monotonic())
        time.sleep(0.002)
    assert run.returncode == 0, (folder / "server.log").read_text()[-500:]
    first = min(step for step in times if step >= WARM_UP)
    last = max(times)
    return (last - first) / (times[last] - times[first])


def last_step(path: Path) -> int:
    """Of an extras file, two lines a step; -1 before the first."""
    return path.read_text().count("\n") // 2 - 1 if path.exists() else -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in CASES}
    loads = [os.getloadavg()[0]]
    for k in range(args.rounds):
        for name, case in CASES.items():
            folder = args.folder.resolve() / f"{k}-{name.replace(' ', '-').replace(',', '')}"
            found[name].append(rate(folder, case, args.steps, args.device))
            print(f"{name}: {found[name][-1]:.2f} steps/s", flush=True)
        loads.append(os.getloadavg()[0])
    base = found[next(iter(CASES))]
    ratios = {n: [v / b for v, b in zip(values, base, strict=True)] for n, values in found.items()}
    content = {
        "command": "python benchmarks/clients.py FOLDER",
        "system": f"demo, 40 atoms, {BEADS} beads, float64, one thread per client, {args.device}",
        "machine": {
            "cores": os.cpu_count(),
            "load before, and after every round": [round(load, 1) for load in loads],
            "python": platform.python_version(),
        },
        "steps per second": {n: [round(v, 3) for v in values] for n, values in found.items()},
        "ratio to the first of the same round, median (lowest to highest)": {
            n: f"{statistics.median(r):.2f} ({min(r):.2f} to {max(r):.2f})"
            for n, r in ratios.items()
        },
    }
    out = Path(__file__).with_name("clients.json")
    out.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(out.read_text())


if __name__ == "__main__":
    main()
