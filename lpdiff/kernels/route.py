"""The certificate of a shortest path: that its arcs are a flow, and that no node's label can be improved.

It reads the graph, the costs and the proposal, the arcs of one path from the sink back to the source and y.

- The arcs chain from source to sink, all are open, and none occurs twice: f on each of them is feasible, and
  x, which ``lay`` writes, is exact.
- With d_j = c_j - y_tail + y_head >= 0 on all open arcs and d_j = 0 on those of the path, x and y are
  optimal: c'x = D(y) = f (y_source - y_sink).

Rounding. Labels are sums from the source on, dist_v = y_source - y_v, each within u |dist_v| of what the arc
gives (u = 2^-53), and so is y; hence |d_j| is rounding only up to a few u times

    |y_tail| + |y_head| + |y_source|.

Nothing else is tolerated, and each arc has a tolerance of its own, so that neither a large cost common to all
arcs nor a few large ones hide a wrong path. ``rounding`` is that multiple of u. Potentials that were made up
for what the source does not reach are sums from elsewhere: for them the largest |y| takes the place of
|y_source|.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1W, F1, F1W, F2, F2W, I1, I2, REAL, S1W, SIZE, kernel
from .lanes import WIDTH, across, add, choose, fill, less, load, multiply, size, store, subtract

__all__ = ["follow", "lay", "prove"]

_OPTIMAL = 0


@kernel()
def _any_closed(upper, f):
    closed = False
    for j in range(len(upper)):
        closed |= not (upper[j] >= f)
    return closed


@kernel()
def _is_finite(numbers):
    fine = True
    for j in range(len(numbers)):
        fine &= numbers[j] - numbers[j] == 0.0
    return fine


@kernel()
def _least(tail, head, c, upper, f, masked, y, rounding, price):
    """The least d_j + rounding (|y_tail| + |y_head|) of the open arcs; NaN where a number is not finite."""
    m = len(y)
    for i in range(m):
        price[i] = y[i]
    for i in range(m, len(price)):
        price[i] = 0.0
    best = np.inf
    for j in range(len(c)):
        a, b = price[np.uint32(tail[j])], price[np.uint32(head[j])]
        d = (c[j] - (a - rounding * abs(a))) + (b + rounding * abs(b))
        if masked:
            d = d if upper[j] >= f else np.inf
        best = d if d < best else best
    return best if _is_finite(y) and _is_finite(c) else np.nan


@kernel()
def _eight_least(tail, head, c, upper, f, y, m, rounding, low, high, least):
    """The same for eight items at once, whose rows in ``c`` and ``y`` follow each other."""
    much, finite = fill(rounding), fill(0.0)
    for i in range(m):
        price = across(y, i, m)
        slack = multiply(much, size(price))
        store(low, i * WIDTH, subtract(price, slack))
        store(high, i * WIDTH, add(price, slack))
        finite = add(finite, subtract(price, price))
    store(low, m * WIDTH, fill(0.0))
    store(high, m * WIDTH, fill(0.0))
    best = fill(np.inf)
    for j in range(len(tail)):
        a, b = np.uint32(tail[j]), np.uint32(head[j])
        cost = across(c, j, len(tail))
        finite = add(finite, subtract(cost, cost))  # 0, or NaN
        if not (upper[j] >= f):
            continue
        d = add(subtract(cost, load(low, a * WIDTH)), load(high, b * WIDTH))
        best = choose(less(d, best), d, best)
    store(least, 0, add(best, finite))


@kernel()
def _judge(
    tail, head, c, ci, upper, f, s, t, path, length, y, spread, rounding, least, seen, i, ok, value, gap, dual
):
    """Follow the path of item i, marking its arcs: whether it and the duals prove each other."""
    n, m = len(seen), y.shape[1]
    source, sink = y[i, s] if s < m else 0.0, y[i, t] if t < m else 0.0
    anchor = abs(source)
    if spread:
        for v in range(m):
            anchor = abs(y[i, v]) if abs(y[i, v]) > anchor else anchor
    total, v, down, count = 0.0, t, sink, 0
    fine = 0.0 < f < np.inf and least >= -rounding * anchor
    while fine and count < min(length, path.shape[1]):
        j = np.uint32(path[i, count])
        fine = j < n
        if fine:
            a = tail[j]
            up = y[i, a] if a < m else 0.0
            d = (c[ci, j] - up) + down
            tied = abs(d) <= rounding * (abs(up) + abs(down) + anchor)
            fine = head[j] == v and upper[j] >= f and seen[j] != i and tied
            if fine:
                seen[j] = i
                total += c[ci, j]
                v, down = a, up
                count += 1
    fine &= v == s and count == length and count > 0
    ok[i], value[i], gap[i] = fine, f * total, f * (total - (source - sink))
    dual[i] = 0.0 if fine else -least


@kernel(
    SIZE(
        *(I1, I1, F2, F2, F1, I1, I1),
        *(I2, I1, F2),
        *(types.boolean, REAL, SIZE, SIZE),
        *(S1W, B1W, F1W, F1W, F1W),
    )
)
def prove(
    tail,  # (n,) nodes: rows, and m the ground, where y = 0
    head,  # (n,)
    c,  # (1|B, n)
    upper,  # (1|B, n)
    supply,  # (1|B,)
    source,  # (1|B,)
    sink,  # (1|B,)
    path,  # (B, at least the longest path)
    length,  # (B,)
    y,  # (B, m)
    spread,  # whether potentials are made up for what the source does not reach
    rounding,
    start,
    stop,
    status,  # (B,) others than OPTIMAL are not looked at
    ok,  # (B,) bool, False: what is True is not looked at again
    value,  # (B,) c'x
    gap,  # (B,) c'x - D(y)
    dual_residual,  # (B,) 0 where proved
):
    """Judge the paths of a span; returns how many items of it are not proved.

    What is NaN or infinite anywhere in c or y is refused.
    """
    m = y.shape[1]
    # Steps from an item's numbers to the next one's: 0 where all share them.
    by_c, by_u, by_f = int(len(c) > 1), int(len(upper) > 1), int(len(supply) > 1)
    by_s, by_t = int(len(source) > 1), int(len(sink) > 1)
    width = WIDTH if by_c > by_u + by_f and stop - start >= WIDTH else 1
    low, high = np.empty((m + 1) * width), np.empty((m + 1) * (width if width > 1 else 0))
    least, seen = np.empty(WIDTH), np.empty(len(tail), np.int32)
    for j in range(len(tail)):
        seen[j] = -1
    k, masked = start, False
    while k < stop:
        k = min(k, stop - width)  # the last eight may overlap those before
        open_ = False
        for i in range(k, k + width):
            open_ |= status[i] == _OPTIMAL and not ok[i]
        uk, ck, f = upper[k * by_u], c[k * by_c], supply[k * by_f]
        if k == start or by_u + by_f:
            masked = _any_closed(uk, f)
        if open_:
            if width > 1:
                _eight_least(tail, head, ck, uk, f, y[k], m, rounding, low, high, least)
            else:
                least[0] = _least(tail, head, ck, uk, f, masked, y[k], rounding, low)
            for lane in range(width):
                i = k + lane
                if status[i] == _OPTIMAL and not ok[i]:
                    _judge(
                        *(tail, head, c, i * by_c, uk, f, source[i * by_s], sink[i * by_t], path, length[i]),
                        *(y, spread, rounding, least[lane], seen, i, ok, value, gap, dual_residual),
                    )
        k += width
    left = 0
    for k in range(start, stop):
        left += not ok[k]
    return left


@kernel(SIZE(*(I1, I1, F1, REAL, SIZE, SIZE), *(F2, I2, I1, F2), *(S1W, B1W, F1W, F1W)))
def follow(tail, head, upper, f, s, t, c, path, length, ends, status, ok, value, gap):
    """Judge paths in an acyclic graph whose labels are proved; returns how many are not the shortest.

    The arcs must chain from s to t and be open, and their costs must add up, from the source on, to the label
    of the sink, to the bit. No path is shorter, but by rounding.

    Args:
        tail ... t: The graph, bounds (n,), supply, source and sink, of all items.
        c, path, length, status: As in ``prove``.
        ends: (B, 2), the labels of the node where y = 0 and of the sink.
    """
    n, left = len(tail), 0
    for i in range(len(c)):
        count, v, total, dist = 0, t, 0.0, 0.0
        fine = status[i] == _OPTIMAL and 0.0 < f < np.inf and 0 < length[i] <= path.shape[1]
        while fine and count < length[i]:
            j = np.uint32(path[i, count])
            fine = j < n
            if fine:
                fine = head[j] == v and upper[j] >= f
                total += c[i, j]
                v = tail[j]
                count += 1
        if fine and v == s:
            for place in range(count - 1, -1, -1):
                dist += c[i, path[i, place]]
            fine = dist == ends[i, 1]
        else:
            fine = False
        source = ends[i, 0]
        ok[i], value[i], gap[i] = fine, f * total, f * (total - (source - (source - ends[i, 1])))
        left += not fine
    return left


@kernel(types.void(I2, I1, F1, S1W, F1, F2W, SIZE, SIZE), small=2_000)
def lay(path, length, supply, status, factors, x, start, stop):
    """Write x along the paths, each item's times its number of ``factors``: (B, n), all of it.

    Another's numbers, and zeros, are the same bits as those of f and 0 times the factor.
    """
    by_f = int(len(supply) > 1)
    for k in range(start, stop):
        factor = factors[k] if len(factors) > 1 else factors[0]
        for j in range(x.shape[1]):
            x[k, j] = 0.0 * factor
        if status[k] == _OPTIMAL:
            for i in range(length[k]):
                x[k, path[k, i]] = supply[k * by_f] * factor
