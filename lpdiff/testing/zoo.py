"""Named LPs, small, each there for one thing that goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..program import LinearProgram
from ..status import Status
from .generate import KINDS, random_lp

__all__ = ["Specimen", "zoo"]


@dataclass(frozen=True, eq=False)
class Specimen:
    """An LP and what must become of it."""

    name: str
    lp: LinearProgram
    status: Status = Status.OPTIMAL
    value: float | None = None  # in the user's sense, offset included, where it is known by heart

    def __repr__(self) -> str:
        return self.name


def zoo() -> dict[str, Specimen]:
    """All specimens by name. Made anew at each call, always the same."""
    specimens = [*_classics(), *_awkward(), *_maxima(), *_random(), *_failures()]
    named = {specimen.name: specimen for specimen in specimens}
    if len(named) < len(specimens):
        raise AssertionError("two specimens of one name")
    return named


def _classics() -> Iterator[Specimen]:
    rng = np.random.default_rng(11)
    # No partial sums coincide, so the vertex is not degenerate: duals unique but for a constant.
    supply, demand = np.array([7.3, 5.1, 8.6]), np.array([4.0, 6.2, 3.7, 7.1])
    yield Specimen(
        "transport",
        LinearProgram(rng.uniform(1, 9, 12), A_eq=_bipartite(3, 4), b_eq=np.concatenate([supply, demand])),
    )
    yield Specimen(
        "assignment",
        LinearProgram(rng.uniform(0, 1, 25), A_eq=_bipartite(5, 5), b_eq=np.ones(10)),
    )
    arcs = [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)]
    costs = [4.0, 2.0, 1.0, 5.0, 8.0, 10.0, 2.0, 6.0, 3.0]
    yield Specimen(
        "shortest path",
        LinearProgram(costs, A_eq=_incidence(6, arcs), b_eq=[1, 0, 0, 0, 0, -1], bounds=(0, 1)),
        value=14.0,
    )
    yield Specimen(
        "min-cost flow with capacities",
        LinearProgram(
            rng.uniform(-1, 4, len(arcs)),
            A_eq=_incidence(6, arcs),
            b_eq=[2, 0, 0, 0, 0, -2],
            bounds=(0, 1.5),
        ),
    )
    nutrients = np.array([[60.0, 8, 8, 40, 16], [30, 5, 12, 90, 3], [4, 2, 9, 6, 1]])
    yield Specimen(
        "diet",
        LinearProgram([2.0, 3.5, 8, 1.5, 11], A_ub=-nutrients, b_ub=[-64.0, -80, -20], bounds=(0, 10)),
    )
    yield Specimen(
        "staircase",
        # Production over six periods: stock carried over, limited capacity.
        LinearProgram(
            np.concatenate([[3.0, 4, 2, 5, 3, 4], np.full(6, 0.5)]),
            A_eq=np.hstack([np.eye(6), np.eye(6, k=-1) - np.eye(6)]),
            b_eq=[4.0, 6, 5, 9, 3, 7],
            bounds=[(0, 8)] * 6 + [(0, None)] * 6,
        ),
    )


def _awkward() -> Iterator[Specimen]:
    inf = np.inf
    square = np.array([[1.0, 1], [1, -1], [2, 1], [1, 2]])
    yield Specimen(
        "degenerate",
        # Four rows through one vertex of the plane.
        LinearProgram([-3.0, -2], A_ub=square, b_ub=[2.0, 0, 3, 3]),
        value=-5.0,
    )
    yield Specimen(
        "cycling (Beale)",
        LinearProgram(
            [-0.75, 20, -0.5, 6],
            A_ub=[[0.25, -8, -1, 9], [0.5, -12, -0.5, 3], [0, 0, 1, 0]],
            b_ub=[0.0, 0, 1],
        ),
        value=-1.25,
    )
    yield Specimen(
        "redundant equalities",
        LinearProgram([1.0, 2, 4], A_eq=[[1.0, 1, 1], [2, 2, 2], [1, 0, -1]], b_eq=[3.0, 6, 0]),
        value=6.0,
    )
    yield Specimen(
        "non-unique optimum", LinearProgram([1.0, 1, 2], A_eq=[[1.0, 1, 1]], b_eq=[1.0]), value=1.0
    )
    yield Specimen(
        "fixed variables",
        LinearProgram(
            [1.0, -2, -1, 3],
            A_ub=[[1.0, 1, 1, 1], [0, 1, -1, 2]],
            b_ub=[6.0, 2],
            bounds=[(1, 1), (0, None), (-2, -2), (0, 4)],
        ),
        # x = (1, x1, -2, 0): x1 <= 7 by the first row, <= 0 by the second.
        value=3.0,
    )
    yield Specimen(
        "all fixed", LinearProgram([1.0, -1], [[1.0, 1]], [5.0], bounds=[(2, 2), (1, 1)]), value=1.0
    )
    yield Specimen(
        "no rows",
        LinearProgram([1.0, -1, 0, 2], bounds=[(-1, 3), (0, 2), (None, None), (-4, None)]),
        value=-11.0,
    )
    yield Specimen("no costs", LinearProgram(np.zeros(4), A_eq=_bipartite(2, 2), b_eq=np.ones(4)), value=0.0)
    yield Specimen("one variable", LinearProgram([2.0], A_ub=[[-1.0]], b_ub=[-3.0]), value=6.0)
    yield Specimen(
        "no variables",
        LinearProgram([], A=np.zeros((2, 0)), row_lower=[-1.0, -inf], row_upper=[1.0, 0]),
        value=0.0,
    )
    yield Specimen(
        "free rows",
        LinearProgram(
            [1.0, 2],
            A=[[1.0, 1], [3, -1], [1, 0]],
            row_lower=[2.0, -inf, -inf],
            row_upper=[inf, inf, inf],
        ),
        value=2.0,
    )
    yield Specimen(
        "only free rows",
        LinearProgram([1.0, -1], A=[[1.0, 1], [3, -1]], row_lower=-inf, row_upper=inf, bounds=(0, 1)),
        value=-1.0,
    )
    yield Specimen(
        "ranged rows",
        LinearProgram(
            [1.0, -1, 0.5],
            A=[[1.0, 1, 0], [0, 1, 1], [1, 0, -1]],
            row_lower=[1.0, -2, -3],
            row_upper=[4.0, 5, 3],
            bounds=(-2, 6),
        ),
    )
    yield Specimen(
        "free variables",
        LinearProgram(
            [1.0, 1, 0],
            A_ub=[[-1.0, -1, 0], [-1, 1, 1], [0, 0, -1]],
            b_ub=[-2.0, 1, 4],
            bounds=(None, None),
        ),
        value=2.0,
    )
    yield Specimen(
        "empty columns",
        LinearProgram([1.0, -2, 0, 3], A_ub=[[-1.0, 0, 0, 0]], b_ub=[-1.5], bounds=(-1, 2)),
        value=1.5 - 4 - 3,
    )
    yield Specimen(
        "stored zeros",
        LinearProgram(
            [1.0, 1, 1],
            A_eq=sp.coo_array(([1.0, 0.0, 2.0, 0.0], ([0, 0, 1, 1], [0, 1, 1, 2])), shape=(2, 3)),
            b_eq=[1.0, 4],
        ),
        value=3.0,
    )
    yield Specimen(
        "badly scaled",
        LinearProgram([1e-4, 1e3], A_ub=[[-1e4, -1.0], [1e-3, -1e2]], b_ub=[-1e4, 1e2]),
        value=1e-4,
    )
    yield Specimen("Klee-Minty", _klee_minty(6), value=-float(5**6))


def _maxima() -> Iterator[Specimen]:
    yield Specimen(
        "max: production",
        LinearProgram(
            [3.0, 5],
            A_ub=[[1.0, 0], [0, 2], [3, 2]],
            b_ub=[4.0, 12, 18],
            sense="max",
            offset=7.0,
        ),
        value=43.0,
    )
    yield Specimen(
        "max: matching",
        LinearProgram(
            np.random.default_rng(12).uniform(0, 1, 12),
            A_ub=_bipartite(3, 4),
            b_ub=np.ones(7),
            sense="max",
        ),
    )
    yield Specimen(
        "max: equalities and ranges",
        LinearProgram(
            [1.0, 2, -1],
            A_eq=[[1.0, 1, 1]],
            b_eq=[2.0],
            A=[[1.0, -1, 0]],
            row_lower=[-1.0],
            row_upper=[1.0],
            bounds=(-3, 3),
            sense="max",
        ),
        # x0 + x1 + x2 = 2 and the bounds: x = (2.5, 3, -3.5) leaves the box, so x2 = -3.
        value=2.0 + 6 + 3,
    )


def _random() -> Iterator[Specimen]:
    rng = np.random.default_rng(13)
    for kind in KINDS:
        for sense in ("min", "max"):
            for n, m in ((5, 3), (4, 6), (30, 18)):
                yield Specimen(f"{kind} {sense} {n} x {m}", random_lp(rng, n, m, kind=kind, sense=sense))


def _failures() -> Iterator[Specimen]:
    bad, far = Status.INFEASIBLE, Status.UNBOUNDED
    yield Specimen("infeasible rows", LinearProgram([1.0, 1], [[1.0, 1], [-1, -1]], [1.0, -2]), bad)
    yield Specimen("infeasible bounds", LinearProgram([1.0, 0], [[-1.0, -1]], [-3.0], bounds=(0, 1)), bad)
    yield Specimen(
        "infeasible equalities",
        LinearProgram([1.0, 2], A_eq=[[1.0, 1], [2, 2]], b_eq=[1.0, 3], bounds=(None, None)),
        bad,
    )
    yield Specimen("infeasible empty row", LinearProgram([1.0], A_eq=[[0.0]], b_eq=[1.0]), bad)
    yield Specimen(
        "infeasible, dual infeasible too",
        LinearProgram([-1.0, 0], [[0.0, -1]], [-2.0], bounds=[(0, None), (0, 1)]),
        bad,
    )
    yield Specimen(
        "infeasible maximum",
        LinearProgram([1.0, 1], [[1.0, 1]], [-1.0], sense="max"),
        bad,
    )
    yield Specimen("unbounded", LinearProgram([-1.0, -1], [[1.0, -1]], [3.0]), far)
    yield Specimen("unbounded without rows", LinearProgram([1.0, -1]), far)
    yield Specimen(
        "unbounded free variable",
        LinearProgram([0.0, 1], A_eq=[[1.0, 1]], b_eq=[1.0], bounds=(None, None)),
        far,
    )
    yield Specimen("unbounded maximum", LinearProgram([1.0, 0], [[1.0, -1]], [2.0], sense="max"), far)


# -- matrices ----------------------------------------------------------------------------------------


def _bipartite(rows: int, columns: int) -> Any:
    """Row and column sums of a (rows, columns) matrix: (rows + columns, rows * columns)."""
    return sp.vstack(
        [
            sp.kron(sp.eye_array(rows), np.ones((1, columns))),
            sp.kron(np.ones((1, rows)), sp.eye_array(columns)),
        ]
    )


def _incidence(nodes: int, arcs: list[tuple[int, int]]) -> np.ndarray:
    """Node-arc incidence: +1 where an arc leaves, -1 where it arrives."""
    matrix = np.zeros((nodes, len(arcs)))
    for k, (tail, head) in enumerate(arcs):
        matrix[tail, k], matrix[head, k] = 1.0, -1.0
    return matrix


def _klee_minty(n: int) -> LinearProgram:
    """max sum 2^(n-1-j) x_j  s.t.  sum_{j<i} 2^(i-j+1) x_j + x_i <= 5^(i+1): the value is 5^n."""
    matrix = np.array([[2.0 ** (i - j + 1) if j < i else float(i == j) for j in range(n)] for i in range(n)])
    costs = -(2.0 ** np.arange(n - 1, -1, -1))
    return LinearProgram(costs, A_ub=matrix, b_ub=5.0 ** np.arange(1, n + 1))
