"""Vertices: primal simplex from known vertices, for LPs of up to 512 rows whose costs alone change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from typing import Annotated, ClassVar

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BatchSolution, Capabilities, Certified
from ..pool import ROWS, VertexPool, same_sides, side_unit
from ..standard import Data, StandardForm
from ..status import Status, UnsupportedError
from .highs import HiGHS
from .reference import enlarged
from .special import numba_missing

__all__ = ["Vertices"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Vertices(AbstractBackend):
    """Compiled primal simplex that starts at the cheapest of a few known vertices.

    Items must have the matrix, rows and bounds of the known vertices, to the bit; the others are handed on,
    and so is what takes too many pivots or has no optimum. Without a pool the one known vertex is the optimum
    of the declared costs (of no costs, where none are declared or they have no optimum), found by HiGHS at
    the first solve. It depends on nothing but the program, so results depend on no other solve.

    Args:
        pool: Vertices learned from sample costs, see ``VertexPool.learn``.
        pivots: Pivots an item may take, None for 3 m + 50.
    """

    pool: VertexPool | None = None
    pivots: Annotated[int, Field(ge=0)] | None = None

    name: ClassVar[str] = "vertices"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> _State:
        if form.is_mip or form.m > ROWS:
            what = "has integers" if form.is_mip else f"has {form.m:,} rows"
            raise UnsupportedError(
                f"solver 'vertices' takes programs without integers and of at most {ROWS} rows; this one "
                f"{what}: use solver='auto'"
            )
        if self.pool is not None and not self.pool.form.same_as(form):
            raise ValueError("this pool of vertices was learned from another program: learn one from this")
        return _State(form, self.pool)

    def solve(
        self, state: _State, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        if self.pool is None and not same_sides(state.form.declared, data).any():
            out = BatchSolution.empty(state.form, data.size)
            out.certificate = Certified.empty(data.size)
            return out  # and the declared program need not be solved for its vertex
        return state.pool.propose(data, threads=threads, limit=self.pivots)

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


@plain_dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm
    given: VertexPool | None

    @cached_property
    def pool(self) -> VertexPool:
        """The given pool, or the vertex that the declared costs choose."""
        if self.given is not None:
            return self.given
        form = self.form
        declared = form.declared
        # Cold, and with neither costs nor sides so small that HiGHS would take them for rounding.
        solver, data = HiGHS(primal_tolerance=1e-9, dual_tolerance=1e-9, warm_start=False), enlarged(declared)
        for costs in (data.c, np.zeros_like(data.c)):
            found = solver.solve(form, dataclasses.replace(data, c=costs))
            if found.status[0] == Status.OPTIMAL:
                break
        found.x *= np.minimum(side_unit(declared), 1.0)
        return VertexPool.learn(form, declared, found, 1)
