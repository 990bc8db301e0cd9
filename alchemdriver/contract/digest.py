"""Fingerprints of what server, client and analysis must agree on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..errors import ModelError
from . import shelf
from .parameters import KEYS
from .run_input import RunInput


def model_digest(run: RunInput) -> str:
    """sha256 of the model that *run* names."""
    return shelf.model_digest(run.parameters.model, run.folder)


def model_here(run: RunInput, name: str) -> str | None:
    """sha256 of the model *name* of *run*; None if it is not on this disk.  Downloads nothing."""
    if any(card.name == name and card.file is None for card in shelf.catalogue()):
        return None
    try:
        return shelf.model_digest(name, run.folder)
    except ModelError:
        return None


def digest(run: RunInput) -> str:
    """What the ``digest`` key of *run* must be."""
    return fingerprint(run, model_digest(run))


def fingerprint(run: RunInput, model_digest: str) -> str:
    """Fingerprint of what server, client and analysis must agree on.

    Covers what the table of keys says (the order of species, both ends, both sets of masses,
    interpolation, tether, the bytes of the springs file, *model_digest*: sha256 of the model), and
    what the path adds (cell and anchors of springs, the pressure that is scaled).
    The prefix keeps i-PI from reading a digest such as 1e5… as a number.
    """
    content: dict[str, Any] = {}
    for key in KEYS.values():
        if key.digest is not None:
            content |= key.digest(run, model_digest)
    content |= run.lambda_path.digest(run)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]
