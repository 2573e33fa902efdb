"""Random LPs with structure, by family: the program, and batches of data for it (tests of the planner)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

import lpdiff

Made = tuple[lpdiff.LinearProgram, dict[str, Any]]
Maker = Callable[[np.random.Generator, int], Made]


def costs(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random costs of one of the kinds that trip algorithms up."""
    kind = rng.choice(["uniform", "ties", "equal", "zero", "negative", "spread", "near", "signed"])
    c = rng.uniform(size=shape)
    if kind == "ties":
        c = rng.integers(0, 3, size=shape).astype(float)
    elif kind == "equal":
        c = np.full(shape, float(rng.normal()))
    elif kind == "zero":
        c = np.zeros(shape)
    elif kind == "negative":
        c = -c
    elif kind == "spread":
        c = 10.0 ** rng.uniform(-6, 6, size=shape)
    elif kind == "near":
        c = 1.0 + 1e-12 * rng.normal(size=shape)
    elif kind == "signed":
        c = rng.normal(size=shape)
    return c


def incidence(tail: np.ndarray, head: np.ndarray, nodes: int) -> sp.csc_array:
    """+1 at tails, -1 at heads; arcs from or to node ``nodes`` (no row) have one entry."""
    n = len(tail)
    rows, cols = np.concatenate([tail, head]), np.tile(np.arange(n), 2)
    signs = np.repeat([1.0, -1.0], n)
    there = rows < nodes
    return sp.csc_array((signs[there], (rows[there], cols[there])), shape=(nodes, n))


def disguised(
    rng: np.random.Generator, matrix: Any, sides: list[np.ndarray], bounds: list[np.ndarray]
) -> Any:
    """The same LP in other units: rows and columns scaled (rows of either sign) and permuted.

    Returns the matrix, the sides, the bounds, and what to multiply costs with (in the new order).
    """
    m, n = matrix.shape
    kind = rng.choice(["plain", "signs", "powers", "real"])
    s, a = np.ones(m), np.ones(n)
    if kind != "plain":
        s = rng.choice([-1.0, 1.0], m)
    if kind == "powers":
        s, a = s * 2.0 ** rng.integers(-3, 4, m), 2.0 ** rng.integers(-3, 4, n)
    elif kind == "real":
        s, a = s * rng.uniform(0.3, 3, m), rng.uniform(0.3, 3, n)
    rows, cols = np.arange(m), np.arange(n)
    if rng.random() < 0.5:
        rows, cols = rng.permutation(m), rng.permutation(n)
    scaled = sp.csc_array(sp.diags_array(s) @ matrix @ sp.diags_array(a))[rows][:, cols]
    lower, upper = sides[0] * s, sides[1] * s
    lower, upper = np.where(s > 0, lower, upper), np.where(s > 0, upper, lower)
    return (
        sp.csc_array(scaled),
        [lower[..., rows], upper[..., rows]],
        [(bound / a)[..., cols] for bound in bounds],
        lambda c: (c * a)[..., cols],
    )


def _program(rng: np.random.Generator, matrix: Any, sides: Any, bounds: Any, batch: int) -> Made:
    m, n = matrix.shape
    row_lower, row_upper = (np.broadcast_to(np.asarray(side, float), m) for side in sides)
    low, high = (np.broadcast_to(np.asarray(bound, float), n) for bound in bounds)
    matrix, (row_lower, row_upper), (low, high), turn = disguised(
        rng, matrix, [row_lower, row_upper], [low, high]
    )
    lp = lpdiff.LinearProgram(
        A=matrix,
        row_lower=row_lower,
        row_upper=row_upper,
        bounds=np.stack([low, high], axis=1),
        sense=str(rng.choice(["min", "max"])),
    )
    return lp, {"c": turn(costs(rng, batch, n))}


def bipartite(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    tail, head = np.meshgrid(np.arange(rows), np.arange(rows, rows + columns), indexing="ij")
    return tail.ravel(), head.ravel()


def assignment(rng: np.random.Generator, batch: int) -> Made:
    """Square, rectangular, partial; pairs missing, or forbidden by bounds."""
    rows, columns = (int(k) for k in rng.integers(1, 8, 2))
    tail, head = bipartite(rows, columns)
    keep = rng.random(len(tail)) < rng.choice([1.0, 0.8, 0.5])
    if len(np.unique(tail[keep])) == rows and len(np.unique(head[keep])) == columns:
        tail, head = tail[keep], head[keep]
    flow = float(rng.choice([1.0, 1.0, 2.5]))
    kind = rng.choice(["equal", "rows", "columns", "partial"])
    least_tail = flow if kind in ("equal", "rows") else 0.0
    least_head = flow if kind in ("equal", "columns") else -np.inf
    upper = np.where(rng.random(len(tail)) < 0.1, 0.0, rng.choice([np.inf, flow, 2 * flow]))
    sides = (
        np.concatenate([np.full(rows, least_tail), np.full(columns, -flow)]),
        np.concatenate([np.full(rows, flow), np.full(columns, -least_head)]),
    )
    matrix = incidence(tail, head, rows + columns)
    return _program(rng, matrix, sides, (0.0, upper), batch)


def alignment(rng: np.random.Generator, batch: int) -> Made:
    n, m = (int(k) for k in rng.integers(1, 7, 2))
    tail, head = grid_arcs(n + 1, m + 1)
    b = np.zeros((n + 1) * (m + 1))
    b[0], b[-1] = 1.0, -1.0
    matrix = incidence(tail, head, len(b))
    if rng.random() < 0.3:  # the last row says nothing new
        matrix, b = matrix[:-1], b[:-1]
    return _program(rng, matrix, (b, b), (0.0, rng.choice([1.0, np.inf])), batch)


def grid_arcs(n: int, m: int, diagonal: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Right, down and diagonal arcs between the n x m nodes of a grid."""
    node = np.arange(n * m).reshape(n, m)
    tails = [node[:, :-1], node[:-1, :]] + ([node[:-1, :-1]] if diagonal else [])
    heads = [node[:, 1:], node[1:, :]] + ([node[1:, 1:]] if diagonal else [])
    return np.concatenate([t.ravel() for t in tails]), np.concatenate([h.ravel() for h in heads])


def path(rng: np.random.Generator, batch: int) -> Made:
    """One flow through a random graph: with cycles or without, arcs forbidden, parts out of reach."""
    nodes = int(rng.integers(2, 12))
    arcs = int(rng.integers(1, 4 * nodes))
    tail, head = rng.integers(0, nodes, (2, arcs))
    if rng.random() < 0.5:
        tail, head = np.minimum(tail, head), np.maximum(tail, head)
    tail, head = tail[tail != head], head[tail != head]
    if len(tail) == 0:
        tail, head = np.array([0]), np.array([1])
    flow = float(rng.choice([1.0, 1.0, 0.3]))
    b = np.zeros(nodes)
    source, sink = (0, nodes - 1) if rng.random() < 0.7 else rng.choice(nodes, 2, replace=False)
    b[source], b[sink] = flow, -flow
    upper = np.where(rng.random(len(tail)) < 0.1, 0.0, rng.choice([np.inf, flow, 2 * flow]))
    return _program(rng, incidence(tail, head, nodes), (b, b), (0.0, upper), batch)


def transport(rng: np.random.Generator, batch: int) -> Made:
    """Marginals that differ from item to item."""
    rows, columns = (int(k) for k in rng.integers(1, 7, 2))
    matrix = incidence(*bipartite(rows, columns), rows + columns)
    supply, demand = rng.uniform(0.1, 1, (batch, rows)), rng.uniform(0.1, 1, (batch, columns))
    demand *= supply.sum(1, keepdims=True) / demand.sum(1, keepdims=True)
    b = np.concatenate([supply, -demand], axis=1)
    lp = lpdiff.LinearProgram(A=matrix, row_lower=b[0], row_upper=b[0])
    return lp, {"c": costs(rng, batch, rows * columns), "row_lower": b, "row_upper": b}


def flow(rng: np.random.Generator, batch: int) -> Made:
    """Capacities, ranges, free arcs, arcs to the ground; now and then without an optimum."""
    nodes = int(rng.integers(1, 10))
    arcs = int(rng.integers(1, 4 * nodes + 1))
    tail, head = rng.integers(0, nodes + 1, (2, arcs))
    keep = tail != head
    if not keep.any():
        return flow(rng, batch)
    tail, head = tail[keep], head[keep]
    matrix = incidence(tail, head, nodes)
    n = len(tail)
    lower = rng.choice([0.0, 0.0, -1.0, -np.inf], n)
    upper = rng.choice([1.0, 2.0, 3.0, np.inf], n)
    inside = np.clip(rng.integers(-1, 3, n), np.maximum(lower, -5), np.minimum(upper, 5))
    b = matrix @ inside
    if rng.random() < 0.1:
        b = b + rng.integers(-2, 3, nodes)
    row_lower = np.where(rng.random(nodes) < 0.7, b, b - rng.integers(0, 3, nodes))
    row_upper = np.where(rng.random(nodes) < 0.7, np.maximum(b, row_lower), np.inf)
    return _program(rng, matrix, (row_lower, row_upper), (lower, upper), batch)


def selection(rng: np.random.Generator, batch: int) -> Made:
    """No row, or one: any coefficients, any sides."""
    n = int(rng.integers(1, 9))
    lower = rng.choice([0.0, 0.0, -1.0, -np.inf], n)
    upper = rng.choice([1.0, 2.0, np.inf], n)
    if rng.random() < 0.3:
        lp = lpdiff.LinearProgram(bounds=np.stack([lower, upper], 1))
        return lp, {"c": costs(rng, batch, n)}
    a = rng.choice([0.0, 1.0, 1.0, -2.0, 0.7], n)
    side = float(a @ np.clip(rng.normal(size=n), np.maximum(lower, -3), np.minimum(upper, 3)))
    row_lower = side if rng.random() < 0.7 else -np.inf
    row_upper = side if row_lower == -np.inf or rng.random() < 0.7 else side + 1
    lp = lpdiff.LinearProgram(
        A=sp.csc_array(a[None]), row_lower=[row_lower], row_upper=[row_upper],
        bounds=np.stack([lower, upper], 1), sense=str(rng.choice(["min", "max"])),
    )  # fmt: skip
    return lp, {"c": costs(rng, batch, n)}


def blocks(rng: np.random.Generator, batch: int) -> Made:
    """Several of the above side by side, some of them several times, and a general one now and then."""
    makers = [assignment, alignment, path, flow, selection]
    parts: list[lpdiff.LinearProgram] = []
    for maker in rng.choice(len(makers), int(rng.integers(1, 4))):
        lp, _ = makers[maker](rng, 1)
        parts += [lp] * int(rng.integers(1, 4))
    if rng.random() < 0.5:
        m, n = int(rng.integers(2, 5)), int(rng.integers(3, 7))
        parts.append(
            lpdiff.LinearProgram(A_ub=rng.uniform(0.5, 2, (m, n)), b_ub=rng.uniform(1, 3, m), bounds=(0, 2))
        )
    rng.shuffle(parts)  # type: ignore[arg-type]
    empty = int(rng.integers(0, 2))
    matrix = sp.csc_array(sp.block_diag([*[p.A for p in parts], sp.csc_array((empty, empty))]))
    row_lower = np.concatenate([*[p.row_lower for p in parts], np.zeros(empty)])
    row_upper = np.concatenate([*[p.row_upper for p in parts], np.ones(empty)])
    low = np.concatenate([*[p.lower for p in parts], np.zeros(empty)])
    high = np.concatenate([*[p.upper for p in parts], np.ones(empty)])
    lp = lpdiff.LinearProgram(
        A=matrix, row_lower=row_lower, row_upper=row_upper, bounds=np.stack([low, high], axis=1)
    )
    return lp, {"c": np.concatenate([costs(rng, batch, p.n) for p in parts] + [np.ones((batch, empty))], 1)}


FAMILIES: dict[str, Maker] = {
    maker.__name__: maker for maker in (assignment, alignment, path, transport, flow, selection, blocks)
}
