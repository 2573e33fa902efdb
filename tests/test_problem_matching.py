"""Assignment, b-matching, transport against enumeration, HiGHS on the same LP, SciPy, POT, differences."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

import lpdiff
from lpdiff.kernels import pairs as kernel
from lpdiff.problems.matching import Assignment, assignment
from lpdiff.problems.transport import BMatching, OptimalTransport, b_matching, optimal_transport

DOUBLE = torch.float64


def rand(*shape, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=DOUBLE, generator=generator).requires_grad_(grad)


def masks(*shape, seed=0, share=0.7):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share


def enumerated(costs, how):
    """The best of all matchings of a small matrix: value."""
    n, m = costs.shape
    best = np.inf
    for size in range(min(n, m) + 1):
        for rows in itertools.combinations(range(n), size):
            for columns in itertools.permutations(range(m), size):
                best = min(best, how(costs, list(rows), list(columns)))
    return best


def full(costs, rows, columns):
    return costs[rows, columns].sum() if len(rows) == min(costs.shape) else np.inf


WAYS = {
    "square": ((6, 5, 5), {}),
    "wide": ((6, 3, 7), {}),
    "tall": ((6, 7, 3), {}),
    "lengths": ((6, 5, 5), {"rows": [5, 4, 3, 2, 1, 0], "columns": [0, 5, 3, 4, 1, 2]}),
    "masks": ((6, 5, 6), {"rows": masks(6, 5), "columns": masks(6, 6, seed=1)}),
    "one mask": ((2, 3, 4, 6), {"columns": masks(6, seed=2)}),
    "pairs": ((6, 5, 4), {"pairs": [0, 1, 2, 3, 4, 2]}),
    "pairs, masks": ((6, 5, 4), {"pairs": 1, "rows": masks(6, 5, seed=3, share=0.9)}),
    "unmatched": ((6, 5, 4), {"unmatched": 0.1}),
    "unmatched items": ((6, 4, 5), {"unmatched": rand(6, grad=False)}),
    "unmatched each": ((6, 4, 5), {"unmatched": (rand(6, 4, grad=False), rand(5, grad=False))}),
    "unmatched rows": ((6, 4, 5), {"unmatched": (0.3, None), "columns": masks(6, 5, seed=4)}),
    "row": ((6, 1, 4), {}),
    "no rows": ((3, 0, 4), {}),
    "no columns": ((3, 2, 0), {"unmatched": 1.5}),
    "no items": ((0, 3, 3), {}),
    "no batch": ((4, 4), {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_lp_says_the_same(way):
    """The oracle, HiGHS on the LP and its recognised solver: value, gradient, pairs."""
    shape, how = WAYS[way]
    costs = rand(*shape, seed=5)
    mine = assignment(costs, **how)
    assert mine.solution is None and mine.ok.all()
    grad = torch.autograd.grad(mine.value.sum(), costs)[0] if costs.numel() else None
    assert mine.value.shape == shape[:-2] and mine.status.shape == shape[:-2]
    for more in ({"solver": "highs"}, {"gradient": "lpgd"}):
        other = assignment(costs, **how, **more)
        assert other.solution is not None
        torch.testing.assert_close(mine.value, other.value)
        assert torch.equal(mine.column_of, other.column_of) and torch.equal(mine.row_of, other.row_of)
        torch.testing.assert_close(mine.indicator.detach(), other.indicator.detach())
        if grad is not None:
            torch.testing.assert_close(grad, torch.autograd.grad(other.value.sum(), costs)[0])
    if grad is not None:
        torch.testing.assert_close(grad, mine.indicator.detach())
        if "unmatched" not in how:
            torch.testing.assert_close(mine.costs.sum(-1), mine.value)


@pytest.mark.parametrize("seed", range(3))
def test_enumeration(seed):
    rng = np.random.default_rng(seed)
    for n, m in ((3, 3), (2, 4), (4, 2), (1, 3), (3, 1)):
        costs = rng.integers(-2, 4, (30, n, m)).astype(float)  # ties
        costs[rng.random(costs.shape) < 0.2] = np.inf
        p, q = rng.integers(-1, 3, (30, n)).astype(float), rng.integers(-1, 3, (30, m)).astype(float)
        wanted = rng.integers(0, min(n, m) + 1, 30)

        def loose(c, rows, columns, p=p, q=q):
            item = loose.item
            return c[rows, columns].sum() + np.delete(p[item], rows).sum() + np.delete(q[item], columns).sum()

        def exact(c, rows, columns, wanted=wanted):
            return c[rows, columns].sum() if len(rows) == wanted[exact.item] else np.inf

        for how, judge in (
            ({}, full),
            ({"unmatched": (torch.from_numpy(p), torch.from_numpy(q))}, loose),
            ({"pairs": wanted}, exact),
        ):
            found = assignment(costs, throw=False, **how)
            for item in range(30):
                if judge is not full:
                    judge.item = item
                best = enumerated(costs[item], judge)
                assert found.value[item] == pytest.approx(best)
                assert bool(found.ok[item]) == np.isfinite(best)


def test_hundreds_beside_scipy():
    rng = np.random.default_rng(0)
    for n, m in ((8, 8), (12, 5), (5, 12), (1, 1)):
        costs = rng.normal(size=(100, n, m))
        found = assignment(torch.from_numpy(costs))
        for item, pairs in enumerate(found.decode()):
            np.testing.assert_array_equal(pairs, np.column_stack(linear_sum_assignment(costs[item])))


def test_gradients_by_differences():
    costs, p, q = rand(5, 4, 6), rand(5, 4, seed=1), rand(6, seed=2)
    both = rand((), seed=3)
    assert torch.autograd.gradcheck(lambda c: assignment(c).value, (costs,))
    assert torch.autograd.gradcheck(lambda c: assignment(c, pairs=3, rows=[4, 3, 3, 4, 3]).value, (costs,))
    assert torch.autograd.gradcheck(
        lambda c, p, q: assignment(c, unmatched=(p, q), columns=masks(5, 6)).value, (costs, p, q)
    )
    assert torch.autograd.gradcheck(lambda c, b: assignment(c, unmatched=b).value, (costs, both))
    assert torch.autograd.gradcheck(lambda c: assignment(c, rows=masks(5, 4)).costs, (costs,))
    # Shared costs get the sum over the items.
    shared = rand(4, 6)
    found = assignment(shared, rows=[4, 2, 3])
    (grad,) = torch.autograd.grad(found.value.sum(), shared)
    torch.testing.assert_close(grad, found.indicator.detach().sum(0))


def test_memory_layouts_and_dtypes():
    costs = rand(6, 5, 3, grad=False)
    value = assignment(costs).value
    torch.testing.assert_close(assignment(costs.transpose(1, 2).contiguous().transpose(1, 2)).value, value)
    strided = torch.stack([costs, costs + 9], -1)[..., 0]
    torch.testing.assert_close(assignment(strided).value, value)
    torch.testing.assert_close(assignment(costs.transpose(1, 2)).value, value)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        low = costs.to(dtype).requires_grad_()
        found = assignment(low, unmatched=5.0)
        (grad,) = torch.autograd.grad(found.value.sum(), low)
        assert found.value.dtype == found.costs.dtype == found.indicator.dtype == grad.dtype == dtype
        assert found.rows.dtype == torch.int64
    assert assignment(costs.numpy()).value.dtype == DOUBLE
    np.testing.assert_allclose(assignment(costs.numpy().tolist()).value, value)
    sparse = assignment(costs.requires_grad_(), sparse_gradient=True).value.sum()
    (grad,) = torch.autograd.grad(sparse, costs)
    assert grad.is_sparse and grad.coalesce().values().numel() == 18


def test_what_is_not_there_is_not_read():
    costs = rand(4, 5, 5, grad=False)
    rows, columns = masks(4, 5), masks(4, 5, seed=1)
    spoilt = costs.masked_fill(~(rows[:, :, None] & columns[:, None]), torch.nan).requires_grad_()
    for how in ({}, {"unmatched": 0.2}, {"pairs": 1}, {"solver": "highs"}):
        found = assignment(spoilt, rows=rows, columns=columns, **how)
        torch.testing.assert_close(found.value, assignment(costs, rows=rows, columns=columns, **how).value)
        (grad,) = torch.autograd.grad(found.value.sum() + found.costs.sum(), spoilt)
        assert torch.isfinite(grad).all() and not grad[spoilt.isnan()].any()


def test_a_refused_item_is_solved_as_an_lp(monkeypatch):
    costs, p = rand(6, 4, 5), rand(6, 4, seed=1)
    expected = assignment(costs, unmatched=(p, 0.1))

    def refusing(*args, **kwargs):
        found = match(*args, **kwargs)
        found.status[1::2] = lpdiff.Status.INACCURATE
        found.value[1::2], found.weight[1::2], found.places[1::2] = 77.0, 0.0, 0
        return found

    match = kernel.match
    monkeypatch.setattr(kernel, "match", refusing)
    found = assignment(costs, unmatched=(p, 0.1))
    torch.testing.assert_close(found.value, expected.value)
    assert torch.equal(found.column_of, expected.column_of)
    for mine, theirs in zip(
        torch.autograd.grad(found.value.sum(), (costs, p)),
        torch.autograd.grad(expected.value.sum(), (costs, p)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_gradients_through_pairs_need_a_rule():
    costs = rand(3, 4, 4)
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        assignment(costs).indicator.sum().backward()
    found = assignment(costs, gradient="interpolation")
    found.indicator.mul(rand(4, 4, seed=1, grad=False)).sum().backward()
    assert costs.grad is not None and costs.grad.abs().sum() > 0
    assert not assignment(costs).rows.requires_grad


def test_module():
    layer = Assignment(unmatched=nn.Parameter(torch.tensor(0.4)), threads=1)
    costs = rand(5, 4, 4)
    layer(costs).value.sum().backward()
    left = (layer(costs).column_of < 0).sum() + (layer(costs).row_of < 0).sum()
    assert layer.unmatched.grad == left > 0
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(costs).value, layer(costs).value)
    with pytest.raises(TypeError, match="no option 'pear'"):
        Assignment(pear=3)
    torch.testing.assert_close(Assignment()(costs).value, assignment(costs).value)
    # As a step of training: the price of leaving out falls where it is paid.
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.01)
    before = layer(costs).value.sum()
    optimiser.step()
    assert layer(costs).value.sum() < before


def test_what_is_wrong_is_told():
    costs = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match=r"costs: expected shape \(\*batch, n, m\), got \(3,\)"):
        assignment(torch.zeros(3))
    with pytest.raises(ValueError, match=r"rows: item 1 has length 4, expected 0 to 3"):
        assignment(costs, rows=[1, 4])
    with pytest.raises(ValueError, match=r"columns: expected a mask of shape \(\*batch, 4\), got \(2, 3\)"):
        assignment(costs, columns=masks(2, 3))
    with pytest.raises(ValueError, match=r"pairs: item 1 is to have 3 pairs, expected 0 to 2"):
        assignment(costs, pairs=3, rows=[3, 2])
    with pytest.raises(ValueError, match=r"pairs: the item is to have -1 pairs"):
        assignment(costs[0], pairs=-1)
    with pytest.raises(ValueError, match="pairs: expected integers"):
        assignment(costs, pairs=1.5)
    with pytest.raises(ValueError, match="two ways of matching only some"):
        assignment(costs, pairs=1, unmatched=1.0)
    with pytest.raises(ValueError, match=r"unmatched: expected a number or \(\*batch, 3\) for the rows"):
        assignment(costs, unmatched=(torch.zeros(4), None))
    with pytest.raises(ValueError, match="unmatched: expected one cost, or a pair"):
        assignment(costs, unmatched=(1, 2, 3))
    costs[1, 2, 3] = torch.nan
    with pytest.raises(
        lpdiff.SolveError, match=r"item 1[\s\S]*the cost of row 2 and column 3 is nan"
    ) as caught:
        assignment(costs)
    assert caught.value.items == [(1,)] and caught.value.statuses == [lpdiff.Status.INVALID]
    with pytest.raises(lpdiff.SolveError, match="price of an unmatched row or column is not finite"):
        assignment(costs[0], unmatched=torch.inf)
    found = assignment(costs, throw=False)
    assert found.status.tolist() == [0, lpdiff.Status.INVALID] and torch.isnan(found.value[1])
    assert (found.column_of[1] == -1).all() and found.decode()[1].shape == (0, 2)
    costs[1], costs[1, 0] = 0.0, torch.inf
    with pytest.raises(lpdiff.SolveError, match="row 0 has no pair that is allowed"):
        assignment(costs)
    costs[1] = torch.tensor([[0, torch.inf, torch.inf, torch.inf]] * 3)
    with pytest.raises(lpdiff.SolveError, match="do not make a matching that large"):
        assignment(costs)
    assert assignment(costs, throw=False).value.tolist() == [0.0, torch.inf]
    assert assignment(costs, pairs=1).ok.all() and assignment(costs, unmatched=1.0).ok.all()


# -- transport ---------------------------------------------------------------------------------------------


def marginals(*shape, seed=0, dtype=DOUBLE):
    mass = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return (mass / mass.sum(-1, keepdim=True)).to(dtype).requires_grad_()


def test_transport_beside_pot_and_highs():
    costs, a, b = rand(40, 5, 6), marginals(40, 5), marginals(40, 6, seed=1)
    with torch.no_grad():
        a[:10, 2], b[:5, 1] = 0.0, 0.0
        a /= a.sum(-1, keepdim=True)
        b /= b.sum(-1, keepdim=True)
    found, other = optimal_transport(costs, a, b), optimal_transport(costs, a, b, solver="highs")
    assert found.solution.solver == "network"
    expected = [ot.emd2(*(t.detach().numpy() for t in item)) for item in zip(a, b, costs, strict=True)]
    np.testing.assert_allclose(found.value.detach(), expected, atol=1e-12)
    torch.testing.assert_close(found.value, other.value)
    torch.testing.assert_close(found.plan, other.plan)
    torch.testing.assert_close(found.plan.sum(-1), a)
    torch.testing.assert_close(found.plan.sum(-2), b)
    grads = torch.autograd.grad(found.value.sum(), (costs, a, b), retain_graph=True)
    f, g = found.potentials
    for mine, theirs in zip(grads, (found.plan, f, g), strict=True):
        torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close((b * g).sum(-1), torch.zeros(40, dtype=DOUBLE), atol=1e-12, rtol=0.0)
    slack = costs - f[..., :, None] - g[..., None, :]
    assert (slack > -1e-9).all() and (slack[found.plan > 1e-9].abs() < 1e-9).all()
    rebuilt = np.zeros((5, 6))
    i, j, much = found.decode()[0].T
    rebuilt[i.astype(int), j.astype(int)] = much
    np.testing.assert_array_equal(rebuilt, found.plan[0].detach())


def test_transport_gradients_by_differences():
    costs, a, b = rand(3, 4, 5), marginals(3, 4), marginals(3, 5, seed=1)

    def balanced(c, a, b):
        return optimal_transport(c, a, b * a.sum(-1, keepdim=True) / b.sum(-1, keepdim=True))

    assert torch.autograd.gradcheck(lambda *p: balanced(*p).value, (costs, a, b))
    fixed = costs.detach()
    assert torch.autograd.gradcheck(lambda a, b: balanced(fixed, a, b).plan, (a, b))
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        optimal_transport(costs, a, b).plan.square().sum().backward()
    optimal_transport(costs, a, b, gradient="interpolation").plan.square().sum().backward()


def test_transport_in_low_precision_and_by_modules():
    costs = rand(3, 4, 5).float().detach().requires_grad_()
    a, b = marginals(3, 4, dtype=torch.float32), marginals(5, seed=1, dtype=torch.float32)
    found = OptimalTransport()(costs, a, b)
    assert found.value.dtype == found.plan.dtype == found.potentials[0].dtype == torch.float32
    grads = torch.autograd.grad(found.value.sum(), (costs, a, b))
    assert [g.shape for g in grads] == [(3, 4, 5), (3, 4), (5,)]
    empty = optimal_transport(torch.zeros(2, 3, 0), torch.zeros(3), torch.zeros(2, 0))
    assert empty.value.tolist() == [0, 0] and empty.plan.shape == (2, 3, 0)
    nothing = optimal_transport(torch.ones(3, 3), torch.zeros(3), torch.zeros(3))
    assert nothing.value == 0 and torch.isfinite(nothing.potentials[0]).all()


def test_transport_that_cannot_be():
    costs, a = torch.ones(2, 2, 2), torch.tensor([[0.5, 0.5], [0.4, 0.6]])
    with pytest.raises(ValueError, match=r"supply and demand of item 1 sum to 1 and 1.1"):
        optimal_transport(costs, a, torch.tensor([[0.5, 0.5], [0.5, 0.6]]))
    with pytest.raises(ValueError, match=r"supply: item 1 has the mass -0.5 at 0"):
        optimal_transport(costs, torch.tensor([[0.5, 0.5], [-0.5, 1.5]]), a)
    with pytest.raises(ValueError, match="demand: expected shape"):
        optimal_transport(costs, a, 1.0)
    with pytest.raises(ValueError, match="do not broadcast"):
        optimal_transport(costs, a, torch.full((3, 2), 0.5))
    costs[0, 0] = torch.inf
    with pytest.raises(lpdiff.SolveError, match="'row 0'"):
        optimal_transport(costs, a, a)
    costs[0, 0, 0] = 3.0
    assert optimal_transport(costs[0], a[0], a[0]).plan.tolist() == [[0.5, 0.0], [0.0, 0.5]]
    with pytest.raises(lpdiff.SolveError, match="item 1"):
        optimal_transport(torch.ones(2, 2, 2), torch.tensor([[0.5, 0.5], [torch.nan, 0.5]]), a)


# -- b-matching --------------------------------------------------------------------------------------------


def test_b_matching_by_enumeration():
    rng = np.random.default_rng(0)
    costs = rng.integers(-3, 4, (25, 2, 3)).astype(float)
    sets = np.array(list(itertools.product((0, 1, 2), repeat=6))).reshape(-1, 2, 3)
    for times, rows, columns in (
        (1, (1, 2), (None, 1)),
        (2, (None, 3), (1, 2)),
        (2, 2, (None, None)),
        (1, (None, None), ([0, 1, 1], [1, 1, 2])),
    ):
        found = b_matching(costs, rows, columns, times=times)
        good = (sets <= times).all((1, 2))
        for sums, sides in ((sets.sum(2), rows), (sets.sum(1), columns)):
            low, high = sides if isinstance(sides, tuple) else (sides, sides)
            good &= (sums >= (0 if low is None else low)).all(1)
            good &= (sums <= (np.inf if high is None else high)).all(1)
        values = np.einsum("bij,sij->bs", costs, sets[good])
        np.testing.assert_allclose(found.value, values.min(1))
        assert torch.equal(found.indicator, found.indicator.round()) and found.solution.solver == "network"
        torch.testing.assert_close((found.indicator * torch.from_numpy(costs)).sum((1, 2)), found.value)


def test_b_matching_of_units_is_assignment():
    costs = rand(20, 4, 6)
    found = b_matching(costs, 1, (None, 1))
    torch.testing.assert_close(found.value, assignment(costs).value)
    assert [len(d) for d in found.decode()] == [4] * 20
    torch.testing.assert_close(
        torch.autograd.grad(found.value.sum(), costs)[0], assignment(costs).indicator.detach()
    )


def test_b_matching_gradients_to_capacities():
    costs = rand(4, 3, 4)
    high = torch.full((4, 3), 2.3, dtype=DOUBLE, requires_grad=True)
    low = torch.full((4,), 0.9, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *p: b_matching(p[0], (1, p[1]), (p[2], None)).value, (costs, high, low)
    )
    exact = torch.full((3,), 1.2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda c, r: b_matching(c, r, (0, 1)).value, (costs, exact))
    found = b_matching(costs, exact, (0, 1))
    (grad,) = torch.autograd.grad(found.value.sum(), exact, retain_graph=True)
    torch.testing.assert_close(grad, found.worth[0].sum(0))
    torch.testing.assert_close(BMatching(times=1)(costs, exact, (0, 1)).value, found.value)


def test_b_matching_that_cannot_be():
    costs = torch.zeros(2, 2, 3)
    with pytest.raises(ValueError, match=r"rows: item 1 has a lower capacity above the upper at 0"):
        b_matching(costs, (torch.tensor([[0, 0], [3, 0]]), 2), 1)
    with pytest.raises(ValueError, match=r"columns: the item has a negative capacity at 0"):
        b_matching(costs, 1, -1)
    with pytest.raises(ValueError, match=r"columns: expected a number or \(\*batch, 3\)"):
        b_matching(costs, 1, torch.ones(2))
    with pytest.raises(ValueError, match="times: expected"):
        b_matching(costs, 1, (None, 1), times=-2)
    with pytest.raises(lpdiff.SolveError, match="'row 0'"):
        b_matching(costs, 2, (None, 1))
    assert b_matching(costs, 2, (None, 2), times=None).ok.all()
