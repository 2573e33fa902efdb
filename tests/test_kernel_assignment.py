"""The assignment kernel against SciPy, HiGHS and spanning trees; its certificate against wrong proposals."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog

from lpdiff.kernels.assignment import certify, scatter, solve, stand

TOLERANCE = 1e-9
KINDS = ("uniform", "signed", "integers", "equal", "spread", "near", "ranked", "tiny", "decimals")


class Union:
    """Union-find; ``join`` says whether the two were apart."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))

    def find(self, a: int) -> int:
        while self.parent[a] != a:
            a = self.parent[a]
        return a

    def join(self, a: int, b: int) -> bool:
        a, b = self.find(a), self.find(b)
        self.parent[a] = b
        return a != b


def draw(rng, kind, size):
    if kind == "uniform":
        return rng.random(size)
    if kind == "signed":
        return rng.normal(size=size) * 10 - 3
    if kind == "integers":
        return rng.integers(-2, 3, size=size).astype(float)
    if kind == "decimals":  # ties that rounding breaks
        return rng.integers(-4, 9, size=size) * 0.1
    if kind == "equal":
        return np.full(size, rng.integers(-3, 4) / 2.0)
    if kind == "spread":
        return 10.0 ** rng.uniform(-6, 6, size) * rng.choice([-1.0, 1.0], size)
    if kind == "near":
        return rng.integers(0, 4, size=size) + 1e-11 * rng.normal(size=size)
    if (
        kind == "ranked"
    ):  # rank one: every matching of a sorted pair of vectors ties in all 2x2 blocks but one
        return np.multiply.outer(np.arange(size[0], dtype=float), np.arange(size[1], dtype=float))
    return rng.random(size) * 1e-7


def forbid(rng, cost, share):
    cost = cost.copy()
    cost[rng.random(cost.shape) < share] = np.inf
    return cost


def run(costs, *, basic=True):
    """costs (B, R, K) -> match, u, v, status."""
    items, rows, columns = costs.shape
    match = np.zeros((items, rows), np.int32)
    u, v, status = np.zeros((items, rows)), np.zeros((items, columns)), np.full(items, 9, np.int8)
    flat = costs.reshape(items, -1)
    solve(flat, rows, columns, 0, items, match, u, v, status)
    if basic:
        stand(flat, rows, columns, 0, items, match, u, v, status != 0)
    return match, u, v, status


def check(costs, match, u, v, tolerance=TOLERANCE):
    """(ok, gap, dual_residual, value), each (B,)."""
    items = len(match)
    ok = np.ones(items, bool)
    gap, residual, value = np.zeros((3, items))
    certify(costs.reshape(len(costs), -1), match, u, v, tolerance, 0, items, ok, gap, residual, value)
    return ok, gap, residual, value


def assert_basic(cost, match, u, v):
    """Matched pairs, other tight pairs and logicals contain a basis, and its equations give (u, v) back."""
    rows, columns = cost.shape
    d = cost - u[:, None] - v
    scale = np.abs(cost[np.isfinite(cost)]).max() * max(rows, 4) * 1e-14
    ground = rows + columns
    tree = Union(rows + columns + 1)
    arcs = [(i, match[i]) for i in range(rows)]
    arcs += [(i, k) for i, k in np.argwhere(np.abs(d) <= scale) if k != match[i]]
    potentials = {}
    if rows < columns:
        assert (v <= 0).all() and (v[np.setdiff1d(np.arange(columns), match)] == 0.0).all()
        for k in np.flatnonzero(v == 0.0):
            tree.join(ground, rows + k)
            potentials[rows + k] = 0.0
    else:
        # The logical of the last column of every component is basic, its dual exactly zero.
        finite = Union(rows + columns)
        for i, k in np.argwhere(np.isfinite(cost)):
            finite.join(i, rows + k)
        last = {finite.find(rows + k): k for k in range(columns)}
        for k in last.values():
            assert v[k] == 0.0
            tree.join(ground, rows + k)
            potentials[rows + k] = 0.0
    basic = [(i, k) for i, k in arcs if tree.join(i, rows + k)]
    assert len({tree.find(a) for a in range(ground + 1)}) == 1, "tight pairs and logicals do not span"
    assert set(arcs[:rows]) <= set(basic)  # a basis that contains the matching
    for _ in range(rows + columns):
        for i, k in basic:
            if i in potentials and rows + k not in potentials:
                potentials[rows + k] = cost[i, k] - potentials[i]
            elif i not in potentials and rows + k in potentials:
                potentials[i] = cost[i, k] - potentials[rows + k]
    y = np.array([potentials[a] for a in range(ground)])
    np.testing.assert_allclose(np.concatenate([u, v]), y, rtol=0, atol=scale * 4)


def cases(seed, count):
    rng = np.random.default_rng(seed)
    for case in range(count):
        kind = KINDS[case % len(KINDS)]
        rows = int(rng.integers(1, 12))
        columns = rows if rng.random() < 0.5 else rows + int(rng.integers(1, 9))
        cost = draw(rng, kind, (rows, columns))
        if rng.random() < 0.4:
            cost = forbid(rng, cost, rng.uniform(0, 0.8))
        yield kind, cost


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_scipy_and_is_basic(seed):
    infeasible = solved = 0
    for kind, cost in cases(seed, 1800):
        match, u, v, status = run(cost[None])
        try:
            i, k = linear_sum_assignment(cost)
        except ValueError:
            assert status[0] == 1 and (match == -1).all() and np.isnan(u).all() and np.isnan(v).all()
            assert not check(cost[None], match, u, v)[0][0]
            infeasible += 1
            continue
        assert status[0] == 0, kind
        ok, gap, residual, value = check(cost[None], match, u, v)
        scale = np.abs(cost[np.isfinite(cost)]).max()
        best = cost[i, k].sum()
        assert abs(value[0] - best) <= 1e-13 * scale * len(cost), kind
        assert abs(gap[0]) <= 1e-13 * scale * len(cost) and residual[0] <= 1e-13 * scale * len(cost)
        assert ok[0] or kind == "spread"
        assert_basic(cost, match[0], u[0], v[0])
        solved += 1
    assert infeasible > 50 and solved > 1200


def test_duals_prove_the_value_of_a_second_solver():
    rng = np.random.default_rng(5)
    for case in range(60):
        rows = int(rng.integers(1, 7))
        columns = rows + int(rng.integers(0, 2)) * int(rng.integers(1, 5))
        cost = draw(rng, KINDS[case % 4], (rows, columns))
        over = np.kron(np.eye(rows), np.ones(columns))
        down = np.kron(np.ones(rows), np.eye(columns))
        square = rows == columns
        lp = linprog(
            cost.ravel(),
            A_eq=np.vstack([over, down]) if square else over,
            b_eq=np.ones(rows + columns if square else rows),
            A_ub=None if square else down,
            b_ub=None if square else np.ones(columns),
            method="highs",
        )
        match, u, v, _ = run(cost[None])
        assert abs(u.sum() + v.sum() - lp.fun) <= 1e-7
        assert abs(check(cost[None], match, u, v)[3][0] - lp.fun) <= 1e-7


@pytest.mark.parametrize("shape", [(40, 40), (65, 65), (30, 140), (129, 129), (200, 200), (128, 260)])
def test_larger_ones(shape):
    """Several blocks of columns, full and not."""
    rng = np.random.default_rng(shape[0])
    for kind in KINDS:
        for share in (0.0, 0.3):
            cost = draw(rng, kind, shape)
            cost = forbid(rng, cost, share) if share else cost
            match, u, v, status = run(cost[None])
            i, k = linear_sum_assignment(cost)
            ok, _, _, value = check(cost[None], match, u, v, 1e-8)
            assert status[0] == 0 and ok[0]
            scale = np.abs(cost[np.isfinite(cost)]).max()
            assert abs(value[0] - cost[i, k].sum()) <= 1e-13 * scale * shape[0]
            if max(shape) < 150 and share == 0.0:
                assert_basic(cost, match[0], u[0], v[0])


def test_column_prices_stay_below_zero_whatever_rounding_does():
    costs = np.random.default_rng(17).integers(-4, 9, size=(20000, 12, 13)) * 0.1
    match, u, v, status = run(costs)
    assert (status == 0).all() and (v <= 0).all()
    ok, gap, residual, _ = check(costs, match, u, v, 1e-12)
    assert ok.all() and np.abs(gap).max() < 1e-13 and residual.max() < 1e-14


def test_integer_costs_have_exact_integer_duals():
    rng = np.random.default_rng(7)
    costs = rng.integers(-50, 50, size=(200, 9, 9)).astype(float)
    match, u, v, status = run(costs)
    assert (status == 0).all() and (u == np.round(u)).all() and (v == np.round(v)).all()
    ok, gap, residual, _ = check(costs, match, u, v, 0.0)
    assert ok.all() and (gap == 0).all() and (residual == 0).all()


def test_components_are_tied_each_to_its_last_column():
    """Block patterns, triangular patterns, permuted: trees that arcs of one direction do not reach."""
    rng = np.random.default_rng(8)
    for case in range(300):
        n = int(rng.integers(2, 12))
        if case % 3 == 0:
            allowed = np.tri(n, dtype=bool)
        elif case % 3 == 1:
            label = rng.integers(0, 3, n)
            allowed = label[:, None] == label
        else:
            allowed = np.eye(n, dtype=bool) | (rng.random((n, n)) < 1.0 / n)
        cost = np.where(allowed, draw(rng, KINDS[case % 3], (n, n)), np.inf)
        cost = cost[rng.permutation(n)][:, rng.permutation(n)]
        match, u, v, status = run(cost[None])
        i, k = linear_sum_assignment(cost)
        ok, _, _, value = check(cost[None], match, u, v)
        assert status[0] == 0 and ok[0]
        assert abs(value[0] - cost[i, k].sum()) <= 1e-12
        assert_basic(cost, match[0], u[0], v[0])


def test_numbers_that_are_none_are_declined():
    rng = np.random.default_rng(9)
    for shape in ((1, 1), (5, 5), (3, 7), (140, 140)):
        for bad, code in ((np.nan, 7), (-np.inf, 7), (1e200, 7), (-1e300, 7), (np.inf, 0)):
            for _ in range(10):
                cost = rng.random((1, *shape))
                cost[0, rng.integers(shape[0]), rng.integers(shape[1])] = bad
                code = 1 if bad == np.inf and shape == (1, 1) else code
                match, u, v, status = run(cost)
                assert status[0] == code
                assert check(cost, match, u, v)[0][0] == (code == 0)
        match, _, _, status = run(np.full((1, *shape), np.inf))
        assert status[0] == 1 and (match == -1).all()
    cost = rng.random((1, 6, 6))
    cost[0, 2:5, :4] = np.inf  # three rows share two columns
    assert run(cost)[3][0] == 1
    cost = rng.random((1, 6, 6))
    cost[0, :, 3] = np.inf
    assert run(cost)[3][0] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_duals_that_are_not_basic_prove_the_matching_too(kind):
    rng = np.random.default_rng(12)
    for rows, columns in ((1, 1), (8, 8), (7, 16), (30, 30)):
        costs = np.stack([draw(rng, kind, (rows, columns)) for _ in range(8)])
        match, u, v, status = run(costs, basic=False)
        assert (status == 0).all()
        ok, _, _, value = check(costs, match, u, v)
        assert ok.all()
        # Made basic they say the same; again, and they stay: what is done is left alone.
        again_u, again_v = u.copy(), v.copy()
        done = np.arange(8) % 2 == 0
        stand(costs.reshape(8, -1), rows, columns, 0, 8, match, again_u, again_v, done)
        np.testing.assert_array_equal(again_u[done], u[done])
        assert check(costs, match, again_u, again_v)[0].all()
        for item in np.flatnonzero(~done):
            assert_basic(costs[item], match[item], again_u[item], again_v[item])
        np.testing.assert_allclose(value, again_u.sum(1) + again_v.sum(1), rtol=1e-9, atol=1e-12)


def test_bits_depend_on_the_item_alone():
    rng = np.random.default_rng(10)
    for rows, columns in ((6, 6), (5, 9), (33, 33)):
        costs = np.stack([draw(rng, KINDS[b % 4], (rows, columns)) for b in range(24)])
        costs[3, 0, 0] = np.nan
        costs[4, 0, :] = np.inf
        whole = run(costs)
        order = rng.permutation(24)
        for a, b in zip(run(np.ascontiguousarray(costs[order])), whole, strict=True):
            np.testing.assert_array_equal(a, b[order])
        whole = run(costs, basic=False)
        out = [np.zeros_like(a) for a in whole]
        spans = [
            threading.Thread(
                target=solve, args=(costs.reshape(24, -1), rows, columns, start, start + 6, *out)
            )
            for start in range(0, 24, 6)
        ]
        for span in spans:
            span.start()
        for span in spans:
            span.join()
        for a, b in zip(out, whole, strict=True):
            np.testing.assert_array_equal(a, b)
        # A shared cost, and read-only input.
        shared = costs[:1].reshape(1, -1).copy()
        shared.flags.writeable = False
        out = [np.full_like(np.repeat(a[:1], 3, axis=0), 5) for a in whole]
        solve(shared, rows, columns, 1, 3, *out)
        for a, b in zip(out, whole, strict=True):
            np.testing.assert_array_equal(a[1:], np.repeat(b[:1], 2, axis=0))
            assert (a[0] == 5).all()  # outside the span nothing is written
        ok, _, _, value = check(shared, *(a[1:] for a in out[:3]))
        assert ok.all() and value[0] == value[1]


def test_scatter_writes_the_vertex():
    rng = np.random.default_rng(11)
    costs = rng.random((8, 4, 7))
    match = run(costs)[0]
    x = np.zeros((8, 28))
    scatter(match, 7, np.ones(1), 2, 8, x)
    assert (x[:2] == 0).all()
    x = x.reshape(8, 4, 7)
    assert (x[2:].sum(2) == 1).all() and (x[2:].argmax(2) == match[2:]).all() and x.sum() == 24
    scatter(np.full((1, 4), -1, np.int32), 7, np.ones(1), 0, 1, nothing := np.zeros((1, 28)))
    assert (nothing == 0).all()


def test_scatter_multiplies_to_the_bit():
    factors = np.array([2.5, -1.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-320, -1e-320, 1e308] * 20)
    match = run(np.random.default_rng(16).random((len(factors), 3, 4)))[0]
    match[::7] = -1
    x, product = np.zeros((2, len(factors), 12))
    scatter(match, 4, np.ones(1), 0, len(x), x)
    scatter(match, 4, factors, 0, len(x), product)
    with np.errstate(invalid="ignore"):
        expected = x * factors[:, None]
    # The bits of a NaN are the processor's own.
    np.testing.assert_array_equal(
        np.nan_to_num(product, nan=7).view(np.int64), np.nan_to_num(expected, nan=7).view(np.int64)
    )


def wrong(rng, cost, match, u, v):
    """Wrong proposals, by name: each of them must be refused, whatever the costs."""
    rows, columns = cost.shape
    top = np.abs(cost[np.isfinite(cost)]).max()
    step = 1e-6 * max(top, 1e-3)
    i, j = rng.choice(rows, 2, replace=rows == 1).tolist()
    k = int(rng.integers(columns))
    both = (match, u, v)

    def at(array, index, value):
        array = array.copy()
        array[index] = value
        return array

    yield "column below range", at(match, i, -1), u, v
    yield "column beyond range", at(match, i, columns), u, v
    yield "column far beyond range", at(match, i, 2**31 - 1), u, v
    if rows > 1:
        yield "column taken twice", at(match, i, match[j]), u, v
        swapped = at(at(match, i, match[j]), j, match[i])
        extra = cost[i, match[j]] + cost[j, match[i]] - cost[i, match[i]] - cost[j, match[j]]
        if extra > step:
            yield "a worse matching", swapped, u, v
    for name, array, place in (("u", 1, i), ("v", 2, k)):
        for value in (np.nan, np.inf, -np.inf):
            changed = list(both)
            changed[array] = at(both[array], place, value)
            yield f"{name} is {value}", *changed
    yield "a row price too high", match, at(u, i, u[i] + step), v
    yield "a row price too low", match, at(u, i, u[i] - step), v
    yield "a column price too high", match, u, at(v, k, v[k] + step)
    yield "a column price too low", match, u, at(v, k, v[k] - step)
    if rows < columns:
        yield "column prices above zero", match, u - 2 * top - 1, v + 2 * top + 1
        free = int(rng.choice(np.setdiff1d(np.arange(columns), match)))
        yield "a price on an unmatched column", match, u, at(v, free, -step)
    forbidden = np.argwhere(np.isinf(cost))
    for row, column in forbidden[: len(forbidden) and 3]:
        holder = np.flatnonzero(match == column)
        changed = at(match, row, column)
        if len(holder):
            changed[holder[0]] = match[row]
        yield "a forbidden pair", changed, u, v


def test_certificate_refuses_every_wrong_proposal():
    refused: dict[str, int] = {}
    rng = np.random.default_rng(12)
    for _, cost in cases(13, 500):
        match, u, v, status = run(cost[None])
        if status[0] != 0 or not check(cost[None], match, u, v)[0][0]:
            continue
        if np.abs(cost[np.isfinite(cost)]).max() < 1e-6:
            continue
        for name, *proposal in wrong(rng, cost, match[0], u[0], v[0]):
            ok = check(cost[None], *(a[None] for a in proposal))[0][0]
            assert not ok, (name, cost, proposal)
            refused[name] = refused.get(name, 0) + 1
        for bad in (np.nan, -np.inf):
            spoilt = cost.copy()
            spoilt[rng.integers(cost.shape[0]), rng.integers(cost.shape[1])] = bad
            assert not check(spoilt[None], match, u, v)[0][0]
    assert len(refused) == 18 and min(refused.values()) >= 50, refused


def test_certificate_refuses_a_column_price_above_zero():
    """Nothing else refuses this one: all pairs are tight, the gap is 0, yet the other column is cheaper."""
    cost = np.array([[[5.0, 1.0]]])
    match, u, v = np.array([[0]], np.int32), np.array([[1.0]]), np.array([[4.0, 0.0]])
    ok, gap, residual, value = check(cost, match, u, v)
    assert not ok[0] and gap[0] == 0.0 and residual[0] == 4.0 and value[0] == 5.0
    assert check(cost, match + 1, u, v * 0.0)[0][0]


def test_certificate_tolerance_is_relative_to_small_costs():
    cost = np.array([[[1e-9, 3e-9], [2e-9, 1e-9]]])
    match, u, v, _ = run(cost)
    assert check(cost, match, u, v)[0][0]
    # A slack of 1e-10 would pass an absolute test of 1e-9.
    assert not check(cost, match, u + 1e-10, v)[0][0]
    assert not check(cost, match[:, ::-1].copy(), u, v)[0][0]
