"""More cycles for inputs that ran: the one change that a finished run takes.

Written down in ``target.json`` before an input is touched; see :mod:`..contract.target`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..contract import target
from ..contract.files import sha256, write_files
from ..contract.target import Lengthening, Target
from .tree import with_cycles


def lengthen(home: Path, found: Target, cycles: Mapping[Path, int]) -> Target:
    """Give each input so many *cycles*, all of them or, at the next :func:`finish`, the rest.

    Raises InputError, with nothing changed, for an input that cannot be edited.
    """
    texts = {path: with_cycles(path, n) for path, n in cycles.items()}
    names = {path: target.relative(home, path) for path in cycles}
    step = Lengthening(
        {names[path]: n for path, n in cycles.items()},
        {names[path]: sha256(path) for path in cycles},
        {names[path]: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()},
    )
    found = replace(found, lengthened=(*found.lengthened, step))
    target.write(home, found)
    write_files(texts)
    return found


def finish(home: Path) -> None:
    """Do the rest of a lengthening that was stopped in its middle.  Raises InputError."""
    found = target.read(home)
    if found is not None:
        left = target.unfinished(home, found)
        texts = {Path(home) / name: with_cycles(Path(home) / name, n) for name, n in left.items()}
        if texts:
            write_files(texts)
