"""Flows in networks: of minimum cost, and maximum flows with minimum cuts."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Parameter

from .base import AbstractLPResult, ProblemModule, SolveOptions, any_of, first_item, last_size, named
from .graphs import Graph, explaining, incidence, nested, read_graph, read_nodes

__all__ = [
    "CutSolution",
    "FlowProblem",
    "FlowSolution",
    "MaxFlow",
    "MaxFlowProblem",
    "MinCostFlow",
    "MinCut",
    "max_flow",
    "min_cost_flow",
    "min_cut",
]


# -- minimum cost ------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FlowProblem(AbstractProblem):
    """Flows of minimum cost. Parameters: costs; supplies, lower and upper bounds, all with exact
    gradients."""

    graph: Graph

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        edges = (self.graph.edges,)
        return (
            Parameter("costs", edges),
            Parameter("supplies", (self.graph.nodes,), kind="side"),
            Parameter("lower", edges, kind="side"),
            Parameter("capacities", edges, kind="side"),
        )

    @property
    def program(self) -> LinearProgram:
        return flow_program(self.graph)

    def data(
        self, costs: torch.Tensor, supplies: torch.Tensor, lower: torch.Tensor, capacities: torch.Tensor
    ) -> dict[str, Any]:
        out = torch.isposinf(costs.detach())
        if any_of(out):
            costs, capacities = torch.where(out, 0.0, costs), torch.where(out, 0.0, capacities)
        return {"c": costs, "b": supplies, "bounds": (lower, capacities)}


@functools.lru_cache(maxsize=32)
def flow_program(graph: Graph) -> LinearProgram:
    """Out minus in is the supply, at each node."""
    rows = incidence(graph.tail, graph.head, graph.nodes)
    return LinearProgram(A_eq=rows, b_eq=np.zeros(graph.nodes), name="min-cost flow")


@dataclass(frozen=True, eq=False, repr=False)
class FlowSolution(AbstractLPResult):
    """Flows of a batch.

    Attributes:
        value: (*batch,) their costs, with exact generalized gradients in costs, supplies, capacities and
        lower
            bounds.
    """

    graph: Graph

    @cached_property
    def flow(self) -> torch.Tensor:
        """(*batch, E), differentiable in supplies and bounds; in costs by the rule chosen. NaN where none."""
        return self.evaluation.inputs.like_user(self.solution.x[..., : self.graph.edges])

    @cached_property
    def potentials(self) -> torch.Tensor:
        """(*batch, nodes) duals: what a unit more supply at a node would cost.

        Up to a constant a connected component: only differences mean something, as supplies must balance.
        """
        return self.evaluation.inputs.like_user(self.solution.y)

    @cached_property
    def reduced_costs(self) -> torch.Tensor:
        """(*batch, E) costs - potential of the tail + potential of the head: duals of the bounds."""
        return self.evaluation.inputs.like_user(self.solution.reduced_costs[..., : self.graph.edges])

    def decode(self) -> list[Any]:
        """For each item (nested as the batch is) a list of (tail, head, amount) of the edges in use."""
        ends = self.graph.pairs.T.tolist()

        def read(flow: list[float]) -> list[tuple[int, int, float]]:
            return [(*ends[e], amount) for e, amount in enumerate(flow) if abs(amount) > _NOTHING]

        return nested(self.flow.detach().nan_to_num(), read)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(batch={tuple(self.value.shape)}, {self.graph!r})"


# Amounts below are no flow, but what rounding left.
_NOTHING = 1e-9


def min_cost_flow(
    edges: Any,
    costs: Any,
    supplies: Any,
    capacities: Any = None,
    *,
    lower: Any = None,
    **how: Unpack[SolveOptions],
) -> FlowSolution:
    """Flows of minimum cost that carry supplies to demands.

        min  <costs, x>   subject to   x(out of v) - x(into v) = supplies[v],   lower <= x <= capacities

    Args:
        edges: (E, 2) integers, a pair (tail, head) an edge; parallel edges are allowed.
        costs: (*batch, E). +inf forbids an edge; negative ones are fine where capacities bound the flow.
        supplies: (*batch, nodes), what enters at a node; demands are negative. An item's must sum to zero.
        capacities: (*batch, E), +inf for none. Default: none.
        lower: (*batch, E) least flows. Default: 0.
        how: See ``lpdiff.evaluate``.

    Returns:
        A FlowSolution: ``value``, ``flow`` (*batch, E), ``potentials``, ``reduced_costs``, ``decode()``.

    Raises:
        ValueError: shapes that do not fit; capacities below lower bounds.
        SolveError: an item that no flow satisfies (unless ``throw=False``).

    Gradients are exact: to costs the flow, to supplies the potentials (of which, as supplies must balance,
    only differences mean something: a step keeps the balance when its mean is taken off), to capacities the
    reduced costs where they are negative, to lower bounds where positive. The flow itself is differentiable
    in supplies and bounds. Vertices are integral where supplies and bounds are.

    Recognised as a network and solved by the network simplex, or as what is simpler: one path where one node
    supplies one other and nothing is bounded, an assignment where edges are pairs of two sides.

    Reference: Ahuja, Magnanti and Orlin 1993.

    Example::

        edges = [[0, 1], [0, 2], [2, 1]]
        capacity = torch.tensor([1.0, 5.0, 5.0], requires_grad=True)
        flow = min_cost_flow(edges, [1.0, 2.0, 2.0], [3.0, -3.0, 0.0], capacity)
        flow.value.backward()  # capacity.grad[0] == -3: another unit on the first edge saves that
    """
    graph = read_graph(edges, last_size("supplies", supplies, "(*batch, nodes)"))
    high = np.full(graph.edges, np.inf) if capacities is None else capacities
    low = np.zeros(graph.edges) if lower is None else lower
    for name, side in (("lower", low), ("capacities", high)):
        last_size(name, side, "(*batch, E)")
    _ordered(torch.as_tensor(low), torch.as_tensor(high))
    hints = {
        "INFEASIBLE": "supplies that do not sum to zero, or more than the edges that lead on can carry",
        "UNBOUNDED": "a cycle of negative cost without a capacity",
    }
    with explaining(**hints):
        found = evaluate(FlowProblem(graph), costs, supplies, low, high, **how)
    return FlowSolution(found.value, found, graph)


def _ordered(lower: torch.Tensor, upper: torch.Tensor) -> None:
    below, above = lower.detach().cpu(), upper.detach().cpu()
    try:
        wrong = below > above
    except RuntimeError:
        return  # shapes that do not fit are told later
    if any_of(wrong):
        *item, edge = first_item(wrong)
        least, most = (float(t.expand(wrong.shape)[(*item, edge)]) for t in (below, above))
        raise ValueError(
            f"capacities: {named(tuple(item))} has capacity {most:g} at edge {edge}, expected at least "
            f"{least:g} (the least flow). Forbid an edge by capacity 0"
        )


class MinCostFlow(ProblemModule):
    """``min_cost_flow`` with its options held; called with (edges, costs, supplies, capacities)."""

    function = staticmethod(min_cost_flow)


# -- maximum flow, minimum cut -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class MaxFlowProblem(AbstractProblem):
    """Maximum flows. Parameter: capacities."""

    graph: Graph
    source: int
    target: int
    directed: bool = True

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return (Parameter("capacities", (self.graph.edges,), kind="side"),)

    @property
    def program(self) -> LinearProgram:
        return max_flow_program(self.graph, self.source, self.target)

    def data(self, capacities: torch.Tensor) -> dict[str, Any]:
        back = capacities.new_zeros((*capacities.shape[:-1], 1))
        least = torch.zeros_like(capacities) if self.directed else -capacities
        return {"bounds": (torch.cat([least, back], -1), torch.cat([capacities, back + torch.inf], -1))}


@functools.lru_cache(maxsize=32)
def max_flow_program(graph: Graph, source: int, target: int) -> LinearProgram:
    """A circulation: the last arc leads back from the target to the source, and is what is maximised."""
    tail, head = np.append(graph.tail, target), np.append(graph.head, source)
    c = np.zeros(graph.edges + 1)
    c[-1] = 1.0
    rows = incidence(tail, head, graph.nodes)
    return LinearProgram(c, A_eq=rows, b_eq=np.zeros(graph.nodes), sense="max", name="maximum flow")


@dataclass(frozen=True, eq=False, repr=False)
class CutSolution(FlowSolution):
    """Maximum flows and minimum cuts of a batch.

    ``value`` (*batch,) has exact gradients in the capacities, the indicator of the cut. ``flow`` is signed
    where edges are undirected: negative from head to tail.
    """

    problem: MaxFlowProblem

    @cached_property
    def source_side(self) -> torch.Tensor:
        """(*batch, nodes) bool, True on the source's side of the cut; the target's side has the rest."""
        y = self.solution.y.detach()
        below = y[..., self.problem.target, None] - y
        # Nodes that no edge joins to the target have a level of their own: any side will do.
        far = torch.from_numpy(_elsewhere(self.graph, self.problem.source, self.problem.target))
        return ((below > 0.5) & ~far).to(self.value.device)

    @cached_property
    def cut(self) -> torch.Tensor:
        """(*batch, E) bool, the edges from the source's side to the other (undirected: between them)."""
        tail, head = (torch.from_numpy(np.array(end)) for end in self.graph.pairs)
        side = self.source_side
        tails, heads = side[..., tail], side[..., head]
        return tails & ~heads if self.problem.directed else tails != heads


@functools.lru_cache(maxsize=32)
def _elsewhere(graph: Graph, source: int, target: int) -> np.ndarray:
    """(nodes,) bool: in no component with the source or the target."""
    from scipy.sparse import csgraph

    rows = incidence(np.append(graph.tail, target), np.append(graph.head, source), graph.nodes)
    _, label = csgraph.connected_components(abs(rows) @ abs(rows).T, directed=False)
    return np.asarray(label != label[target])


def max_flow(
    edges: Any,
    capacities: Any,
    source: Any,
    target: Any,
    *,
    nodes: int | None = None,
    directed: bool = True,
    **how: Unpack[SolveOptions],
) -> CutSolution:
    """Maximum flows from source to target, and minimum cuts between them.

        max  f
        subject to  x(out of v) - x(into v) = f ([v = source] - [v = target]),   0 <= x <= capacities

    Args:
        edges: (E, 2) integers, a pair (tail, head) an edge.
        capacities: (*batch, E), not negative; +inf for none.
        source, target: Two nodes, for all items.
        nodes: Number of nodes; default: one more than the largest in ``edges``.
        directed: False: an edge carries up to its capacity either way (-capacities <= x).
        how: See ``lpdiff.evaluate``.

    Returns:
        A CutSolution: ``value``, ``flow`` (*batch, E), ``source_side`` (*batch, nodes), ``cut`` (*batch, E).

    Raises:
        ValueError: edges, nodes or shapes that do not fit; negative capacities.
        SolveError: an item whose flow nothing bounds (unless ``throw=False``).

    The value's gradient in the capacities is 1 on the cut's edges. Where minimum cuts tie, it is the cut of
    the basis that the solver ends with (any is a supergradient), and ``cut`` is that same one. The flow is
    differentiable in the capacities. Vertices are integral where capacities are.

    Recognised as a network; solved by the network simplex. The duals of its nodes are lower by 1 on the
    source's side of the cut than on the other (Ford and Fulkerson 1956).

    Example::

        capacity = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
        flow = max_flow([[0, 1], [1, 2], [0, 2]], capacity, 0, 2)
        flow.value.backward()  # 3.0; capacity.grad == flow.cut == [0, 1, 1]
    """
    graph = read_graph(edges, nodes)
    ends = []
    for name, given in (("source", source), ("target", target)):
        node = read_nodes(name, given, graph.nodes, ())
        if not isinstance(node, int):
            raise ValueError(f"{name}: expected one node for all items; solve others by calls of their own")
        ends.append(node)
    if ends[0] == ends[1]:
        raise ValueError(f"source and target are both node {ends[0]}: expected two nodes")
    capacities = capacities if isinstance(capacities, torch.Tensor) else torch.as_tensor(np.array(capacities))
    last_size("capacities", capacities, "(*batch, E)")
    _ordered(torch.zeros(()), capacities)
    problem = MaxFlowProblem(graph, ends[0], ends[1], directed)
    with explaining(UNBOUNDED="edges without capacity (+inf) lead all the way from source to target"):
        found = evaluate(problem, capacities, **how)
    return CutSolution(found.value, found, graph, problem)


def min_cut(
    edges: Any,
    capacities: Any,
    source: Any,
    target: Any,
    *,
    nodes: int | None = None,
    directed: bool = True,
    **how: Unpack[SolveOptions],
) -> CutSolution:
    """Minimum cuts between source and target: ``max_flow``, of which they are the dual.

    Read ``value``, ``cut`` and ``source_side``. For the pairwise energies of computer vision, capacities are
    the prices of giving neighbours different labels (Greig, Porteous and Seheult 1989).

    Args:
        edges, capacities, source, target, nodes, directed, how: See ``max_flow``, whose LP and solver it has.

    Raises:
        ValueError, SolveError: As ``max_flow``.

    Example::

        price = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
        cut = min_cut([[0, 1], [1, 2], [0, 2]], price, 0, 2)
        cut.value.backward()  # 3.0; price.grad == cut.cut == [0, 1, 1]
    """
    return max_flow(edges, capacities, source, target, nodes=nodes, directed=directed, **how)


class MaxFlow(ProblemModule):
    """``max_flow`` with its options held; called with (edges, capacities, source, target)."""

    function = staticmethod(max_flow)


class MinCut(ProblemModule):
    """``min_cut`` with its options held; called with (edges, capacities, source, target)."""

    function = staticmethod(min_cut)
