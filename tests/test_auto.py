"""solver="auto": what a program's structure is solved by, against HiGHS on the same LPs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from families import FAMILIES, bipartite, incidence

import lpdiff
from lpdiff import LinearProgram, batch, engine

# Who should solve most of a family.
EXPECTED = {
    "assignment": "assignment",
    "alignment": "path",
    "path": "path",
    "transport": "network",
    "flow": "network",
    "selection": "selection",
    "blocks": "components",
}
# Negative cycles are flows; a few blocks are alone, and are what they are.
SHARE = {"path": 0.6, "transport": 0.9, "blocks": 0.7, "flow": 0.95, "selection": 0.95}


def feasibility(lp, data, x):
    """Largest violation of rows and bounds, relative to the numbers that make it up."""
    activity = x @ lp.A.T
    scale = 1 + np.abs(x) @ np.abs(lp.A.T)
    worst = 0.0
    for point, size, low, high in (
        (x, 1 + np.abs(x), lp.lower, lp.upper),
        (activity, scale, data.get("row_lower", lp.row_lower), data.get("row_upper", lp.row_upper)),
    ):
        worst = max(worst, float((np.maximum(low - point, point - high) / size).max(initial=0.0)))
    return worst


def dual_value(lp, data, y, d):
    """D(y) in the user's sense, by this test's own arithmetic; and the largest dual on an infinite side."""
    sign = 1.0 if lp.sense == "min" else -1.0
    total, wrong = np.zeros(len(y)), 0.0
    for duals, low, high in (
        (sign * y, data.get("row_lower", lp.row_lower), data.get("row_upper", lp.row_upper)),
        (sign * d, lp.lower, lp.upper),
    ):
        side = np.where(duals > 0, low, np.where(duals < 0, high, 0.0))
        wrong = max(wrong, float(np.where(np.isinf(side), np.abs(duals), 0.0).max(initial=0.0)))
        total += (duals * np.where(np.isfinite(side), side, 0.0)).sum(axis=1)
    return sign * total, wrong


def compare(lp, data):
    """auto against HiGHS: statuses, values, and a proof of optimality; returns auto's solution."""
    auto = lpdiff.solve(lp, **data, throw=False)
    highs = lpdiff.solve(lp, **data, solver="highs", throw=False)
    assert auto.status.tolist() == highs.status.tolist()
    ok = auto.ok.numpy()
    c, scale = data["c"], 1 + np.abs(data["c"]).max(initial=0.0)
    value, reference = auto.value.numpy(), highs.value.numpy()
    assert np.array_equal(value[~ok], reference[~ok], equal_nan=True)
    if not ok.any():
        return auto
    close = 1e-7 * np.abs(c[ok]).max(initial=1e-300) * (1 + np.abs(auto.x.numpy()[ok]).sum(axis=1))
    assert (np.abs(value[ok] - reference[ok]) <= close).all()
    here = {k: v[ok] if np.ndim(v) == 2 else v for k, v in data.items()}
    x, y = auto.x.numpy()[ok], auto.y.numpy()[ok]
    assert feasibility(lp, here, x) <= 1e-9
    d = c[ok] - y @ lp.A
    assert np.allclose(d, auto.reduced_costs.numpy()[ok], rtol=0, atol=1e-9 * scale)
    proved, wrong = dual_value(lp, here, y, np.where(np.abs(d) <= 1e-12 * scale, 0.0, d))
    assert wrong <= 1e-9 * scale
    assert (np.abs(proved - value[ok]) <= close).all()
    return auto


def sides_of(lp, data, item):
    sides = data.get("row_lower", lp.row_lower), data.get("row_upper", lp.row_upper)
    return [side[item] if side.ndim == 2 else side for side in sides]


def check_basis(lp, data, sol):
    """A basis of m members, not singular, on which x and y stand. Which share of the items has one."""
    ok = sol.ok.numpy()
    valid = sol.basis.valid.numpy() & ok
    dense = lp.A.toarray()
    for item in np.flatnonzero(valid):
        columns, rows = sol.basis.columns[item].numpy() == 1, sol.basis.rows[item].numpy() == 1
        assert columns.sum() + rows.sum() == lp.m
        kernel = dense[~rows][:, columns]
        assert kernel.shape[0] == 0 or np.linalg.matrix_rank(kernel, tol=1e-9) == len(kernel)
        x = sol.x[item].numpy()
        for status, point, low, high in (
            (sol.basis.columns[item].numpy(), x, lp.lower, lp.upper),
            (sol.basis.rows[item].numpy(), lp.A @ x, *sides_of(lp, data, item)),
        ):
            away = np.select([status == 0, status == 2, status == 3], [point - low, high - point, point], 0.0)
            assert np.abs(away).max(initial=0.0) <= 1e-8 * (1 + np.abs(x).sum())
        scale = 1 + np.abs(data["c"][item]).max()
        assert np.abs(sol.y[item].numpy()[rows]).max(initial=0.0) <= 1e-8 * scale
        assert np.abs(sol.reduced_costs[item].numpy()[columns]).max(initial=0.0) <= 1e-8 * scale
    return valid.sum() / max(1, ok.sum())


# -- who solves what, and is it right ----------------------------------------------------------------------


def solved_by(sol):
    """Names of the solvers of the items that have an optimum."""
    names = sol._plan.solvers
    return [names[k] for k in sol._solved.solvers[sol.ok.numpy()]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_families_against_highs(family, seed):
    check_family(family, seed, 30)


def check_family(family, seed, count):
    rng = np.random.default_rng([seed, *family.encode()])
    solvers, based = [], []
    for _ in range(count):
        lp, data = FAMILIES[family](rng, 5)
        sol = compare(lp, data)
        assert not (sol.fallback & sol.ok).any()
        solvers += solved_by(sol)
        if sol.ok.any():
            based.append(check_basis(lp, data, sol))
    assert len(solvers) > count
    # What falls apart is solved by its components, and they by theirs. Costs that are negative by their
    # last digits have no optimum before a specialised solver, and one before HiGHS, with its tolerances.
    expected = (EXPECTED[family], "components", "selection")
    assert sum(name in expected for name in solvers) >= SHARE.get(family, 1.0) * len(solvers)
    assert solvers.count("highs") <= 0.05 * len(solvers)
    assert np.mean(based) > 0.99


# -- derivatives -------------------------------------------------------------------------------------------

NAMES = ("c", "A_values", "row_lower", "row_upper", "lower", "upper")


def leaves_of(lp, data, item):
    """The numbers of one item, as leaves: of A_values too, equal to the declared ones."""
    arrays = (data["c"][item], lp.A.data, *sides_of(lp, data, item), lp.lower, lp.upper)
    return [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]


def solve_leaves(lp, leaves, **how):
    c, values, row_lower, row_upper, lower, upper = leaves
    sides = {"row_lower": row_lower, "row_upper": row_upper, "bounds": (lower, upper)}
    return lpdiff.solve(lp, c=c, A_values=values, **sides, gradient="exact", **how)


def through_basis(lp, leaves, basis):
    """x, y and d of a basis as torch functions of the data: theory, section 2, written down densely."""
    c, values, row_lower, row_upper, lower, upper = leaves
    A = torch.zeros(lp.m, lp.n, dtype=torch.float64).index_put(
        (torch.tensor(lp.rows, dtype=torch.long), torch.tensor(lp.cols, dtype=torch.long)), values
    )
    P, Q = basis.columns == 1, basis.rows != 1
    zero = torch.zeros((), dtype=torch.float64)

    def standing(status, low, high):
        return torch.where(status == 0, low, torch.where(status == 2, high, zero))

    x_N, r = standing(basis.columns, lower, upper)[~P], standing(basis.rows, row_lower, row_upper)[Q]
    K = A[Q][:, P]
    x_P, y_Q = torch.linalg.solve(K, r - A[Q][:, ~P] @ x_N), torch.linalg.solve(K.T, c[P])
    x = torch.zeros(lp.n, dtype=torch.float64).index_put((P,), x_P).index_put((~P,), x_N)
    y = torch.zeros(lp.m, dtype=torch.float64).index_put((Q,), y_Q)
    return x, y, c - A.T @ y


def mixed(rng, lp):
    """A function of x, y and d that is not linear."""
    wx, wy, wd = (torch.from_numpy(rng.normal(size=k)) for k in (lp.n, lp.m, lp.n))

    def function(x, y, d):
        return (wx * x).sum() + (wy * y).sum() + (wd * d).sum() + 0.1 * (x * x).sum() + (y * wy).sin().sum()

    return function


def gradients(output, leaves):
    found = torch.autograd.grad(output, leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if g is None else g for g, t in zip(found, leaves, strict=True)]


def both_sides(leaves, found):
    """Gradients with the two sides of an equality (or a fixed variable) as one leaf: (c, A, rows, bounds)."""
    c, values, *sides = found
    _, _, row_lower, row_upper, lower, upper = leaves
    joined = []
    for low, high, (of_low, of_high) in (
        (row_lower, row_upper, sides[:2]),
        (lower, upper, sides[2:]),
    ):
        one = low == high
        joined.append(torch.where(one, of_low + of_high, of_low))
        joined.append(torch.where(one, torch.zeros_like(of_high), of_high))
    return [c, values, *joined]


def assert_gradients_close(leaves, ours, theirs):
    for name, a, b in zip(NAMES, both_sides(leaves, ours), both_sides(leaves, theirs), strict=True):
        scale = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7 * (1 + scale), msg=f"{name}: {a} against {b}")


def tame(rng, lp, data):
    """The same LPs at costs between 0.1 and 10: second derivatives of others are hard to measure."""
    shape = data["c"].shape
    signs = rng.choice([-1.0, 1.0], shape) if rng.random() < 0.5 else 1.0
    ties = rng.random() < 0.3
    return {**data, "c": signs * (rng.integers(1, 4, shape) if ties else rng.uniform(0.1, 10, shape))}


@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_through_the_basis(family):
    """Every gradient of every function of x, y and d is that of the basis that is found on demand."""
    rng = np.random.default_rng([11, *family.encode()])
    compared = unique = 0
    for _ in range(100):
        lp, data = FAMILIES[family](rng, 1)
        data = tame(rng, lp, data)
        leaves = leaves_of(lp, data, 0)
        sol = solve_leaves(lp, leaves, throw=False)
        if not (sol.ok and sol.basis.valid):
            continue
        assert sol.solver != "highs"  # with A_values that are the declared ones
        x, y, d = through_basis(lp, leaves, sol.basis)
        scale = 1 + float(torch.cat([x, y, d]).detach().abs().max())
        for ours, theirs in ((sol.x, x), (sol.y, y), (sol.reduced_costs, d)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9 * scale)
        function = mixed(rng, lp)
        ours = gradients(function(sol.x, sol.y, sol.reduced_costs), leaves)
        assert_gradients_close(leaves, ours, gradients(function(x, y, d), leaves))
        compared += 1
        if compared == 25:
            break
        other = solve_leaves(lp, leaves, solver="highs")
        if sol.unique and other.unique:
            theirs = gradients(function(other.x, other.y, other.reduced_costs), leaves)
            assert_gradients_close(leaves, ours, theirs)
            unique += 1
        assert bool(sol.x_unique) <= bool(torch.allclose(sol.x, other.x, rtol=0, atol=1e-6 * scale))
    assert compared == 25
    assert unique > 2 or family not in ("flow", "selection")


@pytest.mark.parametrize("family", FAMILIES)
def test_value_gradients_are_generalized_gradients(family):
    """Ties and degeneracy included: z is concave in c, and convex in the sides and bounds together."""
    rng = np.random.default_rng([12, *family.encode()])
    tested = 0
    for _ in range(20):
        lp, data = FAMILIES[family](rng, 4)
        data = tame(rng, lp, data)
        keys = ("row_lower", "row_upper", "lower", "upper")
        sides = {key: np.broadcast_to(data.get(key, getattr(lp, key)), (4, k)).copy()
                 for key, k in zip(keys, (lp.m, lp.m, lp.n, lp.n), strict=True)}  # fmt: skip
        leaves = {key: torch.tensor(side, requires_grad=True) for key, side in sides.items()}
        c = torch.tensor(data["c"], requires_grad=True)

        def at(c, leaves, lp=lp, **how):
            rows = {key: leaves[key] for key in ("row_lower", "row_upper")}
            return lpdiff.solve(
                lp, c=c, **rows, bounds=(leaves["lower"], leaves["upper"]), throw=False, **how
            )

        sol = at(c, leaves)
        ok = sol.ok
        if not ok.any():
            continue
        value = torch.where(ok, sol.value, torch.zeros_like(sol.value))
        found = torch.autograd.grad(value.sum(), [c, *leaves.values()], allow_unused=True)
        g_c, *g_sides = (torch.zeros(4, 0) if g is None else g for g in found)
        assert torch.equal(g_c[ok], sol.x.detach()[ok])
        assert all(not g[~ok].any() for g in (g_c, *g_sides))
        sign = 1.0 if lp.sense == "min" else -1.0
        z, scale = sol.value.detach()[ok], 1e-6 * (1 + sol.x.detach()[ok].abs().sum(-1)) * 30
        for size in (0.1, 1.0):
            move = torch.from_numpy(rng.normal(size=c.shape)) * size
            moved = at(c.detach() + move, {k: t.detach() for k, t in leaves.items()}, solver="highs")
            excess = sign * (moved.value[ok] - z - (g_c * move).sum(-1)[ok])
            assert (excess <= scale).all()  # -inf where the moved one is unbounded
            moves = {k: torch.from_numpy(rng.normal(size=t.shape)) * size for k, t in leaves.items()}
            if size < 1:  # where rows hang together, right-hand sides that some x near by still meets
                along = torch.from_numpy(rng.uniform(0, size, c.shape) @ lp.A.T)
                moves |= dict.fromkeys(keys[:2], along)
                moves["lower"], moves["upper"] = -moves["lower"].abs(), moves["upper"].abs()
            for low, high in (keys[:2], keys[2:]):  # what is equal stays equal
                one = leaves[low] == leaves[high]
                moves[high] = torch.where(one, moves[low], moves[high])
            shifted = {k: t.detach() + moves[k] for k, t in leaves.items()}
            moved = at(c.detach(), shifted, solver="highs")
            linear = sum((g * moves[k]).sum(-1) for (k, g) in zip(leaves, g_sides, strict=True) if g.shape[1])
            excess = sign * (moved.value[ok] - z - (linear[ok] if torch.is_tensor(linear) else linear))
            assert (excess >= -scale).all()  # +inf where the moved one is infeasible
            tested += int(torch.isfinite(excess).sum())
    assert tested > 20


def grounded_flow(rng, nodes=4, arcs=9):
    """A flow with capacities, every node joined to the ground: generic numbers, a unique vertex."""
    tail, head = np.arange(arcs) % nodes, rng.integers(0, nodes - 1, arcs)
    head = np.concatenate([(tail[:nodes] + 1) % nodes, (head + (head >= tail))[nodes:]])
    node, ground = np.arange(nodes), np.full(nodes, nodes)
    matrix = incidence(np.concatenate([tail, node, ground]), np.concatenate([head, ground, node]), nodes)
    n = matrix.shape[1]
    lp = LinearProgram(A=matrix, row_lower=np.zeros(nodes), row_upper=np.zeros(nodes), bounds=(0, 3))
    return lp, rng.uniform(0.5, 2, n), rng.uniform(-1, 1, nodes), rng.uniform(1, 3, n)


def test_torch_transforms():
    rng = np.random.default_rng(3)
    for _ in range(2):
        lp, *arrays = grounded_flow(rng)
        c, b, u = (torch.tensor(a, requires_grad=True) for a in arrays)

        def value(c, b, u, lp=lp, solver="auto"):
            return lpdiff.solve(lp, c=c, b=b, bounds=(None, u), solver=solver).value

        sol = lpdiff.solve(lp, c=c, b=b, bounds=(None, u), gradient="exact")
        assert sol.solver == "network" and sol.unique
        assert torch.autograd.gradcheck(value, (c, b, u))
        assert torch.autograd.gradgradcheck(value, (c, b, u))
        assert torch.autograd.gradcheck(value, (c, b, u), check_forward_ad=True, check_backward_ad=False)

        def duals(c, what, lp=lp, b=arrays[1], u=arrays[2]):
            return getattr(lpdiff.solve(lp, c=c, b=b, bounds=(None, u)), what)

        y_of_c, d_of_c = (torch.func.jacrev(duals)(c.detach(), what) for what in ("y", "reduced_costs"))
        A = torch.tensor(lp.A.toarray())
        torch.testing.assert_close(d_of_c, torch.eye(lp.n, dtype=torch.float64) - A.T @ y_of_c)
        for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
            ours = transform(value, argnums=(0, 1, 2))(*(t.detach() for t in (c, b, u)))
            theirs = transform(lambda *a: value(*a, solver="highs"), argnums=(0, 1, 2))(
                *(t.detach() for t in (c, b, u))
            )
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_vmap_and_rules(family):
    rng = np.random.default_rng([13, *family.encode()])
    done = changed = 0
    for _ in range(40):
        if done == 6:
            break
        lp, data = FAMILIES[family](rng, 5)
        c = torch.from_numpy(tame(rng, lp, data)["c"])
        given = {k: torch.from_numpy(v) for k, v in data.items() if k != "c" and np.ndim(v) == 2}
        if not lpdiff.solve(lp, c=c, **given, throw=False).ok.all():
            continue
        done += 1
        sol = lpdiff.solve(lp, c=c, **given)
        names = list(given)

        def value(c, *rest, lp=lp, names=names, solver="auto"):
            return lpdiff.solve(lp, c=c, **dict(zip(names, rest, strict=True)), solver=solver).value

        assert torch.equal(torch.vmap(value)(c, *given.values()), sol.value)
        assert torch.equal(torch.vmap(torch.func.grad(value))(c, *given.values()), sol.x)
        assert torch.equal(torch.func.jacrev(value)(c[0], *(g[0] for g in given.values())), sol.x[0])
        each = tuple(given.values())
        _, pushed = torch.func.jvp(
            lambda c, value=value, each=each: torch.vmap(value)(c, *each), (c,), (torch.ones_like(c),)
        )
        torch.testing.assert_close(pushed, sol.x.sum(-1))
        # dx/dc by a rule that solves again: (x(c + l g) - x(c)) / l, in the user's signs.
        weights = torch.from_numpy(rng.uniform(-1, 1, c.shape))
        leaf = c.clone().requires_grad_()
        rule = lpdiff.gradients.Interpolation(0.5)
        try:
            (lpdiff.solve(lp, c=leaf, **given, gradient=rule).x * weights).sum().backward()
        except lpdiff.SolveError:
            continue
        sign = 1.0 if lp.sense == "min" else -1.0
        moved = lpdiff.solve(lp, c=c + sign * 0.5 * weights, **given)
        torch.testing.assert_close(leaf.grad, sign * (moved.x - sol.x) / 0.5, rtol=0, atol=1e-9)
        changed += bool(leaf.grad.any())
    assert done == 6 and changed


# -- the same bits -----------------------------------------------------------------------------------------


def answers(lp, data, items, threads=1, **how):
    """All that a solve says of some items, gradients included."""
    picked = {k: v[items] if np.ndim(v) == 2 else v for k, v in data.items()}
    leaves = [torch.tensor(picked[k], requires_grad=True) for k in picked]
    given = dict(zip(picked, leaves, strict=True))
    if "upper" in given:
        given["bounds"] = (None, given.pop("upper"))
    sol = lpdiff.solve(lp, **given, throw=False, threads=threads, gradient="exact", **how)
    basis = sol.basis
    ok = sol.ok
    total = torch.where(ok, sol.value, torch.zeros_like(sol.value)).sum()
    for part in (sol.x, sol.y, sol.reduced_costs):
        total = (
            total + torch.where(ok[:, None], part * torch.cos(part.detach()), torch.zeros_like(part)).sum()
        )
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    found = [sol.value, sol.x, sol.y, sol.reduced_costs, sol.status, sol.gap, sol.iterations, sol.fallback]
    found += [sol.primal_residual, sol.dual_residual, basis.columns, basis.rows, basis.valid, sol.unique]
    found += [torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves, strict=True)]
    found.append(torch.from_numpy(sol._solved.solvers))
    return [t.detach() for t in found]


def assert_same_bits(lp, data, rng, monkeypatch):
    size = len(data["c"])
    everyone = np.arange(size)
    alone = [answers(lp, data, everyone[k : k + 1]) for k in everyone]
    alone = [torch.cat(parts) for parts in zip(*alone, strict=True)]
    shuffled = rng.permutation(size)
    for items, threads, chunk in (
        (everyone, 1, None),
        (shuffled, 2, None),
        (shuffled, 3, None),
        (shuffled[: size // 2], 2, 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_SHORT", 0)  # threads, however small the batch
            if chunk:
                patch.setattr(engine, "_CHUNK", chunk)
            found = answers(lp, data, items, threads)
        for k, (one, other) in enumerate(zip(alone, found, strict=True)):
            assert torch.equal(one[items].nan_to_num(7.0), other.nan_to_num(7.0)), (k, threads, chunk)


@pytest.mark.parametrize("family", FAMILIES)
def test_same_bits_in_any_company(family, monkeypatch):
    rng = np.random.default_rng([14, *family.encode()])
    for _ in range(5):
        lp, data = FAMILIES[family](rng, 7)
        assert_same_bits(lp, data, rng, monkeypatch)


def test_same_bits_where_items_take_different_routes(monkeypatch):
    rng = np.random.default_rng(15)
    n, size = 5, 11
    lp = LinearProgram(
        A=incidence(*bipartite(n, n), 2 * n), row_lower=np.repeat([1.0, -1.0], n),
        row_upper=np.repeat([1.0, -1.0], n),
    )  # fmt: skip
    c, rows, upper = various_assignments(rng, n, size)
    data = {"c": c, "row_lower": rows, "row_upper": rows, "upper": upper}
    assert len(set(answers(lp, data, np.arange(size))[-1].tolist())) == 3  # assignment, network, HiGHS
    assert_same_bits(lp, data, rng, monkeypatch)


def various_assignments(rng, n, size):
    """One program, other numbers: matchings, ties, forbidden pairs, other sides, capacities, no optimum."""
    c = rng.normal(size=(size, n * n))
    c[4] = rng.integers(0, 3, n * n)
    rows = np.tile(np.repeat([1.0, -1.0], n), (size, 1))
    upper = np.full((size, n * n), np.inf)
    rows[1] *= 2.0
    rows[2, [0, n]] *= 3.0
    rows[3, 0] = 5.0  # no balance
    upper[5, 3] = 0.0
    upper[6] = 0.5
    upper[7, :n] = 0.0  # nowhere to go
    upper[8] = 1.0
    c[9, 2] = np.nan
    return c, rows, upper


def test_same_bits_beside_items_without_an_optimum(monkeypatch):
    """HiGHS solves those, and knows the bases of what it solves: others must not get theirs from it."""
    rng = np.random.default_rng(16)
    square, n = incidence(*bipartite(3, 3), 6), 9
    ground = incidence(np.array([0, 1, 0]), np.array([1, 2, 2]), 2)
    sides = np.array([*[1] * 3, *[-1] * 3, 0, 0, *[1] * 3, *[-1] * 3])
    low = np.concatenate([np.zeros(n), np.full(3, -np.inf), np.zeros(n)])
    lp = LinearProgram(
        A=sp.csc_array(sp.block_diag([square, ground, square])), row_lower=sides, row_upper=sides,
        bounds=np.stack([low, np.full(21, np.inf)], axis=1),
    )  # fmt: skip
    c = rng.uniform(0.1, 1, (12, 21))
    c[:, n : n + 3] = [[0.1, 0.2, 0.30000000000000004]]
    c[::4, n] = 7.0  # round and round
    found = answers(lp, {"c": c}, np.arange(12))
    assert found[4].tolist() == [2, 0, 0, 0] * 3
    assert_same_bits(lp, {"c": c}, rng, monkeypatch)


def test_ties_in_one_row():
    """A row's basis has one member: the variable that stands between its bounds, if there is one."""
    rng = np.random.default_rng(17)
    between = 0
    for _ in range(40):
        n = int(rng.integers(2, 7))
        a = rng.choice([1.0, 2.0, -1.0], n)
        inside = a @ rng.choice([0.0, 1.0, 0.5], n)
        lp = LinearProgram(A=a[None], row_lower=[inside], row_upper=[inside], bounds=(0, 1))
        c = a * rng.choice([1.0, 1.0, 2.0], (6, n))
        sol = compare(lp, {"c": c})
        assert sol.statistics == {"selection": 6} and check_basis(lp, {"c": c}, sol) == 1.0
        between += int(((sol.x > 0) & (sol.x < 1)).any(-1).sum())
    assert between > 50
