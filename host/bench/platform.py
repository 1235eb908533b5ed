"""Interface of a platform, and the list of platforms.

Each runs in a separate process (host/bench/worker.py), so that threads, memory and settings of
one framework do not affect another. A platform that is not available raises `Absent` with a reason.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.results.bench_json import CPU, EMULATION, GPU
from tutelage.host.bench.environment import has_vnni
from tutelage.host.bench.subject_files import INT8_FILE, INT8_WEIGHTS_FILE

Floats = NDArray[np.float32]


class Absent(Exception):
    """The platform cannot be measured on this machine; the text is the reason in one line."""


class Platform(ABC):
    """Framework and device that run the student.

    Attributes
    ----------
    channels_last : whether `run` takes (N, H, W, C), else (N, C, H, W)
    device_seconds : time of the last run by the device's clock, s; None without such a clock, in
        which case the duration of `run` is used
    concern : what sets its figures apart from those of other platforms, "" for nothing
    overlaps : whether `run` leaves the CPUs free, so that in Offline they preprocess the next batch
        meanwhile
    """

    channels_last = False
    device_seconds: float | None = None
    concern = ""
    overlaps = False

    @abstractmethod
    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student from `folder` (host/bench/subject_files.py lists its files).

        Raises
        ------
        Absent
            The framework, the device or the file is missing.
        """

    @abstractmethod
    def run(self, images: Floats) -> Floats:
        """Return the logits (N, classes) of normalised images, once they are in host memory."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return version of the framework, device, model_file and model_bytes, by these names."""


@dataclass(frozen=True)
class Entry:
    """Entry of the list of platforms.

    Attributes
    ----------
    title : for the reader
    family : CPU, GPU or EMULATION
    place : module, class, and the argument of the class
    """

    title: str
    family: str
    place: tuple[str, str, str]

    @property
    def compiles(self) -> bool:
        """Whether it compiles the network for each batch size, which takes long."""
        return self.place[2] == "compiled"

    def make(self) -> Platform:
        """Return the platform, without loading anything."""
        module, name, argument = self.place
        platform: Platform = getattr(import_module(f"tutelage.host.bench.{module}"), name)(argument)
        return platform


CATALOGUE = {
    "torch-eager": Entry("PyTorch eager, float32", CPU, ("on_torch", "TorchCpu", "eager")),
    "torch-compiled": Entry(
        "PyTorch compiled, float32", CPU, ("on_torch", "TorchCpu", "compiled")
    ),
    "onnxruntime-float32": Entry(
        "ONNX Runtime, float32", CPU, ("on_onnxruntime", "OnnxRuntimeCpu", "float32")
    ),
    "onnxruntime-int8": Entry(
        "ONNX Runtime, int8", CPU, ("on_onnxruntime", "OnnxRuntimeCpu", "int8")
    ),
    "openvino-float32": Entry("OpenVINO, float32", CPU, ("on_openvino", "OpenVino", "float32")),
    "openvino-int8": Entry("OpenVINO, int8", CPU, ("on_openvino", "OpenVino", "int8")),
    "openvino-nncf": Entry(
        "OpenVINO, int8 by NNCF's quantiser", CPU, ("on_openvino", "OpenVinoNncf", "")
    ),
    "cuda-eager": Entry("PyTorch eager on CUDA, float32", GPU, ("on_torch", "TorchCuda", "eager")),
    "cuda-compiled": Entry(
        "PyTorch compiled on CUDA, float32", GPU, ("on_torch", "TorchCuda", "compiled")
    ),
    "tensorrt-float32": Entry(
        "TensorRT, float32", GPU, ("on_onnxruntime", "TensorRt", "float32")
    ),
    "tensorrt-int8": Entry("TensorRT, int8", GPU, ("on_onnxruntime", "TensorRt", "int8")),
}  # fmt: skip
"""Platforms by name; all are measured by default, in this order."""

PEERS = frozenset({"openvino-nncf"})
"""Platforms that quantise the float network by another quantiser."""

REFERENCE = Entry("the quantised student", EMULATION, ("on_emulation", "Emulation", "fast"))
"""Computes the same logits as the DPU; not timed."""
REFERENCE_NAME = "emulation"


def entry(name: str) -> Entry:
    """Return the entry of a name, which may be that of the reference."""
    return REFERENCE if name == REFERENCE_NAME else CATALOGUE[name]


def model_file(folder: Path, name: str) -> Path:
    """Return the path of a file of the student.

    Raises
    ------
    Absent
        The file could not be made, for the reason in NAME.absent.
    """
    path = folder / name
    if path.exists():
        return path
    reason = path.with_name(f"{name}.absent")
    raise Absent(reason.read_text(encoding="utf-8") if reason.exists() else f"{name} is missing")


def int8_file(folder: Path) -> Path:
    """Return the int8 file for this processor.

    It has int8 weights if the processor's sums of their products do not saturate, since ONNX
    Runtime and OpenVINO have their fastest kernels for these; see host/export/onnx_qdq.py.
    """
    fast = folder / INT8_WEIGHTS_FILE
    return fast if has_vnni() and fast.exists() else model_file(folder, INT8_FILE)


def file_facts(path: Path) -> dict[str, Any]:
    """Return model_file and model_bytes for `Platform.facts`."""
    return {"model_file": path.name, "model_bytes": path.stat().st_size}
