"""Arcs sorted by their heads and by their tails, for kernels that walk over a graph."""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from .jit import I1, I1W, kernel

__all__ = ["Star", "Walk", "star", "walk"]


class Walk(NamedTuple):
    """Arcs in the order of their heads. Nodes are known by their position in the order of the walk."""

    order: np.ndarray  # (nodes,) int32, the node at each position
    position: np.ndarray  # (nodes,) int32, the position of each node
    reference: np.ndarray  # (nodes,) int32, the position of the last node of a position's component
    pointers: np.ndarray  # (nodes + 1,) int32, arcs into position p are pointers[p] .. pointers[p + 1]
    arcs: np.ndarray  # (n,) int32, their columns
    tails: np.ndarray  # (n,) int32, the positions of their tails


class Star(NamedTuple):
    """Arcs in the order of their tails."""

    pointers: np.ndarray  # (nodes + 1,) int32
    arcs: np.ndarray  # (n,) int32
    heads: np.ndarray  # (n,) int32, positions


def walk(tail: np.ndarray, head: np.ndarray, order: np.ndarray) -> Walk:
    """What ``dag_paths`` walks along; with ``star``, what ``cyclic_paths`` does.

    Args:
        tail, head: Nodes of each arc, (n,) int32.
        order: All nodes, (nodes,): in topological order for ``dag_paths``, in any order (say
            ``arange(nodes)``) for ``cyclic_paths``. Nodes are the m rows, and m, the ground, if there is one.
    """
    order = np.ascontiguousarray(order, dtype=np.int32)
    position = np.empty_like(order)
    position[order] = np.arange(len(order), dtype=np.int32)
    reference = np.empty_like(order)
    _components(np.ascontiguousarray(tail, np.int32), np.ascontiguousarray(head, np.int32), reference)
    pointers, arcs, tails = _sorted(position[head], position[tail], len(order))
    return Walk(order, position, position[reference[order]], pointers, arcs, tails)


def star(tail: np.ndarray, head: np.ndarray, walk: Walk) -> Star:
    """The arcs of ``walk`` in the order of their tails."""
    return Star(*_sorted(walk.position[tail], walk.position[head], len(walk.order)))


def _sorted(by: np.ndarray, other: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pointers = np.zeros(nodes + 1, dtype=np.int32)
    arcs, ends = np.empty_like(by), np.empty_like(by)
    _counting_sort(by, other, pointers, arcs, ends)
    return pointers, arcs, ends


@kernel(types.void(I1, I1, I1W, I1W, I1W))
def _counting_sort(by, other, pointers, arcs, ends):
    for j in range(len(by)):
        pointers[by[j] + 1] += 1
    for p in range(len(pointers) - 1):
        pointers[p + 1] += pointers[p]
    for j in range(len(by)):
        place = pointers[by[j]]
        pointers[by[j]] += 1
        arcs[place] = j
        ends[place] = other[j]
    for p in range(len(pointers) - 1, 0, -1):
        pointers[p] = pointers[p - 1]
    pointers[0] = 0


@kernel()
def _find(parent, p):
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@kernel(types.void(I1, I1, I1W))
def _components(tail, head, reference):
    # The root of a tree is its largest node.
    for p in range(len(reference)):
        reference[p] = p
    for j in range(len(tail)):
        a, b = _find(reference, tail[j]), _find(reference, head[j])
        if a < b:
            reference[a] = b
        else:
            reference[b] = a
    for p in range(len(reference)):
        reference[p] = _find(reference, p)
