"""Networks of a configuration, made for the images and classes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from tutelage.core.images.input_form import best_fix_point
from tutelage.core.text import counted, shown
from tutelage.host.networks import NetworkError, create_with
from tutelage.host.quantise.graph.failure import failure
from tutelage.host.quantise.student import Student
from tutelage.host.quantise.trace import MISFIT_REMEDY
from tutelage.host.train import checkpoint, weights
from tutelage.host.train.checkpoint import CheckpointError
from tutelage.host.train.config import Config, ConfigError, Network, Training
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.reading import readable_inputs
from tutelage.host.train.features import layers_with_values_of
from tutelage.host.train.student_kinds import STUDENT_KINDS, QuantisedStudent

_CLASSES_SHOWN = 3
"""Most names of classes in a message."""

_OTHER_CHANNELS = {1: 3, 3: 1}
"""Channels of colour images for those of grey ones, and the other way round."""


def make_network(spec: Network, data: DataSet) -> nn.Module:
    """Return a float network for the images and classes of `data`, without loading its weights.

    The network's function gets `in_channels` and `num_classes` if it has such parameters.

    Raises
    ------
    NetworkError
        There is no such network, or its output is not one value for each class.
    """
    classes = len(data.classes)
    offered = {"in_channels": data.shape[0], **({"num_classes": classes} if classes else {})}
    network = create_with(spec.network, spec.options, offered)
    outputs = count_outputs(network, spec.network, data.shape)
    if classes and outputs != classes:
        raise NetworkError(
            f"network {spec.network!r} returns {counted(outputs, 'value')} for an image, but the "
            f"data has {classes} classes: give the network {classes} outputs, or data with "
            f"{outputs} classes"
        )
    return network


def trained_network(spec: Network, data: DataSet) -> nn.Module:
    """Return a float network as `make_network` does, with its initial weights.

    Raises
    ------
    NetworkError
        See `make_network`.
    CheckpointError
        The weights cannot be read, or do not fit the network.
    """
    network = make_network(spec, data)
    load_weights(network, spec, data.shape, data.classes)
    return network


def load_weights(
    network: nn.Module, spec: Network, shape: tuple[int, int, int], classes: Sequence[str] = ()
) -> None:
    """Load the initial weights of `spec` into a network, if it has any.

    Parameters
    ----------
    shape : (C, H, W) of the network's images
    classes : names of the data's classes, if known; for the error message

    Raises
    ------
    CheckpointError
        The weights cannot be read, or do not fit the network.
    """
    if not spec.weights:
        return
    try:
        weights.load(network, Path(spec.weights).expanduser(), spec.part, spec.skip)
    except weights.MisfitError as error:
        rows = error.fit.other_rows(network.state_dict())
        if rows is None or count_outputs(network, spec.network, shape) != rows[1]:
            raise
        raise CheckpointError(_other_classes(error, rows[0], rows[1], classes)) from error


def _other_classes(
    error: weights.MisfitError, there: int, here: int, classes: Sequence[str]
) -> str:
    """Return the message for weights of a network with another number of classes."""
    layer = next(iter(error.fit.misshapen)).rpartition(".")[0]
    start = f"{error.path}: the weights are for {there} classes"
    if len(classes) == here:
        names = shown(", ".join(classes[:_CLASSES_SHOWN]), 120)
        more = ", ..." if here > _CLASSES_SHOWN else ""
        return (
            f"{start}, the images have {here} ({names}{more}): give images of the same classes in "
            f'the same order, or train a new last layer with skip = ["{shown(layer)}."]'
        )
    outputs = counted(here, "output")
    return f"{start}, this network has {outputs}: give it the option for {there} classes"


@torch.no_grad()
def count_outputs(network: nn.Module, name: str, shape: tuple[int, int, int]) -> int:
    """Return how many values a network returns for an image, in evaluation mode.

    Parameters
    ----------
    name : of the network, for messages
    shape : (C, H, W) of the image

    Raises
    ------
    NetworkError
        `network` is not an nn.Module, fails on such an image, or does not return a vector.
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"network {name!r}: its function must return a torch.nn.Module, not "
            f"{type(network).__name__}"
        )
    training = {module: module.training for module in network.modules()}
    network.eval()
    image = torch.zeros(1, *shape)
    try:
        found = network(image)
    except Exception as error:  # the user's code may raise anything
        raise NetworkError(_failure(network, name, image, error)) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    if not isinstance(found, Tensor) or found.dim() != 2:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise NetworkError(
            f"network {name!r} returns {given} for an image: it must return its logits, a tensor "
            "(images, classes)"
        )
    return found.shape[1]


def _failure(network: nn.Module, name: str, image: Tensor, error: Exception) -> str:
    """Return the message for a network that fails on an image, with a remedy."""
    channels, other = image.shape[1], _OTHER_CHANNELS.get(image.shape[1], 0)
    found = failure(network, [image], error)
    if other and _takes(network, image.new_zeros(1, other, *image.shape[2:])):
        colour = "rgb" if other > 1 else "grey"
        return (
            f"network {name!r} takes images of {counted(other, 'channel')}, those of the data have "
            f'{channels}: give colour = "{colour}" in [data], or the network an option for its '
            "channels"
        )
    size = "x".join(map(str, image.shape[1:]))
    remedy = f": {MISFIT_REMEDY} ([data] size)" if found.is_misfit else ""
    return f"network {name!r} fails on an image of {size}: {found.text}{found.place}{remedy}"


def _takes(network: nn.Module, image: Tensor) -> bool:
    """Whether a network does not fail on an image."""
    try:
        network(image)
    except Exception:  # the user's code may raise anything
        return False
    return True


def make_student(config: Config, data: DataSet) -> nn.Module:
    """Return the network to train: the float network, or its calibrated quantised form.

    Raises
    ------
    NetworkError, ConfigError, CheckpointError
        As for `student_and_layers`.
    """
    return student_and_layers(config, data)[0]


def student_and_layers(config: Config, data: DataSet) -> tuple[nn.Module, list[str]]:
    """Return the student of `make_student`, and the names of its layers to distil features to.

    Raises
    ------
    NetworkError, ConfigError, CheckpointError
        The network is unknown, cannot be quantised, or its weights do not fit.
    """
    network = trained_network(config.student, data)
    names = config.features.layers
    if not config.quantises:
        return network, names
    quantisation = config.quantisation
    kind = STUDENT_KINDS[quantisation.quantiser]
    try:
        student = kind.make(
            network, data.shape, quantisation.bits(), best_fix_point(data.form),
            config.student.replace,
        )  # fmt: skip
        if isinstance(student, Student):
            student.check_classifier()
            names = layers_with_values_of(names, network, student) if names else []
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{config.student.network}: {error}") from error
    if quantisation.start:
        checkpoint.load_weights(student, Path(quantisation.start).expanduser())
    if kind.prepare is not None:
        images = readable_inputs(data.take(quantisation.calibration_images))
        try:
            options = quantisation.post_training(trains=bool(config.plan))
            kind.prepare(student, images, options, names)
        except ValueError as error:
            raise ConfigError(f"{config.student.network}: {error}") from error
    return student, names


def prepare_epoch(student: nn.Module, training: Training, epoch: int, epochs: int) -> None:
    """Freeze the norms and round the step sizes of a quantised student, if an epoch requires it.

    A run that is resumed at any epoch continues as if it had not been stopped.

    Parameters
    ----------
    epoch, epochs : index of the epoch that begins, from 0, and number of epochs
    """
    cast("QuantisedStudent", student).freeze_norms(epoch / epochs >= training.freeze_norms)
    if isinstance(student, Student):
        has_real = [_has_real_steps(training, number, epochs) for number in (epoch - 1, epoch)]
        if has_real == [True, False]:
            student.round_steps()
        student.real_steps = has_real[1]


def _has_real_steps(training: Training, epoch: int, epochs: int) -> bool:
    return 0 <= epoch < epochs - 1 and epoch / epochs < training.real_steps
