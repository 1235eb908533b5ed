"""Optimisers of a run and the schedule of their learning rates."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import cast

import torch
from torch import nn

from tutelage.host.quantise.parameter_groups import weight_groups
from tutelage.host.train.config import Config, Training
from tutelage.host.train.student_kinds import QuantisedStudent


def make_optimisers(
    config: Config, student: nn.Module, teacher: nn.Module | None
) -> dict[str, torch.optim.Optimizer]:
    """Return the optimisers by name.

    "student" is SGD for the weights, with weight decay on the kernels; "thresholds" Adam for the
    thresholds of a quantised student; "teacher" SGD for a teacher that learns.
    """
    training = config.training
    thresholds = cast("QuantisedStudent", student).thresholds() if config.quantises else {}
    found: dict[str, torch.optim.Optimizer] = {
        "student": _sgd(student, training.lr, config, thresholds)
    }
    if thresholds:
        found["thresholds"] = torch.optim.Adam(thresholds.values(), training.threshold_lr)
    if teacher is not None and any(phase.teacher == "learns" for phase in config.plan):
        found["teacher"] = _sgd(teacher, training.teacher_lr, config)
    return found


def _sgd(
    network: nn.Module, lr: float, config: Config, without: Collection[str] = ()
) -> torch.optim.Optimizer:
    training = config.training
    groups = weight_groups(network, training.weight_decay, without)
    return torch.optim.SGD(groups, lr, training.momentum, nesterov=training.momentum > 0)


def learning_rates(training: Training, progress: float) -> dict[str, float]:
    """Return the learning rate of each optimiser at `progress` (0..1) of the run.

    It is a cosine from the peak to zero, multiplied by a linear warm-up.
    """
    factor = 0.5 * (1 + math.cos(math.pi * progress))
    factor *= min(1.0, (progress + 1e-3) / training.warmup) if training.warmup else 1.0
    peaks = {"student": training.lr, "teacher": training.teacher_lr}
    peaks["thresholds"] = training.threshold_lr * (progress < training.freeze_thresholds)
    return {name: peak * factor for name, peak in peaks.items()}
