"""The solve as a differentiable operation.

The value is the Lagrangian at the solution, so with x, y, d from the solver (theory: Freund 1985; De Wolf
and Smeers 2021 for A; Gao et al., arXiv 1910.08211)

    dz/dc = x,  dz/dA_ij = -y_i x_j,  dz/drl = y+,  dz/dru = -y-,  dz/dl = d+,  dz/du = -d-.

Backward multiplies these by the cotangent of z. Where more derivatives are to come it does so in torch
arithmetic on ``Vertex`` (vertex.py), so that a second backward finds the derivatives of x and y; otherwise on
the numbers that the solve left. d = c - A'y is such arithmetic too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .autograd import AbstractOperation, Tensors, apply, reduce_to, transformed
from .engine import Plan
from .gradients import Exact
from .kkt import Judged
from .reading import INFINITY
from .refusals import refuse_integers, solve_error
from .solved import Solved
from .vertex import Known, Vertex, data_of, reduced_costs

__all__ = ["REPORT", "Report", "SolveOperation"]

REPORT = ("status", "gap", "primal_residual", "dual_residual", "iterations", "fallback")


@dataclass(eq=False)
class SolveOperation(AbstractOperation):
    """(c, values, row_lower, row_upper, lower, upper) -> (value, x, y), in the sense of min.

    Inputs that are None stand for the declared numbers. x and y are numbers: what carries their derivatives
    is a ``Vertex`` made of them. Where items failed, or bases are known already, status and basic follow.

    ``lean``: where neither is so, the value alone is an output, and the rest is kept here until it is asked
    for. Not under transforms, which may fold what a node returns, but nothing else.
    """

    plan: Plan
    throw: bool
    batch_shape: tuple[int, ...]
    lean: bool = False
    differentiable: int = 1
    judged: Judged | None = field(default=None, repr=False)  # what a lean node keeps
    solved: Solved | None = field(default=None, repr=False)  # by the last forward, for who asks for it
    fine: bool = field(default=False, repr=False)  # no item failed
    pushed: bool = field(default=False, repr=False)  # forward mode went through

    def forward(self, *arrays: np.ndarray | None) -> tuple[np.ndarray, ...]:
        solved = self.solved = self.plan.solve(data_of(self.plan.form, arrays))
        self.fine = solved.all_ok
        if self.throw and not self.fine:
            raise solve_error(solved, self.batch_shape)
        judged = solved.judged
        if self.fine and not solved.basic.shape[1]:
            if self.lean:
                self.judged = judged
                return (judged.value,)
            return judged.value, judged.x, judged.y
        return judged.value, judged.x, judged.y, solved.status, solved.basic

    def known(self, outputs: Sequence[Any]) -> Known:
        """What the solve left, out of what it returned."""
        judged = self.judged
        if judged is None:
            return Known(*outputs[1:])
        return Known(torch.from_numpy(judged.x), torch.from_numpy(judged.y))

    def backward(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors, grads: Tensors) -> Tensors:
        gz = grads[0]
        assert gz is not None
        if not (self.pushed or torch.is_grad_enabled()) and self.fine and True not in needs[1:]:
            # The usual case, cut short: the gradient in the costs, and no more derivatives to come.
            c, judged = inputs[0], self.judged
            assert c is not None
            vertices = None if judged is None else judged.vertices
            if vertices is None or transformed(gz):
                x = outputs[1] if judged is None else torch.from_numpy(judged.x)
                assert x is not None
                gradient = x.mul(gz.unsqueeze(1))
            else:
                gradient = torch.from_numpy(vertices.times(np.ascontiguousarray(gz.numpy())))
            return (reduce_to(gradient, c), None, None, None, None, None)
        if self.plan.form.is_mip and any(needs[1:]):
            refuse_integers()
        g = self.known(outputs).finite(gz[:, None])
        return tuple(
            None if gradient is None or t is None else reduce_to(g * gradient, t)
            for gradient, t in zip(self._value_gradients(needs, inputs, outputs), inputs, strict=True)
        )

    def jvp(self, inputs: Tensors, outputs: Tensors, tangents: Tensors) -> Tensors:
        self.pushed = True
        needs = [tangent is not None for tangent in tangents]
        if self.plan.form.is_mip and any(needs[1:]):
            refuse_integers()
        value = outputs[0]
        assert value is not None
        dz = torch.zeros_like(value)
        for tangent, gradient in zip(tangents, self._value_gradients(needs, inputs, outputs), strict=True):
            if tangent is not None and gradient is not None:
                # A side that takes no part has gradient zero, and an infinite one may have any tangent.
                dz = dz + torch.where(gradient == 0, gradient, gradient * tangent).sum(-1)
        return (dz,)

    def _value_gradients(self, needs: Sequence[bool], inputs: Tensors, outputs: Tensors) -> Tensors:
        """dz/d(field), each (B, k). An equality (or a fixed variable) is routed by its dual's sign."""
        form, left = self.plan.form, self.known(outputs)
        both = apply(Vertex(self.plan, Exact(), duals=any(needs[1:])), *inputs, *left)
        x = left.finite(both[0])
        if not any(needs[1:]):
            return (x if needs[0] else None, *[None] * 5)
        y = left.finite(both[1])
        values = None
        if needs[1]:
            rows = torch.tensor(form.rows, dtype=torch.long)
            cols = torch.tensor(form.cols, dtype=torch.long)
            values = -y[:, rows] * x[:, cols]
        zero = y.new_zeros(())
        d = reduced_costs(form, inputs, y, left) if needs[4] or needs[5] else y
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
                is_finite = True if bound is None else bound.abs() < INFINITY
                sides.append(torch.where(here & is_finite, dual, zero))
        return (x if needs[0] else None, values, *sides)


@dataclass(eq=False)
class Report(AbstractOperation):
    """The data of a solve to what is told of it, ``REPORT``: an operation, since ``vmap`` may fold them."""

    solved: Solved
    differentiable: int = 0

    def forward(self, *arrays: Any) -> tuple[np.ndarray, ...]:
        solved, judged = self.solved, self.solved.judged
        numbers = judged.gap, judged.primal_residual, judged.dual_residual
        return solved.status, *numbers, solved.iterations, solved.fallbacks
