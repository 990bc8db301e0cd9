"""Frames of i-PI's xyz files, whatever their comment lines say.

A resumed run repeats frames and a kill may tear one: what is torn is passed over here, what a later
branch repeats is for the readers to leave out (:func:`.readers.last_branch`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .readers import read_text


@dataclass(frozen=True)
class Frame:
    """The lines of one whole frame."""

    comment: re.Match[str]
    rows: tuple[str, ...]  # one per atom

    @property
    def words(self) -> list[list[str]]:
        return [row.split() for row in self.rows]


def whole_frames(path: Path, natoms: int, comment: re.Pattern[str]) -> Iterator[Frame]:
    """Every frame of *path* (or *path*.gz) whose comment line matches and of which nothing is torn.

    Whole is a frame whose comment is followed by *natoms* lines, each with its line end and none a
    comment, and then by no comment: a torn row may be glued to the count of the frame after it.
    Raises AnalysisError for a file that cannot be read.
    """
    lines = read_text(path).split("\n")[:-1]  # what follows the last line end is torn or empty
    found = {k: match for k, line in enumerate(lines) if (match := comment.match(line))}
    for k, match in found.items():
        rows = range(k + 1, k + 1 + natoms)
        if rows.stop <= len(lines) and not any(row in found for row in (*rows, rows.stop)):
            yield Frame(match, tuple(lines[k + 1 : rows.stop]))
