"""What recognised structure brings: value and gradient in the costs, lpdiff against its peers, in one run.

    python -m benchmarks.structure [--json FILE] [--only NAME ...] [--repeats 9] [--quick] [--solver auto]

Every work is declared as a plain LP; every contestant solves the same items, forward and backward, float64.
Contestants alternate, so that a noisy neighbour hits all of them, and must agree with a trusted peer first.
Slow ones take fewer items and fewer repeats; times are medians, per LP. Peers are optional: what is missing
is named and left out. Growth and first calls are measured in processes of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpdiff.batch import available_threads

from . import peers
from .peers import CONTESTANTS, LOOSE, THREADS, Missing, Problem, Run
from .report import asked

ROOT = Path(__file__).parent.parent
SAMPLE = 0.1  # seconds of a sample, and of the calls before it: a training loop is in its stride for longer
PAUSE = 0.0 if "PYTEST_CURRENT_TEST" in os.environ else 0.25  # seconds before it
SECONDS = 20.0  # a contestant may take, beyond three repeats
TOLERANCE = 1e-6  # of values and gradients, relative
PACKAGES = ("torch", "numpy", "scipy", "numba", "highspy", "lapx", "POT", "cvxpylayers", "pyepo", "ortools")

# -- the works ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """lpdiff's time is to be at most so many times a peer's."""

    against: str
    at_most: float


@dataclass(frozen=True)
class Work:
    """What is solved, by whom (with how many items at most; None: all), and what is asked of lpdiff."""

    name: str
    title: str
    make: Callable[[int], Problem]
    items: int
    reference: str
    contestants: dict[str, int | None]
    targets: list[Target] = field(default_factory=list)


def works() -> list[Work]:
    assignments, lapx = "SciPy assignment loop", f"lapx batch, {THREADS} threads"
    raw, cvx, pyepo = "raw highspy loop", "cvxpylayers", "PyEPO, OR-Tools"
    own = dict.fromkeys(["lpdiff", "lpdiff, 1 thread"])
    matching = own | dict.fromkeys([assignments, "lapx loop", lapx])
    simplex = ["lpdiff, HiGHS", raw, "SciPy linprog loop"]
    found = []
    for n in (8, 16, 32, 64):
        entered = matching | dict.fromkeys(simplex, 64 if n < 32 else 8) | {cvx: 4}
        targets = [Target(assignments, 0.5)] + [Target(cvx, 1 / 500)] * (n == 16)
        make = partial(peers.assignment, n)
        found.append(
            Work(f"assignment-{n}", f"assignment {n} x {n}", make, 256, assignments, entered, targets)
        )
    for n in (200, 500):
        targets, make = [Target(lapx, 1.2)], partial(peers.assignment, n)
        found.append(
            Work(f"assignment-{n}", f"assignment {n} x {n}", make, 8, assignments, matching, targets)
        )
    slow = dict.fromkeys(simplex, 8) | {cvx: 4}
    targets, make = [Target(cvx, 1 / 2000), Target(raw, 1 / 500)], partial(peers.alignment, 20)
    found.append(Work("alignment-20x20", "alignment 20 x 20", make, 64, raw, own | slow, targets))
    for n, factor in ((5, 30), (30, 500)):
        entered = own | {pyepo: None if n == 5 else 8} | slow
        targets, make = [Target(pyepo, 1 / factor)], partial(peers.grid, n)
        found.append(Work(f"grid-{n}x{n}", f"grid path {n} x {n}", make, 32, raw, entered, targets))
    entered = own | dict.fromkeys(["POT emd2 loop", "POT emd loop, NumPy"]) | slow | {cvx: 2}
    targets, make = [Target("POT emd2 loop", 1.0)], partial(peers.transport, 50)
    found.append(Work("transport-50x50", "transport 50 x 50", make, 64, raw, entered, targets))
    entered = own | {"lpdiff, HiGHS cold": None, raw: None, "SciPy linprog loop": 16}
    for maker, n, m in ((peers.general, 50, 25), (peers.general, 200, 80), (peers.packing, 300, 100)):
        kind, make = maker.__name__, partial(maker, n, m)
        title, targets = f"{kind} LP {n} x {m}, nearby costs", [Target("lpdiff, HiGHS cold", 0.5)]
        found.append(Work(f"{kind}-{n}x{m}", title, make, 128, raw, entered, targets))
    return found


# -- measuring ---------------------------------------------------------------------------------------


def measure(work: Work, *, repeats: int, quick: bool = False, solver: Any = "auto") -> dict[str, Any]:
    """Times of all contestants that can take part and agree with the reference."""
    problem = work.make(min(work.items, 8) if quick else work.items)
    runs: dict[str, Run] = {}
    entries: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    trusted = CONTESTANTS[work.reference](problem.first(work.contestants[work.reference] or work.items))()
    for name, most in work.contestants.items():
        items = min(len(problem.costs), most or work.items, 2 if quick and most else work.items)
        keywords = {"solver": solver} if name in ("lpdiff", "lpdiff, 1 thread") else {}
        try:
            run = CONTESTANTS[name](problem.first(items), **keywords)
            value, gradient = run()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
        except Missing as reason:
            missing[name] = str(reason)
            continue
        except Exception as error:
            if name.startswith("lpdiff"):
                raise
            missing[name] = f"failed: {type(error).__name__}: {error}"
            continue
        apart = [deviation(value, trusted[0]), deviation(gradient, trusted[1])]
        if apart[0] > LOOSE.get(name, TOLERANCE) or (name not in LOOSE and apart[1] > TOLERANCE):
            told = f"its values are {apart[0]:.1e} and its gradients {apart[1]:.1e} from {work.reference}'s"
            if name.startswith("lpdiff"):
                raise AssertionError(f"{work.name}: {name} is wrong: {told}")
            missing[name] = f"disagrees: {told}"
            continue
        runs[name] = run
        allowed = max(3, min(repeats, int(SECONDS / seconds)))
        # What is short is called several times in a row, as timeit does: else the clock and what other
        # contestants left in the processor's caches would be measured.
        calls = max(1, min(1000, int(SAMPLE / seconds)))
        entries[name] = {
            "items": items,
            "apart": apart,
            "repeats": min(repeats, allowed),
            "calls": calls,
            "seconds": [],
        }
    for turn in range(repeats):
        for name, run in runs.items():
            if turn < entries[name]["repeats"]:
                entries[name]["seconds"].append(timed(run, entries[name]["calls"]))
    for entry in entries.values():
        entry["per_lp"] = statistics.median(entry["seconds"]) / entry["items"]
    return {
        "name": work.name,
        "title": work.title,
        "items": len(problem.costs),
        "variables": problem.lp.n,
        "rows": problem.lp.m,
        "contestants": entries,
        "missing": missing,
        "targets": [
            judged(target, entries["lpdiff"]["per_lp"] / entries[target.against]["per_lp"])
            for target in work.targets
            if "lpdiff" in entries and target.against in entries
        ],
    }


def timed(run: Callable[[], Any], calls: int) -> float:
    """Seconds a call, of several in a row."""
    # Threads of the contestant before may spin for a while yet, and take a core from this one. After a pause
    # the processor's clock and caches are cold, which a training loop's are not.
    time.sleep(PAUSE)
    torch.set_num_threads(1)  # some contestants change OpenMP's number of threads, which is torch's
    for _ in range(calls if PAUSE else 0):
        run()
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def deviation(found: np.ndarray, trusted: np.ndarray) -> float:
    """The largest difference on the items that both have, relative to the numbers' own size."""
    both = min(len(found), len(trusted))
    return float(np.abs(found[:both] - trusted[:both]).max() / max(1.0, np.abs(trusted[:both]).max()))


def judged(target: Target, ratio: float) -> dict[str, Any]:
    return {
        "against": target.against,
        "at_most": target.at_most,
        "ratio": ratio,
        "met": ratio <= target.at_most,
    }


# -- in processes of their own -----------------------------------------------------------------------


def memory(peak: bool) -> int:
    """Bytes this process holds, or has held at most since ``forget_peak``."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is handed down from the parent on Linux
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """What compiling took is no part of what solving takes; where the system cannot forget, it counts."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def child_growth(arcs: int, repeats: int, solver: Any) -> dict[str, Any]:
    """One alignment of about so many arcs: seconds, and memory beyond what imports and a tiny solve take."""
    torch.set_num_threads(1)
    CONTESTANTS["lpdiff"](peers.alignment(3, 1), solver=solver)()
    forget_peak()
    baseline = memory(peak=False)
    n = round((arcs / 3) ** 0.5)
    marks = [time.perf_counter()]
    problem = peers.alignment(n, 1)
    marks.append(time.perf_counter())
    run = CONTESTANTS["lpdiff"](problem, solver=solver)
    marks.append(time.perf_counter())
    for _ in range(repeats + 1):
        run()
        marks.append(time.perf_counter())
    lp = problem.lp
    sizes = {
        "matrix": lp.A.data.nbytes + lp.A.indices.nbytes + lp.A.indptr.nbytes,
        "sides": sum(a.nbytes for a in (lp.row_lower, lp.row_upper, lp.lower, lp.upper)),
        "costs": problem.costs.nbytes,
    }
    declare, plan, first, *seconds = np.diff(marks).tolist()
    return {
        "arcs": lp.n,
        "nodes": lp.m,
        "declare": declare,
        "plan": plan,
        "first": first,
        "seconds": seconds,
        "input_bytes": sizes,
        "peak_bytes": memory(peak=True) - baseline,
    }


KINDS: dict[str, Callable[[], Problem]] = {
    "assignment": lambda: peers.assignment(8, 2),
    "alignment": lambda: peers.alignment(5, 2),
    "grid path": lambda: peers.grid(5, 2),
    "cyclic path": lambda: peers.cyclic(5, 2),
    "min-cost flow": lambda: peers.flow(5, 2),
    "transport": lambda: peers.transport(10, 2),
    "general": lambda: peers.general(50, 25, 2),
}


def child_first_call(kind: str, solver: Any) -> dict[str, float]:
    problem = KINDS[kind]()
    start = time.perf_counter()
    CONTESTANTS["lpdiff"](problem, solver=solver)()
    return {"seconds": time.perf_counter() - start}


_IMPORT = (
    "import json, time, numpy, scipy.sparse, torch; start = time.perf_counter(); import lpdiff; "
    "print(json.dumps({'seconds': time.perf_counter() - start}))"
)


def fresh(code: str, cache: str | None = None) -> dict[str, Any]:
    """What a new process prints, as JSON; None keeps the numba cache that there is."""
    environment = dict(os.environ) if cache is None else {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise Missing(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def child(call: str, cache: str | None = None) -> dict[str, Any]:
    return fresh(f"import json\nfrom benchmarks.structure import *\nprint(json.dumps({call}))", cache)


def growth(*, repeats: int, quick: bool, solver: Any) -> dict[str, Any]:
    points = []
    for exponent in range(3, 5 if quick else 8):
        few = repeats if exponent < 6 else min(repeats, 5)
        points.append(child(f"child_growth({10**exponent}, {few}, {solver!r})"))
        last = points[-1]
        seconds, total = statistics.median(last["seconds"]), sum(last["input_bytes"].values())
        last["peak_over_input"] = last["peak_bytes"] / total
        print(
            f"  {last['arcs']:>10,} arcs {seconds:10.4f} s {seconds / last['arcs'] * 1e9:8.1f} ns an arc   "
            f"peak {last['peak_bytes'] / 1e6:8.1f} MB, {last['peak_over_input']:.1f} times the input"
        )
    # Below 10^4 arcs the fixed cost of a call is most of the time, and of the memory below 10^6.
    large = [p for p in points if p["arcs"] > 9_000]
    huge = [p for p in points if p["arcs"] > 900_000]
    sizes = np.log([p["arcs"] for p in large])
    times = np.log([statistics.median(p["seconds"]) for p in large])
    slope = float(np.polyfit(sizes, times, 1)[0]) if len(large) > 1 else None
    return {
        "points": points,
        "exponent": slope,
        "linear": None if slope is None else slope <= 1.1,
        "memory_met": None if not huge else all(p["peak_over_input"] <= 4 for p in huge),
    }


def first_calls(*, quick: bool, solver: Any) -> dict[str, Any]:
    kinds = {}
    for kind in list(KINDS)[: 1 if quick else None]:
        with tempfile.TemporaryDirectory() as cache:
            both = [child(f"child_first_call({kind!r}, {solver!r})", cache)["seconds"] for _ in range(2)]
        kinds[kind] = {"empty": both[0], "cached": both[1], "met": both[0] <= 5}
        print(
            f"  first {kind:<12} {both[0]:6.2f} s with an empty cache, {both[1]:6.3f} s in the next process"
        )
    with tempfile.TemporaryDirectory() as cache:
        imports = [fresh(_IMPORT, cache)["seconds"] for _ in range(1 if quick else 5)]
    median = statistics.median(imports)
    print(f"  import lpdiff {median:.2f} s beside NumPy, SciPy and torch")
    return {"kinds": kinds, "import_seconds": imports, "import_met": median < 2}


# -- the command -------------------------------------------------------------------------------------


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['title']}: {row['items']} items, {row['variables']:,} variables, {row['rows']:,} rows")
    base = row["contestants"].get("lpdiff", {}).get("per_lp")
    for name, entry in row["contestants"].items():
        ratio = f"{entry['per_lp'] / base:10.2f}x" if base else ""
        print(f"  {name:<24} {entry['per_lp'] * 1e6:12.1f} us {ratio}   ({entry['items']} items)")
    for name, reason in row["missing"].items():
        print(f"  {name:<24} left out: {reason}")
    for target in row["targets"]:
        print(
            f"  target: {asked(target)} {target['against']}; {target['ratio']:.3g}x the time, "
            f"{1 / target['ratio']:,.1f}x faster: {'met' if target['met'] else 'MISSED'}"
        )


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="works by the start of their names")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a trial: few items, small sizes")
    parser.add_argument("--solver", default="auto", help="what stands for lpdiff")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    quick, solver = arguments.quick, arguments.solver
    repeats = min(arguments.repeats, 3) if quick else arguments.repeats

    def chosen(name: str) -> bool:
        return not arguments.only or any(name.startswith(start) for start in arguments.only)

    names = [*(work.name for work in works()), "growth", "first-call"]
    if not any(chosen(name) for name in names):
        parser.error(f"--only: expected the start of one of {', '.join(names)}")
    result: dict[str, Any] = {
        "command": 'make bench BENCH=structure ARGS="--json benchmarks/results/structure.json"',
        "quick": quick,
        "solver": solver,
        "repeats": repeats,
        "threads": THREADS,
        "cores": available_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions_of(PACKAGES),
        "works": [],
    }
    for work in works():
        if chosen(work.name):
            result["works"].append(measure(work, repeats=repeats, quick=quick, solver=solver))
            show(result["works"][-1])
    for name, measured in (
        ("growth", lambda: growth(repeats=repeats, quick=quick, solver=solver)),
        ("first-call", lambda: first_calls(quick=quick, solver=solver)),
    ):
        if chosen(name):
            print(f"\n{name}")
            try:
                result[name.replace("-", "_")] = measured()
            except Missing as reason:
                print(f"  left out: {reason}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
