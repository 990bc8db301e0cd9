"""Stock, expanded, linear and re-associated evaluation side by side; ratios are what count.

Every variant is called in turn, so that a busy machine slows all alike, and timed in process time
on a CPU.  A ratio is the median of the ratios of each round; its spread, their quartiles.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import mace  # must come before e3nn
import numpy as np
import torch
from ase import Atoms
from rich.console import Console
from rich.table import Table

from . import shelf
from .backends.fast_mace import FastMacePotential
from .backends.mace import MaceBackend
from .bench_cases import MODELS, SYSTEMS, System, build_model, perovskite
from .errors import InputError, did_you_mean
from .testing import difference

__all__ = ["interleaved", "run_bench"]

COLUMNS = {  # variant: what its ratio to "fast" is called
    "stock": "stock step",
    "expanded": "expanded graph",
    "linear, stock": "two stock",
    "linear, fast": "two of ours",
    "no dE/dλ": "no ∂E/∂λ",
}


def run_bench(
    models: Sequence[str],
    systems: Sequence[str],
    dtypes: Sequence[str],
    rounds: int,
    device: str,
    out: Path | None,
) -> None:
    """Measure every combination, print a table, and write JSON to *out* after each row.

    models: keys of ``bench_cases.MODELS``, or names that the shelf knows; systems: keys of
    ``bench_cases.SYSTEMS``.  Raises InputError for an unknown one.
    """
    for name in systems:
        if name not in SYSTEMS:
            raise InputError(f"unknown system '{name}'{did_you_mean(name, SYSTEMS)}")
    result = {"environment": environment(device), "rounds": rounds, "rows": []}
    table = Table("model", "dtype", "system", "ours, ms", *COLUMNS.values(), "error", "batch of 8")
    for model in models:
        for dtype in dtypes:
            backend = _backend(model, device, dtype)
            batch = _batch(backend, rounds) if "Cs" in backend.elements else None
            for name in systems:
                system = SYSTEMS[name]()
                row = {"model": model, "dtype": dtype, "system": name, "title": system.title}
                row |= _row(backend, system, rounds) | {"batch_over_single": batch}
                result["rows"].append(row)
                table.add_row(*_cells(row))
                if out is not None:
                    out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    Console(width=160).print(table)
    print(f"ratios to ours: median (quartiles) of {rounds} rounds, process time on a CPU")


def environment(device: str) -> dict[str, object]:
    """Date, hardware and versions."""
    if device.startswith("cuda"):
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = _cpu()
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "device": device,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "load average at the start": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mace-torch": mace.__version__,
    }


def interleaved(
    functions: dict[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of every call of each function; the first round, which warms up, is left out."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in functions}
    for call in range(rounds + 1):
        for name, function in functions.items():
            _synchronize(device)
            start = clock()
            function()
            _synchronize(device)
            if call >= 1:
                times[name].append(clock() - start)
    return times


def spread(above: Iterable[float], below: Iterable[float]) -> dict[str, float]:
    """Median and quartiles of the ratios of each round."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


# --- one row --------------------------------------------------------------------------------


class _ForcesOnly(FastMacePotential):
    """Leaves ∂E/∂λ out, to see what it costs."""

    def _gradients(self, energy, vectors, lam):
        (slope,) = torch.autograd.grad(energy, [vectors])
        return slope, torch.zeros_like(lam)


def _row(backend: MaceBackend, system: System, rounds: int) -> dict[str, object]:
    s, sites, weights = system.structure, system.sites, system.weights
    x = (s.positions, s.cell, s.pbc)
    fast, expanded = backend.potential(sites), backend.reference(sites)
    ends = [backend.potential(end) for end in system.ends()]
    stock_step = _stock(backend, system)
    functions = {
        "fast": lambda: fast.evaluate(*x, weights),
        "stock": stock_step,
        "expanded": lambda: expanded.evaluate(*x, weights),
        "linear, fast": lambda: [end.evaluate(*x, []) for end in ends],
    }
    if backend.evaluator == "fast":
        forces_only = _ForcesOnly(backend, sites)
        functions["no dE/dλ"] = lambda: forces_only.evaluate(*x, weights)
    times = interleaved(functions, rounds, backend.device.type)
    # two steps of a plain cell of the same size cost twice one
    times["linear, stock"] = [2.0 * t for t in times["stock"]]
    error = difference(fast.evaluate(*x, weights), expanded.evaluate(*x, weights), True)
    ours = times.pop("fast")
    return {
        "evaluator": backend.evaluator,
        "atoms": len(s),
        "nodes": sites.n_nodes,
        "ms": round(1e3 * statistics.median(ours), 2),
        "ms, fastest": round(1e3 * min(ours), 2),
        "ratios": {name: spread(t, ours) for name, t in times.items()},
        "relative error": float(f"{error:.1e}"),
    }


def _stock(backend: MaceBackend, system: System) -> Callable[[], object]:
    """A step of mace's own ASE calculator on the unexpanded cell: energy, forces, stress."""
    from mace.calculators import MACECalculator

    s = system.structure
    atoms = Atoms(s.symbols, s.positions, cell=s.cell, pbc=s.pbc)
    before = torch.get_default_dtype()

    def step():
        torch.set_default_dtype(backend.torch_dtype)  # mace converts arrays to it
        try:
            calculator.calculate(atoms, ["energy", "forces", "stress"])
        finally:
            torch.set_default_dtype(before)

    calculator = MACECalculator(
        models=[backend.model], device=str(backend.device), default_dtype=backend.dtype
    )
    torch.set_default_dtype(before)
    return step


def _batch(backend: MaceBackend, rounds: int) -> dict[str, float]:
    """Eight beads of a cell of 40 atoms in one call over one by one."""
    system = perovskite(2)
    s = system.structure
    rng = np.random.default_rng(4)
    beads = s.positions + rng.normal(scale=0.02, size=(8, *s.positions.shape))
    cells = np.repeat(s.cell[None], 8, axis=0)
    potential = backend.potential(system.sites)
    times = interleaved(
        {
            "batch": lambda: potential.evaluate_batch(beads, cells, s.pbc, system.weights),
            "single": lambda: [potential.evaluate(x, s.cell, s.pbc, system.weights) for x in beads],
        },
        rounds,
        backend.device.type,
    )
    return spread(times["batch"], times["single"])


def _backend(model: str, device: str, dtype: str) -> MaceBackend:
    if model in MODELS:
        return MaceBackend(build_model(model), model, device, dtype)
    return shelf.open_model(model, device=device, dtype=dtype)


def _cells(row: dict) -> list[str]:
    def cell(ratio):
        if ratio is None:
            return "-"
        return f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"

    ratios = [cell(row["ratios"].get(name)) for name in COLUMNS]
    return [
        row["model"],
        row["dtype"],
        row["title"],
        f"{row['ms']:.1f}",
        *ratios,
        f"{row['relative error']:.0e}",
        cell(row["batch_over_single"]),
    ]


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
