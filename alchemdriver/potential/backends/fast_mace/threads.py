"""Rows of a loop shared among as many threads as torch uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch

__all__ = ["bounds_of", "share"]


def bounds_of(n_rows: int) -> list[int]:
    """Where each thread's part of *n_rows* begins, and the end."""
    bounds: list[int]
    bounds = np.linspace(0, n_rows, torch.get_num_threads() + 1).astype(int).tolist()
    return bounds


def share(bounds: list[int], loop: Callable[[int, int, int], None]) -> None:
    """loop(thread, first, last) for every part between *bounds*, in parallel."""
    threads = len(bounds) - 1
    if threads == 1:
        loop(0, bounds[0], bounds[1])
        return
    pool = _pool(threads - 1, os.getpid())
    others = [pool.submit(loop, part, bounds[part], bounds[part + 1]) for part in range(1, threads)]
    loop(0, bounds[0], bounds[1])
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """One pool for each process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="alchemdriver")
