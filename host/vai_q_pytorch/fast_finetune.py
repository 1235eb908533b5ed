"""Fine-tuning of weights on a few hundred images without labels, as AMD's `fast_finetune`.

AMD's AdaQuant tunes layer by layer. Here the whole network is tuned at once to minimise the mean
squared difference of its outputs from the float network's; the thresholds from calibration do not
change. Tuned weights are discarded unless they reduce this error.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.host.quantise.student import Student

BATCH = 16
LEAST_STEPS, MOST_STEPS = 100, 400
"""Bounds on the number of steps, which otherwise is one pass over the images."""

LR = 2e-5
"""Adam's learning rate: the change of a weight per step, far below one step of 8-bit weights."""


def fast_finetune(
    student: Student, network: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[float, float]:
    """Tune the weights of a calibrated student; return its error before and after.

    Parameters
    ----------
    student : in evaluation mode, which it is in again afterwards
    network : the float network, in evaluation mode
    inputs : one tensor (N, C, H, W) for each input, normalised

    Returns
    -------
    Two errors, before and after: the sum of squared differences between the student's and the float
    network's outputs, divided by the sum of squares of the float network's outputs.
    """
    before = _error(student, network, inputs)
    state = copy.deepcopy(student.state_dict())
    weights = [p for n, p in student.named_parameters() if n not in student.thresholds()]
    optimiser = torch.optim.Adam(weights, LR)
    frozen = student.norm_frozen
    student.train()
    student.freeze_norms(True)
    try:
        with torch.enable_grad():
            for batch in _batches(inputs, student.log2_t.device):
                pairs = _outputs(student, network, batch)
                loss = torch.stack([F.mse_loss(ours, wanted) for ours, wanted in pairs]).sum()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    finally:
        student.freeze_norms(frozen)
        student.eval()
    after = _error(student, network, inputs)
    if not after < before:
        student.load_state_dict(state)
        after = before
    return before, after


def _batches(inputs: tuple[Tensor, ...], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    count = len(inputs[0])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for step in range(max(LEAST_STEPS, min(MOST_STEPS, -(-count // BATCH)))):
        start = step * BATCH % count
        chosen = order[start : start + BATCH]
        yield tuple(images[chosen].to(device) for images in inputs)


def _outputs(
    student: Student, network: nn.Module, batch: tuple[Tensor, ...]
) -> list[tuple[Tensor, Tensor]]:
    """Return the student's and the network's value of each output."""
    with torch.no_grad():
        wanted = network(*batch)
    found = student(*batch)
    if isinstance(found, Tensor):
        found, wanted = [found], [wanted]
    return [(x.reshape(y.shape), y) for x, y in zip(found, wanted, strict=True)]


@torch.no_grad()
def _error(student: Student, network: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    device, squares, power = student.log2_t.device, 0.0, 0.0
    for batch in zip(*(images.split(BATCH) for images in inputs), strict=True):
        for ours, wanted in _outputs(student, network, tuple(x.to(device) for x in batch)):
            squares += float((ours - wanted).square().sum())
            power += float(wanted.square().sum())
    return squares / max(power, 1e-30)
