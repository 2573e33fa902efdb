"""Means over seeds, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Interval", "interval", "paired"]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval.

    Attributes:
        mean: Of the values.
        half: Half the width of the interval; None for a single value, which tells nothing of its spread.
        count: How many values.
    """

    mean: float
    half: float | None
    count: int

    @property
    def low(self) -> float | None:
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        return None if self.half is None else self.mean + self.half

    @property
    def apart(self) -> bool:
        """Whether the interval does not hold zero."""
        return self.half is not None and abs(self.mean) > self.half

    def text(self, digits: int = 1, scale: float = 1.0, *, sign: bool = False) -> str:
        """``97.1 ± 0.4``; without the second where there is one value only; ``sign``: ``+97.1``."""
        told = f"{scale * self.mean:{'+' * sign}.{digits}f}"
        return told if self.half is None else f"{told} ± {scale * self.half:.{digits}f}"


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean: mean ± t s / sqrt(n), of values taken as normal and independent.

    Args:
        values: One a seed.
        level: Of confidence.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("expected at least one value to take the mean of, got none")
    array = np.asarray(values, dtype=float)
    if len(array) == 1:
        return Interval(float(array[0]), None, 1)
    error = array.std(ddof=1) / np.sqrt(len(array))
    quantile = stats.t.ppf(0.5 + level / 2, len(array) - 1)
    return Interval(float(array.mean()), float(quantile * error), len(array))


def paired(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Interval of the mean difference, first less second, of runs with the same seeds in the same order.

    Raises:
        ValueError: unequal numbers of values, or none.
    """
    if len(first) != len(second):
        raise ValueError(f"expected a pair a seed, got {len(first)} and {len(second)} values")
    return interval([a - b for a, b in zip(first, second, strict=True)], level)
