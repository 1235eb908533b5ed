"""A worker that takes items from a shared queue and runs several of them in parallel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from tutelage.core.errors import FAILED, TutelageError

T = TypeVar("T")


class RunFailed(TutelageError):
    """An item's run ended without a result."""

    status = FAILED


class Queue(Protocol[T]):
    """A queue of items, which several workers may share."""

    poll_seconds: float | None
    """Interval at which to ask again while other workers run, s; None: there are no others."""

    def take(self) -> T | None:
        """Return an item that now belongs to this worker; None if none is available now."""

    def is_open(self) -> bool:
        """Return whether items may become available later, from workers that give them up."""

    def finish(self, item: T, result: dict[str, Any]) -> bool:
        """Store an item's result; return False if the item now belongs to another worker."""

    def fail(self, item: T, text: str) -> bool:
        """Store the error that an item ended with; return False as `finish` does."""


def work(
    queue: Queue[T],
    run: Callable[[T], dict[str, Any]],
    jobs: int,
    limit: int,
    stop: Callable[[], None],
) -> Iterator[tuple[T, dict[str, Any] | str]]:
    """Run the items of a queue in threads, and yield each with its result or its error message.

    Parameters
    ----------
    queue : the items
    run : returns an item's result, or raises RunFailed or OSError
    jobs : number of items that run in parallel
    limit : largest number of items to run; 0: all
    stop : ends the calls of `run`; called at the end, also after Ctrl-C
    """
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from _work(queue, lambda item: pool.submit(run, item), jobs, limit)
        finally:
            stop()


def _work(
    queue: Queue[T], start: Callable[[T], Future[dict[str, Any]]], jobs: int, limit: int
) -> Iterator[tuple[T, dict[str, Any] | str]]:
    taken, running = 0, dict[Future[dict[str, Any]], T]()
    while True:
        while len(running) < jobs and (not limit or taken < limit):
            if (item := queue.take()) is None:
                break
            running[start(item)] = item
            taken += 1
        if not running:
            if (limit and taken >= limit) or not queue.is_open():
                return
            time.sleep(queue.poll_seconds or 0)
        for future in wait(running, queue.poll_seconds, FIRST_COMPLETED).done:
            item = running.pop(future)
            try:
                result = future.result()
            except (RunFailed, OSError) as error:
                if queue.fail(item, str(error)):
                    yield item, str(error)
                continue
            if queue.finish(item, result):
                yield item, result
