"""Assignment: rows to columns, square or rectangular, padded or masked, all of them, some, or so many."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch

from lpdiff import evaluate

from .base import AbstractResult, ProblemModule, SolveOptions
from .pairing import EXACT, FREE, FULL, members, problem_of, wanted_pairs

__all__ = ["Assignment", "Matching", "assignment", "nested", "sizes_of"]


def assignment(
    costs: Any,
    *,
    rows: Any = None,
    columns: Any = None,
    pairs: Any = None,
    unmatched: Any = None,
    **how: Unpack[SolveOptions],
) -> Matching:
    """The cheapest matching of rows and columns::

        min  sum_ij c_ij x_ij    subject to    sum_j x_ij = 1,   sum_i x_ij <= 1,   x >= 0

    where there are no more rows than columns; else the columns are matched. Every vertex is a matching.

    Args:
        costs: (*batch, n, m). +inf forbids a pair.
        rows, columns: Which there are: (*batch,) lengths, or (*batch, n) and (*batch, m) booleans, which may
            have holes. Default: all. What is not there is not read, whatever it is.
        pairs: Exactly so many pairs are made, the cheapest set of that size: an integer or (*batch,)
        integers.
        unmatched: Nothing need be matched, but what is left out costs this: a number or (*batch,) tensor,
            the same for all rows and columns; or a pair (of rows, of columns), each a number, (*batch, n)
            or (*batch, m), or None for nothing. Carries gradients. A pair is made where it costs less than
            leaving out both.
        how: See ``lpdiff.evaluate``.

    Returns:
        A Matching: the value, with exact gradients in the costs (1 on each pair) and in what unmatched ones
        cost; the pairs.

    Raises:
        ValueError: shapes, lengths or numbers of pairs that do not fit (the item is named).
        SolveError: NaN costs; forbidden pairs that leave no matching (unless ``throw=False``).

    Solver: shortest augmenting paths over dense costs, O(r^2 k) for r = min(n, m), k = max(n, m), compiled;
    as an LP ``assignment`` or ``network``. Reference: R. Jonker and A. Volgenant, Computing 38 (1987).

    Example:
        >>> costs = torch.tensor([[4.0, 1.0, 4.0], [2.0, 0.0, 5.0]], requires_grad=True)
        >>> found = assignment(costs)
        >>> found.value, found.column_of
        (tensor(3., grad_fn=...), tensor([1, 0]))
    """
    n, m, batch = sizes_of("costs", costs)
    if pairs is not None and unmatched is not None:
        raise ValueError("pairs= and unmatched= are two ways of matching only some: give one of them")
    (given_rows, masked), (given_columns, too) = (
        members("rows", rows, n, batch),
        members("columns", columns, m, batch),
    )
    mode = EXACT if pairs is not None else FREE if unmatched is not None else FULL
    parameters = [costs, *(_prices(unmatched, n, m) if mode == FREE else ()), given_rows, given_columns]
    if mode == EXACT:
        parameters.append(wanted_pairs(pairs, given_rows, given_columns, n, m))
    found = evaluate(problem_of(n, m, mode, (masked, too), ("row", "column")), *parameters, **how)
    return Matching(found.value, found)


class Assignment(ProblemModule):
    """``assignment`` as a module: ``Assignment(unmatched=0.7)(costs)``. An nn.Parameter is learned."""

    function = staticmethod(assignment)


def sizes_of(name: str, costs: Any) -> tuple[int, int, tuple[int, ...]]:
    """Rows, columns and batch of a matrix of costs."""
    shape = tuple(np.shape(costs))
    if len(shape) < 2:
        raise ValueError(f"{name}: expected shape (*batch, n, m), got {shape}")
    return int(shape[-2]), int(shape[-1]), shape[:-2]


def _prices(unmatched: Any, n: int, m: int) -> tuple[Any, Any]:
    """What leaving out each row and each column costs: (*batch, n), (*batch, m)."""
    paired = isinstance(unmatched, (tuple, list))
    if paired and len(unmatched) != 2:
        raise ValueError(
            f"unmatched: expected one cost, or a pair (of rows, of columns), got {len(unmatched)}"
        )
    sides = unmatched if paired else (unmatched, unmatched)
    return (_spread("rows", sides[0], n, paired), _spread("columns", sides[1], m, paired))


def _spread(name: str, cost: Any, size: int, paired: bool) -> Any:
    if not isinstance(cost, torch.Tensor):
        cost = np.asarray(0.0 if cost is None else cost, dtype=float)
    if not paired or cost.ndim == 0:
        cost = cost[..., None]
        return (
            cost.expand(*cost.shape[:-1], size)
            if isinstance(cost, torch.Tensor)
            else np.repeat(cost, size, -1)
        )
    if cost.shape[-1] != size:
        raise ValueError(
            f"unmatched: expected a number or (*batch, {size}) for the {name}, got {tuple(cost.shape)}"
        )
    return cost


@dataclass(frozen=True, eq=False, repr=False)
class Matching(AbstractResult):
    """A matching of rows and columns.

    Attributes:
        value: (*batch,) what it costs, with exact gradients.
    """

    @cached_property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, K) each: which there are, and their rows and columns; -1 behind the last."""
        index, weight = (t.numpy() for t in self.evaluation.moments[0])
        there = weight > 0.5
        m = max(1, self._sizes[1])
        rows = index // m  # three times as fast as np.divmod
        columns = index - rows * m
        if not there.all():
            rows[~there] = columns[~there] = -1
        return there, rows, columns

    def _shaped(self, array: np.ndarray) -> torch.Tensor:
        inputs = self.evaluation.inputs
        return inputs.like_user(torch.from_numpy(array)).reshape(*inputs.batch_shape, array.shape[-1])

    @cached_property
    def rows(self) -> torch.Tensor:
        """(*batch, K) int64, the rows that are matched, ascending; -1 behind the last."""
        return self._shaped(self._pairs[1])

    @cached_property
    def columns(self) -> torch.Tensor:
        """(*batch, K) int64, their columns."""
        return self._shaped(self._pairs[2])

    @cached_property
    def column_of(self) -> torch.Tensor:
        """(*batch, n) int64, the column of each row; -1 where it has none."""
        return _inverse(self.rows, self.columns, self._sizes[0])

    @cached_property
    def row_of(self) -> torch.Tensor:
        """(*batch, m) int64, the row of each column; -1 where it has none."""
        return _inverse(self.columns, self.rows, self._sizes[1])

    @cached_property
    def costs(self) -> torch.Tensor:
        """(*batch, K) the costs of the pairs, 0 behind the last; differentiable, one by one."""
        inputs = self.evaluation.inputs
        given = inputs.whole[0]
        assert given is not None
        costs = inputs.like_user(given).flatten(-2).expand(*inputs.batch_shape, -1)
        index, weight = (self._shaped(t.numpy()) for t in self.evaluation.moments[0])
        return torch.where(weight > 0.5, costs.gather(-1, index), 0.0)

    @property
    def indicator(self) -> torch.Tensor:
        """(*batch, n, m) 1 on pairs. A gradient through it needs a rule (``gradient=``)."""
        return self.evaluation.indicator(0)

    def decode(self) -> Any:
        """The pairs of each item, a (K, 2) NumPy array: one where there is no batch, else nested lists."""
        both = torch.stack([self.rows, self.columns], -1).cpu()
        return nested(both, lambda pairs: pairs[pairs[:, 0] >= 0].numpy())

    def __repr__(self) -> str:
        n, m = self._sizes
        return f"{type(self).__name__}(batch={self.evaluation.inputs.batch_shape}, {n} x {m})"

    @property
    def _sizes(self) -> tuple[int, int]:
        n, m = self.evaluation.problem.parameters[0].shape
        return n, m


def _inverse(places: torch.Tensor, values: torch.Tensor, size: int) -> torch.Tensor:
    # Padding is written to a place of its own, behind the last.
    out = places.new_full((*places.shape[:-1], size + 1), -1)
    return out.scatter(-1, torch.where(places < 0, size, places), values)[..., :size]


def nested(tensor: torch.Tensor, make: Any) -> Any:
    """``make`` of each item's (K, k) matrix, in lists nested as the batch."""
    if tensor.dim() == 2:
        return make(tensor)
    return [nested(part, make) for part in tensor]
