"""pymbar, without its noise."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_pymbar() -> Iterator[None]:
    """pymbar logs warnings on import and in use; hold its own logger back, not the root's."""
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
