"""MACE as an alchemical potential, re-associated for frozen weights.

The same E(x, λ) as ``MacePotential``, summed in another order;
docs/evaluator.md derives every step and has the table of symbols.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase.data import atomic_numbers

from ....records import PotentialEvaluation
from ...sites import AlchemicalSites
from ..base import Potential, check_arguments, require_finite
from .compiled import CompiledNetwork, NotCompiled, PairRepulsion, Weights, read_weights
from .frozen import freeze
from .graph import NodePairs, build_graph, expand
from .layout import Layout
from .neighbours import Pairs, find_pairs
from .network import Network
from .support import distance_only

if TYPE_CHECKING:
    from ..mace import MaceBackend

__all__ = ["FastMacePotential"]

log = logging.getLogger(__name__)

_MOST_NETWORKS = 4  # numbers of structures in a batch that are kept


class FastMacePotential(Potential):
    """E(x, cell, λ) of one set of sites, for a model that ``support.reason_against`` lets pass.

    sites: of at least one node.
    backend: the ``MaceBackend`` whose frozen model, head, scale
    and constants are used.
    """

    def __init__(self, backend: MaceBackend, sites: AlchemicalSites):
        self.backend = backend
        self.sites = sites
        self._constant = backend.constant_energies(sites)  # [1+k] eV
        self._constant_of_nodes = backend.node_constants(sites)  # [n] eV
        numbers = tuple(sorted(atomic_numbers[s] for s in sites.elements))
        self._frozen = freeze(backend.model, numbers)
        # by the number of structures, last used at the end
        self._networks: dict[int, Network | CompiledNetwork] = {}
        self._reach = 0.0  # Å, of the pair repulsion
        self._weights: Weights | None = None
        self._repulsion: PairRepulsion | None = None
        if backend.device.type == "cpu":
            try:
                self._weights = read_weights(backend.model, self._frozen, backend.head)
            except NotCompiled as reason:
                log.info("model %s: differentiated by torch: %s", backend.name, reason)
        if hasattr(backend.model, "pair_repulsion_fn"):
            self._repulsion = PairRepulsion(backend.model.pair_repulsion_fn)
            radii = backend.model.pair_repulsion_fn.covalent_radii[list(numbers)]
            self._reach = 2.0 * float(radii.max())

    def evaluate(
        self, positions: np.ndarray, cell: np.ndarray, pbc: Sequence[bool], weights: np.ndarray
    ) -> PotentialEvaluation:
        """See ``Potential``."""
        positions, cell, weights = check_arguments(
            self.backend.name, self.sites, positions, cell, weights
        )
        return self._evaluate(positions[None], cell[None], pbc, weights)[0]

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, pbc: Sequence[bool], weights: np.ndarray
    ) -> list[PotentialEvaluation]:
        """See ``Potential``; all structures go in one pass."""
        checked = [
            check_arguments(self.backend.name, self.sites, x, cell, weights)
            for x, cell in zip(positions, cells, strict=True)
        ]
        if not checked:
            return []
        x, h, lam = zip(*checked, strict=True)
        return self._evaluate(np.stack(x), np.stack(h), pbc, lam[0])

    def _evaluate(
        self, positions: np.ndarray, cells: np.ndarray, pbc: Sequence[bool], weights: np.ndarray
    ) -> list[PotentialEvaluation]:
        """B structures in one forward and one backward pass.

        The leaves are the vectors r of the pairs, from first to second atom, and λ of each
        structure.  With g = ∂E/∂r: F_first = Σ g, F_second = −Σ g, virial = −Σ r ⊗ g, in float64.
        """
        n_structures = len(positions)
        network = self._network(n_structures)
        layout = network.layout
        pairs = find_pairs(positions[:, layout.present], cells, pbc, self.backend.cutoff)
        weights = np.concatenate([[1.0], weights])
        lam = np.tile(weights, (n_structures, 1))
        close = self._close(layout, pairs)
        if isinstance(network, CompiledNetwork):
            with torch.inference_mode():
                energies, slope, gradients, sorted_nodes = network.gradients(pairs, close, lam)
        else:
            energies, slope, gradients, sorted_nodes = self._by_torch(network, pairs, close, lam)
        energies = energies * self.backend.scale + self._constant @ weights
        slope = slope * self.backend.scale  # [P, 3] eV/Å
        gradients = gradients[:, 1:] * self.backend.scale + self._constant[1:]
        of_nodes = np.empty(layout.n_nodes)
        of_nodes[layout.order] = sorted_nodes * self.backend.scale
        node_energies = of_nodes.reshape(n_structures, -1) + self._constant_of_nodes
        forces = np.zeros((n_structures, self.sites.n_atoms, 3))
        on_present = np.stack([_forces(pairs, g, layout.n_atoms) for g in slope.T], axis=-1)
        forces[:, layout.present] = on_present.reshape(n_structures, -1, 3)
        found = []
        for b in range(n_structures):
            mine = slice(pairs.bounds[b], pairs.bounds[b + 1])
            virial = -pairs.vectors[mine].T @ slope[mine]
            virial = 0.5 * (virial + virial.T)
            found.append(
                PotentialEvaluation(
                    float(energies[b]), forces[b], virial, gradients[b], node_energies[b]
                )
            )
            require_finite(self.backend.name, found[-1])
        return found

    def _by_torch(
        self, network: Network, pairs: Pairs, close: NodePairs | None, lam: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What :meth:`CompiledNetwork.gradients` returns, by autograd."""
        weights = self._tensor(lam, torch.float64).requires_grad_()
        vectors = self._tensor(pairs.vectors, self.backend.torch_dtype).requires_grad_()
        graph = build_graph(network.layout, self.sites, pairs)
        energy, of_nodes = network.energies(graph, close, vectors, weights)
        slope, gradient = torch.autograd.grad(
            energy.sum(), [vectors, weights], materialize_grads=True
        )
        tensors = (energy, slope, gradient, of_nodes)
        found = (t.detach().cpu().numpy().astype(np.float64) for t in tensors)
        energies, slopes, gradients, nodes = found
        return energies, slopes, gradients, nodes

    def __getstate__(self) -> dict[str, object]:
        """To be pickled: networks follow from the rest."""
        return self.__dict__ | {"_networks": {}}

    def _network(self, n_structures: int) -> Network | CompiledNetwork:
        network = self._networks.pop(n_structures, None)
        if network is None:
            layout = Layout(
                self.sites, self._frozen.numbers, n_structures, distance_only(self.backend.model)
            )
            if self._weights is None:
                network = Network(self.backend.model, self._frozen, layout, self.backend.head)
            else:
                network = CompiledNetwork(
                    self._weights, self._frozen, layout, self.sites, self._repulsion
                )
        self._networks[n_structures] = network
        if len(self._networks) > _MOST_NETWORKS:
            del self._networks[next(iter(self._networks))]
        return network

    def _close(self, layout: Layout, pairs: Pairs) -> NodePairs | None:
        if not self._reach:
            return None
        near = np.flatnonzero((pairs.vectors**2).sum(axis=1) < self._reach**2)
        return expand(layout, self.sites, pairs, near)

    def _tensor(self, values: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(values, dtype=dtype, device=self.backend.device)


def _forces(pairs: Pairs, slope: np.ndarray, n_atoms: int) -> np.ndarray:
    """One component (atoms,) of the forces from ∂E/∂r (P,), always added in the same order."""
    pulled = np.bincount(pairs.first, slope, minlength=n_atoms)
    return pulled - np.bincount(pairs.second, slope, minlength=n_atoms)
