"""How far a run is, read from i-PI's own property file: no second channel that could disagree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..analysis.files.readers import Header
from ..contract.run_input import RunInput

_TAIL = 8192  # bytes; longer than any row


@dataclass(frozen=True)
class Progress:
    """State of a run after its last complete row."""

    step: int
    total: int
    lam: float | None  # None: of a relaxation
    segment: str  # 'hold0', 'forward', 'hold1', 'backward', 'done', 'fixed' or 'relaxation'
    temperature: float | None  # K, of the last row
    gradient: float | None = None  # eV/Å, the largest, of a relaxation


def read_progress(run: RunInput) -> Progress | None:
    """Progress of *run*, or None before the first row is complete."""
    for output in run.properties:
        names = [c.split("{")[0] for c in output.columns]
        if "step" in names:
            row = last_row(run.output(output.filename))
            if row is None:
                return None
            try:
                step = int(float(row["step"]))
                temperature = float(row["temperature"]) if "temperature" in row else None
            except (KeyError, ValueError, OverflowError):
                return None  # torn in a way that the next row will mend
            segment = "fixed" if run.schedule is None else run.schedule.label(step)
            return Progress(step, run.total_steps, run.lam_at(step), segment, temperature)
    return None


def last_row(path: Path) -> dict[str, str] | None:
    """First number of every column in the last complete row of an i-PI property file."""
    try:
        with open(path, "rb") as f:
            header = f.read(_TAIL).decode(errors="replace")
            f.seek(0, 2)
            f.seek(max(0, f.tell() - _TAIL))
            tail = f.read().decode(errors="replace")
    except OSError:
        return None
    columns = Header()
    for line in header.splitlines(keepends=True):
        columns.add(line)
    lines = tail[: tail.rfind("\n") + 1].splitlines(keepends=True)  # without one being written
    values = columns.row(lines[-1]) if lines and not lines[-1].startswith("#") else None
    if values is None or not columns.columns:
        return None
    return {name: values[where.start] for name, where in columns.columns.items()}
