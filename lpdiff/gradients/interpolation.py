"""Interpolation of a piecewise constant vertex ("blackbox differentiation")."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .abstract import AbstractEstimator, Argmin
from .strength import Strength, make_strength, slopes

__all__ = ["Interpolation"]


@dataclass(frozen=True)
class Interpolation(AbstractEstimator):
    """dL/dc = (x(c + lambda g) - x(c)) / lambda, with g = dL/dx: one more solve.

    The exact gradient of a continuous interpolation of L(x(c)), linearised at x: larger lambda, more
    informative and less faithful. Zero where a step of lambda g does not reach another vertex. Vlastelica,
    Paulus, Musil, Martius, Rolinek, "Differentiation of Blackbox Combinatorial Solvers", ICLR 2020, arXiv
    1912.02175.

    Two-sided, dL/dc = (x(c + lambda g) - x(c - lambda g)) / (2 lambda): the mean of this and of the same from
    the other side, with both solved in one batch.

    Args:
        strength: lambda > 0, in units of cost per unit of g; or, with ``relative``, the length of the step
            beside that of the costs, lambda = strength |c| / |g| an item, for which scales of c and g (a mean
            over the batch, say) do not matter. ``"adaptive"``, or an ``Adaptive``: relative, and learned.
        relative: See ``strength``. Costs that are all zero have no size: |c| counts as 1 there.
        two_sided: Differences to both sides.

    Raises:
        ValueError: strength is not positive and finite.
    """

    strength: Strength = 10.0
    relative: bool = False
    two_sided: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", make_strength("Interpolation", self.strength))

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        at, x = c[None], outputs[0][None]
        return slopes(argmin, at, x, c, g, self.strength, relative=self.relative, two_sided=self.two_sided)
