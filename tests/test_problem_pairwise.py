"""MAP of pairwise models: forests exactly, other graphs on the local polytope."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.problems.pairwise import ForestProblem, GraphProblem, PairwiseMap, pairwise_map, root

CHAIN = [(0, 1), (1, 2), (2, 3)]
TREE = [(0, 1), (2, 1), (1, 3)]
FOREST = [(3, 0), (1, 2)]
GRAPHS = {"chain": CHAIN, "tree": TREE, "forest": FOREST, "cycle": [*CHAIN, (3, 0)], "none": []}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(batch, edges, labels=3, nodes=4, seed=0, ties=False):
    g = generator(seed)
    shapes = (batch, nodes, labels), (batch, len(edges), labels, labels)
    if ties:
        return [torch.randint(-2, 3, shape, generator=g).double() for shape in shapes]
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


def enumerated(unary, pairwise, edges):
    """Energies of all labellings, (S ** V,), one after the other."""
    V, S = unary.shape
    return torch.stack(
        [
            sum(unary[v, label[v]] for v in range(V))
            + sum(pairwise[e, label[u], label[v]] for e, (u, v) in enumerate(edges))
            for label in itertools.product(range(S), repeat=V)
        ]
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("graph", ["chain", "tree", "forest", "none"])
def test_forests_against_enumeration(graph, ties):
    edges = GRAPHS[graph]
    unary, pairwise = draw(25, edges, ties=ties)
    found = pairwise_map(unary, pairwise, edges)
    assert found.evaluation.solver == "oracle"
    everyone = np.ones((25, 4), dtype=np.int64)
    own = ForestProblem(4, 3, tuple(edges)).propose(unary.numpy(), pairwise.numpy(), everyone)
    assert not own.status.any()  # nothing was left to the LP
    for i in range(25):
        assert found.value[i].item() == pytest.approx(enumerated(unary[i], pairwise[i], edges).min().item())
    assert found.integral.all()
    assert torch.allclose(found.energy, found.value)
    assert found.marginals.sum(-1).eq(1).all()


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("graph", ["chain", "tree", "forest"])
def test_forests_against_the_lp(graph, mask):
    edges = GRAPHS[graph]
    leaves = [leaf.requires_grad_() for leaf in draw(40, edges, seed=1)]
    there = torch.rand(40, 4, generator=generator(2)) < 0.7 if mask else None
    ours = pairwise_map(*leaves, edges, mask=there)
    for solver in ("highs", "vertices"):
        theirs = pairwise_map(*leaves, edges, mask=there, solver=solver)
        assert torch.allclose(ours.value, theirs.value)
        assert torch.equal(ours.labels, theirs.labels) and theirs.integral.all()
        grads = [torch.autograd.grad(f.value.sum(), leaves, retain_graph=True) for f in (ours, theirs)]
        for one, other in zip(*grads, strict=True):
            assert torch.allclose(one, other)
        if not mask:
            assert torch.allclose(ours.edge_marginals, theirs.edge_marginals)
    assert torch.equal(ours.marginals, grads[0][0]) and torch.equal(ours.edge_marginals, grads[0][1])
    if mask:
        assert torch.equal(ours.labels >= 0, there)
        assert torch.allclose(ours.energy, ours.value)


def test_cycles_are_bounded():
    edges = GRAPHS["cycle"]
    unary, pairwise = draw(60, edges, labels=2, seed=3)
    unary = 0.3 * unary
    found = pairwise_map(unary, pairwise, edges)
    assert found.solution is not None
    energies = torch.stack([enumerated(u, p, edges) for u, p in zip(unary, pairwise, strict=True)])
    best = energies.min(-1).values
    assert (found.value <= best + 1e-9).all()
    exact = found.integral
    assert 5 < exact.sum() < 60
    assert torch.allclose(found.value[exact], best[exact])
    assert torch.allclose(found.energy[exact], best[exact])
    assert (found.energy >= best - 1e-9).all()
    halves = found.marginals * 2  # two labels: half-integral
    assert torch.allclose(halves, halves.round())
    assert ((halves - 1).abs() < 1e-6)[~exact].any((-1, -2)).all()
    highs = pairwise_map(unary, pairwise, edges, solver="highs")
    assert torch.allclose(found.value, highs.value)


def test_an_odd_cycle_is_half_integral():
    found = pairwise_map(torch.zeros(3, 2), torch.eye(2), [(0, 1), (1, 2), (2, 0)])
    assert found.value.item() == 0 and not found.integral
    assert torch.equal(found.marginals, torch.full((3, 2), 0.5))
    assert found.labels.tolist() == [0, 0, 0] and found.energy.item() == 3


@pytest.mark.parametrize("graph", ["tree", "cycle"])
def test_gradients(graph):
    edges = GRAPHS[graph]
    leaves = [leaf.requires_grad_() for leaf in draw(3, edges, labels=2, seed=5)]
    assert torch.autograd.gradcheck(lambda u, p: pairwise_map(u, p, edges).value, leaves)
    shared = torch.randn(2, 2, generator=generator(7), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u, p: pairwise_map(u, p, edges).value, (leaves[0], shared))
    assert torch.autograd.gradcheck(lambda u, p: pairwise_map(u, p, edges).energy, leaves)
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        pairwise_map(*leaves, edges).marginals.square().sum().backward()
    rule = lpdiff.gradients.Interpolation(5.0)
    pairwise_map(*leaves, edges, gradient=rule).marginals.square().sum().backward()
    assert torch.isfinite(leaves[0].grad).all()


@pytest.mark.parametrize("graph", ["tree", "cycle"])
def test_forbidden_labels_and_pairs(graph):
    edges = GRAPHS[graph]
    unary, pairwise = draw(40, edges, labels=2, seed=8)
    unary[torch.rand(unary.shape, generator=generator(9)) < 0.1] = torch.inf
    pairwise[torch.rand(pairwise.shape, generator=generator(10)) < 0.1] = torch.inf
    found = pairwise_map(unary, pairwise, edges, throw=False)
    highs = pairwise_map(unary, pairwise, edges, throw=False, solver="highs")
    assert torch.equal(found.status, highs.status)
    assert 0 < found.ok.sum() < 40
    assert torch.allclose(found.value[found.ok], highs.value[found.ok])
    assert found.value[~found.ok].isposinf().all()
    if graph == "tree":
        for i in range(40):
            best = enumerated(unary[i], pairwise[i], edges).min().item()
            assert found.value[i].item() == pytest.approx(best)
    with pytest.raises(lpdiff.SolveError, match="infeasible"):
        pairwise_map(unary, pairwise, edges)


def test_a_large_tree_against_a_chain_of_minima():
    """Viterbi by torch, and a random tree by HiGHS."""
    V, S = 200, 6
    unary, pairwise = draw(5, chain(V), labels=S, nodes=V, seed=11)
    best = unary[:, 0]
    for v in range(1, V):
        best = (best[:, :, None] + pairwise[:, v - 1]).amin(1) + unary[:, v]
    assert torch.allclose(pairwise_map(unary, pairwise, chain(V)).value, best.amin(-1))
    g = np.random.default_rng(12)
    places = g.permutation(30)
    tree = [tuple(g.permutation([places[v], places[g.integers(v)]]).tolist()) for v in range(1, 30)]
    unary, pairwise = draw(4, tree, nodes=30, seed=13)
    ours, theirs = (pairwise_map(unary, pairwise, tree, solver=solver) for solver in ("auto", "highs"))
    assert ours.solution is None and torch.allclose(ours.value, theirs.value)


def chain(n):
    return [(i, i + 1) for i in range(n - 1)]


def test_roots():
    assert root(3, ()).parent.tolist() == [-1, -1, -1]
    rooted = root(4, ((2, 1), (0, 2)))
    assert rooted.order.tolist() == [0, 2, 1, 3] and rooted.parent.tolist() == [-1, 2, 0, -1]
    assert rooted.edge.tolist() == [-1, 0, 1, -1]
    assert rooted.first.tolist() == [0, 0, 0, 0]
    assert root(2, ((0, 1), (1, 0))) is None and root(3, ((0, 1), (1, 2), (2, 0))) is None


def test_what_is_masked_does_not_matter():
    unary, pairwise = draw(2, CHAIN)
    there = torch.tensor([True, False, True, True])
    expected = pairwise_map(unary, pairwise, CHAIN, mask=there)
    unary[:, 1], pairwise[:, :2] = torch.nan, torch.nan
    for solver in ("auto", "highs"):
        found = pairwise_map(unary, pairwise, CHAIN, mask=there, solver=solver)
        assert torch.allclose(found.value, expected.value) and torch.allclose(found.energy, found.value)


def test_shapes_and_dtypes():
    for shape in ((0, 2), (4, 1), (1, 3)):
        found = pairwise_map(torch.zeros(2, *shape), torch.zeros(2, 0, shape[1], shape[1]), [])
        assert found.value.tolist() == [0, 0] and found.labels.shape == (2, shape[0])
        assert found.integral.all()
    found = pairwise_map(torch.zeros(0, 4, 3), torch.zeros(3, 3), TREE)
    assert found.value.shape == (0,) and found.labels.shape == (0, 4) and found.decode() == []
    unary, pairwise = draw(6, TREE)
    expected = pairwise_map(unary, pairwise, TREE)
    for dtype in (torch.float16, torch.float32):
        leaf = unary.to(dtype).transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        found = pairwise_map(leaf, pairwise.to(dtype), torch.tensor(TREE))
        assert found.value.dtype == found.marginals.dtype == found.energy.dtype == dtype
        found.value.sum().backward()
        assert leaf.grad.dtype == dtype
    assert torch.equal(pairwise_map(unary.numpy(), pairwise.numpy(), TREE).value, expected.value)
    found = pairwise_map(unary.reshape(2, 3, 4, 3), pairwise[0], TREE, mask=[4, 2, 0])
    assert found.value.shape == (2, 3) and found.decode()[1][1][2:] == [None, None]


def test_bad_input():
    unary, pairwise = draw(2, TREE)
    for bad, told in (
        ([(0, 4)], r"edge 0 is \(0, 4\)"),
        ([(0, 1), (2, 2)], "edge 1"),
        ([0.5, 1], "integers"),
    ):
        with pytest.raises(ValueError, match=told):
            pairwise_map(unary, pairwise, bad)
    with pytest.raises(ValueError, match=r"pairwise: expected shape \(\*batch, 3, 3, 3\), or \(3, 3\)"):
        pairwise_map(unary, torch.zeros(2, 2), TREE)
    with pytest.raises(ValueError, match=r"pairwise: expected shape"):
        pairwise_map(unary, pairwise[:, :2], TREE)
    with pytest.raises(ValueError, match="unary: expected shape"):
        pairwise_map(torch.zeros(3), pairwise, TREE)
    for graph in ("tree", "cycle"):
        for bad in (torch.nan, -torch.inf):
            for which in range(2):
                given = draw(2, GRAPHS[graph])
                given[which][1, 0, 1] = bad
                with pytest.raises(lpdiff.SolveError, match="item 1: invalid"):
                    pairwise_map(*given, GRAPHS[graph])
                found = pairwise_map(*given, GRAPHS[graph], throw=False)
                assert found.ok.tolist() == [True, False] and torch.isnan(found.value[1])
                assert not found.integral[1]


def test_problem_and_module():
    unary, pairwise = draw(5, TREE)
    solved = lpdiff.solve(GraphProblem(4, 3, tuple(TREE)), unary, pairwise, torch.ones(4))
    assert torch.allclose(solved.value, pairwise_map(unary, pairwise, TREE).value)
    module = PairwiseMap(mask=torch.tensor([True, True, False, True]), threads=1)
    expected = pairwise_map(unary, pairwise, TREE, mask=[True, True, False, True])
    for other in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(unary, pairwise, TREE).value, expected.value)
    with pytest.raises(TypeError, match="no option 'sense'"):
        PairwiseMap(sense="max")
