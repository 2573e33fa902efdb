"""What is checked around a solve: the numbers that go in, and the shapes of what a backend returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from .backend import BatchSolution
from .reading import INFINITY
from .standard import FIELDS, Data, StandardForm
from .status import Certificate, Status

__all__ = ["fault", "normalised", "screen", "without_variables"]

# Bounds that cross by less than this (relative; absolute) are meant to be equal: 0.1 + 0.2 and 0.3.
_ROUNDING, _ROUNDING_OF_ZERO = 1e-12, 1e-15

_LAST = int(max(Status))

_KINDS = {"f": "float64", "iu": "integers", "b": "bool"}


def screen(
    form: StandardForm,
    data: Data,
    status: np.ndarray,
    certificates: dict[int, Certificate],
    messages: dict[int, str],
) -> None:
    """Take out items whose numbers are not an LP's, or whose bounds cross."""
    for name, bad, label in (
        ("c", ~(np.abs(data.c) < INFINITY), form.name_of_variable),
        ("A_values", ~np.isfinite(data.values), None),
        ("row_lower", np.isnan(data.row_lower) | np.isposinf(data.row_lower), form.name_of_row),
        ("row_upper", np.isnan(data.row_upper) | np.isneginf(data.row_upper), form.name_of_row),
        ("lower bound", np.isnan(data.lower) | np.isposinf(data.lower), form.name_of_variable),
        ("upper bound", np.isnan(data.upper) | np.isneginf(data.upper), form.name_of_variable),
    ):
        if not bad.any():
            continue
        for item in np.flatnonzero(np.broadcast_to(bad.any(axis=1), len(status))):
            k = int(np.flatnonzero(bad[item if len(bad) > 1 else 0])[0])
            if label is None:
                row, column = form.name_of_row(form.rows[k]), form.name_of_variable(form.cols[k])
                where = f"entry {k} ({row}, variable {column})"
            else:
                where = label(k)
            status[item] = Status.INVALID
            what = "is NaN or infinite"
            if name == "c" and np.isfinite(number := data.c[item if len(bad) > 1 else 0, k]):
                what = f"is {number:g}, which counts as infinite: to forbid a variable use its bounds"
            messages.setdefault(int(item), f"{name} of {where} {what}")
    for lower, upper, label, what in (
        (data.lower, data.upper, form.name_of_variable, "variable "),
        (data.row_lower, data.row_upper, form.name_of_row, ""),
    ):
        crossed = lower > upper
        if not crossed.any():
            continue
        crossed = np.broadcast_to(crossed, (len(status), crossed.shape[1]))
        lower, upper = (np.broadcast_to(a, crossed.shape) for a in (lower, upper))
        for item in np.flatnonzero(crossed.any(axis=1) & (status == Status.ERROR)):
            k = int(np.flatnonzero(crossed[item])[0])
            status[item] = Status.INFEASIBLE
            certificates[int(item)] = Certificate(
                "crossed",
                np.zeros(0),
                True,
                f"{what}{label(k)} has lower bound {lower[item, k]:g} above upper bound "
                f"{upper[item, k]:g} (by {lower[item, k] - upper[item, k]:.3g})",
            )


def normalised(data: Data) -> Data:
    """Bounds beyond 1e20 are infinite, and bounds that cross by rounding are equal, for every backend alike.

    Two sides of an equality that were computed apart may differ in their last digits; solvers would allow
    a violation a hundred times as large.
    """
    fields = {name: getattr(data, name) for name in FIELDS}
    for name in ("row_lower", "row_upper", "lower", "upper"):
        array = fields[name]
        big = np.abs(array) >= INFINITY
        if big.any():
            fields[name] = np.where(big, np.copysign(np.inf, array), array)
    for below, above in (("row_lower", "row_upper"), ("lower", "upper")):
        lower, upper = fields[below], fields[above]
        crossed = lower > upper
        if crossed.any():
            with np.errstate(invalid="ignore"):
                rounding = crossed & (lower - upper <= _ROUNDING * np.abs(lower) + _ROUNDING_OF_ZERO)
                middle = upper + 0.5 * (lower - upper)
            fields[below] = np.where(rounding, middle, lower)
            fields[above] = np.where(rounding, middle, upper)
    return Data(**fields)


def fault(form: StandardForm, size: int, proposal: Any) -> str | None:
    """What is wrong with the shapes and types of a proposal, for the authors of backends."""
    if not isinstance(proposal, BatchSolution):
        return f"it returned {type(proposal).__name__}, expected a BatchSolution"
    expected = [("x", (size, form.n), "f"), ("status", (size,), "iu"), ("iterations", (size,), "iu")]
    if form.is_mip:
        expected.append(("bound", (size,), "f"))
    else:
        expected.append(("y", (size, form.m), "f"))
        if proposal.basic is not None:
            expected.append(("basic", (size, form.n + form.m), "b"))
    for name, shape, kinds in expected:
        array = getattr(proposal, name)
        if not (isinstance(array, np.ndarray) and array.shape == shape):
            got = f"shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            return f"{name} must be an array of shape {shape}, got {got}"
        if array.dtype.kind not in kinds or (kinds == "f" and array.dtype.itemsize != 8):
            return f"{name} must be an array of {_KINDS[kinds]}, got {array.dtype}"
    if size and not (proposal.status.min() >= 0 and proposal.status.max() <= _LAST):
        return f"status must hold values of Status, got {np.unique(proposal.status).tolist()}"
    return None


def without_variables(form: StandardForm, data: Data, tolerance: float) -> BatchSolution:
    """With no variable the rows are 0: there is nothing to ask a solver, and some solvers trip over it."""
    proposal = BatchSolution.empty(form, data.size)
    wrong = np.maximum(data.row_lower, -data.row_upper) > tolerance  # (1|B, m)
    wrong = np.broadcast_to(wrong, (data.size, form.m))
    proposal.status[:] = np.where(wrong.any(axis=1), Status.INFEASIBLE, Status.OPTIMAL)
    proposal.y = np.zeros((data.size, form.m))
    proposal.basic = np.ones((data.size, form.m), dtype=bool)
    proposal.rays = {int(i): np.eye(form.m)[wrong[i].argmax()] for i in np.flatnonzero(wrong.any(axis=1))}
    return proposal
