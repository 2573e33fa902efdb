"""GLOP, the simplex solver of Google's OR-Tools (optional extra ``lpdiff[ortools]``).

How OR-Tools is called, and why. Three ways were measured (OR-Tools 9.15, primal simplex without
presolve; microseconds an LP of 20 / 60 / 200 variables, building and reading included):

    math_opt's Python Model                        580 / 2000 / 9500
    ModelBuilderHelper, from sparse data           120 /  530 / 4400   no basis, no iterations
    math_opt's compiled core, fed with protos      100 /  570 / 4500   x, y, basis, iterations

The third is used. The second is no faster, and a basis can be read off x only where the vertex is
not degenerate; elsewhere (assignment, paths, flows: most of what this library is for) the LP would
have to be solved twice. The core releases the GIL, so threads over the batch help.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass as plain_dataclass
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BackendError, BatchSolution, Capabilities
from ..batch import run_items
from ..standard import FIELDS, Data, StandardForm
from ..status import Status, UnsupportedError

__all__ = ["GLOP"]

# By the name of the termination reason or, where a limit stopped the solve, of that limit.
_STATUS = {
    "OPTIMAL": Status.OPTIMAL,
    "INFEASIBLE": Status.INFEASIBLE,
    "UNBOUNDED": Status.UNBOUNDED,
    "IMPRECISE": Status.INACCURATE,
    "NUMERICAL_ERROR": Status.ERROR,
    "OTHER_ERROR": Status.ERROR,
    "LIMIT_TIME": Status.TIME_LIMIT,
    "LIMIT_ITERATION": Status.ITERATION_LIMIT,
}
_OPTIMAL, _EITHER = "OPTIMAL", "INFEASIBLE_OR_UNBOUNDED"
_BASIC = 5  # BasisStatusProto.BASIS_STATUS_BASIC
_GLOP = 3  # SolverTypeProto.SOLVER_TYPE_GLOP

# Below this many rows and columns presolve costs more than it saves.
_SMALL = 2000

# From this version on highspy and OR-Tools cannot be loaded into one process on Linux: undefined
# symbol, in either order of import (or-tools issue 5246).
_CLASH = (1, 15)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class GLOP(AbstractBackend):
    """GLOP, every item solved cold and so independently of its batch. Returns no rays.

    Args:
        method: ``"dual"`` or ``"primal"`` simplex. ``"auto"`` is dual simplex (up to twice as
            fast), then primal where that ends in numerical trouble.
        presolve: True, False, or None: only for programs of more than 2,000 rows and columns.
        primal_tolerance, dual_tolerance: Feasibility tolerances, 1e-10 to 1e-1.
        iteration_limit: Simplex iterations an item, None for no limit.
        random_seed: GLOP's own. Part of the input: another seed may end at another vertex of a
            non-unique optimum.
    """

    method: Literal["auto", "primal", "dual"] = "auto"
    presolve: bool | None = None
    primal_tolerance: Annotated[float, Field(ge=1e-10, le=1e-1)] = 1e-8
    dual_tolerance: Annotated[float, Field(ge=1e-10, le=1e-1)] = 1e-8
    iteration_limit: Annotated[int, Field(ge=0, le=2**31 - 2)] | None = None
    random_seed: Annotated[int, Field(ge=0, le=2**31 - 2)] = 1

    name: ClassVar[str] = "glop"
    capabilities: ClassVar[Capabilities] = Capabilities()

    @classmethod
    def missing(cls) -> str | None:
        # Nothing is imported here: in the case of the clash that is what fails.
        if importlib.util.find_spec("ortools") is None:
            return 'OR-Tools is not installed: pip install "lpdiff[ortools]"'
        highspy = importlib.metadata.version("highspy")
        release = tuple(int(part) for part in highspy.split(".")[:2] if part.isdigit())
        if sys.platform.startswith("linux") and release >= _CLASH:
            return (
                f"highspy {highspy} and OR-Tools cannot share a process on Linux (undefined "
                f'symbol, or-tools issue 5246): pip install "highspy<{_CLASH[0]}.{_CLASH[1]}"'
            )
        return None

    def prepare(self, form: StandardForm) -> _Pattern:
        """The pattern as a serialised model.

        Raises:
            BackendError: OR-Tools cannot be imported.
            UnsupportedError: integer variables.
        """
        if form.is_mip:
            raise UnsupportedError("GLOP does not take integer variables: use solver='highs'")
        return _Pattern.of(form)

    def solve(
        self, state: _Pattern, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        job = _Job(self, state, data, BatchSolution.empty(state.form, data.size), time_limit)
        run_items(data.size, threads, lambda: _Worker(job))
        return job.out


@plain_dataclass(frozen=True, eq=False)
class _Pattern:
    """A program's pattern: what all its items share. Plain data, so that it pickles."""

    form: StandardForm
    order: np.ndarray  # (nnz,) from compressed-column to row-major order, which math_opt asks for
    model: bytes  # a ModelProto without numbers

    @classmethod
    def of(cls, form: StandardForm) -> _Pattern:
        order = np.argsort(form.rows, kind="stable")
        model = _ortools().Model()
        model.variables.ids.extend(range(form.n))
        model.variables.integers.extend([False] * form.n)
        model.objective.linear_coefficients.ids.extend(range(form.n))
        model.linear_constraints.ids.extend(range(form.m))
        model.linear_constraint_matrix.row_ids.extend(form.rows[order].tolist())
        model.linear_constraint_matrix.column_ids.extend(form.cols[order].tolist())
        return cls(form, order, model.SerializeToString())


@plain_dataclass(frozen=True, eq=False)
class _Job:
    """One call of solve; shared by its workers."""

    options: GLOP
    pattern: _Pattern
    data: Data
    out: BatchSolution
    time_limit: float | None


class _Worker:
    """One model, filled anew for each item. Fields that all items share are filled in once."""

    def __init__(self, job: _Job) -> None:
        self.job, self.data, self.out = job, job.data, job.out
        self.ortools = _ortools()
        self.model = model = self.ortools.Model.FromString(job.pattern.model)
        self.costs = model.objective.linear_coefficients.values
        targets = {
            "c": self.costs,
            "values": model.linear_constraint_matrix.coefficients,
            "row_lower": model.linear_constraints.lower_bounds,
            "row_upper": model.linear_constraints.upper_bounds,
            "lower": model.variables.lower_bounds,
            "upper": model.variables.upper_bounds,
        }
        self.varying = []
        for name in FIELDS:
            array, target = getattr(job.data, name), targets[name]
            array = array[:, job.pattern.order] if name == "values" else array
            if len(array) == 1:
                target.extend(array[0].tolist())
            else:
                self.varying.append((array, target))
        form, options = job.pattern.form, job.options
        presolve = options.presolve
        if presolve is None:
            presolve = form.m + form.n > _SMALL
        self.primal = options.method == "primal"
        self.parameters = self._make_parameters(primal=self.primal, presolve=presolve)
        # What to try, in turn, after numerical trouble.
        self.second_tries = []
        if options.method == "auto":
            self.second_tries.append(self._make_parameters(primal=True, presolve=False))

    def __call__(self, item: int) -> None:
        for array, target in self.varying:
            del target[:]
            target.extend(array[item].tolist())
        try:
            self._solve(item)
        except Exception as error:
            # Whatever the binding throws belongs to this item alone; its message is not lost.
            crossed = self._crossed(item)
            self.out.status[item] = Status.INFEASIBLE if crossed else Status.ERROR
            self.out.messages[item] = f"GLOP: {type(error).__name__}: {error}"

    def _solve(self, item: int) -> None:
        out = self.out
        result = self._run(item, self.parameters)
        reason = self._reason(result)
        if reason == _OPTIMAL and self._read(item, result):
            return
        if reason == _OPTIMAL:
            # Undoing presolve lost the basis.
            result = self._run(item, self._make_parameters(primal=self.primal, presolve=False))
            reason = self._reason(result)
        for parameters in self.second_tries:
            if _STATUS.get(reason) in (Status.INACCURATE, Status.ERROR):
                result = self._run(item, parameters)
                reason = self._reason(result)
        if reason == _EITHER:
            reason = self._feasible_or_not(item)
        if reason == _OPTIMAL:
            if not self._read(item, result):
                raise RuntimeError("no basis after an optimal simplex run")
            return
        out.status[item] = _STATUS.get(reason, Status.ERROR)
        if out.status[item] not in (Status.INFEASIBLE, Status.UNBOUNDED):
            out.messages[item] = f"GLOP: {reason} {result.termination.detail}".strip()

    def _run(self, item: int, parameters: Any) -> Any:
        tools = self.ortools
        result = tools.solve(self.model, _GLOP, tools.initializer, parameters, *tools.nothing, None, None)
        self.out.iterations[item] += result.solve_stats.simplex_iterations
        return result

    def _reason(self, result: Any) -> str:
        termination = result.termination
        reason: str = self.ortools.reasons[termination.reason]
        if reason not in ("FEASIBLE", "NO_SOLUTION_FOUND"):
            return reason
        limit: str = self.ortools.limits[termination.limit]
        if limit == "LIMIT_UNDETERMINED":  # GLOP says no more than that there was one
            most = self.job.options.iteration_limit
            counted = most is not None and result.solve_stats.simplex_iterations >= most
            limit = "LIMIT_ITERATION" if counted else "LIMIT_TIME"
        return limit

    def _feasible_or_not(self, item: int) -> str:
        """Dual infeasible, so: without costs, an optimum means that the LP is unbounded."""
        kept = list(self.costs)
        try:
            self.costs[:] = [0.0] * len(kept)
            plain = self._make_parameters(primal=False, presolve=False)
            reason = self._reason(self._run(item, plain))
        finally:
            self.costs[:] = kept  # the costs may be shared: the next item needs them
        return "UNBOUNDED" if reason == _OPTIMAL else reason

    def _read(self, item: int, result: Any) -> bool:
        """Take over an optimum; False where it has no basis of m members."""
        out, solution = self.out, result.solutions[0]
        statuses = [
            *solution.basis.variable_status.values,
            *solution.basis.constraint_status.values,
        ]
        basic = np.array(statuses, dtype=np.int8) == _BASIC
        if np.count_nonzero(basic) != self.job.pattern.form.m:
            return False
        assert out.y is not None and out.basic is not None
        out.x[item] = list(solution.primal_solution.variable_values.values)
        out.y[item] = list(solution.dual_solution.dual_values.values)
        out.basic[item] = basic
        out.status[item] = Status.OPTIMAL
        return True

    def _crossed(self, item: int) -> bool:
        """Bounds that cross are an error to math_opt, but simply infeasible."""
        _, _, row_lower, row_upper, lower, upper = self.data.item(item)
        return bool(np.any(row_lower > row_upper) or np.any(lower > upper))

    def _make_parameters(self, *, primal: bool, presolve: bool) -> Any:
        options, parameters = self.job.options, self.ortools.Parameters()
        if self.job.time_limit is not None:
            # Rounded up to a nanosecond: zero would mean something else.
            nanoseconds = max(1, round(self.job.time_limit * 1e9))
            parameters.time_limit.seconds, parameters.time_limit.nanos = divmod(nanoseconds, 10**9)
        glop = parameters.glop
        if options.iteration_limit is not None:
            parameters.iteration_limit = options.iteration_limit
        glop.use_dual_simplex = not primal
        glop.use_preprocessing = presolve
        glop.primal_feasibility_tolerance = options.primal_tolerance
        glop.dual_feasibility_tolerance = options.dual_tolerance
        # The check at the end; never stricter than the tolerances that simplex works to.
        glop.solution_feasibility_tolerance = max(1e-6, options.primal_tolerance, options.dual_tolerance)
        glop.random_seed = options.random_seed
        return parameters


@functools.cache
def _ortools() -> SimpleNamespace:
    """What is needed of OR-Tools, imported at first use (50 ms)."""
    try:
        from ortools.math_opt import (
            callback_pb2,
            model_parameters_pb2,
            model_pb2,
            parameters_pb2,
            result_pb2,
        )
        from ortools.math_opt.core.python import solver
    except ImportError as error:
        raise BackendError(
            f"solver 'glop' cannot run here: {GLOP.missing() or f'OR-Tools does not load: {error}'}"
        ) from error

    def names(enum: Any, prefix: str) -> dict[int, str]:
        return {number: name.removeprefix(prefix) for name, number in enum.items()}

    return SimpleNamespace(
        solve=solver.solve,
        Model=model_pb2.ModelProto,
        Parameters=parameters_pb2.SolveParametersProto,
        initializer=parameters_pb2.SolverInitializerProto(),
        # Model parameters, message callback, callback registration.
        nothing=(
            model_parameters_pb2.ModelSolveParametersProto(),
            None,
            callback_pb2.CallbackRegistrationProto(),
        ),
        reasons=names(result_pb2.TerminationReasonProto, "TERMINATION_REASON_"),
        limits=names(result_pb2.LimitProto, ""),
    )
