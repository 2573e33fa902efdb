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
_SPANS = 2  # of a batch, a thread
_ABREAST = 8  # items that some kernels take at once


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
    """Call ``work(start, stop)`` on spans that make up 0 .. size-1, and wait for all.

    For compiled code that holds no lock. There are a few spans a thread, taken in turn: the calling thread
    begins while the others still wake up, and does more of the work where they are late. An exception of any
    span is raised here.
    """
    threads = max(1, min(threads, size))
    if threads == 1:
        work(0, size)
        return
    job = _Job(size, threads * _SPANS, work)
    helpers = _helpers(os.getpid())
    helpers.ensure(threads - 1)
    for _ in range(threads - 1):
        helpers.tasks.put(job)
    job.take_part()
    job.wait()


class _Job:
    """Spans of a batch, each done once by whoever comes next."""

    def __init__(self, size: int, count: int, work: Callable[[int, int], None]) -> None:
        step = -(-size // count)
        step = -(-step // _ABREAST) * _ABREAST if step > _ABREAST else step
        self.starts = range(0, size, step)
        self.size, self.step, self.work = size, step, work
        self.ticket = itertools.count()  # next() on it is atomic under the GIL
        self.done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def take_part(self) -> None:
        """Do spans until none is left."""
        while (k := next(self.ticket)) < len(self.starts):
            start = self.starts[k]
            self.done.put(_attempt(self.work, start, min(start + self.step, self.size)))

    def wait(self) -> None:
        """Until all spans are done; not for threads that came too late for any."""
        errors = [self.done.get() for _ in self.starts]
        for error in errors:
            if error is not None:
                raise error


class _Helpers:
    """Threads that wait for jobs. Starting one for each call would take longer than a small batch."""

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[_Job] = queue.SimpleQueue()
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
            job = self.tasks.get()
            job.take_part()
            del job  # or the last batch would live until the next


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
