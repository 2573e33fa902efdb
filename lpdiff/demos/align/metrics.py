"""Phone and word error rates, against the closest reference where a word has several."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lpdiff.problems import global_alignment

from .data import END, Examples


@dataclass(frozen=True)
class ErrorRates:
    """In per cent.

    Attributes:
        phone: Edits that turn the outputs into their closest references, over the references' phones.
        word: Words whose output equals none of their references.
        by_errors: Words with no error, with one, with two and with more.
    """

    phone: float
    word: float
    by_errors: tuple[float, float, float, float]


def output_lengths(outputs: torch.Tensor) -> torch.Tensor:
    """Phones before the first ``END``; (*batch, n) -> (*batch,)."""
    return (outputs == END).cummax(-1).values.logical_not().sum(-1)


def edit_distance(outputs: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Levenshtein distances, (*batch,) int64: the alignment whose costs are 0 and 1.

    Args:
        outputs: (*batch, n) phones, read up to the first ``END``.
        targets, lengths: (*batch, m) phones and (*batch,) their numbers.
    """
    costs = (outputs[..., :, None] != targets[..., None, :]).float()
    found = global_alignment(costs, gap=1.0, lengths=(output_lengths(outputs), lengths))
    return found.value.round().long()


def error_rates(outputs: torch.Tensor, examples: Examples) -> ErrorRates:
    """Error rates of a data set.

    Args:
        outputs: (N, n) phones, one row an example; those of a word's alternatives are equal.
        examples: N of them.
    """
    distance = edit_distance(outputs, examples.target, examples.lengths)
    # The closest reference of each word: sorted by word, then by distance, the first one.
    order = (examples.word * (int(distance.max()) + 1) + distance).argsort(stable=True)
    word = examples.word[order]
    first = torch.ones_like(word, dtype=torch.bool)
    first[1:] = word[1:] != word[:-1]
    closest = order[first]
    errors = distance[closest]
    none, one, two, more = (100 * errors.clamp(max=3).bincount(minlength=4) / len(closest)).tolist()
    return ErrorRates(
        phone=100 * float(errors.sum()) / float(examples.lengths[closest].sum()),
        word=100 * float((errors > 0).sum()) / len(closest),
        by_errors=(none, one, two, more),
    )
