"""Fingerprints of what server, client and analysis must agree on."""

from __future__ import annotations

import hashlib
import json

from . import shelf
from .run_input import RunInput


def model_digest(run: RunInput) -> str:
    """sha256 of the model that *run* names."""
    return shelf.model_digest(run.parameters.model, run.folder)


def digest(run: RunInput) -> str:
    """What the ``digest`` key of *run* must be."""
    return fingerprint(run, model_digest(run))


def fingerprint(run: RunInput, model_digest: str) -> str:
    """Fingerprint of what server, client and analysis must agree on.

    Covers the order of species, the transformation, both sets of masses, interpolation, tether,
    the bytes of the springs file, the anchors of tethers, the final scale and the pressure that is
    scaled with it, and *model_digest* (sha256 of the model).
    The prefix keeps i-PI from reading a digest such as 1e5… as a number.
    """
    t, p = run.transformation, run.parameters
    springs = None
    if p.springs:
        springs = hashlib.sha256((run.folder / p.springs).read_bytes()).hexdigest()
    content = {
        "initial": t.initial,
        "final": t.final,
        "einstein": t.einstein,
        "model": model_digest,
        "initial_masses": [repr(float(m)) for m in run.initial_masses],
        "final_masses": [repr(float(m)) for m in run.final_masses],
        "interpolation": p.interpolation,
        "tether": p.tether,
        "springs": springs,
    }
    if t.scaled:
        content["scale"] = repr(p.scale)
        if run.constant_pressure:
            content["scaled_pressure"] = repr(run.pressure)
    if t.voids or t.einstein:  # the cell that anchors refer to
        content["cell"] = [repr(float(x)) for x in run.structure.cell.ravel()]
    if t.voids:
        anchors = run.structure.positions[list(t.voids)]
        content["anchors"] = [repr(float(x)) for x in anchors.ravel()]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return "sha256-" + hashlib.sha256(text.encode()).hexdigest()[:32]
