"""evaluate: a batch of problems inside a torch graph, by their oracle where that serves, or by their LP."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .autograd import apply, eager
from .estimate import EstimateOperation
from .gradients import AbstractEstimator, AbstractGradient, AbstractProgramRule, Exact, make_gradient
from .oracle import IndicatorOperation, OracleOperation, ProblemOracle, densified, marginals, sparsified
from .problem import AbstractProblem, Parameter, Proposal, costs_of
from .settings import UNSET, Settings, shared_settings
from .solution import Solution
from .solve import solve
from .status import Status

__all__ = ["Evaluation", "evaluate"]

_OK = int(Status.OPTIMAL)
_CPU = torch.device("cpu")
_READ = (torch.float64, torch.float32)


@eager
def evaluate(
    problem: AbstractProblem,
    *parameters: Any,
    solver: Any = UNSET,
    options: Mapping[str, Any] | None = None,
    threads: int | None = UNSET,
    time_limit: float | None = UNSET,
    tolerance: float = UNSET,
    gradient: Any = UNSET,
    throw: bool = True,
    sparse_gradient: bool = False,
) -> Evaluation:
    """Solve a batch of problems; every cost parameter may carry gradients.

    With ``solver="auto"`` the problem's oracle is asked, if it has one; otherwise, and for rules that need
    duals, its LP is solved by ``lpdiff.solve``. Both are exact. A rule for the derivative of the solution
    (``gradient=``) is one in the cost parameters.

    Args:
        problem: The problem.
        parameters: Its parameters, (*batch, *shape) each; batches broadcast. torch tensors of any floating
            dtype on any device, NumPy arrays or numbers; None for data that are not given.
        solver, options, threads, time_limit, tolerance, gradient, throw: As in ``lpdiff.solve``.
        sparse_gradient: The gradients of parameters with more than one dimension are sparse COO tensors,
            as those of ``torch.nn.Embedding(sparse=True)``. For leaves too large for a dense gradient.

    Raises:
        ValueError: shapes or dtypes that do not fit.
        SolveError: an item without an optimum (unless ``throw=False``).
    """
    settings = shared_settings(
        solver=solver, threads=threads, time_limit=time_limit, tolerance=tolerance, gradient=gradient
    )
    rule = make_gradient(settings.gradient)
    inputs = _arrange(problem, parameters)
    direct = problem.has_oracle and settings.solver == "auto" and not options and not inputs.needs_duals
    general = functools.partial(_general, problem, settings, options)
    oracle = ProblemOracle(problem, settings.thread_count, direct, general)
    if direct and not isinstance(rule, AbstractProgramRule):
        return _by_oracle(oracle, inputs, rule, throw, sparse_gradient)
    solution = _by_lp(problem, inputs.whole, settings, options, rule, throw)
    value = inputs.like_user(solution.value)
    return Evaluation(problem, value, inputs, solution.status, solution.solver, oracle, rule, solution)


# -- what comes back ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Solutions of a batch of problems.

    Attributes:
        value: (*batch,) optimal values, with exact generalized gradients in the cost parameters; +inf where
            infeasible and NaN where nothing is known (such items send zero gradients).
        status: (*batch,) int8 of ``Status``.
        solver: ``"oracle"``, or the backend that solved most of the LPs.
        solution: The LP's Solution where the LP was solved, else None.
    """

    problem: AbstractProblem
    value: torch.Tensor
    inputs: Inputs
    status: torch.Tensor
    solver: str
    oracle: ProblemOracle
    rule: AbstractGradient | None = None
    solution: Solution | None = None
    found: tuple[torch.Tensor, ...] = ()
    estimates: dict[bool, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def ok(self) -> torch.Tensor:
        """(*batch,) bool."""
        return self.status == _OK

    @cached_property
    def moments(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """A pair (index, weight) a cost parameter, each (B, K) on the CPU, B = all items in a row."""
        if self.solution is not None:
            with torch.no_grad():
                dense = marginals(self.problem, self.inputs.whole, torch.nan_to_num(self.solution.vertex))
                # What rounding left of zeros and ones is no part of the solution's vertex.
                pairs = [
                    sparsified(m.reshape(self.inputs.size, math.prod(p.shape)).numpy())
                    for m, p in zip(dense, self.problem.parameters, strict=False)
                ]
            return tuple((torch.from_numpy(p.index), torch.from_numpy(p.weight)) for p in pairs)
        return tuple(zip(self.found[::2], self.found[1::2], strict=True))

    def indicator(self, k: int = 0) -> torch.Tensor:
        """The k-th parameter's moments in its own shape, (*batch, *shape): dense, made when asked for.

        Piecewise constant in the costs: a gradient through it is refused, unless a rule was chosen. A rule
        that smooths changes the moments themselves.
        """
        if isinstance(self.rule, AbstractEstimator):
            return self._estimated()[k]
        return self.inputs.like_user(self._plain(k))

    def total(self, k: int = 0) -> torch.Tensor:
        """(*batch,) the sum of the k-th parameter's moments: how often it is paid. Gradients are
        those of the rule that was chosen, or none."""
        if isinstance(self.rule, AbstractEstimator):
            return self.indicator(k).flatten(len(self.inputs.batch_shape)).sum(-1)
        return self.inputs.like_user(self.moments[k][1].sum(1).reshape(self.inputs.batch_shape))

    def by_lp(self) -> Solution:
        """The LP's Solution, solved now (as ``lpdiff.solve`` does by default) where the oracle was asked."""
        if self.solution is not None:
            return self.solution
        return solve(self.problem, *self.inputs.whole, gradient=self.rule, throw=False)

    def _plain(self, k: int) -> torch.Tensor:
        """The moments without an estimator, (*batch, *shape) float64 on the CPU."""
        if self.solution is not None:
            return marginals(self.problem, self.inputs.whole, self.solution.x)[k]
        shape = self.problem.parameters[k].shape
        index, weight = self.moments[k]
        costs = [t for t in self._costs if t is not None and _traced(t)]
        if costs and torch.is_grad_enabled():
            exact = isinstance(self.rule, Exact)
            (dense,) = apply(IndicatorOperation(math.prod(shape), exact), index, weight, *costs)
        else:
            dense = densified(index, weight, math.prod(shape))
        return dense.reshape(*self.inputs.batch_shape, *shape)

    @property
    def _costs(self) -> list[torch.Tensor | None]:
        return self.inputs.flat[: costs_of(self.problem.parameters)]

    @cached_property
    def _operation(self) -> EstimateOperation:
        """One for both, so that random numbers are the same with gradients recorded and without."""
        assert isinstance(self.rule, AbstractEstimator)
        return EstimateOperation(self.oracle, self.rule, len(self._costs))

    def _estimated(self) -> list[torch.Tensor]:
        """All moments under an estimator; the same ones (of random ones too) whenever they are asked for."""
        place = torch.is_grad_enabled()
        if place in self.estimates:
            return self.estimates[place]
        inputs, count = self.inputs, len(self._costs)
        base = dataclasses.replace(
            self, rule=Exact(), solution=self.solution and self.solution.under("exact")
        )
        sizes = [math.prod(p.shape) for p in self.problem.parameters[:count]]
        with torch.set_grad_enabled(place and inputs.needs_duals):  # in its costs x has the rule's, not these
            x = torch.cat([base._plain(k).reshape(inputs.size, size) for k, size in enumerate(sizes)], dim=1)
        costs = [self.problem.program.form.to_min(t) for t in self._costs]
        ok = (self.status == _OK).reshape(inputs.size).cpu()
        found = apply(self._operation, *costs, *inputs.flat[count:], x, ok)[0].split(sizes, dim=1)
        self.estimates[place] = [
            inputs.like_user(part.reshape(*inputs.batch_shape, *p.shape))
            for part, p in zip(found, self.problem.parameters, strict=False)
        ]
        return self.estimates[place]


# -- the two ways ------------------------------------------------------------------------------------------


def _by_oracle(
    oracle: ProblemOracle,
    inputs: Inputs,
    rule: AbstractGradient | None,
    throw: bool,
    sparse_gradient: bool,
) -> Evaluation:
    problem = oracle.problem
    tensors, sparse = inputs.flat, frozenset[int]()
    if sparse_gradient:
        tensors, sparse = _for_sparse(problem, inputs)
    operation = OracleOperation(problem, oracle.threads, throw, inputs.batch_shape, sparse, oracle.general)
    value, status, *found = apply(operation, *tensors)
    if len(inputs.batch_shape) != 1:
        value, status = value.reshape(inputs.batch_shape), status.reshape(inputs.batch_shape)
    value = inputs.like_user(value)
    return Evaluation(problem, value, inputs, status, "oracle", oracle, rule, None, tuple(found))


def _for_sparse(problem: AbstractProblem, inputs: Inputs) -> tuple[list[torch.Tensor | None], frozenset[int]]:
    """The node's inputs, and which of them come in the user's own shape to get a sparse gradient."""
    tensors, sparse = list(inputs.flat), set()
    for k, (p, whole) in enumerate(zip(problem.parameters, inputs.whole, strict=True)):
        if whole is None or not (p.is_cost and len(p.shape) > 1 and _traced(whole)):
            continue
        own = tuple(whole.shape[: whole.dim() - len(p.shape)])
        if k in inputs.moved or not (own == inputs.batch_shape or math.prod(own) == 1):
            told = "float64" + (", float32" if p.compact else "")
            raise ValueError(
                f"sparse_gradient: {p.name} must be of dtype {told} on the CPU, and have the whole batch "
                f"{inputs.batch_shape} or none, got {own}: torch cannot take a sparse gradient through what "
                f"would make it so"
            )
        tensors[k] = whole
        sparse.add(k)
    return tensors, frozenset(sparse)


def _by_lp(
    problem: AbstractProblem,
    parameters: Sequence[torch.Tensor | None],
    settings: Settings,
    options: Mapping[str, Any] | None,
    rule: AbstractGradient | None,
    throw: bool,
) -> Solution:
    return solve(
        problem,
        *parameters,
        solver=settings.solver,
        options=options,
        threads=settings.threads,
        time_limit=settings.time_limit,
        tolerance=settings.tolerance,
        gradient=rule,
        throw=throw,
    )


def _general(
    problem: AbstractProblem,
    settings: Settings,
    options: Mapping[str, Any] | None,
    arrays: Sequence[np.ndarray | None],
) -> Proposal:
    """Items by their LP: those that the oracle refused, or all."""
    tensors: list[torch.Tensor | None] = []
    for array in arrays:
        tensor = None if array is None else torch.from_numpy(np.ascontiguousarray(array))
        tensors.append(tensor.double() if tensor is not None and tensor.is_floating_point() else tensor)
    with torch.no_grad():
        solution = _by_lp(problem, tensors, settings, options, None, throw=False)
        dense = marginals(problem, tensors, torch.nan_to_num(solution.x))
    moments = tuple(sparsified(m.reshape(len(m), m[0].numel()).numpy()) for m in dense)
    return Proposal(solution.value.numpy(), solution.status.numpy(), moments, solution.messages)


# -- from what users pass to the tensors of the node -------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Inputs:
    """``flat``: (1|B, *shape) on the CPU, in the dtypes the oracle reads. ``whole``: (*batch, *shape)."""

    flat: list[torch.Tensor | None]
    whole: list[torch.Tensor | None]
    batch_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    needs_duals: bool  # whether gradients are asked for in a side
    moved: frozenset[int] = frozenset()  # parameters whose dtype or device was another

    @property
    def size(self) -> int:
        return math.prod(self.batch_shape)

    def like_user(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor.to(self.device)
        return tensor.to(device=self.device, dtype=self.dtype)


def _arrange(problem: AbstractProblem, parameters: Sequence[Any]) -> Inputs:
    wanted = problem.parameters
    if len(parameters) != len(wanted):
        told = ", ".join(p.name for p in wanted)
        raise ValueError(f"expected {len(wanted)} parameters ({told}), got {len(parameters)}")
    dtype: torch.dtype | None = None
    device = _CPU
    whole: list[torch.Tensor | None] = []
    shapes: list[tuple[int, ...] | None] = []
    needs_duals, moved = False, []
    for k, (p, value) in enumerate(zip(wanted, parameters, strict=True)):
        if value is None and p.kind == "data":
            whole.append(None)
            shapes.append(None)
            continue
        tensor = _tensor(p, value)
        if not tensor.is_cpu:
            device = tensor.device
        if p.is_real and isinstance(value, torch.Tensor) and value.is_floating_point():
            own = tensor.dtype
            dtype = own if dtype is None or dtype == own else torch.promote_types(dtype, own)
        read = _read_as(p, tensor)
        if tensor.dtype is not read or not tensor.is_cpu:
            tensor = tensor.to(device=_CPU, dtype=read)
            moved.append(k)
        needs_duals |= p.kind == "side" and _traced(tensor)
        whole.append(tensor)
        shapes.append(tuple(tensor.shape[: tensor.dim() - len(p.shape)]))
    batch_shape = _broadcast(wanted, shapes)
    size = math.prod(batch_shape)
    flat: list[torch.Tensor | None] = []
    shared = size != 1
    for p, given, shape in zip(wanted, whole, shapes, strict=True):
        if given is None or shape is None:
            flat.append(None)
        elif shape == batch_shape:
            flat.append(given if len(shape) == 1 else given.reshape(size, *p.shape))
            shared = False
        elif math.prod(shape) == 1:
            flat.append(given.reshape(1, *p.shape))
        else:
            flat.append(given.expand(*batch_shape, *p.shape).reshape(size, *p.shape))
            shared = False
    if shared:  # nothing would tell the node the size of the batch
        assert flat[0] is not None
        flat[0] = flat[0].expand(size, *wanted[0].shape)
    return Inputs(
        flat,
        whole,
        batch_shape,
        torch.float64 if dtype is None else dtype,
        device,
        needs_duals,
        frozenset(moved),
    )


def _broadcast(wanted: Sequence[Parameter], shapes: Sequence[tuple[int, ...] | None]) -> tuple[int, ...]:
    distinct = {shape for shape in shapes if shape is not None}
    batch_shape = max(distinct, key=len)
    if distinct <= {batch_shape, ()}:
        return batch_shape
    try:
        return tuple(np.broadcast_shapes(*distinct))
    except ValueError:
        told = ", ".join(f"{p.name} {s}" for p, s in zip(wanted, shapes, strict=True) if s)
        raise ValueError(f"the batch dimensions do not broadcast: {told}") from None


def _traced(tensor: torch.Tensor) -> bool:
    return tensor.requires_grad or forward_ad.unpack_dual(tensor).tangent is not None


def _read_as(parameter: Parameter, tensor: torch.Tensor) -> torch.dtype:
    if not parameter.is_real:
        return torch.int64
    return torch.float32 if parameter.compact and tensor.dtype == torch.float32 else torch.float64


def _tensor(parameter: Parameter, value: Any) -> torch.Tensor:
    name, rank = parameter.name, len(parameter.shape)
    tensor = value
    if isinstance(value, torch.Tensor):
        usual = value.dtype in _READ and value.layout is torch.strided
        if usual and value.dim() >= rank and value.shape[value.dim() - rank :] == parameter.shape:
            return value
    else:
        try:
            # A copy: backward reads it again, and torch does not see what NumPy writes.
            tensor = torch.from_numpy(np.array(value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be numbers, got {type(value).__name__}: {error}") from None
    if tensor.is_complex() or (tensor.dtype == torch.bool and parameter.is_real):
        raise ValueError(f"{name} must be real numbers, got {tensor.dtype}")
    if tensor.layout != torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got {tensor.layout}: use .to_dense()")
    if parameter.is_real and not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if tensor.dim() < rank or tuple(tensor.shape[tensor.dim() - rank :]) != parameter.shape:
        expected = ", ".join(["*batch", *map(str, parameter.shape)])
        raise ValueError(f"{name}: expected shape ({expected}), got {tuple(tensor.shape)}")
    return tensor
