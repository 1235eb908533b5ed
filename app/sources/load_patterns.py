"""Load patterns of MLPerf Inference, by its names, on frames in memory.

single-stream: the next frame is issued when the result of the one before it is there; judged
by the 90th percentile of latency. offline: all frames are there at once; judged by frames per
second. server: frames arrive at random (Poisson) at a given rate, and latency counts from the
arrival, waiting included; judged by whether the 99th percentile keeps within a bound.

The patterns and percentiles are MLPerf's (Reddi et al. 2020, "MLPerf Inference Benchmark",
table 2); the rest of its rules (LoadGen, run lengths, data sets) is not followed, so a figure
from here is comparable in kind and is not an MLPerf result.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame, FrameSource, SourceError
from tutelage.core.errors import first_line
from tutelage.core.images.image_files import broken_line

LOAD_PATTERNS = ("single-stream", "offline", "server")
_SAMPLE_BYTES = 256 << 20  # of images that are kept in memory at most
_LOOK_SECONDS = 0.2
_SPIN_SECONDS = 2e-3  # before a frame is due: sleeping longer than that wakes too late


@dataclass(frozen=True)
class LoadPattern:
    """A load pattern.

    Attributes
    ----------
    scenario : its name, one of LOAD_PATTERNS
    seconds : for which frames are issued
    frames : issue no more than this, None for as many as there is time for
    qps : mean arrivals per second, of "server"
    bound_ms : latency that 99 % must keep, of "server"; None where it is not judged
    seed : of the arrival times
    """

    scenario: str
    seconds: float = 10.0
    frames: int | None = None
    qps: float = 0.0
    bound_ms: float | None = None
    seed: int = 0


class LoadPatternSource(FrameSource):
    """Issues frames again and again, in a load pattern.

    `add` must be called with every result: single-stream waits for it.

    Parameters
    ----------
    name : of the source that the frames came from
    samples : the frames, of `decoded_frames`
    load : the pattern
    """

    shares_images = True

    def __init__(self, name: str, samples: list[Frame], load: LoadPattern) -> None:
        self.name = name
        self.at_hand = load.scenario == "offline"  # the others wait
        self._load = load
        self._samples = samples
        self._results: SimpleQueue[None] = SimpleQueue()
        self._stop = threading.Event()
        self._issued = 0

    def __iter__(self) -> Iterator[Frame]:
        waits = {
            "single-stream": self._single_stream,
            "offline": self._offline,
            "server": self._server,
        }
        end = time.monotonic() + self._load.seconds
        count = len(self._samples)
        for due in waits[self._load.scenario]():
            if self._stop.is_set() or (due or time.monotonic()) >= end:
                return
            if self._issued == self._load.frames:
                return
            sample = self._samples[self._issued % count]
            yield Frame(self._issued, sample.name, sample.image, sample.folders, due=due)
            self._issued += 1

    def _single_stream(self) -> Iterator[float | None]:
        yield time.monotonic()
        while not self._stop.is_set():
            try:
                self._results.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            yield time.monotonic()  # from here its latency counts, not from the one before

    def _offline(self) -> Iterator[float | None]:
        while True:
            yield None

    def _server(self) -> Iterator[float | None]:
        chance = random.Random(self._load.seed)
        due = time.monotonic()
        while not self._stop.is_set():
            due += chance.expovariate(self._load.qps)
            while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
                time.sleep(min(_LOOK_SECONDS, max(left - _SPIN_SECONDS, left / 2)))
            yield due

    def add(self, result: Result) -> None:
        """Take note of a result."""
        if self._load.scenario == "single-stream":
            self._results.put(None)

    def report(self) -> dict[str, Any]:
        """Return the number of samples that were issued in turn."""
        return {"samples": len(self._samples), "issued": self._issued}

    def close(self) -> None:
        self._stop.set()


def decoded_frames(source: FrameSource) -> tuple[list[Frame], str]:
    """Return the source's frames with their images, as many as there is memory for.

    Returns
    -------
    The frames, and a line about those that are broken and left out, "" for none

    Raises
    ------
    SourceError
        None of them is an image; the source is live.
    """
    if source.live:
        raise SourceError(
            f"{source.name}: a load pattern issues frames itself; give files, no camera"
        )
    frames: list[Frame] = []
    broken, size = [], 0
    for frame in source:
        try:
            if frame.decode is not None:
                frame.image = frame.decode()
        except ValueError as error:
            frame.error = first_line(error)
        frame.decode = None
        if frame.image is None:
            broken.append(f"{frame.name}: {frame.error or 'no image'}")
            continue
        frames.append(frame)
        size += frame.image.nbytes
        if size >= _SAMPLE_BYTES:
            break
    source.close()
    line = broken_line(broken)
    if not frames:
        reasons = f"; {line}" if line else ""
        raise SourceError(f"{source.name}: has no image that can be decoded{reasons}")
    return frames, f"{source.name}: {line}" if line else ""


def verdict(load: LoadPattern, report: dict[str, Any]) -> dict[str, Any]:
    """Return what a load pattern is judged by, from the figures of its run.

    Parameters
    ----------
    load : the pattern
    report : of `tutelage.app.pipeline.run_figures.RunFigures`

    Returns
    -------
    scenario, metric and value; of "server" also qps, bound_ms and whether it was kept
    """
    total = report["latency_ms"].get("total", {})
    found: dict[str, Any] = {"name": load.scenario, "seconds": load.seconds}
    if load.scenario == "single-stream":
        return {**found, "metric": "p90 latency, ms", "value": total.get("p90")}
    if load.scenario == "offline":
        return {**found, "metric": "frames per second", "value": report["fps"]}
    p99 = total.get("p99")
    kept = None if load.bound_ms is None or p99 is None else p99 <= load.bound_ms
    return {
        **found,
        "metric": "p99 latency, ms",
        "value": p99,
        "qps": load.qps,
        "bound_ms": load.bound_ms,
        "bound_kept": kept,
    }
