"""Potentials for the nodes that a shortest path tree does not reach.

The LP is that of ``paths``: a basis is a spanning tree of arcs with d = c - y_tail + y_head = 0, so these
nodes need potentials too, with d >= 0 on all open arcs, and each tied by an arc with d = 0.

Write y = -label. Let T be the nodes that have a label. When no open arc leaves T, nodes that reach T take
label_tail = max(label_head - c): shortest paths again, backwards. Then no open arc enters T, and what T
reaches takes label_head = min(label_tail + c); and so on, in turns. What no open arc joins to T does the
same from a seed of its own. Such pieces are joined at last by forbidden arcs: there x = u = 0, so d may have
any sign, and the piece shifts until d = 0.

Each turn sweeps over the arcs in the order of the walk: once where that is topological, else until no label
changes (Bellman and Ford, with Yen's order). What takes too many sweeps is declined.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1, F2, F2W, I1, S1W, SIZE, kernel

__all__ = ["complete_potentials"]

# Sweeps before an item is declined.
_SWEEPS = 100

# A label changes only by more than its rounding, or a cycle of length zero would look negative.
_ROUNDING = 1e-14

_OPTIMAL, _DECLINED = 0, 7
_INCOMPLETE, _INCOMPLETE_GROUNDED = 8, 9
_UNKNOWN, _LABELLED, _FIXED = 0, 1, 2


@kernel()
def _sweep_up(c, upper, f, slack, pointers, arcs, tails, state, label):
    """Labels for what a labelled node reaches; returns how many changed."""
    changes = 0
    for p in range(len(state)):
        if state[p] == _FIXED:
            continue
        best, margin = np.inf, 0.0
        for a in range(pointers[p], pointers[p + 1]):
            if state[tails[a]] != _UNKNOWN and upper[arcs[a]] >= f:
                length = label[tails[a]] + c[arcs[a]]
                if length < best:
                    best, margin = length, slack * (abs(length) + abs(c[arcs[a]]))
        if best < np.inf and (state[p] == _UNKNOWN or best < label[p] - margin):
            label[p], state[p] = best, _LABELLED
            changes += 1
    return changes


@kernel()
def _sweep_down(c, upper, f, slack, pointers, arcs, tails, state, label):
    """Labels for what reaches a labelled node; returns how many changed."""
    changes = 0
    for p in range(len(state) - 1, -1, -1):
        if state[p] == _UNKNOWN:
            continue
        for a in range(pointers[p], pointers[p + 1]):
            tail = tails[a]
            if state[tail] == _FIXED or upper[arcs[a]] < f:
                continue
            length = label[p] - c[arcs[a]]
            margin = slack * (abs(length) + abs(c[arcs[a]]))
            if state[tail] == _UNKNOWN or length > label[tail] + margin:
                label[tail], state[tail] = length, _LABELLED
                changes += 1
    return changes


@kernel()
def _fix(state):
    """What is labelled is fixed; returns how many are not."""
    unknown = 0
    for p in range(len(state)):
        if state[p] == _LABELLED:
            state[p] = _FIXED
        unknown += state[p] == _UNKNOWN
    return unknown


@kernel()
def _find(parent, p):
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@kernel()
def _seed(upper, f, pointers, arcs, tails, state, label, piece):
    """Label one node of every piece (joined by open arcs) of what has no label."""
    for p in range(len(state)):
        piece[p] = p
    for p in range(len(state)):
        for a in range(pointers[p], pointers[p + 1]):
            if upper[arcs[a]] >= f:
                piece[_find(piece, p)] = _find(piece, tails[a])
    for p in range(len(state)):
        if state[p] == _UNKNOWN and piece[p] == p:
            label[p], state[p] = 0.0, _LABELLED


@kernel()
def _climb(piece, shift, p):
    """The shifts from p up to its root, and the root. Halves the path on the way."""
    total = 0.0
    while piece[p] != p:
        above = piece[p]
        shift[p] += shift[above]
        piece[p] = piece[above]
        total += shift[p]
        p = piece[p]
    return total, p


@kernel()
def _bridge(c, upper, f, pointers, arcs, tails, label, piece, shift):
    """Shift the pieces until forbidden arcs tie them: union-find over pieces that carries the shifts.

    The label of p is label[p] plus shift at the nodes from p up to its root; roots have shift 0.
    """
    for p in range(len(piece)):
        piece[p] = _find(piece, p)
        shift[p] = 0.0
    for p in range(len(piece)):
        for a in range(pointers[p], pointers[p + 1]):
            if upper[arcs[a]] < f:
                up, top = _climb(piece, shift, p)
                down, bottom = _climb(piece, shift, tails[a])
                if top != bottom:
                    piece[top] = bottom
                    shift[top] = (label[tails[a]] + down) + c[arcs[a]] - (label[p] + up)
    for p in range(len(piece)):
        up, _ = _climb(piece, shift, p)
        label[p] += up


@kernel()
def _label_all(c, upper, f, acyclic, pointers, arcs, tails, state, label, piece, shift):
    """Whether all nodes have labels now."""
    slack = 0.0 if acyclic else _ROUNDING
    unknown, still, seeded, down = _fix(state), 0, False, True
    sweeps = 0
    while unknown > 0 and sweeps < _SWEEPS:
        if still == 2:
            # No open arc joins the rest to what has labels: that happens once.
            if seeded:
                return False
            _seed(upper, f, pointers, arcs, tails, state, label, piece)
            seeded = True
        changes, first = 1, True
        while changes > 0 and (first or not acyclic) and sweeps < _SWEEPS:
            first = False
            sweeps += 1
            if down:
                changes = _sweep_down(c, upper, f, slack, pointers, arcs, tails, state, label)
            else:
                changes = _sweep_up(c, upper, f, slack, pointers, arcs, tails, state, label)
        if changes > 0 and not acyclic:
            return False
        before, unknown = unknown, _fix(state)
        still = still + 1 if unknown == before else 0
        down = not down
    if seeded and unknown == 0:
        _bridge(c, upper, f, pointers, arcs, tails, label, piece, shift)
    return unknown == 0


_WALK = (I1, I1, I1, I1, I1, I1)


@kernel(types.void(F2, F2, F1, types.boolean, *_WALK, F2W, S1W, SIZE, SIZE))
def complete_potentials(
    c, upper, supply, acyclic, order, position, reference, pointers, arcs, tails, y, status, start, stop
):
    """Complete y where a kernel of ``paths`` left its status at 8 or 9; what it left at others stays.

    Args:
        c, upper, supply: As in ``paths``.
        acyclic: Whether the order of the walk is topological.
        order ... tails: The ``graphs.Walk``.
        y: (B, m), NaN at the nodes without potential; zero in the end at the ground or else the last row
            of each connected component.
        status: (B,). 8: the ground has no potential (or there is none), 9: it has 0. Becomes 0, or 7.
    """
    nodes, rows = len(order), y.shape[1]
    state, label = np.empty(nodes, np.int8), np.empty(nodes)
    piece, shift = np.empty(nodes, np.int32), np.empty(nodes)
    for k in range(start, stop):
        if status[k] != _INCOMPLETE and status[k] != _INCOMPLETE_GROUNDED:
            continue
        for p in range(nodes):
            potential = y[k, order[p]] if order[p] < rows else 0.0
            known = potential == potential
            if order[p] >= rows:
                known = status[k] == _INCOMPLETE_GROUNDED
            state[p] = _FIXED if known else _UNKNOWN
            label[p] = -potential if known else 0.0
        ck, uk = c[k if len(c) > 1 else 0], upper[k if len(upper) > 1 else 0]
        f = supply[k if len(supply) > 1 else 0]
        fine = _label_all(ck, uk, f, acyclic, pointers, arcs, tails, state, label, piece, shift)
        status[k] = _OPTIMAL if fine else _DECLINED
        for p in range(nodes):
            if order[p] < rows:
                y[k, order[p]] = label[reference[p]] - label[p]
