"""A spanning tree that is a basis of a given optimal pair (x, y) of a network LP.

The form is that of `simplex`: arcs tail -> head over rows 0..m-1 and the ground m; the logical of row i is an
arc ground -> i whose flow is the row's activity. A basis is a spanning tree of the m + 1 nodes. It belongs
to (x, y) if every arc strictly between its bounds is in it, and every arc in it is tight, d = 0. Forests are
the independent sets of a matroid: they grow one arc at a time, in any order, to one and the same size. So a
greedy pass (Kruskal 1956), over the arcs that must be in and then over those that may, finds a basis whenever
there is one.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1W, B2W, F2, I1, SIZE, inner, kernel, larger, smaller

__all__ = ["spanning_tree"]

# What is this close to a bound, or to tight, is there: relative to the numbers at hand, and (sums along paths
# leave their rounding in duals of any size) to the largest cost.
_AT = 1e-9
_NOISE = 1e-13


@inner
def _join(group, a, b):
    """Unite the sets of a and b; False: they were one already."""
    while group[a] != a:
        group[a] = group[group[a]]
        a = group[a]
    while group[b] != b:
        group[b] = group[group[b]]
        b = group[b]
    group[smaller(a, b)] = larger(a, b)
    return a != b


@inner
def _inside(value, least, most):
    """Strictly between the bounds, by more than rounding."""
    return value - least > _AT * (1.0 + abs(value)) and most - value > _AT * (1.0 + abs(value))


# tail, head; cost, lower, upper, row_lower, row_upper; x, y; start, stop; basic; found
@kernel(types.void(I1, I1, F2, F2, F2, F2, F2, F2, F2, SIZE, SIZE, B2W, B1W))
def spanning_tree(tail, head, cost, lower, upper, row_lower, row_upper, x, y, start, stop, basic, found):
    """Find bases of the items start..stop.

    Arcs strictly between their bounds come first, then logicals of rows strictly inside their range; then
    tight arcs in the order of their index; last, from the last row down, logicals of rows with y = 0.

    Args:
        tail, head: Ends of the arcs, (n,), in 0..m; m is the ground.
        cost, lower, upper: (1|B, n). row_lower, row_upper: (1|B, m).
        x, y: Optimal pairs, (B, n) and (B, m).
        basic: Written, (B, n + m): arcs, then logicals; m of them, and a basis, where found.
        found: Written, (B,).
    """
    n, m = len(tail), row_lower.shape[1]
    group, activity = np.empty(m + 1, dtype=np.int64), np.empty(m + 1)
    for item in range(start, stop):
        c, l_row = cost[item if len(cost) > 1 else 0], lower[item if len(lower) > 1 else 0]
        u_row, rl_row = upper[item if len(upper) > 1 else 0], row_lower[item if len(row_lower) > 1 else 0]
        ru_row = row_upper[item if len(row_upper) > 1 else 0]
        for i in range(m + 1):
            group[i], activity[i] = i, 0.0
        independent, count, noise = True, 0, 0.0
        for j in range(n):
            f = x[item, j]
            activity[tail[j]] += f
            activity[head[j]] -= f
            noise = larger(noise, _NOISE * abs(c[j]))
            basic[item, j] = _inside(f, l_row[j], u_row[j])
            if basic[item, j]:
                independent &= _join(group, np.int64(tail[j]), np.int64(head[j]))
                count += 1
        for i in range(m):
            basic[item, n + i] = _inside(activity[i], rl_row[i], ru_row[i])
            if basic[item, n + i]:
                independent &= _join(group, m, i)
                count += 1
        for j in range(n):
            if count < m and not basic[item, j]:
                y_tail = y[item, tail[j]] if tail[j] < m else 0.0
                y_head = y[item, head[j]] if head[j] < m else 0.0
                close = _AT * larger(larger(abs(c[j]), abs(y_tail)), abs(y_head)) + noise
                a, b = np.int64(tail[j]), np.int64(head[j])
                if abs(c[j] - y_tail + y_head) <= close and _join(group, a, b):
                    basic[item, j] = True
                    count += 1
        for k in range(m):
            i = m - 1 - k
            if count < m and not basic[item, n + i] and abs(y[item, i]) <= noise and _join(group, m, i):
                basic[item, n + i] = True
                count += 1
        found[item] = independent and count == m
