"""A network whose attention is one letter a phone, never before the last phone's letter.

Which letter is not known: the probability of a phone is the sum over all letters that it may be read from,
as in a hidden Markov model whose hidden states are places in the word (Wu and Cotterell 2019, "Exact Hard
Monotonic Attention for Character-Level Transduction"). With a_j(i) the probability that phone j is read from
letter i, given the phones before,

    T_j(i | i')  =  softmax over i >= i' of  s_j . k_i
    a_j(i)       =  sum over i' <= i of  a'_{j-1}(i') T_j(i | i')
    p(y_j)       =  sum over i of  a_j(i) p_j(y_j | i)
    a'_j(i)      proportional to  a_j(i) p_j(y_j | i),

with the decoder's state s_j and the letter's key k_i. All of it is computed in logarithms: networks that are
sure of much give probabilities below what a float holds, and derivatives above it.

So likelihoods are exact, nothing is sampled, and a step's distribution over phones is what every loss here
takes, the alignment too. Letters that are read in order are most of what a small dictionary would have to
teach a soft attention.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from .model import AbstractTranscriber, Encoded

_TINY = 1e-30  # of a probability whose logarithm is taken


class MonotonicTranscriber(AbstractTranscriber):
    """See the module."""

    def forward(self, encoded: Encoded, inputs: torch.Tensor) -> torch.Tensor:
        steps, by_letter = self._apart(encoded, self.states(encoded, inputs))
        seen = by_letter.gather(-1, inputs[:, :, None, None].expand(-1, -1, by_letter.shape[2], 1))[..., 0]
        after, before = self._first(encoded), []
        for moved, now in zip(steps.unbind(1), seen.unbind(1), strict=True):
            before.append(_moved(after, moved))
            after = _known(before[-1], now)
        return _phones(torch.stack(before, 1), by_letter)

    def soft(
        self, encoded: Encoded, steps: int, feed: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        state, after, found = encoded.state, self._first(encoded), []
        fed = self.start_input(len(state))
        for _ in range(steps):
            state = self.next_state(self.dropout(fed), state)
            moved, by_letter = (part[:, 0] for part in self._apart(encoded, state[:, None]))
            before = _moved(after, moved)
            found.append(_phones(before, by_letter))
            weights = feed(found[-1])
            after = _known(before, (by_letter.exp() * weights[:, None]).sum(-1).clamp(min=_TINY).log())
            fed = self.mixture(weights)
        return torch.stack(found, 1)

    def memory(self, encoded: Encoded) -> int:
        return self.hidden + encoded.keys.shape[1]

    def begin(self, encoded: Encoded) -> torch.Tensor:
        return torch.cat((encoded.state, self._first(encoded)), 1)

    def write(
        self, encoded: Encoded, last: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state is the decoder's, and where the last phone was read before it was known (logarithms)."""
        state, before = state.split((self.hidden, encoded.keys.shape[1]), 1)
        begins = last == self.phones
        of_last = self._by_letter(encoded, state[:, None])[:, 0]
        seen = of_last.gather(-1, last.masked_fill(begins, 0)[:, None, None].expand(-1, of_last.shape[1], 1))
        after = _known(before, seen[..., 0].masked_fill(begins[:, None], 0.0))
        state = self.next_state(self.phone(last), state)
        moved, by_letter = (part[:, 0] for part in self._apart(encoded, state[:, None]))
        before = _moved(after, moved)
        return _phones(before, by_letter), torch.cat((state, before), 1)

    def _first(self, encoded: Encoded) -> torch.Tensor:
        """Before the first phone the first letter is read: log-probabilities (B, letters)."""
        first = torch.full(encoded.keys.shape[:2], -torch.inf)
        first[:, 0] = 0.0
        return first

    def _apart(self, encoded: Encoded, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of states (B, n, hidden): log T (B, n, letters, letters), ``_by_letter``."""
        scores = (self.query(states) @ encoded.keys.mT).float()
        letters = scores.shape[-1]
        back = torch.ones(letters, letters, dtype=torch.bool).tril(-1)
        steps = scores[:, :, None].expand(-1, -1, letters, -1).masked_fill(back, -torch.inf).log_softmax(-1)
        return steps, self._by_letter(encoded, states)

    def _by_letter(self, encoded: Encoded, states: torch.Tensor) -> torch.Tensor:
        """log p(phone | letter), (B, n, letters, V), in float32."""
        # ``mix`` of each state beside each key, without writing them beside each other.
        of_state, of_key = self.mix.weight.split(self.hidden, 1)
        state = functional.linear(self.dropout(states), of_state, self.mix.bias)
        key = functional.linear(self.dropout(encoded.keys), of_key)
        mixed = torch.tanh(state[:, :, None] + key[:, None])
        return functional.log_softmax(self.output(mixed).float(), -1)


def _moved(after: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Where the next phone is read, (B, letters)."""
    return (after[:, :, None] + steps).logsumexp(1)


def _known(before: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Where a phone was read, now that it is known: ``seen`` is its log-probability by letter."""
    return (before + seen).log_softmax(-1)


def _phones(before: torch.Tensor, by_letter: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (..., V) of phones."""
    return (before[..., None] + by_letter).logsumexp(-2)
