"""What the alignment kernels share: strips of eight rows, one step aside from each other, and moments.

A table whose entries depend on their left, upper and diagonal neighbours is filled eight rows at a time. In
step s of a strip, lane r holds row i + r and column s - r, so that its three neighbours are

    left      what it held one step before,
    upper     what the lane above it held one step before,
    diagonal  what the lane above it held two steps before,

and all eight lanes move at once, without waiting for each other. The row above the strip enters at the first
lane, and what the last lane leaves behind is the row above the next strip. A comparison between candidates is
a bit a cell, eight of them a byte: that is all the memory a path is traced back from.

A band, and the ends of rows, are bounds on the steps of a lane; outside them it holds +inf, which no minimum
takes. So candidates need no checks of their own.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import types

from .jit import inner, larger, smaller

__all__ = [
    "COLS_END",
    "COLS_START",
    "COSTS",
    "HUGE",
    "INACCURATE",
    "INFEASIBLE",
    "INVALID",
    "L1",
    "L1W",
    "L2",
    "L2W",
    "NOWHERE",
    "OPTIMAL",
    "ROWS_END",
    "ROWS_START",
    "TOLERANCE",
    "Moments",
    "allowed",
    "band_of",
    "costs_of",
    "first_step",
    "free_bits",
    "known",
    "leading",
    "lengths_of",
    "of_border",
    "of_rows",
    "open_top",
    "parameter",
    "settle",
    "steps",
]

# Finite costs above are refused, so that no sum of costs overflows.
HUGE = 1e290

# As in ``lpdiff.Status``.
OPTIMAL, INFEASIBLE, INVALID, INACCURATE = 0, 1, 5, 6

# The path's own cost and the table's last entry are the same sum; this finds what is broken, not rounding.
TOLERANCE = 1e-9

# Bits of ``free``: ends that cost nothing.
ROWS_START, ROWS_END, COLS_START, COLS_END = 1, 2, 4, 8

NOWHERE = -100  # no column, whatever the lane

# Types of arrays: costs of either width, and int64 ones that are read or written.
COSTS = {
    np.dtype(name): types.Array(kind, 2, "C", readonly=True)
    for name, kind in (("float64", types.float64), ("float32", types.float32))
}
L1 = types.Array(types.int64, 1, "C", readonly=True)
L2 = types.Array(types.int64, 2, "C", readonly=True)
L1W, L2W = types.int64[::1], types.int64[:, ::1]


@dataclass(frozen=True, eq=False)
class Moments:
    """The derivative of a value in one parameter: how much of which entry the optimal path takes.

    index: (B, K) int64, flat within an item's parameter, in the order of the path; 0 beyond ``count``.
    weight: (B, K) float64; 0 beyond ``count``.
    count: (B,) int64.
    """

    index: np.ndarray
    weight: np.ndarray
    count: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.index, self.weight, self.count

    @classmethod
    def empty(cls, size: int, most: int) -> Moments:
        return cls(np.zeros((size, most), np.int64), np.zeros((size, most)), np.zeros(size, np.int64))


# -- arguments -----------------------------------------------------------------------------------------


def costs_of(costs: np.ndarray, names: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Costs as (1|B, n * V), and the column of costs that each column of the table has: (1|B, m) int64."""
    if costs.ndim != 3 or costs.dtype not in COSTS:
        raise ValueError(f"costs: got {costs.dtype} {costs.shape}; give (B, n, m), float64 or float32")
    size, n, width = costs.shape
    if names is None:
        names = np.arange(width)[None]
    elif names.ndim != 2 or names.dtype != np.int64 or len(names) not in (1, size):
        raise ValueError(f"names: got {names.dtype} {names.shape}; give (1 or {size}, m) int64")
    return np.ascontiguousarray(costs).reshape(size, n * width), np.ascontiguousarray(names)


def lengths_of(lengths: np.ndarray | None, size: int, most: int, what: str, least: int = 0) -> np.ndarray:
    """(B,) int64, each ``least`` to ``most``."""
    if lengths is None and most >= least:
        return np.full(size, most, np.int64)
    if lengths is None:
        lengths = np.full(size, most, np.int64)
    if lengths.shape != (size,) or lengths.dtype != np.int64:
        raise ValueError(f"{what}: got {lengths.dtype} {lengths.shape}; give ({size},) int64")
    if size and not (lengths.min() >= least and lengths.max() <= most):
        raise ValueError(f"{what}: got {lengths.min()} to {lengths.max()}; give {least} to {most}")
    return np.ascontiguousarray(lengths)


def parameter(values: np.ndarray, size: int, count: int, what: str) -> np.ndarray:
    """(1|B, count) float64."""
    if values.shape not in ((1, count), (size, count)) or values.dtype != np.float64:
        raise ValueError(f"{what}: got {values.dtype} {values.shape}; give (1 or {size}, {count}) float64")
    return np.ascontiguousarray(values)


def band_of(band: tuple[int, int] | None, n: int, m: int) -> tuple[int, int]:
    """How far below and above the diagonal the nodes of a table (n, m) go."""
    if band is None:
        return n, m
    low, high = band
    if low < 0 or high < 0:
        raise ValueError(f"band: got {band}; give (low, high), both >= 0: nodes with -low <= j - i <= high")
    return min(int(low), n), min(int(high), m)


def free_bits(free: tuple[bool, bool, bool, bool], local: bool) -> int:
    """The ends that cost nothing: start and end of the rows, start and end of the columns."""
    if local and any(free):
        raise ValueError("free: local alignments have no ends to leave out; give free or local, not both")
    return sum(bit << k for k, bit in enumerate(map(bool, free)))


# -- in kernels ----------------------------------------------------------------------------------------


@inner
def allowed(numbers, count):
    """Whether the first ``count`` numbers are costs: finite and not huge, or +inf."""
    fine = True
    for k in range(count):
        fine &= (abs(numbers[k]) < HUGE) | (numbers[k] == np.inf)
    return fine


@inner
def known(names, count, width):
    """Whether the first ``count`` names are columns of the costs."""
    fine = True
    for k in range(count):
        fine &= (names[k] >= 0) & (names[k] < width)
    return fine


@inner
def first_step(i, low):
    """The first step of the strip that begins with row i: where its first lane enters the band."""
    return larger(i - low, np.int64(0))


@inner
def steps(m, low, high):
    """The most steps that a strip can have."""
    return smaller(m + 8, low + high + 15)


@inner
def settle(i, n, m, width, low, high, index):
    """For the lanes of nodes (i, .) to (i + 7, .), by lane:

    0 to 7: where the row of costs that leads to the node begins; 8 to 15: the same less the lane and 1, so
    that adding the step gives the pair's cost; 16 to 23 and 24 to 31: the steps between which it is inside.
    """
    for r in range(8):
        row = i + r
        index[r] = width * larger(smaller(row, n) - 1, np.int64(0))
        index[8 + r] = index[r] - r - 1
        index[16 + r] = r + larger(row - low, np.int64(0)) - 1
        index[24 + r] = r + smaller(m, row + high) + 1 if row <= n else -1


@inner
def of_rows(i, n, values, real, place):
    """What it costs to come down to node (i + r, .), by lane r."""
    for r in range(8):
        real[place + r] = values[i + r - 1] if 0 < i + r <= n else 0.0


@inner
def of_border(i, n, first, last, real, place):
    """1 in the lanes of the first and the last row of nodes where they are free."""
    for r in range(8):
        real[place + r] = 1.0 if (i + r == 0 and first) or (i + r == n and last) else 0.0


@inner
def leading(values, m, out):
    """Numbers of columns by the column of nodes that they lead to, 1 to m; beyond, any number of theirs."""
    for j in range(m + 8):
        out[j] = values[larger(smaller(j, m) - 1, np.int64(0))] if m > 0 else 0


@inner
def open_top(top, m):
    """The row above the table: nothing, from eight entries before column 0 to eight after column m."""
    for j in range(m + 17):
        top[j] = np.inf
