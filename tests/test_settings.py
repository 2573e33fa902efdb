"""Configuration: argument over context over environment over file over default, key by key."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic.dataclasses import dataclass

import lpdiff
from lpdiff import Capabilities, LinearProgram, current_settings, options
from lpdiff.backend import AbstractBackend, BackendError
from lpdiff.backends.glop import GLOP
from lpdiff.backends.highs import HiGHS
from lpdiff.settings import Settings, reload

PROGRAM = LinearProgram([1.0, 2], A_ub=[[-1.0, -1]], b_ub=[-1.0], bounds=(0, 2))


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    """No variables, and a directory with no configuration above it."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("LPDIFF_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    reload()
    yield
    reload()


def write(path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    reload()


# -- precedence ----------------------------------------------------------------------------------------

# Values for file, environment (as text), context and argument; the default comes first.
KEYS: dict[str, tuple[Any, Any, tuple[str, Any], Any, Any]] = {
    "solver": ("auto", "from-file", ("from-env", "from-env"), "from-context", "from-argument"),
    "threads": (None, 2, ("3", 3), 4, 5),
    "time_limit": (None, 2.0, ("3.5", 3.5), 4.0, 5.0),
    "tolerance": (1e-6, 1e-3, ("1e-4", 1e-4), 1e-5, 1e-7),
    "gradient": (None, "file", ("env", "env"), "context", "argument"),
}


@pytest.mark.parametrize("key", KEYS)
def test_precedence_of_each_key(key, monkeypatch, tmp_path):
    default, in_file, (text, in_environment), in_context, in_argument = KEYS[key]

    def now(**arguments):
        return getattr(current_settings(**arguments), key)

    assert now() == default
    write(tmp_path / "lpdiff.toml", f"{key} = {in_file!r}\n")
    assert now() == in_file
    monkeypatch.setenv(f"LPDIFF_{key.upper()}", text)
    assert now() == in_environment
    with options(**{key: in_context}) as settings:
        assert getattr(settings, key) == now() == in_context
        assert now(**{key: in_argument}) == in_argument
        assert now() == in_context
    assert now() == in_environment
    assert now(**{key: in_argument}) == in_argument
    monkeypatch.delenv(f"LPDIFF_{key.upper()}")
    assert now() == in_file
    (tmp_path / "lpdiff.toml").unlink()
    reload()
    assert now() == default


def test_keys_are_merged_one_by_one(monkeypatch, tmp_path):
    write(tmp_path / "lpdiff.toml", "threads = 2\ntime_limit = 9\ntolerance = 1e-4\nsolver = 'glop'\n")
    monkeypatch.setenv("LPDIFF_TIME_LIMIT", "8")
    with options(tolerance=1e-5):
        settings = current_settings(solver="highs")
    assert (settings.threads, settings.time_limit, settings.tolerance) == (2, 8.0, 1e-5)
    assert settings.solver == "highs"


def test_options_of_backends_are_merged_deeply(monkeypatch, tmp_path):
    write(
        tmp_path / "lpdiff.toml",
        "[backends.highs]\nmethod = 'ipm'\nrandom_seed = 1\npresolve = true\nprimal_tolerance = 1e-8\n"
        "[backends.glop]\nkept = 1\n",
    )
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__RANDOM_SEED", "2")
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__METHOD", "primal")
    with options(backends={"highs": {"method": "dual"}}) as outer:
        assert outer.backends["highs"]["method"] == "dual"
        with options(backends={"highs": {"dual_tolerance": 1e-9}}) as inner:
            assert inner.backends == {
                "highs": {
                    "method": "dual",
                    "random_seed": inner.backends["highs"]["random_seed"],
                    "presolve": True,
                    "primal_tolerance": 1e-8,
                    "dual_tolerance": 1e-9,
                },
                "glop": {"kept": 1},
            }
            plan = lpdiff.plan(PROGRAM, options={"method": "ipm"})
            assert plan.backend == HiGHS(
                method="ipm", random_seed=2, presolve=True, primal_tolerance=1e-8, dual_tolerance=1e-9
            )
    assert lpdiff.plan(PROGRAM).backend == HiGHS(
        method="primal", random_seed=2, presolve=True, primal_tolerance=1e-8
    )


def test_none_is_a_value(monkeypatch, tmp_path):
    """No time limit, said above a limit."""
    write(tmp_path / "lpdiff.toml", "time_limit = 5\nthreads = 3\n")
    with options(time_limit=None):
        assert current_settings().time_limit is None
        assert current_settings().threads == 3
    assert current_settings(time_limit=None).time_limit is None
    monkeypatch.setenv("LPDIFF_TIME_LIMIT", "none")
    assert current_settings().time_limit is None
    assert lpdiff.plan(PROGRAM).time_limit is None
    assert lpdiff.plan(PROGRAM, time_limit=7).time_limit == 7


# -- contexts ------------------------------------------------------------------------------------------


def test_contexts_nest_and_unwind_on_exceptions():
    def fail() -> None:
        with options(threads=3, time_limit=1.0):
            assert current_settings().threads == 3
            assert current_settings().tolerance == 1e-5
            raise ZeroDivisionError

    with options(threads=2, tolerance=1e-5):
        with pytest.raises(ZeroDivisionError):
            fail()
        assert current_settings().threads == 2
        assert current_settings().time_limit is None
    assert current_settings() == Settings()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": 0}, "lpdiff option 'threads': Input should be greater than or equal to 1, got 0"),
        ({"threads": 1.5}, "lpdiff option 'threads': Input should be a valid integer"),
        ({"time_limit": -1}, "lpdiff option 'time_limit': Input should be greater than 0, got -1"),
        ({"time_limit": "soon"}, "lpdiff option 'time_limit': Input should be a valid number"),
        (
            {"tolerance": 0.5},
            "lpdiff option 'tolerance': Input should be less than or equal to 0.01, got 0.5",
        ),
        ({"tolerance": float("nan")}, "lpdiff option 'tolerance'"),
        ({"tolerance": None}, "lpdiff option 'tolerance'"),
        ({"backends": {"highs": 3}}, "expected options by backend name"),
        ({"backends": "highs"}, "expected options by backend name"),
    ],
    ids=str,
)
def test_bad_values_leave_no_context_behind(wrong, message):
    with pytest.raises(ValueError, match=message), options(**wrong):
        pytest.fail("the block must not run")
    assert current_settings() == Settings()
    if "backends" not in wrong:
        with pytest.raises(ValueError, match=message):
            lpdiff.solve(PROGRAM, **wrong)


def test_unknown_keys_of_options_are_a_type_error():
    with pytest.raises(TypeError, match="thread"), options(thread=3):
        pass


def test_a_context_belongs_to_its_thread():
    seen: list[int | None] = []

    def work(threads: int) -> None:
        before = current_settings().threads
        with options(threads=threads):
            barrier.wait()
            seen.append(current_settings().threads)
        seen.append(before)

    barrier = threading.Barrier(2)
    with options(threads=7):
        workers = [threading.Thread(target=work, args=(k,)) for k in (2, 3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert current_settings().threads == 7
    assert sorted(seen, key=str) == [2, 3, None, None]


def test_options_as_a_decorator():
    @options(threads=6)
    def threads() -> int | None:
        return current_settings().threads

    assert (threads(), threads(), current_settings().threads) == (6, 6, None)


def test_settings_are_not_a_hidden_global():
    settings = current_settings()
    settings.backends["highs"] = {"method": "ipm"}
    assert current_settings().backends == {}
    given = {"highs": {"method": "ipm"}}
    with options(backends=given) as settings:
        settings.backends["highs"]["method"] = "primal"
        assert current_settings().backends == given == {"highs": {"method": "ipm"}}
    with pytest.raises(Exception, match="frozen"):
        settings.threads = 3


# -- files ---------------------------------------------------------------------------------------------


def test_the_nearest_file_wins(tmp_path, monkeypatch):
    write(tmp_path / "lpdiff.toml", "threads = 2\ntime_limit = 3.0\n")
    write(tmp_path / "a" / "pyproject.toml", "[project]\nname = 'other'\n")
    write(tmp_path / "a" / "b" / "pyproject.toml", "[tool.lpdiff]\nthreads = 4\n")
    write(tmp_path / "a" / "b" / "c" / "notes.txt", "")
    for folder, threads, limit in (("a/b/c", 4, None), ("a/b", 4, None), ("a", 2, 3.0), (".", 2, 3.0)):
        monkeypatch.chdir(tmp_path / folder)
        settings = current_settings()  # seen at once: the directory is part of what is looked up
        assert (settings.threads, settings.time_limit) == (threads, limit)


def test_lpdiff_toml_stands_above_pyproject_beside_it(tmp_path):
    write(tmp_path / "pyproject.toml", "[tool.lpdiff]\nthreads = 4\n")
    assert current_settings().threads == 4
    write(tmp_path / "lpdiff.toml", "time_limit = 1\n")
    assert current_settings().threads is None
    assert current_settings().time_limit == 1


def test_files_are_read_again_when_asked(tmp_path):
    path = tmp_path / "lpdiff.toml"
    write(path, "threads = 2\n")
    assert current_settings().threads == 2
    path.write_text("threads = 3\n")
    assert current_settings().threads == 2
    lpdiff.settings.reload()
    assert current_settings().threads == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("lpdiff.toml", "threads = = 2", r"lpdiff\.toml is not valid TOML"),
        (
            "lpdiff.toml",
            "thread = 2",
            r"from .*lpdiff\.toml\) 'thread' is unknown: expected one of solver, threads",
        ),
        (
            "lpdiff.toml",
            "threads = 0",
            r"from .*lpdiff\.toml\) 'threads': Input should be greater than or equal",
        ),
        (
            "lpdiff.toml",
            "backends = 3",
            r"from .*lpdiff\.toml\) 'backends': Input should be a valid dictionary",
        ),
        ("lpdiff.toml", "[backends]\nhighs = 3", r"from .*lpdiff\.toml\) 'backends.highs'"),
        ("pyproject.toml", "[tool.lpdiff]\ntolerance = 'x'", r"from .*pyproject\.toml\) 'tolerance'"),
        ("pyproject.toml", "[tool]\nlpdiff = 3", r"pyproject\.toml: \[tool.lpdiff\] must be a table, got 3"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    write(tmp_path / name, text)
    with pytest.raises(ValueError, match=message):
        current_settings()
    with pytest.raises(ValueError, match=message):
        lpdiff.solve(PROGRAM)


@pytest.mark.parametrize("text", ["][", "tool = 3", "[tool]\nruff = 1", ""])
def test_other_tools_pyproject_is_theirs(tmp_path, text):
    write(tmp_path / "pyproject.toml", text)
    assert current_settings() == Settings()


def test_a_latin_1_file_is_named(tmp_path):
    (tmp_path / "lpdiff.toml").write_bytes("# caf\xe9\nthreads = 2\n".encode("latin-1"))
    reload()
    with pytest.raises(ValueError, match=r"lpdiff\.toml is not valid TOML"):
        current_settings()


# -- environment ---------------------------------------------------------------------------------------


def test_nested_names_and_json(monkeypatch):
    monkeypatch.setenv("LPDIFF_BACKENDS", '{"highs": {"method": "ipm", "random_seed": 4}}')
    assert lpdiff.plan(PROGRAM).backend == HiGHS(method="ipm", random_seed=4)
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__CROSSOVER", "false")
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__PRIMAL_TOLERANCE", "1e-9")
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__ITERATION_LIMIT", "none")
    assert lpdiff.plan(PROGRAM).backend == HiGHS(
        method="ipm", random_seed=4, crossover=False, primal_tolerance=1e-9, iteration_limit=None
    )


def test_a_changed_variable_is_seen_at_once(monkeypatch):
    for threads in (2, 3, 2):
        monkeypatch.setenv("LPDIFF_THREADS", str(threads))
        assert current_settings().threads == threads
        assert lpdiff.plan(PROGRAM).threads == threads


def test_case_does_not_matter_and_empty_is_unset(monkeypatch):
    monkeypatch.setenv("lpdiff_threads", "3")
    monkeypatch.setenv("LPDIFF_SOLVER", "")
    assert current_settings().threads == 3
    assert current_settings().solver == "auto"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "LPDIFF_THREAD",
            "3",
            "environment variable LPDIFF_THREAD is unknown: expected one of .*LPDIFF_THREADS",
        ),
        ("LPDIFF_THREADS", "many", "from environment variable LPDIFF_THREADS.*valid integer.*got 'many'"),
        ("LPDIFF_THREADS__X", "1", "environment variable LPDIFF_THREADS__X is unknown"),
        ("LPDIFF_TOLERANCE", "nan", "from environment variable LPDIFF_TOLERANCE"),
        ("LPDIFF_BACKENDS", "ipm", "LPDIFF_BACKENDS: expected JSON.*or one variable an option"),
        ("LPDIFF_BACKENDS__HIGHS", "ipm", "from environment variable LPDIFF_BACKENDS__HIGHS"),
    ],
)
def test_bad_variables_are_named(monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        current_settings()


# -- what settings reach -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"solver": "cplex"}, "unknown solver 'cplex': expected one of .*highs"),
        ({"solver": ""}, "unknown solver ''"),
        ({"options": {"metod": "ipm"}}, "unknown option 'metod' of solver 'highs': expected one of method"),
        ({"options": {"method": "barrier"}}, "option 'method' of solver 'highs': .*got 'barrier'"),
        ({"options": {"primal_tolerance": 1.0}}, "option 'primal_tolerance' of solver 'highs'.*got 1.0"),
        (
            {"solver": HiGHS(), "options": {"method": "ipm"}},
            "already a configured HiGHS: put .*in its constructor",
        ),
    ],
    ids=str,
)
def test_bad_solvers_and_options(wrong, message):
    with pytest.raises((ValueError, BackendError), match=message):
        lpdiff.solve(PROGRAM, **wrong)
    with pytest.raises(TypeError, match="solver must be a name or a backend instance, got int"):
        lpdiff.solve(PROGRAM, solver=3)
    with pytest.raises(ValueError, match="unknown gradient rule 'nope': expected one of exact"):
        lpdiff.solve(PROGRAM, gradient="nope")


def test_a_bad_option_in_a_file_is_refused_where_it_is_used(tmp_path):
    write(tmp_path / "lpdiff.toml", "[backends.highs]\nmethod = 'barrier'\n")
    with pytest.raises(ValueError, match="option 'method' of solver 'highs'"):
        lpdiff.solve(PROGRAM)


def test_options_of_a_backend_that_is_none(tmp_path, monkeypatch):
    write(tmp_path / "lpdiff.toml", "[backends.higs]\nmethod = 'ipm'\n")
    known = "assignment, glop, highs, network, path, selection, vertices"
    with pytest.raises(ValueError, match=rf"lpdiff\.toml\) names 'higs'.*expected one of {known}"):
        lpdiff.solve(PROGRAM)
    (tmp_path / "lpdiff.toml").unlink()
    reload()
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGS__METHOD", "ipm")
    with pytest.raises(ValueError, match=r"the environment\) names 'higs'"):
        lpdiff.solve(PROGRAM)


@dataclass(frozen=True)
class Spy(AbstractBackend):
    """HiGHS, telling what reaches it."""

    tell: Callable[[int, float | None], Any]

    name: ClassVar[str] = "spy"
    capabilities: ClassVar[Capabilities] = HiGHS.capabilities

    def prepare(self, form):
        return form

    def solve(self, state, data, *, threads=1, time_limit=None):
        self.tell(threads, time_limit)
        return HiGHS().solve(state, data)


def test_instances_and_limits_reach_the_backend(monkeypatch):
    told = []
    spy = Spy(lambda *given: told.append(given))
    monkeypatch.setenv("LPDIFF_BACKENDS__HIGHS__METHOD", "?")  # an instance carries its own options
    with options(solver=spy, threads=3):
        sol = lpdiff.solve(PROGRAM, time_limit=4.0)
        assert lpdiff.plan(PROGRAM).backend is spy
    lpdiff.solve(PROGRAM, solver=spy, threads=1)
    assert told == [(3, 4.0), (1, None)]
    assert sol.solver == "spy"


def test_threads_default_to_the_processors(monkeypatch):
    monkeypatch.setattr("lpdiff.settings.available_threads", lambda: 11)
    assert current_settings().thread_count == 11
    assert current_settings(threads=2).thread_count == 2


@dataclass(frozen=True)
class Rough(AbstractBackend):
    """HiGHS, and x beside its bound by 1e-4."""

    name: ClassVar[str] = "rough"
    capabilities: ClassVar[Capabilities] = HiGHS.capabilities

    def prepare(self, form):
        return form

    def solve(self, state, data, *, threads=1, time_limit=None):
        proposal = HiGHS().solve(state, data)
        proposal.x[:, 1] -= 1e-4
        return proposal


def test_the_tolerance_is_that_of_the_certificate(monkeypatch):
    def refused(**arguments) -> bool:
        return bool(lpdiff.solve(PROGRAM, solver=Rough(), **arguments).fallback)

    assert refused()
    assert not refused(tolerance=1e-3)
    assert refused(tolerance=1e-5)
    monkeypatch.setenv("LPDIFF_TOLERANCE", "1e-3")
    assert not refused()


def test_layers_follow_the_context_at_call_time():
    told = []
    spy = Spy(lambda *given: told.append(given))
    layer = lpdiff.LPLayer(PROGRAM)
    layer()
    assert told == []
    with options(solver=spy, threads=2):
        layer()
        assert told == [(2, None)]
        fixed = lpdiff.LPLayer(PROGRAM, solver="highs", threads=5)
        fixed()
        assert len(told) == 1
    layer()
    assert len(told) == 1
    partly = copy.deepcopy(lpdiff.LPLayer(PROGRAM, threads=4))
    with options(solver=spy, threads=2, time_limit=9.0):
        partly()
    assert told[-1] == (4, 9.0)
    assert "threads=4" in repr(partly)


def test_gradient_rules_follow_the_settings(monkeypatch):
    def pull() -> torch.Tensor:
        c = torch.tensor([1.0, 2.0], requires_grad=True)
        lpdiff.solve(PROGRAM, c=c).x[0].backward()
        return c.grad

    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        pull()
    with options(gradient="exact"):
        assert not pull().any()
    with options(gradient=lpdiff.gradients.Interpolation(20.0)):
        assert pull().any()
    monkeypatch.setenv("LPDIFF_GRADIENT", "exact")
    assert not pull().any()
    layer = lpdiff.LPLayer(PROGRAM, gradient=None)  # given: the environment does not reach it
    with pytest.raises(lpdiff.UnsupportedError, match="no rule"):
        layer(c=torch.ones(2, requires_grad=True)).x.sum().backward()


@pytest.mark.skipif(GLOP.missing() is not None, reason=GLOP.missing() or "")
def test_swapping_solvers_by_configuration(monkeypatch, tmp_path):
    assert lpdiff.solve(PROGRAM).solver == "selection"  # one row: by structure
    with options(solver="glop"):
        assert lpdiff.solve(PROGRAM).solver == "glop"
        assert lpdiff.solve(PROGRAM, solver="highs").solver == "highs"
    write(tmp_path / "lpdiff.toml", "solver = 'glop'\n")
    assert lpdiff.solve(PROGRAM).solver == "glop"
    monkeypatch.setenv("LPDIFF_SOLVER", "highs")
    sol = lpdiff.solve(PROGRAM)
    assert sol.solver == "highs"
    assert np.isclose(float(sol.value), 1.0)
