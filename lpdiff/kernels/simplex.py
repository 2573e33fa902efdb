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
come from blocks of arcs (Grigoriadis 1986). The tree is a preorder thread with subtree sizes, which also find
the apex (Bradley, Brown, Graves 1977; Barr, Glover, Klingman 1979).
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import numpy as np
from numba import types

from .jit import B2W, F2, F2W, I1, I1W, S1W, SIZE, inner, kernel, larger, smaller

__all__ = ["network_simplex"]

_OPTIMAL, _INFEASIBLE, _UNBOUNDED, _DECLINED = 0, 1, 2, 7

_HUGE = 1e20  # Numbers of this size are infinite.
_FEASIBLE = 1e-9  # A violation this small, relative to the flows, is rounding.
_EPS = float(np.finfo(np.float64).eps)

# What is minimised: costs and M times the violation; the violation alone; the costs alone, in bounds.
_MIXED, _VIOLATION, _COSTS = 0, 1, 2

# Fields of a node in `tree`, half a line of cache each: its parent (the root's is itself); the next and the
# previous node in preorder, a ring; the size and the last node of its subtree; its arc to the parent; whether
# that points up, to the parent; whether that is a relaxed logical, above or below its bounds.
# Unsigned, here and in the ends of arcs: numba checks signed indices for being negative.
_PARENT, _NEXT, _PREVIOUS, _WEIGHT, _LAST, _ARC, _RISES, _RELAXED = 0, 1, 2, 3, 4, 5, 6, 7
_ABOVE, _BELOW = 1, 2

# Fields of a node in `room`: how much more flow its arc takes towards the parent, and away from it.
_UP, _DOWN = 0, 1


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
def _hang(tree, room, top, foot, parent, arc, rises, up, down):
    """Cut the subtree of `top` off, root it anew at its node `foot`, and hang it from `parent` by `arc`."""
    size, end = tree[top, _WEIGHT], tree[top, _LAST]
    before, after = tree[top, _PREVIOUS], tree[end, _NEXT]
    tree[before, _NEXT], tree[after, _PREVIOUS] = after, before
    v = tree[top, _PARENT]
    while tree[v, _LAST] == end:
        tree[v, _LAST] = before
        v = tree[v, _PARENT]

    # Up the stem foot..top: each node brings its old subtree, a range in preorder, less that of the stem node
    # below, a range of it. `tip` ends what has been strung together so far.
    v, above, inside, tip = foot, parent, np.uint32(0), end
    low_before, low_last, low_after = end, end, end
    while True:
        v_before, v_last, v_parent = tree[v, _PREVIOUS], tree[v, _LAST], tree[v, _PARENT]
        v_size, v_arc, v_rises = tree[v, _WEIGHT], tree[v, _ARC], tree[v, _RISES]
        v_up, v_down = room[v, _UP], room[v, _DOWN]
        if v == foot:
            v_after, tip = tree[v_last, _NEXT], v_last
        else:
            tree[tip, _NEXT], tree[v, _PREVIOUS] = v, tip
            if v_last == low_last:
                v_after, tip = low_after, low_before
            else:
                v_after, tip = tree[v_last, _NEXT], v_last
                tree[low_before, _NEXT], tree[low_after, _PREVIOUS] = low_after, low_before
        tree[v, _PARENT], tree[v, _WEIGHT], tree[v, _ARC], tree[v, _RISES] = above, size - inside, arc, rises
        room[v, _UP], room[v, _DOWN] = up, down
        if v == top:
            break
        # The old arc of v now belongs to its old parent, turned round.
        arc, rises, up, down = v_arc, np.uint32(1 - v_rises), v_down, v_up
        above, inside = v, v_size
        low_before, low_last, low_after = v_before, v_last, v_after
        v = v_parent

    while v != parent:
        tree[v, _LAST] = tip
        v = tree[v, _PARENT]
    after = tree[parent, _NEXT]
    tree[parent, _NEXT], tree[foot, _PREVIOUS] = foot, parent
    tree[tip, _NEXT], tree[after, _PREVIOUS] = after, tip
    while tree[v, _LAST] == parent:
        tree[v, _LAST] = tip
        v = tree[v, _PARENT]


@inner
def _pivot(tree, room, y, a, b, arc, more, d, width, free):
    """Push as much as fits along the cycle that `arc`, a to b, closes, and exchange the arcs.

    `more`: the push raises the arc's flow. Returns the arc that leaves and the state it leaves in; or `arc`
    where it went to its other bound; or -1 where nothing blocks, and then nothing is done.
    """
    root = np.uint32(len(y) - 1)
    # The last blocking arc along the push: nearest to a going down from the apex, then `arc` itself, then
    # nearest to the apex coming up from b.
    p, q, a_top, b_top, a_step, b_step = a, b, root, root, width, np.inf
    while p != q:
        if tree[p, _WEIGHT] <= tree[q, _WEIGHT]:
            if room[p, _DOWN] < a_step:
                a_step, a_top = room[p, _DOWN], p
            p = tree[p, _PARENT]
        else:
            if room[q, _UP] <= b_step:
                b_step, b_top = room[q, _UP], q
            q = tree[q, _PARENT]
    step = smaller(a_step, b_step)
    if not step < np.inf:
        return -1, 0
    if step > 0.0:
        for v, rise in ((a, -step), (b, step)):
            while v != p:
                room[v, _UP] -= rise
                room[v, _DOWN] += rise
                v = tree[v, _PARENT]

    top, foot, parent, rises, up, down = a_top, a, b, np.uint32(more), width - step, np.inf if free else step
    met = 1 if tree[top, _RISES] else -1
    if b_top != root and b_step <= a_step:
        # b's side is cut off: its new arc leads to a, against the push.
        top, foot, parent, rises, up, down = b_top, b, a, np.uint32(not more), down, up
        met = -1 if tree[top, _RISES] else 1
    elif a_top == root:
        return np.int64(arc), 0
    if tree[top, _RELAXED] != 0:
        # A violated logical comes home to the bound that it was beyond, so from the other side.
        met = -met
        tree[top, _RELAXED] = 0
    left, size = np.int64(tree[top, _ARC]), tree[top, _WEIGHT]
    v = tree[top, _PARENT]
    while v != p:
        tree[v, _WEIGHT] -= size
        v = tree[v, _PARENT]
    v = parent
    while v != p:
        tree[v, _WEIGHT] += size
        v = tree[v, _PARENT]
    _hang(tree, room, top, foot, parent, arc, rises, up, down)

    # The entering arc becomes tight. Of the moved subtree and the rest, the smaller one shifts: reduced costs
    # see differences alone, and the ground's potential is 0 again in the end.
    v, count, shift = foot, np.int64(size), d if rises else -d
    if 2 * count > len(y):
        v, count, shift = tree[tree[foot, _LAST], _NEXT], len(y) - count, -shift
    for _ in range(count):
        y[v] += shift
        v = tree[v, _NEXT]
    return left, met


@inner
def _flows(tail, head, low, high, state, tree, room, flow, net):
    """Flows by leaf elimination, from the last node in preorder up. Do they keep their bounds?"""
    root = np.uint32(len(net) - 1)
    largest, worst, net[root] = 0.0, 0.0, 0.0
    for j in range(len(flow)):
        f = high[j] if state[j] < 0 else low[j]
        flow[j] = f if abs(f) < np.inf else 0.0
    for v in range(root):
        net[v], flow[tree[v, _ARC]] = 0.0, 0.0
    for j in range(len(flow)):
        f = flow[j]
        if f != 0.0:
            largest = larger(largest, abs(f))
            net[tail[j]] += f
            net[head[j]] -= f
    v = tree[root, _PREVIOUS]
    while v != root:
        # What leaves the subtree of v, all told, is 0.
        j, rises = tree[v, _ARC], tree[v, _RISES] != 0
        f = -net[v] if rises else net[v]
        more, less, flow[j] = high[j] - f, f - low[j], f
        largest, worst = larger(largest, abs(f)), larger(worst, larger(-more, -less))
        more, less = larger(more, 0.0), larger(less, 0.0)
        room[v, _UP], room[v, _DOWN] = more if rises else less, less if rises else more
        net[tree[v, _PARENT]] += net[v]
        v = tree[v, _PREVIOUS]
    return worst <= _FEASIBLE * largest


@inner
def _potentials(cost, tree, y):
    """Potentials from the ground down. Returns the largest magnitude."""
    root = np.uint32(len(y) - 1)
    largest, y[root] = 0.0, 0.0
    v = tree[root, _NEXT]
    while v != root:
        c = cost[tree[v, _ARC]]
        y[v] = y[tree[v, _PARENT]] + (c if tree[v, _RISES] else -c)
        largest = larger(largest, abs(y[v]))
        v = tree[v, _NEXT]
    return largest


@inner
def _star(low, high, cost, net, tree, room, big):
    """The first tree: the star of logicals; relaxed ones cost `big`. Returns the scale of the flows."""
    m = len(net) - 1
    n = len(cost) - m
    scale, tree[m, _PARENT], tree[m, _NEXT], tree[m, _WEIGHT] = 0.0, m, 0, m + 1
    tree[m, _PREVIOUS], tree[m, _LAST] = larger(m - 1, 0), larger(m - 1, 0)
    for i in range(m):
        tree[i, _PARENT], tree[i, _NEXT], tree[i, _PREVIOUS] = m, i + 1, i - 1 if i > 0 else m
        tree[i, _WEIGHT], tree[i, _LAST], tree[i, _ARC] = 1, i, n + i
        tree[i, _RISES], tree[i, _RELAXED] = 0, 0
        at, least, most = net[i], low[n + i], high[n + i]
        more, less, cost[n + i] = most - at, at - least, 0.0
        scale = larger(larger(scale, abs(at)), larger(-more, -less))
        if more < 0.0:
            tree[i, _RELAXED], cost[n + i] = _ABOVE, big
            more, less = np.inf, -more
        elif less <= 0.0:
            tree[i, _RELAXED], cost[n + i] = _BELOW, -big
            more, less = -less, np.inf
        room[i, _UP], room[i, _DOWN] = less, more
    return scale


@inner
def _components(tail, head, arcs, group):
    """The last node of each node's component: the ground, or the last of rows without a tie to it."""
    nodes = len(group)
    for i in range(nodes):
        group[i] = i
    for j in range(arcs):
        a, b = tail[j], head[j]
        while group[a] != a:
            group[a] = group[group[a]]
            a = group[a]
        while group[b] != b:
            group[b] = group[group[b]]
            b = group[b]
        group[smaller(a, b)] = larger(a, b)
    for k in range(nodes):
        group[nodes - 1 - k] = group[group[nodes - 1 - k]]


@inner
def _ground(tree, room, closed):
    """Root every component of redundant rows at its last row."""
    root = np.uint32(len(tree) - 1)
    for i in range(root):
        if closed[i] and tree[i, _PARENT] != root:
            top = np.uint32(i)
            while tree[top, _PARENT] != root:
                top = tree[top, _PARENT]
            logical = np.uint32(tree[top, _ARC] - top + i)
            _hang(tree, room, top, np.uint32(i), root, logical, np.uint32(0), 0.0, 0.0)


# tail, head; cost, lower, upper, row_lower, row_upper; start, stop; x, y, ray; basic; status; iterations
@kernel(types.void(I1, I1, F2, F2, F2, F2, F2, SIZE, SIZE, F2W, F2W, F2W, B2W, S1W, I1W))
def network_simplex(
    tail, head, cost, lower, upper, row_lower, row_upper, start, stop, x, y, ray, basic, status, iterations
):
    """Solve the items start..stop.

    Args:
        tail, head: Ends of the arcs, (n,), in 0..m; m is the ground.
        cost, lower, upper: (1|B, n). row_lower, row_upper: (1|B, m).
        x, y: Written where the status is 0, (B, n) and (B, m).
        ray: Written where the status is 1, (B, m): a y with D(y) > 0 at cost 0. (0, 0): not wanted.
        basic: Written where the status is 0, (B, n + m): arcs, then logicals. (0, 0): not wanted.
        status, iterations: Written, (B,). Status 7: no result (senseless numbers, or too many steps).
    """
    n, m = len(tail), row_lower.shape[1]
    arcs = n + m
    # Rows of few arrays of few kinds: numba compiles np.empty anew for each kind.
    ends, groups = np.empty((2, arcs), np.uint32), np.empty((1, m + 1), np.uint32)
    tree, room = np.empty((m + 1, 8), np.uint32), np.empty((m + 1, 2))
    of_arcs, of_nodes = np.empty((4, arcs)), np.empty((3, m + 1))
    states, flags = np.empty((2, arcs), np.int8), np.empty((1, m + 1), np.int8)
    tails, heads, group, closed = ends[0], ends[1], groups[0], flags[0]
    low, high, price, flow = of_arcs[0], of_arcs[1], of_arcs[2], of_arcs[3]
    net, first_net, pi, state, first_state = of_nodes[0], of_nodes[1], of_nodes[2], states[0], states[1]
    for j in range(n):
        tails[j], heads[j] = tail[j], head[j]
    for i in range(m):
        tails[n + i], heads[n + i] = m, i
    _components(tails, heads, n, group)
    free, in_order = 0, True
    for item in range(start, stop):
        status[item], iterations[item] = _DECLINED, 0
        # Bounds of arcs, once where the items share them. state: +1 at the lower bound, -1 at the upper one,
        # 0 where the flow may not change (fixed, basic) or where it may both ways (free, at 0).
        if item == start or lower.shape[0] > 1 or upper.shape[0] > 1:
            l_row, u_row = lower[item if len(lower) > 1 else 0], upper[item if len(upper) > 1 else 0]
            free, in_order = 0, True
            for i in range(m + 1):
                first_net[i] = 0.0
            for j in range(n):
                least = -np.inf if l_row[j] <= -_HUGE else l_row[j]
                most = np.inf if u_row[j] >= _HUGE else u_row[j]
                in_order &= least <= most and least < np.inf and most > -np.inf
                low[j], high[j] = least, most
                if least > -np.inf:
                    first_state[j], f = least < most, least
                elif most < np.inf:
                    first_state[j], f = -1, most
                else:
                    first_state[j], f = 0, 0.0
                    free += 1
                if f != 0.0:
                    first_net[tails[j]] += f
                    first_net[heads[j]] -= f
        sane, top_cost, c_row = in_order, 0.0, cost[item if len(cost) > 1 else 0]
        for j in range(n):
            c = abs(c_row[j])
            price[j], state[j] = c_row[j], first_state[j]
            sane &= c < np.inf
            top_cost = larger(top_cost, c)
        for i in range(m):
            net[i], closed[i] = first_net[i], group[i] == i
        count = n
        l_row = row_lower[item if len(row_lower) > 1 else 0]
        u_row = row_upper[item if len(row_upper) > 1 else 0]
        for i in range(m):
            least = -np.inf if l_row[i] <= -_HUGE else l_row[i]
            most = np.inf if u_row[i] >= _HUGE else u_row[i]
            sane &= least <= most and least < np.inf and most > -np.inf
            low[n + i], high[n + i], state[n + i] = least, most, 0
            if least < most:
                count, closed[group[i]] = arcs, False
        big = (m + 1) * top_cost if top_cost > 0.0 else 1.0
        if not (sane and big < np.inf):
            continue
        scale = _star(low, high, price, net, tree, room, big)
        _potentials(price, tree, pi)

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
                last = smaller(at + block, count)
                best, j = _cheapest(tails, heads, price, state, pi, at, last)
                seen += last - at
                at = last if last < count else 0
                if best < -tolerance:
                    arc, d = j, best * state[j]

            unbounded = False
            if arc >= 0:
                steps, moved = steps + 1, moved + 1
                more, width, left, met = d < 0.0, high[arc] - low[arc], -1, 0
                for _ in range(2):
                    a, b = (tails[arc], heads[arc]) if more else (heads[arc], tails[arc])
                    left, met = _pivot(tree, room, pi, a, b, np.uint32(arc), more, d, width, is_free)
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
                if tree[i, _RELAXED] != 0:
                    violation = larger(violation, room[i, _UP if tree[i, _RELAXED] == _ABOVE else _DOWN])
            feasible = violation <= _FEASIBLE * scale
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
                    relaxed = tree[i, _RELAXED]
                    price[n + i] = 1.0 if relaxed == _ABOVE else -1.0 if relaxed == _BELOW else 0.0
                _potentials(price, tree, pi)
                continue
            stage, moved = _COSTS, 0
            for i in range(m):
                price[n + i], tree[i, _RELAXED] = 0.0, 0
            _ground(tree, room, closed)
            if not _flows(tails, heads, low, high, state, tree, room, flow, net):
                break
            # Noise of fresh potentials; more with every round, so that noise alone cannot go on for ever.
            tolerance = slack * (top_cost + _potentials(price, tree, pi))
            slack *= 2.0

        iterations[item] = steps
        if status[item] == _INFEASIBLE and len(ray) > 0:
            for i in range(m):
                ray[item, i] = pi[i] - pi[m]
        if status[item] == _OPTIMAL:
            for j in range(n):
                x[item, j] = smaller(larger(flow[j], low[j]), high[j]) + 0.0
            for i in range(m):
                y[item, i] = pi[i] + 0.0
            if len(basic) > 0:
                for j in range(arcs):
                    basic[item, j] = False
                for i in range(m):
                    basic[item, tree[i, _ARC]] = True
