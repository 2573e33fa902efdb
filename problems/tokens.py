"""Alignment of predicted token distributions with target tokens: the paper's sequence loss in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import numpy as np
import torch

from .alignment import Alignment, align_costs, gap_options
from .base import ProblemModule, SolveOptions, any_of
from .monotonic import check_targets

__all__ = ["TokenAlignment", "token_alignment"]


def token_alignment(
    log_probs: Any,
    targets: Any,
    *,
    cost: str = "expected",
    substitution: Any = None,
    gap: Any = 1.0,
    gap_open: Any = None,
    row_gap: Any = None,
    col_gap: Any = None,
    row_open: Any = None,
    col_open: Any = None,
    lengths: tuple[Any, Any] | None = None,
    band: int | tuple[int, int] | None = None,
    **how: Unpack[SolveOptions],
) -> Alignment:
    r"""Global alignment of n predicted distributions over tokens with m target tokens.

    The program of ``global_alignment`` with the costs

    .. math::

        C_{ij} = \mathbb{E}_{v \sim p_i} S_{v, y_j} = \sum_v p_i(v)\, S_{v, y_j}
        \quad\text{or}\quad  C_{ij} = -\log p_i(y_j)

    of pairing position i with target j. By default S is 1 between different tokens, so C_ij = 1 - p_i(y_j),
    and for distributions on single tokens the value is the edit distance itself, made differentiable.

    C is never built where it would be larger than the distributions (m > vocabulary); otherwise it is
    gathered, and nothing of size (n, m, vocabulary) or (n, vocabulary) is made.

    Args:
        log_probs: (*batch, n, vocabulary) log-probabilities.
        targets: (*batch, m) integer tokens, padded with anything.
        cost: ``"expected"`` or ``"nll"`` (negative log-likelihood).
        substitution: S, (vocabulary, vocabulary), rows predicted and columns true; for ``"expected"``.
        gap, gap_open, row_gap, col_gap, row_open, col_open: See ``global_alignment``. A row gap leaves out a
            prediction, a column gap a target.
        lengths: A pair of the numbers of predictions and of targets, each (*batch,) integers, a mask, or
            None.
        band, how: See ``global_alignment``.

    Returns:
        Alignment.

    Raises:
        ValueError: shapes, tokens out of range, lengths; it names the item.
        SolveError: NaN costs.

    References:
        Gao, Zhang, Panahi, Arodz, arXiv 1910.08211.

    Example:
        >>> log_probs = decoder(source).log_softmax(-1)
        >>> token_alignment(log_probs, targets, lengths=(n, m)).value.mean().backward()
    """
    log_probs = log_probs if isinstance(log_probs, torch.Tensor) else torch.as_tensor(np.array(log_probs))
    if log_probs.dim() < 2 or not log_probs.is_floating_point():
        raise ValueError(
            f"log_probs: expected numbers of shape (*batch, n, vocabulary), got {log_probs.dtype} "
            f"{tuple(log_probs.shape)}"
        )
    targets = targets if isinstance(targets, torch.Tensor) else torch.as_tensor(np.array(targets))
    if targets.is_floating_point() or targets.dim() < 1:
        raise ValueError(
            f"targets: expected integers (*batch, m), got {targets.dtype} {tuple(targets.shape)}"
        )
    targets = targets.to(device=log_probs.device, dtype=torch.int64)
    n, size = log_probs.shape[-2:]
    m = targets.shape[-1]
    batch_shape = tuple(np.broadcast_shapes(tuple(log_probs.shape[:-2]), tuple(targets.shape[:-1])))
    columns = check_targets(targets, None if lengths is None else lengths[1], size, batch_shape)
    lengths = (None if lengths is None else lengths[0], columns)
    if cost not in ("expected", "nll"):
        raise ValueError(f"cost: expected 'expected' or 'nll', got {cost!r}")
    if substitution is not None:
        if cost == "nll":
            raise ValueError("substitution belongs to cost='expected'; drop it, or take that cost")
        substitution = torch.as_tensor(substitution, dtype=log_probs.dtype, device=log_probs.device)
        if tuple(substitution.shape) != (size, size):
            raise ValueError(
                f"substitution: expected shape ({size}, {size}), got {tuple(substitution.shape)}"
            )
    by_name = m > size
    table = log_probs
    if substitution is not None:
        table = _where_known(table, lambda known: known.exp() @ substitution)
    if not by_name:
        within = targets.clamp(0, max(size - 1, 0))[..., None, :].expand(*batch_shape, n, m)
        table = table.expand(*batch_shape, n, size).gather(-1, within)
    if substitution is None:
        table = -table if cost == "nll" else _where_known(table, lambda known: -torch.expm1(known))
    gaps = gap_options(gap, gap_open, row_gap, col_gap, row_open, col_open)
    return align_costs(table, gaps, lengths, band=band, names=targets if by_name else None, **how)


def _where_known(table: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The function of the rows, NaN where they are; else backward would multiply its zeros with NaN."""
    nothing = table.detach().isnan()
    if not any_of(nothing):
        return function(table)
    found = function(table.masked_fill(nothing, 0.0))
    nothing = nothing if found.shape == table.shape else nothing.any(-1, keepdim=True)
    return found.masked_fill(nothing, torch.nan)


class TokenAlignment(ProblemModule):
    """``token_alignment`` as a module that holds its options; call it with log-probabilities and targets."""

    function = staticmethod(token_alignment)
