"""Which checkpoint a run can go on from: one that the rows on disk reach.

i-PI's rows are on disk before a checkpoint that stands behind them, so rows are missing only where
somebody else made them so: a folder that was copied while it ran, a file that was cut or deleted.
A run that went on from there would have a gap that nobody notices before its analysis.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ..analysis.files.readers import bead_paths
from ..contract.run_input import RunInput
from ..errors import RunError
from ..server import checkpoints
from ..server.checkpoints import Checkpoint
from .progress import last_row

log = logging.getLogger(__name__)

_TAIL = 8192  # bytes; longer than any row
_LINE = 200  # bytes; longer than a line of a frame
_EXTRAS = re.compile(rb"#EXTRAS\([^()#]*\)#\s*Step:\s*(\d+)[ ]*\n[^\n#]*\n")
_FRAME = re.compile(rb"\n#[^\n]*Step:\s*(\d+)[^\n]*\n")


def resume_point(run: RunInput) -> Checkpoint | None:
    """The furthest checkpoint of *run* that its rows reach; None for a run that has none.

    Raises RunError, one line, if there are checkpoints and rows are missing before all of them; and
    as :func:`.checkpoints.complete` does.
    """
    found = sorted(checkpoints.complete(run), key=lambda c: c.step, reverse=True)
    missing = None
    for checkpoint in found:
        gap = _gap(run, checkpoint)
        if gap is None:
            if missing is not None:
                log.warning("%s: going on from step %d", missing, checkpoint.step)
            return checkpoint
        missing = missing or gap
    if missing is not None:
        raise RunError(
            f"{missing}: copy the folder again while nothing runs in it, or begin anew without the "
            "checkpoints"
        )
    return None


def check_goes_on(run: RunInput) -> None:
    """Raises RunError, one line, for a finished *run* that cannot go on if it is made longer."""
    for path, _, _ in _last_steps(run):
        if not path.exists() and Path(f"{path}.gz").exists():
            raise RunError(
                f"{path}.gz is packed, and nothing can be written behind it: unpack it (gunzip) "
                "for the run to be made longer"
            )
    if resume_point(replace(run, total_steps=run.total_steps + 1)) is None:
        raise RunError(
            f"{run.path}: no checkpoint is left to go on from, so the run cannot be made longer: "
            "put it back, or begin anew in another folder"
        )


def last_printed(run: RunInput) -> int:
    """The last step that is printed; 0 if nothing is."""
    return max((last for _, _, last in _last_steps(run) if last is not None), default=0)


def _gap(run: RunInput, checkpoint: Checkpoint) -> str | None:
    """What is missing before *checkpoint*, in words."""
    over = checkpoint.step >= run.total_steps
    for path, stride, last in _last_steps(run):
        if over and not path.exists() and (path.suffix == ".xyz" or Path(f"{path}.gz").exists()):
            continue  # packed or deleted by somebody who is done with it
        expected = checkpoint.step // stride * stride
        if last is None or last < expected:
            there = f"ends at step {last}" if last is not None else "has no row"
            return (
                f"{path} {there if path.exists() else 'is missing'}, but {checkpoint.path.name} is "
                f"of step {checkpoint.step}"
            )
    return None


def _last_steps(run: RunInput) -> Iterator[tuple[Path, int, int | None]]:
    """(file, stride, step of its last whole row or None) of all outputs whose form is known."""
    for output in run.properties:
        if any(c.split("{")[0] == "step" for c in output.columns):
            path = run.output(output.filename)
            yield path, output.stride, _step_of(last_row(path))
    for extras in (e for e in run.extras if e.bead == -1):
        for path in bead_paths(run.output(extras.filename), run.beads):
            yield path, extras.stride, _last(_EXTRAS, path, _TAIL)
    size = _LINE * (len(run.structure) + 2)
    for frames in run.trajectories:
        if frames.format != "xyz" or frames.quantity != "positions" or frames.bead != -1:
            continue
        for bead in bead_paths(run.output(frames.filename), run.beads):
            path = bead.with_name(bead.name + ".xyz")
            yield path, frames.stride, _last(_FRAME, path, 2 * size, len(run.structure))


def _step_of(row: dict[str, str] | None) -> int | None:
    try:
        return None if row is None else int(float(row["step"]))
    except (KeyError, ValueError, OverflowError):
        return None


def _last(block: re.Pattern[bytes], path: Path, size: int, lines: int = 0) -> int | None:
    """Step of the last *block* at the end of a file that has *lines* whole lines behind it."""
    try:
        with open(path, "rb") as f:
            f.seek(0, 2)
            f.seek(max(0, f.tell() - size))
            tail = f.read()
    except OSError:
        return None
    whole = [m for m in block.finditer(tail) if tail.count(b"\n", m.end()) >= lines]
    return int(whole[-1][1]) if whole else None
