"""Wall time of one evaluation by one thread over that by two."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from ..errors import InputError
from ..records import PotentialEvaluation
from .cases import perovskite
from .timing import Row, interleaved, open_backend, quartiles, spread

__all__ = ["rows"]

REPEAT = 4  # CsPbI3, 320 atoms, every Pb split
MORE = 2


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """Every model that knows CsPbI3, in every precision.  Both need a core that is free."""
    if device != "cpu" or (os.cpu_count() or 1) < MORE:
        raise InputError(f"bench: the part threads needs a CPU with {MORE} cores, got {device}")
    before = torch.get_num_threads()
    try:
        for model in models:
            for dtype in dtypes:
                backend = open_backend(model, device, dtype)
                if "Cs" not in backend.elements:
                    continue
                system = perovskite(REPEAT)
                s, potential = system.structure, backend.potential(system.sites)
                found: dict[int, PotentialEvaluation] = {}

                def on(threads: int, s=s, potential=potential, weights=system.weights, to=found):
                    def evaluate() -> None:
                        torch.set_num_threads(threads)
                        to[threads] = potential.evaluate(s.positions, s.cell, s.pbc, weights)

                    return evaluate

                functions: dict[str, Callable[[], object]] = {"one": on(1), "more": on(MORE)}
                times = interleaved(functions, rounds, device, wall=True)
                yield {
                    "model": model,
                    "dtype": dtype,
                    "threads": [1, MORE],
                    "ms": {name: quartiles([1e3 * t for t in v]) for name, v in times.items()},
                    "one_over_more": spread(times["one"], times["more"]),
                    "same bits": bool(np.array_equal(found[1].forces, found[MORE].forces)),
                }
    finally:
        torch.set_num_threads(before)
