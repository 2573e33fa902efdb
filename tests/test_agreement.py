"""HiGHS and GLOP agree on values, duals and every gradient, over the zoo and over random LPs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.backends.glop import GLOP
from lpdiff.testing import KINDS, random_lp, zoo

pytestmark = pytest.mark.skipif(GLOP.missing() is not None, reason=GLOP.missing() or "")

SOLVABLE = [s for s in zoo().values() if s.status == lpdiff.Status.OPTIMAL and not s.lp.is_mip]
FAILING = [s for s in zoo().values() if s.status != lpdiff.Status.OPTIMAL]
NAMES = ("c", "A_values", "row_lower", "row_upper", "lower", "upper")


def solve_with(solver, lp):
    arrays = (np.zeros(lp.n) if lp.c is None else lp.c, lp.A.data)
    arrays += (lp.row_lower, lp.row_upper, lp.lower, lp.upper)
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    c, values, row_lower, row_upper, lower, upper = leaves
    sol = lpdiff.solve(
        lp,
        c=c,
        A_values=values,
        row_lower=row_lower,
        row_upper=row_upper,
        bounds=(lower, upper),
        solver=solver,
        gradient="exact",
    )
    return sol, leaves


def gradients(output, leaves):
    found = torch.autograd.grad(output, leaves, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]


def dual_value(lp, sol):
    """D(y) in the user's sense, by this test's own arithmetic."""
    sign = 1.0 if lp.sense == "min" else -1.0
    total = 0.0
    for duals, lower, upper in (
        (sol.y, lp.row_lower, lp.row_upper),
        (sol.reduced_costs, lp.lower, lp.upper),
    ):
        for dual, low, high in zip(sign * duals.detach().numpy(), lower, upper, strict=True):
            if abs(dual) > 1e-9:  # a zero dual comes with rounding
                total += dual * (low if dual > 0 else high)
    return sign * total


def compare(lp):
    """Everything that the LP determines; returns whether it determines derivatives of the vertex."""
    (one, leaves), (two, others) = solve_with("highs", lp), solve_with("glop", lp)
    values = [float(sol.value.detach()) for sol in (one, two)]
    scale = 1 + abs(values[0])
    assert abs(values[0] - values[1]) <= 1e-7 * scale
    x_unique = bool(one.x_unique) or bool(two.x_unique)
    y_unique = bool(one.y_unique) or bool(two.y_unique)
    close = {"rtol": 1e-6, "atol": 1e-6}
    if x_unique:
        torch.testing.assert_close(one.x, two.x, **close)
    if y_unique:
        torch.testing.assert_close(one.y, two.y, **close)
        torch.testing.assert_close(one.reduced_costs, two.reduced_costs, **close)
    ours, theirs = gradients(one.value, leaves), gradients(two.value, others)
    for name, a, b in zip(NAMES, ours, theirs, strict=True):
        determined = x_unique if name == "c" else y_unique
        if determined and (name != "A_values" or x_unique):
            torch.testing.assert_close(a, b, **close, msg=name)
    # Whatever the ties: the duals of one prove the x of the other optimal, D(y1) = c'x2 and back.
    for first, second in ((one, two), (two, one)):
        primal = float((leaves[0] * second.x).sum().detach())
        assert abs(dual_value(lp, first) - primal) <= 1e-6 * scale

    smooth = bool(one.unique) and bool(two.unique)
    if smooth:
        rng = np.random.default_rng(1)
        wx, wy, wd = (torch.from_numpy(rng.normal(size=k)) for k in (lp.n, lp.m, lp.n))

        def mixed(sol):
            return (wx * sol.x).sum() + (wy * sol.y).sum() + (wd * sol.reduced_costs).sum()

        for name, a, b in zip(
            NAMES, gradients(mixed(one), leaves), gradients(mixed(two), others), strict=True
        ):
            torch.testing.assert_close(a, b, **close, msg=name)
    return smooth


@pytest.mark.parametrize("specimen", SOLVABLE, ids=repr)
def test_on_the_zoo(specimen):
    compare(specimen.lp)


@pytest.mark.parametrize("kind", KINDS)
def test_on_random_lps(kind):
    rng = np.random.default_rng(17)
    smooth = [
        compare(random_lp(rng, int(rng.integers(1, 25)), int(rng.integers(0, 18)), kind=kind))
        for _ in range(40)
    ]
    if kind == "generic":
        assert all(smooth)


@pytest.mark.parametrize("specimen", FAILING, ids=repr)
def test_on_what_has_no_optimum(specimen):
    statuses = [
        int(lpdiff.solve(specimen.lp, solver=solver, throw=False).status) for solver in ("highs", "glop")
    ]
    assert statuses == [specimen.status, specimen.status]
