"""Monotonic alignment of frames with tokens: monotonic alignment search, and the best path of CTC."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Moments, Parameter, Proposal

from .alignment import read_pair
from .base import AbstractResult, ProblemModule, SolveOptions, any_of, first_item, named, read_lengths
from .gaps import explain
from .lattice import Arcs, Lattice, make_lattice, without_padding

__all__ = [
    "CTCAlignment",
    "FrameAlignment",
    "MonotonicAlignment",
    "ctc_alignment",
    "monotonic_alignment",
]


@dataclass(frozen=True, eq=False)
class SearchProblem(AbstractProblem):
    """T frames pass through S tokens in turn. Parameters: costs; numbers of frames and of tokens."""

    T: int
    S: int

    has_oracle: ClassVar[bool] = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        lengths = (Parameter("frames", (), kind="data"), Parameter("tokens", (), kind="data"))
        return (Parameter("costs", (self.T, self.S), compact=True), *lengths)

    @property
    def program(self) -> LinearProgram:
        return search_lattice(self.T, self.S).program

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, frames, tokens = parameters
        frames = torch.tensor(self.T) if frames is None else frames
        tokens = torch.tensor(self.S) if tokens is None else tokens
        costs = without_padding(costs, frames, tokens)
        end = (frames - 1) * self.S + tokens - 1
        lattice = search_lattice(self.T, self.S)
        return lattice.data((costs.flatten(-2),), torch.tensor(self.T * self.S), end)

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        from lpdiff.kernels.monotonic import search  # numba takes its time to load

        costs, frames, tokens = arrays
        found = search(costs, frames, tokens, threads=threads)
        return _proposal(self.parameters, found, costs, frames, tokens)


@dataclass(frozen=True, eq=False)
class CTCProblem(AbstractProblem):
    """T frames pass through the 2S + 1 states blank, token, blank, ... of their targets, as CTC allows.

    Parameters: costs (T, V); targets (S,); numbers of frames and of tokens.
    """

    T: int
    S: int
    V: int
    blank: int

    has_oracle: ClassVar[bool] = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("costs", (self.T, self.V), compact=True),
            Parameter("targets", (self.S,), kind="data"),
            Parameter("frames", (), kind="data"),
            Parameter("tokens", (), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return ctc_lattice(self.T, self.S).program

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, targets, frames, tokens = parameters
        T, S = self.T, self.S
        targets = torch.where(torch.arange(S) < tokens[..., None], targets, self.blank)
        states = torch.full((*targets.shape[:-1], 2 * S + 1), self.blank)
        states[..., 1::2] = targets
        costs = torch.where((torch.arange(T) < frames[..., None])[..., None], costs, 0.0)
        batch = tuple(np.broadcast_shapes(states.shape[:-1], costs.shape[:-2]))
        place = states[..., None, :].expand(*batch, T, 2 * S + 1)
        costs = costs.expand(*batch, T, self.V).gather(-1, place)
        lattice = ctc_lattice(T, S)
        # From token to next token only where they differ; and to the end from the last two states.
        skip, last = lattice.blocks[-2], lattice.blocks[-1]
        state = torch.from_numpy(skip.head % (2 * S + 1))
        same = states[..., state] == states[..., (state - 2).clamp(min=0)]
        t, u = (torch.from_numpy(part) for part in np.divmod(last.tail, 2 * S + 1))
        end = 2 * tokens[..., None]
        out = (t != frames[..., None] - 1) | ((u != end) & (u != end - 1))
        closed = [*[None] * (len(lattice.blocks) - 2), same, out]
        cells = T * (2 * S + 1)
        return lattice.data((costs.flatten(-2),), torch.tensor(cells), torch.tensor(cells + 1), closed=closed)

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        from lpdiff.kernels.monotonic import ctc_path  # numba takes its time to load

        costs, targets, frames, tokens = arrays
        found = ctc_path(costs, targets, frames, tokens, blank=self.blank, threads=threads)
        return _proposal(self.parameters, found, costs, frames, None)


def _proposal(
    parameters: tuple[Parameter, ...],
    found: Any,
    costs: np.ndarray,
    frames: np.ndarray | None,
    columns: np.ndarray | None,
) -> Proposal:
    messages = {}
    if found.status.any():
        forbidden = "every path takes a forbidden step (a cost of +inf)"
        messages = explain(parameters[:1], (costs,), found.status, (frames, columns), forbidden)
    return Proposal(found.value, found.status, (Moments(found.cells.index, found.cells.weight),), messages)


@functools.lru_cache(maxsize=32)
def search_lattice(T: int, S: int) -> Lattice:
    """The LP of a shape: pure, so it is kept."""
    cell = np.arange(T * S)
    t, s = np.divmod(cell, S)
    stay, advance = cell[t > 0], cell[(t > 0) & (s > 0)]
    blocks = [
        Arcs(np.array([T * S]), cell[:1], 0, cell[:1]),
        Arcs(stay - S, stay, 0, stay),
        Arcs(advance - S - 1, advance, 0, advance),
    ]
    return make_lattice(f"monotonic alignment {T}x{S}", T * S + 1, blocks, (*cell, T * S))


@functools.lru_cache(maxsize=32)
def ctc_lattice(T: int, S: int) -> Lattice:
    """The LP of a shape: pure, so it is kept."""
    width = 2 * S + 1
    cell = np.arange(T * width)
    t, u = np.divmod(cell, width)
    first = cell[(t == 0) & (u < 2)]
    blocks = [Arcs(np.full(len(first), T * width), first, 0, first)]
    for back in (0, 1, 2):
        head = cell[(t > 0) & (u >= back) & ((back < 2) | (u % 2 == 1))]
        head = head[u[head] >= 3] if back == 2 else head
        blocks.append(Arcs(head - width - back, head, 0, head))
    blocks.append(Arcs(cell, np.full(len(cell), T * width + 1), None, np.zeros(len(cell), dtype=np.int64)))
    return make_lattice(f"CTC {T}x{S}", T * width + 2, blocks)


@dataclass(frozen=True, eq=False, repr=False)
class FrameAlignment(AbstractResult):
    """Optimal monotonic alignments of a batch.

    Attributes:
        value: (*batch,) costs of the alignments, with exact generalized gradients in the costs.
        labels: (*batch, T) int64: the column of the costs that each frame takes (for monotonic alignment the
            token's place, for CTC the label or the blank), -1 beyond the frames.
    """

    @property
    def indicator(self) -> torch.Tensor:
        """The derivative of the value in the costs, in their shape: 1 where a frame takes a column.

        Piecewise constant: it carries a gradient only under a rule (``gradient=``).
        """
        return self.evaluation.indicator(0)

    @cached_property
    def labels(self) -> torch.Tensor:
        inputs = self.evaluation.inputs
        return inputs.like_user(self._labels.reshape(*inputs.batch_shape, -1))

    def decode(self) -> list[np.ndarray]:
        """The column each frame takes, an int64 array an item (of the batch in a row)."""
        return [row[row >= 0] for row in self._labels.numpy()]

    @cached_property
    def _labels(self) -> torch.Tensor:
        T, width = self.evaluation.problem.parameters[0].shape
        index, weight = self.evaluation.moments[0]
        taken = weight > 0.5
        wide = torch.full((len(index), T + 1), -1)
        wide.scatter_(1, torch.where(taken, index // width, T), index % width)
        return wide[:, :T].contiguous()


def monotonic_alignment(
    costs: Any, *, lengths: tuple[Any, Any] | None = None, **how: Unpack[SolveOptions]
) -> FrameAlignment:
    r"""Monotonic alignment search: each frame takes a token, from the first to the last, none left out.

    .. math::

        z = \min_{a} \sum_t C_{t, a(t)}, \quad a(0) = 0,\; a(T-1) = S-1,\; a(t+1) - a(t) \in \{0, 1\}

    The LP is a shortest path on an acyclic graph with a node a cell (``path``), so its vertices are
    alignments.

    Args:
        costs: (*batch, T, S), for example negative log-likelihoods of frames under tokens; +inf forbids.
        lengths: A pair of the numbers of frames and of tokens, each (*batch,) integers of at least 1, a mask,
            or None.
        how: How to solve, see ``SolveOptions``.

    Returns:
        FrameAlignment: the value, the token of each frame; ``durations`` count with ``bincount``.

    Raises:
        ValueError: shapes, lengths, fewer frames than tokens; it names the item.
        SolveError: NaN or -inf costs; no path without a forbidden step.

    References:
        Kim, Kim, Kong, Yoon, "Glow-TTS", NeurIPS 2020, arXiv 2005.11129.

    Example:
        >>> monotonic_alignment(-log_likelihood, lengths=(frames, tokens)).value.sum().backward()
    """
    costs = _table("costs", costs, "T, S")
    T, S = costs.shape[-2:]
    frames, tokens = read_pair(lengths or (None, None), T, S, tuple(costs.shape[:-2]), least=1)
    _enough(frames, tokens, "tokens")
    found = evaluate(SearchProblem(T, S), costs, frames, tokens, **how)
    return FrameAlignment(found.value, found)


def ctc_alignment(
    log_probs: Any,
    targets: Any,
    *,
    lengths: tuple[Any, Any] | None = None,
    blank: int = 0,
    **how: Unpack[SolveOptions],
) -> FrameAlignment:
    r"""The best single path of connectionist temporal classification (Viterbi, forced alignment).

    .. math::

        z = \min_{\pi \in B^{-1}(y)} \; -\sum_t \log p_t(\pi_t)

    over the label sequences that become y when repetitions are merged and blanks removed: CTC's own loss sums
    over them, this takes the likeliest. The LP is a shortest path on an acyclic graph of T (2S + 1) nodes;
    the compiled solver reads (T, V) and materialises none of it.

    Args:
        log_probs: (*batch, T, V) log-probabilities, as ``torch.nn.functional.ctc_loss`` takes them but with
            the batch first; -inf forbids a label.
        targets: (*batch, S) integer labels, padded with anything; not the blank.
        lengths: A pair of the numbers of frames (at least 1) and of tokens (at least 0), each (*batch,)
            integers, a mask, or None.
        blank: The label of the blank.
        how: How to solve, see ``SolveOptions``.

    Returns:
        FrameAlignment: the value, the label of each frame.

    Raises:
        ValueError: shapes, labels out of range, too few frames for the tokens; it names the item.
        SolveError: NaN or +inf log-probabilities; no path without a forbidden step.

    References:
        Graves, Fernandez, Gomez, Schmidhuber, ICML 2006.

    Example:
        >>> ctc_alignment(log_probs, targets, lengths=(frames, tokens)).value.mean().backward()
    """
    log_probs = _table("log_probs", log_probs, "T, V", least=(1, 1))
    targets = targets if isinstance(targets, torch.Tensor) else torch.as_tensor(np.array(targets))
    if targets.is_floating_point() or targets.dim() < 1:
        raise ValueError(
            f"targets: expected integers (*batch, S), got {targets.dtype} {tuple(targets.shape)}"
        )
    T, V = log_probs.shape[-2:]
    S = targets.shape[-1]
    if not 0 <= blank < V:
        raise ValueError(f"blank: expected a label of 0 to {V - 1}, got {blank}")
    batch = tuple(np.broadcast_shapes(tuple(log_probs.shape[:-2]), tuple(targets.shape[:-1])))
    lengths = (None, None) if lengths is None else lengths
    tokens = check_targets(targets, lengths[1], V, batch, blank)
    frames = read_lengths("frames", lengths[0], T, batch, least=1)
    same = targets[..., 1:] == targets[..., :-1]
    repeated = (same.cpu() & (torch.arange(1, S) < tokens[..., None])).sum(-1) if S > 1 else 0
    _enough(frames, (tokens + repeated).clamp(min=1), "tokens, with a blank between equal ones,")
    found = evaluate(CTCProblem(T, S, V, blank), -log_probs, targets, frames, tokens, **how)
    return FrameAlignment(found.value, found)


class MonotonicAlignment(ProblemModule):
    """``monotonic_alignment`` as a module that holds its options; call it with the costs."""

    function = staticmethod(monotonic_alignment)


class CTCAlignment(ProblemModule):
    """``ctc_alignment`` as a module that holds its options; call it with log-probabilities and targets."""

    function = staticmethod(ctc_alignment)


def _table(name: str, values: Any, shape: str, least: tuple[int, int] = (1, 1)) -> torch.Tensor:
    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.array(values))
    if tensor.dim() < 2 or tensor.shape[-2] < least[0] or tensor.shape[-1] < least[1]:
        raise ValueError(
            f"{name}: expected shape (*batch, {shape}), at least 1 each, got {tuple(tensor.shape)}"
        )
    return tensor


def _enough(frames: torch.Tensor, needed: torch.Tensor, what: str) -> None:
    wrong = frames < needed
    if any_of(wrong):
        item = first_item(wrong)
        have, need = torch.broadcast_tensors(frames, needed)
        raise ValueError(
            f"lengths: {named(item)} has {int(have[item])} frames for {int(need[item])} {what} and each "
            f"takes one: give more frames, or fewer tokens"
        )


def check_targets(
    targets: torch.Tensor, lengths: Any, size: int, batch_shape: tuple[int, ...], blank: int | None = None
) -> torch.Tensor:
    """Numbers of tokens, (*batch,) int64: labels within them are columns of the costs, and not the blank."""
    tokens = read_lengths("tokens", lengths, targets.shape[-1], batch_shape)
    here = torch.arange(targets.shape[-1]) < tokens[..., None]
    there = targets.detach().cpu()
    wrong = ((there < 0) | (there >= size) | (there == (size if blank is None else blank))) & here
    if any_of(wrong):
        item = first_item(wrong)
        told = "" if blank is None else f" other than the blank {blank}"
        raise ValueError(
            f"targets: {named(item[:-1])} has label {int(there.expand(wrong.shape)[item])} at place "
            f"{item[-1]}, expected labels of 0 to {size - 1}{told}; where this is padding, give lengths"
        )
    return tokens
