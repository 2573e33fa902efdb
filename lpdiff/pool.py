"""Known vertices of one polyhedron, from which LPs that differ in their costs alone are solved.

A pool is learned once, from optima of sample costs (or of the declared ones), and never changes: what it
proposes for an item depends on the item and on the pool, not on the batch, nor on what was solved before.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from .backend import BatchSolution, Certified
from .batch import run_spans, threads_for
from .reading import INFINITY
from .standard import Data, StandardForm
from .status import BasisStatus, Status

__all__ = ["ROWS", "VertexPool", "same_sides", "side_unit"]

# Rows up to which an explicit inverse is worth its memory, and numbers that all inverses may hold.
ROWS = 512
_NUMBERS = 2**23

# A vertex that misses a bound by more than this (relative) is not kept.
_FEASIBLE = 1e-9

_SIDES = ("values", "row_lower", "row_upper", "lower", "upper")
_FREE = 3  # beside BasisStatus: nonbasic at 0


@dataclass(frozen=True, eq=False, repr=False)
class VertexPool:
    """Bases that are feasible for one (A, rows, bounds), with their inverses and their points.

    Variables are the n columns and then the m logicals s = A x, of column -e_i. Points are kept in units in
    which the largest side is not small (see ``_unit``), since the kernel's tolerances are absolute.
    """

    form: StandardForm
    sides: Data  # (1, k) each; its costs mean nothing
    heads: np.ndarray  # (K, m) int32, the basic variables
    places: np.ndarray  # (K, n + m) int8: BasisStatus, or free at 0
    inverses: np.ndarray  # (K, m, m), transposed
    points: np.ndarray  # (K, n + m), in units of ``_unit(sides)``
    seen: np.ndarray  # (K,) int64, how many samples each was optimal for

    def __len__(self) -> int:
        return len(self.heads)

    def __repr__(self) -> str:
        return f"VertexPool({len(self)} vertices of {int(self.seen.sum())} samples)"

    def __eq__(self, other: object) -> bool:
        """Whether both propose the same bits for every item."""
        if not isinstance(other, VertexPool):
            return NotImplemented
        return (
            self.form.same_as(other.form)
            and all(np.array_equal(getattr(self.sides, k), getattr(other.sides, k)) for k in _SIDES)
            and all(
                np.array_equal(getattr(self, f.name), getattr(other, f.name))
                for f in fields(self)
                if f.name not in ("form", "sides")
            )
        )

    def __hash__(self) -> int:
        return hash((self.heads.tobytes(), self.points.tobytes()))

    @classmethod
    def learn(cls, form: StandardForm, data: Data, solution: BatchSolution, size: int = 32) -> VertexPool:
        """The bases that were optimal most often, first seen first among equals.

        Args:
            form: The program.
            data: Samples that share everything but their costs.
            solution: Their optima, with bases; items without are passed over.
            size: Vertices to keep at most. Less where the inverses would take more than 64 MiB; none in
                programs of more than 512 rows, or with integers.

        Raises:
            ValueError: the samples differ in more than their costs, or size < 1.
        """
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        varying = [name for name in _SIDES if len(getattr(data, name)) != 1]
        if varying:
            raise ValueError(f"a pool is of one (A, rows, bounds), but {', '.join(varying)} differ by item")
        n, m = form.n, form.m
        bases: list[_Basis] = []
        seen: list[int] = []
        if not form.is_mip and m <= ROWS and solution.basic is not None:
            size = min(size, max(1, _NUMBERS // max(1, m * m)))
            for first, count in _distinct(form, solution):
                basis = _Basis.of(form, data, solution.x[first], solution.basic[first])
                if basis is not None:
                    bases.append(basis)
                    seen.append(count)
                if len(bases) == size:
                    break

        def stack(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            stacked: np.ndarray = np.zeros((len(bases), *shape), dtype)
            for k, basis in enumerate(bases):
                stacked[k] = getattr(basis, name)
            return stacked

        return cls(
            form=form,
            sides=Data(np.zeros((1, n)), *(getattr(data, name) for name in _SIDES)),
            heads=stack("head", (m,), np.int32),
            places=stack("place", (n + m,), np.int8),
            inverses=stack("inverse", (m, m), np.float64),
            points=stack("point", (n + m,), np.float64),
            seen=np.array(seen, dtype=np.int64),
        )

    def fits(self, data: Data) -> np.ndarray:  # (B,)
        """Which items have the matrix, the rows and the bounds of this pool, to the bit."""
        return same_sides(self.sides, data)

    def propose(self, data: Data, *, threads: int = 1, limit: int | None = None) -> BatchSolution:
        """Optimal vertices, with duals, bases and certificates; ``ERROR`` where another solver must be asked.

        Args:
            data: A batch of the pool's program.
            threads: Threads over the batch.
            limit: Pivots an item may take from the cheapest known vertex, None for 3 m + 50.
        """
        form, size = self.form, data.size
        out = BatchSolution.empty(form, size)
        judged = out.certificate = Certified.empty(size)
        if form.is_mip or not len(self) or not size:
            return out
        from .kernels.duality import certify  # numba takes its time to load
        from .kernels.pool import propose

        assert out.y is not None and out.basic is not None
        by_row, (lower, upper), unit = self._by_row, _bounds(self.sides), _unit(self.sides)
        costs, fits = np.ascontiguousarray(data.c), self.fits(data)
        pivots = 3 * form.m + 50 if limit is None else limit

        def work(start: int, stop: int) -> None:
            propose(
                *(form.indptr, form.indices, self.sides.values[0]),
                *(*by_row, lower / unit, upper / unit, unit, costs),
                *(self._vertices, self.inverses, self.heads, self.places, self.points),
                *(fits, start, stop, pivots),
                *(out.x, out.y, out.basic, out.status, out.iterations),
            )
            certify(
                *(*by_row, lower, upper, costs, start, stop),
                *(out.x, out.y, out.basic, out.status),
                *(judged.value, judged.gap, judged.primal_residual, judged.dual_residual),
            )

        run_spans(size, threads_for(100 * size * (form.n + form.m), threads), work)
        return out

    @cached_property
    def _vertices(self) -> np.ndarray:  # (n, K)
        return np.ascontiguousarray(self.points[:, : self.form.n].T)

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A by rows: where each starts, columns, entries."""
        order, start, columns = self.form._by_row
        return start, columns, self.sides.values[0][order]


def side_unit(data: Data) -> np.ndarray:  # (1|B,)
    """The power of two that brings the largest finite side of an item into [1/2, 1); 1 if all are 0."""
    largest = np.zeros(1)
    for side in (data.row_lower, data.row_upper, data.lower, data.upper):
        size = np.abs(side)
        largest = np.maximum(largest, np.where(size < INFINITY, size, 0.0).max(axis=1, initial=0.0))
    return np.ldexp(1.0, np.frexp(largest)[1])


def _unit(sides: Data) -> float:
    """The unit of a pool's points: small sides are scaled up, but large ones not down (as in scaling.py)."""
    return min(float(side_unit(sides)[0]), 1.0)


def _bounds(sides: Data) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of all n + m variables; what counts as infinite is."""
    both = (
        np.concatenate([sides.lower[0], sides.row_lower[0]]),
        np.concatenate([sides.upper[0], sides.row_upper[0]]),
    )
    return tuple(np.where(np.abs(a) >= INFINITY, np.copysign(np.inf, a), a) for a in both)  # type: ignore[return-value]


def _distinct(form: StandardForm, solution: BatchSolution) -> list[tuple[int, int]]:
    """The first item of each distinct vertex and basis, and how many have it, the most frequent first."""
    assert solution.basic is not None
    items = np.flatnonzero((solution.status == Status.OPTIMAL) & (solution.basic.sum(axis=1) == form.m))
    first: dict[Any, int] = {}
    count: dict[Any, int] = {}
    # One basis has many vertices: nonbasic variables stand at one bound or the other.
    for item in items.tolist():
        x = solution.x[item]
        scale = np.abs(x).max(initial=0.0) or 1.0
        key = np.packbits(solution.basic[item]).tobytes(), ((x / scale).round(6) + 0.0).tobytes()
        first.setdefault(key, item)
        count[key] = count.get(key, 0) + 1
    return sorted(((first[key], count[key]) for key in first), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True, eq=False)
class _Basis:
    head: np.ndarray  # (m,)
    place: np.ndarray  # (n + m,)
    inverse: np.ndarray  # (m, m), transposed
    point: np.ndarray  # (n + m,)

    @classmethod
    def of(cls, form: StandardForm, data: Data, x: np.ndarray, basic: np.ndarray) -> _Basis | None:
        """The basis with its inverse; None if it is singular or not feasible."""
        from .kernels.pool import invert

        n, m = form.n, form.m
        unit = _unit(data)
        lower, upper = (bound / unit for bound in _bounds(data))
        matrix = form.matrix(data.values[0])
        point = np.concatenate([x, matrix @ x]) / unit
        place = np.full(n + m, _FREE)
        at_upper = np.abs(point - upper) < np.abs(point - lower)
        place[np.isfinite(lower) & ~at_upper] = BasisStatus.LOWER
        place[np.isfinite(upper) & at_upper] = BasisStatus.UPPER
        place[basic] = BasisStatus.BASIC
        point = np.select([place == BasisStatus.LOWER, place == BasisStatus.UPPER], [lower, upper], 0.0)

        head = np.flatnonzero(basic)
        columns, logicals = head[head < n], head[head >= n] - n
        dense = np.zeros((m, m))
        dense[:, : len(columns)] = matrix[:, columns].toarray()
        dense[logicals, len(columns) + np.arange(len(logicals))] = -1.0
        inverse = np.zeros((m, m))
        if not invert(dense, inverse):
            return None
        # Solved from the nonbasic variables, and corrected twice on the original columns.
        for _ in range(3):
            missing = point[n:] - matrix @ point[:n]
            point[head] += (inverse * missing).sum(axis=1)
        allowed = _FEASIBLE * (1 + np.abs(point))
        if not ((point >= lower - allowed) & (point <= upper + allowed)).all():
            return None
        return cls(head, place, np.ascontiguousarray(inverse.T), point)


def same_sides(sides: Data, data: Data) -> np.ndarray:  # (B,)
    """Which items of ``data`` have the matrix, the rows and the bounds of ``sides`` (1, k), to the bit."""
    same = np.ones(data.size, dtype=bool)
    for name in _SIDES:
        ours, theirs = getattr(sides, name), getattr(data, name)
        if ours is not theirs:
            same &= (ours == theirs).all(axis=1)
    return same
