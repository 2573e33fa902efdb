"""Steps of Wolfe's algorithm: the point nearest to -c / gamma of a polytope that only a linear oracle knows.

    min  c'x + gamma/2 |x|^2   over the convex hull of the oracle's vertices

x is a convex combination of affinely independent vertices, the corral. The oracle is asked for the best
vertex v in the gradient q = c + gamma x; it joins the corral unless q'v = q'x, which proves x optimal. Then x
moves towards the best point of the corral's affine hull; where that is outside of the hull, vertices leave as
their weights reach zero. No corral is met twice, so it ends (Wolfe 1976, Finding the nearest point in a
polytope).

A vertex v is lifted to (sigma, v - v0), with v0 the first one and sigma a distance between vertices. A corral
is affinely independent where the lifted vertices are linearly so, and none of them is special. They are kept
as R Q, orthonormal rows of Q and a triangular R: one joins by Gram-Schmidt, twice for the sake of rounding,
and one leaves by Givens rotations. Moves of x in the affine hull are the y Q with y'h = 0, h the first column
of Q; the best is y = b - h (h'b) / (h'h) for b = -Q (0, q) / gamma. Rounding is that of a step, not of x.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1W, F2, F2W, REAL, S1W, SIZE, kernel, larger, row_of, smaller

__all__ = ["DONE", "FAILED", "OPEN", "advance", "directions", "onto", "widen"]

OPEN, DONE, FAILED = 0, 1, 2

_SHARP = 2.0**-50  # of the terms of a gap: its rounding
_FACE = 2.0**-44  # of the terms of a gap: on the face, where x itself is rounded
_LOOSE = 1e-10  # of the terms of a gap: what it may be where rounding keeps x from moving on
_STILL = 2.0**-51  # of x: it has not moved
_SPAN = 1e-9  # of the distance of vertices: what is apart from a span
_POINT = 1e-12  # of the size of a vertex: its rounding
_LEAST = 1e-14  # weights below are rounded zeros

F3W = types.float64[:, :, ::1]
L1W = types.int64[::1]
L1 = types.Array(types.int64, 1, "C", readonly=True)


@kernel()
def _dots(rows, k, a, out):
    """out[i] = rows[i]'a, four sums at a time, which need not wait for each other."""
    n, i = rows.shape[1], 0
    while i + 4 <= k:
        s, t, u, w = 0.0, 0.0, 0.0, 0.0
        for j in range(n):
            s += rows[i, j] * a[j]
            t += rows[i + 1, j] * a[j]
            u += rows[i + 2, j] * a[j]
            w += rows[i + 3, j] * a[j]
        out[i], out[i + 1], out[i + 2], out[i + 3] = s, t, u, w
        i += 4
    while i < k:
        s = 0.0
        for j in range(n):
            s += rows[i, j] * a[j]
        out[i] = s
        i += 1


@kernel()
def _apart(rows, k, a, dots, total):
    """Take what rows span off a, in place; total: what was taken, by row. Returns the norm of what is left.

    Once more where little is left, for the sake of rounding: twice is enough (Kahan, in Parlett 1980, 6.9).
    """
    before, left, times = 0.0, 0.0, 0
    for j in range(len(a)):
        before += a[j] * a[j]
    for i in range(k):
        total[i] = 0.0
    while times < 2:
        times += 1
        _dots(rows, k, a, dots)
        for i in range(k):
            total[i] += dots[i]
            for j in range(len(a)):
                a[j] -= dots[i] * rows[i, j]
        left = 0.0
        for j in range(len(a)):
            left += a[j] * a[j]
        if left > 0.5 * before:
            break
    return np.sqrt(left)


@kernel()
def _remove(vertices, Q, R, weight, r, k):
    """Vertex r leaves a corral of k."""
    for j in range(r, k - 1):
        weight[j] = weight[j + 1]
        for i in range(vertices.shape[1]):
            vertices[j, i] = vertices[j + 1, i]
        for i in range(j + 2):
            R[j, i] = R[j + 1, i]
    for i in range(r, k - 1):
        size = np.hypot(R[i, i], R[i, i + 1])
        c, s = R[i, i] / size, R[i, i + 1] / size
        for j in range(i, k - 1):
            p, q = R[j, i], R[j, i + 1]
            R[j, i], R[j, i + 1] = c * p + s * q, c * q - s * p
        for j in range(Q.shape[1]):
            p, q = Q[i, j], Q[i + 1, j]
            Q[i, j], Q[i + 1, j] = c * p + s * q, c * q - s * p


@kernel()
def _gap(c, gamma, x, v):
    """q'(x - v), and the size of the terms that make it up."""
    gap, size = 0.0, 0.0
    for j in range(len(x)):
        if abs(c[j]) < np.inf:  # no vertex goes where it is infinite
            most = larger(abs(x[j]), abs(v[j]))
            gap += (c[j] + gamma * x[j]) * (x[j] - v[j])
            size += (abs(c[j]) + gamma * most) * most  # vertices as large may have cancelled in x
    return gap, size


@kernel()
def _best(c, gamma, x, Q, R, k, a, b, step):
    """step: how the weights change from x to the best point of the affine hull."""
    a[0] = 0.0
    for j in range(len(x)):
        a[j + 1] = -(c[j] + gamma * x[j]) / gamma if abs(c[j]) < np.inf else 0.0
    _dots(Q, k, a, b)
    along, size = 0.0, 0.0
    for i in range(k):
        along += Q[i, 0] * b[i]
        size += Q[i, 0] * Q[i, 0]
    for i in range(k - 1, -1, -1):
        total = b[i] - Q[i, 0] * (along / size)
        for j in range(i + 1, k):
            total -= R[j, i] * step[j]
        step[i] = total / R[i, i]


@kernel()
def _move(weight, step, k):
    """Change weights until one gets to 0: its place, or -1."""
    least, place = 1.0, -1
    for i in range(k):
        if step[i] < 0.0 and weight[i] + step[i] <= _LEAST and weight[i] <= -step[i] * least:
            least, place = weight[i] / -step[i], i
    total = 0.0
    for i in range(k):
        weight[i] = 0.0 if i == place else larger(0.0, weight[i] + least * step[i])
        total += weight[i]
    for i in range(k):
        weight[i] /= total
    return place


@kernel(types.void(F2, F2, L1, REAL, SIZE, SIZE, F2W, F2W, F2W, F2W, F3W, F3W, F3W, L1W, S1W))
def advance(
    costs,  # (B, n)
    found,  # (O, n), the oracle's answers to c + gamma x
    items,  # (O,) int64, the items that are open
    gamma,
    start,  # of those
    stop,
    points,  # (B, n), x
    gradients,  # (O, n), c + gamma x at the new x
    origins,  # (B, n + 1), sigma and v0
    weights,  # (B, K)
    corrals,  # (B, K, n)
    lifted,  # (B, K, n + 1), Q
    triangles,  # (B, K, K), R, a row a vertex
    count,  # (B,) int64, of vertices, at most K
    state,  # (B,) int8
):
    n = costs.shape[1]
    a, b = np.empty(n + 1), np.empty(weights.shape[1])
    step, taken = np.empty(len(b)), np.empty(len(b))
    for o in range(start, stop):
        item = items[o]
        c, x, v, origin, weight = costs[item], points[item], found[o], origins[item], weights[item]
        vertices, Q, R, k = corrals[item], lifted[item], triangles[item], count[item]
        gap, size = _gap(c, gamma, x, v)
        if not gap > _SHARP * size:
            state[item] = DONE
            continue
        if k == 1:
            sigma = 0.0
            for j in range(n):
                sigma += (v[j] - x[j]) * (v[j] - x[j])
                origin[j + 1], vertices[0, j], Q[0, j + 1] = x[j], x[j], 0.0
            origin[0], R[0, 0], Q[0, 0], weight[0] = np.sqrt(sigma), np.sqrt(sigma), 1.0, 1.0
        a[0], length, norm = origin[0], origin[0] * origin[0], 0.0
        for j in range(n):
            a[j + 1] = v[j] - origin[j + 1]
            length += a[j + 1] * a[j + 1]
            norm += v[j] * v[j]
        left = _apart(Q, k, a, b, taken)
        moved = False
        if k < len(weight) and left > _SPAN * np.sqrt(length) + _POINT * np.sqrt(norm):
            for j in range(n):
                vertices[k, j], Q[k, j + 1] = v[j], a[j + 1] / left
            for i in range(k):
                R[k, i] = taken[i]
            Q[k, 0], R[k, k], weight[k] = a[0] / left, left, 0.0
            k += 1
            place = 0
            while place >= 0:
                _best(c, gamma, x, Q, R, k, a, b, step)
                place = _move(weight, step, k)
                for j in range(n):
                    a[j] = 0.0
                for i in range(k):
                    for j in range(n):
                        a[j] += weight[i] * vertices[i, j]
                for j in range(n):
                    moved |= abs(a[j] - x[j]) > _STILL * (abs(x[j]) + abs(v[j]))
                    x[j] = a[j]
                if place >= 0:
                    _remove(vertices, Q, R, weight, place, k)
                    k -= 1
            count[item] = k
        if not moved:
            state[item] = DONE if gap <= _LOOSE * size else FAILED
        for j in range(n):
            gradients[o, j] = c[j] + gamma * x[j]


@kernel(types.void(F3W, L1W, F3W))
def directions(
    lifted,  # (B, K, n + 1), Q
    count,  # (B,) int64
    spans,  # (B, L, n), zero: gets orthonormal rows that span the moves in the affine hull
):
    """Moves are the y Q with y'h = 0, h the first column of Q: a reflection takes h to the first row."""
    n = lifted.shape[2] - 1
    u, total = np.empty(lifted.shape[1]), np.empty(n + 1)
    for item in range(len(lifted)):
        Q, k, size = lifted[item], count[item], 0.0
        for i in range(k):
            u[i] = Q[i, 0]
            size += u[i] * u[i]
        u[0] += np.sqrt(size) if u[0] > 0.0 else -np.sqrt(size)
        size += u[0] * u[0] - Q[0, 0] * Q[0, 0]
        for j in range(n + 1):
            total[j] = 0.0
        for i in range(k):
            for j in range(n + 1):
                total[j] += u[i] * Q[i, j]
        for i in range(1, k):
            factor = 2.0 * u[i] / size
            for j in range(n):
                spans[item, i - 1, j] = Q[i, j + 1] - factor * total[j + 1]


@kernel(types.void(F3W, L1W, F2, F2W))
def onto(
    spans,  # (B, L, n), orthonormal rows
    rank,  # (B,) int64, how many
    vectors,  # (1|B, n)
    projected,  # (B, n)
):
    dots = np.empty(spans.shape[1])
    for item in range(len(spans)):
        vector, rows, out = row_of(vectors, item), spans[item], projected[item]
        _dots(rows, rank[item], vector, dots)
        for j in range(len(out)):
            out[j] = 0.0
        for i in range(rank[item]):
            for j in range(len(out)):
                out[j] += dots[i] * rows[i, j]


@kernel(types.void(F2, F2, F2, F2, L1, REAL, F1W, F3W, L1W, S1W))
def widen(
    costs,  # (B, n)
    points,  # (B, n), x
    probes,  # (O, n), r
    found,  # (2 O, n), the oracle's answers to q + delta r, then those to q - delta r
    items,  # (O,) int64, the items that are open
    gamma,
    reach,  # (B,), delta: made smaller where an answer is not on the face
    spans,  # (B, L, n), orthonormal rows; room for 2 more, or for n
    rank,  # (B,) int64
    state,  # (B,) int8: DONE where both answers are on the face, and neither leads out of its span
):
    n = costs.shape[1]
    a, dots, taken = np.empty(n), np.empty(spans.shape[1]), np.empty(spans.shape[1])
    for o in range(len(items)):
        item = items[o]
        c, x, r, rows = costs[item], points[item], probes[o], spans[item]
        done, least = True, reach[item]
        for side in range(2):
            v = found[o + side * len(items)]
            gap, size = _gap(c, gamma, x, v)
            extent, length, norm = 0.0, 0.0, 0.0
            for j in range(n):
                a[j] = v[j] - x[j]
                extent += r[j] * a[j]
                length += a[j] * a[j]
                norm += v[j] * v[j]
            if -gap > _FACE * size:  # by half of where v and x cost the same, or less
                done, least = False, smaller(least, smaller(reach[item] / 4.0, -gap / abs(extent) / 2.0))
                continue
            k, left = rank[item], _apart(rows, rank[item], a, dots, taken)
            if k < len(rows) and left > _SPAN * np.sqrt(length) + _POINT * np.sqrt(norm):
                done = False
                for j in range(n):
                    rows[k, j] = a[j] / left
                rank[item] += 1
        reach[item] = least
        if done:
            state[item] = DONE
