"""Losses that are gaps: how much more a target costs than the optimum, at costs that the loss chooses.

    gap(c; w) = <c, w> - min_x <c, x> >= 0,    d gap / dc = w - x(c)      (a subgradient; convex in c)

with the predicted costs c^, the true costs c, and a target w, optimal for c:

    perceptron            gap(c^; w)
    structured hinge      max_x [Delta(x, w) + <c^, w - x>] = gap(c^ - Delta; w) + const
    SPO+                  gap(2 c^ - c; w)
    directional (PG)      [z(c^) - z(c^ - s c)] / s, which tends to <c, x(c^)>

Written for min; a maximisation is its mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..autograd import any_of
from .objective import (
    Costs,
    Objective,
    inner,
    left_out,
    magnitude,
    objective_of,
    reduced,
    refuse,
    tensors_of,
)

__all__ = ["directional", "perceptron", "spo_plus", "structured_hinge"]


def perceptron(
    program: Any,
    predicted: Costs,
    target: Costs,
    *,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """The structured perceptron: <c^, w> - z(c^), zero where w is optimal for the predicted costs.

    Convex in c^, but c^ = 0 minimises it: use it where the model cannot scale all costs away, or a hinge.
    Collins (2002), Discriminative training methods for hidden Markov models; LeCun et al. (2006), A tutorial
    on energy-based learning.

    Args:
        program: What is minimised over: see ``Objective``.
        predicted: Costs c^, (*batch, *shape), with gradients; or several such tensors.
        target: Feasible solutions w, shaped like the costs.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        how: What else each solve is given: see ``Objective``.

    Returns:
        (), or (*batch,) where reduction is ``"none"``.

    Raises:
        ValueError: shapes that do not fit; a target that is not feasible (its gap is negative).
        SolveError: an item without an optimum.
    """
    objective, costs = objective_of(program, how), left_out(tensors_of(predicted), weight)
    return reduced(_gap(objective, costs, tensors_of(target), weight), weight, reduction)


def structured_hinge(
    program: Any,
    predicted: Costs,
    target: Costs | None,
    *,
    margin: float | Costs = 1.0,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """The structured hinge (margin rescaling): max over x of Delta(x, w) + <c^, w> - <c^, x>.

    Delta is linear in x. By default it counts the variables in which x and w differ (Hamming), for targets
    of zeros and ones: margin * sum_j |x_j - w_j| = margin * <1 - 2 w, x> + const. Taskar, Guestrin, Koller
    (2003), Max-margin Markov networks; Tsochantaridis et al. (2005), Large margin methods for structured
    and interdependent output variables.

    Args:
        margin: A number, the weight of the Hamming loss; or what choosing each variable is worth, D, shaped
            like the costs: Delta(x, w) = <D, x - w>.
        program, predicted, target, weight, reduction, how: As in ``perceptron``.

    Raises:
        ValueError: no target; a target that is not of zeros and ones with a number as margin; shapes.
        SolveError: an item without an optimum.
    """
    if target is None:
        raise ValueError("structured_hinge: needs target solutions (zeros and ones, shaped like the costs)")
    objective, costs = objective_of(program, how), left_out(tensors_of(predicted), weight)
    targets = left_out(tensors_of(target), weight)
    worth = _hamming(targets, float(margin)) if isinstance(margin, (int, float)) else tensors_of(margin)
    if len(worth) != len(costs):
        raise ValueError(f"structured_hinge: expected a margin for each of {len(costs)} tensors of costs")
    moved = [c - objective.to_min(d, *costs) for c, d in zip(costs, worth, strict=True)]
    return reduced(_gap(objective, moved, targets, weight), weight, reduction)


def spo_plus(
    program: Any,
    predicted: Costs,
    true: Costs,
    target: Costs | None = None,
    value: torch.Tensor | None = None,
    *,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """SPO+: 2 <c^, w> - z(2 c^ - c) - z(c), a convex bound on the regret of deciding by c^.

    It is the gap of w at 2 c^ - c, so its gradient is 2 (w - x(2 c^ - c)): one solve a step where w (and, to
    check it, z(c)) are known. Elmachtoub and Grigas (2022), Smart "predict, then optimize", Management
    Science 68(1), arXiv 1710.08005.

    Args:
        true: Costs c, shaped like the predicted ones.
        target: Optimal solutions w for c; solved for where they are not given.
        value: Optimal values z(c), (*batch,), in the user's sense. Where given, w is checked against it.
        program, predicted, weight, reduction, how: As in ``perceptron``.

    Raises:
        ValueError: shapes that do not fit; a target that is not optimal for the true costs, or not feasible.
        SolveError: an item without an optimum.
    """
    objective = objective_of(program, how)
    costs, known = left_out(tensors_of(predicted), weight), left_out(tensors_of(true), weight)
    if len(costs) != len(known):
        raise ValueError(f"spo_plus: predicted costs are {len(costs)} tensors, true costs {len(known)}")
    known = tuple(c.to(p.dtype) for c, p in zip(known, costs, strict=True))
    if target is None:
        _, targets = objective.solutions(*known)
    else:
        targets = left_out(tensors_of(target), weight)
    moved = [2 * p - c for p, c in zip(costs, known, strict=True)]
    gap = _gap(objective, moved, targets, weight)
    if target is not None and value is not None:
        _check_optimal(inner(known, targets, gap.dim()), objective.without_offset(value), weight)
    return reduced(gap, weight, reduction)


def directional(
    program: Any,
    predicted: Costs,
    true: Costs,
    *,
    step: float = 0.1,
    sides: str = "backward",
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """The perturbation gradient (PG) loss: a finite difference of z at c^ along the true costs c.

    As s tends to 0, [z(c^) - z(c^ - s c)] / s tends to <c, x(c^)>, the cost of deciding by c^ (Danskin). The
    backward difference bounds it from above. Gradient: [x(c^) - x(c^ - s c)] / s. Huang and Gupta (2024),
    Decision-focused learning with directional gradients, NeurIPS, arXiv 2402.03256.

    Args:
        step: s > 0.
        sides: ``"backward"``, or ``"central"``: [z(c^ + s c) - z(c^ - s c)] / 2 s.
        program, predicted, true, weight, reduction, how: As in ``spo_plus``.

    Raises:
        ValueError: a step that is not positive, other sides, shapes.
        SolveError: an item without an optimum.
    """
    if not step > 0:
        raise ValueError(f"directional: step must be positive, got {step!r}")
    if sides not in ("backward", "central"):
        raise ValueError(f"directional: sides must be 'backward' or 'central', got {sides!r}")
    objective = objective_of(program, how)
    costs, known = left_out(tensors_of(predicted), weight), left_out(tensors_of(true), weight)
    ahead = step if sides == "central" else 0.0
    moves = [torch.stack([p + ahead * c, p - step * c]) for p, c in zip(costs, known, strict=True)]
    values = objective.value(*moves)  # both ends as one batch
    return reduced((values[0] - values[1]) / (step + ahead), weight, reduction)


# -- pieces ------------------------------------------------------------------------------------------------


_INFEASIBLE = (
    "target{of} is not feasible: it costs {by} less than the optimum. Solve for targets with lpdiff, check "
    "the order of their variables, or give all kinds of costs that the problem has"
)


def _gap(
    objective: Objective,
    costs: Sequence[torch.Tensor],
    target: Sequence[torch.Tensor],
    weight: torch.Tensor | None,
) -> torch.Tensor:
    gap = objective.gap(costs, target)
    refuse(gap.detach(), lambda: magnitude(costs, target, gap.dim()), _INFEASIBLE, weight)
    return gap


def _check_optimal(cost: torch.Tensor, value: torch.Tensor, weight: torch.Tensor | None) -> None:
    told = (
        "target{of} is not optimal for the true costs: it differs from value by {by}. Leave target out to "
        "have it solved for"
    )
    apart = (cost - value.to(cost)).detach().abs()
    refuse(-apart, value.detach().abs, told, weight)


def _hamming(target: Sequence[torch.Tensor], margin: float) -> list[torch.Tensor]:
    """margin * (1 - 2 w), for w of zeros and ones."""
    for w in target:
        if any_of((w - w.round()).abs() > 1e-4) or any_of((w < -0.5) | (w > 1.5)):
            raise ValueError(
                "structured_hinge: a number as margin counts differing variables, so targets must be of "
                "zeros and ones; give what each variable is worth: margin=tensor, shaped like the costs"
            )
    return [margin * (1 - 2 * w.detach()) for w in target]
