"""The network that a script runs in place of its own: `torch_quantizer.quant_model`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.student import Student
from tutelage.host.vai_q_pytorch.calibration_images import KeptImages


class QuantModel(nn.Module):
    """A quantised network that always is in evaluation mode, on batches of any size.

    Parameters
    ----------
    student : what it computes
    output_shape : of one image's result in the script's own network, without the batch

    Attributes
    ----------
    kept : takes every image that passes, None where nothing is to be calibrated
    rounds : what the DPU computes, bit for bit; the float network while this is False
    """

    def __init__(self, student: Student, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.student = student
        self.output_shape = output_shape
        self.kept: KeptImages | None = None
        self.rounds = True

    def train(self, mode: bool = True) -> QuantModel:
        """Change nothing: it computes what is deployed, whatever a script says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the network's result, in its own shape."""
        device = self.student.log2_t.device
        inputs = tuple(x.to(device, torch.float32) for x in inputs)
        if self.kept is not None:
            self.kept.add(inputs)
        self.student.observer = None if self.rounds else _ignore
        try:
            found: Tensor = self.student(*inputs)
        finally:
            self.student.observer = None
        return found.reshape(len(found), *self.output_shape)


def _ignore(name: str, values: Tensor) -> None:
    """Observe nothing: while a student has an observer it rounds nothing."""


@torch.no_grad()
def output_shape_of(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[int, ...]:
    """Return the shape of one image's result."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        found: Any = module(*inputs)
    finally:
        for part, mode in training.items():
            part.training = mode
    return tuple(found.shape[1:])
