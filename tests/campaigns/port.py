"""What strangers on a run's TCP port cost it, and what the port's guard costs by itself.

    python -m campaigns.port FOLDER [--part cost|proven|any] [--rounds 10] [--only WORDS]

Four oscillators with four beads at fixed λ: evaluations cost nothing, so that messages are all
there is.  *cost*: steps per second of one client at a stock ``i-pi`` and at our server over a unix
socket, over TCP, and over TCP with the secret, and the server's processor time per step.  All run
side by side, but only one at a time is not stopped; ratios are to the stock server of the same
round.  *attacks*, with the secret (``clients: proven``) and without: steps per second of the one
honest client while an attack goes on, relative to those just before, again and again in the same
run.  With the secret the stranger is only stopped in between, so that it has all its connections;
without, it would keep its work, and another one begins.  Writes benchmarks/port.json: ratios of
all steps under attack to all undisturbed ones, with a standard error from the rounds.
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
WINDOW = 1.0  # s of each measurement
SETTLE = 0.3  # s after something has begun or ended
RAMP = 3.0  # s until an attack has all its connections
FORK = multiprocessing.get_context("fork")
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


class Stranger:
    """An attack in a process of its own, which can be stopped."""

    def __init__(self, name: str, port: int):
        self.arguments = name, port
        self.process: multiprocessing.Process | None = None

    def go_on(self) -> None:
        if self.process is None:
            name, port = self.arguments
            attack = strangers.attacks(N)[name]
            self.process = FORK.Process(target=attack, args=(port,), daemon=True)
            self.process.start()
        else:
            os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.process = None


def under_attack(folder: Path, clients: str, rounds: int, only: str) -> dict[str, dict]:
    # without the secret strangers take work, and may keep it that long
    port = write_run(folder, "inet", clients, timeout=2)
    found = {}
    with running(folder):
        for name in strangers.attacks(N):
            if only not in name:
                continue
            stranger = Stranger(name, port)
            if clients == "proven":
                stranger.go_on()
                time.sleep(RAMP)
                stranger.stop()
            quiet, attacked = [], []
            for _ in range(rounds):
                time.sleep(SETTLE)
                quiet.append(rate(folder))
                stranger.go_on()
                time.sleep(SETTLE)
                attacked.append(rate(folder))
                stranger.stop() if clients == "proven" else stranger.end()
            if clients == "proven":
                stranger.end()
            found[name] = compared(attacked, quiet)
            print(clients, name, found[name], flush=True)
    return found


def compared(attacked: list[float], quiet: list[float]) -> dict[str, float]:
    ratio = sum(attacked) / sum(quiet)
    # of a ratio of means, over rounds
    off = [a - ratio * b for a, b in zip(attacked, quiet, strict=True)]
    error = statistics.stdev(off) / len(off) ** 0.5 / statistics.mean(quiet)
    return {
        "steps per second": round(statistics.mean(attacked), 1),
        "undisturbed": round(statistics.mean(quiet), 1),
        "ratio": round(ratio, 2),
        "ratio, SE": round(error, 2),
    }


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
        name: compared(values, first)
        | {"server's processor time per step (ms)": round(1000 * used[name], 2)}
        for name, values in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
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
