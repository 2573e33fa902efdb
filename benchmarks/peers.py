"""The problems of ``benchmarks.structure``, and its contestants: lpdiff, and what one would use instead.

Each contestant is made once for a problem (what it prepares is not timed) and then gives, at every call,
the values of its LPs and their gradient in the costs: forward and backward, in float64, from a torch leaf.
Peers are written as lean as their interfaces allow. A package that is missing raises ``Missing``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import scipy.optimize
import scipy.sparse as sp
import torch

import lpdiff
from lpdiff.testing import random_lp

THREADS = 2  # of lpdiff and of every peer that has threads: the targets are set for two cores

Run = Callable[[], tuple[np.ndarray, np.ndarray]]
ValueOf = Callable[[torch.Tensor], torch.Tensor]


class Missing(Exception):
    """A contestant that cannot take part, and why."""


@dataclass(frozen=True)
class Problem:
    """One declared LP and a batch of data.

    Attributes:
        lp: The program, declared plainly.
        costs: (B, n).
        sides: (B, m), the right-hand sides of its rows (all equations) where they vary.
        shape: Of the natural object: the cost matrix, or the grid of nodes.
        arcs: Tails and heads, (2, n), where a peer needs them.
    """

    lp: lpdiff.LinearProgram
    costs: np.ndarray
    sides: np.ndarray | None = None
    shape: tuple[int, ...] = ()
    arcs: np.ndarray | None = None

    def first(self, items: int) -> Problem:
        """The same problem with the first items of the batch."""
        sides = None if self.sides is None else self.sides[:items]
        return Problem(self.lp, self.costs[:items], sides, self.shape, self.arcs)

    def rows_of(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper sides of the rows of one item."""
        if self.sides is None:
            return self.lp.row_lower, self.lp.row_upper
        return self.sides[item], self.sides[item]


# -- problems ----------------------------------------------------------------------------------------


def bipartite(rows: int, cols: int) -> sp.csc_array:
    """Sums of the rows and of the columns of a matrix of variables."""
    each_row = sp.kron(sp.eye_array(rows), np.ones((1, cols)))
    each_column = sp.kron(np.ones((1, rows)), sp.eye_array(cols))
    return sp.csc_array(sp.vstack([each_row, each_column]))


def lattice(rows: int, cols: int, *, diagonal: bool) -> np.ndarray:
    """Tails and heads, (2, n), of the arcs right, down and, if asked for, diagonal on a grid of nodes."""
    node = np.arange(rows * cols, dtype=np.int32).reshape(rows, cols)
    steps = [(node[:, :-1], node[:, 1:]), (node[:-1], node[1:])]
    if diagonal:
        steps.append((node[:-1, :-1], node[1:, 1:]))
    return np.stack([np.concatenate([step[end].ravel() for step in steps]) for end in (0, 1)])


def incidence(arcs: np.ndarray, nodes: int) -> sp.csc_array:
    """+1 at the tail of each arc, -1 at its head; every tail is numbered below its head."""
    n = arcs.shape[1]
    return sp.csc_array(
        (np.tile([1.0, -1.0], n), arcs.T.ravel(), np.arange(0, 2 * n + 1, 2, dtype=np.int32)),
        shape=(nodes, n),
    )


def path_program(arcs: np.ndarray, nodes: int) -> lpdiff.LinearProgram:
    """One unit from the first node to the last."""
    supply = np.zeros(nodes)
    supply[0], supply[-1] = 1.0, -1.0
    return lpdiff.LinearProgram(A_eq=incidence(arcs, nodes), b_eq=supply)


def assignment(n: int, items: int) -> Problem:
    lp = lpdiff.LinearProgram(A_eq=bipartite(n, n), b_eq=np.ones(2 * n))
    return Problem(lp, np.random.default_rng(n).random((items, n * n)), shape=(n, n))


def alignment(n: int, items: int) -> Problem:
    arcs = lattice(n + 1, n + 1, diagonal=True)
    costs = np.random.default_rng(n).random((items, arcs.shape[1]))
    return Problem(path_program(arcs, (n + 1) ** 2), costs)


def grid(n: int, items: int) -> Problem:
    arcs = lattice(n, n, diagonal=False)
    # The order that PyEPO numbers its arcs in: row by row, those to the right before those down.
    arcs = arcs[:, np.lexsort((arcs[0], arcs[1] - arcs[0] > 1, arcs[0] // n))]
    costs = np.random.default_rng(n).random((items, arcs.shape[1]))
    return Problem(path_program(arcs, n * n), costs, shape=(n, n), arcs=arcs)


def cyclic(n: int, items: int) -> Problem:
    """A shortest path on a grid whose arcs go both ways."""
    forth = path_program(lattice(n, n, diagonal=False), n * n)
    lp = lpdiff.LinearProgram(A_eq=sp.hstack([forth.A, -forth.A]), b_eq=forth.row_lower)
    return Problem(lp, np.random.default_rng(n).random((items, lp.n)), shape=(n, n))


def flow(n: int, items: int) -> Problem:
    """Two units from corner to corner of a grid whose arcs carry one at most."""
    one = path_program(lattice(n, n, diagonal=True), n * n)
    lp = lpdiff.LinearProgram(A_eq=one.A, b_eq=2 * one.row_lower, bounds=(0, 1))
    return Problem(lp, np.random.default_rng(n).random((items, lp.n)), shape=(n, n))


def transport(n: int, items: int) -> Problem:
    """Random marginals, and squared distances of random points in the plane."""
    rng = np.random.default_rng(n)
    points = rng.random((2, items, n, 2))
    costs = ((points[0][:, :, None] - points[1][:, None]) ** 2).sum(-1)
    sides = np.concatenate([rng.dirichlet(np.ones(n), items), rng.dirichlet(np.ones(n), items)], axis=1)
    lp = lpdiff.LinearProgram(A_eq=bipartite(n, n), b_eq=np.full(2 * n, 1 / n))
    return Problem(lp, costs.reshape(items, -1), sides, shape=(n, n))


def general(n: int, m: int, items: int) -> Problem:
    """A random sparse LP without structure, boxed, with costs within 5 % of those declared."""
    rng = np.random.default_rng(n)
    lp = random_lp(rng, n, m, sense="min", density=4 / m)
    assert lp.c is not None
    bounds = np.stack([np.maximum(lp.lower, -100), np.minimum(lp.upper, 100)], axis=1)
    lp = lpdiff.LinearProgram(lp.c, A=lp.A, row_lower=lp.row_lower, row_upper=lp.row_upper, bounds=bounds)
    return nearby(lp, rng, items)


def packing(n: int, m: int, items: int) -> Problem:
    """The relaxation of a multi-dimensional knapsack, with profits within 5 % of those declared."""
    rng = np.random.default_rng(n)
    weights = np.where(rng.random((m, n)) < 0.1, rng.uniform(0.1, 1.0, (m, n)), 0.0)
    lp = lpdiff.LinearProgram(-rng.uniform(1, 2, n), weights, 0.3 * weights.sum(1), bounds=(0, 1))
    return nearby(lp, rng, items)


def nearby(lp: lpdiff.LinearProgram, rng: np.random.Generator, items: int) -> Problem:
    assert lp.c is not None
    return Problem(lp, lp.c * (1 + 0.05 * rng.uniform(-1, 1, (items, lp.n))))


# -- running -----------------------------------------------------------------------------------------


def need(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Missing(f"{package} is not installed ({error})") from error


def forward_backward(problem: Problem, value_of: ValueOf) -> Run:
    leaf = torch.from_numpy(problem.costs).requires_grad_()  # shared: nobody writes to it

    def run() -> tuple[np.ndarray, np.ndarray]:
        leaf.grad = None
        value = value_of(leaf)
        value.sum().backward()
        assert leaf.grad is not None
        return value.detach().numpy(), leaf.grad.numpy()

    return run


def times_solution(problem: Problem, solve: Callable[[int, np.ndarray], np.ndarray]) -> Run:
    """A loop of a solver that gives x: the value is c'x, its gradient x."""

    def value_of(leaf: torch.Tensor) -> torch.Tensor:
        found = [solve(item, c) for item, c in enumerate(leaf.detach().numpy())]
        return (leaf * torch.from_numpy(np.stack(found))).sum(-1)

    return forward_backward(problem, value_of)


# -- lpdiff ------------------------------------------------------------------------------------------


def ours(problem: Problem, *, threads: int = THREADS, solver: Any = "auto", **options: Any) -> Run:
    try:
        lpdiff.plan(problem.lp, solver=solver, options=options)
    except (lpdiff.BackendError, ValueError) as error:
        raise Missing(f"lpdiff has no solver {solver!r} with {options} ({error})") from error
    data: dict[str, Any] = {} if problem.sides is None else {"b": torch.from_numpy(problem.sides)}

    def value_of(leaf: torch.Tensor) -> torch.Tensor:
        solution = lpdiff.solve(problem.lp, c=leaf, solver=solver, options=options, threads=threads, **data)
        return solution.value

    return forward_backward(problem, value_of)


def ours_cold(problem: Problem) -> Run:
    """HiGHS through lpdiff, every item from scratch."""
    return ours(problem, solver="highs", warm_start=False)


# -- general solvers ---------------------------------------------------------------------------------


def highspy_loop(problem: Problem) -> Run:
    """The leanest loop that highspy allows: one solver object, the array overload of ``passModel``."""
    solver = highspy._core._Highs()
    # Presolve costs more than it saves on LPs as small as these.
    for key, value in {"output_flag": False, "threads": 1, "presolve": "off", "solver": "simplex"}.items():
        solver.setOptionValue(key, value)
    lp = problem.lp
    integrality = np.zeros(lp.n, dtype=np.int32)

    def solve(item: int, c: np.ndarray) -> np.ndarray:
        solver.passModel(
            *(lp.n, lp.m, lp.nnz, 1, 1, 0.0, c, lp.lower, lp.upper, *problem.rows_of(item)),
            *(lp.A.indptr, lp.A.indices, lp.A.data, integrality),
        )
        solver.run()
        return np.array(solver.getSolution().col_value)

    run = times_solution(problem, solve)

    def run_and_reset() -> tuple[np.ndarray, np.ndarray]:
        result = run()
        # HiGHS's pool belongs to the thread, and the next contestant may want another one.
        highspy._core._Highs.resetGlobalScheduler(True)
        return result

    return run_and_reset


def linprog_loop(problem: Problem) -> Run:
    lp = problem.lp
    matrix = lp.A.tocsr()
    bounds = np.stack([lp.lower, lp.upper], axis=1)
    equal = lp.row_lower == lp.row_upper
    below, above = ~equal & np.isfinite(lp.row_upper), ~equal & np.isfinite(lp.row_lower)
    A_eq = matrix[equal] if equal.any() else None
    A_ub = sp.vstack([matrix[below], -matrix[above]]) if below.any() or above.any() else None

    def solve(item: int, c: np.ndarray) -> np.ndarray:
        lower, upper = problem.rows_of(item)
        b_ub = None if A_ub is None else np.concatenate([upper[below], -lower[above]])
        b_eq = None if A_eq is None else lower[equal]
        return scipy.optimize.linprog(c, A_ub, b_ub, A_eq, b_eq, bounds, method="highs").x

    return times_solution(problem, solve)


def cvxpylayers(problem: Problem) -> Run:
    """Its default solver and arguments, the whole batch in one call."""
    cp = need("cvxpy", "cvxpy")
    layers = need("cvxpylayers.torch", "cvxpylayers")
    lp = problem.lp
    c, x = cp.Parameter(lp.n), cp.Variable(lp.n)
    b = lp.row_lower if problem.sides is None else cp.Parameter(lp.m)
    program = cp.Problem(cp.Minimize(c @ x), [lp.A.tocsr() @ x == b, x >= 0])
    layer = layers.CvxpyLayer(program, parameters=[c] if problem.sides is None else [c, b], variables=[x])
    data = [] if problem.sides is None else [torch.from_numpy(problem.sides)]

    def value_of(leaf: torch.Tensor) -> torch.Tensor:
        (solution,) = layer(leaf, *data)
        return (leaf * solution).sum(-1)

    return forward_backward(problem, value_of)


# -- assignment --------------------------------------------------------------------------------------


def matched(problem: Problem, match: Callable[[np.ndarray], list[np.ndarray]]) -> Run:
    """A loop of a matching algorithm, and the costs gathered at its columns."""

    def value_of(leaf: torch.Tensor) -> torch.Tensor:
        matrices = leaf.view(-1, *problem.shape)
        columns = np.stack(match(matrices.detach().numpy()), dtype=np.int64)
        return matrices.gather(2, torch.from_numpy(columns)[:, :, None]).sum((1, 2))

    return forward_backward(problem, value_of)


def scipy_loop(problem: Problem) -> Run:
    solve = scipy.optimize.linear_sum_assignment
    return matched(problem, lambda matrices: [solve(matrix)[1] for matrix in matrices])


def lapx_loop(problem: Problem) -> Run:
    lap = need("lap", "lapx")
    if hasattr(lap, "lapjvr"):  # the fastest of its functions, measured at n = 8 to 500
        return matched(problem, lambda ms: [lap.lapjvr(m, return_cost=False)[1] for m in ms])
    return matched(problem, lambda ms: [lap.lapjv(m, return_cost=False)[0] for m in ms])


def lapx_batch(problem: Problem) -> Run:
    lap = need("lap", "lapx")
    solve = getattr(lap, "lapjvr_batch", None) or getattr(lap, "lapjvx_batch", None)
    if solve is None:
        raise Missing("this lapx has no function for batches")
    return matched(problem, lambda ms: solve(ms, return_cost=False, n_threads=THREADS)[1])


# -- transport ---------------------------------------------------------------------------------------


def marginals(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    assert problem.sides is not None
    n = problem.shape[0]
    return np.ascontiguousarray(problem.sides[:, :n]), np.ascontiguousarray(problem.sides[:, n:])


def emd2_loop(problem: Problem) -> Run:
    """As POT's users get gradients: torch tensors go in."""
    ot = need("ot", "POT")
    supply, demand = (torch.from_numpy(side) for side in marginals(problem))

    def value_of(leaf: torch.Tensor) -> torch.Tensor:
        matrices = leaf.view(-1, *problem.shape)
        return torch.stack([ot.emd2(a, b, m) for a, b, m in zip(supply, demand, matrices, strict=True)])

    return forward_backward(problem, value_of)


def emd_loop(problem: Problem) -> Run:
    """Leaner: the plans from NumPy arrays, the value from the plans."""
    ot = need("ot", "POT")
    supply, demand = marginals(problem)

    def solve(item: int, c: np.ndarray) -> np.ndarray:
        return ot.emd(supply[item], demand[item], c.reshape(problem.shape)).ravel()

    return times_solution(problem, solve)


# -- shortest path -----------------------------------------------------------------------------------


def pyepo_loop(problem: Problem) -> Run:
    """PyEPO's OR-Tools model (GLOP), solved in a loop as its losses do on one process."""
    need("ortools.linear_solver.pywraplp", "ortools")
    paths = need("pyepo.model.ort", "pyepo")
    model = paths.shortestPathModel(problem.shape)
    assert problem.arcs is not None
    if [tuple(arc) for arc in problem.arcs.T.tolist()] != [tuple(arc) for arc in model.arcs]:
        raise Missing("this PyEPO numbers the arcs of its grid in another order")

    def solve(item: int, c: np.ndarray) -> np.ndarray:
        model.setObj(c)
        return model.solve()[0]

    return times_solution(problem, solve)


CONTESTANTS: dict[str, Callable[..., Run]] = {
    "lpdiff": ours,
    "lpdiff, 1 thread": lambda problem, **keywords: ours(problem, threads=1, **keywords),
    "lpdiff, HiGHS": lambda problem: ours(problem, solver="highs"),
    "lpdiff, HiGHS cold": ours_cold,
    "raw highspy loop": highspy_loop,
    "SciPy linprog loop": linprog_loop,
    "cvxpylayers": cvxpylayers,
    "SciPy assignment loop": scipy_loop,
    "lapx loop": lapx_loop,
    f"lapx batch, {THREADS} threads": lapx_batch,
    "POT emd2 loop": emd2_loop,
    "POT emd loop, NumPy": emd_loop,
    "PyEPO, OR-Tools": pyepo_loop,
}

# Approximate by nature: no more is asked of its values, and its gradients are not compared.
LOOSE = {"cvxpylayers": 1e-3}
