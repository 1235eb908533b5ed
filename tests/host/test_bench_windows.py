"""Processes of platforms: who preprocesses which batch and when, and facts about GPUs."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tutelage.core.images.input_form import InputForm
from tutelage.core.results.bench_json import GPU
from tutelage.host.bench import on_onnxruntime, worker
from tutelage.host.bench.batches import faster, prepared_batches
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import CATALOGUE, Floats, Platform
from tutelage.host.bench.timed_windows import TimedWindows

FORM = InputForm(4, 4, "bgr", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "center")
IMAGES = [np.full((4, 4, 3), number, np.uint8) for number in range(6)]


def _preprocessors(count: int, channels_last: bool = True) -> list[FloatPreprocessor]:
    return [FloatPreprocessor(FORM, channels_last) for _ in range(count)]


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("buffers", [1, 2])
def test_all_images_are_in_their_batch(buffers: int, threads: int, channels_last: bool) -> None:
    preprocessors = _preprocessors(threads, channels_last)
    memory = [preprocessors[0].empty(3) for _ in range(buffers)]
    order = itertools.cycle([IMAGES[:3], IMAGES[3:]])
    with closing(prepared_batches(preprocessors, lambda: next(order), memory)) as batches:
        for wanted in (IMAGES[:3], IMAGES[3:], IMAGES[:3]):
            assert np.array_equal(next(batches), _preprocessors(1, channels_last)[0](wanted))


class _Recorded(Platform):
    """A platform that records its calls; each waits for what must have happened until then."""

    channels_last = True

    def __init__(self, overlaps: bool, calls: list[str], prepared: threading.Semaphore) -> None:
        self.overlaps = overlaps
        self._calls, self._prepared = calls, prepared

    def prepare(self, folder: Path, threads: int) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}

    def run(self, images: Floats) -> Floats:
        self._calls.append("run begins")
        assert self._prepared.acquire(timeout=60), "the batch is not prepared"
        if self.overlaps:  # returns only if the next batch is prepared meanwhile
            assert self._prepared.acquire(timeout=60), "nothing is prepared meanwhile"
            self._prepared.release()
        self._calls.append("run ends")
        return images.reshape(len(images), -1)


class _Recording(FloatPreprocessor):
    """A preprocessor that records its calls."""

    def __init__(self, calls: list[str], prepared: threading.Semaphore) -> None:
        super().__init__(FORM, channels_last=True)
        self._calls, self._prepared = calls, prepared
        self.threads: set[str] = set()

    def fill(self, images: Sequence[Any], batch: Floats) -> None:
        self.threads.add(threading.current_thread().name)
        super().fill(images, batch)
        self._calls.append("prepared")
        self._prepared.release()


@pytest.mark.parametrize("overlaps", [False, True])
def test_a_gpu_runs_a_batch_while_the_next_one_is_prepared(overlaps: bool) -> None:
    calls: list[str] = []
    prepared = threading.Semaphore(0)
    platform = _Recorded(overlaps, calls, prepared)
    windows = TimedWindows(platform, [_Recording(calls, prepared)], IMAGES)
    while prepared.acquire(blocking=False):
        pass  # of the trial of threads
    calls.clear()
    found = windows.offline(0.0, 2)
    assert found["frames"] == 2 and found["preprocessing_threads"] == 1
    if overlaps:
        assert calls.count("prepared") == 2
        assert calls.index("run ends") > max(i for i, c in enumerate(calls) if c == "prepared")
    else:
        assert calls == ["prepared", "run begins", "run ends"]


def test_offline_uses_every_thread_and_single_stream_one() -> None:
    calls: list[str] = []
    prepared = threading.Semaphore(0)
    each = [_Recording(calls, prepared) for _ in range(3)]
    windows = TimedWindows(_Recorded(False, calls, threading.Semaphore(9)), each, IMAGES)
    windows._preprocessors = each  # whichever was faster here
    for one in each:
        one.threads.clear()
    assert windows.offline(0.0, 4)["preprocessing_threads"] == 3
    assert all(one.threads for one in each) and len(set.union(*(o.threads for o in each))) > 1
    for one in each:
        one.threads.clear()
    windows.single_stream(0.0)
    assert each[0].threads and not each[1].threads and not each[2].threads


@pytest.mark.parametrize(("one", "all_three", "wanted"), [(1, 2, 1), (2, 1, 3), (1, 1, 1)])
def test_the_faster_number_of_threads_is_used(one: int, all_three: int, wanted: int) -> None:
    """Each candidate's rounds are timed in a row; the clock reads begin and end of each."""
    steps = iter([0, one] * 3 + [0, all_three] * 3)
    assert len(faster(_preprocessors(3), IMAGES, lambda: next(steps))) == wanted
    assert next(steps, None) is None


def test_gpus_say_whether_the_network_alone_includes_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, entry in CATALOGUE.items():
        said = entry.make().concern
        if entry.family != GPU:
            assert not said
        elif name.startswith("cuda"):
            assert "without the copies" in said
        else:
            assert "with the copies" in said
    platform = _Recorded(False, [], threading.Semaphore(9))
    platform.concern = "a difference"
    monkeypatch.setattr(worker, "entry", lambda _: SimpleNamespace(make=lambda: platform))
    monkeypatch.setattr(worker, "read_form", lambda _: FORM)
    monkeypatch.setattr(worker, "read_images", lambda _: SimpleNamespace(pixels=IMAGES))
    answer = worker.Worker("any", tmp_path, 2).answer({"do": "prepare"})
    assert answer == {"threads": 2, "concern": "a difference"}


_DRIVER = """
#include <stdlib.h>
#include <string.h>
static int known(void) { return getenv("CUDA_VISIBLE_DEVICES") && *getenv("CUDA_VISIBLE_DEVICES"); }
int cuInit(unsigned flags) { return known() ? 0 : 100; }
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal + atoi(getenv("CUDA_VISIBLE_DEVICES"));
    return 0;
}
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 1 ? "card 1" : "another", length);
    return 0;
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_the_name_of_a_gpu_is_that_of_the_visible_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA's driver in the test: it numbers the devices that CUDA_VISIBLE_DEVICES selects."""
    monkeypatch.setattr(on_onnxruntime, "_CUDA", str(tmp_path / "libcuda.so"))
    assert "libcuda.so: cannot open" in on_onnxruntime.gpu_name()
    (tmp_path / "cuda.c").write_text(_DRIVER)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so", tmp_path / "cuda.c"], check=True
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert on_onnxruntime.gpu_name() == "card 1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert on_onnxruntime.gpu_name() == "GPU 0 (CUDA error 100)"
