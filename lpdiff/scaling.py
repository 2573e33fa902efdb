"""Units: small numbers are scaled up before a solve, and the solution back.

Solvers, and the certificate, compare with absolute tolerances (1e-7, 1e-6). An LP whose costs, or whose
sides, all lie near 1e-6 would be "solved" to no digit at all. With costs times s and sides times t

    min (s c)'x'   s.t.   t rl <= A x' <= t ru,   t l <= x' <= t u

has x' = t x, y' = s y, d' = s d, z' = s t z. Powers of two touch no mantissa, so nothing is rounded, and
an LP in other units (by a power of two) has the same solution to the bit.

Nothing is scaled down, since beside a big M that would make the other numbers small; nor what lies below
2^-30 in all, which is more likely the rounding of a zero than a number. Sides of integer programs stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kkt import Judged
from .standard import Data, StandardForm

__all__ = ["Units"]

_LEAST = -30


@dataclass(frozen=True, eq=False)
class Units:
    """The factors of a batch."""

    cost: np.ndarray  # (1|B,) powers of two, >= 1
    side: np.ndarray  # (1|B,)

    @classmethod
    def of(cls, form: StandardForm, data: Data) -> Units:
        """Factors that bring the largest cost and the largest finite side to at least 1/2."""
        one = np.ones(1)
        if form.is_mip:
            return cls(_factor(_largest(data.c)), one)
        sides = [_largest(a) for a in (data.row_lower, data.row_upper, data.lower, data.upper)]
        return cls(
            _factor(_largest(data.c)),
            _factor(np.maximum(np.maximum(sides[0], sides[1]), np.maximum(sides[2], sides[3]))),
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


def _largest(array: np.ndarray) -> np.ndarray:
    """Largest finite magnitude a row: (1|B,)."""
    size = np.abs(array)
    return np.where(np.isfinite(size), size, 0.0).max(axis=1, initial=0.0)


def _factor(largest: np.ndarray) -> np.ndarray:
    """Powers of two that bring [2^-30, 1/2) into [1/2, 1); 1 elsewhere."""
    exponent = np.frexp(largest)[1]
    small = (exponent < 0) & (exponent >= _LEAST) & (largest > 0)
    return np.ldexp(1.0, np.where(small, -exponent, 0))
