"""Runtimes of lowered graphs: OpenVINO if installed, otherwise ONNX Runtime.

OpenVINO fuses Round and Clip into its convolutions and is the faster one, but its
start takes several times as long as that of ONNX Runtime.
Graphs with a float64 path use ONNX Runtime, because OpenVINO computes float64 in
float32. Batches are split into pieces that fit into the cache and run in parallel,
one thread each.
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
"""Images per piece of a batch: the fastest of 1, 4, 8 and 32 on a DenseNet-BC at 32x32."""


class Runtime(Protocol):
    """Interface of a runtime: runs a graph on arrays, in the order of its inputs and outputs."""

    def run(self, arrays: list[Array]) -> list[Array]:
        """Return the outputs for `arrays`."""
        ...


def make_runtime(model: bytes, threads: int, wide: bool, brief: bool = False) -> Runtime:
    """Return a runtime for the serialized ONNX `model`.

    Parameters
    ----------
    wide : whether the model has a float64 path
    brief : optimise for start-up time, because little will be computed

    Raises
    ------
    DpuError
        The environment variable is invalid, or the graph cannot be built.
    """
    wanted = os.environ.get(RUNTIME_VARIABLE, "")
    if wanted not in ("", "openvino", "onnxruntime"):
        raise DpuError(f"{RUNTIME_VARIABLE} is {wanted!r}; it must be openvino or onnxruntime")
    try:
        sooner = wide or (brief and not wanted)
        if not sooner and wanted != "onnxruntime" and _openvino() is not None:
            runtime = OpenVinoRuntime(model, threads)
            runtime.compiled(1)  # fails early, and speeds up the first image
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
        """Return the outputs for `arrays`."""
        feeds = dict(zip(self._names, arrays, strict=True))
        return [np.asarray(value) for value in self._session.run(None, feeds)]


class OpenVinoRuntime:
    """OpenVINO on the CPU in float32, with one compiled model per batch size in use.

    Parameters
    ----------
    model : serialized ONNX
    threads : total threads of all runs
    """

    def __init__(self, model: bytes, threads: int) -> None:
        self._model, self._threads = model, threads
        self._requests = threading.local()  # creating one takes as long as running a small network
        self._compiled: dict[int, Any] = {}
        self._lock = threading.Lock()

    def compiled(self, batch: int) -> Any:
        """Return the model for batches of 1 or `PIECE` in parallel, compiled on first use."""
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
        """Return the outputs for `arrays`."""
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
        """Return the calling thread's own request for one image."""
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
    """Reset the lock in a child, where no thread releases it and OpenVINO's pools lack threads."""
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
    # pybind11 initialises its numpy interface with the first array. Two threads that do so at
    # once deadlock, one holding the GIL and one the initialisation lock: do it here.
    openvino.Tensor(np.zeros(1, np.float32)).data.sum()
    return openvino.Core()


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Hide optional modules from OpenVINO's import.

    With openvino_telemetry, OpenVINO writes into the user's home and sends usage data; without it,
    it uses a stub. Its converter of other formats is more than half of its imports.
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
    """Return OpenVINO's core, or None if the package is missing.

    Also None in a child of a process that used it before the fork, since the child lacks its
    threads. ONNX Runtime computes the same results.
    """
    with _import_lock:
        return None if _is_the_parents else _import_openvino()
