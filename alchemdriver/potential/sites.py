"""Alchemical sites and the graph they make: nodes, edges and weights, for any model.

An ordinary atom is one node.  An alchemical site is one node per state that has an atom there;
the nodes of state a carry the weight λ_a.  Symbols of the paper and names here:

| paper            | here                                                                   |
|------------------|------------------------------------------------------------------------|
| (i, α)           | a node: ``node_atom`` = i, ``node_weight`` = α (0: ordinary, λ_0 = 1)  |
| Z_(i,α)          | ``node_number``                                                        |
| λ_α, α = 1 … k   | ``weights[α − 1]``, one per state                                      |
| ω                | λ of ``ExpandedEdges.weight``                                          |
| E = Σ λ_α E_(i,α)| eq. 7, computed by the backend                                         |

States that compete for the same sites form a *group*; the weights of different groups are
independent.  The paper has one group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ..errors import InputError, did_you_mean
from ..records import Transformation

__all__ = ["AlchemicalSites", "ExpandedEdges"]

Symbols = Sequence[str | None]  # of each atom; None: there is none
States = Sequence[Mapping[int, str]]  # of each state {site: element}


@dataclass(frozen=True)
class ExpandedEdges:
    """The directed edges of the alchemical graph, eq. 4, in the order of the original ones."""

    senders: np.ndarray  # (E',) node index
    receivers: np.ndarray  # (E',) node index
    origin: np.ndarray  # (E',) index of the original directed edge
    weight: np.ndarray  # (E',) α of ω = λ_α, eq. 5; 0 where ω = 1


@dataclass(frozen=True)
class AlchemicalSites:
    """Which atoms have which element in which state.  Build it with one of the class methods."""

    symbols: tuple[str | None, ...]  # [N] of ordinary atoms; None: removed, or a site
    states: tuple[Mapping[int, str], ...]  # [k] site index -> element; absent: nothing there
    groups: tuple[int, ...]  # [k] group of each state

    node_atom: np.ndarray = field(init=False, repr=False, compare=False)  # [n] original atom
    node_weight: np.ndarray = field(init=False, repr=False, compare=False)  # [n] α, 0: ordinary
    node_number: np.ndarray = field(init=False, repr=False, compare=False)  # [n] atomic number
    _node_of: np.ndarray = field(init=False, repr=False, compare=False)  # [N, 1+k] node or −1
    # over α of sender and receiver [1+k, 1+k]: is there an edge; is ω the sender's λ
    connected: np.ndarray = field(init=False, repr=False, compare=False)
    weighted: np.ndarray = field(init=False, repr=False, compare=False)

    # --- construction -----------------------------------------------------------------------

    @classmethod
    def from_states(
        cls,
        symbols: Sequence[str | None],
        states: Sequence[Mapping[int, str]],
        groups: Sequence[int] | None = None,
    ) -> AlchemicalSites:
        """Sites from *states*: ``states[a]`` maps a site's index to its element in state a.

        A site that is absent from a state is empty in it, so ``[{8: "Fe"}, {}]`` removes atom 8.
        Ordinary atoms keep ``symbols[i]``; where that is None there is no atom.  The symbol of a
        site is not looked at.  Without states this is the plain system.

        groups: one number per state.  By default states that share a site, directly or through
        others, form a group.

        Raises InputError for an index out of range, an unknown element, states that name no site
        at all, or groups that put two states of one site apart.
        """
        symbols = tuple(symbols)
        states = tuple(dict(state) for state in states)
        _check_states(symbols, states)
        if groups is None:
            groups = _connected_states(states)
        groups = tuple(int(g) for g in groups)
        _check_groups(states, groups)
        return cls(_blank_sites(symbols, states), states, groups)

    @classmethod
    def from_transformation(cls, transformation: Transformation) -> AlchemicalSites:
        """Two states in one group, initial then final; a removed atom is in the first only.

        Raises InputError if the transformation changes no atom: that system has no weights.
        """
        t = transformation
        if not t.changed:
            raise InputError("the transformation changes no atom: there is nothing to weight")
        initial = {i: t.initial[i] for i in t.changed}
        final = {i: s for i in t.changed if (s := t.final[i]) is not None}
        return cls.from_states(t.initial, [initial, final], groups=[0, 0])

    @classmethod
    def plain(cls, symbols: Sequence[str | None]) -> AlchemicalSites:
        """The ordinary system, without weights; None removes an atom."""
        return cls.from_states(symbols, [])

    def __post_init__(self) -> None:
        nodes = [(i, 0, s) for i, s in enumerate(self.symbols) if s is not None]
        for a, state in enumerate(self.states):
            nodes += [(i, a + 1, s) for i, s in state.items()]
        nodes.sort(key=lambda node: node[:2])
        atom = np.array([i for i, _, _ in nodes], dtype=np.int64)
        weight = np.array([a for _, a, _ in nodes], dtype=np.int64)
        number = np.array([atomic_numbers[s] for _, _, s in nodes], dtype=np.int64)
        node_of = np.full((self.n_atoms, self.n_weights + 1), -1, dtype=np.int64)
        node_of[atom, weight] = np.arange(len(nodes))
        connected, weighted = _edge_rules(self.groups)
        arrays = {
            "node_atom": atom,
            "node_weight": weight,
            "node_number": number,
            "_node_of": node_of,
            "connected": connected,
            "weighted": weighted,
        }
        for name, array in arrays.items():
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    # --- what there is ----------------------------------------------------------------------

    @property
    def n_atoms(self) -> int:
        """Number of rows of positions, removed atoms and sites included."""
        return len(self.symbols)

    @property
    def n_weights(self) -> int:
        """Number k of states, each with its weight."""
        return len(self.states)

    @property
    def n_nodes(self) -> int:
        return len(self.node_atom)

    @property
    def elements(self) -> frozenset[str]:
        """Symbols of all elements in any state."""
        return frozenset(chemical_symbols[z] for z in set(self.node_number.tolist()))

    # --- the graph --------------------------------------------------------------------------

    def expand_edges(self, senders: np.ndarray, receivers: np.ndarray) -> ExpandedEdges:
        """The alchemical graph of the directed edges senders (E,) → receivers (E,), atom indices.

        Eq. 4: two nodes are connected unless they belong to different states of one group.
        Eq. 5: ω = λ of the sender if the sender is alchemical and the receiver is not, or is of
        another group; else 1.
        """
        from_node = self._node_of[senders][:, :, None]  # [E, 1+k, 1]
        to_node = self._node_of[receivers][:, None, :]  # [E, 1, 1+k]
        exists = (from_node >= 0) & (to_node >= 0) & self.connected
        origin, a, b = np.nonzero(exists)
        return ExpandedEdges(
            senders=self._node_of[senders[origin], a],
            receivers=self._node_of[receivers[origin], b],
            origin=origin,
            weight=np.where(self.weighted[a, b], a, 0),
        )

    # --- limits -----------------------------------------------------------------------------

    def endpoint(self, chosen: Sequence[int]) -> tuple[str | None, ...]:
        """Symbols (N) of the plain system in which the states *chosen* have weight 1, others 0."""
        symbols = list(self.symbols)
        for a in chosen:
            for i, s in self.states[a].items():
                symbols[i] = s
        return tuple(symbols)

    def endpoints(self) -> list[tuple[int, ...]]:
        """Choices of one state per group in which every state occurs at least once."""
        members = [
            [a for a, g in enumerate(self.groups) if g == group]
            for group in sorted(set(self.groups))
        ]
        rounds = max((len(m) for m in members), default=0)
        return [tuple(m[min(r, len(m) - 1)] for m in members) for r in range(rounds)]

    def merged(self, chosen: Sequence[int]) -> AlchemicalSites:
        """The same weights and groups, every state being the *chosen* one of its group."""
        of_group = {self.groups[a]: self.states[a] for a in chosen}
        states = tuple(of_group[g] for g in self.groups)
        return AlchemicalSites(self.symbols, states, self.groups)


# --- rules ----------------------------------------------------------------------------------


def _edge_rules(groups: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tables (1+k, 1+k) over the α of sender and receiver: is there an edge; is ω the sender's λ.

    Between sites of different groups the receiver sees a mixture of the sender's states, as an
    ordinary atom does: all edges, each with the sender's weight.  Only so do the limits hold for
    every combination of weights.
    """
    k = len(groups)
    g = np.array(groups, dtype=np.int64)
    connected = np.ones((k + 1, k + 1), dtype=bool)
    weighted = np.zeros((k + 1, k + 1), dtype=bool)
    weighted[1:, 0] = True
    connected[1:, 1:] = (g[:, None] != g[None, :]) | np.eye(k, dtype=bool)
    weighted[1:, 1:] = g[:, None] != g[None, :]
    return connected, weighted


def _connected_states(states: Sequence[Mapping[int, str]]) -> list[int]:
    """Group of each state: connected components of "has a site in common", numbered from 0.

    A state without any site joins the first group, where it is the absence of the others.
    """
    groups = list(range(len(states)))
    first_with: dict[int, int] = {}
    for a, state in enumerate(states):
        for i in state:
            b = first_with.setdefault(i, a)
            if groups[a] != groups[b]:
                old, new = groups[a], groups[b]
                groups = [new if g == old else g for g in groups]
    nonempty = sorted({g for g, state in zip(groups, states, strict=True) if state})
    number = {g: n for n, g in enumerate(nonempty)}
    return [number.get(g, 0) for g in groups]


def _blank_sites(symbols: Symbols, states: States) -> tuple[str | None, ...]:
    sites = {i for state in states for i in state}
    return tuple(None if i in sites else s for i, s in enumerate(symbols))


# --- checks ---------------------------------------------------------------------------------


def _check_element(symbol: str, where: str) -> None:
    if symbol not in atomic_numbers or symbol == "X":
        raise InputError(
            f"{where}: '{symbol}' is not an element{did_you_mean(symbol, atomic_numbers)}"
        )


def _check_states(symbols: Symbols, states: States) -> None:
    if states and not any(states):
        raise InputError("states: none of them has a site; give at least one {site: element}")
    for a, state in enumerate(states):
        for i, s in state.items():
            if isinstance(i, bool) or not isinstance(i, (int, np.integer)):
                raise InputError(f"state {a}: expected a site index, got '{i}'")
            if not 0 <= i < len(symbols):
                raise InputError(
                    f"state {a}: site {i} is out of range, there are atoms 0 to {len(symbols) - 1}"
                )
            _check_element(s, f"state {a}, site {i}")
    for i, symbol in enumerate(_blank_sites(symbols, states)):
        if symbol is not None:
            _check_element(symbol, f"atom {i}")


def _check_groups(states: States, groups: Sequence[int]) -> None:
    if len(groups) != len(states):
        raise InputError(f"groups: expected one per state ({len(states)}), got {len(groups)}")
    group_of_site: dict[int, int] = {}
    for a, state in enumerate(states):
        for i in state:
            if group_of_site.setdefault(i, groups[a]) != groups[a]:
                raise InputError(
                    f"groups: site {i} is in states of groups {group_of_site[i]} and {groups[a]}; "
                    "states that share a site belong to one group"
                )
