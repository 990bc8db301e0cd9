"""From a model's name to a backend: what a family names as its opener is imported here."""

from __future__ import annotations

import logging
from pathlib import Path
from pkgutil import resolve_name

from ..contract import shelf
from ..errors import InputError, ModelError, did_you_mean
from .backends.base import Backend

__all__ = ["open_model"]

log = logging.getLogger(__name__)


def open_model(
    name: str,
    folder: Path = Path("."),
    device: str = "cpu",
    dtype: str = "float64",
    evaluator: str = "auto",
    head: str | None = None,
    charge: float | None = None,
    spin: float | None = None,
) -> Backend:
    """The backend of the model called *name*; paths are relative to *folder*.

    device: 'cpu', 'cuda', 'cuda:N' or 'mps'; dtype: 'float64' or 'float32'; evaluator: see
    ``MaceBackend``.  Analytic models ignore all three.  head: of a multi-head model; charge (e) and
    spin (2S + 1) of the cell: see ``Backend.of_charge``.  Raises ModelError if the model is
    unknown, missing, damaged or unsupported, or takes no such head, charge or spin, and InputError
    if the device or dtype does not exist here.
    """
    if dtype not in ("float64", "float32"):
        raise InputError(
            f"dtype: expected float64 or float32, got '{dtype}'"
            f"{did_you_mean(dtype, ('float64', 'float32'))}"
        )
    model = shelf.find(name, Path(folder))
    log.info("model %s: %s, sha256 %s", name, model.path, model.sha256)
    if head is not None and not model.family.heads:
        raise ModelError(shelf.without(name, "heads", f"head '{head}'"))
    options = {} if head is None else {"head": head}
    with shelf.foreign(model.package):
        opener = resolve_name(model.family.opener)
        backend = opener(name, model.path, device, dtype, evaluator, **options)
    if not isinstance(backend, Backend):
        raise ModelError(
            f"{model.family.opener} made a {type(backend).__name__} of model '{name}', expected a "
            "Backend: inherit from alchemdriver.potential.backends.base.Backend"
        )
    return backend.of_charge(charge, spin)
