"""Torch's number types by their names, and its default one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import InputError

__all__ = ["default_dtype", "torch_dtype"]

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
