"""Quadratic regularisation: the exact solution of a QP, and its exact Jacobian, by a linear oracle alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..status import SolveError
from .abstract import AbstractEstimator, Argmin

__all__ = ["Quadratic"]

_ROUNDS = 1000  # of calls to the oracle, and some more a variable: far beyond what a solve takes
_REACH = 2.0**-14  # of costs: how far probes move them at first
_FLOOR = 2.0**-30  # of that: where they end


@dataclass(frozen=True)
class Quadratic(AbstractEstimator):
    """x = argmin c'x + gamma/2 |x|^2 over the feasible set, or over its convex hull: a smooth vertex.

    It is the projection of -c / gamma (theta / gamma for a maximisation): sparsemax on the simplex, isotonic
    regression on the permutahedron (soft ranks). It is continuous and piecewise linear in c, with

        dL/dc = -(1/gamma) P g,    g = dL/dx,    P the projection onto the directions of the face of x.

    **x** comes from Wolfe's algorithm (kernels/corral.py), which asks for optimal vertices only, one call a
    round for the whole batch. So it is exact to rounding, and serves every backend, integer programs, and
    the problems of the library in their own parameters. A round makes x a combination of one vertex more, or
    of fewer; what is spread over many vertices (a large gamma) takes many rounds.

    **The face** is where c + gamma x is optimal: the hull of the vertices v with q'v = q'x, q = c + gamma x.
    The vertices that x was made of span it, unless fewer happen to do (the centre of a square is the middle
    of a diagonal). So it is probed: for a random r orthogonal to the span found so far, optimal vertices at
    q + delta r and q - delta r are the ends of the face along r, if delta is so small that they are on it,
    as q'v = q'x tells; else delta is made smaller. An end off x along r widens the span. A face with more
    directions than the span has an extent along almost every r, so where there is none the span is complete
    with probability one (r comes from a fixed seed). Where x is on the boundary of that face, its
    derivative has a kink, and this is the one on one side.

    Niculae, Blondel, "A Regularized Framework for Sparse and Structured Neural Attention", NeurIPS 2017;
    Niculae, Martins, Blondel, Cardie, "SparseMAP", ICML 2018, arXiv 1802.04223; Wolfe, "Finding the Nearest
    Point in a Polytope", Math. Programming 11, 1976.

    Args:
        strength: gamma > 0, in units of cost per unit of x.

    Raises:
        ValueError: strength is not positive and finite.
        SolveError: the feasible set is unbounded, and the linear program at some c + gamma x has no optimum
            (bound the variables); or rounding is in the way.
    """

    strength: float = 1.0
    smooths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise ValueError(f"Quadratic: strength must be positive, got {self.strength!r}")

    def forward(
        self, argmin: Argmin, c: np.ndarray, x: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, ...]:
        """x, (B, n); orthonormal rows that span the moves among the vertices it is made of, then zeros, (B,
        L, n); the largest number in vertices, (B,)."""
        from ..kernels.corral import FAILED, OPEN, advance, directions

        gamma, (size, n) = self.strength, c.shape
        c, x = np.ascontiguousarray(c), np.array(x, order="C")
        room = min(8, n + 1)
        origins, weights = np.zeros((size, n + 1)), np.zeros((size, room))
        corrals, lifted = np.zeros((size, room, n)), np.zeros((size, room, n + 1))
        triangles = np.zeros((size, room, room))
        count, state = np.ones(size, np.int64), np.zeros(size, np.int8)
        items, q, largest = np.arange(size), c + gamma * x, abs(x).max(1, initial=0.0)
        rounds = 0
        while len(items) and rounds < _ROUNDS + 50 * n:
            rounds += 1
            if room <= n and int(count.max()) == room:
                more = min(room, n + 1 - room)
                weights, corrals, lifted = (_longer(a, more) for a in (weights, corrals, lifted))
                triangles = np.concatenate([_longer(triangles, more), np.zeros((size, room + more, more))], 2)
                room += more
            found = argmin(q, items)
            largest[items] = np.maximum(largest[items], abs(found).max(1, initial=0.0))
            moved = np.empty_like(q)
            advance(
                *(c, found, items, gamma, 0, len(items)),
                *(x, moved, origins, weights, corrals, lifted, triangles, count, state),
            )
            still = state[items] == OPEN
            items, q = items[still], moved[still]
        failed = np.flatnonzero((state == FAILED) | (state == OPEN))
        if len(failed):
            told = ", ".join(map(str, failed[:5].tolist())) + (", ..." if len(failed) > 5 else "")
            raise SolveError(
                f"{self!r} did not get to an optimum for item(s) {told} in {rounds} rounds: rounding is in "
                f"the way where costs, or vertices, of very different sizes meet; rescale them, or choose "
                f"another strength"
            )
        spans = np.zeros((size, int(count.max(initial=1)) - 1, n))
        directions(lifted, count, spans)
        return x, spans, largest

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        from ..kernels.corral import OPEN, onto, widen

        gamma, (size, n) = self.strength, c.shape
        c, (x, spans, largest) = np.ascontiguousarray(c), map(np.ascontiguousarray, outputs)
        rank, state = (spans != 0).any(2).sum(1), np.zeros(size, np.int8)
        q = c + gamma * x
        # Far above the rounding of q, which is that of its terms at the vertices.
        reach = _REACH * (np.where(np.isfinite(c), abs(c), 0.0).max(1, initial=0.0) + gamma * largest)
        reach[reach == 0] = 1.0
        floor = reach * _FLOOR  # below, an oracle that is not exact says what it likes
        rng, projected = np.random.default_rng(0), np.empty((size, n))
        items = np.arange(size)
        while len(items):
            room = min(n, int(rank.max()) + 2)
            if spans.shape[1] < room:
                spans = _longer(spans, min(n, 2 * room) - spans.shape[1])
            r = rng.standard_normal((1, n))
            for _ in range(2):  # twice, for the sake of rounding
                onto(spans, rank, r, projected)
                r = r - projected
            probes = r[items]
            moves = reach[items, None] * probes
            found = argmin(np.concatenate([q[items] + moves, q[items] - moves]), items)
            widen(c, x, probes, found, items, gamma, reach, spans, rank, state)
            items = items[(state[items] == OPEN) & (reach[items] > floor[items])]
        onto(spans, rank, np.ascontiguousarray(g), projected)
        return projected / -gamma


def _longer(array: np.ndarray, more: int) -> np.ndarray:
    """(B, K, ...) with room for ``more`` along the second axis."""
    wide = np.zeros((len(array), array.shape[1] + more, *array.shape[2:]))
    wide[:, : array.shape[1]] = array
    return wide
