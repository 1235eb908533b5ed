"""Where thresholds start: post-training quantisation from some calibration images.

"minmax" takes the largest magnitude, "mse" the power of two whose quantisation has the least mean
squared error, as AMD's quantiser does by its method "diffs" (vai_q_pytorch).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from host.quantise.student import Quantiser, Student

METHODS = ("mse", "minmax")

_SHRINK = 5
"""Powers of two below min-max that "mse" tries: outliers of up to 2^5 times the bulk."""

_MOST_VALUES = 1 << 20
"""Values of one activation that are looked at; more are thinned out evenly."""


@torch.no_grad()
def calibrate(student: Student, images: Tensor, method: str = "mse", batch: int = 250) -> None:
    """Set `student.log2_t` from images [N, C, H, W], normalised; nothing else changes.

    Thresholds come to lie half-way between two powers of two, so that training does not flip
    them by noise.

    Raises
    ------
    ValueError
        The method is unknown, or there is no image.
    """
    if method not in METHODS:
        raise ValueError(f"calibration method {method!r} is none of {', '.join(METHODS)}")
    if not len(images):
        raise ValueError("no calibration images")
    observed = _observe(student, images, batch)
    for quantiser in dict.fromkeys(student.activation_of.values()):
        values = observed.get(quantiser.name)
        if values is not None:
            _place(student, quantiser, _thinned(values), method)
    for name, layer in student.convs():
        _place(student, student.weight_of[name], layer.folded()[0].flatten(), method)


def _observe(student: Student, images: Tensor, batch: int) -> dict[str, list[Tensor]]:
    """What passes each quantiser in float arithmetic with folded norms."""
    training = student.training
    student.eval()
    observed: dict[str, list[Tensor]] = {}
    student.observer = observed
    try:
        for start in range(0, len(images), batch):
            student(images[start : start + batch])
    finally:
        student.observer = None
        student.train(training)
    return observed


def _thinned(values: list[Tensor]) -> Tensor:
    total = sum(tensor.numel() for tensor in values)
    step = -(-total // _MOST_VALUES)
    return torch.cat([tensor.flatten()[::step] for tensor in values])


def _place(student: Student, quantiser: Quantiser, values: Tensor, method: str) -> None:
    """Choose the threshold 2^c and set log2_t to c - 1/2."""
    largest = float(values.abs().max())
    if largest == 0:
        return
    top = math.ceil(math.log2(largest))
    candidates = [top] if method == "minmax" else range(top - _SHRINK, top + 1)

    def error(ceiling: int) -> float:
        restored = quantiser.quantise(values, quantiser.magnitude - ceiling)
        return float((restored - values).square().mean())

    student.log2_t[quantiser.index] = min(candidates, key=error) - 0.5
