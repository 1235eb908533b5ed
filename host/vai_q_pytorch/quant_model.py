"""The network that a script runs in place of its own: `torch_quantizer.quant_model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.student import Student
from tutelage.host.vai_q_pytorch.calibration_images import KeptImages


@dataclass(frozen=True)
class Outputs:
    """What a network returns.

    Attributes
    ----------
    shapes : of each output for one image, without the batch
    kind : Tensor, tuple or list
    """

    shapes: tuple[tuple[int, ...], ...]
    kind: type

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, inputs: tuple[Tensor, ...]) -> Outputs:
        """Run a network in evaluation mode, which it is not left in."""
        training = {part: part.training for part in module.modules()}
        module.eval()
        try:
            found: Any = module(*inputs)
        finally:
            for part, mode in training.items():
                part.training = mode
        values = (found,) if isinstance(found, Tensor) else tuple(found)
        return cls(tuple(tuple(x.shape[1:]) for x in values), type(found))

    def shaped(self, found: Any) -> Any:
        """Return a student's result as the network returns it."""
        values = (found,) if isinstance(found, Tensor) else found
        own = [x.reshape(len(x), *shape) for x, shape in zip(values, self.shapes, strict=True)]
        return own[0] if issubclass(self.kind, Tensor) else own if self.kind is list else tuple(own)


class QuantModel(nn.Module):
    """A quantised network that always is in evaluation mode, on batches of any size.

    Parameters
    ----------
    student : what it computes
    outputs : of the script's own network

    Attributes
    ----------
    kept : takes every image that passes, None where nothing is to be calibrated
    rounds : what the DPU computes, bit for bit; the float network while this is False
    """

    def __init__(self, student: Student, outputs: Outputs) -> None:
        super().__init__()
        self.student, self.outputs = student, outputs
        self.kept: KeptImages | None = None
        self.rounds = True

    def train(self, mode: bool = True) -> QuantModel:
        """Change nothing: it computes what is deployed, whatever a script says."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Any:
        """Return the network's result, in its own shape."""
        device = self.student.log2_t.device
        inputs = tuple(x.to(device, torch.float32) for x in inputs)
        if self.kept is not None:
            self.kept.add(inputs)
        self.student.observer = None if self.rounds else _ignore
        try:
            found = self.student(*inputs)
        finally:
            self.student.observer = None
        return self.outputs.shaped(found)


def _ignore(name: str, values: Tensor) -> None:
    """Observe nothing: while a student has an observer it rounds nothing."""
