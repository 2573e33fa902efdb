"""Closed forms over a batch: LPs without rows, and the continuous knapsack of LPs with one."""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BatchSolution, Capabilities
from ..batch import run_spans, threads_for
from ..standard import Data, StandardForm
from ..status import UnsupportedError
from .special import certify_columns, numba_missing

__all__ = ["Selection"]

# Reduced costs below this (relative) are zero to the eye that looks for a basis.
_TIE = 1e-9


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Selection(AbstractBackend):
    """No row: each variable goes to the bound its cost asks for. One row: variables are taken in the order of
    cost per unit of the row, until it is met (Dantzig 1957). Compiled, a batch at a time.

    Takes any coefficients (also item by item), sides and bounds.
    """

    name: ClassVar[str] = "selection"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> _State:
        if form.m > 1 or form.is_mip:
            what = "integer variables" if form.is_mip else f"{form.m} rows"
            raise UnsupportedError(
                f"solver 'selection' takes programs of at most one row, without integers, and this one has "
                f"{what}: use solver='auto'"
            )
        return _State(form)

    def solve(
        self, state: _State, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        from ..kernels import selection as kernels

        form, size = state.form, data.size
        out = BatchSolution.empty(form, size, basis=False, fill=0.0)
        assert out.y is not None
        row = state.row(data.values)

        def work(start: int, stop: int) -> None:
            if form.m == 0:
                kernels.separable(data.c, data.lower, data.upper, out.x, out.status, start, stop)
            else:
                kernels.one_row(
                    *(data.c, row, data.lower, data.upper, data.row_lower, data.row_upper),
                    *(out.x, out.y, out.status, start, stop),
                )

        run_spans(size, threads_for(5 * size * form.n, threads), work)
        none = np.zeros_like(row)
        first = np.zeros(form.n, dtype=np.int32)  # the one row, or none: places both 0
        columns = (first, np.full(form.n, form.m, dtype=np.int32), row, none)
        certify_columns(columns, data, out, threads)
        return out

    def basis(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """One member: what stands strictly inside its bounds, or else a column without reduced cost."""
        form, size = state.form, len(x)
        basic = np.zeros((size, form.n + form.m), dtype=bool)
        if form.m == 0:
            return basic
        row = state.row(data.values)
        activity = (row * x).sum(axis=1)
        point = np.column_stack([x, activity])
        lower = np.hstack([np.broadcast_to(data.lower, x.shape), np.broadcast_to(data.row_lower, (size, 1))])
        upper = np.hstack([np.broadcast_to(data.upper, x.shape), np.broadcast_to(data.row_upper, (size, 1))])
        margin = _TIE * (1 + np.abs(point))
        inside = (point - lower > margin) & (upper - point > margin)
        d = np.column_stack([data.c - row * y, y])
        tight = np.abs(d) <= _TIE * (1 + np.abs(d).max(axis=1, keepdims=True))
        able = np.column_stack([np.broadcast_to(row != 0, x.shape), np.ones(size, dtype=bool)])
        # First what must be basic, then the logical, then the first column that may be.
        rank = np.where(inside, 3, np.where(np.arange(form.n + 1) == form.n, 2, 1)) * (tight & able)
        best = rank.argmax(axis=1)
        items = np.arange(size)
        basic[items, best] = rank[items, best] > 0
        return basic

    @classmethod
    def missing(cls) -> str | None:
        return numba_missing()


@plain_dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm

    def row(self, values: np.ndarray) -> np.ndarray:
        """The coefficients of all variables, (1|B, n)."""
        row = np.zeros((len(values), self.form.n))
        row[:, self.form.cols] = values
        return row
