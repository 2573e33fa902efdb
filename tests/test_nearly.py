"""Rows that contradict each other by rounding: marginals that were normalised in float32."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import lpdiff

SIZE = 6


def transport() -> lpdiff.LinearProgram:
    eye, one = sp.eye_array(SIZE), np.ones((1, SIZE))
    return lpdiff.LinearProgram(
        A_eq=sp.vstack([sp.kron(eye, one), sp.kron(one, eye)]), b_eq=np.full(2 * SIZE, 1 / SIZE)
    )


def marginals(items: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.cat(
        [torch.softmax(torch.randn(items, SIZE, generator=generator), -1) for _ in range(2)], -1
    ).to(dtype)


def test_float32_marginals_are_balanced_by_their_last_row():
    lp, b = transport(), marginals(40, torch.float32)
    excess = (b[:, :SIZE].double().sum(1) - b[:, SIZE:].double().sum(1)).abs()
    assert (excess > 1e-9).sum() > 20, "nothing to balance"
    costs = torch.rand(40, SIZE * SIZE, generator=torch.Generator().manual_seed(4), requires_grad=True)
    given = b.clone().requires_grad_()
    sol = lpdiff.solve(lp, c=costs, b_eq=given)
    assert sol.statistics == {"network": 40}
    assert sol.value.dtype == torch.float32
    # What was moved is reported, and all else is met.
    assert torch.allclose(sol.primal_residual.double(), excess, atol=1e-9)
    activity = sol.x.detach().double() @ torch.from_numpy(lp.A.T.toarray())
    assert (activity - b.double()).abs().max() <= excess.max() + 1e-7
    # Against the same LPs with marginals that do balance.
    exact = b.double()
    exact[:, -1] += exact[:, :SIZE].sum(1) - exact[:, SIZE:].sum(1)
    reference = lpdiff.solve(lp, c=costs.detach().double(), b_eq=exact, solver="highs")
    torch.testing.assert_close(sol.value.double(), reference.value, rtol=1e-6, atol=1e-6)
    sol.value.sum().backward()
    # The gradient is that of balanced marginals: a unit more of supply and of demand.
    direction = torch.zeros(2 * SIZE, dtype=torch.float64)
    direction[0] = direction[-1] = 1e-3
    moved = lpdiff.solve(lp, c=costs.detach().double(), b_eq=exact + direction, solver="highs")
    slope = (moved.value - reference.value) / 1e-3
    predicted = given.grad[:, 0].double() + given.grad[:, -1].double()
    assert ((slope - predicted).abs() < 1e-3).float().mean() > 0.9  # but where the vertex changes


def test_what_is_really_unbalanced_stays_infeasible():
    lp, b = transport(), marginals(3, torch.float64)
    b[1, 0] += 1e-4
    sol = lpdiff.solve(lp, c=torch.ones(SIZE * SIZE), b_eq=b, throw=False)
    assert sol.status.tolist() == [0, 1, 0]
    assert sol.certificates[1].verified


@pytest.mark.parametrize("by", [3e-8, 1e-4])
def test_a_vertex_that_is_optimal_to_the_tolerance_will_do(by):
    """x = 1 and x = 1 + by: no exact vertex exists; HiGHS finds one within its tolerance or none."""
    lp = lpdiff.LinearProgram([1.0, 1.0], A_eq=[[1.0, 0], [1.0, 0]], b_eq=[1.0, 1.0 + by])
    sol = lpdiff.solve(lp, solver="highs", throw=False)
    if by < 1e-7:
        assert sol.ok and abs(float(sol.value) - 1) < 1e-6
        assert 0 < sol.primal_residual < 1e-7
    else:
        assert sol.status == lpdiff.Status.INFEASIBLE and sol.certificates[0].verified
