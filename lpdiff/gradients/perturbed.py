"""The perturbed optimiser: x averaged over random costs, smooth in c."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .abstract import AbstractEstimator, Argmin, make_generator
from .noise import AbstractNoise, Gaussian, draw, make_noise
from .strength import positive, whole

__all__ = ["Perturbed"]


@dataclass(frozen=True)
class Perturbed(AbstractEstimator):
    """x_eps(c) = E x(c - eps Z), by the mean of M samples, which are solved as one batch.

    Smooth in c wherever Z has a smooth density p. Substitute u = c - eps Z and differentiate p((c - u) / eps)
    under the integral; with score(z) = -d/dz log p(z) and g = dL/dx,

        dL/dc = -(1 / (eps M)) sum_m (g^T x(c - eps Z_m) - baseline_m) score(Z_m),

    unbiased for the derivative of x_eps, from the samples of the forward pass: no more solves. (Z stands
    behind a minus since it is added to what is maximised, -c: Gumbel noise on the simplex makes the softmax
    of -c / eps.) Berthet, Blondel, Teboul, Cuturi, Vert, Bach, "Learning with Differentiable Perturbed
    Optimizers", NeurIPS 2020, arXiv 2002.08676.

    Multiplicative, with Gaussian Z, costs keep their sign (and so shortest paths their solution):

        x_eps(c) = E x(c * exp(eps Z - eps^2 / 2)),    dL/dc = (1 / (eps M c)) sum_m (... as above) Z_m.

    A cost of zero stays zero under every Z, and gets no gradient. Dalle, Baty, Bouvier, Parmentier, "Learning
    with Combinatorial Optimization Layers: a Probabilistic Approach", 2022, arXiv 2207.13513.

    The leave-one-out baseline is the mean of g^T x over the other samples (other pairs): independent of Z_m,
    so it takes variance away and adds no bias. Antithetic pairs are Z and its mirror image of the same
    distribution.

    x itself is the mean, no vertex, so it has no derivative in b, A and the bounds; the optimal value does
    not change.

    Args:
        temperature: eps > 0, in units of cost (multiplicative: relative).
        samples: M.
        noise: ``"gaussian"``, ``"gumbel"``, or an ``AbstractNoise`` with a score.
        multiplicative: See above.
        antithetic: Draw pairs; M must be even, and the noise have a mirror.
        leave_one_out: Subtract that baseline, where there is more than one sample (pair).
        generator: None (torch's default generator), a seed, a ``numpy.random.Generator`` or a
            ``torch.Generator``. A seed starts a generator that belongs to this rule, and moves on.

    Raises:
        ValueError: a number out of range, unknown noise, noise that lacks what is asked of it.
        TypeError: noise or a generator of another kind.
    """

    temperature: float = 1.0
    samples: int = 10
    noise: str | AbstractNoise = "gaussian"
    multiplicative: bool = False
    antithetic: bool = False
    leave_one_out: bool = True
    generator: Any = field(default=None, repr=False)

    smooths = True
    is_random = True

    def __post_init__(self) -> None:
        positive("Perturbed", "temperature", self.temperature)
        whole("Perturbed", "samples", self.samples)
        noise = make_noise("Perturbed", self.noise)
        object.__setattr__(self, "noise", noise)
        object.__setattr__(self, "generator", make_generator(self.generator))
        if type(noise).score is AbstractNoise.score:
            raise ValueError(
                f"Perturbed: noise must have a score, got {noise!r}: use 'gaussian' or 'gumbel', define "
                f"score, or use IMLE, which needs none"
            )
        if self.multiplicative and not isinstance(noise, Gaussian):
            raise ValueError(f"Perturbed: multiplicative noise must be 'gaussian', got {noise!r}")
        if self.antithetic and self.samples % 2:
            raise ValueError(f"Perturbed: antithetic samples come in pairs, got samples={self.samples}")
        if self.antithetic and type(noise).mirror is AbstractNoise.mirror:
            raise ValueError(f"Perturbed: antithetic noise must have a mirror, got {noise!r}: define mirror")

    def forward(
        self, argmin: Argmin, c: np.ndarray, x: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, ...]:
        assert rng is not None
        z = self.draws(rng, c.shape)
        costs = self._perturbed(c, z)
        found = argmin(costs.reshape(-1, c.shape[1])).reshape(costs.shape)
        return found.mean(axis=0), found.swapaxes(0, 1), z.swapaxes(0, 1)

    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        assert isinstance(self.noise, AbstractNoise)
        _, found, z = outputs
        weight = self._without_baseline((found * g[:, None]).sum(axis=2))
        total = (weight[:, :, None] * self.noise.score(z)).mean(axis=1) / self.temperature
        if self.multiplicative:
            return np.divide(total, c, out=np.zeros_like(c), where=c != 0)
        return -total

    def draws(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Noise for costs of that shape, ``(M, *shape)``; antithetic: one of each pair, then the others.

        An item after the other, so that what comes later in a batch does not change what comes before.
        """
        assert isinstance(self.noise, AbstractNoise)
        z = draw(self.noise, rng, (shape[0], self.samples // self._each, *shape[1:])).swapaxes(0, 1)
        return np.concatenate([z, self.noise.mirror(z)]) if self.antithetic else z

    @property
    def _each(self) -> int:
        """Samples of one independent draw."""
        return 2 if self.antithetic else 1

    def _perturbed(self, c: np.ndarray, z: np.ndarray) -> np.ndarray:
        if self.multiplicative:
            return c * np.exp(self.temperature * z - self.temperature**2 / 2)
        return c - self.temperature * z

    def _without_baseline(self, value: np.ndarray) -> np.ndarray:
        """(B, M) values of samples, each less the mean over the other draws."""
        draws = self.samples // self._each
        if not self.leave_one_out or draws == 1:
            return value
        own = value.reshape(len(value), self._each, draws).mean(axis=1)
        others = (own.sum(axis=1, keepdims=True) - own) / (draws - 1)
        return value - np.concatenate([others] * self._each, axis=1)
