"""Energy and its gradients on a CPU: layers forward, then backward, over the same arrays.

docs/evaluator.md derives them.  Shapes: n nodes, S rows that the nodes of a site share (of sums
and of what is sent), R radial rows, P pairs, C channels, B structures.
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from ....sites import AlchemicalSites
from ..frozen import Frozen
from ..graph import NodePairs, expand
from ..layout import Layout
from ..neighbours import Pairs
from . import loops
from .layer import CompiledLayer, Edges, State
from .repulsion import PairRepulsion
from .scratch import Scratch
from .weights import Weights

__all__ = ["CompiledNetwork"]

log = logging.getLogger(__name__)


class CompiledNetwork:
    """A frozen model on one layout."""

    def __init__(
        self,
        weights: Weights,
        frozen: Frozen,
        layout: Layout,
        sites: AlchemicalSites,
        repulsion: PairRepulsion | None,
    ):
        self.weights = weights
        self.layout = layout
        self.sites = sites
        self.repulsion = repulsion
        self._n_rows = layout.n_nodes + layout.n_mixtures
        self._numbers = np.array(frozen.numbers)[layout.element]
        self._precision = frozen.embedding.numpy().dtype
        self._scratch = Scratch()
        features = {0: frozen.embedding[torch.from_numpy(layout.element)].unsqueeze(1)}
        self._layers: list[CompiledLayer] = []
        for depth, of_layer in enumerate(weights.layers):
            before = self._layers[-1] if self._layers else None
            layer = CompiledLayer(
                of_layer, layout, features, self._scratch, str(depth), before is None
            )
            layer.connect(before)
            features = layer.features
            self._layers.append(layer)
        self._row_of = layout.sender_of_atom()
        self._group_of = np.full(layout.n_atoms, -1)
        if layout.collapsed:
            at_site = layout.site_of >= 0
            self._group_of[at_site] = layout.group_of_site[layout.site_of[at_site]]
        self._mixture_of = np.full(layout.n_nodes, -1)
        self._mixture_of[layout.split] = layout.n_nodes + layout.mixture

    def gradients(
        self, pairs: Pairs, close: NodePairs | None, lam: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Σ λ_α R(h_(i,α)) of each structure [B], eV, before scale, shift and E0, with its
        gradients by the vectors of the pairs [P, 3] and by λ [B, 1+k]; R(h_(i,α)) [n].

        lam: [B, 1+k], λ_0 = 1; close: node pairs that may repel each other, for a model with pair
        repulsion.
        """
        layout, weights = self.layout, self.weights
        start, made = time.perf_counter(), _compilations()
        vectors = np.ascontiguousarray(pairs.vectors)
        lengths = np.empty(len(vectors))
        shape = (len(vectors), len(weights.exponents))
        monomials = self._scratch.take("monomials", shape, self._precision)
        to_monomials = self._scratch.take("to monomials", shape, self._precision)
        to_monomials[:] = 0
        loops.geometry(vectors, weights.exponents, lengths, monomials)
        edges = self._edges(pairs)
        of_rows = lengths if layout.collapsed else lengths[edges.pair]
        lam_node = lam[layout.structure, layout.weight]
        alive = np.ones(self._n_rows, np.bool_)
        alive[layout.split] = lam_node[layout.split] != 0.0
        state = State(
            edges,
            of_rows,
            np.argsort(of_rows, kind="stable"),
            torch.from_numpy(monomials),
            lam_node,
            lam_node[layout.split].astype(self._precision),
            alive,
            np.zeros(layout.n_nodes),
            np.zeros(len(lengths)),
            torch.from_numpy(to_monomials),
            np.zeros(len(layout.split)),
        )
        for layer in self._layers:
            layer.forward(state)
        gradient = np.zeros(lam.shape)
        if close is not None:
            self._repel(close, lengths, lam, state, gradient)
        for layer in reversed(self._layers):
            layer.backward(state)
        slope = np.empty_like(vectors)
        loops.geometry_slope(
            vectors, weights.exponents, lengths, state.to_lengths, to_monomials, slope
        )
        if _compilations() > made:
            log.info(
                "compiled the evaluator's loops: %.1f s, once for an installation and precision",
                time.perf_counter() - start,
            )
        to_lam = state.energy.copy()
        to_lam[layout.split] += state.to_lam_split
        place = layout.structure * lam.shape[1] + layout.weight
        gradient += np.bincount(place, to_lam, minlength=lam.size).reshape(lam.shape)
        energies = np.bincount(layout.structure, lam_node * state.energy, minlength=len(lam))
        return energies, slope, gradient, state.energy

    def _edges(self, pairs: Pairs) -> Edges:
        layout = self.layout
        if layout.collapsed:
            starts, receiver, sender = loops.edges_of_pairs(
                pairs.first, pairs.second, layout.node_of, self._row_of, self._group_of
            )
            pair = np.arange(len(pairs.first))
            table = np.zeros(len(pair), np.int64)
        else:
            rows = expand(layout, self.sites, pairs, np.arange(len(pairs.first)))
            pair = rows.pair
            starts = 2 * np.arange(len(pair) + 1)
            along = np.where(rows.forward > 0, self._mixture_of[rows.first], rows.first)
            back = np.where(rows.backward > 0, self._mixture_of[rows.second], rows.second)
            sender = np.stack([along, back], axis=1).reshape(-1)
            receiver = np.stack([rows.second, rows.first], axis=1).reshape(-1)
            table = self.weights.table_of[layout.element[rows.first], layout.element[rows.second]]
        row = np.repeat(np.arange(len(pair)), np.diff(starts))
        by_receiver = loops.group(receiver, self._n_rows)
        first_row = pair if layout.collapsed else np.searchsorted(pair, np.arange(len(pairs.first)))
        first_row = np.append(first_row, len(pair))
        return Edges(starts, receiver, sender, pair, first_row, table, row, *by_receiver)

    def _repel(
        self,
        close: NodePairs,
        lengths: np.ndarray,
        lam: np.ndarray,
        state: State,
        gradient: np.ndarray,
    ) -> None:
        """Adds the pair repulsion, its messages weighted by ω (eqs. 5, 6)."""
        assert self.repulsion is not None
        first, second = self._numbers[close.first], self._numbers[close.second]
        value, slope = self.repulsion(lengths[close.pair], first, second)
        structure = self.layout.structure[close.first]
        for receiver, weight in ((close.second, close.forward), (close.first, close.backward)):
            omega, weighted = lam[structure, weight], state.lam[receiver]
            np.add.at(state.energy, receiver, omega * value)
            np.add.at(state.to_lengths, close.pair, weighted * omega * slope)
            np.add.at(gradient, (structure, weight), weighted * value)


def _compilations() -> int:
    """How often the largest loop was compiled, rather than read from where it is kept."""
    return int(sum(loops.sum_messages_slope.stats.cache_misses.values()))
