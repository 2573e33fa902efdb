"""Shortest paths: min c'x of f units sent from a source to a sink, on acyclic and on cyclic graphs.

The LP is a node-arc incidence matrix, +1 at the tail and -1 at the head of an arc, with f at the source, -f
at the sink and 0 elsewhere, all rows equalities, and 0 <= x <= u where u >= f (or u = 0: a forbidden arc).
With dist the length of a shortest path from the source,

    y = const - dist,   d_j = c_j - y_tail + y_head = c_j + dist_tail - dist_head >= 0,

so f on the arcs of a shortest path, where d = 0, is optimal. Acyclic graphs take dynamic programming in
topological order, whatever the signs; cyclic ones Dijkstra's algorithm with a binary heap, or, where an arc
is negative, the label-correcting method of Bellman, Ford and Moore with a first-in first-out queue.

What the source does not reach has no potential yet: NaN in y, and status 8, or 9 where the ground (a node
without a row, where y = 0) has its potential. ``potentials.complete_potentials`` does the rest.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1, F2, F2W, I1, S1W, SIZE, kernel

__all__ = ["cyclic_paths", "dag_paths"]

# Larger costs are refused, so that no sum of costs overflows into "unreachable".
_HUGE = 1e290

# A label improves only by more than its rounding, or a cycle of length zero would look negative.
_ROUNDING = 1e-14

_OPTIMAL, _INFEASIBLE, _DECLINED = 0, 1, 7
_INCOMPLETE, _INCOMPLETE_GROUNDED = 8, 9
_UNKNOWN, _LABELLED = 0, 1


# -- what both kinds of graph share --------------------------------------------------------------------


@kernel()
def _screen(upper, f):
    """Whether all arcs are open to the whole supply or forbidden, and whether one is forbidden."""
    fine, forbidden = 0.0 < f < np.inf, False
    for j in range(len(upper)):
        fine &= (upper[j] >= f) | (upper[j] == 0.0)
        forbidden |= upper[j] < f
    return fine, forbidden


@kernel()
def _finite(c):
    fine = True
    for j in range(len(c)):
        fine &= abs(c[j]) <= _HUGE
    return fine


@kernel()
def _potentials(order, reference, s, dist, lane, y):
    """y from the labels; returns the status."""
    rows, zero, complete = len(y), dist[reference[s], lane], True
    # Where the reference has no label yet, any zero will do till then.
    zero = zero if zero < np.inf else 0.0
    grounded = 0
    for p in range(len(order)):
        reached = dist[p, lane] < np.inf
        complete &= reached
        if order[p] < rows:
            y[order[p]] = zero - dist[p, lane] if reached else np.nan
        else:
            grounded = reached
    if complete:
        return _OPTIMAL
    return _INCOMPLETE_GROUNDED if grounded else _INCOMPLETE


# -- acyclic -------------------------------------------------------------------------------------------


@kernel()
def _program(c, upper, f, masked, first, pointers, arcs, tails, dist, parent, lane):
    """Dynamic programming from position ``first`` on. Among ties the first arc of the walk wins."""
    for p in range(first):
        dist[p, lane] = np.inf
    dist[first, lane] = 0.0
    for p in range(first + 1, len(dist)):
        best, by = np.inf, 0
        for a in range(pointers[p], pointers[p + 1]):
            j, q = np.uint32(arcs[a]), np.uint32(tails[a])
            length = dist[q, lane] + c[j]
            if masked:
                length = length if upper[j] >= f else np.inf
            better = length < best
            best = length if better else best
            by = a if better else by
        dist[p, lane] = best
        parent[p, lane] = by


@kernel()
def _four_programs(c0, c1, c2, c3, upper, f, masked, first, pointers, arcs, tails, dist, parent):
    """The same for four items at once, whose chains of operations the processor overlaps: half the time."""
    for p in range(first):
        for i in range(4):
            dist[p, i] = np.inf
    for i in range(4):
        dist[first, i] = 0.0
    for p in range(first + 1, len(dist)):
        best0 = best1 = best2 = best3 = np.inf
        by0 = by1 = by2 = by3 = 0
        for a in range(pointers[p], pointers[p + 1]):
            j, q = np.uint32(arcs[a]), np.uint32(tails[a])
            if masked and upper[j] < f:
                continue
            length0, length1 = dist[q, 0] + c0[j], dist[q, 1] + c1[j]
            length2, length3 = dist[q, 2] + c2[j], dist[q, 3] + c3[j]
            better0, better1 = length0 < best0, length1 < best1
            better2, better3 = length2 < best2, length3 < best3
            best0, by0 = length0 if better0 else best0, a if better0 else by0
            best1, by1 = length1 if better1 else best1, a if better1 else by1
            best2, by2 = length2 if better2 else best2, a if better2 else by2
            best3, by3 = length3 if better3 else best3, a if better3 else by3
        dist[p, 0], dist[p, 1], dist[p, 2], dist[p, 3] = best0, best1, best2, best3
        parent[p, 0], parent[p, 1], parent[p, 2], parent[p, 3] = by0, by1, by2, by3


_DATA = (F2, F2, F1, I1, I1)  # c, upper, supply, source, sink
_WALK = (I1, I1, I1, I1, I1, I1)
_RESULT = (F2W, F2W, S1W, SIZE, SIZE)


@kernel(types.void(*_DATA, *_WALK, *_RESULT))
def dag_paths(
    c, upper, supply, source, sink, order, position, reference, pointers, arcs, tails,
    x, y, status, start, stop,
):  # fmt: skip
    """Shortest paths in directed acyclic graphs, any signs, by dynamic programming along the walk.

    Args:
        c: Costs, (1|B, n).
        upper: (1|B, n), at least the supply, or 0: a forbidden arc.
        supply, source, sink: f > 0 and two nodes, (1|B,).
        order ... tails: A ``graphs.Walk`` in topological order.
        x: (B, n) zeros; f is written on the arcs of the path.
        y: (B, m), zero at the ground or else the last row of the connected component.
        status: (B,). Infeasible: the source does not reach the sink. 8, 9: see above.
    """
    nodes = len(order)
    alike = len(upper) == 1 and len(supply) == 1 and len(source) == 1 and stop - start >= 4
    lanes = 4 if alike else 1
    dist, parent = np.empty((nodes, lanes)), np.empty((nodes, lanes), dtype=np.int32)
    f, fine, masked = 0.0, False, False
    together = start
    for k in range(start, stop):
        ck, uk = c[k if len(c) > 1 else 0], upper[k if len(upper) > 1 else 0]
        if k == start or len(upper) > 1 or len(supply) > 1:
            f = supply[k if len(supply) > 1 else 0]
            fine, masked = _screen(uk, f)
        s = position[source[k if len(source) > 1 else 0]]
        t = position[sink[k if len(sink) > 1 else 0]]
        if alike and len(c) > 1 and k == together and k + 4 <= stop:
            together += 4
            _four_programs(
                ck, c[k + 1], c[k + 2], c[k + 3], uk, f, masked, s, pointers, arcs, tails, dist, parent
            )
        if not (fine and _finite(ck)):
            status[k] = _DECLINED
            continue
        lane = k - together + 4 if k < together else 0
        if k >= together:
            _program(ck, uk, f, masked, s, pointers, arcs, tails, dist, parent, lane)
        if dist[t, lane] == np.inf:
            status[k] = _INFEASIBLE
            continue
        p = t
        while p != s:
            x[k, arcs[parent[p, lane]]] = f
            p = tails[parent[p, lane]]
        status[k] = _potentials(order, reference, s, dist, lane, y[k])


# -- cyclic --------------------------------------------------------------------------------------------


@kernel()
def _place(heap, keys, where, i, p, key):
    """Put p at slot i of the heap or above."""
    while i > 0:
        above = (i - 1) >> 1
        if keys[above] <= key:
            break
        heap[i], keys[i] = heap[above], keys[above]
        where[heap[i]] = i
        i = above
    heap[i], keys[i], where[p] = p, key, i


@kernel()
def _pop(heap, keys, where, size):
    """Take the smallest off a heap of ``size``."""
    first, p, key = heap[0], heap[size - 1], keys[size - 1]
    size -= 1
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if key <= keys[child]:
            break
        heap[i], keys[i] = heap[child], keys[child]
        where[heap[i]] = i
        i = child
    heap[i], keys[i], where[p] = p, key, i
    return first


@kernel()
def _dijkstra(c, upper, f, s, pointers, arcs, heads, state, dist, via, by, heap, keys, where):
    """Labels and parents (nodes ``via``, columns ``by``) for what s reaches."""
    size = 1
    heap[0], keys[0], where[s] = s, 0.0, 0
    while size > 0:
        p = _pop(heap, keys, where, size)
        size -= 1
        for a in range(pointers[p], pointers[p + 1]):
            j, q = arcs[a], heads[a]
            if upper[j] < f:
                continue
            length = dist[p, 0] + c[j]
            if state[q] == _UNKNOWN:
                state[q] = _LABELLED
                where[q] = size
                size += 1
            elif not length < dist[q, 0]:
                continue
            dist[q, 0], via[q], by[q] = length, p, j
            _place(heap, keys, where, where[q], q, length)


@kernel()
def _circular(via, mark):
    """Whether the parents run in a circle."""
    for p in range(len(via)):
        mark[p] = -1
    for start in range(len(via)):
        p = start
        while via[p] >= 0 and mark[p] < 0:
            mark[p] = start
            p = via[p]
        if via[p] >= 0 and mark[p] == start:
            return True
    return False


@kernel()
def _correct(c, upper, f, s, pointers, arcs, heads, state, dist, via, by, queue, waits, mark):
    """As ``_dijkstra``, where arcs are negative; False: a negative cycle.

    A negative cycle shows as a circle of parents in the end. Looking for one takes a pass over the nodes,
    and is done once in as many label changes (Cherkassky and Goldberg 1999).
    """
    nodes = len(state)
    waits[:] = 0
    queue[0], waits[s] = s, 1
    size, begin, changes, rounds = 1, 0, 0, 0
    while size > 0:
        p = queue[begin]
        begin = begin + 1 if begin + 1 < nodes else 0
        size -= 1
        waits[p] = 0
        for a in range(pointers[p], pointers[p + 1]):
            j, q = arcs[a], heads[a]
            if upper[j] < f:
                continue
            length = dist[p, 0] + c[j]
            if state[q] == _UNKNOWN:
                state[q] = _LABELLED
            elif not length < dist[q, 0] - _ROUNDING * (abs(dist[q, 0]) + abs(c[j])):
                continue
            dist[q, 0], via[q], by[q] = length, p, j
            changes += 1
            if not waits[q]:
                waits[q] = 1
                place = begin + size
                queue[place if place < nodes else place - nodes] = q
                size += 1
        if changes > nodes:
            changes = 0
            rounds += 1
            if rounds > len(c) or _circular(via, mark):
                return False
    return not _circular(via, mark)


@kernel()
def _any_negative(c, upper, f):
    negative = False
    for j in range(len(c)):
        negative |= (c[j] < 0.0) & (upper[j] >= f)
    return negative


@kernel(types.void(*_DATA, *_WALK, I1, I1, I1, *_RESULT))
def cyclic_paths(
    c, upper, supply, source, sink, order, position, reference, pointers, arcs, tails,
    out_pointers, out_arcs, heads, x, y, status, start, stop,
):  # fmt: skip
    """Shortest paths in any directed graph: Dijkstra where no open arc is negative, label-correcting else.

    As ``dag_paths``, with a ``graphs.Walk`` in any order and its ``graphs.Star``. A negative cycle is
    declined: with finite bounds that is a min-cost flow. (One that the source does not reach leaves 8 or 9,
    and is declined when the potentials are completed.)
    """
    nodes = len(order)
    dist, keys, state = np.empty((nodes, 1)), np.empty(nodes), np.empty(nodes, np.int8)
    via, by, mark = np.empty(nodes, np.int32), np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    heap, where = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    for k in range(start, stop):
        ck, uk = c[k if len(c) > 1 else 0], upper[k if len(upper) > 1 else 0]
        f = supply[k if len(supply) > 1 else 0]
        s = position[source[k if len(source) > 1 else 0]]
        t = position[sink[k if len(sink) > 1 else 0]]
        status[k] = _DECLINED
        if not (_screen(uk, f)[0] and _finite(ck)):
            continue
        dist[:] = np.inf
        state[:] = _UNKNOWN
        state[s], dist[s, 0] = _LABELLED, 0.0
        if _any_negative(ck, uk, f):
            via[:] = -1
            if not _correct(
                ck, uk, f, s, out_pointers, out_arcs, heads, state, dist, via, by, heap, where, mark
            ):
                continue
        else:
            _dijkstra(ck, uk, f, s, out_pointers, out_arcs, heads, state, dist, via, by, heap, keys, where)
        if state[t] == _UNKNOWN:
            status[k] = _INFEASIBLE
            continue
        p = t
        while p != s:
            x[k, by[p]] = f
            p = via[p]
        status[k] = _potentials(order, reference, s, dist, 0, y[k])
