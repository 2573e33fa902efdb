"""The compiled certificate: it accepts what HiGHS found, and refuses whatever is wrong with it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linprog

from lpdiff.kernels.certify import certify, columns_of

TOLERANCE = 1e-9


class LP:
    """A random LP with at most two entries a column, and an optimal pair of it."""

    def __init__(self, g, m, n):
        self.m, self.n = m, n
        A = np.zeros((m, n))
        for j in range(n):
            rows = g.choice(m, min(m, int(g.choice([0, 1, 2], p=[0.03, 0.17, 0.8]))), replace=False)
            signs = g.permutation([1.0, -1.0]) if g.random() < 0.7 else g.choice([1.0, -1.0, 2.0, 0.5], 2)
            A[rows, j] = signs[: len(rows)]
        self.A = A
        self.c = g.normal(size=n)
        self.lower = g.choice([0.0, -1.0, -np.inf, 0.5], n, p=[0.7, 0.15, 0.05, 0.1])
        self.upper = np.where(g.random(n) < 0.5, np.inf, np.maximum(self.lower, -1) + 1)
        at = np.clip(g.uniform(0, 1, n), self.lower, self.upper)
        activity = A @ at
        kind = g.integers(0, 4, m)
        self.rl = np.where(kind == 1, -np.inf, activity - 1.0 * (kind == 3))
        self.ru = np.where(kind == 2, np.inf, activity + 0.5 * (kind == 3))
        self.x = self.y = None

    def solve(self):
        up, down = np.isfinite(self.ru), np.isfinite(self.rl)
        equal = self.rl == self.ru
        up, down = up & ~equal, down & ~equal
        blocks = [self.A[up], -self.A[down]]
        sides = [self.ru[up], -self.rl[down]]
        result = linprog(
            self.c,
            A_eq=self.A[equal],
            b_eq=self.rl[equal],
            A_ub=np.concatenate(blocks),
            b_ub=np.concatenate(sides),
            bounds=np.stack([self.lower, self.upper], 1),
        )
        if result.status != 0:
            return False
        self.x, self.y = result.x, np.zeros(self.m)
        self.y[equal] = result.eqlin.marginals
        marginals = result.ineqlin.marginals
        self.y[up] += marginals[: up.sum()]
        self.y[down] -= marginals[up.sum() :]
        return True

    def judge(self, x=None, y=None, tolerance=TOLERANCE, **changes):
        """(ok, value, gap, primal residual, dual residual) of a proposal, by default the optimal one."""
        x, y = self.x if x is None else x, self.y if y is None else y
        data = {name: changes.get(name, getattr(self, name)) for name in ("c", "lower", "upper", "rl", "ru")}
        columns = sp.csc_array(self.A)
        entries = columns_of(self.m, columns.indptr, columns.indices, columns.data[None])
        numbers = (np.asarray(array, float)[None] for array in (*data.values(), x, y))
        ok, out = np.zeros(1, bool), np.full((4, 1), 7.0)
        certify(*entries, *numbers, 0, 1, tolerance, ok, *out)
        return ok[0], *out[:, 0]

    def numbers(self, x, y):
        """(value, gap, primal residual, dual residual) as they are defined."""
        y_ = np.where(np.isneginf(self.rl), np.minimum(y, 0), y)
        y_ = np.where(np.isposinf(self.ru), np.maximum(y_, 0), y_)
        d = self.c - self.A.T @ y_

        def support(dual, low, high):
            side = np.where(dual > 0, low, np.where(dual < 0, high, 0.0))
            return (dual * np.where(np.isfinite(side), side, 0.0)).sum()

        wrong = np.where(((d > 0) & np.isinf(self.lower)) | ((d < 0) & np.isinf(self.upper)), np.abs(d), 0.0)
        activity = self.A @ x
        off = [self.lower - x, x - self.upper, self.rl - activity, activity - self.ru, [0.0]]
        value = self.c @ x
        return (
            value,
            value - support(y_, self.rl, self.ru) - support(d, self.lower, self.upper),
            max(np.max(part, initial=0.0) for part in off),
            max(wrong.max(initial=0.0), np.abs(y_ - y).max(initial=0.0)),
        )


def solved(seed, count, sizes=(1, 8)):
    g = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        m = int(g.integers(*sizes))
        lp = LP(g, m, int(g.integers(1, 3 * sizes[1])))
        if lp.solve():
            found.append(lp)
    return g, found


@pytest.fixture(scope="module")
def pairs():
    return solved(2, 40)[1]


def test_optimal_pairs_are_accepted():
    _, lps = solved(0, 200)
    for lp in lps:
        ok, *numbers = lp.judge()
        assert ok
        assert numbers == pytest.approx(lp.numbers(lp.x, lp.y), rel=1e-12, abs=1e-12)


def test_numbers_are_the_definitions():
    g = np.random.default_rng(1)
    for trial in range(150):
        lp = LP(g, int(g.integers(1, 8)) if trial % 3 else 500, int(g.integers(1, 20)) if trial % 5 else 700)
        lp.x, lp.y = np.zeros(lp.n), np.zeros(lp.m)
        x, y = lp.x + g.normal(size=lp.n), lp.y + g.normal(size=lp.m)
        ok, *numbers = lp.judge(x, y, tolerance=0.0)
        assert not ok
        value, gap, primal, dual = lp.numbers(x, y)
        assert numbers[0] == pytest.approx(value, rel=1e-10, abs=1e-10)
        assert numbers[2:] == pytest.approx([primal, dual], rel=1e-12)
        assert numbers[1] == pytest.approx(gap, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("units", [1e-9, 1e-3, 1.0, 1e9])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_wrong_proposals_are_refused(pairs, units, scale):
    g = np.random.default_rng(2)
    refused = 0
    for lp in copy.deepcopy(pairs):
        # The same LP in other units: HiGHS itself is not exact in tiny ones.
        for name in ("lower", "upper", "rl", "ru", "x"):
            setattr(lp, name, getattr(lp, name) * scale)
        lp.c, lp.y = lp.c * units, lp.y * units
        assert lp.judge()[0]
        for kind in ("x", "y", "flow"):
            for _ in range(4):
                x, y = lp.x.copy(), lp.y.copy()
                size = 10.0 ** g.uniform(-5, 0)
                if kind == "x":
                    x[g.integers(lp.n)] += size * scale * g.choice([-1, 1])
                elif kind == "y":
                    y[g.integers(lp.m)] += size * units * g.choice([-1, 1])
                else:
                    # Cheaper, within the bounds, but off the rows.
                    x = np.clip(x - size * scale * np.sign(lp.c), lp.lower, lp.upper)
                _, gap, primal, dual = lp.numbers(x, y)
                true_gap = gap / (units * scale)
                if primal / scale < 1e-6 and dual / units < 1e-6 and abs(true_gap) < 1e-6:
                    continue  # another optimal pair
                refused += 1
                assert not lp.judge(x, y)[0]
    assert refused > 250


def test_another_vertex_is_refused_in_tiny_units():
    # Two parallel arcs of which one is dearer by half, and their LP in many units.
    for units in 10.0 ** np.arange(-15, 13, 3):
        for scale in 10.0 ** np.arange(-12, 10, 3):
            lp = LP(np.random.default_rng(0), 2, 2)
            lp.A = np.array([[1.0, 1.0], [-1.0, -1.0]])
            lp.c, lp.lower, lp.upper = np.array([1.0, 1.5]) * units, np.zeros(2), np.full(2, np.inf)
            lp.rl = lp.ru = np.array([scale, -scale])
            best, worse = np.array([scale, 0.0]), np.array([0.0, scale])
            y = np.array([units, 0.0])
            assert lp.judge(best, y)[0]
            assert not lp.judge(worse, y)[0]
            assert not lp.judge(worse, 1.5 * y)[0]
            assert not lp.judge(np.zeros(2), y)[0]
            assert not lp.judge(best, 0 * y)[0]
            assert not lp.judge(0.99 * best, y)[0]


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_violations_that_cost_nothing_are_refused(scale):
    # All costs are zero: the gap is zero wherever x is, so only feasibility is left to judge.
    lp = LP(np.random.default_rng(0), 2, 2)
    lp.A, lp.c, lp.y = np.array([[1.0, 1.0], [-1.0, -1.0]]), np.zeros(2), np.zeros(2)
    lp.lower, lp.upper = np.zeros(2), np.full(2, 2 * scale)
    lp.rl, lp.ru = np.array([scale, -scale]), np.array([scale, -scale])
    fine = np.array([scale, 0.0])
    assert lp.judge(fine)[0]
    for x in (
        [0.0, 0.0],
        [0.999, 0.0],
        [1.0, 1e-3],
        [-0.5, 1.5],
        [2.5, -1.5],
        [3.0, -2.0],
        [1 + 1e-7, -1e-7],
    ):
        assert not lp.judge(scale * np.array(x))[0]
    lp.rl, lp.ru = np.array([-np.inf, -scale]), np.array([scale, np.inf])
    assert lp.judge(fine)[0] and lp.judge(0 * fine)[0]
    assert not lp.judge(1.001 * fine)[0]
    lp.rl, lp.ru = np.full(2, -np.inf), np.full(2, np.inf)
    assert lp.judge(fine)[0]
    assert not lp.judge(fine - 0.001 * scale)[0] and not lp.judge(fine + 1.001 * scale)[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad):
    g, lps = solved(3, 40)
    for lp in lps:
        for name, size in (("x", lp.n), ("y", lp.m), ("c", lp.n)):
            for j in range(size):
                changed = getattr(lp, name).copy()
                changed[j] = bad
                assert not lp.judge(**{name: changed})[0]
        for name in ("lower", "upper", "rl", "ru"):
            changed = getattr(lp, name).copy()
            changed[g.integers(len(changed))] = np.nan
            assert not lp.judge(**{name: changed})[0]
        changed = lp.A.copy()
        if changed.any():
            changed[tuple(g.permutation(np.argwhere(changed))[0])] = bad
            changed, lp.A = lp.A, changed
            assert not lp.judge()[0]
            lp.A = changed
    lp = lps[0]
    lp.c, lp.lower, lp.upper, lp.x = lp.c * 0, np.zeros(lp.n), np.full(lp.n, np.inf), np.zeros(lp.n)
    lp.rl, lp.ru, lp.y = np.zeros(lp.m), np.zeros(lp.m), np.zeros(lp.m)
    assert lp.judge()[0]
    # Where nothing else meets it: a column that is zero, a row that is free.
    assert not lp.judge(x=np.append(lp.x[:-1], bad))[0]
    assert not lp.judge(y=np.append(lp.y[:-1], bad), rl=lp.rl - np.inf, ru=lp.ru + np.inf)[0]
    assert not lp.judge(c=np.append(lp.c[:-1], abs(bad)))[0]
    assert not lp.judge(c=np.append(lp.c[:-1], 1e20))[0]
    assert not lp.judge(x=np.append(lp.x[:-1], 1e20), upper=lp.upper, ru=lp.ru + np.inf)[0]


def test_signs_at_one_sided_rows():
    # min x, x >= 1 as a row: y = 1. As x <= 1 with c = -1: y = -1. The opposite signs are wrong.
    lp = LP(np.random.default_rng(0), 1, 1)
    lp.A, lp.lower, lp.upper = np.ones((1, 1)), np.array([0.0]), np.array([5.0])
    lp.c, lp.rl, lp.ru, lp.x = np.array([1.0]), np.array([1.0]), np.array([np.inf]), np.array([1.0])
    assert lp.judge(y=np.array([1.0]))[0]
    ok, _, _, _, dual = lp.judge(y=np.array([-1.0]))
    assert not ok and dual == 1.0
    # Feasible and complementary otherwise: only the sign tells.
    lp.c, lp.x = np.array([-1.0]), np.array([5.0])
    assert lp.judge(y=np.array([0.0]))[0]
    assert lp.judge(y=np.array([-1e-13]))[0]
    assert not lp.judge(y=np.array([-1e-6]))[0]
    lp.ru, lp.rl = np.array([1e20]), np.array([-1e20])
    assert lp.judge(y=np.array([0.0]))[0]
    assert not lp.judge(y=np.array([-1e-6]))[0]
    assert not lp.judge(y=np.array([1e-6]))[0]


def test_rounding_beside_huge_numbers():
    # d is zero up to rounding beside a bound of 1e12: 0.1 + 0.2 is not 0.3.
    lp = LP(np.random.default_rng(0), 2, 2)
    lp.A = np.array([[1.0, 0.0], [-1.0, 1.0]])
    lp.c, lp.lower, lp.upper = np.array([0.1, 0.2]), np.zeros(2), np.full(2, 1e12)
    lp.rl = lp.ru = np.array([1.0, 0.0])
    lp.x, lp.y = np.ones(2), np.array([0.1 + 0.2, 0.2])
    assert lp.judge()[0]
    lp.y = np.array([0.3 + 1e-15, 0.2])
    assert lp.c[0] - lp.y[0] + lp.y[1] < 0
    assert lp.judge()[0]
    # Beyond rounding, it tells.
    lp.y = np.array([0.3 + 1e-9, 0.2])
    assert not lp.judge()[0]
    # Large flows: a row's rounding counts against them, an error does not.
    lp.y, flow = np.array([0.3, 0.2]), 123456789.123456789
    lp.rl = lp.ru = np.array([flow, 0.0])
    assert lp.judge(x=np.array([flow, flow * (1 + 1e-15)]))[0]
    assert not lp.judge(x=np.array([flow, flow * (1 + 1e-6)]))[0]


def test_rounding_of_large_costs_that_cancel():
    # A chain of costs of 1e9 whose sum is about 1: the potentials are added up from the other end.
    g = np.random.default_rng(7)
    n = 40
    lp = LP(g, n, n)
    lp.A = np.eye(n) - np.eye(n, k=-1)
    lp.lower, lp.upper, lp.x = np.zeros(n), np.full(n, np.inf), np.ones(n)
    lp.rl = lp.ru = np.eye(n)[0]
    gaps = []
    for _ in range(30):
        lp.c = g.uniform(-1e9, 1e9, n)
        lp.c[n // 2] -= lp.c.sum() - 1
        lp.y = np.cumsum(lp.c[::-1])[::-1].copy()
        ok, _, gap, _, _ = lp.judge()
        assert ok
        gaps.append(abs(gap))
        lp.y[0] -= 0.1
        assert not lp.judge()[0]
    assert max(gaps) > 1e-8  # more than the tolerance allows to a value of 1


def test_items_do_not_depend_on_their_batch():
    _, lps = solved(4, 1, sizes=(6, 7))
    lp, batch = lps[0], 8
    columns = sp.csc_array(lp.A)
    rows_a, rows_b, val_a, val_b = columns_of(lp.m, columns.indptr, columns.indices, columns.data[None])
    wide = {
        name: np.repeat(np.asarray(array, float)[None], batch, 0)
        for name, array in vars(lp).items()
        if name in ("c", "lower", "upper", "rl", "ru", "x", "y")
    }
    wide["x"][::3] += 0.1
    wide["val_a"], wide["val_b"] = np.repeat(val_a, batch, 0), np.repeat(val_b, batch, 0)

    def run(data, start, stop):
        ok, out = np.zeros(batch, bool), np.full((4, batch), 7.0)
        names = ("val_a", "val_b", "c", "lower", "upper", "rl", "ru", "x", "y")
        certify(rows_a, rows_b, *(data[name] for name in names), start, stop, TOLERANCE, ok, *out)
        return np.vstack([ok, out])

    whole = run(wide, 0, batch)
    assert whole[0].tolist() == [k % 3 != 0 for k in range(batch)]
    narrow = {name: array if name in ("x", "y") else array[:1] for name, array in wide.items()}
    assert np.array_equal(run(narrow, 0, batch), whole)
    for k in range(batch):
        part = run(wide, k, k + 1)
        assert np.array_equal(part[:, k], whole[:, k])
        assert (np.delete(part[1], k) == 7.0).all()


def test_columns_of():
    A = sp.csc_array(np.array([[1.0, 0, 0, 2.0], [0, 0, 5.0, -1.0], [3.0, 0, 0, 0]]))
    values = np.stack([A.data, 10 * A.data])
    row_a, row_b, val_a, val_b = columns_of(3, A.indptr, A.indices, values)
    assert row_a.tolist() == [0, 3, 1, 0] and row_b.tolist() == [2, 3, 3, 1]
    assert val_a.tolist() == [[1, 0, 5, 2], [10, 0, 50, 20]]
    assert val_b.tolist() == [[3, 0, 0, -1], [30, 0, 0, -10]]
    assert row_a.dtype == row_b.dtype == np.int32
    full = sp.csc_array(np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"column 0 has 3 entries, expected at most two"):
        columns_of(3, full.indptr, full.indices, full.data[None])
    empty = columns_of(2, np.zeros(1, np.int32), np.zeros(0, np.int32), np.zeros((1, 0)))
    assert [part.shape for part in empty] == [(0,), (0,), (1, 0), (1, 0)]
