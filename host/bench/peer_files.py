"""What a peer's quantiser starts from: the float network, and the images that calibrate.

network.onnx      the float network before our quantiser, or what is nearest to it
calibration.npy   normalised images (N, C, H, W), those that our student was calibrated with
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
"""NNCF's own default; it takes one image after the other."""

MOST_BYTES = 256 << 20
"""Of calibration images: 300 of 224x224 pixels are 181 MB."""


@dataclass(frozen=True)
class PeerSource:
    """A float network and the images to calibrate with.

    Attributes
    ----------
    network : in float, or the bytes of an ONNX file of it
    images : normalised, float32 (N, C, H, W)
    notes : what the reader should know of either
    """

    network: nn.Module | bytes
    images: NDArray[np.float32]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write both files."""
        images = np.ascontiguousarray(self.images[: most_images(self.images.shape[1:])], np.float32)
        if isinstance(self.network, bytes):
            (folder / NETWORK_FILE).write_bytes(self.network)
        else:
            write_float_onnx(self.network, images[:1], folder / NETWORK_FILE)
        np.save(folder / CALIBRATION_FILE, images)


def most_images(shape: tuple[int, ...]) -> int:
    """Return how many images of a shape (C, H, W) calibrate at most."""
    return max(1, min(MOST_CALIBRATION_IMAGES, MOST_BYTES // (4 * int(np.prod(shape)))))


def write_float_onnx(network: nn.Module, images: NDArray[np.float32], path: Path) -> None:
    """Write a float network as ONNX for batches of any size, by PyTorch's exporter.

    Parameters
    ----------
    images : by which it is traced, (N, C, H, W)
    """
    axes = {name: {0: "N"} for name in (INPUT, OUTPUT)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is an old one
        torch.onnx.export(
            network.eval(), (torch.from_numpy(images),), str(path), dynamo=False,
            opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], dynamic_axes=axes,
        )  # fmt: skip


def write_peer(folder: Path, make: Callable[[], PeerSource] | None, path: Path) -> list[str]:
    """Write what a peer starts from, or why that cannot be had; returns the notes.

    Parameters
    ----------
    make : opens the network and the images, None where there is no way to either
    path : of the subject, for the message
    """
    reason = f"{path} has no float network to start from"
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
