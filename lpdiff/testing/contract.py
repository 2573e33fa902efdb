"""The contract of a backend, as tests. A third party runs them too:

    class TestMine(lpdiff.testing.BackendContract):
        backend = MyBackend()

All checks are this file's own arithmetic, SciPy's ``linprog``, or enumeration; nothing is taken on
the backend's word.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import pickle
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.optimize

from ..backend import AbstractBackend, BatchSolution, Capabilities
from ..program import LinearProgram
from ..proofs import prove_infeasible, prove_unbounded
from ..standard import FIELDS, Data, StandardForm
from ..status import Status
from .generate import random_lp
from .zoo import Specimen, zoo

__all__ = ["BackendContract"]

_ZOO = zoo()
_SOLVABLE = [s for s in _ZOO.values() if s.status == Status.OPTIMAL]
_HOPELESS = [s for s in _ZOO.values() if s.status != Status.OPTIMAL]
_CLOSE = 1e-6

solvable = pytest.mark.parametrize("specimen", _SOLVABLE, ids=repr)
hopeless = pytest.mark.parametrize("specimen", _HOPELESS, ids=repr)


class BackendContract:
    """Subclass it, and set ``backend`` to an instance; ``vertices = False`` where it stops inside the
    optimal face (then no basis is asked for)."""

    backend: ClassVar[AbstractBackend]
    vertices: ClassVar[bool] = True

    # -- what comes back -----------------------------------------------------------------------------

    def test_declares_itself(self) -> None:
        cls = type(self.backend)
        assert isinstance(cls.name, str) and cls.name
        assert isinstance(cls.capabilities, Capabilities)
        assert cls.missing() is None
        assert repr(self.backend).startswith(cls.__name__)

    @pytest.mark.parametrize("specimen", _ZOO.values(), ids=repr)
    def test_shapes_and_dtypes(self, specimen: Specimen) -> None:
        form, data = specimen.lp.form, _batch(specimen.lp, 3)
        out = self._solve(form, data)
        _check_layout(out, form, 3)

    @solvable
    def test_value_agrees_with_scipy(self, specimen: Specimen) -> None:
        form, data = specimen.lp.form, specimen.lp.data
        out = self._solve(form, data)
        assert out.status[0] == Status.OPTIMAL, out.messages
        value = float(data.c[0] @ out.x[0])
        assert value == pytest.approx(_scipy_value(form, data), rel=_CLOSE, abs=_CLOSE)
        if specimen.value is not None:
            known = form.sign * (specimen.value - specimen.lp.offset)
            assert value == pytest.approx(known, rel=_CLOSE, abs=_CLOSE)

    @solvable
    def test_x_is_feasible(self, specimen: Specimen) -> None:
        form, data = specimen.lp.form, specimen.lp.data
        x = self._solve(form, data).x[0]
        _, values, row_lower, row_upper, lower, upper = data.item(0)
        activity, scale = form.matrix(values) @ x, _CLOSE * (1 + np.abs(x).max(initial=0.0))
        assert np.all(x >= lower - scale) and np.all(x <= upper + scale)
        assert np.all(activity >= row_lower - scale) and np.all(activity <= row_upper + scale)

    @solvable
    def test_duals_prove_optimality(self, specimen: Specimen) -> None:
        """Weak duality: the bound that (y, c - A'y) proves is the value of x."""
        form, data = specimen.lp.form, specimen.lp.data
        out = self._solve(form, data)
        if not self.backend.capabilities.duals:
            assert out.y is None
            return
        assert out.y is not None
        c, values, *sides = data.item(0)
        bound = _dual_bound(c, form.matrix(values).toarray(), out.y[0], *sides)
        assert bound == pytest.approx(float(c @ out.x[0]), rel=_CLOSE, abs=_CLOSE)

    @solvable
    def test_basis_reproduces_x_and_y(self, specimen: Specimen) -> None:
        form, data = specimen.lp.form, specimen.lp.data
        out = self._solve(form, data)
        if not (self.backend.capabilities.basis and self.vertices):
            assert out.basic is None or not out.basic.any()
            return
        assert out.basic is not None and out.y is not None
        assert out.basic[0].sum() == form.m
        c, values, row_lower, row_upper, lower, upper = data.item(0)
        dense = form.matrix(values).toarray()
        x, y = _vertex(out.basic[0], out.x[0], c, dense, (lower, upper), (row_lower, row_upper))
        np.testing.assert_allclose(x, out.x[0], rtol=_CLOSE, atol=_CLOSE)
        np.testing.assert_allclose(y, out.y[0], rtol=_CLOSE, atol=_CLOSE)

    @hopeless
    def test_no_optimum(self, specimen: Specimen) -> None:
        out = self._solve(specimen.lp.form, specimen.lp.data)
        assert Status(out.status[0]) == specimen.status, out.messages
        if self.backend.capabilities.rays:
            prove = prove_infeasible if specimen.status == Status.INFEASIBLE else prove_unbounded
            certificate = prove(specimen.lp.form, specimen.lp.data, out.rays.get(0))
            assert certificate.verified, certificate.text

    def test_integers(self) -> None:
        """A knapsack: the relaxation takes half an item. Backends without integers refuse it."""
        lp = LinearProgram(
            [-5.0, -4, -3], [[2.0, 3, 1]], [5.0], bounds=(0, 1), integrality=True, name="knapsack"
        )
        if not self.backend.capabilities.integers:
            with pytest.raises(NotImplementedError, match="integer"):
                self.backend.prepare(lp.form)
            return
        out = self._solve(lp.form, lp.data)
        assert out.status[0] == Status.OPTIMAL
        assert out.y is None and out.basic is None and out.bound is not None
        np.testing.assert_allclose(out.x[0], [1, 1, 0], atol=_CLOSE)
        assert out.bound[0] == pytest.approx(-9.0, abs=_CLOSE)

    # -- the batch -------------------------------------------------------------------------------------

    @pytest.mark.parametrize("field", FIELDS)
    def test_shared_data_is_as_good_as_repeated(self, field: str) -> None:
        """Each field in turn is the only one that is given item by item; then each the only shared."""
        lp = random_lp(np.random.default_rng(31), 9, 6, sense="min")
        alone = self._solve(lp.form, lp.data)
        repeated = _batch(lp, 4)
        one_repeated = dataclasses.replace(lp.data, **{field: getattr(repeated, field)})
        one_shared = dataclasses.replace(repeated, **{field: getattr(lp.data, field)})
        for data in (one_repeated, one_shared):
            out = self._solve(lp.form, data)
            assert len(out.x) == 4
            for item in range(4):
                _same_bits(out, item, alone, 0)

    def test_order_and_company_do_not_matter(self) -> None:
        lp, data = _varied(16)
        straight = self._solve(lp.form, data)
        assert (straight.status == Status.OPTIMAL).all()
        assert len(np.unique(straight.x, axis=0)) > 4, "a batch of equal items would show nothing"
        order = np.random.default_rng(32).permutation(16)
        shuffled = self._solve(lp.form, data.take(order))
        for place, item in enumerate(order):
            _same_bits(shuffled, place, straight, item)
            _same_bits(self._solve(lp.form, data.take([item])), 0, straight, item)

    @pytest.mark.parametrize("threads", [2, 3, 64])
    def test_threads_do_not_matter(self, threads: int) -> None:
        lp, data = _varied(65)
        one = self._solve(lp.form, data)
        usual = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # threads that share what they must not trip over it sooner
        try:
            runs = [self._solve(lp.form, data, threads=threads) for _ in range(8)]
        finally:
            sys.setswitchinterval(usual)
        for many, item in itertools.product(runs, range(65)):
            _same_bits(many, item, one, item)

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_bad_item_is_its_own_affair(self, threads: int) -> None:
        """Infeasible, unbounded, crossed: each gets a status, and the others their optimum.

        (NaN and infinite costs never reach a backend: the caller takes them out.)
        """
        lp = random_lp(np.random.default_rng(33), 8, 5, sense="min")
        data = _batch(lp, 5)
        fields = {name: getattr(data, name).copy() for name in FIELDS}
        # Item 1: some row out of reach of a box. Item 2: free columns, and a cost that nothing pays.
        fields["lower"][1], fields["upper"][1] = -1.0, 1.0
        fields["row_lower"][1], fields["row_upper"][1] = 1e3, np.inf
        fields["lower"][2], fields["upper"][2] = -np.inf, np.inf
        fields["row_lower"][2], fields["row_upper"][2] = -np.inf, np.inf
        fields["lower"][3, 0], fields["upper"][3, 0] = 2.0, 1.0
        out = self._solve(lp.form, Data(**fields), threads=threads)
        good = self._solve(lp.form, lp.data)
        statuses = [Status(s) for s in out.status]
        assert statuses[1:3] == [Status.INFEASIBLE, Status.UNBOUNDED]
        assert statuses[3] in (Status.INFEASIBLE, Status.ERROR, Status.INVALID)
        for item in (0, 4):
            _same_bits(out, item, good, 0)

    def test_infinite_bounds_item_by_item(self) -> None:
        """One pattern, but every item has other sides: = <= >= ranged free, boxed free fixed."""
        rng = np.random.default_rng(34)
        form = LinearProgram(np.zeros(4), A=np.ones((3, 4)), row_lower=-np.inf).form
        items: list[Data] = []
        while len(items) < 24:
            lp = random_lp(rng, 4, 3, density=1.0, sense="min")
            if lp.nnz == form.nnz:
                items.append(lp.data)
        data = Data(*(np.concatenate([getattr(d, name) for d in items]) for name in FIELDS))
        out = self._solve(form, data)
        assert (out.status == Status.OPTIMAL).all(), out.messages
        for item, single in enumerate(items):
            value = float(data.c[item] @ out.x[item])
            assert value == pytest.approx(_scipy_value(form, single), rel=_CLOSE, abs=_CLOSE)

    def test_empty_batch(self) -> None:
        lp = random_lp(np.random.default_rng(35), 5, 3)
        for threads in (1, 2):
            out = self._solve(lp.form, lp.data.take(slice(0, 0)), threads=threads)
            if lp.data.shared:  # a shared field cannot say that there are no items
                empty = {name: getattr(lp.data, name)[:0] for name in FIELDS}
                out = self._solve(lp.form, Data(**empty), threads=threads)
            _check_layout(out, lp.form, 0)

    # -- limits, options, state ----------------------------------------------------------------------

    def test_time_limit(self) -> None:
        """An item that cannot finish says so; one that can is not changed by having a limit."""
        hard = random_lp(np.random.default_rng(36), 400, 240, density=0.1)
        out = self._solve(hard.form, hard.data, time_limit=1e-7)
        assert Status(out.status[0]) == Status.TIME_LIMIT, out.messages
        assert 0 in out.messages
        easy = random_lp(np.random.default_rng(37), 8, 5)
        free = self._solve(easy.form, easy.data)
        _same_bits(self._solve(easy.form, easy.data, time_limit=600.0), 0, free, 0)

    def test_options(self) -> None:
        """A frozen dataclass whose fields are the options; what is not one is refused."""
        cls: Any = type(self.backend)
        assert hasattr(cls, "__dataclass_fields__")
        given = {name: getattr(self.backend, name) for name in cls.option_names()}
        assert cls(**given) == self.backend
        with pytest.raises((TypeError, ValueError)):
            cls(no_such_option=1)
        for name, value in given.items():
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(self.backend, name, value)
            with pytest.raises((TypeError, ValueError)):
                cls(**{**given, name: _Nonsense()})

    def test_state_survives(self) -> None:
        """Used again, interleaved with another's, by a copy, and made anew: always the same bits."""
        lp, data = _varied(5)
        other = random_lp(np.random.default_rng(38), 7, 4)
        state, other_state = self.backend.prepare(lp.form), self.backend.prepare(other.form)
        first = self.backend.solve(state, data)
        self.backend.solve(other_state, other.data)
        remade = self.backend.prepare(lp.form)
        states = [state, remade]
        with contextlib.suppress(TypeError):  # what cannot be copied is prepared anew
            states += [copy.deepcopy(state), pickle.loads(pickle.dumps(state))]
        for again in states:
            out = self.backend.solve(again, data)
            for item in range(5):
                _same_bits(out, item, first, item)

    def test_backend_is_pickled_with_its_options(self) -> None:
        assert pickle.loads(pickle.dumps(self.backend)) == self.backend
        assert copy.deepcopy(self.backend) == self.backend

    def test_inputs_are_not_touched(self) -> None:
        lp, data = _varied(4)
        before = {name: getattr(data, name).copy() for name in FIELDS}
        for name in FIELDS:
            getattr(data, name).flags.writeable = False
        out = self._solve(lp.form, data, threads=2)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(data, name), before[name])
            assert not any(np.shares_memory(getattr(data, name), array) for array in (out.x, out.y))

    def _solve(self, form: StandardForm, data: Data, **keywords: Any) -> BatchSolution:
        return self.backend.solve(self.backend.prepare(form), data, **keywords)


class _Nonsense:
    """A value of no option."""


# -- the arithmetic ------------------------------------------------------------------------------------


def _batch(lp: LinearProgram, size: int) -> Data:
    """The program's numbers, repeated item by item."""
    return Data(*(np.repeat(getattr(lp.data, name), size, axis=0) for name in FIELDS))


def _varied(size: int) -> tuple[LinearProgram, Data]:
    """LPs of one form with costs and right-hand sides of their own, feasible and bounded all."""
    rng = np.random.default_rng(30)
    rows = rng.uniform(0, 1, (8, 12)) * (rng.random((8, 12)) < 0.6)
    lp = LinearProgram(np.zeros(12), A_ub=rows, b_ub=np.ones(8), bounds=(0, 2))
    data = dataclasses.replace(
        lp.data,
        c=rng.normal(size=(size, 12)) - 0.5,
        row_upper=rng.uniform(1, 3, (size, 8)),
        values=lp.data.values * rng.uniform(0.5, 1.5, (size, lp.nnz)),
    )
    return lp, data


def _check_layout(out: BatchSolution, form: StandardForm, size: int) -> None:
    expected = {
        "x": ((size, form.n), np.float64),
        "y": ((size, form.m), np.float64),
        "status": ((size,), np.int8),
        "basic": ((size, form.n + form.m), np.bool_),
        "iterations": ((size,), np.int64),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(out, name)
        if array is None and name in ("y", "basic"):
            continue
        assert isinstance(array, np.ndarray), name
        assert array.shape == shape and array.dtype == dtype, name
    optimal = out.status == Status.OPTIMAL
    assert np.isfinite(out.x[optimal]).all()
    assert out.y is None or np.isfinite(out.y[optimal]).all()
    assert (out.iterations >= 0).all()
    assert all(isinstance(item, int) and 0 <= item < size for item in [*out.rays, *out.messages])


def _same_bits(left: BatchSolution, i: int, right: BatchSolution, k: int) -> None:
    for name in ("x", "y", "status", "basic", "iterations"):
        one, other = getattr(left, name), getattr(right, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert one[i].tobytes() == other[k].tobytes(), f"{name} of item {i} differs"


def _scipy_value(form: StandardForm, data: Data) -> float:
    c, values, row_lower, row_upper, lower, upper = data.item(0)
    if form.n == 0:  # linprog wants a variable
        return 0.0
    matrix = form.matrix(values).toarray()
    below, above = np.isfinite(row_upper), np.isfinite(row_lower)
    found = scipy.optimize.linprog(
        c,
        A_ub=np.vstack([matrix[below], -matrix[above]]),
        b_ub=np.concatenate([row_upper[below], -row_lower[above]]),
        bounds=np.stack([lower, upper], axis=1),
    )
    assert found.status == 0, found.message
    return float(found.fun)


def _dual_bound(
    c: np.ndarray,
    matrix: np.ndarray,
    y: np.ndarray,
    row_lower: np.ndarray,
    row_upper: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> float:
    """D(y) = sum(rl y+ - ru y-) + sum(l d+ - u d-) with d = c - A'y; asserts that it is finite."""
    total = 0.0
    for dual, low, high in ((y, row_lower, row_upper), (c - matrix.T @ y, lower, upper)):
        side = np.where(dual > 0, low, np.where(dual < 0, high, 0.0))
        rounding = np.isinf(side) & (np.abs(dual) <= _CLOSE * (1 + np.abs(c).max(initial=0.0)))
        side = np.where(rounding, 0.0, side)
        assert np.isfinite(side).all(), "a dual of the wrong sign: its side is infinite"
        total += float(dual @ side)
    return total


def _vertex(
    basic: np.ndarray,
    point: np.ndarray,
    c: np.ndarray,
    matrix: np.ndarray,
    box: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """x and y from nothing but the basis, the data, and which bound each nonbasic one stands at.

    x_P = K^-1 (r_Q - A_QN x_N),  y_Q = K^-T c_P  with K = A[Q, P], Q the rows whose logical is not
    basic. A nonbasic free column stands at 0, or wherever it was left.
    """
    m, n = matrix.shape
    columns, active = basic[:n], ~basic[n:]
    kernel = matrix[np.ix_(active, columns)]
    assert kernel.shape[0] == kernel.shape[1]
    if len(kernel):
        assert np.linalg.cond(kernel) < 1e12, "the basis is singular"
    activity = matrix @ point

    def nearest(value: np.ndarray, sides: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        low, high = sides
        side = np.where(np.abs(value - low) <= np.abs(high - value), low, high)
        return np.where(np.isinf(low) & np.isinf(high), value, side)

    x = np.where(columns, 0.0, nearest(point, box))
    goal = nearest(activity, rows)[active] - matrix[active] @ x
    x[columns] = np.linalg.solve(kernel, goal)
    y = np.zeros(m)
    y[active] = np.linalg.solve(kernel.T, c[columns])
    return x, y
