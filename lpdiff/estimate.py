"""The optimal vertex under an estimator of its derivative in the costs, as an operation.

An ``AbstractOracle`` is all that it knows of what is solved: costs to optimal vertices, be that an LP in its
c or a problem in its natural parameters. Signs are those of a minimisation.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .autograd import AbstractOperation, Tensors, apply, reduce_to
from .gradients import AbstractEstimator
from .refusals import changed_error, moved_error, reverse_only_error
from .status import Certificate, UnsupportedError

__all__ = ["AbstractOracle", "EstimateOperation", "Minima", "seed_from"]


@dataclass(eq=False)
class Minima:
    """Optimal vertices of a batch, and what failed.

    Attributes:
        x: (B, n) float64; zero where there is no optimum.
        status: (B,) int8 of ``Status``.
        messages, certificates: What is known of items that failed.
    """

    x: np.ndarray
    status: np.ndarray
    messages: dict[int, str] = field(default_factory=dict)
    certificates: dict[int, Certificate] = field(default_factory=dict)


class AbstractOracle(ABC):
    """Solves a batch of linear minimisations over feasible sets of one kind."""

    @abstractmethod
    def minimise(self, costs: np.ndarray, fixed: Sequence[np.ndarray | None]) -> Minima:
        """Optimal vertices.

        Args:
            costs: (B, n) float64.
            fixed: The other numbers, each (1|B, ...) or None.
        """


@dataclass(eq=False)
class EstimateOperation(AbstractOperation):
    """(costs, as ``costs`` tensors; fixed numbers; x, ok) -> (x under the rule, what the rule keeps).

    Costs lead with B or, where the batch shares them, 1; x is (B, n) and ok (B,) bool. The derivative in x is
    the identity, so what x depends on otherwise, b say, is differentiated by what made x.
    """

    oracle: AbstractOracle
    rule: AbstractEstimator
    costs: int
    changed: bool = False  # the numbers are no longer those that x was solved from
    differentiable: int = 1
    seed: int | None = field(default=None, repr=False)  # of the random numbers, drawn by the first forward

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        if self.changed and self.rule.smooths:
            raise changed_error("x as this rule has it")
        at = _Point(self, arrays)
        x, *kept = self.rule.forward(at.argmin, at.c, at.x, self._random())
        x = at.scattered(x)
        if len(at.items) < at.size:
            base, ok = arrays[-2], arrays[-1]
            assert base is not None and ok is not None
            x = np.where(_repeated(ok, at.size)[:, None], x, base)
        return (x, *map(at.scattered, kept))

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        g = grads[0]
        assert g is not None
        if self.changed:
            raise changed_error("derivatives")
        result: list[torch.Tensor | None] = [None] * len(inputs)
        if needs[-2]:
            if self.rule.smooths:
                raise UnsupportedError(
                    f"{type(self.rule).__name__} smooths x in its costs, so x has no exact derivative in "
                    f"other data: LPGD covers them all, rules that leave x as it is are exact there, and so "
                    f"is the gradient of the value"
                )
            result[-2] = g
        if any(needs[: self.costs]):
            (gc,) = apply(_Pullback(self, len(inputs)), *inputs, *outputs, g)
            place = 0
            for k, theta in enumerate(inputs[: self.costs]):
                assert theta is not None
                width = math.prod(theta.shape[1:])
                if needs[k]:
                    part = gc[:, place : place + width].reshape(len(gc), *theta.shape[1:])
                    result[k] = reduce_to(part, theta).to(theta.dtype)
                place += width
        return tuple(result)

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        if self.rule.smooths or any(t is not None for t in tangents[: self.costs]):
            raise reverse_only_error(self.rule)
        return (tangents[-2], *[None] * (len(outputs) - 1))

    def _random(self) -> np.random.Generator | None:
        if not self.rule.is_random:
            return None
        if self.seed is None:  # the same numbers if x is made again, with gradients or without
            self.seed = seed_from(self.rule.generator)
        return np.random.default_rng(self.seed)


@dataclass(eq=False)
class _Pullback(AbstractOperation):
    """Cotangent of x to that of the costs, (B, n)."""

    of: EstimateOperation
    inputs: int
    differentiable: int = 1

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        at = _Point(self.of, arrays[: self.inputs], like=arrays[-1])
        outputs = tuple(at.taken(array) for array in arrays[self.inputs : -1])
        forbidden = np.isinf(at.c)  # for good: no finite move of such a cost is felt
        g = np.where(forbidden, 0.0, at.taken(arrays[-1]))
        gc = self.of.rule.cotangent(at.argmin, at.c, outputs, g)
        return (at.scattered(np.where(forbidden, 0.0, gc)),)


class _Point:
    """A batch's items that have an optimum, and the way to optima at other costs."""

    def __init__(
        self,
        operation: EstimateOperation,
        arrays: Sequence[np.ndarray | None],
        like: np.ndarray | None = None,
    ) -> None:
        self.operation = operation
        x, ok = arrays[-2], arrays[-1]
        assert x is not None and ok is not None
        thetas = [a for a in arrays[: operation.costs] if a is not None]
        sizes = [len(a) for a in (x, *thetas, like) if a is not None]
        self.size = next((size for size in sizes if size != 1), 1)
        flat = [_repeated(a.reshape(len(a), math.prod(a.shape[1:])), self.size) for a in thetas]
        costs = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
        self.items = np.flatnonzero(_repeated(ok, self.size))
        self.c = self.taken(costs).astype(np.float64, copy=False)
        self.x = self.taken(x)
        self.fixed = [a if a is None or len(a) == 1 else a[self.items] for a in arrays[operation.costs : -2]]

    def argmin(self, costs: np.ndarray, items: np.ndarray | None = None) -> np.ndarray:
        if len(costs) == 0:
            return np.zeros_like(costs)
        places, fixed = self.items, self.fixed
        if items is not None:
            places = places[items]
            fixed = [a if a is None or len(a) == 1 else a[items] for a in fixed]
        copies = len(costs) // len(places)
        fixed = [
            a if a is None or len(a) == 1 or copies == 1 else np.tile(a, (copies, *[1] * (a.ndim - 1)))
            for a in fixed
        ]
        found = self.operation.oracle.minimise(np.ascontiguousarray(costs), fixed)
        if found.status.any():
            raise moved_error(self.operation.rule, found, places)
        return found.x

    def taken(self, array: np.ndarray) -> np.ndarray:
        array = _repeated(array, self.size)
        return array if len(self.items) == self.size else array[self.items]

    def scattered(self, array: np.ndarray) -> np.ndarray:
        if len(self.items) == self.size:
            return array
        whole = np.zeros((self.size, *array.shape[1:]), dtype=array.dtype)
        whole[self.items] = array
        return whole


def _repeated(array: np.ndarray, size: int) -> np.ndarray:
    return array if len(array) == size else np.repeat(array, size, axis=0)


def seed_from(generator: Any) -> int:
    """A seed, drawn from what a rule calls its generator."""
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(2**63 - 1))
    return int(torch.randint(2**63 - 1, (), dtype=torch.int64, generator=generator))
