"""One forward pass of a student: what is rounded, to which fix points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.fake import FakeQuantise
from tutelage.host.quantise.fix_points import BIAS_RANGE, FixPoints
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.quantisers import Quantiser

if TYPE_CHECKING:
    from tutelage.host.quantise.student import Student


class Forward:
    """The fix points in force during a pass, and the rounding to them.

    Attributes
    ----------
    points : empty while an observer is set, which is called instead of rounding
    folded : weight and rounded bias by layer with weights, norms folded; None while norms follow
        the batch's statistics
    exact : the sums must be those of integers
    """

    def __init__(self, student: Student) -> None:
        self.student, self.observer = student, student.observer
        self.points = FixPoints() if self.observer is not None else student.points()
        self.thresholds = list(student.log2_t.unbind())
        for quantiser in student.input_quantisers:
            # A constant, so that the images' threshold has no gradient.
            self.thresholds[quantiser.index] = student.log2_t.new_zeros(())
        self.exact = not student.training and self.observer is None
        deployed = not student.training or student.norm_frozen
        self.folded = self._folded() if deployed else None

    def rounded_weights(self, name: str, weight: Tensor) -> Tensor:
        """Return a layer's weights rounded; as they are while an observer is set."""
        if self.observer is not None:
            return weight
        quantiser = self.student.weight_of[name]
        return self._fake(weight, quantiser, self.points.weights[name])

    def rounded_result(self, layer: Layer, y: Tensor) -> Tensor:
        """Return what a layer computed with its activation, rounded."""
        if layer.ties_fix_points:
            return y
        quantiser = self.student.activation_of[layer.name]
        if self.observer is not None:
            y = nonlinear.apply_nonlinear(layer.nonlinear, y).to(self.student.log2_t.dtype)
            self.observer(quantiser.name, y.detach())
            return y
        fused = self.student.has_fused_relu(layer)
        if not fused:
            if self.exact and nonlinear.passes_float32(layer.nonlinear):
                y = y.double()
            y = nonlinear.apply_nonlinear(layer.nonlinear, y)
        point = self.points.activations[layer.name]
        return self._fake(y, quantiser, point, relu=fused).float()

    def _fake(self, x: Tensor, q: Quantiser, point: int, relu: bool = False) -> Tensor:
        threshold = self.thresholds[q.index]
        y: Tensor = FakeQuantise.apply(x, threshold, point, q.lowest, q.highest, relu)
        return y

    def _folded(self) -> dict[str, tuple[Tensor, Tensor]]:
        """All weights and biases with norms folded; the biases rounded (not while observing)."""
        folded = {name: layer.folded() for name, layer in self.student.convs()}
        if self.observer is not None:
            return folded
        with torch.no_grad():
            # One transfer for all layers, not one per layer.
            largest = torch.stack([bias.abs().max() for _, bias in folded.values()]).tolist()
        untrained = self.student.log2_t.new_zeros(())
        for (name, (weight, bias)), peak in zip(folded.items(), largest, strict=True):
            point = self.points.bias(self.student.layer(name), peak)
            folded[name] = weight, FakeQuantise.apply(bias, untrained, point, *BIAS_RANGE, False)
        return folded
