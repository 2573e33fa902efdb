"""The cheapest k of n numbers, against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from lpdiff.kernels.subset import choose

OK, INFEASIBLE, REFUSED = 0, 1, 6


def amounts(found, item, n):
    x = np.zeros(n)
    np.add.at(x, found.places[item], found.weight[item])
    return x


def by_sorting(costs, k, at_most):
    """The amounts: the cheapest first, of equals the first; None where there are too few."""
    x, left = np.zeros(len(costs)), k
    for j in np.argsort(costs, kind="stable"):
        if costs[j] < (0.0 if at_most else np.inf):
            x[j] = min(1.0, left)
            left -= x[j]
    return x if at_most or left <= 0.0 else None


def draw(rng, kind, n):
    match kind:
        case "real":
            return rng.normal(size=n)
        case "ties":
            return rng.integers(-2, 3, n).astype(float)
        case "holes":
            return np.where(rng.random(n) < 0.4, np.inf, rng.integers(-2, 3, n))
        case "sorted":
            return np.sort(rng.normal(size=n))[:: rng.choice([1, -1])]
        case _:
            return np.abs(np.arange(n) - n // 2).astype(float)


@pytest.mark.parametrize("at_most", [False, True])
@pytest.mark.parametrize("kind", ["real", "ties", "holes", "sorted", "pipe"])
def test_what_sorting_finds(kind, at_most):
    rng = np.random.default_rng(0)
    seen = set()
    for n in (1, 2, 3, 7, 30, 200):
        size = 12
        costs = np.stack([draw(rng, kind, n) for _ in range(size)])
        k = rng.integers(0, n + 1, size).astype(float)
        k[::2] = np.minimum(k[::2] + 0.25 * rng.integers(0, 4, size // 2), n)  # one is taken in part
        mask = (rng.random((size, n)) < 0.8).astype(np.int64)
        for given in (None, mask):
            spoilt = costs if given is None else np.where(given == 0, np.nan, costs)  # not read
            found = choose(spoilt, k, given, at_most=at_most)
            for item in range(size):
                own = costs[item] if given is None else np.where(given[item] == 0, np.inf, costs[item])
                expected = by_sorting(own, k[item], at_most)
                seen.add(int(found.status[item]))
                if expected is None:
                    assert found.status[item] == INFEASIBLE and found.value[item] == np.inf
                    assert not found.weight[item].any()
                    continue
                assert found.status[item] == OK
                assert amounts(found, item, n).tolist() == expected.tolist()
                taken = expected > 0
                assert found.value[item] == pytest.approx(own[taken] @ expected[taken], rel=1e-13, abs=1e-13)
                assert (np.diff(found.places[item][found.weight[item] > 0]) > 0).all()
    assert seen == ({OK} if at_most else {OK, INFEASIBLE})


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 1e30])
def test_what_is_no_cost_is_refused(wrong):
    costs = np.random.default_rng(1).normal(size=(9, 9))
    costs[np.arange(8), np.arange(8)] = wrong
    for at_most in (False, True):
        found = choose(costs, np.array([2.0]), at_most=at_most)
        assert found.status.tolist() == [REFUSED] * 8 + [OK]
        assert np.isnan(found.value[:8]).all() and not found.weight[:8].any()
    assert choose(costs[8:], np.array([np.nan])).status.tolist() == [REFUSED]


def test_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    costs, k = rng.normal(size=(40, 50)), rng.integers(0, 51, 40).astype(float)
    order = rng.permutation(40)
    first = choose(costs, k)
    for threads in (1, 2, 3):
        other = choose(costs[order], k[order], threads=threads)
        for mine, theirs in zip(first, other, strict=True):
            assert mine[order].tobytes() == theirs.tobytes()
    shared = choose(costs[:1], k)
    assert shared.value.tobytes() == choose(np.repeat(costs[:1], 40, 0), k).value.tobytes()
