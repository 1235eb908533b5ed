"""ONNX Runtime on the CPU, and TensorRT by ONNX Runtime's execution provider."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import first_line
from tutelage.host.bench.platform import Absent, Floats, Platform, file_facts, int8_file, model_file
from tutelage.host.bench.subject_files import FLOAT32_FILE, TENSORRT_FILE

_QUIET = 3  # errors only
_CUDA = "libcuda.so.1"


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise Absent(f"ONNX Runtime is not installed: {error}") from error
    return onnxruntime


class OnnxRuntimeCpu(Platform):
    """CPU execution provider, float32 or int8 (QuantizeLinear and DequantizeLinear)."""

    def __init__(self, precision: str) -> None:
        self._int8 = precision == "int8"
        self._session: Any = None
        self._facts: dict[str, Any] = {}

    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student."""
        onnxruntime = _import()
        path = int8_file(folder) if self._int8 else model_file(folder, FLOAT32_FILE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _QUIET
        self._session = onnxruntime.InferenceSession(
            str(path), options, ["CPUExecutionProvider"]
        )  # fmt: skip
        version = f"onnxruntime {onnxruntime.__version__}"
        self._facts = {"version": version, "device": "CPU", **file_facts(path)}

    def run(self, images: Floats) -> Floats:
        """See `Platform.run`."""
        return np.asarray(self._session.run(None, {"images": images})[0])

    def facts(self) -> dict[str, Any]:
        """See `Platform.facts`."""
        return self._facts


class TensorRt(OnnxRuntimeCpu):
    """TensorRT execution provider; not tried on hardware.

    int8 uses the scales in the file (explicit quantisation), without calibration. Source of the
    options: ONNX Runtime's documentation of its TensorRT execution provider.
    """

    concern = "the network alone is timed with the copies to and from the GPU"
    overlaps = True

    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student; the first run of each batch size builds an engine."""
        onnxruntime = _import()
        there = onnxruntime.get_available_providers()
        if "TensorrtExecutionProvider" not in there:
            raise Absent(f"onnxruntime {onnxruntime.__version__} has no TensorRT provider, only "
                         f"{', '.join(there)}")  # fmt: skip
        path = model_file(folder, TENSORRT_FILE if self._int8 else FLOAT32_FILE)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        tensorrt = ("TensorrtExecutionProvider", {"device_id": 0, "trt_int8_enable": self._int8})
        providers = [tensorrt, "CUDAExecutionProvider", "CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers)
        except Exception as error:  # the library's own errors have no common base
            raise Absent(f"TensorRT cannot load the student: {first_line(error)}") from error
        taken = self._session.get_providers()
        if taken[0] != "TensorrtExecutionProvider":  # it falls back silently
            raise Absent(f"TensorRT cannot be loaded; ONNX Runtime used {taken[0]} instead")
        version = f"onnxruntime {onnxruntime.__version__}, TensorRT {_tensorrt_version()}"
        self._facts = {"version": version, "device": gpu_name(), **file_facts(path)}


def _tensorrt_version() -> str:
    try:
        from importlib.metadata import version

        return version("tensorrt")
    except ImportError:  # its libraries may come without the Python package
        return "of unknown version"


def gpu_name() -> str:
    """Return the name of CUDA's device 0, the first of those in CUDA_VISIBLE_DEVICES.

    NVML ignores that variable and has another order. Source: CUDA Driver API, cuDeviceGetName.
    """
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError as error:
        return f"GPU 0 ({first_line(error)})"
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    status = (cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
              or cuda.cuDeviceGetName(name, len(name), device))  # fmt: skip
    return f"GPU 0 (CUDA error {status})" if status else name.value.decode(errors="replace")
