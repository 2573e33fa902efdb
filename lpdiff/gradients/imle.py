"""Implicit maximum likelihood: perturb and solve, and differences of those solutions as gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .abstract import AbstractEstimator, Argmin, make_generator
from .noise import AbstractNoise, draw, make_noise
from .strength import Strength, make_strength, positive, slopes, whole

__all__ = ["IMLE"]


@dataclass(frozen=True)
class IMLE(AbstractEstimator):
    """x = mean of x(c - eps Z_m) over M samples, and with g = dL/dx

        dL/dc = (1 / (lambda M)) sum_m [x(c - eps Z_m + lambda g) - x(c - eps Z_m)],

    M more solves in backward, as one batch: the gradient of the divergence between the distribution that
    perturb-and-solve samples from and one that the loss would rather have, with the noise shared by both.
    It is ``Interpolation`` at each sample. Two-sided, the differences are between + and - lambda g, over
    2 lambda: 2 M solves. (Z stands behind a minus since it is added to what is maximised, -c.) Niepert,
    Minervini, Franceschi, "Implicit MLE: Backpropagating Through Discrete Exponential Family Distributions",
    NeurIPS 2021, arXiv 2106.01798.

    With ``strength="adaptive"``, lambda follows how many entries of the differences are not zero: see
    ``Adaptive``, the state, which stands in ``rule.strength``. Minervini, Franceschi, Niepert, AAAI 2023,
    arXiv 2209.04862.

    x itself is the mean, no vertex, so it has no derivative in b, A and the bounds; the optimal value does
    not change.

    Args:
        strength: lambda > 0, as in ``Interpolation``; ``"adaptive"``, or an ``Adaptive``.
        temperature: eps > 0, in units of cost.
        samples: M.
        noise: ``"sum_of_gamma"`` (of degree 5; better a ``SumOfGamma`` of the number of ones in a solution),
            ``"gumbel"``, ``"gaussian"``, or an ``AbstractNoise``.
        relative, two_sided: As in ``Interpolation``.
        generator: As in ``Perturbed``.

    Raises:
        ValueError: a number out of range, or unknown noise.
        TypeError: noise or a generator of another kind.
    """

    strength: Strength = 10.0
    temperature: float = 1.0
    samples: int = 10
    noise: str | AbstractNoise = "sum_of_gamma"
    relative: bool = False
    two_sided: bool = False
    generator: Any = field(default=None, repr=False)

    smooths = True
    is_random = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", make_strength("IMLE", self.strength))
        positive("IMLE", "temperature", self.temperature)
        whole("IMLE", "samples", self.samples)
        object.__setattr__(self, "noise", make_noise("IMLE", self.noise))
        object.__setattr__(self, "generator", make_generator(self.generator))

    def forward(
        self, argmin: Argmin, c: np.ndarray, x: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, ...]:
        assert rng is not None and isinstance(self.noise, AbstractNoise)
        z = draw(self.noise, rng, (len(c), self.samples, c.shape[1]))  # an item after the other
        costs = c - self.temperature * z.swapaxes(0, 1)
        found = argmin(costs.reshape(-1, c.shape[1])).reshape(costs.shape)
        return found.mean(axis=0), found.swapaxes(0, 1), z

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        found, z = (array.swapaxes(0, 1) for array in outputs[1:])
        points = c - self.temperature * z
        return slopes(
            argmin, points, found, c, g, self.strength, relative=self.relative, two_sided=self.two_sided
        )
