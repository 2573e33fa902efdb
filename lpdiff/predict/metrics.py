"""How good decisions by predicted costs are: regrets, without gradients.

With true costs c, predicted costs c^, an optimal solution x(c^) for these, and the optimal value z(c):

    regret                <c, x(c^)> - z(c)  >= 0
    relative regret       regret / |z(c)|
    normalised regret     sum of the regrets of a set / sum of its |z(c)|, as the field reports it
    unambiguous regret    max of <c, x> - z(c) over all x that are optimal for c^

in the sense of min; a maximisation's regret is z(c) - <c, x(c^)>. The SPO loss and the unambiguous SPO loss
of Elmachtoub and Grigas (2022), Smart "predict, then optimize", Management Science 68(1), arXiv 1710.08005.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from ..losses.objective import Costs, Objective, inner, magnitude, objective_of, tensors_of
from .dataset import Item, SolvedDataset

__all__ = [
    "DecisionReport",
    "evaluate_model",
    "normalised_regret",
    "regret",
    "relative_regret",
    "unambiguous_regret",
]

# How much c^ is moved against c to break its ties, largest first; and what of <c^, x> - z(c^) is rounding.
# Costs are made so large that the moves are beyond the solvers' absolute tolerances (1e-6 for integers).
_MOVES = (1e-6, 1e-8)
_LARGE = 2.0**14
_ROUNDING = 1e-12


def regret(
    program: Any,
    predicted: Costs,
    true: Costs,
    value: torch.Tensor | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    **how: Any,
) -> torch.Tensor:
    """<c, x(c^)> - z(c): what deciding by the predicted costs costs, above what had to be paid.

    Where several solutions are optimal for c^ it is that of one of them: see ``unambiguous_regret``.

    Args:
        program: What is minimised over: see ``lpdiff.losses.Objective``.
        predicted: Costs c^, (*batch, *shape); or several such tensors.
        true: Costs c, shaped like the predicted ones.
        value: Optimal values z(c), (*batch,), in the user's sense; solved for where not given.
        data: What else varies by item: keywords of ``lpdiff.solve``, or of a function; see ``SolvedDataset``.
        how: Options of ``lpdiff.solve``, where program is a LinearProgram.

    Returns:
        (*batch,) of the true costs' dtype, computed in float64; >= 0 up to rounding. No gradients.

    Raises:
        ValueError: shapes that do not fit; costs that are not finite.
        SolveError: an item without an optimum.
    """
    case = _Case.of(program, predicted, true, value, data, how)
    return case.regret_of(case.decided)


def relative_regret(
    program: Any,
    predicted: Costs,
    true: Costs,
    value: torch.Tensor | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    **how: Any,
) -> torch.Tensor:
    """Regret / |z(c)|, (*batch,). Infinite, or NaN, where z(c) is zero; arguments as of ``regret``."""
    case = _Case.of(program, predicted, true, value, data, how)
    found = case.regret_of(case.decided)
    return found / case.value.abs().to(found)


def normalised_regret(
    program: Any,
    predicted: Costs,
    true: Costs,
    value: torch.Tensor | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    **how: Any,
) -> torch.Tensor:
    """Sum of the regrets over the sum of |z(c)|, (): a number for the batch; arguments as of ``regret``.

    Those of several batches cannot be averaged: give a set as one batch, or use ``evaluate_model``.
    """
    case = _Case.of(program, predicted, true, value, data, how)
    found = case.regret_of(case.decided)
    return found.sum() / case.value.abs().sum().to(found)


def unambiguous_regret(
    program: Any,
    predicted: Costs,
    true: Costs,
    value: torch.Tensor | None = None,
    *,
    data: Mapping[str, Any] | None = None,
    **how: Any,
) -> torch.Tensor:
    """The largest regret of all solutions that are optimal for the predicted costs, (*batch,).

    A model cannot lower it by predicting ties (all costs zero, say) that happen to be broken well. Arguments
    and errors as of ``regret``; programs with integers are served, too. For the method, see ``_worst``.

    Raises:
        SolveError: also where that largest regret is infinite.
    """
    case = _Case.of(program, predicted, true, value, data, how)
    return _worst(case)


@dataclass(frozen=True)
class DecisionReport:
    """How good a model's decisions are over a data set.

    Attributes:
        count: Items.
        regret: Mean regret.
        normalised_regret: Sum of regrets / sum of |z(c)|.
        unambiguous_regret: Sum of unambiguous regrets / sum of |z(c)|; None where it was not asked for.
        relative_regret: Mean of regret / |z(c)|.
        cost_error: Mean squared error of the predicted costs.
    """

    count: int
    regret: float
    normalised_regret: float
    unambiguous_regret: float | None
    relative_regret: float
    cost_error: float


@torch.no_grad()
def evaluate_model(
    model: Callable[[torch.Tensor], Costs],
    dataset: Dataset[Item],
    *,
    batch_size: int = 1024,
    unambiguous: bool = True,
) -> DecisionReport:
    """Decide by a model's costs on each item of a data set, and compare with the best decisions.

    Args:
        model: From features to costs. A module is put into ``eval()`` mode meanwhile.
        dataset: A SolvedDataset, or a Subset of one (``random_split``).
        batch_size: Items predicted and solved at a time.
        unambiguous: Whether to find the unambiguous regret, too: another solve of each item.

    Raises:
        TypeError: another data set.
        ValueError: an empty data set; predictions that are not shaped like the costs.
        SolveError: an item without an optimum at the predicted costs.
    """
    whole, items = _whole(dataset)
    if not len(items):
        raise ValueError("evaluate_model: the data set is empty")
    training = isinstance(model, torch.nn.Module) and model.training
    device = whole.features.device
    if isinstance(model, torch.nn.Module):
        device = next((p.device for p in model.parameters()), device)
        model.eval()
    parts: list[tuple[torch.Tensor, ...]] = []
    try:
        for some in items.split(batch_size):
            batch = whole[some]
            predicted = tensors_of(model(batch.features.to(device)))
            case = _Case.of(whole.program, predicted, batch.costs, batch.value, batch.data, whole.how)
            plain = case.regret_of(case.decided)
            worst = _worst(case) if unambiguous else plain
            off = [p - c for p, c in zip(case.predicted, case.true, strict=True)]
            error = torch.cat([t.square().reshape(len(some), -1) for t in off], dim=1).mean(1)
            parts.append(tuple(t.double().cpu() for t in (plain, worst, case.value.abs(), error)))
    finally:
        if training:
            model.train()  # type: ignore[attr-defined]
    plain, worst, size, error = (torch.cat(part) for part in zip(*parts, strict=True))
    total = float(size.sum())
    return DecisionReport(
        count=len(items),
        regret=float(plain.mean()),
        normalised_regret=float(plain.sum()) / total if total else float("nan"),
        unambiguous_regret=(float(worst.sum()) / total if total else float("nan")) if unambiguous else None,
        relative_regret=float((plain / size).mean()),
        cost_error=float(error.mean()),
    )


# -- pieces ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Case:
    """What the metrics share. Costs in float64: a regret is a small difference of large numbers."""

    objective: Objective
    predicted: tuple[torch.Tensor, ...]
    true: tuple[torch.Tensor, ...]
    value: torch.Tensor  # (*batch,) z(c)
    decided: tuple[torch.Tensor, ...]  # x(c^), shaped like the costs
    constant: torch.Tensor  # (*batch,) what the program adds to <c, x>
    dtype: torch.dtype  # of the true costs

    @classmethod
    def of(
        cls,
        program: Any,
        predicted: Costs,
        true: Costs,
        value: torch.Tensor | None,
        data: Mapping[str, Any] | None,
        how: dict[str, Any],
    ) -> _Case:
        objective = objective_of(program, {**how, **(data or {})})
        given, known = tensors_of(predicted), tensors_of(true)
        if [p.shape for p in given] != [c.shape for c in known]:
            got, expected = (", ".join(str(tuple(t.shape)) for t in ts) for ts in (given, known))
            raise ValueError(f"predicted costs must be shaped like the true ones, {expected}, got {got}")
        for name, tensors in (("predicted", given), ("true", known)):
            for tensor in tensors:
                if not torch.isfinite(tensor).all():
                    raise ValueError(
                        f"{name} costs must be finite: forbid variables by the program (bounds, masks, edges "
                        f"left out), so that both costs mean the same"
                    )
        dtype = known[0].dtype
        known = tuple(c.detach().double() for c in known)
        given = tuple(p.detach().to(c) for p, c in zip(given, known, strict=True))
        best = objective.solutions(*known)[0] if value is None else value.detach().to(known[0])
        least, decided = objective.solutions(*given)
        batch = least.dim()
        constant = least - inner(given, decided, batch)
        rounding = constant.abs() <= _ROUNDING * (least.abs() + magnitude(given, decided, batch))
        return cls(objective, given, known, best, decided, torch.where(rounding, 0.0, constant), dtype)

    def regret_of(self, points: Sequence[torch.Tensor]) -> torch.Tensor:
        """(*batch,) in the sense of min."""
        return self.above(self.true, points, self.value - self.constant).to(self.dtype)

    def above(
        self, costs: Sequence[torch.Tensor], points: Sequence[torch.Tensor], value: torch.Tensor
    ) -> torch.Tensor:
        """<costs, points> - value in the sense of min, (*batch,)."""
        return self.objective.to_min(inner(costs, points, value.dim()) - value, *costs)


def _worst(case: _Case) -> torch.Tensor:
    """The regret of the worst solution that is optimal for the predicted costs.

    Let x' be optimal for c^ - e c. For every x that is optimal for c^,

        <c^ - e c, x'> <= <c^ - e c, x>,  so  <c, x'> >= <c, x> + (<c^, x'> - <c^, x>) / e  >=  <c, x>,

    whatever e > 0: x' is at least as bad as the worst of them. And where x' is itself optimal for c^, which
    can be seen, it is one of them, and its regret is the answer. For e small enough this is so (there are
    finitely many vertices). It stays undecided only where other solutions cost hardly more, by the smallest e
    in units of the largest cost: they count as tied. It is the same program with other costs: no duals, no
    row more, the structure is kept, and any kind of program will do.
    """
    batch = case.value.dim()
    # The largest cost becomes _LARGE, so that the moves are what they say.
    units = [_largest(tensors, batch) / _LARGE for tensors in (case.predicted, case.true)]
    own, against = (
        [_divided(t, unit) for t in tensors]
        for tensors, unit in zip((case.predicted, case.true), units, strict=True)
    )
    best = inner(own, case.decided, batch)
    scale = magnitude(own, case.decided, batch) + _LARGE
    worst = plain = case.regret_of(case.decided)
    open_ = torch.ones_like(worst, dtype=torch.bool)
    for move in _MOVES:
        _, points = case.objective.solutions(*(c - move * d for c, d in zip(own, against, strict=True)))
        worst = torch.where(open_, case.regret_of(points), worst)
        open_ = open_ & (case.above(own, points, best) > _ROUNDING * scale)
        if not open_.any():
            break
    return torch.maximum(worst, plain)  # rounding aside, it is at least that


def _largest(tensors: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    """(*batch,) the largest magnitude of an item, 1 where all are zero."""
    sizes = [t.abs().flatten(batch).amax(-1) if t.dim() > batch else t.abs() for t in tensors if t.numel()]
    largest = torch.stack(sizes).amax(0)
    return torch.where(largest > 0, largest, 1.0)


def _divided(tensor: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return tensor / unit[(...,) + (None,) * (tensor.dim() - unit.dim())]


def _whole(dataset: Dataset[Item]) -> tuple[SolvedDataset, torch.Tensor]:
    """The SolvedDataset behind subsets of subsets, and the places in it."""
    if isinstance(dataset, SolvedDataset):
        return dataset, torch.arange(len(dataset))
    if isinstance(dataset, Subset):
        whole, items = _whole(dataset.dataset)
        return whole, items[torch.as_tensor(list(dataset.indices), dtype=torch.int64)]
    raise TypeError(
        f"evaluate_model: expected a SolvedDataset or a Subset of one, got {type(dataset).__name__}"
    )
