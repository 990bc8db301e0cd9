"""A whole molecular dynamics step through i-PI and the socket over the bare evaluation in it.

This process is the client.  It notes when every evaluation starts and ends, so that both sides of
the ratio come from the same steps of the same run; what lies between is i-PI, the socket and the
writing of files.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ..client import assembly
from ..client.serve import serve
from ..contract.address import address_of
from ..contract.digest import digest
from ..contract.run_input import alchemical_forcefield, read_input
from ..contract.xmltree import parse_xml
from ..errors import RunError
from ..prepare import tree
from ..prepare.render import Settings
from ..prepare.run_folder import prepare
from ..records import Evaluation
from .cases import MODELS, build_model, perovskite
from .timing import Row

__all__ = ["rows"]

REPEAT = 3  # CsPbI3, 135 atoms, every Pb split
STEPS, WARM_UP = 120, 20


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """The embedded model, and every other one, over a unix socket and through shared memory."""
    for model in dict.fromkeys(["demo", *models]):
        for dtype in dtypes:
            for mode in ("unix", "shm"):
                with tempfile.TemporaryDirectory(prefix="ad_") as scratch:
                    whole, bare = _measure(Path(scratch), model, dtype, mode, device)
                low, middle, high = np.percentile(whole / bare, [25, 50, 75])
                yield {
                    "model": model,
                    "dtype": dtype,
                    "mode": mode,
                    "step_over_evaluation": {
                        "median": round(middle, 3),
                        "low": round(low, 3),
                        "high": round(high, 3),
                    },
                    "evaluation, ms": round(1e3 * float(np.median(bare)), 2),
                    "rest, ms": round(1e3 * float(np.median(whole - bare)), 2),
                }


def _measure(
    folder: Path, model: str, dtype: str, mode: str, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Wall seconds of every step, and of the evaluation in it."""
    path = _write_input(folder, model, dtype, mode)
    run = read_input(path)
    hamiltonian = assembly.hamiltonian_of(run, device)
    start, end = [], []

    def evaluate(positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        start.append(time.perf_counter())
        result = hamiltonian.evaluate(positions, cell, lam)
        end.append(time.perf_counter())
        return result

    with open(folder / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "alchemdriver", "server", str(path)],
            stdout=log,
            stderr=log,
        )
        try:
            serve(
                address_of(run),
                n_atoms=len(run.structure),
                evaluate=evaluate,
                lambda_of=assembly.lambda_reader(run, digest(run)),
            )
        finally:
            server.terminate()
            server.wait()
    if len(start) < STEPS:
        tail = (folder / "server.log").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise RunError(f"bench: the server stopped after {len(start)} steps: {' '.join(tail)}")
    whole = np.diff(start)[WARM_UP:]
    return whole, (np.array(end) - np.array(start))[:-1][WARM_UP:]


def _write_input(folder: Path, model: str, dtype: str, mode: str) -> Path:
    """nvt-fixed at λ = 0.5 with the template's own outputs.

    The time step is so short that the forces of random weights move nothing far.
    """
    named = model
    if model in MODELS:
        named = str(folder / "random.model")
        torch.save(build_model(model), named)
    system = perovskite(REPEAT)
    keys = {"model": named, "alchemy": "Pb->Sn", "lambda": "0.5", "dtype": dtype}
    settings = Settings(temperature=300.0, timestep=0.01, total_steps=STEPS)
    (target,) = prepare("nvt-fixed", system.structure, folder / "run", keys, settings)
    path = target / "input.xml"
    root = parse_xml(path.read_text(encoding="utf-8"))
    socket = alchemical_forcefield(root)
    socket["@mode"] = mode
    tree.set_text(socket, "address", f"bench_{folder.name}")
    tree.write_xml(path, root)
    return path
