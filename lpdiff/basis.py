"""Derivatives of the vertex and its duals through the optimal basis: JVP and VJP, batched.

With P basic columns, N nonbasic columns, Q nonbasic rows (|P| = |Q|) and K = A[Q, P],

    x_P = K^-1 (r_Q - A_QN x_N),     x_N and r_Q at their active bounds,
    y_Q = K^-T c_P,     y = 0 on basic rows,

as long as the basis stays optimal. Hence  dx_P = K^-1 (dr_Q - (dA x)_Q - A_QN dx_N)  and
dy_Q = K^-T (dc_P - (dA'y)_P). Exact at nondegenerate vertices (primal for x, dual for y); at a
degenerate one an element of the Bouligand differential. dx/dc = 0 and dy/db = 0 almost everywhere.
Any basic LP text, e.g. Bertsimas and Tsitsiklis, "Introduction to Linear Optimization", ch. 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from .standard import StandardForm
from .status import BasisStatus, UnsupportedError

__all__ = ["Factor", "Tangents", "VertexPoint", "vertex_jvp", "vertex_vjp"]


@dataclass(frozen=True, eq=False)
class VertexPoint:
    """Certified vertices of a batch and their bases; what the derivative is taken at. In the sense of min."""

    form: StandardForm
    values: np.ndarray  # (1|B, nnz)
    x: np.ndarray  # (B, n)
    y: np.ndarray  # (B, m)
    column_status: np.ndarray  # (B, n) int8
    row_status: np.ndarray  # (B, m) int8
    ok: np.ndarray  # (B,) bool: optimal; the others get zero
    has_basis: np.ndarray  # (B,) bool


@dataclass(eq=False)
class Tangents:
    """One array a field of ``Data``, (B, k): tangents going in, or cotangents coming out."""

    c: np.ndarray
    values: np.ndarray | None
    row_lower: np.ndarray
    row_upper: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def vertex_vjp(at: VertexPoint, gx: np.ndarray, gy: np.ndarray, *, want_values: bool) -> Tangents:
    """Pull cotangents of (x, y) back to the data. c gets what comes through y; dx/dc = 0.

    Args:
        gx, gy: (B, n), (B, m).
        want_values: Whether the cotangent of A's entries, (B, nnz), is wanted.

    Raises:
        UnsupportedError: an item with a nonzero cotangent has no basis.
    """
    form = at.form
    gx, gy = (np.where(at.ok[:, None], g, 0.0) for g in (gx, gy))
    x, y = (np.where(at.ok[:, None], a, 0.0) for a in (at.x, at.y))
    w, v = np.zeros_like(y), np.zeros_like(x)

    def pull(items: np.ndarray, factor: Factor) -> None:
        w[np.ix_(items, factor.rows)] = factor.solve_transposed(gx[np.ix_(items, factor.columns)])
        v[np.ix_(items, factor.columns)] = factor.solve(gy[np.ix_(items, factor.rows)])

    _each_basis(at, pull, gx, gy)
    # What is left of gx on nonbasic columns belongs to their active bounds.
    through_bounds = gx - form.transposed_times(at.values, w)
    values = None
    if want_values:
        rows, cols = form.rows, form.cols
        values = -(y[:, rows] * v[:, cols] + w[:, rows] * x[:, cols])
    return Tangents(
        c=v,
        values=values,
        row_lower=np.where(at.row_status == BasisStatus.LOWER, w, 0.0),
        row_upper=np.where(at.row_status == BasisStatus.UPPER, w, 0.0),
        lower=np.where(at.column_status == BasisStatus.LOWER, through_bounds, 0.0),
        upper=np.where(at.column_status == BasisStatus.UPPER, through_bounds, 0.0),
    )


def vertex_jvp(at: VertexPoint, tangents: Tangents) -> tuple[np.ndarray, np.ndarray]:
    """Push tangents of the data forward to (dx, dy): (B, n), (B, m).

    Raises:
        UnsupportedError: an item has no basis.
    """
    form = at.form
    x, y = (np.where(at.ok[:, None], a, 0.0) for a in (at.x, at.y))
    dx = _active(at.column_status, tangents.lower, tangents.upper)
    dr = _active(at.row_status, tangents.row_lower, tangents.row_upper)
    dc = np.where(at.ok[:, None], tangents.c, 0.0)
    if tangents.values is not None:
        dr = dr - form.times(tangents.values, x)
        dc = dc - form.transposed_times(tangents.values, y)
    dr = dr - form.times(at.values, dx)
    dy = np.zeros_like(y)

    def push(items: np.ndarray, factor: Factor) -> None:
        dx[np.ix_(items, factor.columns)] = factor.solve(dr[np.ix_(items, factor.rows)])
        dy[np.ix_(items, factor.rows)] = factor.solve_transposed(dc[np.ix_(items, factor.columns)])

    _each_basis(at, push, dr, dc)
    dead = ~at.ok[:, None]
    return np.where(dead, 0.0, dx), np.where(dead, 0.0, dy)


def _active(status: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.where(status == BasisStatus.LOWER, lower, np.where(status == BasisStatus.UPPER, upper, 0.0))


class Factor:
    """LU factors of K = A[Q, P] for one basis."""

    def __init__(
        self, form: StandardForm, values: np.ndarray, column_status: np.ndarray, row_status: np.ndarray
    ) -> None:
        is_basic = column_status == BasisStatus.BASIC
        is_active = row_status != BasisStatus.BASIC
        self.columns, self.rows = np.flatnonzero(is_basic), np.flatnonzero(is_active)
        size = len(self.columns)
        self.lu = None
        if size:
            keep = is_basic[form.cols] & is_active[form.rows]
            position_r, position_c = np.cumsum(is_active) - 1, np.cumsum(is_basic) - 1
            matrix = sp.csc_array(
                (values[keep], (position_r[form.rows[keep]], position_c[form.cols[keep]])),
                shape=(len(self.rows), size),
            )
            try:
                self.lu = scipy.sparse.linalg.splu(matrix)
            except RuntimeError as error:
                raise UnsupportedError(
                    "the optimal basis is numerically singular, so the vertex has no derivative "
                    "through it: rescale the data, or differentiate the value only"
                ) from error

    def solve(self, rhs: np.ndarray) -> np.ndarray:
        """K^-1 rhs for the rows of rhs, (b, k)."""
        return self._each(rhs, "N")

    def solve_transposed(self, rhs: np.ndarray) -> np.ndarray:
        """K^-T rhs for the rows of rhs, (b, k)."""
        return self._each(rhs, "T")

    def _each(self, rhs: np.ndarray, mode: str) -> np.ndarray:
        # One right-hand side at a time: blocked kernels round differently with the number of them, and
        # an item's bits must not depend on its batch.
        if self.lu is None:
            return rhs
        return np.stack([self.lu.solve(row, mode) for row in np.ascontiguousarray(rhs)])


def _each_basis(
    at: VertexPoint, visit: Callable[[np.ndarray, Factor], None], *needed_for: np.ndarray
) -> None:
    """Visit groups of items that share basis and matrix, so that each is factorised once.

    Items for which all of ``needed_for`` is zero are left out: they need no factor, and no basis.
    """
    needed = at.ok & np.any([np.any(array != 0, axis=1) for array in needed_for], axis=0)
    lacking = np.flatnonzero(needed & ~at.has_basis)
    if len(lacking):
        raise UnsupportedError(
            f"x, y and reduced costs can only be differentiated through an optimal basis, and "
            f"{len(lacking)} item(s) have none (first: {lacking[0]}): use a backend and options that "
            f"return one (HiGHS without crossover=False), or differentiate the value only"
        )
    groups: dict[bytes, list[int]] = {}
    shared = len(at.values) == 1
    for item in np.flatnonzero(needed):
        key = at.column_status[item].tobytes() + at.row_status[item].tobytes()
        if not shared:
            key += at.values[item].tobytes()
        groups.setdefault(key, []).append(int(item))
    for items in groups.values():
        first = items[0]
        factor = Factor(
            at.form,
            at.values[0 if shared else first],
            at.column_status[first],
            at.row_status[first],
        )
        visit(np.array(items), factor)
