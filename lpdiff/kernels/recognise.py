"""Kernels of recognition: connected components, the scales of a network, equal components, orders of nodes.

Once a program, O(nnz) each. A matrix is given by its columns: ``indptr`` (n + 1,), ``indices`` (nnz,), rows
ascending within a column, and ``values`` (nnz,), none of them zero.
"""

from __future__ import annotations

import numpy as np
from numba import types

from .jit import B1, B1W, F1, F1W, I1, I1W, S1W, SIZE, kernel

__all__ = [
    "CONSISTENT",
    "FAR",
    "SIGN",
    "WEIGHT",
    "arcs",
    "equal",
    "order",
    "scales",
    "signatures",
    "transpose",
]
__all__ += ["unite"]

SMALL = 40_000  # numbers that Python goes through in about 20 ms

TOLERANCE = 1e-12  # of two scaled entries of a column
ROW_SPREAD, COLUMN_SPREAD = 1e15, 1e30  # scales further from 1 leave float64 no digits to work with

# What is wrong with a component that is not a network.
CONSISTENT, SIGN, WEIGHT, FAR = 0, 1, 2, 3

L1 = types.Array(types.int64, 1, "C", readonly=True)
U1W = types.uint64[::1]


@kernel(types.void(I1, I1, I1W), small=SMALL)
def unite(indptr: np.ndarray, indices: np.ndarray, parent: np.ndarray) -> None:
    """Union-find over the rows; parent (m,) starts as 0..m-1 and ends as the lowest row of the component."""
    for j in range(len(indptr) - 1):
        for k in range(indptr[j] + 1, indptr[j + 1]):
            a, b = indices[k - 1], indices[k]
            while parent[a] != a:
                parent[a] = parent[parent[a]]
                a = parent[a]
            while parent[b] != b:
                parent[b] = parent[parent[b]]
                b = parent[b]
            # The smaller root stays a root, so the last loop below meets finished parents only.
            parent[max(a, b)] = min(a, b)
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]


@kernel(types.void(I1, I1, I1W, I1W), small=SMALL)
def transpose(indptr: np.ndarray, indices: np.ndarray, start: np.ndarray, columns: np.ndarray) -> None:
    """The columns of each row, ascending: row i has columns[start[i]:start[i + 1]]; start: (m + 1,) zeros."""
    for row in indices:
        start[row + 1] += 1
    for i in range(1, len(start)):
        start[i] += start[i - 1]
    for j in range(len(indptr) - 1):
        for k in range(indptr[j], indptr[j + 1]):
            columns[start[indices[k]]] = j
            start[indices[k]] += 1
    for i in range(len(start) - 1, 0, -1):  # every start has moved on to the next one's
        start[i] = start[i - 1]
    start[0] = 0


@kernel(types.void(I1, I1, F1, B1, I1, I1, F1W, I1W), small=SMALL)
def scales(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    candidate: np.ndarray,  # (m,) rows whose columns have at most two entries
    start: np.ndarray,
    columns: np.ndarray,  # from `transpose`
    scale: np.ndarray,  # (m,) zeros; out
    queue: np.ndarray,  # (m,) work
) -> None:
    """Signed row scales with s_i a_ij = -s_k a_kj on a breadth-first spanning tree of each component.

    Breadth first, because roundings add up along the tree; the lowest row of a component has scale 1.
    Scales beyond reason become NaN, and so does what hangs on them.
    """
    for root in range(len(scale)):
        if not candidate[root] or scale[root] != 0.0:
            continue
        scale[root] = 1.0
        queue[0] = root
        first, last = 0, 1
        while first < last:
            i = queue[first]
            first += 1
            for position in range(start[i], start[i + 1]):
                k = indptr[columns[position]]
                if indptr[columns[position] + 1] - k != 2:
                    continue
                here, there = (k, k + 1) if indices[k] == i else (k + 1, k)
                other = indices[there]
                if scale[other] == 0.0:
                    s = -(scale[i] * values[here]) / values[there]
                    scale[other] = s if 1.0 / ROW_SPREAD <= abs(s) <= ROW_SPREAD else np.nan
                    queue[last] = other
                    last += 1


@kernel(types.void(I1, I1, F1, I1, F1, I1W, I1W, F1W, I1W, S1W), small=SMALL)
def arcs(
    indptr: np.ndarray,
    indices: np.ndarray,
    values: np.ndarray,
    label: np.ndarray,  # (m,) component of a row
    scale: np.ndarray,  # (m,) from `scales`; 0: not a candidate
    tail: np.ndarray,  # (n,) out
    head: np.ndarray,  # (n,) out
    alpha: np.ndarray,  # (n,) out, or (0,) where every entry is +-1
    column: np.ndarray,  # (C,) -1; out: the first column at fault
    fault: np.ndarray,  # (C,) zeros; out
) -> None:
    """Each column as an arc, alpha_j (+1 at the tail, -1 at the head), where the scales agree with it."""
    ground = len(label)
    for j in range(len(indptr) - 1):
        k, count = indptr[j], indptr[j + 1] - indptr[j]
        if count == 0 or scale[indices[k]] == 0.0:
            continue
        first = scale[indices[k]] * values[k]
        second = -first if count == 1 else scale[indices[k + 1]] * values[k + 1]
        other = ground if count == 1 else indices[k + 1]
        tail[j], head[j] = (indices[k], other) if first > 0.0 else (other, indices[k])
        size = first if first > 0.0 else second
        if len(alpha):
            alpha[j] = size
        what = CONSISTENT
        if not (1.0 / COLUMN_SPREAD <= abs(first) <= COLUMN_SPREAD) or np.isnan(second):
            what = FAR
        elif (first > 0.0) == (second > 0.0):
            what = SIGN
        elif not abs(first + second) <= TOLERANCE * abs(first):
            what = WEIGHT
        c = label[indices[k]]
        if what != CONSISTENT and fault[c] == CONSISTENT:
            fault[c], column[c] = what, j


@kernel(types.void(I1, I1, I1, I1, L1, I1, B1, B1, U1W), small=SMALL)
def signatures(
    indptr: np.ndarray,
    indices: np.ndarray,
    columns: np.ndarray,  # columns of component c: columns[start[c]:start[c + 1]]
    start: np.ndarray,
    bits: np.ndarray,  # (nnz,) the values' bits
    place: np.ndarray,  # (m,) of a row in its component
    integer: np.ndarray,  # (n,)
    pattern: np.ndarray,  # (C,) whether the values do not matter
    out: np.ndarray,  # (C,) hashes
) -> None:
    """A hash of each component: equal components have equal ones (`equal` tells about the others)."""
    prime, shift = np.uint64(0x9E3779B97F4A7C15), np.uint64(29)
    for c in range(len(out)):
        hashed = np.uint64(len(out))
        for position in range(start[c], start[c + 1]):
            j = columns[position]
            hashed = (hashed ^ np.uint64(2 + integer[j])) * prime
            for k in range(indptr[j], indptr[j + 1]):
                hashed = (hashed ^ np.uint64(place[indices[k]])) * prime
                hashed ^= hashed >> shift
                if not pattern[c]:
                    hashed = (hashed ^ np.uint64(bits[k])) * prime
                    hashed ^= hashed >> shift
        out[c] = hashed


@kernel(types.void(I1, I1, I1, I1, L1, I1, B1, B1, I1, B1W), small=SMALL)
def equal(
    indptr: np.ndarray,
    indices: np.ndarray,
    columns: np.ndarray,
    start: np.ndarray,
    bits: np.ndarray,
    place: np.ndarray,
    integer: np.ndarray,
    pattern: np.ndarray,
    model: np.ndarray,  # (C,) a component with as many columns
    out: np.ndarray,  # (C,)
) -> None:
    """Whether each component is, entry by entry, its model."""
    for c in range(len(out)):
        same, offset = True, start[model[c]] - start[c]
        for position in range(start[c], start[c + 1]):
            j, i = columns[position], columns[position + offset]
            step = indptr[i] - indptr[j]
            same = integer[i] == integer[j] and indptr[i + 1] - indptr[j + 1] == step
            k = indptr[j]
            while same and k < indptr[j + 1]:
                same = place[indices[k]] == place[indices[k + step]]
                same = same and (pattern[c] or bits[k] == bits[k + step])
                k += 1
            if not same:
                break
        out[c] = same


@kernel(SIZE(I1, I1, I1, I1, I1W), small=SMALL)
def order(tail: np.ndarray, head: np.ndarray, start: np.ndarray, leaving: np.ndarray, out: np.ndarray) -> int:
    """Kahn's topological order of the nodes into out (N,): -1, or a node on a cycle where there is one.

    The arcs that leave node v: leaving[start[v]:start[v + 1]].
    """
    size = len(out)
    degree = np.empty(size, np.int32)
    for v in range(size):
        degree[v] = 0
    for v in head:
        degree[v] += 1
    last = 0
    for v in range(size):
        if degree[v] == 0:
            out[last] = v
            last += 1
    first = 0
    while first < last:
        v = out[first]
        first += 1
        for position in range(start[v], start[v + 1]):
            w = head[leaving[position]]
            degree[w] -= 1
            if degree[w] == 0:
                out[last] = w
                last += 1
    if last == size:
        return -1
    # Every node that is left has an arc from a node that is left: going back long enough ends on a cycle.
    for j in range(len(tail)):
        if degree[tail[j]] > 0:
            out[head[j]] = tail[j]
    node = 0
    while degree[node] == 0:
        node += 1
    for _ in range(size):
        node = out[node]
    return int(node)
