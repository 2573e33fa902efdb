"""Plan and solve a batch: propose (specialised, then general), certify, fall back, certify again."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import AbstractBackend, BackendError, BatchSolution, make_backend
from .kkt import Judged, Standing, certify, certify_integers, stand
from .proofs import prove_infeasible, prove_unbounded
from .scaling import Balance, Units
from .screen import fault, normalised, screen, without_variables
from .solved import Solved, blank, concatenate, unsolved, write, write_arrays
from .standard import Data, StandardForm
from .status import Status, UnsupportedError

__all__ = ["Plan", "Route", "Solved"]

# Numbers a chunk of a batch may hold: bounds the memory of the certificate's temporaries.
_CHUNK = 2**23

_USUAL = 1e-6  # the default tolerance

_NONE = np.zeros(0, dtype=np.int64)

# How much larger (2^13) the fallback sees the numbers: its tolerance of 1e-9 is 1e-13 then. Less would be
# rounding, and simplex would go round in circles.
_MORE = 13


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
        backends = (*(route.backend for route in self.routes), self.backend)
        asked = ", then ".join(backend.told() for backend in backends)
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
            write(solved, general, rest)
        return solved

    def basic_duals(
        self, data: Data, x: np.ndarray, y: np.ndarray, ok: np.ndarray, basic: np.ndarray
    ) -> np.ndarray:
        """Duals at a vertex, (B, m), of solutions that ``solve`` returned: it gives any that are optimal.

        Args:
            x, y, ok, basic: As in ``Solved``; ``ok`` is (B,) bool, and the other items are not looked at.
        """
        items = np.flatnonzero(ok & np.logical_not(basic.any(axis=1)))  # a known basis has its duals
        for route in self.routes if len(items) else ():
            found = route.backend.basic_duals(route.state, data.take(items), x[items], y[items])
            if found is not None:
                y = y.copy()
                y[items] = found
        return y

    def stand(self, data: Data, x: np.ndarray, y: np.ndarray, ok: np.ndarray, basic: np.ndarray) -> Standing:
        """Bases of solutions that ``solve`` returned, and what they prove; those unknown are found now.

        Args:
            x, y, ok, basic: As in ``Solved``, with basic duals; ``ok`` is (B,) bool, and the other items are
                not looked at.
        """
        x, y = (np.where(ok[:, None], array, 0.0) for array in (x, y))
        data = normalised(data)
        asked = np.logical_not(basic.any(axis=1))  # what is found now are trees and single columns
        basic = self.bases(data, x, y, ok, basic)
        units = Units.of(self.form, data)
        data, (x, y) = units.enlarge(data), units.enlarge_solution(x, y)
        return stand(self.form, data, x, y, basic, self.tolerance, checked=asked)

    def bases(
        self, data: Data, x: np.ndarray, y: np.ndarray, ok: np.ndarray, basic: np.ndarray
    ) -> np.ndarray:
        """Bases of ``ok`` items, (B, n + m): those that are known, and those that can be found."""
        width = self.form.n + self.form.m
        if basic.shape[1] < width:
            basic = np.zeros((len(x), width), dtype=bool)
        lacking = ok & ~basic.any(axis=1)
        for route in self.routes:
            items = np.flatnonzero(lacking)
            if len(items) == 0:
                break
            found = route.backend.basis(route.state, data.take(items), x[items], y[items])
            if found is not None:
                basic = basic.copy()
                basic[items] = found
                lacking[items] = ~found.any(axis=1)
        return basic

    # -- specialised backends ------------------------------------------------------------------------

    def _specialised(self, data: Data) -> tuple[Solved | None, np.ndarray]:
        """What the routes solve, certified, and the items that are left."""
        solved: Solved | None = None
        broke = False
        rest: np.ndarray | None = None  # all
        for place, route in enumerate(self.routes):
            part = data if rest is None else data.take(rest)
            proposal = self._propose(route.backend, route.state, part)
            if proposal.certificate is None:
                broke = True
                continue
            found = self._accepted(proposal, place)
            all_ok = found.all_ok
            if all_ok and rest is None and not broke:
                return found, _NONE
            found.fallbacks |= found.status == Status.INACCURATE
            if broke:
                found.fallbacks[:] = True
            if solved is None or rest is None:
                solved = found
            else:
                found.fallbacks |= solved.fallbacks[rest]
                write(solved, found, rest)
            if all_ok:
                break
            # What is said to have no optimum goes to the general solver at once, which gives the proof.
            open_ = (found.status == Status.ERROR) | (found.status == Status.INACCURATE)
            rest = np.flatnonzero(open_) if rest is None else rest[open_]
            if len(rest) == 0:
                break
        if solved is None and broke:
            solved = unsolved(self.form, data.size, len(self.routes))
            solved.fallbacks[:] = True
        return solved, _NONE if solved is None else np.flatnonzero(solved.status)  # OPTIMAL is 0

    def _accepted(self, proposal: BatchSolution, place: int) -> Solved:
        certificate, status, size = proposal.certificate, proposal.status, len(proposal.status)
        assert certificate is not None
        kept = vars(proposal)  # x and y may not be written out yet
        judged = Judged(
            value=certificate.value,
            x=kept["x"],
            y=kept["y"],
            ok=np.logical_not(status),  # OPTIMAL is 0
            gap=certificate.gap,
            primal_residual=certificate.primal_residual,
            dual_residual=certificate.dual_residual,
        )
        solved = Solved(
            judged=judged,
            status=status,
            iterations=proposal.iterations,
            basic=np.zeros((size, 0), dtype=bool) if proposal.basic is None else proposal.basic,
            solvers=np.zeros(size, dtype=np.int8),
            fallbacks=np.zeros(size, dtype=bool) if proposal.refused is None else proposal.refused,
        )
        if place:
            solved.solvers.fill(place)
        return solved

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
        return concatenate(parts)

    def _solve_generally(self, data: Data) -> Solved:
        data = normalised(data)
        size = data.size
        solved = unsolved(self.form, size, len(self.routes))
        status = solved.status
        screen(self.form, data, status, solved.certificates, solved.messages)
        todo = np.flatnonzero(status == Status.ERROR)
        if len(todo):
            part = data if len(todo) == size else data.take(todo)
            self._attempt(self.backend, self.state, part, todo, solved)
            if not self.form.is_mip and (status != Status.OPTIMAL).any():
                nearly = self._nearly(data, solved)
                self._fall_back(data, solved)
                if nearly is not None:
                    self._settle(*nearly, solved)
                self._confirm_unbounded(data, solved)
        failed = status != Status.OPTIMAL
        if failed.any():
            blank(solved, failed, status)
        solved.messages = {item: text for item, text in solved.messages.items() if failed[item]}
        return solved

    def _attempt(
        self,
        backend: AbstractBackend,
        state: Any,
        data: Data,
        items: np.ndarray,
        solved: Solved,
        trial: int = 0,
    ) -> None:
        """Let a backend propose for ``items`` (the items of ``data``), and judge its proposals.

        What was refused once (``trial`` 1) is shown in larger numbers; the last word (2) is judged loosely.
        """
        units = Units.of(self.form, data, _MORE if trial == 1 else 0)
        enlarged = units.enlarge(data)
        balance = Balance.of(self.form, enlarged) if trial else None
        shown = enlarged if balance is None else balance.apply(self.form, enlarged)
        proposal = self._propose(backend, state, shown)
        if balance is not None:
            balance.restore(proposal)
        judged = self._judge(enlarged, proposal, loose=trial == 2)
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
            write_arrays(solved.judged, judged, items)
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
            wrong = None if getattr(proposal, "certificate", None) else fault(self.form, data.size, proposal)
        except (BackendError, UnsupportedError):
            raise
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong is None:
            return proposal
        text = f"solver {backend.name!r} broke: {wrong}"
        if not self.form.is_mip:
            warnings.warn(f"{text}; another solver is asked", RuntimeWarning, stacklevel=2)
        broken = BatchSolution.empty(self.form, data.size)
        broken.messages = dict.fromkeys(range(data.size), text)
        return broken

    def _judge(self, data: Data, proposal: BatchSolution, *, loose: bool) -> Judged:
        form, optimal = self.form, proposal.status == Status.OPTIMAL
        # What a backend leaves in the rows of failed items is never read.
        x = np.where(optimal[:, None], proposal.x, 0.0)
        if form.is_mip:
            assert proposal.bound is not None
            bound = np.where(optimal, proposal.bound, 0.0)
            return certify_integers(form, data, x, bound, self.tolerance)
        assert proposal.y is not None
        y = np.where(optimal[:, None], proposal.y, 0.0)
        # Who raises the tolerance wants no more than that.
        loose = loose or self.tolerance > _USUAL
        return certify(form, data, x, y, proposal.basic, self.tolerance, loose=loose)

    def _fall_back(self, data: Data, solved: Solved) -> None:
        """What is not proved goes to HiGHS with tight tolerances, first dual, then primal simplex.

        The last is judged loosely: a vertex so ill-conditioned that it is not exact may pass.
        """
        for trial, method in enumerate(("dual", "primal"), start=1):
            unproved = np.isin(solved.status, (Status.INACCURATE, Status.ERROR))
            for item, certificate in solved.certificates.items():
                unproved[item] |= not certificate.verified
            items = np.flatnonzero(unproved)
            if len(items) == 0:
                return
            strict = _limited(_strict(method), self.form)
            before = {int(i): (solved.status[i], solved.certificates.get(int(i))) for i in items}
            for item in before:
                solved.certificates.pop(item, None)
            solved.fallbacks[items] = True
            solved.solvers[items] = len(self.routes) + 1
            self._attempt(strict, strict.prepare(self.form), data.take(items), items, solved, trial)
            tired = items[solved.status[items] == Status.ITERATION_LIMIT]
            solved.status[tired] = Status.ERROR
            for item, (claimed, claim) in before.items():
                # A claim that nobody proved stands against an error, not against a proof.
                if claim is not None and solved.status[item] in (Status.ERROR, Status.INACCURATE):
                    solved.status[item] = claimed
                    solved.certificates[item] = claim

    def _nearly(self, data: Data, solved: Solved) -> tuple[np.ndarray, Judged, np.ndarray] | None:
        """Items whose proposals are no exact vertices, but optimal to the tolerance; the proposals."""
        items = np.flatnonzero(solved.status == Status.INACCURATE)
        if len(items) == 0:
            return None
        part, judged = data.take(items), solved.judged
        units = Units.of(self.form, part)
        x, y = units.enlarge_solution(judged.x[items], judged.y[items])
        basic = solved.basic[items]
        again = certify(self.form, units.enlarge(part), x, y, basic, self.tolerance, loose=True)
        units.restore(again)
        return items, again, basic

    def _settle(self, items: np.ndarray, judged: Judged, basic: np.ndarray, solved: Solved) -> None:
        """Where there is no exact vertex, since the rows contradict each other by less than the tolerance
        (marginals that were summed in float32, say), the nearly exact one is the answer."""
        stuck = np.isin(solved.status[items], (Status.INFEASIBLE, Status.UNBOUNDED))
        local = np.flatnonzero(judged.ok & stuck)
        if len(local) == 0:
            return
        places = items[local]
        write_arrays(solved.judged, Judged(**{k: v[local] for k, v in vars(judged).items()}), places)
        solved.basic[places] = basic[local]
        solved.status[places] = Status.OPTIMAL
        solved.solvers[places] = len(self.routes)
        for item in places.tolist():
            solved.certificates.pop(item, None)

    def _confirm_unbounded(self, data: Data, solved: Solved) -> None:
        """A direction proves that no optimum exists, not that a point does: a solve without costs tells."""
        items = np.flatnonzero(solved.status == Status.UNBOUNDED)
        if len(items) == 0:
            return
        part = data.take(items)
        part = dataclasses.replace(part, c=np.zeros_like(part.c))
        asked = unsolved(self.form, len(items), 0)
        strict = _limited(_strict("dual"), self.form)
        self._attempt(strict, strict.prepare(self.form), part, np.arange(len(items)), asked, 1)
        for local, item in enumerate(items.tolist()):
            if asked.status[local] == Status.INFEASIBLE and asked.certificates[local].verified:
                solved.status[item] = Status.INFEASIBLE
                solved.certificates[item] = asked.certificates[local]


def _strict(method: str) -> AbstractBackend:
    """HiGHS at its tightest sensible tolerances."""
    tolerances = {"primal_tolerance": 1e-9, "dual_tolerance": 1e-9}
    return make_backend("highs", {"method": method, "presolve": False, "warm_start": False} | tolerances)


def _limited(backend: AbstractBackend, form: StandardForm) -> AbstractBackend:
    """Tolerances near rounding can send simplex round in circles: it stops far beyond what it ever takes."""
    if "iteration_limit" not in backend.option_names():
        return backend
    return dataclasses.replace(backend, iteration_limit=10_000 + 100 * (form.n + form.m))  # type: ignore[type-var]
