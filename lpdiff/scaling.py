"""Units: small numbers are scaled up before a solve, and the solution back.

Solvers, and the certificate, compare with absolute tolerances (1e-7, 1e-6). An LP whose costs, or whose
sides, all lie near 1e-6 would be "solved" to no digit at all. With costs times s and sides times t

    min (s c)'x'   s.t.   t rl <= A x' <= t ru,   t l <= x' <= t u

has x' = t x, y' = s y, d' = s d, z' = s t z. Powers of two touch no mantissa, so nothing is rounded, and
an LP in other units (by a power of two) has the same solution to the bit.

Nothing is scaled down, since beside a big M that would make the other numbers small; nor what lies below
2^-30 in all, which is more likely the rounding of a zero than a number. Sides of integer programs stay.

Where an LP's own numbers differ by orders of magnitude, its small ones still drown in those tolerances. For
what was refused for that, the factors go up to 2^20 further, as long as nothing grows beyond 2^20; and where
entries of A are so small that solvers drop them (1e-9), or so large that they refuse them (1e15), rows and
columns are balanced, by powers of two again:  A~ = R A S,  x = S x~,  y = R y~.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .backend import BatchSolution
from .kkt import Judged
from .standard import Data, StandardForm
from .status import Status

__all__ = ["Balance", "Units"]

_LEAST = -30

# Entries of A beyond these are dropped, or refused, by solvers.
_TINY, _VAST = 1e-8, 1e15

_ROUNDS = 4  # of balancing; rows and columns in turn


@dataclass(frozen=True, eq=False)
class Units:
    """The factors of a batch."""

    cost: np.ndarray  # (1|B,) powers of two, >= 1
    side: np.ndarray  # (1|B,)

    @classmethod
    def of(cls, form: StandardForm, data: Data, more: int = 0) -> Units:
        """Factors that bring the largest cost and the largest finite side to at least 1/2.

        ``more``: and up to 2^more further, but nothing beyond 2^more.
        """
        one = np.ones(1)
        if form.is_mip:
            return cls(_factor(_largest(data.c), more), one)
        sides = [_largest(a) for a in (data.row_lower, data.row_upper, data.lower, data.upper)]
        return cls(
            _factor(_largest(data.c), more),
            _factor(np.maximum(np.maximum(sides[0], sides[1]), np.maximum(sides[2], sides[3])), more),
        )

    def enlarge(self, data: Data) -> Data:
        """The data in units in which they are not small; the same object where none are."""
        cost, side = self.cost[:, None], self.side[:, None]
        change_cost, change_side = bool((cost != 1).any()), bool((side != 1).any())
        if not (change_cost or change_side):
            return data
        sides = (data.row_lower, data.row_upper, data.lower, data.upper)
        return Data(
            data.c * cost if change_cost else data.c,
            data.values,
            *(a * side if change_side else a for a in sides),
        )

    def enlarge_solution(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A solution in the units of the enlarged data."""
        return x * self.side[:, None], y * self.cost[:, None]

    def restore(self, judged: Judged) -> None:
        """Put judged solutions of the enlarged data back into the user's units."""
        cost, side = self.cost, self.side
        if not ((cost != 1).any() or (side != 1).any()):
            return
        judged.x /= side[:, None]
        judged.y /= cost[:, None]
        judged.value /= cost * side
        judged.gap /= cost * side
        judged.primal_residual /= side
        judged.dual_residual /= cost


@dataclass(frozen=True, eq=False)
class Balance:
    """Factors of rows and columns, for matrices whose entries are out of a solver's range."""

    rows: np.ndarray  # (1|B, m) powers of two
    columns: np.ndarray  # (1|B, n)

    @classmethod
    def of(cls, form: StandardForm, data: Data) -> Balance | None:
        """None where every entry is within range, and for integer programs (columns keep their units)."""
        size = np.abs(data.values)
        if form.is_mip or not ((size >= _VAST) | ((size <= _TINY) & (size > 0))).any():
            return None
        # By the geometric mean of the least and the largest: Curtis and Reid's idea, made cheap.
        with np.errstate(divide="ignore"):
            exponent = np.where(size > 0, np.log2(size), np.nan)
        rows, columns = np.zeros((len(size), form.m)), np.zeros((len(size), form.n))
        for _ in range(_ROUNDS):
            rows = -_middle(exponent + columns[:, form.cols], form.rows, form.m)
            columns = -_middle(exponent + rows[:, form.rows], form.cols, form.n)
        return cls(*(np.ldexp(1.0, np.clip(np.round(f), -300, 300).astype(int)) for f in (rows, columns)))

    def apply(self, form: StandardForm, data: Data) -> Data:
        return Data(
            data.c * self.columns,
            data.values * self.rows[:, form.rows] * self.columns[:, form.cols],
            *(data.row_lower * self.rows, data.row_upper * self.rows),
            *(data.lower / self.columns, data.upper / self.columns),
        )

    def restore(self, proposal: BatchSolution) -> None:
        """Put a proposal, rays and all, back into the units that it was asked in."""
        proposal.x = proposal.x * self.columns
        if proposal.y is not None:
            proposal.y = proposal.y * self.rows
        for item, ray in proposal.rays.items():
            at = item if len(self.rows) > 1 else 0
            factors = self.rows[at] if proposal.status[item] == Status.INFEASIBLE else self.columns[at]
            if np.shape(ray) == factors.shape:
                proposal.rays[item] = ray * factors


def _middle(exponent: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """(least + largest) / 2 by row or column, (1|B, count); 0 where there is no entry."""
    least, largest = np.full((2, len(exponent), count), np.nan)
    for item, row in enumerate(exponent):
        np.fmin.at(least[item], places, row)
        np.fmax.at(largest[item], places, row)
    return np.nan_to_num(0.5 * (least + largest))


def _largest(array: np.ndarray) -> np.ndarray:
    """Largest finite magnitude a row: (1|B,)."""
    size = np.abs(array)
    return np.where(np.isfinite(size), size, 0.0).max(axis=1, initial=0.0)


def _factor(largest: np.ndarray, more: int) -> np.ndarray:
    """Powers of two that bring [2^-30, 1/2) into [1/2, 1), and further as told; 1 elsewhere."""
    exponent = np.frexp(largest)[1]
    number = (exponent >= _LEAST) & (largest > 0)
    growth = np.where(number & (exponent < 0), -exponent, 0)
    if more:
        growth += np.where(number, np.clip(more - np.maximum(exponent, 0), 0, more), 0)
    return np.ldexp(1.0, growth)
