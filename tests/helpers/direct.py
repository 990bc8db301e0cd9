"""i-PI and H(x, λ) in one process, without a socket: for long runs of models that cost nothing.

``run(folder)`` runs the input of a folder at fixed λ under stock i-PI's own ``<ffdirect>``, with
this file as its custom PES; outputs are those of the input.  The wire is tested elsewhere.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

__DRIVER_NAME__ = "alchemdriver"
__DRIVER_CLASS__ = "Direct"


class Direct:
    """What i-PI calls: h (3, 3) with the lattice vectors in columns, positions (N, 3), in bohr."""

    def __init__(self, input: str, **_):
        from alchemdriver.client.assembly import hamiltonian_of
        from alchemdriver.contract.run_input import read_input

        run = read_input(input)
        assert run.schedule is None
        self.lam = run.parameters.lam
        self.hamiltonian = hamiltonian_of(run, "cpu")

    def __call__(self, cell: np.ndarray, positions: np.ndarray):
        from alchemdriver.units import ANGSTROM, ELECTRONVOLT, EV_PER_ANGSTROM

        found = self.hamiltonian.evaluate(positions / ANGSTROM, cell.T / ANGSTROM, self.lam)
        extras = {"lambda": self.lam, "dHdlambda": found.dHdlambda * ELECTRONVOLT}
        return (
            found.energy * ELECTRONVOLT,
            found.forces * EV_PER_ANGSTROM,
            found.virial.T * ELECTRONVOLT,
            json.dumps(extras),
        )


def run(folder: Path) -> None:
    """The run of *folder*/input.xml, from its start to its end."""
    direct = (
        f"<ffdirect name='alchemy' pbc='false'><pes>custom</pes><pes_path>{__file__}</pes_path>"
        f"<parameters>{{input: {folder / 'input.xml'}}}</parameters></ffdirect>"
    )
    text = (folder / "input.xml").read_text()
    text, count = re.subn("<ffsocket.*</ffsocket>", direct, text, flags=re.DOTALL)
    assert count == 1
    (folder / "direct.xml").write_text(text)
    i_pi = Path(sys.executable).parent / "i-pi"
    with open(folder / "server.log", "w") as log:
        subprocess.run([i_pi, "direct.xml"], cwd=folder, check=True, stdout=log, stderr=log)
