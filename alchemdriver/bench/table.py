"""Stock, expanded, linear and re-associated evaluation side by side; ratios are what count.

Every variant is called in turn, each time at other positions that are the same for all, so that no
list of neighbours serves twice and a busy machine slows all alike.  Process time on a CPU.  A ratio
is the median of the ratios of each round; its spread, their quartiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress

from ..errors import ModelError
from ..potential.backends.mace import MaceBackend, MacePotential
from ..potential.checks import difference
from ..potential.sites import AlchemicalSites
from ..records import PotentialEvaluation
from .cases import System, perovskite
from .peers import peers
from .timing import (
    Row,
    calculator_step,
    interleaved,
    open_backend,
    quartiles,
    spread,
    stock_calculator,
    systems_of,
)

__all__ = ["rows"]

Variants = dict[str, Callable[[np.ndarray], object]]  # of positions (N, 3) Å


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """Every model in every precision on every system whose elements it knows.

    Raises ModelError for a model that knows none of the systems.
    """
    for model in models:
        for dtype in dtypes:
            backend = open_backend(model, device, dtype)
            known = systems_of(backend, systems)
            batch = _batch(backend, rounds) if "Cs" in backend.elements else None
            for name, system in known.items():
                row = {"model": model, "dtype": dtype, "system": name}
                yield row | _row(backend, system, rounds) | {"batch_over_single": batch}


# --- one row --------------------------------------------------------------------------------


def _row(backend: MaceBackend, system: System, rounds: int) -> dict[str, object]:
    """ms of every variant, and ratios of others to our alchemical and our plain evaluation."""
    s, sites, weights = system.structure, system.sites, system.weights
    potential, expanded = backend.potential(sites), backend.reference(sites)
    plain = backend.potential(AlchemicalSites.plain(s.symbols))
    ends = [backend.potential(end) for end in system.ends()]
    none = np.zeros(0)
    stock = stock_calculator(backend)
    others = peers(backend, s.symbols)
    variants: Variants = {
        "alchemical": lambda x: potential.evaluate(x, s.cell, s.pbc, weights),
        "plain": lambda x: plain.evaluate(x, s.cell, s.pbc, none),
        "stock": calculator_step(stock, s),
        "expanded": lambda x: expanded.evaluate(x, s.cell, s.pbc, weights),
        "linear": lambda x: [end.evaluate(x, s.cell, s.pbc, none) for end in ends],
        **{name: calculator_step(calculator, s) for name, calculator in others.items()},
    }
    if backend.device.type == "cuda":
        variants |= _on_cueq(backend, system)
    frames = system.frames(rounds + 1)
    alone = {"first": lambda: potential.evaluate(frames[0], s.cell, s.pbc, weights)}
    (first,) = interleaved(alone, 1, backend.device.type, warm_up=0)["first"]
    times = interleaved(
        {name: _at_each(variant, frames) for name, variant in variants.items()},
        rounds,
        backend.device.type,
    )
    over_plain = {name: spread(times[name], times["plain"]) for name in ("stock", *others)}
    # as many steps of a plain cell of the same size as there are ends
    times["linear, stock"] = [len(ends) * t for t in times["stock"]]
    ours = times["alchemical"]
    ratios = {name: spread(t, ours) for name, t in times.items() if name != "alchemical"}
    x = (frames[0], s.cell, s.pbc)
    errors = {
        "expanded": difference(
            potential.evaluate(*x, weights), expanded.evaluate(*x, weights), True
        )
    }
    expected = plain.evaluate(*x, none)
    for name, calculator in (("stock", stock), *others.items()):
        variants[name](frames[0])
        errors[name] = difference(_evaluation(calculator.results, s.cell), expected)
    return {
        "evaluator": backend.evaluator,
        "atoms": len(s),
        "nodes": sites.n_nodes,
        "ends": len(ends),
        "ms": {name: quartiles([1e3 * t for t in values]) for name, values in times.items()},
        "ms, first": round(1e3 * first, 1),
        "over alchemical": ratios,
        "over plain": over_plain,
        "relative error": {name: float(f"{error:.1e}") for name, error in errors.items()},
    }


def _at_each(variant: Callable[[np.ndarray], object], frames: np.ndarray) -> Callable[[], object]:
    """*variant* at the next of *frames* with every call: the same for all within a round."""
    following = cycle(frames)
    return lambda: variant(next(following))


def _evaluation(results: dict[str, np.ndarray], cell: np.ndarray) -> PotentialEvaluation:
    """What an ASE calculator of a plain cell found."""
    virial = -voigt_6_to_full_3x3_stress(results["stress"]) * abs(np.linalg.det(cell))
    return PotentialEvaluation(
        float(results["energy"]), np.asarray(results["forces"], float), virial, np.zeros(0)
    )


def _on_cueq(backend: MaceBackend, system: System) -> Variants:
    """Stock and expanded on cuEquivariance's layers; nothing where it is not installed."""
    try:
        model = backend.on_cueq
    except ModelError as err:
        print(f"table: {err}", flush=True)
        return {}
    s = system.structure
    expanded = MacePotential(backend, system.sites, model=model)
    return {
        "stock, cueq": calculator_step(stock_calculator(backend, model), s),
        "expanded, cueq": lambda x: expanded.evaluate(x, s.cell, s.pbc, system.weights),
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
