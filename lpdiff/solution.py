"""What solve returns."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.autograd import forward_ad

from .gradients import AbstractGradient, Exact
from .operations import no_rule_error
from .program import LinearProgram
from .status import Certificate, Status, UnsupportedError

if TYPE_CHECKING:
    from .parametric import AbstractParametricProgram

__all__ = ["Basis", "Solution"]


@dataclass(frozen=True, eq=False)
class Basis:
    """An optimal basis: a ``BasisStatus`` (LOWER 0, BASIC 1, UPPER 2, ZERO 3) a variable and a row.

    Attributes:
        columns: (*batch, n) int8.
        rows: (*batch, m) int8.
        valid: (*batch,) bool: False where the item has no basis (no optimum, or an interior one).
    """

    columns: torch.Tensor
    rows: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """Solutions of a batch of LPs, in the user's signs, dtype and device.

    Attributes:
        value: (*batch,) optimal values, with exact generalized gradients in c, b, A and the bounds.
            +inf where infeasible, -inf where unbounded (for max the other way round), NaN where nothing
            is known; such items send zero gradients.
        status: (*batch,) int8 of ``Status``; ``ok`` is ``status == Status.OPTIMAL``.
        basis: The optimal basis, or None for integer programs.
        x_unique, y_unique: (*batch,) True where the optimal x (the optimal duals) are proven unique
            by the basis. For x the test is necessary too where the vertex is not degenerate.
        gap, primal_residual, dual_residual: (*batch,) lpdiff's own certificate, absolute.
        iterations: (*batch,) int64, the backend's.
        fallback: (*batch,) True where the backend's proposal was refused and HiGHS asked again.
        certificates: Farkas rays and unbounded directions by flat item number.
        messages: What the backend said of failed items, by flat item number.
        solver: Name of the backend.

    A Solution is a view of numbers: everything in it is torch tensors, differentiable where it says so.
    """

    program: LinearProgram
    value: torch.Tensor
    status: torch.Tensor
    x_unique: torch.Tensor
    y_unique: torch.Tensor
    gap: torch.Tensor
    primal_residual: torch.Tensor
    dual_residual: torch.Tensor
    iterations: torch.Tensor
    fallback: torch.Tensor
    certificates: dict[int, Certificate]
    messages: dict[int, str]
    solver: str
    _x: torch.Tensor
    _y: torch.Tensor
    _d: torch.Tensor
    _basis: Basis
    _rule: AbstractGradient | None = None
    _c: torch.Tensor | None = None
    parametric: AbstractParametricProgram | None = field(default=None)

    @property
    def x(self) -> torch.Tensor:
        """(*batch, n) optimal vertex. Differentiable through the basis in b, A and the bounds, exactly; in
        c by the gradient rule that was chosen (none: an error that names them).

        NaN where there is no optimum.
        """
        exact = self._c is None or isinstance(self._rule, Exact)
        # Forward mode pushes all outputs at once, so the refusal waits until x is asked for.
        if not exact and forward_ad.unpack_dual(self._c).tangent is not None:
            if self._rule is None:
                raise no_rule_error()
            raise UnsupportedError(
                f"{type(self._rule).__name__} is a rule for reverse mode; in forward mode dx/dc is 'exact' "
                f"or refused"
            )
        return self._x

    @property
    def y(self) -> torch.Tensor:
        """(*batch, m) duals of the rows, y = dz/db for min and max alike; differentiable in c and A."""
        self._need_duals("y")
        return self._y

    @property
    def reduced_costs(self) -> torch.Tensor:
        """(*batch, n) d = c - A'y, the duals of the bounds; differentiable in c and A."""
        self._need_duals("reduced_costs")
        return self._d

    @property
    def basis(self) -> Basis | None:
        return None if self.program.is_mip else self._basis

    @property
    def ok(self) -> torch.Tensor:
        """(*batch,) bool: solved and certified."""
        return self.status == int(Status.OPTIMAL)

    @property
    def unique(self) -> torch.Tensor:
        """(*batch,) True where x and y are both proven unique: the value is differentiable there."""
        return self.x_unique & self.y_unique

    @property
    def degenerate(self) -> torch.Tensor:
        """(*batch,) True where a basic variable or row stands at a bound (a redundant equality row counts).

        Derivatives of x are then elements of the Bouligand differential.
        """
        return self._basis.valid & ~self.y_unique

    def block(self, name: str) -> torch.Tensor:
        """Duals of one block of rows, ``"ub"``, ``"eq"`` or ``"ranged"``: (*batch, rows)."""
        if name not in self.program.blocks:
            raise KeyError(f"no row block {name!r}: expected one of {', '.join(self.program.blocks)}")
        return self.y[..., self.program.blocks[name]]

    def __getitem__(self, key: Hashable) -> torch.Tensor:
        """A variable's value by name, (*batch,), or what the problem's own keys name (CVXPY objects).

        Raises:
            KeyError: an unknown key.
        """
        if self.parametric is not None:
            return self.parametric.extract(self, key)
        names = self.program.variable_names
        if names is None:
            raise KeyError(
                f"{key!r}: this program has no variable names; index sol.x, or declare variable_names"
            )
        if key not in names:
            raise KeyError(f"no variable {key!r} among {', '.join(names[:8])}, ...")
        return self.x[..., names.index(str(key))]

    def __repr__(self) -> str:
        shape = tuple(self.status.shape)
        try:
            counts = {s: int((self.status == int(s)).sum()) for s in Status}
        except RuntimeError:  # inside torch.func.vmap nothing can be counted
            return f"Solution(batch={shape}, solver={self.solver!r})"
        told = ", ".join(f"{count} {s.name}" for s, count in counts.items() if count) or "empty"
        value = f", value={float(self.value.detach()):.6g}" if shape == () else ""
        return f"Solution(batch={shape}, {told}{value}, solver={self.solver!r})"

    def _need_duals(self, what: str) -> None:
        if self.program.is_mip:
            raise UnsupportedError(
                f"sol.{what}: an integer program has no duals. Drop integrality to get those of the "
                f"relaxation"
            )
