"""Recognition: from a matrix to its `Structure`, in O(nnz), once a program.

1. Components of the row-column graph: union-find over the rows of each column.
2. Networks (components whose columns have at most two entries): signed row scales along a breadth-first
   spanning tree, then every column checked against them to 1e-12. A cycle whose scales do not close is a
   generalised network; one whose signs do not close has no orientation. Where all entries are +-1 or
   powers of two, so are the scales, exactly.
3. Equal components, by a hash and then entry by entry, become the copies of one block.

Only step 1 is done for a program that has no network and no two components of one size, and SciPy does it
unless the matrix is large: such programs never import numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from .network import Network
from .standard import StandardForm
from .status import UnsupportedError
from .structure import Block, Form, Kind, Structure

__all__ = ["recognise", "structure_of"]

BLOCKS = 32  # of a kind; of more different components the small ones are taken together
SMALL = 1 << 18  # entries, up to which SciPy finds the components

KINDS: tuple[Kind, ...] = ("selection", "network", "general")
SELECTION, NETWORK, GENERAL = range(3)


def recognise(
    form: Form,
    values: np.ndarray,
    row_lower: np.ndarray | None = None,
    row_upper: np.ndarray | None = None,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
) -> Structure:
    """The structure of the matrix with the given values, (nnz,).

    The declared sides, (m,) and (n,), are only kept: printed, the structure says what they make of it.
    """
    sides = None
    if row_lower is not None and row_upper is not None and lower is not None and upper is not None:
        sides = (row_lower, row_upper, lower, upper)
    values = np.ascontiguousarray(values, np.float64)
    indptr, indices = (np.ascontiguousarray(array, np.int32) for array in (form.indptr, form.indices))
    entries, stored = values != 0.0, None
    if not entries.all():
        kept = np.flatnonzero(entries).astype(np.int32)
        indptr = np.searchsorted(kept, indptr).astype(np.int32)
        indices, values, stored = indices[kept], values[kept], (indptr, kept)
    parts = _Parts.of(form, indptr, indices, values)
    return Structure(form, parts.count, parts.blocks(), len(indices), stored, sides)


def structure_of(form: StandardForm) -> Structure:
    """The structure of a program as declared; recognised once, and kept with the form.

    Raises:
        UnsupportedError: numba is not installed.
    """
    if "structure" not in form.derived:
        declared = form.declared
        sides = (declared.row_lower[0], declared.row_upper[0], declared.lower[0], declared.upper[0])
        try:
            form.derived["structure"] = recognise(form, declared.values[0], *sides)
        except ImportError as error:
            raise UnsupportedError(
                f"structure is recognised by compiled code: pip install {error.name}"
            ) from error
    return form.derived["structure"]


def _components(indptr: np.ndarray, indices: np.ndarray, m: int) -> tuple[np.ndarray, int]:
    """The component of each row, (m,) int32, numbered by their lowest rows; -1 for a row without entries."""
    if len(indices) == 0:
        return np.full(m, -1, np.int32), 0
    everyone = np.arange(m, dtype=np.int32)
    if len(indices) <= SMALL:
        follows = np.ones(len(indices), bool)  # whether an entry has one above it in its column
        follows[indptr[:-1][np.diff(indptr) > 0]] = False
        k = np.flatnonzero(follows)
        links = sp.coo_array((np.ones(len(k)), (indices[k - 1], indices[k])), shape=(m, m))
        _, raw = csgraph.connected_components(links.tocsr(), directed=False)
        lowest = np.unique(raw, return_index=True)[1][raw]
    else:
        from .kernels import recognise as kernels

        lowest = everyone.copy()
        kernels.unite(indptr, indices, lowest)
    occupied = np.zeros(m, bool)
    occupied[indices] = True
    number = np.cumsum((lowest == everyone) & occupied, dtype=np.int32) - np.int32(1)
    return np.where(occupied, number[lowest], np.int32(-1)), int(number[-1]) + 1


def _grouped(label: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The members of each label 0..count-1, ascending: members[start[c]:start[c + 1]]; int32 both."""
    if count == 1:
        members = np.flatnonzero(label == 0)
    elif (label[1:] >= label[:-1]).all():
        members = np.arange(len(label))[np.count_nonzero(label < 0) :]
    else:
        members = np.argsort(label, kind="stable")[np.count_nonzero(label < 0) :]
    sizes = np.bincount(label + 1, minlength=count + 1)[1:]
    return members.astype(np.int32), np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """Columns as arcs, and what is wrong with the components that are no networks."""

    tail: np.ndarray  # (n,) int32
    head: np.ndarray  # (n,) int32
    row_scale: np.ndarray  # (m,)
    col_scale: np.ndarray  # (n,)
    column: np.ndarray  # (C,) int32, the first column at fault
    fault: np.ndarray  # (C,) int8


@dataclass(frozen=True, eq=False)
class _Parts:
    """A matrix without zeros, sorted into its C components."""

    form: Form
    indptr: np.ndarray  # (n + 1,) int32
    indices: np.ndarray  # (nnz,) int32
    values: np.ndarray  # (nnz,)
    lengths: np.ndarray  # (n,) int32, entries of a column
    label: np.ndarray  # (m,) int32, component of a row
    count: int  # C
    rows: np.ndarray  # (m - empty,) int32, by component
    row_start: np.ndarray  # (C + 1,) int32
    columns: np.ndarray  # (n - empty,) int32, by component
    column_start: np.ndarray  # (C + 1,) int32

    @staticmethod
    def of(form: Form, indptr: np.ndarray, indices: np.ndarray, values: np.ndarray) -> _Parts:
        label, count = _components(indptr, indices, form.m)
        lengths = np.diff(indptr)
        if (lengths > 0).all():
            column_label = label[indices[indptr[:-1]]]
        else:
            column_label = np.full(form.n, -1, np.int32)
            column_label[lengths > 0] = label[indices[indptr[:-1][lengths > 0]]]
        rows, columns = _grouped(label, count), _grouped(column_label, count)
        return _Parts(form, indptr, indices, values, lengths, label, count, *rows, *columns)

    @cached_property
    def widest(self) -> np.ndarray:
        """(C,) entries of the longest column."""
        if self.count == 0:
            return np.zeros(0, np.int32)
        return np.maximum.reduceat(self.lengths[self.columns], self.column_start[:-1])

    @cached_property
    def kinds(self) -> np.ndarray:
        """(C,) int8."""
        selections = np.diff(self.row_start) == 1
        candidates = (self.widest <= 2) & ~selections
        kinds = np.where(selections, SELECTION, GENERAL).astype(np.int8)
        if candidates.any():
            kinds[candidates & (self.scaling.fault == 0)] = NETWORK
        return kinds

    @cached_property
    def scaling(self) -> _Scaling:
        from .kernels import recognise as kernels

        m, n = self.form.m, self.form.n
        pattern = self.indptr, self.indices
        narrow = self.widest <= 2
        candidate = narrow[self.label] & (self.label >= 0)
        start, columns = np.zeros(m + 1, np.int32), np.empty(len(self.indices), np.int32)
        kernels.transpose(*pattern, start, columns)
        scale = np.zeros(m)
        kernels.scales(*pattern, self.values, candidate, start, columns, scale, np.empty(m, np.int32))
        del start, columns
        tail, head = np.empty(n, np.int32), np.empty(n, np.int32)
        ones = bool(((self.values == 1.0) | (self.values == -1.0)).all())
        alpha = np.ones(0 if ones else n)
        column, fault = np.full(self.count, -1, np.int32), np.zeros(self.count, np.int8)
        kernels.arcs(*pattern, self.values, self.label, scale, tail, head, alpha, column, fault)
        if ones or (alpha == 1.0).all():
            alpha = np.broadcast_to(1.0, n)
        return _Scaling(tail, head, scale, alpha, column, fault)

    # Equal components.

    @cached_property
    def model(self) -> np.ndarray:
        """(C,) the first component that each one is equal to; for a selection, has as many columns as."""
        itself = np.arange(self.count, dtype=np.int32)
        if self.count < 2:
            return itself
        sizes = [np.diff(self.column_start), np.diff(self.row_start), self.kinds]
        sizes.append(np.add.reduceat(self.lengths[self.columns], self.column_start[:-1]))
        if len(_classes(sizes)[1]) == self.count:
            return itself
        from .kernels import recognise as kernels

        place = np.zeros(self.form.m, np.int32)
        place[self.rows] = np.arange(len(self.rows)) - np.repeat(self.row_start[:-1], np.diff(self.row_start))
        integer = np.ascontiguousarray(self.form.integrality, bool)
        bits, pattern = self.values.view(np.int64), self.kinds == SELECTION
        members = self.columns, self.column_start
        hashes = np.empty(self.count, np.uint64)
        kernels.signatures(self.indptr, self.indices, *members, bits, place, integer, pattern, hashes)
        order, first = _classes([*sizes, hashes])
        model = np.empty(self.count, np.int32)
        model[order] = np.repeat(order[first], np.diff(np.append(first, self.count)))
        same = np.empty(self.count, bool)
        kernels.equal(self.indptr, self.indices, *members, bits, place, integer, pattern, model, same)
        return np.where(same, model, itself)  # what merely hashes alike stands alone

    # Blocks.

    def blocks(self) -> tuple[Block, ...]:
        found: list[Block] = []
        models, copies = np.unique(self.model, return_counts=True)
        members = np.argsort(self.model, kind="stable")
        ends = np.cumsum(copies)
        weight = copies * np.diff(self.column_start)[models]
        flows = []  # components that are taken together as one network: a selection is one, too
        for kind in (SELECTION, NETWORK, GENERAL):
            which = np.flatnonzero(self.kinds[models] == kind)
            rest = np.zeros(0, np.intp)
            if len(which) > BLOCKS:
                heaviest = np.argsort(-weight[which], kind="stable")
                which, rest = np.sort(which[heaviest[: BLOCKS - 1]]), which[heaviest[BLOCKS - 1 :]]
            found += [self._block(kind, members[ends[g] - copies[g] : ends[g]]) for g in which]
            others = [members[ends[g] - copies[g] : ends[g]] for g in rest]
            if kind == GENERAL and others:
                found.append(self._together(GENERAL, np.concatenate(others)))
            elif others:
                flows += others
            if kind == NETWORK and flows:
                found.append(self._together(NETWORK, np.concatenate(flows)))
        found += self._empty("separable", np.flatnonzero(self.lengths == 0), columns=True)
        found += self._empty("empty rows", np.flatnonzero(self.label < 0), columns=False)
        return tuple(found)

    def _block(self, kind: int, copies: np.ndarray) -> Block:
        """The block of equal components."""
        c = copies[0]
        rows = self.row_start[copies][:, None] + np.arange(self.row_start[c + 1] - self.row_start[c])
        columns = self.column_start[copies][:, None] + np.arange(
            self.column_start[c + 1] - self.column_start[c]
        )
        return self._make(kind, self.columns[columns], self.rows[rows], len(copies), int(c))

    def _together(self, kind: int, components: np.ndarray) -> Block:
        """One block of different components, side by side."""
        chosen = np.zeros(self.count, bool)
        chosen[components] = True
        rows = np.sort(self.rows[np.repeat(chosen, np.diff(self.row_start))])
        columns = np.sort(self.columns[np.repeat(chosen, np.diff(self.column_start))])
        return self._make(kind, columns[None], rows[None], len(components), int(components.min()))

    def _make(self, kind: int, columns: np.ndarray, rows: np.ndarray, components: int, c: int) -> Block:
        whole = rows.shape == (1, self.form.m) and columns.shape == (1, self.form.n)
        return Block(
            KINDS[kind],
            columns,
            rows,
            components,
            network=self._network(columns[0], rows[0], whole) if kind == NETWORK else None,
            why=self._why(c) if kind == GENERAL else "",
            integers=bool(self.form.integrality[columns].any()),
            whole=whole,
        )

    def _network(self, columns: np.ndarray, rows: np.ndarray, whole: bool) -> Network:
        found, m = self.scaling, self.form.m
        if whole:
            return Network(found.tail, found.head, found.row_scale, found.col_scale)
        local = np.zeros(m + 1, np.int32)
        local[rows] = np.arange(len(rows))
        local[m] = len(rows)
        alpha = found.col_scale
        alpha = np.broadcast_to(1.0, len(columns)) if alpha.strides == (0,) else alpha[columns]
        return Network(local[found.tail[columns]], local[found.head[columns]], found.row_scale[rows], alpha)

    def _empty(self, kind: Kind, which: np.ndarray, columns: bool) -> list[Block]:
        if len(which) == 0:
            return []
        some, none = which.astype(np.int32)[None], np.zeros((1, 0), np.int32)
        if columns:
            return [Block(kind, some, none, 0, integers=bool(self.form.integrality[which].any()))]
        return [Block(kind, none, some, 0)]

    # Why a component is no network.

    def _why(self, c: int) -> str:
        name, row = self.form.name_of_variable, self.form.name_of_row
        if self.widest[c] > 2:
            columns = self.columns[self.column_start[c] : self.column_start[c + 1]]
            wide = np.flatnonzero(self.lengths[columns] > 2)
            j = columns[wide[0]]
            more = f" (of {len(columns):,} columns, {len(wide):,} have more than 2)" if len(wide) > 1 else ""
            return f"column {name(int(j))} has {self.lengths[j]} entries{more}"
        from .kernels import recognise as kernels

        j, fault = int(self.scaling.column[c]), self.scaling.fault[c]
        entries = slice(self.indptr[j], self.indptr[j + 1])
        ends = self.indices[entries]
        where = " and ".join(row(int(i)) for i in ends)
        if fault == kernels.FAR:
            return f"the scales that {where} would need are too far apart for float64"
        if fault == kernels.SIGN:
            return (
                f"{where} share column {name(j)}, but the other columns between them ask for the opposite "
                "sign (an odd cycle)"
            )
        scaled = np.abs(self.scaling.row_scale[ends] * self.values[entries])
        return (
            f"the cycle through {where} that column {name(j)} closes has inconsistent scales, with a gain of "
            f"{scaled[0] / scaled[1]:.12g} (a generalised network)"
        )


def _classes(keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """An order that sorts by the keys, and the places in it where one of them changes."""
    order = np.lexsort(keys)
    change = np.ones(len(order), bool)
    change[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
    return order, np.flatnonzero(change)
