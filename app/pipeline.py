"""The way of a frame: reader -> lanes (preprocess, DPU, postprocess) -> results in order.

    pipeline = Pipeline(source, lanes)
    for result in pipeline: ...

One thread reads. Each lane is a thread with a runner of its own and several jobs in flight:
while one is on the DPU the next is prepared in another of the runner's buffers. Results come
out in the order in which frames came in. One bound holds for the whole way: the reader takes
a permit per frame, which returns when the result is given out. So slow outputs slow the
reader, and nothing else needs a limit. The end of the source and its errors travel the same
way, behind the last frame.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import cv2
import numpy as np

from app.model import Classifier
from app.preprocess import Preprocessor
from app.sources import Frame, Source
from board.dpu import ModelError

# What is timed, in ms. read: getting and decoding the image. wait: until a lane takes it.
# preprocess: into the DPU's buffer. infer: from submission until the output is there.
# postprocess: to labels. total: from the begin of reading until the result is given out in order.
STAGES = ("read", "wait", "preprocess", "infer", "postprocess", "total")

_FRAMES_WAITING_PER_LANE = 2
_JOIN_SECONDS = 5.0
_STOP_CHECK_SECONDS = 0.1


@dataclass
class Result:
    """What became of one frame.

    Attributes
    ----------
    frame : the frame itself, image included
    top : (label, confidence 0..1) of the best classes, best first; empty after an error
    true_label : the label it should have, None where that is not known
    error : why there is no classification
    milliseconds : per stage of STAGES
    """

    frame: Frame
    top: list[tuple[str, float]] = field(default_factory=list)
    true_label: str | None = None
    error: str | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def correct(self) -> bool | None:
        """Whether the best label is the true one; None where either is missing."""
        if self.true_label is None or not self.top:
            return None
        return self.top[0][0] == self.true_label


@dataclass
class _Job:
    """A frame on its way, with the clock readings (s) that its latencies are made of."""

    frame: Frame
    began: float
    read: float
    submitted: float = 0.0
    times: dict[str, float] = field(default_factory=dict)


@dataclass
class _End:
    """Follows the last frame: how many there were, and the error that ended them, if any."""

    count: int
    error: Exception | None


class Lane:
    """One thread's own runner, preprocessor and postprocessing."""

    def __init__(self, classifier: Classifier, top: int = 1, slots: int = 2) -> None:
        self._classifier = classifier
        self._labels = frozenset(classifier.labels)
        self._top = min(top, len(classifier.labels))
        self._runner = classifier.network.runner(slots)
        self._preprocess = Preprocessor(classifier.form, classifier.network.input.fix_point or 0)
        self.slots = slots
        self._free = deque(range(slots))
        self._running: deque[tuple[_Job, int]] = deque()

    def warm_up(self) -> None:
        """Run one image of zeros, so that what is built at the first run is built.

        Raises
        ------
        ModelError
            The model does not run.
        """
        try:
            self._runner.run(np.zeros_like(self._runner.input(0)))
        except Exception as error:  # a runner's errors have no common base
            raise ModelError(f"{self._classifier.name}: {_one_line(error)}") from error

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def start(self, job: _Job) -> Result | None:
        """Prepare a frame in a free slot and start it on the DPU; a result only if that failed."""
        slot = self._free[0]
        try:
            self._submit(job, slot)
        except Exception as error:  # a runner's errors have no common base
            return Result(job.frame, error=_one_line(error))
        self._free.popleft()
        self._running.append((job, slot))
        return None

    def finish_oldest(self) -> tuple[_Job, Result]:
        """Wait for the job that was started first and say what its frame shows."""
        job, slot = self._running.popleft()
        self._free.append(slot)
        try:
            return job, self._collect(job, slot)
        except Exception as error:
            return job, Result(job.frame, error=_one_line(error))

    def _submit(self, job: _Job, slot: int) -> None:
        assert job.frame.image is not None
        started = time.monotonic()
        job.times["wait"] = started - job.read
        self._preprocess(job.frame.image, self._runner.input(slot))
        job.submitted = time.monotonic()
        job.times["preprocess"] = job.submitted - started
        self._runner.submit(slot)

    def _collect(self, job: _Job, slot: int) -> Result:
        scores = self._runner.collect(slot)
        inferred = time.monotonic()
        job.times["infer"] = inferred - job.submitted
        confidences = activate(scores.reshape(-1), self._classifier.activation)
        best = np.argsort(-confidences, kind="stable")[: self._top]
        top = [(self._classifier.labels[i], float(confidences[i])) for i in best]
        folder = job.frame.folder
        result = Result(job.frame, top, folder if folder in self._labels else None)
        job.times["postprocess"] = time.monotonic() - inferred
        return result


def _one_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def activate(scores: np.ndarray, activation: str) -> np.ndarray:
    """Return confidences 0..1 from a model's outputs: "softmax", "sigmoid" or "none"."""
    if activation == "softmax":
        powers = np.exp(scores - scores.max())  # the largest is taken off: exp cannot overflow
        return np.asarray(powers / powers.sum())
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)))
    return scores


class Pipeline:
    """Runs a source through lanes; iterate over it once for the results, in order.

    Attributes
    ----------
    error : what broke the source off, once the iteration has ended; None after a normal end
    """

    def __init__(self, source: Source, lanes: Sequence[Lane], limit: int | None = None) -> None:
        self._source = source
        self._lanes = lanes
        self._limit = limit
        self._stopping = False
        bound = sum(lane.slots + _FRAMES_WAITING_PER_LANE for lane in lanes)
        self._permits = threading.Semaphore(bound)
        self._work: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[_Job, Result] | _End] = SimpleQueue()
        self.error: Exception | None = None

    def stop(self) -> None:
        """Read no more; what is under way is finished and given out. Safe in a signal handler."""
        # Nothing but a flag: a lock could be held by the very thread that the signal interrupts.
        self._stopping = True

    def __iter__(self) -> Iterator[Result]:
        cv2.setNumThreads(1)  # the lanes are the threads; OpenCV's own would only get in their way
        threads = [threading.Thread(target=self._read, name="reader", daemon=True)]
        for number, lane in enumerate(self._lanes):
            threads.append(
                threading.Thread(
                    target=self._work_lane, args=(lane,), name=f"lane-{number}", daemon=True
                )
            )
        for thread in threads:
            thread.start()
        try:
            yield from self._in_order()
        finally:
            self.stop()
            for thread in threads:
                thread.join(_JOIN_SECONDS)

    def _in_order(self) -> Iterator[Result]:
        early: dict[int, tuple[_Job, Result]] = {}
        end: _End | None = None
        given = 0
        while end is None or given < end.count:
            item = self._done.get()
            if isinstance(item, _End):
                end, self.error = item, item.error
                continue
            early[item[0].frame.index] = item
            while given in early:
                job, result = early.pop(given)
                job.times["total"] = time.monotonic() - job.began
                result.milliseconds = {
                    name: 1e3 * job.times[name] for name in STAGES if name in job.times
                }
                given += 1
                yield result
                self._permits.release()

    def _read(self) -> None:
        count, error = 0, None
        try:
            for job in self._jobs():
                count += 1
                if job.frame.image is None:
                    self._done.put((job, Result(job.frame, error=job.frame.error or "no image")))
                else:
                    self._work.put(job)
        except Exception as problem:  # to the consumer, whatever it is: it must not hang there
            error = problem
        for _ in self._lanes:
            self._work.put(None)
        self._done.put(_End(count, error))
        self._source.close()

    def _jobs(self) -> Iterator[_Job]:
        """Read frames, as many as there are permits for."""
        frames = iter(self._source)
        count = 0
        while self._limit is None or count < self._limit:
            while not self._stopping and not self._permits.acquire(timeout=_STOP_CHECK_SECONDS):
                pass
            if self._stopping:
                return
            began = time.monotonic()
            frame = next(frames, None)
            if frame is None:
                return
            read = time.monotonic()
            yield _Job(frame, began, read, times={"read": read - began})
            count += 1

    def _work_lane(self, lane: Lane) -> None:
        """Keep the lane's slots filled; where there is nothing to fill in, finish the oldest."""
        more = True
        while more or lane.busy:
            if more and lane.has_room:
                try:
                    job = self._work.get(block=not lane.busy)
                except Empty:
                    pass
                else:
                    more = job is not None
                    if job is not None and (failed := lane.start(job)):
                        self._done.put((job, failed))
                    continue
            self._done.put(lane.finish_oldest())
