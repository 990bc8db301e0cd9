"""∫₀¹ dλ ⟨∂H/∂λ⟩ over the λ that were run, with the weights of the rule that they are nodes of.

| nodes                                | rule           | embedded lower rule                      |
|--------------------------------------|----------------|------------------------------------------|
| Gauss–Legendre on [0, 1], n ≥ 2      | Gauss–Legendre | interpolation without the middle node    |
| 0 … 1 equally spaced, odd number ≥ 3 | Simpson        | Simpson of double spacing, or trapezoid  |
| 0 and 1 among them                   | trapezoid      | trapezoid over every other node          |

The rule is recognised from the nodes, so there is no second place that could disagree with the
inputs.  The difference from the embedded rule is the error of that lower rule: an upper estimate
of the error of the rule itself, and only meaningful beyond its own statistical error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from ...contract.nodes import gauss_legendre
from ...contract.stored import Shape
from ...errors import AnalysisError
from .estimate import ONE_SIGMA, Estimate, add, stated, student, without_error
from .fixed_lambda import Window

_SAME = 1e-6  # in λ; what printing and typing may make


@dataclass(frozen=True)
class Quadrature:
    """Weights of one rule and of a lower one on the same nodes, and by how much they differ."""

    rule: str
    nodes: Annotated[np.ndarray, Shape("n")]  # λ
    weights: Annotated[np.ndarray, Shape("n")]
    embedded_rule: str | None
    embedded: Annotated[np.ndarray, Shape("n")] | None  # None: there is no honest lower rule
    difference: float | None = None  # eV, rule minus embedded rule; None: not integrated yet
    difference_se: float | None = None  # eV, its statistical error

    def matters(self, se: float | None) -> bool:
        """Whether the rules differ by more than their noise and than *se*, the error of TI."""
        if self.difference is None or self.difference_se is None or se is None:
            return False
        return abs(self.difference) > max(2.0 * self.difference_se, se)


def quadrature(lams: Collection[float]) -> Quadrature | None:
    """The rule of which *lams* (distinct, any order) are the nodes; None if they are of none."""
    nodes = np.array(sorted(lams))
    n = len(nodes)
    if n < 2:
        return None
    exact, weights = gauss_legendre(n)
    if np.abs(nodes - exact).max() < _SAME:
        return Quadrature(f"Gauss–Legendre, {n} nodes", nodes, weights, *_without_middle(exact))
    if nodes[0] != 0.0 or nodes[-1] != 1.0:
        return None
    uniform = np.abs(np.diff(nodes) - 1.0 / (n - 1)).max() < _SAME
    if uniform and n % 2 == 1:
        lower = _on_every_other(_simpson, n) if (n - 1) % 4 == 0 else _trapezoid(nodes)
        name = "Simpson, double spacing" if (n - 1) % 4 == 0 else "trapezoid"
        return Quadrature(f"Simpson, {n} nodes", nodes, _simpson(n), name, lower)
    if n % 2 == 1:
        lower = np.zeros(n)
        lower[::2] = _trapezoid(nodes[::2])
        return Quadrature(
            f"trapezoid, {n} nodes", nodes, _trapezoid(nodes), "trapezoid, every other node", lower
        )
    return Quadrature(f"trapezoid, {n} nodes", nodes, _trapezoid(nodes), None, None)


def _trapezoid(nodes: np.ndarray) -> np.ndarray:
    d = np.diff(nodes)
    weights: np.ndarray = 0.5 * (np.concatenate([[0.0], d]) + np.concatenate([d, [0.0]]))
    return weights


def _simpson(n: int) -> np.ndarray:
    weights = np.full(n, 2.0)
    weights[1::2] = 4.0
    weights[[0, -1]] = 1.0
    return weights / (3.0 * (n - 1))


def _on_every_other(rule: Callable[[int], np.ndarray], n: int) -> np.ndarray:
    weights = np.zeros(n)
    weights[::2] = rule((n + 1) // 2)
    return weights


def _without_middle(nodes: np.ndarray) -> tuple[str | None, np.ndarray | None]:
    """Interpolatory weights on Gauss nodes less the middle one (or one of the two)."""
    n = len(nodes)
    kept = np.ones(n, dtype=bool)
    kept[n // 2] = False
    m = int(kept.sum())
    if m < 2:
        return None, None
    moments = np.zeros(m)
    moments[0] = 1.0  # ∫₀¹ of the shifted Legendre polynomials
    basis = np.polynomial.legendre.legvander(2.0 * nodes[kept] - 1.0, m - 1)  # [i, degree]
    weights = np.zeros(n)
    weights[kept] = np.linalg.solve(basis.T, moments)
    return f"interpolation through {m} of the nodes", weights


def integrate(windows: Sequence[Window]) -> tuple[Estimate, Quadrature]:
    """ΔF = ∫₀¹ dλ ⟨∂H/∂λ⟩_λ, eV; eq. 8.  Several windows at one λ are averaged.

    The SE propagates those of the windows and does not contain the error of the rule.  Raises
    AnalysisError if the λ are nodes of no rule.
    """
    lams = sorted({w.lam for w in windows})
    rule = quadrature(lams)
    if rule is None:
        raise AnalysisError(
            f"thermodynamic integration needs Gauss–Legendre nodes, or λ = 0 and 1, got {lams}"
        )
    groups = [[w.mean for w in windows if w.lam == lam] for lam in lams]
    means = np.array([np.mean([m.value for m in group]) for group in groups])
    value = float(rule.weights @ means)
    difference = None if rule.embedded is None else value - float(rule.embedded @ means)
    without = [w for w in windows if w.mean.se is None]
    if without:
        why = f"{without[0].folder.name} has no error ({without[0].mean.se_kind})"
        estimate = without_error("TI", value, why, len(lams))
        return estimate, replace(rule, difference=difference)
    kind = f"propagated over {len(lams)} values of λ; without the error of the rule ({rule.rule})"
    estimate = stated(
        "TI", value, *_propagated(rule.weights, groups), kind, len(lams),
        sd_kind="not defined for TI",
    )  # fmt: skip
    spread = None
    if rule.embedded is not None:
        sigma, dof = _propagated(rule.weights - rule.embedded, groups)
        spread = student(ONE_SIGMA, dof) * sigma
    return estimate, replace(rule, difference=difference, difference_se=spread)


def _propagated(
    weights: np.ndarray, groups: Sequence[Sequence[Estimate]]
) -> tuple[float, float | None]:
    """σ (eV) and degrees of freedom of Σ weights × mean of each group."""
    parts = [
        ((w * (m.sigma or 0.0) / len(group)) ** 2, m.dof)
        for w, group in zip(weights.tolist(), groups, strict=True)
        for m in group
    ]
    return add([v for v, _ in parts], [nu for _, nu in parts])
