"""What runs a lowered graph: OpenVINO where it is installed, else ONNX Runtime.

OpenVINO fuses Round and Clip into its convolutions and is the quicker one, once
it has started: that takes several times as long as with ONNX Runtime.
Graphs with a float64 path go to ONNX Runtime: OpenVINO computes float64 in
float32. Batches are split into pieces that stay in the cache and run side by
side, one thread each.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

import numpy as np

from tutelage.core.errors import DpuError, first_line
from tutelage.core.fixed_point import Array

RUNTIME_VARIABLE = "TUTELAGE_RUNTIME"
"""Environment variable that forces "openvino" or "onnxruntime"."""

PIECE = 4
"""Images per piece of a batch: measured best of 1, 4, 8 and 32 on a DenseNet-BC at 32x32."""


class Runtime(Protocol):
    """Runs a graph on arrays, in the order of its inputs and outputs."""

    def run(self, arrays: list[Array]) -> list[Array]:
        """The outputs for `arrays`."""
        ...


def make_runtime(model: bytes, threads: int, wide: bool, brief: bool = False) -> Runtime:
    """A runtime for the serialized ONNX `model`.

    Parameters
    ----------
    wide : the model has a float64 path
    brief : little is to be computed, so that the start counts more than the speed
    """
    wanted = os.environ.get(RUNTIME_VARIABLE, "")
    if wanted not in ("", "openvino", "onnxruntime"):
        raise DpuError(f"{RUNTIME_VARIABLE}={wanted!r} is neither openvino nor onnxruntime")
    try:
        sooner = wide or (brief and not wanted)
        if not sooner and wanted != "onnxruntime" and _openvino() is not None:
            runtime = OpenVinoRuntime(model, threads)
            runtime.compiled(1)  # finds a graph that cannot be built, and spares the first image
            return runtime
        return OnnxRuntime(model, threads)
    except Exception as error:  # the libraries' own errors have no common base
        raise DpuError(f"the graph cannot be built: {first_line(error)}") from error


class OnnxRuntime:
    """ONNX Runtime on the CPU."""

    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_inputs()]

    def run(self, arrays: list[Array]) -> list[Array]:
        """The outputs for `arrays`."""
        feeds = dict(zip(self._names, arrays, strict=True))
        return [np.asarray(value) for value in self._session.run(None, feeds)]


class OpenVinoRuntime:
    """OpenVINO on the CPU in float32; one compiled model per batch size in use.

    Parameters
    ----------
    model : serialized ONNX
    threads : of all runs together
    """

    def __init__(self, model: bytes, threads: int) -> None:
        self._model, self._threads = model, threads
        self._requests = threading.local()  # making one costs as much as a small network's run
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()

    def compiled(self, batch: int) -> Any:
        """The model for batches of 1, or of `PIECE` side by side; compiled at its first use."""
        with self._lock:
            if batch not in self._compiled:
                self._compiled[batch] = self._compile(batch, 1 if batch == 1 else self._threads)
            return self._compiled[batch]

    def _compile(self, batch: int, streams: int) -> Any:
        core = _openvino()
        model = core.read_model(self._model, b"")
        shapes = {}
        for value in model.inputs:
            shapes[value.any_name] = [batch, *(d.get_length() for d in value.partial_shape[1:])]
        model.reshape(shapes)
        config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        }
        return core.compile_model(model, "CPU", config)

    def run(self, arrays: list[Array]) -> list[Array]:
        """The outputs for `arrays`."""
        batch = len(arrays[0])
        whole = batch - batch % PIECE if batch > PIECE else 0
        parts = self._run_pieces(arrays, whole) if whole else []
        for index in range(whole, batch):
            request = self._request()
            request.infer([np.ascontiguousarray(a[index : index + 1]) for a in arrays])
            parts.append(_outputs(request))
        return [
            np.concatenate(column) if len(column) > 1 else column[0]
            for column in zip(*parts, strict=True)
        ]

    def _request(self) -> Any:
        """The calling thread's own request for one image."""
        if not hasattr(self._requests, "single"):
            self._requests.single = self.compiled(1).create_infer_request()
        return self._requests.single

    def _run_pieces(self, arrays: list[Array], whole: int) -> list[list[Array]]:
        pieces, requests = self.compiled(PIECE), []
        for start in range(0, whole, PIECE):
            request = pieces.create_infer_request()
            request.start_async([np.ascontiguousarray(a[start : start + PIECE]) for a in arrays])
            requests.append(request)
        parts = []
        for request in requests:
            request.wait()
            parts.append(_outputs(request))
        return parts


def _outputs(request: Any) -> list[Array]:
    return [np.array(tensor.data) for tensor in request.output_tensors]


_import_lock = threading.Lock()
_is_the_parents = False


def _after_fork() -> None:
    """In a child: no thread of the parent gives the lock back; OpenVINO's pools have no threads."""
    global _import_lock, _is_the_parents
    _import_lock = threading.Lock()
    _is_the_parents = _is_the_parents or _import_openvino.cache_info().currsize > 0


os.register_at_fork(after_in_child=_after_fork)


@cache
def _import_openvino() -> Any:
    with _hidden("openvino_telemetry", "openvino.tools.ovc"):
        try:
            import openvino
        except ImportError:
            return None
    # pybind11 sets up its numpy interface at the first array that passes. Two threads that do
    # so at once lock each other out, one with the GIL and one with the set-up: do it here.
    openvino.Tensor(np.zeros(1, np.float32)).data.sum()
    return openvino.Core()


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Modules that OpenVINO's import does without.

    With openvino_telemetry it writes into the user's home and sends usage data, without it takes a
    stub of its own. Its converter of other formats is more than half of what it imports.
    """
    known = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(known)


def _openvino() -> Any:
    """OpenVINO's core, or None where the package is missing.

    None also in a child of a process that used it before the fork, as the child has none of its
    threads. ONNX Runtime computes the same.
    """
    with _import_lock:
        return None if _is_the_parents else _import_openvino()
