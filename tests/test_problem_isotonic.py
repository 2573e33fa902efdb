"""Isotonic regression in the absolute and the pinball loss."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import lpdiff
from lpdiff.problems.isotonic import ChainProblem, IsotonicRegression, OrderProblem
from lpdiff.problems.isotonic import isotonic_regression as isotonic

DIAMOND = [(0, 1), (0, 2), (1, 3), (2, 3), (4, 2), (3, 5)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(x, y, weights, quantile=None):
    below, above = (1.0, 1.0) if quantile is None else (quantile, 1 - quantile)
    return (weights * (below * (y - x).clamp(min=0) + above * (x - y).clamp(min=0))).sum(-1)


def chain(n):
    return [(i, i + 1) for i in range(n - 1)]


def fitted(y, weights, pairs, quantile=None):
    """The least loss, from the LP of the fit itself: x, and what it is below and above y."""
    n = len(y)
    below, above = (1.0, 1.0) if quantile is None else (quantile, 1 - quantile)
    eye, order = np.eye(n), np.zeros((len(pairs), n))
    for k, (i, j) in enumerate(pairs):
        order[k, i], order[k, j] = 1, -1
    c = np.concatenate([np.zeros(n), below * weights, above * weights])
    return linprog(
        c,
        np.hstack([order, np.zeros((len(pairs), 2 * n))]) if len(pairs) else None,
        np.zeros(len(pairs)) if len(pairs) else None,
        np.hstack([eye, eye, -eye]),
        y,
        bounds=[(None, None)] * n + [(0, None)] * (2 * n),
    ).fun


@pytest.mark.parametrize("n", [1, 2, 5])
def test_against_enumeration(n):
    """Some optimal fit takes its values among the observations."""
    y = torch.randint(-3, 4, (25, n), generator=generator(n)).double()  # ties
    weights = torch.randint(0, 3, (25, n), generator=generator(n)).double()
    found = isotonic(y, weights)
    for i in range(25):
        fits = itertools.combinations_with_replacement(np.sort(y[i].numpy()), n)
        best = min(float(loss(torch.tensor(np.array(x)), y[i], weights[i])) for x in fits)
        assert found.value[i].item() == pytest.approx(best)
    check_fit(found, y, weights)


def check_fit(found, y, weights, quantile=None, pairs=None):
    fit = found.fit
    low, high = np.array(chain(y.shape[-1]) if pairs is None else pairs, dtype=int).reshape(-1, 2).T
    assert (fit[..., low] <= fit[..., high] + 1e-9).all()
    assert torch.allclose(loss(fit, y, weights, quantile), found.value)


@pytest.mark.parametrize("quantile", [None, 0.2, 0.9])
@pytest.mark.parametrize("pairs", [None, DIAMOND])
@pytest.mark.parametrize("increasing", [True, False])
def test_against_the_lp_of_the_fit(quantile, pairs, increasing):
    draw = generator(1)
    y = torch.randn(12, 6, generator=draw, dtype=torch.float64)
    weights = torch.rand(12, 6, generator=draw, dtype=torch.float64)
    found = isotonic(y, weights, order=pairs, quantile=quantile, increasing=increasing)
    assert found.evaluation.solver == ("oracle" if pairs is None else "network")
    order = [(i, j) if increasing else (j, i) for i, j in (chain(6) if pairs is None else pairs)]
    for i in range(12):
        assert found.value[i].item() == pytest.approx(
            fitted(y[i].numpy(), weights[i].numpy(), order, quantile)
        )
    check_fit(found, y, weights, quantile, order)


def test_against_highs():
    draw = generator(2)
    y = torch.randn(50, 15, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(50, 15, generator=draw, dtype=torch.float64, requires_grad=True)
    ours, theirs = isotonic(y, weights), isotonic(y, weights, solver="highs")
    oracle = isotonic(y, weights.detach())
    assert [f.evaluation.solver for f in (ours, theirs, oracle)] == ["network", "highs", "oracle"]
    for found in (ours, oracle):
        assert torch.allclose(found.value, theirs.value) and torch.allclose(found.fit, theirs.fit)
    ours_fit, oracle_fit = (torch.autograd.grad(f.fit.square().sum(), y)[0] for f in (ours, oracle))
    assert torch.allclose(ours_fit, oracle_fit)
    pair = [torch.autograd.grad(found.value.sum(), (y, weights)) for found in (ours, theirs)]
    for one, other in zip(*pair, strict=True):
        assert torch.allclose(one, other)
    assert torch.allclose(pair[0][1], (ours.fit - y).abs())
    assert torch.allclose(torch.autograd.grad(oracle.value.sum(), y)[0], pair[0][0])


@pytest.mark.parametrize("increasing", [True, False])
def test_long_chains_against_the_flow(increasing):
    """Ties, weights of zero, and long runs."""
    draw = generator(3)
    for n, spread in ((40, 3), (40, 40), (300, 1000)):
        y = torch.randint(-spread, spread, (20, n), generator=draw).double() + torch.arange(n) * spread / n
        weights = torch.randint(0, 3, (20, n), generator=draw).double()
        quantile = torch.rand(20, generator=draw, dtype=torch.float64)
        how = {"quantile": quantile, "increasing": increasing}
        ours, theirs = (
            isotonic(y, weights, **how),
            isotonic(y, weights, solver="network", **how),
        )
        assert ours.solution is None and torch.allclose(ours.value, theirs.value)
        pairs = [(i, j) if increasing else (j, i) for i, j in chain(n)]
        check_fit(ours, y, weights, quantile[:, None], pairs)
        given = (y, quantile[:, None] * weights, (1 - quantile[:, None]) * weights, torch.ones_like(y))
        found = ChainProblem(n, increasing).propose(*(t.numpy() for t in given))
        assert not found.status.any()  # nothing was left to the flow
        # A supergradient: g is feasible for the flow, and its objective is the value.
        y.requires_grad_()
        (g,) = torch.autograd.grad(isotonic(y, weights, **how).value.sum(), y)
        below, above = quantile[:, None] * weights, (1 - quantile[:, None]) * weights
        assert (g <= below + 1e-9).all() and (g >= -above - 1e-9).all()
        along = g.cumsum(-1) if increasing else g.flip(-1).cumsum(-1)
        assert (along >= -1e-9).all() and torch.allclose(along[:, -1], torch.zeros(20).double())
        assert torch.allclose((g * y).sum(-1), ours.value)


def test_what_the_oracle_refuses_goes_to_the_flow():
    y = torch.tensor([[2.0, 1.0, 5.0], [2.0, 1.0, 5.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    weights = torch.tensor([[torch.inf, 1.0, 1.0], [1.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
    found = isotonic(y, weights)
    assert found.evaluation.solver == "oracle"
    assert found.value.tolist() == [1, 1, 2]
    assert found.fit.tolist() == [[2, 2, 5], [1, 1, 5], [2, 2, 2]]


def test_one_level_is_the_weighted_median():
    y = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    assert torch.equal(isotonic(y).fit, torch.full((5,), 3.0))
    assert torch.equal(isotonic(y, torch.tensor([1.0, 1, 1, 1, 9])).fit, torch.full((5,), 1.0))
    assert torch.equal(isotonic(y, quantile=0.7).fit, torch.full((5,), 4.0))
    assert torch.equal(isotonic(y, increasing=False).fit, y)
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    assert isotonic(y, quantile=quantiles).fit[:, 0].tolist() == [1, 3, 5]


def test_gradients():
    draw = generator(4)
    y = torch.randn(3, 6, generator=draw, dtype=torch.float64, requires_grad=True)
    weights = (torch.rand(3, 6, generator=draw, dtype=torch.float64) + 0.1).requires_grad_()
    quantile = torch.tensor([0.21, 0.5, 0.83], dtype=torch.float64, requires_grad=True)
    leaves = (y, weights, quantile)
    assert torch.autograd.gradcheck(lambda a, b, q: isotonic(a, b, quantile=q).value, leaves)
    assert torch.autograd.gradcheck(lambda a, b: isotonic(a, b, order=DIAMOND).value, leaves[:2])
    for solver in ("auto", "network"):
        fit = lambda a: isotonic(a, weights.detach(), solver=solver).fit  # noqa: B023, E731
        assert torch.autograd.gradcheck(fit, (y,))
    assert torch.autograd.gradcheck(lambda a: isotonic(a, weights.detach()).value, (y,))
    assert torch.autograd.gradgradcheck(lambda a, b: isotonic(a, b).value, leaves[:2])


def test_masks():
    draw = generator(6)
    y = torch.randn(20, 7, generator=draw, dtype=torch.float64)
    mask = torch.rand(20, 7, generator=draw) < 0.6
    found = isotonic(y.masked_fill(~mask, torch.nan), mask=mask)
    for i in range(20):
        alone = isotonic(y[i][mask[i]])
        assert found.value[i].item() == pytest.approx(alone.value.item())
    check_fit(found, y, mask.double())
    lengths = mask.sum(-1)
    prefix = isotonic(y, mask=lengths)
    assert torch.equal(prefix.value, isotonic(y, mask=torch.arange(7) < lengths[:, None]).value)


def test_shapes_dtypes_and_decode():
    for shape in ((2, 0), (0, 3), (2, 1), (3,), (2, 3, 4)):
        found = isotonic(torch.zeros(shape))
        assert found.value.shape == shape[:-1] and found.fit.shape == shape
    assert isotonic(torch.tensor([1.0, 3.0, 2.0, 2.0, 5.0])).decode() == [
        (1, [0]),
        (2, [1, 2, 3]),
        (5, [4]),
    ]
    assert isotonic(torch.zeros(0, 3)).decode() == [] and isotonic(torch.zeros(2, 0)).decode() == [[], []]
    for dtype in (torch.float16, torch.float32):
        y = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, 3.0]], dtype=dtype).T.requires_grad_()
        found = isotonic(y, [1.0, 2.0, 3.0])
        assert found.value.dtype == found.fit.dtype == dtype
        found.value.sum().backward()
        assert y.grad.dtype == dtype and y.grad.any()
    assert isotonic(np.array([2.0, 1.0])).value.dtype == torch.float64
    assert isotonic(torch.zeros(4, 1, 3), torch.ones(5, 3)).value.shape == (4, 5)


def test_bad_input():
    with pytest.raises(ValueError, match=r"item 1 has a negative weight at index 0"):
        isotonic(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [-1.0, 2.0]]))
    with pytest.raises(ValueError, match=r"quantile: item 1 is not in 0..1"):
        isotonic(torch.zeros(2, 2), quantile=torch.tensor([0.5, 1.5]))
    for bad, told in (([(0, 5)], r"pair 0 is \(0, 5\)"), ([(0, 1), (1, 1)], "pair 1"), ([0, 1], "integers")):
        with pytest.raises(ValueError, match=told):
            isotonic(torch.zeros(2, 3), order=bad)
    with pytest.raises(ValueError, match="got a number"):
        isotonic(1.0)
    for y in (torch.nan, torch.inf):
        with pytest.raises(lpdiff.SolveError, match=r"item 1: invalid"):
            isotonic(torch.tensor([[1.0, 2.0], [1.0, y]]))
    found = isotonic(torch.tensor([[2.0, 1.0], [1.0, torch.nan]]), throw=False)
    assert found.ok.tolist() == [True, False] and found.value[0].item() == 1


def test_problem_and_module():
    y = torch.randn(5, 4, generator=generator(0), dtype=torch.float64)
    ones = torch.ones(4)
    for problem in (OrderProblem(4, tuple(chain(4))), ChainProblem(4)):
        assert torch.allclose(lpdiff.solve(problem, y, ones, ones, ones).value, isotonic(y).value)
    module = IsotonicRegression(increasing=False, quantile=0.3)
    assert torch.allclose(module(y, ones).value, isotonic(y, increasing=False, quantile=0.3).value)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(y).value, module(y).value)
    with pytest.raises(TypeError, match="no option 'decreasing'"):
        IsotonicRegression(decreasing=True)
