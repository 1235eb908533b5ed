"""The pipeline: reader -> lanes (decode, preprocess, DPU, postprocess) -> results in order.

    pipeline = Pipeline(source, lanes, consume=print)
    pipeline.run()

One thread reads the source. Sources whose frames are available at once have no reader: the threads
that process frames fetch them in turn, since waking a thread would cost more. Each lane is a thread
with its own runner. With two lanes for each core of the DPU, one preprocesses its next frame while
the core computes the other's, and the core never waits. Several jobs in flight in each lane do
nearly the same with fewer threads if `execute_async` returns before its job is done, which it does
not on an edge board. If frames come as files or JPEGs, workers may decode them ahead of the lanes.

A frame gets the next ticket when it is taken, and results are passed on in the order of the
tickets, by the lane that has the next one; a separate thread would cost more than most outputs. A
frame needs a permit from then until its result is passed on. This bounds everything after the
reader: slow outputs, or one slow frame, stop the lanes. The reader then waits, or drops the oldest
frame of a live source.

A runner that fails or does not answer in time is replaced, and its frames are tried once more. A
second failure becomes a result with an error, so that the number of results is that of the frames.
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
"""Time after which a runner that has not finished a job counts as hanging, s."""

FAILURES_IN_A_ROW = 10
"""Number of consecutive failures after which a lane is given up."""

_FIRST_JOBS_IN_LIMIT = 20  # the time limit in terms of the time of the first job
_SPARE_PERMITS = 2  # beyond the lanes' slots, for results that wait for a slower one
_JOIN_SECONDS = 2.0
LOOK_SECONDS = 0.25
"""Interval at which the main thread checks the others, s; each time costs cache misses."""

_SWITCH_SECONDS = 1e-3  # switch interval of Python's threads while the pipeline runs


def time_limit_of(slowest: float) -> float:
    """Return the time limit for runners whose first jobs took up to `slowest` seconds, s."""
    return max(DEFAULT_TIME_LIMIT, _FIRST_JOBS_IN_LIMIT * slowest)


def utilisation(before: Sequence[float], after: Sequence[float], seconds: float) -> float:
    """Return an upper bound of the share of time in which the cores computed, 0 to 1.

    Jobs count from submission to collection, also while they wait for another lane's job on the
    same core: two lanes that each had jobs for half of the time give 1, whether or not the halves
    overlap.

    Parameters
    ----------
    before, after : `Pipeline.core_seconds` at two times
    seconds : time between the two, s
    """
    if seconds <= 0:
        return 0.0
    shares = [min(1.0, (b - a) / seconds) for a, b in zip(before, after, strict=True)]
    return max(0.0, sum(shares) / len(shares))


class Pipeline:
    """Runs the frames of a source through lanes and passes the results on in order.

    Parameters
    ----------
    source : source of the frames, which is closed at the end
    lanes : at least one
    consume : function called with each result, one at a time, in order, from the pipeline's threads
    limit : largest number of frames; None for no limit
    workers : number of threads that decode frames ahead of the lanes, if the source needs decoding
    time_limit : time after which a runner counts as hanging, s
    cores : number of cores of the DPU; a frame goes to a lane of the least busy core

    Attributes
    ----------
    error : exception that ended the run early; None after a normal end
    restarts : number of runners that were replaced after they failed or did not answer
    hangs : number of these that did not answer
    retried : number of frames that were tried once more
    given_up : number of lanes that ended since their runners only failed
    runner_error : last error of a runner; None without one
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
        # Frames that the workers have decoded, bounded by their permits.
        self._decoded = Dispatch(permits)
        self._for_lanes = self._decoded if self._workers else self._inbox
        self._order = ResultOrder(self._pass_on)
        self._pixels = PixelBudget()
        self._readers: list[threading.Thread] = []  # one or none
        self._threads: list[threading.Thread] = []  # by lane
        self._count_lock = threading.Lock()
        self._lanes_left = len(lanes)
        self._stopping = False
        self._finished = threading.Event()
        self.error: Exception | None = None
        self.runner_error: Exception | None = None
        self.restarts = self.hangs = self.retried = self.given_up = 0

    @property
    def dropped(self) -> int:
        """Number of frames of a live source that were not taken in time."""
        return self._inbox.dropped

    def depths(self) -> dict[str, int]:
        """Return the numbers of frames that wait, are in flight, and are done but not yet next."""
        done = len(self._order)
        under_way = max(0, self._inbox.taken - self._order.given - done)
        return {"waiting": len(self._inbox), "in_flight": under_way, "done": done}

    def core_seconds(self) -> list[float]:
        """Return the sum of the times in which each lane of a core had a job, s, by core.

        Runners get the cores in turn, so every `cores`-th lane shares a core. With several lanes
        for each core, a sum can be longer than the time that has passed.
        """
        lanes = [lane.busy_seconds for lane in self._lanes]
        return [sum(lanes[core :: self._cores]) for core in range(self._cores)]

    def stop(self) -> None:
        """Stop reading; frames in flight are finished. Safe in a signal handler."""
        # A flag only: the interrupted thread may hold any lock.
        self._stopping = True

    def run(
        self, each_look: Callable[[], None] = lambda: None, look_seconds: float = LOOK_SECONDS
    ) -> None:
        """Run to the end of the source, or until `stop`.

        Parameters
        ----------
        each_look : function called every `look_seconds` (s) in the calling thread
        """
        cv2.setNumThreads(1)  # OpenCV's own threads would compete with the lanes
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
            thread.join(_JOIN_SECONDS)  # with a time-out, since a source may hang in its library

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

    # The reader, or the function that fetches available frames

    def _read(self) -> None:
        for job in self._jobs:
            if not self._inbox.put(job):
                break
        self._inbox.close()

    def _read_jobs(self) -> Iterator[FrameJob]:
        """Yield the source's frames as jobs; its exception becomes the error of the run."""
        has_room = None if self._source.at_hand else self._inbox.wait_for_room
        try:
            for job in jobs_of(self._source, self._limit, has_room):
                if self._stopping:
                    break
                yield job
        except Exception as problem:  # sources may raise anything; reported after the last frame
            if not self._stopping:  # else closing the source may have caused it
                self.error = problem

    # The workers

    def _decode_ahead(self) -> None:
        me = Taker()
        while (job := self._inbox.take(me, block=True)) is not None:
            self._note_wait(job)
            decode(job, partial(self._pixels.claim, job.ticket))
            self._decoded.put(job)
            del job  # frees its pixels while this thread waits for the next job
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
        except BaseException as problem:  # a bug; without its lane the run would hang
            self.error = self.error or RunnerError(first_line(problem))
            self._stopping = True
            lane.failures = FAILURES_IN_A_ROW
        if not lane.abandoned:
            self._lane_ends(lane)

    def _keep_filled(self, me: Taker, lane: Lane) -> None:
        """Keep the lane's slots filled; finish the oldest job if there is no new one."""
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
        """Start a frame, or pass on the error that prevents it."""
        frame = job.frame
        try:
            if frame.decode is not None:
                decode(job, partial(self._claim, lane, job))
            if frame.image is None:
                self._order.give(job, Result(frame, error=frame.error or "no image"))
            else:
                lane.start(job)
        except NoRoom:
            # Put back rather than kept, so that another lane gets it if this runner hangs.
            self._put_back(job)
            if lane.in_flight:
                self._finish(lane)
        except RunnerError as error:
            if not lane.abandoned:
                self._recover(lane, job, error)
        except Exception as error:  # from preprocessing: a fault of the frame
            self._order.give(job, Result(frame, error=first_line(error)))

    def _claim(self, lane: Lane, job: FrameJob, pixels: int) -> None:
        """Claim a frame's pixels, waiting for room.

        Raises
        ------
        NoRoom
            The lane has other jobs in flight, or an earlier frame was put back and has no lane;
            waiting could then be a deadlock.
        """
        first = partial(self._for_lanes.has_returned, job.ticket)
        if not self._pixels.claim(job.ticket, pixels, lambda: bool(lane.in_flight) or first()):
            raise NoRoom

    def _put_back(self, job: FrameJob) -> None:
        self._for_lanes.put_back(job)
        self._pixels.look_again()  # a lane that waits with a later frame takes this one instead

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
        """Pass the next result to the consumer."""
        try:
            self._consume(result)
        except Exception as problem:  # a fault of the consumer ends the run
            self.error = self.error or problem
            self._stopping = True
        self._pixels.release(job.ticket)
        self._inbox.release(job.pixels)

    # Runners that fail

    def _recover(self, lane: Lane, job: FrameJob, error: RunnerError) -> None:
        """Finish the other jobs of a failed runner, and replace it."""
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
            except Exception as error:  # VART may raise anything; it counts as another failure
                self.runner_error = error
                lane.failures += 1

    def _try_again(self, job: FrameJob, error: RunnerError) -> None:
        """Put a job back for another runner, or after a second failure pass on the error."""
        self.runner_error = error
        job.attempts += 1
        if job.attempts > 1:
            self._order.give(job, Result(job.frame, error=str(error)))
            return
        with self._count_lock:
            self.retried += 1
        self._put_back(job)

    def _replace_if_hanging(self, place: int, lane: Lane) -> None:
        """Replace a hanging lane by a new one, which gets its jobs."""
        if not lane.overdue(self._time_limit):
            return
        jobs = lane.abandon()
        if jobs is None:
            return
        self.hangs += 1
        new = self._lanes[place] = lane.another()
        new.failures = lane.failures + 1
        for job in jobs:
            error = RunnerError(f"the runner did not answer within {self._time_limit:g} s")
            self._try_again(job, error)
        self._threads[place] = _thread(self._work_lane, f"lane-{place}", place, new)

    def _lane_ends(self, lane: Lane) -> None:
        with self._count_lock:
            self.given_up += lane.failures >= FAILURES_IN_A_ROW
            self._lanes_left -= 1
            if self._lanes_left:
                return
        if lane.failures >= FAILURES_IN_A_ROW:  # as the others, unless the run is over anyway
            self.error = self.error or self.runner_error
        self._stopping = True
        self._inbox.close()
        # Frames that were read and have no runner left become results with an error.
        me = Taker()
        while (job := self._take(me, True)) is not None:
            self._order.give(job, Result(job.frame, error=str(self.runner_error)))
        self._finished.set()


def _thread(target: Callable[..., None], name: str, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, name=name, args=arguments, daemon=True)
    thread.start()
    return thread
