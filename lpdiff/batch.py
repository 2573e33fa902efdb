"""Items of a batch over threads, for solvers that take one LP at a time."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["available_threads", "run_items"]

Worker = Callable[[int], None]


def available_threads() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_items(size: int, threads: int, make_worker: Callable[[], Worker]) -> None:
    """Call a worker on 0 .. size-1, each item once, in any order.

    Each thread makes a worker of its own, so a worker may hold a solver object. Threads help where the
    solver releases the GIL. Items are dealt in short runs, so that a slow one holds up little.
    """
    threads = max(1, min(threads, size // 2))
    if threads == 1:
        worker = make_worker()
        for item in range(size):
            worker(item)
        return
    run_length = max(1, min(32, size // (threads * 4)))
    ticket = itertools.count()  # next() on it is atomic under the GIL

    def drain() -> None:
        worker = make_worker()
        while (start := next(ticket) * run_length) < size:
            for item in range(start, min(start + run_length, size)):
                worker(item)

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(drain) for _ in range(threads)]:
            future.result()
