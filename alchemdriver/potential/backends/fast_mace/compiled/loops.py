"""The compiled loops over pairs and edges: geometry, radial tables, sums over neighbours.

Those that take first and last run over a range of rows, so that threads can share the rest.  The
innermost loop is the one over channels, which is contiguous and vectorised.  C: channels.
"""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from ...numba_options import compiled

__all__ = [
    "edges_of_pairs",
    "geometry",
    "geometry_slope",
    "group",
    "radial_table",
    "sum_messages",
    "sum_messages_slope",
]


# --- edges ----------------------------------------------------------------------------------


@compiled
def group(keys: ndarray, n_keys: int) -> tuple[ndarray, ndarray]:
    """(starts [n_keys+1], order [E]): order[starts[k]:starts[k+1]] are the places of k in keys."""
    starts = np.zeros(n_keys + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for k in range(n_keys):
        starts[k + 1] += starts[k]
    order = np.empty(len(keys), np.int64)
    filled = starts[:-1].copy()
    for e in range(len(keys)):
        order[filled[keys[e]]] = e
        filled[keys[e]] += 1
    return starts, order


@compiled
def edges_of_pairs(
    first: ndarray,
    second: ndarray,
    node_of: ndarray,
    row_of: ndarray,
    group_of: ndarray,
) -> tuple[ndarray, ndarray, ndarray]:
    """Edges of a collapsed graph: starts [P+1] of each pair's, receiver [E], sender [E].

    Even ones run along their pair, odd ones against it.  node_of [a, 1+k]: node of an atom with α;
    row_of [a]: the row of an atom's node, or the one that the nodes of a site share; group_of [a]:
    group of a site, −1 for ordinary atoms.
    """
    states = node_of.shape[1]
    starts = np.zeros(len(first) + 1, np.int64)
    for p in range(len(first)):
        i, j = first[p], second[p]
        count = 2
        if group_of[i] >= 0 and group_of[i] == group_of[j]:
            count = 0
            for a in range(1, states):
                if node_of[i, a] >= 0 and node_of[j, a] >= 0:
                    count += 2
        starts[p + 1] = starts[p] + count
    receiver = np.empty(starts[-1], np.int64)
    sender = np.empty(starts[-1], np.int64)
    e = 0
    for p in range(len(first)):
        i, j = first[p], second[p]
        if group_of[i] >= 0 and group_of[i] == group_of[j]:
            for a in range(1, states):
                if node_of[i, a] >= 0 and node_of[j, a] >= 0:
                    sender[e], receiver[e] = node_of[i, a], node_of[j, a]
                    sender[e + 1], receiver[e + 1] = node_of[j, a], node_of[i, a]
                    e += 2
        else:
            sender[e], receiver[e] = row_of[i], row_of[j]
            sender[e + 1], receiver[e + 1] = row_of[j], row_of[i]
            e += 2
    return starts, receiver, sender


# --- geometry -------------------------------------------------------------------------------
#
# vectors [P, 3] Å, lengths [P] Å in float64; exponents [M, 3] of monomials of the unit vector, of
# which harmonics are linear combinations.


@compiled
def geometry(vectors: ndarray, exponents: ndarray, lengths: ndarray, monomials: ndarray) -> None:
    """Writes lengths [P] and monomials [P, M]."""
    power = np.ones((3, exponents.max() + 1))
    for p in range(len(vectors)):
        x, y, z = vectors[p]
        lengths[p] = np.sqrt(x * x + y * y + z * z)
        for axis in range(3):
            for n in range(1, power.shape[1]):
                power[axis, n] = power[axis, n - 1] * (vectors[p, axis] / lengths[p])
        for m in range(len(exponents)):
            a, b, c = exponents[m]
            monomials[p, m] = power[0, a] * power[1, b] * power[2, c]


@compiled
def geometry_slope(
    vectors: ndarray,
    exponents: ndarray,
    lengths: ndarray,
    to_lengths: ndarray,
    to_monomials: ndarray,
    slope: ndarray,
) -> None:
    """slope [P, 3]: ∂E/∂r from ∂E/∂d [P] and ∂E/∂(monomials) [P, M]."""
    power = np.ones((3, exponents.max() + 1))
    unit, to_unit = np.empty(3), np.empty(3)
    for p in range(len(vectors)):
        for axis in range(3):
            unit[axis] = vectors[p, axis] / lengths[p]
            to_unit[axis] = 0.0
            for n in range(1, power.shape[1]):
                power[axis, n] = power[axis, n - 1] * unit[axis]
        for m in range(len(exponents)):
            a, b, c = exponents[m]
            g = float(to_monomials[p, m])
            if a > 0:
                to_unit[0] += g * a * power[0, a - 1] * power[1, b] * power[2, c]
            if b > 0:
                to_unit[1] += g * b * power[0, a] * power[1, b - 1] * power[2, c]
            if c > 0:
                to_unit[2] += g * c * power[0, a] * power[1, b] * power[2, c - 1]
        along = to_unit[0] * unit[0] + to_unit[1] * unit[1] + to_unit[2] * unit[2]
        for axis in range(3):
            across = (to_unit[axis] - along * unit[axis]) / lengths[p]
            slope[p, axis] = across + to_lengths[p] * unit[axis]


@compiled
def radial_table(
    first: int,
    last: int,
    lengths: ndarray,
    order: ndarray,
    table: ndarray,
    coefficients: ndarray,
    start: float,
    per_length: float,
    value: ndarray,
    slope: ndarray,
) -> None:
    """value and slope [R, W] at lengths [R] from coefficients [T, intervals, 8, W].

    Rows order[first:last] are done, in this order: by length, an interval is read once.
    """
    _, intervals, _, width = coefficients.shape
    point = np.empty(2, value.dtype)  # of the precision of the tables
    for row in order[first:last]:
        u = max((lengths[row] - start) * per_length, 0.0)
        interval = min(int(u), intervals - 1)
        point[0], point[1] = 2.0 * (u - interval) - 1.0, 2.0 * per_length
        t, per_t = point
        c = coefficients[table[row], interval]
        c0, c1, c2, c3, c4, c5, c6, c7 = c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]
        y, g = value[row], slope[row]
        for k in range(width):
            a = c7[k]
            b = a
            a = a * t + c6[k]
            b = b * t + a
            a = a * t + c5[k]
            b = b * t + a
            a = a * t + c4[k]
            b = b * t + a
            a = a * t + c3[k]
            b = b * t + a
            a = a * t + c2[k]
            b = b * t + a
            a = a * t + c1[k]
            y[k] = a * t + c0[k]
            g[k] = (b * t + a) * per_t


# --- messages -------------------------------------------------------------------------------
#
# weights [R, paths·C], coupled [P, Q] of the direction of a pair, senders [rows, C]; rows of
# degree l come first by degree, then by node, then by component.
# paths [paths, 8]: slot, l1, 2l1+1, 2l3+1, first column of coupled, sign of the way back, first
# row of this path in a receiver's block, first row in the result (see ``Weights``).


@compiled
def sum_messages(
    first: int,
    last: int,
    starts: ndarray,
    order: ndarray,
    row_of_edge: ndarray,
    pair_of_row: ndarray,
    sender: ndarray,
    weights: ndarray,
    coupled: ndarray,
    senders: ndarray,
    paths: ndarray,
    out: ndarray,
) -> None:
    """out = Σ over the edges of receivers first … last-1 of w ⊙ (Y ⊗ u), eq. 6.

    Four edges at a time share the loads and stores of the sum.
    """
    channels = senders.shape[1]
    n_rows = len(starts) - 1
    one = np.ones(1, weights.dtype)[0]  # of the same precision
    weighted = np.zeros((4, channels), weights.dtype)
    factor = np.zeros((4, coupled.shape[1]), weights.dtype)
    for r in range(first, last):
        for p in range(len(paths)):
            n3, base, stride = paths[p, 3], paths[p, 6], paths[p, 7]
            for m3 in range(n3):
                out[base + (r * n3 + m3) * stride] = 0
        for k in range(starts[r], starts[r + 1], 4):
            there = min(4, starts[r + 1] - k)
            for j in range(4):
                if j < there:
                    e = order[k + j]
                    y = coupled[pair_of_row[row_of_edge[e]]]
                    for q in range(len(y)):
                        factor[j, q] = y[q]
                else:
                    factor[j] = 0.0
                    weighted[j] = 0.0
            for p in range(len(paths)):
                slot, l1, n1, n3, column, sign, base, stride = paths[p]
                for m1 in range(n1):
                    for j in range(there):
                        e = order[k + j]
                        w = weights[row_of_edge[e], slot * channels : (slot + 1) * channels]
                        u = senders[l1 * l1 * n_rows + sender[e] * n1 + m1]
                        s = -one if sign < 0 and e % 2 else one
                        for c in range(channels):
                            weighted[j, c] = s * w[c] * u[c]
                    for m3 in range(n3):
                        q = column + m1 * n3 + m3
                        y0, y1, y2, y3 = factor[0, q], factor[1, q], factor[2, q], factor[3, q]
                        to = out[base + (r * n3 + m3) * stride]
                        for c in range(channels):
                            to[c] += (y0 * weighted[0, c] + y1 * weighted[1, c]) + (
                                y2 * weighted[2, c] + y3 * weighted[3, c]
                            )


@compiled
def sum_messages_slope(
    first: int,
    last: int,
    starts: ndarray,
    pair_of_row: ndarray,
    receiver: ndarray,
    sender: ndarray,
    alive: ndarray,
    first_wanted: int,
    weights: ndarray,
    slopes: ndarray,
    coupled: ndarray,
    senders: ndarray,
    paths: ndarray,
    upstream: ndarray,
    to_lengths: ndarray,
    to_coupled: ndarray,
    to_senders: ndarray,
) -> None:
    """Gradients of :func:`sum_messages`, row by row of the radial rows first … last-1.

    upstream is laid out like out.  to_lengths [P] and to_coupled [P, Q] are added to; rows of one
    pair must be with one thread.  to_senders, like senders, is added to by all and must be private
    to a thread; rows of nodes before first_wanted are left out.  alive: whether upstream of a
    receiver is anything but zero.
    """
    channels = senders.shape[1]
    n_rows = len(alive)
    weighted = np.empty(channels, weights.dtype)
    arrived = np.empty(channels, weights.dtype)
    to_weights = np.empty(len(paths) * channels, weights.dtype)
    one = np.ones(1, weights.dtype)[0]  # of the same precision
    zero = one - one
    for row in range(first, last):
        pair = pair_of_row[row]
        y, to_y = coupled[pair], to_coupled[pair]
        to_weights[:] = 0
        for e in range(starts[row], starts[row + 1]):
            r = receiver[e]
            if not alive[r]:
                continue
            for p in range(len(paths)):
                slot, l1, n1, n3, column, sign, base, stride = paths[p]
                s = -one if sign < 0 and e % 2 else one
                w = weights[row, slot * channels : (slot + 1) * channels]
                to_w = to_weights[slot * channels : (slot + 1) * channels]
                for m1 in range(n1):
                    place = l1 * l1 * n_rows + sender[e] * n1 + m1
                    u = senders[place]
                    for c in range(channels):
                        weighted[c] = s * w[c] * u[c]
                    q = column + m1 * n3
                    g = upstream[base + r * n3 * stride]
                    along, y0 = zero, s * y[q]
                    for c in range(channels):
                        along += g[c] * weighted[c]
                        arrived[c] = y0 * g[c]
                    to_y[q] += along
                    for m3 in range(1, n3, 2):  # 2l3+1 is odd; by twos is a quarter faster
                        g0 = upstream[base + (r * n3 + m3) * stride]
                        g1 = upstream[base + (r * n3 + m3 + 1) * stride]
                        along, along1 = zero, zero
                        y0, y1 = s * y[q + m3], s * y[q + m3 + 1]
                        for c in range(channels):
                            along += g0[c] * weighted[c]
                            along1 += g1[c] * weighted[c]
                            arrived[c] += y0 * g0[c] + y1 * g1[c]
                        to_y[q + m3] += along
                        to_y[q + m3 + 1] += along1
                    if sender[e] >= first_wanted:
                        to_u = to_senders[place]
                        for c in range(channels):
                            to_w[c] += arrived[c] * u[c]
                            to_u[c] += arrived[c] * w[c]
                    else:
                        for c in range(channels):
                            to_w[c] += arrived[c] * u[c]
        slope = slopes[row]
        along = zero
        for c in range(len(to_weights)):
            along += to_weights[c] * slope[c]
        to_lengths[pair] += along
