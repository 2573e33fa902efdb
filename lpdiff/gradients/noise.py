"""Noise for rules that perturb the costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from .strength import positive, whole

__all__ = ["AbstractNoise", "Gaussian", "Gumbel", "SumOfGamma", "draw", "make_noise"]


class AbstractNoise(ABC):
    """Independent, identically distributed noise Z.

    It is added to what is maximised, that is, to -c: a Gumbel here is the Gumbel of the textbooks, for min
    and for max.
    """

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Draws of that shape, float64, the first dimension slowest: items are the same whatever follows."""

    def score(self, z: np.ndarray) -> np.ndarray:
        """-d/dz log density(z), entry by entry; for rules that are estimators of a score function."""
        raise NotImplementedError(f"{type(self).__name__} has no score")

    def mirror(self, z: np.ndarray) -> np.ndarray:
        """Draws of the same distribution, each as far to the other side as z: quantile(1 - cdf(z)); for
        antithetic pairs."""
        raise NotImplementedError(f"{type(self).__name__} has no mirror")


@dataclass(frozen=True)
class Gaussian(AbstractNoise):
    """The standard normal: density exp(-z^2 / 2) / sqrt(2 pi), score z."""

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape)

    def score(self, z: np.ndarray) -> np.ndarray:
        return z

    def mirror(self, z: np.ndarray) -> np.ndarray:
        return -z


@dataclass(frozen=True)
class Gumbel(AbstractNoise):
    """The standard Gumbel: density exp(-z - exp(-z)), score 1 - exp(-z).

    On the simplex it makes the softmax of -c / temperature: P(argmax_j (t_j + Z_j) = i) = softmax(t)_i.
    """

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.gumbel(size=shape)

    def score(self, z: np.ndarray) -> np.ndarray:
        return 1 - np.exp(-z)

    def mirror(self, z: np.ndarray) -> np.ndarray:
        # cdf u = exp(-t) with t = exp(-z), and z = -log(-log u): so the other is -log(-log(1 - u)).
        t = np.exp(-z)
        with np.errstate(divide="ignore"):
            upper = np.where(t < 0.5, np.log(-np.expm1(-t)), np.log1p(-np.exp(-t)))
            return -np.log(-upper)


@dataclass(frozen=True)
class SumOfGamma(AbstractNoise):
    """Z = (sum_{i=1}^s Gamma(shape 1/k, scale k/i) - log s) / k.

    The sum of k independent ones tends to a Gumbel as s grows, so for solutions of k ones it is the objective
    of a solution, rather than each cost, that gets Gumbel noise. Niepert, Minervini, Franceschi, "Implicit
    MLE", NeurIPS 2021, arXiv 2106.01798, section 3.2.

    Args:
        degree: k > 0, how many ones a solution has.
        terms: s.

    Raises:
        ValueError: degree is not positive, or terms no whole number of at least 1.
    """

    degree: float = 5.0
    terms: int = 10

    def __post_init__(self) -> None:
        positive("SumOfGamma", "degree", self.degree)
        whole("SumOfGamma", "terms", self.terms)

    def sample(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        parts = rng.standard_gamma(1 / self.degree, (*shape, self.terms))
        parts /= np.arange(1, self.terms + 1)  # Gamma(shape 1/k, scale k/i) / k
        return parts.sum(axis=-1) - np.log(self.terms) / self.degree


_NAMES: dict[str, type[AbstractNoise]] = {
    "gaussian": Gaussian,
    "gumbel": Gumbel,
    "sum_of_gamma": SumOfGamma,
}


def make_noise(owner: str, noise: Any) -> AbstractNoise:
    """Noise by name, or as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor noise.
    """
    if isinstance(noise, AbstractNoise):
        return noise
    if isinstance(noise, str):
        if noise not in _NAMES:
            raise ValueError(f"{owner}: unknown noise {noise!r}, expected one of {', '.join(_NAMES)}")
        return _NAMES[noise]()
    raise TypeError(
        f"{owner}: noise must be one of {', '.join(_NAMES)} or an lpdiff.gradients.AbstractNoise, got "
        f"{type(noise).__name__}"
    )


def draw(noise: AbstractNoise, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of a shape, checked: users may have written it.

    Raises:
        ValueError: another shape came back, or numbers that are not finite.
    """
    z = np.require(noise.sample(rng, shape), np.float64, ["C", "W"])
    if z.shape != shape:
        raise ValueError(f"{type(noise).__name__}.sample: expected shape {shape}, got {z.shape}")
    if not np.isfinite(z).all():
        raise ValueError(f"{type(noise).__name__}.sample: expected finite numbers, got NaN or infinity")
    return z
