"""A reference basis for HiGHS: the optimum of the declared costs, to start from where costs are near them.

Chained warm starts would make an item's bits depend on those before it; one fixed basis does not. It is the
program's own (no item's), so neither does it depend on what was solved before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from highspy import HighsBasisStatus

from ..pool import side_unit
from ..reading import INFINITY
from ..standard import Data, StandardForm

__all__ = ["Reference", "enlarged", "near"]

# Costs whose relative distance in the 1-norm is beyond this are solved cold. Measured on random, packing and
# transport LPs of 50 to 600 rows: primal simplex from the basis takes 0.02 to 0.4 of a cold solve's time at
# a distance of 0.025, 0.1 to 1.1 at 0.1, and up to 5 times as long at 0.4.
_NEAR = 0.1

_BOUNDS = ("row_lower", "row_upper", "lower", "upper")


@dataclass(frozen=True, eq=False)
class Reference:
    """A basis by HiGHS's statuses, as plain numbers so that it can be pickled."""

    columns: tuple[int, ...]
    rows: tuple[int, ...]

    @classmethod
    def of(cls, basis: Any) -> Reference:
        return cls(
            tuple(int(status) for status in basis.col_status),
            tuple(int(status) for status in basis.row_status),
        )

    def basis(self) -> Any:
        """HiGHS's own object; one a thread."""
        basis = highspy.HighsBasis()
        basis.col_status = [HighsBasisStatus(status) for status in self.columns]
        basis.row_status = [HighsBasisStatus(status) for status in self.rows]
        basis.valid = True
        return basis


def near(form: StandardForm, data: Data) -> np.ndarray:  # (B,)
    """Which items have the declared matrix, rows and bounds, and costs near the declared ones.

    Costs and sides may be in other units, by a power of two: the caller scales small ones up.
    """
    declared, size = form.declared, data.size
    if not declared.c.any():
        return np.zeros(size, dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        ours, theirs = (c / np.abs(c).sum(axis=1, keepdims=True) for c in (declared.c, data.c))
        close = np.abs(theirs - ours).sum(axis=1) <= _NEAR
    if not close.any():
        return np.zeros(size, dtype=bool)
    same = close & _equal(declared.values, data.values)
    if all(getattr(data, name) is getattr(declared, name) for name in _BOUNDS):
        return np.broadcast_to(same, size)
    ours_unit, their_unit = side_unit(declared), side_unit(data)
    for name in _BOUNDS:
        same = same & _equal(_in(getattr(declared, name), ours_unit), _in(getattr(data, name), their_unit))
    return np.broadcast_to(same, size)


def _equal(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:  # (1|B,)
    return np.ones(1, dtype=bool) if ours is theirs else (ours == theirs).all(axis=1)


def _in(side: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """A side in the given units (1|B,), infinite where it counts as that."""
    return np.where(np.abs(side) >= INFINITY, np.copysign(np.inf, side), side) / unit[:, None]


def enlarged(data: Data) -> Data:
    """One LP in units in which neither its costs nor its sides are small: HiGHS's tolerances are absolute."""
    unit = np.minimum(side_unit(data), 1.0)
    largest = np.abs(data.c).max(axis=1, initial=0.0)
    cost = np.minimum(np.ldexp(1.0, np.frexp(largest)[1]), 1.0)
    return Data(data.c / cost[:, None], data.values, *(_in(getattr(data, name), unit) for name in _BOUNDS))
