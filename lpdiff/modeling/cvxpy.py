"""from_cvxpy: a CVXPY problem as a program with parameters.

Written against CVXPY 1.9. The affine map from parameters to data, and the rules (DPP) under which
there is one: Agrawal et al., Differentiable Convex Optimization Layers, 2019 (arXiv 1910.12430).
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..parametric import AbstractParametricProgram
from ..program import LinearProgram
from .affine import AffineMap, ParameterSpec
from .cvxpy_checks import check_problem, import_cvxpy, is_cvxpy, refuse_not_linear, short
from .cvxpy_compiler import Compiler, Place, value_of

if TYPE_CHECKING:
    from ..solution import Solution

__all__ = ["CvxpyProgram", "from_cvxpy"]

# Of no concern to the user: CVXPY reads a sparse parameter's value itself, and picks another
# compiler.
_NOISE = (
    "Reading from a sparse CVXPY expression",
    "The problem has an expression with dimension greater than 2",
)
_VALUE = ("value",)


class CvxpyProgram(AbstractParametricProgram):
    """A CVXPY problem, compiled by ``from_cvxpy``. Copies and pickles without CVXPY.

    Attributes:
        parameters: ``ParameterSpec`` (name, shape) of each parameter, in the order of ``data``.
    """

    def __init__(
        self,
        program: LinearProgram,
        parameters: tuple[ParameterSpec, ...],
        maps: dict[str, AffineMap],
        variables: dict[int, Place],
        constraints: dict[int, Place],
        duals: dict[int, int],
    ) -> None:
        self._program = program
        self.parameters = parameters
        self._maps = maps
        self._variables = variables  # by CVXPY id
        self._constraints = constraints
        self._duals = duals  # id of a dual variable -> id of its constraint
        self._equal = torch.from_numpy(np.isfinite(program.row_upper))

    @property
    def program(self) -> LinearProgram:
        """The LP: CVXPY's variables (and its auxiliary ones) by name, in the user's sense and sign.

        Numbers that depend on a parameter are declared as if parameters were zero (rows, entries),
        as absent (bounds), or not at all (c).
        """
        return self._program

    def data(self, *parameters: Any) -> dict[str, torch.Tensor | tuple[torch.Tensor, ...]]:
        """The LP data that depend on the parameters; see ``AbstractParametricProgram.data``.

        Args:
            parameters: One value a parameter, in the order of ``self.parameters``: (*batch, *shape)
                tensors of any device and floating dtype, arrays, numbers or SciPy sparse matrices.
                A symmetric parameter is read as (P + P')/2, so its gradient is symmetric.

        Returns:
            float64 tensors on the CPU, where the solver runs (``lpdiff.solve`` gives the solution
            the dtype and the device of the parameters); those without a parameter in them are left
            out. Each has the batch dimensions of the parameters that it depends on, so what is
            shared stays shared.

        Raises:
            ValueError: a wrong number of parameters, a shape that does not fit, or values against
                what the parameter was declared: signs, bounds, symmetry, sparsity, on which
                convexity may rest. Not checked: PSD, NSD, integer and boolean parameters; anything
                inside ``torch.func.vmap``.
        """
        if len(parameters) != len(self.parameters):
            told = ", ".join(map(str, self.parameters)) or "none"
            raise ValueError(
                f"expected {len(self.parameters)} parameter values, in the order {told}; got "
                f"{len(parameters)}"
            )
        flat = [spec.flatten(value) for spec, value in zip(self.parameters, parameters, strict=True)]
        result: dict[str, Any] = {}
        for name in ("c", "A_values"):
            if self._maps[name].parameters:
                result[name] = self._maps[name](flat)
        if self._maps["offset"].parameters:
            result["offset"] = self._maps["offset"](flat)[..., 0]
        if self._maps["rows"].parameters:
            rows = result["row_lower"] = self._maps["rows"](flat)
            # Both sides of an equality are one tensor, so its gradient y+ - y- is y.
            if self._equal.any():
                result["row_upper"] = torch.where(self._equal, rows, torch.inf)
        sides = [self._maps["lower"], self._maps["upper"]]
        if any(side.parameters for side in sides):
            result["bounds"] = tuple((side(flat) if side.parameters else side.constant) for side in sides)
        return result

    def key(self, thing: Any) -> Hashable:
        """What ``extract`` takes for a CVXPY object, without holding on to that object.

        Raises:
            KeyError: not part of the problem; the message names what is.
        """
        if isinstance(thing, tuple) and thing[:1] in (("x",), ("y",), ("column",), _VALUE):
            return thing
        if isinstance(thing, str):
            named = [("x", i) for i, place in self._variables.items() if place.name == thing]
            columns = self.program.variable_names or ()
            if len(named) == 1:
                return named[0]
            if thing in columns:
                return ("column", columns.index(thing))
        elif is_cvxpy(thing):
            identity: Any = getattr(thing, "id", None)
            constraint = self._duals.get(identity, identity)
            if identity in self._variables:
                return ("x", identity)
            if constraint in self._constraints:
                return ("y", constraint)
            # A problem and an objective have no id: their variables have to do.
            if any(cls.__name__ in ("Problem", "Objective") for cls in type(thing).__mro__) and (
                {v.id for v in thing.variables()} <= set(self._variables)
            ):
                return _VALUE
        known = [place.name for place in (*self._variables.values(), *self._constraints.values())]
        raise KeyError(
            f"{short(thing)} is not part of this problem: expected one of its variables and "
            f"constraints ({', '.join(known[:12])}{', ...' if len(known) > 12 else ''}), or the "
            f"problem itself for its value. Expressions are computed from them: sol[x][..., 0]"
        )

    def extract(self, solution: Solution, key: Hashable) -> torch.Tensor:
        """The part of a solution that belongs to a CVXPY object.

        Args:
            key: A CVXPY variable, (*batch, *shape); a constraint or its ``dual_variables[0]``: the
                dual in CVXPY's shape and sign, as ``constraint.dual_value``; the problem or its
                objective: the value, (*batch,). Or a name: of a variable, or out of
                ``program.variable_names``.

        Raises:
            KeyError: not part of the problem; the message names what is.
        """
        found: Any = self.key(key)
        if found == _VALUE:
            return solution.value
        kind, i = found
        if kind == "x":
            return self._variables[i].take(solution.x)
        if kind == "column":
            return solution.x[..., i]
        # CVXPY's duals are those of the minimisation, for Maximize too.
        dual: torch.Tensor = self.program.form.to_min(self._constraints[i].take(solution.y))
        return dual

    def __repr__(self) -> str:
        kinds = {
            "parameters": [str(spec) for spec in self.parameters],
            "variables": [f"{place.name} {place.shape}" for place in self._variables.values()],
        }
        lines = [
            f"  {kind}: {', '.join(told[:12]) or 'none'}{', ...' if len(told) > 12 else ''}"
            for kind, told in kinds.items()
        ]
        return "\n".join(["CvxpyProgram", *lines, f"  {str(self.program).replace(chr(10), chr(10) + '  ')}"])


def from_cvxpy(problem: Any, parameters: Iterable[Any] | None = None) -> CvxpyProgram:
    """Compile a CVXPY problem that is a linear (or mixed-integer linear) program.

    Parameters may stand wherever DPP allows: in the objective, right-hand sides, variable bounds
    and matrix entries. Piecewise-linear atoms (abs, max, norm1, norm_inf, sum_largest, ...) are
    linearised.

    Args:
        problem: A ``cvxpy.Problem``. It is neither kept nor changed.
        parameters: The parameters whose values are given at each solve, in this order. Default:
            all, in the order of ``problem.parameters()``. Any other parameter needs a ``.value``,
            which is taken as a constant.

    Returns:
        A program with parameters, for ``lpdiff.solve(program, *values)`` and ``lpdiff.LPLayer``.

    Raises:
        ValueError: a problem that is not DCP, not DPP or not linear (the message names the
            offending expression and a remedy); parameters that are listed twice, foreign, or
            without value.
        TypeError: not a CVXPY problem.
        ImportError: CVXPY or its HiGHS interface is missing.
    """
    cp = import_cvxpy()
    check_problem(cp, problem)
    listed = _listed(cp, problem, parameters)
    fresh, copies = _freeze(cp, problem, listed)
    refuse_not_linear(cp, fresh)
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message)
        try:
            compiled, chain, _ = fresh.get_problem_data(cp.HIGHS, enforce_dpp=True)
        except cp.error.SolverError as error:
            refuse_not_linear(cp, fresh, because=str(error).rstrip("."))
            raise
    cone = compiled["param_prob"]
    dims = compiled["dims"]
    if cone.P is not None or dims.soc or dims.exp or dims.psd or dims.p3d or dims.pnd:
        refuse_not_linear(cp, fresh, because="CVXPY compiles it to a quadratic or conic program")
    return CvxpyProgram(*Compiler(cp, problem, listed, fresh, copies, cone, chain).compile())


def _listed(cp: Any, problem: Any, parameters: Iterable[Any] | None) -> list[Any]:
    known = problem.parameters()
    if parameters is None:
        return known
    listed = [parameters] if isinstance(parameters, cp.Parameter) else list(parameters)
    ids = {p.id for p in known}
    for k, p in enumerate(listed):
        if not isinstance(p, cp.Parameter):
            raise TypeError(f"parameters[{k}]: expected a cvxpy.Parameter, got {type(p).__name__}")
        if p.id not in ids:
            raise ValueError(
                f"parameters[{k}], '{p.name()}', does not occur in the problem, whose parameters "
                f"are {', '.join(q.name() for q in known) or 'none'}"
            )
        if any(p is q for q in listed[:k]):
            raise ValueError(f"parameters[{k}], '{p.name()}', is listed twice")
    for p in known:
        if all(p is not q for q in listed):
            if isinstance(p, cp.CallbackParam):
                raise ValueError(
                    f"'{p.name()}' is computed from other parameters, so its value cannot be "
                    f"frozen: list it in parameters=, and pass it a value computed in torch"
                )
            if value_of(p) is None:
                raise ValueError(
                    f"'{p.name()}' is not listed in parameters= and has no value: list it, or set "
                    f"{p.name()}.value to the constant it is to have"
                )
    return listed


def _freeze(cp: Any, problem: Any, listed: list[Any]) -> tuple[Any, dict[int, int]]:
    """A copy of the problem with constants for what is not listed; new id by old id of constraints.

    Constants rather than values in the compiled map: a product of a frozen and a listed parameter
    is DPP then, and a frozen parameter's sign is known.
    """
    frozen = [p for p in problem.parameters() if all(p is not q for q in listed)]
    # A CVXPY object's tree_copy replaces what it finds in this table.
    table = {id(p): cp.Constant(value_of(p)) for p in frozen}

    def copy(item: Any) -> Any:
        return item.tree_copy(id_objects=table) if any(id(p) in table for p in item.parameters()) else item

    constraints = [copy(constraint) for constraint in problem.constraints]
    copies = {old.id: new.id for old, new in zip(problem.constraints, constraints, strict=True)}
    return cp.Problem(copy(problem.objective), constraints), copies
