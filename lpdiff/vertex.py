"""The optimal vertex and its duals as operations, and the operations of their derivatives.

``Vertex`` stands between the data and a solution that is known already: its forward hands x and y on, its
derivatives go through the basis (basis.py), or all of them through a program rule. It is made where x, y or a
derivative of a derivative is asked for, so that the value alone pays for none of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from .autograd import AbstractOperation, Tensors, apply, reduce_to
from .basis import Tangents, VertexPoint, vertex_jvp, vertex_vjp
from .engine import Plan
from .estimate import AbstractOracle, Minima
from .gradients import AbstractGradient, AbstractProgramRule, Exact, Optimum
from .refusals import changed_error, moved_error, no_rule_error, refuse_integers, reverse_only_error
from .standard import FIELDS, Data, StandardForm
from .status import Status, UnsupportedError

__all__ = [
    "STANDING",
    "Known",
    "ProgramOracle",
    "Vertex",
    "data_of",
    "reduced_costs",
    "standing",
]

STANDING = ("column_status", "row_status", "has_basis", "x_unique", "y_unique")


class Known(NamedTuple):
    """What a solve leaves; the last two are None where all is optimal and bases are found on demand."""

    x: torch.Tensor  # (B, n)
    y: torch.Tensor  # (B, m)
    status: torch.Tensor | None = None  # (B,)
    basic: torch.Tensor | None = None  # (B, n + m), or (B, 0): as in ``Solved``

    @property
    def ok(self) -> torch.Tensor:
        """(B,) bool: optimal."""
        if self.status is None:
            return torch.ones(len(self.x), dtype=torch.bool)
        return self.status == Status.OPTIMAL

    def finite(self, tensor: torch.Tensor) -> torch.Tensor:
        """(B, k), zero where the item failed (NaN there): its status says so."""
        if self.status is None:
            return tensor
        return torch.where(self.ok[:, None], tensor, tensor.new_zeros(()))


_FIELDS = len(FIELDS)


@dataclass(eq=False)
class Vertex(AbstractOperation):
    """(c, values, row_lower, row_upper, lower, upper; x, y, status, basic) to x, or to x and basic duals.

    ``rule``: ``Exact``, None (dx/dc is refused) or a program rule. ``changed``: the data are no longer those
    that were solved.
    """

    plan: Plan
    rule: AbstractGradient | None
    duals: bool
    changed: bool = False

    @property
    def differentiable(self) -> int:  # type: ignore[override]
        return 2 if self.duals else 1

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        fields, (x, y, status, basic) = arrays[:_FIELDS], arrays[_FIELDS:]
        assert x is not None and y is not None
        if not self.duals:
            return (x,)
        ok = np.ones(len(x), dtype=bool) if status is None else status == Status.OPTIMAL
        basic = np.zeros((len(x), 0), dtype=bool) if basic is None else basic
        return x, self.plan.basic_duals(_whole(data_of(self.plan.form, fields), len(x)), x, y, ok, basic)

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        fields, known = self._unchanged(inputs)
        gx, gy = (*grads, None)[:2]
        needs = needs[:_FIELDS]
        if self.plan.form.is_mip and any(needs[1:]):
            refuse_integers()
        if gx is not None and needs[0] and self.rule is None:
            raise no_rule_error()
        x, y = self._both(inputs, outputs)
        gx = torch.zeros_like(x) if gx is None else gx
        gy = torch.zeros_like(y) if gy is None else gy
        if isinstance(self.rule, AbstractProgramRule):
            if self.plan.form.is_mip:
                raise UnsupportedError(
                    f"{type(self.rule).__name__} needs duals, which an integer program has not: choose a "
                    f"rule that asks for solutions only (Interpolation), or drop integrality"
                )
            total = apply(_RulePullback(self.plan, self.rule), *fields, x, y, known.ok, gx, gy)
        else:
            operation = _Pullback(self.plan, want_values=needs[1])
            total = apply(operation, fields[1], x, y, *self._stand(fields, x, y, known), gx, gy)
        reduced = (
            reduce_to(g, t) if need and t is not None else None
            for g, t, need in zip(total, fields, needs, strict=True)
        )
        return (*reduced, *[None] * len(known))

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        fields, known = self._unchanged(inputs)
        tangents = tangents[:_FIELDS]
        x, y = self._both(inputs, outputs)
        if tangents[0] is not None and self.rule is None:
            raise no_rule_error()
        if isinstance(self.rule, AbstractProgramRule):
            raise reverse_only_error(self.rule)
        if self.plan.form.is_mip:
            return (torch.zeros_like(x), torch.zeros_like(y))[: self.differentiable]
        given = [
            torch.zeros_like(like) if tangent is None else tangent.expand_as(like)
            for tangent, like in zip((tangents[0], *tangents[2:]), (x, y, y, x, x), strict=True)
        ]
        state = self._stand(fields, x, y, known)
        pushed = apply(_Push(self.plan), fields[1], tangents[1], x, y, *state, *given)
        return pushed[: self.differentiable]

    def _both(self, inputs: Tensors, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """x and its basic duals; both carry derivatives where more are to come."""
        both = outputs if self.duals else apply(Vertex(self.plan, Exact(), duals=True), *inputs)
        x, y = both[0], both[1]
        assert x is not None and y is not None
        return x, y

    def _stand(self, fields: Tensors, x: Any, y: Any, known: Known) -> tuple[torch.Tensor, ...]:
        found = standing(self.plan, fields, x, y, known)
        return found["column_status"], found["row_status"], known.ok, found["has_basis"]

    def _unchanged(self, inputs: Tensors) -> tuple[Tensors, Known]:
        if self.changed:
            raise changed_error("derivatives")
        return inputs[:_FIELDS], _known(inputs)


# -- what else is known of a vertex ------------------------------------------------------------------------


def standing(plan: Plan, fields: Tensors, x: Any, y: Any, known: Known) -> dict[str, torch.Tensor]:
    """Bases and what they prove, ``STANDING``, at x and its basic duals; carries no derivatives."""
    given = [None if t is None else t.detach() for t in (*fields, x, y, known.status, known.basic)]
    return dict(zip(STANDING, apply(_Stand(plan), *given), strict=True))


def reduced_costs(form: StandardForm, fields: Tensors, y: torch.Tensor, known: Known) -> torch.Tensor:
    """d = c - A'y, (B, n); zero on columns that are known to be basic."""
    c = torch.from_numpy(form.declared.c.copy()) if fields[0] is None else fields[0]
    (product,) = apply(_Product(form, transposed=True), fields[1], y)
    d, basic = c - product, known.basic
    if basic is None or not basic.shape[1]:
        return d
    return torch.where(basic[:, : d.shape[1]], d.new_zeros(()), d)


def data_of(form: StandardForm, fields: Sequence[np.ndarray | None]) -> Data:
    """The numbers of a batch: those that were given, over those declared."""
    c, values, row_lower, row_upper, lower, upper = fields
    declared = form.declared
    if c is not None and values is row_lower is row_upper is lower is upper is None:
        return declared.with_costs(c)
    return Data(
        c=declared.c if c is None else c,
        values=declared.values if values is None else values,
        row_lower=declared.row_lower if row_lower is None else row_lower,
        row_upper=declared.row_upper if row_upper is None else row_upper,
        lower=declared.lower if lower is None else lower,
        upper=declared.upper if upper is None else upper,
    )


# -- the operations of the derivatives ---------------------------------------------------------------------


@dataclass(eq=False)
class _Pullback(AbstractOperation):
    """Cotangents of (x, y) to cotangents of the data, per item."""

    plan: Plan
    want_values: bool
    differentiable: int = 6

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, *rest = arrays
        x, y, column_status, row_status, ok, has_basis, gx, gy = _one_size(rest)
        form = self.plan.form
        if form.is_mip:
            # Only c is left (the rest is refused): dx/dc = 0.
            nothing = np.zeros((len(x), form.nnz if self.want_values else 0))
            return np.zeros_like(x), nothing, *(np.zeros_like(a) for a in (y, y, x, x))
        at = VertexPoint(form, _values(form, values), x, y, column_status, row_status, ok, has_basis)
        pulled = vertex_vjp(at, gx, gy, want_values=self.want_values)
        nothing = np.zeros((len(x), 0))
        values_out = nothing if pulled.values is None else pulled.values
        rows, bounds = (pulled.row_lower, pulled.row_upper), (pulled.lower, pulled.upper)
        return (pulled.c, values_out, *rows, *bounds)


@dataclass(eq=False)
class _Push(AbstractOperation):
    """Tangents of the data to tangents of (x, y), per item."""

    plan: Plan
    differentiable: int = 2

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, dvalues, *rest = arrays
        given = [] if dvalues is None else [dvalues]
        x, y, column_status, row_status, ok, has_basis, dc, *sides = _one_size([*rest, *given])[:11]
        form = self.plan.form
        at = VertexPoint(form, _values(form, values), x, y, column_status, row_status, ok, has_basis)
        return vertex_jvp(at, Tangents(dc, dvalues, *sides))


@dataclass(eq=False)
class _Stand(AbstractOperation):
    """The data, x, basic duals, and what is known of them: to ``STANDING``."""

    plan: Plan
    differentiable: int = 0

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        *fields, x, y, status, basic = arrays
        ok = np.ones(len(x), dtype=bool) if status is None else status == Status.OPTIMAL
        basic = np.zeros((len(x), 0), dtype=bool) if basic is None else basic
        found = self.plan.stand(data_of(self.plan.form, fields), x, y, ok, basic)
        return tuple(getattr(found, name) for name in STANDING)


@dataclass(eq=False)
class _Product(AbstractOperation):
    """(values, v) to A v, or A'v: bilinear, so its derivatives are products again."""

    form: StandardForm
    transposed: bool
    differentiable: int = 1

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, v = arrays
        values = _values(self.form, values)
        if len(v) == 1:
            v = np.repeat(v, len(values), axis=0)
        return ((self.form.transposed_times if self.transposed else self.form.times)(values, v),)

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        values, v, g = inputs[0], inputs[1], grads[0]
        assert v is not None and g is not None
        g_values = g_v = None
        if needs[0] and values is not None:
            rows, cols = (torch.tensor(k, dtype=torch.long) for k in (self.form.rows, self.form.cols))
            row, column = (v, g) if self.transposed else (g, v)
            g_values = reduce_to(row[:, rows] * column[:, cols], values)
        if needs[1]:
            (g_v,) = apply(_Product(self.form, not self.transposed), values, g)
            g_v = reduce_to(g_v, v)
        return g_values, g_v

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        assert outputs[0] is not None
        pushed = torch.zeros_like(outputs[0])
        for values, v in ((tangents[0], inputs[1]), (inputs[0], tangents[1])):
            if v is not None and (values is not None or v is tangents[1]):
                pushed = pushed + apply(self, values, v)[0]
        return (pushed,)


@dataclass(eq=False)
class _RulePullback(AbstractOperation):
    """Cotangents of (x, y) to those of the data by a program rule."""

    plan: Plan
    rule: AbstractProgramRule
    differentiable: int = 6

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        fields = arrays[:_FIELDS]
        x, y, ok, gx, gy = _one_size(arrays[_FIELDS:])
        form = self.plan.form
        data = _whole(data_of(form, fields), len(x))
        found = [np.zeros((len(x), k)) for k in (form.n, form.nnz, form.m, form.m, form.n, form.n)]
        items = np.flatnonzero(ok)
        if len(items):

            def optimum(data: Data, x: np.ndarray, y: np.ndarray) -> Optimum:
                return Optimum(x, y, data.c - form.transposed_times(data.values, y))

            def resolve(moved: Data) -> Optimum:
                solved = self.plan.solve(moved)
                if not solved.all_ok:
                    raise moved_error(self.rule, solved, items)
                x, y = solved.judged.x, solved.judged.y
                ok, basic = solved.status == Status.OPTIMAL, solved.basic
                return optimum(moved, x, self.plan.basic_duals(moved, x, y, ok, basic))

            part, entries = data.take(items), (form.rows, form.cols)
            here = optimum(part, x[items], y[items])
            pulled = self.rule.cotangents(resolve, entries, part, here, gx[items], gy[items])
            for array, name in zip(found, FIELDS, strict=True):
                given = getattr(pulled, name)
                if given is not None:
                    array[items] = given
        return tuple(found)


@dataclass(eq=False)
class ProgramOracle(AbstractOracle):
    """An LP as the estimators of dx/dc see it: fixed numbers are ``FIELDS`` without c."""

    plan: Plan

    def minimise(self, costs: np.ndarray, fixed: Sequence[np.ndarray | None]) -> Minima:
        solved = self.plan.solve(data_of(self.plan.form, (costs, *fixed)))
        return Minima(solved.judged.x, solved.status, solved.messages, solved.certificates)


# -- small pieces ------------------------------------------------------------------------------------------


def _known(inputs: Tensors) -> Known:
    x, y, status, basic = inputs[_FIELDS:]
    assert x is not None and y is not None
    return Known(x, y, status, basic)


def _values(form: StandardForm, array: np.ndarray | None) -> np.ndarray:
    return form.declared.values if array is None else array


def _whole(data: Data, size: int) -> Data:
    """Data of that many items, where all of one item's are shared."""
    return data if data.size == size else dataclasses.replace(data, c=np.repeat(data.c, size, axis=0))


def _one_size(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays that share an item, broadcast to the batch of the others (``vmap`` leaves such)."""
    size = min((len(a) for a in arrays if len(a) != 1), default=1)
    return [np.broadcast_to(a, (size, *a.shape[1:])) for a in arrays]
