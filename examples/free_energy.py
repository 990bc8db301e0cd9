"""What the free-energy figures share: the command line, and one switch run, resumed, analysed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alchemdriver.analysis import analyze
from alchemdriver.contract.layout import find_runs
from alchemdriver.prepare.render import Settings
from alchemdriver.prepare.run_folder import prepare
from alchemdriver.prepare.structure import read_structure


def command(*words) -> None:
    """``alchemdriver WORDS``; ends this script if it fails."""
    done = subprocess.run([sys.executable, "-m", "alchemdriver", *(str(w) for w in words)])
    if done.returncode:
        sys.exit(done.returncode)


def switched(
    folder: Path,
    protocol: str,
    structure: Path,
    supercell: tuple[int, int, int],
    parameters: dict[str, str],
    settings: Settings,
    replicas: int,
    device: str,
):
    """The result of a switch, run or resumed in *folder*."""
    if not folder.exists():
        prepare(
            *(protocol, read_structure(structure, supercell), folder, parameters, settings),
            replicas=replicas,
        )
    command("run", folder, "--device", device)
    return analyze(find_runs(folder), write=False)


def numbers(result) -> dict[str, float]:
    """ΔG of the whole cell and dissipation with their errors, eV."""
    bar, mean = result.total("BAR"), result.total("eq. 11")
    return {
        "ΔG eq. 11, eV": mean.value,
        "standard error of eq. 11, eV": mean.se,
        "ΔG BAR, eV": bar.value,
        "standard error of BAR, eV": bar.se,
        "dissipated, kT": result.pooled.dissipation.mean_kT,
        "pairs": result.pooled.n,
    }
