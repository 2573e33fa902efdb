"""Writing phones one after the other, by a network or by several: at each step the likeliest, or a beam."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

from .data import END

Choose = Callable[[int, torch.Tensor], torch.Tensor]
"""Of a step's number and its log-probabilities (B, V): the phones (B,) that are fed next."""

E = TypeVar("E")  # a batch of words, read


class AbstractWriter(nn.Module, ABC, Generic[E]):
    """What reads words and writes phones.

    Attributes:
        phones: How many there are, the end (0) among them; this number itself begins a word.
    """

    phones: int

    @abstractmethod
    def encode(self, source: torch.Tensor) -> E:
        """Read words, (B, letters) int64."""

    @abstractmethod
    def repeated(self, encoded: E, times: int) -> E:
        """Each word so often, one after the other."""

    @abstractmethod
    def memory(self, encoded: E) -> int:
        """Numbers a word that change from phone to phone."""

    @abstractmethod
    def begin(self, encoded: E) -> torch.Tensor:
        """The state (B, memory) before the first phone."""

    @abstractmethod
    def write(self, encoded: E, last: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (B, V) of what follows the phones ``last`` (B,), and the state then."""

    @torch.no_grad()
    def generate(
        self, encoded: E, steps: int, choose: Choose | None = None, *, past_end: bool = False
    ) -> torch.Tensor:
        """Phones (B, steps) of a decoder that is fed what ``choose`` picks (None: the likeliest phone).

        After an ``END`` comes nothing but ``END``, unless ``past_end``.
        """
        state = self.begin(encoded)
        size = len(state)
        written = torch.full((size, steps), END)
        last = written.new_full((size,), self.phones)
        ended = torch.zeros_like(last, dtype=torch.bool)
        for step in range(steps):
            log_probs, state = self.write(encoded, last, state)
            last = log_probs.argmax(-1) if choose is None else choose(step, log_probs)
            last = last if past_end else last.masked_fill(ended, END)
            written[:, step] = last
            ended |= last == END
            if not past_end and bool(ended.all()):
                break
        return written

    @torch.no_grad()
    def beam(self, encoded: E, steps: int, width: int) -> torch.Tensor:
        """The likeliest of the outputs that a beam of ``width`` finds, (B, steps)."""
        wide = self.repeated(encoded, width)
        state = self.begin(wide)
        size = len(state) // width
        # All but the first of the equal beginnings are out of the race.
        score = torch.zeros(size, width)
        score[:, 1:] = -torch.inf
        written = torch.full((size, width, steps), END)
        last = written.new_full((size * width,), self.phones)
        ended = torch.zeros(size, width, dtype=torch.bool)
        only_end = torch.full((self.phones,), -torch.inf)
        only_end[END] = 0.0
        for step in range(steps):
            log_probs, state = self.write(wide, last, state)
            log_probs = log_probs.reshape(size, width, -1)
            log_probs = torch.where(ended[..., None], only_end, log_probs)
            score, best = (score[..., None] + log_probs).flatten(1).topk(width, 1)
            parent, phone = best // self.phones, best % self.phones
            written = written.gather(1, parent[..., None].expand(-1, -1, steps))
            written[:, :, step] = phone
            ended = ended.gather(1, parent) | (phone == END)
            state = state[(parent + width * torch.arange(size)[:, None]).reshape(-1)]
            last = phone.reshape(-1)
            if bool(ended.all()):
                break
        return written[:, 0]


class Ensemble(AbstractWriter[list[E]]):
    """Several networks of one alphabet that write together: the mean of their probabilities at each step."""

    def __init__(self, writers: Sequence[AbstractWriter[E]]) -> None:
        super().__init__()
        self.writers = tuple(writers)
        self.networks = nn.ModuleList(writers)
        self.phones = writers[0].phones

    def encode(self, source: torch.Tensor) -> list[E]:
        return [writer.encode(source) for writer in self.writers]

    def repeated(self, encoded: list[E], times: int) -> list[E]:
        return [w.repeated(e, times) for w, e in zip(self.writers, encoded, strict=True)]

    def memory(self, encoded: list[E]) -> int:
        return sum(self._memories(encoded))

    def begin(self, encoded: list[E]) -> torch.Tensor:
        return torch.cat([w.begin(e) for w, e in zip(self.writers, encoded, strict=True)], 1)

    def write(
        self, encoded: list[E], last: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = state.split(self._memories(encoded), 1)
        told = [w.write(e, last, s) for w, e, s in zip(self.writers, encoded, own, strict=True)]
        mean = torch.stack([log_probs for log_probs, _ in told]).logsumexp(0) - math.log(len(told))
        return mean, torch.cat([after for _, after in told], 1)

    def _memories(self, encoded: list[E]) -> list[int]:
        return [w.memory(e) for w, e in zip(self.writers, encoded, strict=True)]
