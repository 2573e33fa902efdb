"""Choosing items: the best k of n, and fractional knapsacks."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import lpdiff
from lpdiff.problems.subsets import (
    Knapsack,
    KnapsackProblem,
    KSubset,
    SubsetProblem,
    TopK,
    k_subset,
    knapsack,
    multi_knapsack,
    top_k,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enumerated(scores: np.ndarray, k: int, at_most: bool) -> float:
    sizes = range(k + 1) if at_most else (k,)
    return max(
        sum(scores[list(s)]) for size in sizes for s in itertools.combinations(range(len(scores)), size)
    )


# -- the best k of n ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_top_k_against_enumeration(n, at_most):
    draw = generator(n)
    scores = torch.randint(-3, 4, (60, n), generator=draw).double()  # ties
    k = torch.randint(0, n + 1, (60,), generator=draw)
    found = top_k(scores, k, at_most=at_most)
    expected = [enumerated(s, int(j), at_most) for s, j in zip(scores.numpy(), k, strict=True)]
    assert found.value.tolist() == pytest.approx(expected)
    assert ((found.indicator == 0) | (found.indicator == 1)).all()
    count = found.indicator.sum(-1)
    assert (count <= k).all() if at_most else (count == k).all()
    cheapest = k_subset(-scores, k, at_most=at_most)
    assert cheapest.value.tolist() == pytest.approx([-v for v in expected])


def test_indices_are_those_of_topk():
    scores = torch.randn(3, 7, 30, generator=generator(0), dtype=torch.float64)
    found = top_k(scores, 9)
    expected = torch.topk(scores, 9)
    assert torch.equal(found.indices, expected.indices)
    assert torch.allclose(found.value, expected.values.sum(-1))
    assert found.decode()[2][6] == expected.indices[2, 6].tolist()
    assert torch.equal(k_subset(scores, 9).indices, torch.topk(scores, 9, largest=False).indices)


def test_indices_are_padded_and_ties_keep_their_order():
    scores = torch.tensor([[1.0, 2.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    found = top_k(scores, [4, 2])
    assert found.indices.tolist() == [[1, 3, 0, 2], [0, 1, -1, -1]]
    assert found.decode() == [[1, 3, 0, 2], [0, 1]]


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("choose", [top_k, k_subset])
def test_subset_against_highs(choose, at_most):
    draw = generator(3)
    scores = torch.randn(40, 8, generator=draw, dtype=torch.float64, requires_grad=True)
    k = (torch.rand(40, generator=draw, dtype=torch.float64) * 7.9).requires_grad_()  # one in part
    ours, theirs = choose(scores, k, at_most=at_most), choose(scores, k, at_most=at_most, solver="highs")
    assert ours.solution.solver == "selection" and theirs.solution.solver == "highs"
    assert torch.allclose(ours.value, theirs.value)
    pair = [torch.autograd.grad(found.value.sum(), (scores, k)) for found in (ours, theirs)]
    for one, other in zip(*pair, strict=True):
        assert torch.allclose(one, other)
    assert torch.allclose(ours.threshold, pair[0][1])


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("choose", [top_k, k_subset])
def test_subset_oracle_against_its_lp(choose, at_most):
    """Values, gradients, what is chosen of equals, thresholds; with items that are missing or forbidden."""
    draw = generator(8)
    scores = torch.randint(-3, 4, (60, 7), generator=draw).double()
    scores[torch.rand(60, 7, generator=draw) < 0.2] = -torch.inf if choose is top_k else torch.inf
    mask = torch.rand(60, 7, generator=draw) < 0.8
    k = torch.rand(60, generator=draw, dtype=torch.float64) * 7
    k[::2] = k[::2].round()
    leaves = [scores.clone().requires_grad_() for _ in range(2)]
    ours, theirs = (
        choose(leaf, k, at_most=at_most, mask=mask, throw=False, solver=solver)
        for leaf, solver in zip(leaves, ("auto", "selection"), strict=True)
    )
    assert ours.evaluation.solver == "oracle" and ours.solution is None
    assert torch.equal(ours.status, theirs.status) and set(ours.status.tolist()) == {0, int(not at_most)}
    assert torch.allclose(ours.value, theirs.value)
    for found in (ours, theirs):
        found.value[found.ok].sum().backward()
    assert torch.allclose(leaves[0].grad, leaves[1].grad)
    assert ours.decode() == theirs.decode()
    assert torch.equal(ours.threshold[ours.ok], theirs.threshold[theirs.ok])


def test_gradients_of_top_k_are_indicator_and_threshold():
    scores = torch.tensor([3.0, 1.0, 2.0, -1.0], dtype=torch.float64, requires_grad=True)
    k = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, k: top_k(s, k).value, (scores, k))
    whole = torch.tensor(2.0, requires_grad=True)
    top_k(scores, whole).value.backward()
    assert torch.equal(scores.grad, torch.tensor([1.0, 0, 1, 0], dtype=torch.float64))
    assert 1.0 <= whole.grad <= 2.0  # between the next and the last


def test_subset_masks_and_forbidden_items():
    draw = generator(5)
    scores = torch.randn(30, 6, generator=draw, dtype=torch.float64)
    mask = torch.rand(30, 6, generator=draw) < 0.7
    k = (torch.rand(30, generator=draw) * (mask.sum(-1) + 1)).floor()
    found = top_k(scores.masked_fill(~mask, torch.nan), k, mask=mask)
    assert torch.allclose(found.value, top_k(scores.masked_fill(~mask, -torch.inf), k).value)
    assert not (found.indicator.bool() & ~mask).any()
    for i in range(30):
        assert found.value[i].item() == pytest.approx(
            enumerated(scores[i][mask[i]].numpy(), int(k[i]), False)
        )
    lengths = mask.sum(-1)
    assert torch.equal(
        top_k(scores, k, mask=lengths).value, top_k(scores, k, mask=torch.arange(6) < lengths[:, None]).value
    )
    assert top_k(scores, 6, at_most=True, mask=torch.zeros(30, dtype=torch.int64)).value.abs().max() == 0


def test_subset_shapes_and_dtypes():
    assert top_k(torch.zeros(2, 0), 0).indices.shape == (2, 0)
    assert top_k(torch.zeros(0, 3), 1).value.shape == (0,)
    assert top_k(torch.zeros(0, 3), 1).decode() == []
    assert top_k(np.array([1.0, 2.0]), 1).value.dtype == torch.float64
    for dtype in (torch.float16, torch.float32):
        scores = torch.tensor([[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]], dtype=dtype).T.requires_grad_()
        found = top_k(scores, np.array([1, 2]))
        assert found.value.dtype == found.indicator.dtype == found.threshold.dtype == dtype
        found.value.sum().backward()
        assert scores.grad.tolist() == [[0, 0, 1], [1, 1, 0]]
    assert top_k(torch.zeros(4, 1, 3), torch.ones(5)).value.shape == (4, 5)


def test_the_indicator_asks_for_a_rule():
    scores = torch.randn(5, generator=generator(1), requires_grad=True)
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        top_k(scores, 2).indicator[0].backward()
    rule = lpdiff.gradients.Interpolation(5.0)
    top_k(scores, 2, gradient=rule).indicator.square().sum().backward()
    assert scores.grad.shape == (5,)


def test_subset_bad_input():
    with pytest.raises(ValueError, match=r"k: item 1 has k = 4, expected 0 to 3"):
        top_k(torch.zeros(2, 3), [1, 4])
    with pytest.raises(ValueError, match="got a number"):
        top_k(1.0, 1)
    with pytest.raises(ValueError, match=r"mask: expected shape \(\*batch, 3\)"):
        top_k(torch.zeros(2, 3), 1, mask=[True, False])
    with pytest.raises(ValueError, match="item 1 has length 5"):
        top_k(torch.zeros(2, 3), 1, mask=[1, 5])
    with pytest.raises(lpdiff.SolveError, match="item 1") as caught:
        top_k(torch.tensor([[1.0, 2.0], [1.0, -torch.inf]]), 2)
    assert caught.value.statuses == [lpdiff.Status.INFEASIBLE]
    for bad in (torch.nan, torch.inf):
        with pytest.raises(lpdiff.SolveError, match=r"item 0: invalid input"):
            top_k(torch.tensor([[1.0, bad], [1.0, 2.0]]), 1)
    found = top_k(torch.tensor([[1.0, torch.nan], [1.0, 2.0]]), 1, throw=False)
    assert found.ok.tolist() == [False, True] and found.decode() == [[], [1]]


# -- knapsack ----------------------------------------------------------------------------------------------


def greedy(values: np.ndarray, weights: np.ndarray, capacity: float) -> float:
    total = 0.0
    for i in sorted(range(len(values)), key=lambda i: -values[i] / max(weights[i], 1e-300)):
        if values[i] > 0:
            amount = 1.0 if weights[i] <= capacity else capacity / weights[i]
            total += amount * values[i]
            capacity -= amount * weights[i]
    return total


@pytest.mark.parametrize("n", [1, 3, 20])
def test_knapsack_against_the_greedy_algorithm(n):
    draw = generator(n)
    values = torch.randint(-2, 9, (80, n), generator=draw).double()
    weights = torch.randint(0, 6, (80, n), generator=draw).double()
    capacity = torch.rand(80, generator=draw, dtype=torch.float64) * n * 3
    found = knapsack(values, weights, capacity)
    assert found.solution.solver == "selection"
    expected = [
        greedy(v, w, float(c)) for v, w, c in zip(values.numpy(), weights.numpy(), capacity, strict=True)
    ]
    assert found.value.tolist() == pytest.approx(expected)
    part = (found.amounts > 1e-9) & (found.amounts < 1 - 1e-9)
    assert (part.sum(-1) <= 1).all()
    assert torch.equal(found.split >= 0, part.any(-1))
    some = part.any(-1)
    assert torch.equal(found.split[some], part[some].to(torch.int8).argmax(-1))
    assert not some.any() or n == 1 or some.float().mean() > 0.2


def test_knapsack_against_highs():
    draw = generator(8)
    leaves = [
        torch.randn(30, 7, generator=draw, dtype=torch.float64) + 1,
        torch.rand(30, 7, generator=draw, dtype=torch.float64),
        torch.rand(30, generator=draw, dtype=torch.float64) * 3,
    ]
    for leaf in leaves:
        leaf.requires_grad_()
    ours, theirs = knapsack(*leaves), knapsack(*leaves, solver="highs")
    assert torch.allclose(ours.value, theirs.value)
    assert torch.allclose(ours.price, theirs.price)
    grads = [torch.autograd.grad(found.value.sum(), leaves) for found in (ours, theirs)]
    for one, other in zip(*grads, strict=True):
        assert torch.allclose(one, other)
    assert torch.allclose(ours.price, grads[0][2])


def test_knapsack_gradients_are_exact():
    values = torch.tensor([[6.0, 10, 12, -1], [1, 5, 2, 9]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0, 2, 3, 1], [4, 1, 3, 2]], dtype=torch.float64, requires_grad=True)
    capacity = torch.tensor([5.0, 4.5], dtype=torch.float64, requires_grad=True)
    leaves = (values, weights, capacity)
    assert torch.autograd.gradcheck(lambda *a: knapsack(*a).value, leaves)
    assert torch.autograd.gradcheck(lambda w, c: knapsack(values.detach(), w, c).amounts, leaves[1:])
    assert torch.autograd.gradgradcheck(lambda w, c: knapsack(values.detach(), w, c).value, leaves[1:])


def test_knapsack_result():
    found = knapsack(torch.tensor([6.0, 10, 12]), torch.tensor([1.0, 2, 3]), 5.0)
    assert found.value.item() == 24 and found.split.item() == 2 and found.price.item() == 4
    assert found.value.dtype == torch.float32
    assert found.decode() == [(0, 1.0), (1, 1.0), (2, pytest.approx(2 / 3))]
    empty = knapsack(torch.zeros(2, 0), torch.zeros(0), [1.0, 2.0])
    assert empty.value.tolist() == [0, 0] and empty.split.tolist() == [-1, -1] and empty.decode() == [[], []]
    masked = knapsack([[6.0, 10, 12]] * 2, [1.0, np.nan, 3], 5.0, mask=[[True, False, True], [False] * 3])
    assert masked.value.tolist() == pytest.approx([18, 0])
    assert knapsack([6.0, -np.inf, 12], [1.0, 2, 3], 5.0).value.item() == 18


def test_knapsack_of_several_resources():
    draw = generator(2)
    values = torch.rand(6, 9, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(6, 3, 9, generator=draw, dtype=torch.float64, requires_grad=True)
    capacity = (torch.rand(6, 3, generator=draw, dtype=torch.float64) * 3).requires_grad_()
    found = multi_knapsack(values, weights, capacity)
    from scipy.optimize import linprog

    for i in range(6):
        c, A, b = (t.detach().numpy() for t in (values[i], weights[i], capacity[i]))
        assert found.value[i].item() == pytest.approx(-linprog(-c, A, b, bounds=(0, 1)).fun)
    part = (found.amounts > 1e-9) & (found.amounts < 1 - 1e-9)
    assert torch.equal((found.split >= 0).sum(-1), part.sum(-1)) and part.any()
    assert torch.equal(found.split[0, 0], part[0].to(torch.int8).argmax())
    grads = torch.autograd.grad(found.value.sum(), (values, weights, capacity))
    assert torch.allclose(grads[2], found.price)
    alone = multi_knapsack(values, weights[:, :1], capacity[:, :1])
    assert torch.allclose(alone.value, knapsack(values, weights[:, 0], capacity[:, 0]).value)


def test_knapsack_bad_input():
    with pytest.raises(ValueError, match=r"item 1 has a negative weight \(-1 at index 0\)"):
        knapsack(torch.ones(2, 2), torch.tensor([[1.0, 1.0], [-1.0, 2.0]]), 1.0)
    with pytest.raises(ValueError, match="a value and a weight an item, got 3 and 2"):
        knapsack(torch.ones(3), torch.ones(2), 1.0)
    with pytest.raises(ValueError, match="got a number"):
        knapsack(torch.ones(3), 1.0, 1.0)
    with pytest.raises(ValueError, match="resources, n"):
        multi_knapsack(torch.ones(3), torch.ones(3), 1.0)
    with pytest.raises(lpdiff.SolveError, match="item 0"):
        knapsack(torch.ones(3), torch.ones(3), [-1.0, 1.0])
    with pytest.raises(lpdiff.SolveError, match="invalid"):
        knapsack(torch.tensor([1.0, torch.nan]), torch.ones(2), 1.0)


# -- as problems and as modules ----------------------------------------------------------------------------


def test_problems_solve_as_programs():
    scores = torch.randn(5, 4, generator=generator(0), dtype=torch.float64)
    ones = torch.ones(4)
    solved = lpdiff.solve(SubsetProblem(4), scores, torch.tensor(2.0), ones)
    assert torch.allclose(solved.value, torch.topk(scores, 2).values.sum(-1))
    solved = lpdiff.solve(KnapsackProblem(4), scores, torch.ones(1, 4), torch.full((1,), 2.0), ones)
    assert torch.allclose(solved.value, torch.topk(scores, 2).values.clamp(min=0).sum(-1))


def test_modules():
    scores = torch.randn(3, 5, generator=generator(0))
    module = TopK(at_most=True)
    assert torch.equal(module(scores, 4).value, top_k(scores, 4, at_most=True).value)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(scores, 4).value, module(scores, 4).value)
    assert torch.equal(KSubset()(scores, 2).value, k_subset(scores, 2).value)
    learned = nn.Parameter(torch.ones(5))
    Knapsack()(scores, learned, 0.5).value.sum().backward()
    assert (learned.grad <= 0).all() and learned.grad.any()
    with pytest.raises(TypeError, match="no option 'least'"):
        TopK(least=True)
