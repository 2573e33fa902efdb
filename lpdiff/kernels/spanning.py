"""Spanning trees of the network simplex: how they are walked, pivoted, and what flows and prices they give.

A tree is an array of ``NODE``, one for each node 0..m; node m, the *ground*, is its root. It is threaded: in
preorder the nodes are a ring, so that a subtree is a range of it, known by its size and its last node
(Bradley, Brown, Graves 1977; Barr, Glover, Klingman 1979). For arcs and logicals see ``simplex``.

numba's cache does not watch this file: after a change, touch ``simplex``.
"""
# mypy: allow-untyped-defs, no-check-untyped-defs

from __future__ import annotations

import numpy as np

from .jit import inner, larger, smaller

__all__ = ["ABOVE", "BELOW", "FEASIBLE", "NODE", "flows", "ground", "pivot", "potentials", "star"]

FEASIBLE = 1e-9  # A violation this small, relative to the flows, is rounding.

# A node of the tree. Unsigned, here and in the ends of arcs: numba checks signed indices for being negative.
NODE = np.dtype(
    [
        ("parent", np.uint32),  # the root's is itself
        ("next", np.uint32),  # in preorder, a ring
        ("previous", np.uint32),
        ("weight", np.uint32),  # the size of its subtree
        ("last", np.uint32),  # of its subtree, in preorder
        ("arc", np.uint32),  # to the parent
        ("rises", np.uint8),  # whether that points up, to the parent
        ("relaxed", np.uint8),  # whether that is a relaxed logical, above or below its bounds
        ("closed", np.uint8),  # whether this is the last row of a component of redundant rows
        ("up", np.float64),  # how much more flow the arc takes towards the parent,
        ("down", np.float64),  # and away from it
    ],
    align=True,
)
ABOVE, BELOW = 1, 2


@inner
def _hang(tree, top, foot, parent, arc, rises, up, down):
    """Cut the subtree of `top` off, root it anew at its node `foot`, and hang it from `parent` by `arc`."""
    size, end = tree[top].weight, tree[top].last
    before, after = tree[top].previous, tree[end].next
    tree[before].next, tree[after].previous = after, before
    v = tree[top].parent
    while tree[v].last == end:
        tree[v].last = before
        v = tree[v].parent

    # Up the stem foot..top: each node brings its old subtree, a range in preorder, less that of the stem node
    # below, a range of it. `tip` ends what has been strung together so far.
    v, above, tip = foot, parent, end
    inside, low_before, low_last, low_after = np.uint32(0), end, end, end
    while True:
        node = tree[v]
        v_before, v_last, v_parent = node.previous, node.last, node.parent
        v_size, v_arc, v_rises = node.weight, node.arc, node.rises
        v_up, v_down = node.up, node.down
        if v == foot:
            v_after, tip = tree[v_last].next, v_last
        else:
            tree[tip].next, node.previous = v, tip
            if v_last == low_last:
                v_after, tip = low_after, low_before
            else:
                v_after, tip = tree[v_last].next, v_last
                tree[low_before].next, tree[low_after].previous = low_after, low_before
        node.parent, node.weight, node.arc = above, size - inside, arc
        node.rises, node.up, node.down = rises, up, down
        if v == top:
            break
        # The old arc of v now belongs to its old parent, turned round.
        arc, rises = v_arc, np.uint8(1 - v_rises)
        up, down = v_down, v_up
        above, inside = v, v_size
        low_before, low_last, low_after = v_before, v_last, v_after
        v = v_parent

    while v != parent:
        tree[v].last = tip
        v = tree[v].parent
    after = tree[parent].next
    tree[parent].next, tree[foot].previous = foot, parent
    tree[tip].next, tree[after].previous = after, tip
    while tree[v].last == parent:
        tree[v].last = tip
        v = tree[v].parent


@inner
def pivot(tree, y, a, b, arc, more, d, width, free):
    """Push as much as fits along the cycle that `arc`, a to b, closes, and exchange the arcs.

    `more`: the push raises the arc's flow. Returns the arc that leaves and the state it leaves in; or `arc`
    where it went to its other bound; or -1 where nothing blocks, and then nothing is done.
    """
    root = np.uint32(len(y) - 1)
    # The last blocking arc along the push: nearest to a going down from the apex, then `arc` itself, then
    # nearest to the apex coming up from b.
    p, q = a, b
    a_top, b_top = root, root
    a_step, b_step = width, np.inf
    while p != q:
        if tree[p].weight <= tree[q].weight:
            if tree[p].down < a_step:
                a_step, a_top = tree[p].down, p
            p = tree[p].parent
        else:
            if tree[q].up <= b_step:
                b_step, b_top = tree[q].up, q
            q = tree[q].parent
    step = smaller(a_step, b_step)
    if not step < np.inf:
        return -1, 0
    if step > 0.0:
        v = a
        while v != p:
            node = tree[v]
            node.up += step
            node.down -= step
            v = node.parent
        v = b
        while v != p:
            node = tree[v]
            node.up -= step
            node.down += step
            v = node.parent

    # Where the arc that leaves lies on a's side, the new arc leads to b: up, if it is pushed along.
    on_b = b_top != root and b_step <= a_step
    if a_top == root and not on_b:
        return np.int64(arc), 0
    top, foot, parent = (b_top, b, a) if on_b else (a_top, a, b)
    forwards, back = width - step, np.inf if free else step
    met = 1 if (tree[top].rises != 0) != on_b else -1
    if tree[top].relaxed != 0:
        # A violated logical comes home to the bound that it was beyond, so from the other side.
        met = -met
        tree[top].relaxed = 0
    left, size = np.int64(tree[top].arc), tree[top].weight
    v = tree[top].parent
    while v != p:
        tree[v].weight -= size
        v = tree[v].parent
    v = parent
    while v != p:
        tree[v].weight += size
        v = tree[v].parent
    rises = more != on_b
    up, down = (back, forwards) if on_b else (forwards, back)
    _hang(tree, top, foot, parent, arc, np.uint8(rises), up, down)

    # The entering arc becomes tight. Of the moved subtree and the rest, the smaller one shifts: reduced costs
    # see differences alone, and the ground's potential is 0 again in the end.
    v, count, shift = foot, np.int64(size), d if rises else -d
    if 2 * count > len(y):
        v, count, shift = tree[tree[foot].last].next, len(y) - count, -shift
    for _ in range(count):
        y[v] += shift
        v = tree[v].next
    return left, met


@inner
def flows(tail, head, low, high, state, tree, flow, net):
    """Flows by leaf elimination, from the last node in preorder up. Do they keep their bounds?"""
    root = np.uint32(len(net) - 1)
    largest, worst, net[root] = 0.0, 0.0, 0.0
    for j in range(len(flow)):
        f = high[j] if state[j] < 0 else low[j]
        flow[j] = f if abs(f) < np.inf else 0.0
    for v in range(root):
        net[v], flow[tree[v].arc] = 0.0, 0.0
    for j in range(len(flow)):
        f = flow[j]
        if f != 0.0:
            largest = larger(largest, abs(f))
            net[tail[j]] += f
            net[head[j]] -= f
    v = tree[root].previous
    while v != root:
        # What leaves the subtree of v, all told, is 0.
        node = tree[v]
        j, rises = node.arc, node.rises != 0
        f = -net[v] if rises else net[v]
        more, less, flow[j] = high[j] - f, f - low[j], f
        largest, worst = larger(largest, abs(f)), larger(worst, larger(-more, -less))
        more, less = larger(more, 0.0), larger(less, 0.0)
        node.up, node.down = (more, less) if rises else (less, more)
        net[node.parent] += net[v]
        v = node.previous
    return worst <= FEASIBLE * largest


@inner
def potentials(cost, tree, y):
    """Potentials from the ground down. Returns the largest magnitude."""
    root = np.uint32(len(y) - 1)
    largest, y[root] = 0.0, 0.0
    v = tree[root].next
    while v != root:
        node = tree[v]
        c = cost[node.arc]
        y[v] = y[node.parent] + (c if node.rises else -c)
        largest = larger(largest, abs(y[v]))
        v = node.next
    return largest


@inner
def star(low, high, cost, net, tree, big):
    """The first tree: the star of logicals; relaxed ones cost `big`. Returns the scale of the flows."""
    m = len(net) - 1
    n = len(cost) - m
    scale, ground = 0.0, tree[m]
    ground.parent, ground.next, ground.weight = m, 0, m + 1
    ground.previous = ground.last = larger(m - 1, 0)
    for i in range(m):
        node = tree[i]
        node.parent, node.next, node.previous = m, i + 1, i - 1 if i > 0 else m
        node.weight, node.last, node.arc = 1, i, n + i
        more, less = high[n + i] - net[i], net[i] - low[n + i]
        scale = larger(larger(scale, abs(net[i])), larger(-more, -less))
        relaxed, price = 0, 0.0
        if more < 0.0:
            relaxed, price = ABOVE, big
            more, less = np.inf, -more
        elif less <= 0.0:
            relaxed, price = BELOW, -big
            more, less = -less, np.inf
        node.rises, node.relaxed, cost[n + i] = 0, relaxed, price
        node.up, node.down = less, more
    return scale


@inner
def ground(tree):
    """Root every component of redundant rows at its last row."""
    root = np.uint32(len(tree) - 1)
    for i in range(root):
        top = np.uint32(i)
        if tree[top].closed:
            while tree[top].parent != root:
                top = tree[top].parent
            if top != i:
                logical = np.uint32(tree[top].arc - top + i)
                _hang(tree, top, np.uint32(i), root, logical, np.uint8(0), 0.0, 0.0)
