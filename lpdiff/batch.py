"""Items of a batch over threads: one LP at a time for solvers, spans of the batch for compiled kernels."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["available_threads", "run_items", "run_spans"]

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


def run_spans(size: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` on spans that make up 0 .. size-1, a thread a span, and wait for all.

    For compiled code that holds no lock and whose items cost about the same. The calling thread takes a
    span itself; the others are started for the call (30 us each), so nothing is left behind that a fork
    could break. An exception of any span is raised here.
    """
    threads = max(1, min(threads, size))
    if threads == 1:
        work(0, size)
        return
    errors: list[BaseException] = []

    def guarded(start: int, stop: int) -> None:
        try:
            work(start, stop)
        except BaseException as error:
            errors.append(error)

    cuts = [size * k // threads for k in range(threads + 1)]
    others = [
        threading.Thread(target=guarded, args=(start, stop))
        for start, stop in zip(cuts[1:-1], cuts[2:], strict=True)
    ]
    for thread in others:
        thread.start()
    guarded(cuts[0], cuts[1])
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
