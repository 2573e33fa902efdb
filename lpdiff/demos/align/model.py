"""The networks: a bidirectional GRU reads the letters, a GRU with attention writes the phones.

The attention of a step looks at the decoder's state only after it was computed (Luong et al. 2015, without
input feeding). So where all inputs of the decoder are known, its steps are one call: maximum likelihood, but
also every free-running mode that feeds discrete phones. Those are chosen first, without a graph
(``generate``), and the same function of the same inputs is then differentiated (``forward``). Only soft
inputs, which carry gradients themselves, need the steps one by one with their graph (``soft``).

What is common to both attentions is here, with the soft one; the other is in ``monotonic``.
"""

from __future__ import annotations

from abc import abstractmethod
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


class AbstractTranscriber(AbstractWriter[Encoded]):
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
        self.phones, self.hidden = phones, hidden
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

    @abstractmethod
    def forward(self, encoded: Encoded, inputs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, n, V) of n steps that are fed a start and the first n - 1 of ``inputs``.

        Args:
            encoded: From ``encode``.
            inputs: (B, n) phones; the last one is not read.
        """

    @abstractmethod
    def soft(
        self, encoded: Encoded, steps: int, feed: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Log-probabilities (B, steps, V) of a decoder that is fed mixtures of phones.

        Args:
            encoded, steps: See ``generate``.
            feed: Of log-probabilities (B, V): weights (B, V), which carry gradients.
        """

    def repeated(self, encoded: Encoded, times: int) -> Encoded:
        return Encoded(*(part.repeat_interleave(times, 0) for part in encoded))

    def states(self, encoded: Encoded, inputs: torch.Tensor) -> torch.Tensor:
        """The decoder's states (B, n, hidden) when it is fed a start and the first n - 1 of ``inputs``."""
        shifted = torch.cat((torch.full_like(inputs[:, :1], self.phones), inputs[:, :-1]), 1)
        return self.decoder(self.dropout(self.phone(shifted)), encoded.state[None])[0]

    def next_state(self, fed: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """The state (B, hidden) after an input (B, embedding)."""
        return self.decoder(fed[:, None], state[None].contiguous())[1][0]

    def start_input(self, size: int) -> torch.Tensor:
        """What is fed before the first phone, (B, embedding)."""
        return self.phone.weight[self.phones].expand(size, -1)

    def mixture(self, weights: torch.Tensor) -> torch.Tensor:
        """What is fed for weights (B, V) of phones, (B, embedding)."""
        return weights @ self.phone.weight[: self.phones]


class Transcriber(AbstractTranscriber):
    """With soft attention: a step's phone depends on the mean of the letters' keys, by its weights."""

    def forward(self, encoded: Encoded, inputs: torch.Tensor) -> torch.Tensor:
        return self._read(encoded, self.states(encoded, inputs))

    def soft(
        self, encoded: Encoded, steps: int, feed: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        state, found = encoded.state, []
        fed = self.start_input(len(state))
        for _ in range(steps):
            state = self.next_state(self.dropout(fed), state)
            found.append(self._read(encoded, state[:, None])[:, 0])
            fed = self.mixture(feed(found[-1]))
        return torch.stack(found, 1)

    def memory(self, encoded: Encoded) -> int:
        return self.hidden

    def begin(self, encoded: Encoded) -> torch.Tensor:
        return encoded.state

    def write(
        self, encoded: Encoded, last: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.next_state(self.phone(last), state)
        return self._read(encoded, state[:, None])[:, 0], state

    def _read(self, encoded: Encoded, states: torch.Tensor) -> torch.Tensor:
        """Log-probabilities (B, n, V) from states (B, n, hidden), which attend to the letters."""
        weights = (self.query(states) @ encoded.keys.mT).softmax(-1)
        mixed = torch.tanh(self.mix(torch.cat((states, weights @ encoded.keys), -1)))
        # In float32 whatever the layers compute in: 1 - p needs more digits than bfloat16 has.
        return functional.log_softmax(self.output(self.dropout(mixed)).float(), -1)
