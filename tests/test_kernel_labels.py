"""Labels that prove themselves: the same bits as of the longer way, for as many items at a time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.kernels.graphs import walk
from lpdiff.kernels.labels import WIDTH, potentials, proves, shortest
from lpdiff.kernels.paths import dag_paths
from lpdiff.kernels.route import follow, prove
from tests.test_kernel_paths import grid
from tests.test_kernel_route import COSTS

DECLINED = 7


def spanning(g, nodes, arcs):
    """A random acyclic graph whose first node reaches all: tail, head, order."""
    place_head = np.append(np.arange(1, nodes), g.integers(1, nodes, arcs))
    place_tail = (g.random(len(place_head)) * place_head).astype(int)
    order, mixed = g.permutation(nodes).astype(np.int32), g.permutation(len(place_head))
    return order[place_tail[mixed]], order[place_head[mixed]], order


def find(graph, c, sink, rows, span=None):
    """What the kernel leaves: path, length, ends, status, y."""
    steps, size = walk(*graph), len(c)
    blocks = -(-size // WIDTH)
    labels = np.full((blocks * len(steps.order) + 1) * WIDTH, np.nan)
    path, length = np.full((size, len(steps.order)), -1, np.int32), np.full(size, -1, np.int32)
    ends, status = np.full((size, 2), np.nan), np.full(size, 99, np.int8)
    given = (int(steps.position[sink]), steps.reference, steps.pointers, steps.arcs, steps.tails, c)
    for start, stop in [(0, blocks)] if span is None else [(0, span), (span, blocks)]:
        shortest(*given, labels, path, length, ends, status, start, stop)
    return path, length, ends, status, potentials(labels, size, steps, rows)


def judge(graph, c, sink, path, length, ends, status, f=1.0, upper=None):
    tail, head, order = graph
    upper = np.full(len(tail), np.inf) if upper is None else upper
    ok, value, gap = np.zeros(len(c), bool), *np.full((2, len(c)), np.nan)
    left = follow(*(tail, head, upper, f, order[0], sink, c, path, length, ends, status), ok, value, gap)
    assert left == (~ok).sum()
    return ok, value, gap


@pytest.mark.parametrize("costs", COSTS)
def test_the_same_bits_as_the_longer_way(costs):
    g = np.random.default_rng(len(costs))
    for _ in range(25):
        nodes, size = int(g.integers(2, 30)), int(g.integers(8, 40))
        graph = spanning(g, nodes, int(g.integers(0, 3 * nodes)))
        tail, head, order = graph
        n, rows = len(tail), nodes - int(g.integers(0, 2))
        c, f, sink = COSTS[costs](g, (size, n)), float(g.choice([1.0, 0.3])), order[g.integers(1, nodes)]
        upper, ends = np.full((1, n), np.inf), (np.array([f]), order[:1], np.array([sink], np.int32))
        path, length = np.full((size, nodes), -1, np.int32), np.empty(size, np.int32)
        y, status, ok = np.empty((size, rows)), np.empty(size, np.int8), np.zeros(size, bool)
        dag_paths(c, upper, *ends, *walk(*graph), path, length, y, status, 0, size)
        value, gap, dual = np.empty((3, size))
        assert not prove(
            *(tail, head, c, upper, *ends, path, length, y, False, 2e-15, 0, size, status, ok),
            *(value, gap, dual),
        )
        assert proves(walk(*graph), tail, head)
        found = find(graph, c, sink, rows, span=int(g.integers(0, 2)))
        verdict = judge(graph, c, sink, *found[:4], f=f)
        assert verdict[0].all() and not found[3].any()
        for mine, theirs in zip(
            (*found[:2], found[4], *verdict[1:]), (path, length, y, value, gap), strict=True
        ):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("costs", COSTS)
def test_reduced_costs_keep_to_the_proved_bound(costs):
    g = np.random.default_rng(50 + len(costs))
    unit, below = Fraction(1, 2**53), 0
    for _ in range(5):
        graph = spanning(g, 20, 60)
        tail, head, order = graph
        c = COSTS[costs](g, (8, len(tail)))
        *_, y = find(graph, c, order[-1], 20)
        for item in range(8):
            exact = [Fraction(number) for number in y[item]]
            for cost, a, b in zip(c[item].tolist(), tail.tolist(), head.tolist(), strict=True):
                d = Fraction(cost) - exact[a] + exact[b]
                anchor = abs(exact[order[0]]) + abs(exact[a]) + (2 + 2 * unit) * abs(exact[b])
                assert d >= -unit * anchor
                below += d < 0
    assert below > 0 or costs in ("ties", "zero")  # so that the bound was needed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e291, -1e291])
def test_strange_costs_are_declined(bad):
    graph = grid(3, 4)
    g = np.random.default_rng(1)
    c = g.uniform(0, 1, (13, len(graph[0])))
    right = find(graph, c, 11, 12)
    for item, j in ((0, 0), (12, 3), (7, len(graph[0]) - 1)):
        wrong = c.copy()
        wrong[item, j] = bad
        found = find(graph, wrong, 11, 12)
        others = np.arange(13) != item
        assert found[3][item] == DECLINED and not judge(graph, wrong, 11, *found[:4])[0][item]
        assert judge(graph, wrong, 11, *found[:4])[0][others].all()
        for mine, theirs in zip(found, right, strict=True):
            assert np.array_equal(mine[others], theirs[others])


def test_walks_along_other_arcs_prove_nothing():
    g = np.random.default_rng(2)
    graph = spanning(g, 12, 20)
    tail, head, _ = graph
    right = walk(*graph)
    assert proves(right, tail, head)
    for name in right._fields:
        if name == "reference":  # only where y is 0
            continue
        for _ in range(10):
            array = getattr(right, name).copy()
            a, b = g.choice(len(array), 2, replace=False)
            if array[a] == array[b]:
                continue
            swapped, twice = array.copy(), array.copy()
            swapped[[a, b]] = array[[b, a]]
            twice[a] = array[b]
            for changed in (swapped, twice):
                if name == "arcs" and (tail[array[a]], head[array[a]]) == (tail[array[b]], head[array[b]]):
                    continue  # parallel arcs may change places, but none occurs twice
                assert not proves(right._replace(**{name: changed}), tail, head)
    # An arc that is left out; one too many; a node that is not reached; another first node; a cycle.
    assert not proves(right, tail[:-1], head[:-1])
    assert not proves(right, np.append(tail, tail[0]), np.append(head, head[0]))
    tail, head = np.array([0, 0, 1], np.int32), np.array([2, 2, 2], np.int32)
    assert not proves(walk(tail, head, np.arange(3)), tail, head)
    tail, head = np.array([0, 1, 2], np.int32), np.array([1, 2, 1], np.int32)
    assert not proves(walk(tail, head, np.arange(3)), tail, head)


@pytest.mark.parametrize("costs", COSTS)
def test_other_paths_are_refused(costs):
    g = np.random.default_rng(70 + len(costs))
    graph = grid(4, 4)
    n, refused = len(graph[0]), 0
    for _ in range(10):
        c, size = COSTS[costs](g, (16, n)), 16
        _, _, ends, status, y = find(graph, c, 15, 16)
        path, length, *_ = find(graph, g.uniform(0, 1, (size, n)), 15, 16)
        ok, *_ = judge(graph, c, 15, path, length, ends, status)
        for k in range(size):
            total = sum((Fraction(c[k, j]) for j in path[k, : length[k]]), Fraction(0))
            best = Fraction(ends[k, 1])
            slack = Fraction(2e-15) * 16 * Fraction(float(np.abs(y[k]).max()))
            assert total - best <= slack if ok[k] else total != best
            refused += not ok[k]
    assert refused == 0 if costs == "zero" else refused > 50


def test_what_is_no_path_is_refused():
    graph = grid(3, 3)
    tail, _, _ = graph
    n, c = len(tail), np.zeros((8, len(tail)))  # so that labels prove nothing
    path, length, ends, status, _ = find(graph, c, 8, 9)
    assert judge(graph, c, 8, path, length, ends, status)[0].all()
    for bad in (-1, n, 2**31 - 1, -(2**31), next(j for j in range(n) if j not in path[0, : length[0]])):
        for place in range(length[0]):
            wrong = path.copy()
            wrong[0, place] = bad
            assert judge(graph, c, 8, wrong, length, ends, status)[0].tolist() == [False] + [True] * 7
    for other in (-1, 0, length[0] - 1, length[0] + 1, 100):
        wrong = length.copy()
        wrong[0] = other
        assert judge(graph, c, 8, path, wrong, ends, status)[0].tolist() == [False] + [True] * 7
    for j in path[0, : length[0]]:
        for u in (0.0, 0.5, np.nan):
            upper = np.full(n, np.inf)
            upper[j] = u
            assert not judge(graph, c, 8, path, length, ends, status, upper=upper)[0][0]
    said = status.copy()
    said[0] = DECLINED
    assert judge(graph, c, 8, path, length, ends, said)[0].tolist() == [False] + [True] * 7
    for f in (0.0, -1.0, np.nan, np.inf):
        assert not judge(graph, c, 8, path, length, ends, status, f=f)[0].any()
    for sink in (7, 0):
        assert not judge(graph, c, sink, path, length, ends, status)[0].any()
    for label in (np.nan, 5e-324, -1.0):
        wrong = ends.copy()
        wrong[0, 1] = label
        assert judge(graph, c, 8, path, length, wrong, status)[0].tolist() == [False] + [True] * 7


@pytest.mark.parametrize("sense", ["min", "max"])
def test_solutions_written_out_late_are_the_same(sense):
    """x and y of a batch, whenever they are asked for, are those of its items alone; so are gradients."""
    tail, head, _ = grid(4, 5)
    A = np.zeros((20, len(tail)))
    A[tail, np.arange(len(tail))], A[head, np.arange(len(tail))] = 1.0, -1.0
    b = np.zeros(20)
    b[[0, -1]] = 1.0, -1.0
    A[3], b[3] = -A[3], -b[3]  # a row of the other sign
    lp = lpdiff.LinearProgram(A_eq=A, b_eq=b, sense=sense)
    g = np.random.default_rng(4)
    c, weight = torch.tensor(g.normal(size=(19, len(tail)))), torch.tensor(g.normal(size=19))

    def gradient(costs, weight, ask):
        leaf = costs.clone().requires_grad_()
        sol = lpdiff.solve(lp, c=leaf, solver="path")
        asked = [sol.x, sol.y] if ask else []
        (sol.value * weight).sum().backward()
        return leaf.grad, sol, asked

    early, sol, (x, y) = gradient(c, weight, True)
    late, other, _ = gradient(c, weight, False)
    assert sol.solver == "path" and not sol.fallback.any()
    # To the bit: also the sign of zeros.
    assert (
        early.numpy().tobytes() == late.numpy().tobytes() == (x * weight[:, None]).detach().numpy().tobytes()
    )
    assert torch.equal(x, other.x) and torch.equal(y, other.y)
    torch.testing.assert_close((c * x).sum(1), sol.value)
    torch.testing.assert_close(y @ torch.tensor(b), sol.value)
    for k in (0, 7, 8, 18):
        alone, one, _ = gradient(c[k : k + 1], weight[k : k + 1], False)
        assert alone.numpy().tobytes() == late[k].numpy().tobytes()
        for name in ("x", "y", "value", "gap", "dual_residual", "reduced_costs"):
            assert torch.equal(getattr(one, name)[0], getattr(other, name)[k]), name
    # The costs that were solved may change before the duals are asked for.
    costs = c.clone()
    sol = lpdiff.solve(lp, c=costs, solver="path")
    costs.zero_()
    assert torch.equal(sol.y, y)


def test_second_derivatives_and_transforms_of_a_batch():
    tail, head, _ = grid(3, 4)
    A = np.zeros((12, len(tail)))
    A[tail, np.arange(len(tail))], A[head, np.arange(len(tail))] = 1.0, -1.0
    b = np.zeros(12)
    b[[0, -1]] = 1.0, -1.0
    lp = lpdiff.LinearProgram(A_eq=A, b_eq=b)
    c = torch.tensor(np.random.default_rng(5).normal(size=(9, len(tail))), requires_grad=True)
    value = lpdiff.solve(lp, c=c).value
    (first,) = torch.autograd.grad(value.sum(), c, create_graph=True)
    assert first.requires_grad and torch.equal(first, lpdiff.solve(lp, c=c).x)
    (second,) = torch.autograd.grad((first**2).sum(), c)
    assert not second.any()  # x is constant around a vertex
    mapped = torch.func.vmap(torch.func.grad(lambda costs: lpdiff.solve(lp, c=costs).value))(c.detach())
    assert torch.equal(mapped, first)
    several = torch.eye(9, dtype=torch.float64)
    (rows,) = torch.autograd.grad(lpdiff.solve(lp, c=c).value, c, several, is_grads_batched=True)
    assert torch.equal(rows, several[:, :, None] * first.detach())
    _, tangent = torch.func.jvp(lambda costs: lpdiff.solve(lp, c=costs).value, (c.detach(),), (c.detach(),))
    torch.testing.assert_close(tangent, value.detach())
