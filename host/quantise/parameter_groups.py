"""Parameter groups for optimisers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from tutelage.host.quantise.student import Student

THRESHOLD_LR = 1e-3
"""Default learning rate of thresholds, about the change of log2 t in one step of Adam.

Jain et al. 2020 use 1e-2 and freeze thresholds one by one. Without that, 1e-2 cost a student of 2
bits 4 points on CIFAR-10 and 3 on Fashion-MNIST (docs/explanation/study.md).
"""


def parameter_groups(
    student: Student, lr: float, *, threshold_lr: float = THRESHOLD_LR, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return three parameter groups: kernels; biases and norms; thresholds.

        optimiser = torch.optim.Adam(tutelage.parameter_groups(student, lr=1e-4))

    The thresholds are base-2 logarithms, and converge best with Adam, whose steps do not depend on
    the magnitude of the gradient (Jain et al. 2020, arXiv:1903.08066).

    Parameters
    ----------
    student : a quantised network
    lr : learning rate of kernels, biases and norms
    threshold_lr : learning rate of thresholds; 0 keeps their values from calibration
    weight_decay : of kernels, the parameters of more than one dimension; the others have none

    Returns
    -------
    list[dict[str, Any]]
        Three dicts with "params", "lr" and "weight_decay", for the optimisers of `torch.optim`
    """
    thresholds = student.thresholds()
    return [
        *weight_groups(student, weight_decay, without=thresholds, lr=lr),
        {"params": [*thresholds.values()], "lr": threshold_lr, "weight_decay": 0.0},
    ]


def weight_groups(
    network: nn.Module, weight_decay: float, without: Collection[str] = (), **more: float
) -> list[dict[str, Any]]:
    """Return two parameter groups: kernels with weight decay, biases and norms without.

    Parameters
    ----------
    network : the network
    weight_decay : of kernels, the parameters of more than one dimension
    without : names of parameters to leave out
    more : further settings for both groups, such as lr
    """
    named = [(n, p) for n, p in network.named_parameters() if n not in without]
    kernels, others = [p for _, p in named if p.ndim > 1], [p for _, p in named if p.ndim <= 1]
    return [
        {"params": kernels, "weight_decay": weight_decay, **more},
        {"params": others, "weight_decay": 0.0, **more},
    ]
