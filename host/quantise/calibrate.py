"""Where thresholds start: post-training quantisation from some calibration images.

"minmax" takes the largest magnitude, "mse" the power of two whose quantisation has the least mean
squared error, as AMD's quantiser does by its method "diffs" (vai_q_pytorch). The images' own fix
point is taken by the least squared error with either method, unless the student was given one.
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
"""Powers of two below min-max that "mse" tries: outliers of up to 2^5 times the bulk."""

_MOST_VALUES = 1 << 20
"""Values of one threshold that "mse" looks at; of more, a random sample of about this size."""


class _Record:
    """What passes one quantiser: the largest magnitude of all, and a sample.

    `share` of the values of each tensor is kept, so that every layer of a group counts as much
    as it has values.
    """

    def __init__(self, share: float) -> None:
        self.share = min(1.0, share)
        self.largest = 0.0
        self.sample: list[Tensor] = []

    def add(self, values: Tensor, generator: torch.Generator) -> None:
        """Take a tensor of any shape."""
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
    """Set `student.log2_t` from images [N, C, H, W], normalised; nothing else changes.

    A network of several inputs takes a sequence of as many tensors, all of the same N.

    Thresholds are set half-way between two powers of two, so that training does not flip them by
    noise. One whose values are all 0 stays, and so do the images' own if their fix point was given.
    The same images give the same thresholds; only `batch` of them pass through the network at a
    time.

    Raises
    ------
    ValueError
        The method is unknown, there is no image, or a value is infinite or not a number.
    """
    if method not in METHODS:
        raise ValueError(f"calibration method {method!r} is not one of {', '.join(METHODS)}")
    given = (images,) if isinstance(images, Tensor) else tuple(images)
    if len({len(inputs) for inputs in given}) != 1 or not len(given[0]):
        raise ValueError("no calibration images, or not as many for each input")
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
    """By quantiser, what passes it in float arithmetic with folded norms."""
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
    """The fix point of 8-bit images; of equal ones the coarsest, which clips other images least.

    Where few levels occur, as in grey pictures, several fix points have no error.
    """
    top = _top(quantiser, largest)
    candidates = range(top + _SHRINK, top - _SHRINK - 1, -1)
    best = min(candidates, key=lambda c: _error(quantiser, values, quantiser.magnitude - c))
    return quantiser.magnitude - best + (8 - quantiser.bits)


def _top(quantiser: Quantiser, largest: float) -> int:
    """The exponent of the least power of two above the largest magnitude."""
    if not math.isfinite(largest):
        raise ValueError(
            f"layer {quantiser.name} gives values that are not finite in float already: look at "
            "the weights, and at mean and std of the images"
        )
    return math.floor(math.log2(largest)) + 1


def _error(quantiser: Quantiser, values: Tensor, fix_point: int) -> float:
    """The mean squared error of quantised values."""
    return float((quantiser.quantise(values, fix_point) - values).square().mean())
