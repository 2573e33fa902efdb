"""Dynamic time warping against Python's dynamic programming and against all paths of tiny tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from alignments import around, moments_of, numbers, slope

from lpdiff.kernels import warping
from lpdiff.kernels.rows import CellPaths
from lpdiff.kernels.warping import SYMMETRIC, Steps, warp

STEPS: dict[str, Steps] = {
    "symmetric1": SYMMETRIC,
    "symmetric2": ((1, 1, 2.0), (1, 0, 1.0), (0, 1, 1.0)),
    "weighted": ((1, 1, 1.5), (1, 0, 0.5), (0, 1, 0.75)),
    "asymmetric": ((1, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0)),
    "long": ((2, 1, 1.5), (1, 1, 1.0), (1, 2, 1.25), (0, 3, 0.5)),
    "turned": ((0, 1, 1.0), (1, 1, 1.0), (3, 0, 1.0), (1, 0, 2.0)),
}
OPEN = list(itertools.product((False, True), repeat=2))


def continued(i: int, j: int, n: int, m: int, steps: Steps, ends: range, inside: Any) -> Iterator[Any]:
    """All paths on from cell (i, j) as ((i, j, weight), ...) of the cells entered."""
    if i == n - 1 and j in ends:
        yield ()
    for down, right, weight in steps:
        r, c = i + down, j + right
        if r < n and c < m and inside(r, c):
            for rest in continued(r, c, n, m, steps, ends, inside):
                yield ((r, c, weight), *rest)


def within(band: Any) -> Any:
    return lambda i, j: band is None or -band[0] <= j - i <= band[1]


def table(
    W: np.ndarray, steps: Steps, band: Any, open_begin: bool, open_end: bool
) -> tuple[float, list[tuple[int, int, float]]]:
    """The value and the path that the documented order of ties leads to."""
    n, m = W.shape
    inside, ordered = within(band), sorted(steps, key=lambda step: step[0] == 0)
    D, of = np.full((n, m), np.inf), np.full((n, m), -1)
    for i, j in itertools.product(range(n), range(m)):
        if not inside(i, j):
            continue
        if i == 0 and (j == 0 or open_begin):
            D[i, j] = W[i, j]
        for k, (down, right, weight) in enumerate(ordered):
            if i >= down and j >= right and D[i - down, j - right] + weight * W[i, j] < D[i, j]:
                D[i, j], of[i, j] = D[i - down, j - right] + weight * W[i, j], k
    j = int(np.argmin(D[-1])) if open_end else m - 1
    i, value = n - 1, float(D[-1, j])
    path: list[tuple[int, int, float]] = []
    while np.isfinite(value):
        down, right, weight = (0, 0, 1.0) if of[i, j] < 0 else ordered[of[i, j]]
        path.append((i, j, weight))
        if of[i, j] < 0:
            break
        i, j = i - down, j - right
    return value, path[::-1]


def check(result: CellPaths, k: int, value: float, path: Any, width: int) -> None:
    assert result.value[k] == value and result.status[k] == (0 if np.isfinite(value) else 1)
    index, weight, count = (part[k] for part in result.cells.arrays)
    beyond = [0] * (len(index) - len(path))
    assert count == len(path) and index.tolist() == [i * width + j for i, j, _ in path] + beyond
    assert weight.tolist() == [by for *_, by in path] + beyond


@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_values_are_the_best_of_all_paths(steps: Steps, kind: str) -> None:
    rng = np.random.default_rng(0)
    for n, m in itertools.product(range(1, 5), repeat=2):
        W = numbers(rng, (n, m), kind)
        for (begin, end), band in itertools.product(OPEN, (None, (0, 0), (1, 0), (1, 2))):
            inside, ends = within(band), range(0 if end else m - 1, m)
            best = min(
                (
                    sum((by * W[r, c] for r, c, by in rest), W[0, j])
                    for j in range(m if begin else 1)
                    if inside(0, j)
                    for rest in continued(0, j, n, m, steps, ends, inside)
                    if inside(*(rest[-1][:2] if rest else (0, j)))
                ),
                default=np.inf,
            )
            result = warp(W[None], steps=steps, band=band, open_begin=begin, open_end=end)
            assert result.value[0] == pytest.approx(best, abs=1e-12), (n, m, band, begin, end)
            check(result, 0, *table(W, steps, band, begin, end), m)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_paths_are_those_of_the_table(steps: Steps, kind: str, dtype: Any) -> None:
    """Sizes around the eight lanes, in batches with lengths."""
    rng = np.random.default_rng(1)
    for _ in range(8):
        n, m, size = *(int(k) for k in rng.integers(1, 44, 2)), 3
        W = numbers(rng, (size, n, m), kind).astype(dtype)
        lengths = rng.integers(1, n + 1, size), rng.integers(1, m + 1, size)
        lengths[0][0], lengths[1][0] = n, m
        for k in range(size):  # nothing is read beyond the lengths
            W[k, lengths[0][k] :], W[k, :, lengths[1][k] :] = np.nan, np.nan
        begin, end = OPEN[rng.integers(4)]
        band = None if rng.random() < 0.3 else around(rng, n, m)
        result = warp(W, *lengths, steps=steps, band=band, open_begin=begin, open_end=end)
        for k, (a, b) in enumerate(zip(*lengths, strict=True)):
            check(result, k, *table(W[k, :a, :b].astype(float), steps, band, begin, end), m)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
@pytest.mark.parametrize("steps", ["symmetric1", "symmetric2", "weighted"])
def test_eight_at_a_time(steps: str, kind: str, dtype: Any) -> None:
    """Whole tables side by side: each as the table, and to the bit as it is alone, among shorter ones too."""
    rng, given, size = np.random.default_rng(9), STEPS[steps], 21
    for n, m in ((1, 1), (1, 9), (9, 1), (13, 2), (17, 21)):
        W = numbers(rng, (size, n, m), kind).astype(dtype)
        lengths = np.full(size, n), np.full(size, m)
        lengths[0][10], lengths[1][10] = max(1, n - 1), max(1, m - 1)  # breaks the second eight
        result = warp(W, *lengths, steps=given)
        for k, (a, b) in enumerate(zip(*lengths, strict=True)):
            check(result, k, *table(W[k, :a, :b].astype(float), given, None, False, False), m)
            alone = warp(W[k : k + 1, :a, :b], steps=given)
            assert result.value[k : k + 1].tobytes() == alone.value.tobytes()


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
def test_one_of_eight_is_no_cost(bad: float) -> None:
    W = numbers(np.random.default_rng(10), (8, 6, 7), "real")
    plain = warp(W)
    for k, place in itertools.product((0, 5, 7), (0, 17, 41)):
        spoilt = W.copy()
        spoilt[k].flat[place] = bad
        result, others = warp(spoilt), np.arange(8) != k
        assert result.status.tolist() == [5 if e == k else 0 for e in range(8)]
        assert np.isnan(result.value[k]) and result.value[others].tobytes() == plain.value[others].tobytes()


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_paths_along_the_edges_of_a_band(steps: Steps) -> None:
    """What stands just outside it, from rows before, is never taken."""
    rng = np.random.default_rng(6)
    n = 37
    i, j = np.indices((n, n))
    for band in ((0, 0), (0, 3), (1, 5), (2, 17), (3, 0), (9, 2), (17, 1), (9, 9)):
        for edge in (-band[0], band[1]):  # costs that draw the path there
            W = rng.random((n, n)) + 0.2 * np.abs(j - i - edge)
            check(warp(W[None], steps=steps, band=band), 0, *table(W, steps, band, False, False), n)


def test_strips_and_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two ways through the same table: the same bits."""
    rng = np.random.default_rng(2)
    W = numbers(rng, (3, 70, 53), "ties")
    how = [{"band": band, "open_begin": b, "open_end": e} for band in (None, (20, 9)) for b, e in OPEN]
    for steps in (SYMMETRIC, STEPS["symmetric2"]):
        strips = [warp(W, steps=steps, **one) for one in how]
        with monkeypatch.context() as patch:
            patch.setattr(warping, "SYMMETRIC", ())
            by_row = [warp(W, steps=steps, **one) for one in how]
        for a, b in zip(strips, by_row, strict=True):
            for x, y in zip((a.value, *a.cells.arrays), (b.value, *b.cells.arrays), strict=True):
                assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_moments_are_the_derivative(steps: Steps) -> None:
    rng = np.random.default_rng(3)
    W, way = rng.normal(size=(8, 21, 30)), rng.normal(size=(8, 21, 30))
    result = warp(W, steps=steps, open_end=True)
    assert result.status.tolist() == [0] * 8
    wanted = [moments_of(result, "cells", k, 630) @ way[k].ravel() for k in range(8)]
    found = slope(lambda t: warp(W + t * way, steps=steps, open_end=True).value)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("steps", [SYMMETRIC, STEPS["asymmetric"]])
def test_an_items_bits_are_its_own(steps: Steps) -> None:
    rng = np.random.default_rng(4)
    size, n, m = 60, 61, 47
    W = numbers(rng, (size, n, m), "ties")
    lengths = rng.integers(1, n + 1, size), rng.integers(1, m + 1, size)

    def bits(order: np.ndarray, threads: int) -> list[bytes]:
        given = (W[order], lengths[0][order], lengths[1][order])
        result = warp(*given, steps=steps, open_end=True, threads=threads)
        back = np.argsort(order)
        return [part[back].tobytes() for part in (result.value, result.status, *result.cells.arrays)]

    plain = bits(np.arange(size), 1)
    assert bits(np.arange(size), 3) == plain and bits(rng.permutation(size), 1) == plain
    turned = warp(np.asfortranarray(W), *lengths, steps=steps, open_end=True)
    assert turned.value.tobytes() == plain[0]


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
@pytest.mark.parametrize("steps", [SYMMETRIC, STEPS["long"]])
def test_what_is_no_cost_is_told(steps: Steps, bad: float) -> None:
    """Wherever it stands, and nowhere where it is not read."""
    rng = np.random.default_rng(5)
    W, lengths = rng.normal(size=(1, 20, 22)), (np.array([17]), np.array([19]))
    for i, j in rng.integers(0, (20, 22), (150, 2)):
        spoilt = W.copy()
        spoilt[0, i, j] = bad
        for band in (None, (5, 4)):
            result = warp(spoilt, *lengths, steps=steps, band=band)
            read = i < 17 and j < 19 and (band is None or -5 <= j - i <= 4)
            assert result.status[0] == (5 if read else 0), (i, j, band)
            assert np.isnan(result.value[0]) == read


def test_a_long_band_is_narrow() -> None:
    """Work and memory go with the band, not with the table."""
    n = 2500
    W = np.broadcast_to(np.float32(0.5), (1, n, n)).copy()
    W[0, np.arange(n), np.arange(n)] = 0.25
    for steps in (SYMMETRIC, STEPS["asymmetric"]):
        result = warp(W, steps=steps, band=(3, 3))
        assert result.value[0] == 0.25 * n
    assert warp(W, rows=np.array([n - 5]), band=(3, 3)).status[0] == 1


def test_refusals() -> None:
    W = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="rows: got 0 to 1; give 1 to 3"):
        warp(W, np.array([0, 1]))
    with pytest.raises(ValueError, match="columns: got int32"):
        warp(W, None, np.array([1, 2], np.int32))
    with pytest.raises(ValueError, match="band: got"):
        warp(W, band=(1, -2))
    with pytest.raises(ValueError, match="costs: got"):
        warp(W[0])
    for step in ((0, 0, 1.0), (-1, 1, 1.0), (1, -1, 1.0), (1, 1, 0.0), (1, 1, np.inf), (1, 1, np.nan)):
        with pytest.raises(ValueError, match="steps: got"):
            warp(W, steps=(step,))
