"""Viterbi decoding: the best sequence of states of a linear chain, as a longest path.

    max  sum_t unary[t, s_t] + sum_t transitions[s_(t-1), s_t] + start[s_0] + end[s_(n-1)]

The LP sends one unit through the layers t = 0 .. T-1 of nodes (t, s), from a source before the first layer to
a sink behind the last:

    (t-1, s) -> (t, s')   transitions[s, s'] + unary[t, s']       x = 1 where the sequence goes from s to s'
    source   -> (0, s)    start[s] + unary[0, s]
    (T-1, s) -> sink      0.

End scores are added to the unary ones of an item's last step; arcs behind that are free. It is a network, so
vertices are integral.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Moments, Parameter, Proposal

from .base import AbstractResult, ProblemModule, SolveOptions, forbidding, read_lengths
from .graphs import explaining, incidence, nested

__all__ = ["ChainProblem", "ChainSolution", "Viterbi", "viterbi"]

_INVALID = 5


@functools.lru_cache(maxsize=32)
def chain_program(steps: int, states: int) -> LinearProgram:
    """Arcs: source to the first layer; layer to layer, s major; the last layer to the sink."""
    sink = steps * states + 1
    if steps == 0:
        tail, head = np.array([0]), np.array([1])
    else:
        layer = np.arange(1, states + 1)
        first = states * np.arange(steps - 1)[:, None, None]
        shape = (steps - 1, states, states)
        inner_tail = np.broadcast_to(first + layer[:, None], shape).ravel()
        inner_head = np.broadcast_to(first + states + layer, shape).ravel()
        tail = np.concatenate([np.zeros(states, dtype=np.int64), inner_tail, (steps - 1) * states + layer])
        head = np.concatenate([layer, inner_head, np.full(states, sink)])
    b = np.zeros(sink + 1)
    b[0], b[sink] = 1.0, -1.0
    return LinearProgram(A_eq=incidence(tail, head, sink + 1), b_eq=b, sense="max", name="chain")


@dataclass(frozen=True, eq=False)
class ChainProblem(AbstractProblem):
    """Chains of up to ``steps`` steps.

    Parameters: unary (T, S); transitions, (S, S), or (T - 1, S, S) where they differ by step; start and end
    (S,); lengths.
    """

    steps: int
    states: int
    by_step: bool = False

    has_oracle: ClassVar[bool] = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        steps, states = self.steps, self.states
        square = (max(steps - 1, 0), states, states) if self.by_step else (states, states)
        return (
            Parameter("unary", (steps, states)),
            Parameter("transitions", square),
            Parameter("start", (states,)),
            Parameter("end", (states,)),
            Parameter("lengths", (), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return chain_program(self.steps, self.states)

    def data(
        self,
        unary: torch.Tensor,
        transitions: torch.Tensor,
        start: torch.Tensor,
        end: torch.Tensor,
        lengths: torch.Tensor,
    ) -> dict[str, Any]:
        if self.steps == 0:
            batch = np.broadcast_shapes(unary.shape[:-2], start.shape[:-1], end.shape[:-1], lengths.shape)
            return {"c": (0.0 * start.sum(-1, keepdim=True)).expand(*batch, 1)}
        step, length = torch.arange(self.steps), lengths[..., None]
        inside, last = (step < length)[..., None], (step == length - 1)[..., None]
        # Chosen, not multiplied: -inf forbids, and what lies behind an item's end may be anything.
        unary = torch.where(inside, unary + torch.where(last, end[..., None, :], 0.0), 0.0)
        first = torch.where(inside[..., 0, :], unary[..., 0, :] + start, 0.0)
        square = transitions if self.by_step else transitions[..., None, :, :]
        moves = torch.where(inside[..., 1:, None, :], square + unary[..., 1:, None, :], 0.0)
        batch = np.broadcast_shapes(first.shape[:-1], moves.shape[:-3])
        parts = [first.expand(*batch, -1), moves.expand(*batch, -1, -1, -1).flatten(-3)]
        c = torch.cat([*parts, first.new_zeros(*batch, self.states)], -1)
        return forbidding(c, worst=-torch.inf)

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.batch import run_spans, threads_for
        from lpdiff.kernels.viterbi import best_chains

        size, steps, states = len(arrays[4]), self.steps, self.states
        unary, transitions, start, end = (a.reshape(size, math.prod(a.shape[1:])) for a in arrays[:4])
        lengths = arrays[4]
        value, status = np.empty(size), np.empty(size, dtype=np.int8)
        tags = np.empty((size, steps), dtype=np.int32)

        def work(first: int, last: int) -> None:
            best_chains(*(unary, transitions, start, end, lengths, states, first, last, value, status, tags))

        run_spans(size, threads_for(0.4 * size * steps * states * states, threads), work)
        invalid = np.flatnonzero(status == _INVALID)
        told = "a score is NaN, +inf or beyond 1e290 within its length; -inf forbids"
        return Proposal(value, status, self._moments(tags, lengths), dict.fromkeys(invalid.tolist(), told))

    def _moments(self, tags: np.ndarray, lengths: np.ndarray) -> tuple[Moments, ...]:
        size, steps = tags.shape
        states, chain, step = self.states, tags.astype(np.int64), np.arange(steps)
        chosen = chain >= 0
        chain[~chosen] = 0
        weight = chosen.astype(float)
        before, after = chain[:, :-1], chain[:, 1:]
        place = before * states + after
        if self.by_step:
            place += step[:-1] * (states * states)
        moved = weight[:, 1:].copy()
        place *= chosen[:, 1:]
        if steps == 0:
            none = Moments(np.zeros((size, 0), dtype=np.int64), np.zeros((size, 0)))
            return (none, none, none, none)
        last = np.maximum(lengths - 1, 0)[:, None]
        ends = np.take_along_axis(chain, last, 1)
        counted = weight[:, :1].copy()
        return (
            Moments((step * states + chain) * chosen, weight),
            Moments(place, moved),
            Moments(chain[:, :1].copy(), counted),
            Moments(ends, counted.copy()),
        )


@dataclass(frozen=True, eq=False, repr=False)
class ChainSolution(AbstractResult):
    """Best sequences of a batch.

    Attributes:
        value: (*batch,) their scores, with exact generalized gradients; -inf where all are forbidden.
    """

    problem: ChainProblem

    @cached_property
    def tags(self) -> torch.Tensor:
        """(*batch, T) int64, the states; -1 beyond an item's length, and where there is no sequence."""
        index, weight = self.evaluation.moments[0]
        states = self.problem.states
        tags = torch.full((len(index), self.problem.steps + 1), -1)
        # What is not chosen goes to a place behind the end.
        step = torch.where(weight > 0.5, index // states, self.problem.steps)
        tags.scatter_(1, step, index % states)
        kept = tags[:, : self.problem.steps].reshape(*self.value.shape, self.problem.steps)
        return kept.to(self.value.device)

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, T, S) 1 where the sequence is in a state: the value's gradient in ``unary``.

        Piecewise constant: gradients through it are those of the rule chosen (``gradient=``), or refused.
        """
        return self.evaluation.indicator(0)

    @cached_property
    def transition_counts(self) -> torch.Tensor:
        """How often each transition is made, (*batch, S, S) or (*batch, T - 1, S, S). As ``indicator``."""
        return self.evaluation.indicator(1)

    def decode(self) -> list[Any]:
        """The states of each sequence, a list an item (nested as the batch is)."""
        return nested(self.tags, lambda tags: [s for s in tags if s >= 0])

    def __repr__(self) -> str:
        return f"ChainSolution(batch={tuple(self.value.shape)}, {self.problem})"


def viterbi(
    unary: Any,
    transitions: Any,
    *,
    start: Any = None,
    end: Any = None,
    lengths: Any = None,
    **how: Unpack[SolveOptions],
) -> ChainSolution:
    """Best sequences of states of linear chains (HMMs, CRFs): maximal sums of scores.

    Args:
        unary: Scores of the states at each step, (*batch, T, S).
        transitions: Scores of going from a state (row) to the next (column): (S, S); (*batch, T - 1, S, S),
            step by step; or (*batch, 1, S, S), an item's own at all its steps.
        start, end: Scores of the first and the last state, (*batch, S). Default: 0.
        lengths: (*batch,) integers, or a mask (*batch, T). Default: T. Nothing behind it is read.
        how: See ``lpdiff.evaluate``.

    -inf forbids. For probabilities, pass logarithms.

    Returns:
        A ChainSolution: ``value``, ``tags`` (*batch, T), ``indicator``, ``transition_counts``, ``decode()``.

    Raises:
        ValueError: shapes or lengths that do not fit.
        SolveError: an item of which all sequences are forbidden, or with NaN (unless ``throw=False``).

    The LP: see the module's text; recognised as one path through an acyclic network. It has a compiled solver
    of its own, O(T S^2) with O(T S) memory a thread, since the arcs need not be written down. Where sequences
    tie, the one with the lowest state, from the end backwards.

    References: Viterbi 1967; Lafferty, McCallum and Pereira 2001 (CRFs).

    Example::

        unary = torch.randn(8, 30, 5, requires_grad=True)
        best = viterbi(unary, torch.zeros(5, 5), lengths=torch.randint(1, 31, (8,)))
        best.value.sum().backward()  # unary.grad is best.indicator
    """
    shape = np.shape(unary)
    if len(shape) < 2:
        raise ValueError(f"unary: expected (*batch, T, S), got {shape}")
    steps, states = int(shape[-2]), int(shape[-1])
    if states == 0:
        raise ValueError(f"unary: {shape} has no states; expected (*batch, T, S) with S > 0")
    square, by_step = _transitions(transitions, steps, states)
    zero = torch.zeros(states, dtype=unary.dtype if isinstance(unary, torch.Tensor) else torch.float64)
    ends = [zero if given is None else given for given in (start, end)]
    batch = tuple(np.broadcast_shapes(shape[:-2], *(np.shape(given)[:-1] for given in ends)))
    problem = ChainProblem(steps, states, by_step)
    read = read_lengths("lengths", lengths, steps, batch)
    with explaining(INFEASIBLE="scores of -inf forbid every sequence of states"):
        found = evaluate(problem, unary, square, *ends, read, **how)
    return ChainSolution(found.value, found, problem)


def _transitions(given: Any, steps: int, states: int) -> tuple[Any, bool]:
    """The transitions in the shape of the parameter, and whether they differ by step."""
    given = given if isinstance(given, torch.Tensor) else np.asarray(given)
    shape = tuple(given.shape)
    if len(shape) >= 2 and shape[-2:] == (states, states):
        if len(shape) == 2:
            return given, False
        if shape[-3] == 1:
            return given[..., 0, :, :], False
        if shape[-3] == max(steps - 1, 0):
            return given, True
    raise ValueError(
        f"transitions: expected ({states}, {states}), (*batch, {max(steps - 1, 0)}, {states}, {states}) or "
        f"(*batch, 1, {states}, {states}), got {shape}"
    )


class Viterbi(ProblemModule):
    """``viterbi`` with its options held (start and end scores may be ``nn.Parameter``).

    Called with (unary, transitions).
    """

    function = staticmethod(viterbi)
