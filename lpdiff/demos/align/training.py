"""One training: maximum likelihood from scratch, or a method from the pretrained network."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lpdiff.problems import token_alignment

from ..harness import AbstractTraining, Best, Step, write
from . import losses
from .config import Config, loss_of
from .data import END, Alphabet, Batch, Corpus, Examples, drawn
from .decoding import AbstractWriter, Ensemble
from .losses import Stopwatch
from .metrics import ErrorRates, error_rates
from .model import AbstractTranscriber, Transcriber
from .monotonic import MonotonicTranscriber

CLIP = 1.0  # largest norm of a gradient
KNOWN = 2400  # words of the training set that are measured too
DECODED = 512  # words a batch where nothing is trained


@dataclass(frozen=True, eq=False)
class Task:
    """A corpus as numbers; ``known`` are some of the words to train with."""

    alphabet: Alphabet
    train: Examples
    dev: Examples
    test: Examples
    known: Examples

    @classmethod
    def of(cls, corpus: Corpus) -> Task:
        alphabet = Alphabet.of(corpus.train)
        parts = (corpus.train, corpus.dev, corpus.test, drawn(corpus.train, 0, KNOWN))
        return cls(alphabet, *(Examples.of(part, alphabet) for part in parts))

    @property
    def steps(self) -> int:
        """The most phones an output may have: what training showed, and a few more."""
        return int(self.train.lengths.max()) + losses.EXTRA


def network(task: Task, config: Config) -> AbstractTranscriber:
    """A network with random weights."""
    kind = {"soft": Transcriber, "monotonic": MonotonicTranscriber}[config.attention]
    return kind(
        len(task.alphabet.letters),
        len(task.alphabet.phones),
        embedding=config.embedding,
        hidden=config.hidden,
        dropout=config.dropout,
    )


def decode(model: AbstractWriter[Any], examples: Examples, steps: int, beam: int = 1) -> torch.Tensor:
    """Outputs (N, steps), one row an example; ``beam`` 1 is greedy. The network is left as it was."""
    found = torch.full((len(examples), steps), END)
    training = model.training
    model.eval()
    with torch.no_grad():
        for batch in examples.batches(DECODED):
            encoded = model.encode(batch.source)
            found[batch.index] = (
                model.generate(encoded, steps) if beam == 1 else model.beam(encoded, steps, beam)
            )
    model.train(training)
    return found


def rates(model: AbstractWriter[Any], task: Task, examples: Examples, beam: int = 1) -> ErrorRates:
    """Error rates on some of the data."""
    return error_rates(decode(model, examples, task.steps, beam), examples)


def together(networks: Sequence[AbstractTranscriber], task: Task, beam: int) -> dict[str, float]:
    """Error rates of several networks as one, greedily and with a beam."""
    ensemble, found = Ensemble(networks), {}
    for part, examples in (("dev", task.dev), ("test", task.test)):
        for told, width in (("", 1), ("_beam", beam)):
            now = rates(ensemble, task, examples, width)
            found[f"{part}_phone_error_rate{told}"] = round(now.phone, 3)
            found[f"{part}_word_error_rate{told}"] = round(now.word, 3)
    return found


class Pictures:
    """Costs and alignments of one word while a network learns; a part of a training."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def take(self, model: AbstractTranscriber, batch: Batch, alphabet: Alphabet, epoch: int) -> None:
        """Align what the network writes for the first word of the batch with its target."""
        training = model.training
        model.eval()
        with torch.no_grad():
            log_probs, own = losses.free_running(model, batch, "greedy")
            rows, columns = int(own[0]), int(batch.lengths[0])
            log_probs, target = log_probs[0, :rows], batch.target[0, :columns]
            end = -torch.expm1(log_probs[:, END])
            found = token_alignment(log_probs, target, row_gap=end, col_gap=1.0)
            costs = 1 - log_probs.exp()[:, target]
        model.train(training)
        self.all.append(
            {
                "epoch": epoch,
                "value": round(float(found.value), 3),
                "costs": [[round(c, 3) for c in row] for row in costs.tolist()],
                "pairs": found.decode()[0].tolist(),
                "rows": [alphabet.phones[k] for k in log_probs.argmax(-1).tolist()],
                "columns": [alphabet.phones[k] for k in target.tolist()],
            }
        )

    def state_dict(self) -> dict[str, Any]:
        return {"all": self.all}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.all = list(state["all"])


class Training(AbstractTraining):
    """See the module.

    Args:
        config: Of the run.
        task: Its data.
        seed: Of the order of batches; weights are drawn from torch's global generator.
        folder: Of the run; weights go there in the end.
        method: What is trained with; None pretrains.
        start: Weights to begin from (None: random ones).
    """

    def __init__(
        self,
        config: Config,
        task: Task,
        seed: int,
        folder: Path,
        method: str | None = None,
        start: Path | None = None,
    ) -> None:
        self.config, self.task, self.folder, self.method = config, task, folder, method
        self.watch = Stopwatch()
        self.prices = losses.Prices(len(task.alphabet.phones))
        self.progress = losses.Progress()
        self.loss = loss_of(
            "likelihood" if method is None else method, config, self.watch, self.prices, self.progress
        )
        self.epochs = config.pretraining_epochs if method is None else config.epochs
        self.generator = torch.Generator().manual_seed(seed)
        self.model = network(task, config)
        if start is not None:
            self.model.load_state_dict(torch.load(start, weights_only=True))
        weights = [*self.model.parameters(), *self.prices.parameters()]
        self.optimiser = torch.optim.Adam(weights, lr=config.learning_rate)
        self.best = Best(self.model)
        self.pictures = Pictures()
        self.steps = sum(1 for _ in task.train.batches(config.batch))

    def parts(self) -> Mapping[str, Any]:
        return {
            "model": self.model,
            "prices": self.prices,
            "optimiser": self.optimiser,
            "generator": self.generator,
            "best": self.best,
            "pictures": self.pictures,
        }

    def epoch(self, number: int, step: Step) -> dict[str, float]:
        left, self.progress.done = 1 - number / self.epochs, number / max(1, self.epochs - 1)
        for group in self.optimiser.param_groups:
            group["lr"] = (
                self.config.learning_rate * min(1.0, 2 * left)
                if self.method is None
                else self.config.method_learning_rate * left
            )
        self.watch.seconds, total, start = 0.0, 0.0, time.process_time()
        for batch in self.task.train.batches(self.config.batch, self.generator):
            # The sum over the size of a full batch: a word weighs the same in a small one.
            with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
                loss = self.loss(self.model, batch).sum() / self.config.batch
            self.optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimiser.step()
            value = float(loss.detach())
            total += value * self.config.batch
            step(loss=value * self.config.batch / len(batch))
        spent = time.process_time() - start
        now = rates(self.model, self.task, self.task.dev)
        self.best.offer(now.phone, number)
        if (number + 1).bit_count() == 1 or number + 1 == self.epochs:  # epochs 1, 2, 4, ..., the last
            self.pictures.take(self.model, self._pictured(), self.task.alphabet, number + 1)
        return {
            "loss": total / len(self.task.train),
            "dev_phone_error_rate": now.phone,
            "dev_word_error_rate": now.word,
            "processor_seconds": spent,
            "processor_seconds_in_alignment": self.watch.seconds,
        }

    def result(self) -> dict[str, Any]:
        """Error rates of the best epoch on the development set; the test set is read here and only here."""
        self.best.restore()
        buffer = io.BytesIO()
        torch.save(self.model.state_dict(), buffer)
        write(self.folder / "weights.pt", buffer.getvalue())
        greedy, beam = (
            rates(self.model, self.task, self.task.test, width) for width in (1, self.config.beam)
        )
        told: dict[str, Any] = {
            "best_epoch": self.best.epoch + 1,
            "dev_phone_error_rate": self.best.score,
            "test_phone_error_rate": greedy.phone,
            "test_word_error_rate": greedy.word,
            "test_phone_error_rate_beam": beam.phone,
            "test_word_error_rate_beam": beam.word,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "pictures": self.pictures.all,
        }
        if self.method == "alignment-gaps":
            missed = self.prices(torch.arange(len(self.task.alphabet.phones))).tolist()
            told["prices"] = dict(zip(self.task.alphabet.phones, missed, strict=True))
        return told

    def _pictured(self) -> Batch:
        """A word of the development set with about eight phones, the same in all runs."""
        lengths = self.task.dev.lengths
        return self.task.dev.batch([int((lengths - 8).abs().argmin())])
