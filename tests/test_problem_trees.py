"""Minimum spanning trees: against enumeration, networkx, Martin's LP and Edmonds' LP."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff import SolveError, Status
from lpdiff.problems.graphs import read_graph
from lpdiff.problems.trees import MinimumSpanningTree, TreeProblem, minimum_spanning_tree, tree_program

COMPLETE = np.array(list(itertools.combinations(range(5), 2)))


def is_forest(edges, nodes):
    group = list(range(nodes))
    for a, b in edges:
        if group[a] == group[b]:
            return False
        group = [group[a] if g == group[b] else g for g in group]
    return True


SPANNING = np.array(
    [
        [e in chosen for e in range(len(COMPLETE))]
        for chosen in itertools.combinations(range(len(COMPLETE)), 4)
        if is_forest(COMPLETE[list(chosen)], 5)
    ],
    dtype=float,
)


def test_cayley():
    assert len(SPANNING) == 5**3


@pytest.mark.parametrize("solver", ["auto", "highs"])
@pytest.mark.parametrize("ties", [False, True])
def test_enumeration(ties, solver):
    rng = np.random.default_rng(0)
    size = 100 if solver == "auto" else 30
    costs = rng.integers(-1, 3, (size, 10)).astype(float) if ties else rng.normal(size=(size, 10))
    costs[rng.random(costs.shape) < 0.45] = np.inf
    found = minimum_spanning_tree(COMPLETE, torch.from_numpy(costs), solver=solver, throw=False)
    with np.errstate(invalid="ignore"):
        expected = np.where(SPANNING, costs[:, None], 0.0).sum(-1).min(1)
    assert np.isinf(expected).any() and np.isfinite(expected).sum() > 10
    assert np.allclose(found.value, expected)
    assert np.array_equal(found.ok, np.isfinite(expected))
    assert (found.status.numpy()[np.isinf(expected)] == Status.INFEASIBLE).all()
    for k, pairs in enumerate(found.decode()):
        if not found.ok[k]:
            assert pairs == [] and (found.edges[k] == -1).all()
            continue
        assert is_forest(pairs, 5) and costs[k, found.edges[k]].sum() == pytest.approx(expected[k])
        assert found.indicator[k].nonzero()[:, 0].tolist() == found.edges[k].tolist()


def test_networkx():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(1)
    for nodes, count in ((2, 1), (12, 40), (40, 300)):
        edges = np.array(list(itertools.combinations(range(nodes), 2)))
        edges = edges[rng.permutation(len(edges))[:count]]
        costs = rng.normal(size=(10, len(edges)))
        found = minimum_spanning_tree(edges, costs, nodes=nodes, forest=True)
        for k in range(10):
            graph = networkx.Graph()
            graph.add_nodes_from(range(nodes))
            graph.add_weighted_edges_from([(*e, c) for e, c in zip(edges.tolist(), costs[k], strict=True)])
            tree = networkx.minimum_spanning_edges(graph, data=False)
            assert sorted(map(sorted, tree)) == sorted(map(sorted, found.decode()[k]))


def test_edmonds_lp():
    """The LP with a row for each set of nodes has the same values and, where nothing ties, the same trees."""
    rng = np.random.default_rng(2)
    sets = [s for size in (2, 3, 4) for s in itertools.combinations(range(5), size)]
    inside = np.array([[set(e) <= set(s) for e in COMPLETE.tolist()] for s in sets], dtype=float)
    edmonds = lpdiff.LinearProgram(
        A_ub=inside, b_ub=[len(s) - 1 for s in sets], A_eq=np.ones((1, 10)), b_eq=[4.0]
    )
    costs = torch.from_numpy(rng.normal(size=(50, 10)))
    found, other = minimum_spanning_tree(COMPLETE, costs), lpdiff.solve(edmonds, c=costs)
    assert torch.allclose(found.value, other.value) and torch.allclose(found.indicator, other.x, atol=1e-9)


def test_martins_lp_has_trees_for_vertices():
    rng = np.random.default_rng(3)
    edges = [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2], [1, 1], [0, 1], [3, 1]]  # a loop, a pair of edges
    problem = TreeProblem(read_graph(edges))
    assert problem.program is tree_program(read_graph(edges))
    assert problem.program.n == 8 * (2 * 4 + 1)
    for costs in (rng.normal(size=(60, 8)), rng.integers(0, 2, (60, 8)).astype(float)):
        costs = torch.from_numpy(costs)
        by_lp = lpdiff.solve(problem, costs)
        x = by_lp.x[:, :8]
        assert torch.allclose(x, x.round(), atol=1e-9) and (x[:, 5].abs() < 1e-9).all()
        assert torch.allclose(by_lp.value, minimum_spanning_tree(edges, costs).value)
    assert "spanning tree" in repr(problem.program) and "highs" in str(lpdiff.plan(problem))


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_gradients(solver):
    torch.manual_seed(0)
    costs = torch.randn(2, 3, 10, dtype=torch.float64, requires_grad=True)
    found = minimum_spanning_tree(COMPLETE, costs, solver=solver)
    weight = torch.randn(2, 3, dtype=torch.float64)
    (grad,) = torch.autograd.grad((weight * found.value).sum(), costs, retain_graph=True)
    assert torch.allclose(grad, weight[..., None] * found.indicator.detach(), atol=1e-12)
    assert (found.indicator.detach().sum(-1) - 4).abs().max() < 1e-9
    assert torch.autograd.gradcheck(
        lambda c: minimum_spanning_tree(COMPLETE, c, solver=solver).value, costs, fast_mode=True
    )
    shared = torch.randn(10, requires_grad=True)
    minimum_spanning_tree(COMPLETE, shared.expand(4, 10)).value.sum().backward()
    assert shared.grad.sum() == 16


def test_forests_by_both_ways():
    rng = np.random.default_rng(4)
    costs = torch.from_numpy(rng.normal(size=(40, 10)))
    costs[torch.from_numpy(rng.random((40, 10)) < 0.6)] = torch.inf
    costs.requires_grad_()
    own = minimum_spanning_tree(COMPLETE, costs, forest=True)
    other = minimum_spanning_tree(COMPLETE, costs, forest=True, solver="highs")
    assert own.ok.all() and other.ok.all()
    assert torch.equal(own.edges, other.edges) and torch.allclose(own.value, other.value)
    counts = (own.edges >= 0).sum(-1)
    assert counts.min() < 3 and counts.max() == 4
    grads = [torch.autograd.grad(found.value.sum(), costs)[0] for found in (own, other)]
    assert torch.allclose(*grads, atol=1e-12)
    expected = []
    for row in costs.detach().numpy():
        kept = np.flatnonzero(np.isfinite(row))
        size = max(
            n for n in range(5) for s in itertools.combinations(kept, n) if is_forest(COMPLETE[list(s)], 5)
        )
        expected.append(
            min(
                row[list(s)].sum()
                for s in itertools.combinations(kept, size)
                if is_forest(COMPLETE[list(s)], 5)
            )
        )
    assert np.allclose(own.value.detach(), expected)


def test_a_graph_that_falls_apart_is_told():
    costs = torch.rand(3, 3)
    costs[1, 1] = torch.inf
    edges = [[0, 1], [1, 2], [2, 3]]
    for solver in ("auto", "highs"):
        with pytest.raises(SolveError, match=r"(?s)item 1: infeasible.*pass forest=True") as caught:
            minimum_spanning_tree(edges, costs, solver=solver)
        assert caught.value.items == [(1,)]
        found = minimum_spanning_tree(edges, costs.requires_grad_(), solver=solver, throw=False)
        assert found.value[1] == torch.inf and found.ok.tolist() == [True, False, True]
        (grad,) = torch.autograd.grad(found.value[found.ok].sum(), costs)
        assert grad.tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    with pytest.raises(SolveError, match="joins node 2 to node 0"):
        minimum_spanning_tree(edges, costs)


def test_costs_that_are_none():
    costs = torch.rand(4, 10)
    costs[1, 3], costs[2, 0] = torch.nan, -torch.inf
    with pytest.raises(SolveError, match="a cost is NaN or -inf") as caught:
        minimum_spanning_tree(COMPLETE, costs)
    assert caught.value.items == [(1,), (2,)] and caught.value.statuses == [Status.INVALID] * 2
    for solver in ("auto", "highs"):
        found = minimum_spanning_tree(COMPLETE, costs, throw=False, solver=solver)
        assert found.ok.tolist() == [True, False, False, True] and torch.isnan(found.value[1:3]).all()
        assert found.decode()[1:3] == [[], []]


def test_small_sizes_batches_and_dtypes():
    for solver in ("auto", "highs"):
        alone = minimum_spanning_tree([], torch.zeros(3, 0), nodes=1, solver=solver)
        assert (
            alone.value.tolist() == [0.0] * 3 and alone.edges.shape == (3, 0) and alone.decode() == [[]] * 3
        )
    assert minimum_spanning_tree(COMPLETE, torch.zeros(0, 10)).value.shape == (0,)
    assert minimum_spanning_tree([[0, 1]], torch.tensor([2.5])).decode() == [(0, 1)]
    base = torch.rand(10, 3, 2)
    whole = minimum_spanning_tree(COMPLETE, base.permute(1, 2, 0))  # not contiguous
    assert (
        whole.value.shape == (3, 2) and whole.edges.shape == (3, 2, 4) and whole.value.dtype == torch.float32
    )
    again = minimum_spanning_tree(COMPLETE, base.permute(1, 2, 0).double().contiguous())
    assert torch.equal(whole.edges, again.edges)
    assert minimum_spanning_tree(COMPLETE, base[:, 0, 0].half()).value.dtype == torch.float16
    assert minimum_spanning_tree(COMPLETE, base[:, 0, 0].numpy()).decode() == whole.decode()[0][0]


def test_the_indicator_refuses_gradients():
    costs = torch.randn(10, dtype=torch.float64, requires_grad=True)
    with pytest.raises(lpdiff.UnsupportedError, match="gradient="):
        minimum_spanning_tree(COMPLETE, costs).indicator.square().sum().backward()
    ruled = minimum_spanning_tree(COMPLETE, costs, gradient=lpdiff.gradients.Interpolation(5.0))
    (ruled.indicator * torch.randn(10, dtype=torch.float64)).sum().backward()
    assert costs.grad.abs().sum() > 0


def test_modules_and_bad_input():
    module = MinimumSpanningTree(forest=True)
    costs = torch.rand(2, 3)
    for copied in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert copied([[0, 1], [1, 2], [3, 4]], costs).ok.all()
    with pytest.raises(ValueError, match=r"costs: expected shape \(\*batch, 10\)"):
        minimum_spanning_tree(COMPLETE, costs)
    with pytest.raises(ValueError, match="edge 3 joins 0 and 4, expected nodes 0 to 3"):
        minimum_spanning_tree(COMPLETE, torch.rand(10), nodes=4)
    with pytest.raises(TypeError, match="no option 'forests'"):
        MinimumSpanningTree(forests=True)
