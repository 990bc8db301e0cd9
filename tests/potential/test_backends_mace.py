"""MACE on stock modules against stock MACE, for every block and option of its foundation models."""

from dataclasses import replace
from functools import lru_cache

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from helpers.mace_zoo import (
    BLOCKS,
    CHARGE_AND_SPIN,
    CHARGES,
    STATES,
    ZOO,
    make_model,
    salt,
    stock,
    zoo_model,
)

from alchemdriver.errors import InputError, ModelError
from alchemdriver.potential.backends import mace as backend_module
from alchemdriver.potential.backends.mace import MaceBackend
from alchemdriver.potential.checks import check_limits, difference, relative
from alchemdriver.potential.sites import AlchemicalSites
from alchemdriver.records import Structure, Transformation
from alchemdriver.testing import TOLERANCES, measure

# Rounding of sums in another order; 4e-14 was seen, brief and paper ask for the exact limit.
EXACT = 1e-10


@lru_cache
def backend_and_model(name, dtype="float64"):
    model, head = zoo_model(name)
    backend = MaceBackend(model, name, dtype=dtype, head=head, evaluator="stock")
    return backend, model, head or "Default"


def endpoints_against_stock(backend, model, head, structure, states, features=None):
    """Worst relative error at the end states against stock MACE, whose removed atoms feel 0."""
    sites = AlchemicalSites.from_states(structure.symbols, states)
    potential = backend.potential(sites, features)
    worst = 0.0
    for chosen in sites.endpoints():
        weights = np.zeros(sites.n_weights)
        weights[list(chosen)] = 1.0
        found = potential.evaluate(structure.positions, structure.cell, structure.pbc, weights)
        own = {k: v for a in chosen for k, v in (features or [{}] * len(states))[a].items()}
        expected = stock(model, structure, sites.endpoint(chosen), head, own)
        worst = max(worst, difference(found, expected))
    return worst


def identical_against_stock(backend, model, head, structure):
    """All states made equal, weights summing to 1 in both groups: the plain system."""
    states = [{0: "Na", 4: "Cl"}] * 3 + [{1: "Na", 5: "Cl"}] * 2
    sites = AlchemicalSites.from_states(structure.symbols, states)
    weights = np.array([0.2, 0.5, 0.3, 0.9, 0.1])
    found = backend.potential(sites).evaluate(
        structure.positions, structure.cell, structure.pbc, weights
    )
    return difference(found, stock(model, structure, head=head))


@pytest.mark.parametrize("name", ZOO)
def test_limits_and_derivatives(name, error_table):
    backend, model, head = backend_and_model(name)
    structure = salt()
    embedded = "embedding_specs" in ZOO[name]
    sites = AlchemicalSites.from_states(structure.symbols, STATES)
    row = error_table[name] = {
        "end states": endpoints_against_stock(
            backend, model, head, structure, STATES, CHARGES if embedded else None
        ),
        "identical": identical_against_stock(backend, model, head, structure),
    }
    errors = measure(backend, structure, sites)
    slopes = {k: v for k, v in errors.items() if k.startswith("slope")}
    row["dE/dλ"], row["forces"] = slopes["slope weights"], slopes["slope positions"]
    row["virial"] = slopes["slope strain"]
    row["symmetry"] = max(v for k, v in errors.items() if k not in slopes)
    assert max(row["end states"], row["identical"], row["symmetry"]) < EXACT
    assert max(slopes.values()) < TOLERANCES["float64"].slopes
    # teeth: between the ends the energy is not the linear mixture of the ends
    potential = backend.potential(sites)

    def energy(w):
        return potential.evaluate(structure.positions, structure.cell, structure.pbc, w).energy

    ends = [energy([1, 0, 0, 1, 0]), energy([0, 1, 0, 1, 0])]
    assert abs(energy([0.4, 0.6, 0, 1, 0]) - 0.4 * ends[0] - 0.6 * ends[1]) > 1e-5


FLOAT32 = [
    "Interaction+Residual, L=0, correlation 3",
    "Density+DensityResidual, Agnesi, ZBL",
    "NonLinear, Agnesi, ZBL, bias readout, sharp",
    "Residual+Attention, 3 layers, sharp",
]


@pytest.mark.parametrize("name", FLOAT32)
def test_float32(name, error_table):
    """Stock in float32 rounds as we do; float64 on the same structure is the yardstick."""
    backend, model, head = backend_and_model(name, "float32")
    structure = salt()
    errors = measure(backend, structure, AlchemicalSites.from_states(structure.symbols, STATES))
    slopes = {k: v for k, v in errors.items() if k.startswith("slope")}
    row = error_table[f"{name} (float32)"] = {
        "end states": endpoints_against_stock(backend, model, head, structure, STATES),
        "identical": identical_against_stock(backend, model, head, structure),
        "dE/dλ": slopes["slope weights"],
        "forces": slopes["slope positions"],
        "virial": slopes["slope strain"],
        "symmetry": max(v for k, v in errors.items() if k not in slopes),
    }
    limits = TOLERANCES["float32"]
    assert max(row["end states"], row["identical"], row["symmetry"]) < limits.exact
    assert max(slopes.values()) < limits.slopes


def test_float32_keeps_all_electron_energies():
    model = make_model("Residual", "Residual", L=0)
    model.atomic_energies_fn.atomic_energies.fill_(-123456.789012345)
    structure = salt()
    states = [{0: "Na"}, {0: "K"}]
    sites = AlchemicalSites.from_states(structure.symbols, states)
    found = [
        MaceBackend(model, "m", dtype=dtype)
        .potential(sites)
        .evaluate(structure.positions, structure.cell, structure.pbc, [0.3, 0.7])
        for dtype in ("float64", "float32")
    ]
    assert abs(found[0].energy - found[1].energy) < 1e-4
    assert np.abs(found[0].weight_gradient - found[1].weight_gradient).max() < 1e-4


# --- mutants: the checks above must see these -------------------------------------------------


def mutant_error(monkeypatch, name, target, attribute, mutant):
    monkeypatch.setattr(target, attribute, mutant)
    backend, model, head = backend_and_model(name)
    return endpoints_against_stock(backend, model, head, salt(), STATES)


def test_mutant_without_edge_weights_fails(monkeypatch):
    original = AlchemicalSites.expand_edges

    def unweighted(self, senders, receivers):
        edges = original(self, senders, receivers)
        return replace(edges, weight=np.zeros_like(edges.weight))

    error = mutant_error(
        monkeypatch, "Residual+Residual, Agnesi, ZBL", AlchemicalSites, "expand_edges", unweighted
    )
    assert error > 1e-3


def test_mutant_weighting_within_a_state_fails(monkeypatch):
    """ω = λ of the sender for alchemical receivers too breaks the limit of identical states."""
    original = AlchemicalSites.expand_edges

    def always(self, senders, receivers):
        edges = original(self, senders, receivers)
        return replace(edges, weight=self.node_weight[edges.senders])

    monkeypatch.setattr(AlchemicalSites, "expand_edges", always)
    backend, model, head = backend_and_model("Residual+Residual, L=2")
    assert identical_against_stock(backend, model, head, salt()) > 1e-3


def test_mutant_weighting_the_spherical_harmonics_fails(monkeypatch):
    """It is right without densities and wrong with them."""

    def mutated(name):
        backend, model, head = backend_and_model(name)
        for block in backend.model.interactions:
            inner = block.forward

            def forward(*, edge_attrs, cutoff, inner=inner, **rest):
                return inner(edge_attrs=edge_attrs * cutoff, cutoff=None, **rest)

            monkeypatch.setattr(block, "forward", forward)
        return endpoints_against_stock(backend, model, head, salt(), STATES)

    assert mutated("Residual+Residual, L=2") < EXACT
    assert mutated("Density+DensityResidual, Agnesi, ZBL") > 1e-3


def test_mutant_with_unweighted_pair_repulsion_fails(monkeypatch):
    def unweighted(self, lengths, weights, edge_index, edge_weight):
        model = self.backend.model
        return model.pair_repulsion_fn(lengths, self.attrs, edge_index, model.atomic_numbers)

    error = mutant_error(
        monkeypatch,
        "Residual+Residual, Agnesi, ZBL",
        backend_module.MacePotential,
        "_pair_energy",
        unweighted,
    )
    assert error > 1e-5  # few pairs are close enough to repel


# --- geometry ---------------------------------------------------------------------------------

RNG = np.random.default_rng(5)
FCC = np.array([[0.0, 1.9, 1.9], [1.9, 0.0, 1.9], [1.9, 1.9, 0.0]])
TURN = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
GEOMETRIES = {
    "one-atom cell": (Structure(("Na",), np.zeros((1, 3)), FCC), [{0: "Na"}, {0: "K"}]),
    "one-atom cell, removed": (Structure(("Na",), np.zeros((1, 3)), FCC), [{0: "Na"}, {}]),
    "two-atom cell, atoms far outside": (
        Structure(
            ("Na", "Cl"), np.array([[0, 0, 0], [1.9, 0.1, 0]]) + [[90], [-70]] @ FCC[:1], FCC
        ),
        [{0: "Na", 1: "Cl"}, {0: "K"}],
    ),
    "cluster": (
        Structure(
            ("Na", "Na", "Cl", "Cl", "O"),
            RNG.normal(size=(5, 3)) * 1.8,
            np.zeros((3, 3)),
            (False,) * 3,
        ),
        [{0: "Na", 1: "Na"}, {0: "K", 4: "O"}],
    ),
    "slab": (
        Structure(
            ("Na", "Cl", "Na", "Cl"),
            RNG.random((4, 3)) * [5, 5, 4],
            np.diag([5.0, 5.0, 20.0]),
            (True, True, False),
        ),
        [{0: "Na", 1: "Cl"}, {0: "K"}],
    ),
    "wire without the other vectors": (
        Structure(
            ("Na", "Cl", "Na"),
            np.array([[0, 0, 0], [2.4, 0.2, 0.0], [0.3, 2.5, 0.4]]),
            np.diag([4.8, 0.0, 0.0]),
            (True, False, False),
        ),
        [{0: "Na"}, {0: "K"}],
    ),
    "isolated alchemical atom": (
        Structure(
            ("Cl", "Na", "Na"), np.array([[0, 0, 0], [2, 0, 0], [30.0, 0, 0]]), np.eye(3) * 60
        ),
        [{2: "Na"}, {2: "K"}],
    ),
    "no edge at all": (
        Structure(("Cl", "Na"), np.array([[0, 0, 0], [20.0, 0, 0]]), np.eye(3) * 60),
        [{1: "Na"}, {1: "K"}],
    ),
}


@pytest.fixture(scope="module")
def small():
    model = make_model("Density", "DensityResidual", pair_repulsion=True, distance_transform="Soft")
    return MaceBackend(model, "small", evaluator="stock"), model


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_matches_stock(small, name):
    backend, model = small
    structure, states = GEOMETRIES[name]
    sites = AlchemicalSites.from_states(structure.symbols, states)
    potential = backend.potential(sites)
    for a in (0, 1):
        found = potential.evaluate(structure.positions, structure.cell, structure.pbc, np.eye(2)[a])
        symbols = sites.endpoint([a])
        if any(symbols):
            assert difference(found, stock(model, structure, symbols)) < EXACT
        else:
            assert found.energy == 0.0
    errors = measure(backend, structure, sites)
    assert max(v for k, v in errors.items() if not k.startswith("slope")) < EXACT
    assert max(errors.values()) < 1e-6  # finite differences


def test_rotated_slab(small):
    """mace's own list is singular or wrong when the free axis is not z."""
    backend, _ = small
    structure, states = GEOMETRIES["slab"]
    potential = backend.potential(AlchemicalSites.from_states(structure.symbols, states))
    flat = potential.evaluate(structure.positions, structure.cell, structure.pbc, [0.4, 0.7])
    cell = structure.cell.copy()
    cell[2] = 0.0
    turned = potential.evaluate(structure.positions @ TURN, cell @ TURN, structure.pbc, [0.4, 0.7])
    assert relative(turned.energy, flat.energy) < EXACT
    assert relative(turned.forces, flat.forces @ TURN) < EXACT
    assert relative(turned.virial, TURN.T @ flat.virial @ TURN) < EXACT
    assert relative(turned.weight_gradient, flat.weight_gradient) < EXACT


def test_removed_atoms_leave_no_trace(small):
    backend, model = small
    structure = salt()
    symbols = ("Na", None, "Na", "Na", None, "Cl", "Cl", "Cl")
    potential = backend.potential(AlchemicalSites.plain(symbols))
    found = potential.evaluate(structure.positions, structure.cell, structure.pbc, [])
    assert difference(found, stock(model, structure, symbols)) < EXACT
    assert not found.forces[[1, 4]].any()


def test_zero_weights_are_the_system_without_the_sites(small):
    backend, model = small
    structure = salt()
    sites = AlchemicalSites.from_states(structure.symbols, [{0: "Na"}, {0: "K"}])
    found = backend.potential(sites).evaluate(
        structure.positions, structure.cell, structure.pbc, [0.0, 0.0]
    )
    assert difference(found, stock(model, structure, (None, *structure.symbols[1:]))) < EXACT


def test_arguments_are_not_changed(small):
    backend, model = small
    structure, states = GEOMETRIES["wire without the other vectors"]
    x, h = structure.positions.copy(), structure.cell.copy()
    w = np.array([0.3, 0.7])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    potential = backend.potential(AlchemicalSites.from_states(structure.symbols, states))
    potential.evaluate(x, h, structure.pbc, w)
    assert (x == structure.positions).all()
    assert (h == structure.cell).all()
    assert w.tolist() == [0.3, 0.7]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# --- start-up check ---------------------------------------------------------------------------


def test_check_limits_of_a_transformation(small):
    structure = salt()
    final = ("K", None, "Na", "Na", "O", "Cl", "Cl", "Cl")
    assert check_limits(small[0], Transformation(structure.symbols, final), structure) < 1e-12
    only_void = ("Na", None, *structure.symbols[2:])
    assert check_limits(small[0], Transformation(structure.symbols, only_void), structure) < 1e-12


def test_check_limits_refuses_a_wrong_backend(monkeypatch, small):
    original = AlchemicalSites.expand_edges

    def unweighted(self, senders, receivers):
        edges = original(self, senders, receivers)
        return replace(edges, weight=np.zeros_like(edges.weight))

    monkeypatch.setattr(AlchemicalSites, "expand_edges", unweighted)
    structure = salt()
    final = ("K", *structure.symbols[1:])
    with pytest.raises(ModelError, match="fails an exact limit"):
        check_limits(small[0], Transformation(structure.symbols, final), structure)


# --- refusals ---------------------------------------------------------------------------------


def test_unknown_element_is_named(small):
    with pytest.raises(ModelError, match="'small' does not know Fe, Xe; it knows Cl, K, Na, O, Rb"):
        small[0].potential(AlchemicalSites.plain(("Na", "Xe", "Fe")))


def test_overlapping_atoms(small):
    structure = Structure(("Na", "Cl"), np.zeros((2, 3)), np.eye(3) * 9)
    potential = small[0].potential(AlchemicalSites.plain(structure.symbols))
    with pytest.raises(ModelError, match="two atoms overlap"):
        potential.evaluate(structure.positions, structure.cell, structure.pbc, [])


@pytest.mark.parametrize(
    ("what", "value", "error"),
    [
        ("positions", np.zeros((3, 3)), InputError),
        ("positions", np.full((2, 3), np.nan), ModelError),
        ("cell", np.zeros((3, 3)), InputError),
        ("weights", [0.5], InputError),
        ("pbc", (True, True), InputError),
    ],
)
def test_bad_arguments(small, what, value, error):
    potential = small[0].potential(AlchemicalSites.plain(("Na", "Cl")))
    x = np.array([[0, 0, 0], [2.0, 0, 0]])
    good = {"positions": x, "cell": np.eye(3) * 9, "pbc": (True,) * 3, "weights": []}
    with pytest.raises(error):
        potential.evaluate(**{**good, what: value})


def test_chebyshev_is_refused_by_name():
    with pytest.raises(ModelError, match="radial basis ChebychevBasis is not supported"):
        MaceBackend(make_model("Residual", "Residual", L=0, radial_type="chebyshev"), "m")


@pytest.mark.parametrize("kind", ["PolarMACE", "AtomicDipolesMACE", "EnergyDipolesMACE", "MACELES"])
def test_other_models_are_refused_by_name(kind):
    other = type(kind, (torch.nn.Module,), {})()
    with pytest.raises(ModelError, match=f"is a {kind}"):
        MaceBackend(other, "m")


def test_a_forward_that_differs_from_stock_is_refused(monkeypatch):
    """As if a later mace-torch added a term."""
    model = make_model("Residual", "Residual", L=0)
    original = type(model).forward

    def later(self, data, **options):
        out = original(self, data, **options)
        return {**out, "energy": out["energy"] + 1e-3}

    monkeypatch.setattr(type(model), "forward", later)
    with pytest.raises(ModelError, match=r"in mace-torch .* which is not supported"):
        MaceBackend(model, "m")


def test_jump_at_the_cutoff_is_told(caplog):
    MaceBackend(make_model("Density", "NonLinear", L=0), "m")
    assert "energy jumps where an atom crosses the cutoff" in caplog.text
    caplog.clear()
    MaceBackend(make_model("Density", "NonLinear", L=0, apply_cutoff=False), "m")
    assert not caplog.text


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_first_evaluations_of_a_process_give_the_same_bits(dtype):
    """TorchScript optimises during the first calls; a restart must not see that."""
    structure = salt()
    sites = AlchemicalSites.from_states(structure.symbols, STATES)
    potential = MaceBackend(
        make_model("Density", "DensityResidual"), "m", dtype=dtype, evaluator="stock"
    ).potential(sites)
    weights = np.linspace(0.2, 0.6, 5)
    found = [
        potential.evaluate(structure.positions, structure.cell, structure.pbc, weights)
        for _ in range(6)
    ]
    assert len({(f.energy, f.forces.tobytes(), f.virial.tobytes()) for f in found}) == 1
    assert len({f.weight_gradient.tobytes() for f in found}) == 1


def test_subclasses_are_refused():
    model = make_model("Residual", "Residual", L=0)
    model.__class__ = type("MyMACE", (type(model),), {})
    with pytest.raises(ModelError, match="is a MyMACE"):
        MaceBackend(model, "m")


def test_heads():
    model = make_model("Residual", "Residual", L=0, heads=("mp", "omol"))
    with pytest.raises(ModelError, match="several heads, choose one: mp, omol"):
        MaceBackend(model, "m")
    with pytest.raises(ModelError, match=r"did you mean 'omol'.*it has mp, omol"):
        MaceBackend(model, "m", head="omoll")
    assert MaceBackend(model, "m", head="omol").head == 1


def test_features_of_the_joint_embedding():
    plain = make_model("Residual", "Residual", L=0)
    embedded = make_model("Residual", "Residual", L=0, embedding_specs=CHARGE_AND_SPIN)
    structure = salt()
    with pytest.raises(ModelError, match="takes no feature 'total_charge'"):
        MaceBackend(plain, "m", features={"total_charge": 1})
    with pytest.raises(ModelError, match="did you mean 'total_spin'"):
        MaceBackend(embedded, "m", features={"total_spn": 1})
    backend = MaceBackend(embedded, "m", features={"total_charge": 2})
    found = backend.potential(AlchemicalSites.plain(structure.symbols)).evaluate(
        structure.positions, structure.cell, structure.pbc, []
    )
    expected = stock(embedded, structure, features={"total_charge": 2})
    assert difference(found, expected) < EXACT
    two_groups = AlchemicalSites.from_states(structure.symbols, STATES)
    own = [{}, {"total_charge": 1}, {}, {"total_charge": 1}, {}]
    with pytest.raises(InputError, match="only the states of one group"):
        backend.potential(two_groups, own)


def test_every_block_is_in_the_zoo():
    used = {o[k] for o in ZOO.values() for k in ("first", "later")}
    assert used == set(BLOCKS)
