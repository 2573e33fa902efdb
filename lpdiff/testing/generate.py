"""Random LPs whose optimum is known by construction, with every kind of row and bound."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import scipy.sparse as sp

from ..program import LinearProgram

__all__ = ["KINDS", "Kind", "random_lp"]

Kind = Literal["generic", "degenerate", "nonunique", "ambiguous"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_GAP = (0.5, 1.5)  # distances from bounds and sizes of duals: far from any tolerance
_CONDITION = 1e3


def random_lp(
    rng: np.random.Generator,
    n: int,
    m: int,
    *,
    kind: Kind = "generic",
    sense: Literal["min", "max"] | None = None,
    density: float = 0.5,
) -> LinearProgram:
    """A feasible and bounded LP with an optimal basis chosen beforehand.

    Basic columns P and active rows Q are drawn, ``|P| = |Q|``, with a well-conditioned A[Q, P]; then a
    point, then the duals of Q and of the nonbasic columns with the signs that complementarity asks
    for; the bounds follow from the point, and c = A'y + d. All kinds of bounds (boxed, one-sided,
    fixed, free) and of rows (=, <=, >=, ranged, free) appear where n and m leave room for them.

    Args:
        rng: Everything is drawn from it.
        n, m: Variables and rows; either may be 0.
        kind: ``"generic"``: x and the duals unique and nondegenerate, margins of at least 0.5.
            ``"degenerate"``: some basic variables or rows stand at a bound (x unique, the duals need
            not be). ``"nonunique"``: some nonbasic duals are 0 (the duals unique, x need not be; the
            optimal face is bounded). ``"ambiguous"``: both.
        sense: ``"min"``, ``"max"``, or None to draw it.
        density: Share of stored entries beside those that make the basis regular.

    Raises:
        ValueError: an unknown kind or a negative size.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if n < 0 or m < 0:
        raise ValueError(f"n and m must not be negative, got {n} and {m}")
    if sense is None:
        sense = "min" if rng.random() < 0.5 else "max"
    most = min(n, m)
    size = int(rng.integers((most + 1) // 2, most + 1))
    basic_columns = rng.permutation(n)[:size]
    active_rows = rng.permutation(m)[:size]
    matrix = _matrix(rng, n, m, density, basic_columns, active_rows)

    is_basic, is_active = np.zeros(n, dtype=bool), np.zeros(m, dtype=bool)
    is_basic[basic_columns], is_active[active_rows] = True, True
    x = rng.uniform(-2, 2, n)
    # A basic column is at no bound, a nonbasic one at its own; rows: the other way round.
    lower, upper, d = _sides(rng, x, ~is_basic, ("lower", "upper", "boxed", "free"))
    row_lower, row_upper, y = _sides(rng, matrix @ x, is_active, ("lower", "upper", "boxed", "free"))

    if kind in ("degenerate", "ambiguous"):
        _touch(rng, x, lower, upper, np.flatnonzero(is_basic))
        _touch(rng, matrix @ x, row_lower, row_upper, np.flatnonzero(~is_active))
    if kind in ("nonunique", "ambiguous"):
        # Boxes on what may move keep the optimal face bounded.
        _slacken(rng, lower, upper, d, np.flatnonzero(~is_basic))
        _slacken(rng, row_lower, row_upper, y, np.flatnonzero(is_active))

    c = matrix.T @ y + d
    return LinearProgram(
        c if sense == "min" else -c,
        A=matrix,
        row_lower=row_lower,
        row_upper=row_upper,
        bounds=np.stack([lower, upper], axis=1),
        sense=sense,
        name=f"{kind} {n} x {m}",
    )


def _matrix(
    rng: np.random.Generator,
    n: int,
    m: int,
    density: float,
    columns: np.ndarray,
    rows: np.ndarray,
) -> sp.csc_array:
    """Random entries, with those that match columns to rows large enough for a regular basis."""
    dense = np.where(rng.random((m, n)) < density, rng.uniform(-2, 2, (m, n)), 0.0)
    match = rng.choice([-1.0, 1.0], len(rows)) * rng.uniform(1, 2, len(rows))
    dense[rows, columns] = match
    while len(rows) and np.linalg.cond(dense[np.ix_(rows, columns)]) > _CONDITION:
        match = 2 * match
        dense[rows, columns] = match
    return sp.csc_array(dense)


def _sides(
    rng: np.random.Generator, point: np.ndarray, active: np.ndarray, loose: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds around a point, and duals: active entries stand at a bound, the others strictly inside.

    Kinds are dealt in turn from a random start, so that all of them appear.
    """
    size = len(point)
    lower, upper, dual = np.full(size, -np.inf), np.full(size, np.inf), np.zeros(size)
    below, above = point - rng.uniform(*_GAP, size), point + rng.uniform(*_GAP, size)
    magnitude = rng.uniform(*_GAP, size)
    tight = ("equal", "at lower", "at upper", "boxed at lower", "boxed at upper")
    for kinds, where in ((tight, np.flatnonzero(active)), (loose, np.flatnonzero(~active))):
        start = int(rng.integers(len(kinds)))
        for turn, k in enumerate(rng.permutation(where)):
            kind = kinds[(start + turn) % len(kinds)]
            if kind in ("lower", "boxed", "boxed at upper"):
                lower[k] = below[k]
            if kind in ("upper", "boxed", "boxed at lower"):
                upper[k] = above[k]
            if kind in ("equal", "at lower", "boxed at lower"):
                lower[k], dual[k] = point[k], magnitude[k]
            if kind in ("equal", "at upper", "boxed at upper"):
                upper[k], dual[k] = point[k], -magnitude[k]
            if kind == "equal" and rng.random() < 0.5:
                dual[k] = magnitude[k]
    return lower, upper, dual


def _touch(
    rng: np.random.Generator,
    point: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    candidates: np.ndarray,
) -> None:
    """Move a bound of about half of the candidates (at least one) onto the point."""
    for k in _some(rng, candidates):
        side = lower if rng.random() < 0.5 else upper
        side[k] = point[k]


def _slacken(
    rng: np.random.Generator,
    lower: np.ndarray,
    upper: np.ndarray,
    dual: np.ndarray,
    candidates: np.ndarray,
) -> None:
    """Take the dual off about half of the candidates that are not fixed, and box them."""
    for k in _some(rng, candidates[lower[candidates] < upper[candidates]]):
        dual[k] = 0.0
        if np.isinf(lower[k]):
            lower[k] = upper[k] - rng.uniform(*_GAP)
        if np.isinf(upper[k]):
            upper[k] = lower[k] + rng.uniform(*_GAP)


def _some(rng: np.random.Generator, candidates: np.ndarray) -> np.ndarray:
    return rng.permutation(candidates)[: (len(candidates) + 1) // 2]
