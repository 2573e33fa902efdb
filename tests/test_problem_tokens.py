"""Alignment of token distributions with tokens."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.problems.alignment import global_alignment
from lpdiff.problems.tokens import TokenAlignment, token_alignment

F64 = torch.float64


def predictions(batch, n, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, size, generator=g, dtype=F64).log_softmax(-1).requires_grad_()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("cost", ["expected", "nll", "substitution"])
@pytest.mark.parametrize(("m", "size"), [(4, 11), (9, 3)])  # gathered, and by name
def test_as_the_alignment_it_stands_for(m, size, cost, affine):
    log_probs = predictions(20, 6, size)
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.integers(0, size, (20, m)))
    lengths = rng.integers(0, 7, 20), rng.integers(0, m + 1, 20)
    substitution = torch.from_numpy(rng.random((size, size))) if cost == "substitution" else None
    # A column gap of its own each: equal tokens would tie.
    col_gap = torch.from_numpy(rng.random(m) * 0.2 + 0.3)
    how = {"gap": 0.4, "col_gap": col_gap, "lengths": lengths, **({"gap_open": 0.9} if affine else {})}
    probabilities = log_probs.exp()
    picked = targets[:, None, :].expand(20, 6, m)
    if cost == "nll":
        costs = -log_probs.gather(-1, picked)
    elif cost == "expected":
        costs = 1 - probabilities.gather(-1, picked)
    else:
        costs = (probabilities @ substitution).gather(-1, picked)
    meant = global_alignment(costs, **how)
    told = {"substitution": substitution} if cost == "substitution" else {"cost": cost}
    for solver in ("auto", "highs"):
        found = token_alignment(log_probs, targets, solver=solver, **told, **how)
        assert torch.allclose(found.value, meant.value)
        a, b = (torch.autograd.grad(f.value.sum(), log_probs, retain_graph=True)[0] for f in (found, meant))
        assert torch.allclose(a, b)
        assert torch.equal(found.row_to_column, meant.row_to_column)
        assert torch.equal(found.column_to_row, meant.column_to_row)
        assert torch.equal(found.gap_count, meant.gap_count)


def test_certain_predictions_give_the_edit_distance():
    distance = pytest.importorskip("rapidfuzz.distance")
    rng = np.random.default_rng(2)
    predicted, targets = rng.integers(0, 4, (100, 9)), rng.integers(0, 4, (100, 12))
    lengths = rng.integers(0, 10, 100), rng.integers(0, 13, 100)
    log_probs = torch.nn.functional.one_hot(torch.from_numpy(predicted), 4).float().log()
    value = token_alignment(log_probs, targets, lengths=lengths).value
    for k in range(100):
        words = (s[k, : length[k]].tolist() for s, length in zip((predicted, targets), lengths, strict=True))
        assert float(value[k]) == distance.Levenshtein.distance(*words)


def test_a_loss_in_three_lines():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 10, 30, generator=g, requires_grad=True)
    targets = torch.randint(0, 30, (8, 7), generator=g)
    lengths = (None, [7, 6, 5, 4, 3, 2, 1, 0])
    value = TokenAlignment(gap=0.7)(logits.log_softmax(-1), targets, lengths=lengths).value
    value.mean().backward()
    assert logits.grad.abs().sum((1, 2)).ne(0).tolist() == [True] * 7 + [False]
    layer = pickle.loads(pickle.dumps(TokenAlignment(gap=0.7)))
    assert torch.equal(layer(logits.log_softmax(-1)[:1], targets[:1, :7]).value, value[:1])
    shared = token_alignment(logits.log_softmax(-1), targets[0])
    assert shared.value.shape == (8,)
    # Descent on it works: the predictions come to spell the targets.
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = token_alignment(logits.log_softmax(-1), targets).value.mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 3.1  # ten predictions for seven targets: three gaps at least


def test_bad_input():
    log_probs = torch.rand(3, 5, 4).log_softmax(-1)
    with pytest.raises(ValueError, match=r"item 2 has label 4 at place 1, expected labels of 0 to 3"):
        token_alignment(log_probs, torch.tensor([[0, 1], [2, 3], [3, 4]]))
    with pytest.raises(ValueError, match=r"tokens: item 0 has length 3, expected 0 to 2"):
        token_alignment(log_probs, torch.tensor([[0, 1]] * 3), lengths=(None, [3, 1, 1]))
    with pytest.raises(ValueError, match="cost: expected 'expected' or 'nll'"):
        token_alignment(log_probs, torch.tensor([0, 1]), cost="mse")
    with pytest.raises(ValueError, match=r"substitution: expected shape \(4, 4\)"):
        token_alignment(log_probs, torch.tensor([0, 1]), substitution=torch.rand(3, 4))
    with pytest.raises(ValueError, match="substitution belongs to"):
        token_alignment(log_probs, torch.tensor([0, 1]), substitution=torch.rand(4, 4), cost="nll")
    with pytest.raises(ValueError, match="targets: expected integers"):
        token_alignment(log_probs, torch.rand(3, 2))
    with pytest.raises(ValueError, match="log_probs: expected numbers of shape"):
        token_alignment(torch.rand(3), torch.tensor([1]))
    log_probs[1, 2] = torch.nan
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 1.*is nan"):
        token_alignment(log_probs, torch.tensor([0, 1]))
