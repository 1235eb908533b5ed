"""Lanes, which run frames through the model with their own runner and buffers."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial

import numpy as np

from tutelage.app.model import Classifier
from tutelage.app.pipeline.job import FrameJob
from tutelage.app.pipeline.result import Result
from tutelage.app.pipeline.scores import IntegerScores, best_labels
from tutelage.app.sources.frames import Frame
from tutelage.board.jobs import ModelRunner
from tutelage.board.model_parts import ModelError
from tutelage.core.errors import first_line
from tutelage.core.images.image_files import label_of
from tutelage.core.images.preprocessor import Preprocessor


class RunnerError(Exception):
    """The runner failed, not the frame, which another runner may process."""


class Lane:
    """A runner with a buffer per slot. One thread uses it, while another detects if it hangs.

    A new lane has no runner; call `make_runner` first.

    Parameters
    ----------
    classifier : the model
    top : number of best classes in a result
    slots : largest number of jobs in flight. With two, one is preprocessed while the other runs,
        if VART's `execute_async` returns before its job is done

    Attributes
    ----------
    failures : consecutive failures of its runners, without a good job in between
    """

    def __init__(self, classifier: Classifier, top: int = 1, slots: int = 1) -> None:
        self._classifier = classifier
        self._labels = frozenset(classifier.labels)
        self._top = min(top, len(classifier.labels))
        integers = classifier.network.integers
        self._takes_integers = integers is not None
        scores = classifier.labels, classifier.activation, self._top
        self._best = (
            partial(best_labels, *scores)
            if integers is None
            else IntegerScores(*scores, integers.fix_point or 0)
        )
        self._preprocess = Preprocessor(classifier.form, classifier.network.input.fix_point or 0)
        self.slots = slots
        self.failures = 0
        self._runner: ModelRunner | None = None
        self._free: deque[int] = deque()
        self._running: deque[tuple[FrameJob, int]] = deque()
        self._busy_since = 0.0
        self._busy_before = 0.0  # s
        self._lock = threading.Lock()
        self._abandoned = False
        self._in_runner_since: float | None = None

    @property
    def has_runner(self) -> bool:
        return self._runner is not None

    def make_runner(self) -> None:
        """Create the runner, or a replacement for a failed one.

        Raises
        ------
        ModelError
            The model does not run here.
        """
        self._in_runner_since = time.monotonic()
        try:
            self._runner = self._classifier.network.runner(self.slots)
        finally:
            self._in_runner_since = None
        self._free = deque(range(self.slots))
        self._running = deque()

    def another(self) -> Lane:
        """Return a new lane with the same settings and no runner yet."""
        new = Lane(self._classifier, self._top, self.slots)
        new._busy_before = self.busy_seconds
        return new

    def warm_up(self) -> float:
        """Run an image of zeros twice, so that everything is built; return the second time, s.

        Raises
        ------
        ModelError
            The model does not run.
        """
        if self._runner is None:
            self.make_runner()
        assert self._runner is not None
        image = np.zeros_like(self._runner.input(0))
        try:
            self._runner.run(image)  # not timed, since the first run builds the engine
            started = time.monotonic()
            self._runner.run(image)
        except Exception as error:  # a runner's errors have no common base
            raise ModelError(f"{self._classifier.name}: {first_line(error)}") from error
        return time.monotonic() - started

    @property
    def has_room(self) -> bool:
        return bool(self._free)

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def start(self, job: FrameJob) -> None:
        """Preprocess a frame in a free slot and start it on the DPU.

        Raises
        ------
        RunnerError
            The runner refuses the job.
        Exception
            The frame cannot be preprocessed.
        """
        slot = self._free[0]
        started = time.monotonic()
        image = job.frame.image
        assert image is not None and self._runner is not None
        self._preprocess(image, self._runner.input(slot))
        submitted = job.submitted = time.monotonic()
        job.milliseconds["preprocess"] = 1e3 * (submitted - started)
        self._free.popleft()
        if not self._running:
            self._busy_since = submitted
        self._running.append((job, slot))
        self._in_runner_since = submitted
        try:
            self._runner.submit(slot)
        except Exception as error:  # a runner's errors have no common base
            with self._lock:
                self._in_runner_since = None
                if not self._abandoned:
                    self._running.pop()
                    self._free.append(slot)
            raise RunnerError(first_line(error)) from error
        self._in_runner_since = None

    def finish_oldest(self) -> tuple[FrameJob, Result | RunnerError] | None:
        """Wait for the oldest job.

        Returns
        -------
        The job and its result, or a RunnerError; None if the lane was abandoned meanwhile, so that
        another lane has the job
        """
        job, slot = self._running[0]
        assert self._runner is not None
        scores: np.ndarray | RunnerError
        # The time limit starts here, since the previous job is done only now.
        self._in_runner_since = time.monotonic()
        try:
            runner = self._runner
            scores = runner.collect_integers(slot) if self._takes_integers else runner.collect(slot)
        except Exception as error:  # a runner's errors have no common base
            scores = RunnerError(first_line(error))
        with self._lock:
            if self._abandoned:
                return None
            self._in_runner_since = None
            self._running.popleft()
            self._free.append(slot)
        inferred = time.monotonic()
        if not self._running:
            self._busy_before += inferred - self._busy_since
        job.milliseconds["infer"] = 1e3 * (inferred - job.submitted)
        if isinstance(scores, RunnerError):
            return job, scores
        result = self._postprocess(job.frame, scores)
        job.milliseconds["postprocess"] = 1e3 * (time.monotonic() - inferred)
        return job, result

    @property
    def busy_seconds(self) -> float:
        """Total time in which the runner had a job, from submission to collection, s."""
        now = time.monotonic() - self._busy_since if self._running else 0.0
        return self._busy_before + now

    def _postprocess(self, frame: Frame, scores: np.ndarray) -> Result:
        return Result(frame, self._best(scores), label_of(frame.folders, self._labels))

    def overdue(self, limit: float) -> bool:
        """Return whether the runner has blocked the lane's thread for more than `limit` seconds."""
        since = self._in_runner_since
        return since is not None and time.monotonic() - since > limit

    def abandon(self) -> list[FrameJob] | None:
        """Give up a lane whose thread hangs, and ignore its later results.

        Returns
        -------
        Its jobs; None if the thread has just returned and goes on
        """
        with self._lock:
            if self._in_runner_since is None:
                return None
            self._abandoned = True
            return [job for job, _ in self._running]

    @property
    def abandoned(self) -> bool:
        return self._abandoned
