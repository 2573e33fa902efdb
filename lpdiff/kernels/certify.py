"""The certificate for LPs of at most two entries a column: one pass over the columns, one over the rows.

It reads the original data and the proposal (x, y) alone. By weak duality, with d = c - A'y,

    D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-)  <=  min c'x,

so a feasible x with c'x - D(y) <= tolerance is optimal to that tolerance. A dual whose sign asks for an
infinite side leaves D(y) = -inf: its magnitude is the dual residual.

Units. Tolerances shrink with the numbers of the item, so that an LP in tiny units is judged as strictly:
u_c = min(1, largest |c|), u_b = min(1, largest finite side of a row, or of a bound where rows have none).

    violations <= t u_b,    wrong signs <= t u_c,    |gap| <= t (u_c u_b + |c'x|).

Only what fails that is looked at again, against the numbers that make up each residual: rows against
sum |a x|, bounds against |x|, wrong signs against |c|, and what cannot be told from rounding counts as zero,
duals above all, which times a bound of 1e12 would not be.
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
def _unit(first, second):
    """The larger, at most 1; if both are zero there is nothing to measure by: 1."""
    size = max(first, second)
    return min(1.0, size) if size > 0.0 else 1.0


@kernel()
def _largest_bits(bits):
    """The largest of non-negative doubles, or of magnitudes, by their bits: they are ordered alike, and NaN
    comes last. Unlike a maximum of doubles, this one the compiler vectorises."""
    best = np.int64(0)
    for i in range(len(bits)):
        best = max(best, bits[i] & _MAGNITUDE)  # integers: in any order
    return best


@kernel()
def _signs(d, low, high, term, wrong):
    """Terms of D(y), and d where its sign asks for an infinite side. No branches: vectors."""
    for i in range(len(d)):
        below, above = low[i], high[i]
        side = below if d[i] > 0.0 else above
        finite = abs(side) < _INFINITE
        term[i] = d[i] * (side if finite else 0.0)
        wrong[i] = 0.0 if finite else d[i]


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
def _duals(y, row_lower, row_upper, dual, buffer):
    """(sum(rl y+ - ru y-), bits of the largest wrong sign and of the largest |y|); wrong signs count as 0."""
    support, most_wrong, most = 0.0, np.int64(0), np.int64(0)
    for begin in range(0, len(y), _BLOCK):
        end = min(begin + _BLOCK, len(y))
        price, term, wrong = y[begin:end], buffer[0, : end - begin], buffer[1, : end - begin]
        _signs(price, row_lower[begin:end], row_upper[begin:end], term, wrong)
        for i in range(end - begin):
            dual[begin + i] = price[i] - wrong[i]
        support += _sum(term)
        most_wrong = max(most_wrong, _largest_bits(wrong.view(np.int64)))
        most = max(most, _largest_bits(price.view(np.int64)))
    return support, most_wrong, most


@kernel()
def _columns(row_a, row_b, val_a, val_b, c, lower, upper, x, dual, activity, buffer):
    """(value, sum(l d+ - u d-), whether x is finite, bits of the largest violation, wrong sign, |c|, |d|).

    ``activity`` is added to. Block by block, in loops of few arrays, which the compiler vectorises.
    """
    value, support, sane = 0.0, 0.0, True
    most_off = most_wrong = most_cost = most_d = np.int64(0)
    for begin in range(0, len(c), _BLOCK):
        end = min(begin + _BLOCK, len(c))
        size = end - begin
        a, b, va, vb = row_a[begin:end], row_b[begin:end], val_a[begin:end], val_b[begin:end]
        cost, low, high, point = c[begin:end], lower[begin:end], upper[begin:end], x[begin:end]
        term, wrong, d, off = buffer[0, :size], buffer[1, :size], buffer[2, :size], buffer[3, :size]
        for i in range(size):
            # An unsigned index needs no test for being negative.
            d[i] = cost[i] - va[i] * dual[np.uint32(a[i])] - vb[i] * dual[np.uint32(b[i])]
        _signs(d, low, high, term, wrong)
        _outside(low, high, point, off)
        support += _sum(term)
        most_off = max(most_off, _largest_bits(off.view(np.int64)))
        most_wrong = max(most_wrong, _largest_bits(wrong.view(np.int64)))
        most_cost = max(most_cost, _largest_bits(cost.view(np.int64)))
        most_d = max(most_d, _largest_bits(d.view(np.int64)))
        for i in range(size):
            if point[i] != 0.0:  # true of NaN, too
                sane &= abs(point[i]) < _INFINITE
                activity[np.uint32(a[i])] += va[i] * point[i]
                activity[np.uint32(b[i])] += vb[i] * point[i]
                value += cost[i] * point[i]
    return value, support, sane, most_off, most_wrong, most_cost, most_d


@kernel()
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
    dual,
    activity,
    size,
    value,
    tolerance,
    unit_c,
    unit_b,
    unit_x,
):
    """(certified, gap): each residual against the numbers that make it up."""
    size[:] = 0.0
    fine, support, terms, largest_dual = True, 0.0, 0.0, 0.0
    for i in range(len(row_lower)):
        largest_dual = max(largest_dual, abs(dual[i]))
    for i in range(len(row_lower)):
        side = row_lower[i] if dual[i] > 0.0 else row_upper[i]
        if abs(dual[i]) <= _NOISE * largest_dual and side != 0.0:
            dual[i] = 0.0
    for j in range(len(c)):
        a, b, va, vb, point = row_a[j], row_b[j], val_a[j], val_b[j], x[j]
        d = c[j] - va * dual[a] - vb * dual[b]
        scale = abs(va * dual[a]) + abs(vb * dual[b])
        if abs(d) > _NOISE * (abs(c[j]) + scale):
            side = lower[j] if d > 0.0 else upper[j]
            if abs(side) < _INFINITE:
                support += d * side
                terms += abs(d * side)
            else:
                fine &= abs(d) <= tolerance * (unit_c + abs(c[j])) + _NOISE * scale
        slack = tolerance * (unit_x + abs(point))
        fine &= (lower[j] - point <= slack) & (point - upper[j] <= slack)
        if point != 0.0:
            size[a] += abs(va * point)
            size[b] += abs(vb * point)
            terms += abs(c[j] * point)
    for i in range(len(row_lower)):
        slack = tolerance * (unit_b + size[i])
        fine &= (row_lower[i] - activity[i] <= slack) & (activity[i] - row_upper[i] <= slack)
        side = row_lower[i] if dual[i] > 0.0 else row_upper[i]
        if dual[i] != 0.0:
            support += dual[i] * side
            terms += abs(dual[i] * side)
    gap = value - support
    return fine and abs(gap) <= tolerance * (unit_c * unit_b + abs(value)) + _NOISE * terms, gap


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
    buffer, found = np.empty((4, _BLOCK)), np.empty(6)
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
        rows, bits[0], bits[1] = _duals(y[k], row_lower[kr], row_upper[ks], dual, buffer)
        dual[m] = 0.0
        activity[:] = 0.0
        total, columns, sane, bits[2], bits[3], bits[4], bits[5] = _columns(
            *(row_a, row_b, val_a[ka], val_b[kb], c[kc], lower[kl], upper[ku]),
            *(x[k], dual, activity, buffer),
        )
        for begin in range(0, m, _BLOCK):
            end = min(begin + _BLOCK, m)
            off = buffer[3, : end - begin]
            _outside(row_lower[kr, begin:end], row_upper[ks, begin:end], activity[begin:end], off)
            bits[2] = max(bits[2], _largest_bits(off.view(np.int64)))
        wrong_row, largest_dual, primal = found[0], found[1], found[2]
        wrong, cost, largest_d = found[3], found[4], found[5]
        # Where c, a value or a dual is NaN or infinite, so is d.
        sane &= largest_dual < _HUGE and cost < _INFINITE and largest_d < _HUGE
        sane &= bound < np.inf and side < np.inf
        unit_c, unit_b = _unit(cost, 0.0), _unit(side, bound if side == 0.0 else 0.0)
        unit_x = _unit(bound, side if bound == 0.0 else 0.0)
        difference = total - (rows + columns)
        good = (
            abs(difference) <= tolerance * (unit_c * unit_b + abs(total))
            and primal <= tolerance * min(unit_b, unit_x)
            and max(wrong, wrong_row) <= tolerance * unit_c
        )
        if sane and not good and wrong_row <= tolerance * unit_c + _NOISE * cost:
            good, difference = _second_look(
                *(row_a, row_b, val_a[ka], val_b[kb], c[kc], lower[kl], upper[ku]),
                *(row_lower[kr], row_upper[ks], x[k], dual, activity, size),
                *(total, tolerance, unit_c, unit_b, unit_x),
            )
        ok[k] = sane and good
        value[k], gap[k] = total, difference
        primal_residual[k], dual_residual[k] = primal, max(wrong, wrong_row)
