"""Comparison of a network that has no run: a preset or a function of the user's.

    tutelage bench densenet-121 --input 3x224x224

It is quantised post-training, calibrated on the pictures of --images or else on made-up ones. Its
latency and energy do not depend on the weights, its classes do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tutelage.core.images.image_files import class_folders
from tutelage.core.images.input_form import InputForm
from tutelage.host.bench.peer_files import PeerSource, most_images
from tutelage.host.bench.subject import BenchUsageError, Subject, compiled
from tutelage.host.bench.subject_files import UNKNOWN, Images
from tutelage.host.explore.network_operations import read_shape
from tutelage.host.export.calibration_images import read_pictures
from tutelage.host.networks import create_with
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.to_xmodel import to_quantised
from tutelage.host.train import weights as weight_files
from tutelage.host.train.students import count_outputs

MADE_UP_IMAGES = 64
MIDDLE, SCALE = 128.0, 1 / 128
"""Normalisation of pixels, that of training without [data] mean and std."""


@dataclass(frozen=True)
class NetworkRequest:
    """A network by its name.

    Attributes
    ----------
    name : preset, "module:function" or "file.py:function"
    input : shape of its images, "CxHxW"
    weights : file of weights; "" for the initial weights
    images : folder of pictures; "" for made-up ones
    """

    name: str
    input: str
    weights: str = ""
    images: str = ""


def network_subject(request: NetworkRequest) -> Subject:
    """Return a network, quantised, as a subject.

    Raises
    ------
    BenchUsageError, NetworkError, CheckpointError, DataError, UnsupportedOp
        The network, its weights or the images cannot be used.
    """
    shape = read_shape(request.input)
    form = _form(shape)
    torch.manual_seed(0)
    network = create_with(request.name, {}, {"in_channels": shape[0]})
    outputs = count_outputs(network, request.name, shape)
    if request.weights:
        weight_files.load(network, Path(request.weights).expanduser())
    images = _calibration(request.images, form)
    graph = to_quantised(_student(network, shape, images), _graph_name(request.name))
    kind = "pictures" if request.images else "made-up pictures"
    notes = [f"calibrated with {len(images)} {kind}"]
    if not request.weights:
        notes.insert(0, "its weights are random: times, sizes and energy are those of the trained "
                     "network, classes and accuracy are meaningless")  # fmt: skip
    source = PeerSource(network, images)
    return Subject(
        request.name, Path(request.name), form, _labels(request.images, outputs), "", graph,
        compiled(graph), notes=notes, peer=lambda: source, made_up=not request.weights,
    )  # fmt: skip


def made_up_images(form: InputForm, count: int = MADE_UP_IMAGES) -> Images:
    """Return pictures of random pixels, BGR, without labels."""
    pixels = np.random.default_rng(0).integers(
        0, 256, (count, form.height, form.width, 3), np.uint8
    )
    return Images(list(pixels), np.full(count, UNKNOWN, np.int64), f"{count} made-up pictures")


def _form(shape: tuple[int, int, int]) -> InputForm:
    colours = {1: "grey", 3: "rgb"}
    if shape[0] not in colours:
        raise BenchUsageError(f"--input {'x'.join(map(str, shape))}: pictures have 1 or 3 channels")
    return InputForm(shape[2], shape[1], colours[shape[0]], (MIDDLE,), (SCALE,), "center")


def _calibration(folder: str, form: InputForm) -> NDArray[np.float32]:
    """Return normalised pictures, float32 (N, C, H, W)."""
    most = most_images((form.channels, form.height, form.width))
    if folder:
        pixels = read_pictures(Path(folder), form, most).numpy()
    else:
        found = made_up_images(form, min(most, MADE_UP_IMAGES)).pixels
        pixels = np.stack(found).transpose(0, 3, 1, 2)[:, : form.channels]
    return (pixels.astype(np.float32) - np.float32(MIDDLE)) * np.float32(SCALE)


def _student(
    network: nn.Module, shape: tuple[int, int, int], images: NDArray[np.float32]
) -> Student:
    try:
        student = Student(network.eval(), shape, Bits(8, 8))
    except ValueError as error:
        raise BenchUsageError(str(error)) from error
    calibrate(student, torch.from_numpy(images), batch=16)
    return student.eval()


def _graph_name(name: str) -> str:
    return name.rpartition(":")[2].replace("-", "_")


def _labels(folder: str, outputs: int) -> tuple[str, ...]:
    """Return the names of the class folders if there is one for each output, else numbers."""
    names = [path.name for path in class_folders(Path(folder))] if folder else []
    if len(names) == outputs:
        return tuple(names)
    return tuple(str(number) for number in range(outputs))
