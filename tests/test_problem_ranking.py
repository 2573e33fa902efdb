"""Ranking as assignment to ranks."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

import lpdiff
from lpdiff.problems.ranking import Rank, RankingProblem, rank


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_against_sorting(n, descending):
    scores = torch.randint(-9, 10, (50, n), generator=generator(n)).double()  # ties
    found = rank(scores, descending=descending)
    expected = torch.sort(scores, dim=-1, stable=True, descending=descending)
    assert torch.equal(found.order, expected.indices)
    assert torch.equal(found.sorted, expected.values)
    signed = -scores.numpy() if descending else scores.numpy()
    assert np.array_equal(found.ranks.numpy(), scipy.stats.rankdata(signed, "ordinal", axis=1))
    assert torch.equal(found.vertex, found.ranks.double())
    assert torch.allclose(found.value, (found.ranks * scores).sum(-1))
    assert torch.equal(found.indicator.argmax(-1) + 1, found.ranks)
    assert torch.equal(found.indicator.sum((-1, -2)), torch.full((50,), float(n)).double())


@pytest.mark.parametrize("descending", [False, True])
def test_against_enumeration(descending):
    draw = generator(0)
    scores, weights = torch.randn(40, 4, generator=draw).double(), torch.randn(40, 4, generator=draw).double()
    best = min if descending else max
    found = rank(scores, weights=weights, descending=descending)
    for s, w, value in zip(scores.numpy(), weights.numpy(), found.value, strict=True):
        assert value.item() == pytest.approx(best(s @ w[list(p)] for p in itertools.permutations(range(4))))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("descending", [False, True])
def test_against_the_assignment(descending, mask):
    draw = generator(7)
    scores = torch.randn(60, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(60, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    there = torch.rand(60, 5, generator=draw) < 0.7 if mask else None
    how = {"descending": descending, "mask": there}
    ours = rank(scores, weights=weights.detach(), **how)
    assert ours.solution is None
    for solver in ("highs", "assignment"):
        theirs = rank(scores, weights=weights, solver=solver, **how)
        assert theirs.solution.solver == solver
        assert torch.allclose(ours.value, theirs.value)
        for name in ("order", "ranks"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        for name in ("sorted", "vertex", "indicator"):
            assert torch.allclose(getattr(ours, name), getattr(theirs, name)), name
        mine = torch.autograd.grad(ours.value.sum(), scores, retain_graph=True)[0]
        other, by_weight = torch.autograd.grad(theirs.value.sum(), (scores, weights))
        assert torch.allclose(mine, other) and torch.allclose(mine, ours.vertex.detach())
        assert torch.allclose((by_weight * weights).sum(-1), ours.value)
    if mask:
        assert torch.equal(ours.ranks >= 1, there) and torch.equal(ours.ranks == -1, ~there)
        assert ours.decode()[3] == [i for i in ours.order[3].tolist() if i >= 0]
        lengths = there.sum(-1)
        prefix = rank(scores, mask=lengths)
        assert torch.equal(prefix.ranks > 0, torch.arange(5) < lengths[:, None])


def test_what_is_masked_does_not_matter():
    scores = torch.tensor([[2.0, torch.nan, -1.0], [torch.inf, 1.0, torch.nan]])
    found = rank(scores, mask=torch.tensor([[True, False, True], [False, True, False]]))
    assert found.order.tolist() == [[2, 0, -1], [1, -1, -1]]
    assert found.ranks.tolist() == [[2, -1, 1], [-1, 1, -1]]
    assert found.sorted.tolist() == [[-1, 2, 0], [1, 0, 0]]
    assert found.value.tolist() == [3, 1]


def test_gradients():
    scores = torch.randn(3, 6, generator=generator(1), dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, generator=generator(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: rank(s).value, (scores,))
    assert torch.autograd.gradcheck(lambda s: rank(s, mask=[2, 6, 0]).sorted, (scores,))
    assert torch.autograd.gradcheck(lambda s, w: rank(s, weights=w).value, (scores, weights))
    assert torch.autograd.gradgradcheck(lambda s, w: rank(s, weights=w).value, (scores, weights))
    tangent = torch.func.jvp(lambda s: rank(s).value, (scores.detach(),), (torch.ones(3, 6).double(),))[1]
    assert tangent.tolist() == [21, 21, 21]


def test_what_is_piecewise_constant_asks_for_a_rule():
    scores = torch.randn(4, generator=generator(1), requires_grad=True)
    for name in ("vertex", "indicator"):
        with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
            getattr(rank(scores), name).square().sum().backward()
        rank(scores, gradient=lpdiff.gradients.Interpolation(3.0)).vertex[0].backward()
        assert torch.isfinite(scores.grad).all()
        assert torch.autograd.grad(getattr(rank(scores, gradient="exact"), name).sum(), scores)[0].any() == 0


def test_shapes_and_dtypes():
    for shape in ((2, 0), (0, 3), (2, 1), (3,), (2, 3, 4)):
        for solver in ("auto", "highs"):
            found = rank(torch.zeros(shape), solver=solver)
            assert found.value.shape == shape[:-1] and found.order.shape == found.ranks.shape == shape
            assert found.sorted.shape == found.vertex.shape == shape
            assert found.indicator.shape == (*shape, shape[-1])
    assert rank(torch.zeros(0, 3)).decode() == [] and rank(torch.zeros(2, 0)).decode() == [[], []]
    for dtype in (torch.float16, torch.float32, torch.float64):
        found = rank(torch.randn(4, 3, generator=generator(0)).to(dtype).T)
        assert found.value.dtype == found.sorted.dtype == found.vertex.dtype == dtype
        assert found.ranks.dtype == torch.int64
    assert rank(np.array([1.0, 0.0])).value.dtype == torch.float64


def test_bad_input():
    for bad in (torch.nan, torch.inf):
        with pytest.raises(lpdiff.SolveError, match=r"item 1: invalid.*\n.*NaN or infinite"):
            rank(torch.tensor([[1.0, 2.0], [1.0, bad]]))
    found = rank(torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]), throw=False)
    assert found.ok.tolist() == [True, False] and torch.isnan(found.value[1])
    assert found.vertex[1].tolist() == [0, 0] and found.indicator[1].sum() == 0
    with pytest.raises(lpdiff.SolveError, match="invalid"):
        rank(torch.zeros(2), weights=[1.0, np.nan])
    with pytest.raises(ValueError, match="weights: expected shape"):
        rank(torch.zeros(3), weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="got a number"):
        rank(1.0)
    with pytest.raises(ValueError, match="item 0 has length 4"):
        rank(torch.zeros(2, 3), mask=[4, 1])


def test_problem_and_module():
    scores = torch.randn(5, 4, generator=generator(0), dtype=torch.float64)
    solved = lpdiff.solve(RankingProblem(4), scores, torch.arange(4.0), torch.ones(4))
    assert torch.allclose(solved.value, rank(scores, weights=torch.arange(4.0)).value)
    module = Rank(weights=torch.tensor([1.0, 0.0, 0.0, 0.0]), descending=True)
    assert torch.allclose(module(scores).value, scores.min(-1).values)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(scores).value, module(scores).value)
    with pytest.raises(TypeError, match="no option 'reverse'"):
        Rank(reverse=True)
