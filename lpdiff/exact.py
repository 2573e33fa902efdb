"""Whether a vertex is exact to rounding, condition by condition.

A tolerance beside the value, or beside the largest numbers, is all that can be asked of an interior point. It
is not enough for a vertex: beside a cost of 1, or a common cost of 1e6, a wrong vertex hides in any. But a
vertex is exact to rounding, so that each condition can be judged by itself. With d = c - A'y the gap is

    sum(d+ (x - l) + d- (u - x)) + sum(y+ (Ax - rl) + y- (ru - Ax)),

and term by term either x_j stands at the bound that the sign of d_j asks for, or d_j is zero to rounding.
Every violation and every wrong sign counts against the numbers of its own row, bound or column. Rounding has
a floor, since a vertex is the solution of linear equations: beside the largest number of an item (1e-12 of
it), in the units of the row at hand, nothing can be told from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .standard import Data, StandardForm

__all__ = ["NOISE", "Residuals", "exact"]

# Magnitudes below this (relative) cannot be told from rounding.
NOISE = 1e-13

# A vertex may miss its own bound, side or reduced cost by this (relative): numbers of the LP that differ by
# less count as equal.
_OWN = 1e-9

# What solving for a vertex leaves, beside the largest number: rounding times a condition number.
_FLOOR = 1e-12


def exact(form: StandardForm, data: Data, found: Residuals, wanted: np.ndarray) -> np.ndarray:
    """Whether the vertices are exact: (B,) bool; only ``wanted`` items are looked at closely."""
    fine = _within_rounding(form, data, found)
    doubtful = np.flatnonzero(wanted & ~fine)
    if len(doubtful):
        fine[doubtful] = _one_by_one(form, data.take(doubtful), found.take(doubtful))
    return fine


@dataclass(frozen=True, eq=False)
class Residuals:
    """What the conditions are computed from, (B, n) or (B, m) each."""

    x: np.ndarray
    y: np.ndarray
    d: np.ndarray  # 0 where basic
    activity: np.ndarray
    off_bounds: np.ndarray
    off_rows: np.ndarray
    wrong_sign: np.ndarray

    def take(self, items: np.ndarray) -> Residuals:
        return Residuals(*(array[items] for array in vars(self).values()))

    def away(self, data: Data) -> tuple[np.ndarray, np.ndarray]:
        """How far variables and rows stand from the finite side that the sign of their dual asks for."""
        return (
            _away(self.x, self.d, data.lower, data.upper),
            _away(self.activity, self.y, data.row_lower, data.row_upper),
        )

    def floors(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What rounding leaves of variables, and of rows; ``rows``: the largest entry of each, (1|B, m)."""
        most = _max(np.abs(self.x))[:, None]
        return _FLOOR * most, _FLOOR * np.minimum(rows * most, _max(np.abs(self.activity))[:, None])


def _within_rounding(form: StandardForm, data: Data, found: Residuals) -> np.ndarray:
    """A cheap bound that most vertices meet: nothing is left but rounding of the largest numbers."""
    floors, (columns, rows) = found.floors(_largest_by_row(form, data)), found.away(data)
    return (
        np.all(np.maximum(found.off_bounds, columns) <= floors[0], axis=1)
        & np.all(np.maximum(found.off_rows, rows) <= floors[1], axis=1)
        & (_max(found.wrong_sign) <= _FLOOR * _max(np.abs(data.c)))
    )


def _one_by_one(form: StandardForm, data: Data, found: Residuals) -> np.ndarray:
    """Each violation, wrong sign and complementarity against the numbers of its own row, bound or column."""
    floor, off_row = found.floors(_largest_by_row(form, data))
    off_row = off_row + NOISE * form.times(np.abs(data.values), np.abs(found.x))
    size = np.abs(data.c) + form.transposed_times(np.abs(data.values), np.abs(found.y))
    zero = _OWN * size + _FLOOR * _max(np.abs(data.c))[:, None]
    no_price = _FLOOR * _max(np.abs(found.y))[:, None]
    ok = np.all(found.wrong_sign <= zero, axis=1)
    away = found.away(data)
    for point, off, gone, slack, tied, lower, upper in (
        (found.x, found.off_bounds, away[0], floor, np.abs(found.d) <= zero, data.lower, data.upper),
        (
            *(found.activity, found.off_rows, away[1], off_row, np.abs(found.y) <= no_price),
            *(data.row_lower, data.row_upper),
        ),
    ):
        # The nearer side is the one that is violated, or that the point stands at.
        nearer = np.where(np.abs(point - lower) <= np.abs(upper - point), np.abs(lower), np.abs(upper))
        ok &= np.all(off <= _OWN * nearer + slack, axis=1)
        ok &= np.all(tied | (gone <= _OWN * nearer + slack), axis=1)
    return ok


def _max(array: np.ndarray) -> np.ndarray:
    return array.max(axis=1, initial=0.0)


def _away(point: np.ndarray, dual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    side = np.where(dual > 0, lower, upper)
    return np.where((dual != 0) & np.isfinite(side), np.abs(point - side), 0.0)


def _largest_by_row(form: StandardForm, data: Data) -> np.ndarray:
    """The largest entry of each row, (1|B, m); kept for the declared matrix."""
    declared = data.values is form.declared.values
    if declared and "largest by row" in form.derived:
        known: np.ndarray = form.derived["largest by row"]
        return known
    order, start, _ = form._by_row
    sizes = np.pad(np.abs(data.values[:, order]), ((0, 0), (0, 1)))
    largest = np.maximum.reduceat(sizes, start[:-1], axis=1) if form.m else np.zeros((len(sizes), 0))
    largest = np.where(np.diff(start) > 0, largest, 0.0)
    if declared:
        form.derived["largest by row"] = largest
    return largest
