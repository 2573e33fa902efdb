"""What a loss needs of a program: its optimal value, as a function of costs.

Every loss here is made of z(c) = min <c, x> over the feasible set, its gradient x(c), and the gap

    gap(c; w) = <c, w> - z(c) >= 0    of a target w, with gradient w - x(c).

All in the sense of min: a maximisation's gap is z(c) - <c, w>, and nothing else about it differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..autograd import any_of, first_item
from ..evaluate import Evaluation
from ..gradients import AbstractGradient
from ..layer import LPLayer
from ..program import LinearProgram
from ..settings import options
from ..solution import Solution
from ..solve import solve
from ..standard import StandardForm

__all__ = [
    "Costs",
    "Objective",
    "inner",
    "left_out",
    "magnitude",
    "objective_of",
    "reduced",
    "refuse",
    "tensors_of",
]

Costs = torch.Tensor | Sequence[torch.Tensor]
"""Costs, (*batch, *shape), or several such tensors where a problem has several cost parameters."""


class Objective:
    """The optimal value of a program as a function of its costs.

    Args:
        program: One of

            - a LinearProgram, whose costs c vary, or an LPLayer of one;
            - any function of costs (several, where there are several kinds) that returns a result of
              ``lpdiff.problems``, ``lpdiff.evaluate`` or ``lpdiff.solve``: a module such as
              ``lpdiff.problems.GridPath(moves=8)``, or ``lambda c: lpdiff.solve(lp, c=c, b=supply)``;
            - one that returns the optimal values as a tensor, (*batch,); it is taken for a minimisation.
        how: What else each solve is given: options and data of ``lpdiff.solve`` for a LinearProgram, keywords
            of a function otherwise (``lengths=``, say).

    Raises:
        TypeError: nothing of these.
    """

    def __init__(self, program: Any, **how: Any) -> None:
        if not (isinstance(program, LinearProgram) or callable(program)):
            raise TypeError(
                f"expected a LinearProgram, a module of lpdiff.problems or a function of costs that returns "
                f"optimal values, got {type(program).__name__}"
            )
        self._of_lp = isinstance(program, LinearProgram) or (
            isinstance(program, LPLayer) and isinstance(program.program, LinearProgram)
        )
        self.program = program
        self.how = how
        self._known = False  # the sense, once something was solved
        self._form: StandardForm | None = None
        self._offset: torch.Tensor | float = 0.0  # of what was solved last

    def given(self, **more: Any) -> Objective:
        """The same with more, or other, options and data."""
        return Objective(self.program, **{**self.how, **more})

    def value(self, *costs: torch.Tensor) -> torch.Tensor:
        """Optimal values in the sense of min and without offsets, (*batch,); differentiable in the costs."""
        value, form = self._found(costs)
        return value if form is None else form.to_min(value)

    def gap(self, costs: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> torch.Tensor:
        """<c, w> - z(c) in the sense of min, (*batch,).

        Raises:
            ValueError: shapes of costs and target that do not fit.
        """
        value, form = self._found(costs)
        difference = inner(costs, target, value.dim()) - value
        return difference if form is None else form.to_min(difference)

    def solutions(self, *costs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Values (in the user's sense, (*batch,)) and optimal solutions, each shaped like its costs: the
        gradient of the value. Both without a graph."""
        with torch.enable_grad():
            leaves = [c.detach().requires_grad_() for c in costs]
            value, _ = self._found(leaves)
            found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        return value.detach() + self._offset, tuple(
            torch.zeros_like(leaf) if x is None else x for leaf, x in zip(leaves, found, strict=True)
        )

    def under(
        self, gradient: AbstractGradient, *costs: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Values (in the user's sense) and optimal solutions under a gradient rule, (*batch, *shape) each and
        differentiable in the costs.

        Raises:
            TypeError: a function that returns values alone.
            ValueError: a function whose costs are not its problem's parameters, in their order.
        """
        with options(gradient=gradient):
            result, value, _ = self._solved(costs)
            if isinstance(result, Solution):
                found = [result.x]
            elif isinstance(result, torch.Tensor):
                raise TypeError(
                    "this loss asks for solutions, and the function given returns values alone: return the "
                    "result of lpdiff.solve or lpdiff.problems"
                )
            else:
                evaluation = result if isinstance(result, Evaluation) else result.evaluation
                found = [evaluation.indicator(k) for k in range(len(costs))]
        for x, c in zip(found, costs, strict=True):
            if x.shape[x.dim() - c.dim() :] != c.shape:
                raise ValueError(
                    f"the solution has shape {tuple(x.shape)}, and the costs {tuple(c.shape)}: this loss "
                    f"needs a function whose costs are the parameters of its problem, in their order"
                )
        return value, tuple(found)

    def to_min(self, tensor: torch.Tensor, *costs: torch.Tensor) -> torch.Tensor:
        """What is added to costs in the sense of min, in the user's sense (its own inverse).

        A function does not tell its sense before it has solved something: these costs, once.
        """
        if not self._known:
            with torch.no_grad():
                self._found(costs)
        return tensor if self._form is None else self._form.to_min(tensor)

    def without_offset(self, value: torch.Tensor) -> torch.Tensor:
        """Values in the user's sense as <c, x>: less the offset of what was solved last."""
        offset = self._offset
        if isinstance(offset, torch.Tensor):
            return value - offset.detach().to(value)
        return value - offset if offset else value

    def _found(self, costs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, StandardForm | None]:
        return self._solved(costs)[1:]

    def _solved(self, costs: Sequence[torch.Tensor]) -> tuple[Any, torch.Tensor, StandardForm | None]:
        result: Any
        if not self._of_lp:
            result = self.program(*costs, **self.how)
        elif len(costs) != 1:
            raise ValueError(f"a LinearProgram has one kind of costs, c, got {len(costs)} tensors")
        elif isinstance(self.program, LPLayer):
            result = self.program.solve(c=costs[0], **self.how)
        else:
            result = solve(self.program, c=costs[0], **self.how)
        if isinstance(result, torch.Tensor):
            value, form = result, None
        elif isinstance(result, Solution):
            value, form, self._offset = result.value, result.program.form, result.offset
            value = self.without_offset(value)
        else:
            evaluation = result if isinstance(result, Evaluation) else getattr(result, "evaluation", None)
            if not isinstance(evaluation, Evaluation):
                raise TypeError(
                    f"a function of costs must return optimal values, or a result of lpdiff.solve, "
                    f"lpdiff.evaluate or lpdiff.problems, got {type(result).__name__}"
                )
            value, form = result.value, evaluation.problem.program.form
        self._known, self._form = True, form
        return result, value, form


def inner(costs: Sequence[torch.Tensor], points: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    """<c, x> over all but the leading ``batch`` dimensions, summed over the kinds of costs: (*batch,).

    Raises:
        ValueError: shapes that do not fit.
    """
    if len(costs) != len(points):
        raise ValueError(f"expected a target for each of {len(costs)} tensors of costs, got {len(points)}")
    total: torch.Tensor | None = None
    for c, x in zip(costs, points, strict=True):
        # A cost that the batch shares has fewer dimensions.
        event = max(0, c.dim() - batch)
        if x.dim() < event or x.shape[x.dim() - event :] != c.shape[c.dim() - event :]:
            raise ValueError(
                f"a target must have the shape of its costs, {tuple(c.shape)} (the batch may broadcast), got "
                f"{tuple(x.shape)}"
            )
        product = c * x
        term = product.sum(tuple(range(product.dim() - event, product.dim()))) if event else product
        total = term if total is None else total + term
    assert total is not None
    return total


def objective_of(program: Any, how: dict[str, Any]) -> Objective:
    """The program as an Objective, with these options and data."""
    if isinstance(program, Objective):
        return program.given(**how) if how else program
    return Objective(program, **how)


def magnitude(costs: Sequence[torch.Tensor], points: Sequence[torch.Tensor], batch: int) -> torch.Tensor:
    """<|c|, |x|>, (*batch,): the scale of what rounding does to <c, x>; carries no gradient."""
    return inner([c.detach().abs() for c in costs], [x.detach().abs() for x in points], batch)


_ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-4}


def refuse(
    slack: torch.Tensor, scale: Callable[[], torch.Tensor], told: str, weight: torch.Tensor | None
) -> None:
    """Raise where ``slack`` is further below zero than rounding at that scale explains.

    Args:
        told: With places {of}, which item, and {by}, how much.

    Raises:
        ValueError: naming the first item.
    """
    rounding = _ROUNDING.get(slack.dtype, 3e-2)
    if not any_of(slack < -rounding):  # whatever the scale: the usual case, cut short
        return
    wrong = slack < -rounding * (1 + scale())
    if weight is not None:
        wrong = wrong & (weight != 0)
    if any_of(wrong):
        item = first_item(wrong)
        by = "much" if slack.dim() != len(item) else f"{-float(slack[item]):.3g}"
        place = "" if not item else f" of item {item[0] if len(item) == 1 else item}"
        raise ValueError(told.format(of=place, by=by))


def tensors_of(costs: Costs) -> tuple[torch.Tensor, ...]:
    """One tensor or several, as a tuple."""
    return (costs,) if isinstance(costs, torch.Tensor) else tuple(costs)


def left_out(costs: Sequence[torch.Tensor], weight: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
    """Costs with zeros in the items of weight 0, so that what these hold (NaN, say) does no harm."""
    if weight is None:
        return tuple(costs)
    out = weight == 0
    return tuple(
        torch.where(out[(...,) + (None,) * (c.dim() - out.dim())], 0.0, c) if c.dim() >= out.dim() else c
        for c in costs
    )


def reduced(loss: torch.Tensor, weight: torch.Tensor | None, reduction: str) -> torch.Tensor:
    """Losses of items, (*batch,), to what is asked for.

    Args:
        weight: None, or (*batch,) booleans or numbers. Items of weight 0 take no part, whatever they hold;
            ``"mean"`` divides by the sum of the weights.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: another reduction.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    if weight is None:
        return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
    weight = weight.to(loss.dtype)
    weighted = torch.where(weight == 0, 0.0, weight * loss)
    if reduction == "none":
        return weighted
    total = weighted.sum()
    return total if reduction == "sum" else total / weight.expand_as(loss).sum()
