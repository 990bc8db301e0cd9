"""Other packages that evaluate MACE models, where they are installed: plain systems only."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..potential.backends.mace import MaceBackend

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

__all__ = ["peers"]


def peers(backend: MaceBackend, symbols: Sequence[str]) -> dict[str, Calculator]:
    """An ASE calculator of the backend's weights for atoms of *symbols*, from every package here.

    A package that is installed and cannot take the model is left out, with a line that says why.
    """
    found = {}
    for name, make in _PEERS.items():
        try:
            found[name] = make(backend, sorted(set(symbols)))
        except ImportError:
            continue
        except Exception as err:  # whatever a foreign package raises of a model that it cannot take
            print(f"table: {name} leaves out {backend.name}: {' '.join(str(err).split())}")
    return found


def _symmetrix_xl(backend: MaceBackend, elements: Sequence[str]) -> Calculator:
    """symmetrix-xl as it is fastest: for the elements present, speed profile, no skin.

    It generates code for a model and compiles it, once (a C++ compiler is needed), and runs on a
    GPU where its package for that GPU is installed.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    os.environ.setdefault("OMP_PROC_BIND", "false")  # it warns where nothing is said
    from symmetrix import Symmetrix
    from symmetrix.extract_mace_data import extract_mace_data

    with tempfile.TemporaryDirectory(prefix="ad_") as folder:
        path, extracted = _saved(backend, folder), Path(folder, "model.json")
        data = extract_mace_data(str(path), species=elements, head=_head(backend))
        extracted.write_text(json.dumps(data), encoding="utf-8")
        return Symmetrix(
            str(extracted), dtype=backend.dtype, execution_profile="speed", neighbor_skin=0.0
        )


def _fastatomstruct(backend: MaceBackend, elements: Sequence[str]) -> Calculator:
    """fastatomstruct in Rust and XLA, which its extra ``xla`` brings; it reads models of mace."""
    os.environ.setdefault("FASTATOMSTRUCT_NO_TELEMETRY", "1")
    from fastatomstruct.mace_rust_backend import FastMACErustCalculator

    with tempfile.TemporaryDirectory(prefix="ad_") as folder:
        return FastMACErustCalculator(
            str(_saved(backend, folder)),
            device=backend.device_type,
            default_dtype=backend.dtype,
            head=_head(backend),
        )


def _saved(backend: MaceBackend, folder: str) -> Path:
    """The backend's model as a file of mace."""
    path = Path(folder, "model.model")
    torch.save(copy.deepcopy(backend.model).cpu(), path)
    return path


def _head(backend: MaceBackend) -> str | None:
    """The head that is used, of a model with several."""
    heads = list(getattr(backend.model, "heads", []))
    return heads[backend.head] if len(heads) > 1 else None


_PEERS: dict[str, Callable[[MaceBackend, Sequence[str]], Calculator]] = {
    "symmetrix-xl": _symmetrix_xl,
    "fastatomstruct": _fastatomstruct,
}
