"""Does a client's memory grow?  A server that asks for the same system again and again.

    python -m campaigns.memory [--evaluations 100000] [--model harmonic|demo]

Prints the resident set of a real ``alchemdriver client`` process after a warm-up and at the end.
``test_memory.py`` runs a short version.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
from helpers import real_runs as rr

from alchemdriver import units
from alchemdriver.contract.run_input import read_input
from alchemdriver.contract.xyz import read_xyz
from alchemdriver.prepare.protocols import find
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure

WARM_UP = 2000  # evaluations after which caches and arenas have their size


def header(name: str) -> bytes:
    return name.ljust(12).encode()


def resident(pid: int) -> float:
    """MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_run(folder: Path, model: str) -> Path:
    """A fixed-λ input whose client will be watched."""
    if model == "harmonic":
        return rr.oscillator_run(folder / "a", "nvt-fixed", lambda_=0.5)
    whole = read_xyz(find("nvt-fixed").template.parent / "start.xyz")
    structure = Structure(whole.symbols[:5], whole.positions[:5], whole.cell)
    values = {"model": model, "alchemy": "Pb->Sn", "lambda": "0.5"}
    prepare("nvt-fixed", structure, folder / "a", values, Settings(temperature=300.0))
    return folder / "a" / "input.xml"


def grow(evaluations: int, model: str = "harmonic") -> tuple[float, float]:
    """Resident set (MB) of a client after WARM_UP evaluations, and after *evaluations* more."""
    with tempfile.TemporaryDirectory(prefix="ad_", dir="/tmp") as place:
        folder = Path(place)
        path = write_run(folder, model)
        run = read_input(path)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{place}/s_{run.socket.address}")
        listener.listen()
        listener.settimeout(rr.LIMIT)
        client = rr.start(
            "client", path, "--socket-prefix", f"{place}/s_", log=folder / "client.log"
        )
        try:
            sock, _ = listener.accept()
            with sock, listener:
                sock.settimeout(rr.LIMIT)
                ask(sock, run, WARM_UP)
                before = resident(client.pid)
                ask(sock, run, evaluations)
                after = resident(client.pid)
                sock.sendall(header("EXIT"))
            assert client.wait(rr.LIMIT) == 0, (folder / "client.log").read_text()
        finally:
            client.kill()
            client.wait()
    return before, after


def ask(sock: socket.socket, run, times: int) -> None:
    """Requests as i-PI sends them, positions slightly different each time."""
    rng = np.random.default_rng(1)
    n = len(run.structure)
    text = f" lambda : 0.5 , digest : {run.parameters.digest} , ".encode()
    init = header("INIT") + struct.pack("=ii", 0, len(text)) + text
    h = np.ascontiguousarray(run.structure.cell.T * units.ANGSTROM)
    fixed = init + header("POSDATA") + h.tobytes() + np.linalg.inv(h).tobytes()
    fixed += struct.pack("=i", n)
    prefix = 12 + 8 + 4 + 24 * n + 72
    for _ in range(times):
        x = run.structure.positions + rng.normal(scale=0.02, size=(n, 3))
        sock.sendall(fixed + (x * units.ANGSTROM).tobytes() + header("GETFORCE"))
        reply = receive(sock, prefix + 4)
        receive(sock, struct.unpack("=i", reply[-4:])[0])


def receive(sock: socket.socket, n: int) -> bytes:
    data = bytearray()
    while len(data) < n:
        part = sock.recv(n - len(data))
        assert part, "the client hung up"
        data += part
    return bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--model", default="harmonic")
    args = parser.parse_args()
    began = time.monotonic()
    before, after = grow(args.evaluations, args.model)
    print(
        f"{args.model}: {args.evaluations} evaluations, resident set {before:.1f} → {after:.1f} MB "
        f"({after - before:+.1f}), {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
