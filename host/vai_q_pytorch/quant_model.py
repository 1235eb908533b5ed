"""The network that a script runs instead of its own: `torch_quantizer.quant_model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.host.quantise.student import Student
from tutelage.host.vai_q_pytorch.calibration_images import KeptImages


@dataclass(frozen=True)
class Outputs:
    """The form of a network's result.

    Attributes
    ----------
    shapes : shape of each output, without the batch dimension
    kind : type of the result: Tensor, tuple or list
    """

    shapes: tuple[tuple[int, ...], ...]
    kind: type

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, inputs: tuple[Tensor, ...]) -> Outputs:
        """Run a network in evaluation mode and return the form of its result.

        The network's own modes are restored afterwards.
        """
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
        """Return a student's result in the form that the network returns."""
        values = (found,) if isinstance(found, Tensor) else found
        own = [x.reshape(len(x), *shape) for x, shape in zip(values, self.shapes, strict=True)]
        return own[0] if issubclass(self.kind, Tensor) else own if self.kind is list else tuple(own)


class QuantModel(nn.Module):
    """A quantised network that is always in evaluation mode and takes batches of any size.

    Parameters
    ----------
    student : the quantised network
    outputs : form of the result of the script's own network

    Attributes
    ----------
    kept : sample of the images that pass, for calibration; None outside calibration
    rounds : True: compute what the DPU computes, bit for bit; False: compute in float
    """

    def __init__(self, student: Student, outputs: Outputs) -> None:
        super().__init__()
        self.student, self.outputs = student, outputs
        self.kept: KeptImages | None = None
        self.rounds = True

    def train(self, mode: bool = True) -> QuantModel:
        """Stay in evaluation mode, since this network computes what is deployed."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Any:
        """Return the result for inputs (N, C, H, W), in the form of the script's own network."""
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
    """Observe nothing. A student with an observer does not round."""
