"""The queue between the reader and those who take frames from it."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

from app.lane import Job


class Inbox:
    """A bounded queue with one writer and many takers.

    Parameters
    ----------
    capacity : jobs that wait at most
    drops : drop the oldest job where there is no room, rather than have the writer wait

    Attributes
    ----------
    dropped : jobs that were dropped
    """

    def __init__(self, capacity: int, drops: bool) -> None:
        self._capacity = capacity
        self._drops = drops
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._writer_waits = False
        self._room: SimpleQueue[None] = SimpleQueue()
        self.dropped = 0

    def __len__(self) -> int:
        return max(0, self._jobs.qsize() - self._closed)

    def wait_for_room(self) -> bool:
        """Wait until `put` has room; False if the inbox was closed.

        Once full it waits until half of the jobs are taken: waking the writer for each one
        would cost more than the job's own way through the queue.
        """
        if self._drops or self._jobs.qsize() < self._capacity:
            return not self._closed
        while not self._closed:
            self._writer_waits = True
            if self._jobs.qsize() <= self._capacity // 2:  # taken before that was set
                break
            self._room.get()
        self._writer_waits = False
        return not self._closed

    def put(self, job: Job) -> bool:
        """Add a job; False if the inbox is closed and does not take it."""
        with self._lock:
            if self._closed:
                return False
            if self._drops:
                while self._jobs.qsize() >= self._capacity and self._drop_oldest():
                    pass
            self._jobs.put(job)
            return True

    def _drop_oldest(self) -> bool:
        try:
            self._jobs.get_nowait()
        except Empty:  # a taker was quicker
            return False
        self.dropped += 1
        return True

    def get(self, block: bool) -> Job | None:
        """Take the oldest job; None if there is none now or, with `block`, any more."""
        try:
            job = self._jobs.get(block)
        except Empty:
            return None
        if job is None:
            self._jobs.put(None)  # for the other takers
        elif self._writer_waits and self._jobs.qsize() <= self._capacity // 2:
            self._writer_waits = False
            self._room.put(None)
        return job

    def close(self) -> None:
        """Take no more jobs; those that wait can still be taken."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
                self._room.put(None)
