"""Structure: the blocks that a program falls into, and what each of them is.

Rows that share a column belong together: the connected components of the row-column graph are separate
programs. A component is

- *separable*, where its one column has no entry (all of them make one block);
- a *selection*, where it has one row, whatever the coefficients;
- a *network*, where it is one up to scales and signs of rows and columns (see `lpdiff.network`);
- *general* otherwise, and `Block.why` says what is in the way.

Equal components make one block: a batch. Structure is of A alone, stored zeros counting as absent; what the
sides and bounds make of it is for `lpdiff.fitting`, per batch. `lpdiff.recognition` finds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from .fitting import Roles, obstacle, single_path, unit_assignment
from .network import Network

__all__ = ["Block", "Form", "Kind", "Structure"]

Kind = Literal["selection", "network", "general", "separable", "empty rows"]


class Form(Protocol):
    """What recognition reads of a `StandardForm`."""

    @property
    def m(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def indptr(self) -> np.ndarray: ...
    @property
    def indices(self) -> np.ndarray: ...
    @property
    def integrality(self) -> np.ndarray: ...
    def name_of_variable(self, j: int) -> str: ...
    def name_of_row(self, i: int) -> str: ...


@dataclass(frozen=True, eq=False)
class Block:
    """k equal programs: copy t has the given columns and rows of the whole, in ascending order."""

    kind: Kind
    columns: np.ndarray  # (k, n_local) int32
    rows: np.ndarray  # (k, m_local) int32
    components: int  # k, or more where different ones are taken together (then k = 1)
    network: Network | None = None  # that of every copy
    why: str = ""  # general: what is in the way of a network
    integers: bool = False  # whether a variable is an integer
    whole: bool = False  # one copy, of all rows and columns in their order

    @property
    def copies(self) -> int:
        return len(self.columns)


@dataclass(frozen=True, eq=False)
class Structure:
    """The blocks of a program; every row and every column is in exactly one copy of one block."""

    form: Form = field(repr=False)
    components: int  # with at least one row and one column
    blocks: tuple[Block, ...]
    entries: int  # without stored zeros
    # Where zeros are stored: indptr without them (n + 1,), and the positions of the other entries; int32.
    stored: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)
    # The declared row_lower, row_upper (m,), lower, upper (n,).
    sides: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def m(self) -> int:
        return self.form.m

    @property
    def n(self) -> int:
        return self.form.n

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(block.kind for block in self.blocks)

    def positions(self, block: Block) -> np.ndarray:
        """Where each copy's entries lie in the program's values, in column order; (k, nnz_local) int32.

        Stored zeros are left out: they may differ from copy to copy, and lie between blocks.
        """
        indptr, stored = (self.form.indptr, None) if self.stored is None else self.stored
        if block.whole:
            return (np.arange(indptr[-1], dtype=np.int32) if stored is None else stored)[None]
        starts, ends = indptr[block.columns].ravel(), indptr[block.columns + 1].ravel()
        before = np.cumsum(ends - starts) - (ends - starts)
        positions = np.repeat(starts - before, ends - starts) + np.arange(np.sum(ends - starts))
        positions = positions if stored is None else stored[positions]
        return positions.astype(np.int32).reshape(block.copies, -1)

    def __str__(self) -> str:
        head = f"{_count(self.m, 'row')}, {_count(self.n, 'column')}, {_count(self.entries, 'entry')}: "
        head += _count(self.components, "component")
        return "\n".join([head, *(f"  {self._describe(block)}" for block in self.blocks)])

    # What a block is, in a line.

    def _describe(self, block: Block) -> str:
        columns, rows = block.columns.shape[1], block.rows.shape[1]
        if block.kind == "separable":
            return f"separable: {_count(columns, 'column')} without entries"
        if block.kind == "empty rows":
            return f"empty rows: {_count(rows, 'row')} without entries"
        if block.copies > 1:
            lead = f"{block.copies:,} equal components, each {block.kind}: "
        elif block.components > 1:
            lead = f"{block.components:,} components taken together, {block.kind}: "
        else:
            lead = f"{block.kind}: "
        if block.kind == "selection":
            text = f"one row, {_count(columns, 'column')}"
        elif block.network is not None:
            text = self._describe_network(block, block.network)
        else:
            text = f"{_count(rows, 'row')}, {_count(columns, 'column')}; not a network: {block.why}"
        return lead + text + ("; with integer variables" if block.integers else "")

    def _describe_network(self, block: Block, network: Network) -> str:
        changes = [
            name
            for name, changed in (
                ("signs of rows", network.flipped),
                ("scales of rows", not network.unit_rows),
                ("scales of columns", not network.unit_columns),
            )
            if changed
        ]
        parts = ["node-arc incidence" + (f" up to {' and '.join(changes)}" if changes else "")]
        ground = " (one the ground)" if network.grounded else ""
        parts.append(f"{_count(network.nodes, 'node')}{ground}, {_count(network.n, 'arc')}")
        pairs = network.bipartite
        if pairs is not None:
            shape = " x ".join(f"{size:,}" for size in pairs.shape)
            filled = "all pairs" if pairs.dense else "parallel arcs" if pairs.duplicates else "some pairs"
            parts.append(f"bipartite {shape} ({filled})")
        elif network.cycle is None:
            parts.append("acyclic")
        else:
            parts.append(f"a cycle through {self._node(block, network.cycle)}")
        return ", ".join(parts) + self._declared(block, network)

    def _declared(self, block: Block, network: Network) -> str:
        """What the declared sides and bounds make of the network."""
        if self.sides is None or block.components != block.copies:
            return ""
        row_lower, row_upper, lower, upper = self.sides
        rows, columns = block.rows, block.columns
        if block.whole:
            data = row_lower[None], row_upper[None], lower[None], upper[None]
        else:
            data = row_lower[rows], row_upper[rows], lower[columns], upper[columns]
        assignment, path = unit_assignment(network, *data), single_path(network, *data)
        found = []
        roles = assignment.roles
        for fits, name in (
            (roles == Roles.SQUARE, "a square assignment"),
            ((roles == Roles.TAILS) | (roles == Roles.HEADS), "a rectangular assignment"),
            (roles == Roles.PARTIAL, "a partial assignment"),
            (path.fits & ~assignment.fits, "one path"),
        ):
            if fits.any():
                part = "" if block.copies == 1 else "each " if fits.all() else f"{fits.sum():,} of them "
                found.append(part + name)
        if block.copies == 1 and path.fits[0] and not assignment.fits[0]:
            found[-1] += f" from {self._node(block, path.source[0])} to {self._node(block, path.sink[0])}"
        if not found:
            why = obstacle(network, *(array[:1] for array in data))
            found.append("a minimum-cost flow" + (f" ({why})" if why else ""))
        return "; as declared " + ", ".join(found)

    def _node(self, block: Block, node: int) -> str:
        if node == block.rows.shape[1]:
            return "the ground"
        return self.form.name_of_row(int(block.rows[0, node]))


def _count(number: int, noun: str) -> str:
    plural = noun if number == 1 else f"{noun[:-1]}ies" if noun == "entry" else f"{noun}s"
    return f"{number:,} {plural}"
