"""Initial thresholds from calibration images.

The method "minmax" covers the largest magnitude; "mse" chooses the power of two with the least mean
squared error, as the method "diffs" of AMD's quantiser (vai_q_pytorch). With either method the fix
point of the images themselves is the one of least squared error, unless the student was given one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tutelage.host.quantise.quantisers import Quantiser
from tutelage.host.quantise.student import Student

METHODS = ("mse", "minmax")

_SHRINK = 5
"""Number of powers of two below min-max that "mse" tries, for outliers up to 2^5 times the bulk."""

_MOST_VALUES = 1 << 20
"""Most values per threshold that "mse" uses; of more, a random sample of about this size."""


class _Record:
    """Statistics of the values that pass one quantiser: the largest magnitude, and a sample.

    The fraction `share` of the values of each tensor is kept, so that each layer of a group is
    weighted by its number of values.
    """

    def __init__(self, share: float) -> None:
        self.share = min(1.0, share)
        self.largest = 0.0
        self.sample: list[Tensor] = []

    def add(self, values: Tensor, generator: torch.Generator) -> None:
        """Record the values of a tensor of any shape."""
        self.largest = max(self.largest, float(values.abs().max()), key=_nan_last)
        flat = values.reshape(-1)
        if self.share < 1:
            size = (math.ceil(self.share * flat.numel()),)
            chosen = torch.randint(flat.numel(), size, generator=generator)
            flat = flat[chosen.to(flat.device)]
        self.sample.append(flat.float())


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


@torch.no_grad()
def calibrate(
    student: Student, images: Tensor | Sequence[Tensor], method: str = "mse", batch: int = 250
) -> None:
    """Set the thresholds `student.log2_t` from calibration images; nothing else changes.

    Thresholds are set half-way between two powers of two, so that noise in training does not move
    them across one. A threshold whose values are all 0 is not changed, nor are those of the inputs
    if their fix point was given. The same images always give the same thresholds.

    Parameters
    ----------
    student : to be calibrated
    images : normalised images [N, C, H, W]; one such tensor for each input if there are several,
        all with the same N
    method : one of `METHODS`
    batch : number of images that pass through the network at a time

    Raises
    ------
    ValueError
        The method is unknown, there are no images, their numbers differ between the inputs, or a
        value is infinite or NaN.
    """
    if method not in METHODS:
        raise ValueError(f"calibration method {method!r} is not one of {', '.join(METHODS)}")
    given = (images,) if isinstance(images, Tensor) else tuple(images)
    if len({len(inputs) for inputs in given}) != 1 or not len(given[0]):
        raise ValueError("no calibration images, or different numbers for the inputs")
    records = _observe(student, given, batch)
    for quantiser in dict.fromkeys(student.activation_of.values()):
        record = records[quantiser.name]
        values = torch.cat(record.sample)
        if quantiser not in student.input_quantisers:
            _place(student, quantiser, values, record.largest, method)
        elif not student.input_is_given and record.largest > 0:
            point = _input_fix_point(quantiser, values, record.largest)
            student.set_input_fix_point(point, quantiser)
    for name, layer in student.convs():
        weight = layer.folded()[0].flatten()
        _place(student, student.weight_of[name], weight, float(weight.abs().max()), method)


def _observe(student: Student, images: tuple[Tensor, ...], batch: int) -> dict[str, _Record]:
    """Return a record for each quantiser of the values in float arithmetic with folded norms."""
    generator = torch.Generator().manual_seed(0)
    records: dict[str, _Record] = {}
    for quantiser in dict.fromkeys(student.activation_of.values()):
        values = sum(math.prod(student.layer(name).shape) for name in quantiser.members)
        records[quantiser.name] = _Record(_MOST_VALUES / (values * len(images[0])))

    def observe(name: str, values: Tensor) -> None:
        records[name].add(values, generator)

    training = student.training
    student.eval()
    student.observer = observe
    try:
        for start in range(0, len(images[0]), batch):
            student(*(inputs[start : start + batch] for inputs in images))
    finally:
        student.observer = None
        student.train(training)
    return records


def _place(
    student: Student, quantiser: Quantiser, values: Tensor, largest: float, method: str
) -> None:
    """Choose the threshold 2^c and set log2_t to c - 1/2."""
    if largest == 0:
        return
    top = _top(quantiser, largest)
    candidates = [top] if method == "minmax" else range(top - _SHRINK, top + 1)
    best = min(candidates, key=lambda c: _error(quantiser, values, quantiser.magnitude - c))
    student.log2_t[quantiser.index] = best - 0.5


def _input_fix_point(quantiser: Quantiser, values: Tensor, largest: float) -> int:
    """Return the fix point of 8-bit images with the least error.

    Of several, which happens with images of few levels, it is the coarsest one, which clips other
    images least.
    """
    top = _top(quantiser, largest)
    candidates = range(top + _SHRINK, top - _SHRINK - 1, -1)
    best = min(candidates, key=lambda c: _error(quantiser, values, quantiser.magnitude - c))
    return quantiser.magnitude - best + (8 - quantiser.bits)


def _top(quantiser: Quantiser, largest: float) -> int:
    """Return the exponent of the smallest power of two above the largest magnitude."""
    if not math.isfinite(largest):
        raise ValueError(
            f"layer {quantiser.name} computes values that are not finite, even in float; check the "
            "weights, and the mean and std of the images"
        )
    return math.floor(math.log2(largest)) + 1


def _error(quantiser: Quantiser, values: Tensor, fix_point: int) -> float:
    """Return the mean squared error of the quantised values."""
    return float((quantiser.quantise(values, fix_point) - values).square().mean())
