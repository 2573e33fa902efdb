"""Shortest paths through grids whose cells cost something, for a batch.

Towards 4 or 8 neighbours, costs >= 0: Dijkstra's algorithm, without a graph. What a step costs depends on the
cell it enters alone, so the first cell to reach another is the nearest of its neighbours: a label is final
when it is set, each cell enters the heap once, and the search may stop when the end is labelled. It is proved
by potentials: with dist the labels, p the cell before the end, and D = dist[p],

    min(dist[v], D) <= min(dist[u], D) + cost[v]   for all neighbours u, v (v not the end),
    D <= dist[u]                                   for all neighbours u of the end,

so that no path to the end is shorter than D + cost[end]. Rounding keeps both: sums of floats are monotone.

Steps right and down alone: a table, whatever the signs of the costs.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1W, F2, I1W, I2W, S1W, SIZE, inner, kernel

__all__ = ["grid_paths"]

# Larger costs are left to the general solver, so that no sum of costs overflows.
_HUGE = 1e290

_OPTIMAL, _INFEASIBLE, _INVALID, _INACCURATE = 0, 1, 5, 6

_L1 = types.Array(types.int64, 1, "C", readonly=True)


@inner
def _frame(costs, height, width, signed, cost, dist, came):
    """Costs in a frame of forbidden cells, and no labels; the status: INACCURATE needs another solver."""
    stride = width + 2
    for p in range((height + 2) * stride):
        cost[p], dist[p], came[p] = np.inf, np.inf, -1
    status = _OPTIMAL
    for i in range(height):
        for j in range(width):
            c = costs[i * width + j]
            cost[(i + 1) * stride + j + 1] = c
            if not c > -np.inf:
                status = _INVALID
            elif status == _OPTIMAL and ((c < 0.0 and not signed) or _HUGE < abs(c) < np.inf):
                status = _INACCURATE
    return status


@inner
def _push(keys, cells, size, key, cell):
    i = size
    while i > 0:
        above = (i - 1) >> 1
        if keys[above] <= key:
            break
        keys[i], cells[i] = keys[above], cells[above]
        i = above
    keys[i], cells[i] = key, cell


@inner
def _pop(keys, cells, size):
    """Take the first off a heap of ``size``; the cell."""
    first, size = cells[0], size - 1
    key, cell, i = keys[size], cells[size], 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if key <= keys[child]:
            break
        keys[i], cells[i] = keys[child], cells[child]
        i = child
    keys[i], cells[i] = key, cell
    return first


@inner
def _search(cost, steps, start, end, dist, came, keys, cells):
    """Label the cells by their distance, until the end has its label."""
    dist[start] = cost[start]
    if start == end or cost[start] == np.inf:
        return
    keys[0], cells[0] = dist[start], start
    size = 1
    while size > 0:
        p = _pop(keys, cells, size)
        size -= 1
        for step in steps:
            q = p + step
            if dist[q] == np.inf and cost[q] < np.inf:
                dist[q], came[q] = dist[p] + cost[q], p
                if q == end:
                    return
                _push(keys, cells, size, dist[q], q)
                size += 1


@inner
def _proved(cost, steps, end, height, width, dist, came):
    """Whether the labels prove the path to the end: see above."""
    if came[end] < 0:  # the path is one cell
        return True
    far, fine, stride = dist[came[end]], True, width + 2
    for i in range(1, height + 1):
        for p in range(i * stride + 1, i * stride + width + 1):
            here, c = min(dist[p], far), cost[p]
            if p == end:
                here, c = far, 0.0
            for step in steps:
                fine &= here <= min(dist[p + step], far) + c
    return fine


@inner
def _table(cost, height, width, start, end, dist, came):
    """Labels of the cells to the right of the start and below it."""
    stride = width + 2
    dist[start] = cost[start]
    left, bottom, right = start % stride, end // stride, end % stride
    for i in range(start // stride, bottom + 1):
        for j in range(left, right + 1):
            p = i * stride + j
            if p != start:
                up, side = dist[p - stride], dist[p - 1]
                came[p] = p - stride if up <= side else p - 1
                dist[p] = (up if up <= side else side) + cost[p]


# costs, height, width, moves, start, end, first, last; value, status, length, path
@kernel(types.void(F2, SIZE, SIZE, SIZE, _L1, _L1, SIZE, SIZE, F1W, S1W, I1W, I2W))
def grid_paths(costs, height, width, moves, start, end, first, last, value, status, length, path):
    """Shortest paths of the items first..last.

    Args:
        costs: (B, height * width), of each cell that is visited, both ends included; +inf forbids.
        moves: 8 or 4 neighbours, or 2: right and down.
        start, end: Numbers of cells, (B,).
        value: Written, (B,): +inf where there is no path, NaN where a cost is NaN or -inf.
        status: Written, (B,): INACCURATE where a cost is negative (but with 2 moves), or huge.
        length: Written, (B,), cells of the path; 0 where there is none.
        path: Written, (B, height * width), the cells from start to end; the first ``length`` of them.
    """
    stride = width + 2
    framed = (height + 2) * stride
    cost, dist, came = np.empty(framed), np.empty(framed), np.empty(framed, np.int32)
    keys, cells = np.empty(height * width), np.empty(height * width, np.int32)
    steps = np.empty(moves, np.int64)
    steps[0], steps[1] = 1, stride
    if moves > 2:
        steps[2], steps[3] = -1, -stride
    if moves > 4:
        steps[4], steps[5], steps[6], steps[7] = stride + 1, stride - 1, -stride + 1, -stride - 1
    for k in range(first, last):
        s = (start[k] // width + 1) * stride + start[k] % width + 1
        t = (end[k] // width + 1) * stride + end[k] % width + 1
        length[k], value[k] = 0, np.nan
        status[k] = _frame(costs[k], height, width, moves == 2, cost, dist, came)
        if status[k] != _OPTIMAL:
            continue
        if moves == 2:
            _table(cost, height, width, s, t, dist, came)
        else:
            _search(cost, steps, s, t, dist, came, keys, cells)
        value[k] = dist[t]
        if dist[t] == np.inf:
            status[k] = _INFEASIBLE
            continue
        if moves > 2 and not _proved(cost, steps, t, height, width, dist, came):
            status[k] = _INACCURATE
            continue
        count, p = 1, t
        while p != s:
            p = came[p]
            count += 1
        length[k], p = count, t
        for place in range(count - 1, -1, -1):
            path[k, place] = (p // stride - 1) * width + p % stride - 1
            p = came[p]
