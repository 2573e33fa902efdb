"""Set prediction's matching against the per-image loop of reference code; permutation invariant losses."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import lpdiff
from lpdiff.problems.sets import PermutationInvariant, SetMatcher, permutation_invariant, set_matching

SIZES = [3, 9, 0, 5]
LAYERS, QUERIES = 3, 12


def concatenated(seed=0, dtype=torch.float32, grad=True):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LAYERS, 4, QUERIES, sum(SIZES), generator=generator, dtype=dtype).requires_grad_(grad)


def padded_of(costs, fill):
    padded = torch.full((LAYERS, 4, QUERIES, max(SIZES)), fill, dtype=costs.dtype)
    for image, part in enumerate(costs.detach().split(SIZES, -1)):
        padded[:, image, :, : SIZES[image]] = part[:, image]
    return padded.requires_grad_()


def reference(costs):
    """As the code of the papers does it, image by image."""
    found = []
    for layer in costs.detach():
        parts = layer.split(SIZES, -1)
        pairs = [linear_sum_assignment(part[image]) for image, part in enumerate(parts)]
        found.append([tuple(torch.as_tensor(side, dtype=torch.int64) for side in pair) for pair in pairs])
    return found


def assert_same_indices(mine, theirs):
    assert len(mine) == len(theirs)
    for own, other in zip(mine, theirs, strict=True):
        assert len(own) == len(other)
        for one, two in zip(own, other, strict=True):
            assert isinstance(one, tuple) and len(one) == 2
            for side, expected in zip(one, two, strict=True):
                assert side.dtype == torch.int64 and torch.equal(side, expected)


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 0.0])
def test_all_layers_and_images_at_once(fill):
    costs = concatenated()
    padded = padded_of(costs, fill)
    mask = torch.arange(max(SIZES)) < torch.tensor(SIZES)[:, None]
    expected = reference(costs)
    ways = [
        (costs, {"sizes": SIZES}),
        (costs, {"sizes": torch.tensor(SIZES)}),
        (padded, {"targets": SIZES}),
        (padded, {"targets": mask}),
        (padded, {"targets": torch.tensor([SIZES] * LAYERS)}),
    ]
    for given, how in ways:
        found = set_matching(given, **how)
        assert_same_indices(found.indices, expected)
        assert found.value.shape == (LAYERS, 4) and found.costs.shape[:2] == (LAYERS, 4)
        torch.testing.assert_close(found.costs.sum(-1), found.value)
        (grad,) = torch.autograd.grad(found.value.sum(), given, retain_graph=True)
        (through_costs,) = torch.autograd.grad(found.costs.sum(), given)
        assert torch.equal(grad, through_costs) and grad.sum() == LAYERS * sum(SIZES)
        for layer, images in enumerate(expected):
            for image, (query, target) in enumerate(images):
                first = 0 if how.keys() == {"targets"} else sum(SIZES[:image])
                assert (grad[layer, image, query, first + target] == 1.0).all()
        # The flat form picks the same.
        layer, image, query, target = found.chosen
        assert len(layer) == LAYERS * sum(SIZES)
        for one, two in zip(found.chosen, _flat(expected), strict=True):
            assert torch.equal(one, two)
        lp = set_matching(given, solver="highs", **how)
        torch.testing.assert_close(lp.value, found.value)
        assert_same_indices(lp.indices, expected)


def _flat(expected):
    parts = [
        (torch.full_like(query, layer), torch.full_like(query, image), query, target)
        for layer, images in enumerate(expected)
        for image, (query, target) in enumerate(images)
    ]
    return [torch.cat(side) for side in zip(*parts, strict=True)]


def test_one_layer_and_one_image():
    costs = concatenated()
    found = set_matching(costs[0], sizes=SIZES)
    assert_same_indices([found.indices], reference(costs)[:1])
    alone = set_matching(costs[0, 1, :, 3:12])
    query, target = alone.indices
    assert torch.equal(query, found.indices[1][0]) and torch.equal(target, found.indices[1][1])
    assert torch.equal(alone.chosen[0], query)
    assert set_matching(costs[:, :0, :, :0], sizes=[]).indices == [[], [], []]
    assert set_matching(costs[:0], sizes=SIZES).indices == []
    assert [len(q) for q, _ in set_matching(torch.zeros(2, 5, 0)).indices] == [0, 0]


def test_hundreds_of_images_of_any_kind():
    rng = np.random.default_rng(0)
    costs = rng.random((60, 5, 40, 11)).astype(np.float32)
    costs[30:] = rng.integers(0, 3, costs[30:].shape)  # ties: the pairs may differ, their cost may not
    costs[rng.random(costs.shape) < 0.1] = np.inf
    sizes, queries = rng.integers(0, 12, 5), rng.random((60, 5, 40)) < 0.6
    found = set_matching(torch.from_numpy(costs), targets=sizes, queries=queries)
    for layer, images in enumerate(found.indices):
        for image, (query, target) in enumerate(images):
            part = costs[layer, image][queries[layer, image]][:, : sizes[image]]
            rows, columns = linear_sum_assignment(part)
            assert found.value[layer, image] == pytest.approx(part[rows, columns].sum(), rel=1e-6)
            assert (query.diff() > 0).all() and sorted(target.tolist()) == list(range(sizes[image]))
            picked = costs[layer, image][query.numpy(), target.numpy()]
            torch.testing.assert_close(found.costs[layer, image, : len(query)], torch.from_numpy(picked))
            if layer < 30:
                there = np.flatnonzero(queries[layer, image])
                np.testing.assert_array_equal(query, there[rows])
                np.testing.assert_array_equal(target, columns)


def test_fewer_queries_than_targets():
    costs = torch.rand(4, 3, 8, generator=torch.Generator().manual_seed(0))
    for image, (query, target) in enumerate(set_matching(costs).indices):
        rows, columns = linear_sum_assignment(costs[image])
        np.testing.assert_array_equal(query, rows)
        np.testing.assert_array_equal(target, columns)


def test_matched_outputs_train():
    """The losses that follow the matching, in three lines."""
    generator = torch.Generator().manual_seed(1)
    boxes = torch.rand(LAYERS, 2, 10, 4, generator=generator).requires_grad_()
    wanted = torch.rand(2, 5, 4, generator=generator)
    costs = (boxes[..., :, None, :] - wanted[:, None]).abs().sum(-1)
    found = set_matching(costs, targets=[5, 3])
    layer, image, query, target = found.chosen
    loss = (boxes[layer, image, query] - wanted[image, target]).abs().sum()
    torch.testing.assert_close(loss, found.value.sum())
    for mine, theirs in zip(
        torch.autograd.grad(loss, boxes, retain_graph=True),
        torch.autograd.grad(found.value.sum(), boxes),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_module():
    costs = concatenated()
    matcher = SetMatcher(threads=1)
    expected = reference(costs)
    for one in (matcher, copy.deepcopy(matcher), pickle.loads(pickle.dumps(matcher))):
        assert_same_indices(one(costs, sizes=SIZES).indices, expected)
    with pytest.raises(TypeError, match="no option 'cost'"):
        SetMatcher(cost=1)


def test_what_is_wrong_is_told():
    costs = concatenated(grad=False)
    costs[2, 1, 7, 5] = torch.nan
    told = r"layer 2, image 1: invalid input\s+because \(layer 2, image 1\): the cost of query 7 and target 5"
    with pytest.raises(lpdiff.SolveError, match=told) as caught:
        set_matching(costs, sizes=SIZES)
    assert caught.value.items == [(2, 1)] and caught.value.statuses == [lpdiff.Status.INVALID]
    with pytest.raises(lpdiff.SolveError, match=r"^1 of 4[^\n]*\nimage 1: invalid input"):
        set_matching(costs[2], sizes=SIZES)
    found = set_matching(costs, sizes=SIZES, throw=False)
    assert int((~found.ok).sum()) == 1 and len(found.indices[2][1][0]) == 0
    costs[2, 1] = costs[0, 3] = torch.inf
    with pytest.raises(lpdiff.SolveError, match=r"layer 0, image 3, layer 2, image 1: infeasible"):
        set_matching(costs, sizes=SIZES)
    costs[2, 1], costs[0, 3] = 0.0, 0.0
    costs[0, 3, :, 14] = torch.inf
    with pytest.raises(lpdiff.SolveError, match="target 14 has no pair that is allowed"):
        set_matching(costs, sizes=SIZES)
    for how, told in (
        ({"sizes": [3, 9, 0, 4]}, "sizes: they sum to 16, but costs have 17 targets"),
        ({"sizes": [3, 9, 5]}, r"sizes: expected"),
        ({"sizes": [3, 9, -1, 6]}, "sizes: item 2 has length -1"),
        ({"sizes": SIZES, "targets": SIZES}, "sizes= says which targets"),
        ({"targets": [3, 18, 0, 5]}, "targets: item 1 has length 18, expected 0 to 17"),
        ({"queries": [3, 13, 0, 5]}, "queries: item 1 has length 13, expected 0 to 12"),
    ):
        with pytest.raises(ValueError, match=told):
            set_matching(costs, **how)
    with pytest.raises(ValueError, match="costs: expected shape"):
        set_matching(torch.zeros(3))


# -- in any order ------------------------------------------------------------------------------------------


def test_permutations_by_enumeration():
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 3, 4):
        losses = torch.rand(50, n, n, generator=generator, dtype=torch.float64)
        losses[25:] = (losses[25:] * 3).floor()
        orders = torch.tensor(list(itertools.permutations(range(n))))
        every = losses[:, torch.arange(n), orders]  # (50, orders, n)
        for reduction, best in (("mean", every.mean(-1).amin(-1)), ("sum", every.sum(-1).amin(-1))):
            found = permutation_invariant(losses, reduction=reduction)
            torch.testing.assert_close(found.value, best)
            rows = torch.arange(n).expand(50, n)
            chosen = losses.gather(-1, found.permutation[..., None])[..., 0]
            torch.testing.assert_close(getattr(chosen, reduction)(-1), best)
            assert torch.equal(found.permutation.sort(-1).values, rows)


def test_sources_in_any_order_cost_nothing():
    generator = torch.Generator().manual_seed(2)
    targets = torch.randn(6, 12, 30, generator=generator)  # 12! orders
    order = torch.rand(6, 12, generator=generator).argsort(-1)
    outputs = targets.gather(1, order[..., None].expand(-1, -1, 30)).requires_grad_()
    losses = (outputs[:, :, None] - targets[:, None]).square().mean(-1)
    found = PermutationInvariant()(losses)
    assert (found.value == 0).all() and torch.equal(found.permutation, order)
    assert torch.equal(found.permute(targets), outputs.detach())
    assert torch.equal(found.permute(targets[..., 0]), outputs[..., 0].detach())


def test_fewer_sources():
    losses = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spoilt = losses.clone()
    for item, size in enumerate((5, 3, 1, 0)):
        spoilt[item, size:], spoilt[item, :, size:] = torch.nan, torch.nan
    spoilt.requires_grad_()
    found = permutation_invariant(spoilt, lengths=[5, 3, 1, 0])
    expected = [permutation_invariant(losses[i, :k, :k]).value for i, k in enumerate((5, 3, 1, 0))]
    torch.testing.assert_close(found.value, torch.stack(expected))
    assert [len(order) for order in found.decode()] == [5, 3, 1, 0]
    (grad,) = torch.autograd.grad(found.value.sum(), spoilt)
    assert grad.sum() == pytest.approx(3.0) and torch.isfinite(grad).all()
    assert torch.equal(found.permute(torch.arange(5.0).expand(4, 5))[3], torch.arange(5.0))
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 0])[:, None]
    assert torch.equal(permutation_invariant(spoilt, lengths=mask).value, found.value)
    holes = torch.tensor([True, False, True, True, False])
    part = permutation_invariant(losses[:, holes][:, :, holes])
    torch.testing.assert_close(permutation_invariant(losses, lengths=holes).value, part.value)


def test_gradients_of_permutations_by_differences():
    losses = torch.rand(
        3, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: permutation_invariant(x).value, (losses,))
    assert torch.autograd.gradcheck(
        lambda x: permutation_invariant(x, lengths=[4, 2, 3], reduction="sum").value, (losses,)
    )


def test_losses_that_are_wrong():
    with pytest.raises(ValueError, match=r"losses: expected \(\*batch, n, n\)"):
        permutation_invariant(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'sum'"):
        permutation_invariant(torch.zeros(2, 3, 3), reduction="none")
    losses = torch.zeros(2, 3, 3)
    losses[1, 0, 2] = torch.nan
    with pytest.raises(lpdiff.SolveError, match="the cost of row 0 and column 2 is nan"):
        permutation_invariant(losses)
    assert permutation_invariant(losses, throw=False).ok.tolist() == [True, False]
