"""The certificate of weak duality for any sparse matrix, over a batch that shares all but its costs."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B2W, F1, F1W, F2, F2W, I1, REAL, S1W, SIZE, kernel, larger, smaller

__all__ = ["certify"]

OPTIMAL, INACCURATE = 0, 6


@kernel(
    types.void(
        *(I1, I1, F1),
        *(F1, F1, REAL, F2),
        *(REAL, SIZE, SIZE),
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
    unit,  # the size of the bounds, at most 1
    costs,  # (1|B, n)
    tolerance,
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

    Looks at nothing but the numbers of the program. A y_i of the wrong sign on a one-sided row is set to 0
    first: it was rounding, or what remains is refused. Comparisons are written so that NaN refuses.
    """
    n, m = x.shape[1], y.shape[1]
    d = np.empty(n)
    for item in range(start, stop):
        if status[item] != OPTIMAL:
            continue
        c = costs[item if len(costs) > 1 else 0]
        largest, total, primal, dual, bound, fine = 0.0, 0.0, 0.0, 0.0, 0.0, True
        for j in range(n):
            d[j] = c[j]
            largest = larger(largest, abs(c[j]))
            total += c[j] * x[item, j]
            miss = larger(lower[j] - x[item, j], x[item, j] - upper[j])
            fine &= miss <= tolerance * (unit + abs(x[item, j]))
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
            miss = larger(low - activity, activity - high)
            fine &= miss <= tolerance * (unit + size)
            primal = larger(primal, miss)
            if price != 0.0:
                bound += price * (low if price > 0.0 else high)
        for j in range(n):
            side = lower[j] if d[j] > 0.0 else upper[j]
            if basic[item, j] or abs(side) == np.inf:
                dual = larger(dual, abs(d[j]))
                fine &= abs(d[j]) <= tolerance * largest
            elif d[j] != 0.0:
                bound += d[j] * side
        value[item], gap[item], primal_residual[item], dual_residual[item] = (
            total,
            total - bound,
            primal,
            dual,
        )
        fine &= abs(total - bound) <= tolerance * (unit * smaller(1.0, largest) + abs(total))
        if not fine:
            status[item] = INACCURATE
