"""Sorting and ranking, as the assignment of items to ranks.

The LP is over the Birkhoff polytope, whose vertices are the permutation matrices; seen from the scores it is
an LP over the permutahedron of the weights w, the convex hull of all arrangements of w::

    max  sum_ij s_i w_j x_ij     over the assignments x of items i to ranks j.

By the rearrangement inequality the largest score meets the largest weight, so that sorting solves it. The
assignment LP stays the definition, the test, and the way for other solvers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, Status, evaluate
from lpdiff.autograd import apply
from lpdiff.gradients import AbstractEstimator, Exact
from lpdiff.oracle import IndicatorOperation
from lpdiff.problem import Moments, Parameter, Proposal

from .base import AbstractResult, ProblemModule, SolveOptions, given, last_size, read_mask

__all__ = ["Rank", "RankingProblem", "RankingSolution", "rank"]


@functools.lru_cache(maxsize=32)
def ranking_program(n: int, descending: bool) -> LinearProgram:
    """The assignment of n items to n ranks; variable i n + j is item i at rank j."""
    ones, eye = np.ones((1, n)), sp.eye_array(n)
    rows = sp.vstack([sp.kron(eye, ones), sp.kron(ones, eye)]) if n else np.zeros((0, 0))
    # Ascending: the largest score gets the largest weight, which is the maximum; descending, the minimum.
    return LinearProgram(
        A_eq=rows, b_eq=np.ones(2 * n), sense="min" if descending else "max", name=f"ranking of {n}"
    )


@dataclass(frozen=True, eq=False)
class RankingProblem(AbstractProblem):
    """n items: their scores, the weights of the ranks, and which items there are.

    The objective is bilinear in scores and weights; the oracle knows the gradient in the scores. The ranks of
    k items are the first k; the other items take the other ranks, at no cost.
    """

    n: int
    descending: bool = False
    has_oracle: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("scores", (self.n,)),
            Parameter("weights", (self.n,), kind="side"),
            Parameter("mask", (self.n,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return ranking_program(self.n, self.descending)

    def data(self, *parameters: Any) -> dict[str, Any]:
        scores, weights, mask = parameters
        there = mask != 0
        if bool(there.all()):
            return {"c": (scores[..., :, None] * weights[..., None, :]).flatten(-2)}
        ranks = torch.arange(self.n) < there.sum(-1, keepdim=True)
        pairs = there[..., :, None] & ranks[..., None, :]
        apart = there[..., :, None] ^ ranks[..., None, :]
        scores, weights = scores.masked_fill(~there, 0.0), weights.masked_fill(~ranks, 0.0)
        c = torch.where(pairs, scores[..., :, None] * weights[..., None, :], 0.0).flatten(-2)
        upper = torch.where(apart, 0.0, 1.0).to(c.dtype).flatten(-2)
        return {"c": c, "bounds": (None, upper)}

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        scores, weights, mask = arrays
        there = mask != 0
        ranks = np.arange(self.n) < there.sum(axis=1, keepdims=True)
        order = _sorted(-scores if self.descending else scores, there)
        by_weight = _sorted(weights, ranks)
        weight = np.where(ranks, np.take_along_axis(weights, by_weight, axis=1), 0.0)
        chosen = np.where(ranks, np.take_along_axis(scores, order, axis=1), 0.0)
        value = (weight * chosen).sum(axis=1)
        wrong = ~np.isfinite(chosen).all(axis=1) | ~np.isfinite(weight).all(axis=1)
        weight[wrong], value[wrong] = 0.0, np.nan
        status = np.where(wrong, np.int8(Status.INVALID), np.int8(Status.OPTIMAL))
        messages = {int(i): "a score or a weight is NaN or infinite" for i in np.flatnonzero(wrong)}
        return Proposal(value, status, (Moments(np.where(ranks, order, 0), weight),), messages)


def rank(
    scores: Any,
    *,
    weights: Any = None,
    descending: bool = False,
    mask: Any = None,
    **how: Unpack[SolveOptions],
) -> RankingSolution:
    """Rank items by their scores: the assignment of items to ranks, and an LP over the permutahedron::

        max  sum_ij s_i w_j x_ij   subject to   sum_j x_ij = 1,   sum_i x_ij = 1,   x >= 0

    (min where descending). Its vertices are permutations. With the weights 1..n the value is the sum of
    scores times ranks, and its gradient in the scores are the ranks.

    Args:
        scores: (*batch, n).
        weights: (*batch, n), what an item gets for its rank: the smallest weight for the first. Default 1..n.
            Of k items the first k weights are used. A gradient to weights goes by the LP.
        descending: The best score first.
        mask: Which items there are: (*batch, n) booleans, or (*batch,) lengths. Default: all.
        how: See ``lpdiff.evaluate``. A rule (``gradient=``) makes ``vertex`` and ``indicator``
            differentiable.

    Returns:
        A RankingSolution. Ties keep the order of the items (those of the LP may not).

    Raises:
        ValueError: shapes that do not fit.
        SolveError: NaN or infinite numbers (unless ``throw=False``).

    Solver: a stable sort, O(n log n); as an LP ``assignment``, O(n^3). Reference: Hardy, Littlewood and Polya
    (1934), Inequalities, 10.2; Blondel, Teboul, Berthet and Djolonga (2020), Fast differentiable sorting and
    ranking.

    Example:
        >>> found = rank(torch.tensor([0.3, 2.0, -1.0]))
        >>> found.ranks, found.order, found.sorted
        (tensor([2, 3, 1]), tensor([2, 0, 1]), tensor([-1.0000, 0.3000, 2.0000]))
    """
    n = last_size("scores", scores)
    if weights is None:
        weights = np.arange(1.0, n + 1)
    found = evaluate(RankingProblem(n, descending), scores, weights, read_mask(mask, n), **how)
    return RankingSolution(found.value, found)


@dataclass(frozen=True, eq=False, repr=False)
class RankingSolution(AbstractResult):
    """A ranking.

    Attributes:
        value: (*batch,) the sum of scores times weights, with exact gradients in both.
    """

    @cached_property
    def order(self) -> torch.Tensor:
        """(*batch, n) int64, the item at each rank; -1 behind the last."""
        inputs, n = self.evaluation.inputs, self._n
        shape = (*inputs.batch_shape, n)
        count = given(self.evaluation, 2).sum(-1, keepdim=True)
        if self.solution is None:
            order = self.evaluation.moments[0][0].reshape(shape)
        else:
            with torch.no_grad():
                x = torch.nan_to_num(self.solution.vertex).reshape(*shape, n)
                weights = given(self.evaluation, 1).masked_fill(torch.arange(n) >= count, torch.inf)
                by_weight = torch.sort(weights, dim=-1, stable=True).indices.expand(shape)
                order = x.argmax(-2).gather(-1, by_weight) if n else torch.zeros(shape, dtype=torch.int64)
        return inputs.like_user(order.masked_fill(torch.arange(n) >= count, -1))

    @cached_property
    def ranks(self) -> torch.Tensor:
        """(*batch, n) int64, the rank of each item, from 1 on; -1 where there is none."""
        order = self.order
        numbers = torch.arange(1, self._n + 1, device=order.device).expand(order.shape)
        # Padding is written to a place of its own, behind the last.
        ranks = order.new_full((*order.shape[:-1], self._n + 1), -1)
        ranks.scatter_(-1, order.masked_fill(order < 0, self._n), numbers)
        return ranks[..., : self._n]

    @cached_property
    def sorted(self) -> torch.Tensor:
        """(*batch, n) the scores in their order, 0 behind the last; differentiable in the scores."""
        inputs = self.evaluation.inputs
        scores, order = inputs.like_user(given(self.evaluation, 0)).expand(self.order.shape), self.order
        return scores.gather(-1, order.clamp(min=0)).masked_fill(order < 0, 0.0)

    @cached_property
    def vertex(self) -> torch.Tensor:
        """(*batch, n) the weight that each item gets: a vertex of the permutahedron, dvalue/dscores."""
        return self.evaluation.indicator(0)

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, n, n) 1 where an item (row) has a weight (column); differentiable under a rule, which then
        is one in the costs of the assignment LP, not in the scores."""
        evaluation, n = self.evaluation, self._n
        inputs = evaluation.inputs
        shape = (*inputs.batch_shape, n, n)
        there = given(self.evaluation, 2) != 0
        ranks = torch.arange(n) < there.sum(-1, keepdim=True)
        ruled = isinstance(evaluation.rule, AbstractEstimator)
        if ruled or self.solution is not None:  # of scores the rule knows the vertex, not the assignment
            x = evaluation.by_lp().x.reshape(shape)
            return inputs.like_user(x * (there[..., :, None] & ranks[..., None, :]))
        weights = given(self.evaluation, 1).detach().masked_fill(~ranks, torch.inf)
        by_weight = torch.sort(weights, dim=-1, stable=True).indices.expand(shape[:-1])
        order = self.order.cpu()
        index = (order.clamp(min=0) * n + by_weight).reshape(inputs.size, n)
        weight = ((order >= 0) & evaluation.ok.cpu()[..., None]).double().reshape(inputs.size, n)
        exact = isinstance(evaluation.rule, Exact)
        (dense,) = apply(IndicatorOperation(n * n, exact), index, weight, inputs.flat[0])
        return inputs.like_user(dense.reshape(shape))

    def decode(self) -> Any:
        """The items in their order: a list an item of the batch (nested as the batch is)."""
        return _without_padding(self.order.tolist())

    @property
    def _n(self) -> int:
        return int(self.evaluation.problem.parameters[0].shape[0])


class Rank(ProblemModule):
    """``rank`` as a module: options at construction, ``scores`` at the call."""

    function = staticmethod(rank)


def _without_padding(rows: Any) -> Any:
    if rows and isinstance(rows[0], list):
        return [_without_padding(row) for row in rows]
    return [i for i in rows if i >= 0]


def _sorted(numbers: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Ascending order, ties by index, and what is not there last."""
    if there.all():
        return np.argsort(numbers, axis=1, kind="stable")
    order = np.argsort(np.where(there, numbers, 0.0), axis=1, kind="stable")
    last = np.argsort(~np.take_along_axis(there, order, axis=1), axis=1, kind="stable")
    return np.take_along_axis(order, last, axis=1)
