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


def fast_finetune(student: Student, network: nn.Module, images: Tensor) -> tuple[float, float]:
    """Tune the weights of a calibrated student; return its error before and after.

    Parameters
    ----------
    student : in evaluation mode, in which it stays
    network : the float network, in evaluation mode
    images : (N, C, H, W), normalised

    Returns
    -------
    mean squared difference of the outputs from the float network's, relative to their variance
    """
    before = _error(student, network, images)
    state = copy.deepcopy(student.state_dict())
    weights = [p for n, p in student.named_parameters() if n not in student.thresholds()]
    optimiser = torch.optim.Adam(weights, LR)
    frozen = student.norm_frozen
    student.train()
    student.freeze_norms(True)
    try:
        with torch.enable_grad():
            for batch in _batches(images.to(student.log2_t.device)):
                with torch.no_grad():
                    wanted = network(batch)
                loss = F.mse_loss(student(batch).reshape(wanted.shape), wanted)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    finally:
        student.freeze_norms(frozen)
        student.eval()
    after = _error(student, network, images)
    if not after < before:
        student.load_state_dict(state)
        after = before
    return before, after


def _batches(images: Tensor) -> Iterator[Tensor]:
    steps = max(LEAST_STEPS, min(MOST_STEPS, -(-len(images) // BATCH)))
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)
    for step in range(steps):
        start = step * BATCH % len(images)
        yield images[order[start : start + BATCH].to(images.device)]


@torch.no_grad()
def _error(student: Student, network: nn.Module, images: Tensor) -> float:
    squares, values = 0.0, []
    for batch in images.split(BATCH):
        batch = batch.to(student.log2_t.device)
        wanted = network(batch)
        squares += float((student(batch).reshape(wanted.shape) - wanted).square().sum())
        values.append(wanted)
    outputs = torch.cat(values)
    return squares / max(float((outputs - outputs.mean()).square().sum()), 1e-30)
