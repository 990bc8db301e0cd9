"""The forward pass: from the vectors of the pairs and λ to the energy of each structure.

Shapes: n nodes, r receivers, R rows of radial weights, C channels, B structures.
Features are {ell: [n, 2l+1, C]}.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from mace.modules import MACE

from ...precision import default_dtype
from . import cpu_kernels, torch_kernels
from .frozen import Frozen, Layer
from .graph import Graph, GroupEdges, NodePairs
from .layout import Layout
from .neighbours import Neighbours

__all__ = ["Network"]

Features = dict[int, torch.Tensor]


class Network:
    """A frozen model on one layout.

    model: the stock model whose radial embedding, harmonics, radial networks, readouts and pair
    repulsion are called as they are; head: index of the readouts' column.
    """

    def __init__(self, model: MACE, frozen: Frozen, layout: Layout, head: int):
        self.model = model
        self.frozen = frozen
        self.layout = layout
        self.head = head
        on_cpu = frozen.embedding.device.type == "cpu"
        self.kernels = cpu_kernels if on_cpu else torch_kernels
        self._element = self._index(layout.element)
        self._structure = self._index(layout.structure)
        self._weight = self._index(layout.weight)
        self._receiver = self._index(layout.receiver)
        self._split = self._index(layout.split)
        self._mixture = self._index(layout.mixture)
        degree = np.repeat(np.arange(20), 2 * np.arange(20) + 1)  # of every component of Y
        self._parity = self._index(1 - 2 * (degree % 2)).to(frozen.embedding.dtype)

    def _index(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.frozen.embedding.device)

    def energies(
        self,
        graph: Graph,
        close: NodePairs | None,
        vectors: torch.Tensor,
        lam: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Σ λ_α R(h_(i,α)) of each structure [B], eV in float64, before scale, shift and E0; R [n].

        vectors: [P, 3] Å from first to second atom; lam: [B, 1+k] in float64, λ_0 = 1; close: node
        pairs that may repel each other, for a model with pair repulsion.
        """
        lam_node = lam[self._structure, self._weight]  # [n], float64
        lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)  # [P, 1]
        node_energy = self._node_energy(graph, vectors, lengths, lam_node).double()
        if close is not None:
            node_energy = node_energy + self._repulsion(close, lengths, lam)
        energies = lam.new_zeros(len(lam))
        return energies.index_add(0, self._structure, lam_node * node_energy), node_energy  # eq. 7

    def _node_energy(
        self, graph: Graph, vectors: torch.Tensor, lengths: torch.Tensor, lam_node: torch.Tensor
    ) -> torch.Tensor:
        """R(h_(i,α)) of every node [n]; the layers of eqs. 6 and 14b."""
        basis, cutoff = self._radial_basis(graph, lengths)
        along = self.model.spherical_harmonics(vectors)  # [P, lm]
        harmonics = torch.cat([along, along * self._parity[: along.shape[1]]])
        lam_split = lam_node[self._split].to(vectors.dtype)

        features = {0: self.frozen.embedding[self._element].unsqueeze(1)}
        energies: list[torch.Tensor] = []
        for depth, layer in enumerate(self.frozen.layers):
            weights = layer.radial(basis)  # [R, slots·C]
            weights = weights if cutoff is None else weights * cutoff
            coupled = harmonics @ layer.coupling  # [2P, Q]
            up = torch.cat([_matmul(features[ell], m) for ell, m in layer.up.items()], dim=1)
            messages = self._messages(
                layer, graph, weights, coupled, up, lam_split, species_only=depth == 0
            )
            if layer.density is not None:
                density = torch.tanh(layer.density(basis) ** 2)  # [R, 1]
                density = density if cutoff is None else density * cutoff
                around = self._density(graph, density[:, 0], lam_split) + 1.0
                messages = {ell: m / around.view(-1, 1, 1) for ell, m in messages.items()}
            if layer.select is not None:
                messages = {
                    ell: self._by_element(m, layer.select[ell]) for ell, m in messages.items()
                }
            features = self._product(layer, messages, features)
            if layer.readout is not None:
                energies.append(self._readout(layer.readout, features))
        return sum(energies[1:], start=energies[0])

    # --- edges ------------------------------------------------------------------------------

    def _radial_basis(
        self, graph: Graph, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Radial basis [R, nb] and, where it is apart, cutoff [R, 1]."""
        attributes = ends = None
        if graph.rows is not None:
            lengths = lengths.index_select(0, self._index(graph.rows.pair))
            ends = torch.stack(
                [
                    self._element[self._index(graph.rows.first)],
                    self._element[self._index(graph.rows.second)],
                ]
            )
            attributes = self.frozen.attributes
        basis, cutoff = self.model.radial_embedding(
            lengths, attributes, ends, self.model.atomic_numbers
        )
        return basis, cutoff

    def _repulsion(
        self, close: NodePairs, lengths: torch.Tensor, lam: torch.Tensor
    ) -> torch.Tensor:
        """ZBL energy of every node [n], float64, its edges weighted by ω (eqs. 5, 6).

        mace's module sums over the edges of a receiver; giving every edge a receiver of its own
        returns them one by one.
        """
        pair = self._index(close.pair)
        first, second = self._index(close.first), self._index(close.second)
        n = len(pair)
        attributes = self.frozen.attributes[self._element[torch.cat([first, second])]]
        edge = torch.arange(n, device=pair.device)
        with default_dtype(lengths.dtype):  # products of numbers and integer tensors take it
            repulsion: torch.Tensor = self.model.pair_repulsion_fn(
                lengths.index_select(0, pair),
                attributes,
                torch.stack([edge, edge + n]),
                self.model.atomic_numbers,
            )[n:].double()
        structure = self._structure[first]
        energy = lam.new_zeros(self.layout.n_nodes)
        energy = energy.index_add(0, second, repulsion * lam[structure, self._index(close.forward)])
        return energy.index_add(0, first, repulsion * lam[structure, self._index(close.backward)])

    # --- messages ---------------------------------------------------------------------------

    def _messages(
        self,
        layer: Layer,
        graph: Graph,
        weights: torch.Tensor,
        coupled: torch.Tensor,
        up: torch.Tensor,
        lam_split: torch.Tensor,
        species_only: bool,
    ) -> Features:
        """Σ over neighbours of ω R(r) Y(r) h of every node, already mixed by ``layer.down``.

        up: [n, Σ 2l1+1, C], what the nodes send.
        """
        senders = up
        if self.layout.n_mixtures:
            senders = torch.cat([up, self._mixtures(up, lam_split.view(-1, 1, 1))])
        sums = self._sum(weights, coupled, senders, graph.main, layer)
        messages = {
            l3: _matmul(rows, layer.down[l3]).index_select(0, self._receiver)
            for l3, rows in sums.items()
        }
        for group in graph.groups:
            flat = group.sites.nodes.reshape(-1)
            # found on the CPU, which need not wait for the device to count them
            there, nodes = self._index(np.flatnonzero(flat >= 0)), self._index(flat[flat >= 0])
            parts: Iterable[Features]
            if species_only:
                parts = self._species_messages(layer, group, weights, coupled)
            else:
                parts = [self._state_messages(layer, group, weights, coupled, up)]
            for rows in parts:
                for l3, values in rows.items():
                    mixed = _matmul(values, layer.down[l3]).flatten(0, 1)  # [s·S, 2l3+1, C]
                    messages[l3] = messages[l3].index_add(0, nodes, mixed.index_select(0, there))
        return messages

    def _sum(
        self,
        weights: torch.Tensor,
        coupled: torch.Tensor,
        senders: torch.Tensor | None,
        edges: Neighbours,
        layer: Layer,
    ) -> Features:
        """{l3: [receivers, 2l3+1, paths to l3 · S·C]}"""
        sums = self.kernels.NeighbourSum.apply(weights, coupled, senders, edges, layer)
        return dict(zip(layer.paths_to, sums, strict=True))

    def _mixtures(self, values: torch.Tensor, lam_split: torch.Tensor) -> torch.Tensor:
        """Σ_α λ_α values over the nodes of each mixture: [mixtures, …]."""
        mixed = values.new_zeros(self.layout.n_mixtures, *values.shape[1:])
        return mixed.index_add(0, self._mixture, lam_split * values.index_select(0, self._split))

    def _state_messages(
        self,
        layer: Layer,
        group: GroupEdges,
        weights: torch.Tensor,
        coupled: torch.Tensor,
        up: torch.Tensor,
    ) -> Features:
        """Messages within the S states of a group of s sites, their features side by side.

        Returns {l3: [s, S, 2l3+1, paths·C]}.
        """
        nodes = self._index(group.sites.nodes)
        there = (nodes >= 0).to(weights.dtype)[:, :, None, None]
        senders = (up[nodes.clamp(min=0)] * there).transpose(1, 2).flatten(2)  # [s, lm, S·C]
        sums = self._sum(weights, coupled, senders, group.edges, layer)
        shape = (group.sites.n_states, layer.channels)
        return {
            l3: s.view(len(s), 2 * l3 + 1, -1, *shape).permute(0, 3, 1, 2, 4).flatten(3)
            for l3, s in sums.items()
        }

    def _species_messages(
        self, layer: Layer, group: GroupEdges, weights: torch.Tensor, coupled: torch.Tensor
    ) -> Iterable[Features]:
        """The same in the first layer, whose features are those of the species alone.

        Sites of a kind send the same, so their edges are summed once for all states and multiplied
        by the features afterwards.
        """
        of_element = self.frozen.embedding @ layer.up[0]  # [Z, C]
        for kind, edges in group.by_kind:
            element = self._index(group.sites.element[kind])  # [S]
            sent = of_element[element.clamp(min=0)] * (element >= 0).unsqueeze(1)  # [S, C]
            yield {
                l3: (
                    s.view(len(s), 1, 2 * l3 + 1, -1, layer.channels)
                    * sent.view(1, -1, 1, 1, layer.channels)
                ).flatten(3)
                for l3, s in self._sum(weights, coupled, None, edges, layer).items()
            }

    def _density(
        self, graph: Graph, density: torch.Tensor, lam_split: torch.Tensor
    ) -> torch.Tensor:
        """Σ over neighbours of ω d(r) of every node [n]; density: [R]."""
        ones = density.new_ones(self.layout.n_nodes)
        sent = torch.cat([ones, self._mixtures(ones, lam_split)])
        around = self._density_sum(density, sent.unsqueeze(1), graph.main)[:, 0]
        around = around.index_select(0, self._receiver)
        for group in graph.groups:
            flat = group.sites.nodes.reshape(-1)
            there, nodes = self._index(np.flatnonzero(flat >= 0)), self._index(flat[flat >= 0])
            present = self._index(group.sites.nodes >= 0).to(density.dtype)
            within = self._density_sum(density, present, group.edges).flatten()
            around = around.index_add(0, nodes, within.index_select(0, there))
        return around

    def _density_sum(
        self, density: torch.Tensor, sent: torch.Tensor, edges: Neighbours
    ) -> torch.Tensor:
        """Σ over edges of density [R] times sent [senders, S]: [receivers, S]."""
        radial, sender = self._index(edges.radial), self._index(edges.sender)
        values = density.index_select(0, radial).unsqueeze(1) * sent.index_select(0, sender)
        summed = values.new_zeros(edges.n_receivers, sent.shape[1])
        return summed.index_add(0, self._index(edges.receiver), values)

    # --- nodes ------------------------------------------------------------------------------

    def _product(self, layer: Layer, messages: Features, features: Features) -> Features:
        """The many-body product with its residual; new features of every node."""
        x = torch.cat([messages[ell] for ell in sorted(messages)], dim=1)  # [n, D, C]
        new = {}
        for p in layer.polynomials:
            value = self.kernels.SymmetricPolynomial.apply(x, p, self.layout.ranges)  # [n, 2l+1, C]
            new[p.degree] = _matmul(value, layer.out[p.degree])
            if layer.skip is not None and p.degree in layer.skip:
                new[p.degree] = new[p.degree] + self._by_element(
                    features[p.degree], layer.skip[p.degree]
                )
        return new

    def _by_element(self, values: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        parts = [
            _matmul(values[start:stop], matrices[z])
            for z, (start, stop) in enumerate(self.layout.ranges)
        ]
        return torch.cat(parts)

    def _readout(self, readout: torch.nn.Module, features: Features) -> torch.Tensor:
        flat = torch.cat(
            [features[ell].transpose(1, 2).flatten(1) for ell in sorted(features)], dim=1
        )
        heads = torch.full((len(flat),), self.head, device=flat.device)
        energies: torch.Tensor = readout(flat, heads)
        return energies[:, self.head]


def _matmul(values: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """values [..., C] @ matrix [C, C'] as one product, not as a batch of small ones."""
    return (values.reshape(-1, values.shape[-1]) @ matrix).view(*values.shape[:-1], -1)
