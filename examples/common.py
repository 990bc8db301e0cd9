"""What the example scripts share: their command line, the model, figures, stock relaxations."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from alchemdriver.contract import shelf
from alchemdriver.potential import open as opening


def arguments(description: str, default_model: str = "chgnet-0.3.0", **extra) -> argparse.Namespace:
    """``--model``, ``--out`` and what a script adds as name=(default, help)."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument(
        "--model", default=default_model, help="see 'alchemdriver models'; default %(default)s"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of results and figures")
    for name, (default, text) in extra.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", default=default, type=type(default), help=text
        )
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return chosen


def open_model(name: str):
    """The backend and the sha256 of its file."""
    return opening.open_model(name), shelf.model_digest(name)
