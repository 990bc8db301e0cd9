"""The demonstration: cubic CsPbI3 → CsSnI3 and back in the NPT ensemble, on the embedded model."""

from __future__ import annotations

from pathlib import Path

from ..contract import shelf
from ..contract.digest import model_digest
from ..contract.layout import find_runs
from ..contract.run_input import read_input
from ..errors import InputError
from ..execute.supervisor import Resources, cores
from ..prepare.demo import CYCLES, PRESSURE, REPLICAS, TEMPERATURE, prepare_demo
from .show import run_and_analyze


def run_demo(folder: Path, seed: int, model: str) -> None:
    """Prepare, run and analyse; a folder that already holds the demo of *model* is resumed."""
    if not any(folder.glob("replica-*/input.xml")):
        prepare_demo(folder, seed, model=model)
    elif model_digest(read_input(find_runs(folder)[0])) != shelf.model_digest(model):
        raise InputError(f"{folder} holds a demo of another model than {model}: name a new folder")
    print(
        f"α-CsPbI3 → α-CsSnI3, 8 formula units, NPT at {TEMPERATURE:g} K and {PRESSURE:g} bar, "
        f"{REPLICAS} replicas × {CYCLES} forward/backward pairs"
    )
    run_and_analyze([folder], Resources(clients=1, jobs=min(REPLICAS, cores()), threads=1))
