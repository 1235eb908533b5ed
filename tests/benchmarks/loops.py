"""The application and simple loops with the same runner, which benchmarks compare."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tutelage.app.classify import open_classifier
from tutelage.app.options import read_options
from tutelage.app.run import Run
from tutelage.core.images.input_form import InputForm
from tutelage.core.images.preprocessor import Preprocessor
from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.runtime import vart, xir

JOB_SECONDS = 5e-3
CORES = 2
SIDE = 64
CLASSES = 10
MEAN, SCALE = (104.0, 117.0, 123.0), 0.5
FORM = InputForm(SIDE, SIDE, "bgr", MEAN, (SCALE,))


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


def write_images(folder: Path, number: int, size: tuple[int, int]) -> None:
    """Write smooth images of a size (width, height)."""
    rng = np.random.default_rng(1)
    for index in range(number):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index:03d}.png"), cv2.resize(coarse, size))


def read_images(folder: Path) -> list[np.ndarray]:
    """Return the images of a folder, decoded."""
    return [np.asarray(cv2.imread(str(path))) for path in sorted(folder.iterdir())]


class FreeDpu:
    """Stand-in for `vart`: jobs take time on one of the cores, and nothing is computed.

    Parameters
    ----------
    seconds : duration of a job, s; with 0 it is done immediately
    """

    def __init__(self, seconds: float = JOB_SECONDS) -> None:
        self.Runner = self
        self._cores = [_FreeCore(seconds) for _ in range(CORES)]
        self._turn = count()

    def create_runner(self, subgraph: xir.Subgraph, _mode: str) -> _FreeRunner:
        """Return a runner on the next core in turn."""
        return _FreeRunner(subgraph, self._cores[next(self._turn) % CORES])


class _FreeCore:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._free = 0.0

    def run(self) -> None:
        if not self._seconds:
            return
        submitted = time.monotonic()
        with self._lock:
            end = max(submitted, self._free) + self._seconds
            time.sleep(max(0.0, end - time.monotonic()))
            self._free = end  # not the current time, since delays of sleeps would add up


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


@dataclass(frozen=True)
class Course:
    """A workload: images through a model on a DPU, for a time or a number of frames.

    Attributes
    ----------
    model, images : an .xmodel of `small_network`, and a folder
    seconds : duration, s
    dpu : stand-in for the module `vart`
    frames : number of frames; None for no limit
    """

    model: Path
    images: Path
    seconds: float
    dpu: Any = vart
    frames: int | None = None

    def app(self, threads: int = 2 * CORES) -> dict[str, float]:
        """Run the application like `--scenario offline --quiet`; return fps and CPU per frame."""
        options = read_options(
            ["--source", str(self.images), "--model", str(self.model), "--scenario", "offline",
             "--duration", str(self.seconds), "--quiet", "--mean", *map(str, MEAN),
             "--scale", *[str(SCALE)] * 3, "--threads", str(threads),
             *(["--frames", str(self.frames)] if self.frames else [])]
        )  # fmt: skip
        classifier = open_classifier(options)
        classifier = replace(classifier, network=replace(classifier.network, vart=self.dpu))
        with ExitStack() as stack:
            run = Run(options, classifier, stack, print)
            before = time.process_time()
            run.go()
            used = time.process_time() - before
        report = run.report()
        return {"fps": report["fps"], "cpu_us": 1e6 * used / report["frames"]["in"]}

    def loop(self, threads: int, same_pixels: bool = False) -> dict[str, float]:
        """Run the usual loop in separate threads; return fps and CPU per frame.

        Parameters
        ----------
        same_pixels : preprocess like the application, not like the examples
        """
        parts = xir.Graph.deserialize(str(self.model)).get_root_subgraph().toposort_child_subgraph()
        (subgraph,) = [part for part in parts if part.get_attr("device").upper() == "DPU"]
        runners = [self.dpu.Runner.create_runner(subgraph, "run") for _ in range(threads)]
        samples = read_images(self.images)
        counts = [0] * threads
        workers = [
            threading.Thread(target=self._work, args=(runner, samples, counts, number, same_pixels))
            for number, runner in enumerate(runners)
        ]
        before, started = time.process_time(), time.monotonic()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        used, took = time.process_time() - before, time.monotonic() - started
        return {"fps": sum(counts) / took, "cpu_us": 1e6 * used / sum(counts)}

    def _work(
        self, runner: Any, samples: list[np.ndarray], counts: list[int], number: int, same: bool
    ) -> None:
        end, frames = time.monotonic() + self.seconds, self.frames
        (tensor,), (out_tensor,) = runner.get_input_tensors(), runner.get_output_tensors()
        scale = 2.0 ** tensor.get_attr("fix_point")
        preprocess = Preprocessor(FORM, tensor.get_attr("fix_point"))
        batch = [np.empty(tensor.dims, np.int8)]
        output = [np.zeros(out_tensor.dims, np.int8)]
        while time.monotonic() < end and counts[number] != frames:
            image = samples[counts[number] % len(samples)]
            if same:
                preprocess(image, batch[0][0])
            else:
                image = (cv2.resize(image, (SIDE, SIDE)) - np.array(MEAN)) * (SCALE * scale)
                batch = [np.expand_dims(image.astype(np.int8), 0)]
            job = runner.execute_async(batch, output)
            runner.wait(job)
            np.argmax(output[0])
            counts[number] += 1
