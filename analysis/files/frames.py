"""Configurations of a run, from i-PI's extended-xyz trajectory.

``<trajectory format='ase'> positions </trajectory>`` writes 8 decimals and the whole cell; i-PI's
plain xyz has 6 digits, too few to evaluate energies from.  A resumed run repeats frames and a kill
may tear one: the later branch counts, and what is torn is dropped.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import ase.units
import numpy as np

from ... import units
from ...contract.run_input import RunInput
from ...errors import AnalysisError
from .readers import bead_paths, check_rows, last_branch
from .xyz import whole_frames

# i-PI's unit 'ase' is ase.units.Bohr per bohr, 1e-8 from its own angstrom
_ANGSTROM = 1.0 / (ase.units.Bohr * units.ANGSTROM)
_COMMENT = re.compile(r'^Lattice="([^"]+)".*Step:\s+(\d+)')


@dataclass(frozen=True)
class Frames:
    """Every stored configuration of a run, all beads."""

    steps: np.ndarray  # (n,) MD steps
    positions: np.ndarray  # (n, beads, N, 3) Å
    cells: np.ndarray  # (n, 3, 3) Å, rows are the lattice vectors
    keys: tuple[str, ...]  # sha256 of each frame's text, all beads


@dataclass(frozen=True)
class TrajectoryFile:
    """The positions output of an input."""

    path: Path  # as i-PI calls it, without bead and suffix
    stride: int


def trajectory_file(run: RunInput) -> TrajectoryFile | None:
    """The ``<trajectory format='ase'> positions`` of the input; None if there is none."""
    for output in run.trajectories:
        if output.format == "ase" and output.quantity == "positions" and output.bead == -1:
            return TrajectoryFile(run.output(output.filename), output.stride)
    return None


def read_frames(run: RunInput) -> Frames:
    """All complete frames.  Raises AnalysisError for a missing file, a gap, or foreign atoms."""
    wanted = trajectory_file(run)
    if wanted is None:
        raise AnalysisError(
            f"{run.path} prints no positions with enough digits: use <trajectory filename='pos' "
            "stride='10' format='ase'> positions </trajectory>"
        )
    beads = [
        _read_bead(path.with_name(path.name + ".extxyz"), run, wanted.stride)
        for path in bead_paths(wanted.path, run.beads)
    ]
    n = min(len(steps) for steps, _, _, _ in beads)
    texts = zip(*(texts[:n] for _, _, _, texts in beads), strict=True)
    return Frames(
        steps=beads[0][0][:n],
        positions=np.stack([x[:n] for _, x, _, _ in beads], axis=1),
        cells=beads[0][2][:n],
        keys=tuple(hashlib.sha256("\n".join(t).encode()).hexdigest() for t in texts),
    )


def _read_bead(
    path: Path, run: RunInput, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Steps (n,), positions (n, N, 3), cells (n, 3, 3), and the text of each frame."""
    natoms, symbols = len(run.structure), run.structure.symbols
    whole = list(whole_frames(path, natoms, _COMMENT))
    steps = np.array([int(frame.comment[2]) for frame in whole], dtype=np.int64)
    kept = np.flatnonzero(last_branch(steps))
    positions = np.empty((len(kept), natoms, 3))
    cells = np.empty((len(kept), 3, 3))
    texts = []
    for row, index in enumerate(kept):
        frame = whole[index]
        words = frame.words
        if tuple(w[0] if w else "" for w in words) != symbols:
            raise AnalysisError(f"{path}: step {steps[index]} holds other atoms than {run.path}")
        try:
            positions[row] = [[float(x) for x in w[1:4]] for w in words]
            cells[row] = np.array(frame.comment[1].split(), dtype=float).reshape(3, 3)
        except ValueError:
            raise AnalysisError(f"{path}: step {steps[index]} is not all numbers") from None
        texts.append("\n".join([frame.comment.string, *frame.rows]))
    kept_steps = steps[kept]
    check_rows(path, kept_steps, positions, stride)
    return kept_steps, positions * _ANGSTROM, cells * _ANGSTROM, texts
