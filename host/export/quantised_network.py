"""Post-training quantisation of a trained network: the implementation of `tutelage.quantise`.

    network = torchvision.models.resnet18(weights="DEFAULT")
    student = tutelage.quantise(network, loader)        # a DataLoader, a list of tensors, ...
    student.train()                                     # optional, to recover accuracy:
    optimiser = torch.optim.Adam(tutelage.parameter_groups(student, lr=1e-5))
    ...                                                 # any loop over student(images)
    torch.save(student.state_dict(), "student.pt")
    tutelage.export(student, "models/resnet18", labels=labels,
                    mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    tutelage.load("models/resnet18").classify("cat.png")

The student is an ordinary nn.Module (host/quantise/student.py). Another process can restore it by
`tutelage.quantise(network, None, (3, 224, 224))` and `load_state_dict`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.core.images.input_form import FormError, InputForm, best_fix_point
from tutelage.host.export.calibration_images import (
    CALIBRATION_IMAGES,
    Batch,
    read_pictures,
    take_images,
)
from tutelage.host.quantise.ptq.post_training import PostTraining, post_training
from tutelage.host.quantise.quantisers import Bits
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.walker import InputShape, input_shapes
from tutelage.host.train.data import DataError
from tutelage.host.train.data.data_set import channel_values, make_form, normalise
from tutelage.host.train.data.formats.folder import FolderFormat

Calibration = str | os.PathLike[str] | Tensor | Iterable[Batch]
"""A directory of pictures, images as one tensor, or batches of images."""


def quantise(
    network: nn.Module,
    calibration: Calibration | None,
    input_shape: InputShape | None = None,
    *,
    bits: Bits | int = 8,
    options: PostTraining | None = None,
    images: int = CALIBRATION_IMAGES,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    form: InputForm | None = None,
    replace: Mapping[str, str] | None = None,
) -> Student:
    """Return the quantised form of a trained network; the network is not modified.

    Parameters
    ----------
    network : (N, C, H, W) -> (N, classes), or with several inputs and outputs; the result is on the
        device of its parameters
    calibration : a directory with pictures in it or below it; images as one tensor; or any iterable
        of batches, such as a DataLoader, each a tensor, (images, labels), or a dict with
        "pixel_values". Float tensors are inputs of the network; uint8 tensors are pixels, grey or
        RGB, which `mean` and `std` (or `form`) normalise. None: do not calibrate, since
        `load_state_dict` follows
    input_shape : (C, H, W), or one for each input; required only for None and for a directory,
        whose pictures are cropped to the centre part of that aspect ratio and resized
    bits : bit widths of weights and activations; a number is the width of the weights between the
        first and the last layer, with 8 bits for everything else
    options : steps of the post-training quantisation; all of them by default
    images : largest number of calibration images; an iterable is not read beyond them
    mean, std : normalisation of the network's input, for pixels in 0..1 as in torchvision. Without
        them pixels become (v - 128) / 128, and for float tensors the input's fix point is measured
    form : how pictures become inputs, instead of `mean` and `std`
    replace : activations that the DPU lacks -> activations that it has, such as
        {"silu": "hardswish"}; train the student afterwards

    Returns
    -------
    Student
        The quantised network in evaluation mode, in which its outputs equal the DPU's bit for bit

    Raises
    ------
    UnsupportedOp
        The network has an operation that the DPU does not support.
    DataError
        There are no images, none of them can be read, or they are not inputs of this network.
    FormError
        Shape, mean and std do not fit together.
    TypeError
        `network` is not a module, or `bits` neither a number nor `Bits`.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network must be a torch.nn.Module, not {type(network).__name__}: give an instance, "
            "such as Net()"
        )
    if not isinstance(bits, Bits | int):
        raise TypeError(f"bits is {bits!r}; it must be a number from 2 to 8, or Bits(weights=4)")
    mean, std = channel_values(mean), channel_values(std)
    if form and (mean or std):
        raise FormError("give mean and std, or form, not both")
    inputs: tuple[Tensor, ...] = ()
    if isinstance(calibration, (str, os.PathLike)):
        form = form or _form(
            _given(input_shape, "pictures of a directory are resized to it"), mean, std
        )
        inputs = (read_pictures(Path(calibration), form, images),)
    elif calibration is not None:
        batches = [calibration] if isinstance(calibration, Tensor) else calibration
        inputs = take_images(network, batches, images)
    shape = _shape(inputs, input_shape)
    if form is None and (mean or std or any(x.dtype == torch.uint8 for x in inputs)):
        form = _form(shape, mean, std)
    if form and [(form.channels, form.height, form.width)] != input_shapes(shape):
        found = form.channels, form.height, form.width
        raise FormError(f"form is for images of {found} (C, H, W), the network's are {shape}")
    widths = bits if isinstance(bits, Bits) else Bits(weights=bits)
    fix_point = None if form is None else best_fix_point(form)
    student = Student(network, shape, widths, fix_point, replace)
    student.form = form
    parameter = next(network.parameters(), None)
    if parameter is not None:
        student.to(parameter.device)
    if inputs:
        post_training(student, tuple(_normalised(x, form) for x in inputs), options)
    return student.eval()


def _given(input_shape: InputShape | None, what: str) -> InputShape:
    if input_shape is None:
        raise DataError(
            f"input_shape=(C, H, W) is missing: {what}: give that of the network, such as "
            "(3, 224, 224)"
        )
    return input_shape


def _form(shape: InputShape, mean: Sequence[float], std: Sequence[float]) -> InputForm:
    shapes = input_shapes(shape)
    if len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][0] not in (1, 3):
        raise FormError(
            f"images of shape {tuple(shape)}: it must be (C, H, W) with 1 or 3 channels"
        )
    channels, height, width = shapes[0]
    return make_form((channels, height, width), mean, std, crop=FolderFormat.crop)


def _shape(inputs: tuple[Tensor, ...], given: InputShape | None) -> InputShape:
    """Return (C, H, W) of the images of each input, which must be `given` unless that is None.

    Raises
    ------
    DataError
        The images have another shape, or are neither float nor uint8.
    """
    if not inputs:
        return _given(given, "without calibration images it is not known")
    shapes = [tuple(images.shape[1:]) for images in inputs]
    fit = given is None or shapes == input_shapes(given)
    for images in inputs:
        known = images.dtype == torch.uint8 or images.is_floating_point()
        if images.ndim != 4 or not known or not fit:
            shape = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            wanted = f" of {tuple(given)}" if given else ""
            raise DataError(
                f"calibration images are {shape}; they must be float or uint8 (N, C, H, W){wanted}"
            )
    return shapes[0] if len(shapes) == 1 else shapes


def _normalised(images: Tensor, form: InputForm | None) -> Tensor:
    if images.dtype != torch.uint8:
        return images.float()
    assert form is not None
    return normalise(images, form)
