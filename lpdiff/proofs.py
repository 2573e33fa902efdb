"""Proofs that an LP has no optimum: Farkas rays, and directions along which it improves forever.

Everything is lpdiff's own arithmetic on the original data. What is dropped from a proof is rounding (1e-12 of
the terms that make it up; HiGHS's rays are exact to 1e-13) and no more: a slope of 1e-10 meets any side at a
point far enough out.
"""

from __future__ import annotations

import numpy as np

from .standard import Data, StandardForm
from .status import Certificate

__all__ = ["prove_infeasible", "prove_unbounded"]

# Entries of a ray below this (relative) are left out where it proves as much without them.
_SMALL = 1e-9

# Magnitudes below this (relative) cannot be told from rounding.
_NOISE = 1e-12

# What a proof adds up to must exceed this share of its terms.
_CLEAR = 1e-9


def prove_infeasible(form: StandardForm, data: Data, ray: np.ndarray | None) -> Certificate:
    """Check a Farkas ray y on a batch of one.

    Every x within its bounds has  y'Ax >= sum(l (A'y)+ - u (A'y)-) ... ; feasibility would need
    sum(rl y+ - ru y-) + sum(l a+ - u a-) <= 0 with a = -A'y. A positive value is the proof.
    """
    if ray is None or not _is_ray(ray, form.m):
        return Certificate("farkas", np.zeros(form.m), False, "no certificate from the solver")
    best, clear = -np.inf, False
    vector = whole = ray / np.abs(ray).max()
    for least in (_SMALL, 0.0):
        for y in (whole, -whole):
            y = np.where(np.abs(y) <= least, 0.0, y)
            y = np.where(np.isneginf(data.row_lower[0]), np.minimum(y, 0.0), y)
            y = np.where(np.isposinf(data.row_upper[0]), np.maximum(y, 0.0), y)
            contradiction, terms = _contradiction(form, data, y)
            if contradiction > best and not clear:
                best, vector, clear = contradiction, y, contradiction > _CLEAR * terms
    rows = np.argsort(-np.abs(vector), kind="stable")[:4]
    rows = rows[np.abs(vector[rows]) > 1e-6]
    named = ", ".join(f"{form.name_of_row(i)} (times {vector[i]:.3g})" for i in rows)
    more = int((np.abs(vector) > 1e-6).sum()) - len(rows)
    if not clear:
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
    whole = ray / np.abs(ray).max()
    r, (rate, verified) = whole, (0.0, False)
    for least in (_SMALL, _NOISE, 0.0):
        # Rounding towards a finite bound is dropped, so that r keeps to the box; the rows then tell.
        r = np.where(np.abs(whole) <= least, 0.0, whole)
        rate, verified = _forever(form, data, r)
        if verified:
            break
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


def _contradiction(form: StandardForm, data: Data, y: np.ndarray) -> tuple[float, float]:
    """(what the rows ask for beyond what is in reach, the size of the terms); -inf where y proves nothing."""
    with np.errstate(over="ignore", invalid="ignore"):
        a = -form.transposed_times(data.values, y[None])[0]
        size = form.transposed_times(np.abs(data.values), np.abs(y[None]))[0]
        # Only towards an infinite bound is a rounding dropped: times a large finite one it would count.
        impossible = ((a > 0) & np.isneginf(data.lower[0])) | ((a < 0) & np.isposinf(data.upper[0]))
        a = np.where(impossible & (np.abs(a) <= _NOISE * size), 0.0, a)
        if not (impossible & (a != 0)).any():
            sides = _side(y, data.row_lower[0], data.row_upper[0]), _side(a, data.lower[0], data.upper[0])
            terms = np.concatenate([y * sides[0], a * sides[1]])
            total, size_of_all = float(terms.sum()), float(np.abs(terms).sum())
            if np.isfinite(size_of_all):
                return total, size_of_all
    return -np.inf, 0.0


def _forever(form: StandardForm, data: Data, r: np.ndarray) -> tuple[float, bool]:
    """(change of the objective a step, whether r is a direction that improves it without end)."""
    blocked = (np.isfinite(data.lower[0]) & (r < 0)) | (np.isfinite(data.upper[0]) & (r > 0))
    with np.errstate(over="ignore", invalid="ignore"):
        rows = form.times(data.values, r[None])[0]
        slack = _NOISE * form.times(np.abs(data.values), np.abs(r[None]))[0]
        blocked_rows = (np.isfinite(data.row_lower[0]) & ~(rows >= -slack)) | (
            np.isfinite(data.row_upper[0]) & ~(rows <= slack)
        )
        terms = data.c[0] * r
        rate, size = float(terms.sum()), float(np.abs(terms).sum())
    fine = np.isfinite(slack).all() and np.isfinite(size)
    return rate, bool(fine and not blocked.any() and not blocked_rows.any() and rate < -_CLEAR * size)


def _side(dual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    side = np.where(dual > 0, lower, np.where(dual < 0, upper, 0.0))
    return np.where(np.isfinite(side), side, 0.0)


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
