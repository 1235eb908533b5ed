"""The rounding of parameters and activations in one forward pass of a student."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from tutelage.host.networks.norm import batch_norm, world_size
from tutelage.host.quantise import nonlinear
from tutelage.host.quantise.fake import FakeQuantise, NormQuantise, Rounding
from tutelage.host.quantise.fix_points import FixPoints
from tutelage.host.quantise.layers.base import Layer
from tutelage.host.quantise.layers.convolution import AnyNorm, Conv
from tutelage.host.quantise.parameters import Parameters
from tutelage.host.quantise.quantisers import Quantiser

if TYPE_CHECKING:
    from tutelage.host.quantise.student import Student


class Forward:
    """The fix points used in one pass, and the rounding to them.

    Attributes
    ----------
    points : empty if an observer is set, which is called instead of rounding
    deployed : whether norms are folded with their running statistics, rather than applied with
        those of the batch
    parameters : name of a layer with weights -> weight and bias for its convolution
    exact : whether sums must equal the DPU's integer sums
    """

    def __init__(self, student: Student) -> None:
        self.student, self.observer = student, student.observer
        self.points = FixPoints() if self.observer is not None else student.points()
        self.thresholds = list(student.log2_t.unbind())
        for quantiser in student.input_quantisers:
            # A constant, so that the thresholds of inputs get no gradient.
            self.thresholds[quantiser.index] = student.log2_t.new_zeros(())
        self.exact = not student.training and self.observer is None
        self.deployed = not student.training or student.norm_frozen
        self.parameters = self._parameters()

    def rounded_result(self, layer: Layer, y: Tensor) -> Tensor:
        """Apply the norm and the activation of a layer to its result y, and round."""
        norm = layer.norm if isinstance(layer, Conv) and not self.deployed else None
        if layer.ties_fix_points:
            return y
        quantiser = self.student.activation_of[layer.name]
        if self.observer is not None:
            y = y if norm is None else _normalise(norm, y)
            y = nonlinear.apply_nonlinear(layer.nonlinear, y).to(self.student.log2_t.dtype)
            self.observer(quantiser.name, y.detach())
            return y
        fused = self.student.has_fused_relu(layer)
        threshold = self.thresholds[quantiser.index]
        rounding = _rounding(quantiser, self.points.activations[layer.name])
        if norm is not None:
            if (fused or layer.nonlinear == "NONE") and _is_alone(norm):
                return _normalised_and_rounded(norm, y, threshold, rounding, fused)
            y = _normalise(norm, y)
        if not fused:
            if self.exact and nonlinear.passes_float32(layer.nonlinear):
                y = y.double()
            y = nonlinear.apply_nonlinear(layer.nonlinear, y)
        rounded: Tensor = FakeQuantise.apply(y, threshold, *rounding, fused)
        return rounded.float()

    def _parameters(self) -> Parameters:
        if self.observer is None:
            student = self.student
            return student.all_parameters.rounded(self.points, student.log2_t, self.deployed)
        return {
            name: conv.folded() if self.deployed else (conv.weight, conv.bias)
            for name, conv in self.student.convs()
        }


def _rounding(quantiser: Quantiser, fix_point: int) -> Rounding:
    return Rounding(fix_point, quantiser.lowest, quantiser.highest)


def _momentum(norm: AnyNorm) -> float:
    return 0.1 if norm.momentum is None else norm.momentum


def _is_alone(norm: AnyNorm) -> bool:
    """Return whether `_normalised_and_rounded` supports this norm."""
    return world_size() == 1 and norm.affine


def _normalised_and_rounded(
    norm: AnyNorm, z: Tensor, threshold: Tensor, rounding: Rounding, relu: bool
) -> Tensor:
    statistics = norm.running_mean, norm.running_var, _momentum(norm), norm.eps
    y: Tensor = NormQuantise.apply(z, norm.weight, norm.bias, statistics, threshold, rounding, relu)
    return y


def _normalise(norm: AnyNorm, z: Tensor) -> Tensor:
    """Apply the norm with the batch's statistics, and update the running ones."""
    assert norm.running_mean is not None and norm.running_var is not None
    return batch_norm(
        z, norm.running_mean, norm.running_var, norm.weight, norm.bias, _momentum(norm), norm.eps
    )
