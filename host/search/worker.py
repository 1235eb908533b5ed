"""A worker: takes items of a queue and runs some of them at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from tutelage.host.search.training_process import TrainingFailed

T = TypeVar("T")


class Queue(Protocol[T]):
    """What there is to do."""

    poll_seconds: float | None
    """How often to ask again while others are at work; None: nobody else is."""

    def take(self) -> T | None:
        """Return an item that is this worker's from now on; None where there is none now."""

    def is_open(self) -> bool:
        """Whether items may come though there is none now: others may give up theirs."""

    def finish(self, item: T, result: dict[str, Any]) -> bool:
        """Take an item's result; False where the item has become another worker's."""

    def fail(self, item: T, text: str) -> bool:
        """Note why an item has no result; False as for `finish`."""


def work(
    queue: Queue[T],
    run: Callable[[T], dict[str, Any]],
    jobs: int,
    limit: int,
    stop: Callable[[], None],
) -> Iterator[tuple[T, dict[str, Any] | str]]:
    """Run the items of a queue in threads, and yield each with its result, or its error's text.

    Parameters
    ----------
    run : returns an item's result, or raises TrainingFailed or OSError
    jobs : items at a time
    limit : most items that are run; 0 for all
    stop : ends what `run` is doing; called at the end, also after Ctrl-C
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
            except (TrainingFailed, OSError) as error:
                if queue.fail(item, str(error)):
                    yield item, str(error)
                continue
            if queue.finish(item, result):
                yield item, result
