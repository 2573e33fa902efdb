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

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1W, F1W, F2, I1, REAL, SIZE, kernel

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


@kernel()
def _largest(array):
    """The largest finite magnitude; infinite if a number is NaN."""
    best, number = 0.0, True
    for j in range(len(array)):
        size = abs(array[j])
        number &= size == size
        size = size if size < _INFINITE else 0.0
        best = size if size > best else best
    return best if number else np.inf


@kernel()
def _largest_bits(bits):
    """The largest of non-negative doubles, or of magnitudes, by their bits: they are ordered alike, and NaN
    comes last. Unlike a maximum of doubles, this one the compiler vectorises."""
    best = np.int64(0)
    for i in range(len(bits)):
        best = max(best, bits[i] & _MAGNITUDE)  # integers: in any order
    return best


@kernel()
def _terms(d, low, high, point, slack, term, open_):
    """Terms of the gap, and d where the point is not at the side that its sign asks for, or that is infinite.
    Few arrays, loaded first, and no branches: vectors."""
    for i in range(len(d)):
        below, above, slope, at = low[i], high[i], d[i], point[i]
        side = below if slope > 0.0 else above
        known = side if abs(side) < _INFINITE else 0.0
        term[i] = slope * (at - known)
        open_[i] = 0.0 if abs(at - side) <= _EXACT * abs(known) + slack else slope


@kernel()
def _outside(low, high, point, off):
    for i in range(len(point)):
        below, above = low[i] - point[i], point[i] - high[i]
        violation = below if below > above else above
        off[i] = violation if violation > 0.0 else 0.0


@kernel()
def _sum(term):
    """In four parts, which do not wait for each other."""
    s0 = s1 = s2 = s3 = 0.0
    whole = len(term) - len(term) % 4
    for i in range(0, whole, 4):
        s0, s1, s2, s3 = s0 + term[i], s1 + term[i + 1], s2 + term[i + 2], s3 + term[i + 3]
    for i in range(whole, len(term)):
        s0 += term[i]
    return (s0 + s1) + (s2 + s3)


@kernel()
def _wrong(price, low, high, dual, wrong):
    """Duals whose sign asks for an infinite side, and the others, which count."""
    for i in range(len(price)):
        below, above, p = low[i], high[i], price[i]
        side = below if p > 0.0 else above
        count = p if abs(side) < _INFINITE else 0.0
        dual[i] = count
        wrong[i] = p - count


@kernel()
def _duals(y, row_lower, row_upper, dual, buffer):
    """Bits of the largest wrong sign at a one-sided row, and of the largest |y|; ``dual``: y without them."""
    most_wrong = np.int64(0)
    for begin in range(0, len(y), _BLOCK):
        end = min(begin + _BLOCK, len(y))
        wrong = buffer[0, : end - begin]
        _wrong(y[begin:end], row_lower[begin:end], row_upper[begin:end], dual[begin:end], wrong)
        most_wrong = max(most_wrong, _largest_bits(wrong.view(np.int64)))
    return most_wrong, _largest_bits(y.view(np.int64))


@kernel()
def _columns(row_a, row_b, val_a, val_b, c, lower, upper, x, dual, activity, buffer):
    """(value, sum of terms, whether x is finite, bits of the largest violation, open d, |c|, |d|).

    ``activity`` is added to. Block by block, in loops of few arrays, which the compiler vectorises.
    """
    value, terms, sane = 0.0, 0.0, True
    most_off = most_open = most_cost = most_d = np.int64(0)
    for begin in range(0, len(c), _BLOCK):
        end = min(begin + _BLOCK, len(c))
        size = end - begin
        a, b, va, vb = row_a[begin:end], row_b[begin:end], val_a[begin:end], val_b[begin:end]
        cost, low, high, point = c[begin:end], lower[begin:end], upper[begin:end], x[begin:end]
        term, open_, d, off = buffer[0, :size], buffer[1, :size], buffer[2, :size], buffer[3, :size]
        for i in range(size):
            # An unsigned index needs no test for being negative.
            d[i] = cost[i] - va[i] * dual[np.uint32(a[i])] - vb[i] * dual[np.uint32(b[i])]
        _terms(d, low, high, point, 0.0, term, open_)
        _outside(low, high, point, off)
        terms += _sum(term)
        most_off = max(most_off, _largest_bits(off.view(np.int64)))
        most_open = max(most_open, _largest_bits(open_.view(np.int64)))
        most_cost = max(most_cost, _largest_bits(cost.view(np.int64)))
        most_d = max(most_d, _largest_bits(d.view(np.int64)))
        for i in range(size):
            if point[i] != 0.0:  # true of NaN, too
                sane &= abs(point[i]) < _INFINITE
                activity[np.uint32(a[i])] += va[i] * point[i]
                activity[np.uint32(b[i])] += vb[i] * point[i]
                value += cost[i] * point[i]
    return value, terms, sane, most_off, most_open, most_cost, most_d


@kernel()
def _rows(row_lower, row_upper, dual, activity, flow, buffer):
    """(sum of terms, bits of the largest violation, and of the largest |y| of a row not at its side)."""
    terms, most_off, most_open = 0.0, np.int64(0), np.int64(0)
    for begin in range(0, len(row_lower), _BLOCK):
        end = min(begin + _BLOCK, len(row_lower))
        size = end - begin
        low, high, point = row_lower[begin:end], row_upper[begin:end], activity[begin:end]
        term, open_, off = buffer[0, :size], buffer[1, :size], buffer[3, :size]
        _terms(dual[begin:end], low, high, point, _FLOOR * flow, term, open_)
        _outside(low, high, point, off)
        terms += _sum(term)
        most_off = max(most_off, _largest_bits(off.view(np.int64)))
        most_open = max(most_open, _largest_bits(open_.view(np.int64)))
    return terms, most_off, most_open


@kernel()
def _stands(point, side, rounding):
    """Whether a point is where it should be; never at an infinite side."""
    return abs(side) < _INFINITE and abs(point - side) <= _TIE * abs(side) + rounding


@kernel()
def _within(low, high, point, rounding):
    """Whether a point keeps to its sides, each with its own rounding."""
    return (low - point <= _TIE * abs(low) + rounding) & (point - high <= _TIE * abs(high) + rounding)


@kernel()
def _second_look(
    row_a, row_b, val_a, val_b, c, lower, upper, row_lower, row_upper, x, dual, activity, size, cost
):
    """(certified, largest wrong sign): each term and each violation against the numbers that make it up."""
    size[:] = 0.0
    fine, wrong, largest_dual, flow = True, 0.0, 0.0, 0.0
    for j in range(len(c)):
        flow = max(flow, abs(x[j]))
    for i in range(len(row_lower)):
        largest_dual, flow = max(largest_dual, abs(dual[i])), max(flow, abs(activity[i]))
    for i in range(len(row_lower)):
        side = row_lower[i] if dual[i] > 0.0 else row_upper[i]
        if abs(dual[i]) <= _NOISE * largest_dual and side != 0.0:
            dual[i] = 0.0
    for j in range(len(c)):
        a, b, va, vb, point = row_a[j], row_b[j], val_a[j], val_b[j], x[j]
        d = c[j] - va * dual[a] - vb * dual[b]
        side = lower[j] if d > 0.0 else upper[j]
        if not abs(side) < _INFINITE:
            wrong = max(wrong, abs(d))
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
    buffer, found = np.empty((4, _BLOCK)), np.empty(9)
    bits = found.view(np.int64)
    bound = side = 0.0
    for k in range(start, stop):
        ka, kb = k if len(val_a) > 1 else 0, k if len(val_b) > 1 else 0
        kc, kl, ku = k if len(c) > 1 else 0, k if len(lower) > 1 else 0, k if len(upper) > 1 else 0
        kr, ks = k if len(row_lower) > 1 else 0, k if len(row_upper) > 1 else 0
        if k == start or len(lower) > 1 or len(upper) > 1:
            bound = max(_largest(lower[kl]), _largest(upper[ku]))
        if k == start or len(row_lower) > 1 or len(row_upper) > 1:
            side = max(_largest(row_lower[kr]), _largest(row_upper[ks]))
        # A dual of the wrong sign at a one-sided row is rounding or wrong: it is zero, and a residual.
        bits[6], bits[7] = _duals(y[k], row_lower[kr], row_upper[ks], dual, buffer)
        dual[m] = 0.0
        activity[:] = 0.0
        total, terms, sane, bits[0], bits[1], bits[2], bits[3] = _columns(
            *(row_a, row_b, val_a[ka], val_b[kb], c[kc], lower[kl], upper[ku]),
            *(x[k], dual, activity, buffer),
        )
        activity[m] = 0.0
        bits[8] = _largest_bits(activity.view(np.int64))
        wrong_row, largest_dual, flow = found[6], found[7], found[8]
        more, bits[4], bits[5] = _rows(row_lower[kr], row_upper[ks], dual, activity, flow, buffer)
        primal, wrong, cost, largest_d = max(found[0], found[4]), found[1], found[2], found[3]
        # Where c, a value or a dual is NaN or infinite, so is d.
        sane &= largest_dual < _HUGE and cost < _INFINITE and largest_d < _HUGE
        sane &= bound < np.inf and side < np.inf
        fine = wrong_row <= tolerance * min(1.0, cost)
        good = primal <= _FLOOR * flow and wrong <= _FLOOR * cost and found[5] <= _FLOOR * largest_dual
        if sane and not good:
            fine = wrong_row <= tolerance * min(1.0, cost) + _NOISE * cost
            good, wrong = _second_look(
                *(row_a, row_b, val_a[ka], val_b[kb], c[kc], lower[kl], upper[ku]),
                *(row_lower[kr], row_upper[ks], x[k], dual, activity, size, cost),
            )
        ok[k] = sane and good and fine
        value[k], gap[k] = total, terms + more
        primal_residual[k], dual_residual[k] = primal, max(wrong, wrong_row)
