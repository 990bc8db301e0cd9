"""What i-PI loaded is what the contract understood, or the run ends before its first step."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helpers import real_runs as rr


@pytest.mark.parametrize(
    ("name", "wrong", "says"),
    [
        ("temperature", 301.0, "i-PI runs with a temperature of 300 K"),
        ("pressure", 2.0, "i-PI runs with a pressure of 1 bar"),
        ("timestep", 1.0, "i-PI runs with a time step of 2 fs"),
        ("structure", None, "i-PI starts with other positions"),
    ],
)
def test_a_contract_that_misread_the_input_ends_the_run(tmp_path, name, wrong, says):
    """The reading is made wrong here, as a feature of i-PI that it does not know would."""
    path = rr.oscillator_run(tmp_path / "a", "npt", alchemy=None, steps=5, timestep=2.0)
    change = (
        f"{name}={wrong}"
        if wrong is not None
        else "structure=replace(run.structure, positions=run.structure.positions + 0.1)"
    )
    code = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from alchemdriver.errors import RunError\n"
        "from alchemdriver.server import serve\n"
        "read = serve.read_input\n"
        "def misread(path):\n"
        "    run = read(path)\n"
        f"    return replace(run, {change})\n"
        "serve.read_input = misread\n"
        "try:\n"
        "    serve.serve(Path(sys.argv[1]), sockets_prefix=sys.argv[2])\n"
        "except RunError as err:\n"
        "    print(err)\n"
        "    import os; sys.stdout.flush(); os._exit(2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), f"{tmp_path}/s-"],
        capture_output=True,
        text=True,
        timeout=rr.LIMIT,
        env=rr.ENV,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stdout
