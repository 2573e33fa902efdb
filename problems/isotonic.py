"""Isotonic regression in the absolute (or pinball) loss, on a chain or on a partial order.

    min  sum_i w_i |x_i - y_i|     subject to     x_i <= x_j   for the pairs (i, j) of the order

is the dual of a minimum-cost flow, and it is the flow that is declared here: lpdiff recognises it, and solves
it by network simplex (the fit itself, of three entries a column, would be a general LP). With w_i |x_i - y_i|
= max { g_i (y_i - x_i) : |g_i| <= w_i } and a multiplier p_ij >= 0 a pair,

    max  sum_i y_i g_i     subject to     g_i - sum_j p_ij + sum_j p_ji = 0,   -w <= g <= w,   p >= 0:

item i may draw up to w_i from the ground, for y_i a unit, and flow runs along the order. The fit x are the
duals of the rows. So y is a cost and w a bound, and both have exact gradients: dz/dy = g. The fit is
differentiable through the optimal basis, exactly. Each x_i is one of the y_k: potentials are costs of arcs
to the ground, added along a spanning tree on which all others are free.

The pinball loss of a quantile q, q (y - x)+ + (1 - q) (x - y)+, has the bounds -(1 - q) w <= g <= q w.
Reference: Robertson, Wright and Dykstra (1988), Order Restricted Statistical Inference; Ahuja and Orlin
(2001), A fast scaling algorithm for minimizing separable convex functions subject to chain constraints.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, Evaluation, LinearProgram, Solution, evaluate
from lpdiff.problem import Parameter
from lpdiff.problems.base import ProblemModule, SolveOptions, first_item, last_size, named, read_mask

__all__ = ["Isotonic", "IsotonicProblem", "IsotonicSolution", "isotonic"]


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


@dataclass(frozen=True, eq=False)
class IsotonicProblem(AbstractProblem):
    """n observations, and what a unit of x below and above each of them costs.

    Attributes:
        n: Observations.
        pairs: (i, j) where x_i <= x_j.
    """

    n: int
    pairs: tuple[tuple[int, int], ...]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("y", (self.n,)),
            Parameter("below", (self.n,), kind="side"),
            Parameter("above", (self.n,), kind="side"),
            Parameter("mask", (self.n,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return isotonic_program(self.n, self.pairs)

    def data(self, *parameters: Any) -> dict[str, Any]:
        y, below, above, mask = parameters
        flows = len(self.pairs)
        if not bool((mask != 0).all()):
            y, below, above = (t.masked_fill(mask == 0, 0.0) for t in (y, below, above))
        upper = torch.nn.functional.pad(below, (0, flows), value=torch.inf)
        lower = torch.nn.functional.pad(-above, (0, flows))
        return {"c": torch.nn.functional.pad(y, (0, flows)), "bounds": (lower, upper)}


def isotonic(
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
            |x - y|.
        mask: Which observations there are: (*batch, n) booleans, or (*batch,) lengths. The others weigh
            nothing; their x only keeps the order.
        how: See ``lpdiff.evaluate``.

    Returns:
        An IsotonicSolution: the value with exact gradients in y and weights, the fit with its exact
        derivative.

    Raises:
        ValueError: shapes or pairs that do not fit, a negative weight, a quantile outside 0..1.
        SolveError: NaN or infinite observations (unless ``throw=False``).

    Solver: the LP is a minimum-cost flow with n + E arcs, ``network``.

    Example:
        >>> found = isotonic(torch.tensor([1.0, 3.0, 2.0, 2.5, 5.0]))
        >>> found.value, found.fit
        (tensor(1.), tensor([1.0000, 2.0000, 2.0000, 2.5000, 5.0000]))
    """
    n = last_size("y", y)
    pairs = _pairs(order, n)
    if not increasing:
        pairs = tuple((j, i) for i, j in pairs)
    below, above = _slopes(np.ones(n) if weights is None else weights, quantile)
    found = evaluate(IsotonicProblem(n, pairs), y, below, above, read_mask(mask, n), **how)
    return IsotonicSolution(found.value, found.status, found)


@dataclass(frozen=True, eq=False, repr=False)
class IsotonicSolution:
    """A monotone fit.

    Attributes:
        value: (*batch,) the loss of the fit, with exact gradients in y and weights.
        status: (*batch,) of ``lpdiff.Status``.
        evaluation: What ``lpdiff.evaluate`` found.
    """

    value: torch.Tensor
    status: torch.Tensor
    evaluation: Evaluation

    @property
    def ok(self) -> torch.Tensor:
        """(*batch,) bool."""
        return self.evaluation.ok

    @property
    def solution(self) -> Solution:
        """The LP's Solution: of the flow, whose duals are the fit."""
        assert self.evaluation.solution is not None
        return self.evaluation.solution

    @cached_property
    def fit(self) -> torch.Tensor:
        """(*batch, n) the fitted x, each one of the observations; differentiable in y, exactly."""
        return self.evaluation.inputs.like_user(self.solution.y)

    def decode(self) -> Any:
        """Pairs (level, observations that share it), ascending: a list an item of the batch (nested)."""
        return _levels(self.fit.detach().cpu().double().numpy())


class Isotonic(ProblemModule):
    """``isotonic`` as a module: options at construction, ``(y, weights)`` at the call."""

    function = staticmethod(isotonic)


def _pairs(order: Any, n: int) -> tuple[tuple[int, int], ...]:
    if order is None:
        return tuple((i, i + 1) for i in range(n - 1))
    given = order.detach().cpu().numpy() if isinstance(order, torch.Tensor) else np.asarray(order)
    if given.size == 0:
        return ()
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
        raise ValueError(f"order: expected (E, 2) integers, got {given.dtype} of shape {given.shape}")
    wrong = (given < 0) | (given >= n) | (given[:, :1] == given[:, 1:])
    if wrong.any():
        k = int(np.flatnonzero(wrong.any(axis=1))[0])
        raise ValueError(
            f"order: pair {k} is {tuple(given[k].tolist())}, expected two of the {n} observations"
        )
    return tuple(map(tuple, given.tolist()))


def _slopes(weights: Any, quantile: Any) -> tuple[Any, Any]:
    """What a unit of x costs below an observation, and above it; (*batch, n) each."""
    if isinstance(quantile, torch.Tensor) and not isinstance(weights, torch.Tensor):
        weights = torch.as_tensor(np.asarray(weights), dtype=quantile.dtype, device=quantile.device)
    weights = weights if isinstance(weights, torch.Tensor) else np.asarray(weights)
    wrong = torch.as_tensor(weights).detach() < 0
    if bool(wrong.any()):
        *item, i = first_item(wrong)
        raise ValueError(f"weights: {named(tuple(item))} has a negative weight at index {i}, expected >= 0")
    if quantile is None:
        return weights, weights
    shares = torch.as_tensor(quantile).detach()
    wrong = ~((shares >= 0) & (shares <= 1))
    if bool(wrong.any()):
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
