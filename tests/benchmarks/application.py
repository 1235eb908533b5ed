"""What the application costs over the DPU itself: throughput, latency, CPU, start-up, memory.

The DPU is the emulation paced to two cores with 5 ms a job, in front of a network so small that
computing it hardly counts; and, as on a board the DPU computes without the CPU, a stand-in with the
same pace that computes nothing. The application is compared with loops of the kind that examples
for the board show: resize, take off the mean as float, make int8, execute_async, wait, argmax; and
with the same loops around the application's own preprocessing, which have its pixels. All are run
in turn within one process, round after round.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.benchmarks.extent import FULL, Extent
from tutelage.app.model import Classifier, load_classifier
from tutelage.app.options import read_options
from tutelage.app.pipeline.lane import Lane
from tutelage.app.pipeline.pipeline import Pipeline
from tutelage.app.pipeline.run_figures import RunFigures
from tutelage.app.run import Run
from tutelage.app.sources.frames import Frame, FrameSource
from tutelage.core.images.input_form import InputForm
from tutelage.core.images.preprocessor import Preprocessor
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.runtime import vart, xir
from tutelage.host.train.progress import Steps, stepped

JOB_SECONDS = 5e-3
CORES = 2
THREADS = 2 * CORES  # the application's default
BOUND_FPS = CORES / JOB_SECONDS
SIDE = 64
CLASSES = 10
MEAN, SCALE = (104.0, 117.0, 123.0), 0.5
FORM = InputForm(SIDE, SIDE, "bgr", MEAN, (SCALE,))
ROUNDS = 8
SECONDS = 1.0
CAMERA_SHARES = (0.97, 0.90)  # of the bound: rates of the camera whose latency is taken
SOAK_FRAMES = 200_000
_ROOT = Path(__file__).resolve().parent.parent.parent


def small_network(path: Path) -> None:
    """Write a classifier for 64x64 images with one strided convolution: little to compute."""
    rng = np.random.default_rng(0)
    model = CompiledModel("small")
    x = model.upload(model.input("image", (1, SIDE, SIDE, 3), 0))
    weights = rng.integers(-128, 128, (CLASSES, 8, 8, 3), dtype=np.int8)
    x = model.conv2d("features", x, weights, 9, None, 0, 0, stride=(16, 16), pad=[0, 0, 0, 0])
    x = model.avg_pool("pool", x, (4, 4), (4, 4), 0, [0, 0, 0, 0])
    model.output(model.reshape("logits", x, [1, CLASSES]))
    model.save(path)


def _images(folder: Path, count: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for index in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:03d}.png"), cv2.resize(coarse, size))


def _read(folder: Path) -> list[np.ndarray]:
    return [np.asarray(cv2.imread(str(path))) for path in sorted(folder.iterdir())]


class FreeDpu:
    """Stands for `vart`: jobs take their time on one of the cores, and nothing is computed."""

    def __init__(self) -> None:
        self.Runner = self
        self._cores = [_FreeCore() for _ in range(CORES)]
        self._turn = count()

    def create_runner(self, subgraph: xir.Subgraph, _mode: str) -> _FreeRunner:
        return _FreeRunner(subgraph, self._cores[next(self._turn) % CORES])


class _FreeCore:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0

    def run(self) -> None:
        submitted = time.monotonic()
        with self._lock:
            end = max(submitted, self._free) + JOB_SECONDS
            time.sleep(max(0.0, end - time.monotonic()))
            self._free = end  # not the time of now: a sleep ends late, and that would add up


class _FreeRunner:
    def __init__(self, subgraph: xir.Subgraph, core: _FreeCore) -> None:
        self._subgraph, self._core = subgraph, core

    def get_input_tensors(self) -> list[xir.Tensor]:
        return list(self._subgraph.get_input_tensors())

    def get_output_tensors(self) -> list[xir.Tensor]:
        return list(self._subgraph.get_output_tensors())

    def execute_async(self, _inputs: list[np.ndarray], _outputs: list[np.ndarray]) -> object:
        self._core.run()
        return 1, 0

    def wait(self, _job: object) -> int:
        return 0


def _app(model: Path, images: Path, seconds: float, dpu: Any = vart) -> dict[str, float]:
    """Run the application as `--scenario offline --quiet` would; return fps and CPU per frame."""
    arguments = ["--source", str(images), "--model", str(model), "--scenario", "offline"]
    options = read_options(
        [*arguments, "--duration", str(seconds), "--quiet", "--mean", *map(str, MEAN),
         "--scale", *[str(SCALE)] * 3]
    )  # fmt: skip
    from tutelage.app.classify import open_classifier

    classifier = open_classifier(options)
    classifier = replace(classifier, network=replace(classifier.network, vart=dpu))
    with ExitStack() as stack:
        run = Run(options, classifier, stack, print)
        before = time.process_time()
        run.go()
        used = time.process_time() - before
    report = run.report()
    return {"fps": report["fps"], "cpu_us": 1e6 * used / report["frames"]["in"]}


def _dpu_subgraph(model: Path) -> xir.Subgraph:
    parts = xir.Graph.deserialize(str(model)).get_root_subgraph().toposort_child_subgraph()
    (subgraph,) = [part for part in parts if part.get_attr("device").upper() == "DPU"]
    return subgraph


def _plain(
    model: Path,
    images: Path,
    seconds: float,
    threads: int,
    dpu: Any = vart,
    same_pixels: bool = False,
) -> dict[str, float]:
    """Run the usual loop in threads of its own; return fps and CPU per frame.

    Parameters
    ----------
    same_pixels : preprocess as the application does, not as the examples do
    """
    subgraph = _dpu_subgraph(model)
    runners = [dpu.Runner.create_runner(subgraph, "run") for _ in range(threads)]
    samples = _read(images)
    end = time.monotonic() + seconds
    counts = [0] * threads

    def loop(number: int) -> None:
        runner = runners[number]
        (tensor,), (out_tensor,) = runner.get_input_tensors(), runner.get_output_tensors()
        scale = 2.0 ** tensor.get_attr("fix_point")
        preprocess = Preprocessor(FORM, tensor.get_attr("fix_point"))
        batch = [np.empty(tensor.dims, np.int8)]
        output = [np.empty(out_tensor.dims, np.int8)]
        while time.monotonic() < end:
            image = samples[counts[number] % len(samples)]
            if same_pixels:
                preprocess(image, batch[0][0])
            else:
                image = (cv2.resize(image, (SIDE, SIDE)) - np.array(MEAN)) * (SCALE * scale)
                batch = [np.expand_dims(image.astype(np.int8), 0)]
            job = runner.execute_async(batch, output)
            runner.wait(job)
            np.argmax(output[0])
            counts[number] += 1

    before, started = time.process_time(), time.monotonic()
    workers = [threading.Thread(target=loop, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    used, took = time.process_time() - before, time.monotonic() - started
    return {"fps": sum(counts) / took, "cpu_us": 1e6 * used / sum(counts)}


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
    """Latency over the pace with a camera at a share of what the DPU can take."""
    classifier: Classifier = load_classifier(model)
    lanes = [Lane(classifier) for _ in range(THREADS)]
    for lane in lanes:
        lane.warm_up()
    fps = share * BOUND_FPS
    samples = _read(images)
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
            _images(images, 32, size)
            found[images.name] = _compare(model, images, extent)
    return found


def _compare(model: Path, images: Path, extent: Extent) -> dict[str, Any]:
    rounds, seconds = min(ROUNDS, extent.repeats), min(SECONDS, extent.seconds)
    place = model, images, seconds
    rows: dict[str, list[dict[str, float]]] = {}
    free: dict[str, list[dict[str, float]]] = {}
    vart.set_pace(lambda subgraph: JOB_SECONDS)
    try:
        for _ in stepped(f"application, {images.name}", range(rounds)):
            for found, dpu in ((rows, vart), (free, FreeDpu())):
                found.setdefault("app", []).append(_app(*place, dpu))
                for same, threads in ((False, 1), (False, 2), (False, 4), (True, 2), (True, 4)):
                    name = f"plain_loop_{'same_pixels_' * same}{threads}_threads"
                    found.setdefault(name, []).append(_plain(*place, threads, dpu, same))
            for share in CAMERA_SHARES:
                rows.setdefault(f"camera_{share:.2f}", []).append(_camera_run(*place, share))
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
    """Return the application's CPU per frame over each loop's, and over the cheapest one's."""
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
    """Return seconds from the start of the program to its end with one image, files cached."""
    image = next((_ROOT / "app" / "demo" / "images").rglob("*.png"))
    command = [sys.executable, str(_ROOT / "app" / "classify.py"), "--source", str(image)]
    times = []
    for _ in stepped("start-up", range(min(ROUNDS, extent.repeats) + 1)):
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.monotonic() - started)
    return {"start_to_result_s": round(statistics.median(times[1:]), 3)}


def soak(frames: int = SOAK_FRAMES) -> dict[str, float]:
    """Run many frames unpaced, with all that grows by frames; return the growth of memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_network(folder / "small.xmodel")
        images = folder / "images"
        images.mkdir()
        _images(images, 32, (SIDE, SIDE))
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
