"""PyTorch, eager and compiled, on the CPU and on CUDA, with the student's float32 ONNX file."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import first_line
from tutelage.host.bench.platform import Absent, Floats, Platform, file_facts, model_file
from tutelage.host.bench.subject_files import FLOAT32_FILE


class TorchCpu(Platform):
    """PyTorch on the CPU, channels last."""

    channels_last = True
    device_name = "cpu"

    def __init__(self, mode: str) -> None:
        self._compiled = mode == "compiled"
        self._facts: dict[str, Any] = {}

    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student; in compiled mode the first run of each batch size compiles it."""
        if find_spec("torch") is None:
            raise Absent("PyTorch is not installed")
        import torch

        from tutelage.host.bench.torch_graph import read_onnx

        self._torch = torch
        self._check()
        path = model_file(folder, FLOAT32_FILE)
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        network: Any = read_onnx(path).eval().requires_grad_(False)
        network = network.to(self.device_name, memory_format=torch.channels_last)
        if self._compiled:
            _find_compiler(self.device_name)
            network = torch.compile(network, dynamic=False)
        self._network = network
        self._facts = {"version": self._version(), "device": self._device(), **file_facts(path)}

    def _check(self) -> None:
        """Raise Absent if the device is missing."""

    def _version(self) -> str:
        return f"torch {self._torch.__version__}"

    def _device(self) -> str:
        return "CPU"

    def run(self, images: Floats) -> Floats:
        """Return the logits (N, classes); images (N, H, W, C)."""
        torch = self._torch
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            return np.asarray(self._network(x).numpy())

    def facts(self) -> dict[str, Any]:
        """See `Platform.facts`."""
        return self._facts


class TorchCuda(TorchCpu):
    """PyTorch on the first CUDA device; not tried on hardware.

    `device_seconds` is the network's time between two CUDA events, without the copies between host
    and device, which are part of the whole frame. Convolutions keep PyTorch's default, TF32.
    """

    device_name = "cuda"
    concern = "the network alone is timed on the GPU, without the copies to and from it"
    overlaps = True

    def _check(self) -> None:
        torch = self._torch
        if not torch.cuda.is_available():
            built = torch.version.cuda
            why = "it finds no device" if built else "it is built without CUDA"
            raise Absent(f"torch {torch.__version__} cannot use CUDA: {why}")
        torch.backends.cudnn.benchmark = True
        self._begin = torch.cuda.Event(enable_timing=True)
        self._end = torch.cuda.Event(enable_timing=True)

    def _version(self) -> str:
        return f"{super()._version()}, CUDA {self._torch.version.cuda}"

    def _device(self) -> str:
        return str(self._torch.cuda.get_device_name())

    def run(self, images: Floats) -> Floats:
        """Return the logits (N, classes); images (N, H, W, C)."""
        torch = self._torch
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).to("cuda")
            self._begin.record()
            y = self._network(x)
            self._end.record()
            logits = y.cpu().numpy()
        self._end.synchronize()
        self.device_seconds = self._begin.elapsed_time(self._end) / 1e3  # from ms
        return np.asarray(logits)


def _find_compiler(device: str) -> None:
    """Check for what torch.compile needs: a C++ compiler on the CPU, Triton on CUDA.

    Raises
    ------
    Absent
        It is missing.
    """
    if device == "cuda":
        if find_spec("triton") is None:
            raise Absent("torch.compile needs Triton on CUDA, and it is not installed")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = get_cpp_compiler()
    except (InvalidCxxCompiler, OSError) as error:
        raise Absent(f"torch.compile finds no C++ compiler: {first_line(error)}") from error
    if shutil.which(compiler) is None:
        raise Absent(f"torch.compile needs a C++ compiler, and {compiler} is not installed")
