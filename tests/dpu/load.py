"""The emulation under load, as a program: `python -m tests.dpu.load JOBS [SEED]`.

Many threads share a few runners of two networks, which are created and destroyed meanwhile. Each
starts jobs of random sizes and types, has several in flight (if the device is asynchronous), waits
for them in any order, passes wrong buffers and job ids, and abandons jobs and their buffers. Every
output is compared with the reference engine's. Prints JSON; ends with status 1 and all stacks if
nothing proceeds.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tutelage.dpu.compiler.builder import CompiledModel
from tutelage.dpu.engine.reference import load_engine
from tutelage.dpu.runtime import vart, xir

RUNNERS, THREADS, IN_FLIGHT, LARGEST_BATCH, IMAGES = 8, 32, 12, 9, 64
STALLED_SECONDS = 60
DEMO = Path(__file__).resolve().parents[2] / "app/demo/model.xmodel"


class Network:
    """A DPU subgraph, with images and its outputs for them."""

    def __init__(self, graph: xir.Graph, rng: np.random.Generator) -> None:
        self.graph = graph  # a subgraph does not keep its graph alive
        children = graph.get_root_subgraph().toposort_child_subgraph()
        (self.part,) = [child for child in children if child.get_attr("device") == "DPU"]
        runner = vart.Runner.create_runner(self.part, "run")
        (source,), (result,) = runner.get_input_tensors(), runner.get_output_tensors()
        self.input_scale = 2.0 ** source.get_attr("fix_point")
        self.output_scale = 2.0 ** -result.get_attr("fix_point")
        self.images = rng.integers(-128, 128, (IMAGES, *source.dims[1:]), dtype=np.int8)
        found = load_engine(graph, "reference").run(self.images)
        self.wanted = (found / self.output_scale).astype(np.int8).reshape(-1, *result.dims[1:])


def small_graph(rng: np.random.Generator) -> xir.Graph:
    """Two joined convolutions, which are faster than the demo's network."""
    model = CompiledModel("small")
    x = model.input("image", (1, 6, 5, 3), 4)
    weights = rng.integers(-128, 128, (8, 3, 3, 3), dtype=np.int8)
    left = model.conv2d("left", x, weights, 6, None, 0, 2, pad=(1, 1, 1, 1))
    right = model.conv2d("right", x, weights[::-1], 6, None, 0, 2, pad=(1, 1, 1, 1))
    model.output(model.concat("both", [left, right]))
    return model.finish()


class Load:
    """The state that all threads share."""

    def __init__(self, jobs: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.networks = [Network(xir.Graph.deserialize(DEMO), rng), Network(small_graph(rng), rng)]
        self.lock = threading.Lock()
        self.left = jobs
        self.figures = dict.fromkeys(
            ("started", "compared", "forgotten", "refused", "runners", "wrong"), 0
        )
        self.runners = [self.new_runner(k) for k in range(RUNNERS)]

    def new_runner(self, number: int) -> tuple[Network, vart.Runner]:
        network = self.networks[number % len(self.networks)]
        self.count("runners")
        return network, vart.Runner.create_runner(network.part, "run")

    def count(self, what: str, by: int = 1) -> None:
        with self.lock:
            self.figures[what] += by

    def take(self) -> bool:
        """Return whether there are jobs left to start."""
        with self.lock:
            self.left -= 1
            return self.left >= 0


class Job:
    """A job in flight with its buffers."""

    def __init__(self, network: Network, runner: vart.Runner, rng: random.Random) -> None:
        self.network, self.runner = network, runner
        self.indices = [rng.randrange(IMAGES) for _ in range(rng.randint(1, LARGEST_BATCH))]
        self.inputs: np.ndarray = network.images[self.indices]
        if rng.random() < 0.3:
            self.inputs = self.inputs.astype(np.float32) / np.float32(network.input_scale)
        kind = np.float32 if rng.random() < 0.3 else np.int8
        self.outputs = np.full((len(self.indices), *network.wanted.shape[1:]), 99, kind)
        dynamic = len(self.indices) != 1 or rng.random() < 0.5
        self.number = runner.execute_async([self.inputs], [self.outputs], dynamic)

    def is_right(self) -> bool:
        """Wait for the job and compare its outputs."""
        self.runner.wait(self.number)
        found: np.ndarray = self.outputs
        if found.dtype == np.float32:
            found = found / np.float32(self.network.output_scale)
        return np.array_equal(found, self.network.wanted[self.indices])


def work(load: Load, seed: int) -> None:
    """Run the jobs of one thread, counting errors."""
    try:
        _work(load, seed)
    except BaseException:
        load.count("wrong")
        raise


def _work(load: Load, seed: int) -> None:
    rng, flying = random.Random(seed), list[Job]()
    while load.take():
        network, runner = load.runners[rng.randrange(RUNNERS)]
        flying.append(Job(network, runner, rng))
        load.count("started")
        chance = rng.random()
        if chance < 0.05:
            flying.pop(rng.randrange(len(flying)))  # its buffers are dropped while it runs
            load.count("forgotten")
        elif chance < 0.10:
            load.count("refused", _nonsense(network, runner, rng))
        elif chance < 0.101:
            number = rng.randrange(RUNNERS)
            load.runners[number] = load.new_runner(number)  # other threads may be using the old one
        while flying and (len(flying) > IN_FLIGHT or rng.random() < 0.4):
            _compare(load, flying.pop(rng.randrange(len(flying))))
    for job in flying:
        _compare(load, job)


def _compare(load: Load, job: Job) -> None:
    load.count("compared")
    if not job.is_right():
        load.count("wrong")


def _nonsense(network: Network, runner: vart.Runner, rng: random.Random) -> int:
    """Make invalid calls; return how many of them were refused."""
    good = network.images[:1], np.zeros((1, *network.wanted.shape[1:]), np.int8)
    bad: list[Any] = [
        lambda: runner.wait(10**9),  # type: ignore[arg-type]
        lambda: runner.execute_async([good[0].astype(np.int16)], [good[1]]),
        lambda: runner.execute_async([good[0][:, 1:]], [good[1]]),
        lambda: runner.execute_async([good[0]], []),
        lambda: runner.execute_async([network.images[:3]], [good[1]], True),
    ]
    try:
        rng.choice(bad)()
    except (RuntimeError, TypeError, ValueError):
        return 1
    raise AssertionError("nonsense was taken")


def resources() -> dict[str, float]:
    """This process's memory in MiB, threads and open files."""
    gc.collect()
    own = psutil.Process()
    memory = own.memory_info().rss / (1 << 20)
    return {"memory_mib": memory, "threads": own.num_threads(), "files": own.num_fds()}


def run(jobs: int, seed: int) -> dict[str, Any]:
    """Run half of the jobs, record the resources, and run the other half."""
    began, shares = time.monotonic(), []
    load = Load(0, seed)
    for share in range(2):
        load.left = jobs // 2
        threads = [threading.Thread(target=work, args=(load, seed * 1000 + share * THREADS + k))
                   for k in range(THREADS)]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            _watch(load, thread)
        shares.append(resources())
    return load.figures | {"seconds": round(time.monotonic() - began, 2),
                           "half_way": shares[0], "end": shares[1]}  # fmt: skip


def _watch(load: Load, thread: threading.Thread) -> None:
    """Wait for a thread; end the process if there is no progress for long."""
    while thread.is_alive():
        before = dict(load.figures)
        thread.join(STALLED_SECONDS)
        if thread.is_alive() and load.figures == before:
            faulthandler.dump_traceback()
            os._exit(1)


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
