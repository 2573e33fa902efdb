"""from_cvxpy against CVXPY itself: values, variables, duals, gradients, and what is refused."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import lpdiff
from lpdiff.modeling import CvxpyProgram, from_cvxpy, is_cvxpy


@dataclass
class Case:
    problem: cp.Problem
    parameters: list[cp.Parameter]
    values: list[np.ndarray]

    def oracle(self, values: list[np.ndarray]) -> float:
        """CVXPY's own solve; leaves its solution on the problem."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CVXPY warns of its own handling of sparse parameters
            for parameter, value in zip(self.parameters, values, strict=True):
                if parameter.attributes["sparsity"]:
                    parameter.value_sparse = sp.coo_array(
                        (value[parameter.sparse_idx], parameter.sparse_idx), shape=parameter.shape
                    )
                else:
                    parameter.value = value
            self.problem.solve(solver=cp.HIGHS)
            assert self.problem.status == "optimal"
            return float(self.problem.value)


ZOO: dict[str, Callable[[np.random.Generator], Case]] = {}


def zoo(build: Callable[[np.random.Generator], Case]) -> Callable[[np.random.Generator], Case]:
    ZOO[build.__name__] = build
    return build


def _box(rng: np.random.Generator, n: int = 4, m: int = 3, **attributes: Any) -> tuple[Any, list[Any]]:
    x = cp.Variable(n, name="x", **attributes)
    return x, [rng.uniform(0.2, 1, (m, n)) @ x <= rng.uniform(1, 2, m), x >= -1]


@zoo
def objective(rng):
    x, rows = _box(rng)
    p = cp.Parameter(4, name="p")
    return Case(cp.Problem(cp.Minimize(p @ x), [*rows, x <= 2]), [p], [rng.normal(size=4)])


@zoo
def right_hand_side(rng):
    x, rows = _box(rng)
    p, q = cp.Parameter(2, name="p"), cp.Parameter(name="q")
    B = rng.uniform(-1, 1, (2, 4))
    problem = cp.Problem(
        cp.Maximize(rng.normal(size=4) @ x), [*rows, B @ x == p, cp.sum(x) <= 2 * q + 1, x <= 3]
    )
    return Case(problem, [p, q], [0.1 * rng.normal(size=2), np.array(0.3)])


@zoo
def variable_bounds(rng):
    lower, upper = cp.Parameter(4, name="lower"), cp.Parameter(name="upper")
    x = cp.Variable(4, bounds=[lower, upper])
    y = cp.Variable(2, bounds=[0.5, 3])
    problem = cp.Problem(
        cp.Minimize(rng.normal(size=4) @ x + cp.sum(y)),
        [cp.sum(x) + y[0] >= 1, rng.uniform(0, 1, 4) @ x <= 5],
    )
    return Case(problem, [lower, upper], [rng.uniform(-1, 0, 4), np.array(1.7)])


@zoo
def matrix_entries(rng):
    x = cp.Variable(4)
    A, t = cp.Parameter((3, 4), name="A"), cp.Parameter(name="t")
    problem = cp.Problem(cp.Maximize(rng.uniform(1, 2, 4) @ x), [A @ x <= 1, t * x[0] >= -1, x >= 0])
    return Case(problem, [A, t], [rng.uniform(0.2, 1, (3, 4)), np.array(1.3)])


@zoo
def jointly(rng):
    x = cp.Variable((2, 3), name="x", nonneg=True)
    C, A, b = (
        cp.Parameter((2, 3), name="C"),
        cp.Parameter((2, 3), name="A"),
        cp.Parameter(2, name="b"),
    )
    problem = cp.Problem(
        cp.Maximize(cp.sum(cp.multiply(C, x)) + cp.sum(b)),
        [
            cp.sum(cp.multiply(A, x), axis=1) <= b,
            cp.sum(x, axis=0) <= 1 + b[0],
            x[0, 0] == 0.1 * b[1],
        ],
    )
    return Case(
        problem,
        [C, A, b],
        [rng.normal(size=(2, 3)), rng.uniform(0.5, 1, (2, 3)), rng.uniform(1, 2, 2)],
    )


@zoo
def norms(rng):
    x = cp.Variable(5)
    p, w = cp.Parameter(5, name="p"), cp.Parameter(nonneg=True, name="w")
    problem = cp.Problem(
        cp.Minimize(w * cp.norm1(x) + cp.norm_inf(x - p) + cp.abs(x[0])),
        [cp.sum(x) == 1, cp.abs(x) <= 2],
    )
    return Case(problem, [p, w], [rng.normal(size=5), np.array(0.7)])


@zoo
def piecewise(rng):
    x = cp.Variable(4)
    p, w = cp.Parameter(4, name="p"), cp.Parameter(2, nonneg=True, name="w")
    objective = (
        cp.sum_largest(cp.multiply(p, x), 2)
        + w[0] * cp.max(x)
        + cp.sum(cp.maximum(x, p))
        + w[1] * cp.sum(cp.pos(x))
    )
    return Case(
        cp.Problem(cp.Minimize(objective), [cp.norm_inf(x) <= 3, cp.sum(x) >= 1]),
        [p, w],
        [rng.normal(size=4), rng.uniform(0.5, 1, 2)],
    )


@zoo
def concave(rng):
    x, rows = _box(rng)
    p = cp.Parameter(4, name="p")
    problem = cp.Problem(cp.Maximize(cp.min(x + p) - cp.norm1(x)), [*rows, cp.min(x) >= -0.7])
    return Case(problem, [p], [rng.normal(size=4)])


@zoo
def symmetric(rng):
    X = cp.Variable((3, 3), symmetric=True, name="X")
    P, D = cp.Parameter((3, 3), symmetric=True, name="P"), cp.Parameter((3, 3), diag=True, name="D")
    B = rng.normal(size=(3, 3))
    problem = cp.Problem(cp.Minimize(cp.trace((P + D) @ X)), [X <= 1, B - 3 <= X, cp.trace(X) == 1])
    value = rng.normal(size=(3, 3))
    return Case(problem, [P, D], [value + value.T, np.diag(rng.normal(size=3))])


@zoo
def sparse(rng):
    where = (np.array([0, 0, 1, 2]), np.array([1, 3, 0, 2]))
    A = cp.Parameter((3, 4), sparsity=where, name="A")
    x, S = cp.Variable(4, nonneg=True), cp.Variable((3, 3), sparsity=([0, 2], [1, 0]))
    D = cp.Variable((2, 2), diag=True)
    problem = cp.Problem(
        cp.Maximize(rng.uniform(1, 2, 4) @ x + cp.sum(S) - cp.trace(D)),
        [A @ x + S @ np.ones(3) <= 1, S <= 0.4, S >= -1, D >= -2],
    )
    value = np.zeros((3, 4))
    value[where] = rng.uniform(0.5, 1, 4)
    return Case(problem, [A], [value])


@zoo
def odd_constraints(rng):
    x, rows = _box(rng)
    p, q = cp.Parameter(4, name="p"), cp.Parameter(name="q")
    extra = [q >= 0, cp.Constant(1) <= 2, 0 * x <= q, True, x[0] <= 1, 2 * x[0] <= 2, x[:0] >= 1]
    extra += [cp.NonNeg(x + 1), cp.Zero(x[1] - x[2] - q)]
    return Case(
        cp.Problem(cp.Minimize(p @ x), [*rows, *extra]),
        [p, q],
        [rng.normal(size=4) - 2, np.array(0.2)],
    )


@zoo
def no_constraints(rng):
    x, p = cp.Variable(3, bounds=[-1, 2]), cp.Parameter(3, name="p")
    return Case(cp.Problem(cp.Minimize(p @ x + 3)), [p], [rng.normal(size=3)])


@zoo
def three_dimensions(rng):
    X, P = cp.Variable((2, 3, 2), bounds=[0, 1]), cp.Parameter((3, 2), name="P")
    problem = cp.Problem(
        cp.Minimize(cp.sum(cp.multiply(rng.normal(size=(2, 3, 2)), X))), [cp.sum(X, axis=0) == P]
    )
    return Case(problem, [P], [rng.uniform(0.2, 0.8, (3, 2))])


@pytest.fixture(params=sorted(ZOO))
def case(request) -> Case:
    return ZOO[request.param](np.random.default_rng(3))


def _tensors(case: Case) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in case.values]


# -- against CVXPY ---------------------------------------------------------------------------------


def test_values_and_solutions(case):
    program = from_cvxpy(case.problem, case.parameters)
    solution = lpdiff.solve(program, *case.values)
    value = case.oracle(case.values)
    assert solution[case.problem].item() == pytest.approx(value, abs=1e-9)
    assert solution[case.problem.objective].item() == solution.value.item()
    # A feasible point of CVXPY's own problem, whose own objective has the optimal value.
    for variable in case.problem.variables():
        found = solution[variable]
        assert found.shape == variable.shape
        variable.save_value(found.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CVXPY warns of its own handling of sparse variables
        assert case.problem.objective.value == pytest.approx(value, abs=1e-8)
        assert all(np.max(c.violation(), initial=0) < 1e-8 for c in case.problem.constraints)


def test_duals_have_the_sign_and_shape_of_cvxpy(case):
    program = from_cvxpy(case.problem, case.parameters)
    solution = lpdiff.solve(program, *case.values)
    case.oracle(case.values)
    for constraint in case.problem.constraints:
        dual = solution[constraint]
        assert dual.shape == constraint.shape
        assert torch.equal(dual, solution[constraint.dual_variables[0]])
        if constraint.size and solution.y_unique:
            np.testing.assert_allclose(dual.numpy(), constraint.dual_value, atol=1e-8)
        if isinstance(constraint, cp.constraints.Inequality):
            assert (dual >= -1e-9).all()  # CVXPY's sign, for Minimize and Maximize


def test_the_zoo_compares_duals_somewhere():
    unique = 0
    for build in ZOO.values():
        case = build(np.random.default_rng(3))
        unique += bool(lpdiff.solve(from_cvxpy(case.problem, case.parameters), *case.values).y_unique)
    assert unique >= 6


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_duals_by_hand(sense):
    sign = 1 if sense is cp.Minimize else -1
    x = cp.Variable(2, name="x")
    upper, equal = x[0] <= 2, x[0] + x[1] == 5
    # min -3a - b (or max 3a + b) with a <= 2, a + b = 5: a = 2, b = 3.
    problem = cp.Problem(sense(-sign * (3 * x[0] + x[1])), [upper, equal])
    solution = lpdiff.solve(from_cvxpy(problem))
    assert solution[x].tolist() == pytest.approx([2, 3])
    problem.solve(solver=cp.HIGHS)
    assert solution[upper].item() == pytest.approx(2) == upper.dual_value
    assert solution[equal].item() == pytest.approx(equal.dual_value)
    assert abs(equal.dual_value) == pytest.approx(1)


def _direction(parameter: cp.Parameter, rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=parameter.shape)
    if parameter.attributes["symmetric"]:
        return direction + direction.T
    if parameter.attributes["diag"]:
        return np.diag(np.diag(direction))
    if parameter.attributes["sparsity"]:
        kept = np.zeros(parameter.shape)
        kept[parameter.sparse_idx] = direction[parameter.sparse_idx]
        return kept
    return np.asarray(direction)


def test_gradients_against_finite_differences_of_cvxpy(case):
    rng = np.random.default_rng(5)
    program = from_cvxpy(case.problem, case.parameters)
    values = _tensors(case)
    gradients = torch.autograd.grad(lpdiff.solve(program, *values).value, values)
    step = 1e-5
    for k, parameter in enumerate(case.parameters):
        assert gradients[k].shape == parameter.shape
        for _ in range(2):
            direction = _direction(parameter, rng)
            ends = []
            for sign in (1, -1):
                moved = list(case.values)
                moved[k] = moved[k] + sign * step * direction
                ends.append(case.oracle(moved))
            expected = (ends[0] - ends[1]) / (2 * step)
            assert (gradients[k].numpy() * direction).sum() == pytest.approx(expected, rel=1e-5, abs=1e-6)


# -- the affine map --------------------------------------------------------------------------------


def test_data_matches_what_cvxpy_applies(case):
    program = from_cvxpy(case.problem, case.parameters)
    lp = program.program
    case.oracle(case.values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told, _, _ = case.problem.get_problem_data(cp.HIGHS)
    data = program.data(*case.values)
    sign = 1 if lp.sense == "min" else -1
    np.testing.assert_allclose(sign * np.asarray(data.get("c", lp.c)), told["c"], atol=1e-12)
    A = lp.form.matrix(np.asarray(data.get("A_values", lp.A.data)))
    np.testing.assert_allclose(A.toarray(), -told["A"].toarray(), atol=1e-12)
    np.testing.assert_allclose(np.asarray(data.get("row_lower", lp.row_lower)), -told["b"], atol=1e-12)
    equal = np.arange(lp.m) < told["dims"].zero
    upper = np.asarray(data.get("row_upper", lp.row_upper))
    np.testing.assert_allclose(upper, np.where(equal, -told["b"], np.inf), atol=1e-12)


def test_only_what_depends_on_parameters_is_returned(case):
    program = from_cvxpy(case.problem, case.parameters)
    data = program.data(*_tensors(case))
    assert data
    for name, value in data.items():
        pair = value if name == "bounds" else (value,)
        assert any(side.requires_grad for side in pair), name
        assert all(side.dtype == torch.float64 for side in pair)
    assert (program.program.c is None) == ("c" in data)


def test_bounds_that_cvxpy_forgets():
    # With a parametric bound anywhere, CVXPY 1.9.3 itself answers y = 0 here.
    x, y = (
        cp.Variable(bounds=[cp.Parameter(name="p"), None]),
        cp.Variable(nonneg=True, bounds=[1, 5]),
    )
    z, w = cp.Variable(nonpos=True, bounds=[-5, -2]), cp.Variable(nonneg=True, bounds=[-1, 5])
    solution = lpdiff.solve(from_cvxpy(cp.Problem(cp.Minimize(x + y - z + w))), -3.0)
    assert [solution[v].item() for v in (x, y, z, w)] == [-3, 1, -2, 0]


def test_the_map_differentiates_twice_and_maps():
    case = ZOO["jointly"](np.random.default_rng(0))
    program = from_cvxpy(case.problem, case.parameters)
    values = _tensors(case)

    def everything(*values):
        data = program.data(*values)
        return data["c"], data["A_values"], data["row_lower"], data["offset"]

    assert torch.autograd.gradcheck(everything, values)
    assert torch.autograd.gradgradcheck(everything, values)
    batch = [torch.stack([v, 2 * v, v - 1]).detach() for v in values]
    for mapped, direct in zip(torch.func.vmap(everything)(*batch), everything(*batch), strict=True):
        assert torch.equal(mapped, direct)
    jacobian = torch.func.jacrev(lambda C: program.data(C, *values[1:])["c"])(values[0])
    assert jacobian.shape == (6, 2, 3) and set(jacobian.flatten().tolist()) == {0.0, 1.0}


def test_symmetric_gradients_are_symmetric():
    case = ZOO["symmetric"](np.random.default_rng(1))
    values = _tensors(case)
    lpdiff.solve(from_cvxpy(case.problem, case.parameters), *values).value.backward()
    gradient = values[0].grad
    assert torch.equal(gradient, gradient.mT) and gradient.abs().max() > 0.1
    assert values[1].grad[0, 1] == 0


def test_batches():
    rng = np.random.default_rng(2)
    case = ZOO["jointly"](rng)
    program = from_cvxpy(case.problem, case.parameters)
    C, A, b = (torch.tensor(value) for value in case.values)
    Cs = C + 0.3 * torch.tensor(rng.normal(size=(4, 1, 2, 3)))
    bs = b + 0.2 * torch.tensor(rng.uniform(size=(3, 2)))
    data = program.data(Cs, A, bs)
    # Each datum has the batch of the parameters in it, so what is shared stays shared.
    assert data["c"].shape == (4, 1, program.program.n)
    assert data["A_values"].shape == (program.program.nnz,)
    assert data["row_lower"].shape == (3, program.program.m) and data["offset"].shape == (3,)
    (x,) = case.problem.variables()
    solution = lpdiff.solve(program, Cs, A, bs)
    assert solution.value.shape == (4, 3) and solution[x].shape == (4, 3, 2, 3)
    for i in range(4):
        for j in range(3):
            alone = lpdiff.solve(program, Cs[i, 0], A, bs[j])
            assert torch.equal(alone[x], solution[x][i, j])
    empty = lpdiff.solve(program, C.expand(0, 2, 3), A, b)
    assert empty.value.shape == (0,) and empty[x].shape == (0, 2, 3)
    assert empty[case.problem.constraints[0]].shape == (0, 2)


def test_what_values_may_be():
    case = ZOO["sparse"](np.random.default_rng(4))
    program = from_cvxpy(case.problem, case.parameters)
    (value,) = case.values
    expected = program.data(value)["A_values"]
    dense = torch.tensor(value)
    for given in (
        sp.csr_array(value),
        sp.coo_matrix(value),
        value.tolist(),
        dense,
        dense.to_sparse(),
    ):
        assert torch.equal(program.data(given)["A_values"], expected)
    single = program.data(dense.float().requires_grad_())["A_values"]
    assert single.dtype == torch.float64 and torch.allclose(single, expected, atol=1e-6)
    for given in (sp.csr_array(value), value.tolist()):
        assert lpdiff.solve(program, given).value.dtype == torch.float64
    assert lpdiff.solve(program, dense.float()).value.dtype == torch.float32
    scalar = ZOO["right_hand_side"](np.random.default_rng(4))
    lp = from_cvxpy(scalar.problem, scalar.parameters)
    assert torch.equal(
        lp.data([0.0, 1], 2)["row_lower"],
        lp.data(np.array([0, 1.0]), torch.tensor(2.0))["row_lower"],
    )


# -- what is listed, what is frozen ----------------------------------------------------------------


def test_parameters_default_to_all_in_the_order_of_the_problem():
    case = ZOO["jointly"](np.random.default_rng(0))
    program = from_cvxpy(case.problem)
    assert [spec.name for spec in program.parameters] == [p.name() for p in case.problem.parameters()]


@pytest.mark.parametrize("name", ["jointly", "symmetric", "variable_bounds", "norms"])
def test_unlisted_parameters_are_frozen(name):
    case = ZOO[name](np.random.default_rng(0))
    case.oracle(case.values)
    whole = lpdiff.solve(from_cvxpy(case.problem, case.parameters), *case.values)
    for k, parameter in enumerate(case.parameters):
        part = from_cvxpy(case.problem, [parameter])
        solution = lpdiff.solve(part, case.values[k])
        assert solution.value.item() == pytest.approx(whole.value.item(), abs=1e-9)
        for constraint in case.problem.constraints:  # found though the copy has other ids
            assert solution[constraint].shape == constraint.shape
    frozen = from_cvxpy(case.problem, [])
    assert frozen.data() == {}
    assert lpdiff.solve(frozen).value.item() == pytest.approx(whole.value.item(), abs=1e-9)
    case.parameters[0].value = case.parameters[0].value + 1  # too late to matter
    assert lpdiff.solve(frozen).value.item() == pytest.approx(whole.value.item(), abs=1e-9)


def test_freezing_makes_products_of_parameters_and_signs_admissible():
    x, p, q = cp.Variable(2, name="x"), cp.Parameter(name="p"), cp.Parameter(name="q")
    problem = cp.Problem(cp.Minimize(p * q * x[0] + q * cp.abs(x[1])), [x >= 1])
    q.value = 2.0
    value = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    solution = lpdiff.solve(from_cvxpy(problem, [p]), value)
    solution.value.backward()
    assert solution.value.item() == pytest.approx(8) and value.grad.item() == pytest.approx(2)


def test_refused_parameter_lists():
    case = ZOO["right_hand_side"](np.random.default_rng(0))
    p, q = case.parameters
    with pytest.raises(ValueError, match=r"'q' is not listed .* no value"):
        from_cvxpy(case.problem, [p])
    with pytest.raises(ValueError, match=r"parameters\[1\], 'p', is listed twice"):
        from_cvxpy(case.problem, [p, p, q])
    with pytest.raises(ValueError, match=r"'r', does not occur in the problem, whose parameters are p, q"):
        from_cvxpy(case.problem, [p, q, cp.Parameter(name="r")])
    with pytest.raises(TypeError, match=r"parameters\[0\]: expected a cvxpy.Parameter, got str"):
        from_cvxpy(case.problem, ["p"])
    computed = cp.CallbackParam(callback=lambda: 1.0, name="computed")
    problem = cp.Problem(
        cp.Minimize(case.problem.variables()[0][0]), [*case.problem.constraints, computed >= 0]
    )
    with pytest.raises(ValueError, match="'computed' is computed from other parameters"):
        from_cvxpy(problem, [p, q])


# -- refusals --------------------------------------------------------------------------------------

_X = cp.Variable(2, name="x")
_P, _Q = cp.Parameter(name="p"), cp.Parameter(name="q")
_REFUSED = {
    "not dcp": (cp.Maximize(cp.max(_X)), [], r"\(DCP\).*max\(x"),
    "not dcp in a constraint": (
        cp.Minimize(_X[0]),
        [_X >= 0, cp.abs(_X) >= 1],
        r"constraints\[1\]",
    ),
    "sign unknown": (cp.Minimize(_P * cp.norm1(_X)), [], r"p \* norm1.*nonneg=True"),
    "not dpp": (
        cp.Minimize(_P * _Q * _X[0]),
        [_X >= 0],
        r"DPP.*'p \* q' in the objective.*in torch",
    ),
    "quadratic": (cp.Minimize(cp.sum_squares(_X)), [], r"not an LP: 'quad_over_lin"),
    "norm2": (cp.Minimize(cp.norm2(_X)), [], r"not an LP.*norm1"),
    "soc": (
        cp.Minimize(_X[0]),
        [_X >= 0, cp.SOC(_X[0], _X)],
        r"constraints\[1\].*is a SOC constraint",
    ),
    "quadratic row": (
        cp.Minimize(_X[0]),
        [cp.square(_X[0]) <= 1],
        r"'Power.*\(x\[0\].* in constraints\[0\]",
    ),
    "exp": (cp.Minimize(cp.exp(_X[0])), [], r"'exp\(x\[0\]\)' in the objective"),
    "semidefinite": (cp.Minimize(_X[0]), [cp.diag(_X) >> 0], r"PSD constraint"),
    "psd variable": (
        cp.Minimize(cp.trace(cp.Variable((2, 2), PSD=True, name="V"))),
        [],
        r"'V' is semidefinite",
    ),
    "complex": (cp.Minimize(cp.real(cp.Variable(complex=True, name="z"))), [], r"'z' is complex"),
    "empty": (cp.Minimize(_P), [], r"no variables"),
    "finite set": (cp.Minimize(_X[0]), [cp.FiniteSet(_X[0], [1, 2])], r"FiniteSet.*boolean"),
    "sign and bound": (
        cp.Minimize(cp.sum(cp.Variable(2, nonneg=True, bounds=[_P, None], name="y"))),
        [],
        r"'y' has a sign.*as a constraint",
    ),
}


@pytest.mark.parametrize("name", sorted(_REFUSED))
def test_refused_problems(name):
    objective, constraints, message = _REFUSED[name]
    with pytest.raises(ValueError, match=message):
        from_cvxpy(cp.Problem(objective, constraints))


def test_refused_objects():
    with pytest.raises(TypeError, match=r"bare Minimize; wrap it: cvxpy.Problem\(Minimize"):
        from_cvxpy(cp.Minimize(_X[0]))
    with pytest.raises(TypeError, match=r"expected a cvxpy\.Problem, got int"):
        from_cvxpy(3)
    assert is_cvxpy(cp.Minimize(_X[0])) and is_cvxpy(cp.Problem(cp.Minimize(_X[0]))) and not is_cvxpy(3)


def test_refused_values():
    case = ZOO["jointly"](np.random.default_rng(0))
    program = from_cvxpy(case.problem, case.parameters)
    C, A, b = case.values
    with pytest.raises(
        ValueError, match=r"expected 3 parameter values, in the order C \(2, 3\), A \(2, 3\), b"
    ):
        program.data(C, A)
    with pytest.raises(
        ValueError, match=r"'C': expected shape \(\*batch, 2, 3\), got \(3, 2\); is it transposed"
    ):
        program.data(C.T, A, b)
    with pytest.raises(ValueError, match=r"got \(2, 3, 7\); batch dimensions lead"):
        program.data(np.zeros((2, 3, 7)), A, b)
    with pytest.raises(ValueError, match=r"'b'.*got \(2, 1\); .* reshape it to \(2,\)"):
        program.data(C, A, b[:, None])
    with pytest.raises(TypeError, match="'A': expected a tensor, an array or a number, got list"):
        program.data(C, ["a"], b)
    with pytest.raises(TypeError, match=r"'A': expected real numbers, got torch.complex128"):
        program.data(C, A + 1j, b)


@pytest.mark.parametrize(
    ("attributes", "wrong", "message"),
    [
        ({"nonneg": True}, [[-1.0, 0], [0, 1]], "lower bound"),
        ({"neg": True}, [[-1.0, 0], [0, 1]], "upper bound"),
        ({"bounds": [0, 2]}, [[1.0, 0], [0, 3]], "upper bound"),
        ({"symmetric": True}, [[1.0, 0], [1, 1]], "symmetric"),
        ({"diag": True}, [[1.0, 0], [1, 1]], "sparsity"),
        ({"sparsity": ([0], [1])}, [[0.0, 1], [1, 0]], "sparsity"),
    ],
)
def test_values_must_be_what_the_parameter_was_declared(attributes, wrong, message):
    P, x = cp.Parameter((2, 2), name="P", **attributes), cp.Variable(2)
    program = from_cvxpy(cp.Problem(cp.Minimize(cp.sum(x)), [x >= P @ np.ones(2)]))
    with pytest.raises(ValueError, match=f"'P' was declared .*{message}"):
        program.data(wrong)
    with pytest.raises(ValueError, match="'P' was declared"):
        program.data([np.zeros((2, 2)), wrong])
    assert torch.func.vmap(lambda P: program.data(P)["row_lower"])(torch.tensor([wrong])).shape == (
        1,
        2,
    )
    assert program.data(np.zeros((2, 2)))["row_lower"].shape == (2,)


def test_missing_or_broken_cvxpy(monkeypatch):
    problem = cp.Problem(cp.Minimize(_X[0]), [_X >= 0])
    monkeypatch.setattr(cp, "installed_solvers", lambda: ["CLARABEL"])
    with pytest.raises(ImportError, match=r"interface to HiGHS: .*cvxpy>=1.9"):
        from_cvxpy(problem)
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(ImportError, match="interface to HiGHS: import of highspy halted"):
        from_cvxpy(problem)
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(ImportError, match=r"pip install 'cvxpy>=1.9'"):
        from_cvxpy(problem)


# -- keys, names, copies ---------------------------------------------------------------------------


def test_keys():
    case = ZOO["jointly"](np.random.default_rng(0))
    program = from_cvxpy(case.problem, case.parameters)
    solution = lpdiff.solve(program, *case.values)
    (x,) = case.problem.variables()
    assert torch.equal(solution["x"], solution[x]) and torch.equal(solution[program.key(x)], solution[x])
    assert torch.equal(solution["x[1,2]"], solution[x][1, 2])
    constraint = case.problem.constraints[0]
    assert program.key(constraint) == program.key(constraint.dual_variables[0]) != program.key(x)
    for stranger in (
        cp.Variable(name="s"),
        "s",
        x[0],
        x + 1,
        cp.Variable() >= 0,
        case.parameters[0],
        7,
    ):
        with pytest.raises(KeyError, match=r"not part of this problem: .*x, constraints\[0\]"):
            solution[stranger]
        with pytest.raises(KeyError, match="not part of this problem"):
            program.key(stranger)
    with pytest.raises(KeyError, match="not part of this problem"):
        solution[cp.Problem(cp.Minimize(_X[0]))]


def test_names():
    x, twin, s = cp.Variable((2, 2), name="x"), cp.Variable(2, name="x"), cp.Variable(name="x[0,0]")
    S = cp.Variable((2, 2), symmetric=True, name="S")
    problem = cp.Problem(
        cp.Minimize(cp.sum(x) + cp.sum(twin) + s + cp.sum(S) + cp.abs(s)),
        [x >= 0, (twin >= 1).set_label("floor"), s == 2, S >= 0],
    )
    lp = from_cvxpy(problem).program
    assert set(lp.variable_names) == {
        *("x[0,0]", "x[1,0]", "x[0,1]", "x[1,1]", "x_2[0]", "x_2[1]", "x[0,0]_2"),
        *("S[0,0]", "S[0,1]", "S[1,1]", "auxiliary[0]"),
    }
    assert {
        "floor[0]",
        "floor[1]",
        "constraints[2]",
        "constraints[0][1,0]",
        "constraints[3][1,1]",
    } < set(lp.row_names)


def test_copies_and_pickles():
    case = ZOO["piecewise"](np.random.default_rng(0))
    program = from_cvxpy(case.problem, case.parameters)
    (x,) = case.problem.variables()
    expected = lpdiff.solve(program, *case.values)
    stored = pickle.dumps(program)
    assert b"cvxpy.expressions" not in stored and b"cvxpy.problems" not in stored
    for twin in (pickle.loads(stored), copy.deepcopy(program)):
        assert isinstance(twin, CvxpyProgram)
        solution = lpdiff.solve(twin, *case.values)
        assert torch.equal(solution[x], expected[x]) and torch.equal(solution.value, expected.value)


def test_repr():
    case = ZOO["jointly"](np.random.default_rng(0))
    text = repr(from_cvxpy(case.problem, case.parameters))
    assert (
        "parameters: C (2, 3), A (2, 3), b (2,)" in text
        and "variables: x (2, 3)" in text
        and "maximise" in text
    )


def test_layer_in_the_manner_of_cvxpylayers():
    case = ZOO["jointly"](np.random.default_rng(0))
    (x,), row = case.problem.variables(), case.problem.constraints[0]
    layer = copy.deepcopy(lpdiff.LPLayer(case.problem, case.parameters, variables=[x, row, case.problem]))
    values = [torch.tensor(v, dtype=torch.float32, requires_grad=True) for v in case.values]
    found, dual, value = layer(*values)
    assert found.shape == (2, 3) and dual.shape == (2,) and value.dtype == torch.float32
    value.backward()
    expected = _tensors(case)
    lpdiff.solve(from_cvxpy(case.problem, case.parameters), *expected).value.backward()
    for single, double in zip(values, expected, strict=True):
        assert single.grad.dtype == torch.float32
        torch.testing.assert_close(single.grad.double(), double.grad, atol=1e-5, rtol=1e-5)


def test_the_problem_is_left_alone():
    case = ZOO["right_hand_side"](np.random.default_rng(0))
    from_cvxpy(case.problem, case.parameters)
    assert all(p.value is None for p in case.parameters) and case.problem.value is None
    assert case.problem._cache.param_prog is None


# -- integers --------------------------------------------------------------------------------------


def test_integer_programs():
    x, y = cp.Variable(4, boolean=True, name="x"), cp.Variable(2, integer=True, name="y")
    z = cp.Variable((2, 2), boolean=[(0, 1), (1, 1)], bounds=[-3, 3])
    p = cp.Parameter(4, name="p")
    rows = [np.array([3, 5, 4, 2]) @ x <= 8.5, y >= -1.5, y <= p[:2] + 0.5, cp.sum(z) >= 2]
    case = Case(
        cp.Problem(cp.Maximize(p @ x + cp.sum(y) - cp.sum(z)), rows),
        [p],
        [np.array([3.0, 4, 3, 2])],
    )
    program = from_cvxpy(case.problem, case.parameters)
    lp = program.program
    names = np.array(lp.variable_names)
    integers = {f"x[{i}]" for i in range(4)} | {
        "y[0]",
        "y[1]",
        f"{z.name()}[0,1]",
        f"{z.name()}[1,1]",
    }
    assert set(names[lp.integrality]) == integers
    boolean = np.isin(names, [*(f"x[{i}]" for i in range(4)), f"{z.name()}[0,1]"])
    assert (lp.lower[boolean] == 0).all() and (lp.upper[boolean] == 1).all()
    assert lp.lower[names == f"{z.name()}[1,0]"] == -3
    solution = lpdiff.solve(program, case.values[0])
    assert solution.value.item() == pytest.approx(case.oracle(case.values), abs=1e-8)
    with pytest.raises(lpdiff.UnsupportedError, match="integer program has no duals"):
        solution[rows[0]]
