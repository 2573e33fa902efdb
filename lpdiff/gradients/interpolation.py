"""Interpolation of a piecewise constant vertex ("blackbox differentiation")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .abstract import AbstractEstimator, Argmin

__all__ = ["Interpolation"]


@dataclass(frozen=True)
class Interpolation(AbstractEstimator):
    """dL/dc = (x(c + lambda g) - x(c)) / lambda, with g = dL/dx: one more solve.

    The exact gradient of a continuous interpolation of L(x(c)), linearised at x: larger lambda, more
    informative and less faithful. Vlastelica, Paulus, Musil, Martius, Rolinek, "Differentiation of
    Blackbox Combinatorial Solvers", ICLR 2020, arXiv 1912.02175.

    Args:
        strength: lambda > 0, in units of cost per unit of g.

    Raises:
        ValueError: strength is not positive and finite.
    """

    strength: float = 10.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength > 0):
            raise ValueError(f"Interpolation: strength must be positive, got {self.strength!r}")

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        return (argmin(c + self.strength * g) - outputs[0]) / self.strength
