"""LPs of no row and of one row in closed form, against HiGHS and first principles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from lpdiff.kernels.selection import one_row, separable

OPTIMAL, INFEASIBLE, UNBOUNDED, DECLINED = 0, 1, 2, 7


def no_row(c, lower, upper):
    x, status = np.full((len(c), c.shape[1]), 5.0), np.full(len(c), 99, np.int8)
    separable(c, lower, upper, x, status, 0, len(c))
    return x, status


def single(c, a, lower, upper, rl, ru):
    x, y, status = np.full((1, len(c)), 5.0), np.full((1, 1), 5.0), np.full(1, 99, np.int8)
    sides = np.array([[float(rl)]]), np.array([[float(ru)]])
    one_row(c[None], a[None], lower[None], upper[None], *sides, x, y, status, 0, 1)
    return x[0], y[0, 0], status[0]


def test_no_row():
    g = np.random.default_rng(0)
    seen = np.zeros(3, int)
    for _ in range(500):
        n = int(g.integers(0, 6))
        c = g.integers(-1, 2, n).astype(float)
        lower, upper = random_box(g, n)
        x, status = no_row(c[None], lower[None], upper[None])
        low, high = np.where(lower <= -1e20, -np.inf, lower), np.where(upper >= 1e20, np.inf, upper)
        endless = ((c > 0) & (low == -np.inf)) | ((c < 0) & (high == np.inf))
        expected = INFEASIBLE if (low > high).any() else UNBOUNDED if endless.any() else OPTIMAL
        assert status[0] == expected
        seen[expected] += 1
        if expected == OPTIMAL:
            assert np.array_equal(x[0][c > 0], low[c > 0]) and np.array_equal(x[0][c < 0], high[c < 0])
            at_zero = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, 0.0))
            assert np.array_equal(x[0][c == 0], at_zero[c == 0])
    assert seen.min() > 10
    for bad in (np.nan, np.inf, -np.inf, 1e20):
        c = np.array([[1.0, bad, 1.0]])
        for upper in (np.ones((1, 3)), -np.ones((1, 3))):
            assert no_row(c, np.zeros((1, 3)), upper)[1][0] == DECLINED
    assert no_row(np.ones((1, 1)), np.full((1, 1), np.nan), np.ones((1, 1)))[1][0] == DECLINED


def random_box(g, n):
    lower = g.choice([0.0, 0.0, -1.0, 1.0, -np.inf, -1e20], n, p=[0.4, 0.2, 0.15, 0.15, 0.05, 0.05])
    upper = np.maximum(lower, -1e20) + g.choice(
        [0.0, 1.0, 2.0, np.inf, -1.0], n, p=[0.1, 0.5, 0.2, 0.19, 0.01]
    )
    upper = np.where(lower <= -1e20, g.choice([0.0, 2.0, np.inf, 1e30], n), upper)
    return lower, upper


def random_row(g):
    kind = g.integers(0, 5)
    b = float(g.choice([-2, -1, 0, 0.5, 1, 2, 3, 7]))
    return [(b, b), (b, np.inf), (-np.inf, b), (b - 1, b + 0.5), (-np.inf, np.inf)][kind]


def check(c, a, lower, upper, rl, ru, x, y, value):
    low, high = np.where(lower <= -1e20, -np.inf, lower), np.where(upper >= 1e20, np.inf, upper)
    scale = 1 + np.abs(a * x).sum()
    assert np.isfinite(x).all()
    assert (x >= low - 1e-12 * scale).all() and (x <= high + 1e-12 * scale).all()
    assert rl - 1e-12 * scale <= a @ x <= ru + 1e-12 * scale
    d = c - a * y
    noise = 1e-12 * (np.abs(c) + np.abs(a * y))
    assert not ((d > noise) & (x > low + 1e-12 * scale)).any()
    assert not ((d < -noise) & (x < high - 1e-12 * scale)).any()
    if y > 0:
        assert a @ x == pytest.approx(rl, abs=1e-12 * scale)
    if y < 0:
        assert a @ x == pytest.approx(ru, abs=1e-12 * scale)
    if value is not None:
        assert c @ x == pytest.approx(value, rel=1e-9, abs=1e-9)
    # A vertex: one column at most between its bounds, and that only where the row stands at a side.
    inside = (x > low) & (x < high) & ~(np.isinf(low) & np.isinf(high) & (x == 0))
    assert inside.sum() <= 1
    if inside.any():
        assert np.abs(d[inside]).max() <= noise[inside].max()
        assert min(abs(a @ x - rl), abs(a @ x - ru)) <= 1e-12 * scale
    # y = 0, or the ratio of a column.
    assert y == 0 or (np.abs(d) <= noise)[a != 0].any()


@pytest.mark.parametrize("costs", ["normal", "ties", "positive", "spread"])
def test_one_row(costs):
    g = np.random.default_rng(len(costs))
    seen = np.zeros(3, int)
    for trial in range(500):
        n = int(g.integers(1, 8))
        lower, upper = random_box(g, n)
        if costs == "normal":
            c, a = g.normal(size=n), g.normal(size=n)
        elif costs == "ties":
            c, a = g.integers(-2, 3, n).astype(float), g.integers(-2, 3, n).astype(float)
        elif costs == "positive":
            c, a = g.uniform(0, 1, n), g.uniform(0.1, 1, n)
        else:
            c, a = 10.0 ** g.uniform(-3, 3, n) * g.choice([-1, 1], n), 10.0 ** g.uniform(-1, 1, n)
        if trial % 3:
            lower, upper = np.maximum(lower, -3.0), np.minimum(np.maximum(upper, -3.0), 4.0)
        rl, ru = random_row(g)
        if trial % 5 == 0 and np.isfinite(lower).all() and np.isfinite(upper).all():
            # A side that only one point reaches.
            rl = ru = float(np.maximum(a * lower, a * upper).sum())
        result = linprog(
            c,
            A_ub=np.array([a, -a])[[np.isfinite(ru), np.isfinite(rl)]]
            if np.isfinite([rl, ru]).any()
            else None,
            b_ub=np.array([ru, -rl])[np.isfinite([ru, rl])] if np.isfinite([rl, ru]).any() else None,
            bounds=np.stack(
                [np.where(lower <= -1e20, -np.inf, lower), np.where(upper >= 1e20, np.inf, upper)], 1
            ),
            options={"presolve": False},
        )
        x, y, status = single(c, a, lower, upper, rl, ru)
        if status == DECLINED:
            continue
        seen[status] += 1
        assert {0: OPTIMAL, 2: INFEASIBLE, 3: UNBOUNDED}[result.status] == status
        if status == OPTIMAL:
            check(c, a, lower, upper, rl, ru, x, y, result.fun)
    assert seen.sum() >= 495
    assert seen[OPTIMAL] > 200 and seen[INFEASIBLE] > 15 and (seen[UNBOUNDED] > 15 or costs == "positive")


def test_many_columns():
    g = np.random.default_rng(4)
    for n in (50, 1000, 20000):
        for ties in (False, True):
            c = g.integers(-9, 9, n).astype(float) if ties else g.normal(size=n)
            a = g.choice([-2.0, -1.0, 1.0, 2.0], n) if ties else g.normal(size=n)
            b = 0.3 * np.maximum(a, 0).sum()
            for rl, ru in ((b, b), (-b, -0.9 * b), (-np.inf, -b), (b, np.inf)):
                x, y, status = single(c, a, np.zeros(n), np.ones(n), rl, ru)
                assert status == OPTIMAL
                check(c, a, np.zeros(n), np.ones(n), rl, ru, x, y, None)


def test_simplex():
    g = np.random.default_rng(5)
    for _ in range(200):
        n = int(g.integers(1, 9))
        c = g.integers(-3, 4, n).astype(float)
        weight, b = g.choice([1.0, -1.0, 0.5]), g.choice([1.0, 3.0])
        a = np.full(n, weight)
        x, y, status = single(c, a, np.zeros(n), np.full(n, np.inf), weight * b, weight * b)
        assert status == OPTIMAL
        expected = np.zeros(n)
        expected[np.argmin(c)] = b
        assert np.array_equal(x, expected) and y == c.min() / weight
        # The general way finds the same: an upper bound, out of reach, hides the simplex.
        wide = np.full(n, np.inf)
        wide[0] = 100.0
        general = single(c, a, np.zeros(n), wide, weight * b, weight * b)
        assert general[2] == OPTIMAL and np.array_equal(general[0], expected) and general[1] == y
    x, _, status = single(np.ones(2), np.ones(2), np.zeros(2), np.full(2, np.inf), -1, -1)
    assert status == INFEASIBLE
    x, _, status = single(np.ones(2), np.ones(2), np.zeros(2), np.full(2, np.inf), 0, 0)
    assert status == OPTIMAL and not x.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_strange_numbers_are_declined(bad):
    one, zero, free = np.ones(3), np.zeros(3), np.full(3, np.inf)
    for upper in (one, free):
        for j in range(3):
            broken = one.copy()
            broken[j] = bad
            assert single(broken, one, zero, upper, 1, 1)[2] == DECLINED
            assert single(one, broken, zero, upper, 1, 1)[2] == DECLINED
    assert single(one, one, zero, one, np.nan, 1)[2] == DECLINED
    assert single(one, one, zero, np.array([1, np.nan, 1]), 1, 1)[2] == DECLINED
    assert single(one, np.array([1, 1e-300, 1]), zero, one, 1, 1)[2] == DECLINED


def test_a_free_column_is_the_basic_one():
    # All of these tie; only with the free column basic is it a vertex.
    lower, upper = np.array([0.0, -np.inf, -1.0]), np.array([5.0, np.inf, 9.0])
    for cost in (1.0, 0.0, -1.0):
        x, y, status = single(np.full(3, cost), np.ones(3), lower, upper, 3, 3)
        assert status == OPTIMAL and x.tolist() == [0.0, 4.0, -1.0] and y == cost
    x, _, status = single(np.zeros(3), np.ones(3), lower, upper, -np.inf, 3)
    assert status == OPTIMAL and x.tolist() == [0.0, 4.0, -1.0]
    x, _, status = single(np.zeros(3), np.ones(3), lower, upper, -4, 7)
    assert status == OPTIMAL and x.tolist() == [0.0, -3.0, -1.0]


def test_near_the_edge_is_declined():
    c, a = np.array([1.0, 2.0, -1.0]), np.array([1.0, 1.0, 2.0])
    assert single(c, a, np.zeros(3), np.ones(3), 4.0, 4.0)[2] == OPTIMAL
    assert single(c, a, np.zeros(3), np.ones(3), 4 * (1 + 1e-15), np.inf)[2] == OPTIMAL
    assert single(c, a, np.zeros(3), np.ones(3), 4 * (1 + 1e-9), np.inf)[2] == DECLINED
    assert single(c, a, np.zeros(3), np.ones(3), 4.1, np.inf)[2] == INFEASIBLE
    # Two free columns whose ratios differ by rounding, or by more.
    free = np.full(2, np.inf)
    assert single(np.array([0.1, 0.3]), np.array([1.0, 3.0]), -free, free, 1, 1)[2] == DECLINED
    assert single(np.array([0.1, 0.4]), np.array([1.0, 3.0]), -free, free, 1, 1)[2] == UNBOUNDED
    assert single(np.array([0.5, 1.0]), np.array([1.0, 2.0]), -free, free, 1, 1)[2] == OPTIMAL


def test_items_do_not_depend_on_their_batch():
    g = np.random.default_rng(6)
    batch, n = 12, 9
    c, a = g.normal(size=(batch, n)), g.normal(size=(batch, n))
    lower, upper = g.uniform(-1, 0, (batch, n)), g.uniform(0, 1, (batch, n))
    lower[[0, 3]], upper[[0, 3]], a[[0, 3]] = 0, np.inf, 1.0  # simplices
    rl = g.uniform(-1, 1, (batch, 1))
    rl[[0, 3]] = 1.0
    ru = rl + g.choice([0, 1], (batch, 1))
    ru[[0, 3]] = 1.0

    def run(start, stop, *data):
        x, y, status = np.full((batch, n), 9.0), np.full((batch, 1), 9.0), np.full(batch, 99, np.int8)
        one_row(*data, x, y, status, start, stop)
        return x, y, status

    data = c, a, lower, upper, rl, ru
    whole = run(0, batch, *data)
    assert (whole[2] == OPTIMAL).all()
    for k in range(batch):
        alone = run(k, k + 1, *data)
        assert all(np.array_equal(p[k], q[k]) for p, q in zip(alone, whole, strict=True))
        assert (alone[2] == 99).sum() == batch - 1
        shared = run(0, batch, c, *(part[k : k + 1] for part in data[1:]))
        assert all(np.array_equal(p[k], q[k]) for p, q in zip(shared, whole, strict=True))
