"""The best sequence of states of a chain (Viterbi 1967), for a batch.

    label[0, s]  = start[s] + unary[0, s]
    label[t, s'] = max_s (label[t-1, s] + transition[t-1, s, s']) + unary[t, s']
    value        = max_s (label[n-1, s] + end[s])

The labels are the duals of the LP of chains: no score of a step exceeds the difference of its labels, by
construction. Walking back finds for each label the state that gave it, bit by bit, so that the sequence
attains the value, and is proved. Among ties the lowest state wins, from the end backwards.

Only the labels are kept; eight states at a time.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from .jit import F1W, F2, I2W, S1W, SIZE, inner, kernel
from .lanes import WIDTH, add, both, either, every, fill, greatest, less, load, same, store

__all__ = ["best_chains"]

# Larger scores are refused, so that no sum of scores overflows into "forbidden".
_HUGE = 1e290

_OPTIMAL, _INFEASIBLE, _INVALID, _INACCURATE = 0, 1, 5, 6

_L1 = types.Array(types.int64, 1, "C", readonly=True)


@inner
def _scores(array, size):
    """Whether the first ``size`` numbers are scores: finite, or -inf."""
    fine = True
    if size >= WIDTH:
        good = less(fill(0.0), fill(1.0))
        for block in range((size + WIDTH - 1) // WIDTH):
            v = load(array, min(block * WIDTH, size - WIDTH))
            known = either(less(fill(-_HUGE), v), same(v, fill(-np.inf)))
            good = both(good, both(known, less(v, fill(_HUGE))))
        fine = every(good)
    else:
        for k in range(size):
            v = array[k]
            fine &= (v < _HUGE) and (v > -_HUGE or v == -np.inf)
    return fine


@inner
def _step(transition, base, unary, label, t, states):
    """The labels of step t."""
    before, now = (t - 1) * states, t * states
    if states >= WIDTH:
        # The last eight may overlap those before, and find the same again.
        for block in range((states + WIDTH - 1) // WIDTH):
            first = min(block * WIDTH, states - WIDTH)
            best = fill(-np.inf)
            for s in range(states):
                score = add(fill(label[before + s]), load(transition, base + s * states + first))
                best = greatest(best, score)
            store(label, now + first, add(best, load(unary, now + first)))
    else:
        for k in range(states):
            best_one = -np.inf
            for s in range(states):
                score_one = label[before + s] + transition[base + s * states + k]
                best_one = score_one if score_one > best_one else best_one
            label[now + k] = best_one + unary[now + k]


@inner
def _trace(transition, stride, unary, label, steps, states, tags):
    """Walk back from the last tag; False: no state gives a label."""
    for step in range(steps - 1):
        t = steps - 1 - step
        now = tags[t]
        goal, base, s = label[t * states + now], (t - 1) * stride + now, 0
        own = unary[t * states + now]
        while s < states and label[(t - 1) * states + s] + transition[base + s * states] + own != goal:
            s += 1
        if s == states:
            return False
        tags[t - 1] = s
    return True


# unary, transition, start, end; lengths, states; first, last item; value, status, tags
@kernel(types.void(F2, F2, F2, F2, _L1, SIZE, SIZE, SIZE, F1W, S1W, I2W))
def best_chains(unary, transition, start, end, lengths, states, first, last, value, status, tags):
    """Chains of the items first..last.

    Args:
        unary: Scores of states, (B, T * states). Nothing is read beyond an item's length.
        transition: From rows to columns, (B, states * states), the same at each step, or
            (B, (T - 1) * states * states).
        start, end: (B, states).
        lengths: (B,) int64.
        value: Written, (B,): -inf where all sequences are forbidden (by scores of -inf), NaN where invalid.
        status: Written, (B,).
        tags: Written, (B, T), -1 beyond the length and where there is none.
    """
    longest, square = tags.shape[1], states * states
    stride = square if transition.shape[1] > square else 0
    label = np.empty(longest * states)
    for i in range(first, last):
        n, u, w = lengths[i], unary[i], transition[i]
        for t in range(longest):
            tags[i, t] = -1
        value[i], status[i] = 0.0, _OPTIMAL
        if n == 0:
            continue
        used = stride * (n - 1) if stride else (square if n > 1 else 0)
        fine = _scores(u, n * states) and _scores(w, used)
        if not (fine and _scores(start[i], states) and _scores(end[i], states)):
            value[i], status[i] = np.nan, _INVALID
            continue
        for s in range(states):
            label[s] = start[i, s] + u[s]
        for t in range(1, n):
            _step(w, (t - 1) * stride, u, label, t, states)
        best, at = -np.inf, -1
        for s in range(states):
            score = label[(n - 1) * states + s] + end[i, s]
            if score > best:
                best, at = score, s
        if at < 0:
            value[i], status[i] = -np.inf, _INFEASIBLE
            continue
        value[i], tags[i, n - 1] = best, at
        if not _trace(w, stride, u, label, n, states, tags[i]):
            status[i] = _INACCURATE
