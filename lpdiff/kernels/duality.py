"""The certificate of weak duality for any sparse matrix, over a batch that shares all but its costs."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B2W, F1, F1W, F2, F2W, I1, S1W, SIZE, kernel, larger

__all__ = ["certify"]

OPTIMAL, INACCURATE = 0, 6

# What a vertex may miss: of its own bound, side or reduced cost, and (rounding) of the largest number.
_OWN, _FLOOR = 1e-9, 1e-12


@kernel(
    types.void(
        *(I1, I1, F1),
        *(F1, F1, F2),
        *(SIZE, SIZE),
        *(F2W, F2W, B2W, S1W),
        *(F1W, F1W, F1W, F1W),
    )
)
def certify(
    row_start,
    row_column,
    row_value,
    lower,  # (n + m,)
    upper,  # (n + m,)
    costs,  # (1|B, n)
    start,
    stop,
    x,  # (B, n)
    y,  # (B, m)
    basic,  # (B, n + m)
    status,  # (B,)
    value,  # (B,)
    gap,  # (B,)
    primal_residual,  # (B,)
    dual_residual,  # (B,)
):
    """Whether (x, y) are optimal by weak duality; where not, OPTIMAL becomes INACCURATE.

        D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-) <= c'x,   d = c - A'y

    Condition by condition, as for any vertex (see ``lpdiff.exact``): a variable or row stands at the side
    that the sign of its dual asks for, or that dual is zero beside the terms that make it up; and so for
    violations. Beside the largest cost, x or y nothing below rounding (``_FLOOR``) can be told from zero.

    Looks at nothing but the numbers of the program. A y_i of the wrong sign on a one-sided row is set to 0
    first: it was rounding, or what remains is refused. Comparisons are written so that NaN refuses.
    """
    n, m = x.shape[1], y.shape[1]
    d, made = np.empty(n), np.empty(n)
    for item in range(start, stop):
        if status[item] != OPTIMAL:
            continue
        c = costs[item if len(costs) > 1 else 0]
        largest, furthest, total, primal, dual, bound, fine = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, True
        for j in range(n):
            d[j], made[j] = c[j], abs(c[j])
            largest = larger(largest, abs(c[j]))
            furthest = larger(furthest, abs(x[item, j]))
            total += c[j] * x[item, j]
        dearest = 0.0
        for i in range(m):
            dearest = larger(dearest, abs(y[item, i]))
        for j in range(n):
            point = x[item, j]
            miss = larger(lower[j] - point, point - upper[j])
            fine &= miss <= _OWN * abs(point) + _FLOOR * furthest
            primal = larger(primal, miss)
        for i in range(m):
            low, high = lower[n + i], upper[n + i]
            if (low == -np.inf and y[item, i] > 0.0) or (high == np.inf and y[item, i] < 0.0):
                y[item, i] = 0.0
            price, activity, size = y[item, i], 0.0, 0.0
            for k in range(row_start[i], row_start[i + 1]):
                term = row_value[k] * x[item, row_column[k]]
                activity += term
                size += abs(term)
                d[row_column[k]] -= price * row_value[k]
                made[row_column[k]] += abs(price * row_value[k])
            side = low if price > 0.0 else high
            room = _FLOOR * size
            if price != 0.0:
                bound += price * side
                room += _OWN * abs(side)
                fine &= abs(price) <= _FLOOR * dearest or abs(activity - side) <= room
            miss = larger(low - activity, activity - high)
            fine &= miss <= room + _OWN * abs(activity)
            primal = larger(primal, miss)
        for j in range(n):
            side = lower[j] if d[j] > 0.0 else upper[j]
            zero = abs(d[j]) <= _FLOOR * (made[j] + largest)
            if basic[item, j] or abs(side) == np.inf:
                dual = larger(dual, abs(d[j]))
                fine &= zero
            elif d[j] != 0.0:
                bound += d[j] * side
                fine &= zero or abs(x[item, j] - side) <= _OWN * abs(side) + _FLOOR * furthest
        value[item], gap[item], primal_residual[item], dual_residual[item] = (
            total,
            total - bound,
            primal,
            dual,
        )
        fine &= abs(total) < np.inf and abs(bound) < np.inf
        if not fine:
            status[item] = INACCURATE
