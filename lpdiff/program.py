"""LinearProgram: a declared LP. Data only; solving and differentiating happen elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .reading import (
    INFINITY,
    count_variables,
    read_bounds,
    read_integrality,
    read_matrix,
    read_names,
    read_number,
    read_vector,
    stack,
)
from .recognition import structure_of
from .standard import Data, StandardForm, oriented
from .structure import Structure

__all__ = ["INFINITY", "LinearProgram"]


class LinearProgram:
    """A linear program over a fixed sparsity pattern.

        min (or max)  c'x + offset
        subject to    A_ub x <= b_ub,   A_eq x = b_eq,   row_lower <= A x <= row_upper,   l <= x <= u

    The three row blocks are optional and are stacked in this order into ``lp.A`` (m x n). What is
    declared here are defaults: ``lpdiff.solve`` takes any of c, b, the entries of A and the bounds as
    tensors instead. A stored zero of a sparse A belongs to the pattern; a zero of a dense A does not.

    Args:
        c: Costs, shape (n,). May be left out where each solve gives its own.
        A_ub, b_ub: Rows A_ub x <= b_ub. SciPy sparse, NumPy or torch, shape (m_ub, n) and (m_ub,).
        A_eq, b_eq: Rows A_eq x = b_eq.
        bounds: As in ``scipy.optimize.linprog``: one pair (lower, upper) for all variables, a sequence
            of n pairs or an (n, 2) array, or a ``scipy.optimize.Bounds``. None in a pair means
            unbounded on that side. Default (0, None).
        A, row_lower, row_upper: Rows row_lower <= A x <= row_upper; None means unbounded on that side.
        integrality: Booleans, shape (n,) or scalar: which variables must be integers. Integer
            programs offer the value's gradient in c and nothing else.
        sense: ``"min"`` or ``"max"``.
        offset: A constant added to the objective.
        variable_names, row_names: For error messages and for ``sol[name]``; unique.
        name: For printing.

    Attributes:
        A: ``scipy.sparse.csc_array`` (m, n), sorted, read-only.
        rows, cols: Coordinates of the stored entries, (nnz,), in the order of ``A_values``.
        blocks: Slices of the rows of each block: ``{"ub": ..., "eq": ..., "ranged": ...}``.
        plans: Plans that ``solve`` made for this program, by configuration; see ``lpdiff.plan``.

    Raises:
        ValueError: shapes that do not fit, NaN, a lower bound above an upper one. The message names
            the row or the variable.
    """

    def __init__(
        self,
        c: Any = None,
        A_ub: Any = None,
        b_ub: Any = None,
        A_eq: Any = None,
        b_eq: Any = None,
        bounds: Any = (0, None),
        *,
        A: Any = None,
        row_lower: Any = None,
        row_upper: Any = None,
        integrality: Any = None,
        sense: Literal["min", "max"] = "min",
        offset: float = 0.0,
        variable_names: Sequence[str] | None = None,
        row_names: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        if sense not in ("min", "max"):
            raise ValueError(f"sense must be 'min' or 'max', got {sense!r}")
        blocks = {
            "ub": read_matrix("A_ub", A_ub, b_ub=b_ub),
            "eq": read_matrix("A_eq", A_eq, b_eq=b_eq),
            "ranged": read_matrix("A", A, row_lower=row_lower, row_upper=row_upper, optional=True),
        }
        n = count_variables(
            {"A_ub": blocks["ub"], "A_eq": blocks["eq"], "A": blocks["ranged"]},
            c,
            bounds,
            integrality,
            variable_names,
        )
        stacked = [block for block in blocks.values() if block is not None]
        self.A = stack(stacked, n)
        self.blocks: dict[str, slice] = {}
        start = 0
        for key, block in blocks.items():
            size = 0 if block is None else block.shape[0]
            self.blocks[key] = slice(start, start + size)
            start += size
        m = start

        self.c = None if c is None else read_vector("c", c, n, "one cost a variable", costs=True)
        self.row_lower, self.row_upper = np.full(m, -np.inf), np.full(m, np.inf)
        for key, label, side_lower, side_upper in (
            ("ub", "b_ub", None, b_ub),
            ("eq", "b_eq", b_eq, b_eq),
            ("ranged", "row_lower", row_lower, None),
            ("ranged", "row_upper", None, row_upper),
        ):
            rows = self.blocks[key]
            size = rows.stop - rows.start
            for target, side in ((self.row_lower, side_lower), (self.row_upper, side_upper)):
                if side is not None:
                    target[rows] = read_vector(label, side, size, "one number a row")
        self.lower, self.upper = read_bounds(bounds, n)
        self.sense = sense
        self.offset = read_number("offset", offset)
        self.integrality = read_integrality(integrality, n)
        self.variable_names = read_names("variable_names", variable_names, n)
        self.row_names = read_names("row_names", row_names, m)
        self.name = name
        self._check()
        self._freeze()

    # -- shape and pattern -------------------------------------------------------------------------

    @property
    def m(self) -> int:
        """Number of rows."""
        return int(self.A.shape[0])

    @property
    def n(self) -> int:
        """Number of variables."""
        return int(self.A.shape[1])

    @property
    def nnz(self) -> int:
        """Number of stored entries of A."""
        return int(self.A.nnz)

    @property
    def is_mip(self) -> bool:
        """Whether some variable must be an integer."""
        return self.form.is_mip

    @property
    def rows(self) -> np.ndarray:
        """Row of each stored entry, (nnz,), in the order of ``A_values``."""
        return self.form.rows

    @property
    def cols(self) -> np.ndarray:
        """Column of each stored entry, (nnz,), in the order of ``A_values``."""
        return self.form.cols

    def gather(self, matrix: Any) -> Any:
        """The entries of dense matrices at the pattern of A, in the order of ``A_values``.

        Args:
            matrix: NumPy array or torch tensor, (*batch, m, n). Differentiable for torch.

        Returns:
            (*batch, nnz).
        """
        if tuple(matrix.shape[-2:]) != (self.m, self.n):
            raise ValueError(
                f"gather: expected (*batch, m, n) = (*batch, {self.m}, {self.n}), got {tuple(matrix.shape)}"
            )
        # Copies: torch warns of read-only arrays.
        return matrix[..., self.rows.astype(np.int64), self.cols.astype(np.int64)]

    # -- standard form -----------------------------------------------------------------------------

    @cached_property
    def form(self) -> StandardForm:
        """The compiled standard form (sizes, pattern, sense, declared numbers)."""
        sign = 1.0 if self.sense == "min" else -1.0
        costs = np.zeros(self.n) if self.c is None else oriented(self.c, sign)
        fields = (costs, self.A.data, self.row_lower, self.row_upper, self.lower, self.upper)
        declared = Data(*(array[None] for array in fields))
        declared.c.flags.writeable = False
        return StandardForm(
            shape=(self.m, self.n),
            indptr=self.A.indptr,
            indices=self.A.indices,
            integrality=self.integrality,
            sign=sign,
            declared=declared,
            has_costs=self.c is not None,
            variable_names=self.variable_names,
            row_names=self.row_names,
        )

    @property
    def data(self) -> Data:
        """The declared numbers as a batch of one, in the sense of min."""
        self.need_costs()
        return self.form.declared

    def need_costs(self) -> None:
        """Refuse a program that was declared without costs."""
        if self.c is None:
            raise ValueError("this program was declared without costs: pass c=... to solve")

    @property
    def structure(self) -> Structure:
        """What is special about the matrix: separate problems, networks, assignments; print it.

        Recognised once, when it is first asked for; ``solver="auto"`` plans by it.
        """
        return structure_of(self.form)

    # -- being an object ---------------------------------------------------------------------------

    def __setattr__(self, key: str, value: Any) -> None:
        if self.__dict__.get("_frozen"):
            raise AttributeError(
                f"LinearProgram is frozen, so {key!r} cannot be set: declare a new program, or pass "
                f"the numbers to solve"
            )
        super().__setattr__(key, value)

    def __delattr__(self, key: str) -> None:
        raise AttributeError(f"LinearProgram is frozen, so {key!r} cannot be deleted")

    def _freeze(self) -> None:
        for array in (
            *(self.A.data, self.A.indices, self.A.indptr, self.row_lower, self.row_upper),
            *(self.lower, self.upper, self.integrality, *([] if self.c is None else [self.c])),
        ):
            array.flags.writeable = False
        self.plans: dict[Any, Any] = {}
        self.__dict__.pop("form", None)  # its views were made while the arrays could still be written
        _ = self.form  # one a program, even where threads meet it first: plans are told by it
        self.__dict__["_frozen"] = True

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("form", "plans")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        del self.__dict__["_frozen"]
        self._freeze()

    def __repr__(self) -> str:
        title = f"LinearProgram {self.name!r}" if self.name else "LinearProgram"
        lines = [f"{title}: {self.sense}imise, {self.n} variables, {self.m} rows, {self.nnz} entries"]
        lower, upper = np.isfinite(self.row_lower), np.isfinite(self.row_upper)
        equal = lower & upper & (self.row_lower == self.row_upper)
        lines.append(
            "  rows: "
            + _counts(
                {
                    "=": equal,
                    "<=": upper & ~lower,
                    ">=": lower & ~upper,
                    "ranged": lower & upper & ~equal,
                    "free": ~lower & ~upper,
                }
            )
        )
        lower, upper = np.isfinite(self.lower), np.isfinite(self.upper)
        fixed = lower & upper & (self.lower == self.upper)
        lines.append(
            "  variables: "
            + _counts(
                {
                    ">= lower": lower & ~upper,
                    "boxed": lower & upper & ~fixed,
                    "free": ~lower & ~upper,
                    "<= upper": upper & ~lower,
                    "fixed": fixed,
                    "integer": self.integrality,
                }
            )
        )
        if self.c is None:
            lines.append("  costs: none declared (pass c= to solve)")
        return "\n".join(lines)

    def _check(self) -> None:
        if np.isnan(self.A.data).any() or np.isinf(self.A.data).any():
            k = int(np.flatnonzero(~np.isfinite(self.A.data))[0])
            row, column = self.form.name_of_row(self.rows[k]), self.form.name_of_variable(self.cols[k])
            raise ValueError(f"A has {self.A.data[k]} at {row}, variable {column}: entries must be finite")
        for lower, upper, what, name in (
            (self.row_lower, self.row_upper, "row", self.form.name_of_row),
            (self.lower, self.upper, "variable", self.form.name_of_variable),
        ):
            wrong = np.flatnonzero((lower > upper) | (lower == np.inf) | (upper == -np.inf))
            if len(wrong):
                i = int(wrong[0])
                raise ValueError(
                    f"{what} {name(i).removeprefix('row ')}: lower bound {lower[i]:g} and upper bound "
                    f"{upper[i]:g} leave nothing between them ({len(wrong)} such in all)"
                )


def _counts(masks: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{int(v.sum())} {k}" for k, v in masks.items() if v.any()) or "none"
