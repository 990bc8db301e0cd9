"""Where the time of one evaluation goes, and what its arithmetic and memory traffic would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ..potential.backends.base import Potential
from ..potential.backends.fast_mace.compiled import loops, node_loops
from ..records import Structure
from .timing import Row, interleaved, open_backend, systems_of

__all__ = ["rows"]

NAMES = {  # of the compiled loops
    "radial_table": "radial weights",
    "sum_messages": "sum over neighbours",
    "sum_messages_slope": "its backward",
    "polynomial": "polynomial",
    "polynomial_slope": "its gradient",
}
SIDE = 1500  # of the square matrices whose product shows what the core can do
COPIED = 200_000_000  # bytes copied to show what its memory can


def rows(
    models: Sequence[str],
    dtypes: Sequence[str],
    systems: Sequence[str],
    rounds: int,
    device: str,
) -> Iterator[Row]:
    """Every model, precision and system that the fast evaluator takes.

    Bounds: operations over the rate of a large matrix product, and bytes read and written over the
    rate of a large copy, as if every operation of torch and every loop found the cache empty.
    """
    for model in models:
        for dtype in dtypes:
            backend = open_backend(model, device, dtype)
            if backend.evaluator != "fast":
                continue
            for name, system in systems_of(backend, systems).items():
                s, potential = system.structure, backend.potential(system.sites)

                def evaluate(
                    s: Structure = s,
                    potential: Potential = potential,
                    weights: np.ndarray = system.weights,
                ) -> object:
                    return potential.evaluate(s.positions, s.cell, s.pbc, weights)

                times = interleaved(
                    {"evaluation": evaluate} | _yardsticks(backend.torch_dtype, backend.device),
                    rounds,
                    backend.device.type,
                )
                seconds = {key: median(values) for key, values in times.items()}
                with _Count() as count, _loops_counted(count):
                    evaluate()
                product = 2.0 * SIDE**3 / seconds["product"]
                copy = 2.0 * COPIED / seconds["copy"]
                yield {
                    "model": model,
                    "dtype": dtype,
                    "system": name,
                    "ms": round(1e3 * seconds["evaluation"], 2),
                    "shares": _shares(evaluate),
                    "Gflop": round(count.flops / 1e9, 3),
                    "GB moved": round(count.moved / 1e9, 3),
                    "matrix product, Gflop/s": round(product / 1e9, 1),
                    "copy, GB/s": round(copy / 1e9, 1),
                    "bound from flops, ms": round(1e3 * count.flops / product, 2),
                    "bound from traffic, ms": round(1e3 * count.moved / copy, 2),
                }


class _Count(TorchDispatchMode):
    """Operations, and bytes that they read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.flops += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        if func.is_view or "empty" in func.__name__:
            return out
        if "zeros" in func.__name__ or "ones" in func.__name__:
            self.moved += _bytes(out)
        elif "index_select" in func.__name__:
            self.moved += 2 * _bytes(out)  # of its source only what is taken
        else:
            self.moved += _bytes((args, kwargs, out))
        return out


@contextmanager
def _loops_wrapped(wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """The compiled loops as *wrap* makes them of their name and themselves."""
    places = [(m, name) for m in (loops, node_loops) for name in NAMES if hasattr(m, name)]
    stock = [getattr(module, name) for module, name in places]
    for (module, name), loop in zip(places, stock, strict=True):
        setattr(module, name, wrap(name, loop))
    try:
        yield
    finally:
        for (module, name), loop in zip(places, stock, strict=True):
            setattr(module, name, loop)


@contextmanager
def _loops_counted(count: _Count) -> Iterator[None]:
    """Add to *count* what the compiled loops do, which torch does not see."""

    def counted(name: str, stock: Callable[..., Any]) -> Callable[..., Any]:
        def loop(*args: Any) -> Any:
            count.flops += _LOOP_FLOPS[name](args)
            count.moved += sum(a.nbytes for a in args if isinstance(a, np.ndarray))
            return stock(*args)

        return loop

    with _loops_wrapped(counted):
        yield


def _of_edges(args: tuple[Any, ...], senders: int, each: int, each_component: int) -> int:
    """Operations of a loop over edges; args[senders] are u, the paths follow."""
    first, last, starts = args[:3]
    width, paths = int(args[senders].shape[1]), args[senders + 1]
    of_edge = sum(int(n1 * (each + each_component * n3)) for _, _, n1, n3, *_ in paths)
    return int(starts[last] - starts[first]) * width * of_edge


def _of_monomials(args: tuple[Any, ...], each: int) -> int:
    first, last, _, _, _, x, index = args[:7]
    return int(last - first) * len(index) * int(x.shape[1]) * each


_LOOP_FLOPS: dict[str, Callable[[tuple[Any, ...]], int]] = {
    # value and slope of a polynomial of degree 7
    "radial_table": lambda args: int(args[1] - args[0]) * int(args[5].shape[-1]) * 28,
    "sum_messages": lambda args: _of_edges(args, 9, 1, 2),
    "sum_messages_slope": lambda args: _of_edges(args, 11, 5, 4),
    "polynomial": lambda args: _of_monomials(args, 4),
    "polynomial_slope": lambda args: _of_monomials(args, 10),
}


def _bytes(tree: Any) -> int:
    tensors = [t for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _yardsticks(dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], object]]:
    matrix = torch.rand(SIDE, SIDE, dtype=dtype, device=device)
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)}


def _shares(evaluate: Callable[[], object]) -> dict[str, float]:
    """Parts of the time of three evaluations."""
    spent = dict.fromkeys(NAMES.values(), 0.0)

    def timed(name: str, stock: Callable[..., Any]) -> Callable[..., Any]:
        def loop(*args: Any) -> Any:
            start = time.perf_counter()
            stock(*args)
            spent[NAMES[name]] += time.perf_counter() - start

        return loop

    start = time.perf_counter()
    with _loops_wrapped(timed):
        for _ in range(3):
            evaluate()
    total = time.perf_counter() - start
    shares = {name: round(seconds / total, 3) for name, seconds in spent.items()}
    return shares | {"rest": round(1.0 - sum(shares.values()), 3)}
