"""Shortest paths over a batch, for network LPs that send one flow from a source to a sink."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, AbstractKept, AbstractVertices, BatchSolution, Capabilities, Certified
from ..batch import run_spans, threads_for
from ..fitting import TOLERANCE, PathFit, single_path
from ..standard import Data, StandardForm
from ..status import Status
from .special import Prepared, network_form, numba_missing, refuse, write_part

if TYPE_CHECKING:
    from ..kernels.graphs import Star, Walk

__all__ = ["Path"]

_ERROR = int(Status.ERROR)
_BLOCK = 8  # items that kernels take at a time

# What the certificate takes for rounding, in units of the numbers that make up a residual: a few roundings
# of labels; and the margin by which label correcting improves them.
_EXACT, _CORRECTED = 2e-15, 4e-14


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Path(AbstractBackend):
    """Dynamic programming on acyclic graphs, whatever the signs of the costs; Dijkstra's algorithm on
    others, or label correcting where a cost is negative. Compiled, a batch at a time.

    Takes programs that are networks (up to scales and signs of rows and columns) and items that send one
    flow from one node to another, with x >= 0 and room for all of it on each arc, or none (a forbidden
    arc). What does not fit, and negative cycles, are handed on.
    """

    name: ClassVar[str] = "path"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> _State:
        return _State(Prepared(form, network_form(form, self.name, "networks")))

    def solve(
        self, state: _State, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        if state.usual(data):
            assert state.shortcut is not None
            return _solve_usual(state, state.shortcut, data, threads)
        return self._solve_any(state, data, threads)

    def _solve_any(self, state: _State, data: Data, threads: int) -> BatchSolution:
        size, prepared = data.size, state.prepared
        if prepared.as_declared(data):
            fit, all_fit = state.fit(data)
            if all_fit:
                return _solve(state, data, fit, threads)
            items = np.flatnonzero(np.broadcast_to(fit.fits, size))
        else:
            items = np.zeros(0, dtype=np.int64)
        out = BatchSolution.empty(prepared.form, size, basis=False, fill=0.0)
        out.certificate = Certified.empty(size)
        if len(items):
            some = PathFit(*(np.broadcast_to(answer, size)[items] for answer in fit))
            write_part(out, _solve(state, data.take(items), some, threads), items)
        return out

    def basis(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return state.prepared.basis(data, x, y)

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


@plain_dataclass(frozen=True, eq=False)
class _State:
    prepared: Prepared

    @cached_property
    def declared_fit(self) -> tuple[PathFit, bool]:
        return self._fit(self.prepared.form.declared)

    def fit(self, data: Data) -> tuple[PathFit, bool]:
        """What the numbers make of each item, and whether all are paths."""
        return self.declared_fit if self.prepared.sides_declared(data) else self._fit(data)

    def _fit(self, data: Data) -> tuple[PathFit, bool]:
        sides = (data.row_lower, data.row_upper, data.lower, data.upper)
        fit = single_path(self.prepared.network, *sides)
        return fit, bool(fit.fits.all())

    @cached_property
    def unit(self) -> bool:
        """Whether the program is the network as it stands, but for the signs of its rows."""
        return self.prepared.network.unit_columns and self.prepared.network.unit_rows

    @cached_property
    def walk(self) -> Walk:
        from ..kernels.graphs import walk

        network = self.prepared.network
        order = np.arange(network.nodes, dtype=np.int32) if network.order is None else network.order
        return walk(network.tail, network.head, order)

    def usual(self, data: Data) -> bool:
        """Whether items differ by their costs alone, and there is a shorter way for them."""
        return (
            len(data.c) >= _BLOCK
            and self.prepared.sides_declared(data)
            and self.prepared.as_declared(data)
            and self.shortcut is not None
        )

    @cached_property
    def shortcut(self) -> _Shortcut | None:
        """Where ``labels.shortest`` takes the program as it was declared."""
        network, (fit, all_fit) = self.prepared.network, self.declared_fit
        if not (self.unit and network.acyclic and all_fit):
            return None
        from ..kernels import labels, route

        walk, upper = self.walk, network.capacities(self.prepared.form.declared.upper)[0]
        if not (walk.order[0] == fit.source[0] and (upper >= fit.flow[0]).all()):
            return None
        if not labels.proves(walk, network.tail, network.head):
            return None
        flow, source, sink = float(fit.flow[0]), int(fit.source[0]), int(fit.sink[0])
        steps = walk.reference, walk.pointers, walk.arcs, walk.tails
        return _Shortcut(
            find=functools.partial(labels.shortest, int(walk.position[sink]), *steps),
            judge=functools.partial(route.follow, network.tail, network.head, upper, flow, source, sink),
        )

    @cached_property
    def search(self) -> tuple[Any, ...]:
        """The kernel that finds paths, and the graph as it wants it."""
        from ..kernels import paths

        if self.prepared.network.acyclic:
            return (paths.dag_paths, *self.walk)
        return (paths.cyclic_paths, *self.walk, *self.star)

    @cached_property
    def judge(self) -> Callable[..., int]:
        from ..kernels.route import prove

        return prove

    @cached_property
    def star(self) -> Star:
        from ..kernels.graphs import star

        network = self.prepared.network
        return star(network.tail, network.head, self.walk)


@plain_dataclass(frozen=True, eq=False)
class _Shortcut:
    """The usual case: kernels of labels and paths, and of the judgement, that know the program."""

    find: Callable[..., None]
    judge: Callable[..., int]


@plain_dataclass(eq=False)
class Flows(AbstractVertices):
    """Flow along the arcs of one path an item; nothing where the item is not optimal."""

    n: int
    path: np.ndarray  # (B, at least the longest path) int32
    length: np.ndarray  # (B,) int32
    flow: np.ndarray  # (1|B,)
    status: np.ndarray  # (B,) int8

    def array(self) -> np.ndarray:
        return self.times(np.ones(1))

    def times(self, factors: np.ndarray) -> np.ndarray:
        from ..kernels.route import lay

        size = len(self.status)
        x = np.empty((size, self.n))
        lay(self.path, self.length, self.flow, self.status, factors, x, 0, size)
        return x


@plain_dataclass(eq=False)
class Labels(AbstractKept):
    """y, kept as the labels that a search left."""

    labels: np.ndarray
    size: int
    walk: Walk
    rows: int
    signs: np.ndarray | None

    def array(self) -> np.ndarray:
        from ..kernels.labels import potentials

        y = potentials(self.labels, self.size, self.walk, self.rows)
        return y if self.signs is None else y * self.signs


def _solve_usual(state: _State, shortcut: _Shortcut, data: Data, threads: int) -> BatchSolution:
    """Paths by labels that are their own proof, and the judgement of the paths."""
    network, fit, size, c = state.prepared.network, state.declared_fit[0], data.size, data.c
    nodes, blocks = network.nodes, -(-size // _BLOCK)
    labels = np.empty((blocks * nodes + 1) * _BLOCK)
    path, length = np.empty((size, nodes), dtype=np.int32), np.empty(size, dtype=np.int32)
    ends, ok, status = np.empty((size, 2)), np.empty(size, dtype=bool), np.empty(size, dtype=np.int8)
    value, gap = np.empty((2, size))

    find = functools.partial(shortcut.find, c, labels, path, length, ends, status)
    run_spans(blocks, threads_for(0.6 * size * network.n, threads), find)
    refused = shortcut.judge(c, path, length, ends, status, ok, value, gap)
    signs = network.row_scale if network.flipped else None
    x: Any = Flows(network.n, path, length, fit.flow, status)
    y: Any = Labels(labels, size, state.walk, network.m, signs)
    residuals, iterations = np.zeros((2, size)), np.zeros(size, dtype=np.int64)
    out = BatchSolution(x, y, status, None, iterations, certificate=Certified(value, gap, *residuals))
    if refused:
        refuse(out, ok)
    return out


def _doubt(costs: np.ndarray, acyclic: bool, status: np.ndarray, ok: np.ndarray) -> None:
    """Refuse what is not proved to rounding; label correcting stops short of that, and has a second trial."""
    refused = (status == Status.OPTIMAL) & ~ok
    if not acyclic:
        refused &= costs.min(axis=1, initial=np.inf) >= 0.0
    status[refused] = Status.INACCURATE


def _solve(state: _State, data: Data, fit: PathFit, threads: int) -> BatchSolution:
    """Paths and potentials, proved: by the paths themselves, or, on other scales, as any network LP."""
    network, size, unit = state.prepared.network, data.size, state.unit
    costs, room = network.costs(data.c), network.capacities(data.upper)
    if not unit:
        room = room * (1.0 + 4.0 * TOLERANCE)  # rounding of scales must not close an arc
    ends, (find, *steps) = (fit.flow, fit.source, fit.sink), state.search
    path, length = np.empty((size, network.nodes), dtype=np.int32), np.empty(size, dtype=np.int32)
    y, status = np.empty((size, network.m)), np.empty(size, dtype=np.int8)
    judged = Certified(np.empty(size), np.empty(size), np.zeros(size), np.empty(size))
    ok = np.zeros(size, dtype=bool)
    judge = state.judge
    doubtful: list[int] = []

    def prove(start: int, stop: int, spread: bool, rounding: float) -> int:
        """How many items are not proved."""
        return judge(
            *(network.tail, network.head, costs, room, *ends, path, length, y, spread, rounding, start, stop),
            *(status, ok, judged.value, judged.gap, judged.dual_residual),
        )

    def work(start: int, stop: int) -> None:
        find(costs, room, *ends, *steps, path, length, y, status, start, stop)
        if unit and not prove(start, stop, False, _EXACT):
            return
        doubtful.append(start)
        span = slice(start, stop)
        if unit:
            _doubt(costs[span] if len(costs) > 1 else costs, network.acyclic, status[span], ok[span])
            if not network.acyclic:
                prove(start, stop, False, _CORRECTED)
                # Now, or the wider margin of potentials made up for the items beside them would be theirs.
                status[span][(status[span] == Status.OPTIMAL) & ~ok[span]] = Status.INACCURATE
        if (status[span] > _ERROR).any():  # some nodes are out of reach, and have no potential yet
            from ..kernels.potentials import complete_potentials

            walk = (network.acyclic, *state.walk)
            complete_potentials(costs, room, fit.flow, *walk, y, status, start, stop)
            if unit:
                prove(start, stop, True, _EXACT if network.acyclic else _CORRECTED)

    run_spans(size, threads_for(2.5 * size * network.n, threads), work)
    flows: Any = Flows(network.n, path, length, fit.flow, status)  # x where it is asked for
    out = BatchSolution(flows, y, status, None, np.zeros(size, dtype=np.int64), certificate=judged)
    if unit:
        # The primal residual is 0, of a flow on the arcs of one path: the certificate saw to it.
        if doubtful:
            refuse(out, ok)
    elif not network.unit_columns:
        out.x /= network.col_scale
    if network.flipped or not network.unit_rows:
        y *= network.row_scale
    if not unit:
        state.prepared.certify(data, out, threads)
    return out
