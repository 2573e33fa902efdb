"""Derivatives of value, vertex and duals against finite differences, gradcheck, and the Clarke set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import lpdiff
from lpdiff.autograd import AbstractOperation, apply
from lpdiff.testing import random_lp

FIELDS = ("c", "A_values", "row_lower", "row_upper", "lower", "upper")
GROUPS = {
    "costs": ("c",),
    "rows": ("row_lower", "row_upper"),
    "matrix": ("A_values",),
    "bounds": ("lower", "upper"),
    "jointly": FIELDS,
}
STEP = 1e-6


def numbers(lp: lpdiff.LinearProgram) -> dict[str, torch.Tensor]:
    arrays = (lp.c, lp.A.data, lp.row_lower, lp.row_upper, lp.lower, lp.upper)
    return {name: torch.tensor(array) for name, array in zip(FIELDS, arrays, strict=True)}


def run(lp: lpdiff.LinearProgram, data: dict[str, torch.Tensor]) -> lpdiff.Solution:
    rest = {name: data[name] for name in ("c", "A_values", "row_lower", "row_upper")}
    return lpdiff.solve(lp, **rest, bounds=(data["lower"], data["upper"]), gradient="exact")


def direction(rng: np.random.Generator, data: dict[str, torch.Tensor], names: tuple[str, ...]):
    """A random direction; infinite sides stay, equal sides move together."""
    moves = {}
    for name in names:
        move = torch.from_numpy(rng.normal(size=data[name].shape))
        moves[name] = torch.where(torch.isfinite(data[name]), move, 0.0)
    for lower, upper in (("row_lower", "row_upper"), ("lower", "upper")):
        if lower in moves:
            equal = data[lower] == data[upper]
            moves[lower] = torch.where(equal, moves[upper], moves[lower])
    return moves


def outputs(sol: lpdiff.Solution, weights: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    wx, wy, wd = weights
    duals = (wy * sol.y).sum() + (wd * sol.reduced_costs).sum()
    return {"value": sol.value, "x": (wx * sol.x).sum(), "duals": duals}


def smooth_lps(seed: int, count: int):
    """Random LPs of all row and bound kinds, alternately min and max, with smooth optima."""
    rng = np.random.default_rng([7, seed])
    found = 0
    while found < count:
        sense = "min" if found % 2 == 0 else "max"
        lp = random_lp(rng, int(rng.integers(2, 14)), int(rng.integers(1, 10)), sense=sense)
        sol = lpdiff.solve(lp)
        if bool(sol.unique):
            found += 1
            yield rng, lp, sol


@pytest.mark.parametrize("seed", range(32))
def test_against_finite_differences(seed):
    """10 LPs a seed, 320 in all, every group of data, value and vertex and duals, both modes."""
    for rng, lp, centre in smooth_lps(seed, 10):
        data = numbers(lp)
        weights = tuple(torch.from_numpy(rng.normal(size=k)) for k in (lp.n, lp.m, lp.n))
        for group, names in GROUPS.items():
            moves = direction(rng, data, names)

            def at(t, data=data, moves=moves, lp=lp):
                return run(lp, {k: v + t * moves.get(k, 0.0) for k, v in data.items()})

            ahead, behind = at(STEP), at(-STEP)
            # Smooth at the centre, and on the same piece at both ends.
            assert torch.equal(ahead.basis.columns, centre.basis.columns)
            assert torch.equal(behind.basis.columns, centre.basis.columns)
            plus, minus = outputs(ahead, weights), outputs(behind, weights)
            expected = {key: (plus[key] - minus[key]) / (2 * STEP) for key in plus}

            leaves = {k: v.clone().requires_grad_(k in names) for k, v in data.items()}
            for key, output in outputs(run(lp, leaves), weights).items():
                grads = torch.autograd.grad(
                    output, [leaves[k] for k in names], retain_graph=True, allow_unused=True
                )
                found = sum((g * moves[k]).sum() for g, k in zip(grads, names, strict=True) if g is not None)
                tolerance = 1e-6 if key == "value" else 1e-5
                error = abs(float(found) - float(expected[key]))
                assert error <= tolerance * (1 + abs(float(expected[key]))), (group, key, error)

            def forward(*args, names=names, data=data, weights=weights, lp=lp):
                return outputs(run(lp, {**data, **dict(zip(names, args, strict=True))}), weights)

            _, pushed = torch.func.jvp(forward, tuple(data[k] for k in names), tuple(moves[k] for k in names))
            for key, tangent in pushed.items():
                tolerance = 1e-6 if key == "value" else 1e-5
                error = abs(float(tangent) - float(expected[key]))
                assert error <= tolerance * (1 + abs(float(expected[key]))), (group, key, error)


@pytest.fixture(scope="module")
def checkable() -> list[tuple[lpdiff.LinearProgram, tuple[torch.Tensor, ...]]]:
    """LPs of ranged rows and boxes, well inside a smooth piece, with all their data as leaves."""
    rng = np.random.default_rng(21)
    found = []
    while len(found) < 4:
        A = rng.normal(size=(3, 5))
        middle = A @ rng.normal(size=5)
        lp = lpdiff.LinearProgram(
            rng.normal(size=5),
            A=A,
            row_lower=middle - rng.uniform(0.2, 1, 3),
            row_upper=middle + rng.uniform(0.2, 1, 3),
            bounds=np.stack([-rng.uniform(1, 2, 5), rng.uniform(1, 2, 5)], 1),
            sense="max" if len(found) % 2 else "min",
        )
        sol = lpdiff.solve(lp, throw=False)
        if bool(sol.ok) and int((sol.basis.columns == 1).sum()) >= 2 and margin(lp, sol) > 0.02:
            data = numbers(lp)
            found.append((lp, tuple(data[name].requires_grad_() for name in FIELDS)))
    return found


def margin(lp: lpdiff.LinearProgram, sol: lpdiff.Solution) -> float:
    """The smallest slack of what is basic, and the smallest dual of what is not."""
    point = torch.cat([sol.x, torch.tensor(lp.A @ sol.x.numpy())])
    lower = torch.tensor(np.concatenate([lp.lower, lp.row_lower]))
    upper = torch.tensor(np.concatenate([lp.upper, lp.row_upper]))
    basic = torch.cat([sol.basis.columns, sol.basis.rows]) == 1
    duals = torch.cat([sol.reduced_costs, sol.y])
    return float(torch.where(basic, torch.minimum(point - lower, upper - point), duals.abs()).min())


def call(lp: lpdiff.LinearProgram, *leaves: torch.Tensor) -> lpdiff.Solution:
    return run(lp, dict(zip(FIELDS, leaves, strict=True)))


def test_gradcheck_and_gradgradcheck(checkable):
    for lp, leaves in checkable:

        def value(*args, lp=lp):
            return call(lp, *args).value

        def vertex(*args, lp=lp):
            sol = call(lp, *args)
            return sol.x, sol.y, sol.reduced_costs

        assert torch.autograd.gradcheck(value, leaves, check_forward_ad=True)
        assert torch.autograd.gradcheck(vertex, leaves, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(value, leaves)


def test_second_derivatives_are_not_all_zero(checkable):
    """The closed form d2z/dA dA of the basis, so that gradgradcheck above cannot pass on zeros."""
    for lp, leaves in checkable:
        sol = lpdiff.solve(lp)
        P = np.flatnonzero(sol.basis.columns.numpy() == 1)
        Q = np.flatnonzero(sol.basis.rows.numpy() != 1)
        K = np.linalg.inv(lp.A.toarray()[np.ix_(Q, P)])
        inverse = np.zeros((lp.n, lp.m))
        inverse[np.ix_(P, Q)] = K
        x, y = sol.x.numpy(), sol.y.numpy()
        i, j = lp.rows, lp.cols
        first = inverse[j[None, :], i[:, None]] * y[i[None, :]] * x[j[:, None]]
        expected = first + first.T

        def value(values, lp=lp):
            return lpdiff.solve(lp, A_values=values).value

        hessian = torch.autograd.functional.hessian(value, leaves[1].detach())
        np.testing.assert_allclose(hessian.numpy(), expected, atol=1e-8 * (1 + abs(expected).max()))
        composed = torch.func.hessian(value)(leaves[1].detach())
        torch.testing.assert_close(composed, hessian)
        assert np.abs(expected).max() > 1e-3


def test_third_derivatives_are_refused(checkable):
    lp, leaves = checkable[0]
    values = leaves[1].detach().requires_grad_()
    (first,) = torch.autograd.grad(lpdiff.solve(lp, A_values=values).value, values, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), values, create_graph=True)
    with pytest.raises(lpdiff.UnsupportedError, match="twice"):
        torch.autograd.grad(second.sum(), values)


# -- dx/dc -----------------------------------------------------------------------------------------


@pytest.fixture
def simplex():
    """min c'x on the unit simplex: x is the one-hot of the smallest cost."""
    return lpdiff.LinearProgram(A_eq=np.ones((1, 4)), b_eq=[1.0])


def test_x_to_c_is_refused_without_a_rule(simplex):
    c = torch.tensor([3.0, 1.0, 2.0, 4.0], requires_grad=True)
    sol = lpdiff.solve(simplex, c=c)
    with pytest.raises(lpdiff.UnsupportedError, match=r"'exact', 'interpolation'"):
        sol.x.sum().backward()
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        torch.func.jvp(lambda c: lpdiff.solve(simplex, c=c).x, (c.detach(),), (c.detach(),))
    _, dz = torch.func.jvp(lambda c: lpdiff.solve(simplex, c=c).value, (c.detach(),), (c.detach(),))
    assert float(dz) == 1.0
    with pytest.raises(lpdiff.UnsupportedError, match="Interpolation"):
        torch.func.jvp(
            lambda c: lpdiff.solve(simplex, c=c, gradient="interpolation").x,
            (c.detach(),),
            (c.detach(),),
        )


def test_x_to_b_needs_no_rule(simplex):
    b = torch.tensor([2.0], requires_grad=True)
    x = lpdiff.solve(simplex, c=torch.tensor([3.0, 1.0, 2.0, 4.0]), b=b).x
    (gradient,) = torch.autograd.grad(x[1], b)
    assert gradient.tolist() == [1.0]


def test_exact_rule_is_zero_and_interpolation_is_its_formula(simplex):
    c = torch.tensor([3.0, 1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.0, 5.0, 1.0, 0.0], dtype=torch.float64)
    (zero,) = torch.autograd.grad((weights * lpdiff.solve(simplex, c=c, gradient="exact").x).sum(), c)
    assert zero.tolist() == [0, 0, 0, 0]
    for strength in (0.1, 0.5, 2.0):
        rule = lpdiff.gradients.Interpolation(strength)
        (found,) = torch.autograd.grad((weights * lpdiff.solve(simplex, c=c, gradient=rule).x).sum(), c)
        moved = torch.nn.functional.one_hot((c + strength * weights).argmin(), 4)
        expected = (moved - torch.nn.functional.one_hot(c.argmin(), 4)) / strength
        torch.testing.assert_close(found, expected.double())


def test_interpolation_for_max(simplex):
    """The rule sees a minimisation; the user's signs come back right: more g_j, more cost of j."""
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 3)), b_eq=[1.0], sense="max")
    c = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64)
    rule = lpdiff.gradients.Interpolation(1.0)
    (found,) = torch.autograd.grad((weights * lpdiff.solve(lp, c=c, gradient=rule).x).sum(), c)
    # x(c) = e_1 and x(c - g) = e_0 for max: dL/dc = (x(c) - x(c - lambda g)) / lambda.
    assert found.tolist() == [-1.0, 1.0, 0.0]


def test_unknown_rules(simplex):
    with pytest.raises(ValueError, match="expected one of exact, interpolation"):
        lpdiff.solve(simplex, c=torch.ones(4), gradient="spo")
    with pytest.raises(TypeError, match="got int"):
        lpdiff.solve(simplex, c=torch.ones(4), gradient=3)
    with pytest.raises(ValueError, match="positive"):
        lpdiff.gradients.Interpolation(0.0)


# -- what has no basis -----------------------------------------------------------------------------


def test_interior_optimum_offers_the_value_only():
    lp = lpdiff.LinearProgram([0.0, 0.0, 1.0], A_eq=np.ones((1, 3)), b_eq=[1.0], bounds=(0, 1))
    b = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, b=b, solver="highs", options={"method": "ipm", "crossover": False})
    assert not bool(sol.basis.valid)
    # The middle of the optimal face, where simplex would return an end of it.
    assert 0.2 < float(sol.x[0].detach()) < 0.8
    (gradient,) = torch.autograd.grad(sol.value, b, retain_graph=True)
    assert abs(float(gradient)) < 1e-6
    with pytest.raises(lpdiff.UnsupportedError, match="basis"):
        sol.x.sum().backward()


# -- leaves of all sorts ---------------------------------------------------------------------------


def test_shared_leaves_get_the_sum_over_the_batch():
    rng = np.random.default_rng(3)
    lp = next(smooth_lps(900, 1))[1]
    costs = torch.tensor(lp.c) + 1e-4 * torch.from_numpy(rng.normal(size=(2, 3, lp.n)))
    values = torch.tensor(lp.A.data, requires_grad=True)
    b = torch.tensor(lp.row_upper, requires_grad=True)
    lpdiff.solve(lp, c=costs, A_values=values, row_upper=b).value.sum().backward()
    total_values, total_b = torch.zeros_like(values), torch.zeros_like(b)
    for c in costs.reshape(-1, lp.n):
        one, one_b = values.detach().requires_grad_(), b.detach().requires_grad_()
        lpdiff.solve(lp, c=c, A_values=one, row_upper=one_b).value.backward()
        total_values += one.grad
        total_b += one_b.grad
    torch.testing.assert_close(values.grad, total_values)
    torch.testing.assert_close(b.grad, total_b)


def test_items_that_share_a_basis_but_not_a_matrix():
    rng = np.random.default_rng(4)
    lp = next(smooth_lps(903, 1))[1]
    values = torch.tensor(lp.A.data) + 1e-3 * torch.from_numpy(rng.normal(size=(3, lp.nnz)))
    rows = torch.tensor(lp.row_upper)

    def gradients(values):
        leaf, b = (
            values.clone().requires_grad_(),
            rows.expand(*values.shape[:-1], -1).clone().requires_grad_(),
        )
        sol = lpdiff.solve(lp, A_values=leaf, row_upper=b)
        assert len(torch.unique(sol.basis.columns.reshape(-1, lp.n), dim=0)) == 1
        ((sol.y * sol.y).sum() + (sol.x.detach() * sol.reduced_costs).sum()).backward()
        return leaf.grad, b.grad

    whole = gradients(values)
    for i in range(3):
        for one, all_items in zip(gradients(values[i]), whole, strict=True):
            assert torch.equal(one, all_items[i])
    assert not torch.equal(whole[0][0], whole[0][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_come_in_the_dtype_of_the_leaf(dtype):
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 3)), b_eq=[1.0])
    c = torch.tensor([2.0, 1.0, 3.0], dtype=dtype, requires_grad=True)
    sol = lpdiff.solve(lp, c=c)
    assert sol.value.dtype == dtype
    sol.value.backward()
    assert c.grad.dtype == dtype
    assert c.grad.tolist() == [0, 1, 0]


def test_gradient_bits_depend_on_neither_order_nor_threads():
    rng = np.random.default_rng(11)
    lp = next(smooth_lps(901, 1))[1]
    count = 60
    costs = torch.tensor(lp.c) + 0.3 * torch.from_numpy(rng.normal(size=(count, lp.n)))
    rows = torch.tensor(np.tile(lp.row_upper, (count, 1)))
    lower = torch.tensor(np.where(np.isinf(lp.lower), -50, lp.lower))
    upper = torch.tensor(np.where(np.isinf(lp.upper), 50, lp.upper))

    def gradients(order, threads):
        c = costs[order].clone().requires_grad_()
        b = rows[order].clone().requires_grad_()
        sol = lpdiff.solve(lp, c=c, row_upper=b, bounds=(lower, upper), threads=threads, gradient="exact")
        loss = sol.value.sum() + (sol.x * sol.x).sum() + (sol.y * sol.y).sum()
        loss.backward()
        return c.grad, b.grad

    straight = gradients(torch.arange(count), 1)
    shuffled = torch.from_numpy(rng.permutation(count))
    for order, threads in (
        (torch.arange(count).flip(0), 1),
        (shuffled, 2),
        (torch.tensor([17]), 1),
        (torch.tensor([59, 0]), 2),
    ):
        for whole, part in zip(straight, gradients(order, threads), strict=True):
            assert torch.equal(whole[order], part)


# -- transforms ------------------------------------------------------------------------------------


def test_torch_func_transforms():
    rng = np.random.default_rng(5)
    lp = next(smooth_lps(902, 1))[1]
    costs = torch.tensor(lp.c) + 1e-3 * torch.from_numpy(rng.normal(size=(2, 3, lp.n)))
    upper = torch.tensor(lp.row_upper)

    def value(c, upper):
        return lpdiff.solve(lp, c=c, row_upper=upper).value

    def vertex(c, upper):
        return lpdiff.solve(lp, c=c, row_upper=upper, gradient="exact").x

    plain = value(costs, upper)
    mapped = torch.func.vmap(torch.func.vmap(value, in_dims=(0, None)), in_dims=(0, None))
    torch.testing.assert_close(mapped(costs, upper), plain)
    by_last = torch.func.vmap(value, in_dims=(-1, None))
    torch.testing.assert_close(by_last(costs[0].T.contiguous(), upper), plain[0])

    leaf = costs.clone().requires_grad_()
    value(leaf, upper).sum().backward()
    grads = torch.func.vmap(torch.func.vmap(torch.func.grad(value), in_dims=(0, None)), in_dims=(0, None))
    torch.testing.assert_close(grads(costs, upper), leaf.grad)

    finite = torch.isfinite(upper)
    reverse = torch.func.jacrev(vertex, argnums=1)(costs[0, 0], upper)[:, finite]
    forward = torch.func.jacfwd(vertex, argnums=1)(costs[0, 0], upper)[:, finite]
    torch.testing.assert_close(reverse, forward)
    both = torch.func.vmap(torch.func.jacrev(vertex, argnums=1), in_dims=(0, None))(costs[0], upper)
    torch.testing.assert_close(both[0][:, finite], reverse)


def test_the_node_maps_over_any_dimension():
    class Scale(AbstractOperation):
        differentiable = 1

        def forward(self, *arrays):
            factor, x = arrays
            return (factor * x,)

    x = torch.arange(24.0, dtype=torch.float64).reshape(4, 2, 3)
    factor = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    mapped = torch.func.vmap(lambda x: apply(Scale(), factor, x)[0], in_dims=2)
    torch.testing.assert_close(mapped(x), factor * x.movedim(2, 0))


# Dynamo looks at .grad of the tensors that cross its graph break.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_is_a_graph_break():
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 5)), b_eq=[1.0])
    torch.manual_seed(0)
    linear = torch.nn.Linear(3, 5)

    def model(z):
        return (2 * lpdiff.solve(lp, c=torch.relu(linear(z)) + 1).value).sum()

    z = torch.randn(4, 3)
    plain = model(z)
    plain.backward()
    expected = linear.weight.grad.clone()
    linear.weight.grad = None
    compiled = torch.compile(model, backend="aot_eager")(z)
    compiled.backward()
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(linear.weight.grad, expected)


def test_tangents_of_a_gradient_in_the_costs():
    """Forward over reverse, without a graph of the gradient: dz/dc = x moves with b."""
    lp = lpdiff.LinearProgram([1.0, 2.0], A_eq=[[1.0, 1.0]], b_eq=[1.0], A_ub=[[1.0, 0.0]], b_ub=[0.25])
    c = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    b, tangent = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
    with forward_ad.dual_level():
        sol = lpdiff.solve(lp, c=c, b_eq=forward_ad.make_dual(b, tangent))
        (gradient,) = torch.autograd.grad(sol.value.sum(), c)
        x, dx = forward_ad.unpack_dual(gradient)
    torch.testing.assert_close(x, torch.tensor([[0.25, 0.75]], dtype=torch.float64))
    torch.testing.assert_close(dx, torch.tensor([[0.0, 3.0]], dtype=torch.float64))
