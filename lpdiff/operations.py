"""The solve as a differentiable operation, and the operations of its derivatives.

The value is the Lagrangian at the solution, so with x, y, d from the solver (theory: Freund 1985; De Wolf
and Smeers 2021 for A; Gao et al., arXiv 1910.08211)

    dz/dc = x,  dz/dA_ij = -y_i x_j,  dz/drl = y+,  dz/dru = -y-,  dz/dl = d+,  dz/du = -d-.

Backward multiplies these by the cotangent of z in torch arithmetic on the node's own outputs, so a second
backward finds the derivatives of x and y (basis.py) without further code. d = c - A'y is such arithmetic too,
done when it is asked for; so is the reading of the bases (``standing``): the way to a value stays short.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .autograd import AbstractOperation, Tensors, apply
from .basis import Tangents, VertexPoint, vertex_jvp, vertex_vjp
from .engine import Plan
from .gradients import AbstractGradient
from .reading import INFINITY
from .refusals import no_rule_error, refuse_integers, solve_error
from .solved import Solved
from .standard import FIELDS, Data, StandardForm
from .status import SolveError, Status

__all__ = ["OUTPUTS", "REPORT", "STANDING", "SolveOperation"]

OUTPUTS = (
    # These carry derivatives. x comes twice: ``x`` is the user's, under the gradient rule for dx/dc;
    # ``x_exact`` is what the value's own gradient is made of, whose derivative in c is the exact zero.
    # The two share their memory, so neither is handed out as it is.
    *("value", "x_exact", "x", "y"),
    *("status", "basic", "report"),
)

# Columns of ``report``, (B, 6).
REPORT = ("gap", "primal_residual", "dual_residual", "iterations", "solvers", "fallback")

Outputs = dict[str, Any]  # tensors by name

STANDING = ("column_status", "row_status", "has_basis", "x_unique", "y_unique")


@dataclass(eq=False)
class SolveOperation(AbstractOperation):
    """(c, values, row_lower, row_upper, lower, upper) -> ``OUTPUTS``, in the sense of min.

    Inputs that are None stand for the declared numbers. ``solved`` keeps what no tensor can hold
    (certificates, messages) of the last forward.
    """

    plan: Plan
    rule: AbstractGradient | None
    throw: bool
    batch_shape: tuple[int, ...] | None
    differentiable: int = 4
    solved: Solved | None = field(default=None, repr=False)
    fine: bool = field(default=False, repr=False)  # no item failed

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        solved = self.solved = self.plan.solve(self.data(arrays))
        self.fine = solved.all_ok
        if self.throw and not self.fine:
            raise solve_error(solved, self.batch_shape)
        judged = solved.judged
        report = np.empty((len(solved.status), len(REPORT)))
        report[:, 0], report[:, 1] = judged.gap, judged.primal_residual
        report[:, 2], report[:, 3] = judged.dual_residual, solved.iterations
        report[:, 4], report[:, 5] = solved.solvers, solved.fallbacks
        return judged.value, judged.x, judged.x, judged.y, solved.status, solved.basic, report

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        if self.plan.form.is_mip and any(needs[1:]):
            refuse_integers()
        gz = grads[0]
        alone = grads[1] is None and grads[2] is None and grads[3] is None
        if gz is not None and alone and self.fine and True not in needs[1:]:
            # The usual case, cut short: the gradient of the value in the costs.
            return (_reduce(gz[:, None] * _req(outputs[1]), _req(inputs[0])), None, None, None, None, None)
        out = dict(zip(OUTPUTS, outputs, strict=True))
        total: list[torch.Tensor | None] = [None] * len(FIELDS)
        gz, gx_exact, gx, gy = grads
        if gz is not None:
            _accumulate(total, self._value_cotangents(needs, inputs, out, gz))
        if gx is not None and needs[0]:
            if self.rule is None:
                raise no_rule_error()
            pullback = _RulePullback(self)
            (gc,) = apply(pullback, *inputs, _req(out["x"]), _ok(out), gx)
            _accumulate(total, (gc, *[None] * 5))
        if any(g is not None for g in (gx_exact, gx, gy)):
            x, y = _req(out["x_exact"]), _req(out["y"])
            gx_all = _sum(gx_exact, gx)
            pulled = apply(
                _VertexPullback(self, want_values=needs[1]),
                *(inputs[1], x, y, *self._vertex_state(inputs, out)),
                torch.zeros_like(x) if gx_all is None else gx_all,
                torch.zeros_like(y) if gy is None else gy,
            )
            _accumulate(total, pulled)
        return tuple(
            _reduce(g, t) if need and g is not None and t is not None else None
            for g, t, need in zip(total, inputs, needs, strict=True)
        )

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        if self.plan.form.is_mip and any(t is not None for t in tangents[1:]):
            refuse_integers()
        out = dict(zip(OUTPUTS, outputs, strict=True))
        x, y = (self._finite(out[key], out) for key in ("x_exact", "y"))
        dz = torch.zeros_like(_req(out["value"]))
        for tangent, gradient in zip(
            tangents,
            self._value_gradients([t is not None for t in tangents], inputs, out, x, y),
            strict=True,
        ):
            if tangent is not None and gradient is not None:
                # A side that takes no part has gradient zero, and an infinite one may have any tangent.
                dz = dz + torch.where(gradient == 0, gradient, gradient * tangent).sum(-1)
        if self.plan.form.is_mip:
            return dz, torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(y)
        given = [
            torch.zeros_like(like) if tangent is None else tangent.expand_as(like)
            for tangent, like in zip((tangents[0], *tangents[2:]), (x, y, y, x, x), strict=True)
        ]
        dx, dy = apply(
            _VertexPush(self),
            *(inputs[1], tangents[1]),
            *(_req(out["x_exact"]), _req(out["y"]), *self._vertex_state(inputs, out), *given),
        )
        return dz, dx, dx.clone(), dy

    # -- on demand -------------------------------------------------------------------------------------

    def standing(self, inputs: Tensors, out: Outputs) -> dict[str, torch.Tensor]:
        """Bases and what they prove, ``STANDING``; carries no derivatives."""
        given = [None if t is None else t.detach() for t in inputs]
        x, y = _req(out["x_exact"]).detach(), _req(out["y"]).detach()
        found = apply(_Stand(self), *given, x, y, _ok(out), _req(out["basic"]))
        return dict(zip(STANDING, found, strict=True))

    def reduced_costs(self, inputs: Tensors, out: Outputs, y: torch.Tensor | None = None) -> torch.Tensor:
        """d = c - A'y, (B, n); zero on columns that are known to be basic."""
        y = _req(out["y"]) if y is None else y
        declared = self.plan.form.declared
        c = torch.from_numpy(declared.c.copy()) if inputs[0] is None else inputs[0]
        (product,) = apply(_Product(self.plan.form, transposed=True), inputs[1], y)
        d = c - product
        basic = _req(out["basic"])
        return torch.where(basic[:, : d.shape[1]], d.new_zeros(()), d) if basic.shape[1] else d

    def data(self, arrays: Sequence[np.ndarray | None]) -> Data:
        declared = self.plan.form.declared
        return Data(
            *(
                getattr(declared, name) if array is None else array
                for name, array in zip(FIELDS, arrays, strict=True)
            )
        )

    def values(self, array: np.ndarray | None) -> np.ndarray:
        return self.plan.form.declared.values if array is None else array

    def _vertex_state(self, inputs: Tensors, out: Outputs) -> tuple[torch.Tensor, ...]:
        standing = self.standing(inputs, out)
        return standing["column_status"], standing["row_status"], _ok(out), standing["has_basis"]

    def _finite(self, tensor: Any, out: Outputs) -> torch.Tensor:
        """Zero where the item failed (NaN there): its status says so."""
        if self.fine:
            return tensor
        return torch.where(_ok(out)[:, None], tensor, tensor.new_zeros(()))

    def _value_gradients(
        self,
        needs: Sequence[bool],
        inputs: Tensors,
        out: Outputs,
        x: torch.Tensor,
        y: torch.Tensor,
    ) -> Tensors:
        """dz/d(field), each (B, k). An equality (or a fixed variable) is routed by its dual's sign."""
        form = self.plan.form
        if not any(needs[1:]):
            return (x if needs[0] else None, *[None] * 5)
        values = None
        if needs[1]:
            rows = torch.tensor(form.rows, dtype=torch.long)
            cols = torch.tensor(form.cols, dtype=torch.long)
            values = -y[:, rows] * x[:, cols]
        zero = y.new_zeros(())
        d = self.reduced_costs(inputs, out, y) if needs[4] or needs[5] else y
        sides: list[torch.Tensor | None] = []
        for dual, need_lower, need_upper, lower, upper in (
            (y, needs[2], needs[3], inputs[2], inputs[3]),
            (d, needs[4], needs[5], inputs[4], inputs[5]),
        ):
            if not (need_lower or need_upper):
                sides += [None, None]
                continue
            at_lower = dual >= 0
            for need, here, bound in ((need_lower, at_lower, lower), (need_upper, ~at_lower, upper)):
                if not need:
                    sides.append(None)
                    continue
                # Rounding can leave a tiny dual on an infinite side; it has no derivative.
                finite = True if bound is None else bound.abs() < INFINITY
                sides.append(torch.where(here & finite, dual, zero))
        return (x if needs[0] else None, values, *sides)

    def _value_cotangents(
        self, needs: Sequence[bool], inputs: Tensors, out: Outputs, gz: torch.Tensor
    ) -> Tensors:
        x, y = (self._finite(out[key], out) for key in ("x_exact", "y"))
        g = self._finite(gz[:, None], out)
        gradients = self._value_gradients(needs, inputs, out, x, y)
        return tuple(None if gradient is None else g * gradient for gradient in gradients)


@dataclass(eq=False)
class _VertexPullback(AbstractOperation):
    """Cotangents of (x, y) to cotangents of the data, per item."""

    solve: SolveOperation
    want_values: bool
    differentiable: int = 6

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, *rest = arrays
        x, y, column_status, row_status, ok, has_basis, gx, gy = _one_size(rest)
        form = self.solve.plan.form
        if form.is_mip:
            # Only c is left (the rest is refused): dx/dc = 0.
            nothing = np.zeros((len(x), form.nnz if self.want_values else 0))
            return np.zeros_like(x), nothing, *(np.zeros_like(a) for a in (y, y, x, x))
        at = VertexPoint(form, self.solve.values(values), x, y, column_status, row_status, ok, has_basis)
        pulled = vertex_vjp(at, gx, gy, want_values=self.want_values)
        nothing = np.zeros((len(x), 0))
        values_out = nothing if pulled.values is None else pulled.values
        rows, bounds = (pulled.row_lower, pulled.row_upper), (pulled.lower, pulled.upper)
        return (pulled.c, values_out, *rows, *bounds)


@dataclass(eq=False)
class _VertexPush(AbstractOperation):
    """Tangents of the data to tangents of (x, y), per item."""

    solve: SolveOperation
    differentiable: int = 2

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, dvalues, *rest = arrays
        given = [] if dvalues is None else [dvalues]
        x, y, column_status, row_status, ok, has_basis, dc, *sides = _one_size([*rest, *given])[:11]
        form = self.solve.plan.form
        at = VertexPoint(form, self.solve.values(values), x, y, column_status, row_status, ok, has_basis)
        return vertex_jvp(at, Tangents(dc, dvalues, *sides))


@dataclass(eq=False)
class _Stand(AbstractOperation):
    """The data, x, y, which items are optimal, and the bases that are known: to ``STANDING``."""

    solve: SolveOperation
    differentiable: int = 0

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        *fields, x, y, ok, basic = arrays
        found = self.solve.plan.stand(self.solve.data(fields), x, y, ok, basic)
        return tuple(getattr(found, name) for name in STANDING)


@dataclass(eq=False)
class _Product(AbstractOperation):
    """(values, v) to A v, or A'v: bilinear, so its derivatives are products again."""

    form: StandardForm
    transposed: bool
    differentiable: int = 1

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        values, v = arrays
        values = self.form.declared.values if values is None else values
        if len(v) == 1:
            v = np.repeat(v, len(values), axis=0)
        return ((self.form.transposed_times if self.transposed else self.form.times)(values, v),)

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        values, v = inputs[0], _req(inputs[1])
        g = _req(grads[0])
        g_values = g_v = None
        if needs[0] and values is not None:
            rows, cols = (torch.tensor(k, dtype=torch.long) for k in (self.form.rows, self.form.cols))
            row, column = (v, g) if self.transposed else (g, v)
            g_values = _reduce(row[:, rows] * column[:, cols], values)
        if needs[1]:
            (g_v,) = apply(_Product(self.form, not self.transposed), values, g)
            g_v = _reduce(g_v, v)
        return g_values, g_v

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        pushed = torch.zeros_like(_req(outputs[0]))
        for values, v in ((tangents[0], inputs[1]), (inputs[0], tangents[1])):
            if v is not None and (values is not None or v is tangents[1]):
                pushed = pushed + apply(self, values, v)[0]
        return (pushed,)


@dataclass(eq=False)
class _RulePullback(AbstractOperation):
    """Cotangent of x to cotangent of c by the chosen gradient rule."""

    solve: SolveOperation
    differentiable: int = 1

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        *fields, x, ok, g = arrays
        x, ok, g = _one_size([x, ok, g])
        rule, plan = self.solve.rule, self.solve.plan
        assert rule is not None
        data = self.solve.data(fields)
        if data.size != len(x):
            data = dataclasses.replace(data, c=np.repeat(data.c, len(x), axis=0))
        gc = np.zeros_like(x)
        items = np.flatnonzero(ok)
        if len(items):

            def resolve(moved: Data) -> np.ndarray:
                solved = plan.solve(moved)
                if not solved.all_ok:
                    raise self._moved_too_far(solved, items)
                return solved.judged.x

            gc[items] = rule.cotangent(resolve, data.take(items), x[items], g[items])
        return (gc,)

    def _moved_too_far(self, solved: Solved, items: np.ndarray) -> SolveError:
        error = solve_error(solved, None)
        failed = np.flatnonzero(solved.status != Status.OPTIMAL)
        places = items[failed % len(items)]  # samples of an item follow the items in turns
        named = ", ".join(str(place) for place in dict.fromkeys(places.tolist()))
        return SolveError(
            f"{self.solve.rule!r} solves the program again at other costs, and there item(s) {named} have no "
            f"optimum: choose a rule that moves the costs less, or bound the variables\n{error}",
            items=[(int(place),) for place in places],
            statuses=error.statuses,
            certificates=error.certificates,
        )


# -- small pieces ------------------------------------------------------------------------------------------


def _req(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor


def _ok(out: Outputs) -> torch.Tensor:
    return out["status"] == 0  # OPTIMAL; looking it up in the enumeration takes longer


def _one_size(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays that share an item, broadcast to the batch of the others (``vmap`` leaves such)."""
    size = min((len(a) for a in arrays if len(a) != 1), default=1)
    return [np.broadcast_to(a, (size, *a.shape[1:])) for a in arrays]


def _sum(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _accumulate(total: list[torch.Tensor | None], more: Sequence[torch.Tensor | None]) -> None:
    for k, term in enumerate(more):
        total[k] = _sum(total[k], term)


def _reduce(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Sum over the items that share an input."""
    if like.shape[0] == 1 and gradient.shape[0] != 1:
        return gradient.sum(0, keepdim=True)
    return gradient
