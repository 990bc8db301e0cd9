"""Settings of a relaxation: ``relax.json``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .settings import DTYPES
from .stored import Count, Format, OneOf, Positive


@dataclass(frozen=True)
class Relaxation:
    """The content of ``relax.json``."""

    model: str  # name, or path relative to the file
    pressure_bar: float
    force_eV_per_A: Positive = 1e-3  # FIRE stops when no force (or cell gradient) is larger
    most_steps: Count = 2000
    keep_symmetry: bool = True
    dtype: Annotated[str, OneOf(DTYPES)] = "float64"
    head: str | None = None  # of a multi-head model

    def write(self, path: Path) -> None:
        _FORMAT.write(path, self)


_FORMAT = Format(
    "alchemdriver-relax/1",
    Relaxation,
    remedy="correct it",
    by_hand=True,
    unsigned=True,
)


def read_settings(path: Path) -> Relaxation:
    """Raises InputError with a suggestion for a misspelt key, and for values that cannot be."""
    return _FORMAT.read(path)
