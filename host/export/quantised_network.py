"""Post-training quantisation of a network that is trained already, behind `tutelage.quantise`.

    network = torchvision.models.resnet18(weights="DEFAULT")
    quantised = tutelage.quantise(network, "photos/", (3, 224, 224),
                                  mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    quantised.save("models/resnet18", labels)
    tutelage.load("models/resnet18").classify("cat.png")

Some images are enough (host/quantise/ptq); nothing is trained. Where that costs
too much accuracy, `tutelage.train` goes on with a teacher.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.files import sha256_of
from tutelage.core.images.fitter import ImageFitter
from tutelage.core.images.image_files import find_images
from tutelage.core.images.input_form import FormError, InputForm, best_fix_point
from tutelage.core.model_package import (
    COMPILED,
    DESCRIPTION,
    QUANTISED,
    Description,
    check_labels,
    write_description,
)
from tutelage.host.compile.compilation import CompileOptions, compile_model, plan_compile
from tutelage.host.compile.target import EMULATOR
from tutelage.host.export.model_directory import deployable_graph, scratch_inside
from tutelage.host.quantise.ptq.post_training import PostTraining, post_training
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.train.data import DataError, DataSet
from tutelage.host.train.data.data_set import make_form, normalise
from tutelage.host.train.data.formats.folder import FolderFormat
from tutelage.host.train.data.image_io import read_bgr
from tutelage.host.train.evaluation import accuracy

CALIBRATION_IMAGES = 1000


@dataclass(frozen=True)
class QuantisedNetwork:
    """A network whose weights and activations are integers times powers of two.

    Attributes
    ----------
    student : the network itself, in evaluation mode: images (N, C, H, W) to the logits that the
        DPU computes, bit for bit
    form : how a picture becomes its input
    """

    student: Student
    form: InputForm

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of normalised images (N, C, H, W)."""
        with torch.no_grad():
            logits: Tensor = self.student(images)
        return logits

    def accuracy(self, data: DataSet) -> float:
        """Return the top-1 accuracy on labelled images, in percent."""
        return accuracy(self.student, data)

    def save(
        self, folder: str | os.PathLike[str], labels: Sequence[str] = (), allow_cpu: bool = False
    ) -> None:
        """Write a model directory, for `tutelage.load`, `classify`, and `compile` for a board.

        Parameters
        ----------
        folder : gets quantised.xmodel, model.toml, and model.xmodel, which is compiled for the
            emulator
        labels : one for each output; numbers by default
        allow_cpu : also take ops that the DPU leaves to the CPU

        Raises
        ------
        NotDeployable, ExportError
            The DPU does not compute this network, or the folder cannot be written.
        PackageError
            A label is empty.
        ValueError
            There are more or fewer labels than outputs.
        """
        outputs = int(np.prod(self.student.layer(self.student.output).shape))
        labels = tuple(labels) or tuple(map(str, range(outputs)))
        if len(labels) != outputs:
            raise ValueError(f"{len(labels)} labels, the network has {outputs} outputs")
        check_labels(labels, "labels")
        folder = Path(folder)
        graph, _ = deployable_graph(self.student, "network", allow_cpu=allow_cpu)
        with scratch_inside(folder) as scratch:
            graph.serialize(scratch / QUANTISED)
            sums = {QUANTISED: sha256_of(scratch / QUANTISED)}
            bits = self.student.bits
            provenance = {"method": "ptq", "bits": f"W{bits.weights}A{bits.activations}"}
            activation = self.student.activation
            description = Description(
                self.form, labels, activation, provenance=provenance, checksums=sums
            )
            write_description(scratch / DESCRIPTION, description)
            (folder / COMPILED).unlink(missing_ok=True)  # of another network
            for name in (QUANTISED, DESCRIPTION):
                (scratch / name).replace(folder / name)
        plan = plan_compile(folder, None, CompileOptions(EMULATOR))
        compile_model(plan, say=_nothing)


def _nothing(text: str) -> None:
    """Take what a command line would print."""


def quantise(
    network: nn.Module,
    images: str | os.PathLike[str] | Tensor,
    input_shape: tuple[int, int, int],
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    bits: Bits | None = None,
    method: str = "mse",
    options: PostTraining | None = None,
) -> QuantisedNetwork:
    """Quantise a trained network; the network itself stays as it is.

    Parameters
    ----------
    network : a classifier (N, C, H, W) -> (N, classes) that torch.fx can trace
    images : directory with calibration pictures in it or below it, of which CALIBRATION_IMAGES are
        taken; or uint8 (N, C, H, W), RGB or grey
    input_shape : (C, H, W); pictures are cropped to their middle part of that shape and resized
    mean, std : of the network's input, of pixels in 0..1 as torchvision has them; without them the
        input is (v - 128) / 128
    bits : bit widths, 8 by default
    method : where thresholds start, "mse" or "minmax"
    options : what else is done without training, all of it by default; has a method of its own

    Raises
    ------
    UnsupportedOp
        The network has an operation that the DPU does not have.
    DataError
        There are no pictures, or one of them cannot be read.
    FormError
        Shape, mean and std do not go together.
    """
    if input_shape[0] not in (1, 3):
        raise FormError(f"input_shape {tuple(input_shape)}: (C, H, W), with 1 or 3 channels")
    form = make_form(input_shape, mean, std, crop=FolderFormat.crop)
    pixels = images if isinstance(images, Tensor) else read_pictures(Path(images), form)
    if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != tuple(input_shape):
        shape = f"{pixels.dtype} {list(pixels.shape)}"
        raise DataError(f"calibration images are {shape}, not uint8 (N, {input_shape})")
    student = Student(network.eval(), input_shape, bits, best_fix_point(form))
    student.check_classifier()
    post_training(student, normalise(pixels, form), options or PostTraining(method))
    return QuantisedNetwork(student.eval(), form)


def read_pictures(folder: Path, form: InputForm, most: int = CALIBRATION_IMAGES) -> Tensor:
    """Read pictures of a directory and those below it, evenly spread where there are more.

    Returns
    -------
    uint8 (N, C, H, W) with N <= `most`

    Raises
    ------
    DataError
        There are none, or one of them cannot be read.
    """
    try:
        paths = find_images(folder).images
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from error
    if not paths:
        raise DataError(f"{folder}: no images in this directory or below it")
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))
    fit = ImageFitter(form)
    pixels = np.empty((len(chosen), form.height, form.width, form.channels), np.uint8)
    for target, index in zip(pixels, chosen, strict=True):
        target[...] = fit(read_bgr(paths[index]))
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)
