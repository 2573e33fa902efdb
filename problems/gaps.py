"""The LP of alignment with gaps: a shortest path through nodes (i, j), rows and columns used so far.

Linear gaps have one node a place, and arcs

    (i, j) -> (i+1, j+1)  costs[i, j]       row i and column j are paired
    (i, j) -> (i+1, j)    row_gap[i]        row i is left out
    (i, j) -> (i, j+1)    col_gap[j]        column j is left out.

Affine gaps (Gotoh 1982) have three, H, R, C: the first symbol of a gap leads from H to R (or C) at the price
of opening, each further one stays there at the price of extending, and closing, R -> H, is free:

    H(i, j) -> H(i+1, j+1)  costs[i, j]
    H(i, j) -> R(i+1, j)    row_open[i],     R(i, j) -> R(i+1, j)  row_gap[i],     R(i, j) -> H(i, j)  0
    H(i, j) -> C(i, j+1)    col_open[j],     C(i, j) -> C(i, j+1)  col_gap[j],     C(i, j) -> H(i, j)  0.

Free ends and local alignments have a source and a sink of their own, joined to the nodes where a path may
begin and end. A band keeps nodes with -low <= j - i <= high.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram
from lpdiff.problem import Moments, Parameter, Proposal, batch_size, unshared
from lpdiff.status import Status

from .lattice import Arcs, Lattice, make_lattice, without_padding

__all__ = ["AlignmentProblem", "Free", "alignment_lattice", "explain"]

Free = tuple[bool, bool, bool, bool]
"""Whether ends are free: rows' start, rows' end, columns' start, columns' end."""

_ROWS_START, _ROWS_END, _COLS_START, _COLS_END = range(4)


@dataclass(frozen=True, eq=False)
class AlignmentProblem(AbstractProblem):
    """Alignments of n rows with m columns; see the module's text.

    Parameters: costs, row_gap, col_gap, and row_open, col_open where gaps are affine; then the lengths of the
    rows and the columns, and the names of the columns where costs are (n, vocabulary).
    """

    n: int
    m: int
    affine: bool = False
    free: Free = (False,) * 4
    local: bool = False
    band: tuple[int, int] | None = None
    vocabulary: int | None = None

    has_oracle: ClassVar[bool] = True
    reads_shared: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return _parameters(self.n, self.m, self.affine, self.vocabulary)

    @property
    def program(self) -> LinearProgram:
        return self.lattice.program

    @property
    def lattice(self) -> Lattice:
        return alignment_lattice(self.n, self.m, self.affine, self.free, self.local, self.band)

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, *gaps = parameters[: 5 if self.affine else 3]
        rows, columns, *names = parameters[1 + len(gaps) :]
        n, m = self.n, self.m
        rows = torch.tensor(n) if rows is None else rows
        columns = torch.tensor(m) if columns is None else columns
        if names:
            place = names[0][..., None, :].expand(
                *np.broadcast_shapes(names[0].shape[:-1], costs.shape[:-2]), n, m
            )
            costs = costs.expand(*place.shape[:-2], *costs.shape[-2:]).gather(-1, place)
        i, j = torch.arange(n), torch.arange(m)
        has_row, has_column = i < rows[..., None], j < columns[..., None]  # (*batch, n), (*batch, m)
        costs = without_padding(costs, rows, columns)
        gaps = [torch.where((has_row, has_column)[k % 2], gap, 0.0) for k, gap in enumerate(gaps)]
        lattice = self.lattice
        start, end = torch.tensor(0), rows * (m + 1) + columns
        closed: list[torch.Tensor | None] = []
        if self.local or any(self.free):
            start, end = (torch.tensor(_nodes(n, m, self.affine) + k) for k in (0, 1))
            closed = [self._closed(block, rows, columns) for block in lattice.blocks]
        parameters = (costs.flatten(-2), *gaps)
        return lattice.data(parameters, start, end, closed=closed)

    def _closed(self, block: Arcs, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor | None:
        """Arcs that the lengths forbid: out of the table into the sink, and paid gaps along a free end."""
        n, m = self.n, self.m
        sink = _nodes(n, m, self.affine) + 1
        layer = (n + 1) * (m + 1)
        i, j = (torch.from_numpy(part) for part in np.divmod(block.tail % layer, m + 1))
        rows, columns = rows[..., None], columns[..., None]
        if len(block.head) and (block.head == sink).all():
            if self.local:
                return (i > rows) | (j > columns)
            ends = (i == rows) & (j == columns)
            if self.free[_ROWS_END]:
                ends = ends | ((i <= rows) & (j == columns))
            if self.free[_COLS_END]:
                ends = ends | ((i == rows) & (j <= columns))
            return ~ends
        if self.free[_ROWS_END] and block.source in (1, 3):
            return (j == columns).expand(*rows.shape[:-1], len(j))
        if self.free[_COLS_END] and block.source in (2, 4):
            return (i == rows).expand(*rows.shape[:-1], len(i))
        return None

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        from lpdiff.kernels.affine import align_affine  # numba takes its time to load
        from lpdiff.kernels.gaps import align

        count = 5 if self.affine else 3
        size = batch_size(arrays)
        # Costs and lengths are an item's own to the kernels; gaps may be shared.
        costs, rows, columns = (unshared(arrays[k], size) for k in (0, count, count + 1))
        names = None if self.vocabulary is None else arrays[-1]
        how: dict[str, Any] = {"names": names, "free": self.free, "local": self.local, "band": self.band}
        solver: Any = align_affine if self.affine else align
        found = solver(costs, *arrays[1:count], rows, columns, threads=threads, **how)
        moments = tuple(Moments(part.index, part.weight) for part in found[2:])
        messages = {}
        if found.status.any():
            forbidden = "every alignment takes a forbidden step (a cost of +inf)"
            messages = explain(self.parameters[:count], arrays, found.status, (rows, columns), forbidden)
        return Proposal(found.value, found.status, moments, messages)


def explain(
    parameters: tuple[Parameter, ...],
    arrays: tuple[Any, ...],
    status: np.ndarray,
    lengths: tuple[np.ndarray | None, np.ndarray | None],
    forbidden: str,
) -> dict[int, str]:
    """Why items have no optimum, by item."""
    messages = {}
    for item in np.flatnonzero(status).tolist():
        if status[item] == Status.INFEASIBLE:
            messages[item] = forbidden
        elif status[item] == Status.INVALID:
            own = [array[item if len(array) > 1 else 0] for array in arrays[: len(parameters)]]
            ends = [None if side is None else int(side[item if len(side) > 1 else 0]) for side in lengths]
            messages[item] = _improper(parameters, own, (ends[0], ends[1]))
    return messages


def _improper(
    parameters: tuple[Parameter, ...], arrays: list[np.ndarray], lengths: tuple[int | None, int | None]
) -> str:
    """Which number of an item is no cost. Lengths cut rows and columns."""
    for parameter, array in zip(parameters, arrays, strict=True):
        sizes = lengths if array.ndim == 2 else lengths["col" in parameter.name :][:1]
        part = array[: sizes[0], : sizes[1]] if array.ndim == 2 else array[: sizes[0]]
        part = part.astype(np.float64)
        wrong = np.argwhere(~(np.abs(part) < 1e290) & (part != np.inf))
        if len(wrong):
            place = tuple(int(k) for k in wrong[0])
            return (
                f"{parameter.name}[{', '.join(map(str, place))}] is {part[place]}: costs must be finite, or "
                f"+inf where a step is forbidden"
            )
    return "its numbers are too large to be added"


@functools.lru_cache(maxsize=256)
def _parameters(n: int, m: int, affine: bool, vocabulary: int | None) -> tuple[Parameter, ...]:
    width = m if vocabulary is None else vocabulary
    gaps = [Parameter("row_gap", (n,)), Parameter("col_gap", (m,))]
    opens = [Parameter("row_open", (n,)), Parameter("col_open", (m,))] if affine else []
    data = [Parameter("rows", (), kind="data"), Parameter("columns", (), kind="data")]
    names = [] if vocabulary is None else [Parameter("names", (m,), kind="data")]
    return (Parameter("costs", (n, width), compact=True), *gaps, *opens, *data, *names)


def _nodes(n: int, m: int, affine: bool) -> int:
    return (n + 1) * (m + 1) * (3 if affine else 1)


@functools.lru_cache(maxsize=32)
def alignment_lattice(
    n: int, m: int, affine: bool, free: Free, local: bool, band: tuple[int, int] | None
) -> Lattice:
    """The LP of a shape: pure, so it is kept."""
    i, j = (part.ravel() for part in np.indices((n + 1, m + 1)))
    layer = (n + 1) * (m + 1)
    source = _nodes(n, m, affine)
    inside = np.ones(layer, dtype=bool) if band is None else (-band[0] <= j - i) & (j - i <= band[1])
    node = np.arange(layer)
    pair = inside & (i < n) & (j < m)
    down = inside & (i < n) & np.where(i < n, inside[np.minimum(node + m + 1, layer - 1)], False)
    right = inside & (j < m) & np.where(j < m, inside[np.minimum(node + 1, layer - 1)], False)
    if free[_ROWS_START]:
        down &= j > 0
    if free[_COLS_START]:
        right &= i > 0
    blocks = [Arcs(node[pair], node[pair] + m + 2, 0, (i * m + j)[pair])]
    for kept, step, of, k in ((down, m + 1, i, 1), (right, 1, j, 2)):
        tail, place = node[kept], of[kept]
        if not affine:
            blocks.append(Arcs(tail, tail + step, k, place))
            continue
        own = k * layer  # the layer of these gaps
        further = kept & (of > 0)
        further &= inside[np.maximum(node - step, 0)]
        blocks.append(Arcs(tail, own + tail + step, 2 + k, place))
        blocks.append(Arcs(own + node[further], own + node[further] + step, k, of[further]))
        blocks.append(Arcs(own + tail + step, tail + step, None, np.zeros(len(tail), dtype=np.int64)))
    if local or any(free):
        begins = inside if local else (i == 0) & (j == 0)
        begins = begins | (free[_ROWS_START] & (j == 0)) | (free[_COLS_START] & (i == 0))
        for kept, leaves in ((begins & inside, False), (inside, True)):
            here = node[kept]
            there = np.full(len(here), source + leaves)
            tail, head = (here, there) if leaves else (there, here)
            blocks.append(Arcs(tail, head, None, np.zeros(len(here), dtype=np.int64)))
    keep = (source, source + 1) if local or any(free) else (0,)
    nodes = source + (2 if local or any(free) else 0)
    kind = "affine" if affine else "linear"
    return make_lattice(f"alignment {n}x{m}, {kind} gaps", nodes, blocks, keep)
