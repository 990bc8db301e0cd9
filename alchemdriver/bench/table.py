"""Stock, expanded, linear and re-associated evaluation side by side; ratios are what count.

Every variant is called in turn, so that a busy machine slows all alike, and timed in process time
on a CPU.  A ratio is the median of the ratios of each round; its spread, their quartiles.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import ModelError
from ..potential.backends.mace import MaceBackend, MacePotential
from ..potential.checks import difference
from .cases import SYSTEMS, System, perovskite
from .timing import Row, interleaved, open_backend, spread, stock_step

__all__ = ["rows"]


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """Every model in every precision on every system: ratios of other evaluations to ours."""
    for model in models:
        for dtype in dtypes:
            backend = open_backend(model, device, dtype)
            batch = _batch(backend, rounds) if "Cs" in backend.elements else None
            for name in systems:
                row = {"model": model, "dtype": dtype, "system": name}
                yield row | _row(backend, SYSTEMS[name](), rounds) | {"batch_over_single": batch}


# --- one row --------------------------------------------------------------------------------


def _row(backend: MaceBackend, system: System, rounds: int) -> dict[str, object]:
    s, sites, weights = system.structure, system.sites, system.weights
    x = (s.positions, s.cell, s.pbc)
    fast, expanded = backend.potential(sites), backend.reference(sites)
    ends = [backend.potential(end) for end in system.ends()]
    functions: dict[str, Callable[[], object]] = {
        "fast": lambda: fast.evaluate(*x, weights),
        "stock": stock_step(backend, s),
        "expanded": lambda: expanded.evaluate(*x, weights),
        "linear, fast": lambda: [end.evaluate(*x, np.zeros(0)) for end in ends],
    }
    if backend.device.type == "cuda":
        functions |= _on_cueq(backend, system)
    alone = {"fast": functions["fast"]}
    (first,) = interleaved(alone, 1, backend.device.type, warm_up=0)["fast"]
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
        "ms, first": round(1e3 * first, 1),
        "steps per day": round(86400 / statistics.median(ours)),
        "ratios": {name: spread(t, ours) for name, t in times.items()},
        "relative error": float(f"{error:.1e}"),
    }


def _on_cueq(backend: MaceBackend, system: System) -> dict[str, Callable[[], object]]:
    """Stock and expanded on cuEquivariance's layers; nothing where it is not installed."""
    try:
        model = backend.on_cueq
    except ModelError as err:
        print(f"table: {err}", flush=True)
        return {}
    s = system.structure
    expanded = MacePotential(backend, system.sites, model=model)
    return {
        "stock, cueq": stock_step(backend, s, model),
        "expanded, cueq": lambda: expanded.evaluate(s.positions, s.cell, s.pbc, system.weights),
    }


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
