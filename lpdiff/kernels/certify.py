"""The certificate for LPs of at most two entries a column: one pass over the columns, one over the rows.

It reads the original data and the proposal (x, y) alone. By weak duality, with d = c - A'y,

    D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-)  <=  min c'x,
    c'x - D(y) = sum(d (x - side)) + sum(y (Ax - side)),   each side by the sign of d, of y,

so a feasible x is optimal where no term is left. A dual whose sign asks for an infinite side leaves
D(y) = -inf: its magnitude is the dual residual.

What is judged here is exact to rounding, so that each term is judged by itself: x_j stands at the side that
the sign of d_j asks for, or d_j is the rounding of |c_j| + |a y|. Against the sum, or the largest cost, wrong
vertices would hide behind one large number, or behind what all costs have in common. The first look asks for
more, which costs next to nothing: rounding of the largest numbers alone; what fails is looked at again.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from .jit import B1W, F1W, F2, I1, REAL, SIZE, inner, kernel, larger, smaller

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

_BLOCK = 256  # columns, a multiple of 4
_MAGNITUDE = 0x7FFFFFFFFFFFFFFF  # a double without its sign


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


@intrinsic
def _bits(typing, number):
    """A double's bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int64))

    return types.int64(types.float64), generate


@intrinsic
def _number(typing, bits):
    """The double of these bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(types.int64), generate


@inner
def _largest(array):
    """The largest finite magnitude; infinite if a number is NaN."""
    best, number = 0.0, True
    for j in range(len(array)):
        size = abs(array[j])
        number &= size == size
        size = size if size < _INFINITE else 0.0
        best = size if size > best else best
    return best if number else np.inf


# Blocks are worked on in buffers: a slice of an array takes longer to compile than a loop. Unsigned indices
# need no test for being negative, which would keep the compiler from vectors.


@inner
def _largest_bits(best, array, size):
    """The largest magnitude of array[:size], or ``best``, by their bits: they are ordered alike, NaN comes
    last. Unlike a maximum of doubles, this one the compiler vectorises."""
    for i in range(np.uint64(size)):
        magnitude = _bits(array[i]) & _MAGNITUDE
        best = magnitude if magnitude > best else best  # integers: in any order
    return best


@inner
def _terms(begin, size, low, high, d, point, slack, term, open_):
    """Terms of the gap, and d where the point is not at the side that its sign asks for, or that is infinite.
    Few arrays, loaded first, and no branches: vectors."""
    shift = np.uint64(begin)
    for i in range(np.uint64(size)):
        below, above, slope, at = low[shift + i], high[shift + i], d[i], point[i]
        side = below if slope > 0.0 else above
        known = side if abs(side) < _INFINITE else 0.0
        term[i] = slope * (at - known)
        open_[i] = 0.0 if abs(at - side) <= _EXACT * abs(known) + slack else slope


@inner
def _outside(begin, size, low, high, point, off):
    shift = np.uint64(begin)
    for i in range(np.uint64(size)):
        below, above = low[shift + i] - point[i], point[i] - high[shift + i]
        violation = below if below > above else above
        off[i] = violation if violation > 0.0 else 0.0


@inner
def _sum(term, size):
    """In four parts, which do not wait for each other."""
    s0 = s1 = s2 = s3 = 0.0
    whole = size - size % 4
    for i in range(0, whole, 4):
        s0, s1, s2, s3 = s0 + term[i], s1 + term[i + 1], s2 + term[i + 2], s3 + term[i + 3]
    for i in range(whole, size):
        s0 += term[i]
    return (s0 + s1) + (s2 + s3)


@inner
def _duals(y, row_lower, row_upper, dual, wrong):
    """Bits of the largest wrong sign at a one-sided row, and of the largest |y|; ``dual``: y without
    those whose sign asks for an infinite side."""
    most_wrong = np.int64(0)
    for begin in range(0, len(y), _BLOCK):
        size = smaller(_BLOCK, len(y) - begin)
        shift = np.uint64(begin)
        for i in range(np.uint64(size)):
            below, above, p = row_lower[shift + i], row_upper[shift + i], y[shift + i]
            side = below if p > 0.0 else above
            count = p if abs(side) < _INFINITE else 0.0
            dual[shift + i] = count
            wrong[i] = p - count
        most_wrong = _largest_bits(most_wrong, wrong, size)
    return most_wrong, _largest_bits(np.int64(0), y, len(y))


@inner
def _columns(row_a, row_b, val_a, val_b, c, lower, upper, x, dual, activity, d, point, term, open_, off):
    """(value, sum of terms, whether x is finite, bits of the largest violation, open d, |d|).

    ``activity`` is added to. Block by block, in loops of few arrays, which the compiler vectorises.
    """
    value, terms, sane = 0.0, 0.0, True
    most_off, most_open, most_d = np.int64(0), np.int64(0), np.int64(0)
    for begin in range(0, len(c), _BLOCK):
        size = smaller(_BLOCK, len(c) - begin)
        shift = np.uint64(begin)
        for i in range(np.uint64(size)):
            j = shift + i
            d[i] = c[j] - val_a[j] * dual[np.uint32(row_a[j])] - val_b[j] * dual[np.uint32(row_b[j])]
        for i in range(np.uint64(size)):
            point[i] = x[shift + i]
        _terms(begin, size, lower, upper, d, point, 0.0, term, open_)
        _outside(begin, size, lower, upper, point, off)
        terms += _sum(term, size)
        most_off = _largest_bits(most_off, off, size)
        most_open = _largest_bits(most_open, open_, size)
        most_d = _largest_bits(most_d, d, size)
        for i in range(np.uint64(size)):
            at = point[i]
            if at != 0.0:  # true of NaN, too
                j = shift + i
                sane &= abs(at) < _INFINITE
                activity[np.uint32(row_a[j])] += val_a[j] * at
                activity[np.uint32(row_b[j])] += val_b[j] * at
                value += c[j] * at
    return value, terms, sane, most_off, most_open, most_d


@inner
def _rows(row_lower, row_upper, dual, activity, flow, d, point, term, open_, off):
    """(sum of terms, bits of the largest violation, and of the largest |y| of a row not at its side)."""
    terms, most_off, most_open = 0.0, np.int64(0), np.int64(0)
    for begin in range(0, len(row_lower), _BLOCK):
        size = smaller(_BLOCK, len(row_lower) - begin)
        shift = np.uint64(begin)
        for i in range(np.uint64(size)):
            d[i], point[i] = dual[shift + i], activity[shift + i]
        _terms(begin, size, row_lower, row_upper, d, point, _FLOOR * flow, term, open_)
        _outside(begin, size, row_lower, row_upper, point, off)
        terms += _sum(term, size)
        most_off = _largest_bits(most_off, off, size)
        most_open = _largest_bits(most_open, open_, size)
    return terms, most_off, most_open


@inner
def _stands(point, side, rounding):
    """Whether a point is where it should be; never at an infinite side."""
    return abs(side) < _INFINITE and abs(point - side) <= _TIE * abs(side) + rounding


@inner
def _within(low, high, point, rounding):
    """Whether a point keeps to its sides, each with its own rounding."""
    return (low - point <= _TIE * abs(low) + rounding) & (point - high <= _TIE * abs(high) + rounding)


@inner
def _second_look(
    row_a, row_b, val_a, val_b, c, lower, upper, row_lower, row_upper, x, dual, activity, size, cost
):
    """(certified, largest wrong sign): each term and each violation against the numbers that make it up."""
    for i in range(len(size)):
        size[i] = 0.0
    fine, wrong, largest_dual, flow = True, 0.0, 0.0, 0.0
    for j in range(len(c)):
        flow = larger(flow, abs(x[j]))
    for i in range(len(row_lower)):
        largest_dual, flow = larger(largest_dual, abs(dual[i])), larger(flow, abs(activity[i]))
    for i in range(len(row_lower)):
        side = row_lower[i] if dual[i] > 0.0 else row_upper[i]
        if abs(dual[i]) <= _NOISE * largest_dual and side != 0.0:
            dual[i] = 0.0
    for j in range(len(c)):
        a, b, va, vb, point = row_a[j], row_b[j], val_a[j], val_b[j], x[j]
        d = c[j] - va * dual[a] - vb * dual[b]
        side = lower[j] if d > 0.0 else upper[j]
        if not abs(side) < _INFINITE:
            wrong = larger(wrong, abs(d))
        if abs(d) > _TIE * (abs(c[j]) + abs(va * dual[a]) + abs(vb * dual[b])) + _FLOOR * cost:
            fine &= _stands(point, side, _NOISE * flow)
        fine &= _within(lower[j], upper[j], point, _NOISE * flow)
        if point != 0.0:
            size[a] += abs(va * point)
            size[b] += abs(vb * point)
    for i in range(len(row_lower)):
        rounding = _NOISE * (size[i] + flow)
        if dual[i] != 0.0:
            side = row_lower[i] if dual[i] > 0.0 else row_upper[i]
            fine &= _stands(activity[i], side, rounding)
        fine &= _within(row_lower[i], row_upper[i], activity[i], rounding)
    return fine, wrong


@kernel(
    types.void(
        *(I1, I1, F2, F2),
        *(F2, F2, F2, F2, F2),
        *(F2, F2),
        *(SIZE, SIZE, REAL),
        *(B1W, F1W, F1W, F1W, F1W),
    )
)
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
    m = row_lower.shape[1]
    # Their last entry stands for the missing row of a column.
    activity, dual, size = np.empty(m + 1), np.empty(m + 1), np.empty(m + 1)
    d, point, term, open_, off = (
        np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK), np.empty(_BLOCK)
    )  # fmt: skip
    bound = side = 0.0
    for k in range(start, stop):
        va, vb = val_a[k if len(val_a) > 1 else 0], val_b[k if len(val_b) > 1 else 0]
        costs = c[k if len(c) > 1 else 0]
        low, high = lower[k if len(lower) > 1 else 0], upper[k if len(upper) > 1 else 0]
        least, most = row_lower[k if len(row_lower) > 1 else 0], row_upper[k if len(row_upper) > 1 else 0]
        if k == start or len(lower) > 1 or len(upper) > 1:
            bound = larger(_largest(low), _largest(high))
        if k == start or len(row_lower) > 1 or len(row_upper) > 1:
            side = larger(_largest(least), _largest(most))
        # A dual of the wrong sign at a one-sided row is rounding or wrong: it is zero, and a residual.
        bits_wrong_row, bits_dual = _duals(y[k], least, most, dual, off)
        dual[m] = 0.0
        for i in range(m + 1):
            activity[i] = 0.0
        total, terms, sane, bits_off, bits_open, bits_d = _columns(
            *(row_a, row_b, va, vb, costs, low, high),
            *(x[k], dual, activity, d, point, term, open_, off),
        )
        activity[m] = 0.0
        flow = _number(_largest_bits(np.int64(0), activity, m + 1))
        more, bits_row, bits_open_row = _rows(least, most, dual, activity, flow, d, point, term, open_, off)
        wrong_row, largest_dual, open_row = (
            _number(bits_wrong_row),
            _number(bits_dual),
            _number(bits_open_row),
        )
        primal, wrong = larger(_number(bits_off), _number(bits_row)), _number(bits_open)
        cost, largest_d = _number(_largest_bits(np.int64(0), costs, len(costs))), _number(bits_d)
        # Where c, a value or a dual is NaN or infinite, so is d.
        sane &= largest_dual < _HUGE and cost < _INFINITE and largest_d < _HUGE
        sane &= bound < np.inf and side < np.inf
        fine = wrong_row <= tolerance * smaller(1.0, cost)
        good = primal <= _FLOOR * flow and wrong <= _FLOOR * cost and open_row <= _FLOOR * largest_dual
        if sane and not good:
            fine = wrong_row <= tolerance * smaller(1.0, cost) + _NOISE * cost
            good, wrong = _second_look(
                *(row_a, row_b, va, vb, costs, low, high),
                *(least, most, x[k], dual, activity, size, cost),
            )
        ok[k] = sane and good and fine
        value[k], gap[k] = total, terms + more
        primal_residual[k], dual_residual[k] = primal, larger(wrong, wrong_row)
