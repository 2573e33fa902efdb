"""The oracle's value as a node of the graph, and its moments between sparse and dense.

z(theta) = min <phi(v), theta> is concave and piecewise linear in theta, so dz/dtheta = phi(v*) almost
everywhere (a supergradient everywhere) and its second derivative is zero almost everywhere: the value's
pullback is linear in the cotangent and constant in theta. See problem.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from .autograd import AbstractOperation, Tensors, transformed
from .estimate import AbstractOracle, Minima
from .problem import AbstractProblem, Moments, Proposal, batch_size, costs_of, unshared
from .refusals import no_rule_error, solve_error
from .status import Certificate, Status

__all__ = [
    "IndicatorOperation",
    "OracleOperation",
    "ProblemOracle",
    "densified",
    "marginals",
    "proposed",
    "sparsified",
]

_REFUSED = int(Status.INACCURATE)

General = Callable[[Sequence[np.ndarray | None]], Proposal]
"""Solves items that the oracle refused."""


def proposed(
    problem: AbstractProblem, arrays: Sequence[np.ndarray | None], threads: int, general: General
) -> Proposal:
    """What the oracle finds; what it refuses goes on to the general solver."""
    found = problem.propose(*(arrays if problem.reads_shared else _whole(arrays)), threads=threads)
    if found.status.any():
        refused = np.flatnonzero(found.status == _REFUSED)
        if len(refused):
            _merge(found, refused, general([None if a is None else a[refused] for a in _whole(arrays)]))
    return found


@dataclass(eq=False)
class OracleOperation(AbstractOperation):
    """(parameters) -> (value, status, and index and weight of each cost parameter).

    A parameter of ``sparse`` comes in the user's own shape, for torch cannot reshape its sparse gradient.
    """

    problem: AbstractProblem
    threads: int
    throw: bool
    batch_shape: tuple[int, ...]
    sparse: frozenset[int]
    general: General
    differentiable: int = 1

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        if self.sparse:
            arrays = tuple(map(self._flat, range(len(arrays)), arrays))
        found = proposed(self.problem, arrays, self.threads, self.general)
        status = found.status
        if self.throw and status.any():
            size = len(status)
            shape = self.batch_shape if math.prod(self.batch_shape) == size else (size,)
            raise solve_error(_Failed(status, found.messages), shape)
        outputs = [found.value, status]
        for moments in found.moments:
            outputs += [moments.index, moments.weight]
        return tuple(outputs)

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        gz = grads[0]
        if gz is None:
            return (None,) * len(inputs)
        result: list[torch.Tensor | None] = []
        for k, (need, theta) in enumerate(zip(needs, inputs, strict=True)):
            if not need or theta is None:
                result.append(None)
                continue
            index, weight = outputs[2 + 2 * k], outputs[3 + 2 * k]
            assert index is not None and weight is not None
            weight = (gz[:, None] * weight).to(theta.dtype)
            if k in self.sparse:
                rank = len(self.problem.parameters[k].shape)
                result.append(_sparse_gradient(theta, index, weight, rank))
            else:
                result.append(_gradient(theta, index, weight))
        return tuple(result)

    def _flat(self, k: int, array: np.ndarray | None) -> np.ndarray | None:
        if array is None or k not in self.sparse:
            return array
        rank = len(self.problem.parameters[k].shape)
        return array.reshape(math.prod(array.shape[: array.ndim - rank]), *array.shape[array.ndim - rank :])

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        total: torch.Tensor | None = None
        for k, tangent in enumerate(tangents):
            if tangent is None or not tangent.is_floating_point():
                continue
            index, weight = outputs[2 + 2 * k], outputs[3 + 2 * k]
            assert index is not None and weight is not None
            flat = tangent.reshape(len(tangent), -1).expand(len(index), -1)
            term = (flat.gather(1, index).to(weight.dtype) * weight).sum(1)
            total = term if total is None else total + term
        return (total,)


@dataclass(eq=False)
class ProblemOracle(AbstractOracle):
    """A problem as the estimators see it: its cost parameters, flat and side by side, in the sense of min.

    ``general`` solves a whole batch where the problem's own oracle is not to be asked.
    """

    problem: AbstractProblem
    threads: int
    direct: bool
    general: General

    def minimise(self, costs: np.ndarray, fixed: Sequence[np.ndarray | None]) -> Minima:
        form = self.problem.program.form
        shapes = [p.shape for p in self.problem.parameters[: costs_of(self.problem.parameters)]]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        parts = [
            np.ascontiguousarray(part).reshape(len(costs), *shape)
            for part, shape in zip(np.split(form.to_min(costs), ends[:-1], axis=1), shapes, strict=True)
        ]
        arrays = [*parts, *fixed]
        if self.direct:
            found = proposed(self.problem, arrays, self.threads, self.general)
        else:
            found = self.general(_whole(arrays))
        sizes = map(math.prod, shapes)
        x = [_laid(m.index, m.weight, size) for m, size in zip(found.moments, sizes, strict=True)]
        return Minima(np.concatenate(x, axis=1), found.status, found.messages)


@dataclass(eq=False)
class IndicatorOperation(AbstractOperation):
    """(index, weight, costs that carry gradients) -> dense moments; its derivative is refused, or zero."""

    size: int
    exact: bool
    differentiable: int = 1

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        index, weight = arrays[0], arrays[1]
        assert index is not None and weight is not None
        return (_laid(index, weight, self.size),)

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        if not self.exact:
            raise no_rule_error()
        return tuple(
            torch.zeros_like(t) if need and t is not None else None
            for need, t in zip(needs, inputs, strict=True)
        )

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        if not self.exact:
            raise no_rule_error()
        return (None,)


def _gradient(theta: torch.Tensor, index: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    size = math.prod(theta.shape[1:])
    if len(theta) == 1 and len(index) != 1:  # shared by the batch
        flat = weight.new_zeros(size).index_add(0, index.reshape(-1), weight.reshape(-1))
    else:
        flat = densified(index, weight, size)
    return flat.reshape(theta.shape)


def _laid(index: np.ndarray, weight: np.ndarray, size: int) -> np.ndarray:
    """Moments, dense: (B, size)."""
    dense = np.zeros((len(index), size))
    np.add.at(dense, (np.arange(len(index))[:, None], index), weight)
    return dense


def densified(index: torch.Tensor, weight: torch.Tensor, size: int) -> torch.Tensor:
    if transformed(weight):
        return weight.new_zeros(len(index), size).scatter_add(1, index, weight)
    # Zeros by NumPy: torch's come from a thread that then waits for more to do, on the processor that the
    # next batch's matchings need. In place: twice as fast.
    zeros = np.zeros((len(index), size), weight.detach().numpy().dtype)
    return torch.from_numpy(zeros).scatter_add_(1, index, weight)


def _sparse_gradient(
    theta: torch.Tensor, index: torch.Tensor, weight: torch.Tensor, rank: int
) -> torch.Tensor:
    """In the shape of theta, of which the last ``rank`` dimensions are an item's."""
    shape = tuple(theta.shape)
    flat = index.numpy()
    if math.prod(shape[: theta.dim() - rank]) == len(flat):  # not shared by the batch
        flat = flat + math.prod(shape[theta.dim() - rank :]) * np.arange(len(flat))[:, None]
    kept = weight.detach().numpy() != 0
    places = torch.from_numpy(np.stack(np.unravel_index(flat[kept], shape)))
    found = torch.sparse_coo_tensor(places, weight[torch.from_numpy(kept)], shape, check_invariants=False)
    return found.coalesce()


def _whole(arrays: Sequence[np.ndarray | None]) -> list[np.ndarray | None]:
    """Arrays that all lead with the size of the batch."""
    size = batch_size(arrays)
    return [unshared(a, size) for a in arrays]


# -- moments ----------------------------------------------------------------------------------------------


def _merge(found: Proposal, items: np.ndarray, more: Proposal) -> None:
    found.value[items], found.status[items] = more.value, more.status
    for place, item in enumerate(items.tolist()):
        found.messages.pop(item, None)
        if place in more.messages:
            found.messages[item] = more.messages[place]
    merged = []
    for old, new in zip(found.moments, more.moments, strict=True):
        width = max(old.index.shape[1], new.index.shape[1])
        pair = []
        for a, b in ((old.index, new.index), (old.weight, new.weight)):
            wide = np.zeros((len(a), width), dtype=a.dtype)
            wide[:, : a.shape[1]] = a
            wide[items] = 0
            wide[items, : b.shape[1]] = b
            pair.append(wide)
        merged.append(Moments(*pair))
    found.moments = tuple(merged)


def marginals(
    problem: AbstractProblem, parameters: Sequence[torch.Tensor | None], x: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """(dc/dtheta)' x for each cost parameter, (*batch, *shape): differentiable in x."""
    count = costs_of(problem.parameters)
    batch = x.shape[:-1]
    with torch.enable_grad():
        leaves = [
            torch.zeros(*batch, *p.shape, dtype=x.dtype, device=x.device, requires_grad=True)
            for p in problem.parameters[:count]
        ]
        c = problem.data(*leaves, *parameters[count:])["c"]
        assert isinstance(c, torch.Tensor)
        found = torch.autograd.grad(
            c.expand(*batch, c.shape[-1]),
            leaves,
            x.to(c.dtype),
            create_graph=x.requires_grad,
            allow_unused=True,
        )
    return tuple(
        torch.zeros_like(leaf, requires_grad=False) if g is None else g
        for g, leaf in zip(found, leaves, strict=True)
    )


def sparsified(dense: np.ndarray) -> Moments:
    """(B, N) to sparse moments, in the order of the places."""
    dense = np.where(np.abs(dense) > 1e-9, dense, 0.0)
    item, place = np.nonzero(dense)
    count = np.bincount(item, minlength=len(dense))
    index = np.zeros((len(dense), int(count.max(initial=0))), dtype=np.int64)
    weight = np.zeros(index.shape)
    slot = np.arange(len(item)) - np.repeat(np.cumsum(count) - count, count)
    index[item, slot], weight[item, slot] = place, dense[item, place]
    return Moments(index, weight)


@dataclass(frozen=True, eq=False)
class _Failed:
    """What ``solve_error`` reads."""

    status: np.ndarray
    messages: dict[int, str]
    certificates: dict[int, Certificate] = field(default_factory=dict)
