"""Shortest and longest paths, in graphs and grids: against enumeration, SciPy, networkx, and the LP."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csgraph, csr_array

import lpdiff
from lpdiff import SolveError, Status
from lpdiff.problems.graphs import Graph, read_graph
from lpdiff.problems.grids import GridPath, GridProblem, grid_graph, grid_path
from lpdiff.problems.paths import GraphPath, LongestPath, PathProblem, graph_path, longest_path

DENSE = np.array(list(itertools.permutations(range(5), 2)))
ORDERED = np.array(list(itertools.combinations(range(6), 2)))


def walks(edges, source, target, nodes):
    """All simple paths from source to target, as lists of edge numbers."""
    found = []

    def extend(at, seen, taken):
        if at == target:
            found.append(list(taken))
            return
        for number, (tail, head) in enumerate(edges):
            if tail == at and head not in seen:
                extend(head, seen | {head}, [*taken, number])

    extend(source, {source}, [])
    return found


def enumerated(edges, costs, source, target, nodes, best=np.min):
    """Best values by enumeration, (B,); +-inf where there is none."""
    walked = walks([tuple(e) for e in edges], source, target, nodes)
    none = np.inf if best is np.min else -np.inf
    if not walked:
        return np.full(len(costs), none)
    totals = np.stack([costs[:, w].sum(1) for w in walked], 1)
    return best(totals, axis=1)


# -- graphs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("source", "target"), [(0, 4), (3, 1)])
def test_enumeration_on_dense_graphs(source, target, ties):
    rng = np.random.default_rng(0)
    costs = rng.integers(0, 4, (100, len(DENSE))).astype(float) if ties else rng.random((100, len(DENSE)))
    costs[rng.random(costs.shape) < 0.5] = np.inf
    found = graph_path(DENSE, torch.from_numpy(costs), source, target, throw=False)
    expected = enumerated(DENSE, costs, source, target, 5)
    assert np.isinf(expected).sum() > 2  # some items have no path
    assert np.allclose(found.value, expected, rtol=1e-12)
    assert found.ok.numpy().tolist() == np.isfinite(expected).tolist()
    assert (found.status.numpy()[np.isinf(expected)] == Status.INFEASIBLE).all()
    for k, nodes in enumerate(found.decode()):
        if not np.isfinite(expected[k]):
            assert nodes == [] and (found.nodes[k] == -1).all() and (found.edges[k] == -1).all()
            continue
        assert nodes[0] == source and nodes[-1] == target and len(set(nodes)) == len(nodes)
        edges = [e for e in found.edges[k].tolist() if e >= 0]
        assert [tuple(DENSE[e]) for e in edges] == list(itertools.pairwise(nodes))
        assert costs[k, edges].sum() == pytest.approx(expected[k])


def test_negative_costs_without_negative_cycles():
    rng = np.random.default_rng(1)
    level = rng.normal(size=(60, 5))  # costs that levels shift have the cycles of the others
    costs = rng.random((60, len(DENSE))) + level[:, DENSE[:, 1]] - level[:, DENSE[:, 0]]
    assert (costs < 0).any(1).all()
    found = graph_path(DENSE, costs, 0, 4)
    assert np.allclose(found.value, enumerated(DENSE, costs, 0, 4, 5))
    bad = costs[:3].copy()
    bad[1] = -1.0
    with pytest.raises(SolveError, match=r"(?s)item 1: unbounded.*cycle of negative cost") as caught:
        graph_path(DENSE, bad, 0, 4)
    assert caught.value.items == [(1,)] and caught.value.statuses == [Status.UNBOUNDED]


@pytest.mark.parametrize("of", ["edges", "nodes"])
def test_negative_cycles_where_each_node_is_used_once(of):
    rng = np.random.default_rng(7)
    edges = np.array(list(itertools.permutations(range(4), 2)))
    costs = torch.from_numpy(rng.normal(size=(40, 4 if of == "nodes" else 12)))
    costs[torch.from_numpy(rng.random(costs.shape) < 0.3)] = torch.inf
    costs.requires_grad_()
    closed = torch.nan_to_num(costs.detach(), posinf=1e3).numpy()
    best = np.full(40, np.inf)
    for taken in itertools.product((0, 1), repeat=12):  # each node enters and leaves alike, once at most
        x = np.array(taken)
        out, into = (np.bincount(edges[:, k], x, 4) for k in (0, 1))
        if (out - into == [1, 0, 0, -1]).all() and (out <= 1).all() and (into <= 1).all() and into[0] == 0:
            visits = np.maximum(out, into) if of == "nodes" else x
            best = np.minimum(best, closed @ visits)
    found = graph_path(edges, costs, 0, 3, of=of, once=True, throw=False)
    best[best > 100] = np.inf
    assert np.isinf(best).any() and np.allclose(found.value.detach(), best)
    assert found.solution.statistics.get("network", 0) > 5  # cycles
    for nodes, ok in zip(found.decode(), found.ok, strict=True):
        assert (nodes[0] == 0 and nodes[-1] == 3) if ok else nodes == []
    part = found.edge_indicator if of == "edges" else found.node_indicator
    (grad,) = torch.autograd.grad(found.value[found.ok].sum(), costs)
    assert torch.equal(grad[found.ok], part.detach()[found.ok])
    assert ((part == 0) | (part == 1))[found.ok].all()


def test_scipy_on_larger_graphs():
    rng = np.random.default_rng(2)
    n, e = 60, 400
    edges = np.unique(rng.integers(0, n, (e, 2)), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    costs = rng.random((20, len(edges))) + 0.01
    source, target = rng.integers(0, n, 20), rng.integers(0, n, 20)
    for directed in (True, False):
        found = graph_path(edges, costs, source, target, nodes=n, directed=directed, throw=False)
        for k in range(20):
            graph = csr_array((costs[k], edges.T), shape=(n, n))
            both = np.full(
                (n, n), np.inf
            )  # SciPy adds both directions of an undirected edge: keep the cheaper
            np.minimum.at(both, (edges[:, 0], edges[:, 1]), costs[k])
            if not directed:
                graph = csr_array(np.where(np.isinf(m := np.minimum(both, both.T)), 0.0, m))
            assert float(found.value[k]) == pytest.approx(
                csgraph.dijkstra(graph, indices=source[k])[target[k]]
            )


def test_networkx_on_costs_of_nodes():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(3)
    costs = rng.random((15, 30))
    edges = rng.integers(0, 30, (90, 2))
    graph = networkx.DiGraph(edges.tolist())
    graph.add_nodes_from(range(30))
    found = graph_path(edges, costs, 0, 29, nodes=30, of="nodes", throw=False)
    for k in range(15):
        try:
            path = networkx.shortest_path(graph, 0, 29, weight=lambda u, v, d, k=k: costs[k, v])
        except networkx.NetworkXNoPath:
            assert not found.ok[k]
            continue
        assert costs[k, path].sum() == pytest.approx(float(found.value[k]))
        assert found.decode()[k] == path
        assert sorted(path) == found.node_indicator[k].nonzero()[:, 0].tolist()
    assert found.ok.any()


def test_longest_paths_by_enumeration_and_networkx():
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(80, len(ORDERED)))
    scores[rng.random(scores.shape) < 0.5] = -np.inf
    found = longest_path(ORDERED, torch.from_numpy(scores), 0, 5, throw=False)
    expected = enumerated(ORDERED, scores, 0, 5, 6, np.max)
    assert np.isinf(expected).any() and np.allclose(found.value, expected)
    networkx = pytest.importorskip("networkx")
    graph = networkx.DiGraph()
    weights = rng.random(len(ORDERED))
    graph.add_weighted_edges_from([(*e, w) for e, w in zip(ORDERED.tolist(), weights, strict=True)])
    longest = networkx.dag_longest_path_length(graph)  # from 0 to 5, since all weights are positive
    assert float(longest_path(ORDERED, weights, 0, 5).value) == pytest.approx(longest)


def test_a_cycle_is_named():
    with pytest.raises(ValueError, match=r"3 -> 1 -> 2 -> 3|1 -> 2 -> 3 -> 1|2 -> 3 -> 1 -> 2"):
        longest_path([[0, 1], [1, 2], [2, 3], [3, 1]], torch.ones(4), 0, 3)
    longest_path([[0, 1], [1, 2], [0, 2]], torch.ones(3), 0, 2)


@pytest.mark.parametrize("of", ["edges", "nodes"])
@pytest.mark.parametrize("directed", [True, False])
def test_gradients_are_indicators(directed, of):
    torch.manual_seed(0)
    size = 5 if of == "nodes" else len(DENSE)
    costs = torch.rand(2, 7, size, dtype=torch.float64, requires_grad=True)
    found = graph_path(DENSE, costs, 0, 4, directed=directed, of=of)
    weight = torch.randn(2, 7, dtype=torch.float64)
    (grad,) = torch.autograd.grad((weight * found.value).sum(), costs)
    indicator = found.node_indicator if of == "nodes" else found.edge_indicator
    assert torch.equal(grad, weight[..., None] * indicator.detach())
    assert torch.allclose((indicator * costs).sum(-1), found.value)
    assert torch.autograd.gradcheck(
        lambda c: graph_path(DENSE, c, 0, 4, directed=directed, of=of).value, costs, fast_mode=True
    )
    with pytest.raises(lpdiff.UnsupportedError, match="gradient="):
        indicator.sum().backward()
    rule = lpdiff.gradients.Interpolation(5.0)  # moves costs below zero
    ruled = graph_path(DENSE, costs, 0, 4, directed=directed, of=of, once=True, gradient=rule)
    assert torch.equal(ruled.nodes, found.nodes)
    target = torch.randn(2, 7, 5, dtype=torch.float64)
    (grad,) = torch.autograd.grad((ruled.node_indicator * target).sum(), costs)
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("solver", ["highs", "network", "path"])
def test_every_solver_solves_the_same_lp(solver):
    torch.manual_seed(1)
    costs = torch.rand(40, len(DENSE), dtype=torch.float64, requires_grad=True)
    source, target = torch.randint(0, 2, (40,)), torch.randint(3, 5, (40,))
    auto = graph_path(DENSE, costs, source, target)
    named = graph_path(DENSE, costs, source, target, solver=solver)
    assert named.solution.solver == solver
    assert torch.allclose(auto.value, named.value)
    assert torch.equal(auto.nodes, named.nodes)
    grads = [torch.autograd.grad(found.value.sum(), costs)[0] for found in (auto, named)]
    assert torch.allclose(*grads)
    spread = [found.solution.y[..., 0] - found.solution.y[..., -1] for found in (auto, named)]
    assert spread[0].shape == (40,)


def test_what_is_recognised():
    for moves in (4, 8, "monotone"):
        for of_nodes in (True, False):
            problem = PathProblem(grid_graph(4, 4, moves), moves == "monotone", of_nodes, 0, 15)
            told = str(lpdiff.plan(problem))
            assert told.startswith("Plan: path,") and "one path from row 0" in told
            assert ("acyclic" in told) == (moves == "monotone")


def test_source_that_is_the_target():
    costs = torch.rand(3, len(DENSE), dtype=torch.float64, requires_grad=True)
    found = graph_path(DENSE, costs, 2, 2)
    assert (found.value == 0).all() and found.decode() == [[2], [2], [2]] and found.edges.shape == (3, 0)
    paid = graph_path(DENSE, torch.arange(5.0), 2, 2, of="nodes")
    assert float(paid.value) == 2.0 and paid.decode() == [2]
    shut = graph_path(DENSE, torch.tensor([1.0, torch.inf, 1.0, 1.0, 1.0]), 1, 1, of="nodes", throw=False)
    assert shut.status == Status.INFEASIBLE and shut.decode() == []
    several = graph_path(DENSE, costs, [2, 0, 1], [2, 1, 1])
    assert several.decode()[0] == [2] and several.decode()[2] == [1]
    assert several.decode()[1][0] == 0 and several.decode()[1][-1] == 1
    lonely = graph_path([], torch.zeros(4, 0), 0, 0, nodes=1)
    assert lonely.decode() == [[0]] * 4 and (lonely.value == 0).all()


def test_parallel_edges_loops_and_undirected_pairs():
    edges = [[0, 1], [0, 1], [1, 1], [2, 1]]
    found = graph_path(edges, torch.tensor([2.0, 1.0, 0.5, 1.0]), 0, 2, directed=False)
    assert float(found.value) == 2.0 and found.edges.tolist() == [1, 3] and found.decode() == [0, 1, 2]
    with pytest.raises(SolveError, match="infeasible here means: no open path"):
        graph_path(edges, torch.ones(4), 0, 2)


def test_shapes_dtypes_and_batches():
    base = torch.rand(len(DENSE), 3)
    for dtype in (torch.float16, torch.float32, torch.float64):
        found = graph_path(DENSE, base.to(dtype).T, 0, 4)  # not contiguous
        assert found.value.dtype == dtype and found.value.shape == (3,)
        assert found.edge_indicator.dtype == dtype
    whole = graph_path(DENSE, base.T, 0, 4)
    nested = graph_path(DENSE, base.T.reshape(1, 3, -1).expand(2, 3, -1), 0, 4)
    assert nested.nodes.shape[:2] == (2, 3) and nested.decode()[1] == whole.decode()
    one = graph_path(DENSE, base[:, 0], 0, 4)
    assert one.value.shape == () and one.decode() == whole.decode()[0]
    none = graph_path(DENSE, torch.zeros(0, len(DENSE)), 0, 4)
    assert none.value.shape == (0,) and none.decode() == [] and none.edge_indicator.shape == (0, len(DENSE))
    fresh = graph_path(DENSE, base[:, 0].expand(3, -1), torch.tensor([0, 1, 2]), torch.tensor(4))
    assert [nodes[0] for nodes in fresh.decode()] == [0, 1, 2]
    assert float(graph_path(DENSE.tolist(), base[:, 0].double().numpy(), 0, 4).value) == pytest.approx(
        float(one.value)
    )


def test_costs_that_are_none_are_told():
    costs = torch.rand(3, len(DENSE))
    costs[1, 2] = torch.nan
    with pytest.raises(SolveError, match="item 1") as caught:
        graph_path(DENSE, costs, 0, 4)
    assert caught.value.statuses == [Status.INVALID]
    found = graph_path(DENSE, costs, 0, 4, throw=False)
    assert found.status.tolist() == [0, Status.INVALID, 0] and torch.isnan(found.value[1])
    assert found.decode()[1] == [] and found.decode()[0]


def test_bad_input_is_named():
    costs = torch.rand(2, len(DENSE))
    for call, told in (
        (lambda: graph_path(DENSE.T, costs, 0, 4), "Transpose it"),
        (lambda: graph_path(DENSE.astype(float), costs, 0, 4), "expected integers"),
        (lambda: graph_path(DENSE, costs, 0, 4, nodes=3), "edge 2 joins 0 and 3, expected nodes 0 to 2"),
        (lambda: graph_path(DENSE, costs, [0, 5], 4), "source: item 1 has node 5, expected 0 to 4"),
        (lambda: graph_path(DENSE, costs, 0, -1), "target: got node -1"),
        (lambda: graph_path(DENSE, costs, [0, 1, 2], 4), "one an item of the batch"),
        (lambda: graph_path(DENSE, costs[:, 1:], 0, 4), "costs: expected shape"),
        (lambda: graph_path(DENSE, costs, 0, 4, of="cells"), "of: expected"),
        (lambda: grid_path(torch.rand(3)), "expected cells"),
        (lambda: grid_path(torch.rand(0, 3)), "no cell"),
        (lambda: grid_path(torch.rand(3, 3), moves=6), "moves: expected"),
        (lambda: grid_path(torch.rand(5), shape=(3, 3)), "an edge each of the 3 x 3 grid"),
        (lambda: grid_path(torch.rand(2, 3, 3), end=[[2, 2], [3, 0]]), "end: item 1 has cell"),
        (lambda: grid_path(torch.rand(2, 3, 3), start=5), "expected .row, column."),
        (lambda: grid_path(torch.rand(2, 3, 3), mask=torch.ones(3, 3)), "mask: expected booleans"),
        (lambda: grid_path(torch.rand(20), shape=(3, 3), mask=[[True]]), "mask: for costs of cells"),
    ):
        with pytest.raises(ValueError, match=told):
            call()


# -- grids -------------------------------------------------------------------------------------------------


def by_dijkstra(costs, moves, start, end):
    """The value of one grid by networkx."""
    networkx = pytest.importorskip("networkx")
    height, width = costs.shape
    graph = networkx.DiGraph()
    steps = {4: [(0, 1), (1, 0), (0, -1), (-1, 0)], "monotone": [(0, 1), (1, 0)]}
    steps[8] = [s for s in itertools.product((-1, 0, 1), repeat=2) if s != (0, 0)]
    for i, j in itertools.product(range(height), range(width)):
        for di, dj in steps[moves]:
            if 0 <= i + di < height and 0 <= j + dj < width:
                graph.add_edge((i, j), (i + di, j + dj), weight=costs[i + di, j + dj])
    graph.add_nodes_from(itertools.product(range(height), range(width)))
    try:
        return costs[start] + networkx.dijkstra_path_length(graph, start, end)
    except networkx.NetworkXNoPath:
        return np.inf


@pytest.mark.parametrize("moves", [4, 8, "monotone"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (2, 2), (5, 4)])
def test_grids_by_dijkstra(shape, moves):
    rng = np.random.default_rng(5)
    costs = rng.integers(0, 3, (12, *shape)).astype(float)
    start, end = (0, 0), (shape[0] - 1, shape[1] - 1)
    found = grid_path(torch.from_numpy(costs), moves=moves)
    expected = [by_dijkstra(c, moves, start, end) for c in costs]
    assert np.allclose(found.value, expected)
    for k, cells in enumerate(found.decode()):
        assert cells[0] == start and cells[-1] == end
        assert sum(costs[k][cell] for cell in cells) == expected[k]
        for (i, j), (a, b) in itertools.pairwise(cells):
            step = (a - i, b - j)
            assert max(map(abs, step)) == 1
            assert moves == 8 or abs(step[0]) + abs(step[1]) == 1
            assert moves != "monotone" or min(step) >= 0
        mark = np.zeros(shape)
        mark[tuple(zip(*cells, strict=True))] = 1
        assert np.array_equal(found.indicator[k].numpy(), mark)
        assert found.cells[k][: len(cells)].tolist() == [list(cell) for cell in cells]
        assert (found.cells[k][len(cells) :] == -1).all()


def test_grids_with_walls_sizes_and_ends_of_their_own():
    rng = np.random.default_rng(6)
    costs = torch.from_numpy(rng.random((30, 6, 7))).requires_grad_()
    high, wide = rng.integers(1, 7, 30), rng.integers(1, 8, 30)
    mask = (np.arange(6)[:, None] < high[:, None, None]) & (np.arange(7) < wide[:, None, None])
    mask &= rng.random(mask.shape) < 0.85
    end = np.stack([high - 1, wide - 1], 1)
    start = np.stack([rng.integers(0, high), rng.integers(0, wide)], 1)
    found = grid_path(costs, mask=mask, start=start, end=torch.from_numpy(end), throw=False)
    closed = np.where(mask, costs.detach().numpy(), np.inf)
    expected = np.array(
        [by_dijkstra(c, 8, tuple(s), tuple(e)) for c, s, e in zip(closed, start, end, strict=True)]
    )
    assert np.isinf(expected).any() and np.isfinite(expected).sum() > 10
    assert np.allclose(found.value.detach(), expected)
    (grad,) = torch.autograd.grad(found.value[found.ok].sum(), costs)
    assert torch.equal(grad[found.ok], found.indicator.detach()[found.ok])
    assert (grad[~found.ok] == 0).all()


def test_negative_costs_on_the_monotone_grid_by_a_table():
    torch.manual_seed(2)
    costs = torch.randn(25, 6, 5, dtype=torch.float64)
    table = costs.clone()
    for i, j in itertools.product(range(6), range(5)):
        before = [table[:, i - 1, j]] if i else []
        before += [table[:, i, j - 1]] if j else []
        if before:
            table[:, i, j] += torch.stack(before).min(0).values
    assert torch.allclose(grid_path(costs, moves="monotone").value, table[:, -1, -1])
    with pytest.raises(SolveError, match="cycle of negative cost"):
        grid_path(costs, moves=4)


@pytest.mark.parametrize("moves", [4, 8, "monotone"])
@pytest.mark.parametrize("solver", ["highs", "path"])
def test_grids_by_their_own_solver_and_by_the_lp(solver, moves):
    torch.manual_seed(3)
    costs = torch.rand(3, 10, 5, 6, dtype=torch.float64)
    costs[torch.rand(costs.shape) < 0.25] = torch.inf
    costs.requires_grad_()
    own, other = (grid_path(costs, moves=moves, throw=False, solver=s) for s in ("auto", solver))
    assert own.evaluation.solver == "oracle" and own.solution is None
    assert other.solution.statistics[solver] >= int(other.ok.sum())
    assert 3 < int(own.ok.sum()) < 30
    assert torch.equal(own.status, other.status) and torch.equal(own.nodes, other.nodes)
    assert torch.allclose(own.value, other.value) and torch.equal(own.edges, other.edges)
    assert own.decode() == other.decode() and torch.equal(own.cells, other.cells)
    assert torch.allclose(own.indicator[own.ok], other.indicator[own.ok])
    grads = [torch.autograd.grad(found.value[own.ok].sum(), costs)[0] for found in (own, other)]
    assert torch.allclose(*grads) and grads[0].sum() > 0
    steps = other.edge_indicator.detach()[own.ok]
    for edges, marked in zip(own.edges[own.ok].tolist(), steps, strict=True):
        assert sorted(e for e in edges if e >= 0) == marked.nonzero()[:, 0].tolist()
    with pytest.raises(lpdiff.UnsupportedError, match="these costs are of cells"):
        _ = own.edge_indicator
    with pytest.raises(lpdiff.UnsupportedError, match="gradient="):
        own.indicator[own.ok].sum().backward()
    assert torch.autograd.gradcheck(
        lambda c: grid_path(c, moves=moves).value, costs.detach().nan_to_num(posinf=2.0).requires_grad_(),
        fast_mode=True,
    )  # fmt: skip


def test_grids_that_their_own_solver_refuses():
    costs = torch.rand(4, 3, 3, dtype=torch.float64)
    costs[1, 0, 1] = -0.1  # a cycle: to and fro
    problem = GridProblem((3, 3), 8)
    with pytest.raises(SolveError, match="item 1: unbounded"):
        lpdiff.evaluate(problem, costs, 0, 8)
    once = lpdiff.evaluate(GridProblem((3, 3), 8, once=True), costs, 0, 8)
    assert once.solver == "oracle" and once.ok.all()
    assert torch.allclose(once.value, grid_path(costs, once=True).value)
    assert torch.allclose(once.indicator(0), grid_path(costs, once=True).indicator)
    costs[1, 0, 1], costs[2, 1, 1] = torch.nan, -torch.inf
    with pytest.raises(SolveError, match="a cost is NaN") as caught:
        lpdiff.evaluate(problem, costs, 0, 8)
    assert caught.value.items == [(1,), (2,)]
    found = grid_path(costs, throw=False)
    assert found.status.tolist() == [0, Status.INVALID, Status.INVALID, 0] and found.decode()[1:3] == [[], []]
    assert grid_path(torch.zeros(0, 3, 3)).cells.shape == (0, 1, 2)
    assert grid_path(torch.rand(3, 3).half()).value.dtype == torch.float16


def test_costs_of_edges_are_in_the_order_of_pyepo():
    pytest.importorskip("pyepo")
    from pyepo.data.shortestpath import genData  # noqa: F401

    graph = grid_graph(3, 4, "monotone")
    arcs = []  # what its shortestPathModel builds
    for i in range(3):
        arcs += [(i * 4 + j, i * 4 + j + 1) for j in range(3)]
        if i < 2:
            arcs += [(i * 4 + j, i * 4 + j + 4) for j in range(4)]
    assert [tuple(pair) for pair in graph.pairs.T.tolist()] == arcs
    assert grid_graph(3, 4, 4) == graph and grid_graph(2, 2, 8).edges == 6
    costs = torch.rand(10, graph.edges, dtype=torch.float64, requires_grad=True)
    found = grid_path(costs, moves="monotone", shape=(3, 4))
    assert np.allclose(found.value.detach(), enumerated(graph.pairs.T, costs.detach().numpy(), 0, 11, 12))
    assert torch.equal(torch.autograd.grad(found.value.sum(), costs)[0], found.edge_indicator.detach())
    assert torch.equal(found.indicator.detach().flatten(1), found.node_indicator.detach())
    assert (found.indicator.detach().sum((1, 2)) == 6).all()
    both = grid_path(costs, moves=4, shape=(3, 4))
    assert (both.value <= found.value).all()


# -- modules and graphs ------------------------------------------------------------------------------------


def test_modules():
    costs = torch.rand(4, 5, 5)
    module = GridPath(moves="monotone", solver="highs")
    for copied in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(copied(costs).value, grid_path(costs, moves="monotone", solver="highs").value)
    edges = torch.from_numpy(ORDERED)
    scores = torch.rand(len(ORDERED), requires_grad=True)
    assert GraphPath(of="nodes")(edges, torch.rand(6), 0, 5).value > 0
    LongestPath()(edges, scores, 0, 5).value.backward()
    assert scores.grad.sum() > 0
    with pytest.raises(TypeError, match="no option 'move'"):
        GridPath(move=4)


def test_graphs_are_values():
    graph = read_graph(DENSE)
    assert graph == read_graph(torch.from_numpy(DENSE)) and hash(graph) == hash(read_graph(DENSE.tolist()))
    assert graph != read_graph(DENSE, 6) and read_graph(graph) is graph
    assert isinstance(read_graph([]), Graph) and read_graph([]).nodes == 0
    assert repr(graph) == "Graph(5 nodes, 20 edges)"
    first = PathProblem(graph, True, False, 0, 4).program
    assert first is PathProblem(read_graph(DENSE), True, False, 0, 4).program
