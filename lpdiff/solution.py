"""What solve returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .assemble import Inputs
from .autograd import Tensors, apply
from .engine import Plan
from .estimate import EstimateOperation
from .gradients import AbstractEstimator, AbstractGradient, AbstractProgramRule, Exact, make_gradient
from .operations import REPORT, Report
from .program import LinearProgram
from .refusals import changed_error
from .solved import Solved
from .status import Certificate, Status, UnsupportedError
from .vertex import STANDING, Known, ProgramOracle, Vertex, reduced_costs, standing

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

    Everything in it is torch tensors, differentiable where it says so. Only ``value`` is made at once; the
    rest is made when it is asked for, and kept.

    Attributes:
        value: (*batch,) optimal values, with exact generalized gradients in c, b, A and the bounds.
            +inf where infeasible, -inf where unbounded (for max the other way round), NaN where nothing
            is known; such items send zero gradients.
    """

    program: LinearProgram
    value: torch.Tensor
    _plan: Plan
    _rule: AbstractGradient | None
    _inputs: Inputs
    _left: Callable[[], Known]
    _solved: Solved
    _recorded: bool  # whether gradients were recorded at the solve
    parametric: AbstractParametricProgram | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict)

    # -- the solution ----------------------------------------------------------------------------------

    @property
    def x(self) -> torch.Tensor:
        """(*batch, n) optimal vertex. Differentiable through the basis in b, A and the bounds, exactly; in
        c by the gradient rule that was chosen (none: an error that names them).

        A rule that smooths (a perturbed optimiser, say) changes x itself: ``vertex`` stays. NaN where there
        is no optimum.
        """
        rule = self._rule
        if isinstance(rule, AbstractEstimator):
            return self._once("x", lambda: self._shaped(self._estimated(rule)))
        if isinstance(rule, AbstractProgramRule) and not self.program.is_mip:
            return self._once("x", lambda: self._shaped(self._by_rule()[0]))
        return self._once("x", lambda: self._shaped(self._vertex(rule, duals=False)[0]))

    @property
    def vertex(self) -> torch.Tensor:
        """(*batch, n) the optimal vertex, whatever the rule; carries no derivatives."""
        return self._once("vertex", lambda: self._shaped(self._known.x.detach()))

    @property
    def offset(self) -> torch.Tensor | float:
        """What ``value`` holds beside <c, x>: a number, or (*batch,)."""
        return self.program.offset if self._inputs.offset is None else self._inputs.offset

    @property
    def y(self) -> torch.Tensor:
        """(*batch, m) duals of the rows, y = dz/db for min and max alike; differentiable in c and A."""
        self._need_duals("y")
        return self._once("y", lambda: self._shaped(self._by_rule()[1], flip=True))

    @property
    def reduced_costs(self) -> torch.Tensor:
        """(*batch, n) d = c - A'y, the duals of the bounds; differentiable in c and A."""
        self._need_duals("reduced_costs")

        def make() -> torch.Tensor:
            y = self._by_rule()[1]
            d = reduced_costs(self._plan.form, self._current(), y, self._known)
            return self._shaped(d.expand(len(y), -1), flip=True)

        return self._once("reduced_costs", make)

    # -- what is known about it ------------------------------------------------------------------------

    @property
    def status(self) -> torch.Tensor:
        """(*batch,) int8 of ``Status``; ``ok`` is ``status == Status.OPTIMAL``."""
        return self._reported("status")

    @property
    def basis(self) -> Basis | None:
        """The optimal basis, or None for integer programs."""
        if self.program.is_mip:
            return None
        standing = self._standing()
        return Basis(standing["column_status"], standing["row_status"], standing["has_basis"])

    @property
    def x_unique(self) -> torch.Tensor:
        """(*batch,) True where the optimal x is proven unique by the basis. Where the vertex is not
        degenerate the test is necessary too."""
        return self._standing()["x_unique"]

    @property
    def y_unique(self) -> torch.Tensor:
        """(*batch,) True where the optimal duals are proven unique by the basis."""
        return self._standing()["y_unique"]

    @property
    def gap(self) -> torch.Tensor:
        """(*batch,) duality gap c'x - D(y) of lpdiff's own certificate, absolute."""
        return self._reported("gap")

    @property
    def primal_residual(self) -> torch.Tensor:
        """(*batch,) largest violation of a row or a bound, absolute."""
        return self._reported("primal_residual")

    @property
    def dual_residual(self) -> torch.Tensor:
        """(*batch,) largest violation of a dual sign, absolute."""
        return self._reported("dual_residual")

    @property
    def iterations(self) -> torch.Tensor:
        """(*batch,) int64, the backend's."""
        return self._reported("iterations")

    @property
    def fallback(self) -> torch.Tensor:
        """(*batch,) True where a backend's proposal was refused and another was asked."""
        return self._reported("fallback")

    @property
    def certificates(self) -> dict[int, Certificate]:
        """Farkas rays and unbounded directions by flat item number."""
        return self._solved.certificates

    @property
    def messages(self) -> dict[int, str]:
        """What the backend said of failed items, by flat item number."""
        return self._solved.messages

    @property
    def solver(self) -> str:
        """Name of the backend that solved most of the batch (the first that was asked, where it is empty)."""
        counts = self.statistics
        return max(counts, key=counts.__getitem__) if counts else self._plan.solver

    @property
    def statistics(self) -> dict[str, int]:
        """How many items each backend solved, by name, in the order they were asked."""
        names, counts = self._plan.solvers, np.bincount(self._solved.solvers)
        told: dict[str, int] = {}
        for place in np.flatnonzero(counts).tolist():
            told[names[place]] = told.get(names[place], 0) + int(counts[place])
        return told

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
        standing = self._standing()
        return standing["has_basis"] & ~standing["y_unique"]

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
        shape = self._inputs.batch_shape
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

    @property
    def _known(self) -> Known:
        return self._left()

    # -- made when asked for ---------------------------------------------------------------------------

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` makes, kept; once with gradients recorded, and once without."""
        recorded = self._recorded and torch.is_grad_enabled()
        place = (key, recorded)
        if place not in self._made:
            with torch.set_grad_enabled(recorded):
                self._made[place] = make()
        return self._made[place]

    def _vertex(self, rule: AbstractGradient | None, *, duals: bool) -> tuple[torch.Tensor, ...]:
        operation = Vertex(self._plan, rule, duals, changed=self._inputs.changed)
        return apply(operation, *self._inputs.tensors, *self._known)

    def _exact(self) -> tuple[torch.Tensor, ...]:
        """x and its basic duals, with the derivatives that exist."""
        return self._once("exact", lambda: self._vertex(Exact(), duals=True))

    def under(self, gradient: Any) -> Solution:
        """The same solution, with another rule for the derivatives of x; nothing is solved again.

        Raises:
            ValueError, TypeError: an unknown rule.
        """
        return dataclasses.replace(self, _rule=make_gradient(gradient), _made={})

    def _by_rule(self) -> tuple[torch.Tensor, ...]:
        """The same; where a program rule was chosen with its derivatives, of x and y in one solve."""
        rule = self._rule
        if not isinstance(rule, AbstractProgramRule):
            return self._exact()
        return self._once("by rule", lambda: self._vertex(rule, duals=True))

    def _estimated(self, rule: AbstractEstimator) -> torch.Tensor:
        """x under a rule for dx/dc; exact beside it in all other data."""
        fields = self._inputs.tensors
        operation = EstimateOperation(ProgramOracle(self._plan), rule, 1, self._inputs.changed)
        if "estimate" in self._made:  # with other gradients recorded: the same random numbers
            operation.seed = self._made["estimate"].seed
        self._made["estimate"] = operation
        costs, x = fields[0], self._known.x
        if costs is None:
            costs = torch.from_numpy(self._plan.form.declared.c.copy())
        if any(t is not None for t in fields[1:]):
            (x,) = apply(Vertex(self._plan, Exact(), duals=False), costs.detach(), *fields[1:], *self._known)
        return apply(operation, costs, *fields[1:], x, self._known.ok)[0]

    def _current(self) -> Tensors:
        """The data, where they still are those that were solved."""
        if self._inputs.changed:
            raise changed_error("its basis and its reduced costs")
        return tuple(self._inputs.tensors)

    def _reported(self, name: str) -> torch.Tensor:
        def make() -> dict[str, torch.Tensor]:
            given = [None if t is None else t.detach() for t in self._inputs.tensors]
            told = apply(Report(self._solved), *given)
            return {name: self._shaped(tensor) for name, tensor in zip(REPORT, told, strict=True)}

        return self._once("report", make)[name]

    def _shaped(self, tensor: torch.Tensor, *, flip: bool = False) -> torch.Tensor:
        """In the user's signs, batch shape, dtype and device; never the node's own memory."""
        turned = self.program.form.to_min(tensor) if flip else tensor
        result = self._inputs.like_user(turned.reshape((*self._inputs.batch_shape, *turned.shape[1:])))
        same = turned is tensor and result.dtype == tensor.dtype and result.device == tensor.device
        return result.clone() if same else result

    def _standing(self) -> dict[str, torch.Tensor]:
        def make() -> dict[str, torch.Tensor]:
            x, y = self._exact()
            found = standing(self._plan, self._current(), x, y, self._known)
            return {name: self._shaped(found[name]) for name in STANDING}

        return self._once("standing", make)
