"""Kinks: degenerate and non-unique optima against the Clarke set, by enumeration on tiny polytopes.

At a kink the value has many generalized gradients. The one returned must be one of them: x an optimal
vertex, y an optimal dual vertex (both enumerated independently of any solver), and the pair must support
the value as concavity in c and convexity in the right-hand sides demand.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.optimize
import torch

import lpdiff


def tiny(seed: int) -> lpdiff.LinearProgram:
    """Integer data in a small range, so that ties and degenerate vertices abound."""
    rng = np.random.default_rng([31, seed])
    n, m = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    A = rng.integers(-1, 2, size=(m, n)).astype(float)
    inside = rng.integers(0, 2, size=n)
    b = A @ inside + rng.integers(0, 2, size=m)
    return lpdiff.LinearProgram(
        rng.integers(-1, 2, size=n).astype(float),
        A_ub=A,
        b_ub=b,
        bounds=(0, 1),
        sense="min" if seed % 2 == 0 else "max",
    )


def vertices(G: np.ndarray, h: np.ndarray) -> np.ndarray:
    """All vertices of {x : G x <= h}, by solving every square subsystem."""
    n = G.shape[1]
    found = []
    for rows in itertools.combinations(range(len(G)), n):
        square = G[list(rows)]
        if abs(np.linalg.det(square)) > 1e-9:
            x = np.linalg.solve(square, h[list(rows)])
            if (G @ x <= h + 1e-9).all() and not any(np.allclose(x, y) for y in found):
                found.append(x)
    return np.array(found)


def primal_face(lp: lpdiff.LinearProgram, c: np.ndarray) -> tuple[float, np.ndarray]:
    """Value and optimal vertices."""
    n = lp.n
    G = np.vstack([lp.A.toarray(), np.eye(n), -np.eye(n)])
    h = np.concatenate([lp.row_upper, np.ones(n), np.zeros(n)])
    points = vertices(G, h)
    worth = points @ c
    best = worth.min() if lp.sense == "min" else worth.max()
    return float(best), points[np.abs(worth - best) < 1e-9]


def dual_face(lp: lpdiff.LinearProgram, c: np.ndarray, z: float) -> np.ndarray:
    """Optimal dual vertices of min c'x, A x <= b, 0 <= x <= 1, in the user's signs.

    Dual: max -b'p - 1'q, p, q >= 0, c + A'p + q >= 0; y = -p.
    """
    sign = 1.0 if lp.sense == "min" else -1.0
    A, m, n = lp.A.toarray(), lp.m, lp.n
    # The box |p|, |q| <= 50 shows unbounded dual faces as far vertices.
    box = np.eye(m + n)
    G = np.vstack([np.hstack([-A.T, -np.eye(n)]), -box, box])
    h = np.concatenate([sign * c, np.zeros(m + n), np.full(m + n, 50.0)])
    points = vertices(G, h)
    worth = -points @ np.concatenate([lp.row_upper, np.ones(n)])
    assert abs(worth.max() - sign * z) < 1e-8, "strong duality"
    optimal = points[np.abs(worth - worth.max()) < 1e-9]
    return -sign * optimal[:, :m]


def among(point: np.ndarray, points: np.ndarray) -> bool:
    return bool((np.abs(points - point) < 1e-7).all(axis=1).any())


def in_hull(point: np.ndarray, points: np.ndarray) -> bool:
    weights = scipy.optimize.linprog(
        np.zeros(len(points)),
        A_eq=np.vstack([points.T, np.ones(len(points))]),
        b_eq=np.append(point, 1.0),
    )
    return bool(weights.status == 0)


SEEDS = range(120)


@pytest.mark.parametrize("method", ["dual", "primal"])
def test_gradients_lie_in_the_clarke_set(method):
    kinks = 0
    for seed in SEEDS:
        lp = tiny(seed)
        z, X = primal_face(lp, lp.c)
        Y = dual_face(lp, lp.c, z)
        leaves = [torch.tensor(a, requires_grad=True) for a in (lp.c, lp.row_upper, lp.A.data)]
        sol = lpdiff.solve(lp, c=leaves[0], b=leaves[1], A_values=leaves[2], options={"method": method})
        assert abs(float(sol.value.detach()) - z) < 1e-9
        gc, gb, gA = (g.numpy() for g in torch.autograd.grad(sol.value, leaves))
        assert among(gc, X), "dz/dc is an optimal vertex"
        assert in_hull(gb, Y), "dz/db is an optimal dual"
        np.testing.assert_allclose(gA, -(gb[lp.rows] * gc[lp.cols]), atol=1e-12)
        kinks += len(X) > 1 or len(Y) > 1
    assert kinks > 40, "the instances must have kinks to say anything"


def test_flags_tell_kinks_from_smooth_points():
    seen = {True: 0, False: 0}
    for seed in SEEDS:
        lp = tiny(seed)
        z, X = primal_face(lp, lp.c)
        Y = dual_face(lp, lp.c, z)
        sol = lpdiff.solve(lp)
        if bool(sol.x_unique):
            assert len(X) == 1
        if bool(sol.y_unique):
            assert len(Y) == 1
        if not bool(sol.degenerate):
            assert bool(sol.x_unique) == (len(X) == 1), "necessary too where nondegenerate"
        if bool(sol.x_unique):
            assert bool(sol.y_unique) == (len(Y) == 1), "necessary too where duals are nonzero"
        seen[bool(sol.unique)] += 1
    assert min(seen.values()) > 10


def test_value_is_supported_by_its_gradients():
    """Concave in c, convex in b (for min): z(c + s) <= z(c) + x's and z(b + s) >= z(b) + y's."""
    rng = np.random.default_rng(5)
    for seed in SEEDS:
        lp = tiny(seed)
        sign = 1 if lp.sense == "min" else -1
        sol = lpdiff.solve(lp)
        steps = torch.from_numpy(rng.normal(size=(20, lp.n)))
        moved = lpdiff.solve(lp, c=torch.tensor(lp.c) + steps).value
        assert (sign * moved <= sign * (sol.value + steps @ sol.x) + 1e-8).all()
        steps = torch.from_numpy(rng.normal(size=(20, lp.m)))
        moved = lpdiff.solve(lp, b=torch.tensor(lp.row_upper) + steps, throw=False).value
        assert (sign * moved >= sign * (sol.value + steps @ sol.y) - 1e-8).all()


def test_directional_derivatives_at_kinks():
    """z' = min over X* of max over Y* of s_c'x - y'S x + y's_b  (min; for max the other way round)."""
    rng = np.random.default_rng(6)
    t = 1e-6
    for seed in SEEDS:
        lp = tiny(seed)
        z, X = primal_face(lp, lp.c)
        Y = dual_face(lp, lp.c, z)
        G = lpdiff.solve(lp, b=torch.tensor(lp.row_upper + t), throw=False)  # a Slater point keeps Y* bounded
        inner = lpdiff.solve(lp, b=torch.tensor(lp.row_upper - 1e-3), throw=False)
        if not (bool(G.ok) and bool(inner.ok)):
            continue
        dc, db = rng.normal(size=lp.n), rng.normal(size=lp.m)
        dA = rng.normal(size=lp.nnz)
        dense = np.zeros((lp.m, lp.n))
        dense[lp.rows, lp.cols] = dA
        table = (X @ dc)[:, None] - X @ dense.T @ Y.T + (Y @ db)[None, :]
        expected = table.max(axis=1).min() if lp.sense == "min" else table.min(axis=1).max()
        ahead = lpdiff.solve(
            lp,
            c=torch.tensor(lp.c + t * dc),
            b=torch.tensor(lp.row_upper + t * db),
            A_values=torch.tensor(lp.A.data + t * dA),
        ).value
        assert abs((float(ahead) - z) / t - expected) < 1e-3


def test_degenerate_vertex_derivative_is_a_bouligand_element():
    """At a degenerate x with a unique dual, dx/db is the derivative on some adjacent smooth piece."""
    # x0 + x1 <= 1 and x0 <= 1 and x1 >= 0 meet in (1, 0).
    lp = lpdiff.LinearProgram([-2.0, -1.0], A_ub=[[1.0, 1.0], [1.0, 0.0]], b_ub=[1.0, 1.0])
    b = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
    sol = lpdiff.solve(lp, b=b)
    assert bool(sol.degenerate)
    jacobian = torch.stack([torch.autograd.grad(xi, b, retain_graph=True)[0] for xi in sol.x])
    pieces = []
    for step in ([1e-3, 0.0], [-1e-3, 0.0], [0.0, 1e-3], [0.0, -1e-3]):
        near = (b.detach() + torch.tensor(step)).requires_grad_()
        at = lpdiff.solve(lp, b=near)
        pieces.append(torch.stack([torch.autograd.grad(xi, near, retain_graph=True)[0] for xi in at.x]))
    assert any(torch.allclose(jacobian, piece) for piece in pieces)
    assert not all(torch.allclose(pieces[0], piece) for piece in pieces)


def test_redundant_equalities_keep_the_invariants():
    """An assignment LP has rank 2n - 1: y has a gauge freedom, reduced costs and gradients do not."""
    n = 4
    rng = np.random.default_rng(0)
    A = np.vstack([np.kron(np.eye(n), np.ones((1, n))), np.kron(np.ones((1, n)), np.eye(n))])
    lp = lpdiff.LinearProgram(A_eq=A, b_eq=np.ones(2 * n))
    cost = rng.normal(size=(n, n))
    c = torch.tensor(cost.ravel(), requires_grad=True)
    sol = lpdiff.solve(lp, c=c)
    sol.value.backward()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    expected = np.zeros((n, n))
    expected[rows, columns] = 1
    np.testing.assert_allclose(c.grad.numpy().reshape(n, n), expected, atol=1e-9)
    y, d = sol.y.detach().numpy(), sol.reduced_costs.detach().numpy()
    np.testing.assert_allclose(c.detach().numpy() - A.T @ y, d, atol=1e-12)
    assert d.min() > -1e-9
    assert bool(sol.x_unique)
    assert bool(sol.degenerate)
    assert not bool(sol.y_unique)
