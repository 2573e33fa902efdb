"""Bags of labels to items: each item gets one label, each label serves as many items as its bag holds of it.

    label(log_probs, items, counts, unlabelled=None) -> Labelling

Item i costs c_ik = -log_probs[i, k] as class k, or what ``unlabelled`` says where a bag holds fewer labels
than items. This is a transport problem with n suppliers of one unit each and few takers, so the shortest
augmenting paths (J. Edmonds and R. M. Karp, J. ACM 19, 1972) run over the classes of the bag alone: a class
that is full is passed through whichever of its items changes at the least cost. No label is a column of its
own, so equal labels are no ties to be fought about. The prices v of classes stay such that

    d_ik = c_ik - u_i - v_k >= 0, = 0 where item i has class k,

which proves the labelling optimal, and is checked against the probabilities as they were given.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from ..batch import run_spans, threads_for
from . import lanes as w
from .jit import F1W, F2, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .strips import COSTS, INACCURATE, INFEASIBLE, INVALID, L2, L2W, OPTIMAL

__all__ = ["Labelling", "label"]

_HUGE = 1e100  # finite costs above go to the general solver, so that no difference of prices overflows
_OWN = 1e-12  # what a reduced cost may be off by rounding, relative to the numbers that make it up


class Labelling(NamedTuple):
    """Optimal labellings.

    value: (B,) float64; +inf where there is none, NaN where a number was not a log-probability.
    status: (B,) int8, as ``lpdiff.Status``.
    places, weight: (B, n) int64 and float64: i * K + k for item i and its class k, by items, with weight
        -1, the derivative of the value in the log-probability; then zeros.
    left: (B, n) 1 where an item has no label; (B, 0) where all must have one.
    """

    value: np.ndarray
    status: np.ndarray
    places: np.ndarray
    weight: np.ndarray
    left: np.ndarray


def label(
    log_probs: np.ndarray,
    items: np.ndarray,
    counts: np.ndarray,
    unlabelled: np.ndarray | None = None,
    *,
    threads: int = 1,
) -> Labelling:
    """Label a batch of bags.

    Args:
        log_probs: (1|B, n, K) float64 or float32, C-contiguous; -inf forbids. NaN and +inf make a bag
        INVALID.
        items: what a bag has of them: (B, 2) int64, the first and how many; or (B, n + 2) int64, anything,
            how many, then 1 where there is one. Nothing else is read.
        counts: (B, K) int64, how many of each class, not negative.
        unlabelled: (1|B, n) float64; given, there may be fewer labels than items.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    size, (shared, n, classes) = len(items), log_probs.shape
    if log_probs.dtype not in _KERNELS or shared not in (1, size):
        raise ValueError(
            f"log_probs: got {log_probs.dtype} {log_probs.shape}; give (1 or {size}, n, K), float64 or "
            f"float32"
        )
    if items.shape not in ((size, 2), (size, n + 2)) or items.dtype != np.int64:
        raise ValueError(
            f"items: got {items.dtype} {items.shape}; give ({size}, 2) or ({size}, {n + 2}) int64"
        )
    if counts.shape != (size, classes) or counts.dtype != np.int64:
        raise ValueError(f"counts: got {counts.dtype} {counts.shape}; give ({size}, {classes}) int64")
    prices = np.zeros((1, 0)) if unlabelled is None else unlabelled
    if unlabelled is not None and unlabelled.shape not in ((1, n), (size, n)):
        raise ValueError(f"unlabelled: got {unlabelled.shape}; give (1 or {size}, {n})")
    value, status = np.empty(size), np.empty(size, np.int8)
    places, weight = np.empty((size, n), np.int64), np.empty((size, n))
    left = np.zeros((size, n if unlabelled is not None else 0))
    compiled, flat = _KERNELS[log_probs.dtype], log_probs.reshape(shared, n * classes)

    def work(start: int, stop: int) -> None:
        compiled(
            *(flat, n, classes, items, counts, prices, unlabelled is not None),
            *(value, status, places, weight, left, start, stop),
        )

    width = min(n, classes) + 1
    run_spans(size, threads_for(2.0 * size * n * width * (4 + n / 16), threads), work)
    return Labelling(value, status, places, weight, left)


@inner
def _members(given, most, out):
    """Which items a bag has, ascending; how many."""
    count = 0
    if len(given) == 2 or most == 0:
        for k in range(given[1]):
            out[k] = given[0] + k
        return given[1]
    for k in range(most):
        if given[2 + k] != 0:
            out[count] = k
            count += 1
    return count


@inner
def _relax(work, base, i, h, v, dist, pred, width):
    """A step of Dijkstra's algorithm from item i: dist_k <- min(dist_k, c_k - v_k + h). The nearest class.

    Classes that are done have v_k = -inf and dist_k = inf: they stay out without a branch."""
    low, at, shift, by = w.fill(np.inf), w.fill_index(0), w.fill(h), w.fill_index(i)
    for k in range(0, width, 8):
        old = w.load(dist, k)
        new = w.add(w.subtract(w.load(work, base + k), w.load(v, k)), shift)
        w.store(pred, k, w.choose(w.less(new, old), by, w.load(pred, k)))
        new = w.least(new, old)
        w.store(dist, k, new)
        at = w.choose(w.less(new, low), w.fill_index(k), at)
        low = w.least(low, new)
    best = w.least_of(low)
    return best, w.first_of(w.same(low, w.fill(best)), w.add(at, w.lanes()))


@inner
def _augment(work, width, count, start, n_k, v, spent, dist, final, pred, class_of, room, done):
    """A shortest augmenting path from an item without a class to a class with room. Whether there is one.

    v_k += dist_k - length on the classes that were passed keeps d >= 0 and the paths tight."""
    for k in range(width):
        dist[k], spent[k] = np.inf, v[k]
    reached, latest = 0, -np.inf
    best, k = _relax(work, start * width, start, 0.0, spent, dist, pred, width)
    while best < np.inf:
        if best == latest:
            for e in range(count):  # ties in distance: one of them may be an end
                if dist[e] == best and room[e] > 0:
                    k = e
                    break
        if room[k] > 0:
            break
        done[reached], final[reached] = k, best
        reached += 1
        passed, latest, so_far = k, best, best
        dist[k], spent[k], best = np.inf, -np.inf, np.inf
        for i in range(n_k):
            if class_of[i] == passed:
                h = so_far - (work[i * width + passed] - v[passed])
                best, k = _relax(work, i * width, i, h, spent, dist, pred, width)
    if not best < np.inf:
        return False
    for e in range(reached):
        v[done[e]] += final[e] - best
    room[k] -= 1
    while k >= 0:
        i = pred[k]
        class_of[i], k = k, class_of[i]  # an item that was free had none
    return True


@inner
def _proved(p, classes, item, n_k, name, count, prices, u, v, floor):
    """Whether no d_ik is negative by more than rounding, for the ``count`` classes; -1 is the name of
    none."""
    fine = True
    for i in range(n_k):
        for k in range(count):
            cost = -float(p[item[i] * classes + name[k]]) if name[k] >= 0 else prices[item[i]]
            size = abs(cost) + abs(u[i]) + abs(v[k])
            fine &= cost - u[i] - v[k] >= -(_OWN * size + floor)
    return fine


def _span(
    log_probs, n, classes, items, counts, unlabelled, some,
    value, status, place_at, place_weight, left, start, stop,
):  # fmt: skip
    """Bags ``start`` to ``stop`` of ``label``."""
    most = (smaller(n, classes) + 8) // 8 * 8
    work, v, spent, dist = np.empty(n * most), np.empty(most), np.empty(most), np.empty(most)
    final, pred, done = np.empty(most), np.empty(most, np.int64), np.empty(most, np.int64)
    name, room, item = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(n, np.int64)
    class_of, u = np.empty(n, np.int64), np.empty(n)
    for b in range(start, stop):
        p = log_probs[b if len(log_probs) > 1 else 0]
        price = unlabelled[b if len(unlabelled) > 1 else 0]
        n_k, count, total = _members(items[b], n, item), 0, np.int64(0)
        value[b], status[b] = np.inf, INFEASIBLE
        for i in range(n):
            place_at[b, i], place_weight[b, i] = 0, 0.0
        for k in range(classes):
            total += larger(counts[b, k], np.int64(0))
        if total > n_k or (total < n_k and not some):
            continue
        for k in range(classes):
            if counts[b, k] > 0:
                name[count], room[count] = k, counts[b, k]
                count += 1
        if total < n_k:
            name[count], room[count] = -1, n_k - total
            count += 1
        width, sound = (count + 7) // 8 * 8, True
        for k in range(width):
            v[k] = 0.0
        solved = True
        for i in range(n_k):
            best, at, base = np.inf, 0, i * width
            for k in range(width):
                cost = np.inf
                if k < count:
                    cost = -float(p[item[i] * classes + name[k]]) if name[k] >= 0 else price[item[i]]
                sound &= cost > -_HUGE
                work[base + k] = cost
                if cost < best:
                    best, at = cost, k
            class_of[i] = -1
            if best < np.inf and room[at] > 0:
                class_of[i] = at
                room[at] -= 1
        if sound:
            for i in range(n_k):
                if solved and class_of[i] < 0:
                    solved = _augment(
                        work, width, count, i, n_k, v, spent, dist, final, pred, class_of, room, done
                    )
        if not sound:
            value[b], status[b] = np.nan, INACCURATE
            for e in range(n_k * width):
                if not work[e] > -np.inf:
                    status[b] = INVALID
        if not (sound and solved):
            continue
        # The proof, against what was given.
        cost, top, made = 0.0, 0.0, 0
        for i in range(n_k):
            k = class_of[i]
            own = work[i * width + k]
            u[i] = own - v[k]
            top = larger(larger(top, abs(own)), larger(abs(u[i]), abs(v[k])))
            cost += own
            if name[k] >= 0:
                place_at[b, made], place_weight[b, made] = item[i] * classes + name[k], -1.0
                made += 1
            else:
                left[b, item[i]] = 1.0
        fine = top < _HUGE
        for k in range(count):
            fine &= room[k] == 0
        fine &= _proved(p, classes, item, n_k, name, count, price, u, v, 0.01 * _OWN * top)
        value[b], status[b] = cost, OPTIMAL if fine else INACCURATE


_KERNELS = {
    dtype: kernel(
        types.void(
            *(kind, SIZE, SIZE, L2, L2, F2, types.boolean),
            *(F1W, S1W, L2W, F2W, F2W, SIZE, SIZE),
        )
    )(_span)
    for dtype, kind in COSTS.items()
}
