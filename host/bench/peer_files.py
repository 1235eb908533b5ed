"""Files for another quantiser to start from: the float network and the calibration images.

network.onnx      the float network before quantisation, or the closest that is available
calibration.npy   normalised images (N, C, H, W), those that the student was calibrated with
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.core.errors import TutelageError, first_line
from tutelage.host.bench.subject_files import CALIBRATION_FILE, NETWORK_FILE
from tutelage.host.export.onnx_qdq import INPUT, OPSET, OUTPUT

MOST_CALIBRATION_IMAGES = 300
"""Most calibration images, NNCF's default; it processes one at a time."""

MOST_BYTES = 256 << 20
"""Most bytes of calibration images: 300 of 224x224 pixels are 181 MB."""


@dataclass(frozen=True)
class PeerSource:
    """A float network and the images to calibrate with.

    Attributes
    ----------
    network : float network, or the bytes of its ONNX file
    images : normalised, float32 (N, C, H, W)
    notes : remarks about either for the reader
    """

    network: nn.Module | bytes
    images: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write network.onnx and calibration.npy."""
        images = np.ascontiguousarray(self.images[: most_images(self.images.shape[1:])], np.float32)
        if isinstance(self.network, bytes):
            (folder / NETWORK_FILE).write_bytes(self.network)
        else:
            write_float_onnx(self.network, images[:1], folder / NETWORK_FILE)
        np.save(folder / CALIBRATION_FILE, images)


def most_images(shape: tuple[int, ...]) -> int:
    """Return the largest number of calibration images of a shape (C, H, W)."""
    return max(1, min(MOST_CALIBRATION_IMAGES, MOST_BYTES // (4 * int(np.prod(shape)))))


def write_float_onnx(network: nn.Module, images: NDArray[np.float32], path: Path) -> None:
    """Write a float network as ONNX for batches of any size, by PyTorch's exporter.

    Parameters
    ----------
    images : example to trace the network with, (N, C, H, W)
    """
    axes = {name: {0: "N"} for name in (INPUT, OUTPUT)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # only the deprecated exporter needs no further package
        torch.onnx.export(
            network.eval(), (torch.from_numpy(images),), str(path), dynamo=False,
            opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], dynamic_axes=axes,
        )  # fmt: skip


def write_peer(folder: Path, make: Callable[[], PeerSource] | None, path: Path) -> list[str]:
    """Write the files of a `PeerSource`, or the reason why they cannot be made; return its notes.

    Parameters
    ----------
    make : returns the source; None if there is no float network
    path : of the subject, for the message
    """
    reason = f"{path} has no float network"
    if make is not None:
        try:
            source = make()
            source.write(folder)
        except (TutelageError, ValueError, OSError, RuntimeError) as error:
            reason = first_line(error)
        else:
            return list(source.notes)
    (folder / f"{NETWORK_FILE}.absent").write_text(reason, encoding="utf-8")
    return []
