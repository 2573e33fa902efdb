"""The solver as a negative identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .abstract import AbstractEstimator, Argmin
from .strength import norms

__all__ = ["Identity"]

_PROJECTIONS = (None, "mean", "norm", "both")


@dataclass(frozen=True)
class Identity(AbstractEstimator):
    """dL/dc = -P'(c)^T g, with g = dL/dx: no solve at all.

    To lower the loss, x should move along -g; a vertex moves that way where costs move along g, so dx/dc is
    replaced by -I. What does not change the solution is projected out of c first (and so out of the gradient,
    by the chain rule), for the rest of the model would follow it nonetheless:

        "mean"  P(c) = c - mean(c),       P'^T g = g - mean(g)
        "norm"  P(c) = c / |c|,           P'^T g = (g - c (c^T g) / |c|^2) / |c|
        "both"  P(c) = norm(mean(c)),     P'^T g = mean'^T norm'(c - mean(c))^T g

    "norm" always holds, since only the direction of c counts; "mean" holds where all solutions have the same
    sum (ranking, top-k, assignment, paths of one length). Where c, or c - mean(c), is zero it has no
    direction: nothing more is projected out, and its norm counts as 1. Sahoo, Paulus, Vlastelica, Musil,
    Kuleshov, Martius, "Backpropagation through Combinatorial Algorithms: Identity with Projection Works",
    ICLR 2023, arXiv 2205.15213, equations 11 to 14.

    Args:
        projection: None, ``"mean"``, ``"norm"`` or ``"both"``.

    Raises:
        ValueError: another projection.
    """

    projection: str | None = None

    def __post_init__(self) -> None:
        if self.projection not in _PROJECTIONS:
            raise ValueError(
                f"Identity: projection must be None, 'mean', 'norm' or 'both', got {self.projection!r}"
            )

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        free = np.isfinite(c)  # costs of +inf forbid, and are no part of c
        c = np.where(free, c, 0.0)
        if self.projection in ("mean", "both"):
            c = _without_mean(c, free)
        if self.projection in ("norm", "both"):
            size = norms(c)
            size = np.where(size > 0, size, 1.0)
            unit = c / size
            g = (g - unit * (unit * g).sum(axis=1, keepdims=True)) / size
        if self.projection in ("mean", "both"):
            g = _without_mean(g, free)
        return -g


def _without_mean(v: np.ndarray, free: np.ndarray) -> np.ndarray:
    """v less its mean over free entries, and zero at the others."""
    count = np.maximum(free.sum(axis=1, keepdims=True), 1)
    return np.where(free, v - v.sum(axis=1, keepdims=True, where=free) / count, 0.0)
