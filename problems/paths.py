"""Shortest and longest paths in graphs, as flows of one unit.

    min  <costs, x>   subject to   x(out of v) - x(into v) = [v = source] - [v = target],   x >= 0

Costs of edges: an arc an edge, two for an undirected one. Costs of nodes: every node v is split into an arc
from v (in) to v (out) that costs what v costs, and the edges lead from out to in and are free; source and
target are paid for too. The matrix is that of a network, so vertices are integral, and a vertex is a simple
path.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, Evaluation, LinearProgram, Solution, evaluate
from lpdiff.problem import Parameter

from .base import AbstractResult, ProblemModule, SolveOptions, forbidding
from .graphs import (
    Graph,
    explaining,
    follow,
    incidence,
    nested,
    read_graph,
    read_nodes,
    supplies_of,
)

__all__ = [
    "GraphPath",
    "LongestPath",
    "PathProblem",
    "PathSolution",
    "find_path",
    "graph_path",
    "longest_path",
]

_LONGEST = "a cycle of positive score"
_SHORTEST = (
    "a cycle of negative cost, which would be walked forever: costs of an undirected graph must be >= 0"
)


@dataclass(frozen=True, eq=False)
class PathProblem(AbstractProblem):
    """Paths from source to target, which are parameters where they are None here; see the module's text."""

    graph: Graph
    directed: bool
    of_nodes: bool
    source: int | None
    target: int | None
    longest: bool = False
    once: bool = False

    @property
    def split(self) -> bool:
        """Whether nodes are split."""
        return self.of_nodes or self.once

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        count = self.graph.nodes if self.of_nodes else self.graph.edges
        ends = [] if self.source is not None else ["source", "target"]
        return (Parameter("costs", (count,)), *(Parameter(name, (), kind="data") for name in ends))

    @property
    def program(self) -> LinearProgram:
        return _program(
            *(self.graph, self.directed, self.split, self.source, self.target, self.longest, self.once)
        )

    @cached_property
    def moves(self) -> tuple[np.ndarray, np.ndarray]:
        """Tail and head of the arcs between nodes, both ways where edges are undirected."""
        tail, head = self.graph.tail, self.graph.head
        if self.directed:
            return tail, head
        return np.concatenate([tail, head]), np.concatenate([head, tail])

    def data(self, costs: torch.Tensor, *ends: torch.Tensor) -> dict[str, Any]:
        batch, nodes = costs.shape[:-1], self.graph.nodes
        if self.of_nodes:
            parts = [costs, costs.new_zeros(*batch, len(self.moves[0]))]
        else:
            parts = [costs.new_zeros(*batch, nodes)] if self.split else []
            parts += [costs] if self.directed else [costs, costs]
        c = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        given = forbidding(
            c, upper=1.0 if self.once else torch.inf, worst=-torch.inf if self.longest else torch.inf
        )
        if ends:
            source, target = ends
            rows = 2 * nodes if self.split else nodes
            given["b"] = supplies_of(source, target + nodes if self.split else target, rows)
        return given


@functools.lru_cache(maxsize=32)
def _program(
    graph: Graph,
    directed: bool,
    split: bool,
    source: int | None,
    target: int | None,
    longest: bool,
    once: bool,
) -> LinearProgram:
    nodes, (tail, head) = graph.nodes, PathProblem(graph, directed, split, source, target).moves
    if split:
        inner = np.arange(nodes)
        tail, head = np.concatenate([inner, tail + nodes]), np.concatenate([inner + nodes, head])
    rows = 2 * nodes if split else nodes
    b = np.zeros(rows)
    if source is not None and target is not None:
        b[source] += 1.0
        b[target + (nodes if split else 0)] -= 1.0
    sense: Literal["min", "max"] = "max" if longest else "min"
    bounds = (0, 1) if once else (0, None)
    return LinearProgram(A_eq=incidence(tail, head, rows), b_eq=b, bounds=bounds, sense=sense, name="path")


# -- what comes back ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class PathSolution(AbstractResult):
    """Paths of a batch.

    Attributes:
        value: (*batch,) costs of the paths, with exact generalized gradients in the costs; infinite where
            there is no path.
    """

    problem: PathProblem
    source: int | torch.Tensor
    target: int | torch.Tensor

    @cached_property
    def edge_indicator(self) -> torch.Tensor:
        """(*batch, E) 1 where the path takes an edge, either way. NaN where there is no path.

        Piecewise constant in the costs: gradients through it are those of the rule that was chosen
        (``gradient=``), or refused.
        """
        taken, edges = self._moves(self._solution.x), self.problem.graph.edges
        both = taken if self.problem.directed else taken[..., :edges] + taken[..., edges:]
        return self.evaluation.inputs.like_user(both)

    @cached_property
    def node_indicator(self) -> torch.Tensor:
        """(*batch, nodes) 1 where the path visits a node, ends included. As ``edge_indicator``."""
        nodes, x = self.problem.graph.nodes, self._solution.x
        if self.problem.split:
            return self.evaluation.inputs.like_user(x[..., :nodes])
        into = x.new_zeros(*x.shape[:-1], nodes).index_add(-1, _tensor(self.problem.moves[1]), x)
        start = torch.nn.functional.one_hot(torch.as_tensor(self.source), nodes)
        return self.evaluation.inputs.like_user(into + start)

    @cached_property
    def nodes(self) -> torch.Tensor:
        """(*batch, K) int64, the nodes from source to target, padded with -1.

        All -1 where there is no path."""
        return self._walk[0]

    @cached_property
    def edges(self) -> torch.Tensor:
        """(*batch, K - 1) int64, the edges from source to target, padded with -1."""
        return self._walk[1]

    def decode(self) -> list[Any]:
        """The nodes of each path, a list an item (nested as the batch is); empty where there is none."""
        return nested(self.nodes, lambda nodes: [v for v in nodes if v >= 0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={tuple(self.value.shape)}, {self.problem.graph!r})"

    @cached_property
    def _walk(self) -> tuple[torch.Tensor, torch.Tensor]:
        batch, (tail, head) = self.value.shape, self.problem.moves
        used = (self._moves(self._solution.vertex) > 0.5).reshape(batch.numel(), len(tail)).numpy()
        ends = [torch.as_tensor(end).expand(batch).reshape(-1).numpy() for end in (self.source, self.target)]
        nodes, arcs = follow(tail, head, used, *ends)
        nodes[~self.ok.reshape(-1).cpu().numpy()] = -1
        edges = np.where(arcs >= 0, arcs % max(self.problem.graph.edges, 1), -1)
        made = [torch.from_numpy(a).reshape(*batch, a.shape[1]) for a in (nodes, edges)]
        return made[0].to(self.value.device), made[1].to(self.value.device)

    @property
    def _solution(self) -> Solution:
        assert self.evaluation.solution is not None
        return self.evaluation.solution

    def _moves(self, x: torch.Tensor) -> torch.Tensor:
        """(*batch, arcs) of the arcs between nodes."""
        return x[..., self.problem.graph.nodes if self.problem.split else 0 :]


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


# -- graphs ------------------------------------------------------------------------------------------------


def graph_path(
    edges: Any,
    costs: Any,
    source: Any,
    target: Any,
    *,
    nodes: int | None = None,
    directed: bool = True,
    of: Literal["edges", "nodes"] = "edges",
    once: bool = False,
    **how: Unpack[SolveOptions],
) -> PathSolution:
    """Shortest paths from source to target.

    Args:
        edges: (E, 2) integers, a pair (tail, head) an edge; parallel edges and loops are allowed. Or a
            ``Graph`` (``graphs.read_graph``), which need not be read again.
        costs: (*batch, E), or (*batch, nodes) with ``of="nodes"``, where a path pays for each node it visits,
            both ends included. +inf forbids. Negative costs are fine where no cycle is negative.
        source, target: Nodes, for all items or one an item, (*batch,). Equal ones make a path without edges.
        nodes: Number of nodes; default: one more than the largest in ``edges``.
        directed: Whether edges lead one way only. Undirected edges must not be negative.
        of: What costs are of.
        once: Let each node be used once at most, so that costs may be anything: the LP's solution is then a
            path and, where they pay, negative cycles beside it. For losses and rules that move costs below 0.
        how: See ``lpdiff.evaluate``.

    Returns:
        A PathSolution: ``value``, ``edge_indicator``, ``node_indicator``, ``nodes``, ``edges``, ``decode()``.

    Raises:
        ValueError: edges, nodes or shapes that do not fit.
        SolveError: an item without a path, or with a negative cycle (unless ``throw=False``).

    The LP: see the module's text. Recognised as one path through a network; solved by dynamic programming in
    O(E) where the graph is acyclic, else by Dijkstra's algorithm in O(E log V), or label correcting where a
    cost is negative. Where several paths are shortest, one of them: any is a supergradient.

    Example::

        edges = [[0, 1], [1, 2], [0, 2]]
        path = graph_path(edges, torch.tensor([1.0, 1.0, 3.0], requires_grad=True), 0, 2)
        path.value.backward()  # path.decode() == [0, 1, 2]
    """
    return _solve_path(read_graph(edges, nodes), costs, source, target, directed, of, False, once, how)


def longest_path(
    edges: Any,
    scores: Any,
    source: Any,
    target: Any,
    *,
    nodes: int | None = None,
    of: Literal["edges", "nodes"] = "edges",
    **how: Unpack[SolveOptions],
) -> PathSolution:
    """Longest (best, critical) paths in directed acyclic graphs.

    Args:
        edges, source, target, nodes, of, how: As for ``graph_path``.
        scores: As its costs, maximised; -inf forbids.

    Raises:
        ValueError: as for ``graph_path``; a graph with a cycle.

    The same LP with max for min. Dynamic programming in O(E), whatever the signs.
    Where there is no path the value is -inf.

    Example::

        duration = torch.tensor([3.0, 2.0, 4.0], requires_grad=True)
        project = longest_path([[0, 1], [1, 2], [0, 2]], duration, 0, 2)
        project.value.backward()  # 5.0: the critical path is [0, 1, 2]
    """
    graph = read_graph(edges, nodes)
    _need_acyclic(graph)
    return _solve_path(graph, scores, source, target, True, of, True, False, how)


def _solve_path(
    graph: Graph,
    costs: Any,
    source: Any,
    target: Any,
    directed: bool,
    of: str,
    longest: bool,
    once: bool,
    how: SolveOptions,
) -> PathSolution:
    if of not in ("edges", "nodes"):
        raise ValueError(f"of: expected 'edges' or 'nodes', got {of!r}")
    return PathSolution(*find_path(graph, costs, source, target, directed, of == "nodes", longest, once, how))


def find_path(
    graph: Graph,
    costs: Any,
    source: Any,
    target: Any,
    directed: bool,
    of_nodes: bool,
    longest: bool,
    once: bool,
    how: SolveOptions,
) -> tuple[torch.Tensor, Evaluation, PathProblem, int | torch.Tensor, int | torch.Tensor]:
    batch = tuple(np.shape(costs)[:-1])
    s, t = (
        read_nodes(name, end, graph.nodes, batch) for name, end in (("source", source), ("target", target))
    )
    if isinstance(s, int) and isinstance(t, int):
        problem, ends = PathProblem(graph, directed, of_nodes, s, t, longest, once), []
    else:
        problem, ends = PathProblem(graph, directed, of_nodes, None, None, longest, once), [s, t]
    cycle = _LONGEST if longest else _SHORTEST
    with explaining(INFEASIBLE="no open path leads from source to target", UNBOUNDED=cycle):
        found = evaluate(problem, costs, *ends, **how)
    return found.value, found, problem, s, t


@functools.lru_cache(maxsize=32)
def _need_acyclic(graph: Graph) -> None:
    tail, head = graph.tail, graph.head
    left = np.ones(graph.edges, dtype=bool)
    alive = np.ones(graph.nodes, dtype=bool)
    while True:
        entered = np.zeros(graph.nodes, dtype=bool)
        entered[head[left]] = True
        if (entered == alive).all():
            break
        alive &= entered
        left &= alive[tail]
    if alive.any():
        # Each that is left has a predecessor that is left: walking back ends in a circle.
        seen: list[int] = [int(np.flatnonzero(alive)[0])]
        while seen[-1] not in seen[:-1]:
            seen.append(int(tail[np.flatnonzero(left & (head == seen[-1]))[0]]))
        circle = seen[seen.index(seen[-1]) :][::-1]
        raise ValueError(
            f"longest paths need a graph without cycles, but this one has {' -> '.join(map(str, circle))}. "
            f"Direct the edges from earlier to later"
        )


class GraphPath(ProblemModule):
    """``graph_path`` with its options held; called with (edges, costs, source, target)."""

    function = staticmethod(graph_path)


class LongestPath(ProblemModule):
    """``longest_path`` with its options held; called with (edges, scores, source, target)."""

    function = staticmethod(longest_path)
