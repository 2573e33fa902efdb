"""Isotonic regression on a chain in piecewise linear losses, by dynamic programming over slopes.

    min  sum_i h_i(x_i),   x_1 <= ... <= x_n,   h_i(x) = below_i (y_i - x)+ + above_i (x - y_i)+

F_i(x) = h_i(x) + min over x' <= x of F_{i-1}(x') is convex and piecewise linear, and what it hands on is flat
right of its minimiser m_i. A heap holds the breakpoints, which are observations, with the change of slope at
each; h_i adds one, and slopes above 0 are taken off from the right (Rote 2019, Isotonic regression by dynamic
programming). Then x_i = min(m_i, x_{i+1}), so that each x_i is some y_k.

The dual g_i, in [-above_i, below_i], is below_i where y_i > x_i and -above_i where y_i < x_i. Over a run of
equal x it sums to 0, with no partial sum below 0: so those with y_i = x_i start at below_i, and the last ones
give back what is too much. The certificate compares sum y_i g_i with the loss, and looks at the sums.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1W, F2, F2W, S1W, SIZE, kernel

__all__ = ["chain"]

_OPTIMAL, _REFUSED = 0, 6
_TOLERANCE = 1e-9

L2W = types.int64[:, ::1]


@kernel()
def _sift_up(heap, y, i):
    """heap is a binary heap of observations, the largest y on top; the last of i + 1 is new."""
    k = heap[i]
    while i > 0 and y[heap[(i - 1) >> 1]] < y[k]:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = k


@kernel()
def _take_top(heap, y, count):
    """Remove the top of ``count`` observations."""
    k = heap[count - 1]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= count - 1:
            break
        if child + 1 < count - 1 and y[heap[child + 1]] > y[heap[child]]:
            child += 1
        if y[heap[child]] <= y[k]:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = k


@kernel(types.void(F2, F2, F2, SIZE, SIZE, L2W, F2W, F1W, S1W))
def chain(
    all_y,  # (B, n)
    all_below,  # (B, n)
    all_above,  # (B, n)
    start,
    stop,
    source,  # (B, n) int64, x_i = y[source[i]]
    g,  # (B, n)
    value,  # (B,)
    status,  # (B,) int8
):
    n = all_y.shape[1]
    heap, change = np.empty(n, np.int64), np.empty(n)
    for b in range(start, stop):
        y, below, above = all_y[b], all_below[b], all_above[b]
        x, dual = source[b], g[b]
        fair = True
        for i in range(n):
            fair &= abs(y[i]) < np.inf and 0.0 <= below[i] < np.inf and 0.0 <= above[i] < np.inf
        if not fair:
            value[b], status[b] = np.nan, _REFUSED
            continue
        count = 0
        for i in range(n):
            change[i] = below[i] + above[i]
            least = i
            if change[i] > 0.0:
                heap[count] = i
                _sift_up(heap, y, count)
                count += 1
            excess = above[i]
            if count > 0:
                least = heap[0]
            while excess > 0.0 and count > 0:
                least = heap[0]
                if change[least] > excess:
                    change[least] -= excess
                    break
                excess -= change[least]
                _take_top(heap, y, count)
                count -= 1
            x[i] = least
        for i in range(n - 2, -1, -1):
            if y[x[i + 1]] < y[x[i]]:
                x[i] = x[i + 1]
        loss, bound, size, weight, worst = 0.0, 0.0, 0.0, 0.0, 0.0
        first = 0
        while first < n:
            level = y[x[first]]
            last = first
            total = 0.0
            while last < n and y[x[last]] == level:
                dual[last] = below[last] if y[last] >= level else -above[last]
                total += dual[last]
                last += 1
            i = last - 1
            while total > 0.0 and i >= first:
                if y[i] == level:
                    step = min(total, below[i] + above[i])
                    dual[i] -= step
                    total -= step
                i -= 1
            partial = 0.0
            for i in range(first, last):
                partial += dual[i]
                worst = max(worst, -partial)
                weight += below[i] + above[i]
                away = y[i] - level
                loss += below[i] * away if away > 0.0 else -above[i] * away
                bound += y[i] * dual[i]
                size += abs(y[i]) * (below[i] + above[i])
            worst = max(worst, abs(partial))
            first = last
        value[b] = loss
        proved = abs(loss - bound) <= _TOLERANCE * (1.0 + size) and worst <= _TOLERANCE * (1.0 + weight)
        status[b] = _OPTIMAL if proved else _REFUSED
