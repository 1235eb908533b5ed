"""The networks that a configuration names, for the images and classes of a data set."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tutelage.core.images.input_form import best_fix_point
from tutelage.host.networks import create
from tutelage.host.train import checkpoint
from tutelage.host.train.config import Config, ConfigError, Network
from tutelage.host.train.data import DataSet
from tutelage.host.train.data.reading import readable_inputs
from tutelage.host.train.student_kinds import STUDENT_KINDS


def make_network(spec: Network, data: DataSet) -> nn.Module:
    """Return a float network for the images and classes of `data`; raises NetworkError."""
    options = {"in_channels": data.shape[0], "num_classes": len(data.classes), **spec.options}
    return create(spec.network, **options)


def make_student(config: Config, data: DataSet) -> nn.Module:
    """Return what learns: the float network itself, or its calibrated quantised form.

    Raises
    ------
    NetworkError, ConfigError, CheckpointError
        The network is unknown, cannot be quantised, or its weights do not fit.
    """
    network = make_network(config.student, data)
    if config.student.weights:
        checkpoint.load_weights(network, Path(config.student.weights))
    if not config.quantises:
        return network
    quantisation = config.quantisation
    kind = STUDENT_KINDS[quantisation.quantiser]
    try:
        student = kind.make(network, data.shape, quantisation.bits(), best_fix_point(data.form))
    except (ValueError, ImportError) as error:
        raise ConfigError(f"{config.student.network}: {error}") from error
    if kind.calibrate is not None:
        images = readable_inputs(data.take(quantisation.calibration_images))
        kind.calibrate(student, images, quantisation.calibration)
    return student
