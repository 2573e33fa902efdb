"""Primal simplex from known vertices, for LPs that differ in their costs alone.

    min c'x   s.t.   A x - s = 0,   l <= (x, s) <= u        s_i, the logical of row i, has the column -e_i

With (A, l, u) fixed, every basis that was optimal once stays primal feasible for all costs. For such a
basis B, whose inverse is known,

    y = B^-T c_B,   d_j = c_j - a_j'y,   d of the logical of row i = y_i,

and it is optimal if d_j >= 0 where j stands at its lower bound and d_j <= 0 at its upper. Of the known
vertices the cheapest is tested: no other can be optimal. If it is not, primal simplex goes on from it: devex
prices (Forrest and Goldfarb 1992), the ratio test of Harris (1973) in two passes, bound flips, and an
explicit dense inverse that each pivot updates by a product form. In the end x and y are refined against the
original columns. What goes astray (an unbounded edge, a tiny pivot, too many steps) is declined.

The inverse is kept transposed: ``inverse[i, p]`` belongs to row i and to the basic variable at place p, so
that the solve with a column, and the update, run along contiguous memory.
"""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1, B2W, F1, F2, F2W, I1, I2W, REAL, S1W, SIZE, inner, kernel, larger, smaller

__all__ = ["invert", "propose"]

OPTIMAL, DECLINED = 0, 7

# Where a variable stands; the first three as in BasisStatus.
_LOWER, _BASIC, _UPPER, _FREE = 0, 1, 2, 3

_DUAL = 1e-9  # relative to the largest cost
_PRIMAL = 1e-9  # what the ratio test lets a bound be missed by
_PIVOT = 1e-7  # no pivot is smaller
_ZERO = 1e-13  # in the inverse
_ASTRAY = 1e-8  # a solution that misses a bound by more, relative, is not handed out

# The pool's own arrays are declared writable, as the work space is, so that no helper is compiled twice.
_F3W, _S2W = types.float64[:, :, ::1], types.int8[:, ::1]


@inner
def _dot(a, b):
    """Four sums at a time, in a fixed order."""
    size = len(a)
    s0 = s1 = s2 = s3 = 0.0
    k = 0
    while k + 4 <= size:
        s0 += a[k] * b[k]
        s1 += a[k + 1] * b[k + 1]
        s2 += a[k + 2] * b[k + 2]
        s3 += a[k + 3] * b[k + 3]
        k += 4
    while k < size:
        s0 += a[k] * b[k]
        k += 1
    return (s0 + s1) + (s2 + s3)


@inner
def _add_transposed(row_start, row_column, row_value, y, factor, out):
    """out += factor A'y; a row of which y is 0 costs nothing."""
    for i in range(len(y)):
        f = factor * y[i]
        if f != 0.0:
            for k in range(row_start[i], row_start[i + 1]):
                out[row_column[k]] += f * row_value[k]


@inner
def _reduced_costs(row_start, row_column, row_value, c, head, y, d):
    """d of all n + m variables; y of a basic logical, and d of what is basic, are 0 by definition."""
    n, m = len(c), len(y)
    for p in range(m):
        if head[p] >= n:
            y[head[p] - n] = 0.0
    for j in range(n):
        d[j] = c[j]
    _add_transposed(row_start, row_column, row_value, y, -1.0, d)
    for i in range(m):
        d[n + i] = y[i]


@inner
def _enter(d, weight, place, lower, upper, tolerance):
    """The nonbasic variable of the best devex price, or -1."""
    best, found = 0.0, -1
    for j in range(len(d)):
        at = place[j]
        if at == _BASIC or lower[j] == upper[j]:
            continue
        wrong = -d[j]
        if at == _UPPER or (at == _FREE and wrong < 0.0):
            wrong = d[j]
        if wrong > tolerance and wrong * wrong > best * weight[j]:
            best, found = wrong * wrong / weight[j], j
    return found


@inner
def _leave(column, sign, point, head, lower, upper):
    """Place of the basic variable that stops the entering one, and how far it lets it go.

    The variable at place p falls by ``sign * column[p]`` a unit. The first pass finds the longest step
    that misses no bound by more than the tolerance, the second takes the largest pivot within it.
    """
    longest, found, largest, length = np.inf, -1, 0.0, np.inf
    for final in range(2):
        for p in range(len(head)):
            fall = sign * column[p]
            if abs(fall) <= larger(_PRIMAL, largest):
                continue
            j = head[p]
            ratio = (point[j] - (lower[j] if fall > 0.0 else upper[j])) / fall
            if final == 0:
                longest = smaller(longest, ratio + _PRIMAL / abs(fall))
            elif ratio <= longest:
                found, largest, length = p, abs(fall), larger(ratio, 0.0)
    return found, length


@inner
def _solve_column(start, index, value, inverse, j, n, out):
    """out = B^-1 (column j)."""
    if j >= n:
        for p in range(len(out)):
            out[p] = -inverse[j - n, p]
        return
    for p in range(len(out)):
        out[p] = 0.0
    for k in range(start[j], start[j + 1]):
        a = value[k]
        for p in range(len(out)):
            out[p] += a * inverse[index[k], p]


@inner
def _duals(inverse, c, head, basic_cost, y):
    n = len(c)
    for p in range(len(head)):
        basic_cost[p] = c[head[p]] if head[p] < n else 0.0
    for i in range(len(y)):
        y[i] = _dot(inverse[i], basic_cost)


@inner
def _refine(
    row_start, row_column, row_value, inverse, c, head, place, lower, upper, point, y, d, basic, rows
):
    """One step of iterative refinement of x and y on the original columns; False if x is astray."""
    n, m = len(c), len(y)
    _duals(inverse, c, head, basic, y)
    _reduced_costs(row_start, row_column, row_value, c, head, y, d)
    for p in range(m):
        basic[p] = d[head[p]]
    for i in range(m):
        y[i] += _dot(inverse[i], basic)
    _reduced_costs(row_start, row_column, row_value, c, head, y, d)
    for j in range(n + m):
        if place[j] == _LOWER:
            point[j] = lower[j]
        elif place[j] == _UPPER:
            point[j] = upper[j]
    for _ in range(2):
        for i in range(m):
            total = point[n + i]
            for k in range(row_start[i], row_start[i + 1]):
                total -= row_value[k] * point[row_column[k]]
            rows[i] = total
        for p in range(m):
            basic[p] = 0.0
        for i in range(m):
            if rows[i] != 0.0:
                for p in range(m):
                    basic[p] += rows[i] * inverse[i, p]
        for p in range(m):
            point[head[p]] += basic[p]
    for p in range(m):
        j = head[p]
        slack = _ASTRAY * (1.0 + abs(point[j]))
        if not (lower[j] - slack <= point[j] <= upper[j] + slack):
            return False
    return True


@kernel(
    types.void(
        *(I1, I1, F1, I1, I1, F1),  # A by columns and by rows
        *(F1, F1, REAL),
        F2,
        *(F2, _F3W, I2W, _S2W, F2W),
        B1,
        *(SIZE, SIZE, SIZE),
        *(F2W, F2W, B2W, S1W, types.int64[::1]),
    )
)
def propose(
    column_start,  # (n + 1,)
    column_row,  # (nnz,)
    column_value,  # (nnz,)
    row_start,  # (m + 1,)
    row_column,  # (nnz,)
    row_value,  # (nnz,)
    lower,  # (n + m,)
    upper,  # (n + m,)
    unit,  # what 1 in the bounds and points here is in the caller's units, a power of two
    costs,  # (1|B, n)
    vertices,  # (n, K)
    inverses,  # (K, m, m), transposed
    heads,  # (K, m): the basic variables
    places,  # (K, n + m)
    points,  # (K, n + m): values of all variables
    fits,  # (B,): whether an item's rows and bounds are these
    start,
    stop,
    limit,  # pivots an item
    x,  # (B, n)
    y_out,  # (B, m)
    basic_out,  # (B, n + m)
    status,  # (B,)
    iterations,  # (B,)
):
    """Optimal vertices of the items ``start`` to ``stop``, or a decline."""
    n, known = vertices.shape
    m = heads.shape[1]
    value = np.empty(known)
    y, row, rows = np.empty(m), np.empty(m), np.empty(m)
    column, basic_cost = np.empty(m), np.empty(m)
    d, weight, alpha = np.empty(n + m), np.empty(n + m), np.empty(n + m)
    own_inverse, own_head = np.empty((m, m)), np.empty(m, np.int32)
    own_place, own_point = np.empty(n + m, np.int8), np.empty(n + m)

    for item in range(start, stop):
        status[item], iterations[item] = DECLINED, 0
        if not fits[item] or known == 0:
            continue
        c = costs[item if len(costs) > 1 else 0]
        largest, finite = 0.0, True
        for k in range(known):
            value[k] = 0.0
        for j in range(n):
            if not abs(c[j]) < np.inf:
                finite = False
                break
            largest = larger(largest, abs(c[j]))
            if c[j] != 0.0:
                for k in range(known):
                    value[k] += c[j] * vertices[j, k]
        if not finite:
            continue
        tolerance = _DUAL * largest
        base = 0
        for k in range(1, known):
            if value[k] < value[base]:
                base = k

        inverse, head, place, point = inverses[base], heads[base], places[base], points[base]
        _duals(inverse, c, head, basic_cost, y)
        _reduced_costs(row_start, row_column, row_value, c, head, y, d)
        for j in range(n + m):
            weight[j] = 1.0
        steps, exact = 0, True
        while True:
            q = _enter(d, weight, place, lower, upper, tolerance)
            if q < 0 and not exact:
                if not _refine(
                    *(row_start, row_column, row_value, inverse, c, head, place),
                    *(lower, upper, point, y, d, basic_cost, rows),
                ):
                    break
                exact = True
                continue
            if q < 0:
                for j in range(n):
                    x[item, j] = unit * point[j] + 0.0  # no negative zeros
                for i in range(m):
                    y_out[item, i] = y[i]
                for j in range(n + m):
                    basic_out[item, j] = place[j] == _BASIC
                status[item] = OPTIMAL
                break
            if steps == limit:
                break
            if steps == 0:  # what is known stays as it is
                for i in range(m):
                    own_head[i] = head[i]
                    for p in range(m):
                        own_inverse[i, p] = inverse[i, p]
                for j in range(n + m):
                    own_place[j], own_point[j] = place[j], point[j]
                inverse, head, place, point = own_inverse, own_head, own_place, own_point
            steps += 1
            exact = False

            _solve_column(column_start, column_row, column_value, inverse, q, n, column)
            sign = 1.0 if d[q] < 0.0 else -1.0
            p, length = _leave(column, sign, point, head, lower, upper)
            flip = upper[q] - lower[q] <= length
            if flip:
                length = upper[q] - lower[q]
            if not abs(length) < np.inf:
                break  # unbounded, as it seems: the general solver proves it
            for r in range(m):
                point[head[r]] -= length * sign * column[r]
            point[q] += length * sign
            if flip:
                place[q] = _UPPER if sign > 0.0 else _LOWER
                continue
            pivot = column[p]
            if abs(pivot) < _PIVOT:
                break
            out = head[p]
            place[out] = _LOWER if sign * pivot > 0.0 else _UPPER
            head[p], place[q] = q, _BASIC

            for i in range(m):
                row[i] = inverse[i, p] if abs(inverse[i, p]) > _ZERO else 0.0
                alpha[n + i] = -row[i]
            for j in range(n):
                alpha[j] = 0.0
            _add_transposed(row_start, row_column, row_value, row, 1.0, alpha)
            if abs(alpha[q] - pivot) > _PIVOT * (1.0 + abs(pivot)):
                break  # the inverse is worn out
            # d of the leaving variable (alpha = 1) becomes -d_q / pivot.
            ratio, gain = d[q] / pivot, weight[q] / (pivot * pivot)
            for j in range(n + m):
                if alpha[j] != 0.0:
                    d[j] -= ratio * alpha[j]
                    weight[j] = larger(weight[j], gain * alpha[j] * alpha[j])
            d[q], d[out], weight[out] = 0.0, -ratio, larger(gain, 1.0)
            for i in range(m):
                f = row[i] / pivot
                if f != 0.0:
                    for r in range(m):
                        inverse[i, r] -= f * column[r]
                inverse[i, p] = f
        iterations[item] = steps


@kernel(types.boolean(F2W, F2W))
def invert(matrix, inverse):
    """Gauss and Jordan with row pivots, in an order of its own: LAPACK's depends on its threads.

    ``matrix`` is destroyed. Returns False if it is singular.
    """
    m = len(matrix)
    for i in range(m):
        for k in range(m):
            inverse[i, k] = 1.0 if i == k else 0.0
    for p in range(m):
        best = p
        for i in range(p + 1, m):
            if abs(matrix[i, p]) > abs(matrix[best, p]):
                best = i
        pivot = matrix[best, p]
        if not abs(pivot) > 1e-11:
            return False
        if best != p:
            for k in range(m):
                matrix[p, k], matrix[best, k] = matrix[best, k], matrix[p, k]
                inverse[p, k], inverse[best, k] = inverse[best, k], inverse[p, k]
        scale = 1.0 / pivot
        for k in range(m):
            matrix[p, k] *= scale
            inverse[p, k] *= scale
        for i in range(m):
            f = matrix[i, p]
            if i != p and f != 0.0:
                for k in range(p, m):
                    matrix[i, k] -= f * matrix[p, k]
                for k in range(m):
                    inverse[i, k] -= f * inverse[p, k]
    return True
