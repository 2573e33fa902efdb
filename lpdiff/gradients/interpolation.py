"""Interpolation of a piecewise constant vertex ("blackbox differentiation")."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..standard import Data
from .abstract import AbstractGradient, Resolve

__all__ = ["Interpolation"]


@dataclass(frozen=True)
class Interpolation(AbstractGradient):
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

    def cotangent(self, resolve: Resolve, data: Data, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        moved = resolve(dataclasses.replace(data, c=data.c + self.strength * g))
        return (moved - x) / self.strength
