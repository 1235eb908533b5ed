"""Overhead of the application over the DPU: throughput, latency, CPU, start-up, memory.

The DPU is the emulation paced to two cores with 5 ms per job, with a network so small that its
computation is negligible; and, since a board's DPU computes without the CPU, a stand-in with the
same pace that computes nothing. The application is compared with loops like those in examples
for the board: resize, subtract the mean as float, convert to int8, execute_async, wait, argmax; and
with the same loops around the application's own preprocessing, which gives equal pixels. All run
in turn in one process, round after round.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.extent import FULL, Extent
from tests.benchmarks.loops import (
    CORES,
    JOB_SECONDS,
    SIDE,
    Course,
    FreeDpu,
    read_images,
    small_network,
    write_images,
)
from tutelage.app.model import Classifier, load_classifier
from tutelage.app.pipeline.lane import Lane
from tutelage.app.pipeline.pipeline import Pipeline
from tutelage.app.pipeline.run_figures import RunFigures
from tutelage.app.sources.frames import Frame, FrameSource
from tutelage.dpu.runtime import vart
from tutelage.host.train.progress import Steps, stepped

THREADS = 2 * CORES  # the application's default
BOUND_FPS = CORES / JOB_SECONDS
ROUNDS = 8
SECONDS = 1.0
CAMERA_SHARES = (0.97, 0.90)  # of the maximum: rates of the camera at which latency is measured
SOAK_FRAMES = 200_000
_ROOT = Path(__file__).resolve().parent.parent.parent


class SteadyCamera(FrameSource):
    """A live source with the same images at a fixed rate, on an absolute schedule."""

    live = True

    def __init__(self, images: list[np.ndarray], fps: float, count: int) -> None:
        self.name, self.fps = "steady camera", fps
        self._images, self._count = images, count

    def __iter__(self) -> Iterator[Frame]:
        begin = time.monotonic()
        for index in range(self._count):
            wait = begin + index / (self.fps or 1.0) - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            yield Frame(index, str(index), self._images[index % len(self._images)])


def _camera_run(model: Path, images: Path, seconds: float, share: float) -> dict[str, float]:
    """Latency over the pace with a camera at a share of the DPU's rate."""
    classifier: Classifier = load_classifier(model)
    lanes = [Lane(classifier) for _ in range(THREADS)]
    for lane in lanes:
        lane.warm_up()
    fps = share * BOUND_FPS
    samples = read_images(images)
    figures = RunFigures()
    pipeline = Pipeline(
        SteadyCamera(samples, fps, int(seconds * fps)), lanes, figures.add, cores=CORES
    )
    gc.freeze()  # as the application does
    pipeline.run()
    gc.unfreeze()
    report = figures.report()
    total = report["latency_ms"]["total"]
    over = {f"{key}_over_ms": total[key] - 1e3 * JOB_SECONDS for key in ("p50", "p99", "max")}
    return {**over, "fps": report["fps"], "dropped": pipeline.dropped}


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}


def compare(extent: Extent) -> dict[str, Any]:
    """Return throughput, CPU per frame and latency over the pace, for both image sizes."""
    found: dict[str, Any] = {"bound_fps": BOUND_FPS}
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "small.xmodel"
        small_network(model)
        for size in ((SIDE, SIDE), (640, 480)):
            images = Path(name) / f"{size[0]}x{size[1]}"
            images.mkdir()
            write_images(images, 32, size)
            found[images.name] = _compare(model, images, extent)
    return found


def _compare(model: Path, images: Path, extent: Extent) -> dict[str, Any]:
    rounds, seconds = min(ROUNDS, extent.repeats), min(SECONDS, extent.seconds)
    emulation = Course(model, images, seconds)
    free_dpu = replace(emulation, dpu=FreeDpu())
    rows: dict[str, list[dict[str, float]]] = {}
    free: dict[str, list[dict[str, float]]] = {}
    vart.set_pace(lambda subgraph: JOB_SECONDS)
    try:
        for _ in stepped(f"application, {images.name}", range(rounds)):
            for found, course in ((rows, emulation), (free, free_dpu)):
                found.setdefault("app", []).append(course.app())
                for same, threads in ((False, 1), (False, 2), (False, 4), (True, 2), (True, 4)):
                    name = f"plain_loop_{'same_pixels_' * same}{threads}_threads"
                    found.setdefault(name, []).append(course.loop(threads, same))
            for share in CAMERA_SHARES:
                rows.setdefault(f"camera_{share:.2f}", []).append(
                    _camera_run(model, images, seconds, share)
                )
    finally:
        vart.set_pace(None)
    medians = {name: _medians(each) for name, each in rows.items()}
    return {
        **medians,
        "share_of_bound": round(medians["app"]["fps"] / BOUND_FPS, 4),
        **_ratios(rows),
        "dpu_that_needs_no_cpu": {
            **{name: _medians(each) for name, each in free.items()}, **_ratios(free)
        },
    }  # fmt: skip


def _ratios(rows: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Return the application's CPU per frame relative to each loop and to the cheapest loop."""
    found = {}
    for kind in ("plain_loop_same_pixels_", "plain_loop_"):
        loops = [name for name in rows if name.startswith(kind) and name[len(kind)].isdigit()]
        cheapest = min(loops, key=lambda name: _medians(rows[name])["cpu_us"])
        for key, name in (*((name, name) for name in loops), (f"best_{kind[:-1]}", cheapest)):
            pairs = zip(rows["app"], rows[name], strict=True)
            ratio = statistics.median(app["cpu_us"] / loop["cpu_us"] for app, loop in pairs)
            found[f"cpu_ratio_to_{key}"] = round(ratio, 3)
    return found


def start_up(extent: Extent) -> dict[str, float]:
    """Return the seconds of a whole run of the program with one image, with cached files."""
    image = next((_ROOT / "app" / "demo" / "images").rglob("*.png"))
    command = [sys.executable, str(_ROOT / "app" / "classify.py"), "--source", str(image)]
    times = []
    for _ in stepped("start-up", range(min(ROUNDS, extent.repeats) + 1)):
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - started)
    return {"start_to_result_s": round(statistics.median(times[1:]), 3)}


def soak(frames: int = SOAK_FRAMES) -> dict[str, float]:
    """Run many frames unpaced, with all outputs; return the growth of memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_network(folder / "small.xmodel")
        images = folder / "images"
        images.mkdir()
        write_images(images, 32, (SIDE, SIDE))
        command = [sys.executable, "-m", "tests.benchmarks.soak", str(folder), str(frames)]
        with Steps(1) as steps:
            steps.begin(f"{frames:,} frames")
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def report(extent: Extent = FULL) -> dict[str, Any]:
    """Return all figures of the application."""
    frames = min(SOAK_FRAMES, extent.frames)
    return {**compare(extent), **start_up(extent), "soak": soak(frames)}


if __name__ == "__main__":
    print(json.dumps(report(), indent=2))
