"""The cheapest place of each agent, where agents lie side by side in memory: see ``bipartite``."""

# mypy: allow-untyped-defs
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from . import lanes as w
from .jit import inner, smaller

__all__ = ["HUGE", "cheapest"]

HUGE = 1e100  # items with potentials beyond go to the general solver, so that no difference overflows

_BLOCK = 16  # places at a time: a few kilobytes of costs, which stay close while all agents look at them


_operation: Any = intrinsic


@_operation
def _ahead(typing, array, offset):
    """Ask for array[offset] to be brought close by the time it is read; nothing where there is no such."""

    def generate(context, builder, signature, arguments):
        byte, word = ir.PointerType(ir.IntType(8)), ir.IntType(32)
        place = builder.gep(context.make_array(array)(context, builder, arguments[0]).data, [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        # To read, to keep in the second cache, data.
        builder.call(function, [builder.bitcast(place, byte), word(0), word(2), word(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@inner
def _window(b, first, count, m):
    """Eight columns of which some are b to b + 8 of the ``count`` from ``first``: where they begin, which
    are."""
    begin = smaller(first + b, m - 8)
    lane = w.add(w.lanes(), w.fill_index(begin))
    mine = w.both(w.less(w.fill_index(first - 1), lane), w.less(lane, w.fill_index(first + count)))
    return begin, mine


@inner
def cheapest(c, m, places, count, first, agents, low, at):
    """low[8 + i], at[8 + i]: the least cost of agents that lie side by side, and its place.

    False where one is not a cost. Costs are read once, ``_BLOCK`` places at a time for all agents; which of
    the places it was is looked up in the block where the least was met first."""
    infinite, zero, lowest, wrong = w.fill(np.inf), w.fill(0.0), w.fill(-HUGE), 0
    for b in range(0, agents, 8):
        begin, mine = _window(b, first, agents, m)
        w.store(low, 8 + begin - first, infinite)
    for start in range(0, count, _BLOCK):
        stop = smaller(start + _BLOCK, count)
        for b in range(0, agents, 8):
            begin, mine = _window(b, first, agents, m)
            # A sum is NaN where a number is, or -inf; two at a time, so that one need not wait for the other.
            best, other, sums = infinite, infinite, zero
            for j in range(start, stop, 2):
                here = places[np.uint64(j)] + begin
                there = places[np.uint64(smaller(j + 1, stop - 1))] + begin
                # Of the next item: memory is slower than this pass, and rests while matchings are searched.
                _ahead(c, here + len(c))
                _ahead(c, there + len(c))
                cost, next_ = w.load(c, here), w.load(c, there)
                best, other, sums = (
                    w.least(best, cost),
                    w.least(other, next_),
                    w.add(sums, w.add(cost, next_)),
                )
            place = 8 + begin - first
            best, before = w.least(best, other), w.load(low, place)
            better = w.less(best, before)
            w.store(low, place, w.choose(better, best, before))
            w.store(at, place, w.choose(better, w.fill_index(start), w.load(at, place)))
            # Lanes of others: sound or not, they do not matter.
            wrong |= w.bits(mine) & ~w.bits(w.both(w.same(sums, sums), w.less(lowest, best)))
    for i in range(agents):
        if wrong == 0 and low[8 + i] < np.inf:
            j = at[8 + i]
            while float(c[places[j] + first + i]) != low[8 + i]:
                j += 1
            at[8 + i] = j
    return wrong == 0
