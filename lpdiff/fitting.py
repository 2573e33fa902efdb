"""What the numbers of a batch make of a network: an assignment, one path, or a flow with no shorter name.

Structure is of A alone; these questions are of sides and bounds, asked per batch. Arguments are (1|B, k)
arrays of a block's rows and variables; answers are (B,) arrays, B = 1 where nothing varies by item.
An item's answer depends on nothing but its own numbers, and NaN fits nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from .network import Network

__all__ = ["AssignmentFit", "PathFit", "Roles", "obstacle", "single_path", "unit_assignment"]

INFINITE = 1e20  # numbers of at least this size are infinite
TOLERANCE = 1e-12  # relative, for the roundings of scales; exact numbers that differ are equal to it too


class Roles(IntEnum):
    """Which rows of an assignment are equations (the others are at most the flow)."""

    NONE = 0  # no assignment
    SQUARE = 1  # all, R = K
    TAILS = 2  # the tails, R <= K
    HEADS = 3  # the heads, K <= R
    PARTIAL = 4  # none


class AssignmentFit(NamedTuple):
    """Flows of 0 or `flow` on the pairs, x_j = flow / alpha_j where matched."""

    roles: np.ndarray  # (B,) int8, `Roles`
    flow: np.ndarray  # (B,) > 0, the common side of all rows; 0 where there is no fit
    forbidden: np.ndarray  # (B,) bool, whether some declared pair is fixed to 0

    @property
    def fits(self) -> np.ndarray:
        return self.roles != Roles.NONE


class PathFit(NamedTuple):
    """A flow from one node to another, which no capacity divides."""

    fits: np.ndarray  # (B,) bool
    source: np.ndarray  # (B,) int32 node, -1 where there is no fit; m: the ground
    sink: np.ndarray  # (B,) int32 node, -1 where there is no fit; m: the ground
    flow: np.ndarray  # (B,) > 0; 0 where there is no fit
    forbidden: np.ndarray  # (B,) bool, whether some arc is fixed to 0


def unit_assignment(
    network: Network, row_lower: np.ndarray, row_upper: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> AssignmentFit:
    """Every row has the same side f > 0, as `= f` or `<= f`, and 0 <= flow <= u with u >= f or u = 0.

    The flow of a pair is at most f by its rows, so bounds u >= f do nothing. More equations than the other
    side has rows cannot be met: that is left to the general solver, which proves it.
    """
    size = _size(row_lower, row_upper, lower, upper)
    pairs = network.bipartite
    if pairs is None or pairs.duplicates:
        return AssignmentFit(np.zeros(size, np.int8), np.zeros(size), np.zeros(size, bool))
    least, most = _moved(pairs.turn, row_lower, row_upper)
    flow = most[:, :1]
    flow = np.where((flow > 0.0) & (flow < INFINITE), flow, np.nan)  # nothing is close to NaN
    margin = TOLERANCE * flow
    alike = (np.abs(most - flow) <= margin).all(axis=1)
    equal, vacuous = np.abs(least - flow) <= margin, least <= 0.0
    equal_tails, equal_heads = (equal[:, side].all(axis=1) for side in (pairs.tails, pairs.heads))
    loose_tails, loose_heads = (vacuous[:, side].all(axis=1) for side in (pairs.tails, pairs.heads))
    flow = flow[:, 0]
    room, forbidden, fair = _room(network, lower, upper)
    alike = alike & fair & (room >= flow * (1.0 - TOLERANCE))
    R, K = pairs.shape
    # At most one of the four holds.
    roles = (loose_tails & loose_heads) * np.int8(Roles.PARTIAL)
    if R == K:
        roles = roles + (equal_tails & equal_heads) * np.int8(Roles.SQUARE)
    if R <= K:
        roles = roles + (equal_tails & loose_heads) * np.int8(Roles.TAILS)
    if K <= R:
        roles = roles + (loose_tails & equal_heads) * np.int8(Roles.HEADS)
    roles = roles * alike
    return AssignmentFit(_full(roles, size), _full(np.where(roles, flow, 0.0), size), _full(forbidden, size))


def single_path(
    network: Network, row_lower: np.ndarray, row_upper: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> PathFit:
    """Every row is an equation, one node supplies f > 0, one takes it, and 0 <= flow <= u, u >= f or u = 0.

    The ground has no row: it supplies what the rows lack. Whether a path solves the program is a question of
    the costs: on a cycle of negative cost a flow goes round.
    """
    size = _size(row_lower, row_upper, lower, upper)
    low, high = network.supplies(row_lower, row_upper)
    fits = (low == high).all(axis=1) & (np.abs(low) < INFINITE).all(axis=1)
    active = low != 0.0
    count = np.count_nonzero(active, axis=1)
    if network.m == 0:
        return PathFit(np.zeros(size, bool), *_nowhere(size), np.zeros(size), np.zeros(size, bool))
    source, sink = (low > 0.0).argmax(axis=1), (low < 0.0).argmax(axis=1)
    item = np.arange(len(low))
    supply, demand = np.maximum(low[item, source], 0.0), np.maximum(-low[item, sink], 0.0)
    flow = np.maximum(supply, demand)
    two = (count == 2) & (np.minimum(supply, demand) >= flow * (1.0 - TOLERANCE))
    fits &= (two | ((count == 1) & network.grounded)) & (flow > 0.0)
    source, sink = np.where(supply > 0.0, source, network.m), np.where(demand > 0.0, sink, network.m)
    room, forbidden, fair = _room(network, lower, upper)
    fits = fits & fair & (room >= flow * (1.0 - TOLERANCE))
    return PathFit(
        _full(fits, size),
        _full(np.where(fits, source, -1).astype(np.int32), size),
        _full(np.where(fits, sink, -1).astype(np.int32), size),
        _full(np.where(fits, flow, 0.0), size),
        _full(forbidden, size),
    )


def obstacle(
    network: Network, row_lower: np.ndarray, row_upper: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> str:
    """Why one item, (1, k) arrays, is not one path nor an assignment; "" where it is."""
    data = row_lower, row_upper, lower, upper
    if single_path(network, *data).fits.all() or unit_assignment(network, *data).fits.all():
        return ""
    low, high = network.supplies(row_lower, row_upper)
    room, _, fair = _room(network, lower, upper)
    ends = np.count_nonzero(low)
    if not fair.all():
        return "some lower bound is not 0"
    if network.bipartite is not None:
        if network.bipartite.duplicates:
            return "some pair has several arcs"
        sides = np.abs(np.where(low == high, low, np.where(np.abs(low) < np.abs(high), high, low)))
        return "a capacity binds" if (sides == sides[:, :1]).all() else "the sides of its rows differ"
    if not (low == high).all():
        return "not every row is an equation"
    if ends > 2 or (ends < 2 and not network.grounded):
        return f"{ends:,} rows have a supply or a demand"
    return "a capacity binds" if (room < np.abs(low).max()).any() else "supply and demand differ"


def _moved(
    turn: np.ndarray | None, row_lower: np.ndarray, row_upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on what each row of a bipartite network moves, out of a tail or into a head; (1|B, m)."""
    if turn is None:
        return row_lower, row_upper
    low, high = turn * row_lower, turn * row_upper
    if (turn > 0.0).all():
        return low, high
    return np.where(turn > 0.0, low, high), np.where(turn > 0.0, high, low)


def _room(
    network: Network, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The least capacity of the arcs not fixed to 0; whether some is; whether every lower bound is 0."""
    closed = upper == 0.0
    room = np.where(closed | (upper >= INFINITE), np.inf, upper)
    if not network.unit_columns:
        room *= network.col_scale
    return room.min(axis=1, initial=np.inf), closed.any(axis=1), (lower == 0.0).all(axis=1)


def _size(*sides: np.ndarray) -> int:
    """Of the batch: an empty one, beside sides that are declared, is empty."""
    sizes = [len(side) for side in sides]
    return max(sizes) if all(sizes) else 0


def _full(array: np.ndarray, size: int) -> np.ndarray:
    return array if len(array) == size else np.broadcast_to(array, size).copy()


def _nowhere(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(size, -1, np.int32), np.full(size, -1, np.int32)
