"""One interaction with its product and readout: forward, and backward by hand.

All arrays of nodes are made once, as is the list of matrix products between them; only arrays of
edges change from one evaluation to the next.  Rows of degree l come first by degree, then by
node, then by component.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..layout import Layout
from ..threads import bounds_of, share
from . import loops, node_loops
from .scratch import Scratch
from .weights import LayerWeights

__all__ = ["CompiledLayer", "Edges", "State"]

Features = dict[int, torch.Tensor]  # ell: [n, 2l+1, C]
Product = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # a [m, k], b [k, c], result [m, c]


@dataclass(frozen=True)
class Edges:
    """Directed edges: even ones run along their pair, odd ones against it."""

    starts: np.ndarray  # [R+1] first edge of every radial row
    receiver: np.ndarray  # [E] row where a message is summed
    sender: np.ndarray  # [E] row that sends it
    pair: np.ndarray  # [R] pair of every radial row, ascending
    first_row: np.ndarray  # [P+1] first radial row of every pair
    table: np.ndarray  # [R] radial table of every radial row
    row: np.ndarray  # [E] radial row of every edge
    receiver_starts: np.ndarray  # [n+S+1]
    by_receiver: np.ndarray  # [E] edges in the order of receivers


@dataclass(frozen=True)
class State:
    """One evaluation: what is given, and what is added up; k' nodes of sites."""

    edges: Edges
    lengths: np.ndarray  # [R] Å
    by_length: np.ndarray  # [R] radial rows in the order of their lengths
    monomials: torch.Tensor  # [P, M] of the unit vectors
    lam: np.ndarray  # [n] λ of every node, 1 of ordinary ones
    lam_split: np.ndarray  # [k'] the same of the nodes of sites, in the model's precision
    alive: np.ndarray  # [n+S] rows whose λ is not zero
    energy: np.ndarray  # [n] eV of every node
    to_lengths: np.ndarray  # [P]
    to_monomials: torch.Tensor  # [P, M]
    to_lam_split: np.ndarray  # [k']


class CompiledLayer:
    """*features*: arrays of what the layer takes; its own results are in ``features``.

    species_only: the first layer, whose features nothing is differentiated by.
    """

    def __init__(
        self,
        weights: LayerWeights,
        layout: Layout,
        features: Features,
        scratch: Scratch,
        name: str,
        species_only: bool,
    ):
        self.weights = weights
        self.layout = layout
        self.species_only = species_only
        self._scratch = scratch
        self._name = name
        layer, n = weights.layer, layout.n_nodes
        self._n, self._n_rows = n, n + layout.n_mixtures
        self._paths = weights.paths.copy()
        self._paths[:, 6] = weights.paths[:, 6] * self._n_rows + weights.places
        degrees = len(weights.mix)
        self._places = np.array(
            [(ell * ell * n + m, 2 * ell + 1) for ell in range(degrees) for m in range(2 * ell + 1)]
        )
        like = features[0]
        up, out, skip = layer.up, layer.out, layer.skip or {}
        n_sums = sum((2 * l3 + 1) * count for l3, count in layer.paths_to.items())
        self._senders = like.new_zeros(len(up) ** 2 * self._n_rows, layer.channels)
        self._to_senders = torch.zeros_like(self._senders)
        # what is not needed after the next step serves for its gradient
        self._sums = like.new_zeros(n_sums * self._n_rows, layer.channels)
        self._x = like.new_zeros(degrees**2 * n, weights.mix[0].shape[2])
        self._to_x = torch.zeros_like(self._x)
        self._value = like.new_zeros(len(out) ** 2 * n, self._x.shape[1])
        self._scale = np.ones(n, like.numpy().dtype)
        self._to_scale = np.empty(n)
        self.features = {
            ell: like.new_zeros(n, 2 * ell + 1, matrix.shape[1]) for ell, matrix in out.items()
        }
        self.to_features = {ell: torch.zeros_like(f) for ell, f in self.features.items()}

        sender_blocks = [_block(self._senders, ell, self._n_rows) for ell in up]
        self._to_sender_blocks = [_block(self._to_senders, ell, self._n_rows) for ell in up]
        self._sum_blocks = list(self._blocks_of_sums())
        # the same as numpy's arrays, for the loops
        self._in_loops = {
            name: getattr(self, f"_{name}").numpy()
            for name in ("senders", "to_senders", "sums", "x", "to_x", "value")
        }
        self._shared_senders = [
            (block.numpy(), to_block.numpy())
            for block, to_block in zip(sender_blocks, self._to_sender_blocks, strict=True)
        ]
        self._shared_sums = [block.numpy() for block in self._sum_blocks]
        self._ones = np.ones(len(layout.split), self._scale.dtype)
        self._up = [
            (_flat(features[ell]), m, _flat(block[:n]))
            for (ell, m), block in zip(up.items(), sender_blocks, strict=True)
        ]
        self._mix = [
            (_flat(block[a:b]), m, _flat(_block(self._x, ell, n)[a:b]))
            for ell, block in zip(layer.paths_to, self._sum_blocks, strict=True)
            for m, a, b in self._ranges(weights.mix[ell])
        ]
        self._out = [
            (_flat(_block(self._value, ell, n)), m, _flat(self.features[ell]))
            for ell, m in out.items()
        ]
        self._skip = [
            (_flat(features[ell][a:b]), m, _flat(self.features[ell][a:b]))
            for ell, matrices in skip.items()
            if ell in self.features
            for m, a, b in self._ranges(matrices)
        ]
        self._hidden = None
        if weights.readout is not None and weights.readout.hidden is not None:
            self._hidden = like.new_zeros(n, weights.readout.hidden.shape[1])

    def connect(self, before: CompiledLayer | None) -> None:
        """Lists the products of the backward pass, which ends in *before*'s ``to_features``."""
        n, layer = self._n, self.weights.layer
        self._to_value = [
            (_flat(self.to_features[ell]), m.T, _flat(_block(self._value, ell, n)))
            for ell, m in layer.out.items()
        ]
        self._to_sums = [
            (_flat(_block(self._to_x, ell, n)[a:b]), m.T, _flat(block[a:b]))
            for ell, block in zip(layer.paths_to, self._sum_blocks, strict=True)
            for m, a, b in self._ranges(self.weights.mix[ell])
        ]
        self._to_features_up: list[Product] = []
        self._to_features_skip: list[Product] = []
        if before is None:
            return
        old = before.to_features
        self._to_features_up = [
            (_flat(block[:n]), m.T, _flat(old[ell]))
            for (ell, m), block in zip(layer.up.items(), self._to_sender_blocks, strict=True)
        ]
        self._to_features_skip = [
            (_flat(self.to_features[ell][a:b]), m.T, _flat(old[ell][a:b]))
            for ell, matrices in (layer.skip or {}).items()
            if ell in self.features
            for m, a, b in self._ranges(matrices)
        ]

    def _blocks_of_sums(self) -> Iterator[torch.Tensor]:
        """[n+S, 2l3+1, paths·C] for every l3."""
        start = 0
        for l3, count in self.weights.layer.paths_to.items():
            stop = start + (2 * l3 + 1) * count * self._n_rows
            yield self._sums[start:stop].view(self._n_rows, 2 * l3 + 1, -1)
            start = stop

    def _ranges(self, matrices: torch.Tensor) -> list[tuple[torch.Tensor, int, int]]:
        """Matrices [Z, …] with the nodes of their element, or the one [1, …] of all nodes."""
        if len(matrices) == 1:
            return [(matrices[0], 0, self._n)]
        ranges = self.layout.ranges
        return [(m, a, b) for m, (a, b) in zip(matrices, ranges, strict=True) if b > a]

    # --- forward ----------------------------------------------------------------------------

    def forward(self, state: State) -> None:
        """Fills ``features`` and adds to the energy of nodes."""
        layout, edges = self.layout, state.edges
        split, shared, n = layout.split, layout.mixture, self._n
        arrays = self._in_loops
        weights, _ = self._radial(state)
        coupled = self._coupled(state)
        _multiply(self._up)
        for block, _ in self._shared_senders:
            node_loops.add_to_shared(block, split, shared, state.lam_split, n)
        sums = (
            edges.receiver_starts,
            edges.by_receiver,
            edges.row,
            edges.pair,
            edges.sender,
            weights,
            coupled.numpy(),
            arrays["senders"],
            self._paths,
            arrays["sums"],
        )
        share(bounds_of(self._n_rows), lambda _, a, b: loops.sum_messages(a, b, *sums))
        if layout.collapsed:
            for block in self._shared_sums:
                node_loops.add_to_split(block, split, shared, n)
        _multiply(self._mix)
        if self.weights.density is not None:
            self._density(state)
        rest = (arrays["x"], self.weights.terms, self.weights.coefficients, arrays["value"])
        places = (layout.element, self._places, self._scale)
        share(bounds_of(n), lambda _, a, b: node_loops.polynomial(a, b, *places, *rest))
        _multiply(self._out)
        _add(self._skip)
        self._readout(state)

    def _radial(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Radial weights [R, paths·C] and their slopes."""
        shape = (len(state.lengths), len(self._paths) * self.weights.layer.channels)
        dtype = self._scale.dtype
        weights = self._scratch.take(f"weights {self._name}", shape, dtype)
        slopes = self._scratch.take(f"slopes {self._name}", shape, dtype)
        self.weights.radial.fill(state.lengths, state.by_length, state.edges.table, weights, slopes)
        return weights, slopes

    def _coupled(self, state: State) -> torch.Tensor:
        shape = (len(state.monomials), self.weights.angular.shape[1])
        array = self._scratch.take(f"coupled {self._name}", shape, self._scale.dtype)
        coupled = torch.from_numpy(array)
        return torch.mm(state.monomials, self.weights.angular, out=coupled)

    def _density(self, state: State) -> None:
        """``_scale`` = 1 / (1 + ρ), ρ the sum of edge densities around a node."""
        assert self.weights.density is not None
        n, split, shared = self._n, self.layout.split, self.layout.mixture
        value, slope = np.empty((2, len(state.lengths), 1))
        self.weights.density.fill(state.lengths, state.by_length, state.edges.table, value, slope)
        self._edge_density = (value.ravel(), slope.ravel())
        sent = np.ones(self._n_rows)
        sent[n:] = np.bincount(shared, state.lam[split], minlength=self._n_rows - n)
        self._sent = sent
        around = np.zeros(self._n_rows)
        edges = state.edges
        node_loops.density(edges.starts, edges.receiver, edges.sender, value.ravel(), sent, around)
        if self.layout.collapsed:
            around[split] += around[n + shared]
        self._scale[:] = 1.0 / (1.0 + around[:n])

    def _readout(self, state: State) -> None:
        """Adds to the energies of nodes, and begins ``to_features`` with the readout's slope."""
        readout = self.weights.readout
        for gradient in self.to_features.values():
            gradient.zero_()
        if readout is None:
            return
        scalars, gradient = _flat(self.features[0]), _flat(self.to_features[0])
        if readout.hidden is None or self._hidden is None:
            state.energy[:] += scalars.numpy() @ readout.weights
            gradient.numpy()[:] = state.lam[:, None] * readout.weights
            return
        torch.mm(scalars, readout.hidden, out=self._hidden)
        node_loops.readout(self._hidden.numpy(), readout.weights, state.lam, state.energy)
        torch.mm(self._hidden, readout.hidden.T, out=gradient)

    # --- backward ---------------------------------------------------------------------------

    def backward(self, state: State) -> None:
        """From ``to_features`` to those of the layer before, the geometry and λ.

        Must follow the layer's ``forward``.
        """
        layout, edges = self.layout, state.edges
        split, shared, n = layout.split, layout.mixture, self._n
        arrays = self._in_loops
        _multiply(self._to_value)
        places = (layout.element, self._places, self._scale, arrays["x"])
        terms = (self.weights.terms, self.weights.coefficients)
        results = (arrays["value"], arrays["to_x"], self._to_scale)
        share(
            bounds_of(n),
            lambda _, a, b: node_loops.polynomial_slope(a, b, *places, *terms, *results),
        )
        self._mix_slope()
        shape = (len(state.lengths), len(self._paths) * self.weights.layer.channels)
        dtype = self._scale.dtype
        of_coupled = (len(state.monomials), self.weights.angular.shape[1])
        to_coupled = self._scratch.take("to coupled", of_coupled, dtype)
        to_coupled[:] = 0
        given = (
            edges.starts,
            edges.pair,
            edges.receiver,
            edges.sender,
            state.alive,
            n if self.species_only else 0,
            self._scratch.take(f"weights {self._name}", shape, dtype),
            self._scratch.take(f"slopes {self._name}", shape, dtype),
            self._scratch.take(f"coupled {self._name}", of_coupled, dtype),
            arrays["senders"],
            self._paths,
            arrays["sums"],
            state.to_lengths,
            to_coupled,
        )
        bounds = [int(edges.first_row[pair]) for pair in bounds_of(len(state.monomials))]
        private = [arrays["to_senders"]]  # one for each thread
        private += [np.empty_like(private[0]) for _ in bounds[2:]]

        def slope(part: int, first: int, last: int) -> None:
            private[part][:] = 0
            loops.sum_messages_slope(first, last, *given, private[part])

        share(bounds, slope)
        for part in private[1:]:
            private[0] += part
        state.to_monomials.addmm_(torch.from_numpy(to_coupled), self.weights.angular.T)
        if self.weights.density is not None:
            self._density_slope(state)
        if len(split):
            rest = (split, shared, state.lam_split, n, state.to_lam_split)
            for block, to_block in self._shared_senders:
                node_loops.mixture_slope(block, to_block, *rest)
        _add(self._to_features_up)
        _add(self._to_features_skip)

    def _mix_slope(self) -> None:
        """``_sums`` becomes the gradient by itself, rows that sites share included."""
        _multiply(self._to_sums)
        if self.layout.collapsed:
            split, shared = self.layout.split, self.layout.mixture
            for block in self._shared_sums:
                node_loops.add_to_shared(block, split, shared, self._ones, self._n)

    def _density_slope(self, state: State) -> None:
        n, split, shared = self._n, self.layout.split, self.layout.mixture
        edges = state.edges
        upstream = np.zeros(self._n_rows)
        upstream[:n] = -self._to_scale * self._scale.astype(np.float64) ** 2
        if self.layout.collapsed:
            upstream[n:] = np.bincount(shared, upstream[split], minlength=self._n_rows - n)
        to_sent = np.zeros(self._n_rows)
        node_loops.density_slope(
            edges.starts,
            edges.pair,
            edges.receiver,
            edges.sender,
            *self._edge_density,
            self._sent,
            upstream,
            state.to_lengths,
            to_sent,
        )
        state.to_lam_split[:] += to_sent[n + shared]


def _block(rows: torch.Tensor, degree: int, n: int) -> torch.Tensor:
    """[n, 2l+1, C] of degree l."""
    return rows[degree**2 * n : (degree + 1) ** 2 * n].view(n, 2 * degree + 1, -1)


def _flat(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, values.shape[-1])


def _multiply(products: list[Product]) -> None:
    for a, b, result in products:
        torch.mm(a, b, out=result)


def _add(products: list[Product]) -> None:
    for a, b, result in products:
        result.addmm_(a, b)
