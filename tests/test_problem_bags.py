"""The weakly supervised matching loss against enumeration, HiGHS on the same LP, SciPy, and differences."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import lpdiff
from lpdiff.kernels import bags as kernel
from lpdiff.problems.bags import BagMatching, bag_matching

DOUBLE = torch.float64


def logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=DOUBLE, generator=generator).requires_grad_()


def scipy_value(log_probs, labels, unlabelled=None):
    costs = -log_probs[:, labels]
    spare = len(costs) - len(labels)
    if spare:
        costs = np.hstack([costs, np.repeat(unlabelled[:, None], spare, 1)])
    rows, columns = linear_sum_assignment(costs)
    return costs[rows, columns].sum()


@pytest.mark.parametrize("seed", range(2))
def test_enumeration(seed):
    rng = np.random.default_rng(seed)
    for n, classes in ((1, 1), (3, 2), (4, 3), (4, 5)):
        log_probs = rng.integers(-4, 1, (40, n, classes)).astype(float)  # ties
        log_probs[rng.random(log_probs.shape) < 0.2] = -np.inf
        labels = rng.integers(0, classes, (40, n))
        found = bag_matching(log_probs, labels=labels, throw=False)
        for bag in range(40):
            orders = np.array(list(itertools.permutations(labels[bag])))
            best = (-log_probs[bag][np.arange(n), orders]).sum(1).min()
            assert found.value[bag] == pytest.approx(best)
            assert bool(found.ok[bag]) == np.isfinite(best)
            if np.isfinite(best):
                mine = found.labels[bag].numpy()
                np.testing.assert_array_equal(np.sort(mine), np.sort(labels[bag]))
                assert -log_probs[bag][np.arange(n), mine].sum() == pytest.approx(best)


def test_hundreds_beside_scipy():
    rng = np.random.default_rng(2)
    for n, classes in ((8, 10), (16, 4), (5, 40)):
        log_probs = logits(100, n, classes).log_softmax(-1)
        labels = [rng.integers(0, classes, rng.integers(0, n + 1)).tolist() for _ in range(100)]
        free = torch.rand(100, n, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
        found = bag_matching(log_probs, labels=labels, unlabelled=free)
        expected = [
            scipy_value(p, held, u)
            for p, held, u in zip(log_probs.detach().numpy(), labels, free.numpy(), strict=True)
        ]
        np.testing.assert_allclose(found.value.detach(), expected, rtol=1e-12)
        given = [sorted(held[held >= 0].tolist()) for held in found.decode()]
        assert given == [sorted(held) for held in labels]


LABELS = [[3, 3, 0, 1, 2], [0, 0, 0], [1, 2], [], [3, 0, 1, 1], [2]]
ITEMS = [5, 3, 2, 0, 4, 1]
HOLES = torch.tensor(
    [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1], [0] * 5, [1, 1, 0, 1, 1], [0, 0, 1, 0, 0]]
).bool()
FREE = torch.rand(6, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "how",
    [
        {"items": ITEMS},
        {"items": HOLES},
        {"unlabelled": 0.7},
        {"unlabelled": FREE[:, 0]},
        {"unlabelled": FREE},
        {"unlabelled": FREE, "items": [5, 4, 3, 2, 4, 5]},
    ],
    ids=["lengths", "mask", "number", "each bag", "each item", "some items"],
)
def test_the_lp_says_the_same(how):
    scores = logits(6, 5, 4, seed=4)
    log_probs = scores.log_softmax(-1)
    mine = bag_matching(log_probs, labels=LABELS, **how)
    assert mine.solution is None and mine.ok.all()
    (grad,) = torch.autograd.grad(mine.loss, scores, retain_graph=True)
    for more in ({"solver": "highs"}, {"gradient": "lpgd"}):
        other = bag_matching(log_probs, labels=LABELS, **how, **more)
        assert other.solution is not None
        torch.testing.assert_close(mine.value, other.value)
        torch.testing.assert_close(mine.loss, other.loss)
        assert torch.equal(mine.labels, other.labels)
        torch.testing.assert_close(grad, torch.autograd.grad(other.loss, scores, retain_graph=True)[0])
        torch.testing.assert_close(mine.indicator.detach(), other.indicator.detach())
    counts = mine.indicator.sum(1).detach()
    assert counts.tolist() == [[held.count(k) for k in range(4)] for held in LABELS]
    assert [len(part) for part in mine.decode()] == (
        how["items"] if isinstance(how.get("items"), list) else [5] * 6 if "items" not in how else ITEMS
    )


def test_known_labels_make_it_cross_entropy():
    """A bag of one kind, or of one item, leaves nothing to match."""
    scores, target = logits(7, 4, 10), torch.arange(7)
    found = bag_matching(scores.log_softmax(-1), labels=[[k] * 4 for k in range(7)])
    expected = torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.repeat_interleave(4))
    torch.testing.assert_close(found.loss, expected)
    for mine, theirs in zip(
        torch.autograd.grad(found.loss, scores), torch.autograd.grad(expected, scores), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_labels_in_any_form():
    log_probs = logits(6, 5, 4).log_softmax(-1).detach()
    padded = torch.full((6, 7), -1)
    counts = torch.zeros(6, 4, dtype=torch.int32)
    for bag, held in enumerate(LABELS):
        padded[bag, 1 : 1 + len(held)] = torch.tensor(held, dtype=torch.int64)
        for label in held:
            counts[bag, label] += 1
    value = bag_matching(log_probs, labels=LABELS, items=ITEMS).value
    forms = {
        "labels": (padded, padded.numpy(), padded.to(torch.int8), [torch.tensor(h).long() for h in LABELS]),
        "counts": (counts, counts.numpy(), counts.tolist()),
    }
    for name, many in forms.items():
        for form in many:
            assert torch.equal(bag_matching(log_probs, **{name: form}, items=ITEMS).value, value)
    nested = bag_matching(
        log_probs.view(2, 3, 5, 4), labels=[LABELS[:3], LABELS[3:]], items=[ITEMS[:3], ITEMS[3:]]
    )
    assert torch.equal(nested.value, value.view(2, 3)) and len(nested.decode()[1]) == 3
    single = bag_matching(log_probs[0], labels=LABELS[0])
    assert torch.equal(single.value, value[0]) and single.decode().shape == (5,)


def test_reductions():
    log_probs = logits(6, 5, 4).log_softmax(-1)

    def loss(reduction):
        return bag_matching(log_probs, labels=LABELS, items=ITEMS, reduction=reduction).loss

    value = bag_matching(log_probs, labels=LABELS, items=ITEMS).value
    torch.testing.assert_close(loss("none"), value)
    torch.testing.assert_close(loss("sum"), value.sum())
    torch.testing.assert_close(loss("bags"), value.mean())
    torch.testing.assert_close(loss("mean"), value.sum() / sum(ITEMS))
    nothing = bag_matching(log_probs[:0], labels=[])
    assert nothing.loss == 0.0 and nothing.value.shape == (0,)


def test_gradients_by_differences():
    scores, free = logits(6, 5, 4), FREE.clone().requires_grad_()

    def loss(scores, free):
        return bag_matching(scores.log_softmax(-1), labels=LABELS, unlabelled=free).value

    assert torch.autograd.gradcheck(loss, (scores, free))
    assert torch.autograd.gradcheck(
        lambda p, u: bag_matching(p, labels=LABELS, unlabelled=u, items=[5, 4, 3, 2, 4, 5]).value,
        (scores, free[:, 0].detach().requires_grad_()),
    )
    few = logits(2, 3, 2)
    assert torch.autograd.gradgradcheck(
        lambda scores: bag_matching(scores.log_softmax(-1), labels=[[0, 1, 1], [0, 0, 1]]).value, (few,)
    )


def test_memory_layouts_and_dtypes():
    log_probs = logits(6, 5, 4).log_softmax(-1).detach()
    value = bag_matching(log_probs, labels=LABELS, items=ITEMS).value
    turned = log_probs.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(bag_matching(turned, labels=LABELS, items=ITEMS).value, value)
    for dtype in (torch.float16, torch.float32):
        low = log_probs.to(dtype).requires_grad_()
        found = bag_matching(low, labels=LABELS, items=ITEMS)
        (grad,) = torch.autograd.grad(found.loss, low)
        assert found.value.dtype == found.loss.dtype == grad.dtype == found.indicator.dtype == dtype
        torch.testing.assert_close(found.value.double(), value, rtol=1e-2, atol=1e-2)
    spoilt = log_probs.clone()
    spoilt[1, 3:] = torch.nan  # no items of that bag
    spoilt[1, :, 1:] = torch.nan  # no classes of it
    spoilt.requires_grad_()
    for more in ({}, {"solver": "highs"}):
        found = bag_matching(spoilt, labels=LABELS, items=ITEMS, **more)
        torch.testing.assert_close(found.value.detach(), value)
        assert torch.isfinite(torch.autograd.grad(found.loss, spoilt)[0]).all()


def test_a_refused_bag_is_solved_as_an_lp(monkeypatch):
    log_probs, free = logits(6, 5, 4), FREE.clone().requires_grad_()
    expected = bag_matching(log_probs, labels=LABELS, unlabelled=free)

    def refusing(*args, **kwargs):
        found = label(*args, **kwargs)
        found.status[::2] = lpdiff.Status.INACCURATE
        found.value[::2], found.weight[::2], found.places[::2], found.left[::2] = 7.0, 0.0, 0, 0.0
        return found

    label = kernel.label
    monkeypatch.setattr(kernel, "label", refusing)
    found = bag_matching(log_probs, labels=LABELS, unlabelled=free)
    torch.testing.assert_close(found.value, expected.value)
    assert torch.equal(found.labels, expected.labels)
    both = [torch.autograd.grad(f.value.sum(), (log_probs, free)) for f in (found, expected)]
    for mine, theirs in zip(*both, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_module_learns():
    """Two kinds of points, of which only the numbers in each bag are known."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.rand(40, 6, generator=generator) < 0.5
    points = torch.where(kind, 1.5, -1.5)[..., None] + torch.randn(40, 6, 2, generator=generator)
    model = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(model.weight)
    criterion = BagMatching(reduction="mean", threads=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(30):
        optimiser.zero_grad()
        criterion(model(points).log_softmax(-1), labels=kind.long()).loss.backward()
        optimiser.step()
    assert (model(points).argmax(-1) == kind).float().mean() > 0.9
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert other.options == criterion.options
    with pytest.raises(TypeError, match="no option 'weight'"):
        BagMatching(weight=1)


def test_what_is_wrong_is_told():
    log_probs = logits(3, 4, 5).log_softmax(-1)
    for how, told in (
        ({"labels": [[0] * 4, [1] * 5, [2] * 4]}, "bag 1 holds 5 labels, but has only 4 items"),
        ({"labels": [[0] * 4, [1] * 4, [2] * 4], "items": [4, 4, 3]}, "bag 2 holds 4 labels, but has only 3"),
        ({"labels": [[0] * 4, [1] * 4, [2]]}, "bag 2 holds 1 labels for 4 items: say which .* unlabelled="),
        ({"labels": [[0] * 4, [5] * 4, [2]]}, "labels: bag 1 holds label 5, expected classes 0 to 4"),
        ({"labels": [[0] * 4, [-1] * 4, [2]]}, "labels: bag 1 holds label -1"),
        ({"labels": torch.tensor([[0, 0], [0, 7], [1, -1]])}, "labels: bag 1 holds label 7"),
        ({"labels": torch.tensor([[0, 0], [0, 1], [1, -2]])}, "labels: bag 2 holds label -2"),
        ({"labels": [[0] * 4, [1.5], [2]]}, "labels: bag 1 holds 1.5, expected integers"),
        ({"labels": [0, 1, 2]}, "labels: expected a list of labels for bag 0, got 0"),
        ({"labels": torch.zeros(3, 4)}, "labels: expected integers"),
        (
            {"counts": torch.tensor([[1, 1, 1, 1, 0], [4, 0, 0, 1, -1], [4, 0, 0, 0, 0]])},
            "counts: bag 1 holds -1 of class 4",
        ),
        ({"counts": torch.zeros(3, 5)}, "counts: expected integers"),
        ({"counts": torch.zeros(3, 4, dtype=torch.int64)}, r"counts: expected shape \(\*batch, 5\)"),
        ({}, "give either counts"),
        ({"labels": [[0] * 4] * 3, "reduction": "max"}, "reduction: expected one of"),
        ({"labels": [[0] * 4] * 3, "items": [4, 5, 4]}, "items: item 1 has length 5, expected 0 to 4"),
        ({"labels": [[0]] * 3, "unlabelled": torch.zeros(3, 2)}, "unlabelled: expected a number"),
        ({"labels": [[0] * 4] * 2}, "do not broadcast"),
    ):
        with pytest.raises(ValueError, match=told):
            bag_matching(log_probs, **how)
    with pytest.raises(ValueError, match="log_probs: expected shape"):
        bag_matching(torch.zeros(3), labels=[0])
    with pytest.raises(ValueError, match=r"bag \(1, 0\) holds"):
        bag_matching(log_probs[:2, None], labels=[[[0] * 4], [[0] * 3]])
    bad = log_probs.detach().clone()
    bad[1, 2, 3] = torch.nan
    labels = [[0, 1, 2, 3]] * 3
    with pytest.raises(lpdiff.SolveError, match=r"item 1[\s\S]*log_probs of item 2 and class 3 is nan"):
        bag_matching(bad, labels=labels)
    assert bag_matching(bad, labels=[[0, 1, 2, 2]] * 3).ok.all()
    bad[1, :, 3] = -torch.inf
    with pytest.raises(lpdiff.SolveError, match="above -inf do not allow these labels"):
        bag_matching(bad, labels=labels)
    found = bag_matching(bad, labels=labels, throw=False)
    assert found.value[1] == torch.inf and (found.labels[1] == -1).all()
    with pytest.raises(lpdiff.SolveError, match="what an item without a label costs is NaN"):
        bag_matching(log_probs, labels=[[0]] * 3, unlabelled=torch.tensor(torch.nan))
