"""The two inner loops of an evaluation, each with the backward pass that its structure allows.

Both work in blocks that fit the cache, and neither differentiates with respect to weights of the
model, which are frozen.  docs/evaluator.md derives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from .frozen import Layer, Path, Polynomial
from .neighbours import Block, Neighbours

__all__ = ["NeighbourSum", "SymmetricPolynomial"]

# Bytes of the largest array of a block: smaller blocks cost calls, larger ones leave the cache.
_NEIGHBOUR_BYTES = {"cpu": 3_000_000, "cuda": 1_000_000_000}
_POLYNOMIAL_BYTES = {"cpu": 1_500_000, "cuda": 1_000_000_000}
_POLYNOMIAL_NODES = {"cpu": 128, "cuda": 65536}


class SymmetricPolynomial(torch.autograd.Function):
    """f_w(x) = Σ T3_(w,abc) x_a x_b x_c + Σ T2_(w,ab) x_a x_b + Σ T1_(w,a) x_a per node, channel.

    The tensors are symmetric, so with h3 = T3 x x and h2 = T2 x, each one factor short,

        f = x · (h3 + h2 + T1)      ∂f/∂x = 3 h3 + 2 h2 + T1,

    and the gradient costs nothing beyond the value.

    Arguments: x (C, D, n), nodes last and sorted by element; the polynomial of one output l; the
    range of nodes of every element.  Returns (C, 2l+1, n).
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, p: Polynomial, ranges: Sequence[tuple[int, int]]):
        channels, width, n_nodes = x.shape
        n_out = p.linear.shape[2]
        value = x.new_empty(channels, n_out, n_nodes)
        slope = x.new_empty(channels, n_out, width, n_nodes)
        for z, these, nodes in _polynomial_blocks(x, p, ranges):
            here = x[these, :, nodes].contiguous()  # [c, D, m]
            shape = (len(here), n_out, width, here.shape[2])
            short = p.linear[z, these].unsqueeze(-1)  # [c, W, D, 1]
            gradient = short
            if p.quadratic is not None:
                h2 = torch.bmm(p.quadratic[z, these], here).view(shape)
                short, gradient = short + h2, torch.add(gradient, h2, alpha=2.0)
            if p.cubic is not None:
                products = here.index_select(1, p.first).mul_(here.index_select(1, p.second))
                h3 = torch.bmm(p.cubic[z, these], products).view(shape)
                short, gradient = short + h3, torch.add(gradient, h3, alpha=3.0)
            value[these, :, nodes] = (short * here.unsqueeze(1)).sum(2)
            slope[these, :, :, nodes] = gradient
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx, upstream):
        (slope,) = ctx.saved_tensors
        if slope.shape[1] == 1:
            return slope[:, 0] * upstream, None, None
        return (slope * upstream.unsqueeze(2)).sum(1), None, None


def _polynomial_blocks(
    x: torch.Tensor, p: Polynomial, ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, slice, slice]]:
    """Element, channels and nodes of blocks whose products x_a x_b stay in the cache."""
    device = x.device.type
    for z, (first, last) in enumerate(ranges):
        for start in range(first, last, _POLYNOMIAL_NODES[device]):
            stop = min(last, start + _POLYNOMIAL_NODES[device])
            of_channel = len(p.first) * (stop - start) * x.element_size()
            step = max(8, _POLYNOMIAL_BYTES[device] // of_channel)
            for channel in range(0, len(x), step):
                yield z, slice(channel, channel + step), slice(start, stop)


class NeighbourSum(torch.autograd.Function):
    """A_(r, l3, path) = Σ over slots of w_path ⊙ (Y_(l2) ⊗ u_(l1))_(l3), edge by edge (eq. 6).

    For a receiver the sum over its D neighbours is a matrix product with D (or, from l1 > 0,
    D·(2l1+1)) as the inner dimension, so no array over edges and messages is ever made.

    Arguments
        weights: (R+1, slots·C) radial weights, the last row zero.
        harmonics: (2P, lm) of directed edges.
        neighbours: which rows of weights, harmonics and senders meet at which receiver.
        layer: its paths; a path from scalars leaves its factor to ``layer.down``.
        senders: u_(l1) for l1 = 0, 1, …, each (rows, 2l1+1, S·C) with S states side by side; none
            at all stands for scalars that are all 1 (S = 1).

    Returns for every l3 in ascending order (receivers, 2l3+1, paths to l3 · S·C), in the order of
    ``neighbours``.
    """

    @staticmethod
    def forward(ctx, weights, harmonics, neighbours: Neighbours, layer: Layer, *senders):
        states = senders[0].shape[2] // layer.channels if senders else 1
        out = {
            degree: weights.new_zeros(
                len(neighbours.counts), 2 * degree + 1, count, states * layer.channels
            )
            for degree, count in layer.paths_to.items()
        }
        for start, stop, slots in _neighbour_blocks(weights, neighbours, layer, states):
            rows = neighbours.block(start, stop, slots)
            w, y, u = _gather(rows, weights, harmonics, layer, senders)
            for path in layer.paths:
                sums = torch.bmm(_coupled(path, y).mT, _weighted(path, w, u))
                out[path.l3][start:stop, :, path.place] = sums
        ctx.save_for_backward(weights, harmonics, *senders)
        ctx.rest = neighbours, layer, states
        return tuple(sums.flatten(2) for sums in out.values())

    @staticmethod
    def backward(ctx, *upstream):
        weights, harmonics, *senders = ctx.saved_tensors
        neighbours, layer, states = ctx.rest
        needed = ctx.needs_input_grad[4:]
        upstream = {
            degree: g.view(len(g), 2 * degree + 1, count, -1)
            for (degree, count), g in zip(layer.paths_to.items(), upstream, strict=True)
        }
        to_weights, to_harmonics = torch.zeros_like(weights), torch.zeros_like(harmonics)
        to_senders = [torch.zeros_like(s) for s in senders]
        for start, stop, slots in _neighbour_blocks(weights, neighbours, layer, states):
            rows = neighbours.block(start, stop, slots)
            w, y, u = _gather(rows, weights, harmonics, layer, senders)
            dw, dy = torch.empty_like(w), torch.zeros_like(y)
            du = [torch.zeros_like(x) if n else None for x, n in zip(u, needed, strict=True)]
            for path in layer.paths:
                coupled, weighted = _coupled(path, y), _weighted(path, w, u)
                g = upstream[path.l3][start:stop, :, path.place]  # [n, 2l3+1, S·C]
                to_coupled = torch.bmm(weighted, g.mT)
                dy[:, :, path.harmonics] += _uncoupled(path, to_coupled, y)
                _unweighted(path, torch.bmm(coupled, g), w, u, dw, du)
            for to, part in zip(to_senders, du, strict=True):
                if part is not None:
                    to.index_add_(0, rows.sender, part.view(-1, *to.shape[1:]))
            to_weights.index_add_(0, rows.radial, dw.view(-1, to_weights.shape[1]))
            to_harmonics.index_add_(0, rows.harmonic, dy.flatten(0, 1))
        return to_weights, to_harmonics, None, None, *to_senders


def _neighbour_blocks(weights: torch.Tensor, neighbours: Neighbours, layer: Layer, states: int):
    per_slot = max(weights.shape[1], states * layer.channels) * weights.element_size()
    return neighbours.blocks(_NEIGHBOUR_BYTES[weights.device.type], per_slot)


def _gather(rows: Block, weights, harmonics, layer: Layer, senders):
    """w [n, D, slots, C], y [n, D, lm] and u_(l1) [n, D, 2l1+1, S, C] of one block."""
    w = weights.index_select(0, rows.radial).view(*rows.shape, -1, layer.channels)
    y = harmonics.index_select(0, rows.harmonic).view(*rows.shape, -1)
    u = [
        x.index_select(0, rows.sender).view(*rows.shape, x.shape[1], -1, layer.channels)
        for x in senders
    ]
    return w, y, u


def _coupled(path: Path, y: torch.Tensor) -> torch.Tensor:
    """Harmonics coupled to l3 but for the sender's components: [n, D·(2l1+1), 2l3+1]."""
    y = y[:, :, path.harmonics]
    if path.coupling is None:
        return y
    n, slots, _ = y.shape
    return (y.reshape(n * slots, -1) @ path.coupling).view(n, -1, 2 * path.l3 + 1)


def _uncoupled(path: Path, to_coupled: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The gradient of :func:`_coupled` with respect to the harmonics: [n, D, 2l2+1]."""
    if path.coupling is None:
        return to_coupled
    n, slots, _ = y.shape
    return (to_coupled.view(n * slots, -1) @ path.coupling.mT).view(n, slots, -1)


def _weighted(path: Path, w: torch.Tensor, u: list[torch.Tensor]) -> torch.Tensor:
    """Radial weights times the sender's features: [n, D·(2l1+1), S·C]."""
    w = w[:, :, path.slot]  # [n, D, C]
    if not u:
        return w
    u = u[path.l1]  # [n, D, 2l1+1, S, C]
    return (w[:, :, None, None] * u).flatten(3).flatten(1, 2)


def _unweighted(path: Path, to_weighted, w, u, dw, du) -> None:
    """The gradient of :func:`_weighted`: written to a slot of dw, added to du where needed."""
    if not u:
        dw[:, :, path.slot] = to_weighted
        return
    to_weighted = to_weighted.view(u[path.l1].shape)
    if to_weighted.shape[2] == to_weighted.shape[3] == 1:
        torch.mul(to_weighted[:, :, 0, 0], u[path.l1][:, :, 0, 0], out=dw[:, :, path.slot])
    else:
        torch.sum(to_weighted * u[path.l1], dim=(2, 3), out=dw[:, :, path.slot])
    if du[path.l1] is not None:
        du[path.l1].addcmul_(to_weighted, w[:, :, path.slot, None, None])
