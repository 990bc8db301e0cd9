"""Positions and cells along a run, from i-PI's own xyz trajectory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from ...contract.run_input import RunInput
from ...errors import AnalysisError
from .readers import bead_paths, last_branch
from .xyz import whole_frames

_COMMENT = re.compile("#")


@dataclass(frozen=True)
class Trajectory:
    """Frames of one bead, as i-PI prints them: positions not wrapped, five or six digits."""

    path: Path
    steps: np.ndarray  # (n,) MD steps
    cells: np.ndarray  # (n, 3, 3) Å, rows are the lattice vectors
    positions: np.ndarray  # (n, N, 3) Å

    def __len__(self) -> int:
        return len(self.steps)

    def displacements(self, reference: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """Fractional displacements (n, N, 3) from *reference* (N, 3), fractional.

        The shift of the mass centre (masses (N,) u) is taken out of every frame, so that neither a
        drift nor the origin about which a barostat scales the cell shows.
        """
        fractional = np.linalg.solve(
            self.cells.transpose(0, 2, 1), self.positions.transpose(0, 2, 1)
        ).transpose(0, 2, 1)
        u = fractional - reference
        u -= np.round(u - u[:1]) + np.round(u[:1])
        mu = masses / masses.sum()
        relative: np.ndarray = u - np.einsum("i,tia->ta", mu, u)[:, None, :]
        return relative


def trajectory_file(run: RunInput) -> tuple[Path, int] | None:
    """Path (without bead) and stride of the input's first trajectory of positions, if any."""
    for output in run.trajectories:
        if output.format == "xyz" and output.quantity == "positions":
            return run.output(output.filename), output.stride
    return None


def read_trajectory(run: RunInput, bead: int = 0) -> Trajectory:
    """Frames of the input's trajectory of positions; torn and superseded ones are left out.

    Raises AnalysisError if the input prints none, or not in ångström, or not one whole frame.
    """
    found = trajectory_file(run)
    if found is None:
        raise AnalysisError(
            f"{run.path} prints no positions: add <trajectory filename='pos' stride='10' "
            "format='xyz' cell_units='angstrom'> positions{angstrom} </trajectory>"
        )
    path = bead_paths(found[0], run.beads)[bead]
    path = path.with_name(path.name + ".xyz")
    n = len(run.structure)
    steps, cells, positions = [], [], []
    for found_frame in whole_frames(path, n, _COMMENT):
        words = found_frame.comment.string.split()
        if "Step:" not in words:
            continue  # torn
        if "positions{angstrom}" not in words or "cell{angstrom}" not in words:
            raise AnalysisError(f"{path}: expected positions and cell in angstrom")
        try:
            rows = [[float(x) for x in row[1:4]] for row in found_frame.words]
            frame = np.array(rows, dtype=float).reshape(n, 3)
            cell = cellpar_to_cell([float(x) for x in words[2:8]])
            step = int(words[words.index("Step:") + 1])
        except (ValueError, IndexError):
            continue
        steps.append(step)
        cells.append(cell)
        positions.append(frame)
    if not steps:
        raise AnalysisError(f"{path} holds no whole frame of {n} atoms")
    kept = last_branch(np.array(steps, dtype=np.int64))
    return Trajectory(path, np.array(steps)[kept], np.array(cells)[kept], np.array(positions)[kept])
