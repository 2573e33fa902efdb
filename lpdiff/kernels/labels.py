"""Shortest paths of a batch in an acyclic graph, by labels that are their own proof.

For the usual case, in which items differ by their costs alone, all arcs are open, and the source reaches
every node: eight items at a time, one pass over the arcs. ``paths.dag_paths`` takes what is left, and finds
the same to the bit.

Why the labels need no certificate. With dist = 0 at the source, a label is the least of

    fl(dist_tail + c_j) over the arcs j into its node,

all of them, so that dist_head <= fl(dist_tail + c_j) for every arc. A sum is rounded to within u = 2^-53 of
itself, and growing it cannot take it below dist_head by more than u |dist_head|. The potentials
y_v = fl(zero - dist_v) are rounded to within u |y_v|, so |dist_head| <= |y_source| + (1 + 2u) |y_head|, and

    d_j = c_j - y_tail + y_head >= -u (|y_source| + |y_tail| + (2 + 2u) |y_head|)

for every arc, less than an eighth of what ``route.prove`` tolerates. This is so if the arcs into a node are
those of the graph, which ``proves`` verifies once a graph, and if no cost is NaN, infinite, or so large that
sums are. What depends on more than that, the paths, is judged by ``route.follow``.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .graphs import Walk
from .jit import F1W, F2, F2W, I1, I1W, I2W, S1W, SIZE, kernel
from .lanes import WIDTH, across, add, aligned, choose, fill, fill_index, further, furthest, less, load, store
from .paths import _DECLINED, _HUGE, _OPTIMAL, _finite

__all__ = ["WIDTH", "potentials", "proves", "shortest"]


def proves(walk: Walk, tail: np.ndarray, head: np.ndarray) -> bool:
    """Whether the walk is one along all arcs of this graph, tails first, and reaches all from its first node.

    Args:
        tail, head: Nodes of each arc, (n,).
    """
    nodes, n = len(walk.order), len(tail)
    entering = np.diff(walk.pointers)
    if walk.pointers[0] != 0 or walk.pointers[-1] != n or not (entering[1:] > 0).all():
        return False
    if not (_is_permutation(walk.order, nodes) and _is_permutation(walk.arcs, n)):
        return False
    place = np.repeat(np.arange(nodes, dtype=np.int32), entering)
    return bool(
        (walk.position[walk.order] == np.arange(nodes)).all()
        and (walk.tails < place).all()
        and (walk.order[walk.tails] == tail[walk.arcs]).all()
        and (walk.order[place] == head[walk.arcs]).all()
    )


def _is_permutation(numbers: np.ndarray, size: int) -> bool:
    seen = np.zeros(size, dtype=bool)
    seen[numbers] = True
    return len(numbers) == size and bool(seen.all())


def potentials(labels: np.ndarray, size: int, walk: Walk, rows: int) -> np.ndarray:
    """y, (B, rows), as ``dag_paths`` makes it of the labels that ``shortest`` left."""
    nodes, first = len(walk.order), int(labels[-1])
    whole = -(-size // WIDTH) * nodes * WIDTH
    by_item = labels[first : first + whole].reshape(-1, nodes, WIDTH).transpose(0, 2, 1).reshape(-1, nodes)
    last = size // WIDTH * WIDTH  # the items of the last eight that are not among those before
    found = np.concatenate([by_item[:last], by_item[len(by_item) - (size - last) :]])
    zero = found[:, walk.reference[0]]
    with np.errstate(invalid="ignore"):  # of items that were declined
        return np.ascontiguousarray(zero[:, None] - found[:, walk.position[:rows]])


@kernel()
def _eight_labels(c, stride, pointers, arcs, tails, labels, base):
    """Labels of eight items, whose rows in ``c`` lie ``stride`` apart; returns the largest |c|, or NaN."""
    infinite, size = fill(np.inf), fill_index(0)
    store(labels, base, fill(0.0))
    for p in range(1, len(pointers) - 1):
        best = infinite
        for a in range(np.uint32(pointers[p]), np.uint32(pointers[p + 1])):
            cost = across(c, np.uint32(arcs[a]), stride)
            size = further(size, cost)
            length = add(load(labels, base + np.uint32(tails[a]) * WIDTH), cost)
            best = choose(less(length, best), length, best)
        store(labels, base + p * WIDTH, best)
    return furthest(size)


@kernel()
def _trace(c, t, pointers, arcs, tails, labels, base, path):
    """Walk back from t: the arc that gave a label gives it again, bit by bit. Among ties the first wins."""
    count, p = 0, np.uint32(t)
    while p != 0:
        label, a = labels[base + p * WIDTH], pointers[p]
        while labels[base + np.uint32(tails[a]) * WIDTH] + c[np.uint32(arcs[a])] != label:
            a += 1
        path[count] = arcs[a]
        p = np.uint32(tails[a])
        count += 1
    return count


@kernel(types.void(SIZE, I1, I1, I1, I1, F2, F1W, I2W, I1W, F2W, S1W, SIZE, SIZE))
def shortest(sink, reference, pointers, arcs, tails, c, labels, path, length, ends, status, start, stop):
    """Shortest paths from the first node of a walk to another, in blocks of eight items.

    Args:
        sink: Its position.
        reference ... tails: A ``graphs.Walk`` that ``proves``.
        c: Costs, (B, n), B at least 8.
        labels: (blocks * nodes * 8 + 8,), from the first aligned place on, which the last number tells; of a
            block, eight numbers a position.
        path, length: (B, nodes) and (B,): the first ``length`` are the arcs of the path, from the sink on.
        ends: (B, 2), the labels of the node where y = 0 and of the sink.
        status: (B,). Declined: a cost is not finite, or huge.
        start, stop: Blocks; the last one may overlap the one before, and finds the same again.
    """
    nodes, first = len(pointers) - 1, aligned(labels)
    labels[len(labels) - 1] = first
    for block in range(start, stop):
        k, base = min(block * WIDTH, len(c) - WIDTH), first + block * nodes * WIDTH
        fine = _eight_labels(c[k], c.shape[1], pointers, arcs, tails, labels, base) <= _HUGE
        for lane in range(WIDTH):
            i = k + lane
            ends[i, 0] = labels[base + lane + reference[0] * WIDTH]
            ends[i, 1] = labels[base + lane + sink * WIDTH]
            if fine or _finite(c[i]):
                length[i] = _trace(c[i], sink, pointers, arcs, tails, labels, base + lane, path[i])
                status[i] = _OPTIMAL
            else:
                length[i], status[i] = 0, _DECLINED
