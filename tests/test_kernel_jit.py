"""How kernels are compiled: on demand, with a cache or without, in threads, in forked processes."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from families import FAMILIES, bipartite, grid_arcs, incidence
from numba import types

import lpdiff
from lpdiff.kernels import recognise
from lpdiff.kernels.jit import (
    F1,
    F1W,
    F2,
    I1W,
    I2,
    REAL,
    SIZE,
    Kernel,
    inner,
    kernel,
    larger,
    row_of,
    smaller,
)
from lpdiff.recognition import structure_of

ROOT = Path(lpdiff.__file__).parents[1]

# A solve that needs kernels of several files.
SOLVE = """
import numpy as np, lpdiff, scipy.sparse as sp
A = sp.csc_array(np.kron([[1.0, 1.0]], np.eye(2)).tolist() + np.kron(np.eye(2), [[1.0, 1.0]]).tolist())
lp = lpdiff.LinearProgram(A_eq=A, b_eq=np.ones(4))
solution = lpdiff.solve(lp, c=np.array([1.0, 5.0, 7.0, 2.0]))
"""


def _double(x: float) -> float:
    return 2.0 * x


def test_a_kernel_is_compiled_at_its_first_call() -> None:
    double = kernel(REAL(REAL))(_double)
    assert isinstance(double, Kernel) and double._compiled is None
    assert double(3.0) == 6.0
    assert double._compiled is not None and double.compile() is double._compiled
    assert double.__name__ == "_double" and double.function is _double


def test_small_calls_are_left_to_python_until_it_is_compiled() -> None:
    seen: list[int] = []

    def total(values: np.ndarray, out: np.ndarray) -> None:
        out[0] = 0.0
        for value in values:
            out[0] += value

    def spy(*arguments: Any) -> None:
        seen.append(len(arguments[0]))
        total(*arguments)

    summed = kernel(numba.types.void(F1, F1W), small=11)(total)
    summed.function = spy
    out = np.zeros(1)
    summed(np.arange(10.0), out)
    assert seen == [10] and out[0] == 45.0 and summed._compiled is None
    summed.function = total
    summed(np.arange(11.0), out)
    assert out[0] == 55.0 and summed._compiled is not None
    summed.function = spy
    summed(np.arange(10.0), out)
    assert seen == [10] and out[0] == 45.0


def test_python_does_what_the_compiled_kernel_does() -> None:
    """Recognition of small programs runs in Python: the same numbers, bit by bit, as the compiled code's."""
    rng = np.random.default_rng(0)
    kernels = [getattr(recognise, name) for name in recognise.__all__]
    kernels = [k for k in kernels if isinstance(k, Kernel)]
    assert len(kernels) == 7 and all(k.small for k in kernels)
    calls = dict.fromkeys((k.__name__ for k in kernels), 0)

    def compare(one: Kernel) -> Any:
        function, compiled = one.function, one.compile()

        def both(*arguments: Any) -> Any:
            calls[one.__name__] += 1
            again = [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
            with np.errstate(all="ignore"):
                result = function(*arguments)
            assert result == compiled(*again)
            for a, b in zip(arguments, again, strict=True):
                np.testing.assert_array_equal(a, b)
            return result

        return both

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lpdiff.recognition.SMALL", 0)  # where SciPy stands in for `unite`
        for one in kernels:
            patch.setattr(recognise, one.__name__, compare(one))
        for make in FAMILIES.values():
            for _ in range(25):
                form = make(rng, 1)[0].form
                for block in structure_of(form).blocks:
                    if block.network is not None:
                        _ = block.network.order
    assert min(calls.values()) > 5, calls


@pytest.mark.parametrize(("compiled", "wanted"), [(larger, max), (smaller, min)])
def test_larger_and_smaller_are_max_and_min_to_the_bit(compiled: Any, wanted: Any) -> None:
    caller = kernel(REAL(REAL, REAL))(_calls(compiled))
    numbers = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan]
    for a in numbers:
        for b in numbers:
            assert np.float64(caller(a, b)).tobytes() == np.float64(wanted(a, b)).tobytes(), (a, b)


def test_larger_and_smaller_of_integers() -> None:
    @kernel(REAL(SIZE, types.uint32, types.int8))
    def both(a: int, b: int, c: int) -> float:
        return float(1000 * larger(larger(a, b), 5) + smaller(smaller(b, c), a))

    for a, b, c in ((7, 9, 3), (-7, 2, -1), (3, 2**32 - 1, 0), (-9, 0, 127)):
        assert both(a, b, c) == 1000 * max(a, b, 5) + min(a, b, c)


def test_row_of_is_the_items_row_or_the_shared_one() -> None:
    @kernel(REAL(F2, I2, SIZE, I1W))
    def read(numbers: np.ndarray, places: np.ndarray, item: int, out: np.ndarray) -> float:
        row, place, total = row_of(numbers, item), row_of(places, item), 0.0
        for j in range(len(row)):
            out[j] = place[j]
            total += row[j]
        return total

    numbers = np.arange(12.0).reshape(3, 4)
    places = np.arange(12, dtype=np.int32).reshape(3, 4)
    numbers.flags.writeable = False
    for many, few in itertools.product((3, 1), repeat=2):
        for item in range(3):
            out = np.zeros(4, np.int32)
            assert read(numbers[:many], places[:few], item, out) == numbers[item if many > 1 else 0].sum()
            assert out.tolist() == places[item if few > 1 else 0].tolist()


def _calls(function: Any) -> Any:
    def caller(a: float, b: float) -> float:
        return float(function(a, b))

    return caller


def test_threads_that_call_first_compile_once() -> None:
    count = []

    class Counting(Kernel):
        def _compile(self) -> Any:
            count.append(1)
            return super()._compile()

    slow = Counting(_double, REAL(REAL), 0)
    results: list[float] = []
    threads = [threading.Thread(target=lambda k=k: results.append(slow(float(k)))) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [2.0 * k for k in range(8)] and len(count) == 1


def test_the_collector_is_left_as_it_was() -> None:
    states = []

    class Watching(Kernel):
        def _compile(self) -> Any:
            states.append(gc.isenabled())
            if len(states) > 2:
                raise ZeroDivisionError
            return self.function

    try:
        Watching(_double, None, 0)(1.0)
        assert gc.isenabled()
        gc.disable()
        Watching(_double, None, 0)(1.0)
        assert not gc.isenabled()
        gc.enable()
        with pytest.raises(ZeroDivisionError):
            Watching(_double, None, 0)(1.0)
        assert gc.isenabled() and states == [False] * 3
    finally:
        gc.enable()


def test_without_a_signature_it_is_what_kernels_call() -> None:
    assert kernel() is inner
    third: Any = kernel(lambda x: x / 3.0)
    assert kernel(REAL(REAL))(lambda x: 2.0 * third(x))(3.0) == 2.0
    assert kernel([REAL(REAL), SIZE(SIZE)])(_double)(3.0) == 6.0


def test_errors_of_the_compiler_are_not_hidden() -> None:
    with pytest.raises(numba.core.errors.NumbaError):
        kernel(REAL(REAL))(lambda x: x.no_such_thing)(1.0)


def test_a_full_disk_is_no_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from numba.core import caching

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "save", refuse)
    assert kernel(REAL(REAL))(_double)(3.0) == 6.0


def _copy_of_the_package(folder: Path) -> Path:
    """The package with nothing that could hold a cache: files stand where numba would make directories."""
    shutil.copytree(ROOT / "lpdiff", folder / "lpdiff", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "lpdiff" / "kernels" / "__pycache__").write_text("no directory")
    (folder / "home").write_text("no directory")
    return folder


def _run(script: str, folder: Path, **environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "XDG_", "LPDIFF_"))}
    kept |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installation_that_cannot_be_written_to_works_without_a_cache(tmp_path: Path) -> None:
    # Permissions do not bind a superuser, so that a file takes each directory's place.
    folder = _copy_of_the_package(tmp_path)
    report = """
from lpdiff.kernels import assignment
print(lpdiff.__file__, float(solution.value), assignment.solve._compiled is not None)
"""
    assert _run(SOLVE + report, folder) == f"{folder / 'lpdiff' / '__init__.py'} 3.0 True"
    assert not list(folder.rglob("*.nbc"))


def test_where_there_is_a_directory_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    folder, cache = _copy_of_the_package(tmp_path), tmp_path / "cache"
    script = """
import numpy as np
from lpdiff.kernels.recognise import transpose
indices, start, columns = np.array([1, 0], np.int32), np.zeros(3, np.int32), np.zeros(2, np.int32)
transpose.small = 0
transpose(np.arange(3, dtype=np.int32), indices, start, columns)
print(columns.tolist(), sum(transpose.compile().stats.cache_hits.values()))
"""
    for hits in (0, 1, 1):
        assert _run(script, folder, NUMBA_CACHE_DIR=str(cache)) == f"[1, 0] {hits}"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_processes_solve() -> None:
    """Workers of a DataLoader: a fork before the parent had threads, one after, and one of the fork."""
    rng = np.random.default_rng(0)
    n, batch = 16, 512  # enough for threads
    matrix = incidence(*bipartite(n, n), 2 * n)
    b = np.repeat([1.0, -1.0], n)
    square = lpdiff.LinearProgram(A=matrix, row_lower=b, row_upper=b)
    tail, head = grid_arcs(8, 8)
    ends = np.zeros(64)
    ends[[0, -1]] = 1.0, -1.0
    path = lpdiff.LinearProgram(A=sp.csc_array(incidence(tail, head, 64)), row_lower=ends, row_upper=ends)
    costs = [(lp, rng.uniform(size=(batch, lp.n))) for lp in (square, path)]

    def solve(threads: int) -> bytes:
        with lpdiff.options(threads=threads):
            return b"".join(lpdiff.solve(lp, c=c).x.numpy().tobytes() for lp, c in costs)

    alone = solve(1)
    assert _in_a_fork(lambda: solve(2) == alone)
    assert solve(2) == alone
    assert _in_a_fork(lambda: solve(2) == alone)
    assert _in_a_fork(lambda: solve(1) == alone and _in_a_fork(lambda: solve(2) == alone))
    assert solve(2) == alone


def _in_a_fork(check: Any) -> bool:
    """Whether the check holds in a forked process; a process that hangs is ended, and it does not."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)  # as DataLoader does: OpenMP's threads are lost, and torch would wait
            code = 0 if check() else 2
        finally:
            os._exit(code)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def test_an_edit_of_what_a_kernel_calls_is_seen(tmp_path: Path) -> None:
    """numba's cache watches the kernel's own file alone; the key holds the sources of the others too."""
    package = tmp_path / "lpdiff"
    shutil.copytree(ROOT / "lpdiff", package, ignore=shutil.ignore_patterns("__pycache__"))
    below, above = package / "kernels" / "below.py", package / "kernels" / "above.py"
    above.write_text(
        "from .jit import REAL, kernel\nfrom .below import change\n"
        "def run(x):\n    return change(x)\n"
        "run = kernel(REAL(REAL))(run)\n"
    )
    code = "from lpdiff.kernels.above import run; print(run(3.0), len(run.compile().stats.cache_hits))"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    told = []
    for factor in (2, 2, 5):
        text = f"from .jit import inner\n@inner\ndef change(x):\n    return {factor}.0 * x\n"
        if not below.exists() or below.read_text() != text:
            below.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr
        told.append(done.stdout.split())
    assert told == [["6.0", "0"], ["6.0", "1"], ["15.0", "0"]]
