"""What is fixed for a set of sites and a number of structures: nodes, senders, receivers.

A batch of B structures is one system of B·M atoms, M of them present in a structure.  Nodes are
sorted by element, so that whatever depends on the element works on contiguous ranges.

Messages are summed at *receivers* and sent by *senders*: the nodes, followed by *mixtures*.

|            | collapsed: edge features of the distance only | expanded: of both species as well |
|------------|-----------------------------------------------|-----------------------------------|
| mixture    | Σ_α λ_α h_(j,α) of a site j                   | λ_α h_(j,α) of a node (j, α)      |
| receiver   | an atom, for all its nodes                    | a node                            |
| besides    | edges within a state, :class:`GroupSites`     | –                                 |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...sites import AlchemicalSites

__all__ = ["GroupSites", "Layout"]


@dataclass(frozen=True)
class GroupSites:
    """The sites of one group; between two of them messages stay within a state."""

    sites: np.ndarray  # [s] site number
    nodes: np.ndarray  # [s, S] node of each site in each of the group's S states; −1: none
    kind: np.ndarray  # [s] sites of a kind have the same element in every state
    element: np.ndarray  # [kinds, S] element index of a kind in a state; −1: none

    @property
    def n_states(self) -> int:
        return int(self.nodes.shape[1])


class Layout:
    """Index arrays for *n_structures* copies of *sites*; elements are *numbers*, in this order."""

    def __init__(
        self,
        sites: AlchemicalSites,
        numbers: tuple[int, ...],
        n_structures: int,
        collapsed: bool,
    ):
        self.n_structures = n_structures
        self.collapsed = collapsed
        # atoms without a node are left out of everything
        self.present = np.unique(sites.node_atom)  # [M]
        n_present, n_each = len(self.present), sites.n_nodes
        atom_each = np.searchsorted(self.present, sites.node_atom)
        element_each = np.searchsorted(numbers, sites.node_number)

        copy = np.repeat(np.arange(n_structures), n_each)
        atom = np.tile(atom_each, n_structures) + copy * n_present
        weight = np.tile(sites.node_weight, n_structures)
        element = np.tile(element_each, n_structures)
        order = np.argsort(element, kind="stable")
        self.order = order  # [n] place of every node among those of the sites, copy after copy
        self.n_atoms = n_structures * n_present
        self.n_nodes = len(order)
        self.structure = copy[order]  # [n]
        self.atom = atom[order]  # [n]
        self.weight = weight[order]  # [n] α, 0: ordinary
        self.element = element[order]  # [n]
        bounds = np.searchsorted(self.element, np.arange(len(numbers) + 1))
        self.ranges = tuple(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        self.node_of = np.full((self.n_atoms, sites.n_weights + 1), -1)  # [a, 1+k]
        self.node_of[self.atom, self.weight] = np.arange(self.n_nodes)

        self.split = np.flatnonzero(self.weight > 0)  # nodes of sites
        site_atoms = np.unique(self.atom[self.split])
        self.site_of = np.full(self.n_atoms, -1)  # [a] site number, −1: ordinary
        self.site_of[site_atoms] = np.arange(len(site_atoms))
        if collapsed:
            self.mixture = self.site_of[self.atom[self.split]]  # of each of `split`
            self.n_mixtures = len(site_atoms)
            self.receiver = self.atom  # [n] row where a node's messages are summed
            self.n_receivers = self.n_atoms
        else:
            self.mixture = np.arange(len(self.split))
            self.n_mixtures = len(self.split)
            self.receiver = np.arange(self.n_nodes)
            self.n_receivers = self.n_nodes
        self.groups = self._groups(sites, site_atoms) if collapsed else ()
        self.group_of_site = np.full(len(site_atoms), -1)
        self.place_in_group = np.full(len(site_atoms), -1)
        for g, group in enumerate(self.groups):
            self.group_of_site[group.sites] = g
            self.place_in_group[group.sites] = np.arange(len(group.sites))

    def sender_of_atom(self) -> np.ndarray:
        """[a] row of an atom among the senders of a collapsed layout."""
        ordinary = self.node_of[:, 0]
        return np.where(self.site_of < 0, ordinary, self.n_nodes + self.site_of)

    def _groups(self, sites: AlchemicalSites, site_atoms: np.ndarray) -> tuple[GroupSites, ...]:
        made = []
        for group in sorted(set(sites.groups)):
            states = [a + 1 for a, g in enumerate(sites.groups) if g == group and sites.states[a]]
            nodes = self.node_of[site_atoms][:, states]  # [all sites, S]
            mine = np.flatnonzero((nodes >= 0).any(axis=1))
            if len(mine) == 0:
                continue
            nodes = nodes[mine]
            element = np.where(nodes >= 0, self.element[nodes], -1)
            kinds, kind = np.unique(element, axis=0, return_inverse=True)
            made.append(GroupSites(mine, nodes, kind.reshape(-1), kinds))
        return tuple(made)
