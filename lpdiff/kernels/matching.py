"""What is made of a matching: the proof that it is optimal, and the vertex that it is."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from lpdiff.kernels import lanes as w
from lpdiff.kernels.jit import B1W, F1, F1W, F2, F2W, I2, REAL, SIZE, kernel

__all__ = ["certify", "scatter"]

_njit: Any = numba.njit
_inner = _njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
_OWN = 1e-12  # what a reduced cost may be off by rounding, relative to the numbers that make it up
_INFINITE = 1e20  # magnitudes from here on are; a cost of inf is no cost, but forbids a pair


@_inner
def _least_slack(c, u, v):  # type: ignore[no-untyped-def]
    """The least c_ij - u_i - v_j, and the largest finite |c_ij|. A slack of NaN counts as -inf."""
    columns = len(v)
    low, top, worst = w.fill(np.inf), w.fill(0.0), w.fill(-np.inf)
    infinite, nothing = w.fill(np.inf), w.fill(0.0)
    full = columns // 8 * 8
    least, most = np.inf, 0.0
    for i in range(len(u)):
        price = u[i]
        prices = w.fill(price)
        for j in range(0, full, 8):
            cost = w.load(c, i * columns + j)
            d = w.subtract(w.subtract(cost, prices), w.load(v, j))
            low = w.least(low, w.choose(w.less(worst, d), d, worst))
            large = w.size(cost)
            top = w.greatest(top, w.choose(w.less(large, infinite), large, nothing))
        for j in range(full, columns):
            cost_j = c[i * columns + j]
            slack = cost_j - price - v[j]
            least = min(least, slack if slack > -np.inf else -np.inf)
            if most < abs(cost_j) < np.inf:
                most = abs(cost_j)
    return min(least, w.least_of(low)), max(most, -w.least_of(w.subtract(w.fill(0.0), top)))


@_inner
def _no_pair_is_cheaper(c, u, v, own, floor):  # type: ignore[no-untyped-def]
    """Whether no d_ik is negative by more than the rounding of its own numbers. Rarely asked."""
    columns = len(v)
    for i in range(len(u)):
        for k in range(columns):
            slack = c[i * columns + k] - u[i] - v[k]
            allowed = own * (abs(c[i * columns + k]) + abs(u[i]) + abs(v[k])) + floor
            if not (slack > -np.inf and slack >= -allowed):
                return False
    return True


@kernel([(F2, I2, F2, F2, REAL, SIZE, SIZE, B1W, F1W, F1W, F1W)])
def certify(cost, match, u, v, tolerance, start, stop, ok, gap, dual_residual, value):  # type: ignore[no-untyped-def]
    """Items ``start`` to ``stop``: does (u, v) prove ``match`` optimal?  Looks at nothing but the arguments.

    Accepted where ``match`` names R different columns by finite costs (so x is exact), and each d_ik is 0 on
    matched pairs and not negative elsewhere, up to t (|c_ik| + |u_i| + |v_k|) + t s / 100, with t the lesser
    of ``tolerance`` and 1e-12 and s the largest finite |c|; for R < K, v_k <= 0, and = 0 on unmatched
    columns, up to t s / 100. So no pair hides behind the costs of others, or behind what all have in common.
    The dual residual is the largest of -d_ik, v_k and such |v_k|; gap = value - sum u - sum v. Comparisons
    are written so that NaN refuses.
    """
    rows, columns = u.shape[1], v.shape[1]
    own = min(tolerance, _OWN)
    taken = np.empty(columns, np.bool_)
    for item in range(start, stop):
        c = cost[item if cost.shape[0] > 1 else 0]
        for k in range(columns):
            taken[k] = False
        proper = True
        total, dual = 0.0, 0.0
        for i in range(rows):
            k = match[item, i]
            if k < 0 or k >= columns or taken[k] or not abs(c[i * columns + k]) < np.inf:
                proper = False
                break
            taken[k] = True
            total += c[i * columns + k]
            dual += u[item, i]
        if not proper:
            ok[item] = False
            gap[item], dual_residual[item], value[item] = np.nan, np.nan, np.nan
            continue
        y = v[item]
        low, top = _least_slack(c, u[item], y)
        residual = max(0.0, -low)
        floor = 0.01 * own * top
        fine = residual <= floor or _no_pair_is_cheaper(c, u[item], y, own, floor)
        for i in range(rows):
            k = match[item, i]
            cost_k = c[i * columns + k]
            slack = cost_k - u[item, i] - y[k]
            fine &= abs(slack) <= own * (abs(cost_k) + abs(u[item, i]) + abs(y[k])) + floor
        for k in range(columns):
            dual += y[k]
            if rows < columns:
                over = y[k] if taken[k] else abs(y[k])
                residual = over if over > residual or over != over else residual
                fine &= over <= floor
        value[item], gap[item], dual_residual[item] = total, total - dual, residual
        ok[item] = fine and abs(total - dual) < np.inf and top < _INFINITE


@kernel([(I2, SIZE, F1, SIZE, SIZE, F2W)], small=2_000)
def scatter(match, columns, factors, start, stop, x):  # type: ignore[no-untyped-def]
    """x (B, R*K), given as zeros: 1 at the matched pairs of items ``start`` to ``stop``, times their factors.

    factors (1|B,). Zeros are those of the product, too: with a sign, or NaN.
    """
    for item in range(start, stop):
        factor = factors[item if len(factors) > 1 else 0]
        nothing = 0.0 * factor
        if not 1.0 / nothing > 0.0:
            for j in range(x.shape[1]):
                x[item, j] = nothing
        for i in range(match.shape[1]):
            if match[item, i] >= 0:
                x[item, i * columns + match[item, i]] = factor
