"""Monotonic alignment search and CTC's best path: against their LPs under HiGHS, and enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.problems.monotonic import (
    CTCAlignment,
    MonotonicAlignment,
    ctc_alignment,
    monotonic_alignment,
)

F64 = torch.float64


def random_lengths(T, S, size, seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, min(S, T) + 1, size)
    return rng.integers(tokens, T + 1), tokens


@pytest.mark.parametrize(("T", "S"), [(1, 1), (5, 1), (4, 4), (7, 3)])
def test_search_as_its_lp_and_by_enumeration(T, S):
    g = torch.Generator().manual_seed(T)
    costs = torch.randint(-2, 4, (60, T, S), generator=g).to(F64).requires_grad_()
    lengths = random_lengths(T, S, 60, T)
    found = [monotonic_alignment(costs, lengths=lengths, solver=s) for s in ("auto", "highs")]
    assert [f.evaluation.solver for f in found] == ["oracle", "highs"]
    assert torch.allclose(found[0].value, found[1].value)
    for f in found:
        (gradient,) = torch.autograd.grad(f.value.sum(), costs)
        assert torch.allclose((gradient * costs).sum((1, 2)), f.value)
        assert torch.allclose(gradient.sum((1, 2)), torch.from_numpy(lengths[0]).to(F64))
    values = found[0].value.detach().numpy()
    table = costs.detach().numpy()
    for k in range(60):
        frames, tokens = lengths[0][k], lengths[1][k]
        best = min(
            sum(table[k, t, np.searchsorted(cuts, t, side="right")] for t in range(frames))
            for cuts in itertools.combinations(range(1, frames), tokens - 1)
        )
        assert values[k] == pytest.approx(best)
        labels = found[0].labels[k]
        assert (labels[:frames].diff() >= 0).all() and (labels[:frames].diff() <= 1).all()
        assert labels[0] == 0 and labels[frames - 1] == tokens - 1
        assert (labels[frames:] == -1).all()


def collapse(path, blank):
    merged = [label for label, _ in itertools.groupby(path)]
    return tuple(label for label in merged if label != blank)


@pytest.mark.parametrize("blank", [0, 2])
def test_ctc_as_its_lp_and_by_enumeration(blank):
    T, V, batch = 5, 3, 40
    g = torch.Generator().manual_seed(blank)
    log_probs = torch.randn(batch, T, V, generator=g, dtype=F64).log_softmax(-1).requires_grad_()
    rng = np.random.default_rng(blank)
    targets = rng.choice([label for label in range(V) if label != blank], (batch, 3))
    tokens = rng.integers(0, 4, batch)
    same = (targets[:, 1:] == targets[:, :-1]) & (np.arange(1, 3) < tokens[:, None])
    repeats = same.sum(1)
    frames = rng.integers(np.maximum(tokens + repeats, 1), T + 1)
    found = [
        ctc_alignment(log_probs, targets, lengths=(frames, tokens), blank=blank, solver=solver)
        for solver in ("auto", "highs")
    ]
    assert [f.evaluation.solver for f in found] == ["oracle", "highs"]
    a, b = (torch.autograd.grad(f.value.sum(), log_probs)[0] for f in found)
    assert torch.allclose(a, b)  # generic numbers: one best path
    assert torch.equal(found[0].labels, found[1].labels)
    table = log_probs.detach().numpy()
    for k in range(batch):
        wanted = tuple(targets[k, : tokens[k]])
        best = min(
            -sum(table[k, t, label] for t, label in enumerate(path))
            for path in itertools.product(range(V), repeat=int(frames[k]))
            if collapse(path, blank) == wanted
        )
        assert found[0].value[k].item() == pytest.approx(best)
        assert collapse(found[0].decode()[k].tolist(), blank) == wanted


def test_ctc_bounds_torch_ctc_loss():
    """CTC's own loss sums over all paths, so it is at most ours; equal where one path is all there is."""
    log_probs = torch.randn(8, 12, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    targets = torch.randint(1, 5, (8, 4), generator=torch.Generator().manual_seed(1))
    frames, tokens = torch.full((8,), 12), torch.tensor([4, 3, 2, 1, 4, 3, 2, 0])
    ours = ctc_alignment(log_probs, targets, lengths=(frames, tokens)).value
    theirs = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), targets, frames, tokens, reduction="none"
    )
    assert (ours >= theirs - 1e-4).all()
    assert ours[-1] == pytest.approx(float(theirs[-1]), rel=1e-5)  # no tokens: blanks only
    assert (ours[:-1] > theirs[:-1] + 0.01).all()


def test_types_modules_and_padding():
    costs = torch.rand(2, 3, 8, 4)
    lengths = (torch.tensor([8, 6, 4]), torch.tensor([4, 2, 4]))
    found = MonotonicAlignment()(costs, lengths=lengths)
    assert found.value.shape == (2, 3)
    assert found.labels.shape == (2, 3, 8)
    spoilt = costs.clone()
    spoilt[:, 1, 6:], spoilt[:, 1, :, 2:] = torch.nan, torch.nan
    assert torch.equal(monotonic_alignment(spoilt, lengths=lengths).value, found.value)
    log_probs = torch.rand(3, 6, 5).log_softmax(-1)
    targets = torch.tensor([[1, 2, -7], [1, 1, 3], [-7, -7, -7]])
    for solver in ("auto", "highs"):
        found = CTCAlignment(solver=solver)(log_probs, targets, lengths=(None, [2, 3, 0]))
        assert found.value.dtype == torch.float32
        assert (found.labels[2] == 0).all()
    spoilt = log_probs.clone()
    spoilt[0, :, 4] = torch.nan  # a label that item 0 cannot take
    assert torch.equal(ctc_alignment(spoilt, targets, lengths=(None, [2, 3, 0])).value, found.value)


def test_bad_input():
    with pytest.raises(ValueError, match=r"item 1 has 2 frames for 3 tokens"):
        monotonic_alignment(torch.rand(2, 4, 3), lengths=([4, 2], [3, 3]))
    log_probs = torch.rand(2, 4, 3).log_softmax(-1)
    with pytest.raises(ValueError, match=r"item 0 has 4 frames for 5 tokens, with a blank between"):
        ctc_alignment(log_probs, torch.tensor([[1, 1, 1], [1, 2, 1]]))
    with pytest.raises(ValueError, match=r"item 1 has label 0 at place 2.*other than the blank 0"):
        ctc_alignment(log_probs, torch.tensor([[1, 2, 1], [1, 2, 0]]))
    with pytest.raises(ValueError, match=r"label 3 at place 0, expected labels of 0 to 2"):
        ctc_alignment(log_probs, torch.tensor([[3, 2, 1], [1, 2, 1]]))
    with pytest.raises(ValueError, match=r"blank: expected a label of 0 to 2, got 3"):
        ctc_alignment(log_probs, torch.tensor([[1, 2]]), blank=3)
    with pytest.raises(ValueError, match="targets: expected integers"):
        ctc_alignment(log_probs, torch.rand(2, 2))
    with pytest.raises(ValueError, match=r"log_probs: expected shape \(\*batch, T, V\)"):
        ctc_alignment(torch.rand(3), torch.tensor([1]))
    log_probs[1] = -torch.inf
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 1.*forbidden"):
        ctc_alignment(log_probs, torch.tensor([1, 2]))
    log_probs[1, 2, 0] = torch.nan
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 1.*costs\[2, 0\] is nan"):
        ctc_alignment(log_probs, torch.tensor([1, 2]))
