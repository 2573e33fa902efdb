"""Adjacent vertices: edges by brute force on tiny polytopes, the loss by loops and by solving."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import lpdiff
from lpdiff.losses import Objective
from lpdiff.losses.adjacent import AdjacentVertices, adjacent_vertices, neighbours
from lpdiff.testing import KINDS, enumerate_vertices, random_lp


def tensor(array, dtype=torch.float64):
    return torch.tensor(np.asarray(array), dtype=dtype)


def sides_of(lp):
    stacked = np.vstack([lp.A.toarray(), np.eye(lp.n)])
    return stacked, np.concatenate([lp.row_lower, lp.lower]), np.concatenate([lp.row_upper, lp.upper])


def adjacent_by_hand(lp, w):
    """Vertices that share a line of active sides with w."""
    stacked, lower, upper = sides_of(lp)
    vertices = enumerate_vertices(lp)
    active = [
        np.abs(np.where(np.isfinite(side), side, 1e9) - vertices @ stacked.T) < 1e-7
        for side in (lower, upper)
    ]
    own = int(np.abs(vertices - w).sum(1).argmin())
    found = []
    for k, v in enumerate(vertices):
        common = (active[0][k] & active[0][own]) | (active[1][k] & active[1][own])
        if k != own and np.linalg.matrix_rank(stacked[common]) == lp.n - 1:
            found.append(v)
    return np.array(found).reshape(-1, lp.n)


def is_feasible(lp, x):
    stacked, lower, upper = sides_of(lp)
    return bool(((stacked @ x >= lower - 1e-7) & (stacked @ x <= upper + 1e-7)).all())


def polytope(seed, sense="min", n=5, rows=3):
    """Bounded, with a vertex that is not degenerate for almost all costs."""
    rng = np.random.default_rng(seed)
    return lpdiff.LinearProgram(
        A_ub=rng.uniform(0.2, 2, (rows, n)),
        b_ub=rng.uniform(2, 4, rows),
        A_eq=rng.uniform(0.5, 2, (1, n)),
        b_eq=[2.0],
        bounds=np.stack([np.zeros(n), rng.uniform(0.8, 2, n)], 1),
        sense=sense,
    )


def as_set(rows):
    return {tuple(row) for row in np.round(rows, 7) + 0.0}


# -- edges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sense", ["min", "max"])
def test_edges_lead_to_the_adjacent_vertices(sense):
    for seed in range(4):
        lp = polytope(seed, sense)
        costs = tensor(np.random.default_rng([seed, 1]).normal(size=(4, lp.n)))
        solved = lpdiff.solve(lp, c=costs)
        known = neighbours(solved)
        for i in range(4):
            if solved.y_unique[i]:  # no basic variable at a bound
                edges, lengths = known.edges(int(known.vertex[i]))
                assert (lengths > 0).all() and torch.isfinite(lengths).all()
                ends = solved.x[i] + lengths[:, None] * edges
                assert as_set(ends.numpy()) == as_set(adjacent_by_hand(lp, solved.x[i].numpy()))
                assert len(edges) == lp.n - 1


def test_all_kinds_of_rows_and_bounds():
    """Reduced costs, rays, and what has no edge, on every kind of side."""
    rays = 0
    for seed in range(15):
        lp = random_lp(np.random.default_rng(seed), 5, 4, kind="generic")
        solved = lpdiff.solve(lp)
        edges, lengths = neighbours(solved).edges(0)
        basis = solved.basis
        may_enter = ((basis.columns != 1) & tensor(lp.lower < lp.upper, torch.bool)).sum() + (
            (basis.rows != 1) & tensor(lp.row_lower < lp.row_upper, torch.bool)
        ).sum()
        assert len(edges) == int(may_enter)
        # What an edge pays is the dual of the side it leaves.
        duals = torch.cat([solved.reduced_costs, solved.y])
        free = torch.cat([tensor(lp.lower == lp.upper), tensor(lp.row_lower == lp.row_upper)]).bool()
        paid = lp.form.to_min(edges @ tensor(lp.c))
        expected = duals[~free & (duals != 0)].abs()
        assert len(expected) == len(paid)
        np.testing.assert_allclose(paid.sort()[0], expected.sort()[0], atol=1e-9)
        for edge, length in zip(edges.numpy(), lengths.numpy(), strict=True):
            x = solved.x.numpy()
            if np.isinf(length):
                assert is_feasible(lp, x + 1e4 * edge)
                rays += 1
            else:
                assert length > 0.01
                assert is_feasible(lp, x + length * edge) and not is_feasible(lp, x + 1.01 * length * edge)
    assert rays > 2


def test_one_vertex_is_factorised_once():
    lp = polytope(3)
    costs = tensor(np.random.default_rng(0).normal(size=(2, 50, lp.n)))
    solved = lpdiff.solve(lp, c=costs)
    known = neighbours(solved)
    distinct = len(as_set(solved.x.reshape(-1, lp.n).numpy()))
    assert len(known.starts) - 1 == distinct < 40
    assert f"{distinct} distinct vertices" in repr(known) and "batch=(2, 50)" in repr(known)
    alone = neighbours(lpdiff.solve(lp, c=costs[1, 7]))
    for a, b in zip(known.edges(int(known.vertex[1, 7])), alone.edges(0), strict=True):
        assert torch.equal(a, b)  # to the bit


def test_data_of_an_item_of_its_own():
    rng = np.random.default_rng(5)
    lp, c = polytope(5), tensor(rng.normal(size=5))
    b = tensor(np.concatenate([rng.uniform(2, 4, (4, 3)), rng.uniform(1, 3, (4, 1))], 1))
    known = neighbours(lpdiff.solve(lp, c=c, b=b))
    for i in range(4):
        alone = lpdiff.LinearProgram(
            A=lp.A,
            row_lower=np.where(np.isfinite(lp.row_lower), b[i], -np.inf),
            row_upper=b[i].numpy(),
            bounds=np.stack([lp.lower, lp.upper], 1),
        )
        other = neighbours(lpdiff.solve(alone, c=c))
        for a, b_ in zip(known.edges(int(known.vertex[i])), other.edges(0), strict=True):
            np.testing.assert_allclose(a, b_, atol=1e-12)


# -- the loss ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sense", ["min", "max"])
def test_values(sense):
    lp = polytope(7, sense)
    rng = np.random.default_rng(7)
    solved = lpdiff.solve(lp, c=tensor(rng.normal(size=(2, 3, lp.n))))
    assert bool(solved.y_unique.all())
    known, c = neighbours(solved), tensor(rng.normal(size=(2, 3, lp.n)))
    each = adjacent_vertices(lp, c, known, margin=0.3, reduction="none")
    units = adjacent_vertices(lp, c, known, margin=0.3, scaled=False, reduction="none")
    for place in np.ndindex(2, 3):
        w, to_min = solved.x[place].numpy(), lp.form.to_min(c[place]).numpy()
        ends = adjacent_by_hand(lp, w)
        expected = np.maximum(0.3 - (ends - w) @ to_min, 0).sum()
        assert float(each[place]) == pytest.approx(expected, abs=1e-9)
        edges, _ = known.edges(int(known.vertex[place]))
        assert float(units[place]) == pytest.approx(np.maximum(0.3 - edges.numpy() @ to_min, 0).sum())
    assert not torch.equal(each, units)
    assert float(adjacent_vertices(lp, c, known, margin=0.3)) == pytest.approx(float(each.mean()))
    total = adjacent_vertices(lp, c, known, margin=0.3, reduction="sum")
    assert float(total) == pytest.approx(float(each.sum()))
    flat = adjacent_vertices(lp, c[1, 2], known[1, 2], margin=0.3)
    assert flat.shape == () and float(flat) == float(each[1, 2])


def test_zero_where_the_target_is_optimal():
    """Without degeneracy neighbours tell all, rays included."""
    seen = {True: 0, False: 0}
    for seed in range(12):
        rng = np.random.default_rng([seed, 3])
        lp = random_lp(rng, 4, 3, kind="generic")
        solved = lpdiff.solve(lp)
        costs = tensor(np.vstack([rng.normal(size=(4, 4)), lp.c + 0.5 * rng.normal(size=(6, 4))]))
        other = lpdiff.solve(lp, c=costs, throw=False)
        optimal = other.ok & ((costs @ solved.x - other.value).abs() < 1e-8)
        losses = adjacent_vertices(lp, costs, neighbours(solved), margin=0.0, reduction="none")
        assert ((losses == 0) == optimal).all()
        for known in seen:
            seen[known] += int((optimal == known).sum())
    assert min(seen.values()) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_vertices(kind):
    """Keeping the edges of length zero is sufficient, leaving them out is necessary."""
    loose = {"keep": 0, "drop": 0}
    for seed in range(8):
        rng = np.random.default_rng([seed, 4, KINDS.index(kind)])
        lp = random_lp(rng, 4, 4, kind=kind)
        solved = lpdiff.solve(lp)
        known = neighbours(solved)
        edges, lengths = known.edges(0)
        for edge, length in zip(edges.numpy(), lengths.numpy(), strict=True):
            if np.isfinite(length):
                assert is_feasible(lp, solved.x.numpy() + length * edge)
            assert length > 1e-3 or length == 0
        costs = tensor(lp.c + rng.normal(size=(20, 4)))
        other = lpdiff.solve(lp, c=costs, throw=False)
        optimal = other.ok & ((costs @ solved.x - other.value).abs() < 1e-8)
        zero = {
            how: adjacent_vertices(lp, costs, known, margin=0.0, degenerate=how, reduction="none") <= 1e-12
            for how in loose
        }
        assert optimal[zero["keep"]].all() and zero["drop"][optimal].all()
        loose["keep"] += int((optimal & ~zero["keep"]).sum())
        loose["drop"] += int((zero["drop"] & ~optimal).sum())
    if kind in ("generic", "nonunique"):
        assert not any(loose.values())
    else:
        assert all(loose.values())


def test_gradients():
    lp = polytope(9, "max")
    rng = np.random.default_rng(9)
    solved = lpdiff.solve(lp, c=tensor(rng.normal(size=(4, lp.n))))
    known = neighbours(solved)
    for options in ({}, {"scaled": False}, {"degenerate": "drop"}):
        c = tensor(rng.normal(size=(4, lp.n))).requires_grad_()
        assert torch.autograd.gradcheck(
            lambda q: adjacent_vertices(lp, q, known, margin=0.2, reduction="none", **options),  # noqa: B023
            c,
            fast_mode=True,
        )
    adjacent_vertices(lp, c, known).backward()
    assert bool(c.grad.any())


def test_weights_and_what_they_leave_out():
    lp = polytope(11)
    rng = np.random.default_rng(11)
    known = neighbours(lpdiff.solve(lp, c=tensor(rng.normal(size=(2, 3, lp.n)))))
    c = tensor(rng.normal(size=(2, 3, lp.n)))
    each = adjacent_vertices(lp, c, known, reduction="none")
    weight = tensor([[1.0, 0, 2], [0.5, 0, 0]])
    c[0, 1] = torch.nan
    leaf = c.requires_grad_()
    found = adjacent_vertices(lp, leaf, known, weight=weight)
    assert float(found.detach()) == pytest.approx(float((weight * each).sum() / 3.5))
    found.backward()
    assert bool(torch.isfinite(leaf.grad).all()) and not leaf.grad[weight == 0].any()


def test_items_without_a_basis():
    lp = polytope(13)
    b = tensor([[3.0, 3, 3, 2], [3, 3, 3, 100]])  # the second has no feasible point
    solved = lpdiff.solve(lp, c=torch.ones(lp.n, dtype=torch.float64), b=b, throw=False)
    known = neighbours(solved)
    assert known.vertex.tolist() == [0, -1]
    c = torch.zeros(2, lp.n, dtype=torch.float64)
    with pytest.raises(ValueError, match="the solution of item 1 has no basis"):
        adjacent_vertices(lp, c, known)
    assert float(adjacent_vertices(lp, c, known, weight=torch.tensor([1, 0]))) > 0
    none = neighbours(lpdiff.solve(lp, c=torch.ones(lp.n), b=b[1:], throw=False))
    assert float(adjacent_vertices(lp, c, none, weight=torch.zeros(2), reduction="sum")) == 0


def test_rays_pay_by_the_unit():
    lp = lpdiff.LinearProgram(
        np.ones(3), A_ub=[[1.0, -1, 0]], b_ub=[4.0], bounds=[(0, None), (0, None), (0, 5)]
    )
    known = neighbours(lpdiff.solve(lp))
    _, lengths = known.edges(0)
    assert sorted(lengths.tolist()) == [4.0, 5.0, np.inf]
    c = tensor([[0.5, -0.25, 0.125], [-1.0, 0.0, 0.5]])
    losses = adjacent_vertices(lp, c, known, margin=1.0, reduction="none")
    assert losses.tolist() == [0.0 + 1.25 + 0.375, 5.0 + 1.0 + 0.0]
    units = adjacent_vertices(lp, c, known, margin=1.0, scaled=False, reduction="none")
    assert units.tolist() == [0.5 + 1.25 + 0.875, 2.0 + 1.0 + 0.5]


def test_batches_are_indexed_copied_and_pickled():
    lp = polytope(15)
    rng = np.random.default_rng(15)
    known = neighbours(lpdiff.solve(lp, c=tensor(rng.normal(size=(9, lp.n)))))
    c = tensor(rng.normal(size=(9, lp.n)))
    each = adjacent_vertices(lp, c, known, reduction="none")
    items = torch.tensor([7, 0, 7])
    for other in (known, copy.deepcopy(known), pickle.loads(pickle.dumps(known))):
        for chosen in (items, items.numpy(), slice(2, 5), each > each.mean()):
            found = adjacent_vertices(lp, c[chosen], other[chosen], reduction="none")
            assert torch.equal(found, each[chosen])
    shared = adjacent_vertices(lp, c[0], known, reduction="none")
    assert shared.shape == (9,) and shared[0] == each[0]
    none = adjacent_vertices(lp, c[:0], known[:0], reduction="none")
    assert none.shape == (0,)
    single = adjacent_vertices(lp, c.float(), known, reduction="none")
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, each, rtol=1e-4, atol=1e-5)


def test_programs_in_other_clothes():
    lp = polytope(17)
    known, c = neighbours(lpdiff.solve(lp, c=torch.ones(lp.n))), torch.zeros(lp.n)
    expected = float(adjacent_vertices(lp, c, known, margin=0.5))
    assert expected == 0.5 * (lp.n - 1)
    assert float(adjacent_vertices(lpdiff.LPLayer(lp), c, known, margin=0.5)) == expected
    assert float(adjacent_vertices(Objective(lp), c, known, margin=0.5)) == expected
    assert float(AdjacentVertices(lp, margin=0.5)(c, known)) == expected
    edges, lengths = neighbours(lpdiff.solve(lpdiff.LinearProgram([-1.0], bounds=(0, 2)))).edges(0)
    assert edges.tolist() == [[-1.0]] and lengths.tolist() == [2.0]
    only = lpdiff.LinearProgram(c=[1.0, 2.0], bounds=(3, 3))
    assert float(adjacent_vertices(only, torch.zeros(2), neighbours(lpdiff.solve(only)))) == 0  # one point


def test_what_is_refused():
    lp = polytope(19)
    known, c = neighbours(lpdiff.solve(lp, c=torch.ones(2, lp.n))), torch.zeros(2, lp.n)
    with pytest.raises(ValueError, match="margin must not be negative"):
        adjacent_vertices(lp, c, known, margin=-1.0)
    with pytest.raises(ValueError, match="'keep' or 'drop', got 'both'"):
        adjacent_vertices(lp, c, known, degenerate="both")
    with pytest.raises(TypeError, match="expected Neighbours, got Tensor"):
        adjacent_vertices(lp, c, c)
    with pytest.raises(TypeError, match="needs a LinearProgram, got function"):
        adjacent_vertices(lambda c: c, c, known)
    with pytest.raises(TypeError, match="solves nothing, and takes no solver"):
        AdjacentVertices(lp, solver="highs")(c, known)
    with pytest.raises(ValueError, match="of another program"):
        adjacent_vertices(polytope(19, "max"), c, known)
    with pytest.raises(ValueError, match=r"expected predicted \(\*batch, 5\), got \(2, 4\)"):
        adjacent_vertices(lp, c[:, :4], known)
    with pytest.raises(ValueError, match="do not broadcast"):
        adjacent_vertices(lp, torch.zeros(3, lp.n), known)
    whole = lpdiff.LinearProgram(np.ones(2), A_ub=np.ones((1, 2)), b_ub=[1.0], integrality=True)
    with pytest.raises(lpdiff.UnsupportedError, match="drop integrality"):
        neighbours(lpdiff.solve(whole))


@pytest.mark.parametrize("options", [{}, {"scaled": False}, {"degenerate": "drop"}], ids=str)
def test_training_reduces_regret(options):
    rng = np.random.default_rng(8)
    lp = lpdiff.LinearProgram(A_ub=rng.uniform(0.5, 2, (3, 8)), b_ub=[4.0, 4, 4], bounds=(0, 1), sense="max")
    features = tensor(rng.normal(size=(40, 4)))
    true = features @ tensor(rng.normal(size=(4, 8))) + 1 + 0.1 * tensor(rng.normal(size=(40, 8)))
    solved = lpdiff.solve(lp, c=true)
    known = neighbours(solved)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 8, dtype=torch.float64)

    def regret():
        with torch.no_grad():
            return float((solved.value - (true * lpdiff.solve(lp, c=model(features)).x).sum(-1)).mean())

    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    before = regret()
    for _ in range(30):
        optimizer.zero_grad()
        adjacent_vertices(lp, model(features), known, **options).backward()
        optimizer.step()
    assert regret() < 0.15 * before
