"""solver="auto" not to be trusted: data that vary, near misses, wrong proposals, and what it tells."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from families import bipartite, grid_arcs, incidence
from test_auto import compare, various_assignments

import lpdiff
from lpdiff import LinearProgram, Status, UnsupportedError
from lpdiff.engine import Route

# -- programs ----------------------------------------------------------------------------------------------


def matching(n=4, **how):
    sides = np.repeat([1.0, -1.0], n)
    return LinearProgram(A=incidence(*bipartite(n, n), 2 * n), row_lower=sides, row_upper=sides, **how)


def one_path(tail, head, nodes, **how):
    b = np.zeros(nodes)
    b[0], b[-1] = 1.0, -1.0
    return LinearProgram(A=incidence(np.array(tail), np.array(head), nodes), row_lower=b, row_upper=b, **how)


def grid(n=3, m=3, **how):
    return one_path(*grid_arcs(n, m), n * m, **how)


def ring(**how):
    """0 -> 1 -> 2 -> 3 and back again: cycles."""
    return one_path([0, 1, 2, 1, 2, 3, 0, 3], [1, 2, 3, 0, 1, 2, 2, 1], 4, **how)


def with_a_closed_arc():
    """What the kernel of usual batches does not take."""
    bounds = [(0, None)] * grid().n
    bounds[5] = (0, 0)
    return grid(bounds=bounds)


def maze():
    """A grid that can be walked both ways."""
    tail, head = grid_arcs(3, 3, diagonal=False)
    return one_path(np.append(tail, head), np.append(head, tail), 9)


def transport(rng, rows=3, columns=4):
    supply, demand = rng.uniform(1, 2, rows), rng.uniform(1, 2, columns)
    b = np.concatenate([supply, -demand * supply.sum() / demand.sum()])
    return LinearProgram(A=incidence(*bipartite(rows, columns), rows + columns), row_lower=b, row_upper=b)


def knapsack(n=6):
    return LinearProgram(A_ub=np.arange(1.0, n + 1)[None], b_ub=[4.3], bounds=(0, 1), sense="max")


def box(n=6):
    return LinearProgram(bounds=np.tile([-1.0, 2.0], (n, 1)))


def general(rng, m=4, n=7):
    return LinearProgram(A_ub=rng.uniform(0.5, 2, (m, n)), b_ub=rng.uniform(1, 3, m), sense="max")


def beside(*parts):
    """Programs side by side."""
    bounds = np.concatenate([np.stack([p.lower, p.upper], axis=1) for p in parts])
    return LinearProgram(
        A=sp.csc_array(sp.block_diag([p.A for p in parts])),
        row_lower=np.concatenate([p.row_lower for p in parts]),
        row_upper=np.concatenate([p.row_upper for p in parts]),
        bounds=bounds,
    )


def routed():
    """A program for each kernel, with who is asked."""
    rng = np.random.default_rng(0)
    return {
        "assignment": matching(),
        "path": grid(),
        "few paths": with_a_closed_arc(),
        "cycles": maze(),
        "network": transport(rng),
        "selection": knapsack(),
        "separable": box(),
        "vertices": general(rng),
        "components": beside(matching(3), grid(2, 3), general(rng)),
    }


ROUTES = {"few paths": "path", "cycles": "path", "separable": "selection"}
FIRST = ROUTES | {"network": "assignment"}  # who is asked first
EACH = pytest.mark.parametrize("kind", routed())


def by(sol):
    """The solver of each item."""
    return [sol._plan.solvers[k] for k in sol._solved.solvers]


# -- data that decide --------------------------------------------------------------------------------------


def test_assignments_that_are_none():
    rng = np.random.default_rng(1)
    n, size = 4, 11
    lp = matching(n)
    for _ in range(5):
        c, rows, upper = various_assignments(rng, n, size)
        given = {"c": c, "row_lower": rows, "row_upper": rows, "bounds": (None, upper)}
        sol = lpdiff.solve(lp, **given, throw=False)
        reference = lpdiff.solve(lp, **given, throw=False, solver="highs")
        S = Status
        assert sol.status.tolist() == reference.status.tolist()
        assert sol.status.tolist() == [0, 0, 0, S.INFEASIBLE, 0, 0, 0, S.INFEASIBLE, 0, S.INVALID, 0]
        torch.testing.assert_close(sol.value, reference.value, equal_nan=True, rtol=1e-9, atol=1e-9)
        a, f, h = "assignment", "network", "highs"
        assert by(sol) == [a, a, f, h, a, a, f, h, a, h, a]
        assert sol.statistics == {a: 6, f: 2, h: 3}
        assert not sol.fallback.any()
        assert "c of x[2]" in sol.messages[9] and set(sol.certificates) == {3, 7}
        assert all(certificate.verified for certificate in sol.certificates.values())
        with pytest.raises(lpdiff.SolveError, match=r"(?s)3 of 11.*items 3, 7: infeasible.*item 9: invalid"):
            lpdiff.solve(lp, **given)


def test_paths_that_are_none():
    rng = np.random.default_rng(2)
    lp = ring()
    c = rng.uniform(0.1, 1, (8, lp.n))
    rows = np.tile(lp.row_lower, (8, 1))
    upper = np.full((8, lp.n), np.inf)
    c[1, [0, 3]] = -1.0  # a cycle of negative costs, and nothing holds it
    c[2, [0, 3]], upper[2] = -1.0, 2.0  # something does
    c[3] = rng.uniform(-0.01, 0.01, lp.n)
    upper[3] = 1.0
    upper[4, [0, 6]] = 0.0  # out of reach
    rows[5] = [2.0, -1.0, 0.0, -1.0]  # two sinks
    upper[6, [0, 6]] = 0.75  # two paths share the flow
    c[7, 0], upper[7] = -0.05, 1.0  # negative, but no cycle of the others is
    c[7, 1:] = 0.5
    sol = lpdiff.solve(lp, c=c, row_lower=rows, row_upper=rows, bounds=(None, upper), throw=False)
    reference = lpdiff.solve(
        lp, c=c, row_lower=rows, row_upper=rows, bounds=(None, upper), throw=False, solver="highs"
    )
    assert sol.status.tolist() == reference.status.tolist() == [0, 2, 0, 0, 1, 0, 0, 0]
    torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)
    assert [by(sol)[k] for k in (0, 1, 2, 4, 5, 6, 7)] == [
        *("path", "highs", "network", "highs", "network", "network", "path")
    ]
    assert not sol.fallback.any()
    assert sol.certificates[1].verified and sol.certificates[4].verified


@pytest.mark.parametrize("kind", ["assignment", "path", "cycles"])
def test_one_side_given_alone(kind):
    """Each side counts, whichever of the others are the declared ones."""
    lp = routed()[kind]
    c = far_costs(np.random.default_rng(27), 4, lp.n)
    least, most = lp.row_lower.copy(), lp.row_upper.copy()
    least[0], most[-1] = -np.inf, np.inf
    for given in (
        {"row_lower": least},
        {"row_upper": most},
        {"bounds": (0.1, None)},
        {"bounds": (None, np.where(np.arange(lp.n) % 3, 0.6, 0.9))},
    ):
        sol, reference = (lpdiff.solve(lp, c=c, **given, solver=s, throw=False) for s in ("auto", "highs"))
        assert sol.status.tolist() == reference.status.tolist()
        assert kind not in sol.statistics and "path" not in sol.statistics
        torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)


@EACH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_costs_that_are_no_numbers(kind, bad):
    lp = routed()[kind]
    c = np.random.default_rng(3).uniform(0.1, 1, (3, lp.n))
    c[1, 2] = bad
    sol = lpdiff.solve(lp, c=c, throw=False)
    assert sol.status.tolist() == [0, Status.INVALID, 0] and torch.isnan(sol.value[1])
    assert by(sol) == [ROUTES.get(kind, kind), "highs", ROUTES.get(kind, kind)]
    assert "x[2]" in sol.messages[1] and not sol.fallback.any()
    with pytest.raises(lpdiff.SolveError, match=r"(?s)item 1: .*c of x\[2\].*use bounds") as error:
        lpdiff.solve(lp, c=c)
    assert error.value.items == [(1,)]


@EACH
def test_matrices_at_solve_time(kind):
    lp = routed()[kind]
    rng = np.random.default_rng(4)
    c = torch.from_numpy(rng.uniform(0.1, 1, (3, lp.n)))
    name = ROUTES.get(kind, kind)
    values = torch.tensor(lp.A.data, requires_grad=True)
    same = lpdiff.solve(lp, c=c, A_values=values)
    assert same.statistics == {name: 3}
    plain = lpdiff.solve(lp, c=c)
    assert torch.equal(same.value, plain.value) and torch.equal(same.x, plain.x)
    if lp.nnz:
        (gradient,) = torch.autograd.grad(same.value.sum(), values)
        expected = -(plain.y[:, lp.rows.astype(int)] * plain.x[:, lp.cols.astype(int)]).sum(0)
        torch.testing.assert_close(gradient, expected)
    # Another matrix is another program (one row takes any).
    other = lp.A.data * rng.uniform(0.9, 1.1, (3, lp.nnz))
    other[0] = lp.A.data
    wide = {} if kind in ("selection", "separable", "vertices") else {"row_lower": -np.inf}
    moved = lpdiff.solve(lp, c=c, A_values=other, **wide, throw=False)
    reference = lpdiff.solve(lp, c=c, A_values=other, **wide, solver="highs", throw=False)
    assert moved.status.tolist() == reference.status.tolist()
    torch.testing.assert_close(moved.value, reference.value, rtol=1e-9, atol=1e-9)
    assert moved.solver == ("selection" if kind in ("selection", "separable") else "highs")
    one = lpdiff.solve(lp, c=c, A_values=2 * lp.A.data, **wide, throw=False)
    reference = lpdiff.solve(lp, c=c, A_values=2 * lp.A.data, **wide, solver="highs", throw=False)
    torch.testing.assert_close(one.value, reference.value, rtol=1e-9, atol=1e-9)


def test_stored_zeros_that_come_to_life():
    """Entries stored as 0 are none, until a solve gives them a value: blocks join, columns get a third."""
    two = sp.block_diag([incidence(*bipartite(2, 2), 4)] * 2).tolil()
    dense = two.toarray()
    dense[0, 7] = 1e-300
    joined = sp.csc_array(dense)
    position = int(np.flatnonzero(joined.data == 1e-300)[0])
    joined.data[position] = 0.0
    sides = np.tile([1.0, 1.0, -1.0, -1.0], 2)
    lp = LinearProgram(A=joined, row_lower=sides, row_upper=sides)
    assert lp.nnz == 17 and lp.structure.components == 2
    c = np.random.default_rng(5).uniform(size=(4, 8))
    assert lpdiff.solve(lp, c=c).statistics == {"components": 4}
    values = lp.A.data.copy()
    values[position] = 0.5
    given = {"A_values": values, "row_lower": sides - 0.6, "row_upper": sides + 0.6}
    sol, reference = (lpdiff.solve(lp, c=c, **given, solver=s) for s in ("auto", "highs"))
    assert sol.statistics == {"highs": 4}
    torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)


# -- near misses -------------------------------------------------------------------------------------------


def near_networks():
    """Matrices that almost are networks, with a word of the reason."""
    # Without its last row: where the rows add up to 0 an entry off by 1e-9 makes another program.
    dense = grid().A.toarray()[:-1]
    for factor in (1 + 1e-9, 1 - 1e-9, 1.0 + 1e-6, 2.0):
        A = dense.copy()
        A[np.flatnonzero(A[:, 2])[0], 2] *= factor
        yield f"one entry times {factor!r}", A
    for tiny in (1e-300, 1e-12, 1e-3):
        A = dense.copy()
        A[np.flatnonzero(A[:, 1] == 0)[-1], 1] = tiny
        yield f"a third entry of {tiny}", A
    A = dense.copy()
    A[np.flatnonzero(A[:, 3] < 0)[0], 3] = 1.0
    yield "an odd cycle of signs", A
    triangle = np.array([[1.0, 0, 1], [1, 1, 0], [0, 1, 1]])
    yield "odd cycle", np.hstack([triangle, np.array([[1.0], [0], [0]])])
    scales = np.array([[1.0, 0, -2.0], [-1.0, 1, 0], [0, -1, 1]])
    yield "scales that do not close", np.hstack([scales, np.eye(3)])
    yield "scales that nearly close", np.hstack([scales * [[1, 1, 0.5 + 1e-10]], np.eye(3)])


@pytest.mark.parametrize(("name", "A"), [*near_networks()], ids=[name for name, _ in near_networks()])
def test_matrices_that_are_almost_networks(name, A):
    rng = np.random.default_rng([6, len(name)])
    for _ in range(8):
        m, n = A.shape
        rows, cols = rng.permutation(m), rng.permutation(n)
        inside = rng.uniform(0, 1, n)
        b = A @ inside
        lp = LinearProgram(A=A[rows][:, cols], row_lower=b[rows], row_upper=b[rows], bounds=(0, 2))
        assert "network" not in lp.structure.kinds, lp.structure
        assert "not a network" in str(lp.structure)
        sol = compare(lp, {"c": rng.normal(size=(3, n))})
        assert sol.ok.all() and set(by(sol)) <= {"vertices", "highs"}
        for solver in ("assignment", "path", "network"):
            with pytest.raises(UnsupportedError, match=r"(?s)nothing else; this program is.*not a network"):
                lpdiff.plan(lp, solver=solver)


def test_rounding_is_not_a_near_miss():
    """Scales computed in floating point are those of a network; its certificate is that of the numbers."""
    rng = np.random.default_rng(7)
    for _ in range(10):
        lp = grid(4, 4)
        s, a = rng.uniform(0.1, 3, lp.m), rng.uniform(0.1, 3, lp.n)
        scaled = LinearProgram(
            A=sp.diags_array(s) @ lp.A @ sp.diags_array(a), row_lower=lp.row_lower * s,
            row_upper=lp.row_upper * s, bounds=np.stack([np.zeros(lp.n), 1 / a], axis=1),
        )  # fmt: skip
        sol = compare(scaled, {"c": rng.normal(size=(4, lp.n))})
        assert sol.statistics == {"path": 4}


def nearly_assignments():
    n = 4
    sides, low, high = np.repeat([1.0, -1.0], n), np.zeros(n * n), np.full(n * n, np.inf)

    def changed(array, places, value):
        array = array.copy()
        array[places] = value
        return array

    yield "a side of 2", changed(changed(sides, 0, 2.0), n, -2.0), low, high
    yield "a side of 1 + 1e-9", changed(changed(sides, 0, 1 + 1e-9), n, -1 - 1e-9), low, high
    yield "a capacity", sides, low, changed(high, 3, 0.5)
    yield "a capacity of 1 - 1e-9", sides, low, changed(high, 3, 1 - 1e-9)
    yield "a lower bound", sides, changed(low, 5, 0.1), high
    yield "a lower bound of 1e-9", sides, changed(low, 5, 1e-9), high
    yield "a negative lower bound", sides, changed(low, 5, -1.0), high
    yield "a free variable", sides, changed(low, 5, -np.inf), high


@pytest.mark.parametrize(
    ("name", "sides", "low", "high"), [*nearly_assignments()], ids=[case[0] for case in nearly_assignments()]
)
def test_programs_that_are_almost_assignments(name, sides, low, high):
    rng = np.random.default_rng([8, len(name)])
    lp = LinearProgram(A=matching().A, row_lower=sides, row_upper=sides, bounds=np.stack([low, high], axis=1))
    assert "a minimum-cost flow (" in str(lp.structure)
    for costs in (rng.normal(size=(6, 16)), rng.integers(0, 3, (6, 16)).astype(float)):
        sol = compare(lp, {"c": costs})
        assert {by(sol)[k] for k in np.flatnonzero(sol.ok)} <= {"network"}
        # The same numbers at solve time, for the program that is one.
        later = lpdiff.solve(
            matching(), c=costs, row_lower=sides, row_upper=sides, bounds=(low, high), throw=False
        )
        assert torch.equal(later.value, sol.value) and by(later) == by(sol)


def test_graphs_that_are_almost_acyclic():
    rng = np.random.default_rng(9)
    tail, head = grid_arcs(3, 3)
    lp = one_path(np.append(tail, 8), np.append(head, 4), 9)
    assert "acyclic" in str(grid().structure) and "a cycle through" in str(lp.structure)
    c = rng.normal(size=(20, lp.n))
    sol = compare(lp, {"c": c})
    assert {Status.OPTIMAL, Status.UNBOUNDED} == set(sol.status.tolist())
    assert set(np.array(by(sol))[sol.ok.numpy()]) == {"path"}
    capped = one_path(np.append(tail, 8), np.append(head, 4), 9, bounds=(0, 1))
    sol = compare(capped, {"c": c})
    assert sol.ok.all() and set(by(sol)) == {"path", "network"}
    for upper in (0.5, 1 - 1e-9):
        tight = grid(bounds=np.stack([np.zeros(16), np.where(np.arange(16) == 2, upper, np.inf)], axis=1))
        assert "a capacity binds" in str(tight.structure)
        assert set(by(compare(tight, {"c": rng.normal(size=(8, 16))}))) == {"network"}


# -- wrong proposals ---------------------------------------------------------------------------------------


def put(array, place, value):
    array[place] = value


def add(array, place, value):
    array[place] += value


def unused(item):
    """An arc that is not on the path."""
    return next(arc for arc in range(100) if arc not in item.path[: item.length[0]])


# What to do to the proposal for an item, given another's: all of it wrong. The first word says to what.
WRONG = {
    "x: NaN": lambda i, o: put(i.x, 0, np.nan),
    "x: infinity": lambda i, o: put(i.x, -1, np.inf),
    "x: that of other costs": lambda i, o: put(i.x, slice(None), o.x),
    "x: 0": lambda i, o: put(i.x, slice(None), 0.0),
    "x: twice": lambda i, o: put(i.x, slice(None), 2 * i.x),
    "x: off by 1": lambda i, o: add(i.x, 0, 1.0),
    "x: off by 1e-6": lambda i, o: add(i.x, i.x.argmax(), 1e-6),
    "path: that of other costs": lambda i, o: (
        put(i.path, slice(None), o.path),
        put(i.length, 0, o.length[0]),
    ),
    "path: cut short": lambda i, o: add(i.length, 0, -1),
    "path: without its end": lambda i, o: (put(i.path, slice(-1), i.path[1:].copy()), add(i.length, 0, -1)),
    "path: an arc twice": lambda i, o: put(i.path, 0, i.path[1]),
    "path: an arc too many": lambda i, o: (put(i.path, i.length[0], unused(i)), add(i.length, 0, 1)),
    "path: none": lambda i, o: put(i.length, 0, 0),
    "ends: NaN": lambda i, o: put(i.ends, 1, np.nan),
    "ends: the next number": lambda i, o: put(i.ends, 1, np.nextafter(i.ends[1], 0)),
    "ends: those of other costs": lambda i, o: put(i.ends, slice(None), o.ends),
    "y: NaN": lambda i, o: put(i.y, 0, np.nan),
    "y: infinity": lambda i, o: put(i.y, -1, -np.inf),
    "y: that of other costs": lambda i, o: put(i.y, slice(None), o.y),
    "y: off by 1": lambda i, o: add(i.y, 0, 1.0),
    "y: off by 1e-6": lambda i, o: add(i.y, 0, -1e-6),
    "y: negated": lambda i, o: put(i.y, slice(None), -i.y),
    "y: 0": lambda i, o: put(i.y, slice(None), 0.0),
    "everything: that of other costs": lambda i, o: [
        put(array, slice(None), vars(o)[name]) for name, array in vars(i).items()
    ],
}

# Kernel entry: module, name, what it proposes, and who is asked next.
KERNELS = {
    "path": ("labels", "shortest", ("path", "length", "ends"), "network"),
    "few paths": ("paths", "dag_paths", ("path", "length", "y"), "network"),
    "cycles": ("paths", "cyclic_paths", ("path", "length", "y"), "network"),
    "network": ("simplex", "network_simplex", ("x", "y"), "highs"),
    "selection": ("selection", "one_row", ("x", "y"), "highs"),
    "separable": ("selection", "separable", ("x",), "highs"),
    "assignment": ("assignment", "solve", ("match", "u", "v"), "network"),
}


def corrupt(monkeypatch, kind, spoil, *, name=None):
    """Let ``spoil(arguments by name)`` have its way after a kernel has run; for programs made from now on."""
    module = importlib.import_module(f"lpdiff.kernels.{KERNELS[kind][0]}")
    name = KERNELS[kind][1] if name is None else name
    kernel = getattr(module, name)

    def corrupted(*arguments):
        told = kernel(*arguments)
        spoil(dict(zip(inspect.signature(kernel).parameters, arguments, strict=True)))
        return told

    monkeypatch.setattr(module, name, corrupted)


def corrupt_items(monkeypatch, kind, change, far, spoiled, *, name=None):
    """Let ``change(item, other)`` have its way with the proposals for the spoiled items.

    far: Whose proposal is handed as the other one, (B,). name: Of the kernel, where several take part.
    """
    outputs = KERNELS[kind][2]
    kernel_name = KERNELS[kind][1] if name is None else name

    def spoil(arguments):
        size = len(arguments[outputs[0]])
        whole = -(-size // 8) if kernel_name == "shortest" else size  # which counts in blocks of eight
        assert (arguments["start"], arguments["stop"]) == (0, whole)
        # views, so that a number of an item can be written too
        items, others = (
            [
                types.SimpleNamespace(**{n: take(arguments[n])[k : k + 1].reshape(-1) for n in outputs})
                for k in range(size)
            ]
            for take in (lambda array: array, np.copy)
        )
        for k in np.flatnonzero(spoiled):
            change(items[k], others[far[k]])

    corrupt(monkeypatch, kind, spoil, name=name)


def far_costs(rng, size, n):
    """Costs whose optima differ from item to item, and by far more than tolerances."""
    return rng.uniform(0.5, 3, (size, n))


def assert_repaired(lp, c, spoiled, name, after):
    """The right answer all the same, from another solver, and the solution says so."""
    reference = lpdiff.solve(lp, c=c, solver="highs")
    sol = lpdiff.solve(lp, c=c, threads=1)
    assert sol.ok.all()
    torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sol.x, reference.x, rtol=1e-9, atol=1e-9)
    assert sol.fallback.tolist() == spoiled.tolist()
    assert by(sol) == [after if s else name for s in spoiled]
    assert sol.statistics == {name: int((~spoiled).sum()), after: int(spoiled.sum())}


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (kind, wrong)
        for kind, (_, _, outputs, _) in KERNELS.items()
        for wrong in WRONG
        if wrong.split(":")[0] in (*outputs, "everything") and kind != "assignment"
    ],
)
def test_wrong_proposals_are_refused(kind, wrong, scaled, monkeypatch):
    rng = np.random.default_rng([10, *kind.encode(), *wrong.encode()])
    size = 10

    def program():
        """A new one each time: plans keep the kernels that they have found."""
        lp = routed()[kind]
        return doubled(lp) if scaled and kind not in ("separable", "path") else lp

    lp = program()
    c = far_costs(rng, size, lp.n) * (rng.choice([-1, 1], (size, lp.n)) if kind == "separable" else 1)
    c[1::2] = c[1::2, ::-1]
    x = lpdiff.solve(lp, c=c).x.numpy()
    far = [max(range(size), key=lambda k, i=i: np.abs(x[k] - x[i]).sum()) for i in range(size)]
    spoiled = np.arange(size) % 2 == 1
    corrupt_items(monkeypatch, kind, WRONG[wrong], far, spoiled)
    assert_repaired(program(), c, spoiled, ROUTES.get(kind, kind), KERNELS[kind][3])


def doubled(lp):
    """In other units: every other row counts half, every third variable is three times as large."""
    s, a = np.where(np.arange(lp.m) % 2, -2.0, 1.0), np.where(np.arange(lp.n) % 3, 1.0, 1 / 3)
    low, high = lp.row_lower * s, lp.row_upper * s
    return LinearProgram(
        A=sp.diags_array(s) @ lp.A @ sp.diags_array(a), row_lower=np.minimum(low, high),
        row_upper=np.maximum(low, high), bounds=np.stack([lp.lower / a, lp.upper / a], 1), sense=lp.sense,
    )  # fmt: skip


MATCHINGS = {
    "two rows swapped": lambda i: put(i.match, [0, 1], i.match[[1, 0]]),
    "rotated": lambda i: put(i.match, slice(None), np.roll(i.match, 1)),
    "a column twice": lambda i: put(i.match, 0, i.match[1]),
    "nobody": lambda i: put(i.match, i.match.argmin(), -1),
    "a dual off by 1": lambda i: add(i.u, 0, 1.0),
    "duals off by 1": lambda i: (add(i.u, 0, 1.0), add(i.v, 0, -1.0)),
    "duals off by 1e-6": lambda i: (add(i.u, 0, 1e-6), add(i.v, i.match[1], -1e-6)),
    "NaN in u": lambda i: put(i.u, 1, np.nan),
    "NaN in v": lambda i: put(i.v, 1, np.nan),
    "infinity in v": lambda i: put(i.v, 1, -np.inf),
    "no duals": lambda i: (put(i.u, slice(None), 0.0), put(i.v, slice(None), 0.0)),
}


@pytest.mark.parametrize("natural", [True, False], ids=["in place", "gathered"])
@pytest.mark.parametrize("wrong", MATCHINGS)
def test_wrong_matchings_are_refused(wrong, natural, monkeypatch):
    rng = np.random.default_rng([11, *wrong.encode()])
    lp, size = matching(), 10
    c = far_costs(rng, size, lp.n)
    if not natural:
        order = rng.permutation(lp.n)
        lp = LinearProgram(A=lp.A[:, order], row_lower=lp.row_lower, row_upper=lp.row_upper)
    spoiled = np.arange(size) % 2 == 1
    last = "solve" if natural else "stand"  # what is gathered has basic duals at once
    change = lambda item, _: MATCHINGS[wrong](item)  # noqa: E731
    corrupt_items(monkeypatch, "assignment", change, np.arange(size), spoiled, name=last)
    assert_repaired(lp, c, spoiled, "assignment", "network")


@pytest.mark.parametrize("wrong", MATCHINGS)
def test_duals_that_are_made_basic_are_proved_again(wrong, monkeypatch):
    rng = np.random.default_rng([14, *wrong.encode()])
    lp, size = matching(), 6
    c = torch.tensor(far_costs(rng, size, lp.n))
    right = lpdiff.solve(lp, c=c).y.numpy()
    spoiled = np.arange(size) % 2 == 1
    change = lambda item, _: MATCHINGS[wrong](item)  # noqa: E731
    corrupt_items(monkeypatch, "assignment", change, np.arange(size), spoiled, name="stand")
    sol = lpdiff.solve(lp, c=c)
    y, d = sol.y.numpy(), sol.reduced_costs.numpy()
    np.testing.assert_array_equal(y[~spoiled], right[~spoiled])
    # Those that were optimal before stay, rather than wrong ones.
    assert (d >= -1e-12).all() and np.abs(d * sol.x.numpy()).max() <= 1e-12
    np.testing.assert_allclose(y @ lp.row_lower, sol.value.numpy(), rtol=1e-12)


@pytest.mark.parametrize("status", [1, 2, 7, 6, 99, -1])
@pytest.mark.parametrize("kind", KERNELS)
def test_wrong_statuses_are_looked_into(kind, status, monkeypatch):
    """Whoever says that there is no optimum, or nothing, is not believed."""
    lp, size = routed()[kind], 10
    c = far_costs(np.random.default_rng(12), size, lp.n)
    spoiled = np.arange(size) < 3
    reference = lpdiff.solve(lp, c=c, solver="highs")
    corrupt(monkeypatch, kind, lambda told: put(told["status"], spoiled[: len(told["status"])], status))
    sol = lpdiff.solve(lp, c=c, threads=1)
    torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)
    name = ROUTES.get(kind, kind)
    assert by(sol)[3:] == [name] * 7 and name not in by(sol)[:3]
    assert not sol.fallback[3:].any()


def test_a_kernel_that_finds_optima_where_there_is_none(monkeypatch):
    lp = grid()
    c = far_costs(np.random.default_rng(13), 4, lp.n)
    upper = np.full((4, lp.n), np.inf)
    upper[1] = 0.0

    def spoil(arguments):
        arguments["status"][:] = 0
        arguments["y"][np.isnan(arguments["y"])] = 0.0
        arguments["length"][1] = 2
        arguments["path"][1, :2] = arguments["path"][0, :2]

    corrupt(monkeypatch, "few paths", spoil)
    sol = lpdiff.solve(lp, c=c, bounds=(None, upper), throw=False)
    assert sol.status.tolist() == [0, 1, 0, 0] and by(sol) == ["path", "highs", "path", "path"]
    assert sol.certificates[1].verified


@pytest.mark.parametrize("kind", KERNELS)
def test_kernels_that_break(kind, monkeypatch):
    def spoil(arguments):
        raise ZeroDivisionError("on purpose")

    corrupt(monkeypatch, kind, spoil)
    lp = routed()[kind]
    c = far_costs(np.random.default_rng(14), 9, lp.n)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: on purpose"):
        sol = lpdiff.solve(lp, c=c)
    torch.testing.assert_close(sol.value, lpdiff.solve(lp, c=c, solver="highs").value, rtol=1e-9, atol=1e-9)
    assert sol.statistics == {KERNELS[kind][3]: 9}


def test_a_wrong_proposal_for_one_block(monkeypatch):
    lp = beside(grid(), grid(), matching())
    c = far_costs(np.random.default_rng(15), 6, lp.n)
    reference = lpdiff.solve(lp, c=c, solver="highs")
    others = np.roll(np.arange(12), 1)
    corrupt_items(
        monkeypatch, "few paths", WRONG["path: that of other costs"], others, np.arange(12) % 3 == 0
    )
    sol = lpdiff.solve(lp, c=c, threads=1)
    torch.testing.assert_close(sol.value, reference.value, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sol.x, reference.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["path", "assignment"])
def test_what_is_kept_is_written_out_beside_the_solutions_of_others(kind):
    """Items that learned vertices leave go to kernels that write x and y when they are asked for."""
    lp, rng = {"path": grid(4, 5), "assignment": matching(5)}[kind], np.random.default_rng(17)
    c = far_costs(rng, 40, lp.n)
    plan = lpdiff.plan(lp, learn=c[:3], threads=1)
    first = dataclasses.replace(plan.routes[0].backend, pivots=0)  # no way from one vertex to the next
    plan.routes = (Route(first, first.prepare(lp.form)), *plan.routes[1:])
    sol, reference = lpdiff.solve(lp, c=c, plan=plan), lpdiff.solve(lp, c=c, solver="highs")
    assert set(by(sol)) == {"vertices", kind}
    torch.testing.assert_close(sol.x, reference.x)
    torch.testing.assert_close(sol.y @ torch.tensor(lp.row_lower), reference.value)


# -- planning ----------------------------------------------------------------------------------------------


@EACH
def test_plans_say_what_they_do(kind):
    lp = routed()[kind]
    plan = lpdiff.plan(lp, threads=1)
    text = str(plan)
    assert plan.solver == FIRST.get(kind, kind) and plan.solvers[-1] == "highs"
    head = text.splitlines()[0].lower()
    assert 0 <= head.index(plan.solver) < head.index("highs")
    if kind not in ("selection", "separable"):
        assert all(line in text for line in str(lp.structure).splitlines())
    c = far_costs(np.random.default_rng(16), 3, lp.n)
    reference = lpdiff.solve(lp, c=c, plan=plan)
    for other in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan)):
        assert str(other) == text
        again = lpdiff.solve(lp, c=c, plan=other)
        assert torch.equal(again.x, reference.x) and again.statistics == reference.statistics
        assert torch.equal(again.basis.columns, reference.basis.columns)
    for other in (pickle.loads(pickle.dumps(lp)), copy.deepcopy(lp)):
        again = lpdiff.solve(other, c=c)
        assert torch.equal(again.x, reference.x) and again.statistics == reference.statistics
    highs = lpdiff.plan(lp, solver="highs")
    assert highs.solvers == ("highs", "highs") and not highs.routes and plan.solver not in str(highs).lower()
    assert lpdiff.solve(lp, c=c, solver="highs").statistics == {"highs": 3}
    given = lpdiff.plan(lp, options={"presolve": False})
    assert not given.routes and "options were given" in str(given) and "presolve=False" in str(given)
    assert lpdiff.solve(lp, c=c, options={"presolve": False}).statistics == {"highs": 3}
    with pytest.raises(ValueError, match="unknown option 'pricing' of solver 'highs'"):
        lpdiff.solve(lp, c=c, options={"pricing": 1})


# What each forced solver says of the programs it cannot take.
REFUSALS = {
    ("assignment", "path"): "is not bipartite: use solver='auto'",
    ("assignment", "vertices"): r"(?s)this program is\n4 rows, 7 columns.*general.*solver='auto' finds",
    ("assignment", "components"): r"(?s)takes bipartite assignment problems and nothing else.*3 components",
    ("path", "components"): r"(?s)takes networks and nothing else; this program is\n.*3 components",
    ("network", "vertices"): r"(?s)takes networks and nothing else; this program is\n.*not a network",
    ("network", "separable"): r"(?s)this program is\n0 rows, 6 columns.*separable",
    (
        "selection",
        "assignment",
    ): "of at most one row, without integers, and this one has 8 rows: use",
}


@pytest.mark.parametrize(("solver", "kind"), REFUSALS)
def test_forced_solvers_that_do_not_fit(solver, kind):
    with pytest.raises(UnsupportedError, match=REFUSALS[solver, kind]):
        lpdiff.solve(routed()[kind], c=np.ones(routed()[kind].n), solver=solver)


@pytest.mark.parametrize(
    ("solver", "kind", "does"),
    [
        ("assignment", "assignment", "assignment"),
        ("assignment", "network", "highs"),
        ("network", "assignment", "network"),
        ("network", "path", "network"),
        ("path", "path", "path"),
        ("path", "cycles", "path"),
        ("path", "assignment", "highs"),
        ("selection", "separable", "selection"),
        ("vertices", "path", "vertices"),
    ],
)
def test_forced_solvers(solver, kind, does):
    """They take what they can; for numbers that they cannot take stands HiGHS."""
    lp = routed()[kind]
    c = far_costs(np.random.default_rng(17), 4, lp.n)
    sol = lpdiff.solve(lp, c=c, solver=solver)
    assert sol.statistics == {does: 4}
    torch.testing.assert_close(sol.value, lpdiff.solve(lp, c=c, solver="highs").value, rtol=1e-9, atol=1e-9)
    assert lpdiff.plan(lp, solver=solver).solver == solver


@EACH
def test_without_numba(kind, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "numba" else find(name, *a)
    )
    lp = routed()[kind]
    c = far_costs(np.random.default_rng(18), 2, lp.n)
    plan = lpdiff.plan(lp)
    assert "pip install numba" in str(plan) or kind == "components"
    sol = lpdiff.solve(lp, c=c, plan=plan)
    torch.testing.assert_close(sol.value, lpdiff.solve(lp, c=c, solver="highs").value, rtol=1e-9, atol=1e-9)
    assert set(sol.statistics) == {"highs"} or kind == "components"
    with pytest.raises(lpdiff.BackendError, match="'assignment' cannot run here: numba is not installed"):
        lpdiff.plan(lp, solver="assignment")


def test_without_numba_in_earnest():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np, lpdiff
eye, one = np.eye(3), np.ones((1, 3))
lp = lpdiff.LinearProgram(A_eq=np.vstack([np.kron(eye, one), np.kron(one, eye)]), b_eq=np.ones(6))
sol = lpdiff.solve(lp, c=np.arange(9.0))
assert "pip install numba" in str(lpdiff.plan(lp)), str(lpdiff.plan(lp))
print(sol.solver, float(sol.value))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["highs", "12.0"], done.stderr


def test_integers_go_to_highs():
    lp = matching(integrality=np.ones(16))
    c = far_costs(np.random.default_rng(19), 2, 16)
    sol = lpdiff.solve(lp, c=c)
    assert sol.statistics == {"highs": 2} and "integer variables" in str(lpdiff.plan(lp))
    torch.testing.assert_close(sol.value, lpdiff.solve(matching(), c=c).value)
    with pytest.raises(UnsupportedError, match="integer"):
        lpdiff.solve(lp, c=c, solver="assignment")


def test_senses_offsets_layers():
    rng = np.random.default_rng(20)
    for kind, low in routed().items():
        c = far_costs(rng, 3, low.n)
        bounds = np.stack([low.lower, np.minimum(low.upper, 2)], axis=1)
        how = {"A": low.A, "row_lower": low.row_lower, "row_upper": low.row_upper, "bounds": bounds}
        least = lpdiff.solve(LinearProgram(**how, offset=2.5), c=-c)
        most = lpdiff.solve(LinearProgram(**how, sense="max", offset=-2.5), c=c)
        assert torch.equal(least.value, -most.value) and torch.equal(least.x, most.x)
        assert torch.equal(least.y + 0.0, -most.y + 0.0) and least.statistics == most.statistics
        assert least.solver == {"cycles": "network"}.get(kind, ROUTES.get(kind, kind))
        layer = lpdiff.LPLayer(LinearProgram(**how, sense="max", offset=-2.5), gradient="exact")
        theta = torch.tensor(c, requires_grad=True)
        found = layer(c=theta)
        assert torch.equal(found.value, most.value)
        found.value.sum().backward()
        assert torch.equal(theta.grad, most.x)
        declared = LinearProgram(**how, c=-c[0], offset=2.5)
        torch.testing.assert_close(lpdiff.solve(declared).value, least.value[0], rtol=1e-12, atol=1e-12)
        single = lpdiff.solve(LinearProgram(**how), c=torch.tensor(c, dtype=torch.float32))
        assert single.x.dtype == torch.float32
        assert lpdiff.solve(LinearProgram(**how), c=c[:, None] * np.ones((3, 2, 1))).value.shape == (3, 2)


@EACH
def test_empty_batches(kind):
    lp = routed()[kind]
    for shape in ((0,), (2, 0)):
        c = torch.zeros(*shape, lp.n, dtype=torch.float64, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sol = lpdiff.solve(lp, c=c, gradient="exact")
        assert sol.value.shape == shape and sol.x.shape == (*shape, lp.n) and sol.statistics == {}
        assert sol.basis.rows.shape == (*shape, lp.m) and sol.solver == FIRST.get(kind, kind)
        (sol.value.sum() + sol.x.sum() + sol.y.sum()).backward()
        assert c.grad.shape == c.shape


def test_programs_with_nothing_in_them():
    nothing = LinearProgram(bounds=np.zeros((0, 2)))
    assert lpdiff.solve(nothing, c=np.zeros((3, 0))).value.tolist() == [0, 0, 0]
    rows = LinearProgram(A=sp.csc_array((2, 0)), row_lower=[0, -1], row_upper=[1, 1])
    assert lpdiff.solve(rows, c=np.zeros((3, 0))).ok.all()
    unmet = lpdiff.solve(rows, c=np.zeros((2, 0)), row_lower=np.array([[0, -1], [0.5, -1]]), throw=False)
    assert unmet.status.tolist() == [0, 1]
    # Rows and columns without entries, in all mixtures.
    rng = np.random.default_rng(21)
    for m, n in ((2, 3), (0, 3), (1, 2), (3, 1)):
        lp = LinearProgram(
            A=sp.csc_array((m, n)), row_lower=-np.ones(m), row_upper=np.ones(m), bounds=(-1, 2)
        )
        sol = compare(lp, {"c": rng.normal(size=(3, n))})
        assert sol.ok.all() and "highs" not in sol.statistics
        assert sol.basis.valid.all()


def test_cvxpy_and_mps(tmp_path):
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(22)
    X, C = cp.Variable((3, 3), nonneg=True), cp.Parameter((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), [cp.sum(X, 0) == 1, cp.sum(X, 1) == 1])
    lp = lpdiff.from_cvxpy(problem, parameters=[C])
    costs = torch.tensor(rng.uniform(size=(4, 3, 3)), requires_grad=True)
    sol = lpdiff.solve(lp, costs)
    assert sol.statistics == {"assignment": 4}
    (gradient,) = torch.autograd.grad(sol.value.sum(), costs)
    assert torch.equal(gradient, sol[X])
    forced = lpdiff.solve(lp, costs, solver="highs")
    torch.testing.assert_close(sol.value, forced.value, rtol=1e-9, atol=1e-9)

    file = tmp_path / "ship.mps"
    lines = ["NAME ship", "ROWS", " N cost", *(f" E s{i}" for i in range(2)), *(f" E d{k}" for k in range(3))]
    lines.append("COLUMNS")
    for i in range(2):
        for k in range(3):
            lines += [f" x{i}{k} cost {i + 2 * k + 1}", f" x{i}{k} s{i} 1", f" x{i}{k} d{k} 1"]
    lines += ["RHS", " r s0 5", " r s1 4", " r d0 3", " r d1 3", " r d2 3", "ENDATA"]
    file.write_text("\n".join(lines))
    read = lpdiff.read_mps(file)
    assert "bipartite 2 x 3 (all pairs)" in str(read.structure)
    sol = lpdiff.solve(read)
    assert sol.solver == "network"
    torch.testing.assert_close(sol.value, lpdiff.solve(read, solver="highs").value)


# -- components --------------------------------------------------------------------------------------------


def test_equal_blocks_are_one_batch(monkeypatch):
    calls = []
    corrupt(monkeypatch, "few paths", lambda told: calls.append((told["start"], told["stop"])))
    lp = beside(*[grid(2, 3)] * 5, matching(3))
    assert "5 equal components, each network" in str(lp.structure)
    c = far_costs(np.random.default_rng(23), 4, lp.n)
    sol = compare(lp, {"c": c})
    assert calls == [(0, 20)] and sol.statistics == {"components": 4}
    single = lpdiff.solve(grid(2, 3), c=c[:, : 5 * 9].reshape(20, 9))
    assert torch.equal(sol.x[:, :45].reshape(20, 9), single.x)
    assert torch.equal(sol.y[:, :30].reshape(20, 6), single.y)


def test_a_general_block_among_networks():
    rng = np.random.default_rng(24)
    parts = [grid(2, 3), general(rng), matching(3), general(rng), ring()]
    lp = beside(
        *[LinearProgram(A=p.A, row_lower=p.row_lower, row_upper=p.row_upper, bounds=(0, 5)) for p in parts]
    )
    order_r, order_c = rng.permutation(lp.m), rng.permutation(lp.n)
    mixed = LinearProgram(
        A=lp.A[order_r][:, order_c], row_lower=lp.row_lower[order_r], row_upper=lp.row_upper[order_r],
        bounds=np.stack([lp.lower, lp.upper], axis=1)[order_c],
    )  # fmt: skip
    for program in (lp, mixed):
        sol = compare(program, {"c": rng.normal(size=(6, lp.n))})
        assert sol.statistics == {"components": 6} and sol.basis.valid.all()


def test_blocks_without_an_optimum():
    rng = np.random.default_rng(25)
    lp = beside(matching(3), grid(2, 3), ring())
    c, size = far_costs(rng, 6, lp.n), 6
    upper = np.full((size, lp.n), np.inf)
    upper[1, :3] = 0.0  # the first matching
    upper[2, 9:18] = 0.0  # the path
    c[3, 18:] = -1.0  # the ring, for ever
    upper[4, 9:18] = 0.0
    c[4, 18:] = -1.0  # infeasible and unbounded: infeasible
    sol = lpdiff.solve(lp, c=c, bounds=(None, upper), throw=False)
    assert sol.status.tolist() == [0, 1, 1, 2, 1, 0]
    assert set(sol.certificates) == {1, 2, 3, 4}
    assert all(certificate.verified for certificate in sol.certificates.values())
    assert sol.statistics == {"components": 2, "highs": 4}
    with pytest.raises(lpdiff.SolveError, match=r"(?s)4 of 6 .*items 1, 2, 4: infeasible.*item 3: unb"):
        lpdiff.solve(lp, c=c, bounds=(None, upper))


def test_empty_rows():
    lp = matching(3)
    A = sp.csc_array(sp.vstack([lp.A, sp.csc_array((2, lp.n))]))
    low, high = np.append(lp.row_lower, [-1, 0]), np.append(lp.row_upper, [1, 0])
    padded = LinearProgram(A=A, row_lower=low, row_upper=high)
    assert "empty rows: 2 rows without entries" in str(padded.structure)
    c = far_costs(np.random.default_rng(26), 4, lp.n)
    sol = compare(padded, {"c": c})
    assert sol.statistics == {"components": 4} and sol.basis.valid.all()
    assert torch.equal(sol.x, lpdiff.solve(lp, c=c).x) and not sol.y[:, -2:].any()
    rows = np.tile(low, (4, 1)), np.tile(high, (4, 1))
    rows[0][1, -2], rows[1][2, -1], rows[0][2, -1] = 0.5, -1.0, -2.0
    sol = lpdiff.solve(padded, c=c, row_lower=rows[0], row_upper=rows[1], throw=False)
    assert sol.status.tolist() == [0, 1, 1, 0]
    assert all(sol.certificates[k].verified for k in (1, 2))
    assert "row 6" in sol.certificates[1].text and "row 7" in sol.certificates[2].text
