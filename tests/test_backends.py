"""The backends that come with lpdiff: the contract, the registry, and agreement with each other."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import subprocess
import sys
import types
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import scipy.optimize
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from lpdiff import AbstractBackend, BackendError, Capabilities, Status, available_backends
from lpdiff.backend import BatchSolution, backend_class, make_backend
from lpdiff.backends import glop
from lpdiff.backends.glop import GLOP
from lpdiff.backends.highs import HiGHS
from lpdiff.standard import FIELDS, Data, StandardForm
from lpdiff.testing import BackendContract, Specimen, random_lp, zoo

_REASON = GLOP.missing()
needs_glop = pytest.mark.skipif(_REASON is not None, reason=_REASON or "")

_SOLVABLE = [s for s in zoo().values() if s.status == Status.OPTIMAL]


class TestHiGHS(BackendContract):
    backend = HiGHS()


class TestHiGHSPrimal(BackendContract):
    backend = HiGHS(method="primal")


class TestHiGHSPresolve(BackendContract):
    backend = HiGHS(presolve=True)


class TestHiGHSInteriorPoint(BackendContract):
    backend = HiGHS(method="ipm")


class TestHiGHSInteriorPointWithoutCrossover(BackendContract):
    backend = HiGHS(method="ipm", crossover=False)
    vertices = False


@needs_glop
class TestGLOP(BackendContract):
    backend = GLOP()


@needs_glop
class TestGLOPPrimal(BackendContract):
    backend = GLOP(method="primal")


@needs_glop
class TestGLOPPresolve(BackendContract):
    backend = GLOP(presolve=True)


# -- the registry --------------------------------------------------------------------------------------


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Foreign(AbstractBackend):
    """A third party's backend, as small as they come: it asks HiGHS."""

    flavour: Literal["plain", "odd"] = "plain"
    size: int = Field(default=1, ge=1)

    name: ClassVar[str] = "foreign"
    capabilities: ClassVar[Capabilities] = Capabilities()

    def prepare(self, form: StandardForm) -> StandardForm:
        return form

    def solve(
        self, state: StandardForm, data: Data, *, threads: int = 1, time_limit: float | None = None
    ) -> BatchSolution:
        return HiGHS().solve(state, data, threads=threads, time_limit=time_limit)


def register(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Entry points of another package, beside lpdiff's own."""
    real = importlib.metadata.entry_points
    ours = list(real(group="lpdiff.backends"))
    added = [importlib.metadata.EntryPoint(name, value, "lpdiff.backends") for name, value in values.items()]

    def entry_points(**keywords: Any) -> Any:
        if keywords == {"group": "lpdiff.backends"}:
            return importlib.metadata.EntryPoints([*ours, *added])
        return real(**keywords)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    module = types.ModuleType("a_third_party")
    module.Foreign, module.NotABackend = Foreign, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_third_party", module)


def test_both_are_registered() -> None:
    assert {"highs", "glop"} <= set(available_backends())
    assert backend_class("highs") is HiGHS


def test_a_third_party_registers_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, foreign="a_third_party:Foreign")
    assert "foreign" in available_backends()
    made = make_backend("foreign", {"flavour": "odd"})
    assert made == Foreign(flavour="odd")
    assert make_backend(made) is made


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nope", "a_third_party:Foreign", "unknown solver 'missing'.*nope"),
        ("missing", "not_a_module_at_all:Foreign", "'missing' cannot be loaded.*not_a_module"),
        ("missing", "a_third_party:NotABackend", "not an AbstractBackend"),
    ],
)
def test_registry_errors(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    register(monkeypatch, **{name: value})
    with pytest.raises(BackendError, match=message):
        make_backend("missing")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BackendError, match=r"unknown solver 'nope'.*glop.*highs"):
        make_backend("nope")


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        ("highs", {"methd": "ipm"}, "unknown option 'methd' of solver 'highs'.*method"),
        ("highs", {"method": "magic"}, "option 'method' of solver 'highs'.*'magic'"),
        ("highs", {"primal_tolerance": 1.0}, "'primal_tolerance'.*less than or equal.*1.0"),
        ("highs", {"iteration_limit": -1}, "'iteration_limit'.*-1"),
        pytest.param("glop", {"crossover": True}, "unknown option 'crossover' of.*method", marks=needs_glop),
        pytest.param("glop", {"method": "ipm"}, "'method' of solver 'glop'.*'ipm'", marks=needs_glop),
        pytest.param("glop", {"dual_tolerance": 0.0}, "'dual_tolerance'.*greater", marks=needs_glop),
        pytest.param("glop", {"random_seed": -3}, "'random_seed'.*-3", marks=needs_glop),
    ],
)
def test_option_errors_say_what_was_expected(solver: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_backend(solver, options)


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"options of solver 'highs'.*presolve=False.*'ipm'"):
        make_backend("highs", {"method": "ipm", "presolve": False})


def test_an_instance_takes_no_further_options() -> None:
    with pytest.raises(ValueError, match=r"already a configured HiGHS.*'method'"):
        make_backend(HiGHS(), {"method": "ipm"})
    with pytest.raises(TypeError, match="name or a backend instance, got int"):
        make_backend(3)  # type: ignore[arg-type]


# -- OR-Tools absent, or in a clash --------------------------------------------------------------------


def test_absence_of_ortools_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "ortools" else real(name, *a)
    )
    with pytest.raises(BackendError, match=r'not installed: pip install "lpdiff\[ortools\]"'):
        make_backend("glop")


@pytest.mark.parametrize(
    ("version", "platform", "clash"),
    [
        ("1.15.0", "linux", True),
        ("1.15.0rc1", "linux", True),
        ("2.0", "linux", True),
        ("1.14.9", "linux", False),
        ("1.9.0", "linux", False),
        ("1.15.0", "darwin", False),
    ],
)
def test_clash_of_highspy_and_ortools(
    monkeypatch: pytest.MonkeyPatch, version: str, platform: str, clash: bool
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"highspy": version}[name])
    monkeypatch.setattr(sys, "platform", platform)
    if clash:
        with pytest.raises(BackendError, match=f'highspy {version}.*pip install "highspy<1.15"'):
            make_backend("glop")
    else:
        assert make_backend("glop") == GLOP()


def test_an_ortools_that_does_not_load_is_a_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glop, "_ortools", functools.cache(glop._ortools.__wrapped__))
    monkeypatch.setitem(sys.modules, "ortools.math_opt", None)  # makes its import fail
    with pytest.raises(BackendError, match="solver 'glop' cannot run here"):
        GLOP().prepare(random_lp(np.random.default_rng(0), 3, 2).form)


def test_optional_packages_are_not_needed_to_import() -> None:
    """Without ortools and pytest lpdiff and lpdiff.testing load, and GLOP says what is missing."""
    code = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "pytest":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
import lpdiff, lpdiff.testing, lpdiff.backends.glop
import numpy as np
lpdiff.testing.zoo(), lpdiff.testing.random_lp(np.random.default_rng(0), 3, 2)
assert not any(name.split(".")[0] in ("ortools", "pytest") for name in sys.modules)
try:
    lpdiff.testing.BackendContract
except ModuleNotFoundError as error:
    assert "pytest" in str(error)
else:
    raise AssertionError
print("fine")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "fine", done.stderr


# -- GLOP's own paths ------------------------------------------------------------------------------------


class Doctored:
    """OR-Tools, with some results of ``solve`` changed; remembers how each solve was asked for."""

    def __init__(self, change: Any) -> None:
        self.change, self.asked = change, []
        self.real = glop._ortools()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def solve(self, *arguments: Any) -> Any:
        parameters, result = arguments[3].glop, self.real.solve(*arguments)
        self.asked.append(("dual" if parameters.use_dual_simplex else "primal", parameters.use_preprocessing))
        self.change(parameters, result)
        return result


@needs_glop
class TestGLOPInTrouble:
    NUMERICAL_ERROR = 7

    @staticmethod
    def solve(
        monkeypatch: pytest.MonkeyPatch, change: Any, **options: Any
    ) -> tuple[BatchSolution, list[tuple[str, bool]]]:
        lp = random_lp(np.random.default_rng(41), 8, 5, sense="min")
        doctored = Doctored(change)
        state = GLOP().prepare(lp.form)
        good = GLOP(method="primal").solve(state, lp.data)
        monkeypatch.setattr(glop, "_ortools", lambda: doctored)
        out = GLOP(**options).solve(state, lp.data)
        if out.status[0] == Status.OPTIMAL:
            np.testing.assert_allclose(out.x, good.x, atol=1e-9)
        return out, doctored.asked

    def break_dual(self, parameters: Any, result: Any) -> None:
        if parameters.use_dual_simplex:
            result.termination.reason = self.NUMERICAL_ERROR
            result.termination.detail = "as ordered"

    def test_auto_tries_primal_simplex(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, asked = self.solve(monkeypatch, self.break_dual)
        assert asked == [("dual", False), ("primal", False)]
        assert out.status[0] == Status.OPTIMAL and not out.messages

    def test_dual_means_dual(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out, asked = self.solve(monkeypatch, self.break_dual, method="dual")
        assert asked == [("dual", False)]
        assert out.status[0] == Status.ERROR
        assert out.messages == {0: "GLOP: NUMERICAL_ERROR as ordered"}

    @pytest.mark.parametrize("method", ["dual", "primal"])
    def test_a_basis_that_presolve_lost_is_found_again(
        self, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        def lose(parameters: Any, result: Any) -> None:
            if parameters.use_preprocessing:
                status = result.solutions[0].basis.variable_status
                status.values[:] = [1] * len(status.values)

        out, asked = self.solve(monkeypatch, lose, method=method, presolve=True)
        assert asked == [(method, True), (method, False)]
        assert out.status[0] == Status.OPTIMAL

    def test_what_the_binding_throws_is_a_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def throw(parameters: Any, result: Any) -> None:
            raise RuntimeError("as ordered")

        out, _ = self.solve(monkeypatch, throw)
        assert out.status[0] == Status.ERROR
        assert out.messages == {0: "GLOP: RuntimeError: as ordered"}

    @pytest.mark.parametrize(
        ("limits", "status"),
        [
            ({"iteration_limit": 2}, Status.ITERATION_LIMIT),
            ({"iteration_limit": 10**6, "time_limit": 1e-7}, Status.TIME_LIMIT),
            ({"iteration_limit": 2, "time_limit": 60.0}, Status.ITERATION_LIMIT),
        ],
    )
    def test_which_limit_it_was(self, limits: dict[str, Any], status: Status) -> None:
        lp = random_lp(np.random.default_rng(42), 60, 40)
        limits = dict(limits)
        time_limit = limits.pop("time_limit", None)
        backend = GLOP(**limits)
        out = backend.solve(backend.prepare(lp.form), lp.data, time_limit=time_limit)
        assert Status(out.status[0]) == status, out.messages

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("infeasible, dual infeasible too", Status.INFEASIBLE),
            ("unbounded", Status.UNBOUNDED),
        ],
    )
    def test_infeasible_or_unbounded_is_decided(self, name: str, status: Status) -> None:
        """And the costs, set to zero for that, are back for the next item."""
        lp = zoo()[name].lp
        state = GLOP().prepare(lp.form)
        tame = Data(*(np.repeat(getattr(lp.data, name), 3, axis=0) for name in FIELDS))
        tame.upper[2], tame.row_upper[2] = 7.0, 100.0
        tame.row_lower[2] = -100.0
        # The costs stay shared: filled in once for the whole batch.
        out = GLOP().solve(state, Data(lp.data.c, *(getattr(tame, name) for name in FIELDS[1:])))
        assert [Status(s) for s in out.status] == [status, status, Status.OPTIMAL]
        single = tame.take([2])
        np.testing.assert_array_equal(out.x[2], GLOP().solve(state, single).x[0])


# -- agreement -------------------------------------------------------------------------------------------


def reduced_costs_determined(specimen: Specimen, value: float) -> bool:
    """Whether all optimal duals have one d = c - A'y, told by two LPs over the optimal dual face.

    The redundancy of equality rows moves y alone, so d is y projected onto what is determined.
    """
    form, data = specimen.lp.form, specimen.lp.data
    c, values, *sides = data.item(0)
    both = np.hstack([form.matrix(values).toarray().T, np.eye(form.n)])
    lower, upper = np.concatenate(sides[::2]), np.concatenate(sides[1::2])
    low, high = np.isfinite(lower), np.isfinite(upper)
    gain = np.concatenate([lower[low], -upper[high]])
    split = np.concatenate([np.flatnonzero(low), np.flatnonzero(high)])
    sign = np.repeat([1.0, -1.0], [low.sum(), high.sum()])
    if form.n == 0 or len(split) == 0:
        return True
    matrix = both[:, split] * sign
    probe = np.random.default_rng(43).normal(size=form.n)
    goal = np.where(split >= form.m, probe[np.maximum(split - form.m, 0)] * sign, 0.0)
    ends = [
        scipy.optimize.linprog(
            way * goal,
            A_ub=-gain[None],
            b_ub=[-value + 1e-9 * (1 + abs(value))],
            A_eq=matrix,
            b_eq=c,
            options={"presolve": False},
        )
        for way in (1.0, -1.0)
    ]
    return all(end.status == 0 for end in ends) and abs(ends[0].fun + ends[1].fun) < 1e-5


@needs_glop
class TestAgreement:
    @staticmethod
    def solve(specimen: Specimen) -> tuple[BatchSolution, BatchSolution]:
        form, data = specimen.lp.form, specimen.lp.data
        one, two = (b.solve(b.prepare(form), data) for b in (HiGHS(), GLOP()))
        assert one.status[0] == two.status[0] == Status.OPTIMAL
        return one, two

    @pytest.mark.parametrize("specimen", _SOLVABLE, ids=repr)
    def test_value(self, specimen: Specimen) -> None:
        one, two = self.solve(specimen)
        c = specimen.lp.data.c[0]
        assert c @ one.x[0] == pytest.approx(c @ two.x[0], rel=1e-8, abs=1e-8)

    def test_projected_duals(self) -> None:
        compared = []
        for specimen in _SOLVABLE:
            one, two = self.solve(specimen)
            form, data = specimen.lp.form, specimen.lp.data
            assert one.y is not None and two.y is not None
            d, e = (data.c - form.transposed_times(data.values, out.y) for out in (one, two))
            if reduced_costs_determined(specimen, float(data.c[0] @ one.x[0])):
                np.testing.assert_allclose(d, e, atol=1e-6, err_msg=specimen.name)
                compared.append(specimen.name)
        # Redundant rows with a determined d, and a good part of the zoo, must have been among them.
        assert "transport" in compared
        assert len(compared) >= 25
