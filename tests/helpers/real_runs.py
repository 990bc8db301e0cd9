"""Real runs for tests: folders with the analytic oscillator backend, and processes with limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.records import Structure

LIMIT = 120  # s, of any process a test starts
ENV = dict(os.environ, OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")


def oscillators(folder: Path, k_initial=2.0, k_final=6.0, cell=8.0) -> Structure:
    """Four independent atoms on springs (eV/Å^2), Cu at λ=0 and Au at λ=1; writes osc.json."""
    fractions = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    structure = Structure(("Cu",) * 4, fractions * cell, np.eye(3) * cell)
    content = {
        "backend": "harmonic",
        "spring_constants": {"Cu": k_initial, "Au": k_final},
        "anchors": structure.positions.tolist(),
        "cell": structure.cell.tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "osc.json").write_text(json.dumps(content))
    return structure


def oscillator_run(
    folder: Path,
    protocol="switch-nvt",
    *,
    temperature=300.0,
    timestep=2.0,
    seed=1,
    beads=None,
    steps=None,
    edit=None,
    **parameters,
) -> Path:
    """A prepared run of four oscillators; *edit* changes the XML text before it is used."""
    structure = oscillators(folder.parent)
    values = {"model": str(folder.parent / "osc.json"), "alchemy": "Cu->Au"}
    values |= {key.rstrip("_"): str(value) for key, value in parameters.items()}
    values = {key: value for key, value in values.items() if value != "None"}
    settings = Settings(
        pressure=1.0 if "npt" in protocol else None,
        temperature=temperature,
        timestep=timestep,
        seed=seed,
        beads=beads,
        total_steps=steps,
    )
    prepare(protocol, structure, folder, values, settings)
    if edit is not None:
        path = folder / "input.xml"
        path.write_text(edit(path.read_text()))
    return folder / "input.xml"


def command(*args, limit=LIMIT, **kwargs) -> subprocess.CompletedProcess:
    """``alchemdriver ARGS`` to its end, at most *limit* seconds."""
    return subprocess.run(
        [sys.executable, "-m", "alchemdriver", *map(str, args)],
        capture_output=True,
        text=True,
        timeout=limit,
        env=ENV,
        check=False,
        **kwargs,
    )


def start(*args, log: Path) -> subprocess.Popen:
    """``alchemdriver ARGS`` in the background, output to *log*."""
    with open(log, "w") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "alchemdriver", *map(str, args)],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=ENV,
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )


def _heed_interrupts() -> None:
    """A test runner in the background of a shell ignores SIGINT, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stock_ipi() -> Path:
    """The ``i-pi`` script of this environment."""
    return Path(sys.executable).parent / "i-pi"


def rows(path: Path) -> dict[int, str]:
    """Step → row of a property file, the later one where a step appears twice."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {int(float(line.split()[0])): line for line in lines}


def frames(path: Path) -> dict[int, str]:
    """Step → value of an extras file, the later one where a step appears twice."""
    lines = path.read_text().splitlines()
    return {
        int(a.split("Step:")[1].split()[0]): b
        for a, b in zip(lines[::2], lines[1::2], strict=False)
    }


def wait_for_step(path: Path, step: int, process: subprocess.Popen, limit=LIMIT) -> None:
    """Return once the property file at *path* has reached *step*, or *process* has ended."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and max(rows(path), default=-1) >= step:
            return
        time.sleep(0.02)
