"""Transport between marginals, and b-matching: rows and columns that are met several times."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import scipy.sparse as sp
import torch

from lpdiff import AbstractProblem, LinearProgram, evaluate
from lpdiff.problem import Parameter

from .base import AbstractLPResult, ProblemModule, SolveOptions, any_of, first_item, forbidding, named
from .matching import nested, sizes_of

__all__ = [
    "BMatching",
    "BMatchingProblem",
    "BMatchingSolution",
    "OptimalTransport",
    "TransportProblem",
    "TransportSolution",
    "b_matching",
    "optimal_transport",
]


@functools.lru_cache(maxsize=32)
def incidence_program(n: int, m: int, equal: bool, times: float) -> LinearProgram:
    """x_ij by rows, 0 to ``times``; the sums of rows and of columns have sides, one or two."""
    rows = sp.kron(sp.eye_array(n), np.ones((1, m)))
    columns = sp.kron(np.ones((1, n)), sp.eye_array(m))
    sums = sp.vstack([rows, columns])
    names = [*(f"row {i}" for i in range(n)), *(f"column {j}" for j in range(m))]
    zeros = np.zeros(n + m)
    sides = {"A_eq": sums, "b_eq": zeros} if equal else {"A": sums, "row_lower": zeros, "row_upper": zeros}
    what = "transport" if equal else "b-matching"
    return LinearProgram(**sides, bounds=(0, times), row_names=names, name=f"{what} of {n} x {m}")


# -- transport ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TransportProblem(AbstractProblem):
    """n supplies, m demands. Parameters: costs, supply, demand."""

    n: int
    m: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return (
            Parameter("costs", (self.n, self.m)),
            Parameter("supply", (self.n,), kind="side"),
            Parameter("demand", (self.m,), kind="side"),
        )

    @property
    def program(self) -> LinearProgram:
        return incidence_program(self.n, self.m, True, np.inf)

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, supply, demand = parameters
        # Marginals that add up to the same only nearly are scaled to. That also says what a gradient is in a
        # direction in which they would not: see ``optimal_transport``.
        offered, asked = supply.sum(-1, keepdim=True), demand.sum(-1, keepdim=True)
        demand = demand * torch.where(asked > 0.0, offered / torch.where(asked > 0.0, asked, 1.0), 1.0)
        batch = np.broadcast_shapes(supply.shape[:-1], demand.shape[:-1])
        sides = [side.expand(*batch, side.shape[-1]) for side in (supply, demand)]
        return {**forbidding(costs.flatten(-2)), "b": torch.cat(sides, -1)}


def optimal_transport(costs: Any, supply: Any, demand: Any, **how: Unpack[SolveOptions]) -> TransportSolution:
    """Discrete optimal transport (earth mover's distance)::

        min  sum_ij c_ij x_ij    subject to    sum_j x_ij = a_i,   sum_i x_ij = b_j,   x >= 0

    exactly, with exact gradients in the costs (the plan) and in the marginals (the potentials).

    Args:
        costs: (*batch, n, m). +inf forbids.
        supply, demand: a (*batch, n) and b (*batch, m), not negative, of the same sum: up to 1e-9 of it,
            or, for marginals in single or half precision, what their rounding may come to. The demand is
            scaled to the sum of the supply; 0 is fine (masks).
        how: See ``lpdiff.evaluate``. A rule (``gradient=``) makes the plan differentiable in the costs.

    Returns:
        A TransportSolution: value, plan, potentials.

    Raises:
        ValueError: shapes that do not fit, a negative mass, sums that differ (the item is named).
        SolveError: NaN; forbidden pairs that leave no plan (unless ``throw=False``).

    Gradients: dz/da = f and dz/db = g, with potentials shifted such that sum_j b_j g_j = 0. Only directions
    that keep the sums equal mean something; in these every shift gives the same.

    Solver: ``network``, a network simplex with a spanning tree as its basis (``assignment`` where all
    masses are equal), so that the plan has at most n + m - 1 entries. Reference: G. Peyre and M. Cuturi,
    Computational Optimal Transport (2019), chapter 3.

    Example:
        >>> a = torch.tensor([0.5, 0.5], requires_grad=True)
        >>> found = optimal_transport(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), a, torch.tensor([0.2, 0.8]))
        >>> found.value, found.plan
        (tensor(0.3000, grad_fn=...), tensor([[0.2000, 0.3000], [0.0000, 0.5000]], grad_fn=...))
    """
    n, m, _ = sizes_of("costs", costs)
    _check_masses(supply, demand)
    found = evaluate(TransportProblem(n, m), costs, supply, demand, **how)
    return TransportSolution(found.value, found)


class OptimalTransport(ProblemModule):
    """``optimal_transport`` as a module."""

    function = staticmethod(optimal_transport)


def _check_masses(supply: Any, demand: Any) -> None:
    sums, slack = [], 1e-9
    for name, side in (("supply", supply), ("demand", demand)):
        mass = side.detach() if isinstance(side, torch.Tensor) else torch.as_tensor(np.asarray(side))
        if mass.dim() == 0:
            raise ValueError(
                f"{name}: expected shape (*batch, {'n' if name == 'supply' else 'm'}), got a number"
            )
        if mass.is_floating_point() and mass.dtype != torch.float64:
            slack = max(slack, 4 * mass.shape[-1] ** 0.5 * torch.finfo(mass.dtype).eps)
        mass = mass.to(device="cpu", dtype=torch.float64)
        wrong = mass < 0.0
        if any_of(wrong):
            *item, i = first_item(wrong)
            raise ValueError(
                f"{name}: {named(tuple(item))} has the mass {float(mass[(*item, i)])} at {i}, expected >= 0"
            )
        sums.append(mass.sum(-1))
    try:
        offered, asked = torch.broadcast_tensors(*sums)
    except RuntimeError:
        return  # told with all other shapes
    apart = (offered - asked).abs() > slack * torch.maximum(offered, asked)
    if any_of(apart):
        where = first_item(apart)
        raise ValueError(
            f"supply and demand of {named(where)} sum to {float(offered[where]):.7g} and "
            f"{float(asked[where]):.7g}: transport needs equal sums. Normalise them, or add a row "
            f"or a column for what is left over"
        )


@dataclass(frozen=True, eq=False, repr=False)
class TransportSolution(AbstractLPResult):
    """An optimal plan.

    Attributes:
        value: (*batch,) what it costs, with exact gradients in costs, supply and demand.
    """

    @cached_property
    def plan(self) -> torch.Tensor:
        """(*batch, n, m) how much goes where. Differentiable in supply and demand, exactly; in the costs it
        needs a rule (``gradient=``)."""
        return self.evaluation.indicator(0)

    @cached_property
    def potentials(self) -> tuple[torch.Tensor, torch.Tensor]:
        """f (*batch, n) and g (*batch, m): f_i + g_j <= c_ij, with equality where the plan is positive, and
        sum_j b_j g_j = 0. They are dz/dsupply and dz/ddemand, and differentiable in the costs."""
        inputs = self.evaluation.inputs
        costs, _, demand = inputs.whole
        assert costs is not None and demand is not None
        f, g = self.solution.y.split(list(costs.shape[-2:]), -1)
        mass = demand.detach().sum(-1, keepdim=True)
        shift = (g * demand.detach()).sum(-1, keepdim=True) / torch.where(mass > 0.0, mass, 1.0)
        return inputs.like_user(f + shift), inputs.like_user(g - shift)

    def decode(self) -> Any:
        """The plan as (k, 3) NumPy arrays of from, to and how much: one where there is no batch, else nested
        lists."""
        return _entries(self.plan)


def _entries(plan: torch.Tensor) -> Any:
    def triples(x: torch.Tensor) -> np.ndarray:
        rows, columns = np.nonzero(x.numpy())
        return np.column_stack([rows, columns, x.numpy()[rows, columns]])

    return nested(plan.detach().cpu(), triples)


# -- b-matching --------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class BMatchingProblem(AbstractProblem):
    """Parameters: costs; the least and the most that each row, and each column, is met."""

    n: int
    m: int
    times: float = 1.0

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        sides = [
            Parameter(f"{word}_{side}", (size,), kind="side")
            for word, size in (("row", self.n), ("column", self.m))
            for side in ("lower", "upper")
        ]
        return (Parameter("costs", (self.n, self.m)), *sides)

    @property
    def program(self) -> LinearProgram:
        return incidence_program(self.n, self.m, False, self.times)

    def data(self, *parameters: Any) -> dict[str, Any]:
        costs, *sides = parameters
        batch = np.broadcast_shapes(*(side.shape[:-1] for side in sides))
        row_low, row_high, low, high = (side.expand(*batch, side.shape[-1]) for side in sides)
        return {
            **forbidding(costs.flatten(-2), upper=self.times),
            "row_lower": torch.cat([row_low, low], -1),
            "row_upper": torch.cat([row_high, high], -1),
        }


def b_matching(
    costs: Any, rows: Any, columns: Any, *, times: float | None = 1, **how: Unpack[SolveOptions]
) -> BMatchingSolution:
    """The cheapest b-matching: rows and columns that are met several times::

        min  sum_ij c_ij x_ij    subject to    lower_i <= sum_j x_ij <= upper_i,   the same of columns,
                                               0 <= x <= times

    Vertices are integral where capacities are integers.

    Args:
        costs: (*batch, n, m). +inf forbids a pair. Where nothing must be met only negative costs make pairs.
        rows, columns: Capacities: a number, (*batch, n) or (*batch, m): exactly so often; or a pair of them
            (lower, upper), either of which may be None (0, and no limit). They carry gradients, of the LP's
            value: what one more unit would be worth.
        times: How often one pair may be made; None: no limit.
        how: See ``lpdiff.evaluate``.

    Returns:
        A BMatchingSolution: value, how often each pair is made, what capacities are worth.

    Raises:
        ValueError: shapes that do not fit; a lower capacity above the upper one, or a negative one (the
            item is named).
        SolveError: NaN; capacities that cannot be met (unless ``throw=False``).

    Solver: ``network``, a network simplex. Reference: A. Schrijver, Combinatorial Optimization (2003),
        chapter 21.

    Example:
        >>> found = b_matching(torch.rand(3, 6), rows=2, columns=1)  # three workers, two tasks each
        >>> found.decode()
    """
    n, m, _ = sizes_of("costs", costs)
    if times is not None and not times >= 0:
        raise ValueError(f"times: expected a number >= 0, or None, got {times}")
    sides = [*_capacities("rows", rows, n), *_capacities("columns", columns, m)]
    problem = BMatchingProblem(n, m, np.inf if times is None else float(times))
    found = evaluate(problem, costs, *sides, **how)
    return BMatchingSolution(found.value, found)


class BMatching(ProblemModule):
    """``b_matching`` as a module."""

    function = staticmethod(b_matching)


def _capacities(name: str, given: Any, size: int) -> tuple[Any, Any]:
    """(*batch, size) twice."""
    paired = (
        isinstance(given, (tuple, list))
        and len(given) == 2
        and (isinstance(given, tuple) or any(side is None for side in given))
    )
    sides = tuple(given) if paired else (given, given)
    low, high = (
        _spread(name, blank if side is None else side, size)
        for side, blank in zip(sides, (0.0, np.inf), strict=True)
    )
    at_least, at_most = (
        side.detach().to("cpu", torch.float64) if isinstance(side, torch.Tensor) else torch.from_numpy(side)
        for side in (low, high)
    )
    for wrong, what in (
        (at_most < 0.0, "a negative capacity"),
        (at_least > at_most, "a lower capacity above the upper"),
    ):
        if any_of(wrong):
            *item, i = first_item(wrong)
            raise ValueError(f"{name}: {named(tuple(item))} has {what} at {i}")
    return low, high


def _spread(name: str, side: Any, size: int) -> Any:
    if not isinstance(side, torch.Tensor):
        side = np.array(side, dtype=float)
    if side.ndim == 0:
        return side.expand(size) if isinstance(side, torch.Tensor) else np.full(size, side)
    if side.shape[-1] != size:
        raise ValueError(
            f"{name}: expected a number or (*batch, {size}), or a pair (lower, upper) of such, got "
            f"{tuple(side.shape)}"
        )
    return side


@dataclass(frozen=True, eq=False, repr=False)
class BMatchingSolution(AbstractLPResult):
    """An optimal b-matching.

    Attributes:
        value: (*batch,) what it costs, with exact gradients in costs and capacities.
    """

    @cached_property
    def indicator(self) -> torch.Tensor:
        """(*batch, n, m) how often each pair is made. Differentiable in the capacities; in the costs it
        needs a rule (``gradient=``)."""
        return self.evaluation.indicator(0)

    @cached_property
    def worth(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(*batch, n) and (*batch, m): by how much the value grows with the capacity that binds a row, a
        column; 0 where none does. The LP's duals."""
        n, m = self.evaluation.problem.parameters[0].shape
        rows, columns = self.solution.y.split([n, m], -1)
        return self.evaluation.inputs.like_user(rows), self.evaluation.inputs.like_user(columns)

    def decode(self) -> Any:
        """(k, 3) NumPy arrays of row, column and how often: one where there is no batch, else nested
        lists."""
        return _entries(self.indicator)
