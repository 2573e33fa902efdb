"""Minimum spanning trees and forests (Boruvka 1926), for a batch of costs on one graph.

In each round every tree takes the cheapest edge that leaves it (of equals, the one with the smallest number),
and trees that are joined become one. Rounds halve the number of trees at least; each is one pass over the
edges that still join two trees, and nothing is sorted.

An edge that is the cheapest to leave some set of nodes is in a minimum spanning tree (the cut property): so
the tree is proved by the comparisons that make it, without rounding. Its dual in Edmonds' LP: let S run over
the sets that are joined when the tree's edges are added from the cheapest on, w(S) be the cost of the edge
that joins S; then y_S = w(S) - w(parent of S) <= 0, and y = w for a whole component. The objective, the sum
of (|S| - 1) y_S, telescopes to the sum of all w(S).
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1W, F2, I1, I1W, I2W, S1W, SIZE, inner, kernel

__all__ = ["spanning_forests"]

_OPTIMAL, _INFEASIBLE, _INVALID = 0, 1, 5


@inner
def _root(group, v):
    while group[v] != v:
        group[v] = group[group[v]]
        v = group[v]
    return v


@inner
def _open_edges(c, tail, head, number, a, b, w):
    """List the edges that are there, by ascending number; -1: a cost is none."""
    size = 0
    for e in range(len(c)):
        if not c[e] > -np.inf:
            return -1
        if c[e] < np.inf:
            number[size], a[size], b[size], w[size] = e, tail[e], head[e], c[e]
            size += 1
    return size


@inner
def _cheapest(size, group, number, a, b, w, best, pick):
    """Keep the edges between trees, by their roots, and find the cheapest that leave each; how many."""
    kept = 0
    for k in range(size):
        p, q = group[a[k]], group[b[k]]
        if p == q:
            continue
        cost = w[k]
        number[kept], a[kept], b[kept], w[kept] = number[k], p, q, cost
        if cost < best[p]:
            best[p], pick[p] = cost, kept
        if cost < best[q]:
            best[q], pick[q] = cost, kept
        kept += 1
    return kept


# tail, head, nodes, whole, costs, start, stop; value, status, count, apart, tree
@kernel(types.void(I1, I1, SIZE, types.boolean, F2, SIZE, SIZE, F1W, S1W, I1W, I1W, I2W))
def spanning_forests(tail, head, nodes, whole, costs, start, stop, value, status, count, apart, tree):
    """Cheapest forests with as many edges as possible, of the items start..stop.

    Args:
        tail, head: Ends of the edges, (E,), in 0 .. nodes-1.
        whole: Whether a forest of several trees is infeasible.
        costs: (B, E); +inf: the edge is not there.
        value: Written, (B,): NaN where a cost is NaN or -inf, +inf where infeasible.
        status: Written, (B,).
        count: Written, (B,), edges of the forest.
        apart: Written, (B,), the first node that no path joins to node 0, or -1.
        tree: Written, (B, max(nodes - 1, 0)), its edges by ascending number; the first ``count`` of them.
    """
    edges = len(tail)
    number, a, b = np.empty(edges, np.int32), np.empty(edges, np.int32), np.empty(edges, np.int32)
    w, taken = np.empty(edges), np.zeros(edges, np.bool_)
    group, pick, best = np.empty(nodes, np.int32), np.empty(nodes, np.int32), np.empty(nodes)
    for i in range(start, stop):
        c = costs[i]
        value[i], status[i], count[i], apart[i] = 0.0, _OPTIMAL, 0, -1
        size = _open_edges(c, tail, head, number, a, b, w)
        if size < 0:
            value[i], status[i] = np.nan, _INVALID
            continue
        for v in range(nodes):
            group[v] = v
        found = 0
        while size > 0:
            for v in range(nodes):
                best[v], pick[v] = np.inf, -1
            size = _cheapest(size, group, number, a, b, w, best, pick)
            for v in range(nodes):
                k = pick[v]
                if k >= 0:
                    p, q = _root(group, a[k]), _root(group, b[k])
                    if p != q:  # or both trees took the same edge
                        group[max(p, q)] = min(p, q)
                        taken[number[k]] = True
                        found += 1
            for v in range(nodes):
                group[v] = _root(group, v)
        total, place = 0.0, 0
        if found > 0:
            for e in range(edges):
                if taken[e]:
                    taken[e] = False
                    tree[i, place] = e
                    total += c[e]
                    place += 1
        value[i], count[i] = total, found
        if found < nodes - 1:
            for v in range(nodes - 1, 0, -1):
                if group[v] != group[0]:
                    apart[i] = v
            if whole:
                value[i], status[i] = np.inf, _INFEASIBLE
