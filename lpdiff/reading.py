"""Reading what users declare: SciPy, NumPy, torch and plain Python, into checked float64 arrays.

Nothing that comes back shares memory with what was passed in.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = [
    "INFINITY",
    "count_variables",
    "read_bounds",
    "read_integrality",
    "read_matrix",
    "read_names",
    "read_number",
    "read_vector",
    "stack",
]

# Solvers take larger numbers for infinite (HiGHS: 1e20); so do we, at declaration and at solve time.
INFINITY = 1e20


def read_matrix(name: str, matrix: Any, *, optional: bool = False, **sides: Any) -> sp.coo_array | None:
    """One block of rows, (rows, variables), or None. Its right-hand sides must fit it.

    Args:
        optional: Whether the sides may be left out.
    """
    given = [key for key, side in sides.items() if side is not None]
    if matrix is None:
        if given:
            raise ValueError(f"{given[0]} was given without {name}: the two go together")
        return None
    if len(given) < (1 if optional else len(sides)):
        raise ValueError(f"{name} was given without {' or '.join(sides)}: the two go together")
    matrix = _to_numpy(name, matrix)
    if not sp.issparse(matrix):
        matrix = _array(name, matrix)
    if matrix.ndim != 2:
        raise ValueError(
            f"{name} must be a matrix (rows, variables), got shape {tuple(matrix.shape)}"
            + ("; one row is A[None, :]" if matrix.ndim == 1 else "")
        )
    if matrix.dtype.kind == "c":
        raise ValueError(f"{name} must be real numbers, got {matrix.dtype}")
    block = sp.coo_array(matrix, dtype=np.float64)
    for key in given:
        side = np.asarray(_dense(key, sides[key]))
        if side.ndim == 1 and len(side) != block.shape[0]:
            hint = f"; it fits {name} transposed" if len(side) == block.shape[1] else ""
            raise ValueError(
                f"{name} has shape {block.shape}, so {key} needs {block.shape[0]} numbers, one a row, "
                f"got {len(side)}{hint}"
            )
    return block


def stack(blocks: Sequence[sp.coo_array], width: int) -> sp.csc_array:
    """The blocks above each other: sorted, duplicates added up, stored zeros kept, int32 indices."""
    matrix = sp.csc_array(sp.vstack(blocks) if blocks else sp.csc_array((0, width)))
    matrix.sum_duplicates()
    matrix.sort_indices()
    return sp.csc_array(
        (
            matrix.data.astype(np.float64),
            matrix.indices.astype(np.int32),
            matrix.indptr.astype(np.int32),
        ),
        shape=matrix.shape,
    )


def count_variables(
    blocks: Mapping[str, sp.coo_array | None], c: Any, bounds: Any, integrality: Any, names: Any
) -> int:
    """The number of variables, from whatever tells it; all must agree."""
    widths = {f"{key} (columns)": block.shape[1] for key, block in blocks.items() if block is not None}
    if c is not None:
        costs = _array("c", _dense("c", c))
        if costs.ndim != 1:
            raise ValueError(
                f"c must be a vector, one cost a variable, got shape {tuple(costs.shape)}"
                + ("; flatten a cost matrix with C.reshape(-1)" if costs.ndim == 2 else "")
            )
        widths["c"] = costs.shape[0]
    if _is_bounds(bounds):
        size = max(np.size(bounds.lb), np.size(bounds.ub))
        if size > 1:
            widths["bounds"] = size
    elif bounds is not None:
        pairs = _objects(_to_numpy("bounds", bounds))
        if pairs.ndim == 2 and pairs.shape[1] == 2:
            widths["bounds"] = len(pairs)
    if integrality is not None and np.ndim(integrality) == 1:
        widths["integrality"] = len(integrality)
    if names is not None and not isinstance(names, str):
        widths["variable_names"] = len(names)
    if not widths:
        raise ValueError("cannot tell the number of variables: give c, a matrix, or bounds")
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{value} by {key}" for key, value in widths.items())
        others = {value for key, value in widths.items() if not key.endswith("(columns)")}
        hint = "".join(
            f" ({key} has shape {block.shape}: is it transposed?)"
            for key, block in blocks.items()
            if block is not None and block.shape[1] not in others and block.shape[0] in others
        )
        raise ValueError(f"the number of variables differs: {told}{hint}")
    return next(iter(widths.values()))


def read_vector(name: str, value: Any, size: int, what: str, *, costs: bool = False) -> np.ndarray:
    """A vector, or a number for all of it. Sides of 1e20 and beyond are infinite; costs must be less."""
    array = _array(name, _dense(name, value))
    if array.ndim == 0:
        array = np.full(size, float(array))
    if array.shape != (size,):
        column = array.ndim == 2 and array.size == size
        raise ValueError(
            f"{name}: expected shape ({size},), {what}, got {array.shape}"
            + (f"; flatten it with {name}.reshape(-1)" if column else "")
        )
    bad = np.isnan(array) | ((np.abs(array) >= INFINITY) if costs else False)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{name}[{i}] is {array[i]}: expected a number"
            + (f" below {INFINITY:g}; to forbid a variable use its bounds" if costs else "")
        )
    return np.where(np.abs(array) >= INFINITY, np.copysign(np.inf, array), array)


def read_bounds(bounds: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(lower, upper), each (n,)."""
    if _is_bounds(bounds):
        return (
            read_vector("bounds.lb", np.squeeze(bounds.lb), n, "one number a variable"),
            read_vector("bounds.ub", np.squeeze(bounds.ub), n, "one number a variable"),
        )
    pairs = _objects((None, None) if bounds is None else _to_numpy("bounds", bounds))
    if n == 0 and pairs.size == 0:
        pairs = pairs.reshape(0, 2)
    if pairs.shape == (2,) and not any(np.ndim(side) for side in pairs):
        pairs = np.tile(pairs, (n, 1))
    if pairs.shape != (n, 2):
        raise _bounds_error(bounds, n)
    try:
        lower = np.array([-np.inf if v is None else v for v in pairs[:, 0]], dtype=np.float64)
        upper = np.array([np.inf if v is None else v for v in pairs[:, 1]], dtype=np.float64)
    except (TypeError, ValueError):
        raise _bounds_error(bounds, n) from None
    return read_vector("lower bound", lower, n, ""), read_vector("upper bound", upper, n, "")


def read_integrality(integrality: Any, n: int) -> np.ndarray:
    """(n,) bool."""
    if integrality is None:
        return np.zeros(n, dtype=bool)
    array = np.asarray(_to_numpy("integrality", integrality))
    if array.shape not in ((), (n,)) or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"integrality: expected booleans (or 0 and 1), one or {n}, got shape {array.shape}, "
            f"values {np.unique(array)[:5].tolist()}"
        )
    return np.array(np.broadcast_to(array.astype(bool), (n,)))


def read_names(what: str, names: Sequence[str] | None, size: int) -> tuple[str, ...] | None:
    """``size`` unique names, or None."""
    if names is None:
        return None
    if isinstance(names, str):
        raise ValueError(f"{what}: expected {size} names, got one string {names!r}")
    result = tuple(str(name) for name in names)
    if len(result) != size:
        raise ValueError(f"{what}: expected {size} names, got {len(result)}")
    seen: set[str] = set()
    for name in result:
        if name in seen:
            raise ValueError(f"{what}: {name!r} stands twice; names must be unique")
        seen.add(name)
    return result


def read_number(name: str, value: Any) -> float:
    """One finite number."""
    array = _array(name, _to_numpy(name, value))
    if array.ndim != 0 or not np.isfinite(array):
        raise ValueError(f"{name} must be one finite number, got {value!r}")
    return float(array)


def _to_numpy(name: str, value: Any) -> Any:
    """torch tensors, dense or sparse, become NumPy or SciPy; no import of torch needed."""
    if not (hasattr(value, "detach") and hasattr(value, "layout")):
        return value
    if value.requires_grad:
        raise ValueError(
            f"{name} requires a gradient, but what is declared is constant: pass it to lpdiff.solve, "
            f"or declare {name}.detach()"
        )
    if value.is_complex():
        raise ValueError(f"{name} must be real numbers, got {value.dtype}")
    value = value.cpu().double()
    if "strided" in str(value.layout):
        return value.numpy()
    value = value.to_sparse_coo().coalesce()
    return sp.coo_array((value.values().numpy(), tuple(value.indices().numpy())), shape=value.shape)


def _dense(name: str, value: Any) -> Any:
    value = _to_numpy(name, value)
    return value.toarray() if sp.issparse(value) else value


def _array(name: str, value: Any) -> np.ndarray:
    """A float64 copy."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biufO":
            return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got {type(value).__name__}: {error}") from None
    raise ValueError(f"{name} must be real numbers, got {array.dtype}")


def _objects(bounds: Any) -> np.ndarray:
    """An object array with the dimensions of bounds (which may hold None)."""
    try:
        return np.array(bounds, dtype=object)
    except ValueError:
        return np.empty(len(bounds), dtype=object)


def _bounds_error(bounds: Any, n: int) -> ValueError:
    hint = ""
    if isinstance(bounds, (tuple, list)) and len(bounds) == 2 and np.ndim(bounds[0]) == 1:
        hint = "; two arrays are written scipy.optimize.Bounds(lower, upper)"
    return ValueError(
        f"bounds: expected one pair (lower, upper), {n} pairs, an ({n}, 2) array or a "
        f"scipy.optimize.Bounds, got {bounds!r:.80}{hint}"
    )


def _is_bounds(bounds: Any) -> bool:
    """Whether it is a scipy.optimize.Bounds: nobody has one before that module, 0.1 s, is imported."""
    return isinstance(bounds, getattr(sys.modules.get("scipy.optimize"), "Bounds", ()))
