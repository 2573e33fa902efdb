"""How a batch is dealt to threads."""

from __future__ import annotations

import threading
import time

import pytest

from lpdiff.batch import run_spans, threads_for


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 31, 64, 208, 1000])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_spans_cover_each_item_once(size: int, threads: int) -> None:
    seen, lock = [0] * size, threading.Lock()

    def work(start: int, stop: int) -> None:
        with lock:
            for item in range(start, stop):
                seen[item] += 1

    run_spans(size, threads, work)
    assert seen == [1] * size


def test_all_spans_are_done_when_it_returns_though_a_thread_is_slow() -> None:
    done, me = [], threading.current_thread()

    def work(start: int, stop: int) -> None:
        time.sleep(0.01 if threading.current_thread() is me else 0.1)
        done.append((start, stop))

    run_spans(64, 2, work)
    assert sum(stop - start for start, stop in done) == 64


def test_no_one_waits_for_a_thread_that_comes_too_late() -> None:
    """While the helpers are busy elsewhere, the caller does the work alone."""
    busy, release = threading.Event(), threading.Event()
    me = threading.current_thread()

    def block(start: int, stop: int) -> None:
        if threading.current_thread().name == "lpdiff":
            busy.set()
            release.wait(10)
        else:
            busy.wait(10)

    other = threading.Thread(target=run_spans, args=(64, 2, block))
    other.start()
    assert busy.wait(10)
    helpers = [t for t in threading.enumerate() if t.name == "lpdiff"]
    hold = threading.Thread(target=run_spans, args=(64, len(helpers) + 1, block))
    hold.start()
    workers = set()
    run_spans(64, 2, lambda start, stop: workers.add(threading.current_thread()))
    assert other.is_alive()  # it did not wait for the helpers
    release.set()
    other.join(10)
    hold.join(10)
    assert me in workers
    assert not other.is_alive()
    assert not hold.is_alive()


@pytest.mark.parametrize("wrong", [0, 17, 63])
def test_an_error_of_any_span_is_raised_when_all_are_done(wrong: int) -> None:
    done = []

    def work(start: int, stop: int) -> None:
        if start <= wrong < stop:
            raise ValueError(f"item {wrong}")
        done.append(stop - start)

    with pytest.raises(ValueError, match=f"item {wrong}"):
        run_spans(64, 2, work)
    run_spans(8, 2, lambda start, stop: None)  # the helpers are alive
    assert 0 < sum(done) < 64


def test_spans_keep_eight_items_together() -> None:
    """Some kernels take eight at once."""
    starts = []
    run_spans(208, 2, lambda start, stop: starts.append(start))
    assert all(start % 8 == 0 for start in starts)
    assert len(starts) > 2


def test_little_work_is_not_dealt() -> None:
    assert threads_for(1e3, 4) == 1
    assert threads_for(1e7, 4) == 4
