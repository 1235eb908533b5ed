"""Post-training quantisation of a student with some images, without labels.

    post_training(student, images)                                    # the defaults
    post_training(student, images, PostTraining(rounding="nearest"))

The scales of channels are set first, since everything else depends on them, then the thresholds,
and then, layer by layer, the weights and the bias.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
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
"""Factor on the errors of weights when choosing scales; AdaRound removes a part of them."""

_BATCH = 16
"""Number of images that pass through the network at a time."""

_TRIED = 64
"""Number of images on which new scales are compared with the old ones."""

_SCALED_BY = 256
"""Number of images whose largest values determine the scales."""


@dataclass(frozen=True)
class PostTraining:
    """Options of post-training quantisation.

    Attributes
    ----------
    calibration : how thresholds are set, one of `tutelage.host.quantise.calibrate.METHODS`
    equalise : whether to scale channels (host/quantise/ptq/equalise.py)
    rounding : of weights: "nearest", or "adaround" (host/quantise/ptq/rounding.py)
    bias_correction : whether to correct biases (host/quantise/ptq/bias_correction.py)

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
    student: Student,
    images: Tensor | Sequence[Tensor],
    options: PostTraining | None = None,
    fixed: Collection[str] = (),
) -> None:
    """Quantise a student as well as possible without training, in place.

    The same images always give the same student.

    Parameters
    ----------
    student : of a trained network; thresholds set before are replaced
    images : normalised images [N, C, H, W] on any device; one such tensor for each input if there
        are several
    options : None: the defaults
    fixed : names of layers whose channels are not scaled

    Raises
    ------
    ValueError
        There are no images, or a value is infinite or NaN.
    """
    options = options or PostTraining()
    given = (images,) if isinstance(images, Tensor) else images
    images = tuple(inputs.to(student.log2_t.device) for inputs in given)
    calibrate(student, images, options.calibration)
    if options.equalise:
        _equalise(student, images, options, fixed)
    with evaluating(student):
        _correct(student, images, options)


def _equalise(
    student: Student, images: Sequence[Tensor], options: PostTraining, fixed: Collection[str]
) -> None:
    """Equalise, but undo it if the outputs get worse, as some networks have good scales."""
    some = spread(images, _TRIED)
    with evaluating(student):
        wanted = outputs(FloatPass(student), some, _BATCH)
        before = copy.deepcopy(student.state_dict())
        error = _error(student, some, wanted)
    equalise(student, spread(images, _SCALED_BY), _WEIGHTS[options.rounding], fixed)
    calibrate(student, images, options.calibration)
    with evaluating(student):
        if _error(student, some, wanted) > error:
            student.load_state_dict(before)


@torch.no_grad()
def _error(student: Student, images: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the squared error of the outputs, with everything rounded to the nearest."""
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
            continue  # values that fit one use of the weights may not fit the other
        chosen = options.rounding == "adaround" and round_layer(student, step)
        if options.bias_correction and not chosen:
            correct_bias(student, step)
