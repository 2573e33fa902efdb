"""Standard form: what every backend solves, and the only place that knows min from max.

    min c'x   s.t.   rl <= A x <= ru,   l <= x <= u          (A: m x n, a fixed sparsity pattern)

A maximisation max c'x is solved as min (-c)'x; then  z = -z~,  y = -y~,  d = -d~,  x = x~  (y = dz/db
and d = c - A'y hold for both senses in the user's signs). ``to_min`` is that sign, and nothing else in
the library flips one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["Data", "StandardForm", "oriented", "same_matrix"]

FIELDS = ("c", "values", "row_lower", "row_upper", "lower", "upper")


def oriented(array: Any, sign: float) -> Any:
    """The array for a minimisation, its negative for a maximisation; see ``StandardForm.to_min``."""
    return array if sign > 0 else 0.0 - array  # not -array: no negative zeros


@dataclass(frozen=True, eq=False)
class StandardForm:
    """Sizes, pattern and sense of a program; the numbers come separately, as ``Data``.

    The stored entries of A are kept in compressed-column order: entry k lies at
    ``(rows[k], cols[k])``, columns ascending and rows ascending within a column.
    """

    shape: tuple[int, int]
    indptr: np.ndarray  # (n + 1,) int32
    indices: np.ndarray  # (nnz,) int32
    integrality: np.ndarray  # (n,) bool
    sign: float  # +1 min, -1 max
    declared: Data  # the declared numbers, (1, k), in the sense of min; costs of zero where none are
    has_costs: bool  # whether costs were declared
    variable_names: tuple[str, ...] | None = None
    row_names: tuple[str, ...] | None = None
    derived: dict[str, Any] = field(default_factory=dict, repr=False)  # what was found about it, by name

    @property
    def m(self) -> int:
        return self.shape[0]

    @property
    def n(self) -> int:
        return self.shape[1]

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @cached_property
    def is_mip(self) -> bool:
        return bool(self.integrality.any())

    def same_as(self, other: StandardForm) -> bool:
        """Whether both are one form: sizes, pattern, integrality, sense and names."""
        return self is other or (
            self.shape == other.shape
            and self.sign == other.sign
            and self.variable_names == other.variable_names
            and self.row_names == other.row_names
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.integrality, other.integrality)
        )

    def to_min(self, array: Any) -> Any:
        """Flip between the user's signs and the standard form's: its own inverse.

        Applies to c, the objective value, y, d and nothing else. NumPy arrays or torch tensors.
        """
        return oriented(array, self.sign)

    @property
    def rows(self) -> np.ndarray:  # (nnz,)
        return self.indices

    @cached_property
    def cols(self) -> np.ndarray:  # (nnz,)
        return np.repeat(np.arange(self.n, dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Permutation to compressed-row order, and its indptr and column indices."""
        order = np.argsort(self.indices, kind="stable")
        counts = np.bincount(self.indices, minlength=self.m)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return order, indptr, self.cols[order]

    def name_of_variable(self, j: int) -> str:
        return f"'{self.variable_names[j]}'" if self.variable_names else f"x[{j}]"

    def name_of_row(self, i: int) -> str:
        return f"'{self.row_names[i]}'" if self.row_names else f"row {i}"

    def matrix(self, values: np.ndarray) -> sp.csc_array:
        """A as a SciPy matrix; values: (nnz,)."""
        return sp.csc_array((values, self.indices, self.indptr), shape=self.shape)

    # Batched products. One CSR product serves a shared A; otherwise the block-diagonal one. Each item's
    # sums run in the same order either way, so an item's bits do not depend on its batch.

    def times(self, values: np.ndarray, x: np.ndarray) -> np.ndarray:
        """A x per item; values: (1|B, nnz), x: (B, n) -> (B, m)."""
        order, indptr, columns = self._by_row
        return _product(indptr, columns, values[:, order], x, self.m)

    def transposed_times(self, values: np.ndarray, y: np.ndarray) -> np.ndarray:
        """A'y per item; values: (1|B, nnz), y: (B, m) -> (B, n)."""
        return _product(self.indptr, self.indices, values, y, self.n)


def _product(
    indptr: np.ndarray, indices: np.ndarray, values: np.ndarray, x: np.ndarray, size: int
) -> np.ndarray:
    batch, width = x.shape
    if batch == 0 or size == 0 or width == 0:
        return np.zeros((batch, size))
    if len(values) == 1:
        matrix = sp.csr_array((values[0], indices, indptr), shape=(size, width))
        return np.ascontiguousarray((matrix @ x.T).T)
    nnz = values.shape[1]
    item = np.arange(batch, dtype=np.int64)[:, None]
    blocks = sp.csr_array(
        (
            np.broadcast_to(values, (batch, nnz)).ravel(),
            (indices + item * width).ravel(),
            np.append((indptr[:-1] + item * nnz).ravel(), batch * nnz),
        ),
        shape=(batch * size, batch * width),
    )
    return (blocks @ x.ravel()).reshape(batch, size)


@dataclass(frozen=True, eq=False)
class Data:
    """The numbers of a batch of LPs of one form, float64, C-contiguous, in the sense of min.

    Every field has a leading batch dimension: B, or 1 where all items share it.
    """

    c: np.ndarray  # (1|B, n)
    values: np.ndarray  # (1|B, nnz)
    row_lower: np.ndarray  # (1|B, m)
    row_upper: np.ndarray  # (1|B, m)
    lower: np.ndarray  # (1|B, n)
    upper: np.ndarray  # (1|B, n)

    size: int = field(init=False)  # B; 1 where all is shared

    def __post_init__(self) -> None:
        size = 1
        for array in (self.c, self.values, self.row_lower, self.row_upper, self.lower, self.upper):
            if len(array) != size:
                if size != 1 and len(array) != 1:
                    sizes = sorted({len(getattr(self, name)) for name in FIELDS} - {1})
                    raise ValueError(f"batch sizes of the LP data differ: {sizes}")
                size = len(array) if size == 1 else size
        object.__setattr__(self, "size", size)

    def with_costs(self, c: np.ndarray) -> Data:
        """One LP's numbers, all (1, k), with the costs of a batch, (B, n): nothing to check again."""
        new = object.__new__(Data)
        new.__dict__.update(self.__dict__, c=c, size=len(c))
        return new

    def item(self, i: int) -> tuple[np.ndarray, ...]:
        """Views of the fields of item i, in the order of ``FIELDS``."""
        return tuple(array[i if len(array) > 1 else 0] for array in (getattr(self, name) for name in FIELDS))

    def take(self, items: Sequence[int] | np.ndarray | slice) -> Data:
        """The batch of the given items (a slice, or an index or boolean array)."""
        return Data(
            *(array[items] if len(array) > 1 else array for array in (getattr(self, name) for name in FIELDS))
        )

    @property
    def shared(self) -> bool:
        """Whether every field is shared, so that the batch is one LP."""
        return all(len(getattr(self, name)) == 1 for name in FIELDS)


def same_matrix(form: StandardForm, data: Data) -> bool:
    """Whether the entries of A are the declared ones, in which structure was recognised."""
    declared = form.declared.values
    return data.values is declared or bool(len(data.values) == 1 and np.array_equal(data.values, declared))
