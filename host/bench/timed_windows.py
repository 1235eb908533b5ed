"""The measured windows: SingleStream and Offline, in one platform's process.

The names are MLPerf Inference's (Reddi et al. 2020); its other rules are not followed. What is
timed is the way from an image in memory (uint8, BGR) through preprocessing and network to the class
with the highest logit; within it the network alone.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from tutelage.core.results.percentiles import PERCENTS, percentile
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import Floats, Platform
from tutelage.host.bench.subject_files import Image

psutil: Any = import_module("psutil")  # it comes without types

LOGITS_BATCH = 32

Seconds = tuple[float, float]
"""Of the whole frame and of the network alone."""


class TimedWindows:
    """Runs a platform on the images, again and again in their order.

    Parameters
    ----------
    platform : prepared
    preprocess : for it
    pixels : the images
    """

    def __init__(
        self, platform: Platform, preprocess: FloatPreprocessor, pixels: Sequence[Image]
    ) -> None:
        self._platform, self._preprocess, self._pixels = platform, preprocess, pixels
        self._next = 0

    def logits(self) -> Floats:
        """The logits of every image, once; the last batch is filled up with the first images."""
        count, parts = len(self._pixels), []
        for start in range(0, count, LOGITS_BATCH):
            batch = [self._pixels[i % count] for i in range(start, start + LOGITS_BATCH)]
            parts.append(np.array(self._platform.run(self._preprocess(batch)), np.float32))
        return np.concatenate(parts)[:count]

    def single_stream(self, seconds: float) -> dict[str, Any]:
        """One image after the other: percentiles of latency, ms."""
        whole: list[float] = []
        network: list[float] = []
        with _watched() as window:
            end = time.monotonic() + seconds
            while not whole or time.monotonic() < end:
                one, alone = self._step(1)
                whole.append(one)
                network.append(alone)
        return {**window, "frames": len(whole), "latency_ms": _percentiles(whole),
                "network_latency_ms": _percentiles(network)}  # fmt: skip

    def offline(self, seconds: float, batch: int) -> dict[str, Any]:
        """Batches one after the other: frames per second, of the whole way and the network's."""
        frames, alone = 0, 0.0
        with _watched() as window:
            start = time.monotonic()
            while not frames or time.monotonic() < start + seconds:
                alone += self._step(batch)[1]
                frames += batch
            spent = time.monotonic() - start
        return {**window, "frames": frames, "batch": batch, "fps": frames / spent,
                "network_fps": frames / alone if alone > 0 else None}  # fmt: skip

    def _step(self, batch: int) -> Seconds:
        count, first = len(self._pixels), self._next
        images = [self._pixels[(first + i) % count] for i in range(batch)]
        self._next = (first + batch) % count
        start = time.perf_counter()
        x = self._preprocess(images)
        begun = time.perf_counter()
        logits = self._platform.run(x)
        done = time.perf_counter()
        logits.argmax(1)
        end = time.perf_counter()
        device = self._platform.device_seconds
        return end - start, done - begun if device is None else device


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    values = np.array(seconds) * 1e3
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTS}


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """When the window was (monotonic, s), and how many cores others had meanwhile, and the host.

    Python's collector would stop frames at random: it waits until the window is over.
    """
    window: dict[str, float] = {}
    gc.collect()
    gc.disable()
    used, others = time.process_time(), psutil.cpu_times()
    window["start_s"] = time.monotonic()
    try:
        yield window
    finally:
        window["end_s"] = time.monotonic()
        own, now = time.process_time() - used, psutil.cpu_times()
        gc.enable()
        seconds = window["end_s"] - window["start_s"]
        busy = _busy(now) - _busy(others)
        window["own_cores"] = own / seconds
        window["other_cores"] = max(0.0, busy - own) / seconds
        window["stolen_cores"] = (now.steal - others.steal) / seconds


def _busy(times: Any) -> float:
    """Seconds of all cores in which some process ran, interrupts included."""
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
