"""LPLayer as a citizen of torch, and in the manner of cvxpylayers."""

from __future__ import annotations

import copy
import io
import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

import lpdiff


@pytest.fixture
def simplex():
    return lpdiff.LinearProgram(
        A_eq=np.ones((1, 3)), b_eq=[1.0], variable_names=["a", "b", "c"], name="simplex"
    )


@pytest.fixture
def shipping():
    """A CVXPY problem with parameters in the objective and on the right, its parts, and their values."""
    x = cp.Variable((2, 2), nonneg=True, name="x")
    cost, demand = cp.Parameter((2, 2), name="cost"), cp.Parameter(2, name="demand")
    meet = cp.sum(x, axis=0) == demand
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost, x))), [meet, cp.sum(x, axis=1) <= 10])
    values = (torch.tensor([[1.0, 4.0], [2.0, 3.0]]), torch.tensor([6.0, 7.0]))
    return problem, (cost, demand), x, meet, values


def test_of_a_linear_program(simplex):
    layer = lpdiff.LPLayer(simplex)
    sol = layer(c=torch.tensor([3.0, 1.0, 2.0]))
    assert isinstance(sol, lpdiff.Solution)
    assert float(sol.value) == 1.0
    named = lpdiff.LPLayer(simplex, variables=["b", "c"])
    b, c = named(c=torch.tensor([[3.0, 1.0, 2.0], [3.0, 2.0, 1.0]]))
    assert b.tolist() == [1, 0]
    assert c.tolist() == [0, 1]
    with pytest.raises(ValueError, match="'z'"):
        lpdiff.LPLayer(simplex, variables=["z"])
    with pytest.raises(ValueError, match="CVXPY"):
        lpdiff.LPLayer(simplex, parameters=[1])
    with pytest.raises(TypeError, match="LinearProgram"):
        lpdiff.LPLayer(np.eye(3))(c=torch.ones(3))


def test_in_the_manner_of_cvxpylayers(shipping):
    problem, parameters, x, meet, (cost, demand) = shipping
    layer = lpdiff.LPLayer(problem, parameters=list(parameters), variables=[x])
    (plan,) = layer(cost, demand)
    for parameter, value in zip(parameters, (cost, demand), strict=True):
        parameter.value = value.numpy().astype(float)
    problem.solve(solver=cp.HIGHS)
    np.testing.assert_allclose(plan.numpy(), x.value, atol=1e-6)

    batch = torch.stack([cost, cost.T, cost.flip(0)])
    (plans,) = layer(batch, demand, solver_args={"method": "primal"})
    assert plans.shape == (3, 2, 2)
    torch.testing.assert_close(plans[0], plan)

    everything = lpdiff.LPLayer(problem, parameters, [problem, x, meet, meet.dual_variables[0]])
    cost.requires_grad_()
    demand.requires_grad_()
    value, plan, dual, same = everything(cost, demand)
    value.backward()
    torch.testing.assert_close(cost.grad, plan.detach())
    np.testing.assert_allclose(dual.detach().numpy(), meet.dual_value, atol=1e-6)
    assert torch.equal(dual, same)
    # CVXPY's sign: the dual of an equality is minus the price of its right-hand side.
    torch.testing.assert_close(demand.grad, -dual.detach())
    sol = layer.solve(cost, demand)
    assert bool(sol.ok)


def test_refusals_at_construction(shipping):
    problem, parameters, *_ = shipping
    with pytest.raises((KeyError, ValueError), match="not part of"):
        lpdiff.LPLayer(problem, parameters, [cp.Variable(3, name="stranger")])
    with pytest.raises(ValueError, match="one"):
        lpdiff.LPLayer(problem, parameters, options={}, solver_args={})
    with pytest.raises(ValueError, match="unknown gradient rule"):
        lpdiff.LPLayer(problem, parameters, gradient="nope")


@pytest.mark.parametrize("kind", ["plain", "cvxpy"])
def test_copies_pickles_and_averages(kind, simplex, shipping):
    problem, parameters, x, _, values = shipping
    if kind == "plain":
        layer = lpdiff.LPLayer(simplex, gradient=lpdiff.gradients.Interpolation(2.0), threads=1)
        call = {"c": torch.tensor([3.0, 1.0, 2.0])}
        expected = layer(**call).x
    else:
        layer = lpdiff.LPLayer(problem, parameters, [x], solver=lpdiff.backends.HiGHS(method="primal"))
        call = dict(enumerate(values))
        expected = layer(*values)[0]

    def run(model):
        return model(**call).x if kind == "plain" else model(*values)[0]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.layer = layer

        def forward(self, *args, **kwargs):
            return self.layer(*args, **kwargs)

    for clone in (copy.deepcopy(layer), copy.copy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(run(clone), expected)
        assert clone.settings == layer.settings
    stream = io.BytesIO()
    torch.save(layer, stream)
    stream.seek(0)
    assert torch.equal(run(torch.load(stream, weights_only=False)), expected)
    assert torch.equal(run(AveragedModel(Model())), expected)
    assert layer.state_dict() == {}
    assert list(layer.parameters()) == list(layer.buffers()) == []


def test_distributed_data_parallel(simplex, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = torch.nn.Linear(2, 3)
                self.layer = lpdiff.LPLayer(simplex)

            def forward(self, z):
                return self.layer(c=self.linear(z)).value

        model = torch.nn.parallel.DistributedDataParallel(Model())
        model(torch.ones(5, 2)).sum().backward()
        assert float(model.module.linear.weight.grad.abs().sum()) == 10.0
    finally:
        torch.distributed.destroy_process_group()


def test_settings_are_looked_up_at_the_call(simplex):
    layer = lpdiff.LPLayer(simplex)
    with lpdiff.options(backends={"highs": {"method": "nope"}}), pytest.raises(ValueError, match="method"):
        layer(c=torch.ones(3))
    with lpdiff.options(solver="nope"), pytest.raises(lpdiff.BackendError, match="nope"):
        layer(c=torch.ones(3))
    fixed = lpdiff.LPLayer(simplex, solver="highs")
    with lpdiff.options(solver="nope"):
        assert bool(fixed(c=torch.ones(3)).ok)


def test_training_moves_towards_the_optimum(simplex):
    """The value as a loss: the learned costs come to rank the observed best variable first."""
    torch.manual_seed(0)
    layer = lpdiff.LPLayer(simplex)
    theta = torch.randn(4, 3, requires_grad=True)
    truth = torch.tensor([0, 1, 2, 1])
    optimiser = torch.optim.SGD([theta], lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        # The perceptron loss c'w - z(c) >= 0, a value gap; the margin keeps it from stopping at a tie.
        margin = theta + torch.nn.functional.one_hot(truth, 3)
        loss = (margin[torch.arange(4), truth] - layer(c=margin).value).sum()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == 0.0
    assert theta.argmin(1).tolist() == truth.tolist()


def test_repr_tells_program_and_settings(simplex):
    told = repr(lpdiff.LPLayer(simplex, solver="highs", options={"method": "ipm"}))
    assert "simplex" in told
    assert "solver='highs'" in told
    assert "ipm" in told
