"""Choosing items: the best k of n, and the fractional knapsack.

Both are one row in a box, which lpdiff recognises as a selection (the continuous knapsack: a weighted median
search, linear on average). Choosing k is integral: its one row of ones is totally unimodular; it has a
compiled solver of its own, which is asked where k requires no gradient. The knapsack's relaxation splits at
most one item, the one at which the capacity runs out (Dantzig 1957).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Moments, Parameter, Proposal
from lpdiff.status import Status

from .base import (
    AbstractLPResult,
    AbstractResult,
    ProblemModule,
    SolveOptions,
    any_of,
    first_item,
    forbidding,
    given,
    last_size,
    named,
    read_mask,
)

__all__ = [
    "KSubset",
    "Knapsack",
    "KnapsackProblem",
    "KnapsackSolution",
    "SubsetProblem",
    "SubsetSolution",
    "TopK",
    "k_subset",
    "knapsack",
    "multi_knapsack",
    "top_k",
]

# Amounts closer than this to nothing or to all of an item are that: what rounding leaves.
_WHOLE = 1e-9


# -- the best k of n ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def subset_program(n: int, cheapest: bool, at_most: bool) -> LinearProgram:
    """sum x = k (or <= k), 0 <= x <= 1; k is given at each solve."""
    return LinearProgram(
        A=np.ones((1, n)),
        row_lower=None if at_most else [0.0],
        row_upper=[0.0],
        bounds=(0, 1),
        sense="min" if cheapest else "max",
        row_names=["k"],
        name=f"{'at most ' if at_most else ''}k of {n}",
    )


@dataclass(frozen=True, eq=False)
class SubsetProblem(AbstractProblem):
    """k of n items: their scores, then k, then which items there are.

    Attributes:
        n: Items.
        cheapest: The least sum of costs, where +inf forbids an item; else the largest sum of scores, where
            -inf does.
        at_most: Up to k items, instead of k.
    """

    n: int
    cheapest: bool = False
    at_most: bool = False
    has_oracle: ClassVar[bool] = True
    reads_shared: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("costs" if self.cheapest else "scores", (self.n,)),
            Parameter("k", (), kind="side"),
            Parameter("mask", (self.n,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return subset_program(self.n, self.cheapest, self.at_most)

    def data(self, *parameters: Any) -> dict[str, Any]:
        scores, k, mask = parameters
        worst = self.program.form.to_min(torch.inf)
        return {**forbidding(*_present(scores, mask, worst), worst=worst), "b": k[..., None]}

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        from lpdiff.kernels.subset import choose  # numba takes its time to load

        scores, k, mask = arrays
        to_min = self.program.form.to_min
        found = choose(to_min(scores), k, mask, at_most=self.at_most, threads=threads)
        few = np.flatnonzero(found.status == Status.INFEASIBLE).tolist()
        messages = dict.fromkeys(few, "fewer items are allowed than are to be chosen")
        moments = (Moments(found.places, found.weight),)
        return Proposal(to_min(found.value), found.status, moments, messages)


def top_k(
    scores: Any, k: Any, *, at_most: bool = False, mask: Any = None, **how: Unpack[SolveOptions]
) -> SubsetSolution:
    """The k items of the highest score, as an LP::

        max  sum_i s_i x_i   subject to   sum_i x_i = k   (or <= k),   0 <= x <= 1

    Its vertices are integral for integer k. The value is the sum of the chosen scores; its gradient in the
    scores is the indicator of the chosen, and in k a threshold: a number between the score of the last item
    chosen and that of the next, each of which is a generalized gradient.

    Args:
        scores: (*batch, n). -inf forbids an item.
        k: How many, an integer or (*batch,); a floating tensor may carry gradients, and need not be integral:
            then one item is chosen in part.
        at_most: Choose up to k: no item whose score is negative.
        mask: Which items there are: (*batch, n) booleans, or (*batch,) lengths. Default: all.
        how: See ``lpdiff.evaluate``. ``gradient=`` gives the indicator a gradient.

    Returns:
        A SubsetSolution. Equal scores at the threshold: those of the lowest index are chosen.

    Raises:
        ValueError: shapes that do not fit, k outside 0..n.
        SolveError: NaN, or fewer than k items allowed (unless ``throw=False``).

    Solver: partitions, O(n) on average an item, compiled; as an LP ``selection``, which is asked where k
    requires a gradient. Reference: Dantzig (1957), Discrete-variable extremum problems.

    Example:
        >>> scores = torch.tensor([0.3, 2.0, -1.0, 1.1], requires_grad=True)
        >>> found = top_k(scores, 2)
        >>> found.indices
        tensor([1, 3])
    """
    return _subset(False, scores, k, at_most, mask, how)


def k_subset(
    costs: Any, k: Any, *, at_most: bool = False, mask: Any = None, **how: Unpack[SolveOptions]
) -> SubsetSolution:
    """The cheapest k items: the LP of ``top_k`` with min, and +inf to forbid an item.

    Args:
        costs: (*batch, n).
        k, at_most, mask, how: As for ``top_k``.

    Raises:
        ValueError, SolveError: As ``top_k``.

    Example:
        >>> k_subset(torch.tensor([0.3, 2.0, -1.0, 1.1]), 2).value
        tensor(-0.7000)
    """
    return _subset(True, costs, k, at_most, mask, how)


def _subset(
    cheapest: bool, scores: Any, k: Any, at_most: bool, mask: Any, how: SolveOptions
) -> SubsetSolution:
    n = last_size("costs" if cheapest else "scores", scores)
    counts = k.detach().cpu() if isinstance(k, torch.Tensor) else torch.as_tensor(np.asarray(k))
    wrong = (counts < 0) | (counts > n)
    if any_of(wrong):
        item = first_item(wrong)
        raise ValueError(
            f"k: {named(item)} has k = {counts[item].item():g}, expected 0 to {n}, the items given"
        )
    problem = SubsetProblem(n, cheapest, at_most)
    found = evaluate(problem, scores, k, None if mask is None else read_mask(mask, n), **how)
    return SubsetSolution(found.value, found)


@dataclass(frozen=True, eq=False, repr=False)
class SubsetSolution(AbstractResult):
    """Chosen items.

    Attributes:
        value: (*batch,) the sum over the chosen, with exact gradients in scores and k.
    """

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, n) 1 where chosen, 0 elsewhere; differentiable in the scores under a gradient rule."""
        return self.evaluation.indicator(0)

    @cached_property
    def threshold(self) -> torch.Tensor:
        """(*batch,) the dual of the row, from the LP: the derivative of the value in k."""
        return self.evaluation.inputs.like_user(self.evaluation.by_lp().y[..., 0])

    @cached_property
    def indices(self) -> torch.Tensor:
        """(*batch, K) int64, the chosen from the best on; K is the most that any item chose, -1 pads."""
        inputs = self.evaluation.inputs
        index, weight = self.evaluation.moments[0]
        chosen = weight > 0.5
        count = chosen.sum(-1, keepdim=True)
        most = int(count.max()) if count.numel() else 0
        scores = given(self.evaluation, 0).detach()
        scores = scores.expand(*inputs.batch_shape, scores.shape[-1]).reshape(inputs.size, scores.shape[-1])
        key = self.evaluation.problem.program.form.to_min(scores.gather(1, index))
        order = torch.sort(key.masked_fill(~chosen, torch.inf), dim=-1, stable=True).indices[:, :most]
        best = index.gather(1, order).masked_fill(torch.arange(most) >= count, -1)
        return inputs.like_user(best.reshape(*inputs.batch_shape, most))

    def decode(self) -> Any:
        """The chosen indices, best first: a list an item of the batch (nested as the batch is)."""
        return _ragged(self.indices)


class TopK(ProblemModule):
    """``top_k`` as a module: options at construction, ``(scores, k)`` at the call."""

    function = staticmethod(top_k)


class KSubset(ProblemModule):
    """``k_subset`` as a module: options at construction, ``(costs, k)`` at the call."""

    function = staticmethod(k_subset)


# -- knapsack ----------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def knapsack_program(n: int, resources: int) -> LinearProgram:
    """W x <= capacity, 0 <= x <= 1; weights and capacity are given at each solve."""
    return LinearProgram(
        A_ub=np.ones((resources, n)),
        b_ub=np.zeros(resources),
        bounds=(0, 1),
        sense="max",
        name=f"fractional knapsack of {n} items",
    )


@dataclass(frozen=True, eq=False)
class KnapsackProblem(AbstractProblem):
    """n items and some resources: values, weights, capacities, then which items there are."""

    n: int
    resources: int = 1

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("values", (self.n,)),
            Parameter("weights", (self.resources, self.n), kind="side"),
            Parameter("capacity", (self.resources,), kind="side"),
            Parameter("mask", (self.n,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return knapsack_program(self.n, self.resources)

    def data(self, *parameters: Any) -> dict[str, Any]:
        values, weights, capacity, mask = parameters
        weights = weights.masked_fill(mask[..., None, :] == 0, 0.0)
        costs = forbidding(*_present(values, mask, -torch.inf), worst=-torch.inf)
        return {**costs, "A_values": self.program.gather(weights), "b_ub": capacity}


def knapsack(
    values: Any, weights: Any, capacity: Any, *, mask: Any = None, **how: Unpack[SolveOptions]
) -> KnapsackSolution:
    """The fractional knapsack::

        max  sum_i v_i x_i   subject to   sum_i w_i x_i <= capacity,   0 <= x <= 1

    Items are taken by value per weight until the capacity runs out; at most one is split. Vertices are not
    integral: this is the bound of the 0/1 knapsack, and the knapsack of what can be divided.

    Args:
        values: (*batch, n). -inf forbids an item; those of negative value stay out.
        weights: (*batch, n), not negative.
        capacity: (*batch,) or a number.
        mask: Which items there are: (*batch, n) booleans, or (*batch,) lengths. Default: all.
        how: See ``lpdiff.evaluate``.

    Returns:
        A KnapsackSolution. The value's gradients in values, weights and capacity are exact.

    Raises:
        ValueError: shapes that do not fit, a negative weight.
        SolveError: NaN, a negative capacity (unless ``throw=False``).

    Solver: ``selection``, O(n) on average an item. Reference: Dantzig (1957); Balas and Zemel (1980), An
    algorithm for large zero-one knapsack problems.

    Example:
        >>> found = knapsack(torch.tensor([6.0, 10.0, 12.0]), torch.tensor([1.0, 2.0, 3.0]), 5.0)
        >>> found.value, found.amounts, found.split
        (tensor(24.), tensor([1.0000, 1.0000, 0.6667]), tensor(2))
    """
    last_size("weights", weights)
    weights, capacity = _array(weights), _array(capacity)
    return _knapsack(values, weights[..., None, :], capacity[..., None], mask, how)


def multi_knapsack(
    values: Any, weights: Any, capacity: Any, *, mask: Any = None, **how: Unpack[SolveOptions]
) -> KnapsackSolution:
    """The fractional knapsack of several resources: W x <= capacity, with one row a resource.

    At most as many items are split as there are resources. A general LP: HiGHS solves it.

    Args:
        values: (*batch, n).
        weights: (*batch, resources, n), not negative.
        capacity: (*batch, resources).
        mask, how: As for ``knapsack``.

    Example:
        >>> weights = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 1.0]])
        >>> multi_knapsack(torch.tensor([6.0, 10.0, 12.0]), weights, torch.tensor([5.0, 3.0])).value
        tensor(24.)
    """
    if np.ndim(weights) < 2:
        raise ValueError(f"weights: expected shape (*batch, resources, n), got {np.shape(weights)}")
    return _knapsack(values, _array(weights), capacity, mask, how)


def _knapsack(values: Any, weights: Any, capacity: Any, mask: Any, how: SolveOptions) -> KnapsackSolution:
    resources, n = weights.shape[-2:]
    if last_size("values", values) != n:
        raise ValueError(f"expected a value and a weight an item, got {np.shape(values)[-1]} and {n}")
    numbers = torch.as_tensor(weights).detach()
    wrong = numbers < 0
    if any_of(wrong):
        *item, resource, i = first_item(wrong)
        raise ValueError(
            f"weights: {named(tuple(item))} has a negative weight ({numbers[*item, resource, i].item():g} at "
            f"index {i}), expected >= 0"
        )
    problem = KnapsackProblem(n, resources)
    found = evaluate(problem, values, weights, capacity, read_mask(mask, n), **how)
    return KnapsackSolution(found.value, found)


@dataclass(frozen=True, eq=False, repr=False)
class KnapsackSolution(AbstractLPResult):
    """What is taken.

    Attributes:
        value: (*batch,) with exact gradients in values, weights and capacity.
    """

    @cached_property
    def amounts(self) -> torch.Tensor:
        """(*batch, n) in 0..1; differentiable in weights and capacity, in values under a gradient rule."""
        return self.evaluation.inputs.like_user(self.solution.x)

    @cached_property
    def price(self) -> torch.Tensor:
        """(*batch,), or (*batch, resources): what one more unit of capacity is worth; differentiable."""
        y = self.evaluation.inputs.like_user(self.solution.y)
        return y if self._several else y[..., 0]

    @cached_property
    def split(self) -> torch.Tensor:
        """(*batch,) int64, the item taken in part, -1 where there is none; of several resources
        (*batch, resources), padded with -1."""
        with torch.no_grad():
            x = self.solution.vertex
            part = (x > _WHOLE) & (x < 1 - _WHOLE)
            width = self.solution.program.m
            order = torch.sort((~part).to(torch.int8), dim=-1, stable=True).indices[..., :width]
            order = torch.nn.functional.pad(order, (0, width - order.shape[-1]), value=-1)
            split = order.masked_fill(torch.arange(width) >= part.sum(-1, keepdim=True), -1)
            split = split.to(self.value.device)
        return split if self._several else split[..., 0]

    def decode(self) -> Any:
        """Pairs (item, amount) of what is taken: a list an item of the batch (nested as the batch is)."""
        return _pairs(self.amounts.detach().cpu().double().numpy())

    @property
    def _several(self) -> bool:
        return self.solution.program.m != 1


class Knapsack(ProblemModule):
    """``knapsack`` as a module: options at construction, ``(values, weights, capacity)`` at the call."""

    function = staticmethod(knapsack)


# -- what both share ---------------------------------------------------------------------------------------


def _array(value: Any) -> Any:
    """What can be indexed: NumPy's numbers leave the dtype of the result to the tensors."""
    return value if isinstance(value, torch.Tensor) else np.asarray(value)


def _present(
    scores: torch.Tensor, mask: torch.Tensor | None, worst: float
) -> tuple[torch.Tensor, float, float]:
    """Scores, and bounds; an item that is not there is a forbidden one, whatever its score."""
    if mask is None or bool((mask != 0).all()):
        return scores, 0.0, 1.0
    return torch.where(mask != 0, scores, worst), 0.0, 1.0


def _ragged(indices: torch.Tensor) -> Any:
    if indices.dim() == 1:
        return [i for i in indices.tolist() if i >= 0]
    return [_ragged(row) for row in indices]


def _pairs(amounts: np.ndarray) -> Any:
    if amounts.ndim == 1:
        return [(int(i), float(amounts[i])) for i in np.flatnonzero(amounts > _WHOLE)]
    return [_pairs(row) for row in amounts]
