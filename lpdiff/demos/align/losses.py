"""What the network is trained with: likelihood, alignment, and the usual cures for exposure bias.

Every loss takes the network and a batch of words of one length and gives one number a word, (B,), divided by
the target's length (plus one where its end counts), so that one learning rate suits them all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from lpdiff.problems import token_alignment

from .data import END, Batch
from .decoding import Choose
from .metrics import edit_distance, output_lengths
from .model import AbstractTranscriber, Encoded

Loss = Callable[[AbstractTranscriber, Batch], torch.Tensor]
FEEDS = ("greedy", "sampled", "softmax", "gumbel")
EXTRA = 3  # steps of a free-running decoder beyond the longest target of the batch


class Progress:
    """How far a training is: the share of its epochs that is done, 1 in the last. Losses that anneal look."""

    def __init__(self) -> None:
        self.done = 0.0


class Stopwatch:
    """Processor seconds within ``with stopwatch.running():``, whatever else the machine does."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - start


def alignment_value(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    lengths: tuple[torch.Tensor | None, torch.Tensor],
    *,
    cost: str = "expected",
    missing: torch.Tensor | float = 1.0,
    temperature: float = 1.0,
    extension: float = 1.0,
) -> torch.Tensor:
    """The value (B,) of the cheapest alignment of predicted distributions with phones.

    Pairing position i with phone j costs 1 - p_i(y_j), leaving position i out 1 - p_i(end), and a phone
    that is missed 1. For certain predictions this is the edit distance, up to the outputs' ends.

    Args:
        log_probs: (B, n, V).
        targets: (B, m) phones.
        lengths: Of the rows (None: all n count) and of the targets, (B,) each.
        cost: ``"expected"``; or ``"nll"``: -log p in place of 1 - p, for pairs and for positions left out.
        missing: What a missed phone costs, a number or a tensor that may learn.
        temperature: Costs are those of the distributions p ** (1 / temperature), made to sum to 1. Below 1
            they are nearer to the likeliest phones: what counts is which phone wins, and where two are close.
            At 1 the easiest way down is to be as sure as can be, right or wrong.
        extension: Of several positions left out in a row, or phones missed, all but the first cost this share
            of what they would (affine gaps).
    """
    if temperature != 1:
        log_probs = (log_probs / temperature).log_softmax(-1)
    end = log_probs[..., END]
    left_out = -torch.expm1(end) if cost == "expected" else -end
    gaps = {"row_gap": left_out, "col_gap": missing}
    if extension != 1:
        gaps = {"row_gap": extension * left_out, "col_gap": extension * missing}
        gaps |= {"row_open": left_out, "col_open": missing}
    return token_alignment(log_probs, targets, cost=cost, lengths=lengths, **gaps).value


class Prices(nn.Module):
    """What missing each of the phones costs: learned, positive, 1 on the mean of all.

    A price that were free would only fall, as its derivative is how many are missed.
    """

    def __init__(self, phones: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(phones))

    def forward(self, targets: torch.Tensor) -> torch.Tensor:
        """Of targets (B, m), in their shape."""
        return (len(self.logits) * self.logits.softmax(0))[targets]


def with_end(batch: Batch) -> torch.Tensor:
    """Targets and at least one end, (B, m + 1)."""
    return functional.pad(batch.target, (0, 1), value=END)


def likelihood(log_probs: torch.Tensor, batch: Batch) -> torch.Tensor:
    """-log p of each target and its end, position by position, a phone; (B, n >= m + 1, V) -> (B,)."""
    wanted = with_end(batch)
    found = log_probs[:, : wanted.shape[1]].gather(-1, wanted[..., None])[..., 0]
    counts = torch.arange(wanted.shape[1]) <= batch.lengths[:, None]
    return -(found * counts).sum(1) / (batch.lengths + 1)


def maximum_likelihood(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
    """Teacher forcing: the decoder is fed the target."""
    return likelihood(model(model.encode(batch.source), with_end(batch)), batch)


def written_by(
    model: AbstractTranscriber,
    encoded: Encoded,
    steps: int,
    choose: Choose | None = None,
    *,
    past_end: bool = False,
) -> torch.Tensor:
    """What the decoder writes, without dropout in it: as it will be tested."""
    training = model.training
    model.eval()
    try:
        return model.generate(encoded, steps, choose, past_end=past_end)
    finally:
        model.train(training)


def draw(temperature: float = 1.0) -> Choose:
    """Phones at random, by their probabilities ** (1 / temperature)."""

    def choose(step: int, log_probs: torch.Tensor) -> torch.Tensor:
        return torch.multinomial((log_probs / temperature).softmax(-1), 1)[:, 0]

    return choose


def free_running(
    model: AbstractTranscriber, batch: Batch, feed: str, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """A decoder fed with its own output: log-probabilities (B, n, V) and how many of the n rows count.

    Rows count up to the first end that is written, included.

    Args:
        model, batch: n is the batch's longest target and ``EXTRA``.
        feed: ``"greedy"``: its likeliest phone, a constant. ``"sampled"``: one drawn at random, a constant.
            ``"softmax"``: the mixture of all by their probabilities. ``"gumbel"``: one drawn at random,
            differentiated as the softmax of its perturbed logits (straight-through).
        temperature: Of draws and of the softmax.
    """
    steps = batch.target.shape[1] + EXTRA
    encoded = model.encode(batch.source)
    if feed in ("greedy", "sampled"):
        written = written_by(model, encoded, steps, draw(temperature) if feed == "sampled" else None)
        log_probs = model(encoded, written)
    else:

        def mixture(log_probs: torch.Tensor) -> torch.Tensor:
            if feed == "softmax":
                return functional.softmax(log_probs / temperature, -1)
            return functional.gumbel_softmax(log_probs, temperature, hard=True)

        log_probs = model.soft(encoded, steps, mixture)
        written = log_probs.argmax(-1)
    return log_probs, (output_lengths(written) + 1).clamp(max=steps)


def alignment(
    feed: str = "greedy",
    *,
    cost: str = "expected",
    missing: Prices | float = 1.0,
    temperature: float = 1.0,
    cost_temperature: float | Callable[[], float] = 1.0,
    extension: float = 1.0,
    rows: str = "own",
    words: bool = False,
    stopwatch: Stopwatch | None = None,
) -> Loss:
    """The value of the alignment between a free-running decoder's distributions and the target.

    Args:
        feed, temperature: See ``free_running``.
        cost, cost_temperature, extension: See ``alignment_value``. A temperature may be a function, asked at
            each batch.
        missing: What a missed phone costs, or prices that learn.
        rows: ``"own"``: positions up to the first end that is written. ``"all"``: those after it too.
        words: Whether words with an error count, not errors: 1 - exp(-value) in place of value / length. It
            is near 1 however many errors a word has, and steepest where a word has next to none.
        stopwatch: Runs while costs are made and aligned.
    """
    watch = Stopwatch() if stopwatch is None else stopwatch

    def loss(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
        log_probs, own = free_running(model, batch, feed, temperature)
        lengths = (own if rows == "own" else None, batch.lengths)
        with watch.running():
            price = missing(batch.target) if isinstance(missing, Prices) else missing
            value = alignment_value(
                log_probs,
                batch.target,
                lengths,
                cost=cost,
                missing=price,
                temperature=cost_temperature() if callable(cost_temperature) else cost_temperature,
                extension=extension,
            )
        return -torch.expm1(-value) if words else value / batch.lengths

    return loss


def mixture(first: Loss, second: Loss, weight: float) -> Loss:
    """The first loss and ``weight`` times the second."""

    def loss(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
        return first(model, batch) + weight * second(model, batch)

    return loss


def free_running_likelihood(feed: str = "greedy", *, temperature: float = 1.0) -> Loss:
    """The control: the same outputs as for ``alignment``, compared with the target place by place."""

    def loss(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
        return likelihood(free_running(model, batch, feed, temperature)[0], batch)

    return loss


def scheduled_sampling(rate: float = 0.25) -> Loss:
    """Bengio et al. 2015: each input is the network's own likeliest phone with the given probability."""

    def loss(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
        wanted = with_end(batch)
        own = torch.rand(wanted.shape) < rate

        def choose(step: int, log_probs: torch.Tensor) -> torch.Tensor:
            return torch.where(own[:, step], log_probs.argmax(-1), wanted[:, step])

        encoded = model.encode(batch.source)
        written = written_by(model, encoded, wanted.shape[1], choose, past_end=True)
        return likelihood(model(encoded, written), batch)

    return loss


def minimum_risk(samples: int = 4, sharpness: float = 1.0) -> Loss:
    """Shen et al. 2016: the expected edit distance over a few outputs, weighted by their probabilities.

    Args:
        samples: Outputs drawn a word; the target is one more.
        sharpness: Probabilities are raised to it before they are made to sum to 1.
    """

    def loss(model: AbstractTranscriber, batch: Batch) -> torch.Tensor:
        encoded = model.encode(batch.source)
        wide = model.repeated(encoded, samples + 1)
        steps = batch.target.shape[1] + EXTRA
        written = written_by(model, wide, steps, draw()).reshape(len(batch), samples + 1, steps)
        written[:, 0] = functional.pad(batch.target, (0, EXTRA), value=END)
        log_probs = model(wide, written.flatten(0, 1)).unflatten(0, (len(batch), samples + 1))
        counts = torch.arange(steps) <= output_lengths(written)[..., None]
        of_outputs = (log_probs.gather(-1, written[..., None])[..., 0] * counts).sum(-1)
        # An output that was drawn twice counts once.
        again = (written[:, :, None] == written[:, None]).all(-1).tril(-1).any(-1)
        weights = (sharpness * of_outputs).masked_fill(again, -torch.inf).softmax(-1)
        targets = batch.target[:, None].expand(-1, samples + 1, -1)
        distance = edit_distance(written, targets, batch.lengths[:, None].expand(-1, samples + 1))
        return (weights * distance).sum(-1) / batch.lengths

    return loss
