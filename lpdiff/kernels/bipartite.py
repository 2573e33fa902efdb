"""The kernel of bipartite matching: the searches, and the proof. ``pairs`` says what it is asked.

The smaller side of an item has R *agents*, the larger K *places*. An agent's costs are copied to a row of
float64 when a search first looks at them; where the agents lie side by side in memory one pass finds the
cheapest place of all of them, and agents that do not dispute it are never looked at again. That is most of a
matching of 20 targets with 300 queries. Disputes are settled by augmenting row reduction, then by shortest
augmenting paths (R. Jonker and A. Volgenant, Computing 38, 1987), which keep u, v with

    d_ij = c_ij - u_i - v_j >= 0, = 0 on matched pairs;   R < K: v_j <= 0, = 0 on unmatched places.

FREE is FULL with costs c_ij - p_i - q_j and a place of its own at cost 0 for each agent. EXACT makes k
augmenting paths, each the shortest from any free agent; u = w, the length of the last, on free agents, and
u <= w on others. Each item's (u, v) is checked against the costs as they were given: these conditions prove
the matching optimal. The functions of rows of costs are near twins of those in assignment.py, which read
another layout of costs.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np
from numba import types

from . import lanes as w
from .cheapest import HUGE, cheapest
from .jit import F1W, F2, F2W, S1W, SIZE, inner, kernel, larger, smaller
from .strips import COSTS, INACCURATE, INFEASIBLE, INVALID, L1, L2, L2W, OPTIMAL

__all__ = ["EXACT", "FREE", "FULL", "KERNELS"]

FULL, FREE, EXACT = 0, 1, 2

_PASSES = 4  # of augmenting row reduction, as in assignment.py
_OWN = 1e-12  # what a reduced cost may be off by rounding, relative to the numbers that make it up


# -- the sides of an item ----------------------------------------------------------------------------------


@inner
def _members(given, most, apart, out):
    """Where the rows or columns of an item begin, if all are ``apart`` from the next; how many they are."""
    count = 0
    if len(given) == 2 or most == 0:
        for k in range(given[1]):
            out[k] = (given[0] + k) * apart
        return given[1]
    for k in range(most):
        if given[2 + k] != 0:
            out[count] = k * apart
            count += 1
    return count


@inner
def _copy(c, shift, places, count, price, prices, work, base, width):
    """An agent's costs less the prices to work[base : base + width].

    False where one is not a cost: NaN, -inf, hugely negative."""
    lowest, end, least = w.fill(-HUGE), w.fill_index(count), w.fill(price)
    sound = w.same(end, end)
    for j in range(0, width, 8):
        inside = w.less(w.add(w.lanes(), w.fill_index(j)), end)
        cost = w.choose(inside, w.pick(c, w.load(places, j), shift), w.fill(np.inf))
        sound = w.both(sound, w.less(lowest, cost))
        w.store(work, base + j, w.subtract(w.subtract(cost, least), w.load(prices, j)))
    return w.every(sound)


# -- rows of costs -----------------------------------------------------------------------------------------


@inner
def _two_minima(work, base, v, width):
    """The least of an agent's c_j - v_j, its place, and the least over the others (inf: none)."""
    low, second, at = w.fill(np.inf), w.fill(np.inf), w.fill_index(0)
    for j in range(0, width, 8):
        h = w.subtract(w.load(work, base + j), w.load(v, j))
        at = w.choose(w.less(h, low), w.fill_index(j), at)
        second = w.least(second, w.greatest(low, h))
        low = w.least(low, h)
    best = w.least_of(low)
    at = w.add(at, w.lanes())
    j = w.first_of(w.same(low, w.fill(best)), at)
    return best, j, w.least_of(w.choose(w.same(at, w.fill_index(j)), second, low))


@inner
def _relax(work, base, i, h, v, dist, pred, width):
    """A step of Dijkstra's algorithm from agent i: dist_j <- min(dist_j, c_j - v_j + h). The nearest place.

    Places that are done have v_j = -inf and dist_j = inf: they stay out without a branch."""
    low, at, shift, by = w.fill(np.inf), w.fill_index(0), w.fill(h), w.fill_index(i)
    for j in range(0, width, 8):
        old = w.load(dist, j)
        new = w.add(w.subtract(w.load(work, base + j), w.load(v, j)), shift)
        w.store(pred, j, w.choose(w.less(new, old), by, w.load(pred, j)))
        new = w.least(new, old)
        w.store(dist, j, new)
        at = w.choose(w.less(new, low), w.fill_index(j), at)
        low = w.least(low, new)
    best = w.least_of(low)
    return best, w.first_of(w.same(low, w.fill(best)), w.add(at, w.lanes()))


# -- the search --------------------------------------------------------------------------------------------


@inner
def _costs_of(i, lazy, work, width):
    """Where agent i's costs begin in ``work``: copied when they are first asked for."""
    c, shifts, places, count, nothing, ready = lazy
    if not ready[i]:
        ready[i] = True
        _copy(c, shifts[i], places, count, 0.0, nothing, work, i * width, width)
    return i * width


@inner
def _reduce_places(work, width, agents, v, pred, agent_of, place_of):
    """Where all places are met: v_j is the least cost of place j, its agent takes it (column reduction), and
    what an agent has alone falls in price until its second place is as good (reduction transfer)."""
    for j in range(0, width, 8):
        low, at = w.fill(np.inf), w.fill_index(0)
        for i in range(agents):
            cost = w.load(work, i * width + j)
            at = w.choose(w.less(cost, low), w.fill_index(i), at)
            low = w.least(low, cost)
        w.store(v, j, low)
        w.store(pred, j, at)
    for j in range(width - 1, -1, -1):
        if v[j] == np.inf:
            v[j] = 0.0
        elif place_of[pred[j]] == -1:
            agent_of[j], place_of[pred[j]] = pred[j], j
        elif place_of[pred[j]] >= 0:
            place_of[pred[j]] = -2 - place_of[pred[j]]  # more than one place has its minimum there
    for i in range(agents):
        j = place_of[i]
        if j < -1:
            place_of[i] = -2 - j
        elif j >= 0:
            keep = v[j]
            v[j] = -np.inf
            least, _at, _second = _two_minima(work, i * width, v, width)
            v[j] = keep - least if least < np.inf else keep


@inner
def _reduce(lazy, work, width, v, agent_of, place_of, free, count):
    """One pass of augmenting row reduction over the free agents. How many are left; -1 infeasible.

    A displaced agent waits for the next pass, and of equal places one that nobody has is preferred."""
    left = 0
    for k in range(count):
        i = free[k]
        base = _costs_of(i, lazy, work, width)
        low, j, second = _two_minima(work, base, v, width)
        if low == np.inf:
            return -1
        other = agent_of[j]
        lowered = v[j] - (second - low)
        if second == np.inf:  # no other place: v_j would be -inf. The path phase settles it
            j = width
        elif lowered < v[j]:
            v[j] = lowered
        elif other >= 0:
            while j < width and (agent_of[j] >= 0 or work[base + j] - v[j] != low):
                j += 1
            other = -1
        if j == width:
            other = i
        else:
            place_of[i], agent_of[j] = j, i
            if other >= 0:
                place_of[other] = -1
        if other >= 0:
            free[left] = other
            left += 1
    return left


@inner
def _augment(lazy, work, width, v, room, pred, agent_of, place_of, done, empty, left, free, first, last):
    """A shortest augmenting path from any of the agents free[first:last]: its length, inf where there is
    none, and the place it ends in, one of the ``left`` that are empty.

    v_j += dist_j - length on the places that were passed keeps d >= 0 and the paths tight."""
    dist, spent, final = room
    for j in range(width):
        dist[j], spent[j] = np.inf, v[j]
    best, j, h, reached, latest = np.inf, first, 0.0, 0, -np.inf
    while True:
        source = first < last
        if source:
            i = free[first]
            first += 1
        elif best == np.inf:
            break
        else:
            if best == latest:
                for k in range(left):  # ties in distance: one of them may be an end
                    if dist[empty[k]] == best:
                        j = empty[k]
                        break
            i = agent_of[j]
            if i < 0:
                break
            done[reached], final[reached] = j, best
            reached += 1
            dist[j], spent[j], latest = np.inf, -np.inf, best
        base = _costs_of(i, lazy, work, width)
        h = 0.0 if source else best - (work[base + j] - v[j])
        best, j = _relax(work, base, i, h, spent, dist, pred, width)
    end = j
    if best < np.inf:
        for k in range(reached):
            v[done[k]] += final[k] - best
        while j >= 0:
            i = pred[j]
            agent_of[j] = i
            place_of[i], j = j, place_of[i]  # an agent that was free had none
    return best, end


@inner
def _paths(lazy, work, width, v, room, pred, agent_of, place_of, done, empty, free, count, wanted):
    """Augment from each of the ``count`` free agents, or ``wanted`` >= 0 times from all of them.

    The length of the last path (0 without any); inf: infeasible."""
    left, length = np.int64(0), 0.0
    for j in range(width):
        if agent_of[j] < 0:
            empty[left] = j
            left += 1
    for k in range(count if wanted < 0 else wanted):
        first, last = (k, k + 1) if wanted < 0 else (np.int64(0), count)
        length, end = _augment(
            lazy, work, width, v, room, pred, agent_of, place_of, done, empty, left, free, first, last
        )
        if length == np.inf:
            break
        left -= 1
        for e in range(left):
            if empty[e] == end:
                empty[e] = empty[left]
                break
        if wanted >= 0:
            kept, count = count, np.int64(0)
            for e in range(kept):
                if place_of[free[e]] < 0:
                    free[count] = free[e]
                    count += 1
    return length


# -- the proof ---------------------------------------------------------------------------------------------


@inner
def _least_slack(c, shift, places, count, price, prices, u, v, width):
    """The least of an agent's d_j = c_j - price - prices_j - u - v_j."""
    low, own, y = w.fill(np.inf), w.fill(price), w.fill(u)
    for j in range(0, width, 8):
        cost = w.subtract(w.subtract(w.pick(c, w.load(places, j), shift), own), w.load(prices, j))
        d = w.subtract(w.subtract(cost, y), w.load(v, j))
        inside = w.less(w.add(w.lanes(), w.fill_index(j)), w.fill_index(count))
        low = w.least(low, w.choose(inside, d, w.fill(np.inf)))
    return w.least_of(low)


@inner
def _no_place_is_cheaper(c, shift, places, count, price, prices, u, v, floor):
    """Whether no d_j is negative by more than the rounding of its own numbers. Rarely asked."""
    for j in range(count):
        cost = float(c[shift + places[j]])
        size = abs(cost) + abs(price) + abs(prices[j]) + abs(u) + abs(v[j])
        if not cost - price - prices[j] - u - v[j] >= -(_OWN * size + floor):
            return False
    return True


@inner
def _no_price_on_empty(v, agent_of, width):
    """Whether v_j <= 0, and = 0 on places that nobody has."""
    zero = w.fill(0.0)
    fair = w.same(zero, zero)
    for j in range(0, width, 8):
        price, met = w.load(v, j), w.less(w.fill_index(-1), w.load(agent_of, j))
        fair = w.both(fair, w.either(w.same(price, zero), w.both(met, w.less(price, zero))))
    return w.every(fair)


@inner
def _met(agent_of, count, out):
    """The places that somebody has, ascending; how many they are. ``out`` has room for one more."""
    made = np.int64(0)
    for j in range(count):
        out[made] = j
        made += np.int64(agent_of[j] >= 0)
    return made


def _span(
    costs, n, m, mode, rows, columns, pairs, row_prices, column_prices,
    value, status, pair_at, pair_weight, rows_left, columns_left, start, stop,
):  # fmt: skip
    """Items ``start`` to ``stop`` of ``match``."""
    least, most = smaller(n, m), larger(n, m)
    most_width = (most + (least if mode == FREE else 0) + 7) // 8 * 8
    work, v = np.empty(least * most_width), np.empty(most_width)
    room = np.empty(most_width), np.empty(most_width), np.empty(most_width)
    low, at = np.empty(least + 24), np.empty(least + 24, np.int64)
    many, few = np.empty((6, most_width + 1), np.int64), np.empty((2, least), np.int64)
    pred, agent_of, done, empty, row, column = many[0], many[1], many[2], many[3], many[4], many[5]
    place_of, free, ready = few[0], few[1], np.empty(least, np.bool_)
    u, own_price, price = np.empty(least), np.zeros(least), np.zeros(most_width)
    one = np.int64(1)
    line = larger(m, one)
    for k in range(start, stop):
        c = costs[k if len(costs) > 1 else 0]
        n_k, m_k = _members(rows[k], n, line, row), _members(columns[k], m, one, column)
        turned = n_k > m_k
        R, K = smaller(n_k, m_k), larger(n_k, m_k)
        width = (K + (R if mode == FREE else 0) + 7) // 8 * 8
        # Agent i's cost at place j is c[shifts[i] + places[j]].
        shifts, places = (column, row) if turned else (row, column)
        for i in range(R):
            place_of[i], ready[i] = -1, False
        for j in range(K, width):
            places[j] = places[0]
        for j in range(width):
            agent_of[j], v[j] = -1, 0.0
        sound = True
        if mode == FREE:
            p = row_prices[k if len(row_prices) > 1 else 0]
            q = column_prices[k if len(column_prices) > 1 else 0]
            for i in range(R):
                own_price[i] = q[column[i]] if turned else p[row[i] // line]
                sound &= abs(own_price[i]) < HUGE
            for j in range(width):
                price[j] = 0.0 if j >= K else p[row[j] // line] if turned else q[column[j]]
                sound &= abs(price[j]) < HUGE
        # Everyone's cheapest place, where nobody has a price yet.
        side_by_side = R > 0 and column[m_k - 1] - column[0] == m_k - 1
        square = mode == FULL and R == K
        lazy = (c, shifts, places, K, price, ready)
        if mode == FULL and turned and m >= 8 and side_by_side:
            sound = cheapest(c, m, places, K, column[0], R, low, at)
        else:
            for i in range(R):
                base, ready[i] = i * width, True
                sound &= _copy(c, shifts[i], places, K, own_price[i], price, work, base, width)
                if mode == FREE:
                    work[base + K + i] = 0.0
                low[8 + i] = -np.inf
                if mode != EXACT and not square:
                    low[8 + i], at[8 + i], _second = _two_minima(work, base, v, width)
        count, length, wanted = np.int64(0), 0.0, np.int64(pairs[k] if mode == EXACT else -1)
        if sound:
            if square:
                _reduce_places(work, width, R, v, pred, agent_of, place_of)
            for i in range(R):
                if -np.inf < low[8 + i] < np.inf and agent_of[at[8 + i]] < 0:
                    agent_of[at[8 + i]], place_of[i] = i, at[8 + i]
                elif place_of[i] < 0:
                    free[count] = i
                    count += 1
            if mode != EXACT:
                for _ in range(_PASSES):
                    if count > 0:
                        count = _reduce(lazy, work, width, v, agent_of, place_of, free, count)
            if count < 0 or wanted > count:
                length = np.inf
            elif count > 0:
                where = (lazy, work, width, v, room, pred, agent_of, place_of, done, empty)
                length = _paths(*where, free, count, wanted)
            if mode == FREE and length < np.inf:
                length = 0.0  # u <= 0
        for e in range(pair_at.shape[1]):
            pair_at[k, e], pair_weight[k, e] = 0, 0.0
        value[k], status[k] = np.inf if sound else np.nan, INFEASIBLE if sound else INVALID
        if not sound or length == np.inf:
            continue
        # The proof: potentials, with the prices of leaving out in them, against the costs as they are.
        top = abs(length) if mode == EXACT else 0.0
        for i in range(R):
            j = place_of[i]
            u[i] = length
            if 0 <= j < K:
                cost = float(c[shifts[i] + places[j]])
                u[i] = cost - own_price[i] - price[j] - v[j]
                top = larger(larger(top, abs(cost)), larger(abs(u[i]), abs(v[j])))
            elif mode == FREE:
                u[i] = 0.0
        floor = 0.01 * _OWN * top
        fine = top < HUGE and (square or _no_price_on_empty(v, agent_of, width))
        for i in range(R):
            if wanted == 0 or (mode == FULL and u[i] <= low[8 + i]):
                continue  # nothing to prove; or c_ij >= low_i, as all were compared, and v <= 0, so d_ij >= 0
            fine &= mode == FULL or u[i] - length <= floor
            mine = (c, shifts[i], places, K, own_price[i], price, u[i], v)
            fine &= _least_slack(*mine, width) >= -floor or _no_place_is_cheaper(*mine, floor)
        # The pairs, rows ascending.
        total, made = 0.0, 0
        for e in range(_met(agent_of, K, done) if turned else R):
            j = done[e] if turned else place_of[e]
            i = agent_of[j] if turned else e
            if j < 0 or j >= K:
                continue
            fine &= place_of[i] == j and agent_of[j] == i
            pair_at[k, made], pair_weight[k, made] = shifts[i] + places[j], 1.0
            total += float(c[pair_at[k, made]])
            made += 1
        fine &= made == (R if mode == FULL else wanted if mode == EXACT else made)
        if mode == FREE:
            for i in range(R):
                left = 1.0 if place_of[i] >= K else 0.0
                total += left * own_price[i]
                out, place = (columns_left, column[i]) if turned else (rows_left, row[i] // line)
                out[k, place] = left
            for j in range(K):
                left = 1.0 if agent_of[j] < 0 else 0.0
                total += left * price[j]
                out, place = (rows_left, row[j] // line) if turned else (columns_left, column[j])
                out[k, place] = left
        value[k], status[k] = total, OPTIMAL if fine else INACCURATE


_GIVEN, _FOUND = (SIZE, SIZE, SIZE, L2, L2, L1, F2, F2), (F1W, S1W, L2W, F2W, F2W, F2W)
KERNELS = {
    dtype: kernel(types.void(kind, *_GIVEN, *_FOUND, SIZE, SIZE))(_span) for dtype, kind in COSTS.items()
}
