"""solve: a batch of LPs inside a torch graph."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import torch

from .assemble import Inputs, assemble
from .auto import AUTO, GENERAL, learned, make_plan
from .autograd import apply, eager, transforms_active
from .engine import Plan
from .gradients import make_gradient
from .operations import SolveOperation
from .parametric import AbstractParametricProgram
from .program import LinearProgram
from .settings import UNSET, Settings, shared_settings
from .solution import Solution

__all__ = ["plan", "solve"]

Program = LinearProgram | AbstractParametricProgram

# Plans kept with a program: its compiled form does not change, so what a backend prepared can serve
# again. Explicit in lp.plans, dropped when the program is pickled or copied.
_PLANS = 8


def plan(
    program: Program,
    *,
    learn: Any = None,
    solver: Any = UNSET,
    options: Mapping[str, Any] | None = None,
    threads: int | None = UNSET,
    time_limit: float | None = UNSET,
    tolerance: float = UNSET,
) -> Plan:
    """How ``solve`` would solve this program, prepared: print it, or pass it as ``solve(..., plan=...)``.

    Args:
        learn: Sample costs, (samples, n). The vertices that are optimal at them (the 32 most frequent) are
            kept in the plan, and each item is tried against them before any other solver is asked. For
            programs of at most 512 rows of which only the costs change. What was learned does not change
            with use, so results depend on no history.

    Raises:
        BackendError, ValueError: an unknown solver or option; samples of a wrong shape.
        UnsupportedError: a program that the solver cannot take, or too large to learn from.
    """
    settings = shared_settings(solver=solver, threads=threads, time_limit=time_limit, tolerance=tolerance)
    lp = _linear(program)
    made = _plan(lp, settings, options)
    if learn is None:
        return made
    costs = assemble(lp, {"c": learn}).tensors[0]
    assert costs is not None
    return learned(made, dataclasses.replace(lp.form.declared, c=costs.detach().numpy()))


@eager
def solve(
    program: Program,
    *parameters: Any,
    c: Any = None,
    b: Any = None,
    b_ub: Any = None,
    b_eq: Any = None,
    row_lower: Any = None,
    row_upper: Any = None,
    A_values: Any = None,
    bounds: Any = None,
    offset: Any = None,
    solver: Any = UNSET,
    options: Mapping[str, Any] | None = None,
    threads: int | None = UNSET,
    time_limit: float | None = UNSET,
    tolerance: float = UNSET,
    gradient: Any = UNSET,
    throw: bool = True,
    plan: Plan | None = None,
) -> Solution:
    """Solve a batch of LPs; every argument may carry gradients.

    Leading dimensions are the batch and broadcast against each other. Data may be torch tensors of any
    floating dtype on any device, NumPy arrays or numbers; the work is done in float64 on the CPU, and the
    solution comes back in the promoted dtype and on the device of the tensors given (float64 on the CPU
    where none is).

    Args:
        program: A LinearProgram, or a program with parameters (``from_cvxpy``).
        parameters: Values of a parametric program's parameters, (*batch, *shape) each.
        c: Costs, (*batch, n).
        b: Right-hand sides, (*batch, m): of = rows both sides, of <= rows the upper, of >= rows the lower.
        b_ub, b_eq: The same for the blocks declared as A_ub and A_eq: (*batch, m_ub), (*batch, m_eq).
        row_lower, row_upper: Both sides of all rows, (*batch, m).
        A_values: Stored entries of A, (*batch, nnz), at ``(lp.rows, lp.cols)``; ``lp.gather`` reads them
            off a dense matrix.
        bounds: A pair (lower, upper), each (*batch, n), a number, or None to keep what was declared.
        offset: A constant added to the objective, (*batch,), instead of the declared one.
        solver: A backend's name or a configured backend; see ``lpdiff.options`` for the other ways.
        options: The backend's options, over the configured ones.
        threads: Threads over the batch.
        time_limit: Seconds an LP may take, None for no limit.
        tolerance: Relative tolerance of the optimality certificate.
        gradient: The rule for dx/dc: None, ``"exact"`` or another name, or a rule object.
        throw: Raise where an LP has no certified optimum; False returns statuses instead.
        plan: A plan made by ``lpdiff.plan``; excludes solver, options, threads, time_limit, tolerance.

    Returns:
        A Solution; its tensors have shape (*batch, ...).

    Raises:
        ValueError: shapes or dtypes that do not fit, contradictory arguments.
        SolveError: infeasible, unbounded, NaN or out of time (unless ``throw=False``).
        BackendError: a solver that is unknown or not installed.
        UnsupportedError: what the program or the solver does not offer.
    """
    lp = _linear(program)
    given = {
        "c": c,
        "b": b,
        "b_ub": b_ub,
        "b_eq": b_eq,
        "row_lower": row_lower,
        "row_upper": row_upper,
        "A_values": A_values,
        "bounds": bounds,
        "offset": offset,
    }
    given = {key: value for key, value in given.items() if value is not None}
    # The result's dtype and device follow what the user gave, not what a parametric program made of it.
    witnesses = given
    if parameters or program is not lp:
        witnesses = {**given, **{f"parameter {k}": value for k, value in enumerate(parameters)}}
        given = _with_parameters(program, parameters, given)
    settings = shared_settings(
        solver=solver,
        threads=threads,
        time_limit=time_limit,
        tolerance=tolerance,
        gradient=gradient,
    )
    if plan is None:
        plan = _plan(lp, settings, options)
    elif options or any(v is not UNSET for v in (solver, threads, time_limit, tolerance)):
        raise ValueError("plan= already says solver, options, threads, time_limit and tolerance")
    elif not plan.form.same_as(lp.form):
        raise ValueError("this plan was made for another program: make one with lpdiff.plan(program)")

    inputs = assemble(lp, given, witnesses)
    if lp.is_mip:
        inputs.refuse_gradients_but_c()
    rule = make_gradient(settings.gradient)
    operation = SolveOperation(plan, throw, inputs.batch_shape, lean=not transforms_active())
    outputs = apply(operation, *inputs.tensors)
    solved, operation.solved = operation.solved, None  # the graph keeps the tensors that it needs, no more
    assert solved is not None
    return Solution(
        lp,
        _value(lp, inputs, outputs[0]),
        plan,
        rule,
        inputs,
        functools.partial(operation.known, outputs),
        solved,
        torch.is_grad_enabled(),
        program if isinstance(program, AbstractParametricProgram) else None,
    )


def _linear(program: Any) -> LinearProgram:
    if isinstance(program, LinearProgram):
        return program
    if isinstance(program, AbstractParametricProgram):
        return program.program
    hint = ""
    if type(program).__module__.startswith("cvxpy"):
        hint = "; a CVXPY problem is declared with lpdiff.from_cvxpy(problem)"
    raise TypeError(f"expected a LinearProgram, got {type(program).__name__}{hint}")


def _with_parameters(program: Program, parameters: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    if isinstance(program, LinearProgram):
        if parameters:
            raise TypeError("a LinearProgram takes its data by name: solve(lp, c=...)")
        return given
    data = program.data(*parameters)
    both = sorted(set(data) & set(given))
    if both:
        raise ValueError(f"{both[0]} is determined by the program's parameters: it cannot be given too")
    return {**data, **given}


def _plan(lp: LinearProgram, settings: Settings, options: Mapping[str, Any] | None) -> Plan:
    solver, threads = settings.solver, settings.thread_count
    general = GENERAL if isinstance(solver, str) and solver == AUTO else solver
    merged = settings.options_of(general)
    if options:
        merged = {**merged, **options}
    told = repr(sorted(merged.items())) if merged else ""
    key = (settings.planning, threads, told, bool(options))
    # Several threads may pass here with one program: each step is atomic, and a plan made twice is no harm.
    found = lp.plans.get(key)
    if found is None:
        found = make_plan(
            lp.form,
            solver,
            merged,
            given=bool(options),
            threads=threads,
            time_limit=settings.time_limit,
            tolerance=settings.tolerance,
        )
        for oldest in list(lp.plans)[: max(0, len(lp.plans) - _PLANS + 1)]:
            lp.plans.pop(oldest, None)
        lp.plans[key] = found
    return found


def _value(lp: LinearProgram, inputs: Inputs, value: torch.Tensor) -> torch.Tensor:
    """In the user's signs, shape, dtype and device, with what is added to it."""
    value = lp.form.to_min(value)
    if len(inputs.batch_shape) != 1:
        value = value.reshape(inputs.batch_shape)
    value = inputs.like_user(value)
    if inputs.offset is not None:
        return value + inputs.offset
    return value + lp.offset if lp.offset else value
