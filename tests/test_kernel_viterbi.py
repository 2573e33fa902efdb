"""The kernel of chains, called as the problem calls it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lpdiff.kernels.viterbi import best_chains

_OPTIMAL, _INFEASIBLE, _INVALID = 0, 1, 5


def solve(unary, transition, start=None, end=None, lengths=None):
    size, steps, states = unary.shape
    zero = np.zeros((size, states))
    start, end = (zero if given is None else given for given in (start, end))
    lengths = np.full(size, steps) if lengths is None else np.asarray(lengths)
    value, status = np.empty(size), np.empty(size, dtype=np.int8)
    tags = np.empty((size, steps), dtype=np.int32)
    flat = np.ascontiguousarray(transition.reshape(size, -1))
    best_chains(
        *(np.ascontiguousarray(unary.reshape(size, -1)), flat, start, end, lengths, states),
        *(0, size, value, status, tags),
    )
    return value, status, tags


@pytest.mark.parametrize("states", [1, 2, 7, 8, 9, 16, 20])
@pytest.mark.parametrize("by_step", [False, True])
def test_tables_by_numpy(states, by_step):
    """All widths: fewer than eight states, eight, and last eights that overlap."""
    rng = np.random.default_rng(0)
    size, steps = 40, 6
    unary = rng.integers(-3, 4, (size, steps, states)).astype(float)
    shape = (size, steps - 1, states, states) if by_step else (size, states, states)
    transition = rng.integers(-3, 4, shape).astype(float)
    start, end = rng.normal(size=(2, size, states))
    lengths = rng.integers(0, steps + 1, size)
    value, status, tags = solve(unary, transition, start, end, lengths)
    assert (status == _OPTIMAL).all()
    for k, n in enumerate(lengths):
        assert (tags[k, n:] == -1).all() and (tags[k, :n] >= 0).all()
        moves = [transition[k, t] if by_step else transition[k] for t in range(steps - 1)]
        if n == 0:
            assert value[k] == 0.0
            continue
        label = start[k] + unary[k, 0]
        for t in range(1, n):
            label = (label[:, None] + moves[t - 1]).max(0) + unary[k, t]
        assert value[k] == (label + end[k]).max()
        chain = tags[k, :n]
        score = start[k, chain[0]] + end[k, chain[-1]] + unary[k, range(n), chain].sum()
        score += sum(moves[t][a, b] for t, (a, b) in enumerate(itertools.pairwise(chain)))
        assert score == pytest.approx(value[k], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("states", [3, 10])
def test_ties_go_to_the_lowest_state(states):
    value, status, tags = solve(np.zeros((2, 4, states)), np.zeros((2, states, states)))
    assert (tags == 0).all() and (value == 0).all() and (status == _OPTIMAL).all()


@pytest.mark.parametrize("states", [3, 10])
def test_what_is_no_score(states):
    rng = np.random.default_rng(1)
    unary, transition = rng.normal(size=(7, 5, states)), rng.normal(size=(7, 4, states, states))
    start, lengths = np.zeros((7, states)), np.array([5, 5, 5, 5, 5, 3, 5])
    unary[0, 4, states - 1] = np.nan
    transition[1, 3, states - 1, states - 1] = np.inf
    start[2, states - 1] = -1e300
    unary[3, 2] = -np.inf  # all states of a step forbidden
    transition[4, 1, :, 1:] = -np.inf  # all but one
    unary[5, 3:], transition[5, 2:] = np.nan, np.inf  # behind the end
    value, status, tags = solve(unary, transition, start, None, lengths)
    assert status.tolist() == [_INVALID] * 3 + [_INFEASIBLE] + [_OPTIMAL] * 3
    assert np.isnan(value[:3]).all() and value[3] == -np.inf and np.isfinite(value[4:]).all()
    assert (tags[:4] == -1).all() and tags[4, 2] == 0 and tags[5].tolist()[3:] == [-1, -1]


def test_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    unary, transition = rng.normal(size=(9, 7, 11)), rng.normal(size=(9, 11, 11))
    whole = solve(unary, transition)
    order = rng.permutation(9)
    for given, found in zip(whole, solve(unary[order], transition[order]), strict=True):
        assert np.array_equal(given[order], found)
    one = solve(unary[4:5], transition[4:5])
    assert one[0][0] == whole[0][4] and np.array_equal(one[2][0], whole[2][4])
