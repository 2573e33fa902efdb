"""Losses over a pool of solutions, against plain loops over permutations."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff import problems
from lpdiff.losses import perceptron
from lpdiff.losses.pool import SolutionPool
from lpdiff.losses.ranking import (
    NCE,
    ContrastiveMAP,
    Listwise,
    Pairwise,
    Pointwise,
    contrastive_map,
    listwise,
    nce,
    pairwise,
    pointwise,
)

SIZE = 3
PERMUTATIONS = np.stack([np.eye(SIZE)[list(p)].ravel() for p in itertools.permutations(range(SIZE))])


def assignment(sense="min"):
    both = np.vstack([np.kron(np.eye(SIZE), np.ones(SIZE)), np.kron(np.ones(SIZE), np.eye(SIZE))])
    return lpdiff.LinearProgram(A_eq=both, b_eq=np.ones(2 * SIZE), sense=sense)


def pool_of(rows, sense="min", **options):
    pool = SolutionPool(assignment(sense), **options)
    pool.add(torch.as_tensor(rows))
    return pool


def batch(*shape, seed=0, dtype=torch.float64):
    """Predicted costs, true costs and their optimal permutations."""
    rng = np.random.default_rng(seed)
    predicted, true = rng.normal(size=(2, *shape, SIZE**2))
    target = PERMUTATIONS[(true @ PERMUTATIONS.T).argmin(-1)]
    return tuple(torch.tensor(a, dtype=dtype) for a in (predicted, true, target))


# Each loss on predicted and true costs and a target, and the same for one item in plain NumPy.


def _nce(p, c, w, rows):
    return np.mean([p @ (w - s) for s in rows])


def _nce_moved(p, c, w, rows):
    return np.mean([(p - c) @ (w - s) for s in rows])


def _map(p, c, w, rows):
    return p @ w - min(p @ s for s in rows)


def _map_moved(p, c, w, rows):
    return (p - c) @ (w - min(rows, key=lambda s: p @ s))


def _listwise(p, c, w, rows, t=0.7):
    share = np.exp([-(c @ s) / t for s in rows])
    guess = np.exp([-(p @ s) / t for s in rows])
    return -(share / share.sum()) @ np.log(guess / guess.sum())


def _pairwise(p, c, w, rows, margin=0.3):
    best = min(rows, key=lambda s: c @ s)
    return np.mean([max(0.0, margin + p @ best - p @ s) for s in rows if c @ s > c @ best])


def _pointwise(p, c, w, rows):
    return np.mean([(p @ s - c @ s) ** 2 for s in rows])


LOSSES = {
    "nce": (lambda pool, p, c, w, **k: nce(pool, p, w, **k), _nce),
    "nce, c^ - c": (lambda pool, p, c, w, **k: nce(pool, p, w, c, **k), _nce_moved),
    "map": (lambda pool, p, c, w, **k: contrastive_map(pool, p, w, **k), _map),
    "map, c^ - c": (lambda pool, p, c, w, **k: contrastive_map(pool, p, w, c, **k), _map_moved),
    "listwise": (lambda pool, p, c, w, **k: listwise(pool, p, c, temperature=0.7, **k), _listwise),
    "pairwise": (lambda pool, p, c, w, **k: pairwise(pool, p, c, margin=0.3, **k), _pairwise),
    "pointwise": (lambda pool, p, c, w, **k: pointwise(pool, p, c, **k), _pointwise),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


# -- the pool ----------------------------------------------------------------------------------------------


def test_a_pool_keeps_distinct_solutions_in_order():
    pool = SolutionPool(assignment(), tolerance=1e-3)
    rows = torch.tensor(PERMUTATIONS)
    assert pool.add(rows[[2, 0, 2]]) == 2
    assert pool.add(rows[0] + 5e-4) == 0
    assert pool.add(torch.stack([rows[4], rows[4] + 5e-4, rows[4] + 5e-3]).reshape(3, 1, 9)) == 2
    expected = torch.stack([rows[2], rows[0], rows[4], rows[4] + 5e-3])
    assert len(pool) == 4 and torch.equal(pool.solutions, expected)
    assert "4 solutions of 9 variables" in repr(pool)


def test_the_oldest_go_first():
    pool = pool_of(PERMUTATIONS[:4], limit=3)
    assert torch.equal(pool.solutions, torch.tensor(PERMUTATIONS[1:4]))
    assert pool.add(torch.tensor(PERMUTATIONS[2])) == 0  # seen again: no younger for it
    pool.add(torch.tensor(PERMUTATIONS[4:6]))
    assert torch.equal(pool.solutions, torch.tensor(PERMUTATIONS[3:6]))


def test_growing_solves_a_share_of_the_items():
    rng = np.random.default_rng(3)
    costs = torch.tensor(rng.normal(size=(40, 5, 9)))
    best = PERMUTATIONS[(costs.numpy() @ PERMUTATIONS.T).argmin(-1)].reshape(-1, 9)
    for sense, sign in (("min", 1), ("max", -1)):
        pool = SolutionPool(assignment(sense))
        assert pool.grow(sign * costs, share=0.0) == 0
        assert pool.grow(sign * costs) == len(np.unique(best, axis=0)) == 6
        assert {tuple(s) for s in pool.solutions.numpy().round(9)} == {tuple(s) for s in best}
    asked = []

    def program(c):
        asked.append(len(c))
        return lpdiff.solve(assignment(), c=c)

    for generator in (5, np.random.default_rng(5), torch.Generator().manual_seed(5), None):
        torch.manual_seed(5)
        pool = SolutionPool(program, shapes=[(9,)])
        pool.grow(costs, share=0.25, generator=generator)
    assert asked[0] == asked[1] and asked[2] == asked[3]
    assert all(30 <= count <= 70 for count in asked)  # of 200


def test_the_shape_of_a_problem_is_learned():
    module = problems.GridPath(moves=4)
    costs = torch.tensor(np.random.default_rng(0).uniform(1, 2, (6, 3, 4)))
    pool = SolutionPool(module)
    with pytest.raises(ValueError, match="not known yet"):
        pool.add(costs)
    assert pool.grow(costs) >= 2
    assert pool.shapes == ((3, 4),) and pool.solutions.shape[1] == 12
    shares = costs.clone().requires_grad_()
    loss = contrastive_map(pool, shares, pool.objective.solutions(costs)[1][0])
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-12)


def test_pools_copy_pickle_and_load():
    pool = pool_of(PERMUTATIONS[:4], limit=5)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert torch.equal(other.solutions, pool.solutions)
        other.add(torch.tensor(PERMUTATIONS[5]))
        assert len(other) == 5 and len(pool) == 4
        assert other.grow(torch.ones(9, dtype=torch.float64)) <= 1
    stored = io.BytesIO()
    torch.save(pool.state_dict(), stored)
    stored.seek(0)
    fresh = torch.nn.ModuleDict({"pool": SolutionPool(assignment())})
    fresh["pool"].load_state_dict(torch.load(stored))
    assert torch.equal(fresh["pool"].solutions, pool.solutions)
    assert list(fresh.state_dict()) == ["pool.solutions"]
    with pytest.raises(RuntimeError, match="size mismatch"):
        fresh["pool"].load_state_dict({"solutions": torch.zeros(4, 8)})


def test_what_a_pool_refuses():
    pool = SolutionPool(assignment())
    p, c, w = batch(3)
    with pytest.raises(ValueError, match="pool is empty"):
        nce(pool, p, w)
    with pytest.raises(ValueError, match=r"expected shape \(\*batch, 9\), got \(3, 8\)"):
        pool.add(p[:, :8])
    with pytest.raises(ValueError, match="finite"):
        pool.add(torch.full((9,), torch.nan))
    with pytest.raises(ValueError, match="share must lie"):
        pool.grow(p, share=1.5)
    with pytest.raises(ValueError, match="limit"):
        SolutionPool(assignment(), limit=0)
    with pytest.raises(ValueError, match="tolerance"):
        SolutionPool(assignment(), tolerance=-1.0)
    with pytest.raises(TypeError, match="expected a SolutionPool, got LinearProgram"):
        pointwise(assignment(), p, c)
    pool = pool_of(PERMUTATIONS)
    with pytest.raises(TypeError, match="unknown options: temprature"):
        Listwise(pool, temprature=1.0)(p, c)
    with pytest.raises(ValueError, match="temperature"):
        listwise(pool, p, c, temperature=0.0)
    with pytest.raises(ValueError, match="margin"):
        pairwise(pool, p, c, margin=-0.1)
    with pytest.raises(ValueError, match="reduction"):
        nce(pool, p, w, reduction="max")
    with pytest.raises(ValueError, match="expected shape"):
        nce(pool, p, w[:, :8])


# -- the losses --------------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_values_and_reductions(name, shape):
    loss, plain = LOSSES[name]
    rows = PERMUTATIONS[[0, 1, 3, 4]]
    p, c, w = batch(*shape, seed=len(shape))
    expected = np.array(
        [plain(*(t.reshape(-1, 9)[i].numpy() for t in (p, c, w)), rows) for i in range(p[..., 0].numel())]
    ).reshape(shape)
    pool = pool_of(rows)
    each = loss(pool, p, c, w, reduction="none")
    np.testing.assert_allclose(each, expected, atol=1e-12)
    assert float(loss(pool, p, c, w)) == pytest.approx(expected.mean())
    assert float(loss(pool, p, c, w, reduction="sum")) == pytest.approx(expected.sum())
    # A maximisation is the mirror image.
    mirrored = loss(pool_of(rows, "max"), -p, -c, w, reduction="none")
    np.testing.assert_allclose(mirrored, expected, atol=1e-12)


@every_loss
def test_weights_and_what_they_leave_out(name):
    loss, _ = LOSSES[name]
    pool = pool_of(PERMUTATIONS[:5])
    p, c, w = batch(2, 3)
    each = loss(pool, p, c, w, reduction="none")
    weight = torch.tensor([[1.0, 0, 2], [0.5, 0, 0]], dtype=torch.float64)
    assert float(loss(pool, p, c, w, weight=weight)) == pytest.approx(float((weight * each).sum() / 3.5))
    broken = [torch.where((weight == 0)[..., None], torch.nan, t) for t in (p, c, w)]
    leaf = broken[0].requires_grad_()
    found = loss(pool, leaf, *broken[1:], weight=weight)
    assert float(found.detach()) == pytest.approx(float((weight * each).sum() / 3.5))
    found.backward()
    assert bool(torch.isfinite(leaf.grad).all()) and not leaf.grad[weight == 0].any()
    assert bool(leaf.grad[weight != 0].any())
    # One item's costs, weighted: as if they were repeated.
    p, c, w = batch(seed=9)
    shared = loss(pool, p, c, w, weight=weight[0], reduction="none")
    np.testing.assert_allclose(shared, weight[0] * loss(pool, p, c, w), rtol=1e-12)


@every_loss
def test_gradients(name):
    loss, _ = LOSSES[name]
    pool = pool_of(PERMUTATIONS[:5])
    p, c, w = batch(4, seed=2)
    assert torch.autograd.gradcheck(
        lambda q: loss(pool, q, c, w, reduction="none"), p.requires_grad_(), fast_mode=True
    )


@every_loss
def test_single_precision(name):
    loss, _ = LOSSES[name]
    pool = pool_of(PERMUTATIONS)
    single, double = (batch(8, seed=4, dtype=d) for d in (torch.float32, torch.float64))
    single[0].requires_grad_()
    double[0].requires_grad_()
    values = [loss(pool, *tensors) for tensors in (single, double)]
    assert values[0].dtype == torch.float32
    for value in values:
        value.backward()
    assert float(values[0].detach()) == pytest.approx(float(values[1].detach()), rel=1e-5)
    np.testing.assert_allclose(single[0].grad, double[0].grad, atol=1e-5)


def test_on_all_vertices_the_map_loss_is_the_perceptron():
    pool, (p, _, w) = pool_of(PERMUTATIONS), batch(20, seed=6)
    leaves = [p.clone().requires_grad_() for _ in range(2)]
    values = [contrastive_map(pool, leaves[0], w), perceptron(assignment(), leaves[1], w)]
    for value in values:
        value.backward()
    assert float(values[0].detach()) == pytest.approx(float(values[1].detach()))
    np.testing.assert_allclose(leaves[0].grad, leaves[1].grad, atol=1e-12)


def test_true_costs_are_where_the_ranking_losses_are_least():
    pool, (p, c, _) = pool_of(PERMUTATIONS), batch(10, seed=7)
    leaf = c.clone().requires_grad_()
    listwise(pool, leaf, c).backward()
    assert float(leaf.grad.abs().max()) < 1e-12
    assert bool((listwise(pool, p, c, reduction="none") > listwise(pool, c, c, reduction="none")).all())
    assert float(pointwise(pool, c, c)) == 0
    assert float(pairwise(pool, c, c, margin=0.0)) == 0
    # Costs that shift every permutation alike are not told apart.
    moved = c + torch.arange(3.0).repeat_interleave(3)
    same = listwise(pool, moved, c, reduction="none") - listwise(pool, c, c, reduction="none")
    assert float(same.abs().max()) < 1e-12


def test_solutions_as_good_as_the_best_are_no_mistake():
    pool = pool_of(PERMUTATIONS[:3])
    tied = torch.tensor(np.linalg.pinv(PERMUTATIONS[:3]) @ [-1.0, -1.0, 2.0])
    tied[4] += 1e-12  # as rounding would
    predicted = torch.tensor(np.linalg.pinv(PERMUTATIONS[:3]) @ [-3.0, 0.0, 0.2])
    assert float(pairwise(pool, predicted, tied, margin=0.5)) == pytest.approx(0.3)  # of one pair
    assert float(pairwise(pool, predicted, 0 * predicted, margin=0.5)) == 0.0  # of none


def test_modules_hold_the_pool():
    pool, (p, c, w) = pool_of(PERMUTATIONS[:5]), batch(4)
    pairs = [
        (NCE(pool)(p, w, c), nce(pool, p, w, c)),
        (ContrastiveMAP(pool, reduction="sum")(p, w), contrastive_map(pool, p, w, reduction="sum")),
        (Listwise(pool, temperature=0.5)(p, c), listwise(pool, p, c, temperature=0.5)),
        (Pairwise(pool, margin=0.5)(p, c), pairwise(pool, p, c, margin=0.5)),
        (Pointwise(pool)(p, c, reduction="none"), pointwise(pool, p, c, reduction="none")),
    ]
    for found, expected in pairs:
        assert torch.equal(found, expected)
    module = NCE(pool)
    assert list(module.state_dict()) == ["program.solutions"]
    before = module(p, w)
    module.program.add(torch.tensor(PERMUTATIONS[5]))
    assert not torch.equal(module(p, w), before)
    copied = copy.deepcopy(module)
    copied.program.add(torch.zeros(9))
    assert torch.equal(module(p, w), nce(pool, p, w)) and not torch.equal(copied(p, w), module(p, w))


@every_loss
def test_training_reduces_regret(name):
    loss, _ = LOSSES[name]
    rng = np.random.default_rng(8)
    features = torch.tensor(rng.normal(size=(60, 4)))
    true = features @ torch.tensor(rng.normal(size=(4, 9))) + 0.1 * torch.tensor(rng.normal(size=(60, 9)))
    target = torch.tensor(PERMUTATIONS)[(true @ torch.tensor(PERMUTATIONS).mT).argmin(-1)]
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 9, dtype=torch.float64)

    def regret():
        chosen = torch.tensor(PERMUTATIONS)[(model(features) @ torch.tensor(PERMUTATIONS).mT).argmin(-1)]
        return float((true * (chosen - target)).sum(-1).mean())

    pool = SolutionPool(assignment())
    pool.add(target)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    before = regret()
    for _ in range(60):
        optimizer.zero_grad()
        loss(pool, model(features), true, target).backward()
        optimizer.step()
    assert regret() < 0.25 * before
