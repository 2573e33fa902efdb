"""Minimum spanning trees and forests.

Edmonds' LP of spanning trees has a row for each set of nodes. Martin's (1991) says the same with few rows:
for each node r, orient the tree towards r; then every other node has one edge that leads on.

    min  <costs, x>
    subject to   sum_e x_e = nodes - 1                                            (a forest: fewer)
                 to_(r,e) + from_(r,e) = x_e            for each r and edge e     (oriented towards r)
                 sum of what leads on from v <= 1       for each r and v != r,    nothing leads on from r
                 x, to, from >= 0

Projected to x this is the spanning tree polytope, whose vertices are the trees. It has (2 nodes + 1) edges
variables: a definition and a test for small graphs; graphs of any size go to the compiled solver.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Moments, Parameter, Proposal
from lpdiff.status import Status

from .base import AbstractResult, ProblemModule, SolveOptions, forbidding
from .graphs import Graph, explaining, nested, read_graph

__all__ = ["MinimumSpanningTree", "TreeProblem", "TreeSolution", "minimum_spanning_tree", "tree_program"]

_REMEDY = "add edges, or pass forest=True for a tree in each component"


@functools.lru_cache(maxsize=8)
def tree_program(graph: Graph) -> LinearProgram:
    """Martin's LP. Variables: x; for each r what leads on from edges' tails; the same from their heads."""
    nodes, edges = graph.nodes, graph.edges
    eye, every = sp.eye_array(edges), np.ones((1, edges))
    ends = []
    for end in graph.pairs:  # (nodes, edges), 1 where v is that end
        place = (end, np.arange(edges))
        ends.append(sp.csr_array((np.ones(edges), place), shape=(nodes, edges)))
    # Which of the edges lead on, for each root: not from the root itself.
    free = [sp.block_diag([sp.diags_array((end != r) * 1.0) for r in range(nodes)]) for end in graph.pairs]
    oriented = sp.hstack([sp.kron(np.ones((nodes, 1)), -eye), *free]) if nodes else sp.csr_array((0, edges))
    whole = sp.hstack([sp.csr_array(every), sp.csr_array((1, 2 * nodes * edges))])
    on = [sp.kron(sp.eye_array(nodes), end) @ f for end, f in zip(ends, free, strict=True)]
    at_most = sp.hstack([sp.csr_array((nodes * nodes, edges)), *on])
    for block in (oriented, at_most):
        block.eliminate_zeros()
    b = np.zeros(1 + nodes * edges)
    b[0] = max(nodes - 1, 0)
    return LinearProgram(
        A_ub=at_most,
        b_ub=np.ones(nodes * nodes),
        A_eq=sp.vstack([whole, oriented]),
        b_eq=b,
        name="spanning tree",
    )


@dataclass(frozen=True, eq=False)
class TreeProblem(AbstractProblem):
    """Spanning trees of a graph, or forests with a tree in each component. Parameter: costs of the edges."""

    graph: Graph
    forest: bool = False

    has_oracle: ClassVar[bool] = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("costs", (self.graph.edges,)),)

    @property
    def program(self) -> LinearProgram:
        return tree_program(self.graph)

    def data(self, costs: torch.Tensor) -> dict[str, Any]:
        rest = costs.new_zeros(*costs.shape[:-1], 2 * self.graph.nodes * self.graph.edges)
        given = forbidding(torch.cat([costs, rest], -1))
        if self.forest:
            size = math.prod(costs.shape[:-1])
            flat = np.ascontiguousarray(costs.detach().reshape(size, self.graph.edges).numpy())
            count = torch.from_numpy(self._solve(flat, 1)[2].astype(float)).reshape(*costs.shape[:-1], 1)
            links = count.new_zeros(*count.shape[:-1], self.graph.nodes * self.graph.edges)
            given["b_eq"] = torch.cat([count, links], -1)
        return given

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        value, status, count, apart, tree = self._solve(arrays[0], threads)
        told = {}
        for item in np.flatnonzero(status).tolist():
            if status[item] == Status.INFEASIBLE:
                told[item] = f"no path of open edges joins node {apart[item]} to node 0"
            elif status[item] == Status.INVALID:
                told[item] = "a cost is NaN or -inf; +inf says that an edge is not there"
        inside = np.arange(tree.shape[1]) < np.where(status == Status.OPTIMAL, count, 0)[:, None]
        return Proposal(
            value, status, (Moments(np.where(inside, tree, 0).astype(np.int64), inside.astype(float)),), told
        )

    def _solve(self, costs: np.ndarray, threads: int) -> tuple[np.ndarray, ...]:
        """Value, status, edges of the forest, a node apart from node 0, and the edges."""
        from lpdiff.batch import run_spans, threads_for
        from lpdiff.kernels.forest import spanning_forests

        graph, size = self.graph, len(costs)
        tail, head = graph.tail.astype(np.int32), graph.head.astype(np.int32)
        value, status = np.empty(size), np.empty(size, dtype=np.int8)
        count, apart = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.int32)
        tree = np.zeros((size, max(graph.nodes - 1, 0)), dtype=np.int32)
        found = (value, status, count, apart, tree)

        def work(start: int, stop: int) -> None:
            spanning_forests(tail, head, graph.nodes, not self.forest, costs, start, stop, *found)

        run_spans(size, threads_for(12.0 * size * graph.edges, threads), work)
        return found


@dataclass(frozen=True, eq=False, repr=False)
class TreeSolution(AbstractResult):
    """Trees of a batch.

    Attributes:
        value: (*batch,) their costs, with exact generalized gradients; +inf where the graph falls apart.
    """

    problem: TreeProblem

    @cached_property
    def edges(self) -> torch.Tensor:
        """(*batch, nodes - 1) int64, the tree's edges in ascending order, padded with -1."""
        index, weight = self.evaluation.moments[0]
        width, none = max(self.problem.graph.nodes - 1, 0), self.problem.graph.edges
        chosen = torch.where(weight > 0.5, index, none).sort(-1).values[:, :width]
        chosen = torch.nn.functional.pad(chosen, (0, width - chosen.shape[1]), value=none)
        chosen = torch.where(chosen < none, chosen, -1)
        return chosen.reshape(*self.value.shape, width).to(self.value.device)

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, E) 1 on the edges of the tree: the value's gradient.

        Piecewise constant: gradients through it are those of the rule chosen (``gradient=``), or refused.
        """
        return self.evaluation.indicator(0)

    def decode(self) -> list[Any]:
        """The pairs of nodes that each tree joins, a list an item (nested as the batch is)."""
        pairs = [tuple(pair) for pair in self.problem.graph.pairs.T.tolist()]
        return nested(self.edges, lambda edges: [pairs[e] for e in edges if e >= 0])

    def __repr__(self) -> str:
        return f"TreeSolution(batch={tuple(self.value.shape)}, {self.problem.graph!r})"


def minimum_spanning_tree(
    edges: Any,
    costs: Any,
    *,
    nodes: int | None = None,
    forest: bool = False,
    **how: Unpack[SolveOptions],
) -> TreeSolution:
    """Spanning trees of minimum cost.

    Args:
        edges: (E, 2) integers, a pair of nodes an edge, shared by the batch; parallel edges and loops may be.
        costs: (*batch, E), of any signs; +inf: the edge is not there.
        nodes: Number of nodes; default: one more than the largest in ``edges``.
        forest: A tree in each component where the graph falls apart, instead of an error.
        how: See ``lpdiff.evaluate``.

    Returns:
        A TreeSolution: ``value``, ``edges`` (*batch, nodes - 1), ``indicator`` (*batch, E), ``decode()``.

    Raises:
        ValueError: edges or shapes that do not fit.
        SolveError: an item whose graph is not connected, or with NaN (unless ``throw=False``).

    The LP: Martin's, see the module's text; no structure that is recognised, so other solvers and gradient
    rules solve it with HiGHS, for graphs of some ten nodes. Its own solver is Boruvka's algorithm, compiled,
    O(E log V), which compares costs and does no arithmetic on them. Where trees tie, it takes the edges with
    the smallest numbers.

    References: Boruvka 1926; Edmonds 1971; Martin 1991.

    Example::

        costs = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        tree = minimum_spanning_tree([[0, 1], [1, 2], [0, 2]], costs)
        tree.value.backward()  # 3.0; costs.grad == tree.indicator == [1, 1, 0]
    """
    problem = TreeProblem(read_graph(edges, nodes), forest)
    with explaining(INFEASIBLE=f"the graph falls apart: {_REMEDY}"):
        found = evaluate(problem, costs, **how)
    return TreeSolution(found.value, found, problem)


class MinimumSpanningTree(ProblemModule):
    """``minimum_spanning_tree`` with its options held; called with (edges, costs)."""

    function = staticmethod(minimum_spanning_tree)
