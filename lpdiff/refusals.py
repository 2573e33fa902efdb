"""What is told where there is no derivative, and where there is no optimum."""

from __future__ import annotations

from typing import NoReturn, Protocol

import numpy as np

from .gradients import NAMES
from .status import Certificate, SolveError, Status, UnsupportedError

__all__ = [
    "changed_error",
    "moved_error",
    "no_rule_error",
    "refuse_integers",
    "reverse_only_error",
    "solve_error",
]


def no_rule_error() -> UnsupportedError:
    names = ", ".join(f"'{name}'" for name in NAMES)
    return UnsupportedError(
        f"x is asked for a gradient with respect to c, but x(c) is piecewise constant and no rule for "
        f"dx/dc was chosen. Pass gradient=... to solve, LPLayer or lpdiff.options: one of {names} "
        f"('exact' is the almost-everywhere zero; lpdiff.gradients has the rules with their options). "
        f"If x should carry no gradient to c, use c.detach(). The gradient of sol.value needs no rule."
    )


def reverse_only_error(rule: object) -> UnsupportedError:
    return UnsupportedError(
        f"{type(rule).__name__} is a rule for reverse mode; in forward mode dx/dc is 'exact' or refused"
    )


def changed_error(what: str) -> RuntimeError:
    return RuntimeError(
        f"the data of this solution have been modified by an inplace operation since it was solved, so "
        f"{what} at it cannot be found any more: ask for that first, or give solve a copy (c=c.clone())"
    )


def refuse_integers() -> NoReturn:
    raise UnsupportedError(
        "an integer program has no duals: only sol.value can be differentiated, and only with respect to "
        "c. Detach b, A and the bounds, or drop integrality to differentiate the relaxation"
    )


class Failed(Protocol):
    """What is told of a batch in which items failed."""

    @property
    def status(self) -> np.ndarray: ...

    @property
    def messages(self) -> dict[int, str]: ...

    @property
    def certificates(self) -> dict[int, Certificate]: ...


def moved_error(rule: object, solved: Failed, items: np.ndarray) -> SolveError:
    """A gradient rule solved ``items`` again, perhaps several times over, and some have no optimum there."""
    error = solve_error(solved, None)
    failed = np.flatnonzero(solved.status != Status.OPTIMAL)
    places = items[failed % len(items)]
    named = ", ".join(str(place) for place in dict.fromkeys(places.tolist()))
    return SolveError(
        f"{rule!r} solves the program again with other numbers, and there item(s) {named} have no optimum: "
        f"choose a rule that moves them less, or bound the variables\n{error}",
        items=[(int(place),) for place in places],
        statuses=error.statuses,
        certificates=error.certificates,
    )


def solve_error(solved: Failed, batch_shape: tuple[int, ...] | None) -> SolveError:
    """One error for all failed items: which, why, the proof, and what to do."""
    failed = np.flatnonzero(solved.status != Status.OPTIMAL)
    shape = (len(solved.status),) if batch_shape is None else batch_shape

    def index(item: int) -> tuple[int, ...]:
        return tuple(int(i) for i in np.unravel_index(item, shape)) if shape else ()

    single = shape == ()
    lines = []
    if not single:
        lines.append(f"{len(failed)} of {len(solved.status)} LPs have no certified optimum")
    for status in dict.fromkeys(Status(int(s)) for s in solved.status[failed]):
        items = [int(i) for i in failed if solved.status[i] == status]
        where = ""
        if not single:
            shown = ", ".join(str(index(i)[0] if len(shape) == 1 else index(i)) for i in items[:5])
            where = f"item{'s' if len(items) > 1 else ''} {shown}"
            where += f" and {len(items) - 5} more: " if len(items) > 5 else ": "
        lines.append(f"{where}{status.text}")
        first = items[0]
        because = []
        if first in solved.certificates:
            because.append(solved.certificates[first].text)
        elif first in solved.messages:
            because.append(solved.messages[first])
        if because:
            of = "" if single else f" (item {index(first)[0] if len(shape) == 1 else index(first)})"
            lines.append(f"  because{of}: {'; '.join(because)}")
        if status.remedy:
            lines.append(f"  remedy: {status.remedy}")
    lines.append("throw=False returns statuses instead of raising")
    return SolveError(
        "\n".join(lines),
        items=[index(int(i)) for i in failed],
        statuses=[Status(int(solved.status[i])) for i in failed],
        certificates={index(i): certificate for i, certificate in solved.certificates.items()},
    )
