"""Lagrangian proximal gradient descent: one perturbed solve gives derivatives in all the numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..basis import Tangents
from ..standard import Data
from .abstract import AbstractProgramRule, Entries, Optimum, Resolve

__all__ = ["LPGD"]


@dataclass(frozen=True)
class LPGD(AbstractProgramRule):
    """Finite differences of the Lagrangian between the optimum and one that the loss has moved.

    With gx = dL/dx, gy = dL/dy, the program is solved again at c + tau gx and, on both sides of the rows,
    r + tau gy; with (x', y', d') from there,

        dL/dc = (x' - x) / tau,    dL/dA = -(y' x'^T - y x^T) / tau,
        dL/drl = (y'+ - y+) / tau,    dL/dru = -(y'- - y-) / tau,    and the same with d' and d for bounds.

    In c it is ``Interpolation``; in b, A and the bounds it is the exact derivative as long as the basis does
    not change. Paulus, Martius, Musil, "LPGD: A General Framework for Backpropagation through Embedded
    Optimization Layers", ICML 2024, arXiv 2407.05920 (rho = 0).

    Args:
        strength: tau > 0.

    Raises:
        ValueError: strength is not positive and finite.
    """

    strength: float = 1e-2

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise ValueError(f"LPGD: strength must be positive, got {self.strength!r}")

    def cotangents(
        self, resolve: Resolve, entries: Entries, data: Data, here: Optimum, gx: np.ndarray, gy: np.ndarray
    ) -> Tangents:
        tau, move = self.strength, self.strength * gy
        there = resolve(
            dataclasses.replace(
                data,
                c=data.c + tau * gx,
                row_lower=data.row_lower + move,
                row_upper=data.row_upper + move,
            )
        )
        rows, cols = entries
        a, b = there, here
        return Tangents(
            c=(a.x - b.x) / tau,
            values=-(a.y[:, rows] * a.x[:, cols] - b.y[:, rows] * b.x[:, cols]) / tau,
            row_lower=(np.maximum(a.y, 0) - np.maximum(b.y, 0)) / tau,
            row_upper=(np.minimum(a.y, 0) - np.minimum(b.y, 0)) / tau,
            lower=(np.maximum(a.d, 0) - np.maximum(b.d, 0)) / tau,
            upper=(np.minimum(a.d, 0) - np.minimum(b.d, 0)) / tau,
        )
