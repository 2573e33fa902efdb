"""Losses over a pool of solutions: the target, or the true ranking, against solutions that are known.

With S a finite set of feasible solutions, predicted costs c^, true costs c and a target w (min):

    noise contrastive       mean over s in S of <c^, w - s>
    its MAP variant         <c^, w> - min over s in S of <c^, s>       (the perceptron, on S alone)
    listwise                cross entropy of softmax(-<c^, s> / t) to softmax(-<c, s> / t), s in S
    pairwise                mean over s worse than the best b of max(0, margin + <c^, b> - <c^, s>)
    pointwise               mean over s in S of (<c^, s> - <c, s>)^2

No solve in a step, but for those with which the pool grows. All are convex in c^. Written for min; a
maximisation is its mirror image.

Contrastive: Mulamba, Mandi, Diligenti, Lombardi, Bucarey, Guns (2021), Contrastive losses and solution
caching for predict-and-optimize, IJCAI, arXiv 2011.05354. Ranking: Mandi, Bucarey, Mulamba, Guns (2022),
Decision-focused learning: through the lens of learning to rank, ICML, arXiv 2112.03609.
"""

from __future__ import annotations

from typing import Any

import torch

from .module import AbstractLoss
from .objective import Costs, Objective, reduced, tensors_of
from .pool import SolutionPool

__all__ = [
    "NCE",
    "ContrastiveMAP",
    "Listwise",
    "Pairwise",
    "Pointwise",
    "contrastive_map",
    "listwise",
    "nce",
    "pairwise",
    "pointwise",
]


def nce(
    pool: SolutionPool,
    predicted: Costs,
    target: Costs,
    true: Costs | None = None,
    *,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Noise contrastive estimation: mean over s in the pool of <c^, w - s>; with c, of <c^ - c, w - s>.

    Linear in c^ (gradient w - mean of the pool), so nothing bounds it from below: c's share only moves its
    zero. Stop by the regret, or let the model fix the scale of its costs. Mulamba et al. (2021).

    Args:
        pool: Solutions s.
        predicted: Costs c^, (*batch, *shape), with gradients; or several such tensors.
        target: Optimal solutions w for the true costs, shaped like the costs.
        true: Costs c, shaped like the costs.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        (), or (*batch,) where reduction is ``"none"``.

    Raises:
        ValueError: shapes that do not fit, an empty pool.
    """
    pool, costs = _prepared(pool, predicted, weight)
    if true is not None:
        costs = costs - _prepared(pool, true, weight)[1].to(costs)
    w = _points(pool, target, weight).to(costs)
    mean = pool.solutions.to(costs).mean(0)
    return reduced((costs * (w - mean)).sum(-1), weight, reduction)


def contrastive_map(
    pool: SolutionPool,
    predicted: Costs,
    target: Costs,
    true: Costs | None = None,
    *,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """The contrastive loss at the pool's cheapest solution s for c^: <c^, w - s>; with c, <c^ - c, w - s>.

    Without c it is the perceptron on the pool: convex, at least 0 where w is in the pool, and 0 at c^ = 0.
    With c the regret of s, <c, s - w>, is added to the value; the gradient, in which s is held fixed, is the
    same. Mulamba et al. (2021).

    Args:
        pool, predicted, target, true, weight, reduction: As in ``nce``.

    Raises:
        ValueError: shapes that do not fit, an empty pool.
    """
    pool, costs = _prepared(pool, predicted, weight)
    rows = pool.solutions.to(costs)
    cheapest = rows[(costs.detach() @ rows.mT).argmin(-1)]
    if true is not None:
        costs = costs - _prepared(pool, true, weight)[1].to(costs)
    w = _points(pool, target, weight).to(costs)
    return reduced((costs * (w - cheapest)).sum(-1), weight, reduction)


def listwise(
    pool: SolutionPool,
    predicted: Costs,
    true: Costs,
    *,
    temperature: float = 1.0,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross entropy over the pool of softmax(-<c^, s> / t), relative to softmax(-<c, s> / t).

    Least, the entropy of the latter, where c^ and c see the same differences within the pool. Mandi et al.
    (2022).

    Args:
        true: Costs c, shaped like the predicted ones.
        temperature: t > 0, in units of the objective; small, it looks at the best solutions only.
        pool, predicted, weight, reduction: As in ``nce``.

    Raises:
        ValueError: a temperature that is not positive, shapes that do not fit, an empty pool.
    """
    if not temperature > 0:
        raise ValueError(f"listwise: temperature must be positive, got {temperature}")
    pool, costs = _prepared(pool, predicted, weight)
    scores, known = _scores(pool, costs), _scores(pool, _prepared(pool, true, weight)[1].to(costs))
    share = torch.softmax(-known / temperature, -1)
    return reduced(-(share * torch.log_softmax(-scores / temperature, -1)).sum(-1), weight, reduction)


def pairwise(
    pool: SolutionPool,
    predicted: Costs,
    true: Costs,
    *,
    margin: float = 0.1,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Best against rest: mean over s of max(0, margin + <c^, b> - <c^, s>), b the pool's best for c.

    s runs over the solutions that are worse than b at c; those as good as b are no mistake, and are left out
    (where all are, the loss is 0). Mandi et al. (2022), the pairs of the best with the rest.

    Args:
        true: Costs c, shaped like the predicted ones.
        margin: By how much b is to be cheaper, at least 0, in units of the objective. With 0, c^ = 0 is a
            minimum.
        pool, predicted, weight, reduction: As in ``nce``.

    Raises:
        ValueError: a negative margin, shapes that do not fit, an empty pool.
    """
    if not margin >= 0:
        raise ValueError(f"pairwise: margin must not be negative, got {margin}")
    pool, costs = _prepared(pool, predicted, weight)
    scores, known = _scores(pool, costs), _scores(pool, _prepared(pool, true, weight)[1].to(costs))
    known, scores = torch.broadcast_tensors(known, scores)
    least, best = known.min(-1, keepdim=True)
    rounding = 1e-9 if known.dtype == torch.float64 else 1e-5
    worse = known - least > rounding * (1 + known.abs().amax(-1, keepdim=True))
    excess = torch.relu(margin + scores.gather(-1, best) - scores)
    loss = torch.where(worse, excess, 0.0).sum(-1) / worse.sum(-1).clamp(min=1)
    return reduced(loss, weight, reduction)


def pointwise(
    pool: SolutionPool,
    predicted: Costs,
    true: Costs,
    *,
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Squared differences of objective values: mean over s in the pool of (<c^, s> - <c, s>)^2.

    Least squares, but directions orthogonal to the whole pool do not count. Mandi et al. (2022).

    Args:
        true: Costs c, shaped like the predicted ones.
        pool, predicted, weight, reduction: As in ``nce``.

    Raises:
        ValueError: shapes that do not fit, an empty pool.
    """
    pool, costs = _prepared(pool, predicted, weight)
    known = _prepared(pool, true, weight)[1].to(costs)
    return reduced(_scores(pool, costs - known).square().mean(-1), weight, reduction)


class NCE(AbstractLoss):
    """``nce`` as a module: ``NCE(pool)(predicted, target, true)``."""

    function = staticmethod(nce)


class ContrastiveMAP(AbstractLoss):
    """``contrastive_map`` as a module: ``ContrastiveMAP(pool)(predicted, target, true)``."""

    function = staticmethod(contrastive_map)


class Listwise(AbstractLoss):
    """``listwise`` as a module: ``Listwise(pool, temperature=1.0)(predicted, true)``."""

    function = staticmethod(listwise)


class Pairwise(AbstractLoss):
    """``pairwise`` as a module: ``Pairwise(pool, margin=0.1)(predicted, true)``."""

    function = staticmethod(pairwise)


class Pointwise(AbstractLoss):
    """``pointwise`` as a module: ``Pointwise(pool)(predicted, true)``."""

    function = staticmethod(pointwise)


# -- pieces ------------------------------------------------------------------------------------------------


def _prepared(program: Any, costs: Costs, weight: torch.Tensor | None) -> tuple[SolutionPool, torch.Tensor]:
    """The pool, and costs in the sense of min, (*batch, n)."""
    pool = program.program if isinstance(program, Objective) else program
    if isinstance(program, Objective) and program.how:
        raise TypeError(
            f"unknown options: {', '.join(sorted(program.how))}; those of a solve are the pool's own"
        )
    if not isinstance(pool, SolutionPool):
        raise TypeError(
            f"expected a SolutionPool, got {type(pool).__name__}: lpdiff.losses.SolutionPool(program)"
        )
    tensors = tensors_of(costs)
    flat = _points(pool, tensors, weight)
    if not len(pool):
        raise ValueError("the pool is empty: pool.add(solutions), or pool.grow(costs), before the loss")
    finite = (torch.nan_to_num(c.detach(), posinf=0.0, neginf=0.0) for c in tensors)
    return pool, pool.objective.to_min(flat, *finite)


def _points(pool: SolutionPool, points: Costs, weight: torch.Tensor | None) -> torch.Tensor:
    """Costs or solutions, (*batch, n), with zeros in the items of weight 0."""
    flat = pool.flat(tensors_of(points))
    return flat if weight is None else torch.where((weight == 0)[..., None], 0.0, flat)


def _scores(pool: SolutionPool, costs: torch.Tensor) -> torch.Tensor:
    """<c, s> for all s, (*batch, K)."""
    return costs @ pool.solutions.to(costs).mT
