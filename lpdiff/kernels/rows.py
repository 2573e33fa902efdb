"""Cheapest paths through the cells of a table by steps that are given, row by row: see ``Sweep``.

    D[i, j] = min over steps k of  D[i - down_k, j - right_k] + weight_k * W[i, j],

and W[i, j] once where a path begins. Steps that go down are taken for eight columns at a time; those along a
row (down = 0) follow one column after the other. A step that improves on the steps before it leaves a bit a
cell, eight of them a byte, so that the last bit set tells the step taken.

-D is a potential of that graph, dual feasible because each entry is the minimum of its candidates; the traced
path is primal feasible, and its cost is the same sum in the same order.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
from . import lanes as w
from .jit import F1, F1W, F2, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .strips import (
    COSTS,
    HUGE,
    INACCURATE,
    INFEASIBLE,
    INVALID,
    L1,
    L1W,
    L2,
    L2W,
    OPTIMAL,
    TOLERANCE,
    Moments,
    known,
)

__all__ = ["CellPaths", "Sweep", "sweep"]


class CellPaths(NamedTuple):
    """Optimal paths.

    value: (B,) float64; +inf where there is none, NaN where a number was not a cost.
    status: (B,) int8, as ``lpdiff.Status``.
    cells: moments in the costs: the cells of the path from its start, weighted by its steps.
    """

    value: np.ndarray
    status: np.ndarray
    cells: Moments


@dataclass(frozen=True, eq=False)
class Sweep:
    """Tables of a batch, and how paths go.

    costs: (1|B, n * V) float64 or float32, and width V.
    names: (1|B, m) int64, the column of costs of each column of the table; contiguous: they are 0, 1, ...
    rows, columns: (B,) int64, lengths of the items' tables, at least 1.
    steps: (down, right, weight) each; of equal ones, the first in this order, those along a row last.
    toll: (1|B, m) float64, added where the step number ``tolled`` enters a column; 0 or +inf.
    begins: Paths begin in one of so many first columns of the first row,
    ends: and end in one of so many last columns of the last row: the first of the best.
    low, high: Only cells with -low <= j - i <= high.
    """

    costs: np.ndarray
    width: int
    names: np.ndarray
    contiguous: bool
    rows: np.ndarray
    columns: np.ndarray
    steps: tuple[tuple[int, int, float], ...]
    toll: np.ndarray
    tolled: int
    begins: int
    ends: int
    low: int
    high: int


def sweep(table: Sweep, longest: int, threads: int) -> CellPaths:
    """Solve a batch; ``longest``: the most cells that a path can have."""
    size = len(table.rows)
    ordered = sorted(range(len(table.steps)), key=lambda k: table.steps[k][0] == 0)
    down, right = (np.array([table.steps[k][part] for k in ordered], np.int64) for part in (0, 1))
    weight = np.array([table.steps[k][2] for k in ordered])
    tolled = ordered.index(table.tolled) if table.tolled >= 0 else -1
    cells, value, status = Moments.empty(size, longest), np.empty(size), np.empty(size, np.int8)
    compiled = _KERNELS[table.costs.dtype]

    def work(start: int, stop: int) -> None:
        compiled(
            *(table.costs, table.width, table.names, table.contiguous, table.rows, table.columns),
            *(down, right, weight, table.toll, tolled, table.begins, table.ends, table.low, table.high),
            *(value, status, *cells.arrays, start, stop),
        )

    n, m = table.costs.shape[1] // max(table.width, 1), table.names.shape[1]
    run_spans(size, threads_for(1.1 * size * n * min(m, table.low + table.high + 1), threads), work)
    return CellPaths(value, status, cells)


@inner
def _first_block(i, low):
    """The first column of the eight in which row i begins."""
    return larger(i - low, np.int64(0)) & ~7


@inner
def _blocks(m, low, high):
    """The most blocks of eight columns that a row can have."""
    return smaller((m + 7) >> 3, (low + high + 1 + 7) // 8 + 1)


@inner
def _along(c, base, name, begin, stop, down, right, weight, tables, at, codes, p):
    """Steps along a row, in its part from ``begin`` to ``stop``; ``at``: where column 0 is in the tables."""
    count = len(down)
    for j in range(begin, stop):
        cost, best = float(c[base + name[j]]), tables[at + j]
        for k in range(count):
            if down[k] == 0:
                length = tables[at + j - right[k]] + weight[k] * cost
                if length < best:
                    best = length
                    place = p + ((j >> 3) - (begin >> 3)) * count + k
                    codes[place] = codes[place] | np.uint8(1 << (j & 7))
        tables[at + j] = best


@inner
def _fill(
    c, width, name, contiguous, n, m, down, right, weight, toll, tolled, begins, low, high,
    pad, across, ring, tables, codes, source,
):  # fmt: skip
    """Fill the table; whether the costs met are proper.

    source: room for a number a step.

    tables: the last ``ring`` rows, ``across`` numbers each: ``pad`` times +inf, the row, +inf to the end.
    codes: bits of a row and eight columns, a byte a step.
    """
    count, level = len(down), 0
    while level < count and down[level] > 0:
        level += 1
    infinite, zero, huge, tiny = w.fill(np.inf), w.fill(0.0), w.fill(HUGE), w.fill(-HUGE)
    sound = w.same(zero, zero)
    stride = count * _blocks(m, low, high)
    for p in range(len(tables)):
        tables[p] = np.inf
    for i in range(smaller(n, m + low)):
        begin, stop, base = larger(i - low, np.int64(0)), smaller(m, i + high + 1), i * width
        block, at = _first_block(i, low), (i % ring) * across + pad
        if i >= ring:
            for j in range(_first_block(i - ring, low), block):
                tables[at + j] = np.inf
        for k in range(count):
            source[k] = ((i - down[k]) % ring) * across + pad - right[k] if down[k] <= i else -1
        p = i * stride
        for j in range(block, stop, 8):
            whole = begin <= j and j + 8 <= stop
            if whole and contiguous:
                cost = w.load_real(c, base + j)
            else:
                cost = w.pick(c, w.load(name, j), base)
            inside = sound
            if not whole:
                column = w.add(w.lanes(), w.fill_index(j))
                inside = w.both(w.less(w.fill_index(begin - 1), column), w.less(column, w.fill_index(stop)))
                cost = w.choose(inside, cost, zero)
            sound = w.both(sound, w.less(tiny, cost))
            sound = w.both(sound, w.either(w.less(cost, huge), w.same(cost, infinite)))
            best = infinite
            if i == 0:
                starts = w.less(w.add(w.lanes(), w.fill_index(j)), w.fill_index(begins))
                best = w.choose(starts, cost, infinite)
            for k in range(level):
                codes[p + k] = 0
                if source[k] >= 0:
                    before = w.load(tables, source[k] + j)
                    length = w.add(before, w.multiply(w.fill(weight[k]), cost))
                    if k == tolled:
                        length = w.add(length, w.load(toll, j))
                    better = w.less(length, best)
                    best = w.choose(better, length, best)
                    codes[p + k] = w.bits(better)
            for k in range(level, count):
                codes[p + k] = 0
            if not whole:
                best = w.choose(inside, best, infinite)
            w.store(tables, at + j, best)
            p += count
        if level < count:
            _along(c, base, name, begin, stop, down, right, weight, tables, at, codes, i * stride)
    return w.every(sound)


@inner
def _trace(codes, i, j, m, down, right, low, high, moves):
    """Write the steps from cell (i, j) back to the start; how many they are."""
    count, steps = len(down), 0
    stride = count * _blocks(m, low, high)
    while True:
        p = i * stride + (((j - _first_block(i, low)) >> 3) + 1) * count
        k = count - 1
        while k >= 0 and not codes[p - count + k] >> (j & 7) & 1:
            k -= 1
        if k < 0:
            return steps
        moves[steps] = k
        i, j, steps = i - down[k], j - right[k], steps + 1


def _span(
    costs, width, names, contiguous, rows, columns, down, right, weight, toll, tolled, begins, ends,
    low, high, value, status, cell_at, cell_weight, cells, start, stop,
):  # fmt: skip
    """Items ``start`` to ``stop`` of ``sweep``."""
    n, m, pad, ring = costs.shape[1] // width, names.shape[1], 0, 1
    for k in range(len(down)):
        pad, ring = larger(pad, right[k]), larger(ring, down[k] + 1)
    across = pad + m + 8
    tables = np.empty(ring * across)
    codes = np.empty(n * len(down) * _blocks(m, low, high), np.uint8)
    source = np.empty(len(down), np.int64)
    moves, name, tolls = np.empty(n + m, np.uint8), np.empty(m + 8, np.int64), np.empty(m + 8)
    for k in range(start, stop):
        c, nk, mk = costs[k if len(costs) > 1 else 0], rows[k], columns[k]
        names_k, toll_k = names[k if len(names) > 1 else 0], toll[k if len(toll) > 1 else 0]
        value[k], status[k] = np.nan, INVALID
        if not known(names_k, mk, width):
            continue
        for j in range(mk + 8):
            # What eight columns have in excess is read from the last one.
            name[j], tolls[j] = names_k[smaller(j, mk - 1)], toll_k[smaller(j, mk - 1)]
        if not _fill(
            c, width, name, contiguous, nk, mk, down, right, weight, tolls, tolled, begins, low, high,
            pad, across, ring, tables, codes, source,
        ):  # fmt: skip
            continue
        value[k], status[k] = np.inf, INFEASIBLE
        z, end, row = np.inf, -1, ((nk - 1) % ring) * across + pad
        for j in range(larger(larger(mk - ends, nk - 1 - low), np.int64(0)), smaller(mk, nk + high)):
            if tables[row + j] < z:
                z, end = tables[row + j], j
        if end < 0:
            continue
        count = _trace(codes, nk - 1, end, mk, down, right, low, high, moves)
        i, j = nk - 1, end
        for t in range(count):
            i, j = i - down[moves[t]], j - right[moves[t]]
        total = size = 0.0
        for t in range(count, -1, -1):
            by = 1.0
            if t < count:
                i, j, by = i + down[moves[t]], j + right[moves[t]], weight[moves[t]]
            at = i * width + name[j]
            cell_at[k, count - t], cell_weight[k, count - t] = at, by
            cost = by * float(c[at])
            total, size = total + cost, size + abs(cost)
        cells[k], value[k] = count + 1, total
        status[k] = OPTIMAL if abs(total - z) <= TOLERANCE * (1.0 + size) else INACCURATE


_KERNELS = {
    dtype: kernel(
        types.void(
            *(kind, SIZE, L2, types.boolean, L1, L1, L1, L1, F1, F2, SIZE, SIZE, SIZE, SIZE, SIZE),
            *(F1W, S1W, L2W, F2W, L1W, SIZE, SIZE),
        )
    )(_span)
    for dtype, kind in COSTS.items()
}
