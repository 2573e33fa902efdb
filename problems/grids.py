"""Shortest paths through grids: ``paths`` on the graph of the neighbouring cells, and a solver without it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, Status, UnsupportedError, evaluate
from lpdiff.problem import Moments, Parameter, Proposal

from .base import ProblemModule, SolveOptions, any_of, named
from .graphs import Graph, explaining, nested, read_nodes
from .paths import PathProblem, PathSolution, find_path

__all__ = ["GridPath", "GridPathSolution", "GridProblem", "Moves", "grid_graph", "grid_path"]

Moves = Literal[4, 8, "monotone"]


@dataclass(frozen=True, eq=False)
class GridProblem(AbstractProblem):
    """Paths through a grid whose cells cost something.

    Parameters: costs (H, W), then the numbers of the first and the last cell. The LP is that of ``paths``.
    """

    shape: tuple[int, int]
    moves: Moves = 8
    once: bool = False

    has_oracle: ClassVar[bool] = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("costs", self.shape),
            *(Parameter(name, (), kind="data") for name in ("start", "end")),
        )

    @cached_property
    def paths(self) -> PathProblem:
        """The same problem on the graph of the grid; its declared path runs from corner to corner."""
        graph = grid_graph(*self.shape, self.moves)
        return PathProblem(
            graph, self.moves == "monotone", True, 0, graph.nodes - 1, longest=False, once=self.once
        )

    @property
    def program(self) -> LinearProgram:
        return self.paths.program

    def data(self, costs: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> dict[str, Any]:
        return self.paths.data(costs.flatten(-2), start, end)

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.batch import run_spans, threads_for
        from lpdiff.kernels.grids import grid_paths

        costs, start, end = arrays
        size, (height, width) = len(costs), self.shape
        value, status = np.empty(size), np.empty(size, dtype=np.int8)
        length, path = np.empty(size, dtype=np.int32), np.empty((size, height * width), dtype=np.int32)
        moves, flat = 2 if self.moves == "monotone" else self.moves, costs.reshape(size, height * width)

        def work(first: int, last: int) -> None:
            found = (value, status, length, path)
            grid_paths(flat, height, width, moves, start, end, first, last, *found)

        run_spans(size, threads_for((5.0 if moves == 2 else 70.0) * size * height * width, threads), work)
        invalid = dict.fromkeys(np.flatnonzero(status == Status.INVALID).tolist(), "a cost is NaN or -inf")
        index = path[:, : int(length.max(initial=0))].astype(np.int64)
        inside = np.arange(index.shape[1]) < length[:, None]
        index[~inside] = 0
        return Proposal(value, status, (Moments(index, inside.astype(float)),), invalid)


@dataclass(frozen=True, eq=False, repr=False)
class GridPathSolution(PathSolution):
    """Paths through grids; ``nodes`` numbers the cells row by row."""

    shape: tuple[int, int] = (0, 0)

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, H, W) 1 on the cells of the path, ends included; of cells, the value's gradient.

        Piecewise constant: gradients through it are those of the rule chosen (``gradient=``), or refused.
        """
        return self.node_indicator.unflatten(-1, self.shape)

    @cached_property
    def node_indicator(self) -> torch.Tensor:
        """(*batch, H W), the same."""
        if isinstance(self.evaluation.problem, GridProblem):
            return self.evaluation.indicator(0).flatten(-2)
        return super().node_indicator

    @cached_property
    def edge_indicator(self) -> torch.Tensor:
        """(*batch, E) 1 on the edges of the path, where costs are those of edges.

        Raises:
            UnsupportedError: costs are those of cells: read ``indicator``, or ``edges``.
        """
        if self.solution is None:
            raise UnsupportedError(
                "edge_indicator: these costs are of cells, and have an indicator. The steps are in edges; "
                "solver='path' tells both"
            )
        return super().edge_indicator

    @cached_property
    def cells(self) -> torch.Tensor:
        """(*batch, K, 2) int64, row and column of the cells from start to end, padded with -1."""
        width = max(self.shape[1], 1)
        nodes, none = self.nodes, self.nodes < 0
        pair = [nodes.div(width, rounding_mode="floor"), nodes % width]
        return torch.stack([part.masked_fill(none, -1) for part in pair], -1)

    def decode(self) -> list[Any]:
        """The cells (row, column) of each path, a list an item; empty where there is none."""
        width = self.shape[1]
        return nested(self.nodes, lambda nodes: [divmod(v, width) for v in nodes if v >= 0])

    @cached_property
    def nodes(self) -> torch.Tensor:
        """(*batch, K) int64, the numbers of the cells from start to end, padded with -1."""
        if self.solution is not None:
            return super().nodes
        index, weight = self.evaluation.moments[0]
        nodes = torch.where(weight > 0.5, index, -1)
        if nodes.shape[1] == 0:
            nodes = torch.full((len(nodes), 1), -1)
        return nodes.reshape(*self.value.shape, nodes.shape[1]).to(self.value.device)

    @cached_property
    def edges(self) -> torch.Tensor:
        """(*batch, K - 1) int64, the edges of ``grid_graph`` from start to end, padded with -1."""
        if self.solution is not None:
            return super().edges
        graph, nodes = self.problem.graph, self.nodes.cpu().numpy()
        tail, head = self.problem.moves
        keys = tail * graph.nodes + head
        order = np.argsort(keys)
        wanted = nodes[..., :-1] * graph.nodes + nodes[..., 1:]
        place = np.searchsorted(keys[order], wanted)
        # Behind the end of a path nothing is found.
        taken = np.append(order, -1)[np.minimum(place, len(order))] % max(graph.edges, 1)
        edges = np.where(nodes[..., 1:] >= 0, taken, -1)
        return torch.from_numpy(edges).to(self.value.device)


@functools.lru_cache(maxsize=32)
def grid_graph(height: int, width: int, moves: Moves = 8) -> Graph:
    """The edges between neighbouring cells, which are numbered row by row.

    Row after row: the edges to the right, then those down, then (with 8 neighbours) those down to the right
    and down to the left. With 4 neighbours and with ``"monotone"``, whose edges lead right and down only,
    this is the order of PyEPO's shortest-path benchmark.
    """
    if moves not in (4, 8, "monotone"):
        raise ValueError(f"moves: expected 4, 8 or 'monotone', got {moves!r}")
    steps = [(0, 1), (1, 0)] + ([(1, 1), (1, -1)] if moves == 8 else [])
    cell = np.arange(height * width).reshape(height, width)
    parts: list[np.ndarray] = []
    for row in range(height):
        for down, right in steps:
            if row + down < height:
                tail = cell[row, max(0, -right) : width - max(0, right)]
                parts.append(np.stack([tail, tail + down * width + right]))
    pairs = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), dtype=np.int64)
    return Graph.of(pairs[0], pairs[1], height * width)


def grid_path(
    costs: Any,
    *,
    moves: Moves = 8,
    start: Any = None,
    end: Any = None,
    mask: Any = None,
    shape: Sequence[int] | None = None,
    once: bool = False,
    **how: Unpack[SolveOptions],
) -> GridPathSolution:
    """Shortest paths through grids, from the top left to the bottom right corner unless told otherwise.

    Args:
        costs: Of the cells, (*batch, H, W): a path pays for each it visits, both ends included. Or, where
            ``shape`` is given, of the edges, (*batch, E) in the order of ``grid_graph``. +inf forbids.
        moves: 8 or 4 neighbours, either way; or ``"monotone"``, a step right or down: PyEPO's benchmark.
        start, end: (row, column), for all items or one an item, (*batch, 2).
        mask: (*batch, H, W) bool, False on cells that there are not: for grids of different sizes in one
            batch (with an ``end`` an item), and for walls. Costs of cells only.
        shape: (H, W), where costs are those of edges.
        once: Let each cell be used once at most, so that costs may be negative: see ``graph_path``.
        how: See ``lpdiff.evaluate``.

    Returns:
        A GridPathSolution: ``value``, ``indicator`` (*batch, H, W), ``cells``, ``decode()``.

    Raises:
        ValueError: shapes that do not fit, or cells that there are not.
        SolveError: an item without a path, or with a negative cycle (unless ``throw=False``).

    The LP: see ``paths``; costs of cells are those of split nodes. Recognised as one path through a network.
    Costs of cells have a solver of their own, which needs no graph: for ``"monotone"`` a table, O(HW), any
    costs; else Dijkstra's algorithm, O(HW log HW), for costs >= 0 (two cells, to and fro, would be a cycle).
    With ``once=True`` they may be negative, and the network simplex solves where a cycle pays.

    References: Elmachtoub and Grigas 2022 (the monotone grid); Vlastelica et al. 2020 (terrain maps).

    Example::

        costs = torch.rand(16, 12, 12, requires_grad=True)
        path = grid_path(costs)
        path.value.mean().backward()  # costs.grad is path.indicator / 16
    """
    tensor = costs if isinstance(costs, torch.Tensor) else torch.as_tensor(np.asarray(costs))
    if shape is None:
        if tensor.dim() < 2:
            raise ValueError(
                f"costs: expected cells (*batch, H, W), got {tuple(tensor.shape)}. Costs of edges need "
                "shape=(H, W)"
            )
        height, width = (int(size) for size in tensor.shape[-2:])
        tensor = _masked(tensor, mask)
    else:
        if mask is not None:
            raise ValueError("mask: for costs of cells. Forbid an edge by the cost +inf")
        height, width = (int(size) for size in shape)
    if height * width == 0:
        raise ValueError(f"costs: a grid of {height} x {width} has no cell to start from")
    graph = grid_graph(height, width, moves)
    if shape is not None and (tensor.dim() < 1 or tensor.shape[-1] != graph.edges):
        raise ValueError(
            f"costs: expected (*batch, {graph.edges}), an edge each of the {height} x {width} grid with "
            f"moves={moves!r}; got {tuple(tensor.shape)}"
        )
    ends = [_read_cell(*given, height, width) for given in (("start", start, 0), ("end", end, -1))]
    if shape is None and (moves == "monotone" or not any_of(tensor.detach() < 0)):
        return _by_cells(GridProblem((height, width), moves, once), tensor, ends[0], ends[1], how)
    tensor = tensor if shape is not None else tensor.flatten(-2)
    found = find_path(graph, tensor, ends[0], ends[1], moves == "monotone", shape is None, False, once, how)
    return GridPathSolution(*found, (height, width))


def _by_cells(
    problem: GridProblem, costs: torch.Tensor, start: Any, end: Any, how: SolveOptions
) -> GridPathSolution:
    """Costs of cells, on which no cycle pays: what the grid's own solver takes."""
    shape, batch = problem.shape, tuple(costs.shape[:-2])
    ends = [read_nodes(*given, shape[0] * shape[1], batch) for given in (("start", start), ("end", end))]
    with explaining(INFEASIBLE="no open path leads from start to end"):
        found = evaluate(problem, costs, *ends, **how)
    return GridPathSolution(found.value, found, problem.paths, ends[0], ends[1], shape)


def _masked(costs: torch.Tensor, mask: Any) -> torch.Tensor:
    if mask is None:
        return costs
    given = mask if isinstance(mask, torch.Tensor) else torch.as_tensor(np.asarray(mask))
    if given.dtype != torch.bool or given.shape[-2:] != costs.shape[-2:]:
        raise ValueError(
            f"mask: expected booleans of shape (*batch, {costs.shape[-2]}, {costs.shape[-1]}), True on cells "
            f"that there are; got {given.dtype} of {tuple(given.shape)}"
        )
    return torch.where(given.to(costs.device), costs, torch.inf)


def _read_cell(name: str, given: Any, default: int, height: int, width: int) -> Any:
    """Numbers of cells, row by row; ``read_nodes`` sees to their batch."""
    if given is None:
        return default % (height * width)
    cells = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
    if cells.dtype.kind not in "iu" or cells.ndim < 1 or cells.shape[-1] != 2:
        raise ValueError(
            f"{name}: expected (row, column), integers (2,) or (*batch, 2); got {cells.dtype} of "
            f"{cells.shape}"
        )
    wrong = ((cells < 0) | (cells >= (height, width))).any(-1)
    if wrong.any():
        item = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}: {named(item) + ' has' if item else 'got'} cell {tuple(cells[item].tolist())}, expected "
            f"rows 0 to {height - 1} and columns 0 to {width - 1}"
        )
    return cells[..., 0] * width + cells[..., 1]


class GridPath(ProblemModule):
    """``grid_path`` with its options held; called with the costs."""

    function = staticmethod(grid_path)
