"""Lagrangian proximal gradient descent: one perturbed solve gives derivatives in all the numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..basis import Tangents
from ..standard import Data
from .abstract import AbstractProgramRule, Entries, Optimum, Resolve
from .strength import positive

__all__ = ["LPGD"]

_SIDES = {"lower": (1, 0), "upper": (0, -1), "average": (1, -1)}  # differences between which multiples of tau


@dataclass(frozen=True)
class LPGD(AbstractProgramRule):
    """Finite differences of the Lagrangian between optima that the loss has moved.

    With gx = dL/dx, gy = dL/dy, let (x', y', d') be optimal at c + tau gx and, on both sides of the rows,
    r + tau gy. The loss, linearised and added tau times to the Lagrangian c^T x + y^T (r - A x) + ..., asks
    for these. For the *lower* envelope,

        dL/dc = (x' - x) / tau,    dL/dA = -(y' x'^T - y x^T) / tau,
        dL/drl = (y'+ - y+) / tau,    dL/dru = -(y'- - y-) / tau,    and the same with d' and d for bounds.

    The *upper* one takes the differences between here and -tau; the *average* one those between tau and -tau,
    over 2 tau, with both solved in one batch. Paulus, Martius, Musil, "LPGD: A General Framework for
    Backpropagation through Embedded Optimization Layers", ICML 2024, arXiv 2407.05920 (rho = 0).

    In c it is ``Interpolation``, and as coarse. In b and the bounds it is the exact derivative as long as the
    basis does not change between these points. So it is in A up to O(tau), and exactly with "average": there
    the differences are of products y x^T, in which both factors move along straight lines. tau moves costs
    and right-hand sides at once, which have units of their own, so it is never relative. A moved program may
    have no optimum: an error then. Integer programs have no duals: refused.

    Args:
        strength: tau > 0.
        envelope: ``"lower"``, ``"upper"`` or ``"average"``.

    Raises:
        ValueError: strength is not positive and finite, or another envelope.
    """

    strength: float = 1e-2
    envelope: str = "lower"

    def __post_init__(self) -> None:
        positive("LPGD", "strength", self.strength)
        if self.envelope not in _SIDES:
            raise ValueError(f"LPGD: envelope must be 'lower', 'upper' or 'average', got {self.envelope!r}")

    def cotangents(
        self, resolve: Resolve, entries: Entries, data: Data, here: Optimum, gx: np.ndarray, gy: np.ndarray
    ) -> Tangents:
        sides = _SIDES[self.envelope]
        moves = [self.strength * side for side in sides if side]
        stacked = data.take(np.tile(np.arange(data.size), len(moves)))
        there = resolve(
            dataclasses.replace(
                stacked,
                c=np.concatenate([data.c + move * gx for move in moves]),
                row_lower=np.concatenate([data.row_lower + move * gy for move in moves]),
                row_upper=np.concatenate([data.row_upper + move * gy for move in moves]),
            )
        )
        solved = iter(zip(*(np.split(array, len(moves)) for array in there), strict=True))
        a, b = (Optimum(*next(solved)) if side else here for side in sides)
        tau = self.strength * len(moves)
        rows, cols = entries
        return Tangents(
            c=(a.x - b.x) / tau,
            values=-(a.y[:, rows] * a.x[:, cols] - b.y[:, rows] * b.x[:, cols]) / tau,
            row_lower=(np.maximum(a.y, 0) - np.maximum(b.y, 0)) / tau,
            row_upper=(np.minimum(a.y, 0) - np.minimum(b.y, 0)) / tau,
            lower=(np.maximum(a.d, 0) - np.maximum(b.d, 0)) / tau,
            upper=(np.minimum(a.d, 0) - np.minimum(b.d, 0)) / tau,
        )
