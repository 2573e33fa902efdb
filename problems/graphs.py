"""Graphs of the network problems: edge lists, incidence matrices, nodes per item, walks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff.status import SolveError, Status

from .base import named

__all__ = [
    "Graph",
    "explaining",
    "follow",
    "incidence",
    "integers",
    "nested",
    "read_graph",
    "read_nodes",
    "supplies_of",
]


@dataclass(frozen=True)
class Graph:
    """A graph with its edges in a fixed order. Equal graphs are equal, so that programs can be kept by it.

    Attributes:
        nodes: Their number; they are 0 .. nodes-1.
        ends: The ends of the edges, (2, edges) int64, as bytes.
    """

    nodes: int
    ends: bytes

    @classmethod
    def of(cls, tail: np.ndarray, head: np.ndarray, nodes: int) -> Graph:
        return cls(nodes, np.stack([tail, head]).astype(np.int64).tobytes())

    @cached_property
    def pairs(self) -> np.ndarray:
        """(2, edges) int64, read-only."""
        return np.frombuffer(self.ends, dtype=np.int64).reshape(2, -1)

    @property
    def tail(self) -> np.ndarray:
        return self.pairs[0]

    @property
    def head(self) -> np.ndarray:
        return self.pairs[1]

    @property
    def edges(self) -> int:
        return int(self.pairs.shape[1])

    def __repr__(self) -> str:
        return f"Graph({self.nodes} nodes, {self.edges} edges)"


def integers(name: str, given: Any, remedy: str) -> np.ndarray:
    """An array of integers, on the CPU."""
    if isinstance(given, Graph):
        return given.pairs.T
    array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got {array.dtype}. {remedy}")
    return array.astype(np.int64)


def read_graph(edges: Any, nodes: int | None = None) -> Graph:
    """The graph of an edge list.

    Args:
        edges: (E, 2) integers, a pair (tail, head) an edge; or a ``Graph``.
        nodes: Their number; default: one more than the largest in ``edges``.

    Raises:
        ValueError: another shape, or a node that there is not.
    """
    if isinstance(edges, Graph) and nodes in (None, edges.nodes):
        return edges
    pairs = integers("edges", edges, "Nodes are known by their numbers from 0 on")
    if pairs.size == 0:
        pairs = pairs.reshape(0, 2)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        told = ". Transpose it" if pairs.ndim == 2 and pairs.shape[0] == 2 else ""
        raise ValueError(f"edges: expected (E, 2), a pair of nodes an edge; got {pairs.shape}{told}")
    count = int(pairs.max(initial=-1)) + 1 if nodes is None else int(nodes)
    wrong = np.flatnonzero(((pairs < 0) | (pairs >= count)).any(axis=1))
    if len(wrong):
        edge = int(wrong[0])
        raise ValueError(
            f"edges: edge {edge} joins {pairs[edge, 0]} and {pairs[edge, 1]}, expected nodes 0 to "
            f"{count - 1}. Number the nodes from 0 on, or pass nodes="
        )
    return Graph.of(pairs[:, 0], pairs[:, 1], count)


def read_nodes(name: str, given: Any, nodes: int, batch_shape: tuple[int, ...]) -> int | torch.Tensor:
    """One node for all items (an int), or one an item: int64 on the CPU, broadcastable to the batch.

    Raises:
        ValueError: a node that there is not (the message names the item), or a wrong shape.
    """
    chosen = integers(name, given, "Nodes are known by their numbers from 0 on")
    wrong = (chosen < 0) | (chosen >= nodes)
    if wrong.any():
        item = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name}: {named(item) + ' has ' if item else 'got '}node {int(chosen[item])}, expected 0 to "
            f"{nodes - 1}"
        )
    if chosen.ndim == 0:
        return int(chosen)
    try:
        fits = np.broadcast_shapes(chosen.shape, batch_shape) == batch_shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: expected one node, or one an item of the batch {batch_shape}; got {chosen.shape}"
        )
    return torch.from_numpy(np.array(chosen))


def incidence(tail: np.ndarray, head: np.ndarray, nodes: int) -> sp.csc_array:
    """(nodes, arcs): +1 at the tail, -1 at the head; loops are empty columns."""
    arc = np.flatnonzero(tail != head)
    one = np.ones(len(arc))
    where = (np.concatenate([tail[arc], head[arc]]), np.concatenate([arc, arc]))
    return sp.csc_array((np.concatenate([one, -one]), where), shape=(nodes, len(tail)))


def supplies_of(source: torch.Tensor, target: torch.Tensor, nodes: int) -> torch.Tensor:
    """Right-hand sides of one unit from source to target, (*batch, nodes); zero where they are one node."""
    source, target = torch.broadcast_tensors(source, target)
    supply = torch.zeros(*source.shape, nodes, dtype=torch.float64)
    supply.scatter_add_(-1, source[..., None], torch.ones(*source.shape, 1, dtype=torch.float64))
    return supply.scatter_add_(-1, target[..., None], -torch.ones(*target.shape, 1, dtype=torch.float64))


def follow(
    tail: np.ndarray, head: np.ndarray, used: np.ndarray, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and arcs of paths, in the order in which they are walked.

    Args:
        tail, head: (arcs,).
        used: (B, arcs) bool, arcs of one simple path an item; none where there is no path, of which only the
            source is told.
        source, target: (B,).

    Returns:
        Nodes (B, K) and arcs (B, K - 1), int64, padded with -1; K is 1 at least.
    """
    size = len(used)
    item, arc = np.nonzero(used)
    order = np.full((size, int(max(tail.max(initial=0), source.max(initial=0))) + 1), -1, dtype=np.int64)
    order[item, tail[arc]] = arc
    longest = int(used.sum(axis=1).max(initial=0))
    nodes, arcs = np.full((size, longest + 1), -1), np.full((size, longest), -1)
    nodes[:, 0] = here = source
    items = np.arange(size)
    for step in range(longest):
        going = (here >= 0) & (here != target)
        taken = np.where(going, order[items, np.where(going, here, 0)], -1)
        arcs[:, step] = taken
        here = np.where(taken >= 0, head[taken], -1) if len(head) else np.full(size, -1)
        nodes[:, step + 1] = here
    return nodes, arcs


def nested(rows: torch.Tensor, read: Any) -> list[Any]:
    """``read`` on each row, (*batch, K), as a list nested as the batch is."""

    def walk(part: Any, depth: int) -> Any:
        return read(part) if depth == 0 else [walk(one, depth - 1) for one in part]

    return walk(rows.tolist(), rows.dim() - 1)


@contextlib.contextmanager
def explaining(**hints: str) -> Iterator[None]:
    """What a status means for this problem, added to the SolveError: ``explaining(INFEASIBLE="...")``."""
    try:
        yield
    except SolveError as error:
        raise _explained(error, hints) from None


def _explained(error: SolveError, hints: Mapping[str, str]) -> SolveError:
    seen = dict.fromkeys(Status(int(s)).name for s in error.statuses)
    told = [f"{name.lower()} here means: {hints[name]}" for name in seen if name in hints]
    return SolveError("\n".join([str(error), *told]), error.items, error.statuses, error.certificates)
