"""Monotonic alignment search and CTC's best path against all alignments of tiny instances."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from alignments import moments_of, numbers, slope

from lpdiff.kernels.monotonic import ctc_path, search
from lpdiff.kernels.rows import CellPaths


def check(result: CellPaths, k: int, value: float, labels: list[int], width: int) -> None:
    """An item takes these columns, one a frame."""
    assert result.value[k] == value and result.status[k] == (0 if np.isfinite(value) else 1)
    index, weight, count = (part[k] for part in result.cells.arrays)
    beyond = [0] * (len(index) - len(labels))
    assert count == len(labels)
    assert index.tolist() == [t * width + v for t, v in enumerate(labels)] + beyond
    assert weight.tolist() == [1.0] * len(labels) + beyond


def table(W: np.ndarray, begins: int, ends: int, skips: Any) -> tuple[float, list[int]]:
    """The value and the columns that the documented order of ties leads to; ``skips``: two are allowed."""
    n, m = W.shape
    D, of = np.full((n, m), np.inf), np.zeros((n, m), int)
    D[0, :begins] = W[0, :begins]
    for i, j in itertools.product(range(1, n), range(m)):
        for back in (1, 0, 2):
            if back <= j and (back < 2 or skips[j]) and D[i - 1, j - back] + W[i, j] < D[i, j]:
                D[i, j], of[i, j] = D[i - 1, j - back] + W[i, j], back
    j = max(m - ends, 0) + int(np.argmin(D[-1, max(m - ends, 0) :]))
    value, path = float(D[-1, j]), []
    for i in range(n - 1, -1, -1):
        path.append(j)
        j -= of[i, j]
    return value, path[::-1] if np.isfinite(value) else []


def states(W: np.ndarray, targets: np.ndarray, blank: int) -> tuple[float, list[int]]:
    """CTC by its 2S + 1 states: the value and the label of each frame."""
    labels = np.full(2 * len(targets) + 1, blank)
    labels[1::2] = targets
    skips = [u % 2 == 1 and u >= 3 and labels[u] != labels[u - 2] for u in range(len(labels))]
    value, path = table(W[:, labels], 2, 2, skips)
    return value, labels[path].tolist() if path else []


def merged(labels: tuple[int, ...], blank: int) -> list[int]:
    """Repetitions merged, blanks removed."""
    return [v for v, _ in itertools.groupby(labels) if v != blank]


@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_search_finds_the_best_of_all_alignments(kind: str) -> None:
    rng = np.random.default_rng(0)
    for n, m in itertools.product(range(1, 8), range(1, 6)):
        W = numbers(rng, (n, m), kind)
        best = np.inf
        for cuts in itertools.combinations(range(1, n), m - 1):
            taken = np.searchsorted(cuts, np.arange(n), side="right")
            best = min(best, float(sum(W[t, s] for t, s in enumerate(taken))))
        result = search(W[None])
        assert result.value[0] == pytest.approx(best, abs=1e-12)
        check(result, 0, *table(W, 1, 1, [False] * m), m)


@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_ctc_finds_the_best_of_all_labellings(kind: str) -> None:
    rng = np.random.default_rng(1)
    width = 3
    for n, S, blank in itertools.product(range(1, 6), range(4), range(width)):
        W = numbers(rng, (n, width), kind)
        targets = rng.choice([v for v in range(width) if v != blank], S)
        ways = (
            way for way in itertools.product(range(width), repeat=n) if merged(way, blank) == targets.tolist()
        )
        best = min((float(sum(W[t, v] for t, v in enumerate(way))) for way in ways), default=np.inf)
        result = ctc_path(W[None], targets[None], blank=blank)
        assert result.value[0] == pytest.approx(best, abs=1e-12)
        check(result, 0, *states(W, targets, blank), width)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["real", "ties", "holes"])
def test_paths_are_those_of_the_table(kind: str, dtype: Any) -> None:
    """Sizes around the eight lanes, in batches with lengths."""
    rng = np.random.default_rng(2)
    for _ in range(10):
        n, m, size, width = int(rng.integers(1, 60)), int(rng.integers(1, 30)), 3, 6
        W = numbers(rng, (size, n, m), kind).astype(dtype)
        lengths = rng.integers(1, n + 1, size), rng.integers(1, m + 1, size)
        lengths[0][0], lengths[1][0] = n, m
        for k in range(size):  # nothing is read beyond the lengths
            W[k, lengths[0][k] :], W[k, :, lengths[1][k] :] = np.nan, np.nan
        result = search(W, *lengths)
        for k, (a, b) in enumerate(zip(*lengths, strict=True)):
            check(result, k, *table(W[k, :a, :b].astype(float), 1, 1, [False] * b), m)
        costs = numbers(rng, (size, n, width), kind).astype(dtype)
        tokens = rng.integers(0, m + 1, size)
        targets = np.where(np.arange(m) < tokens[:, None], rng.integers(0, width - 1, (size, m)), -3)
        result = ctc_path(costs, targets, lengths[0], tokens, blank=width - 1)
        for k, (a, b) in enumerate(zip(lengths[0], tokens, strict=True)):
            check(result, k, *states(costs[k, :a].astype(float), targets[k, :b], width - 1), width)


def test_too_few_frames() -> None:
    W = np.zeros((3, 4, 5))
    found = search(W, np.array([4, 4, 3]), np.array([4, 5, 4]))
    assert found.status.tolist() == [0, 1, 1] and found.value.tolist() == [0.0, np.inf, np.inf]
    targets = np.array([[1, 2, 3, 4], [1, 1, 2, 4], [1, 1, 1, 4]])
    tokens = np.array([4, 3, 3])  # of which the second needs a blank, the third two
    assert ctc_path(W, targets, tokens=tokens).status.tolist() == [0, 0, 1]
    assert ctc_path(W, targets[:1], tokens=tokens).status.tolist() == [0, 0, 0]


def test_moments_are_the_derivative() -> None:
    rng = np.random.default_rng(3)
    W, way = rng.normal(size=(6, 40, 13)), rng.normal(size=(6, 40, 13))
    targets = rng.integers(1, 13, (6, 17))
    for solve in (search, lambda costs: ctc_path(costs, targets)):
        result = solve(W)
        assert result.status.tolist() == [0] * 6 and result.cells.count.tolist() == [40] * 6
        wanted = [moments_of(result, "cells", k, W[0].size) @ way[k].ravel() for k in range(6)]
        found = slope(lambda t, solve=solve: solve(W + t * way).value)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_an_items_bits_are_its_own() -> None:
    rng = np.random.default_rng(4)
    size, n, m = 60, 61, 27
    W, targets = numbers(rng, (size, n, m), "ties"), rng.integers(1, m, (size, 20))
    frames, tokens = rng.integers(1, n + 1, size), rng.integers(1, 21, size)

    def bits(order: np.ndarray, threads: int) -> list[bytes]:
        given = (frames[order], tokens[order])
        back, parts = np.argsort(order), []
        for result in (
            search(W[order], *given, threads=threads),
            ctc_path(W[order], targets[order], *given, threads=threads),
        ):
            parts += [part[back].tobytes() for part in (result.value, result.status, *result.cells.arrays)]
        return parts

    plain = bits(np.arange(size), 1)
    assert bits(np.arange(size), 3) == plain and bits(rng.permutation(size), 1) == plain


@pytest.mark.parametrize("bad", [np.nan, -np.inf, 1e300, -1e300])
def test_what_is_no_cost_is_told(bad: float) -> None:
    """Wherever it stands, and nowhere where it is not read."""
    rng = np.random.default_rng(5)
    W, targets = rng.normal(size=(1, 30, 21)), rng.integers(1, 21, (1, 9))
    frames, tokens = np.array([25]), np.array([7])
    labels = {0, *targets[0, :7].tolist()}
    for t, v in rng.integers(0, (30, 21), (150, 2)):
        spoilt = W.copy()
        spoilt[0, t, v] = bad
        for result, read in (
            (search(spoilt, frames, tokens), t < 25 and v < 7),
            (ctc_path(spoilt, targets, frames, tokens), t < 25 and int(v) in labels),
        ):
            assert result.status[0] == (5 if read else 0) and np.isnan(result.value[0]) == read
    assert ctc_path(W, np.array([[3, 21]])).status[0] == 5
    assert ctc_path(W, np.array([[3, -1]])).status[0] == 5


def test_refusals() -> None:
    W, targets = np.zeros((2, 3, 4)), np.ones((2, 2), np.int64)
    with pytest.raises(ValueError, match="frames: got 0 to 1; give 1 to 3"):
        search(W, np.array([0, 1]))
    with pytest.raises(ValueError, match="tokens: got 0 to 1; give 1 to 4"):
        search(W, None, np.array([0, 1]))
    with pytest.raises(ValueError, match="tokens: got 0 to 3; give 0 to 2"):
        ctc_path(W, targets, None, np.array([0, 3]))
    with pytest.raises(ValueError, match="blank: got 4; give 0 to 3"):
        ctc_path(W, targets, blank=4)
    with pytest.raises(ValueError, match="names: got"):
        ctc_path(W, targets.astype(np.int32))
