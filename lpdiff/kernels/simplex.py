"""Min-cost flow by a primal network simplex on spanning trees.

    min c'x,   row_lower <= A x <= row_upper,   lower <= x <= upper,   column j of A = e_tail(j) - e_head(j).

Nodes 0..m-1 are rows, node m is the *ground*: it has no row, and its dual is 0. Row i gets a logical arc
ground -> i whose flow in [row_lower_i, row_upper_i] is the row's activity, at no cost. So every row reads
(out) - (in) = 0, all right-hand sides are 0, and every basis is a spanning tree of the m + 1 nodes rooted at
the ground. With d = c - y_tail + y_head a logical has d_i = y_i: no special case for rows remains.

*Start.* The star of all logicals. A logical beyond its bounds, or at the lower one, is *relaxed*: it costs M
a unit of violation, and may violate on one side only. M exceeds the cost of every simple path, so that an
optimum still in violation proves infeasibility.

*Finish.* Relaxation ends: logicals take back their bounds and costs, flows are recomputed from the bounds by
leaf elimination, potentials from the costs alone, and pivoting goes on (usually not a step) until a pass
over fresh potentials finds no candidate. So M never touches x or y, and integer data give integer results.
Where the rows of a component are redundant (equalities, no tie to the ground), its last row has y = 0.

*Rays.* Items that look infeasible, or unbounded before they are feasible, are solved for the violation
alone: its potentials are a Farkas ray (a cut, entries 0 and +-1), or the item is unbounded after all.

*Cycling.* Trees are kept strongly feasible (every node could send a little more flow to the root): the last
blocking arc leaves, along the cycle from its apex in the direction of the push (Cunningham 1976). Candidates
come from blocks of arcs (Grigoriadis 1986). The tree is in ``spanning``.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import numba
import numpy as np
from numba import types

from .jit import B2W, F2, F2W, I1W, S1W, SIZE, inner, kernel, larger, row_of, smaller
from .spanning import ABOVE, BELOW, FEASIBLE, NODE, flows, ground, pivot, potentials, star

__all__ = ["network_simplex"]

_OPTIMAL, _INFEASIBLE, _UNBOUNDED, _DECLINED = 0, 1, 2, 7

_HUGE = 1e20  # Numbers of this size are infinite.
_EPS = float(np.finfo(np.float64).eps)

# What is minimised: costs and M times the violation; the violation alone; the costs alone, in bounds.
_MIXED, _VIOLATION, _COSTS = 0, 1, 2


def network_simplex(
    ends, last, cost, lower, upper, row_lower, row_upper, start, stop, x, y, ray, basic, status, iterations
):
    """Solve the items start..stop.

    Args:
        ends: Tails and heads, (2, n + m) uint32, in 0..m: the arcs, then the logicals; m is the ground.
        last: The last node of each node's component, (m + 1,) uint32; see ``Network.last``.
        cost, lower, upper: (1|B, n). row_lower, row_upper: (1|B, m).
        x, y: Written where the status is 0, (B, n) and (B, m).
        ray: Written where the status is 1, (B, m): a y with D(y) > 0 at cost 0. (0, 0): not wanted.
        basic: Written where the status is 0, (B, n + m): arcs, then logicals. (0, 0): not wanted.
        status, iterations: Written, (B,). Status 7: no result (senseless numbers, or too many steps).
    """
    arcs, nodes = ends.shape[1], len(last)
    _solve(
        *(ends, last, cost, lower, upper, row_lower, row_upper, start, stop),
        *(x, y, ray, basic, status, iterations),
        *(np.empty(nodes, NODE), np.empty((4, arcs)), np.empty((3, nodes)), np.empty((2, arcs), np.int8)),
    )


@inner
def _cheapest(tail, head, cost, state, y, first, last):
    """The arc of first..last whose flow may change at the steepest descent, and that descent (< 0)."""
    best, arc = 0.0, -1
    for j in range(np.uint64(first), np.uint64(last)):
        d = state[j] * (cost[j] - y[tail[j]] + y[head[j]])
        if d < best:
            best, arc = d, np.int64(j)
    return best, arc


@inner
def _infinite(lower, upper, low, high, shift):
    """Huge bounds are infinite, from now on. Are all of them sane?"""
    sane = True
    for j in range(len(lower)):
        least, most = lower[j], upper[j]
        if least <= -_HUGE:
            least = -np.inf
        if most >= _HUGE:
            most = np.inf
        sane &= (least <= most) & (least < np.inf) & (most > -np.inf)
        low[shift + j], high[shift + j] = least, most
    return sane


@inner
def _stand(tail, head, low, high, state, net):
    """Where the arcs stand, and what leaves each node then. Returns the number of free arcs.

    state: +1 at the lower bound, -1 at the upper one, 0 where the flow may not change (fixed, basic) or where
    it may both ways (free, at 0).
    """
    free = 0
    for i in range(len(net)):
        net[i] = 0.0
    for j in range(len(low) - len(net) + 1):
        at, stands = low[j], 1 if low[j] < high[j] else 0
        if at == -np.inf:
            at, stands = high[j], -1
            if at == np.inf:
                at, stands = 0.0, 0
                free += 1
        state[j] = stands
        net[tail[j]] += at
        net[head[j]] -= at
    return free


@inner
def _close(last, low, high, tree):
    """Mark the last row of each component of redundant rows. Returns whether some row may move."""
    m = len(last) - 1
    n, ranged = len(low) - m, False
    for i in range(m):
        tree[i].closed = last[i] == i
    for i in range(m):
        if low[n + i] < high[n + i]:
            ranged, tree[last[i]].closed = True, 0
    return ranged


_U1, _U2 = (types.Array(types.uint32, dimensions, "C", readonly=True) for dimensions in (1, 2))


@kernel(
    types.void(
        *(_U2, _U1, F2, F2, F2, F2, F2),
        *(SIZE, SIZE),
        *(F2W, F2W, F2W, B2W, S1W, I1W),
        *(numba.from_dtype(NODE)[::1], F2W, F2W, types.int8[:, ::1]),
    )
)
def _solve(
    ends,
    last,
    cost,
    lower,
    upper,
    row_lower,
    row_upper,
    start,
    stop,
    x,
    y,
    ray,
    basic,
    status,
    iterations,
    tree,  # (m + 1,)
    of_arcs,  # (4, n + m)
    of_nodes,  # (3, m + 1)
    states,  # (2, n + m)
):
    arcs, m, n = ends.shape[1], row_lower.shape[1], cost.shape[1]
    tails, heads = row_of(ends, 0), row_of(ends, 1)
    low, high, price, flow = row_of(of_arcs, 0), row_of(of_arcs, 1), row_of(of_arcs, 2), row_of(of_arcs, 3)
    net, first_net, pi = row_of(of_nodes, 0), row_of(of_nodes, 1), row_of(of_nodes, 2)
    state, first_state = row_of(states, 0), row_of(states, 1)
    free, in_order = 0, True
    for item in range(start, stop):
        status[item], iterations[item] = _DECLINED, 0
        # Once where the items share them.
        if item == start or len(lower) > 1 or len(upper) > 1:
            in_order = _infinite(row_of(lower, item), row_of(upper, item), low, high, np.int64(0))
            free = _stand(tails, heads, low, high, first_state, first_net)
        sane = in_order & _infinite(row_of(row_lower, item), row_of(row_upper, item), low, high, n)
        count = arcs if _close(last, low, high, tree) else n
        c_row, top_cost = row_of(cost, item), 0.0
        for j in range(n):
            c = c_row[j]
            price[j], state[j] = c, first_state[j]
            sane &= abs(c) < np.inf
            top_cost = larger(top_cost, abs(c))
        for i in range(m):
            net[i], state[n + i] = first_net[i], 0
        big = (m + 1) * top_cost if top_cost > 0.0 else 1.0
        if not (sane and big < np.inf):
            continue
        scale = star(low, high, price, net, tree, big)
        potentials(price, tree, pi)

        stage, endless, moved, slack = _MIXED, False, 0, 16.0 * _EPS
        tolerance = slack * big
        block, at, next_free = larger(np.int64(np.sqrt(count)), 10), np.int64(0), 0 if free > 0 else n
        steps, cap = 0, 1000 + 50 * arcs
        while steps < cap:
            # A candidate: every free arc once (they never leave), then block by block.
            arc, d, is_free = -1, 0.0, False
            while next_free < n and arc < 0:
                if low[next_free] == -np.inf and high[next_free] == np.inf:
                    arc, is_free = next_free, True
                    d = price[arc] - pi[tails[arc]] + pi[heads[arc]]
                next_free += 1
            seen = 0
            while seen < count and arc < 0:
                end = smaller(at + block, count)
                best, j = _cheapest(tails, heads, price, state, pi, at, end)
                seen += end - at
                at = end if end < count else 0
                if best < -tolerance:
                    arc, d = j, best * state[j]

            unbounded = False
            if arc >= 0:
                steps, moved = steps + 1, moved + 1
                more, width, left, met = d < 0.0, high[arc] - low[arc], -1, 0
                for _ in range(2):
                    a, b = (tails[arc], heads[arc]) if more else (heads[arc], tails[arc])
                    left, met = pivot(tree, pi, a, b, np.uint32(arc), more, d, width, is_free)
                    if left >= 0 or abs(d) > tolerance:
                        break
                    more = not more  # At no cost a free arc may move either way.
                if left == arc:
                    state[arc] = -state[arc]
                elif left >= 0:
                    state[arc], state[left] = 0, met if low[left] < high[left] else 0
                    if left >= n:
                        price[left] = 0.0
                # Nothing blocks: a ray, or a cycle of free arcs at no cost.
                unbounded = left < 0 and abs(d) > tolerance
                if not unbounded:
                    continue
            elif stage == _COSTS and moved == 0:
                status[item] = _OPTIMAL
                break

            # The stage is over. Where do we stand?
            violation = 0.0
            for i in range(m):
                node = tree[i]
                if node.relaxed != 0:
                    violation = larger(violation, node.up if node.relaxed == ABOVE else node.down)
            feasible = violation <= FEASIBLE * scale
            endless |= unbounded
            if stage == _VIOLATION or (unbounded and feasible):
                if endless or not feasible:
                    status[item] = _UNBOUNDED if feasible else _INFEASIBLE
                break
            if not feasible:
                stage, tolerance = _VIOLATION, 0.5
                next_free = arc if is_free else next_free  # It could not enter yet.
                for j in range(n):
                    price[j] = 0.0
                for i in range(m):
                    relaxed = tree[i].relaxed
                    price[n + i] = 1.0 if relaxed == ABOVE else -1.0 if relaxed == BELOW else 0.0
                potentials(price, tree, pi)
                continue
            stage, moved = _COSTS, 0
            for i in range(m):
                price[n + i], tree[i].relaxed = 0.0, 0
            ground(tree)
            if not flows(tails, heads, low, high, state, tree, flow, net):
                break
            # Noise of fresh potentials; more with every round, so that noise alone cannot go on for ever.
            tolerance = slack * (top_cost + potentials(price, tree, pi))
            slack *= 2.0

        iterations[item] = steps
        if status[item] == _INFEASIBLE and len(ray) > 0:
            for i in range(m):
                ray[item, i] = pi[i] - pi[m]
        if status[item] == _OPTIMAL:
            point = row_of(x, item)
            for j in range(n):
                point[j] = smaller(larger(flow[j], low[j]), high[j]) + 0.0
            for i in range(m):
                y[item, i] = pi[i] + 0.0
            if len(basic) > 0:
                for j in range(arcs):
                    basic[item, j] = False
                for i in range(m):
                    basic[item, tree[i].arc] = True
