"""Certificates: is this proposal optimal, is this LP really infeasible, is the optimum unique?

Everything is lpdiff's own arithmetic on the original data; nothing is taken on a solver's word.
Weak duality: for every y, with d = c - A'y,

    D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-)  <=  z,

so a feasible x with c'x - D(y) <= tol (1 + |z|) is optimal to that tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .standard import Data, StandardForm
from .status import BasisStatus, Certificate

__all__ = [
    "Judged",
    "Standing",
    "certify",
    "certify_integers",
    "prove_infeasible",
    "prove_unbounded",
    "stand",
]

# Magnitudes below this (relative) count as zero when telling ties from strict inequalities. Far above
# the rounding of a basic solution, far below the solvers' tolerances.
_TIE = 1e-9

# Magnitudes below this (relative) cannot be told from rounding.
_NOISE = 1e-13

# How far (relative) a solver's direction may miss a row it should run along.
_SLACK = 1e-7


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
) -> Judged:
    """Judge proposals (x, y), and clean rounding off them.

    Args:
        x, y: Proposals, (B, n) and (B, m).
        basic: Basic columns and logicals, (B, n + m), or None.
        tolerance: Relative to the magnitudes that enter each residual.
    """
    batch = len(x)
    if basic is None:
        basic = np.zeros((batch, form.n + form.m), dtype=bool)
    # NaN would fail every comparison below, but infinity would pass: inf <= tolerance * inf.
    finite = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    x, y = np.where(finite[:, None], x, 0.0), np.where(finite[:, None], y, 0.0)
    basic_columns, basic_rows = basic[:, : form.n], basic[:, form.n :]
    # Duals of the wrong sign on one-sided rows and on basic rows are rounding or they are wrong: drop
    # them, and let the residuals of what remains decide.
    y = np.where(basic_rows, 0.0, y)
    y = np.where(np.isneginf(data.row_lower), np.minimum(y, 0.0), y)
    y = np.where(np.isposinf(data.row_upper), np.maximum(y, 0.0), y)
    d = data.c - form.transposed_times(data.values, y)
    x = x + 0.0  # no negative zeros
    activity = form.times(data.values, x)

    violations = _violation(x, data.lower, data.upper), _violation(activity, data.row_lower, data.row_upper)
    wrong_sign = np.where(np.isneginf(data.lower), np.maximum(d, 0.0), 0.0)
    wrong_sign = np.maximum(wrong_sign, np.where(np.isposinf(data.upper), np.maximum(-d, 0.0), 0.0))
    wrong_sign = np.where(basic_columns, np.abs(d), wrong_sign)
    primal_residual = np.maximum(_max(violations[0]), _max(violations[1]))
    dual_residual = _max(wrong_sign)
    d = np.where(basic_columns, 0.0, d)

    value = np.sum(data.c * x, axis=1)
    dual_value = _support(y, data.row_lower, data.row_upper) + _support(d, data.lower, data.upper)
    gap = value - dual_value
    closed = np.abs(gap) <= tolerance * (1 + np.abs(value))
    if not closed.all():
        open_ = np.flatnonzero(~closed)
        gap[open_] = value[open_] - _dual_value_without_noise(
            form, data.take(open_), y[open_], basic_columns[open_]
        )
        closed = np.abs(gap) <= tolerance * (1 + np.abs(value))
    ok = finite & closed
    ok &= (primal_residual <= tolerance) | _small(
        form, data, violations, x, activity, primal_residual, tolerance
    )
    ok &= (dual_residual <= tolerance) | _small_dual(form, data, wrong_sign, y, dual_residual, tolerance)

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
    form: StandardForm, data: Data, x: np.ndarray, y: np.ndarray, basic: np.ndarray, tolerance: float
) -> Standing:
    """Read the bases of certified vertices.

    Args:
        x, y: As ``certify`` returned them, (B, n) and (B, m), finite.
        basic: Basic columns and logicals, (B, n + m); items without m of them have no basis.
    """
    basic_columns, basic_rows = basic[:, : form.n], basic[:, form.n :]
    d = np.where(basic_columns, 0.0, data.c - form.transposed_times(data.values, y))
    activity = form.times(data.values, x)
    column_status, columns_at_bound = _stand(x, d, data.lower, data.upper, basic_columns, tolerance)
    row_status, rows_at_bound = _stand(activity, y, data.row_lower, data.row_upper, basic_rows, tolerance)
    has_basis = (basic.sum(axis=1) == form.m) & columns_at_bound & rows_at_bound
    x_unique = (
        has_basis
        & _nonzero(d, basic_columns | (data.lower == data.upper))
        & _nonzero(y, basic_rows | (data.row_lower == data.row_upper))
    )
    y_unique = (
        has_basis
        & _inside(x, data.lower, data.upper, basic_columns)
        & _inside(activity, data.row_lower, data.row_upper, basic_rows)
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


# -- no optimum --------------------------------------------------------------------------------------


def prove_infeasible(form: StandardForm, data: Data, ray: np.ndarray | None) -> Certificate:
    """Check a Farkas ray y on a batch of one.

    Every x within its bounds has  y'Ax >= sum(l (A'y)+ - u (A'y)-) ... ; feasibility would need
    sum(rl y+ - ru y-) + sum(l a+ - u a-) <= 0 with a = -A'y. A positive value is the proof.
    """
    if ray is None or not _is_ray(ray, form.m):
        return Certificate("farkas", np.zeros(form.m), False, "no certificate from the solver")
    best, noise = -np.inf, 0.0
    vector = ray / np.abs(ray).max()
    for signed in (vector, -vector):
        y = signed
        y = np.where(np.abs(y) <= _TIE, 0.0, y)
        y = np.where(np.isneginf(data.row_lower[0]), np.minimum(y, 0.0), y)
        y = np.where(np.isposinf(data.row_upper[0]), np.maximum(y, 0.0), y)
        a = -form.transposed_times(data.values, y[None])[0]
        size = form.transposed_times(np.abs(data.values), np.abs(y[None]))[0]
        # Only towards an infinite bound is a rounding dropped: times a large finite one it would count.
        impossible = ((a > 0) & np.isneginf(data.lower[0])) | ((a < 0) & np.isposinf(data.upper[0]))
        a = np.where(impossible & (np.abs(a) <= _TIE * size), 0.0, a)
        if not (impossible & (a != 0)).any():
            terms = np.concatenate(
                [
                    _support_terms(y[None], data.row_lower, data.row_upper)[0],
                    _support_terms(a[None], data.lower, data.upper)[0],
                ]
            )
            contradiction = float(terms.sum())
            if contradiction > best:
                best, noise, vector = contradiction, float(np.abs(terms).sum()), y
    rows = np.argsort(-np.abs(vector), kind="stable")[:4]
    rows = rows[np.abs(vector[rows]) > 1e-6]
    named = ", ".join(f"{form.name_of_row(i)} (times {vector[i]:.3g})" for i in rows)
    more = int((np.abs(vector) > 1e-6).sum()) - len(rows)
    if not best > _TIE * noise:
        return Certificate("farkas", vector, False, f"suspect rows: {named} (not verified)")
    return Certificate(
        "farkas",
        vector,
        True,
        f"{named}{f' and {more} more' if more else ''}, added up, contradict the variables' bounds by "
        f"{best:.6g}",
    )


def prove_unbounded(form: StandardForm, data: Data, ray: np.ndarray | None) -> Certificate:
    """Check a direction r on a batch of one: c'r < 0, and x + t r stays feasible for all t >= 0."""
    if ray is None:
        ray = _along_empty_column(form, data)
    if not _is_ray(ray, form.n):
        return Certificate("direction", np.zeros(form.n), False, "no certificate from the solver")
    r = ray / np.abs(ray).max()
    # Rounding towards a finite bound is dropped, so that r keeps to the box; what the rows then feel is
    # measured against the terms that make it up, however small those are.
    into_lower, into_upper = np.isfinite(data.lower[0]), np.isfinite(data.upper[0])
    blocked = (into_lower & (r < 0)) | (into_upper & (r > 0))
    r = np.where((np.abs(r) <= _TIE) | (blocked & (np.abs(r) <= _SLACK)), 0.0, r)
    blocked &= r != 0
    rows = form.times(data.values, r[None])[0]
    slack = _SLACK * form.times(np.abs(data.values), np.abs(r[None]))[0]
    blocked_rows = (np.isfinite(data.row_lower[0]) & (rows < -slack)) | (
        np.isfinite(data.row_upper[0]) & (rows > slack)
    )
    terms = data.c[0] * r
    rate = float(np.sum(terms))
    verified = bool(
        not blocked.any() and not blocked_rows.any() and rate < -_TIE * float(np.abs(terms).sum())
    )
    columns = np.argsort(-np.abs(r), kind="stable")[:4]
    columns = columns[np.abs(r[columns]) > 1e-6]
    named = ", ".join(f"{form.name_of_variable(j)} (by {r[j]:+.3g})" for j in columns)
    more = int((np.abs(r) > 1e-6).sum()) - len(columns)
    return Certificate(
        "direction",
        r,
        verified,
        f"moving {named}{f' and {more} more' if more else ''} improves the objective by "
        f"{abs(rate):.6g} a step, forever" + ("" if verified else " (not verified)"),
    )


def _along_empty_column(form: StandardForm, data: Data) -> np.ndarray:
    """The direction of a variable in no row that improves forever (solvers give no ray for it), or zero."""
    c, lower, upper = data.c[0], data.lower[0], data.upper[0]
    endless = np.where(c < 0, np.isposinf(upper), np.where(c > 0, np.isneginf(lower), False))
    ray = np.zeros(form.n)
    for j in np.flatnonzero(endless & (np.diff(form.indptr) == 0))[:1]:
        ray[j] = -np.sign(c[j])
    return ray


def _is_ray(ray: np.ndarray, size: int) -> bool:
    return bool(np.shape(ray) == (size,) and np.isfinite(ray).all() and np.any(ray))


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
    y = np.where(np.abs(y) <= _NOISE * _max(np.abs(y))[:, None], 0.0, y)
    d = data.c - form.transposed_times(data.values, y)
    size = np.abs(data.c) + form.transposed_times(np.abs(data.values), np.abs(y))
    d = np.where(basic_columns | (np.abs(d) <= _NOISE * size), 0.0, d)
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


def _nonzero(dual: np.ndarray, excused: np.ndarray) -> np.ndarray:
    scale = 1 + np.abs(dual).max(axis=1, initial=0.0)[:, None]
    return np.all(excused | (np.abs(dual) > _TIE * scale), axis=1)


def _inside(point: np.ndarray, lower: np.ndarray, upper: np.ndarray, basic: np.ndarray) -> np.ndarray:
    margin = _TIE * (1 + np.abs(point))
    return np.all(~basic | ((point - lower > margin) & (upper - point > margin)), axis=1)
