"""Plan and solve a batch: propose (specialised, then general), certify, fall back, certify again."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import AbstractBackend, BackendError, BatchSolution, make_backend
from .kkt import Judged, Standing, certify, certify_integers, prove_infeasible, prove_unbounded, stand
from .scaling import Units
from .screen import fault, normalised, screen, without_variables
from .standard import Data, StandardForm
from .status import Certificate, Status, UnsupportedError

__all__ = ["Plan", "Route", "Solved"]

# Numbers a chunk of a batch may hold: bounds the memory of the certificate's temporaries.
_CHUNK = 2**23


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
        return not self.status.any()  # OPTIMAL is 0


@dataclass(frozen=True, eq=False)
class Route:
    """A specialised backend that is asked first, with what it prepared."""

    backend: AbstractBackend
    state: Any


class Plan:
    """How a program will be solved: specialised backends in turn, then a general one, and the limits.

    Args:
        form: The compiled program.
        backend: The configured general backend.
        routes: Backends that certify their own proposals, with their states; each is asked for the items
            that those before it declined.
        why: What led to the choice, a line each, for ``print``.
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
        routes: Sequence[Route] = (),
        why: Sequence[str] = (),
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
        self.routes = tuple(routes)
        self.why = tuple(why)
        self.threads = threads
        self.time_limit = time_limit
        self.tolerance = tolerance
        self.state = backend.prepare(form)

    @property
    def solvers(self) -> tuple[str, ...]:
        """Names of the backends in the order they are asked; the last may be HiGHS as the fallback."""
        return (*(route.backend.name for route in self.routes), self.backend.name, "highs")

    @property
    def solver(self) -> str:
        """Name of the backend that is asked first."""
        return self.solvers[0]

    def __getstate__(self) -> dict[str, Any]:
        routes = [route.backend for route in self.routes]
        return {**{k: v for k, v in self.__dict__.items() if k != "state"}, "routes": routes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.routes = tuple(Route(backend, backend.prepare(self.form)) for backend in state["routes"])
        self.state = self.backend.prepare(self.form)

    def __repr__(self) -> str:
        limit = "no time limit" if self.time_limit is None else f"{self.time_limit:g} s an item"
        asked = ", then ".join(repr(backend) for backend in (*(r.backend for r in self.routes), self.backend))
        head = f"Plan: {asked}, {self.threads} thread(s), {limit}, certificate tolerance {self.tolerance:g}"
        return "\n  ".join([head, *self.why])

    def solve(self, data: Data) -> Solved:
        """Solve a batch. Raises for no item's sake: statuses tell."""
        solved, rest = self._specialised(data)
        if solved is None:
            return self._solve_in_chunks(data)
        if len(rest):
            refused = solved.fallbacks[rest]
            general = self._solve_in_chunks(data.take(rest) if len(rest) < data.size else data)
            general.fallbacks |= refused
            _write(solved, general, rest)
        return solved

    def stand(self, data: Data, x: np.ndarray, y: np.ndarray, ok: np.ndarray, basic: np.ndarray) -> Standing:
        """Bases of solutions that ``solve`` returned, and what they prove; those not found then are found now.

        Args:
            x, y, ok, basic: As in ``Solved``; ``ok`` is (B,) bool, and the other items are not looked at.
        """
        x, y = (np.where(ok[:, None], array, 0.0) for array in (x, y))
        form = self.form
        if basic.shape[1] == 0 and form.n + form.m:
            basic = np.zeros((len(x), form.n + form.m), dtype=bool)
        lacking = ok & ~basic.any(axis=1)
        data = normalised(data)
        for route in self.routes:
            items = np.flatnonzero(lacking)
            if len(items) == 0:
                break
            found = route.backend.basis(route.state, data.take(items), x[items], y[items])
            if found is not None:
                basic = basic.copy()
                basic[items] = found
                lacking[items] = ~found.any(axis=1)
        units = Units.of(form, data)
        return stand(form, units.enlarge(data), *units.enlarge_solution(x, y), basic, self.tolerance)

    # -- specialised backends ------------------------------------------------------------------------

    def _specialised(self, data: Data) -> tuple[Solved | None, np.ndarray]:
        """What the routes solve, certified, and the items that are left."""
        solved: Solved | None = None
        rest = np.arange(data.size)
        for place, route in enumerate(self.routes):
            part = data if len(rest) == data.size else data.take(rest)
            proposal = self._propose(route.backend, route.state, part)
            if proposal.certificate is None:  # it broke
                continue
            found = self._accepted(proposal, place)
            if solved is None:
                solved = found
            else:
                found.fallbacks |= solved.fallbacks[rest]
                _write(solved, found, rest)
            # What is said to have no optimum goes to the general solver at once, which gives the proof.
            rest = rest[(found.status == Status.ERROR) | (found.status == Status.INACCURATE)]
            if len(rest) == 0:
                break
        if solved is None or solved.all_ok:
            return solved, rest[:0]
        return solved, np.flatnonzero(solved.status != Status.OPTIMAL)

    def _accepted(self, proposal: BatchSolution, place: int) -> Solved:
        size, certificate, status = len(proposal.x), proposal.certificate, proposal.status
        assert certificate is not None and proposal.y is not None
        judged = Judged(
            value=certificate.value,
            x=proposal.x,
            y=proposal.y,
            ok=status == Status.OPTIMAL,
            gap=certificate.gap,
            primal_residual=certificate.primal_residual,
            dual_residual=certificate.dual_residual,
        )
        return Solved(
            judged=judged,
            status=status,
            iterations=proposal.iterations,
            basic=np.zeros((size, 0), dtype=bool) if proposal.basic is None else proposal.basic,
            solvers=np.full(size, place, dtype=np.int8),
            fallbacks=status == Status.INACCURATE,
        )

    # -- the general backend -------------------------------------------------------------------------

    def _solve_in_chunks(self, data: Data) -> Solved:
        per_item = self.form.n + self.form.m + self.form.nnz + 1
        chunk = max(1, _CHUNK // per_item)
        size = data.size
        if size <= chunk:
            return self._solve_generally(data)
        parts = [
            (start, self._solve_generally(data.take(slice(start, start + chunk))))
            for start in range(0, size, chunk)
        ]
        return _concatenate(parts)

    def _solve_generally(self, data: Data) -> Solved:
        data = normalised(data)
        size = data.size
        solved = _unsolved(self.form, size, len(self.routes))
        status = solved.status
        screen(self.form, data, status, solved.certificates, solved.messages)
        todo = np.flatnonzero(status == Status.ERROR)
        if len(todo):
            part = data if len(todo) == size else data.take(todo)
            self._attempt(self.backend, self.state, part, todo, solved)
            if not self.form.is_mip and (status != Status.OPTIMAL).any():
                self._fall_back(data, solved)
                self._confirm_unbounded(data, solved)
        failed = status != Status.OPTIMAL
        if failed.any():
            _blank(solved, failed, status)
        solved.messages = {item: text for item, text in solved.messages.items() if failed[item]}
        return solved

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
            _write_arrays(solved.judged, judged, items)
        if proposal.basic is not None:
            solved.basic[items] = proposal.basic
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
        if self.form.n == 0 and not backend.capabilities.certifies:
            return without_variables(self.form, data, self.tolerance)
        try:
            proposal = backend.solve(state, data, threads=self.threads, time_limit=self.time_limit)
            wrong = fault(self.form, data.size, proposal)
        except (BackendError, UnsupportedError):
            raise
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong is None:
            return proposal
        text = f"solver {backend.name!r} broke: {wrong}"
        if not self.form.is_mip:
            warnings.warn(f"{text}; HiGHS is asked instead", RuntimeWarning, stacklevel=2)
        broken = BatchSolution.empty(self.form, data.size)
        broken.messages = dict.fromkeys(range(data.size), text)
        return broken

    def _judge(self, data: Data, proposal: BatchSolution) -> Judged:
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
            solved.solvers[items] = len(self.routes) + 1
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
        asked = _unsolved(self.form, len(items), 0)
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


def _unsolved(form: StandardForm, size: int, solver: int) -> Solved:
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


def _write(target: Solved, source: Solved, items: np.ndarray) -> None:
    """Put a part of the batch in its place, with all that is told of it."""
    if target.basic.shape[1] < source.basic.shape[1]:
        target.basic = np.zeros((len(target.status), source.basic.shape[1]), dtype=bool)
    if source.basic.shape[1]:
        target.basic[items] = source.basic
    _write_arrays(target.judged, source.judged, items)
    for name in _ARRAYS:
        getattr(target, name)[items] = getattr(source, name)
    target.certificates |= {int(items[k]): v for k, v in source.certificates.items()}
    target.messages |= {int(items[k]): v for k, v in source.messages.items()}


def _write_arrays(target: Judged, source: Judged, items: np.ndarray) -> None:
    for name, array in vars(source).items():
        getattr(target, name)[items] = array


def _blank(solved: Solved, failed: np.ndarray, status: np.ndarray) -> None:
    """Failed items hold no number that could be taken for a solution."""
    judged = solved.judged
    for name in ("x", "y", "gap", "primal_residual", "dual_residual", "value"):
        getattr(judged, name)[failed] = np.nan
    judged.ok[failed] = False
    solved.basic[failed] = False
    judged.value[status == Status.INFEASIBLE] = np.inf
    judged.value[status == Status.UNBOUNDED] = -np.inf


def _concatenate(parts: list[tuple[int, Solved]]) -> Solved:
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
