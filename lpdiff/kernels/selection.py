"""LPs of no row and of one row, in closed form.

No row: each column for itself stands where the sign of its cost sends it.

One row, min c'x with rl <= a'x <= ru in a box (the continuous knapsack; Dantzig 1957): for a dual y, column j
minimises (c_j - a_j y) x_j. Let z_j = a_j x_j in [lo_j, hi_j] and r_j = c_j / a_j. As y grows past r_j, z_j
moves from lo_j to hi_j, so the row's activity grows with y, and y stands where it meets a side:

    y = 0   if some minimiser at y = 0 keeps the row;
    y > 0   the smallest y whose largest activity reaches rl, if at y = 0 it does not;
    y < 0   the mirror image (z -> -z, y -> -y), if at y = 0 the smallest activity exceeds ru.

An unbounded column confines y: y <= r_j where hi_j is infinite, y >= r_j where lo_j is. The critical ratio is
found by a weighted median search (Balas and Zemel 1980), linear on average; columns that tie with it are
filled in the order of their indices, so that at most one column is strictly between its bounds.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F2, F2W, S1W, SIZE, kernel

__all__ = ["one_row", "separable"]

# Magnitudes from here on are infinite.
_INFINITE = 1e20

# Ratios or activities closer than this (relative) to deciding "infeasible" or "unbounded" leave the
# decision to the general solver. Below the second number they are equal.
_NEAR, _ROUNDING = 1e-6, 1e-13

_OPTIMAL, _INFEASIBLE, _UNBOUNDED, _DECLINED = 0, 1, 2, 7


@kernel()
def _bound(value):
    """A bound, infinite where it counts as such."""
    return np.inf if value >= _INFINITE else -np.inf if value <= -_INFINITE else value


@kernel()
def _stand(d, lower, upper):
    """Where a column stands by the sign of d; an infinite side is returned as such."""
    if d > 0.0:
        return lower
    if d < 0.0:
        return upper
    return lower if lower > -np.inf else upper if upper < np.inf else 0.0


@kernel()
def _boxed(cost, lower, upper):
    """Optimal, infeasible or declined, as far as one column's numbers tell."""
    if not (abs(cost) < _INFINITE) or lower != lower or upper != upper:
        return _DECLINED
    if lower > upper or lower == np.inf or upper == -np.inf:
        return _INFEASIBLE
    return _OPTIMAL


@kernel(types.void(F2, F2, F2, F2W, S1W, SIZE, SIZE))
def separable(
    c,  # (1|B, n)
    lower,  # (1|B, n)
    upper,  # (1|B, n)
    x,  # (B, n)
    status,  # (B,) int8
    start,
    stop,
):
    """No rows: the sign rule. Reduced costs are c. At c = 0: the lower bound, else the upper, else 0."""
    n = c.shape[1]
    for k in range(start, stop):
        kc, kl, ku = k if len(c) > 1 else 0, k if len(lower) > 1 else 0, k if len(upper) > 1 else 0
        verdict = _OPTIMAL
        for j in range(n):
            low, high = _bound(lower[kl, j]), _bound(upper[ku, j])
            point = _stand(c[kc, j], low, high)
            found = _boxed(c[kc, j], low, high)
            if found == _OPTIMAL and not abs(point) < np.inf:
                found = _UNBOUNDED
            # What declines outweighs what is infeasible, and that what is unbounded.
            if found != _OPTIMAL and (
                verdict == _OPTIMAL or found == _DECLINED or (found == _INFEASIBLE and verdict == _UNBOUNDED)
            ):
                verdict = found
            x[k, j] = point
        status[k] = verdict


# -- one row -------------------------------------------------------------------------------------------


@kernel()
def _critical(ratio, weight, index, count, base, target):
    """The smallest ratio r with base + (weights of ratios <= r) >= target, or else the largest ratio.

    ``index[:count]`` are the candidates; it is permuted. Three-way partitions about a median of three.
    """
    first, last = 0, count
    best = -np.inf
    while first < last:
        low, mid, high = ratio[index[first]], ratio[index[(first + last) >> 1]], ratio[index[last - 1]]
        pivot = max(min(low, mid), min(max(low, mid), high))
        # index[first:less] below the pivot, [less:equal] at it, [more:last] above it.
        less, equal, more = first, first, last
        below, at = 0.0, 0.0
        while equal < more:
            i = index[equal]
            if ratio[i] < pivot:
                index[equal], index[less] = index[less], i
                below += weight[i]
                less += 1
                equal += 1
            elif ratio[i] > pivot:
                more -= 1
                index[equal], index[more] = index[more], i
            else:
                at += weight[i]
                equal += 1
        if base + below >= target and less > first:
            last = less
        elif base + below + at >= target:
            return pivot
        else:
            base += below + at
            best = pivot
            first = more
    return best


@kernel()
def _fill(ratio, lo, hi, y, target, z):
    """z at y, with ties filled towards the target activity; returns what is missing of it."""
    activity, free = 0.0, -1
    for j in range(len(ratio)):
        if ratio[j] < y:
            z[j] = hi[j]
        elif ratio[j] > y:
            z[j] = lo[j]
        else:
            z[j] = lo[j] if lo[j] > -np.inf else hi[j] if hi[j] < np.inf else 0.0
            if free < 0 and lo[j] == -np.inf and hi[j] == np.inf:
                free = j
        activity += z[j]
    missing = target - activity
    if free >= 0:
        # No vertex unless a column without bounds is the basic one.
        z[free] += missing
        return 0.0
    for j in range(len(ratio)):
        if missing == 0.0:
            break
        if ratio[j] == y:
            end = hi[j] if missing > 0.0 else lo[j]
            room = end - z[j]
            if abs(room) <= abs(missing):
                z[j] = end
                missing -= room
            else:
                z[j] += missing
                missing = 0.0
    return missing


@kernel()
def _solve(ratio, lo, hi, row_lower, row_upper, weight, index, z):
    """(status, y) of min r'z with z in [lo, hi] and its sum in the row's sides; z is written."""
    n = len(ratio)
    least, most, least_size, most_size = 0.0, 0.0, 0.0, 0.0
    y_least, y_most = -np.inf, np.inf
    for j in range(n):
        least, most = least + lo[j], most + hi[j]
        least_size, most_size = least_size + abs(lo[j]), most_size + abs(hi[j])
        if lo[j] == -np.inf:
            y_least = max(y_least, ratio[j])
        if hi[j] == np.inf:
            y_most = min(y_most, ratio[j])
    # Infeasible beyond doubt, or nearly so?
    for short, size in (
        (row_lower - most, abs(row_lower) + most_size),
        (least - row_upper, abs(row_upper) + least_size),
    ):
        if short > 0.0 and (short == np.inf or short > _NEAR * size):
            return _INFEASIBLE, 0.0
        if short > _ROUNDING * size:
            return _DECLINED, 0.0
    if row_upper == np.inf:
        y_least = max(y_least, 0.0)
    if row_lower == -np.inf:
        y_most = min(y_most, 0.0)
    if y_least > y_most:
        near = y_least - y_most <= _NEAR * (abs(y_least) + abs(y_most))
        return (_DECLINED if near else _UNBOUNDED), 0.0
    y = min(max(0.0, y_least), y_most)
    down, up = 0.0, 0.0  # smallest and largest activity at y
    for j in range(n):
        down += hi[j] if ratio[j] < y else lo[j]
        up += lo[j] if ratio[j] > y else hi[j]
    count = 0
    if y >= 0.0 and up < row_lower:
        for j in range(n):
            weight[j] = hi[j] - lo[j]
            if ratio[j] > y:
                index[count] = j
                count += 1
        if count > 0:
            y = _critical(ratio, weight, index, count, up, row_lower)
    elif y <= 0.0 and down > row_upper:
        for j in range(n):
            weight[j] = hi[j] - lo[j]
            ratio[j] = -ratio[j]
            if ratio[j] > -y:
                index[count] = j
                count += 1
        if count > 0:
            y = -_critical(ratio, weight, index, count, -down, -row_upper)
        for j in range(n):
            ratio[j] = -ratio[j]
    if y > 0.0:
        target = row_lower
    elif y < 0.0:
        target = row_upper
    else:
        target = _nearest_side(ratio, lo, hi, row_lower, row_upper)
    missing = _fill(ratio, lo, hi, y, target, z)
    return (_OPTIMAL if abs(missing) < np.inf else _DECLINED), y


@kernel()
def _nearest_side(ratio, lo, hi, row_lower, row_upper):
    """At y = 0 the row may stand anywhere between its sides: where it stands already, if that is a vertex."""
    activity, free = 0.0, False
    for j in range(len(ratio)):
        if ratio[j] < 0.0:
            activity += hi[j]
        elif ratio[j] > 0.0:
            activity += lo[j]
        else:
            activity += lo[j] if lo[j] > -np.inf else hi[j] if hi[j] < np.inf else 0.0
            free |= lo[j] == -np.inf and hi[j] == np.inf
    if free and row_lower > -np.inf:
        return row_lower
    if free and row_upper < np.inf:
        return row_upper
    return min(max(activity, row_lower), row_upper)


@kernel()
def _is_simplex(a, lower, upper):
    """Whether the row is a sum of non-negative columns without upper bounds, times a number."""
    simplex = a[0] != 0.0
    for j in range(len(a)):
        simplex &= (a[j] == a[0]) & (lower[j] == 0.0) & (upper[j] >= _INFINITE)
    return simplex


@kernel()
def _argmin(c):
    """The first index of the smallest number, and whether all are finite."""
    finite, best, at = True, np.inf, 0
    for j in range(len(c)):
        finite &= abs(c[j]) < _INFINITE
        best = c[j] if c[j] < best else best
    for j in range(len(c)):
        if c[j] == best:
            at = j
            break
    return at, finite


@kernel(types.void(F2, F2, F2, F2, F2, F2, F2W, F2W, S1W, SIZE, SIZE))
def one_row(
    c,  # (1|B, n)
    a,  # (1|B, n) any signs, zeros too
    lower,  # (1|B, n)
    upper,  # (1|B, n)
    row_lower,  # (1|B, 1)
    row_upper,  # (1|B, 1)
    x,  # (B, n)
    y,  # (B, 1)
    status,  # (B,) int8
    start,
    stop,
):
    """One row: the continuous knapsack. Reduced costs are c - a y."""
    n = c.shape[1]
    ratio, lo, hi, z, weight = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    index, column = np.empty(n, np.int32), np.empty(n, np.int32)
    shared = len(a) == 1 and len(lower) == 1 and len(upper) == 1
    simplex = False
    for k in range(start, stop):
        kc, ka = k if len(c) > 1 else 0, k if len(a) > 1 else 0
        kl, ku = k if len(lower) > 1 else 0, k if len(upper) > 1 else 0
        side_lower = _bound(row_lower[k if len(row_lower) > 1 else 0, 0])
        side_upper = _bound(row_upper[k if len(row_upper) > 1 else 0, 0])
        if n > 0 and (k == start or not shared):
            simplex = _is_simplex(a[ka], lower[kl], upper[ku])
        if simplex and side_lower == side_upper and 0.0 < side_lower / a[ka, 0] < _INFINITE:
            best, finite = _argmin(c[kc])
            x[k, :] = 0.0
            x[k, best] = side_lower / a[ka, 0]
            y[k, 0] = c[kc, best] / a[ka, 0]
            status[k] = _OPTIMAL if finite and abs(y[k, 0]) < np.inf else _DECLINED
            continue
        verdict, unbounded, count = _OPTIMAL, False, 0
        if side_lower != side_lower or side_upper != side_upper:
            verdict = _DECLINED
        elif side_lower > side_upper or side_lower == np.inf or side_upper == -np.inf:
            verdict = _INFEASIBLE
        for j in range(n):
            low, high, entry = _bound(lower[kl, j]), _bound(upper[ku, j]), a[ka, j]
            found = _boxed(c[kc, j], low, high)
            if not abs(entry) < _INFINITE:
                found = _DECLINED
            if found != _OPTIMAL and verdict != _DECLINED:
                verdict = found
            if entry == 0.0:
                x[k, j] = _stand(c[kc, j], low, high)
                unbounded |= not abs(x[k, j]) < np.inf
                continue
            column[count] = j
            ratio[count] = c[kc, j] / entry
            lo[count], hi[count] = (low * entry, high * entry) if entry > 0 else (high * entry, low * entry)
            if not abs(ratio[count]) < _INFINITE:
                verdict = _DECLINED
            count += 1
        y[k, 0] = 0.0
        if verdict == _OPTIMAL:
            verdict, y[k, 0] = _solve(
                ratio[:count], lo[:count], hi[:count], side_lower, side_upper, weight, index, z[:count]
            )
            if verdict == _OPTIMAL and unbounded:
                verdict = _UNBOUNDED
        if verdict == _OPTIMAL:
            for i in range(count):
                j = column[i]
                if z[i] == lo[i] or z[i] == hi[i]:
                    # The bound itself, not its product divided again.
                    at_lower = (z[i] == lo[i]) == (a[ka, j] > 0)
                    x[k, j] = lower[kl, j] if at_lower else upper[ku, j]
                else:
                    x[k, j] = z[i] / a[ka, j]
        status[k] = verdict
