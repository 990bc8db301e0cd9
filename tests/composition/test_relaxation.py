"""Relaxed mixtures and their derivatives, on the embedded model; ends against stock relaxations."""

from __future__ import annotations

from functools import lru_cache

import mace  # noqa: F401  must come before e3nn
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from alchemdriver.composition.differentiable import Crystal
from alchemdriver.composition.mixture import Mixture
from alchemdriver.composition.objectives import (
    AtFixedCell,
    AtRelaxedCell,
    State,
    biaxial_stress,
    cell_length,
    energy_difference,
    hydrostatic_stress,
)
from alchemdriver.composition.optimize import joint_descent, optimize
from alchemdriver.composition.relaxation import Settings, relax, relax_atoms
from alchemdriver.composition.scan import scan, table
from alchemdriver.errors import InputError, RunError
from alchemdriver.potential.checks import difference_quotient, relative
from alchemdriver.potential.open import open_model

TIGHT = {"force": 1e-6, "stress": 1e-8, "optimiser": "bfgs"}
LOOSE = {"force": 5e-3, "stress": 1e-4, "optimiser": "bfgs"}


@lru_cache
def demo():
    return open_model("demo")


def perovskite(c_over_a: float = 1.0, edge: float = 6.35, off: float = 0.0) -> Atoms:
    """CsPbI3, five atoms: cubic, tetragonal, or with Pb and the halides off their places (P4mm)."""
    return Atoms(
        "CsPbI3",
        scaled_positions=[
            [0.5, 0.5, 0.5],
            [0, 0, 1.5 * off],
            [0.5, 0, off],
            [0, 0.5, off],
            [0, 0, 0.5],
        ],
        cell=[edge, edge, edge * c_over_a],
        pbc=True,
    )


def mixture(**shape) -> Mixture:
    return Mixture.from_text(perovskite(**shape), ["Pb->Sn"])


def film() -> Mixture:
    """a and b held below the relaxed edge of 6.39 Å, c free."""
    return mixture(c_over_a=1.01)


@pytest.mark.parametrize("optimiser", ["fire", "bfgs"])
def test_ends_are_ordinary_relaxations(optimiser):
    settings = Settings(force=1e-4, stress=1e-6, optimiser=optimiser)
    for weights, element in (([1.0, 0.0], "Pb"), ([0.0, 1.0], "Sn")):
        plain = perovskite()
        plain.symbols[1] = element
        found = relax(mixture(), weights, demo(), settings)
        expected = relax_atoms(plain, demo(), settings)
        assert found.lengths == pytest.approx(expected.cell.lengths(), abs=1e-6)
        assert found.energy == pytest.approx(expected.info["energy"], abs=1e-8)


def test_relaxed_cubic_cell_is_the_minimum_of_an_energy_curve():
    """A parabola through E(a) of plain evaluations around the relaxed edge: no optimiser in it."""
    m, w = mixture(), np.array([0.6, 0.4])
    found = relax(m, w, demo(), Settings(**TIGHT))
    potential = m.potential(demo())
    fractional = m.atoms.get_scaled_positions()

    def energy(a):
        cell = a * np.eye(3)
        return potential.evaluate(fractional @ cell, cell, (True,) * 3, w).energy

    a0 = found.lengths[0]
    assert found.lengths == pytest.approx([a0] * 3, abs=1e-9)
    assert difference_quotient(lambda t: energy(a0 + t), 1e-3) == pytest.approx(0.0, abs=1e-5)
    assert energy(a0) < min(energy(a0 - 0.01), energy(a0 + 0.01))


def test_symmetry_is_kept_when_asked_and_broken_when_not():
    kept = relax(mixture(off=0.01), [0.5, 0.5], demo(), Settings(**LOOSE))
    x = kept.atoms.get_scaled_positions()
    assert x[2, 2] == pytest.approx(x[3, 2], abs=1e-10)  # the two equatorial halides
    assert kept.lengths[0] == pytest.approx(kept.lengths[1], abs=1e-10)
    m = mixture()
    m.atoms.rattle(0.05, seed=2)
    free = relax(m, [0.5, 0.5], demo(), Settings(symmetry=False, **LOOSE))
    assert abs(free.lengths[0] - free.lengths[1]) > 1e-6


def test_symmetry_counts_mixed_sites_as_their_own_kind():
    """One Pb of two mixed: sites that differ must not be made equal by the parent's symmetry."""
    pair = Mixture.from_text(perovskite().repeat((1, 1, 2)), ["Pb[1]->Sn"])
    found = relax(pair, [0.0, 1.0], demo(), Settings(**LOOSE))
    expected = relax_atoms(pair.pure([1]), demo(), Settings(**LOOSE))
    assert found.energy == pytest.approx(expected.info["energy"], abs=1e-6)
    x = found.atoms.get_scaled_positions()
    assert abs(x[9, 2] + x[4, 2] - 1.0) < 1e-6  # mirror images about the mixed site …
    assert abs(x[4, 2] - 0.25) > 1e-4  # … and no longer half way between unlike neighbours


def test_held_axes_stay():
    found = relax(film(), [0.5, 0.5], demo(), Settings(cell="c-only", **TIGHT))
    assert found.lengths[:2] == pytest.approx([6.35, 6.35], abs=1e-12)
    assert abs(found.stress[2]) < 1e-8
    assert abs(found.stress[0]) > 1e-4
    fixed = relax(mixture(off=0.01), [0.5, 0.5], demo(), Settings(cell="fixed", **LOOSE))
    assert fixed.lengths == pytest.approx([6.35] * 3, abs=1e-12)
    assert fixed.force < 5e-3


def test_a_cubic_cell_cannot_keep_its_symmetry_and_move_c_alone():
    with pytest.raises(InputError, match="the space group ties the free strains to held ones"):
        relax(mixture(), [0.5, 0.5], demo(), Settings(cell="c-only"))


def test_no_convergence_and_bad_settings_are_one_line():
    with pytest.raises(RunError, match=r"Pb 0.5 Sn 0.5: not relaxed after 2 steps: force"):
        relax(mixture(), [0.5, 0.5], demo(), Settings(steps=2))
    with pytest.raises(InputError, match="did you mean 'bfgs'"):
        Settings(optimiser="bffgs")
    with pytest.raises(InputError, match="cell: expected one of free"):
        Settings(cell="volume")


def test_scan_resumes_and_refuses_another_model(tmp_path):
    settings = Settings(force=1e-2, stress=1e-4, optimiser="bfgs")
    seen = []
    args = (mixture(), [[1, 0], [0.5, 0.5], [0, 1]], demo(), settings, tmp_path / "scan.jsonl")
    first = scan(*args[:1], args[1][:2], *args[2:], report=seen.append)
    assert len(seen) == 2
    again = scan(*args)
    assert again.points[0].energy == first.points[0].energy
    assert again.points[1].atoms.positions == pytest.approx(first.points[1].atoms.positions)
    assert "Δ" in table(again)
    with pytest.raises(RunError, match="settings"):
        scan(*args[:3], Settings(force=2e-2, stress=1e-4, optimiser="bfgs"), args[4])
    with pytest.raises(RunError, match="model_digest"):
        scan(*args, model_digest="other")


# --- derivatives ------------------------------------------------------------------------------

W = [0.65, 0.35]


def gradient_and_difference(objective, weights, step=1e-3):
    w = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    objective([w]).backward()
    slopes = [
        difference_quotient(
            lambda t, e=e: objective([w.detach() + t * torch.from_numpy(e)]).item(), step
        )
        for e in np.eye(len(weights))
    ]
    return w.grad.numpy(), np.array(slopes)


@pytest.mark.parametrize(
    "function",
    [
        biaxial_stress,
        hydrostatic_stress,
        lambda s: (s.stress**2).sum() + s.energy.square() * 1e-4 + s.weights[0] * s.stress[2, 2],
    ],
    ids=["biaxial", "hydrostatic", "a user's"],
)
def test_gradient_of_stress_with_composition(function):
    """∂σ/∂λ from differences of exact ∂E/∂λ against differences of σ itself."""
    objective = AtFixedCell(mixture(c_over_a=1.03, off=0.02), demo(), function)
    found, expected = gradient_and_difference(objective, W)
    assert relative(found, expected) < 1e-6


def test_gradient_of_stress_with_cell_and_positions():
    crystal = Crystal(mixture().potential(demo()))
    rng = np.random.default_rng(0)
    w = torch.tensor(W, dtype=torch.float64)
    tensors = [
        torch.tensor(6.3 * np.eye(3) + rng.normal(size=(3, 3)) * 0.1, requires_grad=True),
        torch.tensor(
            perovskite(off=0.02).get_scaled_positions() + rng.normal(size=(5, 3)) * 0.01,
            requires_grad=True,
        ),
    ]
    g = torch.tensor(rng.normal(size=(3, 3)))

    def loss(cell, fractional):
        energy, stress = crystal(w, cell, fractional)
        return (g * stress).sum() + 0.01 * energy

    loss(*tensors).backward()
    for n, tensor in enumerate(tensors):
        u = torch.tensor(rng.normal(size=tensor.shape))
        moved = [t.detach() for t in tensors]

        def along(t, n=n, u=u, moved=moved):
            return loss(*[x + t * u if m == n else x for m, x in enumerate(moved)]).item()

        expected = difference_quotient(along, 1e-4)
        assert float((tensor.grad * u).sum()) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_a_relaxed_edge():
    """The implicit derivative against differences between relaxations."""
    objective = AtRelaxedCell(mixture(), demo(), cell_length("a", 6.0), Settings(**TIGHT))
    found, expected = gradient_and_difference(objective, W, step=4e-3)
    assert relative(found, expected) < 1e-4


def test_gradient_of_the_stress_of_a_film_and_the_mutant_without_response():
    """∂σ/∂λ at the relaxed c alone is not the derivative of a film's stress."""
    settings = Settings(cell="c-only", **TIGHT)
    objective = AtRelaxedCell(film(), demo(), biaxial_stress, settings)
    found, expected = gradient_and_difference(objective, W, step=4e-3)
    assert relative(found, expected) < 1e-4
    m = film()
    held = Mixture(objective.relaxation.relax(np.array(W)).atoms, m.sublattices, m.labels)
    partial, _ = gradient_and_difference(AtFixedCell(held, demo(), biaxial_stress), W)
    assert relative(partial, expected) > 1e-2


def test_gradient_with_free_positions_and_two_edges_on_chgnet():
    """Wurtzite (Al,Sc)N: a, c and u respond together.  The step is small because CHGNet bends over
    1e-3 of a weight; relaxations are converged to match."""
    pytest.importorskip("chgnet", reason="the optional package chgnet is not installed")
    m = Mixture.from_text(bulk("AlN", "wurtzite", a=3.19, c=5.07), ["Al->Sc"])
    backend = open_model("chgnet-0.3.0")
    settings = Settings(force=1e-7, stress=1e-9, optimiser="bfgs")

    def function(s):
        return s.cell[2, 2] + 10.0 * (s.fractional[2, 2] - s.fractional[0, 2])

    objective = AtRelaxedCell(m, backend, function, settings)
    w = torch.tensor([0.8, 0.2], dtype=torch.float64, requires_grad=True)
    objective([w]).backward()
    along = torch.tensor([-1.0, 1.0], dtype=torch.float64)

    def value(t):
        return objective([w.detach() + t * along]).item()

    expected = difference_quotient(value, 1e-4)
    assert float(w.grad @ along) == pytest.approx(expected, rel=2e-3)


def test_relaxed_energy_has_no_response_term():
    """Hellmann–Feynman: at the minimum dE/dλ is ∂E/∂λ."""
    objective = AtRelaxedCell(mixture(), demo(), lambda s: s.energy, Settings(**TIGHT))
    w = torch.tensor(W, dtype=torch.float64, requires_grad=True)
    objective([w]).backward()
    assert w.grad.numpy() == pytest.approx(objective.relaxation.last.weight_gradient, abs=1e-5)


def test_only_float64_on_the_cpu():
    with pytest.raises(InputError, match="float64"):
        AtFixedCell(mixture(), demo(), biaxial_stress)([torch.tensor([0.5, 0.5])])


# --- the whole descent ------------------------------------------------------------------------


def test_descent_finds_the_composition_of_a_given_cell():
    """Forward: relax at a composition nobody tells the descent; backward: find it from the edge."""
    secret = 0.3173
    settings = Settings(force=1e-5, stress=1e-7, optimiser="bfgs")
    edge = relax(mixture(), [1 - secret, secret], demo(), settings).lengths[0]
    relaxed = AtRelaxedCell(mixture(), demo(), cell_length("a", edge), settings)
    found = optimize(relaxed, [[0.9, 0.1]], 1e-5)
    assert found.met
    assert found.best.compositions[0][1] == pytest.approx(secret, abs=1e-3)
    held = mixture(edge=edge)
    stress = optimize(AtFixedCell(held, demo(), hydrostatic_stress), [[0.9, 0.1]], 1e-7)
    assert stress.best.compositions[0][1] == pytest.approx(secret, abs=1e-3)


@pytest.mark.parametrize("rate", [2.0, 200.0])
def test_joint_descent_ends_at_the_composition_that_has_the_edge(rate):
    """Whatever rate it begins with, and although abs() has a kink there."""
    edge = relax(mixture(), [0.5, 0.5], demo(), Settings(**TIGHT)).lengths[0]
    m = mixture(edge=edge, c_over_a=1.01)
    joint = joint_descent(
        *(m, demo(), biaxial_stress, [0.8, 0.2], rate),
        rate_c=0.4,
        steps=100,
        tolerance=1e-6,
    )
    assert all(abs(s.weights.sum() - 1) < 1e-15 and s.weights.min() >= 0 for s in joint)
    assert len(joint) < 100
    assert joint[-1].weights[1] == pytest.approx(0.5, abs=2e-3)


def test_energy_difference_between_two_polymorphs_is_differentiable():
    energy = [AtFixedCell(mixture(off=off), demo(), lambda s: s.energy) for off in (0.02, 0.0)]
    found, expected = gradient_and_difference(energy_difference(*energy, target=5.0), W)
    assert relative(found, expected) < 1e-6


def test_a_user_function_sees_the_whole_state():
    seen = []

    def function(state: State):
        seen.append([tuple(t.shape) for t in state])
        return state.stress.square().sum()

    AtFixedCell(mixture(), demo(), function)([torch.tensor(W, dtype=torch.float64)])
    assert seen == [[(), (3, 3), (3, 3), (5, 3), (2,)]]


def test_chgnet_ends_are_those_of_stock_relaxations():
    """CeO2 and ZrO2 of figure S3, to 1e-4 Å; all other ends are in benchmarks/chgnet_ends.json."""
    pytest.importorskip("chgnet", reason="the optional package chgnet is not installed")
    from helpers import stock_chgnet

    fluorite = bulk("CeO2", "fluorite", a=5.41)
    m = Mixture.from_text(fluorite, ["Ce->Zr"])
    backend = open_model("chgnet-0.3.0")
    for weights, element in (([1.0, 0.0], "Ce"), ([0.0, 1.0], "Zr")):
        plain = fluorite.copy()
        plain.symbols[0] = element
        expected = stock_chgnet.relaxed(plain, 1e-4, 1e-6).cell.lengths()
        found = relax(m, weights, backend, Settings(force=1e-4, stress=1e-6, optimiser="bfgs"))
        assert np.abs(found.lengths - expected).max() < 1e-4
