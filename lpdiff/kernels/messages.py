"""Min-sum on a forest: the labels of least energy, by dynamic programming from the leaves to the roots.

    E(l) = sum_v unary[v, l_v] + sum_e pairwise[e, l_u, l_v],    e = (u, v)

Towards its parent each node tells, for each label there, the least energy of its subtree (Bertele and
Brioschi 1972; Pearl 1988). These messages are dual variables of the local polytope, and the energy at the
roots is their bound: the labels traced back must have that energy, which is the certificate.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import B2, F1W, F2, I1, I2W, S1W, SIZE, kernel

__all__ = ["min_sum"]

_OPTIMAL, _INFEASIBLE, _INVALID, _REFUSED = 0, 1, 5, 6
_TOLERANCE = 1e-9


@kernel(types.void(F2, F2, B2, I1, I1, I1, I1, SIZE, SIZE, SIZE, I2W, F1W, S1W))
def min_sum(
    unary,  # (B, V * S)
    pairwise,  # (B, E * S * S)
    present,  # (B, V) bool: the others are left out, with their edges
    order,  # (V,) int32, parents before children
    parent,  # (V,) int32 by node, -1 at roots
    edge,  # (V,) int32 by node, the edge to the parent
    first,  # (V,) int32 by node, 1 where the node is the first of that edge's ends
    S,  # labels
    start,
    stop,
    labels,  # (B, V) int32, -1 where not present
    value,  # (B,)
    status,  # (B,) int8
):
    V = len(order)
    belief, back = np.empty(V * S), np.empty(V * S, np.int32)
    for k in range(start, stop):
        valid, total, size = True, 0.0, 0.0
        for i in range(V * S):
            belief[i] = unary[k, i]
        for place in range(V - 1, -1, -1):
            v = order[place]
            labels[k, v] = -1
            if not present[k, v]:
                continue
            for s in range(S):
                valid &= unary[k, v * S + s] > -np.inf  # neither -inf nor NaN
            u = parent[v]
            if u < 0 or not present[k, u]:
                continue
            base, down, up = edge[v] * S * S, (S if first[v] else 1), (1 if first[v] else S)
            for p in range(S):
                best, where = np.inf, 0
                for s in range(S):
                    cost = pairwise[k, base + s * down + p * up]
                    valid &= cost > -np.inf
                    cost += belief[v * S + s]
                    if cost < best:
                        best, where = cost, s
                belief[u * S + p] += best
                back[v * S + p] = where
        energy = 0.0
        for place in range(V):
            v = order[place]
            if not present[k, v]:
                continue
            u = parent[v]
            if u < 0 or not present[k, u]:
                chosen = 0
                for s in range(1, S):
                    if belief[v * S + s] < belief[v * S + chosen]:
                        chosen = s
                total += belief[v * S + chosen]
            else:
                chosen = back[v * S + labels[k, u]]
                down, up = (S if first[v] else 1), (1 if first[v] else S)
                cost = pairwise[k, edge[v] * S * S + chosen * down + labels[k, u] * up]
                energy += cost
                size += abs(cost)
            labels[k, v] = chosen
            energy += unary[k, v * S + chosen]
            size += abs(unary[k, v * S + chosen])
        value[k] = energy
        if not valid:
            status[k] = _INVALID
        elif energy == np.inf or total == np.inf:
            status[k] = _INFEASIBLE
        elif abs(energy - total) <= _TOLERANCE * (1.0 + size):
            status[k] = _OPTIMAL
        else:
            status[k] = _REFUSED
