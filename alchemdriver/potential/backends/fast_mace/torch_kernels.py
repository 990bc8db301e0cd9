"""The two inner steps of an evaluation in torch operations, for accelerators.

The same functions as in :mod:`.cpu_kernels`, as matrix products over blocks of rows padded to the
same number of neighbours, and of nodes of one element.  docs/evaluator.md derives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from .frozen import Layer, Path, Polynomial
from .neighbours import Neighbours

__all__ = ["NeighbourSum", "SymmetricPolynomial"]

# Bytes of the largest array of a block, of which a few are alive at once.
_BLOCK_BYTES = 1_000_000_000


# --- messages -------------------------------------------------------------------------------


class NeighbourSum(torch.autograd.Function):
    """See ``NeighbourSum``.

    For a receiver the sum over its D neighbours is a matrix product with D (or, from l1 > 0,
    D·(2l1+1)) as the inner dimension, so no array over edges and messages is ever made.
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
        rows = _rows(neighbours, weights.device)
        width = layer.channels if senders is None else senders.shape[2]
        out = {
            degree: weights.new_zeros(neighbours.n_receivers, 2 * degree + 1, count, width)
            for degree, count in layer.paths_to.items()
        }
        padded = torch.nn.functional.pad(coupled, (0, 0, 0, 1))
        for start, stop, slots in _blocks(rows, weights, senders, width):
            block = rows.block(start, stop, slots)
            w, y, u = _gather(block, weights, padded, layer, senders)
            for path in layer.paths:
                sums = torch.bmm(_coupled(path, y).mT, _weighted(path, w, u))
                out[path.l3][rows.receivers[start:stop], :, path.place] = sums
        ctx.save_for_backward(weights, coupled, senders)
        ctx.rest = rows, layer
        return tuple(sums.flatten(2) for sums in out.values())

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights, coupled, senders = ctx.saved_tensors
        rows, layer = ctx.rest
        arrived = {
            degree: g.view(len(g), 2 * degree + 1, count, -1).index_select(0, rows.receivers)
            for (degree, count), g in zip(layer.paths_to.items(), upstream, strict=True)
        }
        width = layer.channels if senders is None else senders.shape[2]
        padded = torch.nn.functional.pad(coupled, (0, 0, 0, 1))
        to_weights, to_coupled = torch.zeros_like(weights), torch.zeros_like(padded)
        to_senders = torch.zeros_like(senders) if ctx.needs_input_grad[2] else None
        for start, stop, slots in _blocks(rows, weights, senders, width):
            block = rows.block(start, stop, slots)
            w, y, u = _gather(block, weights, padded, layer, senders)
            dw, dy = torch.empty_like(w), torch.empty_like(y)
            du = None if to_senders is None or u is None else torch.zeros_like(u)
            for path in layer.paths:
                g = arrived[path.l3][start:stop, :, path.place]  # [n, 2l3+1, S·C]
                along = torch.bmm(_weighted(path, w, u), g.mT)
                dy[:, :, path.columns] = along.view(*dy.shape[:2], -1)
                _unweighted(path, torch.bmm(_coupled(path, y), g), w, u, dw, du)
            if to_senders is not None and du is not None:
                to_senders.index_add_(0, block.sender, du.view(-1, *senders.shape[1:]))
            to_weights.index_add_(0, block.radial, dw.view(-1, to_weights.shape[1]))
            to_coupled.index_add_(0, block.harmonic, dy.flatten(0, 1))
        return to_weights, to_coupled[:-1], to_senders, None, None


@dataclass(frozen=True)
class _Rows:
    """Neighbours as rows of slots, one row per receiver, longest first, padded at their ends.

    Tables are [receivers, D]; a padded slot has the harmonics of a last row, which are zero.
    """

    receivers: torch.Tensor  # [r] in the order of the rows
    radial: torch.Tensor
    harmonic: torch.Tensor
    sender: torch.Tensor
    counts: np.ndarray  # [r] used slots, descending

    def block(self, start: int, stop: int, slots: int) -> _Block:
        parts = (self.radial, self.harmonic, self.sender)
        return _Block((stop - start, slots), *(p[start:stop, :slots].reshape(-1) for p in parts))


@dataclass(frozen=True)
class _Block:
    """Flat slots [n·D] of some rows."""

    shape: tuple[int, int]  # n, D
    radial: torch.Tensor
    harmonic: torch.Tensor
    sender: torch.Tensor


_MADE: WeakKeyDictionary[Neighbours, _Rows] = WeakKeyDictionary()


def _rows(neighbours: Neighbours, device: torch.device) -> _Rows:
    """Made once for the layers and the backward pass of an evaluation."""
    if neighbours not in _MADE:
        _MADE[neighbours] = _pad(neighbours, device)
    return _MADE[neighbours]


def _pad(neighbours: Neighbours, device: torch.device) -> _Rows:
    receiver, n_receivers = neighbours.receiver, neighbours.n_receivers
    counts = np.bincount(receiver, minlength=n_receivers)
    rows = np.argsort(-counts, kind="stable")  # longest first
    place = np.empty_like(rows)
    place[rows] = np.arange(n_receivers)
    order = np.argsort(receiver, kind="stable")
    receiver = receiver[order]
    slot = np.arange(len(order)) - (np.cumsum(counts) - counts)[receiver]
    shape = (n_receivers, int(counts.max(initial=0)))

    def table(values: np.ndarray, empty: int) -> torch.Tensor:
        padded = np.full(shape, empty)
        padded[place[receiver], slot] = values[order]
        return torch.from_numpy(padded).to(device)

    return _Rows(
        receivers=torch.from_numpy(rows).to(device),
        radial=table(neighbours.radial, 0),
        harmonic=table(neighbours.harmonic, neighbours.n_harmonic),
        sender=table(neighbours.sender, 0),
        counts=counts[rows],
    )


def _blocks(
    rows: _Rows, weights: torch.Tensor, senders: torch.Tensor | None, width: int
) -> Iterator[tuple[int, int, int]]:
    """(first row, end, slots) of blocks of limited size; none of rows without slots."""
    components = 1 if senders is None else senders.shape[1]
    per_slot = max(weights.shape[1], components * width) * weights.element_size()
    start = 0
    while start < len(rows.counts) and rows.counts[start] > 0:
        slots = int(rows.counts[start])
        stop = min(len(rows.counts), start + max(1, _BLOCK_BYTES // (slots * per_slot)))
        yield start, stop, slots
        start = stop


def _gather(
    block: _Block,
    weights: torch.Tensor,
    coupled: torch.Tensor,
    layer: Layer,
    senders: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """w [n, D, slots, C], y [n, D, Q] and u [n, D, Σ 2l1+1, S, C] of one block."""
    w = weights.index_select(0, block.radial).view(*block.shape, -1, layer.channels)
    y = coupled.index_select(0, block.harmonic).view(*block.shape, -1)
    u = senders
    if u is not None:
        u = u.index_select(0, block.sender).view(*block.shape, u.shape[1], -1, layer.channels)
    return w, y, u


def _coupled(path: Path, y: torch.Tensor) -> torch.Tensor:
    """Harmonics coupled to l3 but for the sender's components: [n, D·(2l1+1), 2l3+1]."""
    return y[:, :, path.columns].reshape(len(y), -1, 2 * path.l3 + 1)


def _weighted(path: Path, w: torch.Tensor, u: torch.Tensor | None) -> torch.Tensor:
    """Radial weights times the sender's features: [n, D·(2l1+1), S·C]."""
    w = w[:, :, path.slot]  # [n, D, C]
    if u is None:
        return w
    u = u[:, :, path.l1**2 : (path.l1 + 1) ** 2]  # [n, D, 2l1+1, S, C]
    return (w[:, :, None, None] * u).flatten(3).flatten(1, 2)


def _unweighted(
    path: Path,
    to_weighted: torch.Tensor,
    w: torch.Tensor,
    u: torch.Tensor | None,
    dw: torch.Tensor,
    du: torch.Tensor | None,
) -> None:
    """The gradient of :func:`_weighted`: written to a slot of dw, added to du where wanted."""
    if u is None:
        dw[:, :, path.slot] = to_weighted
        return
    components = slice(path.l1**2, (path.l1 + 1) ** 2)
    to_weighted = to_weighted.view(u[:, :, components].shape)
    dw[:, :, path.slot] = (to_weighted * u[:, :, components]).sum((2, 3))
    if du is not None:
        du[:, :, components].addcmul_(to_weighted, w[:, :, path.slot, None, None])


# --- polynomials ----------------------------------------------------------------------------


class SymmetricPolynomial(torch.autograd.Function):
    """See ``SymmetricPolynomial``.

    Here as ``Polynomial.matrices``, one matrix product for each element and channel, of which the
    gradient is a by-product.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, p: Polynomial, ranges: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        value = x.new_empty(len(x), 2 * p.degree + 1, x.shape[2])
        slope = x.new_empty(len(x), 2 * p.degree + 1, p.width, x.shape[2])
        matrix, first, second = p.matrices
        extended = torch.nn.functional.pad(x, (0, 0, 0, 1), value=1.0).permute(2, 1, 0)
        step = max(1, _BLOCK_BYTES // (len(first) * x.shape[2] * x.element_size()))
        for z, (start, stop) in enumerate(ranges):
            for begin in range(start, stop, step):
                nodes = slice(begin, min(stop, begin + step))
                here = extended[:, :, nodes]  # [C, D+1, m]
                h = torch.bmm(matrix[z], here[:, first] * here[:, second])
                h = h.view(len(here), -1, p.width + 1, h.shape[-1])
                value[nodes] = (h * here.unsqueeze(1)).sum(2).permute(2, 1, 0)
                slope[nodes] = 3.0 * h[:, :, : p.width].permute(3, 1, 2, 0)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (slope * upstream[0].unsqueeze(2)).sum(1), None, None
