"""Fine-tuning of weights without labels, on some hundred images, as AMD's `fast_finetune` is for.

AMD's AdaQuant tunes layer by layer. Here the whole network is tuned at once, so that its outputs
come near the float network's (their mean squared difference), with thresholds where calibration put
them. What is no better than before is not kept.
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
"""One pass over the images, but not fewer and not more steps than these."""

LR = 2e-5
"""Adam's; weights move by about this in a step, a small part of the step of 8-bit weights."""


def fast_finetune(
    student: Student, network: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[float, float]:
    """Tune the weights of a calibrated student; return its error before and after.

    Parameters
    ----------
    student : in evaluation mode, in which it stays
    network : the float network, in evaluation mode
    inputs : (N, C, H, W) of each input, normalised

    Returns
    -------
    squared difference of the outputs from the float network's, relative to the latter's squares
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
    """The student's and the network's value of each output."""
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
