"""Isotonic regression in the absolute (or pinball) loss, on a chain or on a partial order::

    min  sum_i w_i |x_i - y_i|     subject to     x_i <= x_j   for the pairs (i, j) of the order

is the dual of a minimum-cost flow, and it is the flow that is declared here: lpdiff recognises it, and solves
it by network simplex (the fit itself, of three entries a column, would be a general LP). As the loss
``w_i |x_i - y_i|`` is the maximum of g_i (y_i - x_i) over -w_i <= g_i <= w_i, with a multiplier p_ij a pair::

    max  sum_i y_i g_i     subject to     g_i - sum_j p_ij + sum_j p_ji = 0,   -w <= g <= w,   p >= 0

Item i may draw up to w_i from the ground, for y_i a unit, and flow runs along the order. The fit x are the
duals of the rows. So y is a cost and w a bound, and both have exact gradients: dz/dy = g. The fit is
differentiable through the optimal basis, exactly. Each x_i is one of the y_k: potentials are costs of arcs
to the ground, added along a spanning tree on which all others are free.

On a chain a compiled dynamic program proposes both, fit and g, in O(n log n).

The pinball loss of a quantile q, q (y - x)+ + (1 - q) (x - y)+, has the bounds -(1 - q) w <= g <= q w.
Reference: Robertson, Wright and Dykstra (1988), Order Restricted Statistical Inference; Ahuja and Orlin
(2001), A fast scaling algorithm for minimizing separable convex functions subject to chain constraints.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate, solve
from lpdiff.batch import run_spans, threads_for
from lpdiff.problem import Moments, Parameter, Proposal
from lpdiff.status import Status

from .base import (
    AbstractResult,
    ProblemModule,
    SolveOptions,
    any_of,
    first_item,
    given,
    last_size,
    named,
    read_mask,
)

__all__ = [
    "AbstractIsotonicProblem",
    "ChainProblem",
    "IsotonicRegression",
    "IsotonicSolution",
    "OrderProblem",
    "isotonic_regression",
]


@functools.lru_cache(maxsize=32)
def isotonic_program(n: int, pairs: tuple[tuple[int, int], ...]) -> LinearProgram:
    """The flow: n draws g, then one flow p a pair; rows are the balances of the items."""
    low, high = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
    count = len(pairs)
    places = np.arange(count)
    along = sp.coo_array(
        (np.repeat([-1.0, 1.0], count), (np.r_[low, high], np.r_[places, places])), shape=(n, count)
    )
    return LinearProgram(
        A_eq=sp.hstack([sp.eye_array(n), along]),
        b_eq=np.zeros(n),
        bounds=np.column_stack([np.repeat([-1.0, 0.0], [n, count]), np.repeat([1.0, np.inf], [n, count])]),
        sense="max",
        name=f"isotonic regression of {n}",
    )


class AbstractIsotonicProblem(AbstractProblem):
    """n observations, what a unit of x below and above each of them costs, and which there are."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Observations."""

    @property
    @abstractmethod
    def order(self) -> tuple[tuple[int, int], ...]:
        """(i, j) where x_i <= x_j."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("y", (self.size,)),
            Parameter("below", (self.size,), kind="side"),
            Parameter("above", (self.size,), kind="side"),
            Parameter("mask", (self.size,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return isotonic_program(self.size, self.order)

    def data(self, *parameters: Any) -> dict[str, Any]:
        y, below, above, mask = parameters
        flows = len(self.order)
        if not bool((mask != 0).all()):
            y, below, above = (t.masked_fill(mask == 0, 0.0) for t in (y, below, above))
        upper = torch.nn.functional.pad(below, (0, flows), value=torch.inf)
        lower = torch.nn.functional.pad(-above, (0, flows))
        return {"c": torch.nn.functional.pad(y, (0, flows)), "bounds": (lower, upper)}


@dataclass(frozen=True, eq=False)
class OrderProblem(AbstractIsotonicProblem):
    """Any order, given by its pairs."""

    n: int
    pairs: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return self.n

    @property
    def order(self) -> tuple[tuple[int, int], ...]:
        return self.pairs


@dataclass(frozen=True, eq=False)
class ChainProblem(AbstractIsotonicProblem):
    """The chain x_1 <= ... <= x_n, or the other way round.

    The oracle's moments are n places of weight 0, the observation that each x_i is, and then g.
    """

    n: int
    increasing: bool = True
    has_oracle: ClassVar[bool] = True

    @property
    def size(self) -> int:
        return self.n

    @property
    def order(self) -> tuple[tuple[int, int], ...]:
        return _chain(self.n, self.increasing)

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.kernels.isotonic import chain  # numba takes its time to load

        *numbers, mask = arrays
        if not (mask != 0).all():
            numbers = [np.where(mask != 0, a, 0.0) for a in numbers]
        if not self.increasing:
            numbers = [np.ascontiguousarray(a[:, ::-1]) for a in numbers]
        size, n = mask.shape
        source, g = np.zeros((size, n), dtype=np.int64), np.zeros((size, n))
        value, status = np.empty(size), np.empty(size, dtype=np.int8)

        def work(start: int, stop: int) -> None:
            chain(*numbers, start, stop, source, g, value, status)

        run_spans(size, threads_for(30.0 * size * n, threads), work)
        if not self.increasing:
            source, g = n - 1 - source[:, ::-1], g[:, ::-1]
        ok = (status == Status.OPTIMAL)[:, None]
        index = np.hstack([np.where(ok, source, 0), np.broadcast_to(np.arange(n), (size, n))])
        weight = np.hstack([np.zeros((size, n)), np.where(ok, g, 0.0)])
        return Proposal(value, status, (Moments(index, weight),))


def isotonic_regression(
    y: Any,
    weights: Any = None,
    *,
    order: Any = None,
    increasing: bool = True,
    quantile: Any = None,
    mask: Any = None,
    **how: Unpack[SolveOptions],
) -> IsotonicSolution:
    """Isotonic regression in the absolute loss::

        min  sum_i w_i |x_i - y_i|   subject to   x_1 <= x_2 <= ... <= x_n

    or in the pinball loss of a quantile; or on any partial order, as x_i <= x_j for given pairs.

    Args:
        y: (*batch, n).
        weights: (*batch, n), not negative. Default 1.
        order: (E, 2) integers, the pairs (i, j) of which x_i <= x_j. Default: the chain.
        increasing: False turns the order around.
        quantile: A number or (*batch,), in 0..1: the pinball loss q (y - x)+ + (1 - q) (x - y)+ in place of
            ``|x - y|``.
        mask: Which observations there are: (*batch, n) booleans, or (*batch,) lengths. The others weigh
            nothing; their x only keeps the order.
        how: See ``lpdiff.evaluate``.

    Returns:
        An IsotonicSolution: the value with exact gradients in y and weights, the fit with its exact
        derivative.

    Raises:
        ValueError: shapes or pairs that do not fit, a negative weight, a quantile outside 0..1.
        SolveError: NaN or infinite observations (unless ``throw=False``).

    Solver: chains by dynamic programming over slopes, O(n log n); where gradients to the weights are asked
    for, and on other orders, the LP: a minimum-cost flow of n + E arcs, ``network``.

    Example:
        >>> found = isotonic_regression(torch.tensor([1.0, 3.0, 2.0, 2.5, 5.0]))
        >>> found.value, found.fit
        (tensor(1.), tensor([1.0000, 2.0000, 2.0000, 2.5000, 5.0000]))
    """
    n = last_size("y", y)
    problem: AbstractIsotonicProblem = ChainProblem(n, increasing)
    if order is not None:
        pairs = _pairs(order, n)
        problem = OrderProblem(n, pairs if increasing else tuple((j, i) for i, j in pairs))
    below, above = _slopes(np.ones(n) if weights is None else weights, quantile)
    found = evaluate(problem, y, below, above, read_mask(mask, n), **how)
    return IsotonicSolution(found.value, found)


@dataclass(frozen=True, eq=False, repr=False)
class IsotonicSolution(AbstractResult):
    """A monotone fit.

    Attributes:
        value: (*batch,) the loss of the fit, with exact gradients in y and weights.
    """

    @cached_property
    def fit(self) -> torch.Tensor:
        """(*batch, n) the fitted x, each one of the observations; differentiable in y, exactly."""
        inputs, evaluation = self.evaluation.inputs, self.evaluation
        if self.solution is not None:
            return inputs.like_user(self.solution.y)
        y, mask = given(evaluation, 0), given(evaluation, 3)
        index = evaluation.moments[0][0]
        n = mask.shape[-1]
        if not bool((index[:, n:] == torch.arange(n)).all()):  # the oracle left items to the LP
            return inputs.like_user(solve(evaluation.problem, *inputs.whole, throw=False).y)
        shape = (*inputs.batch_shape, n)
        fit = y.masked_fill(mask == 0, 0.0).expand(shape).gather(-1, index[:, :n].reshape(shape))
        return inputs.like_user(fit.masked_fill(~evaluation.ok.to(fit.device)[..., None], torch.nan))

    def decode(self) -> Any:
        """Pairs (level, observations that share it), ascending: a list an item of the batch (nested)."""
        return _levels(self.fit.detach().cpu().double().numpy())


class IsotonicRegression(ProblemModule):
    """``isotonic_regression`` as a module: options at construction, ``(y, weights)`` at the call."""

    function = staticmethod(isotonic_regression)


@functools.lru_cache(maxsize=32)
def _chain(n: int, increasing: bool) -> tuple[tuple[int, int], ...]:
    steps = tuple((i, i + 1) for i in range(n - 1))
    return steps if increasing else tuple((j, i) for i, j in steps)


def _pairs(order: Any, n: int) -> tuple[tuple[int, int], ...]:
    told = order.detach().cpu().numpy() if isinstance(order, torch.Tensor) else np.asarray(order)
    if told.size == 0:
        return ()
    if told.ndim != 2 or told.shape[1] != 2 or told.dtype.kind not in "iu":
        raise ValueError(f"order: expected (E, 2) integers, got {told.dtype} of shape {told.shape}")
    wrong = (told < 0) | (told >= n) | (told[:, :1] == told[:, 1:])
    if wrong.any():
        k = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise ValueError(
            f"order: pair {k} is {tuple(told[k].tolist())}, expected two of the {n} observations"
        )
    return tuple(map(tuple, told.tolist()))


def _slopes(weights: Any, quantile: Any) -> tuple[Any, Any]:
    """What a unit of x costs below an observation, and above it; (*batch, n) each."""
    if isinstance(quantile, torch.Tensor) and not isinstance(weights, torch.Tensor):
        weights = torch.as_tensor(np.asarray(weights), dtype=quantile.dtype, device=quantile.device)
    weights = weights if isinstance(weights, torch.Tensor) else np.asarray(weights)
    wrong = torch.as_tensor(weights).detach() < 0
    if any_of(wrong):
        *item, i = first_item(wrong)
        raise ValueError(f"weights: {named(tuple(item))} has a negative weight at index {i}, expected >= 0")
    if quantile is None:
        return weights, weights
    shares = torch.as_tensor(quantile).detach()
    wrong = ~((shares >= 0) & (shares <= 1))
    if any_of(wrong):
        raise ValueError(f"quantile: {named(first_item(wrong))} is not in 0..1")
    if isinstance(weights, torch.Tensor):
        quantile = torch.as_tensor(quantile, dtype=weights.dtype, device=weights.device)
    else:
        quantile = np.asarray(quantile)
    return quantile[..., None] * weights, (1 - quantile)[..., None] * weights


def _levels(fit: np.ndarray) -> Any:
    if fit.ndim > 1:
        return [_levels(row) for row in fit]
    levels, which = np.unique(fit, return_inverse=True)
    return [(float(level), np.flatnonzero(which == k).tolist()) for k, level in enumerate(levels)]
