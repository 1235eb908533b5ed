from __future__ import annotations

import importlib
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.app.waiting import LONG, soon
from tutelage.app.model import Classifier, load_classifier
from tutelage.app.pipeline.lane import Lane
from tutelage.app.pipeline.pipeline import FAILURES_IN_A_ROW, Pipeline
from tutelage.app.pipeline.pixel_budget import MOST_PIXELS
from tutelage.app.pipeline.result import STAGES, Result
from tutelage.app.sources.frames import Frame, FrameSource, SourceError
from tutelage.board.model_parts import ModelError

vart: Any = None  # the stand-in, after the fixture has installed it


class Synthetic(FrameSource):
    """Uniform images whose class is index % 10; some are broken, and some make the DPU fail."""

    def __init__(
        self, count: int, broken: int = 0, failing: int = 0, at_hand: bool = False
    ) -> None:
        self.name, self.length, self.at_hand = "synthetic", count, at_hand
        self.taken = 0
        self.closed = False
        self._broken, self._failing = broken, failing

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.length or 0):
            self.taken += 1
            if self._broken and index % self._broken == 1:
                yield Frame(index, str(index), None, error="cut off")
                continue
            image = np.full((8, 8, 3), 20 * (index % 10) + 10, np.uint8)
            if self._failing and index % self._failing == 2:
                image[0, 0] = 0
            yield Frame(index, str(index), image, folders=(str(index % 10),))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def classifier(fake_board: Path, fake_model: Path) -> Classifier:
    return load_classifier(fake_model)


def _lanes(classifier: Classifier, threads: int, slots: int = 2) -> list[Lane]:
    lanes = [Lane(classifier, slots=slots) for _ in range(threads)]
    for lane in lanes:
        lane.make_runner()
    return lanes


def _run(source: FrameSource, lanes: list[Lane], **options: Any) -> tuple[list[Result], Pipeline]:
    results: list[Result] = []
    pipeline = Pipeline(source, lanes, results.append, **options)
    pipeline.run()
    return results, pipeline


read_or_at_hand = pytest.mark.parametrize("at_hand", [False, True])


@read_or_at_hand
@pytest.mark.parametrize("threads, slots", [(1, 1), (2, 2), (8, 3)])
def test_all_results_come_once_in_order_and_are_right(
    classifier: Classifier, threads: int, slots: int, at_hand: bool
) -> None:
    source = Synthetic(300, at_hand=at_hand)
    results, _ = _run(source, _lanes(classifier, threads, slots))
    assert [result.frame.index for result in results] == list(range(300))
    assert all(result.correct for result in results)
    assert list(results[0].milliseconds) == [stage for stage in STAGES if stage != "decode"]
    times = results[0].milliseconds
    assert 0 < sum(times.get(stage, 0.0) for stage in STAGES[:-1]) <= times["total"]
    assert source.closed


@read_or_at_hand
def test_broken_frames_and_failed_jobs_keep_their_place(
    classifier: Classifier, at_hand: bool
) -> None:
    source = Synthetic(200, broken=7, failing=5, at_hand=at_hand)
    results, _ = _run(source, _lanes(classifier, 4))
    assert [result.frame.index for result in results] == list(range(200))
    for index, result in enumerate(results):
        if index % 7 == 1:
            assert result.error == "cut off" and result.correct is None
        elif index % 5 == 2 and index % 10:  # class 0 may be as black as its corner
            assert result.error == "the DPU timed out"
        else:
            assert result.error is None and result.correct


def test_slow_outputs_slow_the_reader(classifier: Classifier) -> None:
    source = Synthetic(10_000)
    go_on = threading.Event()

    def wait(result: Result) -> None:
        go_on.wait()

    pipeline = Pipeline(source, _lanes(classifier, 2), wait)
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    inbox = pipeline._inbox
    # There are no permits left, and the reader waits until half of the inbox is taken.
    assert soon(lambda: inbox._writer_waits and not inbox._permits)
    assert pipeline.depths()["waiting"] > 2
    # The inbox, the permits, and the one frame that the reader has.
    assert source.taken <= 2 * 2 + 2 * (2 + 2) + 1
    pipeline.stop()
    go_on.set()
    thread.join(LONG)
    assert not thread.is_alive() and source.closed


@read_or_at_hand
def test_stop_finishes_started_jobs(classifier: Classifier, at_hand: bool) -> None:
    source = Synthetic(10_000, at_hand=at_hand)
    results: list[Result] = []

    def consume(result: Result) -> None:
        results.append(result)
        if len(results) == 20:
            pipeline.stop()

    pipeline = Pipeline(source, _lanes(classifier, 2), consume)
    pipeline.run()
    assert [result.frame.index for result in results] == list(range(len(results)))
    assert len(results) >= 20 and source.taken - 1 <= len(results) <= source.taken


def test_stop_does_not_wait_for_a_source_that_gives_nothing(classifier: Classifier) -> None:
    released, gave_more = threading.Event(), threading.Event()

    class Silent(Synthetic):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            released.wait(LONG)
            gave_more.set()

    pipeline = Pipeline(Silent(5), _lanes(classifier, 2), lambda result: pipeline.stop())
    pipeline.run()
    assert not gave_more.is_set() and pipeline.error is None
    released.set()


@read_or_at_hand
def test_the_limit_counts_frames(classifier: Classifier, at_hand: bool) -> None:
    source = Synthetic(100, at_hand=at_hand)
    results, _ = _run(source, _lanes(classifier, 3), limit=17)
    assert len(results) == 17 and source.taken == 17 and source.closed


@read_or_at_hand
def test_a_broken_source_is_reported_after_its_frames(
    classifier: Classifier, at_hand: bool
) -> None:
    class Breaking(Synthetic):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            raise SourceError("the cable is out")

    results, pipeline = _run(Breaking(30, at_hand=at_hand), _lanes(classifier, 2))
    assert len(results) == 30 and str(pipeline.error) == "the cable is out"


@read_or_at_hand
def test_an_empty_source_ends(classifier: Classifier, at_hand: bool) -> None:
    results, pipeline = _run(Synthetic(0, at_hand=at_hand), _lanes(classifier, 2))
    assert results == [] and pipeline.error is None


@read_or_at_hand
def test_a_consumer_that_raises_ends_the_run(classifier: Classifier, at_hand: bool) -> None:
    def consume(result: Result) -> None:
        raise ValueError("no idea")

    source = Synthetic(10_000, at_hand=at_hand)
    pipeline = Pipeline(source, _lanes(classifier, 2), consume)
    pipeline.run()
    assert str(pipeline.error) == "no idea"


def test_frames_at_hand_have_no_reader(classifier: Classifier) -> None:
    """No frame is fetched before a lane takes it."""
    source = Synthetic(300, at_hand=True)
    names: set[str] = set()
    most = 0

    def consume(result: Result) -> None:
        nonlocal most
        names.update(thread.name for thread in threading.enumerate())
        most = max(most, source.taken - result.frame.index)

    Pipeline(source, _lanes(classifier, 2), consume).run()
    assert "lane-1" in names and "reader" not in names
    assert most <= 2 * 2 + 2 + 1  # the permits, and one that another lane is fetching


@read_or_at_hand
def test_no_thread_is_left(classifier: Classifier, at_hand: bool) -> None:
    before = threading.active_count()
    _run(Synthetic(20, at_hand=at_hand), _lanes(classifier, 4), workers=2)
    assert threading.active_count() == before


class Encoded(Synthetic):
    """The same frames with `decode`; every seventh is broken."""

    needs_decoding = True

    def __init__(
        self, count: int, broken: int = 0, pixels: int = 64, at_hand: bool = False
    ) -> None:
        super().__init__(count, broken, at_hand=at_hand)
        self._pixels = pixels

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            image, frame.image = frame.image, None
            frame.decode = partial(self._decode, image, frame.index)
            yield frame

    def _decode(
        self, image: np.ndarray | None, index: int, claim: Callable[[int], None]
    ) -> np.ndarray:
        claim(self._pixels)
        time.sleep(random.uniform(0, 0.002))
        if index % 7 == 3:
            raise ValueError("cut off")
        assert image is not None
        return image


@read_or_at_hand
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_frames_are_decoded_by_lanes_or_ahead_of_them(
    classifier: Classifier, workers: int, at_hand: bool
) -> None:
    results, _ = _run(Encoded(200, at_hand=at_hand), _lanes(classifier, 2), workers=workers)
    assert [result.frame.index for result in results] == list(range(200))
    for index, result in enumerate(results):
        assert (result.error == "cut off") is (index % 7 == 3)
        assert result.correct is not (index % 7 != 3) or result.correct
        assert result.frame.decode is None and result.milliseconds["decode"] > 0


class Large(Synthetic):
    """Frames that claim to be large pictures; records the pixels claimed simultaneously."""

    needs_decoding = True

    def __init__(self, count: int, sizes: list[int]) -> None:
        super().__init__(count)
        self._sizes = sizes
        self.pipeline: Pipeline | None = None
        self.most = 0

    def __iter__(self) -> Iterator[Frame]:
        for frame in super().__iter__():
            image, frame.image = frame.image, None
            size = self._sizes[frame.index % len(self._sizes)]
            frame.decode = partial(self._decode, image, size)
            yield frame

    def _decode(
        self, image: np.ndarray | None, size: int, claim: Callable[[int], None]
    ) -> np.ndarray:
        claim(size)
        assert image is not None and self.pipeline is not None
        self.most = max(self.most, self.pipeline._pixels.claimed)
        return image


@pytest.mark.parametrize("sizes", [[60 << 20], [60 << 20, 1 << 20, 20 << 20], [1 << 20]])
@pytest.mark.parametrize("workers, slots", [(0, 1), (0, 3), (1, 2), (3, 2)])
def test_large_pictures_wait_for_each_other(
    classifier: Classifier, workers: int, slots: int, sizes: list[int]
) -> None:
    source = Large(60, sizes)
    results: list[Result] = []
    source.pipeline = Pipeline(
        source, _lanes(classifier, 3, slots), results.append, workers=workers
    )
    source.pipeline.run()
    assert [result.frame.index for result in results] == list(range(60))
    assert all(result.correct for result in results)
    assert max(sizes) <= source.most <= MOST_PIXELS + max(sizes)
    assert source.pipeline._pixels.claimed == 0


class Video(FrameSource):
    """Large images that come decoded; counts those whose results are not released yet."""

    def __init__(self, count: int, live: bool) -> None:
        self.name, self.live = "video", live
        self.taken = self.given = self.most = 0
        self._count = count
        self._image = np.full((4096, 4096, 3), 10, np.uint8)

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            self.taken += 1
            self.most = max(self.most, self.taken - self.given)
            yield Frame(index, str(index), self._image)

    def count(self, result: Result) -> None:
        self.given += 1


def test_large_frames_of_a_video_are_read_as_others_are_done(classifier: Classifier) -> None:
    source = Video(24, live=False)
    pipeline = Pipeline(source, _lanes(classifier, 3), source.count)
    pipeline.run()
    assert pipeline.error is None and source.given == 24 and pipeline.dropped == 0
    assert source.most <= MOST_PIXELS // 4096**2 + 1  # one may be read while another leaves


def test_large_frames_of_a_live_source_are_dropped(classifier: Classifier) -> None:
    source = Video(24, live=True)
    most_left: list[int] = []

    def consume(result: Result) -> None:
        assert soon(lambda: source.taken == 24)
        most_left.append(source.taken - pipeline.dropped - len(most_left))
        source.count(result)

    pipeline = Pipeline(source, _lanes(classifier, 3), consume)
    pipeline.run()
    assert pipeline.error is None and source.given + pipeline.dropped == 24
    assert max(most_left) <= MOST_PIXELS // 4096**2 + 1


class Camera(Synthetic):
    """A live source."""

    live = True

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.all_given = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        yield from super().__iter__()
        self.all_given.set()  # the last frame has been taken too


def test_a_live_source_drops_the_oldest_and_counts_it(classifier: Classifier) -> None:
    source = Camera(2000)
    results: list[Result] = []

    def consume(result: Result) -> None:
        """Take nothing until the camera has given all: speed must not decide which are dropped."""
        assert source.all_given.wait(LONG)
        results.append(result)

    pipeline = Pipeline(source, _lanes(classifier, 2), consume)
    pipeline.run()
    indices = [result.frame.index for result in results]
    assert indices == sorted(set(indices))
    # The newest are left, as many as fit the inbox, and those that were in flight.
    inbox, permits = 2 * 2, 2 * 2 + 2
    assert indices[-inbox:] == list(range(2000 - inbox, 2000))
    assert inbox <= len(results) <= inbox + permits
    assert len(results) + pipeline.dropped == 2000
    assert all(result.correct for result in results)
    # A live frame's latency counts from its arrival, not from when it was asked for.
    assert all(r.milliseconds["total"] >= r.milliseconds["wait"] for r in results)


# Runners that fail: `Flaky` injects failures into the stand-in board's runners.


class Flaky:
    """Injector that makes the runners of a classifier fail, raise or hang at given jobs.

    Jobs are numbered over all runners; sets of numbers select those that fail.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raising: set[int] | range = set()
        self.hanging: set[int] | range = set()
        self.released = threading.Event()
        self.broken = False
        self._next = itertools.count()
        self._hung: set[int] = set()  # threads
        self._find_what_hangs(monkeypatch)
        wait, create = vart.Runner.wait, vart.Runner.create_runner

        def flaky_wait(runner: Any, job: Any) -> Any:
            number = next(self._next)
            if number in self.raising:
                wait(runner, job)
                raise RuntimeError("DPU timeout")
            if number in self.hanging:
                self._hung.add(threading.get_ident())
                self.released.wait(LONG)
                self._hung.discard(threading.get_ident())
            return wait(runner, job)

        def flaky_create(*arguments: Any) -> Any:
            if self.broken:
                raise RuntimeError("no DPU core answers")
            return create(*arguments)

        monkeypatch.setattr(vart.Runner, "wait", flaky_wait)
        monkeypatch.setattr(vart.Runner, "create_runner", staticmethod(flaky_create))

    def _find_what_hangs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set a long time limit, so that a slow machine is not taken for a hanging lane."""
        finish, overdue = Lane.finish_oldest, Lane.overdue
        threads: dict[int, int] = {}

        def finish_oldest(lane: Lane) -> Any:
            threads[id(lane)] = threading.get_ident()
            return finish(lane)

        def hangs(lane: Lane, limit: float) -> bool:
            return overdue(lane, limit) and threads.get(id(lane)) in self._hung

        monkeypatch.setattr(Lane, "finish_oldest", finish_oldest)
        monkeypatch.setattr(Lane, "overdue", hangs)


@pytest.fixture
def flaky(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    global vart
    vart = importlib.import_module("vart")
    flaky = Flaky(monkeypatch)
    yield flaky
    flaky.released.set()


def _all_accounted_for(results: list[Result], count: int) -> None:
    assert [result.frame.index for result in results] == list(range(count))
    assert all(result.correct or result.error for result in results)


def test_a_job_that_fails_once_is_tried_again(classifier: Classifier, flaky: Flaky) -> None:
    # Far apart, so that a retried job does not meet the next failure.
    flaky.raising = {5, 20, 40}
    results, pipeline = _run(Synthetic(60), _lanes(classifier, 2))
    _all_accounted_for(results, 60)
    assert all(result.error is None for result in results)
    assert pipeline.retried == 3 and 1 <= pipeline.restarts <= 3


def test_a_runner_that_hangs_is_replaced(classifier: Classifier, flaky: Flaky) -> None:
    flaky.hanging = {7, 30}
    before = threading.active_count()
    results, pipeline = _run(Synthetic(100), _lanes(classifier, 2), time_limit=0.3)
    _all_accounted_for(results, 100)
    assert all(result.error is None for result in results)
    assert pipeline.hangs == 2 and pipeline.retried >= 2
    flaky.released.set()  # late results of the old threads must not appear twice
    assert soon(lambda: threading.active_count() == before)
    assert len(results) == 100


def test_a_runner_that_hangs_while_the_next_picture_waits_for_room(
    classifier: Classifier, flaky: Flaky
) -> None:
    flaky.hanging = {3}  # the next picture has no room until the runner answers
    source = Large(20, [60 << 20])
    results: list[Result] = []
    pipeline = source.pipeline = Pipeline(
        source, _lanes(classifier, 1, slots=3), results.append, time_limit=0.3
    )
    thread = threading.Thread(target=pipeline.run, daemon=True)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive(), "the run hangs"
    _all_accounted_for(results, 20)
    assert all(result.error is None for result in results) and pipeline.hangs == 1


def test_a_frame_that_fails_twice_is_reported(classifier: Classifier, flaky: Flaky) -> None:
    flaky.hanging = {4, 5}  # one lane, one slot: the retried frame is the next job
    results, pipeline = _run(Synthetic(20), _lanes(classifier, 1, slots=1), time_limit=0.2)
    _all_accounted_for(results, 20)
    (failed,) = [result for result in results if result.error]
    assert failed.frame.index == 4 and failed.error == "the runner did not answer within 0.2 s"
    assert pipeline.hangs == 2


def test_runners_that_only_fail_are_given_up(classifier: Classifier, flaky: Flaky) -> None:
    flaky.raising = range(10, 10_000)
    source = Synthetic(10_000)
    results, pipeline = _run(source, _lanes(classifier, 2))
    _all_accounted_for(results, len(results))
    assert sum(result.error is None for result in results) == 10
    assert len(results) < 100 and source.closed
    assert "DPU timeout" in str(pipeline.error)


def test_runners_that_cannot_be_replaced_are_abandoned(
    classifier: Classifier, flaky: Flaky
) -> None:
    lanes = _lanes(classifier, 2)
    flaky.raising, flaky.broken = range(3, 10_000), True
    results, pipeline = _run(Synthetic(10_000), lanes)
    _all_accounted_for(results, len(results))
    assert "no DPU core answers" in str(pipeline.error)
    assert pipeline.restarts <= 2 * FAILURES_IN_A_ROW


def test_a_lane_that_is_given_up_leaves_its_frame_to_one_that_waits(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other lane is as far ahead as allowed, and sleeps until an earlier frame is done."""
    good, bad = _lanes(classifier, 2)
    collect = bad._runner.collect_integers  # type: ignore[union-attr]

    def fail_late(slot: int) -> np.ndarray:
        collect(slot)
        assert soon(lambda: bool(pipeline._inbox._idle))  # the other lane sleeps
        raise RuntimeError("DPU timeout")

    def not_again() -> None:
        raise ModelError("no DPU core answers")

    monkeypatch.setattr(bad._runner, "collect_integers", fail_late)
    monkeypatch.setattr(bad, "make_runner", not_again)
    results: list[Result] = []
    pipeline = Pipeline(Synthetic(200), [bad, good], results.append)
    pipeline.run()
    _all_accounted_for(results, 200)
    assert all(result.error is None for result in results) and pipeline.error is None


def test_a_lane_that_is_given_up_leaves_its_picture_to_one_that_waits_for_its_room(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = _lanes(classifier, 2, slots=1)
    given_up: list[Lane] = []

    def fail_once(lane: Lane, collect: Callable[[int], np.ndarray], slot: int) -> np.ndarray:
        scores = collect(slot)
        if not given_up:  # the other lane has the next picture, and no room for it
            assert soon(lambda: bool(source.pipeline and source.pipeline._pixels._waiting))
            given_up.append(lane)
            raise RuntimeError("DPU timeout")
        return scores

    def not_again() -> None:
        raise ModelError("no DPU core answers")

    for lane in lanes:
        collect = lane._runner.collect_integers  # type: ignore[union-attr]
        monkeypatch.setattr(lane._runner, "collect_integers", partial(fail_once, lane, collect))
        monkeypatch.setattr(lane, "make_runner", not_again)
    source = Large(20, [60 << 20])
    results: list[Result] = []
    source.pipeline = Pipeline(source, lanes, results.append)
    thread = threading.Thread(target=source.pipeline.run, daemon=True)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive(), "the run hangs"
    _all_accounted_for(results, 20)
    assert all(result.error is None for result in results) and len(given_up) == 1


def test_a_run_that_ends_because_no_runner_is_left_says_so(
    classifier: Classifier, flaky: Flaky
) -> None:
    class Slow(Synthetic):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                time.sleep(0.01)  # the queue is empty when the last runner is given up
                yield frame

    flaky.raising = range(20, 10_000)
    results, pipeline = _run(Slow(200), _lanes(classifier, 2))
    _all_accounted_for(results, len(results))
    assert len(results) < 200 and "DPU timeout" in str(pipeline.error)


@pytest.mark.slow
@given(
    raising=st.sets(st.integers(0, 60), max_size=12),
    hanging=st.sets(st.integers(0, 60), max_size=3),
    lanes=st.integers(1, 3),
    slots=st.integers(1, 3),
    workers=st.integers(0, 2),
    pixels=st.sampled_from([64, 20 << 20, 60 << 20]),
    at_hand=st.booleans(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_frames_in_are_results_out_whatever_fails(
    classifier: Classifier,
    raising: set[int],
    hanging: set[int],
    lanes: int,
    slots: int,
    workers: int,
    pixels: int,
    at_hand: bool,
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        global vart
        vart = importlib.import_module("vart")
        flaky = Flaky(monkeypatch)
        flaky.raising, flaky.hanging = raising, hanging
        made = _lanes(classifier, lanes, slots)
        source = Encoded(50, broken=9, pixels=pixels, at_hand=at_hand)
        results, pipeline = _run(source, made, workers=workers, time_limit=0.15)
        flaky.released.set()
    assert [result.frame.index for result in results] == list(range(50))
    assert pipeline.error is None
    assert sum(bool(result.error) for result in results) <= 50 and len(results) == 50
