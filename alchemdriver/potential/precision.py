"""Torch's number types and devices by their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import InputError

__all__ = ["default_dtype", "require_device", "torch_dtype"]

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


def torch_dtype(name: str) -> torch.dtype:
    """Raises InputError for another one than float64 or float32."""
    if name not in _DTYPES:
        raise InputError(f"dtype: expected float64 or float32, got '{name}'")
    return _DTYPES[name]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors of Python's numbers are of *dtype* inside, and of what they were before after."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def require_device(device: str, dtype: str) -> None:
    """Raise InputError unless torch has *device* here, and *dtype* on it."""
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except (RuntimeError, TypeError):
        kind, index = "", 0
    if kind not in ("cpu", "cuda", "mps"):
        raise InputError(f"device: expected cpu, cuda, cuda:N or mps, got '{device}'")
    if kind == "cuda" and torch.cuda.device_count() <= index:
        raise InputError(
            f"device '{device}' is not available: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices; use device cpu"
        )
    if kind == "mps":
        if not torch.backends.mps.is_available():
            raise InputError("device 'mps' is not available here; use device cpu")
        if dtype == "float64":
            raise InputError("device 'mps' has no float64: use dtype float32, or device cpu")
