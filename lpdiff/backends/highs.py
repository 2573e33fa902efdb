"""HiGHS: the default backend. Simplex, or interior point with crossover; integer programs."""

from __future__ import annotations

import threading
from typing import Annotated, Any, ClassVar, Literal

import highspy
import numpy as np
from highspy import HighsBasisStatus, HighsModelStatus, HighsStatus
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from ..backend import AbstractBackend, BatchSolution, Capabilities
from ..batch import run_items
from ..standard import FIELDS, Data, StandardForm
from ..status import Status
from .reference import Reference, enlarged, near

__all__ = ["HiGHS"]

_STATUS = {
    HighsModelStatus.kOptimal: Status.OPTIMAL,
    HighsModelStatus.kModelEmpty: Status.OPTIMAL,
    HighsModelStatus.kInfeasible: Status.INFEASIBLE,
    HighsModelStatus.kUnbounded: Status.UNBOUNDED,
    HighsModelStatus.kTimeLimit: Status.TIME_LIMIT,
    HighsModelStatus.kIterationLimit: Status.ITERATION_LIMIT,
    HighsModelStatus.kSolutionLimit: Status.ITERATION_LIMIT,
}

# Below this many rows and columns presolve costs more than it saves: on alignment, assignment and transport
# LPs of 300 to 22,000 variables simplex without it was 2.5 to 5 times faster; on packing and covering LPs of
# 3,000 to 6,000 variables it made no difference; of two random sparse LPs it was slower on one (1,500
# variables, 2.8 times) and faster on the other.
_SMALL = 20_000

_COLWISE, _MINIMIZE = 1, 1
_PRIMAL = 4  # a simplex_strategy


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class HiGHS(AbstractBackend):
    """HiGHS, one solver object a thread, every item solved cold, or from one fixed basis.

    So an item's result does not depend on its batch.

    Args:
        method: ``"dual"`` or ``"primal"`` simplex, or ``"ipm"`` (interior point, then crossover to a
            vertex). ``"simplex"`` is dual simplex.
        presolve: True, False, or None: only for programs of more than 20,000 rows and columns, and
            always for ``"ipm"``, which errs and may hang on free rows without it (HiGHS 1.14);
            ``"ipm"`` without crossover does without it where there is no free row.
        crossover: False with ``"ipm"`` leaves the interior optimum: a point of the relative interior
            of the optimal face where the optimum is not unique (presolve may move it to the boundary),
            accurate to the tolerances only, and without a basis, so that only ``value`` can be
            differentiated.
        primal_tolerance, dual_tolerance: Feasibility tolerances, 1e-10 to 1e-1.
        iteration_limit: Simplex or interior-point iterations an item, None for no limit.
        mip_rel_gap, mip_abs_gap: Where to stop integer programs. The default proves optimality.
        warm_start: Whether items with the declared matrix, rows and bounds, and with costs near the declared
            ones (within 10 % in the 1-norm), start primal simplex at the declared optimum. It is found at
            the first such item, so that one solve alone takes about as long as two; after that an item takes
            2 to 40 times less than cold. Means nothing to integer programs and ``"ipm"``.
        random_seed: HiGHS's own perturbation seed. Part of the input: another seed may end at another
            vertex of a non-unique optimum.
    """

    method: Literal["simplex", "dual", "primal", "ipm"] = "simplex"
    presolve: bool | None = None
    crossover: bool = True
    primal_tolerance: Annotated[float, Field(ge=1e-10, le=1e-1)] = 1e-7
    dual_tolerance: Annotated[float, Field(ge=1e-10, le=1e-1)] = 1e-7
    iteration_limit: Annotated[int, Field(ge=0, le=2**31 - 2)] | None = None
    mip_rel_gap: Annotated[float, Field(ge=0)] = 0.0
    mip_abs_gap: Annotated[float, Field(ge=0)] = 1e-9
    warm_start: bool = True
    random_seed: Annotated[int, Field(ge=0, le=2**31 - 2)] = 0

    name: ClassVar[str] = "highs"
    capabilities: ClassVar[Capabilities] = Capabilities(integers=True, rays=True, interior=True)

    @model_validator(mode="after")
    def _check(self) -> HiGHS:
        if self.method == "ipm" and self.presolve is False:
            raise ValueError("presolve=False does not go with method='ipm': leave presolve out")
        return self

    def prepare(self, form: StandardForm) -> StandardForm:
        return form

    def solve(
        self,
        state: StandardForm,
        data: Data,
        *,
        threads: int = 1,
        time_limit: float | None = None,
    ) -> BatchSolution:
        # Presolve would move an interior optimum to the boundary.
        free_rows_only = self.method == "ipm" and not self.crossover and self.presolve is None
        options = self._options(state, time_limit)
        job = _Job(state, data, options, presolve_free_rows_only=free_rows_only)
        if self.warm_start and not state.is_mip and self.method != "ipm" and state.n:
            warm = near(state, data)
            if warm.any():
                job.reference = self._reference(state, options)
            if job.reference is not None:
                job.warm = warm
        run_items(data.size, threads, lambda: _Worker(job))
        # HiGHS keeps a pool a thread, and refuses to run with another number of threads than the pool has.
        # Leaving ours behind would break the caller's own use of HiGHS (or CVXPY's) in this thread.
        highspy._core._Highs.resetGlobalScheduler(True)
        return job.finish()

    def _reference(self, form: StandardForm, options: dict[str, Any]) -> Reference | None:
        """The optimal basis of the declared costs, kept with the form; None where there is no optimum."""
        key = f"reference basis of {self!r}"
        if key not in form.derived:
            job = _Job(form, enlarged(form.declared), options, presolve_free_rows_only=False)
            worker = _Worker(job)
            worker(0)
            status = job.out.status[0]
            found = Reference.of(worker.solver.getBasis()) if status == Status.OPTIMAL else None
            if status == Status.TIME_LIMIT:  # says nothing about the program
                return None
            form.derived[key] = found
        reference: Reference | None = form.derived[key]
        return reference

    def _options(self, form: StandardForm, time_limit: float | None) -> dict[str, Any]:
        presolve = self.presolve
        if presolve is None:
            presolve = form.is_mip or form.m + form.n > _SMALL or self.method == "ipm"
        options: dict[str, Any] = {
            "output_flag": False,
            # One thread an object: parallelism is over the batch, and results must not depend on it.
            "threads": 1,
            "presolve": "on" if presolve else "off",
            "solver": "ipx" if self.method == "ipm" else "simplex",
            "simplex_strategy": _PRIMAL if self.method == "primal" else 1,
            "run_crossover": "on" if self.crossover else "off",
            "primal_feasibility_tolerance": self.primal_tolerance,
            "dual_feasibility_tolerance": self.dual_tolerance,
            "mip_rel_gap": self.mip_rel_gap,
            "mip_abs_gap": self.mip_abs_gap,
            "random_seed": self.random_seed,
        }
        if form.is_mip:
            options["solver"] = "choose"
        if self.iteration_limit is not None:
            options["simplex_iteration_limit"] = self.iteration_limit
            options["ipm_iteration_limit"] = self.iteration_limit
        if time_limit is not None:
            options["time_limit"] = float(time_limit)
        return options


class _Job:
    """A batch being solved: what all threads read, and the rows that each item writes."""

    def __init__(
        self,
        form: StandardForm,
        data: Data,
        options: dict[str, Any],
        *,
        presolve_free_rows_only: bool,
    ) -> None:
        self.form, self.options = form, options
        self.presolve_free_rows_only = presolve_free_rows_only
        self.integrality = form.integrality.astype(np.int32)
        size = data.size
        arrays = [getattr(data, name) for name in FIELDS]
        self.fields = [(array, True) if len(array) > 1 else (array.ravel(), False) for array in arrays]
        self.out = BatchSolution.empty(form, size)
        self.vertex = options["solver"] == "simplex" or options["run_crossover"] == "on"
        # Without presolve the factors are there, and HiGHS lists the basic variables as an array.
        self.listed = not form.is_mip and options["solver"] == "simplex" and options["presolve"] == "off"
        self.basic = np.zeros((size, form.m), dtype=np.int64)
        self.reference: Reference | None = None
        self.warm = np.zeros(size, dtype=bool)

    def item(self, item: int) -> list[np.ndarray]:
        """The fields of one item, in the order of ``FIELDS``; shared ones are not even indexed."""
        return [array[item] if varies else array for array, varies in self.fields]

    def finish(self) -> BatchSolution:
        if self.listed and self.out.basic is not None:
            # j >= 0: column j (or logical j - n); -1 - i: the logical of row i.
            marks = np.where(self.basic >= 0, self.basic, self.form.n - 1 - self.basic)
            np.put_along_axis(self.out.basic, marks, True, axis=1)
        return self.out


class _Worker:
    """One solver object, and what it does to an item. The path of an optimal item is kept short."""

    def __init__(self, job: _Job) -> None:
        form = job.form
        self.job, self.form, self.out, self.options = job, form, job.out, job.options
        self.sizes = (form.n, form.m, form.nnz, _COLWISE, _MINIMIZE, 0.0)
        self.solver = _new_solver(job.options)
        self.basis = None if job.reference is None else job.reference.basis()

    def __call__(self, item: int) -> None:
        try:
            self._solve(self.solver, item)
        except Exception as error:
            # Whatever the binding throws belongs to this item alone; its message is not lost.
            self.out.status[item] = Status.ERROR
            self.out.messages[item] = f"HiGHS: {type(error).__name__}: {error}"
            self.solver = _new_solver(self.options)

    def _solve(self, solver: Any, item: int) -> None:
        out = self.out
        if self.form.n == 0:
            self._solve_without_columns(item)
            return
        if self.job.presolve_free_rows_only:
            _, _, row_lower, row_upper, _, _ = self.job.item(item)
            free = np.isinf(row_lower) & np.isinf(row_upper)
            solver.setOptionValue("presolve", "on" if free.any() else "off")
        if not self._load(solver, item):
            out.messages[item] = "HiGHS refused the model"
            return
        status = self._run_from_reference(solver, item) if self.job.warm[item] else self._run(solver)
        if status == HighsModelStatus.kOptimal:
            out.status[item] = Status.OPTIMAL
            self._read_optimum(solver, item)
            return
        if status == HighsModelStatus.kUnboundedOrInfeasible:
            status = self._run_for_ray(solver, item)
        out.status[item] = _STATUS.get(status, Status.ERROR)
        if out.status[item] == Status.OPTIMAL:
            self._read_optimum(solver, item)
        elif out.status[item] in (Status.INFEASIBLE, Status.UNBOUNDED):
            self._read_ray(solver, item)
        else:
            out.messages[item] = f"HiGHS: {solver.modelStatusToString(status)}"

    def _solve_without_columns(self, item: int) -> None:
        """HiGHS gives no basis here, and iteration counts that nobody set."""
        ray = self._ray_of_empty_row(item)
        if ray is not None:
            self.out.status[item], self.out.rays[item] = Status.INFEASIBLE, ray
            return
        self.out.status[item] = Status.OPTIMAL
        if self.out.y is not None and self.out.basic is not None:
            self.out.y[item], self.out.basic[item] = 0.0, self.job.vertex

    def _ray_of_empty_row(self, item: int) -> np.ndarray | None:
        """HiGHS sees an infeasible row without entries before simplex, and leaves no ray."""
        _, values, row_lower, row_upper, _, _ = self.job.item(item)
        entries = np.bincount(self.form.rows[values != 0], minlength=self.form.m)
        wrong = np.flatnonzero((entries == 0) & ((row_lower > 0) | (row_upper < 0)))
        if len(wrong) == 0:
            return None
        ray = np.zeros(self.form.m)
        ray[wrong[0]] = 1.0 if row_lower[wrong[0]] > 0 else -1.0
        return ray

    def _load(self, solver: Any, item: int) -> bool:
        form, job = self.form, self.job
        c, values, row_lower, row_upper, lower, upper = job.item(item)
        status = solver.passModel(
            *self.sizes,
            *(c, lower, upper, row_lower, row_upper, form.indptr, form.indices, values, job.integrality),
        )
        # A warning only says that tiny entries were dropped; the caller's certificate judges that.
        return bool(status != HighsStatus.kError)

    def _run(self, solver: Any) -> HighsModelStatus:
        if "time_limit" in self.options:
            # HiGHS's clock runs on over the solves of one object.
            solver.setOptionValue("time_limit", solver.getRunTime() + self.options["time_limit"])
        failed = solver.run() == HighsStatus.kError
        status = solver.getModelStatus()
        if failed and status == HighsModelStatus.kNotset:
            # The calling thread has met HiGHS with another number of threads; one of our own has not.
            thread = threading.Thread(target=solver.run)
            thread.start()
            thread.join()
            status = solver.getModelStatus()
        return status

    def _run_from_reference(self, solver: Any, item: int) -> HighsModelStatus:
        """Primal simplex, since the basis stays feasible; whatever has no optimum is solved again, cold."""
        solver.setOptionValue("simplex_strategy", _PRIMAL)
        solver.setBasis(self.basis)
        status = self._run(solver)
        solver.setOptionValue("simplex_strategy", self.options["simplex_strategy"])
        if status in (HighsModelStatus.kOptimal, HighsModelStatus.kTimeLimit):
            return status
        self._load(solver, item)
        return self._run(solver)

    def _read_optimum(self, solver: Any, item: int) -> None:
        out, form, job = self.out, self.form, self.job
        solution = solver.getSolution()  # a copy: take it once
        out.x[item] = solution.col_value
        if form.is_mip:
            assert out.bound is not None
            out.bound[item] = solver.getInfoValue("mip_dual_bound")[1]
            out.iterations[item] = solver.getInfoValue("mip_node_count")[1]
            return
        assert out.y is not None and out.basic is not None
        out.y[item] = solution.row_dual
        out.iterations[item] = solver.getInfoValue("simplex_iteration_count")[1]
        # Without any entry (HiGHS drops tiny ones) there are no factors, and the call would crash.
        if job.listed and solver.getNumNz() > 0:
            status, basic = solver.getBasicVariables()
            if status != HighsStatus.kOk:
                raise RuntimeError("no basis after an optimal simplex run")
            job.basic[item] = basic
        elif job.vertex:
            basis = solver.getBasis()
            if basis.valid:
                is_basic = [s == HighsBasisStatus.kBasic for s in basis.col_status]
                is_basic += [s == HighsBasisStatus.kBasic for s in basis.row_status]
                out.basic[item] = is_basic
                job.basic[item] = np.flatnonzero(is_basic)
        if self.options["solver"] != "simplex":
            out.iterations[item] = max(out.iterations[item], solver.getInfoValue("ipm_iteration_count")[1])

    def _read_ray(self, solver: Any, item: int) -> None:
        """A Farkas ray or an unbounded direction; dual simplex without presolve is sure to leave one."""
        if self.form.is_mip:
            return
        infeasible = self.out.status[item] == Status.INFEASIBLE
        ray = _ray(solver, infeasible)
        if ray is None:
            solver = _new_solver(self.options | _RAY_OPTIONS)
            if self._load(solver, item):
                status = _STATUS.get(self._run(solver))
                if status == self.out.status[item]:
                    ray = _ray(solver, infeasible)
        if ray is None and infeasible:
            ray = self._ray_of_empty_row(item)
        if ray is not None:
            self.out.rays[item] = ray

    def _run_for_ray(self, solver: Any, item: int) -> HighsModelStatus:
        for key, value in _RAY_OPTIONS.items():
            solver.setOptionValue(key, value)
        self._load(solver, item)
        status = self._run(solver)
        for key in _RAY_OPTIONS:
            solver.setOptionValue(key, self.options[key])
        return status


_RAY_OPTIONS = {"solver": "simplex", "simplex_strategy": 1, "presolve": "off"}


def _new_solver(options: dict[str, Any]) -> Any:
    solver = highspy._core._Highs()
    for key, value in options.items():
        if solver.setOptionValue(key, value) == HighsStatus.kError:
            raise ValueError(f"HiGHS refuses the option {key}={value!r}")
    return solver


def _ray(solver: Any, infeasible: bool) -> np.ndarray | None:
    status, exists, ray = solver.getDualRay() if infeasible else solver.getPrimalRay()
    return np.array(ray) if status == HighsStatus.kOk and exists else None
