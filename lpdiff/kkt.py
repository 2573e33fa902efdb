"""Certificates: is this proposal optimal, is it a vertex, is the optimum unique?

Everything is lpdiff's own arithmetic on the original data; nothing is taken on a solver's word.
Weak duality: for every y, with d = c - A'y,

    D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-)  <=  z,

so a feasible x with c'x - D(y) <= tol (1 + |z|) is optimal to that tolerance. That is all that can be asked
of an interior point. Vertices must be exact to rounding, too: see exact.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import scipy.sparse.linalg

from .backend import AbstractVertices, written
from .exact import NOISE, Residuals, exact
from .standard import Data, StandardForm
from .status import BasisStatus

__all__ = [
    "Judged",
    "Standing",
    "certify",
    "certify_integers",
    "stand",
]

# Magnitudes below this (relative) count as zero when telling ties from strict inequalities. Far above
# the rounding of a basic solution, far below the solvers' tolerances.
_TIE = 1e-9

# Pivots below this, beside the largest in rows and columns of size 1, make a basis singular.
_PIVOT = 1e-12

# Matrices of at most this many places are factorised as dense ones.
_DENSE = 20_000


@written("x", "y")
@dataclass(eq=False)
class Judged:
    """Proposals of a batch, cleaned and judged. In the sense of min; arrays lead with B."""

    value: np.ndarray  # (B,) c'x
    x: np.ndarray  # (B, n)
    y: np.ndarray  # (B, m)
    ok: np.ndarray  # (B,) bool: certified
    gap: np.ndarray  # (B,) c'x - D(y)
    primal_residual: np.ndarray  # (B,) largest violation of a row or bound
    dual_residual: np.ndarray  # (B,) largest violation of a dual sign

    @property
    def vertices(self) -> AbstractVertices | None:
        """x, where it is not written out."""
        x = vars(self)["x"]
        return x if isinstance(x, AbstractVertices) else None


@dataclass(eq=False)
class Standing:
    """Where the variables and rows of certified vertices stand, and what follows from it."""

    column_status: np.ndarray  # (B, n) int8 of BasisStatus
    row_status: np.ndarray  # (B, m) int8
    has_basis: np.ndarray  # (B,) bool
    x_unique: np.ndarray  # (B,) bool, True = proven
    y_unique: np.ndarray  # (B,) bool, True = proven


def certify(
    form: StandardForm,
    data: Data,
    x: np.ndarray,
    y: np.ndarray,
    basic: np.ndarray | None,
    tolerance: float,
    *,
    loose: bool = False,
) -> Judged:
    """Judge proposals (x, y), and clean rounding off them.

    Args:
        x, y: Proposals, (B, n) and (B, m).
        basic: Basic columns and logicals, (B, n + m), or None. Items with m of them claim to be vertices.
        tolerance: Relative to the magnitudes that enter each residual.
        loose: Judge vertices by the tolerance, too, as interior points are.
    """
    batch = len(x)
    vertex = np.zeros(batch, dtype=bool)
    if basic is None:
        basic = np.zeros((batch, form.n + form.m), dtype=bool)
    elif not loose:
        vertex = basic.sum(axis=1) == form.m
    # NaN would fail every comparison below, but infinity would pass: inf <= tolerance * inf.
    finite = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    x, y = np.where(finite[:, None], x, 0.0), np.where(finite[:, None], y, 0.0)
    basic_columns, basic_rows = basic[:, : form.n], basic[:, form.n :]
    # Duals of the wrong sign on one-sided rows and on basic rows are rounding or they are wrong: drop
    # them, and let the residuals of what remains decide.
    y = np.where(basic_rows, 0.0, y)
    y = np.where(np.isneginf(data.row_lower), np.minimum(y, 0.0), y)
    y = np.where(np.isposinf(data.row_upper), np.maximum(y, 0.0), y)
    x = x + 0.0  # no negative zeros
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        d = data.c - form.transposed_times(data.values, y)
        activity = form.times(data.values, x)
        violations = (
            _violation(x, data.lower, data.upper),
            _violation(activity, data.row_lower, data.row_upper),
        )
        wrong_sign = np.where(np.isneginf(data.lower), np.maximum(d, 0.0), 0.0)
        wrong_sign = np.maximum(wrong_sign, np.where(np.isposinf(data.upper), np.maximum(-d, 0.0), 0.0))
        wrong_sign = np.where(basic_columns, np.abs(d), wrong_sign)
        primal_residual = np.maximum(_max(violations[0]), _max(violations[1]))
        dual_residual = _max(wrong_sign)
        d = np.where(basic_columns, 0.0, d)

        value = np.sum(data.c * x, axis=1)
        gap = value - _support(y, data.row_lower, data.row_upper) - _support(d, data.lower, data.upper)
    closed = np.abs(gap) <= tolerance * (1 + np.abs(value))
    if not closed.all():
        open_ = np.flatnonzero(~closed)
        with np.errstate(over="ignore", invalid="ignore"):
            gap[open_] = value[open_] - _dual_value_without_noise(
                form, data.take(open_), y[open_], basic_columns[open_]
            )
            closed = np.abs(gap) <= tolerance * (1 + np.abs(value))
    ok = finite & closed & np.isfinite(gap) & np.isfinite(primal_residual) & np.isfinite(dual_residual)
    ok &= (primal_residual <= tolerance) | _small(
        form, data, violations, x, activity, primal_residual, tolerance
    )
    ok &= (dual_residual <= tolerance) | _small_dual(form, data, wrong_sign, y, dual_residual, tolerance)
    vertex &= ok
    if vertex.any():
        ok &= ~vertex | exact(form, data, Residuals(x, y, d, activity, *violations, wrong_sign), vertex)

    return Judged(
        value=value,
        x=x,
        y=y,
        ok=ok,
        gap=gap,
        primal_residual=primal_residual,
        dual_residual=dual_residual,
    )


def stand(
    form: StandardForm,
    data: Data,
    x: np.ndarray,
    y: np.ndarray,
    basic: np.ndarray,
    tolerance: float,
    checked: np.ndarray | None = None,
) -> Standing:
    """Read the bases of certified vertices.

    Args:
        x, y: As ``certify`` returned them, (B, n) and (B, m), finite.
        basic: Basic columns and logicals, (B, n + m); items without m of them have no basis, nor have those
            whose m members are linearly dependent.
        checked: (B,) bool: items whose members are known to be independent.
    """
    basic_columns, basic_rows = basic[:, : form.n], basic[:, form.n :]
    d = np.where(basic_columns, 0.0, data.c - form.transposed_times(data.values, y))
    activity = form.times(data.values, x)
    column_status, columns_at_bound = _stand(x, d, data.lower, data.upper, basic_columns, tolerance)
    row_status, rows_at_bound = _stand(activity, y, data.row_lower, data.row_upper, basic_rows, tolerance)
    has_basis = (basic.sum(axis=1) == form.m) & columns_at_bound & rows_at_bound
    doubtful = np.flatnonzero(has_basis if checked is None else has_basis & ~checked)
    has_basis[doubtful] = _independent(form, data.take(doubtful).values, basic[doubtful])
    # What rounding leaves of a reduced cost, and of a row: no tie is broken by less.
    noise_d = 10 * NOISE * (np.abs(data.c) + form.transposed_times(np.abs(data.values), np.abs(y)))
    noise_x = 10 * NOISE * _max(np.abs(x))[:, None]
    noise_rows = 10 * NOISE * form.times(np.abs(data.values), np.abs(x))
    x_unique = (
        has_basis
        & _held(d, column_status, noise_d, basic_columns | (data.lower == data.upper))
        & _held(y, row_status, 0.0, basic_rows | (data.row_lower == data.row_upper))
    )
    y_unique = (
        has_basis
        & _inside(x, data.lower, data.upper, noise_x, basic_columns)
        & _inside(activity, data.row_lower, data.row_upper, noise_rows, basic_rows)
    )
    return Standing(column_status, row_status, has_basis, x_unique, y_unique)


def certify_integers(
    form: StandardForm, data: Data, x: np.ndarray, bound: np.ndarray, tolerance: float
) -> Judged:
    """Judge solutions of integer programs against the solver's proved bound; integers are rounded.

    The bound is the solver's word (its search tree is the proof, which no O(nnz) check replays);
    feasibility and integrality are checked here.
    """
    batch = len(x)
    finite = np.isfinite(x).all(axis=1) & np.isfinite(bound)
    x, bound = np.where(finite[:, None], x, 0.0), np.where(finite, bound, 0.0)
    rounded = np.where(form.integrality, np.round(x), x)
    fractional = _max(np.abs(rounded - x))

    def residual(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        activity = form.times(data.values, point)
        violations = (
            _violation(point, data.lower, data.upper),
            _violation(activity, data.row_lower, data.row_upper),
        )
        largest = np.maximum(_max(violations[0]), _max(violations[1]))
        small = (largest <= tolerance) | _small(form, data, violations, point, activity, largest, tolerance)
        return largest, small

    primal_residual, feasible = residual(rounded)
    if not feasible.all():
        # Rounding may break a row that ties integers to continuous variables: keep the solver's point.
        kept_residual, kept = residual(x)
        use = ~feasible & kept
        rounded[use], primal_residual[use], feasible[use] = x[use], kept_residual[use], True
    value = np.sum(data.c * rounded, axis=1)
    gap = value - bound
    return Judged(
        value=value,
        x=rounded,
        y=np.zeros((batch, form.m)),
        ok=finite & feasible & (fractional <= 1e-5) & (gap <= tolerance * (1 + np.abs(value))),
        gap=gap,
        primal_residual=primal_residual,
        dual_residual=np.zeros(batch),
    )


# -- pieces --------------------------------------------------------------------------------------------


def _max(array: np.ndarray) -> np.ndarray:
    return array.max(axis=1, initial=0.0)


def _violation(point: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(lower - point, point - upper), 0.0)


def _support(dual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """sum(lower dual+ - upper dual-); infinite sides count as zero (their residual tells)."""
    return np.sum(_support_terms(dual, lower, upper), axis=1)


def _support_terms(dual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    side = np.where(dual > 0, lower, np.where(dual < 0, upper, 0.0))
    return dual * np.where(np.isfinite(side), side, 0.0)


def _dual_value_without_noise(
    form: StandardForm, data: Data, y: np.ndarray, basic_columns: np.ndarray
) -> np.ndarray:
    """D(y) where duals within rounding of zero count as zero: times a bound of 1e12 they would not."""
    y = np.where(np.abs(y) <= NOISE * _max(np.abs(y))[:, None], 0.0, y)
    d = data.c - form.transposed_times(data.values, y)
    size = np.abs(data.c) + form.transposed_times(np.abs(data.values), np.abs(y))
    d = np.where(basic_columns | (np.abs(d) <= NOISE * size), 0.0, d)
    return _support(y, data.row_lower, data.row_upper) + _support(d, data.lower, data.upper)


def _small(
    form: StandardForm,
    data: Data,
    violations: tuple[np.ndarray, np.ndarray],
    x: np.ndarray,
    activity: np.ndarray,
    largest: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Whether the violations are small against the numbers that make them up. Rarely needed."""
    if np.all(largest <= tolerance):
        return np.ones(len(x), dtype=bool)
    row_scale = 1 + form.times(np.abs(data.values), np.abs(x))
    return np.all(violations[0] <= tolerance * (1 + np.abs(x)), axis=1) & np.all(
        violations[1] <= tolerance * row_scale, axis=1
    )


def _small_dual(
    form: StandardForm,
    data: Data,
    wrong_sign: np.ndarray,
    y: np.ndarray,
    largest: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    if np.all(largest <= tolerance):
        return np.ones(len(y), dtype=bool)
    scale = 1 + np.abs(data.c) + form.transposed_times(np.abs(data.values), np.abs(y))
    return np.all(wrong_sign <= tolerance * scale, axis=1)


def _stand(
    point: np.ndarray,
    dual: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    basic: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Basis statuses, and per item whether all that is nonbasic stands at a bound.

    The nearer bound is the active one; where the two cannot be told apart (equalities), the sign of the
    dual says it.
    """
    to_lower, to_upper = np.abs(point - lower), np.abs(upper - point)
    at_both = np.maximum(to_lower, to_upper) <= tolerance * (1 + np.abs(point))
    at_lower = np.where(at_both & (np.abs(dual) > _TIE), dual > 0, to_lower <= to_upper)
    status = np.where(at_lower, BasisStatus.LOWER, BasisStatus.UPPER)
    status = np.where(np.isinf(lower) & np.isinf(upper), BasisStatus.ZERO, status)
    status = np.where(basic, BasisStatus.BASIC, status).astype(np.int8)
    bound = np.where(status == BasisStatus.LOWER, lower, upper)
    free = (status == BasisStatus.BASIC) | (status == BasisStatus.ZERO)
    with np.errstate(invalid="ignore"):
        away = np.where(free, 0.0, np.abs(point - bound) / (1 + np.abs(bound)))
    return status, np.all(away <= tolerance, axis=1)


def _held(dual: np.ndarray, status: np.ndarray, noise: np.ndarray | float, excused: np.ndarray) -> np.ndarray:
    """Whether every nonbasic member would cost something to move: d > 0 at a lower bound, < 0 at an upper."""
    tie = np.maximum(_TIE * (1 + _max(np.abs(dual))[:, None]), noise)
    held = ((status == BasisStatus.LOWER) & (dual > tie)) | ((status == BasisStatus.UPPER) & (dual < -tie))
    return np.all(excused | held, axis=1)


def _inside(
    point: np.ndarray, lower: np.ndarray, upper: np.ndarray, noise: np.ndarray, basic: np.ndarray
) -> np.ndarray:
    margin = np.maximum(_TIE * (1 + np.abs(point)), noise)
    return np.all(~basic | ((point - lower > margin) & (upper - point > margin)), axis=1)


def _independent(form: StandardForm, values: np.ndarray, basic: np.ndarray) -> np.ndarray:
    """Whether the m members of each basis are linearly independent: (B,). Equal bases are looked at once.

    That is so if and only if K = A[nonbasic rows, basic columns] can be inverted.
    """
    found = np.zeros(len(basic), dtype=bool)
    known: dict[bytes, bool] = {}
    dense = form.m * form.n <= _DENSE
    matrix: np.ndarray | sp.csc_array | None = None
    for item, members in enumerate(basic):
        key = np.packbits(members).tobytes() if len(values) == 1 else b""
        if not key or key not in known:
            if matrix is None or len(values) > 1:
                row = values[item if len(values) > 1 else 0]
                matrix = np.zeros((form.m, form.n)) if dense else form.matrix(row)
                if dense:
                    matrix[form.rows, form.cols] = row
            columns, rows = np.flatnonzero(members[: form.n]), np.flatnonzero(~members[form.n :])
            known[key] = _invertible(matrix[rows][:, columns])
        found[item] = known[key]
    return found


def _invertible(matrix: np.ndarray | sp.csc_array) -> bool:
    """Whether a square matrix has an inverse, by the pivots of its factors; rows and columns brought to 1."""
    if matrix.shape[0] == 0:
        return True
    for axis in (1, 0):
        size = abs(matrix).max(axis=axis)
        size = size if isinstance(size, np.ndarray) else size.toarray().ravel()
        if not (size > 0).all():
            return False
        scale = 1 / (size[:, None] if axis else size)
        matrix = matrix * scale if isinstance(matrix, np.ndarray) else sp.csc_array(matrix.multiply(scale))
    if isinstance(matrix, np.ndarray):
        pivots = np.abs(np.diag(scipy.linalg.lapack.dgetrf(matrix)[0]))
    else:
        try:
            pivots = np.abs(scipy.sparse.linalg.splu(matrix).U.diagonal())
        except RuntimeError:  # exactly singular
            return False
    return bool(pivots.min() > _PIVOT * pivots.max())
