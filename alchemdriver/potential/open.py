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
) -> Backend:
    """The backend of the model called *name*; paths are relative to *folder*.

    device: 'cpu', 'cuda', 'cuda:N' or 'mps'; dtype: 'float64' or 'float32'; evaluator: see
    ``MaceBackend``.  Analytic models ignore all three.  Raises ModelError if the model is unknown,
    missing, damaged or unsupported, and InputError if the device or dtype does not exist here.
    """
    if dtype not in ("float64", "float32"):
        raise InputError(
            f"dtype: expected float64 or float32, got '{dtype}'"
            f"{did_you_mean(dtype, ('float64', 'float32'))}"
        )
    model = shelf.find(name, Path(folder))
    log.info("model %s: %s, sha256 %s", name, model.path, model.sha256)
    with shelf.foreign(model.package):
        opener = resolve_name(model.family.opener)
        backend = opener(name, model.path, device, dtype, evaluator)
    if not isinstance(backend, Backend):
        raise ModelError(
            f"{model.family.opener} made a {type(backend).__name__} of model '{name}', expected a "
            "Backend: inherit from alchemdriver.potential.backends.base.Backend"
        )
    return backend
