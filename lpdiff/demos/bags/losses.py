"""What a network can learn from a bag: six losses on log-probabilities and the bag's label counts.

All of them are means over images, of log-probabilities (bags, k, classes) and counts (bags, classes) int64.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from lpdiff.problems import bag_matching

__all__ = ["Loss", "entropic", "matching", "plan", "proportions", "supervised", "uniform"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def supervised(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy with every label known, (bags, k) int64: what no method on bags sees."""
    return torch.nn.functional.nll_loss(log_probs.flatten(0, 1), labels.flatten())


def matching(log_probs: torch.Tensor, counts: torch.Tensor, *, solver: str = "auto") -> torch.Tensor:
    """The value of the cheapest labelling that the bag allows, arXiv 1910.08211: cross entropy with the
    labels that fit best. Its gradient is exact. ``solver="highs"`` declares the same loss as an LP."""
    return bag_matching(log_probs, counts, solver=solver).loss


def proportions(log_probs: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Cross entropy between a bag's label frequencies and its average prediction."""
    average = torch.logsumexp(log_probs, dim=1) - torch.log(torch.tensor(float(log_probs.shape[1])))
    return -(frequencies(counts, log_probs) * average).sum(1).mean()


def uniform(log_probs: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The average matching instead of the cheapest: the mean cost over all permutations of the labels.

    A label lands on each image equally often, so no permutation has to be visited::

        mean over permutations s of  1/k sum_i -log p_i(y_s(i))  =  1/k sum_i sum_c counts_c/k (-log p_i(c))
    """
    return -(frequencies(counts, log_probs)[:, None] * log_probs).sum(2).mean()


def entropic(
    log_probs: torch.Tensor, counts: torch.Tensor, *, temperature: float = 1.0, iterations: int = 50
) -> torch.Tensor:
    """The entropic matching: min <P, -log p> - temperature H(P) over P with the bag's rows and columns.

    By the envelope theorem its gradient in the costs is the optimal P, which is held fixed here.
    """
    with torch.no_grad():
        found = plan(-log_probs.detach(), counts, temperature, iterations)
        entropy = -torch.special.xlogy(found, found).sum((1, 2))
    costs = torch.where(counts[:, None] > 0, -log_probs, 0.0)
    values = (found * costs).sum((1, 2)) - temperature * entropy
    return values.mean() / log_probs.shape[1]


def plan(costs: torch.Tensor, counts: torch.Tensor, temperature: float, iterations: int) -> torch.Tensor:
    """Sinkhorn's iterations in the log domain: P (bags, k, classes), rows sum to 1, columns to counts.

    P_ic = exp((f_i + g_c - cost_ic) / temperature), where f and g are set in turn to fit rows and columns
    (Cuturi 2013). The columns fit exactly, the rows as well as so many iterations bring them; where they do
    to 1e-4, it stops.
    """
    scaled = -costs / temperature
    log_counts = counts.to(scaled.dtype).log()[:, None]  # -inf: no such label, so no mass
    g = torch.where(counts[:, None] > 0, 0.0, -torch.inf).to(scaled.dtype)
    for _ in range(iterations):
        f = -torch.logsumexp(scaled + g, 2, keepdim=True)
        g = log_counts - torch.logsumexp(scaled + f, 1, keepdim=True)
        found = (scaled + f + g).exp()
        if float((found.sum(2) - 1).abs().max()) < 1e-4:
            break
    return found


def frequencies(counts: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(bags, classes), summing to 1."""
    return counts.to(like.dtype) / counts.sum(1, keepdim=True)
