"""Measured windows, SingleStream and Offline, in the process of a platform.

The names are MLPerf Inference's (Reddi et al. 2020); its other rules are not followed. The timed
work is preprocessing, network and top-1 of an image in memory (uint8, BGR), and within it the
network alone. In Offline, several threads preprocess a batch, see `tutelage.host.bench.batches`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from tutelage.core.results.percentiles import PERCENTS, percentile
from tutelage.host.bench.batches import faster, prepared_batches
from tutelage.host.bench.float_preprocessor import FloatPreprocessor
from tutelage.host.bench.platform import Floats, Platform
from tutelage.host.bench.subject_files import Image

psutil: Any = import_module("psutil")  # has no type hints

LOGITS_BATCH = 32

Seconds = tuple[float, float]
"""Times of the whole frame and of the network alone, s."""


class TimedWindows:
    """Timed runs of a platform on the images, repeated in their order.

    Parameters
    ----------
    platform : a prepared platform
    preprocessors : its preprocessing, one for each thread
    pixels : the images, uint8 (H, W, 3), BGR
    """

    def __init__(
        self,
        platform: Platform,
        preprocessors: Sequence[FloatPreprocessor],
        pixels: Sequence[Image],
    ) -> None:
        self._platform, self._preprocess, self._pixels = platform, preprocessors[0], pixels
        self._next = 0
        self._buffers: dict[int, list[Floats]] = {}
        self._preprocessors = faster(preprocessors, self._take(LOGITS_BATCH))

    def logits(self) -> Floats:
        """Return the logits of every image, (N, classes); the first ones fill up the last batch."""
        count, parts = len(self._pixels), []
        for start in range(0, count, LOGITS_BATCH):
            batch = [self._pixels[i % count] for i in range(start, start + LOGITS_BATCH)]
            parts.append(np.array(self._platform.run(self._preprocess(batch)), np.float32))
        return np.concatenate(parts)[:count]

    def single_stream(self, seconds: float) -> dict[str, Any]:
        """Run one image at a time; return percentiles of latency, ms.

        Parameters
        ----------
        seconds : length of the window
        """
        whole: list[float] = []
        network: list[float] = []
        with _watched() as window:
            end = time.monotonic() + seconds
            while not whole or time.monotonic() < end:
                one, alone = self._step()
                whole.append(one)
                network.append(alone)
        return {**window, "frames": len(whole), "latency_ms": _percentiles(whole),
                "network_latency_ms": _percentiles(network)}  # fmt: skip

    def offline(self, seconds: float, batch: int) -> dict[str, Any]:
        """Run one batch at a time; return frames per second, of whole frames and of the network.

        Parameters
        ----------
        seconds : length of the window
        batch : number of images of a batch
        """
        if batch not in self._buffers:
            count = 2 if self._platform.overlaps else 1
            self._buffers[batch] = [self._preprocess.empty(batch) for _ in range(count)]
        frames, alone = 0, 0.0
        take, buffers = partial(self._take, batch), self._buffers[batch]
        prepared = prepared_batches(self._preprocessors, take, buffers)
        with closing(prepared) as batches, _watched() as window:
            start = time.monotonic()
            while not frames or time.monotonic() < start + seconds:
                alone += self._run(next(batches))
                frames += batch
            spent = time.monotonic() - start
        return {**window, "frames": frames, "batch": batch, "fps": frames / spent,
                "network_fps": frames / alone if alone > 0 else None,
                "preprocessing_threads": len(self._preprocessors)}  # fmt: skip

    def _take(self, batch: int) -> list[Image]:
        """Return the next images."""
        count, first = len(self._pixels), self._next
        self._next = (first + batch) % count
        return [self._pixels[(first + i) % count] for i in range(batch)]

    def _step(self) -> Seconds:
        images = self._take(1)
        start = time.perf_counter()
        alone = self._run(self._preprocess(images))
        return time.perf_counter() - start, alone

    def _run(self, x: Floats) -> float:
        """Run network and top-1; return the time of the network alone, s."""
        begun = time.perf_counter()
        logits = self._platform.run(x)
        done = time.perf_counter()
        logits.argmax(1)
        device = self._platform.device_seconds
        return done - begun if device is None else device


def _percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    values = np.array(seconds) * 1e3
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTS}


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Record start and end of a window (monotonic, s), and the cores that others used meanwhile.

    Python's garbage collector, which would interrupt frames at random, is off until the window
    ends.
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
    """Return the time in which the cores were busy, interrupts included, s summed over cores."""
    return float(times.user + times.nice + times.system + times.irq + times.softirq)
