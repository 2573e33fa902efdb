"""Quadratic regularisation against closed forms, another QP solver, enumeration and finite differences."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse as sp
import torch

import lpdiff
from lpdiff.gradients import Quadratic
from lpdiff.problems.matching import assignment
from lpdiff.problems.paths import graph_path
from lpdiff.problems.ranking import rank
from lpdiff.problems.subsets import k_subset, top_k


def solved(lp: lpdiff.LinearProgram, c: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """x, (B, n), and its Jacobians in c, (B, n, n)."""
    leaf = torch.tensor(c, requires_grad=True)
    x = lpdiff.solve(lp, c=leaf, gradient=Quadratic(strength)).x
    rows = [torch.autograd.grad(x[:, j].sum(), leaf, retain_graph=True)[0] for j in range(lp.n)]
    return x.detach().numpy(), torch.stack(rows, 1).numpy()


def by_face(lp: lpdiff.LinearProgram, x: np.ndarray, strength: float) -> np.ndarray:
    """-1/gamma times the projection onto the null space of A_QF: Q the active rows, F the free columns."""
    rows = lp.A @ x
    free = (x > lp.lower + 1e-9) & (x < lp.upper - 1e-9)
    active = (rows < lp.row_lower + 1e-9) | (rows > lp.row_upper - 1e-9)
    null = scipy.linalg.null_space(lp.A.toarray()[active][:, free], rcond=1e-10)
    expected = np.zeros((lp.n, lp.n))
    expected[np.ix_(free, free)] = null @ null.T / -strength
    return expected


def assert_optimal(lp: lpdiff.LinearProgram, c: np.ndarray, strength: float, x: np.ndarray) -> None:
    """x is feasible, and no point is better in its gradient: HiGHS says so."""
    assert (x >= lp.lower - 1e-9).all() and (x <= lp.upper + 1e-9).all()
    assert (lp.A @ x >= lp.row_lower - 1e-9).all() and (lp.A @ x <= lp.row_upper + 1e-9).all()
    q = c + strength * x
    A, bounds = lp.A.toarray(), np.column_stack([lp.lower, lp.upper])
    above, below = np.isfinite(lp.row_upper), np.isfinite(lp.row_lower)
    best = scipy.optimize.linprog(
        q,
        A_ub=np.vstack([A[above], -A[below]]),
        b_ub=np.r_[lp.row_upper[above], -lp.row_lower[below]],
        bounds=bounds,
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert q @ x - best.fun <= 1e-9 * (1 + abs(c).max() * abs(x).max())


def polytope(rng: np.random.Generator, n: int) -> lpdiff.LinearProgram:
    """A box, cut by an equality, an inequality and a range, none of which leaves it empty."""
    A = rng.normal(size=(3, n)) * (rng.random((3, n)) < 0.7)
    middle = A @ rng.uniform(-0.5, 0.5, n)
    return lpdiff.LinearProgram(
        np.zeros(n),
        A=A,
        row_lower=[middle[0], -np.inf, middle[2] - 0.3],
        row_upper=[middle[0], middle[1] + 0.1, middle[2] + 0.3],
        bounds=np.column_stack([-rng.uniform(0.5, 1.5, n), rng.uniform(0.5, 1.5, n)]),
    )


def transport(supply: list[float], demand: list[float]) -> lpdiff.LinearProgram:
    k, m = len(supply), len(demand)
    A = sp.vstack([sp.kron(sp.eye_array(k), np.ones((1, m))), sp.kron(np.ones((1, k)), sp.eye_array(m))])
    return lpdiff.LinearProgram(A_eq=A, b_eq=[*supply, *demand])


# -- closed forms ----------------------------------------------------------------------------------


def sparsemax(z: np.ndarray) -> np.ndarray:
    """Martins and Astudillo (2016), by sorting."""
    falling = np.sort(z)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, len(z) + 1)
    return np.maximum(z - excess[(falling > excess).sum() - 1], 0)


@pytest.mark.parametrize("n", [1, 2, 10, 60])
def test_sparsemax(n):
    rng = np.random.default_rng(n)
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, n)), b_eq=[1.0])
    for strength in (0.01, 0.5, 20.0):
        c = rng.normal(size=(8, n))
        x, jacobians = solved(lp, c, strength)
        for row, found, jacobian in zip(c, x, jacobians, strict=True):
            np.testing.assert_allclose(found, sparsemax(-row / strength), atol=1e-12)
            inside = (found > 0).astype(float)
            expected = (np.diag(inside) - np.outer(inside, inside) / inside.sum()) / -strength
            np.testing.assert_allclose(jacobian, expected, atol=1e-11 / strength)


@pytest.mark.parametrize("n", [1, 3, 20, 60])
def test_box(n):
    rng = np.random.default_rng(n)
    lower = rng.uniform(-1, 0.5, n)
    upper = lower + rng.uniform(0, 1, n) * (rng.random(n) < 0.8)  # some fixed
    lp = lpdiff.LinearProgram(np.zeros(n), bounds=np.column_stack([lower, upper]))
    for strength in (0.1, 1.0, 30.0):
        c = rng.normal(size=(5, n))
        x, jacobians = solved(lp, c, strength)
        np.testing.assert_allclose(x, np.clip(-c / strength, lower, upper), atol=1e-12)
        inside = (-c / strength > lower) & (-c / strength < upper)
        expected = np.eye(n) * inside[:, None, :] / -strength
        np.testing.assert_allclose(jacobians, expected, atol=1e-11 / strength)


def test_soft_ranks_of_the_paper():
    scores, weights = torch.tensor([5.0, 1.0, 2.0], dtype=torch.float64), [3.0, 2.0, 1.0]
    for strength, expected in ((1.0, [3.0, 1.0, 2.0]), (2.0, [3.0, 1.25, 1.75])):
        found = rank(scores, weights=weights, gradient=Quadratic(strength)).vertex
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("strength", [0.05, 0.4, 3.0])
def test_permutahedron_is_isotonic_regression(descending, strength):
    """Of scores in falling order s and weights in falling order w, the projection of s is s - v, with v the
    falling fit to s - w; its Jacobian takes the means over the blocks of v off (Blondel et al., 2020)."""
    rng = np.random.default_rng(5)
    scores, weights = rng.normal(size=(6, 9)), rng.uniform(1, 9, size=(6, 9))
    leaf = torch.tensor(scores, requires_grad=True)
    how = {"descending": descending, "gradient": Quadratic(strength)}
    found = rank(leaf, weights=weights, **how).vertex
    g = torch.tensor(rng.normal(size=(6, 9)))
    (pulled,) = torch.autograd.grad(found, leaf, g)
    sign = -1 if descending else 1
    for k in range(6):
        z = sign * scores[k] / strength
        order, w = np.argsort(-z), np.sort(weights[k])[::-1]
        fit = scipy.optimize.isotonic_regression(z[order] - w, increasing=False)
        expected, back = np.empty(9), np.empty(9)
        expected[order] = z[order] - fit.x
        np.testing.assert_allclose(found[k].detach(), expected, atol=1e-11)
        back[order] = g[k][order]
        for first, last in itertools.pairwise(fit.blocks):
            places = order[first:last]
            back[places] = g[k][places] - g[k][places].mean()
        np.testing.assert_allclose(pulled[k], sign * back / strength, atol=1e-11 / strength)


# -- other polytopes -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_polytopes(seed):
    rng = np.random.default_rng([1, seed])
    for n in (3, 6, 12):
        lp = polytope(rng, n)
        for strength in (0.1, 1.0, 5.0):
            c = rng.normal(size=(3, n))
            x, jacobians = solved(lp, c, strength)
            for row, found, jacobian in zip(c, x, jacobians, strict=True):
                assert_optimal(lp, row, strength, found)
                np.testing.assert_allclose(jacobian, by_face(lp, found, strength), atol=1e-8 / strength)
        z = cp.Variable(n)
        rows = [lp.A @ z <= np.minimum(lp.row_upper, 1e3), lp.A @ z >= np.maximum(lp.row_lower, -1e3)]
        box = [z >= lp.lower, z <= lp.upper]
        problem = cp.Problem(cp.Minimize(c[0] @ z + strength / 2 * cp.sum_squares(z)), rows + box)
        problem.solve(solver="CLARABEL")
        np.testing.assert_allclose(c[0] @ x[0] + strength / 2 * x[0] @ x[0], problem.value, atol=1e-6)
        np.testing.assert_allclose(x[0], z.value, atol=1e-4)


@pytest.mark.parametrize(
    "lp",
    [
        transport([3.0, 5.0, 2.0], [4.0, 1.0, 2.0, 3.0]),
        transport([0.3, 0.3, 0.4], [0.3, 0.3, 0.4]),
        transport([1.0] * 4, [1.0] * 4),
    ],
    ids=["transport", "degenerate", "assignment"],
)
@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_transport(lp, strength):
    c = np.random.default_rng(3).uniform(size=(4, lp.n))
    x, jacobians = solved(lp, c, strength)
    for row, found, jacobian in zip(c, x, jacobians, strict=True):
        assert_optimal(lp, row, strength, found)
        np.testing.assert_allclose(jacobian, by_face(lp, found, strength), atol=1e-9 / strength)


@pytest.mark.parametrize("seed", range(3))
def test_against_finite_differences(seed):
    """Piecewise linear: on one piece, differences are exact up to rounding."""
    rng = np.random.default_rng([2, seed])
    for lp in (polytope(rng, 8), transport([1.0] * 4, [1.0] * 4)):
        c, moves, t = rng.normal(size=(20, lp.n)), rng.normal(size=(20, lp.n)), 1e-5
        rule = Quadratic(0.7)
        behind, here, ahead = (
            lpdiff.solve(lp, c=torch.tensor(c + s * moves), gradient=rule).x.numpy() for s in (-t, 0, t)
        )
        smooth = abs(ahead - 2 * here + behind).max(1) < 1e-12
        assert smooth.sum() > 15
        leaf = torch.tensor(c, requires_grad=True)
        g = torch.tensor(rng.normal(size=c.shape))
        (pulled,) = torch.autograd.grad(lpdiff.solve(lp, c=leaf, gradient=rule).x, leaf, g)
        expected = ((ahead - behind) / (2 * t) * g.numpy()).sum(1)
        np.testing.assert_allclose((pulled.numpy() * moves).sum(1)[smooth], expected[smooth], atol=1e-8)


def test_faces_that_the_vertices_of_x_do_not_span():
    """The centre of a box is the middle of a diagonal, that of a product of simplices no less so."""
    box = lpdiff.LinearProgram(np.zeros(6), bounds=(-1, 1))
    x, jacobians = solved(box, np.zeros((1, 6)), 2.0)
    assert abs(x).max() < 1e-15
    np.testing.assert_allclose(jacobians[0], np.eye(6) / -2, atol=1e-12)

    A = sp.kron(sp.eye_array(3), np.ones((1, 4)))
    simplices = lpdiff.LinearProgram(A_eq=A, b_eq=np.ones(3))
    x, jacobians = solved(simplices, np.full((1, 12), 3.0), 2.0)
    np.testing.assert_allclose(x, 0.25, atol=1e-15)
    np.testing.assert_allclose(jacobians[0], by_face(simplices, x[0], 2.0), atol=1e-12)
    assert np.linalg.matrix_rank(jacobians[0]) == 9

    # Costs that are next to nothing beside gamma x at the vertices: so is q, but for its rounding.
    x, jacobians = solved(box, 1e-15 * np.array([[1.0, -2.0, 3.0, 0.5, -0.1, 0.0]]), 2.0)
    np.testing.assert_allclose(jacobians[0], np.eye(6) / -2, atol=1e-12)

    # x in the middle of an edge, close to others: the probes must not leave it.
    c = np.array([[0.0, 1.0 + 1e-7, -1.0 - 1e-6, 1.0 + 1e-3, 5.0, -1e3]])
    x, jacobians = solved(box, c, 1.0)
    np.testing.assert_allclose(x, [[0, -1, 1, -1, -1, 1]], atol=1e-15)
    np.testing.assert_allclose(jacobians[0], -np.diag([1.0, 0, 0, 0, 0, 0]), atol=1e-12)


def test_kinks():
    """A vertex that is about to move: the derivative is that of the edge it will move along."""
    simplex = lpdiff.LinearProgram(A_eq=np.ones((1, 2)), b_eq=[1.0])
    c = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.001], [1.001, 0.0]])
    x, jacobians = solved(simplex, c, 1.0)
    np.testing.assert_allclose(x, [[1, 0], [0, 1]] * 2, atol=1e-15)
    edge = np.array([[-0.5, 0.5], [0.5, -0.5]])
    np.testing.assert_allclose(jacobians, [edge, edge, 0 * edge, 0 * edge], atol=1e-12)


def hull_contains(vertices: np.ndarray, x: np.ndarray) -> bool:
    lifted = np.vstack([vertices.T, np.ones(len(vertices))])
    return scipy.optimize.nnls(lifted, np.append(x, 1.0))[1] < 1e-9


@pytest.mark.parametrize("sense", ["min", "max"])
def test_integer_programs_by_enumeration(sense):
    """A knapsack: x is nearest in the convex hull of its integer points, not in its relaxation."""
    rng = np.random.default_rng(4)
    weights, sign = np.array([3.0, 4.0, 5.0, 6.0]), -1 if sense == "max" else 1
    lp = lpdiff.LinearProgram(
        np.zeros(4), A_ub=weights[None], b_ub=[9.0], bounds=(0, 1), integrality=np.ones(4), sense=sense
    )
    points = np.array([p for p in itertools.product([0.0, 1.0], repeat=4) if weights @ p <= 9])
    relaxed = lpdiff.LinearProgram(np.zeros(4), A_ub=weights[None], b_ub=[9.0], bounds=(0, 1), sense=sense)
    differs = 0
    for strength in (0.2, 0.6):
        c = -sign * rng.uniform(size=(4, 4))
        x, jacobians = solved(lp, c, strength)
        for row, found, jacobian in zip(c, x, jacobians, strict=True):
            q = sign * row + strength * found
            assert q @ found - (points @ q).min() <= 1e-12 and hull_contains(points, found)
            face = points[points @ q <= (points @ q).min() + 1e-9]
            span = scipy.linalg.orth((face - face[0]).T, rcond=1e-9)
            np.testing.assert_allclose(jacobian, -sign * span @ span.T / strength, atol=1e-10)
        differs += (abs(x - solved(relaxed, c, strength)[0]).max(1) > 1e-3).sum()
    assert differs


def test_paths_by_enumeration():
    """A grid of 4 x 4 nodes and its 20 monotone paths."""
    places = {(i, j): 4 * i + j for i in range(4) for j in range(4)}
    arcs = [(p, places[e]) for (i, j), p in places.items() for e in ((i, j + 1), (i + 1, j)) if e in places]
    paths = []
    for rights in itertools.combinations(range(6), 3):
        nodes = np.cumsum([0] + [1 if k in rights else 4 for k in range(6)])
        taken = set(itertools.pairwise(nodes.tolist()))
        paths.append([float(arc in taken) for arc in arcs])
    vertices, rng = np.array(paths), np.random.default_rng(6)
    for strength in (0.1, 1.0, 10.0):
        costs = torch.tensor(rng.uniform(size=(5, len(arcs))))
        how = {"gradient": Quadratic(strength)}
        flow = graph_path(arcs, costs, 0, 15, **how).edge_indicator
        for row, found in zip(costs.numpy(), flow.numpy(), strict=True):
            q = row + strength * found
            assert q @ found - (vertices @ q).min() <= 1e-12 and hull_contains(vertices, found)


# -- signs, ways, shapes ---------------------------------------------------------------------------


def test_max_mirrors_min():
    rng = np.random.default_rng(8)
    low = polytope(rng, 6)
    sides = {"A": low.A, "row_lower": low.row_lower, "row_upper": low.row_upper}
    bounds = np.column_stack([low.lower, low.upper])
    high = lpdiff.LinearProgram(np.zeros(6), **sides, bounds=bounds, sense="max")
    c = rng.normal(size=(4, 6))
    (x, down), (mirrored, up) = solved(low, c, 0.5), solved(high, -c, 0.5)
    assert np.array_equal(x, mirrored) and np.array_equal(down, -up)


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_by_oracle_and_by_lp(solver):
    rng = np.random.default_rng(9)
    rule, g = Quadratic(0.3), torch.tensor(rng.normal(size=(3, 4, 4)))
    leaf = torch.tensor(rng.uniform(size=(3, 4, 4)), requires_grad=True)
    found = assignment(leaf, gradient=rule, solver=solver).indicator
    lp = transport([1.0] * 4, [1.0] * 4)
    expected = lpdiff.solve(lp, c=leaf.flatten(1), gradient=rule).x.reshape(3, 4, 4)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    (ours,), (theirs,) = (torch.autograd.grad(out, leaf, g) for out in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=0)
    assert abs(ours).max() > 0.1


@pytest.mark.parametrize("solver", ["auto", "highs"])
def test_soft_top_k(solver):
    """The nearest point of a box cut by sum x = k is clip(s / gamma + t, 0, 1), with t for the sum."""
    rng = np.random.default_rng(14)
    scores = rng.normal(size=(5, 7))
    chosen = top_k(torch.tensor(scores), 3, gradient=Quadratic(0.8), solver=solver).indicator
    for row, found in zip(scores / 0.8, chosen.numpy(), strict=True):
        t = scipy.optimize.brentq(lambda t, row=row: np.clip(row + t, 0, 1).sum() - 3, -9, 9, xtol=1e-14)
        np.testing.assert_allclose(found, np.clip(row + t, 0, 1), atol=1e-12)


def test_forbidden_and_masked():
    costs = [[1.0, np.inf, 1.2, 1.1], [np.inf, 0.0, 0.0, 0.5]]
    leaf, third = torch.tensor(costs, dtype=torch.float64, requires_grad=True), 1 / 3
    found = k_subset(leaf, 2, gradient=Quadratic(1.0)).indicator
    expected = [[23 / 30, 0, 17 / 30, 20 / 30], [0, 5 / 6, 5 / 6, third]]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    (g,) = torch.autograd.grad(found[:, 2].sum(), leaf)
    np.testing.assert_allclose(g, [[third, 0, -2 * third, third], [0, third, -2 * third, third]], atol=1e-12)

    scores = torch.tensor([[0.1, 9.0, 0.2], [0.3, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    there = torch.tensor([[True, False, True], [True, True, True]])
    ranks = rank(scores, mask=there, gradient=Quadratic(1.0)).vertex
    np.testing.assert_allclose(ranks.detach(), [[1.45, 0, 1.55], [2.1, 1.9, 2.0]], atol=1e-12)
    (g,) = torch.autograd.grad(ranks[:, 0].sum(), scores)
    np.testing.assert_allclose(g, [[0.5, 0, -0.5], [2 * third, -third, -third]], atol=1e-12)


def test_shapes_and_dtypes():
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 3)), b_eq=[1.0])
    draw = torch.Generator().manual_seed(0)
    whole = torch.randn(2, 5, 3, generator=draw, dtype=torch.float64, requires_grad=True)
    x = lpdiff.solve(lp, c=whole, gradient=Quadratic()).x
    (g,) = torch.autograd.grad(x[..., 0].sum(), whole)
    assert x.shape == g.shape == (2, 5, 3)
    one = whole[1, 2].detach().requires_grad_()
    alone = lpdiff.solve(lp, c=one, gradient=Quadratic()).x
    assert torch.equal(alone, x[1, 2]) and torch.equal(torch.autograd.grad(alone[0], one)[0], g[1, 2])
    half = whole.detach().float().requires_grad_()
    narrow = lpdiff.solve(lp, c=half, gradient=Quadratic()).x
    (by_narrow,) = torch.autograd.grad(narrow[..., 0].sum(), half)
    assert narrow.dtype == by_narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(by_narrow.double(), g, atol=1e-6, rtol=0)
    empty = torch.zeros(0, 3, requires_grad=True)
    lpdiff.solve(lp, c=empty, gradient=Quadratic()).x.sum().backward()
    assert empty.grad.shape == (0, 3)


@pytest.mark.parametrize(
    "lp",
    [transport([1.0] * 5, [1.0] * 5), lpdiff.LinearProgram(np.zeros(25), bounds=(-1, 1))],
    ids=["assignment", "box"],  # in a box with equal costs probes widen the face
)
def test_bits_do_not_depend_on_the_batch(lp):
    rng = np.random.default_rng(12)
    c, g = rng.integers(1, 4, size=(12, 25)) / 4, torch.tensor(rng.normal(size=(12, 25)))

    def run(order):
        leaf = torch.tensor(c[order], requires_grad=True)
        x = lpdiff.solve(lp, c=leaf, gradient=Quadratic(2.0)).x
        return x.detach(), torch.autograd.grad(x, leaf, g[order])[0]

    x, pulled = run(np.arange(12))
    for order in (np.arange(12)[::-1].copy(), [7], [3, 11]):
        found = run(order)
        assert torch.equal(found[0], x[order]) and torch.equal(found[1], pulled[order])


def test_items_without_an_optimum():
    lp = lpdiff.LinearProgram(np.zeros(3), A_eq=np.ones((1, 3)), b_eq=[1.0], bounds=(0, 1))
    c = torch.tensor([[0.1, 0.2, 0.3]] * 3, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0], [4.0], [2.0]], dtype=torch.float64)
    x = lpdiff.solve(lp, c=c, b_eq=b, gradient=Quadratic(), throw=False).x
    np.testing.assert_allclose(x[[0, 2]].detach(), [[13 / 30, 1 / 3, 7 / 30], [23 / 30, 2 / 3, 17 / 30]])
    assert torch.isnan(x[1]).all()
    (g,) = torch.autograd.grad(x[[0, 2], 0].sum(), c)
    np.testing.assert_allclose(g, [[-2 / 3, 1 / 3, 1 / 3], [0, 0, 0], [-2 / 3, 1 / 3, 1 / 3]], atol=1e-12)


# -- numbers of all sizes --------------------------------------------------------------------------


def test_common_costs():
    """A common cost of all variables of a simplex changes nothing but the rounding."""
    rng = np.random.default_rng(10)
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 30)), b_eq=[1.0])
    plain = np.round(rng.normal(size=(6, 30)) * 2**20) / 2**20
    (x, jacobians), (moved, same) = (solved(lp, c, 0.5) for c in (plain, plain + 2**20))
    np.testing.assert_allclose(moved, x, atol=1e-8)
    np.testing.assert_allclose(same, jacobians, atol=1e-9)


@pytest.mark.parametrize("exponent", [-40, -20, 20, 40])
def test_units(exponent):
    """The same in other units of cost, or of x."""
    rng = np.random.default_rng(11)
    unit = 2.0**exponent
    lp = transport([2.0, 3.0, 1.0], [1.0, 2.0, 3.0])
    c = rng.uniform(size=(4, 12))[:, :9]
    x, jacobians = solved(lp, c, 0.3)
    dear, by_dear = solved(lp, c * unit, 0.3 * unit)
    np.testing.assert_allclose(dear, x, atol=1e-13)
    np.testing.assert_allclose(by_dear * unit, jacobians, atol=1e-12)
    large = transport([2.0 * unit, 3 * unit, unit], [unit, 2 * unit, 3 * unit])
    wide, by_wide = solved(large, c, 0.3 / unit)
    np.testing.assert_allclose(wide / unit, x, atol=1e-13)
    np.testing.assert_allclose(by_wide / unit, jacobians, atol=1e-12)


def test_thin():
    """Vertices that differ by much in some directions, and by little in others: x is as exact as its value
    tells, the face is exact."""
    widths = 10.0 ** -np.arange(8)
    lp = lpdiff.LinearProgram(np.zeros(8), bounds=np.column_stack([-widths, widths]))
    c = widths * np.random.default_rng(15).uniform(-1, 1, size=(6, 8))
    x, jacobians = solved(lp, c, 1.0)
    np.testing.assert_allclose(x, -c, atol=1e-8)
    np.testing.assert_allclose((c * x + x * x / 2).sum(1), -(c * c).sum(1) / 2, rtol=1e-14)
    np.testing.assert_allclose(jacobians, np.broadcast_to(-np.eye(8), (6, 8, 8)), atol=1e-13)


def test_extreme_strengths():
    rng = np.random.default_rng(13)
    lp = transport([1.0] * 5, [1.0] * 5)
    c = torch.tensor(rng.uniform(size=(4, 25)))
    plain = lpdiff.solve(lp, c=c).x
    torch.testing.assert_close(lpdiff.solve(lp, c=c, gradient=Quadratic(1e-6)).x, plain)
    flat = lpdiff.solve(lp, c=c, gradient=Quadratic(1e9)).x
    torch.testing.assert_close(flat, torch.full_like(flat, 0.2))


# -- refusals --------------------------------------------------------------------------------------


def test_refusals():
    for bad in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="strength must be positive"):
            Quadratic(bad)
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 3)), b_eq=[1.0])
    c, b = torch.tensor([0.3, 0.1, 0.2]), torch.ones(1, requires_grad=True)
    with pytest.raises(lpdiff.UnsupportedError, match="Quadratic smooths x"):
        lpdiff.solve(lp, c=c, b_eq=b, gradient="quadratic").x.sum().backward()
    with pytest.raises(lpdiff.UnsupportedError, match="reverse mode"):
        torch.func.jvp(lambda c: lpdiff.solve(lp, c=c, gradient="quadratic").x, (c,), (c,))
    unbounded = lpdiff.LinearProgram(np.zeros(2), bounds=(-1, np.inf))
    with pytest.raises(lpdiff.SolveError, match=r"item\(s\) 1 have no optimum.*\n?.*bound the variables"):
        _ = lpdiff.solve(unbounded, c=torch.tensor([[3.0, 3.0], [0.5, 3.0]]), gradient=Quadratic()).x


def test_too_many_rounds(monkeypatch):
    lp = lpdiff.LinearProgram(A_eq=np.ones((1, 4)), b_eq=[1.0])
    costs = torch.tensor([[0.0, 9.0, 9.0, 9.0], [0.1, 0.2, 0.3, 0.4]])
    monkeypatch.setattr("lpdiff.gradients.quadratic._ROUNDS", 2 - 50 * lp.n)
    assert lpdiff.solve(lp, c=costs[0], gradient=Quadratic()).x.tolist() == [1, 0, 0, 0]
    with pytest.raises(lpdiff.SolveError, match=r"item\(s\) 1 in 2 rounds"):
        _ = lpdiff.solve(lp, c=costs, gradient=Quadratic()).x
