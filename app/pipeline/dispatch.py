"""The queue between the reader and the threads that process frames.

Jobs wait here for a free taker, and takers for a job. One lock guards the state, and each taker
sleeps on its own queue, so that a job goes directly to the most suitable taker and no other wakes.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from tutelage.app.pipeline.job import FrameJob


class Taker:
    """A thread that takes jobs.

    Parameters
    ----------
    group : number of the resource, such as a core of the DPU, that it shares with other takers. A
        job goes to the group with the most waiting takers, which is the least busy one
    """

    def __init__(self, group: int = 0) -> None:
        self.group = group
        self.mail: SimpleQueue[FrameJob | None] = SimpleQueue()


class Dispatch:
    """A bounded queue from one writer, or a function that fetches jobs, to many takers.

    The pixels of a job count from `put` until `release`. Their sum is bounded by `most_pixels`,
    unless there is only one job.

    Parameters
    ----------
    capacity : largest number of waiting jobs
    permits : largest number of jobs in flight, from `take` until `release`; unlimited by default
    drops : drop the oldest job if the queue is full, rather than make the writer wait
    most_pixels : bound on the pixels of the jobs that wait or are in flight
    fetch : function that takers call, one at a time, for the next job if there is no writer. It
        returns at once, with None at the end

    Attributes
    ----------
    dropped : number of dropped jobs
    taken : number of taken jobs; a job's ticket is the number of those before it
    """

    def __init__(
        self,
        capacity: int,
        permits: int = sys.maxsize,
        drops: bool = False,
        most_pixels: int = sys.maxsize,
        fetch: Callable[[], FrameJob | None] | None = None,
    ) -> None:
        self._capacity = capacity
        self._permits = permits
        self._drops = drops
        self._most_pixels = most_pixels
        self._fetch = fetch
        self._pixels = 0
        self._newest = 0  # pixels of the newest job, as an estimate for the next one
        self._lock = threading.Lock()
        self._jobs: deque[FrameJob] = deque()
        self._again: list[FrameJob] = []
        self._idle: list[Taker] = []
        self._closed = False
        self._writer_waits = False
        self._room: SimpleQueue[None] = SimpleQueue()
        self.dropped = 0
        self.taken = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def wait_for_room(self) -> bool:
        """Wait until there is room for a `put`; return False if the queue is closed.

        A full queue waits until half of the jobs are taken, since waking the writer for each job
        would cost more than queueing the job.
        """
        if len(self._jobs) < self._capacity and self._has_room(self._newest):
            return not self._closed  # without the lock, since only the writer reduces the room
        with self._lock:
            full = len(self._jobs) >= self._capacity or not self._has_room(self._newest)
            waits = self._writer_waits = full and not self._drops and not self._closed
        if waits:
            self._room.get()
        return not self._closed

    def put(self, job: FrameJob) -> bool:
        """Add a job; return False, without adding it, if the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            if self._drops and not self._make_room(job):
                self.dropped += 1
                return True
            self._jobs.append(job)
            self._pixels += job.pixels
            self._newest = job.pixels
            if self._idle:
                self._serve()
            return True

    def _make_room(self, job: FrameJob) -> bool:
        """Drop the oldest jobs; return False if those in flight leave no room for this one."""
        while self._jobs and (len(self._jobs) >= self._capacity or not self._has_room(job.pixels)):
            self._pixels -= self._jobs.popleft().pixels
            self.dropped += 1
        return self._has_room(job.pixels)

    def _has_room(self, pixels: int) -> bool:
        return not self._pixels or self._pixels + pixels <= self._most_pixels

    def take(self, taker: Taker, block: bool) -> FrameJob | None:
        """Take the oldest job.

        Returns
        -------
        The job; None if no job waits or, with `block`, if no more jobs will come
        """
        with self._lock:
            job = self._next() if self._has_job() else None
            if self._idle:
                self._serve()  # releases the waiting takers after the last job
            if job is not None or not block or (self._closed and not self._jobs):
                return job
            self._idle.append(taker)
        return taker.mail.get()

    def put_back(self, job: FrameJob) -> None:
        """Return a taken job to the front of the queue. It keeps its permit."""
        with self._lock:
            self._again.append(job)
            self._again.sort(key=lambda each: each.ticket)
            self._serve()

    def has_returned(self, ticket: int) -> bool:
        """Return whether a job with a lower ticket was put back and still waits."""
        with self._lock:
            return bool(self._again) and self._again[0].ticket < ticket

    def release(self, pixels: int = 0) -> None:
        """Return the permit and the pixels of a job that is done."""
        with self._lock:
            self._permits += 1
            self._pixels -= pixels
            if self._idle:
                self._serve()
            if self._writer_waits:
                self._wake_writer()

    def close(self) -> None:
        """Refuse further jobs. Waiting jobs can still be taken."""
        with self._lock:
            self._closed = True
            self._serve()
            if self._writer_waits:
                self._writer_waits = False
                self._room.put(None)

    def _serve(self) -> None:
        """Pass jobs to waiting takers, and after the last job None to the others."""
        while self._idle and self._has_job():
            groups = [taker.group for taker in self._idle]
            best = self._idle.pop(max(range(len(groups)), key=lambda i: groups.count(groups[i])))
            best.mail.put(self._next())
        if self._closed and not self._jobs:
            for taker in self._idle:
                taker.mail.put(None)
            self._idle.clear()

    def _has_job(self) -> bool:
        """Return whether a job may be taken now, after fetching one if there is no writer."""
        if self._again or not self._permits:
            return bool(self._again)
        if self._fetch is not None and not self._jobs and not self._closed:
            job = self._fetch()
            if job is None:
                self._closed = True
            else:
                self._jobs.append(job)
        return bool(self._jobs)

    def _next(self) -> FrameJob:
        if self._again:
            return self._again.pop(0)
        job = self._jobs.popleft()
        self._permits -= 1
        if job.ticket < 0:  # else an earlier queue has assigned it
            job.ticket = self.taken
        self.taken += 1
        if self._writer_waits:
            self._wake_writer()
        return job

    def _wake_writer(self) -> None:
        if len(self._jobs) <= self._capacity // 2 and self._has_room(self._newest):
            self._writer_waits = False
            self._room.put(None)
