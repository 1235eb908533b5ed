"""Who gets the next frame: jobs wait here until a taker is free, takers until a job comes.

One lock guards all of it, and each taker sleeps on a queue of its own: so a job goes straight to
the taker that suits it best, and nobody wakes in vain.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from tutelage.app.pipeline.job import FrameJob


class Taker:
    """One thread that takes jobs.

    Parameters
    ----------
    group : what it shares with others, such as a core of the DPU; a job goes to the group of
        which most takers wait, since that one has least to do
    """

    def __init__(self, group: int = 0) -> None:
        self.group = group
        self.mail: SimpleQueue[FrameJob | None] = SimpleQueue()


class Dispatch:
    """A bounded queue from one writer, or from jobs that are fetched, to many takers.

    A job with large pixels of its own counts from when it is put until `release`: together they
    are at most `most_pixels`, or those of one job.

    Parameters
    ----------
    capacity : jobs that wait at most
    permits : jobs that may be under way at most, from when they are taken until `release`;
        by default there is no such limit
    drops : drop the oldest job where there is no room, rather than have the writer wait
    most_pixels : of the jobs that wait or are under way
    fetch : called by takers, one at a time, for the next job where none is ever put; it returns at
        once, with None at the end

    Attributes
    ----------
    dropped : jobs that were dropped
    taken : jobs that were taken; the number of those before it becomes a job's ticket
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
        self._newest = 0  # pixels of the newest job: the next one probably has as many
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
        """Wait until `put` has room; False if it is closed.

        Once full it waits until half of the jobs are taken: waking the writer for each one
        would cost more than the job's own way through here.
        """
        if len(self._jobs) < self._capacity and self._has_room(self._newest):
            return not self._closed  # without the lock: only the writer makes the room less
        with self._lock:
            full = len(self._jobs) >= self._capacity or not self._has_room(self._newest)
            waits = self._writer_waits = full and not self._drops and not self._closed
        if waits:
            self._room.get()
        return not self._closed

    def put(self, job: FrameJob) -> bool:
        """Add a job; False if it is closed and does not take it."""
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
        """Drop the oldest jobs; False if all pixels are under way and leave none for this one."""
        while self._jobs and (len(self._jobs) >= self._capacity or not self._has_room(job.pixels)):
            self._pixels -= self._jobs.popleft().pixels
            self.dropped += 1
        return self._has_room(job.pixels)

    def _has_room(self, pixels: int) -> bool:
        return not self._pixels or self._pixels + pixels <= self._most_pixels

    def take(self, taker: Taker, block: bool) -> FrameJob | None:
        """Take the oldest job; None if there is none now or, with `block`, any more."""
        with self._lock:
            job = self._next() if self._has_job() else None
            if self._idle:
                self._serve()  # after the last job nobody need wait any longer
            if job is not None or not block or (self._closed and not self._jobs):
                return job
            self._idle.append(taker)
        return taker.mail.get()

    def put_back(self, job: FrameJob) -> None:
        """Put back a job that was taken; it comes before new ones, and keeps its permit."""
        with self._lock:
            self._again.append(job)
            self._again.sort(key=lambda each: each.ticket)
            self._serve()

    def has_returned(self, ticket: int) -> bool:
        """Return whether a job in front of this ticket was put back and waits."""
        with self._lock:
            return bool(self._again) and self._again[0].ticket < ticket

    def release(self, pixels: int = 0) -> None:
        """Let another job be taken: one that was taken is done, and its pixels go."""
        with self._lock:
            self._permits += 1
            self._pixels -= pixels
            if self._idle:
                self._serve()
            if self._writer_waits:
                self._wake_writer()

    def close(self) -> None:
        """Take no more jobs; those that wait can still be taken."""
        with self._lock:
            self._closed = True
            self._serve()
            if self._writer_waits:
                self._writer_waits = False
                self._room.put(None)

    def _serve(self) -> None:
        """Hand jobs to takers that wait, and send those home for whom none will come."""
        while self._idle and self._has_job():
            groups = [taker.group for taker in self._idle]
            best = self._idle.pop(max(range(len(groups)), key=lambda i: groups.count(groups[i])))
            best.mail.put(self._next())
        if self._closed and not self._jobs:
            for taker in self._idle:
                taker.mail.put(None)
            self._idle.clear()

    def _has_job(self) -> bool:
        """Return whether a job may be taken now, after fetching one where that is the way."""
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
        if job.ticket < 0:  # from the first of several it goes through
            job.ticket = self.taken
        self.taken += 1
        if self._writer_waits:
            self._wake_writer()
        return job

    def _wake_writer(self) -> None:
        if len(self._jobs) <= self._capacity // 2 and self._has_room(self._newest):
            self._writer_waits = False
            self._room.put(None)
