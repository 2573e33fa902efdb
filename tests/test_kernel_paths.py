"""Compiled shortest paths against SciPy, HiGHS and first principles."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog
from scipy.sparse.csgraph import bellman_ford, connected_components

from lpdiff.kernels.graphs import star, walk
from lpdiff.kernels.paths import cyclic_paths, dag_paths
from lpdiff.kernels.potentials import complete_potentials
from lpdiff.kernels.route import lay


def run(kernel, graph, c, upper, supply, source, sink, rows, span=None):
    """All items, or those of a span; (x, y, status)."""
    path, length, y, status = search(kernel, graph, c, upper, supply, source, sink, rows, span)
    x = np.zeros((len(y), c.shape[1]))
    lay(path, length, supply, status, np.ones(1), x, 0, len(y))
    return x, y, status


def search(kernel, graph, c, upper, supply, source, sink, rows, span=None):
    """(path, length, y, status)"""
    tail, head, order = graph
    steps = walk(tail, head, order)
    more = star(tail, head, steps) if kernel is cyclic_paths else ()
    batch = max(len(c), len(upper), len(supply), len(source), len(sink))
    y, status = np.full((batch, rows), 7.0), np.full(batch, 99, dtype=np.int8)
    path, length = np.full((batch, len(order)), -1, np.int32), np.full(batch, -1, np.int32)
    start, stop = (0, batch) if span is None else span
    kernel(c, upper, supply, source, sink, *steps, *more, path, length, y, status, start, stop)
    complete_potentials(c, upper, supply, kernel is dag_paths, *steps, y, status, start, stop)
    return path, length, y, status


def one(kernel, graph, c, upper, f, s, t, rows):
    x, y, status = run(
        kernel,
        graph,
        c[None],
        upper[None],
        np.array([f]),
        np.array([s], np.int32),
        np.array([t], np.int32),
        rows,
    )
    return x[0], y[0], status[0]


def check(graph, c, upper, f, s, t, rows, x, y):
    """Optimal by weak duality, basic, and normalised."""
    tail, head, order = graph
    full = np.append(y, 0.0) if rows < len(order) else y
    scale = 1e-12 * (1 + np.abs(c).max(initial=0.0) * len(order))
    assert np.isfinite(full).all()
    d = c - full[tail] + full[head]
    closed = upper < f
    assert (d[~closed] >= -scale).all()
    assert ((x == 0) | (x == f)).all() and not x[closed].any()
    assert np.abs(d[x > 0]).max(initial=0.0) <= scale
    balance = np.zeros(len(order))
    np.add.at(balance, tail, x)
    np.subtract.at(balance, head, x)
    expected = np.zeros(len(order))
    expected[s] += f
    expected[t] -= f
    assert np.array_equal(balance, expected)
    # The path is simple, and arcs with d = 0 span every component.
    assert np.bincount(tail[x > 0], minlength=1).max(initial=0) <= 1
    tight = np.abs(d) <= scale
    nodes = len(order)

    def pieces(chosen):
        return connected_components(
            sp.coo_array((np.ones(chosen.sum()), (tail[chosen], head[chosen])), (nodes, nodes)),
            directed=False,
        )

    count, label = pieces(np.ones(len(tail), bool))
    assert pieces(tight)[0] == count
    for piece in range(count):
        assert full[np.flatnonzero(label == piece).max()] == 0


def distance(graph, c, open_, s, t):
    """The length of a shortest path by SciPy; inf: none. Of parallel arcs the cheapest counts."""
    tail, head, order = graph
    nodes = len(order)
    cheapest = {}
    for a, b, cost in zip(tail[open_], head[open_], c[open_], strict=True):
        if a != b:
            cheapest[a, b] = min(cost, cheapest.get((a, b), np.inf))
    dense = np.full((nodes, nodes), np.inf)
    for (a, b), cost in cheapest.items():
        dense[a, b] = cost
    # SciPy reads stored zeros as zero costs only in sparse matrices.
    places = np.isfinite(dense)
    graph_ = sp.csr_array((dense[places], np.nonzero(places)), (nodes, nodes))
    return bellman_ford(graph_, indices=s)[t]


COSTS = {
    "normal": lambda g, n: g.normal(size=n),
    "ties": lambda g, n: g.integers(-2, 3, n).astype(float),
    "zero": lambda g, n: np.zeros(n),
    "spread": lambda g, n: 10.0 ** g.uniform(-6, 6, n) * g.choice([-1, 1], n),
    "positive": lambda g, n: g.uniform(0, 1, n),
    "small integers": lambda g, n: g.integers(0, 3, n).astype(float),
}


def random_dag(g, nodes, density=2.5):
    """Arcs along a hidden order, parallel ones too."""
    n = int(g.integers(1, max(2, int(density * nodes))))
    order = g.permutation(nodes).astype(np.int32)
    a = g.integers(0, nodes - 1, n)
    b = g.integers(a + 1, nodes)
    return order[a], order[b], order


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("kernel", [dag_paths, cyclic_paths])
def test_acyclic_graphs(kernel, costs):
    g = np.random.default_rng(len(costs))
    seen = np.zeros(2, int)
    for _ in range(300):
        nodes = int(g.integers(2, 14))
        graph = random_dag(g, nodes)
        n = len(graph[0])
        c = COSTS[costs](g, n)
        f = g.choice([1.0, 0.25, 3.0])
        upper = np.where(g.random(n) < g.choice([0, 0.3, 0.7]), 0.0, g.choice([f, 2 * f, np.inf], n))
        s, t = g.choice(nodes, 2, replace=False)
        rows = nodes - int(g.integers(0, 2))
        x, y, status = one(kernel, graph, c, upper, f, s, t, rows)
        expected = distance(graph, c, upper > 0, s, t)
        seen[int(np.isfinite(expected))] += 1
        if np.isfinite(expected):
            assert status == 0
            assert c @ x == pytest.approx(f * expected, rel=1e-12, abs=1e-12)
            check(graph, c, upper, f, s, t, rows, x, y)
        else:
            assert status == 1
    assert seen.min() > 30


@pytest.mark.parametrize("costs", ["positive", "small integers", "potentials", "normal"])
def test_cyclic_graphs(costs):
    g = np.random.default_rng(5 + len(costs))
    seen = {0: 0, 1: 0, 7: 0}
    for _ in range(400):
        nodes = int(g.integers(2, 14))
        n = int(g.integers(1, 4 * nodes))
        tail, head = g.integers(0, nodes, n).astype(np.int32), g.integers(0, nodes, n).astype(np.int32)
        if costs == "potentials":
            # Negative arcs, no negative cycle: reduced costs that are often zero.
            p = g.normal(size=nodes)
            c = g.choice([0.0, 0.0, 1.0, 0.3], n) + p[tail] - p[head]
            c[tail == head] = 0
        elif costs == "normal":
            c = g.normal(size=n) + 1.0
        else:
            c = COSTS[costs](g, n)
        upper = np.where(g.random(n) < g.choice([0, 0.3, 0.7]), 0.0, np.inf)
        s, t = g.choice(nodes, 2, replace=False)
        rows = nodes - int(g.integers(0, 2))
        graph = tail, head, g.permutation(nodes)
        x, y, status = one(cyclic_paths, graph, c, upper, 1.0, s, t, rows)
        seen[int(status)] += 1
        negative = has_negative_cycle(graph, c, upper > 0)
        if status == 0:
            assert not negative
            assert c @ x == pytest.approx(distance(graph, c, upper > 0, s, t), rel=1e-12, abs=1e-12)
            check(graph, c, upper, 1.0, s, t, rows, x, y)
        elif status == 1:
            assert np.isinf(distance(graph, np.abs(c), upper > 0, s, t))
        else:
            assert negative
    assert seen[0] > 60 and seen[1] > 20
    assert (seen[7] > 20) == (costs == "normal")


def has_negative_cycle(graph, c, open_):
    """Bellman-Ford from everywhere at once: labels that still fall after as many rounds as nodes."""
    tail, head, order = graph
    label = np.zeros(len(order))
    for _ in range(len(order) + 1):
        before = label.copy()
        np.minimum.at(label, head[open_], label[tail[open_]] + c[open_])
    return (label < before - 1e-12).any()


def test_linprog_agrees():
    g = np.random.default_rng(1)
    for _ in range(60):
        graph = random_dag(g, 8, 4)
        tail, head, order = graph
        n = len(tail)
        c = g.normal(size=n)
        A = np.zeros((8, n))
        A[tail, np.arange(n)] += 1
        A[head, np.arange(n)] -= 1
        s, t = int(order[0]), int(order[g.integers(1, 8)])
        b = np.zeros(8)
        b[s], b[t] = 2.0, -2.0
        result = linprog(c, A_eq=A, b_eq=b, bounds=(0, 2.0))
        x, y, status = one(dag_paths, graph, c, np.full(n, 2.0), 2.0, s, t, 8)
        assert status == (1 if result.status == 2 else 0)
        if status == 0:
            assert c @ x == pytest.approx(result.fun, abs=1e-9)
            assert b @ y + 2.0 * np.minimum(c - y @ A, 0).sum() == pytest.approx(result.fun, abs=1e-9)


def grid(width, height):
    """Steps right, down and diagonally, as in alignment."""
    node = np.arange(width * height).reshape(height, width)
    tails = [node[:, :-1], node[:-1], node[:-1, :-1]]
    heads = [node[:, 1:], node[1:], node[1:, 1:]]
    tail, head = (np.concatenate([part.ravel() for part in parts]) for parts in (tails, heads))
    return tail.astype(np.int32), head.astype(np.int32), node.ravel().astype(np.int32)


@pytest.mark.parametrize("kernel", [dag_paths, cyclic_paths])
def test_items_do_not_depend_on_their_batch(kernel):
    g = np.random.default_rng(2)
    graph = grid(7, 6)
    n, nodes, batch = len(graph[0]), 42, 9
    c = g.uniform(-0.2 if kernel is dag_paths else 0, 1, (batch, n))
    c[4, 3] = np.nan
    upper = np.where(g.random((batch, n)) < 0.2, 0.0, np.inf)
    supply = g.uniform(1, 2, batch)
    source = g.integers(0, 20, batch).astype(np.int32)
    sink = g.integers(20, nodes, batch).astype(np.int32)
    whole = run(kernel, graph, c, upper, supply, source, sink, nodes)
    assert whole[2][4] == 7 and (whole[2] == 0).sum() >= 4
    for k in range(batch):
        x, y, status = run(kernel, graph, c, upper, supply, source, sink, nodes, (k, k + 1))
        assert status[k] == whole[2][k]
        assert np.array_equal(x[k], whole[0][k]) and np.array_equal(y[k], whole[1][k])
        alone = one(kernel, graph, c[k], upper[k], supply[k], source[k], sink[k], nodes)
        assert all(np.array_equal(a, b[k]) for a, b in zip(alone, whole, strict=True))
        assert (status == 99).sum() == batch - 1  # nothing else was written
        if status[k] == 0:
            check(graph, c[k], upper[k], supply[k], source[k], sink[k], nodes, x[k], y[k])
    # Shared data and repeated data are the same.
    first = run(kernel, graph, c[:1], upper[:1], supply[:1], source, sink[:1], nodes)
    again = run(
        kernel,
        graph,
        np.repeat(c[:1], batch, 0),
        np.repeat(upper[:1], batch, 0),
        np.repeat(supply[:1], batch),
        source,
        np.repeat(sink[:1], batch),
        nodes,
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("kernel", [dag_paths, cyclic_paths])
@pytest.mark.parametrize("masked", [False, True])
def test_items_that_share_all_but_costs(kernel, masked):
    # Four of them are walked at once, the rest one by one: the bits are the same.
    g = np.random.default_rng(12)
    for trial in range(12):
        graph = random_dag(g, 30, 5)
        n, batch = len(graph[0]), 11
        c = g.uniform(0, 1, (batch, n)) if trial % 2 else g.integers(0, 3, (batch, n)).astype(float)
        c[g.integers(batch), 0] = np.inf
        upper = np.where(g.random((1, n)) < 0.15 * masked, 0.0, np.inf)
        s, t = (graph[2][[p]].astype(np.int32) for p in (0, g.integers(15, 30)))
        sources = s if trial % 3 else graph[2][g.integers(0, 4, batch)].astype(np.int32)
        whole = run(kernel, graph, c, upper, np.ones(1), sources, t, 30)
        assert (whole[2] == 7).sum() == 1
        for k in range(batch):
            s = sources[[k if len(sources) > 1 else 0]]
            alone = one(kernel, graph, c[k], upper[0], 1.0, s[0], t[0], 30)
            assert alone[2] == whole[2][k]
            if alone[2] == 0:
                assert np.array_equal(alone[0], whole[0][k]) and np.array_equal(alone[1], whole[1][k])
                check(graph, c[k], upper[0], 1.0, s[0], t[0], 30, alone[0], alone[1])
                expected = distance(graph, c[k], upper[0] > 0, s[0], t[0])
                assert c[k] @ alone[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kernel", [dag_paths, cyclic_paths])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_strange_numbers_are_declined(kernel, bad):
    graph = grid(3, 3)
    n = len(graph[0])
    good, free = np.ones(n), np.full(n, np.inf)
    assert one(kernel, graph, good, free, 1.0, 0, 8, 9)[2] == 0
    for j in range(n):
        c = good.copy()
        c[j] = bad
        x, _, status = one(kernel, graph, c, free, 1.0, 0, 8, 9)
        assert status == 7 and not x.any()
    for f in (np.nan, np.inf, 0.0, -1.0):
        assert one(kernel, graph, good, free, f, 0, 8, 9)[2] == 7
    for u in (0.5, -1.0, np.nan):  # neither open to the whole supply nor forbidden
        upper = free.copy()
        upper[n // 2] = u
        assert one(kernel, graph, good, upper, 1.0, 0, 8, 9)[2] == 7


def test_ties_keep_the_first_arc():
    graph = grid(3, 3)
    n = len(graph[0])
    x, _, _ = one(dag_paths, graph, np.zeros(n), np.ones(n), 1.0, 0, 8, 9)
    assert x @ np.arange(n) == one(dag_paths, graph, np.zeros(n), np.ones(n), 1.0, 0, 8, 9)[0] @ np.arange(n)
    # Right steps come first among the arcs into a node: down at once, then along the last row.
    assert np.flatnonzero(x).tolist() == [4, 5, 6, 9]


def test_cycles_of_length_zero_are_no_negative_cycles():
    g = np.random.default_rng(8)
    for nodes in (3, 30, 300):
        around = np.arange(nodes)
        tail = np.concatenate([around, np.roll(around, -1)]).astype(np.int32)
        head = np.concatenate([np.roll(around, -1), around]).astype(np.int32)
        p = g.normal(size=nodes)
        c = p[tail] - p[head]
        graph = tail, head, around
        x, y, status = one(cyclic_paths, graph, c, np.ones(2 * nodes), 1.0, 0, nodes // 2, nodes)
        assert status == 0
        check(graph, c, np.ones(2 * nodes), 1.0, 0, nodes // 2, nodes, x, y)


def test_a_negative_cycle_anywhere_is_declined():
    # Nodes 0 -> 1; 2 <-> 3 apart, joined by a forbidden arc, or only reaching, or only reached.
    for extra in ([1, 2], [2, 0]):
        for u in (0.0, 1.0):
            tail, head = np.array([0, 2, 3, extra[0]], np.int32), np.array([1, 3, 2, extra[1]], np.int32)
            upper = np.array([1.0, 1.0, 1.0, u])
            graph = tail, head, np.arange(4)
            assert one(cyclic_paths, graph, np.array([1.0, 1.0, -2.0, 0.0]), upper, 1.0, 0, 1, 4)[2] == 7
            assert one(cyclic_paths, graph, np.array([1.0, 2.0, -2.0, 0.0]), upper, 1.0, 0, 1, 4)[2] == 0


def test_many_turns_are_declined_not_wrong():
    # A zigzag: 0 -> 1 <- 2 -> 3 <- 4 ..., walked in turns of one node.
    for nodes, expected in ((40, 0), (1000, 7)):
        a = np.arange(nodes - 1)
        tail, head = np.where(a % 2 == 0, a, a + 1), np.where(a % 2 == 0, a + 1, a)
        order = np.concatenate([np.arange(0, nodes, 2), np.arange(1, nodes, 2)])
        graph = tail.astype(np.int32), head.astype(np.int32), order
        c, upper = np.random.default_rng(0).uniform(0, 1, nodes - 1), np.ones(nodes - 1)
        for kernel in (dag_paths, cyclic_paths):
            x, y, status = one(kernel, graph, c, upper, 1.0, 0, 1, nodes)
            assert status == expected
            if status == 0:
                check(graph, c, upper, 1.0, 0, 1, nodes, x, y)


def test_walk_and_star():
    g = np.random.default_rng(3)
    for _ in range(50):
        nodes, n = int(g.integers(1, 30)), int(g.integers(0, 60))
        tail, head = g.integers(0, nodes, n).astype(np.int32), g.integers(0, nodes, n).astype(np.int32)
        order = g.permutation(nodes)
        steps = walk(tail, head, order)
        out = star(tail, head, steps)
        assert np.array_equal(order[steps.position], np.arange(nodes))
        for by, other, pointers, arcs, ends in (
            (head, tail, steps.pointers, steps.arcs, steps.tails),
            (tail, head, out.pointers, out.arcs, out.heads),
        ):
            assert np.array_equal(arcs, np.argsort(steps.position[by], kind="stable"))
            assert np.array_equal(np.diff(pointers), np.bincount(steps.position[by], minlength=nodes))
            assert pointers[0] == 0
            assert np.array_equal(ends, steps.position[other][arcs])
        label = connected_components(
            sp.coo_array((np.ones(n), (tail, head)), (nodes, nodes)), directed=False
        )[1]
        last = np.array([np.flatnonzero(label == piece).max() for piece in label])
        assert np.array_equal(order[steps.reference], last[order])
