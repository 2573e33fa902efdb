"""The kernel of grids, called as the problem calls it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.sparse import csgraph, csr_array

from lpdiff.kernels.grids import _proved, grid_paths

_OPTIMAL, _INFEASIBLE, _INVALID, _INACCURATE = 0, 1, 5, 6


def solve(costs, moves, start, end):
    size, height, width = costs.shape
    value, status = np.empty(size), np.empty(size, dtype=np.int8)
    length, path = np.empty(size, dtype=np.int32), np.full((size, height * width), -7, dtype=np.int32)
    ends = (np.broadcast_to(np.asarray(e), size).astype(np.int64) for e in (start, end))
    flat = np.ascontiguousarray(costs.reshape(size, -1))
    grid_paths(flat, height, width, moves, *ends, 0, size, value, status, length, path)
    return value, status, length, path


def neighbours(height, width, moves):
    """Pairs of cells, (moves, 2)."""
    steps = [(0, 1), (1, 0)] + [(0, -1), (-1, 0)] * (moves > 2)
    steps += [(1, 1), (1, -1), (-1, 1), (-1, -1)] * (moves > 4)
    found = []
    for (i, j), (a, b) in itertools.product(itertools.product(range(height), range(width)), steps):
        if 0 <= i + a < height and 0 <= j + b < width:
            found.append((i * width + j, (i + a) * width + j + b))
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("moves", [2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (4, 5), (9, 7)])
def test_bellman_ford(shape, moves):
    rng = np.random.default_rng(0)
    cells = shape[0] * shape[1]
    for ties in (True, False):
        costs = rng.integers(0, 3, (60, *shape)).astype(float) if ties else rng.random((60, *shape))
        costs[rng.random(costs.shape) < 0.25] = np.inf
        start, end = rng.integers(0, cells, (2, 60))
        value, status, length, path = solve(costs, moves, start, end)
        pairs = neighbours(*shape, moves)
        label = np.full((60, cells), np.inf)
        label[range(60), start] = costs.reshape(60, -1)[range(60), start]
        for _ in range(cells):
            for u, v in pairs:
                np.minimum(label[:, v], label[:, u] + costs.reshape(60, -1)[:, v], out=label[:, v])
        expected = label[range(60), end]
        assert np.allclose(value, expected, rtol=1e-12)
        assert np.array_equal(status, np.where(np.isinf(expected), _INFEASIBLE, _OPTIMAL))
        steps = {tuple(pair) for pair in pairs.tolist()}
        for k in range(60):
            walked = path[k, : length[k]].tolist()
            if np.isinf(expected[k]):
                assert walked == []
                continue
            assert walked[0] == start[k] and walked[-1] == end[k] and len(set(walked)) == len(walked)
            assert set(itertools.pairwise(walked)) <= steps
            assert costs[k].ravel()[walked].sum() == pytest.approx(value[k])


def test_scipy_on_larger_grids():
    rng = np.random.default_rng(1)
    costs = rng.random((4, 40, 50)) + 0.01
    for moves in (4, 8):
        value, status, *_ = solve(costs, moves, 0, 1999)
        pairs = neighbours(40, 50, moves)
        for k in range(4):
            graph = csr_array((costs[k].ravel()[pairs[:, 1]], pairs.T), shape=(2000, 2000))
            known = csgraph.dijkstra(graph, indices=0)[1999] + costs[k, 0, 0]
            assert value[k] == pytest.approx(known, rel=1e-12) and status[k] == _OPTIMAL


def test_what_is_refused():
    costs = np.ones((6, 3, 3))
    costs[1, 2, 0], costs[2, 1, 1], costs[3, 0, 2], costs[4, 2, 2] = -1.0, np.nan, 1e300, -np.inf
    costs[5, 0, 0] = np.inf
    value, status, length, _ = solve(costs, 8, 0, 8)
    assert status.tolist() == [_OPTIMAL, _INACCURATE, _INVALID, _INACCURATE, _INVALID, _INFEASIBLE]
    assert value[0] == 3.0 and np.isnan(value[1:5]).all() and length[1:].tolist() == [0] * 5
    value, status, length, _ = solve(costs, 2, 0, 8)
    assert status.tolist() == [_OPTIMAL, _OPTIMAL, _INVALID, _INACCURATE, _INVALID, _INFEASIBLE]
    assert value[:2].tolist() == [5.0, 3.0]


def test_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    costs, order = rng.random((20, 6, 6)), rng.permutation(20)
    for given, found in zip(solve(costs, 8, 0, 35), solve(costs[order], 8, 0, 35), strict=True):
        assert np.array_equal(given[order], found)


def test_the_proof_takes_nothing_but_shortest_paths():
    """Labels that another path undercuts, or a last step from another cell, are not proved."""
    prove = _proved.py_func
    height, width, stride = 3, 4, 6
    cost, dist = np.full(5 * stride, np.inf), np.full(5 * stride, np.inf)
    came = np.full(5 * stride, -1, dtype=np.int32)
    inside = [i * stride + j for i in range(1, 4) for j in range(1, 5)]
    cost[inside] = 1.0
    steps = np.array([1, stride, -1, -stride])
    for i, j in itertools.product(range(3), range(4)):
        p = (i + 1) * stride + j + 1
        dist[p], came[p] = 1.0 + i + j, (p - 1 if j else p - stride) if i + j else -1
    end = 3 * stride + 4
    assert prove(cost, steps, end, height, width, dist, came)
    assert prove(cost, steps, 1 * stride + 1, height, width, dist, came)  # the start itself
    beside = inside[7]  # the end's other neighbour: as far as the one before the end, or farther
    for p in inside[1:-1]:
        wrong = dist.copy()
        wrong[p] += 0.5
        assert prove(cost, steps, end, height, width, wrong, came) == (p == beside)
    nearer = dist.copy()
    nearer[end - stride] -= 0.5
    assert not prove(cost, steps, end, height, width, nearer, came)
