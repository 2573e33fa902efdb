"""Items of a batch over threads: one LP at a time for solvers, spans of the batch for compiled kernels."""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["available_threads", "run_items", "run_spans", "threads_for"]

Worker = Callable[[int], None]

# Work that takes less (in nanoseconds) is done before a second thread is awake and can run Python.
_SHORT = 300_000


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


def threads_for(nanoseconds: float, threads: int) -> int:
    """Threads for work of about that length on one."""
    return threads if nanoseconds >= _SHORT else 1


def run_spans(size: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` on spans that make up 0 .. size-1, a thread a span, and wait for all.

    For compiled code that holds no lock and whose items cost about the same. The calling thread takes a
    span itself. An exception of any span is raised here.
    """
    threads = max(1, min(threads, size))
    if threads == 1:
        work(0, size)
        return
    done: Done = queue.SimpleQueue()
    helpers = _helpers(os.getpid())
    helpers.ensure(threads - 1)
    cuts = [size * k // threads for k in range(threads + 1)]
    for start, stop in itertools.pairwise(cuts[1:]):
        helpers.tasks.put((work, start, stop, done))
    errors = [_attempt(work, cuts[0], cuts[1]), *(done.get() for _ in range(threads - 1))]
    for error in errors:
        if error is not None:
            raise error


Done = queue.SimpleQueue[BaseException | None]


class _Helpers:
    """Threads that wait for spans. Starting one for each call would take longer than a small batch."""

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[tuple[Callable[[int, int], None], int, int, Done]] = queue.SimpleQueue()
        self.count = 0
        self.lock = threading.Lock()

    def ensure(self, count: int) -> None:
        if self.count >= count:
            return
        with self.lock:
            for _ in range(self.count, count):
                threading.Thread(target=self._serve, daemon=True, name="lpdiff").start()
            self.count = max(self.count, count)

    def _serve(self) -> None:
        while True:
            work, start, stop, done = self.tasks.get()
            done.put(_attempt(work, start, stop))
            del work, done  # or the last batch would live until the next


def _attempt(work: Callable[[int, int], None], start: int, stop: int) -> BaseException | None:
    try:
        work(start, stop)
    except BaseException as error:
        return error
    return None


@functools.cache
def _helpers(process: int) -> _Helpers:
    """One set a process: threads do not survive a fork. They know nothing between calls."""
    return _Helpers()
