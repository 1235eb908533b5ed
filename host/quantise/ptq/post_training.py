"""Everything that is done to a student from some images, without labels.

    post_training(student, images)                                    # the defaults
    post_training(student, images, PostTraining(rounding="nearest"))

Scales of channels come first, since all that follows depends on them; then thresholds; then the
layers in their order: each one's weights, then its bias.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.host.quantise.calibrate import METHODS as CALIBRATIONS
from tutelage.host.quantise.calibrate import calibrate
from tutelage.host.quantise.ptq.bias_correction import correct_bias
from tutelage.host.quantise.ptq.channels import shared_layers
from tutelage.host.quantise.ptq.equalise import equalise
from tutelage.host.quantise.ptq.lockstep import lockstep
from tutelage.host.quantise.ptq.passes import FloatPass, evaluating, outputs, split, spread
from tutelage.host.quantise.ptq.rounding import round_layer
from tutelage.host.quantise.student import Student

ROUNDINGS = ("nearest", "adaround")

_WEIGHTS = {"nearest": 1.0, "adaround": 0.3}
"""What an error of weights counts for the scales: adaround leaves a part of it."""

_BATCH = 16
"""Images that pass through the network together."""

_TRIED = 64
"""Images that say whether scales are better than before."""

_SCALED_BY = 256
"""Images whose largest values decide the scales."""


@dataclass(frozen=True)
class PostTraining:
    """What is done to a student.

    Attributes
    ----------
    calibration : how thresholds start, one of `tutelage.host.quantise.calibrate.METHODS`
    equalise : scale channels (host/quantise/ptq/equalise.py)
    rounding : of weights: "nearest", or "adaround" (host/quantise/ptq/rounding.py)
    bias_correction : see host/quantise/ptq/bias_correction.py

    Raises
    ------
    ValueError
        The calibration or the rounding is unknown.
    """

    calibration: str = "mse"
    equalise: bool = True
    rounding: str = "adaround"
    bias_correction: bool = True

    def __post_init__(self) -> None:
        for name, known in (("calibration", CALIBRATIONS), ("rounding", ROUNDINGS)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(known)}")


def post_training(
    student: Student, images: Tensor | Sequence[Tensor], options: PostTraining | None = None
) -> None:
    """Quantise a student as well as is possible without training, in place.

    Parameters
    ----------
    student : of a trained network; what calibrate() set before is set again
    images : [N, C, H, W], normalised, on any device; of a network of several inputs a sequence of
        them. The same images give the same student

    Raises
    ------
    ValueError
        There is no image, or a value is infinite or not a number.
    """
    options = options or PostTraining()
    given = (images,) if isinstance(images, Tensor) else images
    images = tuple(inputs.to(student.log2_t.device) for inputs in given)
    calibrate(student, images, options.calibration)
    if options.equalise:
        _equalise(student, images, options)
    with evaluating(student):
        _correct(student, images, options)


def _equalise(student: Student, images: Sequence[Tensor], options: PostTraining) -> None:
    """Equalise, unless the outputs get worse: some networks come with scales that suit them."""
    some = spread(images, _TRIED)
    with evaluating(student):
        wanted = outputs(FloatPass(student), some, _BATCH)
        before = copy.deepcopy(student.state_dict())
        error = _error(student, some, wanted)
    equalise(student, spread(images, _SCALED_BY), _WEIGHTS[options.rounding])
    calibrate(student, images, options.calibration)
    with evaluating(student):
        if _error(student, some, wanted) > error:
            student.load_state_dict(before)


@torch.no_grad()
def _error(student: Student, images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The squared error of the outputs with everything rounded, to the nearest."""
    total, start = 0.0, 0
    for part in split(images, _BATCH):
        found = student(*part)
        found = (found,) if isinstance(found, Tensor) else found
        end = start + len(part[0])
        for y, real in zip(found, wanted, strict=True):
            total += float((y - real[start:end]).square().sum())
        start = end
    return total


def _correct(student: Student, images: Sequence[Tensor], options: PostTraining) -> None:
    """Round weights and correct biases, layer by layer."""
    if options.rounding == "nearest" and not options.bias_correction:
        return
    shared = shared_layers(student)
    for step in lockstep(student, images, _BATCH):
        if step.conv.name in shared:
            continue  # what suits one place need not suit the other
        chosen = options.rounding == "adaround" and round_layer(student, step)
        if options.bias_correction and not chosen:
            correct_bias(student, step)
