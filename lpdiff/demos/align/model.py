"""The network: a bidirectional GRU reads the letters, a GRU with attention writes the phones.

The attention of a step looks at the decoder's state only after it was computed (Luong et al. 2015, without
input feeding). So where all inputs of the decoder are known, its steps are one call: maximum likelihood, but
also every free-running mode that feeds discrete phones. Those are chosen first, without a graph
(``generate``), and the same function of the same inputs is then differentiated (``forward``). Only soft
inputs, which carry gradients themselves, need the steps one by one with their graph (``soft``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .decoding import AbstractWriter


class Encoded(NamedTuple):
    """A batch of words read: keys (B, letters, hidden) and the decoder's first state (B, hidden)."""

    keys: torch.Tensor
    state: torch.Tensor


class Transcriber(AbstractWriter[Encoded]):
    """Distributions over phones for words of one length.

    Args:
        letters, phones: Sizes of the alphabets; phone 0 is the end.
        embedding, hidden: Sizes of the layers.
        dropout: Of embeddings and of the layer before the outputs.
    """

    def __init__(
        self, letters: int, phones: int, *, embedding: int = 64, hidden: int = 128, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.phones, self.memory = phones, hidden
        self.letter = nn.Embedding(letters, embedding)
        self.phone = nn.Embedding(phones + 1, embedding)  # the last one begins a word
        self.encoder = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)
        self.key = nn.Linear(2 * hidden, hidden)
        self.start = nn.Linear(2 * hidden, hidden)
        self.decoder = nn.GRU(embedding, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.mix = nn.Linear(2 * hidden, hidden)
        self.output = nn.Linear(hidden, phones)
        self.dropout = nn.Dropout(dropout)

    def encode(self, source: torch.Tensor) -> Encoded:
        """Read words, (B, letters) int64."""
        states, last = self.encoder(self.dropout(self.letter(source)))
        return Encoded(self.key(states), torch.tanh(self.start(torch.cat((last[0], last[1]), -1))))

    def forward(self, encoded: Encoded, inputs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, n, V) of n steps that are fed a start and the first n - 1 of ``inputs``.

        Args:
            encoded: From ``encode``.
            inputs: (B, n) phones; the last one is not read.
        """
        fed = self.dropout(self.phone(self._shifted(inputs)))
        return self._read(encoded, self.decoder(fed, encoded.state[None])[0])

    def soft(
        self, encoded: Encoded, steps: int, feed: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Log-probabilities (B, steps, V) of a decoder that is fed mixtures of phones.

        Args:
            encoded, steps: See ``generate``.
            feed: Of log-probabilities (B, V): weights (B, V), which carry gradients.
        """
        state, found = encoded.state, []
        fed = self.phone.weight[self.phones].expand(len(state), -1)
        for _ in range(steps):
            log_probs, state = self.step(encoded, self.dropout(fed), state)
            found.append(log_probs)
            fed = feed(log_probs) @ self.phone.weight[: self.phones]
        return torch.stack(found, 1)

    def begin(self, encoded: Encoded) -> torch.Tensor:
        return encoded.state

    def repeated(self, encoded: Encoded, times: int) -> Encoded:
        return Encoded(*(part.repeat_interleave(times, 0) for part in encoded))

    def write(
        self, encoded: Encoded, last: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.step(encoded, self.phone(last), state)

    def step(
        self, encoded: Encoded, fed: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (B, V) and the next state (B, hidden) from inputs (B, embedding)."""
        state = self.decoder(fed[:, None], state[None].contiguous())[1][0]
        return self._read(encoded, state[:, None])[:, 0], state

    def _shifted(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat((torch.full_like(inputs[:, :1], self.phones), inputs[:, :-1]), 1)

    def _read(self, encoded: Encoded, states: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, n, V) from states (B, n, hidden), which attend to the letters."""
        weights = (self.query(states) @ encoded.keys.mT).softmax(-1)
        mixed = torch.tanh(self.mix(torch.cat((states, weights @ encoded.keys), -1)))
        # In float32 whatever the layers compute in: 1 - p needs more digits than bfloat16 has.
        return functional.log_softmax(self.output(self.dropout(mixed)).float(), -1)
