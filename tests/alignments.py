"""Oracles for alignment kernels: tables filled cell by cell in Python, and all paths of tiny instances."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np

PAIR, ROW, COLUMN = 0, 1, 2
NONE = (False,) * 4
FREE = list(itertools.product((False, True), repeat=4))
STEP = ((1, 1), (1, 0), (0, 1))
Path = tuple[tuple[int, int, int], ...]  # (move, i, j): a move that leaves node (i, j)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Costs: reals; small integers, which make ties; or those with some that are forbidden."""
    if kind == "real":
        return rng.normal(size=shape)
    values = rng.integers(-2, 4, size=shape).astype(float)
    if kind == "holes":
        values[rng.random(shape) < 0.3] = np.inf
    return values


def around(rng: np.random.Generator, n: int, m: int) -> tuple[int, int]:
    """A band that mostly holds the last node."""
    low, high = (int(k) for k in rng.integers(0, 16, 2))
    return (low, high) if rng.random() < 0.2 else (low + max(n - m, 0), high + max(m - n, 0))


def paths(n: int, m: int, i: int = 0, j: int = 0) -> Iterator[Path]:
    """All paths from node (i, j) to node (n, m)."""
    if (i, j) == (n, m):
        yield ()
    for move, (di, dj) in enumerate(STEP):
        if i + di <= n and j + dj <= m:
            for rest in paths(n, m, i + di, j + dj):
                yield ((move, i, j), *rest)


def all_paths(n: int, m: int) -> Iterator[Path]:
    """All paths between any two nodes, the empty one once."""
    yield ()
    for i, j in itertools.product(range(n + 1), range(m + 1)):
        for k, q in itertools.product(range(i, n + 1), range(j, m + 1)):
            if (i, j) != (k, q):
                yield from paths(k, q, i, j)


def last_node(n: int, m: int, free: tuple[bool, ...], band: tuple[int, int] | None) -> tuple[int, int] | None:
    """Where paths end: (n, m), or the last node of the band if that is a free end."""
    low, high = (n, m) if band is None else band
    i, j = min(n, m + low), min(m, n + high)
    return None if (i < n and not free[1]) or (j < m and not free[3]) else (i, j)


def within(path: Path, band: tuple[int, int] | None) -> bool:
    """Whether a path keeps to the band."""
    return band is None or all(
        -band[0] <= c - r <= band[1]
        for move, i, j in path
        for r, c in ((i, j), (i + STEP[move][0], j + STEP[move][1]))
    )


def is_free(move: int, i: int, j: int, n: int, m: int, free: tuple[bool, ...]) -> bool:
    """Whether a move along the border costs nothing."""
    if move == ROW:
        return (j == 0 and free[0]) or (j == m and free[1])
    return move == COLUMN and ((i == 0 and free[2]) or (i == n and free[3]))


def moments_of(result: object, name: str, k: int, size: int) -> np.ndarray:
    """One item's derivative in a parameter as a dense array; checks the padding."""
    index, weight, count = (part[k] for part in getattr(result, name).arrays)
    assert not index[count:].any() and not weight[count:].any()
    dense = np.zeros(size)
    np.add.at(dense, index, weight)
    return dense


def slope(value: Callable[[float], np.ndarray], step: float = 1e-6) -> np.ndarray:
    """The central difference at 0."""
    return (value(step) - value(-step)) / (2.0 * step)
