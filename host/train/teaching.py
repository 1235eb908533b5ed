"""What is minimised in a step: the losses of student and teacher for a batch."""

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
"""A network, or its forward pass in another form, such as compiled."""


class Losses(NamedTuple):
    """Of a batch: the student's logits (N, classes), its loss, and a learning teacher's."""

    logits: Tensor
    student: Tensor
    teacher: Tensor | None

    @property
    def total(self) -> Tensor:
        """What the gradients are of; each loss has the other's network as a constant."""
        return self.student if self.teacher is None else self.student + self.teacher


class Teaching:
    """The losses of a run.

    Parameters
    ----------
    config : of the run
    student, teacher : as they are called, such as by several processes
    bare_student, bare_teacher : as they are without several processes
    layers : of the student, whose features are compared with the teacher's
    class_weights : [classes], of the cross entropy with the labels
    kept_logits : a frozen teacher's, of all training images

    Raises
    ------
    ConfigError
        There is no such module whose features are to be compared.
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
        """Return the losses of a batch, the same images being the student's and the teacher's.

        Parameters
        ----------
        images : (N, C, H, W), mixed where that is wanted
        labels : (N,), or soft ones (N, classes)
        rows : (N,), the images' places in the training set
        progress : of the run, 0 to 1
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
        """The teacher's logits, with a graph only where it learns."""
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
    """The logits of a network in training mode, where some give those of auxiliary heads too."""
    found = network(images)
    if not isinstance(found, Tensor):
        raise NetworkError(
            f"network {name!r} gives {type(found).__name__} while it is trained: return its logits "
            "alone, such as by an option that leaves auxiliary heads out"
        )
    return found.float()  # where autocast left fewer bits
