"""The kernel of spanning trees: against Kruskal, SciPy and Edmonds' dual."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.sparse import csgraph, csr_array

from lpdiff.kernels.forest import spanning_forests

_OPTIMAL, _INFEASIBLE, _INVALID = 0, 1, 5


def solve(edges, nodes, costs, whole=True):
    edges, size = np.asarray(edges, dtype=np.int32).reshape(-1, 2), len(costs)
    value, status = np.empty(size), np.empty(size, dtype=np.int8)
    count, apart = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
    tree = np.full((size, max(nodes - 1, 0)), -7, dtype=np.int32)
    tail, head = np.ascontiguousarray(edges[:, 0]), np.ascontiguousarray(edges[:, 1])
    found = (value, status, count, apart, tree)
    spanning_forests(tail, head, nodes, whole, np.ascontiguousarray(costs, dtype=float), 0, size, *found)
    return found


def kruskal(edges, nodes, costs):
    """The edges taken from the cheapest on, ties by number; the sets they join: (members, cost, parent)."""
    group, sets, taken, top = list(range(nodes)), [], [], [None] * nodes
    members = [{v} for v in range(nodes)]
    for e in sorted(range(len(edges)), key=lambda e: (costs[e], e)):
        a, b = (group[v] for v in edges[e])
        if a == b or np.isinf(costs[e]):
            continue
        taken.append(e)
        joined = members[a] | members[b]
        for part in (a, b):
            if top[part] is not None:
                sets[top[part]][2] = len(sets)
        sets.append([joined, costs[e], None])
        for v in joined:
            group[v] = a
        members[a], top[a] = joined, len(sets) - 1
    return sorted(taken), sets


@pytest.mark.parametrize("ties", [False, True])
def test_edmonds_dual_proves_the_tree(ties):
    rng = np.random.default_rng(3)
    nodes = 9
    edges = rng.integers(0, nodes, (22, 2))  # loops and parallel edges among them
    costs = rng.integers(-2, 3, (120, 22)).astype(float) if ties else rng.normal(size=(120, 22))
    costs[rng.random(costs.shape) < 0.1] = np.inf
    value, status, count, _, tree = solve(edges, nodes, costs, whole=False)
    assert (status == _OPTIMAL).all() and (count < nodes - 1).any() and (count == nodes - 1).any()
    for k in range(len(costs)):
        taken, sets = kruskal(edges, nodes, costs[k])
        assert tree[k, : count[k]].tolist() == taken
        assert value[k] == pytest.approx(costs[k, taken].sum())
        # y_S = w(S) - w(parent) <= 0, but for whole components; x(E(S)) <= |S| - 1.
        y = np.array([w - (0.0 if up is None else sets[up][1]) for _, w, up in sets])
        assert all(up is None or y[s] <= 0 for s, (_, _, up) in enumerate(sets))
        assert sum(y[s] * (len(members) - 1) for s, (members, _, _) in enumerate(sets)) == pytest.approx(
            value[k]
        )
        for e in np.flatnonzero(np.isfinite(costs[k]) & (edges[:, 0] != edges[:, 1])):
            around = sum(y[s] for s, (members, _, _) in enumerate(sets) if set(edges[e]) <= members)
            assert costs[k, e] - around >= -1e-12


def test_scipy_on_larger_graphs():
    rng = np.random.default_rng(4)
    nodes = 200
    edges = np.array(list(itertools.combinations(range(nodes), 2)))
    edges = edges[rng.permutation(len(edges))[:2000]]
    costs = rng.random((6, 2000)) + 0.1
    value, _, count, _, tree = solve(edges, nodes, costs, whole=False)
    for k in range(6):
        mst = csgraph.minimum_spanning_tree(csr_array((costs[k], edges.T), shape=(nodes, nodes)))
        assert value[k] == pytest.approx(mst.sum()) and count[k] == mst.nnz
        assert {tuple(sorted(edges[e])) for e in tree[k, : count[k]]} == {
            tuple(sorted(pair)) for pair in zip(*(part.tolist() for part in mst.nonzero()), strict=True)
        }


def test_what_falls_apart_and_what_is_no_cost():
    edges = [[0, 1], [1, 2], [3, 4]]
    costs = np.array([[1.0, 2, 3], [1, np.inf, 3], [1, 2, np.nan], [-np.inf, 2, 3]])
    value, status, count, apart, _ = solve(edges, 5, costs)
    assert status.tolist() == [_INFEASIBLE, _INFEASIBLE, _INVALID, _INVALID]
    assert apart[:2].tolist() == [3, 2] and value[:2].tolist() == [np.inf] * 2 and np.isnan(value[2:]).all()
    value, status, count, apart, tree = solve(edges, 5, costs[:2], whole=False)
    assert status.tolist() == [0, 0] and value.tolist() == [6.0, 4.0] and count.tolist() == [3, 2]
    assert tree[1, :2].tolist() == [0, 2]


def test_small_sizes():
    for nodes in (0, 1):
        value, status, count, apart, tree = solve([], nodes, np.zeros((3, 0)))
        assert (value == 0).all() and (status == 0).all() and (count == 0).all() and (apart == -1).all()
        assert tree.shape == (3, 0)
    value, status, *_ = solve([[0, 0]], 1, np.full((1, 1), -5.0))
    assert value[0] == 0.0 and status[0] == _OPTIMAL  # a loop is in no tree
    assert solve([[0, 1]], 2, np.zeros((0, 1)))[0].shape == (0,)


def test_same_bits_in_any_batch():
    rng = np.random.default_rng(5)
    edges, costs = rng.integers(0, 30, (150, 2)), rng.normal(size=(12, 150))
    whole, order = solve(edges, 30, costs, whole=False), rng.permutation(12)
    for given, found in zip(whole, solve(edges, 30, costs[order], whole=False), strict=True):
        assert np.array_equal(given[order], found)
