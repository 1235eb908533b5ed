"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.host.bench.platform import Absent, Floats, Platform, file_facts, int8_file, model_file
from tutelage.host.bench.subject_files import CALIBRATION_FILE, FLOAT32_FILE, NETWORK_FILE
from tutelage.host.peers import nncf_peer

_NNCF_FILE = "nncf.xml"


def _import() -> Any:
    # With this module importing OpenVINO writes into the user's home and sends usage data; without
    # it OpenVINO uses a stub.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise Absent(f"OpenVINO is not installed: {error}") from error
    return openvino


class OpenVino(Platform):
    """OpenVINO with one compiled model per batch size, since it is fastest with fixed shapes."""

    def __init__(self, precision: str) -> None:
        self._precision = precision
        self._threads = 1
        self._requests: dict[int, Any] = {}
        self._facts: dict[str, Any] = {}

    def prepare(self, folder: Path, threads: int) -> None:
        """Load the student."""
        openvino = _import()
        self._path = self._file(folder)
        self._core = openvino.Core()
        self._threads = threads
        version = f"openvino {openvino.__version__.split('-')[0]}"
        self._facts = {"version": version, "device": "CPU", **file_facts(self._path)}
        self._request(1)

    def _file(self, folder: Path) -> Path:
        int8 = self._precision == "int8"
        return int8_file(folder) if int8 else model_file(folder, FLOAT32_FILE)

    def _request(self, batch: int) -> Any:
        if batch not in self._requests:
            model = self._model()
            model.reshape([batch, *(d.get_length() for d in model.inputs[0].partial_shape[1:])])
            config = {
                # Without this, processors with bfloat16 compute float32 models in bfloat16.
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": self._threads,
                "ENABLE_CPU_PINNING": False,  # the process is pinned as a whole
            }
            compiled = self._core.compile_model(model, "CPU", config)
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]

    def _model(self) -> Any:
        """Read the model, its batch size still free."""
        return self._core.read_model(str(self._path))

    def run(self, images: Floats) -> Floats:
        """See `Platform.run`."""
        request = self._request(len(images))
        request.infer([images])
        return np.array(request.output_tensors[0].data)

    def facts(self) -> dict[str, Any]:
        """See `Platform.facts`."""
        return self._facts


class OpenVinoNncf(OpenVino):
    """The float network, quantised post-training by NNCF, to compare the quantisers."""

    def prepare(self, folder: Path, threads: int) -> None:
        """Quantise the network; calibration processes a few images a second for a large one."""
        openvino = _import()
        if not nncf_peer.version():
            raise Absent("NNCF is not installed: pip install nncf")
        model = openvino.Core().read_model(str(model_file(folder, NETWORK_FILE)))
        images = np.load(folder / CALIBRATION_FILE, allow_pickle=False)
        # NNCF calibrates with one image at a time.
        model.reshape([1, *images.shape[1:]])
        quantised = nncf_peer.quantise(model, images)
        openvino.save_model(quantised, folder / _NNCF_FILE, compress_to_fp16=False)
        super().prepare(folder, threads)
        weights = (folder / _NNCF_FILE).with_suffix(".bin")
        self._facts |= {
            "version": f"{self._facts['version']}, nncf {nncf_peer.version()}",
            "model_bytes": self._facts["model_bytes"] + weights.stat().st_size,
        }

    def _file(self, folder: Path) -> Path:
        return folder / _NNCF_FILE
