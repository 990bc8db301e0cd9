"""What runs on accelerators runs on torch's meta device: no tensor of the CPU, nothing that waits.

Tensors of that device have a shape and no numbers: reading one (``item``, ``nonzero``, a boolean
mask, ``.cpu()``) raises, as does an operation with a tensor that is elsewhere.
"""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass, replace

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from helpers.mace_zoo import STATES, ZOO, salt, zoo_model

from alchemdriver.potential.backends.fast_mace import reason_against
from alchemdriver.potential.backends.fast_mace.frozen import Polynomial, freeze
from alchemdriver.potential.backends.fast_mace.graph import build_graph, expand
from alchemdriver.potential.backends.fast_mace.layout import Layout
from alchemdriver.potential.backends.fast_mace.neighbours import find_pairs
from alchemdriver.potential.backends.fast_mace.network import Network
from alchemdriver.potential.backends.fast_mace.support import distance_only
from alchemdriver.potential.sites import AlchemicalSites

FAST = [name for name in ZOO if reason_against(zoo_model(name)[0]) is None]


def on_meta(value):
    """*value* with all that torch has in it on the meta device."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).to("meta")
    if isinstance(value, dict):
        return {key: on_meta(v) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(on_meta(v) for v in value)
    if not is_dataclass(value):
        return value
    moved = replace(value, **{f.name: on_meta(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, Polynomial):  # made once, when a model is loaded
        vars(moved)["matrices"] = on_meta(value.matrices)
    return moved


def energies(name, spoil=lambda network: None):
    """Energies [2] and their gradients on the meta device, of a batch of two."""
    model, _ = zoo_model(name)
    s = salt()
    sites = AlchemicalSites.from_states(s.symbols, STATES)
    frozen = freeze(model, tuple(sorted(set(sites.node_number.tolist()))))
    layout = Layout(sites, frozen.numbers, 2, distance_only(model))
    x, h = np.stack([s.positions, s.positions + 0.01]), np.stack([s.cell, s.cell])
    pairs = find_pairs(x[:, layout.present], h, s.pbc, float(model.r_max))
    close = None
    if hasattr(model, "pair_repulsion_fn"):
        close = expand(layout, sites, pairs, np.arange(len(pairs.first)))
    network = Network(on_meta(model), on_meta(frozen), layout, 0)
    spoil(network)
    vectors = torch.empty(pairs.vectors.shape, dtype=torch.float64, device="meta").requires_grad_()
    lam = torch.empty(2, 1 + sites.n_weights, dtype=torch.float64, device="meta").requires_grad_()
    found, of_nodes = network.energies(build_graph(layout, sites, pairs), close, vectors, lam)
    slope, gradient = torch.autograd.grad(found.sum(), [vectors, lam])
    assert of_nodes.shape == (layout.n_nodes,)
    assert slope.shape == vectors.shape
    assert gradient.shape == lam.shape
    return found


@pytest.mark.parametrize("name", FAST)
def test_forward_and_backward_pass_neither_read_nor_leave_the_device(name):
    found = energies(name)
    assert found.device.type == "meta"
    assert found.shape == (2,)


def test_a_tensor_of_the_cpu_is_found():
    def spoil(network):
        network._parity = torch.ones(len(network._parity), dtype=torch.float64)

    with pytest.raises((RuntimeError, NotImplementedError)):
        energies(FAST[0], spoil)
