"""What became of a solve: statuses, certificates of failure and the one error that reports them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["BasisStatus", "Certificate", "SolveError", "Status", "UnsupportedError"]


class Status(enum.IntEnum):
    """The outcome of one LP. Only ``OPTIMAL`` comes with a solution, certified by lpdiff's own check."""

    OPTIMAL = 0
    INFEASIBLE = 1
    UNBOUNDED = 2
    TIME_LIMIT = 3
    ITERATION_LIMIT = 4
    INVALID = 5
    INACCURATE = 6
    ERROR = 7

    @property
    def text(self) -> str:
        """One line on what happened."""
        return _TEXTS[self][0]

    @property
    def remedy(self) -> str:
        """One line on what to do about it (empty for ``OPTIMAL``)."""
        return _TEXTS[self][1]


_TEXTS = {
    Status.OPTIMAL: ("optimal, certified", ""),
    Status.INFEASIBLE: (
        "infeasible: no point satisfies all rows and bounds",
        "relax one of the rows or bounds named above, or add a slack variable with a cost",
    ),
    Status.UNBOUNDED: (
        "unbounded: the objective improves forever",
        "bound the variables named above, or check the sign of their costs and the sense (min/max)",
    ),
    Status.TIME_LIMIT: ("stopped at the time limit", "raise time_limit (or set it to None)"),
    Status.ITERATION_LIMIT: (
        "stopped at the iteration limit",
        "raise the backend's iteration limit (or set it to None)",
    ),
    Status.INVALID: (
        "invalid input",
        "costs, matrix entries and right-hand sides must be finite; use bounds, not infinite costs, "
        "to forbid a variable",
    ),
    Status.INACCURATE: (
        "solved, but the solution failed lpdiff's optimality check",
        "rescale the data (entries within 1e-4 .. 1e4), or raise `tolerance` if the residuals are acceptable",
    ),
    Status.ERROR: ("the backend failed", "try another backend (solver=...), or rescale the data"),
}


class BasisStatus(enum.IntEnum):
    """Where a variable or a row stands in a basis (HiGHS's numbering)."""

    LOWER = 0
    BASIC = 1
    UPPER = 2
    ZERO = 3


@dataclass(frozen=True)
class Certificate:
    """Proof that an LP has no optimum.

    Attributes:
        kind: ``"farkas"`` (infeasible), ``"direction"`` (unbounded) or ``"crossed"`` (a lower bound
            above its upper bound).
        vector: For ``"farkas"`` row multipliers y, shape (m,): every x within its bounds violates
            ``rl y+ - ru y- <= y'Ax <= ...``. For ``"direction"`` a recession direction, shape (n,),
            along which the objective improves. For ``"crossed"`` empty.
        verified: Whether lpdiff's own arithmetic confirms it (False: the solver's word).
        text: What it shows, with the names of rows and variables.
    """

    kind: str
    vector: np.ndarray = field(repr=False)
    verified: bool
    text: str


class UnsupportedError(NotImplementedError):
    """A derivative or an operation that does not exist, or that this backend does not offer."""


class SolveError(RuntimeError):
    """Some LPs of a batch have no certified optimum.

    Attributes:
        items: Indices of the failed items, as tuples over the batch dimensions.
        statuses: Their ``Status``, in the same order.
        certificates: Certificate by item, for those that have one.
    """

    def __init__(
        self,
        message: str,
        items: Sequence[tuple[int, ...]] = (),
        statuses: Sequence[Status] = (),
        certificates: Mapping[tuple[int, ...], Certificate] | None = None,
    ) -> None:
        super().__init__(message)
        self.items = list(items)
        self.statuses = list(statuses)
        self.certificates = dict(certificates or {})
