"""The cheapest k of n numbers.

    choose(costs, k, mask=None, *, at_most=False, threads=1) -> Chosen

min c'x with sum x = k (or <= k), 0 <= x <= 1: with t the k-th smallest cost, everything cheaper than t is
taken, and of what costs t the first, as much as is missing. That is optimal by the row's dual y = t: the
reduced costs c - t are negative where x = 1, positive where x = 0 (Dantzig 1957). With <= nothing is taken
that costs 0 or more. t is found by partitions about a median of three (Hoare 1961), linear on average.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
from .jit import F1, F1W, F2, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .strips import INACCURATE, INFEASIBLE, L2, L2W, OPTIMAL

__all__ = ["Chosen", "choose"]

_INFINITE = 1e20  # as in the LP: what is not below is not a cost


class Chosen(NamedTuple):
    """The cheapest numbers.

    value: (B,) float64; +inf where there are too few, NaN where a number was not a cost.
    status: (B,) int8, as ``lpdiff.Status``: INACCURATE where a number was not a cost.
    places, weight: (B, K) int64 and float64, ascending: what is taken and how much of it; then zeros.
    """

    value: np.ndarray
    status: np.ndarray
    places: np.ndarray
    weight: np.ndarray


def choose(
    costs: np.ndarray,
    k: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    at_most: bool = False,
    threads: int = 1,
) -> Chosen:
    """Choose of a batch.

    Args:
        costs: (1|B, n) float64; +inf forbids.
        k: (1|B,) float64, 0 to n; with a fraction, one is taken in part.
        mask: (1|B, n) int64, 0 where there is nothing; what stands there is not read.
        at_most: Up to k.
    """
    n = costs.shape[1]
    mask = np.zeros((1, 0), np.int64) if mask is None else mask
    size = next((len(a) for a in (costs, k, mask) if len(a) != 1), 1)
    most = int(np.ceil(np.fmin(np.fmax(k, 0.0), n).max(initial=0.0)))
    value, status = np.empty(size), np.empty(size, np.int8)
    index, weight = np.empty((size, most), np.int64), np.empty((size, most))

    def work(start: int, stop: int) -> None:
        _choose(costs, k, mask, at_most, value, status, index, weight, start, stop)

    run_spans(size, threads_for(5.0 * size * n, threads), work)
    return Chosen(value, status, index, weight)


@inner
def _smallest(values, last, k):
    """The k-th smallest (from 0) of the first ``last`` numbers, which it permutes."""
    first = np.int64(0)
    while True:
        low, mid, high = values[first], values[(first + last) >> 1], values[last - 1]
        pivot = larger(smaller(low, mid), smaller(larger(low, mid), high))
        # No branch waits for a comparison: each number changes places with the first that is not smaller.
        less = first
        for i in range(first, last):
            number, other = values[i], values[less]
            values[i], values[less] = other, number
            less += np.int64(number < pivot)
        if k < less:
            last = less
            continue
        same = less
        for i in range(less, last):
            number, other = values[i], values[same]
            values[i], values[same] = other, number
            same += np.int64(number == pivot)
        if k < same:
            return pivot
        first = same


@kernel(types.void(F2, F1, L2, types.boolean, F1W, S1W, L2W, F2W, SIZE, SIZE))
def _choose(costs, k, mask, at_most, value, status, index, weight, start, stop):
    """Items ``start`` to ``stop`` of ``choose``."""
    n, room = costs.shape[1], index.shape[1]
    own, scratch, picked = np.empty(n), np.empty(n), np.empty(n + 1, np.int64)
    for item in range(start, stop):
        c, wanted = costs[item if len(costs) > 1 else 0], k[item if len(k) > 1 else 0]
        there = mask[item if len(mask) > 1 else 0]
        fair, worth = wanted >= 0.0, np.int64(0)
        for j in range(n):
            cost = c[j] if len(there) == 0 or there[j] != 0 else np.inf
            fair &= (abs(cost) < _INFINITE) | (cost == np.inf)
            own[j] = scratch[j] = cost
            worth += np.int64(cost < (0.0 if at_most else np.inf))
        for e in range(room):
            index[item, e], weight[item, e] = 0, 0.0
        value[item], status[item] = np.nan, INACCURATE
        if not fair:
            continue
        value[item], status[item] = np.inf, INFEASIBLE
        if at_most:
            wanted = smaller(wanted, np.float64(worth))
        elif wanted > worth:
            continue
        whole = np.int64(wanted)
        part = wanted - whole
        # What is taken is below the limit, and of what is at the limit the first.
        number = whole + np.int64(part > 0.0)
        limit = _smallest(scratch, n, number - 1) if number > 0 else -np.inf
        below = np.int64(0)
        for j in range(n):
            below += np.int64(own[j] < limit)
        ties, made = number - below, np.int64(0)
        for j in range(n):
            at = np.int64(own[j] == limit) & np.int64(ties > 0)
            picked[made] = j
            made += np.int64(own[j] < limit) | at
            ties -= at
        # What is taken in part is the last of those at the limit.
        split = made - 1
        while part > 0.0 and own[picked[split]] != limit:
            split -= 1
        total = 0.0
        for e in range(made):
            j, amount = picked[e], part if part > 0.0 and e == split else 1.0
            index[item, e], weight[item, e] = j, amount
            total += amount * own[j]
        value[item], status[item] = total, OPTIMAL if made == number else INACCURATE
