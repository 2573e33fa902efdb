"""Adjacent vertices: predicted costs must prefer the target to its neighbours. No solve in training.

At the vertex w of an optimal basis (min), entering the nonbasic variable j moves along an edge e_j: by 1 in
x_j (or, for the slack of a row, in its activity), away from its bound, and in the basic variables by what
the active rows ask for. A unit of the way pays the reduced cost <c^, e_j>, and where the first basic
variable or row meets a bound lies the adjacent vertex, v_j = w + t_j e_j. So

    loss = sum over j of max(0, margin - <c^, v_j - w>)

is zero where each neighbour is dearer than w by the margin; with margin 0, where w is not degenerate, iff w
is optimal for c^. Convex in c^. Berden, Mahmutogullari, Tsouros, Guns (2025), Solver-free decision-focused
learning for linear optimization problems, arXiv 2505.22224: their loss, LAVA, is this one less a constant,
the sum of max(-<c^, v_j - w>, -margin).

An edge of infinite length is a ray: there is no vertex to compare with, and its unit move is kept, since
costs which it lowers have no optimum. At a degenerate w, edges of length zero change the basis and not the
vertex. With their unit moves a loss of zero proves w optimal, but asks for more than that; without them it
is necessary and proves nothing, since one basis sees only some of the neighbours. ``degenerate`` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..autograd import first_item
from ..basis import Factor
from ..layer import LPLayer
from ..program import LinearProgram
from ..solution import Solution
from ..standard import StandardForm
from ..status import BasisStatus, UnsupportedError
from ..vertex import data_of
from .module import AbstractLoss
from .objective import Objective, reduced

__all__ = ["AdjacentVertices", "Neighbours", "adjacent_vertices", "neighbours"]

_ZERO = 1e-11  # entries of an edge that rounding left, relative to its largest
_CHUNK = 256  # edges computed at a time
_STILL = 1e-9  # an edge on which a bound is as near as this (relative) has length zero


@dataclass(frozen=True, eq=False, repr=False)
class Neighbours:
    """Edges of the feasible set at the vertices of a batch, sparse; each distinct basis has them once.

    Made by ``neighbours``. Index it as a tensor of the batch: ``known[items]``. It pickles.

    Attributes:
        form: The program's standard form.
        vertex: (*batch,) int64, which of the D distinct vertices an item has; -1 where it has none.
        starts: (D + 1,) int64: the edges of vertex k are starts[k] up to starts[k + 1].
        pointers, columns, entries: Edges in compressed rows: (E + 1,), (nnz,) int64, and (nnz,) float64. One
            unit of the entering variable each.
        lengths: (E,) float64, units to the adjacent vertex; 0 where degenerate, inf for a ray.
    """

    form: StandardForm
    vertex: torch.Tensor
    starts: torch.Tensor
    pointers: torch.Tensor
    columns: torch.Tensor
    entries: torch.Tensor
    lengths: torch.Tensor

    def __getitem__(self, items: Any) -> Neighbours:
        """Those of some items of the batch."""
        if isinstance(items, torch.Tensor):
            items = items.to(self.vertex.device)
        known = (self.starts, self.pointers, self.columns, self.entries, self.lengths)
        return Neighbours(self.form, self.vertex[items], *known)

    def __repr__(self) -> str:
        return (
            f"Neighbours(batch={tuple(self.vertex.shape)}, {len(self.starts) - 1} distinct vertices, "
            f"{len(self.lengths)} edges)"
        )

    def edges(self, vertex: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The edges of one distinct vertex, dense: (K, n) and their lengths, (K,)."""
        first, last = (int(k) for k in self.starts[vertex : vertex + 2])
        a, b = int(self.pointers[first]), int(self.pointers[last])
        dense = torch.zeros((last - first, self.form.n), dtype=torch.float64)
        row = torch.repeat_interleave(torch.arange(last - first), self.pointers[first : last + 1].diff())
        dense[row, self.columns[a:b]] = self.entries[a:b]
        return dense, self.lengths[first:last]


def neighbours(solution: Solution) -> Neighbours:
    """The edges at optimal vertices, to be computed once for all true costs and used in every step.

    From the bases alone: a sparse factorisation a distinct basis, a triangular solve an edge.

    Args:
        solution: Of ``lpdiff.solve`` at the true costs, any batch. Items without a basis (no optimum) have no
            vertex, and must have weight 0 in the loss.

    Raises:
        UnsupportedError: an integer program; a numerically singular basis.
    """
    basis = solution.basis
    if basis is None:
        raise UnsupportedError(
            "an integer program has no basis, and so no neighbours: drop integrality to get those of the "
            "relaxation"
        )
    form = solution.program.form
    given = [None if t is None else t.detach().numpy() for t in solution._current()]
    data = data_of(form, given)
    valid = basis.valid.reshape(-1).cpu().numpy()
    columns = _one_side(basis.columns.cpu().numpy().reshape(len(valid), form.n), data.lower, data.upper)
    rows = _one_side(basis.rows.cpu().numpy().reshape(len(valid), form.m), data.row_lower, data.row_upper)
    known: dict[bytes, int] = {}
    found: list[tuple[sp.csr_array, np.ndarray]] = []
    vertex = np.full(len(valid), -1, dtype=np.int64)
    varying = [a for a in (data.values, data.row_lower, data.row_upper, data.lower, data.upper) if len(a) > 1]
    for i in np.flatnonzero(valid):
        key = b"".join(a[i].tobytes() for a in (columns, rows, *varying))
        if key not in known:
            known[key] = len(found)
            found.append(_edges(form, data.item(int(i))[1:], columns[i], rows[i]))
        vertex[i] = known[key]
    edges = [e for e, _ in found]
    counts = np.concatenate([[0], *([np.diff(e.indptr)] for e in edges)], axis=None)
    return Neighbours(
        form=form,
        vertex=torch.from_numpy(vertex).reshape(basis.valid.shape),
        starts=torch.from_numpy(np.cumsum([0, *(e.shape[0] for e in edges)])),
        pointers=torch.from_numpy(np.cumsum(counts, dtype=np.int64)),
        columns=torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(e.indices for e in edges)])),
        entries=torch.from_numpy(np.concatenate([np.zeros(0), *(e.data for e in edges)])),
        lengths=torch.from_numpy(np.concatenate([np.zeros(0), *(length for _, length in found)])),
    )


def adjacent_vertices(
    program: Any,
    predicted: torch.Tensor,
    adjacent: Neighbours,
    *,
    margin: float = 0.1,
    scaled: bool = True,
    degenerate: str = "keep",
    weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """LAVA: sum over the edges at the target of max(0, margin - <c^, edge>).

    Args:
        program: A LinearProgram, or an LPLayer of one.
        predicted: Costs c^, (*batch, n), with gradients.
        adjacent: ``neighbours(solution)`` of the true costs, indexed to the batch.
        margin: By how much each neighbour is to be dearer, in units of the objective. With 0, c^ = 0 is a
            minimum.
        scaled: Compare with adjacent vertices. False: hinge on reduced costs, by unit moves of the entering
            variable, however long the edge.
        degenerate: What becomes of edges of length zero: ``"keep"`` their unit moves, so that a loss of zero
            proves w optimal, though it may ask for more than that; or ``"drop"`` them, so that a loss of
            zero (with margin 0) is necessary and proves nothing.
        weight: (*batch,) booleans or numbers; items of weight 0 are left out.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        (), or (*batch,) where reduction is ``"none"``.

    Raises:
        ValueError: shapes that do not fit; neighbours of another program; an item without a basis.
        TypeError: a program that is no LP.
    """
    form = _linear(program).form
    if not margin >= 0:
        raise ValueError(f"adjacent_vertices: margin must not be negative, got {margin}")
    if degenerate not in ("keep", "drop"):
        raise ValueError(f"adjacent_vertices: degenerate must be 'keep' or 'drop', got {degenerate!r}")
    if not isinstance(adjacent, Neighbours):
        raise TypeError(
            f"adjacent_vertices: expected Neighbours, got {type(adjacent).__name__}: "
            f"lpdiff.losses.neighbours(lpdiff.solve(lp, c=true))"
        )
    if not form.same_as(adjacent.form):
        raise ValueError("adjacent_vertices: these are neighbours of vertices of another program")
    if predicted.dim() == 0 or predicted.shape[-1] != form.n:
        raise ValueError(
            f"adjacent_vertices: expected predicted (*batch, {form.n}), got {tuple(predicted.shape)}"
        )
    shapes = [predicted.shape[:-1], adjacent.vertex.shape, () if weight is None else weight.shape]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"adjacent_vertices: costs of batch {tuple(shapes[0])} and neighbours of batch "
            f"{tuple(shapes[1])} do not broadcast; index them to the batch: known[items]"
        ) from None
    device = predicted.device
    costs = predicted.expand(*batch, form.n)
    vertex = adjacent.vertex.to(device).expand(batch)
    none = vertex < 0 if weight is None else (vertex < 0) & (weight.to(device) != 0)
    if bool(none.any()):
        item = first_item(none)
        place = "" if not item else f" of item {item[0] if len(item) == 1 else item}"
        raise ValueError(
            f"adjacent_vertices: the solution{place} has no basis, so no neighbours: give it weight 0, or "
            f"solve with a backend that returns bases"
        )
    edge_of, paid, length = _paid(form.to_min(costs).reshape(-1, form.n), adjacent, vertex.reshape(-1))
    if scaled:
        paid = torch.where((length > 0) & torch.isfinite(length), length, 1.0) * paid
    short = torch.relu(margin - paid)
    if degenerate == "drop":
        short = torch.where(length > 0, short, 0.0)
    loss = costs.new_zeros(vertex.numel()).index_add(0, edge_of, short)
    return reduced(loss.reshape(batch), weight, reduction)


class AdjacentVertices(AbstractLoss):
    """``adjacent_vertices`` as a module: ``AdjacentVertices(lp)(predicted, known[items])``."""

    function = staticmethod(adjacent_vertices)


# -- pieces ------------------------------------------------------------------------------------------------


def _linear(program: Any) -> LinearProgram:
    known = program.program if isinstance(program, Objective) else program
    if isinstance(program, Objective) and program.how:
        told = ", ".join(sorted(program.how))
        raise TypeError(f"adjacent_vertices: solves nothing, and takes no {told}")
    lp = known.program if isinstance(known, LPLayer) else known
    if not isinstance(lp, LinearProgram):
        raise TypeError(
            f"adjacent_vertices: needs a LinearProgram, got {type(known).__name__}; a problem of the library "
            f"has one, problem.program"
        )
    return lp


def _paid(
    costs: torch.Tensor,  # (B, n), in the sense of min
    adjacent: Neighbours,
    vertex: torch.Tensor,  # (B,)
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For all edges of all items: the item, what costs pay for a unit of the way, and the length."""
    starts, pointers = adjacent.starts.to(vertex.device), adjacent.pointers.to(vertex.device)
    at = vertex.clamp(min=0)  # items without a vertex have weight 0
    count = torch.diff(starts, append=starts[-1:])[at]
    edge = _ranges(starts[at], count)
    item = torch.repeat_interleave(torch.arange(len(vertex), device=vertex.device), count)
    filled = pointers[edge + 1] - pointers[edge]
    place = _ranges(pointers[edge], filled)
    number = torch.repeat_interleave(torch.arange(len(edge), device=vertex.device), filled)
    columns = adjacent.columns.to(vertex.device)[place]
    entries = adjacent.entries.to(costs)[place]
    parts = entries * costs.reshape(-1)[item[number] * costs.shape[1] + columns]
    paid = costs.new_zeros(len(edge)).index_add(0, number, parts)
    return item, paid, adjacent.lengths.to(costs)[edge]


def _ranges(first: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """first[0], first[0] + 1, ..., (count[0] of them), first[1], ..."""
    before = count.cumsum(0) - count
    return torch.arange(int(count.sum()), device=count.device) + (first - before).repeat_interleave(count)


def _edges(
    form: StandardForm, sides: tuple[np.ndarray, ...], column_status: np.ndarray, row_status: np.ndarray
) -> tuple[sp.csr_array, np.ndarray]:
    """Edges at the vertex of a basis, (K, n), and their lengths, (K,)."""
    values, row_lower, row_upper, lower, upper = sides
    matrix = form.matrix(values).tocsr()
    factor = Factor(form, values, column_status, row_status)
    basic, active = factor.columns, matrix[factor.rows]
    loose = np.flatnonzero(row_status == BasisStatus.BASIC)
    x = _at(column_status, lower, upper)
    x[basic] = factor.solve((_at(row_status, row_lower, row_upper)[factor.rows] - active @ x)[None])[0]
    activity = matrix[loose] @ x
    columns, column_moves = _entering(column_status, lower, upper)
    rows, row_moves = _entering(row_status, row_lower, row_upper)
    longest = np.concatenate([upper[columns] - lower[columns], row_upper[rows] - row_lower[rows]])
    count = len(columns) + len(rows)
    parts, lengths = [sp.csr_array((0, form.n))], [np.zeros(0)]
    for first in range(0, count, _CHUNK):
        chosen = np.arange(first, min(first + _CHUNK, count))
        is_column = chosen < len(columns)
        edges, asked = np.zeros((len(chosen), form.n)), np.zeros((len(chosen), form.m))
        own = chosen[is_column]
        edges[np.flatnonzero(is_column), columns[own]] = column_moves[own]
        own = chosen[~is_column] - len(columns)
        asked[np.flatnonzero(~is_column), rows[own]] = row_moves[own]
        edges[:, basic] = factor.solve(asked[:, factor.rows] - (active @ edges.T).T)
        edges[np.abs(edges) <= _ZERO * np.abs(edges).max(axis=1, initial=0.0, keepdims=True)] = 0.0
        by_columns = _room(x[basic], edges[:, basic], lower[basic], upper[basic])
        by_rows = _room(activity, (matrix[loose] @ edges.T).T, row_lower[loose], row_upper[loose])
        parts.append(sp.csr_array(edges))
        lengths.append(np.minimum(longest[chosen], np.minimum(by_columns, by_rows)))
    return sp.vstack(parts, format="csr"), np.concatenate(lengths)


def _one_side(status: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """What is fixed stands at its lower side: either is the same vertex."""
    return np.where((lower == upper) & (status == BasisStatus.UPPER), np.int8(BasisStatus.LOWER), status)


def _at(status: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Values of what is nonbasic; zero elsewhere."""
    return np.where(status == BasisStatus.LOWER, lower, np.where(status == BasisStatus.UPPER, upper, 0.0))


def _entering(status: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What may enter, and whether upwards, 1, or downwards, -1: nothing fixed, and what is free both ways."""
    may = (status != BasisStatus.BASIC) & (lower < upper)
    up, down = (np.flatnonzero(may & (status != side)) for side in (BasisStatus.UPPER, BasisStatus.LOWER))
    return np.concatenate([up, down]), np.concatenate([np.ones(len(up)), -np.ones(len(down))])


def _room(at: np.ndarray, slopes: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """How far along each row of slopes, (K, k), all stays within its bounds: (K,)."""
    moving = np.abs(slopes) > _ZERO * np.abs(slopes).max(axis=1, initial=0.0, keepdims=True)
    room = np.abs(np.where(slopes > 0, upper, lower) - at)
    room[room <= _STILL * (1 + np.abs(at))] = 0.0
    return (np.where(moving, room, np.inf) / np.where(moving, np.abs(slopes), 1.0)).min(
        axis=1, initial=np.inf
    )
