"""The contract of a gradient rule for the vertex as a function of its costs.

x*(c) is piecewise constant: dx/dc is zero almost everywhere, and undefined where the optimal vertex
changes. A rule gives a surrogate. It is orthogonal to the backend (any rule over any backend) and
concerns c alone: derivatives through b, A and the bounds are exact, and so are those of y and d.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from ..standard import Data

__all__ = ["AbstractGradient", "Resolve"]

Resolve = Callable[[Data], np.ndarray]
"""Solve a batch of the same program with other data; returns x, (B, n); raises where there is none."""


class AbstractGradient(ABC):
    """A rule that maps dL/dx to dL/dc. NumPy only, in the sense of min."""

    @abstractmethod
    def cotangent(self, resolve: Resolve, data: Data, x: np.ndarray, g: np.ndarray) -> np.ndarray:
        """dL/dc for g = dL/dx.

        Args:
            resolve: Solves the same program on other data; batched.
            data: The data x was solved from.
            x: Optimal vertices, (B, n).
            g: Cotangents, (B, n); all zero for items without an optimum.

        Returns:
            (B, n).
        """
