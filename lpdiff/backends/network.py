"""Network simplex over a batch, for LPs that are minimum-cost flow problems of any kind."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BatchSolution, Capabilities, Certified
from ..batch import run_spans, threads_for
from ..standard import Data, StandardForm
from ..status import Status
from .special import Prepared, network_form, numba_missing

__all__ = ["Network"]

_UNWANTED = np.zeros((0, 0), dtype=bool)

# Supply and demand that differ by less (relative) are meant to be equal: marginals that were normalised in
# float32 differ by 1e-7. The certificate of general solutions allows as much.
_IMBALANCE = 1e-6


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Network(AbstractBackend):
    """Primal network simplex with strongly feasible trees, compiled, a batch at a time.

    Takes programs that are networks (up to scales and signs of rows and columns) with whatever sides and
    bounds: transport, flows with capacities, ranges, free arcs. Cunningham, Mathematical Programming 11
    (1976); Ahuja, Magnanti and Orlin, "Network Flows" (1993), ch. 11.
    """

    name: ClassVar[str] = "network"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> Prepared:
        return Prepared(form, network_form(form, self.name, "networks"))

    def solve(
        self, state: Prepared, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        out = BatchSolution.empty(state.form, data.size, basis=False)
        if not state.as_declared(data):
            out.certificate = Certified.empty(data.size)
            return out
        _solve(state, data, out, _UNWANTED, threads)
        state.certify(data, out, threads)
        unmet = np.flatnonzero(out.status == Status.INFEASIBLE)
        if len(unmet):
            _balance_and_solve(state, data.take(unmet), unmet, out, threads)
        return out

    def basis(self, state: Prepared, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        basic = state.basis(data, x, y)
        lost = np.flatnonzero(~basic.any(axis=1))
        if len(lost):
            # Rounding hides the tree. The one that this solver found is the basis of its own solutions.
            again = BatchSolution.empty(state.form, len(lost), basis=False)
            trees = np.zeros((len(lost), basic.shape[1]), dtype=bool)
            _solve(state, data.take(lost), again, trees, 1)
            assert again.y is not None
            mine = np.all(again.x == x[lost], axis=1) & np.all(again.y == y[lost], axis=1)
            basic[lost[mine]] = trees[mine]
        return basic

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


def _solve(state: Prepared, data: Data, out: BatchSolution, basic: np.ndarray, threads: int) -> None:
    """Fill in x, y, status and, unless it is (0, 0), ``basic``."""
    from ..kernels import simplex as kernels

    network, size = state.network, data.size
    sides = network.supplies(data.row_lower, data.row_upper)
    costs = network.costs(data.c)
    bounds = (network.capacities(data.lower), network.capacities(data.upper))
    iterations = np.zeros(size, dtype=np.int32)
    results = (out.x, out.y, np.zeros((0, 0)), basic, out.status, iterations)
    graph = (network.ends, network.last)

    def work(start: int, stop: int) -> None:
        kernels.network_simplex(*graph, costs, *bounds, *sides, start, stop, *results)

    run_spans(size, threads_for(30 * size * network.n, threads), work)
    out.iterations[:] = iterations
    assert out.y is not None
    if not network.unit_columns:
        out.x /= network.col_scale
    if network.flipped or not network.unit_rows:
        out.y *= network.row_scale


def _balance_and_solve(
    state: Prepared, data: Data, items: np.ndarray, out: BatchSolution, threads: int
) -> None:
    """Solve again, with supply and demand made equal, the items where they nearly are.

    Without ground the equations of a component are redundant, up to the imbalance, and the dual of its last
    row is 0. So that row takes the difference, the others are met, and the duals suit the data as given.
    """
    balanced, moved = _balanced(state, data)
    chosen = np.flatnonzero(moved > 0.0)
    if len(chosen) == 0:
        return
    part, again = balanced.take(chosen), BatchSolution.empty(state.form, len(chosen), basis=False)
    _solve(state, part, again, _UNWANTED, threads)
    state.certify(part, again, threads)
    done = again.status == Status.OPTIMAL
    places, certificate, judged = items[chosen[done]], again.certificate, out.certificate
    assert out.y is not None and again.y is not None and certificate is not None and judged is not None
    out.x[places], out.y[places], out.status[places] = again.x[done], again.y[done], Status.OPTIMAL
    out.iterations[places] += again.iterations[done]
    for name, array in vars(certificate).items():
        getattr(judged, name)[places] = array[done]
    judged.primal_residual[places] = np.maximum(judged.primal_residual[places], moved[chosen[done]])


def _balanced(state: Prepared, data: Data) -> tuple[Data, np.ndarray]:
    """The data with the last row of each component moved to where it balances; by how much, (B,)."""
    network, size = state.network, data.size
    low, high = network.supplies(data.row_lower, data.row_upper)
    low, high = (np.array(np.broadcast_to(side, (size, network.m)), order="C") for side in (low, high))
    moved = np.zeros(size)
    for last in np.unique(network.last):
        if last == network.m:  # the ground takes what is over
            continue
        rows = np.flatnonzero(network.last == last)
        supply = low[:, rows]
        excess, scale = supply.sum(axis=1), np.abs(supply).sum(axis=1)
        nearly = (supply == high[:, rows]).all(axis=1) & (np.abs(excess) <= _IMBALANCE * scale)
        excess = np.where(nearly & (np.abs(excess) < np.abs(low[:, last])), excess, 0.0)
        low[:, last] -= excess
        high[:, last] -= excess
        moved = np.maximum(moved, np.abs(excess / network.row_scale[last]))
    back = network.row_scale
    sides = (low / back, high / back)
    flipped = back < 0
    row_lower, row_upper = (np.where(flipped, sides[1 - k], sides[k]) for k in (0, 1))
    return dataclasses.replace(data, row_lower=row_lower, row_upper=row_upper), moved
