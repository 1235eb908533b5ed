"""What a platform is, and which there are.

Each runs in a process of its own (host/bench/worker.py), so that threads, memory and settings of
one framework do not meet another's. A platform that is not there says why by `Absent`.
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
    """A platform that cannot be measured here; the text is one line that says why."""


class Platform(ABC):
    """Runs the student.

    Attributes
    ----------
    channels_last : `run` takes (N, H, W, C), else (N, C, H, W)
    device_seconds : what the device itself says of the last run, s; None where it has no clock of
        its own, and the time of `run` counts
    """

    channels_last = False
    device_seconds: float | None = None

    @abstractmethod
    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student from `folder` (host/bench/subject.py tells its files).

        Raises
        ------
        Absent
            The framework, the device or the file is not there.
        """

    @abstractmethod
    def run(self, images: Floats) -> Floats:
        """The logits (N, classes) of normalised images, when they lie in the CPU's memory."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """version of the framework, device, model_file and model_bytes that were loaded."""


@dataclass(frozen=True)
class Entry:
    """A platform that can be asked for.

    Attributes
    ----------
    title : for the reader
    family : CPU, GPU or EMULATION
    place : module and class, with its argument
    """

    title: str
    family: str
    place: tuple[str, str, str]

    @property
    def compiles(self) -> bool:
        """Whether it compiles the network anew for each batch size, which takes long."""
        return self.place[2] == "compiled"

    def make(self) -> Platform:
        """The platform, nothing loaded yet."""
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
"""What is measured by default, in this order."""

PEERS = frozenset({"openvino-nncf"})
"""Those that another quantiser makes of the float network."""

REFERENCE = Entry("the quantised student", EMULATION, ("on_emulation", "Emulation", "fast"))
"""Gives the logits that the DPU gives; it is not timed."""
REFERENCE_NAME = "emulation"


def entry(name: str) -> Entry:
    """The platform of that name, the reference too."""
    return REFERENCE if name == REFERENCE_NAME else CATALOGUE[name]


def model_file(folder: Path, name: str) -> Path:
    """A file of the student, in the form that the platform takes.

    Raises
    ------
    Absent
        It could not be made; a text file beside it tells why.
    """
    path = folder / name
    if path.exists():
        return path
    reason = path.with_name(f"{name}.absent")
    raise Absent(reason.read_text(encoding="utf-8") if reason.exists() else f"{name} is not there")


def int8_file(folder: Path) -> Path:
    """The int8 file for this processor: with int8 weights where their sums do not saturate.

    For those ONNX Runtime and OpenVINO have their fastest kernels; see host/export/onnx_qdq.py.
    """
    fast = folder / INT8_WEIGHTS_FILE
    return fast if has_vnni() and fast.exists() else model_file(folder, INT8_FILE)


def file_facts(path: Path) -> dict[str, Any]:
    """model_file and model_bytes."""
    return {"model_file": path.name, "model_bytes": path.stat().st_size}
