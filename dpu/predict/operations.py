"""A network as shapes: inputs, computation and output of each operation, without any values.

It is the input of `tutelage.dpu.predict.latency`. It comes from a quantised or compiled .xmodel
(`operations_of`), or is written directly as a `Sketch`, which needs neither weights nor PyTorch and
takes a millisecond for a DenseNet.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tutelage.dpu.inspect.layers import INPUT, Layer
from tutelage.dpu.ops.registry import op_type
from tutelage.dpu.ops.work import Shape


@dataclass(frozen=True)
class Operation:
    """One operation of a network for one image.

    Attributes
    ----------
    name : display name
    kind : as `tutelage.dpu.inspect.layers.Layer.kind`; dense layers are convolutions over the whole
        map
    output : shape of the result, (1, 1, values) if it has no rows and columns
    sources : indices of the operations that it reads
    kernel, stride : height and width of the window
    depth : number of input channels per output value (1 in a depthwise convolution)
    parameters : number of constant values that it reads, one byte each
    on_dpu : whether the DPU computes it
    augmented : whether kernel width and input channels share the array's input lanes; None to
        decide by `tutelage.dpu.ops.convolution.augmented_channels`
    constants : shapes of elementwise constants, read like the sources
    """

    name: str
    kind: str
    output: Shape
    sources: tuple[int, ...] = ()
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    depth: int = 0
    parameters: int = 0
    on_dpu: bool = True
    augmented: bool | None = None
    constants: tuple[Shape, ...] = ()

    @property
    def macs(self) -> int:
        """Number of multiply-accumulates; 0 without weights."""
        products = math.prod(self.output) * math.prod(self.kernel) * self.depth
        # A transposed convolution applies the kernel once per input value.
        steps = math.prod(self.stride) if op_type(self.kind).spreads else 1
        return products // steps


class Sketch:
    """Builder of a network, operation by operation; each method returns the index of the new one.

    `pad` is "same" (out = ceil(in / stride)), "valid", or the number of rows and columns added on
    each side. `operations` has the result.
    """

    def __init__(self, height: int, width: int, channels: int = 3) -> None:
        self.operations = [Operation(INPUT, INPUT, (height, width, channels), on_dpu=False)]

    def shape(self, x: int) -> Shape:
        """Return the shape of an operation's result."""
        return self.operations[x].output

    def conv(
        self,
        x: int,
        channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        pad: str | int = "same",
        bias: bool = True,
    ) -> int:
        """Add a convolution with its batch norm and activation, which are free."""
        k = _pair(kernel)
        depth = self.shape(x)[2]
        out = self._window(x, k, stride, pad, channels)
        parameters = channels * (math.prod(k) * depth + bias)
        return self._add("conv2d", out, (x,), k, stride, depth, parameters)

    def depthwise(
        self, x: int, kernel: int = 3, stride: int = 1, pad: str | int = "same", outputs: int = 1
    ) -> int:
        """Add a depthwise convolution with `outputs` output channels per input channel."""
        k, channels = _pair(kernel), outputs * self.shape(x)[2]
        out = self._window(x, k, stride, pad, channels)
        parameters = channels * (math.prod(k) + 1)
        return self._add("depthwise-conv2d", out, (x,), k, stride, 1, parameters)

    def pool(
        self,
        x: int,
        kernel: int = 2,
        stride: int = 2,
        pad: str | int = "same",
        kind: str = "maxpool2d",
        ceil: bool = False,
    ) -> int:
        """Add a maximum or average pool; with `ceil` a last partial window counts, as in Caffe."""
        k = _pair(kernel)
        out = self._window(x, k, stride, pad, self.shape(x)[2], ceil)
        return self._add(kind, out, (x,), k, stride)

    def global_pool(self, x: int) -> int:
        """Add a global average pool."""
        height, width, channels = self.shape(x)
        size = (height, width)
        return self._add("avgpool2d", (1, 1, channels), (x,), size, size)

    def dense(self, x: int, outputs: int) -> int:
        """Add a fully connected layer: a convolution over the whole map."""
        height, width, channels = self.shape(x)
        parameters = outputs * (height * width * channels + 1)
        return self._add("conv2d", (1, 1, outputs), (x,), (height, width), 1, channels, parameters)

    def add(self, *sources: int) -> int:
        """Add a sum of maps."""
        return self._add("eltwise", self.shape(sources[0]), sources)

    def scale(self, x: int, factors: int) -> int:
        """Add a product of a map and one factor per channel."""
        return self._add("eltwise", self.shape(x), (x, factors))

    def concat(self, *sources: int) -> int:
        """Add a concatenation of maps along the channels."""
        height, width, _ = self.shape(sources[0])
        channels = sum(self.shape(source)[2] for source in sources)
        return self._add("concat", (height, width, channels), sources)

    def upsample(self, x: int, factor: int = 2) -> int:
        """Add a nearest upsampling, which repeats each value."""
        height, width, channels = self.shape(x)
        return self._add("upsample", (height * factor, width * factor, channels), (x,))

    def elementwise(self, kind: str, x: int) -> int:
        """Add an activation that cannot be fused into a convolution, such as "hard-sigmoid"."""
        return self._add(kind, self.shape(x), (x,))

    def _window(
        self,
        x: int,
        kernel: tuple[int, int],
        stride: int,
        pad: str | int,
        channels: int,
        ceil: bool = False,
    ) -> Shape:
        if pad == "same":
            height, width = (-(-size // stride) for size in self.shape(x)[:2])
            return height, width, channels
        add = 0 if pad == "valid" else int(pad)
        extra = stride - 1 if ceil else 0
        height, width = (
            (size + 2 * add - k + extra) // stride + 1
            for size, k in zip(self.shape(x)[:2], kernel, strict=True)
        )
        return height, width, channels

    def _add(
        self,
        kind: str,
        output: Shape,
        sources: tuple[int, ...],
        kernel: tuple[int, int] = (1, 1),
        stride: int | tuple[int, int] = 1,
        depth: int = 0,
        parameters: int = 0,
    ) -> int:
        name = f"{kind}{len(self.operations)}"
        self.operations.append(
            Operation(name, kind, output, sources, kernel, _pair(stride), depth, parameters)
        )
        return len(self.operations) - 1


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def operations_of(layers: list[Layer], on_cpu: Collection[str] = ()) -> list[Operation]:
    """Return the layers of an .xmodel as operations, in the same order.

    Parameters
    ----------
    layers : as returned by `tutelage.dpu.inspect.layers.layers_of`
    on_cpu : names of ops that the CPU computes although the DPU supports their kind
    """
    places = {id(layer): place for place, layer in enumerate(layers)}
    return [_operation(layer, places, layer.name in on_cpu) for layer in layers]


def _operation(layer: Layer, places: dict[int, int], left: bool) -> Operation:
    kind, (kernel, depth) = layer.kind, _taps(layer)
    if layer.type.dense and layer.weights is not None:
        kind = layer.type.becomes
    stride_w, stride_h = layer.stride
    return Operation(
        layer.name,
        kind,
        _shape(layer.dims),
        tuple(places[id(source)] for source in layer.sources),
        kernel,
        (stride_h, stride_w),
        depth,
        layer.parameters,
        on_dpu=runs_on_dpu(layer) and not left,
        augmented=_augmented(layer),
        constants=tuple(
            _shape(op.get_output_tensor().dims) for op in layer.constants.get("input", ())
        ),
    )


def _augmented(layer: Layer) -> bool | None:
    """Return whether channel augmentation is used, if AMD's compiler wrote the op, else None."""
    if not layer.op.has_attr("workload_on_arch"):
        return None
    return layer.op.has_attr("channel_augmentation")


def runs_on_dpu(layer: Layer) -> bool:
    """Return whether the DPU computes the layer, by the file's device or else by kind."""
    if layer.kind == INPUT:
        return False
    if layer.device is not None:
        return layer.device == "DPU"
    return layer.type.predicted_on_dpu


def _taps(layer: Layer) -> tuple[tuple[int, int], int]:
    """Return the kernel (height, width) and the number of input channels per output value."""
    width, height = layer.kernel or [1, 1]
    if layer.weights is None:
        return (height, width), 0
    return (height, width), layer.type.depth(layer.op, layer.weights.get_output_tensor().dims)


def _shape(dims: list[int]) -> Shape:
    """Return height, width and channels of a tensor's dims, whose first is the batch."""
    if len(dims) == 4:
        return dims[1], dims[2], dims[3]
    return 1, 1, math.prod(dims[1:])
