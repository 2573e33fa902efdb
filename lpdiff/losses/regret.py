"""Regret: what deciding by predicted costs costs, at the true ones."""

from __future__ import annotations

from typing import Any

import torch

from ..gradients import make_gradient
from .objective import Costs, inner, left_out, objective_of, reduced, tensors_of

__all__ = ["regret"]


def regret(
    program: Any,
    predicted: Costs,
    true: Costs,
    value: torch.Tensor | None = None,
    *,
    gradient: Any,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """<c, x(c^)> - z(c) >= 0, with the derivative of x that a gradient rule gives.

    Linear in x, never its absolute value: a rule would feed the sign of rounding noise back as gradient.
    Under a rule that smooths, x is a mean of solutions, and the regret that of a random choice among them.

    Args:
        program: What is minimised over: see ``Objective``. A function must not choose a rule itself.
        predicted: Costs c^, (*batch, *shape), with gradients; or several such tensors.
        true: Costs c, shaped like the predicted ones.
        value: Optimal values z(c), (*batch,), in the user's sense; solved for where not given.
        gradient: The rule for dx/dc: see ``lpdiff.gradients``.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        how: What else each solve is given: see ``Objective``.

    Raises:
        ValueError: shapes that do not fit.
        TypeError: no rule.
        SolveError: an item without an optimum.
    """
    rule = make_gradient(gradient)
    if rule is None:
        raise TypeError(
            "regret: gradient must be a rule for dx/dc, such as lpdiff.gradients.Interpolation(5.0)"
        )
    objective = objective_of(program, how)
    costs, known = left_out(tensors_of(predicted), weight), left_out(tensors_of(true), weight)
    if value is None:
        value, _ = objective.solutions(*known)
    _, points = objective.under(rule, *costs)
    found = inner([c.to(x.dtype) for c, x in zip(known, points, strict=True)], points, value.dim())
    best = objective.without_offset(value.to(found))
    return reduced(objective.to_min(found - best), weight, reduction)
