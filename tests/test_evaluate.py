"""evaluate: problems by their oracle and by their LP, on a small problem made for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import lpdiff
from lpdiff.problem import Moments, Parameter, Proposal

F64 = torch.float64


@dataclass(frozen=True, eq=False)
class Choice(lpdiff.AbstractProblem):
    """min over j of costs[j] + fee * ((j >= free) of the first ``count``): x on the simplex."""

    n: int
    refuses: tuple[int, ...] = ()
    has_oracle: ClassVar[bool] = True

    @property
    def parameters(self):
        shapes = Parameter("costs", (self.n,), compact=True), Parameter("fee", ())
        return (*shapes, Parameter("free", (), kind="data"))

    @property
    def program(self):
        return lpdiff.LinearProgram(A_eq=np.ones((1, self.n)), b_eq=[1.0], bounds=(0, None))

    def data(self, costs, fee, free):
        pays = torch.arange(self.n) >= (1 if free is None else torch.as_tensor(free)[..., None])
        return {"c": costs + fee[..., None] * pays}

    def propose(self, costs, fee, free, *, threads=1):
        free = np.ones(len(costs), dtype=np.int64) if free is None else free
        pays = np.arange(self.n) >= free[:, None]
        c = costs.astype(np.float64) + fee[:, None] * pays
        j = c.argmin(1)[:, None]
        status = np.where(np.isnan(c).any(1), lpdiff.Status.INVALID, 0).astype(np.int8)
        status[[k for k in self.refuses if k < len(status)]] = lpdiff.Status.INACCURATE
        value = np.take_along_axis(c, j, 1)[:, 0]
        fine = status == 0
        moments = Moments(j, fine[:, None] * 1.0)
        fees = Moments(np.zeros_like(j), np.take_along_axis(pays, j, 1) * fine[:, None] * 1.0)
        value[~fine] = 77.0 if self.refuses else np.nan  # a refused value must not be seen
        told = {int(k): "costs hold NaN" for k in np.flatnonzero(status == lpdiff.Status.INVALID)}
        return Proposal(value, status, (moments, fees), told)


def numbers(*shape, seed=0):
    return torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def test_both_ways_agree():
    costs, fee = numbers(50, 6).requires_grad_(), numbers(50, seed=1).requires_grad_()
    free = torch.randint(0, 7, (50,), generator=torch.Generator().manual_seed(2))
    found = [lpdiff.evaluate(Choice(6), costs, fee, free, solver=s) for s in ("auto", "highs", "glop")]
    assert [f.solver for f in found] == ["oracle", "highs", "glop"]
    assert found[0].solution is None and found[1].solution is not None
    gradients = [torch.autograd.grad(f.value.sum(), (costs, fee)) for f in found]
    for f, (a, b) in zip(found, gradients, strict=True):
        assert torch.allclose(f.value, found[0].value)
        assert torch.allclose(a, gradients[0][0])
        assert torch.allclose(b, gradients[0][1])
        assert torch.allclose(f.indicator(0).detach(), a)
        assert torch.allclose(f.total(1), b)
        assert f.ok.all()
    with pytest.raises(KeyError, match="expected one of costs, fee"):
        found[1].solution["cost"]


def test_finite_differences():
    costs, fee = numbers(20, 5).requires_grad_(), numbers(20, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda c, f: lpdiff.evaluate(Choice(5), c, f, None).value, (costs, fee), check_forward_ad=True
    )


def test_second_order_is_zero_and_linear_in_the_cotangent():
    costs, fee, weight = (numbers(*shape).requires_grad_() for shape in ((4, 5), (4,), (4,)))
    value = lpdiff.evaluate(Choice(5), costs, fee, None).value
    first = torch.autograd.grad((weight * value).sum(), (costs, fee), create_graph=True)
    second = torch.autograd.grad(sum((g.cos()).sum() for g in first), (costs, weight), allow_unused=True)
    assert second[0] is None or not second[0].any()
    assert second[1].any()
    hessian = torch.autograd.functional.hessian(
        lambda c: lpdiff.evaluate(Choice(5), c, fee.detach(), None).value.square().sum(), costs.detach()
    )
    x = first[0].detach() / weight.detach()[:, None]
    expected = 2 * torch.einsum("bi,bj->bij", x, x)
    assert torch.allclose(torch.stack([hessian[k, :, k] for k in range(4)]), expected)


def test_transforms():
    costs, fee = numbers(3, 4, 5), numbers(4)
    whole = lpdiff.evaluate(Choice(5), costs, fee, None).value

    def value(c, f):
        return lpdiff.evaluate(Choice(5), c, f, None).value

    assert torch.equal(torch.func.vmap(value, (0, None))(costs, fee), whole)
    assert torch.equal(torch.func.vmap(torch.func.vmap(value), (0, None))(costs, fee), whole)
    gradient = torch.func.grad(lambda c: value(c, fee).sum())(costs)
    assert torch.allclose(gradient.sum(-1), torch.ones(3, 4, dtype=F64))
    per_item = torch.func.vmap(torch.func.grad(lambda c, f: value(c, f).sum()), (0, None))(costs, fee)
    assert torch.equal(per_item, gradient)
    direction = numbers(3, 4, 5, seed=3)
    _, pushed = torch.func.jvp(lambda c: value(c, fee), (costs,), (direction,))
    assert torch.allclose(pushed, (gradient * direction).sum(-1))
    with forward_ad.dual_level():
        found = lpdiff.evaluate(Choice(5), forward_ad.make_dual(costs, direction), fee, None)
        with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
            found.indicator(0)


# Dynamo looks at .grad of the tensors that cross its graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_is_a_graph_break():
    costs = numbers(4, 5).requires_grad_()
    loss = torch.compile(lambda c: lpdiff.evaluate(Choice(5), 2 * c, 0.5, None).value.sum(), backend="eager")
    (gradient,) = torch.autograd.grad(loss(costs), costs)
    plain = lpdiff.evaluate(Choice(5), 2 * costs, 0.5, None).indicator(0).detach()
    assert torch.equal(gradient, 2 * plain)


def test_what_the_oracle_refuses_goes_to_the_lp():
    costs, fee = numbers(9, 6).requires_grad_(), numbers(9, seed=1).requires_grad_()
    plain = lpdiff.evaluate(Choice(6), costs, fee, None)
    found = lpdiff.evaluate(Choice(6, refuses=(0, 4, 8)), costs, fee, None)
    assert torch.allclose(found.value, plain.value)
    assert found.ok.all()
    for a, b in zip(*(torch.autograd.grad(f.value.sum(), (costs, fee)) for f in (plain, found)), strict=True):
        assert torch.allclose(a, b)
    assert torch.equal(found.indicator(0).detach(), plain.indicator(0).detach())
    spoilt = costs.detach().clone()
    spoilt[4, 0] = torch.nan
    with pytest.raises(lpdiff.SolveError, match="item 4") as error:
        lpdiff.evaluate(Choice(6, refuses=(4,)), spoilt, fee, None)
    assert error.value.statuses == [lpdiff.Status.INVALID]


def test_failures():
    costs = numbers(2, 3, 4)
    costs[1, 2, 0] = torch.nan
    costs.requires_grad_()
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item \(1, 2\).*costs hold NaN") as error:
        lpdiff.evaluate(Choice(4), costs, 0.5, None)
    assert error.value.items == [(1, 2)]
    found = lpdiff.evaluate(Choice(4), costs, 0.5, None, throw=False)
    assert found.value.isnan().sum() == 1
    assert found.status[1, 2] == lpdiff.Status.INVALID
    found.value[found.ok].sum().backward()
    assert not costs.grad[1, 2].any()
    assert costs.grad.sum() == 5


def test_batches_types_and_sharing():
    costs = torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    fee = torch.rand(4, dtype=F64).requires_grad_()
    found = lpdiff.evaluate(Choice(5), costs, fee, torch.arange(3)[:, None])
    assert found.value.shape == (3, 4)
    assert found.value.dtype == F64
    found.value.sum().backward()
    assert costs.grad.shape == costs.shape and costs.grad.dtype == torch.float32
    assert costs.grad.sum() == 12
    assert torch.allclose(fee.grad, found.total(1).sum(0))
    single = lpdiff.evaluate(Choice(5), costs.detach()[0, 0], 0.5, 2)
    assert single.value.shape == () and single.value.dtype == torch.float32
    assert lpdiff.evaluate(Choice(5), numbers(2, 5).numpy(), 0.5, None).value.dtype == F64
    assert lpdiff.evaluate(Choice(5), numbers(0, 5), 0.5, None).value.shape == (0,)
    shared = numbers(5).requires_grad_()
    found = lpdiff.evaluate(Choice(5), shared, torch.zeros(7, dtype=F64), None)
    found.value.sum().backward()
    assert shared.grad.sum() == 7
    noncontiguous = numbers(5, 8).t()[::2]
    assert torch.equal(
        lpdiff.evaluate(Choice(5), noncontiguous, 0.0, None).value, noncontiguous.min(1).values
    )


def test_bad_input():
    for match, parameters in {
        r"expected 3 parameters \(costs, fee, free\), got 2": (numbers(5), 0.5),
        r"costs: expected shape \(\*batch, 5\), got \(4,\)": (numbers(4), 0.5, None),
        r"costs must be numbers, got str": ("abcde", 0.5, None),
        r"costs must be real numbers, got torch.bool": (torch.ones(5, dtype=torch.bool), 0.5, None),
        r"costs must be a dense tensor, got torch.sparse_coo": (numbers(5).to_sparse(), 0.5, None),
        r"batch dimensions do not broadcast: costs \(2,\), fee \(3,\)": (numbers(2, 5), numbers(3), None),
    }.items():
        with pytest.raises(ValueError, match=match):
            lpdiff.evaluate(Choice(5), *parameters)
    with pytest.raises(lpdiff.BackendError, match="unknown solver"):
        lpdiff.evaluate(Choice(5), numbers(5), 0.5, None, solver="nobody")


def test_the_solver_is_chosen_by_configuration():
    with lpdiff.options(solver="highs"):
        assert lpdiff.evaluate(Choice(5), numbers(5), 0.5, None).solver == "highs"
    with lpdiff.options(gradient="lpgd"):  # needs duals
        found = lpdiff.evaluate(Choice(5), numbers(3, 5).requires_grad_(), 0.5, None)
    assert found.solver != "oracle"
    found.indicator(0).sum().backward()
