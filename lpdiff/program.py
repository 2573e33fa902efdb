"""LinearProgram: a declared LP. Data only; solving and differentiating happen elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, NoReturn

import numpy as np
import scipy.optimize
import scipy.sparse as sp

from .standard import Data, StandardForm

__all__ = ["INFINITY", "LinearProgram"]

# Solvers take larger numbers for infinite (HiGHS: 1e20); so do we, at declaration and at solve time.
INFINITY = 1e20


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
            "ub": _matrix("A_ub", A_ub, b_ub=b_ub),
            "eq": _matrix("A_eq", A_eq, b_eq=b_eq),
            "ranged": _matrix("A", A, row_lower=row_lower, row_upper=row_upper, optional=True),
        }
        n = _width(
            {"A_ub": blocks["ub"], "A_eq": blocks["eq"], "A": blocks["ranged"]},
            c,
            bounds,
            integrality,
            variable_names,
        )
        stacked = [block for block in blocks.values() if block is not None]
        self.A = _canonical(sp.vstack(stacked, format="csc") if stacked else sp.csc_array((0, n)))
        self.blocks: dict[str, slice] = {}
        start = 0
        for key, block in blocks.items():
            size = 0 if block is None else block.shape[0]
            self.blocks[key] = slice(start, start + size)
            start += size
        m = start

        self.c = None if c is None else _vector("c", c, n, "one cost a variable", finite=True)
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
                    target[rows] = _vector(label, side, size, "one number a row")
        self.lower, self.upper = _bounds(bounds, n)
        self.sense = sense
        self.offset = float(offset)
        if not np.isfinite(self.offset):
            raise ValueError(f"offset must be finite, got {offset!r}")
        self.integrality = _integrality(integrality, n)
        self.variable_names = _names("variable_names", variable_names, n)
        self.row_names = _names("row_names", row_names, m)
        self.name = name
        self._check()
        for array in (
            *(self.A.data, self.A.indices, self.A.indptr, self.row_lower, self.row_upper),
            *(self.lower, self.upper, self.integrality, *([] if self.c is None else [self.c])),
        ):
            array.flags.writeable = False
        self._frozen = True

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
        return bool(self.integrality.any())

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
                f"gather: expected (*batch, m, n) = (*batch, {self.m}, {self.n}), "
                f"got {tuple(matrix.shape)}"
            )
        return matrix[..., self.rows, self.cols]

    # -- standard form -----------------------------------------------------------------------------

    @cached_property
    def form(self) -> StandardForm:
        """The compiled standard form (sizes, pattern, sense)."""
        return StandardForm(
            shape=(self.m, self.n),
            indptr=self.A.indptr,
            indices=self.A.indices,
            integrality=self.integrality,
            sign=1.0 if self.sense == "min" else -1.0,
            variable_names=self.variable_names,
            row_names=self.row_names,
        )

    @cached_property
    def defaults(self) -> dict[str, np.ndarray]:
        """The declared numbers by field of ``Data``, each (1, k), in the user's signs."""
        fields = {
            "values": self.A.data,
            "row_lower": self.row_lower,
            "row_upper": self.row_upper,
            "lower": self.lower,
            "upper": self.upper,
        }
        if self.c is not None:
            fields["c"] = self.c
        return {key: array[None] for key, array in fields.items()}

    @property
    def data(self) -> Data:
        """The declared numbers as a batch of one, in the sense of min."""
        if self.c is None:
            raise ValueError("this program was declared without costs: pass c=... to solve")
        return Data(**{**self.defaults, "c": self.form.to_min(self.defaults["c"])})

    # -- being an object ---------------------------------------------------------------------------

    def __setattr__(self, key: str, value: Any) -> None:
        if self.__dict__.get("_frozen"):
            raise AttributeError(
                f"LinearProgram is frozen, so {key!r} cannot be set: declare a new program, or pass "
                f"the numbers to solve"
            )
        super().__setattr__(key, value)

    @cached_property
    def plans(self) -> dict[Any, Any]:
        """Plans that ``solve`` made for this program, by configuration; see ``lpdiff.plan``."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("form", "defaults", "plans")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

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
            del self.__dict__["form"]
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


# -- reading what users pass ---------------------------------------------------------------------------


def _counts(masks: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{int(v.sum())} {k}" for k, v in masks.items() if v.any()) or "none"


def _to_numpy(value: Any) -> Any:
    """torch tensors (dense or sparse) and anything array-like; no import of torch needed."""
    if hasattr(value, "detach") and hasattr(value, "layout"):
        value = value.detach().cpu()
        if "strided" not in str(value.layout):
            value = value.to_sparse_coo().coalesce()
            indices = value.indices().numpy()
            return sp.coo_array((value.values().double().numpy(), tuple(indices)), shape=value.shape)
        return value.double().numpy()
    return value


def _matrix(name: str, matrix: Any, *, optional: bool = False, **sides: Any) -> sp.coo_array | None:
    given = [key for key, side in sides.items() if side is not None]
    if matrix is None:
        if given:
            raise ValueError(f"{given[0]} was given without {name}: the two go together")
        return None
    if len(given) < (1 if optional else len(sides)):
        raise ValueError(f"{name} was given without {' or '.join(sides)}: the two go together")
    matrix = _to_numpy(matrix)
    if not sp.issparse(matrix):
        matrix = _array(name, matrix)
    if matrix.ndim != 2:
        raise ValueError(
            f"{name} must be a matrix (rows, variables), got shape {tuple(matrix.shape)}"
            + ("; one row is A[None, :]" if matrix.ndim == 1 else "")
        )
    if np.iscomplexobj(matrix.data if sp.issparse(matrix) else matrix):
        raise ValueError(f"{name} must be real, got {matrix.dtype}")
    block = sp.coo_array(matrix, dtype=np.float64)
    for key in given:
        side = np.asarray(_to_numpy(sides[key]))
        if side.ndim == 1 and len(side) != block.shape[0] and len(side) != 1:
            hint = f"; it fits {name} transposed" if len(side) == block.shape[1] else ""
            raise ValueError(
                f"{name} has shape {block.shape}, so {key} needs {block.shape[0]} numbers, one a row, "
                f"got {len(side)}{hint}"
            )
    return block


def _canonical(matrix: Any) -> sp.csc_array:
    matrix = sp.csc_array(matrix)
    matrix.sum_duplicates()
    matrix.sort_indices()
    return sp.csc_array(
        (matrix.data.astype(np.float64), matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)),
        shape=matrix.shape,
    )


def _width(
    blocks: dict[str, sp.coo_array | None], c: Any, bounds: Any, integrality: Any, names: Any
) -> int:
    """The number of variables, from whatever tells it; all must agree."""
    widths = {f"{key} (columns)": block.shape[1] for key, block in blocks.items() if block is not None}
    if c is not None:
        costs = _to_numpy(c)
        costs = costs if sp.issparse(costs) else _array("c", costs)
        if costs.ndim != 1:
            raise ValueError(
                f"c must be a vector, one cost a variable, got shape {tuple(costs.shape)}"
                + ("; flatten a cost matrix with C.reshape(-1)" if costs.ndim == 2 else "")
            )
        widths["c"] = costs.shape[0]
    if isinstance(bounds, scipy.optimize.Bounds):
        size = max(np.size(bounds.lb), np.size(bounds.ub))
        if size > 1:
            widths["bounds"] = size
    elif bounds is not None and np.ndim(_peek(bounds)) == 2:
        widths["bounds"] = len(bounds)
    if integrality is not None and np.ndim(integrality) == 1:
        widths["integrality"] = len(integrality)
    if names is not None:
        widths["variable_names"] = len(names)
    if not widths:
        raise ValueError("cannot tell the number of variables: give c, a matrix, or bounds")
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{value} by {key}" for key, value in widths.items())
        hint = ""
        for key, block in blocks.items():
            if block is not None and block.shape[0] in {v for k, v in widths.items() if "col" not in k}:
                hint = f" ({key} has shape {block.shape}: is it transposed?)"
        raise ValueError(f"the number of variables differs: {told}{hint}")
    return next(iter(widths.values()))


def _array(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got {type(value).__name__}: {error}") from None


def _vector(name: str, value: Any, size: int, what: str, *, finite: bool = False) -> np.ndarray:
    array = _array(name, _to_numpy(value))
    if array.ndim == 0:
        array = np.full(size, float(array))
    if array.shape != (size,):
        raise ValueError(f"{name}: expected shape ({size},), {what}, got {array.shape}")
    bad = np.isnan(array) | (np.isinf(array) if finite else False)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{name}[{i}] is {array[i]}: expected a {'finite ' if finite else ''}number")
    return np.where(np.abs(array) >= INFINITY, np.copysign(np.inf, array), array)


def _peek(bounds: Any) -> Any:
    """An array with the dimensions of bounds (which may hold None)."""
    try:
        return np.array(bounds, dtype=object)
    except ValueError:
        return np.empty(len(bounds), dtype=object)


def _bounds(bounds: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(bounds, scipy.optimize.Bounds):
        return (
            np.array(_vector("bounds.lb", np.squeeze(bounds.lb), n, "one number a variable")),
            np.array(_vector("bounds.ub", np.squeeze(bounds.ub), n, "one number a variable")),
        )
    pairs = _peek((None, None) if bounds is None else _to_numpy(bounds))
    if pairs.shape == (2,):
        pairs = np.tile(pairs, (n, 1))
    if pairs.shape != (n, 2):
        raise _bounds_error(bounds, n, pairs.shape)
    try:
        lower = np.array([-np.inf if v is None else v for v in pairs[:, 0]], dtype=np.float64)
        upper = np.array([np.inf if v is None else v for v in pairs[:, 1]], dtype=np.float64)
    except (TypeError, ValueError):
        raise _bounds_error(bounds, n, pairs.shape) from None
    return _vector("lower bound", lower, n, ""), _vector("upper bound", upper, n, "")


def _bounds_error(bounds: Any, n: int, shape: tuple[int, ...]) -> ValueError:
    hint = ""
    if isinstance(bounds, (tuple, list)) and len(bounds) == 2 and np.ndim(bounds[0]) == 1:
        hint = "; two arrays are written scipy.optimize.Bounds(lower, upper)"
    return ValueError(
        f"bounds: expected one pair (lower, upper), {n} pairs, an ({n}, 2) array or a "
        f"scipy.optimize.Bounds, got shape {shape}{hint}"
    )


def _integrality(integrality: Any, n: int) -> np.ndarray:
    if integrality is None:
        return np.zeros(n, dtype=bool)
    array = np.asarray(_to_numpy(integrality))
    if array.shape not in ((), (n,)) or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"integrality: expected booleans (or 0 and 1), one or {n}, got shape {array.shape}, values "
            f"{np.unique(array)[:5].tolist()}"
        )
    return np.array(np.broadcast_to(array.astype(bool), (n,)))


def _names(what: str, names: Sequence[str] | None, size: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    if isinstance(names, str):
        _fail_names(what, size, names)
    result = tuple(str(name) for name in names)
    if len(result) != size:
        raise ValueError(f"{what}: expected {size} names, got {len(result)}")
    if len(set(result)) < size:
        twice = next(name for name in result if result.count(name) > 1)
        raise ValueError(f"{what}: {twice!r} stands twice; names must be unique")
    return result


def _fail_names(what: str, size: int, names: str) -> NoReturn:
    raise ValueError(f"{what}: expected {size} names, got one string {names!r}")
