"""Time per atom in a large cell over that in a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..potential.backends.mace import MaceBackend
from .cases import System, perovskite
from .timing import Row, interleaved, open_backend, spread

__all__ = ["rows"]

SMALL, LARGE = 3, 6  # cubic cells of CsPbI3 along each edge: 135 and 1080 atoms


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """CsPbI3, every Pb split, for every model that knows it in every precision."""
    for model in models:
        for dtype in dtypes:
            backend = open_backend(model, device, dtype)
            if "Cs" not in backend.elements:
                continue
            cases = {"small": perovskite(SMALL), "large": perovskite(LARGE)}
            times = interleaved(
                {name: _step(backend, system) for name, system in cases.items()},
                rounds,
                backend.device.type,
            )
            small, large = (len(system.structure) for system in cases.values())
            yield {
                "model": model,
                "dtype": dtype,
                "atoms": [large, small],
                "per_atom": spread(
                    [t / large for t in times["large"]], [t / small for t in times["small"]]
                ),
            }


def _step(backend: MaceBackend, system: System) -> Callable[[], object]:
    s, potential = system.structure, backend.potential(system.sites)
    return lambda: potential.evaluate(s.positions, s.cell, s.pbc, system.weights)
