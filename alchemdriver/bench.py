"""Alchemical against stock evaluation, measured side by side in one run; ratios are what count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from . import shelf
from .alchemy import AlchemicalSites
from .demo import alpha_cspbi3
from .transformation import parse_alchemy


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, called in turn so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for call in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if call >= 2:  # the first two warm up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def run_bench(repeats: int, device: str) -> None:
    """Print a table of milliseconds and ratios for two sizes of the demo's crystal."""
    backend = shelf.open_model("demo", device=device)
    table = Table("system", "evaluation", "ms", "ratio to plain")
    for repeat in (2, 3):
        s = alpha_cspbi3(repeat)
        rng = np.random.default_rng(1)
        x = s.positions + rng.normal(scale=0.05, size=s.positions.shape)
        ends = parse_alchemy("Pb->Sn", s.symbols)
        plain = backend.potential(AlchemicalSites.plain(s.symbols))
        final = backend.potential(AlchemicalSites.plain(ends.final))
        mixed = backend.potential(AlchemicalSites.from_transformation(ends))

        def linear(x=x, s=s, plain=plain, final=final):
            plain.evaluate(x, s.cell, s.pbc, [])
            final.evaluate(x, s.cell, s.pbc, [])

        times = interleaved(
            {
                "plain": lambda x=x, s=s, p=plain: p.evaluate(x, s.cell, s.pbc, []),
                "alchemical": lambda x=x, s=s, p=mixed: p.evaluate(x, s.cell, s.pbc, [0.4, 0.6]),
                "linear mixing": linear,
            },
            repeats,
        )
        for name, seconds in times.items():
            table.add_row(
                f"CsPbI3, {len(s)} atoms, all Pb split",
                name,
                f"{1e3 * seconds:.1f}",
                f"{seconds / times['plain']:.2f}",
            )
    Console().print(table)
