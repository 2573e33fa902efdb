"""Learning from bags: which labels a bag holds is known, but not which of its items has which."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, Status, evaluate
from lpdiff.problem import Moments, Parameter, Proposal

from .base import AbstractResult, ProblemModule, SolveOptions, any_of, first_item, forbidding
from .matching import nested, sizes_of
from .pairing import members, spans, there

__all__ = ["BagLabelling", "BagMatching", "BagProblem", "bag_matching"]

_REDUCTIONS = ("mean", "bags", "sum", "none")


@functools.lru_cache(maxsize=32)
def bag_program(n: int, classes: int) -> LinearProgram:
    """x by items, then s: whether an item has no label."""
    items = sp.kron(sp.eye_array(n), np.ones((1, classes)))
    labels = sp.kron(np.ones((1, n)), sp.eye_array(classes))
    return LinearProgram(
        A_eq=sp.block_array([[items, sp.eye_array(n)], [labels, sp.csr_array((classes, n))]]),
        b_eq=np.repeat([1.0, 0.0], [n, classes]),
        name=f"bag of {n} items, {classes} classes",
    )


@dataclass(frozen=True, eq=False)
class BagProblem(AbstractProblem):
    """Bags of n items, of so many classes.

    Parameters: log_probs; what items without a label cost (where ``spare``); the items, from ``members``;
        counts.

    Attributes:
        spare: Whether items may be without a label.
        masked: Whether items are given one by one, not as the first and how many.
    """

    n: int
    classes: int
    spare: bool = False
    masked: bool = False
    has_oracle: ClassVar[bool] = True

    @functools.cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("log_probs", (self.n, self.classes), compact=True),
            *((Parameter("unlabelled", (self.n,)),) if self.spare else ()),
            Parameter("items", (self.n + 2 if self.masked else 2,), kind="data"),
            Parameter("counts", (self.classes,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return bag_program(self.n, self.classes)

    def data(self, *parameters: Any) -> dict[str, Any]:
        log_probs, *unlabelled, items, counts = parameters
        has = there(items, self.n)
        # Where an item or a class is not there, nothing is read.
        open_ = has[..., :, None] & (counts > 0)[..., None, :]
        c = torch.where(open_, -log_probs, torch.inf).flatten(-2)
        left = torch.where(has, unlabelled[0] if self.spare else c.new_tensor(torch.inf), 0.0)
        batch = np.broadcast_shapes(c.shape[:-1], left.shape[:-1])
        data = forbidding(torch.cat([t.expand(*batch, t.shape[-1]) for t in (c, left)], -1))
        ones = torch.ones(*counts.shape[:-1], self.n, dtype=c.dtype)
        return {**data, "b": torch.cat([ones, counts.to(c.dtype)], -1)}

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.kernels.bags import label

        log_probs, *unlabelled, items, counts = arrays
        items = spans(items, max(len(a) for a in arrays if a is not None), self.n)
        found = label(log_probs, items, counts, *unlabelled, threads=threads)
        moments = [Moments(found.places, found.weight)]
        if self.spare:
            every = np.broadcast_to(np.arange(self.n), found.left.shape)
            moments.append(Moments(np.ascontiguousarray(every), found.left))
        messages = {}
        for bag in np.flatnonzero(found.status).tolist():
            if found.status[bag] == Status.INVALID:
                messages[bag] = self._improper(
                    [a[bag] for a in (log_probs, *unlabelled)], items[bag], counts[bag]
                )
            elif found.status[bag] == Status.INFEASIBLE:
                messages[bag] = "the log-probabilities above -inf do not allow these labels"
        return Proposal(found.value, found.status, tuple(moments), messages)

    def _improper(self, arrays: list[np.ndarray], items: np.ndarray, counts: np.ndarray) -> str:
        """Which number of a bag is no log-probability."""
        has = there(torch.from_numpy(items), self.n).numpy()
        wrong = np.argwhere(~(arrays[0] < np.inf) & has[:, None] & (counts > 0))
        if len(wrong):
            i, k = (int(place) for place in wrong[0])
            return (
                f"log_probs of item {i} and class {k} is {arrays[0][i, k]}: expected numbers, or -inf where "
                f"an item cannot be of a class"
            )
        return "what an item without a label costs is NaN or -inf"


def bag_matching(
    log_probs: Any,
    counts: Any = None,
    *,
    labels: Any = None,
    items: Any = None,
    unlabelled: Any = None,
    reduction: str = "mean",
    **how: Unpack[SolveOptions],
) -> BagLabelling:
    """The weakly supervised matching loss: the best labelling of a bag's items with the labels it holds::

        min  sum_ik -log_probs[i, k] x_ik    subject to    sum_k x_ik = 1,   sum_i x_ik = counts[k],   x >= 0

    Its vertices are labellings (a transport problem with integer sides), its gradient in the
    log-probabilities is -1 at each item's label: cross entropy with the labels that fit best.

    Args:
        log_probs: (*batch, items, classes), as of log_softmax. -inf forbids.
        counts: (*batch, classes) integers: how many items of each class the bag holds.
        labels: Instead of counts: the labels themselves, in any order: lists of integers nested as the
            batch, of any lengths, or a (*batch, k) integer tensor filled up with -1.
        items: Which items a bag has: lengths, (*batch,), or booleans, (*batch, items). Default: all.
        unlabelled: What an item without a label costs: a number, (*batch,) or (*batch, items). Given, a bag
            may hold fewer labels than items; the labels go to the items that they suit best. Carries
            gradients.
        reduction: Of ``loss``: ``"mean"`` over all labels of all bags, ``"bags"``: mean over bags,
            ``"sum"``, or ``"none"``.
        how: See ``lpdiff.evaluate``.

    Returns:
        A BagLabelling: the loss, the value of each bag, the label of each item.

    Raises:
        ValueError: shapes that do not fit; a bag with more labels than items, or fewer (without
            ``unlabelled``), a negative count, a label that is no class. The bag is named.
        SolveError: NaN; labels that -inf forbids (unless ``throw=False``).

    Solver: shortest augmenting paths over the classes of a bag, O(n^2 k) for n items and k distinct labels,
    compiled; as an LP ``network``. Reference: T. Gao et al., arXiv 1910.08211 (2019), section 4.

    Example:
        >>> log_probs = model(images).log_softmax(-1)  # (bags, items, 10)
        >>> bag_matching(log_probs, labels=[[3, 3, 7], [0, 1, 9]]).loss.backward()
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}")
    n, classes, batch = sizes_of("log_probs", log_probs)
    if (counts is None) == (labels is None):
        raise ValueError("give either counts, (*batch, classes), or labels=")
    held = _counts(counts, classes) if labels is None else _count_labels(labels, classes, len(batch))
    given, masked = members("items", items, n, batch)
    _check_sizes(held, there(given, n).sum(-1), unlabelled is not None)
    spare = [] if unlabelled is None else [_spread(unlabelled, n, len(batch))]
    problem = BagProblem(n, classes, unlabelled is not None, masked)
    found = evaluate(problem, log_probs, *spare, given, held, **how)
    return BagLabelling(found.value, found, _reduced(found.value, held, reduction))


class BagMatching(ProblemModule):
    """``bag_matching`` as a module, a loss like ``torch.nn.CrossEntropyLoss``: it holds the options."""

    function = staticmethod(bag_matching)


def _reduced(value: torch.Tensor, counts: torch.Tensor, reduction: str) -> torch.Tensor:
    if reduction == "none":
        return value
    total = value.sum()
    if reduction == "sum":
        return total
    if reduction == "bags":
        return total / max(1, value.numel())
    return total / max(1, int(counts.sum(-1).expand(value.shape).sum()))


def _counts(counts: Any, classes: int) -> torch.Tensor:
    given = counts if isinstance(counts, torch.Tensor) else torch.as_tensor(np.asarray(counts))
    given = given.detach().to("cpu")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise ValueError(f"counts: expected integers, how many items of each class, got {given.dtype}")
    if given.dim() == 0 or given.shape[-1] != classes:
        raise ValueError(
            f"counts: expected shape (*batch, {classes}), one number a class, got {tuple(given.shape)}. "
            f"Labels themselves are given as labels="
        )
    wrong = given < 0
    if any_of(wrong):
        *bag, k = first_item(wrong)
        raise ValueError(
            f"counts: {_bag(bag)} holds {int(given[(*bag, k)])} of class {k}, expected 0 or more"
        )
    return given.to(torch.int64)


def _count_labels(labels: Any, classes: int, depth: int) -> torch.Tensor:
    """(*batch, classes) from lists of labels, or from a tensor filled up with -1."""
    if isinstance(labels, (list, tuple)) and not all(isinstance(part, torch.Tensor) for part in labels):
        return _count_lists(labels, classes, depth, ())
    if isinstance(labels, (list, tuple)):
        return _count_lists([part.tolist() for part in labels], classes, depth, ())
    given = labels if isinstance(labels, torch.Tensor) else torch.as_tensor(np.asarray(labels))
    given = given.detach().to("cpu")
    if given.is_floating_point() or given.is_complex() or given.dtype == torch.bool or given.dim() == 0:
        raise ValueError(f"labels: expected integers (*batch, k), got {given.dtype} {tuple(given.shape)}")
    given = given.to(torch.int64)
    wrong = (given < -1) | (given >= classes)
    if any_of(wrong):
        *bag, place = first_item(wrong)
        raise _no_class(bag, int(given[(*bag, place)]), classes)
    # Padding is counted in a class of its own, behind the last.
    kind = torch.where(given < 0, classes, given)
    counts = torch.zeros(*given.shape[:-1], classes + 1, dtype=torch.int64)
    return counts.scatter_add_(-1, kind, torch.ones_like(kind))[..., :classes]


def _count_lists(labels: Any, classes: int, depth: int, bag: tuple[int, ...]) -> torch.Tensor:
    if isinstance(labels, torch.Tensor):
        labels = labels.tolist()
    if not isinstance(labels, (list, tuple)):
        raise ValueError(f"labels: expected a list of labels for {_bag(bag)}, got {labels!r}")
    if depth > 0:
        parts = [_count_lists(part, classes, depth - 1, (*bag, k)) for k, part in enumerate(labels)]
        return torch.stack(parts) if parts else torch.zeros(0, classes, dtype=torch.int64)
    for one in labels:
        if isinstance(one, bool) or not isinstance(one, (int, np.integer)):
            raise ValueError(
                f"labels: {_bag(bag)} holds {one!r}, expected integers, in lists nested as the batch"
            )
        if not 0 <= one < classes:
            raise _no_class(bag, int(one), classes)
    return torch.from_numpy(np.bincount(np.array(labels, dtype=np.int64), minlength=classes))


def _no_class(bag: Sequence[int], got: int, classes: int) -> ValueError:
    return ValueError(f"labels: {_bag(bag)} holds label {got}, expected classes 0 to {classes - 1}")


def _check_sizes(counts: torch.Tensor, items: torch.Tensor, spare: bool) -> None:
    held = counts.sum(-1)
    try:
        more, fewer = held > items, held < items
    except RuntimeError:
        return  # shapes that do not broadcast: told with all others
    if any_of(more):
        bag = first_item(more)
        raise ValueError(
            f"{_bag(bag)} holds {int(held.expand(more.shape)[bag])} labels, but has only "
            f"{int(items.expand(more.shape)[bag])} items: leave some out, or check items="
        )
    if not spare and any_of(fewer):
        bag = first_item(fewer)
        raise ValueError(
            f"{_bag(bag)} holds {int(held.expand(fewer.shape)[bag])} labels for "
            f"{int(items.expand(fewer.shape)[bag])} items: say which items there are with items=, or what "
            f"one without a label costs with unlabelled= (0.0, say)"
        )


def _bag(bag: Sequence[int]) -> str:
    if len(bag) == 0:
        return "the bag"
    return f"bag {bag[0] if len(bag) == 1 else tuple(bag)}"


def _spread(unlabelled: Any, n: int, depth: int) -> Any:
    """(*batch, n)."""
    cost = unlabelled if isinstance(unlabelled, torch.Tensor) else np.asarray(unlabelled, dtype=float)
    if cost.ndim > depth and cost.shape[-1] == n:
        return cost
    if cost.ndim > depth:
        raise ValueError(
            f"unlabelled: expected a number, (*batch,) or (*batch, {n}), got {tuple(cost.shape)}"
        )
    cost = cost[..., None]
    return cost.expand(*cost.shape[:-1], n) if isinstance(cost, torch.Tensor) else np.repeat(cost, n, -1)


@dataclass(frozen=True, eq=False, repr=False)
class BagLabelling(AbstractResult):
    """Labels for the items of bags.

    Attributes:
        value: (*batch,) the loss of each bag, with exact gradients.
        loss: The values, reduced.
    """

    loss: torch.Tensor

    @cached_property
    def labels(self) -> torch.Tensor:
        """(*batch, items) int64, the label of each item; -1 where it has none."""
        inputs, (n, classes) = self.evaluation.inputs, self.evaluation.problem.parameters[0].shape
        index, weight = self.evaluation.moments[0]
        # What is not a pair is written to a place of its own, behind the last item.
        item = torch.where(weight < -0.5, index // max(1, classes), n)
        labels = torch.full((len(index), n + 1), -1).scatter(1, item, index % max(1, classes))
        return inputs.like_user(labels[:, :n].reshape(*inputs.batch_shape, n))

    @property
    def indicator(self) -> torch.Tensor:
        """(*batch, items, classes) 1 at each item's label. A gradient through it needs a rule
        (``gradient=``)."""
        return -self.evaluation.indicator(0)

    def decode(self) -> Any:
        """The labels of each bag's items, a NumPy array (-1: none): one where there is no batch, else nested
        lists. What is no item of the bag is left out."""
        inputs = self.evaluation.inputs
        items = inputs.whole[-2]
        n = self.evaluation.problem.parameters[0].shape[0]
        has = there(items, n).expand(*inputs.batch_shape, n)
        both = torch.stack([self.labels.cpu(), has.to(torch.int64)], -1)
        return nested(both, lambda part: part[part[:, 1] > 0, 0].numpy())

    def __repr__(self) -> str:
        n, classes = self.evaluation.problem.parameters[0].shape
        return f"BagLabelling(batch={self.evaluation.inputs.batch_shape}, {n} items, {classes} classes)"
