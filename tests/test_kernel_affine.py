"""Alignment with affine gaps against Python's dynamic programming and against all paths of tiny instances."""

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

from lpdiff.kernels.affine import AffineAlignment, align_affine
from lpdiff.kernels.gaps import align

MOMENTS = ("pairs", "row_gaps", "col_gaps", "row_opens", "col_opens")
Given = tuple[np.ndarray, ...]  # costs, row_gap, col_gap, row_open, col_open
R, C, R_OPEN, C_OPEN = 1, 2, 3, 4  # moves, beside PAIR, in the order of the parameters


def instance(rng: np.random.Generator, size: int, n: int, m: int, kind: str) -> Given:
    given = tuple(numbers(rng, (size, *s), kind) for s in ((n, m), (n,), (m,), (n,), (m,)))
    if rng.random() < 0.5:  # gaps that are dear to open
        given[3][...] += 2.0
        given[4][...] += 2.0
    return given


def price(path: Any, given: Given, free: Any = NONE) -> float:
    """The least cost of a path: a symbol of a gap opens, or goes on where one of its kind was paid before."""
    total, before = 0.0, PAIR
    for move, i, j in path:
        if is_free(move, i, j, *given[0].shape, free):
            move = PAIR
        elif move == PAIR:
            total += given[0][i, j]
        else:
            at = i if move == ROW else j
            total += min(given[2 + move][at], given[move][at] if move == before else np.inf)
        before = move
    return total


def table(given: Given, free: Any = NONE, local: bool = False, band: Any = None) -> tuple[float, list[Any]]:
    """The value and the moves that the documented order of ties leads to."""
    W, row_gap, col_gap, row_open, col_open = given
    n, m = W.shape
    low, high = (n, m) if band is None else band
    H, rows, cols = (np.full((n + 1, m + 1), np.inf) for _ in range(3))
    of = [np.full((n + 1, m + 1), -1) for _ in range(3)]  # the candidate taken in H, R, C
    best, end = 0.0, (0, 0)
    for i, j in itertools.product(range(n + 1), range(m + 1)):
        if not -low <= j - i <= high:
            continue
        if i > 0:
            gratis = is_free(ROW, i - 1, j, n, m, free)
            opened = H[i - 1, j] + (0.0 if gratis else row_open[i - 1])
            further = np.inf if gratis else rows[i - 1, j] + row_gap[i - 1]
            rows[i, j], of[1][i, j] = min((opened, R_OPEN), (further, R), key=lambda x: x[0])
        if j > 0:
            gratis = is_free(COLUMN, i, j - 1, n, m, free)
            opened = H[i, j - 1] + (0.0 if gratis else col_open[j - 1])
            further = np.inf if gratis else cols[i, j - 1] + col_gap[j - 1]
            cols[i, j], of[2][i, j] = min((opened, C_OPEN), (further, C), key=lambda x: x[0])
        pair = H[i - 1, j - 1] + W[i - 1, j - 1] if i and j else 0.0 if i + j == 0 else np.inf
        H[i, j], of[0][i, j] = min((pair, PAIR), (rows[i, j], R), (cols[i, j], C), key=lambda x: x[0])
        if local and H[i, j] >= 0.0:
            H[i, j], of[0][i, j] = 0.0, -1
        if local and H[i, j] < best:
            best, end = H[i, j], (i, j)
    if not local:
        last = last_node(n, m, free, band)
        best, end = (np.inf, end) if last is None else (H[last], last)
    path: list[Any] = []
    (i, j), layer = end, 0
    while np.isfinite(best) and i + j > 0:
        if layer == 0:
            layer = int(of[0][i, j])
            if layer < 0:
                break
        move = int(of[layer][i, j]) if layer else PAIR
        i, j = i - (move not in (C, C_OPEN)), j - (move not in (R, R_OPEN))
        layer = move if move in (R, C) else 0
        path.append((move, i, j))
    return float(best), path[::-1]


def check(result: AffineAlignment, k: int, value: float, path: Any, m: int, shape: Any, free: Any) -> None:
    """An item's numbers are those of the path. m: the width of the costs."""
    assert result.value[k] == value and result.status[k] == (0 if np.isfinite(value) else 1)
    wanted: list[list[int]] = [[] for _ in MOMENTS]
    for move, i, j in path:
        if move == PAIR or not is_free(ROW if move in (R, R_OPEN) else COLUMN, i, j, *shape, free):
            wanted[move].append(i * m + j if move == PAIR else i if move in (R, R_OPEN) else j)
    for name, indices in zip(MOMENTS, wanted, strict=True):
        index, weight, count = (part[k] for part in getattr(result, name).arrays)
        beyond = [0] * (len(index) - len(indices))
        assert count == len(indices) and index.tolist() == indices + beyond
        assert weight.tolist() == [1.0] * len(indices) + beyond


@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
@pytest.mark.parametrize("band", [None, (0, 0), (1, 0), (1, 2)])
def test_values_are_the_best_of_all_paths(kind: str, band: Any) -> None:
    rng = np.random.default_rng(0)
    for n, m in itertools.product(range(4), repeat=2):
        batch = instance(rng, 1, n, m, kind)
        given = tuple(part[0] for part in batch)
        for free, local in [*((f, False) for f in FREE), (NONE, True)]:
            end = last_node(n, m, free, band)
            ways = all_paths(n, m) if local else paths(*end) if end else ()
            best = min((price(p, given, free) for p in ways if within(p, band)), default=np.inf)
            result = align_affine(*batch, free=free, local=local, band=band)
            assert result.value[0] == pytest.approx(best, abs=1e-12), (n, m, free, local)
            check(result, 0, *table(given, free, local, band), m, (n, m), free)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_paths_are_those_of_the_table(kind: str, dtype: Any) -> None:
    """Sizes around the eight lanes, in batches with lengths."""
    rng = np.random.default_rng(1)
    for _ in range(14):
        n, m, size = *(int(k) for k in rng.integers(0, 44, 2)), 3
        W, *gaps = instance(rng, size, n, m, kind)
        W = W.astype(dtype)
        lengths = rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)
        lengths[0][0], lengths[1][0] = n, m
        for k in range(size):  # nothing is read beyond the lengths
            W[k, lengths[0][k] :], W[k, :, lengths[1][k] :] = np.nan, np.nan
            for q, gap in enumerate(gaps):
                gap[k, lengths[q % 2][k] :] = np.nan
        band = None if rng.random() < 0.3 else around(rng, n, m)
        for free, local in ((FREE[rng.integers(16)], False), (NONE, True)):
            result = align_affine(W, *gaps, *lengths, free=free, local=local, band=band)
            for k, (a, b) in enumerate(zip(*lengths, strict=True)):
                cut = (W[k, :a, :b].astype(float), *(g[k, : (a, b)[q % 2]] for q, g in enumerate(gaps)))
                check(result, k, *table(cut, free, local, band), m, (a, b), free)


def test_gaps_that_cost_as_much_to_open_are_linear() -> None:
    rng = np.random.default_rng(2)
    W, rows, cols, _, _ = instance(rng, 5, 33, 29, "real")
    for how in ({}, {"free": (True, True, False, True)}, {"local": True}, {"band": (9, 7)}):
        linear, affine = align(W, rows, cols, **how), align_affine(W, rows, cols, rows, cols, **how)
        assert linear.value.tobytes() == affine.value.tobytes()
        assert (linear.row_gaps.count == affine.row_gaps.count + affine.row_opens.count).all()


def test_paths_along_the_edges_of_a_band() -> None:
    """What stands just outside it is never taken."""
    rng = np.random.default_rng(8)
    n = 37
    i, j = np.indices((n, n))
    for band in ((0, 0), (0, 3), (2, 17), (3, 0), (17, 1), (9, 9), (12, 9)):
        for edge in (-band[0], band[1]):  # costs that draw the path there
            W = rng.random((n, n)) + 0.2 * np.abs(j - i - edge)
            given = (W, *(rng.random((4, n)) / 4))
            result = align_affine(*(part[None] for part in given), band=band)
            check(result, 0, *table(given, band=band), n, (n, n), NONE)


def test_names_stand_for_columns() -> None:
    rng = np.random.default_rng(3)
    size, n, m, width = 6, 19, 23, 5
    _, *gaps = instance(rng, size, n, m, "real")
    costs, names = rng.normal(size=(size, n, width)), rng.integers(0, width, (size, m))
    lengths = rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)
    spelt = np.ascontiguousarray(np.take_along_axis(costs, names[:, None], 2))
    beyond = np.where(np.arange(m) < lengths[1][:, None], names, 99)  # not read
    for band in (None, (6, 9)):
        plain = align_affine(spelt, *gaps, *lengths, free=(True, False, True, True), band=band)
        named = align_affine(costs, *gaps, *lengths, names=beyond, free=(True, False, True, True), band=band)
        assert plain.value.tobytes() == named.value.tobytes()
        for k in range(size):
            count = plain.pairs.count[k]
            i, j = np.divmod(plain.pairs.index[k, :count], m)
            assert (named.pairs.index[k, :count] == i * width + names[k, j]).all()
    names[2, 3] = width
    assert align_affine(costs, *gaps, names=names).status.tolist() == [0, 0, 5, 0, 0, 0]


@pytest.mark.parametrize("local", [False, True])
def test_moments_are_the_derivative(local: bool) -> None:
    rng = np.random.default_rng(4)
    size, n, m = 8, 21, 17
    free = NONE if local else (False, True, True, False)
    given = [rng.normal(size=(size, *s)) for s in ((n, m), (n,), (m,), (n,), (m,))]
    ways = [rng.normal(size=g.shape) for g in given]

    def value(t: float) -> np.ndarray:
        moved = [g + t * d for g, d in zip(given, ways, strict=True)]
        return align_affine(*moved, free=free, local=local).value

    result = align_affine(*given, free=free, local=local)
    assert result.status.tolist() == [0] * size
    wanted = np.zeros(size)
    for name, way in zip(MOMENTS, ways, strict=True):
        flat = way.reshape(size, -1)
        wanted += [moments_of(result, name, k, flat.shape[1]) @ flat[k] for k in range(size)]
    np.testing.assert_allclose(slope(value), wanted, rtol=1e-6)


def test_an_items_bits_are_its_own() -> None:
    rng = np.random.default_rng(5)
    size, n, m = 40, 41, 47
    given = [numbers(rng, (size, *s), "ties") for s in ((n, m), (n,), (m,), (n,), (m,))]
    given += [rng.integers(0, n + 1, size), rng.integers(0, m + 1, size)]

    def bits(order: np.ndarray, threads: int) -> list[bytes]:
        result = align_affine(*(part[order] for part in given), threads=threads)
        parts = [result.value, result.status]
        for name in MOMENTS:
            parts += getattr(result, name).arrays
        back = np.argsort(order)
        return [part[back].tobytes() for part in parts]

    plain = bits(np.arange(size), 1)
    assert bits(np.arange(size), 3) == plain and bits(rng.permutation(size), 1) == plain
    shared = [given[0], *(g[:1] for g in given[1:5])]
    spread = [given[0], *(np.repeat(g[:1], size, 0) for g in given[1:5])]
    assert align_affine(*shared).value.tobytes() == align_affine(*spread).value.tobytes()


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
def test_what_is_no_cost_is_told(bad: float) -> None:
    """Wherever it stands, and nowhere where it is not read."""
    rng = np.random.default_rng(6)
    lengths, band = (np.array([17]), np.array([19])), (5, 4)
    given = instance(rng, 1, 18, 21, "real")
    for _ in range(150):
        which = rng.integers(5)
        place = tuple(rng.integers(0, size) for size in given[which].shape)
        spoilt = [g.copy() for g in given]
        spoilt[which][place] = bad
        for banded, local in itertools.product((False, True), repeat=2):
            result = align_affine(*spoilt, *lengths, local=local, band=band if banded else None)
            if which == 0:
                read = place[1] < 17 and place[2] < 19 and (not banded or -5 <= place[2] - place[1] <= 4)
            else:
                read = place[1] < (17, 19)[(which - 1) % 2]
            assert result.status[0] == (5 if read else 0), (which, place, banded, local)
            assert np.isnan(result.value[0]) == read


def test_refusals() -> None:
    W, rows, cols = np.zeros((2, 3, 4)), np.zeros((2, 3)), np.zeros((2, 4))
    with pytest.raises(ValueError, match=r"row_open: got .* \(1 or 2, 3\)"):
        align_affine(W, rows, cols, cols, cols)
    with pytest.raises(ValueError, match=r"col_open: .*float32"):
        align_affine(W, rows, cols, rows, cols.astype(np.float32))
    with pytest.raises(ValueError, match="free or local"):
        align_affine(W, rows, cols, rows, cols, free=(True, False, False, False), local=True)
