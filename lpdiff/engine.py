"""Plan and solve a batch: validate, propose (backend), certify, fall back, certify again."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import AbstractBackend, BackendError, BatchSolution, make_backend
from .kkt import Optimality, certify, certify_integers, prove_infeasible, prove_unbounded
from .reading import INFINITY
from .scaling import Units
from .standard import FIELDS, Data, StandardForm
from .status import Certificate, Status, UnsupportedError

__all__ = ["Plan", "Solved"]

# Numbers a chunk of a batch may hold: bounds the memory of the certificate's temporaries.
_CHUNK = 2**23

# Bounds that cross by less than this (relative) are meant to be equal.
_ROUNDING = 1e-9


@dataclass(eq=False)
class Solved:
    """A batch, solved and certified, in the sense of min. Failed items hold NaN, or an infinite value."""

    judged: Optimality
    status: np.ndarray  # (B,) int8 of Status
    iterations: np.ndarray  # (B,) int64
    certificates: dict[int, Certificate] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)
    fallbacks: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))  # (B,)


class Plan:
    """How a program will be solved: a backend, its prepared state, and the limits.

    Args:
        form: The compiled program.
        backend: A configured backend.
        threads: Threads over the batch.
        time_limit: Seconds an item, or None.
        tolerance: Of the certificate, relative.

    Raises:
        UnsupportedError: the backend cannot take this program.
    """

    def __init__(
        self,
        form: StandardForm,
        backend: AbstractBackend,
        *,
        threads: int,
        time_limit: float | None,
        tolerance: float,
    ) -> None:
        if form.is_mip and not backend.capabilities.integers:
            raise UnsupportedError(
                f"solver {backend.name!r} does not take integer variables: use solver='highs', or drop "
                f"integrality to solve the relaxation"
            )
        self.form = form
        self.backend = backend
        self.threads = threads
        self.time_limit = time_limit
        self.tolerance = tolerance
        self.state = backend.prepare(form)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "state"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state = self.backend.prepare(self.form)

    def __repr__(self) -> str:
        limit = "no time limit" if self.time_limit is None else f"{self.time_limit:g} s an item"
        return (
            f"Plan: {self.backend!r}, {self.threads} thread(s), {limit}, "
            f"certificate tolerance {self.tolerance:g}"
        )

    def solve(self, data: Data) -> Solved:
        """Solve a batch. Raises for no item's sake: statuses tell."""
        per_item = self.form.n + self.form.m + self.form.nnz + 1
        chunk = max(1, _CHUNK // per_item)
        size = data.size
        if size <= chunk:
            return self._solve_chunk(data)
        parts = [
            (start, self._solve_chunk(data.take(slice(start, start + chunk))))
            for start in range(0, size, chunk)
        ]
        return _concatenate(parts)

    def _solve_chunk(self, data: Data) -> Solved:
        data = _normalised(data)
        size = data.size
        solved = _unsolved(self.form, size)
        status = solved.status
        self._screen(data, solved)
        todo = np.flatnonzero(status == Status.ERROR)
        if len(todo):
            part = data if len(todo) == size else data.take(todo)
            self._attempt(self.backend, self.state, part, todo, solved)
            if not self.form.is_mip and (status != Status.OPTIMAL).any():
                self._fall_back(data, solved)
                self._confirm_unbounded(data, solved)
        failed = status != Status.OPTIMAL
        if failed.any():
            _blank(solved.judged, failed, status)
        solved.messages = {item: text for item, text in solved.messages.items() if failed[item]}
        return solved

    def _screen(self, data: Data, solved: Solved) -> None:
        """Take out items whose numbers are not an LP's, or whose bounds cross."""
        form, status = self.form, solved.status
        for name, bad, label in (
            ("c", ~np.isfinite(data.c), form.name_of_variable),
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
                solved.messages.setdefault(int(item), f"{name} of {where} is NaN or infinite")
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
                solved.certificates[int(item)] = Certificate(
                    "crossed",
                    np.zeros(0),
                    True,
                    f"{what}{label(k)} has lower bound {lower[item, k]:g} above upper bound "
                    f"{upper[item, k]:g} (by {lower[item, k] - upper[item, k]:.3g})",
                )

    def _attempt(
        self, backend: AbstractBackend, state: Any, data: Data, items: np.ndarray, solved: Solved
    ) -> None:
        """Let a backend propose for ``items`` (the items of ``data``), and judge its proposals."""
        units = Units.of(self.form, data)
        enlarged = units.enlarge(data)
        proposal = self._propose(backend, state, enlarged)
        judged = self._judge(enlarged, proposal)
        units.restore(judged)
        status = proposal.status.astype(np.int8)
        refused = (status == Status.OPTIMAL) & ~judged.ok
        status[refused] = Status.INACCURATE
        for local in np.flatnonzero(refused).tolist():
            solved.messages[int(items[local])] = (
                f"duality gap {judged.gap[local]:.3g}, primal residual "
                f"{judged.primal_residual[local]:.3g}, dual residual {judged.dual_residual[local]:.3g}"
            )
        if len(items) == len(solved.status):
            solved.judged = judged
        else:
            _write(solved.judged, judged, items)
        solved.status[items] = status
        solved.iterations[items] += proposal.iterations
        for local, message in proposal.messages.items():
            solved.messages[int(items[local])] = message
        for local in np.flatnonzero((status == Status.INFEASIBLE) | (status == Status.UNBOUNDED)).tolist():
            prove = prove_infeasible if status[local] == Status.INFEASIBLE else prove_unbounded
            certificate = prove(self.form, data.take([local]), proposal.rays.get(local))
            solved.certificates[int(items[local])] = certificate

    def _propose(self, backend: AbstractBackend, state: Any, data: Data) -> BatchSolution:
        """What the backend says; where it breaks, an error for all items, which the fallback repairs."""
        if self.form.n == 0:
            return _without_variables(self.form, data, self.tolerance)
        try:
            proposal = backend.solve(state, data, threads=self.threads, time_limit=self.time_limit)
            fault = _fault(self.form, data.size, proposal)
        except (BackendError, UnsupportedError):
            raise
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            return proposal
        text = f"solver {backend.name!r} broke: {fault}"
        if not self.form.is_mip:
            warnings.warn(f"{text}; HiGHS is asked instead", RuntimeWarning, stacklevel=2)
        broken = BatchSolution.empty(self.form, data.size)
        broken.messages = dict.fromkeys(range(data.size), text)
        return broken

    def _judge(self, data: Data, proposal: BatchSolution) -> Optimality:
        form, optimal = self.form, proposal.status == Status.OPTIMAL
        # What a backend leaves in the rows of failed items is never read.
        x = np.where(optimal[:, None], proposal.x, 0.0)
        if form.is_mip:
            assert proposal.bound is not None
            bound = np.where(optimal, proposal.bound, 0.0)
            return certify_integers(form, data, x, bound, self.tolerance)
        assert proposal.y is not None
        y = np.where(optimal[:, None], proposal.y, 0.0)
        return certify(form, data, x, y, proposal.basic, self.tolerance)

    def _fall_back(self, data: Data, solved: Solved) -> None:
        """What is not proved goes to HiGHS with tight tolerances, first dual, then primal simplex."""
        for method in ("dual", "primal"):
            unproved = np.isin(solved.status, (Status.INACCURATE, Status.ERROR))
            for item, certificate in solved.certificates.items():
                unproved[item] |= not certificate.verified
            items = np.flatnonzero(unproved)
            if len(items) == 0:
                return
            strict = _strict(method)
            before = {int(i): (solved.status[i], solved.certificates.get(int(i))) for i in items}
            for item in before:
                solved.certificates.pop(item, None)
            solved.fallbacks[items] = True
            self._attempt(strict, strict.prepare(self.form), data.take(items), items, solved)
            for item, (claimed, claim) in before.items():
                # A claim that nobody proved stands against an error, not against a proof.
                if claim is not None and solved.status[item] in (Status.ERROR, Status.INACCURATE):
                    solved.status[item] = claimed
                    solved.certificates[item] = claim

    def _confirm_unbounded(self, data: Data, solved: Solved) -> None:
        """A direction proves that no optimum exists, not that a point does: a solve without costs tells."""
        items = np.flatnonzero(solved.status == Status.UNBOUNDED)
        if len(items) == 0:
            return
        part = data.take(items)
        part = dataclasses.replace(part, c=np.zeros_like(part.c))
        asked = _unsolved(self.form, len(items))
        strict = _strict("dual")
        self._attempt(strict, strict.prepare(self.form), part, np.arange(len(items)), asked)
        for local, item in enumerate(items.tolist()):
            if asked.status[local] == Status.INFEASIBLE and asked.certificates[local].verified:
                solved.status[item] = Status.INFEASIBLE
                solved.certificates[item] = asked.certificates[local]


def _strict(method: str) -> AbstractBackend:
    """HiGHS at its tightest sensible tolerances."""
    tolerances = {"primal_tolerance": 1e-9, "dual_tolerance": 1e-9}
    return make_backend("highs", {"method": method, "presolve": False} | tolerances)


def _unsolved(form: StandardForm, size: int) -> Solved:
    return Solved(
        judged=_nothing(form, size),
        status=np.full(size, Status.ERROR, dtype=np.int8),
        iterations=np.zeros(size, dtype=np.int64),
        fallbacks=np.zeros(size, dtype=bool),
    )


def _fault(form: StandardForm, size: int, proposal: Any) -> str | None:
    """What is wrong with the shapes and types of a proposal, for the authors of backends."""
    if not isinstance(proposal, BatchSolution):
        return f"it returned {type(proposal).__name__}, expected a BatchSolution"
    shapes: dict[str, tuple[int, ...]] = {
        "x": (size, form.n),
        "status": (size,),
        "iterations": (size,),
    }
    if form.is_mip:
        shapes["bound"] = (size,)
    else:
        shapes["y"] = (size, form.m)
        if proposal.basic is not None:
            shapes["basic"] = (size, form.n + form.m)
    for name, shape in shapes.items():
        array = getattr(proposal, name)
        if not isinstance(array, np.ndarray) or array.shape != shape:
            got = f"shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            return f"{name} must be an array of shape {shape}, got {got}"
    if size and not (min(Status) <= proposal.status.min() and proposal.status.max() <= max(Status)):
        return f"status must hold values of Status, got {np.unique(proposal.status).tolist()}"
    return None


def _without_variables(form: StandardForm, data: Data, tolerance: float) -> BatchSolution:
    """With no variable the rows are 0: there is nothing to ask a solver, and some solvers trip over it."""
    proposal = BatchSolution.empty(form, data.size)
    wrong = np.maximum(data.row_lower, -data.row_upper) > tolerance  # (1|B, m)
    wrong = np.broadcast_to(wrong, (data.size, form.m))
    proposal.status[:] = np.where(wrong.any(axis=1), Status.INFEASIBLE, Status.OPTIMAL)
    proposal.y = np.zeros((data.size, form.m))
    proposal.basic = np.ones((data.size, form.m), dtype=bool)
    proposal.rays = {int(i): np.eye(form.m)[wrong[i].argmax()] for i in np.flatnonzero(wrong.any(axis=1))}
    return proposal


def _normalised(data: Data) -> Data:
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
                rounding = crossed & (lower - upper <= _ROUNDING * (1 + np.abs(lower)))
                middle = upper + 0.5 * (lower - upper)
            fields[below] = np.where(rounding, middle, lower)
            fields[above] = np.where(rounding, middle, upper)
    return Data(**fields)


def _nothing(form: StandardForm, size: int) -> Optimality:
    """An Optimality of the right shapes, all refused."""
    numbers = {key: np.zeros(size) for key in ("value", "gap", "primal_residual", "dual_residual")}
    flags = {key: np.zeros(size, dtype=bool) for key in ("ok", "has_basis", "x_unique", "y_unique")}
    return Optimality(
        x=np.zeros((size, form.n)),
        y=np.zeros((size, form.m)),
        d=np.zeros((size, form.n)),
        column_status=np.zeros((size, form.n), dtype=np.int8),
        row_status=np.zeros((size, form.m), dtype=np.int8),
        **numbers,
        **flags,
    )


def _write(target: Optimality, source: Optimality, items: np.ndarray) -> None:
    for name, array in vars(source).items():
        getattr(target, name)[items] = array


def _blank(judged: Optimality, failed: np.ndarray, status: np.ndarray) -> None:
    """Failed items hold no number that could be taken for a solution."""
    for name in ("x", "y", "d"):
        getattr(judged, name)[failed] = np.nan
    for name in ("gap", "primal_residual", "dual_residual", "value"):
        getattr(judged, name)[failed] = np.nan
    for name in ("ok", "has_basis", "x_unique", "y_unique"):
        getattr(judged, name)[failed] = False
    judged.value[status == Status.INFEASIBLE] = np.inf
    judged.value[status == Status.UNBOUNDED] = -np.inf


def _concatenate(parts: list[tuple[int, Solved]]) -> Solved:
    solved = [part for _, part in parts]
    return Solved(
        judged=Optimality(
            **{
                name: np.concatenate([getattr(part.judged, name) for part in solved])
                for name in vars(solved[0].judged)
            }
        ),
        status=np.concatenate([part.status for part in solved]),
        iterations=np.concatenate([part.iterations for part in solved]),
        fallbacks=np.concatenate([part.fallbacks for part in solved]),
        certificates={start + k: v for start, part in parts for k, v in part.certificates.items()},
        messages={start + k: v for start, part in parts for k, v in part.messages.items()},
    )
