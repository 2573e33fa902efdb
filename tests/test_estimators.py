"""Estimators of dx/dc: what all keep to, and the formulas of those that need no random numbers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff import problems
from lpdiff.gradients import (
    IMLE,
    LPGD,
    AbstractEstimator,
    AbstractGradient,
    Adaptive,
    Identity,
    Interpolation,
    Perturbed,
)
from lpdiff.testing import random_lp

F64 = torch.float64

RULES = {
    "interpolation": lambda: Interpolation(2.0),
    "interpolation relative": lambda: Interpolation(0.7, relative=True),
    "interpolation two-sided": lambda: Interpolation(2.0, two_sided=True),
    "interpolation adaptive": lambda: Interpolation("adaptive"),
    "identity": lambda: Identity(),
    "identity mean": lambda: Identity("mean"),
    "identity norm": lambda: Identity("norm"),
    "identity both": lambda: Identity("both"),
    "perturbed": lambda: Perturbed(0.5, 8, generator=3),
    "perturbed gumbel": lambda: Perturbed(0.5, 8, "gumbel", antithetic=True, generator=3),
    "perturbed multiplicative": lambda: Perturbed(0.5, 8, multiplicative=True, generator=3),
    "imle": lambda: IMLE(2.0, 0.5, 4, generator=3),
    "imle adaptive": lambda: IMLE("adaptive", 0.5, 4, noise="gumbel", two_sided=True, generator=3),
}


@pytest.fixture(params=RULES)
def make(request):
    return RULES[request.param]


def selection(sense: str = "min") -> lpdiff.LinearProgram:
    """Two of five, so that x moves with c in many ways."""
    return lpdiff.LinearProgram(A_eq=np.ones((1, 5)), b_eq=[2.0], bounds=(0, 1), sense=sense)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def pulled(lp, c, weights, rule, **data):
    """x under a rule, and the gradient of <weights, x> in c."""
    c = c.detach().clone().requires_grad_()
    x = lpdiff.solve(lp, c=c, gradient=rule, **data).x
    (gradient,) = torch.autograd.grad((weights * x).sum(), c)
    return x.detach(), gradient


def simplex_argmin(costs: np.ndarray) -> np.ndarray:
    return np.eye(costs.shape[1])[costs.argmin(axis=1)]


# -- what all keep to --------------------------------------------------------------------------------------


def test_max_is_the_mirror_image_of_min(make):
    c, weights = numbers(6, 5), numbers(6, 5, seed=1)
    x, gradient = pulled(selection(), c, weights, make())
    mirrored, turned = pulled(selection("max"), -c, weights, make())
    assert torch.equal(x, mirrored)
    assert torch.equal(gradient, -turned)
    assert gradient.abs().max() > 0


def test_batch_shapes(make):
    c, weights = numbers(2, 3, 5), numbers(2, 3, 5, seed=1)
    x, gradient = pulled(selection(), c, weights, make())
    assert x.shape == gradient.shape == (2, 3, 5)
    flat_x, flat = pulled(selection(), c.reshape(6, 5), weights.reshape(6, 5), make())
    assert torch.equal(flat_x.reshape(2, 3, 5), x)
    assert torch.equal(flat.reshape(2, 3, 5), gradient)
    # The first items get the same random numbers and bits, whatever comes after them.
    first_x, first = pulled(selection(), c[0], weights[0], make())
    single_x, single = pulled(selection(), c[0, 0], weights[0, 0], make())
    assert single_x.shape == single.shape == (5,)
    assert torch.equal(single_x, x[0, 0])
    assert torch.equal(first_x, x[0])
    if not adapts(make()):  # what an adaptive rule learns from a batch, it learns after it
        assert torch.equal(first, gradient[0])
    assert torch.equal(single, gradient[0, 0])


def adapts(rule: AbstractGradient) -> bool:
    return isinstance(getattr(rule, "strength", None), Adaptive)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
def test_empty_batches(make, shape):
    x, gradient = pulled(selection(), torch.zeros(shape, dtype=F64), torch.zeros(shape, dtype=F64), make())
    assert x.shape == gradient.shape == shape


def test_failed_items_send_zero_and_leave_the_others_alone(make):
    c, weights = numbers(4, 5), numbers(4, 5, seed=1)
    b = torch.tensor([[2.0], [2.0], [7.0], [3.0]], dtype=F64)  # five of at most 1 make no 7
    leaf = c.clone().requires_grad_()
    sol = lpdiff.solve(selection(), c=leaf, b_eq=b, gradient=make(), throw=False)
    assert sol.x[2].isnan().all()
    assert not sol.x[[0, 1, 3]].isnan().any()
    (gradient,) = torch.autograd.grad((weights * sol.x)[[0, 1, 3]].sum(), leaf)
    assert not gradient[2].any()
    kept = [0, 1, 3]
    _, alone = pulled(selection(), c[kept], weights[kept], make(), b_eq=b[kept])
    assert torch.equal(gradient[kept], alone)
    all_failed = torch.full((4, 1), 7.0, dtype=F64)
    x = lpdiff.solve(selection(), c=leaf, b_eq=all_failed, gradient=make(), throw=False).x
    (gradient,) = torch.autograd.grad(torch.nan_to_num(x).sum(), leaf)
    assert not gradient.any()


def test_shared_costs_get_the_sum_over_the_batch(make):
    c, weights = numbers(5), numbers(3, 5, seed=1)
    b = torch.tensor([[1.0], [2.0], [3.0]], dtype=F64)
    x, shared = pulled(selection(), c, weights, make(), b_eq=b)
    own_x, own = pulled(selection(), c.expand(3, 5), weights, make(), b_eq=b)
    assert torch.equal(x, own_x)
    torch.testing.assert_close(shared, own.sum(0), rtol=1e-13, atol=1e-13)


def test_under_vmap(make):
    c, weights = numbers(3, 5), numbers(3, 5, seed=1)
    rule, other = make(), make()
    x, gradient = pulled(selection(), c, weights, rule)
    mapped = torch.func.vmap(lambda c: lpdiff.solve(selection(), c=c, gradient=other).x)
    leaf = c.clone().requires_grad_()
    assert torch.equal(mapped(leaf), x)
    again = make()
    (found,) = torch.autograd.grad(
        (weights * torch.func.vmap(lambda c: lpdiff.solve(selection(), c=c, gradient=again).x)(leaf)).sum(),
        leaf,
    )
    assert torch.equal(found, gradient)


def test_dtypes(make):
    c, weights = numbers(4, 5).float(), numbers(4, 5, seed=1).float()
    x, gradient = pulled(selection(), c, weights, make())
    assert x.dtype == gradient.dtype == torch.float32
    double_x, double = pulled(selection(), c.double(), weights.double(), make())
    torch.testing.assert_close(x, double_x.float(), rtol=0, atol=0)
    torch.testing.assert_close(gradient, double.float(), rtol=1e-6, atol=1e-6)


def test_x_is_the_same_with_and_without_gradients_recorded(make):
    c = numbers(4, 5).requires_grad_()
    sol = lpdiff.solve(selection(), c=c, gradient=make())
    recorded = sol.x
    with torch.no_grad():
        plain = sol.x
    assert recorded.requires_grad
    assert not plain.requires_grad
    assert torch.equal(recorded.detach(), plain)
    other = lpdiff.solve(selection(), c=c, gradient=make())
    with torch.no_grad():
        plain = other.x
    assert torch.equal(plain, other.x.detach())


def test_seeds(make):
    """Reproducible to the bit; a generator that is kept moves on, and so does a copy of it, by itself."""
    c, weights = numbers(4, 5), numbers(4, 5, seed=1)
    rule = make()
    copies = [copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))]
    runs = [pulled(selection(), c, weights, rule) for _ in range(2)]
    for other in (*copies, make()):
        for x, gradient in runs:
            again_x, again = pulled(selection(), c, weights, other)
            assert torch.equal(again_x, x)
            assert torch.equal(again, gradient)
    assert torch.equal(runs[0][0], runs[1][0]) != rule.is_random


def test_generators_of_torch():
    c, weights = numbers(4, 5), numbers(4, 5, seed=1)
    for kind in (Perturbed, IMLE):
        torch.manual_seed(5)
        first = pulled(selection(), c, weights, kind())
        second = pulled(selection(), c, weights, kind())
        torch.manual_seed(5)
        by_default = pulled(selection(), c, weights, kind())
        given = pulled(selection(), c, weights, kind(generator=torch.Generator().manual_seed(5)))
        for a, b, d, e in zip(first, second, by_default, given, strict=True):
            assert torch.equal(a, d)
            assert torch.equal(a, e)
            assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["top_k", "assignment", "grid_path"])
def test_problems_by_oracle_and_by_lp(make, name):
    """A problem's own solver or HiGHS on its LP: the same x, and the same gradient in its parameters."""
    rng = np.random.default_rng(0)
    shape = {"top_k": (3, 7), "assignment": (3, 4, 5), "grid_path": (3, 3, 4)}[name]
    theta, weights = torch.from_numpy(rng.uniform(1, 2, shape)), torch.from_numpy(rng.normal(size=shape))
    more = {"top_k": {"k": 2}, "assignment": {}, "grid_path": {"moves": "monotone"}}[name]
    found = []
    for solver in ("auto", "highs"):
        leaf = theta.clone().requires_grad_()
        result = getattr(problems, name)(leaf, **more, gradient=make(), solver=solver)
        assert (result.solution is None) == (solver == "auto")
        x = result.indicator
        with torch.no_grad():
            assert torch.equal(result.evaluation.indicator(0), x.detach())
        (gradient,) = torch.autograd.grad((weights * x).sum(), leaf)
        found.append((x.detach(), gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert found[0][1].abs().max() > 0


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_solutions_are_read_from_the_vertex(make, solver):
    """A rule may smooth x: what is chosen, visited, matched stays what is optimal."""
    costs = numbers(2, 3, 4).exp()
    how = {"gradient": make(), "solver": solver}
    plain = {"gradient": "exact", "solver": solver}
    scores, capacity = torch.tensor([3.0, 2.0, 1.5]), 2.5
    for one, other in (
        (
            problems.grid_path(costs, moves="monotone", **how).nodes,
            problems.grid_path(costs, moves="monotone", **plain).nodes,
        ),
        (problems.assignment(costs, **how).column_of, problems.assignment(costs, **plain).column_of),
        (problems.rank(costs[0], **how).order, problems.rank(costs[0], **plain).order),
        (
            problems.knapsack(scores, [2.0, 1.0, 1.0], capacity, **how).split,
            problems.knapsack(scores, [2.0, 1.0, 1.0], capacity, **plain).split,
        ),
    ):
        assert torch.equal(one, other)


def test_the_vertex_stays_beside_x(make):
    c = numbers(20, 5).requires_grad_()
    sol = lpdiff.solve(selection("max"), c=c, gradient=make())
    exact = lpdiff.solve(selection("max"), c=c, gradient="exact").x.detach()
    assert torch.equal(sol.vertex, exact)
    assert not sol.vertex.requires_grad
    assert torch.equal(sol.x.detach(), exact) != make().smooths
    failed = lpdiff.solve(selection(), c=c, b_eq=[7.0], gradient=make(), throw=False)
    assert failed.vertex.isnan().all()


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_forbidden_costs_take_no_part(make, solver):
    """+inf forbids a pair: no gradient there, and no part in the norm and the mean of the costs."""
    c, weights = numbers(3, 3, 4).exp(), numbers(3, 3, 4, seed=1)
    c[:, 0, 1] = c[1, 2, 2] = torch.inf
    found = []
    for g in (weights, torch.where(c.isinf(), 7.0, weights)):
        leaf = c.clone().requires_grad_()
        x = problems.assignment(leaf, gradient=make(), solver=solver).indicator
        (gradient,) = torch.autograd.grad((g * x).sum(), leaf)
        assert not x[c.isinf()].any()
        assert not gradient[c.isinf()].any()
        assert gradient.isfinite().all()
        found.append(gradient)
    assert torch.equal(*found)
    assert found[0].abs().max() > 0


def test_a_cotangent_of_nan_is_not_hidden(make):
    """A rule that moves costs by it solves with NaN, which is an error; the others hand it on."""
    c, weights = numbers(2, 5), numbers(2, 5, seed=1)
    weights[0, 1] = torch.nan
    if hasattr(make(), "strength"):
        with pytest.raises(lpdiff.SolveError, match=r"item\(s\) 0 have no optimum") as caught:
            pulled(selection(), c, weights, make())
        assert set(caught.value.statuses) == {lpdiff.Status.INVALID}
    else:
        _, gradient = pulled(selection(), c, weights, make())
        assert gradient[0].isnan().any()
        assert not gradient[1].isnan().any()


def test_problems_in_float32(make):
    theta, weights = numbers(3, 7).float(), numbers(3, 7, seed=1).float()
    found = []
    for dtype in (torch.float32, F64):
        leaf = theta.to(dtype).requires_grad_()
        x = problems.top_k(leaf, 2, gradient=make()).indicator
        (gradient,) = torch.autograd.grad((weights.to(dtype) * x).sum(), leaf)
        assert x.dtype == gradient.dtype == dtype
        found.append((x.detach().double(), gradient.double()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_integer_programs_take_estimators_but_not_program_rules(make):
    lp = lpdiff.LinearProgram(
        A_ub=[[2.0, 3.0, 4.0]], b_ub=[6.0], bounds=(0, 1), integrality=[1, 1, 1], sense="max"
    )
    c, weights = torch.tensor([[2.0, 3.5, 4.0], [1.0, 1.0, 3.0]], dtype=F64), numbers(2, 3)
    x, gradient = pulled(lp, c, weights, make())
    assert x.shape == gradient.shape == (2, 3)
    with pytest.raises(lpdiff.UnsupportedError, match=r"LPGD needs duals.*Interpolation"):
        pulled(lp, c, weights, LPGD())


def test_by_name():
    c, weights = numbers(4, 5), numbers(4, 5, seed=1)
    for name, kind in lpdiff.gradients.NAMES.items():
        torch.manual_seed(0)
        found = pulled(selection(), c, weights, name)
        torch.manual_seed(0)
        for one, other in zip(found, pulled(selection(), c, weights, kind()), strict=True):
            assert torch.equal(one, other)


def test_moved_costs_without_an_optimum_are_told():
    lp = lpdiff.LinearProgram(A_ub=[[-1.0, -1.0]], b_ub=[-1.0])  # x >= 0, no upper bound
    c = torch.tensor([[5.0, 6.0], [0.1, 0.2]], dtype=F64)
    with pytest.raises(lpdiff.SolveError, match=r"Perturbed\(.*item\(s\) 1 have no optimum") as caught:
        pulled(lp, c, torch.ones(2, 2, dtype=F64), Perturbed(0.5, 20, generator=0))
    assert {item for (item,) in caught.value.items} == {1}


def test_only_smoothing_rules_refuse_other_data(make):
    c, b = numbers(2, 5), torch.tensor([2.0], dtype=F64, requires_grad=True)
    rule = make()
    x = lpdiff.solve(selection(), c=c, b_eq=b, gradient=rule).x
    if isinstance(rule, AbstractEstimator) and rule.smooths:
        with pytest.raises(lpdiff.UnsupportedError, match="smooths x"):
            torch.autograd.grad(x.sum(), b)
    else:
        (gradient,) = torch.autograd.grad(x.sum(), b)
        assert gradient.tolist() == [2.0]


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: Interpolation(0.0), ValueError, "Interpolation: strength must be positive, got 0.0"),
        (lambda: Interpolation(np.inf), ValueError, "positive, got inf"),
        (lambda: Interpolation(True), ValueError, "positive, got True"),
        (lambda: Interpolation(None), ValueError, "positive, got None"),
        (lambda: Interpolation("large"), ValueError, "a number or 'adaptive', got 'large'"),
        (lambda: Identity("std"), ValueError, "None, 'mean', 'norm' or 'both', got 'std'"),
        (lambda: LPGD(-1.0), ValueError, "LPGD: strength must be positive"),
        (lambda: LPGD(envelope="both"), ValueError, "'lower', 'upper' or 'average', got 'both'"),
        (lambda: Adaptive(alpha=-1.0), ValueError, "alpha must not be negative"),
        (lambda: Adaptive(decay=1.0), ValueError, r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: Adaptive(step=0.0), ValueError, "step must be positive"),
        (lambda: Perturbed(np.nan), ValueError, "Perturbed: temperature must be positive"),
        (lambda: Perturbed(samples=0), ValueError, "whole number of at least 1, got 0"),
        (lambda: Perturbed(samples=2.0), ValueError, "whole number of at least 1, got 2.0"),
        (lambda: Perturbed(noise="uniform"), ValueError, "expected one of gaussian, gumbel, sum_of_gamma"),
        (lambda: Perturbed(noise=3), TypeError, "got int"),
        (lambda: Perturbed(noise="sum_of_gamma"), ValueError, "must have a score.*IMLE"),
        (lambda: Perturbed(noise="gumbel", multiplicative=True), ValueError, "must be 'gaussian'"),
        (lambda: Perturbed(samples=3, antithetic=True), ValueError, "come in pairs, got samples=3"),
        (lambda: Perturbed(generator="0"), TypeError, "must be a seed.*got str"),
        (lambda: IMLE(temperature=0.0), ValueError, "IMLE: temperature must be positive"),
        (lambda: IMLE(samples=-1), ValueError, "IMLE: samples"),
        (lambda: lpdiff.gradients.SumOfGamma(0.0), ValueError, "degree must be positive"),
        (lambda: lpdiff.gradients.SumOfGamma(terms=0), ValueError, "terms must be a whole number"),
    ],
)
def test_what_is_refused(make, error, told):
    with pytest.raises(error, match=told):
        make()


# -- interpolation -----------------------------------------------------------------------------------------


def run(rule, c, g):
    """A rule's cotangent on the simplex, by an argmin that is one line."""
    outputs = rule.forward(simplex_argmin, c, simplex_argmin(c), np.random.default_rng(0))
    return rule.cotangent(simplex_argmin, c, outputs, g)


def test_interpolation_by_its_formula():
    rng = np.random.default_rng(1)
    c, g = rng.normal(size=(200, 6)), rng.normal(size=(200, 6))
    here = simplex_argmin(c)
    for strength in (0.3, 1.0, 5.0):
        ahead, behind = simplex_argmin(c + strength * g), simplex_argmin(c - strength * g)
        np.testing.assert_array_equal(run(Interpolation(strength), c, g), (ahead - here) / strength)
        two_sided = run(Interpolation(strength, two_sided=True), c, g)
        np.testing.assert_allclose(two_sided, (ahead - behind) / (2 * strength), rtol=1e-15)
        length = strength * np.linalg.norm(c, axis=1) / np.linalg.norm(g, axis=1)
        expected = (simplex_argmin(c + length[:, None] * g) - here) / length[:, None]
        np.testing.assert_allclose(run(Interpolation(strength, relative=True), c, g), expected, rtol=1e-13)
        assert np.abs(expected).max() > 0


def test_relative_steps_know_no_scale():
    rng = np.random.default_rng(2)
    c, g = rng.normal(size=(50, 6)), rng.normal(size=(50, 6))
    rule = Interpolation(0.5, relative=True)
    plain = run(rule, c, g)
    for scale in (1e-200, 1e-3, 1e6, 1e200):
        np.testing.assert_allclose(run(rule, c, scale * g), scale * plain, rtol=1e-12)
        np.testing.assert_allclose(run(rule, scale * c, g), plain / scale, rtol=1e-12)


@pytest.mark.parametrize("two_sided", [False, True])
def test_where_costs_or_cotangents_are_zero(two_sided):
    c = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    g = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, -4.0], [0.0, 0.0, 0.0]])
    for rule in (
        Interpolation(2.0, two_sided=two_sided),
        Interpolation(2.0, relative=True, two_sided=two_sided),
        Interpolation(Adaptive(2.0), two_sided=two_sided),
    ):
        found = run(rule, c, g)
        assert not found[[0, 2]].any()
        # Zero costs count as of norm 1: lambda = 2 / 5.
        length = 2.0 if rule.strength == 2.0 and not rule.relative else 0.4
        behind = simplex_argmin(-g[1:2])[0] if two_sided else np.eye(3)[0]
        expected = (np.eye(3)[2] - behind) / (length * (2 if two_sided else 1))
        np.testing.assert_allclose(found[1], expected)


def test_ties_do_not_move_without_a_cotangent():
    """An argmin that breaks ties at random must not make a gradient out of nothing."""

    def other(costs):
        return np.eye(costs.shape[1])[-np.ones(len(costs), dtype=int)]

    c = np.ones((2, 3))
    found = Interpolation(1.0).cotangent(other, c, (simplex_argmin(c),), np.array([[0.0] * 3, [1.0] * 3]))
    assert not found[0].any()
    assert found[1].any()


# -- the adaptive strength ---------------------------------------------------------------------------------


def test_adaptive_strength_step_by_step():
    rng = np.random.default_rng(3)
    state = Adaptive(0.5, density=0.0, step=0.125, decay=0.75, target=1.0)
    rule = Interpolation(state)
    alpha, density = 0.5, 0.0
    alphas = set()
    for _ in range(40):
        c, g = rng.normal(size=(5, 6)), rng.normal(size=(5, 6))
        g[3] = 0  # tells nothing
        length = alpha * np.linalg.norm(c, axis=1) / np.maximum(np.linalg.norm(g, axis=1), 1e-300)
        rise = simplex_argmin(c + length[:, None] * g) - simplex_argmin(c)
        rise[3] = 0
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.nan_to_num(rise / length[:, None])
        np.testing.assert_allclose(run(rule, c, g), expected, rtol=1e-12)
        density = 0.75 * density + 0.25 * np.count_nonzero(rise) / 4
        alpha = max(0.0, alpha + (0.125 if density < 1 else -0.125))
        alphas.add(alpha)
        assert (state.alpha, state.density) == pytest.approx((alpha, density), rel=1e-12)
    assert len(alphas) > 3
    assert rule.strength is state
    assert "Adaptive(alpha=" in repr(rule)


def test_adaptive_strength_finds_its_target():
    rng = np.random.default_rng(4)
    for start in (0.0, 5.0):
        rule = Interpolation(Adaptive(start, step=0.02))
        densities = []
        for _ in range(600):
            run(rule, rng.normal(size=(20, 30)), rng.normal(size=(20, 30)))
            densities.append(rule.strength.density)
        assert np.mean(densities[-200:]) == pytest.approx(1.0, abs=0.1)


def test_adaptive_strength_at_zero_and_without_news():
    state = Adaptive(0.0, density=0.0)
    c, g = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0]])
    assert not run(Interpolation(state), c, g).any()
    assert state.alpha == 1e-3
    before = (state.alpha, state.density)
    run(Interpolation(state), c, 0 * g)
    run(Interpolation(state), c[:0], g[:0])
    assert (state.alpha, state.density) == before


def test_each_rule_has_an_adaptive_strength_of_its_own():
    one, other = IMLE("adaptive"), IMLE("adaptive")
    assert one.strength is not other.strength
    moved = copy.deepcopy(one)
    moved.strength.alpha = 7.0
    assert one.strength.alpha == 1.0
    assert pickle.loads(pickle.dumps(moved)).strength.alpha == 7.0
    layer = lpdiff.LPLayer(selection(), gradient=moved)
    assert copy.deepcopy(layer) is not layer


# -- identity ----------------------------------------------------------------------------------------------


def without_mean(c: torch.Tensor) -> torch.Tensor:
    return c - c.mean(-1, keepdim=True)


def of_norm_one(c: torch.Tensor) -> torch.Tensor:
    return c / c.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize(
    ("projection", "function"),
    [
        (None, lambda c: c),
        ("mean", without_mean),
        ("norm", of_norm_one),
        ("both", lambda c: of_norm_one(without_mean(c))),
    ],
)
def test_identity_is_the_chain_rule_through_its_projection(projection, function):
    c, g = numbers(20, 6).requires_grad_(), numbers(20, 6, seed=1)
    (expected,) = torch.autograd.grad(-(g * function(c)).sum(), c)
    found = run(Identity(projection), c.detach().numpy(), g.numpy())
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("projection", [None, "mean", "norm", "both"])
def test_identity_leaves_forbidden_costs_out(projection):
    rng = np.random.default_rng(5)
    c, g = rng.normal(size=(1, 6)), rng.normal(size=(1, 6))
    kept = [0, 1, 3, 5]
    c[0, [2, 4]], g[0, [2, 4]] = np.inf, 0.0
    found, fewer = run(Identity(projection), c, g), run(Identity(projection), c[:, kept], g[:, kept])
    np.testing.assert_allclose(found[:, kept], fewer, rtol=1e-13)
    assert not found[0, [2, 4]].any()


def test_identity_where_costs_have_no_direction():
    g = np.array([[1.0, 2.0, 6.0]])
    np.testing.assert_array_equal(run(Identity("norm"), np.zeros((1, 3)), g), -g)
    np.testing.assert_array_equal(run(Identity("both"), np.full((1, 3), 7.0), g), -(g - 3.0))


# -- LPGD --------------------------------------------------------------------------------------------------

ENVELOPES = ("lower", "upper", "average")
STEP = 1e-5


def smooth_lps(count: int):
    """LPs, alternately min and max, whose basis stays when their numbers move by 1e-2."""
    rng = np.random.default_rng(8)
    found = []
    while len(found) < count:
        lp = random_lp(rng, 8, 6, sense="max" if len(found) % 2 else "min")
        sol = lpdiff.solve(lp)
        slack = torch.cat([sol.x - torch.tensor(lp.lower), torch.tensor(lp.upper) - sol.x])
        rows = torch.tensor(lp.A @ sol.x.numpy())
        slack = torch.cat([slack, rows - torch.tensor(lp.row_lower), torch.tensor(lp.row_upper) - rows])
        duals = torch.cat([sol.y, sol.reduced_costs]).abs()
        if bool(sol.unique) and slack[slack > 1e-9].min() > 0.02 and duals[duals > 1e-9].min() > 0.02:
            found.append((rng, lp))
    return found


def all_gradients(lp, rule, wx, wy, strength_of=None):
    names = ("A_values", "row_lower", "row_upper", "lower", "upper")
    leaves = [
        torch.tensor(array, requires_grad=True)
        for array in (lp.A.data, lp.row_lower, lp.row_upper, lp.lower, lp.upper)
    ]
    c = torch.tensor(lp.c, requires_grad=True)
    A, row_lower, row_upper, lower, upper = leaves
    sol = lpdiff.solve(
        lp, c=c, A_values=A, row_lower=row_lower, row_upper=row_upper, bounds=(lower, upper), gradient=rule
    )
    loss = (wx * sol.x).sum() + (wy * sol.y).sum()
    grads = torch.autograd.grad(loss, [c, *leaves], allow_unused=True)
    return dict(zip(("c", *names), grads, strict=True))


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_lpgd_is_exact_where_the_basis_stays(envelope):
    """b, bounds, costs (through y) to rounding; A to rounding or, one-sided, up to O(tau)."""
    nonzero = 0.0
    for rng, lp in smooth_lps(8):
        wx, wy = torch.from_numpy(rng.normal(size=lp.n)), torch.from_numpy(rng.normal(size=lp.m))
        exact = all_gradients(lp, "exact", wx, wy)
        found = all_gradients(lp, LPGD(STEP, envelope), wx, wy)
        coarse = all_gradients(lp, LPGD(4 * STEP, envelope), wx, wy)
        for name in exact:
            size = 1 + exact[name].abs().max()
            error = (found[name] - exact[name]).abs().max() / size
            if name == "A_values" and envelope != "average":
                larger = (coarse[name] - exact[name]).abs().max() / size
                assert error < 1e-2
                assert larger == pytest.approx(4 * float(error), rel=0.05, abs=1e-7)
            else:
                assert error < 1e-7, name
        nonzero = max(nonzero, float(exact["A_values"].abs().max()))
    assert nonzero > 0.1


@pytest.mark.parametrize("sense", ["min", "max"])
def test_lpgd_is_interpolation_in_the_costs(sense):
    c, weights = numbers(50, 5), numbers(50, 5, seed=1)
    for strength in (0.2, 2.0):
        _, one_sided = pulled(selection(sense), c, weights, Interpolation(strength))
        _, mirrored = pulled(selection(sense), c, -weights, Interpolation(strength))
        _, two_sided = pulled(selection(sense), c, weights, Interpolation(strength, two_sided=True))
        for envelope, expected in zip(ENVELOPES, (one_sided, -mirrored, two_sided), strict=True):
            x, found = pulled(selection(sense), c, weights, LPGD(strength, envelope))
            assert torch.equal(x, lpdiff.solve(selection(sense), c=c).x)
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(one_sided, -mirrored)


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_lpgd_takes_batches_of_all_the_data(envelope):
    """Each item as alone, whichever fields the batch shares."""
    rng, lp = smooth_lps(1)[0]
    count = 3
    wx = torch.from_numpy(rng.normal(size=(count, lp.n)))
    values = torch.tensor(lp.A.data) * (1 + 1e-3 * torch.from_numpy(rng.normal(size=(count, lp.nnz))))
    costs = torch.tensor(lp.c) + 1e-3 * torch.from_numpy(rng.normal(size=(count, lp.n)))

    def gradients(c, values, wx):
        c, values = c.clone().requires_grad_(), values.clone().requires_grad_()
        x = lpdiff.solve(lp, c=c, A_values=values, gradient=LPGD(0.5, envelope)).x
        return torch.autograd.grad((wx * x).sum(), [c, values])

    whole = gradients(costs, values, wx)
    shared = gradients(costs, values[0], wx)
    for i in range(count):
        for one, of_all in zip(gradients(costs[i], values[i], wx[i]), whole, strict=True):
            assert torch.equal(one, of_all[i])
        assert torch.equal(gradients(costs[i], values[0], wx[i])[0], shared[0][i])


def test_lpgd_may_move_where_nothing_is_feasible():
    b = torch.tensor([4.995], dtype=F64, requires_grad=True)
    sol = lpdiff.solve(selection(), c=numbers(5), b_eq=b, gradient=LPGD(1.0))
    with pytest.raises(lpdiff.SolveError, match=r"LPGD\(.*moves them less"):
        torch.autograd.grad(sol.y.sum(), b)
