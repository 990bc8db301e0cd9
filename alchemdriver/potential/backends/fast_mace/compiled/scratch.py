"""Arrays that outlive an evaluation."""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["Scratch"]


class Scratch:
    """Arrays by name, kept because fresh memory of this size costs more than what fills it."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """An array of *shape* with anything in it; the same memory as the last one of *name*."""
        size = prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size + size // 10, dtype)
        return kept[:size].reshape(shape)
