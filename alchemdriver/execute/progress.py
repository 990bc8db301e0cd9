"""How far a run is, read from i-PI's own property file: no second channel that could disagree."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..contract.run_input import RunInput

_COLUMN = re.compile(r"#\s*(?:column|cols\.)\s+(\d+)(?:-(\d+))?\s+-->\s+(\w+)")
_TAIL = 8192  # bytes; longer than any row


@dataclass(frozen=True)
class Progress:
    """State of a run after its last complete row."""

    step: int
    total: int
    lam: float
    phase: str  # 'hold0', 'forward', 'hold1', 'backward', 'done' or 'fixed'
    temperature: float | None  # K, of the last row


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
            phase = "fixed" if run.schedule is None else run.schedule.label(step)
            return Progress(step, run.total_steps, run.lam_at(step), phase, temperature)
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
    found = _COLUMN.findall(header)
    columns = {name: int(first) - 1 for first, _, name in found}
    width = max((int(last or first) for first, last, _ in found), default=0)
    lines = tail[: tail.rfind("\n") + 1].splitlines()  # a line still being written is left out
    if not lines or lines[-1].startswith("#"):
        return None
    values = lines[-1].split()
    if not columns or len(values) < width:
        return None
    values = values[-width:]  # a torn row may be glued to the front of a resumed one
    return {name: values[i] for name, i in columns.items()}
