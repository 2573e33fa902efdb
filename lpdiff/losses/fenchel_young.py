"""Fenchel-Young losses: the gap of a target under a smoothed optimal value.

With z_s a smooth, concave version of z whose gradient is x_s(c),

    L(c^; w) = <c^, w> - z_s(c^) + const,    dL/dc^ = w - x_s(c^)      (convex in c^; zero where x_s(c^) = w)

Blondel, Martins, Niculae (2020), Learning with Fenchel-Young losses, JMLR 21, arXiv 1901.02324. Written for
min; a maximisation is its mirror image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..estimate import seed_from
from ..gradients import Perturbed, Quadratic
from .objective import Costs, inner, left_out, objective_of, reduced, tensors_of

__all__ = ["perturbed_fenchel_young", "quadratic_fenchel_young"]


def perturbed_fenchel_young(
    program: Any,
    predicted: Costs,
    target: Costs,
    *,
    temperature: float = 1.0,
    samples: int = 1,
    noise: Any = "gaussian",
    multiplicative: bool = False,
    antithetic: bool = False,
    generator: Any = None,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """The mean gap over perturbed costs: E [<c^ - s Z, w> - z(c^ - s Z)], a mean over M samples.

    Its gradient is w - E x(c^ - s Z); multiplicative, with c^ * exp(s Z - s^2 / 2) for c^ - s Z, the mean of
    (w - x) * exp(...). All samples are solved as one batch. Berthet, Blondel, Teboul, Cuturi, Vert, Bach
    (2020), arXiv 2002.08676; multiplicative: Dalle, Baty, Bouvier, Parmentier (2022), arXiv 2207.13513.

    Args:
        program: What is minimised over: see ``Objective``.
        predicted: Costs c^, (*batch, *shape), with gradients; or several such tensors.
        target: Feasible solutions w, shaped like the costs (or points of their convex hull).
        temperature: s > 0, in units of cost (multiplicative: relative).
        samples: M.
        noise, multiplicative, antithetic, generator: As in ``lpdiff.gradients.Perturbed``.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        how: What else each solve is given: see ``Objective``.

    Raises:
        ValueError: shapes or options that do not fit.
        SolveError: an item without an optimum.
    """
    rule = Perturbed(temperature, samples, noise, multiplicative, antithetic, generator=generator)
    objective = objective_of(program, how)
    costs, targets = left_out(tensors_of(predicted), weight), left_out(tensors_of(target), weight)
    rng = np.random.default_rng(seed_from(rule.generator))
    moved = []
    for c in costs:
        z = torch.from_numpy(rule.draws(rng, tuple(c.shape))).to(c)
        if multiplicative:
            moved.append(c * torch.exp(temperature * z - temperature**2 / 2))
        else:
            moved.append(c - objective.to_min(temperature * z, *costs))
    return reduced(objective.gap(moved, targets).mean(0), weight, reduction)


def quadratic_fenchel_young(
    program: Any,
    predicted: Costs,
    target: Costs,
    *,
    strength: float = 1.0,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
    **how: Any,
) -> torch.Tensor:
    """<c^, w> + s/2 |w|^2 - min_x [<c^, x> + s/2 |x|^2] over the convex hull; gradient w - x_s(c^).

    On the simplex it is the sparsemax loss, on other polytopes that of SparseMAP. Niculae, Martins, Blondel,
    Cardie (2018), arXiv 1802.04223.

    Args:
        program: What is minimised over: see ``Objective``. A function must not choose a gradient rule itself.
        strength: s > 0.
        predicted, target, weight, reduction, how: As in ``perturbed_fenchel_young``.

    Raises:
        ValueError: shapes or options that do not fit.
        SolveError: an item without an optimum.
    """
    objective = objective_of(program, how)
    costs, targets = left_out(tensors_of(predicted), weight), left_out(tensors_of(target), weight)
    with torch.no_grad():  # the envelope theorem: x takes no part in the gradient
        value, points = objective.under(Quadratic(strength), *costs)
        square = inner(targets, targets, value.dim()) - inner(points, points, value.dim())
    apart = [w.to(x) - x for w, x in zip(targets, points, strict=True)]
    gap = objective.to_min(inner(costs, apart, value.dim())) + strength / 2 * square
    return reduced(gap, weight, reduction)
