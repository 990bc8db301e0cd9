"""The centroid-virial kinetic energies of a mass leg."""

from __future__ import annotations

import re

import numpy as np

from ...contract.layout import KINETIC
from ...contract.run_input import RunInput
from .readers import check_rows, last_branch
from .xyz import whole_frames

_COMMENT = re.compile(rf"#(?=.*{KINETIC}\{{electronvolt\}}).*Step:\s*(\d+)")


def read_kinetic(run: RunInput) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and K_cv,i (n, N) eV of a run that prints them.

    i-PI's xyz frames; a torn one is dropped, a resumed branch replaces what it repeats.  Raises
    AnalysisError for a missing file, a gap, or numbers that are none.
    """
    path = run.output(f"{KINETIC}.xyz")
    n = len(run.structure)
    steps, values = [], []
    for frame in whole_frames(path, n, _COMMENT):
        try:
            rows = np.array([words[-3:] for words in frame.words], dtype=float).reshape(n, 3)
        except ValueError:
            continue  # torn within a number, or glued
        values.append(rows.sum(axis=1))
        steps.append(int(frame.comment[1]))
    at = np.array(steps, dtype=np.int64)
    kept = last_branch(at)
    table = np.array(values).reshape(-1, n)[kept]
    stride = int(at[kept][1]) if kept.sum() > 1 else 1
    check_rows(path, at[kept], table, stride)
    return at[kept], table
