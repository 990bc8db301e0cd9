"""The two inner steps of an evaluation on a CPU, differentiable: compiled loops, shared by threads.

Neither differentiates with respect to weights of the model, which are frozen.
docs/evaluator.md derives them; :mod:`.torch_kernels` has the same two for other devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from . import loops
from .frozen import Layer, Polynomial
from .neighbours import Neighbours
from .threads import bounds_of, share

__all__ = ["NeighbourSum", "SymmetricPolynomial"]


class NeighbourSum(torch.autograd.Function):
    """A_(r, l3, path) = Σ over the edges of r of w_path ⊙ (Y ⊗ u)_(l3), eq. 6.

    Arguments
        weights: (R, slots·C) radial weights.
        coupled: (2P, Q) harmonics of directed edges times ``layer.coupling``.
        senders: u (rows, Σ 2l1+1, S·C) with S states side by side; None stands for scalars that
            are all 1 (S = 1).
        neighbours: which rows of these meet at which receiver.
        layer: its paths; a path from scalars leaves its factor to ``layer.down``.

    Returns for every l3 in ascending order (receivers, 2l3+1, paths to l3 · S·C).
    """

    @staticmethod
    def forward(
        ctx: Any,
        weights: torch.Tensor,
        coupled: torch.Tensor,
        senders: torch.Tensor | None,
        neighbours: Neighbours,
        layer: Layer,
    ) -> tuple[torch.Tensor, ...]:
        if senders is None:
            senders = weights.new_ones(1, 1, layer.channels)
            sender = np.zeros_like(neighbours.sender)
        else:
            sender = neighbours.sender
        paths = _path_table(layer, neighbours.n_receivers)
        arrays = [t.detach().contiguous().numpy() for t in (weights, coupled, senders)]
        n_rows = sum((2 * l3 + 1) * count for l3, count in layer.paths_to.items())
        out = np.zeros((n_rows * neighbours.n_receivers, senders.shape[2]), arrays[0].dtype)
        n = neighbours
        starts, order = loops.group(n.receiver, n.n_receivers)
        shared = (starts, order, n.radial, n.harmonic, sender, *arrays, paths, out)
        share(
            bounds_of(n.n_receivers),
            lambda _, a, b: loops.sum_messages(a, b, *shared),
        )
        ctx.rest = arrays, sender, paths, neighbours
        return tuple(_by_degree(torch.from_numpy(out), layer, neighbours.n_receivers))

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arrays, sender, paths, n = ctx.rest
        weights, coupled, senders = arrays
        rows = [g.reshape(-1, senders.shape[2]) for g in upstream]
        to_weights = np.zeros_like(weights)
        to_edges = np.empty((len(n.sender), coupled.shape[1]), coupled.dtype)
        wanted = senders.shape if ctx.needs_input_grad[2] else (0, *senders.shape[1:])
        to_senders = np.zeros((torch.get_num_threads(), *wanted), senders.dtype)
        starts, order = loops.group(n.radial, n.n_radial)
        shared = (starts, order, n.receiver, n.harmonic, sender, *arrays, paths)
        shared += (torch.cat(rows).numpy(), to_weights, to_edges)

        def slope(part: int, first: int, last: int) -> None:
            loops.sum_messages_slope(first, last, *shared, to_senders[part])

        share(bounds_of(n.n_radial), slope)
        to_coupled = torch.zeros(coupled.shape, dtype=upstream[0].dtype)
        to_coupled.index_add_(0, torch.from_numpy(n.harmonic), torch.from_numpy(to_edges))
        along = torch.from_numpy(to_senders).sum(0) if ctx.needs_input_grad[2] else None
        return torch.from_numpy(to_weights), to_coupled, along, None, None


def _path_table(layer: Layer, n_receivers: int) -> np.ndarray:
    """The paths as ``loops.sum_messages`` reads them."""
    before = 0
    base: dict[int, int] = {}
    for l3, count in layer.paths_to.items():
        base[l3] = before * n_receivers
        before += (2 * l3 + 1) * count
    return np.array(
        [
            [
                path.slot,
                path.l1**2,
                2 * path.l1 + 1,
                2 * path.l3 + 1,
                path.columns.start,
                layer.paths_to[path.l3],
                base[path.l3] + path.place,
            ]
            for path in layer.paths
        ]
    )


def _by_degree(rows: torch.Tensor, layer: Layer, n_receivers: int) -> Iterator[torch.Tensor]:
    start = 0
    for l3, count in layer.paths_to.items():
        stop = start + n_receivers * (2 * l3 + 1) * count
        yield rows[start:stop].view(n_receivers, 2 * l3 + 1, -1)
        start = stop


class SymmetricPolynomial(torch.autograd.Function):
    """f_w(x) = Σ_m t_m x_a x_b x_c per node and channel.

    Arguments: x (n, D, C), nodes sorted by element; the polynomial of one output l; the range of
    nodes of every element.  Returns (n, 2l+1, C).
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, p: Polynomial, ranges: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        element = np.repeat(np.arange(len(ranges)), [stop - start for start, stop in ranges])
        tensors = (x, p.index, p.coefficients)
        arrays = [element, *(t.detach().contiguous().numpy() for t in tensors)]
        value = np.zeros((len(x), 2 * p.degree + 1, x.shape[2]), arrays[1].dtype)
        share(
            bounds_of(len(x)),
            lambda _, a, b: loops.polynomial(a, b, *arrays, value),
        )
        ctx.arrays = arrays
        return torch.from_numpy(value)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slope = np.empty_like(ctx.arrays[1])
        shared = (*ctx.arrays, upstream[0].contiguous().numpy(), slope)
        share(
            bounds_of(len(slope)),
            lambda _, a, b: loops.polynomial_slope(a, b, *shared),
        )
        return torch.from_numpy(slope), None, None
