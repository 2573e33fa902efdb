"""The contracts of gradient rules for the optimal vertex.

x*(c) is piecewise constant: dx/dc is zero almost everywhere, and undefined where the optimal vertex
changes. A rule gives a surrogate. It is orthogonal to the backend (any rule over any backend), and written
for a minimisation; who solves a maximisation hands it the negated costs.

An *estimator* knows the program only as an ``Argmin``, costs to optimal vertices, so it serves an LP in its
costs and a problem of the library in its natural parameters alike. Derivatives through b, A and the bounds
stay exact beside it. A *program rule* sees the whole program, and replaces all derivatives of x and y.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ..basis import Tangents
from ..standard import Data

__all__ = [
    "AbstractEstimator",
    "AbstractGradient",
    "AbstractProgramRule",
    "Argmin",
    "Entries",
    "Optimum",
    "Resolve",
    "make_generator",
]


class Argmin(Protocol):
    """Optimal vertices at other costs."""

    def __call__(self, costs: np.ndarray, items: np.ndarray | None = None) -> np.ndarray:
        """Costs (k B, n), k batches one after the other, to optimal vertices (k B, n).

        Where ``items`` (O,) are named, a batch is those: (k O, n). Raises where there is no optimum.
        """


class Optimum(NamedTuple):
    """Optimal vertices, duals and reduced costs d = c - A'y: (B, n), (B, m), (B, n)."""

    x: np.ndarray
    y: np.ndarray
    d: np.ndarray


Resolve = Callable[[Data], Optimum]
"""Solves the same program with other numbers. Raises where there is no optimum."""


Entries = tuple[np.ndarray, np.ndarray]
"""Rows and columns, (nnz,) each."""


class AbstractGradient(ABC):  # noqa: B024 - what users may choose; the two kinds below have the methods
    """A rule for derivatives of the optimal vertex."""


class AbstractEstimator(AbstractGradient):
    """A rule for dx/dc that needs nothing but optimal vertices at other costs.

    Attributes:
        smooths: Whether it changes x itself (to a mean over perturbed costs, say). Then x has no derivative
            in b, A and the bounds.
        is_random: Whether ``forward`` needs random numbers.
        generator: Where those come from: None (torch's default generator), a seed, or a
            ``numpy.random.Generator`` or ``torch.Generator``, which moves on.
    """

    smooths: ClassVar[bool] = False
    is_random: ClassVar[bool] = False
    generator: Any = None

    def forward(
        self, argmin: Argmin, c: np.ndarray, x: np.ndarray, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, ...]:
        """x as the rule has it, and what ``cotangent`` will want to know.

        Args:
            argmin: Optimal vertices at other costs.
            c: Costs, (B, n).
            x: Optimal vertices at c, (B, n).
            rng: Random numbers, where ``is_random``.

        Returns:
            x, (B, n), then any arrays that lead with B.
        """
        return (x,)

    @abstractmethod
    def cotangent(
        self, argmin: Argmin, c: np.ndarray, outputs: tuple[np.ndarray, ...], g: np.ndarray
    ) -> np.ndarray:
        """dL/dc for g = dL/dx.

        Args:
            argmin: Optimal vertices at other costs.
            c: Costs, (B, n).
            outputs: What ``forward`` returned.
            g: Cotangents of x, (B, n).

        Returns:
            (B, n).
        """


class AbstractProgramRule(AbstractGradient):
    """A rule for all derivatives of x and y, from solves with other numbers of any kind."""

    @abstractmethod
    def cotangents(
        self, resolve: Resolve, entries: Entries, data: Data, here: Optimum, gx: np.ndarray, gy: np.ndarray
    ) -> Tangents:
        """dL/d(data) for gx = dL/dx and gy = dL/dy.

        Args:
            resolve: Solves the same program with other numbers.
            entries: Rows and columns of the stored entries of A.
            data: What was solved: B items, or 1 where a field is shared.
            here: Its optima.
            gx, gy: Cotangents, (B, n) and (B, m).

        Returns:
            One array a field, (B, k); ``values`` may be None for zero.
        """


def make_generator(generator: Any) -> Any:
    """A rule's source of random numbers: None and generators as they are, a seed as a generator of its own.

    Raises:
        TypeError: neither of these.
    """
    is_torch = type(generator).__module__.startswith("torch") and type(generator).__name__ == "Generator"
    if generator is None or isinstance(generator, np.random.Generator) or is_torch:
        return generator
    if isinstance(generator, (int, np.integer)) and not isinstance(generator, bool):
        return np.random.default_rng(int(generator))
    raise TypeError(
        f"generator must be a seed, a torch.Generator, a numpy.random.Generator or None (torch's default "
        f"one), got {type(generator).__name__}"
    )
