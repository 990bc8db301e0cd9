"""Variants timed in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import mace  # noqa: F401  must come before e3nn
import numpy as np
import torch
from ase import Atoms

from ..errors import ModelError
from ..potential.backends.mace import MaceBackend
from ..potential.open import open_model
from ..records import Structure
from .cases import MODELS, build_model

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

__all__ = ["Row", "interleaved", "open_backend", "spread", "stock_calculator", "stock_step"]

Row = dict[str, Any]  # of a part's table: what is printed, and written as JSON


def interleaved(
    functions: dict[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    warm_up: int = 1,
) -> dict[str, list[float]]:
    """Seconds of every call of each function, after *warm_up* rounds that are left out.

    Process time on a CPU, wall time elsewhere.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in functions}
    for call in range(rounds + warm_up):
        for name, function in functions.items():
            _synchronize(device)
            start = clock()
            function()
            _synchronize(device)
            if call >= warm_up:
                times[name].append(clock() - start)
    return times


def spread(above: Iterable[float], below: Iterable[float]) -> dict[str, float]:
    """Median and quartiles of the ratios of each round."""
    low, middle, high = np.percentile(
        [a / b for a, b in zip(above, below, strict=True)], [25, 50, 75]
    )
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def open_backend(model: str, device: str, dtype: str) -> MaceBackend:
    """A model of the cases, or one that the shelf knows.  ModelError if it is not a MACE model."""
    if model in MODELS:
        return MaceBackend(build_model(model), model, device, dtype)
    backend = open_model(model, device=device, dtype=dtype)
    if not isinstance(backend, MaceBackend):
        raise ModelError(f"bench measures MACE models; '{model}' is none")
    return backend


def stock_step(
    backend: MaceBackend, s: Structure, model: torch.nn.Module | None = None
) -> Callable[[], object]:
    """A step of mace's own ASE calculator on the plain cell: energy, forces, stress.

    model: modules to run instead of the backend's.
    """
    calculator = stock_calculator(backend, model)
    atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=s.pbc)
    return lambda: calculator.calculate(atoms, ["energy", "forces", "stress"])


def stock_calculator(backend: MaceBackend, model: torch.nn.Module | None = None) -> Calculator:
    """mace's own ASE calculator of the same weights; torch's default dtype stays as it was."""
    from mace.calculators import MACECalculator

    class Stock(MACECalculator):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            before = torch.get_default_dtype()
            torch.set_default_dtype(backend.torch_dtype)  # mace converts arrays to it
            try:
                super().calculate(*args, **kwargs)
            finally:
                torch.set_default_dtype(before)

    before = torch.get_default_dtype()
    try:
        return Stock(
            models=[backend.model if model is None else model],
            device=str(backend.device),
            default_dtype=backend.dtype,
        )
    finally:
        torch.set_default_dtype(before)


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
