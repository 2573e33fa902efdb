"""Shortest paths: min c'x of f units sent from a source to a sink, on acyclic and on cyclic graphs.

The LP is a node-arc incidence matrix, +1 at the tail and -1 at the head of an arc, with f at the source, -f
at the sink and 0 elsewhere, all rows equalities, and 0 <= x <= u where u >= f (or u = 0: a forbidden arc).
With dist the length of a shortest path from the source,

    y = const - dist,   d_j = c_j - y_tail + y_head = c_j + dist_tail - dist_head >= 0,

so f on the arcs of a shortest path, where d = 0, is optimal. Acyclic graphs take dynamic programming in
topological order, whatever the signs; cyclic ones Dijkstra's algorithm with a binary heap, or, where an arc
is negative, the label-correcting method of Bellman, Ford and Moore with a first-in first-out queue.

The path is handed out as its arcs, from the sink back to the source; ``route`` proves it and writes x.
What the source does not reach has no potential yet: NaN in y, and status 8, or 9 where the ground (a node
without a row, where y = 0) has its potential. ``potentials.complete_potentials`` does the rest.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1, F2, F2W, I1, I1W, I2W, S1W, SIZE, kernel
from .lanes import WIDTH, across, add, choose, fill, less, load, spread, store, subtract

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
    """Whether all arcs are open to the whole supply or forbidden."""
    fine = 0.0 < f < np.inf
    for j in range(len(upper)):
        fine &= (upper[j] >= f) | (upper[j] == 0.0)
    return fine


@kernel()
def _any_closed(upper, f):
    closed = False
    for j in range(len(upper)):
        closed |= upper[j] < f
    return closed


@kernel()
def _finite(c):
    fine = True
    for j in range(len(c)):
        fine &= abs(c[j]) <= _HUGE
    return fine


@kernel()
def _potentials(order, reference, s, dist, y):
    """y from the labels; returns the status."""
    rows, zero, complete, grounded = len(y), dist[reference[s]], True, False
    # Where the reference has no label yet, any zero will do till then.
    zero = zero if zero < np.inf else 0.0
    for p in range(len(order)):
        label, node = dist[p], np.uint32(order[p])
        reached = label < np.inf
        complete &= reached
        if node < rows:
            y[node] = zero - label if reached else np.nan
        else:
            grounded = reached
    if complete:
        return _OPTIMAL
    return _INCOMPLETE_GROUNDED if grounded else _INCOMPLETE


# -- acyclic -------------------------------------------------------------------------------------------


@kernel()
def _program(c, upper, f, masked, first, pointers, arcs, tails, dist):
    """Dynamic programming from position ``first`` on."""
    for p in range(first):
        dist[p] = np.inf
    dist[first] = 0.0
    for p in range(first + 1, len(dist)):
        best = np.inf
        for a in range(pointers[p], pointers[p + 1]):
            j, q = np.uint32(arcs[a]), np.uint32(tails[a])
            length = dist[q] + c[j]
            if masked:
                length = length if upper[j] >= f else np.inf
            best = length if length < best else best
        dist[p] = best


@kernel()
def _eight_programs(c, stride, upper, f, first, pointers, arcs, tails, dist):
    """The same for eight items at once, whose rows in ``c`` lie ``stride`` apart: eight numbers a label."""
    infinite = fill(np.inf)
    for p in range(first):
        store(dist, p * WIDTH, infinite)
    store(dist, first * WIDTH, fill(0.0))
    for p in range(first + 1, len(pointers) - 1):
        best = infinite
        for a in range(pointers[p], pointers[p + 1]):
            j, q = np.uint32(arcs[a]), np.uint32(tails[a])
            if upper[j] < f:
                continue
            length = add(load(dist, q * WIDTH), across(c, j, stride))
            best = choose(less(length, best), length, best)
        store(dist, p * WIDTH, best)


@kernel()
def _eight_potentials(order, reference, s, dist, y, rows, codes):
    """As ``_potentials``, for eight items whose rows in ``y`` follow each other; the statuses go to codes."""
    infinite, zero = fill(np.inf), load(dist, reference[s] * WIDTH)
    zero = choose(less(zero, infinite), zero, fill(0.0))
    complete = grounded = fill(float(_OPTIMAL))
    for p in range(len(order)):
        label, node = load(dist, p * WIDTH), np.uint32(order[p])
        reached = less(label, infinite)
        if node < rows:
            spread(y, node, rows, choose(reached, subtract(zero, label), fill(np.nan)))
        else:
            grounded = choose(reached, fill(1.0), grounded)
        complete = choose(reached, complete, fill(float(_INCOMPLETE)))
    store(codes, 0, choose(less(complete, fill(1.0)), complete, add(complete, grounded)))


@kernel()
def _trace(c, upper, f, s, t, pointers, arcs, tails, dist, width, lane, path):
    """Walk back from t: the arc that gave a label gives it again, bit by bit. Among ties the first wins."""
    count, p = 0, t
    while p != s:
        label, a = dist[p * width + lane], pointers[p]
        while not (dist[tails[a] * width + lane] + c[arcs[a]] == label and upper[arcs[a]] >= f):
            a += 1
        path[count] = arcs[a]
        p = tails[a]
        count += 1
    return count


_DATA = (F2, F2, F1, I1, I1)  # c, upper, supply, source, sink
_WALK = (I1, I1, I1, I1, I1, I1)
_RESULT = (I2W, I1W, F2W, S1W, SIZE, SIZE)


@kernel(types.void(*_DATA, *_WALK, *_RESULT))
def dag_paths(
    c, upper, supply, source, sink, order, position, reference, pointers, arcs, tails,
    path, length, y, status, start, stop,
):  # fmt: skip
    """Shortest paths in directed acyclic graphs, any signs, by dynamic programming along the walk.

    Args:
        c: Costs, (1|B, n).
        upper: (1|B, n), at least the supply, or 0: a forbidden arc.
        supply, source, sink: f > 0 and two nodes, (1|B,).
        order ... tails: A ``graphs.Walk`` in topological order.
        path, length: (B, nodes) and (B,): the first ``length`` are the arcs of the path, from the sink on.
        y: (B, m), zero at the ground or else the last row of the connected component.
        status: (B,). Infeasible: the source does not reach the sink. 8, 9: see above.
    """
    nodes = len(order)
    # Steps from an item's numbers to the next one's: 0 where all share them.
    by_c, by_u, by_f = int(len(c) > 1), int(len(upper) > 1), int(len(supply) > 1)
    by_s, by_t = int(len(source) > 1), int(len(sink) > 1)
    width = WIDTH if by_c > by_u + by_f + by_s and stop - start >= WIDTH else 1
    dist, codes = np.empty(nodes * width), np.empty(WIDTH)
    k, fine, masked = start, False, False
    while k < stop:
        # The last eight may overlap those before, and find the same again.
        k = min(k, stop - width)
        uk, f, s = upper[k * by_u], supply[k * by_f], position[source[k * by_s]]
        if k == start or by_u + by_f:
            fine, masked = _screen(uk, f), _any_closed(uk, f)
        if width > 1:
            _eight_programs(c[k], c.shape[1], uk, f, s, pointers, arcs, tails, dist)
            _eight_potentials(order, reference, s, dist, y[k], y.shape[1], codes)
        else:
            _program(c[k * by_c], uk, f, masked, s, pointers, arcs, tails, dist)
        for lane in range(width):
            i = k + lane
            ci, t = c[i * by_c], position[sink[i * by_t]]
            if not (fine and _finite(ci)):
                status[i] = _DECLINED
            elif dist[t * width + lane] == np.inf:
                status[i] = _INFEASIBLE
            else:
                length[i] = _trace(ci, uk, f, s, t, pointers, arcs, tails, dist, width, lane, path[i])
                status[i] = (
                    np.int8(codes[lane]) if width > 1 else _potentials(order, reference, s, dist, y[i])
                )
        k += width


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
            length = dist[p] + c[j]
            if state[q] == _UNKNOWN:
                state[q] = _LABELLED
                where[q] = size
                size += 1
            elif not length < dist[q]:
                continue
            dist[q], via[q], by[q] = length, p, j
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
    for p in range(nodes):
        waits[p] = 0
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
            length = dist[p] + c[j]
            if state[q] == _UNKNOWN:
                state[q] = _LABELLED
            elif not length < dist[q] - _ROUNDING * (abs(dist[q]) + abs(c[j])):
                continue
            dist[q], via[q], by[q] = length, p, j
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
    out_pointers, out_arcs, heads, path, length, y, status, start, stop,
):  # fmt: skip
    """Shortest paths in any directed graph: Dijkstra where no open arc is negative, label-correcting else.

    As ``dag_paths``, with a ``graphs.Walk`` in any order and its ``graphs.Star``. A negative cycle is
    declined: with finite bounds that is a min-cost flow. (One that the source does not reach leaves 8 or 9,
    and is declined when the potentials are completed.)
    """
    nodes = len(order)
    dist, keys, state = np.empty(nodes), np.empty(nodes), np.empty(nodes, np.int8)
    by_c, by_u, by_f = int(len(c) > 1), int(len(upper) > 1), int(len(supply) > 1)
    by_s, by_t = int(len(source) > 1), int(len(sink) > 1)
    via, by, mark = np.empty(nodes, np.int32), np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    heap, where = np.empty(nodes, np.int32), np.empty(nodes, np.int32)
    for k in range(start, stop):
        ck, uk, f = c[k * by_c], upper[k * by_u], supply[k * by_f]
        s, t = position[source[k * by_s]], position[sink[k * by_t]]
        status[k] = _DECLINED
        if not (_screen(uk, f) and _finite(ck)):
            continue
        for p in range(nodes):
            dist[p], state[p], via[p] = np.inf, _UNKNOWN, -1
        state[s], dist[s] = _LABELLED, 0.0
        if _any_negative(ck, uk, f):
            if not _correct(
                ck, uk, f, s, out_pointers, out_arcs, heads, state, dist, via, by, heap, where, mark
            ):
                continue
        else:
            _dijkstra(ck, uk, f, s, out_pointers, out_arcs, heads, state, dist, via, by, heap, keys, where)
        if state[t] == _UNKNOWN:
            status[k] = _INFEASIBLE
            continue
        count, p = 0, t
        while p != s:
            path[k, count] = by[p]
            p = via[p]
            count += 1
        length[k] = count
        status[k] = _potentials(order, reference, s, dist, y[k])
