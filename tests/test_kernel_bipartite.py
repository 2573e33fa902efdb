"""The kernels of bipartite matching and of bags against SciPy on whatever matrix says the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from lpdiff import Status
from lpdiff.kernels.bags import label
from lpdiff.kernels.pairs import EXACT, FREE, FULL, match

KINDS = ("uniform", "signed", "integers", "decimals", "equal", "spread", "near", "ranked", "forbidden")
OK, INFEASIBLE, INVALID, INACCURATE = (
    int(s) for s in (Status.OPTIMAL, Status.INFEASIBLE, Status.INVALID, Status.INACCURATE)
)


def draw(rng, kind, shape):
    if kind == "uniform":
        return rng.random(shape)
    if kind == "signed":
        return rng.normal(size=shape) * 10 - 3
    if kind == "integers":
        return rng.integers(-2, 3, size=shape).astype(float)
    if kind == "decimals":  # ties that rounding breaks
        return rng.integers(-4, 9, size=shape) * 0.1
    if kind == "equal":
        return np.full(shape, rng.integers(-3, 4) / 2.0)
    if kind == "spread":
        return 10.0 ** rng.uniform(-6, 6, shape) * rng.choice([-1.0, 1.0], shape)
    if kind == "near":
        return rng.integers(0, 4, size=shape) + 1e-11 * rng.normal(size=shape)
    if kind == "ranked":
        return np.multiply.outer(np.arange(shape[0], dtype=float), np.arange(shape[1], dtype=float))
    costs = rng.random(shape)
    return np.where(rng.random(shape) < rng.uniform(0, 0.8), np.inf, costs)


def whole(size, *sides):
    return [np.tile(np.array([[0, side]]), (size, 1)) for side in sides]


def some_members(rng, size, count):
    """Lengths, windows or masks with holes: what the kernel is given, and booleans."""
    how = rng.integers(3)
    if how == 2:
        there = rng.random((size, count)) < 0.7
        return np.column_stack([np.zeros(size, int), there.sum(1), there]).astype(np.int64), there
    first = rng.integers(0, count + 1, size) if how else np.zeros(size, int)
    much = rng.integers(0, count + 1 - first)
    place = np.arange(count)
    there = (place >= first[:, None]) & (place < (first + much)[:, None])
    return np.column_stack([first, much]).astype(np.int64), there


def best(costs):
    """SciPy's value of a matching of the smaller side; inf where there is none."""
    try:
        rows, columns = linear_sum_assignment(costs)
    except ValueError:
        return np.inf
    return costs[rows, columns].sum()


def best_free(costs, p, q):
    """Every row and column has a place of its own for being left out."""
    n, m = costs.shape
    own = [np.where(np.eye(k, dtype=bool), prices[:, None], np.inf) for k, prices in ((n, p), (m, q))]
    return best(np.block([[costs, own[0]], [own[1], np.zeros((m, n))]]))


def best_exact(costs, k):
    """n - k rows and m - k columns go to places that they cannot share."""
    n, m = costs.shape
    whole = np.block([[costs, np.zeros((n, n - k))], [np.zeros((m - k, m)), np.full((m - k, n - k), np.inf)]])
    return best(whole)


def check_pairs(found, item, costs, there):
    """The pairs are a matching of what is there, rows ascending, and cost what is said. Their number."""
    m = costs.shape[1]
    used = found.weight[item] == 1.0
    assert (found.weight[item][~used] == 0.0).all() and (found.places[item][~used] == 0).all()
    rows, columns = np.divmod(found.places[item][used], m)
    assert (np.diff(rows) > 0).all() and len(set(columns)) == len(columns)
    assert there[0][rows].all() and there[1][columns].all()
    return costs[rows, columns].sum(), rows, columns


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(3))
def test_all_ways_agree_with_scipy(seed, dtype):
    rng = np.random.default_rng(seed)
    counts = {OK: 0, INFEASIBLE: 0}
    for case in range(126):
        kind, mode = KINDS[case % len(KINDS)], case // len(KINDS) % 3
        n, m = (int(k) for k in rng.integers(1, 14, 2))
        size = 5
        costs = np.stack([draw(rng, kind, (n, m)) for _ in range(size)]).astype(dtype)
        if case % 4 == 3:
            costs[rng.random(costs.shape) < 0.6] = np.inf
        rows, has_row = some_members(rng, size, n)
        columns, has_column = some_members(rng, size, m)
        # What is not there is not read.
        costs[~(has_row[:, :, None] & has_column[:, None, :])] = np.nan
        p, q = rng.normal(size=(size, n)), rng.normal(size=(1, m))
        pairs = rng.integers(0, np.minimum(has_row.sum(1), has_column.sum(1)) + 1)
        more = {FULL: {}, FREE: {"row_prices": p, "column_prices": q}, EXACT: {"pairs": pairs}}[mode]
        found = match(costs, rows, columns, mode, threads=1 + case % 2, **more)
        for item in range(size):
            part = costs[item].astype(float)[np.ix_(has_row[item], has_column[item])]
            extra = 0.0
            if mode == FULL:
                expected, number = best(part), min(part.shape)
            elif mode == FREE:
                expected, number = best_free(part, p[item][has_row[item]], q[0][has_column[item]]), None
            else:
                expected, number = best_exact(part, int(pairs[item])), int(pairs[item])
            counts[int(found.status[item])] += 1
            if np.isinf(expected):
                assert found.status[item] == INFEASIBLE and found.value[item] == np.inf
                assert not found.weight[item].any()
                continue
            assert found.status[item] == OK, (kind, mode)
            there = (has_row[item], has_column[item])
            cost, i, j = check_pairs(found, item, costs[item].astype(float), there)
            assert number is None or len(i) == number
            if mode == FREE:
                left = [found.rows_left[item], found.columns_left[item]]
                for out, has, matched in zip(left, there, (i, j), strict=True):
                    inside = has.copy()
                    inside[matched] = False
                    np.testing.assert_array_equal(out, inside.astype(float))
                extra = left[0] @ p[item] + left[1] @ q[0]
            size_ = np.abs(part[np.isfinite(part)]).max(initial=1.0)
            assert found.value[item] == pytest.approx(cost + extra, rel=1e-12, abs=1e-12 * size_)
            assert found.value[item] == pytest.approx(expected, rel=1e-9, abs=1e-9 * size_)
    assert min(counts.values()) > 10


@pytest.mark.parametrize("shape", [(300, 20), (20, 300), (61, 7), (9, 9), (40, 40), (100, 97)])
def test_larger_ones(shape):
    rng = np.random.default_rng(1)
    for kind in ("uniform", "integers", "near", "decimals"):
        costs = np.stack([draw(rng, kind, shape) for _ in range(6)])
        if kind == "near":  # all rows want the same columns, as predictions do that have not learned yet
            costs += 3 * rng.random((6, 1, shape[1]))
        found = match(costs, *whole(6, *shape))
        assert (found.status == OK).all()
        np.testing.assert_allclose(found.value, [best(c) for c in costs], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["uniform", "integers", "equal", "forbidden", "huge"])
def test_many_places_and_targets_side_by_side(kind, dtype):
    """The pass that finds all agents' cheapest places: any window of targets, whatever is next to it."""
    rng = np.random.default_rng(9)
    for n, m in ((40, 8), (33, 9), (16, 13), (17, 16), (50, 24)):
        size = 30
        shape = (n, m)
        costs = np.stack(
            [1e30 * rng.random(shape) if kind == "huge" else draw(rng, kind, shape) for _ in range(size)]
        ).astype(dtype)
        first = rng.integers(0, m, size)
        columns = np.column_stack([first, rng.integers(0, m - first + 1)])
        _, has_row = some_members(rng, size, n)
        rows = np.concatenate([np.zeros((size, 1), int), has_row.sum(1)[:, None], has_row], 1)
        inside = (np.arange(m) >= first[:, None]) & (np.arange(m) < columns.sum(1)[:, None])
        there = has_row[:, :, None] & inside[:, None, :]
        costs[~there] = rng.choice([np.nan, -np.inf, np.inf], costs.shape)[~there]  # not read
        found = match(costs, rows, columns)
        for item in range(size):
            part = costs[item].astype(float)[np.ix_(has_row[item], inside[item])]
            expected = best(part)
            assert found.status[item] == (OK if expected < np.inf else INFEASIBLE)
            if expected < np.inf:
                cost, *_ = check_pairs(found, item, costs[item].astype(float), (has_row[item], inside[item]))
                assert found.value[item] == pytest.approx(cost, rel=1e-12)
                assert cost == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    costs = rng.integers(0, 4, (40, 30, 9)).astype(np.float32)
    rows, columns = np.column_stack([np.zeros(40, int), rng.integers(0, 31, 40)]), whole(40, 9)[0]
    first = match(costs, rows, columns)
    order = rng.permutation(40)
    for threads in (1, 2, 3):
        other = match(np.ascontiguousarray(costs[order]), rows[order], columns[order], threads=threads)
        for mine, theirs in zip(first, other, strict=True):
            assert mine[order].tobytes() == theirs.tobytes()


def test_shared_costs_and_nothing_at_all():
    costs = np.random.default_rng(3).random((1, 5, 4))
    rows = np.array([[0, 5], [1, 2], [0, 0]])
    found = match(costs, rows, whole(3, 4)[0])
    assert (found.status == OK).all() and found.value[2] == 0.0
    assert found.value[1] == pytest.approx(best(costs[0, 1:3]))
    for n, m in ((0, 3), (3, 0), (0, 0)):
        for mode, more in ((FULL, {}), (EXACT, {"pairs": np.zeros(2, np.int64)})):
            found = match(np.zeros((2, n, m)), *whole(2, n, m), mode, **more)
            assert found.places.shape == (2, 0) and (found.value == 0.0).all() and not found.status.any()
        prices = {"row_prices": np.ones((1, n)), "column_prices": np.ones((1, m))}
        found = match(np.zeros((2, n, m)), *whole(2, n, m), FREE, **prices)
        assert (found.value == n + m).all() and (found.rows_left == 1).all()
    assert len(match(np.zeros((0, 3, 3)), *whole(0, 3, 3)).value) == 0


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (6, 6), (5, 9), (33, 11), (18, 8)])
@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_what_is_no_cost_is_found(shape, wrong):
    rng = np.random.default_rng(4)
    for dtype in (np.float64, np.float32):
        costs = rng.random((shape[0] * shape[1], *shape)).astype(dtype)
        for item in range(len(costs)):  # wherever it is
            costs[item].flat[item] = wrong
        sides = whole(len(costs), *shape)
        found = match(costs, *sides)
        assert (found.status == INVALID).all() and np.isnan(found.value).all() and not found.weight.any()
        for mode, more in (
            (EXACT, {"pairs": np.ones(len(costs), np.int64)}),
            (FREE, {"row_prices": np.ones((1, shape[0])), "column_prices": np.ones((1, shape[1]))}),
        ):
            assert (match(costs, *sides, mode, **more).status == INVALID).all()
    prices = {"row_prices": np.full((1, shape[0]), wrong), "column_prices": np.ones((1, shape[1]))}
    assert match(rng.random((1, *shape)), *whole(1, *shape), FREE, **prices).status[0] == INVALID


def test_numbers_too_large_are_refused():
    costs = np.full((1, 3, 3), 1e150)
    assert match(costs, *whole(1, 3, 3)).status[0] == INACCURATE
    costs = np.full((1, 3, 9), 1e150)
    assert match(costs, *whole(1, 3, 9)).status[0] == INACCURATE


def test_arguments_are_checked():
    costs, sides = np.zeros((2, 3, 4)), whole(2, 3, 4)
    with pytest.raises(ValueError, match=r"costs: got int64 \(2, 3, 4\); give"):
        match(costs.astype(int), *sides)
    with pytest.raises(ValueError, match=r"rows: got int64 \(2, 3\); give \(2, 2\) or \(2, 5\)"):
        match(costs, np.zeros((2, 3), int), sides[1])
    with pytest.raises(ValueError, match="prices: got"):
        match(costs, *sides, FREE)
    with pytest.raises(ValueError, match="pairs: got 1 numbers; give 2"):
        match(costs, *sides, EXACT, pairs=np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"counts: got int64 \(2, 3\); give \(2, 4\)"):
        label(costs, sides[0], np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="items: got"):
        label(costs, np.zeros((2, 3), int), np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="log_probs: got"):
        label(costs.astype(int), sides[0], np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="unlabelled: got"):
        label(costs, sides[0], np.zeros((2, 4), int), np.zeros((2, 4)))


# -- bags -------------------------------------------------------------------------------------------------


def expanded(log_probs, counts, unlabelled=None):
    """A column for each label, and for each item that may be left."""
    costs = -log_probs[:, np.repeat(np.arange(len(counts)), counts)]
    spare = len(costs) - costs.shape[1]
    return costs if spare == 0 else np.hstack([costs, np.repeat(unlabelled[:, None], spare, 1)])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("seed", range(2))
def test_bags_agree_with_scipy(seed, dtype):
    rng = np.random.default_rng(seed)
    counts_of = {OK: 0, INFEASIBLE: 0}
    for case in range(72):
        kind = KINDS[case % len(KINDS)]
        n, classes, size = int(rng.integers(1, 16)), int(rng.integers(1, 12)), 5
        log_probs = -np.stack([draw(rng, kind, (n, classes)) for _ in range(size)]).astype(dtype)
        if case % 4 > 1:
            log_probs[rng.random(log_probs.shape) < 0.5] = -np.inf
        items, has = some_members(rng, size, n)
        spare = case % 2 == 1
        held = rng.integers(0, has.sum(1) + 1) if spare else has.sum(1)
        counts = np.stack([np.bincount(rng.integers(0, classes, k), minlength=classes) for k in held])
        log_probs[~has] = np.nan
        log_probs[(counts == 0)[:, None, :] & np.ones((1, n, 1), bool)] = np.nan
        unlabelled = rng.normal(size=(size, n)) if spare else None
        found = label(log_probs, items, counts, unlabelled, threads=1 + case % 3)
        for bag in range(size):
            p = log_probs[bag].astype(float)
            price = unlabelled[bag] if spare else np.zeros(n)
            expected = best(expanded(p[has[bag]], counts[bag], price[has[bag]]))
            counts_of[int(found.status[bag])] += 1
            if np.isinf(expected):
                assert found.status[bag] == INFEASIBLE and found.value[bag] == np.inf
                continue
            assert found.status[bag] == OK, kind
            used = found.weight[bag] == -1.0
            i, k = np.divmod(found.places[bag][used], classes)
            assert (np.diff(i) > 0).all() and has[bag][i].all()
            np.testing.assert_array_equal(np.bincount(k, minlength=classes), counts[bag])
            total = -p[i, k].sum()
            if spare:
                np.testing.assert_array_equal(
                    np.flatnonzero(found.left[bag]), np.setdiff1d(np.flatnonzero(has[bag]), i)
                )
                total += found.left[bag] @ price
            scale = np.abs(p[np.isfinite(p)]).max(initial=1.0)
            assert found.value[bag] == pytest.approx(total, rel=1e-12, abs=1e-12 * scale)
            assert found.value[bag] == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale)
    assert min(counts_of.values()) > 10


@pytest.mark.parametrize(("n", "classes"), [(64, 10), (50, 100), (33, 2)])
def test_larger_bags(n, classes):
    rng = np.random.default_rng(5)
    for log_probs in (rng.normal(size=(8, n, classes)), rng.integers(-2, 2, (8, n, classes)).astype(float)):
        counts = np.stack([np.bincount(rng.integers(0, classes, n), minlength=classes) for _ in range(8)])
        found = label(log_probs, whole(8, n)[0], counts, threads=2)
        assert (found.status == OK).all()
        expected = [best(expanded(*bag)) for bag in zip(log_probs, counts, strict=True)]
        np.testing.assert_allclose(found.value, expected, rtol=1e-12)
        order = rng.permutation(8)
        other = label(np.ascontiguousarray(log_probs[order]), whole(8, n)[0], counts[order])
        assert other.places.tobytes() == found.places[order].tobytes()


def test_bags_that_are_wrong():
    log_probs = np.zeros((6, 3, 2))
    log_probs[1, 2, 0], log_probs[2, 0, 1], log_probs[3, 1, 1] = np.nan, np.inf, np.nan
    counts = np.array([[1, 1], [2, 1], [2, 1], [3, 0], [2, 2], [3, 0]])
    log_probs[5] = -1e150
    found = label(log_probs, whole(6, 3)[0], counts)
    np.testing.assert_array_equal(found.status, [INFEASIBLE, INVALID, INVALID, OK, INFEASIBLE, INACCURATE])
    assert label(np.zeros((1, 0, 3)), whole(1, 0)[0], np.zeros((1, 3), int)).value[0] == 0.0
    assert label(np.zeros((1, 0, 0)), whole(1, 0)[0], np.zeros((1, 0), int)).value[0] == 0.0
