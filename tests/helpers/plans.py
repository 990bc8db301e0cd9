"""Plans of small campaigns of analytic oscillators."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io

from . import real_runs as rr

PLAN = """
protocol = "switch-nvt"
seed = 7
structures = ["cu.xyz"]
models = ["osc.json"]
alchemies = ["Cu->Au"]
temperatures = [300, 400]
replicas = 2
{top}
[options]
timestep = 2
equilibrate = 20
switch = 30
cycles = 1
{rest}
"""


def write_plan(folder: Path, top: str = "", rest: str = "", **replaced: str) -> Path:
    """``plan.toml`` with a structure and a model of four oscillators beside it.

    top and rest: more lines; *replaced*: other values of the lines that are there.
    """
    s = rr.oscillators(folder)
    crystal = ase.Atoms(s.symbols, s.positions, cell=s.cell, pbc=True)
    ase.io.write(folder / "cu.xyz", crystal, format="extxyz")
    lines = PLAN.split("\n")
    for key, value in replaced.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in lines]
    (folder / "plan.toml").write_text("\n".join(lines).format(top=top, rest=rest))
    return folder / "plan.toml"
