"""Energy and its gradients by hand: forward and backward pass over compiled loops and matrices.

docs/evaluator.md derives them.  Shapes: n nodes, S rows that sites share (of messages and of what
they send), R radial rows, P pairs, C channels, B structures.  Arrays of nodes are {l: [n, 2l+1,
C]}, or one array of rows in which degree l begins at row l²·n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ....sites import AlchemicalSites
from ..frozen import Frozen
from ..graph import NodePairs, expand
from ..layout import Layout
from ..neighbours import Pairs
from . import loops, node_loops
from .repulsion import PairRepulsion
from .weights import LayerWeights, Weights

__all__ = ["CompiledNetwork"]

Features = dict[int, torch.Tensor]


@dataclass(frozen=True)
class _Edges:
    """Directed edges: even ones run along their pair, odd ones against it."""

    starts: np.ndarray  # [R+1] first edge of every radial row
    receiver: np.ndarray  # [E] row where a message is summed
    sender: np.ndarray  # [E] row that sends it
    pair: np.ndarray  # [R] pair of every radial row
    table: np.ndarray  # [R] radial table of every radial row
    row: np.ndarray  # [E] radial row of every edge
    receiver_starts: np.ndarray  # [n+S+1]
    by_receiver: np.ndarray  # [E] edges in the order of receivers


@dataclass(frozen=True)
class _Forward:
    """What the backward pass of a layer needs."""

    features: Features  # before the layer
    senders: torch.Tensor  # rows
    coupled: torch.Tensor  # [P, Q]
    weights: np.ndarray  # [R, paths·C]
    slopes: np.ndarray  # [R, paths·C]
    density: tuple[np.ndarray, np.ndarray] | None  # value and slope [R]
    sent: np.ndarray | None  # [n+S]
    scale: np.ndarray  # [n] 1 / (1 + density)
    x: torch.Tensor  # rows, messages mixed
    to_scalars: torch.Tensor | None  # [n, C] gradient of the readout


class CompiledNetwork:
    """A frozen model on one layout, on a CPU."""

    def __init__(
        self,
        weights: Weights,
        frozen: Frozen,
        layout: Layout,
        sites: AlchemicalSites,
        repulsion: PairRepulsion | None,
    ):
        self.weights = weights
        self.repulsion = repulsion
        self.frozen = frozen
        self.layout = layout
        self.sites = sites
        n, self.n = layout.n_nodes, layout.n_nodes
        self.n_rows = n + layout.n_mixtures
        self.dtype = frozen.embedding.dtype
        self.precision = frozen.embedding.numpy().dtype
        self.embedded = frozen.embedding[torch.from_numpy(layout.element)].unsqueeze(1)
        self.mixture = layout.mixture
        self.row_of = layout.sender_of_atom()
        self.group_of = np.full(layout.n_atoms, -1)
        at_site = layout.site_of >= 0
        if layout.collapsed:
            self.group_of[at_site] = layout.group_of_site[layout.site_of[at_site]]
        self.mixture_of = np.full(n, -1)
        self.mixture_of[layout.split] = n + layout.mixture

    def gradients(
        self, pairs: Pairs, close: NodePairs | None, lam: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Σ λ_α R(h_(i,α)) of each structure [B] eV before scale, shift and E0; its gradients
        by the vectors of pairs [P, 3] and by λ [B, 1+k], of the sum over structures.

        lam: [B, 1+k], λ_0 = 1; close: node pairs that may repel each other, for a model with pair
        repulsion.
        """
        layout = self.layout
        lam_node = lam[layout.structure, layout.weight]
        edges = self._edges(pairs)
        vectors = np.ascontiguousarray(pairs.vectors)
        lengths = np.empty(len(vectors))
        monomials = torch.empty(len(vectors), len(self.weights.exponents), dtype=self.dtype)
        loops.geometry(vectors, self.weights.exponents, lengths, monomials.numpy())

        node_energy = np.zeros(self.n)
        features = {0: self.embedded}
        passed = []
        for layer in self.weights.layers:
            forward, features = self._forward(
                layer, edges, lengths, monomials, features, lam_node, node_energy
            )
            passed.append(forward)

        to_lengths = np.zeros(len(lengths))
        gradient = np.zeros(lam.shape)
        if close is not None:
            self._repel(close, lengths, lam, node_energy, to_lengths, gradient)
        to_monomials = torch.zeros_like(monomials)
        to_lam = node_energy.copy()  # [n] of every node's weight
        to_features: Features = {}
        for depth in range(len(passed) - 1, -1, -1):
            to_features = self._backward(
                self.weights.layers[depth],
                passed[depth],
                edges,
                monomials,
                to_features,
                lam_node,
                to_lengths,
                to_monomials,
                to_lam,
                species_only=depth == 0,
            )
        slope = np.empty_like(vectors)
        loops.geometry_slope(
            vectors, self.weights.exponents, lengths, to_lengths, to_monomials.numpy(), slope
        )
        energies = np.bincount(layout.structure, lam_node * node_energy, minlength=len(lam))
        place = layout.structure * lam.shape[1] + layout.weight
        gradient += np.bincount(place, to_lam, minlength=lam.size).reshape(lam.shape)
        return energies, slope, gradient

    def _repel(
        self,
        close: NodePairs,
        lengths: np.ndarray,
        lam: np.ndarray,
        node_energy: np.ndarray,
        to_lengths: np.ndarray,
        gradient: np.ndarray,
    ) -> None:
        """Adds the pair repulsion, its messages weighted by ω (eqs. 5, 6)."""
        assert self.repulsion is not None
        layout = self.layout
        number = np.array(self.frozen.numbers)[layout.element]
        value, slope = self.repulsion(lengths[close.pair], number[close.first], number[close.second])
        structure = layout.structure[close.first]
        for receiver, weight in ((close.second, close.forward), (close.first, close.backward)):
            omega = lam[structure, weight]
            weighted = lam[structure, layout.weight[receiver]]
            np.add.at(node_energy, receiver, omega * value)
            np.add.at(to_lengths, close.pair, weighted * omega * slope)
            np.add.at(gradient, (structure, weight), weighted * value)

    # --- edges ------------------------------------------------------------------------------

    def _edges(self, pairs: Pairs) -> _Edges:
        layout = self.layout
        if layout.collapsed:
            starts, receiver, sender = loops.edges_of_pairs(
                pairs.first, pairs.second, layout.node_of, self.row_of, self.group_of
            )
            pair = np.arange(len(pairs.first))
            table = np.zeros(len(pair), np.int64)
        else:
            rows = expand(layout, self.sites, pairs, np.arange(len(pairs.first)))
            pair = rows.pair
            starts = 2 * np.arange(len(pair) + 1)
            along = np.where(rows.forward > 0, self.mixture_of[rows.first], rows.first)
            back = np.where(rows.backward > 0, self.mixture_of[rows.second], rows.second)
            sender = np.stack([along, back], axis=1).reshape(-1)
            receiver = np.stack([rows.second, rows.first], axis=1).reshape(-1)
            table = self.weights.table_of[layout.element[rows.first], layout.element[rows.second]]
        row = np.repeat(np.arange(len(pair)), np.diff(starts))
        by_receiver = loops.group(receiver, self.n_rows)
        return _Edges(starts, receiver, sender, pair, table, row, *by_receiver)

    # --- forward ----------------------------------------------------------------------------

    def _forward(
        self,
        layer: LayerWeights,
        edges: _Edges,
        lengths: np.ndarray,
        monomials: torch.Tensor,
        features: Features,
        lam_node: np.ndarray,
        node_energy: np.ndarray,
    ) -> tuple[_Forward, Features]:
        n, frozen = self.n, layer.layer
        of_rows = lengths[edges.pair]
        shape = (len(of_rows), len(layer.paths) * frozen.channels)
        weights, slopes = np.empty(shape, self.precision), np.empty(shape, self.precision)
        layer.radial.fill(of_rows, edges.table, weights, slopes)
        coupled = monomials @ layer.angular
        senders = self._senders(layer, features, lam_node)
        paths = self._path_table(layer)
        total = sum((2 * l3 + 1) * count for l3, count in frozen.paths_to.items())
        sums = torch.zeros(total * self.n_rows, frozen.channels, dtype=self.dtype)
        loops.sum_messages(
            0,
            self.n_rows,
            edges.receiver_starts,
            edges.by_receiver,
            edges.row,
            edges.pair,
            edges.sender,
            weights,
            coupled.numpy(),
            senders.numpy(),
            paths,
            sums.numpy(),
        )
        x = self._mixed(layer, sums)
        density = sent = None
        scale = np.ones(n, self.precision)
        if layer.density is not None:
            density = self._density(layer, edges, of_rows)
            sent = np.ones(self.n_rows)
            sent[n:] = np.bincount(
                self.mixture, lam_node[self.layout.split], minlength=self.n_rows - n
            )
            around = np.empty(self.n_rows)
            node_loops.density(
                edges.starts, edges.receiver, edges.sender, density[0], sent, around
            )
            if self.layout.collapsed:
                around[self.layout.split] += around[n + self.mixture]
            scale = (1.0 / (1.0 + around[:n])).astype(self.precision)
        new = self._product(layer, x, scale, features)
        to_scalars = self._readout(layer, new[0][:, 0], lam_node, node_energy)
        passed = _Forward(
            features, senders, coupled, weights, slopes, density, sent, scale, x, to_scalars
        )
        return passed, new

    def _density(
        self, layer: LayerWeights, edges: _Edges, lengths: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        assert layer.density is not None
        value, slope = np.empty((len(lengths), 1)), np.empty((len(lengths), 1))
        layer.density.fill(lengths, edges.table, value, slope)
        return value[:, 0].copy(), slope[:, 0].copy()

    def _path_table(self, layer: LayerWeights) -> np.ndarray:
        paths = layer.paths.copy()
        paths[:, 6] = paths[:, 6] * self.n_rows + layer.places
        return paths

    def _senders(
        self, layer: LayerWeights, features: Features, lam_node: np.ndarray
    ) -> torch.Tensor:
        """u of nodes and mixtures, rows by degree."""
        up = layer.layer.up
        rows = torch.empty(len(up) ** 2 * self.n_rows, layer.layer.channels, dtype=self.dtype)
        factor = lam_node[self.layout.split].astype(self.precision)
        for degree, matrix in up.items():
            block = self._block(rows, degree, self.n_rows)
            _multiply(features[degree], matrix, block[: self.n])
            node_loops.add_to_shared(
                block.numpy(), self.layout.split, self.mixture, factor, self.n
            )
        return rows

    def _block(self, rows: torch.Tensor, degree: int, n: int) -> torch.Tensor:
        """[n, 2l+1, C] of degree l."""
        return rows[degree**2 * n : (degree + 1) ** 2 * n].view(n, 2 * degree + 1, -1)

    def _sum_blocks(self, layer: LayerWeights, sums: torch.Tensor) -> Features:
        """{l3: [n+S, 2l3+1, paths·C]} of the array of sums."""
        blocks, start = {}, 0
        for l3, count in layer.layer.paths_to.items():
            stop = start + (2 * l3 + 1) * count * self.n_rows
            blocks[l3] = sums[start:stop].view(self.n_rows, 2 * l3 + 1, -1)
            start = stop
        return blocks

    def _mixed(self, layer: LayerWeights, sums: torch.Tensor) -> torch.Tensor:
        """Messages of nodes after the linear maps, rows by degree."""
        degrees = len(layer.mix)
        channels = layer.mix[0].shape[2]
        x = torch.empty(degrees**2 * self.n, channels, dtype=self.dtype)
        for l3, block in self._sum_blocks(layer, sums).items():
            if self.layout.collapsed:
                node_loops.add_to_split(block.numpy(), self.layout.split, self.mixture, self.n)
            out = self._block(x, l3, self.n)
            for matrix, start, stop in self._ranges(layer.mix[l3]):
                _multiply(block[start:stop], matrix, out[start:stop])
        return x

    def _ranges(self, matrices: torch.Tensor) -> list[tuple[torch.Tensor, int, int]]:
        """Matrices [Z, …] with the nodes of their element, or the one [1, …] of all nodes."""
        if len(matrices) == 1:
            return [(matrices[0], 0, self.n)]
        ranges = self.layout.ranges
        return [(m, a, b) for m, (a, b) in zip(matrices, ranges, strict=True) if b > a]

    def _places(self, degrees: int) -> np.ndarray:
        rows = [
            (degree**2 * self.n + m, 2 * degree + 1)
            for degree in range(degrees)
            for m in range(2 * degree + 1)
        ]
        return np.array(rows)

    def _product(
        self, layer: LayerWeights, x: torch.Tensor, scale: np.ndarray, features: Features
    ) -> Features:
        value = torch.zeros(len(layer.layer.out) ** 2 * self.n, x.shape[1], dtype=self.dtype)
        node_loops.polynomial(
            0,
            self.n,
            self.layout.element,
            self._places(len(layer.mix)),
            scale,
            x.numpy(),
            layer.terms,
            layer.coefficients,
            value.numpy(),
        )
        new = {}
        for degree, matrix in layer.layer.out.items():
            block = self._block(value, degree, self.n)
            new[degree] = torch.empty(*block.shape[:2], matrix.shape[1], dtype=self.dtype)
            _multiply(block, matrix, new[degree])
            if layer.layer.skip is not None and degree in layer.layer.skip:
                for skip, start, stop in self._ranges(layer.layer.skip[degree]):
                    _add_product(features[degree][start:stop], skip, new[degree][start:stop])
        return new

    def _readout(
        self,
        layer: LayerWeights,
        scalars: torch.Tensor,
        lam_node: np.ndarray,
        node_energy: np.ndarray,
    ) -> torch.Tensor | None:
        """Adds to node_energy; Σ λ · its gradient [n, C]."""
        readout = layer.readout
        if readout is None:
            return None
        if readout.hidden is None:
            node_energy += scalars.numpy() @ readout.weights
            gradient = lam_node[:, None] * readout.weights
            return torch.from_numpy(gradient.astype(self.precision))
        hidden = scalars @ readout.hidden
        to_hidden = torch.empty_like(hidden)
        node_loops.readout(
            hidden.numpy(), readout.weights, lam_node, node_energy, to_hidden.numpy()
        )
        return to_hidden @ readout.hidden.T

    # --- backward ---------------------------------------------------------------------------

    def _backward(
        self,
        layer: LayerWeights,
        passed: _Forward,
        edges: _Edges,
        monomials: torch.Tensor,
        to_new: Features,
        lam_node: np.ndarray,
        to_lengths: np.ndarray,
        to_monomials: torch.Tensor,
        to_lam: np.ndarray,
        species_only: bool,
    ) -> Features:
        """From the gradient by the features after a layer to that by those before it."""
        n, split = self.n, self.layout.split
        if passed.to_scalars is not None:
            scalars = passed.to_scalars.unsqueeze(1)
            to_new[0] = to_new[0] + scalars if 0 in to_new else scalars
        to_features: Features = {}
        to_value = torch.zeros(
            len(layer.layer.out) ** 2 * n, passed.x.shape[1], dtype=self.dtype
        )
        for degree, g in to_new.items():
            _multiply(g, layer.layer.out[degree].T, self._block(to_value, degree, n))
            if layer.layer.skip is not None and degree in layer.layer.skip and not species_only:
                old = torch.empty_like(passed.features[degree])
                for skip, start, stop in self._ranges(layer.layer.skip[degree]):
                    _multiply(g[start:stop], skip.T, old[start:stop])
                to_features[degree] = old
        to_x = torch.empty_like(passed.x)
        to_scale = np.empty(n)
        node_loops.polynomial_slope(
            0,
            n,
            self.layout.element,
            self._places(len(layer.mix)),
            passed.scale,
            passed.x.numpy(),
            layer.terms,
            layer.coefficients,
            to_value.numpy(),
            to_x.numpy(),
            to_scale,
        )
        upstream = self._to_sums(layer, to_x)
        alive = np.ones(self.n_rows, np.bool_)
        alive[split] = lam_node[split] != 0.0
        to_coupled = torch.zeros_like(passed.coupled)
        to_senders = torch.zeros_like(passed.senders)
        loops.sum_messages_slope(
            0,
            len(edges.pair),
            edges.starts,
            edges.pair,
            edges.receiver,
            edges.sender,
            alive,
            n if species_only else 0,
            passed.weights,
            passed.slopes,
            passed.coupled.numpy(),
            passed.senders.numpy(),
            self._path_table(layer),
            upstream.numpy(),
            to_lengths,
            to_coupled.numpy(),
            to_senders.numpy(),
        )
        to_monomials.addmm_(to_coupled, layer.angular.T)
        if passed.density is not None:
            self._density_slope(passed, edges, to_scale, lam_node, to_lengths, to_lam)
        factor = lam_node[split].astype(self.precision)
        to_factor = np.zeros(len(split))
        for degree, matrix in layer.layer.up.items():
            block = self._block(passed.senders, degree, self.n_rows)
            to_block = self._block(to_senders, degree, self.n_rows)
            node_loops.mixture_slope(
                block.numpy(), to_block.numpy(), split, self.mixture, factor, n, to_factor
            )
            if species_only:
                continue
            if degree in to_features:
                _add_product(to_block[:n], matrix.T, to_features[degree])
            else:
                to_features[degree] = torch.empty_like(passed.features[degree])
                _multiply(to_block[:n], matrix.T, to_features[degree])
        to_lam[split] += to_factor
        return to_features

    def _to_sums(self, layer: LayerWeights, to_x: torch.Tensor) -> torch.Tensor:
        """The gradient by the array of sums, rows that sites share included."""
        total = sum((2 * l3 + 1) * count for l3, count in layer.layer.paths_to.items())
        rows = torch.empty(total * self.n_rows, layer.layer.channels, dtype=self.dtype)
        for l3, block in self._sum_blocks(layer, rows).items():
            from_x = self._block(to_x, l3, self.n)
            for matrix, start, stop in self._ranges(layer.mix[l3]):
                _multiply(from_x[start:stop], matrix.T, block[start:stop])
            if self.layout.collapsed:
                node_loops.add_to_shared(
                    block.numpy(),
                    self.layout.split,
                    self.mixture,
                    np.ones(len(self.mixture), self.precision),
                    self.n,
                )
            else:
                block[self.n :] = 0.0
        return rows

    def _density_slope(
        self,
        passed: _Forward,
        edges: _Edges,
        to_scale: np.ndarray,
        lam_node: np.ndarray,
        to_lengths: np.ndarray,
        to_lam: np.ndarray,
    ) -> None:
        assert passed.density is not None
        assert passed.sent is not None
        n, split = self.n, self.layout.split
        upstream = np.zeros(self.n_rows)
        upstream[:n] = -to_scale * passed.scale.astype(np.float64) ** 2
        if self.layout.collapsed:
            upstream[n:] = np.bincount(
                self.mixture, upstream[split], minlength=self.n_rows - n
            )
        to_sent = np.zeros(self.n_rows)
        node_loops.density_slope(
            edges.starts,
            edges.pair,
            edges.receiver,
            edges.sender,
            *passed.density,
            passed.sent,
            upstream,
            to_lengths,
            to_sent,
        )
        to_lam[split] += to_sent[n + self.mixture]


def _multiply(values: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> None:
    """out = values [n, 2l+1, C] @ matrix [C, C'], all contiguous."""
    flat = values.reshape(-1, values.shape[-1])
    torch.mm(flat, matrix, out=out.view(-1, out.shape[-1]))


def _add_product(values: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> None:
    """out += values [n, 2l+1, C] @ matrix [C, C']."""
    out.view(-1, out.shape[-1]).addmm_(values.reshape(-1, values.shape[-1]), matrix)
