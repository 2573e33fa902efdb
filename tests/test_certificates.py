"""Certificates that cannot be fooled: each rule of kkt, proofs and scaling against what it must refuse."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

import lpdiff
from lpdiff import BasisStatus, Capabilities, LinearProgram, Status
from lpdiff.backend import AbstractBackend, BatchSolution
from lpdiff.backends.highs import HiGHS
from lpdiff.kernels.assignment import certify as certify_matching
from lpdiff.kernels.assignment import solve as solve_assignment
from lpdiff.kernels.assignment import stand as stand_assignment
from lpdiff.kernels.certify import certify as certify_columns
from lpdiff.kernels.certify import columns_of
from lpdiff.kkt import certify, stand
from lpdiff.proofs import prove_infeasible, prove_unbounded
from lpdiff.scaling import Balance, Units
from lpdiff.screen import fault
from lpdiff.testing import KINDS, random_lp

INF = math.inf
SOLVERS = ("highs", "auto")


def transport_matrix(n: int) -> sp.coo_array:
    """Arcs (i, k) in the order of rows: one row for each source, then one for each sink."""
    return sp.vstack([sp.kron(sp.eye_array(n), np.ones((1, n))), sp.kron(np.ones((1, n)), sp.eye_array(n))])


def judged(lp: LinearProgram, x, y, basic=None, **how):
    """The verdict on one proposal; ``basic``: places of the basic columns and logicals."""
    marks = None
    if basic is not None:
        marks = np.zeros((1, lp.form.n + lp.form.m), dtype=bool)
        marks[0, basic] = True
    return certify(
        lp.form, lp.data, np.atleast_2d(np.asarray(x, float)), np.array([y], float), marks, 1e-6, **how
    )


def passes(lp: LinearProgram, x, y, basic=None, **how) -> bool:
    return bool(judged(lp, x, y, basic, **how).ok[0])


# -- small numbers beside large ones -------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_small_costs_beside_large_ones_choose_the_vertex(solver):
    simplex = LinearProgram([3e-8, 1e-8, 1.0], A_eq=[[1.0, 1, 1]], b_eq=[1.0])
    sol = lpdiff.solve(simplex, solver=solver)
    assert float(sol.value) == 1e-8
    assert sol.x.tolist() == [0, 1, 0]
    assert bool(sol.x_unique)
    far = LinearProgram([1.0, -0.9e-7], A_ub=[[0.0, 1]], b_ub=[1e9])
    assert float(lpdiff.solve(far, solver=solver).value) == pytest.approx(-90)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["few large", "log-uniform", "common"])
def test_assignments_against_scipy(kind, solver):
    n, rng = 5, np.random.default_rng(1)
    lp = LinearProgram(np.zeros(n * n), A_eq=transport_matrix(n), b_eq=np.ones(2 * n))
    costs = {
        "few large": np.where(rng.random((200, n, n)) < 0.2, 1.0, 1e-8 * rng.random((200, n, n))),
        "log-uniform": 10.0 ** rng.uniform(-9, 0, (200, n, n)),
        "common": 1e6 + rng.random((200, n, n)),
    }[kind]
    sol = lpdiff.solve(lp, c=costs.reshape(-1, n * n), solver=solver)
    for cost, x in zip(costs, sol.x.numpy(), strict=True):
        best = cost[linear_sum_assignment(cost)].sum()
        assert cost.ravel() @ x == pytest.approx(best, rel=1e-12, abs=0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_transport_with_marginals_of_all_sizes(solver):
    """The same LP in units in which nothing is small has the same vertex and the same prices."""
    n, rng, many = 5, np.random.default_rng(1), 100
    lp = LinearProgram(np.zeros(n * n), A_eq=transport_matrix(n).tocsr()[:-1], b_eq=np.ones(2 * n - 1))
    costs = rng.uniform(1, 2, (many, n * n))
    supply, demand = 10.0 ** rng.uniform(-9, 0, (2, many, n))
    demand *= (supply.sum(1) / demand.sum(1))[:, None]
    sides = np.concatenate([supply, demand[:, :-1]], axis=1)
    sol = lpdiff.solve(lp, c=costs, b_eq=sides, solver=solver)
    large = lpdiff.solve(lp, c=costs, b_eq=sides * 2.0**30, solver=solver)
    assert np.abs(sol.x.numpy() - large.x.numpy() / 2.0**30).max() <= 1e-14
    assert np.abs(sol.y.numpy() - large.y.numpy()).max() <= 1e-9


def test_rows_of_all_sizes():
    row = LinearProgram([1.0, 1], A_eq=[[1e-9, 1e-9]], b_eq=[1e-9], bounds=[(0, None), (0, 0.5)])
    assert float(lpdiff.solve(row, solver="highs").value) == pytest.approx(1)
    assert not passes(row, [0, 0], [0], [2])
    assert not passes(row, [0, 0], [0], [0])
    rng, n, m = np.random.default_rng(3), 30, 20
    for _ in range(15):
        entries = (rng.random((m, n)) < 0.15) * rng.random((m, n))
        entries[np.arange(m), rng.integers(0, n, m)] = 1.0
        cost, scale = rng.random(n), 10.0 ** rng.uniform(-8, 0, m)
        plain = LinearProgram(cost, A_ub=-entries, b_ub=-np.ones(m))
        scaled = LinearProgram(cost, A_ub=-entries * scale[:, None], b_ub=-scale)
        value = float(lpdiff.solve(plain, solver="highs").value)
        assert float(lpdiff.solve(scaled, solver="highs").value) == pytest.approx(value, rel=1e-9)


def test_what_is_right_is_not_refused():
    """Vertices as solvers give them pass at once: a fallback would cost two solves."""
    rng = np.random.default_rng(4)
    for k in range(120):
        lp = random_lp(rng, int(rng.integers(1, 60)), int(rng.integers(0, 40)), kind=KINDS[k % 4])
        assert not bool(lpdiff.solve(lp, solver="highs").fallback)


# -- rule by rule --------------------------------------------------------------------------------------------


def test_a_free_column_must_have_no_reduced_cost():
    """Only the dual residual tells: x = 0, so that d = 1 does not even show in the gap."""
    lp = LinearProgram([1.0, 0], A_eq=[[0.0, 1]], b_eq=[1.0], bounds=(None, None))
    for basic in (None, [1]):
        verdict = judged(lp, [0, 1], [0], basic)
        assert verdict.gap[0] == 0
        assert verdict.dual_residual[0] == 1
        assert not verdict.ok[0]
    assert not passes(lp, [0, 1], [0], [1], loose=True)
    flat = LinearProgram([0.0, 0], A_eq=[[0.0, 1]], b_eq=[1.0], bounds=(None, None))
    assert passes(flat, [0, 1], [0], [1])


def test_a_basic_column_must_have_no_reduced_cost():
    """x0 = 0 is basic at its bound, with d = 1: the gap is 0, the proof would hold; the basis does not."""
    lp = LinearProgram([2.0, 1], A_eq=[[1.0, 1]], b_eq=[1.0])
    assert passes(lp, [0, 1], [1], [1])
    assert passes(lp, [0, 1], [1])
    assert not passes(lp, [0, 1], [1], [0])
    assert not passes(lp, [0, 1], [1], [0], loose=True)


def test_large_wrong_signs_are_refused_by_their_own_scale():
    """Beside d = 1e-3 stand c and y of 1: the tolerance is relative to them, and to nothing else."""
    for wrong, fine in ((1e-3, False), (1e-5, False), (1e-8, True)):
        lp = LinearProgram([1.0 + wrong], A_eq=[[1.0]], b_eq=[0.0], bounds=(None, None))
        assert passes(lp, [0], [1]) == fine
        assert not passes(lp, [0], [1], [0])  # a vertex would be exact
        assert passes(lp, [0], [1 + wrong], [0])


@pytest.mark.parametrize("common", [0.0, 1e6, 1e9])
def test_no_permutation_hides_behind_a_common_cost(common):
    n, rng = 4, np.random.default_rng(2)
    cost = common + rng.random((n, n))
    lp = LinearProgram(cost.ravel(), A_eq=transport_matrix(n), b_eq=np.ones(2 * n))
    match, u, v = np.zeros((1, n), np.int32), np.zeros((1, n)), np.zeros((1, n))
    solve_assignment(cost.reshape(1, -1), n, n, 0, 1, match, u, v, np.zeros(1, np.int8))
    stand_assignment(cost.reshape(1, -1), n, n, 0, 1, match, u, v, np.zeros(1, bool))
    columns = columns_of(2 * n, lp.form.indptr, lp.form.indices, lp.data.values)
    y = np.concatenate([u, v], axis=1)
    # The tree of y is marked as the basis of all: no arc of it has a reduced cost, so nothing else refuses.
    d = cost - u.T - v
    marks = np.zeros((1, n * n + 2 * n), dtype=bool)
    marks[0, np.argsort(np.abs(d).ravel(), kind="stable")[: 2 * n - 1]] = True
    marks[0, n * n + 2 * n - 1] = True
    accepted = {"kkt": [], "columns": [], "dense": []}
    for order in itertools.permutations(range(n)):
        x = np.eye(n)[list(order)].reshape(1, -1)
        ok, numbers = np.zeros(1, bool), np.zeros((4, 1))
        data = (lp.data.c, lp.data.lower, lp.data.upper, lp.data.row_lower, lp.data.row_upper)
        certify_columns(*columns, *data, x, y, 0, 1, 1e-9, ok, *numbers)
        accepted["columns"] += [order] * int(ok[0])
        here = np.array([order], np.int32)
        certify_matching(lp.data.c, here, u, v, 1e-9, 0, 1, ok, *numbers[:3])
        accepted["dense"] += [order] * int(ok[0])
        accepted["kkt"] += [order] * int(certify(lp.form, lp.data, x, y, marks, 1e-6).ok[0])
    best = tuple(match[0].tolist())
    assert accepted["columns"] == [best]
    assert accepted["dense"] == [best]
    # What kkt calls equal may differ by 1e-9 of the costs.
    assert accepted["kkt"] == [best] if common < 1e9 else best in accepted["kkt"]


def test_complementarity_of_rows():
    """y = 1 on a row that is not at its side: nothing else is wrong."""
    lp = LinearProgram(
        [1e6, 1], A=[[1.0, 0], [0, 1]], row_lower=[1.0, 1 - 1e-3], row_upper=[1, 2], bounds=(0, 9)
    )
    assert passes(lp, [1, 1 - 1e-3], [1e6, 1], [0, 1])
    assert passes(lp, [1, 1], [1e6, 1], [0, 1], loose=True)  # 1e-3 beside 1e6
    assert not passes(lp, [1, 1], [1e6, 1], [0, 1])


def test_complementarity_of_columns():
    lp = LinearProgram([1e6, 1.0], A_eq=[[1.0, 0]], b_eq=[1.0], bounds=[(0, None), (1 - 1e-3, 2)])
    assert passes(lp, [1, 1 - 1e-3], [1e6], [0])
    assert passes(lp, [1, 1], [1e6], [0], loose=True)
    assert not passes(lp, [1, 1], [1e6], [0])
    upper = LinearProgram([1e6, -1.0], A_eq=[[1.0, 0]], b_eq=[1.0], bounds=[(0, None), (0, 1 + 1e-3)])
    assert passes(upper, [1, 1 + 1e-3], [1e6], [0])
    assert not passes(upper, [1, 1], [1e6], [0])


def test_violations_count_against_their_own_row():
    """x = (1e12, 1e12) misses x0 - x1 = 1 by 1, which is no rounding of 1e12; 1e-2 would be."""
    lp = LinearProgram([0.0, 0], A_eq=[[1.0, -1], [1, 0]], b_eq=[1.0, 1e12], bounds=(None, None))
    assert passes(lp, [1e12, 1e12], [0, 0], loose=True)
    assert not passes(lp, [1e12, 1e12 - 16], [0, 0], [0, 1])
    assert passes(lp, [1e12, 1e12 - 1], [0, 0], [0, 1])
    bound = LinearProgram([0.0, 0], A_eq=[[1.0, 0]], b_eq=[1.0], bounds=[(None, None), (1e-7, 1)])
    assert passes(bound, [1, 1e-7], [0], [0])
    assert passes(bound, [1, 0], [0], [0], loose=True)
    assert not passes(bound, [1, 0], [0], [0])


@pytest.mark.parametrize("basic", [None, [0]])
def test_what_overflows_is_refused(basic):
    """inf <= tolerance * inf."""
    lp = LinearProgram([0.0], A_eq=[[1e10]], b_eq=[1.0], bounds=(None, None))
    with np.errstate(all="raise"):
        assert not passes(lp, [1e300], [0], basic)
        assert not passes(lp, [1e-10], [1e300], basic)
    assert passes(lp, [1e-10], [0], basic)


# -- bases and uniqueness ------------------------------------------------------------------------------------


def standing(lp, x, y, basic, **how):
    marks = np.zeros((1, lp.form.n + lp.form.m), dtype=bool)
    marks[0, basic] = True
    return stand(lp.form, lp.data, np.array([x], float), np.array([y], float), marks, 1e-6, **how)


def test_members_that_depend_on_each_other_are_no_basis():
    """2 x 2 transport, equal costs: the four arcs are a cycle, and what they would prove is false."""
    lp = LinearProgram([1.0] * 4, A_eq=transport_matrix(2), b_eq=np.ones(4))
    x, y = [0.5] * 4, [0.5] * 4
    cycle = standing(lp, x, y, [0, 1, 2, 3])
    assert not cycle.has_basis[0]
    assert not cycle.x_unique[0] and not cycle.y_unique[0]
    tree = standing(lp, [1, 0, 0, 1], [0.5, 0.5, 0.5, 0.5], [0, 1, 3, 7])
    assert tree.has_basis[0]
    # Whoever has checked it need not be asked again.
    assert standing(lp, x, y, [0, 1, 2, 3], checked=np.ones(1, bool)).has_basis[0]
    # Equal rows, and rows that differ by rounding; in any units.
    for entry, fine in ((1.0, False), (1 + 1e-15, False), (1 + 1e-6, True)):
        for unit in (1e-9, 1.0, 1e9):
            pair = LinearProgram([0.0, 0], A_eq=np.array([[1.0, 1], [1, entry]]) * unit, b_eq=[0.0, 0.0])
            assert standing(pair, [0, 0], [0, 0], [0, 1]).has_basis[0] == fine
    wide = LinearProgram([0.0, 0], A_eq=[[1e-9, 0], [0, 1e9]], b_eq=[0.0, 0])
    assert standing(wide, [0, 0], [0, 0], [0, 1]).has_basis[0]
    empty = LinearProgram([0.0, 0], A_eq=sp.csc_array(np.array([[1.0, 0], [0, 0]])), b_eq=[0.0, 0])
    assert not standing(empty, [0, 0], [0, 0], [0, 1]).has_basis[0]


@pytest.mark.parametrize("size", [30, 150])
def test_large_bases_and_batches_of_matrices(size):
    """Dense and sparse factors, one matrix for all, and one each."""
    rng = np.random.default_rng(size)
    dense = sp.random_array((size, size), density=0.1, rng=rng).toarray() + np.eye(size)
    singular = dense.copy()
    singular[-1] = singular[0] + 2 * singular[1]
    lp = LinearProgram(
        np.zeros(size), A_eq=np.where((dense != 0) | (singular != 0), 1.0, 0), b_eq=np.zeros(size)
    )
    form = lp.form
    values = np.array([m[form.rows, form.cols] for m in (dense, singular, dense)])
    marks = np.zeros((3, 2 * size), dtype=bool)
    marks[:, :size] = True
    zeros = np.zeros((3, size))
    data = dataclasses.replace(lp.data, values=values)
    assert stand(form, data, zeros, zeros, marks, 1e-6).has_basis.tolist() == [True, False, True]
    for one, expected in ((values[:1], True), (values[1:2], False)):
        data = dataclasses.replace(lp.data, values=one)
        found = stand(form, data, zeros, zeros, marks, 1e-6).has_basis
        assert found.tolist() == [expected] * 3
    # Two bases of one matrix: the second has a logical for a column.
    marks[1, 0], marks[1, size] = False, True
    data = dataclasses.replace(lp.data, values=values[1:2])
    assert stand(form, data, zeros, zeros, marks, 1e-6).has_basis.tolist() == [
        False,
        dense_rank(singular),
        False,
    ]


def dense_rank(matrix: np.ndarray) -> bool:
    return bool(np.linalg.matrix_rank(matrix[1:, 1:]) == len(matrix) - 1)


def test_a_reduced_cost_of_the_wrong_sign_proves_nothing():
    """d = -1e-7 at a lower bound passes the loose rule; that x is not optimal, let alone unique."""
    for cost, at, status in ((-1e-7, 0.0, BasisStatus.LOWER), (1e-7, 1.0, BasisStatus.UPPER)):
        lp = LinearProgram([cost], bounds=(0, 1))
        found = standing(lp, [at], np.zeros(0), [])
        assert found.column_status.tolist() == [[status]]
        assert not found.x_unique[0]
        assert standing(lp, [1 - at], np.zeros(0), []).x_unique[0]
    row = LinearProgram([0.0], A=[[1.0]], row_lower=[0.0], row_upper=[1.0], bounds=(None, None))
    for price, at in ((-1.0, 0.0), (1.0, 1.0)):
        assert not standing(row, [at], [price], [0]).x_unique[0]
        assert standing(row, [1 - at], [price], [0]).x_unique[0]


def test_ties_beside_large_numbers():
    """c = (1e9 + 1e-7, 1e9): the difference is rounding, and proves nothing."""
    for gap, unique in ((1e-7, False), (1.0, True)):
        lp = LinearProgram([1e9 + gap, 1e9], A_eq=[[1.0, 1]], b_eq=[1.0])
        assert standing(lp, [0, 1], [1e9], [1]).x_unique[0] == unique
    beside = LinearProgram([0.0, 0], A_eq=[[1.0, 0], [0, 1]], b_eq=[1e9, 1e-7])
    assert not standing(beside, [1e9, 1e-7], [0, 0], [0, 1]).y_unique[0]


# -- no optimum ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [1e-7, 1e-9, 1e-10, 1e-11])
def test_a_feasible_lp_is_not_proved_infeasible(slope):
    lp = LinearProgram(
        [0.0, 0], A_eq=[[1.0, 1], [1, 1 - slope]], b_eq=[1.0, 0], bounds=[(None, None), (0, None)]
    )  # x = (1 - 1 / slope, 1 / slope)
    for ray in ([1.0, -1.0], [-1.0, 1.0]):
        assert not prove_infeasible(lp.form, lp.data, np.array(ray)).verified
    parallel = LinearProgram([0.0, 0], A_eq=[[1.0, 1], [1, 1]], b_eq=[1.0, 0], bounds=(None, None))
    assert prove_infeasible(parallel.form, parallel.data, np.array([1.0, -1.0])).verified


def test_small_entries_of_a_ray_count():
    """x = 1 and 1e10 x = 0: the second row is taken 1e-10 times."""
    lp = LinearProgram([0.0], A_eq=[[1.0], [1e10]], b_eq=[1.0, 0], bounds=(None, None))
    assert prove_infeasible(lp.form, lp.data, np.array([1.0, -1e-10])).verified
    assert not prove_infeasible(lp.form, lp.data, np.array([1.0, -1.1e-10])).verified


@pytest.mark.parametrize("slope", [5e-8, 1e-9, 1e-11])
def test_a_bounded_lp_is_not_proved_unbounded(slope):
    lp = LinearProgram([-1.0, 0], A_ub=[[1.0, -(1 - slope)], [-1, 1]], b_ub=[0.0, 1])
    assert not prove_unbounded(lp.form, lp.data, np.array([1.0, 1])).verified
    free = LinearProgram([-1.0, 0], A_ub=[[1.0, -1], [-1, 1]], b_ub=[0.0, 1])
    assert prove_unbounded(free.form, free.data, np.array([1.0, 1])).verified
    assert prove_unbounded(free.form, free.data, np.array([1.0, 1 + 1e-14])).verified


def test_rays_that_overflow_prove_nothing():
    lp = LinearProgram([-1e19, 0], A_eq=[[1e300, -1e300]], b_eq=[1.0])
    big = LinearProgram([0.0], A=[[1e200]], row_lower=[1e19], bounds=(0, 1e19))
    with np.errstate(all="raise"):
        assert not prove_unbounded(lp.form, lp.data, np.array([1.0, -1e-9])).verified
        assert not prove_infeasible(big.form, big.data, np.array([1.0])).verified


@pytest.mark.parametrize("entry", [1e-10, 1e-13, 1e16, -1e-12])
def test_entries_that_solvers_drop_or_refuse(entry):
    """x = b / a: HiGHS takes such an entry for zero, and the row for a contradiction."""
    side = 100 * entry
    lp = LinearProgram([1.0, 5], A_eq=[[entry, 0], [1, 1]], b_eq=[side, 1e3], bounds=(0, 1e13))
    sol = lpdiff.solve(lp, solver="highs", throw=False)
    assert sol.status == Status.OPTIMAL
    assert sol.x.tolist() == pytest.approx([100, 900], rel=1e-9)
    assert float(sol.value) == pytest.approx(100 + 5 * 900, rel=1e-9)
    assert sol.reduced_costs.tolist() == pytest.approx([0, 0], abs=1e-9)
    alone = LinearProgram([1.0], A_eq=[[entry]], b_eq=[1.0], bounds=(None, None))
    assert float(lpdiff.solve(alone, solver="highs").value) == pytest.approx(1 / entry)
    if entry > 1:  # 1e16 x = -1, x >= 0 is nearer to feasible than any solver can tell
        return
    no = LinearProgram([1.0], A_eq=[[abs(entry)]], b_eq=[-1.0])
    sol = lpdiff.solve(no, solver="highs", throw=False)
    assert sol.status == Status.INFEASIBLE
    assert sol.certificates[0].verified
    down = LinearProgram([-1.0, 0], A_eq=[[abs(entry), -1]], b_eq=[0.0])
    sol = lpdiff.solve(down, solver="highs", throw=False)
    assert sol.status == Status.UNBOUNDED
    assert sol.certificates[0].verified


def test_the_fallback_cannot_go_round_in_circles(monkeypatch):
    """Its simplex stops far beyond what it ever takes; that it stopped is an error, not the user's limit."""
    lp = LinearProgram([1.0, 2], A_eq=[[1.0, 1]], b_eq=[1.0])
    wrong = HiGHS().solve(lp.form, lp.data)
    wrong.x = wrong.x[:, ::-1].copy()
    seen, honest = [], HiGHS.solve

    def spy(self, state, data, **how):
        seen.append(self.iteration_limit)
        proposal = honest(self, state, data, **how)
        proposal.status[:] = Status.ITERATION_LIMIT
        return proposal

    assert lpdiff.solve(lp, solver=Given(wrong)).x.tolist() == [1, 0]
    monkeypatch.setattr(HiGHS, "solve", spy)
    assert lpdiff.solve(lp, solver=Given(wrong), throw=False).status == Status.ERROR
    assert seen == [10_300, 10_300]


# -- units ---------------------------------------------------------------------------------------------------


def test_larger_units_are_powers_of_two_within_limits():
    lp = LinearProgram([1.0, 1e-6], A_eq=[[1.0, 1]], b_eq=[3e-4], bounds=(0, 1e-5))
    for more in (0, 13, 20):
        units = Units.of(lp.form, lp.data, more)
        for factor, largest in ((units.cost, 1.0), (units.side, 3e-4)):
            assert np.frexp(factor)[0] == 0.5  # nothing is rounded
            assert 2.0 ** (more - 1) <= factor * largest <= 2.0 ** max(more, 1)
    vast = LinearProgram([1e9], A_eq=[[1.0]], b_eq=[0.0], bounds=(None, None))
    assert Units.of(vast.form, vast.data, 20).cost == 1  # never down
    assert Units.of(vast.form, vast.data, 20).side == 1  # nothing to enlarge
    noise = LinearProgram([1e-15], A_eq=[[1.0]], b_eq=[1e-15])
    assert Units.of(noise.form, noise.data, 20).cost == 1


def test_a_balanced_program_is_the_same_program():
    rng = np.random.default_rng(6)
    for batch in (1, 3):
        lp = LinearProgram(rng.normal(size=4), A_eq=rng.normal(size=(3, 4)), b_eq=rng.normal(size=3))
        values = np.repeat(lp.data.values, batch, axis=0) * 10.0 ** rng.uniform(-12, 0, (batch, 12))
        data = dataclasses.replace(lp.data, values=values)
        balance = Balance.of(lp.form, data)
        assert balance is not None
        shown = balance.apply(lp.form, data)
        assert np.ptp(np.log10(np.abs(shown.values))) < np.ptp(np.log10(np.abs(values)))
        assert (np.frexp(balance.rows)[0] == 0.5).all() and (np.frexp(balance.columns)[0] == 0.5).all()
        x, y = rng.normal(size=(batch, 4)), rng.normal(size=(batch, 3))
        proposal = BatchSolution.empty(lp.form, batch)
        proposal.x, proposal.y = x, y
        proposal.status[:] = Status.INFEASIBLE
        proposal.rays = {0: y[0], batch - 1: y[batch - 1]}
        balance.restore(proposal)
        # Scaled rows and reduced costs: A~ x~ = R A x, and d~ = S d.
        ours, theirs = lp.form.times(values, proposal.x), lp.form.times(shown.values, x)
        assert np.array_equal(theirs, ours * balance.rows)
        d = data.c - lp.form.transposed_times(values, proposal.y)
        assert np.array_equal(shown.c - lp.form.transposed_times(shown.values, y), d * balance.columns)
        assert np.array_equal(shown.row_lower, data.row_lower * balance.rows)
        assert np.array_equal(proposal.rays[batch - 1], proposal.y[batch - 1])
    assert Balance.of(lp.form, lp.data) is None


def test_bounds_that_cross_by_more_than_rounding_are_infeasible():
    lp = LinearProgram([1.0], A=[[1.0]], row_lower=[0.0], row_upper=[2.0])
    for low, high, status in (
        (1e9 + 0.5, 1e9, Status.INFEASIBLE),
        (1e9 + 1e-4, 1e9, Status.OPTIMAL),
        (0.1 + 0.2, 0.3, Status.OPTIMAL),
        (1e-12, 0.0, Status.INFEASIBLE),
        (1e-16, 0.0, Status.OPTIMAL),
    ):
        sol = lpdiff.solve(lp, row_lower=[low], row_upper=[high], throw=False, solver="highs")
        assert sol.status == status


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cost", [1e20, -1e25])
def test_costs_that_count_as_infinite_are_invalid(cost, solver):
    lp = LinearProgram([1.0, 1], A_eq=[[1.0, 1]], b_eq=[1.0], variable_names=["u", "v"])
    sol = lpdiff.solve(lp, c=np.array([[1.0, 2], [1, cost]]), throw=False, solver=solver)
    assert sol.status.tolist() == [Status.OPTIMAL, Status.INVALID]
    assert (
        sol.messages[1]
        == f"c of 'v' is {cost:g}, which counts as infinite: to forbid a variable use its bounds"
    )
    square = LinearProgram(np.ones(4), A_eq=transport_matrix(2), b_eq=np.ones(4))
    sol = lpdiff.solve(square, c=np.array([1.0, 1, 1, cost]), throw=False, solver=solver)
    assert sol.status == Status.INVALID


# -- what a backend returns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "kind", "told"),
    [
        ("x", complex, "x must be an array of float64, got complex128"),
        ("x", np.float32, "x must be an array of float64, got float32"),
        ("x", object, "x must be an array of float64, got object"),
        ("y", int, "y must be an array of float64, got int64"),
        ("iterations", float, "iterations must be an array of integers, got float64"),
        ("status", float, "status must be an array of integers, got float64"),
        ("basic", int, "basic must be an array of bool, got int64"),
    ],
)
def test_types_of_proposals(field, kind, told):
    lp = LinearProgram([1.0, 2], A_eq=[[1.0, 1]], b_eq=[1.0])
    proposal = HiGHS().solve(lp.form, lp.data)
    assert fault(lp.form, 1, proposal) is None
    setattr(proposal, field, getattr(proposal, field).astype(kind))
    assert fault(lp.form, 1, proposal) == told

    with pytest.warns(RuntimeWarning, match=told):
        sol = lpdiff.solve(lp, solver=Given(proposal))
    assert float(sol.value) == 1


@dataclasses.dataclass(frozen=True)
class Given(AbstractBackend):
    """Returns what it was given."""

    proposal: BatchSolution

    name: ClassVar[str] = "given"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def prepare(self, form):
        return form

    def solve(self, state, data, *, threads=1, time_limit=None):
        return self.proposal


def test_the_bound_of_an_integer_program_is_a_number():
    lp = LinearProgram([1.0], A_ub=[[-1.0]], b_ub=[-0.5], integrality=True)
    proposal = HiGHS().solve(lp.form, lp.data)
    assert fault(lp.form, 1, proposal) is None
    proposal.bound = proposal.bound.astype(complex)
    assert fault(lp.form, 1, proposal) == "bound must be an array of float64, got complex128"
