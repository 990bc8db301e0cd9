"""Optimisers on the simplex: they stay there, find known minima, say which targets they miss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from alchemdriver.composition.optimize import optimize
from alchemdriver.composition.simplex import (
    ExponentiatedGradient,
    ProjectedGradient,
    project_to_simplex,
)
from alchemdriver.errors import InputError

vectors = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6)


def on_simplex(p) -> bool:
    p = torch.as_tensor(p)
    return bool((p >= 0).all()) and abs(float(p.sum()) - 1.0) < 1e-15 * (len(p) + 1)


@settings(max_examples=100, deadline=None)
@given(vectors)
def test_projection_is_the_nearest_point(values):
    """Optimality: (v − p)·(q − p) ≤ 0 for every vertex q of the simplex (and so for all of it)."""
    v = torch.tensor(values, dtype=torch.float64)
    p = project_to_simplex(v)
    assert on_simplex(p)
    for q in torch.eye(len(v), dtype=torch.float64):
        assert float((v - p) @ (q - p)) <= 1e-9 * max(1.0, float(v.abs().max()) ** 2)


def test_projection_against_a_general_solver():
    v = np.array([0.9, 0.6, -0.3, 0.1])
    found = minimize(
        lambda p: np.sum((p - v) ** 2),
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    assert project_to_simplex(torch.tensor(v)).numpy() == pytest.approx(found.x, abs=1e-6)


@pytest.mark.parametrize("kind", [ProjectedGradient, ExponentiatedGradient])
@settings(max_examples=50, deadline=None)
@given(gradient=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), lr=st.floats(1e-6, 1e6))
def test_every_step_stays_on_the_simplex(kind, gradient, lr):
    p = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    optimizer = kind([p], lr=lr)
    for sign in (1.0, -1.0, 1.0):
        p.grad = sign * torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        assert on_simplex(p.detach())


def test_exponentiated_gradient_is_equation_16():
    start, gradient, rate = np.array([0.2, 0.5, 0.3]), np.array([0.3, -1.0, 2.0]), 0.7
    p = torch.tensor(start, requires_grad=True)
    p.grad = torch.tensor(gradient)
    ExponentiatedGradient([p], lr=rate).step()
    raised = start * np.exp(-rate * gradient)
    assert p.detach().numpy() == pytest.approx(raised / raised.sum(), rel=1e-14)


def test_projected_gradient_subtracts_the_mean_away_from_the_edges():
    """Section IV.B of the paper."""
    start, gradient = np.array([0.4, 0.6]), np.array([1.0, 3.0])
    p = torch.tensor(start, requires_grad=True)
    p.grad = torch.tensor(gradient)
    ProjectedGradient([p], lr=0.01).step()
    assert p.detach().numpy() == pytest.approx(start - 0.01 * (gradient - 2.0), abs=1e-15)


def test_wrong_starts_and_rates_are_refused():
    with pytest.raises(InputError, match="sum to 1"):
        ProjectedGradient([torch.tensor([0.5, 0.6], dtype=torch.float64)], lr=0.1)
    with pytest.raises(InputError, match="learning rate"):
        ExponentiatedGradient([torch.tensor([0.5, 0.5])], lr=0.0)


# --- descents with known ends -----------------------------------------------------------------

TARGET = torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)


@pytest.mark.parametrize("method", ["projected", "exponentiated"])
def test_quadratic_inside_the_simplex(method):
    def distance(points):
        return (points[0] - TARGET).square().sum()

    found = optimize(distance, [[0.6, 0.3, 0.1]], 1e-12, method)
    assert found.met
    assert found.best.compositions[0] == pytest.approx(TARGET.numpy(), abs=2e-6)
    assert all(on_simplex(c) for step in found.history for c in step.compositions)


@pytest.mark.parametrize("method", ["projected", "exponentiated"])
def test_absolute_value_ends_on_its_kink(method):
    """abs(a(λ) − a₀) with a linear in λ, as Vegard's law: the paper's kind of objective."""
    edges = torch.tensor([5.14, 5.64, 6.29], dtype=torch.float64)

    def mismatch(points):
        return (points[0] @ edges - 5.64).abs()

    found = optimize(mismatch, [[0.3, 0.1, 0.6]], 1e-6, method)
    assert found.met
    assert float(torch.tensor(found.best.compositions[0]) @ edges) == pytest.approx(5.64, abs=1e-6)


def test_several_sublattices_move_together_and_keep_their_own_simplex():
    def objective(points):
        return (points[0][1] - 2 * points[1][0]).abs() + (points[1][0] - 0.3).square()

    found = optimize(objective, [[0.5, 0.5], [0.2, 0.3, 0.5]], 1e-6)
    a, b = found.best.compositions
    assert on_simplex(a)
    assert on_simplex(b)
    assert a[1] == pytest.approx(2 * b[0], abs=1e-5)


def test_a_target_that_cannot_be_met_ends_with_the_best_point(caplog):
    """a ≤ 6.29 Å everywhere on the simplex: the best is the vertex."""
    edges = torch.tensor([5.14, 5.64, 6.29], dtype=torch.float64)
    found = optimize(lambda p: (p[0] @ edges - 7.0).abs(), [[0.4, 0.3, 0.3]], 1e-6)
    assert not found.met
    assert "target not met" in found.message
    assert "target not met" in caplog.text
    assert found.best.compositions[0] == pytest.approx([0, 0, 1], abs=1e-12)
    assert found.best.value == pytest.approx(0.71)
    assert found.best.value == min(step.value for step in found.history)


def test_a_flat_objective_and_few_steps_end_too():
    flat = optimize(lambda p: p[0].sum() * 0.0 + 1.0, [[0.5, 0.5]], 1e-6)
    assert not flat.met
    assert flat.best.compositions[0].tolist() == [0.5, 0.5]
    short = optimize(
        lambda p: (p[0] - TARGET).square().sum(), [[0.6, 0.3, 0.1]], 1e-12, max_steps=2
    )
    assert "within 2 evaluations" in short.message
    with pytest.raises(InputError, match="did you mean 'projected'"):
        optimize(lambda p: p[0].sum(), [[1.0]], 1e-6, method="projcted")
