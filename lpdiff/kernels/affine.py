"""Alignment with affine gaps (Gotoh 1982), global, with free ends, local, or in a band.

    align_affine(costs, row_gap, col_gap, row_open, col_open, rows=None, columns=None, *, names=None,
                 free=(False,) * 4, local=False, band=None, threads=1) -> AffineAlignment

As ``gaps``, but that a gap's first symbol costs row_open[i] or col_open[j], each further one row_gap[i] or
col_gap[j]. Three layers of nodes: H where anything may follow, R and C within a gap of rows and of columns:

    R[i, j] = min(H[i-1, j] + row_open[i-1],  R[i-1, j] + row_gap[i-1])
    C[i, j] = min(H[i, j-1] + col_open[j-1],  C[i, j-1] + col_gap[j-1])
    H[i, j] = min(H[i-1, j-1] + W[i-1, j-1],  R[i, j],  C[i, j]).

A gap may follow another at once, of either kind, and opens anew. Of equal candidates the first in these lines
is taken. Free ends, local alignments and bands are those of ``gaps``; they begin and end in H.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
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

__all__ = ["AffineAlignment", "align_affine"]

_PAIR, _ROW_OPEN, _ROW, _COLUMN_OPEN, _COLUMN = 0, 1, 2, 3, 4


class AffineAlignment(NamedTuple):
    """Optimal alignments.

    value: (B,) float64; +inf where there is none, NaN where a number was not a cost.
    status: (B,) int8, as ``lpdiff.Status``.
    pairs: moments in the costs, index i * V + (j, or the name of column j); at most min(n, m).
    row_gaps, col_gaps, row_opens, col_opens: moments in the gaps' costs; at most n and m.
    """

    value: np.ndarray
    status: np.ndarray
    pairs: Moments
    row_gaps: Moments
    col_gaps: Moments
    row_opens: Moments
    col_opens: Moments


def align_affine(
    costs: np.ndarray,
    row_gap: np.ndarray,
    col_gap: np.ndarray,
    row_open: np.ndarray,
    col_open: np.ndarray,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    *,
    names: np.ndarray | None = None,
    free: tuple[bool, bool, bool, bool] = (False, False, False, False),
    local: bool = False,
    band: tuple[int, int] | None = None,
    threads: int = 1,
) -> AffineAlignment:
    """Align a batch. Arguments and errors as of ``gaps.align``, and

    Args:
        row_gap, col_gap: (1|B, n) and (1|B, m) float64, what further symbols of a gap cost.
        row_open, col_open: likewise, what its first symbol costs.
    """
    flat, names_ = costs_of(costs, names)
    (size, n, width), m = costs.shape, names_.shape[1]
    row_gap, col_gap = parameter(row_gap, size, n, "row_gap"), parameter(col_gap, size, m, "col_gap")
    row_open, col_open = parameter(row_open, size, n, "row_open"), parameter(col_open, size, m, "col_open")
    rows, columns = lengths_of(rows, size, n, "rows"), lengths_of(columns, size, m, "columns")
    flags, (low, high) = free_bits(free, local), band_of(band, n, m)
    moments = [Moments.empty(size, most) for most in (min(n, m), n, m, n, m)]
    value, status = np.empty(size), np.empty(size, np.int8)
    compiled = _KERNELS[costs.dtype]
    written = [array for part in moments for array in part.arrays]

    def work(start: int, stop: int) -> None:
        compiled(
            *(flat, width, names_, names is None, row_gap, col_gap, row_open, col_open, rows, columns),
            *(flags, local, low, high, value, status, *written, start, stop),
        )

    run_spans(size, threads_for(1.6 * size * n * min(m, low + high), threads), work)
    return AffineAlignment(value, status, *moments)


@inner
def _fill(
    c, width, names, dense, row_gap, col_gap, row_open, col_open, n, m, free, local, low, high,
    top, top_row, codes, index, real, end,
):  # fmt: skip
    """Fill the table. Returns H at the end node, which goes to ``end``; NaN where a cost is not one.

    names, col_gap, col_open: by the column of nodes that they lead to, see ``leading``.
    top, top_row: H and R above a strip, from eight entries before column 0 to eight after column m.
    codes: bits of a step: R further < opened; C further < opened; R < pair; C < both; and for local
    alignments: all >= 0.
    index, real: room for 32 and 24 numbers.
    """
    planes = 5 if local else 4
    stride = planes * steps(m, low, high)
    infinite, zero, huge, tiny = w.fill(np.inf), w.fill(0.0), w.fill(HUGE), w.fill(-HUGE)
    fine, cells = w.same(zero, zero), n > 0 and m > 0
    free_first = w.add(w.lanes(), w.fill_index(0 if free & ROWS_START else NOWHERE))
    free_last = w.add(w.lanes(), w.fill_index(m if free & ROWS_END else NOWHERE))
    open_top(top, m)
    open_top(top_row, m)
    value, end[0], end[1] = np.inf, smaller(n, m + low), smaller(m, n + high)
    if local:
        value, end[0], end[1] = 0.0, 0, 0
    for i in range(0, smaller(n, m + low) + 1, 8):
        last = smaller(n - i, np.int64(7))
        settle(i, n, m, width, low, high, index)
        of_rows(i, n, row_open, real, 0)
        of_rows(i, n, row_gap, real, 8)
        of_border(i, n, free & COLS_START, free & COLS_END, real, 16)
        row_offset, skewed = w.load(index, 0), w.load(index, 8)
        enters, leaves = w.load(index, 16), w.load(index, 24)
        row_opens, row_gaps = w.load(real, 0), w.load(real, 8)
        gratis_lanes = w.less(zero, w.load(real, 16))
        paired = w.less(w.fill_index(0), w.add(w.lanes(), w.fill_index(i)))
        # Between these all lanes are inside, at columns that have a left and a right. Where lanes stand for
        # rows beyond the last, they read its costs, and nothing comes of it.
        steady, unsteady = 8 + larger(i + 7 - low, np.int64(0)), smaller(m, i + high + 1) if cells else 0
        watched = end[1] + (end[0] & 7) if i + (end[0] & 7) == end[0] else -1
        begin, p = first_step(i, low), stride * (i >> 3)
        here = in_row = in_column = diagonal = opens = gaps = infinite
        if begin > 0 or i == 0:
            # A path begins as if a pair that costs nothing led to node (0, 0).
            diagonal = w.enter(infinite, top[begin + 7] if i > 0 else 0.0)
        name, best, at = w.fill_index(0), infinite, w.fill_index(0)
        for s in range(begin, smaller(m, i + last + high) + last + 1):
            upper, upper_row = (
                w.enter(here, top[np.uint64(s + 8)]),
                w.enter(in_row, top_row[np.uint64(s + 8)]),
            )
            opened, further, cost, inside = row_opens, row_gaps, zero, fine
            opens, gaps = w.enter(opens, col_open[np.uint64(s)]), w.enter(gaps, col_gap[np.uint64(s)])
            name = w.enter(name, names[np.uint64(s)])
            if steady <= s < unsteady:
                cost = w.pick(c, skewed, s) if dense else w.pick(c, w.add(row_offset, name), 0)
            else:
                step = w.fill_index(s)
                inside = w.both(w.less(enters, step), w.less(step, leaves))
                gratis = w.either(w.same(step, free_first), w.same(step, free_last))
                opened, further = w.choose(gratis, zero, opened), w.choose(gratis, infinite, further)
                if cells:
                    cost = w.pick(c, w.add(row_offset, name), 0)
                    cost = w.choose(w.both(inside, paired), cost, zero)
            fine = w.both(fine, w.less(tiny, cost))
            fine = w.both(fine, w.either(w.less(cost, huge), w.same(cost, infinite)))
            opened, further = w.add(upper, opened), w.add(upper_row, further)
            codes[np.uint64(p)] = w.bits(w.less(further, opened))
            in_row = w.least(further, opened)  # outside a band, R leads only further out
            opened = w.add(here, w.choose(gratis_lanes, zero, opens))
            further = w.add(in_column, w.choose(gratis_lanes, infinite, gaps))
            codes[np.uint64(p + 1)] = w.bits(w.less(further, opened))
            in_column, diagonal = w.least(further, opened), w.add(diagonal, cost)
            codes[np.uint64(p + 2)] = w.bits(w.less(in_row, diagonal))
            here = w.least(in_row, diagonal)
            codes[np.uint64(p + 3)] = w.bits(w.less(in_column, here))
            here = w.choose(inside, w.least(in_column, here), infinite)
            if local:
                codes[np.uint64(p + 4)] = w.bits(w.either(w.less(zero, here), w.same(zero, here)))
                here = w.choose(inside, w.least(here, zero), infinite)
                better = w.less(here, best)
                best, at = w.choose(better, here, best), w.choose(better, w.fill_index(s), at)
            elif s == watched:
                value = w.lane_of(here, end[0] & 7)
            diagonal = upper
            top[np.uint64(s + 1)], top_row[np.uint64(s + 1)] = w.lane_of(here, 7), w.lane_of(in_row, 7)
            p += planes
        if local:
            for r in range(last + 1):
                if w.lane_of(best, r) < value:
                    value, end[0], end[1] = w.lane_of(best, r), i + r, w.lane_of(at, r) - r
    return value if w.every(fine) else np.nan


@inner
def _trace(codes, i, j, m, local, low, high, moves):
    """Write the moves from H[i, j] back to the start; how many they are."""
    planes = 5 if local else 4
    stride, count, layer = planes * steps(m, low, high), 0, _PAIR
    while i + j > 0:
        r = i & 7
        p = stride * (i >> 3) + planes * (j + r - first_step(i - r, low))
        if layer == _PAIR:
            if local and codes[p + 4] >> r & 1:
                break
            layer = _COLUMN if codes[p + 3] >> r & 1 else _ROW if codes[p + 2] >> r & 1 else _PAIR
        move = layer
        if layer == _ROW and not codes[p] >> r & 1:
            move, layer = _ROW_OPEN, _PAIR
        elif layer == _COLUMN and not codes[p + 1] >> r & 1:
            move, layer = _COLUMN_OPEN, _PAIR
        i, j = i - (move <= _ROW), j - (move == _PAIR or move >= _COLUMN_OPEN)
        moves[count] = move
        count += 1
    return count


_MOMENTS = (L2W, F2W, L1W)


def _span(
    costs, width, names, dense, row_gap, col_gap, row_open, col_open, rows, columns, free, local, low, high,
    value, status, pair_at, pair_weight, pairs, row_at, row_weight, row_gaps, col_at, col_weight, col_gaps,
    row_open_at, row_open_weight, row_opens, col_open_at, col_open_weight, col_opens, start, stop,
):  # fmt: skip
    """Items ``start`` to ``stop`` of ``align_affine``."""
    n, m = row_gap.shape[1], col_gap.shape[1]
    top, top_row, end = np.empty(m + 17), np.empty(m + 17), np.empty(2, np.int64)
    codes = np.empty((n // 8 + 1) * steps(m, low, high) * (5 if local else 4), np.uint8)
    moves, index, real = np.empty(n + m, np.uint8), np.empty(32, np.int64), np.empty(24)
    names_to, gaps_to, opens_to = np.empty(m + 8, np.int64), np.empty(m + 8), np.empty(m + 8)
    for k in range(start, stop):
        c, name = costs[k if len(costs) > 1 else 0], names[k if len(names) > 1 else 0]
        row_k, col_k = row_gap[k if len(row_gap) > 1 else 0], col_gap[k if len(col_gap) > 1 else 0]
        row_o, col_o = row_open[k if len(row_open) > 1 else 0], col_open[k if len(col_open) > 1 else 0]
        nk, mk = rows[k], columns[k]
        value[k], status[k] = np.nan, INVALID
        if not (allowed(row_k, nk) and allowed(col_k, mk) and known(name, mk, width)):
            continue
        if not (allowed(row_o, nk) and allowed(col_o, mk)):
            continue
        leading(name, mk, names_to)
        leading(col_k, mk, gaps_to)
        leading(col_o, mk, opens_to)
        z = _fill(
            c, width, names_to, dense, row_k, gaps_to, row_o, opens_to, nk, mk, free, local, low, high,
            top, top_row, codes, index, real, end,
        )  # fmt: skip
        if np.isnan(z):
            continue
        i, j = end[0], end[1]
        value[k], status[k] = np.inf, INFEASIBLE
        # A band that ends before the last node: the rest must be free.
        cut = (i < nk and not (local or free & ROWS_END)) or (j < mk and not (local or free & COLS_END))
        if z == np.inf or cut:
            continue
        count = _trace(codes, i, j, mk, local, low, high, moves)
        for t in range(count):
            i, j = i - (moves[t] <= _ROW), j - (moves[t] == _PAIR or moves[t] >= _COLUMN_OPEN)
        a = row_n = col_n = row_opened = col_opened = 0
        total = size = 0.0
        for t in range(count - 1, -1, -1):
            move, cost = moves[t], 0.0
            if move == _PAIR:
                pair_at[k, a], pair_weight[k, a] = i * width + name[j], 1.0
                cost = float(c[pair_at[k, a]])
                i, j, a = i + 1, j + 1, a + 1
            elif move <= _ROW:
                if (j == 0 and free & ROWS_START) or (j == mk and free & ROWS_END):
                    pass
                elif move == _ROW:
                    row_at[k, row_n], row_weight[k, row_n], cost = i, 1.0, row_k[i]
                    row_n += 1
                else:
                    row_open_at[k, row_opened], row_open_weight[k, row_opened], cost = i, 1.0, row_o[i]
                    row_opened += 1
                i += 1
            else:
                if (i == 0 and free & COLS_START) or (i == nk and free & COLS_END):
                    pass
                elif move == _COLUMN:
                    col_at[k, col_n], col_weight[k, col_n], cost = j, 1.0, col_k[j]
                    col_n += 1
                else:
                    col_open_at[k, col_opened], col_open_weight[k, col_opened], cost = j, 1.0, col_o[j]
                    col_opened += 1
                j += 1
            total, size = total + cost, size + abs(cost)
        pairs[k], row_gaps[k], col_gaps[k], value[k] = a, row_n, col_n, total
        row_opens[k], col_opens[k] = row_opened, col_opened
        proved = abs(total - z) <= TOLERANCE * (1.0 + size) and i == end[0] and j == end[1]
        status[k] = OPTIMAL if proved else INACCURATE


_KERNELS = {
    dtype: kernel(
        types.void(
            *(kind, SIZE, L2, types.boolean, F2, F2, F2, F2, L1, L1, SIZE, types.boolean, SIZE, SIZE),
            *(F1W, S1W, *_MOMENTS, *_MOMENTS, *_MOMENTS, *_MOMENTS, *_MOMENTS, SIZE, SIZE),
        )
    )(_span)
    for dtype, kind in COSTS.items()
}
