"""Assignment: the Jonker-Volgenant algorithm over a batch, for LPs that are bipartite assignment problems."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BatchSolution, Capabilities, Certified
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
        out = BatchSolution.empty(prepared.form, size, basis=False, fill=0.0)
        if not prepared.as_declared(data):
            out.certificate = Certified.empty(size)
            return out
        fit = state.fit(data)
        natural = np.broadcast_to(state.natural(fit), size)
        if natural.all():
            _solve_in_place(state, data, out, threads)
        elif not natural.any():
            _solve_any(state, data, fit, out, threads)
        else:
            # Item by item: an item's bits must not depend on those beside it.
            out.certificate = Certified.empty(size)
            for mine in (natural, ~natural):
                items = np.flatnonzero(mine)
                part = BatchSolution.empty(prepared.form, len(items), basis=False, fill=0.0)
                if mine is natural:
                    _solve_in_place(state, data.take(items), part, threads)
                else:
                    some = AssignmentFit(*(np.broadcast_to(answer, size)[items] for answer in fit))
                    _solve_any(state, data.take(items), some, part, threads)
                write_part(out, part, items)
        # The kernel takes an infinite cost for a forbidden pair. An LP has none: the general solver says so.
        if not data.c.max(initial=0.0) < np.inf:
            out.status[np.broadcast_to(~(data.c.max(axis=1, initial=0.0) < np.inf), size)] = Status.ERROR
        return out

    def basis(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return state.prepared.basis(data, x, y)

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


@plain_dataclass(frozen=True, eq=False)
class _State:
    prepared: Prepared

    @property
    def pairs(self) -> Bipartite:
        pairs = self.prepared.network.bipartite
        assert pairs is not None
        return pairs

    @cached_property
    def declared_fit(self) -> AssignmentFit:
        return self._fit(self.prepared.form.declared)

    def fit(self, data: Data) -> AssignmentFit:
        return self.declared_fit if self.prepared.sides_declared(data) else self._fit(data)

    def _fit(self, data: Data) -> AssignmentFit:
        sides = (data.row_lower, data.row_upper, data.lower, data.upper)
        return unit_assignment(self.prepared.network, *sides)

    def natural(self, fit: AssignmentFit) -> np.ndarray:
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


def _compact(rows: np.ndarray) -> slice | np.ndarray:
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _solve_in_place(state: _State, data: Data, out: BatchSolution, threads: int) -> None:
    """Unit scales, every pair there, in order: the kernel reads the costs where they lie."""
    from ..kernels import assignment as kernels

    pairs, size = state.pairs, data.size
    rows, columns = pairs.shape if pairs.order == "rows" else pairs.shape[::-1]
    match = np.empty((size, rows), dtype=np.int32)
    u, v = np.empty((size, rows)), np.empty((size, columns))
    judged, ok = Certified.empty(size), np.zeros(size, dtype=bool)

    def work(start: int, stop: int) -> None:
        kernels.solve(data.c, rows, columns, start, stop, match, u, v, out.status)
        kernels.certify(
            *(data.c, match, u, v, TOLERANCE, start, stop),
            *(ok, judged.gap, judged.dual_residual, judged.value),
        )
        kernels.scatter(match, columns, start, stop, out.x)

    run_spans(size, threads_for(6 * size * rows * columns, threads), work)
    assert out.y is not None
    state.write_duals(out.y, u, v, pairs.order == "rows")
    judged.primal_residual[:] = 0.0  # 0 and 1, in every row and column once: the certificate saw to it
    out.certificate = judged
    refuse(out, ok)


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
    from ..kernels import assignment as kernels

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
