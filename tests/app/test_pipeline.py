from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.model import Classifier, load_classifier
from app.pipeline import STAGES, Lane, Pipeline, activate
from app.sources import Frame, Source, SourceError


class Synthetic(Source):
    """Uniform images whose class is index % 10; some broken, some that make the DPU fail."""

    def __init__(self, count: int, broken: int = 0, failing: int = 0) -> None:
        self.name, self.length = "synthetic", count
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
            yield Frame(index, str(index), image, folder=str(index % 10))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def classifier(fake_board: Path, fake_model: Path) -> Classifier:
    return load_classifier(fake_model)


def _lanes(classifier: Classifier, threads: int, slots: int = 2) -> list[Lane]:
    return [Lane(classifier, slots=slots) for _ in range(threads)]


@pytest.mark.parametrize("threads, slots", [(1, 1), (2, 2), (8, 3)])
def test_all_results_come_once_in_order_and_are_right(
    classifier: Classifier, threads: int, slots: int
) -> None:
    source = Synthetic(300)
    results = list(Pipeline(source, _lanes(classifier, threads, slots)))
    assert [result.frame.index for result in results] == list(range(300))
    assert all(result.correct for result in results)
    assert list(results[0].milliseconds) == list(STAGES)
    times = results[0].milliseconds
    assert 0 < sum(times[stage] for stage in STAGES[:-1]) <= times["total"]
    assert source.closed


def test_broken_frames_and_failed_jobs_keep_their_place(classifier: Classifier) -> None:
    results = list(Pipeline(Synthetic(200, broken=7, failing=5), _lanes(classifier, 4)))
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
    pipeline = iter(Pipeline(source, _lanes(classifier, 2)))
    next(pipeline)
    time.sleep(0.2)
    assert source.taken <= 1 + 2 * (2 + 2)
    pipeline.close()  # type: ignore[attr-defined]
    assert source.closed


def test_stop_finishes_what_is_under_way(classifier: Classifier) -> None:
    source = Synthetic(10_000)
    pipeline = Pipeline(source, _lanes(classifier, 2))
    results = []
    for result in pipeline:
        results.append(result)
        if len(results) == 20:
            pipeline.stop()
    assert [result.frame.index for result in results] == list(range(source.taken))
    assert 20 <= len(results) <= 30


def test_the_limit_counts_frames(classifier: Classifier) -> None:
    source = Synthetic(100)
    assert len(list(Pipeline(source, _lanes(classifier, 3), limit=17))) == 17
    assert source.taken == 17 and source.closed


def test_a_source_that_breaks_off_is_told_behind_its_frames(classifier: Classifier) -> None:
    class Breaking(Synthetic):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            raise SourceError("the cable is out")

    pipeline = Pipeline(Breaking(30), _lanes(classifier, 2))
    assert len(list(pipeline)) == 30
    assert str(pipeline.error) == "the cable is out"


def test_an_empty_source_ends(classifier: Classifier) -> None:
    pipeline = Pipeline(Synthetic(0), _lanes(classifier, 2))
    assert list(pipeline) == [] and pipeline.error is None


def test_no_thread_is_left(classifier: Classifier) -> None:
    before = threading.active_count()
    list(Pipeline(Synthetic(20), _lanes(classifier, 4)))
    assert threading.active_count() == before


def test_activations() -> None:
    scores = np.array([1000.0, 999.0, -1000.0], np.float32)
    np.testing.assert_allclose(activate(scores, "softmax"), [0.731059, 0.268941, 0], atol=1e-6)
    np.testing.assert_allclose(
        activate(scores / 1000, "sigmoid"), [0.731059, 0.730862, 0.268941], atol=1e-6
    )
    assert activate(scores, "none") is scores
