"""The certificate of shortest paths: it accepts what is right to rounding, and refuses all else."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp

import lpdiff
from lpdiff.backends.path import Path
from lpdiff.kernels.paths import cyclic_paths, dag_paths
from lpdiff.kernels.route import lay, prove
from lpdiff.status import Status
from tests.test_kernel_paths import grid, random_dag, search

EXACT, CORRECTED = 2e-15, 4e-14


@dataclasses.dataclass(frozen=True)
class Proposal:
    tail: np.ndarray
    head: np.ndarray
    c: np.ndarray
    upper: np.ndarray
    supply: np.ndarray
    source: np.ndarray
    sink: np.ndarray
    path: np.ndarray
    length: np.ndarray
    y: np.ndarray
    spread: bool
    status: np.ndarray

    def but(self, **changes):
        return dataclasses.replace(self, **changes)

    def item(self, k):
        """One item of a batch, as a batch of its own."""
        return self.but(
            **{
                name: array[[k if len(array) > 1 else 0]]
                for name in ("c", "upper", "supply", "source", "sink", "path", "length", "y", "status")
                for array in [getattr(self, name)]
            }
        )

    def follow(self, arcs):
        """Another path for all items."""
        path = np.full((len(self.y), max(self.path.shape[1], len(arcs))), -1, np.int32)
        path[:, : len(arcs)] = arcs
        return self.but(path=path, length=np.full(len(self.y), len(arcs), np.int32))


class Verdict(NamedTuple):
    ok: np.ndarray
    x: np.ndarray
    value: np.ndarray
    gap: np.ndarray
    dual_residual: np.ndarray


def judge(p, rounding=EXACT, span=None):
    size, n = len(p.y), p.c.shape[1]
    verdict = Verdict(np.zeros(size, bool), np.zeros((size, n)), *np.full((3, size), np.nan))
    start, stop = (0, size) if span is None else span
    left = prove(
        *(p.tail, p.head, p.c, p.upper, p.supply, p.source, p.sink, p.path, p.length, p.y),
        *(p.spread, rounding, start, stop, p.status, verdict.ok, verdict.value, verdict.gap),
        verdict.dual_residual,
    )
    assert left == (~verdict.ok[start:stop]).sum()
    proved = np.where(verdict.ok, 0, 7).astype(np.int8)
    lay(p.path, p.length, p.supply, proved, np.ones(1), verdict.x, start, stop)
    return verdict


def propose(graph, c, upper=None, f=1.0, s=None, t=None, kernel=dag_paths, rows=None):
    """What the kernel finds for a batch of costs; from the first to the last node."""
    tail, head, order = graph
    upper = np.full((1, len(tail)), np.inf) if upper is None else upper
    source = np.array([order[0] if s is None else s], np.int32)
    sink = np.array([order[-1] if t is None else t], np.int32)
    rows, supply = len(order) if rows is None else rows, np.array([f])
    path, length, y, status = search(kernel, graph, c, upper, supply, source, sink, rows)
    return Proposal(tail, head, c, upper, supply, source, sink, path, length, y, True, status)


COSTS = {
    "normal": lambda g, shape: g.normal(size=shape),
    "ties": lambda g, shape: g.integers(-2, 3, shape).astype(float),
    "zero": lambda g, shape: np.zeros(shape),
    "spread": lambda g, shape: 10.0 ** g.uniform(-6, 6, shape) * g.choice([-1, 1], shape),
    "a common huge cost": lambda g, shape: 1e9 + g.uniform(0, 1, shape),
    "a few large": lambda g, shape: np.where(g.random(shape) < 0.1, 1.0, 1e-8 * g.uniform(0, 1, shape)),
    "a few huge": lambda g, shape: np.where(g.random(shape) < 0.1, 1e12, 1.0) * g.uniform(0, 1, shape),
    "huge": lambda g, shape: 1e200 * g.normal(size=shape),
    "tiny": lambda g, shape: 1e-200 * g.normal(size=shape),
}


@pytest.mark.parametrize("costs", COSTS)
def test_what_the_kernels_find_is_proved(costs):
    g = np.random.default_rng(len(costs))
    proved = 0
    for trial in range(100):
        nodes, batch = int(g.integers(2, 40)), int(g.integers(1, 20))
        graph = random_dag(g, nodes, 4)
        n = len(graph[0])
        c = COSTS[costs](g, (batch, n))
        f = g.choice([1.0, 0.25, 3.0])
        rows = 1 if trial % 2 else batch
        upper = np.where(g.random((rows, n)) < g.choice([0.0, 0.2]), 0.0, g.choice([f, np.inf]))
        s, t = graph[2][np.sort(g.choice(nodes, 2, replace=False))]
        p = propose(graph, c, upper, f, s, t, rows=nodes - int(g.integers(0, 2)))
        verdict = judge(p)
        assert np.array_equal(verdict.ok, p.status == 0)
        for k in np.flatnonzero(verdict.ok):
            x = np.zeros(n)
            x[p.path[k, : p.length[k]]] = f
            assert np.array_equal(verdict.x[k], x)
            assert verdict.value[k] == pytest.approx(c[k] @ x, rel=1e-12, abs=1e-12 * np.abs(c[k]).max())
            full = np.append(p.y[k], 0.0)
            scale = f * np.abs(full).max()
            assert abs(verdict.gap[k]) <= 1e-14 * scale
            dual = f * (full[s] - full[t])
            assert verdict.gap[k] == pytest.approx(verdict.value[k] - dual, abs=1e-14 * scale)
            assert verdict.dual_residual[k] == 0.0
        proved += verdict.ok.sum()
        # Bit by bit, whatever the span, and alone.
        cut = int(g.integers(0, batch + 1))
        parts = judge(p, span=(0, cut)), judge(p, span=(cut, batch))
        for name, whole in verdict._asdict().items():
            halves = [
                getattr(part, name)[span]
                for part, span in zip(parts, (slice(cut), slice(cut, None)), strict=True)
            ]
            assert np.array_equal(np.concatenate(halves), whole, equal_nan=True)
        k = int(g.integers(batch))
        for alone, whole in zip(judge(p.item(k)), verdict, strict=True):
            assert np.array_equal(alone[0], whole[k], equal_nan=True)
    assert proved > 300


@pytest.mark.parametrize("costs", ["positive", "negative"])
def test_cyclic_graphs_are_proved(costs):
    g = np.random.default_rng(len(costs))
    proved = 0
    for _ in range(100):
        nodes, batch = int(g.integers(2, 25)), int(g.integers(1, 12))
        n = int(g.integers(nodes, 5 * nodes))
        tail, head = g.integers(0, nodes, n).astype(np.int32), g.integers(0, nodes, n).astype(np.int32)
        c = g.choice([0.0, 0.3, 1.0], (batch, n)) * g.uniform(0.5, 1, (batch, n))
        if costs == "negative":
            labels = g.normal(size=(batch, nodes))
            c = c + labels[:, tail] - labels[:, head]
            c[:, tail == head] = 0.0
        p = propose((tail, head, np.arange(nodes)), c, kernel=cyclic_paths)
        verdict = judge(p, EXACT if costs == "positive" and (p.status == 0).all() else CORRECTED)
        assert np.array_equal(verdict.ok, p.status == 0)
        proved += verdict.ok.sum()
    assert proved > 200


def shortest(p, k):
    """The exact length of a shortest path of item k, and of the proposed one, as fractions."""
    tail, head = p.tail.tolist(), p.head.tolist()
    cost = [Fraction(number) for number in p.c[k]]
    open_ = (p.upper[min(k, len(p.upper) - 1)] >= p.supply[0]).tolist()
    best = {int(p.source[0]): Fraction(0)}
    for _ in range(len(tail)):
        before = dict(best)
        for a, b, length, usable in zip(tail, head, cost, open_, strict=True):
            if usable and a in best and (b not in best or best[a] + length < best[b]):
                best[b] = best[a] + length
        if best == before:
            break
    return best[int(p.sink[0])], sum(cost[j] for j in p.path[k, : p.length[k]])


@pytest.mark.parametrize("costs", COSTS)
def test_wrong_paths_are_refused(costs):
    # Paths that are best for other costs, with the right potentials.
    g = np.random.default_rng(20 + len(costs))
    refused = 0
    for _ in range(40):
        graph = grid(int(g.integers(2, 6)), int(g.integers(2, 6)))
        n, batch = len(graph[0]), int(g.integers(1, 18))
        p = propose(graph, COSTS[costs](g, (batch, n))).but(spread=False)
        assert judge(p).ok.all()
        wrong = propose(graph, g.uniform(0, 1, (batch, n)))
        q = p.but(path=wrong.path, length=wrong.length)
        verdict = judge(q)
        for k in range(batch):
            best, length = shortest(q, k)
            # A dozen roundings of the labels: nothing else may hide.
            if verdict.ok[k]:
                assert length - best <= 2e-14 * len(graph[2]) * np.abs(p.y[k]).max()
            else:
                assert length > best
                refused += 1
    if costs == "zero":
        assert refused == 0
    else:
        assert refused > 100


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("size", [1e-13, 1e-11, 1e-6, 1.0])
def test_wrong_potentials_are_refused(costs, size):
    g = np.random.default_rng(int(40 + len(costs) + 1 / size))
    refused = 0
    for _ in range(30):
        graph = grid(int(g.integers(2, 6)), int(g.integers(2, 6)))
        n, nodes, batch = len(graph[0]), len(graph[2]), int(g.integers(1, 18))
        p = propose(graph, COSTS[costs](g, (batch, n))).but(spread=False)
        assert judge(p).ok.all()
        y, node = p.y.copy(), g.integers(0, nodes, batch)
        items = np.arange(batch)
        y[items, node] += g.choice([-1, 1], batch) * size * np.maximum(np.abs(y).max(axis=1), 1e-300)
        verdict = judge(p.but(y=y))
        for k in range(batch):
            exact = [Fraction(number) for number in y[k]]
            d = [
                Fraction(cost) - exact[a] + exact[b]
                for cost, a, b in zip(p.c[k], p.tail.tolist(), p.head.tolist(), strict=True)
            ]
            worst = max(-min(d), *(abs(d[j]) for j in p.path[k, : p.length[k]]))
            largest = float(np.abs(y[k]).max())
            if verdict.ok[k]:
                assert worst <= Fraction(1e-14) * Fraction(largest)
            elif worst <= Fraction(1e-15) * Fraction(largest):
                raise AssertionError("rounding was refused")
            refused += not verdict.ok[k]
    assert refused > 100


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_strange_numbers_are_refused(batch, bad):
    graph = grid(3, 4)
    p = propose(graph, np.random.default_rng(0).uniform(0, 1, (batch, len(graph[0]))))
    assert judge(p).ok.all()
    for name in ("c", "y"):
        for j in range(getattr(p, name).shape[1]):
            numbers = getattr(p, name).copy()
            numbers[-1, j] = bad
            assert judge(p.but(**{name: numbers})).ok.tolist() == [True] * (batch - 1) + [False]
    for f in (bad, 0.0, -1.0):
        assert not judge(p.but(supply=np.array([f]))).ok.any()


@pytest.mark.parametrize("batch", [1, 9])
def test_what_is_no_path_is_refused(batch):
    # A ladder without costs: duals prove nothing, so all depends on the path.
    tail = np.array([0, 1, 2, 1, 2, 0, 3, 0], np.int32)
    head = np.array([1, 2, 3, 3, 1, 2, 3, 3], np.int32)
    p = propose((tail, head, np.arange(4)), np.zeros((batch, 8)), kernel=cyclic_paths)
    for arcs in ([2, 1, 0], [3, 0], [2, 5], [7], [6, 7], [3, 4, 1, 0], [6, 2, 1, 0]):
        verdict = judge(p.follow(arcs))
        assert verdict.ok.all() and np.flatnonzero(verdict.x[-1]).tolist() == sorted(arcs)
    for arcs in (
        *([], [2], [0], [0, 1, 2], [2, 1], [1, 0], [2, 0], [3, 0, 0], [7, 7], [6, 6, 7], [6]),
        *(
            [2, 1, 4, 1, 0],
            [2, 1, 4, 1, 4, 1, 0],
            [2, 1, 0, 6],
            [-1],
            [8],
            [2, -1, 0],
            [2, 8, 0],
            [2**31 - 1],
            [-(2**31)],
        ),
    ):
        assert not judge(p.follow(arcs)).ok.any()
    for length in (-1, 0, 4, 100):
        assert not judge(p.follow([2, 1, 0]).but(length=np.full(batch, length, np.int32))).ok.any()
    if batch > 1:  # nor does a path go on in the next one's row
        path = np.zeros((batch, 2), np.int32)
        path[0] = [2, 1]
        assert not judge(p.but(path=path, length=np.full(batch, 3, np.int32))).ok.any()
    for ends in ({"source": 1}, {"sink": 2}, {"source": 3, "sink": 0}, {"source": 3}):
        changed = {name: np.array([node], np.int32) for name, node in ends.items()}
        assert not judge(p.follow([2, 1, 0]).but(**changed)).ok.any()
    # An arc of the path is closed, or too narrow.
    for j, u in ((0, 0.0), (1, 0.0), (2, 0.0), (1, 0.5), (1, np.nan), (1, -1.0)):
        upper = np.full((1, 8), np.inf)
        upper[0, j] = u
        assert not judge(p.follow([2, 1, 0]).but(upper=upper)).ok.any()
        assert judge(p.follow([7]).but(upper=upper)).ok.all()
    # Items that are not said to be optimal are left alone, and so are those that are proved already.
    status = p.status.copy()
    status[0] = 7
    assert judge(p.follow([7]).but(status=status)).ok.tolist() == [False] + [True] * (batch - 1)


@pytest.mark.parametrize("batch", [1, 9])
def test_closed_arcs_may_have_any_reduced_cost(batch):
    # 0 -> 1 -> 2 at 1 each, and 0 -> 2 at 0 that is closed to some.
    tail, head = np.array([0, 1, 0], np.int32), np.array([1, 2, 2], np.int32)
    c, closed = np.tile([1.0, 1.0, 0.0], (batch, 1)), np.array([[np.inf, np.inf, 0.0]])
    p = propose((tail, head, np.arange(3)), c, closed)
    assert p.length[0] == 2 and judge(p).ok.all()
    assert not judge(p.but(upper=np.full((1, 3), np.inf))).ok.any()
    each = np.repeat(closed, batch, axis=0)
    each[-1, 2] = 1.0
    assert judge(p.but(upper=each)).ok.tolist() == [True] * (batch - 1) + [False]
    # Whatever came first in the span.
    status = p.status.copy()
    status[0] = 7
    assert judge(p.but(status=status)).ok.tolist() == [False] + [True] * (batch - 1)


def test_far_away_potentials_hide_nothing():
    # Node 2, which only an arc of cost 1e12 reaches, must not loosen what is asked of the others.
    tail, head = np.array([0, 1, 0, 0], np.int32), np.array([1, 3, 3, 2], np.int32)
    for batch in (1, 8):
        c = np.tile([1.0, 1.0, 2.0 - 1e-9, 1e12], (batch, 1))
        p = propose((tail, head, np.arange(4)), c).but(spread=False)
        assert p.length[0] == 1 and judge(p).ok.all()
        assert not judge(p.follow([1, 0])).ok.any()


def test_second_best_paths_are_refused():
    # Of all paths through a grid of distinct lengths, one is accepted.
    g = np.random.default_rng(7)
    graph = grid(4, 4)
    tail, head, _ = graph
    leaving = [np.flatnonzero(tail == v) for v in range(16)]

    def paths(v, arcs):
        if v == 15:
            yield arcs[::-1]
        for j in leaving[v]:
            yield from paths(head[j], [*arcs, int(j)])

    every = list(paths(0, []))
    assert len(every) == 63
    for costs in (lambda: g.uniform(0, 1, 33), lambda: 1e9 + g.uniform(0, 1, 33), lambda: g.normal(size=33)):
        for batch in (1, 8):
            p = propose(graph, np.tile(costs(), (batch, 1))).but(spread=False)
            right = p.path[0, : p.length[0]].tolist()
            assert [arcs for arcs in every if judge(p.follow(arcs)).ok.any()] == [right]
            assert judge(p.follow(right)).ok.all()


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_backend_refuses_what_is_not_proved(cyclic, threads):
    tail, head, _ = grid(12, 12)
    if cyclic:
        tail, head = np.append(tail, 143).astype(np.int32), np.append(head, 0).astype(np.int32)
    n, batch = len(tail), 30
    A = sp.coo_array(
        (np.repeat([1.0, -1.0], n), (np.concatenate([tail, head]), np.tile(np.arange(n), 2))), (144, n)
    )
    b = np.zeros(144)
    b[[0, 143]] = 1.0, -1.0
    form = lpdiff.LinearProgram(A_eq=A.tocsc(), b_eq=b).form
    c = np.random.default_rng(3).uniform(0, 1, (batch, n))
    # Bounds of their own, though they are those declared: the longer way.
    data, backend = dataclasses.replace(form.declared, c=c, upper=form.declared.upper.copy()), Path()
    state = backend.prepare(form)
    right = backend.solve(state, data, threads=threads)
    assert not right.status.any() and right.x.any(axis=1).all()
    assert right.certificate.value == pytest.approx((c * right.x).sum(axis=1), rel=1e-12)
    find, *steps = state.search

    def wrong(*given):
        find(*given)
        length, y, start, stop = given[-5], given[-4], *given[-2:]
        for k in range(start, stop):
            if k == 7:
                length[k] -= 1
            elif k == 20:
                y[k, 50] += 1.0

    state.__dict__["search"] = (wrong, *steps)
    found = backend.solve(state, data, threads=threads)
    assert np.flatnonzero(found.status == Status.INACCURATE).tolist() == [7, 20]
    others = np.setdiff1d(np.arange(batch), [7, 20])
    assert not found.status[others].any()
    assert np.array_equal(found.x[others], right.x[others])
    assert np.array_equal(found.y[others], right.y[others])
