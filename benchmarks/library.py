"""The problem library: value and gradient, dedicated solvers against what users write today, in one run.

    python -m benchmarks.library [--json FILE] [--only NAME ...] [--repeats 9] [--quick]

Alignments against a loop over anti-diagonals in torch (exact, differentiated by autograd) and soft-DTW
(pysdtw, which smooths the minimum, so its values differ); set prediction against the loop over images around
SciPy that reference code has. Exact contestants must agree in values and gradients before they are timed.
Times are medians of calls that take turns, per cell or per matching. A large alignment is measured in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lpdiff.batch import available_threads
from lpdiff.problems.alignment import global_alignment
from lpdiff.problems.sets import set_matching
from lpdiff.problems.warping import dtw

from .peers import THREADS, Missing, need
from .report import duration
from .structure import forget_peak, fresh, memory, timed, versions_of

SAMPLE = 0.1  # seconds of a sample, and of the calls before it: a training loop is in its stride for longer
GAP, OPEN, BATCH = 0.4, 0.9, 64
SOFT = "soft-DTW (pysdtw)"
LOOP = "SciPy loop over images"

Run = Callable[[], tuple[torch.Tensor, torch.Tensor]]  # values and gradients


@dataclass(frozen=True)
class Work:
    """What is solved: runs by contestant; the unit that times are told in; what is asked of lpdiff."""

    name: str
    title: str
    unit: str
    units: int
    runs: Callable[[], dict[str, Run]]
    at_most: float | None = None  # nanoseconds a unit
    faster: dict[str, float] = field(default_factory=dict)
    smooth: tuple[str, ...] = ()  # contestants whose values are others by design
    few: tuple[str, ...] = ()  # contestants too slow for many repeats


def both_ways(costs: torch.Tensor, value_of: Callable[[torch.Tensor], torch.Tensor]) -> Run:
    """Forward and backward of the sum of the values."""

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        leaf = costs.detach().requires_grad_()
        value = value_of(leaf)
        value.sum().backward()
        assert leaf.grad is not None
        return value.detach(), leaf.grad

    return run


# -- alignments --------------------------------------------------------------------------------------------


def skewed(costs: torch.Tensor) -> torch.Tensor:
    """(B, n, m) to (n + m - 1, B, n): the anti-diagonals, +inf where there is no cell."""
    batch, n, m = costs.shape
    wide = torch.nn.functional.pad(costs, (0, n), value=torch.inf)  # (B, n, m + n)
    flat = wide.reshape(batch, -1)[:, : n * (m + n - 1)]
    return flat.reshape(batch, n, m + n - 1).permute(2, 0, 1)


def diagonal_warping(costs: torch.Tensor) -> torch.Tensor:
    """Exact DTW as a loop over anti-diagonals, in torch."""
    batch, n, m = costs.shape
    cells = skewed(costs).unbind(0)  # indexing would fill zeros as large as all cells, a step
    shut = costs.new_full((batch, 1), torch.inf)
    before, last = (
        costs.new_full((batch, n), torch.inf),
        torch.cat([cells[0][:, :1], shut.expand(-1, n - 1)], 1),
    )
    for k in range(1, n + m - 1):
        up = torch.cat([shut, last[:, :-1]], 1)
        diagonal = torch.cat([shut, before[:, :-1]], 1)
        best = torch.minimum(torch.minimum(diagonal, up), last)
        before, last = last, best + cells[k]
    return last[:, -1]


def diagonal_alignment(costs: torch.Tensor) -> torch.Tensor:
    """Exact global alignment with linear gaps as a loop over anti-diagonals, in torch."""
    batch, n, m = costs.shape
    cells = skewed(costs).unbind(0)  # indexing would fill zeros as large as all cells, a step
    shut = costs.new_full((batch, 1), torch.inf)
    row = torch.arange(n + 1, dtype=costs.dtype)
    # Entry i of a diagonal k is node (i, k - i).
    before = torch.cat([costs.new_zeros(batch, 1), shut.expand(-1, n)], 1)
    last = torch.cat([costs.new_full((batch, 2), GAP), shut.expand(-1, n - 1)], 1)
    for k in range(2, n + m + 1):
        up = torch.cat([shut, last[:, :-1]], 1) + GAP
        pair = torch.cat([shut, before[:, :-1] + cells[k - 2]], 1)
        best = torch.minimum(torch.minimum(pair, up), last + GAP)
        best = torch.where((row == k) | (row == 0) & (k <= m), GAP * k, best)
        before, last = last, torch.where((row < k - m) | (row > k), torch.inf, best)
    return last[:, -1]


def soft_warping(costs: torch.Tensor) -> torch.Tensor:
    module = need("pysdtw", "pysdtw")
    layer = module.SoftDTW(gamma=0.1, dist_func=lambda x, y: costs, use_cuda=False)
    shape = torch.zeros(costs.shape[0], costs.shape[1], 1, dtype=costs.dtype)
    found: torch.Tensor = layer(shape, torch.zeros(costs.shape[0], costs.shape[2], 1, dtype=costs.dtype))
    return found


def alignments(kind: str, n: int) -> dict[str, Run]:
    generator = torch.Generator().manual_seed(n)
    costs = torch.rand(BATCH, n, n, dtype=torch.float64, generator=generator)
    ours: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "linear": lambda c: global_alignment(c, gap=GAP).value,
        "affine": lambda c: global_alignment(c, gap=GAP, gap_open=OPEN).value,
        "warping": lambda c: dtw(c).value,
    }
    runs = {"lpdiff": both_ways(costs, ours[kind])}
    if kind == "linear":
        runs["torch anti-diagonals"] = both_ways(costs, diagonal_alignment)
    if kind == "warping":
        runs["torch anti-diagonals"] = both_ways(costs, diagonal_warping)
    if kind != "affine":
        runs[SOFT] = both_ways(costs, soft_warping)
    return runs


# -- set prediction ----------------------------------------------------------------------------------------

LAYERS, IMAGES, QUERIES, TARGETS = 52, 4, 300, 20


def reference_indices(costs: torch.Tensor) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """As the matchers of reference code do: a loop over layers and images around SciPy."""
    from scipy.optimize import linear_sum_assignment

    found = []
    for layer in costs:
        held = layer.detach().cpu()
        pairs = [linear_sum_assignment(image) for image in held]
        found.append([(torch.as_tensor(i), torch.as_tensor(j)) for i, j in pairs])
    return found


def reference_value(costs: torch.Tensor) -> torch.Tensor:
    """The matched costs of each image, in sum."""
    indices = reference_indices(costs)
    values = [
        c[k][i, j].sum() for c, layer in zip(costs, indices, strict=True) for k, (i, j) in enumerate(layer)
    ]
    return torch.stack(values).reshape(costs.shape[:2])


def value_and_indices(costs: torch.Tensor) -> torch.Tensor:
    """All that the reference makes on its way to the value: two index tensors an image as well."""
    found = set_matching(costs)
    _ = found.indices
    return found.value


def value_alone(costs: torch.Tensor) -> torch.Tensor:
    return set_matching(costs).value


def indices_only(costs: torch.Tensor, match: Callable[[torch.Tensor], Any]) -> Run:
    """What reference matchers give, and without gradients. To compare: targets by query, and nothing."""

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            found = match(costs)
        first = torch.cat([torch.cat([i, j]) for i, j in found[0]])
        return first.double(), torch.zeros(1)

    return run


def sets(ours: Callable[[torch.Tensor], torch.Tensor] | None) -> dict[str, Run]:
    """Ours with gradients; None: indices alone, without."""
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(LAYERS, IMAGES, QUERIES, TARGETS, dtype=torch.float64, generator=generator)
    if ours is not None:
        return {"lpdiff": both_ways(costs, ours), LOOP: both_ways(costs, reference_value)}
    return {
        "lpdiff": indices_only(costs, lambda c: set_matching(c).indices),
        LOOP: indices_only(costs, reference_indices),
    }


# -- measuring ---------------------------------------------------------------------------------------------


def works(quick: bool) -> list[Work]:
    names = {"linear": "global alignment", "affine": "affine alignment", "warping": "DTW"}
    bound = {"linear": 3.0, "affine": 8.0, "warping": 3.0}
    found = []
    for kind, title in names.items():
        for n in (50,) if quick else (50, 100, 200, 500):
            peers = [] if kind == "affine" else ["torch anti-diagonals", SOFT]
            found.append(
                Work(
                    f"{kind}-{n}",
                    f"{title} {n} x {n}, batch {BATCH}",
                    "cell",
                    BATCH * n * n,
                    partial(alignments, kind, n),
                    at_most=bound[kind],
                    faster=dict.fromkeys(peers, 10.0),
                    smooth=(SOFT,),
                    few=tuple(peers),
                )
            )
    title = f"set prediction, {LAYERS} x {IMAGES} images, {QUERIES} queries, {TARGETS} targets"
    for name, told, ours in (
        ("sets-value", ", value and gradient", value_alone),
        ("sets", ", value, gradient and indices", value_and_indices),
        ("sets-indices", ", indices only", None),
    ):
        make = partial(sets, ours)
        found.append(Work(name, title + told, "matching", LAYERS * IMAGES, make, faster={LOOP: 10.0}))
    return found


def measure(work: Work, repeats: int) -> dict[str, Any]:
    """Times of all contestants that can take part and agree."""
    runs, missing, seconds = work.runs(), {}, {}
    trusted = runs["lpdiff"]()
    for name in list(runs):
        try:
            value, gradient = runs[name]()
        except Missing as reason:
            missing[name] = str(reason)
            del runs[name]
            continue
        if name not in work.smooth:
            apart = max(float((value - trusted[0]).abs().max()), float((gradient - trusted[1]).abs().max()))
            assert apart < 1e-9, f"{work.name}: {name} is {apart:.1e} from lpdiff"
        start = time.perf_counter()
        runs[name]()
        seconds[name] = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats):
        for name, run in runs.items():
            if name in work.few and turn >= max(3, min(repeats, int(5 / seconds[name]))):
                continue
            calls = max(1, min(1000, int(SAMPLE / seconds[name])))
            times[name].append(timed(run, calls))
    entries = {
        name: {"seconds": taken, "per_unit": statistics.median(taken) / work.units}
        for name, taken in times.items()
    }
    ours = entries["lpdiff"]["per_unit"]
    targets: list[dict[str, Any]] = []
    if work.at_most is not None:
        told = ours * 1e9
        targets.append(
            {"asked": f"at most {work.at_most:g} ns a cell", "found": told, "met": told <= work.at_most}
        )
    for peer, factor in work.faster.items():
        if peer in entries:
            told = entries[peer]["per_unit"] / ours
            targets.append({"asked": f"{factor:g}x faster than {peer}", "found": told, "met": told >= factor})
    return {
        "name": work.name,
        "title": work.title,
        "unit": work.unit,
        "contestants": entries,
        "missing": missing,
        "targets": targets,
    }


def child_large(n: int) -> dict[str, Any]:
    """One alignment of n x n float32 costs: seconds, and memory beyond the costs."""
    torch.set_num_threads(1)
    global_alignment(torch.rand(9, 9), gap=GAP)
    costs = torch.rand(n, n, generator=torch.Generator().manual_seed(0)).requires_grad_()
    forget_peak()
    before = memory(peak=False)
    start = time.perf_counter()
    found = global_alignment(costs, gap=GAP, sparse_gradient=True)
    forward = time.perf_counter() - start
    found.value.backward()
    seconds = time.perf_counter() - start
    assert costs.grad is not None
    return {
        "n": n,
        "forward": forward,
        "seconds": seconds,
        "bytes": memory(peak=True) - before,
        "sparse": costs.grad.layout == torch.sparse_coo,
        "stored": int(costs.grad._nnz()),
    }


def large(quick: bool) -> dict[str, Any]:
    n = 1000 if quick else 10_000
    code = f"import json\nfrom benchmarks.library import *\nprint(json.dumps(child_large({n})))"
    points = [fresh(code) for _ in range(1 if quick else 3)]
    last = points[0] | {
        key: statistics.median(p[key] for p in points) for key in ("forward", "seconds", "bytes")
    }
    last["met"] = last["seconds"] < 3 and last["bytes"] < 200e6 and last["sparse"]
    print(
        f"\n{n:,} x {n:,} alignment of float32 costs: {last['seconds']:.2f} s, {last['bytes'] / 1e6:.0f} MB "
        f"beyond the costs, {last['stored']:,} entries of gradient: {'met' if last['met'] else 'MISSED'}"
    )
    return last


def show(row: dict[str, Any]) -> None:
    print(f"\n{row['title']}")
    ours = row["contestants"]["lpdiff"]["per_unit"]
    for name, entry in row["contestants"].items():
        told = duration(entry["per_unit"])
        print(f"  {name:<24} {told:>10} a {row['unit']} {entry['per_unit'] / ours:8.1f}x")
    for name, reason in row["missing"].items():
        print(f"  {name:<24} left out: {reason}")
    for target in row["targets"]:
        print(f"  target: {target['asked']}: {target['found']:.3g}, {'met' if target['met'] else 'MISSED'}")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="where to write the record")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="works by the start of their names")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a trial: small sizes, few repeats")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    quick = arguments.quick
    repeats = min(arguments.repeats, 3) if quick else arguments.repeats
    chosen = [w for w in works(quick) if not arguments.only or w.name.startswith(tuple(arguments.only))]
    with_large = not arguments.only or "large".startswith(tuple(arguments.only))
    if not chosen and not with_large:
        parser.error(f"--only: expected the start of one of {', '.join(w.name for w in works(quick))}, large")
    result: dict[str, Any] = {
        "command": 'make bench BENCH=library ARGS="--json benchmarks/results/library.json"',
        "quick": quick,
        "repeats": repeats,
        "threads": THREADS,
        "cores": available_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions_of(("torch", "numpy", "scipy", "numba", "pysdtw")),
        "works": [],
    }
    for work in chosen:
        result["works"].append(measure(work, repeats))
        show(result["works"][-1])
    if with_large:
        result["large"] = large(quick)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
