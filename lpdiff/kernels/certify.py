"""The certificate for LPs of at most two entries a column: one pass over the columns, one over the rows.

It reads the original data and the proposal (x, y) alone. By weak duality, with d = c - A'y,

    D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-)  <=  min c'x,
    c'x - D(y) = sum(d (x - side)) + sum(y (Ax - side)),   each side by the sign of d, of y,

so a feasible x is optimal where no term is left. A dual whose sign asks for an infinite side leaves
D(y) = -inf: its magnitude is the dual residual.

What is judged here is exact to rounding, so that each term is judged by itself: x_j stands at the side that
the sign of d_j asks for, or d_j is the rounding of |c_j| + |a y|. Against the sum, or the largest cost, wrong
vertices would hide behind one large number, or behind what all costs have in common. The first look asks for
more, which costs next to nothing: rounding of the largest numbers alone. What fails is looked at again, by a
kernel of its own: it is compiled when it is needed.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1W, F1W, F2, F2W, I1, REAL, SIZE, inner, kernel, larger, row_of, smaller
from .lanes import (
    WIDTH,
    add,
    choose,
    every,
    fill,
    fill_index,
    further,
    furthest,
    gather,
    lanes,
    less,
    load,
    multiply,
    same,
    size,
    subtract,
    total,
)

__all__ = ["certify", "columns_of"]

# Magnitudes from here on are infinite.
_INFINITE = 1e20

# No dual is larger: sums of so large numbers overflow.
_HUGE = 1e290

# What cannot be told from rounding, relative to the terms of a sum.
_NOISE = 1e-13

# The same for a reduced cost: potentials add up the rounding of a path.
_TIE = 1e-12

# A point this close to a side (relative) stands there: two roundings.
_EXACT = 1e-15

# Beside the largest number of an item this is nothing, whatever it belongs to.
_FLOOR = 1e-14


def columns_of(
    rows: int, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two entries of each column: ``row_a, row_b`` (n,) int32 and ``val_a, val_b`` (1|B, n).

    Args:
        rows: The number of rows, m.
        indptr, indices: The columns' pattern, CSC, of at most two entries a column.
        values: (1|B, nnz).
    """
    indptr = np.asarray(indptr, dtype=np.int64)
    counts = np.diff(indptr)
    if counts.max(initial=0) > 2:
        j = int(np.argmax(counts > 2))
        raise ValueError(f"column {j} has {counts[j]} entries, expected at most two")
    # Columns without entry point at the row m, where y is zero.
    indices = np.append(np.asarray(indices, dtype=np.int32), np.int32(rows))
    values = np.pad(np.asarray(values, dtype=np.float64), ((0, 0), (0, 1)))
    none = len(indices) - 1
    a = np.where(counts > 0, indptr[:-1], none)
    b = np.where(counts > 1, indptr[:-1] + 1, none)
    return indices[a], indices[b], np.ascontiguousarray(values[:, a]), np.ascontiguousarray(values[:, b])


def certify(
    row_a,  # (n,) int32, m: none
    row_b,  # (n,)
    val_a,  # (1|B, n)
    val_b,  # (1|B, n)
    c,  # (1|B, n)
    lower,  # (1|B, n)
    upper,  # (1|B, n)
    row_lower,  # (1|B, m)
    row_upper,  # (1|B, m)
    x,  # (B, n)
    y,  # (B, m)
    start,
    stop,
    tolerance,
    ok,  # (B,) bool: optimal beyond doubt
    value,  # (B,) c'x
    gap,  # (B,) c'x - D(y)
    primal_residual,  # (B,)
    dual_residual,  # (B,)
):
    """Judge the proposals of a span. What is NaN or infinite anywhere in c, x, y is refused."""
    n, m = x.shape[1], y.shape[1]
    space = np.empty((_BUFFERS, max(m + 1, WIDTH)))
    a, b = row_a, row_b
    if n < WIDTH:
        a, b = (np.append(row, np.full(WIDTH - n, m, np.int32)) for row in (row_a, row_b))
    given = (val_a, val_b, c, lower, upper, row_lower, row_upper, x, y, start, stop, tolerance, space)
    if _first_look(a, b, *given, ok, value, gap, primal_residual, dual_residual):
        _second_look(row_a, row_b, *given, ok, dual_residual)


# Rows of a span's buffer: duals, activities, sizes of activities, and the columns of narrow items.
_DUAL, _ACTIVITY, _SIZE, _NARROW, _BUFFERS = 0, 1, 2, 3, 9


@inner
def _widened(columns, wide):
    """Eight numbers, of which the last are 0, for what has fewer columns than there are lanes."""
    for j in range(WIDTH):
        wide[j] = 0.0
    for j in range(len(columns)):
        wide[j] = columns[j]
    return wide


@inner
def _judge_columns(n, row_a, row_b, val_a, val_b, c, lower, upper, x, dual, activity):
    """(value, sum of terms; the largest violation, d where x is not at its side, |d|, |x|, |c|).

    ``activity`` is added to. The largest numbers are NaN where one is.
    """
    zero, infinite, exact = fill(0.0), fill(_INFINITE), fill(_EXACT)
    terms, off, open_, slope = zero, fill_index(0), fill_index(0), fill_index(0)
    most, dearest = fill_index(0), fill_index(0)
    value, begin, done = 0.0, 0, 0
    while done < n:
        begin = smaller(done, n - WIDTH)  # the last eight may overlap those before
        cost, point = load(c, begin), load(x, begin)
        low, high = load(lower, begin), load(upper, begin)
        d = subtract(cost, multiply(load(val_a, begin), gather(dual, row_a, begin)))
        d = subtract(d, multiply(load(val_b, begin), gather(dual, row_b, begin)))
        side = choose(less(zero, d), low, high)
        known = choose(less(size(side), infinite), side, zero)
        term = multiply(d, subtract(point, known))
        terms = add(terms, choose(less(lanes(), fill_index(done - begin)), zero, term))
        away = less(multiply(exact, size(known)), size(subtract(point, side)))
        open_, slope = further(open_, choose(away, d, zero)), further(slope, d)
        below, above = subtract(low, point), subtract(point, high)
        # NaN is not less than zero, and stays.
        off = further(
            further(off, choose(less(below, zero), zero, below)), choose(less(above, zero), zero, above)
        )
        most, dearest = further(most, point), further(dearest, cost)
        if not every(same(point, zero)):
            for j in range(done, begin + WIDTH):
                at = x[j]
                if at != 0.0:
                    activity[np.uint32(row_a[j])] += val_a[j] * at
                    activity[np.uint32(row_b[j])] += val_b[j] * at
                    value += c[j] * at
        done = begin + WIDTH
    numbers = (furthest(off), furthest(open_), furthest(slope), furthest(most), furthest(dearest))
    return value, total(terms), numbers


@inner
def _counted(price, low, high):
    """A row's dual, or 0 where its sign asks for an infinite side."""
    return price if abs(low if price > 0.0 else high) < _INFINITE else 0.0


@kernel(
    SIZE(
        *(I1, I1, F2, F2),
        *(F2, F2, F2, F2, F2),
        *(F2, F2),
        *(SIZE, SIZE, REAL, F2W),
        *(B1W, F1W, F1W, F1W, F1W),
    )
)
def _first_look(
    row_a,
    row_b,
    val_a,
    val_b,
    c,
    lower,
    upper,
    row_lower,
    row_upper,
    x,
    y,
    start,
    stop,
    tolerance,
    space,
    ok,
    value,
    gap,
    primal_residual,
    dual_residual,
):
    """Returns how many items are to be looked at again: what is not ``ok``, but of sane numbers."""
    n, m, unclear = x.shape[1], y.shape[1], 0
    width = larger(n, WIDTH)
    # Their last entry stands for the missing row of a column.
    dual, activity = row_of(space, _DUAL), row_of(space, _ACTIVITY)
    for k in range(start, stop):
        va, vb, costs, point = row_of(val_a, k), row_of(val_b, k), row_of(c, k), row_of(x, k)
        low, high, least, most = (
            row_of(lower, k),
            row_of(upper, k),
            row_of(row_lower, k),
            row_of(row_upper, k),
        )
        if n < WIDTH:
            va, vb = _widened(va, row_of(space, _NARROW)), _widened(vb, row_of(space, _NARROW + 1))
            low, high = _widened(low, row_of(space, _NARROW + 2)), _widened(high, row_of(space, _NARROW + 3))
            costs, point = (
                _widened(costs, row_of(space, _NARROW + 4)),
                _widened(point, row_of(space, _NARROW + 5)),
            )
        # A dual of the wrong sign at a one-sided row is rounding or wrong: it is zero, and a residual.
        wrong, dearest, sane = 0.0, 0.0, True
        for i in range(m):
            price = y[k, i]
            dual[i], activity[i] = _counted(price, least[i], most[i]), 0.0
            wrong, dearest = larger(wrong, abs(price - dual[i])), larger(dearest, abs(price))
            sane &= (price - price == 0.0) & (least[i] == least[i]) & (most[i] == most[i])
        dual[m] = activity[m] = 0.0
        total, terms, numbers = _judge_columns(
            width, row_a, row_b, va, vb, costs, low, high, point, dual, activity
        )
        off, open_, slope, furthest, cost = numbers
        flow, open_row = 0.0, 0.0
        for i in range(m):
            flow = larger(flow, abs(activity[i]))
        for i in range(m):
            price, at = dual[i], activity[i]
            side = least[i] if price > 0.0 else most[i]
            known = side if abs(side) < _INFINITE else 0.0
            terms += price * (at - known)
            off = larger(off, larger(least[i] - at, at - most[i]))
            if abs(at - side) > _EXACT * abs(known) + _FLOOR * flow:
                open_row = larger(open_row, abs(price))
        # Where c, a value or a dual is NaN or infinite, so is d.
        sane &= (
            (dearest < _HUGE) & (slope < _HUGE) & (cost < _INFINITE) & (furthest < _INFINITE) & (off == off)
        )
        ok[k] = (
            sane
            and off <= _FLOOR * flow
            and open_ <= _FLOOR * cost
            and open_row <= _FLOOR * dearest
            and wrong <= tolerance * smaller(1.0, cost)
        )
        unclear += sane and not ok[k]
        value[k], gap[k], primal_residual[k], dual_residual[k] = total, terms, off, larger(open_, wrong)
    return unclear


@inner
def _stands(point, side, rounding):
    """Whether a point is where it should be; never at an infinite side."""
    return abs(side) < _INFINITE and abs(point - side) <= _TIE * abs(side) + rounding


@inner
def _within(low, high, point, rounding):
    """Whether a point keeps to its sides, each with its own rounding."""
    return (low - point <= _TIE * abs(low) + rounding) & (point - high <= _TIE * abs(high) + rounding)


@kernel(
    types.void(
        *(I1, I1, F2, F2),
        *(F2, F2, F2, F2, F2),
        *(F2, F2),
        *(SIZE, SIZE, REAL, F2W),
        *(B1W, F1W),
    )
)
def _second_look(
    row_a,
    row_b,
    val_a,
    val_b,
    c,
    lower,
    upper,
    row_lower,
    row_upper,
    x,
    y,
    start,
    stop,
    tolerance,
    space,
    ok,
    dual_residual,
):
    """What is not ``ok`` again: each term and each violation against the numbers that make it up."""
    n, m = x.shape[1], y.shape[1]
    dual, activity, size = row_of(space, _DUAL), row_of(space, _ACTIVITY), row_of(space, _SIZE)
    for k in range(start, stop):
        if ok[k]:
            continue
        va, vb, costs, points = row_of(val_a, k), row_of(val_b, k), row_of(c, k), row_of(x, k)
        low, high, least, most = (
            row_of(lower, k),
            row_of(upper, k),
            row_of(row_lower, k),
            row_of(row_upper, k),
        )
        fine, wrong, dearest, cost, flow = True, 0.0, 0.0, 0.0, 0.0
        for i in range(m):
            dual[i], activity[i], size[i] = _counted(y[k, i], least[i], most[i]), 0.0, 0.0
            wrong, dearest = larger(wrong, abs(y[k, i] - dual[i])), larger(dearest, abs(dual[i]))
            fine &= abs(y[k, i]) < _HUGE
        dual[m] = activity[m] = size[m] = 0.0
        for j in range(n):
            a, b, point = row_a[j], row_b[j], points[j]
            cost, flow = larger(cost, abs(costs[j])), larger(flow, abs(point))
            fine &= (abs(point) < _INFINITE) & (abs(costs[j]) < _INFINITE)
            fine &= abs(costs[j] - va[j] * dual[a] - vb[j] * dual[b]) < _HUGE
            activity[a] += va[j] * point
            activity[b] += vb[j] * point
            size[a] += abs(va[j] * point)
            size[b] += abs(vb[j] * point)
        if not fine:
            continue
        fine = wrong <= tolerance * smaller(1.0, cost) + _NOISE * cost
        for i in range(m):
            flow = larger(flow, abs(activity[i]))
            side = least[i] if dual[i] > 0.0 else most[i]
            if abs(dual[i]) <= _NOISE * dearest and side != 0.0:
                dual[i] = 0.0
        for j in range(n):
            from_a, from_b, point = va[j] * dual[row_a[j]], vb[j] * dual[row_b[j]], points[j]
            d = costs[j] - from_a - from_b
            side = low[j] if d > 0.0 else high[j]
            if not abs(side) < _INFINITE:
                wrong = larger(wrong, abs(d))
            if abs(d) > _TIE * (abs(costs[j]) + abs(from_a) + abs(from_b)) + _FLOOR * cost:
                fine &= _stands(point, side, _NOISE * flow)
            fine &= _within(low[j], high[j], point, _NOISE * flow)
        for i in range(m):
            rounding = _NOISE * (size[i] + flow)
            if dual[i] != 0.0:
                side = least[i] if dual[i] > 0.0 else most[i]
                fine &= _stands(activity[i], side, rounding)
            fine &= _within(least[i], most[i], activity[i], rounding)
        ok[k], dual_residual[k] = fine, wrong
