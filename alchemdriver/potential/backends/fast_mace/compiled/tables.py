"""Radial weights of a frozen layer as piecewise polynomials of the distance, with their slopes.

A frozen network is a function of the distance alone (of distance and pair of species under a
distance transform), so it is tabulated at load: the *derivative* is interpolated at Chebyshev
nodes of every interval and integrated, which keeps the rounding of the values out of the slope.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..threads import bounds_of, share
from . import loops

__all__ = ["NotCompiled", "RadialTable", "make_table"]

SHORTEST = 0.5  # Å; below it the network itself is called, see docs/evaluator.md
_POWERS = 8  # coefficients of an interval
_WANTED = {torch.float64: (2e-14, 2e-13), torch.float32: (2e-8, 2e-7)}  # of value and slope
_INTERVALS = {torch.float64: (200, 400, 800), torch.float32: (50, 100, 200)}

# lengths [m, 1] Å of one pair of species -> weights [m, W], differentiable
Network = Callable[[torch.Tensor], torch.Tensor]


class NotCompiled(Exception):
    """The part of a model that the compiled evaluator does not know, in a few words."""


@dataclass(frozen=True)
class RadialTable:
    """W functions of the distance for each of T pairs of species.

    value_error and slope_error: the largest deviations from the network, between the nodes, as
    fractions of its largest value and slope.
    """

    networks: tuple[Network, ...]  # [T] in float64
    coefficients: np.ndarray  # [T, intervals, powers, W], of t = -1 … 1 in an interval
    stop: float  # Å
    value_error: float
    slope_error: float

    def fill(
        self,
        lengths: np.ndarray,
        order: np.ndarray,
        table: np.ndarray,
        value: np.ndarray,
        slope: np.ndarray,
    ) -> None:
        """value and slope [R, W] at *lengths* (R,) Å for the species pairs *table* (R,).

        order: rows by length.
        """
        per_length = self.coefficients.shape[1] / (self.stop - SHORTEST)
        rest = (lengths, order, table, self.coefficients, SHORTEST, per_length, value, slope)
        share(bounds_of(len(order)), lambda _, a, b: loops.radial_table(a, b, *rest))
        near = order[: np.searchsorted(lengths[order], SHORTEST)]
        for t in np.unique(table[near]):
            rows = near[table[near] == t]
            value[rows], slope[rows] = _value_and_slope(self.networks[t], lengths[rows])


def make_table(networks: Sequence[Network], stop: float, dtype: torch.dtype) -> RadialTable:
    """Tables from :data:`SHORTEST` to *stop* Å with as few intervals as the precision asks for.

    Raises NotCompiled where no number of intervals comes near enough to the networks.
    """
    for intervals in _INTERVALS[dtype]:
        fits = [_fit(network, intervals, _POWERS, stop) for network in networks]
        value_error = max(fit[1] for fit in fits)
        slope_error = max(fit[2] for fit in fits)
        if value_error <= _WANTED[dtype][0] and slope_error <= _WANTED[dtype][1]:
            break
    if value_error > 50.0 * _WANTED[dtype][0] or slope_error > 50.0 * _WANTED[dtype][1]:
        raise NotCompiled(
            f"tables of its radial weights err by {value_error:.0e}, of their slope by "
            f"{slope_error:.0e}"
        )
    coefficients = np.stack([fit[0] for fit in fits])
    precision = {torch.float64: np.float64, torch.float32: np.float32}[dtype]
    return RadialTable(
        tuple(networks),
        np.ascontiguousarray(coefficients, precision),
        stop,
        value_error,
        slope_error,
    )


def _fit(
    network: Network, intervals: int, powers: int, stop: float
) -> tuple[np.ndarray, float, float]:
    """Coefficients [intervals, powers, W]; errors of value and slope between nodes."""
    nodes = np.cos(np.pi * (np.arange(powers - 1) + 0.5) / (powers - 1))  # [powers-1]
    # the error is largest at the ends, and of one size between any two nodes
    between = np.array([-1.0, 0.5 * (nodes[0] + nodes[1]), 0.5 * (nodes[3] + nodes[4]), 1.0])
    half = 0.5 * (stop - SHORTEST) / intervals
    middle = SHORTEST + half * (2 * np.arange(intervals) + 1)
    at = np.concatenate([nodes, between])
    lengths = np.minimum(middle[:, None] + half * at, stop * (1.0 - 1e-15))
    value, slope = (
        a.reshape(*lengths.shape, -1) for a in _value_and_slope(network, lengths.ravel())
    )  # [intervals, nodes, W]
    n = len(nodes)
    to_powers = np.linalg.inv(np.vander(nodes, powers - 1, increasing=True))
    of_slope = np.einsum("qn,inw->iqw", to_powers, slope[:, :n])
    power = np.arange(1, powers)
    integrated = half * of_slope / power[:, None]
    # the constant that leaves the least error at the nodes
    without = np.einsum("nq,iqw->inw", nodes[:, None] ** power, integrated)
    constant = (value[:, :n] - without).mean(axis=1, keepdims=True)
    coefficients = np.concatenate([constant, integrated], axis=1)
    found = np.einsum("nq,iqw->inw", np.vander(between, powers, increasing=True), coefficients)
    found_slope = np.einsum(
        "nq,iqw->inw", np.vander(between, powers - 1, increasing=True), of_slope
    )
    return (
        coefficients,
        _largest(found - value[:, n:]) / _largest(value),
        _largest(found_slope - slope[:, n:]) / _largest(slope),
    )


def _largest(values: np.ndarray) -> float:
    return max(float(np.abs(values).max(initial=0.0)), np.finfo(float).tiny)


def _value_and_slope(network: Network, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[m, W] each, in float64.

    Σ_w v_w dy_w/dd is linear in v: its gradient by v is the slope of every weight at once.
    """
    with torch.inference_mode(False), torch.enable_grad():
        d = torch.from_numpy(lengths).unsqueeze(1).requires_grad_()
        value = network(d)
        v = torch.ones_like(value, requires_grad=True)
        (along,) = torch.autograd.grad(value, d, v, create_graph=True)
        (slope,) = torch.autograd.grad(along.sum(), v)
    return value.detach().numpy(), slope.numpy()
