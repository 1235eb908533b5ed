"""Layers as the DPU's engines compute them, by CONV, ALU, ELEW or copies.

Op types describe their int8 form in these terms (`OpType.engine_layers`); the compiler
(`tutelage.dpu.compiler.board`) uses nothing else of them. Shifts and factors are those of the
instructions' fields (docs/reference/instruction-set.md). The ops import this module only in that
method: a board, which uses their files for CPU ops, does not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from tutelage.core.fixed_point import Array
from tutelage.dpu.ops.refusal import Refusal

NO_ACTIVATION, RELU, LEAKY_RELU, RELU6 = 0, 1, 3, 4
"""`act_type` of CONV and ALU."""

ACTIVATIONS = {"NONE": NO_ACTIVATION, "RELU": RELU, "LEAKYRELU": LEAKY_RELU, "RELU6": RELU6}
"""`act_type` by the attribute `nonlinear` of compiled ops."""

DEPTHWISE, AVERAGE, MAXIMUM, SCALE, HARD_SIGMOID = 0, 2, 3, 6, 7
"""`exec_mode` of ALU: depthwise convolution, pools, depthwise without bias, hard sigmoid."""


_POOL_SHIFT_SIGN, _MAX_POOL_SHIFT = 8, 55
"""`shift_cut` of pools: values from the first up shift right, by at most the second."""


def pool_shift_cut(shift: int) -> int:
    """Return `shift_cut` of a pool that shifts to the left, or to the right if negative.

    Raises
    ------
    Refusal
        The instruction has no such shift.
    """
    if not -_MAX_POOL_SHIFT <= shift < _POOL_SHIFT_SIGN:
        raise Refusal(f"pool shift {shift} is out of range")
    return shift if shift >= 0 else _POOL_SHIFT_SIGN - shift


@dataclass(frozen=True)
class Phase:
    """Rows and columns of the output map that a layer computes: ``first + step * index``.

    A transposed convolution is one layer per phase of its stride.
    """

    row: int = 0
    row_step: int = 1
    column: int = 0
    column_step: int = 1


@dataclass(frozen=True)
class EngineLayer:
    """Fields common to the layers of all engines.

    Attributes
    ----------
    op : name of the op whose value, or a phase of it, the layer computes
    inputs : names of the ops whose values it reads, each [1, H, W, C]
    """

    op: str
    inputs: tuple[str, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all ops whose values it reads."""
        return self.inputs


@dataclass(frozen=True)
class WindowLayer(EngineLayer):
    """A kernel that slides over one map.

    Attributes
    ----------
    kernel, stride : height and width
    pads : rows above the map and columns left of it; negative if the kernel begins inside the map
    dilation : distance between neighbouring taps, in rows and columns
    output : height and width of the result, of its phase only
    phase : phase of the output map
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    output: tuple[int, int] = (1, 1)
    phase: Phase = Phase()

    @property
    def is_dilated(self) -> bool:
        """Whether its taps are apart; with stride 1 it is computed in phases (walk.dilated)."""
        return self.dilation != (1, 1)


@dataclass(frozen=True)
class ConvLayer(WindowLayer):
    """A convolution on the array.

    Attributes
    ----------
    weights : int8 [outputs, kernel_h, kernel_w, inputs]
    bias : int8 [outputs]
    side : block size of depth-to-space on the output, whose channels are (dy, dx, c); 1 for none
    """

    weights: Array = field(default_factory=lambda: np.zeros((0, 1, 1, 0), np.int8))
    bias: Array = field(default_factory=lambda: np.zeros(0, np.int8))
    side: int = 1
    shift_cut: int = 0
    shift_bias: int = 0
    act_type: int = NO_ACTIVATION

    @cached_property
    def used(self) -> Array:
        """Whether an output has a non-zero weight for an input channel, bool [outputs, inputs]."""
        return np.asarray(self.weights.any((1, 2)))


@dataclass(frozen=True)
class AluLayer(WindowLayer):
    """A pool, a depthwise convolution or a unary function, on the MISC engine.

    Attributes
    ----------
    mode : `exec_mode`
    weights : int8 [kernel_h, kernel_w, channels], for DEPTHWISE and for SCALE by constants
    bias : int8 [channels], for DEPTHWISE
    factor : `multi_factor`
    scaled_by : for SCALE, the op whose value [1, 1, 1, C] is the weights; "" for constants
    """

    mode: int = MAXIMUM
    weights: Array | None = None
    bias: Array | None = None
    shift_cut: int = 0
    shift_bias: int = 0
    act_type: int = NO_ACTIVATION
    factor: int = 0
    scaled_by: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.inputs, self.scaled_by) if self.scaled_by else self.inputs


@dataclass(frozen=True)
class EltwiseLayer(EngineLayer):
    """A sum or product of up to four maps of one shape; with one map, a requantised copy.

    Attributes
    ----------
    product : whether it is a product
    shift_reads : shift of each input
    shift_write : exponent of the power of two that multiplies the result; may be negative
    relu : whether a ReLU follows
    """

    product: bool = False
    shift_reads: tuple[int, ...] = (0,)
    shift_write: int = 0
    relu: bool = False


@dataclass(frozen=True)
class RepeatLayer(EngineLayer):
    """Each pixel repeated `rows` times down and `columns` times across, by copies."""

    rows: int = 1
    columns: int = 1


@dataclass(frozen=True)
class BlocksLayer(EngineLayer):
    """Space to depth or back in blocks of `side` pixels.

    Attributes
    ----------
    channels_last : whether the order of channels is (dy, dx, c), else (c, dy, dx)
    """

    side: int = 2
    to_space: bool = True
    channels_last: bool = True


def spread_taps(layer: ConvLayer | AluLayer) -> ConvLayer | AluLayer:
    """Return a layer without dilation, with zeros between the taps of its kernel instead."""
    dilation = layer.dilation
    if not layer.is_dilated or layer.weights is None:
        return layer
    height, width = ((k - 1) * d + 1 for k, d in zip(layer.kernel, dilation, strict=True))
    axes = layer.weights.ndim - 3  # of the kernel's rows
    shape = list(layer.weights.shape)
    shape[axes : axes + 2] = height, width
    weights = np.zeros(shape, np.int8)
    weights[..., :: dilation[0], :: dilation[1], :] = layer.weights
    return replace(layer, kernel=(height, width), dilation=(1, 1), weights=weights)


def phase_of(
    layer: ConvLayer | AluLayer, phase: tuple[int, int], stride: tuple[int, int]
) -> ConvLayer | AluLayer:
    """Return the convolution that computes one phase of a transposed convolution.

    Parameters
    ----------
    layer : with ``stride - 1`` zeros between the pixels of its input, its pads and its whole output
    phase : row and column phase of the output
    stride : vertical and horizontal stride
    """
    assert layer.weights is not None
    kernel, pads, output, weights = [], [], [], layer.weights
    for axis in (0, 1):
        # Output a reads the indices a - pad + tap of the spread input; every stride-th is a pixel.
        first = (layer.pads[axis] - phase[axis]) % stride[axis]
        taps = np.arange(first, layer.kernel[axis], stride[axis])
        begin = (phase[axis] - layer.pads[axis] + first) // stride[axis]
        at = weights.ndim - 3 + axis
        weights = weights.take(taps, at)
        before = max(0, begin) if len(taps) else 1  # so that the window begins on the map
        shape = [before if axis_ == at else n for axis_, n in enumerate(weights.shape)]
        weights = np.concatenate([np.zeros(shape, np.int8), weights], at)
        kernel.append(weights.shape[at])
        pads.append(before - begin if len(taps) else 0)
        output.append(-(-(layer.output[axis] - phase[axis]) // stride[axis]))
    where = Phase(phase[0], stride[0], phase[1], stride[1])
    return replace(
        layer, kernel=(kernel[0], kernel[1]), stride=(1, 1), pads=(pads[0], pads[1]),
        output=(output[0], output[1]), phase=where, weights=weights,
    )  # fmt: skip
