"""Viterbi decoding: against enumeration, torch loops, the LP and finite differences."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import lpdiff
from lpdiff import SolveError, Status
from lpdiff.problems.chains import ChainProblem, Viterbi, viterbi


def enumerated(unary, transitions, start, end, length):
    """The best score of one item, and the sequences that have it."""
    steps, states = unary.shape
    moves = transitions if transitions.ndim == 3 else [transitions] * max(steps - 1, 0)
    scores = {}
    for tags in itertools.product(range(states), repeat=length):
        score = sum(unary[t, s] for t, s in enumerate(tags))
        score += sum(moves[t][a, b] for t, (a, b) in enumerate(itertools.pairwise(tags)))
        if tags:
            score += start[tags[0]] + end[tags[-1]]
        scores[tags] = score
    best = max(scores.values())
    return best, [list(tags) for tags, score in scores.items() if score == best]


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_enumeration(ties, by_step):
    rng = np.random.default_rng(0)
    size, steps, states = 60, 4, 3

    def draw(*shape):
        return rng.integers(-2, 3, shape).astype(float) if ties else rng.normal(size=shape)

    unary, start, end = draw(size, steps, states), draw(size, states), draw(states)
    transitions = draw(size, steps - 1, states, states) if by_step else draw(states, states)
    if ties:
        unary[rng.random(unary.shape) < 0.3] = -np.inf
        start[rng.random(start.shape) < 0.2] = -np.inf
    lengths = rng.integers(0, steps + 1, size)
    arguments = [torch.from_numpy(a) for a in (unary, transitions)]
    ends = {"start": torch.from_numpy(start), "end": torch.from_numpy(end), "lengths": lengths}
    for solver in ("auto", "highs", "path"):
        found = viterbi(*arguments, **ends, solver=solver, throw=False)
        assert found.tags.shape == (size, steps)
        for k, tags in enumerate(found.decode()):
            best, optimal = enumerated(
                unary[k], transitions[k] if by_step else transitions, start[k], end, lengths[k]
            )
            assert float(found.value[k]) == pytest.approx(best)
            if np.isinf(best):
                assert found.status[k] == Status.INFEASIBLE and tags == []
            else:
                assert found.ok[k] and tags in optimal
                assert found.tags[k, lengths[k] :].tolist() == [-1] * (steps - lengths[k])
        assert ties == bool((~found.ok).any())


@pytest.mark.parametrize("by_step", [False, True])
def test_gradients_by_finite_differences_and_by_the_lp(by_step):
    torch.manual_seed(0)
    size, steps, states = 5, 6, 9
    shape = (size, steps - 1, states, states) if by_step else (states, states)
    leaves = [
        torch.randn(*s, dtype=torch.float64, requires_grad=True)
        for s in ((size, steps, states), shape, (states,), (size, states))
    ]
    lengths = torch.tensor([6, 3, 1, 0, 5])

    def value(unary, transitions, start, end, solver="auto"):
        return viterbi(unary, transitions, start=start, end=end, lengths=lengths, solver=solver).value

    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)
    weight = torch.randn(size, dtype=torch.float64)
    grads = [
        torch.autograd.grad((weight * value(*leaves, solver=s)).sum(), leaves) for s in ("auto", "highs")
    ]
    for own, other in zip(*grads, strict=True):
        assert torch.allclose(own, other, atol=1e-12) and own.abs().sum() > 0
    found = viterbi(*leaves[:2], start=leaves[2], end=leaves[3], lengths=lengths)
    assert torch.equal(grads[0][0], weight[:, None, None] * found.indicator.detach())
    counts = found.transition_counts.detach()
    assert counts.sum() == sum(max(n - 1, 0) for n in lengths.tolist())
    if by_step:
        assert torch.equal(grads[0][1], weight[:, None, None, None] * counts)
    else:
        assert torch.allclose(grads[0][1], (weight[:, None, None] * counts).sum(0))
    by_lp = viterbi(*leaves[:2], start=leaves[2], end=leaves[3], lengths=lengths, solver="highs")
    assert torch.allclose(by_lp.indicator.detach(), found.indicator.detach(), atol=1e-12)
    assert torch.equal(by_lp.tags, found.tags)


def test_a_loop_over_time():
    torch.manual_seed(1)
    unary, transitions = torch.randn(16, 50, 20), torch.randn(20, 20)
    label, back = unary[:, 0].double(), []
    for t in range(1, 50):
        label, came = (label[:, :, None] + transitions.double()).max(1)
        label = label + unary[:, t].double()
        back.append(came)
    tags = [label.argmax(1)]
    for came in reversed(back):
        tags.append(came.gather(1, tags[-1][:, None])[:, 0])
    found = viterbi(unary, transitions)
    assert found.value.dtype == torch.float32
    assert torch.allclose(found.value.double(), label.max(1).values, rtol=1e-6)
    assert torch.equal(found.tags, torch.stack(tags[::-1], 1))
    assert found.evaluation.solver == "oracle" and found.solution is None


def test_what_the_lp_is_recognised_as():
    told = str(lpdiff.plan(ChainProblem(5, 3)))
    assert told.startswith("Plan: path,") and "acyclic" in told


def test_transitions_of_an_item():
    torch.manual_seed(2)
    unary, own = torch.randn(4, 6, 3), torch.randn(4, 1, 3, 3)
    found = viterbi(unary, own)
    for k in range(4):
        assert torch.equal(found.value[k], viterbi(unary[k], own[k, 0]).value)
    assert torch.equal(found.value, viterbi(unary, own.expand(4, 5, 3, 3)).value)
    assert found.transition_counts.shape == (4, 3, 3)


def test_small_sizes():
    square = torch.zeros(3, 3)
    none = viterbi(torch.zeros(2, 0, 3), square)
    assert none.value.tolist() == [0, 0] and none.tags.shape == (2, 0) and none.decode() == [[], []]
    assert viterbi(torch.zeros(2, 0, 3), square, solver="highs").value.tolist() == [0, 0]
    for solver in ("auto", "highs"):
        one = viterbi(torch.tensor([[1.0, 5.0, 2.0]]), square, start=torch.tensor([9.0, 0, 0]), solver=solver)
        assert float(one.value) == 10.0 and one.decode() == [0]
    single = viterbi(torch.ones(4, 7, 1), torch.ones(1, 1))
    assert single.value.tolist() == [13.0] * 4
    empty = viterbi(torch.zeros(0, 5, 3), square)
    assert empty.value.shape == (0,) and empty.tags.shape == (0, 5) and empty.decode() == []
    assert viterbi(np.ones((2, 3, 2)), np.zeros((2, 2))).value.tolist() == [3.0, 3.0]


def test_batches_dtypes_and_strides():
    torch.manual_seed(3)
    unary, square = torch.randn(9, 5, 2, 4), torch.randn(9, 9)
    turned = unary.permute(2, 3, 1, 0)  # (2, 4, 5, 9), not contiguous
    found = viterbi(turned, square, lengths=torch.tensor([5, 4, 0, 1]))
    assert found.value.shape == (2, 4) and found.tags.shape == (2, 4, 5) and len(found.decode()[1]) == 4
    mask = torch.arange(5) < torch.tensor([5, 4, 0, 1])[:, None]
    again = viterbi(turned.contiguous().double(), square.double(), lengths=mask)
    assert torch.equal(found.tags, again.tags) and torch.allclose(found.value.double(), again.value)
    half = viterbi(turned.half(), square.half())
    assert half.value.dtype == torch.float16 and half.indicator.dtype == torch.float16


def test_forbidden_sequences_and_scores_that_are_none():
    unary, square = torch.zeros(3, 4, 2), torch.zeros(2, 2)
    unary[1, 2] = -torch.inf
    with pytest.raises(SolveError, match=r"(?s)item 1.*forbid every sequence") as caught:
        viterbi(unary, square)
    assert caught.value.items == [(1,)] and caught.value.statuses == [Status.INFEASIBLE]
    unary[2, 3, 1] = torch.nan
    unary.requires_grad_()
    for solver in ("auto", "highs"):
        found = viterbi(unary, square, throw=False, solver=solver)
        assert found.status.tolist() == [Status.OPTIMAL, Status.INFEASIBLE, Status.INVALID]
        assert found.value[1] == -torch.inf and torch.isnan(found.value[2])
        assert found.decode()[1:] == [[], []]
        (grad,) = torch.autograd.grad(found.value[found.ok].sum(), unary)
        assert grad[0].sum() == 4 and (grad[1:] == 0).all()
    assert viterbi(unary, square, lengths=[4, 2, 3]).ok.all()  # what lies behind the end is not read
    assert viterbi(unary, square, lengths=[4, 2, 3], solver="highs").ok.all()


def test_the_indicator_refuses_gradients():
    unary = torch.randn(2, 4, 3, requires_grad=True)
    found = viterbi(unary, torch.zeros(3, 3))
    with pytest.raises(lpdiff.UnsupportedError, match="gradient="):
        found.indicator.square().sum().backward()
    target = torch.randn(2, 4, 3)
    ruled = viterbi(unary, torch.zeros(3, 3), gradient=lpdiff.gradients.Interpolation(5.0))
    (ruled.indicator * target).sum().backward()
    assert unary.grad.abs().sum() > 0 and torch.equal(ruled.tags, found.tags)


def test_modules():
    torch.manual_seed(4)
    unary = torch.randn(3, 6, 4)
    module = Viterbi(start=nn.Parameter(torch.randn(4)), end=torch.zeros(4))
    for copied in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(
            copied(unary, torch.eye(4)).value, viterbi(unary, torch.eye(4), start=module.start).value
        )
    module(unary, torch.eye(4)).value.sum().backward()
    assert module.start.grad.sum() == 3 and [name for name, _ in module.named_buffers()] == ["end"]
    with pytest.raises(TypeError, match="no option 'begin'"):
        Viterbi(begin=torch.zeros(4))


def test_bad_input_is_named():
    unary, square = torch.zeros(3, 4, 2), torch.zeros(2, 2)
    for call, told in (
        (lambda: viterbi(torch.zeros(4), square), "expected .*batch, T, S., got"),
        (lambda: viterbi(torch.zeros(3, 4, 0), square), "has no states"),
        (lambda: viterbi(unary, torch.zeros(3, 3)), r"transitions: expected \(2, 2\)"),
        (lambda: viterbi(unary, torch.zeros(4, 2, 2)), r"\(\*batch, 3, 2, 2\)"),
        (lambda: viterbi(unary, square, start=torch.zeros(3)), "start: expected shape"),
        (lambda: viterbi(unary, square, lengths=[4, 5, 0]), "item 1 has length 5, expected 0 to 4"),
        (lambda: viterbi(unary, square, lengths=[4, 4]), "expected lengths of shape"),
    ):
        with pytest.raises(ValueError, match=told):
            call()
