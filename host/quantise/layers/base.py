"""The interface of a layer, with defaults for layers that compute values from their inputs."""

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

Pair = tuple[int, int]  # (height, width), as in PyTorch; an .xmodel has [width, height]
Pads = tuple[int, int, int, int]  # (left, right, top, bottom)


class Layer(nn.Module):
    """A node of the student's graph.

    Subclasses override `forward`, `to_xmodel` and, where the defaults do not apply, other methods.

    Attributes
    ----------
    name : its key among the student's layers
    inputs : names of the layers whose outputs it reads; empty for an input of the network
    shape : (C, H, W) of its output
    nonlinear : the activation applied to its result: NONE, RELU, RELU6, RELU8 or LEAKYRELU
    op_type : type of its op in a quantised graph
    ties_fix_points : whether it only selects or moves values, so that its inputs and its output
        share one fix point and its result is not rounded
    joins : whether it concatenates maps, which the DPU stores with 8 bits for any bit width
    has_weights : whether it has weights, with their own fix point
    takes_activation : whether it can include an activation (`fuses` of its op type lists which)
    needs_int8 : whether its result always has 8 bits
    channels_last : whether a result of four dimensions has its channels last in an .xmodel, as all
        maps do; otherwise its dimensions are those of the network's output
    output_places : positions of its value among the network's outputs
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
        forward : the pass, with the rounded parameters
        inputs : the values of `self.inputs`, [N, C, H, W]; the images for an input of the network
        """
        return self(*inputs)

    def can_be_negative(self, inputs: Iterable[bool]) -> bool:
        """Return whether the result before the activation can be negative.

        Parameters
        ----------
        inputs : for each input, whether it can be negative
        """
        return any(inputs)

    def illegal_shift(self, around: LayerThresholds) -> Move | None:
        """Return how a threshold must move to make the shifts legal; None if they are."""
        return None

    def least_fix_point(self) -> int | None:
        """Return the lowest fix point of the result that the DPU supports; None: any."""
        return least_fix_point(self.nonlinear)

    def to_xmodel(
        self, model: QuantisedModel, inputs: list[Op], fix_point: int, integers: Deployed | None
    ) -> Op:
        """Add the layer to a quantised graph, and return the op with its value.

        Parameters
        ----------
        model : the graph under construction
        inputs : the ops of `self.inputs`
        fix_point : of the result
        integers : the parameters of a layer with weights; None for others
        """
        raise NotImplementedError(f"{type(self).__name__}.to_xmodel")

    @property
    def output_shape(self) -> Shape:
        """Height, width and channels of the output."""
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
    """A required change of a threshold: its index, its new fix point, and the problem it solves."""

    threshold: int
    fix_point: int
    reason: str


@dataclass(frozen=True)
class LayerThresholds:
    """The thresholds around one layer, while fix points are made legal.

    Attributes
    ----------
    points : current fix point of each threshold of the student
    least : lowest fix point allowed for each threshold, for those of weights and of activations
        with a lowest
    inputs, output : indices of the thresholds of the layer's inputs and of its output
    weights : index of the threshold of its weights; None without weights
    """

    points: list[int]
    least: list[int]
    inputs: list[int]
    output: int
    weights: int | None

    def at(self, threshold: int) -> int:
        """Return the current fix point of a threshold."""
        return self.points[threshold]

    def shift(self, source: int, gain: int = 0, most: int = MAX_SHIFT) -> Move | None:
        """Return the move required for an output that is a shifted input; None if none is.

        Parameters
        ----------
        source : threshold of the value before the shift
        gain, most : largest number of bits by which the output may be finer, or coarser
        """
        shift = self.at(source) - self.at(self.output)
        if shift < -gain:
            return Move(self.output, self.at(source) + gain, f"gain {-shift} bits")
        if shift > most:
            return Move(source, self.at(self.output) + most, f"shift by {shift}")
        return None


def width_height(pair: Pair) -> Pair:
    """Convert (height, width) to (width, height), the order of XIR."""
    height, width = pair
    return width, height


def pads(padding: Pair) -> Pads:
    """Convert symmetric padding (height, width) to (left, right, top, bottom)."""
    height, width = padding
    return width, width, height, height
