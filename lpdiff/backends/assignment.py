"""Assignment: the Jonker-Volgenant algorithm over a batch, for LPs that are bipartite assignment problems."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, AbstractKept, AbstractVertices, BatchSolution, Capabilities, Certified
from ..batch import run_spans, threads_for
from ..fitting import AssignmentFit, Roles, unit_assignment
from ..network import Bipartite
from ..standard import Data, StandardForm
from ..status import Status, UnsupportedError
from .special import TOLERANCE, Prepared, network_form, numba_missing, refuse, write_part

__all__ = ["Assignment"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Assignment(AbstractBackend):
    """Jonker-Volgenant with potentials, compiled, a batch at a time.

    Takes programs whose matrix is a bipartite incidence matrix (up to scales and signs of rows and columns)
    and items whose rows all have one side, as equations on one part of the nodes at least as small as the
    other (square, rectangular), or as inequalities on both (partial), with x >= 0. A pair is forbidden by
    an upper bound of 0. What does not fit is handed on. R. Jonker and A. Volgenant, Computing 38 (1987).
    """

    name: ClassVar[str] = "assignment"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> _State:
        network = network_form(form, self.name, "bipartite assignment problems")
        if network.bipartite is None or network.bipartite.duplicates:
            what = "is not bipartite" if network.bipartite is None else "has parallel arcs"
            raise UnsupportedError(
                f"solver 'assignment' takes bipartite assignment problems, and this network {what}: use "
                f"solver='auto'"
            )
        return _State(Prepared(form, network))

    def solve(
        self, state: _State, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        size, prepared = data.size, state.prepared
        fits, all_natural = prepared.as_declared(data), False
        if fits:
            fit, natural, all_natural = state.fit(data)
        if all_natural:
            out = _solve_in_place(state, data, threads)
        else:
            out = BatchSolution.empty(prepared.form, size, basis=False, fill=0.0)
            out.certificate = Certified.empty(size)
        if fits and not all_natural:
            natural = np.broadcast_to(natural, size)
            # Item by item: an item's bits must not depend on those beside it.
            for mine in (natural, ~natural):
                items = np.flatnonzero(mine)
                if len(items) and mine is natural:
                    write_part(out, _solve_in_place(state, data.take(items), threads), items)
                elif len(items):
                    some = AssignmentFit(*(np.broadcast_to(answer, size)[items] for answer in fit))
                    part = BatchSolution.empty(prepared.form, len(items), basis=False, fill=0.0)
                    _solve_any(state, data.take(items), some, part, threads)
                    write_part(out, part, items)
        # The kernel takes an infinite cost for a forbidden pair. An LP has none: the general solver says so.
        if not data.c.max(initial=0.0) < np.inf:
            out.status[np.broadcast_to(~(data.c.max(axis=1, initial=0.0) < np.inf), size)] = Status.ERROR
        return out

    def basis(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return state.prepared.basis(data, x, y)

    def basic_duals(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        if not state.prepared.as_declared(data):
            return y
        items = np.flatnonzero(np.broadcast_to(state.fit(data)[1], len(x)))
        return _stand(state, data, x, y, items) if len(items) else y

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


@plain_dataclass(frozen=True, eq=False)
class _State:
    prepared: Prepared

    @cached_property
    def kernels(self) -> ModuleType:
        from ..kernels import assignment

        return assignment

    @cached_property
    def pairs(self) -> Bipartite:
        pairs = self.prepared.network.bipartite
        assert pairs is not None
        return pairs

    @cached_property
    def declared_fit(self) -> tuple[AssignmentFit, np.ndarray, bool]:
        return self._fit(self.prepared.form.declared)

    def fit(self, data: Data) -> tuple[AssignmentFit, np.ndarray, bool]:
        """What the numbers make of each item, which are natural, and whether all are."""
        return self.declared_fit if self.prepared.sides_declared(data) else self._fit(data)

    def _fit(self, data: Data) -> tuple[AssignmentFit, np.ndarray, bool]:
        sides = (data.row_lower, data.row_upper, data.lower, data.upper)
        fit = unit_assignment(self.prepared.network, *sides)
        natural = self._natural(fit)
        return fit, natural, bool(natural.all())

    def _natural(self, fit: AssignmentFit) -> np.ndarray:
        """Which items' costs, as they lie in memory, are the matrices that the kernel reads; (1|B,) bool.

        They all have one kind of roles.
        """
        order, (rows, columns) = self.pairs.order, self.pairs.shape
        if rows == columns:
            there = order in ("rows", "columns")
        else:
            there = order == ("rows" if rows < columns else "columns")
        if not (there and self.prepared.network.unit_columns):
            return np.zeros(len(fit.roles), dtype=bool)
        role = Roles.SQUARE if rows == columns else Roles.TAILS if rows < columns else Roles.HEADS
        return (fit.roles == role) & ~fit.forbidden & (fit.flow == 1.0)

    @cached_property
    def natural_shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix that natural costs are."""
        rows, columns = self.pairs.shape
        return (rows, columns) if self.pairs.order == "rows" else (columns, rows)

    @cached_property
    def places(self) -> tuple[slice | np.ndarray, slice | np.ndarray]:
        """The rows of tails and heads, as slices where they follow each other."""
        return _compact(self.pairs.tails), _compact(self.pairs.heads)

    @cached_property
    def signs(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What turns potentials of tails and heads into duals of their rows; None: nothing.

        d = c - u - v = c - A'y, and a column is +alpha/s at its tail and -alpha/s at its head: a dual is the
        row's scale times its potential, and those of heads change sign.
        """
        scale, pairs = self.prepared.network.row_scale, self.pairs
        tails, heads = scale[pairs.tails], -scale[pairs.heads]
        return (None if (tails == 1).all() else tails, None if (heads == 1).all() else heads)

    def write_duals(self, y: np.ndarray, u: np.ndarray, v: np.ndarray, tails_lead: bool) -> None:
        for rows, sign, duals in zip(self.places, self.signs, (u, v) if tails_lead else (v, u), strict=True):
            y[:, rows] = duals if sign is None else duals * sign

    def read_duals(self, y: np.ndarray, tails_lead: bool) -> tuple[np.ndarray, np.ndarray]:
        """u and v back from what ``write_duals`` wrote."""
        tails, heads = (
            np.ascontiguousarray(y[:, rows] if sign is None else y[:, rows] / sign)
            for rows, sign in zip(self.places, self.signs, strict=True)
        )
        return (tails, heads) if tails_lead else (heads, tails)


def _compact(rows: np.ndarray) -> slice | np.ndarray:
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


@plain_dataclass(eq=False)
class Matchings(AbstractVertices):
    """1 at the matched pairs of each item; nothing where the item has no matching."""

    match: np.ndarray  # (B, R) int32
    columns: int

    def array(self) -> np.ndarray:
        return self.times(np.ones(1))

    def times(self, factors: np.ndarray) -> np.ndarray:
        from ..kernels.matching import scatter

        size, rows = self.match.shape
        x = np.zeros((size, rows * self.columns))
        scatter(self.match, self.columns, factors, 0, size, x)
        return x


@plain_dataclass(eq=False)
class Potentials(AbstractKept):
    """y, kept as the potentials of rows and columns of natural costs."""

    state: _State
    u: np.ndarray
    v: np.ndarray

    def array(self) -> np.ndarray:
        y = np.empty((len(self.u), self.u.shape[1] + self.v.shape[1]))
        self.state.write_duals(y, self.u, self.v, self.state.pairs.order == "rows")
        return y


def _solve_in_place(state: _State, data: Data, threads: int) -> BatchSolution:
    """Unit scales, every pair there, in order: the kernel reads the costs where they lie."""
    kernels, size, (rows, columns), c = state.kernels, data.size, state.natural_shape, data.c
    match, u, v = np.empty((size, rows), dtype=np.int32), np.empty((size, rows)), np.empty((size, columns))
    status, ok = np.empty(size, dtype=np.int8), np.empty(size, dtype=bool)
    value, gap, dual = np.empty((3, size))

    def work(start: int, stop: int) -> None:
        kernels.solve(c, rows, columns, start, stop, match, u, v, status)
        kernels.certify(c, match, u, v, TOLERANCE, start, stop, ok, gap, dual, value)

    run_spans(size, threads_for(3.5 * size * rows * columns, threads), work)
    x: Any = Matchings(match, columns)  # x and y where they are asked for
    y: Any = Potentials(state, u, v)
    # The primal residual is 0, of 0 and 1 in every row and column once: the certificate saw to it.
    judged = Certified(value, gap, np.zeros(size), dual)
    out = BatchSolution(x, y, status, None, np.zeros(size, dtype=np.int64), certificate=judged)
    refuse(out, ok)
    return out


def _stand(state: _State, data: Data, x: np.ndarray, y: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Basic duals of items whose costs lie as the kernel wants them, certified; others keep theirs."""
    kernels, size, (rows, columns) = state.kernels, len(items), state.natural_shape
    data = data.take(items)
    match = x[items].reshape(size, rows, columns).argmax(axis=2).astype(np.int32)
    u, v = state.read_duals(y[items], state.pairs.order == "rows")
    ok, told = np.zeros(size, dtype=bool), np.empty((3, size))
    basic_u, basic_v = u.copy(), v.copy()
    # Before, as what is looked for starts from duals that are optimal; and after.
    kernels.certify(data.c, match, u, v, TOLERANCE, 0, size, ok, *told)
    kernels.stand(data.c, rows, columns, 0, size, match, basic_u, basic_v, ~ok)
    kernels.certify(data.c, match, basic_u, basic_v, TOLERANCE, 0, size, ok, *told)
    found = y[items]
    state.write_duals(
        found,
        np.where(ok[:, None], basic_u, u),
        np.where(ok[:, None], basic_v, v),
        state.pairs.order == "rows",
    )
    y = y.copy()
    y[items] = found
    return y


def _solve_any(state: _State, data: Data, fit: AssignmentFit, out: BatchSolution, threads: int) -> None:
    size = data.size
    if not fit.fits.any():
        out.certificate = Certified.empty(size)
        return
    for roles in np.unique(fit.roles[fit.roles != Roles.NONE]):
        items = np.flatnonzero(np.broadcast_to(fit.roles == roles, size))
        _solve_gathered(state, data.take(items), fit, Roles(roles), items, out, threads)
    state.prepared.certify(data, out, threads)


def _solve_gathered(
    state: _State,
    data: Data,
    fit: AssignmentFit,
    roles: Roles,
    items: np.ndarray,
    out: BatchSolution,
    threads: int,
) -> None:
    """Items of one kind, whatever the order of variables, their scales, and the pairs that are not there."""
    kernels = state.kernels
    network, pairs, size = state.prepared.network, state.pairs, data.size
    index = pairs.index
    tails_lead = roles != Roles.HEADS and not (roles == Roles.PARTIAL and index.shape[0] > index.shape[1])
    if not tails_lead:
        index = index.T
    rows, columns = index.shape
    flow = np.broadcast_to(fit.flow, len(out.x))[items]  # (b,)
    costs = network.costs(data.c)
    # Where a part of as many nodes need not be met, its duals have a sign: a column that nobody can take
    # tells the kernel so.
    unequal = roles in (Roles.TAILS, Roles.HEADS) and rows == columns
    width = columns + (rows if roles == Roles.PARTIAL else int(unequal))
    matrix = np.full(
        (len(costs) if len(costs) == 1 and not fit.forbidden.any() else size, rows, width), np.inf
    )
    there = index >= 0
    matrix[:, :, :columns][:, there] = costs[:, index[there]]
    if fit.forbidden.any():
        closed = network.capacities(data.upper) < 0.5 * flow[:, None]  # (b, n): 0 or at least the flow
        matrix[:, :, :columns][:, there] = np.where(closed[:, index[there]], np.inf, costs[:, index[there]])
    if roles == Roles.PARTIAL:
        # A column of its own that costs nothing stands for staying single.
        matrix[:, np.arange(rows), columns + np.arange(rows)] = 0.0
    match = np.empty((size, rows), dtype=np.int32)
    u, v = np.empty((size, rows)), np.empty((size, width))
    status = np.full(size, Status.ERROR, dtype=np.int8)
    flat = matrix.reshape(len(matrix), -1)

    def work(start: int, stop: int) -> None:
        kernels.solve(flat, rows, width, start, stop, match, u, v, status)
        kernels.stand(flat, rows, width, start, stop, match, u, v, status != Status.OPTIMAL)

    run_spans(size, threads_for(6 * size * rows * width, threads), work)
    out.status[items] = status
    done = np.flatnonzero(status == Status.OPTIMAL)
    if len(done) == 0:
        return
    if roles == Roles.PARTIAL:
        # The own column's dual may be negative, but its row is redundant: d only grows where u falls to 0.
        u = np.minimum(u, 0.0)
    item, row = (k.ravel() for k in np.broadcast_arrays(done[:, None], np.arange(rows)))
    matched = match[item, row] < columns
    item, row = item[matched], row[matched]
    arc = index[row, match[item, row]]
    out.x[items[item], arc] = flow[item] / network.col_scale[arc]
    assert out.y is not None
    y = np.zeros((len(done), state.prepared.form.m))
    state.write_duals(y, u[done], v[done, :columns], tails_lead)
    out.y[items[done]] = y
