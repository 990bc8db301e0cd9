"""Descent of an objective over compositions; every step on the simplex, the best point kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch

from ..contract.stored import Format, Must, Positive, Shape
from ..errors import InputError, RunError, did_you_mean
from .differentiable import Crystal
from .mixture import Mixture
from .objectives import State
from .simplex import ExponentiatedGradient, ProjectedGradient

__all__ = ["METHODS", "Optimum", "Step", "joint_descent", "optimize"]

log = logging.getLogger(__name__)

METHODS = {"projected": ProjectedGradient, "exponentiated": ExponentiatedGradient}
Objective = Callable[[Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Step:
    """One accepted point of a descent."""

    compositions: tuple[np.ndarray, ...]  # one (k_g,) per sublattice
    value: float  # of the objective
    gradient: tuple[np.ndarray, ...]  # ∂ value / ∂ compositions


@dataclass(frozen=True)
class Optimum:
    """Where a descent ended: ``best`` is the lowest value seen."""

    best: Step
    history: tuple[Step, ...]
    met: bool  # best.value <= tolerance
    message: str
    evaluations: int


Composition = Annotated[
    np.ndarray,
    Shape("k"),
    Must("weights that sum to 1", lambda c: (c >= 0).all() and abs(c.sum() - 1.0) < 1e-6),
]


@dataclass(frozen=True)
class Point:
    """One accepted point of a descent, as it stands in a file."""

    compositions: tuple[Composition, ...]  # one per sublattice
    value: float  # of the objective


@dataclass(frozen=True)
class OptimumFile:
    """The content of ``optimum.json``."""

    target: str
    tolerance: Positive  # in unit
    unit: str
    model: str
    model_digest: str
    met: bool
    states: tuple[tuple[str, ...], ...]  # of each sublattice
    best: tuple[Composition, ...]
    value: float  # of the objective at the best point, in unit
    history: tuple[Point, ...]

    def __post_init__(self) -> None:
        sizes = [len(names) for names in self.states]
        for found in (self.best, *(point.compositions for point in self.history)):
            if [len(c) for c in found] != sizes:
                raise InputError(f"expected compositions of {sizes} states, as in states")


OPTIMUM = Format("alchemdriver-optimum/1", OptimumFile, remedy="run optimize again", unsigned=True)


def optimize(
    objective: Objective,
    start: Sequence[Sequence[float]],
    tolerance: float,
    method: str = "projected",
    learning_rate: float | None = None,
    max_steps: int = 200,
    smallest_move: float = 1e-7,
) -> Optimum:
    """Minimise *objective* from *start*, one composition per sublattice.

    Steps that raise the objective are taken back and the learning rate is halved, so that absolute
    values (paper, section IV.B) end on their kink instead of jumping over it; accepted ones raise
    it by a half.  By default the first step moves the composition by about 0.1.

    Ends when the objective is at most *tolerance*, in its own unit, or when steps have become
    smaller than *smallest_move*.  A target that cannot be met is no exception: ``met`` is False and
    ``message`` says where the best point is.
    """
    if method not in METHODS:
        raise InputError(
            f"method: expected one of {', '.join(METHODS)}, got '{method}'"
            f"{did_you_mean(method, METHODS)}"
        )
    if not tolerance > 0 or max_steps < 1:
        raise InputError("tolerance and max_steps: expected positive numbers")
    point = [torch.tensor(np.asarray(c, dtype=float), requires_grad=True) for c in start]
    optimizer = METHODS[method](point, lr=learning_rate or 1.0)
    history = [_evaluate(objective, point)]
    evaluations = 1
    if learning_rate is None:
        steepest = max(np.abs(g - g.mean()).max() for g in history[0].gradient)
        rate = 0.1 / steepest if steepest > 0 else 1.0
    else:
        rate = learning_rate
    message = f"no convergence within {max_steps} evaluations"
    while history[-1].value > tolerance and evaluations < max_steps:
        here = history[-1]
        optimizer.param_groups[0]["lr"] = rate
        for p, g in zip(point, here.gradient, strict=True):
            p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        moved = max(
            float((p.detach() - torch.from_numpy(c)).abs().max())
            for p, c in zip(point, here.compositions, strict=True)
        )
        if moved < smallest_move:
            message = "no composition lowers it further"
            break
        found = _evaluate(objective, point)
        evaluations += 1
        if found.value < here.value:
            history.append(found)
            rate *= 1.5
        else:
            rate *= 0.5
            with torch.no_grad():
                for p, c in zip(point, here.compositions, strict=True):
                    p.copy_(torch.from_numpy(c))
    best = min(history, key=lambda step: step.value)
    met = best.value <= tolerance
    where = "; ".join(np.array2string(c, precision=5) for c in best.compositions)
    if met:
        message = f"target met at {where}"
    else:
        message = (
            f"target not met: {message}; the best point is {where} with {best.value:.4g}, "
            f"tolerance {tolerance:.4g}"
        )
        log.warning("%s", message)
    return Optimum(best, tuple(history), met, message, evaluations)


def _evaluate(objective: Objective, point: list[torch.Tensor]) -> Step:
    for p in point:
        p.grad = None
    value = objective(point)
    if value.requires_grad:
        value.backward()
    found = value.item()
    if not np.isfinite(found):
        raise RunError("the objective is not finite: check the function and the structure")
    return Step(
        tuple(p.detach().numpy().copy() for p in point),
        found,
        tuple(
            np.zeros(len(p)) if p.grad is None else p.grad.detach().numpy().copy() for p in point
        ),
    )


@dataclass(frozen=True)
class JointStep:
    """One step of :func:`joint_descent`."""

    weights: np.ndarray  # (k,)
    cell: np.ndarray  # (3, 3) Å
    value: float  # of the objective, eV/Å³
    stress_zz: float  # eV/Å³
    force: float  # eV/Å, largest component


def joint_descent(
    mixture: Mixture,
    backend,
    function: Callable[[State], torch.Tensor],
    weights: Sequence[float],
    rate_weights: float,
    rate_c: float = 0.05,
    rate_positions: float = 0.02,
    steps: int = 300,
    tolerance: float = 1e-5,
) -> list[JointStep]:
    """Composition, c and positions descend together at held a and b (paper, section IV.B).

    The composition (one sublattice) follows the projected gradient of *function*, c (Å) and the
    fractional coordinates that of the energy: rates in 1/[function], Å³/eV per unit of ∂E/∂c in
    eV/Å, and Å²/eV.  A fixed rate of the composition would keep jumping over the kink of an
    absolute value, so it is halved whenever the gradient turns round, and raised by a tenth
    otherwise.  Ends when *function* and abs(σ_zz) are below *tolerance* eV/Å³ and forces below 100
    times that; the list ends with the last step taken either way.
    """
    crystal = Crystal(mixture.potential(backend))
    cell = torch.tensor(mixture.atoms.cell.array)
    fractional = torch.tensor(mixture.atoms.get_scaled_positions(wrap=False))
    point = torch.tensor(np.asarray(weights, dtype=float), requires_grad=True)
    optimizer = ProjectedGradient([point], lr=rate_weights)
    rate, before = rate_weights, None
    history = []
    for _ in range(steps):
        h, x = cell.clone().requires_grad_(), fractional.clone().requires_grad_()
        energy, stress = crystal(point, h, x)
        by_cell, by_fractional = torch.autograd.grad(energy, [h, x], retain_graph=True)
        value = function(State(energy, stress, h, x, point))
        (point.grad,) = torch.autograd.grad(value, [point])
        inverse = torch.linalg.inv(cell)
        by_position = by_fractional @ inverse.T  # eV/Å
        history.append(
            JointStep(
                point.detach().numpy().copy(),
                cell.numpy().copy(),
                value.item(),
                stress[2, 2].item(),
                float(by_position.abs().max()),
            )
        )
        last = history[-1]
        worst = max(last.value, abs(last.stress_zz), last.force / 100.0)
        if worst < tolerance:
            break
        along = point.grad - point.grad.mean()
        if before is not None:
            rate *= 0.5 if along @ before < 0 else 1.1
        before = along
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        direction = cell[2] / torch.linalg.vector_norm(cell[2])
        cell = cell.clone()
        cell[2] = cell[2] - rate_c * (by_cell[2] @ direction) * direction
        fractional = fractional - rate_positions * by_position @ inverse
    return history
