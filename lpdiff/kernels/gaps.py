"""Alignment with linear gaps (Needleman and Wunsch 1970), global, with free ends, local, or in a band.

    align(costs, row_gap, col_gap, rows=None, columns=None, *, names=None, free=(False,) * 4,
          local=False, band=None, threads=1) -> Alignment

A path from node (0, 0) to node (n, m) pairs row i with column j at the cost W[i, j], leaves out row i at
row_gap[i], or column j at col_gap[j]. The costs of best paths to the nodes are

    D[i, j] = min(D[i-1, j-1] + W[i-1, j-1],  D[i-1, j] + row_gap[i-1],  D[i, j-1] + col_gap[j-1]).

-D is a potential of that graph, dual feasible because each entry is the minimum of its candidates; the traced
path is primal feasible, and its cost is the same sum in the same order. The value's derivative in a parameter
says how often the path pays it. Of equal candidates the pair is taken first, then the row's gap.

Free ends (of rows, at their start, at their end; of columns likewise) cost nothing instead of their gaps:
rows left out before the first column or after the last, columns before the first row or after the last.
A local alignment (Smith and Waterman 1981) is a path between any two nodes, the empty one at value 0 among
them; of equal ones it ends at the first node in row-major order, and begins as late as it can.
A band (low, high) keeps the nodes with -low <= j - i <= high. A path ends at (n, m), or, where the band ends
before, at the last node in it, if that is a free end: (m + low, m) or (n, n + high).
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
from . import eights
from . import lanes as w
from .jit import F1W, F2, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .strips import (
    COLS_END,
    COLS_START,
    COSTS,
    HUGE,
    INACCURATE,
    INFEASIBLE,
    INVALID,
    L1,
    L1W,
    L2,
    L2W,
    NOWHERE,
    OPTIMAL,
    ROWS_END,
    ROWS_START,
    TOLERANCE,
    Moments,
    allowed,
    band_of,
    costs_of,
    first_step,
    free_bits,
    known,
    leading,
    lengths_of,
    of_border,
    of_rows,
    open_top,
    parameter,
    settle,
    steps,
)

__all__ = ["Alignment", "align"]

_PAIR, _ROW, _COLUMN = 0, 1, 2


class Alignment(NamedTuple):
    """Optimal alignments.

    value: (B,) float64; +inf where there is none, NaN where a number was not a cost.
    status: (B,) int8, as ``lpdiff.Status``.
    pairs: moments in the costs, index i * V + (j, or the name of column j); at most min(n, m).
    row_gaps, col_gaps: moments in the gaps' costs; at most n and m.
    """

    value: np.ndarray
    status: np.ndarray
    pairs: Moments
    row_gaps: Moments
    col_gaps: Moments


def align(
    costs: np.ndarray,
    row_gap: np.ndarray,
    col_gap: np.ndarray,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    *,
    names: np.ndarray | None = None,
    free: tuple[bool, bool, bool, bool] = (False, False, False, False),
    local: bool = False,
    band: tuple[int, int] | None = None,
    threads: int = 1,
) -> Alignment:
    """Align a batch.

    Args:
        costs: (B, n, m) float64 or float32. +inf forbids a pair; NaN and -inf make an item INVALID.
        row_gap, col_gap: (1|B, n) and (1|B, m) float64, likewise.
        rows, columns: (B,) int64, the lengths of the items; nothing is read beyond them. All n, m if None.
        names: (1|B, m) int64. Given, costs are (B, n, V), and the pair (i, j) costs costs[i, names[j]].
        free: whether leaving out costs nothing at the start and the end of the rows and of the columns.
        local: between any two nodes (without ``free``).
        band: (low, high), both >= 0.

    Raises:
        ValueError: shapes, dtypes or lengths that do not fit; ``free`` and ``local`` together.
    """
    flat, names_ = costs_of(costs, names)
    (size, n, width), m = costs.shape, names_.shape[1]
    row_gap, col_gap = parameter(row_gap, size, n, "row_gap"), parameter(col_gap, size, m, "col_gap")
    rows, columns = lengths_of(rows, size, n, "rows"), lengths_of(columns, size, m, "columns")
    flags, (low, high) = free_bits(free, local), band_of(band, n, m)
    pairs, row_gaps, col_gaps = Moments.empty(size, min(n, m)), Moments.empty(size, n), Moments.empty(size, m)
    value, status = np.empty(size), np.empty(size, np.int8)
    compiled = _KERNELS[costs.dtype]

    def work(start: int, stop: int) -> None:
        compiled(
            *(flat, width, names_, names is None, row_gap, col_gap, rows, columns, flags, local, low, high),
            *(value, status, *pairs.arrays, *row_gaps.arrays, *col_gaps.arrays, start, stop),
        )

    run_spans(size, threads_for(0.8 * size * n * min(m, low + high), threads), work)
    return Alignment(value, status, pairs, row_gaps, col_gaps)


@inner
def _fill(
    c, width, names, dense, row_gap, col_gap, n, m, free, local, low, high, top, codes, index, real, end
):  # fmt: skip
    """Fill the table. Returns its entry at the end node, which goes to ``end``; NaN where a cost is not one.

    names, col_gap: by the column of nodes that they lead to, see ``leading``.
    top: the row above a strip, from eight entries before column 0 to eight after column m.
    codes: bits of a step: upper < diagonal; left < both; and for local alignments: all >= 0.
    index, real: room for 32 and 16 numbers.
    """
    planes = 3 if local else 2
    stride = planes * steps(m, low, high)
    infinite, zero, huge, tiny = w.fill(np.inf), w.fill(0.0), w.fill(HUGE), w.fill(-HUGE)
    fine, cells = w.same(zero, zero), n > 0 and m > 0
    free_first = w.add(w.lanes(), w.fill_index(0 if free & ROWS_START else NOWHERE))
    free_last = w.add(w.lanes(), w.fill_index(m if free & ROWS_END else NOWHERE))
    open_top(top, m)
    value, end[0], end[1] = np.inf, smaller(n, m + low), smaller(m, n + high)
    if local:
        value, end[0], end[1] = 0.0, 0, 0
    for i in range(0, smaller(n, m + low) + 1, 8):
        last = smaller(n - i, np.int64(7))
        settle(i, n, m, width, low, high, index)
        of_rows(i, n, row_gap, real, 0)
        of_border(i, n, free & COLS_START, free & COLS_END, real, 8)
        row_offset, skewed = w.load(index, 0), w.load(index, 8)
        enters, leaves, row_cost = w.load(index, 16), w.load(index, 24), w.load(real, 0)
        gratis_lanes = w.less(zero, w.load(real, 8))
        paired = w.less(w.fill_index(0), w.add(w.lanes(), w.fill_index(i)))
        # Between these all lanes are inside, at columns that have a left and a right. Where lanes stand for
        # rows beyond the last, they read its costs, and nothing comes of it.
        steady, unsteady = 8 + larger(i + 7 - low, np.int64(0)), smaller(m, i + high + 1) if cells else 0
        watched = end[1] + (end[0] & 7) if i + (end[0] & 7) == end[0] else -1
        begin, p = first_step(i, low), stride * (i >> 3)
        here = diagonal = across = infinite
        if begin > 0 or i == 0:
            # A path begins as if a pair that costs nothing led to node (0, 0).
            diagonal = w.enter(infinite, top[begin + 7] if i > 0 else 0.0)
        name, best, at = w.fill_index(0), infinite, w.fill_index(0)
        for s in range(begin, smaller(m, i + last + high) + last + 1):
            upper, gap, cost, inside = w.enter(here, top[np.uint64(s + 8)]), row_cost, zero, fine
            across, name = w.enter(across, col_gap[np.uint64(s)]), w.enter(name, names[np.uint64(s)])
            if steady <= s < unsteady:
                cost = w.pick(c, skewed, s) if dense else w.pick(c, w.add(row_offset, name), 0)
            else:
                step = w.fill_index(s)
                inside = w.both(w.less(enters, step), w.less(step, leaves))
                gap = w.choose(w.either(w.same(step, free_first), w.same(step, free_last)), zero, gap)
                if cells:
                    cost = w.pick(c, w.add(row_offset, name), 0)
                    cost = w.choose(w.both(inside, paired), cost, zero)
            fine = w.both(fine, w.less(tiny, cost))
            fine = w.both(fine, w.either(w.less(cost, huge), w.same(cost, infinite)))
            diagonal, above = w.add(diagonal, cost), w.add(upper, gap)
            left = w.add(here, w.choose(gratis_lanes, zero, across))
            codes[np.uint64(p)] = w.bits(w.less(above, diagonal))
            here = w.least(above, diagonal)
            codes[np.uint64(p + 1)] = w.bits(w.less(left, here))
            here = w.choose(inside, w.least(left, here), infinite)
            if local:
                codes[np.uint64(p + 2)] = w.bits(w.either(w.less(zero, here), w.same(zero, here)))
                here = w.choose(inside, w.least(here, zero), infinite)
                better = w.less(here, best)
                best, at = w.choose(better, here, best), w.choose(better, w.fill_index(s), at)
            elif s == watched:
                value = w.lane_of(here, end[0] & 7)
            diagonal = upper
            top[np.uint64(s + 1)] = w.lane_of(here, 7)
            p += planes
        if local:
            for r in range(last + 1):
                if w.lane_of(best, r) < value:
                    value, end[0], end[1] = w.lane_of(best, r), i + r, w.lane_of(at, r) - r
    return value if w.every(fine) else np.nan


@inner
def _trace(codes, i, j, m, local, low, high, moves):
    """Write the moves from node (i, j) back to the start; how many they are."""
    planes = 3 if local else 2
    stride, count = planes * steps(m, low, high), 0
    while i + j > 0:
        r = i & 7
        p = stride * (i >> 3) + planes * (j + r - first_step(i - r, low))
        if local and codes[p + 2] >> r & 1:
            break
        move = _COLUMN if codes[p + 1] >> r & 1 else _ROW if codes[p] >> r & 1 else _PAIR
        i, j = i - (move != _COLUMN), j - (move != _ROW)
        moves[count] = move
        count += 1
    return count


_MOMENTS = (L2W, F2W, L1W)


def _span(
    costs, width, names, dense, row_gap, col_gap, rows, columns, free, local, low, high,
    value, status, pair_at, pair_weight, pairs, row_at, row_weight, row_gaps, col_at, col_weight, col_gaps,
    start, stop,
):  # fmt: skip
    """Items ``start`` to ``stop`` of ``align``."""
    n, m = row_gap.shape[1], col_gap.shape[1]
    top, end, moves = np.empty(m + 17), np.empty(2, np.int64), np.empty(n + m, np.uint8)
    codes = np.empty((n // 8 + 1) * steps(m, low, high) * (3 if local else 2), np.uint8)
    index, real = np.empty(32, np.int64), np.empty(16)
    names_to, gaps_to = np.empty(m + 8, np.int64), np.empty(m + 8)
    # Whole tables that are small go eight at a time.
    together = dense and free == 0 and not local and low >= n and high >= m and 0 < n * m <= eights.MOST
    most = 8 if together else 0
    rows_beside, cols_beside, table = np.empty(most * n), np.empty(most * m), np.empty(most * (m + 1))
    codes_beside = np.zeros((n + 1) * (m + 1) * (2 if together else 0), np.uint8)
    sound, until = np.uint8(0), start
    for k in range(start, stop):
        if together and k >= until and k + 8 <= stop and eights.whole(rows, columns, k, n, m):
            until = k + 8
            eights.beside(row_gap, k, rows_beside)
            eights.beside(col_gap, k, cols_beside)
            sound = eights.align(costs, k, n, m, rows_beside, cols_beside, table, codes_beside, index)
        c, name = costs[k if len(costs) > 1 else 0], names[k if len(names) > 1 else 0]
        row_k, col_k = row_gap[k if len(row_gap) > 1 else 0], col_gap[k if len(col_gap) > 1 else 0]
        nk, mk = rows[k], columns[k]
        value[k], status[k] = np.nan, INVALID
        if not (allowed(row_k, nk) and allowed(col_k, mk) and known(name, mk, width)):
            continue
        lane = k - (until - 8) if k < until else -1
        if lane >= 0:
            z, end[0], end[1] = table[8 * m + lane] if sound >> lane & 1 else np.nan, n, m
        else:
            leading(name, mk, names_to)
            leading(col_k, mk, gaps_to)
            z = _fill(
                c, width, names_to, dense, row_k, gaps_to, nk, mk, free, local, low, high,
                top, codes, index, real, end,
            )  # fmt: skip
        if np.isnan(z):
            continue
        i, j = end[0], end[1]
        value[k], status[k] = np.inf, INFEASIBLE
        # A band that ends before the last node: the rest must be free.
        cut = (i < nk and not (local or free & ROWS_END)) or (j < mk and not (local or free & COLS_END))
        if z == np.inf or cut:
            continue
        if lane >= 0:
            count = eights.trace(codes_beside, lane, i, j, m, _ROW, _COLUMN, _PAIR, moves)
        else:
            count = _trace(codes, i, j, mk, local, low, high, moves)
        for t in range(count):
            i, j = i - (moves[t] != _COLUMN), j - (moves[t] != _ROW)
        a = b = d = 0
        total = size = 0.0
        for t in range(count - 1, -1, -1):
            cost = 0.0
            if moves[t] == _PAIR:
                pair_at[k, a], pair_weight[k, a] = i * width + name[j], 1.0
                cost = float(c[pair_at[k, a]])
                i, j, a = i + 1, j + 1, a + 1
            elif moves[t] == _ROW:
                if not ((j == 0 and free & ROWS_START) or (j == mk and free & ROWS_END)):
                    row_at[k, b], row_weight[k, b], cost = i, 1.0, row_k[i]
                    b += 1
                i += 1
            else:
                if not ((i == 0 and free & COLS_START) or (i == nk and free & COLS_END)):
                    col_at[k, d], col_weight[k, d], cost = j, 1.0, col_k[j]
                    d += 1
                j += 1
            total, size = total + cost, size + abs(cost)
        pairs[k], row_gaps[k], col_gaps[k], value[k] = a, b, d, total
        proved = abs(total - z) <= TOLERANCE * (1.0 + size) and i == end[0] and j == end[1]
        status[k] = OPTIMAL if proved else INACCURATE


_KERNELS = {
    dtype: kernel(
        types.void(
            *(kind, SIZE, L2, types.boolean, F2, F2, L1, L1, SIZE, types.boolean, SIZE, SIZE),
            *(F1W, S1W, *_MOMENTS, *_MOMENTS, *_MOMENTS, SIZE, SIZE),
        )
    )(_span)
    for dtype, kind in COSTS.items()
}
