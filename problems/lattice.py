"""Shortest paths through a lattice: the LP behind every alignment.

    min c'x   s.t.   (flow out of v) - (flow into v) = [v is the start] - [v is the end],   x >= 0

The rows are those of a network matrix, which is totally unimodular: vertices are paths, and x is the
indicator of the steps taken. Costs of arcs are picked from natural parameters (a cost matrix, gap costs), so
a lattice is a graph and, for each block of its arcs, where their costs stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import LinearProgram

from .base import forbidding

__all__ = ["Arcs", "Lattice", "make_lattice", "without_padding"]


@dataclass(frozen=True, eq=False)
class Arcs:
    """A block of arcs whose costs come from one parameter.

    Attributes:
        tail, head: (E,) nodes.
        source: Which parameter, or None where they cost nothing.
        place: (E,) where in the flattened parameter.
        times: (E,) factors of the costs, or None for ones.
    """

    tail: np.ndarray
    head: np.ndarray
    source: int | None
    place: np.ndarray
    times: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Lattice:
    """A graph as an LP, and where its costs come from.

    Attributes:
        program: One row a node (in the order of ``nodes``), one variable an arc.
        blocks: The arcs in the order of the variables.
        node: Maps the nodes' own numbers to rows; -1 where a node is on no arc.
    """

    program: LinearProgram
    blocks: tuple[Arcs, ...]
    node: np.ndarray

    def data(
        self,
        parameters: Sequence[torch.Tensor],
        start: torch.Tensor,
        end: torch.Tensor,
        *,
        closed: Sequence[torch.Tensor | None] = (),
    ) -> dict[str, Any]:
        """The LP data.

        Args:
            parameters: Flattened, (*batch, size) each.
            start, end: Nodes by their own numbers, int64, broadcastable to (*batch,).
            closed: Which arcs of a block may not be used, bool (*batch, E).
        """
        reference = parameters[0]
        shapes = [tuple(p.shape[:-1]) for p in parameters]
        batch = tuple(np.broadcast_shapes(*shapes, tuple(start.shape), tuple(end.shape)))
        pieces = []
        for block in self.blocks:
            size = len(block.tail)
            if block.source is None:
                piece = reference.new_zeros(*batch, size)
            else:
                piece = parameters[block.source][..., torch.from_numpy(block.place)]
                if block.times is not None:
                    piece = piece * torch.from_numpy(block.times)
                piece = piece.expand(*batch, size)
            pieces.append(piece)
        for k, mask in enumerate(closed):
            if mask is not None:
                pieces[k] = pieces[k].masked_fill(mask, torch.inf)
        c = torch.cat(pieces, -1)
        rows = torch.from_numpy(self.node)
        b = reference.new_zeros(*batch, self.program.m)
        one = reference.new_ones(*batch, 1)
        b = b.scatter_add(-1, rows[start].expand(*batch)[..., None], one)
        b = b.scatter_add(-1, rows[end].expand(*batch)[..., None], -one)
        return {**forbidding(c), "b": b}


def without_padding(costs: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Costs (*batch, n, m), zero beyond the lengths: padding is not read, so it may be anything."""
    has_row = torch.arange(costs.shape[-2]) < rows[..., None]
    has_column = torch.arange(costs.shape[-1]) < columns[..., None]
    return torch.where(has_row[..., :, None] & has_column[..., None, :], costs, 0.0)


def make_lattice(name: str, nodes: int, blocks: Sequence[Arcs], keep: Sequence[int] = ()) -> Lattice:
    """The LP of a graph of arcs; nodes on no arc get no row, but for those to keep."""
    tail = np.concatenate([block.tail for block in blocks])
    head = np.concatenate([block.head for block in blocks])
    used = np.zeros(nodes, dtype=bool)
    used[tail] = used[head] = True
    used[list(keep)] = True
    node = np.where(used, np.cumsum(used) - 1, -1)
    count, arcs = int(used.sum()), len(tail)
    columns = np.arange(arcs)
    A = sp.csc_array(
        (
            np.concatenate([np.ones(arcs), -np.ones(arcs)]),
            (np.concatenate([node[tail], node[head]]), np.concatenate([columns, columns])),
        ),
        shape=(count, arcs),
    )
    program = LinearProgram(A_eq=A, b_eq=np.zeros(count), bounds=(0, None), name=name)
    return Lattice(program, tuple(blocks), node)
