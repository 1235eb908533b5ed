"""The parameters of a network in groups, as optimisers take them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from tutelage.host.quantise.student import Student

THRESHOLD_LR = 1e-2
"""Usual rate of thresholds, which are logarithms: Adam moves one by about this much in a step."""


def parameter_groups(
    student: Student, lr: float, *, threshold_lr: float = THRESHOLD_LR, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Return three groups for an optimiser: kernels, biases and norms, thresholds.

        optimiser = torch.optim.Adam(tutelage.parameter_groups(student, lr=1e-4))

    The thresholds are logarithms to the base 2 and converge best with Adam, whose steps do not
    depend on the size of the gradient (Jain et al. 2019, arXiv:1903.08066).

    Parameters
    ----------
    student : a quantised network
    lr : of weights, biases and norms
    threshold_lr : of thresholds; 0 keeps them where calibration put them
    weight_decay : of kernels, which are the parameters of more than one axis; all others have none
    """
    thresholds = student.thresholds()
    return [
        *weight_groups(student, weight_decay, without=thresholds, lr=lr),
        {"params": [*thresholds.values()], "lr": threshold_lr, "weight_decay": 0.0},
    ]


def weight_groups(
    network: nn.Module, weight_decay: float, without: Collection[str] = (), **more: float
) -> list[dict[str, Any]]:
    """Return the group of kernels, which decay, and that of biases and norms, which do not.

    Parameters
    ----------
    without : names of parameters that belong to neither
    more : further settings of both groups
    """
    named = [(n, p) for n, p in network.named_parameters() if n not in without]
    kernels, others = [p for _, p in named if p.ndim > 1], [p for _, p in named if p.ndim <= 1]
    return [
        {"params": kernels, "weight_decay": weight_decay, **more},
        {"params": others, "weight_decay": 0.0, **more},
    ]
