"""The way of a frame: reader -> lanes (decode, preprocess, DPU, postprocess) -> results in order.

    pipeline = Pipeline(source, lanes, consume=print)
    pipeline.run()

One thread reads; frames that are at hand are fetched by whoever works on them, in turn, since to
wake a thread costs more than such a frame. Each lane is a thread with a runner of its own. With
two lanes for each core of the DPU, one prepares its next frame while the other's is computed, and
a core never waits; several jobs in flight in each lane do nearly the same with fewer threads where
`execute_async` returns before its job is done, which it does not on an edge board. Where frames
come as files or JPEGs, workers may decode them ahead of the lanes.

Whoever takes a frame gives it the next ticket, and results are given out in the order of the
tickets, by the lane that has the next one: handing them to a thread of their own would cost more
than most outputs do. A frame needs a permit from then until its result is given out, which bounds
everything behind the reader: slow outputs, or one slow frame, stop the lanes. In front of that the
reader waits, or, where the source is live, drops the oldest frame.

A runner that fails or does not answer in time is made again, and its frames are tried once
more. What fails again comes out as a result with an error, so that frames in = results out.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import cv2

from tutelage.app.pipeline.dispatch import Dispatch, Taker
from tutelage.app.pipeline.job import FrameJob, decode, jobs_of
from tutelage.app.pipeline.lane import Lane, RunnerError
from tutelage.app.pipeline.order import ResultOrder
from tutelage.app.pipeline.pixel_budget import MOST_PIXELS, NoRoom, PixelBudget
from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import FrameSource
from tutelage.core.errors import first_line

DEFAULT_TIME_LIMIT = 10.0
"""Seconds that a runner may take for a job before it counts as hanging."""

FAILURES_IN_A_ROW = 10
"""A lane whose runner failed so often, with no good job between, is given up."""

_FIRST_JOBS_IN_LIMIT = 20  # a job that takes so many times the first one's time is hanging
_SPARE_PERMITS = 2  # beyond the lanes' slots: results that wait for a slower one
_JOIN_SECONDS = 2.0
LOOK_SECONDS = 0.25
"""How often the main thread looks after the others: each time wakes it to cold caches."""

_SWITCH_SECONDS = 1e-3  # a thread that has work waits no longer for one that computes


def time_limit_of(slowest: float) -> float:
    """Return the time limit for runners whose first jobs took up to `slowest` seconds, s."""
    return max(DEFAULT_TIME_LIMIT, _FIRST_JOBS_IN_LIMIT * slowest)


def utilisation(before: Sequence[float], after: Sequence[float], seconds: float) -> float:
    """Return the share of the cores' time in which they had a job, 0 to 1.

    Counted from submission to collection, so an upper bound of the time they computed.

    Parameters
    ----------
    before, after : `Pipeline.core_seconds` at two times
    seconds : between them
    """
    if seconds <= 0:
        return 0.0
    shares = [min(1.0, (b - a) / seconds) for a, b in zip(before, after, strict=True)]
    return max(0.0, sum(shares) / len(shares))


class Pipeline:
    """Runs a source through lanes and gives the results out in order.

    Parameters
    ----------
    source : frames; closed at the end
    lanes : at least one
    consume : called with each result, one at a time, in order, from the pipeline's threads
    limit : read no more frames than this
    workers : threads that decode frames ahead of the lanes, where the source needs decoding
    time_limit : seconds after which a runner counts as hanging
    cores : of the DPU; a frame goes to a lane whose core has least to do

    Attributes
    ----------
    error : what broke the run off; None after a normal end
    restarts : runners made again after they failed or did not answer
    hangs : how many of them did not answer
    retried : frames that were tried once more
    """

    def __init__(
        self,
        source: FrameSource,
        lanes: Sequence[Lane],
        consume: Callable[[Result], None],
        *,
        limit: int | None = None,
        workers: int = 0,
        time_limit: float = DEFAULT_TIME_LIMIT,
        cores: int = 1,
    ) -> None:
        self._source = source
        self._lanes = list(lanes)
        self._consume = consume
        self._limit = limit
        self._time_limit = time_limit
        self._cores = cores
        self._workers = self._workers_left = workers if source.needs_decoding else 0
        permits = sum(lane.slots for lane in lanes) + self._workers + _SPARE_PERMITS
        self._jobs = self._read_jobs()
        self._inbox = Dispatch(
            2 * (len(lanes) + self._workers),
            permits,
            source.live,
            most_pixels=MOST_PIXELS,
            fetch=partial(next, self._jobs, None) if source.at_hand else None,
        )
        # What the workers have decoded; bounded by the permits that its frames hold.
        self._decoded = Dispatch(permits)
        self._for_lanes = self._decoded if self._workers else self._inbox
        self._order = ResultOrder(self._pass_on)
        self._pixels = PixelBudget()
        self._readers: list[threading.Thread] = []  # one or none
        self._threads: list[threading.Thread] = []  # by lane
        self._count_lock = threading.Lock()
        self._lanes_left = len(lanes)
        self._runner_error: Exception | None = None
        self._stopping = False
        self._finished = threading.Event()
        self.error: Exception | None = None
        self.restarts = self.hangs = self.retried = 0

    @property
    def dropped(self) -> int:
        """Frames of a live source that nobody took in time."""
        return self._inbox.dropped

    def depths(self) -> dict[str, int]:
        """Return how many frames wait to be taken, are under way, and wait for earlier ones."""
        done = len(self._order)
        under_way = max(0, self._inbox.taken - self._order.given - done)
        return {"waiting": len(self._inbox), "in_flight": under_way, "done": done}

    def core_seconds(self) -> list[float]:
        """Return for each core of the DPU how long it has had a job, s.

        Runners get the cores in turn, so every `cores`-th lane shares one.
        """
        lanes = [lane.busy_seconds for lane in self._lanes]
        return [sum(lanes[core :: self._cores]) for core in range(self._cores)]

    def stop(self) -> None:
        """Read no more; what is under way is finished and given out. Safe in a signal handler."""
        # Nothing but a flag: a lock could be held by the very thread that the signal interrupts.
        self._stopping = True

    def run(
        self, each_look: Callable[[], None] = lambda: None, look_seconds: float = LOOK_SECONDS
    ) -> None:
        """Run to the end of the source, or until `stop`.

        Parameters
        ----------
        each_look : called every `look_seconds` in the calling thread
        """
        cv2.setNumThreads(1)  # the lanes are the threads; OpenCV's own would only get in their way
        switch = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        try:
            self._start_threads()
            while not self._finished.wait(look_seconds):
                self._look_after()
                each_look()
        finally:
            self._close()
            sys.setswitchinterval(switch)
        for thread in (*self._readers, *self._threads):
            thread.join(_JOIN_SECONDS)  # not for ever: a source may hang in its library

    def _start_threads(self) -> None:
        if not self._source.at_hand:
            self._readers = [_thread(self._read, "reader")]
        for number in range(self._workers):
            _thread(self._decode_ahead, f"worker-{number}")
        for place, lane in enumerate(self._lanes):
            self._threads.append(_thread(self._work_lane, f"lane-{place}", place, lane))

    def _look_after(self) -> None:
        if self._stopping:
            self._close()
        for place, lane in enumerate(self._lanes):
            self._replace_if_hanging(place, lane)

    def _close(self) -> None:
        self._stopping = True
        self._inbox.close()
        self._source.close()

    # The reader, or who fetches frames that are at hand

    def _read(self) -> None:
        for job in self._jobs:
            if not self._inbox.put(job):
                break
        self._inbox.close()

    def _read_jobs(self) -> Iterator[FrameJob]:
        """Yield the source's frames as jobs; a fault of the source becomes the run's error."""
        has_room = None if self._source.at_hand else self._inbox.wait_for_room
        try:
            for job in jobs_of(self._source, self._limit, has_room):
                if self._stopping:
                    break
                yield job
        except Exception as problem:  # whatever it is: reported behind the last frame
            if not self._stopping:  # a source may break when it is closed under its reader
                self.error = problem

    # The workers

    def _decode_ahead(self) -> None:
        me = Taker()
        while (job := self._inbox.take(me, block=True)) is not None:
            self._note_wait(job)
            decode(job, partial(self._pixels.claim, job.ticket))
            self._decoded.put(job)
            del job  # its pixels need not outlive it while this waits for the next
        with self._count_lock:
            self._workers_left -= 1
            last = self._workers_left == 0
        if last:
            self._decoded.close()

    @staticmethod
    def _note_wait(job: FrameJob) -> None:
        job.milliseconds["wait"] = 1e3 * (time.monotonic() - job.read)

    # The lanes

    def _work_lane(self, place: int, lane: Lane) -> None:
        try:
            self._keep_filled(Taker(group=place % self._cores), lane)  # runners get cores in turn
        except BaseException as problem:  # a fault of this program; without its lane it would hang
            self.error = self.error or RunnerError(first_line(problem))
            self._stopping = True
            lane.failures = FAILURES_IN_A_ROW
        if not lane.abandoned:
            self._lane_ends(lane)

    def _keep_filled(self, me: Taker, lane: Lane) -> None:
        """Keep the lane's slots filled; where there is nothing to fill in, finish the oldest."""
        if not lane.has_runner:
            self._make_runner(lane)
        while lane.failures < FAILURES_IN_A_ROW and not lane.abandoned:
            job = None
            if lane.has_room:
                idle = not lane.in_flight
                job = self._take(me, idle)
                if job is None and idle:
                    break
            if job is not None:
                self._start(lane, job)
            else:
                self._finish(lane)

    def _take(self, taker: Taker, block: bool) -> FrameJob | None:
        job = self._for_lanes.take(taker, block)
        if job is not None and not self._workers and not job.attempts:
            self._note_wait(job)
        return job

    def _start(self, lane: Lane, job: FrameJob) -> None:
        """Start a frame, or give out why it cannot be."""
        frame = job.frame
        try:
            if frame.decode is not None:
                decode(job, partial(self._claim, lane, job))
            if frame.image is None:
                self._order.give(job, Result(frame, error=frame.error or "no image"))
            else:
                lane.start(job)
        except NoRoom:
            # Not kept here: if the runner hangs, the picture is another lane's.
            self._put_back(job)
            if lane.in_flight:
                self._finish(lane)
        except RunnerError as error:
            if not lane.abandoned:
                self._recover(lane, job, error)
        except Exception as error:  # of the preprocessing: it is the frame's fault
            self._order.give(job, Result(frame, error=first_line(error)))

    def _claim(self, lane: Lane, job: FrameJob, pixels: int) -> None:
        """Claim a frame's pixels, waiting for room.

        Raises
        ------
        NoRoom
            Rather than wait while the lane has others, or while one in front of it has no lane.
        """
        first = partial(self._for_lanes.has_returned, job.ticket)
        if not self._pixels.claim(job.ticket, pixels, lambda: bool(lane.in_flight) or first()):
            raise NoRoom

    def _put_back(self, job: FrameJob) -> None:
        self._for_lanes.put_back(job)
        self._pixels.look_again()  # a lane that waits with a later one takes it

    def _finish(self, lane: Lane) -> None:
        """Finish the oldest job of a lane."""
        finished = lane.finish_oldest()
        if finished is None:
            return
        job, result = finished
        if isinstance(result, RunnerError):
            self._recover(lane, job, result)
        else:
            lane.failures = 0
            self._order.give(job, result)

    def _pass_on(self, job: FrameJob, result: Result) -> None:
        """Hand a result whose turn it is to the consumer."""
        try:
            self._consume(result)
        except Exception as problem:  # the consumer's own fault ends the run
            self.error = self.error or problem
            self._stopping = True
        self._pixels.release(job.ticket)
        self._inbox.release(job.pixels)

    # Runners that fail

    def _recover(self, lane: Lane, job: FrameJob, error: RunnerError) -> None:
        """Finish what the failed runner still has, and make another one."""
        self._try_again(job, error)
        while lane.in_flight:
            finished = lane.finish_oldest()
            if finished is None:
                return
            other, result = finished
            if isinstance(result, RunnerError):
                self._try_again(other, result)
            else:
                self._order.give(other, result)
        lane.failures += 1
        self._make_runner(lane)

    def _make_runner(self, lane: Lane) -> None:
        while lane.failures < FAILURES_IN_A_ROW and not lane.abandoned:
            with self._count_lock:
                self.restarts += 1
            try:
                lane.make_runner()
                return
            except Exception as error:  # whatever the library raises: it is one failure more
                self._runner_error = error
                lane.failures += 1

    def _try_again(self, job: FrameJob, error: RunnerError) -> None:
        """Put a job back for another runner, or give out that a second one failed on it too."""
        self._runner_error = error
        job.attempts += 1
        if job.attempts > 1:
            self._order.give(job, Result(job.frame, error=str(error)))
            return
        with self._count_lock:
            self.retried += 1
        self._put_back(job)

    def _replace_if_hanging(self, place: int, lane: Lane) -> None:
        """Give the jobs and the place of a lane that hangs to a new one."""
        if not lane.overdue(self._time_limit):
            return
        jobs = lane.abandon()
        if jobs is None:
            return
        self.hangs += 1
        new = self._lanes[place] = lane.another()
        new.failures = lane.failures + 1
        for job in jobs:
            error = RunnerError(f"the runner did not answer in {self._time_limit:g} s")
            self._try_again(job, error)
        self._threads[place] = _thread(self._work_lane, f"lane-{place}", place, new)

    def _lane_ends(self, lane: Lane) -> None:
        with self._count_lock:
            self._lanes_left -= 1
            if self._lanes_left:
                return
        if lane.failures >= FAILURES_IN_A_ROW:  # as all others before it, or the run is over anyway
            self.error = self.error or self._runner_error
        self._stopping = True
        self._inbox.close()
        # What was read and has no runner any more is told of, too.
        me = Taker()
        while (job := self._take(me, True)) is not None:
            self._order.give(job, Result(job.frame, error=str(self._runner_error)))
        self._finished.set()


def _thread(target: Callable[..., None], name: str, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, args=arguments, daemon=True)
    thread.start()
    return thread
