"""LPs without an optimum, broken numbers, broken backends: nothing is silently zero, NaN or wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from typing import Any, ClassVar

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import lpdiff
from lpdiff import BasisStatus, Capabilities, LinearProgram, SolveError, Status, UnsupportedError
from lpdiff.backend import AbstractBackend, BatchSolution
from lpdiff.backends.glop import GLOP
from lpdiff.backends.highs import HiGHS
from lpdiff.kkt import certify, stand
from lpdiff.proofs import prove_infeasible, prove_unbounded
from lpdiff.standard import Data, StandardForm
from lpdiff.testing import KINDS, random_lp

needs_glop = pytest.mark.skipif(GLOP.missing() is not None, reason=GLOP.missing() or "")

INF = math.inf


def knapsack(**more) -> LinearProgram:
    """max x + 2y, x + y <= 3, 0 <= x, y <= 2: (1, 2), value 5."""
    return LinearProgram([1.0, 2], A_ub=[[1.0, 1]], b_ub=[3.0], bounds=(0, 2), sense="max", **more)


def message_of(*arguments, **keywords) -> str:
    with pytest.raises(SolveError) as caught:
        lpdiff.solve(*arguments, **keywords)
    return str(caught.value)


# -- infeasible ----------------------------------------------------------------------------------------


def contradiction(lp: LinearProgram, y: np.ndarray) -> float:
    """How far y'(Ax), summed by rows, must stay above what x within its bounds can reach."""
    needed = sum(
        yi * (low if yi > 0 else high)
        for yi, low, high in zip(y, lp.row_lower, lp.row_upper, strict=True)
        if yi != 0
    )
    slope = lp.A.T @ y
    slope[np.abs(slope) < 1e-9] = 0
    reachable = sum(
        a * (high if a > 0 else low) for a, low, high in zip(slope, lp.lower, lp.upper, strict=True) if a != 0
    )
    return needed - reachable


def infeasible_lps(seed: int, count: int):
    """A feasible LP, and a combination of its rows and bounds that asks for more than there is."""
    rng = np.random.default_rng([17, seed])
    for k in range(count):
        sense = "min" if k % 2 else "max"
        lp = random_lp(rng, int(rng.integers(2, 12)), int(rng.integers(2, 8)), sense=sense)
        lower, upper = np.maximum(lp.lower, -5), np.minimum(lp.upper, 5)
        weights = lp.A.T @ rng.normal(size=lp.m)
        most = np.where(weights > 0, weights * upper, weights * lower).sum()
        matrix = np.vstack([lp.A.toarray(), weights])
        yield LinearProgram(
            lp.c, A=matrix, row_lower=np.append(lp.row_lower, most + 0.1),
            row_upper=np.append(lp.row_upper, np.inf), bounds=np.stack([lower, upper], 1), sense=sense,
        )  # fmt: skip


@pytest.mark.parametrize("method", ["dual", "primal", "ipm"])
def test_farkas_rays_prove_infeasibility(method):
    for lp in infeasible_lps(0, 15):
        sol = lpdiff.solve(lp, options={"method": method}, throw=False)
        assert sol.status == Status.INFEASIBLE
        assert float(sol.value) == (INF if lp.sense == "min" else -INF)
        assert torch.isnan(sol.x).all()
        certificate = sol.certificates[0]
        assert certificate.kind == "farkas"
        assert certificate.verified
        assert contradiction(lp, certificate.vector) > 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_farkas_rays_in_other_units(scale):
    for lp in infeasible_lps(1, 10):
        sides = {"row_lower": lp.row_lower * scale, "row_upper": lp.row_upper * scale}
        bounds = (lp.lower * scale, lp.upper * scale)
        sol = lpdiff.solve(lp, **sides, bounds=bounds, throw=False)
        assert sol.status == Status.INFEASIBLE
        assert sol.certificates[0].verified


def test_a_huge_side_elsewhere_does_not_hide_infeasibility():
    lp = LinearProgram(
        [1.0, 1], A=[[1.0, 0], [1, 0], [0, 1]], row_lower=[2, -np.inf, -1e18], row_upper=[np.inf, 1, 1e18]
    )
    sol = lpdiff.solve(lp, throw=False)
    assert sol.status == Status.INFEASIBLE
    assert sol.certificates[0].verified


def test_false_farkas_rays_are_not_verified():
    lp = LinearProgram([1.0, 1], A_ub=[[1.0, 1], [-1.0, 1]], b_ub=[3.0, 1.0], bounds=(0, 10))
    rng = np.random.default_rng(0)
    for ray in (
        *rng.normal(size=(200, 2)),
        *np.eye(2),
        -np.ones(2),
        np.zeros(2),
        np.array([np.nan, 1]),
        np.ones(3),
    ):
        assert not prove_infeasible(lp.form, lp.data, ray).verified
    assert not prove_infeasible(lp.form, lp.data, None).verified


def test_a_small_slope_towards_a_large_bound_counts():
    """x + y >= 1 and x - y... : 1e-10 x reaches 1 where x may be 1e11."""
    lp = LinearProgram([1.0], A=[[1e-10]], row_lower=[1.0], bounds=(0, 1e11))
    assert not prove_infeasible(lp.form, lp.data, np.array([1.0])).verified
    tight = LinearProgram([1.0], A=[[1e-10]], row_lower=[1.0], bounds=(0, 1e9))
    assert prove_infeasible(tight.form, tight.data, np.array([1.0])).verified


@pytest.mark.parametrize("sense", ["min", "max"])
def test_crossed_bounds(sense):
    lp = LinearProgram(
        [1.0, 1], A=[[1.0, 1]], row_lower=0.0, row_upper=4.0, bounds=(0, 2), sense=sense,
        variable_names=["left", "right"], row_names=["total"],
    )  # fmt: skip
    sol = lpdiff.solve(lp, bounds=(np.array([[0, 0], [0, 3.0]]), None), throw=False)
    assert sol.status.tolist() == [Status.OPTIMAL, Status.INFEASIBLE]
    assert sol.certificates[1].kind == "crossed"
    assert "variable 'right' has lower bound 3 above upper bound 2" in sol.certificates[1].text
    assert float(sol.value[1]) == (INF if sense == "min" else -INF)
    message = message_of(lp, row_lower=[5.0])
    assert "'total' has lower bound 5 above upper bound 4" in message
    assert "remedy: relax one of the rows or bounds" in message


def test_a_batch_of_nothing_but_crossed_bounds():
    """Nothing is left to solve: the numbers of unsolved items must not stand."""
    sol = lpdiff.solve(knapsack(), bounds=(3.0, None), throw=False)
    assert float(sol.value) == -INF
    assert torch.isnan(sol.x).all()
    assert torch.isnan(sol.reduced_costs).all()
    assert not sol.basis.valid
    assert not sol.unique


# -- unbounded -----------------------------------------------------------------------------------------


def check_direction(lp: LinearProgram, r: np.ndarray) -> None:
    rate = lp.c @ r
    assert rate < 0 if lp.sense == "min" else rate > 0
    rows = lp.A @ r
    for move, lower, upper in ((r, lp.lower, lp.upper), (rows, lp.row_lower, lp.row_upper)):
        assert (move[np.isfinite(lower)] >= -1e-7).all()
        assert (move[np.isfinite(upper)] <= 1e-7).all()


@pytest.mark.parametrize("method", ["dual", "primal", "ipm"])
def test_unbounded_directions(method):
    rng = np.random.default_rng(5)
    for k in range(15):
        n, m = int(rng.integers(2, 10)), int(rng.integers(1, 6))
        r = rng.uniform(0.2, 1, n)
        matrix = rng.normal(size=(m, n))
        matrix[:, 0] -= (matrix @ r) / r[0]  # A r = 0: r is a direction
        sense = "min" if k % 2 else "max"
        c = rng.normal(size=n)
        c *= -np.sign(c @ r) if sense == "min" else np.sign(c @ r)
        lp = LinearProgram(c, A=matrix, row_lower=-1.0, row_upper=1.0, sense=sense)
        sol = lpdiff.solve(lp, options={"method": method}, throw=False)
        assert sol.status == Status.UNBOUNDED
        assert float(sol.value) == (-INF if sense == "min" else INF)
        assert torch.isnan(sol.x).all()
        certificate = sol.certificates[0]
        assert certificate.kind == "direction"
        assert certificate.verified
        check_direction(lp, certificate.vector)


def test_false_directions_are_not_verified():
    tiny_row = LinearProgram([-1.0], A_ub=[[1e-8]], b_ub=[1.0])  # x <= 1e8
    assert not prove_unbounded(tiny_row.form, tiny_row.data, np.array([1.0])).verified
    slow = LinearProgram([-1.0, 0], A_eq=[[-1e-8, 1]], b_eq=[0.0], bounds=[(0, None), (0, 1)])  # x <= 1e8
    assert not prove_unbounded(slow.form, slow.data, np.array([1.0, 1e-8])).verified
    uphill = LinearProgram([1.0, 0])
    for ray in (np.eye(2)[0], np.eye(2)[1], np.zeros(2), np.array([np.inf, 0]), np.ones(3), None):
        assert not prove_unbounded(uphill.form, uphill.data, ray).verified
    good = LinearProgram([-1e-9, 0.0])
    assert prove_unbounded(good.form, good.data, np.array([1.0, 0])).verified
    assert float(lpdiff.solve(tiny_row).value) == pytest.approx(-1e8)
    assert float(lpdiff.solve(slow).value) == pytest.approx(-1e8)


@pytest.mark.parametrize("method", ["dual", "primal", "ipm"])
@pytest.mark.parametrize("sense", ["min", "max"])
def test_infeasible_and_dual_infeasible_is_infeasible(method, sense):
    sign = 1 if sense == "max" else -1
    free = LinearProgram(
        [sign, sign], A_eq=[[1.0, -1], [1, -1]], b_eq=[0.0, 1.0], bounds=(None, None), sense=sense
    )
    sol = lpdiff.solve(free, options={"method": method}, throw=False)
    assert sol.status == Status.INFEASIBLE
    assert sol.certificates[0].verified
    assert float(sol.value) == (INF if sense == "min" else -INF)


# -- broken numbers ------------------------------------------------------------------------------------

FIELDS = ("c", "b", "b_ub", "b_eq", "row_lower", "row_upper", "A_values", "lower", "upper")


def mixed() -> LinearProgram:
    return LinearProgram(
        [1.0, 2, 3], A_ub=[[1.0, 1, 1]], b_ub=[4.0], A_eq=[[1.0, 0, -1]], b_eq=[0.5], bounds=(0, 3),
        variable_names=["u", "v", "w"], row_names=["cap", "tie"],
    )  # fmt: skip


def give(lp: LinearProgram, name: str, value: torch.Tensor, **more) -> lpdiff.Solution:
    if name in ("lower", "upper"):
        return lpdiff.solve(lp, bounds=(value, None) if name == "lower" else (None, value), **more)
    return lpdiff.solve(lp, **{name: value}, **more)


def declared(lp: LinearProgram, name: str) -> np.ndarray:
    return {
        "c": lp.c,
        "A_values": lp.A.data,
        "b": lp.row_upper,
        "b_ub": lp.row_upper[:1],
        "b_eq": lp.row_upper[1:],
    }.get(name, getattr(lp, name, None))


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
@pytest.mark.parametrize("name", FIELDS)
def test_broken_numbers_in_each_field(name, bad):
    lp = mixed()
    value = torch.tensor(declared(lp, name)).expand(3, -1).clone()
    position = value.shape[1] - 1  # the last: the = row, the variable w, A's entry (tie, w)
    value[1, position] = bad
    leaf = value.clone().requires_grad_()
    sol = give(lp, name, leaf, throw=False)
    # An infinite bound on its own side is a bound that is not there.
    harmless = (name == "lower" and bad == -INF) or (name in ("b_ub", "upper", "row_upper") and bad == INF)
    harmless |= name == "row_lower" and bad == -INF
    assert sol.status.tolist() == [0, 0 if harmless else Status.INVALID, 0]
    sol.value[sol.ok].sum().backward()
    assert torch.isfinite(leaf.grad).all()
    if harmless:
        return
    assert math.isnan(sol.value[1].detach())
    assert torch.isnan(sol.x[1]).all()
    assert not leaf.grad[1].any()
    assert torch.equal(leaf.grad[0], leaf.grad[2])
    where = {"c": "'w'", "lower": "'w'", "upper": "'w'", "A_values": "'tie', variable 'w'", "b_ub": "'cap'"}
    assert where.get(name, "'tie'") in sol.messages[1]
    message = message_of(lp, **({"bounds": (value, None) if name == "lower" else (None, value)}
                                if name in ("lower", "upper") else {name: value}))  # fmt: skip
    assert "item 1: invalid input" in message
    assert sol.messages[1] in message
    assert "costs, matrix entries and right-hand sides must be finite" in message


@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_a_broken_offset_is_refused_at_once(bad):
    with pytest.raises(ValueError, match=r"offset must be finite, got NaN or infinity at items \(1,\)"):
        lpdiff.solve(knapsack(), offset=torch.tensor([0.0, bad]), throw=False)
    with pytest.raises(ValueError, match="offset must be finite"):
        lpdiff.solve(knapsack(), offset=bad)


def test_a_batch_of_nothing_but_nan():
    c = torch.full((4, 2), math.nan, requires_grad=True)
    sol = lpdiff.solve(knapsack(), c=c, throw=False)
    assert (sol.status == Status.INVALID).all()
    assert torch.isnan(sol.value).all()
    assert torch.isnan(sol.x).all()
    sol.value.sum().backward()
    assert not c.grad.any()


# -- limits --------------------------------------------------------------------------------------------


def slow_lp() -> LinearProgram:
    rng = np.random.default_rng(0)
    return LinearProgram(-rng.random(200), A_ub=rng.random((150, 200)), b_ub=np.full(150, 20.0))


def test_time_limit():
    lp = slow_lp()
    sol = lpdiff.solve(lp, solver="highs", time_limit=1e-9, throw=False)
    assert sol.status == Status.TIME_LIMIT
    assert math.isnan(sol.value)
    assert "Time limit" in sol.messages[0]
    message = message_of(lp, solver="highs", time_limit=1e-9)
    assert "stopped at the time limit" in message
    assert "raise time_limit" in message
    assert bool(lpdiff.solve(lp, time_limit=60).ok)


@pytest.mark.parametrize("limit", [0, 3])
def test_iteration_limit(limit):
    lp = slow_lp()
    sol = lpdiff.solve(lp, options={"iteration_limit": limit}, throw=False)
    assert sol.status == Status.ITERATION_LIMIT
    assert "iteration limit" in message_of(lp, options={"iteration_limit": limit})
    assert bool(lpdiff.solve(lp, options={"iteration_limit": 10_000}).ok)


# -- the error and throw=False -------------------------------------------------------------------------


def test_the_error_names_items_rows_variables_and_remedies():
    lp = LinearProgram(
        [1.0, 1], A_ub=[[1.0, 1], [-1.0, -1]], b_ub=[4.0, -1.0], bounds=(0, None),
        variable_names=["north", "south"], row_names=["capacity", "demand"],
    )  # fmt: skip
    b_ub = torch.tensor([4.0, -1.0]).repeat(2, 3, 1)
    c = torch.ones(2, 3, 2)
    b_ub[0, 1, 1] = -5  # demand above capacity
    b_ub[1, 0, 1] = -6
    b_ub[1, 2, 0] = torch.inf
    c[1, 2, 1] = -1
    c[1, 1, 0] = torch.nan
    with pytest.raises(SolveError) as caught:
        lpdiff.solve(lp, c=c, b_ub=b_ub)
    error = caught.value
    assert error.items == [(0, 1), (1, 0), (1, 1), (1, 2)]
    assert error.statuses == [Status.INFEASIBLE, Status.INFEASIBLE, Status.INVALID, Status.UNBOUNDED]
    assert sorted(error.certificates) == [(0, 1), (1, 0), (1, 2)]
    told = str(error)
    assert told.splitlines()[0] == "4 of 6 LPs have no certified optimum"
    assert "items (0, 1), (1, 0): infeasible: no point satisfies all rows and bounds" in told
    assert "because (item (0, 1)): 'capacity' (times -1), 'demand' (times -1), added up" in told
    assert "contradict the variables' bounds by 1" in told
    assert "item (1, 1): invalid input" in told
    assert "c of 'north' is NaN or infinite" in told
    assert "item (1, 2): unbounded" in told
    assert "moving 'south' (by +1) improves the objective by 1 a step" in told
    assert told.count("remedy: ") == 3
    assert told.splitlines()[-1] == "throw=False returns statuses instead of raising"


def test_a_single_lp_has_no_item_numbers():
    told = message_of(LinearProgram([-1.0]))
    assert told.startswith("unbounded: the objective improves forever")
    assert "item" not in told
    with pytest.raises(SolveError) as caught:
        lpdiff.solve(LinearProgram([-1.0]))
    assert caught.value.items == [()]
    assert caught.value.certificates[()].verified


def test_many_failures_are_counted_not_listed():
    told = message_of(knapsack(), b_ub=-torch.ones(40, 1))
    assert "items 0, 1, 2, 3, 4 and 35 more: infeasible" in told


@pytest.mark.parametrize("sense", ["min", "max"])
@pytest.mark.parametrize("through", ["value", "value squared", "x", "y"])
def test_failed_items_send_zero_and_leave_the_others_alone(sense, through):
    lp = LinearProgram(
        A=[[1.0, 1], [1.0, -1]], row_lower=[1.0, -np.inf], row_upper=[np.inf, 0.5],
        bounds=(-1, 9), sense=sense,
    )  # fmt: skip
    sign = 1 if sense == "min" else -1
    c = sign * torch.tensor([[1.0, 2], [1, 2], [math.nan, 2], [1, 2.5]], dtype=torch.float64)
    low = torch.tensor([[1.0, -INF], [30, -INF], [1, -INF], [2, -INF]], dtype=torch.float64)
    values = torch.tensor(lp.A.data)
    infinite = INF if sense == "min" else -INF

    def run(items: list[int]) -> tuple[lpdiff.Solution, list[torch.Tensor]]:
        leaves = [t.clone().requires_grad_() for t in (c[items], low[items], values)]
        sol = lpdiff.solve(
            lp, c=leaves[0], row_lower=leaves[1], A_values=leaves[2], throw=False, gradient="exact"
        )
        # (squared: the cotangents of failed items are infinite and NaN themselves)
        tensor = sol.value.square() if through == "value squared" else getattr(sol, through)
        # The whole tensor, NaN and infinity included, as an unwary user sums it.
        tensor.backward(torch.full_like(tensor, 2.0))
        return sol, [leaf.grad for leaf in leaves]

    sol, gradients = run([0, 1, 2, 3])
    assert sol.status.tolist() == [0, Status.INFEASIBLE, Status.INVALID, 0]
    assert sol.ok.tolist() == [True, False, False, True]
    assert float(sol.value[1].detach()) == infinite
    assert math.isnan(sol.value[2].detach())
    assert repr(sol) == "Solution(batch=(4,), 2 OPTIMAL, 1 INFEASIBLE, 1 INVALID, solver='highs')"
    good, alone = run([0, 3])
    for mine, whole in zip(alone[:2], gradients[:2], strict=True):
        assert torch.equal(whole[[0, 3]], mine)
        assert not whole[[1, 2]].any()
    assert torch.equal(gradients[2], alone[2])
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.any() for g in alone)
    assert torch.equal(good.value, sol.value[[0, 3]])


# -- backends that lie ---------------------------------------------------------------------------------

Spoil = Callable[[BatchSolution, Data], Any]


@dataclasses.dataclass(frozen=True)
class Liar(AbstractBackend):
    """HiGHS, whose proposals ``spoil`` changes."""

    spoil: Spoil

    name: ClassVar[str] = "liar"
    capabilities: ClassVar[Capabilities] = Capabilities(integers=True, rays=True)

    def prepare(self, form: StandardForm) -> StandardForm:
        return form

    def solve(self, state, data, *, threads=1, time_limit=None):
        honest = HiGHS().solve(state, data)
        replaced = self.spoil(honest, data)
        return honest if replaced is None else replaced


def wrong_vertex(p, data):
    p.x[:] = 0


def moved_x(p, data):
    p.x[:, 0] += 1e-3


def nan_x(p, data):
    p.x[:, 1] = math.nan


def infinite_x(p, data):
    p.x[:, 1] = INF
    p.x[:, 0] = 0


def zero_y(p, data):
    p.y[:] = 0


def negated_y(p, data):
    p.y[:] = -p.y


def nan_y(p, data):
    p.y[:] = math.nan


def infinite_y(p, data):
    p.y[:] = -INF


def slack_basis(p, data):
    p.basic[:] = [False, False, True]


def false_infeasible(p, data):
    p.status[:] = Status.INFEASIBLE
    p.rays = {k: np.array([-1.0]) for k in range(len(p.status))}


def false_infeasible_without_ray(p, data):
    p.status[:] = Status.INFEASIBLE


def false_infeasible_with_a_strange_ray(p, data):
    p.status[:] = Status.INFEASIBLE
    p.rays = {k: np.array([math.nan, 1.0, 2.0]) for k in range(len(p.status))}


def false_unbounded(p, data):
    p.status[:] = Status.UNBOUNDED
    p.rays = {k: np.array([1.0, 1.0]) for k in range(len(p.status))}


def honest_error(p, data):
    p.status[:] = Status.ERROR
    p.messages = dict.fromkeys(range(len(p.status)), "out of luck")


def only_one_item(p, data):
    p.x[min(2, len(p.x) - 1)] = 7


REPAIRED = (
    *(wrong_vertex, moved_x, nan_x, infinite_x, zero_y, negated_y, nan_y, infinite_y, slack_basis),
    *(false_infeasible, false_infeasible_without_ray, false_infeasible_with_a_strange_ray),
    *(false_unbounded, honest_error),
)


@pytest.mark.parametrize("spoil", REPAIRED, ids=lambda f: f.__name__)
def test_a_lie_is_caught_and_repaired(spoil):
    lp = knapsack()
    c = torch.tensor([[1.0, 2], [2, 1], [3, 5]], dtype=torch.float64)
    leaf = c.clone().requires_grad_()
    sol = lpdiff.solve(lp, c=leaf, solver=Liar(spoil))
    honest = lpdiff.solve(lp, c=c)
    assert sol.fallback.all()
    assert not honest.fallback.any()
    assert torch.equal(sol.value, honest.value)
    assert torch.equal(sol.x, honest.x)
    assert torch.equal(sol.y, honest.y)
    assert sol.messages == {}
    assert sol.certificates == {}
    assert sol.basis.valid.all()
    sol.value.sum().backward()
    assert torch.equal(leaf.grad, honest.x)


def test_only_the_refused_items_are_solved_again():
    c = torch.tensor([[1.0, 2], [2, 1], [3, 5], [1, 1.5]], dtype=torch.float64)
    sol = lpdiff.solve(knapsack(), c=c, solver=Liar(only_one_item))
    assert sol.fallback.tolist() == [False, False, True, False]
    assert torch.equal(sol.value, lpdiff.solve(knapsack(), c=c).value)


@pytest.mark.parametrize("spoil", [wrong_vertex, nan_x, zero_y, false_infeasible, honest_error],
                         ids=lambda f: f.__name__)  # fmt: skip
def test_what_cannot_be_repaired_is_reported(spoil, monkeypatch):
    """With a fallback that lies as well, no proposal passes as optimal."""
    monkeypatch.setattr("lpdiff.engine._strict", lambda method: Liar(spoil))
    sol = lpdiff.solve(knapsack(), solver=Liar(spoil), throw=False)
    assert not sol.ok
    expected = {false_infeasible: Status.INFEASIBLE, honest_error: Status.ERROR}
    assert sol.status == expected.get(spoil, Status.INACCURATE)
    if spoil is false_infeasible:
        assert not sol.certificates[0].verified
        assert "not verified" in message_of(knapsack(), solver=Liar(spoil))
    else:
        assert math.isnan(sol.value)
    if spoil is wrong_vertex:
        message = message_of(knapsack(), solver=Liar(spoil))
        assert "failed lpdiff's optimality check" in message
        assert "duality gap" in message
    if spoil is honest_error:
        assert "out of luck" in message_of(knapsack(), solver=Liar(spoil))


def raises(p, data):
    raise ZeroDivisionError("by design")


def returns_a_tuple(p, data):
    return p.x, p.y


def forgets_y(p, data):
    p.y = None


def transposes_x(p, data):
    p.x = p.x.T.copy()


def invents_a_status(p, data):
    p.status[:] = 42


def short_basis(p, data):
    p.basic = p.basic[:, :-1]


BROKEN = {
    raises: "ZeroDivisionError: by design",
    returns_a_tuple: "it returned tuple, expected a BatchSolution",
    forgets_y: "y must be an array of shape (3, 1), got NoneType",
    transposes_x: "x must be an array of shape (3, 2), got shape (2, 3)",
    invents_a_status: "status must hold values of Status, got [42]",
    short_basis: "basic must be an array of shape (3, 3), got shape (3, 2)",
}


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda f: f.__name__)
def test_a_broken_backend_is_told_and_repaired(spoil, monkeypatch):
    lp, c = knapsack(), torch.tensor([[1.0, 2], [2, 1], [3, 5]], dtype=torch.float64)
    with pytest.warns(
        RuntimeWarning, match=re.escape(f"solver 'liar' broke: {BROKEN[spoil]}; another solver is asked")
    ):
        sol = lpdiff.solve(lp, c=c, solver=Liar(spoil))
    assert torch.equal(sol.value, lpdiff.solve(lp, c=c).value)
    assert sol.fallback.all()
    monkeypatch.setattr("lpdiff.engine._strict", lambda method: Liar(spoil))
    with pytest.warns(RuntimeWarning, match="broke"):
        sol = lpdiff.solve(lp, c=c, solver=Liar(spoil), throw=False)
    assert (sol.status == Status.ERROR).all()
    assert BROKEN[spoil] in sol.messages[2]


def test_a_direction_of_an_infeasible_lp_is_no_unbounded_lp():
    lp = LinearProgram([-1.0, 0], A_ub=[[0.0, -1]], b_ub=[-2.0], bounds=[(0, None), (0, 1)])

    def spoil(p, data):
        p.status[:] = Status.UNBOUNDED
        p.rays = {0: np.array([1.0, 0.0])}

    assert prove_unbounded(lp.form, lp.data, np.array([1.0, 0])).verified
    sol = lpdiff.solve(lp, solver=Liar(spoil), throw=False)
    assert sol.status == Status.INFEASIBLE
    assert sol.certificates[0].verified
    assert float(sol.value) == INF


def test_a_basis_that_does_not_fit_is_not_valid():
    """The right x and y with bases that are none: the value stands, derivatives of x are refused."""
    lp = LinearProgram([1.0, 2], A_eq=[[1.0, 1]], b_eq=[1.0], bounds=(0, 2))

    def off_its_bound(p, data):
        p.basic[:] = [False, True, False]  # x[0] = 1 would be nonbasic, at neither of its bounds
        p.y[:] = 2.0  # ... the duals of that basis

    def two_basic(p, data):
        p.basic[:] = [True, False, True]

    def none(p, data):
        p.basic = None

    for spoil in (two_basic, none):
        b = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
        sol = lpdiff.solve(lp, b=b, solver=Liar(spoil))
        # y of a basic row is 0, which is no optimal dual here: the fallback gives a basis that fits.
        assert bool(sol.fallback) == (spoil is two_basic)
        assert bool(sol.basis.valid) == (spoil is two_basic)
        if spoil is none:
            with pytest.raises(UnsupportedError, match="have none"):
                sol.x.sum().backward()
    sol = lpdiff.solve(lp, solver=Liar(off_its_bound))
    assert bool(sol.fallback)
    assert bool(sol.basis.valid)


# -- the certificate -----------------------------------------------------------------------------------


def standard(lp: LinearProgram, scale_c: float = 1.0) -> tuple[Data, np.ndarray, np.ndarray]:
    """The data in the sense of min, and the optimal x and y."""
    sol = lpdiff.solve(lp)
    flip = lp.form.to_min
    data = dataclasses.replace(lp.data, c=lp.data.c * scale_c)
    return data, sol.x.numpy()[None], flip(sol.y.numpy()[None]) * scale_c


def judged(lp: LinearProgram, data: Data, x: np.ndarray, y: np.ndarray):
    with np.errstate(all="raise"):
        return certify(lp.form, data, x, y, None, 1e-6)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 9),
    m=st.integers(0, 7),
    magnitude=st.sampled_from([1e-3, 1e-2, 0.3, 3.0, 100.0, 1e8]),
    where=st.sampled_from(["x", "y"]),
    direction=st.sampled_from([-1.0, 1.0]),
    pick=st.integers(0, 100),
)
def test_perturbed_optima_are_refused(seed, kind, n, m, magnitude, where, direction, pick):
    lp = random_lp(np.random.default_rng(seed), n, m, kind=kind)
    data, x, y = standard(lp)
    assert judged(lp, data, x, y).ok.all()
    if where == "x":
        j = pick % n
        x = x.copy()
        x[0, j] += direction * magnitude
        worse = abs(lp.c[j]) * magnitude
        activity = lp.A @ x[0]
        outside = max(
            (lp.lower - x[0]).max(initial=0), (x[0] - lp.upper).max(initial=0),
            (lp.row_lower - activity).max(initial=0), (activity - lp.row_upper).max(initial=0),
        )  # fmt: skip
        # Another optimum is the one thing that may pass: inside, at the same cost.
        innocent = outside < 1e-4 * (1 + magnitude) and worse < 1e-3 * magnitude
    else:
        hypothesis.assume(m > 0)
        i = pick % m
        y = y.copy()
        y[0, i] += direction * magnitude
        # The certificate cleans duals of a sign that a one-sided row forbids, and judges the rest.
        cleaned = y[0]
        cleaned = np.where(np.isinf(lp.row_lower), np.minimum(cleaned, 0), cleaned)
        cleaned = np.where(np.isinf(lp.row_upper), np.maximum(cleaned, 0), cleaned)
        d = data.c[0] - lp.A.T @ cleaned
        bound = 0.0
        for dual, lower, upper in ((cleaned, lp.row_lower, lp.row_upper), (d, lp.lower, lp.upper)):
            side = np.where(dual > 1e-9, lower, np.where(dual < -1e-9, upper, 0.0))
            bound += float(np.sum(np.where(side == 0, 0.0, dual * side)))
        innocent = bound > float(data.c[0] @ x[0]) - 1e-5 * (1 + abs(float(data.c[0] @ x[0])))
    if not innocent:
        assert not judged(lp, data, x, y).ok.any()


def test_some_perturbations_are_refused_for_sure():
    """The property above with nothing excused: nondegenerate vertices, every coordinate that has a cost."""
    refused = 0
    for seed in range(40):
        lp = random_lp(np.random.default_rng(seed), 6, 4)
        data, x, y = standard(lp)
        for j, delta in itertools.product(range(6), (-1e-3, 1e-3, 1.0, -50.0)):
            if abs(lp.c[j]) > 0.1:
                moved = x.copy()
                moved[0, j] += delta
                assert not judged(lp, data, moved, y).ok.any()
                refused += 1
    assert refused > 300


@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_proposals_that_are_not_numbers_are_refused(side, bad):
    for seed in range(20):
        lp = random_lp(np.random.default_rng(seed), 4, 3)
        data, x, y = standard(lp)
        for k in range((x if side == "x" else y).shape[1]):
            spoilt = {"x": x.copy(), "y": y.copy()}
            spoilt[side][0, k] = bad
            assert not judged(lp, data, **spoilt).ok.any()


def test_nothing_is_no_optimum_even_where_zero_is():
    """A proposal of NaN must not pass as the 0 that stands in for it while it is judged."""
    lp = LinearProgram([1.0], A_ub=[[1.0]], b_ub=[1.0])
    zero, nan = np.zeros((1, 1)), np.full((1, 1), math.nan)
    assert judged(lp, lp.data, zero, zero).ok.all()
    assert not judged(lp, lp.data, nan, zero).ok.any()
    assert not judged(lp, lp.data, zero, nan).ok.any()


def test_rounding_times_a_huge_bound_is_no_gap():
    """0.3 - 0.1 * 3 is -5.6e-17, and 5,000 times 9e19."""
    lp = LinearProgram([0.3], A_eq=[[0.1]], b_eq=[0.1], bounds=(0, 9e19))
    x, y = np.ones((1, 1)), np.full((1, 1), 3.0)
    verdict = judged(lp, lp.data, x, y)
    assert verdict.ok.all()
    assert abs(verdict.gap[0]) < 1e-9
    assert not judged(lp, lp.data, x, y * (1 + 1e-9)).ok.any()  # 3e-10 is no rounding


def test_a_basis_stands_where_x_does():
    """x at its upper bound with a reduced cost of the wrong sign, within the solver's tolerance."""

    def at_one(lp):
        point = (lp.form, lp.data, np.ones((1, 1)), np.zeros((1, 0)), np.zeros((1, 1), bool), 1e-6)
        assert certify(*point, loose=True).ok.all()  # a vertex is refused for that
        return stand(*point)

    standing = at_one(LinearProgram([5e-8], bounds=(0, 1)))
    assert standing.column_status.tolist() == [[BasisStatus.UPPER]]
    assert standing.has_basis.all()
    # Where both bounds are one, the sign says which way its derivative goes.
    for cost, side in ((1.0, BasisStatus.LOWER), (-1.0, BasisStatus.UPPER)):
        assert at_one(LinearProgram([cost], bounds=(1, 1))).column_status.tolist() == [[side]]


def test_infinity_does_not_certify_itself():
    """inf <= tolerance * inf: min -x, 0 <= x <= 1, at x = inf."""
    lp = LinearProgram([-1.0], bounds=(0, 1))
    assert not judged(lp, lp.data, np.array([[INF]]), np.zeros((1, 0))).ok.any()
    assert judged(lp, lp.data, np.array([[1.0]]), np.zeros((1, 0))).ok.all()


@pytest.mark.parametrize("cost", [1e-8, 1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("size", [1e-8, 1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_no_unit_refuses_what_is_right_or_takes_what_is_wrong(cost, size):
    rng = np.random.default_rng(9)
    for kind in KINDS[:3]:
        lp = random_lp(rng, 10, 7, kind=kind)
        plain = lpdiff.solve(lp)
        numbers = {
            "c": lp.c * cost,
            "row_lower": lp.row_lower * size,
            "row_upper": lp.row_upper * size,
            "bounds": (lp.lower * size, lp.upper * size),
        }
        sol = lpdiff.solve(lp, **numbers)
        assert float(sol.value) / cost / size == pytest.approx(float(plain.value), rel=1e-6, abs=1e-6)
        assert bool(sol.basis.valid)
        if bool(plain.unique):
            assert torch.equal(sol.basis.columns, plain.basis.columns)
            assert torch.allclose(sol.x / size, plain.x, atol=1e-6)
            assert torch.allclose(sol.y / cost, plain.y, atol=1e-6)
            assert bool(sol.unique)
        # A vertex that is not optimal, in the same units, is refused.
        corner = Liar(lambda p, data: p.x.__setitem__((slice(None), 0), p.x[:, 0] + 0.1 * np.abs(p.x).max()))
        if lp.c[0] != 0:
            assert bool(lpdiff.solve(lp, **numbers, solver=corner).fallback)


def test_costs_of_all_sizes_at_once():
    """Entries and costs from 1e-6 to 1e6 in one LP: solved, and to the relative accuracy of the value."""
    rng = np.random.default_rng(10)
    for _ in range(25):
        lp = random_lp(rng, 10, 6)
        plain = lpdiff.solve(lp)
        columns = 10.0 ** rng.uniform(-3, 3, lp.n)  # x in other units, one by one: c and A scale with it
        scaled = LinearProgram(
            lp.c * columns, A=lp.A * columns, row_lower=lp.row_lower, row_upper=lp.row_upper,
            bounds=np.stack([lp.lower / columns, lp.upper / columns], 1), sense=lp.sense,
        )  # fmt: skip
        sol = lpdiff.solve(scaled)
        assert float(sol.value) == pytest.approx(float(plain.value), rel=1e-5, abs=1e-5)


def test_noise_is_not_blown_up():
    """Sides that are the rounding of zero stay what they are: no infeasibility at 1e-17."""
    lp = LinearProgram([1.0, 2], A_eq=[[1.0, -1], [-1.0, 1]], b_eq=[1e-17, 0.0], bounds=(0, None))
    assert float(lpdiff.solve(lp).value) == pytest.approx(0, abs=1e-9)


# -- integer programs ----------------------------------------------------------------------------------


def integer_program(rng: np.random.Generator, sense: str) -> LinearProgram:
    return LinearProgram(
        rng.normal(size=4), A_ub=rng.uniform(0.2, 1, (2, 4)), b_ub=rng.uniform(2, 4, 2), bounds=(0, 3),
        integrality=True, sense=sense,
    )  # fmt: skip


@pytest.mark.parametrize("sense", ["min", "max"])
def test_milp_against_enumeration(sense):
    rng = np.random.default_rng(3)
    points = np.array(list(itertools.product(range(4), repeat=4)), dtype=float)
    for _ in range(12):
        lp = integer_program(rng, sense)
        feasible = points[(points @ lp.A.T.toarray() <= lp.row_upper + 1e-9).all(1)]
        c = torch.from_numpy(rng.normal(size=(5, 4))).requires_grad_()
        sol = lpdiff.solve(lp, c=c)
        values = c.detach().numpy() @ feasible.T
        best = values.min(1) if sense == "min" else values.max(1)
        arg = feasible[values.argmin(1) if sense == "min" else values.argmax(1)]
        assert np.allclose(sol.value.detach(), best, atol=1e-9)
        assert np.array_equal(sol.x.detach(), arg)  # integers exactly
        sol.value.sum().backward()
        assert np.array_equal(c.grad, arg)
        assert sol.basis is None
        assert not sol.unique.any()


def test_milp_failures():
    lp = LinearProgram([1.0, 1], A_eq=[[2.0, 2]], b_eq=[3.0], bounds=(0, 3), integrality=True)
    sol = lpdiff.solve(lp, throw=False)
    assert sol.status == Status.INFEASIBLE
    assert float(sol.value) == INF
    assert not sol.certificates[0].verified
    relaxed = LinearProgram([1.0, 1], A_eq=[[2.0, 2]], b_eq=[3.0], bounds=(0, 3))
    assert float(lpdiff.solve(relaxed).value) == pytest.approx(1.5)
    assert lpdiff.solve(LinearProgram([-1.0], integrality=1), throw=False).status == Status.UNBOUNDED
    assert lpdiff.solve(lp, bounds=(4.0, None), throw=False).certificates[0].kind == "crossed"


@pytest.mark.parametrize("name", ["b", "b_ub", "row_upper", "A_values", "lower", "upper"])
def test_milp_refuses_every_other_derivative(name):
    lp = integer_program(np.random.default_rng(1), "max")
    value = torch.tensor(declared(lp, name) if name != "b_ub" else lp.row_upper)
    give(lp, name, value)  # numbers may change
    with pytest.raises(UnsupportedError, match="requires a gradient, but an integer program has no duals"):
        give(lp, name, value.requires_grad_())


def test_milp_refuses_duals():
    lp = integer_program(np.random.default_rng(1), "max")
    sol = lpdiff.solve(lp)
    for name in ("y", "reduced_costs"):
        with pytest.raises(UnsupportedError, match=f"sol.{name}: an integer program has no duals"):
            getattr(sol, name)


@needs_glop
def test_milp_on_a_solver_without_integers():
    lp = integer_program(np.random.default_rng(1), "max")
    with pytest.raises(UnsupportedError, match="'glop' does not take integer variables: use solver='highs'"):
        lpdiff.solve(lp, solver="glop")


def test_a_lying_integer_solver_is_reported():
    lp = integer_program(np.random.default_rng(1), "max")

    def fractional(p, data):
        p.x[:] += 0.3

    def infinite(p, data):
        p.x[:] = INF

    def worse(p, data):
        p.x[:] = 0

    for spoil in (fractional, infinite, worse):
        sol = lpdiff.solve(lp, solver=Liar(spoil), throw=False)
        assert sol.status == Status.INACCURATE
        assert math.isnan(sol.value)
    sol = lpdiff.solve(lp, solver=Liar(raises), throw=False)
    assert sol.status == Status.ERROR
    assert "by design" in sol.messages[0]


def test_time_limits_are_an_item_s_own():
    """HiGHS's clock runs on over a batch; the limit must not."""
    rng = np.random.default_rng(0)
    lp = lpdiff.LinearProgram(A_ub=rng.uniform(size=(10, 20)), b_ub=np.ones(10), bounds=(0, 1), sense="max")
    costs = torch.from_numpy(rng.uniform(size=(6000, 20)))
    sol = lpdiff.solve(lp, c=costs, time_limit=0.1, threads=1)
    # Longer in all than the limit of one: what a limit on the sum would have cut short.
    assert bool(sol.ok.all())


@pytest.mark.parametrize("where", ["rows", "bounds"])
def test_bounds_that_cross_by_rounding_are_equal(where):
    lp = LinearProgram([1.0, 1.0], A=[[1.0, 1.0]], row_lower=[1], row_upper=[2], bounds=(0, 9))
    lower = torch.tensor([0.1 + 0.2], dtype=torch.float64, requires_grad=True)
    upper = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert lower > upper

    def solve(lower, upper):
        if where == "rows":
            return lpdiff.solve(lp, row_lower=lower, row_upper=upper, throw=False)
        zero = torch.zeros(1, dtype=torch.float64)
        return lpdiff.solve(
            lp, bounds=(torch.cat([lower, zero]), torch.cat([upper, zero])), row_lower=[0.0], throw=False
        )

    sol = solve(lower, upper)
    assert sol.ok
    assert float(sol.value.detach()) == pytest.approx(0.3)
    sol.value.backward()
    # One number in two leaves: what they get adds up to its price.
    assert float(lower.grad + upper.grad) == pytest.approx(1.0)
    far = solve(lower.detach() + 1e-6, upper.detach())
    assert far.status == Status.INFEASIBLE
    assert "(by 1e-06)" in next(iter(far.certificates.values())).text
