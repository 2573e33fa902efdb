"""The exact rule: dx/dc = 0, as it is almost everywhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..standard import Data
from .abstract import AbstractGradient, Resolve

__all__ = ["Exact"]


@dataclass(frozen=True)
class Exact(AbstractGradient):
    """x*(c) is piecewise constant, so its derivative is zero wherever it exists."""

    def cotangent(self, resolve: Resolve, data: Data, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)
