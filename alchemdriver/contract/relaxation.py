"""Settings of a relaxation: ``relax.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..errors import InputError, did_you_mean


@dataclass(frozen=True)
class Relaxation:
    """The content of ``relax.json``."""

    model: str  # name, or path relative to the file
    pressure_bar: float
    force_eV_per_A: float = 1e-3  # FIRE stops when no force (or cell gradient) is larger
    most_steps: int = 2000
    keep_symmetry: bool = True
    dtype: str = "float64"

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


def read_settings(path: Path) -> Relaxation:
    """Raises InputError with a suggestion for a misspelt key, and for values that cannot be."""
    try:
        data = json.loads(path.read_text())
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror}") from None
    except ValueError as err:
        raise InputError(f"{path} is not JSON: {err}") from None
    known = [f.name for f in fields(Relaxation)]
    for key in data:
        if key not in known:
            raise InputError(f"{path}: unknown key '{key}'{did_you_mean(key, known)}")
    try:
        settings = Relaxation(**data)
        positive = settings.force_eV_per_A > 0 and settings.most_steps > 0
        finite = np.isfinite(settings.pressure_bar)
    except TypeError as err:
        raise InputError(f"{path}: {err}") from None
    if not (positive and finite):
        raise InputError(
            f"{path}: expected force_eV_per_A and most_steps > 0 and a finite pressure_bar"
        )
    return settings
