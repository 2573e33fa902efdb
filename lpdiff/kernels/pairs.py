"""Bipartite matching over dense costs as users hold them: padded, masked, float32, longer on either side.

    match(costs, rows, columns, mode, ...) -> Matching

Of the pairs (i, j) of an item's rows and columns, with costs c_ij (+inf forbids a pair),

    FULL    every one of the smaller side is matched, at the least cost;
    FREE    none need be: row i costs p_i and column j costs q_j where it is left out;
    EXACT   exactly k pairs are made, the cheapest k that can be made together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..batch import run_spans, threads_for
from .bipartite import EXACT, FREE, FULL, KERNELS

__all__ = ["EXACT", "FREE", "FULL", "Matching", "match"]


class Matching(NamedTuple):
    """Optimal matchings.

    value: (B,) float64; +inf where there is none, NaN where a number was not a cost.
    status: (B,) int8, as ``lpdiff.Status``.
    places, weight: (B, most pairs) int64 and float64: the pairs as i * m + j, rows ascending, with weight 1;
        then zeros.
    rows_left, columns_left: FREE: (B, n) and (B, m), 1 where a row, a column is left out. Else (B, 0).
    """

    value: np.ndarray
    status: np.ndarray
    places: np.ndarray
    weight: np.ndarray
    rows_left: np.ndarray
    columns_left: np.ndarray


def match(
    costs: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    mode: int = FULL,
    *,
    pairs: np.ndarray | None = None,
    row_prices: np.ndarray | None = None,
    column_prices: np.ndarray | None = None,
    threads: int = 1,
) -> Matching:
    """Match a batch.

    Args:
        costs: (1|B, n, m) float64 or float32, C-contiguous. NaN, -inf and what is below -1e100 make
            an item INVALID.
        rows, columns: what an item has of them: (B, 2) int64, the first and how many; or (B, n + 2), (B, m
            + 2) int64, anything, how many, then 1 where there is one. Nothing else is read.
        pairs: EXACT: (B,) int64.
        row_prices, column_prices: FREE: (1|B, n) and (1|B, m) float64.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    size, (shared, n, m) = len(rows), costs.shape
    if costs.dtype not in KERNELS or shared not in (1, size):
        raise ValueError(
            f"costs: got {costs.dtype} {costs.shape}; give (1 or {size}, n, m), float64 or float32"
        )
    for name, given, count in (("rows", rows, n), ("columns", columns, m)):
        if given.shape not in ((size, 2), (size, count + 2)) or given.dtype != np.int64:
            raise ValueError(
                f"{name}: got {given.dtype} {given.shape}; give ({size}, 2) or ({size}, {count + 2}) int64"
            )
    none = np.zeros((1, 0))
    prices = [none if p is None else p for p in (row_prices, column_prices)]
    if mode == FREE and [p.shape[1] for p in prices] != [n, m]:
        raise ValueError(f"prices: got {[p.shape for p in prices]}; give (1 or {size}, {n}) and (..., {m})")
    wanted = np.zeros(size, np.int64) if pairs is None else pairs
    if len(wanted) != size:
        raise ValueError(f"pairs: got {len(wanted)} numbers; give {size}")
    least = min(n, m)
    most = int(min(rows[:, 1].max(initial=0), columns[:, 1].max(initial=0)))
    value, status = np.empty(size), np.empty(size, np.int8)
    places, weight = np.empty((size, most), np.int64), np.empty((size, most))
    left = [np.zeros((size, count if mode == FREE else 0)) for count in (n, m)]
    compiled, flat = KERNELS[costs.dtype], costs.reshape(shared, n * m)

    def work(start: int, stop: int) -> None:
        compiled(
            *(flat, n, m, mode, rows, columns, wanted, *prices),
            *(value, status, places, weight, *left, start, stop),
        )

    # One pass over all costs, and searches among as many agents.
    run_spans(size, threads_for(0.5 * size * n * m * (1 + least / 8), threads), work)
    return Matching(value, status, places, weight, *left)
