"""A few frames of a long trajectory, without reading the rest.

Enough to see whether atoms are where they started.  i-PI's frames have nearly equal lengths, so a
few places in the file, evenly apart, give frames evenly apart in time.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from ase.geometry import cellpar_to_cell

from ...contract.run_input import RunInput
from . import frames, trajectory
from .readers import bead_paths, read_bytes

_CELL = re.compile(
    rb"^# CELL\(abcABC\):((?:\s+\S+){6})\s+Step:.*positions\{angstrom\}\s+cell\{angstrom\}"
)
_LATTICE = re.compile(rb'^Lattice="([^"]+)".*Step:')


def sampled_frames(run: RunInput, count: int = 16) -> tuple[np.ndarray, np.ndarray] | None:
    """Positions (n, N, 3) Å and cells (n, 3, 3) Å of at most *count* frames of the first bead.

    The first and the last whole frame are among them; what is torn is passed over.  None where the
    input prints no positions in ångström, or no whole frame is there yet.
    """
    path = _file(run)
    if path is None:
        return None
    n = len(run.structure)
    pieces, tails = _pieces(path, n, count)
    found = [frame for data in pieces if (frame := _first_frame(data, n)) is not None]
    found += [frame for data in tails if (frame := _first_frame(data, n)) is not None][-1:]
    if not found:
        return None
    return np.array([p for p, _ in found]), np.array([c for _, c in found])


def _file(run: RunInput) -> Path | None:
    plain = trajectory.trajectory_file(run)
    if plain is not None:
        path = bead_paths(plain[0], run.beads)[0]
        path = path.with_name(path.name + ".xyz")
    else:
        extended = frames.trajectory_file(run)
        if extended is None:
            return None
        path = bead_paths(extended.path, run.beads)[0]
        path = path.with_name(path.name + ".extxyz")
    return path if path.is_file() or Path(f"{path}.gz").is_file() else None


def _pieces(path: Path, natoms: int, count: int) -> tuple[list[bytes], list[bytes]]:
    """Pieces of the file that each hold a whole frame, evenly apart; and the ends of the file that
    begin with each of its last frames, of which the very last may be torn."""
    packed = not path.is_file()
    whole = read_bytes(path) if packed else b""
    size = len(whole) if packed else path.stat().st_size
    with open(f"{path}.gz" if packed else path, "rb") as file:

        def piece(start: int, length: int) -> bytes:
            if packed:
                return whole[start : start + length]
            file.seek(start)
            return file.read(length)

        longest = 256 * (natoms + 2)  # bytes; no row is longer than this
        length = _length(piece(0, longest), natoms)
        if length is None:
            return [], []
        last = max(0, size - length)
        starts = sorted({round(k * last / max(1, count - 1)) for k in range(count)})
        # a place inside a frame needs the rest of it and the whole of the next
        found = [piece(max(0, s - 1), 2 * length + 64) for s in starts[:-1]]
        tail = piece(max(0, size - 3 * length), 3 * length)
        ends = [m.start() for m in re.finditer(rb"(?:^|\n)\s*%d\s*\n" % natoms, tail)]
        return found, [tail[at:] for at in ends]


def _length(data: bytes, natoms: int) -> int | None:
    """Bytes of the first frame."""
    at = -1
    for _ in range(natoms + 2):
        at = data.find(b"\n", at + 1)
        if at < 0:
            return None
    return at + 1


def _first_frame(data: bytes, natoms: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The first whole frame in *data*: positions (N, 3) and cell (3, 3), Å."""
    count = re.search(rb"(?:^|\n)\s*%d\s*\n" % natoms, data)
    if count is None:
        return None
    lines = data[count.end() :].split(b"\n")[: natoms + 2]
    if len(lines) < natoms + 2:  # the last is what follows the last line end
        return None
    comment, rows = lines[0], lines[1 : natoms + 1]
    try:
        positions = np.array([row.split()[1:4] for row in rows], dtype=float)
        if positions.shape != (natoms, 3) or not np.isfinite(positions).all():
            return None
        plain, extended = _CELL.match(comment), _LATTICE.match(comment)
        if plain is not None:
            return positions, cellpar_to_cell([float(x) for x in plain[1].split()])
        if extended is not None:
            cell = np.array(extended[1].split(), dtype=float).reshape(3, 3)
            return positions, cell
    except ValueError:
        pass
    return None
