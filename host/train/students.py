"""The networks that a configuration names, for the images and classes of a data set."""

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
"""Of the names of classes, in a message."""

_OTHER_CHANNELS = {1: 3, 3: 1}
"""Of grey images and of those in colour."""


def make_network(spec: Network, data: DataSet) -> nn.Module:
    """Return a float network for the images and classes of `data`, without its weights.

    Its function gets `in_channels` and `num_classes` where it takes them.

    Raises
    ------
    NetworkError
        There is no such network, or it gives something else than a value for each class.
    """
    classes = len(data.classes)
    offered = {"in_channels": data.shape[0], **({"num_classes": classes} if classes else {})}
    network = create_with(spec.network, spec.options, offered)
    outputs = count_outputs(network, spec.network, data.shape)
    if classes and outputs != classes:
        raise NetworkError(
            f"network {spec.network!r} gives {counted(outputs, 'value')} for an image, the data "
            f"has {classes} classes: give the network {classes} outputs, or data with {outputs} "
            "classes"
        )
    return network


def trained_network(spec: Network, data: DataSet) -> nn.Module:
    """Return a float network as `make_network` does, with the weights that it starts from.

    Raises
    ------
    NetworkError
        See `make_network`.
    CheckpointError
        The weights cannot be read, or do not fit.
    """
    network = make_network(spec, data)
    load_weights(network, spec, data.shape, data.classes)
    return network


def load_weights(
    network: nn.Module, spec: Network, shape: tuple[int, int, int], classes: Sequence[str] = ()
) -> None:
    """Put the weights that a network starts from into it, where there are any.

    Parameters
    ----------
    shape : (C, H, W) of its images
    classes : of the data, where it has labels or a list of names

    Raises
    ------
    CheckpointError
        They cannot be read, or do not fit.
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
    """Say that weights are for another number of classes."""
    layer = next(iter(error.fit.misshapen)).rpartition(".")[0]
    start = f"{error.path}: these are the weights of {there} classes"
    if len(classes) == here:
        names = shown(", ".join(classes[:_CLASSES_SHOWN]), 120)
        more = ", ..." if here > _CLASSES_SHOWN else ""
        return (
            f"{start}, the images have {here} ({names}{more}): give images of the same classes in "
            f'the same order, or to train another last layer skip = ["{shown(layer)}."]'
        )
    outputs = counted(here, "output")
    return f"{start}, this network has {outputs}: give it the option for {there} classes"


@torch.no_grad()
def count_outputs(network: nn.Module, name: str, shape: tuple[int, int, int]) -> int:
    """Return how many values a network gives for an image (C, H, W), in evaluation mode.

    Raises
    ------
    NetworkError
        It is not a network, fails on such an image, or gives something else than a vector.
    """
    if not isinstance(network, nn.Module):
        raise NetworkError(
            f"network {name!r}: its function gives {type(network).__name__}, not a torch.nn.Module"
        )
    training = {module: module.training for module in network.modules()}
    network.eval()
    image = torch.zeros(1, *shape)
    try:
        found = network(image)
    except Exception as error:  # whatever the user's code raises
        raise NetworkError(_failure(network, name, image, error)) from error
    finally:
        for module, mode in training.items():
            module.training = mode
    if not isinstance(found, Tensor) or found.dim() != 2:
        given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise NetworkError(
            f"network {name!r} gives {given} for an image: return its logits, a tensor "
            "(images, classes)"
        )
    return found.shape[1]


def _failure(network: nn.Module, name: str, image: Tensor, error: Exception) -> str:
    """Say why a network fails on an image, and what to do."""
    channels, other = image.shape[1], _OTHER_CHANNELS.get(image.shape[1], 0)
    found = failure(network, [image], error)
    if other and _takes(network, image.new_zeros(1, other, *image.shape[2:])):
        colour = "rgb" if other > 1 else "grey"
        return (
            f"network {name!r} takes images of {counted(other, 'channel')}, the data's have "
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
    except Exception:  # whatever the user's code raises
        return False
    return True


def make_student(config: Config, data: DataSet) -> nn.Module:
    """Return what learns: the float network itself, or its calibrated quantised form.

    Raises
    ------
    NetworkError, ConfigError, CheckpointError
        As `student_and_layers`.
    """
    return student_and_layers(config, data)[0]


def student_and_layers(config: Config, data: DataSet) -> tuple[nn.Module, list[str]]:
    """Return what `make_student` does, and its layers whose features are compared with a teacher's.

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
            kind.prepare(student, images, quantisation.post_training(bool(config.plan)))
        except ValueError as error:
            raise ConfigError(f"{config.student.network}: {error}") from error
    return student, names


def prepare_epoch(student: nn.Module, training: Training, epoch: int, epochs: int) -> None:
    """Set what of a quantised student changes in the course of a run, before an epoch of it.

    A run that is resumed at any epoch goes on as if it had not been stopped.

    Parameters
    ----------
    epoch, epochs : which it is, from 0, and how many there are
    """
    cast("QuantisedStudent", student).freeze_norms(epoch / epochs >= training.freeze_norms)
    if isinstance(student, Student):
        has_real = [_has_real_steps(training, number, epochs) for number in (epoch - 1, epoch)]
        if has_real == [True, False]:
            student.round_steps()
        student.real_steps = has_real[1]


def _has_real_steps(training: Training, epoch: int, epochs: int) -> bool:
    return 0 <= epoch < epochs - 1 and epoch / epochs < training.real_steps
