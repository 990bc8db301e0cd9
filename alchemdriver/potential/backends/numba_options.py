"""How every loop is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["compiled"]


def compiled(function: Callable[..., Any]) -> Any:
    """Numba's compiled *function*, made when first called and kept beside the package."""
    # sums may be reordered and multiplications fused; infinities and NaN keep their meaning
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"contract", "reassoc", "nsz"},
    }
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package nor the home directory can be written to
        return numba.njit(**options)(function)
