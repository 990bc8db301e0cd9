"""Checkpoints that survive a kill at any moment.

i-PI overwrites its checkpoint in place, so a kill during the write leaves nothing to resume from.
Here each file is written aside, synced and renamed; the one before is kept as ``NAME.previous``.
"""

from __future__ import annotations

import glob
import logging
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from ..contract import origin
from ..contract.files import write_text
from ..contract.parameters import CONDITIONS, KEYS, Parameters, check_parameters, split_parameters
from ..contract.run_input import Conditions, RunInput, alchemical_forcefield, conditions
from ..contract.xmltree import child, parse_xml, text_of
from ..errors import InputError, RunError
from .ipi_types import Output, Simulation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete i-PI checkpoint: *step* steps of the run are done."""

    path: Path
    step: int


def make_safe(output: Output, simulation: Simulation) -> None:
    """Replace ``write`` of an i-PI CheckpointOutput by one that never leaves half a file."""
    from ipi.engine.outputs import get_identification_info_xml

    def write(store: bool = True) -> None:
        if not output.active():
            return
        name = output.filename if output.overwrite else f"{output.filename}_{output.step}"
        if store:
            output.step += 1
            output.store()
            output.status.step.store(simulation.step + 1)
        # Rows up to this step must be on disk before a file that says they are.
        for other in simulation.outputs:
            _sync(other)
        text = get_identification_info_xml() + "\n" + output.status.write(name="simulation")
        write_text(Path(name), text, keep_previous=True)

    output.write = write


def sync_at_checkpoints(output: Output) -> None:
    """Let rows of an i-PI output go to the operating system as often as it says, not to the disk.

    i-PI syncs each of its files at every write, a third of what it needs for a step.  A process
    that is killed loses nothing that the system has; after a power cut a run resumes from its last
    checkpoint, which :func:`make_safe` writes after the rows before it are on disk.  At the end
    i-PI closes its files before it writes that checkpoint, so closing syncs too.
    """
    stock_close = output.close_stream

    def close_stream() -> None:
        _sync(output)
        stock_close()

    output.close_stream = close_stream
    if hasattr(output, "write_traj"):
        stock = output.write_traj

        def write_traj(
            data: Any, what: str, stream: IO[str], *args: Any, flush: bool = True, **kwargs: Any
        ) -> None:
            stock(data, what, stream, *args, flush=False, **kwargs)
            if flush:
                stream.flush()

        output.write_traj = write_traj
    else:
        output.force_flush = lambda: output.out.flush()


def _sync(output: Output) -> None:
    streams = getattr(output, "out", None)
    for stream in streams if isinstance(streams, list) else [streams]:
        if stream is not None and not stream.closed:
            stream.flush()
            os.fsync(stream.fileno())


def latest(run: RunInput) -> Checkpoint | None:
    """The furthest complete checkpoint of *run* in its folder, or None; see :func:`complete`."""
    return max(complete(run), key=lambda c: c.step, default=None)


def complete(run: RunInput) -> list[Checkpoint]:
    """All complete checkpoints of *run* in its folder, in no order.

    A file that is cut off is passed over, with a line; so is the starting structure of a run that
    has not done a step.  Raises RunError for a checkpoint that cannot be read or belongs to other
    parameters, InputError if the input changed since the run began: starting anew would set its run
    aside.
    """
    stems = [run.folder / "RESTART", *(run.output(name) for name in run.checkpoints)]
    found = []
    for stem in stems:
        for path in _of(stem):
            content = _read(path)
            if content is not None and content[0] > 0:
                _check_same(path, content[1], content[2], run)
                found.append(Checkpoint(path, content[0]))
    if found:
        origin.check(run)
        origin.check_length(run, max(c.step for c in found))
    return found


def load(path: Path, run: RunInput) -> Checkpoint:
    """The checkpoint at *path*; RunError if it is not a complete one, or not of *run*."""
    content = _read(path)
    if content is None or content[0] < 1:  # an input, or the start of a run, has no step done
        raise RunError(f"{path} is not a complete checkpoint of {run.path}")
    _check_same(path, content[1], content[2], run)
    origin.check(run)
    return Checkpoint(path, content[0])


def _of(stem: Path) -> Iterator[Path]:
    """The files that a checkpoint called *stem* may be in."""
    yield stem
    yield stem.with_name(stem.name + ".previous")
    for path in stem.parent.glob(glob.escape(stem.name) + "_*"):  # overwrite='false'
        if path.name[len(stem.name) + 1 :].isdecimal():
            yield path


def _read(path: Path) -> tuple[int, Parameters, Conditions] | None:
    """Steps done, parameters, conditions; None if the file is missing or cut off."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise RunError(
            f"checkpoint {path} cannot be read ({err.strerror}), and without it the run would "
            "begin again: make it readable, or move it away"
        ) from None
    if _is_cut_off(data):
        _say_cut_off(path)
        return None
    try:
        root = parse_xml(data.decode("utf-8"), str(path))
        step = int(text_of(root.get("step"), "0"))  # i-PI's default, left out on writing
        stored = split_parameters(text_of(child(alchemical_forcefield(root), "parameters")))
        if "schedule" in stored:
            stored.pop("lambda", None)  # where the run was, not what it is
        return step, check_parameters(stored), conditions(root["system"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, InputError) as err:
        reason = " ".join(str(err).split()).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        raise RunError(
            f"checkpoint {path} is damaged, or of another version ({reason}), and without it the "
            "run would begin again: restore it, or move it away"
        ) from None


@cache
def _say_cut_off(path: Path) -> None:
    log.warning("%s is cut off, passed over", path)


_ENDS_TOO_EARLY = ("no element found", "unclosed token", "partial character")  # of expat


def _is_cut_off(data: bytes) -> bool:
    """Whether XML stops before its end, as a kill or a power cut leaves it (some file systems fill
    up with zeros), and is sound until there."""
    try:
        expat.ParserCreate().Parse(data.rstrip(b"\0"), True)
    except expat.ExpatError as err:
        return expat.ErrorString(err.code) in _ENDS_TOO_EARLY
    return False


def _check_same(path: Path, stored: Parameters, kept: Conditions, run: RunInput) -> None:
    """Raise RunError where the table of keys wants a value that the checkpoint does not have."""
    for key in KEYS.values():
        there, here = getattr(stored, key.attribute), getattr(run.parameters, key.attribute)
        absent = key.name == "digest" and None in (there, here)  # allowed at fixed λ
        if key.resume and there != here and not absent:
            raise RunError(
                f"{path} is a checkpoint of another run: '{key.name}' is {there} there and {here} "
                f"in {run.path.name}; restore the input, or start in a new folder"
            )
    for condition in CONDITIONS:
        if not condition.resume:
            continue
        there, here = getattr(kept, condition.attribute), getattr(run, condition.attribute)
        same = there == here
        if isinstance(there, float) and isinstance(here, float):
            same = math.isclose(there, here, rel_tol=1e-9)
        # at constant volume i-PI may or may not write a pressure that nothing uses
        if not same and not (condition.name == "pressure" and kept.ensemble in ("nve", "nvt")):
            raise RunError(
                f"{path} was run with {condition.name} {there}, {run.path.name} says {here}, and "
                "i-PI would go on with the old value: restore the input, or start in a new folder"
            )
