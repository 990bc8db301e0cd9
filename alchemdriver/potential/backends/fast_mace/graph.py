"""Which radial weights, harmonics and senders meet at which receiver, for given positions.

Made anew for every evaluation: the result must not depend on what was evaluated before, and on a
CPU the list for a margin around the cutoff costs more than it saves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...sites import AlchemicalSites
from .layout import GroupSites, Layout
from .neighbours import Neighbours, Pairs

__all__ = ["Graph", "GroupEdges", "NodePairs", "build_graph", "expand"]


@dataclass(frozen=True)
class NodePairs:
    """The alchemical graph (eq. 4) of some pairs, one row for both directions of an edge."""

    pair: np.ndarray  # [R] index of the pair
    first: np.ndarray  # [R] node of its first atom
    second: np.ndarray  # [R] node of its second atom
    forward: np.ndarray  # [R] α of ω = λ_α on first -> second, eq. 5; 0 where ω = 1
    backward: np.ndarray  # [R] the same on second -> first


@dataclass(frozen=True)
class GroupEdges:
    """Edges between the sites of one group, the same in every state."""

    sites: GroupSites
    edges: Neighbours  # receivers and senders: places among the sites
    by_kind: tuple[tuple[int, Neighbours], ...]  # the same, by the kind of the sender


@dataclass(frozen=True)
class Graph:
    rows: NodePairs | None  # the rows of the radial table; None: one for each pair
    main: Neighbours
    groups: tuple[GroupEdges, ...]


def build_graph(layout: Layout, sites: AlchemicalSites, pairs: Pairs) -> Graph:
    """Graph of *pairs* (atoms of *layout*), collapsed or expanded as the layout says."""
    if layout.collapsed:
        return Graph(None, *_collapsed(layout, pairs))
    rows = expand(layout, sites, pairs, np.arange(len(pairs.first)))
    return Graph(rows, _expanded(layout, pairs, rows), ())


def expand(layout: Layout, sites: AlchemicalSites, pairs: Pairs, chosen: np.ndarray) -> NodePairs:
    """The nodes at both ends of the *chosen* pairs, for every two states that see each other."""
    first = layout.node_of[pairs.first[chosen]][:, :, None]  # [p, 1+k, 1]
    second = layout.node_of[pairs.second[chosen]][:, None, :]  # [p, 1, 1+k]
    origin, a, b = np.nonzero((first >= 0) & (second >= 0) & sites.connected)
    pair = chosen[origin]
    return NodePairs(
        pair=pair,
        first=layout.node_of[pairs.first[pair], a],
        second=layout.node_of[pairs.second[pair], b],
        forward=np.where(sites.weighted[a, b], a, 0),
        backward=np.where(sites.weighted[b, a], b, 0),
    )


def _collapsed(layout: Layout, pairs: Pairs) -> tuple[Neighbours, tuple[GroupEdges, ...]]:
    """One directed edge for each ordinary one; those within a group apart."""
    n = len(pairs.first)
    sender = np.concatenate([pairs.first, pairs.second])
    receiver = np.concatenate([pairs.second, pairs.first])
    edge = np.arange(2 * n)
    pair = edge % max(n, 1)
    from_site, to_site = layout.site_of[sender], layout.site_of[receiver]
    group = np.full(2 * n, -1)
    both = np.flatnonzero((from_site >= 0) & (to_site >= 0))
    if len(both):
        of_sender = layout.group_of_site[from_site[both]]
        same = of_sender == layout.group_of_site[to_site[both]]
        group[both[same]] = of_sender[same]
    sender_row = layout.sender_of_atom()[sender]
    mixed = np.flatnonzero(group < 0)
    main = Neighbours(
        layout.n_receivers, n, 2 * n, receiver[mixed], pair[mixed], edge[mixed], sender_row[mixed]
    )
    groups = []
    for g, of_group in enumerate(layout.groups):
        mine = np.flatnonzero(group == g)
        if len(mine) == 0:
            continue
        from_place = layout.place_in_group[from_site[mine]]
        to_place = layout.place_in_group[to_site[mine]]
        kind = of_group.kind[from_place]
        kinds = np.unique(kind)

        parts = [
            Neighbours(
                len(of_group.sites),
                n,
                2 * n,
                to_place[part],
                pair[mine[part]],
                mine[part],
                from_place[part],
            )
            for part in [np.arange(len(mine)), *(np.flatnonzero(kind == k) for k in kinds)]
        ]
        groups.append(
            GroupEdges(of_group, parts[0], tuple(zip(kinds.tolist(), parts[1:], strict=True)))
        )
    return main, tuple(groups)


def _expanded(layout: Layout, pairs: Pairs, rows: NodePairs) -> Neighbours:
    """Every edge of the alchemical graph; weighted ones come from the sender's mixture."""
    n, n_rows = len(pairs.first), len(rows.pair)
    mixture_of = np.full(layout.n_nodes, -1)
    mixture_of[layout.split] = layout.n_nodes + layout.mixture
    radial = np.arange(n_rows)
    return Neighbours(
        layout.n_receivers,
        n_rows,
        2 * n,
        np.concatenate([rows.second, rows.first]),
        np.concatenate([radial, radial]),
        np.concatenate([rows.pair, rows.pair + n]),
        np.concatenate(
            [
                np.where(rows.forward > 0, mixture_of[rows.first], rows.first),
                np.where(rows.backward > 0, mixture_of[rows.second], rows.second),
            ]
        ),
    )
