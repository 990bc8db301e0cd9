"""What strangers on a run's TCP port cost it, and what the port's guard costs by itself.

    python -m campaigns.port FOLDER [--part cost|proven|any] [--rounds 5] [--only WORDS]

Four oscillators with four beads at fixed λ: evaluations cost nothing, so that messages are all
there is.  *cost*: steps per second of one client at a stock ``i-pi`` and at our server over a unix
socket, over TCP, and over TCP with the secret, and the server's processor time per step.  All run
side by side, but only one at a time is not stopped; ratios are to the stock server of the same
round.  *attacks*, with the secret (``clients: proven``) and without: steps per second of the one
honest client while an attack goes on, relative to those just before, again and again in the same
run.  Medians over rounds.  Writes benchmarks/port.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from helpers import real_runs as rr
from helpers import strangers
from helpers.faults import free_port

N, BEADS = 4, 4
WINDOW = 2.0  # s of each measurement
SETTLE = 0.5  # s after something has begun or ended
OUT = Path(__file__).parents[2] / "benchmarks" / "port.json"
COSTS = {  # name: (mode, clients, stock)
    "stock i-pi, TCP": ("inet", "any", True),
    "TCP": ("inet", "any", False),
    "TCP with the secret": ("inet", "proven", False),
    "unix": ("unix", "proven", False),
}


def write_run(folder: Path, mode: str, clients: str, timeout: int) -> int:
    """A run folder; returns its port."""
    port = free_port()

    def edit(text: str) -> str:
        if mode == "inet":
            there = f"<address>{strangers.HOST}</address><port>{port}</port>"
            text = re.sub("<address>.*?</address>", there, text)
            text = text.replace('mode="unix"', 'mode="inet"')
        text = re.sub(r"(<parameters>\s*{)", rf"\1clients: {clients}, ", text)
        return re.sub("<timeout>.*?</timeout>", f"<timeout>{timeout}</timeout>", text)

    rr.oscillator_run(folder, "pimd-fixed", beads=BEADS, steps=10**7, lambda_=0.5, edit=edit)
    return port


@contextmanager
def running(folder: Path, stock: bool = False) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A server and its one honest client, which have done some steps."""
    place = tempfile.mkdtemp(prefix="port-", dir="/tmp")
    words = [folder / "input.xml", "--socket-prefix", f"{place}/"]
    log = folder / "server.log"
    if stock:
        with open(log, "w") as out:
            server = subprocess.Popen(
                [rr.stock_ipi(), "input.xml"], cwd=folder, stdout=out, stderr=out
            )
    else:
        server = rr.start("server", *words, log=log)
    processes = [server, rr.start("client", *words, log=folder / "client.log")]

    def check() -> None:
        assert all(p.poll() is None for p in processes), log.read_text()[-2000:]

    try:
        while steps_of(folder) < 50:
            check()
            time.sleep(0.05)
        yield processes
        check()
    finally:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(place)


def steps_of(folder: Path) -> int:
    path = folder / "run.lambda_0"
    return path.read_text().count("\n") // 2 if path.exists() else 0


def rate(folder: Path) -> float:
    """Steps per second from now on."""
    begin, first = time.monotonic(), steps_of(folder)
    time.sleep(WINDOW)
    return (steps_of(folder) - first) / (time.monotonic() - begin)


def under_attack(folder: Path, clients: str, rounds: int, only: str) -> dict[str, dict]:
    # without the secret strangers take work, and may keep it that long
    port = write_run(folder, "inet", clients, timeout=2)
    found = {}
    with running(folder):
        for name, attack in strangers.attacks(N).items():
            if only not in name:
                continue
            quiet, attacked = [], []
            for _ in range(rounds):
                quiet.append(rate(folder))
                stranger = multiprocessing.get_context("fork").Process(
                    target=attack, args=(port,), daemon=True
                )
                stranger.start()
                time.sleep(SETTLE)
                attacked.append(rate(folder))
                stranger.kill()
                stranger.join()
                time.sleep(SETTLE)
            ratios = [a / b for a, b in zip(attacked, quiet, strict=True)]
            found[name] = {
                "steps per second": round(statistics.median(attacked), 1),
                "undisturbed": round(statistics.median(quiet), 1),
                "ratio": round(statistics.median(ratios), 2),
                "ratios of the rounds": [round(x, 2) for x in sorted(ratios)],
            }
            print(clients, name, found[name], flush=True)
    return found


def processor_time(process: subprocess.Popen[bytes]) -> float:
    """Seconds so far (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def costs(folder: Path, rounds: int) -> dict[str, dict]:
    rates: dict[str, list[float]] = {name: [] for name in COSTS}
    used = {}
    with ExitStack() as stack:
        pairs = {}
        for k, (name, (mode, clients, stock)) in enumerate(COSTS.items()):
            run = folder / f"cost-{k}"
            write_run(run, mode, clients, timeout=600)
            pairs[name] = run, stack.enter_context(running(run, stock))
            for process in pairs[name][1]:
                process.send_signal(signal.SIGSTOP)
        begin = {name: (processor_time(p[0]), steps_of(run)) for name, (run, p) in pairs.items()}
        for _ in range(rounds):
            for name, (run, processes) in pairs.items():
                for process in processes:
                    process.send_signal(signal.SIGCONT)
                time.sleep(0.1)
                rates[name].append(rate(run))
                for process in processes:
                    process.send_signal(signal.SIGSTOP)
        for name, (run, processes) in pairs.items():
            time0, step0 = begin[name]
            used[name] = (processor_time(processes[0]) - time0) / (steps_of(run) - step0)
    first = rates["stock i-pi, TCP"]
    return {
        name: {
            "steps per second": round(statistics.median(values), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(values, first, strict=True)), 2),
            "server's processor time per step (ms)": round(1000 * used[name], 2),
        }
        for name, values in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=("cost", "proven", "any"), help="Default: all.")
    parser.add_argument("--only", default="", help="Attacks with this in their name.")
    args = parser.parse_args()
    folder = args.folder.resolve()
    found = json.loads(OUT.read_text()) if OUT.exists() else {}
    if args.part in (None, "cost"):
        found["cost"] = costs(folder, args.rounds)
        print(json.dumps(found["cost"], indent=1))
    for clients in ("proven", "any"):
        if args.part in (None, clients):
            name = f"attacks, clients: {clients}"
            new = under_attack(folder / clients, clients, args.rounds, args.only)
            found[name] = found.get(name, {}) | new
    found["machine"] = {"processor": platform.machine(), "cores": os.cpu_count()}
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
