"""The labels of least energy of a pairwise model (MAP of a Markov random field), on the local polytope.

Each of V nodes takes one of S labels, at a price a label, and a price a pair of labels on each edge::

    min  sum_v sum_s unary[v, s] m_v(s)  +  sum_e sum_st pairwise[e, s, t] m_e(s, t)

    subject to  sum_s m_v(s) = 1,   sum_t m_e(s, t) = m_u(s),   sum_s m_e(s, t) = m_v(t),   m >= 0

with e = (u, v). On a forest its vertices are integral, and min-sum (dynamic programming from the leaves)
solves it. On a graph with cycles it is a relaxation: its value bounds the energy from below, and its vertices
may be fractional (half-integral where there are two labels), which the result tells. Reference: Wainwright
and Jordan (2008), Graphical Models, Exponential Families, and Variational Inference, ch. 8; Werner (2007), A
linear programming approach to max-sum problem.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.batch import run_spans, threads_for
from lpdiff.problem import Moments, Parameter, Proposal
from lpdiff.status import Status

from .base import AbstractResult, ProblemModule, SolveOptions, forbidding, given, read_mask

__all__ = [
    "AbstractPairwiseProblem",
    "ForestProblem",
    "GraphProblem",
    "PairwiseMap",
    "PairwiseSolution",
    "pairwise_map",
]

Edges = tuple[tuple[int, int], ...]

# Marginals this close to 1 are integral: the LP's own tolerance leaves less.
_INTEGRAL = 1e-6


@functools.lru_cache(maxsize=32)
def pairwise_program(nodes: int, labels: int, edges: Edges) -> LinearProgram:
    """The local polytope: m_v(s) at v S + s, then m_e(s, t) at V S + (e S + s) S + t."""
    V, S, E = nodes, labels, len(edges)
    first, second = np.array(edges, dtype=np.intp).reshape(-1, 2).T
    eye, ones = sp.eye_array(S), np.ones((1, S))
    ends = [
        sp.coo_array((np.full(E, -1.0), (np.arange(E), end)), shape=(E, V)).tocsr() for end in (first, second)
    ]
    blocks = [[sp.kron(sp.eye_array(V), ones), None]]
    if E:
        of_edge = sp.eye_array(E)
        blocks += [
            [sp.kron(ends[0], eye), sp.kron(of_edge, sp.kron(eye, ones))],
            [sp.kron(ends[1], eye), sp.kron(of_edge, sp.kron(ones, eye))],
        ]
    A = sp.block_array(blocks) if V and S else np.zeros((V + 2 * E * S, V * S + E * S * S))
    return LinearProgram(
        np.zeros(A.shape[1]),
        A_eq=A,
        b_eq=np.repeat([1.0, 0.0], [V, A.shape[0] - V]),
        name=f"local polytope of {V} nodes, {S} labels, {E} edges",
    )


@dataclass(frozen=True, eq=False)
class AbstractPairwiseProblem(AbstractProblem):
    """V nodes, S labels, E edges: unary prices, prices of pairs, and which nodes there are."""

    nodes: int
    labels: int
    edges: Edges

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("unary", (self.nodes, self.labels)),
            Parameter("pairwise", (len(self.edges), self.labels, self.labels)),
            Parameter("mask", (self.nodes,), kind="data"),
        )

    @property
    def program(self) -> LinearProgram:
        return pairwise_program(self.nodes, self.labels, self.edges)

    def data(self, *parameters: Any) -> dict[str, Any]:
        unary, pairwise, mask = parameters
        if not bool((mask != 0).all()):
            # A node that is not there costs nothing, and neither do its edges: the LP falls apart.
            there = mask != 0
            both = torch.tensor(self.edges, dtype=torch.int64).reshape(-1, 2)
            kept = there[..., both[:, 0]] & there[..., both[:, 1]]
            unary = torch.where(there[..., None], unary, 0.0)
            pairwise = torch.where(kept[..., None, None], pairwise, 0.0)
        parts = [unary.flatten(-2), pairwise.flatten(-3)]
        batch = np.broadcast_shapes(*(tuple(part.shape[:-1]) for part in parts))
        return forbidding(torch.cat([part.expand(*batch, part.shape[-1]) for part in parts], dim=-1))


@dataclass(frozen=True, eq=False)
class GraphProblem(AbstractPairwiseProblem):
    """Any graph: a relaxation."""


@dataclass(frozen=True, eq=False)
class ForestProblem(AbstractPairwiseProblem):
    """A graph without cycles: exact, by min-sum."""

    has_oracle: ClassVar[bool] = True

    def propose(self, *arrays: np.ndarray, threads: int = 1) -> Proposal:
        from lpdiff.kernels.messages import min_sum  # numba takes its time to load

        unary, pairwise, mask = arrays
        V, S, E = self.nodes, self.labels, len(self.edges)
        size, present = len(unary), mask != 0
        labels = np.empty((size, V), dtype=np.int32)
        value, status = np.empty(size), np.empty(size, dtype=np.int8)
        rooted = root(V, self.edges)
        assert rooted is not None
        given = unary.reshape(size, V * S), pairwise.reshape(size, E * S * S), present

        def work(start: int, stop: int) -> None:
            min_sum(*given, *rooted, S, start, stop, labels, value, status)

        run_spans(size, threads_for(2.0 * size * S * (V + E * S), threads), work)
        ok = status == Status.OPTIMAL
        value[status == Status.INVALID] = np.nan
        chosen = np.maximum(labels, 0).astype(np.int64)
        first, second = np.array(self.edges, dtype=np.int64).reshape(-1, 2).T
        both = present[:, first] & present[:, second]
        at_edges = (np.arange(E) * S + chosen[:, first]) * S + chosen[:, second]
        moments = (
            Moments(np.arange(V) * S + chosen, (present & ok[:, None]).astype(np.float64)),
            Moments(at_edges, (both & ok[:, None]).astype(np.float64)),
        )
        messages = {int(i): "a price is NaN or -inf" for i in np.flatnonzero(status == Status.INVALID)}
        messages |= {
            int(i): "every labelling is forbidden" for i in np.flatnonzero(status == Status.INFEASIBLE)
        }
        return Proposal(value, status, moments, messages)


class Rooted(NamedTuple):
    """A forest seen from its roots, all (V,) int32; see ``lpdiff.kernels.messages``."""

    order: np.ndarray
    parent: np.ndarray
    edge: np.ndarray
    first: np.ndarray


@functools.lru_cache(maxsize=32)
def root(nodes: int, edges: Edges) -> Rooted | None:
    """Roots a forest breadth first; None where there is a cycle."""
    neighbours: list[list[tuple[int, int, int]]] = [[] for _ in range(nodes)]
    for e, (u, v) in enumerate(edges):
        neighbours[u].append((v, e, 0))  # seen from u, the child v is second
        neighbours[v].append((u, e, 1))
    parent, edge, first = [-1] * nodes, [-1] * nodes, [0] * nodes
    seen = [False] * nodes
    order: list[int] = []
    for start in range(nodes):
        if seen[start]:
            continue
        seen[start] = True
        place = len(order)
        order.append(start)
        while place < len(order):
            u = order[place]
            place += 1
            for v, e, is_first in neighbours[u]:
                if not seen[v]:
                    seen[v], parent[v], edge[v], first[v] = True, u, e, is_first
                    order.append(v)
                elif e != edge[u]:
                    return None
    return Rooted(*(np.array(a, dtype=np.int32) for a in (order, parent, edge, first)))


def pairwise_map(
    unary: Any, pairwise: Any, edges: Any, *, mask: Any = None, **how: Unpack[SolveOptions]
) -> PairwiseSolution:
    """The labels of least energy on a graph, or the bound of its local polytope (the LP stands above).

    Exact where the graph has no cycle. Otherwise ``integral`` tells the items whose relaxation is exact; for
    the others the value is a lower bound. To maximise a score, negate it.

    Args:
        unary: (*batch, V, S), what label s costs at node v. +inf forbids.
        pairwise: (*batch, E, S, S), what labels s and t cost at the ends (u, v) of edge e; or (S, S), the
            same on all edges.
        edges: (E, 2) integers, the pairs (u, v).
        mask: Which nodes there are: (*batch, V) booleans, or (*batch,) lengths; edges of the others fall
            away. Default: all.
        how: See ``lpdiff.evaluate``.

    Returns:
        A PairwiseSolution; the value has exact gradients in both prices, the marginals.

    Raises:
        ValueError: shapes or edges that do not fit.
        SolveError: NaN prices, or no labelling allowed (unless ``throw=False``).

    Solver: forests by min-sum, O(V S + E S^2). Other graphs are general LPs of V + 2 E S rows:
    ``vertices`` up to 512 of them, else HiGHS.

    Example:
        >>> unary = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.2, 0.0]])
        >>> apart = torch.tensor([[0.0, 0.4], [0.4, 0.0]])
        >>> found = pairwise_map(unary, apart, [(0, 1), (1, 2)])
        >>> found.labels, found.value
        (tensor([0, 1, 1]), tensor(0.4000))
    """
    shape = tuple(np.shape(unary))
    if len(shape) < 2 or shape[-1] < 1:
        raise ValueError(f"unary: expected shape (*batch, V, S) with S >= 1, got {shape}")
    V, S = shape[-2:]
    pairs = _edges(edges, V)
    if np.ndim(pairwise) == 2:
        pairwise = pairwise if isinstance(pairwise, torch.Tensor) else np.asarray(pairwise)
        if tuple(pairwise.shape) != (S, S):
            raise ValueError(
                f"pairwise: expected shape (*batch, {len(pairs)}, {S}, {S}), or ({S}, {S}) for all edges, "
                f"got {tuple(pairwise.shape)}"
            )
        whole = (len(pairs), S, S)
        expanded = isinstance(pairwise, torch.Tensor)
        pairwise = pairwise.expand(whole) if expanded else np.broadcast_to(pairwise, whole)
    kind = GraphProblem if root(V, pairs) is None else ForestProblem
    found = evaluate(kind(V, S, pairs), unary, pairwise, read_mask(mask, V), **how)
    return PairwiseSolution(found.value, found)


@dataclass(frozen=True, eq=False, repr=False)
class PairwiseSolution(AbstractResult):
    """Labels, or marginals.

    Attributes:
        value: (*batch,) least energy of the local polytope, with exact gradients in both prices.
    """

    @cached_property
    def marginals(self) -> torch.Tensor:
        """(*batch, V, S) m_v(s): the indicator of the labels where integral."""
        return self.evaluation.indicator(0)

    @cached_property
    def edge_marginals(self) -> torch.Tensor:
        """(*batch, E, S, S) m_e(s, t)."""
        return self.evaluation.indicator(1)

    @cached_property
    def labels(self) -> torch.Tensor:
        """(*batch, V) int64, the label of the largest marginal (the first of equals: a rounding, where not
        ``integral``); -1 where there is no node."""
        with torch.no_grad():
            marginals = self._detached
            if not marginals.numel():
                return marginals.new_zeros(marginals.shape[:-1], dtype=torch.int64)
            # What rounding leaves must not choose between halves.
            best = marginals >= marginals.amax(-1, keepdim=True) - _INTEGRAL
            return best.to(torch.int8).argmax(-1).masked_fill(~self._there, -1)

    @cached_property
    def integral(self) -> torch.Tensor:
        """(*batch,) bool: the labels have the value's energy, which no others undercut."""
        with torch.no_grad():
            sure = self._detached.amax(-1) >= 1 - _INTEGRAL
            return (sure | ~self._there).all(-1) & self.ok

    @cached_property
    def energy(self) -> torch.Tensor:
        """(*batch,) the energy of ``labels``, never below ``value``; differentiable in the prices."""
        inputs, there = self.evaluation.inputs, self._there.cpu()
        labels = self.labels.cpu().clamp(min=0)
        unary, pairwise = given(self.evaluation, 0), given(self.evaluation, 1)
        ends = torch.tensor(self._problem.edges, dtype=torch.int64).reshape(-1, 2)
        of_nodes = unary.expand(*labels.shape, -1).gather(-1, labels[..., None])[..., 0]
        S = unary.shape[-1]
        pairs = labels[..., ends[:, 0]] * S + labels[..., ends[:, 1]]
        of_edges = pairwise.flatten(-2).expand(*pairs.shape, -1).gather(-1, pairs[..., None])[..., 0]
        both = there[..., ends[:, 0]] & there[..., ends[:, 1]]
        total = torch.where(there, of_nodes, 0.0).sum(-1) + torch.where(both, of_edges, 0.0).sum(-1)
        return inputs.like_user(total)

    def decode(self) -> Any:
        """The labels: a list an item of the batch (nested as the batch is), None where there is no node."""
        return _named(self.labels.tolist())

    @property
    def _problem(self) -> AbstractPairwiseProblem:
        problem = self.evaluation.problem
        assert isinstance(problem, AbstractPairwiseProblem)
        return problem

    @property
    def _detached(self) -> torch.Tensor:
        return torch.nan_to_num(self.marginals.detach())

    @property
    def _there(self) -> torch.Tensor:
        """(*batch, V) bool."""
        mask = given(self.evaluation, 2) != 0
        return mask.expand(self.marginals.shape[:-1]).to(self.value.device)


class PairwiseMap(ProblemModule):
    """``pairwise_map`` as a module: options at construction, ``(unary, pairwise, edges)`` at the call."""

    function = staticmethod(pairwise_map)


def _edges(edges: Any, nodes: int) -> Edges:
    given = edges.detach().cpu().numpy() if isinstance(edges, torch.Tensor) else np.asarray(edges)
    if given.size == 0:
        return ()
    if given.ndim != 2 or given.shape[1] != 2 or given.dtype.kind not in "iu":
        raise ValueError(f"edges: expected (E, 2) integers, got {given.dtype} of shape {given.shape}")
    wrong = ((given < 0) | (given >= nodes)).any(axis=1) | (given[:, 0] == given[:, 1])
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"edges: edge {k} is {tuple(given[k].tolist())}, expected two different nodes of 0..{nodes - 1}"
        )
    return tuple(map(tuple, given.tolist()))


def _named(labels: Any) -> Any:
    if isinstance(labels, list):
        return [_named(row) for row in labels]
    return None if labels < 0 else labels
