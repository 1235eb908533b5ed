"""MLPerf Inference's load patterns, on frames in memory.

single-stream issues the next frame when the previous result is available; its metric is the 90th
percentile of latency. offline has all frames available at once; its metric is frames per second.
server issues frames at random (Poisson) at a given rate; its metric is whether the 99th percentile
of latency, which starts at the arrival and includes waiting, is within a bound.

The patterns and percentiles are MLPerf's (Reddi et al. 2020, "MLPerf Inference Benchmark",
table 2). The other rules (LoadGen, run lengths, data sets) are not followed, so figures are of the
same kind but are not MLPerf results.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from queue import Empty, SimpleQueue
from typing import Any

from tutelage.app.pipeline.result import Result
from tutelage.app.sources.frames import Frame, FrameSource, SourceError
from tutelage.core.errors import first_line
from tutelage.core.images.image_files import broken_line

LOAD_PATTERNS = ("single-stream", "offline", "server")
_SAMPLE_BYTES = 256 << 20  # of images kept in memory
_LOOK_SECONDS = 0.2
_SPIN_SECONDS = 2e-3  # before a frame is due, sleep in short steps: a long one would end late


@dataclass(frozen=True)
class LoadPattern:
    """A load pattern.

    Attributes
    ----------
    scenario : one of LOAD_PATTERNS
    seconds : time in which frames are issued, s
    frames : largest number of frames; None for as many as time allows
    qps : mean arrivals per second of "server"
    bound_ms : bound on the 99th percentile of latency of "server", ms; None for no bound
    seed : seed of the arrival times
    """

    scenario: str
    seconds: float = 10.0
    frames: int | None = None
    qps: float = 0.0
    bound_ms: float | None = None
    seed: int = 0


class LoadPatternSource(FrameSource):
    """Source that issues a list of frames repeatedly, in a load pattern.

    `add` must be called with every result, since single-stream waits for it.

    Parameters
    ----------
    name : name of the source that the frames came from
    samples : the frames, from `decoded_frames`
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
        self._began = math.inf  # monotonic time, s, at which "server" began

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
            yield time.monotonic()  # latency starts here, not at the previous frame

    def _offline(self) -> Iterator[float | None]:
        while True:
            yield None

    def _server(self) -> Iterator[float | None]:
        self._began = time.monotonic()
        for due in self._arrival_times():
            while (left := due - time.monotonic()) > 0 and not self._stop.is_set():
                time.sleep(min(_LOOK_SECONDS, max(left - _SPIN_SECONDS, left / 2)))
            yield due

    def _arrival_times(self) -> Iterator[float]:
        """Yield the arrival times of "server" (Poisson), monotonic time, s, without end."""
        chance, due = random.Random(self._load.seed), self._began
        while True:
            due += chance.expovariate(self._load.qps)
            yield due

    def arrivals(self, start: float, end: float) -> range:
        """Return the indices of the frames of "server" that arrive in a window.

        They count even if the pipeline had no room, so that they were never issued.

        Parameters
        ----------
        start, end : the window, monotonic time, s
        """
        before = count = 0
        for due in takewhile(lambda due: due < end, self._arrival_times()):
            before += due < start
            count += 1
        return range(before, count)

    def add(self, result: Result) -> None:
        """Receive a result, after which single-stream issues the next frame."""
        if self._load.scenario == "single-stream":
            self._results.put(None)

    def report(self) -> dict[str, Any]:
        """Return the numbers of samples and of frames issued."""
        return {"samples": len(self._samples), "issued": self._issued}

    def close(self) -> None:
        self._stop.set()


def decoded_frames(source: FrameSource) -> tuple[list[Frame], str]:
    """Decode the source's frames, up to 256 MiB of images.

    Returns
    -------
    The frames, and a line about broken ones that are left out, "" without any

    Raises
    ------
    SourceError
        None of the frames can be decoded, or the source is live.
    """
    if source.live:
        raise SourceError(f"{source.name}: a load pattern needs files, not a camera or stream")
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
        raise SourceError(f"{source.name}: no image can be decoded{reasons}")
    return frames, f"{source.name}: {line}" if line else ""


def verdict(load: LoadPattern, report: dict[str, Any]) -> dict[str, Any]:
    """Return the metric of a load pattern, from the figures of its run.

    Parameters
    ----------
    load : the pattern
    report : result of `tutelage.app.pipeline.run_figures.RunFigures.report`

    Returns
    -------
    name, seconds, metric and value; for "server" also qps, bound_ms and bound_kept, which is false
    too if more than 1 % of the frames failed, and None without a bound or without frames
    """
    total = report["latency_ms"].get("total", {})
    found: dict[str, Any] = {"name": load.scenario, "seconds": load.seconds}
    if load.scenario == "single-stream":
        return {**found, "metric": "p90 latency, ms", "value": total.get("p90")}
    if load.scenario == "offline":
        return {**found, "metric": "frames per second", "value": report["fps"]}
    p99, frames = total.get("p99"), report["frames"]
    kept = None
    if load.bound_ms is not None and frames["in"]:
        # A frame without a result has no latency, so those that failed count as too late.
        late = frames["failed"] > 0.01 * frames["in"]
        kept = not late and p99 is not None and p99 <= load.bound_ms
    return {
        **found,
        "metric": "p99 latency, ms",
        "value": p99,
        "qps": load.qps,
        "bound_ms": load.bound_ms,
        "bound_kept": kept,
    }
