"""The inner loops on a CPU, compiled by Numba: sums over edges and over monomials.

All of them run over a range of rows, so that threads can share the rest, and release Python's
lock.  The innermost loop is always the one over channels, which is contiguous and vectorised.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ..numba_options import compiled
from .compiled.loops import group

__all__ = ["group", "polynomial", "polynomial_slope", "sum_messages", "sum_messages_slope"]


@compiled
def _weigh(w: ndarray, u: ndarray, out: ndarray) -> None:
    """out [S·C] = w [C] times u [S·C], state by state."""
    channels = len(w)
    for s in range(len(u) // channels):
        part, into = u[s * channels : (s + 1) * channels], out[s * channels : (s + 1) * channels]
        for c in range(channels):
            into[c] = w[c] * part[c]


# --- messages -------------------------------------------------------------------------------
#
# weights [R, slots·C], coupled [2P, Q], senders [rows, (l1+1)², S·C]; S states side by side.
# paths [paths, 7]: slot, first component of l1, 2l1+1, 2l3+1, first column of coupled, number of
# paths to l3, row of the result where the first receiver's components of l3 and this path begin.
# The result has a row of S·C for each l3, receiver, component and path to l3, in this order.


@compiled
def sum_messages(
    first: int,
    last: int,
    starts: ndarray,
    order: ndarray,
    radial: ndarray,
    harmonic: ndarray,
    sender: ndarray,
    weights: ndarray,
    coupled: ndarray,
    senders: ndarray,
    paths: ndarray,
    out: ndarray,
) -> None:
    """out += Σ over the edges of receivers first … last-1 of w ⊙ (Y ⊗ u), eq. 6."""
    channels = weights.shape[1] // len(paths)
    weighted = np.empty(senders.shape[2], weights.dtype)
    for r in range(first, last):
        for k in range(starts[r], starts[r + 1]):
            e = order[k]
            y, u = coupled[harmonic[e]], senders[sender[e]]
            for p in range(len(paths)):
                slot, component, n1, n3, column, count, row = paths[p]
                w = weights[radial[e], slot * channels : (slot + 1) * channels]
                for m1 in range(n1):
                    _weigh(w, u[component + m1], weighted)
                    for m3 in range(n3):
                        y_m = y[column + m1 * n3 + m3]
                        to = out[row + (r * n3 + m3) * count]
                        for c in range(len(to)):
                            to[c] += y_m * weighted[c]


@compiled
def sum_messages_slope(
    first: int,
    last: int,
    starts: ndarray,
    order: ndarray,
    receiver: ndarray,
    harmonic: ndarray,
    sender: ndarray,
    weights: ndarray,
    coupled: ndarray,
    senders: ndarray,
    paths: ndarray,
    upstream: ndarray,
    to_weights: ndarray,
    to_edges: ndarray,
    to_senders: ndarray,
) -> None:
    """Gradients of :func:`sum_messages`, edge by edge of the radial rows first … last-1.

    upstream is laid out like out.  to_weights [R, slots·C] is added to, to_edges [E, Q], along the
    harmonics of every edge, is written; a row of either belongs to one radial row, and so to one
    thread.  to_senders [rows, (l1+1)², S·C] is added to by all and must be private to a thread;
    empty: not wanted.
    """
    channels = weights.shape[1] // len(paths)
    states = senders.shape[2] // channels
    weighted = np.empty(senders.shape[2], weights.dtype)
    arrived = np.empty(senders.shape[2], weights.dtype)
    zero = np.zeros(1, weights.dtype)[0]  # of the same precision
    for row_of_weights in range(first, last):
        for k in range(starts[row_of_weights], starts[row_of_weights + 1]):
            e = order[k]
            r = receiver[e]
            y, u = coupled[harmonic[e]], senders[sender[e]]
            to_y = to_edges[e]
            for p in range(len(paths)):
                slot, component, n1, n3, column, count, row = paths[p]
                w = weights[row_of_weights, slot * channels : (slot + 1) * channels]
                to_w = to_weights[row_of_weights, slot * channels : (slot + 1) * channels]
                for m1 in range(n1):
                    _weigh(w, u[component + m1], weighted)
                    at = column + m1 * n3
                    g = upstream[row + r * n3 * count]
                    along = zero
                    for c in range(len(g)):
                        along += g[c] * weighted[c]
                        arrived[c] = y[at] * g[c]
                    to_y[at] = along
                    for m3 in range(1, n3, 2):  # 2l3+1 is odd; by twos is a quarter faster
                        at = column + m1 * n3 + m3
                        g = upstream[row + (r * n3 + m3) * count]
                        g_next = upstream[row + (r * n3 + m3 + 1) * count]
                        along, along_next = zero, zero
                        for c in range(len(g)):
                            along += g[c] * weighted[c]
                            along_next += g_next[c] * weighted[c]
                            arrived[c] += y[at] * g[c] + y[at + 1] * g_next[c]
                        to_y[at], to_y[at + 1] = along, along_next
                    for s in range(states):
                        part = u[component + m1, s * channels : (s + 1) * channels]
                        came = arrived[s * channels : (s + 1) * channels]
                        for c in range(channels):
                            to_w[c] += came[c] * part[c]
                        if len(to_senders):
                            to_u = to_senders[
                                sender[e], component + m1, s * channels : (s + 1) * channels
                            ]
                            for c in range(channels):
                                to_u[c] += came[c] * w[c]


# --- polynomials ----------------------------------------------------------------------------
#
# x [n, D, C], element [n], index [M, 4] and coefficients [Z, M, C] as in ``frozen.Polynomial``.


@compiled
def polynomial(
    first: int,
    last: int,
    element: ndarray,
    x: ndarray,
    index: ndarray,
    coefficients: ndarray,
    value: ndarray,
) -> None:
    """value [n, W, C] += Σ over monomials, nodes first … last-1."""
    _, width, channels = x.shape
    here = np.ones((width + 1, channels), x.dtype)
    for node in range(first, last):
        z = element[node]
        here[:width] = x[node]
        for m in range(len(index)):
            t, to = coefficients[z, m], value[node, index[m, 0]]
            a, b, c = here[index[m, 1]], here[index[m, 2]], here[index[m, 3]]
            for k in range(channels):
                to[k] += t[k] * a[k] * b[k] * c[k]


@compiled
def polynomial_slope(
    first: int,
    last: int,
    element: ndarray,
    x: ndarray,
    index: ndarray,
    coefficients: ndarray,
    upstream: ndarray,
    slope: ndarray,
) -> None:
    """slope [n, D, C]: upstream [n, W, C] times the gradient of :func:`polynomial`."""
    _, width, channels = x.shape
    here = np.ones((width + 1, channels), x.dtype)
    along = np.empty((width + 1, channels), x.dtype)
    scaled = np.empty(channels, x.dtype)
    for node in range(first, last):
        z = element[node]
        here[:width] = x[node]
        along[:] = 0
        for m in range(len(index)):
            w, a, b, c = index[m]
            for k in range(channels):
                scaled[k] = coefficients[z, m, k] * upstream[node, w, k]
            # one factor at a time: factors may be the same
            for k in range(channels):
                along[a, k] += scaled[k] * here[b, k] * here[c, k]
            if b < width:
                for k in range(channels):
                    along[b, k] += scaled[k] * here[a, k] * here[c, k]
            if c < width:
                for k in range(channels):
                    along[c, k] += scaled[k] * here[a, k] * here[b, k]
        slope[node] = along[:width]
