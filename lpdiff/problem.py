"""Problems: programs with natural parameters, and compiled solvers that read these instead of costs.

A problem is an LP whose costs are linear in its parameters theta (a cost matrix, gap costs). Its value is

    z(theta) = min over the vertices v of  <phi(v), theta>,      so      dz/dtheta = phi(v*)

with phi(v) = (dc/dtheta)' v the *moments* of the vertex: which pairs are aligned, how often a gap is paid.
They are few where theta is large (n of n^2 pairs), so they are kept sparse. A problem may bring an oracle, a
compiled solver that maps theta to value and moments; the LP stays its definition, its test, and the way for
every other solver, for gradient rules, and for items that the oracle refuses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .parametric import AbstractParametricProgram

if TYPE_CHECKING:
    import torch

    from .solution import Solution

__all__ = ["AbstractProblem", "Moments", "Parameter", "Proposal"]


@dataclass(frozen=True)
class Parameter:
    """A natural parameter of a problem.

    Attributes:
        name: For error messages.
        shape: Of one item, without the batch.
        kind: ``"cost"`` (enters the objective linearly, carries gradients), ``"side"`` (real numbers that
            enter rows, bounds or the matrix; gradients come from the LP's duals, so an oracle is not asked
            where a side requires them), or ``"data"`` (lengths, counts: integers, no gradients).
        compact: The oracle reads float32 as it is; otherwise it is given float64.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = "cost"
    compact: bool = False

    @property
    def is_cost(self) -> bool:
        return self.kind == "cost"

    @property
    def is_real(self) -> bool:
        return self.kind != "data"


@dataclass(frozen=True, eq=False)
class Moments:
    """The derivative of a batch of values in one parameter, sparse.

    Attributes:
        index: (B, K) int64, places in the flattened parameter of an item, in the order in which the problem
            tells its solution (an alignment from its start); 0 where padded.
        weight: (B, K) float64; 0 where padded.
    """

    index: np.ndarray
    weight: np.ndarray


@dataclass(eq=False)
class Proposal:
    """What an oracle found.

    Attributes:
        value: (B,) float64; +inf where infeasible, NaN where nothing is known.
        status: (B,) int8 of ``Status``. ``INACCURATE``: the oracle's own check refused the item, which then
            goes to the general solver.
        moments: One a cost parameter; all weights of items without an optimum are 0.
        messages: Why an item has no optimum, by item: what is wrong with its data.
    """

    value: np.ndarray
    status: np.ndarray
    moments: tuple[Moments, ...]
    messages: dict[int, str] = field(default_factory=dict)


class AbstractProblem(AbstractParametricProgram):
    """An LP with natural parameters, and perhaps an oracle.

    ``lpdiff.solve(problem, *parameters)`` solves the LP; ``lpdiff.evaluate`` takes the shorter way where
    there is one.
    """

    has_oracle: ClassVar[bool] = False
    reads_shared: ClassVar[bool] = False
    """Whether the oracle takes arrays that lead with 1 where the batch shares them."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters, in the order of the call. Costs come first."""

    @abstractmethod
    def data(self, *parameters: Any) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        """See ``AbstractParametricProgram.data``. ``c`` is linear in the cost parameters."""

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        """The oracle: NumPy only, a whole batch, the same bits whatever the batch's order and the threads.

        Args:
            arrays: One a parameter, C-contiguous, its shape led by the batch's size B (or by 1, see
                ``reads_shared``): float64 (or float32 where compact) for costs and sides, int64 for data;
                None for data that were not given.
            threads: Threads it may use.
        """
        raise NotImplementedError(f"{type(self).__name__} has no oracle")

    def extract(self, solution: Solution, key: Hashable) -> torch.Tensor:
        """A solution's moments by the name of a cost parameter, in its shape."""
        names = [p.name for p in self.parameters if p.is_cost]
        raise KeyError(f"{key!r}: expected one of {', '.join(names)}, read with lpdiff.evaluate")


def costs_of(parameters: Sequence[Parameter]) -> int:
    """How many of the parameters are costs."""
    return sum(p.is_cost for p in parameters)


def batch_size(arrays: Sequence[np.ndarray | None]) -> int:
    """The size of the batch that arrays lead with, all of them or (where they lead with 1) some."""
    return next((len(a) for a in arrays if a is not None and len(a) != 1), 1)


def unshared(array: np.ndarray | None, size: int) -> np.ndarray | None:
    """An array that leads with the size of the batch, though the batch may share it."""
    if array is None or len(array) == size:
        return array
    return np.ascontiguousarray(np.broadcast_to(array, (size, *array.shape[1:])))
