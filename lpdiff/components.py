"""Separate problems: a program that falls into blocks is solved block by block, equal blocks as a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .backend import AbstractBackend, BatchSolution, Capabilities, Certified
from .engine import Plan
from .recognition import structure_of
from .standard import FIELDS, Data, StandardForm, same_matrix
from .status import Status
from .structure import Block, Structure

__all__ = ["Components"]

_BY_COLUMN = ("c", "lower", "upper")


@dataclass(frozen=True)
class Components(AbstractBackend):
    """One plan a block of the program, made by ``plan_block``; what any block fails at is handed on whole."""

    plan_block: Callable[[StandardForm], Plan] = field(repr=False)

    name: ClassVar[str] = "components"
    capabilities: ClassVar[Capabilities] = Capabilities(certifies=True)

    def prepare(self, form: StandardForm) -> _State:
        structure = structure_of(form)
        parts = [
            _Part(block, entries, self.plan_block(_form_of(form, block, entries)))
            for block in structure.blocks
            if block.kind != "empty rows"
            for entries in [structure.positions(block)]
        ]
        empty = [block.rows[0] for block in structure.blocks if block.kind == "empty rows"]
        return _State(form, parts, np.concatenate(empty) if empty else np.zeros(0, dtype=np.int32))

    def solve(
        self, state: _State, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        form, size = state.form, data.size
        out = BatchSolution.empty(form, size, basis=False)
        if not same_matrix(form, data):
            # Other entries may join what the declared ones keep apart.
            out.certificate = Certified.empty(size)
            return out
        assert out.y is not None
        out.y[:, state.empty_rows] = 0.0
        judged = Certified(np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size))
        worst = np.zeros(size, dtype=np.int8)
        out.refused = np.zeros(size, dtype=bool)
        bases: list[tuple[_Part, np.ndarray]] = []
        for part in state.parts:
            local = part.data(data)
            columns, rows, copies = part.block.columns, part.block.rows, part.block.copies
            solved = part.plan.solve(local)
            by_item = (size, copies)
            out.x[:, columns] = solved.judged.x.reshape(size, *columns.shape)
            out.y[:, rows] = solved.judged.y.reshape(size, *rows.shape)
            out.refused |= solved.fallbacks.reshape(by_item).any(axis=1)
            out.iterations += solved.iterations.reshape(by_item).sum(axis=1)
            worst = np.maximum(worst, solved.status.reshape(by_item).max(axis=1, initial=0))
            for mine, theirs in ((judged.value, solved.judged.value), (judged.gap, solved.judged.gap)):
                mine += np.where(solved.judged.ok, theirs, 0.0).reshape(by_item).sum(axis=1)
            for mine, theirs in (
                (judged.primal_residual, solved.judged.primal_residual),
                (judged.dual_residual, solved.judged.dual_residual),
            ):
                np.maximum(mine, theirs.reshape(by_item).max(axis=1, initial=0.0), out=mine)
            if solved.basic.shape[1]:
                bases.append((part, solved.basic))
        rows = state.empty_rows
        unmet = (data.row_lower[:, rows] > 0) | (data.row_upper[:, rows] < 0)
        worst = np.maximum(worst, np.where(unmet.any(axis=1), np.int8(Status.INFEASIBLE), np.int8(0)))
        # Whatever failed, the general solver sees the whole and says why.
        out.status[:] = np.where(worst == Status.OPTIMAL, Status.OPTIMAL, Status.INFEASIBLE)
        out.certificate = judged
        if bases:
            # Items with a block whose basis cannot be found on demand; the others wait for that, whatever is
            # known of the items beside them.
            known = np.zeros(size, dtype=bool)
            for part, basic in bases:
                known |= basic.any(axis=1).reshape(size, part.block.copies).any(axis=1)
            items = np.flatnonzero(known & (out.status == Status.OPTIMAL))
            if len(items):
                have = {id(part): basic.reshape(size, part.block.copies, -1)[items] for part, basic in bases}
                out.y[items] = _basic_duals(state, data.take(items), out.x[items], out.y[items], have)
            out.basic = self._bases(state, data, out, known, {id(part): basic for part, basic in bases})
        return out

    def basic_duals(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _basic_duals(state, data, x, y, {})

    def basis(self, state: _State, data: Data, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = BatchSolution.empty(state.form, len(x), basis=False)
        out.x, out.y = x, y
        out.status[:] = Status.OPTIMAL
        return self._bases(state, data, out, np.ones(len(x), dtype=bool), {})

    def _bases(
        self,
        state: _State,
        data: Data,
        out: BatchSolution,
        wanted: np.ndarray,
        known: dict[int, np.ndarray],
    ) -> np.ndarray:
        """Bases of all blocks of the ``wanted`` items, side by side; who lacks one anywhere has none."""
        form, size = state.form, len(out.x)
        assert out.y is not None
        basic = np.zeros((size, form.n + form.m), dtype=bool)
        basic[:, form.n + state.empty_rows] = True
        whole = (out.status == Status.OPTIMAL) & wanted
        for part in state.parts:
            columns, rows = part.block.columns, part.block.rows
            many = size * part.block.copies
            found = known.get(id(part), np.zeros((many, 0), dtype=bool))
            x = out.x[:, columns].reshape(many, columns.shape[1])
            y = out.y[:, rows].reshape(many, rows.shape[1])
            found = part.plan.bases(part.data(data), x, y, np.repeat(whole, part.block.copies), found)
            found = found.reshape(size, part.block.copies, columns.shape[1] + rows.shape[1])
            whole &= (found.sum(axis=2) == rows.shape[1]).all(axis=1)
            basic[:, columns] = found[:, :, : columns.shape[1]]
            basic[:, form.n + rows] = found[:, :, columns.shape[1] :]
        basic[~whole] = False
        return basic


@dataclass(frozen=True, eq=False)
class _Part:
    block: Block
    entries: np.ndarray  # (copies, nnz of one) places among the program's entries
    plan: Plan

    def data(self, data: Data) -> Data:
        """The numbers of this block, (1|B * copies, k): the copies of an item follow each other."""
        places = {"values": self.entries, **dict.fromkeys(_BY_COLUMN, self.block.columns)}
        size, copies = data.size, self.block.copies
        fields = []
        for name in FIELDS:
            mine = getattr(data, name)[:, places.get(name, self.block.rows)]  # (1|B, copies, k)
            if len(mine) == 1 and (copies == 1 or (mine == mine[:, :1]).all()):
                fields.append(np.ascontiguousarray(mine[:, 0]))
                continue
            mine = np.broadcast_to(mine, (size, *mine.shape[1:])).reshape(size * copies, mine.shape[2])
            fields.append(np.ascontiguousarray(mine))
        taken = Data(*fields)
        if taken.size != size * copies:  # all is shared, so is the answer
            taken = Data(np.repeat(taken.c, size * copies, axis=0), *fields[1:])
        return taken


@dataclass(frozen=True, eq=False)
class _State:
    form: StandardForm
    parts: list[_Part]
    empty_rows: np.ndarray  # (k,)


def _basic_duals(
    state: _State, data: Data, x: np.ndarray, y: np.ndarray, known: dict[int, np.ndarray]
) -> np.ndarray:
    """Basic duals block by block; ``known``: bases by part, (B, copies, k), whose duals are theirs."""
    y = y.copy()
    for part in state.parts:
        columns, rows = part.block.columns, part.block.rows
        many = len(x) * part.block.copies
        own_x = x[:, columns].reshape(many, columns.shape[1])
        own_y = y[:, rows].reshape(many, rows.shape[1])
        basic = known[id(part)].reshape(many, -1) if id(part) in known else np.zeros((many, 0), dtype=bool)
        found = part.plan.basic_duals(part.data(data), own_x, own_y, np.ones(many, dtype=bool), basic)
        y[:, rows] = found.reshape(len(x), *rows.shape)
    return y


def _form_of(form: StandardForm, block: Block, entries: np.ndarray) -> StandardForm:
    """The first copy of a block as a program of its own."""
    columns, rows = block.columns[0], block.rows[0]
    place = np.zeros(form.m, dtype=np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    # Stored zeros are left out, or a block would reach into others.
    counts = np.bincount(np.searchsorted(columns, form.cols[entries[0]]), minlength=len(columns))

    def names(of: tuple[str, ...] | None, places: np.ndarray) -> tuple[str, ...] | None:
        return None if of is None else tuple(of[k] for k in places)

    declared = form.declared
    fields: dict[str, Any] = {"values": declared.values[:, entries[0]]}
    fields |= {name: getattr(declared, name)[:, columns] for name in _BY_COLUMN}
    fields |= {name: getattr(declared, name)[:, rows] for name in ("row_lower", "row_upper")}
    local = StandardForm(
        shape=(len(rows), len(columns)),
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        indices=place[form.indices[entries[0]]],
        integrality=form.integrality[columns],
        sign=1.0,  # the numbers are turned already
        declared=Data(**fields),
        has_costs=form.has_costs,
        variable_names=names(form.variable_names, columns),
        row_names=names(form.row_names, rows),
    )
    whole = dataclasses.replace(
        block,
        columns=np.arange(len(columns), dtype=np.int32)[None],
        rows=np.arange(len(rows), dtype=np.int32)[None],
        components=block.components // block.copies,
        whole=True,
    )
    connected = 0 if block.kind == "separable" else whole.components
    local.derived["structure"] = Structure(local, connected, (whole,), entries.shape[1])
    return local
