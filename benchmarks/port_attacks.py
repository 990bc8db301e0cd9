"""What strangers on a run's TCP port cost it, and what the port's guard costs by itself.

    python benchmarks/port_attacks.py FOLDER [--seconds 6] [--rounds 2]

Four oscillators with four beads at fixed λ: evaluations cost nothing, so that messages are all
there is.  "cost": steps per second of one client at a stock ``i-pi`` and at our server over a unix
socket, over TCP, and over TCP with the secret; the cases take turns, ratios are to the stock server
of the same round.  "attacks": steps per second of the one honest client while an attack goes on,
relative to the mean of those before and after it in the same run.  Writes port_attacks.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import re
import secrets
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure

N, BEADS, TIMEOUT = 4, 4, 15
SETTLE = 1.0  # s after an attack has begun or ended
HOST = "127.0.0.1"


def header(name: str) -> bytes:
    return name.ljust(12).encode()


def free_port() -> int:
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


def write_run(folder: Path, mode: str, clients: str, steps: int) -> int:
    """A run folder; returns its port."""
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    cell = 8.0 * np.eye(3)
    structure = Structure(("Cu",) * N, fractions @ cell, cell)
    model = folder.parent / "oscillators.json"
    content = {
        "backend": "harmonic",
        "spring_constants": {"Cu": 2.0, "Au": 6.0},
        "anchors": structure.positions.tolist(),
        "cell": cell.tolist(),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    model.write_text(json.dumps(content))
    values = {"model": str(model), "alchemy": "Cu->Au", "lambda": "0.5"}
    settings = Settings(temperature=300.0, total_steps=steps, beads=BEADS, seed=1, timestep=1.0)
    prepare("pimd-fixed", structure, folder, values, settings)
    port = free_port()
    path = folder / "input.xml"
    text = path.read_text()
    if mode == "inet":
        text = text.replace('mode="unix"', 'mode="inet"')
        text = re.sub(
            r"<address>.*?</address>", f"<address>{HOST}</address><port>{port}</port>", text
        )
    text = re.sub(r"(<parameters>\s*{)", rf"\1clients: {clients}, ", text)
    text = re.sub(r"<timeout>.*?</timeout>", f"<timeout>{TIMEOUT}</timeout>", text)
    path.write_text(text)
    return port


@contextmanager
def running(folder: Path, stock: bool = False) -> Iterator[None]:
    """A server and its one honest client, which have done some steps."""
    here = [sys.executable, "-m", "alchemdriver"]
    prefix = ["--socket-prefix", f"/tmp/port-attacks-{os.getpid()}-"]
    server = [str(Path(sys.executable).with_name("i-pi")), "input.xml"]
    if not stock:
        server = [*here, "server", "input.xml", *prefix]
    env = dict(os.environ, OMP_NUM_THREADS="1")
    with open(folder / "log", "w") as log:
        processes = [
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=env)
            for command in (server, [*here, "client", "input.xml", *([] if stock else prefix)])
        ]
    try:
        while steps_of(folder) < 50:
            assert all(p.poll() is None for p in processes), (folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield
        assert all(p.poll() is None for p in processes), (folder / "log").read_text()[-2000:]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def steps_of(folder: Path) -> int:
    path = folder / "run.lambda_0"
    return path.read_text().count("\n") // 2 if path.exists() else 0


def rate(folder: Path, seconds: float) -> float:
    """Steps per second from now on."""
    begin, first = time.monotonic(), steps_of(folder)
    time.sleep(seconds)
    return (steps_of(folder) - first) / (time.monotonic() - begin)


# --- attacks: each goes on for ever against one port --------------------------------------------


def reply_head(extras: int) -> bytes:
    """A reply of zeros up to the length of its extras."""
    return (
        header("FORCEREADY") + bytes(8) + struct.pack("=i", N) + bytes(24 * N + 72)
        + struct.pack("=i", extras)
    )  # fmt: skip


def again(attack: Callable[[socket.socket], None], port: int) -> None:
    """*attack* one connection after the other; a peer that hangs up is no end."""
    while True:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=60) as s:
            attack(s)
        time.sleep(0.05)


def drip_extras(s: socket.socket) -> None:
    s.sendall(header("READY"))
    s.sendall(reply_head(2**31 - 1))
    while True:
        s.sendall(b" ")
        time.sleep(0.05)


def drip_reply(s: socket.socket) -> None:
    """Takes work like anybody and answers it a byte at a time."""
    s.sendall(header("READY"))
    while b"GETFORCE" not in s.recv(4096):
        pass
    for byte in reply_head(1000) + bytes(1000):
        s.sendall(bytes([byte]))
        time.sleep(0.05)


def huge_extras(s: socket.socket) -> None:
    s.sendall(header("READY") + reply_head(1_200_000_000))
    for _ in range(1200):
        s.sendall(b" " * 1_000_000)


def not_reading(s: socket.socket) -> None:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    s.sendall(header("READY"))
    time.sleep(3600)


def garbage(s: socket.socket) -> None:
    s.sendall(secrets.token_bytes(4096))
    time.sleep(0.05)


def forged_replies(s: socket.socket) -> None:
    """A guessed proof, and results that nobody computed."""
    s.sendall(header("PROOF") + secrets.token_bytes(64) + header("READY"))
    s.sendall(reply_head(0) + secrets.token_bytes(32) + header("READY"))
    s.recv(4096)
    time.sleep(0.05)


def silent(port: int) -> None:
    """A connection every two seconds that says nothing."""
    held = []
    while True:
        with suppress(OSError):
            held.append(socket.create_connection((HOST, port), timeout=60))
        time.sleep(2)


def slow_greetings(port: int) -> None:
    """Hundred connections that say a letter a second."""
    held: list[tuple[socket.socket, Iterator[int]]] = []
    while True:
        while len(held) < 100:
            held.append((socket.create_connection((HOST, port), timeout=60), iter(b"NEEDINIT    ")))
        for pair in held[:]:
            try:
                pair[0].sendall(bytes([next(pair[1])]))
            except (OSError, StopIteration):
                held.remove(pair)
        time.sleep(1)


def flood(port: int) -> None:
    """Connections as fast as they are taken."""
    while True:
        with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            pass


def one_by_one(attack: Callable[[socket.socket], None]) -> Callable[[int], None]:
    return lambda port: again(attack, port)


ATTACKS: dict[str, Callable[[int], None]] = {
    "announces 2^31-1 bytes of extras, a byte per 50 ms": one_by_one(drip_extras),
    "a proper reply, a byte per 50 ms": one_by_one(drip_reply),
    "1.2 GB of extras": one_by_one(huge_extras),
    "a silent connection every 2 s": silent,
    "does not read": one_by_one(not_reading),
    "garbage": one_by_one(garbage),
    "guessed proofs, forged replies": one_by_one(forged_replies),
    "100 connections, a letter of the greeting per s": slow_greetings,
    "connections as fast as they are taken": flood,
}


def under_attack(folder: Path, clients: str, seconds: float, only: str) -> dict[str, dict]:
    port = write_run(folder, "inet", clients, steps=10_000_000)
    found = {}
    with running(folder):
        quiet = rate(folder, seconds)
        for name, attack in ATTACKS.items():
            if only not in name:
                continue
            stranger = multiprocessing.get_context("fork").Process(
                target=attack, args=(port,), daemon=True
            )
            stranger.start()
            time.sleep(SETTLE)
            attacked = rate(folder, seconds)
            stranger.kill()
            stranger.join()
            time.sleep(SETTLE if clients == "proven" else TIMEOUT + SETTLE)  # its work comes back
            after = rate(folder, seconds)
            found[name] = {
                "steps per second": round(attacked, 1),
                "undisturbed": [round(quiet, 1), round(after, 1)],
                "ratio": round(attacked / statistics.mean((quiet, after)), 3),
            }
            print(clients, name, found[name], flush=True)
            quiet = after
    return found


COSTS = {  # name: (mode, clients, stock)
    "stock i-pi, TCP": ("inet", "any", True),
    "TCP": ("inet", "any", False),
    "TCP with the secret": ("inet", "proven", False),
    "unix": ("unix", "proven", False),
}


def costs(folder: Path, seconds: float, rounds: int) -> dict[str, dict]:
    rates: dict[str, list[float]] = {name: [] for name in COSTS}
    numbers = itertools.count()
    for _ in range(rounds):
        for name, (mode, clients, stock) in COSTS.items():
            run = folder / f"cost-{next(numbers)}"
            write_run(run, mode, clients, steps=10_000_000)
            with running(run, stock):
                rates[name].append(rate(run, seconds))
            print(name, round(rates[name][-1], 1), flush=True)
    first = rates["stock i-pi, TCP"]
    return {
        name: {
            "steps per second": [round(x, 1) for x in values],
            "ratio": round(statistics.median(a / b for a, b in zip(values, first, strict=True)), 3),
        }
        for name, values in rates.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3, help="Of the cost.")
    parser.add_argument("--part", choices=("cost", "proven", "any"), help="Default: all.")
    parser.add_argument("--only", default="", help="Attacks with this in their name.")
    args = parser.parse_args()
    folder = args.folder.resolve()
    path = Path(__file__).with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    if args.part in (None, "cost"):
        found["cost"] = costs(folder, args.seconds, args.rounds)
    for clients in ("proven", "any"):
        if args.part in (None, clients):
            name = f"attacks, clients: {clients}"
            new = under_attack(folder / clients, clients, args.seconds, args.only)
            found[name] = found.get(name, {}) | new
    found["machine"] = {"processor": platform.machine(), "cores": os.cpu_count()}
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
