"""Dynamic time warping (Sakoe and Chiba 1978): any steps, a band, open ends.

    warp(costs, rows=None, columns=None, *, steps=SYMMETRIC, band=None, open_begin=False,
         open_end=False, threads=1) -> CellPaths

A path from cell (0, 0) to cell (n-1, m-1) costs W[0, 0] and, for each step into a cell (i, j), its weight
times W[i, j]. With an open beginning it begins anywhere in the first row, with an open end it ends anywhere
in the last. The usual three steps, diagonal, down and along the row, in this order and of any weights, are
taken in strips of eight rows, others row by row (``rows``). Of equal steps the first is taken, those along a
row last; a path begins as late and ends as early as it can.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
from . import eights
from . import lanes as w
from .jit import F1W, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .rows import CellPaths, Sweep, sweep
from .strips import (
    COSTS,
    HUGE,
    INACCURATE,
    INFEASIBLE,
    INVALID,
    L1,
    L1W,
    L2W,
    OPTIMAL,
    TOLERANCE,
    Moments,
    costs_of,
    first_step,
    lengths_of,
    settle,
)
from .strips import (
    steps as most_steps,
)

__all__ = ["SYMMETRIC", "Steps", "warp"]

Steps: TypeAlias = tuple[tuple[int, int, float], ...]
SYMMETRIC: Steps = ((1, 1, 1.0), (1, 0, 1.0), (0, 1, 1.0))

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2


def warp(
    costs: np.ndarray,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    *,
    steps: Steps = SYMMETRIC,
    band: tuple[int, int] | None = None,
    open_begin: bool = False,
    open_end: bool = False,
    threads: int = 1,
) -> CellPaths:
    """Warp a batch.

    Args:
        costs: (B, n, m) float64 or float32. +inf forbids a cell; NaN and -inf make an item INVALID.
        rows, columns: (B,) int64, the lengths of the items, at least 1; nothing is read beyond them.
        steps: (down, right, weight) each: 0 or more down and right, not both 0, and a positive weight.
        band: (low, high), both >= 0: only cells with -low <= j - i <= high.

    Returns:
        CellPaths: the moments' indices are i * m + j, their weights those of the steps, 1 at the beginning.

    Raises:
        ValueError: shapes, dtypes, lengths or steps that do not fit.
    """
    flat, names = costs_of(costs, None)
    size, n, m = costs.shape
    rows, columns = lengths_of(rows, size, n, "rows", 1), lengths_of(columns, size, m, "columns", 1)
    low, high = (n, m) if band is None else band
    if low < 0 or high < 0:
        raise ValueError(f"band: got {band}; give (low, high), both >= 0: cells with -low <= j - i <= high")
    low, high = min(int(low), n), min(int(high), m)
    for down, right, weight in steps:
        if min(down, right) < 0 or max(down, right) < 1 or not 0.0 < weight < HUGE:
            raise ValueError(
                f"steps: got {(down, right, weight)}; give (down, right, weight) of steps forward"
            )
    if [step[:2] for step in steps] != [step[:2] for step in SYMMETRIC]:
        begins, ends, free = m if open_begin else 1, m if open_end else 1, np.zeros((1, m))
        table = Sweep(flat, m, names, True, rows, columns, tuple(steps), free, -1, begins, ends, low, high)
        return sweep(table, n + m - 1, threads)
    cells, value, status = Moments.empty(size, max(n + m - 1, 0)), np.empty(size), np.empty(size, np.int8)
    compiled = _KERNELS[costs.dtype]
    weights = [float(step[2]) for step in steps]

    def work(start: int, stop: int) -> None:
        compiled(
            *(flat, m, rows, columns, *weights, low, high, open_begin, open_end),
            *(value, status, *cells.arrays, start, stop),
        )

    run_spans(size, threads_for(1.1 * size * n * min(m, low + high + 1), threads), work)
    return CellPaths(value, status, cells)


@inner
def _fill(
    c, width, n, m, diagonal_weight, down_weight, right_weight, low, high, open_begin, open_end,
    top, codes, index, real, end,
):  # fmt: skip
    """Fill the table. Returns its entry at the end, whose column goes to ``end``; NaN: a cost is none.

    top: the row above a strip, from eight entries before column 0 to eight after the last.
    codes: bits of a step: from above < from the diagonal; from the left < both.
    index, real: room for 32 and 16 numbers.
    """
    stride = 2 * most_steps(m, low, high)
    infinite, zero, huge, tiny = w.fill(np.inf), w.fill(0.0), w.fill(HUGE), w.fill(-HUGE)
    fine, rightward = w.same(zero, zero), w.fill(right_weight)
    for j in range(m + 16):
        top[j] = 0.0 if open_begin and j >= 8 else np.inf
    value, end[0] = np.inf, m - 1
    for i in range(0, smaller(n, m + low), 8):
        last = smaller(n - 1 - i, np.int64(7))
        # Cell (i, j) is where the pair (i, j) of an alignment leads to: one node further.
        settle(i + 1, n, m - 1, width, low + 1, high - 1, index)
        for r in range(8):
            # Where a path begins, as if from the row above, the cell counts once.
            real[r], real[8 + r] = diagonal_weight if i + r else 1.0, down_weight if i + r else 1.0
        row_offset, skewed = w.load(index, 0), w.load(index, 8)
        enters, leaves = w.load(index, 16), w.load(index, 24)
        across, down = w.load(real, 0), w.load(real, 8)
        # Between these all lanes are inside. Where they stand for rows beyond the last, they read its costs,
        # and nothing comes of it.
        steady, unsteady = 7 + larger(i + 7 - low, np.int64(0)), smaller(m, i + high + 1)
        watched = np.int64(0) if open_end else m - 1 + last
        if i + last < n - 1:
            watched = m + 8
        begin, p = first_step(i, low), stride * (i >> 3)
        here = diagonal = infinite
        if begin > 0 or i == 0:
            diagonal = w.enter(infinite, top[begin + 7] if i > 0 else 0.0)
        column = w.fill_index(0)
        for s in range(begin, smaller(m - 1, i + last + high) + last + 1):
            upper, inside, column = (
                w.enter(here, top[np.uint64(s + 8)]),
                fine,
                w.enter(column, smaller(s, m - 1)),
            )
            if steady <= s < unsteady:
                cost = w.pick(c, skewed, s + 1)
            else:
                step = w.fill_index(s)
                inside = w.both(w.less(enters, step), w.less(step, leaves))
                cost = w.choose(inside, w.pick(c, w.add(row_offset, column), 0), zero)
            fine = w.both(fine, w.less(tiny, cost))
            fine = w.both(fine, w.either(w.less(cost, huge), w.same(cost, infinite)))
            diagonal = w.add(diagonal, w.multiply(across, cost))
            above = w.add(upper, w.multiply(down, cost))
            left = w.add(here, w.multiply(rightward, cost))
            codes[np.uint64(p)] = w.bits(w.less(above, diagonal))
            here = w.least(above, diagonal)
            codes[np.uint64(p + 1)] = w.bits(w.less(left, here))
            here = w.choose(inside, w.least(left, here), infinite)
            if s >= watched:
                bottom = w.lane_of(here, last)
                if bottom < value:
                    value, end[0] = bottom, s - last
            diagonal = upper
            top[np.uint64(s + 1)] = w.lane_of(here, 7)
            p += 2
    return value if w.every(fine) else np.nan


@inner
def _trace(codes, i, j, m, low, high, moves):
    """Write the steps from cell (i, j) back to the start; how many they are."""
    stride, count = 2 * most_steps(m, low, high), 0
    while True:
        r = i & 7
        p = stride * (i >> 3) + 2 * (j + r - first_step(i - r, low))
        move = _RIGHT if codes[p + 1] >> r & 1 else _DOWN if codes[p] >> r & 1 else _DIAGONAL
        if i == 0 and move != _RIGHT:
            return count
        i, j = i - (move != _RIGHT), j - (move != _DOWN)
        moves[count] = move
        count += 1


def _span(
    costs, width, rows, columns, diagonal_weight, down_weight, right_weight, low, high, open_begin, open_end,
    value, status, cell_at, cell_weight, cells, start, stop,
):  # fmt: skip
    """Items ``start`` to ``stop`` of ``warp``, with the usual steps."""
    n, m = costs.shape[1] // width, width
    top, end, moves = np.empty(m + 16), np.empty(1, np.int64), np.empty(n + m, np.uint8)
    codes = np.empty((n // 8 + 1) * most_steps(m, low, high) * 2, np.uint8)
    index, real = np.empty(32, np.int64), np.empty(16)
    # Whole tables that are small go eight at a time.
    together = not (open_begin or open_end) and low >= n and high >= m and 0 < n * m <= eights.MOST
    table = np.empty(8 * m if together else 0)
    codes_beside = np.empty(2 * n * m if together else 0, np.uint8)
    sound, until = np.uint8(0), start
    for k in range(start, stop):
        if together and k >= until and k + 8 <= stop and eights.whole(rows, columns, k, n, m):
            until = k + 8
            sound = eights.warp(
                costs, k, n, m, diagonal_weight, down_weight, right_weight, table, codes_beside, index
            )
        c, nk, mk = costs[k if len(costs) > 1 else 0], rows[k], columns[k]
        lane = k - (until - 8) if k < until else -1
        if lane >= 0:
            z, end[0] = table[8 * (m - 1) + lane] if sound >> lane & 1 else np.nan, m - 1
        else:
            z = _fill(
                c, width, nk, mk, diagonal_weight, down_weight, right_weight, low, high, open_begin, open_end,
                top, codes, index, real, end,
            )  # fmt: skip
        value[k], status[k] = z, INVALID if np.isnan(z) else INFEASIBLE
        if not z < np.inf:
            continue
        i, j = nk - 1, end[0]
        if lane >= 0:
            count = eights.trace(codes_beside, lane, i, j, m - 1, _DOWN, _RIGHT, _DIAGONAL, moves)
        else:
            count = _trace(codes, i, j, mk, low, high, moves)
        for t in range(count):
            i, j = i - (moves[t] != _RIGHT), j - (moves[t] != _DOWN)
        total = size = 0.0
        for t in range(count, -1, -1):
            by = 1.0
            if t < count:
                i, j = i + (moves[t] != _RIGHT), j + (moves[t] != _DOWN)
                by = right_weight if moves[t] == _RIGHT else down_weight
                by = diagonal_weight if moves[t] == _DIAGONAL else by
            at = i * width + j
            cell_at[k, count - t], cell_weight[k, count - t] = at, by
            cost = by * float(c[at])
            total, size = total + cost, size + abs(cost)
        cells[k], value[k] = count + 1, total
        status[k] = OPTIMAL if abs(total - z) <= TOLERANCE * (1.0 + size) else INACCURATE


_KERNELS = {
    dtype: kernel(
        types.void(
            *(kind, SIZE, L1, L1, types.float64, types.float64, types.float64, SIZE, SIZE),
            *(types.boolean, types.boolean, F1W, S1W, L2W, F2W, L1W, SIZE, SIZE),
        )
    )(_span)
    for dtype, kind in COSTS.items()
}
