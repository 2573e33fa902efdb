"""Networks: a matrix that is a node-arc incidence matrix, up to scales and signs of its rows and columns.

    s_i a_ij = alpha_j (+1 at the tail of arc j, -1 at its head),   alpha_j > 0

A column with one entry is an arc from or to the ground, node m. In the flows f_j = alpha_j x_j the program is
a flow problem (row i: what leaves node i less what enters it):

    min (c_j / alpha_j) f_j   s.t.   s rl <= out - in <= s ru (swapped where s_i < 0),
                                     alpha l <= f <= alpha u

and from its solution  x_j = f_j / alpha_j,  y_i = s_i y~_i,  d_j = alpha_j d~_j.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

__all__ = ["Bipartite", "Network"]


@dataclass(frozen=True, eq=False)
class Bipartite:
    """Arcs that all go from the R tails to the K heads."""

    tails: np.ndarray  # (R,) int32 rows, ascending
    heads: np.ndarray  # (K,) int32 rows, ascending
    order: Literal["rows", "columns", "general"]  # arc of (i, k): i K + k, k R + i, or index[i, k]
    duplicates: bool  # whether a pair has several arcs
    dense: bool  # whether every pair has exactly one arc
    arcs: tuple[np.ndarray, np.ndarray]  # the network's tail and head, (n,)
    turn: np.ndarray | None  # (m,) s at tails, -s at heads: turns a row's activity to what it moves; None: 1

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.tails), len(self.heads)

    @cached_property
    def index(self) -> np.ndarray:  # (R, K) int32
        """The arc of each pair, -1 where there is none. It takes R K numbers, however few the arcs are."""
        size, (tail, head) = len(self.tails) * len(self.heads), self.arcs
        if self.order == "rows":
            return np.arange(size, dtype=np.int32).reshape(self.shape)
        if self.order == "columns":
            return np.ascontiguousarray(np.arange(size, dtype=np.int32).reshape(self.shape[::-1]).T)
        index = np.full(self.shape, -1, np.int32)
        index[np.searchsorted(self.tails, tail), np.searchsorted(self.heads, head)] = np.arange(
            len(tail), dtype=np.int32
        )
        return index


@dataclass(frozen=True, eq=False)
class Network:
    """A program's matrix as a network; rows and variables are counted within their block."""

    tail: np.ndarray  # (n,) int32, m: the ground
    head: np.ndarray  # (n,) int32, m: the ground
    row_scale: np.ndarray  # (m,) s, of either sign
    col_scale: np.ndarray  # (n,) alpha > 0; a view of one number where all are 1

    @property
    def m(self) -> int:
        return len(self.row_scale)

    @property
    def n(self) -> int:
        return len(self.tail)

    @cached_property
    def grounded(self) -> bool:
        """Whether an arc touches the ground, which is then a node like the others."""
        return self.n > 0 and bool(max(self.tail.max(), self.head.max()) == self.m)

    @property
    def nodes(self) -> int:
        """Rows, and the ground if an arc touches it."""
        return self.m + self.grounded

    @cached_property
    def unit_rows(self) -> bool:
        """Whether rows keep their size: every s is 1 or -1."""
        return bool((np.abs(self.row_scale) == 1.0).all())

    @cached_property
    def flipped(self) -> bool:
        """Whether some row changes its sign."""
        return bool((self.row_scale < 0.0).any())

    @cached_property
    def unit_columns(self) -> bool:
        """Whether every alpha is 1: flows are the variables."""
        return self.col_scale.strides == (0,) or bool((self.col_scale == 1.0).all())

    @property
    def trivial(self) -> bool:
        """Whether the matrix is the incidence matrix as it stands."""
        return self.unit_rows and not self.flipped and self.unit_columns

    # Translations; what needs none is handed through as it is.

    def supplies(self, row_lower: np.ndarray, row_upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sides of out - in; (1|B, m) each."""
        if self.unit_rows and not self.flipped:
            return row_lower, row_upper
        lower, upper = self.row_scale * row_lower, self.row_scale * row_upper
        if self.flipped:
            swap = self.row_scale < 0.0
            if len(lower) != len(upper):
                lower, upper = (np.array(side, order="C") for side in np.broadcast_arrays(lower, upper))
            lower[:, swap], upper[:, swap] = upper[:, swap], lower[:, swap]
        return lower, upper

    def costs(self, c: np.ndarray) -> np.ndarray:
        """Costs of the flows; c: (1|B, n)."""
        return c if self.unit_columns else c / self.col_scale

    def capacities(self, bound: np.ndarray) -> np.ndarray:
        """A bound of the flows from one of the variables; (1|B, n)."""
        return bound if self.unit_columns else bound * self.col_scale

    # What the network simplex walks along.

    @cached_property
    def ends(self) -> np.ndarray:
        """Tails and heads, (2, n + m) uint32: arcs, then for each row its logical, ground -> row."""
        ends = np.empty((2, self.n + self.m), dtype=np.uint32)
        ends[:, : self.n] = self.tail, self.head
        ends[0, self.n :], ends[1, self.n :] = self.m, np.arange(self.m)
        return ends

    @cached_property
    def last(self) -> np.ndarray:
        """The last node of each node's component, (m + 1,) uint32: the ground, or a row not tied to it."""
        graph = sp.coo_array((np.ones(self.n), (self.tail, self.head)), shape=(self.m + 1, self.m + 1))
        number, labels = csgraph.connected_components(graph, directed=False)
        last = np.zeros(number, dtype=np.uint32)
        np.maximum.at(last, labels, np.arange(self.m + 1, dtype=np.uint32))
        return last[labels]

    # Shapes of the graph, found when they are asked for.

    @cached_property
    def bipartite(self) -> Bipartite | None:
        """Tails and heads, where no node is both (and the ground is none of them)."""
        if self.grounded or self.n == 0:
            return None
        leaves, enters = np.zeros(self.m, bool), np.zeros(self.m, bool)
        leaves[self.tail] = True
        enters[self.head] = True
        if (leaves == enters).any():
            return None
        tails, heads = (np.flatnonzero(side).astype(np.int32) for side in (leaves, enters))
        R, K = len(tails), len(heads)
        order: Literal["rows", "columns", "general"] = "general"
        duplicates = False
        if self.n == R * K:
            if _grid(self.tail, self.head, tails, heads):
                order = "rows"
            elif _grid(self.head, self.tail, heads, tails):
                order = "columns"
        if order == "general":
            rank = np.zeros(self.m, np.int64)
            rank[tails], rank[heads] = np.arange(R) * K, np.arange(K)
            pairs = rank[self.tail]
            pairs += rank[self.head]
            if 8 * self.n >= R * K:
                seen = np.zeros(R * K, bool)
                seen[pairs] = True
                duplicates = int(np.count_nonzero(seen)) < self.n
            else:
                pairs.sort()
                duplicates = bool((pairs[1:] == pairs[:-1]).any())
        dense = self.n == R * K and not duplicates
        turn = np.where(leaves, self.row_scale, -self.row_scale)
        moves = None if (turn == 1.0).all() else turn
        return Bipartite(tails, heads, order, duplicates, dense, (self.tail, self.head), moves)

    @cached_property
    def leaving(self) -> tuple[np.ndarray, np.ndarray]:
        """(start (nodes + 1,), arcs (n,)): arcs[start[v]:start[v + 1]] leave v, ascending; int32."""
        return _by_node(self.tail, self.nodes)

    @cached_property
    def entering(self) -> tuple[np.ndarray, np.ndarray]:
        """(start (nodes + 1,), arcs (n,)): arcs[start[v]:start[v + 1]] enter v, ascending; int32."""
        return _by_node(self.head, self.nodes)

    @cached_property
    def _order(self) -> tuple[np.ndarray | None, int]:
        # Nodes in the order they were declared, or its reverse, read memory best.
        if (self.tail < self.head).all():
            return np.arange(self.nodes, dtype=np.int32), -1
        if (self.tail > self.head).all():
            return np.arange(self.nodes, dtype=np.int32)[::-1].copy(), -1
        from .kernels import recognise

        order = np.empty(self.nodes, np.int32)
        cycle = recognise.order(self.tail, self.head, *self.leaving, order)
        return (order if cycle < 0 else None), cycle

    @property
    def order(self) -> np.ndarray | None:
        """A topological order of the nodes, (nodes,) int32; None where there is a cycle."""
        return self._order[0]

    @property
    def acyclic(self) -> bool:
        return self._order[0] is not None

    @property
    def cycle(self) -> int | None:
        """A node on a directed cycle, if there is one."""
        return None if self.acyclic else self._order[1]


def _grid(outer: np.ndarray, inner: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> bool:
    """Whether arc i K + k is the pair (rows[i], columns[k])."""
    shape = len(rows), len(columns)
    return bool(
        (outer.reshape(shape) == rows[:, None]).all() and (inner.reshape(shape) == columns[None, :]).all()
    )


def _by_node(ends: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    from .kernels import recognise

    start, arcs = np.zeros(nodes + 1, np.int32), np.empty(len(ends), np.int32)
    recognise.transpose(np.arange(len(ends) + 1, dtype=np.int32), ends, start, arcs)
    return start, arcs
