"""The re-associated evaluator against stock modules, and each identity that it rests on."""

import logging
from dataclasses import replace

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from ase.build import bulk
from e3nn import o3
from helpers.mace_zoo import (
    CASES,
    COLLAPSED,
    EXPANDED,
    STATES,
    WITH_VECTORS,
    ZOO,
    backend_of,
    make_model,
    salt,
    stock,
    zoo_model,
)
from mace.tools.scatter import scatter_sum
from matscipy.neighbours import neighbour_list
from potential.test_backends_mace import GEOMETRIES

from alchemdriver import testing
from alchemdriver.potential.backends.fast_mace import (
    FastMacePotential,
    cpu_kernels,
    network,
    potential,
    reason_against,
    torch_kernels,
)
from alchemdriver.potential.backends.fast_mace.compiled import (
    NotCompiled,
    loops,
    node_loops,
    read_weights,
    tables,
)
from alchemdriver.potential.backends.fast_mace.compiled import network as compiled_network
from alchemdriver.potential.backends.fast_mace.frozen import freeze
from alchemdriver.potential.backends.fast_mace.neighbours import Neighbours, find_pairs
from alchemdriver.potential.backends.mace import MaceBackend, MacePotential
from alchemdriver.potential.checks import difference, relative
from alchemdriver.potential.precision import default_dtype
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.testing import assert_conforms

# Sums in another order.  Energies, forces, virial and slopes of the zoo are of order 1 to 100.
EXACT = 1e-12
ON_STOCK_MODULES = {
    "NonLinear, Agnesi, ZBL, bias readout, sharp": "depend on features of sender and receiver",
    "Density+NonLinear, L=0": "depend on features of sender and receiver",
    "Attention+Attention": "depend on features of sender and receiver",
    "Residual+Attention, 3 layers, sharp": "depend on features of sender and receiver",
    "agnostic product, last readout only": "products are agnostic of the element",
    "two heads, NonLinear, bias readout": "depend on features of sender and receiver",
    "charge and spin": "joint embedding",
    "charge and spin, embedding readout, heads": "joint embedding",
}
KERNELS = pytest.mark.parametrize("kernels", [cpu_kernels, torch_kernels])


@pytest.fixture
def by_torch(monkeypatch):
    """The evaluator of accelerators and of models that are not compiled, on a CPU."""

    def refuse(*a):
        raise NotCompiled("a test asks for it")

    monkeypatch.setattr(potential, "read_weights", refuse)


def both(backend, case):
    s = salt()
    states, weights = CASES[case]
    sites = AlchemicalSites.from_states(s.symbols, states)
    x = (s.positions, s.cell, s.pbc, np.array(weights))
    return FastMacePotential(backend, sites).evaluate(*x), MacePotential(backend, sites).evaluate(
        *x
    )


# --- against stock modules --------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ZOO if name not in ON_STOCK_MODULES])
def test_equals_stock_modules(name, error_table):
    backend = backend_of(name)
    assert backend.evaluator == "fast"
    errors = [difference(*both(backend, case), weight_gradient=True) for case in CASES]
    error_table[f"fast evaluator: {name}"] = {"stock modules": max(errors)}
    assert max(errors) < EXACT


@pytest.mark.parametrize("name", [COLLAPSED, WITH_VECTORS, EXPANDED])
def test_kernels_for_accelerators_equal_stock_modules(name, monkeypatch, by_torch):
    """They run on a CPU as well."""
    monkeypatch.setattr(network, "cpu_kernels", torch_kernels)
    backend = backend_of(name)
    assert max(difference(*both(backend, case), weight_gradient=True) for case in CASES) < EXACT
    assert_conforms(backend_of(name, "float32"), salt(), STATES)
    apart = np.diag([30.0, 30.0, 30.0])  # no neighbours
    sites = AlchemicalSites.from_states(("Na", "Cl"), [{0: "Na"}, {0: "K"}])
    x = (np.array([[0.0, 0.0, 0.0], [15.0, 15.0, 15.0]]), apart, (True,) * 3, np.array([0.3, 0.7]))
    found, expected = (p.evaluate(*x) for p in (backend.potential(sites), backend.reference(sites)))
    assert difference(found, expected, weight_gradient=True) < EXACT


@pytest.mark.parametrize("name", ON_STOCK_MODULES)
def test_other_models_run_on_stock_modules(name):
    assert ON_STOCK_MODULES[name] in reason_against(zoo_model(name)[0])
    backend = backend_of(name)
    assert backend.evaluator == "stock"
    assert type(backend.potential(AlchemicalSites.plain(["Na"]))) is MacePotential


@pytest.mark.parametrize("name", [COLLAPSED, EXPANDED])
def test_float32_rounds_no_worse_than_stock_modules(name, error_table):
    """Both against float64.  Sums in another order may round up to twice as far, not ten times."""
    exact, single = backend_of(name), backend_of(name, "float32")
    ours, stocks = [], []
    for case in CASES:
        _, expected = both(exact, case)
        found, stock_found = both(single, case)
        ours.append(difference(found, expected, weight_gradient=True))
        stocks.append(difference(stock_found, expected, weight_gradient=True))
    error_table[f"fast evaluator: {name} (float32)"] = {
        "against f64": max(ours),
        "stock's": max(stocks),
    }
    assert max(ours) < 2.0 * max(stocks)


@pytest.mark.parametrize("name", [COLLAPSED, EXPANDED])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_geometries(name, geometry):
    """Cells smaller than the cutoff, clusters, slabs, atoms without neighbours."""
    backend = backend_of(name)
    s, states = GEOMETRIES[geometry]
    sites = AlchemicalSites.from_states(s.symbols, states)
    for weights in ([0.4, 0.7], [1.0, 0.0], [0.0, 1.0]):
        x = (s.positions, s.cell, s.pbc, np.array(weights))
        found, expected = (
            backend.potential(sites).evaluate(*x),
            backend.reference(sites).evaluate(*x),
        )
        assert difference(found, expected, weight_gradient=True) < EXACT


@pytest.mark.parametrize(("name", "dtype"), [(WITH_VECTORS, "float64"), (EXPANDED, "float32")])
def test_conforms(name, dtype):
    """End states, finite differences, symmetries, batches, repetition to the bit."""
    s = salt()
    assert_conforms(backend_of(name, dtype), s, STATES)


def test_nothing_at_all():
    backend = backend_of(COLLAPSED)
    found = backend.potential(AlchemicalSites.plain([None])).evaluate(
        np.zeros((1, 3)), np.eye(3) * 9, (True,) * 3, []
    )
    assert found.energy == 0.0
    assert not found.forces.any()


def test_atoms_that_are_nowhere():
    backend = backend_of(COLLAPSED)
    s = salt()
    symbols = ("Na", None, "Na", "Na", None, "Cl", "Cl", "Cl")
    found = backend.potential(AlchemicalSites.plain(symbols)).evaluate(
        s.positions, s.cell, s.pbc, []
    )
    assert difference(found, stock(zoo_model(COLLAPSED)[0], s, symbols)) < EXACT
    assert not found.forces[[1, 4]].any()


# --- the identities -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [COLLAPSED, "Residual+Residual, L=3", "DensityResidual, L=0, sharp"]
)
def test_collapsed_messages_equal_expanded_ones(name, monkeypatch):
    """Mixed senders and shared receivers, where edge features depend on the distance only."""
    backend = backend_of(name)
    s = salt()
    states, weights = CASES["two groups, three states"]
    sites = AlchemicalSites.from_states(s.symbols, states)
    x = (s.positions, s.cell, s.pbc, np.array(weights))
    collapsed = FastMacePotential(backend, sites).evaluate(*x)
    monkeypatch.setattr(potential, "distance_only", lambda model: False)
    expanded = FastMacePotential(backend, sites).evaluate(*x)
    assert difference(collapsed, expanded, weight_gradient=True) < EXACT


def test_first_layer_needs_the_edges_of_a_state_once(monkeypatch, by_torch):
    """Messages from species alone, multiplied after the sum, equal those summed state by state."""
    backend = backend_of(WITH_VECTORS)
    once, _ = both(backend, "every atom, sites of two kinds")

    def state_by_state(self, layer, group, weights, coupled):
        up = (self.frozen.embedding[self._element] @ layer.up[0]).unsqueeze(1)
        yield self._state_messages(layer, group, weights, coupled, up)

    monkeypatch.setattr(network.Network, "_species_messages", state_by_state)
    each, _ = both(backend, "every atom, sites of two kinds")
    assert difference(once, each, weight_gradient=True) < EXACT


@KERNELS
@pytest.mark.parametrize("name", [COLLAPSED, WITH_VECTORS, "one layer"])
def test_polynomial_is_the_symmetric_contraction(name, kernels):
    model, _ = zoo_model(name)
    known = [int(z) for z in model.atomic_numbers]
    numbers = (known[0], known[3])
    frozen = freeze(model, numbers)
    torch.manual_seed(1)
    for product, layer in zip(model.products, frozen.layers, strict=True):
        contraction = product.symmetric_contractions
        width = layer.polynomials[0].width
        x = torch.randn(5, layer.channels, width, dtype=torch.float64, requires_grad=True)
        attributes = torch.zeros(5, len(known), dtype=torch.float64)
        attributes[:2, 0] = attributes[2:, 3] = 1.0
        expected = contraction(x, attributes)
        ranges = ((0, 2), (2, 5))
        found = [
            kernels.SymmetricPolynomial.apply(x.transpose(1, 2), p, ranges).transpose(1, 2)
            for p in layer.polynomials
        ]
        found = torch.cat([f.flatten(1) for f in found], dim=1)  # channels outside, as mace's
        assert relative(found.detach(), expected.detach()) < EXACT
        upstream = torch.randn_like(expected)
        slopes = [torch.autograd.grad(f, x, upstream)[0] for f in (found, expected)]
        assert relative(*slopes) < EXACT


@KERNELS
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("depth", [0, 1])
def test_neighbour_sum_is_convolution_and_scatter(depth, threads, kernels, monkeypatch):
    """Loops, and padded rows with matrix products, against e3nn's tensor product on every edge."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model, _ = zoo_model(WITH_VECTORS)
    block = model.interactions[depth]
    layer = freeze(model, tuple(int(z) for z in model.atomic_numbers)).layers[depth]
    rng = np.random.default_rng(2)
    n_edges, n_nodes = 23, 6
    sender, receiver = rng.integers(0, n_nodes, n_edges), rng.integers(0, n_nodes - 1, n_edges)
    torch.manual_seed(2)
    new = {"dtype": torch.float64, "requires_grad": True}
    u = torch.randn(n_nodes, block.conv_tp.irreps_in1.dim, **new)
    y = torch.randn(12, block.conv_tp.irreps_in2.dim, **new)
    harmonic = np.arange(n_edges) // 2  # as where one pair of atoms is several pairs of nodes
    w = torch.randn(n_edges, block.conv_tp.weight_numel, **new)

    per_edge = block.conv_tp(u[torch.from_numpy(sender)], y[torch.from_numpy(harmonic)], w)
    summed = scatter_sum(per_edge, torch.from_numpy(receiver), dim=0, dim_size=n_nodes)
    expected = block.linear(summed)

    edge = np.arange(n_edges)
    edges = Neighbours(n_nodes, n_edges, len(y), receiver, edge, harmonic, sender)
    senders = torch.cat(
        [
            u[:, part].view(n_nodes, mul, ir.dim).transpose(1, 2)
            for (mul, ir), part in zip(
                block.conv_tp.irreps_in1, block.conv_tp.irreps_in1.slices(), strict=True
            )
        ],
        dim=1,
    )
    sums = kernels.NeighbourSum.apply(w, y @ layer.coupling, senders, edges, layer)
    found = torch.zeros_like(expected)
    for (l3, matrix), values in zip(sorted(layer.down.items()), sums, strict=True):
        # ``down`` contains the division by the average number of neighbours
        mixed = (values @ matrix).transpose(1, 2).flatten(1) * float(block.avg_num_neighbors)
        part = o3.Irreps(block.irreps_out).slices()[l3]
        found[:, part] = mixed
    assert relative(found.detach(), expected.detach()) < EXACT
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, [u, y, w], upstream),
        torch.autograd.grad(expected, [u, y, w], upstream),
        strict=True,
    ):
        assert relative(ours, theirs) < EXACT


@pytest.mark.parametrize("name", [COLLAPSED, EXPANDED])
def test_models_that_are_not_compiled_are_differentiated_by_torch(name, by_torch, caplog):
    with caplog.at_level(logging.INFO):
        assert (
            max(difference(*both(backend_of(name), c), weight_gradient=True) for c in CASES) < EXACT
        )
    assert "differentiated by torch: a test asks for it" in caplog.text


class Quartic(torch.nn.Module):
    def forward(self, features, heads=None):
        return features[:, :1] ** 4


def test_an_unknown_readout_is_not_compiled(monkeypatch):
    backend = backend_of(COLLAPSED)
    backend.model.readouts[0] = Quartic()
    sites = AlchemicalSites.plain(salt().symbols)
    fast = FastMacePotential(backend, sites)
    with pytest.raises(NotCompiled, match="its readout is a Quartic"):
        read_weights(backend.model, fast._frozen, 0)
    s = salt()
    x = (s.positions, s.cell, s.pbc, np.zeros(0))
    assert difference(fast.evaluate(*x), MacePotential(backend, sites).evaluate(*x)) < EXACT


# --- radial tables ------------------------------------------------------------------------------

TRANSFORMS = [COLLAPSED, EXPANDED, "Density+Density, Soft, gaussian", "DensityResidual, L=0, sharp"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_tables_are_the_networks(name, dtype, error_table):
    """Value by stock modules, slope by autograd, at 0.05 Å, both borders and between."""
    backend = backend_of(name, dtype)
    frozen = freeze(backend.model, (11, 17))
    start, stop = tables.SHORTEST, float(backend.cutoff)
    lengths = np.concatenate(
        [
            [0.05, 0.2, start * (1 - 1e-9), start, start * (1 + 1e-9)],
            np.random.default_rng(0).uniform(start, stop, 400),
            [stop * (1 - 1e-9)],
        ]
    )
    double = backend_of(name).model
    if dtype == "float32":
        double.load_state_dict(backend.model.state_dict())
    attributes = frozen.attributes.double()
    limits = {"float64": (1e-13, 1e-12), "float32": (1e-6, 2e-6)}[dtype]
    worst = np.zeros(2)
    for depth, layer in enumerate(read_weights(backend.model, frozen, backend.head).layers):
        assert layer.radial.value_error < limits[0]
        assert layer.radial.slope_error < limits[1]
        t = layer.radial.coefficients.shape[0] // 2  # the table of both elements, if there is one
        d = torch.from_numpy(lengths).unsqueeze(1).requires_grad_()
        ends = torch.tensor([[0], [1]]).expand(2, len(d))
        with default_dtype(torch.float64):
            basis, cutoff = double.radial_embedding(d, attributes, ends, double.atomic_numbers)
            exact = double.interactions[depth].conv_tp_weights(basis)
        exact = exact if cutoff is None else exact * cutoff
        columns = [torch.autograd.grad(e.sum(), d, retain_graph=True)[0] for e in exact.T]
        slope = torch.cat(columns, dim=1).numpy()
        value = exact.detach().numpy()
        found = np.empty((2, *value.shape), dtype)
        rows = np.arange(len(lengths))
        layer.radial.fill(lengths, np.argsort(lengths), np.full_like(rows, t), *found)
        for part, (ours, theirs) in enumerate(zip(found, (value, slope), strict=True)):
            scale = np.abs(theirs[3:]).max()  # within the table
            worst[part] = max(worst[part], np.abs(ours - theirs)[3:].max() / scale)
            below = np.abs(ours - theirs)[:3] / np.abs(theirs[:3]).max()
            assert below.max() < limits[part]
    error_table[f"radial tables: {name} ({dtype})"] = {"value": worst[0], "slope": worst[1]}
    assert worst[0] < limits[0]
    assert worst[1] < limits[1]


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("distance", [0.05, 0.4999999, 0.5000001, 4.2409999])
def test_a_vanishing_atom_may_come_near(name, distance):
    s = salt()
    positions = s.positions.copy()
    positions[4] = positions[0] + distance * np.array([0.6, 0.0, 0.8])
    sites = AlchemicalSites.from_states(s.symbols, [{4: "Cl"}, {}])
    backend = backend_of(name)
    x = (positions, s.cell, s.pbc, np.array([0.2, 0.8]))
    found, expected = (p.evaluate(*x) for p in (backend.potential(sites), backend.reference(sites)))
    assert difference(found, expected, weight_gradient=True) < EXACT


@pytest.mark.parametrize("name", [COLLAPSED, EXPANDED])
def test_threads_share_the_work(name, monkeypatch):
    backend = backend_of(name)
    one, _ = both(backend, "two groups, three states")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    three, _ = both(backend, "two groups, three states")
    assert difference(three, one, weight_gradient=True) < EXACT


def test_skip_and_linear_weights_are_those_of_the_modules():
    model, _ = zoo_model(WITH_VECTORS)
    block, product = model.interactions[1], model.products[1]
    known = [int(z) for z in model.atomic_numbers]
    layer = freeze(model, (known[2],)).layers[1]
    irreps = o3.Irreps(block.node_feats_irreps)
    torch.manual_seed(3)
    x = torch.randn(4, irreps.dim, dtype=torch.float64)
    element = torch.zeros(4, len(known), dtype=torch.float64)
    element[:, 2] = 1.0
    features = {
        ir.l: x[:, part].view(4, mul, ir.dim).transpose(1, 2)
        for (mul, ir), part in zip(irreps, irreps.slices(), strict=True)
    }
    found = features[0][:, 0] @ layer.skip[0][0]
    assert relative(found, block.skip_tp(x, element)[:, : found.shape[1]]) < EXACT
    up = block.linear_up(x)
    for (_, ir), part in zip(irreps, irreps.slices(), strict=True):
        ours = (features[ir.l] @ layer.up[ir.l]).transpose(1, 2).flatten(1)
        assert relative(ours, up[:, part]) < EXACT
    scalars = torch.randn(4, product.linear.irreps_in.dim, dtype=torch.float64)
    assert relative(scalars @ layer.out[0], product.linear(scalars)) < EXACT


def test_harmonics_of_the_way_back_have_the_sign_of_their_parity(by_torch):
    model, _ = zoo_model("Residual+Residual, L=3")
    net = backend_of("Residual+Residual, L=3").potential(AlchemicalSites.plain(["Na"]))._network(1)
    v = torch.randn(7, 3, dtype=torch.float64)
    there, back = model.spherical_harmonics(v), model.spherical_harmonics(-v)
    assert relative(there * net._parity[: there.shape[1]], back) < EXACT


@pytest.mark.parametrize("geometry", [*GEOMETRIES, "crystal"])
def test_pairs_are_half_of_the_neighbour_list(geometry):
    if geometry == "crystal":
        atoms = bulk("Cu", cubic=True).repeat(2)
        atoms.rattle(0.1, seed=1)
        s = replace(salt(), positions=atoms.positions, cell=atoms.cell.array)
    else:
        s = GEOMETRIES[geometry][0]
    pairs = find_pairs(s.positions[None], s.cell[None], s.pbc, 4.6)
    i, j, v = pairs.first, pairs.second, pairs.vectors
    found = np.concatenate([np.c_[i, j, v], np.c_[j, i, -v]])
    cell = np.where(np.array(s.pbc)[:, None], s.cell, 500.0 * np.eye(3))
    if geometry == "slab":
        cell = s.cell
    i, j, v = neighbour_list("ijD", cell=cell, pbc=s.pbc, positions=s.positions, cutoff=4.6)
    expected = np.c_[i, j, v]
    assert len(found) == len(expected)
    for array in (found, expected):
        array[:, 2:] = np.round(array[:, 2:], 8) + 0.0  # images are told apart by their vectors
    order = [np.lexsort(array.T[::-1]) for array in (found, expected)]
    assert np.array_equal(found[order[0]], expected[order[1]])


# --- mutants: the checks above must see these -----------------------------------------------------


def test_mutant_without_edges_within_a_state_fails(monkeypatch):
    """Sites of one group see each other's mixtures instead."""
    original = loops.edges_of_pairs
    monkeypatch.setattr(
        loops, "edges_of_pairs", lambda *args: original(*args[:-1], np.full_like(args[-1], -1))
    )
    found, expected = both(backend_of(COLLAPSED), "two groups, three states")
    assert difference(found, expected) > 1e-4


def test_mutant_with_unweighted_mixtures_fails(monkeypatch):
    original = node_loops.add_to_shared
    monkeypatch.setattr(
        node_loops,
        "add_to_shared",
        lambda rows, split, shared, factor, n: original(rows, split, shared, 0 * factor + 1, n),
    )
    found, expected = both(backend_of(COLLAPSED), "one removed atom")
    assert difference(found, expected) > 1e-3


def test_mutant_without_the_slope_of_densities_fails(monkeypatch):
    monkeypatch.setattr(node_loops, "density_slope", lambda *args: None)
    found, expected = both(backend_of(EXPANDED), "plain")
    assert relative(found.energy, expected.energy) < EXACT
    assert relative(found.forces, expected.forces) > 1e-4


def test_the_first_evaluation_says_in_one_line_that_it_compiled(monkeypatch, caplog):
    made = iter([0, 1])  # before and after it; then nothing more
    monkeypatch.setattr(compiled_network, "_compilations", lambda: next(made, 1))
    with caplog.at_level(logging.INFO, compiled_network.__name__):
        both(backend_of(COLLAPSED), "plain")
        both(backend_of(COLLAPSED), "plain")
    (line,) = [r.getMessage() for r in caplog.records if r.name == compiled_network.__name__]
    assert "compiled the evaluator's loops" in line


# --- bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_equal_arguments_give_equal_bits(dtype):
    """Whatever came before, and in a potential that was made anew: restarts rely on it."""
    s = salt()
    sites = AlchemicalSites.from_states(s.symbols, STATES)
    weights = np.linspace(0.2, 0.6, 5)
    rng = np.random.default_rng(0)
    bits = set()
    for _ in range(2):
        fast = backend_of(EXPANDED, dtype).potential(sites)
        for _ in range(3):
            found = fast.evaluate(s.positions, s.cell, s.pbc, weights)
            bits.add(testing._bits(found))
            moved = s.positions + rng.normal(scale=0.1, size=s.positions.shape)
            fast.evaluate_batch(np.stack([moved] * 2), np.stack([s.cell] * 2), s.pbc, weights)
    assert len(bits) == 1


def test_float32_keeps_all_electron_energies():
    model = make_model("Residual", "Residual", L=0)
    model.atomic_energies_fn.atomic_energies.fill_(-123456.789012345)
    s = salt()
    sites = AlchemicalSites.from_states(s.symbols, [{0: "Na"}, {0: "K"}])
    found = [
        MaceBackend(model, "m", dtype=dtype, evaluator="fast")
        .potential(sites)
        .evaluate(s.positions, s.cell, s.pbc, [0.3, 0.7])
        for dtype in ("float64", "float32")
    ]
    assert abs(found[0].energy - found[1].energy) < 1e-4
    assert np.abs(found[0].weight_gradient - found[1].weight_gradient).max() < 1e-4
