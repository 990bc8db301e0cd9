"""The expanded graph: who is a node, who sees whom, and with what weight."""

import numpy as np
import pytest

from alchemdriver.errors import InputError
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Transformation

SALT = ("Na", "Cl", "Na", "Cl")


def all_pairs(n):
    i, j = np.nonzero(~np.eye(n, dtype=bool))
    return i, j


def edge_set(sites):
    """{((atom, α) of the sender, (atom, β) of the receiver): weight index of ω}"""
    e = sites.expand_edges(*all_pairs(sites.n_atoms))
    names = list(zip(sites.node_atom.tolist(), sites.node_weight.tolist(), strict=True))
    return {
        (names[s], names[r]): w
        for s, r, w in zip(e.senders, e.receivers, e.weight.tolist(), strict=True)
    }


def test_plain_system_is_its_own_graph():
    sites = AlchemicalSites.plain(SALT)
    senders, receivers = all_pairs(4)
    edges = sites.expand_edges(senders, receivers)
    assert sites.n_weights == 0
    assert sites.node_number.tolist() == [11, 17, 11, 17]
    assert edges.senders.tolist() == senders.tolist()
    assert edges.receivers.tolist() == receivers.tolist()
    assert edges.origin.tolist() == list(range(12))
    assert not edges.weight.any()


def test_site_has_one_node_per_state():
    sites = AlchemicalSites.from_states(SALT, [{0: "Na"}, {0: "K"}, {0: "Rb"}])
    assert sites.node_atom.tolist() == [0, 0, 0, 1, 2, 3]
    assert sites.node_weight.tolist() == [1, 2, 3, 0, 0, 0]
    assert sites.node_number.tolist() == [11, 19, 37, 17, 11, 17]
    assert sites.elements == {"Na", "K", "Rb", "Cl"}


def test_equations_4_and_5_within_a_group():
    """Every ordered pair of nodes against the equations as the paper writes them."""
    sites = AlchemicalSites.from_states(SALT, [{0: "Na", 1: "Cl"}, {0: "K", 1: "O"}])
    edges = edge_set(sites)
    nodes = list(zip(sites.node_atom.tolist(), sites.node_weight.tolist(), strict=True))
    for sender in nodes:
        for receiver in nodes:
            (j, beta), (i, alpha) = sender, receiver
            if i == j:
                continue
            connected = alpha == 0 or beta == 0 or alpha == beta
            assert ((sender, receiver) in edges) == connected
            if connected:
                assert edges[sender, receiver] == (beta if alpha == 0 else 0)


def test_sites_of_other_groups_are_seen_as_mixtures():
    sites = AlchemicalSites.from_states(SALT, [{0: "Na"}, {0: "K"}, {1: "Cl"}, {1: "O"}])
    assert sites.groups == (0, 0, 1, 1)
    edges = edge_set(sites)
    for a in (1, 2):
        for b in (3, 4):
            assert edges[(0, a), (1, b)] == a
            assert edges[(1, b), (0, a)] == b


def test_no_edges_at_all():
    sites = AlchemicalSites.from_states(SALT, [{0: "Na"}, {0: "K"}])
    none = np.zeros(0, dtype=np.int64)
    edges = sites.expand_edges(none, none)
    assert len(edges.senders) == len(edges.weight) == 0


def test_an_atom_and_its_own_image_see_only_their_own_state():
    sites = AlchemicalSites.from_states(("Na",), [{0: "Na"}, {0: "K"}])
    zero = np.zeros(1, dtype=np.int64)
    edges = sites.expand_edges(zero, zero)
    assert edges.senders.tolist() == edges.receivers.tolist() == [0, 1]
    assert edges.weight.tolist() == [0, 0]


def test_removed_atom_has_no_node():
    sites = AlchemicalSites.plain(("Na", None, "Na", "Cl"))
    assert sites.node_atom.tolist() == [0, 2, 3]
    assert all(1 not in (s[0], r[0]) for s, r in edge_set(sites))


def test_transformation_becomes_two_states_of_one_group():
    t = Transformation(("Fe", "Pb", "Cs", "I"), (None, "Sn", "Rb", "I"))
    sites = AlchemicalSites.from_transformation(t)
    assert sites.states == ({0: "Fe", 1: "Pb", 2: "Cs"}, {1: "Sn", 2: "Rb"})
    assert sites.groups == (0, 0)
    assert sites.endpoint([0]) == t.initial
    assert sites.endpoint([1]) == t.final


def test_transformation_to_void_only():
    sites = AlchemicalSites.from_transformation(Transformation(("Fe", "Fe"), ("Fe", None)))
    assert sites.n_weights == 2
    assert sites.endpoint([1]) == ("Fe", None)


def test_transformation_without_change_has_nothing_to_weight():
    with pytest.raises(InputError, match="changes no atom"):
        AlchemicalSites.from_transformation(Transformation(("Fe",), ("Fe",)))


def test_groups_are_connected_components():
    states = [{0: "Na"}, {2: "Na"}, {0: "K", 1: "K"}, {1: "Rb"}, {2: "K"}]
    assert AlchemicalSites.from_states(SALT, states).groups == (0, 1, 0, 0, 1)
    assert AlchemicalSites.from_states(SALT, states, [0] * 5).groups == (0,) * 5


def test_empty_state_is_the_absence_of_the_others():
    sites = AlchemicalSites.from_states(SALT, [{2: "Na"}, {}])
    assert sites.groups == (0, 0)
    assert sites.endpoint([1]) == ("Na", "Cl", None, "Cl")


def test_endpoints_name_every_state():
    sites = AlchemicalSites.from_states(SALT, [{0: "Na"}, {0: "K"}, {0: "Rb"}, {1: "O"}, {1: "Cl"}])
    chosen = sites.endpoints()
    assert {a for c in chosen for a in c} == set(range(5))
    assert all(sorted(sites.groups[a] for a in c) == [0, 1] for c in chosen)


@pytest.mark.parametrize(
    ("states", "groups", "message"),
    [
        ([{4: "Na"}], None, "site 4 is out of range, there are atoms 0 to 3"),
        ([{-1: "Na"}], None, "site -1 is out of range"),
        ([{0: "Nq"}], None, "'Nq' is not an element"),
        ([{0: "X"}], None, "'X' is not an element"),
        ([{"0": "Na"}], None, "expected a site index"),
        ([{}, {}], None, "none of them has a site"),
        ([{0: "Na"}, {0: "K"}], [0, 1], "site 0 is in states of groups 0 and 1"),
        ([{0: "Na"}, {0: "K"}], [0], "expected one per state"),
    ],
)
def test_wrong_input_is_one_line(states, groups, message):
    with pytest.raises(InputError, match=message) as caught:
        AlchemicalSites.from_states(SALT, states, groups)
    assert "\n" not in str(caught.value)


def test_unknown_element_of_an_ordinary_atom():
    with pytest.raises(InputError, match="atom 1: 'Xy' is not an element"):
        AlchemicalSites.plain(("Na", "Xy"))
