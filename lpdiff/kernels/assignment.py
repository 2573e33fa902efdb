"""Dense assignment: Jonker and Volgenant's algorithm, and basic duals; its certificate is in matching.py.

min sum c_ik x_ik over R >= 1 rows and K >= R columns: every row takes one column, every column at most one
row (exactly one where R = K).  A cost of +inf forbids its pair.  The duals u (rows), v (columns) satisfy

    d_ik = c_ik - u_i - v_k >= 0, = 0 on matched pairs;   R < K: v <= 0, and v_k = 0 where k is unmatched.

Method: R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
assignment problems", Computing 38 (1987): column reduction, reduction transfer, augmenting row reduction,
then shortest augmenting paths. Where R < K an unmatched column needs v = 0, so that column reduction is not
valid: v starts from 0, and only columns that get a row, which they never lose, come down.

Speed comes from the shape of the inner loops: one vectorised pass over a row finds a minimum, its column and
the second minimum, or relaxes all distances and finds the nearest column.
"""

from __future__ import annotations

import numpy as np

from lpdiff.kernels import lanes as w
from lpdiff.kernels.jit import B1, F2, F2W, I2, I2W, S1W, SIZE, inner, kernel
from lpdiff.kernels.matching import certify, scatter

__all__ = ["certify", "scatter", "solve", "stand"]

_PASSES = 4  # of augmenting row reduction; the paper has 2. From 3 to 6 the times are the same within 3 %
_HUGE = 1e100  # finite costs above are declined, so that no difference of potentials overflows

# Below: c (R*K,) the item's costs; ends (R*8,) the last K mod 8 columns of each row, filled up with inf, for
# vectors may not run over a row's end.  v, dist, pred have a multiple of 8 elements; beyond K, v = 0 and
# dist = inf keep out of every minimum.

# ------------------------------------------------------------------------------------------------------- rows


@inner
def _least_but(c, ends, i, v, columns, k):  # type: ignore[no-untyped-def]
    """min over j of c_ij - v_j, column k left out."""
    low, out, at = w.fill(np.inf), w.fill(np.inf), w.fill_index(k)
    for j in range(0, columns, 8):
        cost = w.load(c, i * columns + j) if j + 8 <= columns else w.load(ends, i * 8)
        h = w.subtract(cost, w.load(v, j))
        low = w.least(low, w.choose(w.same(w.add(w.lanes(), w.fill_index(j)), at), out, h))
    return w.least_of(low)


@inner
def _two_minima(c, ends, i, v, columns):  # type: ignore[no-untyped-def]
    """The least c_ij - v_j, its column, and the least over the other columns (inf: none)."""
    low, second, at = w.fill(np.inf), w.fill(np.inf), w.fill_index(0)
    for j in range(0, columns, 8):
        cost = w.load(c, i * columns + j) if j + 8 <= columns else w.load(ends, i * 8)
        h = w.subtract(cost, w.load(v, j))
        at = w.choose(w.less(h, low), w.fill_index(j), at)
        second = w.least(second, w.greatest(low, h))
        low = w.least(low, h)
    best = w.least_of(low)
    winners = w.same(low, w.fill(best))
    several = np.int64(w.bits(winners))  # more than one lane has it: then it is the second, too
    j = w.first_of(winners, w.add(at, w.lanes()))
    others = w.least_of(w.choose(winners, second, low))
    return best, j, best if several & (several - 1) else others


@inner
def _relax(c, ends, i, h, v, dist, pred, columns):  # type: ignore[no-untyped-def]
    """A step of Dijkstra's algorithm: dist_j <- min(dist_j, c_ij - v_j + h). The least distance, its column.

    Columns that are done have v_j = -inf and dist_j = inf: they stay out without a branch."""
    low, at = w.fill(np.inf), w.fill_index(0)
    shift, by = w.fill(h), w.fill_index(i)
    for j in range(0, columns, 8):
        cost = w.load(c, i * columns + j) if j + 8 <= columns else w.load(ends, i * 8)
        old = w.load(dist, j)
        new = w.add(w.subtract(cost, w.load(v, j)), shift)
        w.store(pred, j, w.choose(w.less(new, old), by, w.load(pred, j)))
        new = w.least(new, old)
        w.store(dist, j, new)
        at = w.choose(w.less(new, low), w.fill_index(j), at)
        low = w.least(low, new)
    best = w.least_of(low)
    return best, w.first_of(w.same(low, w.fill(best)), w.add(at, w.lanes()))


# ----------------------------------------------------------------------------------------------- the matching


@inner
def _column_minima(c, ends, i, v, pred, columns):  # type: ignore[no-untyped-def]
    """v <- min(v, row i), pred the rows of the minima. False where a cost is not one: NaN, -inf, huge."""
    by, huge, forbidden = w.fill_index(i), w.fill(_HUGE), w.fill(np.inf)
    sound = w.same(by, by)
    for j in range(0, columns, 8):
        cost = w.load(c, i * columns + j) if j + 8 <= columns else w.load(ends, i * 8)
        sound = w.both(sound, w.either(w.less(w.size(cost), huge), w.same(cost, forbidden)))
        old = w.load(v, j)
        lower = w.less(cost, old)
        w.store(pred, j, w.choose(lower, by, w.load(pred, j)))
        w.store(v, j, w.choose(lower, cost, old))
    return w.every(sound)


@inner
def _reduce(c, ends, rows, columns, v, pred, row_of, col_of, free):  # type: ignore[no-untyped-def]
    """Column reduction and reduction transfer (R = K). Number of free rows; -1 infeasible."""
    for j in range(columns - 1, -1, -1):
        if v[j] == np.inf:
            return -1
        i = pred[j]
        if col_of[i] == -1:
            col_of[i], row_of[j] = j, i
        elif col_of[i] >= 0:
            col_of[i] = -2 - col_of[i]  # more than one column has its minimum in row i
    count = 0
    for i in range(rows):
        j = col_of[i]
        if j == -1:
            free[count] = i
            count += 1
        elif j < -1:
            col_of[i] = -2 - j
        else:
            # Row i is tight on j alone: v_j may fall until the row is tight on its second column also.
            low = _least_but(c, ends, i, v, columns, j)
            v[j] -= low if low < np.inf else 0.0
    return count


@inner
def _reduce_rows(c, ends, columns, v, row_of, col_of, free, count):  # type: ignore[no-untyped-def]
    """One pass of augmenting row reduction. Number of rows still free; -1 infeasible.

    A displaced row waits for the next pass: chasing it at once, as the paper does, ends in long price wars
    about the last columns, where a shortest path is cheaper (measured: two to three times at n = 200)."""
    left = 0
    for k in range(count):
        i = free[k]
        low, j, second = _two_minima(c, ends, i, v, columns)
        if low == np.inf:
            return -1
        other = row_of[j]
        lowered = v[j] - (second - low)
        if second == np.inf:
            # No other column: the price v_j would be -inf. The path phase settles it.
            free[left] = i
            left += 1
            continue
        if lowered < v[j]:
            v[j] = lowered
        elif other >= 0:
            # A tie: prefer a column that nobody has; where all are taken, leave the row for a path.
            while j < columns and (row_of[j] >= 0 or c[i * columns + j] - v[j] != low):
                j += 1
            if j == columns:
                free[left] = i
                left += 1
                continue
            other = -1
        col_of[i], row_of[j] = j, i
        if other >= 0:
            col_of[other] = -1
            free[left] = other
            left += 1
    return left


@inner
def _augment(c, ends, start, columns, v, work, dist, final, pred, row_of, col_of, done, empty, count):  # type: ignore[no-untyped-def]
    """A shortest augmenting path from the free row ``start``. The column it ends in; -1 infeasible.

    ``empty``: the ``count`` columns without a row. v_j += dist_j - end keeps d >= 0 and the paths tight."""
    for j in range(len(dist)):
        dist[j], work[j] = np.inf, v[j]
    i, h, reached, last = start, 0.0, 0, -np.inf
    while True:
        best, j = _relax(c, ends, i, h, work, dist, pred, columns)
        if best == np.inf:
            return -1
        if best == last:
            # Ties in distance: one of them may be the end already.
            for k in range(count):
                if dist[empty[k]] == best:
                    j = empty[k]
                    break
        i = row_of[j]
        if i < 0:
            break
        done[reached], final[reached] = j, best
        reached += 1
        dist[j], work[j] = np.inf, -np.inf
        h = best - (c[i * columns + j] - v[j])
        last = best
    for k in range(reached):
        v[done[k]] += final[k] - best
    end = j
    while True:
        i = pred[j]
        row_of[j] = i
        col_of[i], j = j, col_of[i]
        if i == start:
            return end


@inner
def _match_rest(c, ends, columns, v, work, dist, final, pred, row_of, col_of, done, empty, free, count):  # type: ignore[no-untyped-def]
    """Augment from each of the ``count`` free rows. False: infeasible."""
    left = np.int64(0)  # not a literal: `_augment` would be compiled for it, and again for the rest
    for j in range(columns):
        if row_of[j] < 0:
            empty[left] = j
            left += 1
    for k in range(count):
        i = free[k]
        end = _augment(c, ends, i, columns, v, work, dist, final, pred, row_of, col_of, done, empty, left)
        if end < 0:
            return False
        left -= 1
        for e in range(left):
            if empty[e] == end:
                empty[e] = empty[left]
                break
    return True


# --------------------------------------------------------------------------------------------------- the tree
#
# After the matching (u, v) is optimal, but not yet basic. Contract every matched pair to a node; the arc s
# -> t costs d(i_s, k_t) >= 0. Moving node t by p_t (v += p, u -= p on its pair) keeps the matched pairs
# tight and makes d'(s, t) = d(s, t) + p_s - p_t. With p the distances from a root, d' >= 0 by the triangle
# inequality, and d' = 0 along the tree of shortest paths.
#
# R = K: the 2R rows have rank 2R - 1. From the node of the last column: its R - 1 tree arcs and the R
# matched pairs are 2R - 1 tight basic columns, and the logical of the last row, y = 0, is basic too.
#
# R < K: the root stands for the logicals of the column rows: an arc root -> t of length -v_t, for v_t + p_t
# <= 0, and p >= 0 keeps d(s, k) >= 0 on unmatched columns k, where v_k = 0. Every node is reached, and
# enters by a tight pair or by the logical of its own column (v_t = 0 now): R of those, R matched pairs and
# the logicals of the K - R unmatched columns are R + K basics.
#
# Forbidden pairs (R = K) can leave a set S without an arc from the tree T. Then S moves as one, by the
# largest p_t - d(s, t) over arcs S -> T: one of them becomes tight, none is violated, and Dijkstra goes on
# from its s. No arc either way: S holds components of its own, and the last column of S is the root of one.
#
# Potentials are read off the tree by substitution, v_k = c_ik - u_i and u_i = c_ik - v_k: they solve B'y =
# c_B to rounding whatever errors v gathered in the search, and exactly where the costs are integers.


@inner
def _tree(c, ends, rows, columns, u, v, work, dist, pred, row_of, order, room, gate):  # type: ignore[no-untyped-def]
    """Write basic potentials to (u, v); ``work`` holds optimal ones of the columns, and is used up."""
    square, flat, level = rows == columns, False, 0
    for j in range(len(dist)):
        dist[j] = np.inf
    count, seen, base, tied, j = 0, 0, 0.0, 0.0, columns - 1
    if not square:
        for j in range(columns):
            pred[j], v[j] = -1, 0.0
            if row_of[j] < 0:
                work[j] = -np.inf
            else:
                dist[j] = -work[j]
        # h = inf changes no distance: this looks for the nearest column.
        base, j = _relax(c, ends, np.int64(0), np.inf, work, dist, pred, columns)
    while True:
        # Column j enters with its final potential ``tied``; its old one, in work, still gives distances.
        i = row_of[j]
        h = base - (c[i * columns + j] - work[j])
        u[i] = c[i * columns + j] - tied
        v[j] = tied
        order[count] = j
        count += 1
        if count == rows:
            return
        dist[j], work[j] = np.inf, -np.inf
        last = base
        if not flat:
            base, j = _relax(c, ends, i, h, work, dist, pred, columns)
        if base == last:
            # Ties: where all that is left is as near as this, no row need be looked at any more. Columns
            # before level are done or as near as this; they are done before the distance grows.
            while level < columns and (work[level] == -np.inf or (not flat and dist[level] == base)):
                level += 1
            if level == columns:
                flat, level = True, 0
                while work[level] == -np.inf:
                    level += 1
            j = level if flat else j
        if base < np.inf:
            s = pred[j]
            # Rounding may lift v above 0: then the column's own logical ties it.
            tied = 0.0 if s < 0 else c[s * columns + j] - u[s]
            tied = tied if square else min(tied, 0.0)
            continue
        if seen == 0:
            for i in range(rows):
                room[i] = np.inf
        # room_i: the largest u_i that all columns of T allow; gate_i: the column that sets it.
        for k in range(seen, count):
            t = order[k]
            for i in range(rows):
                slack = c[i * columns + t] - v[t]
                if slack < room[i]:
                    room[i], gate[i] = slack, t
        seen = count
        base, shift, j = 0.0, -np.inf, -1
        for k in range(columns):
            if work[k] > -np.inf:
                i = row_of[k]
                need = c[i * columns + k] - work[k] - room[i]
                if need > shift or (need == -np.inf and shift == -np.inf):
                    shift, j = need, k
        i = row_of[j]
        tied = 0.0 if shift == -np.inf else c[i * columns + j] - (c[i * columns + gate[i]] - v[gate[i]])


# ---------------------------------------------------------------------------------------------------- kernels


@kernel([(F2, SIZE, SIZE, SIZE, SIZE, I2W, F2W, F2W, S1W)])
def solve(cost, rows, columns, start, stop, match, u, v, status):  # type: ignore[no-untyped-def]
    """Items ``start`` to ``stop``: an optimal matching and optimal duals, which need not be basic.

    cost (1|B, R*K) row-major; match (B, R) the column of each row; u (B, R), v (B, K); status (B,): 0, 1
    where the forbidden pairs admit no matching, 7 where a cost is NaN, -inf or beyond 1e100. Without a
    matching: match = -1, u = v = NaN.
    """
    width = (columns + 7) // 8 * 8
    price, work, dist = np.empty(width), np.empty(width), np.empty(width)
    final, ends = np.empty(columns), np.empty(rows * 8)
    pred, row_of, col_of = np.empty(width, np.int64), np.empty(columns, np.int64), np.empty(rows, np.int64)
    free, done, empty = np.empty(rows, np.int64), np.empty(columns, np.int64), np.empty(columns, np.int64)
    for j in range(rows * 8):
        ends[j] = np.inf
    for item in range(start, stop):
        c = cost[item if cost.shape[0] > 1 else 0]
        for j in range(width):
            price[j], pred[j] = np.inf, 0
        for j in range(columns):
            row_of[j] = -1
        for i in range(rows):
            free[i], col_of[i] = i, -1
            for j in range(width - 8, columns if width > columns else 0):
                ends[i * 8 + j - width + 8] = c[i * columns + j]
        sound = True
        for i in range(rows):  # a loop of its own: ends are read as vectors, once they are written
            sound &= _column_minima(c, ends, i, price, pred, columns)
        count = rows
        square = rows == columns and sound
        for j in range(columns if square else 0, width):
            price[j] = 0.0
        if square:
            count = _reduce(c, ends, rows, columns, price, pred, row_of, col_of, free)
        if sound:
            for _ in range(_PASSES):
                if count > 0:
                    count = _reduce_rows(c, ends, columns, price, row_of, col_of, free, count)
            if count > 0 and not _match_rest(
                c, ends, columns, price, work, dist, final, pred, row_of, col_of, done, empty, free, count
            ):
                count = -1
        solved = sound and count >= 0
        status[item] = 0 if solved else 1 if sound else 7
        for i in range(rows):
            j = col_of[i] if solved else -1
            match[item, i] = j
            u[item, i] = c[i * columns + j] - price[j] if j >= 0 else np.nan
        for j in range(columns):
            v[item, j] = price[j] if solved else np.nan


@kernel([(F2, SIZE, SIZE, SIZE, SIZE, I2, F2W, F2W, B1)])
def stand(cost, rows, columns, start, stop, match, u, v, done):  # type: ignore[no-untyped-def]
    """Make optimal duals basic, for items ``start`` to ``stop`` that are not done: see the tree, above.

    cost, match, u, v as above; done (B,). A match that is none leaves its item as it is.
    """
    width = (columns + 7) // 8 * 8
    work, dist, pred = np.empty(width), np.empty(width), np.empty(width, np.int64)
    ends, room, gate = np.empty(rows * 8), np.empty(rows), np.empty(rows, np.int64)
    row_of, order = np.empty(columns, np.int64), np.empty(columns, np.int64)
    for j in range(rows * 8):
        ends[j] = np.inf
    for item in range(start, stop):
        if done[item]:
            continue
        c = cost[item if cost.shape[0] > 1 else 0]
        for j in range(width):
            work[j], pred[j] = v[item, j] if j < columns else 0.0, 0
        for j in range(columns):
            row_of[j] = -1
        proper = True
        for i in range(rows):
            k = match[item, i]
            proper &= 0 <= k < columns and row_of[k] < 0 and abs(c[i * columns + k]) < np.inf
            if proper:
                row_of[k] = i
            for j in range(width - 8, columns if width > columns else 0):
                ends[i * 8 + j - width + 8] = c[i * columns + j]
        if not proper:
            continue
        _tree(c, ends, rows, columns, u[item], v[item], work, dist, pred, row_of, order, room, gate)
