"""Dynamic time warping as a loss: step patterns, a Sakoe-Chiba band, open ends."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Moments, Parameter, Proposal

from .alignment import read_band, read_pair
from .base import AbstractResult, ProblemModule, SolveOptions
from .gaps import explain
from .lattice import Arcs, Lattice, make_lattice, without_padding

__all__ = ["DTW", "STEPS", "Warping", "dtw"]

Steps = tuple[tuple[int, int, float], ...]

STEPS: dict[str, Steps] = {
    "symmetric1": ((1, 1, 1.0), (1, 0, 1.0), (0, 1, 1.0)),
    "symmetric2": ((1, 1, 2.0), (1, 0, 1.0), (0, 1, 1.0)),
    "asymmetric": ((1, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0)),
}
"""Step patterns by name: (rows, columns, weight) a step. The weight multiplies the cost of the cell that is
entered; the first cell counts once. The names are those of R's dtw package (Giorgino 2009)."""


@dataclass(frozen=True, eq=False)
class WarpingProblem(AbstractProblem):
    """Paths of steps through the cells of an (n, m) table. Parameters: costs; lengths of rows and columns."""

    n: int
    m: int
    steps: Steps
    band: tuple[int, int] | None = None
    open_begin: bool = False
    open_end: bool = False

    has_oracle: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return _parameters(self.n, self.m)

    @property
    def program(self) -> LinearProgram:
        return self.lattice.program

    @property
    def lattice(self) -> Lattice:
        return warping_lattice(self.n, self.m, self.steps, self.band, self.open_begin, self.open_end)

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, rows, columns = parameters
        rows = torch.tensor(self.n) if rows is None else rows
        columns = torch.tensor(self.m) if columns is None else columns
        costs = without_padding(costs, rows, columns)
        cells = self.n * self.m
        end = (rows - 1) * self.m + columns - 1
        closed: list[torch.Tensor | None] = []
        if self.open_end:
            last = self.lattice.blocks[-1]
            i, j = (torch.from_numpy(part) for part in np.divmod(last.tail, self.m))
            out = (i != rows[..., None] - 1) | (j >= columns[..., None])
            closed = [*[None] * (len(self.lattice.blocks) - 1), out]
            end = torch.tensor(cells + 1)
        return self.lattice.data((costs.flatten(-2),), torch.tensor(cells), end, closed=closed)

    def propose(self, *arrays: Any, threads: int = 1) -> Proposal:
        from lpdiff.kernels.warping import warp  # numba takes its time to load

        costs, rows, columns = arrays
        found = warp(
            costs,
            rows,
            columns,
            steps=self.steps,
            band=self.band,
            open_begin=self.open_begin,
            open_end=self.open_end,
            threads=threads,
        )
        messages = {}
        if found.status.any():
            forbidden = "no path of these steps reaches the last cell without a forbidden one (+inf)"
            messages = explain(self.parameters[:1], arrays, found.status, (rows, columns), forbidden)
        moments = Moments(found.cells.index, found.cells.weight)
        return Proposal(found.value, found.status, (moments,), messages)


@functools.lru_cache(maxsize=256)
def _parameters(n: int, m: int) -> tuple[Parameter, ...]:
    lengths = (Parameter("rows", (), kind="data"), Parameter("columns", (), kind="data"))
    return (Parameter("costs", (n, m), compact=True), *lengths)


@functools.lru_cache(maxsize=32)
def warping_lattice(
    n: int, m: int, steps: Steps, band: tuple[int, int] | None, open_begin: bool, open_end: bool
) -> Lattice:
    """The LP of a shape: pure, so it is kept."""
    i, j = (part.ravel() for part in np.indices((n, m)))
    cell = np.arange(n * m)
    inside = np.ones(n * m, dtype=bool) if band is None else (-band[0] <= j - i) & (j - i <= band[1])
    source, sink = n * m, n * m + 1
    first = cell[inside & (i == 0) & ((j == 0) | open_begin)]
    blocks = [Arcs(np.full(len(first), source), first, 0, first)]
    for down, right, weight in steps:
        fits = inside & (i >= down) & (j >= right)
        fits[fits] = inside[cell[fits] - down * m - right]
        head = cell[fits]
        blocks.append(Arcs(head - down * m - right, head, 0, head, np.full(len(head), float(weight))))
    if open_end:
        last = cell[inside]
        blocks.append(Arcs(last, np.full(len(last), sink), None, np.zeros(len(last), dtype=np.int64)))
    return make_lattice(
        f"warping {n}x{m}", n * m + 2, blocks, (*cell, source, sink)[: None if open_end else -1]
    )


@dataclass(frozen=True, eq=False, repr=False)
class Warping(AbstractResult):
    """Optimal warping paths of a batch.

    Attributes:
        value: (*batch,) costs of the paths, with exact generalized gradients in the costs.
    """

    @property
    def indicator(self) -> torch.Tensor:
        """(*batch, n, m): the derivative of the value in the costs; the weight of each cell on the path.

        Piecewise constant: it carries a gradient only under a rule (``gradient=``).
        """
        return self.evaluation.indicator(0)

    @cached_property
    def path(self) -> torch.Tensor:
        """(*batch, K, 2) int64: the cells (row, column) from the start, padded with -1."""
        inputs = self.evaluation.inputs
        cells = torch.stack(self._cells, -1)
        return inputs.like_user(cells.reshape(*inputs.batch_shape, *cells.shape[1:]))

    @property
    def length(self) -> torch.Tensor:
        """(*batch,) int64: cells on the path."""
        return (self.path[..., 0] >= 0).sum(-1)

    def decode(self) -> list[np.ndarray]:
        """The path of each item (of the batch in a row), (k, 2) int64 arrays of (row, column)."""
        return [path[path[:, 0] >= 0] for path in torch.stack(self._cells, -1).numpy()]

    @cached_property
    def _cells(self) -> tuple[torch.Tensor, torch.Tensor]:
        problem = self.evaluation.problem
        assert isinstance(problem, WarpingProblem)
        index, weight = self.evaluation.moments[0]
        taken = weight > 0
        return torch.where(taken, index // problem.m, -1), torch.where(taken, index % problem.m, -1)


def dtw(
    costs: Any,
    *,
    steps: str | Steps = "symmetric1",
    band: int | tuple[int, int] | None = None,
    open_begin: bool = False,
    open_end: bool = False,
    lengths: tuple[Any, Any] | None = None,
    **how: Unpack[SolveOptions],
) -> Warping:
    r"""Dynamic time warping: the cheapest path of steps from the first cell to the last.

    .. math::

        z = \min_x \; C_{00} + \sum_{\text{steps } (i', j') \to (i, j)} w\, C_{ij}\, x_{(i', j') \to (i, j)}

    over paths x through the cells (i, j); w is the weight of the kind of step. The LP is a shortest path on
    an acyclic graph with a node a cell (``path``); its vertices are paths. The value is exact, not a soft
    minimum: it is not negative where the costs are not. The compiled solver takes about 1 ns a cell.

    Args:
        costs: (*batch, n, m), any signs; float32 is read as it is. +inf forbids a cell.
        steps: ``"symmetric1"`` (down, right, diagonal), ``"symmetric2"`` (the diagonal counts twice),
            ``"asymmetric"`` (a row a step, 0, 1 or 2 columns), or (rows, columns, weight) triples.
        band: Only cells with -low <= column - row <= high (Sakoe-Chiba); one number for both.
        open_begin, open_end: The path may begin in any column of the first row, and end in any column of the
            last (subsequence search).
        lengths: A pair of lengths of the rows and of the columns, each (*batch,) integers of at least 1, a
            mask, or None. What stands beyond is not read.
        how: How to solve, see ``SolveOptions``.

    Returns:
        Warping: the value, the path.

    Raises:
        ValueError: shapes, lengths, steps, a band that does not hold the last cell; it names the item.
        SolveError: NaN or -inf costs; no path without a forbidden cell.

    References:
        Sakoe and Chiba 1978; Giorgino 2009.

    Example:
        >>> costs = torch.cdist(x, y)
        >>> dtw(costs, band=10).value.mean().backward()
    """
    costs = costs if isinstance(costs, torch.Tensor) else torch.as_tensor(np.array(costs))
    if costs.dim() < 2 or 0 in costs.shape[-2:]:
        raise ValueError(
            f"costs: expected shape (*batch, n, m) with n and m at least 1, got {tuple(costs.shape)}: a path "
            f"needs a cell"
        )
    n, m = costs.shape[-2:]
    rows: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    if lengths is not None:
        rows, columns = read_pair(lengths, n, m, tuple(costs.shape[:-2]), least=1)
    problem = WarpingProblem(
        n,
        m,
        read_steps(steps),
        None if band is None else read_band(band, rows, columns, (n, m), unless=open_begin or open_end),
        open_begin,
        open_end,
    )
    found = evaluate(problem, costs, rows, columns, **how)
    return Warping(found.value, found)


class DTW(ProblemModule):
    """``dtw`` as a module that holds its options; call it with the costs."""

    function = staticmethod(dtw)


def read_steps(steps: str | Steps) -> Steps:
    """Checked step patterns."""
    if isinstance(steps, str):
        if steps not in STEPS:
            raise ValueError(
                f"steps: unknown pattern {steps!r}; expected one of {', '.join(STEPS)}, or triples"
            )
        return STEPS[steps]
    try:
        read = tuple((int(down), int(right), float(weight)) for down, right, weight in steps)
    except (TypeError, ValueError):
        raise ValueError(f"steps: expected (rows, columns, weight) triples, got {steps!r}") from None
    for step in read:
        if step[0] < 0 or step[1] < 0 or step[:2] == (0, 0) or not np.isfinite(step[2]) or step[2] <= 0:
            raise ValueError(
                f"steps: {step} is no step forward; expected rows and columns of at least 0, one of them at "
                f"least 1, and a positive weight"
            )
    if not read or len({step[:2] for step in read}) < len(read):
        raise ValueError(f"steps: expected different steps, at least one; got {read}")
    return read
