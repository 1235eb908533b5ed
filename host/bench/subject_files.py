"""Directory that every platform's process reads: the student in several formats, and the images.

float32.onnx         the student's rounded parameters as float32; activations are not rounded
int8.onnx            QuantizeLinear and DequantizeLinear, as `tutelage export` writes it
int8-weights.onnx    the same with int8 weights, for processors with VNNI
int8-tensorrt.onnx   the same with int8 weights and activations, and float32 biases
student.xmodel       for the emulation
network.onnx         the float network that another quantiser starts from
calibration.npy      its calibration images, normalised, (N, C, H, W)
images.npz           the images as in memory, BGR, of any size, and their labels
input.json           how an image becomes the network's input

For a file that could not be made there is a text file NAME.absent with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.core.images.input_form import InputForm

FLOAT32_FILE, INT8_FILE = "float32.onnx", "int8.onnx"
INT8_WEIGHTS_FILE, TENSORRT_FILE = "int8-weights.onnx", "int8-tensorrt.onnx"
NETWORK_FILE, CALIBRATION_FILE = "network.onnx", "calibration.npy"
XMODEL_FILE, IMAGES_FILE, INPUT_FILE = "student.xmodel", "images.npz", "input.json"

UNKNOWN = -1
"""Label of an image whose class is not known."""

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Images:
    """Images that every platform classifies.

    Attributes
    ----------
    pixels : uint8 (H, W, 3) each, BGR
    labels : int64 (N,); UNKNOWN for an image whose class is not known
    source : where they come from, for the reader
    """

    pixels: Sequence[Image]
    labels: NDArray[np.int64]
    source: str = ""


def write_form(folder: Path, form: InputForm) -> None:
    """Write input.json."""
    (folder / INPUT_FILE).write_text(json.dumps(asdict(form)), encoding="utf-8")


def read_form(folder: Path) -> InputForm:
    """Read input.json."""
    table = json.loads((folder / INPUT_FILE).read_text(encoding="utf-8"))
    table |= {name: tuple(table[name]) for name in ("mean", "scale")}
    return InputForm(**table)


def write_images(folder: Path, images: Images) -> None:
    """Write images.npz: the pixels of all images, concatenated, their shapes and their labels."""
    shapes = np.array([image.shape for image in images.pixels], np.int64).reshape(-1, 3)
    flat = np.concatenate([np.asarray(image).reshape(-1) for image in images.pixels])
    np.savez(folder / IMAGES_FILE, pixels=flat, shapes=shapes, labels=images.labels)


def read_images(folder: Path) -> Images:
    """Read images.npz; the images are views of one array."""
    with np.load(folder / IMAGES_FILE, allow_pickle=False) as file:
        pixels, shapes, labels = file["pixels"], file["shapes"], file["labels"]
    ends = np.cumsum(shapes.prod(axis=1))
    parts = np.split(pixels, ends[:-1])
    return Images([p.reshape(s) for p, s in zip(parts, shapes, strict=True)], labels)
