"""The centroid-virial kinetic energies of a mass leg."""

from __future__ import annotations

import re

import numpy as np

from ...contract.layout import KINETIC
from ...contract.run_input import RunInput
from .readers import check_rows, last_branch, read_text

_STEP = re.compile(r"Step:\s*(\d+)")


def read_kinetic(run: RunInput) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and K_cv,i (n, N) eV of a run that prints them.

    i-PI's xyz frames; a torn one is dropped, a resumed branch replaces what it repeats.  Raises
    AnalysisError for a missing file, a gap, or numbers that are none.
    """
    path = run.output(f"{KINETIC}.xyz")
    lines = read_text(path).split("\n")[:-1]  # what has no line end is torn
    n = len(run.structure)
    steps, values = [], []
    for start, line in enumerate(lines):
        # a torn row may be glued to the front of the count, but not to the comment after it
        match = _STEP.search(line) if line.startswith("#") else None
        block = lines[start + 1 : start + 1 + n]
        if match is None or f"{KINETIC}{{electronvolt}}" not in line or len(block) < n:
            continue
        rows = [row.split()[-3:] for row in block]
        if any(row.startswith("#") or len(r) < 3 for row, r in zip(block, rows, strict=True)):
            continue  # torn
        try:
            values.append(np.array(rows, dtype=float).sum(axis=1))
        except ValueError:
            continue  # torn within a number, or glued
        steps.append(int(match[1]))
    at = np.array(steps, dtype=np.int64)
    kept = last_branch(at)
    table = np.array(values).reshape(-1, n)[kept]
    stride = int(at[kept][1]) if kept.sum() > 1 else 1
    check_rows(path, at[kept], table, stride)
    return at[kept], table
