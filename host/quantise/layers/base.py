"""The interface of a layer, with defaults for one that computes each value from its inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from tutelage.core.fixed_point import MAX_SHIFT
from tutelage.dpu.ops.work import Shape
from tutelage.host.quantise.nonlinear import NON_NEGATIVE, least_fix_point

if TYPE_CHECKING:
    from tutelage.dpu.compiler.quantised import QuantisedModel
    from tutelage.dpu.xmodel.op import Op
    from tutelage.host.quantise.forward import Forward
    from tutelage.host.quantise.layers.convolution import Deployed

Pair = tuple[int, int]  # (height, width), as in torch; the .xmodel has [width, height]
Pads = tuple[int, int, int, int]  # (left, right, top, bottom)


class Layer(nn.Module):
    """A node of the student's graph.

    A layer overrides `forward`, `to_xmodel` and, where the defaults are not its own, the rest.

    Attributes
    ----------
    name : its key among the student's layers
    inputs : names of the layers whose outputs it takes; none for the images
    shape : its output's (C, H, W)
    nonlinear : NONE, RELU, RELU6 or LEAKYRELU, applied to its result
    op_type : of its op in a quantised graph
    ties_fix_points : it only picks or moves values, so that its inputs and its output have one
        fix point and nothing is rounded behind it
    joins : it joins several maps, which the DPU holds at 8 bits whatever their levels
    has_weights : it has weights that are rounded to a fix point of their own
    takes_activation : an activation behind it can be a part of it (its op type's `fuses` has which)
    needs_int8 : its result has 8 bits, whatever other activations have
    channels_last : a result of four axes has its channels last in an .xmodel, as all maps have;
        else it has the axes that the network's output has
    output_places : which of the network's outputs it gives
    """

    op_type = ""
    ties_fix_points = False
    joins = False
    has_weights = False
    takes_activation = False
    needs_int8 = False
    channels_last = True

    def __init__(self, inputs: tuple[str, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.name = ""
        self.inputs = inputs
        self.shape = shape
        self.nonlinear = "NONE"
        self.output_places: tuple[int, ...] = ()

    def compute(self, forward: Forward, *inputs: Tensor) -> Tensor:
        """Return the result before its activation and its rounding.

        Parameters
        ----------
        forward : the pass, which rounds parameters
        inputs : the values of `self.inputs`; the images for a layer without inputs
        """
        return self(*inputs)

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        """Return whether a result before the activation can be negative.

        Parameters
        ----------
        inputs : whether each input can be
        """
        return any(inputs)

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """Return how a threshold must move, None where the DPU has the layer's shifts."""
        return None

    def least_fix_point(self) -> int | None:
        """Return the lowest fix point of its result at which the DPU computes it, None for any."""
        return least_fix_point(self.nonlinear)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        """Add the layer to a quantised graph and return the op with its value.

        Parameters
        ----------
        model : the graph under construction
        inputs : the ops of `self.inputs`
        fix_point : of the result
        integers : the parameters, for a layer with weights
        """
        raise NotImplementedError(f"{type(self).__name__}.to_xmodel")

    @property
    def output_shape(self) -> Shape:
        """Height, width and channels."""
        if len(self.shape) == 3:
            return self.shape[1], self.shape[2], self.shape[0]
        return 1, 1, math.prod(self.shape)


def is_signed(layers: Mapping[str, Layer], name: str) -> bool:
    """Return whether the value of a layer can be negative."""
    layer = layers[name]
    if layer.nonlinear in NON_NEGATIVE:
        return False
    return layer.can_be_negative(is_signed(layers, source) for source in layer.inputs)


class Move(NamedTuple):
    """A threshold that must change: its index, its new fix point, what would happen without."""

    threshold: int
    fix_point: int
    reason: str


@dataclass(frozen=True)
class LayerThresholds:
    """The thresholds around one layer, while fix points are settled.

    Attributes
    ----------
    points : fix point by threshold, of the whole student
    least : the lowest fix point that a threshold of weights, or of activations that have one, may
        get, by threshold
    inputs, output : thresholds of the layer's inputs and of its output
    weights : threshold of its weights, None without
    """

    points: list[int]
    least: list[int]
    inputs: list[int]
    output: int
    weights: int | None

    def at(self, threshold: int) -> int:
        """Return the fix point of a threshold."""
        return self.points[threshold]

    def shift(self, source: int, gain: int = 0, most: int = MAX_SHIFT) -> Move | None:
        """Return the move for a result that is `source`'s value shifted.

        Parameters
        ----------
        source : threshold of the value before the shift
        gain, most : bits by which the output may be finer, and coarser, than it
        """
        shift = self.at(source) - self.at(self.output)
        if shift < -gain:
            return Move(self.output, self.at(source) + gain, f"gain {-shift} bits")
        if shift > most:
            return Move(source, self.at(self.output) + most, f"shift by {shift}")
        return None


def width_height(pair: Pair) -> Pair:
    """Return a (height, width) in the order of XIR."""
    height, width = pair
    return width, height


def pads(padding: Pair) -> Pads:
    """Return (left, right, top, bottom) of a (height, width) of padding on each side."""
    height, width = padding
    return width, width, height, height
