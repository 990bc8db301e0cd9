"""Variants timed in turn, so that a busy machine slows all alike.

Who comes first changes from round to round: what a variant leaves in the caches helps or hurts the
one after it, and a fixed order flattered one by a quarter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mace  # noqa: F401  must come before e3nn
import numpy as np
import torch
from ase import Atoms

from ..errors import ModelError
from ..potential.backends.base import require_elements
from ..potential.backends.mace import MaceBackend
from ..potential.open import open_model
from ..records import Structure
from .cases import MODELS, SYSTEMS, System, build_model

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

__all__ = [
    "Row",
    "calculator_step",
    "interleaved",
    "open_backend",
    "quartiles",
    "spread",
    "stock_calculator",
    "systems_of",
]

Row = dict[str, Any]  # of a part's table: what is printed, and written as JSON


def interleaved(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    warm_up: int = 1,
    wall: bool = False,
) -> dict[str, list[float]]:
    """Seconds of every call of each function, after *warm_up* rounds that are left out.

    Each round calls every function once and begins with another one.  Process time on a CPU unless
    *wall* time is asked for, wall time elsewhere.
    """
    clock = time.process_time if device == "cpu" and not wall else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for call in range(rounds + warm_up):
        start_with = call % len(names)
        for name in names[start_with:] + names[:start_with]:
            function = functions[name]
            _synchronize(device)
            start = clock()
            function()
            _synchronize(device)
            if call >= warm_up:
                times[name].append(clock() - start)
    return times


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def spread(above: Iterable[float], below: Iterable[float]) -> dict[str, float]:
    """Median and quartiles of the ratios of each round."""
    return quartiles([a / b for a, b in zip(above, below, strict=True)])


def open_backend(model: str, device: str, dtype: str) -> MaceBackend:
    """A model of the cases, or one that the shelf knows.  ModelError if it is not a MACE model."""
    if model in MODELS:
        return MaceBackend(build_model(model), model, device, dtype)
    backend = open_model(model, device=device, dtype=dtype)
    if not isinstance(backend, MaceBackend):
        raise ModelError(f"bench measures MACE models; '{model}' is none")
    return backend


def systems_of(backend: MaceBackend, names: Sequence[str]) -> dict[str, System]:
    """The systems of *names* whose elements the model knows.  ModelError if there is none."""
    found = {name: SYSTEMS[name]() for name in names}
    known = {n: s for n, s in found.items() if backend.elements >= set(s.sites.elements)}
    if found and not known:
        for system in found.values():
            require_elements(backend.name, backend.elements, system.sites)
    return known


def calculator_step(calculator: Calculator, s: Structure) -> Callable[[np.ndarray], object]:
    """Energy, forces and stress of the plain cell at given positions (N, 3) Å, in one call."""
    atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=s.pbc)

    def step(positions: np.ndarray) -> None:
        atoms.positions = positions
        calculator.calculate(atoms, ["energy", "forces", "stress"])

    return step


def stock_calculator(backend: MaceBackend, model: torch.nn.Module | None = None) -> Calculator:
    """mace's own ASE calculator of the same weights; torch's default dtype stays as it was.

    model: modules to run instead of the backend's.
    """
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
