"""Slow and simple ways to the truth: enumeration on tiny polytopes, and finite differences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from ..program import LinearProgram

__all__ = ["OptimalFace", "enumerate_vertices", "finite_difference", "optimal_face"]

_MOST = 200_000  # systems that an enumeration may solve
_TOLERANCE = 1e-7


@dataclass(frozen=True, eq=False)
class OptimalFace:
    """All optimal vertices of an LP and of its dual, in the user's signs.

    Where ``bounded`` says so, the optimal sets are the convex hulls of these points, and the Clarke
    set of the value is conv{(x, y, -y x')}: see theory. The duals are the vertices of the dual with
    y and d split into positive and negative parts; a few are no extreme points of the hull.
    """

    value: float  # without the program's offset
    x: np.ndarray  # (K, n)
    y: np.ndarray  # (L, m)
    d: np.ndarray  # (L, n), row by row with y
    x_bounded: bool
    y_bounded: bool


def enumerate_vertices(lp: LinearProgram) -> np.ndarray:
    """All vertices (basic feasible points) of the feasible set, (K, n) float64, in lexicographic order.

    A set that contains a line has none.

    Raises:
        ValueError: too many candidates; this is for tiny programs.
    """
    n = lp.n
    if n == 0:
        feasible = np.all(lp.row_lower <= 0) and np.all(lp.row_upper >= 0)
        return np.zeros((int(feasible), 0))
    dense = lp.A.toarray()
    planes = np.vstack([dense, np.eye(n)])
    lower = np.concatenate([lp.row_lower, lp.lower])
    upper = np.concatenate([lp.row_upper, lp.upper])
    # Each finite side is a hyperplane that a vertex may lie on.
    sides = [(k, lower[k]) for k in range(len(planes)) if np.isfinite(lower[k])]
    sides += [(k, upper[k]) for k in range(len(planes)) if np.isfinite(upper[k]) and upper[k] != lower[k]]
    _check_count(math.comb(len(sides), n), lp)
    if len(sides) < n:
        return np.zeros((0, n))
    chosen = np.array(list(itertools.combinations(range(len(sides)), n)))
    which = np.array([k for k, _ in sides])[chosen]  # (K, n)
    chosen, which = (
        array[(np.diff(np.sort(which, axis=1), axis=1) > 0).all(axis=1)] for array in (chosen, which)
    )
    level = np.array([value for _, value in sides])[chosen]
    points = _solve_regular(planes[which], level)
    scale = _TOLERANCE * (1 + np.abs(points).max(axis=1, initial=0.0))[:, None]
    activity = points @ planes.T
    inside = np.all((activity >= lower - scale) & (activity <= upper + scale), axis=1)
    return _distinct(points[inside])


def optimal_face(lp: LinearProgram) -> OptimalFace:
    """All optimal vertices of a tiny LP, primal and dual, by enumeration.

    Raises:
        ValueError: too large; infeasible, unbounded, or without a vertex.
    """
    sign, c = lp.form.sign, lp.data.c[0]
    x = enumerate_vertices(lp)
    y, d, dual_values = _dual_vertices(lp)
    if len(x) == 0 or len(y) == 0:
        raise ValueError(f"{lp.name or 'the program'} is infeasible, unbounded, or has no vertex")
    values = x @ c
    value = float(values.min())
    tolerance = _TOLERANCE * (1 + abs(value))
    x = x[values <= value + tolerance]
    best = dual_values >= value - tolerance
    pairs = _distinct(np.hstack([y[best], d[best]]))
    return OptimalFace(
        value=sign * value,
        x=x,
        y=sign * pairs[:, : lp.m] + 0.0,
        d=sign * pairs[:, lp.m :] + 0.0,
        x_bounded=_primal_bounded(lp, c),
        y_bounded=_dual_bounded(lp),
    )


def finite_difference(f: Callable[[Any], Any], x: Any, direction: Any, *, step: float = 1e-5) -> np.ndarray:
    """Central difference (f(x + h v) - f(x - h v)) / 2h.

    Args:
        f: Takes arrays like x and returns numbers or arrays; NumPy or torch.
        x, direction: Arrays of one shape, or tuples of arrays (then f takes the tuple's members).
        step: h.

    Returns:
        float64, of the shape of f's result.
    """
    several = isinstance(x, tuple)
    xs, vs = (x, direction) if several else ((x,), (direction,))
    if len(xs) != len(vs):
        raise ValueError(f"x has {len(xs)} arrays, direction {len(vs)}")

    def at(h: float) -> np.ndarray:
        moved = [a + h * v for a, v in zip(xs, vs, strict=True)]
        result = f(*moved)
        return np.asarray(result.detach() if hasattr(result, "detach") else result, dtype=np.float64)

    return (at(step) - at(-step)) / (2 * step)


# -- pieces ----------------------------------------------------------------------------------------


def _dual_vertices(lp: LinearProgram) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (y, d) of the dual in the sense of min, and their values.

    max rl'y+ - ru'y- + l'd+ - u'd-   s.t.  A'(y+ - y-) + d+ - d- = c,  all parts >= 0, and 0 where
    the side is infinite.
    """
    n, m = lp.n, lp.m
    transposed = np.hstack([lp.A.toarray().T, np.eye(n)])  # (n, m + n)
    lower = np.concatenate([lp.row_lower, lp.lower])
    upper = np.concatenate([lp.row_upper, lp.upper])
    plus, minus = np.flatnonzero(np.isfinite(lower)), np.flatnonzero(np.isfinite(upper))
    matrix = np.hstack([transposed[:, plus], -transposed[:, minus]])
    gain = np.concatenate([lower[plus], -upper[minus]])
    c = lp.data.c[0]
    # Dependent rows (of columns that have no bound and no row of their own) must agree and go.
    rank = 0
    independent: list[int] = []
    for row in range(n):
        grown = int(np.linalg.matrix_rank(matrix[[*independent, row]])) if matrix.size else 0
        if grown > rank:
            rank, independent = grown, [*independent, row]
    parts = np.zeros((1, matrix.shape[1]))
    if rank:
        _check_count(math.comb(matrix.shape[1], rank), lp)
        chosen = np.array(list(itertools.combinations(range(matrix.shape[1]), rank)))
        systems = matrix[independent][:, chosen].transpose(1, 0, 2)  # (K, rank, rank)
        basic, kept = _solve_regular_kept(systems, np.broadcast_to(c[independent], chosen.shape))
        parts = np.zeros((len(basic), matrix.shape[1]))
        np.put_along_axis(parts, chosen[kept], basic, axis=1)
    scale = _TOLERANCE * (1 + np.abs(parts).max(axis=1, initial=0.0) + np.abs(c).max(initial=0.0))
    feasible = parts.min(axis=1, initial=0.0) >= -scale
    feasible &= np.abs(parts @ matrix.T - c).max(axis=1, initial=0.0) <= scale
    parts = np.maximum(parts[feasible], 0.0)
    joint = np.zeros((len(parts), m + n))
    np.add.at(joint.T, plus, parts[:, : len(plus)].T)
    np.subtract.at(joint.T, minus, parts[:, len(plus) :].T)
    return joint[:, :m], joint[:, m:], parts @ gain


def _primal_bounded(lp: LinearProgram, c: np.ndarray) -> bool:
    """Whether no direction r != 0 stays in the feasible set with c'r = 0."""

    def cone(lower: np.ndarray, upper: np.ndarray, most: float) -> np.ndarray:
        down, up = np.where(np.isfinite(lower), 0.0, -most), np.where(np.isfinite(upper), 0.0, most)
        return np.stack([down, up], axis=1)

    # A cone: how far the box reaches does not matter.
    box = cone(lp.lower, lp.upper, 1.0)
    sides = np.vstack([cone(lp.row_lower, lp.row_upper, np.inf), np.zeros((1, 2))])
    return _only_zero(np.vstack([lp.A.toarray(), c[None]]), sides, box)


def _dual_bounded(lp: LinearProgram) -> bool:
    """Whether no (y, d) != 0 with A'y + d = 0 keeps the dual's signs and value."""
    lower = np.concatenate([lp.row_lower, lp.lower])
    upper = np.concatenate([lp.row_upper, lp.upper])
    plus, minus = np.isfinite(lower), np.isfinite(upper)
    both = np.hstack([lp.A.toarray().T, np.eye(lp.n)])
    # Split, so that the value is linear. The parts of a fixed variable's d may grow without moving d:
    # only their difference counts.
    gain = np.concatenate([np.where(plus, lower, 0.0), -np.where(minus, upper, 0.0)])
    system = np.vstack([np.hstack([both, -both]), gain[None]])
    box = np.zeros((2 * len(lower), 2))
    box[:, 1] = np.concatenate([plus, minus])
    difference = np.hstack([np.eye(len(lower)), -np.eye(len(lower))])
    return _only_zero(system, np.zeros((len(system), 2)), box, difference)


def _only_zero(
    matrix: np.ndarray, sides: np.ndarray, box: np.ndarray, seen: np.ndarray | None = None
) -> bool:
    """Whether ``seen @ r = 0`` for all r in the box with matrix @ r between the sides."""
    size = matrix.shape[1]
    seen = np.eye(size) if seen is None else seen
    constraint = scipy.optimize.LinearConstraint(matrix, sides[:, 0], sides[:, 1])
    for row in seen:
        for direction in (row, -row):
            found = scipy.optimize.milp(
                direction,
                constraints=constraint,
                bounds=scipy.optimize.Bounds(box[:, 0], box[:, 1]),
            )
            if found.fun < -1e-6:
                return False
    return True


def _check_count(count: int, lp: LinearProgram) -> None:
    if count > _MOST:
        raise ValueError(
            f"{lp.n} variables and {lp.m} rows make {count} candidates; enumeration is for tiny "
            f"programs, up to {_MOST} of them"
        )


def _solve_regular(matrices: np.ndarray, levels: np.ndarray) -> np.ndarray:
    return _solve_regular_kept(matrices, levels)[0]


def _solve_regular_kept(matrices: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solutions of the regular ones among the systems, (K', n), and which those are, (K,) bool."""
    if len(matrices) == 0:
        return np.zeros(levels.shape), np.zeros(0, dtype=bool)
    spread = np.linalg.svd(matrices, compute_uv=False)
    regular = spread[:, -1] > 1e-10 * spread[:, 0]
    return np.linalg.solve(matrices[regular], levels[regular][..., None])[..., 0], regular


def _distinct(points: np.ndarray) -> np.ndarray:
    """One of each group of equal points, in lexicographic order."""
    if len(points) == 0:
        return points
    points = points[np.lexsort(np.round(points, 6).T[::-1])] if points.shape[1] else points[:1]
    kept: list[np.ndarray] = []
    for point in points + 0.0:
        if not any(np.allclose(point, other, rtol=1e-6, atol=1e-6) for other in kept):
            kept.append(point)
    return np.array(kept)
