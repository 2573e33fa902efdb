"""The compiler behind from_cvxpy: from CVXPY's cone program to a LinearProgram and affine maps.

CVXPY compiles a DPP problem, for HiGHS, to sparse tensors that map the parameters
(Fortran-flattened, then a 1) to (c, offset), to [A | b] of rows "A x + b = 0" and "A x + b >= 0",
and to bounds. Read off them here: right-hand sides -b, the pattern of A over all parameter values,
and where each variable and constraint went.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..program import LinearProgram
from .affine import AffineMap, ParameterSpec

__all__ = ["Compiler", "Place", "value_of"]


@dataclass(frozen=True, eq=False)
class Place:
    """Where the entries of a variable (a constraint) stand in x (in y); -1: always zero."""

    name: str
    shape: tuple[int, ...]
    index: torch.Tensor  # (size,) int64, C order

    def take(self, vector: torch.Tensor) -> torch.Tensor:
        """(*batch, n) -> (*batch, *shape)."""
        batch = vector.shape[:-1]
        index = self.index.to(vector.device)
        taken = vector.gather(-1, index.clamp(min=0).expand(*batch, -1))
        if (self.index < 0).any():
            taken = torch.where(index >= 0, taken, 0.0)
        return taken.reshape((*batch, *self.shape))


def value_of(parameter: Any) -> Any:
    return parameter.value_sparse if parameter.attributes["sparsity"] else parameter.value


def _positions(leaf: Any, reduced: bool) -> list[np.ndarray]:
    """C-order positions, in the leaf's shape, of the entries of CVXPY's vector for it.

    Two arrays for a symmetric leaf, whose entries stand for (i, j) and for (j, i).
    """
    grid = np.arange(leaf.size).reshape(leaf.shape)
    if not reduced:
        return [grid.ravel("F")]
    if leaf.attributes["diag"]:
        return [np.diag(grid)]
    if leaf.attributes["sparsity"]:
        return [grid[leaf.sparse_idx]]
    i, j = np.triu_indices(leaf.shape[-1])
    return [grid[..., i, j].ravel("F"), grid[..., j, i].ravel("F")]


class Compiler:
    """Reads the compiled cone program; lives only during ``from_cvxpy``."""

    def __init__(
        self,
        cp: Any,
        problem: Any,
        listed: list[Any],
        fresh: Any,
        copies: Any,
        cone: Any,
        chain: Any,
    ) -> None:
        self.cp, self.problem, self.fresh, self.copies = cp, problem, fresh, copies
        self.listed, self.cone, self.chain = listed, cone, chain
        self.m, self.n = cone.constr_size, cone.x.size
        self.maximise = isinstance(problem.objective, cp.Maximize)
        self.variable_ids = chain.compose_var_id_map()
        self.parameter_ids = chain.compose_param_id_map()

    def compile(self) -> tuple[Any, ...]:
        """The arguments of CvxpyProgram, in order."""
        m, n, cone = self.m, self.n, self.cone
        # CVXPY has turned max f into min -f; here it is turned back.
        sign = -1.0 if self.maximise else 1.0
        entries = sp.csc_array(cone.A)  # few columns; m (n + 1) rows, F order of [A | b]
        entries.sum_duplicates()
        entries.eliminate_zeros()
        pattern = np.unique(entries.indices[entries.indices < m * n]).astype(np.int64)
        columns, rows = np.divmod(pattern, m) if m else (pattern, pattern)
        maps = {
            "c": self._affine(cone.q, np.arange(n), sign),
            "offset": self._affine(cone.q, np.array([n]), sign),
            "A_values": self._affine(entries, pattern),
            "rows": self._affine(entries, m * n + np.arange(m), -1.0),
            "lower": self._bounds("lower"),
            "upper": self._bounds("upper"),
        }
        indptr = np.searchsorted(columns, np.arange(n + 1))
        row_lower = maps["rows"].constant.numpy()
        equal = np.arange(m) < cone.cone_dims.zero
        lower, upper = (
            np.where(maps[side].varies, absent, maps[side].constant.numpy())
            for side, absent in (("lower", -np.inf), ("upper", np.inf))
        )
        integrality = np.zeros(n, dtype=bool)
        integrality[self._integers()] = True
        variables, variable_names = self._variables()
        constraints, row_names = self._constraints()
        program = LinearProgram(
            c=None if maps["c"].parameters else maps["c"].constant.numpy(),
            A=sp.csc_array((maps["A_values"].constant.numpy(), rows, indptr), shape=(m, n)),
            row_lower=row_lower,
            row_upper=np.where(equal, row_lower, np.inf),
            bounds=np.column_stack([lower, upper]),
            integrality=integrality,
            sense="max" if self.maximise else "min",
            offset=0.0 if maps["offset"].parameters else float(maps["offset"].constant),
            variable_names=variable_names,
            row_names=row_names,
        )
        duals = {v.id: c.id for c in self.problem.constraints for v in c.dual_variables[:1]}
        specs = tuple(_spec(self.cp, p) for p in self.listed)
        return program, specs, maps, variables, constraints, duals

    def _slice(self, parameter: Any) -> tuple[slice, list[np.ndarray]] | None:
        """Where a parameter stands in CVXPY's vector, and which of its entries stand there."""
        (final,) = self.parameter_ids.get(parameter.id, [parameter.id])
        if final not in self.cone.param_id_to_col:
            return None
        start = self.cone.param_id_to_col[final]
        positions = _positions(parameter, reduced=final != parameter.id)
        return slice(start, start + len(positions[0])), positions

    def _affine(self, tensor: Any, rows: np.ndarray, scale: float = 1.0) -> AffineMap:
        """Some rows of one of CVXPY's tensors, times a sign; its columns: all parameters, and 1."""
        tensor = sp.coo_array(tensor)
        place = np.searchsorted(rows, tensor.row)
        kept = (
            (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == tensor.row) if len(rows) else []
        )
        matrix = sp.csc_array(
            (scale * tensor.data[kept], (place[kept], tensor.col[kept])),
            shape=(len(rows), tensor.shape[1]),
        )
        constant = matrix[:, [-1]].toarray().ravel()
        blocks = []
        for parameter in self.listed:
            found = self._slice(parameter)
            block = sp.csc_array((len(rows), parameter.size))
            if found is not None:
                where, positions = found
                size = len(positions[0])
                ones = np.full(size, 1.0 / len(positions))
                for position in positions:
                    spread = sp.csc_array((ones, (np.arange(size), position)), shape=(size, parameter.size))
                    block = block + matrix[:, where] @ spread
            blocks.append(block)
        for parameter in self.fresh.parameters():
            if all(parameter is not p for p in self.listed):  # frozen, in the bounds of a variable
                found = self._slice(parameter)
                if found is not None:
                    where, positions = found
                    value = value_of(parameter)
                    value = np.ravel(value.toarray() if sp.issparse(value) else value)[positions[0]]
                    constant = constant + matrix[:, where] @ value
        return AffineMap.build(constant, blocks)

    def _bounds(self, side: str) -> AffineMap:
        """Bounds of all columns: CVXPY's tensor where they are expressions, attributes elsewhere.

        CVXPY's own constant part is not used: where some variable has parametric bounds, it forgets
        the numeric bounds of those that are nonneg as well (seen in 1.9.3).
        """
        k, absent, tighter = (0, -np.inf, np.maximum) if side == "lower" else (1, np.inf, np.minimum)
        numbers, expression = np.full(self.n, absent), np.zeros(self.n, dtype=bool)
        for variable in self.cone.variables:
            start = self.cone.var_id_to_col[variable.id]
            columns = slice(start, start + variable.size)
            signed = variable.is_nonneg() if side == "lower" else variable.is_nonpos()
            if signed:
                numbers[columns] = 0.0
            bound = (variable.attributes["bounds"] or (None, None))[k]
            if isinstance(bound, self.cp.Expression):
                if signed or variable.attributes["boolean"]:
                    raise ValueError(
                        f"variable '{variable.name()}' has a sign (or is boolean) and a parametric "
                        f"{side} bound, of which CVXPY keeps only one: write the second as a "
                        f"constraint"
                    )
                expression[columns] = True
            elif bound is not None:
                bound = np.broadcast_to(bound, variable.shape).ravel("F")
                numbers[columns] = tighter(numbers[columns], bound)
        boolean = [int(i) for (i,) in self.cone.x.boolean_idx]
        numbers[boolean] = tighter(numbers[boolean], float(k))
        if not expression.any():
            return AffineMap.build(numbers, [])
        affine = self._affine(getattr(self.cone, f"{side[0]}b_tensor"), np.arange(self.n))
        affine.constant.copy_(
            torch.where(torch.from_numpy(expression), affine.constant, torch.from_numpy(numbers))
        )
        return affine

    def _integers(self) -> list[int]:
        x = self.cone.x
        return [int(i) for (i,) in (*x.boolean_idx, *x.integer_idx)]

    def _variables(self) -> tuple[dict[int, Place], list[str]]:
        names: list[str] = [""] * self.n
        taken: set[str] = set()
        places = {}
        for variable in self.fresh.variables():
            (final,) = self.variable_ids.get(variable.id, [variable.id])
            reduced = any(variable.attributes[a] for a in ("symmetric", "diag", "sparsity"))
            positions = _positions(variable, reduced)
            if final not in self.cone.var_id_to_col:
                continue  # nothing of it is left: it has no entries
            start = self.cone.var_id_to_col[final]
            columns = start + np.arange(len(positions[0]))
            index = np.full(variable.size, -1)
            for position in reversed(positions):
                index[position] = columns
            places[variable.id] = Place(variable.name(), variable.shape, torch.from_numpy(index))
            base = _new_name(variable.name(), taken)
            for column, position in zip(columns, positions[0], strict=True):
                names[column] = base + _subscript(position, variable.shape)
        auxiliary = iter(range(self.n))
        return places, _distinct([name or f"auxiliary[{next(auxiliary)}]" for name in names])

    def _constraints(self) -> tuple[dict[int, Place], list[str]]:
        ids = self.chain.compose_constr_id_map()
        starts, start = {}, 0
        for final in self.cone.constraints:
            starts[final.id] = start
            start += final.size
        names: list[str] = [""] * self.m
        taken: set[str] = set()
        places = {}
        for k, constraint in enumerate(self.problem.constraints):
            copied = self.copies[constraint.id]
            final = ids.get(copied, copied)
            base = getattr(constraint, "label", None) or f"constraints[{k}]"
            if constraint.size and final not in starts:
                continue
            positions = np.arange(constraint.size).reshape(constraint.shape).ravel("F")
            index = np.empty(constraint.size, dtype=np.int64)
            index[positions] = starts.get(final, 0) + np.arange(constraint.size)
            places[constraint.id] = Place(base, constraint.shape, torch.from_numpy(index))
            base = _new_name(base, taken)
            for offset, position in enumerate(positions):
                names[starts[final] + offset] = base + _subscript(position, constraint.shape)
        auxiliary = iter(range(self.m))
        return places, _distinct([name or f"auxiliary[{next(auxiliary)}]" for name in names])


def _new_name(name: str, taken: set[str]) -> str:
    """The name, or the name with a number where it was used before."""
    new, k = name, 2
    while new in taken:
        new, k = f"{name}_{k}", k + 1
    taken.add(new)
    return new


def _distinct(names: list[str]) -> list[str]:
    taken: set[str] = set()
    return [_new_name(name, taken) for name in names]


def _subscript(position: int, shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(i) for i in np.unravel_index(position, shape))}]" if shape else ""


def _spec(cp: Any, parameter: Any) -> ParameterSpec:
    attributes, shape = parameter.attributes, parameter.shape
    lower = np.zeros(()) if attributes["nonneg"] or attributes["pos"] else None
    upper = np.zeros(()) if attributes["nonpos"] or attributes["neg"] else None
    if attributes["bounds"] is not None and not attributes["sparsity"]:
        given = [b if not isinstance(b, cp.Expression) else None for b in attributes["bounds"]]
        lower = np.asarray(given[0], dtype=np.float64) if lower is None and given[0] is not None else lower
        upper = np.asarray(given[1], dtype=np.float64) if upper is None and given[1] is not None else upper
    support = None
    if attributes["diag"]:
        support = np.eye(shape[-1], dtype=bool)
    elif attributes["sparsity"]:
        support = np.zeros(shape, dtype=bool)
        support[parameter.sparse_idx] = True
    symmetric = any(attributes[key] for key in ("symmetric", "PSD", "NSD"))
    return ParameterSpec(parameter.name(), shape, lower, upper, support, symmetric)
