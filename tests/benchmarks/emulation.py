"""Speed of the exact emulation, relative to plain float32 and to the reference engine.

Contenders are timed in turn in one process, round after round, so that changes of the machine's
speed affect all of them. Ratios are medians over the rounds.

With ONEDNN_MAX_CPU_ISA=AVX2 in the environment, OpenVINO computes as on a processor with AVX2
only; contenders on OpenVINO can then be compared with each other.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from tests.benchmarks.densenet_pair import SIZE, float32_model, int8_graph
from tests.benchmarks.extent import FULL, Extent
from tutelage.dpu.engine.fast import FastEngine
from tutelage.dpu.engine.reference import Model, load_engine
from tutelage.dpu.engine.runtimes import PIECE, RUNTIME_VARIABLE, OpenVinoRuntime
from tutelage.dpu.engine.upgrade import INT8_VARIABLE, UpgradedRuntime
from tutelage.dpu.xmodel.graph import Graph
from tutelage.host.train.progress import stepped

DEMO = Path(__file__).parents[2] / "app/demo/model.xmodel"
THREADS = 2
ROUNDS = 15
# ONNX Runtime's threads spin for a while after a run and would slow the next contender.
PAUSE_SECONDS = 0.05


def _timed(work: Callable[[], Any], runs: int) -> float:
    """Seconds per run after a pause and two runs that are not counted."""
    time.sleep(PAUSE_SECONDS)
    work()
    work()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    return (time.perf_counter() - start) / runs


def in_turn(
    what: str, contenders: dict[str, Callable[[], Any]], runs: int, extent: Extent
) -> dict[str, list[float]]:
    """Seconds per run of each contender, one figure per round."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in stepped(what, range(min(ROUNDS, extent.repeats))):
        names = list(contenders)
        for name in names if number % 2 else names[::-1]:
            seconds[name].append(_timed(contenders[name], min(runs, extent.repeats)))
    return seconds


def _session(threads: int = THREADS) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(float32_model(), options, ["CPUExecutionProvider"])


FORMS = {
    "openvino": {RUNTIME_VARIABLE: "openvino", INT8_VARIABLE: "1"},
    "openvino_float32_form": {RUNTIME_VARIABLE: "openvino", INT8_VARIABLE: "0"},
    "onnxruntime": {RUNTIME_VARIABLE: "onnxruntime"},
}
"""The environment in which the engine takes each of its forms; the first is what it comes to."""


def _fast(graph: Graph, form: str) -> Model:
    with mock.patch.dict(os.environ, FORMS[form]):
        return load_engine(graph, "fast", threads=THREADS)


def _has_openvino() -> bool:
    return find_spec("openvino") is not None


def _forms() -> list[str]:
    return list(FORMS) if _has_openvino() else ["onnxruntime"]


def _computes_int8(model: Model) -> bool:
    assert isinstance(model.engine, FastEngine)
    runtimes = [stage.runtime for stage in model.engine.stages]
    return any(isinstance(r, UpgradedRuntime) and r.state == "int8" for r in runtimes)


def speed_against_float32(batch: int, runs: int, extent: Extent) -> dict[str, Any]:
    """Return ratios of speed; above 1 the exact engine is faster.

    The float32 network runs on ONNX Runtime once with the whole batch and once split into the
    engine's pieces, and on OpenVINO as the engine runs it. This separates the gains of the
    splitting and the library from those of the engine.
    """
    graph, session, batch = int8_graph(), _session(), min(batch, extent.images)
    rng = np.random.default_rng(1)
    images = rng.integers(-128, 128, (batch, SIZE, SIZE, 3), np.int8)
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 16
    contenders: dict[str, Callable[[], Any]] = {
        "float32": lambda: session.run(None, {"image": floats})
    }
    models = {form: _fast(graph, form) for form in _forms()}
    contenders |= {form: partial(model.run, images) for form, model in models.items()}
    if batch > PIECE:
        contenders["float32_in_pieces"] = _in_pieces(floats)
    if _has_openvino():
        contenders["float32_openvino"] = partial(
            OpenVinoRuntime(float32_model(), THREADS).run, [floats]
        )
    seconds = in_turn(f"emulation, batch {batch}", contenders, runs, extent)
    report: dict[str, Any] = {
        f"{name}_ms": round(1e3 * statistics.median(times), 3) for name, times in seconds.items()
    }
    report["int8"] = [form for form, model in models.items() if _computes_int8(model)]
    for base in (name for name in contenders if name.startswith("float32")):
        for name in models:
            pairs = zip(seconds[base], seconds[name], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            report[f"{name}_speed_against_{base}"] = round(ratio, 3)
    return report


def _in_pieces(floats: np.ndarray) -> Callable[[], Any]:
    """The float32 network as the engine runs batches: pieces in parallel, with a thread each."""
    session, pool = _session(threads=1), ThreadPoolExecutor(THREADS)
    pieces = [floats[start : start + PIECE] for start in range(0, len(floats), PIECE)]
    return lambda: list(pool.map(lambda piece: session.run(None, {"image": piece}), pieces))


def speed_against_reference(extent: Extent) -> dict[str, Any]:
    """The fast engine against the integer numpy one, batch 1, in turn."""
    graph = int8_graph()
    images = np.random.default_rng(1).integers(-128, 128, (1, SIZE, SIZE, 3), np.int8)
    fast = load_engine(graph, "fast", threads=THREADS)
    reference = load_engine(graph, "reference")
    assert np.array_equal(fast.run(images), reference.run(images))
    fast_seconds, reference_seconds = [], []
    for _ in stepped("fast against reference", range(min(5, extent.repeats))):
        fast_seconds.append(_timed(lambda: fast.run(images), min(20, extent.repeats)))
        reference_seconds.append(_timed(lambda: reference.run(images), 1))
    pairs = zip(reference_seconds, fast_seconds, strict=True)
    return {
        "reference_ms": round(1e3 * statistics.median(reference_seconds), 1),
        "fast_ms": round(1e3 * statistics.median(fast_seconds), 3),
        "speed_ratio": round(statistics.median(a / b for a, b in pairs), 1),
    }


def footprint(what: str) -> dict[str, Any]:
    """Load time and peak memory of one engine, in a separate process."""
    code = f"from tests.benchmarks.emulation import measure_footprint as m; m({what!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def measure_footprint(what: str) -> None:
    """Load, run one image and print the figures; MiB are the process's peak with its libraries."""
    start = time.perf_counter()
    image = np.zeros((1, SIZE, SIZE, 3), np.int8)
    if what == "float32":
        session = _session()
        loaded = time.perf_counter()
        session.run(None, {"image": np.zeros((1, 3, SIZE, SIZE), np.float32)})
    elif what == "reference":
        model = load_engine(int8_graph(), "reference")
        loaded = time.perf_counter()
        model.run(image)
    else:
        model = _fast(int8_graph(), what)
        loaded = time.perf_counter()
        model.run(image)
    print(json.dumps({"load_seconds": round(loaded - start, 3), "peak_mib": round(_peak_mib())}))


def start_of_run(extent: Extent) -> dict[str, Any]:
    """`tutelage run` of one image of the demo model, for the whole process.

    The minimum and the median of several runs, as wall clock and as CPU time.
    """
    command = [sys.executable, "-m", "tutelage", "run", str(DEMO), "--random", "1"]
    wall, cpu = [], []
    for _ in stepped("start of run", range(min(8, extent.repeats))):
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        after = os.times()
        wall.append(time.perf_counter() - began)
        cpu.append(sum(after[2:4]) - sum(before[2:4]))
    return {
        "wall_seconds": [round(min(wall), 3), round(statistics.median(wall), 3)],
        "cpu_seconds": [round(min(cpu), 3), round(statistics.median(cpu), 3)],
    }


def _peak_mib() -> float:
    """This process's peak memory; getrusage would include the parent's before the exec."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def report(extent: Extent = FULL) -> dict[str, Any]:
    """All figures of this module."""
    return {
        "network": "DenseNet-BC k=12 3x16, 32x32x3",
        "threads": THREADS,
        "batch_1": speed_against_float32(1, 20, extent),
        "batch_32": speed_against_float32(32, 2, extent),
        "start_of_run": start_of_run(extent),
        "against_reference": speed_against_reference(extent),
        "footprint": {
            what: footprint(what)
            for what in stepped("footprint", ("float32", *_forms(), "reference"))
        },
    }
