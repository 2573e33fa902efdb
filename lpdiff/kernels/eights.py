"""Eight small tables at once, an item a lane, where all eight are whole: see ``gaps`` and ``warping``.

A strip of eight rows loses eight steps at its ends, which is much of a small table, and each step waits for
the one before. Eight items that go through the same nodes in the same order lose nothing, and a step waits
for its left neighbour alone. Sums and comparisons are those of a strip, so an item's bits are the same.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from . import lanes as w
from .jit import inner
from .strips import HUGE

__all__ = ["MOST", "align", "beside", "trace", "warp", "whole"]

MOST = 300_000  # cells of a table; of larger ones the codes of eight no longer stay close by


@inner
def whole(rows, columns, k, n, m):
    """Whether items k to k + 7 have all n rows and m columns."""
    found = True
    for e in range(k, k + 8):
        found &= rows[e] == n and columns[e] == m
    return found


@inner
def beside(values, k, out):
    """Items k to k + 7 of a (1|B, count) array, side by side: out[8 j + r] is number j of item r."""
    for j in range(values.shape[1]):
        for r in range(8):
            out[8 * j + r] = values[k + r if len(values) > 1 else 0, j]


@inner
def align(costs, k, n, m, row_gap, col_gap, table, codes, index):
    """Fill the tables of items k to k + 7. Returns a bit an item: whether its costs are ones.

    row_gap, col_gap: of these items, side by side.
    table: room for 8 (m + 1) numbers; the last row in the end. codes: bits of a node, two bytes each:
    upper < diagonal, left < both. index: room for 8 numbers.
    """
    infinite, huge, tiny = w.fill(np.inf), w.fill(HUGE), w.fill(-HUGE)
    fine = w.less(tiny, huge)
    for r in range(8):
        index[r] = (k + r) * n * m
    first, here, p = w.load(index, 0), w.fill(0.0), 0
    w.store(table, 0, here)
    for j in range(m):
        here = w.add(here, w.load(col_gap, 8 * j))
        w.store(table, 8 * (j + 1), here)
        codes[2 * j + 3] = 255
    for i in range(n):
        p, gap, diagonal = 2 * (i + 1) * (m + 1), w.load(row_gap, 8 * i), w.load(table, 0)
        here = w.add(diagonal, gap)
        w.store(table, 0, here)
        codes[p], codes[p + 1] = 255, 0
        for j in range(m):
            p += 2
            cost, upper = w.pick(costs, first, i * m + j), w.load(table, 8 * (j + 1))
            fine = w.both(fine, w.less(tiny, cost))
            fine = w.both(fine, w.either(w.less(cost, huge), w.same(cost, infinite)))
            diagonal, above = w.add(diagonal, cost), w.add(upper, gap)
            left, best = w.add(here, w.load(col_gap, 8 * j)), w.least(above, diagonal)
            codes[np.uint64(p)] = w.bits(w.less(above, diagonal))
            codes[np.uint64(p + 1)] = w.bits(w.less(left, best))
            here, diagonal = w.least(left, best), upper
            w.store(table, 8 * (j + 1), here)
    return w.bits(fine)


@inner
def warp(costs, k, n, m, diagonal_weight, down_weight, right_weight, table, codes, index):
    """Fill the tables of the cells of items k to k + 7. Returns a bit an item: whether its costs are ones.

    table: room for 8 m numbers; the last row in the end. codes: bits of a cell, two bytes each:
    above < diagonal, left < both. index: room for 8 numbers.
    """
    infinite, huge, tiny = w.fill(np.inf), w.fill(HUGE), w.fill(-HUGE)
    across, down, along = w.fill(diagonal_weight), w.fill(down_weight), w.fill(right_weight)
    fine = w.less(tiny, huge)
    for r in range(8):
        index[r] = (k + r) * n * m
    first, p = w.load(index, 0), 0
    for j in range(m):
        w.store(table, 8 * j, infinite)
    # The path begins as if a step of weight 1 led to cell (0, 0) from a cell before it.
    diagonal, step = w.fill(0.0), w.fill(1.0)
    for i in range(n):
        here = infinite
        for j in range(m):
            cost, upper = w.pick(costs, first, i * m + j), w.load(table, 8 * j)
            fine = w.both(fine, w.less(tiny, cost))
            fine = w.both(fine, w.either(w.less(cost, huge), w.same(cost, infinite)))
            diagonal, above = w.add(diagonal, w.multiply(step, cost)), w.add(upper, w.multiply(down, cost))
            left, best = w.add(here, w.multiply(along, cost)), w.least(above, diagonal)
            codes[np.uint64(p)] = w.bits(w.less(above, diagonal))
            codes[np.uint64(p + 1)] = w.bits(w.less(left, best))
            here, diagonal, step = w.least(left, best), upper, across
            w.store(table, 8 * j, here)
            p += 2
        diagonal = infinite
    return w.bits(fine)


@inner
def trace(codes, lane, i, j, m, row, column, pair, moves):
    """Write the moves of the item in a lane from node (i, j) back to (0, 0); how many they are.

    A row of nodes has m + 1.
    """
    count = 0
    while i + j > 0:
        p = 2 * (i * (m + 1) + j)
        move = column if codes[p + 1] >> lane & 1 else row if codes[p] >> lane & 1 else pair
        i, j = i - (move != column), j - (move != row)
        moves[count] = move
        count += 1
    return count
