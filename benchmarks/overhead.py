"""What lpdiff adds to HiGHS: a batch of small LPs against a raw highspy loop, in one run.

    python -m benchmarks.overhead [--json FILE] [--repeats 9] [--items 1000]

The raw loop is the leanest that highspy allows: one solver object, the array overload of ``passModel``,
``run``, and the solution's x and y as arrays; the same options as lpdiff passes. lpdiff's call also
certifies every item, reads the bases, and returns torch tensors. Ratios are of medians; the contestants
alternate, so that a noisy neighbour hits all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highspy
import numpy as np
import torch

import lpdiff
from lpdiff.backends import HiGHS
from lpdiff.batch import available_threads
from lpdiff.testing import random_lp

Case = tuple[lpdiff.LinearProgram, torch.Tensor]

SIZES = ((20, 10), (50, 25), (100, 50), (200, 80))  # variables, rows


def problem(n: int, m: int, items: int, seed: int) -> Case:
    """One random sparse LP, and costs that differ from item to item."""
    rng = np.random.default_rng(seed)
    lp = random_lp(rng, n, m, sense="min", density=4 / m)
    assert lp.c is not None
    costs = lp.c + 0.3 * np.abs(lp.c).mean() * rng.normal(size=(items, n))
    lower, upper = lp.lower.copy(), lp.upper.copy()
    # Box what the perturbed costs could make unbounded.
    lower[np.isinf(lower)], upper[np.isinf(upper)] = -100.0, 100.0
    boxed = lpdiff.LinearProgram(
        A=lp.A, row_lower=lp.row_lower, row_upper=lp.row_upper, bounds=np.stack([lower, upper], 1)
    )
    return boxed, torch.from_numpy(costs)


def raw_loop(lp: lpdiff.LinearProgram, costs: np.ndarray) -> Callable[[], float]:
    """A hand-written loop over the array interface of highspy."""
    options = HiGHS(warm_start=False)._options(lp.form, None)
    solver = highspy._core._Highs()
    for key, value in options.items():
        solver.setOptionValue(key, value)
    integrality = np.zeros(lp.n, dtype=np.int32)

    def run() -> float:
        total = 0.0
        for c in costs:
            solver.passModel(
                *(lp.n, lp.m, lp.nnz, 1, 1, 0.0, c, lp.lower, lp.upper, lp.row_lower, lp.row_upper),
                *(lp.A.indptr, lp.A.indices, lp.A.data, integrality),
            )
            solver.run()
            solution = solver.getSolution()
            x, _ = np.array(solution.col_value), np.array(solution.row_dual)
            total += float(c @ x)
        return total

    return run


def ours(lp: lpdiff.LinearProgram, costs: torch.Tensor, threads: int, backward: bool) -> Callable[[], float]:
    def run() -> float:
        c = costs.clone().requires_grad_(backward)
        # Cold, as the raw loop is: what is measured is what lpdiff adds to HiGHS.
        value = lpdiff.solve(lp, c=c, solver=HiGHS(warm_start=False), threads=threads).value.sum()
        if backward:
            value.backward()
        return float(value.detach())

    return run


def measure(runs: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds a call, contestants alternating; their totals must agree."""
    totals = {name: run() for name, run in runs.items()}  # warm-up
    reference = next(iter(totals.values()))
    for name, total in totals.items():
        if abs(total - reference) > 1e-6 * (1 + abs(reference)):
            raise AssertionError(f"{name} found {total}, the raw loop {reference}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def contestants(cases: list[Case]) -> dict[str, Callable[[], float]]:
    """The same work in four ways; several cases are solved one after the other."""

    def total(runs: list[Callable[[], float]]) -> Callable[[], float]:
        return lambda: sum(run() for run in runs)

    return {
        "raw highspy loop": total([raw_loop(lp, costs.numpy()) for lp, costs in cases]),
        "lpdiff, 1 thread": total([ours(lp, costs, 1, False) for lp, costs in cases]),
        "lpdiff, 1 thread, with backward": total([ours(lp, costs, 1, True) for lp, costs in cases]),
        "lpdiff, 2 threads": total([ours(lp, costs, 2, False) for lp, costs in cases]),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    items = arguments.items
    works = {f"{n} x {m}": [problem(n, m, items, seed=n)] for n, m in SIZES}
    works["all sizes together"] = [problem(n, m, items // len(SIZES), seed=n) for n, m in SIZES]
    print(f"{items} LPs a batch, medians of {arguments.repeats} alternating runs\n")
    print(
        f"{'variables x rows':>18} {'raw highspy':>12} {'lpdiff, 1 thread':>17} {'+ backward':>11} "
        f"{'2 threads':>10} {'1 / 2 threads':>14}"
    )
    rows = []
    for name, cases in works.items():
        times = measure(contestants(cases), arguments.repeats)
        raw, one, one_backward, two = (statistics.median(t) for t in times.values())
        count = sum(len(costs) for _, costs in cases)
        rows.append(
            {
                "name": name,
                "items": count,
                "seconds": times,
                "one_thread_over_raw": one / raw,
                "with_backward_over_raw": one_backward / raw,
                "speedup_two_threads": one / two,
            }
        )
        print(
            f"{name:>18} {raw / count * 1e6:>9.0f} us {one / raw:>16.2f}x "
            f"{one_backward / raw:>10.2f}x {two / raw:>9.2f}x {one / two:>13.2f}x"
        )
    result = {
        "command": 'make bench BENCH=overhead ARGS="--json benchmarks/results/overhead.json"',
        "items": items,
        "repeats": arguments.repeats,
        "cores": available_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "highspy": highspy._core._Highs().version(),
        "results": rows,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    main()
