"""Alignment with linear gaps against Python's dynamic programming and against all paths of tiny instances."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from alignments import (
    COLUMN,
    FREE,
    NONE,
    PAIR,
    ROW,
    all_paths,
    around,
    is_free,
    last_node,
    moments_of,
    numbers,
    paths,
    slope,
    within,
)

from lpdiff.kernels.gaps import Alignment, align


def instance(
    rng: np.random.Generator, n: int, m: int, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return numbers(rng, (n, m), kind), numbers(rng, (n,), kind), numbers(rng, (m,), kind)


def price(path: Any, W: np.ndarray, rows: np.ndarray, cols: np.ndarray, free: Any = NONE) -> float:
    """The cost of a path, summed along it."""
    total = 0.0
    for move, i, j in path:
        if not is_free(move, i, j, *W.shape, free):
            total += W[i, j] if move == PAIR else rows[i] if move == ROW else cols[j]
    return total


def table(
    W: np.ndarray, rows: np.ndarray, cols: np.ndarray, free: Any = NONE, local: bool = False, band: Any = None
) -> tuple[float, list[tuple[int, int, int]]]:
    """The value and the path that the documented order of ties leads to."""
    n, m = W.shape
    low, high = (n, m) if band is None else band
    D, from_ = np.full((n + 1, m + 1), np.inf), np.full((n + 1, m + 1), -1)
    best, end = 0.0, (0, 0)
    for i, j in itertools.product(range(n + 1), range(m + 1)):
        if not -low <= j - i <= high:
            continue
        D[i, j] = 0.0 if i + j == 0 else np.inf
        for move, (r, c) in enumerate(((i - 1, j - 1), (i - 1, j), (i, j - 1))):
            if r >= 0 and c >= 0:
                candidate = D[r, c] + price([(move, r, c)], W, rows, cols, free)
                if candidate < D[i, j]:
                    D[i, j], from_[i, j] = candidate, move
        if local and D[i, j] >= 0.0:
            D[i, j], from_[i, j] = 0.0, -1
        if local and D[i, j] < best:
            best, end = D[i, j], (i, j)
    if not local:
        last = last_node(n, m, free, band)
        best, end = (np.inf, end) if last is None else (D[last], last)
    path: list[tuple[int, int, int]] = []
    i, j = end
    while np.isfinite(best) and from_[i, j] >= 0:
        move = int(from_[i, j])
        i, j = i - (move != COLUMN), j - (move != ROW)
        path.append((move, i, j))
    return float(best), path[::-1]


def check(
    result: Alignment, k: int, value: float, path: Any, m: int, shape: tuple[int, int], free: Any
) -> None:
    """An item's numbers are those of the path. m: the width of the costs."""
    assert result.value[k] == value and result.status[k] == (0 if np.isfinite(value) else 1)
    wanted: list[list[int]] = [[], [], []]
    for move, i, j in path:
        if not is_free(move, i, j, *shape, free):
            wanted[move].append(i * m + j if move == PAIR else i if move == ROW else j)
    for moments, indices in zip((result.pairs, result.row_gaps, result.col_gaps), wanted, strict=True):
        count = len(indices)
        assert moments.count[k] == count
        assert moments.index[k].tolist() == indices + [0] * (moments.index.shape[1] - count)
        assert moments.weight[k].tolist() == [1.0] * count + [0.0] * (moments.index.shape[1] - count)


@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
@pytest.mark.parametrize("band", [None, (0, 0), (1, 0), (1, 2)])
def test_values_are_the_best_of_all_paths(kind: str, band: Any) -> None:
    rng = np.random.default_rng(0)
    for n, m in itertools.product(range(4), repeat=2):
        W, rows, cols = instance(rng, n, m, kind)
        for free, local in [*((f, False) for f in FREE), (NONE, True)]:
            end = last_node(n, m, free, band)
            ways = all_paths(n, m) if local else paths(*end) if end else ()
            best = min((price(p, W, rows, cols, free) for p in ways if within(p, band)), default=np.inf)
            result = align(W[None], rows[None], cols[None], free=free, local=local, band=band)
            assert result.value[0] == pytest.approx(best, abs=1e-12), (n, m, free, local)
            value, path = table(W, rows, cols, free, local, band)
            check(result, 0, value, path, m, (n, m), free)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_paths_are_those_of_the_table(kind: str, dtype: Any) -> None:
    """Lengths around the eight lanes, one batch with lengths each."""
    rng = np.random.default_rng(1)
    for _ in range(14):
        n, m, size = *rng.integers(0, 44, 2), 4
        W, rows, cols = (numbers(rng, (size, *s), kind) for s in ((n, m), (n,), (m,)))
        W = W.astype(dtype)
        lengths = rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)
        lengths[0][:2], lengths[1][:2] = n, m
        for k in range(size):  # nothing is read beyond the lengths
            W[k, lengths[0][k] :], W[k, :, lengths[1][k] :] = np.nan, np.nan
            rows[k, lengths[0][k] :], cols[k, lengths[1][k] :] = np.nan, np.nan
        free = FREE[rng.integers(16)]
        band = None if rng.random() < 0.3 else around(rng, n, m)
        for free_, local in ((free, False), (NONE, True)):
            result = align(W, rows, cols, *lengths, free=free_, local=local, band=band)
            for k, (a, b) in enumerate(zip(*lengths, strict=True)):
                wanted = table(W[k, :a, :b].astype(float), rows[k, :a], cols[k, :b], free_, local, band)
                check(result, k, *wanted, m, (a, b), free_)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_eight_at_a_time(kind: str, dtype: Any) -> None:
    """Whole tables side by side: each as the table, and to the bit as it is alone, among shorter ones too."""
    rng = np.random.default_rng(9)
    for n, m, shared in ((1, 1, False), (1, 9, True), (13, 2, False), (17, 21, True), (26, 9, False)):
        size = 21
        W = numbers(rng, (size, n, m), kind).astype(dtype)
        rows, cols = (numbers(rng, (1 if shared else size, k), kind) for k in (n, m))
        lengths = np.full(size, n), np.full(size, m)
        lengths[0][10] = n - 1  # breaks the second eight
        result = align(W, rows, cols, *lengths)
        for k in range(size):
            a, e = lengths[0][k], 0 if shared else k
            check(result, k, *table(W[k, :a].astype(float), rows[e, :a], cols[e]), m, (a, m), NONE)
        alone = []
        for k in range(8):
            own = slice(0, 1) if shared else slice(k, k + 1)
            alone.append(align(W[k : k + 1], rows[own], cols[own]))
        assert result.value[:8].tobytes() == b"".join(one.value.tobytes() for one in alone)


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
def test_one_of_eight_is_no_cost(bad: float) -> None:
    rng = np.random.default_rng(10)
    for which, k in itertools.product(range(3), (0, 5, 7)):
        given = [numbers(rng, (8, *s), "real") for s in ((6, 7), (6,), (7,))]
        plain = align(*given)
        given[which][k].flat[3] = bad
        result = align(*given)
        assert result.status.tolist() == [5 if e == k else 0 for e in range(8)]
        others = np.arange(8) != k
        assert np.isnan(result.value[k]) and result.value[others].tobytes() == plain.value[others].tobytes()


def test_paths_along_the_edges_of_a_band() -> None:
    """What stands just outside it is never taken."""
    rng = np.random.default_rng(8)
    n = 37
    i, j = np.indices((n, n))
    for band in ((0, 0), (0, 3), (2, 17), (3, 0), (17, 1), (9, 9), (12, 9)):
        for edge in (-band[0], band[1]):  # costs that draw the path there
            W, (rows, cols) = rng.random((n, n)) + 0.2 * np.abs(j - i - edge), rng.random((2, n)) / 4
            result = align(W[None], rows[None], cols[None], band=band)
            check(result, 0, *table(W, rows, cols, band=band), n, (n, n), NONE)


def test_names_stand_for_columns() -> None:
    rng = np.random.default_rng(2)
    size, n, m, width = 6, 19, 23, 5
    costs, rows, cols = (numbers(rng, (size, *s), "real") for s in ((n, width), (n,), (m,)))
    names = rng.integers(0, width, (size, m))
    lengths = rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)
    spelt = np.ascontiguousarray(np.take_along_axis(costs, names[:, None], 2))
    beyond = np.where(np.arange(m) < lengths[1][:, None], names, -7)  # not read
    for band in (None, (6, 9)):
        plain = align(spelt, rows, cols, *lengths, free=(True, False, True, True), band=band)
        named = align(costs, rows, cols, *lengths, names=beyond, free=(True, False, True, True), band=band)
        assert plain.value.tobytes() == named.value.tobytes()
        for k in range(size):
            count = plain.pairs.count[k]
            i, j = np.divmod(plain.pairs.index[k, :count], m)
            assert (named.pairs.index[k, :count] == i * width + names[k, j]).all()
    shared = align(costs, rows, cols, names=names[:1])
    for k in range(size):
        one = align(costs[k : k + 1], rows[k : k + 1], cols[k : k + 1], names=names[:1])
        assert one.value[0] == shared.value[k]
    names[2, 3], names[4, 1] = width, -1
    status = align(costs, rows, cols, names=names).status
    assert status.tolist() == [0, 0, 5, 0, 5, 0]


@pytest.mark.parametrize("local", [False, True])
def test_moments_are_the_derivative(local: bool) -> None:
    rng = np.random.default_rng(3)
    size, n, m = 8, 21, 17
    free = NONE if local else (False, True, True, False)
    given = [numbers(rng, (size, *s), "real") for s in ((n, m), (n,), (m,))]
    ways = [numbers(rng, g.shape, "real") for g in given]

    def value(t: float) -> np.ndarray:
        return align(*(g + t * d for g, d in zip(given, ways, strict=True)), free=free, local=local).value

    result = align(*given, free=free, local=local)
    wanted = np.zeros(size)
    for name, way in zip(("pairs", "row_gaps", "col_gaps"), ways, strict=True):
        flat = way.reshape(size, -1)
        wanted += [moments_of(result, name, k, flat.shape[1]) @ flat[k] for k in range(size)]
    np.testing.assert_allclose(slope(value), wanted, rtol=1e-6)


def test_an_items_bits_are_its_own() -> None:
    rng = np.random.default_rng(4)
    size, n, m = 40, 61, 47
    W, rows, cols = (numbers(rng, (size, *s), "ties") for s in ((n, m), (n,), (m,)))
    lengths = rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)

    def bits(order: np.ndarray, threads: int) -> list[bytes]:
        r = align(W[order], rows[order], cols[order], lengths[0][order], lengths[1][order], threads=threads)
        parts = (r.value, r.status, *r.pairs.arrays, *r.row_gaps.arrays, *r.col_gaps.arrays)
        back = np.argsort(order)
        return [part[back].tobytes() for part in parts]

    plain = bits(np.arange(size), 1)
    assert bits(np.arange(size), 3) == plain and bits(rng.permutation(size), 1) == plain
    turned = np.asfortranarray(W)
    assert align(turned, rows, cols, *lengths).value.tobytes() == plain[0]


def test_shared_numbers() -> None:
    rng = np.random.default_rng(5)
    W, rows, cols = (numbers(rng, s, "real") for s in ((3, 9, 11), (1, 9), (1, 11)))
    spread = align(W, np.repeat(rows, 3, 0), np.repeat(cols, 3, 0))
    shared = align(W, rows, cols)
    assert spread.value.tobytes() == shared.value.tobytes()


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
def test_what_is_no_cost_is_told(bad: float) -> None:
    """Wherever it stands, and nowhere where it is not read."""
    rng = np.random.default_rng(6)
    n, m, lengths = 18, 21, (np.array([17]), np.array([19]))
    given = [numbers(rng, (1, *s), "real") for s in ((n, m), (n,), (m,))]
    band = (5, 4)
    for _ in range(150):
        which = rng.integers(3)
        place = tuple(rng.integers(0, size) for size in given[which].shape)
        spoilt = [g.copy() for g in given]
        spoilt[which][place] = bad
        for banded in (False, True):
            for local in (False, True):
                result = align(*spoilt, *lengths, local=local, band=band if banded else None)
                if which == 0:
                    read = place[1] < 17 and place[2] < 19
                    read &= not banded or -5 <= place[2] - place[1] <= 4
                else:
                    read = place[1] < (17, 19)[which - 1]
                assert result.status[0] == (5 if read else 0), (which, place, banded, local)
                assert np.isnan(result.value[0]) == read
                if read:
                    assert not result.pairs.count.any() and not result.row_gaps.weight.any()


def test_forbidden_steps() -> None:
    W, gap = np.full((2, 3, 3), np.inf), np.full((2, 3), np.inf)
    W[1, [0, 1, 2], [0, 1, 2]] = 1.0
    result = align(W, gap, gap)
    assert result.value.tolist() == [np.inf, 3.0] and result.status.tolist() == [1, 0]
    assert align(W, gap, gap, free=(True, False, False, True)).value.tolist() == [0.0, 0.0]
    assert align(W, gap, gap, local=True).value.tolist() == [0.0, 0.0]


def test_a_long_band_is_narrow() -> None:
    """Work and memory go with the band: all nodes would be 4e10."""
    n = 200_000
    rng = np.random.default_rng(7)
    costs = np.broadcast_to(rng.random((1, 1, 1)), (1, n, 1))
    gap = np.full((1, n), 0.25)
    result = align(costs, gap, gap, names=np.zeros((1, n), np.int64), band=(3, 3))
    assert result.value[0] == pytest.approx(n * min(costs[0, 0, 0], 0.5))


def test_refusals() -> None:
    W, gap = np.zeros((2, 3, 4)), np.zeros((2, 4))
    rows = gap[:, :3].copy()
    for wrong in (W[0], W.astype(int), W.astype(np.float16)):
        with pytest.raises(ValueError, match="give"):
            align(wrong, rows, gap)
    with pytest.raises(ValueError, match=r"row_gap: got .* \(1 or 2, 3\)"):
        align(W, gap, gap)
    with pytest.raises(ValueError, match=r"col_gap: .*float32"):
        align(W, rows, gap.astype(np.float32))
    with pytest.raises(ValueError, match="rows: got 0 to 4; give 0 to 3"):
        align(W, rows, gap, np.array([0, 4]))
    with pytest.raises(ValueError, match="columns: got -1 to 2; give 0 to 4"):
        align(W, rows, gap, None, np.array([-1, 2]))
    with pytest.raises(ValueError, match="columns: got int32"):
        align(W, rows, gap, None, np.array([1, 2], np.int32))
    with pytest.raises(ValueError, match="free or local"):
        align(W, rows, gap, free=(True, False, False, False), local=True)
    with pytest.raises(ValueError, match="band: got"):
        align(W, rows, gap, band=(-1, 2))
    with pytest.raises(ValueError, match="names: got"):
        align(W, rows, gap, names=np.zeros((3, 4), np.int64))
