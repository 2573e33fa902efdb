"""Matching sets: predictions with targets, as set prediction trains, and outputs with sources, in any
order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch

from lpdiff import Solution, SolveError, evaluate

from .base import ProblemModule, SolveOptions, read_lengths
from .matching import Matching, assignment, sizes_of
from .pairing import FULL, members, problem_of

__all__ = [
    "PermutationInvariant",
    "PermutationMatching",
    "SetMatcher",
    "SetMatching",
    "permutation_invariant",
    "set_matching",
]


def set_matching(
    costs: Any,
    *,
    targets: Any = None,
    queries: Any = None,
    sizes: Any = None,
    **how: Unpack[SolveOptions],
) -> SetMatching:
    """Match each image's targets with its queries, at the least cost; all images and layers in one call::

        min  sum_qt c_qt x_qt    subject to    sum_q x_qt = 1,   sum_t x_qt <= 1,   x >= 0

    (with more targets than queries, every query is matched). This is what the matcher of DETR does image by
    image.

    Args:
        costs: (*batch, queries, targets), padded; the batch is (images,) or (layers, images), say. +inf
            forbids a pair. Or, with ``sizes``, (*layers, images, queries, all targets): each image's queries
            against the targets of all images one after the other, of which only its own are read.
        targets, queries: Which an image has: lengths, (*batch,), or booleans, (*batch, targets) and
            (*batch, queries). (images,) serves all layers. Default: all.
        sizes: How many targets each image has: integers, (images,).
        how: See ``lpdiff.evaluate``.

    Returns:
        A SetMatching: ``indices`` in the form of reference code, the matched costs, and their sum, with exact
        gradients in the costs.

    Raises:
        ValueError: shapes or sizes that do not fit.
        SolveError: NaN costs; forbidden pairs that leave no matching (unless ``throw=False``). The message
            names the layer, the image, the query and the target.

    Solver: shortest augmenting paths over the costs as they are, O(t^2 q), compiled; one pass over the
    costs where no two targets want the same query. Reference: N. Carion et al., arXiv 2005.12872 (2020),
    section 3.1.

    Example:
        >>> costs = torch.rand(6, 4, 100, 20)  # layers, images
        >>> found = set_matching(costs, targets=[3, 20, 0, 7])
        >>> query, target = found.indices[5][1]
    """
    n, m, batch = sizes_of("costs", costs)
    if sizes is None:
        columns, masked = members("targets", targets, m, batch)
    else:
        if targets is not None:
            raise ValueError("sizes= says which targets an image has: leave out targets=")
        columns, masked = _windows(sizes, m, batch), False
    rows, too = members("queries", queries, n, batch)
    problem = problem_of(n, m, FULL, (too, masked), ("query", "target"))
    try:
        found = evaluate(problem, costs, rows, columns, **how)
    except SolveError as error:
        raise _naming_layers(error) from None
    return SetMatching(found.value, found)


class SetMatcher(ProblemModule):
    """``set_matching`` as a module."""

    function = staticmethod(set_matching)


def _windows(sizes: Any, m: int, batch: tuple[int, ...]) -> torch.Tensor:
    """(images, 2): the first of each image's targets, and how many."""
    given = sizes if isinstance(sizes, torch.Tensor) else torch.as_tensor(np.asarray(sizes))
    if given.numel() == 0:
        given = given.to(torch.int64)
    counts = read_lengths("sizes", given, m, batch[-1:])
    if counts.dim() != 1 or not batch or counts.shape[0] != batch[-1]:
        raise ValueError(
            f"sizes: expected one an image, for costs {(*batch, '...')}, got {tuple(counts.shape)}"
        )
    if int(counts.sum()) != m:
        raise ValueError(
            f"sizes: they sum to {int(counts.sum())}, but costs have {m} targets. sizes= is for the targets "
            f"of all images one after the other; for padded targets use targets="
        )
    return torch.stack([counts.cumsum(0) - counts, counts], -1)


def _naming_layers(error: SolveError) -> SolveError:
    """The same error, in the words of set prediction."""
    text = str(error)
    if error.items and len(error.items[0]) == 2:
        text = re.sub(r"(?:items? )?\((\d+), (\d+)\)", r"layer \1, image \2", text)
    else:
        text = re.sub(r"\bitem(s?) (?=\d)", r"image\1 ", text)
    return SolveError(text, error.items, error.statuses, error.certificates)


@dataclass(frozen=True, eq=False, repr=False)
class SetMatching(Matching):
    """A matching of queries (rows) with targets (columns); see Matching."""

    @cached_property
    def indices(self) -> Any:
        """Of each image a pair (queries, targets) of int64 tensors, queries ascending, targets counted from
        the image's first: a list where the batch is (images,), and lists in a list for (layers, images)."""
        inputs, (there, rows, _columns) = self.evaluation.inputs, self._pairs
        if there.all():
            counts, sides = [there.shape[1]] * len(there), (rows.reshape(-1), self._own.reshape(-1))
        else:
            counts, sides = there.sum(1).tolist(), (rows[there], self._own[there])
        pairs = zip(
            *(
                torch.unsafe_split_with_sizes(inputs.like_user(torch.from_numpy(side)), counts)
                for side in sides
            ),
            strict=True,
        )
        return _nest(list(pairs), inputs.batch_shape)

    @cached_property
    def chosen(self) -> tuple[torch.Tensor, ...]:
        """All pairs in a row, as an index: one tensor a dimension of the batch, then queries, then targets.

        ``outputs[found.chosen[:-1]]`` are the matched queries' outputs, for outputs of shape
        (*batch, queries, ...)."""
        inputs, (there, rows, _columns) = self.evaluation.inputs, self._pairs
        item, _ = np.nonzero(there)
        batch = np.unravel_index(item, inputs.batch_shape) if inputs.batch_shape else ()
        parts = (*batch, rows[there], self._own[there])
        return tuple(inputs.like_user(torch.from_numpy(part)) for part in parts)

    @property
    def _own(self) -> np.ndarray:
        """The targets of ``_pairs``, counted from the first of each image."""
        columns, window = self._pairs[2], self.evaluation.inputs.flat[2]
        if window is None or window.shape[1] != 2:
            return columns
        return columns - window[:, :1].numpy()


def _nest(things: list[Any], batch: Sequence[int]) -> Any:
    if len(batch) == 0:
        return things[0]
    for size in reversed(batch[1:]):
        things = [things[k : k + size] for k in range(0, len(things), size)] if size else []
    return things if all(batch[1:]) else [_nest([], batch[1:]) for _ in range(batch[0])]


# -- in any order ------------------------------------------------------------------------------------------


def permutation_invariant(
    losses: Any, *, lengths: Any = None, reduction: str = "mean", **how: Unpack[SolveOptions]
) -> PermutationMatching:
    """The least loss over all orders of the targets: permutation invariant training::

        min  over permutations p of   mean_i losses[i, p(i)]

    as an assignment, so that many sources cost little (trying all orders ends at about eight).

    Args:
        losses: (*batch, n, n): of each output with each target. +inf forbids a pair.
        lengths: How many sources an item has: (*batch,), or (*batch, n) booleans. Default: n.
        reduction: ``"mean"`` or ``"sum"`` over an item's sources. (The mean of none is 0.)
        how: See ``lpdiff.evaluate``.

    Returns:
        A PermutationMatching: the value, with exact gradients in the losses, and the permutation.

    Raises:
        ValueError: shapes, lengths or a reduction that do not fit.
        SolveError: NaN losses; forbidden pairs that leave no permutation (unless ``throw=False``).

    Solver: that of ``assignment``, O(n^3). Reference: D. Yu et al., arXiv 1607.00325 (2016); M. Kolbaek et
    al., arXiv 1703.06284 (2017).

    Example:
        >>> losses = (outputs[:, :, None] - targets[:, None]).square().mean(-1)
        >>> found = permutation_invariant(losses)
        >>> found.value.mean().backward(); aligned = found.permute(targets)
    """
    n, m, batch = sizes_of("losses", losses)
    if n != m:
        raise ValueError(f"losses: expected (*batch, n, n), one target an output, got {(*batch, n, m)}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
    found = assignment(losses, rows=lengths, columns=lengths, **how)
    value = found.value
    if reduction == "mean":
        given = found.evaluation.inputs.whole[1]
        count = max(1, n) if given is None else given[..., 1].clamp(min=1).to(value.device)
        value = value / count
    return PermutationMatching(value, found.status, found)


class PermutationInvariant(ProblemModule):
    """``permutation_invariant`` as a module."""

    function = staticmethod(permutation_invariant)


@dataclass(frozen=True, eq=False, repr=False)
class PermutationMatching:
    """The best order of the targets.

    Attributes:
        value: (*batch,) the loss in it, with exact gradients.
        status: (*batch,) of ``lpdiff.Status``.
        matching: The Matching of outputs (rows) with targets (columns).
    """

    value: torch.Tensor
    status: torch.Tensor
    matching: Matching

    @property
    def ok(self) -> torch.Tensor:
        """(*batch,) bool."""
        return self.matching.ok

    @property
    def solution(self) -> Solution | None:
        """The Solution of the LP where the LP was solved, else None."""
        return self.matching.solution

    @property
    def permutation(self) -> torch.Tensor:
        """(*batch, n) int64, the target of each output; -1 where there is none."""
        return self.matching.column_of

    def permute(self, targets: torch.Tensor) -> torch.Tensor:
        """Targets (*batch, n, ...) in the order of the outputs; where there are none, they stay."""
        order = self.permutation
        order = torch.where(order < 0, torch.arange(order.shape[-1], device=order.device), order)
        more = targets.dim() - order.dim()
        index = order.reshape(*order.shape, *[1] * more).expand(*order.shape, *targets.shape[order.dim() :])
        return targets.gather(order.dim() - 1, index.to(targets.device))

    def decode(self) -> Any:
        """The target of each output, a NumPy array an item: one where there is no batch, else nested
        lists."""
        return _rows(self.permutation.cpu())


def _rows(order: torch.Tensor) -> Any:
    if order.dim() == 1:
        return order[order >= 0].numpy()
    return [_rows(part) for part in order]
