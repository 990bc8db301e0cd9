"""The compiled loops over nodes: symmetric contraction, mixtures, readouts.

Rows of degree l come first by degree, then by node, then by component: component a of node i is
row base[a] + i·step[a].  C: channels.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...numba_options import compiled

__all__ = [
    "add_to_shared",
    "add_to_split",
    "density",
    "density_slope",
    "mixture_slope",
    "polynomial",
    "polynomial_slope",
    "readout",
]


@compiled
def polynomial(
    first: int,
    last: int,
    element: ndarray,
    places: ndarray,
    scale: ndarray,
    x: ndarray,
    index: ndarray,
    coefficients: ndarray,
    value: ndarray,
) -> None:
    """value = Σ over monomials t x_a x_b x_c of scaled x, nodes first … last-1.

    places [D, 2]: base and step; scale [n]; x and value: rows of C; index [M, 4]: output component
    and a ≤ b ≤ c, D of which stands for 1; coefficients [Z, M, C].
    """
    width, channels = len(places), x.shape[1]
    here = np.ones((width + 1, channels), x.dtype)
    for node in range(first, last):
        z = element[node]
        for a in range(width):
            row = x[places[a, 0] + node * places[a, 1]]
            for k in range(channels):
                here[a, k] = scale[node] * row[k]
        for w in range(len(value) // len(element)):
            value[places[w, 0] + node * places[w, 1]] = 0
        for m in range(len(index)):
            w = index[m, 0]
            t, to = coefficients[z, m], value[places[w, 0] + node * places[w, 1]]
            a, b, c = here[index[m, 1]], here[index[m, 2]], here[index[m, 3]]
            for k in range(channels):
                to[k] += t[k] * a[k] * b[k] * c[k]


@compiled
def polynomial_slope(
    first: int,
    last: int,
    element: ndarray,
    places: ndarray,
    scale: ndarray,
    x: ndarray,
    index: ndarray,
    coefficients: ndarray,
    upstream: ndarray,
    slope: ndarray,
    to_scale: ndarray,
) -> None:
    """slope (like x): upstream (like value) times the gradient of :func:`polynomial`; to_scale."""
    width, channels = len(places), x.shape[1]
    here = np.ones((width + 1, channels), x.dtype)
    along = np.empty((width + 1, channels), x.dtype)
    scaled = np.empty(channels, x.dtype)
    for node in range(first, last):
        z = element[node]
        for a in range(width):
            row = x[places[a, 0] + node * places[a, 1]]
            for k in range(channels):
                here[a, k] = scale[node] * row[k]
        along[:] = 0
        for m in range(len(index)):
            w, a, b, c = index[m]
            g, t = upstream[places[w, 0] + node * places[w, 1]], coefficients[z, m]
            for k in range(channels):
                scaled[k] = t[k] * g[k]
            # one factor at a time: factors may be the same
            for k in range(channels):
                along[a, k] += scaled[k] * here[b, k] * here[c, k]
            if b < width:
                for k in range(channels):
                    along[b, k] += scaled[k] * here[a, k] * here[c, k]
            if c < width:
                for k in range(channels):
                    along[c, k] += scaled[k] * here[a, k] * here[b, k]
        total = 0.0
        for a in range(width):
            row, to = (
                x[places[a, 0] + node * places[a, 1]],
                slope[places[a, 0] + node * places[a, 1]],
            )
            for k in range(channels):
                total += along[a, k] * row[k]
                to[k] = scale[node] * along[a, k]
        to_scale[node] = total


@compiled
def readout(hidden: ndarray, weights: ndarray, lam: ndarray, energy: ndarray) -> None:
    """energy [n] += Σ silu(hidden) · weights; hidden [n, H] becomes λ times the slope of that."""
    for i in range(len(hidden)):
        for h in range(hidden.shape[1]):
            x = float(hidden[i, h])
            logistic = 1.0 / (1.0 + np.exp(-x))
            energy[i] += weights[h] * x * logistic
            hidden[i, h] = lam[i] * weights[h] * logistic * (1.0 + x * (1.0 - logistic))


# --- sites ----------------------------------------------------------------------------------
#
# rows [n+S, …]: nodes, then one row for each site (or for each node of a site); split: nodes of
# sites, shared: which of the S rows is theirs.


@compiled
def add_to_split(rows: ndarray, split: ndarray, shared: ndarray, n: int) -> None:
    """rows of the nodes of a site += the row that they share; the slope of a sum of them."""
    for k in range(len(split)):
        to, source = rows[split[k]], rows[n + shared[k]]
        for m in range(rows.shape[1]):
            for c in range(rows.shape[2]):
                to[m, c] += source[m, c]


@compiled
def add_to_shared(rows: ndarray, split: ndarray, shared: ndarray, factor: ndarray, n: int) -> None:
    """The rows that sites share = Σ factor · rows of their nodes."""
    rows[n:] = 0
    for k in range(len(split)):
        to, source, f = rows[n + shared[k]], rows[split[k]], factor[k]
        for m in range(rows.shape[1]):
            for c in range(rows.shape[2]):
                to[m, c] += f * source[m, c]


@compiled
def mixture_slope(
    rows: ndarray,
    to_rows: ndarray,
    split: ndarray,
    shared: ndarray,
    factor: ndarray,
    n: int,
    to_factor: ndarray,
) -> None:
    """to_factor [split, float64] and to_rows of nodes += slopes of :func:`add_to_shared`."""
    for k in range(len(split)):
        to, come = to_rows[split[k]], to_rows[n + shared[k]]
        source, f = rows[split[k]], factor[k]
        total = 0.0
        for m in range(rows.shape[1]):
            for c in range(rows.shape[2]):
                total += come[m, c] * source[m, c]
                to[m, c] += f * come[m, c]
        to_factor[k] += total


# --- densities ------------------------------------------------------------------------------
#
# sent [n+S]: 1 of nodes, Σ λ of the rows that sites share.


@compiled
def density(
    starts: ndarray, receiver: ndarray, sender: ndarray, value: ndarray, sent: ndarray, out: ndarray
) -> None:
    """out [n+S] += Σ over edges of value [R] · sent."""
    for row in range(len(value)):
        for e in range(starts[row], starts[row + 1]):
            out[receiver[e]] += value[row] * sent[sender[e]]


@compiled
def density_slope(
    starts: ndarray,
    pair_of_row: ndarray,
    receiver: ndarray,
    sender: ndarray,
    value: ndarray,
    slope: ndarray,
    sent: ndarray,
    upstream: ndarray,
    to_lengths: ndarray,
    to_sent: ndarray,
) -> None:
    """Adds to to_lengths [P] and to_sent [n+S] the gradients of :func:`density`."""
    for row in range(len(value)):
        along = 0.0
        for e in range(starts[row], starts[row + 1]):
            along += upstream[receiver[e]] * sent[sender[e]]
            to_sent[sender[e]] += upstream[receiver[e]] * value[row]
        to_lengths[pair_of_row[row]] += along * slope[row]
