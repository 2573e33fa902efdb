"""Flows of minimum cost, maximum flows and minimum cuts: against networkx, SciPy, enumeration and HiGHS."""

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
from lpdiff.problems.flows import (
    FlowProblem,
    MaxFlow,
    MaxFlowProblem,
    MinCostFlow,
    MinCut,
    max_flow,
    min_cost_flow,
    min_cut,
)
from lpdiff.problems.graphs import read_graph

PAIRS = np.array(list(itertools.permutations(range(5), 2)))
TRIANGLE = [[0, 1], [0, 2], [2, 1]]


def balanced(rng, size, nodes, whole=False):
    supply = rng.integers(-4, 5, (size, nodes)).astype(float) if whole else rng.normal(size=(size, nodes))
    supply[:, -1] -= supply.sum(1)
    return supply


# -- minimum cost ------------------------------------------------------------------------------------------


def test_networkx_on_whole_numbers():
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(0)
    nodes, size = 12, 25
    edges = np.unique(rng.integers(0, nodes, (60, 2)), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    costs, caps = rng.integers(-3, 10, (size, len(edges))), rng.integers(0, 12, (size, len(edges)))
    supply = balanced(rng, size, nodes, whole=True)
    found = min_cost_flow(edges, costs, supply, caps, throw=False)
    solved = 0
    for k in range(size):
        graph = networkx.DiGraph()
        graph.add_nodes_from((v, {"demand": -int(supply[k, v])}) for v in range(nodes))
        for e, (a, b) in enumerate(edges.tolist()):
            graph.add_edge(a, b, weight=int(costs[k, e]), capacity=int(caps[k, e]))
        try:
            value, _ = networkx.network_simplex(graph)
        except networkx.NetworkXUnfeasible:
            assert found.status[k] == Status.INFEASIBLE and found.value[k] == np.inf
            continue
        solved += 1
        assert float(found.value[k]) == value
        flow = found.flow[k].numpy()
        assert np.array_equal(flow, flow.round()) and (flow >= 0).all() and (flow <= caps[k]).all()
        assert flow @ costs[k] == value
        net = np.bincount(edges[:, 0], flow, nodes) - np.bincount(edges[:, 1], flow, nodes)
        assert np.array_equal(net, supply[k])
        assert found.decode()[k] == [(*edges[e].tolist(), flow[e]) for e in np.flatnonzero(flow)]
    assert 5 < solved < size


@pytest.mark.parametrize("solver", ["highs", "network"])
def test_duals_and_gradients_against_other_solvers(solver):
    rng = np.random.default_rng(1)
    leaves = [
        rng.normal(size=(30, 20)),
        balanced(rng, 30, 5),
        2 + 3 * rng.random((30, 20)),
        rng.random((30, 20)),
    ]
    leaves = [torch.from_numpy(a).requires_grad_() for a in leaves]
    costs, supply, caps, lower = leaves
    own = min_cost_flow(PAIRS, costs, supply, caps, lower=lower)
    other = min_cost_flow(PAIRS, costs, supply, caps, lower=lower, solver=solver)
    assert other.solution.solver == solver and own.solution.solver == "network"
    assert torch.allclose(own.value, other.value) and torch.allclose(own.flow, other.flow)
    assert torch.allclose(own.reduced_costs, other.reduced_costs, atol=1e-9)  # no gauge
    potentials = [found.potentials - found.potentials[:, :1] for found in (own, other)]
    assert torch.allclose(*potentials, atol=1e-9)
    reduced = costs - own.potentials[:, PAIRS[:, 0]] + own.potentials[:, PAIRS[:, 1]]
    assert torch.allclose(own.reduced_costs, reduced)
    grads = torch.autograd.grad(own.value.sum(), leaves)
    expected = (own.flow, own.potentials, own.reduced_costs.clamp(max=0), own.reduced_costs.clamp(min=0))
    for grad, known in zip(grads, expected, strict=True):
        assert torch.allclose(grad, known.detach(), atol=1e-9) and grad.abs().sum() > 0


def test_gradients_by_finite_differences():
    rng = np.random.default_rng(2)
    leaves = [rng.normal(size=(3, 20)), balanced(rng, 3, 5)[:, 1:], 2 + 3 * rng.random(20)]
    leaves = [torch.from_numpy(a).requires_grad_() for a in leaves]

    def flow(costs, rest, caps):
        supply = torch.cat([-rest.sum(1, keepdim=True), rest], 1)  # stays balanced
        return min_cost_flow(PAIRS, costs, supply, caps)

    assert torch.autograd.gradcheck(lambda *a: flow(*a).value, leaves)
    costs = leaves[0].detach()
    weight = torch.from_numpy(rng.normal(size=(3, 20)))
    assert torch.autograd.gradcheck(lambda *a: (weight * flow(costs, *a).flow).sum(), leaves[1:])
    with pytest.raises(lpdiff.UnsupportedError, match="gradient="):
        flow(*leaves).flow.sum().backward()


def test_no_capacities_forbidden_edges_and_paths():
    costs = torch.tensor([[1.0, 2.0, 2.0], [torch.inf, 2.0, 2.0]], requires_grad=True)
    found = min_cost_flow(TRIANGLE, costs, [1.0, -1.0, 0.0])
    assert found.value.tolist() == [1.0, 4.0] and found.decode() == [
        [(0, 1, 1.0)],
        [(0, 2, 1.0), (2, 1, 1.0)],
    ]
    assert found.solution.solver == "path"
    (grad,) = torch.autograd.grad(found.value.sum(), costs)
    assert grad.tolist() == [[1, 0, 0], [0, 1, 1]]
    assert "network" in str(lpdiff.plan(FlowProblem(read_graph(TRIANGLE))))


def test_what_no_flow_satisfies_is_told():
    with pytest.raises(SolveError, match="supplies that do not sum to zero"):
        min_cost_flow(TRIANGLE, torch.ones(3), [1.0, -2.0, 0.0])
    with pytest.raises(SolveError, match="cycle of negative cost without a capacity"):
        min_cost_flow([[0, 1], [1, 0]], torch.tensor([1.0, -2.0]), [0.0, 0.0])
    supply = torch.tensor([[1.0, -1, 0], [3, -3, 0], [torch.nan, 0, 0]], requires_grad=True)
    found = min_cost_flow(TRIANGLE, torch.ones(3), supply, torch.ones(3), throw=False)
    assert found.status.tolist() == [Status.OPTIMAL, Status.INFEASIBLE, Status.INVALID]
    found.value[0].backward()
    assert (supply.grad[1:] == 0).all() and torch.isfinite(supply.grad).all()
    assert found.decode()[1:] == [[], []]


# -- maximum flow, minimum cut -----------------------------------------------------------------------------


def cuts(edges, capacities, source, target, nodes, directed):
    """The values of all cuts, and the sides of the source."""
    sides, values = [], []
    for rest in itertools.product((False, True), repeat=nodes):
        side = np.array(rest)
        if side[source] and not side[target]:
            tails, heads = side[edges[:, 0]], side[edges[:, 1]]
            sides.append(side)
            values.append(capacities[tails & ~heads if directed else tails != heads].sum())
    return np.array(values), np.array(sides)


@pytest.mark.parametrize("solver", ["auto", "highs"])
@pytest.mark.parametrize("directed", [True, False])
def test_cuts_by_enumeration(directed, solver):
    rng = np.random.default_rng(3)
    edges = rng.integers(0, 6, (12, 2))  # nodes apart, parallel edges and loops among them
    edges[:2] = [[0, 3], [0, 0]]
    capacities = torch.from_numpy(rng.integers(0, 4, (60, 12)).astype(float)).requires_grad_()
    found = max_flow(edges, capacities, 0, 5, nodes=7, directed=directed, solver=solver)
    (grad,) = torch.autograd.grad(found.value.sum(), capacities)
    assert torch.equal(found.cut.double(), grad)
    ties = 0
    for k in range(60):
        values, sides = cuts(edges, capacities[k].detach().numpy(), 0, 5, 7, directed)
        assert found.value[k].item() == values.min()
        at = (sides == found.source_side[k].numpy()).all(1)
        assert at.sum() == 1 and values[at] == values.min()
        ties += (values == values.min()).sum() > 1
        flow = found.flow[k].detach().numpy()
        net = np.bincount(edges[:, 0], flow, 7) - np.bincount(edges[:, 1], flow, 7)
        expected = np.zeros(7)
        expected[[0, 5]] = values.min(), -values.min()
        assert np.allclose(net, expected)
        assert (abs(flow) <= capacities[k].detach().numpy()).all() and (not directed or (flow >= 0).all())
    assert ties > 10
    assert not found.source_side[:, 6].any()  # a node by itself


@pytest.mark.parametrize("directed", [True, False])
def test_scipy_and_networkx(directed):
    networkx = pytest.importorskip("networkx")
    rng = np.random.default_rng(4)
    nodes, count = 40, 200
    edges = np.unique(rng.integers(0, nodes, (count, 2)), axis=0)
    edges = edges[edges[:, 0] < edges[:, 1]] if not directed else edges[edges[:, 0] != edges[:, 1]]
    capacities = rng.integers(0, 20, (8, len(edges)))
    found = max_flow(edges, capacities, 0, nodes - 1, nodes=nodes, directed=directed)
    for k in range(8):
        both = edges if directed else np.concatenate([edges, edges[:, ::-1]])
        weights = (capacities[k] if directed else np.tile(capacities[k], 2)).astype(np.int32)
        graph = csr_array((weights, both.T), shape=(nodes, nodes))
        assert float(found.value[k]) == csgraph.maximum_flow(graph, 0, nodes - 1).flow_value
    graph = networkx.DiGraph() if directed else networkx.Graph()
    graph.add_nodes_from(range(nodes))
    for (a, b), c in zip(edges.tolist(), capacities[0].tolist(), strict=True):
        graph.add_edge(a, b, capacity=c)
    value, (side, _) = networkx.minimum_cut(graph, 0, nodes - 1)
    assert float(found.value[0]) == value
    assert capacities[0][found.cut[0].numpy()].sum() == value and 0 in side


@pytest.mark.parametrize("directed", [True, False])
def test_gradients_of_flows_and_cuts(directed):
    torch.manual_seed(0)
    capacities = torch.rand(4, 20, dtype=torch.float64, requires_grad=True)

    def flow(c):
        return max_flow(PAIRS, c, 0, 4, directed=directed)

    assert torch.autograd.gradcheck(lambda c: flow(c).value, capacities)
    weight = torch.randn(4, 20, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: (weight * flow(c).flow).sum(), capacities)
    told = str(lpdiff.plan(MaxFlowProblem(read_graph(PAIRS), 0, 4, directed)))
    assert told.startswith("Plan: path, then network")


def test_edges_without_capacity():
    capacities = torch.tensor([torch.inf, 1.0, 2.0], requires_grad=True)
    found = min_cut([[0, 1], [1, 2], [0, 2]], capacities, 0, 2)
    found.value.backward()
    assert found.value.item() == 3.0 and capacities.grad.tolist() == [0, 1, 1]
    assert found.source_side.tolist() == [True, True, False] and found.cut.tolist() == [False, True, True]
    with pytest.raises(SolveError, match=r"(?s)item 1: unbounded.*all the way from source to target"):
        max_flow([[0, 1]], torch.tensor([[1.0], [torch.inf]]), 0, 1)
    apart = max_flow([[0, 1], [2, 3]], torch.ones(5, 2), 0, 3)
    assert (apart.value == 0).all() and (apart.cut.sum(1) == 0).all()
    assert apart.source_side.tolist() == [[True, True, False, False]] * 5


def test_small_sizes_batches_and_dtypes():
    none = max_flow([], torch.zeros(3, 0), 0, 1, nodes=2)
    assert none.value.tolist() == [0.0] * 3 and none.cut.shape == (3, 0) and none.decode() == [[]] * 3
    assert max_flow(TRIANGLE, torch.zeros(0, 3), 0, 1).value.shape == (0,)
    assert min_cost_flow(TRIANGLE, torch.zeros(0, 3), torch.zeros(3)).flow.shape == (0, 3)
    still = min_cost_flow([], [], [0.0])
    assert float(still.value) == 0.0 and still.decode() == []
    base = torch.rand(20, 3, 2)
    for dtype in (torch.float16, torch.float32, torch.float64):
        found = max_flow(PAIRS, base.to(dtype).permute(1, 2, 0), 0, 4)  # not contiguous
        assert found.value.shape == (3, 2) and found.value.dtype == found.flow.dtype == dtype
        assert found.source_side.shape == (3, 2, 5) and len(found.decode()[2]) == 2
        flow = min_cost_flow(
            PAIRS, base.to(dtype).permute(1, 2, 0), torch.tensor([1, 0, 0, 0, -1], dtype=dtype)
        )
        assert flow.value.dtype == flow.potentials.dtype == dtype and flow.value.shape == (3, 2)
    assert min_cost_flow(TRIANGLE, [1, 2, 2], [1, -1, 0]).value.dtype == torch.float64


def test_modules():
    capacities = torch.rand(2, 20)
    for module in (MaxFlow(directed=False), MinCut(directed=False)):
        for copied in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            expected = max_flow(PAIRS, capacities, 0, 4, directed=False)
            assert torch.equal(copied(PAIRS, capacities, 0, 4).value, expected.value)
    flow = MinCostFlow(lower=torch.full((20,), 0.1))(PAIRS, capacities, torch.zeros(5))
    assert (flow.flow >= 0.1 - 1e-6).all()
    with pytest.raises(TypeError, match="no option 'direct'"):
        MaxFlow(direct=True)


def test_bad_input_is_named():
    ones = torch.ones(2, 3)
    for call, told in (
        (
            lambda: min_cost_flow(TRIANGLE, ones, torch.zeros(2)),
            "edge 1 joins 0 and 2, expected nodes 0 to 1",
        ),
        (
            lambda: min_cost_flow(TRIANGLE, torch.ones(4), torch.zeros(3)),
            r"costs: expected shape \(\*batch, 3\)",
        ),
        (lambda: min_cost_flow(TRIANGLE, ones, torch.zeros(3), torch.ones(4)), "capacities: expected shape"),
        (lambda: min_cost_flow(TRIANGLE, ones, torch.zeros(3), torch.tensor(1.0)), "got a number"),
        (
            lambda: min_cost_flow(TRIANGLE, ones, torch.zeros(3), [[1.0, 1, 1], [1, -1, 1]]),
            "item 1 has capacity -1 at edge 1, expected at least 0",
        ),
        (
            lambda: min_cost_flow(TRIANGLE, ones, torch.zeros(3), lower=torch.zeros(2)),
            "lower: expected shape",
        ),
        (lambda: max_flow(TRIANGLE, -ones, 0, 1), "item 0 has capacity -1 at edge 0"),
        (lambda: max_flow(TRIANGLE, ones, 0, 0), "both node 0"),
        (lambda: max_flow(TRIANGLE, ones, 0, 3), "target: got node 3, expected 0 to 2"),
        (lambda: max_flow(TRIANGLE, ones, [0, 1], 2), "source: expected one node"),
        (lambda: max_flow(TRIANGLE, torch.tensor(1.0), 0, 2), "got a number"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
