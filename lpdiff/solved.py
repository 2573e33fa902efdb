"""A solved batch, and how its parts are put together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .kkt import Judged
from .standard import StandardForm
from .status import Certificate, Status

__all__ = ["Solved", "blank", "concatenate", "unsolved", "write", "write_arrays"]


@dataclass(eq=False)
class Solved:
    """A batch, solved and certified, in the sense of min. Failed items hold NaN, or an infinite value.

    ``basic`` is as in ``BatchSolution``; rows of items whose basis is found on demand are empty, and where
    that is so for all items the array is (B, 0). ``solvers`` tells who solved an item: a place in
    ``Plan.solvers``.
    """

    judged: Judged
    status: np.ndarray  # (B,) int8 of Status
    iterations: np.ndarray  # (B,) int64
    basic: np.ndarray  # (B, n + m) bool, or (B, 0)
    solvers: np.ndarray  # (B,) int8
    fallbacks: np.ndarray  # (B,) bool: a proposal was refused
    certificates: dict[int, Certificate] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)

    @property
    def all_ok(self) -> bool:
        return not np.count_nonzero(self.status)  # OPTIMAL is 0; any() takes five times as long


def unsolved(form: StandardForm, size: int, solver: int) -> Solved:
    numbers = {key: np.zeros(size) for key in ("value", "gap", "primal_residual", "dual_residual")}
    return Solved(
        judged=Judged(
            x=np.zeros((size, form.n)), y=np.zeros((size, form.m)), ok=np.zeros(size, dtype=bool), **numbers
        ),
        status=np.full(size, Status.ERROR, dtype=np.int8),
        iterations=np.zeros(size, dtype=np.int64),
        basic=np.zeros((size, form.n + form.m), dtype=bool),
        solvers=np.full(size, solver, dtype=np.int8),
        fallbacks=np.zeros(size, dtype=bool),
    )


_ARRAYS = ("status", "iterations", "solvers", "fallbacks")


def write(target: Solved, source: Solved, items: np.ndarray) -> None:
    """Put a part of the batch in its place, with all that is told of it."""
    if target.basic.shape[1] < source.basic.shape[1]:
        target.basic = np.zeros((len(target.status), source.basic.shape[1]), dtype=bool)
    if source.basic.shape[1]:
        target.basic[items] = source.basic
    write_arrays(target.judged, source.judged, items)
    for name in _ARRAYS:
        getattr(target, name)[items] = getattr(source, name)
    target.certificates |= {int(items[k]): v for k, v in source.certificates.items()}
    target.messages |= {int(items[k]): v for k, v in source.messages.items()}


def write_arrays(target: Judged, source: Judged, items: np.ndarray) -> None:
    for name in vars(source):  # read as attributes: what is kept is written out
        getattr(target, name)[items] = getattr(source, name)


def blank(solved: Solved, failed: np.ndarray, status: np.ndarray) -> None:
    """Failed items hold no number that could be taken for a solution."""
    judged = solved.judged
    for name in ("x", "y", "gap", "primal_residual", "dual_residual", "value"):
        getattr(judged, name)[failed] = np.nan
    judged.ok[failed] = False
    solved.basic[failed] = False
    judged.value[status == Status.INFEASIBLE] = np.inf
    judged.value[status == Status.UNBOUNDED] = -np.inf


def concatenate(parts: list[tuple[int, Solved]]) -> Solved:
    solved = [part for _, part in parts]
    judged = {
        name: np.concatenate([getattr(part.judged, name) for part in solved])
        for name in vars(solved[0].judged)
    }
    return Solved(
        judged=Judged(**judged),
        basic=np.concatenate([part.basic for part in solved]),
        **{name: np.concatenate([getattr(part, name) for part in solved]) for name in _ARRAYS},
        certificates={start + k: v for start, part in parts for k, v in part.certificates.items()},
        messages={start + k: v for start, part in parts for k, v in part.messages.items()},
    )
