"""Losses of student and teacher for a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.host.networks import NetworkError
from tutelage.host.quantise.student import Student
from tutelage.host.train.config import Config, ConfigError
from tutelage.host.train.features import Taps, attention_distance
from tutelage.host.train.kept_logits import KeptLogits
from tutelage.host.train.methods import Phase, phase_losses
from tutelage.host.train.oscillation import damping, rising

Forward = Callable[[Tensor], Any]
"""A network, or another form of its forward pass, such as a compiled one."""


class Losses(NamedTuple):
    """Losses of a batch.

    Attributes
    ----------
    logits : of the student, (N, classes)
    student : loss of the student, a scalar
    teacher : loss of a teacher that learns, a scalar; else None
    """

    logits: Tensor
    student: Tensor
    teacher: Tensor | None

    @property
    def total(self) -> Tensor:
        """The loss to differentiate; in each loss the other network is a constant."""
        return self.student if self.teacher is None else self.student + self.teacher


class Teaching:
    """Losses of a run.

    Parameters
    ----------
    config : of the run
    student, teacher : forward passes, compiled or wrapped for several processes if need be
    bare_student, bare_teacher : the networks without wrappers
    layers : names of the student's layers to distil features to
    class_weights : (classes,), of the cross entropy with the labels
    kept_logits : logits of a frozen teacher for all training images, if they are kept

    Raises
    ------
    ConfigError
        A network has no module of a name in [features].
    """

    def __init__(
        self, config: Config, student: Forward, teacher: Forward | None,
        bare_student: nn.Module, bare_teacher: nn.Module | None, layers: list[str],
        class_weights: Tensor | None, kept_logits: KeptLogits | None = None,
    ) -> None:  # fmt: skip
        self._config, self._class_weights = config, class_weights
        self._kept_logits = kept_logits
        self._student, self._teacher, self._bare = student, teacher, bare_student
        self._taps: tuple[Taps, Taps] | None = None
        features = config.features
        if features.layers and bare_teacher is not None:
            names = features.teacher_layers or features.layers
            try:
                self._taps = Taps(bare_student, layers), Taps(bare_teacher, names)
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def losses(
        self, phase: Phase, images: Tensor, labels: Tensor, rows: Tensor, progress: float
    ) -> Losses:
        """Return the losses of a batch.

        Parameters
        ----------
        images : inputs of both networks, (N, C, H, W), mixed if the configuration says so
        labels : int64 (N,), or soft labels (N, classes)
        rows : int64 (N,), indices of the images in the training set
        progress : of the run, 0 to 1

        Raises
        ------
        NetworkError
            A network does not return a tensor.
        """
        training = self._config.training
        logits = _logits(self._student, images, self._config.student.network)
        taught = self._taught(phase, images, rows)
        loss, of_teacher = phase_losses(
            phase, logits, taught, labels, training.temperature, training.label_smoothing,
            self._class_weights,
        )  # fmt: skip
        if self._taps is not None and phase.distil:
            own, others = (taps.take() for taps in self._taps)
            distance = attention_distance(own, others)
            loss = loss + phase.distil * self._config.features.weight * distance
        if training.damping and isinstance(self._bare, Student):
            loss = loss + training.damping * rising(progress) * damping(self._bare)
        return Losses(logits, loss, of_teacher)

    def _taught(self, phase: Phase, images: Tensor, rows: Tensor) -> Tensor | None:
        """Return the teacher's logits, with a graph only if it learns."""
        if phase.teacher == "none" or self._teacher is None:
            return None
        if phase.teacher == "learns":
            return _logits(self._teacher, images, self._config.teacher.network)
        if self._kept_logits is not None:
            return self._kept_logits.of(rows)
        with torch.no_grad():
            found: Tensor = self._teacher(images)
            return found.float()


def _logits(network: Forward, images: Tensor, name: str) -> Tensor:
    """Return the logits of a network in training mode; refuse auxiliary logits beside them."""
    found = network(images)
    if not isinstance(found, Tensor):
        raise NetworkError(
            f"network {name!r} returns {type(found).__name__} in training mode: it must return its "
            "logits only, for example by an option that leaves auxiliary heads out"
        )
    return found.float()  # autocast may return fewer bits
