"""The network simplex and the spanning trees against HiGHS, SciPy, duality and linear algebra."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from types import SimpleNamespace

import highspy
import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components, dijkstra

from lpdiff.kernels.simplex import network_simplex
from lpdiff.kernels.tree import spanning_tree
from lpdiff.network import Network

inf = np.inf
OPTIMAL, INFEASIBLE, UNBOUNDED, DECLINED = 0, 1, 2, 7


@dataclass
class Flow:
    """A min-cost flow LP; the arrays of data are (k,) or, for a batch, (1|B, k)."""

    tail: np.ndarray
    head: np.ndarray
    cost: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    row_lower: np.ndarray
    row_upper: np.ndarray

    @property
    def data(self):
        return self.cost, self.lower, self.upper, self.row_lower, self.row_upper

    @property
    def matrix(self):
        m, n = self.row_lower.shape[-1], len(self.tail)
        out, into = self.tail < m, self.head < m
        a = np.zeros((m, n))
        np.add.at(a, (self.tail[out], np.arange(n)[out]), 1.0)
        np.add.at(a, (self.head[into], np.arange(n)[into]), -1.0)
        return a


def frozen(flow):
    arrays = [np.ascontiguousarray(np.atleast_2d(a), dtype=float) for a in flow.data]
    for a in arrays:  # Kernels take what is read-only.
        a.flags.writeable = False
    return flow.tail.astype(np.int32), flow.head.astype(np.int32), arrays


def graph_of(flow):
    m, n = flow.row_lower.shape[-1], len(flow.tail)
    network = Network(flow.tail.astype(np.int32), flow.head.astype(np.int32), np.ones(m), np.ones(n))
    return network.ends, network.last


def run(flow, spans=None):
    graph, (_, _, data) = graph_of(flow), frozen(flow)
    batch, n, m = max(len(a) for a in data), len(flow.tail), data[3].shape[1]
    x, y, ray = np.full((batch, n), np.nan), np.full((batch, m), np.nan), np.full((batch, m), np.nan)
    basic, status = np.ones((batch, n + m), dtype=bool), np.full(batch, 9, dtype=np.int8)
    steps = np.full(batch, -1, dtype=np.int32)
    for start, stop in spans or [(0, batch)]:
        network_simplex(*graph, *data, start, stop, x, y, ray, basic, status, steps)
    return SimpleNamespace(x=x, y=y, ray=ray, basic=basic, status=status, iterations=steps)


def tree(flow, x, y):
    tail, head, data = frozen(flow)
    basic, found = np.ones((len(x), len(tail) + data[3].shape[1]), dtype=bool), np.zeros(len(x), dtype=bool)
    spanning_tree(tail, head, *data, x, y, 0, len(x), basic, found)
    return basic, found


def highs(flow, cost=None):
    """Status and value by HiGHS; an infeasible LP is infeasible, however unbounded its costs."""
    a, kind = flow.matrix, highspy.HighsModelStatus
    if a.shape[1] == 0:
        fits = np.all(flow.row_lower <= 0) and np.all(flow.row_upper >= 0)
        return (OPTIMAL, 0.0) if fits else (INFEASIBLE, None)
    lp, columns = highspy.HighsLp(), sp.csc_matrix(a)
    lp.num_row_, lp.num_col_ = a.shape
    lp.col_cost_ = flow.cost if cost is None else cost
    lp.col_lower_, lp.col_upper_, lp.row_lower_, lp.row_upper_ = flow.data[1:]
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = columns.indptr, columns.indices
    lp.a_matrix_.value_ = columns.data
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("presolve", "off")
    for option in ("primal_feasibility_tolerance", "dual_feasibility_tolerance"):
        solver.setOptionValue(option, 1e-10)
    solver.passModel(lp)
    solver.run()
    status = solver.getModelStatus()
    if status in (kind.kOptimal, kind.kModelEmpty):
        return OPTIMAL, solver.getInfo().objective_function_value
    if status == kind.kInfeasible:
        return INFEASIBLE, None
    if cost is not None:
        return DECLINED, None
    return {OPTIMAL: UNBOUNDED}.get(status := highs(flow, np.zeros(a.shape[1]))[0], status), None


def dual_value(flow, y, d):
    """D(y); -inf where a sign of y or d meets an infinite bound."""
    total = 0.0
    for sign, least, most in ((y, flow.row_lower, flow.row_upper), (d, flow.lower, flow.upper)):
        total += np.sum(least[sign > 0] * sign[sign > 0]) + np.sum(most[sign < 0] * sign[sign < 0])
    return total


def redundant(flow):
    """Components whose rows are all equalities and that have no tie to the ground: their last rows."""
    m = len(flow.row_lower)
    inner = (flow.tail < m) & (flow.head < m)
    graph = sp.coo_matrix((np.ones(inner.sum()), (flow.tail[inner], flow.head[inner])), shape=(m, m))
    count, label = connected_components(graph, directed=False) if m else (0, np.zeros(0))
    tied = np.minimum(flow.tail, flow.head)[~inner & (flow.tail != flow.head)]
    for k in range(count):
        rows = np.flatnonzero(label == k)
        if np.all(flow.row_lower[rows] == flow.row_upper[rows]) and not np.isin(tied, rows).any():
            yield rows[-1]


def check_basis(flow, x, y, basic, size):
    """`basic` is a basis, it belongs to (x, y), and the last rows of redundant components have y = 0."""
    a = flow.matrix
    m = len(a)
    assert basic.sum() == m
    if m:
        basis = np.hstack([a, -np.eye(m)])[:, basic]
        assert abs(np.linalg.det(basis)) == pytest.approx(1.0, abs=1e-6)
        again = np.linalg.solve(basis.T, np.append(flow.cost, np.zeros(m))[basic])
        np.testing.assert_allclose(again, y, rtol=0, atol=1e-10 * size)
    value = np.append(x, a @ x)
    low, high = np.append(flow.lower, flow.row_lower), np.append(flow.upper, flow.row_upper)
    off = np.minimum(np.abs(value - low), np.abs(value - high))
    free = (low == -inf) & (high == inf) & (value == 0)
    assert np.all(basic | free | (off <= 1e-10 * (1 + np.abs(x).max(initial=0))))
    for row in redundant(flow):
        assert y[row] == 0.0 and basic[len(x) + row]


def check(flow, x, y, ray, basic, status):
    """One item against HiGHS. Returns its status."""
    flow = replace(flow, upper=np.where(flow.upper >= 1e20, inf, flow.upper))
    a = flow.matrix
    expected, value = highs(flow)
    if expected == DECLINED or status != expected:
        # HiGHS gives up on costs spread over twelve decades; anything but a proof is a failure.
        assert expected == DECLINED, (status, expected)
        return DECLINED
    if status == INFEASIBLE:
        proof = dual_value(flow, ray, -a.T @ ray)
        assert 1e-9 < proof < inf
        assert set(np.abs(ray)) <= {0.0, 1.0}
    if status == OPTIMAL:
        size = 1 + np.abs(flow.cost).max(initial=0) * (1 + len(a))
        room = 1e-12 * (1 + np.abs(x).max(initial=0)) * (1 + len(x))
        d, activity = flow.cost - a.T @ y, a @ x
        assert np.all(x >= flow.lower) and np.all(x <= flow.upper)
        assert np.all(activity >= flow.row_lower - room) and np.all(activity <= flow.row_upper + room)
        d[np.abs(d) <= 1e-13 * size] = 0.0
        sharp = np.where(np.abs(y) <= 1e-13 * size, 0.0, y)
        z = flow.cost @ x
        slack = 1e-11 * size * (1 + np.abs(x).max(initial=0))
        assert dual_value(flow, sharp, d) == pytest.approx(z, rel=1e-9, abs=slack)
        assert z == pytest.approx(value, rel=1e-7, abs=1e-7)
        check_basis(flow, x, y, basic, size)
        whole = [np.all(v[np.abs(v) < 1e20] == np.round(v[np.abs(v) < 1e20])) for v in flow.data]
        assert not all(whole[1:]) or np.all(x == np.round(x))
        assert not whole[0] or np.all(y == np.round(y))
    return status


def check_all(flow, result):
    """Every item of a batch; the number of each status."""
    seen = dict.fromkeys((OPTIMAL, INFEASIBLE, UNBOUNDED, DECLINED), 0)
    for i in range(len(result.status)):
        one = Flow(flow.tail, flow.head, *(a if a.ndim == 1 else a[min(i, len(a) - 1)] for a in flow.data))
        item = (result.x[i], result.y[i], result.ray[i], result.basic[i], result.status[i])
        seen[check(one, *item)] += 1
    return seen


def draw_cost(rng, n):
    kind = rng.integers(5)
    if kind == 0:  # ties
        return rng.integers(-3, 6, n).astype(float)
    if kind == 1:
        return rng.normal(size=n)
    if kind == 2:
        return np.full(n, float(rng.integers(-1, 2)))
    if kind == 3:
        return rng.random(n)
    return 10.0 ** rng.uniform(-6, 6, n) * rng.choice([1, 1, 1, -1], n)


def draw(rng, rows=9, arcs=25):
    """Anything: parallel arcs, loops, arcs to the ground, free, fixed and one-sided ones, ranged rows."""
    m, n = int(rng.integers(rows)), int(rng.integers(arcs))
    top = m + 1 if m == 0 or rng.random() < 0.5 else m
    tail, head = rng.integers(0, top, n), rng.integers(0, top, n)
    whole = rng.random() < 0.6

    def number(k):
        return rng.integers(-4, 5, k).astype(float) if whole else 3 * rng.normal(size=k)

    lower = np.where(rng.random(n) < 0.8, 0.0, number(n))
    lower[rng.random(n) < rng.choice([0, 0.1])] = -inf
    upper = np.where(np.isfinite(lower), lower, 0) + np.abs(number(n))
    upper[rng.random(n) < rng.choice([0, 0.3, 0.9])] = inf
    upper[rng.random(n) < 0.05] = 1e21
    least = np.where(np.isfinite(lower), lower, np.minimum(upper, 0) - 3)
    most = np.where(upper < 1e20, upper, least + 5)
    flow = Flow(tail, head, draw_cost(rng, n), lower, upper, np.zeros(m), np.zeros(m))
    share = rng.integers(2, size=n) if whole else rng.random(n)
    b = flow.matrix @ (least + (most - least) * share) if rng.random() < 0.8 else number(m)
    wide = rng.choice([0, 0.3, 0.8])
    row_lower = b - np.where(rng.random(m) < wide / 2, np.abs(number(m)), 0)
    row_upper = b + np.where(rng.random(m) < wide / 2, np.abs(number(m)), 0)
    row_lower[rng.random(m) < 0.3 * wide] = -inf
    row_upper[rng.random(m) < 0.3 * wide] = inf
    return replace(flow, row_lower=row_lower, row_upper=row_upper)


def transport(rng, batch, n, k, whole=False):
    tail, head = np.divmod(np.arange(n * k), k)
    cost = rng.random((batch, n * k))
    if whole:
        supply, demand = rng.multinomial(5 * n, np.full(n, 1 / n)), rng.multinomial(5 * n, np.full(k, 1 / k))
    else:
        supply, demand = rng.random((batch, n)) + 0.05, rng.random((batch, k)) + 0.05
        supply, demand = (v / v.sum(1, keepdims=True) for v in (supply, demand))
    b = np.concatenate([supply, -demand], axis=-1).astype(float)
    return Flow(tail, n + head, cost, np.zeros(n * k), np.full(n * k, inf), b, b)


def grid(k):
    node = np.arange(k * k).reshape(k, k)
    ends = [(node[:, :-1], node[:, 1:]), (node[:-1], node[1:])]
    tail = np.concatenate([v.ravel() for a, b in ends for v in (a, b)])
    head = np.concatenate([v.ravel() for a, b in ends for v in (b, a)])
    return tail, head


@pytest.mark.parametrize("seed", range(4))
def test_random_flows(seed):
    rng = np.random.default_rng(seed)
    seen = dict.fromkeys((OPTIMAL, INFEASIBLE, UNBOUNDED, DECLINED), 0)
    for _ in range(900):
        flow = draw(rng)
        for status, count in check_all(flow, run(flow)).items():
            seen[status] += count
    assert seen[OPTIMAL] > 400 and seen[UNBOUNDED] > 100 and seen[INFEASIBLE] > 60
    assert seen[DECLINED] < 5


def test_larger_flows():
    rng = np.random.default_rng(10)
    seen = [check_all(flow, run(flow)) for flow in (draw(rng, 60, 500) for _ in range(150))]
    assert sum(s[OPTIMAL] for s in seen) > 25
    assert sum(s[DECLINED] for s in seen) < 5


@pytest.mark.parametrize(("n", "k", "whole"), [(1, 1, True), (1, 6, False), (12, 7, True), (20, 20, False)])
def test_transport(n, k, whole):
    flow = transport(np.random.default_rng(n + k), 15, n, k, whole)
    assert check_all(flow, run(flow))[OPTIMAL] == 15


@pytest.mark.parametrize("cost", ["random", "ties", "equal"])
@pytest.mark.parametrize("capacity", [1.0, inf])
def test_assignment(cost, capacity):
    rng = np.random.default_rng(3)
    n, batch = 17, 12
    c = {"random": rng.random((batch, n, n)), "ties": rng.integers(0, 4, (batch, n, n)).astype(float)}
    c = c.get(cost, np.ones((batch, n, n)))
    flow = transport(rng, batch, n, n)
    b = np.append(np.ones(n), -np.ones(n))
    flow = replace(flow, cost=c.reshape(batch, -1), upper=np.full(n * n, capacity), row_lower=b, row_upper=b)
    result = run(flow)
    assert check_all(flow, result)[OPTIMAL] == batch
    for i in range(batch):
        assert flow.cost[i] @ result.x[i] == pytest.approx(c[i][linear_sum_assignment(c[i])].sum())
    basic, found = tree(flow, result.x, result.y)
    assert found.all()
    for i in range(batch):
        check_basis(replace(flow, cost=flow.cost[i]), result.x[i], result.y[i], basic[i], 20.0)


def test_shortest_paths():
    rng = np.random.default_rng(4)
    k, batch = 12, 10
    tail, head = grid(k)
    b = np.zeros(k * k)
    b[0], b[-1] = 1.0, -1.0
    cost = np.concatenate([rng.random((batch // 2, len(tail))), rng.integers(0, 3, (batch // 2, len(tail)))])
    flow = Flow(tail, head, cost, np.zeros(len(tail)), np.full(len(tail), inf), b, b)
    result = run(flow)
    assert check_all(flow, result)[OPTIMAL] == batch
    for i in range(batch // 2):
        graph = sp.csr_matrix((cost[i], (tail, head)), shape=(k * k, k * k))
        assert cost[i] @ result.x[i] == pytest.approx(dijkstra(graph, indices=0)[-1])
    basic, found = tree(flow, result.x, result.y)
    assert found.all()
    for i in range(batch):
        check_basis(replace(flow, cost=cost[i]), result.x[i], result.y[i], basic[i], 50.0)


def test_capacitated_grids():
    rng = np.random.default_rng(5)
    k = 9
    tail, head = grid(k)
    for case in range(12):
        b = rng.integers(-5, 6, k * k).astype(float)
        b[-1] -= b.sum()
        wide = case % 2 * rng.integers(0, 3, k * k)
        upper = rng.integers(3, 40, len(tail)).astype(float)
        flow = Flow(tail, head, draw_cost(rng, len(tail)), np.zeros(len(tail)), upper, b - wide, b + wide)
        check_all(flow, run(flow))


def test_trees_of_random_flows():
    """From (x, y) alone: a basis of it, wherever the simplex has one."""
    rng = np.random.default_rng(6)
    count = 0
    for _ in range(1500):
        flow = draw(rng)
        result = run(flow)
        if result.status[0] != OPTIMAL:
            continue
        basic, found = tree(flow, result.x, result.y)
        lineality = np.any((flow.lower == -inf) & (flow.upper >= 1e20) & ~result.basic[0, : len(flow.tail)])
        assert found[0] or lineality
        if found[0]:
            count += 1
            size = 1 + np.abs(flow.cost).max(initial=0) * 10
            flow = replace(flow, upper=np.where(flow.upper >= 1e20, inf, flow.upper))
            check_basis(flow, result.x[0], result.y[0], basic[0], size)
    assert count > 700


def test_tree_refuses():
    """No basis: x is no vertex, or y is not basic."""
    zero, one = np.zeros(2), np.ones(2)
    tail, head, b = np.array([0, 0, 1, 1]), np.array([2, 3, 2, 3]), np.append(one, -one)
    square = Flow(tail, head, np.zeros(4), np.zeros(4), np.ones(4), b, b)
    y = np.zeros((1, 4))
    assert tree(square, np.array([[1.0, 0, 0, 1]]), y)[1][0]
    assert not tree(square, np.full((1, 4), 0.5), y)[1][0]  # a cycle between bounds
    assert not tree(square, np.array([[1.0, 0, 0, 1]]), y + 1.0)[1][0]  # no tie to the ground
    slack = Flow(np.array([0]), np.array([1]), np.ones(1), np.zeros(1), np.ones(1), -one, one)
    assert tree(slack, np.zeros((1, 1)), np.zeros((1, 2)))[0].tolist() == [[False, True, True]]
    wide = np.array([1.0, 1.0, 0.0])
    apart = Flow(np.array([0]), np.array([1]), np.zeros(1), np.zeros(1), np.ones(1), -wide, wide)
    assert not tree(apart, np.full((1, 1), 0.5), np.array([[0.0, 0.0, 1.0]]))[1][
        0
    ]  # tied twice, and not at all
    loop = Flow(zero[:1].astype(int), zero[:1].astype(int), zero[:1], zero[:1], one[:1], zero[:1], zero[:1])
    assert not tree(loop, np.array([[0.5]]), np.zeros((1, 1)))[1][0]


def test_items_do_not_meet():
    """The same bits in any span, order, shared or repeated data, and on several threads at once."""
    rng = np.random.default_rng(7)
    flow = transport(rng, 12, 9, 8)
    whole = run(flow)
    assert np.all(whole.status == OPTIMAL) and np.all(whole.iterations > 0)
    backwards = run(replace(flow, **{k: getattr(flow, k)[::-1] for k in ("cost", "row_lower", "row_upper")}))
    wide = np.repeat(flow.upper[None], 12, axis=0)
    parts = [(8, 12), (0, 3), (3, 8)]
    for other in (run(flow, parts), run(replace(flow, upper=wide, lower=0 * flow.cost), parts)):
        for name in ("x", "y", "basic", "status", "iterations"):
            assert np.array_equal(getattr(whole, name), getattr(other, name))
    assert np.array_equal(whole.x[::-1], backwards.x) and np.array_equal(whole.y[::-1], backwards.y)
    graph, (_, _, data) = graph_of(flow), frozen(flow)
    x, y, none = np.zeros_like(whole.x), np.zeros_like(whole.y), np.zeros((0, 0))
    status, steps = np.full(12, 9, dtype=np.int8), np.zeros(12, dtype=np.int32)

    def work(start, stop):
        basic = np.zeros((0, 0), dtype=bool)
        network_simplex(*graph, *data, start, stop, x, y, none, basic, status, steps)

    threads = [threading.Thread(target=work, args=(i, i + 3)) for i in range(0, 12, 3)]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    assert np.array_equal(x, whole.x) and np.array_equal(y, whole.y) and np.all(status == OPTIMAL)


def test_statuses_do_not_leak():
    """Optimal, infeasible, unbounded and senseless items side by side."""
    flow = transport(np.random.default_rng(8), 6, 4, 4)
    flow.row_lower[1, 0] += 0.5  # And row_upper, the same array.
    flow.cost[3, 2] = np.nan
    flow.cost[4, 2] = -inf
    alone = run(replace(flow, cost=flow.cost[5:], row_lower=flow.row_lower[5:], row_upper=flow.row_upper[5:]))
    result = run(flow)
    assert result.status.tolist() == [OPTIMAL, INFEASIBLE, OPTIMAL, DECLINED, DECLINED, OPTIMAL]
    assert np.array_equal(alone.x[0], result.x[5]) and np.array_equal(alone.y[0], result.y[5])
    assert np.all(run(replace(flow, upper=np.full(16, -1.0))).status == DECLINED)
    assert np.all(run(replace(flow, lower=np.full(16, np.nan))).status == DECLINED)
    assert np.all(run(replace(flow, lower=np.full(16, inf))).status == DECLINED)


def test_rounding_of_supplies_is_not_infeasible():
    """Supplies and demands that agree up to rounding are redundant rows, not a contradiction."""
    rng = np.random.default_rng(9)
    flow = transport(rng, 50, 11, 13)
    assert np.any(flow.row_lower.sum(1) != 0.0)
    result = run(flow)
    assert np.all(result.status == OPTIMAL)
    assert np.all(result.y[:, -1] == 0.0)


def test_unbounded_or_infeasible():
    """A negative cycle of infinite capacity next to rows that nothing can fill is infeasible."""
    tail, head = np.array([0, 1, 2]), np.array([1, 0, 3])
    flow = Flow(
        tail, head, np.array([-1.0, 0.5, 1.0]), np.zeros(3), np.full(3, inf), np.zeros(4), np.zeros(4)
    )
    assert run(flow).status[0] == UNBOUNDED
    b = np.array([0.0, 0.0, -1.0, 1.0])
    flow = replace(flow, row_lower=b, row_upper=b)
    result = run(flow)
    assert result.status[0] == INFEASIBLE
    assert dual_value(flow, result.ray[0], -flow.matrix.T @ result.ray[0]) > 0.5
    b = np.array([0.0, 0.0, 1.0, -1.0])
    assert run(replace(flow, row_lower=b, row_upper=b)).status[0] == UNBOUNDED


def test_free_arcs():
    """A free arc enters in either direction, and again where the costs alone were unbounded along it."""
    one = np.ones(1)
    flow = Flow(np.array([0]), np.array([1]), 0 * one, -inf * one, inf * one, -inf * one, one)
    for low, high in ((-inf, 1.0), (1.0, inf)):
        result = run(replace(flow, row_lower=low * one, row_upper=high * one))
        assert (
            result.status[0] == OPTIMAL
            and result.x[0, 0] == 1.0
            and result.basic[0].tolist() == [True, False]
        )
    # Row 0 takes what row 1 must send only if the free arc to the ground carries it on.
    tail, head, b = np.array([0, 1]), np.array([2, 0]), np.array([-1.0, 2.0])
    flow = Flow(
        tail, head, np.array([-1.0, 0.0]), np.array([-inf, 0.0]), np.full(2, inf), b, np.array([inf, 2.0])
    )
    assert run(flow).status[0] == UNBOUNDED
    assert run(replace(flow, cost=np.ones(2))).x[0].tolist() == [1.0, 2.0]
